/*
 * bitbucket (floor 3): what to ask Bitbucket Cloud and what its answers mean.
 *
 * URLs, paging, and the one table of what a status means. Knows no session, no
 * cookie, no httpd. Another provider would be another room beside this one.
 */
#ifndef ABB_BITBUCKET_H
#define ABB_BITBUCKET_H

#include "abb_account.h"
#include "abb_counters.h"
#include "abb_http.h"
#include "abb_traffic.h"

/* Bitbucket Cloud's own addresses. Source: "Use OAuth on Bitbucket Cloud", 2026-11-20. */
#define ABB_BITBUCKET_AUTHORIZE_URL "https://bitbucket.org/site/oauth2/authorize"
#define ABB_BITBUCKET_TOKEN_URL "https://bitbucket.org/site/oauth2/access_token"
#define ABB_BITBUCKET_API_URL "https://api.bitbucket.org/2.0"

/* Most workspaces asked about at once. */
#define ABB_BITBUCKET_WORKSPACES_MAX 8

/*
 * Told of an exchange when it is over, also of one that was not begun because Bitbucket is
 * to be left alone. Temporary memory from p. Threads: called by the one that asked.
 */
typedef void (*abb_bitbucket_listen_t)(void *listener, const abb_http_request_t *request,
                                       const abb_http_answer_t *answer, apr_pool_t *p);

/* One OAuth client at Bitbucket. Lifetime: the configuration's. */
typedef struct abb_bitbucket_t {
    const char *authorize_url;
    const char *token_url;
    /* Ends in /2.0, without a slash. */
    const char *api_url;
    const char *client_id;
    /* Secret. */
    const char *client_secret;
    /* Scopes to narrow to, separated by spaces, or NULL to send none. */
    const char *scope;
    /* Exactly the callback URL registered at Bitbucket. */
    const char *redirect_uri;
    /* Where a sign-in begins, before and behind the state: made by abb_bitbucket_settle. */
    const char *authorize_start;
    const char *authorize_end;
    abb_http_settings_t http_settings;
    /*
     * How long to wait before a question without an answer is sent once more, at
     * least; up to 300 ms come on top. 0: it is not. Never for codes and tokens.
     */
    apr_interval_time_t retry_pause;
    /* What is known of Bitbucket's condition; NULL: it is always asked. */
    abb_traffic_t *traffic;
    /* Counts what it is asked; NULL: nobody does. */
    abb_counters_t *counters;
    /* The child's connections; set when the child starts. */
    abb_http_t *http;
    /* Who is told of each exchange; NULL: nobody. */
    abb_bitbucket_listen_t listen;
    void *listener;
} abb_bitbucket_t;

/* What to ask about one account. */
typedef struct abb_bitbucket_question_t {
    /* Ask who it is, and together with that for its addresses. */
    int user;
    int emails;
    /* Who it must be: lower case, no braces; NULL only together with `user`. */
    const char *uuid;
    /*
     * Workspaces and repositories as rules name them (abb_grant_t.asked); the first
     * ABB_BITBUCKET_WORKSPACES_MAX are asked about.
     */
    const char *const *workspaces;
    int workspace_count;
    /* A bot is an answer, too, not only a person. */
    int takes_bots;
    /*
     * Whom a pause that Bitbucket asks for (429) is about while the uuid is not known;
     * NULL: somebody else each time, and pauses about several are about everybody.
     */
    const char *counts_as;
} abb_bitbucket_question_t;

/* What Bitbucket said. */
typedef struct abb_bitbucket_visitor_t {
    /* There was an answer about the account. */
    int has_account;
    /* As far as it was asked for: without `emails` there is no address. */
    abb_account_t account;
    /* The body of /2.0/user, compact JSON. */
    const char *raw_user;
    /* Those workspaces that there was an answer about. */
    abb_grant_t *grants;
    int grant_count;
    /* Why there was none about something; status APR_SUCCESS when all was answered. */
    abb_error_t failure;
    /* Sentence for the log when an answer was odd but usable, else NULL. */
    const char *doubt;
    /* What Bitbucket says of an endpoint that it has withdrawn, where there was a
     * second way, else NULL. */
    const char *change;
} abb_bitbucket_visitor_t;

/*
 * Compose what is the same for all requests, when the settings are there.
 * Lifetime: p. Threads: start-up only.
 */
void abb_bitbucket_settle(abb_bitbucket_t *bitbucket, apr_pool_t *p);

/*
 * Where to send a visitor's browser. Lifetime: p.
 * Source: RFC 6749 section 4.1.1.
 */
const char *abb_bitbucket_authorize_url(const abb_bitbucket_t *bitbucket, const char *state,
                                        apr_pool_t *p);

/*
 * Exchange an authorization code for tokens. Sent once. Lifetime: p.
 * Errors: ABB_EGRANT code not accepted; ABB_ECLIENT key, secret or callback
 * wrong; ABB_EUPSTREAM, ABB_ELIMIT, ABB_EGONE could not ask.
 * Source: RFC 6749 section 4.1.3.
 */
apr_status_t abb_bitbucket_exchange_code(const abb_bitbucket_t *bitbucket, const char *code,
                                         apr_time_t now, abb_tokens_t *tokens, apr_pool_t *p,
                                         abb_error_t *err);

/*
 * Exchange a refresh token for a new pair; the old one is used up. Sent once.
 * A pair without a new refresh token keeps the old one. uuid: whose it is.
 * Lifetime: p.
 * Errors: ABB_EGRANT refused (revoked, or another already used it);
 * ABB_ECLIENT; ABB_EUPSTREAM, ABB_ELIMIT, ABB_EGONE could not ask.
 * Source: RFC 6749 section 6; Bitbucket CHANGE-3052, 2026-05-04.
 */
apr_status_t abb_bitbucket_refresh(const abb_bitbucket_t *bitbucket, const char *uuid,
                                   const char *refresh_token, apr_time_t now, abb_tokens_t *tokens,
                                   apr_pool_t *p, abb_error_t *err);

/*
 * Ask everything at the same time with the access token; no longer than the site's total time-out,
 * second ways and further pages included. Without the scope `email` the account
 * has no address. "No role" is an answer: ABB_ROLE_NONE. Lifetime: p.
 * Errors: none of the answers counts then. ABB_EACCOUNT the account cannot be
 * used; ABB_EIDENTITY it is not the one with this uuid; ABB_ETOKEN any of them said
 * 401. ABB_ESCOPE, ABB_EUPSTREAM, ABB_ELIMIT, ABB_EGONE: about the account when its
 * uuid was not known; else, and about workspaces, these are in visitor->failure.
 */
apr_status_t abb_bitbucket_fetch(const abb_bitbucket_t *bitbucket, const abb_tokens_t *tokens,
                                 const abb_bitbucket_question_t *question, apr_time_t now,
                                 abb_bitbucket_visitor_t *visitor, apr_pool_t *p, abb_error_t *err);

/* What a probe heard beside its result. */
typedef struct abb_bitbucket_heard_t {
    /* Bitbucket's clock as it answered last, and this machine's then; 0: it told no date. */
    apr_time_t date;
    apr_time_t heard_at;
    /* Scopes of the OAuth client, separated by single spaces; NULL: not told. */
    const char *scope;
} abb_bitbucket_heard_t;

/*
 * Whether key and secret are right: asks for a token of the client's own; where
 * it may have none, not being private, a code that cannot be one tells. Nobody is
 * signed in by it. Lifetime: p.
 * Errors: ABB_ECLIENT key, secret or callback wrong; ABB_EUPSTREAM, ABB_ELIMIT,
 * ABB_EGONE could not ask.
 * Source: "Use OAuth on Bitbucket Cloud", 2026-11-20.
 */
apr_status_t abb_bitbucket_probe_client(const abb_bitbucket_t *bitbucket,
                                        abb_bitbucket_heard_t *heard, apr_pool_t *p,
                                        abb_error_t *err);

/* Parts of the API. */
typedef enum {
    ABB_BITBUCKET_USER,
    ABB_BITBUCKET_EMAILS,
    /* Roles in a workspace or repository. */
    ABB_BITBUCKET_GRANT
} abb_bitbucket_part_t;

/*
 * Whether a part of the API is there, asked without a token: that it wants one is
 * life. asked: as rules name it, for ABB_BITBUCKET_GRANT. Lifetime: p.
 * Errors: ABB_EGONE withdrawn; ABB_EUPSTREAM, ABB_ELIMIT could not ask.
 */
apr_status_t abb_bitbucket_probe_api(const abb_bitbucket_t *bitbucket, abb_bitbucket_part_t part,
                                     const char *asked, abb_bitbucket_heard_t *heard, apr_pool_t *p,
                                     abb_error_t *err);

#endif
