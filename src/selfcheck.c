/* selfcheck (floor 6): what is looked at, and what for. See abb_selfcheck.h. */
#include <httpd.h>

#include <http_config.h>
#include <http_core.h>

#include "selfcheck_internal.h"

#define DUMP "DUMP_BITBUCKET"
#define CHECK "CHECK_BITBUCKET"
#define VERIFY "VERIFY_BITBUCKET"

/* ---- who is looked at ---------------------------------------------------- */

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
