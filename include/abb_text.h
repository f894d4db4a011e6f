/*
 * text (floor 1): encodings and grammars of bytes that come from outside.
 *
 * Knows no httpd, no OAuth, no account. All functions are pure; threads: any.
 */
#ifndef ABB_TEXT_H
#define ABB_TEXT_H

#include <apr_pools.h>
#include <apr_tables.h>

#include "abb_error.h"

/* Longest return address accepted, in bytes without its NUL. */
#define ABB_TEXT_LOCAL_PATH_MAX 2000

/*
 * Encode bytes as base64url without padding. Lifetime: p.
 * Source: RFC 4648 section 5.
 */
char *abb_text_base64url_encode(const void *bytes, apr_size_t size, apr_pool_t *p);

/*
 * Decode base64url without padding that must yield exactly `size` bytes into
 * `bytes`. Errors: APR_EINVAL when the length differs, a character is foreign
 * or unused bits are set, so that no two texts decode to the same bytes.
 */
apr_status_t abb_text_base64url_decode_exact(const char *text, void *bytes, apr_size_t size);

/*
 * Decode base64url without padding of any length. Lifetime: p.
 * Errors: APR_EINVAL as above.
 */
apr_status_t abb_text_base64url_decode(const char *text, unsigned char **bytes, apr_size_t *size,
                                       apr_pool_t *p);

/* Bytes as lower-case hexadecimal digits. Lifetime: p. */
char *abb_text_hex(const void *bytes, apr_size_t size, apr_pool_t *p);

/*
 * Percent-encode everything but RFC 3986 unreserved characters, for a value in
 * a query or a form body. Lifetime: p.
 */
char *abb_text_percent_encode(const char *text, apr_pool_t *p);

/*
 * Decode a name or value of a form in place: %XX is a byte, also NUL, and '+' a space.
 * text has a byte of room behind `size`, for a NUL. Returns the size, or -1 for an encoding
 * that is cut; text is undefined then. Source: "URL", application/x-www-form-urlencoded
 * parsing, of the WHATWG, 2026-11-20.
 */
apr_ssize_t abb_text_form_decode(char *text, apr_size_t size);

/*
 * Parse a query or a form body into a table of decoded names and values.
 * '+' is a space. Lifetime: p.
 * Errors: ABB_EINPUT for a name that comes twice (in any case of letters), an
 * encoding that is cut or decodes to NUL, or more than 32 pairs. Source: OWASP
 * ASVS 15.3.7: two readers of one query must not see different values.
 */
apr_status_t abb_text_query_parse(const char *query, apr_table_t **values, apr_pool_t *p,
                                  abb_error_t *err);

/*
 * Where the host of an origin ("https://wiki.example.com:8443") begins; *length:
 * its bytes, those of an IPv6 address with its brackets. Source: RFC 6454 section 6.2.
 */
const char *abb_text_origin_host(const char *origin, apr_size_t *length);

/*
 * A URL without what may be secret: a query, and what stands before an '@', for which
 * it says "(not shown)". The last '@' of all counts, wherever it is: a password may hold
 * a '/' or '?' as it is. Takes any text. Lifetime: p.
 */
const char *abb_text_public_url(const char *url, apr_pool_t *p);

/*
 * Accept an address that a browser may be sent to on this site, as a path with
 * optional query. `text` is such a path, or starts with exactly `origin`
 * ("https://wiki.example.com", may be NULL). A positive grammar: one leading
 * slash, not followed by another; printable ASCII without \\ " < > ^ ` { | } #;
 * in the path no backslash, control character or dot segment, raw or
 * percent-encoded, where an encoded slash counts as a slash. Returns the path
 * inside `text`, or NULL.
 * Source: RFC 9700 section 4.11, CVE-2021-32786, CVE-2019-13038.
 */
const char *abb_text_local_path(const char *text, const char *origin);

/*
 * Escape text for HTML elements and quoted attributes. The result is ASCII:
 * other characters become numeric references, invalid UTF-8 becomes U+FFFD and
 * control characters a space. Lifetime: p.
 */
char *abb_text_html(const char *utf8, apr_pool_t *p);

/*
 * Text as a JSON string with its quotes, ASCII; "null" for NULL. '<', '>' and
 * '&' are escaped, so the result may stand in any page. Lifetime: p.
 * Source: RFC 8259 section 7.
 */
char *abb_text_json(const char *utf8, apr_pool_t *p);

/* Whether bytes are well-formed UTF-8 without NUL (RFC 3629). */
int abb_text_is_utf8(const char *bytes, apr_size_t size);

/* A copy with ASCII letters in lower case; other bytes stay. Lifetime: p. */
char *abb_text_lower(const char *text, apr_pool_t *p);

/*
 * Text from outside made fit for a log line: at most `max` bytes, everything
 * but printable ASCII replaced by '?'. Lifetime: p.
 */
char *abb_text_loggable(const char *text, apr_size_t max, apr_pool_t *p);

/*
 * The same for a value in `key="value"`: its quotes become apostrophes, so that what
 * somebody chose, a nickname, cannot look like the next key. text may be NULL.
 */
char *abb_text_quotable(const char *text, apr_size_t max, apr_pool_t *p);

/*
 * Read a duration: a number with an optional unit s, m, h or d; a bare number
 * is seconds. Errors: APR_EINVAL for anything else or more than ten years.
 */
apr_status_t abb_text_duration_parse(const char *text, apr_interval_time_t *duration);

/* A duration as it may be written in the configuration: 90s, 5m, 2h, 7d. Lifetime: p. */
const char *abb_text_duration(apr_interval_time_t duration, apr_pool_t *p);

#endif
