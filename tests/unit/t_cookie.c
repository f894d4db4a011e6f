/* t_cookie: ours are found and taken out, others stay as they came. */
#include <string.h>

#include "abb_cookie.h"
#include "unit.h"

static const abb_cookie_settings_t settings = {.session_name = "session",
                                               .ticket_prefix = "session_try_",
                                               .recent_name = "session_recent",
                                               .ways_name = "session_ways",
                                               .badge_name = "session_badge"};

/* What is left of a line; the value of its session in *session, "-" for none. */
static const char *take(const char *line, const char **session, apr_pool_t *p)
{
    abb_cookies_t cookies;
    const char *rest = abb_cookie_take(line, &settings, &cookies, p);

    *session = cookies.session ? apr_pstrmemdup(p, cookies.session, cookies.session_length) : "-";
    assert_true(cookies.line == line);
    return rest;
}

static void ours_are_taken_out(void **state)
{
    static const struct {
        const char *line;
        const char *rest;
        const char *session;
    } cases[] = {
        {"session=abc", NULL, "abc"},
        {"a=1; session=abc", "a=1", "abc"},
        {"session=abc; a=1", "a=1", "abc"},
        {"a=1;session=abc;b=2", "a=1; b=2", "abc"},
        {"session_try_x=1; a=1; session_recent=2; session_ways=3; session_badge=4", "a=1", "-"},
        {"session=first; session=second", NULL, "first"},
        {"session", NULL, ""},
        {"session=; a", "a", ""},
        {"session=abc def; a=1", "a=1", "abc"},
        {"session=abc,def", NULL, "abc"},
        {"; ;\t session=abc ;; a=\"x y\" ;", "a=\"x y\" ", "abc"},
        {"=x; session=abc", "=x", "abc"},
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(cases); ++i) {
        const char *session;

        unit_equal(
            take(unit_bytes(cases[i].line, strlen(cases[i].line) + 1, *state), &session, *state),
            cases[i].rest, cases[i].line);
        unit_equal(session, cases[i].session, cases[i].line);
    }
}

static void lines_of_others_stay_as_they_are(void **state)
{
    static const char *const lines[] = {
        "",          " ; ", "a=1; b=2", "sessions=1", "SESSION=1", "session_try_=1", "a=session=1",
        "xsession=1"};
    const char *session;

    for (apr_size_t i = 0; i < UNIT_COUNT(lines); ++i) {
        assert_true(take(lines[i], &session, *state) == lines[i]);
        unit_equal(session, "-", lines[i]);
    }
    assert_null(take(NULL, &session, *state));
}

static void the_first_of_a_name_is_found(void **state)
{
    unit_equal(abb_cookie_find("ab=0; a=1; a=2", "a", *state), "1", "two of a name");
    unit_equal(abb_cookie_find("a", "a", *state), "", "no value");
    unit_equal(abb_cookie_find("ab=1", "a", *state), NULL, "a longer name");
    unit_equal(abb_cookie_find("", "a", *state), NULL, "an empty line");
    unit_equal(abb_cookie_find(NULL, "a", *state), NULL, "no line");
}

static void a_prefix_lists(void **state)
{
    apr_array_header_t *list = abb_cookie_list("t_1=x; t_=y; s=z; t_2", "t_", *state);
    const abb_cookie_t *cookies = (const abb_cookie_t *)(const void *)list->elts;

    assert_int_equal(list->nelts, 2);
    assert_string_equal(cookies[0].name, "t_1");
    assert_string_equal(cookies[0].value, "x");
    assert_string_equal(cookies[1].name, "t_2");
    assert_string_equal(cookies[1].value, "");
    assert_int_equal(abb_cookie_list(NULL, "t_", *state)->nelts, 0);
}

static void a_list_has_an_end(void **state)
{
    char *line = apr_pstrdup(*state, "");

    for (int i = 0; i < 2 * ABB_COOKIE_LIST_MAX; ++i) {
        line = apr_psprintf(*state, "%s;t_%d=x", line, i);
    }
    assert_int_equal(abb_cookie_list(line, "t_", *state)->nelts, ABB_COOKIE_LIST_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(ours_are_taken_out),
        UNIT_TEST(lines_of_others_stay_as_they_are),
        UNIT_TEST(the_first_of_a_name_is_found),
        UNIT_TEST(a_prefix_lists),
        UNIT_TEST(a_list_has_an_end),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
