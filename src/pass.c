/* pass (floor 6): what the application behind a request is given. See abb_pass.h. */
#include "abb_pass.h"

void abb_pass_variables(const abb_visit_t *visit, request_rec *r)
{
    if (!(abb_config_place(r).pass & ABB_PASS_VARIABLES)) {
        return;
    }
    abb_identity_set_variables(r->subprocess_env, &visit->session->record, r->pool);
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

/* Headers are of the place: what another one passed is taken out. */
static void pass_headers(const abb_visit_t *identified, request_rec *r)
{
    abb_visit_t *visit = abb_visit_find(r);
    int is_wanted = identified && (abb_config_place(r).pass & ABB_PASS_HEADERS);
    apr_table_t *headers;

    if (!is_wanted && !(visit && visit->has_headers)) {
        return;
    }
    headers = abb_identity_scrub(&visit->site->identity, r->headers_in, r->pool);
    r->headers_in = headers == r->headers_in ? apr_table_copy(r->pool, headers) : headers;
    if (is_wanted) {
        abb_identity_add_headers(r->headers_in, &visit->site->identity, &visit->session->record,
                                 visit->stale, r->pool);
        visit->has_headers = 1;
    }
}

void abb_pass_complete(request_rec *r)
{
    const abb_visit_t *identified = abb_visit_find_identified(r);

    restore_variables(identified, r);
    pass_headers(identified, r);
}
