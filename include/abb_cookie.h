/*
 * cookie (floor 1): the line of cookies that a browser sends.
 *
 * Whose cookies stand in a Cookie header, and what it is without this module's own.
 * Knows no httpd, no session, no ticket. All functions are pure; threads: any.
 */
#ifndef ABB_COOKIE_H
#define ABB_COOKIE_H

#include <apr_pools.h>
#include <apr_tables.h>

/* Most cookies that are listed of one line. */
#define ABB_COOKIE_LIST_MAX 64

/* How a site's cookies look. Lifetime: the configuration's. */
typedef struct abb_cookie_settings_t {
    /* Whole name of the session's cookie, and start of an attempt's. */
    const char *session_name;
    const char *ticket_prefix;
    /* Whole name of the cookie that counts sign-ins completed lately. */
    const char *recent_name;
    /* Whole name of the cookie that says where attempts led that had to make room. */
    const char *ways_name;
    /* Whole name of the cookie, the badge, of a browser in which somebody has signed in. */
    const char *badge_name;
    /* NULL: the host alone. */
    const char *domain;
    /* Lax or None. */
    const char *same_site;
    int is_secure;
} abb_cookie_settings_t;

/* A cookie of the request. */
typedef struct abb_cookie_t {
    const char *name;
    const char *value;
} abb_cookie_t;

/* What a request brought. */
typedef struct abb_cookies_t {
    /* The Cookie header as it came, NULL when there was none. */
    const char *line;
    /* The value of the first session cookie in it, NULL for none; ends by its length. */
    const char *session;
    apr_size_t session_length;
} abb_cookies_t;

/*
 * See which cookies of a line (may be NULL) are this module's. Returns the line without
 * them: itself when there are none, NULL when nothing else is in it. What cookies points
 * to lies in the line. Lifetime: p.
 */
const char *abb_cookie_take(const char *line, const abb_cookie_settings_t *settings,
                            abb_cookies_t *cookies, apr_pool_t *p);

/*
 * The value of the first cookie with a name in a line (may be NULL), or NULL.
 * Lifetime: p. Source: RFC 6265 section 5.4.
 */
const char *abb_cookie_find(const char *line, const char *name, apr_pool_t *p);

/*
 * All cookies of a line (may be NULL) whose names start with a prefix and have more
 * behind it, at most ABB_COOKIE_LIST_MAX: an array of abb_cookie_t. Lifetime: p.
 */
apr_array_header_t *abb_cookie_list(const char *line, const char *prefix, apr_pool_t *p);

#endif
