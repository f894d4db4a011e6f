/*
 * counters (floor 1): how often things happened, over all processes.
 *
 * A block of shared memory that is only ever added to. Each processor has a
 * stripe of its own, so that who counts writes a line of memory that is in its
 * cache already; who reads sums the stripes.
 *
 *      stripe of processor 0      stripe of processor 1      ...      once
 *      | counts | calls | hour |  | counts | calls | hour |           | times |
 *
 * `hour` is a ring of 60 minutes, and so is `times`: how long the calls of each minute
 * took. A call lasts milliseconds, so who counts one may meet others there. A cell holds
 * the minute it belongs to beside its number, so that nobody has to clear it: who finds
 * another minute begins anew. One word changes at once, also between processes, and what
 * a clock that jumps leaves behind is neither read nor added to.
 * No locks: a process that dies leaves at most one thing uncounted. Sums need not
 * be of one instant. Knows no HTTP, no account, no session.
 * Threads: all functions but abb_counters_begin, of any process. Functions that
 * count take NULL for "nobody counts".
 */
#ifndef ABB_COUNTERS_H
#define ABB_COUNTERS_H

#include <apr_pools.h>
#include <apr_time.h>

#include "abb_error.h"

/* What happens. */
typedef enum {
    /* Requests to protected places that came with a session, or with credentials. */
    ABB_COUNT_REQUEST,
    ABB_COUNT_SIGN_IN,
    ABB_COUNT_SIGN_OUT,
    /* Signed in or not, the rules refused. */
    ABB_COUNT_REFUSAL,
    /* Requests that could not be decided: 503 and the like. */
    ABB_COUNT_UNDECIDED,
    /* Sessions that ended for what Bitbucket said. */
    ABB_COUNT_ENDED,
    /* Questions to Bitbucket about a session; those a visitor waited for. */
    ABB_COUNT_RECHECK_DONE,
    ABB_COUNT_RECHECK_FAILED,
    ABB_COUNT_RECHECK_WAITED,
    /* Credentials that nobody knew yet. */
    ABB_COUNT_CREDENTIAL_ACCEPTED,
    ABB_COUNT_CREDENTIAL_REFUSED,
    ABB_COUNT_CREDENTIAL_THROTTLED,
    ABB_COUNT_KINDS
} abb_count_t;

/* What Bitbucket is asked. */
typedef enum {
    ABB_CALL_TOKEN,
    ABB_CALL_REFRESH,
    ABB_CALL_USER,
    ABB_CALL_EMAILS,
    ABB_CALL_PERMISSION,
    ABB_CALL_REPOSITORIES,
    ABB_CALL_MEMBERS,
    ABB_CALL_KINDS
} abb_call_t;

/* What came back. */
typedef enum {
    ABB_CALL_2XX,
    ABB_CALL_3XX,
    ABB_CALL_4XX,
    ABB_CALL_5XX,
    ABB_CALL_SILENT,
    ABB_CALL_OUTCOMES
} abb_call_outcome_t;

/* What the last hour is known of by the minute. CALL_TIME: milliseconds in all. */
typedef enum {
    ABB_SERIES_SIGN_IN,
    ABB_SERIES_REQUEST,
    ABB_SERIES_RECHECK,
    ABB_SERIES_CALL,
    ABB_SERIES_CALL_TIME,
    ABB_SERIES_KINDS
} abb_series_t;

#define ABB_COUNTERS_MINUTES 60
/* The last hour in parts of five minutes. A minute has too few calls for quantiles. */
#define ABB_COUNTERS_PARTS 12
/* Buckets of durations; the last has no upper bound. */
#define ABB_COUNTERS_BUCKETS 29
/* Reasons of abb_error.h, by their distance from ABB_ERROR_BASE; 0: any other. */
#define ABB_COUNTERS_REASONS 32
/* Longest sentence that is kept, with its NUL. */
#define ABB_COUNTERS_TEXT_SIZE 256

/* How many calls took no longer than a bucket's bound and longer than the one before. */
typedef struct abb_call_times_t {
    apr_uint64_t buckets[ABB_COUNTERS_BUCKETS];
} abb_call_times_t;

/* One kind of call, since the start. */
typedef struct abb_call_counts_t {
    apr_uint64_t outcomes[ABB_CALL_OUTCOMES];
    abb_call_times_t times;
    /* Microseconds in all. */
    apr_uint64_t duration;
} abb_call_counts_t;

/* All that was counted. */
typedef struct abb_counters_sum_t {
    /* When counting began, and how many graceful restarts it has outlived. */
    apr_time_t started_at;
    apr_uint64_t restarts;
    apr_uint64_t counts[ABB_COUNT_KINDS];
    /* Sign-ins that failed. */
    apr_uint64_t failures[ABB_COUNTERS_REASONS];
    abb_call_counts_t calls[ABB_CALL_KINDS];
    /* Oldest minute first; the last one is under way. */
    apr_uint32_t hour[ABB_SERIES_KINDS][ABB_COUNTERS_MINUTES];
    /* Of the same 60 minutes: by kind of call, and of all kinds by part, oldest first. */
    abb_call_times_t hour_times[ABB_CALL_KINDS];
    abb_call_times_t part_times[ABB_COUNTERS_PARTS];
    /* As Bitbucket told last, and when; -1: it never did. */
    apr_int64_t rate_limit_remaining;
    apr_time_t rate_limit_at;
    /* What Bitbucket said last of an endpoint that it has withdrawn; at 0: nothing. */
    char change[ABB_COUNTERS_TEXT_SIZE];
    apr_time_t change_at;
} abb_counters_sum_t;

typedef struct abb_counters_t abb_counters_t;

/* Bytes that the shared block needs, zeroed. */
apr_size_t abb_counters_size(void);

/*
 * Point at a block, and note that a generation of the configuration begins: the
 * first one starts the count, each later one is a restart outlived. The block must be at
 * the same address each time. Lifetime: the block's. Threads: start-up, in the parent.
 */
abb_counters_t *abb_counters_begin(void *block, apr_time_t now);

/* Something happened. */
void abb_counters_add(abb_counters_t *counters, abb_count_t what, apr_time_t now);

/* A sign-in failed for a reason of abb_error.h. */
void abb_counters_fail_sign_in(abb_counters_t *counters, apr_status_t reason);

/* Bitbucket was asked. status: of its answer; 0: there was none. */
void abb_counters_call(abb_counters_t *counters, abb_call_t call, int status,
                       apr_interval_time_t duration, apr_time_t now);

/* Bitbucket told how many more calls it takes: a header's value; what is no number is left. */
void abb_counters_rate_limit(abb_counters_t *counters, const char *remaining, apr_time_t now);

/* Bitbucket has withdrawn an endpoint. What is too long is cut. NULL: nothing. */
void abb_counters_change(abb_counters_t *counters, const char *text, apr_time_t now);

/* Sum everything. */
void abb_counters_read(const abb_counters_t *counters, apr_time_t now, abb_counters_sum_t *sum);

/* ---- durations ----------------------------------------------------------- */

/* The upper bound of a bucket in microseconds; 0 for the last, which has none. */
apr_interval_time_t abb_counters_bound(int bucket);

/* How many calls there were. */
apr_uint64_t abb_counters_total(const abb_call_times_t *times);

/*
 * How long a share of the calls took at most (0.99: all but one of a hundred), in
 * microseconds, as near as the buckets tell; -1: there were none. Of the last bucket
 * only its beginning is known.
 */
apr_interval_time_t abb_counters_quantile(const abb_call_times_t *times, double share);

/* Stable words: "permission", "2xx". Static strings. */
const char *abb_counters_call_word(abb_call_t call);
const char *abb_counters_outcome_word(abb_call_outcome_t outcome);

#endif
