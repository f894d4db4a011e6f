/*
 * store_socache (floor 2): the store contract on any provider of httpd's small
 * object caches: Redis, memcached, shmcb and others.
 *
 * A provider is known only as httpd's struct of functions (ap_socache.h); none of
 * httpd is linked or called. Records leave the process sealed whole, under the
 * session key and bound to their place, so a copy of the cache opens nothing and
 * nothing can be put in another's place.
 *
 * What a cache cannot do: compare and replace, or take a lease, in one step. So
 * put, replace and lease are exact as long as nobody else writes the same record
 * within `settle`; and a cache may forget whatever it likes, which is a miss.
 */
#ifndef ABB_STORE_SOCACHE_H
#define ABB_STORE_SOCACHE_H

#include <apr_global_mutex.h>

#include "abb_crypto.h"
#include "abb_store.h"

struct ap_socache_provider_t;
struct ap_socache_instance_t;
struct server_rec;

/* Under which name a provider's instance is to be initialized: 14 characters at most. */
#define ABB_STORE_SOCACHE_NAME "bitbucket-sess"

/* What is usual; see the members of the settings. */
#define ABB_STORE_SOCACHE_PATIENCE apr_time_from_msec(250)
#define ABB_STORE_SOCACHE_TROUBLES 3
#define ABB_STORE_SOCACHE_PROBE_INTERVAL apr_time_from_sec(1)
#define ABB_STORE_SOCACHE_SETTLE apr_time_from_msec(20)

/* How a provider works. */
typedef enum {
    /* In this machine's memory or files: its functions return soon. */
    ABB_STORE_SOCACHE_LOCAL,
    /* It asks other machines, for as long as it may take. */
    ABB_STORE_SOCACHE_REMOTE,
    /*
     * The same, and an instance is no more than connections: one that had
     * trouble is thrown away and another made, in the running process.
     */
    ABB_STORE_SOCACHE_RENEWABLE
} abb_store_socache_kind_t;

typedef struct abb_store_socache_settings_t {
    /* The cache as the subject of a sentence, for errors. */
    const char *name;
    abb_store_socache_kind_t kind;
    const struct ap_socache_provider_t *provider;
    /* Created and initialized; not needed when RENEWABLE. */
    struct ap_socache_instance_t *instance;
    /* RENEWABLE: what the provider's create takes. */
    const char *arguments;
    /* Handed to the provider, which logs with it. */
    struct server_rec *server;
    /* Taken around each call when the provider needs that, else NULL. */
    apr_global_mutex_t *lock;
    /* The first seals, all open. */
    const abb_crypto_keyring_t *keyring;
    /* The provider takes no expiry further ahead than this; 0: any. */
    apr_interval_time_t longest_expiry;
    /* LOCAL needs none of the following. Threads of each process, at least 1. */
    int threads;
    /* How long a request waits. */
    apr_interval_time_t patience;
    /* After so many troubles in a row the cache is not asked for a while. */
    int troubles_max;
    /* How often it is then tried again. */
    apr_interval_time_t probe_interval;
    /*
     * How long it takes until who wrote at the same time has written; 0: nobody does.
     * Who finds that it took longer gets no lease, and nobody else for half a second.
     */
    apr_interval_time_t settle;
    /* Told that the cache is not asked any more, or again. May be NULL. Any thread. */
    void (*tell)(const struct abb_store_socache_settings_t *settings, int is_answering);
} abb_store_socache_settings_t;

typedef struct abb_store_socache_t abb_store_socache_t;

/*
 * Make a store on a provider. Settings are borrowed. Lifetime: p, which must
 * live as long as the process: a call that is stuck still uses it.
 * Errors: ABB_ECRYPTO no random bytes; those of pthreads.
 * Threads: start-up.
 */
apr_status_t abb_store_socache_create(abb_store_socache_t **cache,
                                      const abb_store_socache_settings_t *settings, apr_pool_t *p,
                                      abb_error_t *err);

/*
 * Make it usable in this process; until then all but LOCAL answer ABB_ESTORE.
 * Lifetime: p; then calls that no thread has begun end with ABB_ESTORE, as
 * abb_offload_create says.
 * Errors: those of abb_offload_create.
 * Threads: after the fork, before the child serves.
 */
apr_status_t abb_store_socache_start(abb_store_socache_t *cache, apr_pool_t *p);

/*
 * The store. As the contract says, and:
 * - touch does not wait but for LOCAL: it is done some time later, and
 *   APR_SUCCESS says nothing about whether the record is there.
 * - A record that does not open, of another key or damaged, is APR_NOTFOUND.
 * - ABB_ESTORE comes after `patience` at the latest; what was to be written may
 *   be written nevertheless; a lease is given back then. A second try (RENEWABLE)
 *   takes it for what it is.
 * - No figure is known.
 */
const abb_store_t *abb_store_socache_store(abb_store_socache_t *cache);

#endif
