/*
 * selfcheck (floor 6): what the configuration comes to, for people.
 *
 * `httpd -t -D DUMP_BITBUCKET` prints what each site is, where its settings come
 * from, and what should be looked at. `-D CHECK_BITBUCKET` asks Bitbucket and the
 * session cache whether they can be worked with; `-D VERIFY_BITBUCKET` reads the file of
 * sessions and asks nobody. Nothing secret is printed.
 */
#ifndef ABB_SELFCHECK_H
#define ABB_SELFCHECK_H

#include <httpd.h>

/*
 * httpd's hook test_config, run when the configuration of `httpd -t` is settled.
 * Lifetime of what it opens: p. When a check failed it ends the process with
 * status 1. Threads: start-up only.
 */
void abb_selfcheck_run(apr_pool_t *p, server_rec *servers);

#endif
