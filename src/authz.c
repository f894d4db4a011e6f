/* authz (floor 3): compile and compare Require lines. See abb_authz.h. */
#include "abb_authz.h"

#include <apr_lib.h>
#include <apr_strings.h>
#include <string.h>

#include "abb_text.h"

/* Longest name of a workspace or an account. */
#define NAME_MAX_LENGTH 128

/* ---- words --------------------------------------------------------------- */

apr_array_header_t *abb_authz_split(const char *line, apr_pool_t *p)
{
    apr_array_header_t *words = apr_array_make(p, 4, sizeof(const char *));
    char **arguments;

    if (apr_tokenize_to_argv(line, &arguments, p) == APR_SUCCESS) {
        for (; *arguments; ++arguments) {
            APR_ARRAY_PUSH(words, const char *) = *arguments;
        }
    }
    return words;
}

static int is_name(const char *text)
{
    apr_size_t length = strlen(text);

    if (length == 0 || length > NAME_MAX_LENGTH) {
        return 0;
    }
    for (const char *c = text; *c; ++c) {
        if (!apr_isalnum(*c) && !strchr("_-.", *c)) {
            return 0;
        }
    }
    /* "." and ".." would climb in the path of a question to Bitbucket. */
    return text[strspn(text, ".")] != '\0';
}

/* ---- bitbucket-workspace ------------------------------------------------- */

static const char *parse_workspace(const char *word, abb_authz_row_t *rule, apr_pool_t *p)
{
    const char *end = *word == '{' ? strchr(word, '}') : NULL;
    const char *colon = strchr(end ? end : word, ':');
    const char *name = colon ? apr_pstrmemdup(p, word, (apr_size_t)(colon - word)) : word;
    const char *uuid = abb_account_parse_uuid(name, p);

    if (!uuid && !is_name(name)) {
        return apr_psprintf(p,
                            "'%s' names no workspace: write its slug (letters, digits, '-', '_', "
                            "'.') or its {uuid}, with an optional role as in acme:owner",
                            word);
    }
    rule->asked = uuid ? uuid : abb_text_lower(name, p);
    rule->role = colon ? abb_account_parse_role(colon + 1) : ABB_ROLE_MEMBER;
    if (rule->role == ABB_ROLE_NONE) {
        return apr_psprintf(p,
                            "'%s' names the unknown role '%s': allowed are owner, create-project, "
                            "member and collaborator",
                            word, colon + 1);
    }
    return NULL;
}

/* Reads one argument; returns a sentence's beginning or NULL, as the functions that use it. */
typedef const char *(*parse_row_t)(const char *word, abb_authz_row_t *rule, apr_pool_t *p);

static const char *parse_rows(const apr_array_header_t *words, parse_row_t parse,
                              const abb_authz_rows_t **rows, apr_pool_t *p)
{
    abb_authz_rows_t *parsed = apr_palloc(p, sizeof(*parsed));
    abb_authz_row_t *rules = apr_pcalloc(p, (apr_size_t)(words->nelts + 1) * sizeof(*rules));

    for (int i = 0; i < words->nelts; ++i) {
        const char *fault = parse(APR_ARRAY_IDX(words, i, const char *), &rules[i], p);

        if (fault) {
            return fault;
        }
    }
    parsed->count = words->nelts;
    parsed->rules = rules;
    *rows = parsed;
    return NULL;
}

const char *abb_authz_parse_workspaces(const apr_array_header_t *words,
                                       const abb_authz_rows_t **rows, apr_pool_t *p)
{
    return words->nelts == 0
               ? "names no workspace: write for instance 'Require bitbucket-workspace acme'"
               : parse_rows(words, parse_workspace, rows, p);
}

/* ---- bitbucket-repository ------------------------------------------------ */

/* A part of a repository's name: a slug as it is written, or a uuid. NULL: it is none. */
static const char *parse_part(const char *text, apr_pool_t *p)
{
    const char *uuid = abb_account_parse_uuid(text, p);

    return uuid ? uuid : is_name(text) ? text : NULL;
}

/* Behind the name: a colon in braces is none. */
static const char *find_colon(const char *word)
{
    const char *end = strrchr(word, '}');

    return strchr(end ? end : word, ':');
}

static const char *parse_repository(const char *word, abb_authz_row_t *rule, apr_pool_t *p)
{
    const char *colon = find_colon(word);
    const char *name = colon ? apr_pstrmemdup(p, word, (apr_size_t)(colon - word)) : word;
    const char *slash = strchr(name, '/');
    const char *workspace =
        slash ? parse_part(apr_pstrmemdup(p, name, (apr_size_t)(slash - name)), p) : NULL;
    const char *repository = slash ? parse_part(slash + 1, p) : NULL;

    if (!workspace || !repository ||
        (abb_account_parse_uuid(workspace, p) && !abb_account_parse_uuid(repository, p))) {
        return apr_psprintf(p,
                            "'%s' names no repository: write workspace and repository as in "
                            "acme/site, or with the repository's {uuid} behind the slash, and an "
                            "optional permission as in acme/site:write",
                            word);
    }
    rule->asked = apr_pstrcat(p, workspace, "/", repository, NULL);
    rule->role = colon ? abb_account_parse_permission(colon + 1) : ABB_ROLE_READ;
    if (rule->role == ABB_ROLE_NONE) {
        return apr_psprintf(p,
                            "'%s' names the unknown permission '%s': allowed are read, write and "
                            "admin",
                            word, colon + 1);
    }
    return NULL;
}

const char *abb_authz_parse_repositories(const apr_array_header_t *words,
                                         const abb_authz_rows_t **rows, apr_pool_t *p)
{
    return words->nelts == 0
               ? "names no repository: write for instance 'Require bitbucket-repository acme/site'"
               : parse_rows(words, parse_repository, rows, p);
}

/* ---- rows ---------------------------------------------------------------- */

abb_authz_verdict_t abb_authz_check_rows(const abb_authz_rows_t *rows, const abb_record_t *record,
                                         const abb_record_ages_t *ages, apr_time_t now,
                                         const abb_grant_t **granting)
{
    int is_complete = 1;

    *granting = NULL;
    for (int i = 0; i < rows->count; ++i) {
        const abb_authz_row_t *rule = &rows->rules[i];
        const abb_grant_t *grant = abb_record_find_grant(record, rule->asked);

        if (!grant || abb_record_age(grant->checked_at, ages, now) == ABB_RECORD_OLD) {
            is_complete = 0;
        }
        else if (grant->role >= rule->role &&
                 (!*granting || grant->checked_at > (*granting)->checked_at)) {
            *granting = grant;
        }
    }
    return *granting ? ABB_AUTHZ_GRANTED : is_complete ? ABB_AUTHZ_DENIED : ABB_AUTHZ_ASK;
}

apr_time_t abb_authz_since(const abb_record_ages_t *ages, int is_refusal, apr_time_t now)
{
    apr_interval_time_t age = ages->hard;

    if (is_refusal && age > ABB_AUTHZ_REFUSAL_AGE) {
        age = ABB_AUTHZ_REFUSAL_AGE;
    }
    return now - age;
}

const char *abb_authz_describe_rows(const abb_authz_rows_t *rows, apr_pool_t *p)
{
    const char *text = "";

    for (int i = 0; i < rows->count; ++i) {
        const abb_authz_row_t *rule = &rows->rules[i];
        const char *of = abb_account_is_repository(rule->asked) ? " permission on " : " of ";

        text = apr_pstrcat(p, text, i == 0 ? "" : " or ", abb_account_role_word(rule->role), of,
                           rule->asked, NULL);
    }
    return text;
}

/* ---- bitbucket-user ------------------------------------------------------ */

/* 24 hexadecimal digits, or a number, a colon and a uuid ("557058:...", "712020:..."). */
static int is_account_id(const char *text, apr_pool_t *p)
{
    const char *colon = strchr(text, ':');

    if (!colon) {
        return strlen(text) == 24 && strspn(text, "0123456789abcdefABCDEF") == 24;
    }
    return colon > text && strspn(text, "0123456789") == (apr_size_t)(colon - text) &&
           abb_account_parse_uuid(colon + 1, p) != NULL;
}

static const char *parse_user(const char *word, abb_authz_user_t *rule, apr_pool_t *p)
{
    if ((rule->uuid = abb_account_parse_uuid(word, p))) {
        return NULL;
    }
    if (is_account_id(word, p)) {
        rule->account_id = word;
        return NULL;
    }
    if (is_name(word)) {
        rule->username = word;
        return NULL;
    }
    return apr_psprintf(p,
                        "'%s' names no account: write its {uuid}, its account_id or its username "
                        "(letters, digits, '-', '_', '.')",
                        word);
}

const char *abb_authz_parse_users(const apr_array_header_t *words, const abb_authz_users_t **users,
                                  apr_pool_t *p)
{
    abb_authz_users_t *parsed = apr_palloc(p, sizeof(*parsed));
    abb_authz_user_t *rules = apr_pcalloc(p, (apr_size_t)(words->nelts + 1) * sizeof(*rules));

    if (words->nelts == 0) {
        return "names no account: write for instance 'Require bitbucket-user {uuid}'";
    }
    for (int i = 0; i < words->nelts; ++i) {
        const char *fault = parse_user(APR_ARRAY_IDX(words, i, const char *), &rules[i], p);

        if (fault) {
            return fault;
        }
    }
    parsed->count = words->nelts;
    parsed->rules = rules;
    *users = parsed;
    return NULL;
}

static int is_same(const char *wanted, const char *value)
{
    return wanted && value && strcmp(wanted, value) == 0;
}

abb_authz_verdict_t abb_authz_check_users(const abb_authz_users_t *users,
                                          const abb_record_t *record)
{
    const abb_account_t *account = &record->account;

    for (int i = 0; i < users->count; ++i) {
        const abb_authz_user_t *rule = &users->rules[i];

        if (is_same(rule->uuid, account->uuid) || is_same(rule->account_id, account->account_id) ||
            is_same(rule->username, account->username)) {
            return ABB_AUTHZ_GRANTED;
        }
    }
    return ABB_AUTHZ_DENIED;
}

int abb_authz_needs_names(const abb_authz_users_t *users)
{
    for (int i = 0; i < users->count; ++i) {
        if (users->rules[i].username) {
            return 1;
        }
    }
    return 0;
}

/* ---- bitbucket-email ----------------------------------------------------- */

/* Printable ASCII with one '@', which may be the first character; something behind it. */
static int is_pattern(const char *text)
{
    const char *at = strchr(text, '@');
    const char *domain = at ? at + 1 : "";

    for (const char *c = text; *c; ++c) {
        if (*c <= 0x20 || *c > 0x7e || *c == ',') {
            return 0;
        }
    }
    return *domain && strspn(domain, "abcdefghijklmnopqrstuvwxyz0123456789.-") == strlen(domain) &&
           *domain != '.';
}

const char *abb_authz_parse_emails(const apr_array_header_t *words,
                                   const abb_authz_emails_t **emails, apr_pool_t *p)
{
    abb_authz_emails_t *parsed = apr_palloc(p, sizeof(*parsed));
    const char **patterns = apr_palloc(p, (apr_size_t)(words->nelts + 1) * sizeof(*patterns));

    if (words->nelts == 0) {
        return "names no address: write for instance 'Require bitbucket-email @example.com'";
    }
    for (int i = 0; i < words->nelts; ++i) {
        const char *word = APR_ARRAY_IDX(words, i, const char *);

        patterns[i] = abb_text_lower(word, p);
        if (!is_pattern(patterns[i])) {
            return apr_psprintf(p,
                                "'%s' is neither an address nor a domain: write for instance "
                                "ada@example.com or @example.com",
                                word);
        }
    }
    parsed->count = words->nelts;
    parsed->patterns = patterns;
    *emails = parsed;
    return NULL;
}

/* Whether an address of this length fits: as a whole, or its whole domain. */
static int fits(const char *pattern, const char *address, apr_size_t length)
{
    apr_size_t size = strlen(pattern);
    const char *end = address + length - size;

    if (*pattern != '@') {
        return size == length && strncasecmp(pattern, address, length) == 0;
    }
    /* Only one '@' is in an address, so the domain begins here and nowhere else. */
    return size < length && strncasecmp(pattern, end, size) == 0;
}

static int has_address(const abb_authz_emails_t *emails, const char *address, apr_size_t length)
{
    for (int i = 0; i < emails->count; ++i) {
        if (fits(emails->patterns[i], address, length)) {
            return 1;
        }
    }
    return 0;
}

abb_authz_verdict_t abb_authz_check_emails(const abb_authz_emails_t *emails,
                                           const abb_record_t *record)
{
    const char *email = record->account.email;
    const char *all = record->account.emails;

    /* In a list that was cut it may be missing. */
    if (email && has_address(emails, email, strlen(email))) {
        return ABB_AUTHZ_GRANTED;
    }
    while (all && *all) {
        apr_size_t length = strcspn(all, " ");

        if (has_address(emails, all, length)) {
            return ABB_AUTHZ_GRANTED;
        }
        all += length + (all[length] == ' ');
    }
    return ABB_AUTHZ_DENIED;
}
