/* t_offload: calls that may never return, made by other threads. */
#include "abb_offload.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "unit.h"

/* ---- the other side ------------------------------------------------------ */

/* What jobs meet. Never freed: a thread may come back to it when a test is over. */
typedef struct side_t {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Jobs wait here. */
    int is_frozen;
    /* Those that are held too, when the others do not. */
    int is_held;
    /* Jobs and probes find nobody. */
    int is_gone;
    apr_interval_time_t delay;
    int begun;
    int done;
    int probes;
    int told_closed;
    int told_open;
    /* Set at the very end of a thread that probed. */
    int *probe_is_over;
    struct side_t *next;
} side_t;

/* All of them, so that none is taken for lost. */
static side_t *sides;

static side_t *make_side(void)
{
    side_t *side = calloc(1, sizeof(*side));

    assert_non_null(side);
    pthread_mutex_init(&side->lock, NULL);
    pthread_cond_init(&side->changed, NULL);
    side->next = sides;
    sides = side;
    return side;
}

static int meet(side_t *side, int *begun, int is_held)
{
    int answered;

    pthread_mutex_lock(&side->lock);
    ++*begun;
    pthread_cond_broadcast(&side->changed);
    while (side->is_frozen || (is_held && side->is_held)) {
        pthread_cond_wait(&side->changed, &side->lock);
    }
    answered = !side->is_gone;
    pthread_mutex_unlock(&side->lock);
    if (side->delay) {
        apr_sleep(side->delay);
    }
    return answered;
}

static int probe(void *owner)
{
    side_t *side = owner;

    return meet(side, &side->probes, 0);
}

static void tell(void *owner, int is_answering)
{
    side_t *side = owner;

    pthread_mutex_lock(&side->lock);
    ++*(is_answering ? &side->told_open : &side->told_closed);
    pthread_mutex_unlock(&side->lock);
}

static void set_frozen(side_t *side, int is_frozen)
{
    pthread_mutex_lock(&side->lock);
    side->is_frozen = is_frozen;
    pthread_cond_broadcast(&side->changed);
    pthread_mutex_unlock(&side->lock);
}

static int count(side_t *side, const int *counter)
{
    int value;

    pthread_mutex_lock(&side->lock);
    value = *counter;
    pthread_mutex_unlock(&side->lock);
    return value;
}

/* Wait until a counter has come so far; fail after ten seconds. */
static void await(side_t *side, const int *counter, int wanted)
{
    for (int i = 0; i < 1000 && count(side, counter) < wanted; ++i) {
        apr_sleep(apr_time_from_msec(10));
    }
    assert_true(count(side, counter) >= wanted);
}

/* ---- jobs ---------------------------------------------------------------- */

/* Adds up its own bytes, so that memory given away too early is seen. */
typedef struct {
    side_t *side;
    unsigned char bytes[1000];
    int sum;
    pthread_t thread;
    int takes_signals;
    int is_held;
} errand_t;

static int run_errand(void *owner, void *job)
{
    side_t *side = owner;
    errand_t *errand = job;
    int answered = meet(side, &side->begun, errand->is_held);

    sigset_t blocked;

    errand->thread = pthread_self();
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    errand->takes_signals = !sigismember(&blocked, SIGTERM) || !sigismember(&blocked, SIGUSR1);
    for (size_t i = 0; i < sizeof(errand->bytes); ++i) {
        errand->sum += errand->bytes[i];
    }
    pthread_mutex_lock(&side->lock);
    ++side->done;
    pthread_cond_broadcast(&side->changed);
    pthread_mutex_unlock(&side->lock);
    return answered;
}

static errand_t *make_errand(side_t *side, apr_pool_t **pool)
{
    errand_t *errand;

    assert_int_equal(abb_offload_create_pool(pool), APR_SUCCESS);
    errand = apr_pcalloc(*pool, sizeof(*errand));
    errand->side = side;
    memset(errand->bytes, 1, sizeof(errand->bytes));
    return errand;
}

/* One job to its end; what the asker got. */
static apr_status_t ask(abb_offload_t *offload, side_t *side, abb_error_t *err)
{
    apr_pool_t *pool;
    errand_t *errand = make_errand(side, &pool);
    apr_status_t status = abb_offload_run(offload, run_errand, errand, pool, err);

    if (status == APR_SUCCESS) {
        assert_int_equal(errand->sum, sizeof(errand->bytes));
        assert_false(pthread_equal(errand->thread, pthread_self()));
        assert_false(errand->takes_signals);
        apr_pool_destroy(pool);
    }
    return status;
}

static abb_offload_t *create(side_t *side, int threads, apr_pool_t *p)
{
    abb_offload_settings_t settings = {"the other side",
                                       threads,
                                       apr_time_from_msec(100),
                                       3,
                                       apr_time_from_msec(50),
                                       apr_time_from_msec(200),
                                       probe,
                                       tell,
                                       side};
    abb_offload_t *offload = NULL;

    assert_int_equal(abb_offload_create(&offload, &settings, p), APR_SUCCESS);
    return offload;
}

static void await_answering(abb_offload_t *offload)
{
    for (int i = 0; i < 1000 && !abb_offload_is_answering(offload); ++i) {
        apr_sleep(apr_time_from_msec(10));
    }
    assert_true(abb_offload_is_answering(offload));
}

/* ---- tests --------------------------------------------------------------- */

static void a_job_is_done_by_another_thread(void **state)
{
    side_t *side = make_side();
    abb_offload_t *offload;

    offload = create(side, 2, *state);
    for (int i = 0; i < 200; ++i) {
        assert_int_equal(ask(offload, side, NULL), APR_SUCCESS);
    }
    assert_int_equal(side->begun, 200);
}

static void who_asks_waits_no_longer_than_told(void **state)
{
    side_t *side = make_side();
    abb_offload_t *offload;
    apr_time_t began;
    abb_error_t err;

    offload = create(side, 4, *state);
    set_frozen(side, 1);
    abb_error_clear(&err);
    began = apr_time_now();
    assert_int_equal(ask(offload, side, &err), ABB_ESTORE);
    assert_true(apr_time_now() - began >= apr_time_from_msec(95));
    assert_true(apr_time_now() - began < apr_time_from_msec(2000));
    assert_string_equal(err.text, "the other side did not answer within 100 ms");
    /* The job goes on, with its memory. */
    set_frozen(side, 0);
    await(side, &side->done, 1);
    assert_int_equal(ask(offload, side, NULL), APR_SUCCESS);
    assert_int_equal(count(side, &side->told_closed), 0);
}

static void after_three_time_outs_nobody_waits(void **state)
{
    side_t *side = make_side();
    abb_offload_t *offload;
    abb_error_t err;
    apr_time_t began;

    offload = create(side, 8, *state);
    set_frozen(side, 1);
    for (int i = 0; i < 3; ++i) {
        assert_int_equal(ask(offload, side, NULL), ABB_ESTORE);
    }
    assert_false(abb_offload_is_answering(offload));
    assert_int_equal(count(side, &side->told_closed), 1);
    began = apr_time_now();
    abb_error_clear(&err);
    for (int i = 0; i < 1000; ++i) {
        assert_int_equal(ask(offload, side, &err), ABB_ESTORE);
    }
    assert_true(apr_time_now() - began < 1000 * apr_time_from_msec(5));
    assert_string_equal(err.text, "the other side is not asked: it did not answer a moment ago");
    assert_int_equal(count(side, &side->begun), 3);
    set_frozen(side, 0);
    await_answering(offload);
    await(side, &side->told_open, 1);
    assert_int_equal(ask(offload, side, NULL), APR_SUCCESS);
}

/* Two troubles, then an answer, then two troubles: not three in a row. */
static void an_answer_forgives_troubles(void **state)
{
    side_t *side = make_side();
    abb_offload_t *offload;

    offload = create(side, 2, *state);
    for (int i = 0; i < 10; ++i) {
        side->is_gone = i % 3 != 2;
        assert_int_equal(ask(offload, side, NULL), APR_SUCCESS);
        assert_true(abb_offload_is_answering(offload));
    }
}

static void troubles_count_as_time_outs_do(void **state)
{
    side_t *side = make_side();
    abb_offload_t *offload;

    offload = create(side, 2, *state);
    pthread_mutex_lock(&side->lock);
    side->is_gone = 1;
    pthread_mutex_unlock(&side->lock);
    for (int i = 0; i < 3; ++i) {
        assert_int_equal(ask(offload, side, NULL), APR_SUCCESS);
    }
    assert_int_equal(ask(offload, side, NULL), ABB_ESTORE);
    await(side, &side->probes, 3);
    assert_false(abb_offload_is_answering(offload));
    pthread_mutex_lock(&side->lock);
    side->is_gone = 0;
    pthread_mutex_unlock(&side->lock);
    await_answering(offload);
    assert_int_equal(ask(offload, side, NULL), APR_SUCCESS);
}

/* All threads are stuck in jobs that nobody waits for; who comes must not wait each time. */
static void stuck_threads_are_noticed(void **state)
{
    side_t *side = make_side();
    abb_offload_t *offload;
    apr_pool_t *pool;

    offload = create(side, 2, *state);
    set_frozen(side, 1);
    for (int i = 0; i < 2; ++i) {
        errand_t *errand = make_errand(side, &pool);

        assert_int_equal(abb_offload_start(offload, run_errand, errand, pool), APR_SUCCESS);
    }
    await(side, &side->begun, 2);
    for (int i = 0; i < 3; ++i) {
        assert_true(abb_offload_is_answering(offload));
        assert_int_equal(ask(offload, side, NULL), ABB_ESTORE);
    }
    assert_false(abb_offload_is_answering(offload));
    set_frozen(side, 0);
    await(side, &side->done, count(side, &side->begun));
    await_answering(offload);
}

/* As when a machine vanished: what asked it stays stuck, but another takes its place. */
static void stuck_threads_are_replaced(void **state)
{
    side_t *side = make_side();
    abb_offload_t *offload;
    apr_pool_t *pool;
    int held = 0;

    offload = create(side, 2, *state);
    side->is_held = 1;
    /* Four times as many as are wanted in all; the last place is left. */
    for (; held < 7; ++held) {
        errand_t *errand = make_errand(side, &pool);

        errand->is_held = 1;
        assert_int_equal(abb_offload_start(offload, run_errand, errand, pool), APR_SUCCESS);
        if (held % 2) {
            await(side, &side->begun, held + 1);
            apr_sleep(apr_time_from_msec(120));
        }
    }
    await(side, &side->begun, 7);
    for (int i = 0; i < 20; ++i) {
        assert_int_equal(ask(offload, side, NULL), APR_SUCCESS);
    }
    pthread_mutex_lock(&side->lock);
    side->is_held = 0;
    pthread_cond_broadcast(&side->changed);
    pthread_mutex_unlock(&side->lock);
    await(side, &side->done, 27);
    for (int i = 0; i < 20; ++i) {
        assert_int_equal(ask(offload, side, NULL), APR_SUCCESS);
    }
}

static void fewer_threads_than_time_outs_are_enough(void **state)
{
    side_t *side = make_side();
    abb_offload_t *offload;

    offload = create(side, 1, *state);
    set_frozen(side, 1);
    for (int i = 0; i < 3; ++i) {
        assert_true(abb_offload_is_answering(offload));
        assert_int_equal(ask(offload, side, NULL), ABB_ESTORE);
    }
    assert_false(abb_offload_is_answering(offload));
    set_frozen(side, 0);
    await_answering(offload);
}

/* A queue that is only long is no trouble. */
static void waiting_behind_others_is_no_trouble(void **state)
{
    side_t *side = make_side();
    abb_offload_t *offload;
    apr_pool_t *pool;

    side->delay = apr_time_from_msec(30);
    offload = create(side, 1, *state);
    for (int i = 0; i < 40; ++i) {
        errand_t *errand = make_errand(side, &pool);

        assert_int_equal(abb_offload_start(offload, run_errand, errand, pool), APR_SUCCESS);
    }
    for (int i = 0; i < 5; ++i) {
        assert_int_equal(ask(offload, side, NULL), ABB_ESTORE);
        assert_true(abb_offload_is_answering(offload));
    }
}

/* Answers that come too late help nobody: it stays as it is, without a to and fro. */
static void slow_answers_do_not_count(void **state)
{
    side_t *side = make_side();
    abb_offload_t *offload;

    side->delay = apr_time_from_msec(150);
    offload = create(side, 4, *state);
    for (int i = 0; i < 3; ++i) {
        assert_int_equal(ask(offload, side, NULL), ABB_ESTORE);
    }
    await(side, &side->done, 3);
    await(side, &side->probes, 3);
    assert_false(abb_offload_is_answering(offload));
    assert_int_equal(count(side, &side->told_open), 0);
}

static void a_stuck_probe_gets_help(void **state)
{
    side_t *side = make_side();
    abb_offload_t *offload;

    offload = create(side, 1, *state);
    set_frozen(side, 1);
    while (abb_offload_is_answering(offload)) {
        assert_int_equal(ask(offload, side, NULL), ABB_ESTORE);
    }
    for (int i = 0; i < 1000 && count(side, &side->probes) < 3; ++i) {
        assert_int_equal(ask(offload, side, NULL), ABB_ESTORE);
        apr_sleep(apr_time_from_msec(10));
    }
    assert_true(count(side, &side->probes) >= 3);
    assert_true(count(side, &side->probes) <= ABB_OFFLOAD_PROBES_MAX);
    set_frozen(side, 0);
    await_answering(offload);
    await(side, &side->done, 1);
}

static void what_nobody_waits_for_is_bounded(void **state)
{
    side_t *side = make_side();
    abb_offload_t *offload;
    int taken = 0;

    offload = create(side, 1, *state);
    set_frozen(side, 1);
    for (int i = 0; i < 1000; ++i) {
        apr_pool_t *pool;
        errand_t *errand = make_errand(side, &pool);

        taken += abb_offload_start(offload, run_errand, errand, pool) == APR_SUCCESS;
    }
    assert_true(taken >= 64 && taken <= 70);
    set_frozen(side, 0);
    await(side, &side->done, taken);
}

/* ---- life ---------------------------------------------------------------- */

static void its_end_does_not_wait_for_a_stuck_thread(void **state)
{
    side_t *side = make_side();
    abb_offload_t *offload;
    apr_time_t began;
    apr_pool_t *p;

    apr_pool_create(&p, *state);
    offload = create(side, 2, p);
    set_frozen(side, 1);
    assert_int_equal(ask(offload, side, NULL), ABB_ESTORE);
    began = apr_time_now();
    apr_pool_destroy(p);
    assert_true(apr_time_now() - began < apr_time_from_msec(1000));
    set_frozen(side, 0);
    await(side, &side->done, 1);
    /* And until the thread has let go of everything. */
    apr_sleep(apr_time_from_msec(50));
}

static void its_end_drops_what_waits(void **state)
{
    side_t *side = make_side();
    abb_offload_t *offload;
    apr_pool_t *pool;
    apr_pool_t *p;

    apr_pool_create(&p, *state);
    side->delay = apr_time_from_msec(20);
    offload = create(side, 1, p);
    for (int i = 0; i < 20; ++i) {
        errand_t *errand = make_errand(side, &pool);

        assert_int_equal(abb_offload_start(offload, run_errand, errand, pool), APR_SUCCESS);
    }
    await(side, &side->begun, 1);
    apr_pool_destroy(p);
    assert_true(side->done < 20);
    assert_int_equal(side->begun, side->done);
}

/* Somebody who asks, in a thread of his own. */
typedef struct {
    abb_offload_t *offload;
    side_t *side;
    pthread_t thread;
    apr_status_t status;
    abb_error_t err;
    apr_interval_time_t taken;
} asker_t;

static void *asker_body(void *data)
{
    asker_t *asker = data;
    apr_time_t began = apr_time_now();

    abb_error_clear(&asker->err);
    asker->status = ask(asker->offload, asker->side, &asker->err);
    asker->taken = apr_time_now() - began;
    return NULL;
}

static void *thaw_soon(void *data)
{
    apr_sleep(apr_time_from_msec(100));
    set_frozen(data, 0);
    return NULL;
}

/* The first has a thread that is at work; the others wait for one that never comes. */
static void its_end_is_told_to_those_who_wait(void **state)
{
    side_t *side = make_side();
    abb_offload_settings_t settings = {"the other side",
                                       1,
                                       apr_time_from_sec(5),
                                       3,
                                       apr_time_from_msec(50),
                                       apr_time_from_msec(200),
                                       probe,
                                       tell,
                                       side};
    asker_t askers[4];
    pthread_t thawer;
    apr_pool_t *p;

    apr_pool_create(&p, *state);
    assert_int_equal(abb_offload_create(&askers[0].offload, &settings, p), APR_SUCCESS);
    set_frozen(side, 1);
    for (size_t i = 0; i < UNIT_COUNT(askers); ++i) {
        askers[i].offload = askers[0].offload;
        askers[i].side = side;
        assert_int_equal(pthread_create(&askers[i].thread, NULL, asker_body, &askers[i]), 0);
        await(side, &side->begun, 1);
    }
    apr_sleep(apr_time_from_msec(100));
    assert_int_equal(pthread_create(&thawer, NULL, thaw_soon, side), 0);
    apr_pool_destroy(p);
    for (size_t i = 0; i < UNIT_COUNT(askers); ++i) {
        pthread_join(askers[i].thread, NULL);
        assert_true(askers[i].taken < apr_time_from_sec(4));
    }
    pthread_join(thawer, NULL);
    assert_int_equal(askers[0].status, APR_SUCCESS);
    for (size_t i = 1; i < UNIT_COUNT(askers); ++i) {
        assert_int_equal(askers[i].status, ABB_ESTORE);
        assert_string_equal(askers[i].err.text, "the other side is not asked: the server ends");
    }
    assert_int_equal(side->done, 1);
}

/* What a thread does when it is at its very end, the code of this module behind it. */
static pthread_key_t last_act;

static void perform_last_act(void *data)
{
    int *is_over = data;

    apr_sleep(apr_time_from_msec(50));
    __atomic_store_n(is_over, 1, __ATOMIC_SEQ_CST);
}

static int work_until_the_end(void *owner, void *job)
{
    pthread_setspecific(last_act, *(int **)job);
    return 1;
}

static int probe_until_the_end(void *owner)
{
    side_t *side = owner;

    pthread_setspecific(last_act, side->probe_is_over);
    return meet(side, &side->probes, 0);
}

/* The server may unload the module's code right afterwards. */
static void after_its_end_no_thread_is_on_its_way(void **state)
{
    int is_over = 0;
    int **job;
    abb_offload_t *offload;
    apr_pool_t *pool;
    apr_pool_t *p;

    apr_pool_create(&p, *state);
    pthread_key_create(&last_act, perform_last_act);
    offload = create(make_side(), 1, p);
    assert_int_equal(abb_offload_create_pool(&pool), APR_SUCCESS);
    job = apr_palloc(pool, sizeof(*job));
    *job = &is_over;
    assert_int_equal(abb_offload_run(offload, work_until_the_end, job, pool, NULL), APR_SUCCESS);
    apr_pool_destroy(pool);
    apr_pool_destroy(p);
    assert_true(__atomic_load_n(&is_over, __ATOMIC_SEQ_CST));
    pthread_key_delete(last_act);
}

static void nor_one_that_tried(void **state)
{
    int is_over = 0;
    side_t *side = make_side();
    abb_offload_settings_t settings = {"the other side",
                                       1,
                                       apr_time_from_msec(100),
                                       1,
                                       apr_time_from_msec(1),
                                       apr_time_from_msec(200),
                                       probe_until_the_end,
                                       NULL,
                                       side};
    abb_offload_t *offload;
    apr_pool_t *p;

    apr_pool_create(&p, *state);
    pthread_key_create(&last_act, perform_last_act);
    side->probe_is_over = &is_over;
    side->is_gone = 1;
    assert_int_equal(abb_offload_create(&offload, &settings, p), APR_SUCCESS);
    assert_int_equal(ask(offload, side, NULL), APR_SUCCESS);
    await(side, &side->probes, 1);
    apr_pool_destroy(p);
    assert_true(__atomic_load_n(&is_over, __ATOMIC_SEQ_CST));
    pthread_key_delete(last_act);
}

static void threads_take_no_signals(void **state)
{
    side_t *side = make_side();
    abb_offload_t *offload;
    sigset_t before;
    sigset_t after;

    pthread_sigmask(SIG_SETMASK, NULL, &before);
    offload = create(side, 1, *state);
    assert_int_equal(ask(offload, side, NULL), APR_SUCCESS);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    assert_int_equal(sigismember(&before, SIGTERM), sigismember(&after, SIGTERM));
}

/* ---- many at once -------------------------------------------------------- */

enum { CROWD = 8, ROUNDS = 150 };

typedef struct {
    abb_offload_t *offload;
    side_t *side;
    int answered;
    int refused;
} member_t;

static void *crowd_body(void *data)
{
    member_t *member = data;

    for (int i = 0; i < ROUNDS; ++i) {
        if (ask(member->offload, member->side, NULL) == APR_SUCCESS) {
            ++member->answered;
        }
        else {
            ++member->refused;
        }
        if (i % 10 == 0) {
            apr_pool_t *pool;
            errand_t *errand = make_errand(member->side, &pool);

            abb_offload_start(member->offload, run_errand, errand, pool);
        }
        apr_sleep(500);
    }
    return NULL;
}

static void a_crowd_while_it_freezes_and_thaws(void **state)
{
    member_t members[CROWD];
    pthread_t threads[CROWD];
    abb_offload_t *offload;
    side_t *side = make_side();
    int answered = 0;

    offload = create(side, 4, *state);
    for (int i = 0; i < CROWD; ++i) {
        member_t member = {offload, side, 0, 0};

        members[i] = member;
        assert_int_equal(pthread_create(&threads[i], NULL, crowd_body, &members[i]), 0);
    }
    for (int i = 0; i < 4; ++i) {
        apr_sleep(apr_time_from_msec(60));
        set_frozen(side, 1);
        apr_sleep(apr_time_from_msec(60));
        set_frozen(side, 0);
    }
    for (int i = 0; i < CROWD; ++i) {
        pthread_join(threads[i], NULL);
        assert_int_equal(members[i].answered + members[i].refused, ROUNDS);
        answered += members[i].answered;
    }
    assert_true(answered > 0);
    await_answering(offload);
    assert_int_equal(ask(offload, side, NULL), APR_SUCCESS);
    await(side, &side->done, count(side, &side->begun));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        UNIT_TEST(a_job_is_done_by_another_thread),
        UNIT_TEST(who_asks_waits_no_longer_than_told),
        UNIT_TEST(after_three_time_outs_nobody_waits),
        UNIT_TEST(an_answer_forgives_troubles),
        UNIT_TEST(troubles_count_as_time_outs_do),
        UNIT_TEST(stuck_threads_are_noticed),
        UNIT_TEST(stuck_threads_are_replaced),
        UNIT_TEST(fewer_threads_than_time_outs_are_enough),
        UNIT_TEST(waiting_behind_others_is_no_trouble),
        UNIT_TEST(slow_answers_do_not_count),
        UNIT_TEST(a_stuck_probe_gets_help),
        UNIT_TEST(what_nobody_waits_for_is_bounded),
        UNIT_TEST(its_end_does_not_wait_for_a_stuck_thread),
        UNIT_TEST(its_end_drops_what_waits),
        UNIT_TEST(its_end_is_told_to_those_who_wait),
        UNIT_TEST(after_its_end_no_thread_is_on_its_way),
        UNIT_TEST(nor_one_that_tried),
        UNIT_TEST(threads_take_no_signals),
        UNIT_TEST(a_crowd_while_it_freezes_and_thaws),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
