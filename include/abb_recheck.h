/*
 * recheck (floor 4): questions to Bitbucket for one session.
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

/* What is to be found out about a session's account. */
typedef struct abb_recheck_question_t {
    /* Who it is, and its addresses. */
    int account;
    /*
     * Its roles in these, as rules name them, lower case; one may come twice. Of
     * those that need it ABB_BITBUCKET_WORKSPACES_MAX are asked about at once.
     */
    const char *const *workspaces;
    int workspace_count;
    /* An answer that was asked for at this time or later is good enough. */
    apr_time_t since;
    /* The access token is to be good until then, and proved to be the account's; 0: whatever. */
    apr_time_t token_until;
} abb_recheck_question_t;

typedef enum {
    /* Ask, or wait for another who asks about this session. */
    ABB_RECHECK_WAIT,
    /* Wait for another who asks, for a second at most; do not ask. */
    ABB_RECHECK_FOLLOW,
    /* Ask, unless another does; wait for nobody. */
    ABB_RECHECK_ASIDE
} abb_recheck_manner_t;

/* What else came of it. Lifetime: the pool given. */
typedef struct abb_recheck_notes_t {
    /* Bitbucket was asked, not only the store. */
    int has_asked;
    /* As in abb_bitbucket_visitor_t. */
    const char *doubt;
    const char *change;
    /* As in abb_login_result_t. */
    const char *alarm;
    /* The session has ended for a reason that nobody should see. */
    int is_alarming;
} abb_recheck_notes_t;

/*
 * Ask Bitbucket and keep the answers; what the record already has since
 * question->since is taken instead, so that many requests at once make one
 * question. On success session->record holds all answers; on failure those that
 * came. A new access token is checked to be the same account's.
 * session, notes and err may not be NULL. Lifetime: p.
 * Errors: APR_NOTFOUND the session has ended, or ends now because Bitbucket
 * accepts neither its access nor its refresh token, or because of what the
 * account is (err tells); ABB_ESCOPE, ABB_ECLIENT the operator must act;
 * ABB_EUPSTREAM, ABB_ELIMIT, ABB_EGONE could not ask; ABB_EBUSY nobody else asks
 * (FOLLOW); ABB_ECHANGED another asks, or has just done so in
 * vain (ASIDE); ABB_ESTORE; ABB_ECRYPTO.
 * Threads: any; waits for Bitbucket, and as the manner says for others.
 */
apr_status_t abb_recheck_session(const abb_recheck_t *recheck, abb_session_t *session,
                                 const abb_recheck_question_t *question,
                                 abb_recheck_manner_t manner, abb_recheck_notes_t *notes,
                                 apr_pool_t *p, abb_error_t *err);

#endif
