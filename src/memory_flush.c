/*
 * memory (floor 5): a file's changes on their way to the disk.
 *
 * What a process writes to the mapping survives the process, but the system
 * writes it to the disk only after half a minute. So one child asks it to every
 * second, by mod_watchdog. Not by mod_watchdog's singleton: when its child ends,
 * the next one begins only ten seconds later. Children take turns by a time in
 * shared memory instead; one that dies in its turn holds the others up for TURN.
 */
#include "memory_internal.h"

#include <http_log.h>
#include <mod_watchdog.h>
#include <string.h>
#include <unistd.h>

#include "abb_log.h"

APLOG_USE_MODULE(auth_bitbucket);

#define WATCHDOG "_auth_bitbucket_"
/* mod_watchdog is late by up to a tenth of a second: together less than a second. */
#define TICK apr_time_from_msec(200)
#define PERIOD apr_time_from_msec(700)
/* How long one child may take before another does it too. */
#define TURN apr_time_from_sec(5)
/*
 * A store that nobody asked for so long has no changes: each comes from a request
 * that asked before, and no request waits so long for Bitbucket. So that an idle
 * server lets its disk sleep.
 */
#define QUIET apr_time_from_sec(600)
#define COMPLAINT_INTERVAL apr_time_from_sec(60)

/* Shared by all children. */
typedef struct {
    apr_int64_t next_at;
    apr_int64_t changed_at;
    apr_int64_t complained_at;
    apr_uint64_t activity;
} shared_t;

typedef struct {
    server_rec *server;
    const abb_store_t *store;
    abb_store_file_t file;
    shared_t *shared;
    pid_t parent;
} flush_t;

apr_status_t abb_memory_create_flush(apr_shm_t **flush, apr_pool_t *p)
{
    apr_status_t status = apr_shm_create(flush, sizeof(shared_t), NULL, p);

    if (status == APR_SUCCESS) {
        memset(apr_shm_baseaddr_get(*flush), 0, sizeof(shared_t));
    }
    else {
        *flush = NULL;
    }
    return status;
}

/* Whether a moment lies within so much time from now on; a clock may have been set back. */
static int is_soon(apr_time_t moment, apr_interval_time_t within, apr_time_t now)
{
    return moment > now && moment - now <= within;
}

static int take_turn(shared_t *shared, apr_time_t now)
{
    apr_int64_t next_at = __atomic_load_n(&shared->next_at, __ATOMIC_ACQUIRE);

    return !is_soon(next_at, TURN, now) &&
           __atomic_compare_exchange_n(&shared->next_at, &next_at, now + TURN, 0, __ATOMIC_ACQ_REL,
                                       __ATOMIC_RELAXED);
}

/* Whether something may have changed since the last time; only who has the turn asks. */
static int has_changed(const flush_t *flush, apr_time_t now)
{
    shared_t *shared = flush->shared;
    abb_store_figures_t figures;
    apr_uint64_t activity;

    abb_store_figures(flush->store, &figures);
    activity = (apr_uint64_t)figures.hits + (apr_uint64_t)figures.misses +
               (apr_uint64_t)figures.records + (apr_uint64_t)figures.expired;
    if (activity != shared->activity) {
        shared->activity = activity;
        shared->changed_at = now;
    }
    return is_soon(shared->changed_at + QUIET, QUIET, now);
}

static void complain(const flush_t *flush, const abb_error_t *err, apr_time_t now)
{
    apr_int64_t before = __atomic_load_n(&flush->shared->complained_at, __ATOMIC_RELAXED);

    if (!is_soon(before + COMPLAINT_INTERVAL, COMPLAINT_INTERVAL, now) &&
        __atomic_compare_exchange_n(&flush->shared->complained_at, &before, now, 0,
                                    __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, flush->server,
                     ABB_LOGNO(0019) "%s; requests go on, but after a power failure sessions may "
                                     "be missing",
                     err->text);
    }
}

static void write_out(const flush_t *flush, apr_time_t now)
{
    abb_error_t err;

    abb_error_clear(&err);
    if (abb_store_file_sync(&flush->file, &err) != APR_SUCCESS) {
        complain(flush, &err, now);
    }
}

static apr_status_t tick(int state, void *data, apr_pool_t *p)
{
    const flush_t *flush = data;
    apr_time_t now = apr_time_now();

    if (state == AP_WATCHDOG_STATE_RUNNING && take_turn(flush->shared, now)) {
        if (has_changed(flush, now)) {
            write_out(flush, now);
        }
        __atomic_store_n(&flush->shared->next_at, now + PERIOD, __ATOMIC_RELEASE);
    }
    return APR_SUCCESS;
}

/* A generation of the configuration ends; at a stop all children have. */
static apr_status_t write_last(void *data)
{
    const flush_t *flush = data;

    /* Children clear this pool too when they end. */
    if (getpid() == flush->parent) {
        write_out(flush, apr_time_now());
    }
    return APR_SUCCESS;
}

static apr_status_t start_watchdog(flush_t *flush, apr_pool_t *pconf)
{
    APR_OPTIONAL_FN_TYPE(ap_watchdog_get_instance) *get_instance =
        APR_RETRIEVE_OPTIONAL_FN(ap_watchdog_get_instance);
    APR_OPTIONAL_FN_TYPE(ap_watchdog_register_callback) *register_callback =
        APR_RETRIEVE_OPTIONAL_FN(ap_watchdog_register_callback);
    ap_watchdog_t *watchdog;
    apr_status_t status;

    if (!get_instance || !register_callback) {
        return APR_ENOTIMPL;
    }
    status = get_instance(&watchdog, WATCHDOG, 0, 0, pconf);
    return status == APR_SUCCESS ? register_callback(watchdog, TICK, flush, tick) : status;
}

void abb_memory_start_flush(server_rec *s, const abb_memory_segment_t *segment,
                            const abb_store_t *store, apr_pool_t *pconf)
{
    flush_t *flush = apr_palloc(pconf, sizeof(*flush));
    apr_status_t status;

    flush->server = s;
    flush->store = store;
    flush->file = segment->file;
    flush->shared = apr_shm_baseaddr_get(segment->flush);
    flush->parent = getpid();
    apr_pool_cleanup_register(pconf, flush, write_last, apr_pool_cleanup_null);
    status = start_watchdog(flush, pconf);
    if (status != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_NOTICE, status, s,
                     ABB_LOGNO(0018) "mod_watchdog is not there: after a power failure the last "
                                     "half minute of sessions may be missing; LoadModule "
                                     "watchdog_module");
    }
}
