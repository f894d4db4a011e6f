/* ask (floor 6): asking Bitbucket while the visitor waits. See abb_ask.h. */
#include "abb_ask.h"

#include "abb_background.h"

apr_status_t abb_ask_bitbucket(abb_visit_t *visit, request_rec *r,
                               const abb_recheck_question_t *question, abb_error_t *err)
{
    abb_recheck_t recheck = abb_visit_recheck(visit);
    const char *account = visit->session->record.account.uuid;
    abb_recheck_notes_t notes;
    abb_gate_place_t place;
    int has_place = abb_visit_enter(visit, &place);
    apr_status_t status = abb_recheck_session(&recheck, visit->session, question,
                                              has_place ? ABB_RECHECK_WAIT : ABB_RECHECK_FOLLOW,
                                              &notes, visit->pool, err);

    if (has_place) {
        abb_visit_leave(visit, &place);
    }
    if (status == ABB_EBUSY) {
        abb_visit_tell_crowd(visit, r);
    }
    abb_background_tell(r->server, &recheck, visit->session, account, &notes, err);
    return status;
}
