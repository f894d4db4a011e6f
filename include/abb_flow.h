/*
 * flow (floor 4): what the log hears of one visitor.
 *
 * Calls to Bitbucket and what came of them, and a session's end. Lines go to the log of
 * the request, so that LogLevel of its place or of an <If> holds; where nobody waits there
 * is none, and they go to that of the server. Knows no rule and no visit. Threads: any; a
 * request's by the thread that serves it.
 */
#ifndef ABB_FLOW_H
#define ABB_FLOW_H

#include <httpd.h>

#include "abb_bitbucket.h"
#include "abb_session.h"

/* Whose log: the request's; the server's when r is NULL. */
typedef struct abb_flow_t {
    request_rec *r;
    server_rec *s;
} abb_flow_t;

/*
 * The same Bitbucket, but each call is told at debug where that is written; else it is
 * `bitbucket` itself. Addresses are told without their queries, and neither headers nor
 * bodies. Lifetime: p, and what flow points to must live as long.
 */
const abb_bitbucket_t *abb_flow_watch(const abb_flow_t *flow, const abb_bitbucket_t *bitbucket,
                                      apr_pool_t *p);

/* At debug: what came of a re-check. outcome: a sentence for the log, or "answered". */
void abb_flow_recheck(const abb_flow_t *flow, const abb_session_t *session, int has_asked,
                      const char *outcome);

/* At info: a session has ended that nobody signed out of. why: a sentence for the log. */
void abb_flow_end(const abb_flow_t *flow, const abb_session_t *session, const char *account,
                  const char *why);

#endif
