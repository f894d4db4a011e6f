/*
 * store (floor 2): the contract of a place that keeps records.
 *
 * A record is found by a 256-bit key, a hash; nobody can get from the key to
 * the cookie. Which engine runs behind the contract is known only to the code
 * that creates it. Knows no session, no account: bytes in two parts, with times.
 *
 * All functions: *absent* (APR_NOTFOUND) and *could not look* (ABB_ESTORE) are
 * different answers. Times are wall-clock apr_time_t given by the caller.
 * Threads: all functions may be called from any thread of any child process.
 */
#ifndef ABB_STORE_H
#define ABB_STORE_H

#include <apr_pools.h>
#include <apr_time.h>

#include "abb_error.h"

#define ABB_STORE_KEY_SIZE 32
/* Largest record a store takes, both parts together, in bytes. */
#define ABB_STORE_RECORD_MAX (2 * 1024 * 1024)

/* Longest lease, in microseconds. */
#define ABB_STORE_LEASE_MAX apr_time_from_sec(600)

typedef struct abb_store_key_t {
    unsigned char bytes[ABB_STORE_KEY_SIZE];
} abb_store_key_t;

/* Which parts of a record to copy out. */
typedef enum { ABB_STORE_OPEN_PART, ABB_STORE_BOTH_PARTS } abb_store_parts_t;

/* A record on its way in or out. */
typedef struct abb_store_record_t {
    const void *open;
    apr_size_t open_size;
    const void *sealed;
    apr_size_t sealed_size;
    /* The record is gone at this time at the latest. */
    apr_time_t expires_at;
    /* It is gone when not touched for this long; 0: no such limit. */
    apr_interval_time_t idle;
    /* Out only: when it was last touched; a number that each replacement changes. */
    apr_time_t last_seen;
    apr_uint64_t generation;
    /* Out only: when a holder of the lease last gave up; 0: not since it was last replaced. */
    apr_time_t failed_at;
    /* Out only: where it was found, for abb_store_expect; 0: nowhere in particular. */
    apr_uint32_t place;
} abb_store_record_t;

/* Figures for people. A figure that an engine cannot know is -1. */
typedef struct abb_store_figures_t {
    apr_int64_t records;
    apr_int64_t bytes_used;
    apr_int64_t bytes_capacity;
    apr_int64_t hits;
    apr_int64_t misses;
    apr_int64_t evictions;
    apr_int64_t expired;
    apr_int64_t recoveries;
} abb_store_figures_t;

typedef struct abb_store_t abb_store_t;

/*
 * Shown one record of a walk: its key, open part and times. Valid during the call, which
 * may use the store.
 */
typedef void (*abb_store_look_t)(void *context, const abb_store_key_t *key,
                                 const abb_store_record_t *record);

/* What an engine implements; each member does what the function of its name says. */
typedef struct abb_store_methods_t {
    apr_status_t (*get)(void *engine, const abb_store_key_t *key, abb_store_parts_t parts,
                        apr_time_t now, abb_store_record_t *record, apr_pool_t *p,
                        abb_error_t *err);
    apr_status_t (*put)(void *engine, const abb_store_key_t *key, const abb_store_record_t *record,
                        apr_time_t now, abb_error_t *err);
    apr_status_t (*replace)(void *engine, const abb_store_key_t *key, apr_uint64_t generation,
                            const abb_store_record_t *record, apr_time_t now, abb_error_t *err);
    apr_status_t (*touch)(void *engine, const abb_store_key_t *key, apr_time_t now,
                          abb_error_t *err);
    apr_status_t (*lease)(void *engine, const abb_store_key_t *key, apr_interval_time_t duration,
                          apr_time_t now, apr_uint64_t *holder, abb_error_t *err);
    apr_status_t (*release)(void *engine, const abb_store_key_t *key, apr_uint64_t holder,
                            abb_error_t *err);
    apr_status_t (*fail)(void *engine, const abb_store_key_t *key, apr_uint64_t holder,
                         apr_time_t now, abb_error_t *err);
    apr_status_t (*drop)(void *engine, const abb_store_key_t *key, abb_error_t *err);
    void (*figures)(void *engine, abb_store_figures_t *figures);
    apr_int64_t (*take_evictions)(void *engine, apr_time_t now);
    /* NULL where nothing can be done ahead. */
    void (*expect)(void *engine, const abb_store_key_t *key, apr_uint32_t place);
    /* NULL where nobody can tell what is there. */
    apr_status_t (*walk)(void *engine, apr_time_t now, abb_store_look_t look, void *context,
                         apr_pool_t *p, abb_error_t *err);
} abb_store_methods_t;

struct abb_store_t {
    const abb_store_methods_t *methods;
    void *engine;
};

/*
 * Copy out a record that lives at `now`. The sealed part is NULL unless asked
 * for. The open part is aligned to 8 bytes. Lifetime: p.
 * Errors: APR_NOTFOUND absent or past one of its limits; ABB_ESTORE.
 */
apr_status_t abb_store_get(const abb_store_t *store, const abb_store_key_t *key,
                           abb_store_parts_t parts, apr_time_t now, abb_store_record_t *record,
                           apr_pool_t *p, abb_error_t *err);

/*
 * Say that a record will be asked for within microseconds. It was at `place` when
 * somebody last asked; to be wrong costs time and nothing else. Waits for nothing.
 */
void abb_store_expect(const abb_store_t *store, const abb_store_key_t *key, apr_uint32_t place);

/*
 * Put a record under a key that has none. When the store is full, others go:
 * expired ones first, then the longest untouched.
 * Errors: APR_EEXIST when a living record is there; ABB_ESTORE, also for a
 * record larger than ABB_STORE_RECORD_MAX or than a quarter of the store.
 */
apr_status_t abb_store_put(const abb_store_t *store, const abb_store_key_t *key,
                           const abb_store_record_t *record, apr_time_t now, abb_error_t *err);

/*
 * Put a record in place of the one with this generation; a lease on it stays.
 * Errors: APR_NOTFOUND; ABB_ECHANGED when the generation is another; ABB_ESTORE.
 */
apr_status_t abb_store_replace(const abb_store_t *store, const abb_store_key_t *key,
                               apr_uint64_t generation, const abb_store_record_t *record,
                               apr_time_t now, abb_error_t *err);

/*
 * Note that a record was used now. Never waits: when a writer is at work nothing
 * is noted and ABB_ECHANGED returned. The caller throttles. An engine that would
 * have to ask another machine notes it some time later; then APR_SUCCESS does not
 * say that the record is there.
 * Errors: APR_NOTFOUND; ABB_ECHANGED; ABB_ESTORE.
 */
apr_status_t abb_store_touch(const abb_store_t *store, const abb_store_key_t *key, apr_time_t now,
                             abb_error_t *err);

/*
 * Take the only lease on a record for `duration` microseconds, at most
 * ABB_STORE_LEASE_MAX. A holder that dies loses it when it runs out. A lease that
 * has longer to go was taken before the clock was put back, and is none. *holder
 * identifies the lease.
 * Errors: APR_NOTFOUND; ABB_ECHANGED when another holds it; ABB_ESTORE.
 */
apr_status_t abb_store_lease(const abb_store_t *store, const abb_store_key_t *key,
                             apr_interval_time_t duration, apr_time_t now, apr_uint64_t *holder,
                             abb_error_t *err);

/* For engines: whether a lease that ends at `until` is one. */
int abb_store_is_leased(apr_time_t until, apr_time_t now);

/*
 * Give a lease back. Errors: APR_NOTFOUND; ABB_ECHANGED when it had run out and
 * is another's now; ABB_ESTORE.
 */
apr_status_t abb_store_release(const abb_store_t *store, const abb_store_key_t *key,
                               apr_uint64_t holder, abb_error_t *err);

/*
 * Give a lease back and note in the record that its holder gave up now, so that
 * others who waited need not try the same. Errors: as abb_store_release.
 */
apr_status_t abb_store_fail(const abb_store_t *store, const abb_store_key_t *key,
                            apr_uint64_t holder, apr_time_t now, abb_error_t *err);

/* End a record. Errors: APR_NOTFOUND; ABB_ESTORE. */
apr_status_t abb_store_drop(const abb_store_t *store, const abb_store_key_t *key, abb_error_t *err);

/* Whether the store can tell what is in it. */
int abb_store_can_walk(const abb_store_t *store);

/*
 * Look at every record that lives at `now`. One that comes or goes meanwhile is seen or
 * not; no other is left out, unless more than 64 share a place in the engine's table,
 * which chance does not bring about. Takes time in proportion to all that is there, and keeps
 * nobody waiting. Temporary memory from p.
 * Errors: APR_ENOTIMPL the store cannot be walked; ABB_ESTORE.
 */
apr_status_t abb_store_walk(const abb_store_t *store, apr_time_t now, abb_store_look_t look,
                            void *context, apr_pool_t *p, abb_error_t *err);

/* Read the figures; they need not be of one instant. */
void abb_store_figures(const abb_store_t *store, abb_store_figures_t *figures);

/* At most how often abb_store_take_evictions has something to tell. */
#define ABB_STORE_EVICTIONS_INTERVAL apr_time_from_sec(60)

/*
 * How many living records have gone for lack of room since somebody last asked;
 * of all processes one gets the number, at most once in
 * ABB_STORE_EVICTIONS_INTERVAL, the others 0. For the warning in the log.
 */
apr_int64_t abb_store_take_evictions(const abb_store_t *store, apr_time_t now);

#endif
