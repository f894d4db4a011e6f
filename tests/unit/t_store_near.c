/*
 * t_store_near: a store of this machine in front of one that machines share.
 *
 * The far store is one in memory, behind a door that a test can close and where
 * it can listen.
 */
#include "abb_store_near.h"

#include <apr_thread_proc.h>
#include <pthread.h>

#include "contract.h"
#include "shared.h"

#define AGE SECONDS(10)
#define OUTAGE_AGE SECONDS(60)
#define NEAR_SIZE (256 * KIB)

/* ---- the door ------------------------------------------------------------ */

typedef struct {
    abb_store_t store;
    const abb_store_t *behind;
    int is_closed;
    apr_interval_time_t delay;
    int gets;
    int touches;
    int leases;
    /* Called once when a get has read and not yet returned. */
    void (*hook)(void *data);
    void *hook_data;
} door_t;

static apr_status_t closed(abb_error_t *err)
{
    return abb_error_set(err, ABB_ESTORE, "the door is closed");
}

static apr_status_t door_get(void *self, const abb_store_key_t *key, abb_store_parts_t parts,
                             apr_time_t now, abb_store_record_t *record, apr_pool_t *p,
                             abb_error_t *err)
{
    door_t *door = self;
    void (*hook)(void *data) = door->hook;
    apr_status_t status;

    __atomic_add_fetch(&door->gets, 1, __ATOMIC_SEQ_CST);
    if (door->is_closed) {
        return closed(err);
    }
    status = abb_store_get(door->behind, key, parts, now, record, p, err);
    if (door->delay) {
        apr_sleep(door->delay);
    }
    if (hook) {
        door->hook = NULL;
        hook(door->hook_data);
    }
    return status;
}

static apr_status_t door_put(void *self, const abb_store_key_t *key,
                             const abb_store_record_t *record, apr_time_t now, abb_error_t *err)
{
    door_t *door = self;

    return door->is_closed ? closed(err) : abb_store_put(door->behind, key, record, now, err);
}

static apr_status_t door_replace(void *self, const abb_store_key_t *key, apr_uint64_t generation,
                                 const abb_store_record_t *record, apr_time_t now, abb_error_t *err)
{
    door_t *door = self;

    return door->is_closed ? closed(err)
                           : abb_store_replace(door->behind, key, generation, record, now, err);
}

static apr_status_t door_touch(void *self, const abb_store_key_t *key, apr_time_t now,
                               abb_error_t *err)
{
    door_t *door = self;

    ++door->touches;
    return door->is_closed ? closed(err) : abb_store_touch(door->behind, key, now, err);
}

static apr_status_t door_lease(void *self, const abb_store_key_t *key, apr_interval_time_t duration,
                               apr_time_t now, apr_uint64_t *holder, abb_error_t *err)
{
    door_t *door = self;

    ++door->leases;
    return door->is_closed ? closed(err)
                           : abb_store_lease(door->behind, key, duration, now, holder, err);
}

static apr_status_t door_release(void *self, const abb_store_key_t *key, apr_uint64_t holder,
                                 abb_error_t *err)
{
    door_t *door = self;

    return door->is_closed ? closed(err) : abb_store_release(door->behind, key, holder, err);
}

static apr_status_t door_fail(void *self, const abb_store_key_t *key, apr_uint64_t holder,
                              apr_time_t now, abb_error_t *err)
{
    door_t *door = self;

    return door->is_closed ? closed(err) : abb_store_fail(door->behind, key, holder, now, err);
}

static apr_status_t door_drop(void *self, const abb_store_key_t *key, abb_error_t *err)
{
    door_t *door = self;

    return door->is_closed ? closed(err) : abb_store_drop(door->behind, key, err);
}

static void door_figures(void *self, abb_store_figures_t *figures)
{
    static const abb_store_figures_t unknown = {-1, -1, -1, -1, -1, -1, -1, -1};

    *figures = unknown;
}

static apr_int64_t door_take_evictions(void *self, apr_time_t now)
{
    return 0;
}

static const abb_store_methods_t door_methods = {
    door_get,  door_put,  door_replace, door_touch,          door_lease, door_release,
    door_fail, door_drop, door_figures, door_take_evictions, NULL,       NULL,
};

static door_t *make_door(const abb_store_t *behind, apr_pool_t *p)
{
    door_t *door = apr_pcalloc(p, sizeof(*door));

    door->store.methods = &door_methods;
    door->store.engine = door;
    door->behind = behind;
    return door;
}

/* ---- machines ------------------------------------------------------------ */

static const abb_store_t *make_near(const abb_store_t *near, const abb_store_t *far,
                                    apr_interval_time_t age, apr_interval_time_t outage_age,
                                    apr_pool_t *p)
{
    abb_store_near_settings_t settings = {age, outage_age};
    const abb_store_t *store = NULL;

    abb_store_near_create(&store, near, far, &settings, p);
    return store;
}

/* Two machines and the store they share. */
typedef struct {
    const abb_store_t *shared;
    door_t *door;
    const abb_store_t *table;
    place_t here;
    place_t there;
} cluster_t;

static cluster_t make_cluster(apr_pool_t *p)
{
    cluster_t cluster;
    place_t nowhere = {NULL, NULL, p};

    cluster.shared = shared_store(4 * KIB * KIB, p);
    cluster.door = make_door(cluster.shared, p);
    cluster.table = shared_store(NEAR_SIZE, p);
    cluster.here = cluster.there = nowhere;
    cluster.here.store = make_near(cluster.table, &cluster.door->store, AGE, OUTAGE_AGE, p);
    cluster.there.store = make_near(shared_store(NEAR_SIZE, p), cluster.shared, AGE, OUTAGE_AGE, p);
    return cluster;
}

/* The open part alone, as a request with a session asks. */
static apr_status_t glance(const place_t *place, apr_uint64_t number, apr_time_t now,
                           abb_store_record_t *record)
{
    abb_store_key_t key = make_key(number);
    abb_error_t err;
    apr_status_t status;

    abb_error_clear(&err);
    memset(record, 0x5a, sizeof(*record));
    status = abb_store_get(place->store, &key, ABB_STORE_OPEN_PART, now, record, place->p, &err);
    assert_int_equal(status == ABB_ESTORE, err.status == ABB_ESTORE);
    return status;
}

static apr_status_t glance_status(const place_t *place, apr_uint64_t number, apr_time_t now)
{
    abb_store_record_t record;

    return glance(place, number, now, &record);
}

static apr_size_t glance_size(const place_t *place, apr_uint64_t number, apr_time_t now)
{
    abb_store_record_t record;

    assert_int_equal(glance(place, number, now, &record), APR_SUCCESS);
    return record.open_size;
}

/* Replace a record at one machine by one of another size. */
static apr_status_t renew(place_t *place, apr_uint64_t number, apr_size_t open_size, apr_time_t now)
{
    abb_store_record_t record = make_record(open_size, 100, number, place->p);
    abb_store_record_t got;

    assert_int_equal(get_at(place, number, now, &got), APR_SUCCESS);
    record.idle = got.idle;
    return replace_at(place, number, got.generation, &record, now);
}

/* ---- copies -------------------------------------------------------------- */

static void a_copy_is_served_without_asking(void **state)
{
    cluster_t cluster = make_cluster(*state);
    abb_store_record_t got;

    assert_int_equal(put_small(&cluster.here, 1), APR_SUCCESS);
    cluster.door->gets = 0;
    for (int i = 0; i < 100; ++i) {
        assert_int_equal(glance(&cluster.here, 1, NOW + i * AGE / 100, &got), APR_SUCCESS);
        assert_int_equal(got.open_size, 100);
        assert_true(is_filled(got.open, 100, 1));
        assert_int_equal((uintptr_t)got.open % 8, 0);
        assert_null(got.sealed);
        assert_int_equal(got.sealed_size, 100);
        assert_true(got.expires_at == NOW + HOURS(100));
    }
    assert_int_equal(cluster.door->gets, 1);
    assert_int_equal(glance(&cluster.here, 1, NOW + AGE, &got), APR_SUCCESS);
    assert_int_equal(cluster.door->gets, 2);
    assert_int_equal(glance(&cluster.here, 1, NOW + 2 * AGE - 1, &got), APR_SUCCESS);
    assert_int_equal(cluster.door->gets, 2);
}

static void both_parts_come_from_afar(void **state)
{
    cluster_t cluster = make_cluster(*state);
    abb_store_record_t got;

    assert_int_equal(put_small(&cluster.here, 1), APR_SUCCESS);
    assert_int_equal(glance_size(&cluster.here, 1, NOW), 100);
    assert_int_equal(renew(&cluster.there, 1, 200, NOW), APR_SUCCESS);
    assert_int_equal(get_at(&cluster.here, 1, NOW, &got), APR_SUCCESS);
    check_content(&got, 200, 100, 1);
}

static void another_machines_changes_are_seen_within_the_age(void **state)
{
    cluster_t cluster = make_cluster(*state);

    assert_int_equal(put_small(&cluster.here, 1), APR_SUCCESS);
    assert_int_equal(glance_size(&cluster.here, 1, NOW), 100);
    assert_int_equal(renew(&cluster.there, 1, 200, NOW + 1), APR_SUCCESS);
    assert_int_equal(glance_size(&cluster.here, 1, NOW + AGE - 1), 100);
    assert_int_equal(glance_size(&cluster.here, 1, NOW + AGE), 200);
    assert_int_equal(drop_at(&cluster.there, 1), APR_SUCCESS);
    assert_int_equal(glance_status(&cluster.here, 1, NOW + 2 * AGE - 1), APR_SUCCESS);
    assert_int_equal(glance_status(&cluster.here, 1, NOW + 2 * AGE), APR_NOTFOUND);
    assert_int_equal(glance_status(&cluster.here, 1, NOW + 2 * AGE), APR_NOTFOUND);
}

/* Who reads both parts knows more than the copy does. */
static void a_drop_elsewhere_that_was_seen_is_not_forgotten(void **state)
{
    cluster_t cluster = make_cluster(*state);

    assert_int_equal(put_small(&cluster.here, 1), APR_SUCCESS);
    assert_int_equal(glance_status(&cluster.here, 1, NOW), APR_SUCCESS);
    assert_int_equal(drop_at(&cluster.there, 1), APR_SUCCESS);
    assert_int_equal(status_at(&cluster.here, 1, NOW), APR_NOTFOUND);
    assert_int_equal(glance_status(&cluster.here, 1, NOW), APR_NOTFOUND);
}

static void own_changes_are_seen_at_once(void **state)
{
    cluster_t cluster = make_cluster(*state);
    abb_store_key_t key = make_key(1);
    abb_store_record_t got;
    apr_uint64_t holder;

    assert_int_equal(put_small(&cluster.here, 1), APR_SUCCESS);
    for (apr_size_t size = 1; size < 50; ++size) {
        assert_int_equal(renew(&cluster.here, 1, size, NOW), APR_SUCCESS);
        assert_int_equal(glance_size(&cluster.here, 1, NOW), size);
    }
    assert_int_equal(lease_at(&cluster.here, 1, SECONDS(30), NOW, &holder), APR_SUCCESS);
    assert_int_equal(abb_store_fail(cluster.here.store, &key, holder, NOW + 5, NULL), APR_SUCCESS);
    assert_int_equal(glance(&cluster.here, 1, NOW, &got), APR_SUCCESS);
    assert_true(got.failed_at == NOW + 5);
    assert_int_equal(drop_at(&cluster.here, 1), APR_SUCCESS);
    assert_int_equal(glance_status(&cluster.here, 1, NOW), APR_NOTFOUND);
}

static void a_clock_set_back_makes_copies_old(void **state)
{
    cluster_t cluster = make_cluster(*state);

    assert_int_equal(put_small(&cluster.here, 1), APR_SUCCESS);
    assert_int_equal(glance_status(&cluster.here, 1, NOW + HOURS(2)), APR_SUCCESS);
    assert_int_equal(drop_at(&cluster.there, 1), APR_SUCCESS);
    assert_int_equal(glance_status(&cluster.here, 1, NOW), APR_NOTFOUND);
}

static void copies_take_the_open_part_only(void **state)
{
    cluster_t cluster = make_cluster(*state);
    abb_store_record_t record = make_record(100, 50 * KIB, 1, *state);

    assert_int_equal(put_at(cluster.here.store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(glance_status(&cluster.here, 1, NOW), APR_SUCCESS);
    assert_int_equal(figures_of(cluster.table).records, 1);
    assert_true(figures_of(cluster.table).bytes_used <= 768);
}

/* A table that is too small forgets; that costs a question, never an answer. */
static void a_small_table_is_enough(void **state)
{
    cluster_t cluster = make_cluster(*state);
    abb_store_record_t got;

    for (apr_uint64_t i = 0; i < 3000; ++i) {
        assert_int_equal(put_small(&cluster.here, i), APR_SUCCESS);
    }
    for (apr_uint64_t round = 0; round < 2; ++round) {
        for (apr_uint64_t i = 0; i < 3000; ++i) {
            assert_int_equal(glance(&cluster.here, i, NOW + (apr_time_t)round, &got), APR_SUCCESS);
            assert_true(is_filled(got.open, 100, i));
        }
    }
    assert_null(abb_store_shm_check(cluster.table));
    assert_true(figures_of(cluster.table).evictions > 1000);
}

/* What is not there leaves nothing behind. */
static void absent_records_take_no_place(void **state)
{
    cluster_t cluster = make_cluster(*state);

    for (apr_uint64_t i = 0; i < 500; ++i) {
        assert_int_equal(glance_status(&cluster.here, i, NOW), APR_NOTFOUND);
    }
    cluster.door->is_closed = 1;
    for (apr_uint64_t i = 0; i < 500; ++i) {
        assert_int_equal(glance_status(&cluster.here, i, NOW), ABB_ESTORE);
    }
    assert_int_equal(figures_of(cluster.table).records, 0);
}

/* The table may have been a store of its own before, or will be one. */
static void the_tables_own_records_are_not_mixed_up(void **state)
{
    cluster_t cluster = make_cluster(*state);
    abb_store_record_t record = make_record(77, 10, 9, *state);
    place_t table = {NULL, cluster.table, *state};

    assert_int_equal(put_at(cluster.table, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(glance_status(&cluster.here, 1, NOW), APR_NOTFOUND);
    assert_int_equal(put_small(&cluster.here, 1), APR_SUCCESS);
    assert_int_equal(glance_size(&cluster.here, 1, NOW), 100);
    assert_int_equal(glance_size(&table, 1, NOW), 77);
}

/* ---- outages ------------------------------------------------------------- */

static void an_outage_is_bridged_and_ends_in_an_error(void **state)
{
    cluster_t cluster = make_cluster(*state);

    assert_int_equal(put_small(&cluster.here, 1), APR_SUCCESS);
    assert_int_equal(glance_size(&cluster.here, 1, NOW), 100);
    cluster.door->is_closed = 1;
    for (apr_time_t at = 0; at < OUTAGE_AGE; at += SECONDS(1)) {
        assert_int_equal(glance_size(&cluster.here, 1, NOW + at), 100);
    }
    assert_int_equal(glance_size(&cluster.here, 1, NOW + OUTAGE_AGE - 1), 100);
    for (int i = 0; i < 5; ++i) {
        assert_int_equal(glance_status(&cluster.here, 1, NOW + OUTAGE_AGE + SECONDS(i)),
                         ABB_ESTORE);
    }
    assert_int_equal(status_at(&cluster.here, 1, NOW), ABB_ESTORE);
    assert_int_equal(glance_status(&cluster.here, 2, NOW), ABB_ESTORE);
    cluster.door->is_closed = 0;
    assert_int_equal(glance_size(&cluster.here, 1, NOW + OUTAGE_AGE + SECONDS(5)), 100);
}

static void in_an_outage_one_asks_in_a_second(void **state)
{
    cluster_t cluster = make_cluster(*state);

    assert_int_equal(put_small(&cluster.here, 1), APR_SUCCESS);
    assert_int_equal(glance_size(&cluster.here, 1, NOW), 100);
    cluster.door->is_closed = 1;
    cluster.door->gets = 0;
    for (apr_time_t at = AGE; at < AGE + SECONDS(20); at += SECONDS(1) / 20) {
        assert_int_equal(glance_size(&cluster.here, 1, NOW + at), 100);
    }
    assert_int_equal(cluster.door->gets, 20);
    cluster.door->is_closed = 0;
    assert_int_equal(drop_at(&cluster.there, 1), APR_SUCCESS);
    assert_int_equal(glance_status(&cluster.here, 1, NOW + AGE + SECONDS(20)), APR_NOTFOUND);
}

static void nothing_is_written_in_an_outage(void **state)
{
    cluster_t cluster = make_cluster(*state);
    abb_store_record_t record = make_record(10, 10, 1, *state);
    abb_store_record_t got;
    apr_uint64_t holder;

    assert_int_equal(put_small(&cluster.here, 1), APR_SUCCESS);
    assert_int_equal(glance(&cluster.here, 1, NOW, &got), APR_SUCCESS);
    cluster.door->is_closed = 1;
    assert_int_equal(put_small(&cluster.here, 2), ABB_ESTORE);
    assert_int_equal(replace_at(&cluster.here, 1, got.generation, &record, NOW), ABB_ESTORE);
    assert_int_equal(lease_at(&cluster.here, 1, SECONDS(9), NOW, &holder), ABB_ESTORE);
    assert_int_equal(drop_at(&cluster.here, 1), ABB_ESTORE);
    assert_int_equal(glance_size(&cluster.here, 1, NOW), 100);
    cluster.door->is_closed = 0;
    /* And nothing is left of the attempts. */
    assert_int_equal(put_small(&cluster.here, 2), APR_SUCCESS);
    assert_int_equal(lease_at(&cluster.here, 1, SECONDS(9), NOW, &holder), APR_SUCCESS);
    assert_int_equal(release_at(&cluster.here, 1, holder), APR_SUCCESS);
}

static void an_outage_does_not_lengthen_limits(void **state)
{
    cluster_t cluster = make_cluster(*state);
    abb_store_record_t record = make_record(10, 10, 1, *state);

    record.idle = SECONDS(20);
    assert_int_equal(put_at(cluster.here.store, 1, &record, NOW), APR_SUCCESS);
    record.idle = 0;
    record.expires_at = NOW + SECONDS(15);
    assert_int_equal(put_at(cluster.here.store, 2, &record, NOW), APR_SUCCESS);
    assert_int_equal(glance_status(&cluster.here, 1, NOW + SECONDS(5)), APR_SUCCESS);
    assert_int_equal(glance_status(&cluster.here, 2, NOW + SECONDS(5)), APR_SUCCESS);
    cluster.door->is_closed = 1;
    assert_int_equal(glance_status(&cluster.here, 2, NOW + SECONDS(15) - 1), APR_SUCCESS);
    assert_int_equal(glance_status(&cluster.here, 2, NOW + SECONDS(15)), ABB_ESTORE);
    assert_int_equal(glance_status(&cluster.here, 1, NOW + SECONDS(20) - 1), APR_SUCCESS);
    assert_int_equal(glance_status(&cluster.here, 1, NOW + SECONDS(20)), ABB_ESTORE);
}

/* ---- uses ---------------------------------------------------------------- */

static void a_use_anywhere_counts_everywhere(void **state)
{
    cluster_t cluster = make_cluster(*state);
    abb_store_record_t record = make_record(10, 10, 1, *state);
    abb_store_record_t got;
    apr_time_t now = NOW;

    record.idle = SECONDS(90);
    assert_int_equal(put_at(cluster.here.store, 1, &record, now), APR_SUCCESS);
    /* Used there alone for a while; here it is looked at in between. */
    for (int i = 0; i < 20; ++i) {
        now += SECONDS(60);
        assert_int_equal(glance_status(&cluster.there, 1, now), APR_SUCCESS);
        assert_int_equal(touch_at(&cluster.there, 1, now), APR_SUCCESS);
        assert_int_equal(glance(&cluster.here, 1, now + SECONDS(10), &got), APR_SUCCESS);
        assert_true(got.last_seen == now);
    }
    assert_int_equal(glance_status(&cluster.here, 1, now + SECONDS(90) - 1), APR_SUCCESS);
    assert_int_equal(glance_status(&cluster.here, 1, now + SECONDS(90)), APR_NOTFOUND);
    assert_int_equal(glance_status(&cluster.there, 1, now + SECONDS(90)), APR_NOTFOUND);
}

static void a_use_is_known_here_at_once(void **state)
{
    cluster_t cluster = make_cluster(*state);
    abb_store_record_t got;

    assert_int_equal(put_small(&cluster.here, 1), APR_SUCCESS);
    assert_int_equal(glance(&cluster.here, 1, NOW + SECONDS(3), &got), APR_SUCCESS);
    assert_true(got.last_seen == NOW);
    /* At the very moment of the first look, as a request does. */
    assert_int_equal(touch_at(&cluster.here, 1, NOW + SECONDS(3)), APR_SUCCESS);
    assert_int_equal(glance(&cluster.here, 1, NOW + SECONDS(3), &got), APR_SUCCESS);
    assert_true(got.last_seen == NOW + SECONDS(3));
    assert_int_equal(cluster.door->touches, 1);
}

static void a_use_that_got_lost_is_told_later(void **state)
{
    cluster_t cluster = make_cluster(*state);
    abb_store_record_t record = make_record(10, 10, 1, *state);
    abb_store_record_t got;

    record.idle = SECONDS(300);
    assert_int_equal(put_at(cluster.here.store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(glance_status(&cluster.here, 1, NOW + SECONDS(80)), APR_SUCCESS);
    cluster.door->is_closed = 1;
    assert_int_equal(touch_at(&cluster.here, 1, NOW + SECONDS(85)), APR_SUCCESS);
    cluster.door->is_closed = 0;
    assert_int_equal(glance(&cluster.here, 1, NOW + SECONDS(95), &got), APR_SUCCESS);
    assert_true(got.last_seen == NOW + SECONDS(85));
    assert_int_equal(get_at(&cluster.there, 1, NOW + SECONDS(95), &got), APR_SUCCESS);
    assert_true(got.last_seen == NOW + SECONDS(85));
}

static void a_use_of_nothing_is_refused(void **state)
{
    cluster_t cluster = make_cluster(*state);

    assert_int_equal(put_small(&cluster.here, 1), APR_SUCCESS);
    assert_int_equal(glance_status(&cluster.here, 1, NOW), APR_SUCCESS);
    assert_int_equal(drop_at(&cluster.there, 1), APR_SUCCESS);
    assert_int_equal(touch_at(&cluster.here, 1, NOW), APR_NOTFOUND);
    assert_int_equal(glance_status(&cluster.here, 1, NOW), APR_NOTFOUND);
    cluster.door->is_closed = 1;
    assert_int_equal(touch_at(&cluster.here, 1, NOW), ABB_ESTORE);
}

/* ---- leases -------------------------------------------------------------- */

static void a_lease_holds_on_all_machines(void **state)
{
    cluster_t cluster = make_cluster(*state);
    apr_uint64_t first;
    apr_uint64_t second;

    assert_int_equal(put_small(&cluster.here, 1), APR_SUCCESS);
    assert_int_equal(lease_at(&cluster.there, 1, SECONDS(30), NOW, &first), APR_SUCCESS);
    assert_int_equal(lease_at(&cluster.here, 1, SECONDS(30), NOW, &second), ABB_ECHANGED);
    assert_int_equal(release_at(&cluster.here, 1, first + 1), ABB_ECHANGED);
    assert_int_equal(release_at(&cluster.there, 1, first), APR_SUCCESS);
    assert_int_equal(lease_at(&cluster.here, 1, SECONDS(30), NOW + SECONDS(1), &second),
                     APR_SUCCESS);
    assert_int_equal(lease_at(&cluster.there, 1, SECONDS(30), NOW + SECONDS(1), &first),
                     ABB_ECHANGED);
    /* A dead holder's runs out. */
    assert_int_equal(lease_at(&cluster.there, 1, SECONDS(30), NOW + SECONDS(31), &first),
                     APR_SUCCESS);
    assert_int_equal(release_at(&cluster.here, 1, second), ABB_ECHANGED);
}

/* Many wait here for one here, or for one elsewhere: they do not ask all the time. */
static void who_waits_for_a_lease_seldom_asks(void **state)
{
    cluster_t cluster = make_cluster(*state);
    apr_uint64_t holder;
    apr_uint64_t other;

    assert_int_equal(put_small(&cluster.here, 1), APR_SUCCESS);
    assert_int_equal(lease_at(&cluster.here, 1, SECONDS(30), NOW, &holder), APR_SUCCESS);
    for (int i = 0; i < 100; ++i) {
        assert_int_equal(lease_at(&cluster.here, 1, SECONDS(30), NOW + i, &other), ABB_ECHANGED);
    }
    assert_int_equal(cluster.door->leases, 1);
    assert_int_equal(release_at(&cluster.here, 1, holder), APR_SUCCESS);
    assert_int_equal(lease_at(&cluster.there, 1, SECONDS(30), NOW, &holder), APR_SUCCESS);
    cluster.door->leases = 0;
    for (int i = 0; i < 100; ++i) {
        assert_int_equal(
            lease_at(&cluster.here, 1, SECONDS(30), NOW + i * SECONDS(1) / 100, &other),
            ABB_ECHANGED);
    }
    assert_true(cluster.door->leases >= 5 && cluster.door->leases <= 12);
}

/* ---- races --------------------------------------------------------------- */

typedef struct {
    place_t *place;
    apr_time_t now;
} change_t;

static void change_record(void *data)
{
    change_t *change = data;

    assert_int_equal(renew(change->place, 1, 200, change->now), APR_SUCCESS);
}

static void drop_record(void *data)
{
    change_t *change = data;

    assert_int_equal(drop_at(change->place, 1), APR_SUCCESS);
}

/* Somebody has read the old record and not yet kept it when it changes on this machine. */
static void check_race(apr_pool_t *p, apr_time_t when, void (*hook)(void *data))
{
    cluster_t cluster = make_cluster(p);
    change_t change = {&cluster.here, when};
    abb_store_record_t got;

    assert_int_equal(put_small(&cluster.here, 1), APR_SUCCESS);
    if (when > NOW) {
        assert_int_equal(glance_size(&cluster.here, 1, NOW), 100);
    }
    cluster.door->hook = hook;
    cluster.door->hook_data = &change;
    assert_int_equal(glance(&cluster.here, 1, when, &got), APR_SUCCESS);
    assert_int_equal(got.open_size, 100);
    if (hook == drop_record) {
        assert_int_equal(glance_status(&cluster.here, 1, when), APR_NOTFOUND);
    }
    else {
        assert_int_equal(glance_size(&cluster.here, 1, when), 200);
    }
}

static void an_old_answer_is_not_kept_over_a_change(void **state)
{
    check_race(*state, NOW, change_record);
    check_race(*state, NOW + AGE, change_record);
    check_race(*state, NOW, drop_record);
    check_race(*state, NOW + AGE, drop_record);
}

enum { CROWD = 16 };

typedef struct {
    cluster_t *cluster;
    apr_time_t now;
    apr_interval_time_t longest;
    int others;
} member_t;

static void *look_often(void *data)
{
    member_t *member = data;

    for (int i = 0; i < 20; ++i) {
        apr_time_t began = apr_time_now();
        place_t place = member->cluster->here;
        apr_interval_time_t took;

        apr_pool_create(&place.p, NULL);
        if (glance_status(&place, 1, member->now) != APR_SUCCESS) {
            ++member->others;
        }
        apr_pool_destroy(place.p);
        took = apr_time_now() - began;
        member->longest = took > member->longest ? took : member->longest;
    }
    return NULL;
}

static void one_asks_and_the_others_do_not_wait(void **state)
{
    cluster_t cluster = make_cluster(*state);
    member_t members[CROWD];
    pthread_t threads[CROWD];
    int waited = 0;

    assert_int_equal(put_small(&cluster.here, 1), APR_SUCCESS);
    assert_int_equal(glance_status(&cluster.here, 1, NOW), APR_SUCCESS);
    cluster.door->gets = 0;
    cluster.door->delay = apr_time_from_msec(300);
    for (int i = 0; i < CROWD; ++i) {
        member_t member = {&cluster, NOW + AGE, 0, 0};

        members[i] = member;
        assert_int_equal(pthread_create(&threads[i], NULL, look_often, &members[i]), 0);
    }
    for (int i = 0; i < CROWD; ++i) {
        pthread_join(threads[i], NULL);
        assert_int_equal(members[i].others, 0);
        waited += members[i].longest >= apr_time_from_msec(300);
    }
    assert_int_equal(cluster.door->gets, 1);
    assert_int_equal(waited, 1);
}

/* Sizes only ever grow; who looks here never sees less than what was written here before. */
typedef struct {
    cluster_t *cluster;
    /* The size of the last write that has returned. */
    const apr_size_t *written;
    volatile int is_over;
    apr_uint64_t looks;
    int went_back;
} watcher_t;

static void *watch(void *data)
{
    watcher_t *watcher = data;

    while (!__atomic_load_n(&watcher->is_over, __ATOMIC_RELAXED)) {
        place_t place = watcher->cluster->here;
        apr_size_t before = __atomic_load_n(watcher->written, __ATOMIC_SEQ_CST);
        abb_store_record_t got;

        apr_pool_create(&place.p, NULL);
        if (glance(&place, 1, apr_time_now(), &got) == APR_SUCCESS) {
            watcher->went_back += got.open_size < before;
            __atomic_add_fetch(&watcher->looks, 1, __ATOMIC_SEQ_CST);
        }
        apr_pool_destroy(place.p);
    }
    return NULL;
}

/* A thread may begin late on a busy machine; what is written before it looks proves nothing. */
static void wait_until_it_looks(const watcher_t *watcher)
{
    for (int i = 0; i < 1000 && !__atomic_load_n(&watcher->looks, __ATOMIC_SEQ_CST); ++i) {
        apr_sleep(apr_time_from_msec(10));
    }
    assert_true(__atomic_load_n(&watcher->looks, __ATOMIC_SEQ_CST) > 0);
}

/* With an age of a millisecond, so that copies are renewed all the time. */
static void nobody_sees_time_go_back(void **state)
{
    cluster_t cluster = make_cluster(*state);
    abb_store_record_t record = make_record(1, 10, 1, *state);
    apr_size_t written = 1;
    watcher_t watchers[3];
    pthread_t threads[3];

    cluster.here.store =
        make_near(cluster.table, &cluster.door->store, apr_time_from_msec(1), SECONDS(60), *state);
    record.expires_at = apr_time_now() + HOURS(1);
    assert_int_equal(put_at(cluster.here.store, 1, &record, apr_time_now()), APR_SUCCESS);
    for (int i = 0; i < 3; ++i) {
        watcher_t watcher = {&cluster, &written, 0, 0, 0};

        watchers[i] = watcher;
        assert_int_equal(pthread_create(&threads[i], NULL, watch, &watchers[i]), 0);
    }
    for (int i = 0; i < 3; ++i) {
        wait_until_it_looks(&watchers[i]);
    }
    for (apr_size_t size = 2; size < 1000; ++size) {
        place_t place = cluster.here;
        abb_store_record_t got;

        apr_pool_create(&place.p, NULL);
        record = make_record(size, 10, 1, place.p);
        record.expires_at = apr_time_now() + HOURS(1);
        assert_int_equal(get_at(&place, 1, apr_time_now(), &got), APR_SUCCESS);
        assert_int_equal(replace_at(&place, 1, got.generation, &record, apr_time_now()),
                         APR_SUCCESS);
        __atomic_store_n(&written, size, __ATOMIC_SEQ_CST);
        assert_int_equal(glance_size(&place, 1, apr_time_now()), size);
        apr_pool_destroy(place.p);
    }
    for (int i = 0; i < 3; ++i) {
        __atomic_store_n(&watchers[i].is_over, 1, __ATOMIC_RELAXED);
        pthread_join(threads[i], NULL);
        assert_int_equal(watchers[i].went_back, 0);
    }
}

static void two_puts_at_once_on_one_machine(void **state)
{
    cluster_t cluster = make_cluster(*state);
    abb_store_key_t note = make_key(1);
    abb_store_record_t record;

    /* What the first leaves while the far store thinks. */
    memset(&record, 0, sizeof(record));
    record.expires_at = NOW + SECONDS(2);
    note.bytes[ABB_STORE_KEY_SIZE - 1] ^= 0xff;
    assert_int_equal(abb_store_put(cluster.table, &note, &record, NOW, NULL), APR_SUCCESS);
    assert_int_equal(put_small(&cluster.here, 1), APR_EEXIST);
    record = make_record(10, 10, 1, *state);
    assert_int_equal(put_at(cluster.here.store, 1, &record, NOW + SECONDS(2)), APR_SUCCESS);
}

static void figures_are_told_as_far_as_they_are_known(void **state)
{
    cluster_t cluster = make_cluster(*state);
    abb_store_figures_t figures;

    assert_int_equal(put_small(&cluster.here, 1), APR_SUCCESS);
    assert_int_equal(glance_status(&cluster.here, 1, NOW), APR_SUCCESS);
    assert_int_equal(glance_status(&cluster.here, 1, NOW), APR_SUCCESS);
    figures = figures_of(cluster.here.store);
    assert_int_equal(figures.records, -1);
    assert_int_equal(figures.evictions, -1);
    assert_int_equal(figures.expired, -1);
    assert_true(figures.hits >= 1 && figures.misses >= 1);
    assert_true(figures.bytes_used > 0 && figures.bytes_used <= figures.bytes_capacity);
    assert_int_equal(figures.recoveries, 0);
    assert_int_equal(abb_store_take_evictions(cluster.here.store, NOW), 0);
}

/* ---- all of them --------------------------------------------------------- */

static const abb_store_t *over_shm(apr_size_t size, apr_pool_t *p)
{
    return make_near(shared_store(size, p), shared_store(size, p), AGE, OUTAGE_AGE, p);
}

/* Copies are too old as soon as they are there. */
static const abb_store_t *over_shm_always_asking(apr_size_t size, apr_pool_t *p)
{
    return make_near(shared_store(size, p), shared_store(size, p), 1, OUTAGE_AGE, p);
}

/* Two in a row, as nobody would. */
static const abb_store_t *over_another(apr_size_t size, apr_pool_t *p)
{
    return make_near(shared_store(size, p), over_shm(size, p), AGE, OUTAGE_AGE, p);
}

int main(void)
{
    static const engine_maker_t engines[] = {
        {"near", over_shm, NULL, 0},
        {"near_always_asking", over_shm_always_asking, NULL, 0},
        {"near_over_near", over_another, NULL, 0},
    };
    static const struct CMUnitTest own[] = {
        UNIT_TEST(a_copy_is_served_without_asking),
        UNIT_TEST(both_parts_come_from_afar),
        UNIT_TEST(another_machines_changes_are_seen_within_the_age),
        UNIT_TEST(a_drop_elsewhere_that_was_seen_is_not_forgotten),
        UNIT_TEST(own_changes_are_seen_at_once),
        UNIT_TEST(a_clock_set_back_makes_copies_old),
        UNIT_TEST(copies_take_the_open_part_only),
        UNIT_TEST(a_small_table_is_enough),
        UNIT_TEST(absent_records_take_no_place),
        UNIT_TEST(the_tables_own_records_are_not_mixed_up),
        UNIT_TEST(an_outage_is_bridged_and_ends_in_an_error),
        UNIT_TEST(in_an_outage_one_asks_in_a_second),
        UNIT_TEST(nothing_is_written_in_an_outage),
        UNIT_TEST(an_outage_does_not_lengthen_limits),
        UNIT_TEST(a_use_anywhere_counts_everywhere),
        UNIT_TEST(a_use_is_known_here_at_once),
        UNIT_TEST(a_use_that_got_lost_is_told_later),
        UNIT_TEST(a_use_of_nothing_is_refused),
        UNIT_TEST(a_lease_holds_on_all_machines),
        UNIT_TEST(who_waits_for_a_lease_seldom_asks),
        UNIT_TEST(an_old_answer_is_not_kept_over_a_change),
        UNIT_TEST(one_asks_and_the_others_do_not_wait),
        UNIT_TEST(nobody_sees_time_go_back),
        UNIT_TEST(two_puts_at_once_on_one_machine),
        UNIT_TEST(figures_are_told_as_far_as_they_are_known),
    };

    return contract_run(engines, UNIT_COUNT(engines), own, UNIT_COUNT(own));
}
