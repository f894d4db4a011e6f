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

/* A refusal rests on a row no older than this. */
#define ABB_AUTHZ_REFUSAL_AGE apr_time_from_sec(15)
/* No decision rests on a row older than this. */
#define ABB_AUTHZ_GRANT_AGE apr_time_from_sec(3600)

typedef enum {
    ABB_AUTHZ_GRANTED,
    ABB_AUTHZ_DENIED,
    /* Not decided before Bitbucket is asked about one workspace. */
    ABB_AUTHZ_ASK
} abb_authz_verdict_t;

/* `Require bitbucket-workspace`: any of these. */
typedef struct abb_authz_workspace_t {
    /* Slug or uuid, lower case, no braces. */
    const char *asked;
    abb_role_t role;
} abb_authz_workspace_t;

typedef struct abb_authz_workspaces_t {
    int count;
    const abb_authz_workspace_t *rules;
} abb_authz_workspaces_t;

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

/*
 * Compile the arguments of a line. Returns NULL, or a sentence that quotes what
 * was read and says what is allowed. Lifetime: p. Threads: any.
 */
const char *abb_authz_parse_workspaces(const char *line, const abb_authz_workspaces_t **workspaces,
                                       apr_pool_t *p);
const char *abb_authz_parse_users(const char *line, const abb_authz_users_t **users, apr_pool_t *p);

/*
 * Compare a record with a line. For ABB_AUTHZ_ASK, *ask is the workspace to ask
 * about and *older_than the time from which on an answer is good enough.
 */
abb_authz_verdict_t abb_authz_check_workspaces(const abb_authz_workspaces_t *workspaces,
                                               const abb_record_t *record, apr_time_t now,
                                               const char **ask, apr_time_t *older_than);
abb_authz_verdict_t abb_authz_check_users(const abb_authz_users_t *users,
                                          const abb_record_t *record);

/* A line in plain words for the refused visitor. Lifetime: p. */
const char *abb_authz_describe_workspaces(const abb_authz_workspaces_t *workspaces, apr_pool_t *p);

#endif
