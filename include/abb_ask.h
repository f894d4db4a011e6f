/*
 * ask (floor 6): asking Bitbucket while the visitor waits.
 *
 * For the decisions that cannot be made with what is known. Who waits has a place
 * among those who may, or follows another who asks for the same session. Knows no
 * rule.
 */
#ifndef ABB_ASK_H
#define ABB_ASK_H

#include "abb_visit.h"

/*
 * Ask about the visit's account and wait; the session's record has the answers
 * then. The log is told what came of it. Who has asked in vain for this visit does
 * not ask again: the first failure stands. visit->session must be there.
 * Errors: those of abb_recheck_session. Threads: waits for Bitbucket.
 */
apr_status_t abb_ask_bitbucket(abb_visit_t *visit, request_rec *r,
                               const abb_recheck_question_t *question, abb_error_t *err);

/*
 * Have visit->access_token be the account's access token, or NULL when there is none
 * that is good: Bitbucket could not be asked, or it is no token that an application
 * may have. A token in its last two minutes is renewed in the background, one in its
 * last minute while the visitor waits. visit->session must be there; reads what is
 * sealed, so only for places that want it.
 * Errors: APR_NOTFOUND the session has ended. Threads: may wait for Bitbucket.
 */
apr_status_t abb_ask_token(abb_visit_t *visit, request_rec *r, abb_error_t *err);

#endif
