/*
 * pass (floor 6): what the application behind a request is given.
 *
 * Variables and headers, as the place of the request says: sub-requests and
 * internal redirects share what came before, and may be at another place. Knows no
 * rule, and not how it came to be known who it is.
 * Threads: the request's.
 */
#ifndef ABB_PASS_H
#define ABB_PASS_H

#include "abb_visit.h"

/*
 * Set the variables of a visit with a session, where the place passes variables.
 * May be called again when more is known.
 */
void abb_pass_variables(const abb_visit_t *visit, request_rec *r);

/*
 * When the rules have let the request in, of fixups: variables that httpd's internal
 * redirect left behind under other names are there again, headers are set, and a
 * credential that was taken as a sign-in is gone.
 */
void abb_pass_complete(request_rec *r);

/*
 * The same again where the request has become another one's since: for the index of a
 * directory mod_dir lays a subrequest over it, with its place, but without its headers.
 */
void abb_pass_renew(request_rec *r);

#endif
