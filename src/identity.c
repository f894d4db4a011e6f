/* identity (floor 3): who it is, told to applications. See abb_identity.h. */
#include "abb_identity.h"

#include <apr_strings.h>
#include <stddef.h>
#include <string.h>

#define ACCOUNT_FIELD(member) offsetof(abb_account_t, member)

/* What an account tells applications, in the order of the manual. */
static const struct {
    const char *variable;
    /* Name for AuthBitbucketRemoteUser, NULL where it may not be REMOTE_USER. */
    const char *attribute;
    apr_size_t field;
} attributes[] = {
    {"BITBUCKET_UUID", "uuid", ACCOUNT_FIELD(uuid)},
    {"BITBUCKET_ACCOUNT_ID", "account_id", ACCOUNT_FIELD(account_id)},
    {"BITBUCKET_USERNAME", "username", ACCOUNT_FIELD(username)},
    {"BITBUCKET_NICKNAME", "nickname", ACCOUNT_FIELD(nickname)},
    {"BITBUCKET_DISPLAY_NAME", NULL, ACCOUNT_FIELD(display_name)},
    {"BITBUCKET_EMAIL", "email", ACCOUNT_FIELD(email)},
    {"BITBUCKET_AVATAR_URL", NULL, ACCOUNT_FIELD(avatar_url)},
    {"BITBUCKET_PROFILE_URL", NULL, ACCOUNT_FIELD(profile_url)},
};
#define ATTRIBUTES (sizeof(attributes) / sizeof(attributes[0]))

static const char *field_of(const abb_account_t *account, apr_size_t i)
{
    return *(const char *const *)(const void *)((const char *)account + attributes[i].field);
}

/* How a variable gets into a table: apr_table_setn or, where none is in its way, _addn. */
typedef void put_t(apr_table_t *table, const char *name, const char *value);

/*
 * To replace is to compare with every variable there is, and ours all begin
 * alike; so it is done only where there is something to replace.
 */
static put_t *choose_put(const apr_table_t *variables)
{
    static const char prefix[] = "BITBUCKET_";
    const apr_array_header_t *all = apr_table_elts(variables);

    for (int i = 0; i < all->nelts; ++i) {
        const char *name = APR_ARRAY_IDX(all, i, apr_table_entry_t).key;

        if (strncasecmp(name, prefix, sizeof(prefix) - 1) == 0) {
            return apr_table_setn;
        }
    }
    return apr_table_addn;
}

static void set_variable(request_rec *r, put_t *put, const char *name, const char *value)
{
    if (value && *value) {
        put(r->subprocess_env, name, value);
    }
}

static char *put_word(char *out, const char *word, char end)
{
    apr_size_t length = strlen(word);

    memcpy(out, word, length);
    out[length] = end;
    return out + length + 1;
}

static int is_role_in_workspace(const abb_grant_t *grant)
{
    return grant->role > ABB_ROLE_NONE && grant->role <= ABB_ROLE_OWNER;
}

const char *abb_identity_workspaces(const abb_record_t *record, apr_pool_t *p)
{
    apr_size_t size = 0;
    char *list;
    char *out;

    for (int i = 0; i < record->grant_count; ++i) {
        const abb_grant_t *grant = &record->grants[i];

        if (is_role_in_workspace(grant)) {
            size += strlen(grant->slug) + strlen(abb_account_role_word(grant->role)) + 2;
        }
    }
    if (size == 0) {
        return NULL;
    }
    list = out = apr_palloc(p, size);
    for (int i = 0; i < record->grant_count; ++i) {
        const abb_grant_t *grant = &record->grants[i];

        if (is_role_in_workspace(grant)) {
            out = put_word(out, grant->slug, ':');
            out = put_word(out, abb_account_role_word(grant->role), ' ');
        }
    }
    out[-1] = '\0';
    return list;
}

void abb_identity_set_variables(request_rec *r, const abb_record_t *record)
{
    put_t *put = choose_put(r->subprocess_env);
    const char *first;
    const char *last;

    for (apr_size_t i = 0; i < ATTRIBUTES; ++i) {
        set_variable(r, put, attributes[i].variable, field_of(&record->account, i));
    }
    abb_account_split_name(record->account.display_name, &first, &last, r->pool);
    set_variable(r, put, "BITBUCKET_FIRST_NAME", first);
    set_variable(r, put, "BITBUCKET_LAST_NAME", last);
    set_variable(r, put, "BITBUCKET_EMAIL_VERIFIED", record->account.email ? "1" : NULL);
    set_variable(r, put, "BITBUCKET_WORKSPACES", abb_identity_workspaces(record, r->pool));
}

void abb_identity_set_stale(request_rec *r, apr_interval_time_t age)
{
    apr_table_setn(r->subprocess_env, "BITBUCKET_STALE",
                   apr_psprintf(r->pool, "%" APR_TIME_T_FMT, apr_time_sec(age)));
}

const char *abb_identity_attribute(const abb_account_t *account, const char *name)
{
    for (apr_size_t i = 0; i < ATTRIBUTES; ++i) {
        if (attributes[i].attribute && strcmp(attributes[i].attribute, name) == 0) {
            return field_of(account, i);
        }
    }
    return NULL;
}

int abb_identity_is_attribute(const char *name)
{
    for (apr_size_t i = 0; i < ATTRIBUTES; ++i) {
        if (attributes[i].attribute && strcmp(attributes[i].attribute, name) == 0) {
            return 1;
        }
    }
    return 0;
}
