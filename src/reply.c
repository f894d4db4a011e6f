/* reply (floor 2): Bitbucket's JSON as plain structs. See abb_reply.h. */
#include "abb_reply.h"

#include <apr_lib.h>
#include <apr_strings.h>
#include <jansson.h>
#include <string.h>

#include "abb_text.h"

#define EXPIRES_IN_DEFAULT 3600
#define EXPIRES_IN_MAX (30 * 86400)
#define EMAIL_MAX 254

void abb_reply_init(void)
{
    json_object_seed(0);
}

/* ---- reading ------------------------------------------------------------- */

#define NO_OBJECT "it is no JSON object"
#define NO_LIST NO_OBJECT " with an array of values"

/*
 * Why a text is not to be read: how deep it nests and how many values it has, counted
 * without building anything; strings are skipped. NULL: nothing speaks against it.
 */
static const char *refuse_shape(const char *body, apr_size_t size)
{
    int depth = 0;
    int values = 0;
    int in_string = 0;

    for (apr_size_t i = 0; i < size; ++i) {
        char c = body[i];

        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
        }
        else if (c == '"') {
            in_string = 1;
        }
        else if (c == '}' || c == ']') {
            --depth;
        }
        else if (c == '{' || c == '[' || c == ',') {
            depth += c != ',';
            if (depth > ABB_REPLY_DEPTH_MAX) {
                return NO_OBJECT;
            }
            if (++values > ABB_REPLY_VALUES_MAX) {
                return "it holds more than " APR_STRINGIFY(ABB_REPLY_VALUES_MAX) " values";
            }
        }
    }
    return NULL;
}

/* The object a body holds, for json_decref; NULL when it is none, and *why. */
static json_t *load_object(const char *body, apr_size_t size, const char **why)
{
    json_t *json;

    if ((*why = refuse_shape(body, size))) {
        return NULL;
    }
    json = json_loadb(body, size, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(json)) {
        return json;
    }
    *why = NO_OBJECT;
    json_decref(json);
    return NULL;
}

static apr_status_t unusable(abb_error_t *err, const char *what, const char *why)
{
    return abb_error_set(err, ABB_EUPSTREAM, "Bitbucket's answer about %s cannot be used: %s", what,
                         why);
}

/* Text fit to be shown and passed on: control characters become spaces. */
static const char *clean_copy(const char *text, apr_pool_t *p)
{
    char *copy = apr_pstrdup(p, text);

    for (char *c = copy; *c; ++c) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            *c = ' ';
        }
    }
    return copy;
}

/*
 * An optional text member: *text is NULL when it is absent, null or empty.
 * Returns 0 when it has another type or is too long.
 */
static int take_text(const json_t *object, const char *key, const char **text, apr_pool_t *p)
{
    const json_t *value = json_object_get(object, key);

    *text = NULL;
    if (!value || json_is_null(value)) {
        return 1;
    }
    if (!json_is_string(value) || json_string_length(value) > ABB_REPLY_TEXT_MAX) {
        return 0;
    }
    if (json_string_length(value) > 0) {
        *text = clean_copy(json_string_value(value), p);
    }
    return 1;
}

/* ---- the token endpoint -------------------------------------------------- */

static int is_token(const char *text)
{
    apr_size_t length = strlen(text);

    if (length == 0 || length > ABB_REPLY_TOKEN_MAX) {
        return 0;
    }
    for (const char *c = text; *c; ++c) {
        if (*c <= 0x20 || *c > 0x7e) {
            return 0;
        }
    }
    return 1;
}

static const char *take_token(const json_t *object, const char *key, apr_pool_t *p)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text && is_token(text) ? apr_pstrdup(p, text) : NULL;
}

static apr_interval_time_t take_lifetime(const json_t *object)
{
    const json_t *value = json_object_get(object, "expires_in");
    double seconds = json_is_string(value) ? (double)apr_atoi64(json_string_value(value))
                                           : json_number_value(value);

    if (!(seconds >= 1)) {
        seconds = EXPIRES_IN_DEFAULT;
    }
    return apr_time_from_sec(seconds > EXPIRES_IN_MAX ? EXPIRES_IN_MAX : (apr_int64_t)seconds);
}

/* Scopes separated by commas or spaces, made one space each; older answers say `scopes`. */
static const char *take_scope(const json_t *object, apr_pool_t *p)
{
    const char *text;
    const char *scope = NULL;
    char *words;
    char *state;

    if (!take_text(object, "scope", &text, p) ||
        (!text && !take_text(object, "scopes", &text, p)) || !text) {
        return NULL;
    }
    words = apr_pstrdup(p, text);
    for (char *word = apr_strtok(words, ", ", &state); word;
         word = apr_strtok(NULL, ", ", &state)) {
        scope = scope ? apr_pstrcat(p, scope, " ", word, NULL) : word;
    }
    return scope;
}

static apr_status_t take_tokens(const json_t *object, apr_time_t now, abb_tokens_t *tokens,
                                apr_pool_t *p, abb_error_t *err)
{
    const char *what = "tokens";
    const char *type;

    if (!take_text(object, "token_type", &type, p) || (type && strcasecmp(type, "bearer") != 0)) {
        return unusable(err, what, "token_type is not bearer");
    }
    tokens->access_token = take_token(object, "access_token", p);
    tokens->refresh_token = take_token(object, "refresh_token", p);
    if (!tokens->access_token) {
        return unusable(err, what, "access_token is missing or malformed");
    }
    if (!tokens->refresh_token && json_object_get(object, "refresh_token")) {
        return unusable(err, what, "refresh_token is malformed");
    }
    tokens->scope = take_scope(object, p);
    tokens->expires_at = now + take_lifetime(object);
    tokens->is_unproved = tokens->is_basic = 0;
    return APR_SUCCESS;
}

apr_status_t abb_reply_tokens(const char *body, apr_size_t size, apr_time_t now,
                              abb_tokens_t *tokens, apr_pool_t *p, abb_error_t *err)
{
    const char *why;
    json_t *object = load_object(body, size, &why);
    apr_status_t status =
        object ? take_tokens(object, now, tokens, p, err) : unusable(err, "tokens", why);

    json_decref(object);
    return status;
}

/* ---- the account --------------------------------------------------------- */

static const char *take_link(const json_t *user, const char *name, apr_pool_t *p)
{
    const json_t *link = json_object_get(json_object_get(user, "links"), name);
    const char *href = NULL;

    /* Only ever shown to people, so a link that is none is just absent. */
    if (!take_text(link, "href", &href, p) || !href ||
        (strncmp(href, "https://", 8) != 0 && strncmp(href, "http://", 7) != 0)) {
        return NULL;
    }
    return href;
}

static apr_status_t refuse_type(const char *type, abb_error_t *err)
{
    return abb_error_set(err, ABB_EACCOUNT, "the account is of type %.40s, not a person's", type);
}

/* A bot may leave its kind out. */
static const char *take_app_kind(const json_t *user, apr_pool_t *p)
{
    const char *kind;

    return take_text(user, "kind", &kind, p) && kind ? kind : "app_user";
}

static apr_status_t check_kind(const json_t *user, abb_account_t *account, apr_pool_t *p,
                               abb_error_t *err)
{
    const char *type;
    const char *state;

    if (!take_text(user, "type", &type, p) || !type) {
        return unusable(err, "the account", "type is missing");
    }
    if (strcmp(type, "app_user") == 0) {
        account->app_kind = take_app_kind(user, p);
    }
    else if (strcmp(type, "user") != 0) {
        return refuse_type(type, err);
    }
    if (!take_text(user, "account_status", &state, p)) {
        return unusable(err, "the account", "account_status is no text");
    }
    if (state && strcmp(state, "active") != 0) {
        return abb_error_set(err, ABB_EACCOUNT, "the account's status is %.40s, not active", state);
    }
    return APR_SUCCESS;
}

static const char *dump_compact(const json_t *object, apr_pool_t *p)
{
    apr_size_t size = json_dumpb(object, NULL, 0, JSON_COMPACT);
    char *text = apr_palloc(p, size + 1);

    json_dumpb(object, text, size, JSON_COMPACT);
    text[size] = '\0';
    return text;
}

static apr_status_t take_user(const json_t *user, abb_account_t *account, const char **raw,
                              apr_pool_t *p, abb_error_t *err)
{
    const char *what = "the account";
    const char *uuid;
    apr_status_t status;

    if ((status = check_kind(user, account, p, err)) != APR_SUCCESS) {
        return status;
    }
    if (!take_text(user, "uuid", &uuid, p) || !uuid ||
        !(account->uuid = abb_account_parse_uuid(uuid, p))) {
        return account->app_kind ? refuse_type("app_user", err)
                                 : unusable(err, what, "uuid is missing or malformed");
    }
    if (!take_text(user, "account_id", &account->account_id, p) ||
        !take_text(user, "username", &account->username, p) ||
        !take_text(user, "nickname", &account->nickname, p) ||
        !take_text(user, "display_name", &account->display_name, p)) {
        return unusable(err, what, "a name is no text or too long");
    }
    account->avatar_url = take_link(user, "avatar", p);
    account->profile_url = take_link(user, "html", p);
    *raw = dump_compact(user, p);
    return APR_SUCCESS;
}

apr_status_t abb_reply_user(const char *body, apr_size_t size, abb_account_t *account,
                            const char **raw, apr_pool_t *p, abb_error_t *err)
{
    const char *why;
    json_t *user = load_object(body, size, &why);
    apr_status_t status;

    memset(account, 0, sizeof(*account));
    status = user ? take_user(user, account, raw, p, err) : unusable(err, "the account", why);
    json_decref(user);
    return status;
}

/* ---- addresses ----------------------------------------------------------- */

static int is_email(const char *text)
{
    const char *at = strchr(text, '@');

    if (!at || at == text || at[1] == '\0' || strchr(at + 1, '@') || strlen(text) > EMAIL_MAX) {
        return 0;
    }
    for (const char *c = text; *c; ++c) {
        if (*c <= 0x20 || *c > 0x7e) {
            return 0;
        }
    }
    return 1;
}

/* One that finds no room is left out. */
static void list_address(char *list, const char *email)
{
    apr_size_t used = strlen(list);

    if (used + 1 + strlen(email) <= ABB_REPLY_CONFIRMED_MAX) {
        apr_snprintf(list + used, ABB_REPLY_CONFIRMED_MAX + 1 - used, used ? " %s" : "%s", email);
    }
}

static void take_address(const json_t *entry, char *list, abb_reply_emails_t *emails, apr_pool_t *p)
{
    const char *email = json_string_value(json_object_get(entry, "email"));

    if (!email || !is_email(email) || !json_is_true(json_object_get(entry, "is_confirmed"))) {
        return;
    }
    list_address(list, email);
    if (!emails->first_confirmed) {
        emails->first_confirmed = apr_pstrdup(p, email);
    }
    if (!emails->primary && json_is_true(json_object_get(entry, "is_primary"))) {
        emails->primary = apr_pstrdup(p, email);
    }
}

static apr_status_t take_emails(const json_t *page, abb_reply_emails_t *emails, apr_pool_t *p,
                                abb_error_t *err)
{
    const char *what = "e-mail addresses";
    const json_t *values = json_object_get(page, "values");
    char *list;

    if (!json_is_array(values)) {
        return unusable(err, what, NO_LIST);
    }
    if (json_array_size(values) > ABB_REPLY_EMAILS_MAX) {
        return unusable(err, what, "one page holds too many values");
    }
    list = apr_pcalloc(p, ABB_REPLY_CONFIRMED_MAX + 1);
    for (apr_size_t i = 0; i < json_array_size(values); ++i) {
        take_address(json_array_get(values, i), list, emails, p);
    }
    emails->confirmed = *list ? list : NULL;
    if (!take_text(page, "next", &emails->next, p)) {
        return unusable(err, what, "next is no text");
    }
    return APR_SUCCESS;
}

apr_status_t abb_reply_emails(const char *body, apr_size_t size, abb_reply_emails_t *emails,
                              apr_pool_t *p, abb_error_t *err)
{
    const char *why;
    json_t *page = load_object(body, size, &why);
    apr_status_t status;

    memset(emails, 0, sizeof(*emails));
    status = page ? take_emails(page, emails, p, err) : unusable(err, "e-mail addresses", why);
    json_decref(page);
    return status;
}

/* ---- memberships --------------------------------------------------------- */

/* The membership must be of this user; the answer may leave the user out. */
static int is_of_user(const json_t *membership, const char *user_uuid, apr_pool_t *p)
{
    const json_t *user = json_object_get(membership, "user");
    const char *text;
    const char *uuid;

    if (!user || json_is_null(user)) {
        return 1;
    }
    if (!take_text(user, "uuid", &text, p) || !text) {
        return 0;
    }
    uuid = abb_account_parse_uuid(text, p);
    return uuid && strcmp(uuid, user_uuid) == 0;
}

/* Take slug and uuid of the workspace, which must be the one asked about. */
static int take_workspace(const json_t *membership, abb_grant_t *grant, apr_pool_t *p)
{
    const json_t *workspace = json_object_get(membership, "workspace");
    const char *slug;
    const char *uuid;

    if (!take_text(workspace, "slug", &slug, p) || !take_text(workspace, "uuid", &uuid, p) ||
        !slug || !uuid) {
        return 0;
    }
    grant->slug = abb_text_lower(slug, p);
    grant->uuid = abb_account_parse_uuid(uuid, p);
    return grant->uuid &&
           (strcmp(grant->slug, grant->asked) == 0 || strcmp(grant->uuid, grant->asked) == 0);
}

static void begin_grant(abb_grant_t *grant)
{
    grant->slug = grant->uuid = NULL;
    grant->role = ABB_ROLE_NONE;
}

static apr_status_t check_membership(const json_t *membership, const char *user_uuid,
                                     abb_grant_t *grant, apr_pool_t *p, abb_error_t *err)
{
    const char *what = "a workspace";

    if (!is_of_user(membership, user_uuid, p)) {
        return unusable(err, what, "it is about another user");
    }
    if (!take_workspace(membership, grant, p)) {
        return unusable(err, what, "it is about another workspace");
    }
    return APR_SUCCESS;
}

static apr_status_t take_role(const json_t *membership, const char *user_uuid, abb_grant_t *grant,
                              const char **doubt, apr_pool_t *p, abb_error_t *err)
{
    const char *permission;
    apr_status_t status = check_membership(membership, user_uuid, grant, p, err);

    if (status != APR_SUCCESS) {
        return status;
    }
    if (!take_text(membership, "permission", &permission, p)) {
        return unusable(err, "a workspace", "permission is no text");
    }
    grant->role = permission ? abb_account_parse_role(permission) : ABB_ROLE_NONE;
    if (grant->role == ABB_ROLE_NONE) {
        *doubt = permission ? apr_psprintf(p, "permission '%.40s' is unknown", permission)
                            : "permission is missing";
    }
    return APR_SUCCESS;
}

apr_status_t abb_reply_permission(const char *body, apr_size_t size, const char *user_uuid,
                                  abb_grant_t *grant, const char **doubt, apr_pool_t *p,
                                  abb_error_t *err)
{
    const char *why;
    json_t *membership = load_object(body, size, &why);
    apr_status_t status;

    begin_grant(grant);
    *doubt = NULL;
    status = membership ? take_role(membership, user_uuid, grant, doubt, p, err)
                        : unusable(err, "a workspace", why);
    json_decref(membership);
    return status;
}

apr_status_t abb_reply_member(const char *body, apr_size_t size, const char *user_uuid,
                              abb_grant_t *grant, apr_pool_t *p, abb_error_t *err)
{
    const char *why;
    json_t *membership = load_object(body, size, &why);
    apr_status_t status;

    begin_grant(grant);
    status = membership ? check_membership(membership, user_uuid, grant, p, err)
                        : unusable(err, "a workspace", why);
    json_decref(membership);
    if (status == APR_SUCCESS) {
        grant->role = ABB_ROLE_MEMBER;
    }
    return status;
}

/* ---- repositories -------------------------------------------------------- */

/* Whether the repository is the one asked about: by its full name, or by its uuid. */
static int take_repository(const json_t *entry, abb_grant_t *grant, apr_pool_t *p)
{
    const json_t *repository = json_object_get(entry, "repository");
    const char *name = strchr(grant->asked, '/') + 1;
    const char *full_name;
    const char *uuid;

    if (!take_text(repository, "full_name", &full_name, p) ||
        !take_text(repository, "uuid", &uuid, p) || !full_name || !uuid) {
        return 0;
    }
    grant->slug = abb_text_lower(full_name, p);
    grant->uuid = abb_account_parse_uuid(uuid, p);
    return grant->uuid &&
           (strcasecmp(grant->slug, grant->asked) == 0 || strcmp(grant->uuid, name) == 0);
}

static apr_status_t take_permission(const json_t *entry, const char *user_uuid, abb_grant_t *grant,
                                    const char **doubt, apr_pool_t *p, abb_error_t *err)
{
    const char *what = "a repository";
    const char *permission;

    if (!is_of_user(entry, user_uuid, p)) {
        return unusable(err, what, "it is about another user");
    }
    if (!take_repository(entry, grant, p)) {
        return unusable(err, what, "it is about another repository");
    }
    if (!take_text(entry, "permission", &permission, p)) {
        return unusable(err, what, "permission is no text");
    }
    grant->role = permission ? abb_account_parse_permission(permission) : ABB_ROLE_NONE;
    if (grant->role == ABB_ROLE_NONE && (!permission || strcmp(permission, "none") != 0)) {
        *doubt = permission ? apr_psprintf(p, "permission '%.40s' is unknown", permission)
                            : "permission is missing";
    }
    return APR_SUCCESS;
}

static apr_status_t take_only_permission(const json_t *page, const char *user_uuid,
                                         abb_grant_t *grant, const char **doubt, apr_pool_t *p,
                                         abb_error_t *err)
{
    const json_t *values = json_object_get(page, "values");

    if (!json_is_array(values)) {
        return unusable(err, "a repository", NO_LIST);
    }
    if (json_array_size(values) > 1) {
        return unusable(err, "a repository", "it holds more than the one asked about");
    }
    return json_array_size(values) == 0
               ? APR_SUCCESS
               : take_permission(json_array_get(values, 0), user_uuid, grant, doubt, p, err);
}

apr_status_t abb_reply_repository(const char *body, apr_size_t size, const char *user_uuid,
                                  abb_grant_t *grant, const char **doubt, apr_pool_t *p,
                                  abb_error_t *err)
{
    const char *why;
    json_t *page = load_object(body, size, &why);
    apr_status_t status;

    begin_grant(grant);
    *doubt = NULL;
    status = page ? take_only_permission(page, user_uuid, grant, doubt, p, err)
                  : unusable(err, "a repository", why);
    json_decref(page);
    return status;
}

/* ---- errors -------------------------------------------------------------- */

/* An array of texts as one text separated by spaces, or NULL. */
static const char *take_words(const json_t *array, apr_pool_t *p)
{
    const char *words = NULL;

    for (apr_size_t i = 0; i < json_array_size(array) && i < 32; ++i) {
        const char *word = json_string_value(json_array_get(array, i));

        if (word && strlen(word) <= 64) {
            word = clean_copy(word, p);
            words = words ? apr_pstrcat(p, words, " ", word, NULL) : word;
        }
    }
    return words;
}

static void take_api_error(const json_t *object, abb_reply_error_t *error, apr_pool_t *p)
{
    const json_t *detail = json_object_get(object, "detail");

    take_text(object, "message", &error->message, p);
    take_text(object, "detail", &error->detail, p);
    error->required = take_words(json_object_get(detail, "required"), p);
    error->granted = take_words(json_object_get(detail, "granted"), p);
    take_text(json_object_get(object, "data"), "announcement_url", &error->announcement_url, p);
}

void abb_reply_error(const char *body, apr_size_t size, abb_reply_error_t *error, apr_pool_t *p)
{
    const char *why;
    json_t *object = load_object(body, size, &why);
    const json_t *value = json_object_get(object, "error");

    memset(error, 0, sizeof(*error));
    if (json_is_object(value)) {
        take_api_error(value, error, p);
    }
    else if (json_is_string(value)) {
        take_text(object, "error", &error->code, p);
        take_text(object, "error_description", &error->message, p);
    }
    json_decref(object);
}
