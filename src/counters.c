/* counters (floor 1): how often things happened, over all processes. See abb_counters.h. */
#include "abb_counters.h"

#include <limits.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define STRIPES 32
#define CACHE_LINE 64
#define MINUTE apr_time_from_sec(60)
/* Texts are written by turns, so that who reads the last one is not overtaken. */
#define TEXTS 4
#define TEXT_WORDS (ABB_COUNTERS_TEXT_SIZE / 8)
#define PART (ABB_COUNTERS_MINUTES / ABB_COUNTERS_PARTS)

#define LOAD(word) __atomic_load_n(&(word), __ATOMIC_RELAXED)
#define STORE(word, value) __atomic_store_n(&(word), (value), __ATOMIC_RELAXED)
#define ADD(word, value) __atomic_fetch_add(&(word), (value), __ATOMIC_RELAXED)

/* The minute in the upper half, its number in the lower: one word changes at once. */
typedef apr_uint64_t cell_t;

typedef struct {
    apr_uint64_t counts[ABB_COUNT_KINDS];
    apr_uint64_t failures[ABB_COUNTERS_REASONS];
    abb_call_counts_t calls[ABB_CALL_KINDS];
    cell_t hour[ABB_COUNTERS_MINUTES][ABB_SERIES_KINDS];
} __attribute__((aligned(CACHE_LINE))) stripe_t;

typedef struct {
    apr_time_t at;
    apr_uint64_t words[TEXT_WORDS];
} text_t;

struct abb_counters_t {
    apr_time_t started_at;
    apr_uint64_t restarts;
    /* One more than was told; 0: nothing was. */
    apr_int64_t rate_limit;
    apr_time_t rate_limit_at;
    /* How many texts were begun; the last one that is whole, from 1 on. */
    apr_uint64_t texts_begun;
    apr_uint64_t text_latest;
    text_t texts[TEXTS];
    stripe_t stripes[STRIPES];
    /* Not in the stripes: 32 times these would be 3 MB. */
    cell_t times[ABB_COUNTERS_MINUTES][ABB_CALL_KINDS][ABB_COUNTERS_BUCKETS];
};

/* Milliseconds. Each is about one and a half times the one before, in numbers to remember. */
static const int bounds[ABB_COUNTERS_BUCKETS - 1] = {
    1,   2,   3,   5,    7,    10,   15,   20,   30,   50,    70,    100,   150,   200,
    300, 500, 700, 1000, 1500, 2000, 3000, 5000, 7000, 10000, 15000, 20000, 30000, 60000};

/* ---- the block ----------------------------------------------------------- */

apr_size_t abb_counters_size(void)
{
    return sizeof(abb_counters_t) + CACHE_LINE;
}

abb_counters_t *abb_counters_begin(void *block, apr_time_t now)
{
    /* APR's shared memory begins anywhere. */
    abb_counters_t *counters =
        (abb_counters_t *)(((uintptr_t)block + CACHE_LINE - 1) & ~(uintptr_t)(CACHE_LINE - 1));

    if (LOAD(counters->started_at)) {
        ADD(counters->restarts, 1);
    }
    else {
        STORE(counters->started_at, now);
    }
    return counters;
}

/* The one of the processor that runs this thread: in its cache, and no other's just now. */
static stripe_t *near_stripe(abb_counters_t *counters)
{
    return &counters->stripes[(unsigned)sched_getcpu() % STRIPES];
}

/* ---- the last hour ------------------------------------------------------- */

static apr_uint32_t minute_of(apr_time_t now)
{
    return (apr_uint32_t)(now / MINUTE);
}

static apr_uint32_t minute_in(cell_t cell)
{
    return (apr_uint32_t)(cell >> 32);
}

/* Who adds just when the ring comes round adds to the next hour: one in so many. */
static void add_to_cell(cell_t *cell, apr_uint32_t minute, apr_uint32_t count)
{
    cell_t seen = LOAD(*cell);

    while (minute_in(seen) != minute) {
        if (__atomic_compare_exchange_n(cell, &seen, (cell_t)minute << 32 | count, 0,
                                        __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
            return;
        }
    }
    /* At the top it stays: a carry would be another minute. */
    if ((apr_uint32_t)seen <= UINT_MAX / 2) {
        ADD(*cell, count);
    }
}

static void add_to_hour(stripe_t *stripe, abb_series_t series, apr_uint32_t count, apr_time_t now)
{
    apr_uint32_t minute = minute_of(now);

    add_to_cell(&stripe->hour[minute % ABB_COUNTERS_MINUTES][series], minute, count);
}

static void sum_hour(const stripe_t *stripe, apr_time_t now, abb_counters_sum_t *sum)
{
    apr_uint32_t first = minute_of(now) - (ABB_COUNTERS_MINUTES - 1);

    for (apr_uint32_t i = 0; i < ABB_COUNTERS_MINUTES; ++i) {
        const cell_t *cells = stripe->hour[(first + i) % ABB_COUNTERS_MINUTES];

        for (int series = 0; series < ABB_SERIES_KINDS; ++series) {
            cell_t cell = LOAD(cells[series]);

            if (minute_in(cell) == first + i) {
                sum->hour[series][i] += (apr_uint32_t)cell;
            }
        }
    }
}

/* Add what a minute's cells hold of that very minute. */
static void sum_minute(const cell_t *cells, apr_uint32_t minute, abb_call_times_t *of_call,
                       abb_call_times_t *of_part)
{
    for (int bucket = 0; bucket < ABB_COUNTERS_BUCKETS; ++bucket) {
        cell_t cell = LOAD(cells[bucket]);

        if (minute_in(cell) == minute) {
            of_call->buckets[bucket] += (apr_uint32_t)cell;
            of_part->buckets[bucket] += (apr_uint32_t)cell;
        }
    }
}

static void sum_times(const abb_counters_t *counters, apr_time_t now, abb_counters_sum_t *sum)
{
    apr_uint32_t first = minute_of(now) - (ABB_COUNTERS_MINUTES - 1);

    for (apr_uint32_t i = 0; i < ABB_COUNTERS_MINUTES; ++i) {
        apr_uint32_t minute = first + i;

        for (int call = 0; call < ABB_CALL_KINDS; ++call) {
            sum_minute(counters->times[minute % ABB_COUNTERS_MINUTES][call], minute,
                       &sum->hour_times[call], &sum->part_times[i / PART]);
        }
    }
}

/* ---- counting ------------------------------------------------------------ */

void abb_counters_add(abb_counters_t *counters, abb_count_t what, apr_time_t now)
{
    stripe_t *stripe;

    if (!counters) {
        return;
    }
    stripe = near_stripe(counters);
    ADD(stripe->counts[what], 1);
    switch (what) {
    case ABB_COUNT_REQUEST:
        add_to_hour(stripe, ABB_SERIES_REQUEST, 1, now);
        break;
    case ABB_COUNT_SIGN_IN:
        add_to_hour(stripe, ABB_SERIES_SIGN_IN, 1, now);
        break;
    case ABB_COUNT_RECHECK_DONE:
    case ABB_COUNT_RECHECK_FAILED:
        add_to_hour(stripe, ABB_SERIES_RECHECK, 1, now);
        break;
    default:
        break;
    }
}

void abb_counters_fail_sign_in(abb_counters_t *counters, apr_status_t reason)
{
    int place = reason - ABB_ERROR_BASE;

    if (counters) {
        place = place > 0 && place < ABB_COUNTERS_REASONS ? place : 0;
        ADD(near_stripe(counters)->failures[place], 1);
    }
}

static abb_call_outcome_t outcome_of(int status)
{
    return status < 200   ? ABB_CALL_SILENT
           : status < 300 ? ABB_CALL_2XX
           : status < 400 ? ABB_CALL_3XX
           : status < 500 ? ABB_CALL_4XX
                          : ABB_CALL_5XX;
}

static int bucket_of(apr_interval_time_t duration)
{
    int bucket = 0;

    while (bucket < ABB_COUNTERS_BUCKETS - 1 && duration > apr_time_from_msec(bounds[bucket])) {
        ++bucket;
    }
    return bucket;
}

void abb_counters_call(abb_counters_t *counters, abb_call_t call, int status,
                       apr_interval_time_t duration, apr_time_t now)
{
    apr_uint32_t minute = minute_of(now);
    stripe_t *stripe;
    int bucket;

    if (!counters) {
        return;
    }
    if (duration < 0) {
        duration = 0;
    }
    bucket = bucket_of(duration);
    stripe = near_stripe(counters);
    ADD(stripe->calls[call].outcomes[outcome_of(status)], 1);
    ADD(stripe->calls[call].times.buckets[bucket], 1);
    ADD(stripe->calls[call].duration, (apr_uint64_t)duration);
    add_to_hour(stripe, ABB_SERIES_CALL, 1, now);
    add_to_hour(stripe, ABB_SERIES_CALL_TIME, (apr_uint32_t)apr_time_as_msec(duration), now);
    add_to_cell(&counters->times[minute % ABB_COUNTERS_MINUTES][call][bucket], minute, 1);
}

/* ---- what Bitbucket told ------------------------------------------------- */

#define LONGEST_NUMBER 15

void abb_counters_rate_limit(abb_counters_t *counters, const char *remaining, apr_time_t now)
{
    apr_size_t digits = remaining ? strspn(remaining, "0123456789") : 0;

    if (counters && digits && digits <= LONGEST_NUMBER && !remaining[digits]) {
        STORE(counters->rate_limit, (apr_int64_t)strtoll(remaining, NULL, 10) + 1);
        STORE(counters->rate_limit_at, now);
    }
}

void abb_counters_change(abb_counters_t *counters, const char *text, apr_time_t now)
{
    apr_uint64_t words[TEXT_WORDS] = {0};
    apr_uint64_t number;
    text_t *place;

    if (!counters || !text) {
        return;
    }
    number = ADD(counters->texts_begun, 1) + 1;
    place = &counters->texts[number % TEXTS];
    memcpy(words, text, strnlen(text, sizeof(words) - 1));
    for (int i = 0; i < (int)TEXT_WORDS; ++i) {
        STORE(place->words[i], words[i]);
    }
    STORE(place->at, now);
    __atomic_store_n(&counters->text_latest, number, __ATOMIC_RELEASE);
}

static void read_change(const abb_counters_t *counters, abb_counters_sum_t *sum)
{
    apr_uint64_t number = __atomic_load_n(&counters->text_latest, __ATOMIC_ACQUIRE);
    const text_t *place = &counters->texts[number % TEXTS];

    for (int i = 0; number && i < (int)TEXT_WORDS; ++i) {
        apr_uint64_t word = LOAD(place->words[i]);

        memcpy(sum->change + (apr_size_t)i * sizeof(word), &word, sizeof(word));
    }
    sum->change[ABB_COUNTERS_TEXT_SIZE - 1] = '\0';
    sum->change_at = number ? LOAD(place->at) : 0;
}

/* ---- reading ------------------------------------------------------------- */

static void add_words(apr_uint64_t *sum, const apr_uint64_t *words, apr_size_t count)
{
    for (apr_size_t i = 0; i < count; ++i) {
        sum[i] += LOAD(words[i]);
    }
}

static void add_calls(abb_call_counts_t *sum, const abb_call_counts_t *calls)
{
    for (int call = 0; call < ABB_CALL_KINDS; ++call) {
        add_words(sum[call].outcomes, calls[call].outcomes, ABB_CALL_OUTCOMES);
        add_words(sum[call].times.buckets, calls[call].times.buckets, ABB_COUNTERS_BUCKETS);
        sum[call].duration += LOAD(calls[call].duration);
    }
}

void abb_counters_read(const abb_counters_t *counters, apr_time_t now, abb_counters_sum_t *sum)
{
    memset(sum, 0, sizeof(*sum));
    sum->started_at = LOAD(counters->started_at);
    sum->restarts = LOAD(counters->restarts);
    sum->rate_limit_remaining = LOAD(counters->rate_limit) - 1;
    sum->rate_limit_at = LOAD(counters->rate_limit_at);
    read_change(counters, sum);
    for (int i = 0; i < STRIPES; ++i) {
        const stripe_t *stripe = &counters->stripes[i];

        add_words(sum->counts, stripe->counts, ABB_COUNT_KINDS);
        add_words(sum->failures, stripe->failures, ABB_COUNTERS_REASONS);
        add_calls(sum->calls, stripe->calls);
        sum_hour(stripe, now, sum);
    }
    sum_times(counters, now, sum);
}

/* ---- durations ----------------------------------------------------------- */

apr_interval_time_t abb_counters_bound(int bucket)
{
    return bucket < ABB_COUNTERS_BUCKETS - 1 ? apr_time_from_msec(bounds[bucket]) : 0;
}

apr_uint64_t abb_counters_total(const abb_call_times_t *times)
{
    apr_uint64_t total = 0;

    for (int i = 0; i < ABB_COUNTERS_BUCKETS; ++i) {
        total += times->buckets[i];
    }
    return total;
}

/* Within a bucket calls are taken to be spread evenly. */
static apr_interval_time_t within(int bucket, double share)
{
    apr_interval_time_t from = bucket ? abb_counters_bound(bucket - 1) : 0;
    apr_interval_time_t to = abb_counters_bound(bucket);

    return to ? from + (apr_interval_time_t)((double)(to - from) * share) : from;
}

apr_interval_time_t abb_counters_quantile(const abb_call_times_t *times, double share)
{
    double wanted = share * (double)abb_counters_total(times);
    double before = 0;
    int last = -1;

    for (int i = 0; i < ABB_COUNTERS_BUCKETS; ++i) {
        double here = (double)times->buckets[i];

        if (here > 0 && before + here >= wanted) {
            return within(i, (wanted - before) / here);
        }
        last = here > 0 ? i : last;
        before += here;
    }
    return last < 0 ? -1 : within(last, 1);
}

const char *abb_counters_call_word(abb_call_t call)
{
    static const char *const words[ABB_CALL_KINDS] = {
        "token", "refresh", "user", "emails", "permission", "repositories", "members"};

    return words[call];
}

const char *abb_counters_outcome_word(abb_call_outcome_t outcome)
{
    static const char *const words[ABB_CALL_OUTCOMES] = {"2xx", "3xx", "4xx", "5xx", "none"};

    return words[outcome];
}
