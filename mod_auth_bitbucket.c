/*
 * mod_auth_bitbucket: sign in with Bitbucket Cloud.
 *
 * Hooks and lifecycle; what is behind each line is in src/, the map of the house
 * in docs/architecture.md.
 *
 * Lifecycle. Each reading of the configuration settles the sites (check_config).
 * The real start opens the store (post_config), which outlives graceful and restart.
 * Each child opens its own connections (child_init).
 */
#include <httpd.h>

#include <ap_mpm.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>
#include <http_protocol.h>
#include <http_request.h>
#include <mod_auth.h>
#include <signal.h>

#include "abb_authn.h"
#include "abb_background.h"
#include "abb_config.h"
#include "abb_credential.h"
#include "abb_endpoints.h"
#include "abb_interface.h"
#include "abb_log.h"
#include "abb_manager.h"
#include "abb_memory.h"
#include "abb_reply.h"
#include "abb_rules.h"
#include "abb_selfcheck.h"
#include "abb_status.h"
#include "abb_ticket.h"
#include "abb_visit.h"

module AP_MODULE_DECLARE_DATA auth_bitbucket_module;
APLOG_USE_MODULE(auth_bitbucket);

/* ---- start of the server ------------------------------------------------- */

static int is_child;

/*
 * Before the code is unloaded, at a restart. A child that ends comes here too, from
 * exit(), but threads of its own that are stuck in a call may still need what is freed.
 */
static apr_status_t release(void *unused)
{
    if (!is_child) {
        abb_crypto_release();
    }
    return APR_SUCCESS;
}

static int prepare(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp)
{
    abb_error_t err;

    abb_error_clear(&err);
    if (abb_crypto_init(&err) != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_EMERG | APLOG_STARTUP, 0, NULL,
                     ABB_LOGNO(0014) "%s: install OpenSSL 3.0 or later", err.text);
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    apr_pool_cleanup_register(pconf, NULL, release, apr_pool_cleanup_null);
    return abb_memory_register(pconf) == APR_SUCCESS ? OK : HTTP_INTERNAL_SERVER_ERROR;
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

static int open_store(apr_pool_t *pconf, apr_pool_t *plog, apr_pool_t *ptemp, server_rec *s)
{
    return ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_CREATE_PRE_CONFIG || !has_sites(s)
               ? OK
               : abb_memory_open(s, pconf);
}

/* ---- start of a child ---------------------------------------------------- */

/* What a child's sites share. */
typedef struct {
    abb_http_t *http;
    abb_session_names_t *names;
    abb_background_t *background;
    int processes;
    int threads;
} shared_t;

/* Credentials have names of each site's own; who tries them has one name for all sites. */
static apr_status_t derive_keys(abb_site_t *site)
{
    const abb_crypto_keyring_t *ring = site->sessions.keyring;
    apr_status_t status = abb_credential_derive_key(ring, "", &site->throttle_key, NULL);

    return status == APR_SUCCESS ? abb_credential_derive_key(ring, site->sessions.audience,
                                                             &site->credential_key, NULL)
                                 : status;
}

/* Keys derived for tickets, and for handovers at a hub and at a site that has one. */
static apr_status_t create_sealers(abb_site_t *site, apr_pool_t *pchild)
{
    const abb_crypto_keyring_t *ring = site->sessions.keyring;
    const char *audience = site->sessions.audience;
    apr_status_t status = abb_ticket_create_sealer(&site->tickets, ring, audience, pchild, NULL);

    if (status == APR_SUCCESS && site->served) {
        status = abb_hub_create_sealers(site->served, ring, pchild, NULL);
    }
    if (status == APR_SUCCESS && site->mark) {
        status = abb_hub_create_sealer(&site->handovers, ring, audience, pchild, NULL);
    }
    return status;
}

/* What each child has of its own at a site: connections, names, derived keys. */
static apr_status_t start_site(abb_site_t *site, const shared_t *shared, apr_pool_t *pchild)
{
    site->bitbucket.http = shared->http;
    site->sessions.names = shared->names;
    site->background = shared->background;
    site->gate_limits = abb_gate_limits(site->max_logins, shared->processes, shared->threads);
    return derive_keys(site) == APR_SUCCESS ? create_sealers(site, pchild) : ABB_ECRYPTO;
}

static apr_status_t start_sites(server_rec *s, const shared_t *shared, apr_pool_t *pchild)
{
    apr_status_t status = APR_SUCCESS;

    for (; s && status == APR_SUCCESS; s = s->next) {
        if (abb_config_site(s)) {
            status = start_site(abb_config_site(s), shared, pchild);
        }
    }
    return status;
}

static apr_status_t start_shared(shared_t *shared, apr_pool_t *pchild)
{
    apr_status_t status;

    /* prefork's children say 0: their only thread serves. */
    ap_mpm_query(AP_MPMQ_MAX_DAEMONS, &shared->processes);
    ap_mpm_query(AP_MPMQ_MAX_THREADS, &shared->threads);
    shared->names = abb_session_names_create(shared->threads, pchild);
    if ((status = abb_memory_start_child(pchild)) != APR_SUCCESS ||
        (status = abb_http_create(&shared->http, pchild)) != APR_SUCCESS) {
        return status;
    }
    return abb_background_create(&shared->background, shared->http, pchild);
}

/*
 * prefork ends a child from its signal handler, also one that begins just now. A
 * signal waits until what is made here is whole, so that its end finds it whole.
 */
static void start_child(apr_pool_t *pchild, server_rec *s)
{
    shared_t shared = {NULL, NULL, NULL, 1, 1};
    apr_status_t status;
    sigset_t before;
    sigset_t all;

    is_child = 1;
    if (!has_sites(s)) {
        return;
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    abb_reply_init();
    status = start_shared(&shared, pchild);
    if (status == APR_SUCCESS) {
        status = start_sites(s, &shared, pchild);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (status != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_EMERG, status, s,
                     ABB_LOGNO(0013) "a child cannot start: no lock, no libcurl or no libcrypto");
        exit(APEXIT_CHILDSICK);
    }
}

/* ---- hooks --------------------------------------------------------------- */

static void register_hooks(apr_pool_t *p)
{
    /* Caches read headers as they are when they save them; we come before. */
    static const char *const before_us[] = {"mod_headers.c", "mod_expires.c", NULL};

    ap_hook_pre_config(prepare, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_check_config(check_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_test_config(abb_selfcheck_run, NULL, NULL, APR_HOOK_MIDDLE);
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
    ap_hook_fixups(abb_authn_fixups_last, NULL, NULL, APR_HOOK_REALLY_LAST);
    ap_hook_insert_filter(abb_authn_insert_filter, before_us, NULL, APR_HOOK_LAST);
    ap_hook_insert_error_filter(abb_authn_insert_filter, before_us, NULL, APR_HOOK_LAST);
    ap_hook_insert_filter(abb_visit_watch_trailers, NULL, NULL, APR_HOOK_LAST);
    abb_authn_register_filter();
    abb_visit_register_filter();

    ap_hook_handler(abb_status_handle, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_handler(abb_manager_handle, NULL, NULL, APR_HOOK_MIDDLE);
    abb_status_register(p);
    abb_rules_register(p);
    abb_interface_register();
}

module AP_MODULE_DECLARE_DATA auth_bitbucket_module = {
    STANDARD20_MODULE_STUFF,  abb_config_create_directory, abb_config_merge_directory,
    abb_config_create_server, abb_config_merge_server,     abb_config_commands,
    register_hooks,
#ifdef AP_MODULE_HAS_FLAGS
    /* A virtual host without a line of ours has settings of its own too: each is a site. */
    AP_MODULE_FLAG_ALWAYS_MERGE,
#endif
};
