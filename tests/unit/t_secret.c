/* t_secret: where secrets come from, and what is none. */
#include "abb_secret.h"

#include <apr_file_info.h>
#include <apr_file_io.h>
#include <apr_time.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit.h"

/* A directory of the test's own, with a shell in tools/ that stands for a program. */
typedef struct {
    apr_pool_t *p;
    char *root;
} place_t;

static int create_place(void **state)
{
    place_t *place;
    const char *temporary;
    void *p;

    if (unit_create_pool(&p) != 0) {
        return -1;
    }
    place = apr_pcalloc(p, sizeof(*place));
    place->p = p;
    *state = place;
    return apr_temp_dir_get(&temporary, p) == APR_SUCCESS &&
                   mkdtemp(place->root = apr_pstrcat(p, temporary, "/secret-XXXXXX", NULL)) &&
                   mkdir(apr_pstrcat(p, place->root, "/tools", NULL), 0700) == 0 &&
                   symlink("/bin/sh", apr_pstrcat(p, place->root, "/tools/program", NULL)) == 0
               ? 0
               : -1;
}

static void remove_entries(const char *directory, apr_pool_t *p)
{
    apr_dir_t *entries;
    apr_finfo_t entry;

    assert_int_equal(apr_dir_open(&entries, directory, p), APR_SUCCESS);
    while (apr_dir_read(&entry, APR_FINFO_NAME, entries) == APR_SUCCESS) {
        if (strcmp(entry.name, ".") != 0 && strcmp(entry.name, "..") != 0) {
            apr_file_remove(apr_pstrcat(p, directory, "/", entry.name, NULL), p);
        }
    }
    apr_dir_close(entries);
    apr_dir_remove(directory, p);
}

static int remove_place(void **state)
{
    place_t *place = *state;

    remove_entries(apr_pstrcat(place->p, place->root, "/tools", NULL), place->p);
    remove_entries(place->root, place->p);
    apr_pool_destroy(place->p);
    return 0;
}

#define PLACE_TEST(function) cmocka_unit_test_setup_teardown(function, create_place, remove_place)

static void put_file(const place_t *place, const char *name, const void *bytes, apr_size_t size)
{
    apr_file_t *file;

    assert_int_equal(apr_file_open(&file, apr_pstrcat(place->p, place->root, "/", name, NULL),
                                   APR_FOPEN_WRITE | APR_FOPEN_CREATE | APR_FOPEN_TRUNCATE,
                                   APR_FPROT_UREAD | APR_FPROT_UWRITE, place->p),
                     APR_SUCCESS);
    assert_int_equal(apr_file_write_full(file, bytes, size, NULL), APR_SUCCESS);
    apr_file_close(file);
}

static void check_secret(const place_t *place, const char *specification, const char *expected)
{
    const char *secret = NULL;
    abb_error_t err;

    abb_error_clear(&err);
    if (abb_secret_read(specification, place->root, &secret, place->p, &err) != APR_SUCCESS) {
        fail_msg("'%.200s' is refused: %s", specification, err.text);
    }
    assert_int_equal(err.status, APR_SUCCESS);
    unit_equal(secret, expected, specification);
}

/* Refused with a sentence that holds `named`, where it came from, and not `hidden`. */
static void check_refused(const place_t *place, const char *specification, const char *named,
                          const char *hidden)
{
    const char *secret;
    abb_error_t err;

    abb_error_clear(&err);
    if (abb_secret_read(specification, place->root, &secret, place->p, &err) != ABB_EINPUT) {
        fail_msg("'%.200s' is accepted", specification);
    }
    assert_int_equal(err.status, ABB_EINPUT);
    if (!strstr(err.text, named) || (hidden && strstr(err.text, hidden))) {
        fail_msg("'%.200s': %s", specification, err.text);
    }
}

/* ---- values and their form --------------------------------------------------- */

static void a_value_is_itself(void **state)
{
    static const char *const values[] = {
        "x", "secret", " two words ", "a:b", "File:x", "files:x", "environment", "file", "/etc/x",
        "J\xc3\xb6rg", "\"quoted\"", "$HOME", "~!@#%^&*()",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(values); ++i) {
        check_secret(*state, values[i], values[i]);
    }
}

static void a_secret_of_the_longest_size_is_kept(void **state)
{
    place_t *place = *state;
    const char *longest = unit_repeat('s', ABB_SECRET_MAX, place->p);

    check_secret(place, longest, longest);
    put_file(place, "longest", longest, ABB_SECRET_MAX);
    check_secret(place, "file:longest", longest);
    put_file(place, "line", apr_pstrcat(place->p, longest, "\n", NULL), ABB_SECRET_MAX + 1);
    check_secret(place, "file:line", longest);
    put_file(place, "lines", apr_pstrcat(place->p, longest, "\r\nx", NULL), ABB_SECRET_MAX + 3);
    check_secret(place, "file:lines", longest);
    setenv("UNIT_SECRET", longest, 1);
    check_secret(place, "env:UNIT_SECRET", longest);
    check_secret(place, "exec:/bin/cat longest", longest);
    check_secret(place, "exec:/bin/cat line", longest);
}

static void a_longer_secret_is_refused(void **state)
{
    place_t *place = *state;
    const char *longer = unit_repeat('s', ABB_SECRET_MAX + 1, place->p);

    check_refused(place, longer, "configuration", "ss");
    put_file(place, "longer", longer, ABB_SECRET_MAX + 1);
    check_refused(place, "file:longer", "longer", "ss");
    put_file(place, "line", apr_pstrcat(place->p, longer, "\n", NULL), ABB_SECRET_MAX + 2);
    check_refused(place, "file:line", "line", "ss");
    put_file(place, "huge", unit_repeat('s', 100000, place->p), 100000);
    check_refused(place, "file:huge", "huge", "ss");
    check_refused(place, "exec:/bin/cat longer", "/bin/cat", "ss");
    setenv("UNIT_SECRET", longer, 1);
    check_refused(place, "env:UNIT_SECRET", "UNIT_SECRET", "ss");
}

static void control_characters_are_refused(void **state)
{
    place_t *place = *state;

    for (int byte = 1; byte < 256; ++byte) {
        const char *secret = apr_psprintf(place->p, "my%cpearl", byte);

        if (byte >= 0x20 && byte != 0x7f) {
            check_secret(place, secret, secret);
            continue;
        }
        check_refused(place, secret, "configuration", "pearl");
        setenv("UNIT_SECRET", secret, 1);
        check_refused(place, "env:UNIT_SECRET", "UNIT_SECRET", "pearl");
        if (byte != '\n' && byte != '\r') {
            put_file(place, "secret", secret, strlen(secret));
            check_refused(place, "file:secret", "file", "pearl");
        }
    }
    put_file(place, "secret", "my\tpearl\n", 9);
    check_refused(place, "exec:/bin/cat secret", "/bin/cat", "pearl");
}

/* As in a file that an editor saved as UTF-16. */
static void a_nul_is_refused(void **state)
{
    place_t *place = *state;

    put_file(place, "secret", "my\0pearl\n", 9);
    check_refused(place, "file:secret", "file", "pearl");
    check_refused(place, "exec:/bin/cat secret", "/bin/cat", "pearl");
    put_file(place, "utf-16", "p\0e\0a\0r\0l\0\n\0", 12);
    check_refused(place, "file:utf-16", "file", NULL);
}

static void nothing_is_no_secret(void **state)
{
    place_t *place = *state;

    check_refused(place, "", "configuration", NULL);
    put_file(place, "empty", "", 0);
    check_refused(place, "file:empty", "empty", NULL);
    put_file(place, "blank", "\nsecond\n", 8);
    check_refused(place, "file:blank", "blank", "second");
    put_file(place, "dos", "\r\nsecond\r\n", 10);
    check_refused(place, "file:dos", "dos", "second");
    setenv("UNIT_SECRET", "", 1);
    check_refused(place, "env:UNIT_SECRET", "UNIT_SECRET", NULL);
    check_refused(place, "exec:/bin/cat empty", "/bin/cat", NULL);
    check_refused(place, "exec:/bin/cat blank", "/bin/cat", "second");
}

/* ---- files ------------------------------------------------------------------------ */

static void the_first_line_of_a_file_counts(void **state)
{
    static const struct {
        const char *bytes;
        const char *secret;
    } files[] = {
        {"pearl", "pearl"},
        {"pearl\n", "pearl"},
        {"pearl\r\n", "pearl"},
        {"pearl\nsecond\n", "pearl"},
        {"pearl\n\x01\x02", "pearl"},
        {" pearl \n", " pearl "},
        {"env:HOME\n", "env:HOME"},
    };
    place_t *place = *state;

    for (apr_size_t i = 0; i < UNIT_COUNT(files); ++i) {
        put_file(place, "secret", files[i].bytes, strlen(files[i].bytes));
        check_secret(place, "file:secret", files[i].secret);
    }
    put_file(place, "secret", apr_pstrcat(place->p, "pearl\n", unit_repeat('x', 99999, place->p),
                                          NULL), 100005);
    check_secret(place, "file:secret", "pearl");
}

static void paths_start_at_the_root(void **state)
{
    place_t *place = *state;
    const char *absolute = apr_pstrcat(place->p, "file:", place->root, "/secret", NULL);
    const char *secret = NULL;

    put_file(place, "secret", "pearl\n", 6);
    check_secret(place, "file:secret", "pearl");
    check_secret(place, "file:./secret", "pearl");
    check_secret(place, "file:tools/../secret", "pearl");
    check_secret(place, absolute, "pearl");
    assert_int_equal(abb_secret_read(absolute, NULL, &secret, place->p, NULL), APR_SUCCESS);
    unit_equal(secret, "pearl", "without a root");
    assert_int_equal(abb_secret_read("file:secret", "/", &secret, place->p, NULL), ABB_EINPUT);
}

static void a_file_that_cannot_be_read_is_named(void **state)
{
    place_t *place = *state;

    check_refused(place, "file:missing", "missing", NULL);
    check_refused(place, "file:missing/secret", "missing", NULL);
    check_refused(place, "file:tools", "tools", NULL);
    check_refused(place, "file:", "file", NULL);
    check_refused(place, apr_pstrcat(place->p, "file:", unit_repeat('x', 5000, place->p), NULL),
                  "file", NULL);
    put_file(place, "secret", "pearl\n", 6);
    check_refused(place, "file: secret", "secret", "pearl");
    if (geteuid() != 0) {
        chmod(apr_pstrcat(place->p, place->root, "/secret", NULL), 0);
        check_refused(place, "file:secret", "secret", "pearl");
    }
}

/* ---- environment -------------------------------------------------------------------- */

static void the_environment_is_read(void **state)
{
    setenv("UNIT_SECRET", "pearl", 1);
    check_secret(*state, "env:UNIT_SECRET", "pearl");
    setenv("UNIT_SECRET", "file:pearl", 1);
    check_secret(*state, "env:UNIT_SECRET", "file:pearl");
    unsetenv("UNIT_SECRET");
    check_refused(*state, "env:UNIT_SECRET", "UNIT_SECRET", NULL);
    check_refused(*state, "env:", "environment", NULL);
    check_refused(*state, "env: HOME", "HOME", NULL);
}

/* ---- programs ------------------------------------------------------------------------- */

static void a_program_tells_the_secret(void **state)
{
    place_t *place = *state;

    check_secret(place, "exec:/bin/echo pearl", "pearl");
    check_secret(place, "exec:/bin/sh -c 'printf pearl'", "pearl");
    check_secret(place, "exec:/bin/sh -c 'echo pearl; echo second'", "pearl");
    check_secret(place, "exec:/bin/sh -c 'printf pe; printf arl'", "pearl");
}

static void a_program_gets_its_arguments_without_a_shell(void **state)
{
    setenv("UNIT_SECRET", "wrong", 1);
    check_secret(*state, "exec:/bin/echo $UNIT_SECRET; `id` | x && y > z *",
                 "$UNIT_SECRET; `id` | x && y > z *");
    check_secret(*state, "exec:/bin/echo 'two  words' \"and  more\"", "two  words and  more");
}

static void a_program_runs_in_the_root_with_the_environment(void **state)
{
    place_t *place = *state;

    put_file(place, "here", "pearl\n", 6);
    setenv("UNIT_SECRET", "from outside", 1);
    check_secret(place, "exec:/bin/cat here", "pearl");
    check_secret(place, "exec:tools/program -c 'cat here'", "pearl");
    check_secret(place, "exec:./tools/program -c 'cat here'", "pearl");
    check_secret(place, "exec:/bin/sh -c 'echo \"$UNIT_SECRET\"'", "from outside");
}

static void a_program_that_cannot_be_started_is_named(void **state)
{
    place_t *place = *state;

    check_refused(place, "exec:tools/missing", "tools/missing", NULL);
    check_refused(place, "exec:/missing/program", "/missing/program", NULL);
    check_refused(place, "exec:tools", "tools", NULL);
    check_refused(place, "exec:", "program", NULL);
    check_refused(place, "exec:   ", "program", NULL);
    check_refused(place, "exec:echo pearl", "echo", NULL);
    put_file(place, "plain", "pearl\n", 6);
    check_refused(place, "exec:./plain", "plain", "pearl");
}

/* What a failing program printed is no secret, however good it looks. */
static void a_program_that_fails_is_refused(void **state)
{
    check_refused(*state, "exec:/bin/false", "/bin/false", NULL);
    check_refused(*state, "exec:/bin/true", "/bin/true", NULL);
    check_refused(*state, "exec:/bin/sh -c 'printf %s%s pe arl; exit 1'", "/bin/sh", "pearl");
    check_refused(*state, "exec:/bin/sh -c 'printf %s%s pe arl; exit 255'", "/bin/sh", "pearl");
    check_refused(*state, "exec:/bin/sh -c 'printf %s%s pe arl; kill -9 $$'", "/bin/sh", "pearl");
    check_refused(*state, "exec:/bin/sh -c 'printf %s%s pe arl; kill -15 $$'", "/bin/sh", "pearl");
}

static void only_the_first_line_of_a_program_counts(void **state)
{
    check_secret(*state, "exec:/bin/sh -c 'echo pearl; head -c 3000 /dev/zero'", "pearl");
    check_secret(*state, "exec:/bin/sh -c 'echo pearl; head -c 300000 /dev/zero'", "pearl");
}

static void a_program_leaves_no_process_behind(void **state)
{
    check_secret(*state, "exec:/bin/echo pearl", "pearl");
    check_refused(*state, "exec:/bin/false", "/bin/false", NULL);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

/* Read a secret in a child of the test, which exits with 0 when it was refused. */
static pid_t start_reading(const place_t *place, const char *specification)
{
    pid_t child = fork();

    if (child == 0) {
        const char *secret;

        _exit(abb_secret_read(specification, place->root, &secret, place->p, NULL) != ABB_EINPUT);
    }
    assert_true(child > 0);
    return child;
}

/* Whether a child ends with exit code 0 before a time; afterwards there is none. */
static int is_refused_before(pid_t child, apr_time_t end)
{
    int code;

    while (waitpid(child, &code, WNOHANG) == 0) {
        if (apr_time_now() > end) {
            kill(child, SIGKILL);
            waitpid(child, &code, 0);
            return 0;
        }
        apr_sleep(apr_time_from_msec(20));
    }
    return WIFEXITED(code) && WEXITSTATUS(code) == 0;
}

/*
 * Programs that do not end, all at once, so that the test takes no longer than
 * one. Each does end some time, lest it outlive a test that failed.
 */
static void a_program_has_ten_seconds(void **state)
{
    static const char *const programs[] = {
        "exec:/bin/sleep 18",
        "exec:/bin/sh -c 'printf pearl; exec sleep 18'",
        "exec:/bin/sh -c 'echo pearl; exec >&-; exec sleep 18'",
        "exec:/bin/sh -c 'for i in 1 2 3 4 5 6 7 8 9; do printf x; sleep 2; done'",
    };
    apr_time_t end = apr_time_now() + apr_time_from_sec(15);
    pid_t children[UNIT_COUNT(programs)];
    int failures = 0;

    for (apr_size_t i = 0; i < UNIT_COUNT(programs); ++i) {
        children[i] = start_reading(*state, programs[i]);
    }
    for (apr_size_t i = 0; i < UNIT_COUNT(programs); ++i) {
        if (!is_refused_before(children[i], end)) {
            print_error("'%s' is accepted, or not refused in time\n", programs[i]);
            ++failures;
        }
    }
    assert_int_equal(failures, 0);
}

/* ---- for people --------------------------------------------------------------------------- */

static void the_source_is_told_but_not_the_secret(void **state)
{
    place_t *place = *state;

    assert_non_null(strstr(abb_secret_source("pearl", place->p), "configuration"));
    assert_null(strstr(abb_secret_source("pearl", place->p), "pearl"));
    assert_null(strstr(abb_secret_source("File:pearl", place->p), "pearl"));
    unit_equal(abb_secret_source("file:conf/secret", place->p), "file conf/secret", "file");
    unit_equal(abb_secret_source("env:UNIT_SECRET", place->p), "environment variable UNIT_SECRET",
               "environment");
    assert_non_null(strstr(abb_secret_source("exec:/bin/tell it", place->p), "/bin/tell"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLACE_TEST(a_value_is_itself),
        PLACE_TEST(a_secret_of_the_longest_size_is_kept),
        PLACE_TEST(a_longer_secret_is_refused),
        PLACE_TEST(control_characters_are_refused),
        PLACE_TEST(a_nul_is_refused),
        PLACE_TEST(nothing_is_no_secret),
        PLACE_TEST(the_first_line_of_a_file_counts),
        PLACE_TEST(paths_start_at_the_root),
        PLACE_TEST(a_file_that_cannot_be_read_is_named),
        PLACE_TEST(the_environment_is_read),
        PLACE_TEST(a_program_tells_the_secret),
        PLACE_TEST(a_program_gets_its_arguments_without_a_shell),
        PLACE_TEST(a_program_runs_in_the_root_with_the_environment),
        PLACE_TEST(a_program_that_cannot_be_started_is_named),
        PLACE_TEST(a_program_that_fails_is_refused),
        PLACE_TEST(only_the_first_line_of_a_program_counts),
        PLACE_TEST(a_program_leaves_no_process_behind),
        PLACE_TEST(a_program_has_ten_seconds),
        PLACE_TEST(the_source_is_told_but_not_the_secret),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
