/* f_text: encodings, escapes, return addresses, queries, durations, uuids. */
#include <apr_strings.h>
#include <string.h>

#include "abb_account.h"
#include "abb_text.h"
#include "targets.h"

void fuzz_base64url(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    const char *text = fuzz_text(bytes, size, p);
    const char *encoded =
        fuzz_copy(abb_text_base64url_encode(bytes, size, p), (size * 4 + 2) / 3 + 1, p);
    unsigned char *exact = fuzz_copy(bytes, size, p);
    unsigned char *decoded;
    apr_size_t decoded_size;

    FUZZ_CHECK(abb_text_base64url_decode(encoded, &decoded, &decoded_size, p) == APR_SUCCESS);
    FUZZ_CHECK(decoded_size == size && memcmp(decoded, bytes, size) == 0);
    memset(exact, 0, size);
    FUZZ_CHECK(abb_text_base64url_decode_exact(encoded, exact, size) == APR_SUCCESS);
    FUZZ_CHECK(memcmp(exact, bytes, size) == 0);
    FUZZ_CHECK(abb_text_base64url_decode_exact(encoded, exact, size + 1) != APR_SUCCESS);
    FUZZ_CHECK(strlen(abb_text_hex(bytes, size, p)) == 2 * size);
    /* No two texts are the same bytes. */
    if (abb_text_base64url_decode(text, &decoded, &decoded_size, p) == APR_SUCCESS) {
        FUZZ_CHECK(strcmp(abb_text_base64url_encode(decoded, decoded_size, p), text) == 0);
    }
}

static void check_html(const char *html)
{
    FUZZ_CHECK(fuzz_is_printable(html) && !strpbrk(html, "<>\"'"));
    for (const char *at = html; (at = strchr(at, '&')) != NULL; ++at) {
        apr_size_t digits = at[1] == '#' ? strspn(at + 2, "0123456789") : 0;

        FUZZ_CHECK(digits > 0 && at[2 + digits] == ';');
    }
}

static void check_json(const char *json)
{
    apr_size_t length = strlen(json);

    FUZZ_CHECK(fuzz_is_printable(json) && !strpbrk(json, "<>&"));
    FUZZ_CHECK(length >= 2 && json[0] == '"' && strchr(json + 1, '"') == json + length - 1);
    for (const char *at = json; (at = strchr(at, '\\')) != NULL; ++at) {
        FUZZ_CHECK(at[1] == 'u' && strspn(at + 2, "0123456789abcdef") >= 4);
    }
}

static void check_percent(const char *text, apr_pool_t *p)
{
    const char *encoded = abb_text_percent_encode(text, p);
    apr_table_t *values;

    FUZZ_CHECK(strspn(encoded, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                               "-._~%") == strlen(encoded));
    FUZZ_CHECK(abb_text_query_parse(apr_pstrcat(p, "x=", encoded, NULL), &values, p, NULL) ==
               APR_SUCCESS);
    FUZZ_CHECK(strcmp(apr_table_get(values, "x"), text) == 0);
}

void fuzz_escape(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    const char *text = fuzz_text(bytes, size, p);
    const char *loggable = abb_text_loggable(text, 40, p);
    const char *quotable = abb_text_quotable(text, 40, p);
    const char *lower = abb_text_lower(text, p);

    check_html(abb_text_html(text, p));
    check_json(abb_text_json(text, p));
    check_percent(text, p);
    FUZZ_CHECK(strlen(loggable) <= 40 && fuzz_is_printable(loggable));
    FUZZ_CHECK(strlen(quotable) <= 40 && fuzz_is_printable(quotable) && !strchr(quotable, '"'));
    FUZZ_CHECK(strcasecmp(lower, text) == 0 && strcmp(abb_text_lower(lower, p), lower) == 0);
    /* What is well formed stays so in its parts; what has a NUL is not. */
    FUZZ_CHECK(!abb_text_is_utf8((const char *)bytes, size) || strlen(text) == size);
}

/* A browser stays at the site, by whatever rules it reads an address. */
static void check_stays(const char *path)
{
    apr_size_t length = strlen(path);

    FUZZ_CHECK(length <= ABB_TEXT_LOCAL_PATH_MAX && path[0] == '/');
    FUZZ_CHECK(path[1] != '/' && path[1] != '\\');
    FUZZ_CHECK(strncasecmp(path, "/%2f", 4) != 0 && strncasecmp(path, "/%5c", 4) != 0);
    FUZZ_CHECK(fuzz_is_printable(path) && !strpbrk(path, " \\\"<>^`{|}#"));
    length = strcspn(path, "?");
    for (apr_size_t i = 0; i + 2 < length; ++i) {
        FUZZ_CHECK(strncmp(path + i, "/..", 3) != 0 || (i + 3 < length && path[i + 3] != '/' &&
                                                        strncasecmp(path + i + 3, "%2f", 3) != 0));
    }
}

void fuzz_path(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    const char *text = fuzz_text(bytes, size, p);
    const char *alone = abb_text_local_path(text, NULL);
    const char *path = abb_text_local_path(text, FUZZ_ORIGIN);

    if (alone) {
        check_stays(alone);
        FUZZ_CHECK(alone == text && path == text);
    }
    if (path) {
        check_stays(path);
        FUZZ_CHECK(alone || strncmp(text, FUZZ_ORIGIN, strlen(FUZZ_ORIGIN)) == 0);
        FUZZ_CHECK(abb_text_local_path(path, FUZZ_ORIGIN) == path);
    }
}

static int compose(void *context, const char *name, const char *value)
{
    const char **query = context;
    apr_pool_t *p = *(apr_pool_t **)(void *)(query + 1);

    *query = apr_pstrcat(p, *query, "&", abb_text_percent_encode(name, p), "=",
                         abb_text_percent_encode(value, p), NULL);
    return 1;
}

static int is_in(void *other, const char *name, const char *value)
{
    FUZZ_CHECK(fuzz_is_same(apr_table_get(other, name), value));
    return 1;
}

void fuzz_query(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    struct {
        const char *text;
        apr_pool_t *p;
    } query = {"", p};
    apr_table_t *values;
    apr_table_t *again;
    abb_error_t err;

    abb_error_clear(&err);
    if (abb_text_query_parse(fuzz_text(bytes, size, p), &values, p, &err) != APR_SUCCESS) {
        FUZZ_CHECK(err.status == ABB_EINPUT && fuzz_is_printable(err.text));
        return;
    }
    FUZZ_CHECK(apr_table_elts(values)->nelts <= 32);
    apr_table_do(compose, &query, values, NULL);
    FUZZ_CHECK(abb_text_query_parse(query.text, &again, p, NULL) == APR_SUCCESS);
    FUZZ_CHECK(apr_table_elts(again)->nelts == apr_table_elts(values)->nelts);
    apr_table_do(is_in, again, values, NULL);
}

void fuzz_duration(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    apr_interval_time_t duration;
    apr_interval_time_t again;

    if (abb_text_duration_parse(fuzz_text(bytes, size, p), &duration) == APR_SUCCESS) {
        FUZZ_CHECK(duration >= 0 && duration <= apr_time_from_sec(10 * 366 * 86400LL));
        FUZZ_CHECK(abb_text_duration_parse(abb_text_duration(duration, p), &again) == APR_SUCCESS);
        FUZZ_CHECK(again == duration);
    }
}

void fuzz_uuid(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    const char *text = fuzz_text(bytes, size, p);
    const char *uuid = abb_account_parse_uuid(text, p);
    const char *first;
    const char *last;

    if (uuid) {
        FUZZ_CHECK(strlen(uuid) == ABB_UUID_LENGTH);
        FUZZ_CHECK(strspn(uuid, "0123456789abcdef-") == ABB_UUID_LENGTH);
        FUZZ_CHECK(strcmp(abb_account_parse_uuid(uuid, p), uuid) == 0);
        FUZZ_CHECK(strcmp(abb_account_parse_uuid(apr_pstrcat(p, "{", uuid, "}", NULL), p), uuid) ==
                   0);
    }
    abb_account_split_name(text, &first, &last, p);
    FUZZ_CHECK(strlen(first ? first : "") + strlen(last ? last : "") <= strlen(text));
    FUZZ_CHECK(abb_account_parse_role(text) == ABB_ROLE_NONE ||
               strcmp(abb_account_role_word(abb_account_parse_role(text)), text) == 0);
    FUZZ_CHECK(abb_account_parse_permission(text) == ABB_ROLE_NONE ||
               strcmp(abb_account_role_word(abb_account_parse_permission(text)), text) == 0);
    FUZZ_CHECK(!abb_account_has_scope("account", text) || strlen(text) <= 7);
    (void)abb_account_has_scope(text, "repository");
    FUZZ_CHECK(abb_account_scope_label(text) != NULL);
}
