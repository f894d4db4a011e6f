/* traffic (floor 1): whether Bitbucket may be asked now. See abb_traffic.h. */
#include "abb_traffic.h"

#include <string.h>

/* Parts of the block, and how many pauses of accounts it remembers. */
#define CONSUMERS 64
#define PAUSES 4096
/* A pause may stand in one of so many neighbouring places. */
#define PAUSE_PLACES 4

#define LOAD(word) __atomic_load_n(&(word), __ATOMIC_SEQ_CST)
#define STORE(word, value) __atomic_store_n(&(word), (value), __ATOMIC_SEQ_CST)

/* An account and a time: until when it pauses, or when it was asked to. */
typedef struct {
    apr_uint64_t account;
    apr_time_t time;
} noted_t;

typedef struct {
    /* Hash of the name; 0: not used yet. */
    apr_uint64_t name;
    /* In a row. */
    apr_uint32_t failures;
    /* How often in a row the breaker has opened. */
    apr_uint32_t openings;
    /* Nobody asks before; 0: the breaker is closed. */
    apr_time_t open_until;
    /* Since when it is closed, or not; 0: since the start. */
    apr_time_t changed_at;
    /* One tries whether Bitbucket answers again, until this time. */
    apr_time_t probe_until;
    apr_time_t paused_until;
    /* Accounts that were asked to pause lately. */
    noted_t limited[ABB_TRAFFIC_ACCOUNTS_MAX + 1];
    apr_time_t told_at[ABB_TRAFFIC_TOLD_COUNT];
    apr_uint32_t untold[ABB_TRAFFIC_TOLD_COUNT];
} consumer_t;

typedef struct {
    consumer_t consumers[CONSUMERS];
    noted_t pauses[PAUSES];
} block_t;

struct abb_traffic_t {
    block_t *block;
    consumer_t *consumer;
    abb_traffic_tell_t tell;
    void *owner;
};

/* ---- parts --------------------------------------------------------------- */

apr_size_t abb_traffic_size(void)
{
    return sizeof(block_t);
}

/* FNV-1a, 64 bits; never 0. Names come from the configuration and from Bitbucket. */
static apr_uint64_t hash_of(const char *text, apr_uint64_t hash)
{
    for (; *text; ++text) {
        hash = (hash ^ (unsigned char)*text) * 1099511628211ULL;
    }
    return hash ? hash : 1;
}

static consumer_t *find_consumer(block_t *block, apr_uint64_t name)
{
    for (int i = 0; i < CONSUMERS; ++i) {
        consumer_t *consumer = &block->consumers[(name + (apr_uint64_t)i) % CONSUMERS];
        apr_uint64_t seen = 0;

        if (__atomic_compare_exchange_n(&consumer->name, &seen, name, 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST) ||
            seen == name) {
            return consumer;
        }
    }
    return &block->consumers[name % CONSUMERS];
}

abb_traffic_t *abb_traffic_create(void *block, const char *consumer, abb_traffic_tell_t tell,
                                  void *owner, apr_pool_t *p)
{
    abb_traffic_t *traffic = apr_pcalloc(p, sizeof(*traffic));

    traffic->block = block;
    traffic->consumer = find_consumer(block, hash_of(consumer, 14695981039346656037ULL));
    traffic->tell = tell;
    traffic->owner = owner;
    return traffic;
}

static void tell(const abb_traffic_t *traffic, abb_traffic_event_t event,
                 apr_interval_time_t duration)
{
    if (traffic->tell) {
        traffic->tell(traffic->owner, event, duration);
    }
}

/* How long a time is still ahead; 0 when it is over or of a clock that was put back. */
static apr_interval_time_t left_until(apr_time_t time, apr_interval_time_t longest, apr_time_t now)
{
    return time > now && time - now <= longest ? time - now : 0;
}

/* Not now; `what` is the beginning of the sentence. */
static apr_status_t put_off(abb_error_t *err, apr_status_t reason, const char *what,
                            apr_interval_time_t left)
{
    abb_error_set(err, reason, "%s is not asked for another %d s", what,
                  (int)apr_time_sec(left + apr_time_from_sec(1) - 1));
    if (err && err->status == reason && !err->retry_after) {
        err->retry_after = left;
    }
    return reason;
}

/* ---- pauses -------------------------------------------------------------- */

static apr_uint64_t hash_of_account(const abb_traffic_t *traffic, const char *account)
{
    return hash_of(account, traffic->consumer->name);
}

static noted_t *pause_place(const abb_traffic_t *traffic, apr_uint64_t account, int i)
{
    return &traffic->block->pauses[(account + (apr_uint64_t)i) % PAUSES];
}

static apr_interval_time_t pause_of_account(const abb_traffic_t *traffic, const char *account,
                                            apr_time_t now)
{
    apr_uint64_t hash = account ? hash_of_account(traffic, account) : 0;

    for (int i = 0; account && i < PAUSE_PLACES; ++i) {
        const noted_t *place = pause_place(traffic, hash, i);

        if (LOAD(place->account) == hash) {
            apr_time_t until = LOAD(place->time);

            /* Another account may have come in between. */
            return LOAD(place->account) == hash ? left_until(until, ABB_TRAFFIC_LONGEST_PAUSE, now)
                                                : 0;
        }
    }
    return 0;
}

/* The account's own place, else a free one, else that whose pause ends first. */
static noted_t *choose_pause_place(const abb_traffic_t *traffic, apr_uint64_t account,
                                   apr_time_t now)
{
    noted_t *best = NULL;
    apr_interval_time_t shortest = 0;

    for (int i = 0; i < PAUSE_PLACES; ++i) {
        noted_t *place = pause_place(traffic, account, i);
        apr_interval_time_t left = left_until(LOAD(place->time), ABB_TRAFFIC_LONGEST_PAUSE, now);

        if (LOAD(place->account) == account) {
            return place;
        }
        if (!best || left < shortest) {
            best = place;
            shortest = left;
        }
    }
    return best;
}

static void note_pause(const abb_traffic_t *traffic, apr_uint64_t account, apr_time_t until,
                       apr_time_t now)
{
    noted_t *place = choose_pause_place(traffic, account, now);

    /* In this order nobody reads one account's name with another's time. */
    STORE(place->account, 0);
    STORE(place->time, until);
    STORE(place->account, account);
}

/* How far another process may be ahead, who read the clock later and was here first. */
#define CLOCK_TOLERANCE apr_time_from_sec(2)

/* When it was noted; 0: never, or by a clock that was put back since. */
static apr_time_t time_of(const noted_t *noted, apr_time_t now)
{
    apr_time_t time = LOAD(noted->time);

    return time <= now + CLOCK_TOLERANCE ? time : 0;
}

/* Note that an account was asked to pause. Returns how many were lately. */
static int note_limited(consumer_t *consumer, apr_uint64_t account, apr_time_t now)
{
    noted_t *oldest = &consumer->limited[0];
    int count = 1;

    for (int i = 0; i <= ABB_TRAFFIC_ACCOUNTS_MAX; ++i) {
        noted_t *noted = &consumer->limited[i];
        apr_time_t time = time_of(noted, now);

        if (LOAD(noted->account) == account) {
            STORE(noted->time, now);
            oldest = NULL;
        }
        else if (LOAD(noted->account) && time && now - time < ABB_TRAFFIC_ACCOUNTS_TIME) {
            ++count;
        }
        if (oldest && time < time_of(oldest, now)) {
            oldest = noted;
        }
    }
    if (oldest) {
        STORE(oldest->account, account);
        STORE(oldest->time, now);
    }
    return count;
}

void abb_traffic_pause(abb_traffic_t *traffic, const char *account, apr_interval_time_t pause,
                       apr_time_t now)
{
    static apr_uint32_t strangers;
    consumer_t *consumer = traffic->consumer;
    apr_uint64_t hash = account ? hash_of_account(traffic, account)
                                : (apr_uint64_t)now * 2654435761u +
                                      __atomic_add_fetch(&strangers, 1, __ATOMIC_RELAXED) + 1;

    if (pause > ABB_TRAFFIC_LONGEST_PAUSE) {
        pause = ABB_TRAFFIC_LONGEST_PAUSE;
    }
    if (account) {
        note_pause(traffic, hash, now + pause, now);
    }
    if (note_limited(consumer, hash, now) >= ABB_TRAFFIC_ACCOUNTS_MAX) {
        int is_news = !left_until(LOAD(consumer->paused_until), ABB_TRAFFIC_LONGEST_PAUSE, now);

        STORE(consumer->paused_until, now + pause);
        if (is_news) {
            tell(traffic, ABB_TRAFFIC_PAUSED, pause);
        }
    }
}

/* ---- the breaker --------------------------------------------------------- */

static apr_status_t refuse(abb_error_t *err, apr_interval_time_t left)
{
    return put_off(err, ABB_EUPSTREAM, "Bitbucket has not answered lately, it", left);
}

/* The breaker's time is over: one goes to see, for as long as that may take. */
static apr_status_t begin_probe(consumer_t *consumer, apr_interval_time_t longest, apr_time_t now,
                                abb_traffic_call_t *call, abb_error_t *err)
{
    apr_time_t seen = LOAD(consumer->probe_until);

    /* A probe lasts no longer than its asker said; from further ahead it is of another clock. */
    if (left_until(seen, longest + ABB_TRAFFIC_LONGEST_BREAK, now) ||
        !__atomic_compare_exchange_n(&consumer->probe_until, &seen, now + longest, 0,
                                     __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        return refuse(err, apr_time_from_sec(1));
    }
    call->probe_until = now + longest;
    return APR_SUCCESS;
}

static apr_status_t check_pauses(const abb_traffic_t *traffic, const char *account, apr_time_t now,
                                 abb_error_t *err)
{
    apr_interval_time_t all =
        left_until(LOAD(traffic->consumer->paused_until), ABB_TRAFFIC_LONGEST_PAUSE, now);
    apr_interval_time_t own = pause_of_account(traffic, account, now);
    apr_interval_time_t left = own > all ? own : all;

    return left ? put_off(err, ABB_ELIMIT,
                          all ? "Bitbucket asked for a pause, it"
                              : "Bitbucket asked for a pause, about this account it",
                          left)
                : APR_SUCCESS;
}

apr_status_t abb_traffic_begin(abb_traffic_t *traffic, const char *account,
                               apr_interval_time_t longest, apr_time_t now,
                               abb_traffic_call_t *call, abb_error_t *err)
{
    consumer_t *consumer = traffic->consumer;
    apr_status_t status = check_pauses(traffic, account, now, err);
    apr_time_t open_until = LOAD(consumer->open_until);
    apr_interval_time_t left;

    call->probe_until = 0;
    if (status != APR_SUCCESS || !open_until) {
        return status;
    }
    left = left_until(open_until, ABB_TRAFFIC_LONGEST_BREAK, now);
    return left ? refuse(err, left) : begin_probe(consumer, longest, now, call, err);
}

/* A probe's place is free again, unless it took longer than it said. */
static void end_probe(consumer_t *consumer, const abb_traffic_call_t *call)
{
    apr_time_t mine = call->probe_until;

    if (mine) {
        __atomic_compare_exchange_n(&consumer->probe_until, &mine, 0, 0, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST);
    }
}

static void close_breaker(abb_traffic_t *traffic, apr_time_t now)
{
    consumer_t *consumer = traffic->consumer;

    /* Usually nothing is to be written, so processes share the line of memory. */
    if (LOAD(consumer->failures)) {
        STORE(consumer->failures, 0);
    }
    if (LOAD(consumer->open_until)) {
        STORE(consumer->openings, 0);
        if (__atomic_exchange_n(&consumer->open_until, 0, __ATOMIC_SEQ_CST)) {
            STORE(consumer->changed_at, now);
            tell(traffic, ABB_TRAFFIC_MENDED, 0);
        }
    }
}

static apr_interval_time_t length_of_break(apr_uint32_t openings)
{
    return openings > 4 ? ABB_TRAFFIC_LONGEST_BREAK : ABB_TRAFFIC_FIRST_BREAK << (openings - 1);
}

/* `seen` is what the breaker was like; of those who fail at once one opens it. */
static void open_breaker(abb_traffic_t *traffic, apr_time_t seen, apr_time_t now)
{
    consumer_t *consumer = traffic->consumer;
    apr_interval_time_t length = length_of_break(LOAD(consumer->openings) + 1);
    int was_open = seen != 0;

    if (__atomic_compare_exchange_n(&consumer->open_until, &seen, now + length, 0, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST)) {
        __atomic_add_fetch(&consumer->openings, 1, __ATOMIC_SEQ_CST);
        if (!was_open) {
            STORE(consumer->changed_at, now);
        }
        tell(traffic, ABB_TRAFFIC_BROKEN, length);
    }
}

static void note_silence(abb_traffic_t *traffic, const abb_traffic_call_t *call, apr_time_t now)
{
    consumer_t *consumer = traffic->consumer;
    apr_uint32_t failures = __atomic_add_fetch(&consumer->failures, 1, __ATOMIC_SEQ_CST);
    apr_time_t open_until = LOAD(consumer->open_until);

    /* While it is open, only the probe's failure says anything new. */
    if (call->probe_until ? open_until != 0
                          : open_until == 0 && failures >= ABB_TRAFFIC_FAILURES_MAX) {
        open_breaker(traffic, open_until, now);
    }
}

void abb_traffic_end(abb_traffic_t *traffic, const abb_traffic_call_t *call,
                     abb_traffic_outcome_t outcome, apr_time_t now)
{
    if (outcome == ABB_TRAFFIC_ANSWERED) {
        close_breaker(traffic, now);
    }
    else if (outcome == ABB_TRAFFIC_SILENT) {
        note_silence(traffic, call, now);
    }
    end_probe(traffic->consumer, call);
}

void abb_traffic_look(const abb_traffic_t *traffic, apr_time_t now,
                      abb_traffic_condition_t *condition)
{
    const consumer_t *consumer = traffic->consumer;
    apr_time_t open_until = LOAD(consumer->open_until);

    condition->state = !open_until ? ABB_TRAFFIC_CLOSED
                       : left_until(open_until, ABB_TRAFFIC_LONGEST_BREAK, now)
                           ? ABB_TRAFFIC_OPEN
                           : ABB_TRAFFIC_HALF_OPEN;
    condition->since = LOAD(consumer->changed_at);
    condition->pause = left_until(LOAD(consumer->paused_until), ABB_TRAFFIC_LONGEST_PAUSE, now);
}

/* ---- the log ------------------------------------------------------------- */

unsigned abb_traffic_may_tell(abb_traffic_t *traffic, abb_traffic_told_t what,
                              apr_interval_time_t interval, apr_time_t now)
{
    consumer_t *consumer = traffic->consumer;
    apr_time_t before = LOAD(consumer->told_at[what]);

    __atomic_add_fetch(&consumer->untold[what], 1, __ATOMIC_SEQ_CST);
    if ((before && now >= before && now - before < interval) ||
        !__atomic_compare_exchange_n(&consumer->told_at[what], &before, now, 0, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST)) {
        return 0;
    }
    return __atomic_exchange_n(&consumer->untold[what], 0, __ATOMIC_SEQ_CST);
}
