/*
 * background (floor 5): re-checks that nobody waits for.
 *
 * A few threads of a child ask Bitbucket about sessions whose answers are due,
 * while requests are served with the answers there are. What does not fit into
 * the queue is left to the next request of the same session. Knows no rule.
 *
 *      request ---- due ----> queue ----> thread: recheck ----> session's record
 *         |                                                          |
 *      served at once                          the next request finds it there
 *
 * When the child ends, jobs under way get a third of a second; then their
 * exchanges are ended.
 */
#ifndef ABB_BACKGROUND_H
#define ABB_BACKGROUND_H

#include <httpd.h>

#include "abb_flow.h"
#include "abb_recheck.h"

typedef struct abb_background_t abb_background_t;

/*
 * Make a child's queue; threads start when they are needed. http is what all its
 * jobs ask with, and is stopped when the child ends. Lifetime: pchild.
 * Errors: those of APR. Threads: once, after the fork.
 */
apr_status_t abb_background_create(abb_background_t **background, abb_http_t *http,
                                   apr_pool_t *pchild);

/*
 * Have a session re-checked, unless that was begun here within the last second,
 * has failed lately, or too much is queued. Everything needed is copied, but for
 * what recheck points to, which must live as long as the child.
 * Threads: any; never waits.
 */
void abb_background_recheck(abb_background_t *background, server_rec *s,
                            const abb_recheck_t *recheck, const abb_session_t *session,
                            const abb_recheck_question_t *question);

/*
 * Tell the log what came of a re-check: that of the request that waited for it, else that of
 * the server. account: its uuid, which the session may not hold any more. Threads: any.
 */
void abb_background_tell(const abb_flow_t *flow, const abb_recheck_t *recheck,
                         const abb_session_t *session, const char *account,
                         const abb_recheck_notes_t *notes, const abb_error_t *err);

#endif
