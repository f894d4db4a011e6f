/* fuzz: the table of targets, and what they share. See fuzz.h. */
#include "fuzz.h"

#include <apr_general.h>
#include <apr_global_mutex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abb_reply.h"
#include "abb_store_shm.h"
#include "abb_text.h"
#include "targets.h"

#define TARGET(name, size_max) {#name, fuzz_##name, size_max},
const fuzz_target_t fuzz_targets[] = {FUZZ_TARGETS(TARGET){NULL, NULL, 0}};

const abb_crypto_keyring_t fuzz_ring = {1, {{{1, 2, 3, 4, 5, 6, 7, 8}}}};

static apr_global_mutex_t *store_lock;
static apr_uint64_t segment[ABB_STORE_SHM_MIN / 8];

void fuzz_stop(const char *what, const char *file, int line)
{
    fprintf(stderr, "%s (%s:%d)\n", what, file, line);
    abort();
}

const fuzz_target_t *fuzz_find(const char *name)
{
    for (const fuzz_target_t *target = fuzz_targets; target->name; ++target) {
        if (strcmp(target->name, name) == 0) {
            return target;
        }
    }
    return NULL;
}

void fuzz_begin(void)
{
    apr_pool_t *p;

    FUZZ_CHECK(apr_initialize() == APR_SUCCESS);
    FUZZ_CHECK(apr_pool_create(&p, NULL) == APR_SUCCESS);
    FUZZ_CHECK(abb_crypto_init(NULL) == APR_SUCCESS);
    abb_reply_init();
    FUZZ_CHECK(apr_global_mutex_create(&store_lock, NULL, APR_LOCK_PROC_PTHREAD, p) == APR_SUCCESS);
}

void fuzz_run(const fuzz_target_t *target, const unsigned char *bytes, apr_size_t size)
{
    apr_pool_t *p;

    FUZZ_CHECK(apr_pool_create(&p, NULL) == APR_SUCCESS);
    target->function(fuzz_copy(bytes, size, p), size, p);
    apr_pool_destroy(p);
}

/* ---- bytes ---------------------------------------------------------------- */

static apr_status_t free_bytes(void *bytes)
{
    free(bytes);
    return APR_SUCCESS;
}

static char *make_room(apr_size_t size, apr_pool_t *p)
{
    char *room = calloc(size ? size : 1, 1);

    FUZZ_CHECK(room != NULL);
    apr_pool_cleanup_register(p, room, free_bytes, apr_pool_cleanup_null);
    return room;
}

void *fuzz_copy(const void *bytes, apr_size_t size, apr_pool_t *p)
{
    char *copy = make_room(size, p);

    if (size) {
        memcpy(copy, bytes, size);
    }
    return copy;
}

char *fuzz_text(const void *bytes, apr_size_t size, apr_pool_t *p)
{
    apr_size_t length = size ? strnlen(bytes, size) : 0;
    char *text = make_room(length + 1, p);

    if (length) {
        memcpy(text, bytes, length);
    }
    text[length] = '\0';
    return text;
}

fuzz_input_t fuzz_input(const unsigned char *bytes, apr_size_t size, apr_pool_t *p)
{
    fuzz_input_t input = {bytes, bytes + size, p};

    return input;
}

apr_uint64_t fuzz_number(fuzz_input_t *input, int bytes)
{
    apr_uint64_t number = 0;

    for (int i = 0; i < bytes; ++i) {
        number |= (apr_uint64_t)(input->at < input->end ? *input->at++ : 0) << (8 * i);
    }
    return number;
}

const char *fuzz_line(fuzz_input_t *input)
{
    apr_size_t left = (apr_size_t)(input->end - input->at);
    const unsigned char *end = left ? memchr(input->at, '\n', left) : NULL;
    apr_size_t length = end ? (apr_size_t)(end - input->at) : left;
    const char *line = fuzz_text(input->at, length, input->p);

    input->at += length + (end != NULL);
    return line;
}

const char *fuzz_line_or_null(fuzz_input_t *input)
{
    const char *line = fuzz_line(input);

    return *line ? line : NULL;
}

const char *fuzz_rest(fuzz_input_t *input, apr_size_t *size)
{
    char *rest;

    *size = (apr_size_t)(input->end - input->at);
    rest = make_room(*size + 1, input->p);
    if (*size) {
        memcpy(rest, input->at, *size);
    }
    rest[*size] = '\0';
    input->at = input->end;
    return rest;
}

unsigned char *fuzz_forge(const void *genuine, apr_size_t size, fuzz_input_t *input,
                          apr_size_t *forged_size, int *is_changed)
{
    apr_size_t cut = (apr_size_t)fuzz_number(input, 2) % (size + 1);
    unsigned char *forged;

    *forged_size = size - cut;
    forged = fuzz_copy(genuine, *forged_size, input->p);
    while (input->at < input->end && *forged_size) {
        apr_size_t place = (apr_size_t)fuzz_number(input, 2) % *forged_size;

        forged[place] ^= (unsigned char)fuzz_number(input, 1);
    }
    *is_changed = cut || memcmp(forged, genuine, size) != 0;
    return forged;
}

/* ---- the store ------------------------------------------------------------ */

const abb_store_t *fuzz_store(apr_pool_t *p)
{
    static const abb_store_shm_proof_key_t key = {"proof of fuzzing"};
    const abb_store_t *store = NULL;

    FUZZ_CHECK(abb_store_shm_format(segment, sizeof(segment), 1) == APR_SUCCESS);
    FUZZ_CHECK(abb_store_shm_open(&store, segment, sizeof(segment), store_lock, &key, p) ==
               APR_SUCCESS);
    return store;
}

/* ---- questions ------------------------------------------------------------ */

int fuzz_is_same(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

int fuzz_is_printable(const char *text)
{
    for (; *text; ++text) {
        if (*text < 0x20 || *text > 0x7e) {
            return 0;
        }
    }
    return 1;
}

int fuzz_has_no_controls(const char *text)
{
    for (; text && *text; ++text) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            return 0;
        }
    }
    return 1;
}
