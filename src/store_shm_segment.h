/*
 * The inside of store_shm: the segment, shared by the files that work on it.
 *
 *   store_shm.c           the contract
 *   store_shm_segment.c   layout, proofs, lock, journal, sequence counts
 *   store_shm_links.c     the four structures that blocks and records stand in
 *   store_shm_import.c    records of an earlier segment
 *   store_shm_check.c     is all of it whole? For tests.
 *
 *   +--------+-----------------+------------------+---------------------------+
 *   | header | sequence counts | buckets          | blocks of 128 bytes ...   |
 *   +--------+-----------------+------------------+---------------------------+
 *                                 |                   ^
 *                                 +--- chain of ------+
 *                                      records
 *
 * A record is a chain of blocks: the first is its head, the others hold its
 * bytes. Links are block numbers from 1 on, since processes may map the segment
 * at different addresses; 0 ends a chain. Records also stand in one list from the
 * longest to the most recently touched, and in the list of the few seconds in
 * which their limit is to be looked at.
 *
 * Readers. Each bucket belongs to one of SEQUENCES counts. A writer makes the
 * count odd before it changes anything a reader of that bucket may follow, and
 * even after. A reader notes the count, follows the chain with every link
 * checked against the segment, copies, and believes what it has only if the
 * count is even and the same. After some failures it takes the lock.
 *
 * Writers hold the lock, and note in the journal the old value of every word
 * they change outside of free blocks. `writing` is set while they work; who
 * finds it set after taking the lock knows that a writer died, and puts the old
 * values back. So every step between two commits is done or was never begun, at
 * a cost that does not depend on the size of the store.
 */
#ifndef ABB_STORE_SHM_SEGMENT_H
#define ABB_STORE_SHM_SEGMENT_H

#include "abb_store_shm.h"

#define BLOCK_SIZE 128
#define SEQUENCES 1024
/* Old values that one step may note; the longest step needs less than half. */
#define JOURNAL_SIZE 64
/* Counters that many processes write stand on cache lines of their own. */
#define STRIPES 64
#define CACHE_LINE 64

/* Limits are looked at in lists of this much time, so many of them in a circle. */
#define DUE_WIDTH apr_time_from_sec(4)
#define DUE_LISTS 2048

typedef enum { BLOCK_PLAIN = 0, BLOCK_RECORD = 1 } block_kind_t;

typedef struct {
    apr_uint32_t kind;
    apr_uint32_t next;
} block_head_t;

/* A block with bytes of a record, or a free one. */
typedef struct {
    block_head_t head;
    apr_uint64_t words[(BLOCK_SIZE - sizeof(block_head_t)) / 8];
} bytes_block_t;

/* The first block of a record; what a look-up compares is on one cache line. */
typedef struct {
    block_head_t head;
    apr_uint64_t key[ABB_STORE_KEY_SIZE / 8];
    apr_uint32_t bucket_next;
    apr_uint32_t open_size;
    apr_uint32_t sealed_size;
    apr_uint32_t lease_holder;
    apr_int64_t expires_at;

    apr_int64_t idle;
    apr_int64_t last_seen;
    apr_uint64_t generation;
    apr_int64_t failed_at;
    apr_int64_t leased_until;
    apr_uint32_t older;
    apr_uint32_t newer;
    apr_uint32_t due_next;
    /* The one before, or for the first of a list DUE_FIRST and the list's number. */
    apr_uint32_t due_previous;
    apr_uint64_t proof;
} record_block_t;

#define DUE_FIRST 0x80000000u

_Static_assert(sizeof(bytes_block_t) == BLOCK_SIZE, "a block has one size");
_Static_assert(sizeof(record_block_t) == BLOCK_SIZE, "a block has one size");

#define BYTES_WORDS (sizeof(((bytes_block_t *)0)->words) / 8)

typedef struct {
    apr_uint64_t hits;
    apr_uint64_t misses;
    char rest[CACHE_LINE - 16];
} stripe_t;

/* The aligned word that a step changed, by its distance from the segment's start. */
typedef struct {
    apr_uint64_t offset;
    apr_uint64_t word;
} journal_entry_t;

typedef struct {
    apr_uint64_t magic;
    apr_uint32_t layout_version;
    apr_uint32_t bucket_count;
    apr_uint64_t size;
    apr_uint64_t seed;
    apr_uint64_t bucket_offset;
    apr_uint64_t block_offset;
    apr_uint32_t block_count;
    apr_uint32_t unused;
    /* Says which key proved the records. */
    apr_uint64_t key_mark;

    char line1[CACHE_LINE];
    apr_uint32_t writing;
    apr_uint32_t journal_count;
    apr_uint32_t first_free;
    apr_uint32_t free_count;
    apr_uint32_t record_count;
    apr_uint32_t oldest;
    apr_uint32_t newest;
    apr_uint32_t next_holder;
    /* The list of limits to look at next, counted from the epoch. */
    apr_int64_t due_hand;
    apr_uint64_t next_generation;
    apr_uint64_t evictions;
    apr_uint64_t expired;
    apr_uint64_t recoveries;
    /* How many evictions somebody was told of, and when. */
    apr_uint64_t evictions_told;
    apr_int64_t evictions_told_at;
    journal_entry_t journal[JOURNAL_SIZE];
    apr_uint32_t due[DUE_LISTS];

    char line2[CACHE_LINE];
    stripe_t stripes[STRIPES];
    apr_uint32_t sequences[SEQUENCES];
} header_t;

/* Keys for three purposes, all from the one given. */
typedef struct {
    unsigned char record[ABB_STORE_SHM_PROOF_KEY_SIZE];
    unsigned char content[ABB_STORE_SHM_PROOF_KEY_SIZE];
    unsigned char last_seen[ABB_STORE_SHM_PROOF_KEY_SIZE];
    apr_uint64_t mark;
} proof_keys_t;

typedef struct {
    abb_store_t store;
    header_t *header;
    apr_uint32_t *buckets;
    char *blocks;
    apr_global_mutex_t *lock;
    proof_keys_t keys;
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

/* ---- layout -------------------------------------------------------------- */

/* Fill in the geometry of a segment of this size. */
void abb_segment_plan(header_t *header, apr_uint64_t size);

/* Whether a header is one of this version. */
int abb_segment_has_magic(const header_t *header);
int abb_segment_has_version(const header_t *header);

/* Point a handle at a laid out segment. */
void abb_segment_attach(abb_segment_t *engine, void *segment);

/* Which bucket a key or a record belongs to. */
apr_uint32_t abb_segment_bucket_of(const abb_segment_t *engine, const abb_store_key_t *key);
apr_uint32_t abb_segment_bucket_of_record(const abb_segment_t *engine,
                                          const record_block_t *record);

/*
 * The record with a key, or 0. Safe without the lock: every link is checked and
 * the walk is bounded; what it finds must then be confirmed by the count.
 */
apr_uint32_t abb_segment_find(const abb_segment_t *engine, apr_uint32_t bucket,
                              const abb_store_key_t *key);

/* Ask the processor for what a look-up reads of a record. */
void abb_segment_prefetch(const record_block_t *record);

/* When a record's earlier limit is reached. Safe without the lock. */
apr_time_t abb_segment_end_of(const record_block_t *record);

/* Whether a record is within both its limits. Safe without the lock. */
int abb_segment_is_living(const record_block_t *record, apr_time_t now);

/* How many blocks a record with parts of these sizes takes. */
apr_uint32_t abb_segment_blocks_for(apr_size_t open_size, apr_size_t sealed_size);

/* ---- proofs -------------------------------------------------------------- */

/* Checksums of a record's two parts: made before the lock is taken. */
typedef struct {
    apr_uint64_t open;
    apr_uint64_t sealed;
} content_sums_t;

void abb_segment_derive_keys(proof_keys_t *keys, const abb_store_shm_proof_key_t *key);

content_sums_t abb_segment_sum(const proof_keys_t *keys, const void *open, apr_size_t open_size,
                               const void *sealed, apr_size_t sealed_size);

/*
 * The proof of a record: SipHash-2-4 of everything in it that has a meaning, but
 * not of its links and its lease. Its share of last_seen is apart, so that a touch
 * need not read the record again.
 */
apr_uint64_t abb_segment_prove(const proof_keys_t *keys, const record_block_t *record,
                               const content_sums_t *sums);
apr_uint64_t abb_segment_prove_last_seen(const proof_keys_t *keys, const record_block_t *record);

/* ---- lock and journal ---------------------------------------------------- */

/*
 * Take the lock and put right what a dead writer left; commit and give the lock
 * back. Errors: ABB_ESTORE.
 */
apr_status_t abb_segment_lock(abb_segment_t *engine, abb_error_t *err);
void abb_segment_unlock(abb_segment_t *engine);

/*
 * As abb_segment_lock, but without waiting. Errors: also ABB_ECHANGED when a
 * writer is at work.
 */
apr_status_t abb_segment_trylock(abb_segment_t *engine, abb_error_t *err);

/* Change a word of the segment, so that it is put back if this writer dies before the commit. */
void abb_segment_set32_locked(abb_segment_t *engine, apr_uint32_t *place, apr_uint32_t value);
void abb_segment_set64_locked(abb_segment_t *engine, void *place, apr_uint64_t value);

/* The end of a step: what was changed stays. */
void abb_segment_commit_locked(abb_segment_t *engine);

/*
 * Between these two, readers of a bucket do not believe what they see. The lock
 * is held. Never nested: buckets share counts, and a second beginning would make
 * the count even.
 */
void abb_segment_begin_change(abb_segment_t *engine, apr_uint32_t bucket);
void abb_segment_end_change(abb_segment_t *engine, apr_uint32_t bucket);

/* The count that a bucket belongs to. */
apr_uint32_t *abb_segment_sequence_of(abb_segment_t *engine, apr_uint32_t bucket);

/* ---- links; the lock is held --------------------------------------------- */

/* Blocks: take so many in one chain (they are there), or give a chain back. */
apr_uint32_t abb_segment_take_chain_locked(abb_segment_t *engine, apr_uint32_t count);
void abb_segment_free_chain_locked(abb_segment_t *engine, apr_uint32_t first);

/*
 * The list by use. A record goes into it before the one that is touched more
 * recently, or with 0 to the end of the most recent.
 */
void abb_segment_list_remove_locked(abb_segment_t *engine, apr_uint32_t number);
void abb_segment_list_insert_locked(abb_segment_t *engine, apr_uint32_t number, apr_uint32_t newer);

/* The chain of a bucket. */
void abb_segment_bucket_insert_locked(abb_segment_t *engine, apr_uint32_t bucket,
                                      apr_uint32_t number);
void abb_segment_bucket_remove_locked(abb_segment_t *engine, apr_uint32_t bucket,
                                      apr_uint32_t number);

/* The lists of limits. A record goes into the one of its earlier limit, or as late as there is. */
void abb_segment_due_insert_locked(abb_segment_t *engine, apr_uint32_t number);
void abb_segment_due_remove_locked(abb_segment_t *engine, apr_uint32_t number);

/* ---- records; the lock is held ------------------------------------------- */

/*
 * Make a filled chain a record, in the list before `newer` (0: the most recent).
 * The caller keeps readers of the bucket away and commits.
 */
void abb_segment_insert_locked(abb_segment_t *engine, apr_uint32_t bucket, apr_uint32_t number,
                               apr_uint32_t newer);

/* The reverse; the blocks are free then. The caller keeps readers away and commits. */
void abb_segment_remove_locked(abb_segment_t *engine, apr_uint32_t bucket, apr_uint32_t number);

/* Write both parts of a record into its chain, which no reader can reach. */
void abb_segment_write_parts(const abb_segment_t *engine, record_block_t *record, const void *open,
                             apr_size_t open_size, const void *sealed, apr_size_t sealed_size);

#endif
