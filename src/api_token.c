/* api_token (floor 6): who it is, by what a command-line client brings. See abb_api_token.h. */
#include "abb_api_token.h"

#include <http_config.h>
#include <http_log.h>
#include <string.h>

#include "abb_credential.h"
#include "abb_flow.h"
#include "abb_index.h"
#include "abb_log.h"

APLOG_USE_MODULE(auth_bitbucket);

/* How long one waits for another who asks about the same credential, and between two looks. */
#define PATIENCE apr_time_from_sec(3)
#define WAIT_INTERVAL apr_time_from_msec(40)
#define BUSY_RETRY_AFTER apr_time_from_sec(1)
/* Kinds of names; see abb_visit_name. */
#define ADDRESS_NAME 'a'
#define ACCOUNT_NAME 'm'

/* Verdicts of the throttle. */
enum { NOT_ACCEPTED, LACKS_SCOPE, NO_ACCOUNT };

/*
 * Bitbucket may count wrong credentials against the server's address. What it says of
 * them is about all that nobody knows, and about nobody else.
 */
#define UNKNOWN "unknown credentials"

/* How many of this process wait for others. */
static int waiting;

/* A credential and what it is called. */
typedef struct {
    abb_credential_t credential;
    unsigned char id[ABB_SESSION_ID_SIZE];
    abb_throttle_try_t attempt;
} candidate_t;

/* ---- names --------------------------------------------------------------- */

/* Only for who is not known: these names cost as much as finding the session. */
static apr_status_t name_attempt(const abb_visit_t *visit, const request_rec *r,
                                 candidate_t *candidate, abb_error_t *err)
{
    const abb_credential_t *credential = &candidate->credential;
    abb_throttle_try_t *attempt = &candidate->attempt;
    apr_status_t status = abb_visit_name_network(visit, r, ADDRESS_NAME, &attempt->address, err);

    memcpy(&attempt->secret, candidate->id, sizeof(attempt->secret));
    attempt->account = 0;
    return status == APR_SUCCESS && credential->email
               ? abb_visit_name(visit, ACCOUNT_NAME, credential->email, strlen(credential->email),
                                &attempt->account, err)
               : status;
}

/* Whether the place takes credentials of this kind; of an internal redirect it may be another. */
static apr_status_t admit_scheme(request_rec *r, int is_basic, abb_error_t *err)
{
    if (is_basic || (abb_config_place(r).api_token & ABB_API_TOKEN_BEARER)) {
        return APR_SUCCESS;
    }
    return abb_error_set(err, ABB_ECREDENTIAL,
                         "Bearer tokens are not taken here, since a token that was made for "
                         "another application must not open this one; send e-mail address and "
                         "API token by Basic");
}

static apr_status_t read_candidate(const abb_visit_t *visit, request_rec *r, candidate_t *candidate,
                                   abb_error_t *err)
{
    apr_status_t status = abb_credential_read(abb_visit_authorization(visit, r),
                                              &candidate->credential, visit->pool, err);

    if (status != APR_SUCCESS) {
        err->status = ABB_ECREDENTIAL;
        return ABB_ECREDENTIAL;
    }
    status = admit_scheme(r, candidate->credential.is_basic, err);
    if (status != APR_SUCCESS) {
        return status;
    }
    return abb_credential_name(&candidate->credential, &visit->site->credential_key, candidate->id,
                               visit->pool, err);
}

/* ---- asking -------------------------------------------------------------- */

static apr_status_t say_verdict(int verdict, abb_error_t *err)
{
    switch (verdict) {
    case LACKS_SCOPE:
        return abb_error_set(err, ABB_EPRIVILEGE,
                             "Bitbucket does not say whose it is: the scope read:user:bitbucket is "
                             "missing (of an access token: account)");
    case NO_ACCOUNT:
        return abb_error_set(err, ABB_EACCOUNT,
                             "the credential is of a bot or of an account that is not active");
    default:
        return abb_error_set(err, ABB_ECREDENTIAL, "Bitbucket does not accept them");
    }
}

/* What is said of the credential by an answer; below 0 when it says nothing. */
static int verdict_of(apr_status_t status)
{
    switch (status) {
    case ABB_ETOKEN:
        return NOT_ACCEPTED;
    case ABB_ESCOPE:
        return LACKS_SCOPE;
    case ABB_EACCOUNT:
        return NO_ACCOUNT;
    default:
        return -1;
    }
}

/* Ask whose it is: one call, since most credentials that nobody knows are wrong. */
static apr_status_t ask(abb_visit_t *visit, request_rec *r, const candidate_t *candidate,
                        abb_error_t *err)
{
    const abb_credential_t *credential = &candidate->credential;
    abb_bitbucket_question_t question = {
        .user = 1, .takes_bots = !credential->is_basic, .counts_as = UNKNOWN};
    abb_record_private_t private_part = {.tokens = {.access_token = credential->value,
                                                    .expires_at = APR_INT64_MAX,
                                                    .is_basic = credential->is_basic}};
    abb_flow_t flow = {r, r->server};
    abb_bitbucket_visitor_t visitor;
    abb_record_t record;
    int ended;
    apr_status_t status = abb_bitbucket_fetch(
        abb_flow_watch(&flow, &visit->site->bitbucket, r->pool), &private_part.tokens, &question,
        apr_time_now(), &visitor, visit->pool, err);

    if (status != APR_SUCCESS) {
        return status;
    }
    memset(&record, 0, sizeof(record));
    record.account = visitor.account;
    record.created_at = visit->now;
    private_part.raw_user = visitor.raw_user;
    status = abb_session_create_named(&visit->site->sessions, candidate->id, &record, &private_part,
                                      visit->now, &visit->session, visit->pool, err);
    return status == APR_SUCCESS ? abb_index_add(&visit->site->sessions, visit->session, visit->now,
                                                 &ended, visit->pool, err)
                                 : status;
}

static apr_status_t try_candidate(abb_visit_t *visit, request_rec *r, const candidate_t *candidate,
                                  abb_error_t *err)
{
    abb_throttle_t *throttle = visit->site->throttle;
    abb_gate_place_t place;
    apr_status_t status = ABB_EBUSY;
    int verdict;

    if (abb_visit_enter_unknown(visit, &place)) {
        status = ask(visit, r, candidate, err);
        abb_visit_leave(visit, &place);
    }
    else {
        abb_error_set(err, ABB_EBUSY, "too many requests wait for Bitbucket already");
    }
    verdict = verdict_of(status);
    abb_throttle_settle(throttle, &candidate->attempt, verdict, apr_time_now());
    if (verdict >= 0) {
        abb_error_clear(err);
        return say_verdict(verdict, err);
    }
    if (status == APR_SUCCESS) {
        abb_counters_add(visit->site->bitbucket.counters, ABB_COUNT_CREDENTIAL_ACCEPTED,
                         visit->now);
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r,
                      ABB_LOGNO(0130) "%s accepted; account=%s session=%s",
                      candidate->credential.is_basic ? "API token" : "access token",
                      visit->session->record.account.uuid, visit->session->tag);
    }
    return status;
}

/* ---- one at a time ------------------------------------------------------- */

/* Whether there may be one more of this process who waits. */
static int may_wait(const abb_visit_t *visit)
{
    if (__atomic_add_fetch(&waiting, 1, __ATOMIC_RELAXED) <= visit->site->gate_limits.process) {
        return 1;
    }
    __atomic_sub_fetch(&waiting, 1, __ATOMIC_RELAXED);
    return 0;
}

static apr_status_t find(abb_visit_t *visit, const candidate_t *candidate, abb_error_t *err)
{
    return abb_session_find_named(&visit->site->sessions, candidate->id, apr_time_now(),
                                  &visit->session, visit->pool, err);
}

/* A verdict, or APR_EINCOMPLETE: try, wait or give up as *answer says. */
static apr_status_t look(const abb_visit_t *visit, const candidate_t *candidate,
                         abb_throttle_answer_t *answer, abb_error_t *err)
{
    abb_throttle_t *throttle = visit->site->throttle;
    apr_time_t now = apr_time_now();
    apr_interval_time_t wait = 0;
    int verdict;

    if (abb_throttle_look(throttle, candidate->attempt.secret, now, &verdict) ==
        ABB_THROTTLE_WRONG) {
        return say_verdict(verdict, err);
    }
    *answer = abb_throttle_begin(throttle, &candidate->attempt, now, &wait);
    if (*answer == ABB_THROTTLE_STOP) {
        err->retry_after = wait;
        return abb_error_set(err, ABB_ETHROTTLED,
                             "too many credentials of this address, for this account or in all "
                             "were wrong within a minute");
    }
    return APR_EINCOMPLETE;
}

static apr_status_t wait_and_look(abb_visit_t *visit, const candidate_t *candidate,
                                  abb_throttle_answer_t *answer, abb_error_t *err)
{
    apr_time_t deadline = apr_time_now() + PATIENCE;
    apr_status_t status = APR_EINCOMPLETE;

    while (status == APR_EINCOMPLETE && *answer == ABB_THROTTLE_LATER &&
           apr_time_now() < deadline) {
        apr_sleep(WAIT_INTERVAL);
        status = find(visit, candidate, err);
        if (status == APR_NOTFOUND) {
            status = look(visit, candidate, answer, err);
        }
    }
    return status;
}

/* A credential that nobody knows, or that somebody else asks about just now. */
static apr_status_t meet(abb_visit_t *visit, request_rec *r, candidate_t *candidate,
                         abb_error_t *err)
{
    abb_throttle_answer_t answer = ABB_THROTTLE_LATER;
    apr_status_t status = name_attempt(visit, r, candidate, err);

    if (status == APR_SUCCESS) {
        status = look(visit, candidate, &answer, err);
    }
    if (status == APR_EINCOMPLETE && answer == ABB_THROTTLE_LATER && may_wait(visit)) {
        status = wait_and_look(visit, candidate, &answer, err);
        __atomic_sub_fetch(&waiting, 1, __ATOMIC_RELAXED);
    }
    if (status == APR_EINCOMPLETE && answer == ABB_THROTTLE_GO) {
        return try_candidate(visit, r, candidate, err);
    }
    if (status == APR_EINCOMPLETE) {
        err->retry_after = BUSY_RETRY_AFTER;
        return abb_error_set(err, ABB_EBUSY, "too many credentials are being looked at already");
    }
    return status;
}

/* What could not be asked is neither. */
static void count_failure(const abb_visit_t *visit, apr_status_t status)
{
    abb_counters_t *counters = visit->site->bitbucket.counters;

    switch (status) {
    case ABB_ECREDENTIAL:
    case ABB_EPRIVILEGE:
    case ABB_EACCOUNT:
        abb_counters_add(counters, ABB_COUNT_CREDENTIAL_REFUSED, visit->now);
        break;
    case ABB_ETHROTTLED:
        abb_counters_add(counters, ABB_COUNT_CREDENTIAL_THROTTLED, visit->now);
        break;
    default:
        break;
    }
}

apr_status_t abb_api_token_find_session(abb_visit_t *visit, request_rec *r, abb_error_t *err)
{
    candidate_t candidate;
    apr_status_t status;

    if (visit->is_named) {
        return admit_scheme(r, !visit->is_bearer, err);
    }
    /* The session that a cookie names is nobody's here, nor what was asked about its account. */
    visit->session = NULL;
    visit->access_token = NULL;
    visit->stale = 0;
    abb_error_clear(&visit->failure);
    status = read_candidate(visit, r, &candidate, err);
    if (status == APR_SUCCESS) {
        status = find(visit, &candidate, err);
        if (status == APR_NOTFOUND) {
            status = meet(visit, r, &candidate, err);
        }
        visit->is_named = status == APR_SUCCESS;
        visit->is_bearer = !candidate.credential.is_basic;
    }
    count_failure(visit, status);
    return status;
}
