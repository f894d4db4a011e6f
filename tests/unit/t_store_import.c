/*
 * store_shm: records of an earlier segment, as from a file that somebody has cut,
 * flipped or made.
 */
#include <string.h>

#include "shared.h"

#define NOW ((apr_time_t)1700000000 * APR_USEC_PER_SEC)
#define SECONDS(n) ((apr_time_t)(n)*APR_USEC_PER_SEC)
#define KIB ((apr_size_t)1024)
#define SEGMENT_SIZE (512 * KIB)

enum { RECORDS = 200 };

/* A store and the bytes it stands on. */
typedef struct {
    const abb_store_t *store;
    void *segment;
    apr_size_t size;
} stand_t;

static stand_t make_stand(apr_size_t size, const abb_store_shm_proof_key_t *key, apr_pool_t *p)
{
    stand_t stand = {NULL, NULL, size};
    apr_global_mutex_t *lock;
    apr_shm_t *shm;

    assert_int_equal(apr_shm_create(&shm, size, NULL, p), APR_SUCCESS);
    stand.segment = apr_shm_baseaddr_get(shm);
    assert_int_equal(apr_global_mutex_create(&lock, NULL, APR_LOCK_PROC_PTHREAD, p), APR_SUCCESS);
    assert_int_equal(abb_store_shm_format(stand.segment, size, SHARED_SEED), APR_SUCCESS);
    assert_int_equal(abb_store_shm_open(&stand.store, stand.segment, size, lock, key, p),
                     APR_SUCCESS);
    return stand;
}

static abb_store_key_t make_key(int number)
{
    abb_store_key_t key;

    memset(key.bytes, 0, sizeof(key.bytes));
    memcpy(key.bytes, &number, sizeof(number));
    return key;
}

/* What record `number` holds: sizes and bytes follow from the number. */
static abb_store_record_t make_record(int number, apr_pool_t *p)
{
    abb_store_record_t record;
    char *open = apr_palloc(p, (apr_size_t)(20 + number));
    char *sealed = apr_palloc(p, (apr_size_t)(100 + 3 * number));

    memset(&record, 0, sizeof(record));
    memset(open, number, (apr_size_t)(20 + number));
    memset(sealed, ~number, (apr_size_t)(100 + 3 * number));
    record.open = open;
    record.open_size = (apr_size_t)(20 + number);
    record.sealed = sealed;
    record.sealed_size = (apr_size_t)(100 + 3 * number);
    record.expires_at = NOW + SECONDS(86400);
    record.idle = SECONDS(3600);
    return record;
}

/* Record 0 is the longest unused. */
static void fill(const stand_t *stand, apr_pool_t *p)
{
    for (int i = 0; i < RECORDS; ++i) {
        abb_store_key_t key = make_key(i);
        abb_store_record_t record = make_record(i, p);

        assert_int_equal(abb_store_put(stand->store, &key, &record, NOW + i, NULL), APR_SUCCESS);
    }
}

static apr_status_t look(const stand_t *stand, int number, apr_time_t now, abb_store_record_t *got,
                         apr_pool_t *p)
{
    abb_store_key_t key = make_key(number);

    return abb_store_get(stand->store, &key, ABB_STORE_BOTH_PARTS, now, got, p, NULL);
}

/* How many of the records are there; what is there must be what was put. */
static int count_whole(const stand_t *stand, apr_pool_t *p)
{
    int count = 0;

    for (int i = 0; i < RECORDS; ++i) {
        abb_store_record_t expected = make_record(i, p);
        abb_store_record_t got;

        if (look(stand, i, NOW + SECONDS(1), &got, p) == APR_SUCCESS) {
            assert_int_equal(got.open_size, expected.open_size);
            assert_int_equal(got.sealed_size, expected.sealed_size);
            assert_memory_equal(got.open, expected.open, got.open_size);
            assert_memory_equal(got.sealed, expected.sealed, got.sealed_size);
            assert_true(got.last_seen == NOW + i);
            assert_true(got.idle == expected.idle && got.expires_at == expected.expires_at);
            ++count;
        }
    }
    return count;
}

static abb_store_shm_import_t import(const stand_t *into, const void *image, apr_size_t size,
                                     const abb_store_shm_proof_key_t *keys, int key_count,
                                     apr_time_t now)
{
    abb_store_shm_import_t result;

    assert_int_equal(
        abb_store_shm_import(into->store, image, size, keys, key_count, now, &result, NULL),
        APR_SUCCESS);
    assert_int_equal(abb_store_shm_check(into->store) != NULL, 0);
    return result;
}

static void *copy_of(const stand_t *stand, apr_pool_t *p)
{
    return apr_pmemdup(p, stand->segment, stand->size);
}

/* ---- what comes over ----------------------------------------------------- */

static void all_comes_over_to_any_size(void **state)
{
    static const apr_size_t sizes[] = {SEGMENT_SIZE, 2 * SEGMENT_SIZE, 16 * SEGMENT_SIZE};
    stand_t old = make_stand(SEGMENT_SIZE, &proof_key, *state);

    fill(&old, *state);
    for (size_t i = 0; i < UNIT_COUNT(sizes); ++i) {
        stand_t stand = make_stand(sizes[i], &proof_key, *state);
        abb_store_shm_import_t result =
            import(&stand, old.segment, old.size, &proof_key, 1, NOW + SECONDS(1));

        assert_int_equal(result.image, ABB_STORE_SHM_READ);
        assert_int_equal(result.kept, RECORDS);
        assert_int_equal(result.damaged + result.expired + result.left_out, 0);
        assert_int_equal(count_whole(&stand, *state), RECORDS);
    }
}

static void the_longest_unused_are_left_out(void **state)
{
    stand_t old = make_stand(SEGMENT_SIZE, &proof_key, *state);
    stand_t stand = make_stand(ABB_STORE_SHM_MIN, &proof_key, *state);
    abb_store_shm_import_t result;
    abb_store_record_t got;

    for (int round = 0; round < 4; ++round) {
        fill(&old, *state);
        for (int i = 0; i < RECORDS && round < 3; ++i) {
            abb_store_key_t key = make_key(i);
            assert_int_equal(abb_store_drop(old.store, &key, NULL), APR_SUCCESS);
        }
    }
    for (int i = 0; i < 100; ++i) {
        abb_store_record_t record = make_record(255, *state);
        abb_store_key_t key = make_key(1000 + i);

        record.sealed_size = 700;
        assert_int_equal(abb_store_put(old.store, &key, &record, NOW + SECONDS(1), NULL),
                         APR_SUCCESS);
    }
    result = import(&stand, old.segment, old.size, &proof_key, 1, NOW + SECONDS(2));
    assert_true(result.left_out > 20 && result.kept > 100);
    assert_int_equal(result.left_out + result.kept, RECORDS + 100);
    for (int i = 0; i < 100; ++i) {
        assert_int_equal(look(&stand, 1000 + i, NOW + SECONDS(2), &got, *state), APR_SUCCESS);
    }
    assert_int_equal(look(&stand, 0, NOW + SECONDS(2), &got, *state), APR_NOTFOUND);
    assert_int_equal(look(&stand, RECORDS - 1, NOW + SECONDS(2), &got, *state), APR_SUCCESS);
}

/* Who goes first when the new segment is full is who was unused longest before. */
static void the_order_of_use_comes_over(void **state)
{
    stand_t old = make_stand(SEGMENT_SIZE, &proof_key, *state);
    stand_t stand = make_stand(SEGMENT_SIZE, &proof_key, *state);
    abb_store_key_t key = make_key(0);
    abb_store_record_t got;

    fill(&old, *state);
    assert_int_equal(abb_store_touch(old.store, &key, NOW + SECONDS(1), NULL), APR_SUCCESS);
    import(&stand, old.segment, old.size, &proof_key, 1, NOW + SECONDS(1));
    for (int i = 0; look(&stand, 1, NOW + SECONDS(2), &got, *state) == APR_SUCCESS; ++i) {
        abb_store_record_t record = make_record(200, *state);

        assert_true(i < 5000);
        key = make_key(5000 + i);
        assert_int_equal(abb_store_put(stand.store, &key, &record, NOW + SECONDS(2), NULL),
                         APR_SUCCESS);
    }
    assert_int_equal(look(&stand, 0, NOW + SECONDS(2), &got, *state), APR_SUCCESS);
    assert_int_equal(look(&stand, RECORDS - 1, NOW + SECONDS(2), &got, *state), APR_SUCCESS);
}

static void a_lease_comes_over(void **state)
{
    stand_t old = make_stand(SEGMENT_SIZE, &proof_key, *state);
    stand_t stand = make_stand(SEGMENT_SIZE, &proof_key, *state);
    abb_store_key_t key = make_key(7);
    abb_store_key_t other = make_key(8);
    apr_uint64_t holder;
    apr_uint64_t another;

    fill(&old, *state);
    assert_int_equal(abb_store_lease(old.store, &key, SECONDS(10), NOW, &holder, NULL),
                     APR_SUCCESS);
    import(&stand, old.segment, old.size, &proof_key, 1, NOW + SECONDS(1));
    assert_int_equal(abb_store_lease(stand.store, &key, SECONDS(9), NOW + 1, &another, NULL),
                     ABB_ECHANGED);
    assert_int_equal(abb_store_lease(stand.store, &other, SECONDS(9), NOW + 1, &another, NULL),
                     APR_SUCCESS);
    assert_true(another != holder);
    assert_int_equal(abb_store_release(stand.store, &key, holder, NULL), APR_SUCCESS);
}

/* The lease is not proved; a flipped bit in it must not bar the record for years. */
static void an_incredible_lease_stays_behind(void **state)
{
    stand_t old = make_stand(SEGMENT_SIZE, &proof_key, *state);
    stand_t stand = make_stand(SEGMENT_SIZE, &proof_key, *state);
    abb_store_key_t key = make_key(7);
    abb_store_key_t other = make_key(8);
    abb_store_record_t got;
    apr_uint64_t holder;

    fill(&old, *state);
    assert_int_equal(abb_store_lease(old.store, &key, SECONDS(4000), NOW, &holder, NULL),
                     APR_SUCCESS);
    assert_int_equal(abb_store_lease(old.store, &other, SECONDS(4), NOW, &holder, NULL),
                     APR_SUCCESS);
    assert_int_equal(abb_store_fail(old.store, &other, holder, NOW + SECONDS(9), NULL),
                     APR_SUCCESS);
    import(&stand, old.segment, old.size, &proof_key, 1, NOW + SECONDS(1));
    assert_int_equal(abb_store_lease(stand.store, &key, SECONDS(9), NOW + 1, &holder, NULL),
                     APR_SUCCESS);
    assert_int_equal(look(&stand, 8, NOW, &got, *state), APR_SUCCESS);
    assert_true(got.failed_at == 0);
}

static void generations_go_on(void **state)
{
    stand_t old = make_stand(SEGMENT_SIZE, &proof_key, *state);
    stand_t stand = make_stand(SEGMENT_SIZE, &proof_key, *state);
    abb_store_record_t before;
    abb_store_record_t record = make_record(3, *state);
    abb_store_record_t got;
    abb_store_key_t key = make_key(900);

    fill(&old, *state);
    assert_int_equal(look(&old, RECORDS - 1, NOW, &before, *state), APR_SUCCESS);
    import(&stand, old.segment, old.size, &proof_key, 1, NOW + SECONDS(1));
    assert_int_equal(abb_store_put(stand.store, &key, &record, NOW, NULL), APR_SUCCESS);
    assert_int_equal(look(&stand, 900, NOW, &got, *state), APR_SUCCESS);
    assert_true(got.generation > before.generation);
    assert_int_equal(look(&stand, RECORDS - 1, NOW, &got, *state), APR_SUCCESS);
    assert_true(got.generation == before.generation);
}

static void what_has_expired_stays_behind(void **state)
{
    stand_t old = make_stand(SEGMENT_SIZE, &proof_key, *state);
    stand_t stand = make_stand(SEGMENT_SIZE, &proof_key, *state);
    abb_store_shm_import_t result;

    fill(&old, *state);
    /* Of record i the idle limit is at NOW + i + 3600 s. */
    result = import(&stand, old.segment, old.size, &proof_key, 1, NOW + 99 + SECONDS(3600));
    assert_int_equal(result.expired, 100);
    assert_int_equal(result.kept, RECORDS - 100);
    result = import(&stand, old.segment, old.size, &proof_key, 1, NOW + SECONDS(7200));
    assert_int_equal(result.image, ABB_STORE_SHM_READ);
    assert_int_equal(result.expired, RECORDS);
}

/* A record of tomorrow would live a day too long: the clock was wrong, or somebody lies. */
static void what_was_used_in_the_future_is_damaged(void **state)
{
    stand_t old = make_stand(SEGMENT_SIZE, &proof_key, *state);
    stand_t stand = make_stand(SEGMENT_SIZE, &proof_key, *state);

    fill(&old, *state);
    assert_int_equal(import(&stand, old.segment, old.size, &proof_key, 1, NOW - SECONDS(110)).kept,
                     RECORDS);
    stand = make_stand(SEGMENT_SIZE, &proof_key, *state);
    assert_int_equal(
        import(&stand, old.segment, old.size, &proof_key, 1, NOW - SECONDS(121)).damaged, RECORDS);
}

/* A new store has its own marks; a second import of the same adds nothing. */
static void an_import_twice_is_one(void **state)
{
    stand_t old = make_stand(SEGMENT_SIZE, &proof_key, *state);
    stand_t stand = make_stand(2 * SEGMENT_SIZE, &proof_key, *state);

    fill(&old, *state);
    assert_int_equal(import(&stand, old.segment, old.size, &proof_key, 1, NOW).kept, RECORDS);
    assert_int_equal(import(&stand, old.segment, old.size, &proof_key, 1, NOW).kept, 0);
    assert_int_equal(count_whole(&stand, *state), RECORDS);
}

/* Records that came over prove themselves in the new segment too. */
static void an_import_can_be_imported(void **state)
{
    static const abb_store_shm_proof_key_t keys[] = {{"the newer key"}, {"proof of a test"}};
    stand_t old = make_stand(SEGMENT_SIZE, &proof_key, *state);
    stand_t second = make_stand(SEGMENT_SIZE, &keys[0], *state);
    stand_t third = make_stand(SEGMENT_SIZE, &keys[0], *state);
    abb_store_key_t key = make_key(5);
    abb_store_record_t got;

    fill(&old, *state);
    assert_int_equal(import(&second, old.segment, old.size, keys, 2, NOW).kept, RECORDS);
    assert_int_equal(abb_store_touch(second.store, &key, NOW + SECONDS(50), NULL), APR_SUCCESS);
    assert_int_equal(import(&third, second.segment, second.size, keys, 1, NOW).kept, RECORDS);
    assert_int_equal(look(&third, 5, NOW, &got, *state), APR_SUCCESS);
    assert_true(got.last_seen == NOW + SECONDS(50));
}

/* ---- what is no store of ours -------------------------------------------- */

static void other_images_are_told_apart(void **state)
{
    static const abb_store_shm_proof_key_t other = {"another"};
    stand_t old = make_stand(SEGMENT_SIZE, &proof_key, *state);
    stand_t stand = make_stand(SEGMENT_SIZE, &proof_key, *state);
    unsigned char *image;
    abb_store_shm_import_t result;

    result = import(&stand, old.segment, old.size, &proof_key, 1, NOW);
    assert_int_equal(result.image, ABB_STORE_SHM_READ);
    fill(&old, *state);
    result = import(&stand, old.segment, old.size, &other, 1, NOW);
    assert_int_equal(result.image, ABB_STORE_SHM_OTHER_KEY);
    assert_int_equal(result.kept, 0);
    assert_int_equal(result.damaged, RECORDS);
    image = copy_of(&old, *state);
    image[8] ^= 1;
    assert_int_equal(import(&stand, image, old.size, &other, 1, NOW).image,
                     ABB_STORE_SHM_OTHER_VERSION);
    memset(image, 0, old.size);
    assert_int_equal(import(&stand, image, old.size, &proof_key, 1, NOW).image,
                     ABB_STORE_SHM_BLANK);
    assert_int_equal(import(&stand, image, 0, &proof_key, 1, NOW).image, ABB_STORE_SHM_BLANK);
    memset(image, 'x', old.size);
    assert_int_equal(import(&stand, image, old.size, &proof_key, 1, NOW).image,
                     ABB_STORE_SHM_NO_STORE);
    assert_int_equal(count_whole(&stand, *state), 0);
}

/* A made record needs the key, whatever else it knows. */
static void a_planted_record_is_not_believed(void **state)
{
    static const abb_store_shm_proof_key_t guessed = {"guessed"};
    stand_t old = make_stand(SEGMENT_SIZE, &proof_key, *state);
    stand_t planted = make_stand(SEGMENT_SIZE, &guessed, *state);
    stand_t stand = make_stand(SEGMENT_SIZE, &proof_key, *state);
    unsigned char *image;

    fill(&planted, *state);
    image = copy_of(&planted, *state);
    /* The header of a true store in front of it. */
    memcpy(image, old.segment, 256);
    assert_int_equal(import(&stand, image, planted.size, &proof_key, 1, NOW).kept, 0);
    assert_int_equal(count_whole(&stand, *state), 0);
}

/* ---- damage -------------------------------------------------------------- */

static apr_uint64_t next_random(apr_uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

/* One flipped bit anywhere costs the records it is in: at most the one whose block it is. */
static void a_flipped_bit_costs_one_record(void **state)
{
    enum { FLIPS = 1500 };
    stand_t old = make_stand(SEGMENT_SIZE, &proof_key, *state);
    unsigned char *image;
    apr_uint64_t random = 88172645463325252ULL;
    int damaged = 0;

    fill(&old, *state);
    image = copy_of(&old, *state);
    for (int i = 0; i < FLIPS; ++i) {
        apr_pool_t *p;
        stand_t stand;
        /* The header takes every other one. */
        apr_size_t at = next_random(&random) % (i % 2 ? 2048 : old.size / 2);
        unsigned char bit = (unsigned char)(1u << next_random(&random) % 8);
        abb_store_shm_import_t result;

        apr_pool_create(&p, *state);
        stand = make_stand(SEGMENT_SIZE, &proof_key, p);
        image[at] ^= bit;
        result = import(&stand, image, old.size, &proof_key, 1, NOW);
        image[at] ^= bit;
        assert_int_equal(result.image, ABB_STORE_SHM_READ);
        assert_true(result.kept >= RECORDS - 1 && result.damaged <= 1);
        assert_int_equal(count_whole(&stand, p), result.kept);
        damaged += (int)result.damaged;
        apr_pool_destroy(p);
    }
    assert_true(damaged > FLIPS / 20);
}

/* Many flips at once, down to noise. */
static void noise_costs_records_and_nothing_else(void **state)
{
    stand_t old = make_stand(SEGMENT_SIZE, &proof_key, *state);
    apr_uint64_t random = 4711;
    int rounds = 0;
    apr_uint64_t kept = RECORDS;
    unsigned char *image;

    fill(&old, *state);
    image = copy_of(&old, *state);
    for (; rounds < 400 && kept > 0; ++rounds) {
        apr_pool_t *p;
        stand_t stand;

        for (int i = 0; i < 1 << (rounds / 25); ++i) {
            image[next_random(&random) % old.size] = (unsigned char)next_random(&random);
        }
        apr_pool_create(&p, *state);
        stand = make_stand(ABB_STORE_SHM_MIN, &proof_key, p);
        kept = import(&stand, image, old.size, &proof_key, 1, NOW).kept;
        assert_int_equal(count_whole(&stand, p), kept);
        apr_pool_destroy(p);
    }
    assert_true(rounds > 100);
    assert_true(kept < RECORDS / 2);
}

/* Cut anywhere, what is in front of the cut is kept. */
static void a_cut_image_keeps_its_beginning(void **state)
{
    stand_t old = make_stand(SEGMENT_SIZE, &proof_key, *state);
    apr_uint64_t kept = 0;
    int steps = 0;

    fill(&old, *state);
    for (apr_size_t size = 0; size <= old.size; size += size < 64 ? 1 : 1021) {
        apr_pool_t *p;
        stand_t stand;
        abb_store_shm_import_t result;
        /* From the heap, so that a sanitizer sees what is read behind the cut. */
        void *image = malloc(size ? size : 1);

        memcpy(image, old.segment, size);
        apr_pool_create(&p, *state);
        stand = make_stand(SEGMENT_SIZE, &proof_key, p);
        result = import(&stand, image, size, &proof_key, 1, NOW);
        assert_true(result.kept >= kept);
        kept = result.kept;
        assert_int_equal(count_whole(&stand, p), kept);
        apr_pool_destroy(p);
        free(image);
        ++steps;
    }
    assert_true(steps > 500);
    assert_int_equal(kept, RECORDS);
}

/* Blocks that all claim to be records as large as can be, in one circle. */
static void circles_end(void **state)
{
    stand_t old = make_stand(8 * SEGMENT_SIZE, &proof_key, *state);
    stand_t stand = make_stand(SEGMENT_SIZE, &proof_key, *state);
    apr_uint32_t *words;
    apr_time_t start = apr_time_now();

    fill(&old, *state);
    words = copy_of(&old, *state);
    for (apr_size_t at = 65536 / 4; at + 32 <= old.size / 4; at += 32) {
        /* kind, next; behind key and chain the sizes */
        words[at] = 1;
        words[at + 1] = 100;
        words[at + 11] = words[at + 12] = ABB_STORE_RECORD_MAX;
    }
    assert_true(import(&stand, words, old.size, &proof_key, 1, NOW).damaged > 10000);
    assert_true(apr_time_now() - start < SECONDS(20));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        UNIT_TEST(all_comes_over_to_any_size),
        UNIT_TEST(the_longest_unused_are_left_out),
        UNIT_TEST(the_order_of_use_comes_over),
        UNIT_TEST(a_lease_comes_over),
        UNIT_TEST(an_incredible_lease_stays_behind),
        UNIT_TEST(generations_go_on),
        UNIT_TEST(what_has_expired_stays_behind),
        UNIT_TEST(what_was_used_in_the_future_is_damaged),
        UNIT_TEST(an_import_twice_is_one),
        UNIT_TEST(an_import_can_be_imported),
        UNIT_TEST(other_images_are_told_apart),
        UNIT_TEST(a_planted_record_is_not_believed),
        UNIT_TEST(a_flipped_bit_costs_one_record),
        UNIT_TEST(noise_costs_records_and_nothing_else),
        UNIT_TEST(a_cut_image_keeps_its_beginning),
        UNIT_TEST(circles_end),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
