/*
 * store_shm (floor 2): the store contract on a shared memory segment.
 *
 * The caller owns the segment and the lock, so that both can outlive a graceful
 * restart, and hands them to each generation of the server. Readers take no
 * lock (a sequence count says whether what they copied was whole); writers take
 * the caller's lock for a find and a copy. A writer that was killed leaves a
 * mark; whoever takes the lock next repairs the segment before doing anything.
 */
#ifndef ABB_STORE_SHM_H
#define ABB_STORE_SHM_H

#include <apr_global_mutex.h>

#include "abb_store.h"

/* Smallest segment accepted, in bytes. */
#define ABB_STORE_SHM_MIN (256 * 1024)
/* Largest segment accepted, in bytes: indexes of blocks have 32 bits. */
#define ABB_STORE_SHM_MAX ((apr_uint64_t)256 * 1024 * 1024 * 1024)

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
 * its holder's death. Lifetime: p, within the segment's and the lock's.
 * Errors: APR_EINVAL when the segment is not formatted.
 */
apr_status_t abb_store_shm_open(const abb_store_t **store, void *segment, apr_size_t size,
                                apr_global_mutex_t *lock, apr_pool_t *p);

/*
 * Check every chain of a segment: each block is in exactly one place, lists are
 * closed, counts agree. Returns NULL when all is well, else a static sentence.
 * For tests. Takes the lock.
 */
const char *abb_store_shm_check(const abb_store_t *store);

/*
 * Repair as after the death of a writer. For tests. Takes the lock.
 */
void abb_store_shm_repair(const abb_store_t *store);

#endif
