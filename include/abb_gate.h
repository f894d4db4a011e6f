/*
 * gate (floor 1): how many requests may wait for another machine at once.
 *
 * A thread that waits serves nobody. So there are places for those who may wait,
 * for all processes of the server together and for each process; who finds none
 * does not wait. A place that is not given back, since its process died, is free
 * again when its time is over. Knows nothing of what is waited for.
 * Threads: all functions but create, of any process.
 */
#ifndef ABB_GATE_H
#define ABB_GATE_H

#include <apr_pools.h>
#include <apr_time.h>

/* Most places a server may have. */
#define ABB_GATE_PLACES_MAX 1024

typedef struct abb_gate_t abb_gate_t;

/* How many may wait: in all processes together, and in this one. At least 1 each. */
typedef struct abb_gate_limits_t {
    int server;
    int process;
} abb_gate_limits_t;

/* A place. */
typedef struct abb_gate_place_t {
    int number;
    apr_time_t until;
} abb_gate_place_t;

/* Bytes that the shared block needs, zeroed and aligned to 8 bytes. */
apr_size_t abb_gate_size(void);

/*
 * Use a block. Lifetime: p; the block must live as long. Threads: start-up, in
 * the parent: each process that is forked from it counts for itself.
 */
abb_gate_t *abb_gate_create(void *block, apr_pool_t *p);

/*
 * The limits of a server with so many processes of so many threads when `wanted`
 * may wait, or, when that is 0, a quarter of all threads, at least 4. A process
 * gets its share, at least 1.
 */
abb_gate_limits_t abb_gate_limits(int wanted, int processes, int threads);

/*
 * Take a place for at most `longest`. Returns 0 when all are taken; else it must
 * be given back. Never waits.
 */
int abb_gate_enter(abb_gate_t *gate, const abb_gate_limits_t *limits, apr_interval_time_t longest,
                   apr_time_t now, abb_gate_place_t *place);

/* How long abb_gate_wait waits at most. */
#define ABB_GATE_PATIENCE apr_time_from_sec(1)

/*
 * The same, and wait for a place while those who have one come and go quickly:
 * as long as nobody has kept a place for ABB_GATE_PATIENCE, no longer than that,
 * and in one process no more than twice as many as may have a place.
 */
int abb_gate_wait(abb_gate_t *gate, const abb_gate_limits_t *limits, apr_interval_time_t longest,
                  abb_gate_place_t *place);

/* Give a place back. After more than `longest` it may be another's, who keeps it. */
void abb_gate_leave(abb_gate_t *gate, const abb_gate_place_t *place);

/*
 * Claim what a random name stands for, for so long, at most 15 minutes. Returns 0 when
 * it was claimed before. Never waits; nothing is given back. Two names may meet at one
 * spot (1 in 1,024); the second then goes on without a claim, so whoever needs more
 * than that must make sure by another means.
 */
int abb_gate_claim(abb_gate_t *gate, apr_uint64_t name, apr_interval_time_t duration,
                   apr_time_t now);

/* How many places are taken now in all processes; for figures and tests. */
int abb_gate_count(const abb_gate_t *gate, apr_time_t now);

#endif
