/* selfcheck (floor 6): the facts of a configuration. See selfcheck_internal.h. */
#include <httpd.h>

#include <apr_strings.h>
#include <http_config.h>

#include "abb_text.h"
#include "selfcheck_internal.h"

/* Of a session with Bitbucket's tokens. Source: docs/sessions.md, measured by `make bench`. */
#define SESSION_BYTES 5041

/* ---- lines --------------------------------------------------------------- */

static void print_fact(const abb_selfcheck_t *look, const char *what, const char *fact)
{
    apr_file_printf(look->out, "  %-20s %s\n", what, fact);
}

/* A fact with the place of the directive that decides it. */
static void print_setting(const abb_selfcheck_t *look, const char *what, const char *directive,
                          const char *fact)
{
    print_fact(look, what,
               apr_psprintf(look->pool, "%s [%s]", fact,
                            abb_config_whence(look->server, directive, look->pool)));
}

static const char *text_of(const abb_selfcheck_t *look, apr_interval_time_t duration)
{
    return abb_text_duration(duration, look->pool);
}

/* ---- the server as a whole ----------------------------------------------- */

static long capacity(apr_size_t size)
{
    long count = (long)(size / SESSION_BYTES);

    return count < 1000 ? count : count - count % 100;
}

static void print_store(const abb_selfcheck_t *look, const abb_cache_settings_t *cache)
{
    const char *text = abb_config_cache_text(cache, look->pool);

    if (cache->shared) {
        print_setting(look, "kept in", "AuthBitbucketSessionCache", cache->shared->specification);
        print_setting(look, "copies", "AuthBitbucketSessionNearCache",
                      cache->near_age == 0
                          ? "none: each request asks the cache"
                          : apr_psprintf(look->pool, "in %s, up to %s old, in an outage %s", text,
                                         text_of(look, cache->near_age),
                                         text_of(look, cache->outage_age)));
        return;
    }
    print_setting(look, "kept in", "AuthBitbucketSessionCache", text);
    print_fact(look, "room for",
               apr_psprintf(look->pool,
                            "about %ld sessions of %d bytes, if tokens are as long as "
                            "Bitbucket's",
                            capacity(cache->size), SESSION_BYTES));
    print_fact(look, "outlive",
               cache->file ? "reload, stop, start and reboot" : "reload and restart, not a stop");
}

void abb_selfcheck_dump_server(abb_selfcheck_t *look)
{
    abb_cache_settings_t cache = abb_config_cache(look->main_server);

    look->server = look->main_server;
    apr_file_printf(look->out, "\nSessions of all sites\n");
    print_store(look, &cache);
}

/* ---- at Bitbucket -------------------------------------------------------- */

static void print_client(const abb_selfcheck_t *look)
{
    const abb_bitbucket_t *bitbucket = &look->site->bitbucket;
    const apr_array_header_t *needs = look->site->needs;

    apr_file_printf(look->out, "  Callback URL to register at Bitbucket:\n%s\n",
                    bitbucket->redirect_uri);
    apr_file_printf(look->out, "  Permissions to tick there:\n");
    for (int i = 0; i < needs->nelts; ++i) {
        const abb_config_need_t *need = &APR_ARRAY_IDX(needs, i, abb_config_need_t);

        apr_file_printf(look->out, "    %-18s for %s\n", abb_account_scope_label(need->scope),
                        need->why);
    }
    print_fact(look, "client id", bitbucket->client_id);
    if (bitbucket->scope) {
        print_setting(look, "narrowed to", "AuthBitbucketScope", bitbucket->scope);
    }
}

static void print_way(const abb_selfcheck_t *look)
{
    const abb_bitbucket_t *bitbucket = &look->site->bitbucket;
    const abb_http_settings_t *http = &bitbucket->http_settings;
    apr_pool_t *p = look->pool;

    print_setting(look, "sign-in at", "AuthBitbucketAuthorizeURL",
                  abb_text_public_url(bitbucket->authorize_url, p));
    print_setting(look, "tokens from", "AuthBitbucketTokenURL",
                  abb_text_public_url(bitbucket->token_url, p));
    print_setting(look, "API", "AuthBitbucketAPIURL", bitbucket->api_url);
    print_setting(look, "HTTP time-outs", "AuthBitbucketHTTPTimeout",
                  apr_psprintf(p, "connect %s, total %s", text_of(look, http->connect_timeout),
                               text_of(look, http->total_timeout)));
    print_setting(look, "proxy", "AuthBitbucketProxy",
                  http->proxy ? abb_text_public_url(http->proxy, p) : "none");
    print_setting(look, "authorities", "AuthBitbucketCAFile",
                  http->ca_file ? http->ca_file : "the system's");
}

/* ---- the site's own ------------------------------------------------------ */

static void print_endpoints(const abb_selfcheck_t *look)
{
    const abb_site_t *site = look->site;
    const char *const paths[] = {site->login_path, site->logout_path, site->userinfo_path};

    for (int i = 0; i < 3; ++i) {
        print_fact(look, i ? "" : "addresses",
                   apr_pstrcat(look->pool, site->origin, paths[i], NULL));
    }
}

static void print_hub(const abb_selfcheck_t *look)
{
    const apr_array_header_t *served = look->site->served;

    if (look->site->mark) {
        print_fact(look, "hub", "the callback is another site's, which hands on to this one");
    }
    for (int i = 0; served && i < served->nelts; ++i) {
        print_fact(look, i ? "" : "is the hub of", APR_ARRAY_IDX(served, i, abb_hub_site_t).origin);
    }
}

static void print_cookie(const abb_selfcheck_t *look)
{
    const abb_cookie_settings_t *cookies = &look->site->cookies;

    print_setting(look, "session cookie", "AuthBitbucketCookieName", cookies->session_name);
    print_fact(look, "",
               apr_pstrcat(look->pool, "Path=/; ", cookies->domain ? "Domain=" : "",
                           cookies->domain ? cookies->domain : "", cookies->domain ? "; " : "",
                           cookies->is_secure ? "Secure; " : "",
                           "HttpOnly; SameSite=", cookies->same_site, NULL));
    print_fact(look, "others",
               apr_psprintf(look->pool, "%s..., %s, %s, %s", cookies->ticket_prefix,
                            cookies->recent_name, cookies->ways_name, cookies->badge_name));
}

static void print_times(const abb_selfcheck_t *look)
{
    const abb_site_t *site = look->site;

    print_setting(look, "sessions end", "AuthBitbucketSessionTimeout",
                  apr_psprintf(look->pool, "unused for %s, or after %s",
                               text_of(look, site->sessions.idle_timeout),
                               text_of(look, site->sessions.absolute_timeout)));
    print_setting(look, "for each account", "AuthBitbucketMaxSessionsPerUser",
                  site->sessions.max_per_account ? apr_psprintf(look->pool, "at most %d sessions",
                                                                site->sessions.max_per_account)
                                                 : "any number of sessions");
    print_setting(look, "roles are asked", "AuthBitbucketMembershipMaxAge",
                  apr_psprintf(look->pool, "again after %s, none older than %s is used",
                               text_of(look, site->ages.soft), text_of(look, site->ages.hard)));
}

static const char *own_key(const abb_selfcheck_t *look)
{
    abb_cache_settings_t cache = abb_config_cache(look->main_server);

    return cache.file ? apr_pstrcat(look->pool, "generated, kept in ", cache.file, ".key", NULL)
                      : "generated, kept in memory";
}

static void print_secrets(const abb_selfcheck_t *look)
{
    const apr_array_header_t *sources = abb_config_sources(look->server, look->pool);

    for (int i = 0; i < sources->nelts; ++i) {
        const abb_config_source_t *source = &APR_ARRAY_IDX(sources, i, abb_config_source_t);

        print_setting(look,
                      i == 0   ? "client secret"
                      : i == 1 ? "session keys"
                               : "",
                      source->directive, source->text);
    }
    if (sources->nelts == 1) {
        print_setting(look, "session key", "AuthBitbucketSessionKey", own_key(look));
    }
}

static void print_rules(const abb_selfcheck_t *look)
{
    const apr_array_header_t *names = look->site->workspaces;
    int count = abb_selfcheck_rules(look).count;
    const char *list = "";

    for (int i = 0; i < names->nelts; ++i) {
        list = apr_pstrcat(look->pool, list, i ? ", " : "; they name ",
                           APR_ARRAY_IDX(names, i, const char *), NULL);
    }
    print_fact(look, "rules",
               apr_psprintf(look->pool, "%d Require line%s of this module%s", count,
                            count == 1 ? "" : "s", list));
    print_fact(look, "", "(.htaccess files are read with each request and not known here)");
}

void abb_selfcheck_dump_site(abb_selfcheck_t *look)
{
    apr_file_printf(look->out, "\nSite %s\n", look->name);
    print_client(look);
    print_secrets(look);
    print_endpoints(look);
    print_hub(look);
    print_rules(look);
    print_cookie(look);
    print_times(look);
    print_way(look);
}
