/*
 * traffic (floor 1): whether Bitbucket may be asked now.
 *
 * What all processes of the server know of Bitbucket's condition, in a block of
 * memory they share: a circuit breaker for each consumer, pauses that Bitbucket
 * asked for (429), and who told the log of what. Without locks: a process that
 * dies at any instruction leaves nothing that does not run out by itself.
 *
 *              5 failures in a row
 *      closed ---------------------> open: nobody asks for 5, 10, 20, 40, 60 s
 *        ^  ^                          |  ^
 *        |  |                     time |  | it gets no answer
 *        |  |     it is answered       v  |
 *        |  +------------------ half open: one asks, the others do not
 *        +--- any answer of a call that began before
 *
 * Knows no HTTP and no account: bytes, names and times. A time further ahead
 * than anything here lasts was written before the clock was put back, and counts
 * for nothing.
 * Threads: all functions but create, of any process.
 */
#ifndef ABB_TRAFFIC_H
#define ABB_TRAFFIC_H

#include <apr_pools.h>
#include <apr_time.h>

#include "abb_error.h"

/* After so many failures in a row nobody asks for a while: the first, and the longest. */
#define ABB_TRAFFIC_FAILURES_MAX 5
#define ABB_TRAFFIC_FIRST_BREAK apr_time_from_sec(5)
#define ABB_TRAFFIC_LONGEST_BREAK apr_time_from_sec(60)
/*
 * When so many accounts are asked to pause within this time, the whole consumer
 * pauses. Source: "API request limits", Bitbucket Cloud, 2026-11-20: the limit
 * counts requests of each user.
 */
#define ABB_TRAFFIC_ACCOUNTS_MAX 3
#define ABB_TRAFFIC_ACCOUNTS_TIME apr_time_from_sec(60)
/* Longest pause, in microseconds; one that is longer is cut. */
#define ABB_TRAFFIC_LONGEST_PAUSE apr_time_from_sec(900)

/* One consumer's part, as a process sees it. */
typedef struct abb_traffic_t abb_traffic_t;

typedef enum {
    /* Nobody asks for a while: so many microseconds. */
    ABB_TRAFFIC_BROKEN,
    /* Bitbucket answers again. */
    ABB_TRAFFIC_MENDED,
    /* The whole consumer pauses for so many microseconds. */
    ABB_TRAFFIC_PAUSED
} abb_traffic_event_t;

/* Told by the process that caused it. Threads: any. */
typedef void (*abb_traffic_tell_t)(void *owner, abb_traffic_event_t event,
                                   apr_interval_time_t duration);

/* What the log is told at most once in a while, by all processes together. */
typedef enum {
    ABB_TRAFFIC_TOLD_CHANGE,
    ABB_TRAFFIC_TOLD_OPERATOR,
    ABB_TRAFFIC_TOLD_SILENCE,
    ABB_TRAFFIC_TOLD_CROWD,
    ABB_TRAFFIC_TOLD_ODD,
    ABB_TRAFFIC_TOLD_ALARM,
    ABB_TRAFFIC_TOLD_SCOPE,
    ABB_TRAFFIC_TOLD_COUNT
} abb_traffic_told_t;

/* A round of questions under way. */
typedef struct abb_traffic_call_t {
    /* The one that tries whether Bitbucket answers again, until this time; 0: any other. */
    apr_time_t probe_until;
} abb_traffic_call_t;

/* What became of a round. */
typedef enum {
    ABB_TRAFFIC_ANSWERED,
    /* No usable answer at all. */
    ABB_TRAFFIC_SILENT,
    /* Nobody knows: it was given up here. */
    ABB_TRAFFIC_ABANDONED
} abb_traffic_outcome_t;

typedef enum { ABB_TRAFFIC_CLOSED, ABB_TRAFFIC_OPEN, ABB_TRAFFIC_HALF_OPEN } abb_traffic_state_t;

/* For people: how Bitbucket does. */
typedef struct abb_traffic_condition_t {
    abb_traffic_state_t state;
    /* Since when the breaker is closed, or not; 0: since the start. */
    apr_time_t since;
    /* How long the whole consumer still pauses, in microseconds. */
    apr_interval_time_t pause;
} abb_traffic_condition_t;

/* Bytes that the shared block needs, zeroed and aligned to 8 bytes. */
apr_size_t abb_traffic_size(void);

/*
 * Find or take a consumer's part of the block. `consumer` names client and API;
 * those of one name share it, as do all that come when the block has no part
 * left. tell may be NULL. Lifetime: p; the block must live as long. Threads:
 * start-up, in the parent.
 */
abb_traffic_t *abb_traffic_create(void *block, const char *consumer, abb_traffic_tell_t tell,
                                  void *owner, apr_pool_t *p);

/*
 * Begin a round of questions for an account (NULL: not known yet) that takes at
 * most `longest`. Who got APR_SUCCESS must end the round.
 * Errors: ABB_ELIMIT a pause was asked for; ABB_EUPSTREAM Bitbucket has not
 * answered lately; both with retry_after.
 */
apr_status_t abb_traffic_begin(abb_traffic_t *traffic, const char *account,
                               apr_interval_time_t longest, apr_time_t now,
                               abb_traffic_call_t *call, abb_error_t *err);

void abb_traffic_end(abb_traffic_t *traffic, const abb_traffic_call_t *call,
                     abb_traffic_outcome_t outcome, apr_time_t now);

/*
 * Bitbucket asked for a pause (429) about an account. NULL, not known yet: it
 * counts as one more account.
 */
void abb_traffic_pause(abb_traffic_t *traffic, const char *account, apr_interval_time_t pause,
                       apr_time_t now);

/* What is known now; it need not be of one instant. */
void abb_traffic_look(const abb_traffic_t *traffic, apr_time_t now,
                      abb_traffic_condition_t *condition);

/*
 * Whether the log may be told of this now: of all processes one gets a number
 * above 0, at most once in `interval`: how often it happened since it was told
 * last, this time included.
 */
unsigned abb_traffic_may_tell(abb_traffic_t *traffic, abb_traffic_told_t what,
                              apr_interval_time_t interval, apr_time_t now);

#endif
