/* pass (floor 6): what the application behind a request is given. See abb_pass.h. */
#include "abb_pass.h"

#include <apr_strings.h>
#include <string.h>

#include "abb_credential.h"

/* What is told of workspaces is never older than what a rule may rest on. */
static const abb_record_t *record_to_tell(const abb_visit_t *visit, request_rec *r)
{
    return abb_record_without_old(&visit->session->record, &visit->site->ages, visit->now, r->pool);
}

void abb_pass_variables(const abb_visit_t *visit, request_rec *r)
{
    if (!(abb_config_place(r).pass & ABB_PASS_VARIABLES)) {
        return;
    }
    abb_identity_set_variables(r->subprocess_env, record_to_tell(visit, r), r->pool);
    if (visit->stale) {
        abb_identity_set_stale(r->subprocess_env, visit->stale, r->pool);
    }
}

/*
 * Where httpd redirects internally within one place, it copies the user and does
 * not ask who it is again; the application behind needs the variables all the same.
 */
static void restore_variables(const abb_visit_t *identified, request_rec *r)
{
    if (identified && (r->prev || r->main) && !apr_table_get(r->subprocess_env, "BITBUCKET_UUID")) {
        abb_pass_variables(identified, r);
    }
}

/* Names of httpd's copies of variables after an internal redirect begin so, once for each. */
#define COPY_PREFIX "REDIRECT_"

/* The token, or its header as programs see it, under whatever name httpd keeps it. */
static int is_token_variable(const char *name, const abb_identity_settings_t *settings)
{
    while (strncmp(name, COPY_PREFIX, sizeof(COPY_PREFIX) - 1) == 0) {
        name += sizeof(COPY_PREFIX) - 1;
    }
    return strcmp(name, ABB_IDENTITY_TOKEN_VARIABLE) == 0 ||
           strcmp(name, settings->token_header_variable) == 0;
}

/* Unset what another place had been given. */
static void drop_token(request_rec *r, const abb_identity_settings_t *settings)
{
    const apr_array_header_t *variables = apr_table_elts(r->subprocess_env);

    for (int i = variables->nelts - 1; i >= 0; --i) {
        const char *name = APR_ARRAY_IDX(variables, i, apr_table_entry_t).key;

        if (is_token_variable(name, settings)) {
            apr_table_unset(r->subprocess_env, name);
            i = variables->nelts;
        }
    }
}

/* httpd echoes a TRACE with its headers to whoever sent it. */
static const char *token_for(const abb_visit_t *identified, request_rec *r)
{
    return identified && r->method_number != M_TRACE && abb_config_place(r).passes_access_token
               ? identified->access_token
               : NULL;
}

static void pass_token_variable(const abb_visit_t *identified, request_rec *r)
{
    const abb_visit_t *visit = abb_visit_find(r);
    const char *token = token_for(identified, r);

    if (visit && (r->main || r->prev || visit->passed_at)) {
        drop_token(r, &visit->site->identity);
    }
    if (token && (abb_config_place(r).pass & ABB_PASS_VARIABLES)) {
        apr_table_setn(r->subprocess_env, ABB_IDENTITY_TOKEN_VARIABLE, token);
    }
}

/* Headers are of the place: what another one passed is taken out. */
static void pass_headers(const abb_visit_t *identified, request_rec *r)
{
    abb_visit_t *visit = abb_visit_find(r);
    int is_wanted = identified && (abb_config_place(r).pass & ABB_PASS_HEADERS);
    const char *token = is_wanted ? token_for(identified, r) : NULL;
    apr_table_t *headers;

    if (!is_wanted && !(visit && visit->has_headers)) {
        return;
    }
    headers = abb_identity_scrub(&visit->site->identity, r->headers_in, r->pool);
    r->headers_in = headers == r->headers_in ? apr_table_copy(r->pool, headers) : headers;
    if (is_wanted) {
        abb_identity_add_headers(r->headers_in, &visit->site->identity, record_to_tell(visit, r),
                                 visit->stale, r->pool);
        if (token) {
            apr_table_setn(r->headers_in, visit->site->identity.token_header, token);
        }
        visit->has_headers = 1;
    }
}

/* Whether the place takes such credentials, though its rules may have let this one in without. */
static int is_taken_here(request_rec *r)
{
    return abb_config_place(r).api_token != ABB_API_TOKEN_OFF && abb_config_is_used(r) &&
           abb_credential_is_ours(apr_table_get(r->headers_in, "Authorization"));
}

/* What signs in here is not sent on; it would open everything that it opens. */
static void drop_credential(request_rec *r)
{
    abb_visit_t *visit = abb_visit_find(r);
    const char *value = visit ? apr_table_get(r->headers_in, "Authorization") : NULL;

    if (value && (visit->is_named || is_taken_here(r)) &&
        !(abb_config_place(r).api_token & ABB_API_TOKEN_KEEP)) {
        /* Where httpd goes on to another place it may count. */
        visit->authorization = apr_pstrdup(visit->pool, value);
        r->headers_in = apr_table_copy(r->pool, r->headers_in);
        apr_table_unset(r->headers_in, "Authorization");
    }
}

void abb_pass_complete(request_rec *r)
{
    const abb_visit_t *identified = abb_visit_find_identified(r);
    abb_visit_t *visit;

    drop_credential(r);
    restore_variables(identified, r);
    pass_token_variable(identified, r);
    pass_headers(identified, r);
    if (!r->main && (visit = abb_visit_find(r))) {
        visit->passed_at = r->per_dir_config;
    }
}

void abb_pass_renew(request_rec *r)
{
    const abb_visit_t *visit = abb_visit_find(r);

    if (visit && (r->main || visit->passed_at != r->per_dir_config)) {
        abb_pass_complete(r);
    }
}
