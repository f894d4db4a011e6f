/* gate (floor 1): how many requests may wait for another machine at once. */
#include "abb_gate.h"

/* No place is taken for longer, whatever is asked for; see is_taken. */
#define LONGEST apr_time_from_sec(900)
/* Of all the threads of a server, and at least so many. */
#define SHARE 4
#define FEWEST 4

/* How long one waits between two looks for a place, and how many wait for one place. */
#define WAIT_INTERVAL apr_time_from_msec(20)
#define WAITING_SHARE 2

/* In shared memory. */
typedef struct {
    /* Until when the place is taken; 0: it is free. */
    apr_time_t until;
    apr_time_t since;
} place_t;

/* A power of two. */
#define CLAIMS 1024

/*
 * In shared memory: of each claim half of its name and the second at which it ends,
 * 32 bits each, so that one word changes at once. 0: nobody's.
 */
typedef apr_uint64_t claim_word_t;

struct abb_gate_t {
    place_t *places;
    claim_word_t *claims;
    /* How many places this process has taken, and how many of it wait for one. */
    int taken_here;
    int waiting_here;
};

apr_size_t abb_gate_size(void)
{
    return ABB_GATE_PLACES_MAX * sizeof(place_t) + CLAIMS * sizeof(claim_word_t);
}

abb_gate_t *abb_gate_create(void *block, apr_pool_t *p)
{
    abb_gate_t *gate = apr_pcalloc(p, sizeof(*gate));

    gate->places = block;
    gate->claims = (claim_word_t *)(gate->places + ABB_GATE_PLACES_MAX);
    return gate;
}

static int between(int number, int smallest, int largest)
{
    return number < smallest ? smallest : number > largest ? largest : number;
}

abb_gate_limits_t abb_gate_limits(int wanted, int processes, int threads)
{
    apr_int64_t all = (apr_int64_t)between(processes, 1, 1 << 20) * between(threads, 1, 1 << 20);
    apr_int64_t share = wanted > 0 ? wanted : all / SHARE;
    abb_gate_limits_t limits;

    if (wanted <= 0 && share < FEWEST) {
        share = FEWEST;
    }
    limits.server = (int)(share > ABB_GATE_PLACES_MAX ? ABB_GATE_PLACES_MAX : share);
    limits.process = between((int)(limits.server * (apr_int64_t)threads / all), 1, limits.server);
    return limits;
}

/* A time too far ahead is of a clock that was put back. */
static int is_taken(apr_time_t until, apr_time_t now)
{
    return until > now && until - now <= LONGEST;
}

static int take_place(abb_gate_t *gate, int count, apr_time_t until, apr_time_t now, int *number)
{
    for (int i = 0; i < count; ++i) {
        place_t *place = &gate->places[i];
        apr_time_t seen = __atomic_load_n(&place->until, __ATOMIC_RELAXED);

        if (!is_taken(seen, now) &&
            __atomic_compare_exchange_n(&place->until, &seen, until, 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_RELAXED)) {
            __atomic_store_n(&place->since, now, __ATOMIC_RELAXED);
            *number = i;
            return 1;
        }
    }
    return 0;
}

int abb_gate_enter(abb_gate_t *gate, const abb_gate_limits_t *limits, apr_interval_time_t longest,
                   apr_time_t now, abb_gate_place_t *place)
{
    if (__atomic_add_fetch(&gate->taken_here, 1, __ATOMIC_SEQ_CST) <= limits->process) {
        place->until = now + (longest < LONGEST ? longest : LONGEST);
        if (take_place(gate, between(limits->server, 1, ABB_GATE_PLACES_MAX), place->until, now,
                       &place->number)) {
            return 1;
        }
    }
    __atomic_sub_fetch(&gate->taken_here, 1, __ATOMIC_SEQ_CST);
    return 0;
}

/* Whether nobody has had a place for long. */
static int is_quick(const abb_gate_t *gate, apr_time_t now)
{
    for (int i = 0; i < ABB_GATE_PLACES_MAX; ++i) {
        const place_t *place = &gate->places[i];

        if (is_taken(__atomic_load_n(&place->until, __ATOMIC_RELAXED), now) &&
            now - __atomic_load_n(&place->since, __ATOMIC_RELAXED) >= ABB_GATE_PATIENCE) {
            return 0;
        }
    }
    return 1;
}

static int wait_for_place(abb_gate_t *gate, const abb_gate_limits_t *limits,
                          apr_interval_time_t longest, abb_gate_place_t *place)
{
    for (apr_interval_time_t waited = 0; waited < ABB_GATE_PATIENCE; waited += WAIT_INTERVAL) {
        apr_sleep(WAIT_INTERVAL);
        if (abb_gate_enter(gate, limits, longest, apr_time_now(), place)) {
            return 1;
        }
        if (!is_quick(gate, apr_time_now())) {
            return 0;
        }
    }
    return 0;
}

int abb_gate_wait(abb_gate_t *gate, const abb_gate_limits_t *limits, apr_interval_time_t longest,
                  abb_gate_place_t *place)
{
    int has_place = abb_gate_enter(gate, limits, longest, apr_time_now(), place);

    if (has_place || !is_quick(gate, apr_time_now())) {
        return has_place;
    }
    if (__atomic_add_fetch(&gate->waiting_here, 1, __ATOMIC_SEQ_CST) <=
        WAITING_SHARE * limits->process) {
        has_place = wait_for_place(gate, limits, longest, place);
    }
    __atomic_sub_fetch(&gate->waiting_here, 1, __ATOMIC_SEQ_CST);
    return has_place;
}

void abb_gate_leave(abb_gate_t *gate, const abb_gate_place_t *place)
{
    apr_time_t until = place->until;

    /* Who took longer than it said may have lost the place to another. */
    __atomic_compare_exchange_n(&gate->places[place->number].until, &until, 0, 0, __ATOMIC_SEQ_CST,
                                __ATOMIC_RELAXED);
    __atomic_sub_fetch(&gate->taken_here, 1, __ATOMIC_SEQ_CST);
}

/* ---- claims -------------------------------------------------------------- */

static apr_uint32_t seconds(apr_time_t time)
{
    return (apr_uint32_t)apr_time_sec(time);
}

/* A time too far ahead is of a clock that was put back. */
static int is_claimed(claim_word_t word, apr_time_t now)
{
    apr_uint32_t left = (apr_uint32_t)word - seconds(now);

    return word != 0 && left != 0 && left <= apr_time_sec(LONGEST) + 1;
}

int abb_gate_claim(abb_gate_t *gate, apr_uint64_t name, apr_interval_time_t duration,
                   apr_time_t now)
{
    apr_time_t until = now + (duration < LONGEST ? duration : LONGEST);
    claim_word_t *spot = &gate->claims[name & (CLAIMS - 1)];
    claim_word_t half = name >> 32 << 32;
    claim_word_t seen = __atomic_load_n(spot, __ATOMIC_SEQ_CST);

    while (!is_claimed(seen, now)) {
        if (__atomic_compare_exchange_n(spot, &seen, half | seconds(until), 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST)) {
            return 1;
        }
    }
    return seen >> 32 << 32 != half;
}

int abb_gate_count(const abb_gate_t *gate, apr_time_t now)
{
    int count = 0;

    for (int i = 0; i < ABB_GATE_PLACES_MAX; ++i) {
        count += is_taken(__atomic_load_n(&gate->places[i].until, __ATOMIC_RELAXED), now);
    }
    return count;
}
