/* bitbucket (floor 3): what to ask Bitbucket Cloud and what its answers mean. */
#include <apr_base64.h>
#include <apr_lib.h>
#include <apr_strings.h>
#include <string.h>

#include "abb_reply.h"
#include "abb_text.h"
#include "bitbucket_internal.h"

#define TOKEN_ANSWER_MAX (64 * 1024)
#define API_ANSWER_MAX (1024 * 1024)
#define PAGES_MAX 10

/* ---- the token endpoint -------------------------------------------------- */

void abb_bitbucket_settle(abb_bitbucket_t *bitbucket, apr_pool_t *p)
{
    const char *separator = strchr(bitbucket->authorize_url, '?') ? "&" : "?";

    bitbucket->authorize_start = apr_pstrcat(
        p, bitbucket->authorize_url, separator,
        "response_type=code&client_id=", abb_text_percent_encode(bitbucket->client_id, p),
        "&redirect_uri=", abb_text_percent_encode(bitbucket->redirect_uri, p), "&state=", NULL);
    bitbucket->authorize_end =
        bitbucket->scope
            ? apr_pstrcat(p, "&scope=", abb_text_percent_encode(bitbucket->scope, p), NULL)
            : "";
}

const char *abb_bitbucket_authorize_url(const abb_bitbucket_t *bitbucket, const char *state,
                                        apr_pool_t *p)
{
    return apr_pstrcat(p, bitbucket->authorize_start, state, bitbucket->authorize_end, NULL);
}

/* RFC 6749 section 2.3.1, without the form encoding that Bitbucket does not undo. */
static const char *client_authorization(const abb_bitbucket_t *bitbucket, apr_pool_t *p)
{
    const char *pair = apr_pstrcat(p, bitbucket->client_id, ":", bitbucket->client_secret, NULL);
    int length = (int)strlen(pair);
    char *encoded = apr_palloc(p, (apr_size_t)apr_base64_encode_len(length));

    apr_base64_encode(encoded, pair, length);
    return apr_pstrcat(p, "Basic ", encoded, NULL);
}

static apr_status_t ask_for_tokens(const abb_bitbucket_t *bitbucket, int asked, const char *form,
                                   apr_time_t now, abb_tokens_t *tokens, apr_pool_t *p,
                                   abb_error_t *err)
{
    abb_http_request_t request = {bitbucket->token_url, client_authorization(bitbucket, p), form,
                                  TOKEN_ANSWER_MAX};
    abb_http_answer_t answer;
    apr_status_t status;

    abb_http_perform(bitbucket->http, &bitbucket->http_settings, &request, &answer, 1, p);
    status = abb_bitbucket_meaning(asked, "the token endpoint", &answer, p, err);
    return status == APR_SUCCESS
               ? abb_reply_tokens(answer.body, answer.body_size, now, tokens, p, err)
               : status;
}

apr_status_t abb_bitbucket_exchange_code(const abb_bitbucket_t *bitbucket, const char *code,
                                         apr_time_t now, abb_tokens_t *tokens, apr_pool_t *p,
                                         abb_error_t *err)
{
    const char *form =
        apr_pstrcat(p, "grant_type=authorization_code&code=", abb_text_percent_encode(code, p),
                    "&redirect_uri=", abb_text_percent_encode(bitbucket->redirect_uri, p), NULL);

    return ask_for_tokens(bitbucket, ABB_ASKED_CODE, form, now, tokens, p, err);
}

apr_status_t abb_bitbucket_refresh(const abb_bitbucket_t *bitbucket, const char *refresh_token,
                                   apr_time_t now, abb_tokens_t *tokens, apr_pool_t *p,
                                   abb_error_t *err)
{
    const char *form = apr_pstrcat(p, "grant_type=refresh_token&refresh_token=",
                                   abb_text_percent_encode(refresh_token, p), NULL);
    apr_status_t status = ask_for_tokens(bitbucket, ABB_ASKED_REFRESH, form, now, tokens, p, err);

    if (status == APR_SUCCESS && !tokens->refresh_token) {
        tokens->refresh_token = apr_pstrdup(p, refresh_token);
    }
    return status;
}

/* ---- the API ------------------------------------------------------------- */

static abb_http_request_t api_request(const char *url, const char *access_token, apr_pool_t *p)
{
    abb_http_request_t request = {url, apr_pstrcat(p, "Bearer ", access_token, NULL), NULL,
                                  API_ANSWER_MAX};

    return request;
}

/* A workspace or member in a path: a slug, or a uuid with encoded braces. */
static const char *path_segment(const char *name, apr_pool_t *p)
{
    return abb_account_parse_uuid(name, p) ? apr_pstrcat(p, "%7B", name, "%7D", NULL)
                                           : abb_text_percent_encode(name, p);
}

static const char *permission_url(const abb_bitbucket_t *bitbucket, const char *workspace,
                                  apr_pool_t *p)
{
    return apr_pstrcat(p, bitbucket->api_url, "/user/workspaces/", path_segment(workspace, p),
                       "/permission", NULL);
}

/* ---- a grant ------------------------------------------------------------- */

/* Whose role, in which workspace, at what time; and where an oddity is told. */
typedef struct {
    const abb_bitbucket_t *bitbucket;
    const char *access_token;
    const char *user_uuid;
    apr_time_t now;
    const char *doubt;
} asker_t;

static void begin_grant(abb_grant_t *grant, const char *workspace, apr_time_t now, apr_pool_t *p)
{
    memset(grant, 0, sizeof(*grant));
    grant->asked = apr_pstrdup(p, workspace);
    grant->checked_at = now;
}

/*
 * The second way, used only where the first is withdrawn: the member's own
 * entry, which proves plain membership and nothing above it.
 */
static apr_status_t fetch_member(asker_t *asker, abb_grant_t *grant, apr_pool_t *p,
                                 abb_error_t *err)
{
    const char *url =
        apr_pstrcat(p, asker->bitbucket->api_url, "/workspaces/", path_segment(grant->asked, p),
                    "/members/", path_segment(asker->user_uuid, p), NULL);
    abb_http_request_t request = api_request(url, asker->access_token, p);
    abb_http_answer_t answer;
    apr_status_t status;

    abb_http_perform(asker->bitbucket->http, &asker->bitbucket->http_settings, &request, &answer, 1,
                     p);
    status = abb_bitbucket_meaning(ABB_ASKED_MEMBER, "GET /workspaces/{workspace}/members/{member}",
                                   &answer, p, err);
    if (status == APR_SUCCESS) {
        return abb_reply_member(answer.body, answer.body_size, asker->user_uuid, grant, p, err);
    }
    return status == APR_NOTFOUND ? APR_SUCCESS : status;
}

static apr_status_t read_grant(asker_t *asker, const abb_http_answer_t *answer, abb_grant_t *grant,
                               apr_pool_t *p, abb_error_t *err)
{
    abb_error_t reason;
    apr_status_t status;

    abb_error_clear(&reason);
    status = abb_bitbucket_meaning(
        ABB_ASKED_PERMISSION, "GET /user/workspaces/{workspace}/permission", answer, p, &reason);
    switch (status) {
    case APR_SUCCESS:
        return abb_reply_permission(answer->body, answer->body_size, asker->user_uuid, grant,
                                    &asker->doubt, p, err);
    case APR_NOTFOUND:
        return APR_SUCCESS;
    case ABB_EGONE:
        asker->doubt = apr_pstrdup(p, reason.text);
        return fetch_member(asker, grant, p, err);
    default:
        if (err) {
            *err = reason;
        }
        return status;
    }
}

apr_status_t abb_bitbucket_fetch_grant(const abb_bitbucket_t *bitbucket, const char *access_token,
                                       const char *user_uuid, const char *workspace, apr_time_t now,
                                       abb_grant_t *grant, const char **doubt, apr_pool_t *p,
                                       abb_error_t *err)
{
    asker_t asker = {bitbucket, access_token, user_uuid, now, NULL};
    abb_http_request_t request =
        api_request(permission_url(bitbucket, workspace, p), access_token, p);
    abb_http_answer_t answer;
    apr_status_t status;

    begin_grant(grant, workspace, now, p);
    abb_http_perform(bitbucket->http, &bitbucket->http_settings, &request, &answer, 1, p);
    status = read_grant(&asker, &answer, grant, p, err);
    *doubt = asker.doubt;
    return status;
}

/* ---- addresses ----------------------------------------------------------- */

/*
 * A page's address is opaque, but it gets the token: same origin and API only.
 * A path that climbs, raw or encoded, could leave the API.
 */
static int is_api_page(const abb_bitbucket_t *bitbucket, const char *url)
{
    apr_size_t length = strlen(bitbucket->api_url);
    const char *path = url + length;
    const char *climb;

    if (strncmp(url, bitbucket->api_url, length) != 0 || *path != '/' || abb_http_check_url(url)) {
        return 0;
    }
    climb = strpbrk(path, "%\\?");
    return !(climb && *climb != '?') && !strstr(path, "/.");
}

static const char *emails_url(const abb_bitbucket_t *bitbucket, apr_pool_t *p)
{
    return apr_pstrcat(p, bitbucket->api_url, "/user/emails?pagelen=100", NULL);
}

static int was_seen(const apr_array_header_t *urls, const char *url)
{
    for (int i = 0; i < urls->nelts; ++i) {
        if (strcmp(APR_ARRAY_IDX(urls, i, const char *), url) == 0) {
            return 1;
        }
    }
    return 0;
}

static apr_status_t check_page(const abb_bitbucket_t *bitbucket, apr_array_header_t *seen,
                               const char *url, abb_error_t *err)
{
    if (!is_api_page(bitbucket, url)) {
        return abb_error_set(err, ABB_EUPSTREAM,
                             "the next page of GET /user/emails lies outside the API: %.120s", url);
    }
    if (seen->nelts >= PAGES_MAX || was_seen(seen, url)) {
        return abb_error_set(err, ABB_EUPSTREAM, "GET /user/emails has no last page");
    }
    APR_ARRAY_PUSH(seen, const char *) = url;
    return APR_SUCCESS;
}

/* One page's addresses; *next is the page after it while the primary one is not found. */
static apr_status_t read_emails(const abb_http_answer_t *answer, abb_account_t *account,
                                const char **next, apr_pool_t *p, abb_error_t *err)
{
    abb_reply_emails_t emails;
    apr_status_t status =
        abb_bitbucket_meaning(ABB_ASKED_EMAILS, "GET /user/emails", answer, p, err);

    if (status != APR_SUCCESS || (status = abb_reply_emails(answer->body, answer->body_size,
                                                            &emails, p, err)) != APR_SUCCESS) {
        return status;
    }
    if (emails.primary) {
        account->email = emails.primary;
    }
    else if (!account->email) {
        account->email = emails.first_confirmed;
    }
    *next = emails.primary ? NULL : emails.next;
    return APR_SUCCESS;
}

/* Read the first page's answer and fetch the others as far as they are needed. */
static apr_status_t take_emails(const abb_bitbucket_t *bitbucket, const char *access_token,
                                const abb_http_answer_t *first, abb_account_t *account,
                                apr_pool_t *p, abb_error_t *err)
{
    apr_array_header_t *seen = apr_array_make(p, PAGES_MAX, sizeof(const char *));
    const char *next;
    apr_status_t status = read_emails(first, account, &next, p, err);

    APR_ARRAY_PUSH(seen, const char *) = emails_url(bitbucket, p);

    while (status == APR_SUCCESS && next &&
           (status = check_page(bitbucket, seen, next, err)) == APR_SUCCESS) {
        abb_http_request_t request = api_request(next, access_token, p);
        abb_http_answer_t answer;

        abb_http_perform(bitbucket->http, &bitbucket->http_settings, &request, &answer, 1, p);
        status = read_emails(&answer, account, &next, p, err);
    }
    return status;
}

/* ---- a visitor ----------------------------------------------------------- */

/* The order of the questions at a sign-in. */
enum { ASK_USER, ASK_EMAILS, ASK_WORKSPACES };

static apr_status_t take_user(const abb_http_answer_t *answer, abb_bitbucket_visitor_t *visitor,
                              apr_pool_t *p, abb_error_t *err)
{
    apr_status_t status = abb_bitbucket_meaning(ABB_ASKED_USER, "GET /user", answer, p, err);

    return status == APR_SUCCESS ? abb_reply_user(answer->body, answer->body_size,
                                                  &visitor->account, &visitor->raw_user, p, err)
                                 : status;
}

/* Addresses are welcome, not needed: whoever needs one sees that it is missing. */
static apr_status_t take_emails_if_allowed(const abb_bitbucket_t *bitbucket,
                                           const char *access_token, const abb_http_answer_t *first,
                                           abb_bitbucket_visitor_t *visitor, apr_pool_t *p,
                                           abb_error_t *err)
{
    abb_error_t reason;
    apr_status_t status;

    abb_error_clear(&reason);
    status = take_emails(bitbucket, access_token, first, &visitor->account, p, &reason);
    if (status == ABB_ESCOPE) {
        visitor->doubt = apr_pstrdup(p, reason.text);
        return APR_SUCCESS;
    }
    if (status != APR_SUCCESS && err) {
        *err = reason;
    }
    return status;
}

static apr_status_t take_grants(asker_t *asker, const abb_http_answer_t *answers,
                                abb_bitbucket_visitor_t *visitor, apr_pool_t *p, abb_error_t *err)
{
    for (int i = 0; i < visitor->grant_count; ++i) {
        apr_status_t status = read_grant(asker, &answers[i], &visitor->grants[i], p, err);

        if (status != APR_SUCCESS) {
            return status;
        }
    }
    if (asker->doubt) {
        visitor->doubt = asker->doubt;
    }
    return APR_SUCCESS;
}

apr_status_t abb_bitbucket_fetch_visitor(const abb_bitbucket_t *bitbucket, const char *access_token,
                                         const char *const *workspaces, int workspace_count,
                                         apr_time_t now, abb_bitbucket_visitor_t *visitor,
                                         apr_pool_t *p, abb_error_t *err)
{
    abb_http_request_t requests[ASK_WORKSPACES + ABB_BITBUCKET_WORKSPACES_MAX];
    abb_http_answer_t answers[ASK_WORKSPACES + ABB_BITBUCKET_WORKSPACES_MAX];
    asker_t asker = {bitbucket, access_token, NULL, now, NULL};
    apr_status_t status;

    memset(visitor, 0, sizeof(*visitor));
    visitor->grant_count = workspace_count > ABB_BITBUCKET_WORKSPACES_MAX
                               ? ABB_BITBUCKET_WORKSPACES_MAX
                               : workspace_count;
    visitor->grants = apr_pcalloc(p, (apr_size_t)(visitor->grant_count + 1) * sizeof(abb_grant_t));
    requests[ASK_USER] =
        api_request(apr_pstrcat(p, bitbucket->api_url, "/user", NULL), access_token, p);
    requests[ASK_EMAILS] = api_request(emails_url(bitbucket, p), access_token, p);
    for (int i = 0; i < visitor->grant_count; ++i) {
        begin_grant(&visitor->grants[i], workspaces[i], now, p);
        requests[ASK_WORKSPACES + i] =
            api_request(permission_url(bitbucket, workspaces[i], p), access_token, p);
    }
    abb_http_perform(bitbucket->http, &bitbucket->http_settings, requests, answers,
                     ASK_WORKSPACES + visitor->grant_count, p);
    if ((status = take_user(&answers[ASK_USER], visitor, p, err)) != APR_SUCCESS) {
        return status;
    }
    asker.user_uuid = visitor->account.uuid;
    status = take_emails_if_allowed(bitbucket, access_token, &answers[ASK_EMAILS], visitor, p, err);
    return status == APR_SUCCESS ? take_grants(&asker, &answers[ASK_WORKSPACES], visitor, p, err)
                                 : status;
}
