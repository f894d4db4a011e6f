/*
 * authn (floor 7): the decision about a request to a protected place.
 *
 * Is it ours? Is there a session? What do the rules say? httpd's hooks lead
 * here; what is found becomes r->user and variables, or an answer.
 */
#ifndef ABB_AUTHN_H
#define ABB_AUTHN_H

#include <httpd.h>

#include <http_config.h>

/* post_read_request: the first act on every request, see abb_visit_begin. */
int abb_authn_begin(request_rec *r);

/*
 * check_authn: who is it? Sets r->user, or sends to sign in, or refuses.
 * Threads: may wait for Bitbucket.
 */
int abb_authn_check(request_rec *r);

/*
 * auth_checker, before httpd's own: let httpd decide by its Require lines, then
 * turn its answer into ours: 403 for somebody signed in, 503 when a rule could
 * not be decided. Threads: may wait for Bitbucket.
 */
int abb_authn_check_access(request_rec *r);

/*
 * insert_filter and insert_error_filter: keep answers to signed-in visitors out
 * of shared caches. Of a part, as of an include, it comes too late.
 */
void abb_authn_insert_filter(request_rec *r);

/* Make the filter that does it known to httpd. Threads: start-up only. */
void abb_authn_register_filter(void);

/*
 * fixups: give the application what its place says: headers, the access token, and no
 * credential that signs in here; see abb_pass_complete. To a request that httpd made of
 * another one (ErrorDocument, an internal redirect, a subrequest) also the variables of
 * identity or refusal, and to a place that lets everybody in who it is, if anybody.
 * Threads: may wait for Bitbucket; refuses nothing.
 */
int abb_authn_fixups(request_rec *r);

/*
 * fixups, behind all others: mod_dir may have made the request that of a directory's
 * index, which may be at another place; see abb_pass_renew. Refuses nothing.
 */
int abb_authn_fixups_last(request_rec *r);

#endif
