/* t_gate: so many may wait and no more, whatever becomes of those who do. */
#include "abb_gate.h"

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit.h"

#define SECONDS(n) apr_time_from_sec(n)
#define NOW apr_time_from_sec(1800000000)

static abb_gate_t *make_gate(apr_pool_t *p)
{
    return abb_gate_create(apr_pcalloc(p, abb_gate_size()), p);
}

static void so_many_may_wait(void **state)
{
    abb_gate_limits_t limits = {3, 3};
    abb_gate_t *gate = make_gate(*state);
    abb_gate_place_t places[4];

    for (int i = 0; i < 3; ++i) {
        assert_int_equal(abb_gate_count(gate, NOW), i);
        assert_true(abb_gate_enter(gate, &limits, SECONDS(30), NOW, &places[i]));
    }
    assert_false(abb_gate_enter(gate, &limits, SECONDS(30), NOW, &places[3]));
    assert_int_equal(abb_gate_count(gate, NOW), 3);
    abb_gate_leave(gate, &places[1]);
    assert_true(abb_gate_enter(gate, &limits, SECONDS(30), NOW, &places[3]));
    assert_false(abb_gate_enter(gate, &limits, SECONDS(30), NOW, &places[1]));
    abb_gate_leave(gate, &places[0]);
    abb_gate_leave(gate, &places[2]);
    abb_gate_leave(gate, &places[3]);
    assert_int_equal(abb_gate_count(gate, NOW), 0);
}

static void a_process_has_its_share(void **state)
{
    abb_gate_limits_t limits = {10, 2};
    void *block = apr_pcalloc(*state, abb_gate_size());
    abb_gate_t *one = abb_gate_create(block, *state);
    abb_gate_t *other = abb_gate_create(block, *state);
    abb_gate_place_t place;

    assert_true(abb_gate_enter(one, &limits, SECONDS(30), NOW, &place));
    assert_true(abb_gate_enter(one, &limits, SECONDS(30), NOW, &place));
    assert_false(abb_gate_enter(one, &limits, SECONDS(30), NOW, &place));
    assert_true(abb_gate_enter(other, &limits, SECONDS(30), NOW, &place));
    assert_int_equal(abb_gate_count(one, NOW), 3);
}

static void a_stricter_site_sees_all_who_wait(void **state)
{
    abb_gate_limits_t many = {8, 8};
    abb_gate_limits_t few = {2, 8};
    abb_gate_t *gate = make_gate(*state);
    abb_gate_place_t place;

    assert_true(abb_gate_enter(gate, &many, SECONDS(30), NOW, &place));
    assert_true(abb_gate_enter(gate, &many, SECONDS(30), NOW, &place));
    assert_false(abb_gate_enter(gate, &few, SECONDS(30), NOW, &place));
    assert_true(abb_gate_enter(gate, &many, SECONDS(30), NOW, &place));
}

static void a_place_that_nobody_gives_back_is_free_in_time(void **state)
{
    abb_gate_limits_t limits = {1, 5};
    abb_gate_t *gate = make_gate(*state);
    abb_gate_place_t dead;
    abb_gate_place_t next;

    assert_true(abb_gate_enter(gate, &limits, SECONDS(30), NOW, &dead));
    assert_false(abb_gate_enter(gate, &limits, SECONDS(30), NOW + SECONDS(29), &next));
    assert_true(abb_gate_enter(gate, &limits, SECONDS(30), NOW + SECONDS(30), &next));
    /* Who comes back late takes nothing from the other. */
    abb_gate_leave(gate, &dead);
    assert_int_equal(abb_gate_count(gate, NOW + SECONDS(30)), 1);
    abb_gate_leave(gate, &next);
    assert_int_equal(abb_gate_count(gate, NOW + SECONDS(30)), 0);
}

static void a_place_of_another_clock_is_free(void **state)
{
    abb_gate_limits_t limits = {1, 5};
    abb_gate_t *gate = make_gate(*state);
    abb_gate_place_t place;

    assert_true(abb_gate_enter(gate, &limits, SECONDS(30), NOW, &place));
    assert_true(abb_gate_enter(gate, &limits, SECONDS(30), NOW - SECONDS(3600), &place));
}

static void limits_follow_the_server(void **state)
{
    static const struct {
        int wanted, processes, threads, server, process;
    } cases[] = {
        /* A quarter of everything, and of each process. */
        {0, 4, 25, 25, 6},
        {0, 16, 64, 256, 16},
        {0, 40, 1, 10, 1},
        {0, 1, 4, 4, 4},
        {0, 1, 1, 4, 4},
        {0, 2, 2, 4, 2},
        /* As written. */
        {10, 4, 25, 10, 2},
        {1, 4, 25, 1, 1},
        {2, 4, 25, 2, 1},
        {100, 4, 25, 100, 25},
        {5000, 4, 25, ABB_GATE_PLACES_MAX, 256},
        {0, 100, 1000, ABB_GATE_PLACES_MAX, 10},
        {0, 0, 0, 4, 1},
        {0, -1, -1, 4, 1},
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(cases); ++i) {
        abb_gate_limits_t limits =
            abb_gate_limits(cases[i].wanted, cases[i].processes, cases[i].threads);

        if (limits.server != cases[i].server || limits.process != cases[i].process) {
            fail_msg("case %d: %d of the server, %d of a process", (int)i, limits.server,
                     limits.process);
        }
    }
}

typedef struct {
    abb_gate_t *gate;
    int *inside;
    int *most;
    int entered;
    apr_time_t until;
} visitor_t;

static void *visit_often(void *data)
{
    abb_gate_limits_t limits = {3, 3};
    visitor_t *visitor = data;
    /* On a busy machine the others' places may belong to threads that do not run just now. */
    apr_time_t patience = apr_time_now() + SECONDS(10);

    for (int i = 0; i < 20000 || (!visitor->entered && apr_time_now() < patience); ++i) {
        abb_gate_place_t place;

        if (abb_gate_enter(visitor->gate, &limits, SECONDS(30), NOW, &place)) {
            int inside = __atomic_add_fetch(visitor->inside, 1, __ATOMIC_SEQ_CST);
            int most = __atomic_load_n(visitor->most, __ATOMIC_SEQ_CST);

            while (inside > most &&
                   !__atomic_compare_exchange_n(visitor->most, &most, inside, 0, __ATOMIC_SEQ_CST,
                                                __ATOMIC_SEQ_CST)) {
            }
            ++visitor->entered;
            __atomic_sub_fetch(visitor->inside, 1, __ATOMIC_SEQ_CST);
            abb_gate_leave(visitor->gate, &place);
        }
    }
    return NULL;
}

static void a_crowd_never_finds_more_places(void **state)
{
    abb_gate_t *gate = make_gate(*state);
    pthread_t threads[8];
    visitor_t visitors[8];
    int inside = 0;
    int most = 0;

    for (int i = 0; i < 8; ++i) {
        visitor_t visitor = {gate, &inside, &most, 0, 0};

        visitors[i] = visitor;
        assert_int_equal(pthread_create(&threads[i], NULL, visit_often, &visitors[i]), 0);
    }
    for (int i = 0; i < 8; ++i) {
        pthread_join(threads[i], NULL);
        assert_true(visitors[i].entered > 0);
    }
    assert_in_range(most, 1, 3);
    assert_int_equal(abb_gate_count(gate, NOW), 0);
}

static void a_killed_process_keeps_no_place_for_ever(void **state)
{
    abb_gate_limits_t limits = {2, 2};
    void *block =
        mmap(NULL, abb_gate_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    abb_gate_t *gate = abb_gate_create(block, *state);
    abb_gate_place_t place;
    pid_t child = fork();
    int status;

    if (child == 0) {
        abb_gate_enter(gate, &limits, SECONDS(30), NOW, &place);
        abb_gate_enter(gate, &limits, SECONDS(30), NOW, &place);
        raise(SIGKILL);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(abb_gate_count(gate, NOW), 2);
    assert_false(abb_gate_enter(gate, &limits, SECONDS(30), NOW, &place));
    assert_true(abb_gate_enter(gate, &limits, SECONDS(30), NOW + SECONDS(31), &place));
    munmap(block, abb_gate_size());
}

/* ---- waiting for a place -------------------------------------------------- */

static void *leave_soon(void *data)
{
    const visitor_t *visitor = data;
    abb_gate_place_t place = {0, apr_time_now()};

    apr_sleep(apr_time_from_msec(300));
    place.until = visitor->until;
    abb_gate_leave(visitor->gate, &place);
    return NULL;
}

static void who_waits_gets_the_place_that_comes_free(void **state)
{
    abb_gate_limits_t limits = {1, 1};
    abb_gate_t *gate = make_gate(*state);
    apr_time_t began = apr_time_now();
    abb_gate_place_t first;
    abb_gate_place_t second;
    visitor_t visitor = {.gate = gate};
    pthread_t thread;

    assert_true(abb_gate_wait(gate, &limits, SECONDS(30), &first));
    visitor.until = first.until;
    assert_int_equal(pthread_create(&thread, NULL, leave_soon, &visitor), 0);
    assert_true(abb_gate_wait(gate, &limits, SECONDS(30), &second));
    pthread_join(thread, NULL);
    assert_true(apr_time_now() - began >= apr_time_from_msec(300));
    assert_true(apr_time_now() - began < ABB_GATE_PATIENCE + SECONDS(2));
}

static void nobody_waits_where_it_takes_long(void **state)
{
    abb_gate_limits_t limits = {1, 1};
    abb_gate_t *gate = make_gate(*state);
    apr_time_t began = apr_time_now();
    abb_gate_place_t slow;
    abb_gate_place_t next;

    assert_true(abb_gate_enter(gate, &limits, SECONDS(30), began - ABB_GATE_PATIENCE, &slow));
    for (int i = 0; i < 100; ++i) {
        assert_false(abb_gate_wait(gate, &limits, SECONDS(30), &next));
    }
    assert_true(apr_time_now() - began < ABB_GATE_PATIENCE);
}

static void waiting_has_an_end(void **state)
{
    abb_gate_limits_t limits = {1, 1};
    abb_gate_t *gate = make_gate(*state);
    abb_gate_place_t slow;
    abb_gate_place_t next;
    apr_time_t began = apr_time_now();

    assert_true(abb_gate_wait(gate, &limits, SECONDS(30), &slow));
    assert_false(abb_gate_wait(gate, &limits, SECONDS(30), &next));
    assert_true(apr_time_now() - began < ABB_GATE_PATIENCE + SECONDS(2));
    abb_gate_leave(gate, &slow);
    assert_true(abb_gate_wait(gate, &limits, SECONDS(30), &next));
}

/* ---- claims -------------------------------------------------------------- */

#define NAME 0x1234567890abcdefULL

static void what_is_claimed_is_claimed_once(void **state)
{
    abb_gate_t *gate = make_gate(*state);

    assert_true(abb_gate_claim(gate, NAME, SECONDS(10), NOW));
    assert_false(abb_gate_claim(gate, NAME, SECONDS(10), NOW));
    assert_false(abb_gate_claim(gate, NAME, SECONDS(10), NOW + SECONDS(9)));
    assert_true(abb_gate_claim(gate, NAME, SECONDS(10), NOW + SECONDS(10)));
    assert_true(abb_gate_claim(gate, NAME + 1, SECONDS(10), NOW));
}

/* The lower bits choose the spot, the upper half tells names apart. */
static void names_that_meet_do_not_hinder_each_other(void **state)
{
    abb_gate_t *gate = make_gate(*state);

    assert_true(abb_gate_claim(gate, NAME, SECONDS(10), NOW));
    assert_true(abb_gate_claim(gate, NAME + (1ULL << 40), SECONDS(10), NOW));
    assert_false(abb_gate_claim(gate, NAME, SECONDS(10), NOW));
}

static void a_claim_of_another_clock_is_none(void **state)
{
    abb_gate_t *gate = make_gate(*state);

    assert_true(abb_gate_claim(gate, NAME, apr_time_from_sec(86400), NOW));
    assert_false(abb_gate_claim(gate, NAME, SECONDS(10), NOW + apr_time_from_sec(899)));
    assert_true(abb_gate_claim(gate, NAME, SECONDS(10), NOW + apr_time_from_sec(901)));
    assert_true(abb_gate_claim(gate, NAME, SECONDS(10), NOW - apr_time_from_sec(7200)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(so_many_may_wait),
        UNIT_TEST(a_process_has_its_share),
        UNIT_TEST(a_stricter_site_sees_all_who_wait),
        UNIT_TEST(a_place_that_nobody_gives_back_is_free_in_time),
        UNIT_TEST(a_place_of_another_clock_is_free),
        UNIT_TEST(limits_follow_the_server),
        UNIT_TEST(a_crowd_never_finds_more_places),
        UNIT_TEST(a_killed_process_keeps_no_place_for_ever),
        UNIT_TEST(who_waits_gets_the_place_that_comes_free),
        UNIT_TEST(nobody_waits_where_it_takes_long),
        UNIT_TEST(waiting_has_an_end),
        UNIT_TEST(what_is_claimed_is_claimed_once),
        UNIT_TEST(names_that_meet_do_not_hinder_each_other),
        UNIT_TEST(a_claim_of_another_clock_is_none),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
