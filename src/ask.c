/* ask (floor 6): asking Bitbucket while the visitor waits. See abb_ask.h. */
#include "abb_ask.h"

#include "abb_background.h"
#include "abb_index.h"

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
    abb_flow_t flow = {r, r->server};
    const char *account = visit->session->record.account.uuid;
    abb_recheck_notes_t notes;
    apr_status_t status;

    if (visit->failure.status != APR_SUCCESS) {
        *err = visit->failure;
        return err->status;
    }
    visit->has_asked = 1;
    recheck.bitbucket = abb_flow_watch(&flow, recheck.bitbucket, r->pool);
    abb_counters_add(visit->site->bitbucket.counters, ABB_COUNT_RECHECK_WAITED, visit->now);
    status = wait_for_answer(visit, &recheck, question, &notes, err);
    if (status == ABB_EBUSY) {
        abb_visit_tell_crowd(visit, r);
    }
    if (status == APR_SUCCESS && notes.has_asked) {
        /* If not now, the next time. */
        abb_index_keep(recheck.sessions, visit->session, apr_time_now(), visit->pool, NULL);
    }
    else if (status != APR_SUCCESS && status != APR_NOTFOUND) {
        visit->failure = *err;
    }
    abb_background_tell(&flow, &recheck, visit->session, account, &notes, err);
    return status;
}

/* ---- the access token ---------------------------------------------------- */

/* A token is renewed while the request goes on when it has less than this left. */
#define TOKEN_SOON (2 * ABB_RECHECK_TOKEN_MARGIN)

/* The session's own record stays as the decision saw it. */
static apr_status_t read_tokens(const abb_visit_t *visit, abb_record_private_t *private_part,
                                abb_error_t *err)
{
    abb_session_t seen = *visit->session;

    return abb_session_reload(&visit->site->sessions, &seen, visit->now, private_part, visit->pool,
                              err);
}

static int is_good(const abb_tokens_t *tokens, apr_time_t until)
{
    return tokens->access_token && !tokens->is_unproved && tokens->expires_at > until;
}

/* RFC 6749 appendix A.12; anything else could be read as more than one value. */
static int is_printable(const char *token)
{
    const char *c = token;

    while (*c > ' ' && *c < 0x7f) {
        ++c;
    }
    return *c == '\0' && c > token;
}

static apr_status_t renew_token(abb_visit_t *visit, request_rec *r,
                                abb_record_private_t *private_part, abb_error_t *err)
{
    abb_recheck_question_t question = {.since = visit->now,
                                       .token_until = visit->now + ABB_RECHECK_TOKEN_MARGIN};
    apr_status_t status = abb_ask_bitbucket(visit, r, &question, err);

    return status == APR_SUCCESS ? read_tokens(visit, private_part, err) : status;
}

static void renew_token_aside(const abb_visit_t *visit, request_rec *r)
{
    abb_recheck_t recheck = abb_visit_recheck(visit);
    abb_recheck_question_t question = {.since = visit->now, .token_until = visit->now + TOKEN_SOON};

    abb_background_recheck(visit->site->background, r->server, &recheck, visit->session, &question);
}

apr_status_t abb_ask_token(abb_visit_t *visit, request_rec *r, abb_error_t *err)
{
    abb_record_private_t private_part;
    apr_status_t status = read_tokens(visit, &private_part, err);
    const abb_tokens_t *tokens = &private_part.tokens;
    int was_read = status == APR_SUCCESS;

    visit->access_token = NULL;
    /* What does not open any more ends the session in the same way as for any question. */
    if (status == ABB_ESEAL ||
        (was_read && !is_good(tokens, visit->now + ABB_RECHECK_TOKEN_MARGIN))) {
        abb_error_clear(err);
        status = renew_token(visit, r, &private_part, err);
    }
    else if (was_read && !is_good(tokens, visit->now + TOKEN_SOON)) {
        renew_token_aside(visit, r);
    }
    if (was_read && is_good(tokens, visit->now) && !tokens->is_basic &&
        is_printable(tokens->access_token)) {
        visit->access_token = tokens->access_token;
    }
    return status == APR_NOTFOUND ? status : APR_SUCCESS;
}
