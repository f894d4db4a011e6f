/* status (floor 8): how the module does, for the administrator. See abb_status.h. */
#include "abb_status.h"

#include <apr_optional_hooks.h>
#include <apr_strings.h>
#include <http_config.h>
#include <http_main.h>
#include <http_protocol.h>
#include <mod_status.h>
#include <string.h>

#include "abb_request.h"
#include "status_internal.h"

#define HANDLER "bitbucket-status"

/* A form that can be asked for in the query. */
typedef struct {
    const char *query;
    const char *type;
    const char *(*make)(const abb_status_t *status, apr_pool_t *p);
} form_t;

static const form_t forms[] = {
    {"", "text/html; charset=utf-8", abb_status_page},
    {"auto", "text/plain; charset=utf-8", abb_status_lines},
    {"json", "application/json", abb_status_json},
    {"prometheus", "text/plain; version=0.0.4; charset=utf-8", abb_status_prometheus},
};

/* With a "=" behind it, too: so Prometheus writes a parameter without a value. */
static int is_query(const char *query, const char *name)
{
    apr_size_t length = strlen(name);

    return strncmp(query, name, length) == 0 &&
           (query[length] == '\0' || (length > 0 && strcmp(query + length, "=") == 0));
}

static const form_t *find_form(const char *query)
{
    for (apr_size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); ++i) {
        if (is_query(query ? query : "", forms[i].query)) {
            return &forms[i];
        }
    }
    return NULL;
}

static int explain(request_rec *r, int status, const char *heading, const char *text)
{
    abb_page_t page;

    memset(&page, 0, sizeof(page));
    page.heading = heading;
    page.text = text;
    return abb_request_send_page(r, status, &page);
}

int abb_status_handle(request_rec *r)
{
    const form_t *form;
    const abb_status_t *status;

    if (!r->handler || strcmp(r->handler, HANDLER) != 0) {
        return DECLINED;
    }
    if (r->method_number != M_GET) {
        return abb_request_only_get(r, NULL);
    }
    if (!(form = find_form(r->args))) {
        return explain(r, HTTP_BAD_REQUEST, "There is no such form of this page",
                       "The query is nothing, auto, json or prometheus.");
    }
    if (!(status = abb_status_gather(ap_server_conf, r->pool))) {
        return explain(r, HTTP_NOT_FOUND, "There is nothing to tell",
                       "No virtual host of this server signs visitors in with Bitbucket.");
    }
    return abb_request_send_body(r, form->type, abb_status_policy(r->pool),
                                 form->make(status, r->pool));
}

/* ---- mod_status ---------------------------------------------------------- */

static void put_rows(request_rec *r, const abb_status_t *status)
{
    ap_rputs("<hr />\n<h2>Sign-in with Bitbucket</h2>\n<dl>\n", r);
    for (int i = 0; i < status->figures->nelts; ++i) {
        const abb_status_figure_t *figure = &APR_ARRAY_IDX(status->figures, i, abb_status_figure_t);

        /* Reasons that never occurred would fill the page. */
        if (!figure->label || figure->value) {
            ap_rprintf(r, "<dt>%s%s%s: %" APR_INT64_T_FMT "</dt>\n", figure->help,
                       figure->label ? ", " : "", figure->label ? figure->label_value : "",
                       figure->value);
        }
    }
    ap_rputs("</dl>\n", r);
}

static int put_section(request_rec *r, int flags)
{
    const abb_status_t *status = abb_status_gather(ap_server_conf, r->pool);

    if (status && flags & AP_STATUS_SHORT) {
        ap_rputs(abb_status_lines(status, r->pool), r);
    }
    else if (status) {
        put_rows(r, status);
    }
    return OK;
}

void abb_status_register(apr_pool_t *p)
{
    APR_OPTIONAL_HOOK(ap, status_hook, put_section, NULL, NULL, APR_HOOK_MIDDLE);
}
