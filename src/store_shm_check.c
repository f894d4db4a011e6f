/* store_shm (floor 2): is all of it whole? See store_shm_segment.h. */
#include <stdlib.h>
#include <string.h>

#include "store_shm_segment.h"

/* What was counted on the way. */
typedef struct {
    const abb_segment_t *engine;
    apr_uint32_t records;
    apr_uint32_t blocks;
} census_t;

static const char *check_proof(const abb_segment_t *engine, const record_block_t *record)
{
    apr_size_t open_room = round_up(record->open_size, 8);
    apr_size_t size = open_room + round_up(record->sealed_size, 8);
    char *bytes = malloc(size + 1);
    char *end = bytes;
    content_sums_t sums;

    for (apr_uint32_t i = record->head.next; i;) {
        const bytes_block_t *block = block_at(engine, i);
        apr_size_t left = size - (apr_size_t)(end - bytes);
        apr_size_t length = left < sizeof(block->words) ? left : sizeof(block->words);

        memcpy(end, block->words, length);
        end += length;
        i = block->head.next;
    }
    sums = abb_segment_sum(&engine->keys, bytes, record->open_size, bytes + open_room,
                           record->sealed_size);
    free(bytes);
    return abb_segment_prove(&engine->keys, record, &sums) == record->proof
               ? NULL
               : "a record does not prove itself";
}

static const char *check_chain(census_t *census, const record_block_t *record)
{
    const abb_segment_t *engine = census->engine;
    apr_uint32_t expected = abb_segment_blocks_for(record->open_size, record->sealed_size);
    apr_uint32_t length = 1;

    for (apr_uint32_t i = record->head.next; i; ++length) {
        const block_head_t *head = is_block(engine, i) ? block_at(engine, i) : NULL;

        if (!head || head->kind != BLOCK_PLAIN || length > expected) {
            return "a record's chain is broken";
        }
        i = head->next;
    }
    census->blocks += length;
    return length == expected ? check_proof(engine, record)
                              : "a record's chain has not the length it needs";
}

static const char *check_bucket(census_t *census, apr_uint32_t bucket)
{
    const abb_segment_t *engine = census->engine;

    for (apr_uint32_t i = engine->buckets[bucket]; i; i = record_at(engine, i)->bucket_next) {
        const char *fault;

        if (!is_block(engine, i) || record_at(engine, i)->head.kind != BLOCK_RECORD ||
            ++census->records > engine->header->block_count) {
            return "a bucket leads to something that is no record";
        }
        if (abb_segment_bucket_of_record(engine, record_at(engine, i)) != bucket) {
            return "a record stands in a bucket that is not its own";
        }
        if ((fault = check_chain(census, record_at(engine, i)))) {
            return fault;
        }
    }
    return NULL;
}

static const char *check_buckets(census_t *census)
{
    const header_t *header = census->engine->header;
    const char *fault = NULL;

    for (apr_uint32_t i = 0; i < header->bucket_count && !fault; ++i) {
        fault = check_bucket(census, i);
    }
    return !fault && census->records != header->record_count ? "the number of records is wrong"
                                                             : fault;
}

static const char *check_list(census_t *census)
{
    const abb_segment_t *engine = census->engine;
    apr_uint32_t before = 0;
    apr_uint32_t count = 0;

    for (apr_uint32_t i = engine->header->oldest; i; i = record_at(engine, i)->newer) {
        if (!is_block(engine, i) || record_at(engine, i)->older != before ||
            ++count > census->records) {
            return "the list of records is broken";
        }
        before = i;
    }
    return before != engine->header->newest || count != census->records
               ? "the list of records has gaps"
               : NULL;
}

static const char *check_due(census_t *census)
{
    const abb_segment_t *engine = census->engine;
    apr_uint32_t count = 0;

    for (apr_uint32_t list = 0; list < DUE_LISTS; ++list) {
        apr_uint32_t before = DUE_FIRST | list;

        for (apr_uint32_t i = engine->header->due[list]; i; i = record_at(engine, i)->due_next) {
            if (!is_block(engine, i) || record_at(engine, i)->due_previous != before ||
                ++count > census->records) {
                return "a list of limits is broken";
            }
            before = i;
        }
    }
    return count == census->records ? NULL : "a record is missing in the lists of limits";
}

static const char *check_free(census_t *census)
{
    const abb_segment_t *engine = census->engine;
    const header_t *header = engine->header;
    apr_uint32_t count = 0;

    for (apr_uint32_t i = header->first_free; i; i = ((block_head_t *)block_at(engine, i))->next) {
        if (!is_block(engine, i) || ((block_head_t *)block_at(engine, i))->kind != BLOCK_PLAIN ||
            ++count > header->block_count) {
            return "the free list is broken";
        }
    }
    return count != header->free_count || count + census->blocks != header->block_count
               ? "blocks are lost"
               : NULL;
}

static const char *check_counts(census_t *census)
{
    for (int i = 0; i < SEQUENCES; ++i) {
        if (census->engine->header->sequences[i] & 1) {
            return "a sequence count stayed odd";
        }
    }
    return census->engine->header->journal_count ? "the journal is not empty" : NULL;
}

const char *abb_store_shm_check(const abb_store_t *store)
{
    static const char *(*const checks[])(census_t *) = {check_buckets, check_list, check_due,
                                                        check_free, check_counts};
    abb_segment_t *engine = store->engine;
    census_t census = {engine, 0, 0};
    const char *fault = NULL;

    if (abb_segment_lock(engine, NULL) != APR_SUCCESS) {
        return "the lock failed";
    }
    for (apr_size_t i = 0; i < sizeof(checks) / sizeof(checks[0]) && !fault; ++i) {
        fault = checks[i](&census);
    }
    abb_segment_unlock(engine);
    return fault;
}
