/* store_socache (floor 2): a provider that tells a miss from a failure. See its header. */
#include "store_socache_line.h"

#include <ap_socache.h>
#include <string.h>

#include "abb_offload.h"

/* Larger than nearly all records; more is a second try, and a line in httpd's log. */
#define BUFFER_SIZE (16 * 1024)
/* A record, its head, and what sealing adds. */
#define OBJECT_MAX (ABB_STORE_RECORD_MAX + 1024)
#define CANARY_TIME apr_time_from_sec(3600)
/* What APR's clients return when the cache answered, but with an error of its own. */
#define REFUSED APR_EGENERAL
/* Providers count in whole seconds and refuse none. */
#define SHORTEST_EXPIRY apr_time_from_sec(2)

struct line_t {
    /* NULL: the line is the one made at the start, and stays. */
    apr_pool_t *pool;
    ap_socache_instance_t *instance;
    int users;
    int is_given_up;
};

static line_t *fixed_line(ap_socache_instance_t *instance, apr_pool_t *p)
{
    line_t *line = apr_pcalloc(p, sizeof(*line));

    line->instance = instance;
    return line;
}

apr_status_t abb_line_init(lines_t *lines, const abb_store_socache_settings_t *settings,
                           apr_pool_t *p, abb_error_t *err)
{
    lines->settings = settings;
    lines->largest = BUFFER_SIZE;
    lines->current = NULL;
    if (settings->kind != ABB_STORE_SOCACHE_RENEWABLE) {
        lines->current = fixed_line(settings->instance, p);
    }
    lines->canary[0] = 'c';
    return pthread_mutex_init(&lines->lock, NULL) == 0
               ? abb_crypto_random(lines->canary + 1, sizeof(lines->canary) - 1, err)
               : APR_EGENERAL;
}

/* ---- lines --------------------------------------------------------------- */

static line_t *make_line(const abb_store_socache_settings_t *settings)
{
    apr_pool_t *pool;
    line_t *line;

    if (abb_offload_create_shared_pool(&pool) != APR_SUCCESS) {
        return NULL;
    }
    line = apr_pcalloc(pool, sizeof(*line));
    line->pool = pool;
    if (settings->provider->create(&line->instance, settings->arguments, pool, pool) ||
        settings->provider->init(line->instance, ABB_STORE_SOCACHE_NAME, NULL, settings->server,
                                 pool) != APR_SUCCESS) {
        apr_pool_destroy(pool);
        return NULL;
    }
    return line;
}

static void destroy_line(const lines_t *lines, line_t *line)
{
    lines->settings->provider->destroy(line->instance, lines->settings->server);
    apr_pool_destroy(line->pool);
}

line_t *abb_line_open(lines_t *lines)
{
    line_t *line;

    pthread_mutex_lock(&lines->lock);
    if (!lines->current) {
        lines->current = make_line(lines->settings);
    }
    line = lines->current;
    if (line) {
        ++line->users;
    }
    pthread_mutex_unlock(&lines->lock);
    return line;
}

void abb_line_close(lines_t *lines, line_t *line, int is_faulty)
{
    int is_unused;

    pthread_mutex_lock(&lines->lock);
    --line->users;
    if (is_faulty && line->pool && lines->current == line) {
        lines->current = NULL;
        line->is_given_up = 1;
    }
    is_unused = line->is_given_up && line->users == 0;
    pthread_mutex_unlock(&lines->lock);
    if (is_unused) {
        destroy_line(lines, line);
    }
}

/* ---- calls of the provider ----------------------------------------------- */

static int lock(const lines_t *lines)
{
    return !lines->settings->lock || apr_global_mutex_lock(lines->settings->lock) == APR_SUCCESS;
}

static void unlock(const lines_t *lines)
{
    if (lines->settings->lock) {
        apr_global_mutex_unlock(lines->settings->lock);
    }
}

static apr_status_t retrieve(const lines_t *lines, line_t *line, const unsigned char *id,
                             unsigned char *bytes, unsigned int *size, apr_pool_t *p)
{
    apr_status_t status = ABB_ESTORE;

    if (lock(lines)) {
        status = lines->settings->provider->retrieve(line->instance, lines->settings->server, id,
                                                     LINE_ID_SIZE, bytes, size, p);
        unlock(lines);
    }
    return status;
}

static apr_status_t store(const lines_t *lines, line_t *line, const unsigned char *id,
                          apr_interval_time_t duration, unsigned char *bytes, apr_size_t size,
                          apr_pool_t *p)
{
    apr_interval_time_t longest = lines->settings->longest_expiry;
    apr_status_t status = ABB_ESTORE;

    if (longest && duration > longest) {
        duration = longest;
    }
    if (duration < SHORTEST_EXPIRY) {
        duration = SHORTEST_EXPIRY;
    }
    if (lock(lines)) {
        /* The provider looks at the clock itself. */
        status = lines->settings->provider->store(line->instance, lines->settings->server, id,
                                                  LINE_ID_SIZE, apr_time_now() + duration, bytes,
                                                  (unsigned int)size, p);
        unlock(lines);
    }
    return status;
}

/* ---- proofs -------------------------------------------------------------- */

static int has_canary(const lines_t *lines, line_t *line, apr_pool_t *p)
{
    unsigned char found[LINE_ID_SIZE];
    unsigned int size = sizeof(found);

    return retrieve(lines, line, lines->canary, found, &size, p) == APR_SUCCESS &&
           size == sizeof(found) && memcmp(found, lines->canary, size) == 0;
}

/* Whether the cache answers a question, if only that the object is not there. */
static int answers(const lines_t *lines, line_t *line, apr_pool_t *p)
{
    unsigned char found[LINE_ID_SIZE];
    unsigned int size = sizeof(found);
    apr_status_t status = retrieve(lines, line, lines->canary, found, &size, p);

    return status == APR_SUCCESS || status == APR_NOTFOUND;
}

int abb_line_is_alive(lines_t *lines, line_t *line, apr_pool_t *p)
{
    unsigned char canary[LINE_ID_SIZE];
    apr_status_t status;

    memcpy(canary, lines->canary, sizeof(canary));
    status = store(lines, line, lines->canary, CANARY_TIME, canary, sizeof(canary), p);
    /* One that is full refuses, and a dead one does not even refuse. */
    return status == REFUSED ? answers(lines, line, p)
                             : status == APR_SUCCESS && has_canary(lines, line, p);
}

/* After "not found": whether to believe it. */
static apr_status_t judge_miss(lines_t *lines, line_t *line, apr_pool_t *p)
{
    if (lines->settings->kind == ABB_STORE_SOCACHE_LOCAL || has_canary(lines, line, p) ||
        abb_line_is_alive(lines, line, p)) {
        return APR_NOTFOUND;
    }
    return ABB_ESTORE;
}

/* ---- objects ------------------------------------------------------------- */

static apr_uint32_t expected_size(lines_t *lines)
{
    return __atomic_load_n(&lines->largest, __ATOMIC_RELAXED);
}

/* Providers say so when a buffer is too small, each in its own way. */
static int is_too_small(apr_status_t status)
{
    return status == APR_ENOMEM || status == APR_ENOSPC;
}

apr_status_t abb_line_read(lines_t *lines, line_t *line, const line_id_t *id, int must_prove,
                           unsigned char **bytes, apr_size_t *size, apr_pool_t *p)
{
    apr_size_t capacity = expected_size(lines);
    apr_status_t status;
    unsigned int length;

    for (;;) {
        *bytes = apr_palloc(p, capacity);
        length = (unsigned int)capacity;
        status = retrieve(lines, line, id->bytes, *bytes, &length, p);
        if (!is_too_small(status) || capacity >= OBJECT_MAX) {
            break;
        }
        capacity = capacity * 4 < OBJECT_MAX ? capacity * 4 : OBJECT_MAX;
        __atomic_store_n(&lines->largest, (apr_uint32_t)capacity, __ATOMIC_RELAXED);
    }
    *size = length;
    if (status == APR_NOTFOUND) {
        return must_prove ? judge_miss(lines, line, p) : APR_NOTFOUND;
    }
    /* Nothing of ours is so large. */
    if (is_too_small(status)) {
        return APR_NOTFOUND;
    }
    return status == APR_SUCCESS && length <= capacity ? APR_SUCCESS : ABB_ESTORE;
}

static apr_status_t settle_status(apr_status_t status)
{
    if (status == REFUSED) {
        return ABB_ECHANGED;
    }
    return status == APR_SUCCESS ? APR_SUCCESS : ABB_ESTORE;
}

apr_status_t abb_line_write(lines_t *lines, line_t *line, const line_id_t *id,
                            apr_interval_time_t duration, unsigned char *bytes, apr_size_t size,
                            apr_pool_t *p)
{
    return settle_status(store(lines, line, id->bytes, duration, bytes, size, p));
}

apr_status_t abb_line_remove(lines_t *lines, line_t *line, const line_id_t *id, apr_pool_t *p)
{
    apr_status_t status = ABB_ESTORE;

    if (lock(lines)) {
        status = lines->settings->provider->remove(line->instance, lines->settings->server,
                                                   id->bytes, LINE_ID_SIZE, p);
        unlock(lines);
    }
    if (status == APR_NOTFOUND) {
        return judge_miss(lines, line, p);
    }
    return settle_status(status);
}
