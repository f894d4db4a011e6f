/* t_throttle: what is wrong is known for a minute, and nobody gets round the limits. */
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "abb_throttle.h"
#include "unit.h"

#define NOW apr_time_from_sec(1800000000)
#define SECONDS(n) apr_time_from_sec(n)

static abb_throttle_t *make(apr_pool_t *p)
{
    void *block =
        mmap(NULL, abb_throttle_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_ptr_not_equal(block, MAP_FAILED);
    return abb_throttle_create(block, p);
}

/* Names as keyed hashes have them: all bits differ. */
static apr_uint64_t name(apr_uint64_t n)
{
    n = (n ^ n >> 30) * 0xbf58476d1ce4e5b9u;
    n = (n ^ n >> 27) * 0x94d049bb133111ebu;
    return (n ^ n >> 31) | 1;
}

static abb_throttle_try_t attempt_of(apr_uint64_t secret, apr_uint64_t address,
                                     apr_uint64_t account)
{
    abb_throttle_try_t attempt = {name(secret), name(1000000 + address),
                                  account ? name(2000000 + account) : 0};

    return attempt;
}

static abb_throttle_answer_t begin_try(abb_throttle_t *throttle, const abb_throttle_try_t *attempt,
                                       apr_time_t now)
{
    apr_interval_time_t wait = -1;
    abb_throttle_answer_t answer = abb_throttle_begin(throttle, attempt, now, &wait);

    if (answer == ABB_THROTTLE_STOP) {
        assert_true(wait > 0 && wait <= ABB_THROTTLE_TIME);
    }
    return answer;
}

static abb_throttle_answer_t be_wrong(abb_throttle_t *throttle, abb_throttle_try_t attempt,
                                      apr_time_t now)
{
    abb_throttle_answer_t answer = begin_try(throttle, &attempt, now);

    if (answer == ABB_THROTTLE_GO) {
        abb_throttle_settle(throttle, &attempt, 0, now);
    }
    return answer;
}

static void a_verdict_lasts_a_minute(void **state)
{
    abb_throttle_t *throttle = make(*state);
    abb_throttle_try_t attempt = attempt_of(1, 1, 1);
    int reason = -1;

    assert_int_equal(abb_throttle_look(throttle, attempt.secret, NOW, &reason),
                     ABB_THROTTLE_UNKNOWN);
    assert_int_equal(begin_try(throttle, &attempt, NOW), ABB_THROTTLE_GO);
    assert_int_equal(abb_throttle_look(throttle, attempt.secret, NOW, &reason),
                     ABB_THROTTLE_UNDER_WAY);
    abb_throttle_settle(throttle, &attempt, 2, NOW);
    assert_int_equal(abb_throttle_look(throttle, attempt.secret, NOW + SECONDS(59), &reason),
                     ABB_THROTTLE_WRONG);
    assert_int_equal(reason, 2);
    assert_int_equal(abb_throttle_look(throttle, attempt.secret, NOW + SECONDS(60), &reason),
                     ABB_THROTTLE_UNKNOWN);
    assert_int_equal(abb_throttle_look(throttle, name(2), NOW, &reason), ABB_THROTTLE_UNKNOWN);
}

static void what_is_right_leaves_nothing(void **state)
{
    abb_throttle_t *throttle = make(*state);
    int reason;

    for (int i = 0; i < 1000; ++i) {
        abb_throttle_try_t attempt = attempt_of((apr_uint64_t)i, 1, 1);

        assert_int_equal(begin_try(throttle, &attempt, NOW), ABB_THROTTLE_GO);
        abb_throttle_settle(throttle, &attempt, -1, NOW);
        assert_int_equal(abb_throttle_look(throttle, attempt.secret, NOW, &reason),
                         ABB_THROTTLE_UNKNOWN);
    }
}

static void an_address_an_account_and_all_have_limits(void **state)
{
    abb_throttle_t *throttle = make(*state);
    int gone[3] = {0, 0, 0};

    for (int i = 0; i < 20; ++i) {
        gone[0] += be_wrong(throttle, attempt_of((apr_uint64_t)i, 1, (apr_uint64_t)(100 + i)),
                            NOW) == ABB_THROTTLE_GO;
    }
    for (int i = 20; i < 40; ++i) {
        gone[1] += be_wrong(throttle, attempt_of((apr_uint64_t)i, (apr_uint64_t)i, 7), NOW) ==
                   ABB_THROTTLE_GO;
    }
    for (int i = 40; i < 100; ++i) {
        gone[2] += be_wrong(throttle, attempt_of((apr_uint64_t)i, (apr_uint64_t)i, 0), NOW) ==
                   ABB_THROTTLE_GO;
    }
    assert_int_equal(gone[0], ABB_THROTTLE_ADDRESS_MAX);
    assert_int_equal(gone[1], ABB_THROTTLE_ACCOUNT_MAX);
    assert_int_equal(gone[2], ABB_THROTTLE_ALL_MAX - gone[0] - gone[1]);
    assert_int_equal(be_wrong(throttle, attempt_of(500, 1, 100), NOW + SECONDS(60)),
                     ABB_THROTTLE_GO);
}

/* A refusal by the last counter takes back what the first ones had counted. */
static void what_was_not_tried_does_not_count(void **state)
{
    abb_throttle_t *throttle = make(*state);

    for (int i = 0; i < ABB_THROTTLE_ACCOUNT_MAX; ++i) {
        be_wrong(throttle, attempt_of((apr_uint64_t)i, 1, 1), NOW);
    }
    for (int i = 100; i < 200; ++i) {
        assert_int_equal(be_wrong(throttle, attempt_of((apr_uint64_t)i, 2, 1), NOW),
                         ABB_THROTTLE_STOP);
    }
    for (int i = 200; i < 200 + ABB_THROTTLE_ADDRESS_MAX; ++i) {
        assert_int_equal(be_wrong(throttle, attempt_of((apr_uint64_t)i, 2, 0), NOW),
                         ABB_THROTTLE_GO);
    }
}

static void tries_under_way_count_and_one_is_one(void **state)
{
    abb_throttle_t *throttle = make(*state);
    abb_throttle_try_t attempts[ABB_THROTTLE_ADDRESS_MAX + 1];
    abb_throttle_try_t same = attempt_of(0, 9, 9);

    for (int i = 0; i <= ABB_THROTTLE_ADDRESS_MAX; ++i) {
        attempts[i] = attempt_of((apr_uint64_t)i, 1, 0);
        assert_int_equal(begin_try(throttle, &attempts[i], NOW),
                         i < ABB_THROTTLE_ADDRESS_MAX ? ABB_THROTTLE_GO : ABB_THROTTLE_LATER);
    }
    assert_int_equal(begin_try(throttle, &same, NOW), ABB_THROTTLE_LATER);
    abb_throttle_settle(throttle, &attempts[0], -1, NOW);
    assert_int_equal(begin_try(throttle, &attempts[ABB_THROTTLE_ADDRESS_MAX], NOW),
                     ABB_THROTTLE_GO);
    for (int i = 1; i <= ABB_THROTTLE_ADDRESS_MAX; ++i) {
        abb_throttle_settle(throttle, &attempts[i], 0, NOW);
    }
    assert_int_equal(begin_try(throttle, &attempts[0], NOW), ABB_THROTTLE_STOP);
}

/* Its process is dead. */
static void who_never_ends_a_try_holds_it_for_half_a_minute(void **state)
{
    abb_throttle_t *throttle = make(*state);
    abb_throttle_try_t attempt = attempt_of(1, 1, 1);

    assert_int_equal(begin_try(throttle, &attempt, NOW), ABB_THROTTLE_GO);
    assert_int_equal(begin_try(throttle, &attempt, NOW + SECONDS(29)), ABB_THROTTLE_LATER);
    assert_int_equal(begin_try(throttle, &attempt, NOW + SECONDS(30)), ABB_THROTTLE_GO);
}

static void a_jump_of_the_clock_locks_nobody_out(void **state)
{
    abb_throttle_t *throttle = make(*state);

    for (int i = 0; i < 40; ++i) {
        be_wrong(throttle, attempt_of((apr_uint64_t)i, 1, 1), NOW);
    }
    assert_int_equal(be_wrong(throttle, attempt_of(1, 1, 1), NOW - SECONDS(86400)),
                     ABB_THROTTLE_GO);
    assert_int_equal(be_wrong(throttle, attempt_of(2, 1, 1), NOW + SECONDS(86400)),
                     ABB_THROTTLE_GO);
}

/* However much is forgotten, the limit of all holds. */
static void a_flood_fills_no_table(void **state)
{
    abb_throttle_t *throttle = make(*state);
    int gone = 0;

    for (int i = 0; i < 200000; ++i) {
        gone +=
            be_wrong(throttle, attempt_of((apr_uint64_t)i, (apr_uint64_t)i, (apr_uint64_t)i + 1),
                     NOW + i * (SECONDS(59) / 200000)) == ABB_THROTTLE_GO;
    }
    assert_int_equal(gone, ABB_THROTTLE_ALL_MAX);
}

static int try_many(abb_throttle_t *throttle, int seed)
{
    int gone = 0;

    for (int i = 0; i < 20000; ++i) {
        gone += be_wrong(throttle, attempt_of((apr_uint64_t)(seed * 100000 + i), 1, 0), NOW) ==
                ABB_THROTTLE_GO;
    }
    return gone;
}

static void processes_share_one_limit(void **state)
{
    abb_throttle_t *throttle = make(*state);
    pid_t children[4];
    int total = 0;

    for (int i = 0; i < 4; ++i) {
        children[i] = fork();
        if (children[i] == 0) {
            int gone = try_many(throttle, i);

            _exit(gone < 255 ? gone : 255);
        }
        assert_true(children[i] > 0);
    }
    for (int i = 0; i < 4; ++i) {
        int status = -1;

        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_true(WIFEXITED(status));
        total += WEXITSTATUS(status);
    }
    assert_int_equal(total, ABB_THROTTLE_ADDRESS_MAX);
}

static void tries_of_no_secret_count_for_their_address_alone(void **state)
{
    abb_throttle_t *throttle = make(*state);
    abb_throttle_try_t attempt = attempt_of(1, 2, 1);

    for (int i = 0; i < ABB_THROTTLE_ALL_MAX; ++i) {
        assert_int_equal(abb_throttle_wait(throttle, name(1), NOW + SECONDS(10)),
                         i < ABB_THROTTLE_ADDRESS_MAX ? 0 : SECONDS(50));
        abb_throttle_note_wrong(throttle, name(1), NOW);
    }
    assert_int_equal(abb_throttle_wait(throttle, name(1), NOW + SECONDS(60)), 0);
    assert_int_equal(abb_throttle_wait(throttle, name(2), NOW), 0);
    assert_int_equal(begin_try(throttle, &attempt, NOW), ABB_THROTTLE_GO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        UNIT_TEST(a_verdict_lasts_a_minute),
        UNIT_TEST(what_is_right_leaves_nothing),
        UNIT_TEST(an_address_an_account_and_all_have_limits),
        UNIT_TEST(what_was_not_tried_does_not_count),
        UNIT_TEST(tries_under_way_count_and_one_is_one),
        UNIT_TEST(who_never_ends_a_try_holds_it_for_half_a_minute),
        UNIT_TEST(a_jump_of_the_clock_locks_nobody_out),
        UNIT_TEST(a_flood_fills_no_table),
        UNIT_TEST(processes_share_one_limit),
        UNIT_TEST(tries_of_no_secret_count_for_their_address_alone),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
