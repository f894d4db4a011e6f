/*
 * t_store: the contract of a store, and what its engine in shared memory adds.
 *
 * The tests of the contract run for each engine of a table; those of the engine
 * in shared memory know that several processes work on it and may die.
 */
#include "abb_store.h"

#include <apr_thread_proc.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "abb_record.h"
#include "shared.h"
#include "unit.h"

/* ThreadSanitizer sees one process only and takes a mutex shared with others for a bad one. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ONE_PROCESS_ONLY 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define ONE_PROCESS_ONLY 1
#endif
#ifndef ONE_PROCESS_ONLY
#define ONE_PROCESS_ONLY 0
#endif

#define NOW apr_time_from_sec(1800000000)
#define SECONDS(n) apr_time_from_sec(n)
#define HOURS(n) apr_time_from_sec((n)*3600)
#define KIB 1024

/* ---- engines ------------------------------------------------------------- */

typedef struct {
    const char *name;
    /* An empty store of about this size. Lifetime: p. */
    const abb_store_t *(*create)(apr_size_t size, apr_pool_t *p);
    /* NULL when the store is whole, else what is wrong. */
    const char *(*check)(const abb_store_t *store);
} engine_maker_t;

static const engine_maker_t engines[] = {
    {"shm", shared_store, abb_store_shm_check},
};

/* What a test of the contract has. */
typedef struct {
    const engine_maker_t *engine;
    const abb_store_t *store;
    apr_pool_t *p;
} place_t;

typedef struct {
    const char *name;
    void (*run)(place_t *place);
} contract_t;

/* A test of the contract for one engine. */
typedef struct {
    const engine_maker_t *engine;
    const contract_t *contract;
} case_t;

static void check_whole(const place_t *place, const abb_store_t *store)
{
    const char *fault = place->engine->check(store);

    if (fault) {
        fail_msg("%s", fault);
    }
}

/* ---- records that describe themselves ------------------------------------ */

static apr_uint64_t mix(apr_uint64_t x)
{
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

static abb_store_key_t make_key(apr_uint64_t number)
{
    abb_store_key_t key;

    for (int i = 0; i < 4; ++i) {
        apr_uint64_t word = mix(number * 4 + (apr_uint64_t)i);

        memcpy(key.bytes + 8 * i, &word, 8);
    }
    return key;
}

/* Bytes that follow from a salt and a size alone. */
static void fill(char *bytes, apr_size_t size, apr_uint64_t salt)
{
    for (apr_size_t i = 0; i < size; ++i) {
        bytes[i] = (char)(mix(salt + i / 8) >> (i % 8 * 8));
    }
}

static int is_filled(const char *bytes, apr_size_t size, apr_uint64_t salt)
{
    for (apr_size_t i = 0; i < size; ++i) {
        if (bytes[i] != (char)(mix(salt + i / 8) >> (i % 8 * 8))) {
            return 0;
        }
    }
    return 1;
}

/* A record whose parts end exactly where they end. Lifetime: p. */
static abb_store_record_t make_record(apr_size_t open_size, apr_size_t sealed_size,
                                      apr_uint64_t salt, apr_pool_t *p)
{
    abb_store_record_t record;
    char *open = apr_palloc(p, open_size + 1);
    char *sealed = apr_palloc(p, sealed_size + 1);

    fill(open, open_size, salt);
    fill(sealed, sealed_size, ~salt);
    memset(&record, 0, sizeof(record));
    record.open = unit_bytes(open, open_size, p);
    record.open_size = open_size;
    record.sealed = unit_bytes(sealed, sealed_size, p);
    record.sealed_size = sealed_size;
    record.expires_at = NOW + HOURS(100);
    return record;
}

/* ---- steps of a test ----------------------------------------------------- */

static apr_status_t put_at(const abb_store_t *store, apr_uint64_t number,
                           const abb_store_record_t *record, apr_time_t now)
{
    abb_store_key_t key = make_key(number);

    return abb_store_put(store, &key, record, now, NULL);
}

/* Put a record of some hundred bytes. */
static apr_status_t put_small(place_t *place, apr_uint64_t number)
{
    abb_store_record_t record = make_record(100, 100, number, place->p);

    return put_at(place->store, number, &record, NOW);
}

static apr_status_t get_at(place_t *place, apr_uint64_t number, apr_time_t now,
                           abb_store_record_t *record)
{
    abb_store_key_t key = make_key(number);

    memset(record, 0x5a, sizeof(*record));
    return abb_store_get(place->store, &key, ABB_STORE_BOTH_PARTS, now, record, place->p, NULL);
}

static apr_status_t status_at(place_t *place, apr_uint64_t number, apr_time_t now)
{
    abb_store_record_t record;

    return get_at(place, number, now, &record);
}

static void check_content(const abb_store_record_t *record, apr_size_t open_size,
                          apr_size_t sealed_size, apr_uint64_t salt)
{
    assert_int_equal(record->open_size, open_size);
    assert_int_equal(record->sealed_size, sealed_size);
    assert_int_equal((uintptr_t)record->open % 8, 0);
    assert_true(is_filled(record->open, open_size, salt));
    assert_true(sealed_size == 0 || is_filled(record->sealed, sealed_size, ~salt));
}

static apr_status_t replace_at(place_t *place, apr_uint64_t number, apr_uint64_t generation,
                               const abb_store_record_t *record, apr_time_t now)
{
    abb_store_key_t key = make_key(number);

    return abb_store_replace(place->store, &key, generation, record, now, NULL);
}

static apr_status_t touch_at(place_t *place, apr_uint64_t number, apr_time_t now)
{
    abb_store_key_t key = make_key(number);

    return abb_store_touch(place->store, &key, now, NULL);
}

static apr_status_t lease_at(place_t *place, apr_uint64_t number, apr_interval_time_t duration,
                             apr_time_t now, apr_uint64_t *holder)
{
    abb_store_key_t key = make_key(number);

    *holder = 0;
    return abb_store_lease(place->store, &key, duration, now, holder, NULL);
}

static apr_status_t release_at(place_t *place, apr_uint64_t number, apr_uint64_t holder)
{
    abb_store_key_t key = make_key(number);

    return abb_store_release(place->store, &key, holder, NULL);
}

static apr_status_t drop_at(place_t *place, apr_uint64_t number)
{
    abb_store_key_t key = make_key(number);

    return abb_store_drop(place->store, &key, NULL);
}

static abb_store_figures_t figures_of(const abb_store_t *store)
{
    abb_store_figures_t figures;

    memset(&figures, 0x5a, sizeof(figures));
    abb_store_figures(store, &figures);
    return figures;
}

/* ---- the contract: one record -------------------------------------------- */

static void what_was_never_put_is_absent(place_t *place)
{
    abb_store_record_t record = make_record(10, 10, 1, place->p);
    apr_uint64_t holder;

    assert_int_equal(status_at(place, 1, NOW), APR_NOTFOUND);
    assert_int_equal(replace_at(place, 1, 0, &record, NOW), APR_NOTFOUND);
    assert_int_equal(replace_at(place, 1, 1, &record, NOW), APR_NOTFOUND);
    assert_int_equal(touch_at(place, 1, NOW), APR_NOTFOUND);
    assert_int_equal(lease_at(place, 1, SECONDS(1), NOW, &holder), APR_NOTFOUND);
    assert_int_equal(release_at(place, 1, 1), APR_NOTFOUND);
    assert_int_equal(drop_at(place, 1), APR_NOTFOUND);
    assert_int_equal(figures_of(place->store).records, 0);
}

static void what_was_put_comes_back(place_t *place)
{
    abb_store_record_t record = make_record(300, 700, 1, place->p);
    abb_store_record_t got;

    record.expires_at = NOW + HOURS(5);
    record.idle = HOURS(2);
    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(get_at(place, 1, NOW + SECONDS(1), &got), APR_SUCCESS);
    check_content(&got, 300, 700, 1);
    assert_true(got.expires_at == NOW + HOURS(5));
    assert_true(got.idle == HOURS(2));
    assert_true(got.last_seen == NOW);
}

static void the_sealed_part_comes_only_when_asked_for(place_t *place)
{
    abb_store_record_t record = make_record(300, 700, 1, place->p);
    abb_store_key_t key = make_key(1);
    abb_store_record_t got;

    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    memset(&got, 0x5a, sizeof(got));
    assert_int_equal(
        abb_store_get(place->store, &key, ABB_STORE_OPEN_PART, NOW, &got, place->p, NULL),
        APR_SUCCESS);
    assert_int_equal(got.open_size, 300);
    assert_true(is_filled(got.open, 300, 1));
    assert_null(got.sealed);
}

/* What comes out is a copy: neither side can change the other's. */
static void records_are_copied(place_t *place)
{
    char open[] = "as it was";
    abb_store_record_t record = make_record(0, 0, 1, place->p);
    abb_store_record_t got;

    record.open = open;
    record.open_size = sizeof(open);
    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    memset(open, 'x', sizeof(open));
    assert_int_equal(get_at(place, 1, NOW, &got), APR_SUCCESS);
    assert_string_equal(got.open, "as it was");
    memcpy((char *)(uintptr_t)got.open, "changed", 7);
    assert_int_equal(get_at(place, 1, NOW, &got), APR_SUCCESS);
    assert_string_equal(got.open, "as it was");
}

static void a_living_record_is_not_put_over(place_t *place)
{
    abb_store_record_t first = make_record(10, 10, 1, place->p);
    abb_store_record_t second = make_record(20, 20, 2, place->p);
    abb_store_record_t got;

    first.idle = HOURS(1);
    assert_int_equal(put_at(place->store, 1, &first, NOW), APR_SUCCESS);
    assert_int_equal(put_at(place->store, 1, &second, NOW), APR_EEXIST);
    assert_int_equal(put_at(place->store, 1, &second, NOW + HOURS(1) - 1), APR_EEXIST);
    assert_int_equal(get_at(place, 1, NOW, &got), APR_SUCCESS);
    check_content(&got, 10, 10, 1);
    assert_int_equal(put_at(place->store, 1, &second, NOW + HOURS(1)), APR_SUCCESS);
    assert_int_equal(get_at(place, 1, NOW + HOURS(1), &got), APR_SUCCESS);
    check_content(&got, 20, 20, 2);
    assert_int_equal(figures_of(place->store).records, 1);
}

static void a_dropped_record_is_gone_and_can_be_put_again(place_t *place)
{
    abb_store_record_t got;

    assert_int_equal(put_small(place, 1), APR_SUCCESS);
    assert_int_equal(put_small(place, 2), APR_SUCCESS);
    assert_int_equal(drop_at(place, 1), APR_SUCCESS);
    assert_int_equal(drop_at(place, 1), APR_NOTFOUND);
    assert_int_equal(status_at(place, 1, NOW), APR_NOTFOUND);
    assert_int_equal(get_at(place, 2, NOW, &got), APR_SUCCESS);
    check_content(&got, 100, 100, 2);
    assert_int_equal(put_small(place, 1), APR_SUCCESS);
    assert_int_equal(get_at(place, 1, NOW, &got), APR_SUCCESS);
    check_content(&got, 100, 100, 1);
}

/* ---- the contract: replacing --------------------------------------------- */

static void a_record_is_replaced_by_generation(place_t *place)
{
    abb_store_record_t got;
    apr_uint64_t generation;

    assert_int_equal(put_small(place, 1), APR_SUCCESS);
    for (apr_uint64_t i = 0; i < 100; ++i) {
        abb_store_record_t record = make_record((apr_size_t)(mix(i) % 3000),
                                                (apr_size_t)(mix(i + 1000) % 9000), i, place->p);

        assert_int_equal(get_at(place, 1, NOW, &got), APR_SUCCESS);
        generation = got.generation;
        assert_int_equal(replace_at(place, 1, generation + 1, &record, NOW), ABB_ECHANGED);
        assert_int_equal(replace_at(place, 1, generation, &record, NOW), APR_SUCCESS);
        assert_int_equal(replace_at(place, 1, generation, &record, NOW), ABB_ECHANGED);
        assert_int_equal(get_at(place, 1, NOW, &got), APR_SUCCESS);
        check_content(&got, record.open_size, record.sealed_size, i);
        assert_true(got.generation != generation);
    }
    assert_int_equal(figures_of(place->store).records, 1);
}

/* A record put anew is another one, also for who still knows the old one. */
static void a_new_record_is_not_taken_for_the_old_one(place_t *place)
{
    abb_store_record_t record = make_record(10, 10, 7, place->p);
    abb_store_record_t old;

    assert_int_equal(put_small(place, 1), APR_SUCCESS);
    assert_int_equal(get_at(place, 1, NOW, &old), APR_SUCCESS);
    assert_int_equal(drop_at(place, 1), APR_SUCCESS);
    assert_int_equal(replace_at(place, 1, old.generation, &record, NOW), APR_NOTFOUND);
    assert_int_equal(put_small(place, 1), APR_SUCCESS);
    assert_int_equal(replace_at(place, 1, old.generation, &record, NOW), ABB_ECHANGED);
}

static void a_replacement_brings_its_own_limits(place_t *place)
{
    abb_store_record_t record = make_record(10, 10, 1, place->p);
    abb_store_record_t got;

    record.idle = HOURS(2);
    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(get_at(place, 1, NOW, &got), APR_SUCCESS);
    record.idle = HOURS(3);
    record.expires_at = NOW + HOURS(50);
    assert_int_equal(replace_at(place, 1, got.generation, &record, NOW + HOURS(1)), APR_SUCCESS);
    assert_int_equal(get_at(place, 1, NOW + HOURS(1), &got), APR_SUCCESS);
    assert_true(got.idle == HOURS(3));
    assert_true(got.expires_at == NOW + HOURS(50));
    /* Replacing is no use of it. */
    assert_true(got.last_seen == NOW);
    assert_int_equal(status_at(place, 1, NOW + HOURS(3) - 1), APR_SUCCESS);
    assert_int_equal(status_at(place, 1, NOW + HOURS(3)), APR_NOTFOUND);
}

static void what_has_expired_is_not_replaced(place_t *place)
{
    abb_store_record_t record = make_record(10, 10, 1, place->p);
    abb_store_record_t got;

    record.expires_at = NOW + SECONDS(10);
    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(get_at(place, 1, NOW, &got), APR_SUCCESS);
    record.expires_at = NOW + HOURS(10);
    assert_int_equal(replace_at(place, 1, got.generation, &record, NOW + SECONDS(10)),
                     APR_NOTFOUND);
    assert_int_equal(status_at(place, 1, NOW + SECONDS(10)), APR_NOTFOUND);
}

/* ---- the contract: times ------------------------------------------------- */

static void a_record_ends_at_its_time(place_t *place)
{
    abb_store_record_t record = make_record(10, 10, 1, place->p);

    record.expires_at = NOW + SECONDS(100);
    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    for (int second = 0; second < 100; second += 9) {
        assert_int_equal(touch_at(place, 1, NOW + SECONDS(second)), APR_SUCCESS);
    }
    assert_int_equal(status_at(place, 1, NOW + SECONDS(100) - 1), APR_SUCCESS);
    assert_int_equal(status_at(place, 1, NOW + SECONDS(100)), APR_NOTFOUND);
    assert_int_equal(touch_at(place, 1, NOW + SECONDS(100)), APR_NOTFOUND);
}

static void a_record_ends_when_it_is_not_touched(place_t *place)
{
    abb_store_record_t record = make_record(10, 10, 1, place->p);
    abb_store_record_t got;

    record.idle = SECONDS(60);
    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(status_at(place, 1, NOW + SECONDS(60) - 1), APR_SUCCESS);
    /* A look is no use. */
    assert_int_equal(status_at(place, 1, NOW + SECONDS(60)), APR_NOTFOUND);
    assert_int_equal(touch_at(place, 1, NOW + SECONDS(50)), APR_SUCCESS);
    assert_int_equal(get_at(place, 1, NOW + SECONDS(110) - 1, &got), APR_SUCCESS);
    assert_true(got.last_seen == NOW + SECONDS(50));
    assert_int_equal(status_at(place, 1, NOW + SECONDS(110)), APR_NOTFOUND);
    assert_int_equal(touch_at(place, 1, NOW + SECONDS(110)), APR_NOTFOUND);
}

static void without_an_idle_limit_only_the_end_counts(place_t *place)
{
    abb_store_record_t record = make_record(10, 10, 1, place->p);

    record.idle = 0;
    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(status_at(place, 1, record.expires_at - 1), APR_SUCCESS);
    assert_int_equal(status_at(place, 1, record.expires_at), APR_NOTFOUND);
}

/* Two processes' clocks may differ a little. */
static void a_touch_of_the_past_takes_nothing_away(place_t *place)
{
    abb_store_record_t record = make_record(10, 10, 1, place->p);
    abb_store_record_t got;

    record.idle = SECONDS(60);
    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(touch_at(place, 1, NOW - SECONDS(30)), APR_SUCCESS);
    assert_int_equal(get_at(place, 1, NOW, &got), APR_SUCCESS);
    assert_true(got.last_seen == NOW);
}

static void an_expired_record_can_be_dropped_or_put_over(place_t *place)
{
    abb_store_record_t record = make_record(10, 10, 1, place->p);

    record.expires_at = NOW + 1;
    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(put_at(place->store, 1, &record, NOW + 1), APR_SUCCESS);
    assert_int_equal(status_at(place, 1, NOW + 1), APR_NOTFOUND);
    assert_int_equal(figures_of(place->store).records, 1);
    drop_at(place, 1);
    assert_int_equal(figures_of(place->store).records, 0);
}

/* ---- the contract: leases ------------------------------------------------ */

static void only_one_holds_the_lease(place_t *place)
{
    apr_uint64_t first;
    apr_uint64_t second;

    assert_int_equal(put_small(place, 1), APR_SUCCESS);
    assert_int_equal(put_small(place, 2), APR_SUCCESS);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW, &first), APR_SUCCESS);
    assert_true(first != 0);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW, &second), ABB_ECHANGED);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW + SECONDS(30) - 1, &second), ABB_ECHANGED);
    /* Another record has another lease. */
    assert_int_equal(lease_at(place, 2, SECONDS(30), NOW, &second), APR_SUCCESS);
    assert_true(second != first);
    assert_int_equal(release_at(place, 1, second), ABB_ECHANGED);
    assert_int_equal(release_at(place, 1, first), APR_SUCCESS);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW, &second), APR_SUCCESS);
    assert_true(second != first);
    assert_int_equal(release_at(place, 1, first), ABB_ECHANGED);
}

static void a_lease_runs_out(place_t *place)
{
    apr_uint64_t first;
    apr_uint64_t second;

    assert_int_equal(put_small(place, 1), APR_SUCCESS);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW, &first), APR_SUCCESS);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW + SECONDS(30), &second), APR_SUCCESS);
    assert_true(second != first);
    /* Who comes back late does not take it from the other. */
    assert_int_equal(release_at(place, 1, first), ABB_ECHANGED);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW + SECONDS(59), &first), ABB_ECHANGED);
    assert_int_equal(release_at(place, 1, second), APR_SUCCESS);
}

static void a_lease_stays_when_the_record_is_replaced(place_t *place)
{
    abb_store_record_t record = make_record(3000, 3000, 5, place->p);
    abb_store_record_t got;
    apr_uint64_t first;
    apr_uint64_t second;

    assert_int_equal(put_small(place, 1), APR_SUCCESS);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW, &first), APR_SUCCESS);
    assert_int_equal(get_at(place, 1, NOW, &got), APR_SUCCESS);
    assert_int_equal(replace_at(place, 1, got.generation, &record, NOW), APR_SUCCESS);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW + SECONDS(29), &second), ABB_ECHANGED);
    assert_int_equal(release_at(place, 1, first), APR_SUCCESS);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW, &second), APR_SUCCESS);
}

static void a_lease_goes_with_its_record(place_t *place)
{
    abb_store_record_t record = make_record(10, 10, 1, place->p);
    apr_uint64_t first;
    apr_uint64_t second;

    record.expires_at = NOW + SECONDS(10);
    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW, &first), APR_SUCCESS);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW + SECONDS(10), &second), APR_NOTFOUND);
    assert_int_equal(drop_at(place, 1), APR_SUCCESS);
    assert_int_equal(release_at(place, 1, first), APR_NOTFOUND);
    assert_int_equal(put_small(place, 1), APR_SUCCESS);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW, &second), APR_SUCCESS);
    assert_true(second != first);
}

static apr_status_t fail_at(place_t *place, apr_uint64_t number, apr_uint64_t holder,
                            apr_time_t now)
{
    abb_store_key_t key = make_key(number);

    return abb_store_fail(place->store, &key, holder, now, NULL);
}

static void a_record_tells_who_gave_up(place_t *place)
{
    abb_store_record_t record = make_record(50, 50, 1, place->p);
    abb_store_record_t got;
    apr_uint64_t first;
    apr_uint64_t second;

    record.failed_at = NOW + SECONDS(99);
    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(get_at(place, 1, NOW, &got), APR_SUCCESS);
    assert_true(got.failed_at == 0);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW, &first), APR_SUCCESS);
    assert_int_equal(fail_at(place, 1, first + 1, NOW + SECONDS(5)), ABB_ECHANGED);
    assert_int_equal(fail_at(place, 1, first, NOW + SECONDS(5)), APR_SUCCESS);
    assert_int_equal(get_at(place, 1, NOW + SECONDS(5), &got), APR_SUCCESS);
    assert_true(got.failed_at == NOW + SECONDS(5));
    /* The lease is free again, and giving it back takes nothing from the note. */
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW, &second), APR_SUCCESS);
    assert_int_equal(release_at(place, 1, second), APR_SUCCESS);
    assert_int_equal(get_at(place, 1, NOW, &got), APR_SUCCESS);
    assert_true(got.failed_at == NOW + SECONDS(5));
    /* What is new has not failed. */
    assert_int_equal(replace_at(place, 1, got.generation, &record, NOW), APR_SUCCESS);
    assert_int_equal(get_at(place, 1, NOW, &got), APR_SUCCESS);
    assert_true(got.failed_at == 0);
    assert_int_equal(fail_at(place, 2, 1, NOW), APR_NOTFOUND);
}

static void a_lease_changes_nothing_else(place_t *place)
{
    abb_store_record_t before;
    abb_store_record_t after;
    apr_uint64_t holder;

    assert_int_equal(put_small(place, 1), APR_SUCCESS);
    assert_int_equal(get_at(place, 1, NOW, &before), APR_SUCCESS);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW + SECONDS(5), &holder), APR_SUCCESS);
    assert_int_equal(get_at(place, 1, NOW + SECONDS(5), &after), APR_SUCCESS);
    check_content(&after, 100, 100, 1);
    assert_true(after.generation == before.generation);
    assert_true(after.last_seen == before.last_seen);
}

/* What was there before does not shine through. */
static void new_records_know_nothing_of_old_ones(place_t *place)
{
    abb_store_record_t junk = make_record(0, 50 * KIB, 1, place->p);
    abb_store_record_t record = make_record(20, 20, 2, place->p);
    abb_store_record_t got;
    apr_uint64_t holder;

    memset((char *)(uintptr_t)junk.sealed, 0x7f, junk.sealed_size);
    for (apr_uint64_t i = 0; i < 6; ++i) {
        assert_int_equal(put_at(place->store, 1, &junk, NOW), APR_SUCCESS);
        assert_int_equal(drop_at(place, 1), APR_SUCCESS);
        assert_int_equal(put_at(place->store, 2 + i, &record, NOW), APR_SUCCESS);
        assert_int_equal(get_at(place, 2 + i, NOW, &got), APR_SUCCESS);
        check_content(&got, 20, 20, 2);
        assert_true(got.failed_at == 0);
        assert_true(got.last_seen == NOW);
        assert_true(got.idle == 0);
        assert_int_equal(lease_at(place, 2 + i, SECONDS(5), NOW, &holder), APR_SUCCESS);
        assert_int_equal(release_at(place, 2 + i, holder), APR_SUCCESS);
    }
}

/* ---- the contract: sizes ------------------------------------------------- */

static void check_size(place_t *place, apr_size_t open_size, apr_size_t sealed_size)
{
    apr_uint64_t salt = open_size * 7919 + sealed_size;
    abb_store_record_t record = make_record(open_size, sealed_size, salt, place->p);
    abb_store_key_t key = make_key(1);
    abb_store_record_t got;
    apr_pool_t *p = place->p;

    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(get_at(place, 1, NOW, &got), APR_SUCCESS);
    check_content(&got, open_size, sealed_size, salt);
    assert_int_equal(abb_store_get(place->store, &key, ABB_STORE_OPEN_PART, NOW, &got, p, NULL),
                     APR_SUCCESS);
    assert_int_equal(got.open_size, open_size);
    assert_true(is_filled(got.open, open_size, salt));
    assert_int_equal(drop_at(place, 1), APR_SUCCESS);
}

static void check_size_in_own_pool(place_t *place, apr_size_t open_size, apr_size_t sealed_size)
{
    apr_pool_t *p = place->p;

    apr_pool_create(&place->p, p);
    check_size(place, open_size, sealed_size);
    apr_pool_destroy(place->p);
    place->p = p;
}

static void records_of_any_size_come_back(place_t *place)
{
    static const apr_size_t others[] = {0, 1, 7, 8, 9, 100};

    place->store = place->engine->create(2 * KIB * KIB, place->p);
    for (apr_size_t size = 0; size <= 1100; ++size) {
        check_size_in_own_pool(place, size, others[size % UNIT_COUNT(others)]);
        check_size_in_own_pool(place, others[size % UNIT_COUNT(others)], size);
    }
    check_whole(place, place->store);
}

/* Around each boundary of a block, whatever its size is, up to 100 KiB. */
static void sizes_around_boundaries_come_back(place_t *place)
{
    place->store = place->engine->create(2 * KIB * KIB, place->p);
    for (apr_size_t size = 1200; size <= 100 * KIB; size += size / 16 / 8 * 8 + 8) {
        check_size_in_own_pool(place, size - 1, 3);
        check_size_in_own_pool(place, size, size / 2);
        check_size_in_own_pool(place, 11, size + 1);
    }
    for (apr_size_t blocks = 1; blocks <= 400; blocks += blocks / 8 + 1) {
        for (apr_size_t at = 0; at <= 24; at += 4) {
            check_size_in_own_pool(place, blocks * 248 + 144 - 12 + at, 0);
            check_size_in_own_pool(place, 8, blocks * 248 + 144 - 12 + at);
        }
    }
    check_whole(place, place->store);
}

static void a_record_of_a_thousand_rows_comes_back(place_t *place)
{
    abb_grant_t *grants = apr_pcalloc(place->p, 1000 * sizeof(*grants));
    abb_store_record_t record = make_record(0, 9000, 1, place->p);
    abb_record_bytes_t open;
    abb_store_record_t got;
    abb_record_t decoded;
    abb_record_t rows;

    memset(&rows, 0, sizeof(rows));
    rows.account.uuid = "9a01f37b-b1b2-40c5-8c5e-1a39f4b5e645";
    rows.grants = grants;
    rows.grant_count = 1000;
    for (int i = 0; i < 1000; ++i) {
        grants[i].asked = grants[i].slug = apr_psprintf(place->p, "workspace-%d", i);
        grants[i].uuid = rows.account.uuid;
        grants[i].role = ABB_ROLE_MEMBER;
        grants[i].checked_at = NOW + i;
    }
    assert_int_equal(abb_record_encode(&rows, &open, place->p), APR_SUCCESS);
    record.open = open.bytes;
    record.open_size = open.size;
    place->store = place->engine->create(2 * KIB * KIB, place->p);
    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(get_at(place, 1, NOW, &got), APR_SUCCESS);
    assert_int_equal(abb_record_decode(got.open, got.open_size, &decoded, place->p), APR_SUCCESS);
    assert_int_equal(decoded.grant_count, 1000);
    assert_string_equal(decoded.grants[999].asked, "workspace-999");
    assert_true(decoded.grants[999].checked_at == NOW + 999);
    assert_true(is_filled(got.sealed, 9000, ~(apr_uint64_t)1));
    check_whole(place, place->store);
}

static void what_is_too_large_is_refused(place_t *place)
{
    abb_store_record_t quarter = make_record(100, 50 * KIB, 1, place->p);
    abb_store_record_t more = make_record(100, 70 * KIB, 2, place->p);
    abb_store_record_t most = make_record(100, ABB_STORE_RECORD_MAX - 100, 3, place->p);
    abb_store_record_t too_much = make_record(100, ABB_STORE_RECORD_MAX - 99, 4, place->p);
    abb_store_record_t got;
    abb_store_key_t key = make_key(1);
    abb_error_t err;

    /* 256 KiB in all: a quarter is less than 64 KiB. */
    assert_int_equal(put_at(place->store, 1, &quarter, NOW), APR_SUCCESS);
    abb_error_clear(&err);
    key = make_key(2);
    assert_int_equal(abb_store_put(place->store, &key, &more, NOW, &err), ABB_ESTORE);
    assert_int_equal(err.status, ABB_ESTORE);
    assert_int_equal(get_at(place, 1, NOW, &got), APR_SUCCESS);
    assert_int_equal(replace_at(place, 1, got.generation, &more, NOW), ABB_ESTORE);
    assert_int_equal(get_at(place, 1, NOW, &got), APR_SUCCESS);
    check_content(&got, 100, 50 * KIB, 1);
    check_whole(place, place->store);
    place->store = place->engine->create(9 * KIB * KIB, place->p);
    assert_int_equal(put_at(place->store, 3, &most, NOW), APR_SUCCESS);
    assert_int_equal(put_at(place->store, 4, &too_much, NOW), ABB_ESTORE);
    assert_int_equal(get_at(place, 3, NOW, &got), APR_SUCCESS);
    check_content(&got, 100, ABB_STORE_RECORD_MAX - 100, 3);
    check_whole(place, place->store);
}

/* ---- the contract: a full store ------------------------------------------ */

static void a_full_store_refuses_nothing(place_t *place)
{
    for (apr_uint64_t i = 0; i < 5000; ++i) {
        abb_store_record_t record =
            make_record((apr_size_t)(mix(i) % 2000), (apr_size_t)(mix(i + 9) % 5000), i, place->p);
        abb_store_record_t got;

        if (i % 97 == 0) {
            record = make_record(100, 50 * KIB, i, place->p);
        }
        assert_int_equal(put_at(place->store, i, &record, NOW + (apr_time_t)i), APR_SUCCESS);
        assert_int_equal(get_at(place, i, NOW + (apr_time_t)i, &got), APR_SUCCESS);
        check_content(&got, record.open_size, record.sealed_size, i);
    }
    assert_true(figures_of(place->store).evictions > 1000);
    assert_true(figures_of(place->store).bytes_used <= figures_of(place->store).bytes_capacity);
}

/* How many records of the kind of put_small fit into the store. */
static apr_uint64_t fill_store(place_t *place)
{
    apr_uint64_t count = 0;

    while (figures_of(place->store).evictions == 0) {
        abb_store_record_t record = make_record(100, 100, count, place->p);

        record.idle = HOURS(10);
        assert_int_equal(put_at(place->store, count, &record, NOW + (apr_time_t)count),
                         APR_SUCCESS);
        ++count;
    }
    return count;
}

static void the_longest_untouched_go_first(place_t *place)
{
    apr_uint64_t count = fill_store(place);
    apr_time_t later = NOW + SECONDS(60);

    assert_true(count > 200);
    assert_int_equal(status_at(place, 0, later), APR_NOTFOUND);
    for (apr_uint64_t i = 1; i < count; ++i) {
        assert_int_equal(status_at(place, i, later), APR_SUCCESS);
    }
    /* The oldest half is used again; then the other half goes. */
    for (apr_uint64_t i = 1; i < count / 2; ++i) {
        assert_int_equal(touch_at(place, i, later + (apr_time_t)i), APR_SUCCESS);
    }
    for (apr_uint64_t i = 0; i < count / 2; ++i) {
        abb_store_record_t record = make_record(100, 100, i, place->p);

        assert_int_equal(put_at(place->store, 10000 + i, &record, later + SECONDS(1)), APR_SUCCESS);
    }
    for (apr_uint64_t i = 1; i < count / 2; ++i) {
        assert_int_equal(status_at(place, i, later), APR_SUCCESS);
        assert_int_equal(status_at(place, 10000 + i, later), APR_SUCCESS);
    }
    for (apr_uint64_t i = count / 2; i < count - 1; ++i) {
        assert_int_equal(status_at(place, i, later), APR_NOTFOUND);
    }
}

/* Replacing is no use: who is replaced in the background goes as early as before. */
static void a_replacement_is_no_touch_for_eviction(place_t *place)
{
    apr_uint64_t count = fill_store(place);
    abb_store_record_t record = make_record(100, 100, 1, place->p);
    abb_store_record_t got;

    record.idle = HOURS(10);
    assert_int_equal(get_at(place, 1, NOW + SECONDS(1), &got), APR_SUCCESS);
    assert_int_equal(replace_at(place, 1, got.generation, &record, NOW + SECONDS(1)), APR_SUCCESS);
    for (apr_uint64_t i = 0; i < 10; ++i) {
        assert_int_equal(put_at(place->store, 10000 + i, &record, NOW + SECONDS(2)), APR_SUCCESS);
    }
    assert_int_equal(status_at(place, 1, NOW + SECONDS(2)), APR_NOTFOUND);
    assert_int_equal(status_at(place, count - 1, NOW + SECONDS(2)), APR_SUCCESS);
}

static void expired_records_go_before_living_ones(place_t *place)
{
    apr_uint64_t count = fill_store(place);
    apr_time_t later = NOW + HOURS(9);
    abb_store_figures_t before;

    /* All but every tenth go unused and expire. */
    for (apr_uint64_t i = 10; i < count; i += 10) {
        assert_int_equal(touch_at(place, i, later), APR_SUCCESS);
    }
    later = NOW + HOURS(11);
    before = figures_of(place->store);
    for (apr_uint64_t i = 0; i < count / 2; ++i) {
        abb_store_record_t record = make_record(100, 100, i, place->p);

        assert_int_equal(put_at(place->store, 10000 + i, &record, later), APR_SUCCESS);
    }
    for (apr_uint64_t i = 10; i < count; i += 10) {
        assert_int_equal(status_at(place, i, later), APR_SUCCESS);
    }
    assert_int_equal(figures_of(place->store).evictions, before.evictions);
    assert_true(figures_of(place->store).expired > before.expired);
}

/*
 * In a store of several thousand records, of which the most recently put ones
 * have expired and the longest untouched live.
 */
static void expired_records_go_first_in_a_large_store(place_t *place)
{
    apr_uint64_t count;
    apr_time_t later = NOW + SECONDS(60);

    place->store = place->engine->create(4 * KIB * KIB, place->p);
    count = (apr_uint64_t)figures_of(place->store).bytes_capacity / 512;
    for (apr_uint64_t i = 0; i < count; ++i) {
        abb_store_record_t record = make_record(150, 150, i, place->p);

        record.expires_at = i < count - 20 ? NOW + HOURS(100) : NOW + SECONDS(60);
        assert_int_equal(put_at(place->store, i, &record, NOW), APR_SUCCESS);
    }
    assert_int_equal(figures_of(place->store).evictions, 0);
    for (apr_uint64_t i = 0; i < 15; ++i) {
        abb_store_record_t record = make_record(150, 150, i, place->p);

        assert_int_equal(put_at(place->store, 100000 + i, &record, later), APR_SUCCESS);
    }
    assert_int_equal(figures_of(place->store).evictions, 0);
    for (apr_uint64_t i = 0; i < count - 20; ++i) {
        assert_int_equal(status_at(place, i, later), APR_SUCCESS);
    }
    check_whole(place, place->store);
}

enum { TENANTS = 400 };

/* When each record was last used, and whether it lives. */
typedef struct {
    apr_time_t last_seen;
    int is_living;
} tenant_t;

/* Look who lives; returns how many. *latest is the latest use of those who are gone now. */
static apr_int64_t count_living(place_t *place, tenant_t *tenants, apr_time_t now,
                                apr_uint64_t spared, apr_time_t *earliest, apr_time_t *latest)
{
    apr_int64_t count = 0;

    *earliest = APR_INT64_MAX;
    *latest = 0;
    for (apr_uint64_t i = 0; i < TENANTS; ++i) {
        int is_there = status_at(place, i, now) == APR_SUCCESS;

        if (i != spared && is_there && tenants[i].last_seen < *earliest) {
            *earliest = tenants[i].last_seen;
        }
        if (i != spared && tenants[i].is_living && !is_there && tenants[i].last_seen > *latest) {
            *latest = tenants[i].last_seen;
        }
        tenants[i].is_living = is_there;
        count += is_there;
    }
    return count;
}

static void move_tenant(place_t *place, tenant_t *tenants, apr_uint64_t random, apr_time_t now)
{
    apr_uint64_t number = random % TENANTS;
    abb_store_record_t record =
        make_record(100, (apr_size_t)(mix(random) % 3000), number, place->p);
    apr_int64_t evictions = figures_of(place->store).evictions;
    apr_time_t earliest;
    apr_time_t latest;
    abb_store_record_t got;
    apr_int64_t living;

    count_living(place, tenants, now, TENANTS, &earliest, &latest);
    record.expires_at = now + SECONDS(5 + mix(random) % 2000);
    record.idle = SECONDS(5 + mix(random + 1) % 400);
    if (!tenants[number].is_living) {
        assert_int_equal(put_at(place->store, number, &record, now), APR_SUCCESS);
        tenants[number].last_seen = now;
    }
    else if (random / TENANTS % 3) {
        assert_int_equal(touch_at(place, number, now), APR_SUCCESS);
        tenants[number].last_seen = now;
    }
    else {
        assert_int_equal(get_at(place, number, now, &got), APR_SUCCESS);
        assert_int_equal(replace_at(place, number, got.generation, &record, now), APR_SUCCESS);
    }
    living = count_living(place, tenants, now, number, &earliest, &latest);
    if (figures_of(place->store).evictions > evictions) {
        /*
         * No expired one is left, but one that was replaced by what expires at once; and
         * none that stayed was used before one that went.
         */
        assert_int_equal(figures_of(place->store).records, living + !tenants[number].is_living);
        assert_true(latest <= earliest);
    }
}

static void who_goes_is_expired_or_the_longest_untouched(place_t *place)
{
    static tenant_t tenants[TENANTS];
    apr_pool_t *p = place->p;
    apr_time_t now = NOW;

    memset(tenants, 0, sizeof(tenants));
    apr_pool_create(&place->p, p);
    for (apr_uint64_t i = 0; i < 1500; ++i) {
        now += apr_time_from_msec(mix(i) % 2000);
        move_tenant(place, tenants, mix(i + 31), now);
        apr_pool_clear(place->p);
    }
    apr_pool_destroy(place->p);
    place->p = p;
    assert_true(figures_of(place->store).evictions > 50);
    assert_true(figures_of(place->store).expired > 50);
}

/* A replacement makes room too, and never by throwing out what it replaces. */
static void a_replacement_in_a_full_store_succeeds(place_t *place)
{
    apr_uint64_t count = fill_store(place);
    abb_store_record_t record = make_record(100, 50 * KIB, 1, place->p);
    abb_store_record_t got;

    /* The longest untouched one is itself the one to replace. */
    assert_int_equal(get_at(place, 1, NOW + SECONDS(1), &got), APR_SUCCESS);
    assert_int_equal(replace_at(place, 1, got.generation, &record, NOW + SECONDS(1)), APR_SUCCESS);
    assert_int_equal(get_at(place, 1, NOW + SECONDS(1), &got), APR_SUCCESS);
    check_content(&got, 100, 50 * KIB, 1);
    assert_int_equal(status_at(place, count - 1, NOW + SECONDS(1)), APR_SUCCESS);
    assert_int_equal(status_at(place, 2, NOW + SECONDS(1)), APR_NOTFOUND);
}

/* ---- the contract: keys and figures -------------------------------------- */

/* Keys that are alike in all bytes but one, and many to a chain. */
static void keys_alike_are_told_apart(place_t *place)
{
    abb_store_key_t key = make_key(1);
    abb_store_record_t got;

    for (int i = 0; i < ABB_STORE_KEY_SIZE; ++i) {
        abb_store_record_t record = make_record(20, 20, (apr_uint64_t)i, place->p);

        key.bytes[i] ^= 0x80;
        assert_int_equal(abb_store_put(place->store, &key, &record, NOW, NULL), APR_SUCCESS);
        key.bytes[i] ^= 0x80;
        assert_int_equal(
            abb_store_get(place->store, &key, ABB_STORE_BOTH_PARTS, NOW, &got, place->p, NULL),
            APR_NOTFOUND);
    }
    for (int i = 0; i < ABB_STORE_KEY_SIZE; i += 3) {
        key.bytes[i] ^= 0x80;
        assert_int_equal(abb_store_drop(place->store, &key, NULL), APR_SUCCESS);
        key.bytes[i] ^= 0x80;
    }
    for (int i = 0; i < ABB_STORE_KEY_SIZE; ++i) {
        apr_status_t status;

        key.bytes[i] ^= 0x80;
        status = abb_store_get(place->store, &key, ABB_STORE_BOTH_PARTS, NOW, &got, place->p, NULL);
        key.bytes[i] ^= 0x80;
        assert_int_equal(status, i % 3 ? APR_SUCCESS : APR_NOTFOUND);
        if (i % 3) {
            check_content(&got, 20, 20, (apr_uint64_t)i);
        }
    }
}

static void many_records_share_few_chains(place_t *place)
{
    for (apr_uint64_t i = 0; i < 700; ++i) {
        abb_store_record_t record = make_record(50, 50, i, place->p);

        assert_int_equal(put_at(place->store, i, &record, NOW), APR_SUCCESS);
    }
    for (apr_uint64_t i = 0; i < 700; i += 2) {
        assert_int_equal(drop_at(place, i), APR_SUCCESS);
    }
    for (apr_uint64_t i = 0; i < 700; ++i) {
        abb_store_record_t got;

        assert_int_equal(get_at(place, i, NOW, &got), i % 2 ? APR_SUCCESS : APR_NOTFOUND);
        if (i % 2) {
            check_content(&got, 50, 50, i);
        }
    }
    assert_int_equal(figures_of(place->store).records, 350);
}

static void figures_follow_what_happens(place_t *place)
{
    abb_store_figures_t figures = figures_of(place->store);
    abb_store_record_t record = make_record(100, 2000, 1, place->p);
    apr_int64_t used;

    assert_int_equal(figures.records, 0);
    assert_int_equal(figures.bytes_used, 0);
    assert_true(figures.bytes_capacity > 200 * KIB && figures.bytes_capacity <= 256 * KIB);
    assert_int_equal(figures.hits, 0);
    assert_int_equal(figures.misses, 0);
    assert_int_equal(figures.evictions, 0);
    assert_int_equal(figures.expired, 0);
    assert_int_equal(figures.recoveries, 0);
    put_small(place, 1);
    used = figures_of(place->store).bytes_used;
    assert_true(used >= 200 && used <= 1024);
    assert_int_equal(put_at(place->store, 2, &record, NOW), APR_SUCCESS);
    figures = figures_of(place->store);
    assert_int_equal(figures.records, 2);
    assert_true(figures.bytes_used >= used + 2100);
    status_at(place, 1, NOW);
    status_at(place, 2, NOW);
    status_at(place, 3, NOW);
    figures = figures_of(place->store);
    assert_int_equal(figures.hits, 2);
    assert_int_equal(figures.misses, 1);
    drop_at(place, 2);
    assert_int_equal(figures_of(place->store).bytes_used, used);
    drop_at(place, 1);
    figures = figures_of(place->store);
    assert_int_equal(figures.records, 0);
    assert_int_equal(figures.bytes_used, 0);
    assert_int_equal(figures.evictions, 0);
}

/* ---- the contract: against a model --------------------------------------- */

enum { MODEL_KEYS = 40 };

/* What a record must be by the contract. */
typedef struct {
    int is_there;
    apr_size_t open_size;
    apr_size_t sealed_size;
    apr_uint64_t salt;
    apr_time_t expires_at;
    apr_interval_time_t idle;
    apr_time_t last_seen;
    apr_uint64_t generation;
    apr_uint64_t holder;
    apr_time_t leased_until;
} model_t;

static int is_living(const model_t *model, apr_time_t now)
{
    return model->is_there && now < model->expires_at &&
           (!model->idle || now < model->last_seen + model->idle);
}

static void note_content(model_t *model, const abb_store_record_t *record, apr_uint64_t salt)
{
    model->open_size = record->open_size;
    model->sealed_size = record->sealed_size;
    model->salt = salt;
    model->expires_at = record->expires_at;
    model->idle = record->idle;
}

static void check_model(place_t *place, model_t *model, apr_uint64_t number, apr_time_t now)
{
    abb_store_record_t got;
    apr_status_t status = get_at(place, number, now, &got);

    assert_int_equal(status, is_living(model, now) ? APR_SUCCESS : APR_NOTFOUND);
    if (status == APR_SUCCESS) {
        check_content(&got, model->open_size, model->sealed_size, model->salt);
        assert_true(got.expires_at == model->expires_at);
        assert_true(got.last_seen == model->last_seen);
        assert_true(!model->generation || got.generation == model->generation);
        model->generation = got.generation;
    }
}

static void step_put(place_t *place, model_t *model, apr_uint64_t number,
                     const abb_store_record_t *record, apr_uint64_t salt, apr_time_t now)
{
    apr_status_t status = put_at(place->store, number, record, now);

    assert_int_equal(status, is_living(model, now) ? APR_EEXIST : APR_SUCCESS);
    if (status == APR_SUCCESS) {
        memset(model, 0, sizeof(*model));
        note_content(model, record, salt);
        model->is_there = 1;
        model->last_seen = now;
    }
}

static void step_replace(place_t *place, model_t *model, apr_uint64_t number,
                         const abb_store_record_t *record, apr_uint64_t salt, apr_time_t now)
{
    apr_uint64_t generation = salt % 4 ? model->generation : model->generation + 1;
    apr_status_t status;

    check_model(place, model, number, now);
    generation = salt % 4 ? model->generation : model->generation + 1;
    status = replace_at(place, number, generation, record, now);
    assert_int_equal(status, !is_living(model, now)            ? APR_NOTFOUND
                             : generation == model->generation ? APR_SUCCESS
                                                               : ABB_ECHANGED);
    if (status == APR_SUCCESS) {
        note_content(model, record, salt);
        model->generation = 0;
    }
}

static void step_lease(place_t *place, model_t *model, apr_uint64_t number, apr_time_t now)
{
    apr_uint64_t holder;
    apr_status_t status = lease_at(place, number, SECONDS(20), now, &holder);

    assert_int_equal(status, !is_living(model, now)                       ? APR_NOTFOUND
                             : model->holder && now < model->leased_until ? ABB_ECHANGED
                                                                          : APR_SUCCESS);
    if (status == APR_SUCCESS) {
        model->holder = holder;
        model->leased_until = now + SECONDS(20);
    }
}

static void step(place_t *place, model_t *models, apr_uint64_t random, apr_time_t now)
{
    apr_uint64_t number = random % MODEL_KEYS;
    model_t *model = &models[number];
    apr_uint64_t salt = mix(random);
    abb_store_record_t record =
        make_record((apr_size_t)(salt % 700), (apr_size_t)(salt / 700 % 3000), salt, place->p);

    record.expires_at = now + SECONDS(salt % 300);
    record.idle = salt % 3 ? SECONDS(1 + salt % 100) : 0;
    switch (random / MODEL_KEYS % 8) {
    case 0:
    case 1:
        step_put(place, model, number, &record, salt, now);
        break;
    case 2:
        step_replace(place, model, number, &record, salt, now);
        break;
    case 3:
        assert_int_equal(touch_at(place, number, now),
                         is_living(model, now) ? APR_SUCCESS : APR_NOTFOUND);
        model->last_seen = is_living(model, now) ? now : model->last_seen;
        break;
    case 4:
        step_lease(place, model, number, now);
        break;
    case 5:
        if (is_living(model, now) && model->holder) {
            assert_int_equal(release_at(place, number, model->holder), APR_SUCCESS);
            model->holder = 0;
        }
        break;
    case 6:
        if (drop_at(place, number) == APR_NOTFOUND) {
            assert_false(is_living(model, now));
        }
        memset(model, 0, sizeof(*model));
        break;
    default:
        check_model(place, model, number, now);
    }
}

static void the_store_does_what_its_model_does(place_t *place)
{
    model_t models[MODEL_KEYS];
    apr_pool_t *p = place->p;
    apr_time_t now = NOW;

    memset(models, 0, sizeof(models));
    place->store = place->engine->create(KIB * KIB, p);
    apr_pool_create(&place->p, p);
    for (apr_uint64_t i = 0; i < 20000; ++i) {
        apr_uint64_t random = mix(mix(i) + 77);

        now += SECONDS(random >> 61);
        step(place, models, random >> 8, now);
        if (i % 100 == 0) {
            apr_pool_clear(place->p);
        }
    }
    apr_pool_destroy(place->p);
    place->p = p;
    assert_int_equal(figures_of(place->store).evictions, 0);
    check_whole(place, place->store);
}

/* ---- the segment --------------------------------------------------------- */

typedef struct {
    void *segment;
    apr_size_t size;
    apr_global_mutex_t *lock;
    const abb_store_t *store;
} segment_t;

static segment_t create_segment(apr_size_t size, apr_pool_t *p)
{
    segment_t made;
    apr_shm_t *shm;

    memset(&made, 0, sizeof(made));
    made.size = size;
    assert_int_equal(apr_shm_create(&shm, size, NULL, p), APR_SUCCESS);
    made.segment = apr_shm_baseaddr_get(shm);
    assert_int_equal(apr_global_mutex_create(&made.lock, NULL, APR_LOCK_PROC_PTHREAD, p),
                     APR_SUCCESS);
    return made;
}

static void segments_have_limits(void **state)
{
    segment_t made = create_segment(2 * ABB_STORE_SHM_MIN, *state);

    assert_int_equal(abb_store_shm_format(made.segment, 0, 1), APR_EINVAL);
    assert_int_equal(abb_store_shm_format(made.segment, 1, 1), APR_EINVAL);
    assert_int_equal(abb_store_shm_format(made.segment, ABB_STORE_SHM_MIN - 1, 1), APR_EINVAL);
    assert_int_equal(abb_store_shm_format(made.segment, ABB_STORE_SHM_MAX + 1, 1), APR_EINVAL);
    assert_false(abb_store_shm_is_formatted(made.segment, made.size));
    for (apr_size_t size = ABB_STORE_SHM_MIN; size < ABB_STORE_SHM_MIN + 600; ++size) {
        assert_int_equal(abb_store_shm_format(made.segment, size, size), APR_SUCCESS);
        assert_true(abb_store_shm_is_formatted(made.segment, size));
        assert_int_equal(
            abb_store_shm_open(&made.store, made.segment, size, made.lock, &proof_key, *state),
            APR_SUCCESS);
        shared_check(made.store);
    }
}

static void only_a_formatted_segment_opens(void **state)
{
    segment_t made = create_segment(2 * ABB_STORE_SHM_MIN, *state);
    unsigned char *bytes = made.segment;

    assert_false(abb_store_shm_is_formatted(made.segment, made.size));
    assert_int_equal(
        abb_store_shm_open(&made.store, made.segment, made.size, made.lock, &proof_key, *state),
        APR_EINVAL);
    assert_int_equal(abb_store_shm_format(made.segment, made.size, 1), APR_SUCCESS);
    assert_true(abb_store_shm_is_formatted(made.segment, made.size));
    assert_false(abb_store_shm_is_formatted(made.segment, made.size - 1));
    assert_false(abb_store_shm_is_formatted(made.segment, ABB_STORE_SHM_MIN));
    assert_false(abb_store_shm_is_formatted(made.segment, 0));
    /* Magic, version, size: whatever differs, it is not ours. */
    for (int i = 0; i < 12; ++i) {
        bytes[i] ^= 1;
        assert_false(abb_store_shm_is_formatted(made.segment, made.size));
        bytes[i] ^= 1;
    }
    assert_true(abb_store_shm_is_formatted(made.segment, made.size));
}

/* Segment and lock outlive the handles of one generation of the server. */
static void records_outlive_a_handle(void **state)
{
    segment_t made = create_segment(ABB_STORE_SHM_MIN, *state);
    place_t place = {&engines[0], NULL, *state};
    abb_store_record_t got;
    apr_pool_t *p;

    assert_int_equal(abb_store_shm_format(made.segment, made.size, 9), APR_SUCCESS);
    apr_pool_create(&p, *state);
    assert_int_equal(
        abb_store_shm_open(&place.store, made.segment, made.size, made.lock, &proof_key, p),
        APR_SUCCESS);
    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    apr_pool_destroy(p);
    assert_int_equal(
        abb_store_shm_open(&place.store, made.segment, made.size, made.lock, &proof_key, *state),
        APR_SUCCESS);
    assert_int_equal(get_at(&place, 1, NOW, &got), APR_SUCCESS);
    check_content(&got, 100, 100, 1);
    shared_check(place.store);
}

/* Processes may map a segment at different addresses. */
static void addresses_do_not_matter(void **state)
{
    segment_t made = create_segment(ABB_STORE_SHM_MIN, *state);
    place_t first = {&engines[0], NULL, *state};
    place_t second = {&engines[0], NULL, *state};
    apr_size_t size = ABB_STORE_SHM_MIN;
    int file = memfd_create("t_store", MFD_CLOEXEC);
    void *one = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    void *two;

    assert_int_equal(ftruncate(file, (off_t)size), 0);
    two = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    assert_true(one != MAP_FAILED && two != MAP_FAILED && one != two);
    assert_int_equal(abb_store_shm_format(one, size, 9), APR_SUCCESS);
    assert_int_equal(abb_store_shm_open(&first.store, one, size, made.lock, &proof_key, *state),
                     APR_SUCCESS);
    assert_int_equal(abb_store_shm_open(&second.store, two, size, made.lock, &proof_key, *state),
                     APR_SUCCESS);
    for (apr_uint64_t i = 0; i < 2000; ++i) {
        place_t *writer = i % 2 ? &first : &second;
        place_t *reader = i % 3 ? &first : &second;
        abb_store_record_t record = make_record(300, 300, i, *state);
        abb_store_record_t got;

        assert_int_equal(put_at(writer->store, i, &record, NOW), APR_SUCCESS);
        assert_int_equal(get_at(reader, i, NOW, &got), APR_SUCCESS);
        check_content(&got, 300, 300, i);
    }
    shared_check(first.store);
    shared_check(second.store);
    munmap(one, size);
    munmap(two, size);
    close(file);
}

/* ---- many at once -------------------------------------------------------- */

enum { CROWD_KEYS = 60 };

/* What the processes of a crowd share. */
typedef struct {
    int stop;
    int faults;
    char fault[200];
    apr_uint64_t operations;
    apr_interval_time_t longest;
    int started;
} board_t;

static board_t *create_board(apr_pool_t *p)
{
    apr_shm_t *shm;
    board_t *board;

    assert_int_equal(apr_shm_create(&shm, sizeof(*board), NULL, p), APR_SUCCESS);
    board = apr_shm_baseaddr_get(shm);
    memset(board, 0, sizeof(*board));
    return board;
}

static void note_fault(board_t *board, const char *what, apr_uint64_t number, apr_status_t status)
{
    if (__atomic_fetch_add(&board->faults, 1, __ATOMIC_SEQ_CST) == 0) {
        snprintf(board->fault, sizeof(board->fault), "%s of record %d: %s (%d)", what, (int)number,
                 abb_error_word(status), status);
    }
}

static void note_time(board_t *board, apr_time_t start)
{
    apr_interval_time_t taken = apr_time_now() - start;
    apr_interval_time_t longest = __atomic_load_n(&board->longest, __ATOMIC_RELAXED);

    __atomic_fetch_add(&board->operations, 1, __ATOMIC_RELAXED);
    while (taken > longest && !__atomic_compare_exchange_n(&board->longest, &longest, taken, 0,
                                                           __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
}

/* One worker: a thread or process with its own random numbers and pool. */
typedef struct {
    const abb_store_t *store;
    board_t *board;
    apr_uint64_t random;
    apr_pool_t *p;
    /* How long it works; NULL board->stop is looked at too. */
    apr_time_t until;
} worker_t;

static apr_uint64_t next_random(worker_t *worker)
{
    worker->random = mix(worker->random);
    return worker->random;
}

/* Both parts start with the salt and the number; the rest follows from them. */
static abb_store_record_t make_worker_record(worker_t *worker, apr_uint64_t number)
{
    apr_uint64_t salt = next_random(worker) * CROWD_KEYS + number;
    abb_store_record_t record;
    apr_size_t open_size = 16 + (apr_size_t)(salt >> 20) % 900;
    apr_size_t sealed_size = 16 + (apr_size_t)(salt >> 32) % (salt % 7 == 0 ? 9000 : 300);
    char *open = apr_palloc(worker->p, open_size);
    char *sealed = apr_palloc(worker->p, sealed_size);

    fill(open, open_size, salt);
    fill(sealed, sealed_size, ~salt);
    memcpy(open, &salt, 8);
    memcpy(open + 8, &number, 8);
    memcpy(sealed, &salt, 8);
    memcpy(sealed + 8, &number, 8);
    memset(&record, 0, sizeof(record));
    record.open = open;
    record.open_size = open_size;
    record.sealed = sealed;
    record.sealed_size = sealed_size;
    record.expires_at = NOW + HOURS(1);
    return record;
}

/* A part must be as make_worker_record makes it. *salt tells which record it is of. */
static int is_whole_part(const void *part, apr_size_t size, apr_uint64_t number, int is_sealed,
                         apr_uint64_t *salt)
{
    const char *bytes = part;
    apr_uint64_t words[2];

    if (size < 16) {
        return 0;
    }
    memcpy(words, bytes, 16);
    *salt = words[0];
    for (apr_size_t i = 16; i < size; ++i) {
        apr_uint64_t seed = is_sealed ? ~*salt : *salt;

        if (bytes[i] != (char)(mix(seed + i / 8) >> (i % 8 * 8))) {
            return 0;
        }
    }
    return words[1] == number &&
           size == 16 + (apr_size_t)(is_sealed ? (*salt >> 32) % (*salt % 7 == 0 ? 9000 : 300)
                                               : (*salt >> 20) % 900);
}

static int is_whole(const abb_store_record_t *record, apr_uint64_t number)
{
    apr_uint64_t open_salt;
    apr_uint64_t sealed_salt;

    if (!is_whole_part(record->open, record->open_size, number, 0, &open_salt)) {
        return 0;
    }
    return !record->sealed ||
           (is_whole_part(record->sealed, record->sealed_size, number, 1, &sealed_salt) &&
            sealed_salt == open_salt);
}

static apr_status_t worker_get(worker_t *worker, apr_uint64_t number, abb_store_parts_t parts,
                               abb_store_record_t *record)
{
    abb_store_key_t key = make_key(number);
    apr_status_t status = abb_store_get(worker->store, &key, parts, NOW, record, worker->p, NULL);

    if (status != APR_SUCCESS && status != APR_NOTFOUND) {
        note_fault(worker->board, "get", number, status);
    }
    else if (status == APR_SUCCESS && !is_whole(record, number)) {
        note_fault(worker->board, "torn content", number, status);
    }
    return status;
}

static void worker_write(worker_t *worker, apr_uint64_t number, apr_uint64_t choice)
{
    abb_store_key_t key = make_key(number);
    abb_store_record_t record = make_worker_record(worker, number);
    abb_store_record_t got;
    apr_status_t status = APR_SUCCESS;
    apr_uint64_t holder;

    switch (choice % 8) {
    case 0:
    case 1:
        status = abb_store_put(worker->store, &key, &record, NOW, NULL);
        break;
    case 2:
    case 3:
    case 4:
        if (worker_get(worker, number, ABB_STORE_BOTH_PARTS, &got) == APR_SUCCESS) {
            status = abb_store_replace(worker->store, &key, got.generation, &record, NOW, NULL);
        }
        break;
    case 5:
        status = abb_store_touch(worker->store, &key, NOW + (apr_time_t)(choice >> 40), NULL);
        break;
    case 6:
        status = abb_store_lease(worker->store, &key, 1, NOW, &holder, NULL);
        if (status == APR_SUCCESS) {
            abb_store_release(worker->store, &key, holder, NULL);
        }
        break;
    default:
        status = abb_store_drop(worker->store, &key, NULL);
    }
    if (status != APR_SUCCESS && status != APR_EEXIST && status != APR_NOTFOUND &&
        status != ABB_ECHANGED) {
        note_fault(worker->board, "write", number, status);
    }
}

/* Work until it is over; every fourth step writes. */
static void work(worker_t *worker)
{
    while (!__atomic_load_n(&worker->board->stop, __ATOMIC_RELAXED) &&
           apr_time_now() < worker->until) {
        apr_uint64_t choice = next_random(worker);
        apr_uint64_t number = choice / 64 % CROWD_KEYS;
        apr_time_t start = apr_time_now();
        abb_store_record_t record;

        if (choice % 4 == 0) {
            worker_write(worker, number, choice >> 32);
        }
        else {
            worker_get(worker, number, choice % 8 < 4 ? ABB_STORE_OPEN_PART : ABB_STORE_BOTH_PARTS,
                       &record);
        }
        note_time(worker->board, start);
        apr_pool_clear(worker->p);
    }
}

static void *run_worker(void *data)
{
    work(data);
    return NULL;
}

static void begin_worker(worker_t *worker, const abb_store_t *store, board_t *board,
                         apr_uint64_t random, apr_interval_time_t duration)
{
    worker->store = store;
    worker->board = board;
    worker->random = random;
    worker->until = apr_time_now() + duration;
    apr_pool_create(&worker->p, NULL);
}

enum { CROWD_THREADS = 3 };

static void work_in_threads(const abb_store_t *store, board_t *board, apr_uint64_t random,
                            apr_interval_time_t duration)
{
    worker_t workers[CROWD_THREADS];
    pthread_t threads[CROWD_THREADS];

    for (int i = 0; i < CROWD_THREADS; ++i) {
        begin_worker(&workers[i], store, board, mix(random + (apr_uint64_t)i), duration);
        if (pthread_create(&threads[i], NULL, run_worker, &workers[i]) != 0) {
            note_fault(board, "thread", 0, APR_EGENERAL);
            threads[i] = pthread_self();
        }
    }
    for (int i = 0; i < CROWD_THREADS; ++i) {
        if (!pthread_equal(threads[i], pthread_self())) {
            pthread_join(threads[i], NULL);
        }
        apr_pool_destroy(workers[i].p);
    }
}

static void check_board(const board_t *board)
{
    if (board->faults) {
        fail_msg("%d faults, first: %s", board->faults, board->fault);
    }
    assert_true(board->operations > 1000);
}

static void threads_read_whole_records(void **state)
{
    const abb_store_t *store = shared_store(ABB_STORE_SHM_MIN, *state);
    board_t *board = create_board(*state);

    work_in_threads(store, board, 1, SECONDS(1));
    check_board(board);
    shared_check(store);
    assert_int_equal(figures_of(store).recoveries, 0);
}

static void processes_read_whole_records(void **state)
{
    enum { CHILDREN = 4 };
    /* Room for half of the records: they also throw each other out. */
    const abb_store_t *store = shared_store(ABB_STORE_SHM_MIN, *state);
    board_t *board = create_board(*state);
    pid_t children[CHILDREN];

    if (ONE_PROCESS_ONLY) {
        skip();
    }
    for (int i = 0; i < CHILDREN; ++i) {
        children[i] = fork();
        if (children[i] == 0) {
            work_in_threads(store, board, (apr_uint64_t)i * 1000, SECONDS(2));
            _exit(0);
        }
        assert_true(children[i] > 0);
    }
    for (int i = 0; i < CHILDREN; ++i) {
        int how = -1;

        waitpid(children[i], &how, 0);
        assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    }
    check_board(board);
    shared_check(store);
    assert_int_equal(figures_of(store).recoveries, 0);
}

/* ---- death --------------------------------------------------------------- */

static pid_t start_survivor(const abb_store_t *store, board_t *board, apr_uint64_t random)
{
    pid_t child = fork();

    if (child == 0) {
        worker_t worker;

        begin_worker(&worker, store, board, random, SECONDS(60));
        work(&worker);
        _exit(0);
    }
    assert_true(child > 0);
    return child;
}

/* Put, replace, touch or drop a record that is ready: most of the time the lock is held. */
static void victim_write(worker_t *worker, const abb_store_record_t *record, apr_uint64_t number,
                         apr_uint64_t choice)
{
    abb_store_key_t key = make_key(number);
    abb_store_record_t got;
    apr_uint64_t holder;

    switch (choice % 4) {
    case 0:
        abb_store_drop(worker->store, &key, NULL);
        break;
    case 1:
        if (abb_store_lease(worker->store, &key, 1, NOW, &holder, NULL) == APR_SUCCESS) {
            abb_store_fail(worker->store, &key, holder, NOW, NULL);
        }
        break;
    case 2:
        abb_store_touch(worker->store, &key, NOW + (apr_time_t)(choice >> 40), NULL);
        break;
    default:
        if (abb_store_put(worker->store, &key, record, NOW, NULL) == APR_EEXIST &&
            abb_store_get(worker->store, &key, ABB_STORE_OPEN_PART, NOW, &got, worker->p, NULL) ==
                APR_SUCCESS) {
            abb_store_replace(worker->store, &key, got.generation, record, NOW, NULL);
        }
    }
}

/* A child that does nothing but write until it is killed. */
static pid_t start_victim(const abb_store_t *store, board_t *board, apr_uint64_t random)
{
    pid_t child = fork();

    if (child == 0) {
        worker_t worker;
        abb_store_record_t records[CROWD_KEYS];

        begin_worker(&worker, store, board, random, SECONDS(60));
        for (apr_uint64_t i = 0; i < CROWD_KEYS; ++i) {
            records[i] = make_worker_record(&worker, i);
        }
        apr_pool_create(&worker.p, NULL);
        __atomic_fetch_add(&board->started, 1, __ATOMIC_SEQ_CST);
        for (;;) {
            apr_uint64_t choice = next_random(&worker);

            victim_write(&worker, &records[choice % CROWD_KEYS], choice % CROWD_KEYS, choice >> 32);
            apr_pool_clear(worker.p);
        }
    }
    assert_true(child > 0);
    return child;
}

static void wait_for_start(board_t *board, int started)
{
    for (int i = 0; i < 2000 && __atomic_load_n(&board->started, __ATOMIC_SEQ_CST) < started; ++i) {
        apr_sleep(1000);
    }
    assert_true(__atomic_load_n(&board->started, __ATOMIC_SEQ_CST) >= started);
}

enum { SURVIVORS = 2, VICTIMS = 2, KILLS = 3000 };

/*
 * How long the longest operation takes in the same crowd while nobody dies. The
 * lock is not fair and the machine may be busy: only what comes on top counts.
 */
static apr_interval_time_t longest_in_peace(apr_pool_t *p)
{
    const abb_store_t *store = shared_store(ABB_STORE_SHM_MIN, p);
    board_t *board = create_board(p);
    pid_t crowd[SURVIVORS + VICTIMS];

    for (int i = 0; i < SURVIVORS + VICTIMS; ++i) {
        crowd[i] = i < SURVIVORS ? start_survivor(store, board, (apr_uint64_t)i + 50)
                                 : start_victim(store, board, (apr_uint64_t)i + 100);
    }
    apr_sleep(SECONDS(2));
    __atomic_store_n(&board->stop, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < SURVIVORS; ++i) {
        waitpid(crowd[i], NULL, 0);
    }
    for (int i = SURVIVORS; i < SURVIVORS + VICTIMS; ++i) {
        kill(crowd[i], SIGKILL);
        waitpid(crowd[i], NULL, 0);
    }
    return board->longest;
}

static void writers_may_die_at_any_moment(void **state)
{
    apr_interval_time_t peace;
    const abb_store_t *store = shared_store(ABB_STORE_SHM_MIN, *state);
    board_t *board = create_board(*state);
    apr_time_t until;
    pid_t survivors[SURVIVORS];
    pid_t victims[VICTIMS];
    apr_uint64_t random = 4711;
    int kills = 0;

    if (ONE_PROCESS_ONLY) {
        skip();
    }
    peace = longest_in_peace(*state);
    until = apr_time_now() + SECONDS(15);
    for (int i = 0; i < SURVIVORS; ++i) {
        survivors[i] = start_survivor(store, board, (apr_uint64_t)i + 50);
    }
    for (int i = 0; i < VICTIMS; ++i) {
        victims[i] = start_victim(store, board, (apr_uint64_t)i + 100);
    }
    while (kills < KILLS && apr_time_now() < until) {
        pid_t *victim = &victims[kills % VICTIMS];

        wait_for_start(board, kills + VICTIMS);
        random = mix(random);
        apr_sleep((apr_interval_time_t)(random % 1500));
        kill(*victim, SIGKILL);
        waitpid(*victim, NULL, 0);
        ++kills;
        *victim = start_victim(store, board, random);
    }
    for (int i = 0; i < VICTIMS; ++i) {
        kill(victims[i], SIGKILL);
        waitpid(victims[i], NULL, 0);
    }
    __atomic_store_n(&board->stop, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < SURVIVORS; ++i) {
        int how = -1;

        waitpid(survivors[i], &how, 0);
        assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    }
    check_board(board);
    shared_check(store);
    print_message("# %d writers killed, %d recoveries, longest operation %d ms, in peace %d ms\n",
                  kills, (int)figures_of(store).recoveries, (int)apr_time_as_msec(board->longest),
                  (int)apr_time_as_msec(peace));
    assert_true(kills >= 200);
    assert_true(figures_of(store).recoveries > kills / 20);
    assert_true(figures_of(store).recoveries <= kills + VICTIMS);
    assert_true(board->longest < SECONDS(1) + 5 * peace);
}

/* ---- death at each instruction ------------------------------------------- */

/*
 * A child does one operation, instruction by instruction. After each that changed
 * the segment, a copy of it is what the child's death would have left: another
 * process must be able to go on with it.
 */
enum { BYSTANDERS = 6, SUBJECT = 100, LARGE_SIZE = 1500 };

/*
 * After so long, as under a sanitizer, only one in so many instructions is looked
 * at, and after so much longer the rest goes unseen.
 */
#define WALK_PATIENCE apr_time_from_msec(1500)
#define WALK_STRIDE 41
#define WALK_REST apr_time_from_msec(1000)

/* After so many changes of the segment a replacement is under way, its links half made. */
#define TORN_AFTER 260

typedef struct {
    const char *name;
    /* What is there before; the bystanders are. */
    void (*prepare)(place_t *place);
    void (*operate)(place_t *place);
    /* Whether the subject may be absent, as before, or new afterwards. */
    int may_be_absent;
    int may_be_old;
    int may_be_new;
    /* Whether bystanders may be gone: the store is full. */
    int may_evict;
} death_t;

static abb_store_record_t old_subject;
static abb_store_record_t new_subject;
static apr_uint64_t subject_generation;
static apr_uint64_t subject_holder;
static const segment_t *live_segment;

static void prepare_nothing(place_t *place)
{
}

static void prepare_subject(place_t *place)
{
    abb_store_record_t got;

    assert_int_equal(put_at(place->store, SUBJECT, &old_subject, NOW), APR_SUCCESS);
    assert_int_equal(get_at(place, SUBJECT, NOW, &got), APR_SUCCESS);
    subject_generation = got.generation;
}

/* The new one will stand before the old one in the segment. */
static void prepare_subject_behind_free_blocks(place_t *place)
{
    abb_store_record_t filler = make_record(100, 3000, 1, place->p);

    assert_int_equal(put_at(place->store, 300, &filler, NOW), APR_SUCCESS);
    prepare_subject(place);
    assert_int_equal(drop_at(place, 300), APR_SUCCESS);
}

static void prepare_lease(place_t *place)
{
    prepare_subject(place);
    assert_int_equal(lease_at(place, SUBJECT, SECONDS(10), NOW, &subject_holder), APR_SUCCESS);
}

static void prepare_expired(place_t *place)
{
    abb_store_record_t record = make_record(50, 700, 1, place->p);

    record.expires_at = NOW;
    assert_int_equal(put_at(place->store, SUBJECT, &record, NOW - 1), APR_SUCCESS);
    for (apr_uint64_t i = 0; i < 3; ++i) {
        assert_int_equal(put_at(place->store, 200 + i, &record, NOW - 1), APR_SUCCESS);
    }
}

static void fill_up(place_t *place)
{
    abb_store_record_t record = make_record(100, 1000, 1, place->p);

    for (apr_uint64_t i = 1000; figures_of(place->store).evictions == 0; ++i) {
        assert_int_equal(put_at(place->store, i, &record, NOW), APR_SUCCESS);
    }
}

static void prepare_full(place_t *place)
{
    fill_up(place);
    prepare_subject(place);
}

static void operate_put(place_t *place)
{
    put_at(place->store, SUBJECT, &new_subject, NOW);
}

static void operate_replace(place_t *place)
{
    replace_at(place, SUBJECT, subject_generation, &new_subject, NOW);
}

static void operate_touch(place_t *place)
{
    touch_at(place, SUBJECT, NOW + 5);
}

static void operate_drop(place_t *place)
{
    drop_at(place, SUBJECT);
}

static void operate_lease(place_t *place)
{
    apr_uint64_t holder;

    lease_at(place, SUBJECT, SECONDS(10), NOW, &holder);
}

static void operate_release(place_t *place)
{
    release_at(place, SUBJECT, subject_holder);
}

static void operate_fail(place_t *place)
{
    abb_store_key_t key = make_key(SUBJECT);

    abb_store_fail(place->store, &key, subject_holder, NOW, NULL);
}

/* Whoever takes the lock first after a death. */
static void operate_next(place_t *place)
{
    drop_at(place, SUBJECT + 1);
}

static pid_t start_traced(place_t *place, void (*operate)(place_t *));
static int step_child(pid_t *child);
static void end_child(pid_t child);

/* A writer has died in the middle of a replacement. */
static void prepare_torn(place_t *place)
{
    apr_size_t size = live_segment->size;
    char *last = apr_palloc(place->p, size);
    pid_t child;
    int changes = 0;

    prepare_subject(place);
    memcpy(last, live_segment->segment, size);
    child = start_traced(place, operate_replace);
    while (child && changes < TORN_AFTER && step_child(&child)) {
        if (memcmp(last, live_segment->segment, size) != 0) {
            memcpy(last, live_segment->segment, size);
            ++changes;
        }
    }
    end_child(child);
}

static const death_t deaths[] = {
    {"put", prepare_nothing, operate_put, 1, 0, 1, 0},
    {"put into a full store", fill_up, operate_put, 1, 0, 1, 1},
    {"put over an expired one", prepare_expired, operate_put, 1, 0, 1, 0},
    {"replace", prepare_subject, operate_replace, 0, 1, 1, 0},
    {"replace further in front", prepare_subject_behind_free_blocks, operate_replace, 0, 1, 1, 0},
    {"replace in a full store", prepare_full, operate_replace, 0, 1, 1, 1},
    {"touch", prepare_subject, operate_touch, 0, 1, 0, 0},
    {"drop", prepare_subject, operate_drop, 1, 1, 0, 0},
    {"lease", prepare_subject, operate_lease, 0, 1, 0, 0},
    {"release", prepare_lease, operate_release, 0, 1, 0, 0},
    {"fail", prepare_lease, operate_fail, 0, 1, 0, 0},
    {"recovery", prepare_torn, operate_next, 0, 1, 0, 0},
};

static const char *judge_bystanders(place_t *place, const death_t *death)
{
    for (apr_uint64_t i = 0; i < BYSTANDERS; ++i) {
        abb_store_record_t got;
        apr_status_t status = get_at(place, i, NOW, &got);

        if (status != APR_SUCCESS && !(death->may_evict && status == APR_NOTFOUND)) {
            return "a bystander is gone";
        }
        if (status == APR_SUCCESS &&
            (got.open_size != 100 || got.sealed_size != 400 || !is_filled(got.open, 100, i) ||
             !is_filled(got.sealed, 400, ~i))) {
            return "a bystander is changed";
        }
    }
    return NULL;
}

static int is_same(const abb_store_record_t *got, const abb_store_record_t *expected)
{
    return got->open_size == expected->open_size && got->sealed_size == expected->sealed_size &&
           memcmp(got->open, expected->open, got->open_size) == 0 &&
           memcmp(got->sealed, expected->sealed, got->sealed_size) == 0;
}

static const char *judge_subject(place_t *place, const death_t *death)
{
    abb_store_record_t seen;
    abb_store_record_t kept;
    apr_status_t status = get_at(place, SUBJECT, NOW, &seen);
    const char *fault = abb_store_shm_check(place->store);

    /* What a reader saw before anybody took the lock and repaired must stay true. */
    if (fault || get_at(place, SUBJECT, NOW, &kept) != status) {
        return fault ? fault : "a record that was there is gone, or the other way round";
    }
    if (status == APR_NOTFOUND) {
        return death->may_be_absent ? NULL : "the record is gone";
    }
    if (status != APR_SUCCESS) {
        return "the record cannot be read";
    }
    if (!is_same(&seen, &kept)) {
        return "another record is there after the repair";
    }
    if ((death->may_be_old && is_same(&seen, &old_subject)) ||
        (death->may_be_new && is_same(&seen, &new_subject))) {
        return NULL;
    }
    return "the record is neither the old nor the new one";
}

/* What the survivors find, and that they can go on: NULL, or what is wrong. */
static const char *judge_death(place_t *place, const death_t *death)
{
    abb_store_record_t more = make_record(200, 3000, 9, place->p);
    const char *fault = judge_subject(place, death);
    abb_store_record_t got;

    if (fault || (fault = judge_bystanders(place, death))) {
        return fault;
    }
    if (put_at(place->store, 500, &more, NOW) != APR_SUCCESS ||
        get_at(place, 500, NOW, &got) != APR_SUCCESS || !is_same(&got, &more)) {
        return "nothing can be put any more";
    }
    drop_at(place, SUBJECT);
    if (status_at(place, SUBJECT, NOW) != APR_NOTFOUND) {
        return "a dropped record comes back";
    }
    return abb_store_shm_check(place->store);
}

/* Stop at the next instruction. Returns 0, and so does *child, when it has ended. */
static int step_child(pid_t *child)
{
    int how = 0;

    if (ptrace(PTRACE_SINGLESTEP, *child, NULL, NULL) != 0) {
        return 0;
    }
    if (waitpid(*child, &how, 0) != *child || !WIFSTOPPED(how)) {
        *child = 0;
        return 0;
    }
    return 1;
}

static void end_child(pid_t child)
{
    if (child) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
}

/* A child that stops before its operation; 0 when it cannot be traced. */
static pid_t start_traced(place_t *place, void (*operate)(place_t *))
{
    int how = 0;
    pid_t child = fork();

    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
            _exit(1);
        }
        raise(SIGSTOP);
        operate(place);
        _exit(0);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &how, 0), child);
    return WIFSTOPPED(how) ? child : 0;
}

/* Each state of the segment while one operation runs; returns how many there were. */
static int walk(place_t *place, const death_t *death, const segment_t *live, const segment_t *copy,
                void *last)
{
    pid_t child = start_traced(place, death->operate);
    apr_time_t patience = apr_time_now() + WALK_PATIENCE;
    int repairs = 0;
    int states = 0;
    int steps = 0;

    if (!child) {
        return 0;
    }
    memset(last, 0, live->size);
    do {
        place_t survivor = {place->engine, copy->store, NULL};
        const char *fault;

        if ((++steps % WALK_STRIDE && apr_time_now() > patience) ||
            memcmp(last, live->segment, live->size) == 0) {
            continue;
        }
        memcpy(last, live->segment, live->size);
        memcpy(copy->segment, live->segment, live->size);
        apr_pool_create(&survivor.p, place->p);
        fault = judge_death(&survivor, death);
        apr_pool_destroy(survivor.p);
        repairs += figures_of(copy->store).recoveries > figures_of(live->store).recoveries;
        ++states;
        if (fault) {
            end_child(child);
            fail_msg("%s, state %d: %s", death->name, states, fault);
        }
    } while (apr_time_now() < patience + WALK_REST && step_child(&child));
    end_child(child);
    assert_true(repairs > 0);
    return states;
}

static void check_death(const death_t *death, apr_pool_t *p)
{
    segment_t live = create_segment(ABB_STORE_SHM_MIN, p);
    segment_t copy = create_segment(ABB_STORE_SHM_MIN, p);
    place_t place = {&engines[0], NULL, p};
    int states;

    old_subject = make_record(600, 300, 21, p);
    new_subject = make_record(100, LARGE_SIZE, 22, p);
    assert_int_equal(abb_store_shm_format(live.segment, live.size, 1), APR_SUCCESS);
    assert_int_equal(abb_store_shm_format(copy.segment, copy.size, 1), APR_SUCCESS);
    assert_int_equal(
        abb_store_shm_open(&live.store, live.segment, live.size, live.lock, &proof_key, p),
        APR_SUCCESS);
    assert_int_equal(
        abb_store_shm_open(&copy.store, copy.segment, copy.size, copy.lock, &proof_key, p),
        APR_SUCCESS);
    place.store = live.store;
    for (apr_uint64_t i = 0; i < BYSTANDERS; ++i) {
        abb_store_record_t record = make_record(100, 400, i, p);

        assert_int_equal(put_at(place.store, i, &record, NOW), APR_SUCCESS);
    }
    live_segment = &live;
    death->prepare(&place);
    states = walk(&place, death, &live, &copy, apr_palloc(p, live.size));
    if (states == 0) {
        print_message("# no child can be traced here\n");
        skip();
    }
    assert_true(states > 2);
}

static void a_writer_may_die_at_each_instruction(void **state)
{
    if (ONE_PROCESS_ONLY) {
        skip();
    }
    for (apr_size_t i = 0; i < UNIT_COUNT(deaths); ++i) {
        apr_pool_t *p;

        apr_pool_create(&p, *state);
        check_death(&deaths[i], p);
        apr_pool_destroy(p);
    }
}

/* ---- all of them --------------------------------------------------------- */

#define CONTRACT(function)  \
    {                       \
#function, function \
    }

static const contract_t contracts[] = {
    CONTRACT(what_was_never_put_is_absent),
    CONTRACT(what_was_put_comes_back),
    CONTRACT(the_sealed_part_comes_only_when_asked_for),
    CONTRACT(records_are_copied),
    CONTRACT(a_living_record_is_not_put_over),
    CONTRACT(a_dropped_record_is_gone_and_can_be_put_again),
    CONTRACT(a_record_is_replaced_by_generation),
    CONTRACT(a_new_record_is_not_taken_for_the_old_one),
    CONTRACT(a_replacement_brings_its_own_limits),
    CONTRACT(what_has_expired_is_not_replaced),
    CONTRACT(a_record_ends_at_its_time),
    CONTRACT(a_record_ends_when_it_is_not_touched),
    CONTRACT(without_an_idle_limit_only_the_end_counts),
    CONTRACT(a_touch_of_the_past_takes_nothing_away),
    CONTRACT(an_expired_record_can_be_dropped_or_put_over),
    CONTRACT(only_one_holds_the_lease),
    CONTRACT(a_lease_runs_out),
    CONTRACT(a_lease_stays_when_the_record_is_replaced),
    CONTRACT(a_lease_goes_with_its_record),
    CONTRACT(a_record_tells_who_gave_up),
    CONTRACT(a_lease_changes_nothing_else),
    CONTRACT(new_records_know_nothing_of_old_ones),
    CONTRACT(records_of_any_size_come_back),
    CONTRACT(sizes_around_boundaries_come_back),
    CONTRACT(a_record_of_a_thousand_rows_comes_back),
    CONTRACT(what_is_too_large_is_refused),
    CONTRACT(a_full_store_refuses_nothing),
    CONTRACT(the_longest_untouched_go_first),
    CONTRACT(a_replacement_is_no_touch_for_eviction),
    CONTRACT(expired_records_go_before_living_ones),
    CONTRACT(expired_records_go_first_in_a_large_store),
    CONTRACT(who_goes_is_expired_or_the_longest_untouched),
    CONTRACT(a_replacement_in_a_full_store_succeeds),
    CONTRACT(keys_alike_are_told_apart),
    CONTRACT(many_records_share_few_chains),
    CONTRACT(figures_follow_what_happens),
    CONTRACT(the_store_does_what_its_model_does),
};

static void run_contract(void **state)
{
    const case_t *test = *state;
    place_t place = {test->engine, NULL, NULL};
    apr_pool_t *p;

    assert_int_equal(apr_pool_create(&p, NULL), APR_SUCCESS);
    place.p = p;
    place.store = test->engine->create(ABB_STORE_SHM_MIN, p);
    test->contract->run(&place);
    check_whole(&place, place.store);
    apr_pool_destroy(p);
}

int main(void)
{
    enum { CONTRACTS = UNIT_COUNT(contracts), ENGINES = UNIT_COUNT(engines) };
    static const struct CMUnitTest own[] = {
        UNIT_TEST(segments_have_limits),          UNIT_TEST(only_a_formatted_segment_opens),
        UNIT_TEST(records_outlive_a_handle),      UNIT_TEST(addresses_do_not_matter),
        UNIT_TEST(threads_read_whole_records),    UNIT_TEST(processes_read_whole_records),
        UNIT_TEST(writers_may_die_at_any_moment), UNIT_TEST(a_writer_may_die_at_each_instruction),
    };
    static case_t cases[CONTRACTS * ENGINES];
    static struct CMUnitTest tests[CONTRACTS * ENGINES + UNIT_COUNT(own)];
    static char names[CONTRACTS * ENGINES][100];

    for (size_t i = 0; i < CONTRACTS * ENGINES; ++i) {
        cases[i].engine = &engines[i / CONTRACTS];
        cases[i].contract = &contracts[i % CONTRACTS];
        snprintf(names[i], sizeof(names[i]), "%s_%s", cases[i].engine->name,
                 cases[i].contract->name);
        tests[i].name = names[i];
        tests[i].test_func = run_contract;
        tests[i].initial_state = &cases[i];
    }
    memcpy(&tests[CONTRACTS * ENGINES], own, sizeof(own));
    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
