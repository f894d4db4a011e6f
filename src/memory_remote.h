/*
 * The inside of the memory room: a cache that several machines share, and this
 * machine's table in front of it.
 */
#ifndef MEMORY_REMOTE_H
#define MEMORY_REMOTE_H

#include <httpd.h>

#include "abb_crypto.h"
#include "abb_store.h"

/* Make the lock of providers that need one known to httpd's Mutex directive. Errors: of APR. */
apr_status_t abb_memory_remote_register(apr_pool_t *pconf, apr_int32_t mechanism);

/*
 * When AuthBitbucketSessionCache names a provider, put its store in place of the
 * machine's own in *store, which then keeps copies. `keyring` seals when no key
 * is configured. Faults are logged. Returns OK or HTTP_INTERNAL_SERVER_ERROR.
 * Threads: start-up only, in the parent.
 */
int abb_memory_remote_open(server_rec *main_server, const abb_crypto_keyring_t *keyring,
                           const abb_store_t **store, apr_pool_t *pconf);

/*
 * Where sessions are, for the log line of the start: "redis:127.0.0.1:6379, with copies in ", or ""
 * when they are in this machine's memory alone. Lifetime: p.
 */
const char *abb_memory_remote_name(server_rec *main_server, apr_pool_t *p);

/* Make it usable in a child. Errors: those of APR. Threads: before the child serves. */
apr_status_t abb_memory_remote_start_child(apr_pool_t *pchild);

#endif
