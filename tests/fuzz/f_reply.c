/* f_reply: what Bitbucket answers, and the address of a next page. */
#include <apr_strings.h>
#include <string.h>

#include "../../src/bitbucket_internal.h"
#include "abb_reply.h"
#include "abb_text.h"
#include "targets.h"

#define API "https://api.bitbucket.org/2.0"
#define WORKSPACE "470c176d-3574-44ea-bb41-89e8638bcca4"

static void check_text(const char *text)
{
    FUZZ_CHECK(!text || (*text && strlen(text) <= ABB_REPLY_TEXT_MAX));
    FUZZ_CHECK(fuzz_has_no_controls(text));
    FUZZ_CHECK(!text || abb_text_is_utf8(text, strlen(text)));
}

static void check_uuid(const char *uuid)
{
    FUZZ_CHECK(strlen(uuid) == ABB_UUID_LENGTH && strspn(uuid, "0123456789abcdef-") == 36);
}

static void check_error(const abb_error_t *err, apr_status_t status)
{
    FUZZ_CHECK(err->status == status && *err->text && fuzz_is_printable(err->text));
}

static void check_token(const char *token)
{
    FUZZ_CHECK(strlen(token) > 0 && strlen(token) <= ABB_REPLY_TOKEN_MAX);
    FUZZ_CHECK(fuzz_is_printable(token) && !strchr(token, ' '));
}

void fuzz_reply_tokens(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    abb_tokens_t tokens;
    abb_error_t err;
    apr_status_t status;

    abb_error_clear(&err);
    status = abb_reply_tokens((const char *)bytes, size, FUZZ_NOW, &tokens, p, &err);
    if (status != APR_SUCCESS) {
        FUZZ_CHECK(status == ABB_EUPSTREAM);
        check_error(&err, status);
        return;
    }
    check_token(tokens.access_token);
    if (tokens.refresh_token) {
        check_token(tokens.refresh_token);
    }
    FUZZ_CHECK(fuzz_has_no_controls(tokens.scope) && !tokens.is_basic && !tokens.is_unproved);
    FUZZ_CHECK(!tokens.scope || !strstr(tokens.scope, "  "));
    FUZZ_CHECK(tokens.expires_at > FUZZ_NOW &&
               tokens.expires_at <= FUZZ_NOW + apr_time_from_sec(30 * 86400));
}

void fuzz_reply_user(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    abb_account_t account;
    abb_account_t again;
    const char *raw = NULL;
    const char *raw_again = NULL;
    abb_error_t err;
    apr_status_t status;

    abb_error_clear(&err);
    status = abb_reply_user((const char *)bytes, size, &account, &raw, p, &err);
    if (status != APR_SUCCESS) {
        FUZZ_CHECK(status == ABB_EUPSTREAM || status == ABB_EACCOUNT);
        check_error(&err, status);
        return;
    }
    check_uuid(account.uuid);
    check_text(account.account_id);
    check_text(account.username);
    check_text(account.nickname);
    check_text(account.display_name);
    check_text(account.avatar_url);
    check_text(account.profile_url);
    check_text(account.app_kind);
    FUZZ_CHECK(!account.email && !account.emails);
    FUZZ_CHECK(!account.avatar_url || strncmp(account.avatar_url, "http", 4) == 0);
    FUZZ_CHECK(!account.profile_url || strncmp(account.profile_url, "http", 4) == 0);
    /* What is kept of it says the same. */
    FUZZ_CHECK(fuzz_has_no_controls(raw) || !strpbrk(raw, "\r\n"));
    FUZZ_CHECK(abb_reply_user(raw, strlen(raw), &again, &raw_again, p, NULL) == APR_SUCCESS);
    FUZZ_CHECK(strcmp(again.uuid, account.uuid) == 0 &&
               fuzz_is_same(again.display_name, account.display_name));
}

static void check_address(const char *email)
{
    const char *at = strchr(email, '@');

    FUZZ_CHECK(at && at > email && at[1] && !strchr(at + 1, '@') && strlen(email) <= 254);
    FUZZ_CHECK(fuzz_is_printable(email) && !strchr(email, ' '));
}

void fuzz_reply_emails(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    abb_reply_emails_t emails;
    abb_error_t err;
    apr_status_t status;

    abb_error_clear(&err);
    status = abb_reply_emails((const char *)bytes, size, &emails, p, &err);
    if (status != APR_SUCCESS) {
        FUZZ_CHECK(status == ABB_EUPSTREAM);
        check_error(&err, status);
        return;
    }
    check_text(emails.next);
    FUZZ_CHECK(!emails.first_confirmed == !emails.confirmed);
    FUZZ_CHECK(!emails.primary || emails.confirmed);
    if (emails.primary) {
        check_address(emails.primary);
        FUZZ_CHECK(strstr(emails.confirmed, emails.primary) != NULL);
    }
    if (emails.confirmed) {
        char *state;

        check_address(emails.first_confirmed);
        for (char *word = apr_strtok(apr_pstrdup(p, emails.confirmed), " ", &state); word;
             word = apr_strtok(NULL, " ", &state)) {
            check_address(word);
        }
    }
}

/* ---- workspaces and repositories ------------------------------------------ */

typedef apr_status_t read_grant_t(const char *body, apr_size_t size, abb_grant_t *grant,
                                  const char **doubt, apr_pool_t *p, abb_error_t *err);

static apr_status_t read_permission(const char *body, apr_size_t size, abb_grant_t *grant,
                                    const char **doubt, apr_pool_t *p, abb_error_t *err)
{
    return abb_reply_permission(body, size, FUZZ_USER, grant, doubt, p, err);
}

static apr_status_t read_member(const char *body, apr_size_t size, abb_grant_t *grant,
                                const char **doubt, apr_pool_t *p, abb_error_t *err)
{
    *doubt = NULL;
    return abb_reply_member(body, size, FUZZ_USER, grant, p, err);
}

static apr_status_t read_repository(const char *body, apr_size_t size, abb_grant_t *grant,
                                    const char **doubt, apr_pool_t *p, abb_error_t *err)
{
    return abb_reply_repository(body, size, FUZZ_USER, grant, doubt, p, err);
}

/* A role is of what was asked about, by its slug or by its uuid. */
static void check_grant(const abb_grant_t *grant, const char *doubt)
{
    const char *slash = strchr(grant->asked, '/');

    FUZZ_CHECK(grant->role == ABB_ROLE_NONE || !doubt);
    FUZZ_CHECK(fuzz_has_no_controls(doubt));
    FUZZ_CHECK(!grant->slug == !grant->uuid);
    if (!grant->slug) {
        FUZZ_CHECK(grant->role == ABB_ROLE_NONE);
        return;
    }
    check_text(grant->slug);
    check_uuid(grant->uuid);
    FUZZ_CHECK(strcasecmp(grant->slug, grant->asked) == 0 ||
               strcmp(grant->uuid, slash ? slash + 1 : grant->asked) == 0);
    FUZZ_CHECK(slash ? grant->role == ABB_ROLE_NONE || grant->role >= ABB_ROLE_READ
                     : grant->role <= ABB_ROLE_OWNER);
}

static void try_grant(read_grant_t *read, const char *asked, const unsigned char *bytes,
                      apr_size_t size, apr_pool_t *p)
{
    abb_grant_t grant = {.asked = asked, .checked_at = FUZZ_NOW};
    const char *doubt = NULL;
    abb_error_t err;
    apr_status_t status;

    abb_error_clear(&err);
    status = read((const char *)bytes, size, &grant, &doubt, p, &err);
    FUZZ_CHECK(status == APR_SUCCESS || status == ABB_EUPSTREAM);
    FUZZ_CHECK(grant.asked == asked && grant.checked_at == FUZZ_NOW);
    if (status == APR_SUCCESS) {
        check_grant(&grant, doubt);
    }
    else {
        FUZZ_CHECK(grant.role == ABB_ROLE_NONE);
        check_error(&err, status);
    }
}

void fuzz_reply_permission(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    try_grant(read_permission, "acme", bytes, size, p);
    try_grant(read_permission, WORKSPACE, bytes, size, p);
}

void fuzz_reply_member(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    try_grant(read_member, "acme", bytes, size, p);
    try_grant(read_member, WORKSPACE, bytes, size, p);
}

void fuzz_reply_repository(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    try_grant(read_repository, "acme/site", bytes, size, p);
    try_grant(read_repository, "acme/" WORKSPACE, bytes, size, p);
}

/* ---- errors and other answers --------------------------------------------- */

void fuzz_reply_error(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    abb_reply_error_t error;

    abb_reply_error((const char *)bytes, size, &error, p);
    check_text(error.code);
    check_text(error.message);
    check_text(error.detail);
    check_text(error.announcement_url);
    FUZZ_CHECK(fuzz_has_no_controls(error.required) && fuzz_has_no_controls(error.granted));
    FUZZ_CHECK(!error.required || strlen(error.required) <= 32 * 65);
    FUZZ_CHECK(!error.granted || strlen(error.granted) <= 32 * 65);
}

/* A whole answer: status, two header fields, body. Doubt never grants. */
void fuzz_answer(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    fuzz_input_t input = fuzz_input(bytes, size, p);
    abb_http_answer_t answer = {.status = (int)(fuzz_number(&input, 2) % 600)};
    apr_interval_time_t pause;

    answer.content_type = fuzz_line_or_null(&input);
    answer.retry_after = fuzz_line_or_null(&input);
    answer.body = fuzz_rest(&input, &answer.body_size);
    pause = abb_bitbucket_retry_after(&answer);
    FUZZ_CHECK(pause >= apr_time_from_sec(1) && pause <= apr_time_from_sec(3600));
    for (int asked = ABB_ASKED_CODE; asked <= ABB_ASKED_REPOSITORY; asked *= 2) {
        abb_error_t err;
        apr_status_t status;

        abb_error_clear(&err);
        status = abb_bitbucket_meaning(asked, "GET /x", &answer, p, &err);
        if (status == APR_SUCCESS) {
            FUZZ_CHECK(answer.status == 200 && abb_bitbucket_is_json(answer.content_type));
        }
        else if (status == APR_NOTFOUND) {
            FUZZ_CHECK((answer.status == 403 || answer.status == 404) &&
                       asked >= ABB_ASKED_PERMISSION);
        }
        else {
            check_error(&err, status);
        }
    }
}

/* The address gets the token, so it is of the API, by whatever rules it is read. */
void fuzz_paging(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    const char *url = fuzz_text(bytes, size, p);

    if (abb_bitbucket_is_page(API, url)) {
        apr_size_t path = strcspn(url, "?");

        FUZZ_CHECK(strncmp(url, API "/", sizeof(API)) == 0);
        FUZZ_CHECK(fuzz_is_printable(url) && !strpbrk(url, " #"));
        FUZZ_CHECK(strcspn(url, "%\\") >= path && strstr(url, "/.") == NULL);
    }
    FUZZ_CHECK(abb_bitbucket_is_page(API, apr_pstrcat(p, API, url, NULL)) == 0 || *url == '/');
}
