/* callback (floor 7): the way back from Bitbucket. See abb_callback.h. */
#include "abb_callback.h"

#include <apr_strings.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>
#include <http_main.h>

#include "abb_flow.h"
#include "abb_index.h"
#include "abb_log.h"
#include "abb_news.h"
#include "abb_text.h"

APLOG_USE_MODULE(auth_bitbucket);

/* When to come back who found too many waiting. */
#define CROWD_RETRY_AFTER apr_time_from_sec(2)
/* A kind of name; see abb_visit_name. Addresses bring credentials under another. */
#define CODE_ADDRESS_NAME 'c'

/* Whoever is told why has not signed in. */
static int fail(const abb_visit_t *visit, request_rec *r, const abb_error_t *err,
                const char *return_path)
{
    abb_counters_fail_sign_in(visit->site->bitbucket.counters, err->status);
    return abb_visit_refuse(visit, r, err, return_path);
}

static const char *attempt_cookie_name(const abb_visit_t *visit, request_rec *r, const char *state)
{
    abb_ticket_t ticket;

    return abb_ticket_parse_state(state, &ticket, NULL) == APR_SUCCESS
               ? apr_pstrcat(r->pool, visit->site->cookies.ticket_prefix,
                             abb_ticket_name(&ticket, r->pool), NULL)
               : NULL;
}

/* Which attempt a callback says it is: 0 when its state is none of ours. */
static int attempt_number(const abb_login_callback_t *callback)
{
    abb_ticket_t ticket;

    return abb_ticket_parse_state(callback->state, &ticket, NULL) == APR_SUCCESS ? ticket.attempt
                                                                                 : 0;
}

/*
 * A callback that belongs to no open attempt: stale, repeated, or from a browser
 * that keeps no cookies. With a session there is nothing to do but go on;
 * without one the sign-in starts once more; the second time it is explained.
 */
static int heal(abb_visit_t *visit, request_rec *r, const abb_login_callback_t *callback,
                const char *return_path, const abb_error_t *err)
{
    abb_login_t login = abb_visit_login(visit);
    const char *recalled = abb_login_recall(&login, callback, apr_time_now(), r->pool);

    return_path = return_path ? return_path : recalled ? recalled : "/";
    if (callback->code && abb_visit_find_session(visit, NULL) == APR_SUCCESS) {
        return abb_request_redirect(r, HTTP_SEE_OTHER, return_path);
    }
    if (callback->code && attempt_number(callback) == 1) {
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, ABB_LOGNO(0202) "sign-in starts once more: %s",
                      err->text);
        return abb_visit_begin_login(visit, r, return_path, 2);
    }
    return fail(visit, r, err, return_path);
}

/* Where an attempt led whose cookie had to make room for others, or NULL. */
static const char *remembered_way(const abb_visit_t *visit, const char *state)
{
    const abb_site_t *site = visit->site;
    abb_ticket_t ticket;

    return abb_ticket_parse_state(state, &ticket, NULL) == APR_SUCCESS
               ? abb_ticket_find_way(
                     abb_cookie_find(visit->cookies.line, site->cookies.ways_name, visit->pool),
                     site->tickets, &ticket, apr_time_now(), visit->pool)
               : NULL;
}

/* Say what was seen of the browser's cookies when that of the attempt is missing. */
static void measure_cookies(const abb_visit_t *visit, const char *name, abb_error_t *err)
{
    if (name && !abb_cookie_find(visit->cookies.line, name, visit->pool)) {
        abb_error_clear(err);
        abb_error_set(err, ABB_EATTEMPT,
                      visit->cookies.line
                          ? "the browser brought other cookies, but not that of this sign-in"
                          : "the browser brought no cookie at all");
    }
}

static void end_previous_session(abb_visit_t *visit, request_rec *r)
{
    if (abb_visit_find_session(visit, NULL) == APR_SUCCESS) {
        abb_session_drop(&visit->site->sessions, visit->session, NULL);
    }
}

/* A new session may have pushed out others: say so, of all processes one, once a minute. */
static void warn_of_full_store(const abb_visit_t *visit, request_rec *r)
{
    apr_int64_t count = abb_store_take_evictions(visit->site->sessions.store, apr_time_now());
    abb_cache_settings_t now = abb_config_cache(ap_server_conf);
    abb_cache_settings_t better = now;

    if (count > 0) {
        better.size *= 2;
        ap_log_rerror(APLOG_MARK, APLOG_WARNING, 0, r,
                      ABB_LOGNO(0206) "the session store is full: %" APR_INT64_T_FMT
                                      " sessions, the longest unused, ended early; instead of %s "
                                      "write AuthBitbucketSessionCache %s",
                      count, abb_config_cache_text(&now, r->pool),
                      abb_config_cache_text(&better, r->pool));
    }
}

static const char *recent_cookie(const abb_visit_t *visit)
{
    return abb_cookie_find(visit->cookies.line, visit->site->cookies.recent_name, visit->pool);
}

static void count_sign_in(const abb_visit_t *visit, request_rec *r)
{
    const char *value;

    if (abb_ticket_add_recent(recent_cookie(visit), visit->site->tickets, apr_time_now(), &value,
                              r->pool, NULL) == APR_SUCCESS) {
        abb_request_set_cookie(r, &visit->site->cookies, visit->site->cookies.recent_name, value,
                               (int)apr_time_sec(ABB_TICKET_RECENT_TIME));
    }
}

/* What the browser has to show for its sign-ins. */
static const char *describe_session(abb_visit_t *visit)
{
    switch (abb_visit_find_session(visit, NULL)) {
    case APR_SUCCESS:
        return "begins another although it is signed in";
    case APR_NOTFOUND:
        return visit->cookies.session ? "brings a session that is not there"
                                      : "brings no session cookie";
    default:
        return "brings a session that cannot be looked up";
    }
}

/* A browser that signs in again and again burns what Bitbucket allows its user. */
static int is_in_a_loop(abb_visit_t *visit, request_rec *r, abb_error_t *err)
{
    int count = abb_ticket_count_recent(recent_cookie(visit), visit->site->tickets, apr_time_now(),
                                        r->pool);

    if (count < ABB_TICKET_RECENT_MAX) {
        return 0;
    }
    abb_error_set(err, ABB_ELOOP, "this browser has completed %d sign-ins within a minute and %s",
                  count, describe_session(visit));
    return 1;
}

/* What was granted must cover what the rules need, or some of them cannot be decided later. */
static void tell_of_missing_scopes(const abb_visit_t *visit, request_rec *r, const char *granted)
{
    const apr_array_header_t *needs = visit->site->needs;
    const char *missing = NULL;
    const char *labels = NULL;

    for (int i = 0; granted && i < needs->nelts; ++i) {
        const abb_config_need_t *need = &APR_ARRAY_IDX(needs, i, abb_config_need_t);

        if (!abb_account_has_scope(granted, need->scope)) {
            missing = apr_pstrcat(r->pool, missing ? missing : "", missing ? ", nor '" : "'",
                                  need->scope, "', which ", need->why, " needs", NULL);
            labels = apr_pstrcat(r->pool, labels ? labels : "", labels ? " and '" : "'",
                                 abb_account_scope_label(need->scope), "'", NULL);
        }
    }
    abb_news_scopes(r->server, visit->site->bitbucket.traffic, missing, labels);
}

/* Where an account may have so many sessions only, the first of more ends. */
static apr_status_t note_session(const abb_visit_t *visit, request_rec *r,
                                 const abb_session_t *session, abb_error_t *err)
{
    const abb_sessions_t *sessions = &visit->site->sessions;
    int ended;
    apr_status_t status = abb_index_add(sessions, session, apr_time_now(), &ended, r->pool, err);

    if (ended > 0) {
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r,
                      ABB_LOGNO(0208) "ended for a newer session; account=%s count=%d limit=%d",
                      session->record.account.uuid, ended,
                      sessions->max_per_account ? sessions->max_per_account
                                                : ABB_SESSION_PER_ACCOUNT_MAX);
    }
    return status;
}

static int welcome(abb_visit_t *visit, request_rec *r, const abb_login_result_t *result)
{
    const abb_account_t *account = &result->session->record.account;
    const char *workspaces = abb_identity_workspaces(&result->session->record, r->pool);
    abb_error_t err;

    abb_error_clear(&err);
    end_previous_session(visit, r);
    if (note_session(visit, r, result->session, &err) != APR_SUCCESS) {
        return fail(visit, r, &err, result->return_path);
    }
    warn_of_full_store(visit, r);
    count_sign_in(visit, r);
    abb_request_set_cookie(r, &visit->site->cookies, visit->site->cookies.session_name,
                           result->cookie, 0);
    ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r,
                  ABB_LOGNO(0203) "signed in; account=%s session=%s workspaces=\"%s\"",
                  account->uuid, result->session->tag, workspaces ? workspaces : "");
    if (result->doubt) {
        ap_log_rerror(APLOG_MARK, APLOG_WARNING, 0, r,
                      ABB_LOGNO(0204) "signed in with less than was asked; account=%s: %s",
                      account->uuid, result->doubt);
    }
    abb_counters_add(visit->site->bitbucket.counters, ABB_COUNT_SIGN_IN, visit->now);
    tell_of_missing_scopes(visit, r, result->scope);
    abb_counters_change(visit->site->bitbucket.counters, result->change, visit->now);
    abb_news_change(r->server, visit->site->bitbucket.traffic, result->change);
    abb_news_alarm(r->server, visit->site->bitbucket.traffic, result->alarm);
    return abb_request_redirect(r, HTTP_SEE_OTHER, result->return_path);
}

/* The code is not used, and the attempt's cookie stays: the same address works later. */
static int refuse_crowd(abb_visit_t *visit, request_rec *r, const abb_ticket_t *ticket)
{
    abb_error_t err;

    abb_error_clear(&err);
    abb_error_set(&err, ABB_EBUSY, "too many requests wait for Bitbucket already");
    err.retry_after = CROWD_RETRY_AFTER;
    abb_visit_tell_crowd(visit, r);
    return fail(visit, r, &err, ticket->return_path);
}

/* Codes that anybody can make up cost a call each: an address may bring so many wrong ones. */
static apr_status_t check_address(const abb_visit_t *visit, apr_uint64_t address, abb_error_t *err)
{
    apr_interval_time_t wait = abb_throttle_wait(visit->site->throttle, address, apr_time_now());

    if (wait) {
        abb_error_set(err, ABB_ECODES, "%d codes from this address were wrong within a minute",
                      ABB_THROTTLE_ADDRESS_MAX);
        err->retry_after = wait;
        return ABB_ECODES;
    }
    return APR_SUCCESS;
}

/* Send the code, unless another request with it came first. */
static apr_status_t use_code(abb_visit_t *visit, request_rec *r,
                             const abb_login_callback_t *callback, const abb_ticket_t *ticket,
                             abb_login_result_t *result, abb_error_t *err)
{
    abb_flow_t flow = {r, r->server};
    abb_login_t login = abb_visit_login(visit);

    login.bitbucket = abb_flow_watch(&flow, login.bitbucket, r->pool);
    return abb_visit_claim(visit, ticket)
               ? abb_login_finish(&login, callback, ticket, visit->site->workspaces, apr_time_now(),
                                  result, r->pool, err)
               : abb_error_set(err, ABB_EATTEMPT,
                               "another request has already sent the code of this sign-in");
}

/* Others from there may have been found wrong while this one waited for its place. */
static apr_status_t send_code(abb_visit_t *visit, request_rec *r,
                              const abb_login_callback_t *callback, const abb_ticket_t *ticket,
                              apr_uint64_t address, abb_login_result_t *result, abb_error_t *err)
{
    apr_status_t status = check_address(visit, address, err);

    if (status == APR_SUCCESS) {
        status = use_code(visit, r, callback, ticket, result, err);
    }
    if (status == ABB_EGRANT) {
        abb_throttle_note_wrong(visit->site->throttle, address, apr_time_now());
    }
    return status;
}

static int finish_login(abb_visit_t *visit, request_rec *r, const abb_login_callback_t *callback,
                        const abb_ticket_t *ticket, const char *ticket_cookie)
{
    abb_login_result_t result;
    abb_gate_place_t place;
    apr_uint64_t address;
    abb_error_t err;
    apr_status_t status;

    abb_error_clear(&err);
    if (is_in_a_loop(visit, r, &err)) {
        abb_request_delete_cookie(r, &visit->site->cookies, ticket_cookie);
        return fail(visit, r, &err, ticket->return_path);
    }
    /* As below: the code is not used, and the same address works later. */
    if (abb_visit_name_network(visit, r, CODE_ADDRESS_NAME, &address, &err) != APR_SUCCESS ||
        check_address(visit, address, &err) != APR_SUCCESS) {
        return fail(visit, r, &err, ticket->return_path);
    }
    if (!abb_visit_enter_patiently(visit, &place)) {
        return refuse_crowd(visit, r, ticket);
    }
    status = send_code(visit, r, callback, ticket, address, &result, &err);
    abb_visit_leave(visit, &place);
    if (status != ABB_ECODES) {
        abb_request_delete_cookie(r, &visit->site->cookies, ticket_cookie);
    }
    if (status == APR_SUCCESS) {
        return welcome(visit, r, &result);
    }
    return status == ABB_EATTEMPT || status == ABB_EGRANT
               ? heal(visit, r, callback, ticket->return_path, &err)
               : fail(visit, r, &err, ticket->return_path);
}

/*
 * Take the query out of the request: a code is a credential, and access logs and
 * modules that come later would keep it.
 */
static const char *take_query(request_rec *r)
{
    const char *query = r->args;

    r->args = NULL;
    r->unparsed_uri = r->uri;
    r->the_request = apr_pstrcat(r->pool, r->method, " ", r->uri, " ", r->protocol, NULL);
    return query;
}

/*
 * Several tabs began to sign in, and another has come back first. This one just
 * goes on to its page; its code is not used.
 */
static int was_signed_in_meanwhile(abb_visit_t *visit, const abb_ticket_t *ticket)
{
    return abb_visit_find_session(visit, NULL) == APR_SUCCESS &&
           visit->session->record.created_at >= ticket->issued_at;
}

/*
 * With a query that can be read: finish the attempt it belongs to, or say why not.
 * late: as in take_handover.
 */
static int finish(abb_visit_t *visit, request_rec *r, const abb_login_callback_t *callback,
                  const abb_error_t *late)
{
    abb_login_t login = abb_visit_login(visit);
    const char *name = attempt_cookie_name(visit, r, callback->state);
    const char *cookie = name ? abb_cookie_find(visit->cookies.line, name, r->pool) : NULL;
    abb_ticket_t ticket;
    abb_error_t err;

    abb_error_clear(&err);
    if (abb_login_open_attempt(&login, callback, cookie, apr_time_now(), &ticket, r->pool, &err) !=
        APR_SUCCESS) {
        measure_cookies(visit, name, &err);
        return heal(
            visit, r, callback,
            ticket.return_path ? ticket.return_path : remembered_way(visit, callback->state), &err);
    }
    ap_log_rerror(APLOG_MARK, APLOG_DEBUG, 0, r,
                  ABB_LOGNO(0210) "back from Bitbucket; attempt=%d age=%" APR_TIME_T_FMT
                                  " state=ok brings=%s",
                  ticket.attempt, apr_time_sec(apr_time_now() - ticket.issued_at),
                  callback->error ? "error" : "code");
    if (was_signed_in_meanwhile(visit, &ticket)) {
        abb_request_delete_cookie(r, &visit->site->cookies, name);
        return abb_request_redirect(r, HTTP_SEE_OTHER, ticket.return_path);
    }
    if (late->status != APR_SUCCESS) {
        abb_request_delete_cookie(r, &visit->site->cookies, name);
        return heal(visit, r, callback, ticket.return_path, late);
    }
    if (callback->error) {
        abb_request_delete_cookie(r, &visit->site->cookies, name);
        abb_login_explain_refusal(callback, &err);
        return fail(visit, r, &err, ticket.return_path);
    }
    return finish_login(visit, r, callback, &ticket, name);
}

/* ---- one callback for many sites ----------------------------------------- */

/* A sign-in began at another site: send its browser there with what Bitbucket said. */
static int hand_on(abb_visit_t *visit, request_rec *r, const char *state, const char *query)
{
    const abb_site_t *hub = visit->site;
    const abb_hub_site_t *site = abb_hub_find(hub->served, state);
    const char *handover;
    abb_error_t err;

    abb_error_clear(&err);
    if (!site) {
        abb_error_set(
            &err, ABB_EINPUT,
            "the sign-in began at a site that AuthBitbucketCallbackFor of %s does not name",
            hub->origin);
        return fail(visit, r, &err, NULL);
    }
    if (abb_hub_hand_on(site, query, apr_time_now(), &handover, r->pool, &err) != APR_SUCCESS) {
        return fail(visit, r, &err, NULL);
    }
    ap_log_rerror(APLOG_MARK, APLOG_DEBUG, 0, r, ABB_LOGNO(0207) "sign-in handed on to %s",
                  site->origin);
    return abb_request_redirect(r, HTTP_SEE_OTHER,
                                apr_pstrcat(r->pool, site->origin, hub->callback_path,
                                            "?" ABB_HUB_PARAMETER "=", handover, NULL));
}

/*
 * What Bitbucket said, as the hub has handed it on. *late is why it came too late;
 * then the callback says only which attempt it was.
 */
static apr_status_t take_handover(const abb_visit_t *visit, const char *query,
                                  abb_login_callback_t *callback, abb_error_t *late,
                                  abb_error_t *err)
{
    const abb_site_t *site = visit->site;
    const char *handover;
    const char *handed;
    apr_table_t *values;
    apr_status_t status;

    if ((status = abb_text_query_parse(query, &values, visit->pool, err)) != APR_SUCCESS) {
        return status;
    }
    if (!(handover = apr_table_get(values, ABB_HUB_PARAMETER))) {
        return abb_error_set(
            err, ABB_EINPUT,
            "the sign-ins of this site return by way of %s, with " ABB_HUB_PARAMETER
            " in the query",
            site->bitbucket.redirect_uri);
    }
    abb_hub_take(site->handovers, handover, apr_time_now(), &handed, visit->pool, late);
    if (!handed) {
        *err = *late;
        return err->status;
    }
    return abb_login_read_callback(handed, callback, visit->pool, err);
}

/* ---- the whole ----------------------------------------------------------- */

/* Read what Bitbucket said, straight or handed on. *late as in take_handover. */
static apr_status_t read_query(const abb_visit_t *visit, const char *query,
                               abb_login_callback_t *callback, abb_error_t *late, abb_error_t *err)
{
    const char *mark = visit->site->mark;
    apr_status_t status;

    if (!mark) {
        return abb_login_read_callback(query, callback, visit->pool, err);
    }
    if ((status = take_handover(visit, query, callback, late, err)) == APR_SUCCESS) {
        callback->state = abb_hub_unmark(callback->state, mark, visit->pool);
    }
    return status;
}

int abb_callback_handle(abb_visit_t *visit, request_rec *r)
{
    const char *query = take_query(r);
    abb_login_callback_t callback;
    abb_error_t late;
    abb_error_t err;

    /* A code is used up by its use, so nothing but a page load may bring it. */
    if (r->method_number != M_GET || r->header_only) {
        return abb_request_only_get(r, NULL);
    }
    abb_error_clear(&late);
    abb_error_clear(&err);
    if (read_query(visit, query, &callback, &late, &err) != APR_SUCCESS) {
        return fail(visit, r, &err, NULL);
    }
    if (!visit->site->mark && abb_hub_is_marked(callback.state)) {
        return hand_on(visit, r, callback.state, query);
    }
    return finish(visit, r, &callback, &late);
}
