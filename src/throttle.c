/*
 * throttle (floor 1): who may try how often, over all processes. See abb_throttle.h.
 *
 * Both tables consist of words that change at once:
 *
 *   a verdict  63      32 31   28 27         0     a counter  63      40 39      16 15    8 7        0
 *             +----------+-------+------------+              +----------+----------+-------+----------+
 *             | name     | state | second     |              | name     | second   | wrong | under way|
 *             +----------+-------+------------+              +----------+----------+-------+----------+
 *
 * A name has a few places: the one with its bits, else one that is over, else the oldest.
 */
#include "abb_throttle.h"

/* Powers of two. */
#define VERDICTS 4096
#define COUNTERS 4096
#define WAYS 4

#define VERDICT_SECONDS 0x0fffffffu
#define STATE_UNDER_WAY 1u
/* And the reasons above. */
#define STATE_WRONG 2u

#define COUNTER_SECONDS 0xffffffu
#define COUNT_MAX 0xffu
#define ONE_WRONG 0x100u

struct abb_throttle_t {
    apr_uint64_t *verdicts;
    apr_uint64_t *counters;
    /* Of all tries; no place of the table. */
    apr_uint64_t *all;
};

apr_size_t abb_throttle_size(void)
{
    return (VERDICTS + COUNTERS + 1) * sizeof(apr_uint64_t);
}

abb_throttle_t *abb_throttle_create(void *block, apr_pool_t *p)
{
    abb_throttle_t *throttle = apr_pcalloc(p, sizeof(*throttle));

    throttle->verdicts = block;
    throttle->counters = throttle->verdicts + VERDICTS;
    throttle->all = throttle->counters + COUNTERS;
    return throttle;
}

static apr_uint64_t load(const apr_uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static int swap(apr_uint64_t *word, apr_uint64_t *seen, apr_uint64_t next)
{
    return __atomic_compare_exchange_n(word, seen, next, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/* The first of a name's places in a table. */
static apr_uint64_t *first_place(apr_uint64_t *words, apr_size_t count, apr_uint64_t name)
{
    return words + (name & (count / WAYS - 1)) * WAYS;
}

/* ---- verdicts ------------------------------------------------------------ */

/* Never 0, so that an empty word is nobody's. */
static apr_uint32_t verdict_name(apr_uint64_t name)
{
    apr_uint32_t bits = (apr_uint32_t)(name >> 32);

    return bits ? bits : 1;
}

static int is_verdict_of(apr_uint64_t word, apr_uint64_t name)
{
    return word >> 32 == verdict_name(name);
}

static apr_uint64_t verdict_word(apr_uint64_t name, unsigned state, apr_time_t now)
{
    return (apr_uint64_t)verdict_name(name) << 32 | (apr_uint64_t)state << 28 |
           ((apr_uint64_t)apr_time_sec(now) & VERDICT_SECONDS);
}

static unsigned state_of(apr_uint64_t word)
{
    return (unsigned)(word >> 28) & 0xf;
}

/* Seconds since a word was written; one of the future, after a jump of the clock, is very old. */
static apr_uint32_t verdict_age(apr_uint64_t word, apr_time_t now)
{
    return ((apr_uint32_t)apr_time_sec(now) - (apr_uint32_t)word) & VERDICT_SECONDS;
}

static int is_verdict_over(apr_uint64_t word, apr_time_t now)
{
    apr_interval_time_t time =
        state_of(word) == STATE_UNDER_WAY ? ABB_THROTTLE_CHECK_TIME : ABB_THROTTLE_TIME;

    return word == 0 || verdict_age(word, now) >= (apr_uint32_t)apr_time_sec(time);
}

static apr_uint64_t *find_verdict(const abb_throttle_t *throttle, apr_uint64_t name, apr_time_t now)
{
    apr_uint64_t *first = first_place(throttle->verdicts, VERDICTS, name);
    apr_uint64_t *oldest = first;

    for (int i = 0; i < WAYS; ++i) {
        if (is_verdict_of(load(&first[i]), name)) {
            return &first[i];
        }
        if (load(&first[i]) == 0 || (load(oldest) != 0 && verdict_age(load(&first[i]), now) >
                                                              verdict_age(load(oldest), now))) {
            oldest = &first[i];
        }
    }
    return oldest;
}

static abb_throttle_known_t known_of(apr_uint64_t word, apr_uint64_t name, apr_time_t now,
                                     int *reason)
{
    *reason = 0;
    if (!is_verdict_of(word, name) || is_verdict_over(word, now)) {
        return ABB_THROTTLE_UNKNOWN;
    }
    if (state_of(word) == STATE_UNDER_WAY) {
        return ABB_THROTTLE_UNDER_WAY;
    }
    *reason = (int)(state_of(word) - STATE_WRONG);
    return ABB_THROTTLE_WRONG;
}

abb_throttle_known_t abb_throttle_look(const abb_throttle_t *throttle, apr_uint64_t secret,
                                       apr_time_t now, int *reason)
{
    return known_of(load(find_verdict(throttle, secret, now)), secret, now, reason);
}

/* Say that a secret is being checked. Returns 0 when somebody else says so, or knows. */
static int claim(abb_throttle_t *throttle, apr_uint64_t secret, apr_time_t now)
{
    apr_uint64_t *place = find_verdict(throttle, secret, now);
    apr_uint64_t seen = load(place);
    int reason;

    return known_of(seen, secret, now, &reason) == ABB_THROTTLE_UNKNOWN &&
           swap(place, &seen, verdict_word(secret, STATE_UNDER_WAY, now));
}

/* ---- counters ------------------------------------------------------------ */

/* What one try counts as. */
typedef struct {
    apr_uint64_t name;
    unsigned most;
    /* In the table, or 0: the one of all tries. */
    int is_in_table;
} counter_t;

#define COUNTERS_MAX 3

/* Returns how many. */
static int counters_of(const abb_throttle_try_t *attempt, counter_t counters[COUNTERS_MAX])
{
    int count = 0;

    counters[count++] = (counter_t){attempt->address, ABB_THROTTLE_ADDRESS_MAX, 1};
    if (attempt->account) {
        counters[count++] = (counter_t){attempt->account, ABB_THROTTLE_ACCOUNT_MAX, 1};
    }
    counters[count++] = (counter_t){0, ABB_THROTTLE_ALL_MAX, 0};
    return count;
}

static unsigned under_way(apr_uint64_t word)
{
    return (unsigned)word & COUNT_MAX;
}

static unsigned wrong(apr_uint64_t word)
{
    return (unsigned)(word / ONE_WRONG) & COUNT_MAX;
}

static apr_uint32_t counter_age(apr_uint64_t word, apr_time_t now)
{
    return ((apr_uint32_t)apr_time_sec(now) - (apr_uint32_t)(word >> 16)) & COUNTER_SECONDS;
}

static int is_counter_over(apr_uint64_t word, apr_time_t now)
{
    return counter_age(word, now) >= (apr_uint32_t)apr_time_sec(ABB_THROTTLE_TIME);
}

static int is_counting(apr_uint64_t word, apr_uint64_t name, apr_time_t now)
{
    return word >> 40 == name >> 40 && !is_counter_over(word, now);
}

static apr_uint64_t new_counter(apr_uint64_t name, apr_time_t now)
{
    return name >> 40 << 40 | ((apr_uint64_t)apr_time_sec(now) & COUNTER_SECONDS) << 16;
}

static apr_uint64_t *find_counter(const abb_throttle_t *throttle, const counter_t *counter,
                                  apr_time_t now)
{
    apr_uint64_t *first = first_place(throttle->counters, COUNTERS, counter->name);
    apr_uint64_t *oldest = first;

    if (!counter->is_in_table) {
        return throttle->all;
    }
    for (int i = 0; i < WAYS; ++i) {
        if (is_counting(load(&first[i]), counter->name, now)) {
            return &first[i];
        }
        if (counter_age(load(&first[i]), now) > counter_age(load(oldest), now)) {
            oldest = &first[i];
        }
    }
    return oldest;
}

/* For how long none is tried; 0: so many were not wrong. */
static apr_interval_time_t wait_of(apr_uint64_t word, const counter_t *counter, apr_time_t now)
{
    return is_counting(word, counter->name, now) && wrong(word) >= counter->most
               ? ABB_THROTTLE_TIME - apr_time_from_sec(counter_age(word, now))
               : 0;
}

/* One more under way, if there may be. */
static abb_throttle_answer_t count_begin(const abb_throttle_t *throttle, const counter_t *counter,
                                         apr_time_t now, apr_interval_time_t *wait)
{
    apr_uint64_t *place = find_counter(throttle, counter, now);
    apr_uint64_t seen = load(place);
    apr_uint64_t word;

    do {
        if ((*wait = wait_of(seen, counter, now))) {
            return ABB_THROTTLE_STOP;
        }
        word = is_counting(seen, counter->name, now) ? seen : new_counter(counter->name, now);
        if (wrong(word) + under_way(word) >= counter->most) {
            return ABB_THROTTLE_LATER;
        }
    } while (!swap(place, &seen, word + 1));
    return ABB_THROTTLE_GO;
}

/* One less under way, and perhaps one more wrong. */
static void count_end(const abb_throttle_t *throttle, const counter_t *counter, int is_wrong,
                      apr_time_t now)
{
    apr_uint64_t *place = find_counter(throttle, counter, now);
    apr_uint64_t seen = load(place);
    apr_uint64_t word;

    do {
        word = is_counting(seen, counter->name, now) ? seen : new_counter(counter->name, now);
        word -= under_way(word) ? 1 : 0;
        word += is_wrong && wrong(word) < COUNT_MAX ? ONE_WRONG : 0;
    } while (!swap(place, &seen, word));
}

static void count_end_all(const abb_throttle_t *throttle, const counter_t *counters, int count,
                          int is_wrong, apr_time_t now)
{
    for (int i = 0; i < count; ++i) {
        count_end(throttle, &counters[i], is_wrong, now);
    }
}

/* ---- a try --------------------------------------------------------------- */

abb_throttle_answer_t abb_throttle_begin(abb_throttle_t *throttle,
                                         const abb_throttle_try_t *attempt, apr_time_t now,
                                         apr_interval_time_t *wait)
{
    counter_t counters[COUNTERS_MAX];
    int count = counters_of(attempt, counters);

    for (int i = 0; i < count; ++i) {
        abb_throttle_answer_t answer = count_begin(throttle, &counters[i], now, wait);

        if (answer != ABB_THROTTLE_GO) {
            count_end_all(throttle, counters, i, 0, now);
            return answer;
        }
    }
    if (!claim(throttle, attempt->secret, now)) {
        count_end_all(throttle, counters, count, 0, now);
        return ABB_THROTTLE_LATER;
    }
    return ABB_THROTTLE_GO;
}

void abb_throttle_settle(abb_throttle_t *throttle, const abb_throttle_try_t *attempt, int reason,
                         apr_time_t now)
{
    apr_uint64_t *place = find_verdict(throttle, attempt->secret, now);
    apr_uint64_t seen = load(place);
    counter_t counters[COUNTERS_MAX];
    int count = counters_of(attempt, counters);

    if (reason >= 0) {
        unsigned state = STATE_WRONG + (unsigned)(reason <= ABB_THROTTLE_REASON_MAX ? reason : 0);

        __atomic_store_n(place, verdict_word(attempt->secret, state, now), __ATOMIC_RELAXED);
    }
    else if (is_verdict_of(seen, attempt->secret)) {
        swap(place, &seen, 0);
    }
    count_end_all(throttle, counters, count, reason >= 0, now);
}

/* ---- tries of no secret -------------------------------------------------- */

apr_interval_time_t abb_throttle_wait(const abb_throttle_t *throttle, apr_uint64_t address,
                                      apr_time_t now)
{
    counter_t counter = {address, ABB_THROTTLE_ADDRESS_MAX, 1};

    return wait_of(load(find_counter(throttle, &counter, now)), &counter, now);
}

void abb_throttle_note_wrong(abb_throttle_t *throttle, apr_uint64_t address, apr_time_t now)
{
    counter_t counter = {address, ABB_THROTTLE_ADDRESS_MAX, 1};

    count_end(throttle, &counter, 1, now);
}
