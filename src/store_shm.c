/*
 * store_shm (floor 2): the store contract on a shared memory segment.
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
#include "abb_store_shm.h"

#include <apr_strings.h>
#include <apr_thread_proc.h>
#include <stddef.h>
#include <string.h>

#define MAGIC 0x3142424153544f52ULL
#define LAYOUT_VERSION 1

#define BLOCK_SIZE 256
#define SEQUENCES 1024
#define READ_ATTEMPTS 128
/* How many records a put looks at in search of expired ones. */
#define SWEEP_LENGTH 8
/* The same when the store is full and something living would have to go. */
#define SWEEP_LENGTH_FULL 256

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
    apr_uint64_t words[(BLOCK_SIZE - 8 - ABB_STORE_KEY_SIZE - 6 * 4 - 6 * 8) / 8];
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
    apr_uint64_t next_holder;
    apr_uint64_t next_generation;
    apr_uint64_t hits;
    apr_uint64_t misses;
    apr_uint64_t evictions;
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
} engine_t;

/* What both sides of the lock-free path use: relaxed and atomic, ordered by the counts. */
#define LOAD(place) __atomic_load_n(&(place), __ATOMIC_RELAXED)
#define SET(place, value) __atomic_store_n(&(place), (value), __ATOMIC_RELAXED)
#define COUNT(place) __atomic_fetch_add(&(place), 1, __ATOMIC_RELAXED)

/* ---- layout ------------------------------------------------------------- */

static apr_uint64_t round_up(apr_uint64_t size, apr_uint64_t unit)
{
    return (size + unit - 1) / unit * unit;
}

/* One bucket for every four blocks: a session takes about that many. */
static void plan(header_t *header, apr_uint64_t size)
{
    apr_uint64_t blocks = (size - round_up(sizeof(*header), BLOCK_SIZE)) / (BLOCK_SIZE + 1);

    header->bucket_count = (apr_uint32_t)(blocks / 4);
    header->bucket_offset = round_up(sizeof(*header), BLOCK_SIZE);
    header->block_offset =
        round_up(header->bucket_offset + header->bucket_count * sizeof(apr_uint32_t), BLOCK_SIZE);
    header->block_count = (apr_uint32_t)((size - header->block_offset) / BLOCK_SIZE);
}

static void attach(engine_t *engine, void *segment)
{
    engine->header = segment;
    engine->buckets = (apr_uint32_t *)(void *)((char *)segment + engine->header->bucket_offset);
    engine->blocks = (char *)segment + engine->header->block_offset;
}

static void *block_at(const engine_t *engine, apr_uint32_t number)
{
    return engine->blocks + (apr_size_t)(number - 1) * BLOCK_SIZE;
}

static record_block_t *record_at(const engine_t *engine, apr_uint32_t number)
{
    return block_at(engine, number);
}

static int is_block(const engine_t *engine, apr_uint32_t number)
{
    return number >= 1 && number <= engine->header->block_count;
}

static void free_all(engine_t *engine)
{
    header_t *header = engine->header;

    for (apr_uint32_t i = 1; i <= header->block_count; ++i) {
        block_head_t *head = block_at(engine, i);

        head->kind = BLOCK_FREE;
        head->next = i < header->block_count ? i + 1 : 0;
    }
    header->first_free = 1;
    header->free_count = header->block_count;
}

apr_status_t abb_store_shm_format(void *segment, apr_size_t size, apr_uint64_t seed)
{
    header_t *header = segment;
    engine_t engine;

    if (size < ABB_STORE_SHM_MIN || size > ABB_STORE_SHM_MAX) {
        return APR_EINVAL;
    }
    memset(header, 0, sizeof(*header));
    plan(header, size);
    header->layout_version = LAYOUT_VERSION;
    header->size = size;
    header->seed = seed;
    header->next_holder = 1;
    header->next_generation = 1;
    attach(&engine, segment);
    memset(engine.buckets, 0, header->bucket_count * sizeof(apr_uint32_t));
    free_all(&engine);
    header->magic = MAGIC;
    return APR_SUCCESS;
}

int abb_store_shm_is_formatted(const void *segment, apr_size_t size)
{
    const header_t *header = segment;
    header_t expected;

    if (size < ABB_STORE_SHM_MIN || header->magic != MAGIC ||
        header->layout_version != LAYOUT_VERSION || header->size != size) {
        return 0;
    }
    memset(&expected, 0, sizeof(expected));
    plan(&expected, size);
    return header->bucket_count == expected.bucket_count &&
           header->bucket_offset == expected.bucket_offset &&
           header->block_offset == expected.block_offset &&
           header->block_count == expected.block_count;
}

/* ---- keys and chains --------------------------------------------------------- */

static apr_uint32_t bucket_of(const engine_t *engine, const abb_store_key_t *key)
{
    apr_uint64_t word;

    memcpy(&word, key->bytes, sizeof(word));
    word = (word ^ engine->header->seed) * 0x9e3779b97f4a7c15ULL;
    return (apr_uint32_t)((word >> 32) % engine->header->bucket_count);
}

static apr_uint32_t bucket_of_record(const engine_t *engine, const record_block_t *record)
{
    abb_store_key_t key;

    memcpy(key.bytes, record->key, sizeof(key.bytes));
    return bucket_of(engine, &key);
}

static int has_key(const record_block_t *record, const abb_store_key_t *key)
{
    apr_uint64_t words[ABB_STORE_KEY_SIZE / 8];

    memcpy(words, key->bytes, sizeof(words));
    return LOAD(record->key[0]) == words[0] && LOAD(record->key[1]) == words[1] &&
           LOAD(record->key[2]) == words[2] && LOAD(record->key[3]) == words[3];
}

/*
 * The record with a key, or 0. Safe without the lock: every link is checked and
 * the walk is bounded, what it finds must then be confirmed by the count.
 */
static apr_uint32_t find(const engine_t *engine, apr_uint32_t bucket, const abb_store_key_t *key)
{
    apr_uint32_t number = LOAD(engine->buckets[bucket]);
    apr_uint32_t steps = engine->header->block_count;

    while (is_block(engine, number) && steps-- > 0) {
        const record_block_t *record = record_at(engine, number);

        if (has_key(record, key)) {
            return number;
        }
        number = LOAD(record->bucket_next);
    }
    return 0;
}

static int is_living(const record_block_t *record, apr_time_t now)
{
    apr_int64_t idle = LOAD(record->idle);

    return now < LOAD(record->expires_at) && (idle == 0 || now < LOAD(record->last_seen) + idle);
}

/* ---- the lock and the mark ------------------------------------------------------ */

static void repair(engine_t *engine);

static void mark_writing(engine_t *engine, apr_uint32_t writing)
{
    __atomic_store_n(&engine->header->writing, writing, __ATOMIC_SEQ_CST);
}

static apr_status_t lock_store(engine_t *engine, abb_error_t *err)
{
    apr_status_t status = apr_global_mutex_lock(engine->lock);
    char reason[100];

    if (status != APR_SUCCESS) {
        return abb_error_set(err, ABB_ESTORE, "the lock of the session store failed: %s",
                             apr_strerror(status, reason, sizeof(reason)));
    }
    if (engine->header->writing) {
        repair(engine);
    }
    mark_writing(engine, 1);
    return APR_SUCCESS;
}

static void unlock_store(engine_t *engine)
{
    mark_writing(engine, 0);
    apr_global_mutex_unlock(engine->lock);
}

static apr_uint32_t *sequence_of(engine_t *engine, apr_uint32_t bucket)
{
    return &engine->header->sequences[bucket % SEQUENCES];
}

/* From here on until end_change, readers of this bucket do not believe what they see. */
static void begin_change(engine_t *engine, apr_uint32_t bucket)
{
    apr_uint32_t *sequence = sequence_of(engine, bucket);

    SET(*sequence, LOAD(*sequence) + 1);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void end_change(engine_t *engine, apr_uint32_t bucket)
{
    apr_uint32_t *sequence = sequence_of(engine, bucket);

    __atomic_store_n(sequence, LOAD(*sequence) + 1, __ATOMIC_RELEASE);
}

/* ---- lists; the lock is held ------------------------------------------------------ */

static void list_remove_locked(engine_t *engine, apr_uint32_t number)
{
    record_block_t *record = record_at(engine, number);

    if (record->older) {
        record_at(engine, record->older)->newer = record->newer;
    }
    else {
        engine->header->oldest = record->newer;
    }
    if (record->newer) {
        record_at(engine, record->newer)->older = record->older;
    }
    else {
        engine->header->newest = record->older;
    }
}

static void list_append_locked(engine_t *engine, apr_uint32_t number)
{
    record_block_t *record = record_at(engine, number);

    record->older = engine->header->newest;
    record->newer = 0;
    if (record->older) {
        record_at(engine, record->older)->newer = number;
    }
    else {
        engine->header->oldest = number;
    }
    engine->header->newest = number;
}

static void bucket_insert_locked(engine_t *engine, apr_uint32_t bucket, apr_uint32_t number)
{
    SET(record_at(engine, number)->bucket_next, engine->buckets[bucket]);
    SET(engine->buckets[bucket], number);
}

static void bucket_remove_locked(engine_t *engine, apr_uint32_t bucket, apr_uint32_t number)
{
    apr_uint32_t *link = &engine->buckets[bucket];

    while (*link && *link != number) {
        link = &record_at(engine, *link)->bucket_next;
    }
    if (*link) {
        SET(*link, record_at(engine, number)->bucket_next);
    }
}

static void free_chain_locked(engine_t *engine, apr_uint32_t number)
{
    header_t *header = engine->header;

    while (number) {
        block_head_t *head = block_at(engine, number);
        apr_uint32_t next = head->next;

        SET(head->kind, BLOCK_FREE);
        SET(head->next, header->first_free);
        header->first_free = number;
        ++header->free_count;
        number = next;
    }
}

static apr_uint32_t take_block_locked(engine_t *engine)
{
    header_t *header = engine->header;
    apr_uint32_t number = header->first_free;

    if (number) {
        header->first_free = ((block_head_t *)block_at(engine, number))->next;
        --header->free_count;
    }
    return number;
}

static void remove_record_locked(engine_t *engine, apr_uint32_t number)
{
    record_block_t *record = record_at(engine, number);
    apr_uint32_t bucket = bucket_of_record(engine, record);

    begin_change(engine, bucket);
    SET(record->head.kind, BLOCK_BYTES);
    bucket_remove_locked(engine, bucket, number);
    list_remove_locked(engine, number);
    free_chain_locked(engine, number);
    --engine->header->record_count;
    end_change(engine, bucket);
}

/* ---- room for more; the lock is held ------------------------------------------------ */

static void sweep_bucket_locked(engine_t *engine, apr_uint32_t bucket, apr_time_t now)
{
    apr_uint32_t number = engine->buckets[bucket];

    while (number) {
        record_block_t *record = record_at(engine, number);
        apr_uint32_t next = record->bucket_next;

        if (!is_living(record, now)) {
            remove_record_locked(engine, number);
            COUNT(engine->header->expired);
        }
        number = next;
    }
}

/* Remove expired records of the next buckets; a hand goes round over all of them. */
static void sweep_locked(engine_t *engine, apr_uint32_t buckets, apr_time_t now)
{
    header_t *header = engine->header;

    while (buckets-- > 0) {
        header->sweep_bucket = (header->sweep_bucket + 1) % header->bucket_count;
        sweep_bucket_locked(engine, header->sweep_bucket, now);
    }
}

static void make_room_locked(engine_t *engine, apr_uint32_t blocks, apr_uint32_t spared,
                             apr_time_t now)
{
    header_t *header = engine->header;

    sweep_locked(engine, SWEEP_LENGTH, now);
    if (header->free_count < blocks) {
        sweep_locked(engine, SWEEP_LENGTH_FULL, now);
    }
    while (header->free_count < blocks) {
        apr_uint32_t victim = header->oldest;

        if (victim == spared) {
            victim = record_at(engine, victim)->newer;
        }
        if (!victim) {
            return;
        }
        COUNT(*(is_living(record_at(engine, victim), now) ? &header->evictions
                                                          : &header->expired));
        remove_record_locked(engine, victim);
    }
}

/* ---- bytes in and out ----------------------------------------------------------- */

static apr_uint64_t word_at(const char *bytes, apr_size_t size, apr_size_t at)
{
    apr_uint64_t word = 0;

    memcpy(&word, bytes + at, size - at < sizeof(word) ? size - at : sizeof(word));
    return word;
}

/* A place in a chain of blocks. */
typedef struct {
    const engine_t *engine;
    block_head_t *block;
    apr_uint64_t *words;
    apr_size_t left;
} cursor_t;

static cursor_t cursor_at_start(const engine_t *engine, record_block_t *record)
{
    cursor_t cursor = {engine, &record->head, record->words, RECORD_WORDS};

    return cursor;
}

/* Where the next word goes or comes from, or NULL when the chain is broken. */
static apr_uint64_t *cursor_next(cursor_t *cursor)
{
    if (cursor->left == 0) {
        apr_uint32_t next = LOAD(cursor->block->next);
        bytes_block_t *block;

        if (!is_block(cursor->engine, next)) {
            return NULL;
        }
        block = block_at(cursor->engine, next);
        cursor->block = &block->head;
        cursor->words = block->words;
        cursor->left = BYTES_WORDS;
    }
    --cursor->left;
    return cursor->words++;
}

static void write_part(cursor_t *cursor, const void *bytes, apr_size_t size)
{
    for (apr_size_t at = 0; at < size; at += 8) {
        apr_uint64_t *place = cursor_next(cursor);

        SET(*place, word_at(bytes, size, at));
    }
}

static int read_part(cursor_t *cursor, apr_uint64_t *out, apr_size_t size)
{
    for (apr_size_t i = 0; i < round_up(size, 8) / 8; ++i) {
        apr_uint64_t *place = cursor_next(cursor);

        if (!place) {
            return 0;
        }
        out[i] = LOAD(*place);
    }
    return 1;
}

static apr_uint32_t blocks_for(const abb_store_record_t *record)
{
    apr_size_t words = (round_up(record->open_size, 8) + round_up(record->sealed_size, 8)) / 8;

    return (apr_uint32_t)(words <= RECORD_WORDS
                              ? 1
                              : 1 + (words - RECORD_WORDS + BYTES_WORDS - 1) / BYTES_WORDS);
}

static apr_uint32_t build_chain_locked(engine_t *engine, apr_uint32_t count)
{
    apr_uint32_t first = 0;

    while (count-- > 0) {
        apr_uint32_t number = take_block_locked(engine);
        block_head_t *head = block_at(engine, number);

        SET(head->kind, BLOCK_BYTES);
        SET(head->next, first);
        first = number;
    }
    return first;
}

/* Fill a chain that no reader can reach yet. */
static void fill_record_locked(engine_t *engine, apr_uint32_t number, const abb_store_key_t *key,
                               const abb_store_record_t *in, apr_time_t now)
{
    record_block_t *record = record_at(engine, number);
    cursor_t cursor = cursor_at_start(engine, record);

    for (apr_size_t i = 0; i < ABB_STORE_KEY_SIZE / 8; ++i) {
        SET(record->key[i], word_at((const char *)key->bytes, ABB_STORE_KEY_SIZE, 8 * i));
    }
    SET(record->open_size, (apr_uint32_t)in->open_size);
    SET(record->sealed_size, (apr_uint32_t)in->sealed_size);
    SET(record->block_count, blocks_for(in));
    SET(record->expires_at, in->expires_at);
    SET(record->idle, in->idle);
    SET(record->last_seen, now);
    SET(record->generation, engine->header->next_generation++);
    SET(record->leased_until, 0);
    SET(record->lease_holder, 0);
    write_part(&cursor, in->open, in->open_size);
    write_part(&cursor, in->sealed, in->sealed_size);
}

/* Make a filled chain a record; from the kind on it survives a repair. */
static void insert_record_locked(engine_t *engine, apr_uint32_t bucket, apr_uint32_t number)
{
    __atomic_store_n(&record_at(engine, number)->head.kind, BLOCK_RECORD, __ATOMIC_SEQ_CST);
    bucket_insert_locked(engine, bucket, number);
    list_append_locked(engine, number);
    ++engine->header->record_count;
}

static apr_status_t check_size(const engine_t *engine, const abb_store_record_t *record,
                               abb_error_t *err)
{
    apr_size_t size = record->open_size + record->sealed_size;

    if (size > ABB_STORE_RECORD_MAX || blocks_for(record) > engine->header->block_count / 4) {
        return abb_error_set(err, ABB_ESTORE,
                             "a record of %" APR_SIZE_T_FMT
                             " bytes is too large for the session store",
                             size);
    }
    return APR_SUCCESS;
}

static void read_head(const record_block_t *record, abb_store_record_t *out)
{
    out->open_size = LOAD(record->open_size);
    out->sealed_size = LOAD(record->sealed_size);
    out->expires_at = LOAD(record->expires_at);
    out->idle = LOAD(record->idle);
    out->last_seen = LOAD(record->last_seen);
    out->generation = LOAD(record->generation);
    out->open = NULL;
    out->sealed = NULL;
}

/* What a get asks for, and its memory, used again when the first look was spoilt. */
typedef struct {
    const abb_store_key_t *key;
    abb_store_parts_t parts;
    apr_time_t now;
    apr_pool_t *pool;
    apr_uint64_t *words;
    apr_size_t capacity;
} query_t;

static apr_uint64_t *query_words(query_t *query, apr_size_t size)
{
    if (size > query->capacity) {
        query->capacity = size;
        query->words = apr_palloc(query->pool, size);
    }
    return query->words;
}

static apr_status_t read_record(const engine_t *engine, record_block_t *record, query_t *query,
                                abb_store_record_t *out)
{
    cursor_t cursor = cursor_at_start(engine, record);
    apr_size_t open_room;
    apr_size_t sealed_room;
    apr_uint64_t *words;

    read_head(record, out);
    if (out->open_size > ABB_STORE_RECORD_MAX || out->sealed_size > ABB_STORE_RECORD_MAX) {
        return ABB_ECHANGED;
    }
    open_room = round_up(out->open_size, 8);
    sealed_room = query->parts == ABB_STORE_BOTH_PARTS ? round_up(out->sealed_size, 8) : 0;
    words = query_words(query, open_room + sealed_room + 8);
    if (!read_part(&cursor, words, open_room) ||
        !read_part(&cursor, words + open_room / 8, sealed_room)) {
        return ABB_ECHANGED;
    }
    out->open = words;
    out->sealed = sealed_room ? words + open_room / 8 : NULL;
    return APR_SUCCESS;
}

/* ---- get ------------------------------------------------------------------------- */

static apr_status_t look_up(const engine_t *engine, apr_uint32_t bucket, query_t *query,
                            abb_store_record_t *record)
{
    apr_uint32_t number = find(engine, bucket, query->key);

    if (!number || !is_living(record_at(engine, number), query->now)) {
        return APR_NOTFOUND;
    }
    return read_record(engine, record_at(engine, number), query, record);
}

/* Read without the lock. ABB_ECHANGED: writers were in the way all the time. */
static apr_status_t get_unlocked(engine_t *engine, apr_uint32_t bucket, query_t *query,
                                 abb_store_record_t *record)
{
    const apr_uint32_t *sequence = sequence_of(engine, bucket);

    for (int i = 0; i < READ_ATTEMPTS; ++i) {
        apr_uint32_t before = __atomic_load_n(sequence, __ATOMIC_ACQUIRE);

        if (!(before & 1)) {
            apr_status_t status = look_up(engine, bucket, query, record);

            __atomic_thread_fence(__ATOMIC_ACQUIRE);
            if (LOAD(*sequence) == before && status != ABB_ECHANGED) {
                return status;
            }
        }
        if (i > READ_ATTEMPTS / 2) {
            apr_thread_yield();
        }
    }
    return ABB_ECHANGED;
}

static apr_status_t shm_get(void *self, const abb_store_key_t *key, abb_store_parts_t parts,
                            apr_time_t now, abb_store_record_t *record, apr_pool_t *p,
                            abb_error_t *err)
{
    engine_t *engine = self;
    apr_uint32_t bucket = bucket_of(engine, key);
    query_t query = {key, parts, now, p, NULL, 0};
    apr_status_t status = get_unlocked(engine, bucket, &query, record);

    if (status == ABB_ECHANGED) {
        if ((status = lock_store(engine, err)) != APR_SUCCESS) {
            return status;
        }
        status = look_up(engine, bucket, &query, record);
        unlock_store(engine);
    }
    COUNT(*(status == APR_SUCCESS ? &engine->header->hits : &engine->header->misses));
    if (status == ABB_ECHANGED) {
        return abb_error_set(err, ABB_ESTORE, "a record of the session store is damaged");
    }
    return status;
}

/* ---- writers ------------------------------------------------------------------------ */

static apr_status_t put_locked(engine_t *engine, const abb_store_key_t *key,
                               const abb_store_record_t *record, apr_time_t now)
{
    apr_uint32_t bucket = bucket_of(engine, key);
    apr_uint32_t blocks = blocks_for(record);
    apr_uint32_t number = find(engine, bucket, key);

    if (number && is_living(record_at(engine, number), now)) {
        return APR_EEXIST;
    }
    if (number) {
        remove_record_locked(engine, number);
        COUNT(engine->header->expired);
    }
    make_room_locked(engine, blocks, 0, now);
    number = build_chain_locked(engine, blocks);
    fill_record_locked(engine, number, key, record, now);
    begin_change(engine, bucket);
    insert_record_locked(engine, bucket, number);
    end_change(engine, bucket);
    return APR_SUCCESS;
}

static apr_status_t shm_put(void *self, const abb_store_key_t *key,
                            const abb_store_record_t *record, apr_time_t now, abb_error_t *err)
{
    engine_t *engine = self;
    apr_status_t status = check_size(engine, record, err);

    if (status != APR_SUCCESS || (status = lock_store(engine, err)) != APR_SUCCESS) {
        return status;
    }
    status = put_locked(engine, key, record, now);
    unlock_store(engine);
    return status;
}

static void carry_over(const record_block_t *old, record_block_t *record)
{
    SET(record->last_seen, old->last_seen);
    SET(record->leased_until, old->leased_until);
    SET(record->lease_holder, old->lease_holder);
}

static apr_status_t replace_locked(engine_t *engine, const abb_store_key_t *key,
                                   apr_uint64_t generation, const abb_store_record_t *record,
                                   apr_time_t now)
{
    apr_uint32_t bucket = bucket_of(engine, key);
    apr_uint32_t blocks = blocks_for(record);
    apr_uint32_t old = find(engine, bucket, key);
    apr_uint32_t number;

    if (!old || !is_living(record_at(engine, old), now)) {
        return APR_NOTFOUND;
    }
    if (record_at(engine, old)->generation != generation) {
        return ABB_ECHANGED;
    }
    make_room_locked(engine, blocks, old, now);
    number = build_chain_locked(engine, blocks);
    fill_record_locked(engine, number, key, record, now);
    carry_over(record_at(engine, old), record_at(engine, number));
    /* The new one counts before the old one goes: a death in between loses neither. */
    begin_change(engine, bucket);
    insert_record_locked(engine, bucket, number);
    end_change(engine, bucket);
    remove_record_locked(engine, old);
    return APR_SUCCESS;
}

static apr_status_t shm_replace(void *self, const abb_store_key_t *key, apr_uint64_t generation,
                                const abb_store_record_t *record, apr_time_t now, abb_error_t *err)
{
    engine_t *engine = self;
    apr_status_t status = check_size(engine, record, err);

    if (status != APR_SUCCESS || (status = lock_store(engine, err)) != APR_SUCCESS) {
        return status;
    }
    status = replace_locked(engine, key, generation, record, now);
    unlock_store(engine);
    return status;
}

/* The living record with a key, or NULL. */
static record_block_t *find_living_locked(engine_t *engine, const abb_store_key_t *key,
                                          apr_time_t now)
{
    apr_uint32_t number = find(engine, bucket_of(engine, key), key);

    return number && is_living(record_at(engine, number), now) ? record_at(engine, number) : NULL;
}

static apr_status_t touch_locked(engine_t *engine, const abb_store_key_t *key, apr_time_t now)
{
    record_block_t *record = find_living_locked(engine, key, now);

    if (!record) {
        return APR_NOTFOUND;
    }
    if (now > record->last_seen) {
        apr_uint32_t number = find(engine, bucket_of(engine, key), key);

        SET(record->last_seen, now);
        list_remove_locked(engine, number);
        list_append_locked(engine, number);
    }
    return APR_SUCCESS;
}

static apr_status_t shm_touch(void *self, const abb_store_key_t *key, apr_time_t now,
                              abb_error_t *err)
{
    engine_t *engine = self;
    apr_status_t status = apr_global_mutex_trylock(engine->lock);

    if (status != APR_SUCCESS) {
        return APR_STATUS_IS_EBUSY(status)
                   ? ABB_ECHANGED
                   : abb_error_set(err, ABB_ESTORE, "the lock of the session store failed");
    }
    if (engine->header->writing) {
        repair(engine);
    }
    mark_writing(engine, 1);
    status = touch_locked(engine, key, now);
    unlock_store(engine);
    return status;
}

static apr_status_t lease_locked(engine_t *engine, const abb_store_key_t *key,
                                 apr_interval_time_t duration, apr_time_t now, apr_uint64_t *holder)
{
    record_block_t *record = find_living_locked(engine, key, now);

    if (!record) {
        return APR_NOTFOUND;
    }
    if (record->lease_holder && now < record->leased_until) {
        return ABB_ECHANGED;
    }
    *holder = engine->header->next_holder++;
    record->lease_holder = *holder;
    record->leased_until = now + duration;
    return APR_SUCCESS;
}

static apr_status_t shm_lease(void *self, const abb_store_key_t *key, apr_interval_time_t duration,
                              apr_time_t now, apr_uint64_t *holder, abb_error_t *err)
{
    engine_t *engine = self;
    apr_status_t status = lock_store(engine, err);

    if (status == APR_SUCCESS) {
        status = lease_locked(engine, key, duration, now, holder);
        unlock_store(engine);
    }
    return status;
}

static apr_status_t release_locked(engine_t *engine, const abb_store_key_t *key,
                                   apr_uint64_t holder)
{
    apr_uint32_t number = find(engine, bucket_of(engine, key), key);

    if (!number) {
        return APR_NOTFOUND;
    }
    if (record_at(engine, number)->lease_holder != holder) {
        return ABB_ECHANGED;
    }
    record_at(engine, number)->lease_holder = 0;
    record_at(engine, number)->leased_until = 0;
    return APR_SUCCESS;
}

static apr_status_t shm_release(void *self, const abb_store_key_t *key, apr_uint64_t holder,
                                abb_error_t *err)
{
    engine_t *engine = self;
    apr_status_t status = lock_store(engine, err);

    if (status == APR_SUCCESS) {
        status = release_locked(engine, key, holder);
        unlock_store(engine);
    }
    return status;
}

static apr_status_t shm_drop(void *self, const abb_store_key_t *key, abb_error_t *err)
{
    engine_t *engine = self;
    apr_status_t status = lock_store(engine, err);
    apr_uint32_t number;

    if (status != APR_SUCCESS) {
        return status;
    }
    number = find(engine, bucket_of(engine, key), key);
    if (number) {
        remove_record_locked(engine, number);
    }
    unlock_store(engine);
    return number ? APR_SUCCESS : APR_NOTFOUND;
}

static void shm_figures(void *self, abb_store_figures_t *figures)
{
    const header_t *header = ((engine_t *)self)->header;

    figures->records = LOAD(header->record_count);
    figures->bytes_capacity = (apr_int64_t)header->block_count * BLOCK_SIZE;
    figures->bytes_used =
        figures->bytes_capacity - (apr_int64_t)LOAD(header->free_count) * BLOCK_SIZE;
    figures->hits = (apr_int64_t)LOAD(header->hits);
    figures->misses = (apr_int64_t)LOAD(header->misses);
    figures->evictions = (apr_int64_t)LOAD(header->evictions);
    figures->expired = (apr_int64_t)LOAD(header->expired);
    figures->recoveries = (apr_int64_t)LOAD(header->recoveries);
}

/* ---- repair --------------------------------------------------------------------------- */

/* Give back the first `count` blocks behind a record's own. */
static void disclaim_chain(engine_t *engine, apr_uint32_t number, apr_uint32_t count)
{
    block_head_t *head = block_at(engine, number);

    while (count-- > 0) {
        head = block_at(engine, head->next);
        head->kind = BLOCK_FREE;
    }
}

/* Claim a record's chain: as long as it says, of blocks nobody else has claimed. */
static int claim_chain(engine_t *engine, apr_uint32_t number)
{
    const record_block_t *record = record_at(engine, number);
    apr_uint32_t next = record->head.next;

    for (apr_uint32_t i = 1; i < record->block_count; ++i) {
        block_head_t *head = is_block(engine, next) ? block_at(engine, next) : NULL;

        if (!head || head->kind != BLOCK_FREE) {
            disclaim_chain(engine, number, i - 1);
            return 0;
        }
        head->kind = BLOCK_BYTES;
        next = head->next;
    }
    if (next != 0) {
        disclaim_chain(engine, number, record->block_count - 1);
    }
    return next == 0;
}

static int is_plausible(const engine_t *engine, const record_block_t *record)
{
    abb_store_record_t sizes;

    sizes.open_size = record->open_size;
    sizes.sealed_size = record->sealed_size;
    return sizes.open_size <= ABB_STORE_RECORD_MAX && sizes.sealed_size <= ABB_STORE_RECORD_MAX &&
           record->block_count == blocks_for(&sizes) &&
           record->block_count <= engine->header->block_count;
}

/* Undo adopt_record. */
static void disown_record(engine_t *engine, apr_uint32_t number)
{
    record_block_t *record = record_at(engine, number);

    bucket_remove_locked(engine, bucket_of_record(engine, record), number);
    list_remove_locked(engine, number);
    disclaim_chain(engine, number, record->block_count - 1);
    record->head.kind = BLOCK_FREE;
    --engine->header->record_count;
}

/* The record with the same key that was adopted before, or 0. */
static apr_uint32_t find_twin(engine_t *engine, const record_block_t *record)
{
    abb_store_key_t key;

    memcpy(key.bytes, record->key, sizeof(key.bytes));
    return find(engine, bucket_of(engine, &key), &key);
}

/* Put a record back into bucket and list; of two with one key the newer stays. */
static void adopt_record(engine_t *engine, apr_uint32_t number)
{
    record_block_t *record = record_at(engine, number);
    apr_uint32_t twin = find_twin(engine, record);

    if ((twin && record_at(engine, twin)->generation > record->generation) ||
        !claim_chain(engine, number)) {
        record->head.kind = BLOCK_FREE;
        return;
    }
    if (twin) {
        disown_record(engine, twin);
    }
    bucket_insert_locked(engine, bucket_of_record(engine, record), number);
    list_append_locked(engine, number);
    ++engine->header->record_count;
}

/* Forget all structure but the records themselves. */
static void forget_structure(engine_t *engine)
{
    header_t *header = engine->header;

    for (apr_uint32_t i = 0; i < header->bucket_count; ++i) {
        SET(engine->buckets[i], 0);
    }
    header->oldest = header->newest = 0;
    header->record_count = 0;
    for (apr_uint32_t i = 1; i <= header->block_count; ++i) {
        block_head_t *head = block_at(engine, i);

        if (head->kind != BLOCK_RECORD || !is_plausible(engine, block_at(engine, i))) {
            head->kind = BLOCK_FREE;
        }
    }
}

static void adopt_records(engine_t *engine)
{
    for (apr_uint32_t i = 1; i <= engine->header->block_count; ++i) {
        block_head_t *head = block_at(engine, i);

        if (head->kind == BLOCK_RECORD) {
            adopt_record(engine, i);
        }
    }
}

static void collect_free(engine_t *engine)
{
    header_t *header = engine->header;

    header->first_free = 0;
    header->free_count = 0;
    for (apr_uint32_t i = header->block_count; i >= 1; --i) {
        block_head_t *head = block_at(engine, i);

        if (head->kind == BLOCK_FREE) {
            head->next = header->first_free;
            header->first_free = i;
            ++header->free_count;
        }
    }
}

/*
 * A writer died. Rebuild all structure from the records that count. Readers are
 * kept away by odd counts; the lists are not in the order of use afterwards,
 * which costs nobody more than an early eviction.
 */
static void repair(engine_t *engine)
{
    header_t *header = engine->header;

    for (int i = 0; i < SEQUENCES; ++i) {
        SET(header->sequences[i], header->sequences[i] | 1);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    forget_structure(engine);
    adopt_records(engine);
    collect_free(engine);
    for (int i = 0; i < SEQUENCES; ++i) {
        __atomic_store_n(&header->sequences[i], header->sequences[i] + 1, __ATOMIC_RELEASE);
    }
    COUNT(header->recoveries);
}

void abb_store_shm_repair(const abb_store_t *store)
{
    engine_t *engine = store->engine;

    if (lock_store(engine, NULL) == APR_SUCCESS) {
        repair(engine);
        unlock_store(engine);
    }
}

/* ---- check -------------------------------------------------------------------------------- */

static const char *check_buckets(const engine_t *engine, apr_uint32_t *records, apr_uint32_t *blocks)
{
    for (apr_uint32_t bucket = 0; bucket < engine->header->bucket_count; ++bucket) {
        for (apr_uint32_t i = engine->buckets[bucket]; i; i = record_at(engine, i)->bucket_next) {
            const record_block_t *record = record_at(engine, i);
            apr_uint32_t length = 1;

            if (!is_block(engine, i) || record->head.kind != BLOCK_RECORD ||
                ++*records > engine->header->block_count) {
                return "a bucket leads to something that is no record";
            }
            if (bucket_of_record(engine, record) != bucket) {
                return "a record stands in a bucket that is not its own";
            }
            for (apr_uint32_t j = record->head.next; j; ++length) {
                const block_head_t *head = block_at(engine, j);

                if (!is_block(engine, j) || head->kind != BLOCK_BYTES ||
                    length > record->block_count) {
                    return "a record's chain is broken";
                }
                j = head->next;
            }
            if (length != record->block_count) {
                return "a record's chain has not the length it says";
            }
            *blocks += length;
        }
    }
    return NULL;
}

static const char *check_list(const engine_t *engine, apr_uint32_t records)
{
    apr_uint32_t before = 0;
    apr_uint32_t count = 0;

    for (apr_uint32_t i = engine->header->oldest; i; i = record_at(engine, i)->newer) {
        if (!is_block(engine, i) || record_at(engine, i)->older != before || ++count > records) {
            return "the list of records is broken";
        }
        before = i;
    }
    return before != engine->header->newest || count != records ? "the list of records has gaps"
                                                                : NULL;
}

static const char *check_free(const engine_t *engine, apr_uint32_t used)
{
    apr_uint32_t count = 0;

    for (apr_uint32_t i = engine->header->first_free; i;
         i = ((block_head_t *)block_at(engine, i))->next) {
        if (!is_block(engine, i) || ((block_head_t *)block_at(engine, i))->kind != BLOCK_FREE ||
            ++count > engine->header->block_count) {
            return "the free list is broken";
        }
    }
    return count != engine->header->free_count || count + used != engine->header->block_count
               ? "blocks are lost"
               : NULL;
}

const char *abb_store_shm_check(const abb_store_t *store)
{
    engine_t *engine = store->engine;
    apr_uint32_t records = 0;
    apr_uint32_t blocks = 0;
    const char *fault;

    if (lock_store(engine, NULL) != APR_SUCCESS) {
        return "the lock failed";
    }
    fault = check_buckets(engine, &records, &blocks);
    if (!fault && records != engine->header->record_count) {
        fault = "the number of records is wrong";
    }
    if (!fault) {
        fault = check_list(engine, records);
    }
    if (!fault) {
        fault = check_free(engine, blocks);
    }
    unlock_store(engine);
    return fault;
}

/* ---- opening ------------------------------------------------------------------------------- */

static const abb_store_methods_t methods = {shm_get,     shm_put,  shm_replace, shm_touch, shm_lease,
                                            shm_release, shm_drop, shm_figures};

apr_status_t abb_store_shm_open(const abb_store_t **store, void *segment, apr_size_t size,
                                apr_global_mutex_t *lock, apr_pool_t *p)
{
    engine_t *engine;

    if (!abb_store_shm_is_formatted(segment, size)) {
        return APR_EINVAL;
    }
    engine = apr_pcalloc(p, sizeof(*engine));
    attach(engine, segment);
    engine->lock = lock;
    engine->store.methods = &methods;
    engine->store.engine = engine;
    *store = &engine->store;
    return APR_SUCCESS;
}
