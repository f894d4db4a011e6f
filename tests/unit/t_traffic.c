/* t_traffic: when Bitbucket is asked, and when it is left alone. */
#include "abb_traffic.h"

#include <pthread.h>

#include "unit.h"

#define SECONDS(n) apr_time_from_sec(n)
#define NOW apr_time_from_sec(1800000000)
#define LONGEST SECONDS(10)
#define ADA "9a01f37b-b1b2-40c5-8c5e-1a39f4b5e645"
#define BOB "0b01f37b-b1b2-40c5-8c5e-1a39f4b5e645"
#define CYD "1c01f37b-b1b2-40c5-8c5e-1a39f4b5e645"

/* What was told, in order: a letter each. */
typedef struct {
    char events[64];
    apr_interval_time_t last;
} heard_t;

static void hear(void *owner, abb_traffic_event_t event, apr_interval_time_t duration)
{
    heard_t *heard = owner;

    strcat(heard->events, event == ABB_TRAFFIC_BROKEN   ? "B"
                          : event == ABB_TRAFFIC_MENDED ? "M"
                                                        : "P");
    heard->last = duration;
}

typedef struct {
    void *block;
    abb_traffic_t *traffic;
    heard_t heard;
} place_t;

static place_t *make_place(apr_pool_t *p)
{
    place_t *place = apr_pcalloc(p, sizeof(*place));

    place->block = apr_pcalloc(p, abb_traffic_size());
    place->traffic = abb_traffic_create(place->block, "key https://api", hear, &place->heard, p);
    return place;
}

static apr_status_t begin_for(place_t *place, const char *account, apr_time_t now,
                              abb_traffic_call_t *call, abb_error_t *err)
{
    abb_error_clear(err);
    return abb_traffic_begin(place->traffic, account, LONGEST, now, call, err);
}

static apr_status_t ask_for(place_t *place, const char *account, apr_time_t now,
                            abb_traffic_outcome_t outcome)
{
    abb_traffic_call_t call;
    abb_error_t err;
    apr_status_t status = begin_for(place, account, now, &call, &err);

    if (status == APR_SUCCESS) {
        abb_traffic_end(place->traffic, &call, outcome, now);
    }
    return status;
}

static apr_status_t ask(place_t *place, apr_time_t now, abb_traffic_outcome_t outcome)
{
    return ask_for(place, ADA, now, outcome);
}

static void break_it(place_t *place, apr_time_t now)
{
    for (int i = 0; i < ABB_TRAFFIC_FAILURES_MAX; ++i) {
        assert_int_equal(ask(place, now, ABB_TRAFFIC_SILENT), APR_SUCCESS);
    }
}

/* Fail unless somebody who looks sees this. */
static void looks(const place_t *place, apr_time_t now, abb_traffic_state_t state, apr_time_t since)
{
    abb_traffic_condition_t condition;

    abb_traffic_look(place->traffic, now, &condition);
    assert_int_equal(condition.state, state);
    assert_int_equal(condition.since, since);
}

static void people_see_how_it_does(void **state)
{
    place_t *place = make_place(*state);
    abb_traffic_condition_t condition;

    looks(place, NOW, ABB_TRAFFIC_CLOSED, 0);
    break_it(place, NOW);
    looks(place, NOW, ABB_TRAFFIC_OPEN, NOW);
    looks(place, NOW + SECONDS(5), ABB_TRAFFIC_HALF_OPEN, NOW);
    /* A longer break is the same trouble. */
    assert_int_equal(ask(place, NOW + SECONDS(6), ABB_TRAFFIC_SILENT), APR_SUCCESS);
    looks(place, NOW + SECONDS(7), ABB_TRAFFIC_OPEN, NOW);
    assert_int_equal(ask(place, NOW + SECONDS(20), ABB_TRAFFIC_ANSWERED), APR_SUCCESS);
    looks(place, NOW + SECONDS(21), ABB_TRAFFIC_CLOSED, NOW + SECONDS(20));
    abb_traffic_look(place->traffic, NOW, &condition);
    assert_int_equal(condition.pause, 0);
    abb_traffic_pause(place->traffic, ADA, SECONDS(30), NOW);
    abb_traffic_pause(place->traffic, BOB, SECONDS(30), NOW);
    abb_traffic_pause(place->traffic, CYD, SECONDS(30), NOW);
    abb_traffic_look(place->traffic, NOW + SECONDS(10), &condition);
    assert_int_equal(condition.pause, SECONDS(20));
}

/* ---- the breaker --------------------------------------------------------- */

static void five_failures_in_a_row_open_it(void **state)
{
    place_t *place = make_place(*state);
    abb_traffic_call_t call;
    abb_error_t err;

    for (int i = 0; i < 4; ++i) {
        assert_int_equal(ask(place, NOW, ABB_TRAFFIC_SILENT), APR_SUCCESS);
    }
    assert_int_equal(ask(place, NOW, ABB_TRAFFIC_ANSWERED), APR_SUCCESS);
    break_it(place, NOW);
    assert_string_equal(place->heard.events, "B");
    assert_int_equal(place->heard.last, SECONDS(5));
    assert_int_equal(begin_for(place, ADA, NOW + SECONDS(2), &call, &err), ABB_EUPSTREAM);
    assert_int_equal(err.retry_after, SECONDS(3));
    assert_non_null(strstr(err.text, "another 3 s"));
}

static void one_at_a_time_tries_again(void **state)
{
    place_t *place = make_place(*state);
    apr_time_t later = NOW + SECONDS(5);
    abb_traffic_call_t probe;
    abb_traffic_call_t other;
    abb_error_t err;

    break_it(place, NOW);
    assert_int_equal(begin_for(place, ADA, later, &probe, &err), APR_SUCCESS);
    assert_int_equal(begin_for(place, BOB, later, &other, &err), ABB_EUPSTREAM);
    assert_true(err.retry_after > 0);
    abb_traffic_end(place->traffic, &probe, ABB_TRAFFIC_ANSWERED, later);
    assert_string_equal(place->heard.events, "BM");
    assert_int_equal(begin_for(place, BOB, later, &other, &err), APR_SUCCESS);
}

static void breaks_grow_longer(void **state)
{
    static const int lengths[] = {5, 10, 20, 40, 60, 60, 60};
    place_t *place = make_place(*state);
    apr_time_t now = NOW;

    break_it(place, now);
    for (apr_size_t i = 0; i < UNIT_COUNT(lengths); ++i) {
        assert_int_equal(place->heard.last, SECONDS(lengths[i]));
        now += SECONDS(lengths[i]);
        assert_int_equal(ask(place, now - 1, ABB_TRAFFIC_SILENT), ABB_EUPSTREAM);
        assert_int_equal(ask(place, now, ABB_TRAFFIC_SILENT), APR_SUCCESS);
    }
    now += SECONDS(60);
    assert_int_equal(ask(place, now, ABB_TRAFFIC_ANSWERED), APR_SUCCESS);
    break_it(place, now);
    assert_int_equal(place->heard.last, SECONDS(5));
}

static void a_probe_that_dies_is_replaced(void **state)
{
    place_t *place = make_place(*state);
    apr_time_t later = NOW + SECONDS(5);
    abb_traffic_call_t dead;
    abb_traffic_call_t next;
    abb_error_t err;

    break_it(place, NOW);
    assert_int_equal(begin_for(place, ADA, later, &dead, &err), APR_SUCCESS);
    assert_int_equal(begin_for(place, ADA, later + LONGEST - 1, &next, &err), ABB_EUPSTREAM);
    assert_int_equal(begin_for(place, ADA, later + LONGEST, &next, &err), APR_SUCCESS);
    assert_int_equal(begin_for(place, ADA, later + LONGEST, &dead, &err), ABB_EUPSTREAM);
}

static void a_probe_that_is_given_up_lets_another_try(void **state)
{
    place_t *place = make_place(*state);

    break_it(place, NOW);
    assert_int_equal(ask(place, NOW + SECONDS(5), ABB_TRAFFIC_ABANDONED), APR_SUCCESS);
    assert_int_equal(ask(place, NOW + SECONDS(5), ABB_TRAFFIC_ANSWERED), APR_SUCCESS);
    assert_string_equal(place->heard.events, "BM");
}

static void who_began_before_may_close_it_but_not_lengthen_it(void **state)
{
    place_t *place = make_place(*state);
    abb_traffic_call_t slow[2];
    abb_error_t err;

    assert_int_equal(begin_for(place, ADA, NOW, &slow[0], &err), APR_SUCCESS);
    assert_int_equal(begin_for(place, ADA, NOW, &slow[1], &err), APR_SUCCESS);
    break_it(place, NOW);
    abb_traffic_end(place->traffic, &slow[0], ABB_TRAFFIC_SILENT, NOW + SECONDS(1));
    assert_string_equal(place->heard.events, "B");
    abb_traffic_end(place->traffic, &slow[1], ABB_TRAFFIC_ANSWERED, NOW + SECONDS(1));
    assert_string_equal(place->heard.events, "BM");
    assert_int_equal(ask(place, NOW + SECONDS(1), ABB_TRAFFIC_ANSWERED), APR_SUCCESS);
}

static void a_clock_put_back_keeps_nothing_shut(void **state)
{
    place_t *place = make_place(*state);
    apr_time_t before = NOW - SECONDS(7200);

    break_it(place, NOW);
    assert_int_equal(ask(place, before, ABB_TRAFFIC_ANSWERED), APR_SUCCESS);
    abb_traffic_pause(place->traffic, ADA, SECONDS(900), NOW);
    abb_traffic_pause(place->traffic, BOB, SECONDS(900), NOW);
    abb_traffic_pause(place->traffic, CYD, SECONDS(900), NOW);
    assert_int_equal(ask(place, NOW, ABB_TRAFFIC_ANSWERED), ABB_ELIMIT);
    assert_int_equal(ask(place, before, ABB_TRAFFIC_ANSWERED), APR_SUCCESS);
}

static void processes_share_it_and_consumers_do_not(void **state)
{
    place_t *place = make_place(*state);
    abb_traffic_t *same = abb_traffic_create(place->block, "key https://api", NULL, NULL, *state);
    abb_traffic_t *other = abb_traffic_create(place->block, "kez https://api", NULL, NULL, *state);
    abb_traffic_call_t call;

    break_it(place, NOW);
    assert_int_equal(abb_traffic_begin(same, ADA, LONGEST, NOW, &call, NULL), ABB_EUPSTREAM);
    assert_int_equal(abb_traffic_begin(other, ADA, LONGEST, NOW, &call, NULL), APR_SUCCESS);
}

static void any_number_of_consumers_is_served(void **state)
{
    place_t *place = make_place(*state);

    for (int i = 0; i < 500; ++i) {
        abb_traffic_t *traffic = abb_traffic_create(
            place->block, apr_psprintf(*state, "consumer %d", i), NULL, NULL, *state);
        abb_traffic_call_t call;

        assert_int_equal(abb_traffic_begin(traffic, ADA, LONGEST, NOW, &call, NULL), APR_SUCCESS);
    }
}

/* ---- pauses -------------------------------------------------------------- */

static void an_account_pauses_alone(void **state)
{
    place_t *place = make_place(*state);
    abb_traffic_call_t call;
    abb_error_t err;

    abb_traffic_pause(place->traffic, ADA, SECONDS(60), NOW);
    assert_int_equal(begin_for(place, ADA, NOW + SECONDS(20), &call, &err), ABB_ELIMIT);
    assert_int_equal(err.retry_after, SECONDS(40));
    assert_int_equal(begin_for(place, BOB, NOW, &call, &err), APR_SUCCESS);
    assert_int_equal(begin_for(place, NULL, NOW, &call, &err), APR_SUCCESS);
    assert_int_equal(begin_for(place, ADA, NOW + SECONDS(60), &call, &err), APR_SUCCESS);
    assert_string_equal(place->heard.events, "");
}

static void a_pause_is_cut(void **state)
{
    place_t *place = make_place(*state);

    abb_traffic_pause(place->traffic, ADA, SECONDS(90000), NOW);
    assert_int_equal(ask(place, NOW + SECONDS(899), ABB_TRAFFIC_ANSWERED), ABB_ELIMIT);
    assert_int_equal(ask(place, NOW + SECONDS(900), ABB_TRAFFIC_ANSWERED), APR_SUCCESS);
}

static void three_accounts_within_a_minute_stop_the_consumer(void **state)
{
    place_t *place = make_place(*state);

    abb_traffic_pause(place->traffic, ADA, SECONDS(30), NOW);
    abb_traffic_pause(place->traffic, BOB, SECONDS(30), NOW + SECONDS(10));
    abb_traffic_pause(place->traffic, ADA, SECONDS(30), NOW + SECONDS(15));
    assert_int_equal(ask_for(place, CYD, NOW + SECONDS(20), ABB_TRAFFIC_ANSWERED), APR_SUCCESS);
    abb_traffic_pause(place->traffic, CYD, SECONDS(30), NOW + SECONDS(59));
    assert_string_equal(place->heard.events, "P");
    assert_int_equal(ask_for(place, NULL, NOW + SECONDS(88), ABB_TRAFFIC_ANSWERED), ABB_ELIMIT);
    assert_int_equal(ask_for(place, "nobody", NOW + SECONDS(88), ABB_TRAFFIC_ANSWERED), ABB_ELIMIT);
    assert_int_equal(ask_for(place, NULL, NOW + SECONDS(89), ABB_TRAFFIC_ANSWERED), APR_SUCCESS);
}

static void three_accounts_in_a_longer_time_do_not(void **state)
{
    place_t *place = make_place(*state);

    abb_traffic_pause(place->traffic, ADA, SECONDS(300), NOW);
    abb_traffic_pause(place->traffic, BOB, SECONDS(300), NOW + SECONDS(31));
    abb_traffic_pause(place->traffic, CYD, SECONDS(300), NOW + SECONDS(62));
    assert_string_equal(place->heard.events, "");
}

/* What was noted before is of a time to come, and gives way. */
static void also_after_the_clock_was_put_back(void **state)
{
    static const char *const earlier[] = {"a", "b", "c", "d", "e"};
    place_t *place = make_place(*state);

    for (apr_size_t i = 0; i < UNIT_COUNT(earlier); ++i) {
        abb_traffic_pause(place->traffic, earlier[i], SECONDS(30), NOW + SECONDS(7200 + 70 * i));
    }
    assert_string_equal(place->heard.events, "");
    abb_traffic_pause(place->traffic, ADA, SECONDS(30), NOW);
    abb_traffic_pause(place->traffic, BOB, SECONDS(30), NOW + SECONDS(1));
    assert_string_equal(place->heard.events, "");
    abb_traffic_pause(place->traffic, CYD, SECONDS(30), NOW + SECONDS(2));
    assert_string_equal(place->heard.events, "P");
}

/* Of two processes that are told at once, one may write what the other reads as of an instant to come. */
static void who_was_told_an_instant_later_counts(void **state)
{
    place_t *place = make_place(*state);

    abb_traffic_pause(place->traffic, ADA, SECONDS(30), NOW + 1);
    abb_traffic_pause(place->traffic, BOB, SECONDS(30), NOW);
    assert_string_equal(place->heard.events, "");
    abb_traffic_pause(place->traffic, CYD, SECONDS(30), NOW + 2);
    assert_string_equal(place->heard.events, "P");
}

static void strangers_count_as_accounts(void **state)
{
    place_t *place = make_place(*state);

    abb_traffic_pause(place->traffic, NULL, SECONDS(30), NOW);
    abb_traffic_pause(place->traffic, NULL, SECONDS(30), NOW);
    assert_string_equal(place->heard.events, "");
    abb_traffic_pause(place->traffic, NULL, SECONDS(30), NOW);
    assert_string_equal(place->heard.events, "P");
}

/* More accounts than there is room for: some pauses are forgotten, none is another's. */
static void many_accounts_pause(void **state)
{
    place_t *place = make_place(*state);
    int paused = 0;

    for (int i = 0; i < 20000; ++i) {
        abb_traffic_pause(place->traffic, apr_psprintf(*state, "account %d", i), SECONDS(900),
                          NOW + SECONDS(61) * i);
    }
    assert_string_equal(place->heard.events, "");
    for (int i = 0; i < 20000; ++i) {
        apr_time_t then = NOW + SECONDS(61) * 20000;

        paused += ask_for(place, apr_psprintf(*state, "account %d", i), then,
                          ABB_TRAFFIC_ANSWERED) == ABB_ELIMIT;
        assert_int_equal(
            ask_for(place, apr_psprintf(*state, "other %d", i), then, ABB_TRAFFIC_ANSWERED),
            APR_SUCCESS);
    }
    assert_in_range(paused, 14, 15);
}

/* ---- the log ------------------------------------------------------------- */

static void the_log_is_told_seldom(void **state)
{
    place_t *place = make_place(*state);
    apr_time_t now = NOW;
    unsigned told = 0;

    for (int i = 0; i < 1000; ++i) {
        unsigned count = abb_traffic_may_tell(place->traffic, ABB_TRAFFIC_TOLD_SILENCE, SECONDS(60),
                                              now + SECONDS(i) / 10);

        told += count > 0;
        assert_int_equal(count, i == 0 ? 1 : i == 600 ? 600 : 0);
    }
    assert_int_equal(told, 2);
    assert_int_equal(
        abb_traffic_may_tell(place->traffic, ABB_TRAFFIC_TOLD_CHANGE, SECONDS(3600), now), 1);
    /* Nor does a clock that was put back keep it silent. */
    assert_true(abb_traffic_may_tell(place->traffic, ABB_TRAFFIC_TOLD_SILENCE, SECONDS(60),
                                     now - SECONDS(3600)) > 0);
}

/* ---- all at once --------------------------------------------------------- */

typedef struct {
    place_t *place;
    apr_time_t now;
    int probes;
} asker_t;

static void *try_to_probe(void *data)
{
    asker_t *asker = data;

    for (int i = 0; i < 1000; ++i) {
        abb_traffic_call_t call;

        asker->probes += abb_traffic_begin(asker->place->traffic, ADA, LONGEST, asker->now, &call,
                                           NULL) == APR_SUCCESS;
    }
    return NULL;
}

static void of_many_threads_one_probes(void **state)
{
    place_t *place = make_place(*state);
    asker_t askers[8];
    pthread_t threads[8];
    int probes = 0;

    break_it(place, NOW);
    for (int i = 0; i < 8; ++i) {
        asker_t asker = {place, NOW + SECONDS(5), 0};

        askers[i] = asker;
        assert_int_equal(pthread_create(&threads[i], NULL, try_to_probe, &askers[i]), 0);
    }
    for (int i = 0; i < 8; ++i) {
        pthread_join(threads[i], NULL);
        probes += askers[i].probes;
    }
    assert_int_equal(probes, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(people_see_how_it_does),
        UNIT_TEST(five_failures_in_a_row_open_it),
        UNIT_TEST(one_at_a_time_tries_again),
        UNIT_TEST(breaks_grow_longer),
        UNIT_TEST(a_probe_that_dies_is_replaced),
        UNIT_TEST(a_probe_that_is_given_up_lets_another_try),
        UNIT_TEST(who_began_before_may_close_it_but_not_lengthen_it),
        UNIT_TEST(a_clock_put_back_keeps_nothing_shut),
        UNIT_TEST(processes_share_it_and_consumers_do_not),
        UNIT_TEST(any_number_of_consumers_is_served),
        UNIT_TEST(an_account_pauses_alone),
        UNIT_TEST(a_pause_is_cut),
        UNIT_TEST(three_accounts_within_a_minute_stop_the_consumer),
        UNIT_TEST(three_accounts_in_a_longer_time_do_not),
        UNIT_TEST(also_after_the_clock_was_put_back),
        UNIT_TEST(who_was_told_an_instant_later_counts),
        UNIT_TEST(strangers_count_as_accounts),
        UNIT_TEST(many_accounts_pause),
        UNIT_TEST(the_log_is_told_seldom),
        UNIT_TEST(of_many_threads_one_probes),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
