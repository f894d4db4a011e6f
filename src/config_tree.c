/* config (floor 4): the configuration as httpd read it, a tree of directives. See abb_config.h. */
#include <httpd.h>

#include <apr_strings.h>
#include <http_config.h>
#include <http_core.h>

#include "abb_secret.h"
#include "config_internal.h"

/* ---- finding ------------------------------------------------------------- */

/* Whether a node is the <VirtualHost> that made a server. */
static int is_section_of(const ap_directive_t *node, const server_rec *s)
{
    return s->defn_name && strcasecmp(node->directive, "<VirtualHost") == 0 &&
           node->line_num == (int)s->defn_line_number && strcmp(node->filename, s->defn_name) == 0;
}

static int has_first_word(const ap_directive_t *node, const char *directive, const char *word,
                          apr_pool_t *p)
{
    const char *arguments = node->args;

    return strcasecmp(node->directive, directive) == 0 &&
           strcasecmp(ap_getword_conf(p, &arguments), word) == 0;
}

/*
 * The first directive with this first word in the configuration of one virtual
 * host, or for s NULL outside all virtual hosts. NULL when there is none.
 */
static const ap_directive_t *find_directive(const ap_directive_t *node, const server_rec *s,
                                            const char *directive, const char *word, apr_pool_t *p)
{
    for (; node; node = node->next) {
        const ap_directive_t *found = NULL;

        if (strcasecmp(node->directive, "<VirtualHost") == 0) {
            if (s && is_section_of(node, s)) {
                return find_directive(node->first_child, NULL, directive, word, p);
            }
            continue;
        }
        if (!s && has_first_word(node, directive, word, p)) {
            return node;
        }
        if (!s && node->first_child) {
            found = find_directive(node->first_child, s, directive, word, p);
        }
        if (found) {
            return found;
        }
    }
    return NULL;
}

const ap_directive_t *abb_config_find_directive(const server_rec *s, const char *directive,
                                                const char *word, apr_pool_t *p)
{
    return find_directive(ap_conftree, s, directive, word, p);
}

int abb_config_is_used_in(const server_rec *main_server, const server_rec *s, apr_pool_t *p)
{
    return abb_config_find_directive(s == main_server ? NULL : s, "AuthType", "Bitbucket", p) !=
           NULL;
}

/* ---- visiting ------------------------------------------------------------ */

/* Of s the own section, or for s NULL all that stands outside virtual hosts. */
static void visit_nodes(const ap_directive_t *node, const server_rec *s, abb_config_visitor_t visit,
                        void *data)
{
    for (; node; node = node->next) {
        if (strcasecmp(node->directive, "<VirtualHost") == 0) {
            if (s && is_section_of(node, s)) {
                visit_nodes(node->first_child, NULL, visit, data);
            }
            continue;
        }
        if (!s) {
            visit(data, node);
        }
        visit_nodes(node->first_child, s, visit, data);
    }
}

void abb_config_visit(const server_rec *s, abb_config_visitor_t visit, void *data)
{
    visit_nodes(ap_conftree, NULL, visit, data);
    if (s->is_virtual) {
        visit_nodes(ap_conftree, s, visit, data);
    }
}

typedef struct {
    const char *directive;
    const ap_directive_t *last;
} wanted_t;

static void note_last(void *data, const ap_directive_t *directive)
{
    wanted_t *wanted = data;

    if (strcasecmp(directive->directive, wanted->directive) == 0) {
        wanted->last = directive;
    }
}

const char *abb_config_whence(const server_rec *s, const char *directive, apr_pool_t *p)
{
    wanted_t wanted = {directive, NULL};

    abb_config_visit(s, note_last, &wanted);
    return wanted.last ? apr_psprintf(p, "%s:%d", wanted.last->filename, wanted.last->line_num)
                       : "default";
}

/* ---- where secrets come from --------------------------------------------- */

static void add_source(apr_array_header_t *sources, const char *directive,
                       const char *specification, apr_pool_t *p)
{
    abb_config_source_t *source = apr_array_push(sources);

    source->directive = directive;
    source->text = abb_secret_source(specification, p);
    source->file = NULL;
    if (strncmp(specification, "file:", 5) == 0) {
        source->file = ap_server_root_relative(p, specification + 5);
        source->text = apr_pstrcat(p, "file ", source->file, NULL);
    }
    /* A program's arguments may be secret, too. */
    if (strncmp(specification, "exec:", 5) == 0) {
        source->text = apr_pstrmemdup(p, source->text, 8 + strcspn(source->text + 8, " \t"));
    }
}

apr_array_header_t *abb_config_sources(server_rec *s, apr_pool_t *p)
{
    const server_config_t *conf = abb_config_of(s);
    apr_array_header_t *sources = apr_array_make(p, 4, sizeof(abb_config_source_t));

    add_source(sources, "AuthBitbucketClientSecret",
               conf->client_secret ? conf->client_secret : "env:" ABB_CONFIG_SECRET_VARIABLE, p);
    for (int i = 0; conf->session_keys && i < conf->session_keys->nelts; ++i) {
        add_source(sources, "AuthBitbucketSessionKey",
                   APR_ARRAY_IDX(conf->session_keys, i, const char *), p);
    }
    return sources;
}
