/* config (floor 4): one callback for many sites. See config_internal.h. */
#include <httpd.h>

#include <apr_strings.h>
#include <apr_uri.h>

#include "config_internal.h"

#define CALLBACK "AuthBitbucketCallbackURL"
#define CALLBACK_FOR "AuthBitbucketCallbackFor"

/* ---- whose callback ------------------------------------------------------ */

static int is_name_of(const server_rec *s, const char *host)
{
    if (s->server_hostname && strcasecmp(s->server_hostname, host) == 0) {
        return 1;
    }
    for (int i = 0; s->names && i < s->names->nelts; ++i) {
        if (strcasecmp(APR_ARRAY_IDX(s->names, i, const char *), host) == 0) {
            return 1;
        }
    }
    for (int i = 0; s->wild_names && i < s->wild_names->nelts; ++i) {
        if (ap_strcasecmp_match(host, APR_ARRAY_IDX(s->wild_names, i, const char *)) == 0) {
            return 1;
        }
    }
    return 0;
}

int abb_config_is_of_another(server_rec *main_server, const server_rec *s, const char *callback,
                             apr_pool_t *temporary)
{
    apr_uri_t uri;

    if (apr_uri_parse(temporary, callback, &uri) != APR_SUCCESS || is_name_of(s, uri.hostname)) {
        return 0;
    }
    for (const server_rec *other = main_server; other; other = other->next) {
        if (other != s && is_name_of(other, uri.hostname)) {
            return 1;
        }
    }
    return 0;
}

/* ---- whom a callback serves ---------------------------------------------- */

static apr_status_t settle_served_site(abb_hub_site_t *served, const char *client_id,
                                       const char *origin, apr_pool_t *p, abb_error_t *err)
{
    abb_sessions_t sessions;
    apr_status_t status = abb_session_set_audience(&sessions, client_id, origin, p, err);

    served->origin = origin;
    served->audience = sessions.audience;
    served->mark = abb_hub_mark(sessions.audience_hash, p);
    served->handovers = NULL;
    return status;
}

apr_status_t abb_config_settle_served(const server_config_t *conf, abb_site_t *site, apr_pool_t *p,
                                      abb_error_t *err)
{
    apr_status_t status = APR_SUCCESS;

    if (!conf->callback_for || site->mark) {
        return APR_SUCCESS;
    }
    site->served = apr_array_make(p, conf->callback_for->nelts, sizeof(abb_hub_site_t));
    for (int i = 0; i < conf->callback_for->nelts && status == APR_SUCCESS; ++i) {
        status = settle_served_site(apr_array_push(site->served), site->bitbucket.client_id,
                                    APR_ARRAY_IDX(conf->callback_for, i, const char *), p, err);
    }
    return status;
}

/* ---- do they fit? -------------------------------------------------------- */

/* The virtual host that has a callback of its own; NULL: none of this server. */
static server_rec *find_hub(server_rec *main_server, const char *callback)
{
    for (server_rec *s = main_server; s; s = s->next) {
        const abb_site_t *site = abb_config_site(s);

        if (site && !site->mark && strcmp(site->bitbucket.redirect_uri, callback) == 0) {
            return s;
        }
    }
    return NULL;
}

static int is_served(const abb_site_t *hub, const char *origin)
{
    for (int i = 0; hub->served && i < hub->served->nelts; ++i) {
        if (strcmp(APR_ARRAY_IDX(hub->served, i, abb_hub_site_t).origin, origin) == 0) {
            return 1;
        }
    }
    return 0;
}

/* Whether what the hub seals opens here. Without keys of its own it uses the server's. */
static int opens(const abb_site_t *site, const abb_site_t *hub)
{
    for (int i = 0; i < site->keyring.count; ++i) {
        if (memcmp(&site->keyring.keys[i], &hub->keyring.keys[0], sizeof(abb_crypto_key_t)) == 0) {
            return 1;
        }
    }
    return hub->keyring.count == 0;
}

static int check_fit(server_rec *s, const server_rec *hub_server, const abb_site_t *hub,
                     apr_pool_t *temporary)
{
    const abb_site_t *site = abb_config_site(s);
    const char *hub_name = hub_server->server_hostname ? hub_server->server_hostname : hub->origin;

    if (strcmp(site->bitbucket.client_id, hub->bitbucket.client_id) != 0) {
        return abb_config_bad_setting(
            s, CALLBACK,
            apr_psprintf(temporary,
                         "%s is the callback of the virtual host %s, which has another "
                         "AuthBitbucketClientID: use one OAuth client, or a callback of this host",
                         site->bitbucket.redirect_uri, hub_name));
    }
    if (!is_served(hub, site->origin)) {
        return abb_config_bad_setting(
            s, CALLBACK,
            apr_psprintf(temporary,
                         "%s is the callback of the virtual host %s: write there " CALLBACK_FOR
                         " %s",
                         site->bitbucket.redirect_uri, hub_name, site->origin));
    }
    if (!opens(site, hub)) {
        return abb_config_bad_setting(
            s, "AuthBitbucketSessionKey",
            apr_psprintf(temporary,
                         "the first key of the virtual host %s, which has the callback, is none of "
                         "this host's: add it here, or write the keys once for both",
                         hub_name));
    }
    return OK;
}

/* Where no place is protected, a callback is only inherited. */
static int matters(server_rec *main_server, server_rec *s, apr_pool_t *temporary)
{
    return abb_config_of(s)->origin || abb_config_is_used_in(main_server, s, temporary);
}

static int check_server(server_rec *main_server, server_rec *s, apr_pool_t *temporary)
{
    const abb_site_t *site = abb_config_site(s);
    server_rec *hub;

    if (!site || !site->mark || !matters(main_server, s, temporary)) {
        return OK;
    }
    if ((hub = find_hub(main_server, site->bitbucket.redirect_uri))) {
        return check_fit(s, hub, abb_config_site(hub), temporary);
    }
    /* With the own address said, the callback may be another machine's. */
    return abb_config_of(s)->origin
               ? OK
               : abb_config_bad_setting(
                     s, CALLBACK,
                     apr_psprintf(
                         temporary,
                         "%s is at another virtual host, but none has that callback: write "
                         "the same " CALLBACK " there, and " CALLBACK_FOR " %s",
                         site->bitbucket.redirect_uri, site->origin));
}

int abb_config_check_hubs(server_rec *main_server, apr_pool_t *temporary)
{
    for (server_rec *s = main_server; s; s = s->next) {
        int status = check_server(main_server, s, temporary);

        if (status != OK) {
            return status;
        }
    }
    return OK;
}
