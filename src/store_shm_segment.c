/* store_shm (floor 2): layout, lock and links of the segment. See store_shm_segment.h. */
#include "store_shm_segment.h"

#include <apr_strings.h>
#include <string.h>

#define MAGIC 0x3142424153544f52ULL
#define LAYOUT_VERSION 1

/* ---- layout -------------------------------------------------------------- */

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

void abb_segment_attach(abb_segment_t *engine, void *segment)
{
    engine->header = segment;
    engine->buckets = (apr_uint32_t *)(void *)((char *)segment + engine->header->bucket_offset);
    engine->blocks = (char *)segment + engine->header->block_offset;
}

static void free_all(abb_segment_t *engine)
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
    abb_segment_t engine;

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
    abb_segment_attach(&engine, segment);
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

/* ---- keys and chains ----------------------------------------------------- */

apr_uint32_t abb_segment_bucket_of(const abb_segment_t *engine, const abb_store_key_t *key)
{
    apr_uint64_t word;

    memcpy(&word, key->bytes, sizeof(word));
    word = (word ^ engine->header->seed) * 0x9e3779b97f4a7c15ULL;
    return (apr_uint32_t)((word >> 32) % engine->header->bucket_count);
}

apr_uint32_t abb_segment_bucket_of_record(const abb_segment_t *engine, const record_block_t *record)
{
    abb_store_key_t key;

    memcpy(key.bytes, record->key, sizeof(key.bytes));
    return abb_segment_bucket_of(engine, &key);
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
apr_uint32_t abb_segment_find(const abb_segment_t *engine, apr_uint32_t bucket,
                              const abb_store_key_t *key)
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

apr_time_t abb_segment_end_of(const record_block_t *record)
{
    apr_int64_t idle = LOAD(record->idle);
    apr_int64_t expires_at = LOAD(record->expires_at);
    apr_int64_t idle_end = LOAD(record->last_seen) + idle;

    return idle && idle_end < expires_at ? idle_end : expires_at;
}

int abb_segment_is_living(const record_block_t *record, apr_time_t now)
{
    return now < abb_segment_end_of(record);
}

apr_uint32_t abb_segment_blocks_for(const abb_store_record_t *record)
{
    apr_size_t words = (round_up(record->open_size, 8) + round_up(record->sealed_size, 8)) / 8;

    return (apr_uint32_t)(words <= RECORD_WORDS
                              ? 1
                              : 1 + (words - RECORD_WORDS + BYTES_WORDS - 1) / BYTES_WORDS);
}

/* ---- the lock and the mark ----------------------------------------------- */

static void mark_writing(abb_segment_t *engine, apr_uint32_t writing)
{
    __atomic_store_n(&engine->header->writing, writing, __ATOMIC_SEQ_CST);
}

static apr_status_t lock_failed(apr_status_t status, abb_error_t *err)
{
    char reason[100];

    return abb_error_set(err, ABB_ESTORE, "the lock of the session store failed: %s",
                         apr_strerror(status, reason, sizeof(reason)));
}

/* The lock is held: repair what a dead writer left, and set the mark. */
static apr_status_t begin_writing(abb_segment_t *engine)
{
    if (engine->header->writing) {
        abb_segment_repair(engine);
    }
    mark_writing(engine, 1);
    return APR_SUCCESS;
}

apr_status_t abb_segment_lock(abb_segment_t *engine, abb_error_t *err)
{
    apr_status_t status = apr_global_mutex_lock(engine->lock);

    return status == APR_SUCCESS ? begin_writing(engine) : lock_failed(status, err);
}

apr_status_t abb_segment_trylock(abb_segment_t *engine, abb_error_t *err)
{
    apr_status_t status = apr_global_mutex_trylock(engine->lock);

    if (APR_STATUS_IS_EBUSY(status)) {
        return ABB_ECHANGED;
    }
    return status == APR_SUCCESS ? begin_writing(engine) : lock_failed(status, err);
}

void abb_segment_unlock(abb_segment_t *engine)
{
    mark_writing(engine, 0);
    apr_global_mutex_unlock(engine->lock);
}

apr_uint32_t *abb_segment_sequence_of(abb_segment_t *engine, apr_uint32_t bucket)
{
    return &engine->header->sequences[bucket % SEQUENCES];
}

/* From here on until end_change, readers of this bucket do not believe what they see. */
void abb_segment_begin_change(abb_segment_t *engine, apr_uint32_t bucket)
{
    apr_uint32_t *sequence = abb_segment_sequence_of(engine, bucket);

    SET(*sequence, LOAD(*sequence) + 1);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void abb_segment_end_change(abb_segment_t *engine, apr_uint32_t bucket)
{
    apr_uint32_t *sequence = abb_segment_sequence_of(engine, bucket);

    __atomic_store_n(sequence, LOAD(*sequence) + 1, __ATOMIC_RELEASE);
}

/* ---- lists; the lock is held --------------------------------------------- */

/* Make `older` and `newer` (0: an end of the list) neighbours. */
static void join_locked(abb_segment_t *engine, apr_uint32_t older, apr_uint32_t newer)
{
    SET(*(older ? &record_at(engine, older)->newer : &engine->header->oldest), newer);
    SET(*(newer ? &record_at(engine, newer)->older : &engine->header->newest), older);
}

void abb_segment_list_remove_locked(abb_segment_t *engine, apr_uint32_t number)
{
    const record_block_t *record = record_at(engine, number);

    join_locked(engine, record->older, record->newer);
}

void abb_segment_list_insert_locked(abb_segment_t *engine, apr_uint32_t number, apr_uint32_t newer)
{
    apr_uint32_t older = newer ? record_at(engine, newer)->older : engine->header->newest;

    join_locked(engine, older, number);
    join_locked(engine, number, newer);
}

void abb_segment_bucket_insert_locked(abb_segment_t *engine, apr_uint32_t bucket,
                                      apr_uint32_t number)
{
    SET(record_at(engine, number)->bucket_next, engine->buckets[bucket]);
    SET(engine->buckets[bucket], number);
}

void abb_segment_bucket_remove_locked(abb_segment_t *engine, apr_uint32_t bucket,
                                      apr_uint32_t number)
{
    apr_uint32_t *link = &engine->buckets[bucket];

    while (*link && *link != number) {
        link = &record_at(engine, *link)->bucket_next;
    }
    if (*link) {
        SET(*link, record_at(engine, number)->bucket_next);
    }
}
