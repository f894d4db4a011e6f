/*
 * api_token (floor 6): who it is, by what a command-line client brings.
 *
 *      Authorization --> a name (keyed hash) --> session of that name? --> it is that one
 *                                                        | no
 *                                     known wrong? too many wrong? no place to wait?
 *                                                        | no
 *                                       GET /2.0/user with it: one call
 *                                        | 200                    | 401, 403
 *                                   a new session             a verdict for a minute
 *
 * From then on the session is like any other, with rows and ages; but no cookie
 * names it, and its account is not taken for granted for longer than a minute. Knows
 * no rule.
 */
#ifndef ABB_API_TOKEN_H
#define ABB_API_TOKEN_H

#include "abb_visit.h"

/*
 * Find or begin the session of the request's credential: visit->session and
 * visit->is_named; once for a visit. The session of one never seen before has an account that has yet to
 * be asked about. The place must take API tokens, and Authorization must be of a scheme
 * that abb_credential_is_ours.
 * Errors: ABB_ECREDENTIAL malformed, of a kind that is not taken here, or Bitbucket
 * says 401; ABB_EPRIVILEGE it lacks the scope to say whose it is; ABB_EACCOUNT a bot or
 * not active; ABB_ETHROTTLED with retry_after; ABB_EBUSY; ABB_EUPSTREAM, ABB_ELIMIT could
 * not ask; ABB_ESTORE; ABB_ECRYPTO.
 * err may not be NULL. Threads: any; may wait for Bitbucket.
 */
apr_status_t abb_api_token_find_session(abb_visit_t *visit, request_rec *r, abb_error_t *err);

#endif
