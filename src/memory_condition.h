/*
 * The part of the memory room that keeps what all processes know of Bitbucket's
 * condition, and the places of those who wait for it. It outlives a restart, so
 * that old and new children count together.
 */
#ifndef ABB_MEMORY_CONDITION_H
#define ABB_MEMORY_CONDITION_H

#include <httpd.h>

/*
 * Give each site its part. Returns 0 when there is no shared memory. Threads:
 * start-up only, in the parent.
 */
int abb_memory_condition_open(server_rec *main_server, apr_pool_t *pconf);

#endif
