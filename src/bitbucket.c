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
const char *abb_bitbucket_client_authorization(const abb_bitbucket_t *bitbucket, apr_pool_t *p)
{
    const char *pair = apr_pstrcat(p, bitbucket->client_id, ":", bitbucket->client_secret, NULL);
    int length = (int)strlen(pair);
    char *encoded = apr_palloc(p, (apr_size_t)apr_base64_encode_len(length));

    apr_base64_encode(encoded, pair, length);
    return apr_pstrcat(p, "Basic ", encoded, NULL);
}

static apr_status_t ask_for_tokens(const abb_bitbucket_round_t *round, int asked, const char *form,
                                   apr_time_t now, abb_tokens_t *tokens, apr_pool_t *p,
                                   abb_error_t *err)
{
    const abb_bitbucket_t *bitbucket = round->bitbucket;
    abb_http_request_t request = {bitbucket->token_url,
                                  abb_bitbucket_client_authorization(bitbucket, p),
                                  form,
                                  TOKEN_ANSWER_MAX,
                                  0,
                                  asked == ABB_ASKED_CODE ? ABB_CALL_TOKEN : ABB_CALL_REFRESH};
    abb_http_answer_t answer;
    apr_status_t status;

    abb_bitbucket_perform(round, &request, &answer, 1, p);
    status = abb_bitbucket_meaning(asked, "the token endpoint", &answer, p, err);
    return status == APR_SUCCESS
               ? abb_reply_tokens(answer.body, answer.body_size, now, tokens, p, err)
               : status;
}

/*
 * Anybody can bring a code, and Bitbucket may limit those who bring wrong ones. A
 * pause that it asks for then is for codes, as if one account had them all.
 */
#define CODES "codes"

apr_status_t abb_bitbucket_exchange_code(const abb_bitbucket_t *bitbucket, const char *code,
                                         apr_time_t now, abb_tokens_t *tokens, apr_pool_t *p,
                                         abb_error_t *err)
{
    const char *form =
        apr_pstrcat(p, "grant_type=authorization_code&code=", abb_text_percent_encode(code, p),
                    "&redirect_uri=", abb_text_percent_encode(bitbucket->redirect_uri, p), NULL);
    abb_bitbucket_round_t round = abb_bitbucket_begin_round(bitbucket, CODES);

    return ask_for_tokens(&round, ABB_ASKED_CODE, form, now, tokens, p, err);
}

apr_status_t abb_bitbucket_refresh(const abb_bitbucket_t *bitbucket, const char *uuid,
                                   const char *refresh_token, apr_time_t now, abb_tokens_t *tokens,
                                   apr_pool_t *p, abb_error_t *err)
{
    const char *form = apr_pstrcat(p, "grant_type=refresh_token&refresh_token=",
                                   abb_text_percent_encode(refresh_token, p), NULL);
    abb_bitbucket_round_t round = abb_bitbucket_begin_round(bitbucket, uuid);
    apr_status_t status = ask_for_tokens(&round, ABB_ASKED_REFRESH, form, now, tokens, p, err);

    if (status == APR_SUCCESS && !tokens->refresh_token) {
        tokens->refresh_token = apr_pstrdup(p, refresh_token);
    }
    return status;
}

/* ---- the API ------------------------------------------------------------- */

/* RFC 6750 section 2.1, or RFC 7617 section 2. */
static abb_http_request_t api_request(abb_call_t call, const char *url, const abb_tokens_t *tokens,
                                      apr_pool_t *p)
{
    abb_http_request_t request = {
        url,  apr_pstrcat(p, tokens->is_basic ? "Basic " : "Bearer ", tokens->access_token, NULL),
        NULL, API_ANSWER_MAX,
        0,    call};

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

/*
 * Explicit grants only, so a public repository is not there for everybody. By
 * its uuid, or by its full name as the rule has it.
 */
static const char *repository_url(const abb_bitbucket_t *bitbucket, const char *asked,
                                  apr_pool_t *p)
{
    const char *slash = strchr(asked, '/');
    const char *workspace = apr_pstrmemdup(p, asked, (apr_size_t)(slash - asked));
    const char *query = abb_account_parse_uuid(slash + 1, p)
                            ? apr_pstrcat(p, "repository.uuid=\"{", slash + 1, "}\"", NULL)
                            : apr_pstrcat(p, "repository.full_name=\"", asked, "\"", NULL);

    return apr_pstrcat(p, bitbucket->api_url, "/user/workspaces/", path_segment(workspace, p),
                       "/permissions/repositories?q=", abb_text_percent_encode(query, p), NULL);
}

const char *abb_bitbucket_grant_url(const abb_bitbucket_t *bitbucket, const char *asked,
                                    apr_pool_t *p)
{
    return abb_account_is_repository(asked) ? repository_url(bitbucket, asked, p)
                                            : permission_url(bitbucket, asked, p);
}

/* ---- a grant ------------------------------------------------------------- */

/* One who asks, with a token; the answers come into the visitor. */
typedef struct {
    abb_bitbucket_round_t round;
    const abb_tokens_t *tokens;
    /* Whose roles; known before they are read. */
    const char *uuid;
    int takes_bots;
    abb_bitbucket_visitor_t *visitor;
    apr_pool_t *pool;
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
static apr_status_t fetch_member(const asker_t *asker, abb_grant_t *grant, abb_error_t *err)
{
    apr_pool_t *p = asker->pool;
    const char *url =
        apr_pstrcat(p, asker->round.bitbucket->api_url, "/workspaces/",
                    path_segment(grant->asked, p), "/members/", path_segment(asker->uuid, p), NULL);
    abb_http_request_t request = api_request(ABB_CALL_MEMBERS, url, asker->tokens, p);
    abb_http_answer_t answer;
    apr_status_t status;

    abb_bitbucket_perform(&asker->round, &request, &answer, 1, p);
    status = abb_bitbucket_meaning(ABB_ASKED_MEMBER, "GET /workspaces/{workspace}/members/{member}",
                                   &answer, p, err);
    if (status == APR_SUCCESS) {
        return abb_reply_member(answer.body, answer.body_size, asker->uuid, grant, p, err);
    }
    return status == APR_NOTFOUND ? APR_SUCCESS : status;
}

static apr_status_t read_permission(const asker_t *asker, const abb_http_answer_t *answer,
                                    abb_grant_t *grant, abb_error_t *err)
{
    const char *doubt;
    apr_status_t status = abb_account_is_repository(grant->asked)
                              ? abb_reply_repository(answer->body, answer->body_size, asker->uuid,
                                                     grant, &doubt, asker->pool, err)
                              : abb_reply_permission(answer->body, answer->body_size, asker->uuid,
                                                     grant, &doubt, asker->pool, err);

    if (status == APR_SUCCESS && doubt) {
        asker->visitor->doubt = doubt;
    }
    return status;
}

static apr_status_t meaning_of_grant(const asker_t *asker, const abb_http_answer_t *answer,
                                     const abb_grant_t *grant, abb_error_t *err)
{
    return abb_account_is_repository(grant->asked)
               ? abb_bitbucket_meaning(ABB_ASKED_REPOSITORY,
                                       "GET /user/workspaces/{workspace}/permissions/repositories",
                                       answer, asker->pool, err)
               : abb_bitbucket_meaning(ABB_ASKED_PERMISSION,
                                       "GET /user/workspaces/{workspace}/permission", answer,
                                       asker->pool, err);
}

static apr_status_t read_grant(const asker_t *asker, const abb_http_answer_t *answer,
                               abb_grant_t *grant, abb_error_t *err)
{
    abb_error_t reason;
    apr_status_t status;

    abb_error_clear(&reason);
    status = meaning_of_grant(asker, answer, grant, &reason);
    if (status == APR_SUCCESS) {
        return read_permission(asker, answer, grant, err);
    }
    if (status == APR_NOTFOUND) {
        return APR_SUCCESS;
    }
    /* Permission on a repository has no second way. */
    if (status == ABB_EGONE && !abb_account_is_repository(grant->asked)) {
        asker->visitor->change = apr_pstrdup(asker->pool, reason.text);
        return fetch_member(asker, grant, err);
    }
    *err = reason;
    return status;
}

/* Keep what was answered; the first failure is told beside it. */
static apr_status_t take_grants(const asker_t *asker, const abb_http_answer_t *answers,
                                const abb_bitbucket_question_t *question, int count, apr_time_t now,
                                abb_error_t *err)
{
    abb_bitbucket_visitor_t *visitor = asker->visitor;

    visitor->grants = apr_pcalloc(asker->pool, (apr_size_t)(count + 1) * sizeof(abb_grant_t));
    for (int i = 0; i < count; ++i) {
        abb_grant_t *grant = &visitor->grants[visitor->grant_count];
        abb_error_t reason;

        abb_error_clear(&reason);
        begin_grant(grant, question->workspaces[i], now, asker->pool);
        switch (read_grant(asker, &answers[i], grant, &reason)) {
        case APR_SUCCESS:
            ++visitor->grant_count;
            break;
        case ABB_ETOKEN:
            return abb_error_set(err, ABB_ETOKEN, "%s", reason.text);
        default:
            if (visitor->failure.status == APR_SUCCESS) {
                visitor->failure = reason;
            }
        }
    }
    return APR_SUCCESS;
}

/* ---- addresses ----------------------------------------------------------- */

int abb_bitbucket_is_page(const char *api_url, const char *url)
{
    apr_size_t length = strlen(api_url);
    const char *path = url + length;
    const char *climb;

    if (strncmp(url, api_url, length) != 0 || *path != '/' || abb_http_check_url(url)) {
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
    if (!abb_bitbucket_is_page(bitbucket->api_url, url)) {
        return abb_error_set(err, ABB_EUPSTREAM,
                             "the next page of GET /user/emails lies outside the API: %.120s", url);
    }
    if (seen->nelts >= PAGES_MAX || was_seen(seen, url)) {
        return abb_error_set(err, ABB_EUPSTREAM, "GET /user/emails has no last page");
    }
    APR_ARRAY_PUSH(seen, const char *) = url;
    return APR_SUCCESS;
}

/* A page that finds no room is left out: there is a longest list, of one page or of all. */
static void add_emails(abb_account_t *account, const char *confirmed, apr_pool_t *p)
{
    if (!confirmed) {
        return;
    }
    if (!account->emails) {
        account->emails = confirmed;
    }
    else if (strlen(account->emails) + strlen(confirmed) < ABB_REPLY_CONFIRMED_MAX) {
        account->emails = apr_pstrcat(p, account->emails, " ", confirmed, NULL);
    }
}

/* One page's addresses; *next is the page after it. */
static apr_status_t read_emails(const abb_http_answer_t *answer, abb_account_t *account,
                                const char **next, int *has_primary, apr_pool_t *p,
                                abb_error_t *err)
{
    abb_reply_emails_t emails;
    apr_status_t status =
        abb_bitbucket_meaning(ABB_ASKED_EMAILS, "GET /user/emails", answer, p, err);

    if (status != APR_SUCCESS || (status = abb_reply_emails(answer->body, answer->body_size,
                                                            &emails, p, err)) != APR_SUCCESS) {
        return status;
    }
    if (emails.primary && !*has_primary) {
        account->email = emails.primary;
        *has_primary = 1;
    }
    else if (!account->email) {
        account->email = emails.first_confirmed;
    }
    add_emails(account, emails.confirmed, p);
    *next = emails.next;
    return APR_SUCCESS;
}

/* Read the first page's answer and fetch the others as far as they are needed. */
static apr_status_t take_emails(const asker_t *asker, const abb_http_answer_t *first,
                                abb_error_t *err)
{
    const abb_bitbucket_t *bitbucket = asker->round.bitbucket;
    abb_account_t *account = &asker->visitor->account;
    apr_pool_t *p = asker->pool;
    apr_array_header_t *seen = apr_array_make(p, PAGES_MAX, sizeof(const char *));
    const char *next;
    int has_primary = 0;
    apr_status_t status = read_emails(first, account, &next, &has_primary, p, err);

    APR_ARRAY_PUSH(seen, const char *) = emails_url(bitbucket, p);
    while (status == APR_SUCCESS && next &&
           (status = check_page(bitbucket, seen, next, err)) == APR_SUCCESS) {
        abb_http_request_t request = api_request(ABB_CALL_EMAILS, next, asker->tokens, p);
        abb_http_answer_t answer;

        abb_bitbucket_perform(&asker->round, &request, &answer, 1, p);
        status = read_emails(&answer, account, &next, &has_primary, p, err);
    }
    /* One address is said once. */
    if (account->emails && !strchr(account->emails, ' ')) {
        account->emails = NULL;
    }
    return status;
}

/* ---- a visitor ----------------------------------------------------------- */

/* The questions in their order; those not asked have no place. */
typedef struct {
    abb_http_request_t requests[2 + ABB_BITBUCKET_WORKSPACES_MAX];
    abb_http_answer_t answers[2 + ABB_BITBUCKET_WORKSPACES_MAX];
    int count;
    /* Places; -1: not asked. */
    int user;
    int emails;
    int workspaces;
    int workspace_count;
} questions_t;

static int add_question(questions_t *questions, abb_call_t call, const char *url,
                        const asker_t *asker)
{
    questions->requests[questions->count] = api_request(call, url, asker->tokens, asker->pool);
    return questions->count++;
}

static void compose(questions_t *questions, const abb_bitbucket_question_t *question,
                    const asker_t *asker)
{
    const abb_bitbucket_t *bitbucket = asker->round.bitbucket;
    apr_pool_t *p = asker->pool;

    questions->count = 0;
    questions->user = question->user
                          ? add_question(questions, ABB_CALL_USER,
                                         apr_pstrcat(p, bitbucket->api_url, "/user", NULL), asker)
                          : -1;
    questions->emails =
        question->emails ? add_question(questions, ABB_CALL_EMAILS, emails_url(bitbucket, p), asker)
                         : -1;
    questions->workspaces = questions->count;
    questions->workspace_count = question->workspace_count > ABB_BITBUCKET_WORKSPACES_MAX
                                     ? ABB_BITBUCKET_WORKSPACES_MAX
                                     : question->workspace_count;
    for (int i = 0; i < questions->workspace_count; ++i) {
        const char *asked = question->workspaces[i];

        add_question(questions,
                     abb_account_is_repository(asked) ? ABB_CALL_REPOSITORIES : ABB_CALL_PERMISSION,
                     abb_bitbucket_grant_url(bitbucket, asked, p), asker);
    }
}

static apr_status_t take_user(asker_t *asker, const abb_http_answer_t *answer, abb_error_t *err)
{
    abb_bitbucket_visitor_t *visitor = asker->visitor;
    apr_status_t status =
        abb_bitbucket_meaning(ABB_ASKED_USER, "GET /user", answer, asker->pool, err);

    if (status == APR_SUCCESS) {
        status = abb_reply_user(answer->body, answer->body_size, &visitor->account,
                                &visitor->raw_user, asker->pool, err);
    }
    if (status == APR_SUCCESS && visitor->account.app_kind && !asker->takes_bots) {
        return abb_error_set(err, ABB_EACCOUNT, "the account is of type app_user, not a person's");
    }
    if (status == APR_SUCCESS && asker->uuid && strcmp(asker->uuid, visitor->account.uuid) != 0) {
        return abb_error_set(err, ABB_EIDENTITY, "the tokens of account %s are account %s's now",
                             asker->uuid, visitor->account.uuid);
    }
    if (status == APR_SUCCESS) {
        asker->uuid = visitor->account.uuid;
    }
    return status;
}

/* Addresses are welcome, not needed: whoever needs one sees that it is missing. */
static apr_status_t take_emails_if_allowed(const asker_t *asker, const abb_http_answer_t *first,
                                           int is_known, abb_error_t *err)
{
    apr_status_t status = take_emails(asker, first, err);

    if (status != ABB_ESCOPE) {
        return status;
    }
    /* Said at the sign-in, not at each re-check. */
    if (!is_known) {
        asker->visitor->doubt = apr_pstrdup(asker->pool, err->text);
    }
    return APR_SUCCESS;
}

/* Whether a reason says something of the account or its token, not of Bitbucket. */
static int is_decisive(apr_status_t reason)
{
    return reason == ABB_EACCOUNT || reason == ABB_EIDENTITY || reason == ABB_ETOKEN;
}

/* Without an account that is known from before, nothing counts that is not answered. */
static apr_status_t take_account(asker_t *asker, const questions_t *questions, abb_error_t *err)
{
    abb_bitbucket_visitor_t *visitor = asker->visitor;
    int is_known = asker->uuid != NULL;
    apr_status_t status;
    abb_error_t reason;

    abb_error_clear(&reason);
    status = take_user(asker, &questions->answers[questions->user], &reason);
    if (status == APR_SUCCESS && questions->emails >= 0) {
        status = take_emails_if_allowed(asker, &questions->answers[questions->emails], is_known,
                                        &reason);
    }
    visitor->has_account = status == APR_SUCCESS;
    if (status != APR_SUCCESS && (is_decisive(status) || !is_known)) {
        if (err) {
            *err = reason;
        }
        return status;
    }
    if (status != APR_SUCCESS) {
        visitor->failure = reason;
    }
    return APR_SUCCESS;
}

apr_status_t abb_bitbucket_fetch(const abb_bitbucket_t *bitbucket, const abb_tokens_t *tokens,
                                 const abb_bitbucket_question_t *question, apr_time_t now,
                                 abb_bitbucket_visitor_t *visitor, apr_pool_t *p, abb_error_t *err)
{
    asker_t asker = {
        abb_bitbucket_begin_round(bitbucket, question->uuid ? question->uuid : question->counts_as),
        tokens,
        question->uuid,
        question->takes_bots,
        visitor,
        p};
    apr_status_t status = APR_SUCCESS;
    questions_t questions;

    memset(visitor, 0, sizeof(*visitor));
    abb_error_clear(&visitor->failure);
    compose(&questions, question, &asker);
    abb_bitbucket_perform(&asker.round, questions.requests, questions.answers, questions.count, p);
    if (questions.user >= 0) {
        status = take_account(&asker, &questions, err);
    }
    return status == APR_SUCCESS ? take_grants(&asker, &questions.answers[questions.workspaces],
                                               question, questions.workspace_count, now, err)
                                 : status;
}
