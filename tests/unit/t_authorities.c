/* t_authorities: a directory stands for a file only when nothing would be missed. */
#include "abb_authorities.h"

#include <apr_file_io.h>
#include <stdio.h>

#include "unit.h"

#define ONE "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"

static apr_status_t remove_path(void *path)
{
    remove(path);
    return APR_SUCCESS;
}

/* Cleanups run backwards, so what is in a directory goes before it. */
static void goes_with_the_pool(const char *path, apr_pool_t *p)
{
    apr_pool_cleanup_register(p, path, remove_path, apr_pool_cleanup_null);
}

static const char *new_directory(apr_pool_t *p)
{
    const char *temporary = getenv("TMPDIR");
    char *path = apr_pstrcat(p, temporary ? temporary : "/tmp", "/authorities-XXXXXX", NULL);

    assert_non_null(mkdtemp(path));
    goes_with_the_pool(path, p);
    return path;
}

static const char *new_file(const char *directory, const char *name, const char *text,
                            apr_pool_t *p)
{
    const char *path = apr_pstrcat(p, directory, "/", name, NULL);
    apr_file_t *file;

    assert_int_equal(
        apr_file_open(&file, path, APR_FOPEN_WRITE | APR_FOPEN_CREATE, APR_FPROT_OS_DEFAULT, p),
        APR_SUCCESS);
    goes_with_the_pool(path, p);
    assert_int_equal(apr_file_write_full(file, text, strlen(text), NULL), APR_SUCCESS);
    apr_file_close(file);
    return path;
}

/* Whether files of these names, blanks between them, stand for a file with this text. */
static int are_hashed(const char *names, const char *text, apr_pool_t *p)
{
    const char *directory = new_directory(p);
    const char *file = new_file(new_directory(p), "all.crt", text, p);
    char *state, *name;

    for (name = apr_strtok(apr_pstrdup(p, names), " ", &state); name;
         name = apr_strtok(NULL, " ", &state)) {
        new_file(directory, name, ONE, p);
    }
    return abb_authorities_are_hashed(directory, file, p);
}

static void a_complete_directory_stands_for_the_file(void **state)
{
    assert_true(are_hashed("0123abcd.0", ONE, *state));
    assert_true(are_hashed("0123abcd.0 0123abcd.1 ffffffff.10", ONE ONE ONE, *state));
    assert_true(are_hashed("0123abcd.0 0123abce.0 other.pem", "# one\n" ONE, *state));
    assert_true(are_hashed("0123abcd.0 0123abce.0",
                           ONE "-----BEGIN TRUSTED CERTIFICATE-----\r\nMIIB\r\n", *state));
}

static void one_that_is_only_in_the_file_counts(void **state)
{
    assert_false(are_hashed("0123abcd.0", ONE ONE, *state));
    assert_false(
        are_hashed("0123abcd.0", ONE "-----BEGIN TRUSTED CERTIFICATE-----\nMIIB\n", *state));
    assert_false(are_hashed("0123abcd.0", ONE "-----BEGIN X509 CERTIFICATE-----\nMIIB\n", *state));
}

static void other_names_are_no_hashes(void **state)
{
    static const char *const names[] = {
        "0123abcd.r0",    "0123abcd.",   "0123abcd",   "0123abc.0",
        "0123abcde.0",    "0123ABCD.0",  "0123abcg.0", "0123abcd.0x",
        "0123abcd.0.pem", "x0123abcd.0", "0123abcd-0", "Acme_Root.pem",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(names); ++i) {
        if (are_hashed(names[i], ONE, *state)) {
            fail_msg("'%s' counts", names[i]);
        }
    }
}

static void what_cannot_be_read_stands_for_nothing(void **state)
{
    const char *directory = new_directory(*state);
    const char *file = new_file(directory, "0123abcd.0", ONE, *state);
    const char *missing = apr_pstrcat(*state, directory, "/missing", NULL);

    assert_true(abb_authorities_are_hashed(directory, file, *state));
    assert_false(abb_authorities_are_hashed(missing, file, *state));
    assert_false(abb_authorities_are_hashed(directory, missing, *state));
    assert_false(abb_authorities_are_hashed(NULL, file, *state));
    assert_false(abb_authorities_are_hashed(directory, NULL, *state));
    assert_false(are_hashed("0123abcd.0", "", *state));
    assert_false(are_hashed("0123abcd.0", "no certificate\n", *state));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(a_complete_directory_stands_for_the_file),
        UNIT_TEST(one_that_is_only_in_the_file_counts),
        UNIT_TEST(other_names_are_no_hashes),
        UNIT_TEST(what_cannot_be_read_stands_for_nothing),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
