/* t_error: the first reason wins, and nothing but printable ASCII reaches a log. */
#include "abb_error.h"

#include "unit.h"

static const struct {
    apr_status_t status;
    const char *word;
} reasons[] = {
    {ABB_EINPUT, "input"},
    {ABB_ESEAL, "seal"},
    {ABB_ECRYPTO, "crypto"},
    {ABB_ESTORE, "store"},
    {ABB_EUPSTREAM, "upstream"},
    {ABB_ELIMIT, "rate-limit"},
    {ABB_ECLIENT, "client"},
    {ABB_ESCOPE, "scope"},
    {ABB_EGRANT, "grant"},
    {ABB_ETOKEN, "token"},
    {ABB_EGONE, "gone"},
    {ABB_ECANCELLED, "cancelled"},
    {ABB_EACCOUNT, "account"},
    {ABB_EATTEMPT, "attempt"},
    {ABB_ECHANGED, "changed"},
    {ABB_EBUSY, "busy"},
    {ABB_EIDENTITY, "identity"},
    {ABB_ELOOP, "loop"},
    {ABB_ECREDENTIAL, "credential"},
    {ABB_ETHROTTLED, "throttled"},
    {ABB_ECODES, "codes"},
    {ABB_EPRIVILEGE, "privilege"},
};

static void a_cleared_error_is_empty(void **state)
{
    abb_error_t err;

    memset(&err, 'x', sizeof(err));
    abb_error_clear(&err);
    assert_int_equal(err.status, APR_SUCCESS);
    assert_int_equal(err.retry_after, 0);
    assert_string_equal(err.text, "");
}

static void a_reason_is_kept_with_its_sentence(void **state)
{
    abb_error_t err;

    abb_error_clear(&err);
    assert_int_equal(abb_error_set(&err, ABB_EUPSTREAM, "%s answered %d", "token endpoint", 502),
                     ABB_EUPSTREAM);
    assert_int_equal(err.status, ABB_EUPSTREAM);
    assert_string_equal(err.text, "token endpoint answered 502");
    assert_int_equal(err.retry_after, 0);
}

static void the_first_reason_wins(void **state)
{
    abb_error_t err;

    abb_error_clear(&err);
    abb_error_set(&err, ABB_EGRANT, "first");
    err.retry_after = 7;
    assert_int_equal(abb_error_set(&err, ABB_ESTORE, "second"), ABB_ESTORE);
    assert_int_equal(err.status, ABB_EGRANT);
    assert_string_equal(err.text, "first");
    assert_int_equal(err.retry_after, 7);
}

static void a_cleared_error_takes_a_new_reason(void **state)
{
    abb_error_t err;

    abb_error_clear(&err);
    abb_error_set(&err, ABB_EGRANT, "first");
    abb_error_clear(&err);
    abb_error_set(&err, APR_ENOMEM, "second");
    assert_int_equal(err.status, APR_ENOMEM);
    assert_string_equal(err.text, "second");
}

static void nobody_needs_to_want_the_sentence(void **state)
{
    assert_int_equal(abb_error_set(NULL, ABB_ESEAL, "%d", 1), ABB_ESEAL);
}

/* The struct stands alone in memory, so that a byte written behind it is seen. */
static void a_long_sentence_is_cut(void **state)
{
    abb_error_t empty;
    abb_error_t *err;
    char *text = unit_repeat('a', 5000, *state);

    abb_error_clear(&empty);
    err = unit_bytes(&empty, sizeof(empty), *state);
    abb_error_set(err, ABB_EINPUT, "%s", text);
    assert_int_equal(strlen(err->text), ABB_ERROR_TEXT_SIZE - 1);
    assert_memory_equal(err->text, text, ABB_ERROR_TEXT_SIZE - 1);
}

static void the_longest_sentence_is_kept_whole(void **state)
{
    abb_error_t err;
    char *text = unit_repeat('b', ABB_ERROR_TEXT_SIZE - 1, *state);

    abb_error_clear(&err);
    abb_error_set(&err, ABB_EINPUT, "%s", text);
    assert_string_equal(err.text, text);
}

static void only_printable_ascii_is_kept(void **state)
{
    for (int byte = 1; byte < 256; ++byte) {
        char expected[] = {'<', byte >= 0x20 && byte <= 0x7e ? (char)byte : '?', '>', '\0'};
        abb_error_t err;

        abb_error_clear(&err);
        abb_error_set(&err, ABB_EINPUT, "<%c>", byte);
        unit_equal(err.text, expected, apr_psprintf(*state, "byte %02x", byte));
    }
}

static void arguments_are_no_format(void **state)
{
    abb_error_t err;

    abb_error_clear(&err);
    abb_error_set(&err, ABB_EINPUT, "read '%s'", "%n%s%d");
    assert_string_equal(err.text, "read '%n%s%d'");
}

static void each_reason_has_its_stable_word(void **state)
{
    for (apr_size_t i = 0; i < UNIT_COUNT(reasons); ++i) {
        assert_string_equal(abb_error_word(reasons[i].status), reasons[i].word);
    }
}

static void foreign_codes_have_the_common_word(void **state)
{
    static const apr_status_t foreign[] = {
        APR_SUCCESS, APR_ENOMEM,     APR_NOTFOUND,   APR_EINVAL, APR_TIMEUP,
        -1,          ABB_ERROR_BASE, ABB_ECODES + 1, 0x7fffffff,
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(foreign); ++i) {
        assert_string_equal(abb_error_word(foreign[i]), "error");
    }
}

/* Reasons share their number space with APR's own codes. */
static void reasons_are_distinct_and_within_the_users_range(void **state)
{
    for (apr_size_t i = 0; i < UNIT_COUNT(reasons); ++i) {
        assert_true(reasons[i].status >= APR_OS_START_USERERR);
        assert_true(reasons[i].status < APR_OS_START_USERERR + APR_OS_ERRSPACE_SIZE * 10);
        for (apr_size_t j = 0; j < i; ++j) {
            assert_int_not_equal(reasons[i].status, reasons[j].status);
            assert_string_not_equal(reasons[i].word, reasons[j].word);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(a_cleared_error_is_empty),
        UNIT_TEST(a_reason_is_kept_with_its_sentence),
        UNIT_TEST(the_first_reason_wins),
        UNIT_TEST(a_cleared_error_takes_a_new_reason),
        UNIT_TEST(nobody_needs_to_want_the_sentence),
        UNIT_TEST(a_long_sentence_is_cut),
        UNIT_TEST(the_longest_sentence_is_kept_whole),
        UNIT_TEST(only_printable_ascii_is_kept),
        UNIT_TEST(arguments_are_no_format),
        UNIT_TEST(each_reason_has_its_stable_word),
        UNIT_TEST(foreign_codes_have_the_common_word),
        UNIT_TEST(reasons_are_distinct_and_within_the_users_range),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
