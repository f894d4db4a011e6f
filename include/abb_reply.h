/*
 * reply (floor 2): Bitbucket's JSON as plain structs.
 *
 * The only user of jansson. Knows no HTTP, no session. JSON is read strictly:
 * an object at the top, no duplicate keys, no NUL, depth at most
 * ABB_REPLY_DEPTH_MAX, the right types; unknown keys are ignored. Everything
 * returned is copied into the pool given; what else is needed for reading, at most
 * some megabytes, is given back at once.
 * Errors of all functions unless said otherwise: ABB_EUPSTREAM, since an answer
 * that cannot be used is the same as none.
 * Threads: any, after abb_reply_init.
 */
#ifndef ABB_REPLY_H
#define ABB_REPLY_H

#include <apr_pools.h>
#include <apr_tables.h>

#include "abb_account.h"
#include "abb_error.h"

/* Deepest nesting accepted. */
#define ABB_REPLY_DEPTH_MAX 20
/* Most values accepted in one answer: what each takes while it is read is a few hundred bytes. */
#define ABB_REPLY_VALUES_MAX 20000
/* Longest text value taken over, in bytes; tokens excepted. */
#define ABB_REPLY_TEXT_MAX 2048
/* Longest token accepted, in bytes. */
#define ABB_REPLY_TOKEN_MAX 8192
/* Most addresses read from one page. */
#define ABB_REPLY_EMAILS_MAX 2000
/* Longest list of confirmed addresses, in bytes; those that find no room are left out. */
#define ABB_REPLY_CONFIRMED_MAX 4096

/* An error body of the token endpoint or of the API. Members may be NULL. */
typedef struct abb_reply_error_t {
    /* Token endpoint: the code of RFC 6749 section 5.2 and its description. */
    const char *code;
    /* API: error.message; token endpoint: error_description. */
    const char *message;
    /* API: error.detail where it is a text. */
    const char *detail;
    /* API, 403: scopes that the call requires and that the token has. */
    const char *required;
    const char *granted;
    /* API, 410: error.data.announcement_url. */
    const char *announcement_url;
} abb_reply_error_t;

/* One page of /2.0/user/emails. */
typedef struct abb_reply_emails_t {
    /* The address with is_primary and is_confirmed, or NULL. */
    const char *primary;
    /* The first address with is_confirmed, or NULL. */
    const char *first_confirmed;
    /* All of them that ABB_REPLY_CONFIRMED_MAX has room for, separated by spaces, or NULL. */
    const char *confirmed;
    /* URL of the next page as Bitbucket gave it, or NULL. Not checked here. */
    const char *next;
} abb_reply_emails_t;

/* Seed jansson's hash tables. Threads: once per process, before its threads start. */
void abb_reply_init(void);

/*
 * A successful answer of the token endpoint. A missing or unusable expires_in
 * counts as one hour. Source: RFC 6749 section 5.1; "Use OAuth on Bitbucket
 * Cloud", support.atlassian.com, 2026-11-20.
 */
apr_status_t abb_reply_tokens(const char *body, apr_size_t size, apr_time_t now,
                              abb_tokens_t *tokens, apr_pool_t *p, abb_error_t *err);

/*
 * The answer of GET /2.0/user; *raw is the same object as compact JSON.
 * account->email is not set; account->app_kind is that of type "app_user", a bot.
 * Errors: also ABB_EACCOUNT for any other type than "user" and "app_user", or one
 * that is not active.
 */
apr_status_t abb_reply_user(const char *body, apr_size_t size, abb_account_t *account,
                            const char **raw, apr_pool_t *p, abb_error_t *err);

/* One page of GET /2.0/user/emails. Only JSON true counts as confirmed. */
apr_status_t abb_reply_emails(const char *body, apr_size_t size, abb_reply_emails_t *emails,
                              apr_pool_t *p, abb_error_t *err);

/*
 * The answer of GET /2.0/user/workspaces/{workspace}/permission. The workspace
 * must be the one in grant->asked, and the user, unless the answer leaves it
 * out, the one with user_uuid. Sets slug, uuid and role of the grant. A
 * permission that is absent or unknown gives ABB_ROLE_NONE and its sentence in
 * *doubt, else *doubt is NULL.
 */
apr_status_t abb_reply_permission(const char *body, apr_size_t size, const char *user_uuid,
                                  abb_grant_t *grant, const char **doubt, apr_pool_t *p,
                                  abb_error_t *err);

/*
 * The answer of GET /2.0/workspaces/{workspace}/members/{member}, which proves
 * plain membership only. Checks and sets as above; the role is ABB_ROLE_MEMBER.
 */
apr_status_t abb_reply_member(const char *body, apr_size_t size, const char *user_uuid,
                              abb_grant_t *grant, apr_pool_t *p, abb_error_t *err);

/*
 * The answer of GET /2.0/user/workspaces/{workspace}/permissions/repositories,
 * asked for the one repository in grant->asked. Checks and sets as above. An
 * empty list is a definite no: what everybody may read is not in it.
 */
apr_status_t abb_reply_repository(const char *body, apr_size_t size, const char *user_uuid,
                                  abb_grant_t *grant, const char **doubt, apr_pool_t *p,
                                  abb_error_t *err);

/* An error body. Cannot fail: what is not there stays NULL. */
void abb_reply_error(const char *body, apr_size_t size, abb_reply_error_t *error, apr_pool_t *p);

#endif
