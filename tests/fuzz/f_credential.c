/* f_credential: the Authorization header, and the arguments of Require lines. */
#include <apr_strings.h>
#include <string.h>

#include "../../src/bitbucket_internal.h"
#include "abb_authz.h"
#include "abb_credential.h"
#include "targets.h"

static void check_credential(const abb_credential_t *credential, apr_pool_t *p)
{
    abb_crypto_key_t key;
    unsigned char name[ABB_CRYPTO_KEY_SIZE];
    unsigned char name_again[ABB_CRYPTO_KEY_SIZE];
    abb_credential_t again;
    const char *line =
        apr_pstrcat(p, credential->is_basic ? "basic   " : "BEARER ", credential->value, NULL);

    FUZZ_CHECK(*credential->value && strlen(credential->value) <= ABB_CREDENTIAL_MAX);
    FUZZ_CHECK(fuzz_is_printable(credential->value) && !strchr(credential->value, ' '));
    FUZZ_CHECK(!credential->is_basic == !credential->email);
    if (credential->email) {
        FUZZ_CHECK(strchr(credential->email, '@') && !strchr(credential->email, ':'));
        FUZZ_CHECK(strlen(credential->email) <= 254 && fuzz_has_no_controls(credential->email));
    }
    /* One credential has one name, however its scheme is written. */
    FUZZ_CHECK(abb_credential_read(line, &again, p, NULL) == APR_SUCCESS);
    FUZZ_CHECK(abb_credential_derive_key(&fuzz_ring, FUZZ_AUDIENCE, &key, NULL) == APR_SUCCESS);
    FUZZ_CHECK(abb_credential_name(credential, &key, name, p, NULL) == APR_SUCCESS);
    FUZZ_CHECK(abb_credential_name(&again, &key, name_again, p, NULL) == APR_SUCCESS);
    FUZZ_CHECK(memcmp(name, name_again, sizeof(name)) == 0);
}

void fuzz_credential(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    const char *line = fuzz_text(bytes, size, p);
    abb_credential_t credential;
    abb_error_t err;
    apr_status_t status;

    abb_error_clear(&err);
    status = abb_credential_read(line, &credential, p, &err);
    if (status == APR_SUCCESS) {
        FUZZ_CHECK(abb_credential_is_ours(line));
        check_credential(&credential, p);
    }
    else {
        FUZZ_CHECK(status == ABB_EINPUT && err.status == ABB_EINPUT);
        FUZZ_CHECK(strlen(line) < 20 || !strstr(err.text, line));
    }
}

/* ---- Require -------------------------------------------------------------- */

static const abb_record_ages_t ages = {apr_time_from_sec(300), apr_time_from_sec(3600)};

static abb_record_t make_record(abb_grant_t *grants)
{
    abb_record_t record = {.grants = grants, .grant_count = 2};

    record.account.uuid = FUZZ_USER;
    record.account.username = "ada";
    record.account.email = "ada@example.com";
    record.account.emails = "ada@example.com ada@example.org";
    return record;
}

/* A name goes into the address of a question: it may not lead elsewhere. */
static void check_asked(const char *asked, apr_pool_t *p)
{
    static const abb_bitbucket_t bitbucket = {.api_url = "https://api.bitbucket.org/2.0"};
    const char *url = abb_bitbucket_grant_url(&bitbucket, asked, p);
    const char *path = url + strlen(bitbucket.api_url);

    FUZZ_CHECK(strncmp(path, "/user/workspaces/", 17) == 0);
    FUZZ_CHECK(fuzz_is_printable(url) && !strpbrk(path, " #\\\"<>&") && !strstr(path, "//"));
    FUZZ_CHECK(!strstr(path, "/../") && !strstr(path, "/./"));
    FUZZ_CHECK(strchr(path + 17, '/') && (strncmp(strchr(path + 17, '/'), "/permission", 11) == 0));
}

static void check_rows(const abb_authz_rows_t *rows, int is_repository, apr_pool_t *p)
{
    abb_grant_t grants[] = {{"acme", "acme", FUZZ_USER, ABB_ROLE_MEMBER, FUZZ_NOW},
                            {"acme/site", "acme/site", FUZZ_USER, ABB_ROLE_WRITE, FUZZ_NOW}};
    abb_record_t record = make_record(grants);
    const abb_grant_t *granting;

    for (int i = 0; i < rows->count; ++i) {
        FUZZ_CHECK(abb_account_is_repository(rows->rules[i].asked) == is_repository);
        FUZZ_CHECK(is_repository ? rows->rules[i].role >= ABB_ROLE_READ
                                 : rows->rules[i].role >= ABB_ROLE_COLLABORATOR &&
                                       rows->rules[i].role <= ABB_ROLE_OWNER);
        check_asked(rows->rules[i].asked, p);
    }
    if (abb_authz_check_rows(rows, &record, &ages, FUZZ_NOW, &granting) == ABB_AUTHZ_GRANTED) {
        FUZZ_CHECK(granting == &grants[is_repository]);
    }
    FUZZ_CHECK(fuzz_is_printable(abb_authz_describe_rows(rows, p)));
}

static void check_users(const abb_authz_users_t *users)
{
    abb_record_t record = make_record(NULL);
    int has_names = 0;

    record.grant_count = 0;
    for (int i = 0; i < users->count; ++i) {
        const abb_authz_user_t *rule = &users->rules[i];

        FUZZ_CHECK((rule->uuid != NULL) + (rule->account_id != NULL) + (rule->username != NULL) ==
                   1);
        has_names |= rule->username != NULL;
    }
    FUZZ_CHECK(!abb_authz_needs_names(users) == !has_names);
    FUZZ_CHECK(abb_authz_check_users(users, &record) != ABB_AUTHZ_ASK);
}

static void check_emails(const abb_authz_emails_t *emails)
{
    abb_record_t record = make_record(NULL);

    record.grant_count = 0;
    for (int i = 0; i < emails->count; ++i) {
        const char *at = strchr(emails->patterns[i], '@');

        FUZZ_CHECK(at && at[1] && !strchr(at + 1, '@') && fuzz_is_printable(emails->patterns[i]));
    }
    (void)abb_authz_check_emails(emails, &record);
    record.account.emails = NULL;
    (void)abb_authz_check_emails(emails, &record);
}

void fuzz_require(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    const apr_array_header_t *words = abb_authz_split(fuzz_text(bytes, size, p), p);
    const abb_authz_rows_t *rows;
    const abb_authz_users_t *users;
    const abb_authz_emails_t *emails;

    if (!abb_authz_parse_workspaces(words, &rows, p)) {
        check_rows(rows, 0, p);
    }
    if (!abb_authz_parse_repositories(words, &rows, p)) {
        check_rows(rows, 1, p);
    }
    if (!abb_authz_parse_users(words, &users, p)) {
        check_users(users);
    }
    if (!abb_authz_parse_emails(words, &emails, p)) {
        check_emails(emails);
    }
}
