/* store_shm (floor 2): the store contract on a segment. See store_shm_segment.h. */
#include "store_shm_segment.h"

#include <apr_thread_proc.h>
#include <string.h>

#define READ_ATTEMPTS 128
/* How many buckets a put looks at in search of expired records. */
#define SWEEP_LENGTH 8

/* ---- blocks; the lock is held -------------------------------------------- */

static void free_chain_locked(abb_segment_t *engine, apr_uint32_t number)
{
    header_t *header = engine->header;

    while (number) {
        block_head_t *head = block_at(engine, number);
        apr_uint32_t next = head->next;

        SET(head->kind, BLOCK_FREE);
        SET(head->next, header->first_free);
        header->first_free = number;
        SET(header->free_count, header->free_count + 1);
        number = next;
    }
}

static apr_uint32_t take_block_locked(abb_segment_t *engine)
{
    header_t *header = engine->header;
    apr_uint32_t number = header->first_free;

    if (number) {
        header->first_free = ((block_head_t *)block_at(engine, number))->next;
        SET(header->free_count, header->free_count - 1);
    }
    return number;
}

static void remove_record_locked(abb_segment_t *engine, apr_uint32_t number)
{
    record_block_t *record = record_at(engine, number);
    apr_uint32_t bucket = abb_segment_bucket_of_record(engine, record);

    abb_segment_begin_change(engine, bucket);
    SET(record->head.kind, BLOCK_BYTES);
    abb_segment_bucket_remove_locked(engine, bucket, number);
    abb_segment_list_remove_locked(engine, number);
    free_chain_locked(engine, number);
    SET(engine->header->record_count, engine->header->record_count - 1);
    abb_segment_end_change(engine, bucket);
}

/* ---- room for more; the lock is held ------------------------------------- */

/* Remove a bucket's expired records. Returns the earliest limit of the others. */
static apr_time_t sweep_bucket_locked(abb_segment_t *engine, apr_uint32_t bucket, apr_time_t now)
{
    apr_uint32_t number = engine->buckets[bucket];
    apr_time_t earliest = APR_INT64_MAX;

    while (number) {
        record_block_t *record = record_at(engine, number);
        apr_uint32_t next = record->bucket_next;
        apr_time_t end = abb_segment_end_of(record);

        if (now >= end) {
            remove_record_locked(engine, number);
            COUNT(engine->header->expired);
        }
        else if (end < earliest) {
            earliest = end;
        }
        number = next;
    }
    return earliest;
}

/* Remove expired records of the next buckets; a hand goes round over all of them. */
static void sweep_some_locked(abb_segment_t *engine, apr_time_t now)
{
    header_t *header = engine->header;

    for (int i = 0; i < SWEEP_LENGTH; ++i) {
        header->sweep_bucket = (header->sweep_bucket + 1) % header->bucket_count;
        sweep_bucket_locked(engine, header->sweep_bucket, now);
    }
}

/* Remove all expired records, and note until when there is no point in looking again. */
static void sweep_all_locked(abb_segment_t *engine, apr_time_t now)
{
    apr_time_t earliest = APR_INT64_MAX;

    for (apr_uint32_t bucket = 0; bucket < engine->header->bucket_count; ++bucket) {
        apr_time_t end = sweep_bucket_locked(engine, bucket, now);

        earliest = end < earliest ? end : earliest;
    }
    engine->header->quiet_until = earliest;
}

static void make_room_locked(abb_segment_t *engine, apr_uint32_t blocks, apr_uint32_t spared,
                             apr_time_t now)
{
    header_t *header = engine->header;

    sweep_some_locked(engine, now);
    if (header->free_count < blocks && now >= header->quiet_until) {
        sweep_all_locked(engine, now);
    }
    while (header->free_count < blocks) {
        apr_uint32_t victim = header->oldest;

        if (victim == spared) {
            victim = record_at(engine, victim)->newer;
        }
        if (!victim) {
            return;
        }
        COUNT(*(abb_segment_is_living(record_at(engine, victim), now) ? &header->evictions
                                                                      : &header->expired));
        remove_record_locked(engine, victim);
    }
}

/* ---- bytes in and out ---------------------------------------------------- */

static apr_uint64_t word_at(const char *bytes, apr_size_t size, apr_size_t at)
{
    apr_uint64_t word = 0;

    memcpy(&word, bytes + at, size - at < sizeof(word) ? size - at : sizeof(word));
    return word;
}

/* A place in a chain of blocks. */
typedef struct {
    const abb_segment_t *engine;
    block_head_t *block;
    apr_uint64_t *words;
    apr_size_t left;
} cursor_t;

static cursor_t cursor_at_start(const abb_segment_t *engine, record_block_t *record)
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

static apr_uint32_t build_chain_locked(abb_segment_t *engine, apr_uint32_t count)
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
static void fill_record_locked(abb_segment_t *engine, apr_uint32_t number,
                               const abb_store_key_t *key, const abb_store_record_t *in,
                               apr_time_t now)
{
    record_block_t *record = record_at(engine, number);
    cursor_t cursor = cursor_at_start(engine, record);

    for (apr_size_t i = 0; i < ABB_STORE_KEY_SIZE / 8; ++i) {
        SET(record->key[i], word_at((const char *)key->bytes, ABB_STORE_KEY_SIZE, 8 * i));
    }
    SET(record->open_size, (apr_uint32_t)in->open_size);
    SET(record->sealed_size, (apr_uint32_t)in->sealed_size);
    SET(record->block_count, abb_segment_blocks_for(in));
    SET(record->expires_at, in->expires_at);
    SET(record->idle, in->idle);
    SET(record->last_seen, now);
    SET(record->generation, engine->header->next_generation++);
    SET(record->leased_until, 0);
    SET(record->lease_holder, 0);
    SET(record->failed_at, 0);
    write_part(&cursor, in->open, in->open_size);
    write_part(&cursor, in->sealed, in->sealed_size);
}

/*
 * Make a filled chain a record, in the list before `newer` (0: the most recent);
 * from the kind on it survives a repair.
 */
static void insert_record_locked(abb_segment_t *engine, apr_uint32_t bucket, apr_uint32_t number,
                                 apr_uint32_t newer)
{
    header_t *header = engine->header;
    record_block_t *record = record_at(engine, number);
    apr_time_t end = abb_segment_end_of(record);

    abb_segment_begin_change(engine, bucket);
    __atomic_store_n(&record->head.kind, BLOCK_RECORD, __ATOMIC_SEQ_CST);
    abb_segment_bucket_insert_locked(engine, bucket, number);
    abb_segment_list_insert_locked(engine, number, newer);
    SET(header->record_count, header->record_count + 1);
    if (end < header->quiet_until) {
        header->quiet_until = end;
    }
    abb_segment_end_change(engine, bucket);
}

static apr_status_t check_size(const abb_segment_t *engine, const abb_store_record_t *record,
                               abb_error_t *err)
{
    apr_size_t size = record->open_size + record->sealed_size;

    if (size > ABB_STORE_RECORD_MAX ||
        abb_segment_blocks_for(record) > engine->header->block_count / 4) {
        return abb_error_set(
            err, ABB_ESTORE,
            "a record of %" APR_SIZE_T_FMT " bytes is too large for the session store", size);
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
    out->failed_at = LOAD(record->failed_at);
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

static apr_status_t read_record(const abb_segment_t *engine, record_block_t *record, query_t *query,
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

/* ---- get ----------------------------------------------------------------- */

static apr_status_t look_up(const abb_segment_t *engine, apr_uint32_t bucket, query_t *query,
                            abb_store_record_t *record)
{
    apr_uint32_t number = abb_segment_find(engine, bucket, query->key);

    if (!number || !abb_segment_is_living(record_at(engine, number), query->now)) {
        return APR_NOTFOUND;
    }
    return read_record(engine, record_at(engine, number), query, record);
}

/* Read without the lock. ABB_ECHANGED: writers were in the way all the time. */
static apr_status_t get_unlocked(abb_segment_t *engine, apr_uint32_t bucket, query_t *query,
                                 abb_store_record_t *record)
{
    const apr_uint32_t *sequence = abb_segment_sequence_of(engine, bucket);

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
    abb_segment_t *engine = self;
    apr_uint32_t bucket = abb_segment_bucket_of(engine, key);
    query_t query = {key, parts, now, p, NULL, 0};
    apr_status_t status = get_unlocked(engine, bucket, &query, record);

    if (status == ABB_ECHANGED) {
        if ((status = abb_segment_lock(engine, err)) != APR_SUCCESS) {
            return status;
        }
        status = look_up(engine, bucket, &query, record);
        abb_segment_unlock(engine);
    }
    COUNT(*(status == APR_SUCCESS ? &engine->header->hits : &engine->header->misses));
    if (status == ABB_ECHANGED) {
        return abb_error_set(err, ABB_ESTORE, "a record of the session store is damaged");
    }
    return status;
}

/* ---- writers ------------------------------------------------------------- */

static apr_status_t put_locked(abb_segment_t *engine, const abb_store_key_t *key,
                               const abb_store_record_t *record, apr_time_t now)
{
    apr_uint32_t bucket = abb_segment_bucket_of(engine, key);
    apr_uint32_t blocks = abb_segment_blocks_for(record);
    apr_uint32_t number = abb_segment_find(engine, bucket, key);

    if (number && abb_segment_is_living(record_at(engine, number), now)) {
        return APR_EEXIST;
    }
    if (number) {
        remove_record_locked(engine, number);
        COUNT(engine->header->expired);
    }
    make_room_locked(engine, blocks, 0, now);
    number = build_chain_locked(engine, blocks);
    fill_record_locked(engine, number, key, record, now);
    insert_record_locked(engine, bucket, number, 0);
    return APR_SUCCESS;
}

static apr_status_t shm_put(void *self, const abb_store_key_t *key,
                            const abb_store_record_t *record, apr_time_t now, abb_error_t *err)
{
    abb_segment_t *engine = self;
    apr_status_t status = check_size(engine, record, err);

    if (status != APR_SUCCESS || (status = abb_segment_lock(engine, err)) != APR_SUCCESS) {
        return status;
    }
    status = put_locked(engine, key, record, now);
    abb_segment_unlock(engine);
    return status;
}

static void carry_over(const record_block_t *old, record_block_t *record)
{
    SET(record->last_seen, old->last_seen);
    SET(record->leased_until, old->leased_until);
    SET(record->lease_holder, old->lease_holder);
}

static apr_status_t replace_locked(abb_segment_t *engine, const abb_store_key_t *key,
                                   apr_uint64_t generation, const abb_store_record_t *record,
                                   apr_time_t now)
{
    apr_uint32_t bucket = abb_segment_bucket_of(engine, key);
    apr_uint32_t blocks = abb_segment_blocks_for(record);
    apr_uint32_t old = abb_segment_find(engine, bucket, key);
    apr_uint32_t number;

    if (!old || !abb_segment_is_living(record_at(engine, old), now)) {
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
    insert_record_locked(engine, bucket, number, old);
    remove_record_locked(engine, old);
    return APR_SUCCESS;
}

static apr_status_t shm_replace(void *self, const abb_store_key_t *key, apr_uint64_t generation,
                                const abb_store_record_t *record, apr_time_t now, abb_error_t *err)
{
    abb_segment_t *engine = self;
    apr_status_t status = check_size(engine, record, err);

    if (status != APR_SUCCESS || (status = abb_segment_lock(engine, err)) != APR_SUCCESS) {
        return status;
    }
    status = replace_locked(engine, key, generation, record, now);
    abb_segment_unlock(engine);
    return status;
}

/* The living record with a key, or NULL. */
static record_block_t *find_living_locked(abb_segment_t *engine, const abb_store_key_t *key,
                                          apr_time_t now)
{
    apr_uint32_t number = abb_segment_find(engine, abb_segment_bucket_of(engine, key), key);

    return number && abb_segment_is_living(record_at(engine, number), now)
               ? record_at(engine, number)
               : NULL;
}

static apr_status_t touch_locked(abb_segment_t *engine, const abb_store_key_t *key, apr_time_t now)
{
    record_block_t *record = find_living_locked(engine, key, now);

    if (!record) {
        return APR_NOTFOUND;
    }
    if (now > record->last_seen) {
        apr_uint32_t number = abb_segment_find(engine, abb_segment_bucket_of(engine, key), key);

        SET(record->last_seen, now);
        abb_segment_list_remove_locked(engine, number);
        abb_segment_list_insert_locked(engine, number, 0);
    }
    return APR_SUCCESS;
}

static apr_status_t shm_touch(void *self, const abb_store_key_t *key, apr_time_t now,
                              abb_error_t *err)
{
    abb_segment_t *engine = self;
    apr_status_t status = abb_segment_trylock(engine, err);

    if (status != APR_SUCCESS) {
        return status;
    }
    status = touch_locked(engine, key, now);
    abb_segment_unlock(engine);
    return status;
}

static apr_status_t lease_locked(abb_segment_t *engine, const abb_store_key_t *key,
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
    SET(record->lease_holder, *holder);
    SET(record->leased_until, now + duration);
    return APR_SUCCESS;
}

static apr_status_t shm_lease(void *self, const abb_store_key_t *key, apr_interval_time_t duration,
                              apr_time_t now, apr_uint64_t *holder, abb_error_t *err)
{
    abb_segment_t *engine = self;
    apr_status_t status = abb_segment_lock(engine, err);

    if (status == APR_SUCCESS) {
        status = lease_locked(engine, key, duration, now, holder);
        abb_segment_unlock(engine);
    }
    return status;
}

/* Give a lease back. failed_at: when its holder gave up; 0: it did not. */
static apr_status_t end_lease_locked(abb_segment_t *engine, const abb_store_key_t *key,
                                     apr_uint64_t holder, apr_time_t failed_at)
{
    apr_uint32_t number = abb_segment_find(engine, abb_segment_bucket_of(engine, key), key);
    record_block_t *record = number ? record_at(engine, number) : NULL;

    if (!record) {
        return APR_NOTFOUND;
    }
    if (record->lease_holder != holder) {
        return ABB_ECHANGED;
    }
    SET(record->lease_holder, 0);
    SET(record->leased_until, 0);
    if (failed_at) {
        SET(record->failed_at, failed_at);
    }
    return APR_SUCCESS;
}

static apr_status_t end_lease(abb_segment_t *engine, const abb_store_key_t *key,
                              apr_uint64_t holder, apr_time_t failed_at, abb_error_t *err)
{
    apr_status_t status = abb_segment_lock(engine, err);

    if (status == APR_SUCCESS) {
        status = end_lease_locked(engine, key, holder, failed_at);
        abb_segment_unlock(engine);
    }
    return status;
}

static apr_status_t shm_release(void *self, const abb_store_key_t *key, apr_uint64_t holder,
                                abb_error_t *err)
{
    return end_lease(self, key, holder, 0, err);
}

static apr_status_t shm_fail(void *self, const abb_store_key_t *key, apr_uint64_t holder,
                             apr_time_t now, abb_error_t *err)
{
    return end_lease(self, key, holder, now, err);
}

static apr_status_t shm_drop(void *self, const abb_store_key_t *key, abb_error_t *err)
{
    abb_segment_t *engine = self;
    apr_status_t status = abb_segment_lock(engine, err);
    apr_uint32_t number;

    if (status != APR_SUCCESS) {
        return status;
    }
    number = abb_segment_find(engine, abb_segment_bucket_of(engine, key), key);
    if (number) {
        remove_record_locked(engine, number);
    }
    abb_segment_unlock(engine);
    return number ? APR_SUCCESS : APR_NOTFOUND;
}

static void shm_figures(void *self, abb_store_figures_t *figures)
{
    const header_t *header = ((abb_segment_t *)self)->header;

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

static apr_int64_t shm_take_evictions(void *self, apr_time_t now)
{
    header_t *header = ((abb_segment_t *)self)->header;
    apr_int64_t before = LOAD(header->evictions_told_at);
    apr_uint64_t evictions = LOAD(header->evictions);
    apr_int64_t new_ones = (apr_int64_t)(evictions - LOAD(header->evictions_told));

    /* A clock that was set back must not keep the warning away. */
    if (new_ones <= 0 || (now >= before && now - before < ABB_STORE_EVICTIONS_INTERVAL) ||
        !__atomic_compare_exchange_n(&header->evictions_told_at, &before, now, 0, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST)) {
        return 0;
    }
    SET(header->evictions_told, evictions);
    return new_ones;
}

/* ---- opening ------------------------------------------------------------- */

static const abb_store_methods_t methods = {
    shm_get,     shm_put,  shm_replace, shm_touch,   shm_lease,
    shm_release, shm_fail, shm_drop,    shm_figures, shm_take_evictions,
};

apr_status_t abb_store_shm_open(const abb_store_t **store, void *segment, apr_size_t size,
                                apr_global_mutex_t *lock, const abb_store_shm_proof_key_t *key,
                                apr_pool_t *p)
{
    abb_segment_t *engine;

    if (!abb_store_shm_is_formatted(segment, size)) {
        return APR_EINVAL;
    }
    engine = apr_pcalloc(p, sizeof(*engine));
    abb_segment_attach(engine, segment);
    engine->lock = lock;
    engine->proof_key = *key;
    engine->store.methods = &methods;
    engine->store.engine = engine;
    *store = &engine->store;
    return APR_SUCCESS;
}
