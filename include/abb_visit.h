/*
 * visit (floor 5): one request at one site.
 *
 * Which site it is, which session it has, and how to send it to sign in. Found
 * once per request; subrequests and internal redirects share what was found.
 * Knows no rule and decides nothing.
 */
#ifndef ABB_VISIT_H
#define ABB_VISIT_H

#include "abb_config.h"
#include "abb_login.h"
#include "abb_recheck.h"
#include "abb_refusal.h"

/* The answers of Bitbucket that a decision rests on. */
typedef struct abb_visit_basis_t {
    /* Rows, each once, all of them: `first` while they fit there. */
    const char **workspaces;
    int count;
    int room;
    const char *first[ABB_BITBUCKET_WORKSPACES_MAX];
    /* Names of the account, which may change. */
    int names;
    /* When the oldest of them was asked for; 0: there is none. */
    apr_time_t oldest;
} abb_visit_basis_t;

typedef struct abb_visit_t {
    /* Memory of what the visit keeps: that of the request that began it. */
    apr_pool_t *pool;
    abb_site_t *site;
    /* As they came; applications do not see ours. */
    abb_cookies_t cookies;
    /* NULL while not looked for, or not there. */
    abb_session_t *session;
    /* When it began: what Bitbucket said is as old as it was then. */
    apr_time_t now;
    /* Workspaces that the place asks about, each once, as far as Bitbucket is asked at once. */
    const char *wanted[ABB_BITBUCKET_WORKSPACES_MAX];
    int wanted_count;
    /* How old the oldest of that is, when it is due and cannot be asked; else 0. */
    apr_interval_time_t stale;
    /* What a place on the way took out of Authorization; its application does not see it. */
    const char *authorization;
    /* Of the request, not of its subrequests: the place whose application was given things. */
    const ap_conf_vector_t *passed_at;
    /* For applications that get it, see abb_ask_token; NULL: not asked for, or none is good. */
    const char *access_token;
    /* What the decision rests on. */
    abb_visit_basis_t basis;
    /* The last rule that said no, in plain words, or NULL. */
    const char *refused_by;
    /* Nobody is signed in, and the place lets strangers on to its rules. */
    int is_stranger;
    /* The session is of a credential in Authorization, not of a cookie. */
    int is_named;
    /* And that is a Bearer token, which some places only take. */
    int is_bearer;
    /* It has been counted as a request with a session. */
    int is_counted;
    /* It has waited for Bitbucket, or for another who asks. */
    int has_asked;
    /* A rule that names accounts let this one in. */
    int is_account_named;
    /* The nested run of the access rules is under way. */
    int is_deciding;
    /* The answer already brings the browser its badge, see abb_draft.h. */
    int has_given_badge;
    /* A negated rule could not be decided, and Bitbucket is not the reason. */
    int is_undecidable;
    /* Headers say who it is, of this request or of one that it came from. */
    int has_headers;
    /*
     * Why a rule could not be decided, and why Bitbucket was asked in vain for this
     * request; status APR_SUCCESS when that is not so. They stay last.
     */
    abb_error_t trouble;
    abb_error_t failure;
} abb_visit_t;

/*
 * The visit of a request, made on first need: our cookies and whatever begins as
 * our headers are taken out of the request. NULL when no directive of ours
 * reaches its server. Lifetime: the first request of the chain.
 */
abb_visit_t *abb_visit_of(request_rec *r);

/*
 * The first act on every request to a server that a directive of ours reaches,
 * protected or not: make the visit.
 */
void abb_visit_begin(request_rec *r);

/*
 * Before httpd looks for the file: have the session's record brought near. It costs
 * an unprotected page some instructions, and spares others most waiting for memory.
 */
void abb_visit_expect_session(request_rec *r);

/*
 * Trailers may come with the names of headers, and httpd may be told to put them among
 * these (MergeTrailers): before a request with a body is answered, have them scrubbed
 * as they come. The filter is registered once, at start-up.
 */
void abb_visit_register_filter(void);
void abb_visit_watch_trailers(request_rec *r);

/* The visit of a request if there is one already, else NULL. */
abb_visit_t *abb_visit_find(request_rec *r);

/*
 * The same of a request that goes on as somebody whom this module knows, with the
 * session; else NULL. Strangers who were let on to the rules are nobody.
 */
abb_visit_t *abb_visit_find_identified(request_rec *r);

/*
 * What the client sent in Authorization, also behind a place that took it out; NULL:
 * nothing. Lifetime: the request's.
 */
const char *abb_visit_authorization(const abb_visit_t *visit, const request_rec *r);

/*
 * Look for the session of the request's cookie.
 * Errors: APR_NOTFOUND none; ABB_ESTORE, ABB_ECRYPTO could not look.
 */
apr_status_t abb_visit_find_session(abb_visit_t *visit, abb_error_t *err);

/*
 * The same of a session that has run out, when the cookie's session was not found; see
 * abb_session_take_ended.
 */
apr_status_t abb_visit_take_ended(const abb_visit_t *visit, abb_session_t **session,
                                  const char **why);

/* What the rooms below need of the site. */
abb_login_t abb_visit_login(const abb_visit_t *visit);
abb_recheck_t abb_visit_recheck(const abb_visit_t *visit);

/* Remember a workspace that the place asks about, for what will be asked at once. */
void abb_visit_want_workspace(abb_visit_t *visit, const char *workspace);

/* Note that the decision rests on a row. */
void abb_visit_rest_on(abb_visit_t *visit, const char *workspace, apr_time_t checked_at);

/*
 * Name something for the site's throttle: a keyed hash, so that nobody chooses which
 * names meet. Names of different kinds are different. Errors: ABB_ECRYPTO.
 */
apr_status_t abb_visit_name(const abb_visit_t *visit, char kind, const void *bytes, apr_size_t size,
                            apr_uint64_t *name, abb_error_t *err);
/* The same of the client's address, as mod_remoteip has it; of IPv6 the network (/64). */
apr_status_t abb_visit_name_network(const abb_visit_t *visit, const request_rec *r, char kind,
                                    apr_uint64_t *name, abb_error_t *err);

/*
 * Claim an attempt for as long as it could be finished, so that its code is sent once
 * also when the callback comes several times at once. Returns 0 when another request
 * of this machine has done so.
 */
int abb_visit_claim(const abb_visit_t *visit, const abb_ticket_t *ticket);

/*
 * Take a place among those who may wait for Bitbucket, for as long as a sign-in or
 * re-check can take; _patiently: as abb_gate_wait. Returns 0 when there is none.
 */
int abb_visit_enter(const abb_visit_t *visit, abb_gate_place_t *place);
int abb_visit_enter_patiently(const abb_visit_t *visit, abb_gate_place_t *place);
/* The same for those who bring a credential that nobody knows yet: half of the places. */
int abb_visit_enter_unknown(const abb_visit_t *visit, abb_gate_place_t *place);
void abb_visit_leave(const abb_visit_t *visit, const abb_gate_place_t *place);

/* Tell the log that a request was turned away because it found no place. */
void abb_visit_tell_crowd(const abb_visit_t *visit, request_rec *r);

/*
 * Send the browser to Bitbucket to sign in and come back to a path that passed
 * abb_text_local_path. attempt as in abb_login_begin. Keeps the newest attempts'
 * cookies and drops older ones. Returns the status to return from the hook.
 */
int abb_visit_begin_login(abb_visit_t *visit, request_rec *r, const char *return_path, int attempt);

/*
 * The whole address at which a sign-in begins: at the host whose cookies the
 * callback will see, whatever name the visitor used. return_path may be NULL.
 * Lifetime: r->pool.
 */
const char *abb_visit_login_url(const abb_visit_t *visit, request_rec *r, const char *return_path);

/* What to offer a refused visitor who wanted a path, NULL for none in particular. */
abb_refusal_offers_t abb_visit_offers(const abb_visit_t *visit, request_rec *r,
                                      const char *return_path);

/* Answer with the page of a reason, and those offers. Returns the status to return from the hook. */
int abb_visit_refuse(const abb_visit_t *visit, request_rec *r, const abb_error_t *err,
                     const char *return_path);

#endif
