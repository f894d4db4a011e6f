/* t_form: a posted form is read exactly, or not at all. */
#include "abb_form.h"

#include "unit.h"

#define URLENCODED "application/x-www-form-urlencoded"
#define MULTIPART "multipart/form-data; boundary=xYz"
#define DISPOSITION "Content-Disposition: form-data; name="
#define PART(name, value) "--xYz\r\n" DISPOSITION "\"" name "\"\r\n\r\n" value "\r\n"
#define END "--xYz--\r\n"

/* Parse bytes that end exactly where they end. */
static abb_form_verdict_t parse(const char *type, const char *body, apr_size_t size,
                                abb_form_t *form, apr_pool_t *p)
{
    memset(form, 0, sizeof(*form));
    return abb_form_parse(type ? unit_bytes(type, strlen(type) + 1, p) : NULL,
                          unit_bytes(body, size, p), size, form, p);
}

static void check_verdict(const char *type, const char *body, apr_size_t size,
                          abb_form_verdict_t expected, apr_pool_t *p)
{
    abb_form_t form;
    abb_form_verdict_t verdict = parse(type, body, size, &form, p);

    if (verdict != expected) {
        fail_msg("%s: %.*s: %d instead of %d", type ? type : "no type", (int)size, body, verdict,
                 expected);
    }
}

/* names_and_values: alternating, ended by NULL. */
static void check_fields(const char *type, const char *body, apr_size_t size, const char *charset,
                         const char *const *names_and_values, apr_pool_t *p)
{
    abb_form_t form;
    int count = 0;

    assert_int_equal(parse(type, body, size, &form, p), ABB_FORM_GOOD);
    assert_string_equal(form.charset, charset);
    for (; names_and_values[2 * count]; ++count) {
        assert_true(count < form.count);
        assert_string_equal(form.fields[count].name, names_and_values[2 * count]);
        assert_string_equal(form.fields[count].value, names_and_values[2 * count + 1]);
        assert_int_equal(form.fields[count].is_empty_file, 0);
    }
    assert_int_equal(form.count, count);
}

#define CHECK_URLENCODED(body, charset, ...)                  \
    check_fields(URLENCODED, body, sizeof(body) - 1, charset, \
                 (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL, NULL}, *state)
#define CHECK_MULTIPART(body, charset, ...)                  \
    check_fields(MULTIPART, body, sizeof(body) - 1, charset, \
                 (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL, NULL}, *state)

/* ---- the type ------------------------------------------------------------ */

static void types_are_told(void **state)
{
    static const struct {
        const char *type;
        abb_form_verdict_t verdict;
    } cases[] = {
        {URLENCODED, ABB_FORM_GOOD},
        {"Application/X-WWW-Form-Urlencoded ; Charset=UTF-8", ABB_FORM_GOOD},
        {URLENCODED ";", ABB_FORM_GOOD},
        {URLENCODED "; charset=iso-8859-1", ABB_FORM_OTHER_TYPE},
        {URLENCODED "; charset=utf-8; x=y", ABB_FORM_OTHER_TYPE},
        {URLENCODED "s", ABB_FORM_OTHER_TYPE},
        {URLENCODED ", text/plain", ABB_FORM_OTHER_TYPE},
        {"text/plain", ABB_FORM_OTHER_TYPE},
        {"", ABB_FORM_OTHER_TYPE},
        {NULL, ABB_FORM_OTHER_TYPE},
        {"multipart/mixed; boundary=x", ABB_FORM_OTHER_TYPE},
        {MULTIPART, ABB_FORM_GOOD},
        {"Multipart/Form-Data;BOUNDARY=\"xYz\" ", ABB_FORM_GOOD},
        {"multipart/form-data", ABB_FORM_BROKEN},
        {"multipart/form-data;", ABB_FORM_BROKEN},
        {"multipart/form-data; boundary=", ABB_FORM_BROKEN},
        {"multipart/form-data; boundary=\"\"", ABB_FORM_BROKEN},
        {"multipart/form-data; boundary=\"xYz", ABB_FORM_BROKEN},
        {"multipart/form-data; boundary=x y", ABB_FORM_BROKEN},
        {"multipart/form-data; boundary=x\r\ny", ABB_FORM_BROKEN},
        {"multipart/form-data; boundary=x; charset=utf-8", ABB_FORM_BROKEN},
        {"multipart/form-data; boundary=x; boundary=y", ABB_FORM_BROKEN},
        {"multipart/form-data; charset=utf-8; boundary=x", ABB_FORM_BROKEN},
        {"multipart/form-data; boundary=\xc3\xa9", ABB_FORM_BROKEN},
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(cases); ++i) {
        if (abb_form_check_type(cases[i].type) != cases[i].verdict) {
            fail_msg("%s", cases[i].type ? cases[i].type : "no type");
        }
    }
}

static void a_boundary_has_at_most_70_characters(void **state)
{
    const char *start = "multipart/form-data; boundary=";

    assert_int_equal(
        abb_form_check_type(apr_pstrcat(*state, start, unit_repeat('x', 70, *state), NULL)),
        ABB_FORM_GOOD);
    assert_int_equal(
        abb_form_check_type(apr_pstrcat(*state, start, unit_repeat('x', 71, *state), NULL)),
        ABB_FORM_BROKEN);
}

/* ---- urlencoded ---------------------------------------------------------- */

static void pairs_are_read_in_order(void **state)
{
    CHECK_URLENCODED("", "utf-8");
    CHECK_URLENCODED("a=1", "utf-8", "a", "1");
    CHECK_URLENCODED("z=1&a=&z=2&A=1", "utf-8", "z", "1", "a", "", "z", "2", "A", "1");
    CHECK_URLENCODED("a=b=c", "utf-8", "a", "b=c");
    CHECK_URLENCODED("+a+=%2B+%26%3D&%22%3C=%27", "utf-8", " a ", "+ &=", "\"<", "'");
    CHECK_URLENCODED("a=%0D%0Ax%0d%0A%0D%0A", "utf-8", "a", "\r\nx\r\n\r\n");
    CHECK_URLENCODED("a=%C3%A9%F0%9F%98%80", "utf-8", "a", "\xc3\xa9\xf0\x9f\x98\x80");
    CHECK_URLENCODED("a=%01%7F", "utf-8", "a", "\x01\x7f");
}

static void other_bytes_are_windows_1252(void **state)
{
    CHECK_URLENCODED("a=%E9", "windows-1252", "a", "\xc3\xa9");
    /* One such field makes all others the same. */
    CHECK_URLENCODED("a=%C3%A9&%80=%81%9D%9F", "windows-1252", "a", "\xc3\x83\xc2\xa9",
                     "\xe2\x82\xac", "\xc2\x81\xc2\x9d\xc5\xb8");
    CHECK_URLENCODED("a=%ED%A0%80", "windows-1252", "a", "\xc3\xad\xc2\xa0\xe2\x82\xac");
}

/* Each byte is another character, or two of them would come out as one. */
static void each_byte_is_a_character_of_its_own(void **state)
{
    const char *seen[256];

    for (int byte = 0x80; byte < 0x100; ++byte) {
        char *body = apr_psprintf(*state, "a=%%%02x&b=%%ff", byte);
        abb_form_t form;

        assert_int_equal(parse(URLENCODED, body, strlen(body), &form, *state), ABB_FORM_GOOD);
        seen[byte] = form.fields[0].value;
        for (int other = 0x80; other < byte; ++other) {
            assert_string_not_equal(seen[byte], seen[other]);
        }
    }
}

static void what_a_browser_would_change_is_refused(void **state)
{
    static const char *const bodies[] = {
        "a",      "=1",     "a=1&",    "&a=1",        "a=1&&b=2",    "&",     "=",
        "a=%00",  "%00=1",  "a=1%0A2", "a=1%0D2",     "a=%0D",       "a=%0A", "a=%0A%0D",
        "a%0D=1", "a%0A=1", "a=1&b",   "a=%0D%0D%0A", "a=%0D%0A%0A", "a=1\n",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(bodies); ++i) {
        check_verdict(URLENCODED, bodies[i], strlen(bodies[i]), ABB_FORM_NOT_REPEATABLE, *state);
    }
    check_verdict(URLENCODED, "a=1\0", 4, ABB_FORM_NOT_REPEATABLE, *state);
    check_verdict(URLENCODED, "a\0=1", 4, ABB_FORM_NOT_REPEATABLE, *state);
    check_verdict(URLENCODED, "\0", 1, ABB_FORM_NOT_REPEATABLE, *state);
}

static void bad_encodings_are_refused(void **state)
{
    static const char *const bodies[] = {"a=%", "a=%4", "a=%4&b=1", "a=%zz", "a=%4g",
                                         "%=1", "%4=1", "a=%-1",    "a=% 1", "a=1%"};

    for (apr_size_t i = 0; i < UNIT_COUNT(bodies); ++i) {
        check_verdict(URLENCODED, bodies[i], strlen(bodies[i]), ABB_FORM_BROKEN, *state);
    }
}

static void thousands_of_fields(void **state)
{
    char *body = unit_repeat('x', 64 * 1024, *state);
    abb_form_t form;

    for (int i = 0; i + 3 <= 64 * 1024; i += 3) {
        memcpy(body + i, "a=&", 3);
    }
    assert_int_equal(parse(URLENCODED, body, 65534, &form, *state), ABB_FORM_GOOD);
    assert_int_equal(form.count, 21845);
    assert_string_equal(form.fields[21844].name, "a");
}

/* ---- multipart ----------------------------------------------------------- */

static void parts_are_read_in_order(void **state)
{
    CHECK_MULTIPART(END, "utf-8");
    CHECK_MULTIPART("--xYz--", "utf-8");
    CHECK_MULTIPART(PART("z", "1") PART("a", "") PART("z", "2") END, "utf-8", "z", "1", "a", "",
                    "z", "2");
    CHECK_MULTIPART(PART("a", "\r\n--\r\n--xY\r\n") END, "utf-8", "a", "\r\n--\r\n--xY\r\n");
    CHECK_MULTIPART("--xYz\r\ncontent-DISPOSITION: Form-Data; NAME=\"a\"\r\n\r\n1\r\n" END, "utf-8",
                    "a", "1");
    CHECK_MULTIPART(PART("a", "\xc3\xa9") END, "utf-8", "a", "\xc3\xa9");
    CHECK_MULTIPART(PART("\xe9", "\xc3\xa9") END, "windows-1252", "\xc3\xa9", "\xc3\x83\xc2\xa9");
}

/* A browser writes what it writes again as it is. */
static void names_stay_as_they_are_written(void **state)
{
    CHECK_MULTIPART(PART("a%22b", "1") END, "utf-8", "a%22b", "1");
    CHECK_MULTIPART(PART("a%0D%0Ab", "1") END, "utf-8", "a%0D%0Ab", "1");
    CHECK_MULTIPART(PART("a\\", "1") END, "utf-8", "a\\", "1");
    CHECK_MULTIPART(PART("; filename=x", "1") END, "utf-8", "; filename=x", "1");
    CHECK_MULTIPART(PART("a'<>&;=", "1") END, "utf-8", "a'<>&;=", "1");
}

static void files_are_refused(void **state)
{
    static const char *const parameters[] = {
        "; filename=\"a.txt\"",  "; filename=a", "; FileName=\"a\"", "; filename*=utf-8''a",
        "; filename=\"a\"; x=y", "; filename=",  "; filename=\"\"",  "; filename=\"\"; x=\"\"",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(parameters); ++i) {
        const char *body = apr_pstrcat(*state, PART("a", "1") "--xYz\r\n" DISPOSITION "\"f\"",
                                       parameters[i], "\r\n\r\ncontent\r\n" END, NULL);

        check_verdict(MULTIPART, body, strlen(body), ABB_FORM_FILE, *state);
    }
}

#define NO_FILE DISPOSITION "\"f\"; filename=\"\"\r\n"
#define OCTETS "Content-Type: application/octet-stream\r\n"

static void a_file_that_was_not_chosen(void **state)
{
    static const char body[] = "--xYz\r\n" NO_FILE OCTETS "\r\n\r\n" PART("a", "1") END;
    static const char *const others[] = {
        /* Content after all; another type; none at all. */
        "--xYz\r\n" NO_FILE OCTETS "\r\n1\r\n" END,
        "--xYz\r\n" NO_FILE "Content-Type: text/plain\r\n\r\n\r\n" END,
        "--xYz\r\n" NO_FILE "\r\n\r\n" END,
    };
    abb_form_t form;

    assert_int_equal(parse(MULTIPART, body, sizeof(body) - 1, &form, *state), ABB_FORM_GOOD);
    assert_int_equal(form.count, 2);
    assert_int_equal(form.fields[0].is_empty_file, 1);
    assert_string_equal(form.fields[0].name, "f");
    assert_string_equal(form.fields[0].value, "");
    assert_int_equal(form.fields[1].is_empty_file, 0);
    for (apr_size_t i = 0; i < UNIT_COUNT(others); ++i) {
        check_verdict(MULTIPART, others[i], strlen(others[i]), ABB_FORM_FILE, *state);
    }
}

static void what_no_browser_writes_is_refused(void **state)
{
    static const char *const bodies[] = {
        "",
        "\r\n" END,
        "--xYz",
        "--xYz\r\n",
        "--xYz-",
        "--xYz--\n",
        "--xYz--\r\nx",
        "--xYz--x",
        "preamble\r\n" END,
        "--XYZ--\r\n",
        PART("a", "1"),
        PART("a", "1") "--xYz",
        PART("a", "1") "--xYz\r\n",
        PART("a", "1") "--xYz \r\n" PART("b", "2") END,
        PART("a", "1") "--xYzz--\r\n",
        /* A line of the content that begins like the delimiter. */
        PART("a", "1\r\n--xYzz\r\n") END,
        /* Headers: none, cut, continued, twice, without a name. */
        "--xYz\r\n\r\n1\r\n" END,
        "--xYz\r\n" DISPOSITION "\"a\"",
        "--xYz\r\n" DISPOSITION "\"a\"\r\n",
        "--xYz\r\n" DISPOSITION "\"a\"\n\n1\n--xYz--\n",
        "--xYz\r\n" DISPOSITION "\r\n \"a\"\r\n\r\n1\r\n" END,
        "--xYz\r\n" DISPOSITION "\"a\"\r\n\tx\r\n\r\n1\r\n" END,
        "--xYz\r\n " DISPOSITION "\"a\"\r\n\r\n1\r\n" END,
        "--xYz\r\n" DISPOSITION "\"a\"\r\n" DISPOSITION "\"b\"\r\n\r\n1\r\n" END,
        "--xYz\r\n" DISPOSITION "a\r\n\r\n1\r\n" END,
        "--xYz\r\n" DISPOSITION "\"a\r\n\r\n1\r\n" END,
        "--xYz\r\n" DISPOSITION "\"a\\\"b\"\r\n\r\n1\r\n" END,
        "--xYz\r\n" DISPOSITION "\"a\"; name=\"b\"\r\n\r\n1\r\n" END,
        "--xYz\r\nContent-Disposition: attachment; name=\"a\"\r\n\r\n1\r\n" END,
        "--xYz\r\nContent-Disposition: form-data\r\n\r\n1\r\n" END,
        "--xYz\r\nContent-Type: text/plain\r\n\r\n1\r\n" END,
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(bodies); ++i) {
        check_verdict(MULTIPART, bodies[i], strlen(bodies[i]), ABB_FORM_BROKEN, *state);
    }
}

static void parts_that_would_change_are_refused(void **state)
{
    static const char *const bodies[] = {
        PART("", "1") END,
        PART("a", "1\n2") END,
        PART("a", "\r") END,
        PART("a\n", "1") END,
        "--xYz\r\n" DISPOSITION "\"a\"\r\n" OCTETS "\r\n1\r\n" END,
        "--xYz\r\n" DISPOSITION "\"a\"\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n1\r\n" END,
        "--xYz\r\n" DISPOSITION "\"a\"\r\nContent-Transfer-Encoding: base64\r\n\r\nMQ==\r\n" END,
        "--xYz\r\n" DISPOSITION "\"a\"\r\nX: y\r\n\r\n1\r\n" END,
        "--xYz\r\n" DISPOSITION "\"a\"\r\nContent-Type: multipart/mixed; "
        "boundary=inner\r\n\r\n--inner\r\n\r\nx\r\n--inner--\r\n" END,
    };
    static const char nul[] = PART("a", "1\0002") END;
    static const char nul_in_name[] = PART("a\000b", "1") END;

    for (apr_size_t i = 0; i < UNIT_COUNT(bodies); ++i) {
        check_verdict(MULTIPART, bodies[i], strlen(bodies[i]), ABB_FORM_NOT_REPEATABLE, *state);
    }
    check_verdict(MULTIPART, nul, sizeof(nul) - 1, ABB_FORM_NOT_REPEATABLE, *state);
    check_verdict(MULTIPART, nul_in_name, sizeof(nul_in_name) - 1, ABB_FORM_NOT_REPEATABLE, *state);
}

/* ---- anything ------------------------------------------------------------ */

/* Every beginning of a body, and every byte of it replaced: nothing is read too far. */
static void check_mutations(const char *type, const char *body, apr_size_t size)
{
    static const char replacements[] = "\0\r\n\"-;%=& x\xff";

    for (apr_size_t i = 0; i < size; ++i) {
        apr_pool_t *p;
        abb_form_t form;

        assert_int_equal(apr_pool_create(&p, NULL), APR_SUCCESS);
        parse(type, body, i, &form, p);
        for (apr_size_t j = 0; j < sizeof(replacements); ++j) {
            char *copy = apr_pmemdup(p, body, size);

            copy[i] = replacements[j];
            parse(type, copy, size, &form, p);
        }
        apr_pool_destroy(p);
    }
}

static void nothing_is_read_too_far(void **state)
{
    static const char multipart[] =
        PART("a", "1\r\n2") "--xYz\r\n" NO_FILE OCTETS "\r\n\r\n" PART("\xe9", "") END;
    static const char urlencoded[] = "a=1&b=%41%42&%E9=+%0D%0A&c=";

    check_mutations(MULTIPART, multipart, sizeof(multipart) - 1);
    check_mutations(URLENCODED, urlencoded, sizeof(urlencoded) - 1);
}

/* Bodies that make a careless reader look at everything again for each byte. */
static void time_is_linear(void **state)
{
    static const char start_of_part[] = "--xYz\r\n" DISPOSITION "\"a\"\r\n\r\n";
    apr_size_t size = 4 * 1024 * 1024;
    char *body = unit_repeat('-', size, *state);
    abb_form_t form;
    apr_time_t start = apr_time_now();

    memcpy(body, "--xYz\r\n", 7);
    parse(MULTIPART, body, size, &form, *state);
    for (apr_size_t i = 7; i + 2 <= size; i += 2) {
        memcpy(body + i, "\r\n", 2);
    }
    parse(MULTIPART, body, size, &form, *state);
    for (apr_size_t i = 0; i + 7 <= size; i += 7) {
        memcpy(body + i, "\r\n--xY-", 7);
    }
    memcpy(body, start_of_part, sizeof(start_of_part) - 1);
    parse(MULTIPART, body, size, &form, *state);
    assert_true(apr_time_now() - start < apr_time_from_sec(10));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(types_are_told),
        UNIT_TEST(a_boundary_has_at_most_70_characters),
        UNIT_TEST(pairs_are_read_in_order),
        UNIT_TEST(other_bytes_are_windows_1252),
        UNIT_TEST(each_byte_is_a_character_of_its_own),
        UNIT_TEST(what_a_browser_would_change_is_refused),
        UNIT_TEST(bad_encodings_are_refused),
        UNIT_TEST(thousands_of_fields),
        UNIT_TEST(parts_are_read_in_order),
        UNIT_TEST(names_stay_as_they_are_written),
        UNIT_TEST(files_are_refused),
        UNIT_TEST(a_file_that_was_not_chosen),
        UNIT_TEST(what_no_browser_writes_is_refused),
        UNIT_TEST(parts_that_would_change_are_refused),
        UNIT_TEST(nothing_is_read_too_far),
        UNIT_TEST(time_is_linear),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
