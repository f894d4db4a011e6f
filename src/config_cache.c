/* config (floor 4): session caches that are providers of httpd's. See config_internal.h. */
#include <ap_provider.h>
#include <ap_socache.h>
#include <apr_strings.h>
#include <http_log.h>
#include <http_main.h>

#include "abb_log.h"
#include "config_internal.h"

APLOG_USE_MODULE(auth_bitbucket);

/* What memcached takes for a time on the calendar begins at 30 days. */
#define MEMCACHE_EXPIRY_MAX (apr_time_from_sec(30 * 86400) - apr_time_from_sec(60))

/* ---- the directive ------------------------------------------------------- */

typedef struct {
    const char *name;
    abb_store_socache_kind_t kind;
    apr_interval_time_t longest_expiry;
} known_t;

/* Of providers that are not here nothing is known, so they may hang and are not made anew. */
static const known_t known_providers[] = {
    {"redis", ABB_STORE_SOCACHE_RENEWABLE, 0},
    {"memcache", ABB_STORE_SOCACHE_RENEWABLE, MEMCACHE_EXPIRY_MAX},
    {"shmcb", ABB_STORE_SOCACHE_LOCAL, 0},
    {"dbm", ABB_STORE_SOCACHE_LOCAL, 0},
};

static known_t find_known(const char *name)
{
    known_t unknown = {name, ABB_STORE_SOCACHE_REMOTE, 0};

    for (apr_size_t i = 0; i < sizeof(known_providers) / sizeof(known_providers[0]); ++i) {
        if (strcmp(known_providers[i].name, name) == 0) {
            return known_providers[i];
        }
    }
    return unknown;
}

static const char *loaded_providers(apr_pool_t *p)
{
    const apr_array_header_t *names =
        ap_list_provider_names(p, AP_SOCACHE_PROVIDER_GROUP, AP_SOCACHE_PROVIDER_VERSION);
    const char *list = "";

    for (int i = 0; i < names->nelts; ++i) {
        const char *name = APR_ARRAY_IDX(names, i, ap_list_provider_names_t).provider_name;

        if (strcmp(name, AP_SOCACHE_DEFAULT_PROVIDER) != 0) {
            list = apr_pstrcat(p, list, *list ? ", " : "", name, NULL);
        }
    }
    return *list ? list : "none";
}

static const char *unknown_provider(const char *name, apr_pool_t *p)
{
    return apr_psprintf(p,
                        "is no session cache: write shm, shm(SIZE), shm:FILE or shm:FILE(SIZE), "
                        "or NAME:ARGUMENTS with the name of a socache provider; loaded are: %s; "
                        "for %s load mod_socache_%s in a line before this one",
                        loaded_providers(p), name, name);
}

const char *abb_config_set_cache_provider(server_config_t *conf, const char *value, apr_pool_t *p,
                                          apr_pool_t *temporary)
{
    abb_cache_provider_t *cache = apr_pcalloc(p, sizeof(*cache));
    const char *colon = strchr(value, ':');
    const char *name =
        colon ? apr_pstrmemdup(temporary, value, (apr_size_t)(colon - value)) : value;
    const char *why;
    known_t known;

    cache->specification = value;
    cache->arguments = colon && colon[1] ? colon + 1 : NULL;
    cache->provider =
        ap_lookup_provider(AP_SOCACHE_PROVIDER_GROUP, name, AP_SOCACHE_PROVIDER_VERSION);
    if (!cache->provider) {
        return unknown_provider(name, temporary);
    }
    why = cache->provider->create(&cache->instance, cache->arguments, temporary, p);
    if (why) {
        return apr_psprintf(temporary, "is refused by the provider %s: %s", name, why);
    }
    known = find_known(cache->provider->name);
    cache->kind = known.kind;
    cache->longest_expiry = known.longest_expiry;
    conf->cache_provider = cache;
    conf->cache.shared = cache;
    conf->cache.size = ABB_CONFIG_STORE_SIZE;
    conf->cache.file = NULL;
    return NULL;
}

/* ---- its keys ------------------------------------------------------------ */

/* A site that inherits the main server's keys has read and stretched them already. */
static const abb_crypto_keyring_t *find_keyring(server_rec *servers, const apr_array_header_t *keys)
{
    for (server_rec *s = servers; s; s = s->next) {
        const server_config_t *conf = abb_config_of(s);

        if (conf->site && conf->session_keys == keys) {
            return &conf->site->keyring;
        }
    }
    return NULL;
}

int abb_config_settle_cache(server_rec *servers, apr_pool_t *temporary)
{
    server_config_t *conf = abb_config_of(servers);
    abb_cache_provider_t *cache = conf->cache_provider;
    const abb_crypto_keyring_t *ring;
    abb_error_t err;

    if (!conf->cache.shared || (!conf->session_keys && cache->kind == ABB_STORE_SOCACHE_LOCAL)) {
        return OK;
    }
    if (!conf->session_keys) {
        ap_log_error(
            APLOG_MARK, APLOG_EMERG | APLOG_STARTUP, 0, NULL,
            ABB_LOGNO(0031) "AuthBitbucketSessionCache: sessions in %s need a key that all "
                            "machines share: write AuthBitbucketSessionKey file:PATH "
                            "outside of all virtual hosts, with the same key on each",
            cache->specification);
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    ring = find_keyring(servers, conf->session_keys);
    if (ring) {
        cache->keyring = *ring;
        return OK;
    }
    abb_error_clear(&err);
    if (abb_config_read_keys(conf->session_keys, &cache->keyring, temporary, &err) != APR_SUCCESS) {
        ap_log_error(APLOG_MARK, APLOG_EMERG | APLOG_STARTUP, 0, NULL,
                     ABB_LOGNO(0030) "AuthBitbucketSessionKey: %s", err.text);
        return HTTP_INTERNAL_SERVER_ERROR;
    }
    return OK;
}
