/*
 * identity (floor 3): who it is, told to applications.
 *
 * One table drives variables (BITBUCKET_DISPLAY_NAME) and request headers
 * (X-Bitbucket-Display-Name). What a client sends under the name of such a header
 * is dropped here too. Works on tables of names and values; knows no httpd, no
 * session store, no rule, and not how it came to be known who it is.
 */
#ifndef ABB_IDENTITY_H
#define ABB_IDENTITY_H

#include <apr_tables.h>

#include "abb_record.h"

/* How many values there are that say who it is. */
#define ABB_IDENTITY_VALUES 13
/* The variable with the access token; it is no part of who somebody is. */
#define ABB_IDENTITY_TOKEN_VARIABLE "BITBUCKET_ACCESS_TOKEN"
/* Longest value of a header as it is sent, in bytes. */
#define ABB_IDENTITY_HEADER_MAX 2048
/* Longest list of workspaces in a variable, in bytes. */
#define ABB_IDENTITY_WORKSPACES_MAX 16384
/* Longest prefix of headers. */
#define ABB_IDENTITY_PREFIX_MAX 64

/* What applications get; bits. */
typedef enum {
    ABB_PASS_NONE = 0,
    ABB_PASS_VARIABLES = 1,
    ABB_PASS_HEADERS = 2,
    ABB_PASS_BOTH = 3
} abb_pass_t;

/* How values stand in headers. */
typedef enum {
    /* Controls, `%`, everything beyond ASCII and spaces at the ends as %XX of their UTF-8 bytes. */
    ABB_HEADERS_PERCENT,
    /* UTF-8 as it is, without controls and spaces at the ends. */
    ABB_HEADERS_UTF8
} abb_header_encoding_t;

/* A site's headers. Lifetime: the configuration's. */
typedef struct abb_identity_settings_t {
    /* The prefix, upper case, with '_' for all but letters and digits. */
    const char *folded;
    apr_size_t prefix_length;
    abb_header_encoding_t encoding;
    /* Whole names, in the order of the table. */
    const char *headers[ABB_IDENTITY_VALUES];
    /* Name of the header with the access token, and as CGI has it ("HTTP_X_BITBUCKET_..."). */
    const char *token_header;
    const char *token_header_variable;
} abb_identity_settings_t;

/*
 * What is wrong with a prefix, as the end of a sentence that begins with it; NULL
 * when nothing is. A good one is not in Accept-, Access-Control-, Content-, If- or Sec-,
 * and begins no name of the other headers that HTTP, WebDAV and browsers are known to send.
 */
const char *abb_identity_check_prefix(const char *prefix);

/* Fill a site's settings. prefix passes abb_identity_check_prefix. Lifetime: p. */
void abb_identity_settle(abb_identity_settings_t *settings, const char *prefix,
                         abb_header_encoding_t encoding, apr_pool_t *p);

/*
 * Headers without what is the module's to say: all whose names begin with the
 * prefix when letters' case is ignored and every other character counts as one
 * ('x_bitbucket.uuid'), and such names in Connection, by which a proxy would drop
 * ours (CVE-2022-31813). Returns `headers` itself when it holds none of these, else
 * a copy. Lifetime: p, and as the original.
 */
apr_table_t *abb_identity_scrub(const abb_identity_settings_t *settings, apr_table_t *headers,
                                apr_pool_t *p);

/*
 * Set the variables of a signed-in visitor: BITBUCKET_UUID and the others of
 * docs/directives.md. Absent values are not set, and unset where an earlier call had
 * set them. Bytes below 0x20 never get
 * through (the reply room replaces them). Lifetime: p, and as the record.
 */
void abb_identity_set_variables(apr_table_t *variables, const abb_record_t *record, apr_pool_t *p);

/*
 * Tell the application that what Bitbucket said is so old, since it cannot be
 * asked: BITBUCKET_STALE, in seconds.
 */
void abb_identity_set_stale(apr_table_t *variables, apr_interval_time_t age, apr_pool_t *p);

/*
 * Add the headers of a signed-in visitor to scrubbed ones. stale: as above, 0 when
 * it is not so. A value that comes to more than ABB_IDENTITY_HEADER_MAX bytes is
 * left out, of names and workspaces only what is too much. Lifetime: p, and as the record.
 */
void abb_identity_add_headers(apr_table_t *headers, const abb_identity_settings_t *settings,
                              const abb_record_t *record, apr_interval_time_t stale, apr_pool_t *p);

/*
 * The attribute of an account by its lower-case name ("username", "email",
 * "uuid", "account_id", "nickname"), NULL when the account has none.
 * abb_identity_is_attribute tells whether a name is one of them.
 */
const char *abb_identity_attribute(const abb_account_t *account, const char *name);
int abb_identity_is_attribute(const char *name);

/*
 * "slug:role" of every row with a role, separated by spaces; NULL for none. Spaces,
 * colons, controls and '%' in a slug are percent-encoded. What is beyond
 * ABB_IDENTITY_WORKSPACES_MAX is left out. Lifetime: p.
 */
const char *abb_identity_workspaces(const abb_record_t *record, apr_pool_t *p);

#endif
