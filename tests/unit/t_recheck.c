/*
 * t_recheck: one who asks at a time for one session, with a token that is good.
 *
 * This room looks at the clock itself, so sessions here begin now.
 */
#include "abb_recheck.h"

#include <signal.h>
#include <sys/wait.h>

#include "site.h"

#define SECONDS(n) apr_time_from_sec(n)
#define ACME "GET /2.0/user/workspaces/acme/permission"
#define PLAIN "{\"type\":\"error\",\"error\":{\"message\":\"Said so\"}}"
#define REFUSED "{\"error\":\"invalid_grant\",\"error_description\":\"Invalid refresh_token\"}"

/* ---- a session and a question -------------------------------------------- */

/* A session whose access token has this long to live. Returns its cookie. */
static const char *create_session(site_t *site, apr_interval_time_t token_left, abb_grant_t *grants,
                                  int grant_count)
{
    abb_record_private_t part = {
        {"access-0", "refresh-0", "account", apr_time_now() + token_left, 0, 0}, "{}"};
    abb_session_t *session;
    abb_record_t record;
    const char *cookie;

    memset(&record, 0, sizeof(record));
    record.account.uuid = SITE_USER;
    record.account.display_name = "Ada";
    record.grants = grants;
    record.grant_count = grant_count;
    record.created_at = record.account_checked_at = apr_time_now();
    assert_int_equal(abb_session_create(&site->sessions, &record, &part, apr_time_now(), &cookie,
                                        &session, site->p, NULL),
                     APR_SUCCESS);
    return cookie;
}

static abb_session_t *find(site_t *site, const char *cookie, apr_pool_t *p)
{
    abb_session_t *session = NULL;

    return abb_session_find(&site->sessions, cookie, apr_time_now(), &session, p, NULL) ==
                   APR_SUCCESS
               ? session
               : NULL;
}

/* A session's tokens as they are stored now. */
static abb_tokens_t stored_tokens(site_t *site, const char *cookie)
{
    abb_session_t *session = find(site, cookie, site->p);
    abb_record_private_t part;

    assert_non_null(session);
    assert_int_equal(
        abb_session_reload(&site->sessions, session, apr_time_now(), &part, site->p, NULL),
        APR_SUCCESS);
    return part.tokens;
}

typedef struct {
    apr_status_t status;
    abb_error_t err;
    abb_session_t *session;
    abb_recheck_notes_t notes;
} outcome_t;

static apr_status_t ask_question(site_t *site, abb_session_t *session, const char *workspace,
                                 apr_time_t since, abb_recheck_notes_t *notes, apr_pool_t *p,
                                 abb_error_t *err)
{
    abb_recheck_t recheck = {&site->sessions, &site->bitbucket};
    abb_recheck_question_t question = {0, &workspace, 1, since, 0};

    return abb_recheck_session(&recheck, session, &question, ABB_RECHECK_WAIT, notes, p, err);
}

static outcome_t ask_about(site_t *site, const char *cookie, const char *workspace,
                           apr_time_t older_than, apr_pool_t *p)
{
    outcome_t outcome;

    memset(&outcome, 0, sizeof(outcome));
    abb_error_clear(&outcome.err);
    outcome.notes.doubt = "left over";
    outcome.session = find(site, cookie, p);
    outcome.status = outcome.session ? ask_question(site, outcome.session, workspace, older_than,
                                                    &outcome.notes, p, &outcome.err)
                                     : APR_NOTFOUND;
    return outcome;
}

static outcome_t ask(site_t *site, const char *cookie)
{
    return ask_about(site, cookie, "acme", apr_time_now(), site->p);
}

static abb_role_t role_in(const outcome_t *outcome, const char *workspace)
{
    const abb_grant_t *grant = abb_record_find_grant(&outcome->session->record, workspace);

    return grant ? grant->role : ABB_ROLE_NONE;
}

static void check_answered(const outcome_t *outcome, abb_role_t role)
{
    if (outcome->status != APR_SUCCESS) {
        fail_msg("%s", outcome->err.text);
    }
    assert_int_equal(outcome->err.status, APR_SUCCESS);
    assert_int_equal(role_in(outcome, "acme"), role);
}

static void check_ended(site_t *site, const outcome_t *outcome, const char *cookie)
{
    assert_int_equal(outcome->status, APR_NOTFOUND);
    assert_int_equal(outcome->err.status, APR_NOTFOUND);
    assert_string_not_equal(outcome->err.text, "");
    assert_null(find(site, cookie, site->p));
}

/* ---- one question -------------------------------------------------------- */

static void an_answer_is_kept(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
    apr_time_t before = apr_time_now();
    outcome_t outcome;

    site_add_ada(site);
    outcome = ask(site, cookie);
    check_answered(&outcome, ABB_ROLE_OWNER);
    assert_null(outcome.notes.doubt);
    assert_int_equal(server_count(site->server, ""), 1);
    assert_string_equal(
        server_header(server_request(site->server, ACME, 0), "Authorization", site->p),
        "Bearer access-0");
    outcome.session = find(site, cookie, site->p);
    assert_int_equal(role_in(&outcome, "acme"), ABB_ROLE_OWNER);
    assert_true(abb_record_find_grant(&outcome.session->record, "acme")->checked_at >= before);
    assert_string_equal(outcome.session->record.account.display_name, "Ada");
}

static void a_kept_answer_is_taken(void **state)
{
    site_t *site = *state;
    abb_grant_t row = {"acme", "acme", SITE_WORKSPACE, ABB_ROLE_MEMBER,
                       apr_time_now() - SECONDS(10)};
    const char *cookie = create_session(site, SECONDS(7200), &row, 1);
    outcome_t outcome;

    site_add_ada(site);
    outcome = ask_about(site, cookie, "acme", row.checked_at, site->p);
    check_answered(&outcome, ABB_ROLE_MEMBER);
    outcome = ask_about(site, cookie, "acme", row.checked_at - SECONDS(5), site->p);
    check_answered(&outcome, ABB_ROLE_MEMBER);
    assert_int_equal(server_count(site->server, ""), 0);
    outcome = ask_about(site, cookie, "acme", row.checked_at + 1, site->p);
    check_answered(&outcome, ABB_ROLE_OWNER);
    assert_int_equal(server_count(site->server, ""), 1);
    assert_int_equal(outcome.session->record.grant_count, 1);
}

/* What another request stored since this one looked is taken too. */
static void an_answer_stored_meanwhile_is_taken(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
    abb_session_t *early = find(site, cookie, site->p);
    apr_time_t older_than = apr_time_now();
    outcome_t outcome;
    abb_recheck_notes_t notes;

    site_add_ada(site);
    outcome = ask(site, cookie);
    check_answered(&outcome, ABB_ROLE_OWNER);
    assert_int_equal(early->record.grant_count, 0);
    assert_int_equal(ask_question(site, early, "acme", older_than, &notes, site->p, &outcome.err),
                     APR_SUCCESS);
    assert_int_equal(early->record.grant_count, 1);
    assert_int_equal(server_count(site->server, ""), 1);
}

/* After the clock was put back nothing dated ahead is an answer. */
static void an_answer_of_the_future_is_asked_again(void **state)
{
    site_t *site = *state;
    abb_grant_t row = {"acme", "acme", SITE_WORKSPACE, ABB_ROLE_MEMBER,
                       apr_time_now() + SECONDS(7200)};
    const char *cookie = create_session(site, SECONDS(7200), &row, 1);
    outcome_t outcome;

    site_add_ada(site);
    outcome = ask_about(site, cookie, "acme", apr_time_now() - SECONDS(15), site->p);
    check_answered(&outcome, ABB_ROLE_OWNER);
    assert_int_equal(server_count(site->server, ACME), 1);
    assert_true(abb_record_find_grant(&outcome.session->record, "acme")->checked_at <=
                apr_time_now());
}

static void a_definite_no_is_an_answer(void **state)
{
    static const int codes[] = {403, 404};
    site_t *site = *state;

    for (apr_size_t i = 0; i < UNIT_COUNT(codes); ++i) {
        abb_grant_t row = {"acme", "acme", SITE_WORKSPACE, ABB_ROLE_OWNER, apr_time_now() - 1};
        const char *cookie = create_session(site, SECONDS(7200), &row, 1);
        outcome_t outcome;

        server_forget_rules(site->server);
        server_add_json(site->server, ACME, codes[i], PLAIN);
        outcome = ask(site, cookie);
        check_answered(&outcome, ABB_ROLE_NONE);
        assert_int_equal(outcome.session->record.grant_count, 1);
        assert_null(outcome.session->record.grants[0].slug);
        outcome.session = find(site, cookie, site->p);
        assert_int_equal(role_in(&outcome, "acme"), ABB_ROLE_NONE);
    }
}

static void other_rows_stay(void **state)
{
    site_t *site = *state;
    abb_grant_t rows[] = {
        {"beta", "beta", SITE_WORKSPACE, ABB_ROLE_MEMBER, apr_time_now() - SECONDS(5)},
        {"acme", NULL, NULL, ABB_ROLE_NONE, apr_time_now() - SECONDS(5)},
        {"gamma", NULL, NULL, ABB_ROLE_NONE, apr_time_now() - SECONDS(6)},
    };
    const char *cookie = create_session(site, SECONDS(0), rows, 3);
    outcome_t outcome;

    site_add_ada(site);
    outcome = ask(site, cookie);
    check_answered(&outcome, ABB_ROLE_OWNER);
    outcome.session = find(site, cookie, site->p);
    assert_int_equal(outcome.session->record.grant_count, 3);
    assert_int_equal(role_in(&outcome, "beta"), ABB_ROLE_MEMBER);
    assert_true(abb_record_find_grant(&outcome.session->record, "gamma")->checked_at ==
                rows[2].checked_at);
}

static void withdrawn_roles_are_told(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
    outcome_t outcome;

    server_add_json(site->server, ACME, 410, PLAIN);
    server_add_json(site->server, "GET /2.0/workspaces/acme/members/%7B" SITE_USER "%7D", 200,
                    site_membership_body("acme", "owner", site->p));
    outcome = ask(site, cookie);
    check_answered(&outcome, ABB_ROLE_MEMBER);
    assert_non_null(outcome.notes.change);
}

/* ---- refreshing ---------------------------------------------------------- */

static void check_refreshed(site_t *site, const char *cookie, int posts, int gets)
{
    abb_tokens_t tokens = stored_tokens(site, cookie);

    assert_string_equal(tokens.access_token, posts ? "access-1" : "access-0");
    assert_string_equal(tokens.refresh_token, posts ? "refresh-1" : "refresh-0");
    assert_int_equal(server_count(site->server, SITE_POST_TOKEN), posts);
    assert_int_equal(server_count(site->server, ACME), gets);
}

static void a_token_with_a_minute_left_is_used(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(75), NULL, 0);
    outcome_t outcome;

    site_add_ada(site);
    outcome = ask(site, cookie);
    check_answered(&outcome, ABB_ROLE_OWNER);
    check_refreshed(site, cookie, 0, 1);
}

static void a_token_with_less_is_refreshed_first(void **state)
{
    static const int seconds[] = {59, 0, -7200};

    for (apr_size_t i = 0; i < UNIT_COUNT(seconds); ++i) {
        site_t *site = *state;
        const char *cookie = create_session(site, SECONDS(seconds[i]), NULL, 0);
        apr_time_t before = apr_time_now();
        outcome_t outcome;
        abb_tokens_t tokens;

        server_forget_rules(site->server);
        site_add_ada(site);
        outcome = ask(site, cookie);
        check_answered(&outcome, ABB_ROLE_OWNER);
        check_refreshed(site, cookie, (int)i + 1, (int)i + 1);
        assert_string_equal(server_request(site->server, SITE_POST_TOKEN, (int)i)->body,
                            "grant_type=refresh_token&refresh_token=refresh-0");
        assert_string_equal(
            server_header(server_request(site->server, ACME, (int)i), "Authorization", site->p),
            "Bearer access-1");
        /* The account was asked only whose the token is, not for its addresses. */
        assert_int_equal(server_count(site->server, SITE_GET_EMAILS), 0);
        assert_true(outcome.session->record.account_checked_at < before);
        tokens = stored_tokens(site, cookie);
        assert_true(tokens.expires_at > apr_time_now() + SECONDS(7100));
    }
}

/* The store's own methods but for some; the engine stays the same. */
static abb_store_methods_t spying;
static const abb_store_methods_t *plain;
static server_t *spied_server;
static int questions_at_first_replace;
static apr_interval_time_t leased_for;

static const abb_store_t *spy_on(const abb_store_t *store, apr_pool_t *p)
{
    abb_store_t *spied = apr_palloc(p, sizeof(*spied));

    plain = store->methods;
    spying = *plain;
    spied->methods = &spying;
    spied->engine = store->engine;
    return spied;
}

static apr_status_t spy_replace(void *engine, const abb_store_key_t *key, apr_uint64_t generation,
                                const abb_store_record_t *record, apr_time_t now, abb_error_t *err)
{
    if (questions_at_first_replace < 0) {
        questions_at_first_replace = server_count(spied_server, "GET");
    }
    return plain->replace(engine, key, generation, record, now, err);
}

static void a_new_pair_is_stored_before_it_is_used(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(0), NULL, 0);
    outcome_t outcome;

    site_add_ada(site);
    site->sessions.store = spy_on(site->store, site->p);
    spied_server = site->server;
    questions_at_first_replace = -1;
    spying.replace = spy_replace;
    outcome = ask(site, cookie);
    check_answered(&outcome, ABB_ROLE_OWNER);
    assert_int_equal(questions_at_first_replace, 0);
}

static apr_status_t fail_replace(void *engine, const abb_store_key_t *key, apr_uint64_t generation,
                                 const abb_store_record_t *record, apr_time_t now, abb_error_t *err)
{
    return abb_error_set(err, ABB_ESTORE, "the spy fails");
}

static void a_pair_that_cannot_be_stored_is_not_used(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(0), NULL, 0);
    outcome_t outcome;

    site_add_ada(site);
    site->sessions.store = spy_on(site->store, site->p);
    spying.replace = fail_replace;
    outcome = ask(site, cookie);
    assert_int_equal(outcome.status, ABB_ESTORE);
    assert_int_equal(server_count(site->server, "GET"), 0);
}

static void a_pair_survives_a_question_that_fails(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(0), NULL, 0);
    outcome_t outcome;

    server_add_json(site->server, ACME, 503, PLAIN);
    site_add_ada(site);
    outcome = ask(site, cookie);
    assert_int_equal(outcome.status, ABB_EUPSTREAM);
    check_refreshed(site, cookie, 1, 1);
}

static void a_refused_token_is_refreshed_once(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
    server_rule_t refused = server_json(ACME, 401, PLAIN, site->p);
    outcome_t outcome;

    refused.times = 1;
    server_add(site->server, refused);
    site_add_ada(site);
    outcome = ask(site, cookie);
    check_answered(&outcome, ABB_ROLE_OWNER);
    check_refreshed(site, cookie, 1, 2);
    assert_string_equal(
        server_header(server_request(site->server, ACME, 0), "Authorization", site->p),
        "Bearer access-0");
    assert_string_equal(
        server_header(server_request(site->server, ACME, 1), "Authorization", site->p),
        "Bearer access-1");
}

static void a_token_refused_twice_ends_the_session(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
    outcome_t outcome;

    server_add_json(site->server, ACME, 401, PLAIN);
    site_add_ada(site);
    outcome = ask(site, cookie);
    check_ended(site, &outcome, cookie);
    assert_int_equal(server_count(site->server, "POST"), 1);
    assert_int_equal(server_count(site->server, ACME), 2);
}

static void a_fresh_token_refused_ends_the_session(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(0), NULL, 0);
    outcome_t outcome;

    server_add_json(site->server, ACME, 401, PLAIN);
    site_add_ada(site);
    outcome = ask(site, cookie);
    check_ended(site, &outcome, cookie);
    assert_int_equal(server_count(site->server, "POST"), 1);
    assert_int_equal(server_count(site->server, ACME), 1);
}

static void a_refused_refresh_ends_the_session(void **state)
{
    static const struct {
        int status;
        const char *body;
    } refusals[] = {
        {400, REFUSED},
        {400, "{\"error\":\"invalid_request\"}"},
        {400, "{\"error\":\"unauthorized_client\"}"},
        {401, "{\"error\":\"unauthorized_client\"}"},
    };
    site_t *site = *state;

    for (apr_size_t i = 0; i < UNIT_COUNT(refusals); ++i) {
        for (int has_token = 0; has_token <= 1; ++has_token) {
            const char *cookie = create_session(site, SECONDS(has_token ? 7200 : 0), NULL, 0);
            int before = server_count(site->server, "POST");
            outcome_t outcome;

            server_forget_rules(site->server);
            server_add_json(site->server, SITE_POST_TOKEN, refusals[i].status, refusals[i].body);
            server_add_json(site->server, ACME, 401, PLAIN);
            outcome = ask(site, cookie);
            check_ended(site, &outcome, cookie);
            assert_int_equal(server_count(site->server, "POST") - before, 1);
        }
    }
    assert_int_equal(server_count(site->server, "GET"), 4);
}

static void without_a_refresh_token_the_session_ends_with_its_token(void **state)
{
    site_t *site = *state;
    abb_record_private_t part = {{"access-0", NULL, NULL, apr_time_now(), 0, 0}, "{}"};
    abb_session_t *session;
    abb_record_t record;
    const char *cookie;
    outcome_t outcome;

    memset(&record, 0, sizeof(record));
    record.account.uuid = SITE_USER;
    assert_int_equal(abb_session_create(&site->sessions, &record, &part, apr_time_now(), &cookie,
                                        &session, site->p, NULL),
                     APR_SUCCESS);
    site_add_ada(site);
    outcome = ask(site, cookie);
    check_ended(site, &outcome, cookie);
    assert_int_equal(server_count(site->server, ""), 0);
}

/* ---- could not ask ------------------------------------------------------- */

static void could_not_ask_keeps_the_session(void **state)
{
    static const struct {
        const char *wanted;
        int status;
        const char *body;
        apr_status_t reason;
    } cases[] = {
        {SITE_POST_TOKEN, 500, "", ABB_EUPSTREAM},
        {SITE_POST_TOKEN, 503, REFUSED, ABB_EUPSTREAM},
        {SITE_POST_TOKEN, 429, "", ABB_ELIMIT},
        {SITE_POST_TOKEN, 200, "{}", ABB_EUPSTREAM},
        {SITE_POST_TOKEN, 200, "<html>", ABB_EUPSTREAM},
        {SITE_POST_TOKEN, 400, "<html>", ABB_EUPSTREAM},
        {SITE_POST_TOKEN, 400, "{\"error\":\"invalid_client\"}", ABB_ECLIENT},
        {SITE_POST_TOKEN, 0, NULL, ABB_EUPSTREAM},
        {ACME, 500, "", ABB_EUPSTREAM},
        {ACME, 429, "", ABB_ELIMIT},
        {ACME, 200, "[]", ABB_EUPSTREAM},
        {ACME, 200, "{}", ABB_EUPSTREAM},
        {ACME, 0, NULL, ABB_EUPSTREAM},
        {ACME, 403, "{\"error\":{\"message\":\"m\",\"detail\":{\"required\":[\"account\"]}}}",
         ABB_ESCOPE},
    };
    site_t *site = *state;

    for (apr_size_t i = 0; i < UNIT_COUNT(cases); ++i) {
        int is_refresh = strcmp(cases[i].wanted, SITE_POST_TOKEN) == 0;
        abb_grant_t row = {"acme", "acme", SITE_WORKSPACE, ABB_ROLE_MEMBER,
                           apr_time_now() - SECONDS(30)};
        const char *cookie = create_session(site, SECONDS(is_refresh ? 0 : 7200), &row, 1);
        int posts = server_count(site->server, "POST");
        outcome_t outcome;

        server_forget_rules(site->server);
        if (cases[i].body) {
            server_add_json(site->server, cases[i].wanted, cases[i].status, cases[i].body);
        }
        else {
            server_add(site->server, server_ending(cases[i].wanted, SERVER_CLOSE));
        }
        site_add_ada(site);
        outcome = ask(site, cookie);
        if (outcome.status != cases[i].reason || outcome.err.status != cases[i].reason) {
            fail_msg("%s %d %s: %s", cases[i].wanted, cases[i].status, cases[i].body,
                     outcome.err.text);
        }
        assert_int_equal(server_count(site->server, "POST") - posts, is_refresh);
        assert_string_equal(stored_tokens(site, cookie).refresh_token, "refresh-0");
        outcome.session = find(site, cookie, site->p);
        assert_int_equal(role_in(&outcome, "acme"), ABB_ROLE_MEMBER);
        assert_true(abb_record_find_grant(&outcome.session->record, "acme")->checked_at ==
                    row.checked_at);
    }
}

static void a_silent_bitbucket_keeps_the_session(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
    apr_time_t start = apr_time_now();
    outcome_t outcome;

    site->bitbucket.http_settings.total_timeout = apr_time_from_msec(300);
    server_add(site->server, server_ending(ACME, SERVER_HANG));
    outcome = ask(site, cookie);
    assert_int_equal(outcome.status, ABB_EUPSTREAM);
    assert_true(apr_time_now() - start < SECONDS(2));
    assert_non_null(find(site, cookie, site->p));
}

/* Success or not, the next one need not wait. */
static void the_lease_is_given_back(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
    server_rule_t failing = server_json(ACME, 503, PLAIN, site->p);
    apr_time_t start = apr_time_now();
    outcome_t outcome;

    failing.times = 3;
    server_add(site->server, failing);
    site_add_ada(site);
    for (int i = 0; i < 6; ++i) {
        outcome = ask(site, cookie);
        assert_int_equal(outcome.status, i < 3 ? ABB_EUPSTREAM : APR_SUCCESS);
    }
    assert_true(apr_time_now() - start < SECONDS(2));
}

/* ---- the session changes meanwhile --------------------------------------- */

typedef struct {
    site_t *site;
    const char *cookie;
    const char *workspace;
    apr_time_t older_than;
    apr_pool_t *p;
    outcome_t outcome;
} asker_t;

static void *run_asker(void *data)
{
    asker_t *asker = data;

    asker->outcome =
        ask_about(asker->site, asker->cookie, asker->workspace, asker->older_than, asker->p);
    return NULL;
}

static void start_asker(asker_t *asker, pthread_t *thread, site_t *site, const char *cookie,
                        const char *workspace, apr_time_t older_than)
{
    asker->site = site;
    asker->cookie = cookie;
    asker->workspace = workspace;
    asker->older_than = older_than;
    apr_pool_create(&asker->p, site->p);
    assert_int_equal(pthread_create(thread, NULL, run_asker, asker), 0);
}

static void wait_for_requests(server_t *server, const char *beginning, int count)
{
    for (int i = 0; i < 1000 && server_count(server, beginning) < count; ++i) {
        apr_sleep(apr_time_from_msec(5));
    }
    assert_true(server_count(server, beginning) >= count);
}

/* Who signs out while a question is under way stays signed out. */
static void a_session_that_ended_stays_ended(void **state)
{
    site_t *site = *state;

    for (int is_refresh = 0; is_refresh <= 1; ++is_refresh) {
        const char *cookie = create_session(site, SECONDS(is_refresh ? 0 : 7200), NULL, 0);
        server_rule_t slow =
            server_json(ACME, 200, site_membership_body("acme", "owner", site->p), site->p);
        asker_t asker;
        pthread_t thread;

        slow.delay = 300;
        server_forget_rules(site->server);
        server_add(site->server, slow);
        site_add_ada(site);
        start_asker(&asker, &thread, site, cookie, "acme", apr_time_now());
        wait_for_requests(site->server, ACME, is_refresh + 1);
        assert_int_equal(abb_session_drop(&site->sessions, find(site, cookie, site->p), NULL),
                         APR_SUCCESS);
        pthread_join(thread, NULL);
        check_ended(site, &asker.outcome, cookie);
    }
}

static void an_ended_session_asks_nobody(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(0), NULL, 0);
    abb_session_t *session = find(site, cookie, site->p);
    abb_recheck_notes_t notes;
    abb_error_t err;

    assert_int_equal(abb_session_drop(&site->sessions, session, NULL), APR_SUCCESS);
    abb_error_clear(&err);
    assert_int_equal(ask_question(site, session, "acme", apr_time_now(), &notes, site->p, &err),
                     APR_NOTFOUND);
    assert_int_equal(err.status, APR_NOTFOUND);
    assert_int_equal(server_count(site->server, ""), 0);
}

/* The key is gone that sealed the tokens: nothing can be asked any more. */
static void a_session_of_a_lost_key_ends(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
    outcome_t outcome;

    site->ring.keys[0].bytes[0] ^= 1;
    outcome = ask(site, cookie);
    assert_int_equal(outcome.status, APR_NOTFOUND);
    assert_null(find(site, cookie, site->p));
    assert_int_equal(server_count(site->server, ""), 0);
}

static apr_status_t fail_lease(void *engine, const abb_store_key_t *key,
                               apr_interval_time_t duration, apr_time_t now, apr_uint64_t *holder,
                               abb_error_t *err)
{
    return abb_error_set(err, ABB_ESTORE, "the spy fails");
}

static void a_store_that_fails_ends_nothing(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(0), NULL, 0);
    outcome_t outcome;

    site_add_ada(site);
    site->sessions.store = spy_on(site->store, site->p);
    spying.lease = fail_lease;
    outcome = ask(site, cookie);
    assert_int_equal(outcome.status, ABB_ESTORE);
    assert_int_equal(server_count(site->server, ""), 0);
    assert_non_null(find(site, cookie, site->p));
}

/* ---- many at once -------------------------------------------------------- */

enum { CROWD = 20 };

/* Ask in a crowd; returns how many were answered. */
static int ask_in_crowd(site_t *site, const char *cookie, int workspaces, asker_t *askers)
{
    pthread_t threads[CROWD];
    apr_time_t older_than = apr_time_now();
    int answered = 0;

    for (int i = 0; i < CROWD; ++i) {
        start_asker(&askers[i], &threads[i], site, cookie,
                    workspaces > 1 ? apr_psprintf(site->p, "w%d", i % workspaces) : "acme",
                    older_than);
    }
    for (int i = 0; i < CROWD; ++i) {
        pthread_join(threads[i], NULL);
        answered += askers[i].outcome.status == APR_SUCCESS;
    }
    return answered;
}

static void a_crowd_makes_one_refresh_and_one_question(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(0), NULL, 0);
    server_rule_t slow = server_json(
        SITE_POST_TOKEN, 200, site_tokens_body("access-1", "refresh-1", 7200, site->p), site->p);
    asker_t askers[CROWD];

    slow.delay = 300;
    server_add(site->server, slow);
    site_add_ada(site);
    assert_int_equal(ask_in_crowd(site, cookie, 1, askers), CROWD);
    check_refreshed(site, cookie, 1, 1);
    for (int i = 0; i < CROWD; ++i) {
        assert_int_equal(role_in(&askers[i].outcome, "acme"), ABB_ROLE_OWNER);
    }
}

static void a_crowd_with_many_questions_makes_one_refresh(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(0), NULL, 0);
    asker_t askers[CROWD];
    outcome_t outcome;

    site_add_ada(site);
    for (int i = 0; i < 5; ++i) {
        site_add_membership(site, apr_psprintf(site->p, "w%d", i), "member");
    }
    assert_int_equal(ask_in_crowd(site, cookie, 5, askers), CROWD);
    assert_int_equal(server_count(site->server, SITE_POST_TOKEN), 1);
    assert_int_equal(server_count(site->server, "GET /2.0/user/workspaces/"), 5);
    assert_int_equal(server_count(site->server, "GET"), 6);
    outcome.session = find(site, cookie, site->p);
    assert_int_equal(outcome.session->record.grant_count, 5);
}

static void a_crowd_with_a_refused_token_makes_one_refresh(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
    server_rule_t refused = server_json(ACME, 401, PLAIN, site->p);
    asker_t askers[CROWD];

    refused.times = 1;
    server_add(site->server, refused);
    site_add_ada(site);
    assert_int_equal(ask_in_crowd(site, cookie, 1, askers), CROWD);
    check_refreshed(site, cookie, 1, 2);
}

static void a_crowd_whose_session_ends_asks_once(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(0), NULL, 0);
    server_rule_t refused = server_json(SITE_POST_TOKEN, 400, REFUSED, site->p);
    asker_t askers[CROWD];

    refused.delay = 300;
    server_add(site->server, refused);
    assert_int_equal(ask_in_crowd(site, cookie, 1, askers), 0);
    for (int i = 0; i < CROWD; ++i) {
        assert_int_equal(askers[i].outcome.status, APR_NOTFOUND);
    }
    assert_int_equal(server_count(site->server, ""), 1);
}

/* "... so that many requests at once make one question": also when it fails. */
static void a_crowd_does_not_ask_one_after_the_other_in_vain(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
    server_rule_t failing = server_json(ACME, 503, PLAIN, site->p);
    asker_t askers[CROWD];

    failing.delay = 300;
    server_add(site->server, failing);
    assert_int_equal(ask_in_crowd(site, cookie, 1, askers), 0);
    for (int i = 0; i < CROWD; ++i) {
        assert_int_equal(askers[i].outcome.status, ABB_EUPSTREAM);
    }
    assert_true(server_count(site->server, "GET") <= 2);
}

static int noted_failures;

static apr_status_t count_failures(void *engine, const abb_store_key_t *key, apr_uint64_t holder,
                                   apr_time_t now, abb_error_t *err)
{
    __atomic_fetch_add(&noted_failures, 1, __ATOMIC_SEQ_CST);
    return (plain->fail)(engine, key, holder, now, err);
}

/* Else who comes later waits for nothing but those who waited. */
static void only_who_asked_notes_a_failure(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
    server_rule_t failing = server_json(ACME, 503, PLAIN, site->p);
    asker_t askers[CROWD];

    failing.delay = 300;
    server_add(site->server, failing);
    site->sessions.store = spy_on(site->store, site->p);
    spying.fail = count_failures;
    __atomic_store_n(&noted_failures, 0, __ATOMIC_SEQ_CST);
    assert_int_equal(ask_in_crowd(site, cookie, 1, askers), 0);
    assert_int_equal(noted_failures, server_count(site->server, "GET"));
}

/* Who comes after a failure did not wait for it, and may ask. */
static void a_failure_is_no_answer_for_later(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
    server_rule_t failing = server_json(ACME, 503, PLAIN, site->p);
    outcome_t outcome;

    failing.times = 1;
    server_add(site->server, failing);
    site_add_ada(site);
    outcome = ask(site, cookie);
    assert_int_equal(outcome.status, ABB_EUPSTREAM);
    outcome = ask(site, cookie);
    check_answered(&outcome, ABB_ROLE_OWNER);
}

static int refused_leases;

static apr_status_t count_refused_leases(void *engine, const abb_store_key_t *key,
                                         apr_interval_time_t duration, apr_time_t now,
                                         apr_uint64_t *holder, abb_error_t *err)
{
    apr_status_t status = plain->lease(engine, key, duration, now, holder, err);

    if (status == ABB_ECHANGED) {
        __atomic_fetch_add(&refused_leases, 1, __ATOMIC_SEQ_CST);
    }
    return status;
}

/* Another request held the lease for a moment, found all fresh, and gave it back. */
static void a_holder_with_nothing_to_ask_is_not_in_vain(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
    abb_session_t *session = find(site, cookie, site->p);
    apr_uint64_t holder;
    asker_t asker;
    pthread_t thread;

    site_add_ada(site);
    assert_int_equal(
        abb_store_lease(site->store, &session->key, SECONDS(30), apr_time_now(), &holder, NULL),
        APR_SUCCESS);
    site->sessions.store = spy_on(site->store, site->p);
    spying.lease = count_refused_leases;
    __atomic_store_n(&refused_leases, 0, __ATOMIC_SEQ_CST);
    start_asker(&asker, &thread, site, cookie, "acme", apr_time_now());
    for (int i = 0; i < 5000 && !__atomic_load_n(&refused_leases, __ATOMIC_SEQ_CST); ++i) {
        apr_sleep(200);
    }
    assert_int_equal(abb_store_release(site->store, &session->key, holder, NULL), APR_SUCCESS);
    pthread_join(thread, NULL);
    assert_true(refused_leases > 0);
    check_answered(&asker.outcome, ABB_ROLE_OWNER);
    assert_int_equal(server_count(site->server, ACME), 1);
}

static void crowds_of_two_sessions_do_not_wait_for_each_other(void **state)
{
    site_t *site = *state;
    const char *first = create_session(site, SECONDS(7200), NULL, 0);
    const char *second = create_session(site, SECONDS(7200), NULL, 0);
    server_rule_t slow =
        server_json(ACME, 200, site_membership_body("acme", "owner", site->p), site->p);
    asker_t askers[2];
    pthread_t threads[2];

    slow.delay = 500;
    server_add(site->server, slow);
    start_asker(&askers[0], &threads[0], site, first, "acme", apr_time_now());
    start_asker(&askers[1], &threads[1], site, second, "acme", apr_time_now());
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    check_answered(&askers[0].outcome, ABB_ROLE_OWNER);
    check_answered(&askers[1].outcome, ABB_ROLE_OWNER);
    assert_int_equal(site->server->in_flight_max, 2);
}

/* ---- a holder that dies -------------------------------------------------- */

static void a_lease_that_runs_out_is_taken_over(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(0), NULL, 0);
    abb_session_t *session = find(site, cookie, site->p);
    apr_time_t start = apr_time_now();
    apr_uint64_t holder;
    outcome_t outcome;

    site_add_ada(site);
    assert_int_equal(
        abb_store_lease(site->store, &session->key, apr_time_from_msec(600), start, &holder, NULL),
        APR_SUCCESS);
    outcome = ask(site, cookie);
    check_answered(&outcome, ABB_ROLE_OWNER);
    assert_true(apr_time_now() - start >= apr_time_from_msec(600));
    assert_true(apr_time_now() - start < SECONDS(3));
    check_refreshed(site, cookie, 1, 1);
}

static apr_status_t shorten_lease(void *engine, const abb_store_key_t *key,
                                  apr_interval_time_t duration, apr_time_t now,
                                  apr_uint64_t *holder, abb_error_t *err)
{
    return plain->lease(engine, key, apr_time_from_msec(600), now, holder, err);
}

/* A child is killed while Bitbucket keeps its refresh waiting; another takes its place. */
static void a_killed_holder_is_replaced(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(0), NULL, 0);
    server_rule_t silent = server_ending(SITE_POST_TOKEN, SERVER_HANG);
    outcome_t outcome;
    pid_t child;

    silent.times = 1;
    server_add(site->server, silent);
    site_add_ada(site);
    child = fork();
    if (child == 0) {
        site->sessions.store = spy_on(site->store, site->p);
        spying.lease = shorten_lease;
        ask(site, cookie);
        _exit(0);
    }
    assert_true(child > 0);
    wait_for_requests(site->server, SITE_POST_TOKEN, 1);
    unit_kill_child(child);
    outcome = ask(site, cookie);
    check_answered(&outcome, ABB_ROLE_OWNER);
    assert_string_equal(stored_tokens(site, cookie).access_token, "access-1");
    assert_int_equal(server_count(site->server, SITE_POST_TOKEN), 2);
    assert_int_equal(server_count(site->server, ACME), 1);
}

/* Nobody waits for ever, and waiting ends no session. */
static void waiting_for_a_holder_has_an_end(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(0), NULL, 0);
    abb_session_t *session = find(site, cookie, site->p);
    apr_time_t start = apr_time_now();
    apr_uint64_t holder;
    outcome_t outcome;

    site->bitbucket.http_settings.total_timeout = apr_time_from_msec(10);
    assert_int_equal(
        abb_store_lease(site->store, &session->key, SECONDS(600), start, &holder, NULL),
        APR_SUCCESS);
    outcome = ask(site, cookie);
    assert_int_equal(outcome.status, ABB_EUPSTREAM);
    assert_int_equal(outcome.err.status, ABB_EUPSTREAM);
    assert_true(apr_time_now() - start < SECONDS(10));
    assert_int_equal(server_count(site->server, ""), 0);
    assert_non_null(find(site, cookie, site->p));
}

static apr_status_t spy_lease(void *engine, const abb_store_key_t *key,
                              apr_interval_time_t duration, apr_time_t now, apr_uint64_t *holder,
                              abb_error_t *err)
{
    leased_for = duration;
    return plain->lease(engine, key, duration, now, holder, err);
}

/* Role and member asked, refused; refreshed; both asked again. */
static void the_lease_outlives_the_longest_job(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
    outcome_t outcome;

    site_add_ada(site);
    site->bitbucket.http_settings.total_timeout = SECONDS(10);
    site->sessions.store = spy_on(site->store, site->p);
    spying.lease = spy_lease;
    outcome = ask(site, cookie);
    check_answered(&outcome, ABB_ROLE_OWNER);
    assert_true(leased_for >= 5 * SECONDS(10));
}

/* ---- the account --------------------------------------------------------- */

#define OTHER_USER_BODY \
    "{\"type\":\"user\",\"uuid\":\"{0b01f37b-b1b2-40c5-8c5e-1a39f4b5e645}\",\"username\":\"bob\"}"

static outcome_t ask_more(site_t *site, const char *cookie, const abb_recheck_question_t *question,
                          abb_recheck_manner_t manner)
{
    abb_recheck_t recheck = {&site->sessions, &site->bitbucket};
    outcome_t outcome;

    memset(&outcome, 0, sizeof(outcome));
    abb_error_clear(&outcome.err);
    outcome.session = find(site, cookie, site->p);
    assert_non_null(outcome.session);
    outcome.status = abb_recheck_session(&recheck, outcome.session, question, manner,
                                         &outcome.notes, site->p, &outcome.err);
    return outcome;
}

static outcome_t ask_account(site_t *site, const char *cookie)
{
    abb_recheck_question_t question = {1, NULL, 0, apr_time_now(), 0};

    return ask_more(site, cookie, &question, ABB_RECHECK_WAIT);
}

static void the_account_is_renewed(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
    apr_time_t before = apr_time_now();
    abb_record_private_t part;
    outcome_t outcome;

    site_add_ada(site);
    outcome = ask_account(site, cookie);
    assert_int_equal(outcome.status, APR_SUCCESS);
    outcome.session = find(site, cookie, site->p);
    assert_string_equal(outcome.session->record.account.username, "ada");
    assert_string_equal(outcome.session->record.account.email, "ada@example.com");
    assert_true(outcome.session->record.account_checked_at >= before);
    assert_int_equal(server_count(site->server, ""), 2);
    assert_int_equal(
        abb_session_reload(&site->sessions, outcome.session, apr_time_now(), &part, site->p, NULL),
        APR_SUCCESS);
    assert_string_equal(part.raw_user, SITE_USER_BODY);
    /* What is known is not asked again. */
    outcome =
        ask_more(site, cookie, &(abb_recheck_question_t){1, NULL, 0, before, 0}, ABB_RECHECK_WAIT);
    assert_int_equal(outcome.status, APR_SUCCESS);
    assert_false(outcome.notes.has_asked);
    assert_int_equal(server_count(site->server, ""), 2);
}

static void account_and_rows_are_asked_at_the_same_time(void **state)
{
    static const char *const workspaces[] = {"acme", "beta", "acme"};
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
    abb_recheck_question_t question = {1, workspaces, 3, apr_time_now(), 0};
    outcome_t outcome;

    site_add_ada(site);
    site_add_membership(site, "beta", "member");
    outcome = ask_more(site, cookie, &question, ABB_RECHECK_WAIT);
    check_answered(&outcome, ABB_ROLE_OWNER);
    assert_int_equal(role_in(&outcome, "beta"), ABB_ROLE_MEMBER);
    assert_int_equal(server_count(site->server, ""), 4);
}

static void an_account_that_cannot_be_used_ends_the_session(void **state)
{
    static const char *const bodies[] = {
        "{\"type\":\"user\",\"uuid\":\"{" SITE_USER "}\",\"account_status\":\"inactive\"}",
        "{\"type\":\"app_user\",\"uuid\":\"{" SITE_USER "}\"}",
    };
    site_t *site = *state;

    for (apr_size_t i = 0; i < UNIT_COUNT(bodies); ++i) {
        const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
        outcome_t outcome;

        server_forget_rules(site->server);
        server_add_json(site->server, SITE_GET_USER, 200, bodies[i]);
        site_add_ada(site);
        outcome = ask_account(site, cookie);
        check_ended(site, &outcome, cookie);
        assert_false(outcome.notes.is_alarming);
    }
}

/* Nothing that came with such tokens counts, whether they are new or not. */
static void tokens_of_another_account_end_the_session(void **state)
{
    site_t *site = *state;

    for (int is_refreshed = 0; is_refreshed <= 1; ++is_refreshed) {
        const char *cookie = create_session(site, SECONDS(is_refreshed ? 0 : 7200), NULL, 0);
        outcome_t outcome;

        server_forget_rules(site->server);
        server_add_json(site->server, SITE_GET_USER, 200, OTHER_USER_BODY);
        site_add_ada(site);
        outcome = is_refreshed ? ask(site, cookie) : ask_account(site, cookie);
        check_ended(site, &outcome, cookie);
        assert_true(outcome.notes.is_alarming);
        assert_non_null(strstr(outcome.err.text, SITE_USER));
    }
}

/* Whose the new token is cannot be proved, so the row that came with it is not kept. */
static void an_unproved_token_proves_nothing(void **state)
{
    site_t *site = *state;
    abb_grant_t row = {"acme", "acme", SITE_WORKSPACE, ABB_ROLE_MEMBER,
                       apr_time_now() - SECONDS(30)};
    const char *cookie = create_session(site, SECONDS(0), &row, 1);
    outcome_t outcome;

    server_add_json(site->server, SITE_GET_USER, 503, PLAIN);
    site_add_ada(site);
    outcome = ask(site, cookie);
    assert_int_equal(outcome.status, ABB_EUPSTREAM);
    outcome.session = find(site, cookie, site->p);
    assert_int_equal(role_in(&outcome, "acme"), ABB_ROLE_MEMBER);
    assert_string_equal(stored_tokens(site, cookie).access_token, "access-1");
}

/* ---- the token itself ---------------------------------------------------- */

static apr_status_t want_token(site_t *site, const char *cookie, apr_interval_time_t until,
                               abb_error_t *err)
{
    abb_recheck_t recheck = {&site->sessions, &site->bitbucket};
    abb_recheck_question_t question = {.since = apr_time_now(),
                                       .token_until = apr_time_now() + until};
    abb_recheck_notes_t notes;

    abb_error_clear(err);
    return abb_recheck_session(&recheck, find(site, cookie, site->p), &question, ABB_RECHECK_WAIT,
                               &notes, site->p, err);
}

static void a_token_that_lasts_is_left_alone(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(300), NULL, 0);
    abb_error_t err;

    assert_int_equal(want_token(site, cookie, SECONDS(120), &err), APR_SUCCESS);
    assert_int_equal(server_count(site->server, SITE_POST_TOKEN), 0);
    assert_int_equal(server_count(site->server, SITE_GET_USER), 0);
}

/* One call for the pair and one that proves whose it is; nothing more is asked. */
static void a_token_that_ends_soon_is_renewed_and_proved(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(100), NULL, 0);
    abb_error_t err;

    site_add_ada(site);
    assert_int_equal(want_token(site, cookie, SECONDS(120), &err), APR_SUCCESS);
    assert_string_equal(stored_tokens(site, cookie).access_token, "access-1");
    assert_false(stored_tokens(site, cookie).is_unproved);
    assert_int_equal(server_count(site->server, SITE_POST_TOKEN), 1);
    assert_int_equal(server_count(site->server, SITE_GET_USER), 1);
    assert_int_equal(server_count(site->server, ACME), 0);
}

/* It is stored, or it would be lost; but it stays unproved until somebody has asked. */
static void what_could_not_be_proved_is_proved_later(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(0), NULL, 0);
    abb_error_t err;

    server_add_json(site->server, SITE_GET_USER, 503, PLAIN);
    site_add_ada(site);
    assert_int_equal(want_token(site, cookie, SECONDS(60), &err), ABB_EUPSTREAM);
    assert_string_equal(stored_tokens(site, cookie).access_token, "access-1");
    assert_true(stored_tokens(site, cookie).is_unproved);
    server_forget_rules(site->server);
    site_add_ada(site);
    assert_int_equal(want_token(site, cookie, SECONDS(60), &err), APR_SUCCESS);
    assert_false(stored_tokens(site, cookie).is_unproved);
    assert_int_equal(server_count(site->server, SITE_POST_TOKEN), 1);
}

static void a_token_of_another_is_nobodys(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(0), NULL, 0);
    abb_error_t err;

    server_add_json(site->server, SITE_GET_USER, 200, OTHER_USER_BODY);
    site_add_ada(site);
    assert_int_equal(want_token(site, cookie, SECONDS(60), &err), APR_NOTFOUND);
    assert_null(find(site, cookie, site->p));
}

/* ---- some answers and some not ------------------------------------------- */

static void what_was_answered_is_kept(void **state)
{
    static const struct {
        const char *wanted;
        int has_account, has_acme, has_beta;
    } cases[] = {
        {SITE_GET_USER, 0, 1, 1},
        {SITE_GET_EMAILS, 0, 1, 1},
        {ACME, 1, 0, 1},
        {"GET /2.0/user/workspaces/beta/permission", 1, 1, 0},
    };
    static const char *const workspaces[] = {"acme", "beta"};
    site_t *site = *state;

    for (apr_size_t i = 0; i < UNIT_COUNT(cases); ++i) {
        const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
        apr_time_t since = apr_time_now();
        abb_recheck_question_t question = {1, workspaces, 2, since, 0};
        outcome_t outcome;

        server_forget_rules(site->server);
        server_add_json(site->server, cases[i].wanted, 500, PLAIN);
        site_add_ada(site);
        site_add_membership(site, "beta", "member");
        outcome = ask_more(site, cookie, &question, ABB_RECHECK_WAIT);
        assert_int_equal(outcome.status, ABB_EUPSTREAM);
        outcome.session = find(site, cookie, site->p);
        assert_int_equal(outcome.session->record.account_checked_at >= since, cases[i].has_account);
        assert_int_equal(role_in(&outcome, "acme"),
                         cases[i].has_acme ? ABB_ROLE_OWNER : ABB_ROLE_NONE);
        assert_int_equal(role_in(&outcome, "beta"),
                         cases[i].has_beta ? ABB_ROLE_MEMBER : ABB_ROLE_NONE);
        assert_true(outcome.session->failed_at >= since);
    }
}

/* ---- another has renewed the tokens -------------------------------------- */

static const char *renewed_cookie;
static site_t *renewed_site;

/* Between the refusal and the second look, another machine stores its pair. */
static void renew_elsewhere(void)
{
    abb_session_t *session = find(renewed_site, renewed_cookie, renewed_site->p);
    abb_record_private_t part;

    assert_int_equal(abb_session_reload(&renewed_site->sessions, session, apr_time_now(), &part,
                                        renewed_site->p, NULL),
                     APR_SUCCESS);
    part.tokens.access_token = "access-9";
    part.tokens.refresh_token = "refresh-9";
    part.tokens.expires_at = apr_time_now() + SECONDS(7200);
    assert_int_equal(abb_session_replace(&renewed_site->sessions, session, &part, apr_time_now(),
                                         renewed_site->p, NULL),
                     APR_SUCCESS);
}

static apr_status_t spy_get(void *engine, const abb_store_key_t *key, abb_store_parts_t parts,
                            apr_time_t now, abb_store_record_t *record, apr_pool_t *p,
                            abb_error_t *err)
{
    if (renewed_cookie && server_count(spied_server, SITE_POST_TOKEN) > 0) {
        spying.get = plain->get;
        renew_elsewhere();
        renewed_cookie = NULL;
    }
    return plain->get(engine, key, parts, now, record, p, err);
}

static void a_refused_refresh_looks_whether_another_was_quicker(void **state)
{
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(0), NULL, 0);
    outcome_t outcome;

    server_add_json(site->server, SITE_POST_TOKEN, 400, REFUSED);
    site_add_ada(site);
    site->sessions.store = spy_on(site->store, site->p);
    spied_server = site->server;
    renewed_site = site;
    renewed_cookie = cookie;
    spying.get = spy_get;
    outcome = ask(site, cookie);
    check_answered(&outcome, ABB_ROLE_OWNER);
    assert_string_equal(stored_tokens(site, cookie).refresh_token, "refresh-9");
    assert_string_equal(
        server_header(server_request(site->server, ACME, 0), "Authorization", site->p),
        "Bearer access-9");
    assert_int_equal(server_count(site->server, SITE_POST_TOKEN), 1);
}

/* ---- manners ------------------------------------------------------------- */

static void who_asks_aside_waits_for_nobody(void **state)
{
    static const char *const workspaces[] = {"acme"};
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
    abb_session_t *session = find(site, cookie, site->p);
    apr_time_t start = apr_time_now();
    abb_recheck_question_t question = {0, workspaces, 1, start, 0};
    apr_uint64_t holder;
    outcome_t outcome;

    site_add_ada(site);
    assert_int_equal(abb_store_lease(site->store, &session->key, SECONDS(30), start, &holder, NULL),
                     APR_SUCCESS);
    outcome = ask_more(site, cookie, &question, ABB_RECHECK_ASIDE);
    assert_int_equal(outcome.status, ABB_ECHANGED);
    assert_true(apr_time_now() - start < SECONDS(1));
    assert_int_equal(server_count(site->server, ""), 0);
    assert_int_equal(abb_store_release(site->store, &session->key, holder, NULL), APR_SUCCESS);
    outcome = ask_more(site, cookie, &question, ABB_RECHECK_ASIDE);
    check_answered(&outcome, ABB_ROLE_OWNER);
}

static void who_follows_asks_nobody(void **state)
{
    static const char *const workspaces[] = {"acme"};
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
    abb_session_t *session = find(site, cookie, site->p);
    apr_time_t start = apr_time_now();
    abb_recheck_question_t question = {0, workspaces, 1, start, 0};
    apr_uint64_t holder;
    outcome_t outcome;

    site_add_ada(site);
    outcome = ask_more(site, cookie, &question, ABB_RECHECK_FOLLOW);
    assert_int_equal(outcome.status, ABB_EBUSY);
    assert_true(apr_time_now() - start < SECONDS(1));
    /* Somebody asks, but takes his time. */
    assert_int_equal(
        abb_store_lease(site->store, &session->key, SECONDS(30), apr_time_now(), &holder, NULL),
        APR_SUCCESS);
    start = apr_time_now();
    outcome = ask_more(site, cookie, &question, ABB_RECHECK_FOLLOW);
    assert_int_equal(outcome.status, ABB_EUPSTREAM);
    assert_true(apr_time_now() - start >= SECONDS(1));
    assert_true(apr_time_now() - start < SECONDS(3));
    assert_int_equal(server_count(site->server, ""), 0);
}

static void who_follows_takes_what_another_brings(void **state)
{
    static const char *const workspaces[] = {"acme"};
    site_t *site = *state;
    const char *cookie = create_session(site, SECONDS(7200), NULL, 0);
    server_rule_t slow =
        server_json(ACME, 200, site_membership_body("acme", "owner", site->p), site->p);
    abb_recheck_question_t question = {0, workspaces, 1, apr_time_now(), 0};
    outcome_t outcome;
    asker_t asker;
    pthread_t thread;

    slow.delay = 300;
    server_add(site->server, slow);
    site_add_ada(site);
    start_asker(&asker, &thread, site, cookie, "acme", question.since);
    wait_for_requests(site->server, ACME, 1);
    outcome = ask_more(site, cookie, &question, ABB_RECHECK_FOLLOW);
    pthread_join(thread, NULL);
    check_answered(&outcome, ABB_ROLE_OWNER);
    assert_false(outcome.notes.has_asked);
    assert_int_equal(server_count(site->server, ""), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SITE_TEST(an_answer_is_kept),
        SITE_TEST(a_kept_answer_is_taken),
        SITE_TEST(an_answer_stored_meanwhile_is_taken),
        SITE_TEST(an_answer_of_the_future_is_asked_again),
        SITE_TEST(a_definite_no_is_an_answer),
        SITE_TEST(other_rows_stay),
        SITE_TEST(withdrawn_roles_are_told),
        SITE_TEST(a_token_with_a_minute_left_is_used),
        SITE_TEST(a_token_with_less_is_refreshed_first),
        SITE_TEST(a_new_pair_is_stored_before_it_is_used),
        SITE_TEST(a_pair_that_cannot_be_stored_is_not_used),
        SITE_TEST(a_pair_survives_a_question_that_fails),
        SITE_TEST(a_refused_token_is_refreshed_once),
        SITE_TEST(a_token_refused_twice_ends_the_session),
        SITE_TEST(a_fresh_token_refused_ends_the_session),
        SITE_TEST(a_refused_refresh_ends_the_session),
        SITE_TEST(without_a_refresh_token_the_session_ends_with_its_token),
        SITE_TEST(could_not_ask_keeps_the_session),
        SITE_TEST(a_silent_bitbucket_keeps_the_session),
        SITE_TEST(the_lease_is_given_back),
        SITE_TEST(a_session_that_ended_stays_ended),
        SITE_TEST(an_ended_session_asks_nobody),
        SITE_TEST(a_session_of_a_lost_key_ends),
        SITE_TEST(a_store_that_fails_ends_nothing),
        SITE_TEST(a_crowd_makes_one_refresh_and_one_question),
        SITE_TEST(a_crowd_with_many_questions_makes_one_refresh),
        SITE_TEST(a_crowd_with_a_refused_token_makes_one_refresh),
        SITE_TEST(a_crowd_whose_session_ends_asks_once),
        SITE_TEST(a_crowd_does_not_ask_one_after_the_other_in_vain),
        SITE_TEST(only_who_asked_notes_a_failure),
        SITE_TEST(a_failure_is_no_answer_for_later),
        SITE_TEST(a_holder_with_nothing_to_ask_is_not_in_vain),
        SITE_TEST(crowds_of_two_sessions_do_not_wait_for_each_other),
        SITE_TEST(a_lease_that_runs_out_is_taken_over),
        SITE_TEST(a_killed_holder_is_replaced),
        SITE_TEST(waiting_for_a_holder_has_an_end),
        SITE_TEST(the_lease_outlives_the_longest_job),
        SITE_TEST(the_account_is_renewed),
        SITE_TEST(account_and_rows_are_asked_at_the_same_time),
        SITE_TEST(an_account_that_cannot_be_used_ends_the_session),
        SITE_TEST(tokens_of_another_account_end_the_session),
        SITE_TEST(an_unproved_token_proves_nothing),
        SITE_TEST(a_token_that_lasts_is_left_alone),
        SITE_TEST(a_token_that_ends_soon_is_renewed_and_proved),
        SITE_TEST(what_could_not_be_proved_is_proved_later),
        SITE_TEST(a_token_of_another_is_nobodys),
        SITE_TEST(what_was_answered_is_kept),
        SITE_TEST(a_refused_refresh_looks_whether_another_was_quicker),
        SITE_TEST(who_asks_aside_waits_for_nobody),
        SITE_TEST(who_follows_asks_nobody),
        SITE_TEST(who_follows_takes_what_another_brings),
    };

    return cmocka_run_group_tests(tests, site_begin, unit_end);
}
