/*
 * unit: what the unit tests share.
 *
 * A test is a function of cmocka that finds a pool of its own in *state. Bytes
 * whose ends matter are kept with unit_bytes, outside of any pool, because there
 * AddressSanitizer sees each byte read too far.
 */
#ifndef UNIT_H
#define UNIT_H

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>

#include <apr_errno.h>
#include <apr_general.h>
#include <apr_pools.h>
#include <apr_strings.h>

#include <cmocka.h>

#define UNIT_COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A test with a fresh pool. */
#define UNIT_TEST(function) \
    cmocka_unit_test_setup_teardown(function, unit_create_pool, unit_destroy_pool)

static inline int unit_create_pool(void **state)
{
    apr_pool_t *p;

    if (apr_pool_create(&p, NULL) != APR_SUCCESS) {
        return -1;
    }
    *state = p;
    return 0;
}

static inline int unit_destroy_pool(void **state)
{
    apr_pool_destroy(*state);
    return 0;
}

/* Group set-up and tear-down. */
static inline int unit_begin(void **state)
{
    return apr_initialize() == APR_SUCCESS ? 0 : -1;
}

static inline int unit_end(void **state)
{
    apr_terminate();
    return 0;
}

static inline apr_status_t unit_free(void *bytes)
{
    free(bytes);
    return APR_SUCCESS;
}

/* A copy of bytes that ends exactly where they end, aligned for any type. Lifetime: p. */
static inline void *unit_bytes(const void *bytes, apr_size_t size, apr_pool_t *p)
{
    void *copy = malloc(size ? size : 1);

    assert_non_null(copy);
    if (size) {
        memcpy(copy, bytes, size);
    }
    apr_pool_cleanup_register(p, copy, unit_free, apr_pool_cleanup_null);
    return copy;
}

/* A string of `length` times one character. Lifetime: p. */
static inline char *unit_repeat(char c, apr_size_t length, apr_pool_t *p)
{
    char *text = apr_palloc(p, length + 1);

    memset(text, c, length);
    text[length] = '\0';
    return text;
}

/* Fail unless two strings, which may be NULL, are equal. */
static inline void unit_equal(const char *got, const char *expected, const char *what)
{
    if (!got || !expected ? got != expected : strcmp(got, expected) != 0) {
        fail_msg("%s: '%s' instead of '%s'", what, got ? got : "(null)",
                 expected ? expected : "(null)");
    }
}

/*
 * Wait for a child that ends by itself. Fails unless it has ended with 0. Children tell
 * by their status: a failing assertion would go on with the other tests there.
 */
static inline void unit_await_child(pid_t child)
{
    int how = -1;

    assert_true(child > 0);
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 0);
}

/* End a child that never ends by itself. Fails when it has. */
static inline void unit_kill_child(pid_t child)
{
    int how = -1;

    assert_true(child > 0);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFSIGNALED(how));
    assert_int_equal(WTERMSIG(how), SIGKILL);
}

#endif
