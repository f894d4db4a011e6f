/*
 * rules (floor 7): the Require lines of this module, as httpd's authorization
 * providers.
 *
 * A line is compiled when it is read. Where it holds expressions (%{...}), each
 * argument is evaluated for the request and stays one argument, whatever it comes
 * to. One that fails or comes to nothing lets nobody in, also under `not`. Knows
 * how httpd asks; what a line means is in authz.
 */
#ifndef ABB_RULES_H
#define ABB_RULES_H

#include <httpd.h>

/*
 * Make `Require bitbucket-workspace`, `-repository`, `-user` and `-email` known to
 * httpd. Threads: start-up only.
 */
void abb_rules_register(apr_pool_t *p);

#endif
