/* endpoints (floor 8): login, logout, userinfo, and who answers the rest. See abb_endpoints.h. */
#include "abb_endpoints.h"

#include <apr_strings.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>
#include <http_main.h>
#include <http_request.h>
#include <util_filter.h>

#include "abb_callback.h"
#include "abb_log.h"
#include "abb_preserve.h"
#include "abb_text.h"
#include "abb_visit.h"

APLOG_USE_MODULE(auth_bitbucket);

/* Largest form of the sign-out page, in bytes. */
#define LOGOUT_FORM_MAX 8192

/* The `return` parameter if it is fit, else "/". */
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
        *status = abb_visit_refuse(visit, r, &err, NULL);
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
        return abb_request_only_get(r, NULL);
    }
    if (!(query = query_of(visit, r, &status))) {
        return status;
    }
    return_path = return_parameter(visit, r, apr_table_get(query, "return"));
    if (kind == ABB_REQUEST_FRAME || abb_request_denies_navigation(r)) {
        abb_refusal_offers_t offers = abb_visit_offers(visit, r, return_path);

        /* Credentials are looked at in protected places only. */
        offers.takes_basic = 0;
        return abb_refusal_send_unauthenticated(r, kind, &offers);
    }
    return abb_visit_begin_login(visit, r, return_path, 1);
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
        return abb_visit_refuse(visit, r, &err, return_path);
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
        return abb_visit_refuse(visit, r, &err, return_path);
    }
    ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, ABB_LOGNO(0205) "signed out; account=%s session=%s",
                  visit->session->record.account.uuid, visit->session->tag);
    abb_counters_add(visit->site->bitbucket.counters, ABB_COUNT_SIGN_OUT, visit->now);
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
        return abb_visit_refuse(visit, r, &err, NULL);
    }
    if (abb_text_query_parse(body, &form, r->pool, &err) != APR_SUCCESS) {
        return abb_visit_refuse(visit, r, &err, NULL);
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
        return abb_request_only_get(r, "POST");
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
        return abb_visit_refuse(visit, r, &err, return_path);
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

static const char *userinfo_json(const abb_visit_t *visit, const char *raw_user, apr_pool_t *p)
{
    const abb_session_t *session = visit->session;
    const abb_account_t *account = &session->record.account;
    const abb_record_t *current =
        abb_record_without_old(&session->record, &visit->site->ages, visit->now, p);
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
        workspaces_json(current, p),
        "],\"expires_at\":", apr_psprintf(p, "%" APR_TIME_T_FMT, apr_time_sec(session->expires_at)),
        ",\"raw_data\":", raw_user ? raw_user : "null", "}\n", NULL);
}

/*
 * Have the administrator's Header lines in the answer, also those of a <Location>: nothing
 * of that kind has happened yet, and pages of other origins may read nothing without. Filters
 * of other modules stay out: httpd prepares some of them only where a handler answers.
 */
static void admit_headers(request_rec *r)
{
    ap_filter_rec_t *headers = ap_get_output_filter_handle("FIXUP_HEADERS_OUT");

    if (headers && ap_location_walk(r) == OK) {
        ap_add_output_filter_handle(headers, NULL, r, r->connection);
    }
}

static int handle_userinfo(abb_visit_t *visit, request_rec *r)
{
    abb_record_private_t private_part;
    abb_error_t err;
    apr_status_t status;

    admit_headers(r);
    if (r->method_number != M_GET) {
        return abb_request_only_get(r, NULL);
    }
    abb_error_clear(&err);
    status = abb_visit_find_session(visit, &err);
    if (status == APR_SUCCESS) {
        status = abb_session_reload(&visit->site->sessions, visit->session, apr_time_now(),
                                    &private_part, r->pool, &err);
    }
    if (status == APR_NOTFOUND || status == ABB_ESEAL) {
        abb_refusal_offers_t offers = abb_visit_offers(visit, r, NULL);

        /* Credentials are looked at in protected places only. */
        offers.takes_basic = 0;
        return abb_refusal_send_unauthenticated(r, ABB_REQUEST_JSON, &offers);
    }
    return status == APR_SUCCESS
               ? abb_request_send_json(r, HTTP_OK,
                                       userinfo_json(visit, private_part.raw_user, r->pool))
               : abb_visit_refuse(visit, r, &err, NULL);
}

/* ---- dispatch ------------------------------------------------------------ */

/* Of a request that is answered here, before httpd has walked to its place. */
static abb_visit_t *begin_visit(request_rec *r)
{
    abb_request_take_log_level(r);
    return abb_visit_of(r);
}

int abb_endpoints_handle(request_rec *r, int lookup)
{
    const abb_site_t *site = abb_config_site(r->server);
    const char *path = r->uri;

    if (!site || lookup || r->main || r->proxyreq || !path) {
        return DECLINED;
    }
    if (strcmp(path, site->callback_path) == 0) {
        return abb_callback_handle(begin_visit(r), r);
    }
    if (strcmp(path, site->login_path) == 0) {
        return handle_login(begin_visit(r), r);
    }
    if (strcmp(path, site->logout_path) == 0) {
        return handle_logout(begin_visit(r), r);
    }
    if (strcmp(path, site->userinfo_path) == 0) {
        return handle_userinfo(begin_visit(r), r);
    }
    if (strcmp(path, site->kept_form_path) == 0) {
        return abb_preserve_handle(begin_visit(r), r);
    }
    abb_visit_expect_session(r);
    return DECLINED;
}
