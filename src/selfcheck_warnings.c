/* selfcheck (floor 6): what should be looked at in a configuration. See selfcheck_internal.h. */
#include <httpd.h>

#include <apr_file_info.h>
#include <apr_strings.h>
#include <http_config.h>
#include <http_core.h>

#include "abb_memory.h"
#include "abb_text.h"
#include "selfcheck_internal.h"

#define HARD_AGE_MAX apr_time_from_sec(86400)

static void warn(const abb_selfcheck_t *look, const char *subject, const char *sentence)
{
    apr_file_printf(look->out, "warning: %s: %s\n", subject, sentence);
}

/* ---- files --------------------------------------------------------------- */

static void warn_of_readable_file(const abb_selfcheck_t *look, const char *subject,
                                  const char *file)
{
    apr_finfo_t facts;

    if (file && apr_stat(&facts, file, APR_FINFO_PROT, look->pool) == APR_SUCCESS &&
        (facts.protection & APR_FPROT_WREAD)) {
        warn(look, subject,
             apr_psprintf(look->pool, "everybody on this machine can read %s: chmod 600 it", file));
    }
}

static void warn_of_sources(const abb_selfcheck_t *look)
{
    const apr_array_header_t *sources = abb_config_sources(look->server, look->pool);

    for (int i = 0; i < sources->nelts; ++i) {
        const abb_config_source_t *source = &APR_ARRAY_IDX(sources, i, abb_config_source_t);

        warn_of_readable_file(
            look, apr_pstrcat(look->pool, look->name, ": ", source->directive, NULL), source->file);
    }
}

/* ---- the cache of several machines --------------------------------------- */

static void warn_of_shared_cache(const abb_selfcheck_t *look, const char *specification)
{
    abb_error_t err;

    abb_error_clear(&err);
    if (abb_memory_probe(look->main_server, look->pool, &err) != APR_SUCCESS) {
        warn(look, "AuthBitbucketSessionCache",
             apr_pstrcat(look->pool, specification, ": ", err.text,
                         ": see whether it runs and can be reached from here", NULL));
    }
}

void abb_selfcheck_warn_of_server(abb_selfcheck_t *look)
{
    abb_cache_settings_t cache = abb_config_cache(look->main_server);

    if (cache.shared) {
        warn_of_shared_cache(look, cache.shared->specification);
    }
    if (!cache.file) {
        return;
    }
    warn_of_readable_file(look, "AuthBitbucketSessionCache", cache.file);
    warn_of_readable_file(look, "AuthBitbucketSessionCache",
                          apr_pstrcat(look->pool, cache.file, ".key", NULL));
    if (!ap_find_linked_module("mod_watchdog.c")) {
        warn(look, "AuthBitbucketSessionCache",
             "mod_watchdog is not there: after a power failure the last half minute of sessions "
             "may be missing; load it");
    }
}

/* ---- addresses ----------------------------------------------------------- */

#define ADDRESSES 5

static void list_addresses(const abb_site_t *site, const char *paths[ADDRESSES])
{
    paths[0] = site->callback_path;
    paths[1] = site->login_path;
    paths[2] = site->logout_path;
    paths[3] = site->userinfo_path;
    paths[4] = site->kept_form_path;
}

static void warn_of_claim(void *data, const ap_directive_t *directive)
{
    const abb_selfcheck_t *look = data;
    const char *paths[ADDRESSES];
    const char *claimed = abb_selfcheck_claimed_path(directive, look->pool);

    /* What holds for the whole site is not meant for these addresses. */
    if (!claimed || strcmp(claimed, "/") == 0) {
        return;
    }
    list_addresses(look->site, paths);
    for (int i = 0; i < ADDRESSES; ++i) {
        if (abb_selfcheck_is_below(paths[i], claimed)) {
            warn(look, look->name,
                 apr_psprintf(look->pool,
                              "%s %s (%s:%d) is about addresses of this module, too: there the "
                              "module answers first and it has no effect",
                              directive->directive + (*directive->directive == '<'), claimed,
                              directive->filename, directive->line_num));
            return;
        }
    }
}

static void warn_of_content(const abb_selfcheck_t *look)
{
    const core_server_config *core = ap_get_core_module_config(look->server->module_config);
    const char *paths[ADDRESSES];

    list_addresses(look->site, paths);
    for (int i = 0; i < ADDRESSES; ++i) {
        const char *file = apr_pstrcat(look->pool, core->ap_document_root, paths[i], NULL);
        apr_finfo_t facts;

        if (apr_stat(&facts, file, APR_FINFO_TYPE, look->pool) == APR_SUCCESS) {
            warn(look, look->name,
                 apr_psprintf(look->pool,
                              "%s is there, but at %s the module answers and nobody "
                              "will see it: move it away, or choose other addresses",
                              file, paths[i]));
        }
    }
}

/* ---- what lets in -------------------------------------------------------- */

static void warn_of_rules(const abb_selfcheck_t *look)
{
    abb_selfcheck_rules_t rules = abb_selfcheck_rules(look);

    if (!rules.is_used) {
        warn(look, look->name,
             "AuthType Bitbucket stands nowhere for this site: nothing is protected, unless an "
             ".htaccess file does it");
    }
    else if (!rules.count) {
        warn(look, look->name,
             "no Require line is one of this module: valid-user lets in everybody who has an "
             "account at Bitbucket; write for instance Require bitbucket-workspace acme");
    }
}

void abb_selfcheck_warn_of_site(abb_selfcheck_t *look)
{
    const abb_site_t *site = look->site;

    if (abb_config_is_readable_on_the_way(site)) {
        warn(look, look->name,
             apr_pstrcat(look->pool, site->origin,
                         " is plain http: cookies and pages can be read on the way; use https, "
                         "and behind a TLS terminator write AuthBitbucketCallbackURL with "
                         "https://",
                         NULL));
    }
    warn_of_sources(look);
    abb_config_visit(look->server, warn_of_claim, look);
    warn_of_content(look);
    if (strcmp(site->cookies.same_site, "None") == 0) {
        warn(look, look->name,
             "AuthBitbucketCookieSameSite is None: pages of other sites can send requests in "
             "the visitor's name; the application must tell them apart");
    }
    if (site->ages.hard > HARD_AGE_MAX) {
        warn(look, look->name,
             apr_psprintf(look->pool,
                          "AuthBitbucketMembershipMaxAge: who is removed at Bitbucket may stay "
                          "in for %s when Bitbucket does not answer",
                          abb_text_duration(site->ages.hard, look->pool)));
    }
    warn_of_rules(look);
}
