/* authn (floor 6): the decision about a request to a protected place. */
#include "abb_authn.h"

#include <apr_strings.h>
#include <http_core.h>
#include <http_log.h>
#include <http_protocol.h>
#include <http_request.h>
#include <util_filter.h>

#include "abb_authz.h"
#include "abb_log.h"
#include "abb_visit.h"

APLOG_USE_MODULE(auth_bitbucket);

#define AUTH_TYPE "Bitbucket"

/* ---- answers ------------------------------------------------------------- */

static int is_ours(request_rec *r)
{
    const char *type = ap_auth_type(r);

    return type && (strcmp(type, AUTH_TYPE) == 0 || ap_cstr_casecmp(type, AUTH_TYPE) == 0);
}

static int refuse(abb_visit_t *visit, request_rec *r, const abb_error_t *err)
{
    abb_refusal_offers_t offers =
        abb_visit_offers(visit, r, abb_request_return_path(r, visit->site->origin));

    return abb_refusal_send(r, err, &offers);
}

/* Nobody is signed in: pages are sent to Bitbucket, everything else gets 401 and no ticket. */
static int ask_to_sign_in(abb_visit_t *visit, request_rec *r)
{
    abb_request_kind_t kind = abb_request_kind(r);
    const char *return_path = abb_request_return_path(r, visit->site->origin);
    abb_refusal_offers_t offers;

    if (kind == ABB_REQUEST_NAVIGATION && !r->main) {
        return abb_visit_begin_login(visit, r, return_path, 1);
    }
    offers = abb_visit_offers(visit, r, kind == ABB_REQUEST_FRAME ? return_path : NULL);
    return abb_refusal_send_unauthenticated(r, kind, &offers);
}

/* ---- who is it? ---------------------------------------------------------- */

static int not_configured(request_rec *r)
{
    abb_refusal_offers_t offers = {NULL, NULL, ap_auth_name(r)};
    abb_error_t err;

    abb_error_clear(&err);
    abb_error_set(&err, ABB_ECLIENT,
                  "AuthType Bitbucket is used, but virtual host %s has no client id: write "
                  "AuthBitbucketClientID and AuthBitbucketClientSecret there",
                  r->server->server_hostname ? r->server->server_hostname : "?");
    return abb_refusal_send(r, &err, &offers);
}

static int missing_attribute(abb_visit_t *visit, request_rec *r, const char *attribute)
{
    abb_error_t err;

    abb_error_clear(&err);
    abb_error_set(&err, ABB_EACCOUNT,
                  "account %s has no %s%s, which AuthBitbucketRemoteUser asks for",
                  visit->session->record.account.uuid, attribute,
                  strcmp(attribute, "email") == 0 ? " that is confirmed" : "");
    return refuse(visit, r, &err);
}

static int admit(abb_visit_t *visit, request_rec *r)
{
    const abb_record_t *record = &visit->session->record;
    abb_place_t place = abb_config_place(r);
    const char *user = abb_request_attribute(&record->account, place.remote_user);

    if (!user) {
        return missing_attribute(visit, r, place.remote_user);
    }
    r->user = (char *)user;
    r->ap_auth_type = (char *)AUTH_TYPE;
    abb_request_set_variables(r, record);
    return OK;
}

int abb_authn_check(request_rec *r)
{
    abb_visit_t *visit;
    abb_error_t err;
    apr_status_t status;

    if (!is_ours(r)) {
        return DECLINED;
    }
    if (!(visit = abb_visit_of(r))) {
        return not_configured(r);
    }
    abb_error_clear(&err);
    status = abb_visit_find_session(visit, &err);
    if (status == APR_SUCCESS) {
        return admit(visit, r);
    }
    return status == APR_NOTFOUND ? ask_to_sign_in(visit, r) : refuse(visit, r, &err);
}

/* ---- what do the rules say? ---------------------------------------------- */

static int conclude(abb_visit_t *visit, request_rec *r, int status)
{
    if (visit->trouble.status == APR_NOTFOUND) {
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, ABB_LOGNO(0105) "session ended; account=%s: %s",
                      visit->session->record.account.uuid, visit->trouble.text);
        visit->session = NULL;
        r->user = NULL;
        return ask_to_sign_in(visit, r);
    }
    if (visit->trouble.status != APR_SUCCESS) {
        return refuse(visit, r, &visit->trouble);
    }
    /* 403 with AuthzSendForbiddenOnFailure, else 401. */
    if (status == HTTP_UNAUTHORIZED || status == HTTP_FORBIDDEN) {
        abb_refusal_offers_t offers =
            abb_visit_offers(visit, r, abb_request_return_path(r, visit->site->origin));

        return abb_refusal_send_forbidden(r, &visit->session->record.account, visit->refused_by,
                                          &offers);
    }
    return status;
}

int abb_authn_check_access(request_rec *r)
{
    abb_visit_t *visit = abb_visit_find(r);
    int status;

    if (!visit || !visit->session || visit->is_deciding || !is_ours(r)) {
        return DECLINED;
    }
    visit->is_deciding = 1;
    abb_error_clear(&visit->trouble);
    visit->refused_by = NULL;
    status = ap_run_auth_checker(r);
    visit->is_deciding = 0;
    return conclude(visit, r, status);
}

/* ---- Require bitbucket-workspace ----------------------------------------- */

static const char *parse_workspaces(cmd_parms *cmd, const char *line, const void **parsed)
{
    const abb_authz_workspaces_t *workspaces;
    const char *fault = abb_authz_parse_workspaces(line, &workspaces, cmd->pool);

    if (fault) {
        return apr_pstrcat(cmd->pool, "Require bitbucket-workspace: ", fault, NULL);
    }
    *parsed = workspaces;
    /* A line in .htaccess belongs to one request; what it names is asked on first need. */
    if (!ap_check_cmd_context(cmd, NOT_IN_HTACCESS)) {
        for (int i = 0; i < workspaces->count; ++i) {
            abb_config_add_workspace(cmd->server, workspaces->rules[i].asked);
        }
    }
    return NULL;
}

/* Before anybody is known: note what this place will ask about. */
static authz_status ask_for_user(request_rec *r, const abb_authz_workspaces_t *workspaces)
{
    /* Also where the AuthType is another's: nobody is sent to sign in from there. */
    abb_visit_t *visit = abb_visit_of(r);

    for (int i = 0; visit && i < workspaces->count; ++i) {
        abb_visit_want_workspace(visit, workspaces->rules[i].asked);
    }
    return AUTHZ_DENIED_NO_USER;
}

/* Ask Bitbucket about one workspace; the answer is in the session's record then. */
static apr_status_t ask_bitbucket(abb_visit_t *visit, request_rec *r, const char *workspace,
                                  apr_time_t older_than)
{
    abb_recheck_t recheck = abb_visit_recheck(visit);
    const char *doubt;
    apr_status_t status;

    abb_error_clear(&visit->trouble);
    status = abb_recheck_workspace(&recheck, visit->session, workspace, older_than, &doubt,
                                   visit->pool, &visit->trouble);
    ap_log_rerror(APLOG_MARK, APLOG_DEBUG, 0, r,
                  ABB_LOGNO(0106) "asked Bitbucket; session=%s workspace=%s outcome=%s",
                  visit->session->tag, workspace,
                  status == APR_SUCCESS ? "answered" : visit->trouble.text);
    if (doubt) {
        ap_log_rerror(APLOG_MARK, APLOG_WARNING, 0, r,
                      ABB_LOGNO(0107) "Bitbucket's answer about workspace %s is odd: %s", workspace,
                      doubt);
    }
    return status;
}

static authz_status check_workspaces(request_rec *r, const char *line, const void *parsed)
{
    const abb_authz_workspaces_t *workspaces = parsed;
    abb_visit_t *visit;
    const char *workspace;
    apr_time_t older_than;

    if (!r->user) {
        return ask_for_user(r, workspaces);
    }
    visit = abb_visit_find(r);
    if (!visit || !visit->session) {
        return AUTHZ_DENIED;
    }
    /* Each round settles one workspace, so it ends; one more to read the last answer. */
    for (int i = 0; i <= workspaces->count; ++i) {
        switch (abb_authz_check_workspaces(workspaces, &visit->session->record, apr_time_now(),
                                           &workspace, &older_than)) {
        case ABB_AUTHZ_GRANTED:
            return AUTHZ_GRANTED;
        case ABB_AUTHZ_DENIED:
            visit->refused_by = abb_authz_describe_workspaces(workspaces, visit->pool);
            return AUTHZ_DENIED;
        case ABB_AUTHZ_ASK:
            if (ask_bitbucket(visit, r, workspace, older_than) != APR_SUCCESS) {
                return AUTHZ_GENERAL_ERROR;
            }
        }
    }
    abb_error_set(&visit->trouble, ABB_EUPSTREAM, "Bitbucket's answers grow old while being read");
    return AUTHZ_GENERAL_ERROR;
}

const authz_provider abb_authn_workspace_provider = {check_workspaces, parse_workspaces};

/* ---- Require bitbucket-user ---------------------------------------------- */

static const char *parse_users(cmd_parms *cmd, const char *line, const void **parsed)
{
    const abb_authz_users_t *users;
    const char *fault = abb_authz_parse_users(line, &users, cmd->pool);

    *parsed = users;
    return fault ? apr_pstrcat(cmd->pool, "Require bitbucket-user: ", fault, NULL) : NULL;
}

static authz_status check_users(request_rec *r, const char *line, const void *parsed)
{
    abb_visit_t *visit;

    if (!r->user) {
        return AUTHZ_DENIED_NO_USER;
    }
    visit = abb_visit_find(r);
    if (!visit || !visit->session) {
        return AUTHZ_DENIED;
    }
    if (abb_authz_check_users(parsed, &visit->session->record) == ABB_AUTHZ_GRANTED) {
        return AUTHZ_GRANTED;
    }
    visit->refused_by = "one of the accounts named for this page";
    return AUTHZ_DENIED;
}

const authz_provider abb_authn_user_provider = {check_users, parse_users};

/* ---- shared caches ------------------------------------------------------- */

static ap_filter_rec_t *private_filter;

static apr_status_t make_private(ap_filter_t *filter, apr_bucket_brigade *brigade)
{
    abb_request_make_private(filter->r);
    ap_remove_output_filter(filter);
    return ap_pass_brigade(filter->next, brigade);
}

void abb_authn_register_filter(void)
{
    private_filter = ap_register_output_filter("AUTH_BITBUCKET_PRIVATE", make_private, NULL,
                                               AP_FTYPE_CONTENT_SET);
}

void abb_authn_insert_filter(request_rec *r)
{
    const abb_visit_t *visit = r->main ? NULL : abb_visit_find(r);

    if (visit && visit->session && abb_config_place(r).is_private) {
        ap_add_output_filter_handle(private_filter, NULL, r, r->connection);
    }
}

int abb_authn_begin(request_rec *r)
{
    abb_visit_begin(r);
    return DECLINED;
}

/*
 * Where httpd redirects internally within one place, it copies the user and does
 * not ask who it is again; the application behind needs the variables all the same.
 */
static void restore_identity(request_rec *r)
{
    const abb_visit_t *visit;

    if ((!r->prev && !r->main) || !r->user || !r->ap_auth_type ||
        strcmp(r->ap_auth_type, AUTH_TYPE) != 0 ||
        apr_table_get(r->subprocess_env, "BITBUCKET_UUID")) {
        return;
    }
    visit = abb_visit_find(r);
    if (visit && visit->session) {
        abb_request_set_variables(r, &visit->session->record);
    }
}

int abb_authn_fixups(request_rec *r)
{
    restore_identity(r);
    abb_refusal_restore_variables(r);
    return DECLINED;
}
