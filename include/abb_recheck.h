/*
 * recheck (floor 4): one question to Bitbucket for one session.
 *
 * Refreshes the access token when it must, asks, and puts the answer into the
 * session's record. One holder at a time per session, over all threads and
 * processes: Bitbucket's refresh tokens are used up by use. Knows no rule, no
 * httpd.
 */
#ifndef ABB_RECHECK_H
#define ABB_RECHECK_H

#include "abb_bitbucket.h"
#include "abb_session.h"

/* An access token with less than this left is refreshed before use. */
#define ABB_RECHECK_TOKEN_MARGIN apr_time_from_sec(60)

/* What a re-check needs of its site. Lifetime: the configuration's. */
typedef struct abb_recheck_t {
    const abb_sessions_t *sessions;
    const abb_bitbucket_t *bitbucket;
} abb_recheck_t;

/*
 * Ask Bitbucket for the account's role in a workspace and keep the answer.
 * `older_than`: an answer already kept that is not older than this is taken
 * instead, so that many requests at once make one question. On success
 * session->record holds the row. *doubt: sentence for the log or NULL.
 * session and err may not be NULL. Lifetime: p.
 * Errors: APR_NOTFOUND the session has ended, or ends now because Bitbucket
 * accepts neither its access nor its refresh token (err tells); ABB_ESCOPE,
 * ABB_ECLIENT the operator must act; ABB_EUPSTREAM, ABB_ELIMIT, ABB_EGONE could
 * not ask; ABB_ESTORE; ABB_ECRYPTO.
 * Threads: any; waits for Bitbucket, and for another that asks for this session.
 */
apr_status_t abb_recheck_workspace(const abb_recheck_t *recheck, abb_session_t *session,
                                   const char *workspace, apr_time_t older_than, const char **doubt,
                                   apr_pool_t *p, abb_error_t *err);

#endif
