/* recheck (floor 4): one question to Bitbucket for one session. See abb_recheck.h. */
#include "abb_recheck.h"

#include <string.h>

/* How long one waits between two looks while another holds the lease. */
#define WAIT_INTERVAL apr_time_from_msec(40)

/* A job under way. */
typedef struct {
    const abb_recheck_t *recheck;
    abb_session_t *session;
    abb_record_private_t private_part;
    /* Bitbucket was asked, so a failure is worth telling others. */
    int has_asked;
    apr_pool_t *pool;
    abb_error_t *err;
} job_t;

/*
 * Longer than a holder can take: a question that needs its second way (two
 * exchanges), a refresh, the question again; and some room.
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

static int has_row(const abb_session_t *session, const char *workspace, apr_time_t older_than)
{
    return abb_record_is_fresh(abb_record_find_grant(&session->record, workspace), older_than,
                               apr_time_now());
}

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

/* A new pair of tokens, stored before it is used. */
static apr_status_t refresh(job_t *job)
{
    abb_tokens_t *tokens = &job->private_part.tokens;
    apr_status_t status;

    if (!tokens->refresh_token) {
        abb_session_drop(job->recheck->sessions, job->session, NULL);
        return ended(job->err, "the access token ran out and there is no refresh token");
    }
    status = abb_bitbucket_refresh(job->recheck->bitbucket, tokens->refresh_token, apr_time_now(),
                                   tokens, job->pool, job->err);
    if (status == ABB_EGRANT) {
        abb_session_drop(job->recheck->sessions, job->session, NULL);
        job->err->status = APR_NOTFOUND;
        return APR_NOTFOUND;
    }
    if (status != APR_SUCCESS || (status = save(job)) != APR_SUCCESS) {
        return status;
    }
    return load(job);
}

static apr_status_t ask(job_t *job, const char *workspace, abb_grant_t *grant, const char **doubt)
{
    return abb_bitbucket_fetch_grant(job->recheck->bitbucket, job->private_part.tokens.access_token,
                                     job->session->record.account.uuid, workspace, apr_time_now(),
                                     grant, doubt, job->pool, job->err);
}

/* Ask; on a 401 refresh once and ask once more. */
static apr_status_t ask_with_good_token(job_t *job, const char *workspace, abb_grant_t *grant,
                                        const char **doubt)
{
    int is_fresh = 0;
    apr_status_t status;

    if (job->private_part.tokens.expires_at - apr_time_now() < ABB_RECHECK_TOKEN_MARGIN) {
        if ((status = refresh(job)) != APR_SUCCESS) {
            return status;
        }
        is_fresh = 1;
    }
    status = ask(job, workspace, grant, doubt);
    if (status == ABB_ETOKEN && !is_fresh) {
        abb_error_clear(job->err);
        if ((status = refresh(job)) != APR_SUCCESS) {
            return status;
        }
        status = ask(job, workspace, grant, doubt);
    }
    if (status == ABB_ETOKEN) {
        abb_session_drop(job->recheck->sessions, job->session, NULL);
        job->err->status = APR_NOTFOUND;
        return APR_NOTFOUND;
    }
    return status;
}

/* ---- one at a time ------------------------------------------------------- */

/* Whether another asked in vain while this one waited for it. 0: it did not wait. */
static int was_in_vain(const job_t *job, apr_time_t waiting_since)
{
    return waiting_since != 0 && job->session->failed_at >= waiting_since;
}

static apr_status_t work(job_t *job, const char *workspace, apr_time_t older_than,
                         apr_time_t waiting_since, const char **doubt)
{
    abb_grant_t grant;
    apr_status_t status = load(job);

    if (status != APR_SUCCESS || has_row(job->session, workspace, older_than)) {
        return status;
    }
    if (was_in_vain(job, waiting_since)) {
        return abb_error_set(job->err, ABB_EUPSTREAM,
                             "another request just asked Bitbucket in vain for session %s",
                             job->session->tag);
    }
    job->has_asked = 1;
    if ((status = ask_with_good_token(job, workspace, &grant, doubt)) != APR_SUCCESS) {
        return status;
    }
    status = abb_record_put_grant(&job->session->record, &grant, job->pool);
    if (status != APR_SUCCESS) {
        return abb_error_set(job->err, ABB_ESTORE, "session %s has too many rows",
                             job->session->tag);
    }
    return save(job);
}

/*
 * Take the lease, or wait until whoever has it is done. *holder is 0 when the
 * other brought the answer that was wanted. Each look's memory is given back.
 */
static apr_status_t take_lease(job_t *job, const char *workspace, apr_time_t older_than,
                               apr_uint64_t *holder, apr_time_t *waiting_since, apr_pool_t *scratch)
{
    const abb_sessions_t *sessions = job->recheck->sessions;
    apr_interval_time_t duration = lease_duration(job->recheck);
    apr_time_t deadline = apr_time_now() + duration;
    abb_session_t seen = *job->session;

    for (;;) {
        apr_status_t status =
            abb_store_lease(sessions->store, &seen.key, duration, apr_time_now(), holder, job->err);

        if (status != ABB_ECHANGED) {
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
        apr_pool_clear(scratch);
        status = abb_session_look(sessions, &seen, apr_time_now(), scratch, job->err);
        if (status != APR_SUCCESS) {
            return status == APR_NOTFOUND ? ended(job->err, "the session has ended") : status;
        }
        if (has_row(&seen, workspace, older_than)) {
            return load(job);
        }
    }
}

static void give_lease_back(const job_t *job, apr_uint64_t holder, apr_status_t status)
{
    const abb_store_t *store = job->recheck->sessions->store;

    if (status != APR_SUCCESS && job->has_asked) {
        abb_store_fail(store, &job->session->key, holder, apr_time_now(), NULL);
    }
    else {
        abb_store_release(store, &job->session->key, holder, NULL);
    }
}

apr_status_t abb_recheck_workspace(const abb_recheck_t *recheck, abb_session_t *session,
                                   const char *workspace, apr_time_t older_than, const char **doubt,
                                   apr_pool_t *p, abb_error_t *err)
{
    apr_time_t waiting_since = 0;
    apr_uint64_t holder = 0;
    apr_pool_t *scratch;
    apr_status_t status;
    job_t job;

    memset(&job, 0, sizeof(job));
    job.recheck = recheck;
    job.session = session;
    job.pool = p;
    job.err = err;
    *doubt = NULL;
    apr_pool_create(&scratch, p);
    status = take_lease(&job, workspace, older_than, &holder, &waiting_since, scratch);
    apr_pool_destroy(scratch);
    if (status != APR_SUCCESS || !holder) {
        return status;
    }
    status = work(&job, workspace, older_than, waiting_since, doubt);
    give_lease_back(&job, holder, status);
    return status;
}
