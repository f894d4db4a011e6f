/*
 * The inside of store_socache: a provider as a cache that tells a miss from a
 * failure.
 *
 * APR's clients for Redis and memcached answer "not found" also while they take
 * every server for dead, which they do for five seconds after any fault. So a
 * miss is believed only when the cache proves at once that it is alive: it gives
 * back an object that is known to be there, or takes one and gives it back.
 *
 * A *line* is one instance of a provider with its connections. Where it is
 * possible (RENEWABLE), a line that had a fault is given up for a new one: that
 * drops connections that died with a restart, and the five seconds too.
 */
#ifndef STORE_SOCACHE_LINE_H
#define STORE_SOCACHE_LINE_H

#include <pthread.h>

#include "abb_store_socache.h"

/* One kind of object, one letter, and the record's key. */
#define LINE_ID_SIZE (1 + ABB_STORE_KEY_SIZE)

typedef struct line_t line_t;

/* All lines of one cache. */
typedef struct {
    const abb_store_socache_settings_t *settings;
    pthread_mutex_t lock;
    /* The one to use; NULL: none yet. */
    line_t *current;
    /* The object that proves it is alive. */
    unsigned char canary[LINE_ID_SIZE];
    /* The largest object seen so far. */
    apr_uint32_t largest;
} lines_t;

/* The name of an object in the cache. */
typedef struct {
    unsigned char bytes[LINE_ID_SIZE];
} line_id_t;

/* Errors: ABB_ECRYPTO; those of pthreads. Threads: start-up. */
apr_status_t abb_line_init(lines_t *lines, const abb_store_socache_settings_t *settings,
                           apr_pool_t *p, abb_error_t *err);

/* The line to use, until abb_line_close. NULL: the provider makes none. */
line_t *abb_line_open(lines_t *lines);

/* is_faulty: nobody who opens one from now on gets this one, where another can be made. */
void abb_line_close(lines_t *lines, line_t *line, int is_faulty);

/*
 * Read an object. Lifetime: p.
 * Errors: APR_NOTFOUND: not there (with must_prove: and the cache is alive);
 * ABB_ESTORE: could not look.
 */
apr_status_t abb_line_read(lines_t *lines, line_t *line, const line_id_t *id, int must_prove,
                           unsigned char **bytes, apr_size_t *size, apr_pool_t *p);

/*
 * Write an object that stays for `duration` if it can.
 * Errors: ABB_ECHANGED: the cache answers, but does not take it; ABB_ESTORE.
 */
apr_status_t abb_line_write(lines_t *lines, line_t *line, const line_id_t *id,
                            apr_interval_time_t duration, unsigned char *bytes, apr_size_t size,
                            apr_pool_t *p);

/*
 * Remove an object. Errors: APR_NOTFOUND, and the cache is alive; ABB_ECHANGED: it answers, but
 * does not do it; ABB_ESTORE.
 */
apr_status_t abb_line_remove(lines_t *lines, line_t *line, const line_id_t *id, apr_pool_t *p);

/* Whether the cache takes an object and gives it back, or at least answers both times. */
int abb_line_is_alive(lines_t *lines, line_t *line, apr_pool_t *p);

#endif
