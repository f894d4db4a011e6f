/*
 * throttle (floor 1): who may try how often, over all processes.
 *
 * For secrets that somebody else checks. What was found wrong is remembered for a
 * minute and not checked again; whoever brings too many different wrong ones waits.
 * Tries under way count as wrong ones do, so a thousand at once are no way around it.
 *
 *      secret ----> known wrong? ----> under way? ----> too many wrong? ----> try
 *                        |                 |                  |                |
 *                     verdict         look again           so long          verdict
 *
 * Names are 64 bits of keyed hashes, so nobody chooses which meet. The tables are of
 * a fixed size; where too many meet, the oldest is forgotten early. Lives in shared
 * memory, takes no lock, waits for nobody. Knows nothing of what is tried.
 * Threads: all functions but create, of any process.
 */
#ifndef ABB_THROTTLE_H
#define ABB_THROTTLE_H

#include <apr_pools.h>
#include <apr_time.h>

/* Wrong tries within a minute: of one address, for one account, of all together. */
#define ABB_THROTTLE_ADDRESS_MAX 10
#define ABB_THROTTLE_ACCOUNT_MAX 5
#define ABB_THROTTLE_ALL_MAX 30
/* How long a verdict is remembered, and how long tries count. */
#define ABB_THROTTLE_TIME apr_time_from_sec(60)
/* A check that has not ended by then never will: its process is dead. */
#define ABB_THROTTLE_CHECK_TIME apr_time_from_sec(30)
/* Reasons that a verdict may have: 0 to this. */
#define ABB_THROTTLE_REASON_MAX 13

typedef struct abb_throttle_t abb_throttle_t;

/* What is known of a secret. */
typedef enum {
    ABB_THROTTLE_UNKNOWN,
    /* Somebody is having it checked. */
    ABB_THROTTLE_UNDER_WAY,
    ABB_THROTTLE_WRONG
} abb_throttle_known_t;

/* A try: names of the secret, of where it came from, and of whose it says it is (0: nobody's). */
typedef struct abb_throttle_try_t {
    apr_uint64_t secret;
    apr_uint64_t address;
    apr_uint64_t account;
} abb_throttle_try_t;

typedef enum {
    /* Have it checked; abb_throttle_settle must follow. */
    ABB_THROTTLE_GO,
    /* As many are under way as may be, or this one is: look again in a moment. */
    ABB_THROTTLE_LATER,
    /* Too many were wrong: none is checked for a while. */
    ABB_THROTTLE_STOP
} abb_throttle_answer_t;

/* Bytes that the shared block needs, zeroed and aligned to 8 bytes. */
apr_size_t abb_throttle_size(void);

/* Use a block. Lifetime: p; the block must live as long. */
abb_throttle_t *abb_throttle_create(void *block, apr_pool_t *p);

/* What is known of a secret. *reason: with ABB_THROTTLE_WRONG that of the verdict, else 0. */
abb_throttle_known_t abb_throttle_look(const abb_throttle_t *throttle, apr_uint64_t secret,
                                       apr_time_t now, int *reason);

/*
 * Begin a try. *wait: with ABB_THROTTLE_STOP for how long none is checked, in
 * microseconds; with the other answers 0.
 */
abb_throttle_answer_t abb_throttle_begin(abb_throttle_t *throttle,
                                         const abb_throttle_try_t *attempt, apr_time_t now,
                                         apr_interval_time_t *wait);

/*
 * End a try: it was wrong, and the reason is remembered; or it was right, or nobody
 * knows, and it counts no longer (reason < 0).
 */
void abb_throttle_settle(abb_throttle_t *throttle, const abb_throttle_try_t *attempt, int reason,
                         apr_time_t now);

/*
 * For what needs no verdict, and where nobody may have to wait because others try at
 * the same time: how long an address waits that was wrong ABB_THROTTLE_ADDRESS_MAX
 * times within a minute, in microseconds, 0 not at all; and that it was wrong once
 * more. Counts for no account and not among all.
 */
apr_interval_time_t abb_throttle_wait(const abb_throttle_t *throttle, apr_uint64_t address,
                                      apr_time_t now);
void abb_throttle_note_wrong(abb_throttle_t *throttle, apr_uint64_t address, apr_time_t now);

#endif
