/* manager (floor 8): sessions in the hands of an administrator. See abb_manager.h. */
#include "abb_manager.h"

#include <apr_strings.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>
#include <http_main.h>
#include <http_protocol.h>
#include <string.h>

#include "abb_config.h"
#include "abb_index.h"
#include "abb_log.h"
#include "abb_request.h"
#include "abb_text.h"

APLOG_USE_MODULE(auth_bitbucket);

#define HANDLER "bitbucket-sessions"
#define FORM_MAX 4096
/* What a form may ask for. */
#define WORD_END "end"
#define WORD_END_ALL "end-all"

/* One request, read. */
typedef struct {
    request_rec *r;
    /* All sites share the store; where it cannot be walked, each has lists of its own. */
    apr_array_header_t *sites;
    const char *account;
    const char *session;
    const char *action;
    int wants_json;
    apr_time_t now;
    /* Of the account; NULL: none is asked about. */
    apr_array_header_t *found;
    /* How many were ended; -1: nobody wanted that. */
    int ended;
} errand_t;

/* ---- answers ------------------------------------------------------------- */

static int say(const errand_t *errand, int status, const char *heading, const char *text)
{
    request_rec *r = errand->r;
    abb_page_t page;

    if (errand->wants_json) {
        return abb_request_send_json(
            r, status,
            apr_pstrcat(r->pool, "{\"error\":", abb_text_json(text, r->pool), "}\n", NULL));
    }
    memset(&page, 0, sizeof(page));
    page.heading = heading;
    page.text = text;
    return abb_request_send_page(r, status, &page);
}

static int say_failure(const errand_t *errand, const abb_error_t *err)
{
    return err->status == APR_ENOTIMPL
               ? say(errand, HTTP_NOT_IMPLEMENTED, "All sessions cannot be ended here",
                     "They are kept by a cache that does not tell what it holds. Give "
                     "AuthBitbucketSessionKey a new key without the old one behind it, then stop "
                     "and start httpd on all machines, or empty the cache.")
               : say(errand, HTTP_SERVICE_UNAVAILABLE, "Sessions cannot be read right now",
                     err->text);
}

static const char *time_text(apr_time_t time, apr_pool_t *p)
{
    char *text = apr_palloc(p, APR_RFC822_DATE_LEN);

    apr_rfc822_date(text, time);
    return text;
}

/* "3 h ago", "in 20 min". */
static const char *distance(apr_time_t time, apr_time_t now, apr_pool_t *p)
{
    apr_int64_t minutes = apr_time_sec(time < now ? now - time : time - now) / 60;
    const char *text = minutes < 1         ? "moments"
                       : minutes < 60      ? apr_psprintf(p, "%d min", (int)minutes)
                       : minutes < 48 * 60 ? apr_psprintf(p, "%d h", (int)(minutes / 60))
                                           : apr_psprintf(p, "%d days", (int)(minutes / 1440));

    return time < now ? apr_pstrcat(p, text, " ago", NULL) : apr_pstrcat(p, "in ", text, NULL);
}

static apr_int64_t count_records(const errand_t *errand)
{
    abb_store_figures_t figures;

    abb_store_figures(APR_ARRAY_IDX(errand->sites, 0, const abb_site_t *)->sessions.store,
                      &figures);
    return figures.records;
}

/* ---- JSON ---------------------------------------------------------------- */

static const char *sessions_json(const errand_t *errand)
{
    apr_pool_t *p = errand->r->pool;
    const char *json = "";

    for (int i = 0; i < errand->found->nelts; ++i) {
        const abb_index_session_t *session = &APR_ARRAY_IDX(errand->found, i, abb_index_session_t);

        json = apr_psprintf(p,
                            "%s%s{\"session\":\"%s\",\"signed_in\":%" APR_INT64_T_FMT
                            ",\"last_used\":%" APR_INT64_T_FMT ",\"ends\":%" APR_INT64_T_FMT "}",
                            json, i ? "," : "", session->tag, apr_time_sec(session->created_at),
                            apr_time_sec(session->last_seen), apr_time_sec(session->ends_at));
    }
    return json;
}

static int send_json(const errand_t *errand)
{
    apr_pool_t *p = errand->r->pool;
    apr_int64_t records = count_records(errand);
    const char *json = "{";

    if (records >= 0) {
        json = apr_psprintf(p, "%s\"records\":%" APR_INT64_T_FMT ",", json, records);
    }
    if (errand->account) {
        json = apr_pstrcat(p, json, "\"account\":", abb_text_json(errand->account, p), ",", NULL);
    }
    if (errand->ended >= 0) {
        json = apr_psprintf(p, "%s\"ended\":%d,", json, errand->ended);
    }
    if (errand->found) {
        json = apr_pstrcat(p, json, "\"sessions\":[", sessions_json(errand), "],", NULL);
    }
    return abb_request_send_json(
        errand->r, HTTP_OK,
        apr_psprintf(p, "%s\"time\":%" APR_INT64_T_FMT "}\n", json, apr_time_sec(errand->now)));
}

/* ---- the page ------------------------------------------------------------ */

static const char *button(const errand_t *errand, const char *session, const char *action,
                          const char *label)
{
    apr_pool_t *p = errand->r->pool;

    return apr_pstrcat(
        p, "<form method=\"post\"><input type=\"hidden\" name=\"action\" value=\"", action, "\">",
        errand->account ? apr_pstrcat(p, "<input type=\"hidden\" name=\"account\" value=\"",
                                      abb_text_html(errand->account, p), "\">", NULL)
                        : "",
        session ? apr_pstrcat(p, "<input type=\"hidden\" name=\"session\" value=\"", session, "\">",
                              NULL)
                : "",
        "<button>", label, "</button></form>", NULL);
}

static const char *row(const errand_t *errand, const abb_index_session_t *session)
{
    apr_pool_t *p = errand->r->pool;

    return apr_pstrcat(
        p, "<tr><td><code>", session->tag, "</code></td><td title=\"",
        time_text(session->created_at, p), "\">", distance(session->created_at, errand->now, p),
        "</td><td title=\"", time_text(session->last_seen, p), "\">",
        distance(session->last_seen, errand->now, p), "</td><td title=\"",
        time_text(session->ends_at, p), "\">", distance(session->ends_at, errand->now, p),
        "</td><td>", button(errand, session->tag, WORD_END, "End"), "</td></tr>\n", NULL);
}

static const char *table(const errand_t *errand)
{
    apr_pool_t *p = errand->r->pool;
    const char *rows = "";

    if (errand->found->nelts == 0) {
        return "";
    }
    for (int i = 0; i < errand->found->nelts; ++i) {
        rows = apr_pstrcat(
            p, rows, row(errand, &APR_ARRAY_IDX(errand->found, i, abb_index_session_t)), NULL);
    }
    return apr_pstrcat(p,
                       "<div class=\"wide\"><table>\n<thead><tr><th>Session</th><th>Signed in</th>"
                       "<th>Last used</th><th>Ends</th><th></th></tr></thead>\n<tbody>\n",
                       rows, "</tbody>\n</table></div>\n<div class=\"do\">",
                       button(errand, NULL, WORD_END, "End all of these"), "</div>\n", NULL);
}

static const char search_form[] =
    "<form class=\"ask\" method=\"get\"><label for=\"account\">Account at Bitbucket, by its UUID"
    "</label><input id=\"account\" name=\"account\" required spellcheck=\"false\" "
    "autocomplete=\"off\" placeholder=\"{00000000-0000-0000-0000-000000000000}\">"
    "<button>Show sessions</button></form>\n";

static const char *about_all(const errand_t *errand)
{
    apr_pool_t *p = errand->r->pool;
    apr_int64_t records = count_records(errand);

    return apr_pstrcat(
        p, search_form, "<details><summary>End all sessions</summary><p>Everybody has to sign in ",
        "again, at every site of this server.</p>", button(errand, NULL, WORD_END_ALL, "End all"),
        "</details>\n<p class=\"reference\">",
        records >= 0 ? apr_psprintf(p,
                                    "The store holds %" APR_INT64_T_FMT " records, sessions and "
                                    "what belongs to them.",
                                    records)
                     : "The session cache does not tell how many sessions it holds.",
        "</p>\n", NULL);
}

static const char *result(const errand_t *errand)
{
    apr_pool_t *p = errand->r->pool;

    return errand->ended < 0    ? NULL
           : errand->ended == 1 ? "One session was ended."
                                : apr_psprintf(p, "%d sessions were ended.", errand->ended);
}

static int send_page(const errand_t *errand)
{
    request_rec *r = errand->r;
    abb_page_t page;

    memset(&page, 0, sizeof(page));
    page.site = "Sign-in with Bitbucket";
    page.heading = "Sessions";
    page.text = result(errand);
    if (errand->account) {
        abb_page_add_fact(&page, "Account", errand->account);
        page.markup = table(errand);
        page.advice = errand->found->nelts ? NULL : "This account has no session.";
        abb_page_add_link(&page, "Another account", r->uri);
    }
    else {
        page.markup = about_all(errand);
    }
    return abb_request_send_body(r, "text/html; charset=utf-8", abb_page_policy(&page, r->pool),
                                 abb_page_html(&page, r->pool));
}

static int answer(const errand_t *errand)
{
    return errand->wants_json ? send_json(errand) : send_page(errand);
}

/* ---- what is done -------------------------------------------------------- */

static apr_status_t find(errand_t *errand, abb_error_t *err)
{
    apr_status_t status = APR_SUCCESS;

    errand->found = apr_array_make(errand->r->pool, 8, sizeof(abb_index_session_t));
    for (int i = 0; i < errand->sites->nelts && status == APR_SUCCESS; ++i) {
        const abb_sessions_t *sessions =
            &APR_ARRAY_IDX(errand->sites, i, const abb_site_t *)->sessions;

        status = abb_index_list(sessions, errand->account, errand->now, errand->found, err);
        if (abb_store_can_walk(sessions->store)) {
            break;
        }
    }
    return status;
}

/* Of those that were found, the one with this name, or all. */
static const apr_array_header_t *choose(const errand_t *errand)
{
    apr_array_header_t *chosen;

    if (!errand->session) {
        return errand->found;
    }
    chosen = apr_array_make(errand->r->pool, 1, sizeof(abb_index_session_t));
    for (int i = 0; i < errand->found->nelts; ++i) {
        const abb_index_session_t *session = &APR_ARRAY_IDX(errand->found, i, abb_index_session_t);

        if (strcmp(session->tag, errand->session) == 0) {
            APR_ARRAY_PUSH(chosen, abb_index_session_t) = *session;
        }
    }
    return chosen;
}

/* For the log: what names no session may be anything. */
static const char *name_of_session(const errand_t *errand)
{
    return !errand->session ? "*"
           : strspn(errand->session, "0123456789abcdef") == strlen(errand->session)
               ? abb_text_loggable(errand->session, ABB_SESSION_TAG_SIZE, errand->r->pool)
               : "unknown";
}

static void tell(const errand_t *errand)
{
    request_rec *r = errand->r;

    ap_log_rerror(APLOG_MARK, APLOG_NOTICE, 0, r,
                  ABB_LOGNO(0209) "ended by an administrator; account=%s session=%s count=%d "
                                  "by=\"%s\"",
                  errand->account ? errand->account : "*", name_of_session(errand), errand->ended,
                  abb_text_quotable(r->user, 200, r->pool));
}

static apr_status_t end_all(errand_t *errand, abb_error_t *err)
{
    const abb_site_t *site = APR_ARRAY_IDX(errand->sites, 0, const abb_site_t *);
    apr_status_t status =
        abb_index_end_all(&site->sessions, errand->now, &errand->ended, errand->r->pool, err);

    if (status == APR_SUCCESS || errand->ended > 0) {
        tell(errand);
    }
    return status;
}

static apr_status_t end_found(errand_t *errand, abb_error_t *err)
{
    const abb_site_t *site = APR_ARRAY_IDX(errand->sites, 0, const abb_site_t *);
    apr_status_t status = find(errand, err);

    if (status == APR_SUCCESS) {
        status = abb_index_end(&site->sessions, choose(errand), &errand->ended, err);
        tell(errand);
    }
    return status == APR_SUCCESS ? find(errand, err) : status;
}

/* ---- who asks for what --------------------------------------------------- */

/* Other sites can make a browser send a form, but not under this site's name. */
static int is_from_here(request_rec *r)
{
    const char *origin =
        apr_pstrcat(r->pool, ap_http_scheme(r), "://", apr_table_get(r->headers_in, "Host"), NULL);

    return abb_request_is_same_origin(r, origin) || !abb_request_is_of_browser(r);
}

static int read_words(errand_t *errand, const char *text, abb_error_t *err)
{
    const char *account;
    apr_table_t *words;

    if (abb_text_query_parse(text, &words, errand->r->pool, err) != APR_SUCCESS) {
        return 0;
    }
    errand->wants_json |= apr_table_get(words, "json") != NULL;
    account = apr_table_get(words, "account");
    if (account && !(errand->account = abb_account_parse_uuid(account, errand->r->pool))) {
        abb_error_set(err, ABB_EINPUT, "'%.60s' is no UUID of an account", account);
        return 0;
    }
    if (apr_table_get(words, "session")) {
        errand->session = apr_table_get(words, "session");
    }
    if (apr_table_get(words, "action")) {
        errand->action = apr_table_get(words, "action");
    }
    return 1;
}

static int handle_form(errand_t *errand)
{
    abb_error_t err;
    const char *body = abb_request_read_form(errand->r, FORM_MAX);
    apr_status_t status;

    abb_error_clear(&err);
    if (!is_from_here(errand->r)) {
        return say(errand, HTTP_FORBIDDEN, "Not from another site",
                   "What ends sessions must be sent by this page, or by a program that is no "
                   "browser.");
    }
    if (!body || !read_words(errand, body, &err)) {
        return say(errand, HTTP_BAD_REQUEST, "This form cannot be read",
                   body ? err.text : "It has another type or is too long.");
    }
    if (errand->action && strcmp(errand->action, WORD_END_ALL) == 0 && !errand->account) {
        status = end_all(errand, &err);
    }
    else if (errand->action && strcmp(errand->action, WORD_END) == 0 && errand->account) {
        status = end_found(errand, &err);
    }
    else {
        return say(errand, HTTP_BAD_REQUEST, "Nothing was ended",
                   "Send action=end with account=UUID and perhaps session=NAME, or "
                   "action=end-all alone.");
    }
    return status == APR_SUCCESS ? answer(errand) : say_failure(errand, &err);
}

static int handle_question(errand_t *errand)
{
    abb_error_t err;

    abb_error_clear(&err);
    return errand->account && find(errand, &err) != APR_SUCCESS ? say_failure(errand, &err)
                                                                : answer(errand);
}

static apr_array_header_t *list_sites(request_rec *r)
{
    apr_array_header_t *sites = apr_array_make(r->pool, 4, sizeof(const abb_site_t *));

    for (server_rec *s = ap_server_conf; s; s = s->next) {
        const abb_site_t *site = abb_config_site(s);

        if (site && site->sessions.store) {
            APR_ARRAY_PUSH(sites, const abb_site_t *) = site;
        }
    }
    return sites;
}

int abb_manager_handle(request_rec *r)
{
    errand_t errand = {.r = r, .ended = -1, .now = apr_time_now()};
    abb_error_t err;

    if (!r->handler || strcmp(r->handler, HANDLER) != 0) {
        return DECLINED;
    }
    if (r->method_number != M_GET && r->method_number != M_POST) {
        return abb_request_only_get(r, "POST");
    }
    abb_error_clear(&err);
    if (r->args && !read_words(&errand, r->args, &err)) {
        return say(&errand, HTTP_BAD_REQUEST, "This address cannot be read", err.text);
    }
    if (!r->user || !*r->user) {
        return say(&errand, HTTP_FORBIDDEN, "Nobody without a name",
                   "Sessions are managed by people whom this server knows by name: protect this "
                   "place with AuthType and a Require line that names them.");
    }
    errand.sites = list_sites(r);
    if (errand.sites->nelts == 0) {
        return say(&errand, HTTP_NOT_FOUND, "There is nothing to manage",
                   "No virtual host of this server signs visitors in with Bitbucket.");
    }
    return r->method_number == M_POST ? handle_form(&errand) : handle_question(&errand);
}
