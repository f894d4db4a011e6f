/* t_bitbucket: what is asked, with what, and what each answer means. */
#include "site.h"

#include "abb_text.h"

#define NOW apr_time_from_sec(1800000000)
#define MEMBER "GET /2.0/workspaces/acme/members/%7B" SITE_USER "%7D"

static void clear(abb_error_t *err)
{
    abb_error_clear(err);
}

/* ---- one question each --------------------------------------------------- */

typedef enum { CODE, REFRESH, USER, EMAILS, PERMISSION, MEMBERSHIP } question_t;

static const char *const targets[] = {SITE_POST_TOKEN,
                                      SITE_POST_TOKEN,
                                      SITE_GET_USER,
                                      SITE_GET_EMAILS,
                                      "GET /2.0/user/workspaces/acme/permission",
                                      MEMBER};

/* What came of a question. */
typedef struct {
    apr_status_t status;
    abb_error_t err;
    abb_tokens_t tokens;
    abb_bitbucket_visitor_t visitor;
    abb_grant_t grant;
    const char *doubt;
} outcome_t;

static const abb_tokens_t some_tokens = {.access_token = "access-1"};

/* What could not be asked is a failure of the whole here. */
static void fetch(site_t *site, const abb_bitbucket_question_t *question, outcome_t *outcome)
{
    memset(outcome, 0, sizeof(*outcome));
    clear(&outcome->err);
    outcome->status = abb_bitbucket_fetch(&site->bitbucket, &some_tokens, question, NOW,
                                          &outcome->visitor, site->p, &outcome->err);
    if (outcome->status == APR_SUCCESS && outcome->visitor.failure.status != APR_SUCCESS) {
        outcome->err = outcome->visitor.failure;
        outcome->status = outcome->err.status;
    }
    outcome->doubt = outcome->visitor.doubt;
}

static outcome_t ask_visitor(site_t *site, const char *const *workspaces, int count)
{
    abb_bitbucket_question_t question = {1, 1, NULL, workspaces, count, 0, NULL};
    outcome_t outcome;

    fetch(site, &question, &outcome);
    return outcome;
}

static outcome_t ask_grant(site_t *site, const char *workspace)
{
    abb_bitbucket_question_t question = {0, 0, SITE_USER, &workspace, 1, 0, NULL};
    outcome_t outcome;

    fetch(site, &question, &outcome);
    if (outcome.status == APR_SUCCESS) {
        outcome.grant = outcome.visitor.grants[0];
    }
    return outcome;
}

static outcome_t ask_tokens(site_t *site, question_t question)
{
    outcome_t outcome;

    memset(&outcome, 0, sizeof(outcome));
    clear(&outcome.err);
    outcome.status = question == CODE
                         ? abb_bitbucket_exchange_code(&site->bitbucket, "code-1", NOW,
                                                       &outcome.tokens, site->p, &outcome.err)
                         : abb_bitbucket_refresh(&site->bitbucket, SITE_USER, "refresh-0", NOW,
                                                 &outcome.tokens, site->p, &outcome.err);
    return outcome;
}

/* Ask one question of which this is the answer; all others get good ones. */
static outcome_t ask(site_t *site, question_t question, server_rule_t rule)
{
    static const char *const workspaces[] = {"acme"};

    server_forget_rules(site->server);
    if (question == MEMBERSHIP) {
        server_add_json(site->server, targets[PERMISSION], 410, "{}");
    }
    rule.wanted = targets[question];
    server_add(site->server, rule);
    site_add_ada(site);
    switch (question) {
    case CODE:
    case REFRESH:
        return ask_tokens(site, question);
    case USER:
    case EMAILS:
        return ask_visitor(site, workspaces, 1);
    default:
        return ask_grant(site, "acme");
    }
}

/* ---- the table of meanings ----------------------------------------------- */

#define SCOPES                                                                                 \
    "{\"type\":\"error\",\"error\":{\"message\":\"Your credentials lack one or more required " \
    "privilege scopes.\",\"detail\":{\"required\":[\"account\"],\"granted\":[\"team\"]}}}"
#define PLAIN "{\"type\":\"error\",\"error\":{\"message\":\"Said so\"}}"
/* As Bitbucket says it, and as it once did. */
#define NO_API                                                                      \
    "{\"type\":\"error\",\"error\":{\"message\":\"Resource not found\",\"detail\":" \
    "\"There is no API hosted at this URL.\\nFor information about our API's, please refer to\"}}"
#define NO_API_BEFORE \
    "{\"type\":\"error\",\"error\":{\"message\":\"There is no API hosted at this URL.\"}}"
#define GONE                                                                             \
    "{\"type\":\"error\",\"error\":{\"message\":\"CHANGE-2770 - Functionality has been " \
    "deprecated\",\"data\":{\"announcement_url\":\"https://example.com/change\"}}}"
#define OAUTH(code) "{\"error\":\"" code "\",\"error_description\":\"Said so\"}"

enum {
    ON_CODE = 1 << CODE,
    ON_REFRESH = 1 << REFRESH,
    ON_USER = 1 << USER,
    ON_EMAILS = 1 << EMAILS,
    ON_PERMISSION = 1 << PERMISSION,
    ON_MEMBERSHIP = 1 << MEMBERSHIP,
    ON_TOKEN = ON_CODE | ON_REFRESH,
    ON_GRANT = ON_PERMISSION | ON_MEMBERSHIP,
    ON_ACCOUNT = ON_USER | ON_EMAILS,
    ON_API = ON_ACCOUNT | ON_GRANT,
    ON_ALL = ON_TOKEN | ON_API
};

/* APR_SUCCESS with ABB_ROLE_NONE is written APR_NOTFOUND here. */
static const struct {
    int questions;
    int status;
    const char *body;
    apr_status_t meaning;
} meanings[] = {
    {ON_CODE, 400, OAUTH("unauthorized_client"), ABB_ECLIENT},
    {ON_CODE, 401, OAUTH("unauthorized_client"), ABB_ECLIENT},
    {ON_CODE, 400, OAUTH("invalid_client"), ABB_ECLIENT},
    {ON_CODE, 401, OAUTH("invalid_client"), ABB_ECLIENT},
    {ON_CODE, 400, OAUTH("invalid_request"), ABB_ECLIENT},
    {ON_CODE, 400, OAUTH("invalid_grant"), ABB_EGRANT},
    {ON_CODE, 400, OAUTH("invalid_scope"), ABB_ESCOPE},
    {ON_REFRESH, 400, OAUTH("unauthorized_client"), ABB_EGRANT},
    {ON_REFRESH, 401, OAUTH("unauthorized_client"), ABB_EGRANT},
    {ON_REFRESH, 400, OAUTH("invalid_grant"), ABB_EGRANT},
    {ON_REFRESH, 400, OAUTH("invalid_request"), ABB_EGRANT},
    {ON_REFRESH, 400, OAUTH("invalid_client"), ABB_ECLIENT},
    {ON_REFRESH, 401, OAUTH("invalid_client"), ABB_ECLIENT},
    /* Who sees no reason, or a new one, does not end anything. */
    {ON_TOKEN, 400, "", ABB_EUPSTREAM},
    {ON_TOKEN, 400, "{}", ABB_EUPSTREAM},
    {ON_TOKEN, 400, OAUTH("something_new"), ABB_EUPSTREAM},
    {ON_TOKEN, 400, "<html>Sorry</html>", ABB_EUPSTREAM},
    {ON_TOKEN, 403, OAUTH("invalid_grant"), ABB_EUPSTREAM},
    {ON_TOKEN, 404, OAUTH("invalid_grant"), ABB_EUPSTREAM},
    {ON_TOKEN, 500, OAUTH("invalid_grant"), ABB_EUPSTREAM},
    {ON_TOKEN, 503, OAUTH("unauthorized_client"), ABB_EUPSTREAM},
    {ON_TOKEN | ON_ACCOUNT | ON_MEMBERSHIP, 410, GONE, ABB_EGONE},
    {ON_TOKEN | ON_ACCOUNT | ON_MEMBERSHIP, 410, "", ABB_EGONE},
    {ON_ALL, 429, PLAIN, ABB_ELIMIT},
    {ON_ALL, 429, "Rate limit for this resource has been exceeded", ABB_ELIMIT},
    {ON_ALL, 500, PLAIN, ABB_EUPSTREAM},
    {ON_ALL, 502, "<html>", ABB_EUPSTREAM},
    {ON_ALL, 503, PLAIN, ABB_EUPSTREAM},
    {ON_ALL, 504, "", ABB_EUPSTREAM},
    {ON_ALL, 599, PLAIN, ABB_EUPSTREAM},
    {ON_ALL, 201, "{}", ABB_EUPSTREAM},
    {ON_ALL, 204, "", ABB_EUPSTREAM},
    {ON_ALL, 301, PLAIN, ABB_EUPSTREAM},
    {ON_ALL, 302, PLAIN, ABB_EUPSTREAM},
    {ON_ALL, 304, "", ABB_EUPSTREAM},
    {ON_ALL, 408, PLAIN, ABB_EUPSTREAM},
    {ON_API, 400, PLAIN, ABB_EUPSTREAM},
    {ON_API, 401, PLAIN, ABB_ETOKEN},
    {ON_API, 401, "", ABB_ETOKEN},
    {ON_API, 401, SCOPES, ABB_ETOKEN},
    {ON_USER | ON_GRANT, 403, SCOPES, ABB_ESCOPE},
    {ON_ACCOUNT, 403, PLAIN, ABB_EUPSTREAM},
    {ON_ACCOUNT, 404, PLAIN, ABB_EUPSTREAM},
    {ON_GRANT, 403, PLAIN, APR_NOTFOUND},
    {ON_GRANT, 403, "", APR_NOTFOUND},
    {ON_GRANT, 404, PLAIN, APR_NOTFOUND},
    {ON_GRANT, 404, "", APR_NOTFOUND},
    {ON_ACCOUNT | ON_MEMBERSHIP, 404, NO_API, ABB_EGONE},
    {ON_TOKEN, 404, NO_API, ABB_EUPSTREAM},
};

static int is_meant(const outcome_t *outcome, question_t question, apr_status_t meaning)
{
    if (meaning == APR_NOTFOUND) {
        return outcome->status == APR_SUCCESS && outcome->grant.role == ABB_ROLE_NONE &&
               outcome->grant.slug == NULL && outcome->grant.uuid == NULL;
    }
    return outcome->status == meaning && outcome->err.status == meaning &&
           outcome->err.text[0] != '\0';
}

static void check_meaning(site_t *site, apr_size_t i, question_t question)
{
    outcome_t outcome =
        ask(site, question, server_json(NULL, meanings[i].status, meanings[i].body, site->p));

    if (!is_meant(&outcome, question, meanings[i].meaning)) {
        fail_msg("%s: %d %s means %s (%s), not %s", targets[question], meanings[i].status,
                 meanings[i].body, abb_error_word(outcome.status), outcome.err.text,
                 abb_error_word(meanings[i].meaning));
    }
}

static void each_answer_has_its_meaning(void **state)
{
    for (apr_size_t i = 0; i < UNIT_COUNT(meanings); ++i) {
        for (int question = CODE; question <= MEMBERSHIP; ++question) {
            if (meanings[i].questions & 1 << question) {
                check_meaning(*state, i, (question_t)question);
            }
        }
    }
}

/* An operator finds out what is gone, and where it is told. */
static void a_withdrawn_endpoint_is_named(void **state)
{
    outcome_t outcome =
        ask(*state, MEMBERSHIP, server_json(NULL, 410, GONE, ((site_t *)*state)->p));

    assert_non_null(strstr(outcome.err.text, "members"));
    assert_non_null(strstr(outcome.err.text, "CHANGE-2770"));
    assert_non_null(strstr(outcome.err.text, "https://example.com/change"));
}

static void a_good_answer_is_json(void **state)
{
    static const struct {
        const char *header;
        int is_json;
    } types[] = {
        {"Content-Type: application/json\r\n", 1},
        {"Content-Type: application/json; charset=utf-8\r\n", 1},
        {"content-type: Application/JSON;charset=UTF-8\r\n", 1},
        {"", 0},
        {"Content-Type: \r\n", 0},
        {"Content-Type: text/html\r\n", 0},
        {"Content-Type: text/plain; application/json\r\n", 0},
        {"Content-Type: application/jsonp\r\n", 0},
        {"Content-Type: application/json-seq\r\n", 0},
        {"Content-Type: application/javascript\r\n", 0},
        {"X-Content-Type: application/json\r\n", 0},
    };
    site_t *site = *state;
    const char *bodies[MEMBERSHIP + 1];

    bodies[CODE] = bodies[REFRESH] = site_tokens_body("a", "r", 60, site->p);
    bodies[USER] = SITE_USER_BODY;
    bodies[EMAILS] = SITE_EMAILS_BODY;
    bodies[PERMISSION] = bodies[MEMBERSHIP] = site_membership_body("acme", "member", site->p);
    for (apr_size_t i = 0; i < UNIT_COUNT(types); ++i) {
        for (int question = CODE; question <= MEMBERSHIP; ++question) {
            outcome_t outcome =
                ask(site, (question_t)question,
                    server_answer(NULL, 200, types[i].header, bodies[question], site->p));

            if (outcome.status != (types[i].is_json ? APR_SUCCESS : ABB_EUPSTREAM)) {
                fail_msg("%s as %s: %s", targets[question], types[i].header, outcome.err.text);
            }
        }
    }
}

static void an_unusable_body_is_no_answer(void **state)
{
    static const char *const bodies[] = {"", "null", "[]", "{", "x", "<html>", "{\"a\":1,\"a\":2}"};

    for (apr_size_t i = 0; i < UNIT_COUNT(bodies); ++i) {
        for (int question = CODE; question <= MEMBERSHIP; ++question) {
            outcome_t outcome = ask(*state, (question_t)question,
                                    server_json(NULL, 200, bodies[i], ((site_t *)*state)->p));

            assert_int_equal(outcome.status, ABB_EUPSTREAM);
        }
    }
}

static void a_cut_connection_is_no_answer(void **state)
{
    for (int question = CODE; question <= MEMBERSHIP; ++question) {
        outcome_t outcome = ask(*state, (question_t)question, server_ending(NULL, SERVER_CLOSE));

        assert_int_equal(outcome.status, ABB_EUPSTREAM);
        assert_int_equal(outcome.err.status, ABB_EUPSTREAM);
    }
}

static void the_error_may_be_left_out(void **state)
{
    site_t *site = *state;
    abb_tokens_t tokens;
    static const char *const workspaces[] = {"acme"};
    abb_bitbucket_question_t stranger = {.user = 1};
    abb_bitbucket_question_t known = {
        .uuid = SITE_USER, .workspaces = workspaces, .workspace_count = 1};
    abb_bitbucket_visitor_t visitor;

    server_add_json(site->server, "*", 429, PLAIN);
    assert_int_equal(
        abb_bitbucket_exchange_code(&site->bitbucket, "c", NOW, &tokens, site->p, NULL),
        ABB_ELIMIT);
    assert_int_equal(
        abb_bitbucket_refresh(&site->bitbucket, SITE_USER, "r", NOW, &tokens, site->p, NULL),
        ABB_ELIMIT);
    assert_int_equal(abb_bitbucket_fetch(&site->bitbucket, &some_tokens, &stranger, NOW, &visitor,
                                         site->p, NULL),
                     ABB_ELIMIT);
    assert_int_equal(
        abb_bitbucket_fetch(&site->bitbucket, &some_tokens, &known, NOW, &visitor, site->p, NULL),
        APR_SUCCESS);
    assert_int_equal(visitor.failure.status, ABB_ELIMIT);
}

/* What Bitbucket did not tell is a minute and a little, so that not all come back at once. */
#define NOT_TOLD 0

static int is_pause(apr_interval_time_t pause, int seconds)
{
    return seconds == NOT_TOLD ? pause >= apr_time_from_sec(60) && pause < apr_time_from_sec(70)
                               : pause == apr_time_from_sec(seconds);
}

static void retry_after_is_clamped(void **state)
{
    static const struct {
        const char *header;
        int seconds;
    } cases[] = {
        {"", NOT_TOLD},
        {"Retry-After: \r\n", NOT_TOLD},
        {"Retry-After: 0\r\n", 1},
        {"Retry-After: 1\r\n", 1},
        {"Retry-After: 17\r\n", 17},
        {"Retry-After: 900\r\n", 900},
        {"Retry-After: 901\r\n", 900},
        {"Retry-After: 99999999999999999999999\r\n", 900},
        {"Retry-After: -5\r\n", NOT_TOLD},
        {"Retry-After: +5\r\n", NOT_TOLD},
        {"Retry-After: soon\r\n", NOT_TOLD},
        {"Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n", NOT_TOLD},
    };
    site_t *site = *state;

    for (apr_size_t i = 0; i < UNIT_COUNT(cases); ++i) {
        for (int question = CODE; question <= MEMBERSHIP; ++question) {
            outcome_t outcome =
                ask(site, (question_t)question,
                    server_answer(NULL, 429, cases[i].header, "slow down", site->p));

            assert_int_equal(outcome.status, ABB_ELIMIT);
            if (!is_pause(outcome.err.retry_after, cases[i].seconds)) {
                fail_msg("%s: %ld s", cases[i].header, (long)apr_time_sec(outcome.err.retry_after));
            }
        }
    }
}

static void junk_in_retry_after_counts_as_none(void **state)
{
    static const char *const junk[] = {"12abc", "1, 2", "5 5", "2026-10-21", "1.5"};
    site_t *site = *state;

    for (apr_size_t i = 0; i < UNIT_COUNT(junk); ++i) {
        outcome_t outcome =
            ask(site, USER,
                server_answer(NULL, 429, apr_psprintf(site->p, "Retry-After: %s\r\n", junk[i]), "",
                              site->p));

        if (!is_pause(outcome.err.retry_after, NOT_TOLD)) {
            fail_msg("%s: %ld s", junk[i], (long)apr_time_sec(outcome.err.retry_after));
        }
    }
}

/* ---- the authorization URL ----------------------------------------------- */

static void the_browser_is_sent_with_all_parameters(void **state)
{
    site_t *site = *state;

    site->bitbucket.client_id = "k&y=1";
    abb_bitbucket_settle(&site->bitbucket, site->p);
    assert_string_equal(abb_bitbucket_authorize_url(&site->bitbucket, "st-_8", site->p),
                        "https://bitbucket.org/site/oauth2/authorize?response_type=code"
                        "&client_id=k%26y%3D1&redirect_uri=https%3A%2F%2Fwiki.example.com"
                        "%2Fbitbucket%2Fcallback&state=st-_8");
    site->bitbucket.scope = "account email";
    site->bitbucket.authorize_url = "https://bitbucket.org/site?a=b";
    abb_bitbucket_settle(&site->bitbucket, site->p);
    assert_string_equal(abb_bitbucket_authorize_url(&site->bitbucket, "s", site->p),
                        "https://bitbucket.org/site?a=b&response_type=code"
                        "&client_id=k%26y%3D1&redirect_uri=https%3A%2F%2Fwiki.example.com"
                        "%2Fbitbucket%2Fcallback&state=s&scope=account%20email");
}

/* ---- tokens -------------------------------------------------------------- */

static void a_code_is_exchanged(void **state)
{
    site_t *site = *state;
    const server_request_t *request;
    abb_tokens_t tokens;

    site_add_ada(site);
    assert_int_equal(
        abb_bitbucket_exchange_code(&site->bitbucket, "c&d=e f+", NOW, &tokens, site->p, NULL),
        APR_SUCCESS);
    assert_string_equal(tokens.access_token, "access-1");
    assert_string_equal(tokens.refresh_token, "refresh-1");
    assert_string_equal(tokens.scope, "account email");
    assert_true(tokens.expires_at == NOW + apr_time_from_sec(7200));
    assert_int_equal(server_count(site->server, ""), 1);
    request = server_request(site->server, SITE_POST_TOKEN, 0);
    assert_string_equal(request->body,
                        "grant_type=authorization_code&code=c%26d%3De%20f%2B&redirect_uri="
                        "https%3A%2F%2Fwiki.example.com%2Fbitbucket%2Fcallback");
    /* key:secret */
    assert_string_equal(server_header(request, "Authorization", site->p), "Basic a2V5OnNlY3JldA==");
}

static void a_refresh_token_is_exchanged(void **state)
{
    site_t *site = *state;
    outcome_t outcome;

    site_add_ada(site);
    outcome = ask_tokens(site, REFRESH);
    assert_int_equal(outcome.status, APR_SUCCESS);
    assert_string_equal(outcome.tokens.access_token, "access-1");
    assert_string_equal(outcome.tokens.refresh_token, "refresh-1");
    assert_string_equal(server_request(site->server, SITE_POST_TOKEN, 0)->body,
                        "grant_type=refresh_token&refresh_token=refresh-0");
}

static void without_a_new_refresh_token_the_old_one_stays(void **state)
{
    site_t *site = *state;
    outcome_t outcome;

    server_add_json(site->server, SITE_POST_TOKEN, 200, "{\"access_token\":\"a\"}");
    outcome = ask_tokens(site, REFRESH);
    assert_int_equal(outcome.status, APR_SUCCESS);
    assert_string_equal(outcome.tokens.refresh_token, "refresh-0");
    outcome = ask_tokens(site, CODE);
    assert_int_equal(outcome.status, APR_SUCCESS);
    assert_null(outcome.tokens.refresh_token);
}

static void a_code_is_sent_once_whatever_happens(void **state)
{
    site_t *site = *state;
    server_rule_t rules[4];

    rules[0] = server_ending(SITE_POST_TOKEN, SERVER_CLOSE);
    rules[1] = server_json(SITE_POST_TOKEN, 503, "", site->p);
    rules[2] = server_json(SITE_POST_TOKEN, 429, "", site->p);
    rules[3] = server_json(SITE_POST_TOKEN, 401, PLAIN, site->p);
    for (int i = 0; i < 4; ++i) {
        server_forget_rules(site->server);
        server_add(site->server, rules[i]);
        assert_int_not_equal(ask_tokens(site, CODE).status, APR_SUCCESS);
        assert_int_not_equal(ask_tokens(site, REFRESH).status, APR_SUCCESS);
        assert_int_equal(server_count(site->server, ""), 2 * (i + 1));
    }
}

static void an_answer_with_tokens_has_a_largest_size(void **state)
{
    site_t *site = *state;
    const char *tail = unit_repeat(' ', 64 * 1024 - 100, site->p);
    outcome_t outcome;

    server_add_json(site->server, SITE_POST_TOKEN, 200,
                    apr_pstrcat(site->p, "{\"access_token\":\"a\"}", tail, NULL));
    assert_int_equal(ask_tokens(site, CODE).status, APR_SUCCESS);
    server_forget_rules(site->server);
    server_add_json(site->server, SITE_POST_TOKEN, 200,
                    apr_pstrcat(site->p, "{\"access_token\":\"a\"}", tail, tail, NULL));
    outcome = ask_tokens(site, CODE);
    assert_int_equal(outcome.status, ABB_EUPSTREAM);
    assert_non_null(strstr(outcome.err.text, "too long"));
}

/* What goes into logs. */
static void no_reason_tells_a_secret(void **state)
{
    static const int codes[] = {200, 400, 401, 403, 404, 410, 429, 500};
    site_t *site = *state;

    for (apr_size_t i = 0; i < UNIT_COUNT(codes); ++i) {
        for (int question = CODE; question <= MEMBERSHIP; ++question) {
            outcome_t outcome =
                ask(site, (question_t)question, server_json(NULL, codes[i], "[]", site->p));
            const char *text = outcome.err.text;

            assert_null(strstr(text, "secret"));
            assert_null(strstr(text, "access-1"));
            assert_null(strstr(text, "refresh-0"));
            assert_null(strstr(text, "code-1"));
            assert_null(strstr(text, "a2V5"));
        }
    }
}

/* ---- a visitor ----------------------------------------------------------- */

static void a_visitor_is_asked_about_at_the_same_time(void **state)
{
    static const char *const workspaces[] = {"acme", "beta", SITE_WORKSPACE};
    site_t *site = *state;
    const char *by_uuid = site_permission("%7B" SITE_WORKSPACE "%7D", site->p);
    outcome_t outcome;

    site_add_ada(site);
    server_add_json(site->server, site_permission("beta", site->p), 404, PLAIN);
    server_add_json(site->server, by_uuid, 200, site_membership_body("Gamma", "member", site->p));
    outcome = ask_visitor(site, workspaces, 3);
    assert_int_equal(outcome.status, APR_SUCCESS);
    assert_null(outcome.doubt);
    assert_string_equal(outcome.visitor.account.uuid, SITE_USER);
    assert_string_equal(outcome.visitor.account.username, "ada");
    assert_string_equal(outcome.visitor.account.email, "ada@example.com");
    assert_string_equal(outcome.visitor.raw_user, SITE_USER_BODY);
    assert_int_equal(outcome.visitor.grant_count, 3);
    assert_string_equal(outcome.visitor.grants[0].asked, "acme");
    assert_string_equal(outcome.visitor.grants[0].slug, "acme");
    assert_int_equal(outcome.visitor.grants[0].role, ABB_ROLE_OWNER);
    assert_string_equal(outcome.visitor.grants[1].asked, "beta");
    assert_null(outcome.visitor.grants[1].slug);
    assert_int_equal(outcome.visitor.grants[1].role, ABB_ROLE_NONE);
    assert_string_equal(outcome.visitor.grants[2].asked, SITE_WORKSPACE);
    assert_string_equal(outcome.visitor.grants[2].slug, "gamma");
    assert_int_equal(outcome.visitor.grants[2].role, ABB_ROLE_MEMBER);
    for (int i = 0; i < 3; ++i) {
        assert_true(outcome.visitor.grants[i].checked_at == NOW);
    }
    assert_int_equal(server_count(site->server, ""), 5);
    for (int i = 0; i < 5; ++i) {
        assert_string_equal(
            server_header(server_request(site->server, "", i), "Authorization", site->p),
            "Bearer access-1");
    }
}

static void more_than_eight_workspaces_are_not_asked(void **state)
{
    const char *workspaces[12];
    site_t *site = *state;
    outcome_t outcome;

    site_add_ada(site);
    for (int i = 0; i < 12; ++i) {
        workspaces[i] = apr_psprintf(site->p, "w%d", i);
        site_add_membership(site, workspaces[i], "member");
    }
    outcome = ask_visitor(site, workspaces, 12);
    assert_int_equal(outcome.status, APR_SUCCESS);
    assert_int_equal(outcome.visitor.grant_count, ABB_BITBUCKET_WORKSPACES_MAX);
    assert_int_equal(server_count(site->server, "GET /2.0/user/workspaces/"),
                     ABB_BITBUCKET_WORKSPACES_MAX);
}

static void bots_and_closed_accounts_are_refused(void **state)
{
    static const char *const bodies[] = {
        "{\"type\":\"app_user\",\"uuid\":\"{" SITE_USER "}\"}",
        "{\"type\":\"user\",\"uuid\":\"{" SITE_USER "}\",\"account_status\":\"inactive\"}",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(bodies); ++i) {
        outcome_t outcome =
            ask(*state, USER, server_json(NULL, 200, bodies[i], ((site_t *)*state)->p));

        assert_int_equal(outcome.status, ABB_EACCOUNT);
        assert_int_equal(outcome.err.status, ABB_EACCOUNT);
    }
}

/* E-mail and API token as they came; a bot where bots are taken. */
static void other_credentials_are_sent_as_they_are(void **state)
{
    static const abb_tokens_t api_token = {.access_token = "bWFya0B4Onk=", .is_basic = 1};
    static const abb_bitbucket_question_t question = {.user = 1, .takes_bots = 1};
    site_t *site = *state;
    abb_bitbucket_visitor_t visitor;

    server_add_json(site->server, SITE_GET_USER, 200,
                    "{\"type\":\"app_user\",\"uuid\":\"{" SITE_USER "}\"}");
    assert_int_equal(
        abb_bitbucket_fetch(&site->bitbucket, &api_token, &question, NOW, &visitor, site->p, NULL),
        APR_SUCCESS);
    assert_string_equal(visitor.account.app_kind, "app_user");
    assert_string_equal(
        server_header(server_request(site->server, SITE_GET_USER, 0), "Authorization", site->p),
        "Basic bWFya0B4Onk=");
}

/* Somebody else's membership is never taken for the visitor's. */
static void a_row_of_another_user_is_no_answer(void **state)
{
    site_t *site = *state;
    outcome_t outcome =
        ask(site, USER,
            server_json(NULL, 200,
                        "{\"type\":\"user\",\"uuid\":\"{11111111-2222-3333-4444-555555555555}\"}",
                        site->p));

    assert_int_equal(outcome.status, ABB_EUPSTREAM);
}

static void without_the_scope_there_is_no_address(void **state)
{
    outcome_t outcome = ask(*state, EMAILS, server_json(NULL, 403, SCOPES, ((site_t *)*state)->p));

    assert_int_equal(outcome.status, APR_SUCCESS);
    assert_int_equal(outcome.err.status, APR_SUCCESS);
    assert_null(outcome.visitor.account.email);
    assert_non_null(outcome.doubt);
    assert_non_null(strstr(outcome.doubt, "scope"));
}

static void a_missing_scope_is_named(void **state)
{
    static const question_t questions[] = {USER, PERMISSION, MEMBERSHIP};

    for (apr_size_t i = 0; i < UNIT_COUNT(questions); ++i) {
        outcome_t outcome =
            ask(*state, questions[i], server_json(NULL, 403, SCOPES, ((site_t *)*state)->p));

        assert_int_equal(outcome.status, ABB_ESCOPE);
        assert_non_null(strstr(outcome.err.text, "'account'"));
        assert_non_null(strstr(outcome.err.text, "team"));
    }
}

static void an_unknown_role_is_doubted(void **state)
{
    site_t *site = *state;
    server_rule_t rule =
        server_json(NULL, 200, site_membership_body("acme", "emperor", site->p), site->p);
    outcome_t outcome = ask(site, PERMISSION, rule);

    assert_int_equal(outcome.status, APR_SUCCESS);
    assert_int_equal(outcome.grant.role, ABB_ROLE_NONE);
    assert_non_null(strstr(outcome.doubt, "emperor"));
    outcome = ask_visitor(site, (const char *const[]){"acme"}, 1);
    assert_int_equal(outcome.status, APR_SUCCESS);
    assert_non_null(strstr(outcome.doubt, "emperor"));
}

/* ---- the second way to a role -------------------------------------------- */

static void check_second_way(site_t *site, int status, const char *body)
{
    outcome_t outcome;

    server_forget_rules(site->server);
    server_add_json(site->server, targets[PERMISSION], status, body);
    server_add_json(site->server, MEMBER, 200, site_membership_body("acme", "owner", site->p));
    outcome = ask_grant(site, "acme");
    assert_int_equal(outcome.status, APR_SUCCESS);
    assert_int_equal(outcome.err.status, APR_SUCCESS);
    assert_int_equal(outcome.grant.role, ABB_ROLE_MEMBER);
    assert_string_equal(outcome.grant.asked, "acme");
    assert_string_equal(outcome.grant.slug, "acme");
    assert_string_equal(outcome.grant.uuid, SITE_WORKSPACE);
    assert_non_null(strstr(outcome.visitor.change, "withdrawn"));
    assert_string_equal(
        server_header(server_request(site->server, MEMBER, 0), "Authorization", site->p),
        "Bearer access-1");
}

static void withdrawn_roles_fall_back_to_plain_membership(void **state)
{
    check_second_way(*state, 410, GONE);
    check_second_way(*state, 410, "");
    check_second_way(*state, 404, NO_API);
    check_second_way(*state, 404, NO_API_BEFORE);
}

static void withdrawn_roles_fall_back_at_a_sign_in(void **state)
{
    site_t *site = *state;
    outcome_t outcome;

    server_add_json(site->server, targets[PERMISSION], 410, GONE);
    server_add_json(site->server, MEMBER, 200, site_membership_body("acme", "owner", site->p));
    site_add_ada(site);
    outcome = ask_visitor(site, (const char *const[]){"acme"}, 1);
    assert_int_equal(outcome.status, APR_SUCCESS);
    assert_int_equal(outcome.visitor.grants[0].role, ABB_ROLE_MEMBER);
    assert_non_null(strstr(outcome.visitor.change, "withdrawn"));
}

static void only_withdrawn_roles_fall_back(void **state)
{
    static const int codes[] = {401, 403, 404, 429, 500, 503};
    site_t *site = *state;

    for (apr_size_t i = 0; i < UNIT_COUNT(codes); ++i) {
        server_forget_rules(site->server);
        server_add_json(site->server, targets[PERMISSION], codes[i], PLAIN);
        ask_grant(site, "acme");
        assert_int_equal(server_count(site->server, MEMBER), 0);
    }
}

/* ---- pages of addresses -------------------------------------------------- */

static const char *emails_page(const char *address, const char *flags, const char *next,
                               apr_pool_t *p)
{
    return apr_psprintf(p, "{\"values\":[{\"email\":\"%s\",%s}],\"next\":\"%s\"}", address, flags,
                        next);
}

#define CONFIRMED "\"is_primary\":false,\"is_confirmed\":true"
#define PRIMARY "\"is_primary\":true,\"is_confirmed\":true"
#define UNCONFIRMED "\"is_primary\":true,\"is_confirmed\":false"

static void add_page(site_t *site, const char *path, const char *address, const char *flags,
                     const char *next)
{
    server_add_json(
        site->server, apr_pstrcat(site->p, "GET ", path, NULL), 200,
        emails_page(address, flags, next ? server_url(site->server, next, site->p) : "", site->p));
}

static void the_primary_address_is_found_on_a_later_page(void **state)
{
    site_t *site = *state;
    outcome_t outcome;

    add_page(site, "/2.0/user/emails?pagelen=100", "a@example.com", CONFIRMED,
             "/2.0/user/emails?p=2");
    add_page(site, "/2.0/user/emails?p=2", "b@example.com", UNCONFIRMED, "/2.0/user/emails?p=3");
    add_page(site, "/2.0/user/emails?p=3", "c@example.com", PRIMARY, "/2.0/user/emails?p=4");
    add_page(site, "/2.0/user/emails?p=4", "d@example.com", CONFIRMED, NULL);
    site_add_ada(site);
    outcome = ask_visitor(site, NULL, 0);
    assert_int_equal(outcome.status, APR_SUCCESS);
    assert_string_equal(outcome.visitor.account.email, "c@example.com");
    /* Rules may name any of them, so all are read. */
    assert_int_equal(server_count(site->server, "GET /2.0/user/emails"), 4);
    assert_string_equal(outcome.visitor.account.emails,
                        "a@example.com c@example.com d@example.com");
    assert_string_equal(server_header(server_request(site->server, "GET /2.0/user/emails?p=3", 0),
                                      "Authorization", site->p),
                        "Bearer access-1");
}

static void the_first_confirmed_address_counts_without_a_primary(void **state)
{
    site_t *site = *state;
    outcome_t outcome;

    add_page(site, "/2.0/user/emails?pagelen=100", "a@example.com", UNCONFIRMED,
             "/2.0/user/emails?p=2");
    add_page(site, "/2.0/user/emails?p=2", "b@example.com", CONFIRMED, "/2.0/user/emails?p=3");
    add_page(site, "/2.0/user/emails?p=3", "c@example.com", CONFIRMED, NULL);
    site_add_ada(site);
    outcome = ask_visitor(site, NULL, 0);
    assert_int_equal(outcome.status, APR_SUCCESS);
    assert_string_equal(outcome.visitor.account.email, "b@example.com");
}

static void no_confirmed_address_is_none(void **state)
{
    site_t *site = *state;
    outcome_t outcome =
        ask(site, EMAILS,
            server_json(NULL, 200, emails_page("a@b.c", UNCONFIRMED, "", site->p), site->p));

    assert_int_equal(outcome.status, APR_SUCCESS);
    assert_null(outcome.visitor.account.email);
}

static outcome_t ask_with_next(site_t *site, const char *next)
{
    return ask(
        site, EMAILS,
        server_json(NULL, 200, emails_page("a@example.com", CONFIRMED, next, site->p), site->p));
}

/* The next page gets the token, so it lies where the API lies, or nowhere. */
static void foreign_next_pages_are_refused(void **state)
{
    site_t *site = *state;
    server_t *evil = server_start(site->p);
    const char *api = site->bitbucket.api_url;
    const char *const urls[] = {
        server_url(evil, "/2.0/user/emails?p=2", site->p),
        "https://evil.example.com/2.0/user/emails",
        server_url(site->server, "/user/emails?p=2", site->p),
        server_url(site->server, "/1.0/user/emails?p=2", site->p),
        server_url(site->server, "/2.0evil/user/emails?p=2", site->p),
        server_url(site->server, "/2.0", site->p),
        apr_pstrcat(site->p, api, "@evil.example.com/2.0/x", NULL),
        apr_pstrcat(site->p, api, ".evil.example.com/", NULL),
        apr_pstrcat(site->p, api, "/../1.0/x", NULL),
        apr_pstrcat(site->p, api, "/a/../../1.0/x", NULL),
        apr_pstrcat(site->p, api, "/x y", NULL),
        apr_pstrcat(site->p, api, "/x#y", NULL),
        apr_psprintf(site->p, "http://127.0.0.1:%d@evil.example.com/2.0/x", site->server->port),
        apr_psprintf(site->p, "http://localhost:%d/2.0/user/emails?p=2", site->server->port),
        apr_psprintf(site->p, "HTTPS://127.0.0.1:%d/2.0/user/emails?p=2", site->server->port),
        "/2.0/user/emails?p=2",
        "user/emails?p=2",
        "?p=2",
        "file:///etc/passwd",
        "javascript:alert(1)",
    };

    server_add_json(evil, "*", 200, SITE_EMAILS_BODY);
    for (apr_size_t i = 0; i < UNIT_COUNT(urls); ++i) {
        int before = server_count(site->server, "");
        outcome_t outcome = ask_with_next(site, urls[i]);

        if (outcome.status != ABB_EUPSTREAM || !strstr(outcome.err.text, "outside")) {
            fail_msg("%s: %s", urls[i], outcome.err.text);
        }
        assert_int_equal(server_count(site->server, "") - before, 3);
    }
    assert_int_equal(evil->connection_count, 0);
}

/* Some readers of a path decode it before they resolve it. */
static void encoded_dot_segments_in_next_pages_are_refused(void **state)
{
    static const char *const tails[] = {"/%2e%2e/1.0/x", "/.%2e/1.0/x", "/%2E./1.0/x",
                                        "/a/%2e%2e%2f%2e%2e/1.0/x"};
    site_t *site = *state;

    for (apr_size_t i = 0; i < UNIT_COUNT(tails); ++i) {
        outcome_t outcome =
            ask_with_next(site, apr_pstrcat(site->p, site->bitbucket.api_url, tails[i], NULL));

        if (outcome.status != ABB_EUPSTREAM || !strstr(outcome.err.text, "outside")) {
            fail_msg("%s: %s", tails[i], outcome.err.text);
        }
    }
}

/* So many confirmed addresses of 100 bytes, beginning with the number of the page. */
static const char *long_page(int page, int count, const char *next, apr_pool_t *p)
{
    const char *values = "";

    for (int i = 0; i < count; ++i) {
        values = apr_psprintf(p, "%s%s{\"email\":\"%d%s@example.com\"," CONFIRMED "}", values,
                              i ? "," : "", page, unit_repeat('n', 87, p));
    }
    return apr_psprintf(p, "{\"values\":[%s],\"next\":\"%s\"}", values, next);
}

/* However many an account has, on the first page or on later ones. */
static void the_list_of_addresses_has_a_largest_size(void **state)
{
    site_t *site = *state;
    outcome_t outcome;

    server_add_json(
        site->server, "GET /2.0/user/emails?pagelen=100", 200,
        long_page(1, 20, server_url(site->server, "/2.0/user/emails?p=2", site->p), site->p));
    server_add_json(
        site->server, "GET /2.0/user/emails?p=2", 200,
        long_page(2, 60, server_url(site->server, "/2.0/user/emails?p=3", site->p), site->p));
    server_add_json(site->server, "GET /2.0/user/emails?p=3", 200, long_page(3, 20, "", site->p));
    site_add_ada(site);
    outcome = ask_visitor(site, NULL, 0);
    assert_int_equal(outcome.status, APR_SUCCESS);
    assert_in_range(strlen(outcome.visitor.account.emails), 2000, 4096);
    outcome = ask(site, EMAILS, server_json(NULL, 200, long_page(1, 60, "", site->p), site->p));
    assert_int_equal(outcome.status, APR_SUCCESS);
    assert_in_range(strlen(outcome.visitor.account.emails), 3900, 4096);
}

static void repeated_pages_are_refused(void **state)
{
    site_t *site = *state;
    outcome_t outcome;

    add_page(site, "/2.0/user/emails?pagelen=100", "a@example.com", CONFIRMED,
             "/2.0/user/emails?p=2");
    add_page(site, "/2.0/user/emails?p=2", "b@example.com", CONFIRMED, "/2.0/user/emails?p=2");
    site_add_ada(site);
    outcome = ask_visitor(site, NULL, 0);
    assert_int_equal(outcome.status, ABB_EUPSTREAM);
    assert_int_equal(server_count(site->server, "GET /2.0/user/emails?p=2"), 1);
}

static void the_first_page_is_not_asked_for_again(void **state)
{
    site_t *site = *state;
    outcome_t outcome;

    add_page(site, "/2.0/user/emails?pagelen=100", "a@example.com", CONFIRMED,
             "/2.0/user/emails?pagelen=100");
    site_add_ada(site);
    outcome = ask_visitor(site, NULL, 0);
    assert_int_equal(outcome.status, ABB_EUPSTREAM);
    assert_int_equal(server_count(site->server, "GET /2.0/user/emails"), 1);
}

static void endless_pages_are_refused(void **state)
{
    site_t *site = *state;
    outcome_t outcome;
    int pages;

    for (int i = 0; i < 20; ++i) {
        add_page(site,
                 i ? apr_psprintf(site->p, "/2.0/user/emails?p=%d", i)
                   : "/2.0/user/emails?pagelen=100",
                 "a@example.com", CONFIRMED, apr_psprintf(site->p, "/2.0/user/emails?p=%d", i + 1));
    }
    site_add_ada(site);
    outcome = ask_visitor(site, NULL, 0);
    assert_int_equal(outcome.status, ABB_EUPSTREAM);
    pages = server_count(site->server, "GET /2.0/user/emails");
    assert_true(pages >= 5 && pages <= 11);
}

static void a_later_page_that_fails_makes_the_answer_unusable(void **state)
{
    site_t *site = *state;
    outcome_t outcome;

    add_page(site, "/2.0/user/emails?pagelen=100", "a@example.com", CONFIRMED,
             "/2.0/user/emails?p=2");
    server_add_json(site->server, "GET /2.0/user/emails?p=2", 503, PLAIN);
    site_add_ada(site);
    outcome = ask_visitor(site, NULL, 0);
    assert_int_equal(outcome.status, ABB_EUPSTREAM);
}

/* ---- repositories -------------------------------------------------------- */

#define REPOSITORIES "GET /2.0/user/workspaces/acme/permissions/repositories?q="
#define BY_NAME REPOSITORIES "repository.full_name%3D%22acme%2Fsite%22"
#define BY_UUID REPOSITORIES "repository.uuid%3D%22%7B" SITE_WORKSPACE "%7D%22"

static const char *repository_body(const char *full_name, const char *permission, apr_pool_t *p)
{
    return apr_psprintf(p,
                        "{\"values\":[{\"permission\":\"%s\",\"user\":{\"uuid\":\"{" SITE_USER
                        "}\"},\"repository\":{\"full_name\":\"%s\",\"uuid\":\"{" SITE_WORKSPACE
                        "}\"}}]}",
                        permission, full_name);
}

static void explicit_permissions_are_asked(void **state)
{
    static const struct {
        const char *asked, *target, *full_name, *permission;
        abb_role_t role;
    } cases[] = {
        {"acme/site", BY_NAME, "acme/site", "read", ABB_ROLE_READ},
        {"acme/site", BY_NAME, "Acme/Site", "write", ABB_ROLE_WRITE},
        {"acme/" SITE_WORKSPACE, BY_UUID, "acme/renamed", "admin", ABB_ROLE_ADMIN},
        {"acme/site", BY_NAME, "acme/site", "none", ABB_ROLE_NONE},
        {"acme/site", BY_NAME, "acme/site", "emperor", ABB_ROLE_NONE},
    };
    site_t *site = *state;

    for (apr_size_t i = 0; i < UNIT_COUNT(cases); ++i) {
        outcome_t outcome;

        server_forget_rules(site->server);
        server_add_json(site->server, cases[i].target, 200,
                        repository_body(cases[i].full_name, cases[i].permission, site->p));
        outcome = ask_grant(site, cases[i].asked);
        assert_int_equal(outcome.status, APR_SUCCESS);
        assert_int_equal(outcome.grant.role, cases[i].role);
        assert_int_equal(outcome.doubt != NULL, strcmp(cases[i].permission, "emperor") == 0);
    }
}

static void answers_about_repositories_are_read_strictly(void **state)
{
    static const struct {
        int status;
        const char *body;
        apr_status_t expected;
    } cases[] = {
        {200, "{\"values\":[]}", APR_SUCCESS},
        {403, PLAIN, APR_SUCCESS},
        {404, PLAIN, APR_SUCCESS},
        {200, "{}", ABB_EUPSTREAM},
        {200, "[]", ABB_EUPSTREAM},
        {200, "{\"values\":{}}", ABB_EUPSTREAM},
        {200, "{\"values\":[7]}", ABB_EUPSTREAM},
        {200, "{\"values\":[{\"permission\":\"admin\"}]}", ABB_EUPSTREAM},
        {200,
         "{\"values\":[{\"permission\":\"admin\",\"repository\":{\"full_name\":\"acme/other\","
         "\"uuid\":\"{" SITE_USER "}\"}}]}",
         ABB_EUPSTREAM},
        {200,
         "{\"values\":[{\"permission\":\"admin\",\"user\":{\"uuid\":\"{" SITE_WORKSPACE
         "}\"},\"repository\":{\"full_name\":\"acme/site\",\"uuid\":\"{" SITE_USER "}\"}}]}",
         ABB_EUPSTREAM},
        {200,
         "{\"values\":[{\"permission\":[\"admin\"],\"repository\":{\"full_name\":\"acme/site\","
         "\"uuid\":\"{" SITE_USER "}\"}}]}",
         ABB_EUPSTREAM},
        {200, "{\"values\":[{},{}]}", ABB_EUPSTREAM},
        {410, PLAIN, ABB_EGONE},
        {403, "{\"error\":{\"message\":\"m\",\"detail\":{\"required\":[\"repository\"]}}}",
         ABB_ESCOPE},
        {429, "", ABB_ELIMIT},
        {500, "", ABB_EUPSTREAM},
    };
    site_t *site = *state;

    for (apr_size_t i = 0; i < UNIT_COUNT(cases); ++i) {
        outcome_t outcome;

        server_forget_rules(site->server);
        server_add_json(site->server, BY_NAME, cases[i].status, cases[i].body);
        outcome = ask_grant(site, "acme/site");
        if (outcome.status != cases[i].expected) {
            fail_msg("%d %s: %s", cases[i].status, cases[i].body, outcome.err.text);
        }
        assert_true(outcome.status != APR_SUCCESS || outcome.grant.role == ABB_ROLE_NONE);
    }
}

/* ---- whether to ask, and once more --------------------------------------- */

static void give_traffic(site_t *site)
{
    site->bitbucket.traffic =
        abb_traffic_create(apr_pcalloc(site->p, abb_traffic_size()), "key", NULL, NULL, site->p);
}

static void add_failing(site_t *site, const char *wanted, int status, int times)
{
    server_rule_t rule = server_json(wanted, status, PLAIN, site->p);

    rule.times = times;
    server_add(site->server, rule);
}

static void a_read_without_an_answer_is_sent_once_more(void **state)
{
    static const int codes[] = {500, 502, 503, 504};
    site_t *site = *state;

    site->bitbucket.retry_pause = apr_time_from_msec(1);
    for (apr_size_t i = 0; i < UNIT_COUNT(codes); ++i) {
        int before = server_count(site->server, targets[PERMISSION]);
        outcome_t outcome;

        server_forget_rules(site->server);
        add_failing(site, targets[PERMISSION], codes[i], 1);
        site_add_ada(site);
        outcome = ask_grant(site, "acme");
        assert_int_equal(outcome.status, APR_SUCCESS);
        assert_int_equal(outcome.grant.role, ABB_ROLE_OWNER);
        assert_int_equal(server_count(site->server, targets[PERMISSION]) - before, 2);
    }
}

static void it_is_sent_no_third_time(void **state)
{
    site_t *site = *state;

    site->bitbucket.retry_pause = apr_time_from_msec(1);
    server_add_json(site->server, targets[PERMISSION], 503, PLAIN);
    assert_int_equal(ask_grant(site, "acme").status, ABB_EUPSTREAM);
    assert_int_equal(server_count(site->server, ""), 2);
}

static void what_was_answered_is_not_asked_again(void **state)
{
    static const char *const workspaces[] = {"acme"};
    static const int codes[] = {401, 403, 404, 429};
    site_t *site = *state;
    outcome_t outcome;

    site->bitbucket.retry_pause = apr_time_from_msec(1);
    for (apr_size_t i = 0; i < UNIT_COUNT(codes); ++i) {
        int before = server_count(site->server, "");

        server_forget_rules(site->server);
        server_add_json(site->server, targets[PERMISSION], codes[i], PLAIN);
        ask_grant(site, "acme");
        assert_int_equal(server_count(site->server, "") - before, 1);
    }
    server_forget_rules(site->server);
    add_failing(site, targets[USER], 500, 1);
    site_add_ada(site);
    outcome = ask_visitor(site, workspaces, 1);
    assert_int_equal(outcome.status, APR_SUCCESS);
    assert_int_equal(server_count(site->server, targets[EMAILS]), 1);
}

static void codes_and_tokens_are_sent_once(void **state)
{
    site_t *site = *state;

    site->bitbucket.retry_pause = apr_time_from_msec(1);
    server_add_json(site->server, SITE_POST_TOKEN, 503, PLAIN);
    assert_int_equal(ask_tokens(site, CODE).status, ABB_EUPSTREAM);
    assert_int_equal(ask_tokens(site, REFRESH).status, ABB_EUPSTREAM);
    assert_int_equal(server_count(site->server, ""), 2);
}

/* The time limit is for both tries together. */
static void a_slow_bitbucket_is_not_asked_again(void **state)
{
    site_t *site = *state;
    apr_time_t start = apr_time_now();

    site->bitbucket.retry_pause = apr_time_from_msec(200);
    site->bitbucket.http_settings.total_timeout = apr_time_from_msec(500);
    server_add(site->server, server_ending(targets[PERMISSION], SERVER_HANG));
    assert_int_equal(ask_grant(site, "acme").status, ABB_EUPSTREAM);
    assert_true(apr_time_now() - start < apr_time_from_sec(3));
    assert_int_equal(server_count(site->server, ""), 1);
}

static void after_five_failures_nobody_is_asked(void **state)
{
    site_t *site = *state;
    outcome_t outcome;

    give_traffic(site);
    server_add_json(site->server, "*", 503, PLAIN);
    for (int i = 0; i < 5; ++i) {
        assert_int_equal(ask_grant(site, "acme").status, ABB_EUPSTREAM);
    }
    outcome = ask_grant(site, "acme");
    assert_int_equal(outcome.status, ABB_EUPSTREAM);
    assert_true(outcome.err.retry_after > 0);
    outcome = ask_tokens(site, REFRESH);
    assert_int_equal(outcome.status, ABB_EUPSTREAM);
    assert_true(outcome.err.retry_after > 0);
    assert_int_equal(ask_visitor(site, NULL, 0).status, ABB_EUPSTREAM);
    assert_int_equal(server_count(site->server, ""), 5);
}

typedef struct {
    int answered;
    int silent;
    int untried;
} heard_t;

static void hear(void *listener, const abb_http_request_t *request, const abb_http_answer_t *answer,
                 apr_pool_t *p)
{
    heard_t *heard = listener;

    assert_non_null(request->url);
    heard->answered += answer->status == 200;
    heard->silent += answer->status == 503;
    heard->untried += answer->status == 0 && answer->error.status == ABB_EUPSTREAM;
}

/* Second tries are calls, too; one that was not begun is told as such. */
static void a_listener_hears_each_call(void **state)
{
    site_t *site = *state;
    heard_t heard = {0, 0, 0};

    give_traffic(site);
    site_add_ada(site);
    site->bitbucket.listen = hear;
    site->bitbucket.listener = &heard;
    assert_int_equal(ask_visitor(site, NULL, 0).status, APR_SUCCESS);
    assert_int_equal(heard.answered, 2);
    site->bitbucket.retry_pause = apr_time_from_msec(1);
    server_add_json(site->server, site_permission("beta", site->p), 503, PLAIN);
    for (int i = 0; i < 5; ++i) {
        assert_int_equal(ask_grant(site, "beta").status, ABB_EUPSTREAM);
    }
    assert_int_equal(heard.silent, 10);
    assert_int_equal(heard.untried, 0);
    assert_int_equal(ask_grant(site, "beta").status, ABB_EUPSTREAM);
    assert_int_equal(heard.silent, 10);
    assert_int_equal(heard.untried, 1);
}

/* One answer of several proves that Bitbucket is there; so do a no and a refusal. */
static void any_answer_counts_as_one(void **state)
{
    static const char *const workspaces[] = {"acme", "beta"};
    static const int codes[] = {401, 403, 404, 410, 429};
    site_t *site = *state;

    give_traffic(site);
    site_add_ada(site);
    server_add_json(site->server, site_permission("beta", site->p), 500, PLAIN);
    for (int i = 0; i < 8; ++i) {
        assert_int_equal(ask_visitor(site, workspaces, 2).status, ABB_EUPSTREAM);
    }
    assert_int_equal(server_count(site->server, targets[EMAILS]), 8);
    for (apr_size_t i = 0; i < UNIT_COUNT(codes); ++i) {
        give_traffic(site);
        server_forget_rules(site->server);
        server_add_json(site->server, "*", codes[i], PLAIN);
        for (int j = 0; j < 6; ++j) {
            outcome_t outcome = ask_grant(site, "acme");

            assert_true(codes[i] == 429 || outcome.err.retry_after == 0);
        }
    }
}

static void pages_that_are_no_api_are_no_answer(void **state)
{
    site_t *site = *state;

    give_traffic(site);
    server_add(site->server, server_answer("*", 200, "Content-Type: text/html\r\n",
                                           "<html>back soon</html>", site->p));
    for (int i = 0; i < 6; ++i) {
        assert_int_equal(ask_grant(site, "acme").status, ABB_EUPSTREAM);
    }
    assert_int_equal(server_count(site->server, ""), 5);
}

static void a_limited_account_is_left_alone(void **state)
{
    abb_bitbucket_question_t other = {.uuid = SITE_WORKSPACE};
    site_t *site = *state;
    outcome_t outcome;

    give_traffic(site);
    server_add(site->server,
               server_answer(targets[PERMISSION], 429, "Retry-After: 30\r\n", "", site->p));
    assert_int_equal(ask_grant(site, "acme").status, ABB_ELIMIT);
    outcome = ask_grant(site, "acme");
    assert_int_equal(outcome.status, ABB_ELIMIT);
    assert_in_range(outcome.err.retry_after, apr_time_from_sec(25), apr_time_from_sec(30));
    assert_int_equal(ask_tokens(site, REFRESH).status, ABB_ELIMIT);
    assert_int_equal(server_count(site->server, ""), 1);
    /* Another account, and a stranger. */
    server_forget_rules(site->server);
    site_add_ada(site);
    other.user = 1;
    fetch(site, &other, &outcome);
    assert_int_equal(outcome.status, ABB_EIDENTITY);
    assert_int_equal(ask_visitor(site, NULL, 0).status, APR_SUCCESS);
}

/* Anybody can make codes up. */
static void limited_codes_pause_codes_alone(void **state)
{
    site_t *site = *state;

    give_traffic(site);
    server_add(site->server,
               server_answer(SITE_POST_TOKEN, 429, "Retry-After: 30\r\n", "", site->p));
    for (int i = 0; i < 5; ++i) {
        assert_int_equal(ask_tokens(site, CODE).status, ABB_ELIMIT);
    }
    assert_int_equal(server_count(site->server, ""), 1);
    server_forget_rules(site->server);
    site_add_ada(site);
    assert_int_equal(ask_tokens(site, CODE).status, ABB_ELIMIT);
    assert_int_equal(ask_tokens(site, REFRESH).status, APR_SUCCESS);
    assert_int_equal(ask_visitor(site, NULL, 0).status, APR_SUCCESS);
}

/* ---- probes -------------------------------------------------------------- */

static void add_once(site_t *site, const char *wanted, int status, const char *body)
{
    server_rule_t rule = server_json(wanted, status, body, site->p);

    rule.times = 1;
    server_add(site->server, rule);
}

static apr_status_t probe_client(site_t *site, abb_bitbucket_heard_t *heard)
{
    abb_error_t err;
    apr_status_t status;

    clear(&err);
    memset(heard, 0, sizeof(*heard));
    status = abb_bitbucket_probe_client(&site->bitbucket, heard, site->p, &err);
    assert_int_equal(err.status, status);
    assert_null(strstr(err.text, "secret"));
    return status;
}

/* The answer to client_credentials, then that to a code that is none. */
static void a_client_is_probed(void **state)
{
    static const struct {
        int status;
        const char *body;
        int next_status;
        const char *next_body;
        apr_status_t expected;
    } cases[] = {
        {200, "{\"access_token\":\"a\",\"scope\":\"account email\"}", 0, NULL, APR_SUCCESS},
        {400, OAUTH("unauthorized_client"), 400, OAUTH("invalid_grant"), APR_SUCCESS},
        {400, OAUTH("unauthorized_client"), 400, OAUTH("unauthorized_client"), ABB_ECLIENT},
        {403, OAUTH("anything"), 400, OAUTH("invalid_grant"), APR_SUCCESS},
        {400, OAUTH("invalid_request"), 400, OAUTH("invalid_request"), ABB_ECLIENT},
        {400, OAUTH("unauthorized_client"), 503, "{}", ABB_EUPSTREAM},
        {400, OAUTH("unauthorized_client"), 200, "{\"access_token\":\"a\"}", ABB_EUPSTREAM},
        {404, "{}", 404, "{}", ABB_EUPSTREAM},
        {410, "{}", 410, "{}", ABB_EGONE},
        {429, "{}", 0, NULL, ABB_ELIMIT},
        {503, "{}", 0, NULL, ABB_EUPSTREAM},
        {200, "{}", 0, NULL, ABB_EUPSTREAM},
    };
    site_t *site = *state;

    for (apr_size_t i = 0; i < UNIT_COUNT(cases); ++i) {
        abb_bitbucket_heard_t heard;
        int before = server_count(site->server, SITE_POST_TOKEN);

        server_forget_rules(site->server);
        add_once(site, SITE_POST_TOKEN, cases[i].status, cases[i].body);
        if (cases[i].next_body) {
            add_once(site, SITE_POST_TOKEN, cases[i].next_status, cases[i].next_body);
        }
        assert_int_equal(probe_client(site, &heard), cases[i].expected);
        assert_int_equal(server_count(site->server, SITE_POST_TOKEN) - before,
                         cases[i].next_body ? 2 : 1);
        assert_int_equal(heard.scope != NULL, i == 0);
    }
    assert_string_equal(server_request(site->server, SITE_POST_TOKEN, 0)->body,
                        "grant_type=client_credentials");
}

static void a_probe_hears_the_date(void **state)
{
    site_t *site = *state;
    abb_bitbucket_heard_t heard;

    server_add(site->server, server_answer(SITE_POST_TOKEN, 200,
                                           "Content-Type: application/json\r\n"
                                           "Date: Fri, 15 Jan 2027 08:00:00 GMT\r\n",
                                           "{\"access_token\":\"a\"}", site->p));
    assert_int_equal(probe_client(site, &heard), APR_SUCCESS);
    assert_int_equal(heard.date, apr_time_from_sec(1800000000));
    assert_true(apr_time_now() - heard.heard_at < apr_time_from_sec(60));
    assert_null(heard.scope);
}

static void the_api_is_probed_without_a_token(void **state)
{
    static const struct {
        int status;
        const char *type;
        const char *body;
        apr_status_t expected;
    } cases[] = {
        {401, "application/json", PLAIN, APR_SUCCESS},
        {401, "text/html", "<p>Please sign in", ABB_EUPSTREAM},
        {200, "application/json", "{}", ABB_EUPSTREAM},
        {200, "text/html", "<p>Please sign in", ABB_EUPSTREAM},
        {302, "text/html", "", ABB_EUPSTREAM},
        {403, "application/json", PLAIN, ABB_EUPSTREAM},
        {404, "application/json", NO_API, ABB_EGONE},
        {410, "application/json", GONE, ABB_EGONE},
        {429, "application/json", PLAIN, ABB_ELIMIT},
        {500, "application/json", PLAIN, ABB_EUPSTREAM},
    };
    static const struct {
        abb_bitbucket_part_t part;
        const char *asked;
        const char *target;
    } parts[] = {
        {ABB_BITBUCKET_USER, NULL, SITE_GET_USER},
        {ABB_BITBUCKET_EMAILS, NULL, "GET /2.0/user/emails"},
        {ABB_BITBUCKET_GRANT, "acme", "GET /2.0/user/workspaces/acme/permission"},
        {ABB_BITBUCKET_GRANT, "acme/site",
         "GET /2.0/user/workspaces/acme/permissions/repositories*"},
    };
    site_t *site = *state;

    for (apr_size_t i = 0; i < UNIT_COUNT(cases) * UNIT_COUNT(parts); ++i) {
        apr_size_t j = i / UNIT_COUNT(parts);
        apr_size_t k = i % UNIT_COUNT(parts);
        abb_bitbucket_heard_t heard = {0};
        abb_error_t err;

        clear(&err);
        server_forget_rules(site->server);
        server_add(site->server, server_answer(parts[k].target, cases[j].status,
                                               apr_pstrcat(site->p, "Content-Type: ", cases[j].type,
                                                           "\r\n", NULL),
                                               cases[j].body, site->p));
        assert_int_equal(abb_bitbucket_probe_api(&site->bitbucket, parts[k].part, parts[k].asked,
                                                 &heard, site->p, &err),
                         cases[j].expected);
        assert_int_equal(err.status, cases[j].expected);
        assert_null(
            server_header(server_request(site->server, "GET", (int)i), "Authorization", site->p));
    }
}

/* ---- what is counted ----------------------------------------------------- */

static abb_counters_t *give_counters(site_t *site)
{
    site->bitbucket.counters = abb_counters_begin(apr_pcalloc(site->p, abb_counters_size()), NOW);
    return site->bitbucket.counters;
}

/* How many calls of a kind had an outcome; each has a time, too. */
static void counted(const abb_counters_t *counters, abb_call_t call, abb_call_outcome_t outcome,
                    apr_uint64_t count)
{
    abb_counters_sum_t sum;

    abb_counters_read(counters, apr_time_now(), &sum);
    assert_int_equal(sum.calls[call].outcomes[outcome], count);
    assert_int_equal(abb_counters_total(&sum.calls[call].times), count);
    assert_true(count == 0 || sum.calls[call].duration > 0);
}

static void each_call_is_counted_by_its_kind(void **state)
{
    static const char *const workspaces[] = {"acme", "acme/site"};
    site_t *site = *state;
    abb_counters_t *counters = give_counters(site);
    abb_tokens_t tokens;
    abb_error_t err;

    site_add_ada(site);
    server_add_json(site->server, "GET /2.0/user/workspaces/acme/permissions/repositories*", 404,
                    "{\"type\":\"error\"}");
    clear(&err);
    assert_int_equal(
        abb_bitbucket_exchange_code(&site->bitbucket, "code", NOW, &tokens, site->p, &err),
        APR_SUCCESS);
    ask_visitor(site, workspaces, 2);
    counted(counters, ABB_CALL_TOKEN, ABB_CALL_2XX, 1);
    counted(counters, ABB_CALL_REFRESH, ABB_CALL_2XX, 0);
    counted(counters, ABB_CALL_USER, ABB_CALL_2XX, 1);
    counted(counters, ABB_CALL_EMAILS, ABB_CALL_2XX, 1);
    counted(counters, ABB_CALL_PERMISSION, ABB_CALL_2XX, 1);
    counted(counters, ABB_CALL_REPOSITORIES, ABB_CALL_4XX, 1);
    counted(counters, ABB_CALL_MEMBERS, ABB_CALL_2XX, 0);
}

static void what_is_left_of_the_limit_is_noted(void **state)
{
    site_t *site = *state;
    abb_counters_t *counters = give_counters(site);
    abb_counters_sum_t sum;

    server_add(site->server,
               server_answer(SITE_GET_USER, 200,
                             "Content-Type: application/json\r\nX-RateLimit-Remaining: 41\r\n",
                             SITE_USER_BODY, site->p));
    ask_visitor(site, NULL, 0);
    abb_counters_read(counters, apr_time_now(), &sum);
    assert_int_equal(sum.rate_limit_remaining, 41);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SITE_TEST(each_answer_has_its_meaning),
        SITE_TEST(a_withdrawn_endpoint_is_named),
        SITE_TEST(a_good_answer_is_json),
        SITE_TEST(an_unusable_body_is_no_answer),
        SITE_TEST(a_cut_connection_is_no_answer),
        SITE_TEST(the_error_may_be_left_out),
        SITE_TEST(retry_after_is_clamped),
        SITE_TEST(junk_in_retry_after_counts_as_none),
        SITE_TEST(the_browser_is_sent_with_all_parameters),
        SITE_TEST(each_call_is_counted_by_its_kind),
        SITE_TEST(what_is_left_of_the_limit_is_noted),
        SITE_TEST(a_code_is_exchanged),
        SITE_TEST(a_refresh_token_is_exchanged),
        SITE_TEST(without_a_new_refresh_token_the_old_one_stays),
        SITE_TEST(a_code_is_sent_once_whatever_happens),
        SITE_TEST(an_answer_with_tokens_has_a_largest_size),
        SITE_TEST(no_reason_tells_a_secret),
        SITE_TEST(a_visitor_is_asked_about_at_the_same_time),
        SITE_TEST(more_than_eight_workspaces_are_not_asked),
        SITE_TEST(bots_and_closed_accounts_are_refused),
        SITE_TEST(other_credentials_are_sent_as_they_are),
        SITE_TEST(a_row_of_another_user_is_no_answer),
        SITE_TEST(without_the_scope_there_is_no_address),
        SITE_TEST(a_missing_scope_is_named),
        SITE_TEST(an_unknown_role_is_doubted),
        SITE_TEST(withdrawn_roles_fall_back_to_plain_membership),
        SITE_TEST(withdrawn_roles_fall_back_at_a_sign_in),
        SITE_TEST(only_withdrawn_roles_fall_back),
        SITE_TEST(the_primary_address_is_found_on_a_later_page),
        SITE_TEST(the_first_confirmed_address_counts_without_a_primary),
        SITE_TEST(no_confirmed_address_is_none),
        SITE_TEST(foreign_next_pages_are_refused),
        SITE_TEST(encoded_dot_segments_in_next_pages_are_refused),
        SITE_TEST(the_list_of_addresses_has_a_largest_size),
        SITE_TEST(repeated_pages_are_refused),
        SITE_TEST(the_first_page_is_not_asked_for_again),
        SITE_TEST(endless_pages_are_refused),
        SITE_TEST(a_later_page_that_fails_makes_the_answer_unusable),
        SITE_TEST(a_read_without_an_answer_is_sent_once_more),
        SITE_TEST(it_is_sent_no_third_time),
        SITE_TEST(what_was_answered_is_not_asked_again),
        SITE_TEST(codes_and_tokens_are_sent_once),
        SITE_TEST(a_slow_bitbucket_is_not_asked_again),
        SITE_TEST(after_five_failures_nobody_is_asked),
        SITE_TEST(a_listener_hears_each_call),
        SITE_TEST(any_answer_counts_as_one),
        SITE_TEST(pages_that_are_no_api_are_no_answer),
        SITE_TEST(a_limited_account_is_left_alone),
        SITE_TEST(limited_codes_pause_codes_alone),
        SITE_TEST(explicit_permissions_are_asked),
        SITE_TEST(answers_about_repositories_are_read_strictly),
        SITE_TEST(a_client_is_probed),
        SITE_TEST(a_probe_hears_the_date),
        SITE_TEST(the_api_is_probed_without_a_token),
    };

    return cmocka_run_group_tests(tests, site_begin, unit_end);
}
