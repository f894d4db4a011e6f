/* selfcheck (floor 6): what the configuration says of a site. See selfcheck_internal.h. */
#include <httpd.h>

#include <apr_strings.h>
#include <http_config.h>
#include <http_core.h>

#include "selfcheck_internal.h"

/* ---- which site ---------------------------------------------------------- */

static const char *name_of(const server_rec *s, apr_pool_t *p)
{
    const char *name = abb_config_server_name(s);

    return s->is_virtual ? apr_psprintf(p, "%s (%s:%u)", name, s->defn_name, s->defn_line_number)
                         : apr_pstrcat(p, name, " (outside of all virtual hosts)", NULL);
}

void abb_selfcheck_choose(abb_selfcheck_t *look, server_rec *s)
{
    look->server = s;
    look->site = abb_config_site(s);
    look->name = name_of(s, look->pool);
}

/* ---- its directives ------------------------------------------------------ */

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
