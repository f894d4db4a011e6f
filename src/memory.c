/* memory (floor 5): what outlives a restart of the server. See abb_memory.h. */
#include "abb_memory.h"

#include <apr_shm.h>
#include <http_core.h>
#include <http_log.h>
#include <http_main.h>
#include <string.h>
#include <util_mutex.h>

#include "abb_config.h"
#include "abb_log.h"
#include "abb_store_shm.h"

APLOG_USE_MODULE(auth_bitbucket);

#define RETAINED_KEY "mod_auth_bitbucket:1"
#define MUTEX_TYPE "auth-bitbucket-sessions"

/* What outlives a restart. No pointer into this module: it is unloaded in between. */
typedef struct {
    apr_shm_t *segment;
    apr_global_mutex_t *lock;
    const char *lock_file;
    abb_crypto_keyring_t keyring;
} retained_t;

static retained_t *retained;

static int fail_start(const char *what, apr_status_t status, const char *remedy)
{
    ap_log_error(APLOG_MARK, APLOG_EMERG | APLOG_STARTUP, status, NULL, ABB_LOGNO(0010) "%s: %s",
                 what, remedy);
    return HTTP_INTERNAL_SERVER_ERROR;
}

apr_status_t abb_memory_register(apr_pool_t *pconf)
{
    apr_int32_t mechanism = APR_LOCK_DEFAULT;

#if APR_HAS_PROC_PTHREAD_SERIALIZE
    /* Survives the death of its holder, and does not collapse under contention. */
    mechanism = APR_LOCK_PROC_PTHREAD;
#endif
    return ap_mutex_register(pconf, MUTEX_TYPE, NULL, (apr_lockmech_e)mechanism, 0);
}

static retained_t *find_retained(void)
{
    void *data = ap_retained_data_get(RETAINED_KEY);

    return data ? data : ap_retained_data_create(RETAINED_KEY, sizeof(retained_t));
}

static int open_lock(server_rec *s)
{
    apr_status_t status;

    if (retained->lock) {
        return OK;
    }
    status = ap_global_mutex_create(&retained->lock, &retained->lock_file, MUTEX_TYPE, NULL, s,
                                    s->process->pool, 0);
    return status == APR_SUCCESS ? OK
                                 : fail_start("the lock of the session store cannot be made",
                                              status, "see the Mutex directive for " MUTEX_TYPE);
}

static int make_segment(server_rec *s, apr_size_t size)
{
    apr_uint64_t seed;
    apr_status_t status;

    if (retained->segment) {
        ap_log_error(APLOG_MARK, APLOG_NOTICE, 0, s,
                     ABB_LOGNO(0011) "the size of AuthBitbucketSessionCache changed: sessions "
                                     "start anew");
        apr_shm_destroy(retained->segment);
        retained->segment = NULL;
    }
    status = apr_shm_create(&retained->segment, size, NULL, s->process->pool);
    if (status != APR_SUCCESS) {
        retained->segment = NULL;
        return fail_start("shared memory for sessions cannot be had", status,
                          "write a smaller size with AuthBitbucketSessionCache shm(SIZE)");
    }
    if (abb_crypto_random(&seed, sizeof(seed), NULL) != APR_SUCCESS ||
        abb_store_shm_format(apr_shm_baseaddr_get(retained->segment), size, seed) != APR_SUCCESS) {
        return fail_start("the session store cannot be laid out", 0,
                          "write another size with AuthBitbucketSessionCache shm(SIZE)");
    }
    return OK;
}

static int open_segment(server_rec *s)
{
    apr_size_t size = abb_config_cache(s).size;

    if (retained->segment && apr_shm_size_get(retained->segment) == size &&
        abb_store_shm_is_formatted(apr_shm_baseaddr_get(retained->segment), size)) {
        return OK;
    }
    return make_segment(s, size);
}

static int open_key(void)
{
    abb_error_t err;

    abb_error_clear(&err);
    if (retained->keyring.count == 0) {
        if (abb_crypto_random(retained->keyring.keys[0].bytes, ABB_CRYPTO_KEY_SIZE, &err) !=
            APR_SUCCESS) {
            return fail_start("no session key can be made", 0, err.text);
        }
        retained->keyring.count = 1;
    }
    return OK;
}

/* A site's own keys, or else the server's. */
static void give_store(server_rec *s, const abb_store_t *store)
{
    for (; s; s = s->next) {
        abb_site_t *site = abb_config_site(s);

        if (site) {
            if (site->keyring.count == 0) {
                site->keyring = retained->keyring;
            }
            site->sessions.keyring = &site->keyring;
            site->sessions.store = store;
        }
    }
}

int abb_memory_open(server_rec *s, apr_pool_t *pconf)
{
    abb_store_shm_proof_key_t proof_key;
    const abb_store_t *store;
    int status;

    retained = find_retained();
    if ((status = open_lock(s)) != OK || (status = open_segment(s)) != OK ||
        (status = open_key()) != OK) {
        return status;
    }
    memcpy(proof_key.bytes, retained->keyring.keys[0].bytes, sizeof(proof_key.bytes));
    if (abb_store_shm_open(&store, apr_shm_baseaddr_get(retained->segment),
                           apr_shm_size_get(retained->segment), retained->lock, &proof_key,
                           pconf) != APR_SUCCESS) {
        return fail_start("the session store cannot be opened", 0, "restart httpd");
    }
    give_store(s, store);
    ap_log_error(APLOG_MARK, APLOG_INFO, 0, s,
                 ABB_LOGNO(0012) "mod_auth_bitbucket " ABB_VERSION
                                 " ready; sessions in %" APR_SIZE_T_FMT " bytes of shared memory",
                 apr_shm_size_get(retained->segment));
    return OK;
}

apr_status_t abb_memory_start_child(apr_pool_t *pchild)
{
    return apr_global_mutex_child_init(&retained->lock, retained->lock_file, pchild);
}
