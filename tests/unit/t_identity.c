/* t_identity: what applications are told, and what clients cannot tell them. */
#include "abb_identity.h"

#include "unit.h"

static const abb_grant_t grants[] = {
    {"acme", "acme", NULL, ABB_ROLE_OWNER, 1},
    {"odd", "o d:d%", NULL, ABB_ROLE_MEMBER, 1},
    {"gone", NULL, NULL, ABB_ROLE_NONE, 1},
    {"acme/site", "acme/site", NULL, ABB_ROLE_ADMIN, 1},
};

static abb_record_t make_record(void)
{
    abb_record_t record = {.account = {.uuid = "a9225a7d-3e21-431d-a4d3-921a724a67f6",
                                       .username = "zoe",
                                       .display_name = "Zo\xc3\xab 100% \xc3\x9cnal",
                                       .email = "zoe@acme.example"},
                           .grants = (abb_grant_t *)(uintptr_t)grants,
                           .grant_count = UNIT_COUNT(grants)};

    return record;
}

static abb_identity_settings_t make_settings(const char *prefix, abb_header_encoding_t encoding,
                                             apr_pool_t *p)
{
    abb_identity_settings_t settings;

    abb_identity_settle(&settings, prefix, encoding, p);
    return settings;
}

static apr_table_t *headers_of(const abb_record_t *record, abb_header_encoding_t encoding,
                               apr_pool_t *p)
{
    abb_identity_settings_t settings = make_settings("X-Bitbucket-", encoding, p);
    apr_table_t *headers = apr_table_make(p, 4);

    abb_identity_add_headers(headers, &settings, record, apr_time_from_sec(1260), p);
    return headers;
}

static const char *display_name(const char *name, abb_header_encoding_t encoding, apr_pool_t *p)
{
    abb_record_t record = make_record();

    record.account.display_name = name;
    return apr_table_get(headers_of(&record, encoding, p), "X-Bitbucket-Display-Name");
}

/* ---- values -------------------------------------------------------------- */

static void variables_and_headers_come_from_one_table(void **state)
{
    apr_pool_t *p = *state;
    abb_record_t record = make_record();
    apr_table_t *variables = apr_table_make(p, 4);
    apr_table_t *headers = headers_of(&record, ABB_HEADERS_UTF8, p);
    const apr_array_header_t *all = apr_table_elts(variables);

    abb_identity_set_variables(variables, &record, p);
    abb_identity_set_stale(variables, apr_time_from_sec(1260), p);
    assert_int_equal(all->nelts, 9);
    assert_int_equal(apr_table_elts(headers)->nelts, 9);
    for (int i = 0; i < all->nelts; ++i) {
        const apr_table_entry_t *entry = &APR_ARRAY_IDX(all, i, apr_table_entry_t);
        char *name = apr_pstrcat(p, "X-", entry->key, NULL);

        for (char *c = name; *c; ++c) {
            *c = *c == '_' ? '-' : *c;
        }
        assert_string_equal(apr_table_get(headers, name), entry->val);
    }
    assert_string_equal(apr_table_get(variables, "BITBUCKET_STALE"), "1260");
}

static void names_of_headers_have_capitals(void **state)
{
    apr_pool_t *p = *state;
    abb_identity_settings_t settings = make_settings("Acme-ID-", ABB_HEADERS_UTF8, p);

    assert_string_equal(settings.headers[0], "Acme-ID-Uuid");
    assert_string_equal(settings.headers[4], "Acme-ID-Display-Name");
    assert_string_equal(settings.headers[10], "Acme-ID-Email-Verified");
}

static void variables_replace_those_in_their_way(void **state)
{
    apr_pool_t *p = *state;
    abb_record_t record = make_record();
    apr_table_t *variables = apr_table_make(p, 4);

    apr_table_set(variables, "bitbucket_username", "evil");
    abb_identity_set_variables(variables, &record, p);
    assert_string_equal(apr_table_get(variables, "BITBUCKET_USERNAME"), "zoe");
    assert_int_equal(apr_table_elts(variables)->nelts, 8);
}

/* What Bitbucket says may be less than what was known when the request began. */
static void what_is_not_there_any_more_is_unset(void **state)
{
    apr_pool_t *p = *state;
    abb_record_t record = make_record();
    apr_table_t *variables = apr_table_make(p, 4);

    abb_identity_set_variables(variables, &record, p);
    abb_identity_set_stale(variables, apr_time_from_sec(1260), p);
    record.account.email = NULL;
    record.grant_count = 0;
    abb_identity_set_variables(variables, &record, p);
    assert_null(apr_table_get(variables, "BITBUCKET_EMAIL"));
    assert_null(apr_table_get(variables, "BITBUCKET_EMAIL_VERIFIED"));
    assert_null(apr_table_get(variables, "BITBUCKET_WORKSPACES"));
    assert_null(apr_table_get(variables, "BITBUCKET_STALE"));
    assert_string_equal(apr_table_get(variables, "BITBUCKET_USERNAME"), "zoe");
}

static void workspaces_stay_a_list(void **state)
{
    abb_record_t record = make_record();

    assert_string_equal(abb_identity_workspaces(&record, *state), "acme:owner o%20d%3Ad%25:member");
    record.grant_count = 0;
    assert_null(abb_identity_workspaces(&record, *state));
}

static void many_workspaces_are_cut_between_items(void **state)
{
    apr_pool_t *p = *state;
    abb_record_t record = make_record();
    abb_grant_t *many = apr_pcalloc(p, 4096 * sizeof(*many));
    const char *list;
    const char *header;

    for (int i = 0; i < 4096; ++i) {
        many[i].slug = many[i].asked = "workspace";
        many[i].role = ABB_ROLE_OWNER;
    }
    record.grants = many;
    record.grant_count = 4096;
    list = abb_identity_workspaces(&record, p);
    assert_int_equal(strlen(list), ABB_IDENTITY_WORKSPACES_MAX / 16 * 16 - 1);
    header = apr_table_get(headers_of(&record, ABB_HEADERS_PERCENT, p), "X-Bitbucket-Workspaces");
    assert_int_equal(strlen(header), ABB_IDENTITY_HEADER_MAX / 16 * 16 - 1);
    assert_string_equal(header + strlen(header) - 15, "workspace:owner");
}

/* ---- encodings ----------------------------------------------------------- */

static const struct {
    const char *name;
    const char *percent;
    const char *utf8;
} encodings[] = {
    {"Mark Miller", "Mark Miller", "Mark Miller"},
    {"Zo\xc3\xab 100% \xc3\x9cnal", "Zo%C3%AB 100%25 %C3%9Cnal", "Zo\xc3\xab 100% \xc3\x9cnal"},
    {"a\r\nX-Evil: 1\x01\x7f", "a%0D%0AX-Evil: 1%01%7F", "aX-Evil: 1"},
    {"a\tb", "a%09b", "ab"},
    {"nel\xc2\x85here", "nel%C2%85here", "nelhere"},
    {"  both ends ", "%20%20both ends%20", "both ends"},
    {"\xf0\x9f\x98\x80!", "%F0%9F%98%80!", "\xf0\x9f\x98\x80!"},
    /* No UTF-8: it ends, and nothing is read behind it. */
    {"cut \xf0\x9f", "cut %F0%9F", "cut \xf0\x9f"},
    {"\xff\x80", "%FF%80", "\xff\x80"},
    /* Nor here: what stands behind a cut character is not its part. */
    {"a\xc3\r\nX-Evil: 1", "a%C3%0D%0AX-Evil: 1", "a\xc3X-Evil: 1"},
    {"\xf0\x9f\x01!\xe2\x7f", "%F0%9F%01!%E2%7F", "\xf0\x9f!\xe2"},
    {" \x01 a \xc2\x85 ", "%20%01 a %C2%85%20", "a"},
    {"   ", "%20%20%20", NULL},
    {"\x01", "%01", NULL},
    {"", NULL, NULL},
};

static void check_text(const char *text, const char *expected)
{
    if (expected) {
        assert_non_null(text);
        assert_string_equal(text, expected);
    }
    else {
        assert_null(text);
    }
}

static void headers_are_encoded(void **state)
{
    for (apr_size_t i = 0; i < UNIT_COUNT(encodings); ++i) {
        char *name = unit_bytes(encodings[i].name, strlen(encodings[i].name) + 1, *state);

        check_text(display_name(name, ABB_HEADERS_PERCENT, *state), encodings[i].percent);
        check_text(display_name(name, ABB_HEADERS_UTF8, *state), encodings[i].utf8);
    }
}

static char *repeat(const char *text, int count, apr_pool_t *p)
{
    apr_size_t length = strlen(text);
    char *all = apr_palloc(p, length * (apr_size_t)count + 1);

    for (int i = 0; i < count; ++i) {
        memcpy(all + length * (apr_size_t)i, text, length);
    }
    all[length * (apr_size_t)count] = '\0';
    return all;
}

static void long_names_are_cut_and_keys_are_not(void **state)
{
    apr_pool_t *p = *state;
    abb_record_t record = make_record();
    apr_table_t *headers;

    assert_int_equal(
        strlen(display_name(repeat("x", ABB_IDENTITY_HEADER_MAX, p), ABB_HEADERS_PERCENT, p)),
        ABB_IDENTITY_HEADER_MAX);
    assert_int_equal(strlen(display_name(repeat("x", 5000, p), ABB_HEADERS_UTF8, p)),
                     ABB_IDENTITY_HEADER_MAX);
    /* Six bytes each, three of them. */
    assert_int_equal(strlen(display_name(repeat("\xc3\xab", 2000, p), ABB_HEADERS_PERCENT, p)),
                     ABB_IDENTITY_HEADER_MAX / 6 * 6);
    assert_int_equal(strlen(display_name(repeat("\xe2\x82\xac", 2000, p), ABB_HEADERS_UTF8, p)),
                     ABB_IDENTITY_HEADER_MAX / 3 * 3);
    record.account.username = repeat("x", ABB_IDENTITY_HEADER_MAX + 1, p);
    record.account.account_id = repeat("x", ABB_IDENTITY_HEADER_MAX, p);
    headers = headers_of(&record, ABB_HEADERS_PERCENT, p);
    assert_null(apr_table_get(headers, "X-Bitbucket-Username"));
    assert_string_equal(apr_table_get(headers, "X-Bitbucket-Account-Id"),
                        record.account.account_id);
}

/* ---- prefixes ------------------------------------------------------------ */

static void prefixes(void **state)
{
    static const char *const good[] = {
        "X-Bitbucket-",      "x-b-",        "Acme-",   "A-",    "My_Proxy-",  "XX-",
        "X-Forwarded-User-", "Acceptance-", "Secret-", "Iffy-", "User-Info-", "Proxy-User-"};
    static const char *const bad[] = {"",
                                      "-",
                                      "X-",
                                      "x-",
                                      "X-Bitbucket",
                                      "X Bitbucket-",
                                      "X-B:-",
                                      "1-",
                                      "-X-",
                                      "X-B\xc3\xab-",
                                      "X-B,-",
                                      "X-B\r\n-",
                                      "Content-",
                                      "content-",
                                      "Transfer-",
                                      "Sec-",
                                      "If-",
                                      "X-Forwarded-",
                                      "Accept-",
                                      "Proxy-",
                                      "X-B.-",
                                      "If-Modified-",
                                      "if_modified-",
                                      "If-Unmodified-",
                                      "If-Schedule-Tag-",
                                      "Sec-WebSocket-",
                                      "Sec-CH-UA-",
                                      "Access-Control-",
                                      "Access-Control-Request-",
                                      "Access-Control-Request-Private-",
                                      "Content-Security-",
                                      "Service-Worker-",
                                      "Service-Worker-Navigation-",
                                      "Lock-",
                                      "User-",
                                      "_-"};

    for (apr_size_t i = 0; i < UNIT_COUNT(good); ++i) {
        assert_null(abb_identity_check_prefix(good[i]));
    }
    for (apr_size_t i = 0; i < UNIT_COUNT(bad); ++i) {
        assert_non_null(abb_identity_check_prefix(bad[i]));
    }
    assert_null(abb_identity_check_prefix(
        apr_pstrcat(*state, repeat("x", ABB_IDENTITY_PREFIX_MAX - 1, *state), "-", NULL)));
    assert_non_null(abb_identity_check_prefix(
        apr_pstrcat(*state, repeat("x", ABB_IDENTITY_PREFIX_MAX, *state), "-", NULL)));
}

/* ---- scrubbing ----------------------------------------------------------- */

static const struct {
    const char *name;
    const char *value;
    /* What is left: the value, another one, or NULL for nothing. */
    const char *left;
} scrubs[] = {
    {"X-Bitbucket-Uuid", "evil", NULL},
    {"x-bitbucket-anything-at-all", "evil", NULL},
    {"X_BITBUCKET_UUID", "evil", NULL},
    {"x.bitbucket~uuid", "evil", NULL},
    {"X-Bitbucket-", "evil", NULL},
    {"X-Bitbucket", "mine", "mine"},
    {"X-BitbucketUuid", "mine", "mine"},
    {"X", "mine", "mine"},
    {"", "mine", "mine"},
    {"A-X-Bitbucket-Uuid", "mine", "mine"},
    {"Connection", "close", "close"},
    {"Connection", "keep-alive,  Upgrade", "keep-alive,  Upgrade"},
    {"Connection", "x-bitbucket-uuid", NULL},
    {"connection", "close, X-Bitbucket-Uuid", "close"},
    {"CONNECTION", "X_Bitbucket_Uuid;;close ,\tx-bitbucket-email", "close"},
    {"Connection", "a,X-Bitbucket-Uuid,b", "a, b"},
    {"Connection", "\"X-Bitbucket-Uuid\", b", "b"},
    {"Connection", "", ""},
    {"Connection", " ,", " ,"},
    {"Connections", "X-Bitbucket-Uuid", "X-Bitbucket-Uuid"},
};

static void clients_headers_are_scrubbed(void **state)
{
    apr_pool_t *p = *state;
    abb_identity_settings_t settings = make_settings("X-Bitbucket-", ABB_HEADERS_PERCENT, p);

    for (apr_size_t i = 0; i < UNIT_COUNT(scrubs); ++i) {
        apr_table_t *headers = apr_table_make(p, 4);
        apr_table_t *left;

        apr_table_set(headers, "Host", "wiki.example.com");
        apr_table_add(headers, scrubs[i].name, scrubs[i].value);
        apr_table_add(headers, "Accept", "a");
        apr_table_add(headers, "Accept", "b");
        left = abb_identity_scrub(&settings, headers, p);
        check_text(apr_table_get(left, scrubs[i].name), scrubs[i].left);
        assert_string_equal(apr_table_get(left, "Host"), "wiki.example.com");
        assert_int_equal(apr_table_elts(left)->nelts, scrubs[i].left ? 4 : 3);
        assert_int_equal(left == headers,
                         scrubs[i].left && strcmp(scrubs[i].left, scrubs[i].value) == 0);
    }
}

static void all_of_many_are_scrubbed(void **state)
{
    apr_pool_t *p = *state;
    abb_identity_settings_t settings = make_settings("X-Bitbucket-", ABB_HEADERS_PERCENT, p);
    apr_table_t *headers = apr_table_make(p, 4);

    for (int i = 0; i < 30000; ++i) {
        apr_table_add(headers, apr_psprintf(p, "X-Bitbucket-%d", i), "evil");
        apr_table_add(headers, "x_bitbucket_uuid", "evil");
    }
    assert_int_equal(apr_table_elts(abb_identity_scrub(&settings, headers, p))->nelts, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(variables_and_headers_come_from_one_table),
        UNIT_TEST(names_of_headers_have_capitals),
        UNIT_TEST(variables_replace_those_in_their_way),
        UNIT_TEST(workspaces_stay_a_list),
        UNIT_TEST(many_workspaces_are_cut_between_items),
        UNIT_TEST(headers_are_encoded),
        UNIT_TEST(long_names_are_cut_and_keys_are_not),
        UNIT_TEST(what_is_not_there_any_more_is_unset),
        UNIT_TEST(prefixes),
        UNIT_TEST(clients_headers_are_scrubbed),
        UNIT_TEST(all_of_many_are_scrubbed),
    };

    return cmocka_run_group_tests_name("identity", tests, unit_begin, unit_end);
}
