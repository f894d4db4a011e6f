/* store_shm (floor 2): the store contract on a segment. See store_shm_segment.h. */
#include "store_shm_segment.h"

#include <apr_thread_proc.h>
#include <sched.h>
#include <string.h>

#define READ_ATTEMPTS 128
/* How many steps a put does in search of expired records. */
#define SWEEP_LENGTH 64
/* How many records of the present few seconds it looks at when there is no room. */
#define PRESENT_LENGTH 256

/* ---- room for more; the lock is held ------------------------------------- */

static void remove_locked(abb_segment_t *engine, apr_uint32_t number)
{
    apr_uint32_t bucket = abb_segment_bucket_of_record(engine, record_at(engine, number));

    abb_segment_begin_change(engine, bucket);
    abb_segment_remove_locked(engine, bucket, number);
    abb_segment_commit_locked(engine);
    abb_segment_end_change(engine, bucket);
}

static void expire_locked(abb_segment_t *engine, apr_uint32_t number)
{
    remove_locked(engine, number);
    COUNT(engine->header->expired);
}

/* Its turn has come: gone, or touched meanwhile and due later. */
static void look_at_locked(abb_segment_t *engine, apr_uint32_t number, apr_time_t now)
{
    if (!abb_segment_is_living(record_at(engine, number), now)) {
        expire_locked(engine, number);
        return;
    }
    abb_segment_due_remove_locked(engine, number);
    abb_segment_due_insert_locked(engine, number);
    abb_segment_commit_locked(engine);
}

/* Records whose limits lie in the list that time has not passed yet. */
static void sweep_present_locked(abb_segment_t *engine, apr_time_t now)
{
    apr_uint32_t number = engine->header->due[engine->header->due_hand % DUE_LISTS];

    for (int i = 0; number && i < PRESENT_LENGTH; ++i) {
        apr_uint32_t next = record_at(engine, number)->due_next;

        if (!abb_segment_is_living(record_at(engine, number), now)) {
            expire_locked(engine, number);
        }
        number = next;
    }
}

/* Where the hand must get to. A clock that jumped costs one round at most. */
static apr_int64_t aim_hand_locked(header_t *header, apr_time_t now)
{
    apr_int64_t target = now / DUE_WIDTH;

    if (target < header->due_hand) {
        header->due_hand = target;
    }
    if (target - header->due_hand > DUE_LISTS) {
        header->due_hand = target - DUE_LISTS;
    }
    return target;
}

/* Look at records that are due, so many at most. Returns whether none is left. */
static int sweep_locked(abb_segment_t *engine, int length, apr_time_t now)
{
    header_t *header = engine->header;
    apr_int64_t target = aim_hand_locked(header, now);

    while (header->due_hand < target) {
        apr_uint32_t number = header->due[header->due_hand % DUE_LISTS];

        if (length-- <= 0) {
            return 0;
        }
        if (number) {
            look_at_locked(engine, number, now);
        }
        else {
            ++header->due_hand;
        }
    }
    return 1;
}

static void evict_locked(abb_segment_t *engine, apr_uint32_t victim, apr_time_t now)
{
    COUNT(*(abb_segment_is_living(record_at(engine, victim), now) ? &engine->header->evictions
                                                                  : &engine->header->expired));
    remove_locked(engine, victim);
}

/* Expired records go first, then those that nobody has used for longest. */
static void make_room_locked(abb_segment_t *engine, apr_uint32_t blocks, apr_uint32_t spared,
                             apr_time_t now)
{
    header_t *header = engine->header;
    int is_swept = sweep_locked(engine, SWEEP_LENGTH, now);

    while (header->free_count < blocks && !is_swept) {
        is_swept = sweep_locked(engine, SWEEP_LENGTH, now);
    }
    if (header->free_count < blocks) {
        sweep_present_locked(engine, now);
    }
    while (header->free_count < blocks) {
        apr_uint32_t victim = header->oldest;

        evict_locked(engine, victim == spared ? record_at(engine, victim)->newer : victim, now);
    }
}

/* ---- records in ---------------------------------------------------------- */

/* A record on its way in: what can be prepared before the lock is taken. */
typedef struct {
    const abb_store_key_t *key;
    const abb_store_record_t *record;
    content_sums_t sums;
    apr_uint32_t blocks;
    apr_time_t now;
} arrival_t;

static apr_status_t prepare(const abb_segment_t *engine, const abb_store_key_t *key,
                            const abb_store_record_t *record, apr_time_t now, arrival_t *arrival,
                            abb_error_t *err)
{
    apr_size_t size = record->open_size + record->sealed_size;

    arrival->key = key;
    arrival->record = record;
    arrival->now = now;
    arrival->blocks = abb_segment_blocks_for(record->open_size, record->sealed_size);
    if (size > ABB_STORE_RECORD_MAX || arrival->blocks > engine->header->block_count / 4) {
        return abb_error_set(
            err, ABB_ESTORE,
            "a record of %" APR_SIZE_T_FMT " bytes is too large for the session store", size);
    }
    arrival->sums = abb_segment_sum(&engine->keys, record->open, record->open_size, record->sealed,
                                    record->sealed_size);
    return APR_SUCCESS;
}

/* Fill a chain that no reader can reach yet. */
static void fill_locked(abb_segment_t *engine, apr_uint32_t number, const arrival_t *arrival)
{
    const abb_store_record_t *in = arrival->record;
    record_block_t *record = record_at(engine, number);
    apr_uint64_t key[ABB_STORE_KEY_SIZE / 8];

    memcpy(key, arrival->key->bytes, sizeof(key));
    for (apr_size_t i = 0; i < ABB_STORE_KEY_SIZE / 8; ++i) {
        SET(record->key[i], key[i]);
    }
    SET(record->open_size, (apr_uint32_t)in->open_size);
    SET(record->sealed_size, (apr_uint32_t)in->sealed_size);
    SET(record->expires_at, in->expires_at);
    SET(record->idle, in->idle);
    SET(record->last_seen, arrival->now);
    SET(record->generation, engine->header->next_generation++);
    SET(record->leased_until, 0);
    SET(record->lease_holder, 0);
    SET(record->failed_at, 0);
    abb_segment_write_parts(engine, record, in->open, in->open_size, in->sealed, in->sealed_size);
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

/* ---- records out --------------------------------------------------------- */

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

/* Most blocks are copied whole; a loop of known length, unrolled, has a third of the instructions. */
static void copy_words(apr_uint64_t *out, const bytes_block_t *block, apr_size_t count)
{
    if (count == BYTES_WORDS) {
#pragma GCC unroll 15
        for (apr_size_t i = 0; i < BYTES_WORDS; ++i) {
            out[i] = LOAD(block->words[i]);
        }
        return;
    }
    for (apr_size_t i = 0; i < count; ++i) {
        out[i] = LOAD(block->words[i]);
    }
}

/* Copy so many words of a record from its start. Returns 0 when the chain is broken. */
static int read_words(const abb_segment_t *engine, const record_block_t *record, apr_uint64_t *out,
                      apr_size_t count)
{
    apr_uint32_t next = LOAD(record->head.next);

    while (count > 0) {
        apr_size_t length = count < BYTES_WORDS ? count : BYTES_WORDS;
        const bytes_block_t *block;

        if (!is_block(engine, next)) {
            return 0;
        }
        block = block_at(engine, next);
        copy_words(out, block, length);
        out += length;
        count -= length;
        next = LOAD(block->head.next);
    }
    return 1;
}

static apr_status_t read_record(const abb_segment_t *engine, const record_block_t *record,
                                query_t *query, abb_store_record_t *out)
{
    apr_size_t open_room;
    apr_size_t room;
    apr_uint64_t *words;

    read_head(record, out);
    if (out->open_size > ABB_STORE_RECORD_MAX || out->sealed_size > ABB_STORE_RECORD_MAX) {
        return ABB_ECHANGED;
    }
    open_room = round_up(out->open_size, 8);
    room = open_room + (query->parts == ABB_STORE_BOTH_PARTS ? round_up(out->sealed_size, 8) : 0);
    words = query_words(query, room + 8);
    if (!read_words(engine, record, words, room / 8)) {
        return ABB_ECHANGED;
    }
    out->open = words;
    out->sealed = room > open_room ? words + open_room / 8 : NULL;
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
    record->place = number;
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

/*
 * The counters of the processor that runs this thread. They are in its cache, and no other
 * writes there just now; one for each thread would be far away most of the time.
 */
static stripe_t *near_stripe(header_t *header)
{
    return &header->stripes[(unsigned)sched_getcpu() % STRIPES];
}

/* Without the lock as long as that works. ABB_ECHANGED: the record is damaged. */
static inline apr_status_t find(abb_segment_t *engine, const abb_store_key_t *key,
                                abb_store_parts_t parts, apr_time_t now, abb_store_record_t *record,
                                apr_pool_t *p, abb_error_t *err)
{
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
    return status;
}

static apr_status_t shm_get(void *self, const abb_store_key_t *key, abb_store_parts_t parts,
                            apr_time_t now, abb_store_record_t *record, apr_pool_t *p,
                            abb_error_t *err)
{
    abb_segment_t *engine = self;
    apr_status_t status = find(engine, key, parts, now, record, p, err);
    stripe_t *stripe;

    if (status == ABB_ESTORE) {
        return status;
    }
    stripe = near_stripe(engine->header);
    COUNT(*(status == APR_SUCCESS ? &stripe->hits : &stripe->misses));
    if (status == ABB_ECHANGED) {
        return abb_error_set(err, ABB_ESTORE, "a record of the session store is damaged");
    }
    return status;
}

/* In a large store each step of a look-up waits for memory. All that it will need at once. */
static void shm_expect(void *self, const abb_store_key_t *key, apr_uint32_t place)
{
    const abb_segment_t *engine = self;

    __builtin_prefetch(&engine->buckets[abb_segment_bucket_of(engine, key)]);
    if (is_block(engine, place)) {
        abb_segment_prefetch(record_at(engine, place));
    }
}

/* ---- all of them --------------------------------------------------------- */

/* A chain of a good hash is short; of one that is longer the rest is not seen. */
#define CHAIN_MAX 64

/* The keys of a bucket's records. Returns how many, or -1 when a writer was in the way. */
static int read_chain(const abb_segment_t *engine, apr_uint32_t bucket, abb_store_key_t *keys)
{
    apr_uint32_t number = LOAD(engine->buckets[bucket]);
    int count = 0;

    while (is_block(engine, number) && count < CHAIN_MAX) {
        const record_block_t *record = record_at(engine, number);
        apr_uint64_t words[ABB_STORE_KEY_SIZE / 8];

        for (apr_size_t i = 0; i < ABB_STORE_KEY_SIZE / 8; ++i) {
            words[i] = LOAD(record->key[i]);
        }
        memcpy(keys[count++].bytes, words, sizeof(words));
        number = LOAD(record->bucket_next);
    }
    return count;
}

static int read_chain_whole(abb_segment_t *engine, apr_uint32_t bucket, abb_store_key_t *keys,
                            abb_error_t *err)
{
    const apr_uint32_t *sequence = abb_segment_sequence_of(engine, bucket);
    int count;

    for (int i = 0; i < READ_ATTEMPTS; ++i) {
        apr_uint32_t before = __atomic_load_n(sequence, __ATOMIC_ACQUIRE);

        count = before & 1 ? -1 : read_chain(engine, bucket, keys);
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        if (count >= 0 && LOAD(*sequence) == before) {
            return count;
        }
        apr_thread_yield();
    }
    if (abb_segment_lock(engine, err) != APR_SUCCESS) {
        return -1;
    }
    count = read_chain(engine, bucket, keys);
    abb_segment_unlock(engine);
    return count;
}

/* Empty buckets, which are most of them, are not worth the care. */
static apr_status_t shm_walk(void *self, apr_time_t now, abb_store_look_t look, void *context,
                             apr_pool_t *p, abb_error_t *err)
{
    abb_segment_t *engine = self;
    abb_store_key_t keys[CHAIN_MAX];
    apr_pool_t *pool;
    apr_status_t status = apr_pool_create(&pool, p);

    for (apr_uint32_t bucket = 0; status == APR_SUCCESS && bucket < engine->header->bucket_count;
         ++bucket) {
        int count = LOAD(engine->buckets[bucket]) ? read_chain_whole(engine, bucket, keys, err) : 0;

        if (count < 0) {
            status = ABB_ESTORE;
        }
        for (int i = 0; i < count && status == APR_SUCCESS; ++i) {
            abb_store_record_t record;

            status = find(engine, &keys[i], ABB_STORE_OPEN_PART, now, &record, pool, err);
            if (status == APR_SUCCESS) {
                look(context, &keys[i], &record);
            }
            /* Gone meanwhile, or damaged. */
            if (status == APR_NOTFOUND || status == ABB_ECHANGED) {
                status = APR_SUCCESS;
            }
            apr_pool_clear(pool);
        }
    }
    apr_pool_destroy(pool);
    return status;
}

/* ---- writers ------------------------------------------------------------- */

static apr_status_t put_locked(abb_segment_t *engine, const arrival_t *arrival)
{
    apr_uint32_t bucket = abb_segment_bucket_of(engine, arrival->key);
    apr_uint32_t number = abb_segment_find(engine, bucket, arrival->key);

    if (number && abb_segment_is_living(record_at(engine, number), arrival->now)) {
        return APR_EEXIST;
    }
    if (number) {
        expire_locked(engine, number);
    }
    make_room_locked(engine, arrival->blocks, 0, arrival->now);
    number = abb_segment_take_chain_locked(engine, arrival->blocks);
    fill_locked(engine, number, arrival);
    SET(record_at(engine, number)->proof,
        abb_segment_prove(&engine->keys, record_at(engine, number), &arrival->sums));
    abb_segment_begin_change(engine, bucket);
    abb_segment_insert_locked(engine, bucket, number, 0);
    abb_segment_commit_locked(engine);
    abb_segment_end_change(engine, bucket);
    return APR_SUCCESS;
}

static apr_status_t shm_put(void *self, const abb_store_key_t *key,
                            const abb_store_record_t *record, apr_time_t now, abb_error_t *err)
{
    abb_segment_t *engine = self;
    arrival_t arrival;
    apr_status_t status = prepare(engine, key, record, now, &arrival, err);

    if (status != APR_SUCCESS || (status = abb_segment_lock(engine, err)) != APR_SUCCESS) {
        return status;
    }
    status = put_locked(engine, &arrival);
    abb_segment_unlock(engine);
    return status;
}

static void carry_over(const record_block_t *old, record_block_t *record)
{
    SET(record->last_seen, old->last_seen);
    SET(record->leased_until, old->leased_until);
    SET(record->lease_holder, old->lease_holder);
}

static apr_status_t replace_locked(abb_segment_t *engine, apr_uint64_t generation,
                                   const arrival_t *arrival)
{
    apr_uint32_t bucket = abb_segment_bucket_of(engine, arrival->key);
    apr_uint32_t old = abb_segment_find(engine, bucket, arrival->key);
    apr_uint32_t number;

    if (!old || !abb_segment_is_living(record_at(engine, old), arrival->now)) {
        return APR_NOTFOUND;
    }
    if (record_at(engine, old)->generation != generation) {
        return ABB_ECHANGED;
    }
    make_room_locked(engine, arrival->blocks, old, arrival->now);
    number = abb_segment_take_chain_locked(engine, arrival->blocks);
    fill_locked(engine, number, arrival);
    carry_over(record_at(engine, old), record_at(engine, number));
    SET(record_at(engine, number)->proof,
        abb_segment_prove(&engine->keys, record_at(engine, number), &arrival->sums));
    abb_segment_begin_change(engine, bucket);
    abb_segment_insert_locked(engine, bucket, number, old);
    abb_segment_remove_locked(engine, bucket, old);
    abb_segment_commit_locked(engine);
    abb_segment_end_change(engine, bucket);
    return APR_SUCCESS;
}

static apr_status_t shm_replace(void *self, const abb_store_key_t *key, apr_uint64_t generation,
                                const abb_store_record_t *record, apr_time_t now, abb_error_t *err)
{
    abb_segment_t *engine = self;
    arrival_t arrival;
    apr_status_t status = prepare(engine, key, record, now, &arrival, err);

    if (status != APR_SUCCESS || (status = abb_segment_lock(engine, err)) != APR_SUCCESS) {
        return status;
    }
    status = replace_locked(engine, generation, &arrival);
    abb_segment_unlock(engine);
    return status;
}

/* The living record with a key, or 0. */
static apr_uint32_t find_living_locked(abb_segment_t *engine, const abb_store_key_t *key,
                                       apr_time_t now)
{
    apr_uint32_t number = abb_segment_find(engine, abb_segment_bucket_of(engine, key), key);

    return number && abb_segment_is_living(record_at(engine, number), now) ? number : 0;
}

static void set_last_seen_locked(abb_segment_t *engine, record_block_t *record, apr_time_t now)
{
    apr_uint64_t proof = record->proof ^ abb_segment_prove_last_seen(&engine->keys, record);

    abb_segment_set64_locked(engine, &record->last_seen, (apr_uint64_t)now);
    proof ^= abb_segment_prove_last_seen(&engine->keys, record);
    abb_segment_set64_locked(engine, &record->proof, proof);
}

static apr_status_t touch_locked(abb_segment_t *engine, const abb_store_key_t *key, apr_time_t now)
{
    apr_uint32_t number = find_living_locked(engine, key, now);

    if (!number) {
        return APR_NOTFOUND;
    }
    if (now > record_at(engine, number)->last_seen) {
        set_last_seen_locked(engine, record_at(engine, number), now);
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

/* Never 0, which is nobody. */
static apr_uint32_t next_holder_locked(header_t *header)
{
    apr_uint32_t holder = header->next_holder;

    header->next_holder = holder + 1 ? holder + 1 : 1;
    return holder;
}

static apr_status_t lease_locked(abb_segment_t *engine, const abb_store_key_t *key,
                                 apr_interval_time_t duration, apr_time_t now, apr_uint64_t *holder)
{
    apr_uint32_t number = find_living_locked(engine, key, now);
    record_block_t *record = number ? record_at(engine, number) : NULL;

    if (!record) {
        return APR_NOTFOUND;
    }
    if (record->lease_holder && abb_store_is_leased(record->leased_until, now)) {
        return ABB_ECHANGED;
    }
    *holder = next_holder_locked(engine->header);
    abb_segment_set32_locked(engine, &record->lease_holder, (apr_uint32_t)*holder);
    abb_segment_set64_locked(engine, &record->leased_until, (apr_uint64_t)(now + duration));
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
    abb_segment_set32_locked(engine, &record->lease_holder, 0);
    abb_segment_set64_locked(engine, &record->leased_until, 0);
    if (failed_at) {
        abb_segment_set64_locked(engine, &record->failed_at, (apr_uint64_t)failed_at);
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
        remove_locked(engine, number);
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
    figures->hits = figures->misses = 0;
    for (int i = 0; i < STRIPES; ++i) {
        figures->hits += (apr_int64_t)LOAD(header->stripes[i].hits);
        figures->misses += (apr_int64_t)LOAD(header->stripes[i].misses);
    }
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
    shm_get,  shm_put,  shm_replace, shm_touch,          shm_lease,  shm_release,
    shm_fail, shm_drop, shm_figures, shm_take_evictions, shm_expect, shm_walk,
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
    abb_segment_derive_keys(&engine->keys, key);
    engine->header->key_mark = engine->keys.mark;
    engine->store.methods = &methods;
    engine->store.engine = engine;
    *store = &engine->store;
    return APR_SUCCESS;
}
