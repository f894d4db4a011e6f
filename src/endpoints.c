/* endpoints (floor 7): login, callback, logout, userinfo. See abb_endpoints.h. */
#include "abb_endpoints.h"

#include <apr_strings.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>
#include <http_main.h>
#include <http_request.h>

#include "abb_log.h"
#include "abb_news.h"
#include "abb_text.h"
#include "abb_visit.h"

APLOG_USE_MODULE(auth_bitbucket);

/* Largest form of the sign-out page, in bytes. */
#define LOGOUT_FORM_MAX 8192
/* When to come back who found too many waiting. */
#define CROWD_RETRY_AFTER apr_time_from_sec(2)

static int refuse(abb_visit_t *visit, request_rec *r, const abb_error_t *err,
                  const char *return_path)
{
    abb_refusal_offers_t offers = abb_visit_offers(visit, r, return_path);

    return abb_refusal_send(r, err, &offers);
}

/* httpd writes the Allow header of a 405 itself; GET stands for HEAD too. also: may be NULL. */
static int only_get(request_rec *r, const char *also)
{
    ap_allow_methods(r, REPLACE_ALLOW, "GET", also, NULL);
    return HTTP_METHOD_NOT_ALLOWED;
}

/* The `return` parameter if it is fit, else "/"; *is_given tells whether it was there at all. */
static const char *return_parameter(const abb_visit_t *visit, request_rec *r, const char *value)
{
    const char *path = abb_text_local_path(value, visit->site->origin);

    if (value && !path) {
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r,
                      ABB_LOGNO(0201) "return address refused, using / instead: %s",
                      abb_text_loggable(value, 200, r->pool));
    }
    return path ? path : "/";
}

/* The query of an endpoint of ours; NULL after an answer was made for a bad one. */
static const apr_table_t *query_of(abb_visit_t *visit, request_rec *r, int *status)
{
    apr_table_t *query;
    abb_error_t err;

    abb_error_clear(&err);
    if (abb_text_query_parse(r->args, &query, r->pool, &err) != APR_SUCCESS) {
        *status = refuse(visit, r, &err, NULL);
        return NULL;
    }
    return query;
}

/* ---- login --------------------------------------------------------------- */

static int handle_login(abb_visit_t *visit, request_rec *r)
{
    const apr_table_t *query;
    const char *return_path;
    abb_request_kind_t kind = abb_request_kind(r);
    int status = OK;

    if (r->method_number != M_GET) {
        return only_get(r, NULL);
    }
    if (!(query = query_of(visit, r, &status))) {
        return status;
    }
    return_path = return_parameter(visit, r, apr_table_get(query, "return"));
    if (kind == ABB_REQUEST_FRAME) {
        abb_refusal_offers_t offers = abb_visit_offers(visit, r, return_path);

        return abb_refusal_send_unauthenticated(r, kind, &offers);
    }
    return abb_visit_begin_login(visit, r, return_path, 1);
}

/* ---- callback ------------------------------------------------------------ */

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
    return refuse(visit, r, err, return_path);
}

/* Say what was seen of the browser's cookies when that of the attempt is missing. */
static void measure_cookies(const abb_visit_t *visit, const char *name, abb_error_t *err)
{
    if (name && !abb_request_find_cookie(visit->cookies.line, name, visit->pool)) {
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
    return abb_request_find_cookie(visit->cookies.line, visit->site->cookies.recent_name,
                                   visit->pool);
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

/* A browser that signs in again and again burns what Bitbucket allows its user. */
static int is_in_a_loop(const abb_visit_t *visit, request_rec *r, abb_error_t *err)
{
    int count = abb_ticket_count_recent(recent_cookie(visit), visit->site->tickets, apr_time_now(),
                                        r->pool);

    if (count < ABB_TICKET_RECENT_MAX) {
        return 0;
    }
    abb_error_set(err, ABB_ELOOP,
                  "this browser has completed %d sign-ins within a minute and brings %s", count,
                  visit->cookies.session ? "a session that is not there" : "no session cookie");
    return 1;
}

static int welcome(abb_visit_t *visit, request_rec *r, const abb_login_result_t *result)
{
    const abb_account_t *account = &result->session->record.account;
    const char *workspaces = abb_request_workspaces(&result->session->record, r->pool);

    end_previous_session(visit, r);
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
    abb_news_change(r->server, visit->site->bitbucket.traffic, result->change);
    abb_news_alarm(r->server, visit->site->bitbucket.traffic, result->alarm);
    return abb_request_redirect(r, HTTP_SEE_OTHER, result->return_path);
}

static int finish_login(abb_visit_t *visit, request_rec *r, const abb_login_callback_t *callback,
                        const abb_ticket_t *ticket, const char *ticket_cookie)
{
    abb_login_t login = abb_visit_login(visit);
    abb_login_result_t result;
    abb_gate_place_t place;
    abb_error_t err;
    apr_status_t status;

    abb_error_clear(&err);
    if (is_in_a_loop(visit, r, &err)) {
        abb_request_delete_cookie(r, &visit->site->cookies, ticket_cookie);
        return refuse(visit, r, &err, ticket->return_path);
    }
    if (!abb_visit_enter_patiently(visit, &place)) {
        /* The code is not used, and the attempt's cookie stays: the same address works later. */
        abb_error_set(&err, ABB_EBUSY, "too many requests wait for Bitbucket already");
        err.retry_after = CROWD_RETRY_AFTER;
        abb_visit_tell_crowd(visit, r);
        return refuse(visit, r, &err, ticket->return_path);
    }
    abb_request_delete_cookie(r, &visit->site->cookies, ticket_cookie);
    status = abb_login_finish(&login, callback, ticket, visit->site->workspaces, apr_time_now(),
                              &result, r->pool, &err);
    abb_visit_leave(visit, &place);
    if (status == APR_SUCCESS) {
        return welcome(visit, r, &result);
    }
    return status == ABB_EATTEMPT || status == ABB_EGRANT
               ? heal(visit, r, callback, ticket->return_path, &err)
               : refuse(visit, r, &err, ticket->return_path);
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

static int handle_callback(abb_visit_t *visit, request_rec *r)
{
    const char *query = take_query(r);
    abb_login_t login = abb_visit_login(visit);
    abb_login_callback_t callback;
    abb_ticket_t ticket;
    abb_error_t err;
    const char *name;

    /* A code is used up by its use, so nothing but a page load may bring it. */
    if (r->method_number != M_GET || r->header_only) {
        return only_get(r, NULL);
    }
    abb_error_clear(&err);
    if (abb_login_read_callback(query, &callback, r->pool, &err) != APR_SUCCESS) {
        return refuse(visit, r, &err, NULL);
    }
    name = attempt_cookie_name(visit, r, callback.state);
    if (abb_login_open_attempt(&login, &callback,
                               name ? abb_request_find_cookie(visit->cookies.line, name, r->pool)
                                    : NULL,
                               apr_time_now(), &ticket, r->pool, &err) != APR_SUCCESS) {
        measure_cookies(visit, name, &err);
        return heal(visit, r, &callback, NULL, &err);
    }
    if (was_signed_in_meanwhile(visit, &ticket)) {
        abb_request_delete_cookie(r, &visit->site->cookies, name);
        return abb_request_redirect(r, HTTP_SEE_OTHER, ticket.return_path);
    }
    if (callback.error) {
        abb_request_delete_cookie(r, &visit->site->cookies, name);
        abb_login_explain_refusal(&callback, &err);
        return refuse(visit, r, &err, ticket.return_path);
    }
    return finish_login(visit, r, &callback, &ticket, name);
}

/* ---- logout -------------------------------------------------------------- */

static void begin_page(abb_page_t *page, request_rec *r)
{
    memset(page, 0, sizeof(*page));
    page->site = ap_auth_name(r);
}

static int show_signed_out(abb_visit_t *visit, request_rec *r, const char *return_path)
{
    abb_page_t page;

    begin_page(&page, r);
    page.heading = "You are signed out";
    page.text = "This site has forgotten your sign-in. At Bitbucket itself you are still signed "
                "in: to end that too, sign out there.";
    abb_page_add_link(&page, "Continue", return_path);
    abb_page_add_link(&page, "Sign in again", abb_visit_login_url(visit, r, return_path));
    return abb_request_send_page(r, HTTP_OK, &page);
}

static int show_confirmation(abb_visit_t *visit, request_rec *r, const char *return_path)
{
    const abb_account_t *account = &visit->session->record.account;
    abb_error_t err;
    abb_page_t page;

    abb_error_clear(&err);
    begin_page(&page, r);
    if (abb_session_form_token(visit->session, &page.form_token, r->pool, &err) != APR_SUCCESS) {
        return refuse(visit, r, &err, return_path);
    }
    page.heading = "Sign out?";
    page.text = "This ends your sign-in at this site. At Bitbucket itself you stay signed in.";
    abb_page_add_fact(&page, "Signed in as",
                      account->display_name ? account->display_name : account->uuid);
    page.form_action = visit->site->logout_path;
    page.form_label = "Sign out";
    page.form_return = return_path;
    abb_page_add_link(&page, "Stay signed in", return_path);
    return abb_request_send_page(r, HTTP_OK, &page);
}

static int sign_out(abb_visit_t *visit, request_rec *r, const char *return_path)
{
    abb_error_t err;
    apr_status_t status;

    abb_error_clear(&err);
    status = abb_session_drop(&visit->site->sessions, visit->session, &err);
    if (status != APR_SUCCESS && status != APR_NOTFOUND) {
        return refuse(visit, r, &err, return_path);
    }
    ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, ABB_LOGNO(0205) "signed out; account=%s session=%s",
                  visit->session->record.account.uuid, visit->session->tag);
    abb_request_delete_cookie(r, &visit->site->cookies, visit->site->cookies.session_name);
    return show_signed_out(visit, r, return_path);
}

static int handle_logout_form(abb_visit_t *visit, request_rec *r)
{
    const char *body = abb_request_read_form(r, LOGOUT_FORM_MAX);
    const char *return_path;
    apr_table_t *form;
    abb_error_t err;

    abb_error_clear(&err);
    if (!body) {
        abb_error_set(&err, ABB_EINPUT, "the sign-out form has another type or is too long");
        return refuse(visit, r, &err, NULL);
    }
    if (abb_text_query_parse(body, &form, r->pool, &err) != APR_SUCCESS) {
        return refuse(visit, r, &err, NULL);
    }
    return_path = return_parameter(visit, r, apr_table_get(form, "return"));
    /* Without the page's token another site may have sent it: ask first. */
    return abb_session_is_form_token(visit->session, apr_table_get(form, "token"), r->pool)
               ? sign_out(visit, r, return_path)
               : show_confirmation(visit, r, return_path);
}

static int handle_logout(abb_visit_t *visit, request_rec *r)
{
    const apr_table_t *query;
    const char *return_path;
    abb_error_t err;
    apr_status_t found;
    int status = OK;

    if (r->method_number != M_GET && r->method_number != M_POST) {
        return only_get(r, "POST");
    }
    if (!(query = query_of(visit, r, &status))) {
        return status;
    }
    return_path = return_parameter(visit, r, apr_table_get(query, "return"));
    abb_error_clear(&err);
    found = abb_visit_find_session(visit, &err);
    if (found == APR_NOTFOUND) {
        return show_signed_out(visit, r, return_path);
    }
    if (found != APR_SUCCESS) {
        return refuse(visit, r, &err, return_path);
    }
    return r->method_number == M_POST ? handle_logout_form(visit, r)
                                      : show_confirmation(visit, r, return_path);
}

/* ---- userinfo ------------------------------------------------------------ */

static const char *workspaces_json(const abb_record_t *record, apr_pool_t *p)
{
    const char *json = "";

    for (int i = 0; i < record->grant_count; ++i) {
        const abb_grant_t *grant = &record->grants[i];

        if (grant->role > ABB_ROLE_NONE && grant->role <= ABB_ROLE_OWNER) {
            json = apr_pstrcat(
                p, json, *json ? "," : "", "{\"slug\":", abb_text_json(grant->slug, p),
                ",\"uuid\":", abb_text_json(grant->uuid, p),
                ",\"role\":", abb_text_json(abb_account_role_word(grant->role), p), "}", NULL);
        }
    }
    return json;
}

static const char *userinfo_json(const abb_session_t *session, const char *raw_user, apr_pool_t *p)
{
    const abb_account_t *account = &session->record.account;
    const char *first;
    const char *last;

    abb_account_split_name(account->display_name, &first, &last, p);
    return apr_pstrcat(
        p, "{\"provider\":\"bitbucket\",\"oauth_id\":", abb_text_json(account->uuid, p),
        ",\"account_id\":", abb_text_json(account->account_id, p),
        ",\"email\":", abb_text_json(account->email, p),
        ",\"email_verified\":", account->email ? "true" : "false",
        ",\"username\":", abb_text_json(account->username, p),
        ",\"nickname\":", abb_text_json(account->nickname, p),
        ",\"display_name\":", abb_text_json(account->display_name, p),
        ",\"first_name\":", abb_text_json(first, p), ",\"last_name\":", abb_text_json(last, p),
        ",\"avatar_url\":", abb_text_json(account->avatar_url, p),
        ",\"profile_url\":", abb_text_json(account->profile_url, p), ",\"workspaces\":[",
        workspaces_json(&session->record, p),
        "],\"expires_at\":", apr_psprintf(p, "%" APR_TIME_T_FMT, apr_time_sec(session->expires_at)),
        ",\"raw_data\":", raw_user ? raw_user : "null", "}\n", NULL);
}

static int handle_userinfo(abb_visit_t *visit, request_rec *r)
{
    abb_record_private_t private_part;
    abb_error_t err;
    apr_status_t status;

    if (r->method_number != M_GET) {
        return only_get(r, NULL);
    }
    abb_error_clear(&err);
    status = abb_visit_find_session(visit, &err);
    if (status == APR_SUCCESS) {
        status = abb_session_reload(&visit->site->sessions, visit->session, apr_time_now(),
                                    &private_part, r->pool, &err);
    }
    if (status == APR_NOTFOUND || status == ABB_ESEAL) {
        abb_refusal_offers_t offers = abb_visit_offers(visit, r, NULL);

        return abb_refusal_send_unauthenticated(r, ABB_REQUEST_JSON, &offers);
    }
    return status == APR_SUCCESS
               ? abb_request_send_json(
                     r, HTTP_OK, userinfo_json(visit->session, private_part.raw_user, r->pool))
               : refuse(visit, r, &err, NULL);
}

/* ---- dispatch ------------------------------------------------------------ */

int abb_endpoints_handle(request_rec *r, int lookup)
{
    const abb_site_t *site = abb_config_site(r->server);
    const char *path = r->uri;

    if (!site || lookup || r->main || r->proxyreq || !path) {
        return DECLINED;
    }
    if (strcmp(path, site->callback_path) == 0) {
        return handle_callback(abb_visit_of(r), r);
    }
    if (strcmp(path, site->login_path) == 0) {
        return handle_login(abb_visit_of(r), r);
    }
    if (strcmp(path, site->logout_path) == 0) {
        return handle_logout(abb_visit_of(r), r);
    }
    if (strcmp(path, site->userinfo_path) == 0) {
        return handle_userinfo(abb_visit_of(r), r);
    }
    abb_visit_expect_session(r);
    return DECLINED;
}
