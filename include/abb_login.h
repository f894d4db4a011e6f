/*
 * login (floor 4): begin and finish a sign-in.
 *
 * Two round trips to Bitbucket in sequence: the code for tokens, then account,
 * addresses and roles at the same time. Knows no cookie syntax, no httpd.
 */
#ifndef ABB_LOGIN_H
#define ABB_LOGIN_H

#include <apr_tables.h>

#include "abb_bitbucket.h"
#include "abb_session.h"
#include "abb_ticket.h"

/* What a sign-in needs of its site. Lifetime: the configuration's. */
typedef struct abb_login_t {
    const abb_sessions_t *sessions;
    const abb_bitbucket_t *bitbucket;
    abb_crypto_sealer_t *tickets;
    /* What follows the states of the site's attempts, see abb_hub.h; NULL: nothing. */
    const char *mark;
} abb_login_t;

/* What the browser must be given to sign in. Lifetime: the pool given. */
typedef struct abb_login_start_t {
    /* Bitbucket's address with all parameters. */
    const char *location;
    /* End of the name and value of the attempt's cookie. */
    const char *cookie_name;
    const char *cookie_value;
} abb_login_start_t;

/* The query Bitbucket sent the browser back with. Members may be NULL. */
typedef struct abb_login_callback_t {
    const char *state;
    const char *code;
    const char *error;
    const char *error_description;
} abb_login_callback_t;

/* A completed sign-in. Lifetime: the pool given. */
typedef struct abb_login_result_t {
    const char *cookie;
    abb_session_t *session;
    const char *return_path;
    /* Scopes that were granted, as in abb_tokens_t; NULL: not told. */
    const char *scope;
    /* Sentence for the log when an answer was odd but usable, else NULL. */
    const char *doubt;
    /* What Bitbucket says of an endpoint that it has withdrawn, else NULL. */
    const char *change;
    /* A slug is another workspace's or repository's now, else NULL; see abb_session_pin_grants. */
    const char *alarm;
} abb_login_result_t;

/*
 * Begin an attempt. return_path must have passed abb_text_local_path;
 * workspaces are those the requested place asks about, separated by spaces;
 * attempt is 1, or 2 for the second try of one visitor.
 * Errors: ABB_ECRYPTO. Asks nobody, stores nothing.
 */
apr_status_t abb_login_begin(const abb_login_t *login, const char *return_path,
                             const char *workspaces, int attempt, apr_time_t now,
                             abb_login_start_t *start, apr_pool_t *p, abb_error_t *err);

/*
 * Read the callback's query. Parameters of others are ignored.
 * Errors: ABB_EINPUT when a parameter comes twice, code and error come together
 * or neither, or state is missing. Nobody is asked before this passed.
 */
apr_status_t abb_login_read_callback(const char *query, abb_login_callback_t *callback,
                                     apr_pool_t *p, abb_error_t *err);

/*
 * What an error parameter means: ABB_ECANCELLED for access_denied,
 * ABB_EUPSTREAM for server_error and temporarily_unavailable, ABB_ESCOPE for
 * invalid_scope, ABB_ECLIENT else; with a sentence.
 * Source: RFC 6749 section 4.1.2.1.
 */
apr_status_t abb_login_explain_refusal(const abb_login_callback_t *callback, abb_error_t *err);

/*
 * Open the attempt a callback belongs to. cookie is the value of the attempt's
 * cookie, NULL when the browser brought none. Lifetime: p.
 * Errors: ABB_EATTEMPT; ticket->return_path is NULL then, unless the attempt is the
 * right one and only too old.
 */
apr_status_t abb_login_open_attempt(const abb_login_t *login, const abb_login_callback_t *callback,
                                    const char *cookie, apr_time_t now, abb_ticket_t *ticket,
                                    apr_pool_t *p, abb_error_t *err);

/*
 * Finish an attempt: exchange the code, ask who it is and what the workspaces
 * (of the ticket first, then `workspaces`, at most ABB_BITBUCKET_WORKSPACES_MAX
 * in all) say, and begin the session.
 * Errors: ABB_EATTEMPT the attempt was completed before; ABB_EGRANT,
 * ABB_ECLIENT, ABB_ESCOPE, ABB_EACCOUNT, ABB_EUPSTREAM, ABB_ELIMIT as Bitbucket
 * answers; ABB_ESTORE; ABB_ECRYPTO.
 * Threads: any; waits for Bitbucket.
 */
apr_status_t abb_login_finish(const abb_login_t *login, const abb_login_callback_t *callback,
                              const abb_ticket_t *ticket, const apr_array_header_t *workspaces,
                              apr_time_t now, abb_login_result_t *result, apr_pool_t *p,
                              abb_error_t *err);

/*
 * Where a callback led that was completed before, or NULL. Lifetime: p.
 */
const char *abb_login_recall(const abb_login_t *login, const abb_login_callback_t *callback,
                             apr_time_t now, apr_pool_t *p);

#endif
