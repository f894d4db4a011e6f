/* bitbucket (floor 3): whether Bitbucket can be worked with at all, for a self-check. */
#include <apr_date.h>
#include <apr_strings.h>

#include "abb_reply.h"
#include "abb_text.h"
#include "bitbucket_internal.h"

#define PROBE_ANSWER_MAX (64 * 1024)
/* What Bitbucket never gave out. */
#define NO_CODE "self-check"

static abb_http_answer_t ask(const abb_bitbucket_t *bitbucket, const abb_http_request_t *request,
                             abb_bitbucket_heard_t *heard, apr_pool_t *p)
{
    abb_bitbucket_round_t round = abb_bitbucket_begin_round(bitbucket, NULL);
    abb_http_answer_t answer;

    abb_bitbucket_perform(&round, request, &answer, 1, p);
    if (answer.date) {
        heard->date = apr_date_parse_http(answer.date);
        heard->heard_at = apr_time_now();
    }
    return answer;
}

/* ---- key and secret ------------------------------------------------------ */

static abb_http_answer_t ask_for_token(const abb_bitbucket_t *bitbucket, const char *form,
                                       abb_bitbucket_heard_t *heard, apr_pool_t *p)
{
    abb_http_request_t request = {.url = bitbucket->token_url,
                                  .authorization = abb_bitbucket_client_authorization(bitbucket, p),
                                  .form = form,
                                  .answer_max = PROBE_ANSWER_MAX};

    return ask(bitbucket, &request, heard, p);
}

static apr_status_t meaning_of(const abb_http_answer_t *answer, apr_pool_t *p, abb_error_t *err)
{
    return abb_bitbucket_meaning(ABB_ASKED_CODE, "the token endpoint", answer, p, err);
}

/* Whoever sends a wrong code with the right key and secret hears of the code. */
static apr_status_t try_code(const abb_bitbucket_t *bitbucket, abb_bitbucket_heard_t *heard,
                             apr_pool_t *p, abb_error_t *err)
{
    const char *form =
        apr_pstrcat(p, "grant_type=authorization_code&code=" NO_CODE "&redirect_uri=",
                    abb_text_percent_encode(bitbucket->redirect_uri, p), NULL);
    abb_http_answer_t answer = ask_for_token(bitbucket, form, heard, p);
    abb_error_t reason;
    apr_status_t status;

    abb_error_clear(&reason);
    status = meaning_of(&answer, p, &reason);
    if (status == ABB_EGRANT) {
        return APR_SUCCESS;
    }
    return status == APR_SUCCESS
               ? abb_error_set(err, ABB_EUPSTREAM, "the token endpoint takes any code")
               : abb_error_set(err, status, "%s", reason.text);
}

apr_status_t abb_bitbucket_probe_client(const abb_bitbucket_t *bitbucket,
                                        abb_bitbucket_heard_t *heard, apr_pool_t *p,
                                        abb_error_t *err)
{
    abb_http_answer_t answer = ask_for_token(bitbucket, "grant_type=client_credentials", heard, p);
    abb_tokens_t tokens;
    apr_status_t status;

    /* A client that is not private is refused with 4xx, whatever its secret. */
    if (answer.status >= 400 && answer.status < 500 && answer.status != 429) {
        return try_code(bitbucket, heard, p, err);
    }
    status = meaning_of(&answer, p, err);
    if (status == APR_SUCCESS) {
        status = abb_reply_tokens(answer.body, answer.body_size, 0, &tokens, p, err);
    }
    if (status == APR_SUCCESS) {
        heard->scope = tokens.scope;
    }
    return status;
}

/* ---- the API ------------------------------------------------------------- */

apr_status_t abb_bitbucket_probe_api(const abb_bitbucket_t *bitbucket, abb_bitbucket_part_t part,
                                     const char *asked, abb_bitbucket_heard_t *heard, apr_pool_t *p,
                                     abb_error_t *err)
{
    const char *url =
        part == ABB_BITBUCKET_GRANT
            ? abb_bitbucket_grant_url(bitbucket, asked, p)
            : apr_pstrcat(p, bitbucket->api_url,
                          part == ABB_BITBUCKET_USER ? "/user" : "/user/emails", NULL);
    abb_http_request_t request = {.url = url, .answer_max = PROBE_ANSWER_MAX};
    abb_http_answer_t answer = ask(bitbucket, &request, heard, p);
    abb_error_t reason;
    apr_status_t status;

    abb_error_clear(&reason);
    status = abb_bitbucket_meaning(ABB_ASKED_USER, "the API", &answer, p, &reason);
    /* A page of a proxy or a portal may say 401, too. */
    if (status == ABB_ETOKEN && abb_bitbucket_is_json(answer.content_type)) {
        return APR_SUCCESS;
    }
    return status == APR_SUCCESS || status == ABB_ETOKEN
               ? abb_error_set(err, ABB_EUPSTREAM,
                               "the API answered %d without asking for a token as Bitbucket does",
                               answer.status)
               : abb_error_set(err, status, "%s", reason.text);
}
