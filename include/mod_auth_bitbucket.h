/*
 * The account of a request, for other modules of httpd.
 *
 *     #include "mod_auth_bitbucket.h"
 *
 *     static APR_OPTIONAL_FN_TYPE(bitbucket_account_of) *account_of;
 *
 *     static void find_functions(void)           // hook optional_fn_retrieve
 *     {
 *         account_of = APR_RETRIEVE_OPTIONAL_FN(bitbucket_account_of);
 *     }
 *
 *     const bitbucket_account_t *account = account_of ? account_of(r) : NULL;
 *
 * account_of is NULL where mod_auth_bitbucket is not loaded; nothing needs to be
 * linked. A whole example is tests/example/mod_example_who.c of the sources.
 *
 * Structs only grow, at their end. A module built against a newer header than the
 * server has reads a new member after BITBUCKET_HAS(account, member) only.
 */
#ifndef MOD_AUTH_BITBUCKET_H
#define MOD_AUTH_BITBUCKET_H

#include <httpd.h>

#include <apr_optional.h>
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What Bitbucket said of the account in one workspace or repository. */
typedef struct bitbucket_row_t {
    /* Bytes of this struct that are there. */
    apr_size_t size;
    /*
     * Slug of the workspace, or workspace/name of the repository, lower case; where
     * Bitbucket gave no role, as the rule names it. Slugs can change hands.
     */
    const char *name;
    /* Without braces; NULL where Bitbucket gave no role. */
    const char *uuid;
    /* owner, create-project, member, collaborator; of repositories read, write, admin; none. */
    const char *role;
    /* When Bitbucket was asked. */
    apr_time_t checked_at;
} bitbucket_row_t;

/* An account. Texts are UTF-8; NULL where Bitbucket told nothing, never empty. */
typedef struct bitbucket_account_t {
    /* Bytes of this struct that are there. */
    apr_size_t size;
    /* Fit to grant rights by; without braces, never NULL. */
    const char *uuid;
    /* The Atlassian account id. Fit to grant rights by. */
    const char *account_id;
    /* Can change, and can be another's afterwards. */
    const char *username;
    /* Chosen freely, not unique. */
    const char *nickname;
    const char *display_name;
    /* The display name up to its first space, and what follows. */
    const char *first_name;
    const char *last_name;
    const char *email;
    /* 1: Bitbucket says that the address is confirmed. Do not trust it otherwise. */
    int is_email_confirmed;
    const char *avatar_url;
    const char *profile_url;
    /* What was asked about, not all there is; may be old, see checked_at. */
    const bitbucket_row_t *const *rows;
    int row_count;
    /* When the visitor signed in, and when Bitbucket last described the account. */
    apr_time_t signed_in_at;
    apr_time_t checked_at;
    /* When the session ends if it is not used again, and in any case. */
    apr_time_t expires_at;
    apr_time_t ends_at;
} bitbucket_account_t;

/* Whether a struct, not NULL, has a member. */
#define BITBUCKET_HAS(thing, member) \
    ((thing)->size >= (apr_size_t)((const char *)(&(thing)->member + 1) - (const char *)(thing)))

/*
 * The account that is signed in for a request, whatever AuthBitbucketPass says.
 * NULL: nobody is, or the place is not one with AuthType Bitbucket, or it is not
 * known yet: ask in check_authz or later, best in a handler. Only after check_authz
 * has the account been let in by the rules.
 * Lifetime: that of the request (r->pool); copy what is kept longer, and change nothing.
 * Threads: call it from a thread that works on the request, as with all of httpd's
 * functions that take one. It waits for nothing and asks nobody. What it returned
 * may be read by any thread while the request lives.
 */
APR_DECLARE_OPTIONAL_FN(const bitbucket_account_t *, bitbucket_account_of, (request_rec * r));

#ifdef __cplusplus
}
#endif

#endif
