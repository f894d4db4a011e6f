/*
 * memory (floor 5): what outlives a restart of the server: the sessions, the
 * lock between its processes, and the server's own keys. Sessions are in memory
 * or in a file, which outlasts the server too.
 *
 * Old children still serve while new ones start, so both generations of the
 * configuration must use the same three. They belong to the server process; each
 * generation opens them anew, since the module itself is unloaded in between.
 */
#ifndef ABB_MEMORY_H
#define ABB_MEMORY_H

#include <httpd.h>

#include "abb_error.h"

/* Make the lock known to httpd's Mutex directive. Errors: those of APR. */
apr_status_t abb_memory_register(apr_pool_t *pconf);

/*
 * Find or make the store, and give it with the keys to every site. When the
 * settings have changed, what the old place holds moves to the new one. Faults
 * are logged with what to do; one that a reload brings is no reason to end. Returns OK or HTTP_INTERNAL_SERVER_ERROR.
 * Threads: start-up only, in the parent, after the configuration is settled.
 */
int abb_memory_open(server_rec *main_server, apr_pool_t *pconf);

/*
 * Make the store usable in a child. Errors: those of APR.
 * Threads: before the child serves.
 */
apr_status_t abb_memory_start_child(apr_pool_t *pchild);

/*
 * Whether the session cache that machines share answers, for a self-check: asks it
 * once, and waits no longer than a request would. Lifetime of what is opened: p.
 * Errors: APR_NOTFOUND no cache is shared; ABB_ESTORE it does not answer; those of
 * opening it.
 * Threads: in a process that serves nobody, instead of abb_memory_open.
 */
apr_status_t abb_memory_probe(server_rec *main_server, apr_pool_t *p, abb_error_t *err);

#endif
