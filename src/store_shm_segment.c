/* store_shm (floor 2): layout, proofs, lock and journal. See store_shm_segment.h. */
#include "store_shm_segment.h"

#include <apr_siphash.h>
#include <apr_strings.h>
#include <apr_thread_proc.h>
#include <stddef.h>
#include <string.h>

#define MAGIC 0x3142424153544f52ULL
/* Changes with the layout of the segment and with that of what sessions put into it. */
#define LAYOUT_VERSION 4

/* How often a writer tries before it lets the kernel put it to sleep. */
#define LOCK_ATTEMPTS 40
/* How much of a record is fetched ahead. */
#define PREFETCH_LINES 10

/* ---- layout -------------------------------------------------------------- */

/* One bucket for every eight blocks: the smallest sessions take about that many. */
void abb_segment_plan(header_t *header, apr_uint64_t size)
{
    apr_uint64_t blocks = (size - round_up(sizeof(*header), BLOCK_SIZE)) / BLOCK_SIZE;

    header->bucket_count = (apr_uint32_t)(blocks / 8);
    header->bucket_offset = round_up(sizeof(*header), BLOCK_SIZE);
    header->block_offset =
        round_up(header->bucket_offset + header->bucket_count * sizeof(apr_uint32_t), BLOCK_SIZE);
    header->block_count = (apr_uint32_t)((size - header->block_offset) / BLOCK_SIZE);
}

int abb_segment_has_magic(const header_t *header)
{
    return header->magic == MAGIC;
}

int abb_segment_has_version(const header_t *header)
{
    return header->layout_version == LAYOUT_VERSION;
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

        head->kind = BLOCK_PLAIN;
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
    abb_segment_plan(header, size);
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

    if (size < ABB_STORE_SHM_MIN || !abb_segment_has_magic(header) ||
        !abb_segment_has_version(header) || header->size != size) {
        return 0;
    }
    abb_segment_plan(&expected, size);
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
    return (apr_uint32_t)(((word >> 32) * engine->header->bucket_count) >> 32);
}

apr_uint32_t abb_segment_bucket_of_record(const abb_segment_t *engine, const record_block_t *record)
{
    abb_store_key_t key;

    memcpy(key.bytes, record->key, sizeof(key.bytes));
    return abb_segment_bucket_of(engine, &key);
}

static int has_key(const record_block_t *record, const apr_uint64_t words[])
{
    return LOAD(record->key[0]) == words[0] && LOAD(record->key[1]) == words[1] &&
           LOAD(record->key[2]) == words[2] && LOAD(record->key[3]) == words[3];
}

/*
 * In a large store everything here is far away. Blocks of a record are mostly
 * neighbours, since a fresh segment is handed out in order and chains are kept
 * together: ask for what a session's open part usually takes all at once, not link
 * by link.
 */
void abb_segment_prefetch(const record_block_t *record)
{
    const char *block = (const char *)record;

    for (apr_size_t line = 0; line < PREFETCH_LINES; ++line) {
        __builtin_prefetch(block + line * CACHE_LINE);
    }
}

apr_uint32_t abb_segment_find(const abb_segment_t *engine, apr_uint32_t bucket,
                              const abb_store_key_t *key)
{
    apr_uint64_t words[ABB_STORE_KEY_SIZE / 8];
    apr_uint32_t number = LOAD(engine->buckets[bucket]);
    apr_uint32_t steps = engine->header->block_count;

    memcpy(words, key->bytes, sizeof(words));
    while (is_block(engine, number) && steps-- > 0) {
        const record_block_t *record = record_at(engine, number);

        abb_segment_prefetch(record);
        if (has_key(record, words)) {
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
    /* A reader may see anything here, before it learns that it must not believe it. */
    apr_int64_t idle_end =
        (apr_int64_t)((apr_uint64_t)LOAD(record->last_seen) + (apr_uint64_t)idle);

    return idle && idle_end < expires_at ? idle_end : expires_at;
}

int abb_segment_is_living(const record_block_t *record, apr_time_t now)
{
    return now < abb_segment_end_of(record);
}

apr_uint32_t abb_segment_blocks_for(apr_size_t open_size, apr_size_t sealed_size)
{
    apr_size_t words = (round_up(open_size, 8) + round_up(sealed_size, 8)) / 8;

    return (apr_uint32_t)(1 + (words + BYTES_WORDS - 1) / BYTES_WORDS);
}

/* ---- proofs -------------------------------------------------------------- */

static void derive_key(unsigned char *derived, const abb_store_shm_proof_key_t *key, char purpose)
{
    char text[2] = {purpose, 'a'};
    apr_uint64_t half = apr_siphash24(text, sizeof(text), key->bytes);

    memcpy(derived, &half, 8);
    text[1] = 'b';
    half = apr_siphash24(text, sizeof(text), key->bytes);
    memcpy(derived + 8, &half, 8);
}

void abb_segment_derive_keys(proof_keys_t *keys, const abb_store_shm_proof_key_t *key)
{
    derive_key(keys->record, key, 'r');
    derive_key(keys->content, key, 'c');
    derive_key(keys->last_seen, key, 'l');
    keys->mark = apr_siphash24("mark", 4, key->bytes);
}

content_sums_t abb_segment_sum(const proof_keys_t *keys, const void *open, apr_size_t open_size,
                               const void *sealed, apr_size_t sealed_size)
{
    content_sums_t sums = {apr_siphash24(open, open_size, keys->content),
                           apr_siphash24(sealed, sealed_size, keys->content)};

    return sums;
}

apr_uint64_t abb_segment_prove_last_seen(const proof_keys_t *keys, const record_block_t *record)
{
    apr_uint64_t words[] = {record->key[0], record->key[1], record->key[2], record->key[3],
                            (apr_uint64_t)record->last_seen};

    return apr_siphash24(words, sizeof(words), keys->last_seen);
}

apr_uint64_t abb_segment_prove(const proof_keys_t *keys, const record_block_t *record,
                               const content_sums_t *sums)
{
    apr_uint64_t words[] = {record->key[0],
                            record->key[1],
                            record->key[2],
                            record->key[3],
                            (apr_uint64_t)record->open_size << 32 | record->sealed_size,
                            (apr_uint64_t)record->expires_at,
                            (apr_uint64_t)record->idle,
                            record->generation,
                            sums->open,
                            sums->sealed};

    return apr_siphash24(words, sizeof(words), keys->record) ^
           abb_segment_prove_last_seen(keys, record);
}

/* ---- the journal --------------------------------------------------------- */

/*
 * The entry is whole before it counts, and counts before the word changes. All
 * this happens in one thread, and a killed thread has done everything before the
 * instruction it did not do; so the compiler alone must be kept from reordering,
 * and the lock orders it for whoever comes next.
 */
static void note_old_word(abb_segment_t *engine, void *place)
{
    header_t *header = engine->header;
    apr_uint64_t offset = ((apr_uint64_t)((char *)place - (char *)header)) & ~(apr_uint64_t)7;
    journal_entry_t *entry = &header->journal[header->journal_count];

    entry->offset = offset;
    entry->word = *(apr_uint64_t *)(void *)((char *)header + offset);
    __atomic_store_n(&header->journal_count, header->journal_count + 1, __ATOMIC_RELEASE);
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
}

void abb_segment_set32_locked(abb_segment_t *engine, apr_uint32_t *place, apr_uint32_t value)
{
    note_old_word(engine, place);
    SET(*place, value);
}

void abb_segment_set64_locked(abb_segment_t *engine, void *place, apr_uint64_t value)
{
    note_old_word(engine, place);
    SET(*(apr_uint64_t *)place, value);
}

void abb_segment_commit_locked(abb_segment_t *engine)
{
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n(&engine->header->journal_count, 0, __ATOMIC_RELEASE);
}

/*
 * A writer died. Put back what its unfinished step changed, while no reader
 * believes anything. Dying in here is no harm: it can be done again.
 */
static void roll_back(abb_segment_t *engine)
{
    header_t *header = engine->header;

    for (int i = 0; i < SEQUENCES; ++i) {
        SET(header->sequences[i], LOAD(header->sequences[i]) | 1);
    }
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    for (apr_uint32_t i = header->journal_count; i > 0; --i) {
        const journal_entry_t *entry = &header->journal[i - 1];

        SET(*(apr_uint64_t *)(void *)((char *)header + entry->offset), entry->word);
    }
    abb_segment_commit_locked(engine);
    for (int i = 0; i < SEQUENCES; ++i) {
        __atomic_store_n(&header->sequences[i], LOAD(header->sequences[i]) + 1, __ATOMIC_RELEASE);
    }
    COUNT(header->recoveries);
}

/* ---- the lock ------------------------------------------------------------ */

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

/* The lock is held: put right what a dead writer left, and set the mark. */
static void begin_writing(abb_segment_t *engine)
{
    if (engine->header->writing) {
        roll_back(engine);
    }
    mark_writing(engine, 1);
}

/*
 * Holders need a few microseconds; who sleeps meanwhile is late when the lock is
 * free again, and two busy writers could keep a third away for a long time.
 */
static apr_status_t lock_soon(abb_segment_t *engine)
{
    for (int i = 0; i < LOCK_ATTEMPTS; ++i) {
        apr_status_t status = apr_global_mutex_trylock(engine->lock);

        if (!APR_STATUS_IS_EBUSY(status)) {
            return status;
        }
        apr_thread_yield();
    }
    return apr_global_mutex_lock(engine->lock);
}

apr_status_t abb_segment_lock(abb_segment_t *engine, abb_error_t *err)
{
    apr_status_t status = lock_soon(engine);

    if (status != APR_SUCCESS) {
        return lock_failed(status, err);
    }
    begin_writing(engine);
    return APR_SUCCESS;
}

apr_status_t abb_segment_trylock(abb_segment_t *engine, abb_error_t *err)
{
    apr_status_t status = apr_global_mutex_trylock(engine->lock);

    if (APR_STATUS_IS_EBUSY(status)) {
        return ABB_ECHANGED;
    }
    if (status != APR_SUCCESS) {
        return lock_failed(status, err);
    }
    begin_writing(engine);
    return APR_SUCCESS;
}

void abb_segment_unlock(abb_segment_t *engine)
{
    abb_segment_commit_locked(engine);
    mark_writing(engine, 0);
    apr_global_mutex_unlock(engine->lock);
}

/* ---- sequence counts ----------------------------------------------------- */

apr_uint32_t *abb_segment_sequence_of(abb_segment_t *engine, apr_uint32_t bucket)
{
    return &engine->header->sequences[bucket % SEQUENCES];
}

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
