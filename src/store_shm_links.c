/*
 * store_shm (floor 2): the structures that blocks and records stand in. See
 * store_shm_segment.h. The lock is held in all of it.
 */
#include <string.h>

#include "store_shm_segment.h"

/* ---- free blocks --------------------------------------------------------- */

apr_uint32_t abb_segment_take_chain_locked(abb_segment_t *engine, apr_uint32_t count)
{
    header_t *header = engine->header;
    apr_uint32_t first = header->first_free;
    block_head_t *last = block_at(engine, first);

    for (apr_uint32_t i = 1; i < count; ++i) {
        last = block_at(engine, last->next);
    }
    abb_segment_set32_locked(engine, &header->first_free, last->next);
    abb_segment_set32_locked(engine, &header->free_count, header->free_count - count);
    abb_segment_set32_locked(engine, &last->next, 0);
    return first;
}

/* The chain keeps its order: neighbours in memory stay neighbours in the next record. */
void abb_segment_free_chain_locked(abb_segment_t *engine, apr_uint32_t first)
{
    header_t *header = engine->header;
    block_head_t *last = block_at(engine, first);
    apr_uint32_t count = 1;

    for (; last->next; ++count) {
        last = block_at(engine, last->next);
    }
    abb_segment_set32_locked(engine, &last->next, header->first_free);
    abb_segment_set32_locked(engine, &header->first_free, first);
    abb_segment_set32_locked(engine, &header->free_count, header->free_count + count);
}

/* ---- by use -------------------------------------------------------------- */

/* Make `older` and `newer` (0: an end of the list) neighbours. */
static void join_locked(abb_segment_t *engine, apr_uint32_t older, apr_uint32_t newer)
{
    abb_segment_set32_locked(
        engine, older ? &record_at(engine, older)->newer : &engine->header->oldest, newer);
    abb_segment_set32_locked(
        engine, newer ? &record_at(engine, newer)->older : &engine->header->newest, older);
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

/* ---- by key -------------------------------------------------------------- */

void abb_segment_bucket_insert_locked(abb_segment_t *engine, apr_uint32_t bucket,
                                      apr_uint32_t number)
{
    abb_segment_set32_locked(engine, &record_at(engine, number)->bucket_next,
                             engine->buckets[bucket]);
    abb_segment_set32_locked(engine, &engine->buckets[bucket], number);
}

void abb_segment_bucket_remove_locked(abb_segment_t *engine, apr_uint32_t bucket,
                                      apr_uint32_t number)
{
    apr_uint32_t *link = &engine->buckets[bucket];

    while (*link && *link != number) {
        link = &record_at(engine, *link)->bucket_next;
    }
    if (*link) {
        abb_segment_set32_locked(engine, link, record_at(engine, number)->bucket_next);
    }
}

/* ---- by limit ------------------------------------------------------------ */

/*
 * A record whose limit is further away than the circle reaches goes into the last
 * list, and into a later one when its turn comes; so does one that was touched
 * meanwhile. To be looked at too early is no harm.
 */
static apr_uint32_t due_list_of(const abb_segment_t *engine, const record_block_t *record)
{
    apr_int64_t hand = engine->header->due_hand;
    apr_int64_t list = abb_segment_end_of(record) / DUE_WIDTH;

    if (list < hand) {
        list = hand;
    }
    if (list > hand + DUE_LISTS - 1) {
        list = hand + DUE_LISTS - 1;
    }
    return (apr_uint32_t)(list % DUE_LISTS);
}

void abb_segment_due_insert_locked(abb_segment_t *engine, apr_uint32_t number)
{
    record_block_t *record = record_at(engine, number);
    apr_uint32_t list = due_list_of(engine, record);
    apr_uint32_t first = engine->header->due[list];

    abb_segment_set32_locked(engine, &record->due_next, first);
    abb_segment_set32_locked(engine, &record->due_previous, DUE_FIRST | list);
    if (first) {
        abb_segment_set32_locked(engine, &record_at(engine, first)->due_previous, number);
    }
    abb_segment_set32_locked(engine, &engine->header->due[list], number);
}

void abb_segment_due_remove_locked(abb_segment_t *engine, apr_uint32_t number)
{
    const record_block_t *record = record_at(engine, number);
    apr_uint32_t previous = record->due_previous;
    apr_uint32_t next = record->due_next;

    abb_segment_set32_locked(engine,
                             previous & DUE_FIRST ? &engine->header->due[previous & ~DUE_FIRST]
                                                  : &record_at(engine, previous)->due_next,
                             next);
    if (next) {
        abb_segment_set32_locked(engine, &record_at(engine, next)->due_previous, previous);
    }
}

/* ---- records ------------------------------------------------------------- */

void abb_segment_insert_locked(abb_segment_t *engine, apr_uint32_t bucket, apr_uint32_t number,
                               apr_uint32_t newer)
{
    header_t *header = engine->header;

    abb_segment_set32_locked(engine, &record_at(engine, number)->head.kind, BLOCK_RECORD);
    abb_segment_bucket_insert_locked(engine, bucket, number);
    abb_segment_list_insert_locked(engine, number, newer);
    abb_segment_due_insert_locked(engine, number);
    abb_segment_set32_locked(engine, &header->record_count, header->record_count + 1);
}

void abb_segment_remove_locked(abb_segment_t *engine, apr_uint32_t bucket, apr_uint32_t number)
{
    header_t *header = engine->header;

    abb_segment_set32_locked(engine, &record_at(engine, number)->head.kind, BLOCK_PLAIN);
    abb_segment_bucket_remove_locked(engine, bucket, number);
    abb_segment_list_remove_locked(engine, number);
    abb_segment_due_remove_locked(engine, number);
    abb_segment_free_chain_locked(engine, number);
    abb_segment_set32_locked(engine, &header->record_count, header->record_count - 1);
}

/* ---- bytes --------------------------------------------------------------- */

static apr_uint64_t word_at(const char *bytes, apr_size_t size, apr_size_t at)
{
    apr_uint64_t word = 0;

    memcpy(&word, bytes + at, size - at < sizeof(word) ? size - at : sizeof(word));
    return word;
}

/* A place in a chain of blocks that is as long as it must be. */
typedef struct {
    const abb_segment_t *engine;
    bytes_block_t *block;
    apr_size_t word;
} place_t;

static void write_part(place_t *place, const char *bytes, apr_size_t size)
{
    for (apr_size_t at = 0; at < size; at += 8) {
        if (place->word == BYTES_WORDS) {
            place->block = block_at(place->engine, place->block->head.next);
            place->word = 0;
        }
        SET(place->block->words[place->word++], word_at(bytes, size, at));
    }
}

void abb_segment_write_parts(const abb_segment_t *engine, record_block_t *record, const void *open,
                             apr_size_t open_size, const void *sealed, apr_size_t sealed_size)
{
    place_t place = {engine, (bytes_block_t *)(void *)record, BYTES_WORDS};

    write_part(&place, open, open_size);
    write_part(&place, sealed, sealed_size);
}
