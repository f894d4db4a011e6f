/* t_login: a sign-in costs two rounds, happens once, and only where it began. */
#include "abb_login.h"

#include "abb_text.h"
#include "site.h"

#define NOW apr_time_from_sec(1800000000)
#define SECONDS(n) apr_time_from_sec(n)

typedef struct {
    site_t *site;
    abb_login_t login;
    apr_array_header_t *workspaces;
} place_t;

/* As when a child starts: with the site's keys and audience as they are now. */
static void start_child(place_t *place)
{
    assert_int_equal(abb_ticket_create_sealer(&place->login.tickets, place->site->sessions.keyring,
                                              place->site->sessions.audience, place->site->p, NULL),
                     APR_SUCCESS);
}

static place_t place_of(void **state)
{
    place_t place;

    place.site = *state;
    place.login.sessions = &place.site->sessions;
    place.login.bitbucket = &place.site->bitbucket;
    place.login.mark = NULL;
    start_child(&place);
    place.workspaces = apr_array_make(place.site->p, 4, sizeof(const char *));
    return place;
}

static abb_login_start_t begin_login(const place_t *place, const char *workspaces)
{
    abb_login_start_t start;

    memset(&start, 0, sizeof(start));
    assert_int_equal(abb_login_begin(&place->login, "/wiki?a=b", workspaces, 1, NOW, &start,
                                     place->site->p, NULL),
                     APR_SUCCESS);
    return start;
}

/* The state parameter of an address. */
static const char *state_of(const abb_login_start_t *start, apr_pool_t *p)
{
    const char *state = strstr(start->location, "&state=");

    assert_non_null(state);
    state += strlen("&state=");
    return apr_pstrmemdup(p, state, strcspn(state, "&"));
}

static abb_login_callback_t callback_for(const abb_login_start_t *start, apr_pool_t *p)
{
    abb_login_callback_t callback = {state_of(start, p), "code-1", NULL, NULL};

    return callback;
}

static abb_ticket_t open_attempt(const place_t *place, const abb_login_start_t *start)
{
    abb_login_callback_t callback = callback_for(start, place->site->p);
    abb_ticket_t ticket;

    assert_int_equal(abb_login_open_attempt(&place->login, &callback, start->cookie_value,
                                            NOW + SECONDS(30), &ticket, place->site->p, NULL),
                     APR_SUCCESS);
    return ticket;
}

static apr_status_t finish(const place_t *place, const abb_login_start_t *start,
                           abb_login_result_t *result, abb_error_t *err)
{
    abb_login_callback_t callback = callback_for(start, place->site->p);
    abb_ticket_t ticket = open_attempt(place, start);

    memset(result, 0, sizeof(*result));
    abb_error_clear(err);
    return abb_login_finish(&place->login, &callback, &ticket, place->workspaces, NOW + SECONDS(30),
                            result, place->site->p, err);
}

static apr_int64_t count_records(const site_t *site)
{
    abb_store_figures_t figures;

    abb_store_figures(site->store, &figures);
    return figures.records;
}

/* ---- begin --------------------------------------------------------------- */

static void beginning_asks_and_stores_nothing(void **state)
{
    place_t place = place_of(state);
    abb_login_start_t start = begin_login(&place, "acme");

    assert_int_equal(strncmp(start.location, place.site->bitbucket.authorize_url,
                             strlen(place.site->bitbucket.authorize_url)),
                     0);
    assert_non_null(strstr(start.location, "client_id=key"));
    assert_int_equal(strlen(start.cookie_name), ABB_TICKET_NAME_LENGTH);
    assert_int_equal(strlen(state_of(&start, place.site->p)), ABB_TICKET_STATE_LENGTH);
    assert_null(strstr(start.location, start.cookie_value));
    assert_int_equal(place.site->server->connection_count, 0);
    assert_int_equal(count_records(place.site), 0);
}

static void the_attempt_opens_with_its_cookie(void **state)
{
    place_t place = place_of(state);
    abb_login_start_t start = begin_login(&place, "acme beta");
    abb_ticket_t ticket = open_attempt(&place, &start);

    assert_string_equal(ticket.return_path, "/wiki?a=b");
    assert_string_equal(ticket.workspaces, "acme beta");
    assert_int_equal(ticket.attempt, 1);
    assert_true(ticket.issued_at == NOW);
}

/* A cookie has its bounds; what does not fit is asked on first need. */
static void too_many_workspaces_are_left_out_of_the_ticket(void **state)
{
    place_t place = place_of(state);
    abb_login_start_t start = begin_login(&place, unit_repeat('w', 20000, place.site->p));
    abb_ticket_t ticket = open_attempt(&place, &start);

    assert_string_equal(ticket.workspaces, "");
    assert_true(strlen(start.cookie_value) < 4000);
}

static void check_attempt(const place_t *place, const char *state_text, const char *cookie,
                          apr_time_t now, apr_status_t expected)
{
    abb_login_callback_t callback = {state_text, "code", NULL, NULL};
    abb_ticket_t ticket;
    abb_error_t err;
    apr_status_t status;

    abb_error_clear(&err);
    status = abb_login_open_attempt(&place->login, &callback, cookie, now, &ticket, place->site->p,
                                    &err);
    if (status != expected || (expected != APR_SUCCESS && err.status != expected)) {
        fail_msg("'%s' with '%.40s': %s", state_text, cookie ? cookie : "(none)", err.text);
    }
}

static void foreign_attempts_are_refused(void **state)
{
    place_t place = place_of(state);
    apr_pool_t *p = place.site->p;
    abb_login_start_t start = begin_login(&place, "");
    abb_login_start_t other = begin_login(&place, "");
    const char *own = state_of(&start, p);

    check_attempt(&place, own, start.cookie_value, NOW, APR_SUCCESS);
    check_attempt(&place, own, NULL, NOW, ABB_EATTEMPT);
    check_attempt(&place, own, "", NOW, ABB_EATTEMPT);
    check_attempt(&place, own, "garbage", NOW, ABB_EATTEMPT);
    check_attempt(&place, own, other.cookie_value, NOW, ABB_EATTEMPT);
    check_attempt(&place, state_of(&other, p), start.cookie_value, NOW, ABB_EATTEMPT);
    check_attempt(&place, "", start.cookie_value, NOW, ABB_EATTEMPT);
    check_attempt(&place, "x", start.cookie_value, NOW, ABB_EATTEMPT);
    check_attempt(&place, apr_pstrcat(p, own, "A", NULL), start.cookie_value, NOW, ABB_EATTEMPT);
    check_attempt(&place, unit_repeat('A', 44, p), start.cookie_value, NOW, ABB_EATTEMPT);
}

/* The number of the attempt is in the state too: it cannot be changed alone. */
static void a_changed_attempt_number_is_refused(void **state)
{
    place_t place = place_of(state);
    abb_login_start_t start = begin_login(&place, "");
    char *changed = apr_pstrdup(place.site->p, state_of(&start, place.site->p));

    for (const char *c = "0123456789ABCD"; *c; ++c) {
        if (*c != state_of(&start, place.site->p)[0]) {
            changed[0] = *c;
            check_attempt(&place, changed, start.cookie_value, NOW, ABB_EATTEMPT);
        }
    }
}

static void old_and_future_attempts_are_refused(void **state)
{
    place_t place = place_of(state);
    abb_login_start_t start = begin_login(&place, "");
    const char *own = state_of(&start, place.site->p);

    check_attempt(&place, own, start.cookie_value, NOW + ABB_TICKET_LIFETIME, APR_SUCCESS);
    check_attempt(&place, own, start.cookie_value, NOW + ABB_TICKET_LIFETIME + SECONDS(1),
                  ABB_EATTEMPT);
    check_attempt(&place, own, start.cookie_value, NOW - SECONDS(119), APR_SUCCESS);
    check_attempt(&place, own, start.cookie_value, NOW - SECONDS(121), ABB_EATTEMPT);
}

static void attempts_of_another_site_or_key_are_refused(void **state)
{
    place_t place = place_of(state);
    abb_login_start_t start = begin_login(&place, "");
    const char *own = state_of(&start, place.site->p);

    assert_int_equal(abb_session_set_audience(&place.site->sessions, "key",
                                              "https://evil.example.com", place.site->p, NULL),
                     APR_SUCCESS);
    start_child(&place);
    check_attempt(&place, own, start.cookie_value, NOW, ABB_EATTEMPT);
    assert_int_equal(
        abb_session_set_audience(&place.site->sessions, "key", SITE_ORIGIN, place.site->p, NULL),
        APR_SUCCESS);
    start_child(&place);
    check_attempt(&place, own, start.cookie_value, NOW, APR_SUCCESS);
    place.site->ring.keys[0].bytes[0] ^= 1;
    start_child(&place);
    check_attempt(&place, own, start.cookie_value, NOW, ABB_EATTEMPT);
}

/* ---- the callback's query ------------------------------------------------ */

static void a_good_query_is_read(void **state)
{
    place_t place = place_of(state);
    abb_login_callback_t callback;

    memset(&callback, 0x5a, sizeof(callback));
    assert_int_equal(
        abb_login_read_callback("code=a%2Fb&state=s&other=x", &callback, place.site->p, NULL),
        APR_SUCCESS);
    assert_string_equal(callback.code, "a/b");
    assert_string_equal(callback.state, "s");
    assert_null(callback.error);
    assert_null(callback.error_description);
    assert_int_equal(abb_login_read_callback("error=access_denied&error_description=no+way&state=s",
                                             &callback, place.site->p, NULL),
                     APR_SUCCESS);
    assert_null(callback.code);
    assert_string_equal(callback.error, "access_denied");
    assert_string_equal(callback.error_description, "no way");
}

static void bad_queries_are_refused(void **state)
{
    static const char *const queries[] = {
        "",
        "state=s",
        "code=c",
        "error=e",
        "code=c&error=e&state=s",
        "code=c&code=c&state=s",
        "code=c&code=d&state=s",
        "code=c&state=s&state=s",
        "code=c&state=s&state=t",
        "code=c&%63ode=d&state=s",
        "code=c&CODE=d&state=s",
        "error=e&error=f&state=s",
        "error=e&error_description=a&error_description=b&state=s",
        "code=&state=s",
        "code=c%00d&state=s",
        "code=c%2&state=s",
        "code=c%zz&state=s",
        "state=s&=c",
    };
    place_t place = place_of(state);

    for (apr_size_t i = 0; i < UNIT_COUNT(queries); ++i) {
        abb_login_callback_t callback;
        abb_error_t err;

        abb_error_clear(&err);
        if (abb_login_read_callback(queries[i], &callback, place.site->p, &err) != ABB_EINPUT ||
            err.status != ABB_EINPUT) {
            fail_msg("'%s' is read", queries[i]);
        }
    }
}

static void errors_have_their_meaning(void **state)
{
    static const struct {
        const char *error;
        apr_status_t meaning;
    } cases[] = {
        {"access_denied", ABB_ECANCELLED},
        {"server_error", ABB_EUPSTREAM},
        {"temporarily_unavailable", ABB_EUPSTREAM},
        {"invalid_scope", ABB_ESCOPE},
        {"unauthorized_client", ABB_ECLIENT},
        {"invalid_request", ABB_ECLIENT},
        {"unsupported_response_type", ABB_ECLIENT},
        {"ACCESS_DENIED", ABB_ECLIENT},
        {"", ABB_ECLIENT},
        {"something\r\nnew", ABB_ECLIENT},
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(cases); ++i) {
        abb_login_callback_t callback = {"s", NULL, cases[i].error, i % 2 ? "the \x1b why" : NULL};
        abb_error_t err;

        abb_error_clear(&err);
        assert_int_equal(abb_login_explain_refusal(&callback, &err), cases[i].meaning);
        assert_int_equal(err.status, cases[i].meaning);
        assert_string_not_equal(err.text, "");
        assert_null(strpbrk(err.text, "\r\n\x1b"));
        if (i % 2) {
            assert_non_null(strstr(err.text, "why"));
        }
    }
}

/* ---- finish -------------------------------------------------------------- */

static void a_sign_in_begins_a_session(void **state)
{
    place_t place = place_of(state);
    site_t *site = place.site;
    abb_login_start_t start = begin_login(&place, "acme");
    abb_record_private_t part;
    abb_login_result_t result;
    abb_session_t *session;
    abb_error_t err;

    site_add_ada(site);
    assert_int_equal(finish(&place, &start, &result, &err), APR_SUCCESS);
    assert_int_equal(err.status, APR_SUCCESS);
    assert_string_equal(result.return_path, "/wiki?a=b");
    assert_null(result.doubt);
    assert_int_equal(abb_session_find(&site->sessions, result.cookie, NOW + SECONDS(31), &session,
                                      site->p, NULL),
                     APR_SUCCESS);
    assert_memory_equal(&session->key, &result.session->key, sizeof(session->key));
    assert_string_equal(session->record.account.uuid, SITE_USER);
    assert_string_equal(session->record.account.email, "ada@example.com");
    assert_true(session->record.created_at == NOW + SECONDS(30));
    assert_true(session->record.account_checked_at == NOW + SECONDS(30));
    assert_int_equal(session->record.grant_count, 1);
    assert_int_equal(session->record.grants[0].role, ABB_ROLE_OWNER);
    assert_true(session->record.grants[0].checked_at == NOW + SECONDS(30));
    assert_int_equal(
        abb_session_reload(&site->sessions, session, NOW + SECONDS(31), &part, site->p, NULL),
        APR_SUCCESS);
    assert_string_equal(part.tokens.access_token, "access-1");
    assert_string_equal(part.tokens.refresh_token, "refresh-1");
    assert_true(part.tokens.expires_at == NOW + SECONDS(30 + 7200));
    assert_string_equal(part.raw_user, SITE_USER_BODY);
}

static void a_sign_in_takes_two_rounds(void **state)
{
    place_t place = place_of(state);
    site_t *site = place.site;
    abb_login_start_t start = begin_login(&place, "acme beta");
    abb_login_result_t result;
    abb_error_t err;
    server_rule_t rules[5];

    rules[0] = server_json(SITE_POST_TOKEN, 200, site_tokens_body("a", "r", 60, site->p), site->p);
    rules[1] = server_json(SITE_GET_USER, 200, SITE_USER_BODY, site->p);
    rules[2] = server_json(SITE_GET_EMAILS, 200, SITE_EMAILS_BODY, site->p);
    rules[3] = server_json(site_permission("acme", site->p), 200,
                           site_membership_body("acme", "owner", site->p), site->p);
    rules[4] = server_json(site_permission("beta", site->p), 404, "{}", site->p);
    for (int i = 0; i < 5; ++i) {
        rules[i].delay = 300;
        server_add(site->server, rules[i]);
    }
    assert_int_equal(finish(&place, &start, &result, &err), APR_SUCCESS);
    assert_int_equal(server_count(site->server, ""), 5);
    assert_string_equal(server_request(site->server, "", 0)->line, SITE_POST_TOKEN);
    assert_int_equal(server_count(site->server, "POST"), 1);
    assert_int_equal(server_count(site->server, SITE_GET_EMAILS), 1);
    assert_int_equal(server_count(site->server, "GET /2.0/user/workspaces/"), 2);
    /* All of the second round were under way at once, and the first was not. */
    assert_int_equal(site->server->in_flight_max, 4);
}

/* Those of the requested place first, each once, eight at most. */
static void the_requested_places_workspaces_come_first(void **state)
{
    place_t place = place_of(state);
    site_t *site = place.site;
    abb_login_start_t start = begin_login(&place, "w8 w9  w0 w9");
    abb_login_result_t result;
    abb_error_t err;

    site_add_ada(site);
    for (int i = 0; i < 12; ++i) {
        const char *name = apr_psprintf(site->p, "w%d", i);

        site_add_membership(site, name, "member");
        APR_ARRAY_PUSH(place.workspaces, const char *) = name;
    }
    assert_int_equal(finish(&place, &start, &result, &err), APR_SUCCESS);
    assert_int_equal(server_count(site->server, "GET /2.0/user/workspaces/"),
                     ABB_BITBUCKET_WORKSPACES_MAX);
    assert_int_equal(result.session->record.grant_count, ABB_BITBUCKET_WORKSPACES_MAX);
    assert_string_equal(result.session->record.grants[0].asked, "w8");
    assert_string_equal(result.session->record.grants[1].asked, "w9");
    assert_string_equal(result.session->record.grants[2].asked, "w0");
    for (int i = 3; i < ABB_BITBUCKET_WORKSPACES_MAX; ++i) {
        assert_string_equal(result.session->record.grants[i].asked,
                            apr_psprintf(site->p, "w%d", i - 2));
    }
}

static void a_completed_attempt_is_refused_and_recalled(void **state)
{
    place_t place = place_of(state);
    site_t *site = place.site;
    abb_login_start_t start = begin_login(&place, "acme");
    abb_login_callback_t callback = callback_for(&start, site->p);
    abb_login_result_t result;
    abb_error_t err;

    site_add_ada(site);
    assert_null(abb_login_recall(&place.login, &callback, NOW, site->p));
    assert_int_equal(finish(&place, &start, &result, &err), APR_SUCCESS);
    /* The session, the attempt, and whose slug acme is. */
    assert_int_equal(count_records(site), 3);
    assert_int_equal(finish(&place, &start, &result, &err), ABB_EATTEMPT);
    assert_int_equal(err.status, ABB_EATTEMPT);
    /* Nobody was asked, and the code was not sent again. */
    assert_int_equal(server_count(site->server, "POST"), 1);
    assert_int_equal(count_records(site), 3);
    assert_string_equal(abb_login_recall(&place.login, &callback, NOW + SECONDS(60), site->p),
                        "/wiki?a=b");
    assert_null(abb_login_recall(&place.login, &callback, NOW + SECONDS(30) + ABB_TICKET_LIFETIME,
                                 site->p));
    callback.state = unit_repeat('A', 44, site->p);
    assert_null(abb_login_recall(&place.login, &callback, NOW, site->p));
    callback.state = "x";
    assert_null(abb_login_recall(&place.login, &callback, NOW, site->p));
}

/* The record of an attempt outlives the last moment its ticket opens. */
static void an_attempt_stays_spent_while_its_ticket_opens(void **state)
{
    place_t place = place_of(state);
    site_t *site = place.site;
    abb_login_start_t start = begin_login(&place, "acme");
    abb_login_callback_t callback = callback_for(&start, site->p);
    abb_login_result_t result;
    abb_error_t err;

    site_add_ada(site);
    assert_int_equal(finish(&place, &start, &result, &err), APR_SUCCESS);
    check_attempt(&place, callback.state, start.cookie_value, NOW + ABB_TICKET_LIFETIME,
                  APR_SUCCESS);
    assert_non_null(abb_login_recall(&place.login, &callback, NOW + ABB_TICKET_LIFETIME, site->p));
}

typedef struct {
    const place_t *place;
    abb_login_start_t start;
    abb_ticket_t ticket;
    apr_status_t status;
} racer_t;

static void *race(void *data)
{
    racer_t *racer = data;
    abb_login_result_t result;
    abb_login_callback_t callback;
    abb_error_t err;
    apr_pool_t *p;

    apr_pool_create(&p, NULL);
    callback = callback_for(&racer->start, p);
    abb_error_clear(&err);
    racer->status = abb_login_finish(&racer->place->login, &callback, &racer->ticket,
                                     racer->place->workspaces, NOW + SECONDS(30), &result, p, &err);
    apr_pool_destroy(p);
    return NULL;
}

/* One callback sent several times at once (a reload, a prefetch) begins one session. */
static void of_several_callbacks_at_once_one_wins(void **state)
{
    place_t place = place_of(state);
    site_t *site = place.site;
    abb_login_start_t start = begin_login(&place, "acme");
    racer_t racers[8];
    pthread_t threads[8];
    int winners = 0;

    site_add_ada(site);
    for (apr_size_t i = 0; i < UNIT_COUNT(racers); ++i) {
        racers[i].place = &place;
        racers[i].start = start;
        racers[i].ticket = open_attempt(&place, &start);
        assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
    }
    for (apr_size_t i = 0; i < UNIT_COUNT(racers); ++i) {
        pthread_join(threads[i], NULL);
        winners += racers[i].status == APR_SUCCESS;
        assert_true(racers[i].status == APR_SUCCESS || racers[i].status == ABB_EATTEMPT);
    }
    assert_int_equal(winners, 1);
    assert_int_equal(count_records(site), 3);
}

static void a_failed_sign_in_leaves_nothing(void **state)
{
    static const struct {
        const char *wanted;
        int status;
        const char *body;
        apr_status_t meaning;
    } cases[] = {
        {SITE_POST_TOKEN, 400, "{\"error\":\"invalid_grant\"}", ABB_EGRANT},
        {SITE_POST_TOKEN, 400, "{\"error\":\"unauthorized_client\"}", ABB_ECLIENT},
        {SITE_POST_TOKEN, 503, "", ABB_EUPSTREAM},
        {SITE_POST_TOKEN, 410, "", ABB_EUPSTREAM},
        {SITE_POST_TOKEN, 429, "", ABB_ELIMIT},
        {SITE_GET_USER, 401, "", ABB_EUPSTREAM},
        {SITE_GET_USER, 410, "", ABB_EUPSTREAM},
        {SITE_GET_USER, 403,
         "{\"error\":{\"message\":\"m\",\"detail\":{\"required\":[\"account\"]}}}", ABB_ESCOPE},
        {SITE_GET_USER, 200, "{\"type\":\"app_user\"}", ABB_EACCOUNT},
        {SITE_GET_EMAILS, 500, "", ABB_EUPSTREAM},
        {"GET /2.0/user/workspaces/acme/permission", 503, "", ABB_EUPSTREAM},
        {"GET /2.0/user/workspaces/acme/permission", 429, "", ABB_ELIMIT},
        {"GET /2.0/user/workspaces/acme/permission", 200, "{}", ABB_EUPSTREAM},
    };
    place_t place = place_of(state);
    site_t *site = place.site;

    for (apr_size_t i = 0; i < UNIT_COUNT(cases); ++i) {
        abb_login_start_t start = begin_login(&place, "acme");
        abb_login_callback_t callback = callback_for(&start, site->p);
        abb_login_result_t result;
        abb_error_t err;

        server_forget_rules(site->server);
        server_add_json(site->server, cases[i].wanted, cases[i].status, cases[i].body);
        site_add_ada(site);
        if (finish(&place, &start, &result, &err) != cases[i].meaning ||
            err.status != cases[i].meaning) {
            fail_msg("%s %d: %s", cases[i].wanted, cases[i].status, err.text);
        }
        assert_null(result.cookie);
        assert_int_equal(count_records(site), 0);
        assert_null(abb_login_recall(&place.login, &callback, NOW, site->p));
    }
}

static void without_the_email_scope_people_get_in(void **state)
{
    place_t place = place_of(state);
    site_t *site = place.site;
    abb_login_start_t start = begin_login(&place, "acme");
    abb_login_result_t result;
    abb_error_t err;

    server_add_json(site->server, SITE_GET_EMAILS, 403,
                    "{\"error\":{\"message\":\"m\",\"detail\":{\"required\":[\"email\"],"
                    "\"granted\":[\"account\"]}}}");
    site_add_ada(site);
    assert_int_equal(finish(&place, &start, &result, &err), APR_SUCCESS);
    assert_null(result.session->record.account.email);
    assert_non_null(strstr(result.doubt, "email"));
}

static void a_refused_workspace_is_no_failure(void **state)
{
    place_t place = place_of(state);
    site_t *site = place.site;
    abb_login_start_t start = begin_login(&place, "beta acme");
    abb_login_result_t result;
    abb_error_t err;

    site_add_ada(site);
    server_add_json(site->server, site_permission("beta", site->p), 403, "{}");
    assert_int_equal(finish(&place, &start, &result, &err), APR_SUCCESS);
    assert_int_equal(abb_record_find_grant(&result.session->record, "beta")->role, ABB_ROLE_NONE);
    assert_int_equal(abb_record_find_grant(&result.session->record, "acme")->role, ABB_ROLE_OWNER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        SITE_TEST(beginning_asks_and_stores_nothing),
        SITE_TEST(the_attempt_opens_with_its_cookie),
        SITE_TEST(too_many_workspaces_are_left_out_of_the_ticket),
        SITE_TEST(foreign_attempts_are_refused),
        SITE_TEST(a_changed_attempt_number_is_refused),
        SITE_TEST(old_and_future_attempts_are_refused),
        SITE_TEST(attempts_of_another_site_or_key_are_refused),
        SITE_TEST(a_good_query_is_read),
        SITE_TEST(bad_queries_are_refused),
        SITE_TEST(errors_have_their_meaning),
        SITE_TEST(a_sign_in_begins_a_session),
        SITE_TEST(a_sign_in_takes_two_rounds),
        SITE_TEST(the_requested_places_workspaces_come_first),
        SITE_TEST(a_completed_attempt_is_refused_and_recalled),
        SITE_TEST(an_attempt_stays_spent_while_its_ticket_opens),
        SITE_TEST(of_several_callbacks_at_once_one_wins),
        SITE_TEST(a_failed_sign_in_leaves_nothing),
        SITE_TEST(without_the_email_scope_people_get_in),
        SITE_TEST(a_refused_workspace_is_no_failure),
    };

    return cmocka_run_group_tests(tests, site_begin, unit_end);
}
