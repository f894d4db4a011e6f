/* store_shm (floor 2): repair and check of the segment. See store_shm_segment.h. */
#include "store_shm_segment.h"

#include <string.h>

/* ---- repair -------------------------------------------------------------- */

/* Give back the first `count` blocks behind a record's own. */
static void disclaim_chain(abb_segment_t *engine, apr_uint32_t number, apr_uint32_t count)
{
    block_head_t *head = block_at(engine, number);

    while (count-- > 0) {
        head = block_at(engine, head->next);
        head->kind = BLOCK_FREE;
    }
}

/* Claim a record's chain: as long as it says, of blocks nobody else has claimed. */
static int claim_chain(abb_segment_t *engine, apr_uint32_t number)
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

static int is_plausible(const abb_segment_t *engine, const record_block_t *record)
{
    abb_store_record_t sizes;

    sizes.open_size = record->open_size;
    sizes.sealed_size = record->sealed_size;
    return sizes.open_size <= ABB_STORE_RECORD_MAX && sizes.sealed_size <= ABB_STORE_RECORD_MAX &&
           record->block_count == abb_segment_blocks_for(&sizes) &&
           record->block_count <= engine->header->block_count;
}

/* Undo adopt_record. */
static void disown_record(abb_segment_t *engine, apr_uint32_t number)
{
    record_block_t *record = record_at(engine, number);

    abb_segment_bucket_remove_locked(engine, abb_segment_bucket_of_record(engine, record), number);
    abb_segment_list_remove_locked(engine, number);
    disclaim_chain(engine, number, record->block_count - 1);
    record->head.kind = BLOCK_FREE;
    --engine->header->record_count;
}

/* The record with the same key that was adopted before, or 0. */
static apr_uint32_t find_twin(abb_segment_t *engine, const record_block_t *record)
{
    abb_store_key_t key;

    memcpy(key.bytes, record->key, sizeof(key.bytes));
    return abb_segment_find(engine, abb_segment_bucket_of(engine, &key), &key);
}

/* Put a record back into bucket and list; of two with one key the newer stays. */
static void adopt_record(abb_segment_t *engine, apr_uint32_t number)
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
    abb_segment_bucket_insert_locked(engine, abb_segment_bucket_of_record(engine, record), number);
    abb_segment_list_insert_locked(engine, number, 0);
    ++engine->header->record_count;
}

/* Forget all structure but the records themselves. */
static void forget_structure(abb_segment_t *engine)
{
    header_t *header = engine->header;

    for (apr_uint32_t i = 0; i < header->bucket_count; ++i) {
        SET(engine->buckets[i], 0);
    }
    header->oldest = header->newest = 0;
    header->record_count = 0;
    header->quiet_until = 0;
    for (apr_uint32_t i = 1; i <= header->block_count; ++i) {
        block_head_t *head = block_at(engine, i);

        if (head->kind != BLOCK_RECORD || !is_plausible(engine, block_at(engine, i))) {
            head->kind = BLOCK_FREE;
        }
    }
}

static void adopt_records(abb_segment_t *engine)
{
    for (apr_uint32_t i = 1; i <= engine->header->block_count; ++i) {
        block_head_t *head = block_at(engine, i);

        if (head->kind == BLOCK_RECORD) {
            adopt_record(engine, i);
        }
    }
}

static void collect_free(abb_segment_t *engine)
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
void abb_segment_repair(abb_segment_t *engine)
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
    abb_segment_t *engine = store->engine;

    if (abb_segment_lock(engine, NULL) == APR_SUCCESS) {
        abb_segment_repair(engine);
        abb_segment_unlock(engine);
    }
}

/* ---- check --------------------------------------------------------------- */

static const char *check_buckets(const abb_segment_t *engine, apr_uint32_t *records,
                                 apr_uint32_t *blocks)
{
    for (apr_uint32_t bucket = 0; bucket < engine->header->bucket_count; ++bucket) {
        for (apr_uint32_t i = engine->buckets[bucket]; i; i = record_at(engine, i)->bucket_next) {
            const record_block_t *record = record_at(engine, i);
            apr_uint32_t length = 1;

            if (!is_block(engine, i) || record->head.kind != BLOCK_RECORD ||
                ++*records > engine->header->block_count) {
                return "a bucket leads to something that is no record";
            }
            if (abb_segment_bucket_of_record(engine, record) != bucket) {
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

static const char *check_list(const abb_segment_t *engine, apr_uint32_t records)
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

static const char *check_free(const abb_segment_t *engine, apr_uint32_t used)
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
    abb_segment_t *engine = store->engine;
    apr_uint32_t records = 0;
    apr_uint32_t blocks = 0;
    const char *fault;

    if (abb_segment_lock(engine, NULL) != APR_SUCCESS) {
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
    abb_segment_unlock(engine);
    return fault;
}
