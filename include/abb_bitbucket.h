/*
 * bitbucket (floor 3): what to ask Bitbucket Cloud and what its answers mean.
 *
 * URLs, paging, and the one table of what a status means. Knows no session, no
 * cookie, no httpd. Another provider would be another room beside this one.
 */
#ifndef ABB_BITBUCKET_H
#define ABB_BITBUCKET_H

#include "abb_account.h"
#include "abb_http.h"

/* Bitbucket Cloud's own addresses. Source: "Use OAuth on Bitbucket Cloud", 2026-11-20. */
#define ABB_BITBUCKET_AUTHORIZE_URL "https://bitbucket.org/site/oauth2/authorize"
#define ABB_BITBUCKET_TOKEN_URL "https://bitbucket.org/site/oauth2/access_token"
#define ABB_BITBUCKET_API_URL "https://api.bitbucket.org/2.0"

/* Most workspaces asked about at a sign-in. */
#define ABB_BITBUCKET_WORKSPACES_MAX 8

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
    /* The child's connections; set when the child starts. */
    abb_http_t *http;
} abb_bitbucket_t;

/* What Bitbucket says of a visitor at sign-in. */
typedef struct abb_bitbucket_visitor_t {
    abb_account_t account;
    /* The body of /2.0/user, compact JSON. */
    const char *raw_user;
    abb_grant_t *grants;
    int grant_count;
    /* Sentence for the log when an answer was odd but usable, else NULL. */
    const char *doubt;
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
 * A pair without a new refresh token keeps the old one. Lifetime: p.
 * Errors: ABB_EGRANT refused (revoked, or another already used it);
 * ABB_ECLIENT; ABB_EUPSTREAM, ABB_ELIMIT, ABB_EGONE could not ask.
 * Source: RFC 6749 section 6; Bitbucket CHANGE-3052, 2026-05-04.
 */
apr_status_t abb_bitbucket_refresh(const abb_bitbucket_t *bitbucket, const char *refresh_token,
                                   apr_time_t now, abb_tokens_t *tokens, apr_pool_t *p,
                                   abb_error_t *err);

/*
 * Ask for the account, its addresses and its role in each of the workspaces, at
 * the same time. `workspaces` are slugs or uuids as rules name them, lower case.
 * Without the scope `email` the account has no address. Lifetime: p.
 * Errors: ABB_EACCOUNT; ABB_ESCOPE; ABB_ETOKEN; ABB_EUPSTREAM, ABB_ELIMIT,
 * ABB_EGONE.
 */
apr_status_t abb_bitbucket_fetch_visitor(const abb_bitbucket_t *bitbucket, const char *access_token,
                                         const char *const *workspaces, int workspace_count,
                                         apr_time_t now, abb_bitbucket_visitor_t *visitor,
                                         apr_pool_t *p, abb_error_t *err);

/*
 * Ask for the role of the account with user_uuid in one workspace. *doubt as in
 * abb_bitbucket_visitor_t. Lifetime: p.
 * Errors: as above but ABB_EACCOUNT. "No role" is no error: ABB_ROLE_NONE.
 */
apr_status_t abb_bitbucket_fetch_grant(const abb_bitbucket_t *bitbucket, const char *access_token,
                                       const char *user_uuid, const char *workspace, apr_time_t now,
                                       abb_grant_t *grant, const char **doubt, apr_pool_t *p,
                                       abb_error_t *err);

#endif
