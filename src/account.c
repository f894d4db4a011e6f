/* account (floor 1): plain structs for what Bitbucket says of a visitor. */
#include "abb_account.h"

#include <apr_lib.h>
#include <apr_strings.h>
#include <string.h>

static const char *const role_words[] = {"none",  "collaborator", "member", "create-project",
                                         "owner", "read",         "write",  "admin"};

static abb_role_t parse_between(const char *word, abb_role_t weakest, abb_role_t strongest)
{
    for (int role = (int)weakest; role <= (int)strongest; ++role) {
        if (strcmp(word, role_words[role]) == 0) {
            return (abb_role_t)role;
        }
    }
    return ABB_ROLE_NONE;
}

abb_role_t abb_account_parse_role(const char *word)
{
    return parse_between(word, ABB_ROLE_COLLABORATOR, ABB_ROLE_OWNER);
}

abb_role_t abb_account_parse_permission(const char *word)
{
    return parse_between(word, ABB_ROLE_READ, ABB_ROLE_ADMIN);
}

int abb_account_is_repository(const char *asked)
{
    return strchr(asked, '/') != NULL;
}

const char *abb_account_role_word(abb_role_t role)
{
    return role_words[role];
}

static int is_uuid(const char *text, apr_size_t length)
{
    if (length != ABB_UUID_LENGTH) {
        return 0;
    }
    for (apr_size_t i = 0; i < length; ++i) {
        int is_dash_place = i == 8 || i == 13 || i == 18 || i == 23;

        if (is_dash_place ? text[i] != '-' : !apr_isxdigit(text[i])) {
            return 0;
        }
    }
    return 1;
}

/* ---- scopes -------------------------------------------------------------- */

static const struct {
    const char *scope;
    const char *label;
    /* Scopes that include it, one after the other; NULL ends. */
    const char *included_in[7];
} scopes_known[] = {
    {"account", "Account: Read", {"account:write"}},
    {"email", "Account: Email", {NULL}},
    {"repository",
     "Repositories: Read",
     {"repository:write", "pullrequest", "pullrequest:write", "project", "project:write"}},
};

static int holds_word(const char *words, const char *word)
{
    apr_size_t length = strlen(word);

    while (*words) {
        apr_size_t next = strcspn(words, " ,");

        if (next == length && strncmp(words, word, length) == 0) {
            return 1;
        }
        words += next + (words[next] != '\0');
    }
    return 0;
}

int abb_account_has_scope(const char *scopes, const char *scope)
{
    for (apr_size_t i = 0; i < sizeof(scopes_known) / sizeof(scopes_known[0]); ++i) {
        const char *const *including = scopes_known[i].included_in;

        if (strcmp(scopes_known[i].scope, scope) != 0) {
            continue;
        }
        for (; *including; ++including) {
            if (holds_word(scopes, *including)) {
                return 1;
            }
        }
    }
    return holds_word(scopes, scope);
}

const char *abb_account_scope_label(const char *scope)
{
    for (apr_size_t i = 0; i < sizeof(scopes_known) / sizeof(scopes_known[0]); ++i) {
        if (strcmp(scopes_known[i].scope, scope) == 0) {
            return scopes_known[i].label;
        }
    }
    return scope;
}

/* ---- other --------------------------------------------------------------- */

const char *abb_account_parse_uuid(const char *text, apr_pool_t *p)
{
    apr_size_t length = strlen(text);
    char *uuid;

    if (length == ABB_UUID_LENGTH + 2 && text[0] == '{' && text[length - 1] == '}') {
        ++text;
        length -= 2;
    }
    if (!is_uuid(text, length)) {
        return NULL;
    }
    uuid = apr_pstrmemdup(p, text, length);
    for (char *c = uuid; *c; ++c) {
        *c = apr_tolower(*c);
    }
    return uuid;
}

void abb_account_split_name(const char *display_name, const char **first, const char **last,
                            apr_pool_t *p)
{
    const char *space = display_name ? strchr(display_name, ' ') : NULL;

    *first = display_name;
    *last = NULL;
    if (space && space > display_name) {
        *first = apr_pstrmemdup(p, display_name, (apr_size_t)(space - display_name));
        while (*space == ' ') {
            ++space;
        }
        *last = *space ? space : NULL;
    }
}
