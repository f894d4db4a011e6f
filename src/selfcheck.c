/* selfcheck (floor 6): what is looked at, and what for. See abb_selfcheck.h. */
#include <httpd.h>

#include <apr_strings.h>
#include <http_config.h>
#include <http_core.h>

#include "selfcheck_internal.h"

#define DUMP "DUMP_BITBUCKET"
#define CHECK "CHECK_BITBUCKET"
#define VERIFY "VERIFY_BITBUCKET"

/* ---- the tree of directives ---------------------------------------------- */

typedef struct {
    apr_pool_t *pool;
    abb_selfcheck_rules_t rules;
} counting_t;

static void count_rule(void *data, const ap_directive_t *directive)
{
    counting_t *counting = data;
    const char *arguments = directive->args;
    const char *word;

    if (strcasecmp(directive->directive, "AuthType") == 0) {
        word = ap_getword_conf(counting->pool, &arguments);
        counting->rules.is_used |= strcasecmp(word, "Bitbucket") == 0;
    }
    if (strcasecmp(directive->directive, "Require") == 0) {
        word = ap_getword_conf(counting->pool, &arguments);
        if (strcasecmp(word, "not") == 0) {
            word = ap_getword_conf(counting->pool, &arguments);
        }
        counting->rules.count += strncasecmp(word, "bitbucket-", 10) == 0;
    }
}

abb_selfcheck_rules_t abb_selfcheck_rules(const abb_selfcheck_t *look)
{
    counting_t counting = {look->pool, {0, 0}};

    abb_config_visit(look->server, count_rule, &counting);
    return counting.rules;
}

const char *abb_selfcheck_claimed_path(const ap_directive_t *directive, apr_pool_t *p)
{
    static const char *const claims[] = {"<Location", "Alias", "ScriptAlias", "ProxyPass",
                                         "Redirect"};
    const char *arguments = directive->args;
    char *path = ap_getword_conf(p, &arguments);
    apr_size_t length = strlen(path);

    /* "ProxyPass /path !" leaves it to others. */
    if (*path != '/' || strcmp(ap_getword_conf(p, &arguments), "!") == 0) {
        return NULL;
    }
    if (path[length - 1] == '>') {
        path[length - 1] = '\0';
    }
    for (apr_size_t i = 0; i < sizeof(claims) / sizeof(claims[0]); ++i) {
        if (strcasecmp(directive->directive, claims[i]) == 0) {
            return path;
        }
    }
    return NULL;
}

int abb_selfcheck_is_below(const char *path, const char *claimed)
{
    apr_size_t length = strlen(claimed);

    if (length && claimed[length - 1] == '/') {
        --length;
    }
    return strncmp(path, claimed, length) == 0 && (path[length] == '\0' || path[length] == '/');
}

/* ---- who is looked at ---------------------------------------------------- */

static const char *name_of(const server_rec *s, apr_pool_t *p)
{
    const char *name = s->server_hostname ? s->server_hostname : "(no ServerName)";

    return s->is_virtual ? apr_psprintf(p, "%s (%s:%u)", name, s->defn_name, s->defn_line_number)
                         : apr_pstrcat(p, name, " (outside of all virtual hosts)", NULL);
}

/* The servers with a site, in the order of the configuration: httpd has the last one first. */
static const apr_array_header_t *list_servers(const abb_selfcheck_t *look)
{
    apr_array_header_t *all = apr_array_make(look->pool, 8, sizeof(server_rec *));
    apr_array_header_t *list = apr_array_make(look->pool, 8, sizeof(server_rec *));

    for (server_rec *s = look->main_server->next; s; s = s->next) {
        APR_ARRAY_PUSH(all, server_rec *) = s;
    }
    APR_ARRAY_PUSH(all, server_rec *) = look->main_server;
    while (all->nelts) {
        server_rec *s = *(server_rec **)apr_array_pop(all);

        if (abb_config_site(s)) {
            APR_ARRAY_PUSH(list, server_rec *) = s;
        }
    }
    return list;
}

void abb_selfcheck_choose(abb_selfcheck_t *look, server_rec *s)
{
    look->server = s;
    look->site = abb_config_site(s);
    look->name = name_of(s, look->pool);
}

static void print_head(const abb_selfcheck_t *look, int count)
{
    apr_file_printf(look->out, "mod_auth_bitbucket %s: %d site%s\n", ABB_VERSION, count,
                    count == 1 ? "" : "s");
    if (!count) {
        apr_file_printf(look->out, "warning: no virtual host has AuthBitbucketClientID\n");
    }
}

static void dump(abb_selfcheck_t *look, const apr_array_header_t *servers)
{
    abb_selfcheck_dump_server(look);
    abb_selfcheck_warn_of_server(look);
    for (int i = 0; i < servers->nelts; ++i) {
        abb_selfcheck_choose(look, APR_ARRAY_IDX(servers, i, server_rec *));
        abb_selfcheck_dump_site(look);
        abb_selfcheck_warn_of_site(look);
    }
}

static void check(abb_selfcheck_t *look, const apr_array_header_t *servers)
{
    abb_selfcheck_ask_for_server(look);
    abb_selfcheck_ask_for_sites(look, servers);
}

static void run(abb_selfcheck_t *look)
{
    const apr_array_header_t *servers = list_servers(look);

    print_head(look, servers->nelts);
    if (servers->nelts && ap_exists_config_define(DUMP)) {
        dump(look, servers);
    }
    if (servers->nelts && ap_exists_config_define(VERIFY)) {
        abb_selfcheck_verify(look);
    }
    if (servers->nelts && ap_exists_config_define(CHECK)) {
        check(look, servers);
    }
    /* httpd ends with 0 whatever a test of ours finds, and hears of nothing else. */
    if (look->failures) {
        exit(1);
    }
}

void abb_selfcheck_run(apr_pool_t *p, server_rec *servers)
{
    abb_selfcheck_t look = {.main_server = servers, .pool = p};

    if ((ap_exists_config_define(DUMP) || ap_exists_config_define(CHECK) ||
         ap_exists_config_define(VERIFY)) &&
        apr_file_open_stdout(&look.out, p) == APR_SUCCESS) {
        run(&look);
    }
}
