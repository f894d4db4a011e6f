/* ask (floor 6): asking Bitbucket while the visitor waits. See abb_ask.h. */
#include "abb_ask.h"

#include "abb_background.h"

/* With a place among those who may wait, or behind another who has one. */
static apr_status_t wait_for_answer(abb_visit_t *visit, const abb_recheck_t *recheck,
                                    const abb_recheck_question_t *question,
                                    abb_recheck_notes_t *notes, abb_error_t *err)
{
    abb_gate_place_t place;
    apr_status_t status;

    if (!abb_visit_enter(visit, &place)) {
        return abb_recheck_session(recheck, visit->session, question, ABB_RECHECK_FOLLOW, notes,
                                   visit->pool, err);
    }
    status = abb_recheck_session(recheck, visit->session, question, ABB_RECHECK_WAIT, notes,
                                 visit->pool, err);
    abb_visit_leave(visit, &place);
    return status;
}

apr_status_t abb_ask_bitbucket(abb_visit_t *visit, request_rec *r,
                               const abb_recheck_question_t *question, abb_error_t *err)
{
    abb_recheck_t recheck = abb_visit_recheck(visit);
    const char *account = visit->session->record.account.uuid;
    abb_recheck_notes_t notes;
    apr_status_t status;

    if (visit->failure.status != APR_SUCCESS) {
        *err = visit->failure;
        return err->status;
    }
    status = wait_for_answer(visit, &recheck, question, &notes, err);
    if (status == ABB_EBUSY) {
        abb_visit_tell_crowd(visit, r);
    }
    if (status != APR_SUCCESS && status != APR_NOTFOUND) {
        visit->failure = *err;
    }
    abb_background_tell(r->server, &recheck, visit->session, account, &notes, err);
    return status;
}
