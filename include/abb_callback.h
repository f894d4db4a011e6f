/*
 * callback (floor 7): the way back from Bitbucket.
 *
 * Finishes a sign-in and heals those that cannot be finished: stale, repeated,
 * without a cookie. Knows no rule.
 */
#ifndef ABB_CALLBACK_H
#define ABB_CALLBACK_H

#include "abb_visit.h"

/*
 * Answer a request for the site's callback. Its query is taken out of the request,
 * since a code is a credential. Returns the status to return from the hook.
 * Threads: waits for Bitbucket, with a place among those who may.
 */
int abb_callback_handle(abb_visit_t *visit, request_rec *r);

#endif
