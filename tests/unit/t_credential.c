/* t_credential: one credential has one spelling, and everything else is none. */
#include <string.h>

#include "abb_credential.h"
#include "unit.h"

static const abb_crypto_keyring_t ring = {1, {{{1, 2, 3}}}};
static const abb_crypto_keyring_t other_ring = {1, {{{4, 5, 6}}}};

static apr_status_t read_value(const char *value, abb_credential_t *credential, apr_pool_t *p)
{
    abb_error_t err;
    apr_status_t status;

    abb_error_clear(&err);
    status = abb_credential_read(value, credential, p, &err);
    assert_int_equal(err.status, status);
    return status;
}

static void two_schemes_are_ours(void **state)
{
    static const char *const ours[] = {"Basic",    "Basic ", "basic x",
                                       "BASIC  x", "Bearer", "bEaReR y"};
    static const char *const others[] = {
        "", "B", "Basicx", "Bearers x", "Digest x", "Basic\tx", " Basic x", "Negotiate", "Basic,x"};

    for (apr_size_t i = 0; i < UNIT_COUNT(ours); ++i) {
        assert_true(abb_credential_is_ours(ours[i]));
    }
    for (apr_size_t i = 0; i < UNIT_COUNT(others); ++i) {
        assert_false(abb_credential_is_ours(others[i]));
    }
    assert_false(abb_credential_is_ours(NULL));
}

static void basic_is_read(void **state)
{
    abb_credential_t credential;

    /* Mark@Acme.example:a:b */
    assert_int_equal(read_value("Basic  TWFya0BBY21lLmV4YW1wbGU6YTpi", &credential, *state),
                     APR_SUCCESS);
    assert_true(credential.is_basic);
    assert_string_equal(credential.value, "TWFya0BBY21lLmV4YW1wbGU6YTpi");
    assert_string_equal(credential.email, "mark@acme.example");
}

static void bearer_is_read(void **state)
{
    abb_credential_t credential;

    assert_int_equal(read_value("bearer a-B._~+/9==", &credential, *state), APR_SUCCESS);
    assert_false(credential.is_basic);
    assert_string_equal(credential.value, "a-B._~+/9==");
    assert_null(credential.email);
}

static void anything_else_is_refused(void **state)
{
    static const char *const values[] = {
        "Basic",
        "Basic ",
        "Basic =",
        "Basic ====",
        "Basic bUBhOmI",
        "Basic bUBhOmI==",
        "Basic bUBhOmJ=",
        /* m@a:b with a space, a tab, a newline, another alphabet, and the last unused bits set */
        "Basic bUBh OmI=",
        "Basic bUBhOmI=\t",
        "Basic bUBhOmI=\n",
        "Basic bUBh-mI=",
        "Basic bUBhOmL=",
        /* no colon; no address; no token; no at; at the ends; a NUL; a control */
        "Basic bUBh",
        "Basic OmI=",
        "Basic bUBhOg==",
        "Basic bTpi",
        "Basic QDpi",
        "Basic bUA6Yg==",
        "Basic QGE6Yg==",
        "Basic bUBhOmIA",
        "Basic bQFAYTpi",
        "Bearer",
        "Bearer ",
        "Bearer =",
        "Bearer a=b",
        "Bearer a b",
        "Bearer \xc3\xa9",
        "Bearer a,b",
        "Digest x",
        "",
    };
    abb_credential_t credential;

    for (apr_size_t i = 0; i < UNIT_COUNT(values); ++i) {
        if (read_value(values[i], &credential, *state) != ABB_EINPUT) {
            fail_msg("'%s' was read", values[i]);
        }
    }
}

static void there_is_a_longest(void **state)
{
    const char *longest = unit_repeat('a', ABB_CREDENTIAL_MAX, *state);
    abb_credential_t credential;

    assert_int_equal(read_value(apr_pstrcat(*state, "Bearer ", longest, NULL), &credential, *state),
                     APR_SUCCESS);
    assert_int_equal(
        read_value(apr_pstrcat(*state, "Bearer ", longest, "a", NULL), &credential, *state),
        ABB_EINPUT);
    assert_int_equal(
        read_value(apr_pstrcat(*state, "Basic ", longest, "aaaa", NULL), &credential, *state),
        ABB_EINPUT);
}

static void name_of(const abb_credential_t *credential, const abb_crypto_keyring_t *keys,
                    const char *audience, unsigned char name[ABB_CRYPTO_KEY_SIZE], apr_pool_t *p)
{
    abb_crypto_key_t key;

    assert_int_equal(abb_credential_derive_key(keys, audience, &key, NULL), APR_SUCCESS);
    assert_int_equal(abb_credential_name(credential, &key, name, p, NULL), APR_SUCCESS);
}

/* Each of scheme, value, site and key makes another name. */
static void names_tell_everything_apart(void **state)
{
    static const struct {
        abb_credential_t credential;
        const abb_crypto_keyring_t *keys;
        const char *audience;
    } cases[] = {
        {{1, "abcd", "m@a"}, &ring, "1:a:https://x"},
        {{0, "abcd", NULL}, &ring, "1:a:https://x"},
        {{1, "abce", "m@a"}, &ring, "1:a:https://x"},
        {{1, "abcd", "m@a"}, &ring, "1:a:https://y"},
        {{1, "abcd", "m@a"}, &other_ring, "1:a:https://x"},
        {{1, "abcd", "m@a"}, &ring, ""},
    };
    unsigned char names[UNIT_COUNT(cases)][ABB_CRYPTO_KEY_SIZE];
    unsigned char again[ABB_CRYPTO_KEY_SIZE];

    for (apr_size_t i = 0; i < UNIT_COUNT(cases); ++i) {
        name_of(&cases[i].credential, cases[i].keys, cases[i].audience, names[i], *state);
        name_of(&cases[i].credential, cases[i].keys, cases[i].audience, again, *state);
        assert_memory_equal(names[i], again, sizeof(again));
        for (apr_size_t j = 0; j < i; ++j) {
            assert_memory_not_equal(names[i], names[j], sizeof(names[i]));
        }
    }
}

static int begin(void **state)
{
    return unit_begin(state) || abb_crypto_init(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(two_schemes_are_ours), UNIT_TEST(basic_is_read),
        UNIT_TEST(bearer_is_read),       UNIT_TEST(anything_else_is_refused),
        UNIT_TEST(there_is_a_longest),   UNIT_TEST(names_tell_everything_apart),
    };

    return cmocka_run_group_tests(tests, begin, unit_end);
}
