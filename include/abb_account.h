/*
 * account (floor 1): plain structs for what Bitbucket says of a visitor.
 *
 * Knows no JSON, no bytes, no store. Strings are UTF-8 and NUL-terminated; a
 * pointer is NULL when Bitbucket told nothing, never an empty string.
 */
#ifndef ABB_ACCOUNT_H
#define ABB_ACCOUNT_H

#include <apr_pools.h>
#include <apr_time.h>

/* Length of a uuid without braces, without its NUL. */
#define ABB_UUID_LENGTH 36

/*
 * The role of an account in a workspace, or its explicit permission on a
 * repository; each weakest first, so that `>=` compares within one kind.
 * Source: GET /2.0/user/workspaces/{workspace}/permission and
 * .../permissions/repositories, Bitbucket Cloud REST API, 2026-11-20.
 * ABB_ROLE_NONE: Bitbucket said 403 or 404, or named no permission.
 */
typedef enum {
    ABB_ROLE_NONE = 0,
    ABB_ROLE_COLLABORATOR,
    ABB_ROLE_MEMBER,
    ABB_ROLE_CREATE_PROJECT,
    ABB_ROLE_OWNER,
    ABB_ROLE_READ,
    ABB_ROLE_WRITE,
    ABB_ROLE_ADMIN
} abb_role_t;

/* One answer of Bitbucket about one workspace or repository. */
typedef struct abb_grant_t {
    /*
     * The workspace as the rule names it: slug or uuid, lower case, no braces. Or
     * the repository, workspace and name with a slash between, as it is written.
     */
    const char *asked;
    /*
     * What Bitbucket calls it, lower case: of a repository the full name. Both NULL
     * when it gave no answer with them (403, 404).
     */
    const char *slug;
    const char *uuid;
    abb_role_t role;
    apr_time_t checked_at;
} abb_grant_t;

/* An account as /2.0/user and /2.0/user/emails describe it. */
typedef struct abb_account_t {
    /* The identity key: lower case, no braces; always there. */
    const char *uuid;
    const char *account_id;
    /* Of the own user only, may be missing; changeable. */
    const char *username;
    /* Chosen by the user, not unique: shown, never authorised on. */
    const char *nickname;
    const char *display_name;
    /* The primary address if confirmed, else the first confirmed one, else NULL. */
    const char *email;
    const char *avatar_url;
    const char *profile_url;
    /*
     * The confirmed addresses, separated by spaces, when there are several, else NULL; no
     * more than 4 KiB of them.
     */
    const char *emails;
    /*
     * What kind of bot it is, as "workspace_access_token", or "app_user" when Bitbucket does
     * not say; NULL: a person. Bots are let in only where a rule names them.
     */
    const char *app_kind;
} abb_account_t;

/* An OAuth token pair. Secret: never logged, sealed wherever it is kept. */
typedef struct abb_tokens_t {
    const char *access_token;
    const char *refresh_token;
    /* Scopes as granted, separated by single spaces; NULL when not told. */
    const char *scope;
    apr_time_t expires_at;
    /* They came by a refresh, and Bitbucket has not yet been asked whose they are. */
    int is_unproved;
    /* access_token is e-mail and API token, encoded and sent as RFC 7617 has it, not a bearer's. */
    int is_basic;
} abb_tokens_t;

/*
 * The role a word of Bitbucket or of a rule names ("member", "create-project",
 * ...); _permission: on a repository ("read", "write", "admin"). Returns
 * ABB_ROLE_NONE for an unknown word: unknown never grants.
 */
abb_role_t abb_account_parse_role(const char *word);
abb_role_t abb_account_parse_permission(const char *word);

/* Whether a row is named for a repository, not a workspace. */
int abb_account_is_repository(const char *asked);

/* The word for a role, a static string; "none" for ABB_ROLE_NONE. */
const char *abb_account_role_word(abb_role_t role);

/*
 * Whether scopes, separated by spaces or commas, hold one: itself, or another that
 * includes it, as repository:write does repository. Several may be granted that
 * imply each other, so this is for advice; whether a call is allowed is Bitbucket's
 * to say. Source: developer.atlassian.com, Bitbucket Cloud REST API, "Scopes", 2026.
 */
int abb_account_has_scope(const char *scopes, const char *scope);

/* What a scope is called in the form of an OAuth client, a static string; the scope if unknown. */
const char *abb_account_scope_label(const char *scope);

/*
 * Read a uuid with or without braces, in any case, into lower case without
 * braces. Returns NULL when text is no uuid. Lifetime: p.
 */
const char *abb_account_parse_uuid(const char *text, apr_pool_t *p);

/*
 * Split a display name at its first space. *last is NULL when there is none.
 * Lifetime: p. Both NULL for a NULL name.
 */
void abb_account_split_name(const char *display_name, const char **first, const char **last,
                            apr_pool_t *p);

#endif
