/* t_counters: nothing is lost, whoever counts; hours pass; quantiles are near the truth. */
#include "abb_counters.h"

#include <apr_shm.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit.h"

#define MINUTE apr_time_from_sec(60)
/* The beginning of a minute. */
#define NOW apr_time_from_sec(1800000000)

static abb_counters_t *make_counters(apr_pool_t *p)
{
    apr_shm_t *shm;

    assert_int_equal(apr_shm_create(&shm, abb_counters_size(), NULL, p), APR_SUCCESS);
    return abb_counters_begin(apr_shm_baseaddr_get(shm), NOW);
}

static abb_counters_sum_t read_at(const abb_counters_t *counters, apr_time_t now)
{
    abb_counters_sum_t sum;

    abb_counters_read(counters, now, &sum);
    return sum;
}

static void everything_begins_at_nothing(void **state)
{
    abb_counters_sum_t sum = read_at(make_counters(*state), NOW);

    assert_int_equal(sum.started_at, NOW);
    assert_int_equal(sum.restarts, 0);
    assert_int_equal(sum.rate_limit_remaining, -1);
    assert_int_equal(sum.change_at, 0);
    unit_equal(sum.change, "", "change");
    for (int i = 0; i < ABB_COUNT_KINDS; ++i) {
        assert_int_equal(sum.counts[i], 0);
    }
    assert_int_equal(abb_counters_quantile(&sum.calls[0].times, 0.5), -1);
}

static void each_thing_is_counted_for_itself(void **state)
{
    abb_counters_t *counters = make_counters(*state);
    abb_counters_sum_t sum;

    for (int what = 0; what < ABB_COUNT_KINDS; ++what) {
        for (int i = 0; i <= what; ++i) {
            abb_counters_add(counters, (abb_count_t)what, NOW);
        }
    }
    sum = read_at(counters, NOW);
    for (int what = 0; what < ABB_COUNT_KINDS; ++what) {
        assert_int_equal(sum.counts[what], what + 1);
    }
    assert_int_equal(sum.hour[ABB_SERIES_REQUEST][59], ABB_COUNT_REQUEST + 1);
    assert_int_equal(sum.hour[ABB_SERIES_SIGN_IN][59], ABB_COUNT_SIGN_IN + 1);
    assert_int_equal(sum.hour[ABB_SERIES_RECHECK][59],
                     ABB_COUNT_RECHECK_DONE + ABB_COUNT_RECHECK_FAILED + 2);
    assert_int_equal(sum.hour[ABB_SERIES_CALL][59], 0);
}

static void nobody_counts(void **state)
{
    abb_counters_add(NULL, ABB_COUNT_REQUEST, NOW);
    abb_counters_fail_sign_in(NULL, ABB_EUPSTREAM);
    abb_counters_call(NULL, ABB_CALL_USER, 200, 1, NOW);
    abb_counters_rate_limit(NULL, "1", NOW);
    abb_counters_change(NULL, "text", NOW);
}

static void failures_have_reasons(void **state)
{
    abb_counters_t *counters = make_counters(*state);
    abb_counters_sum_t sum;

    abb_counters_fail_sign_in(counters, ABB_EUPSTREAM);
    abb_counters_fail_sign_in(counters, ABB_EUPSTREAM);
    abb_counters_fail_sign_in(counters, ABB_EPRIVILEGE);
    abb_counters_fail_sign_in(counters, APR_EGENERAL);
    abb_counters_fail_sign_in(counters, ABB_ERROR_BASE + ABB_COUNTERS_REASONS);
    abb_counters_fail_sign_in(counters, 0);
    sum = read_at(counters, NOW);
    assert_int_equal(sum.failures[ABB_EUPSTREAM - ABB_ERROR_BASE], 2);
    assert_int_equal(sum.failures[ABB_EPRIVILEGE - ABB_ERROR_BASE], 1);
    assert_int_equal(sum.failures[0], 3);
}

static void a_restart_loses_nothing(void **state)
{
    abb_counters_t *counters = make_counters(*state);
    abb_counters_sum_t sum;

    abb_counters_add(counters, ABB_COUNT_SIGN_IN, NOW);
    assert_ptr_equal(abb_counters_begin(counters, NOW + MINUTE), counters);
    assert_ptr_equal(abb_counters_begin(counters, NOW + 2 * MINUTE), counters);
    sum = read_at(counters, NOW + 2 * MINUTE);
    assert_int_equal(sum.started_at, NOW);
    assert_int_equal(sum.restarts, 2);
    assert_int_equal(sum.counts[ABB_COUNT_SIGN_IN], 1);
}

/* ---- the last hour ------------------------------------------------------- */

static void minutes_move_on(void **state)
{
    abb_counters_t *counters = make_counters(*state);
    abb_counters_sum_t sum;

    abb_counters_add(counters, ABB_COUNT_SIGN_IN, NOW);
    abb_counters_add(counters, ABB_COUNT_SIGN_IN, NOW + MINUTE - 1);
    abb_counters_add(counters, ABB_COUNT_SIGN_IN, NOW + MINUTE);
    sum = read_at(counters, NOW + MINUTE);
    assert_int_equal(sum.hour[ABB_SERIES_SIGN_IN][58], 2);
    assert_int_equal(sum.hour[ABB_SERIES_SIGN_IN][59], 1);
    sum = read_at(counters, NOW + 59 * MINUTE);
    assert_int_equal(sum.hour[ABB_SERIES_SIGN_IN][0], 2);
    assert_int_equal(sum.hour[ABB_SERIES_SIGN_IN][1], 1);
    sum = read_at(counters, NOW + 60 * MINUTE);
    assert_int_equal(sum.hour[ABB_SERIES_SIGN_IN][0], 1);
    sum = read_at(counters, NOW + 61 * MINUTE);
    for (int i = 0; i < ABB_COUNTERS_MINUTES; ++i) {
        assert_int_equal(sum.hour[ABB_SERIES_SIGN_IN][i], 0);
    }
}

static void the_ring_comes_round(void **state)
{
    abb_counters_t *counters = make_counters(*state);
    abb_counters_sum_t sum;

    for (int i = 0; i < 150; ++i) {
        for (int n = 0; n < i; ++n) {
            abb_counters_add(counters, ABB_COUNT_REQUEST, NOW + i * MINUTE);
        }
    }
    sum = read_at(counters, NOW + 149 * MINUTE);
    for (int i = 0; i < ABB_COUNTERS_MINUTES; ++i) {
        assert_int_equal(sum.hour[ABB_SERIES_REQUEST][i], 90 + i);
    }
    assert_int_equal(sum.counts[ABB_COUNT_REQUEST], 149 * 150 / 2);
}

static void a_clock_put_back_begins_anew(void **state)
{
    abb_counters_t *counters = make_counters(*state);
    abb_counters_sum_t sum;

    abb_counters_add(counters, ABB_COUNT_SIGN_IN, NOW + 60 * MINUTE);
    abb_counters_add(counters, ABB_COUNT_SIGN_IN, NOW);
    sum = read_at(counters, NOW);
    assert_int_equal(sum.hour[ABB_SERIES_SIGN_IN][59], 1);
    assert_int_equal(sum.counts[ABB_COUNT_SIGN_IN], 2);
}

static void a_full_minute_stays_in_its_minute(void **state)
{
    abb_counters_t *counters = make_counters(*state);
    abb_counters_sum_t sum;

    for (int i = 0; i < 10; ++i) {
        abb_counters_call(counters, ABB_CALL_USER, 200, apr_time_from_msec(1500000000), NOW);
    }
    sum = read_at(counters, NOW + MINUTE);
    assert_true(sum.hour[ABB_SERIES_CALL_TIME][58] >= 1500000000u);
    assert_int_equal(sum.hour[ABB_SERIES_CALL_TIME][59], 0);
}

/* ---- how long calls of the last hour took -------------------------------- */

static void ask(abb_counters_t *counters, abb_call_t call, int milliseconds, apr_time_t now)
{
    abb_counters_call(counters, call, 200, apr_time_from_msec(milliseconds), now);
}

static apr_uint64_t hour_total(const abb_counters_t *counters, abb_call_t call, apr_time_t now)
{
    abb_counters_sum_t sum = read_at(counters, now);

    return abb_counters_total(&sum.hour_times[call]);
}

static void an_hour_has_its_own_quantiles(void **state)
{
    abb_counters_t *counters = make_counters(*state);
    abb_counters_sum_t sum;

    for (int i = 0; i < 90; ++i) {
        ask(counters, ABB_CALL_USER, 5000, NOW);
    }
    for (int i = 0; i < 10; ++i) {
        ask(counters, ABB_CALL_USER, 20, NOW + 61 * MINUTE);
    }
    sum = read_at(counters, NOW + 61 * MINUTE);
    assert_int_equal(abb_counters_total(&sum.calls[ABB_CALL_USER].times), 100);
    assert_true(abb_counters_quantile(&sum.calls[ABB_CALL_USER].times, 0.99) > 3000000);
    assert_int_equal(abb_counters_total(&sum.hour_times[ABB_CALL_USER]), 10);
    assert_true(abb_counters_quantile(&sum.hour_times[ABB_CALL_USER], 0.99) <= 20000);
    assert_int_equal(abb_counters_total(&sum.hour_times[ABB_CALL_TOKEN]), 0);
    assert_int_equal(abb_counters_quantile(&sum.hour_times[ABB_CALL_TOKEN], 0.5), -1);
}

static void a_call_is_forgotten_after_an_hour(void **state)
{
    abb_counters_t *counters = make_counters(*state);

    ask(counters, ABB_CALL_USER, 4, NOW + MINUTE - 1);
    for (int i = 0; i < ABB_COUNTERS_MINUTES; ++i) {
        assert_int_equal(hour_total(counters, ABB_CALL_USER, NOW + i * MINUTE), 1);
    }
    assert_int_equal(hour_total(counters, ABB_CALL_USER, NOW + 60 * MINUTE), 0);
    ask(counters, ABB_CALL_USER, 4, NOW + 60 * MINUTE);
    assert_int_equal(hour_total(counters, ABB_CALL_USER, NOW + 60 * MINUTE), 1);
    assert_int_equal(hour_total(counters, ABB_CALL_USER, NOW + 6000 * MINUTE), 0);
}

/* Of a minute in which other buckets were hit, an hour later, nothing is left over either. */
static void every_bucket_turns_over(void **state)
{
    abb_counters_t *counters = make_counters(*state);
    abb_counters_sum_t sum;

    for (int round = 0; round < 3; ++round) {
        apr_time_t now = NOW + round * 60 * MINUTE;

        for (int bucket = 0; bucket < ABB_COUNTERS_BUCKETS - 1; ++bucket) {
            if (bucket % 3 == round) {
                abb_counters_call(counters, ABB_CALL_USER, 200, abb_counters_bound(bucket), now);
            }
        }
        sum = read_at(counters, now);
        for (int bucket = 0; bucket < ABB_COUNTERS_BUCKETS - 1; ++bucket) {
            assert_int_equal(sum.hour_times[ABB_CALL_USER].buckets[bucket], bucket % 3 == round);
        }
    }
}

static void parts_hold_all_kinds(void **state)
{
    abb_counters_t *counters = make_counters(*state);
    abb_counters_sum_t sum;

    for (int i = 0; i < ABB_COUNTERS_MINUTES; ++i) {
        ask(counters, ABB_CALL_USER, 1, NOW + i * MINUTE);
        ask(counters, (abb_call_t)(i % ABB_CALL_KINDS), 1, NOW + i * MINUTE);
    }
    for (int i = 0; i < 7; ++i) {
        ask(counters, ABB_CALL_EMAILS, 1, NOW + 59 * MINUTE);
    }
    sum = read_at(counters, NOW + 59 * MINUTE);
    for (int part = 0; part < ABB_COUNTERS_PARTS; ++part) {
        assert_int_equal(abb_counters_total(&sum.part_times[part]),
                         part == ABB_COUNTERS_PARTS - 1 ? 17 : 10);
    }
    sum = read_at(counters, NOW + 64 * MINUTE);
    assert_int_equal(abb_counters_total(&sum.part_times[ABB_COUNTERS_PARTS - 2]), 17);
    assert_int_equal(abb_counters_total(&sum.part_times[ABB_COUNTERS_PARTS - 1]), 0);
}

static void a_clock_that_jumps_mixes_no_hours(void **state)
{
    abb_counters_t *counters = make_counters(*state);
    apr_time_t ahead = NOW + 24 * 60 * MINUTE;

    ask(counters, ABB_CALL_USER, 4, NOW);
    ask(counters, ABB_CALL_USER, 4, NOW + MINUTE);
    ask(counters, ABB_CALL_USER, 4, ahead);
    assert_int_equal(hour_total(counters, ABB_CALL_USER, ahead), 1);
    /* Back again: the minute that the jump has taken is lost, the other is still there. */
    assert_int_equal(hour_total(counters, ABB_CALL_USER, NOW + MINUTE), 1);
    ask(counters, ABB_CALL_USER, 4, NOW);
    assert_int_equal(hour_total(counters, ABB_CALL_USER, NOW + MINUTE), 2);
    assert_int_equal(hour_total(counters, ABB_CALL_USER, ahead), 0);
}

/* ---- calls --------------------------------------------------------------- */

static void calls_have_outcomes(void **state)
{
    static const struct {
        int status;
        abb_call_outcome_t outcome;
    } cases[] = {{200, ABB_CALL_2XX}, {204, ABB_CALL_2XX}, {302, ABB_CALL_3XX},
                 {404, ABB_CALL_4XX}, {429, ABB_CALL_4XX}, {500, ABB_CALL_5XX},
                 {599, ABB_CALL_5XX}, {0, ABB_CALL_SILENT}};

    for (apr_size_t i = 0; i < UNIT_COUNT(cases); ++i) {
        abb_counters_t *counters = make_counters(*state);
        abb_counters_sum_t sum;

        abb_counters_call(counters, ABB_CALL_EMAILS, cases[i].status, 2500, NOW);
        sum = read_at(counters, NOW);
        for (int outcome = 0; outcome < ABB_CALL_OUTCOMES; ++outcome) {
            assert_int_equal(sum.calls[ABB_CALL_EMAILS].outcomes[outcome],
                             outcome == (int)cases[i].outcome);
        }
        assert_int_equal(sum.calls[ABB_CALL_EMAILS].duration, 2500);
        assert_int_equal(abb_counters_total(&sum.calls[ABB_CALL_USER].times), 0);
        assert_int_equal(sum.hour[ABB_SERIES_CALL][59], 1);
        assert_int_equal(sum.hour[ABB_SERIES_CALL_TIME][59], 2);
    }
}

static void bounds_belong_to_their_bucket(void **state)
{
    for (int bucket = 0; bucket < ABB_COUNTERS_BUCKETS - 1; ++bucket) {
        abb_counters_t *counters = make_counters(*state);
        abb_counters_sum_t sum;

        abb_counters_call(counters, ABB_CALL_USER, 200, abb_counters_bound(bucket), NOW);
        abb_counters_call(counters, ABB_CALL_USER, 200, abb_counters_bound(bucket) + 1, NOW);
        sum = read_at(counters, NOW);
        assert_int_equal(sum.calls[ABB_CALL_USER].times.buckets[bucket], 1);
        assert_int_equal(sum.calls[ABB_CALL_USER].times.buckets[bucket + 1], 1);
        assert_true(bucket == 0 || abb_counters_bound(bucket) > abb_counters_bound(bucket - 1));
    }
    assert_int_equal(abb_counters_bound(ABB_COUNTERS_BUCKETS - 1), 0);
}

static void near(apr_interval_time_t got, int milliseconds)
{
    apr_interval_time_t wanted = apr_time_from_msec(milliseconds);

    if (got < wanted * 8 / 10 || got > wanted * 12 / 10) {
        fail_msg("%" APR_TIME_T_FMT " us is not near %d ms", got, milliseconds);
    }
}

static void quantiles_are_near_the_truth(void **state)
{
    abb_counters_t *counters = make_counters(*state);
    const abb_call_times_t *call;
    abb_counters_sum_t sum;

    for (int i = 1; i <= 1000; ++i) {
        abb_counters_call(counters, ABB_CALL_USER, 200, apr_time_from_msec(i), NOW);
    }
    sum = read_at(counters, NOW);
    call = &sum.calls[ABB_CALL_USER].times;
    near(abb_counters_quantile(call, 0.1), 100);
    near(abb_counters_quantile(call, 0.5), 500);
    near(abb_counters_quantile(call, 0.9), 900);
    near(abb_counters_quantile(call, 0.99), 990);
    assert_int_equal(abb_counters_quantile(call, 1), apr_time_from_sec(1));
    assert_true(abb_counters_quantile(call, 0) >= 0);
}

static void quantiles_of_few(void **state)
{
    abb_counters_t *counters = make_counters(*state);
    abb_counters_sum_t sum;

    abb_counters_call(counters, ABB_CALL_USER, 200, -5, NOW);
    abb_counters_call(counters, ABB_CALL_TOKEN, 0, apr_time_from_sec(3600), NOW);
    sum = read_at(counters, NOW);
    assert_true(abb_counters_quantile(&sum.calls[ABB_CALL_USER].times, 0.99) <=
                apr_time_from_msec(1));
    assert_int_equal(sum.calls[ABB_CALL_USER].duration, 0);
    assert_int_equal(abb_counters_quantile(&sum.calls[ABB_CALL_TOKEN].times, 0.5),
                     apr_time_from_sec(60));
}

/* ---- what Bitbucket told ------------------------------------------------- */

static void what_is_left_of_the_limit(void **state)
{
    static const char *const junk[] = {"", "-1", "many", "12x", " 5", "1234567890123456", NULL};
    abb_counters_t *counters = make_counters(*state);

    abb_counters_rate_limit(counters, "0", NOW);
    assert_int_equal(read_at(counters, NOW).rate_limit_remaining, 0);
    abb_counters_rate_limit(counters, "987", NOW + 5);
    for (apr_size_t i = 0; i < UNIT_COUNT(junk); ++i) {
        abb_counters_rate_limit(counters, junk[i], NOW + 9);
        assert_int_equal(read_at(counters, NOW).rate_limit_remaining, 987);
        assert_int_equal(read_at(counters, NOW).rate_limit_at, NOW + 5);
    }
}

static void the_last_change_stays(void **state)
{
    abb_counters_t *counters = make_counters(*state);
    abb_counters_sum_t sum;

    for (int i = 0; i < 10; ++i) {
        abb_counters_change(counters, apr_psprintf(*state, "CHANGE-%d", i), NOW + i);
        sum = read_at(counters, NOW);
        unit_equal(sum.change, apr_psprintf(*state, "CHANGE-%d", i), "change");
        assert_int_equal(sum.change_at, NOW + i);
    }
    abb_counters_change(counters, NULL, NOW + 99);
    abb_counters_change(counters, unit_repeat('x', 5000, *state), NOW + 11);
    sum = read_at(counters, NOW);
    assert_int_equal(strlen(sum.change), ABB_COUNTERS_TEXT_SIZE - 1);
    abb_counters_change(counters, "short", NOW + 12);
    unit_equal(read_at(counters, NOW).change, "short", "change");
}

/* ---- many at once -------------------------------------------------------- */

#define WORKERS 4
#define ROUNDS 50000

static void *count_much(void *data)
{
    abb_counters_t *counters = data;

    for (int i = 0; i < ROUNDS; ++i) {
        abb_counters_add(counters, ABB_COUNT_REQUEST, NOW);
        abb_counters_call(counters, ABB_CALL_PERMISSION, 200, apr_time_from_msec(4), NOW);
    }
    return NULL;
}

static void check_much(const abb_counters_t *counters, apr_uint64_t workers)
{
    abb_counters_sum_t sum = read_at(counters, NOW);
    apr_uint64_t all = workers * ROUNDS;

    assert_int_equal(sum.counts[ABB_COUNT_REQUEST], all);
    assert_int_equal(sum.hour[ABB_SERIES_REQUEST][59], all);
    assert_int_equal(sum.calls[ABB_CALL_PERMISSION].outcomes[ABB_CALL_2XX], all);
    assert_int_equal(sum.calls[ABB_CALL_PERMISSION].times.buckets[3], all);
    assert_int_equal(sum.calls[ABB_CALL_PERMISSION].duration, all * 4000);
    assert_int_equal(sum.hour[ABB_SERIES_CALL_TIME][59], all * 4);
    assert_int_equal(sum.hour_times[ABB_CALL_PERMISSION].buckets[3], all);
    assert_int_equal(sum.part_times[ABB_COUNTERS_PARTS - 1].buckets[3], all);
}

static void threads_lose_nothing(void **state)
{
    abb_counters_t *counters = make_counters(*state);
    pthread_t threads[WORKERS];

    for (int i = 0; i < WORKERS; ++i) {
        assert_int_equal(pthread_create(&threads[i], NULL, count_much, counters), 0);
    }
    for (int i = 0; i < WORKERS; ++i) {
        pthread_join(threads[i], NULL);
    }
    check_much(counters, WORKERS);
}

static void processes_lose_nothing(void **state)
{
    abb_counters_t *counters = make_counters(*state);
    pid_t children[WORKERS];

    for (int i = 0; i < WORKERS; ++i) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0) {
            count_much(counters);
            _exit(0);
        }
    }
    for (int i = 0; i < WORKERS; ++i) {
        int status;

        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    check_much(counters, WORKERS);
}

#define HOURS 2000

/* What the workers of turn_over share, in memory of all processes. */
typedef struct {
    pthread_barrier_t barrier;
    int lost;
} meeting_t;

/* Hour after hour all find the same cell an hour old at the same moment. */
static void turn_over(abb_counters_t *counters, meeting_t *meeting, int worker)
{
    for (int hour = 1; hour <= HOURS; ++hour) {
        apr_time_t now = NOW + hour * 60 * MINUTE;

        pthread_barrier_wait(&meeting->barrier);
        ask(counters, ABB_CALL_TOKEN, 4, now);
        pthread_barrier_wait(&meeting->barrier);
        if (worker == 0 && hour_total(counters, ABB_CALL_TOKEN, now) != WORKERS) {
            ++meeting->lost;
        }
    }
}

static void processes_turn_a_minute_over(void **state)
{
    abb_counters_t *counters = make_counters(*state);
    pthread_barrierattr_t shared;
    pid_t children[WORKERS];
    meeting_t *meeting;
    apr_shm_t *shm;

    assert_int_equal(apr_shm_create(&shm, sizeof(*meeting), NULL, *state), APR_SUCCESS);
    meeting = apr_shm_baseaddr_get(shm);
    pthread_barrierattr_init(&shared);
    pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    assert_int_equal(pthread_barrier_init(&meeting->barrier, &shared, WORKERS), 0);
    meeting->lost = 0;
    for (int i = 0; i < WORKERS; ++i) {
        children[i] = fork();
        assert_true(children[i] >= 0);
        if (children[i] == 0) {
            /* One that dies must not leave the others waiting. */
            alarm(30);
            turn_over(counters, meeting, i);
            _exit(0);
        }
    }
    for (int i = 0; i < WORKERS; ++i) {
        int status;

        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    assert_int_equal(meeting->lost, 0);
    assert_int_equal(read_at(counters, NOW).calls[ABB_CALL_TOKEN].times.buckets[3],
                     WORKERS * HOURS);
}

static void words_are_told_apart(void **state)
{
    unit_equal(abb_counters_call_word(ABB_CALL_TOKEN), "token", "call");
    unit_equal(abb_counters_call_word(ABB_CALL_MEMBERS), "members", "call");
    unit_equal(abb_counters_outcome_word(ABB_CALL_2XX), "2xx", "outcome");
    unit_equal(abb_counters_outcome_word(ABB_CALL_SILENT), "none", "outcome");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(everything_begins_at_nothing),
        UNIT_TEST(each_thing_is_counted_for_itself),
        UNIT_TEST(nobody_counts),
        UNIT_TEST(failures_have_reasons),
        UNIT_TEST(a_restart_loses_nothing),
        UNIT_TEST(minutes_move_on),
        UNIT_TEST(the_ring_comes_round),
        UNIT_TEST(a_clock_put_back_begins_anew),
        UNIT_TEST(a_full_minute_stays_in_its_minute),
        UNIT_TEST(an_hour_has_its_own_quantiles),
        UNIT_TEST(a_call_is_forgotten_after_an_hour),
        UNIT_TEST(every_bucket_turns_over),
        UNIT_TEST(parts_hold_all_kinds),
        UNIT_TEST(a_clock_that_jumps_mixes_no_hours),
        UNIT_TEST(calls_have_outcomes),
        UNIT_TEST(bounds_belong_to_their_bucket),
        UNIT_TEST(quantiles_are_near_the_truth),
        UNIT_TEST(quantiles_of_few),
        UNIT_TEST(what_is_left_of_the_limit),
        UNIT_TEST(the_last_change_stays),
        UNIT_TEST(threads_lose_nothing),
        UNIT_TEST(processes_lose_nothing),
        UNIT_TEST(processes_turn_a_minute_over),
        UNIT_TEST(words_are_told_apart),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
