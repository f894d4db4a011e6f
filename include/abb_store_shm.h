/*
 * store_shm (floor 2): the store contract on a shared memory segment.
 *
 * The caller owns the segment and the lock, so that both can outlive a graceful
 * restart, and hands them to each generation of the server. Readers take no
 * lock (a sequence count says whether what they copied was whole); writers take
 * the caller's lock for a find and a copy. A writer that was killed leaves a
 * mark; whoever takes the lock next puts its unfinished step back first.
 */
#ifndef ABB_STORE_SHM_H
#define ABB_STORE_SHM_H

#include <apr_global_mutex.h>

#include "abb_store.h"

/* Smallest segment accepted, in bytes. */
#define ABB_STORE_SHM_MIN (256 * 1024)
/* Largest segment accepted, in bytes: numbers of blocks have 31 bits. */
#define ABB_STORE_SHM_MAX ((apr_uint64_t)128 * 1024 * 1024 * 1024)

#define ABB_STORE_SHM_PROOF_KEY_SIZE 16

/*
 * The key of the checksums by which records prove themselves when a segment is
 * read again from a file or another segment: who cannot know it cannot make one.
 */
typedef struct abb_store_shm_proof_key_t {
    unsigned char bytes[ABB_STORE_SHM_PROOF_KEY_SIZE];
} abb_store_shm_proof_key_t;

/* How many keys an import tries; more are not looked at. */
#define ABB_STORE_SHM_IMPORT_KEYS_MAX 16

/* What the bytes of an earlier segment turned out to be. */
typedef enum {
    /* A store of this version; the counts say what became of its records. */
    ABB_STORE_SHM_READ,
    /* Nothing but zeros. */
    ABB_STORE_SHM_BLANK,
    ABB_STORE_SHM_OTHER_VERSION,
    /* None of the keys made it. */
    ABB_STORE_SHM_OTHER_KEY,
    ABB_STORE_SHM_NO_STORE
} abb_store_shm_image_t;

/* What became of the records of an earlier segment. */
typedef struct abb_store_shm_import_t {
    abb_store_shm_image_t image;
    apr_uint64_t kept;
    apr_uint64_t expired;
    /* Did not prove themselves, or a block of theirs was missing. */
    apr_uint64_t damaged;
    /* Found no room; the longest unused. */
    apr_uint64_t left_out;
} abb_store_shm_import_t;

/*
 * Lay out an empty store in a segment. `seed` is random and keeps strangers
 * from choosing keys that share a chain.
 * Errors: APR_EINVAL for a size outside the limits.
 * Threads: before any process uses the segment.
 */
apr_status_t abb_store_shm_format(void *segment, apr_size_t size, apr_uint64_t seed);

/* Whether a segment of this size holds a store of this version. */
int abb_store_shm_is_formatted(const void *segment, apr_size_t size);

/*
 * Open a formatted segment. The lock must work between processes and survive
 * its holder's death; the key is copied and must be the same for all who open
 * the segment. Lifetime: p, within the segment's and the lock's.
 * Errors: APR_EINVAL when the segment is not formatted.
 */
apr_status_t abb_store_shm_open(const abb_store_t **store, void *segment, apr_size_t size,
                                apr_global_mutex_t *lock, const abb_store_shm_proof_key_t *key,
                                apr_pool_t *p);

/*
 * Take over the living records of an earlier segment, whatever its size: a file
 * from the disk, cut or flipped as it may be, or the memory that another size
 * replaces. Nothing in it is believed but records that prove themselves under
 * one of the keys; the most recently used come first. `image` is only read; if
 * others may be writing to it, their lock must be the store's own.
 * Temporary memory: 16 bytes for each record, from the heap.
 * Errors: ABB_ESTORE the lock failed; APR_ENOMEM.
 */
apr_status_t abb_store_shm_import(const abb_store_t *store, const void *image,
                                  apr_size_t image_size, const abb_store_shm_proof_key_t *keys,
                                  int key_count, apr_time_t now, abb_store_shm_import_t *result,
                                  abb_error_t *err);

/*
 * See what an import would find, and take nothing over: result->kept are the living
 * records. Memory as there. Errors: APR_ENOMEM.
 */
apr_status_t abb_store_shm_survey(const void *image, apr_size_t image_size,
                                  const abb_store_shm_proof_key_t *keys, int key_count,
                                  apr_time_t now, abb_store_shm_import_t *result);

/*
 * Check every chain of a segment: each block is in exactly one place, lists are
 * closed, counts agree. Returns NULL when all is well, else a static sentence.
 * For tests. Takes the lock.
 */
const char *abb_store_shm_check(const abb_store_t *store);

#endif
