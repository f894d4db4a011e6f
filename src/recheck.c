/* recheck (floor 4): questions to Bitbucket for one session. See abb_recheck.h. */
#include "abb_recheck.h"

#include <string.h>

/* How long one waits between two looks while another holds the lease. */
#define WAIT_INTERVAL apr_time_from_msec(40)
/* How long one waits for another who may not ask itself. */
#define FOLLOW_PATIENCE apr_time_from_sec(1)

/* A job under way. */
typedef struct {
    const abb_recheck_t *recheck;
    abb_session_t *session;
    const abb_recheck_question_t *question;
    abb_recheck_notes_t *notes;
    abb_recheck_manner_t manner;
    /* When somebody had last asked in vain, as far as the caller knew. */
    apr_time_t known_failure;
    abb_record_private_t private_part;
    int has_refreshed;
    apr_pool_t *pool;
    abb_error_t *err;
} job_t;

/*
 * Longer than a holder can take: a refresh, the questions, and when the token was
 * refused both again; and some room.
 */
static apr_interval_time_t lease_duration(const abb_recheck_t *recheck)
{
    return 5 * recheck->bitbucket->http_settings.total_timeout + apr_time_from_sec(5);
}

/* Whatever was noted before, the session has ended. */
static apr_status_t ended(abb_error_t *err, const char *why)
{
    abb_error_clear(err);
    return abb_error_set(err, APR_NOTFOUND, "%s", why);
}

/* End the session for what job->err says. */
static apr_status_t end_session(job_t *job)
{
    abb_session_drop(job->recheck->sessions, job->session, NULL);
    job->err->status = APR_NOTFOUND;
    return APR_NOTFOUND;
}

/* ---- what is wanted ------------------------------------------------------ */

/* An answer of the future, after the clock was put back, is none. */
static int needs_row(const abb_record_t *record, const char *workspace, apr_time_t since)
{
    return !abb_record_is_fresh(abb_record_find_grant(record, workspace), since, apr_time_now());
}

static int needs_account(const abb_record_t *record, const abb_recheck_question_t *question)
{
    return question->account &&
           !abb_record_is_since(record->account_checked_at, question->since, apr_time_now());
}

/* The access token is to be asked whose it is before it counts. */
static int is_unproved(const job_t *job)
{
    return job->private_part.tokens.is_unproved;
}

/* How long the access token must last to be used as it is. */
static apr_time_t token_until(const job_t *job)
{
    apr_time_t least = apr_time_now() + ABB_RECHECK_TOKEN_MARGIN;

    return job->question->token_until > least ? job->question->token_until : least;
}

static int has_token(const job_t *job)
{
    return !job->question->token_until ||
           (job->private_part.tokens.expires_at >= job->question->token_until && !is_unproved(job));
}

/* Of what the open part has. */
static int has_answers(const abb_session_t *session, const abb_recheck_question_t *question)
{
    for (int i = 0; i < question->workspace_count; ++i) {
        if (needs_row(&session->record, question->workspaces[i], question->since)) {
            return 0;
        }
    }
    return !needs_account(&session->record, question);
}

static int is_asked_about(const abb_bitbucket_question_t *question, const char *workspace)
{
    for (int i = 0; i < question->workspace_count; ++i) {
        if (strcmp(question->workspaces[i], workspace) == 0) {
            return 1;
        }
    }
    return 0;
}

/* What has to be asked, of all that is wanted; each once. */
static abb_bitbucket_question_t what_to_ask(const job_t *job)
{
    const abb_record_t *record = &job->session->record;
    const abb_recheck_question_t *wanted = job->question;
    const char **workspaces =
        apr_palloc(job->pool, ABB_BITBUCKET_WORKSPACES_MAX * sizeof(*workspaces));
    abb_bitbucket_question_t question = {.takes_bots = record->account.app_kind != NULL,
                                         .uuid = record->account.uuid,
                                         .workspaces = workspaces};

    question.user = question.emails = needs_account(record, wanted);
    for (int i = 0; i < wanted->workspace_count; ++i) {
        const char *workspace = wanted->workspaces[i];

        if (question.workspace_count < ABB_BITBUCKET_WORKSPACES_MAX &&
            needs_row(record, workspace, wanted->since) && !is_asked_about(&question, workspace)) {
            workspaces[question.workspace_count++] = workspace;
        }
    }
    return question;
}

/* ---- the record ---------------------------------------------------------- */

static apr_status_t load(job_t *job)
{
    apr_status_t status = abb_session_reload(job->recheck->sessions, job->session, apr_time_now(),
                                             &job->private_part, job->pool, job->err);

    if (status == ABB_ESEAL) {
        /* The key that sealed the tokens is gone; nothing can be asked any more. */
        abb_session_drop(job->recheck->sessions, job->session, NULL);
        return ended(job->err, "its tokens were sealed with a key that is no longer configured");
    }
    return status == APR_NOTFOUND ? ended(job->err, "the session has ended") : status;
}

/*
 * Store what the job knows. The lease keeps other jobs away, so a changed
 * generation means that the record was signed out or is damaged.
 */
static apr_status_t save(job_t *job)
{
    apr_status_t status =
        abb_session_replace(job->recheck->sessions, job->session, &job->private_part,
                            apr_time_now(), job->pool, job->err);

    if (status == ABB_ECHANGED) {
        return abb_error_set(job->err, ABB_ESTORE, "session %s changed while it was re-checked",
                             job->session->tag);
    }
    return status == APR_NOTFOUND ? ended(job->err, "the session has ended") : status;
}

/* The account as it is now; addresses that were not asked for stay. */
static void take_account(job_t *job, const abb_bitbucket_question_t *question,
                         const abb_bitbucket_visitor_t *visitor, apr_time_t asked_at)
{
    abb_record_t *record = &job->session->record;
    abb_account_t before = record->account;

    record->account = visitor->account;
    if (!question->emails) {
        record->account.email = before.email;
        record->account.emails = before.emails;
    }
    job->private_part.raw_user = visitor->raw_user;
    job->private_part.tokens.is_unproved = 0;
    if (question->emails) {
        record->account_checked_at = asked_at;
    }
}

static apr_status_t take_answers(job_t *job, const abb_bitbucket_question_t *question,
                                 const abb_bitbucket_visitor_t *visitor, apr_time_t asked_at)
{
    apr_status_t status =
        abb_session_pin_grants(job->recheck->sessions, visitor->grants, visitor->grant_count,
                               asked_at, &job->notes->alarm, job->pool, job->err);

    if (status != APR_SUCCESS) {
        return status;
    }
    if (visitor->has_account) {
        take_account(job, question, visitor, asked_at);
    }
    for (int i = 0; i < visitor->grant_count; ++i) {
        if (abb_record_put_grant(&job->session->record, &visitor->grants[i], job->pool) !=
            APR_SUCCESS) {
            return abb_error_set(job->err, ABB_ESTORE, "session %s has too many rows",
                                 job->session->tag);
        }
    }
    return visitor->has_account || visitor->grant_count ? save(job) : APR_SUCCESS;
}

/* ---- tokens -------------------------------------------------------------- */

/*
 * Bitbucket does not take the refresh token. On another machine somebody may have
 * used it just before; then the record has the next one.
 */
static apr_status_t settle_refusal(job_t *job, const char *refused_token)
{
    abb_error_t refusal = *job->err;
    apr_status_t status;

    abb_error_clear(job->err);
    if ((status = load(job)) != APR_SUCCESS) {
        return status;
    }
    if (job->private_part.tokens.refresh_token &&
        strcmp(job->private_part.tokens.refresh_token, refused_token) != 0) {
        return APR_SUCCESS;
    }
    *job->err = refusal;
    return end_session(job);
}

/* A new pair of tokens, stored before it is used. */
static apr_status_t refresh(job_t *job)
{
    abb_tokens_t *tokens = &job->private_part.tokens;
    const char *refresh_token = tokens->refresh_token;
    apr_status_t status;

    if (!refresh_token) {
        abb_error_set(job->err, ABB_ETOKEN, "%s",
                      tokens->is_basic ? "Bitbucket does not accept the API token any more"
                                       : "the access token ran out and there is no refresh token");
        return end_session(job);
    }
    job->has_refreshed = 1;
    status = abb_bitbucket_refresh(job->recheck->bitbucket, job->session->record.account.uuid,
                                   refresh_token, apr_time_now(), tokens, job->pool, job->err);
    if (status == ABB_EGRANT) {
        return settle_refusal(job, refresh_token);
    }
    if (status != APR_SUCCESS) {
        return status;
    }
    tokens->is_unproved = 1;
    status = save(job);
    return status == APR_SUCCESS ? load(job) : status;
}

/* ---- asking -------------------------------------------------------------- */

/* Whose a new token is must be proved before anything counts that came with it. */
static apr_status_t ask(job_t *job, abb_bitbucket_question_t *question)
{
    apr_time_t asked_at = apr_time_now();
    abb_bitbucket_visitor_t visitor;
    apr_status_t status;

    question->user |= is_unproved(job);
    status = abb_bitbucket_fetch(job->recheck->bitbucket, &job->private_part.tokens, question,
                                 asked_at, &visitor, job->pool, job->err);
    if (status != APR_SUCCESS) {
        return status;
    }
    job->notes->doubt = visitor.doubt;
    job->notes->change = visitor.change;
    if (visitor.has_account || !is_unproved(job)) {
        status = take_answers(job, question, &visitor, asked_at);
    }
    if (status == APR_SUCCESS && visitor.failure.status != APR_SUCCESS) {
        *job->err = visitor.failure;
        status = visitor.failure.status;
    }
    return status;
}

/* Ask; on a 401 refresh once and ask once more. */
static apr_status_t ask_with_good_token(job_t *job, abb_bitbucket_question_t *question)
{
    apr_status_t status;

    if (job->private_part.tokens.expires_at < token_until(job) &&
        (status = refresh(job)) != APR_SUCCESS) {
        return status;
    }
    status = ask(job, question);
    if (status == ABB_ETOKEN && !job->has_refreshed) {
        abb_error_clear(job->err);
        if ((status = refresh(job)) != APR_SUCCESS) {
            return status;
        }
        status = ask(job, question);
    }
    return status;
}

static apr_status_t ask_and_judge(job_t *job, abb_bitbucket_question_t *question)
{
    apr_status_t status = ask_with_good_token(job, question);

    switch (status) {
    case ABB_EIDENTITY:
        job->notes->is_alarming = 1;
        return end_session(job);
    case ABB_EACCOUNT:
    case ABB_ETOKEN:
        return end_session(job);
    default:
        return status;
    }
}

/* ---- one at a time ------------------------------------------------------- */

/* Whether another asked in vain while this one waited for it. 0: it did not wait. */
static int was_in_vain(const job_t *job, apr_time_t waiting_since)
{
    return waiting_since != 0 && job->session->failed_at >= waiting_since;
}

/* Whether another asked in vain between the request that wants to know and this moment. */
static int has_failed_since(const job_t *job)
{
    return job->manner == ABB_RECHECK_ASIDE && job->session->failed_at > job->known_failure;
}

static apr_status_t work(job_t *job, apr_time_t waiting_since)
{
    abb_bitbucket_question_t question;
    apr_status_t status = load(job);

    if (status != APR_SUCCESS || (has_answers(job->session, job->question) && has_token(job))) {
        return status;
    }
    if (was_in_vain(job, waiting_since)) {
        return abb_error_set(job->err, ABB_EUPSTREAM,
                             "another request just asked Bitbucket in vain for session %s",
                             job->session->tag);
    }
    if (has_failed_since(job)) {
        return ABB_ECHANGED;
    }
    job->notes->has_asked = 1;
    question = what_to_ask(job);
    return ask_and_judge(job, &question);
}

/* Look whether the other brought the answers. Each look's memory is given back. */
static apr_status_t look(const job_t *job, abb_session_t *seen, apr_pool_t *scratch)
{
    apr_status_t status;

    apr_pool_clear(scratch);
    status = abb_session_look(job->recheck->sessions, seen, apr_time_now(), scratch, job->err);
    return status == APR_NOTFOUND ? ended(job->err, "the session has ended") : status;
}

/*
 * Take the lease, or wait until whoever has it is done. *holder is 0 when the
 * other brought the answers that were wanted.
 */
static apr_status_t take_lease(job_t *job, apr_uint64_t *holder, apr_time_t *waiting_since,
                               apr_pool_t *scratch)
{
    const abb_sessions_t *sessions = job->recheck->sessions;
    apr_interval_time_t duration = lease_duration(job->recheck);
    apr_interval_time_t patience = job->manner == ABB_RECHECK_FOLLOW ? FOLLOW_PATIENCE : duration;
    apr_time_t deadline = apr_time_now() + patience;
    abb_session_t seen = *job->session;

    for (;;) {
        apr_status_t status =
            abb_store_lease(sessions->store, &seen.key, duration, apr_time_now(), holder, job->err);

        if (status != ABB_ECHANGED || job->manner == ABB_RECHECK_ASIDE) {
            return status == APR_NOTFOUND ? ended(job->err, "the session has ended") : status;
        }
        if (apr_time_now() > deadline) {
            return abb_error_set(job->err, ABB_EUPSTREAM,
                                 "another request still asks Bitbucket for session %s", seen.tag);
        }
        if (*waiting_since == 0) {
            *waiting_since = apr_time_now();
        }
        apr_sleep(WAIT_INTERVAL);
        if ((status = look(job, &seen, scratch)) != APR_SUCCESS) {
            return status;
        }
        /* Of the token only who has the lease reads. */
        if (!job->question->token_until && has_answers(&seen, job->question)) {
            return load(job);
        }
    }
}

static void give_lease_back(const job_t *job, apr_uint64_t holder, apr_status_t status)
{
    const abb_store_t *store = job->recheck->sessions->store;

    if (status != APR_SUCCESS && job->notes->has_asked) {
        abb_store_fail(store, &job->session->key, holder, apr_time_now(), NULL);
    }
    else {
        abb_store_release(store, &job->session->key, holder, NULL);
    }
}

/* Nobody asks, and this one may not: what another has stored meanwhile is taken. */
static apr_status_t take_what_is_there(job_t *job)
{
    apr_status_t status = load(job);

    if (status != APR_SUCCESS || (has_answers(job->session, job->question) && has_token(job))) {
        return status;
    }
    return abb_error_set(job->err, ABB_EBUSY, "too many requests wait for Bitbucket already");
}

apr_status_t abb_recheck_session(const abb_recheck_t *recheck, abb_session_t *session,
                                 const abb_recheck_question_t *question,
                                 abb_recheck_manner_t manner, abb_recheck_notes_t *notes,
                                 apr_pool_t *p, abb_error_t *err)
{
    job_t job = {
        .recheck = recheck,
        .session = session,
        .question = question,
        .notes = notes,
        .manner = manner,
        .known_failure = session->failed_at,
        .pool = p,
        .err = err,
    };
    apr_time_t waiting_since = 0;
    apr_uint64_t holder = 0;
    apr_pool_t *scratch;
    apr_status_t status;

    memset(notes, 0, sizeof(*notes));
    apr_pool_create(&scratch, p);
    status = take_lease(&job, &holder, &waiting_since, scratch);
    apr_pool_destroy(scratch);
    if (status != APR_SUCCESS || !holder) {
        return status;
    }
    status = manner == ABB_RECHECK_FOLLOW ? take_what_is_there(&job) : work(&job, waiting_since);
    give_lease_back(&job, holder, status);
    return status;
}
