/*
 * shared: a store in anonymous shared memory, as httpd would make one.
 *
 * Memory and lock are inherited by children that a test forks.
 */
#ifndef SHARED_H
#define SHARED_H

#include <apr_global_mutex.h>
#include <apr_shm.h>

#include "abb_store_shm.h"
#include "unit.h"

#define SHARED_SEED 0x0123456789abcdefULL

static const abb_store_shm_proof_key_t proof_key = {"proof of a test"};

/* An empty store in a segment of this size. Lifetime: p. */
static inline const abb_store_t *shared_store(apr_size_t size, apr_pool_t *p)
{
    const abb_store_t *store = NULL;
    apr_global_mutex_t *lock;
    apr_shm_t *shm;
    void *segment;

    assert_int_equal(apr_shm_create(&shm, size, NULL, p), APR_SUCCESS);
    segment = apr_shm_baseaddr_get(shm);
    assert_int_equal(apr_global_mutex_create(&lock, NULL, APR_LOCK_PROC_PTHREAD, p), APR_SUCCESS);
    assert_int_equal(abb_store_shm_format(segment, size, SHARED_SEED), APR_SUCCESS);
    assert_int_equal(abb_store_shm_open(&store, segment, size, lock, &proof_key, p), APR_SUCCESS);
    assert_non_null(store);
    return store;
}

/* Fail unless every chain of a store is whole. */
static inline void shared_check(const abb_store_t *store)
{
    const char *fault = abb_store_shm_check(store);

    if (fault) {
        fail_msg("%s", fault);
    }
}

#endif
