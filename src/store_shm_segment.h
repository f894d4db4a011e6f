/*
 * The inside of store_shm: the segment, shared by the file that works on it, the
 * file that repairs it and the file that keeps the contract.
 *
 *   +--------+-----------------+------------------+---------------------------+
 *   | header | sequence counts | buckets          | blocks of 256 bytes ...   |
 *   +--------+-----------------+------------------+---------------------------+
 *                                 |                   ^
 *                                 +--- chain of ------+
 *                                      records
 *
 * A record is a chain of blocks: the first holds its head and the first bytes,
 * the others only bytes. Links are block numbers from 1 on, since processes may
 * map the segment at different addresses; 0 ends a chain. Records also stand in
 * one list from the longest to the most recently touched.
 *
 * Readers. Each bucket belongs to one of SEQUENCES counts. A writer makes the
 * count odd before it changes anything a reader of that bucket may follow, and
 * even after. A reader notes the count, follows the chain with every link
 * checked against the segment, copies, and believes what it has only if the
 * count is even and the same. After some failures it takes the lock.
 *
 * Writers hold the lock. `writing` is set while the segment is not whole; who
 * finds it set after taking the lock knows that a writer died and repairs. A
 * record counts from the moment its first block says BLOCK_RECORD, which is
 * written last; the repair keeps these and frees everything else.
 */
#ifndef ABB_STORE_SHM_SEGMENT_H
#define ABB_STORE_SHM_SEGMENT_H

#include "abb_store_shm.h"

#define BLOCK_SIZE 256
#define SEQUENCES 1024

typedef enum { BLOCK_FREE = 0, BLOCK_BYTES = 1, BLOCK_RECORD = 2 } block_kind_t;

typedef struct {
    apr_uint32_t kind;
    apr_uint32_t next;
} block_head_t;

/* A block with bytes only. */
typedef struct {
    block_head_t head;
    apr_uint64_t words[(BLOCK_SIZE - sizeof(block_head_t)) / 8];
} bytes_block_t;

/* The first block of a record. */
typedef struct {
    block_head_t head;
    apr_uint64_t key[ABB_STORE_KEY_SIZE / 8];
    apr_uint32_t bucket_next;
    apr_uint32_t older;
    apr_uint32_t newer;
    apr_uint32_t open_size;
    apr_uint32_t sealed_size;
    apr_uint32_t block_count;
    apr_int64_t expires_at;
    apr_int64_t idle;
    apr_int64_t last_seen;
    apr_uint64_t generation;
    apr_int64_t leased_until;
    apr_uint64_t lease_holder;
    apr_int64_t failed_at;
    apr_uint64_t words[(BLOCK_SIZE - 8 - ABB_STORE_KEY_SIZE - 6 * 4 - 7 * 8) / 8];
} record_block_t;

_Static_assert(sizeof(bytes_block_t) == BLOCK_SIZE, "a block has one size");
_Static_assert(sizeof(record_block_t) == BLOCK_SIZE, "a block has one size");

#define RECORD_WORDS (sizeof(((record_block_t *)0)->words) / 8)
#define BYTES_WORDS (sizeof(((bytes_block_t *)0)->words) / 8)

typedef struct {
    apr_uint64_t magic;
    apr_uint32_t layout_version;
    apr_uint32_t writing;
    apr_uint64_t size;
    apr_uint64_t seed;
    apr_uint64_t bucket_offset;
    apr_uint64_t block_offset;
    apr_uint32_t bucket_count;
    apr_uint32_t block_count;
    apr_uint32_t first_free;
    apr_uint32_t free_count;
    apr_uint32_t record_count;
    apr_uint32_t oldest;
    apr_uint32_t newest;
    apr_uint32_t sweep_bucket;
    /* No record's limit is before this time. */
    apr_int64_t quiet_until;
    apr_uint64_t next_holder;
    apr_uint64_t next_generation;
    apr_uint64_t hits;
    apr_uint64_t misses;
    apr_uint64_t evictions;
    /* How many of them somebody was told of, and when. */
    apr_uint64_t evictions_told;
    apr_int64_t evictions_told_at;
    apr_uint64_t expired;
    apr_uint64_t recoveries;
    apr_uint32_t sequences[SEQUENCES];
} header_t;

typedef struct {
    abb_store_t store;
    header_t *header;
    apr_uint32_t *buckets;
    char *blocks;
    apr_global_mutex_t *lock;
    abb_store_shm_proof_key_t proof_key;
} abb_segment_t;

/* What both sides of the lock-free path use: relaxed and atomic, ordered by the counts. */
#define LOAD(place) __atomic_load_n(&(place), __ATOMIC_RELAXED)
#define SET(place, value) __atomic_store_n(&(place), (value), __ATOMIC_RELAXED)
#define COUNT(place) __atomic_fetch_add(&(place), 1, __ATOMIC_RELAXED)

/* ---- small helpers ------------------------------------------------------- */

static inline apr_uint64_t round_up(apr_uint64_t size, apr_uint64_t unit)
{
    return (size + unit - 1) / unit * unit;
}

static inline void *block_at(const abb_segment_t *engine, apr_uint32_t number)
{
    return engine->blocks + (apr_size_t)(number - 1) * BLOCK_SIZE;
}

static inline record_block_t *record_at(const abb_segment_t *engine, apr_uint32_t number)
{
    return block_at(engine, number);
}

static inline int is_block(const abb_segment_t *engine, apr_uint32_t number)
{
    return number >= 1 && number <= engine->header->block_count;
}

/* ---- the segment --------------------------------------------------------- */

/*
 * Point a handle at a laid out segment.
 */
void abb_segment_attach(abb_segment_t *engine, void *segment);

/*
 * Which bucket a key or a record belongs to.
 */
apr_uint32_t abb_segment_bucket_of(const abb_segment_t *engine, const abb_store_key_t *key);
apr_uint32_t abb_segment_bucket_of_record(const abb_segment_t *engine,
                                          const record_block_t *record);

/*
 * The record with a key, or 0. Safe without the lock: every link is checked and
 * the walk is bounded; what it finds must then be confirmed by the count.
 */
apr_uint32_t abb_segment_find(const abb_segment_t *engine, apr_uint32_t bucket,
                              const abb_store_key_t *key);

/* When a record's earlier limit is reached. Safe without the lock. */
apr_time_t abb_segment_end_of(const record_block_t *record);

/* Whether a record is within both its limits. Safe without the lock. */
int abb_segment_is_living(const record_block_t *record, apr_time_t now);

/* How many blocks a record of these sizes takes. */
apr_uint32_t abb_segment_blocks_for(const abb_store_record_t *record);

/*
 * Take the lock, repair what a dead writer left, and set the mark; clear the
 * mark and give the lock back. Errors: ABB_ESTORE.
 */
apr_status_t abb_segment_lock(abb_segment_t *engine, abb_error_t *err);
void abb_segment_unlock(abb_segment_t *engine);

/*
 * As abb_segment_lock, but without waiting. Errors: also ABB_ECHANGED when a
 * writer is at work.
 */
apr_status_t abb_segment_trylock(abb_segment_t *engine, abb_error_t *err);

/*
 * Between these two, readers of a bucket do not believe what they see. The lock
 * is held.
 */
void abb_segment_begin_change(abb_segment_t *engine, apr_uint32_t bucket);
void abb_segment_end_change(abb_segment_t *engine, apr_uint32_t bucket);

/* The count that a bucket belongs to. */
apr_uint32_t *abb_segment_sequence_of(abb_segment_t *engine, apr_uint32_t bucket);

/*
 * Links of records. A record goes into the list before the one that is touched
 * more recently, or with 0 to the end of the most recent. The lock is held.
 */
void abb_segment_list_remove_locked(abb_segment_t *engine, apr_uint32_t number);
void abb_segment_list_insert_locked(abb_segment_t *engine, apr_uint32_t number, apr_uint32_t newer);
void abb_segment_bucket_insert_locked(abb_segment_t *engine, apr_uint32_t bucket,
                                      apr_uint32_t number);
void abb_segment_bucket_remove_locked(abb_segment_t *engine, apr_uint32_t bucket,
                                      apr_uint32_t number);

/* Rebuild all structure from the records that count. The lock is held. */
void abb_segment_repair(abb_segment_t *engine);

#endif
