/* config (floor 4): from directives to sites. See abb_config.h. */
#include <ap_listen.h>
#include <apr_env.h>
#include <apr_strings.h>
#include <apr_uri.h>
#include <http_core.h>
#include <http_log.h>
#include <http_main.h>

#include "abb_log.h"
#include "abb_secret.h"
#include "abb_text.h"
#include "config_internal.h"

APLOG_USE_MODULE(auth_bitbucket);

#define HEADER_PREFIX_DEFAULT "X-Bitbucket-"
#define CALLBACK_DEFAULT "/bitbucket/callback"
#define CONNECT_TIMEOUT_DEFAULT apr_time_from_sec(3)
#define TOTAL_TIMEOUT_DEFAULT apr_time_from_sec(10)
#define IDLE_TIMEOUT_DEFAULT apr_time_from_sec(12 * 3600)
#define ABSOLUTE_TIMEOUT_DEFAULT apr_time_from_sec(7 * 86400)

#define SOFT_AGE_DEFAULT apr_time_from_sec(5 * 60)
#define HARD_AGE_DEFAULT apr_time_from_sec(3600)
/* Before a question without an answer is sent once more, at least. */
#define RETRY_PAUSE apr_time_from_msec(200)

/* Where a fault is reported, and memory. */
typedef struct {
    apr_pool_t *pool;
    apr_pool_t *temporary;
    server_rec *main_server;
    server_rec *server;
    server_config_t *conf;
} settling_t;

static int value_or(apr_interval_time_t *place, apr_interval_time_t value,
                    apr_interval_time_t fallback)
{
    *place = value == UNSET ? fallback : value;
    return value != UNSET;
}

/* ---- the configuration as a tree ----------------------------------------- */

static const ap_directive_t *find_in_server(const settling_t *settling, const char *directive,
                                            const char *word)
{
    const server_rec *section = settling->server == settling->main_server ? NULL : settling->server;

    return abb_config_find_directive(section, directive, word, settling->temporary);
}

static const ap_directive_t *find_auth_type(const settling_t *settling)
{
    return find_in_server(settling, "AuthType", "Bitbucket");
}

static const ap_directive_t *find_global_auth_type(const settling_t *settling)
{
    return abb_config_find_directive(NULL, "AuthType", "Bitbucket", settling->temporary);
}

/* ---- faults -------------------------------------------------------------- */

/* Warnings come once: httpd reads its configuration twice before it runs. */
static int is_first_of_two_passes(void)
{
    return ap_state_query(AP_SQ_MAIN_STATE) == AP_SQ_MS_CREATE_PRE_CONFIG &&
           ap_state_query(AP_SQ_RUN_MODE) == AP_SQ_RM_NORMAL;
}

static int missing(const settling_t *settling, const char *what, const char *directive,
                   const char *variable)
{
    const ap_directive_t *user = find_auth_type(settling);
    const char *place = "";

    user = user ? user : find_global_auth_type(settling);
    if (user) {
        place = apr_psprintf(settling->temporary, "AuthType Bitbucket is used (%s:%d), but ",
                             user->filename, user->line_num);
    }
    ap_log_error(APLOG_MARK, APLOG_EMERG | APLOG_STARTUP, 0, NULL,
                 ABB_LOGNO(0001) "%s: %sthere is no %s: write the directive %s, or set the "
                                 "environment variable %s for httpd",
                 abb_config_server_name(settling->server), place, what, directive, variable);
    return HTTP_INTERNAL_SERVER_ERROR;
}

static int bad_secret(const settling_t *settling, const char *directive, const abb_error_t *err)
{
    ap_log_error(APLOG_MARK, APLOG_EMERG | APLOG_STARTUP, 0, NULL, ABB_LOGNO(0002) "%s: %s: %s",
                 abb_config_server_name(settling->server), directive, err->text);
    return HTTP_INTERNAL_SERVER_ERROR;
}

static int bad_setting(const settling_t *settling, const char *directive, const char *sentence)
{
    return abb_config_bad_setting(settling->server, directive, sentence);
}

/* ---- the OAuth client ---------------------------------------------------- */

static const char *environment(const char *name, apr_pool_t *p)
{
    char *value;

    return apr_env_get(&value, name, p) == APR_SUCCESS && *value ? value : NULL;
}

static int settle_secret(const settling_t *settling, abb_site_t *site)
{
    const char *specification = settling->conf->client_secret;
    abb_error_t err;

    if (!specification) {
        site->bitbucket.client_secret = environment(ABB_CONFIG_SECRET_VARIABLE, settling->pool);
        return site->bitbucket.client_secret
                   ? OK
                   : missing(settling, "client secret", "AuthBitbucketClientSecret",
                             ABB_CONFIG_SECRET_VARIABLE);
    }
    abb_error_clear(&err);
    return abb_secret_read(specification, ap_server_root, &site->bitbucket.client_secret,
                           settling->pool, &err) == APR_SUCCESS
               ? OK
               : bad_secret(settling, "AuthBitbucketClientSecret", &err);
}

/* ---- addresses ----------------------------------------------------------- */

/* 0: that of the scheme. */
static apr_port_t server_port(const server_rec *s)
{
    /* "ServerName https://wiki.example.com" is the public address, whatever httpd listens to. */
    if (s->port || s->server_scheme) {
        return s->port;
    }
    if (s->addrs && s->addrs->host_port) {
        return s->addrs->host_port;
    }
    return ap_listeners && ap_listeners->bind_addr ? ap_listeners->bind_addr->port : 0;
}

static int is_https(const settling_t *settling, apr_port_t port)
{
    server_rec *s = settling->server;
    const char *protocol;

    if (s->server_scheme) {
        return strcmp(s->server_scheme, "https") == 0;
    }
    protocol = ap_get_server_protocol(s);
    return (protocol && strcmp(protocol, "https") == 0) ||
           find_in_server(settling, "SSLEngine", "on") != NULL || port == 443;
}

static const char *compose_origin(const char *scheme, const char *host, apr_port_t port,
                                  apr_pool_t *p)
{
    int is_default = port == 0 || port == (strcmp(scheme, "https") == 0 ? 443 : 80);

    return is_default ? apr_pstrcat(p, scheme, "://", host, NULL)
                      : apr_psprintf(p, "%s://%s:%d", scheme, host, port);
}

/* From a path: scheme, host and port of ServerName, never of a request. */
static const char *origin_of_server(const settling_t *settling)
{
    apr_port_t port = server_port(settling->server);
    const char *scheme = is_https(settling, port) ? "https" : "http";
    char *host = apr_pstrdup(settling->pool, settling->server->server_hostname);

    ap_str_tolower(host);
    return compose_origin(scheme, host, port, settling->pool);
}

const char *abb_config_origin_of_url(const char *url, const char **path, apr_pool_t *p)
{
    apr_uri_t uri;
    char *host;

    apr_uri_parse(p, url, &uri);
    host = apr_pstrdup(p, uri.hostname);
    ap_str_tolower(host);
    *path = uri.path;
    if (strchr(host, ':')) {
        host = apr_pstrcat(p, "[", host, "]", NULL);
    }
    return compose_origin(uri.scheme, host, uri.port_str ? uri.port : 0, p);
}

static const char *sibling(const char *callback_path, const char *name, apr_pool_t *p)
{
    apr_size_t directory = (apr_size_t)(strrchr(callback_path, '/') - callback_path) + 1;

    return apr_pstrcat(p, apr_pstrmemdup(p, callback_path, directory), name, NULL);
}

/* The callback's host is the public one, whatever the server is called inside. */
static void settle_own_callback(const settling_t *settling, abb_site_t *site, const char *callback)
{
    site->origin = abb_config_origin_of_url(callback, &site->callback_path, settling->pool);
}

/* Another site is sent the visitors who come back from Bitbucket, and hands them on. */
static void settle_foreign_callback(const settling_t *settling, abb_site_t *site,
                                    const char *callback)
{
    abb_config_origin_of_url(callback, &site->callback_path, settling->pool);
    site->origin = settling->conf->origin ? settling->conf->origin : origin_of_server(settling);
    /* Of the audience, which is not settled yet. */
    site->mark = "";
}

static int is_foreign(const settling_t *settling, const char *callback)
{
    return settling->conf->origin ||
           abb_config_is_of_another(settling->main_server, settling->server, callback,
                                    settling->temporary);
}

static int settle_addresses(const settling_t *settling, abb_site_t *site)
{
    const char *callback = settling->conf->callback ? settling->conf->callback : CALLBACK_DEFAULT;

    if (*callback == '/') {
        if (!settling->server->server_hostname) {
            return bad_setting(settling, "AuthBitbucketCallbackURL",
                               "a path needs a ServerName; or write the whole URL");
        }
        site->callback_path = callback;
        site->origin = origin_of_server(settling);
        site->bitbucket.redirect_uri = apr_pstrcat(settling->pool, site->origin, callback, NULL);
    }
    else {
        (is_foreign(settling, callback) ? settle_foreign_callback
                                        : settle_own_callback)(settling, site, callback);
        /* As registered, to the letter: Bitbucket compares texts. */
        site->bitbucket.redirect_uri = callback;
    }
    site->login_path = sibling(site->callback_path, "login", settling->pool);
    site->logout_path = sibling(site->callback_path, "logout", settling->pool);
    site->userinfo_path = sibling(site->callback_path, "userinfo", settling->pool);
    site->kept_form_path = sibling(site->callback_path, "kept-form", settling->pool);
    return OK;
}

static int ends_in(const char *text, apr_size_t length, const char *end)
{
    apr_size_t end_length = strlen(end);

    return length >= end_length && strncmp(text + length - end_length, end, end_length) == 0;
}

/* Names below localhost lead to this machine, too. Source: RFC 6761 section 6.3. */
static int is_loopback_origin(const char *origin)
{
    apr_size_t length;
    const char *host = abb_text_origin_host(origin, &length);

    return (length == 9 && strncmp(host, "localhost", 9) == 0) ||
           ends_in(host, length, ".localhost") ||
           (strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") == length) ||
           (length == 5 && strncmp(host, "[::1]", 5) == 0);
}

int abb_config_is_readable_on_the_way(const abb_site_t *site)
{
    return strncmp(site->origin, "http://", 7) == 0 && !is_loopback_origin(site->origin);
}

static void warn_of_plain_http(const settling_t *settling, const abb_site_t *site)
{
    if (!abb_config_is_readable_on_the_way(site) || is_first_of_two_passes()) {
        return;
    }
    ap_log_error(APLOG_MARK, APLOG_WARNING, 0, settling->server,
                 ABB_LOGNO(0004) "%s is plain http: cookies and pages can be read on the way. "
                                 "Use https, and behind a TLS terminator write "
                                 "AuthBitbucketCallbackURL with https://",
                 site->origin);
}

/* ---- applications -------------------------------------------------------- */

static void settle_identity(const settling_t *settling, abb_site_t *site)
{
    const server_config_t *conf = settling->conf;

    abb_identity_settle(
        &site->identity, conf->header_prefix ? conf->header_prefix : HEADER_PREFIX_DEFAULT,
        conf->header_encoding == UNSET ? ABB_HEADERS_PERCENT
                                       : (abb_header_encoding_t)conf->header_encoding,
        settling->pool);
}

/* ---- cookies ------------------------------------------------------------- */

static int is_within_domain(const char *origin, const char *domain)
{
    apr_size_t host_length;
    const char *host = abb_text_origin_host(origin, &host_length);
    apr_size_t domain_length = strlen(domain);
    const char *end = host + host_length - domain_length;

    return host_length >= domain_length && strncasecmp(end, domain, domain_length) == 0 &&
           (end == host || end[-1] == '.');
}

static int settle_cookies(const settling_t *settling, abb_site_t *site)
{
    const server_config_t *conf = settling->conf;
    const char *name = conf->cookie_name ? conf->cookie_name : "bitbucket_session";
    abb_cookie_settings_t *cookies = &site->cookies;
    const char *prefix;

    cookies->domain = conf->cookie_domain;
    cookies->same_site = conf->cookie_same_site ? conf->cookie_same_site : "Lax";
    cookies->is_secure = strncmp(site->origin, "https://", 8) == 0;
    if (cookies->domain && !is_within_domain(site->origin, cookies->domain)) {
        return bad_setting(settling, "AuthBitbucketCookieDomain",
                           apr_psprintf(settling->temporary,
                                        "'%s' does not hold the site's own address %s",
                                        cookies->domain, site->origin));
    }
    if (!cookies->is_secure && strcmp(cookies->same_site, "None") == 0) {
        return bad_setting(settling, "AuthBitbucketCookieSameSite",
                           apr_psprintf(settling->temporary,
                                        "browsers take 'None' over https only, but the site is %s",
                                        site->origin));
    }
    prefix = !cookies->is_secure ? "" : cookies->domain ? "__Secure-" : "__Host-";
    cookies->session_name = apr_pstrcat(settling->pool, prefix, name, NULL);
    cookies->ticket_prefix = apr_pstrcat(settling->pool, prefix, name, "_ticket_", NULL);
    cookies->recent_name = apr_pstrcat(settling->pool, prefix, name, "_recent", NULL);
    cookies->ways_name = apr_pstrcat(settling->pool, prefix, name, "_ways", NULL);
    cookies->badge_name = apr_pstrcat(settling->pool, prefix, name, "_badge", NULL);
    return OK;
}

/* ---- sessions ------------------------------------------------------------ */

apr_status_t abb_config_read_keys(const apr_array_header_t *specifications,
                                  abb_crypto_keyring_t *ring, apr_pool_t *p, abb_error_t *err)
{
    for (int i = 0; i < specifications->nelts; ++i) {
        const char *passphrase;
        apr_status_t status = abb_secret_read(APR_ARRAY_IDX(specifications, i, const char *),
                                              ap_server_root, &passphrase, p, err);

        if (status == APR_SUCCESS) {
            status = abb_crypto_stretch(passphrase, &ring->keys[i], err);
        }
        if (status != APR_SUCCESS) {
            return status;
        }
    }
    ring->count = specifications->nelts;
    return APR_SUCCESS;
}

static int settle_keys(const settling_t *settling, abb_site_t *site)
{
    const apr_array_header_t *keys = settling->conf->session_keys;
    const server_config_t *main_conf = abb_config_of(settling->main_server);
    abb_error_t err;

    if (!keys) {
        return OK;
    }
    if (settling->conf != main_conf && keys == main_conf->session_keys && main_conf->site) {
        site->keyring = main_conf->site->keyring;
        return OK;
    }
    abb_error_clear(&err);
    return abb_config_read_keys(keys, &site->keyring, settling->temporary, &err) == APR_SUCCESS
               ? OK
               : bad_secret(settling, "AuthBitbucketSessionKey", &err);
}

static int settle_sessions(const settling_t *settling, abb_site_t *site)
{
    const server_config_t *conf = settling->conf;
    abb_sessions_t *sessions = &site->sessions;
    abb_error_t err;

    value_or(&sessions->idle_timeout, conf->idle_timeout, IDLE_TIMEOUT_DEFAULT);
    value_or(&sessions->absolute_timeout, conf->absolute_timeout, ABSOLUTE_TIMEOUT_DEFAULT);
    sessions->max_per_account = conf->max_sessions == UNSET ? 0 : conf->max_sessions;
    if (sessions->idle_timeout > sessions->absolute_timeout) {
        return bad_setting(settling, "AuthBitbucketSessionTimeout",
                           "idle is longer than absolute (7d unless said): write both");
    }
    abb_error_clear(&err);
    if (abb_session_set_audience(sessions, site->bitbucket.client_id, site->origin, settling->pool,
                                 &err) != APR_SUCCESS) {
        return bad_setting(settling, "AuthBitbucketCallbackURL", err.text);
    }
    if (site->mark) {
        site->mark = abb_hub_mark(sessions->audience_hash, settling->pool);
    }
    if (abb_config_settle_served(conf, site, settling->pool, &err) != APR_SUCCESS) {
        return bad_setting(settling, "AuthBitbucketCallbackFor", err.text);
    }
    return settle_keys(settling, site);
}

/* ---- Bitbucket ----------------------------------------------------------- */

static int settle_bitbucket(const settling_t *settling, abb_site_t *site)
{
    const server_config_t *conf = settling->conf;
    abb_bitbucket_t *bitbucket = &site->bitbucket;
    abb_http_settings_t *http = &bitbucket->http_settings;

    bitbucket->authorize_url =
        conf->authorize_url ? conf->authorize_url : ABB_BITBUCKET_AUTHORIZE_URL;
    bitbucket->token_url = conf->token_url ? conf->token_url : ABB_BITBUCKET_TOKEN_URL;
    bitbucket->api_url = conf->api_url ? conf->api_url : ABB_BITBUCKET_API_URL;
    bitbucket->scope = conf->scope;
    bitbucket->retry_pause = RETRY_PAUSE;
    http->ca_file = conf->ca_file;
    http->proxy = conf->proxy;
    http->user_agent = "mod_auth_bitbucket/" ABB_VERSION;
    value_or(&http->connect_timeout, conf->connect_timeout, CONNECT_TIMEOUT_DEFAULT);
    value_or(&http->total_timeout, conf->total_timeout, TOTAL_TIMEOUT_DEFAULT);
    if (http->connect_timeout > http->total_timeout) {
        return bad_setting(settling, "AuthBitbucketHTTPTimeout",
                           "connecting may not take longer than the whole (10s unless said): "
                           "write both");
    }
    return OK;
}

static int settle_freshness(const settling_t *settling, abb_site_t *site)
{
    const server_config_t *conf = settling->conf;

    value_or(&site->ages.soft, conf->soft_age, SOFT_AGE_DEFAULT);
    value_or(&site->ages.hard, conf->hard_age, HARD_AGE_DEFAULT);
    if (site->ages.soft > site->ages.hard) {
        return bad_setting(settling, "AuthBitbucketMembershipMaxAge",
                           apr_psprintf(settling->temporary,
                                        "soft, '%s', is longer than hard, '%s' (1h unless said): "
                                        "write both",
                                        abb_text_duration(site->ages.soft, settling->temporary),
                                        abb_text_duration(site->ages.hard, settling->temporary)));
    }
    site->max_logins = conf->max_logins == UNSET ? 0 : conf->max_logins;
    return OK;
}

static void add_once(apr_array_header_t *all, const apr_array_header_t *some)
{
    for (int i = 0; i < some->nelts; ++i) {
        const char *name = APR_ARRAY_IDX(some, i, const char *);
        int is_known = 0;

        for (int j = 0; j < all->nelts; ++j) {
            is_known |= strcmp(APR_ARRAY_IDX(all, j, const char *), name) == 0;
        }
        if (!is_known) {
            APR_ARRAY_PUSH(all, const char *) = name;
        }
    }
}

/* The Require lines of the virtual host first, then those that hold everywhere. */
static void settle_workspaces(const settling_t *settling, abb_site_t *site)
{
    apr_array_header_t *all = apr_array_make(settling->pool, 8, sizeof(const char *));

    add_once(all, settling->conf->workspaces);
    add_once(all, abb_config_of(settling->main_server)->workspaces);
    site->workspaces = all;
}

/* ---- scopes -------------------------------------------------------------- */

static void add_need(apr_array_header_t *all, const abb_config_need_t *need)
{
    for (int i = 0; i < all->nelts; ++i) {
        if (strcmp(APR_ARRAY_IDX(all, i, abb_config_need_t).scope, need->scope) == 0) {
            return;
        }
    }
    APR_ARRAY_PUSH(all, abb_config_need_t) = *need;
}

static void add_needs(apr_array_header_t *all, const apr_array_header_t *needs)
{
    for (int i = 0; i < needs->nelts; ++i) {
        add_need(all, &APR_ARRAY_IDX(needs, i, abb_config_need_t));
    }
}

/* What the site's lines need, and those that hold everywhere; AuthBitbucketScope must not hide it. */
static int settle_needs(const settling_t *settling, abb_site_t *site)
{
    static const abb_config_need_t account = {"account", "every sign-in"};
    apr_array_header_t *all = apr_array_make(settling->pool, 4, sizeof(abb_config_need_t));

    add_need(all, &account);
    add_needs(all, settling->conf->needs);
    add_needs(all, abb_config_of(settling->main_server)->needs);
    site->needs = all;
    for (int i = 0; settling->conf->scope && i < all->nelts; ++i) {
        const abb_config_need_t *need = &APR_ARRAY_IDX(all, i, abb_config_need_t);

        if (!abb_account_has_scope(settling->conf->scope, need->scope)) {
            return bad_setting(settling, "AuthBitbucketScope",
                               apr_psprintf(settling->temporary,
                                            "'%s' leaves out '%s', which %s needs: add it",
                                            settling->conf->scope, need->scope, need->why));
        }
    }
    return OK;
}

/* ---- sites --------------------------------------------------------------- */

static int settle_site(const settling_t *settling, const char *client_id)
{
    abb_site_t *site = apr_pcalloc(settling->pool, sizeof(*site));
    int status;

    site->bitbucket.client_id = client_id;
    if ((status = settle_secret(settling, site)) != OK ||
        (status = settle_addresses(settling, site)) != OK ||
        (status = settle_bitbucket(settling, site)) != OK ||
        (status = settle_freshness(settling, site)) != OK ||
        (status = settle_cookies(settling, site)) != OK ||
        (status = settle_needs(settling, site)) != OK ||
        (status = settle_sessions(settling, site)) != OK) {
        return status;
    }
    abb_bitbucket_settle(&site->bitbucket, settling->pool);
    settle_identity(settling, site);
    settle_workspaces(settling, site);
    warn_of_plain_http(settling, site);
    settling->conf->site = site;
    return OK;
}

static int settle_server(const settling_t *settling)
{
    const char *client_id = settling->conf->client_id;
    int is_used = find_auth_type(settling) != NULL;

    if (!settling->conf->is_configured && !is_used && !find_global_auth_type(settling)) {
        return OK;
    }
    if (!client_id) {
        client_id = environment(ABB_CONFIG_ID_VARIABLE, settling->pool);
    }
    if (client_id) {
        return settle_site(settling, client_id);
    }
    /* A rule outside all virtual hosts may be meant for only some of them. */
    return is_used && settling->server != settling->main_server
               ? missing(settling, "client id", "AuthBitbucketClientID", ABB_CONFIG_ID_VARIABLE)
               : OK;
}

int abb_config_settle(apr_pool_t *p, apr_pool_t *temporary, server_rec *servers)
{
    settling_t settling = {p, temporary, servers, NULL, NULL};
    int site_count = 0;

    for (server_rec *s = servers; s; s = s->next) {
        int status;

        settling.server = s;
        settling.conf = abb_config_of(s);
        if ((status = settle_server(&settling)) != OK) {
            return status;
        }
        site_count += settling.conf->site != NULL;
    }
    settling.server = servers;
    settling.conf = abb_config_of(servers);
    if (site_count == 0 && find_global_auth_type(&settling)) {
        return missing(&settling, "client id", "AuthBitbucketClientID", ABB_CONFIG_ID_VARIABLE);
    }
    if (site_count == 0) {
        return OK;
    }
    return abb_config_check_hubs(servers, temporary) == OK
               ? abb_config_settle_cache(servers, temporary)
               : HTTP_INTERNAL_SERVER_ERROR;
}
