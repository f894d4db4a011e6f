/* request (floor 3): one HTTP request and its answer, as httpd has them. */
#include "abb_request.h"

#include <apr_lib.h>
#include <apr_strings.h>
#include <http_config.h>
#include <http_core.h>
#include <http_log.h>
#include <http_protocol.h>
#include <http_request.h>
#include <mod_core.h>

#include "abb_log.h"
#include "abb_text.h"

APLOG_USE_MODULE(auth_bitbucket);

/* ---- the log ------------------------------------------------------------- */

void abb_request_take_log_level(request_rec *r)
{
    ap_conf_vector_t *before = r->per_dir_config;

    if (ap_location_walk(r) == OK && ap_if_walk(r) == OK) {
        const core_dir_config *core = ap_get_core_module_config(r->per_dir_config);

        if (core->log) {
            r->log = core->log;
        }
    }
    r->per_dir_config = before;
}

/* ---- cookies ------------------------------------------------------------- */

void abb_request_take_cookies(request_rec *r, const abb_cookie_settings_t *settings,
                              abb_cookies_t *cookies)
{
    const char *line = apr_table_get(r->headers_in, "Cookie");
    const char *rest = abb_cookie_take(line, settings, cookies, r->pool);

    if (rest && rest != line) {
        apr_table_setn(r->headers_in, "Cookie", rest);
    }
    else if (line && !rest) {
        apr_table_unset(r->headers_in, "Cookie");
    }
}

/*
 * Whether a page of another site shows the answer in a frame. There a browser without
 * third-party cookies keeps partitioned ones only; in a window of its own a partitioned
 * one would be kept for that window's site, and no frame would ever see it.
 */
static int is_in_frame(request_rec *r)
{
    static const char *const kinds[] = {"iframe", "frame", "embed", "object"};
    const char *destination = apr_table_get(r->headers_in, "Sec-Fetch-Dest");

    for (apr_size_t i = 0; destination && i < sizeof(kinds) / sizeof(kinds[0]); ++i) {
        if (strcmp(destination, kinds[i]) == 0) {
            return 1;
        }
    }
    return 0;
}

/* Source of Partitioned: draft-cutler-httpbis-partitioned-cookies (CHIPS). */
static const char *cookie_attributes(request_rec *r, const abb_cookie_settings_t *settings)
{
    int is_partitioned = strcmp(settings->same_site, "None") == 0 && is_in_frame(r);

    return apr_pstrcat(
        r->pool, "; Path=/", settings->domain ? "; Domain=" : "",
        settings->domain ? settings->domain : "", settings->is_secure ? "; Secure" : "",
        "; HttpOnly; SameSite=", settings->same_site, is_partitioned ? "; Partitioned" : "", NULL);
}

void abb_request_set_cookie(request_rec *r, const abb_cookie_settings_t *settings, const char *name,
                            const char *value, int max_age)
{
    const char *age = max_age > 0 ? apr_psprintf(r->pool, "; Max-Age=%d", max_age) : "";

    apr_table_addn(
        r->err_headers_out, "Set-Cookie",
        apr_pstrcat(r->pool, name, "=", value, age, cookie_attributes(r, settings), NULL));
}

void abb_request_delete_cookie(request_rec *r, const abb_cookie_settings_t *settings,
                               const char *name)
{
    apr_table_addn(
        r->err_headers_out, "Set-Cookie",
        apr_pstrcat(r->pool, name, "=; Max-Age=0", cookie_attributes(r, settings), NULL));
}

/* ---- what was asked ------------------------------------------------------ */

static const char *header(request_rec *r, const char *name)
{
    const char *value = apr_table_get(r->headers_in, name);

    return value ? value : "";
}

static int accepts(request_rec *r, const char *type)
{
    return ap_strcasestr(header(r, "Accept"), type) != NULL;
}

int abb_request_wants_page(request_rec *r)
{
    return accepts(r, "text/html");
}

int abb_request_is_of_browser(request_rec *r)
{
    return *header(r, "Sec-Fetch-Mode") || *header(r, "Sec-Fetch-Site") ||
           *header(r, "Sec-Fetch-Dest") || *header(r, "Origin") || *header(r, "X-Requested-With") ||
           strncasecmp(header(r, "User-Agent"), "Mozilla/", 8) == 0;
}

static int is_prefetch(request_rec *r)
{
    return ap_strcasestr(header(r, "Sec-Purpose"), "prefetch") ||
           ap_strcasestr(header(r, "Purpose"), "prefetch") ||
           ap_strcasestr(header(r, "X-Moz"), "prefetch");
}

static int is_navigation(request_rec *r)
{
    const char *mode = header(r, "Sec-Fetch-Mode");

    if (r->method_number != M_GET || is_prefetch(r) || *header(r, "Upgrade")) {
        return 0;
    }
    if (*mode) {
        return strcmp(mode, "navigate") == 0;
    }
    return accepts(r, "text/html") && !*header(r, "X-Requested-With");
}

abb_request_kind_t abb_request_kind(request_rec *r)
{
    if (is_navigation(r)) {
        return is_in_frame(r) ? ABB_REQUEST_FRAME : ABB_REQUEST_NAVIGATION;
    }
    return accepts(r, "application/json") ? ABB_REQUEST_JSON : ABB_REQUEST_OTHER;
}

int abb_request_denies_navigation(request_rec *r)
{
    const char *mode = header(r, "Sec-Fetch-Mode");

    return is_prefetch(r) || (*mode && strcmp(mode, "navigate") != 0);
}

static int has_type_of_form(request_rec *r)
{
    const char *type = header(r, "Content-Type");

    return strncasecmp(type, "application/x-www-form-urlencoded", 33) == 0 ||
           strncasecmp(type, "multipart/form-data", 19) == 0;
}

abb_request_kind_t abb_request_form_kind(request_rec *r)
{
    const char *mode = header(r, "Sec-Fetch-Mode");
    int is_form =
        *mode ? strcmp(mode, "navigate") == 0
              : has_type_of_form(r) && accepts(r, "text/html") && !*header(r, "X-Requested-With");

    if (r->method_number != M_POST || is_prefetch(r) || *header(r, "Upgrade") || !is_form) {
        return ABB_REQUEST_OTHER;
    }
    return is_in_frame(r) ? ABB_REQUEST_FRAME : ABB_REQUEST_NAVIGATION;
}

/* Under Referrer-Policy: no-referrer browsers say "null" of a page of the same origin, too. */
int abb_request_is_same_origin(request_rec *r, const char *origin)
{
    const char *site = header(r, "Sec-Fetch-Site");
    const char *from = header(r, "Origin");

    if (!*site) {
        return strcmp(from, origin) == 0;
    }
    return (strcmp(site, "same-origin") == 0 || strcmp(site, "none") == 0) &&
           (!*from || strcmp(from, "null") == 0 || strcmp(from, origin) == 0);
}

const char *abb_request_return_path(request_rec *r, const char *origin)
{
    const char *path;

    while (r->prev) {
        r = r->prev;
    }
    path = abb_text_local_path(r->unparsed_uri, origin);
    if (!path) {
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r,
                      ABB_LOGNO(0101) "address not fit for the way back, using / instead: %s",
                      abb_text_loggable(r->unparsed_uri, 200, r->pool));
        return "/";
    }
    return path;
}

int abb_request_is_for(request_rec *r, const char *origin)
{
    apr_size_t length;
    const char *host = abb_text_origin_host(origin, &length);

    if (!r->hostname || !*r->hostname) {
        return 1;
    }
    /* httpd takes the brackets off an IPv6 address. */
    if (host[0] == '[' && r->hostname[0] != '[') {
        ++host;
        length -= 2;
    }
    return strlen(r->hostname) == length && strncasecmp(r->hostname, host, length) == 0;
}

/* ---- answers ------------------------------------------------------------- */

static void forbid_keeping(request_rec *r)
{
    apr_table_setn(r->err_headers_out, "Cache-Control", "no-store");
    apr_table_setn(r->err_headers_out, "Referrer-Policy", "no-referrer");
}

static int has_error_document(request_rec *r, int status)
{
    return ap_response_code_string(r, ap_index_of_response(status)) != NULL;
}

static void set_policy(request_rec *r, const char *policy)
{
    apr_table_setn(r->err_headers_out, "Content-Security-Policy", policy);
    apr_table_setn(r->err_headers_out, "X-Content-Type-Options", "nosniff");
}

/*
 * For answers of ours that are no pages. In a frame a browser may look at the policy of
 * each redirect on the way, and the page at its end says itself who may show it.
 */
static void set_strict_policy(request_rec *r)
{
    set_policy(r, is_in_frame(r) ? "default-src 'none'"
                                 : "default-src 'none'; frame-ancestors 'none'");
}

/* An ErrorDocument is of the application, and would be sent with the policy. */
int abb_request_redirect(request_rec *r, int status, const char *location)
{
    forbid_keeping(r);
    if (!has_error_document(r, status)) {
        set_strict_policy(r);
    }
    apr_table_setn(r->headers_out, "Location", location);
    return status;
}

static int send_body(request_rec *r, int status, const char *type, const char *body)
{
    int drained = ap_discard_request_body(r);

    if (drained != OK) {
        return drained;
    }
    r->status = status;
    ap_set_content_type(r, type);
    ap_set_content_length(r, (apr_off_t)strlen(body));
    if (!r->header_only) {
        ap_rputs(body, r);
    }
    return DONE;
}

int abb_request_send_page(request_rec *r, int status, const abb_page_t *page)
{
    const char *html = abb_page_html(page, r->pool);

    forbid_keeping(r);
    if (ap_is_HTTP_ERROR(status) && (r->main || has_error_document(r, status))) {
        return status;
    }
    set_policy(r, abb_page_policy(page, r->pool));
    if (page->resend) {
        /* Else the browser says "Origin: null", and applications that look there refuse. */
        apr_table_setn(r->err_headers_out, "Referrer-Policy", "same-origin");
    }
    if (ap_is_HTTP_ERROR(status)) {
        /* The page is ASCII, so httpd need not claim a charset that its own texts have. */
        apr_table_setn(r->subprocess_env, "suppress-error-charset", "1");
        ap_custom_response(r, status, html);
        return status;
    }
    return send_body(r, status, "text/html; charset=utf-8", html);
}

int abb_request_send_text(request_rec *r, int status, const char *text)
{
    forbid_keeping(r);
    if (r->main || has_error_document(r, status)) {
        return status;
    }
    set_strict_policy(r);
    return send_body(r, status, "text/plain; charset=utf-8", text);
}

int abb_request_only_get(request_rec *r, const char *also)
{
    /* httpd writes the Allow header of a 405 itself. */
    ap_allow_methods(r, REPLACE_ALLOW, "GET", also, NULL);
    return HTTP_METHOD_NOT_ALLOWED;
}

int abb_request_send_body(request_rec *r, const char *type, const char *policy, const char *body)
{
    forbid_keeping(r);
    set_policy(r, policy);
    return send_body(r, HTTP_OK, type, body);
}

int abb_request_send_json(request_rec *r, int status, const char *json)
{
    forbid_keeping(r);
    set_strict_policy(r);
    return send_body(r, status, "application/json", json);
}

/* ---- caches -------------------------------------------------------------- */

static int is_directive(const char *word, const char *name)
{
    apr_size_t length = strlen(name);

    return strncasecmp(word, name, length) == 0 && (word[length] == '\0' || word[length] == '=');
}

/* Take spaces off both ends, in place. */
static char *trim(char *word)
{
    char *end = word + strlen(word);

    while (end > word && apr_isspace(end[-1])) {
        *--end = '\0';
    }
    while (apr_isspace(*word)) {
        ++word;
    }
    return word;
}

/* The next of a list, ended in place; NULL behind the last. Commas within quotes separate nothing. */
static char *next_directive(char **at)
{
    char *word = *at;
    char *c = word;

    if (!word) {
        return NULL;
    }
    for (int is_quoted = 0; *c && (is_quoted || *c != ','); ++c) {
        if (*c == '"') {
            is_quoted = !is_quoted;
        }
        else if (is_quoted && *c == '\\' && c[1]) {
            ++c;
        }
    }
    *at = *c ? c + 1 : NULL;
    *c = '\0';
    return word;
}

/* Cache-Control without what invites shared caches; *is_private when it forbids them. */
static const char *drop_shared(const char *value, int *is_private, apr_pool_t *p)
{
    char *at = apr_pstrdup(p, value);
    const char *kept = NULL;

    for (char *word = next_directive(&at); word; word = next_directive(&at)) {
        word = trim(word);
        /* private="Set-Cookie" speaks of fields only. */
        *is_private |= strcasecmp(word, "private") == 0;
        if (*word && !is_directive(word, "public") && !is_directive(word, "s-maxage")) {
            kept = kept ? apr_pstrcat(p, kept, ", ", word, NULL) : word;
        }
    }
    return kept;
}

/* Most fields have nothing to do with caches, and end in other letters than those that have. */
static int may_be_for_caches(const char *name)
{
    apr_size_t length = strlen(name);

    return length > 0 && (apr_tolower(name[length - 1]) == 'l' || name[0] == 'X' || name[0] == 'x');
}

/* Whether a field tells some shared caches what to do, whatever Cache-Control says. */
static int is_targeted(const char *name)
{
    static const char suffix[] = "-Cache-Control";
    apr_size_t length = strlen(name);

    return strcasecmp(name, "Surrogate-Control") == 0 || strcasecmp(name, "Edge-Control") == 0 ||
           strcasecmp(name, "X-Accel-Expires") == 0 ||
           (length >= sizeof(suffix) - 1 &&
            strcasecmp(name + length - (sizeof(suffix) - 1), suffix) == 0);
}

/* Collect what Cache-Control says; mod_proxy keeps each of its lines by itself. Drop what is targeted. */
static void read_fields(apr_table_t *headers, const char **all, apr_pool_t *p)
{
    const apr_array_header_t *fields = apr_table_elts(headers);
    int i = 0;

    while (i < fields->nelts) {
        const apr_table_entry_t *field = &APR_ARRAY_IDX(fields, i, apr_table_entry_t);
        int is_for_caches = may_be_for_caches(field->key);

        if (is_for_caches && is_targeted(field->key)) {
            /* The next one moves up to this place. */
            apr_table_unset(headers, field->key);
            continue;
        }
        if (is_for_caches && strcasecmp(field->key, "Cache-Control") == 0) {
            *all = *all ? apr_pstrcat(p, *all, ", ", field->val, NULL) : field->val;
        }
        ++i;
    }
}

void abb_request_make_private(request_rec *r)
{
    const char *all = NULL;
    int is_private = 0;

    read_fields(r->err_headers_out, &all, r->pool);
    read_fields(r->headers_out, &all, r->pool);
    if (!all) {
        apr_table_addn(r->headers_out, "Cache-Control", "private");
        return;
    }
    all = drop_shared(all, &is_private, r->pool);
    apr_table_unset(r->err_headers_out, "Cache-Control");
    apr_table_setn(r->headers_out, "Cache-Control",
                   is_private ? all
                   : all      ? apr_pstrcat(r->pool, "private, ", all, NULL)
                              : "private");
}

/* ---- forms --------------------------------------------------------------- */

static int is_form(request_rec *r)
{
    static const char form[] = "application/x-www-form-urlencoded";
    const char *type = header(r, "Content-Type");

    return strncasecmp(type, form, sizeof(form) - 1) == 0 &&
           (type[sizeof(form) - 1] == '\0' || type[sizeof(form) - 1] == ';' ||
            type[sizeof(form) - 1] == ' ');
}

/* What a request says of its body's length; -1: nothing that can be read. */
static apr_off_t said_length(request_rec *r)
{
    const char *text = apr_table_get(r->headers_in, "Content-Length");
    apr_off_t length;
    char *end;

    return text && apr_strtoff(&length, text, &end, 10) == APR_SUCCESS && *end == '\0' ? length
                                                                                       : -1;
}

const char *abb_request_read_body(request_rec *r, apr_size_t max, apr_size_t *size,
                                  int *is_too_long)
{
    apr_off_t said = said_length(r);
    /* One byte more tells what is longer; another is for the NUL. */
    apr_size_t room = said >= 0 && said <= (apr_off_t)max ? (apr_size_t)said + 1 : max + 1;
    char *body;
    long got;

    *size = 0;
    *is_too_long = said > (apr_off_t)max;
    if (*is_too_long || ap_setup_client_block(r, REQUEST_CHUNKED_DECHUNK) != OK) {
        return NULL;
    }
    body = apr_palloc(r->pool, room + 1);
    if (ap_should_client_block(r)) {
        while (*size < room && (got = ap_get_client_block(r, body + *size, room - *size)) != 0) {
            if (got < 0) {
                return NULL;
            }
            *size += (apr_size_t)got;
        }
    }
    *is_too_long = *size > max;
    body[*size] = '\0';
    return *is_too_long ? NULL : body;
}

const char *abb_request_read_form(request_rec *r, apr_size_t max)
{
    apr_size_t size;
    int is_too_long;
    const char *form = is_form(r) ? abb_request_read_body(r, max, &size, &is_too_long) : NULL;

    return form && !memchr(form, '\0', size) ? form : NULL;
}
