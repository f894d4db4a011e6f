/* memory (floor 5): a cache that several machines share. See memory_remote.h. */
#include "memory_remote.h"

#include <ap_mpm.h>
#include <ap_socache.h>
#include <apr_strings.h>
#include <http_log.h>
#include <util_mutex.h>

#include "abb_config.h"
#include "abb_log.h"
#include "abb_memory.h"
#include "abb_store_near.h"
#include "abb_store_socache.h"

APLOG_USE_MODULE(auth_bitbucket);

#define MUTEX_TYPE "auth-bitbucket-cache"
/* Threads of a child that ask the cache: few do, since copies answer most requests. */
#define THREADS_MIN 2
#define THREADS_MAX 8
/* What providers with a size of their own are told to expect. */
#define OBJECT_SIZE 4096
#define EXPIRY_INTERVAL apr_time_from_sec(60)
/* At most how often one process says that the cache does not answer. */
#define TELL_INTERVAL apr_time_from_sec(60)

/* One generation's. NULL: no cache is shared. */
static abb_store_socache_t *cache;
static apr_global_mutex_t *lock;
static const char *lock_file;

/* When this process last said that the cache does not answer; 0: it said so of none. */
static apr_time_t told_at;

apr_status_t abb_memory_remote_register(apr_pool_t *pconf, apr_int32_t mechanism)
{
    cache = NULL;
    lock = NULL;
    return ap_mutex_register(pconf, MUTEX_TYPE, NULL, (apr_lockmech_e)mechanism, 0);
}

/* ---- what the log hears -------------------------------------------------- */

/* Each thread that notices comes here once for each change. */
static void tell(const abb_store_socache_settings_t *settings, int is_answering)
{
    apr_time_t before = __atomic_load_n(&told_at, __ATOMIC_SEQ_CST);
    apr_time_t now = apr_time_now();
    apr_time_t after = is_answering ? 0 : now;

    if ((is_answering && !before) ||
        (!is_answering && before && now >= before && now - before < TELL_INTERVAL) ||
        !__atomic_compare_exchange_n(&told_at, &before, after, 0, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST)) {
        return;
    }
    if (is_answering) {
        ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, settings->server,
                     ABB_LOGNO(0034) "%s answers again", settings->name);
    }
    else {
        ap_log_error(APLOG_MARK, APLOG_ERR, 0, settings->server,
                     ABB_LOGNO(0033) "%s does not answer: copies on this machine are used while "
                                     "they are young enough, then requests with a session get "
                                     "503; see whether it runs and can be reached",
                     settings->name);
    }
}

/* ---- opening ------------------------------------------------------------- */

static int fail_start(const abb_cache_provider_t *shared, const char *what, apr_status_t status)
{
    ap_log_error(APLOG_MARK, APLOG_EMERG | APLOG_STARTUP, status, NULL,
                 ABB_LOGNO(0032) "AuthBitbucketSessionCache: %s cannot be used: %s",
                 shared->specification, what);
    return HTTP_INTERNAL_SERVER_ERROR;
}

/* A provider's instance belongs to one generation. */
typedef struct {
    const abb_cache_provider_t *shared;
    server_rec *server;
} opened_t;

static apr_status_t close_instance(void *data)
{
    const opened_t *opened = data;

    opened->shared->provider->destroy(opened->shared->instance, opened->server);
    return APR_SUCCESS;
}

/* Also where children make their own: what is wrong with the arguments shows here. */
static int open_instance(const abb_cache_provider_t *shared, server_rec *s, apr_pool_t *p)
{
    static const struct ap_socache_hints hints = {ABB_STORE_KEY_SIZE + 1, OBJECT_SIZE,
                                                  EXPIRY_INTERVAL};
    opened_t *opened = apr_palloc(p, sizeof(*opened));
    apr_status_t status =
        shared->provider->init(shared->instance, ABB_STORE_SOCACHE_NAME, &hints, s, p);

    if (status != APR_SUCCESS) {
        return fail_start(shared, "its provider does not open it", status);
    }
    opened->shared = shared;
    opened->server = s;
    apr_pool_cleanup_register(p, opened, close_instance, apr_pool_cleanup_null);
    if (shared->provider->flags & AP_SOCACHE_FLAG_NOTMPSAFE) {
        status = ap_global_mutex_create(&lock, &lock_file, MUTEX_TYPE, NULL, s, p, 0);
    }
    return status == APR_SUCCESS
               ? OK
               : fail_start(shared,
                            "its lock cannot be made, see the Mutex directive for " MUTEX_TYPE,
                            status);
}

static int thread_count(void)
{
    int threads = 0;

    if (ap_mpm_query(AP_MPMQ_MAX_THREADS, &threads) != APR_SUCCESS || threads < THREADS_MIN) {
        return THREADS_MIN;
    }
    return threads > THREADS_MAX ? THREADS_MAX : threads;
}

static abb_store_socache_settings_t *compose_settings(const abb_cache_provider_t *shared,
                                                      const abb_crypto_keyring_t *keyring,
                                                      server_rec *s, apr_pool_t *p)
{
    abb_store_socache_settings_t *settings = apr_pcalloc(p, sizeof(*settings));

    settings->name = apr_pstrcat(p, "the session cache ", shared->specification, NULL);
    settings->kind = shared->kind;
    settings->provider = shared->provider;
    settings->instance = shared->instance;
    settings->arguments = shared->arguments;
    settings->server = s;
    settings->lock = lock;
    settings->keyring = shared->keyring.count ? &shared->keyring : keyring;
    settings->longest_expiry = shared->longest_expiry;
    settings->threads = thread_count();
    settings->patience = ABB_STORE_SOCACHE_PATIENCE;
    settings->troubles_max = ABB_STORE_SOCACHE_TROUBLES;
    settings->probe_interval = ABB_STORE_SOCACHE_PROBE_INTERVAL;
    settings->settle = ABB_STORE_SOCACHE_SETTLE;
    settings->tell = tell;
    return settings;
}

int abb_memory_remote_open(server_rec *s, const abb_crypto_keyring_t *keyring,
                           const abb_store_t **store, apr_pool_t *pconf)
{
    abb_cache_settings_t settings = abb_config_cache(s);
    abb_store_near_settings_t near = {settings.near_age, settings.outage_age};
    abb_error_t err;
    apr_status_t status;

    if (!settings.shared) {
        return OK;
    }
    if (open_instance(settings.shared, s, pconf) != OK) {
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    abb_error_clear(&err);
    status = abb_store_socache_create(&cache, compose_settings(settings.shared, keyring, s, pconf),
                                      pconf, &err);
    if (status != APR_SUCCESS) {
        return fail_start(settings.shared, err.text, status);
    }
    if (near.age == 0) {
        *store = abb_store_socache_store(cache);
    }
    else {
        abb_store_near_create(store, *store, abb_store_socache_store(cache), &near, pconf);
    }
    return OK;
}

const char *abb_memory_remote_name(server_rec *s, apr_pool_t *p)
{
    abb_cache_settings_t settings = abb_config_cache(s);

    return settings.shared
               ? apr_pstrcat(p, settings.shared->specification, ", with copies in ", NULL)
               : "";
}

apr_status_t abb_memory_remote_start_child(apr_pool_t *pchild)
{
    apr_status_t status = APR_SUCCESS;

    told_at = 0;
    if (lock) {
        status = apr_global_mutex_child_init(&lock, lock_file, pchild);
    }
    return cache && status == APR_SUCCESS ? abb_store_socache_start(cache, pchild) : status;
}

/* ---- a self-check -------------------------------------------------------- */

/* A key that no cookie has: to hear that nothing is there is an answer. */
static apr_status_t ask_once(const abb_store_t *store, apr_pool_t *p, abb_error_t *err)
{
    abb_store_key_t key;
    abb_store_record_t record;
    apr_status_t status;

    memset(&key, 0, sizeof(key));
    status = abb_store_get(store, &key, ABB_STORE_OPEN_PART, apr_time_now(), &record, p, err);
    return status == APR_NOTFOUND ? APR_SUCCESS : status;
}

apr_status_t abb_memory_probe(server_rec *s, apr_pool_t *p, abb_error_t *err)
{
    const abb_cache_provider_t *shared = abb_config_cache(s).shared;
    abb_store_socache_settings_t *settings;
    abb_store_socache_t *probed;
    apr_status_t status;

    if (!shared || shared->kind == ABB_STORE_SOCACHE_LOCAL) {
        return APR_NOTFOUND;
    }
    if (open_instance(shared, s, p) != OK) {
        return abb_error_set(err, ABB_ESTORE, "its provider does not open it");
    }
    settings = compose_settings(shared, NULL, s, p);
    settings->tell = NULL;
    if ((status = abb_store_socache_create(&probed, settings, p, err)) != APR_SUCCESS ||
        (status = abb_store_socache_start(probed, p)) != APR_SUCCESS) {
        return abb_error_set(err, status, "it cannot be asked");
    }
    return ask_once(abb_store_socache_store(probed), p, err);
}
