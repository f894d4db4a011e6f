/* config (floor 4): what directives leave behind, and its merge. See abb_config.h. */
#include "config_internal.h"

#include <apr_strings.h>
#include <http_core.h>
#include <http_log.h>
#include <string.h>

#include "abb_log.h"

APLOG_USE_MODULE(auth_bitbucket);

/* ---- create and merge ---------------------------------------------------- */

server_config_t *abb_config_of(server_rec *s)
{
    return ap_get_module_config(s->module_config, &auth_bitbucket_module);
}

void *abb_config_create_server(apr_pool_t *p, server_rec *s)
{
    server_config_t *conf = apr_pcalloc(p, sizeof(*conf));

    conf->connect_timeout = conf->total_timeout = UNSET;
    conf->idle_timeout = conf->absolute_timeout = UNSET;
    conf->soft_age = conf->hard_age = UNSET;
    conf->max_logins = UNSET;
    conf->max_sessions = UNSET;
    conf->header_encoding = UNSET;
    conf->cache.size = ABB_CONFIG_STORE_SIZE;
    conf->cache.near_age = ABB_CONFIG_NEAR_AGE;
    conf->cache.outage_age = ABB_CONFIG_OUTAGE_AGE;
    conf->workspaces = apr_array_make(p, 4, sizeof(const char *));
    conf->needs = apr_array_make(p, 4, sizeof(abb_config_need_t));
    return conf;
}

#define INHERIT_POINTER(member) merged->member = over->member ? over->member : base->member
#define INHERIT_NUMBER(member) merged->member = over->member != UNSET ? over->member : base->member

void *abb_config_merge_server(apr_pool_t *p, void *base_config, void *over_config)
{
    const server_config_t *base = base_config;
    const server_config_t *over = over_config;
    server_config_t *merged = apr_pmemdup(p, over, sizeof(*over));

    merged->is_configured = base->is_configured || over->is_configured;
    INHERIT_POINTER(client_id);
    INHERIT_POINTER(client_secret);
    /* The site's own address says nothing of another callback. */
    merged->origin = over->callback ? over->origin : base->origin;
    INHERIT_POINTER(callback);
    INHERIT_POINTER(callback_for);
    INHERIT_POINTER(scope);
    INHERIT_POINTER(authorize_url);
    INHERIT_POINTER(token_url);
    INHERIT_POINTER(api_url);
    INHERIT_NUMBER(connect_timeout);
    INHERIT_NUMBER(total_timeout);
    INHERIT_POINTER(ca_file);
    INHERIT_POINTER(proxy);
    INHERIT_POINTER(cookie_name);
    INHERIT_POINTER(cookie_domain);
    INHERIT_POINTER(cookie_same_site);
    INHERIT_POINTER(header_prefix);
    INHERIT_NUMBER(header_encoding);
    INHERIT_NUMBER(idle_timeout);
    INHERIT_NUMBER(absolute_timeout);
    INHERIT_NUMBER(soft_age);
    INHERIT_NUMBER(hard_age);
    INHERIT_NUMBER(max_logins);
    INHERIT_NUMBER(max_sessions);
    INHERIT_POINTER(session_keys);
    return merged;
}

void *abb_config_create_directory(apr_pool_t *p, char *directory)
{
    directory_config_t *conf = apr_pcalloc(p, sizeof(*conf));

    conf->is_private = UNSET;
    conf->preserves_post = UNSET;
    conf->pass = UNSET;
    conf->passes_access_token = UNSET;
    conf->api_token = UNSET;
    return conf;
}

void *abb_config_merge_directory(apr_pool_t *p, void *base_config, void *over_config)
{
    const directory_config_t *base = base_config;
    const directory_config_t *over = over_config;
    directory_config_t *merged = apr_palloc(p, sizeof(*merged));

    INHERIT_POINTER(remote_user);
    INHERIT_NUMBER(is_private);
    INHERIT_NUMBER(preserves_post);
    INHERIT_NUMBER(pass);
    INHERIT_NUMBER(passes_access_token);
    INHERIT_NUMBER(api_token);
    INHERIT_POINTER(unauthenticated);
    return merged;
}

/* ---- what Require lines leave behind ------------------------------------- */

/* httpd makes a virtual host's settings at the first directive of ours there; Require is none. */
static server_config_t *make_config_of(server_rec *s)
{
    server_config_t *conf = abb_config_of(s);

    if (!conf) {
        conf = abb_config_create_server(s->process->pconf, s);
        ap_set_module_config(s->module_config, &auth_bitbucket_module, conf);
    }
    return conf;
}

void abb_config_add_workspace(server_rec *s, const char *workspace)
{
    APR_ARRAY_PUSH(make_config_of(s)->workspaces, const char *) = workspace;
}

void abb_config_need_scope(cmd_parms *cmd, const char *scope, const char *what)
{
    abb_config_need_t *need = apr_array_push(make_config_of(cmd->server)->needs);

    need->scope = scope;
    need->why = apr_psprintf(cmd->pool, "%s (%s:%d)", what, cmd->directive->filename,
                             cmd->directive->line_num);
}

/* ---- asking -------------------------------------------------------------- */

abb_site_t *abb_config_site(server_rec *s)
{
    return abb_config_of(s)->site;
}

int abb_config_is_used(request_rec *r)
{
    const char *type = ap_auth_type(r);

    return type && (strcmp(type, ABB_AUTH_TYPE) == 0 || ap_cstr_casecmp(type, ABB_AUTH_TYPE) == 0);
}

abb_place_t abb_config_place(request_rec *r)
{
    const directory_config_t *conf =
        ap_get_module_config(r->per_dir_config, &auth_bitbucket_module);
    abb_place_t place = {conf->remote_user ? conf->remote_user : "username",
                         conf->is_private != 0,
                         conf->preserves_post == 1,
                         conf->pass == UNSET ? ABB_PASS_VARIABLES : (abb_pass_t)conf->pass,
                         conf->passes_access_token == 1,
                         conf->api_token == UNSET ? ABB_API_TOKEN_OFF
                                                  : (abb_api_token_t)conf->api_token};

    return place;
}

static int holds(request_rec *r, const unauthenticated_line_t *line)
{
    const char *why = NULL;

    return !line->condition || (ap_expr_exec(r, line->condition, &why) > 0 && !why);
}

abb_unauthenticated_t abb_config_unauthenticated(request_rec *r)
{
    const directory_config_t *conf =
        ap_get_module_config(r->per_dir_config, &auth_bitbucket_module);
    const apr_array_header_t *lines = conf->unauthenticated;

    for (int i = 0; lines && i < lines->nelts; ++i) {
        const unauthenticated_line_t *line = &APR_ARRAY_IDX(lines, i, unauthenticated_line_t);

        if (holds(r, line)) {
            return line->action;
        }
    }
    return ABB_UNAUTHENTICATED_AUTO;
}

abb_cache_settings_t abb_config_cache(server_rec *main_server)
{
    return abb_config_of(main_server)->cache;
}

static const char *size_text(apr_size_t size, apr_pool_t *p)
{
    static const char units[] = {'K', 'M', 'G'};
    apr_size_t number = size;
    int unit = -1;

    while (unit < 2 && number % 1024 == 0) {
        number /= 1024;
        ++unit;
    }
    return unit < 0 ? apr_psprintf(p, "%" APR_SIZE_T_FMT, number)
                    : apr_psprintf(p, "%" APR_SIZE_T_FMT "%c", number, units[unit]);
}

const char *abb_config_cache_text(const abb_cache_settings_t *cache, apr_pool_t *p)
{
    return apr_pstrcat(p, "shm", cache->file ? ":" : "", cache->file ? cache->file : "", "(",
                       size_text(cache->size, p), ")", NULL);
}

/* ---- faults -------------------------------------------------------------- */

const char *abb_config_server_name(const server_rec *s)
{
    return s->server_hostname ? s->server_hostname : "(no ServerName)";
}

int abb_config_bad_setting(const server_rec *s, const char *directive, const char *sentence)
{
    ap_log_error(APLOG_MARK, APLOG_EMERG | APLOG_STARTUP, 0, NULL, ABB_LOGNO(0003) "%s: %s: %s",
                 abb_config_server_name(s), directive, sentence);
    return HTTP_INTERNAL_SERVER_ERROR;
}
