/* contract: what every store must do. See contract.h. */
#include "contract.h"

#include <stdio.h>

#include "abb_record.h"

typedef struct {
    const char *name;
    void (*run)(place_t *place);
    int needs_size;
} contract_t;

/* A test of the contract for one engine. */
typedef struct {
    const engine_maker_t *engine;
    const contract_t *contract;
} case_t;

void check_whole(const place_t *place, const abb_store_t *store)
{
    const char *fault = place->engine->check ? place->engine->check(store) : NULL;

    if (fault) {
        fail_msg("%s", fault);
    }
}

/* ---- records that describe themselves ------------------------------------ */

apr_uint64_t mix(apr_uint64_t x)
{
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

abb_store_key_t make_key(apr_uint64_t number)
{
    abb_store_key_t key;

    for (int i = 0; i < 4; ++i) {
        apr_uint64_t word = mix(number * 4 + (apr_uint64_t)i);

        memcpy(key.bytes + 8 * i, &word, 8);
    }
    return key;
}

/* Bytes that follow from a salt and a size alone. */
void fill(char *bytes, apr_size_t size, apr_uint64_t salt)
{
    for (apr_size_t i = 0; i < size; ++i) {
        bytes[i] = (char)(mix(salt + i / 8) >> (i % 8 * 8));
    }
}

int is_filled(const char *bytes, apr_size_t size, apr_uint64_t salt)
{
    for (apr_size_t i = 0; i < size; ++i) {
        if (bytes[i] != (char)(mix(salt + i / 8) >> (i % 8 * 8))) {
            return 0;
        }
    }
    return 1;
}

/* A record whose parts end exactly where they end. Lifetime: p. */
abb_store_record_t make_record(apr_size_t open_size, apr_size_t sealed_size, apr_uint64_t salt,
                               apr_pool_t *p)
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

apr_status_t put_at(const abb_store_t *store, apr_uint64_t number, const abb_store_record_t *record,
                    apr_time_t now)
{
    abb_store_key_t key = make_key(number);

    return abb_store_put(store, &key, record, now, NULL);
}

/* Put a record of some hundred bytes. */
apr_status_t put_small(place_t *place, apr_uint64_t number)
{
    abb_store_record_t record = make_record(100, 100, number, place->p);

    return put_at(place->store, number, &record, NOW);
}

apr_status_t get_at(place_t *place, apr_uint64_t number, apr_time_t now, abb_store_record_t *record)
{
    abb_store_key_t key = make_key(number);

    memset(record, 0x5a, sizeof(*record));
    return abb_store_get(place->store, &key, ABB_STORE_BOTH_PARTS, now, record, place->p, NULL);
}

apr_status_t status_at(place_t *place, apr_uint64_t number, apr_time_t now)
{
    abb_store_record_t record;

    return get_at(place, number, now, &record);
}

void check_content(const abb_store_record_t *record, apr_size_t open_size, apr_size_t sealed_size,
                   apr_uint64_t salt)
{
    assert_int_equal(record->open_size, open_size);
    assert_int_equal(record->sealed_size, sealed_size);
    assert_int_equal((uintptr_t)record->open % 8, 0);
    assert_true(is_filled(record->open, open_size, salt));
    assert_true(sealed_size == 0 || is_filled(record->sealed, sealed_size, ~salt));
}

apr_status_t replace_at(place_t *place, apr_uint64_t number, apr_uint64_t generation,
                        const abb_store_record_t *record, apr_time_t now)
{
    abb_store_key_t key = make_key(number);

    return abb_store_replace(place->store, &key, generation, record, now, NULL);
}

apr_status_t touch_at(place_t *place, apr_uint64_t number, apr_time_t now)
{
    abb_store_key_t key = make_key(number);

    return abb_store_touch(place->store, &key, now, NULL);
}

apr_status_t lease_at(place_t *place, apr_uint64_t number, apr_interval_time_t duration,
                      apr_time_t now, apr_uint64_t *holder)
{
    abb_store_key_t key = make_key(number);

    *holder = 0;
    return abb_store_lease(place->store, &key, duration, now, holder, NULL);
}

apr_status_t release_at(place_t *place, apr_uint64_t number, apr_uint64_t holder)
{
    abb_store_key_t key = make_key(number);

    return abb_store_release(place->store, &key, holder, NULL);
}

apr_status_t drop_at(place_t *place, apr_uint64_t number)
{
    abb_store_key_t key = make_key(number);

    return abb_store_drop(place->store, &key, NULL);
}

abb_store_figures_t figures_of(const abb_store_t *store)
{
    abb_store_figures_t figures;

    memset(&figures, 0x5a, sizeof(figures));
    abb_store_figures(store, &figures);
    return figures;
}
apr_status_t fail_at(place_t *place, apr_uint64_t number, apr_uint64_t holder, apr_time_t now)
{
    abb_store_key_t key = make_key(number);

    return abb_store_fail(place->store, &key, holder, now, NULL);
}

/* An engine may not know a figure; one that does must be right. */
static void check_unknown_or(const place_t *place, apr_int64_t figure, apr_int64_t expected)
{
    assert_true(figure == expected || (figure == -1 && !place->engine->is_sized));
}

static void check_count(const place_t *place, apr_int64_t count)
{
    check_unknown_or(place, figures_of(place->store).records, count);
}

/* Both parts; and the open part alone must be the same in all. */
static apr_status_t look_at(place_t *place, apr_uint64_t number, apr_time_t now,
                            abb_store_record_t *record)
{
    abb_store_key_t key = make_key(number);
    apr_status_t status = get_at(place, number, now, record);
    abb_store_record_t open;

    assert_int_equal(
        abb_store_get(place->store, &key, ABB_STORE_OPEN_PART, now, &open, place->p, NULL), status);
    if (status == APR_SUCCESS) {
        assert_null(open.sealed);
        assert_int_equal((uintptr_t)open.open % 8, 0);
        assert_int_equal(open.open_size, record->open_size);
        assert_memory_equal(open.open, record->open, record->open_size);
        assert_true(open.expires_at == record->expires_at && open.idle == record->idle);
        assert_true(open.last_seen == record->last_seen && open.failed_at == record->failed_at);
        assert_true(open.generation == record->generation);
    }
    return status;
}

static apr_status_t look_for(place_t *place, apr_uint64_t number, apr_time_t now)
{
    abb_store_record_t record;

    return look_at(place, number, now, &record);
}

/* ---- the contract: one record -------------------------------------------- */

static void what_was_never_put_is_absent(place_t *place)
{
    abb_store_record_t record = make_record(10, 10, 1, place->p);
    apr_uint64_t holder;

    assert_int_equal(look_for(place, 1, NOW), APR_NOTFOUND);
    assert_int_equal(replace_at(place, 1, 0, &record, NOW), APR_NOTFOUND);
    assert_int_equal(replace_at(place, 1, 1, &record, NOW), APR_NOTFOUND);
    assert_int_equal(touch_at(place, 1, NOW), APR_NOTFOUND);
    assert_int_equal(lease_at(place, 1, SECONDS(1), NOW, &holder), APR_NOTFOUND);
    assert_int_equal(release_at(place, 1, 1), APR_NOTFOUND);
    assert_int_equal(drop_at(place, 1), APR_NOTFOUND);
    check_count(place, 0);
}

static void what_was_put_comes_back(place_t *place)
{
    abb_store_record_t record = make_record(300, 700, 1, place->p);
    abb_store_record_t got;

    record.expires_at = NOW + HOURS(5);
    record.idle = HOURS(2);
    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(look_at(place, 1, NOW + SECONDS(1), &got), APR_SUCCESS);
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
    assert_int_equal(look_at(place, 1, NOW, &got), APR_SUCCESS);
    assert_string_equal(got.open, "as it was");
    memcpy((char *)(uintptr_t)got.open, "changed", 7);
    assert_int_equal(look_at(place, 1, NOW, &got), APR_SUCCESS);
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
    assert_int_equal(look_at(place, 1, NOW, &got), APR_SUCCESS);
    check_content(&got, 10, 10, 1);
    assert_int_equal(put_at(place->store, 1, &second, NOW + HOURS(1)), APR_SUCCESS);
    assert_int_equal(look_at(place, 1, NOW + HOURS(1), &got), APR_SUCCESS);
    check_content(&got, 20, 20, 2);
    check_count(place, 1);
}

static void a_dropped_record_is_gone_and_can_be_put_again(place_t *place)
{
    abb_store_record_t got;

    assert_int_equal(put_small(place, 1), APR_SUCCESS);
    assert_int_equal(put_small(place, 2), APR_SUCCESS);
    assert_int_equal(drop_at(place, 1), APR_SUCCESS);
    assert_int_equal(drop_at(place, 1), APR_NOTFOUND);
    assert_int_equal(look_for(place, 1, NOW), APR_NOTFOUND);
    assert_int_equal(look_at(place, 2, NOW, &got), APR_SUCCESS);
    check_content(&got, 100, 100, 2);
    assert_int_equal(put_small(place, 1), APR_SUCCESS);
    assert_int_equal(look_at(place, 1, NOW, &got), APR_SUCCESS);
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

        assert_int_equal(look_at(place, 1, NOW, &got), APR_SUCCESS);
        generation = got.generation;
        assert_int_equal(replace_at(place, 1, generation + 1, &record, NOW), ABB_ECHANGED);
        assert_int_equal(replace_at(place, 1, generation, &record, NOW), APR_SUCCESS);
        assert_int_equal(replace_at(place, 1, generation, &record, NOW), ABB_ECHANGED);
        assert_int_equal(look_at(place, 1, NOW, &got), APR_SUCCESS);
        check_content(&got, record.open_size, record.sealed_size, i);
        assert_true(got.generation != generation);
    }
    check_count(place, 1);
}

/* A record put anew is another one, also for who still knows the old one. */
static void a_new_record_is_not_taken_for_the_old_one(place_t *place)
{
    abb_store_record_t record = make_record(10, 10, 7, place->p);
    abb_store_record_t old;

    assert_int_equal(put_small(place, 1), APR_SUCCESS);
    assert_int_equal(look_at(place, 1, NOW, &old), APR_SUCCESS);
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
    assert_int_equal(look_at(place, 1, NOW, &got), APR_SUCCESS);
    record.idle = HOURS(3);
    record.expires_at = NOW + HOURS(50);
    assert_int_equal(replace_at(place, 1, got.generation, &record, NOW + HOURS(1)), APR_SUCCESS);
    assert_int_equal(look_at(place, 1, NOW + HOURS(1), &got), APR_SUCCESS);
    assert_true(got.idle == HOURS(3));
    assert_true(got.expires_at == NOW + HOURS(50));
    /* Replacing is no use of it. */
    assert_true(got.last_seen == NOW);
    assert_int_equal(look_for(place, 1, NOW + HOURS(3) - 1), APR_SUCCESS);
    assert_int_equal(look_for(place, 1, NOW + HOURS(3)), APR_NOTFOUND);
}

static void what_has_expired_is_not_replaced(place_t *place)
{
    abb_store_record_t record = make_record(10, 10, 1, place->p);
    abb_store_record_t got;

    record.expires_at = NOW + SECONDS(10);
    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(look_at(place, 1, NOW, &got), APR_SUCCESS);
    record.expires_at = NOW + HOURS(10);
    assert_int_equal(replace_at(place, 1, got.generation, &record, NOW + SECONDS(10)),
                     APR_NOTFOUND);
    assert_int_equal(look_for(place, 1, NOW + SECONDS(10)), APR_NOTFOUND);
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
    assert_int_equal(look_for(place, 1, NOW + SECONDS(100) - 1), APR_SUCCESS);
    assert_int_equal(look_for(place, 1, NOW + SECONDS(100)), APR_NOTFOUND);
    assert_int_equal(touch_at(place, 1, NOW + SECONDS(100)), APR_NOTFOUND);
}

static void a_record_ends_when_it_is_not_touched(place_t *place)
{
    abb_store_record_t record = make_record(10, 10, 1, place->p);
    abb_store_record_t got;

    record.idle = SECONDS(60);
    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(look_for(place, 1, NOW + SECONDS(60) - 1), APR_SUCCESS);
    /* A look is no use. */
    assert_int_equal(look_for(place, 1, NOW + SECONDS(60)), APR_NOTFOUND);
    assert_int_equal(touch_at(place, 1, NOW + SECONDS(50)), APR_SUCCESS);
    assert_int_equal(look_at(place, 1, NOW + SECONDS(110) - 1, &got), APR_SUCCESS);
    assert_true(got.last_seen == NOW + SECONDS(50));
    assert_int_equal(look_for(place, 1, NOW + SECONDS(110)), APR_NOTFOUND);
    assert_int_equal(touch_at(place, 1, NOW + SECONDS(110)), APR_NOTFOUND);
}

static void without_an_idle_limit_only_the_end_counts(place_t *place)
{
    abb_store_record_t record = make_record(10, 10, 1, place->p);

    record.idle = 0;
    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(look_for(place, 1, record.expires_at - 1), APR_SUCCESS);
    assert_int_equal(look_for(place, 1, record.expires_at), APR_NOTFOUND);
}

/* Two processes' clocks may differ a little. */
static void a_touch_of_the_past_takes_nothing_away(place_t *place)
{
    abb_store_record_t record = make_record(10, 10, 1, place->p);
    abb_store_record_t got;

    record.idle = SECONDS(60);
    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(touch_at(place, 1, NOW - SECONDS(30)), APR_SUCCESS);
    assert_int_equal(look_at(place, 1, NOW, &got), APR_SUCCESS);
    assert_true(got.last_seen == NOW);
}

static void an_expired_record_can_be_dropped_or_put_over(place_t *place)
{
    abb_store_record_t record = make_record(10, 10, 1, place->p);

    record.expires_at = NOW + 1;
    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(put_at(place->store, 1, &record, NOW + 1), APR_SUCCESS);
    assert_int_equal(look_for(place, 1, NOW + 1), APR_NOTFOUND);
    check_count(place, 1);
    drop_at(place, 1);
    check_count(place, 0);
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

/* After the clock was put back a holder that died would hold it for as long as the jump. */
static void a_lease_of_another_clock_is_none(place_t *place)
{
    apr_uint64_t first;
    apr_uint64_t second;

    assert_int_equal(put_small(place, 1), APR_SUCCESS);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW, &first), APR_SUCCESS);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW - SECONDS(60), &second), ABB_ECHANGED);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW - ABB_STORE_LEASE_MAX, &second),
                     APR_SUCCESS);
    assert_true(second != first);
    assert_int_equal(release_at(place, 1, first), ABB_ECHANGED);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW - ABB_STORE_LEASE_MAX, &first),
                     ABB_ECHANGED);
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
    assert_int_equal(look_at(place, 1, NOW, &got), APR_SUCCESS);
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

static void a_record_tells_who_gave_up(place_t *place)
{
    abb_store_record_t record = make_record(50, 50, 1, place->p);
    abb_store_record_t got;
    apr_uint64_t first;
    apr_uint64_t second;

    record.failed_at = NOW + SECONDS(99);
    assert_int_equal(put_at(place->store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(look_at(place, 1, NOW, &got), APR_SUCCESS);
    assert_true(got.failed_at == 0);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW, &first), APR_SUCCESS);
    assert_int_equal(fail_at(place, 1, first + 1, NOW + SECONDS(5)), ABB_ECHANGED);
    assert_int_equal(fail_at(place, 1, first, NOW + SECONDS(5)), APR_SUCCESS);
    assert_int_equal(look_at(place, 1, NOW + SECONDS(5), &got), APR_SUCCESS);
    assert_true(got.failed_at == NOW + SECONDS(5));
    /* The lease is free again, and giving it back takes nothing from the note. */
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW, &second), APR_SUCCESS);
    assert_int_equal(release_at(place, 1, second), APR_SUCCESS);
    assert_int_equal(look_at(place, 1, NOW, &got), APR_SUCCESS);
    assert_true(got.failed_at == NOW + SECONDS(5));
    /* What is new has not failed. */
    assert_int_equal(replace_at(place, 1, got.generation, &record, NOW), APR_SUCCESS);
    assert_int_equal(look_at(place, 1, NOW, &got), APR_SUCCESS);
    assert_true(got.failed_at == 0);
    assert_int_equal(fail_at(place, 2, 1, NOW), APR_NOTFOUND);
}

static void a_lease_changes_nothing_else(place_t *place)
{
    abb_store_record_t before;
    abb_store_record_t after;
    apr_uint64_t holder;

    assert_int_equal(put_small(place, 1), APR_SUCCESS);
    assert_int_equal(look_at(place, 1, NOW, &before), APR_SUCCESS);
    assert_int_equal(lease_at(place, 1, SECONDS(30), NOW + SECONDS(5), &holder), APR_SUCCESS);
    assert_int_equal(look_at(place, 1, NOW + SECONDS(5), &after), APR_SUCCESS);
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
        assert_int_equal(look_at(place, 2 + i, NOW, &got), APR_SUCCESS);
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
    assert_int_equal(look_at(place, 1, NOW, &got), APR_SUCCESS);
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
    assert_int_equal(look_at(place, 1, NOW, &got), APR_SUCCESS);
    assert_int_equal(abb_record_decode(got.open, got.open_size, &decoded, place->p), APR_SUCCESS);
    assert_int_equal(decoded.grant_count, 1000);
    assert_string_equal(decoded.grants[999].asked, "workspace-999");
    assert_true(decoded.grants[999].checked_at == NOW + 999);
    assert_true(is_filled(got.sealed, 9000, ~(apr_uint64_t)1));
    check_whole(place, place->store);
}

static void what_is_larger_than_a_quarter_is_refused(place_t *place)
{
    abb_store_record_t quarter = make_record(100, 50 * KIB, 1, place->p);
    abb_store_record_t more = make_record(100, 70 * KIB, 2, place->p);
    abb_store_record_t got;
    abb_store_key_t key = make_key(2);
    abb_error_t err;

    /* 256 KiB in all: a quarter is less than 64 KiB. */
    assert_int_equal(put_at(place->store, 1, &quarter, NOW), APR_SUCCESS);
    abb_error_clear(&err);
    assert_int_equal(abb_store_put(place->store, &key, &more, NOW, &err), ABB_ESTORE);
    assert_int_equal(err.status, ABB_ESTORE);
    assert_int_equal(look_at(place, 1, NOW, &got), APR_SUCCESS);
    assert_int_equal(replace_at(place, 1, got.generation, &more, NOW), ABB_ESTORE);
    assert_int_equal(look_at(place, 1, NOW, &got), APR_SUCCESS);
    check_content(&got, 100, 50 * KIB, 1);
}

static void what_is_too_large_is_refused(place_t *place)
{
    abb_store_record_t most = make_record(100, ABB_STORE_RECORD_MAX - 100, 3, place->p);
    abb_store_record_t too_much = make_record(100, ABB_STORE_RECORD_MAX - 99, 4, place->p);
    abb_store_record_t got;
    abb_store_key_t key = make_key(4);
    abb_error_t err;

    place->store = place->engine->create(9 * KIB * KIB, place->p);
    assert_int_equal(put_at(place->store, 3, &most, NOW), APR_SUCCESS);
    abb_error_clear(&err);
    assert_int_equal(abb_store_put(place->store, &key, &too_much, NOW, &err), ABB_ESTORE);
    assert_int_equal(err.status, ABB_ESTORE);
    assert_int_equal(look_at(place, 3, NOW, &got), APR_SUCCESS);
    check_content(&got, 100, ABB_STORE_RECORD_MAX - 100, 3);
    assert_int_equal(replace_at(place, 3, got.generation, &too_much, NOW), ABB_ESTORE);
    assert_int_equal(look_for(place, 4, NOW), APR_NOTFOUND);
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
        assert_int_equal(look_at(place, i, NOW + (apr_time_t)i, &got), APR_SUCCESS);
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
    assert_int_equal(look_for(place, 0, later), APR_NOTFOUND);
    for (apr_uint64_t i = 1; i < count; ++i) {
        assert_int_equal(look_for(place, i, later), APR_SUCCESS);
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
        assert_int_equal(look_for(place, i, later), APR_SUCCESS);
        assert_int_equal(look_for(place, 10000 + i, later), APR_SUCCESS);
    }
    for (apr_uint64_t i = count / 2; i < count - 1; ++i) {
        assert_int_equal(look_for(place, i, later), APR_NOTFOUND);
    }
}

/* Replacing is no use: who is replaced in the background goes as early as before. */
static void a_replacement_is_no_touch_for_eviction(place_t *place)
{
    apr_uint64_t count = fill_store(place);
    abb_store_record_t record = make_record(100, 100, 1, place->p);
    abb_store_record_t got;

    record.idle = HOURS(10);
    assert_int_equal(look_at(place, 1, NOW + SECONDS(1), &got), APR_SUCCESS);
    assert_int_equal(replace_at(place, 1, got.generation, &record, NOW + SECONDS(1)), APR_SUCCESS);
    for (apr_uint64_t i = 0; i < 10; ++i) {
        assert_int_equal(put_at(place->store, 10000 + i, &record, NOW + SECONDS(2)), APR_SUCCESS);
    }
    assert_int_equal(look_for(place, 1, NOW + SECONDS(2)), APR_NOTFOUND);
    assert_int_equal(look_for(place, count - 1, NOW + SECONDS(2)), APR_SUCCESS);
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
        assert_int_equal(look_for(place, i, later), APR_SUCCESS);
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
        assert_int_equal(look_for(place, i, later), APR_SUCCESS);
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
        int is_there = look_for(place, i, now) == APR_SUCCESS;

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
        assert_int_equal(look_at(place, number, now, &got), APR_SUCCESS);
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
    assert_int_equal(look_at(place, 1, NOW + SECONDS(1), &got), APR_SUCCESS);
    assert_int_equal(replace_at(place, 1, got.generation, &record, NOW + SECONDS(1)), APR_SUCCESS);
    assert_int_equal(look_at(place, 1, NOW + SECONDS(1), &got), APR_SUCCESS);
    check_content(&got, 100, 50 * KIB, 1);
    assert_int_equal(look_for(place, count - 1, NOW + SECONDS(1)), APR_SUCCESS);
    assert_int_equal(look_for(place, 2, NOW + SECONDS(1)), APR_NOTFOUND);
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

        assert_int_equal(look_at(place, i, NOW, &got), i % 2 ? APR_SUCCESS : APR_NOTFOUND);
        if (i % 2) {
            check_content(&got, 50, 50, i);
        }
    }
    check_count(place, 350);
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
    apr_status_t status = look_at(place, number, now, &got);

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
    check_unknown_or(place, figures_of(place->store).evictions, 0);
    check_whole(place, place->store);
}

/* What is expected may be gone, elsewhere, or never have been. */
static void to_expect_a_record_changes_nothing(place_t *place)
{
    static const apr_uint32_t places[] = {0, 1, 2, 0x7fffffff, 0x80000000, 0xffffffff};
    abb_store_record_t record;
    abb_store_key_t key = make_key(1);

    assert_int_equal(put_small(place, 1), APR_SUCCESS);
    assert_int_equal(get_at(place, 1, NOW, &record), APR_SUCCESS);
    abb_store_expect(place->store, &key, record.place);
    for (size_t i = 0; i < UNIT_COUNT(places); ++i) {
        abb_store_key_t other = make_key(mix(i));

        abb_store_expect(place->store, &key, places[i]);
        abb_store_expect(place->store, &other, places[i]);
    }
    assert_int_equal(status_at(place, 1, NOW), APR_SUCCESS);
    assert_int_equal(drop_at(place, 1), APR_SUCCESS);
    abb_store_expect(place->store, &key, record.place);
    assert_int_equal(status_at(place, 1, NOW), APR_NOTFOUND);
    check_whole(place, place->store);
}

/* ---- all of them --------------------------------------------------------- */

#define CONTRACT(function)     \
    {                          \
#function, function, 0 \
    }
/* For engines with a size of their own. */
#define SIZED(function)        \
    {                          \
#function, function, 1 \
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
    CONTRACT(a_lease_of_another_clock_is_none),
    CONTRACT(a_lease_stays_when_the_record_is_replaced),
    CONTRACT(a_lease_goes_with_its_record),
    CONTRACT(a_record_tells_who_gave_up),
    CONTRACT(a_lease_changes_nothing_else),
    CONTRACT(new_records_know_nothing_of_old_ones),
    CONTRACT(records_of_any_size_come_back),
    CONTRACT(sizes_around_boundaries_come_back),
    CONTRACT(a_record_of_a_thousand_rows_comes_back),
    SIZED(what_is_larger_than_a_quarter_is_refused),
    CONTRACT(what_is_too_large_is_refused),
    SIZED(a_full_store_refuses_nothing),
    SIZED(the_longest_untouched_go_first),
    SIZED(a_replacement_is_no_touch_for_eviction),
    SIZED(expired_records_go_before_living_ones),
    SIZED(expired_records_go_first_in_a_large_store),
    SIZED(who_goes_is_expired_or_the_longest_untouched),
    SIZED(a_replacement_in_a_full_store_succeeds),
    CONTRACT(keys_alike_are_told_apart),
    CONTRACT(many_records_share_few_chains),
    SIZED(figures_follow_what_happens),
    CONTRACT(to_expect_a_record_changes_nothing),
    CONTRACT(the_store_does_what_its_model_does),
};
static void run_contract(void **state)
{
    const case_t *test = *state;
    place_t place = {test->engine, NULL, NULL};
    apr_pool_t *p;

    assert_int_equal(apr_pool_create(&p, NULL), APR_SUCCESS);
    place.p = p;
    place.store = test->engine->create(CONTRACT_STORE_SIZE, p);
    test->contract->run(&place);
    check_whole(&place, place.store);
    apr_pool_destroy(p);
}

/* Tests of one engine that apply to it; returns how many. */
static size_t list_cases(const engine_maker_t *engine, struct CMUnitTest *tests)
{
    size_t count = 0;

    for (size_t i = 0; i < UNIT_COUNT(contracts); ++i) {
        if (engine->is_sized || !contracts[i].needs_size) {
            case_t *test = calloc(1, sizeof(*test));
            char *name = calloc(1, 120);

            test->engine = engine;
            test->contract = &contracts[i];
            snprintf(name, 120, "%s_%s", engine->name, contracts[i].name);
            memset(&tests[count], 0, sizeof(tests[count]));
            tests[count].name = name;
            tests[count].test_func = run_contract;
            tests[count++].initial_state = test;
        }
    }
    return count;
}

int contract_run(const engine_maker_t *engines, size_t engine_count, const struct CMUnitTest *own,
                 size_t own_count)
{
    size_t most = engine_count * UNIT_COUNT(contracts) + own_count;
    struct CMUnitTest *tests = calloc(most, sizeof(*tests));
    size_t count = 0;

    for (size_t i = 0; i < engine_count; ++i) {
        count += list_cases(&engines[i], tests + count);
    }
    memcpy(tests + count, own, own_count * sizeof(*own));
    return _cmocka_run_group_tests("contract", tests, count + own_count, unit_begin, unit_end);
}
