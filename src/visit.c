/* visit (floor 5): one request at one site. See abb_visit.h. */
#include "abb_visit.h"

#include <apr_strings.h>
#include <http_core.h>
#include <http_log.h>
#include <stddef.h>
#include <string.h>
#include <util_filter.h>

#include "abb_log.h"
#include "abb_news.h"
#include "abb_text.h"

APLOG_USE_MODULE(auth_bitbucket);

/* Of IPv6 addresses one customer has a whole network. Source: RFC 6177 section 2. */
#define IPV6_NETWORK_BYTES 8
#define IPV4_BYTES 4

/* ---- finding ------------------------------------------------------------- */

abb_visit_t *abb_visit_find(request_rec *r)
{
    for (; r; r = r->main ? r->main : r->prev) {
        abb_visit_t *visit = ap_get_module_config(r->request_config, &auth_bitbucket_module);

        if (visit) {
            return visit;
        }
    }
    return NULL;
}

abb_visit_t *abb_visit_find_identified(request_rec *r)
{
    abb_visit_t *visit;

    if (!r->user || !*r->user || !r->ap_auth_type || strcmp(r->ap_auth_type, ABB_AUTH_TYPE) != 0) {
        return NULL;
    }
    visit = abb_visit_find(r);
    return visit && visit->session ? visit : NULL;
}

/* Nobody but this module says who it is in headers that begin as ours. */
static void scrub(const abb_visit_t *visit, request_rec *r)
{
    apr_table_t *headers = abb_identity_scrub(&visit->site->identity, r->headers_in, r->pool);

    if (headers != r->headers_in) {
        ap_log_rerror(APLOG_MARK, APLOG_DEBUG, 0, r,
                      ABB_LOGNO(0120) "headers of the request that begin as the module's own "
                                      "(AuthBitbucketHeaderPrefix) are dropped");
        r->headers_in = headers;
    }
}

abb_visit_t *abb_visit_of(request_rec *r)
{
    abb_site_t *site = abb_config_site(r->server);
    abb_visit_t *visit = abb_visit_find(r);

    if (visit || !site) {
        return visit;
    }
    visit = apr_palloc(r->pool, sizeof(*visit));
    /* Sentences of errors need no zeroes; they are the last and the largest. */
    memset(visit, 0, offsetof(abb_visit_t, trouble));
    abb_error_clear(&visit->trouble);
    abb_error_clear(&visit->failure);
    visit->pool = r->pool;
    visit->site = site;
    visit->now = apr_time_now();
    ap_set_module_config(r->request_config, &auth_bitbucket_module, visit);
    abb_request_take_cookies(r, &site->cookies, &visit->cookies);
    scrub(visit, r);
    return visit;
}

const char *abb_visit_authorization(const abb_visit_t *visit, const request_rec *r)
{
    const char *value = apr_table_get(r->headers_in, "Authorization");

    return value ? value : visit->authorization;
}

static int has_session_cookie(const abb_visit_t *visit)
{
    return visit->cookies.session && visit->cookies.session_length == ABB_SESSION_COOKIE_LENGTH;
}

void abb_visit_begin(request_rec *r)
{
    abb_visit_t *visit = abb_visit_of(r);

    if (visit && has_session_cookie(visit)) {
        abb_session_announce(&visit->site->sessions, visit->cookies.session);
    }
}

void abb_visit_expect_session(request_rec *r)
{
    const abb_visit_t *visit = abb_visit_find(r);

    if (visit && has_session_cookie(visit)) {
        abb_session_expect(&visit->site->sessions, visit->cookies.session);
    }
}

static const char *session_cookie(const abb_visit_t *visit, char *room)
{
    memcpy(room, visit->cookies.session, ABB_SESSION_COOKIE_LENGTH);
    room[ABB_SESSION_COOKIE_LENGTH] = '\0';
    return room;
}

apr_status_t abb_visit_find_session(abb_visit_t *visit, abb_error_t *err)
{
    char room[ABB_SESSION_COOKIE_LENGTH + 1];

    if (visit->session) {
        return APR_SUCCESS;
    }
    if (!has_session_cookie(visit)) {
        return APR_NOTFOUND;
    }
    return abb_session_find(&visit->site->sessions, session_cookie(visit, room), visit->now,
                            &visit->session, visit->pool, err);
}

apr_status_t abb_visit_take_ended(const abb_visit_t *visit, abb_session_t **session,
                                  const char **why)
{
    char room[ABB_SESSION_COOKIE_LENGTH + 1];

    return has_session_cookie(visit)
               ? abb_session_take_ended(&visit->site->sessions, session_cookie(visit, room),
                                        visit->now, session, why, visit->pool, NULL)
               : APR_NOTFOUND;
}

abb_login_t abb_visit_login(const abb_visit_t *visit)
{
    const abb_site_t *site = visit->site;
    abb_login_t login = {&site->sessions, &site->bitbucket, site->tickets, site->mark};

    return login;
}

abb_recheck_t abb_visit_recheck(const abb_visit_t *visit)
{
    abb_recheck_t recheck = {&visit->site->sessions, &visit->site->bitbucket};

    return recheck;
}

static int holds_name(const char *const *names, int count, const char *name)
{
    for (int i = 0; i < count; ++i) {
        if (strcmp(names[i], name) == 0) {
            return 1;
        }
    }
    return 0;
}

/* Names are copied: a subrequest's do not live long enough. */
void abb_visit_want_workspace(abb_visit_t *visit, const char *workspace)
{
    if (visit->wanted_count < ABB_BITBUCKET_WORKSPACES_MAX &&
        !holds_name(visit->wanted, visit->wanted_count, workspace)) {
        visit->wanted[visit->wanted_count++] = apr_pstrdup(visit->pool, workspace);
    }
}

static void make_room(abb_visit_basis_t *basis, apr_pool_t *p)
{
    const char **larger = basis->first;
    int room = ABB_BITBUCKET_WORKSPACES_MAX;

    if (basis->room > 0) {
        room = 2 * basis->room;
        larger = apr_palloc(p, (apr_size_t)room * sizeof(*larger));
        memcpy(larger, basis->workspaces, (apr_size_t)basis->count * sizeof(*larger));
    }
    basis->workspaces = larger;
    basis->room = room;
}

void abb_visit_rest_on(abb_visit_t *visit, const char *workspace, apr_time_t checked_at)
{
    abb_visit_basis_t *basis = &visit->basis;

    if (!holds_name(basis->workspaces, basis->count, workspace)) {
        if (basis->count == basis->room) {
            make_room(basis, visit->pool);
        }
        basis->workspaces[basis->count++] = apr_pstrdup(visit->pool, workspace);
    }
    if (!basis->oldest || checked_at < basis->oldest) {
        basis->oldest = checked_at;
    }
}

/* ---- trailers ------------------------------------------------------------ */

static ap_filter_rec_t *trailer_filter;

/* httpd merges into a copy, so the headers as they were are still there. */
static apr_status_t scrub_trailers(ap_filter_t *filter, apr_bucket_brigade *brigade,
                                   ap_input_mode_t mode, apr_read_type_e block, apr_off_t size)
{
    request_rec *r = filter->r;
    const abb_visit_t *visit = abb_visit_find(r);
    apr_table_t *before = r->headers_in;
    apr_status_t status = ap_get_brigade(filter->next, brigade, mode, block, size);

    if (visit && !apr_is_empty_table(r->trailers_in)) {
        r->trailers_in = abb_identity_scrub(&visit->site->identity, r->trailers_in, r->pool);
        if (r->headers_in != before) {
            r->headers_in = apr_table_overlay(r->pool, before, r->trailers_in);
        }
    }
    return status;
}

void abb_visit_register_filter(void)
{
    trailer_filter = ap_register_input_filter("AUTH_BITBUCKET_TRAILERS", scrub_trailers, NULL,
                                              AP_FTYPE_CONTENT_SET);
}

void abb_visit_watch_trailers(request_rec *r)
{
    /* Only chunks and streams of HTTP/2 have any. */
    if (!r->main && abb_visit_find(r) &&
        (r->proto_num >= HTTP_VERSION(2, 0) || apr_table_get(r->headers_in, "Transfer-Encoding"))) {
        ap_add_input_filter_handle(trailer_filter, NULL, r, r->connection);
    }
}

/* ---- names for the throttle ---------------------------------------------- */

apr_status_t abb_visit_name(const abb_visit_t *visit, char kind, const void *bytes, apr_size_t size,
                            apr_uint64_t *name, abb_error_t *err)
{
    unsigned char code[ABB_CRYPTO_KEY_SIZE];
    char *text = apr_palloc(visit->pool, size + 1);
    apr_status_t status;

    text[0] = kind;
    memcpy(text + 1, bytes, size);
    status = abb_crypto_authenticate(&visit->site->throttle_key, text, size + 1, code, err);
    memcpy(name, code, sizeof(*name));
    return status;
}

/* What of a client's address is one customer's; a mapped one is an IPv4 address. */
static const void *network_of(const request_rec *r, apr_size_t *size)
{
    static const unsigned char mapped[] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    const unsigned char *address = r->useragent_addr->ipaddr_ptr;

    *size = (apr_size_t)r->useragent_addr->ipaddr_len;
    if (*size <= sizeof(mapped)) {
        return address;
    }
    if (memcmp(address, mapped, sizeof(mapped)) == 0) {
        *size = IPV4_BYTES;
        return address + sizeof(mapped);
    }
    *size = IPV6_NETWORK_BYTES;
    return address;
}

apr_status_t abb_visit_name_network(const abb_visit_t *visit, const request_rec *r, char kind,
                                    apr_uint64_t *name, abb_error_t *err)
{
    apr_size_t size;
    const void *network = network_of(r, &size);

    return abb_visit_name(visit, kind, network, size, name, err);
}

/* ---- waiting ------------------------------------------------------------- */

/* A re-check is the longest: it may refresh and ask twice, after waiting for one that does. */
static apr_interval_time_t longest_stay(const abb_site_t *site)
{
    return 10 * site->bitbucket.http_settings.total_timeout + apr_time_from_sec(10);
}

int abb_visit_claim(const abb_visit_t *visit, const abb_ticket_t *ticket)
{
    apr_uint64_t name;

    memcpy(&name, ticket->id, sizeof(name));
    return abb_gate_claim(visit->site->gate, name, ABB_TICKET_LIFETIME, apr_time_now());
}

int abb_visit_enter(const abb_visit_t *visit, abb_gate_place_t *place)
{
    const abb_site_t *site = visit->site;

    return abb_gate_enter(site->gate, &site->gate_limits, longest_stay(site), apr_time_now(),
                          place);
}

int abb_visit_enter_unknown(const abb_visit_t *visit, abb_gate_place_t *place)
{
    const abb_site_t *site = visit->site;
    abb_gate_limits_t half = {(site->gate_limits.server + 1) / 2,
                              (site->gate_limits.process + 1) / 2};

    return abb_gate_enter(site->gate, &half, longest_stay(site), apr_time_now(), place);
}

int abb_visit_enter_patiently(const abb_visit_t *visit, abb_gate_place_t *place)
{
    const abb_site_t *site = visit->site;

    return abb_gate_wait(site->gate, &site->gate_limits, longest_stay(site), place);
}

void abb_visit_tell_crowd(const abb_visit_t *visit, request_rec *r)
{
    abb_news_crowd(r->server, visit->site->bitbucket.traffic, visit->site->gate_limits.server);
}

void abb_visit_leave(const abb_visit_t *visit, const abb_gate_place_t *place)
{
    abb_gate_leave(visit->site->gate, place);
}

/* ---- signing in ---------------------------------------------------------- */

/* An attempt's cookie that the browser brought; issued_at 0 when it does not open or is too old. */
typedef struct {
    const abb_cookie_t *cookie;
    abb_ticket_t ticket;
} attempt_cookie_t;

static int newest_first(const void *a, const void *b)
{
    apr_time_t first = ((const attempt_cookie_t *)a)->ticket.issued_at;
    apr_time_t second = ((const attempt_cookie_t *)b)->ticket.issued_at;

    return first < second ? 1 : first > second ? -1 : 0;
}

static void open_attempt(const abb_visit_t *visit, request_rec *r, attempt_cookie_t *attempt)
{
    if (abb_ticket_decode(attempt->cookie->value, visit->site->tickets, apr_time_now(),
                          &attempt->ticket, r->pool, NULL) != APR_SUCCESS) {
        attempt->ticket.issued_at = 0;
    }
}

static int fits(int count, apr_size_t size)
{
    return count <= ABB_REQUEST_TICKETS_MAX && size <= ABB_REQUEST_TICKETS_SIZE_MAX;
}

/* Delete cookies of attempts, the newest first; the browser keeps where they led. */
static void forget_attempts(const abb_visit_t *visit, request_rec *r,
                            const attempt_cookie_t *attempts, int count)
{
    const abb_cookie_settings_t *cookies = &visit->site->cookies;
    const char *before = abb_cookie_find(visit->cookies.line, cookies->ways_name, r->pool);
    const char *ways = before;

    while (count-- > 0) {
        abb_request_delete_cookie(r, cookies, attempts[count].cookie->name);
        if (attempts[count].ticket.issued_at) {
            abb_ticket_add_way(ways, visit->site->tickets, &attempts[count].ticket, apr_time_now(),
                               &ways, r->pool, NULL);
        }
    }
    if (ways != before) {
        abb_request_set_cookie(r, cookies, cookies->ways_name, ways,
                               (int)apr_time_sec(ABB_TICKET_MEMORY));
    }
}

/*
 * Make room for one more attempt: the newest stay, as many as fit. One that does
 * not open may be a neighbour's under the same host name, so it counts as old, but
 * goes only when there is no room.
 */
static void drop_old_attempts(const abb_visit_t *visit, request_rec *r, apr_size_t new_size)
{
    const apr_array_header_t *cookies =
        abb_cookie_list(visit->cookies.line, visit->site->cookies.ticket_prefix, r->pool);
    attempt_cookie_t *attempts =
        apr_palloc(r->pool, (apr_size_t)(cookies->nelts + 1) * sizeof(*attempts));
    apr_size_t size = new_size;
    int kept = 0;

    for (int i = 0; i < cookies->nelts; ++i) {
        attempts[i].cookie = &APR_ARRAY_IDX(cookies, i, abb_cookie_t);
        open_attempt(visit, r, &attempts[i]);
    }
    qsort(attempts, (apr_size_t)cookies->nelts, sizeof(*attempts), newest_first);
    for (; kept < cookies->nelts; ++kept) {
        size += strlen(attempts[kept].cookie->name) + strlen(attempts[kept].cookie->value);
        if (!fits(kept + 2, size)) {
            break;
        }
    }
    forget_attempts(visit, r, attempts + kept, cookies->nelts - kept);
}

/* The workspaces that the place asks about, separated by spaces. */
static const char *wanted_words(const abb_visit_t *visit, apr_pool_t *p)
{
    const char *words = "";

    for (int i = 0; i < visit->wanted_count; ++i) {
        words = apr_pstrcat(p, words, i ? " " : "", visit->wanted[i], NULL);
    }
    return words;
}

int abb_visit_begin_login(abb_visit_t *visit, request_rec *r, const char *return_path, int attempt)
{
    abb_login_t login = abb_visit_login(visit);
    abb_login_start_t start;
    abb_error_t err;
    const char *name;

    abb_error_clear(&err);
    if (abb_login_begin(&login, return_path, wanted_words(visit, r->pool), attempt, apr_time_now(),
                        &start, r->pool, &err) != APR_SUCCESS) {
        return abb_visit_refuse(visit, r, &err, NULL);
    }
    name = apr_pstrcat(r->pool, visit->site->cookies.ticket_prefix, start.cookie_name, NULL);
    drop_old_attempts(visit, r, strlen(name) + strlen(start.cookie_value));
    abb_request_set_cookie(r, &visit->site->cookies, name, start.cookie_value,
                           (int)apr_time_sec(ABB_TICKET_MEMORY));
    ap_log_rerror(APLOG_MARK, APLOG_DEBUG, 0, r,
                  ABB_LOGNO(0104) "sent to Bitbucket to sign in; attempt=%d", attempt);
    return abb_request_redirect(r, HTTP_MOVED_TEMPORARILY, start.location);
}

const char *abb_visit_login_url(const abb_visit_t *visit, request_rec *r, const char *return_path)
{
    const char *url = apr_pstrcat(r->pool, visit->site->origin, visit->site->login_path, NULL);

    return return_path
               ? apr_pstrcat(r->pool, url,
                             "?return=", abb_text_percent_encode(return_path, r->pool), NULL)
               : url;
}

abb_refusal_offers_t abb_visit_offers(const abb_visit_t *visit, request_rec *r,
                                      const char *return_path)
{
    abb_refusal_offers_t offers;

    offers.site = ap_auth_name(r);
    offers.retry = return_path ? return_path : "/";
    offers.sign_in = abb_visit_login_url(visit, r, return_path);
    offers.takes_basic =
        abb_config_place(r).api_token != ABB_API_TOKEN_OFF && !abb_request_is_of_browser(r);
    return offers;
}

int abb_visit_refuse(const abb_visit_t *visit, request_rec *r, const abb_error_t *err,
                     const char *return_path)
{
    abb_refusal_offers_t offers = abb_visit_offers(visit, r, return_path);

    return abb_refusal_send(r, err, &offers);
}
