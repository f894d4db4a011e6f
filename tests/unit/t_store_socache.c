/* t_store_socache: the contract on a cache that forgets, fails, freezes and is read by strangers. */
#include "abb_store_socache.h"

#include <pthread.h>

#include "abb_store_near.h"
#include "contract.h"
#include "fake_cache.h"
#include "shared.h"

/* What a test waits for that freezes the cache; the others wait as long as a busy machine needs. */
#define IMPATIENCE apr_time_from_msec(300)

/* ---- caches -------------------------------------------------------------- */

/* A store on the cache, its settings, and what it told. */
typedef struct {
    abb_store_socache_settings_t settings;
    abb_crypto_keyring_t keyring;
    abb_store_socache_t *cache;
    int told_closed;
    int told_open;
} machine_t;

static void tell(const abb_store_socache_settings_t *settings, int is_answering)
{
    machine_t *machine = (machine_t *)(uintptr_t)settings;

    __atomic_add_fetch(is_answering ? &machine->told_open : &machine->told_closed, 1,
                       __ATOMIC_SEQ_CST);
}

static abb_crypto_key_t make_session_key(unsigned char salt)
{
    abb_crypto_key_t key;

    memset(key.bytes, salt, sizeof(key.bytes));
    return key;
}

/* Not freed: a stuck call may outlive the test. Threads end with p. */
static machine_t *prepare_machine(abb_store_socache_kind_t kind)
{
    machine_t *machine = calloc(1, sizeof(*machine));

    machine->keyring.count = 1;
    machine->keyring.keys[0] = make_session_key(1);
    machine->settings.name = "the session cache fake";
    machine->settings.kind = kind;
    machine->settings.provider = &fake_provider;
    machine->settings.instance = fake_instance();
    machine->settings.arguments = "";
    machine->settings.keyring = &machine->keyring;
    machine->settings.threads = 4;
    machine->settings.patience = SECONDS(10);
    machine->settings.troubles_max = 3;
    machine->settings.probe_interval = apr_time_from_msec(50);
    machine->settings.tell = tell;
    return machine;
}

/* What outlives the test is in a pool that nobody destroys. */
static const abb_store_t *start_machine(machine_t *machine, apr_pool_t *p)
{
    apr_pool_t *process;

    assert_int_equal(apr_pool_create_unmanaged_ex(&process, NULL, NULL), APR_SUCCESS);
    assert_int_equal(abb_store_socache_create(&machine->cache, &machine->settings, process, NULL),
                     APR_SUCCESS);
    assert_int_equal(abb_store_socache_start(machine->cache, p), APR_SUCCESS);
    return abb_store_socache_store(machine->cache);
}

static place_t make_place(machine_t *machine, apr_pool_t *p)
{
    place_t place = {NULL, start_machine(machine, p), p};

    return place;
}

/* A cache without objects or faults, and one machine. */
static place_t begin(abb_store_socache_kind_t kind, apr_pool_t *p)
{
    fake_reset();
    return make_place(prepare_machine(kind), p);
}

/* The same, for what freezes: nobody waits longer than IMPATIENCE. */
static place_t begin_impatient(machine_t *machine, apr_pool_t *p)
{
    fake_reset();
    machine->settings.patience = IMPATIENCE;
    return make_place(machine, p);
}

/* Wait until a record can be read again; fail after ten seconds. */
static apr_interval_time_t await_recovery(place_t *place, apr_uint64_t number, apr_status_t wanted)
{
    apr_time_t began = apr_time_now();

    while (status_at(place, number, NOW) != wanted) {
        apr_sleep(apr_time_from_msec(5));
        assert_true(apr_time_now() - began < SECONDS(10));
    }
    return apr_time_now() - began;
}

static apr_status_t get_with_error(place_t *place, apr_uint64_t number, abb_error_t *err)
{
    abb_store_key_t key = make_key(number);
    abb_store_record_t got;

    abb_error_clear(err);
    return abb_store_get(place->store, &key, ABB_STORE_BOTH_PARTS, NOW, &got, place->p, err);
}

/* ---- what strangers see -------------------------------------------------- */

static const void *find_bytes(const unsigned char *all, size_t size, const char *wanted)
{
    return memmem(all, size, wanted, strlen(wanted));
}

static void a_copy_of_the_cache_opens_nothing(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_LOCAL, *state);
    char open[] = "mark@example.com Mark Miller acme";
    char sealed[] = "access-token refresh-token";
    abb_store_record_t record = make_record(0, 0, 1, *state);
    const unsigned char *all;
    size_t size;

    record.open = open;
    record.open_size = sizeof(open);
    record.sealed = sealed;
    record.sealed_size = sizeof(sealed);
    assert_int_equal(put_at(place.store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(touch_at(&place, 1, NOW + SECONDS(5)), APR_SUCCESS);
    all = fake_dump(&size);
    assert_true(size > 100);
    assert_null(find_bytes(all, size, "mark"));
    assert_null(find_bytes(all, size, "Miller"));
    assert_null(find_bytes(all, size, "acme"));
    assert_null(find_bytes(all, size, "token"));
}

/* Every flipped bit of every object: the record is absent, nothing worse. */
static void a_changed_object_is_no_record(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_LOCAL, *state);
    unsigned char *bytes;
    size_t size;

    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    bytes = fake_object(0, &size, NULL);
    for (size_t bit = 0; bit < 8 * size; bit += 3) {
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        assert_int_equal(status_at(&place, 1, NOW), APR_NOTFOUND);
        bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    assert_int_equal(status_at(&place, 1, NOW), APR_SUCCESS);
}

static void a_cut_object_is_no_record(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_LOCAL, *state);
    size_t size;

    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    fake_object(0, &size, NULL);
    for (size_t length = size; length-- > 0;) {
        fake_cut(0, length);
        assert_int_equal(status_at(&place, 1, NOW), APR_NOTFOUND);
    }
    /* And its place can be taken again. */
    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    assert_int_equal(status_at(&place, 1, NOW), APR_SUCCESS);
}

static void objects_in_each_others_place_are_no_records(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_LOCAL, *state);

    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    assert_int_equal(put_small(&place, 2), APR_SUCCESS);
    fake_swap(0, 1);
    assert_int_equal(status_at(&place, 1, NOW), APR_NOTFOUND);
    assert_int_equal(status_at(&place, 2, NOW), APR_NOTFOUND);
    fake_swap(0, 1);
    assert_int_equal(status_at(&place, 1, NOW), APR_SUCCESS);
}

/* A record's use in the place of the record, and the other way round. */
static void a_use_is_no_record(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_LOCAL, *state);
    abb_store_record_t got;

    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    assert_int_equal(touch_at(&place, 1, NOW + SECONDS(9)), APR_SUCCESS);
    assert_int_equal(fake_object_count(), 2);
    fake_swap(0, 1);
    assert_int_equal(status_at(&place, 1, NOW), APR_NOTFOUND);
    fake_swap(0, 1);
    assert_int_equal(get_at(&place, 1, NOW + SECONDS(9), &got), APR_SUCCESS);
    assert_true(got.last_seen == NOW + SECONDS(9));
}

/* What an earlier record under the same key left behind counts for nothing. */
static void an_old_use_does_not_count(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_LOCAL, *state);
    abb_store_record_t record = make_record(10, 10, 1, *state);
    abb_store_record_t got;

    record.idle = SECONDS(60);
    assert_int_equal(put_at(place.store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(touch_at(&place, 1, NOW + SECONDS(50)), APR_SUCCESS);
    fake_forget(0);
    assert_int_equal(put_at(place.store, 1, &record, NOW), APR_SUCCESS);
    assert_int_equal(get_at(&place, 1, NOW, &got), APR_SUCCESS);
    assert_true(got.last_seen == NOW);
}

/* ---- keys ---------------------------------------------------------------- */

static void another_key_opens_nothing(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_LOCAL, *state);
    machine_t *other = prepare_machine(ABB_STORE_SOCACHE_LOCAL);
    place_t elsewhere;

    other->keyring.keys[0] = make_session_key(2);
    elsewhere = make_place(other, *state);
    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    assert_int_equal(status_at(&elsewhere, 1, NOW), APR_NOTFOUND);
    assert_int_equal(status_at(&place, 1, NOW), APR_SUCCESS);
}

/* One machine has the new key already, the other does not yet know it as the first. */
static void keys_roll_over(void **state)
{
    machine_t *new_first = prepare_machine(ABB_STORE_SOCACHE_LOCAL);
    machine_t *old_first = prepare_machine(ABB_STORE_SOCACHE_LOCAL);
    place_t before = begin(ABB_STORE_SOCACHE_LOCAL, *state);
    place_t ahead;
    place_t behind;

    new_first->keyring.count = old_first->keyring.count = 2;
    new_first->keyring.keys[0] = old_first->keyring.keys[1] = make_session_key(2);
    new_first->keyring.keys[1] = old_first->keyring.keys[0] = make_session_key(1);
    ahead = make_place(new_first, *state);
    behind = make_place(old_first, *state);
    assert_int_equal(put_small(&before, 1), APR_SUCCESS);
    assert_int_equal(status_at(&ahead, 1, NOW), APR_SUCCESS);
    assert_int_equal(status_at(&behind, 1, NOW), APR_SUCCESS);
    assert_int_equal(put_small(&ahead, 2), APR_SUCCESS);
    assert_int_equal(status_at(&behind, 2, NOW), APR_SUCCESS);
    assert_int_equal(status_at(&before, 2, NOW), APR_NOTFOUND);
}

/* ---- error and miss ------------------------------------------------------ */

static void a_miss_is_proved(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_REMOTE, *state);
    fake_counts_t before;

    assert_int_equal(status_at(&place, 1, NOW), APR_NOTFOUND);
    before = fake_counts();
    assert_int_equal(status_at(&place, 1, NOW), APR_NOTFOUND);
    /* The second time the proof is there already. */
    assert_int_equal(fake_counts().stores, before.stores);
    assert_int_equal(fake_counts().retrieves, before.retrieves + 2);
}

static void a_dead_server_is_no_miss(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_REMOTE, *state);
    abb_error_t err;

    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    fake_stop();
    /* The first finds a broken connection, the others "not found". */
    for (int i = 0; i < 3; ++i) {
        assert_int_equal(get_with_error(&place, 1, &err), ABB_ESTORE);
        assert_string_equal(err.text, "the session cache fake does not answer as it should");
        assert_int_equal(err.status, ABB_ESTORE);
    }
    assert_int_equal(get_with_error(&place, 1, &err), ABB_ESTORE);
    assert_string_equal(err.text,
                        "the session cache fake is not asked: it did not answer a moment ago");
    assert_int_equal(put_small(&place, 2), ABB_ESTORE);
    assert_int_equal(drop_at(&place, 1), ABB_ESTORE);
}

static void a_flushed_cache_is_a_miss(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_REMOTE, *state);

    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    assert_int_equal(status_at(&place, 2, NOW), APR_NOTFOUND);
    fake_start(0);
    assert_int_equal(status_at(&place, 1, NOW), APR_NOTFOUND);
    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
}

static void a_full_cache_is_still_read(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_RENEWABLE, *state);
    abb_store_key_t key = make_key(2);
    abb_store_record_t record = make_record(10, 10, 1, *state);
    abb_error_t err;

    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    fake_set_full(1);
    for (int i = 0; i < 10; ++i) {
        abb_error_clear(&err);
        assert_int_equal(abb_store_put(place.store, &key, &record, NOW, &err), ABB_ESTORE);
        assert_non_null(strstr(err.text, "does not take a record of "));
        assert_int_equal(status_at(&place, 1, NOW), APR_SUCCESS);
        /* A miss is proved by its refusal. */
        assert_int_equal(status_at(&place, 3, NOW), APR_NOTFOUND);
    }
    assert_int_equal(fake_counts().creates, 1);
    fake_set_full(0);
    assert_int_equal(put_at(place.store, 2, &record, NOW), APR_SUCCESS);
}

/* Its connections died, the cache is there again: nobody notices. */
static void a_restart_costs_one_more_try(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_RENEWABLE, *state);

    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    for (int i = 0; i < 5; ++i) {
        fake_stop();
        fake_start(1);
        assert_int_equal(status_at(&place, 1, NOW), APR_SUCCESS);
    }
    assert_int_equal(fake_counts().creates, 6);
    assert_int_equal(fake_counts().destroys, 5);
    fake_stop();
    fake_start(0);
    assert_int_equal(status_at(&place, 1, NOW), APR_NOTFOUND);
}

/* The connection dies when the record is written, before anybody is told. */
static void a_record_without_an_answer_is_the_own(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_RENEWABLE, *state);
    abb_store_record_t record = make_record(10, 10, 1, *state);
    abb_store_record_t got;
    apr_uint64_t before;

    fake_lose_answers('r', 1);
    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    assert_int_equal(get_at(&place, 1, NOW, &got), APR_SUCCESS);
    before = got.generation;
    assert_int_equal(put_small(&place, 1), APR_EEXIST);
    fake_lose_answers('r', 1);
    assert_int_equal(replace_at(&place, 1, before, &record, NOW), APR_SUCCESS);
    assert_int_equal(get_at(&place, 1, NOW, &got), APR_SUCCESS);
    assert_true(got.generation != before);
    assert_int_equal(replace_at(&place, 1, before, &record, NOW), ABB_ECHANGED);
}

static void a_lease_without_an_answer_is_the_own(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_RENEWABLE, *state);
    apr_uint64_t holder;
    apr_uint64_t other;

    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    fake_lose_answers('l', 1);
    assert_int_equal(lease_at(&place, 1, SECONDS(55), NOW, &holder), APR_SUCCESS);
    assert_int_equal(lease_at(&place, 1, SECONDS(55), NOW, &other), ABB_ECHANGED);
    assert_int_equal(release_at(&place, 1, holder), APR_SUCCESS);
    assert_int_equal(lease_at(&place, 1, SECONDS(55), NOW, &other), APR_SUCCESS);
}

static void several_threads_may_use_its_memory(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_RENEWABLE, *state);

    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    assert_int_equal(fake_counts().creates, 1);
    assert_int_equal(fake_counts().single_threaded, 0);
}

static void it_is_back_soon_after_a_stop(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_RENEWABLE, *state);

    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    fake_stop();
    for (int i = 0; i < 20; ++i) {
        assert_int_equal(status_at(&place, 1, NOW), ABB_ESTORE);
    }
    fake_start(1);
    assert_true(await_recovery(&place, 1, APR_SUCCESS) < SECONDS(2));
}

/* ---- slow and frozen ----------------------------------------------------- */

static void a_frozen_cache_is_waited_for_thrice(void **state)
{
    machine_t *machine = prepare_machine(ABB_STORE_SOCACHE_RENEWABLE);
    place_t place = begin_impatient(machine, *state);
    apr_time_t began;
    abb_error_t err;

    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    fake_freeze();
    began = apr_time_now();
    for (int i = 0; i < 3; ++i) {
        assert_int_equal(get_with_error(&place, 1, &err), ABB_ESTORE);
        assert_string_equal(err.text, "the session cache fake did not answer within 300 ms");
    }
    assert_true(apr_time_now() - began < SECONDS(3));
    began = apr_time_now();
    for (int i = 0; i < 100; ++i) {
        assert_int_equal(status_at(&place, 1, NOW), ABB_ESTORE);
        assert_int_equal(touch_at(&place, 1, NOW), ABB_ESTORE);
    }
    assert_true(apr_time_now() - began < 200 * apr_time_from_msec(5));
    assert_int_equal(machine->told_closed, 1);
    fake_thaw();
    assert_true(await_recovery(&place, 1, APR_SUCCESS) < SECONDS(2));
    while (fake_counts().inside) {
        apr_sleep(1000);
    }
    assert_int_equal(machine->told_open, 1);
}

/* What was begun is done when the cache thaws, with the memory it needs. */
static void an_abandoned_put_ends_by_itself(void **state)
{
    place_t place = begin_impatient(prepare_machine(ABB_STORE_SOCACHE_REMOTE), *state);
    apr_pool_t *request;
    place_t there = place;

    fake_freeze();
    apr_pool_create(&request, *state);
    there.p = request;
    assert_int_equal(put_small(&there, 1), ABB_ESTORE);
    apr_pool_destroy(request);
    fake_thaw();
    assert_true(await_recovery(&place, 1, APR_SUCCESS) < SECONDS(2));
}

static void a_slow_cache_is_a_frozen_one(void **state)
{
    machine_t *machine = prepare_machine(ABB_STORE_SOCACHE_RENEWABLE);
    place_t place = begin_impatient(machine, *state);

    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    fake_set_delay(4 * IMPATIENCE);
    for (int i = 0; i < 10; ++i) {
        assert_int_equal(status_at(&place, 1, NOW), ABB_ESTORE);
    }
    assert_int_equal(machine->told_closed, 1);
    assert_int_equal(machine->told_open, 0);
    fake_set_delay(0);
    assert_true(await_recovery(&place, 1, APR_SUCCESS) < SECONDS(5));
    while (fake_counts().inside) {
        apr_sleep(1000);
    }
}

static void a_use_is_noted_without_waiting(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_REMOTE, *state);
    abb_store_record_t got;
    apr_time_t began;

    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    fake_set_delay(apr_time_from_msec(200));
    began = apr_time_now();
    for (int i = 1; i <= 20; ++i) {
        assert_int_equal(touch_at(&place, 1, NOW + SECONDS(i)), APR_SUCCESS);
    }
    /* Waiting takes four seconds at the least. */
    assert_true(apr_time_now() - began < SECONDS(3));
    fake_set_delay(0);
    do {
        assert_true(apr_time_now() - began < SECONDS(10));
        assert_int_equal(get_at(&place, 1, NOW, &got), APR_SUCCESS);
    } while (got.last_seen != NOW + SECONDS(20));
}

static void before_the_start_nothing_is_asked(void **state)
{
    machine_t *machine = prepare_machine(ABB_STORE_SOCACHE_RENEWABLE);
    place_t place = {NULL, NULL, *state};

    /* No call of it can be stuck. */
    apr_pool_cleanup_register(*state, machine, unit_free, apr_pool_cleanup_null);
    fake_reset();
    assert_int_equal(abb_store_socache_create(&machine->cache, &machine->settings, *state, NULL),
                     APR_SUCCESS);
    place.store = abb_store_socache_store(machine->cache);
    assert_int_equal(put_small(&place, 1), ABB_ESTORE);
    assert_int_equal(touch_at(&place, 1, NOW), ABB_ESTORE);
    assert_int_equal(fake_counts().creates, 0);
}

/* ---- several machines ---------------------------------------------------- */

typedef struct {
    place_t *place;
    apr_uint64_t holder;
    apr_status_t status;
} rival_t;

static void put_too(void *data)
{
    rival_t *rival = data;
    abb_store_record_t record = make_record(20, 20, 2, rival->place->p);

    rival->status = put_at(rival->place->store, 1, &record, NOW);
}

/* Both have seen that there is none; the one that writes last has it. */
static void of_two_puts_one_succeeds(void **state)
{
    place_t here = begin(ABB_STORE_SOCACHE_LOCAL, *state);
    machine_t *machine = prepare_machine(ABB_STORE_SOCACHE_REMOTE);
    rival_t rival = {&here, 0, APR_SUCCESS};
    place_t there;
    abb_store_record_t got;

    /* The rival there waits long enough to see that it was overwritten here. */
    machine->settings.settle = apr_time_from_msec(10);
    there = make_place(machine, *state);
    rival.place = &there;
    fake_before_store('r', put_too, &rival);
    assert_int_equal(put_small(&here, 1), APR_SUCCESS);
    assert_int_equal(rival.status, APR_SUCCESS);
    assert_int_equal(get_at(&here, 1, NOW, &got), APR_SUCCESS);
    check_content(&got, 100, 100, 1);
}

static void drop_too(void *data)
{
    rival_t *rival = data;

    rival->status = drop_at(rival->place, 1);
}

/* A sign-out while another machine writes back what it has read before. */
typedef struct {
    place_t *place;
    pthread_t thread;
    apr_status_t status;
} dropper_t;

static void *drop_body(void *data)
{
    dropper_t *dropper = data;

    dropper->status = drop_at(dropper->place, 1);
    return NULL;
}

static void start_dropper(void *data)
{
    dropper_t *dropper = data;

    assert_int_equal(pthread_create(&dropper->thread, NULL, drop_body, dropper), 0);
    /* It has removed the record, and settles. */
    while (fake_object_count() > 0) {
        apr_sleep(100);
    }
}

static void what_was_dropped_does_not_come_back(void **state)
{
    machine_t *machine = prepare_machine(ABB_STORE_SOCACHE_REMOTE);
    place_t here = begin(ABB_STORE_SOCACHE_LOCAL, *state);
    dropper_t dropper;
    place_t there;
    abb_store_record_t got;

    machine->settings.settle = apr_time_from_msec(40);
    there = make_place(machine, *state);
    dropper.place = &there;
    assert_int_equal(put_small(&here, 1), APR_SUCCESS);
    assert_int_equal(get_at(&here, 1, NOW, &got), APR_SUCCESS);
    fake_before_store('r', start_dropper, &dropper);
    /* Writes the record once more after it was removed. */
    replace_at(&here, 1, got.generation, &got, NOW);
    pthread_join(dropper.thread, NULL);
    assert_int_equal(dropper.status, APR_SUCCESS);
    assert_int_equal(status_at(&here, 1, NOW), APR_NOTFOUND);
}

/* A use that is written late brings nothing back either. */
static void a_late_use_brings_nothing_back(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_LOCAL, *state);
    rival_t rival = {&place, 0, APR_SUCCESS};

    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    fake_before_store('u', drop_too, &rival);
    assert_int_equal(touch_at(&place, 1, NOW + SECONDS(9)), APR_SUCCESS);
    assert_int_equal(rival.status, APR_SUCCESS);
    assert_int_equal(status_at(&place, 1, NOW), APR_NOTFOUND);
}

static void replace_too(void *data)
{
    rival_t *rival = data;
    abb_store_record_t record = make_record(33, 33, 33, rival->place->p);
    abb_store_record_t got;

    assert_int_equal(get_at(rival->place, 1, NOW, &got), APR_SUCCESS);
    rival->status = replace_at(rival->place, 1, got.generation, &record, NOW);
}

/* New tokens must never be lost to a use that was noted at the same time. */
static void a_use_undoes_no_replacement(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_LOCAL, *state);
    rival_t rival = {&place, 0, APR_EGENERAL};
    abb_store_record_t got;

    assert_int_equal(put_small(&place, 1), APR_SUCCESS);
    fake_before_store('u', replace_too, &rival);
    assert_int_equal(touch_at(&place, 1, NOW + SECONDS(9)), APR_SUCCESS);
    assert_int_equal(rival.status, APR_SUCCESS);
    assert_int_equal(get_at(&place, 1, NOW, &got), APR_SUCCESS);
    check_content(&got, 33, 33, 33);
    assert_true(got.last_seen == NOW + SECONDS(9));
}

static void lease_and_replace(void *data)
{
    rival_t *rival = data;

    replace_too(rival);
    rival->status = lease_at(rival->place, 1, SECONDS(30), NOW, &rival->holder);
}

/* Two machines saw the lease free; one wrote when the other already held it, and worked. */
static void who_is_late_gets_no_lease(void **state)
{
    machine_t *machines[2] = {prepare_machine(ABB_STORE_SOCACHE_REMOTE),
                              prepare_machine(ABB_STORE_SOCACHE_REMOTE)};
    place_t here = begin(ABB_STORE_SOCACHE_LOCAL, *state);
    rival_t rival = {&here, 0, APR_EGENERAL};
    place_t there[2];
    apr_uint64_t holder;
    abb_store_record_t got;

    for (int i = 0; i < 2; ++i) {
        machines[i]->settings.settle = apr_time_from_msec(30);
        there[i] = make_place(machines[i], *state);
    }
    assert_int_equal(put_small(&here, 1), APR_SUCCESS);
    rival.place = &there[1];
    fake_before_store('l', lease_and_replace, &rival);
    assert_int_equal(lease_at(&there[0], 1, SECONDS(30), NOW, &holder), ABB_ECHANGED);
    assert_int_equal(rival.status, APR_SUCCESS);
    /* What the holder wrote is there, and nobody else comes in between. */
    assert_int_equal(get_at(&here, 1, NOW, &got), APR_SUCCESS);
    check_content(&got, 33, 33, 33);
    assert_int_equal(lease_at(&here, 1, SECONDS(30), NOW, &holder), ABB_ECHANGED);
    assert_int_equal(lease_at(&here, 1, SECONDS(30), NOW + SECONDS(1), &holder), APR_SUCCESS);
}

/* Always late: who comes second is believed. */
static void a_slow_cache_gives_leases(void **state)
{
    machine_t *machine = prepare_machine(ABB_STORE_SOCACHE_REMOTE);
    place_t here = begin(ABB_STORE_SOCACHE_LOCAL, *state);
    apr_uint64_t holder;
    place_t there;

    machine->settings.settle = apr_time_from_msec(5);
    there = make_place(machine, *state);
    assert_int_equal(put_small(&here, 1), APR_SUCCESS);
    fake_set_delay(apr_time_from_msec(20));
    assert_int_equal(lease_at(&there, 1, SECONDS(30), NOW, &holder), ABB_ECHANGED);
    assert_int_equal(lease_at(&there, 1, SECONDS(30), NOW + SECONDS(1), &holder), APR_SUCCESS);
    assert_int_equal(release_at(&there, 1, holder), APR_SUCCESS);
    /* Free, and without doubt. */
    assert_int_equal(lease_at(&there, 1, SECONDS(30), NOW + SECONDS(1), &holder), ABB_ECHANGED);
    fake_set_delay(0);
}

/* Its first try was late and never heard of it: nobody has the lease, and not for long. */
static void nor_does_a_second_try(void **state)
{
    machine_t *machine = prepare_machine(ABB_STORE_SOCACHE_RENEWABLE);
    place_t here = begin(ABB_STORE_SOCACHE_LOCAL, *state);
    apr_uint64_t holder;
    place_t there;

    machine->settings.settle = apr_time_from_msec(5);
    there = make_place(machine, *state);
    assert_int_equal(put_small(&here, 1), APR_SUCCESS);
    fake_set_delay(apr_time_from_msec(20));
    fake_lose_answers('l', 1);
    assert_int_equal(lease_at(&there, 1, SECONDS(55), NOW, &holder), ABB_ECHANGED);
    fake_set_delay(0);
    assert_int_equal(lease_at(&there, 1, SECONDS(55), NOW, &holder), ABB_ECHANGED);
    assert_int_equal(lease_at(&there, 1, SECONDS(55), NOW + SECONDS(1), &holder), APR_SUCCESS);
}

static void sleep_long(void *data)
{
    (void)data;
    apr_sleep(IMPATIENCE + apr_time_from_msec(200));
}

/* A lease for somebody who has left would keep everybody from asking until it runs out. */
static void who_has_left_keeps_no_lease(void **state)
{
    place_t here = begin_impatient(prepare_machine(ABB_STORE_SOCACHE_REMOTE), *state);
    apr_uint64_t holder;

    assert_int_equal(put_small(&here, 1), APR_SUCCESS);
    fake_freeze();
    assert_int_equal(lease_at(&here, 1, SECONDS(55), NOW, &holder), ABB_ESTORE);
    fake_thaw();
    await_recovery(&here, 1, APR_SUCCESS);
    apr_sleep(apr_time_from_msec(50));
    assert_int_equal(lease_at(&here, 1, SECONDS(55), NOW, &holder), APR_SUCCESS);
    assert_int_equal(put_small(&here, 2), APR_SUCCESS);
    fake_before_store('l', sleep_long, NULL);
    assert_int_equal(lease_at(&here, 2, SECONDS(55), NOW, &holder), ABB_ESTORE);
    apr_sleep(apr_time_from_msec(300));
    assert_int_equal(lease_at(&here, 2, SECONDS(55), NOW, &holder), APR_SUCCESS);
}

enum { RIVALS = 8 };

static void *lease_body(void *data)
{
    rival_t *rival = data;
    place_t place = *rival->place;

    apr_pool_create(&place.p, NULL);
    rival->status = lease_at(&place, 1, SECONDS(30), NOW, &rival->holder);
    apr_pool_destroy(place.p);
    return NULL;
}

/* Several machines ask for the lease at the same time, again and again. */
static void of_many_one_gets_the_lease(void **state)
{
    place_t places[RIVALS];
    rival_t rivals[RIVALS];
    pthread_t threads[RIVALS];
    int given = 0;

    fake_reset();
    for (int i = 0; i < RIVALS; ++i) {
        machine_t *machine = prepare_machine(ABB_STORE_SOCACHE_RENEWABLE);

        machine->settings.settle = apr_time_from_msec(20);
        places[i] = make_place(machine, *state);
        rivals[i].place = &places[i];
    }
    assert_int_equal(put_small(&places[0], 1), APR_SUCCESS);
    for (int round = 0; round < 20; ++round) {
        int holders = 0;

        for (int i = 0; i < RIVALS; ++i) {
            assert_int_equal(pthread_create(&threads[i], NULL, lease_body, &rivals[i]), 0);
        }
        for (int i = 0; i < RIVALS; ++i) {
            pthread_join(threads[i], NULL);
        }
        for (int i = 0; i < RIVALS; ++i) {
            assert_true(rivals[i].status == APR_SUCCESS || rivals[i].status == ABB_ECHANGED);
            if (rivals[i].status == APR_SUCCESS) {
                ++holders;
                assert_int_equal(release_at(&places[i], 1, rivals[i].holder), APR_SUCCESS);
            }
        }
        assert_true(holders <= 1);
        given += holders;
    }
    assert_true(given > 10);
}

/* ---- limits of caches ---------------------------------------------------- */

static void expiries_are_what_providers_take(void **state)
{
    machine_t *machine = prepare_machine(ABB_STORE_SOCACHE_LOCAL);
    abb_store_record_t record = make_record(10, 10, 1, *state);
    place_t place;

    fake_reset();
    machine->settings.longest_expiry = SECONDS(30 * 86400 - 60);
    place = make_place(machine, *state);
    record.expires_at = NOW + HOURS(24);
    assert_int_equal(put_at(place.store, 1, &record, NOW), APR_SUCCESS);
    assert_true(fake_counts().last_duration > HOURS(24));
    assert_true(fake_counts().last_duration <= HOURS(24) + SECONDS(60));
    record.expires_at = NOW + HOURS(24 * 300);
    assert_int_equal(put_at(place.store, 2, &record, NOW), APR_SUCCESS);
    assert_true(fake_counts().last_duration <= SECONDS(30 * 86400 - 60));
    assert_true(fake_counts().last_duration > SECONDS(30 * 86400 - 90));
    record.expires_at = NOW - HOURS(5);
    put_at(place.store, 3, &record, NOW);
    assert_true(fake_counts().last_duration > SECONDS(1));
}

static void buffers_grow_with_records(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_LOCAL, *state);
    abb_store_record_t large = make_record(100, 900 * KIB, 1, *state);
    abb_store_record_t got;

    assert_int_equal(put_small(&place, 2), APR_SUCCESS);
    assert_int_equal(status_at(&place, 2, NOW), APR_SUCCESS);
    assert_true(fake_counts().largest_buffer <= 16 * KIB);
    assert_int_equal(put_at(place.store, 1, &large, NOW), APR_SUCCESS);
    assert_int_equal(get_at(&place, 1, NOW, &got), APR_SUCCESS);
    check_content(&got, 100, 900 * KIB, 1);
    assert_true(fake_counts().largest_buffer <= ABB_STORE_RECORD_MAX + KIB);
}

static void no_figure_is_known(void **state)
{
    place_t place = begin(ABB_STORE_SOCACHE_LOCAL, *state);
    abb_store_figures_t figures = figures_of(place.store);

    assert_true(figures.records == -1 && figures.bytes_used == -1);
    assert_true(figures.bytes_capacity == -1 && figures.hits == -1 && figures.misses == -1);
    assert_true(figures.evictions == -1 && figures.expired == -1 && figures.recoveries == -1);
    assert_int_equal(abb_store_take_evictions(place.store, NOW), 0);
}

/* ---- many at once -------------------------------------------------------- */

enum { CROWD = 8, ROUNDS = 60 };

typedef struct {
    place_t place;
    apr_uint64_t number;
    int answered;
} member_t;

static void *crowd_body(void *data)
{
    member_t *member = data;

    for (apr_uint64_t i = 0; i < ROUNDS; ++i) {
        place_t place = member->place;
        abb_store_record_t got;

        apr_pool_create(&place.p, NULL);
        if (put_small(&place, member->number + i) == APR_SUCCESS &&
            get_at(&place, member->number + i, NOW, &got) == APR_SUCCESS) {
            check_content(&got, 100, 100, member->number + i);
            ++member->answered;
        }
        touch_at(&place, member->number + i, NOW + SECONDS(1));
        if (i % 2) {
            drop_at(&place, member->number + i);
        }
        apr_pool_destroy(place.p);
        apr_sleep(500);
    }
    return NULL;
}

/* It freezes, stops, starts and thaws while threads work; at the end all is well. */
static void a_crowd_survives_everything(void **state)
{
    place_t place = begin_impatient(prepare_machine(ABB_STORE_SOCACHE_RENEWABLE), *state);
    member_t members[CROWD];
    pthread_t threads[CROWD];
    int answered = 0;

    for (int i = 0; i < CROWD; ++i) {
        member_t member = {place, (apr_uint64_t)i * 1000, 0};

        members[i] = member;
        assert_int_equal(pthread_create(&threads[i], NULL, crowd_body, &members[i]), 0);
    }
    for (int i = 0; i < 4; ++i) {
        apr_sleep(apr_time_from_msec(30));
        fake_freeze();
        apr_sleep(apr_time_from_msec(50));
        fake_thaw();
        apr_sleep(apr_time_from_msec(30));
        fake_stop();
        apr_sleep(apr_time_from_msec(20));
        fake_start(1);
    }
    for (int i = 0; i < CROWD; ++i) {
        pthread_join(threads[i], NULL);
        answered += members[i].answered;
    }
    assert_true(answered > 0);
    assert_true(await_recovery(&place, 999999, APR_NOTFOUND) < SECONDS(2));
    assert_int_equal(put_small(&place, 999999), APR_SUCCESS);
    assert_int_equal(status_at(&place, 999999, NOW), APR_SUCCESS);
    while (fake_counts().inside) {
        apr_sleep(1000);
    }
}

/* ---- engines for the contract -------------------------------------------- */

static const abb_store_t *local_engine(apr_size_t size, apr_pool_t *p)
{
    return begin(ABB_STORE_SOCACHE_LOCAL, p).store;
}

/* Behind a thread, and touching as the contract's tests expect it: to the end. */
static const abb_store_t *behind_thread;

static apr_status_t touch_and_wait(void *engine, const abb_store_key_t *key, apr_time_t now,
                                   abb_error_t *err)
{
    abb_store_record_t got;
    apr_status_t status;
    apr_pool_t *p;

    apr_pool_create(&p, NULL);
    status = abb_store_get(behind_thread, key, ABB_STORE_OPEN_PART, now, &got, p, err);
    if (status == APR_SUCCESS) {
        status = abb_store_touch(behind_thread, key, now, err);
        /* The only thread does one after the other. */
        abb_store_get(behind_thread, key, ABB_STORE_OPEN_PART, now, &got, p, err);
    }
    apr_pool_destroy(p);
    return status;
}

static const abb_store_t *thread_engine(apr_size_t size, apr_pool_t *p)
{
    machine_t *machine = prepare_machine(ABB_STORE_SOCACHE_RENEWABLE);
    abb_store_methods_t *methods = apr_palloc(p, sizeof(*methods));
    abb_store_t *store = apr_palloc(p, sizeof(*store));

    fake_reset();
    machine->settings.threads = 1;
    behind_thread = start_machine(machine, p);
    *methods = *behind_thread->methods;
    methods->touch = touch_and_wait;
    store->methods = methods;
    store->engine = behind_thread->engine;
    return store;
}

static const abb_store_t *near_engine(apr_size_t size, apr_pool_t *p)
{
    abb_store_near_settings_t settings = {SECONDS(10), SECONDS(60)};
    const abb_store_t *store = NULL;

    abb_store_near_create(&store, shared_store(CONTRACT_STORE_SIZE, p), local_engine(size, p),
                          &settings, p);
    return store;
}

int main(void)
{
    static const engine_maker_t engines[] = {
        {"socache", local_engine, NULL, 0},
        {"socache_in_a_thread", thread_engine, NULL, 0},
        {"near_over_socache", near_engine, NULL, 0},
    };
    static const struct CMUnitTest own[] = {
        UNIT_TEST(a_copy_of_the_cache_opens_nothing),
        UNIT_TEST(a_changed_object_is_no_record),
        UNIT_TEST(a_cut_object_is_no_record),
        UNIT_TEST(objects_in_each_others_place_are_no_records),
        UNIT_TEST(a_use_is_no_record),
        UNIT_TEST(an_old_use_does_not_count),
        UNIT_TEST(another_key_opens_nothing),
        UNIT_TEST(keys_roll_over),
        UNIT_TEST(a_miss_is_proved),
        UNIT_TEST(a_dead_server_is_no_miss),
        UNIT_TEST(a_flushed_cache_is_a_miss),
        UNIT_TEST(a_full_cache_is_still_read),
        UNIT_TEST(a_restart_costs_one_more_try),
        UNIT_TEST(a_record_without_an_answer_is_the_own),
        UNIT_TEST(a_lease_without_an_answer_is_the_own),
        UNIT_TEST(several_threads_may_use_its_memory),
        UNIT_TEST(it_is_back_soon_after_a_stop),
        UNIT_TEST(a_frozen_cache_is_waited_for_thrice),
        UNIT_TEST(an_abandoned_put_ends_by_itself),
        UNIT_TEST(a_slow_cache_is_a_frozen_one),
        UNIT_TEST(a_use_is_noted_without_waiting),
        UNIT_TEST(before_the_start_nothing_is_asked),
        UNIT_TEST(of_two_puts_one_succeeds),
        UNIT_TEST(what_was_dropped_does_not_come_back),
        UNIT_TEST(a_late_use_brings_nothing_back),
        UNIT_TEST(a_use_undoes_no_replacement),
        UNIT_TEST(who_is_late_gets_no_lease),
        UNIT_TEST(nor_does_a_second_try),
        UNIT_TEST(who_has_left_keeps_no_lease),
        UNIT_TEST(a_slow_cache_gives_leases),
        UNIT_TEST(of_many_one_gets_the_lease),
        UNIT_TEST(expiries_are_what_providers_take),
        UNIT_TEST(buffers_grow_with_records),
        UNIT_TEST(no_figure_is_known),
        UNIT_TEST(a_crowd_survives_everything),
    };

    if (abb_crypto_init(NULL) != APR_SUCCESS) {
        return 1;
    }
    return contract_run(engines, UNIT_COUNT(engines), own, UNIT_COUNT(own));
}
