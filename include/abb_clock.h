/*
 * clock (floor 0): time that nobody sets. A header alone.
 */
#ifndef ABB_CLOCK_H
#define ABB_CLOCK_H

#include <apr_time.h>
#include <time.h>

/*
 * Microseconds of the monotonic clock: for how long something takes, whatever happens
 * to the wall clock meanwhile. Source: POSIX.1-2017, clock_gettime. Threads: any.
 */
static inline apr_time_t abb_clock_monotonic(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return apr_time_from_sec((apr_time_t)now.tv_sec) + now.tv_nsec / 1000;
}

#endif
