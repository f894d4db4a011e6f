/*
 * authz (floor 3): compile and compare Require lines.
 *
 * A line is compiled when the configuration is read; a request only compares
 * rows. Whether to ask Bitbucket is said, not done. Knows no httpd, no store.
 */
#ifndef ABB_AUTHZ_H
#define ABB_AUTHZ_H

#include <apr_tables.h>

#include "abb_record.h"

/* A refusal rests on an answer no older than this. */
#define ABB_AUTHZ_REFUSAL_AGE apr_time_from_sec(15)

typedef enum {
    ABB_AUTHZ_GRANTED,
    ABB_AUTHZ_DENIED,
    /* Not decided: what the record has about these workspaces is missing or too old. */
    ABB_AUTHZ_ASK
} abb_authz_verdict_t;

/* `Require bitbucket-workspace`, `Require bitbucket-repository`: any of these. */
typedef struct abb_authz_row_t {
    /* As abb_grant_t.asked. */
    const char *asked;
    abb_role_t role;
} abb_authz_row_t;

typedef struct abb_authz_rows_t {
    int count;
    const abb_authz_row_t *rules;
} abb_authz_rows_t;

/* `Require bitbucket-user`: any of these. */
typedef struct abb_authz_user_t {
    /* Exactly one of these is set. */
    const char *uuid;
    const char *account_id;
    const char *username;
} abb_authz_user_t;

typedef struct abb_authz_users_t {
    int count;
    const abb_authz_user_t *rules;
} abb_authz_users_t;

/* `Require bitbucket-email`: any of these. */
typedef struct abb_authz_emails_t {
    int count;
    /* Addresses, or domains with '@' before them; lower case. */
    const char *const *patterns;
} abb_authz_emails_t;

/*
 * The arguments of a line, quotes undone: an array of const char *. Lifetime: p.
 */
apr_array_header_t *abb_authz_split(const char *line, apr_pool_t *p);

/*
 * Compile the arguments of a line (const char *). Returns NULL, or a sentence that
 * quotes what was read and says what is allowed. Lifetime: p. Threads: any.
 */
const char *abb_authz_parse_workspaces(const apr_array_header_t *words,
                                       const abb_authz_rows_t **rows, apr_pool_t *p);
const char *abb_authz_parse_repositories(const apr_array_header_t *words,
                                         const abb_authz_rows_t **rows, apr_pool_t *p);
const char *abb_authz_parse_users(const apr_array_header_t *words, const abb_authz_users_t **users,
                                  apr_pool_t *p);
const char *abb_authz_parse_emails(const apr_array_header_t *words,
                                   const abb_authz_emails_t **emails, apr_pool_t *p);

/*
 * Compare a record with a line. Answers within the hard age count, both yes and
 * no: a line may stand under `not`. *granting is for ABB_AUTHZ_GRANTED the youngest
 * row that lets in, else NULL.
 */
abb_authz_verdict_t abb_authz_check_rows(const abb_authz_rows_t *rows, const abb_record_t *record,
                                         const abb_record_ages_t *ages, apr_time_t now,
                                         const abb_grant_t **granting);
abb_authz_verdict_t abb_authz_check_users(const abb_authz_users_t *users,
                                          const abb_record_t *record);

/*
 * A confirmed address of the account equals one of the patterns, or its whole
 * domain does, in any case of ASCII letters.
 */
abb_authz_verdict_t abb_authz_check_emails(const abb_authz_emails_t *emails,
                                           const abb_record_t *record);

/* Whether the outcome of a line may change with the account's names. */
int abb_authz_needs_names(const abb_authz_users_t *users);

/*
 * The answer from which on a decision is good: one that was asked for at this
 * time or later. For a refusal it is the stricter of both ages.
 */
apr_time_t abb_authz_since(const abb_record_ages_t *ages, int is_refusal, apr_time_t now);

/* A line in plain words for the refused visitor. Lifetime: p. */
const char *abb_authz_describe_rows(const abb_authz_rows_t *rows, apr_pool_t *p);

#endif
