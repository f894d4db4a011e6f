/*
 * secret (floor 2): where a secret of the configuration comes from.
 *
 * Reads `value`, `file:PATH`, `env:NAME` and `exec:PATH [args]`. Knows no
 * directive; the caller says which one in its message. Nothing here is logged.
 */
#ifndef ABB_SECRET_H
#define ABB_SECRET_H

#include <apr_pools.h>

#include "abb_error.h"

/* Longest secret accepted, in bytes. */
#define ABB_SECRET_MAX 4096

/*
 * Read the secret a specification names. For a file, the first line; for a
 * program, the first line it prints (it is run without a shell, in `root`, with
 * the server's environment, and has ten seconds). Relative paths start at
 * `root`. Lifetime: p.
 * Errors: ABB_EINPUT with a sentence that names the source, never the secret:
 * nothing there, empty, longer than ABB_SECRET_MAX, control characters, the
 * program failed.
 * Threads: start-up only (starts a process).
 */
apr_status_t abb_secret_read(const char *specification, const char *root, const char **secret,
                             apr_pool_t *p, abb_error_t *err);

/*
 * Where a specification takes the secret from, for people ("file conf/secret",
 * "environment variable X", "program bin/secret", "the value in the configuration");
 * never the secret. Lifetime: p.
 */
const char *abb_secret_source(const char *specification, apr_pool_t *p);

#endif
