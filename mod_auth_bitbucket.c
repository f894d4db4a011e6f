/*
 * mod_auth_bitbucket: sign in with Bitbucket Cloud.
 *
 * Hooks and lifecycle; what is behind each line is in src/, the map of the house
 * in docs/architecture.md.
 *
 * Lifecycle. Each reading of the configuration settles the sites (check_config).
 * The real start opens the store (post_config): its memory, lock and key live as
 * long as the server process, so that sessions outlive graceful and restart.
 * Each child opens its own connections (child_init).
 */
#include <httpd.h>

#include <apr_shm.h>
#include <apr_strings.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>
#include <http_protocol.h>
#include <http_request.h>
#include <mod_auth.h>
#include <util_mutex.h>

#include "abb_authn.h"
#include "abb_config.h"
#include "abb_endpoints.h"
#include "abb_log.h"
#include "abb_reply.h"
#include "abb_store_shm.h"

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

module AP_MODULE_DECLARE_DATA auth_bitbucket_module;
APLOG_USE_MODULE(auth_bitbucket);

/* ---- start of the server ------------------------------------------------- */

static int fail_start(const char *what, apr_status_t status, const char *remedy)
{
    ap_log_error(APLOG_MARK, APLOG_EMERG | APLOG_STARTUP, status, NULL, ABB_LOGNO(0010) "%s: %s",
                 what, remedy);
    return HTTP_INTERNAL_SERVER_ERROR;
}

static int prepare(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp)
{
    apr_int32_t mechanism = APR_LOCK_DEFAULT;
    abb_error_t err;

#if APR_HAS_PROC_PTHREAD_SERIALIZE
    /* Survives the death of its holder, and does not collapse under contention. */
    mechanism = APR_LOCK_PROC_PTHREAD;
#endif
    abb_error_clear(&err);
    if (abb_crypto_init(&err) != APR_SUCCESS) {
        return fail_start(err.text, 0, "install OpenSSL 3.0 or later");
    }
    return ap_mutex_register(pconf, MUTEX_TYPE, NULL, (apr_lockmech_e)mechanism, 0) == APR_SUCCESS
               ? OK
               : HTTP_INTERNAL_SERVER_ERROR;
}

static int check_config(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s)
{
    return abb_config_settle(pconf, ptemp, s);
}

static int has_sites(server_rec *s)
{
    for (; s; s = s->next) {
        if (abb_config_site(s)) {
            return 1;
        }
    }
    return 0;
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
    apr_size_t size = abb_config_store_size(s);

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

static int open_store(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s)
{
    const abb_store_t *store;
    int status;

    if (ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_CREATE_PRE_CONFIG || !has_sites(s)) {
        return OK;
    }
    retained = find_retained();
    if ((status = open_lock(s)) != OK || (status = open_segment(s)) != OK ||
        (status = open_key()) != OK) {
        return status;
    }
    if (abb_store_shm_open(&store, apr_shm_baseaddr_get(retained->segment),
                           apr_shm_size_get(retained->segment), retained->lock,
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

/* ---- start of a child ---------------------------------------------------- */

static void start_child(apr_pool_t *pchild, server_rec *s)
{
    abb_http_t *http = NULL;
    apr_status_t status;

    if (!has_sites(s)) {
        return;
    }
    abb_reply_init();
    status = apr_global_mutex_child_init(&retained->lock, retained->lock_file, pchild);
    if (status == APR_SUCCESS) {
        status = abb_http_create(&http, pchild);
    }
    if (status != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_EMERG, status, s,
                     ABB_LOGNO(0013) "a child cannot start: no lock or no libcurl");
        exit(APEXIT_CHILDSICK);
    }
    for (; s; s = s->next) {
        if (abb_config_site(s)) {
            abb_config_site(s)->bitbucket.http = http;
        }
    }
}

/* ---- hooks --------------------------------------------------------------- */

static void register_hooks(apr_pool_t *p)
{
    /* Caches read headers as they are when they save them; we come before. */
    static const char *const before_us[] = {"mod_headers.c", "mod_expires.c", NULL};

    ap_hook_pre_config(prepare, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_check_config(check_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_post_config(open_store, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_init(start_child, NULL, NULL, APR_HOOK_MIDDLE);

    ap_hook_post_read_request(abb_authn_begin, NULL, NULL, APR_HOOK_REALLY_FIRST);
    /* Before mod_cache's, so that nobody is answered a callback from a cache. */
    ap_hook_quick_handler(abb_endpoints_handle, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_check_authn(abb_authn_check, NULL, NULL, APR_HOOK_MIDDLE, AP_AUTH_INTERNAL_PER_CONF);
    /* Around mod_authz_core's, which comes last. */
    ap_hook_check_authz(abb_authn_check_access, NULL, NULL, APR_HOOK_FIRST,
                        AP_AUTH_INTERNAL_PER_CONF);
    ap_hook_fixups(abb_authn_fixups, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_insert_filter(abb_authn_insert_filter, before_us, NULL, APR_HOOK_LAST);
    ap_hook_insert_error_filter(abb_authn_insert_filter, before_us, NULL, APR_HOOK_LAST);
    ap_register_output_filter(ABB_AUTHN_PRIVATE_FILTER, abb_authn_private_filter, NULL,
                              AP_FTYPE_CONTENT_SET);

    ap_register_auth_provider(p, AUTHZ_PROVIDER_GROUP, "bitbucket-workspace",
                              AUTHZ_PROVIDER_VERSION, &abb_authn_workspace_provider,
                              AP_AUTH_INTERNAL_PER_CONF);
    ap_register_auth_provider(p, AUTHZ_PROVIDER_GROUP, "bitbucket-user", AUTHZ_PROVIDER_VERSION,
                              &abb_authn_user_provider, AP_AUTH_INTERNAL_PER_CONF);
}

module AP_MODULE_DECLARE_DATA auth_bitbucket_module = {
    STANDARD20_MODULE_STUFF,  abb_config_create_directory, abb_config_merge_directory,
    abb_config_create_server, abb_config_merge_server,     abb_config_commands,
    register_hooks,
#ifdef AP_MODULE_HAS_FLAGS
    AP_MODULE_FLAG_NONE,
#endif
};
