/* login (floor 4): begin and finish a sign-in. See abb_login.h. */
#include "abb_login.h"

#include <apr_strings.h>
#include <string.h>

#include "abb_text.h"

/* Names of the requested place that a ticket carries; the rest is asked on first need. */
#define TICKET_WORKSPACES_MAX 512

/* ---- begin --------------------------------------------------------------- */

apr_status_t abb_login_begin(const abb_login_t *login, const char *return_path,
                             const char *workspaces, int attempt, apr_time_t now,
                             abb_login_start_t *start, apr_pool_t *p, abb_error_t *err)
{
    abb_ticket_t ticket;
    apr_status_t status = abb_ticket_init(&ticket, attempt, now, err);

    if (status != APR_SUCCESS) {
        return status;
    }
    ticket.return_path = return_path;
    ticket.workspaces = strlen(workspaces) <= TICKET_WORKSPACES_MAX ? workspaces : "";
    start->cookie_name = abb_ticket_name(&ticket, p);
    start->location = abb_bitbucket_authorize_url(
        login->bitbucket, apr_pstrcat(p, abb_ticket_state(&ticket, p), login->mark, NULL), p);
    return abb_ticket_encode(&ticket, login->tickets, &start->cookie_value, p, err);
}

/* ---- the callback's query ------------------------------------------------ */

apr_status_t abb_login_read_callback(const char *query, abb_login_callback_t *callback,
                                     apr_pool_t *p, abb_error_t *err)
{
    apr_table_t *values;
    apr_status_t status = abb_text_query_parse(query, &values, p, err);

    if (status != APR_SUCCESS) {
        return status;
    }
    callback->state = apr_table_get(values, "state");
    callback->code = apr_table_get(values, "code");
    callback->error = apr_table_get(values, "error");
    callback->error_description = apr_table_get(values, "error_description");
    if (!callback->state || (callback->code != NULL) == (callback->error != NULL)) {
        return abb_error_set(err, ABB_EINPUT,
                             "the callback needs state and either code or error in its query");
    }
    if (callback->code && !*callback->code) {
        return abb_error_set(err, ABB_EINPUT, "the callback's code is empty");
    }
    return APR_SUCCESS;
}

apr_status_t abb_login_explain_refusal(const abb_login_callback_t *callback, abb_error_t *err)
{
    static const struct {
        const char *error;
        apr_status_t meaning;
    } refusals[] = {
        {"access_denied", ABB_ECANCELLED},
        {"server_error", ABB_EUPSTREAM},
        {"temporarily_unavailable", ABB_EUPSTREAM},
        {"invalid_scope", ABB_ESCOPE},
    };
    const char *description = callback->error_description ? callback->error_description : "";
    apr_status_t meaning = ABB_ECLIENT;

    for (apr_size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); ++i) {
        if (strcmp(callback->error, refusals[i].error) == 0) {
            meaning = refusals[i].meaning;
        }
    }
    abb_error_set(err, meaning, "Bitbucket sent the visitor back with error '%.60s' %.160s",
                  callback->error, description);
    if (err) {
        err->quotes_request = 1;
    }
    return meaning;
}

apr_status_t abb_login_open_attempt(const abb_login_t *login, const abb_login_callback_t *callback,
                                    const char *cookie, apr_time_t now, abb_ticket_t *ticket,
                                    apr_pool_t *p, abb_error_t *err)
{
    abb_ticket_t expected;
    apr_status_t status = abb_ticket_parse_state(callback->state, &expected, err);

    ticket->return_path = NULL;
    if (status != APR_SUCCESS) {
        return status;
    }
    if (!cookie) {
        return abb_error_set(err, ABB_EATTEMPT,
                             "the browser did not bring back the cookie of this sign-in");
    }
    status = abb_ticket_decode(cookie, login->tickets, now, ticket, p, err);
    if (ticket->return_path && !abb_ticket_is_same(&expected, ticket)) {
        ticket->return_path = NULL;
        return abb_error_set(err, ABB_EATTEMPT, "the sign-in cookie is of another attempt");
    }
    return status;
}

/* ---- finish -------------------------------------------------------------- */

static int holds_name(const apr_array_header_t *names, const char *name)
{
    for (int i = 0; i < names->nelts; ++i) {
        if (strcmp(APR_ARRAY_IDX(names, i, const char *), name) == 0) {
            return 1;
        }
    }
    return 0;
}

static void add_name(apr_array_header_t *names, const char *name)
{
    if (names->nelts < ABB_BITBUCKET_WORKSPACES_MAX && !holds_name(names, name)) {
        APR_ARRAY_PUSH(names, const char *) = name;
    }
}

/* The requested place's workspaces first, then the site's, each once. */
static apr_array_header_t *choose_workspaces(const abb_ticket_t *ticket,
                                             const apr_array_header_t *workspaces, apr_pool_t *p)
{
    apr_array_header_t *chosen =
        apr_array_make(p, ABB_BITBUCKET_WORKSPACES_MAX, sizeof(const char *));
    char *words = apr_pstrdup(p, ticket->workspaces);
    char *state;

    for (char *word = apr_strtok(words, " ", &state); word; word = apr_strtok(NULL, " ", &state)) {
        add_name(chosen, word);
    }
    for (int i = 0; i < workspaces->nelts; ++i) {
        add_name(chosen, APR_ARRAY_IDX(workspaces, i, const char *));
    }
    return chosen;
}

/* A token that was good a moment ago and is refused now is Bitbucket's trouble. */
static apr_status_t settle_status(apr_status_t status, abb_error_t *err)
{
    if (status == ABB_ETOKEN || status == ABB_EGONE) {
        err->status = ABB_EUPSTREAM;
        return ABB_EUPSTREAM;
    }
    return status;
}

/*
 * Whoever comes in must be known to all rules that were asked about. Only a scope
 * that is missing keeps nobody out: other places may not need it, and where it is
 * needed, the question is asked again.
 */
static apr_status_t settle_failure(abb_bitbucket_visitor_t *visitor, abb_error_t *err,
                                   apr_pool_t *p)
{
    if (visitor->failure.status == ABB_ESCOPE) {
        visitor->doubt = apr_pstrdup(p, visitor->failure.text);
        return APR_SUCCESS;
    }
    if (visitor->failure.status != APR_SUCCESS && err) {
        *err = visitor->failure;
    }
    return visitor->failure.status;
}

static apr_status_t begin_session(const abb_login_t *login, const abb_bitbucket_visitor_t *visitor,
                                  const abb_tokens_t *tokens, apr_time_t now,
                                  abb_login_result_t *result, apr_pool_t *p, abb_error_t *err)
{
    abb_record_private_t private_part = {*tokens, visitor->raw_user};
    abb_record_t record;

    memset(&record, 0, sizeof(record));
    record.account = visitor->account;
    record.grants = visitor->grants;
    record.grant_count = visitor->grant_count;
    record.created_at = now;
    record.account_checked_at = now;
    return abb_session_create(login->sessions, &record, &private_part, now, &result->cookie,
                              &result->session, p, err);
}

static apr_status_t spend(const abb_login_t *login, const abb_ticket_t *ticket, apr_time_t now,
                          abb_error_t *err)
{
    apr_status_t status =
        abb_session_spend_attempt(login->sessions, ticket->id, sizeof(ticket->id),
                                  ticket->return_path, ABB_TICKET_LIFETIME, now, err);

    return status == APR_EEXIST
               ? abb_error_set(err, ABB_EATTEMPT, "this sign-in was completed before")
               : status;
}

apr_status_t abb_login_finish(const abb_login_t *login, const abb_login_callback_t *callback,
                              const abb_ticket_t *ticket, const apr_array_header_t *workspaces,
                              apr_time_t now, abb_login_result_t *result, apr_pool_t *p,
                              abb_error_t *err)
{
    const apr_array_header_t *asked = choose_workspaces(ticket, workspaces, p);
    abb_bitbucket_question_t question = {
        .user = 1,
        .emails = 1,
        .workspaces = (const char *const *)asked->elts,
        .workspace_count = asked->nelts,
    };
    abb_bitbucket_visitor_t visitor;
    abb_tokens_t tokens;
    apr_status_t status;

    if (abb_login_recall(login, callback, now, p)) {
        return abb_error_set(err, ABB_EATTEMPT, "this sign-in was completed before");
    }
    if ((status = abb_bitbucket_exchange_code(login->bitbucket, callback->code, now, &tokens, p,
                                              err)) != APR_SUCCESS ||
        (status = abb_bitbucket_fetch(login->bitbucket, &tokens, &question, now, &visitor, p,
                                      err)) != APR_SUCCESS ||
        (status = settle_failure(&visitor, err, p)) != APR_SUCCESS) {
        return settle_status(status, err);
    }
    result->doubt = visitor.doubt;
    result->change = visitor.change;
    result->alarm = NULL;
    if ((status = abb_session_pin_grants(login->sessions, visitor.grants, visitor.grant_count, now,
                                         &result->alarm, p, err)) != APR_SUCCESS) {
        return status;
    }
    result->return_path = ticket->return_path;
    result->scope = tokens.scope;
    if ((status = spend(login, ticket, now, err)) != APR_SUCCESS) {
        return status;
    }
    return begin_session(login, &visitor, &tokens, now, result, p, err);
}

const char *abb_login_recall(const abb_login_t *login, const abb_login_callback_t *callback,
                             apr_time_t now, apr_pool_t *p)
{
    abb_ticket_t ticket;
    const char *return_path;

    if (abb_ticket_parse_state(callback->state, &ticket, NULL) != APR_SUCCESS ||
        abb_session_find_attempt(login->sessions, ticket.id, sizeof(ticket.id), now, &return_path,
                                 p, NULL) != APR_SUCCESS) {
        return NULL;
    }
    return return_path;
}
