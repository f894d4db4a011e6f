/*
 * selfcheck (floor 6): what the configuration comes to, for people.
 *
 * `httpd -t -D DUMP_BITBUCKET` prints what each site is, where its settings come
 * from, and what should be looked at. Nothing secret is printed; nothing is asked
 * of the network.
 */
#ifndef ABB_SELFCHECK_H
#define ABB_SELFCHECK_H

#include <httpd.h>

/*
 * httpd's hook test_config, run when the configuration of `httpd -t` is settled.
 * p is for temporary memory. Threads: start-up only.
 */
void abb_selfcheck_run(apr_pool_t *p, server_rec *servers);

#endif
