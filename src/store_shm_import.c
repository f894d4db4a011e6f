/* store_shm (floor 2): records of an earlier segment. See store_shm_segment.h. */
#include <stdlib.h>
#include <string.h>

#include "store_shm_segment.h"

/* How far ahead of our clock a record may have been used. */
#define CLOCK_TOLERANCE apr_time_from_sec(120)
/* Room for both parts of the largest record; of a smaller image no record has more than it. */
#define WORDS_SIZE_MAX (2 * (ABB_STORE_RECORD_MAX + 8))

/* An earlier segment: bytes of which nothing is believed but what proves itself. */
typedef struct {
    const char *bytes;
    apr_size_t size;
    header_t header;
    const char *blocks;
    /* Blocks that are wholly there. */
    apr_uint32_t block_count;
} image_t;

/* A record that proved itself. */
typedef struct {
    apr_time_t last_seen;
    apr_uint32_t number;
} candidate_t;

typedef struct {
    image_t image;
    proof_keys_t keys[ABB_STORE_SHM_IMPORT_KEYS_MAX];
    int key_count;
    apr_time_t now;
    candidate_t *candidates;
    apr_size_t candidate_count;
    apr_size_t capacity;
    /* Words that may still be read: no image has more in all its chains. */
    apr_uint64_t budget;
    /* One record's bytes in one piece. */
    apr_uint64_t *words;
    abb_store_shm_import_t *result;
} import_t;

/* ---- the image ----------------------------------------------------------- */

/* Look at the bytes as at a segment of this size, of which only the first may be there. */
static int see_as(image_t *image, apr_uint64_t size)
{
    header_t plan;

    if (size < ABB_STORE_SHM_MIN || size > ABB_STORE_SHM_MAX) {
        return 0;
    }
    abb_segment_plan(&plan, size);
    image->blocks = image->bytes + plan.block_offset;
    image->block_count = 0;
    if (image->size > plan.block_offset) {
        apr_uint64_t whole = (image->size - plan.block_offset) / BLOCK_SIZE;

        image->block_count =
            whole < plan.block_count ? (apr_uint32_t)whole : (apr_uint32_t)plan.block_count;
    }
    return image->block_count > 0;
}

static const void *image_block(const image_t *image, apr_uint32_t number)
{
    return number >= 1 && number <= image->block_count
               ? image->blocks + (apr_size_t)(number - 1) * BLOCK_SIZE
               : NULL;
}

static int is_blank(const image_t *image)
{
    apr_size_t size = image->size < sizeof(header_t) ? image->size : sizeof(header_t);

    for (apr_size_t i = 0; i < size; ++i) {
        if (image->bytes[i]) {
            return 0;
        }
    }
    return 1;
}

/* ---- proofs -------------------------------------------------------------- */

/* Put a record's bytes together. Returns 0 when a block is missing. */
static int gather(import_t *import, const record_block_t *record)
{
    apr_size_t left = (round_up(record->open_size, 8) + round_up(record->sealed_size, 8)) / 8;
    apr_uint64_t *out = import->words;
    apr_uint32_t next = record->head.next;

    while (left > 0) {
        const bytes_block_t *block = image_block(&import->image, next);
        apr_size_t length = left < BYTES_WORDS ? left : BYTES_WORDS;

        if (!block || length > import->budget) {
            return 0;
        }
        import->budget -= length;
        memcpy(out, block->words, length * 8);
        out += length;
        left -= length;
        next = block->head.next;
    }
    return 1;
}

static const void *sealed_words(const import_t *import, const record_block_t *record)
{
    return import->words + round_up(record->open_size, 8) / 8;
}

static int is_proved(const import_t *import, const record_block_t *record)
{
    for (int i = 0; i < import->key_count; ++i) {
        const proof_keys_t *keys = &import->keys[i];
        content_sums_t sums = abb_segment_sum(keys, import->words, record->open_size,
                                              sealed_words(import, record), record->sealed_size);

        if (abb_segment_prove(keys, record, &sums) == record->proof) {
            return 1;
        }
    }
    return 0;
}

/* Copy out a record's head and bytes and see whether they are what was once stored. */
static int read_record(import_t *import, apr_uint32_t number, record_block_t *record)
{
    memcpy(record, image_block(&import->image, number), sizeof(*record));
    return record->open_size <= ABB_STORE_RECORD_MAX &&
           record->sealed_size <= ABB_STORE_RECORD_MAX && gather(import, record) &&
           is_proved(import, record) && record->last_seen <= import->now + CLOCK_TOLERANCE;
}

/* ---- finding ------------------------------------------------------------- */

static apr_status_t note_candidate(import_t *import, apr_uint32_t number, apr_time_t last_seen)
{
    if (import->candidate_count == import->capacity) {
        apr_size_t capacity = import->capacity ? 2 * import->capacity : 1024;
        candidate_t *grown = realloc(import->candidates, capacity * sizeof(*grown));

        if (!grown) {
            return APR_ENOMEM;
        }
        import->candidates = grown;
        import->capacity = capacity;
    }
    import->candidates[import->candidate_count].last_seen = last_seen;
    import->candidates[import->candidate_count].number = number;
    ++import->candidate_count;
    return APR_SUCCESS;
}

static apr_status_t find_candidates(import_t *import)
{
    apr_status_t status = APR_SUCCESS;

    import->budget = import->image.size / 8;
    for (apr_uint32_t i = 1; i <= import->image.block_count && status == APR_SUCCESS; ++i) {
        record_block_t record;

        if (((const block_head_t *)image_block(&import->image, i))->kind != BLOCK_RECORD) {
            continue;
        }
        if (!read_record(import, i, &record)) {
            ++import->result->damaged;
        }
        else if (!abb_segment_is_living(&record, import->now)) {
            ++import->result->expired;
        }
        else {
            status = note_candidate(import, i, record.last_seen);
        }
    }
    return status;
}

/* What the header says the size was, or else what is there. */
static apr_status_t find_in_image(import_t *import)
{
    image_t *image = &import->image;
    apr_uint64_t sizes[] = {image->header.size, image->size};
    apr_status_t status = APR_SUCCESS;

    for (int i = 0; i < 2 && status == APR_SUCCESS; ++i) {
        if (import->candidate_count + import->result->expired > 0 || !see_as(image, sizes[i])) {
            continue;
        }
        import->result->damaged = 0;
        status = find_candidates(import);
    }
    return status;
}

static int has_known_mark(const import_t *import)
{
    for (int i = 0; i < import->key_count; ++i) {
        if (import->keys[i].mark == import->image.header.key_mark) {
            return 1;
        }
    }
    return 0;
}

static abb_store_shm_image_t judge(const import_t *import)
{
    const header_t *header = &import->image.header;

    if (import->candidate_count + import->result->expired > 0) {
        return ABB_STORE_SHM_READ;
    }
    if (is_blank(&import->image)) {
        return ABB_STORE_SHM_BLANK;
    }
    if (!abb_segment_has_magic(header)) {
        return ABB_STORE_SHM_NO_STORE;
    }
    if (!abb_segment_has_version(header)) {
        return ABB_STORE_SHM_OTHER_VERSION;
    }
    return has_known_mark(import) ? ABB_STORE_SHM_READ : ABB_STORE_SHM_OTHER_KEY;
}

/* ---- taking over --------------------------------------------------------- */

static int by_use(const void *a, const void *b)
{
    apr_time_t first = ((const candidate_t *)a)->last_seen;
    apr_time_t second = ((const candidate_t *)b)->last_seen;

    return first < second ? 1 : first > second ? -1 : 0;
}

/* The proof does not cover the lease: one that no holder can have asked for is none. */
static void copy_lease(record_block_t *to, const record_block_t *from, apr_time_t now)
{
    int is_credible = from->leased_until <= now + ABB_STORE_LEASE_MAX;

    SET(to->leased_until, is_credible ? from->leased_until : 0);
    SET(to->lease_holder, is_credible ? from->lease_holder : 0);
    SET(to->failed_at, from->failed_at <= now ? from->failed_at : 0);
}

static void copy_head(record_block_t *to, const record_block_t *from)
{
    for (apr_size_t i = 0; i < ABB_STORE_KEY_SIZE / 8; ++i) {
        SET(to->key[i], from->key[i]);
    }
    SET(to->open_size, from->open_size);
    SET(to->sealed_size, from->sealed_size);
    SET(to->expires_at, from->expires_at);
    SET(to->idle, from->idle);
    SET(to->last_seen, from->last_seen);
    SET(to->generation, from->generation);
}

/* Numbers to come are above all that are known. */
static void raise_numbers_locked(header_t *header, const record_block_t *record)
{
    if (record->generation >= header->next_generation) {
        header->next_generation = record->generation + 1;
    }
    if (record->lease_holder >= header->next_holder) {
        header->next_holder = record->lease_holder + 1 ? record->lease_holder + 1 : 1;
    }
}

/*
 * A step that was cut off may have left two records with one key: the newer
 * generation is meant. Returns whether the record is to be taken.
 */
static int displace_twin_locked(abb_segment_t *engine, const record_block_t *record,
                                apr_uint32_t bucket)
{
    abb_store_key_t key;
    apr_uint32_t twin;

    memcpy(key.bytes, record->key, sizeof(key.bytes));
    twin = abb_segment_find(engine, bucket, &key);
    if (!twin) {
        return 1;
    }
    if (record_at(engine, twin)->generation >= record->generation) {
        return 0;
    }
    abb_segment_begin_change(engine, bucket);
    abb_segment_remove_locked(engine, bucket, twin);
    abb_segment_commit_locked(engine);
    abb_segment_end_change(engine, bucket);
    return 1;
}

static void take_over_locked(abb_segment_t *engine, import_t *import, const record_block_t *record)
{
    apr_uint32_t blocks = abb_segment_blocks_for(record->open_size, record->sealed_size);
    apr_uint32_t bucket = abb_segment_bucket_of_record(engine, record);
    apr_uint32_t number;
    content_sums_t sums;

    if (blocks > engine->header->free_count || blocks > engine->header->block_count / 4) {
        ++import->result->left_out;
        return;
    }
    if (!displace_twin_locked(engine, record, bucket)) {
        return;
    }
    number = abb_segment_take_chain_locked(engine, blocks);
    copy_head(record_at(engine, number), record);
    copy_lease(record_at(engine, number), record, import->now);
    abb_segment_write_parts(engine, record_at(engine, number), import->words, record->open_size,
                            sealed_words(import, record), record->sealed_size);
    sums = abb_segment_sum(&engine->keys, import->words, record->open_size,
                           sealed_words(import, record), record->sealed_size);
    SET(record_at(engine, number)->proof,
        abb_segment_prove(&engine->keys, record_at(engine, number), &sums));
    raise_numbers_locked(engine->header, record);
    abb_segment_begin_change(engine, bucket);
    abb_segment_insert_locked(engine, bucket, number, engine->header->oldest);
    abb_segment_commit_locked(engine);
    abb_segment_end_change(engine, bucket);
}

/* The most recently used first; each next one is longer unused than all before. */
static void take_over_all_locked(abb_segment_t *engine, import_t *import)
{
    import->budget = import->image.size / 8;
    if (import->candidate_count > 1) {
        qsort(import->candidates, import->candidate_count, sizeof(*import->candidates), by_use);
    }
    for (apr_size_t i = 0; i < import->candidate_count; ++i) {
        record_block_t record;

        if (read_record(import, import->candidates[i].number, &record)) {
            take_over_locked(engine, import, &record);
        }
    }
}

static apr_status_t prepare(import_t *import, const void *image, apr_size_t image_size,
                            const abb_store_shm_proof_key_t *keys, int key_count)
{
    import->image.bytes = image;
    import->image.size = image_size;
    memcpy(&import->image.header, image,
           image_size < sizeof(header_t) ? image_size : sizeof(header_t));
    for (int i = 0; i < key_count && i < ABB_STORE_SHM_IMPORT_KEYS_MAX; ++i) {
        abb_segment_derive_keys(&import->keys[import->key_count++], &keys[i]);
    }
    import->words = malloc(image_size < WORDS_SIZE_MAX ? image_size + 8 : WORDS_SIZE_MAX);
    return import->words ? APR_SUCCESS : APR_ENOMEM;
}

static apr_status_t run_locked(abb_segment_t *engine, import_t *import)
{
    apr_uint32_t before = engine->header->record_count;
    apr_status_t status = find_in_image(import);

    if (status == APR_SUCCESS) {
        take_over_all_locked(engine, import);
        import->result->image = judge(import);
        import->result->kept = engine->header->record_count - before;
    }
    return status;
}

apr_status_t abb_store_shm_import(const abb_store_t *store, const void *image,
                                  apr_size_t image_size, const abb_store_shm_proof_key_t *keys,
                                  int key_count, apr_time_t now, abb_store_shm_import_t *result,
                                  abb_error_t *err)
{
    abb_segment_t *engine = store->engine;
    import_t import = {.now = now, .result = result};
    apr_status_t status = prepare(&import, image, image_size, keys, key_count);

    memset(result, 0, sizeof(*result));
    if (status == APR_SUCCESS && (status = abb_segment_lock(engine, err)) == APR_SUCCESS) {
        status = run_locked(engine, &import);
        abb_segment_unlock(engine);
    }
    free(import.words);
    free(import.candidates);
    return status;
}

apr_status_t abb_store_shm_survey(const void *image, apr_size_t image_size,
                                  const abb_store_shm_proof_key_t *keys, int key_count,
                                  apr_time_t now, abb_store_shm_import_t *result)
{
    import_t import = {.now = now, .result = result};
    apr_status_t status = prepare(&import, image, image_size, keys, key_count);

    memset(result, 0, sizeof(*result));
    if (status == APR_SUCCESS && (status = find_in_image(&import)) == APR_SUCCESS) {
        result->image = judge(&import);
        result->kept = import.candidate_count;
    }
    free(import.words);
    free(import.candidates);
    return status;
}
