/*
 * fuzz: what the targets share.
 *
 * A target reads bytes as a stranger may send them, and stops the program when a promise
 * of the room is broken, not only when memory is. Two programs run the targets: replay.c
 * with what is kept in corpus/TARGET, at `make check`; driver.c with libFuzzer.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <apr_pools.h>
#include <apr_time.h>

#include "abb_crypto.h"
#include "abb_store.h"

/* The clock of all targets. */
#define FUZZ_NOW ((apr_time_t)1700000000 * APR_USEC_PER_SEC)
#define FUZZ_AUDIENCE "client https://wiki.example.com"
#define FUZZ_ORIGIN "https://wiki.example.com"
#define FUZZ_USER "9a01f37b-b1b2-40c5-8c5e-1a39f4b5e645"

typedef void fuzz_function_t(const unsigned char *bytes, apr_size_t size, apr_pool_t *p);

typedef struct fuzz_target_t {
    const char *name;
    fuzz_function_t *function;
    /* Longest input worth trying, in bytes. */
    apr_size_t size_max;
} fuzz_target_t;

/* The targets, closed by one without a name. */
extern const fuzz_target_t fuzz_targets[];

const fuzz_target_t *fuzz_find(const char *name);

/* Once, before all else. */
void fuzz_begin(void);

/* Give bytes to a target, in memory that ends where they end and a pool of their own. */
void fuzz_run(const fuzz_target_t *target, const unsigned char *bytes, apr_size_t size);

/* Stop the program unless a promise is kept. */
#define FUZZ_CHECK(condition) \
    ((condition) ? (void)0 : fuzz_stop("tests/fuzz: not kept: " #condition, __FILE__, __LINE__))
void fuzz_stop(const char *what, const char *file, int line) __attribute__((noreturn));

/* ---- helpers of targets --------------------------------------------------- */

/* A copy that ends where the bytes end, where AddressSanitizer sees it. Lifetime: p. */
void *fuzz_copy(const void *bytes, apr_size_t size, apr_pool_t *p);

/* The same with a NUL; a NUL among the bytes ends it. */
char *fuzz_text(const void *bytes, apr_size_t size, apr_pool_t *p);

/* An input taken apart from its beginning. */
typedef struct fuzz_input_t {
    const unsigned char *at;
    const unsigned char *end;
    apr_pool_t *p;
} fuzz_input_t;

fuzz_input_t fuzz_input(const unsigned char *bytes, apr_size_t size, apr_pool_t *p);

/* The next so many bytes as a number, zeros behind the end. */
apr_uint64_t fuzz_number(fuzz_input_t *input, int bytes);

/* What stands before the next line feed, or at the end "". */
const char *fuzz_line(fuzz_input_t *input);

/* The same, NULL when it is empty. */
const char *fuzz_line_or_null(fuzz_input_t *input);

/* What is left, with a NUL behind it. */
const char *fuzz_rest(fuzz_input_t *input, apr_size_t *size);

/*
 * Genuine bytes as somebody may change them: the input says where they are cut and which
 * of them become others. *is_changed: whether anything is different then.
 */
unsigned char *fuzz_forge(const void *genuine, apr_size_t size, fuzz_input_t *input,
                          apr_size_t *forged_size, int *is_changed);

/* The one key that seals everything here. */
extern const abb_crypto_keyring_t fuzz_ring;

/* An empty store, the same memory each time. Lifetime: p. */
const abb_store_t *fuzz_store(apr_pool_t *p);

int fuzz_is_same(const char *a, const char *b);
/* Whether all characters are printable ASCII, spaces too. */
int fuzz_is_printable(const char *text);
/* Whether a text (may be NULL) has no control character. */
int fuzz_has_no_controls(const char *text);

#endif
