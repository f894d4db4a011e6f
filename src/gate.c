/* gate (floor 1): how many requests may wait for another machine at once. */
#include "abb_gate.h"

/* No place is taken for longer, whatever is asked for; see is_taken. */
#define LONGEST apr_time_from_sec(600)
/* Of all the threads of a server, and at least so many. */
#define SHARE 4
#define FEWEST 4

struct abb_gate_t {
    /* In shared memory: until when each place is taken; 0: it is free. */
    apr_time_t *places;
    /* How many this process has taken. */
    int taken_here;
};

apr_size_t abb_gate_size(void)
{
    return ABB_GATE_PLACES_MAX * sizeof(apr_time_t);
}

abb_gate_t *abb_gate_create(void *block, apr_pool_t *p)
{
    abb_gate_t *gate = apr_pcalloc(p, sizeof(*gate));

    gate->places = block;
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
        apr_time_t seen = __atomic_load_n(&gate->places[i], __ATOMIC_RELAXED);

        if (!is_taken(seen, now) &&
            __atomic_compare_exchange_n(&gate->places[i], &seen, until, 0, __ATOMIC_SEQ_CST,
                                        __ATOMIC_RELAXED)) {
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

void abb_gate_leave(abb_gate_t *gate, const abb_gate_place_t *place)
{
    apr_time_t until = place->until;

    /* Who took longer than it said may have lost the place to another. */
    __atomic_compare_exchange_n(&gate->places[place->number], &until, 0, 0, __ATOMIC_SEQ_CST,
                                __ATOMIC_RELAXED);
    __atomic_sub_fetch(&gate->taken_here, 1, __ATOMIC_SEQ_CST);
}

int abb_gate_count(const abb_gate_t *gate, apr_time_t now)
{
    int count = 0;

    for (int i = 0; i < ABB_GATE_PLACES_MAX; ++i) {
        count += is_taken(__atomic_load_n(&gate->places[i], __ATOMIC_RELAXED), now);
    }
    return count;
}
