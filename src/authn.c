/* authn (floor 7): the decision about a request to a protected place. */
#include "abb_authn.h"

#include <apr_strings.h>
#include <http_core.h>
#include <http_log.h>
#include <http_protocol.h>
#include <http_request.h>
#include <util_filter.h>

#include "abb_api_token.h"
#include "abb_ask.h"
#include "abb_authz.h"
#include "abb_background.h"
#include "abb_credential.h"
#include "abb_flow.h"
#include "abb_log.h"
#include "abb_pass.h"
#include "abb_preserve.h"
#include "abb_text.h"
#include "abb_visit.h"

APLOG_USE_MODULE(auth_bitbucket);

/*
 * How often a refusal may be looked at again. Each time some of the rows that it rests on become
 * new, and a rule may be reached that rests on others.
 */
#define ROUNDS_MAX 32
/* Most characters of the rows' names that a line of the log has. */
#define ROWS_TOLD_MAX 300

/* ---- answers ------------------------------------------------------------- */

static void count(const abb_visit_t *visit, abb_count_t what)
{
    abb_counters_add(visit->site->bitbucket.counters, what, visit->now);
}

/* Nothing that the visitor has or is: Bitbucket, the store or the site does not work. */
static int is_undecided(apr_status_t reason)
{
    return reason != ABB_ECREDENTIAL && reason != ABB_EPRIVILEGE && reason != ABB_ETHROTTLED &&
           reason != ABB_EACCOUNT;
}

/* What a credential lacks its owner can mend, not the operator. */
static int refuse(abb_visit_t *visit, request_rec *r, const abb_error_t *err)
{
    abb_error_t told = *err;

    if (visit->is_named && told.status == ABB_ESCOPE) {
        told.status = ABB_EPRIVILEGE;
    }
    if (is_undecided(told.status)) {
        count(visit, ABB_COUNT_UNDECIDED);
    }
    return abb_visit_refuse(visit, r, &told, abb_request_return_path(r, visit->site->origin));
}

/* 401, as fits what asks; only a frame can do something with the way back. */
static int send_unauthenticated(abb_visit_t *visit, request_rec *r, abb_request_kind_t kind)
{
    const char *return_path =
        kind == ABB_REQUEST_FRAME ? abb_request_return_path(r, visit->site->origin) : NULL;
    abb_refusal_offers_t offers = abb_visit_offers(visit, r, return_path);

    return abb_refusal_send_unauthenticated(r, kind, &offers);
}

/* A redirect is of use to who can follow it: not to a subrequest, nor with a body to send. */
static int can_be_sent(const request_rec *r)
{
    return !r->main && r->method_number == M_GET;
}

static int begin_login(abb_visit_t *visit, request_rec *r)
{
    const char *path = abb_request_return_path(r, visit->site->origin);

    /* Under another name the callback would not see the attempt's cookie. */
    return abb_request_is_for(r, visit->site->origin)
               ? abb_visit_begin_login(visit, r, path, 1)
               : abb_request_redirect(r, HTTP_MOVED_TEMPORARILY,
                                      abb_visit_login_url(visit, r, path));
}

static int send_stranger(abb_visit_t *visit, request_rec *r)
{
    abb_refusal_offers_t offers =
        abb_visit_offers(visit, r, abb_request_return_path(r, visit->site->origin));

    count(visit, ABB_COUNT_REFUSAL);
    return abb_refusal_send_stranger(r, &offers);
}

/* Nobody is signed in: pages are sent to Bitbucket, everything else gets 401 and no ticket. */
static int ask_to_sign_in(abb_visit_t *visit, request_rec *r)
{
    abb_request_kind_t kind = abb_request_kind(r);
    abb_unauthenticated_t action = abb_config_unauthenticated(r);
    int status;

    if ((action == ABB_UNAUTHENTICATED_AUTO || action == ABB_UNAUTHENTICATED_LOGIN) &&
        abb_preserve_form(visit, r, &status)) {
        return status;
    }
    switch (action) {
    case ABB_UNAUTHENTICATED_LOGIN:
        return can_be_sent(r) ? begin_login(visit, r) : send_unauthenticated(visit, r, kind);
    case ABB_UNAUTHENTICATED_401:
        return send_unauthenticated(visit, r,
                                    kind == ABB_REQUEST_NAVIGATION ? ABB_REQUEST_OTHER : kind);
    case ABB_UNAUTHENTICATED_403:
        return send_stranger(visit, r);
    default:
        /* Where strangers may pass they come here when the rules refuse them. */
        return kind == ABB_REQUEST_NAVIGATION && can_be_sent(r)
                   ? begin_login(visit, r)
                   : send_unauthenticated(visit, r, kind);
    }
}

/* ---- who is it? ---------------------------------------------------------- */

static int not_configured(request_rec *r)
{
    abb_refusal_offers_t offers = {.site = ap_auth_name(r)};
    abb_error_t err;

    abb_error_clear(&err);
    abb_error_set(&err, ABB_ECLIENT,
                  "AuthType Bitbucket is used, but virtual host %s has no client id: write "
                  "AuthBitbucketClientID and AuthBitbucketClientSecret there",
                  r->server->server_hostname ? r->server->server_hostname : "?");
    return abb_refusal_send(r, &err, &offers);
}

static int missing_attribute(abb_visit_t *visit, request_rec *r, const char *attribute)
{
    abb_error_t err;

    abb_error_clear(&err);
    abb_error_set(&err, ABB_EACCOUNT,
                  "account %s has no %s%s, which AuthBitbucketRemoteUser asks for",
                  visit->session->record.account.uuid, attribute,
                  strcmp(attribute, "email") == 0 ? " that is confirmed" : "");
    return refuse(visit, r, &err);
}

/* Once for what the client asked, whatever becomes of it inside. */
static void count_request(abb_visit_t *visit)
{
    if (!visit->is_counted) {
        visit->is_counted = 1;
        count(visit, ABB_COUNT_REQUEST);
    }
}

/* Tell httpd and the application who it is. Returns 0 when there is no name for it. */
static int identify(abb_visit_t *visit, request_rec *r)
{
    const char *user =
        abb_identity_attribute(&visit->session->record.account, abb_config_place(r).remote_user);

    count_request(visit);
    if (!user) {
        return 0;
    }
    r->user = (char *)user;
    r->ap_auth_type = (char *)ABB_AUTH_TYPE;
    abb_pass_variables(visit, r);
    return 1;
}

static int admit(abb_visit_t *visit, request_rec *r)
{
    return identify(visit, r) ? OK : missing_attribute(visit, r, abb_config_place(r).remote_user);
}

/* How old what is known of a credential's account may be: nobody signs out with one. */
#define CREDENTIAL_AGE apr_time_from_sec(60)

/* Beyond this the account is asked about before it counts. */
static abb_record_ages_t ages_of_account(const abb_visit_t *visit)
{
    abb_record_ages_t ages = visit->site->ages;

    if (visit->is_named && ages.hard > CREDENTIAL_AGE) {
        ages.hard = CREDENTIAL_AGE;
    }
    return ages;
}

static int is_old(const abb_visit_t *visit, const abb_record_ages_t *ages)
{
    return abb_record_age(visit->session->record.account_checked_at, ages, visit->now) ==
           ABB_RECORD_OLD;
}

/*
 * The account as Bitbucket has it, when what is known is too old; together with
 * the rows that the rules are going to want. In an outage what is not older than the
 * site's own bound serves.
 */
static apr_status_t renew_account(abb_visit_t *visit, request_rec *r, abb_error_t *err)
{
    abb_record_ages_t ages = ages_of_account(visit);
    /* Rows have the ages of the site, which may be longer. */
    abb_recheck_question_t question = {
        .account = 1,
        .workspaces = visit->wanted,
        .workspace_count = is_old(visit, &visit->site->ages) ? visit->wanted_count : 0,
        .since = abb_authz_since(&ages, 0, visit->now)};
    apr_status_t status;

    if (!is_old(visit, &ages)) {
        return APR_SUCCESS;
    }
    status = abb_ask_bitbucket(visit, r, &question, err);
    /* Of rows that could not be asked about the rules may do without. */
    return status != APR_NOTFOUND && !is_old(visit, &visit->site->ages) ? APR_SUCCESS : status;
}

/*
 * Let a stranger on to the rules. httpd takes a missing user for a fault, so there
 * is one without a name until the rules have spoken.
 */
static int pass_stranger(abb_visit_t *visit, request_rec *r)
{
    visit->is_stranger = 1;
    r->user = (char *)"";
    return OK;
}

/* Say why a session that the browser still has a cookie of is none: the first time it comes. */
static void tell_of_no_session(const abb_visit_t *visit, request_rec *r)
{
    abb_flow_t flow = {r, r->server};
    abb_session_t *ended;
    const char *why;

    if (abb_visit_take_ended(visit, &ended, &why) == APR_SUCCESS) {
        abb_flow_end(&flow, ended, ended->record.account.uuid, why);
    }
    ap_log_rerror(APLOG_MARK, APLOG_DEBUG, 0, r, ABB_LOGNO(0113) "no session; cookie=%s",
                  visit->cookies.session ? "unknown" : "none");
}

/* There is no session, or it has ended while it was looked at. */
static int begin_anew(abb_visit_t *visit, request_rec *r)
{
    if (!visit->session) {
        tell_of_no_session(visit, r);
    }
    visit->session = NULL;
    r->user = NULL;
    return abb_config_unauthenticated(r) == ABB_UNAUTHENTICATED_PASS ? pass_stranger(visit, r)
                                                                     : ask_to_sign_in(visit, r);
}

/* A credential decides, whatever cookies come along; where none are taken, none counts. */
static int has_credential(const abb_visit_t *visit, request_rec *r)
{
    return abb_config_place(r).api_token != ABB_API_TOKEN_OFF &&
           (visit->is_named || abb_credential_is_ours(abb_visit_authorization(visit, r)));
}

/* Bitbucket takes it no longer: nothing that was known by it counts. */
static int refuse_credential(abb_visit_t *visit, request_rec *r)
{
    abb_error_t err;

    visit->session = NULL;
    visit->is_named = 0;
    r->user = NULL;
    abb_error_clear(&err);
    abb_error_set(&err, ABB_ECREDENTIAL, "Bitbucket does not accept them any more");
    return refuse(visit, r, &err);
}

int abb_authn_check(request_rec *r)
{
    abb_visit_t *visit;
    abb_error_t err;
    apr_status_t status;
    int is_credential;

    if (!abb_config_is_used(r)) {
        return DECLINED;
    }
    if (!(visit = abb_visit_of(r))) {
        return not_configured(r);
    }
    is_credential = has_credential(visit, r);
    if (visit->is_named && !is_credential) {
        return ask_to_sign_in(visit, r);
    }
    abb_error_clear(&err);
    status = is_credential ? abb_api_token_find_session(visit, r, &err)
                           : abb_visit_find_session(visit, &err);
    if (status == APR_SUCCESS) {
        status = renew_account(visit, r, &err);
    }
    switch (status) {
    case APR_SUCCESS:
        return admit(visit, r);
    case APR_NOTFOUND:
        return is_credential ? refuse_credential(visit, r) : begin_anew(visit, r);
    default:
        return refuse(visit, r, &err);
    }
}

/* ---- what do the rules say? ---------------------------------------------- */

static int is_refusal(int status)
{
    /* 403 with AuthzSendForbiddenOnFailure, else 401. */
    return status == HTTP_UNAUTHORIZED || status == HTTP_FORBIDDEN;
}

/* When the oldest answer was asked for that a decision rests on; the account is always one. */
static apr_time_t oldest_answer(const abb_visit_t *visit)
{
    apr_time_t account_checked_at = visit->session->record.account_checked_at;
    apr_time_t oldest = visit->basis.oldest;

    return oldest && oldest < account_checked_at ? oldest : account_checked_at;
}

/*
 * What the decision rests on is as good as new, or is asked about while the
 * request goes on; and the application hears of it when that has failed.
 */
static void keep_fresh(abb_visit_t *visit, request_rec *r)
{
    const abb_visit_basis_t *basis = &visit->basis;
    const abb_site_t *site = visit->site;
    abb_session_t *session = visit->session;
    apr_time_t oldest = oldest_answer(visit);

    if (abb_record_age(oldest, &site->ages, visit->now) != ABB_RECORD_FRESH) {
        abb_recheck_t recheck = abb_visit_recheck(visit);
        abb_recheck_question_t question = {.account = 1,
                                           .workspaces = basis->workspaces,
                                           .workspace_count = basis->count,
                                           .since = visit->now - site->ages.soft};

        abb_background_recheck(site->background, r->server, &recheck, session, &question);
        if (session->failed_at > oldest) {
            visit->stale = visit->now - oldest;
            abb_pass_variables(visit, r);
        }
    }
}

/* The rows that the decision rests on, separated by spaces. */
static const char *basis_words(const abb_visit_basis_t *basis, apr_pool_t *p)
{
    const char *words = "";

    for (int i = 0; i < basis->count; ++i) {
        words = apr_pstrcat(p, words, i ? " " : "", basis->workspaces[i], NULL);
    }
    return abb_text_quotable(words, ROWS_TOLD_MAX, p);
}

static const char *outcome_word(const abb_visit_t *visit, int status)
{
    return visit->trouble.status != APR_SUCCESS          ? "undecided"
           : is_refusal(status) || visit->is_undecidable ? "refused"
           : status == OK                                ? "granted"
                                                         : "failed";
}

static const char *age_word(const abb_visit_t *visit, apr_time_t checked_at)
{
    switch (abb_record_age(checked_at, &visit->site->ages, visit->now)) {
    case ABB_RECORD_FRESH:
        return "fresh";
    case ABB_RECORD_DUE:
        return "due";
    default:
        return "old";
    }
}

/* At debug when Bitbucket was asked for it; what the record alone decided is seldom of interest. */
static void tell_decision(const abb_visit_t *visit, request_rec *r, int status)
{
    apr_time_t oldest = oldest_answer(visit);

    ap_log_rerror(APLOG_MARK, visit->has_asked ? APLOG_DEBUG : APLOG_TRACE1, 0, r,
                  ABB_LOGNO(0111) "decided; outcome=%s account=%s session=%s rows=\"%s\" "
                                  "age=%" APR_TIME_T_FMT " answers=%s asked=%s",
                  outcome_word(visit, status), visit->session->record.account.uuid,
                  visit->session->tag, basis_words(&visit->basis, r->pool),
                  apr_time_sec(visit->now - oldest), age_word(visit, oldest),
                  visit->has_asked ? "yes" : "no");
}

/* The session has ended while it was looked at. */
static int end_visit(abb_visit_t *visit, request_rec *r)
{
    if (visit->is_named) {
        return refuse_credential(visit, r);
    }
    visit->session = NULL;
    r->user = NULL;
    return ask_to_sign_in(visit, r);
}

/*
 * The application's token, where it gets one. Without a good one it gets none, as
 * Bitbucket would not answer it either.
 */
static apr_status_t ask_token(abb_visit_t *visit, request_rec *r)
{
    abb_error_t err;

    abb_error_clear(&err);
    return abb_config_place(r).passes_access_token && !visit->is_named
               ? abb_ask_token(visit, r, &err)
               : APR_SUCCESS;
}

static int conclude(abb_visit_t *visit, request_rec *r, int status)
{
    if (visit->trouble.status == APR_NOTFOUND) {
        return end_visit(visit, r);
    }
    if (visit->trouble.status != APR_SUCCESS) {
        return refuse(visit, r, &visit->trouble);
    }
    if (is_refusal(status) || visit->is_undecidable) {
        abb_refusal_offers_t offers =
            abb_visit_offers(visit, r, abb_request_return_path(r, visit->site->origin));

        count(visit, ABB_COUNT_REFUSAL);
        return abb_refusal_send_forbidden(r, &visit->session->record.account, visit->refused_by,
                                          &offers);
    }
    if (status == OK && visit->session->record.account.app_kind && !visit->is_account_named) {
        abb_refusal_offers_t offers = abb_visit_offers(visit, r, NULL);

        count(visit, ABB_COUNT_REFUSAL);
        return abb_refusal_send_forbidden(r, &visit->session->record.account,
                                          "a Require bitbucket-user line with the bot's {uuid}",
                                          &offers);
    }
    if (status == OK) {
        keep_fresh(visit, r);
        if (ask_token(visit, r) != APR_SUCCESS) {
            return end_visit(visit, r);
        }
        /* The rules may have asked, or ask_token: more is known, perhaps another name. */
        if ((visit->has_asked || visit->access_token) && (status = admit(visit, r)) != OK) {
            return status;
        }
        abb_preserve_admit(visit, r);
    }
    return status;
}

/* Have httpd's own rules decide, ours among them. */
static int decide(abb_visit_t *visit, request_rec *r)
{
    int status;

    memset(&visit->basis, 0, sizeof(visit->basis));
    abb_error_clear(&visit->trouble);
    visit->refused_by = NULL;
    visit->is_undecidable = 0;
    visit->is_account_named = 0;
    visit->is_deciding = 1;
    status = ap_run_auth_checker(r);
    visit->is_deciding = 0;
    return status;
}

/* When the oldest answer was asked for that a refusal rests on; 0: it rests on none. */
static apr_time_t oldest_reason(const abb_visit_t *visit)
{
    const abb_visit_basis_t *basis = &visit->basis;
    apr_time_t checked_at = visit->session->record.account_checked_at;

    return basis->names && (!basis->oldest || checked_at < basis->oldest) ? checked_at
                                                                          : basis->oldest;
}

/* Ask about everything that a refusal rests on, if that is of some age. Returns whether it was. */
static int ask_before_refusing(abb_visit_t *visit, request_rec *r)
{
    const abb_visit_basis_t *basis = &visit->basis;
    apr_time_t oldest = oldest_reason(visit);
    apr_time_t since = abb_authz_since(&visit->site->ages, 1, visit->now);
    abb_recheck_question_t question = {.account = basis->names,
                                       .workspaces = basis->workspaces,
                                       .workspace_count = basis->count,
                                       .since = since};

    if (!oldest || abb_record_is_since(oldest, since, visit->now)) {
        return 0;
    }
    return abb_ask_bitbucket(visit, r, &question, &visit->trouble) == APR_SUCCESS;
}

/* Whom the rules let in is nobody to the application, and whom they refuse may sign in. */
static int check_stranger(abb_visit_t *visit, request_rec *r)
{
    int status = decide(visit, r);

    r->user = NULL;
    return is_refusal(status) || visit->is_undecidable ? ask_to_sign_in(visit, r) : status;
}

/*
 * A rule looked up another address (-U of an expression), and there the session was not
 * good any more, or somebody else's credential counted: what was decided is about nobody.
 */
static int lose_visit(abb_visit_t *visit, request_rec *r)
{
    visit->session = NULL;
    visit->is_named = 0;
    r->user = NULL;
    return ask_to_sign_in(visit, r);
}

int abb_authn_check_access(request_rec *r)
{
    abb_visit_t *visit = abb_visit_find(r);
    const abb_session_t *session;
    int status;

    if (!visit || visit->is_deciding || !abb_config_is_used(r)) {
        return DECLINED;
    }
    if (!visit->session) {
        return visit->is_stranger ? check_stranger(visit, r) : DECLINED;
    }
    session = visit->session;
    status = decide(visit, r);
    /* Whoever has just been let in at Bitbucket is let in here. */
    for (int round = 0; round < ROUNDS_MAX && visit->session == session && is_refusal(status) &&
                        visit->trouble.status == APR_SUCCESS && ask_before_refusing(visit, r);
         ++round) {
        /* The name may be another now. */
        if ((status = admit(visit, r)) != OK) {
            return status;
        }
        status = decide(visit, r);
    }
    if (visit->session != session) {
        return lose_visit(visit, r);
    }
    if (APLOG_R_IS_LEVEL(r, APLOG_DEBUG)) {
        tell_decision(visit, r, status);
    }
    return conclude(visit, r, status);
}

/* ---- shared caches ------------------------------------------------------- */

static ap_filter_rec_t *private_filter;

static apr_status_t make_private(ap_filter_t *filter, apr_bucket_brigade *brigade)
{
    abb_request_make_private(filter->r);
    ap_remove_output_filter(filter);
    return ap_pass_brigade(filter->next, brigade);
}

void abb_authn_register_filter(void)
{
    private_filter = ap_register_output_filter("AUTH_BITBUCKET_PRIVATE", make_private, NULL,
                                               AP_FTYPE_CONTENT_SET);
}

void abb_authn_insert_filter(request_rec *r)
{
    const abb_visit_t *visit = r->main ? NULL : abb_visit_find(r);

    if (visit && visit->session && abb_config_place(r).is_private) {
        ap_add_output_filter_handle(private_filter, NULL, r, r->connection);
    }
}

int abb_authn_begin(request_rec *r)
{
    abb_visit_begin(r);
    return DECLINED;
}

/*
 * Where the rules let everybody in, httpd does not ask who it is; the application
 * may want to know all the same. Nothing is refused here.
 */
static void adopt_identity(request_rec *r)
{
    abb_visit_t *visit;
    abb_error_t err;

    if (r->user || r->main || !abb_config_is_used(r) ||
        abb_config_unauthenticated(r) != ABB_UNAUTHENTICATED_PASS || !(visit = abb_visit_of(r)) ||
        visit->is_named || has_credential(visit, r)) {
        return;
    }
    abb_error_clear(&err);
    if (abb_visit_find_session(visit, &err) == APR_SUCCESS &&
        renew_account(visit, r, &err) == APR_SUCCESS && ask_token(visit, r) == APR_SUCCESS &&
        identify(visit, r)) {
        memset(&visit->basis, 0, sizeof(visit->basis));
        keep_fresh(visit, r);
    }
}

int abb_authn_fixups_last(request_rec *r)
{
    abb_pass_renew(r);
    return DECLINED;
}

int abb_authn_fixups(request_rec *r)
{
    adopt_identity(r);
    abb_pass_complete(r);
    abb_refusal_restore_variables(r);
    return DECLINED;
}
