/* bitbucket (floor 3): what an answer of Bitbucket means, in one table. */
#include <apr_strings.h>
#include <string.h>

#include "abb_reply.h"
#include "bitbucket_internal.h"

/* Bounds of Retry-After, and what counts when it is missing or junk. */
#define RETRY_AFTER_MAX 900
#define RETRY_AFTER_DEFAULT 60
#define RETRY_AFTER_JITTER apr_time_from_sec(10)

enum {
    TOKEN_ENDPOINT = ABB_ASKED_CODE | ABB_ASKED_REFRESH,
    WORKSPACE = ABB_ASKED_PERMISSION | ABB_ASKED_MEMBER | ABB_ASKED_REPOSITORY,
    API = ABB_ASKED_USER | ABB_ASKED_EMAILS | WORKSPACE
};

/* A word in an error body that tells apart answers of one status. */
static const char missing_scope[] = "(missing scope)";
static const char no_api[] = "(no API here)";

/*
 * The first row that fits tells the meaning: APR_SUCCESS read the body,
 * APR_NOTFOUND a definite no, else a reason. What no row names could not be
 * asked. Source: RFC 6749 section 5.2; "Bitbucket Cloud REST API", "Use OAuth on
 * Bitbucket Cloud"; CHANGE-2770 (410), CHANGE-3022, CHANGE-3052; observed
 * answers of August 2026 where the manuals are silent. Status is compared,
 * wording is not, since it may be localized.
 */
static const struct {
    int questions;
    int status;
    const char *sign;
    apr_status_t meaning;
} meanings[] = {
    {TOKEN_ENDPOINT | API, 200, NULL, APR_SUCCESS},
    /* Wrong key or secret at an exchange; a used-up refresh token at a refresh. */
    {ABB_ASKED_CODE, 400, "unauthorized_client", ABB_ECLIENT},
    {ABB_ASKED_CODE, 401, "unauthorized_client", ABB_ECLIENT},
    {ABB_ASKED_CODE, 400, "invalid_client", ABB_ECLIENT},
    {ABB_ASKED_CODE, 401, "invalid_client", ABB_ECLIENT},
    {ABB_ASKED_CODE, 400, "invalid_request", ABB_ECLIENT},
    {ABB_ASKED_CODE, 400, "invalid_scope", ABB_ESCOPE},
    {ABB_ASKED_CODE, 400, "invalid_grant", ABB_EGRANT},
    {ABB_ASKED_REFRESH, 400, "unauthorized_client", ABB_EGRANT},
    {ABB_ASKED_REFRESH, 401, "unauthorized_client", ABB_EGRANT},
    {ABB_ASKED_REFRESH, 400, "invalid_grant", ABB_EGRANT},
    {ABB_ASKED_REFRESH, 400, "invalid_request", ABB_EGRANT},
    {ABB_ASKED_REFRESH, 400, "invalid_client", ABB_ECLIENT},
    {ABB_ASKED_REFRESH, 401, "invalid_client", ABB_ECLIENT},
    {API, 401, NULL, ABB_ETOKEN},
    {API, 403, missing_scope, ABB_ESCOPE},
    {WORKSPACE, 403, NULL, APR_NOTFOUND},
    {API, 404, no_api, ABB_EGONE},
    {WORKSPACE, 404, NULL, APR_NOTFOUND},
    {TOKEN_ENDPOINT | API, 410, NULL, ABB_EGONE},
    {TOKEN_ENDPOINT | API, 429, NULL, ABB_ELIMIT},
};

static int says(const char *text, const char *part)
{
    return text && strstr(text, part) != NULL;
}

static int has_sign(const abb_reply_error_t *error, const char *sign)
{
    if (!sign) {
        return 1;
    }
    if (sign == missing_scope) {
        return error->required != NULL;
    }
    if (sign == no_api) {
        return says(error->detail, "no API hosted") || says(error->message, "no API hosted");
    }
    return error->code && strcmp(error->code, sign) == 0;
}

int abb_bitbucket_is_json(const char *content_type)
{
    static const char json[] = "application/json";
    apr_size_t length = sizeof(json) - 1;

    return content_type && strncasecmp(content_type, json, length) == 0 &&
           (content_type[length] == '\0' || content_type[length] == ';' ||
            content_type[length] == ' ');
}

apr_interval_time_t abb_bitbucket_retry_after(const abb_http_answer_t *answer)
{
    const char *text = answer->retry_after;
    int is_number = text && *text && strspn(text, "0123456789") == strlen(text);
    apr_int64_t seconds = is_number ? apr_atoi64(text) : RETRY_AFTER_DEFAULT;

    if (!is_number) {
        return apr_time_from_sec(seconds) + apr_time_now() % RETRY_AFTER_JITTER;
    }
    return apr_time_from_sec(seconds < 1                 ? 1
                             : seconds > RETRY_AFTER_MAX ? RETRY_AFTER_MAX
                                                         : seconds);
}

static apr_status_t explain(apr_status_t meaning, const char *what, const abb_http_answer_t *answer,
                            const abb_reply_error_t *error, abb_error_t *err)
{
    const char *message = error->message ? error->message : "no explanation";
    const char *detail = error->detail ? error->detail : "";

    switch (meaning) {
    case ABB_ESCOPE:
        return abb_error_set(
            err, meaning, "what was granted lacks the scope '%.60s' that %s needs (granted: %.80s)",
            error->required ? error->required : "?", what, error->granted ? error->granted : "?");
    case ABB_EGONE:
        return abb_error_set(err, meaning, "Bitbucket has withdrawn %s: %.100s%s%.60s, see %.80s",
                             what, message, *detail ? ": " : "", detail,
                             error->announcement_url ? error->announcement_url : "its changelog");
    case ABB_ELIMIT:
        abb_error_set(err, meaning, "Bitbucket's rate limit is reached at %s", what);
        if (err) {
            err->retry_after = abb_bitbucket_retry_after(answer);
        }
        return meaning;
    default:
        return abb_error_set(err, meaning, "%s answered %d%s%.40s: %.160s", what, answer->status,
                             error->code ? " " : "", error->code ? error->code : "", message);
    }
}

apr_status_t abb_bitbucket_meaning(int asked, const char *what, const abb_http_answer_t *answer,
                                   apr_pool_t *p, abb_error_t *err)
{
    abb_reply_error_t error;

    if (answer->error.status != APR_SUCCESS) {
        if (err && err->status == APR_SUCCESS) {
            *err = answer->error;
        }
        return answer->error.status;
    }
    if (answer->status == 200 && !abb_bitbucket_is_json(answer->content_type)) {
        return abb_error_set(err, ABB_EUPSTREAM, "%s answered %.60s instead of application/json",
                             what, answer->content_type ? answer->content_type : "no content type");
    }
    abb_reply_error(answer->body, answer->status == 200 ? 0 : answer->body_size, &error, p);
    for (apr_size_t i = 0; i < sizeof(meanings) / sizeof(meanings[0]); ++i) {
        if ((meanings[i].questions & asked) && meanings[i].status == answer->status &&
            has_sign(&error, meanings[i].sign)) {
            apr_status_t meaning = meanings[i].meaning;

            return meaning == APR_SUCCESS || meaning == APR_NOTFOUND
                       ? meaning
                       : explain(meaning, what, answer, &error, err);
        }
    }
    return explain(ABB_EUPSTREAM, what, answer, &error, err);
}
