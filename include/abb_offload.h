/*
 * offload (floor 1): calls that may never return, made by other threads.
 *
 * A library without time-outs asks another machine. Its calls run on a few
 * threads of their own: who asked waits for a while and then goes on without an
 * answer; the call ends when it ends. After some troubles in a row nobody is let
 * through any more (a circuit breaker), and one thread tries once in a while
 * whether the other side answers again. Knows no store and no cache.
 *
 *      asker ---- job ----> queue ----> thread ----> work(job)
 *        |                                              |
 *        +---- waits up to `patience` <---- done -------+
 *
 * All of it belongs to one process: create it after the fork. Time-outs are of
 * the monotonic clock.
 */
#ifndef ABB_OFFLOAD_H
#define ABB_OFFLOAD_H

#include <apr_pools.h>
#include <apr_time.h>

#include "abb_error.h"

/* How many threads that try whether the other side answers may be stuck at once. */
#define ABB_OFFLOAD_PROBES_MAX 8

typedef struct abb_offload_t abb_offload_t;

/* What one job does. Returns whether the other side answered, whatever it said. */
typedef int (*abb_offload_work_t)(void *owner, void *job);

typedef struct abb_offload_settings_t {
    /* The other side, as the subject of a sentence. Borrowed. */
    const char *name;
    /*
     * Threads that work at once; they start when they are needed. At least 1. Those
     * that are stuck are replaced, up to four times as many in all.
     */
    int threads;
    /* How long who asked waits, queueing included. */
    apr_interval_time_t patience;
    /* After so many jobs in a row without an answer nobody is let through. */
    int troubles_max;
    /* How often it is tried then whether the other side answers again. */
    apr_interval_time_t probe_interval;
    /*
     * A probe that has not come back for so long is given up: another thread
     * tries, up to ABB_OFFLOAD_PROBES_MAX.
     */
    apr_interval_time_t probe_patience;
    /* Try whether the other side answers. One that takes longer than `patience` failed. */
    int (*probe)(void *owner);
    /*
     * Told when nobody is let through any more (is_answering 0) and when all are
     * again (1). NULL: nobody. Called by any thread, without a lock held.
     */
    void (*tell)(void *owner, int is_answering);
    /* Handed to work, probe and tell. Lifetime: the process. */
    void *owner;
} abb_offload_settings_t;

/*
 * Make the queue; threads start later. Lifetime: p, but a thread that is stuck
 * keeps what it needs. When p is cleaned up, waiting jobs are dropped, so that who
 * waits for one goes on at once, and threads at work get 0.3 seconds. Who waits for
 * such a thread goes on when it has done, or when his patience is over.
 * Errors: those of APR and pthreads.
 */
apr_status_t abb_offload_create(abb_offload_t **offload, const abb_offload_settings_t *settings,
                                apr_pool_t *p);

/*
 * A pool for one job and all that it uses. It has no parent and an allocator of
 * its own, so that another thread may use it after this one has gone on.
 * Errors: APR_ENOMEM.
 */
apr_status_t abb_offload_create_pool(apr_pool_t **pool);

/*
 * A pool without a parent whose allocator has a lock: several threads may use
 * sub-pools of it at once, each its own. The pool itself is for one at a time.
 * For what a library keeps between calls, such as connections; a pool of
 * abb_offload_create_pool, and that of a child process of the prefork MPM, have
 * no such lock. Lifetime: until it is destroyed, when no thread uses it any more.
 * Errors: APR_ENOMEM; those of apr_thread_mutex_create.
 */
apr_status_t abb_offload_create_shared_pool(apr_pool_t **pool);

/*
 * Have a job done and wait. `job` lives in `pool`, made by
 * abb_offload_create_pool. APR_SUCCESS: it is done, and the pool is the caller's
 * to destroy. Otherwise the pool was handed over and must not be touched.
 * Errors: ABB_ESTORE: no answer in time, all threads stuck, nobody is let
 * through, or the end. The sentence says which.
 * Threads: any; waits at most `patience`.
 */
apr_status_t abb_offload_run(abb_offload_t *offload, abb_offload_work_t work, void *job,
                             apr_pool_t *pool, abb_error_t *err);

/*
 * Have a job done some time; nobody waits. The pool is handed over in any case.
 * Errors: ABB_ESTORE: nobody is let through, or too much waits already.
 * Threads: any; never waits.
 */
apr_status_t abb_offload_start(abb_offload_t *offload, abb_offload_work_t work, void *job,
                               apr_pool_t *pool);

/* Whether jobs are let through; for figures and tests. */
int abb_offload_is_answering(abb_offload_t *offload);

#endif
