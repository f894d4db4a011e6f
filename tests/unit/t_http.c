/* t_http: exchanges are whole, bounded in time and size, and sent once. */
#include "abb_http.h"

#include <curl/curl.h>
#include <netinet/in.h>

#include "abb_authorities.h"
#include "server.h"
#include "unit.h"

#define ANSWER_MAX (64 * 1024)
/* The limit that the time-out tests set, and how late they may be. */
#define LIMIT apr_time_from_sec(1)
#define LATENESS apr_time_from_msec(1500)

/* What a test has: a server, connections to it, and settings. */
typedef struct {
    apr_pool_t *p;
    server_t *server;
    abb_http_t *http;
    abb_http_settings_t settings;
} place_t;

static int create_place(void **state)
{
    place_t *place;
    void *p;

    if (unit_create_pool(&p) != 0) {
        return -1;
    }
    place = apr_pcalloc(p, sizeof(*place));
    place->p = p;
    place->settings.connect_timeout = apr_time_from_sec(5);
    place->settings.total_timeout = apr_time_from_sec(20);
    place->settings.user_agent = "unit-test/1";
    place->server = server_start(p);
    *state = place;
    return abb_http_create(&place->http, p) == APR_SUCCESS ? 0 : -1;
}

static int destroy_place(void **state)
{
    apr_pool_destroy(((place_t *)*state)->p);
    return 0;
}

#define PLACE_TEST(function) cmocka_unit_test_setup_teardown(function, create_place, destroy_place)

static abb_http_request_t get_request(const char *url)
{
    abb_http_request_t request = {url, NULL, NULL, ANSWER_MAX, 0, 0};

    return request;
}

static abb_http_answer_t perform(place_t *place, const abb_http_request_t *request)
{
    abb_http_answer_t answer;

    memset(&answer, 0x5a, sizeof(answer));
    abb_http_perform(place->http, &place->settings, request, &answer, 1, place->p);
    assert_non_null(answer.body);
    assert_int_equal(answer.body[answer.body_size], '\0');
    return answer;
}

static abb_http_answer_t get(place_t *place, const char *path)
{
    abb_http_request_t request = get_request(server_url(place->server, path, place->p));

    return perform(place, &request);
}

static abb_http_answer_t post(place_t *place, const char *path, const char *form)
{
    abb_http_request_t request = get_request(server_url(place->server, path, place->p));

    request.form = form;
    return perform(place, &request);
}

static void check_whole(const abb_http_answer_t *answer, int status, const char *body)
{
    if (answer->error.status != APR_SUCCESS) {
        fail_msg("no whole answer: %s", answer->error.text);
    }
    assert_int_equal(answer->status, status);
    assert_int_equal(answer->body_size, strlen(body));
    assert_memory_equal(answer->body, body, strlen(body));
}

static void check_none(const abb_http_answer_t *answer)
{
    if (answer->error.status != ABB_EUPSTREAM) {
        fail_msg("reason %d, status %d, %lu bytes", answer->error.status, answer->status,
                 (unsigned long)answer->body_size);
    }
    assert_int_equal(answer->status, 0);
    assert_int_equal(answer->body_size, 0);
    assert_string_not_equal(answer->error.text, "");
}

/* ---- what comes back ----------------------------------------------------- */

static void an_answer_comes_back_as_it_was_sent(void **state)
{
    place_t *place = *state;
    abb_http_answer_t answer;

    server_add(place->server, server_answer("GET /a?b=c", 200,
                                            "CONTENT-TYPE:\t application/json; charset=utf-8 \r\n"
                                            "Retry-After: 17\r\nX-Other: x\r\nX-Date: no\r\n"
                                            "date: Mon, 30 Nov 2026 01:02:03 GMT\r\n",
                                            "{\"a\": 1}\n", place->p));
    answer = get(place, "/a?b=c");
    check_whole(&answer, 200, "{\"a\": 1}\n");
    assert_string_equal(answer.content_type, "application/json; charset=utf-8");
    assert_string_equal(answer.retry_after, "17");
    assert_string_equal(answer.date, "Mon, 30 Nov 2026 01:02:03 GMT");
    assert_string_equal(answer.error.text, "");
}

static void each_status_is_an_answer(void **state)
{
    static const int codes[] = {200, 201, 204, 301, 302, 400, 401,
                                403, 404, 410, 429, 500, 503, 599};
    place_t *place = *state;

    for (apr_size_t i = 0; i < UNIT_COUNT(codes); ++i) {
        const char *body = codes[i] == 204 ? "" : "said";
        abb_http_answer_t answer;

        server_forget_rules(place->server);
        server_add(place->server, server_answer("GET /", codes[i], "", body, place->p));
        answer = get(place, "/");
        check_whole(&answer, codes[i], body);
        assert_null(answer.content_type);
        assert_null(answer.retry_after);
    }
}

static void a_body_may_hold_any_byte(void **state)
{
    static const char bytes[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n\0\xff\r\n\0";
    place_t *place = *state;
    abb_http_answer_t answer;

    server_add(place->server, server_bytes("GET /", bytes, sizeof(bytes) - 1));
    answer = get(place, "/");
    assert_int_equal(answer.status, 200);
    assert_int_equal(answer.body_size, 5);
    assert_memory_equal(answer.body, "\0\xff\r\n\0", 5);
}

static void chunked_and_closed_bodies_are_whole(void **state)
{
    static const char chunked[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                                  "4\r\nabcd\r\n3\r\nefg\r\n0\r\n\r\n";
    static const char closed[] = "HTTP/1.1 200 OK\r\n\r\nabcdefg";
    place_t *place = *state;
    server_rule_t rule = server_bytes("GET /closed", closed, sizeof(closed) - 1);
    abb_http_answer_t answer;

    rule.end = SERVER_CLOSE;
    server_add(place->server, rule);
    server_add(place->server, server_bytes("GET /chunked", chunked, sizeof(chunked) - 1));
    answer = get(place, "/closed");
    check_whole(&answer, 200, "abcdefg");
    answer = get(place, "/chunked");
    check_whole(&answer, 200, "abcdefg");
}

static void a_cut_answer_is_none(void **state)
{
    static const char *const answers[] = {
        "",
        "H",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123456789",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabc",
        "garbage without a status line\r\n\r\n{}",
        "{\"a\": 1}",
    };
    place_t *place = *state;

    for (apr_size_t i = 0; i < UNIT_COUNT(answers); ++i) {
        server_rule_t rule = server_bytes("GET /", answers[i], strlen(answers[i]));
        abb_http_answer_t answer;

        rule.end = SERVER_CLOSE;
        server_forget_rules(place->server);
        server_add(place->server, rule);
        answer = get(place, "/");
        check_none(&answer);
    }
}

/* ---- limits of size ------------------------------------------------------ */

static void check_size(place_t *place, apr_size_t size, apr_size_t most, int is_chunked)
{
    char *body = unit_repeat('x', size, place->p);
    const char *head = is_chunked ? apr_psprintf(place->p,
                                                 "HTTP/1.1 200 OK\r\nTransfer-Encoding: "
                                                 "chunked\r\n\r\n%lx\r\n",
                                                 (unsigned long)size)
                                  : apr_psprintf(place->p,
                                                 "HTTP/1.1 200 OK\r\n"
                                                 "Content-Length: %lu\r\n\r\n",
                                                 (unsigned long)size);
    const char *bytes = apr_pstrcat(place->p, head, body, is_chunked ? "\r\n0\r\n\r\n" : "", NULL);
    abb_http_request_t request = get_request(server_url(place->server, "/", place->p));
    abb_http_answer_t answer;

    server_forget_rules(place->server);
    server_add(place->server, server_bytes("GET /", bytes, strlen(bytes)));
    request.answer_max = most;
    answer = perform(place, &request);
    if (size <= most) {
        check_whole(&answer, 200, body);
    }
    else {
        check_none(&answer);
        assert_non_null(strstr(answer.error.text, "too long"));
    }
}

static void a_body_has_a_largest_size(void **state)
{
    for (int is_chunked = 0; is_chunked <= 1; ++is_chunked) {
        check_size(*state, 1, 1, is_chunked);
        check_size(*state, 2, 1, is_chunked);
        check_size(*state, 4095, 4096, is_chunked);
        check_size(*state, 4096, 4096, is_chunked);
        check_size(*state, 4097, 4096, is_chunked);
        check_size(*state, ANSWER_MAX, ANSWER_MAX, is_chunked);
        check_size(*state, ANSWER_MAX + 1, ANSWER_MAX, is_chunked);
        check_size(*state, 1024 * 1024, 1024 * 1024, is_chunked);
        check_size(*state, 1024 * 1024 + 1, 1024 * 1024, is_chunked);
        check_size(*state, 4 * 1024 * 1024, 1024 * 1024, is_chunked);
    }
}

static void an_endless_body_is_left_at_once(void **state)
{
    place_t *place = *state;
    char *body = unit_repeat('x', ANSWER_MAX + 1, place->p);
    const char *bytes = apr_pstrcat(place->p, "HTTP/1.1 200 OK\r\n\r\n", body, NULL);
    server_rule_t rule = server_bytes("GET /", bytes, strlen(bytes));
    apr_time_t start = apr_time_now();
    abb_http_answer_t answer;

    rule.end = SERVER_HANG;
    server_add(place->server, rule);
    answer = get(place, "/");
    check_none(&answer);
    assert_true(apr_time_now() - start < LATENESS);
}

static void check_headers(place_t *place, apr_size_t size, int is_whole)
{
    apr_size_t rest = strlen("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
    char *lines = unit_repeat('x', size - rest, place->p);
    const char *bytes;
    abb_http_answer_t answer;

    for (apr_size_t at = 0; at < size - rest; at += 100) {
        apr_size_t left = size - rest - at;
        apr_size_t length = left < 200 ? left : 100;

        memcpy(lines + at, "X-A: ", 5);
        memcpy(lines + at + length - 2, "\r\n", 2);
        if (left < 200) {
            break;
        }
    }
    bytes =
        apr_pstrcat(place->p, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", lines, "\r\n{}", NULL);
    server_forget_rules(place->server);
    server_add(place->server, server_bytes("GET /", bytes, strlen(bytes)));
    answer = get(place, "/");
    if (is_whole) {
        check_whole(&answer, 200, "{}");
    }
    else {
        check_none(&answer);
        assert_non_null(strstr(answer.error.text, "too long"));
    }
}

static void header_lines_have_a_largest_size(void **state)
{
    check_headers(*state, 1000, 1);
    check_headers(*state, ABB_HTTP_HEADERS_MAX, 1);
    check_headers(*state, ABB_HTTP_HEADERS_MAX + 1, 0);
    check_headers(*state, 4 * ABB_HTTP_HEADERS_MAX, 0);
}

/* ---- connections --------------------------------------------------------- */

static void exchanges_run_at_the_same_time(void **state)
{
    enum { COUNT = 10 };
    place_t *place = *state;
    abb_http_request_t requests[COUNT];
    abb_http_answer_t answers[COUNT];

    for (int i = 0; i < COUNT; ++i) {
        const char *path = apr_psprintf(place->p, "/%d", i);
        server_rule_t rule = server_json(apr_pstrcat(place->p, "GET ", path, NULL), 200,
                                         apr_psprintf(place->p, "{\"i\": %d}", i), place->p);

        rule.delay = 300;
        server_add(place->server, rule);
        requests[i] = get_request(server_url(place->server, path, place->p));
    }
    abb_http_perform(place->http, &place->settings, requests, answers, COUNT, place->p);
    for (int i = 0; i < COUNT; ++i) {
        check_whole(&answers[i], 200, apr_psprintf(place->p, "{\"i\": %d}", i));
    }
    assert_int_equal(place->server->in_flight_max, COUNT);
}

static void one_failure_leaves_the_others_alone(void **state)
{
    place_t *place = *state;
    abb_http_request_t requests[3];
    abb_http_answer_t answers[3];

    server_add_json(place->server, "GET /good", 200, "{}");
    server_add(place->server, server_ending("GET /bad", SERVER_CLOSE));
    requests[0] = get_request(server_url(place->server, "/good", place->p));
    requests[1] = get_request(server_url(place->server, "/bad", place->p));
    requests[2] = get_request(server_url(place->server, "/good", place->p));
    abb_http_perform(place->http, &place->settings, requests, answers, 3, place->p);
    check_whole(&answers[0], 200, "{}");
    check_none(&answers[1]);
    check_whole(&answers[2], 200, "{}");
}

static void a_get_uses_the_kept_connection(void **state)
{
    place_t *place = *state;

    server_add_json(place->server, "GET /", 200, "{}");
    for (int i = 0; i < 5; ++i) {
        abb_http_answer_t answer = get(place, "/");

        check_whole(&answer, 200, "{}");
        assert_int_equal(server_request(place->server, "", i)->connection, 1);
    }
}

static void a_form_uses_a_connection_of_its_own(void **state)
{
    place_t *place = *state;
    abb_http_answer_t answer;

    server_add_json(place->server, "GET /", 200, "{}");
    server_add_json(place->server, "POST /", 200, "{}");
    for (int i = 0; i < 3; ++i) {
        answer = get(place, "/");
        check_whole(&answer, 200, "{}");
        answer = post(place, "/", "a=b");
        check_whole(&answer, 200, "{}");
    }
    for (int i = 0; i < 3; ++i) {
        int connection = server_request(place->server, "POST", i)->connection;

        for (int j = 0; j < 2 * i + 1; ++j) {
            assert_int_not_equal(server_request(place->server, "", j)->connection, connection);
        }
    }
}

static void a_dead_kept_connection_costs_a_get_nothing(void **state)
{
    place_t *place = *state;
    server_rule_t first = server_json("GET /", 200, "{}", place->p);
    abb_http_answer_t answer;

    first.times = 1;
    first.end = SERVER_CLOSE;
    server_add(place->server, first);
    server_add_json(place->server, "GET /", 200, "[]");
    answer = get(place, "/");
    check_whole(&answer, 200, "{}");
    answer = get(place, "/");
    check_whole(&answer, 200, "[]");
}

static void a_form_is_sent_once_even_without_an_answer(void **state)
{
    place_t *place = *state;
    abb_http_answer_t answer;

    server_add_json(place->server, "GET /", 200, "{}");
    server_add(place->server, server_ending("POST /", SERVER_CLOSE));
    for (int i = 0; i < 3; ++i) {
        answer = get(place, "/");
        check_whole(&answer, 200, "{}");
    }
    answer = post(place, "/", "code=x");
    check_none(&answer);
    assert_int_equal(server_count(place->server, "POST"), 1);
    answer = post(place, "/", "code=y");
    check_none(&answer);
    assert_int_equal(server_count(place->server, "POST"), 2);
}

/* ---- what is sent -------------------------------------------------------- */

static void a_get_sends_no_body(void **state)
{
    place_t *place = *state;
    const server_request_t *request;
    abb_http_answer_t answer;

    server_add_json(place->server, "GET /a/b%20c?d=%7B", 200, "{}");
    answer = get(place, "/a/b%20c?d=%7B");
    check_whole(&answer, 200, "{}");
    request = server_request(place->server, "", 0);
    assert_string_equal(request->body, "");
    assert_null(server_header(request, "Content-Length", place->p));
    assert_null(server_header(request, "Authorization", place->p));
    assert_null(server_header(request, "Accept-Encoding", place->p));
    assert_null(server_header(request, "Cookie", place->p));
    assert_string_equal(server_header(request, "Accept", place->p), "application/json");
    assert_string_equal(server_header(request, "User-Agent", place->p), "unit-test/1");
}

static void a_form_is_sent_as_a_form(void **state)
{
    char *form = unit_repeat('x', 20000, ((place_t *)*state)->p);
    place_t *place = *state;
    const server_request_t *request;
    abb_http_answer_t answer;

    memcpy(form, "a=%20&b=", 8);
    server_add_json(place->server, "POST /t", 200, "{}");
    answer = post(place, "/t", form);
    check_whole(&answer, 200, "{}");
    request = server_request(place->server, "", 0);
    assert_string_equal(request->body, form);
    assert_string_equal(server_header(request, "Content-Type", place->p),
                        "application/x-www-form-urlencoded");
    assert_null(server_header(request, "Expect", place->p));
}

static void authorization_goes_only_where_it_is_given(void **state)
{
    place_t *place = *state;
    abb_http_request_t requests[3];
    abb_http_answer_t answers[3];

    server_add_json(place->server, "GET /*", 200, "{}");
    for (int round = 0; round < 2; ++round) {
        for (int i = 0; i < 3; ++i) {
            requests[i] =
                get_request(server_url(place->server, apr_psprintf(place->p, "/%d", i), place->p));
        }
        requests[1].authorization = "Bearer secret";
        abb_http_perform(place->http, &place->settings, requests, answers, 3, place->p);
        assert_null(server_header(server_request(place->server, "GET /0", round), "Authorization",
                                  place->p));
        assert_string_equal(server_header(server_request(place->server, "GET /1", round),
                                          "Authorization", place->p),
                            "Bearer secret");
        assert_null(server_header(server_request(place->server, "GET /2", round), "Authorization",
                                  place->p));
    }
}

static void redirects_are_not_followed(void **state)
{
    static const int codes[] = {301, 302, 303, 307, 308};
    place_t *place = *state;
    server_t *other = server_start(place->p);
    abb_http_request_t request = get_request(server_url(place->server, "/", place->p));

    server_add_json(other, "GET /*", 200, "{\"evil\": true}");
    server_add_json(place->server, "GET /elsewhere", 200, "{\"evil\": true}");
    request.authorization = "Bearer secret";
    for (apr_size_t i = 0; i < UNIT_COUNT(codes); ++i) {
        abb_http_answer_t answer;
        const char *location = i % 2 ? "/elsewhere" : server_url(other, "/", place->p);

        server_add(place->server,
                   server_answer("GET /", codes[i],
                                 apr_psprintf(place->p, "Location: %s\r\n", location), "away",
                                 place->p));
        answer = perform(place, &request);
        check_whole(&answer, codes[i], "away");
        server_forget_rules(place->server);
    }
    assert_int_equal(server_count(other, ""), 0);
    assert_int_equal(other->connection_count, 0);
    assert_int_equal(server_count(place->server, "GET /elsewhere"), 0);
}

static void content_codings_are_not_undone(void **state)
{
    /* "{}" by gzip */
    static const char bytes[] =
        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 22\r\n\r\n"
        "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00";
    place_t *place = *state;
    abb_http_answer_t answer;

    server_add(place->server, server_bytes("GET /", bytes, sizeof(bytes) - 1));
    answer = get(place, "/");
    assert_int_equal(answer.status, 200);
    assert_int_equal(answer.body_size, 22);
    assert_memory_equal(answer.body, "\x1f\x8b", 2);
}

static void the_environment_names_no_proxy(void **state)
{
    static const char *const names[] = {"http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy",
                                        "ALL_PROXY"};
    place_t *place = *state;
    server_t *proxy = server_start(place->p);
    abb_http_answer_t answer;

    server_add_json(proxy, "GET *", 200, "{\"evil\": true}");
    server_add_json(place->server, "GET /", 200, "{}");
    for (apr_size_t i = 0; i < UNIT_COUNT(names); ++i) {
        assert_int_equal(setenv(names[i], proxy->origin, 1), 0);
    }
    answer = get(place, "/");
    for (apr_size_t i = 0; i < UNIT_COUNT(names); ++i) {
        unsetenv(names[i]);
    }
    check_whole(&answer, 200, "{}");
    assert_int_equal(proxy->connection_count, 0);
}

static void the_named_proxy_is_used(void **state)
{
    place_t *place = *state;
    server_t *proxy = server_start(place->p);
    abb_http_answer_t answer;

    server_add_json(proxy, apr_pstrcat(place->p, "GET ", place->server->origin, "/", NULL), 200,
                    "{\"by\": \"proxy\"}");
    place->settings.proxy = proxy->origin;
    answer = get(place, "/");
    check_whole(&answer, 200, "{\"by\": \"proxy\"}");
    assert_int_equal(place->server->connection_count, 0);
}

/* ---- limits of time ------------------------------------------------------ */

static void check_gives_up(place_t *place, const char *url)
{
    abb_http_request_t request = get_request(url);
    apr_time_t start = apr_time_now();
    apr_interval_time_t taken;
    abb_http_answer_t answer = perform(place, &request);

    taken = apr_time_now() - start;
    check_none(&answer);
    if (taken < LIMIT - apr_time_from_msec(50) || taken > LIMIT + LATENESS) {
        fail_msg("took %ld ms", (long)apr_time_as_msec(taken));
    }
}

/* A listener whose backlog is full: connecting gets no answer. */
static void a_connection_has_a_time_limit(void **state)
{
    place_t *place = *state;
    struct sockaddr_in address = {.sin_family = AF_INET};
    int sockets[8];
    int port;
    int listener = server_listener(0, &port);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)port);
    for (apr_size_t i = 0; i < UNIT_COUNT(sockets); ++i) {
        sockets[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        assert_true(sockets[i] >= 0);
        (void)connect(sockets[i], (struct sockaddr *)&address, sizeof(address));
    }
    place->settings.connect_timeout = LIMIT;
    check_gives_up(place, apr_psprintf(place->p, "http://127.0.0.1:%d/", port));
    for (apr_size_t i = 0; i < UNIT_COUNT(sockets); ++i) {
        close(sockets[i]);
    }
    close(listener);
}

static void check_stall(place_t *place, server_rule_t rule)
{
    place->settings.total_timeout = LIMIT;
    server_add(place->server, rule);
    check_gives_up(place, server_url(place->server, "/", place->p));
}

static void silence_has_a_time_limit(void **state)
{
    check_stall(*state, server_ending("GET /", SERVER_HANG));
}

static void a_stalled_body_has_a_time_limit(void **state)
{
    place_t *place = *state;
    server_rule_t rule = server_json("GET /", 200, "{\"some\": \"thing\"}", place->p);

    rule.cut = rule.size - 3;
    rule.end = SERVER_HANG;
    check_stall(place, rule);
}

static void a_dripping_body_has_a_time_limit(void **state)
{
    place_t *place = *state;
    server_rule_t rule = server_json("GET /", 200, unit_repeat('x', 300, place->p), place->p);

    rule.cut = rule.size - 300;
    rule.end = SERVER_DRIP;
    rule.interval = 100;
    check_stall(place, rule);
}

static void dripping_header_lines_have_a_time_limit(void **state)
{
    place_t *place = *state;
    server_rule_t rule = server_json("GET /", 200, "{}", place->p);

    rule.cut = 0;
    rule.end = SERVER_DRIP;
    rule.interval = 100;
    check_stall(place, rule);
}

static void a_refused_connection_is_told_at_once(void **state)
{
    place_t *place = *state;
    apr_time_t start = apr_time_now();
    abb_http_request_t request;
    abb_http_answer_t answer;
    int port;

    close(server_listener(1, &port));
    request = get_request(apr_psprintf(place->p, "http://127.0.0.1:%d/secret?a=secret", port));
    answer = perform(place, &request);
    check_none(&answer);
    assert_true(apr_time_now() - start < LATENESS);
    assert_non_null(strstr(answer.error.text, apr_psprintf(place->p, "http://127.0.0.1:%d", port)));
    assert_null(strstr(answer.error.text, "secret"));
}

/* ---- threads ------------------------------------------------------------- */

typedef struct {
    place_t *place;
    int failures;
} worker_t;

static void *work(void *data)
{
    worker_t *worker = data;
    apr_pool_t *p;

    apr_pool_create(&p, NULL);
    for (int i = 0; i < 20; ++i) {
        abb_http_request_t requests[2];
        abb_http_answer_t answers[2];

        requests[0] = get_request(server_url(worker->place->server, "/a", p));
        requests[1] = get_request(server_url(worker->place->server, "/b", p));
        requests[1].form = i % 4 ? NULL : "x=y";
        abb_http_perform(worker->place->http, &worker->place->settings, requests, answers, 2, p);
        worker->failures += answers[0].status != 200 || strcmp(answers[0].body, "\"a\"") != 0;
        worker->failures += answers[1].status != 200 || strcmp(answers[1].body, "\"b\"") != 0;
        apr_pool_clear(p);
    }
    apr_pool_destroy(p);
    return NULL;
}

static void threads_do_not_get_each_others_answers(void **state)
{
    place_t *place = *state;
    worker_t workers[12];
    pthread_t threads[12];

    server_add_json(place->server, "GET /a", 200, "\"a\"");
    server_add_json(place->server, "GET /b", 200, "\"b\"");
    server_add_json(place->server, "POST /b", 200, "\"b\"");
    for (apr_size_t i = 0; i < UNIT_COUNT(threads); ++i) {
        workers[i].place = place;
        workers[i].failures = 0;
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (apr_size_t i = 0; i < UNIT_COUNT(threads); ++i) {
        pthread_join(threads[i], NULL);
        assert_int_equal(workers[i].failures, 0);
    }
    assert_int_equal(server_count(place->server, "POST"), 12 * 5);
}

static void *get_slowly(void *data)
{
    worker_t *worker = data;
    apr_pool_t *p;

    apr_pool_create(&p, NULL);
    abb_http_request_t request = get_request(server_url(worker->place->server, "/slow", p));
    abb_http_answer_t answer;
    abb_http_perform(worker->place->http, &worker->place->settings, &request, &answer, 1, p);
    worker->failures = answer.status != 200;
    apr_pool_destroy(p);
    return NULL;
}

static void get_at_once(place_t *place, int count)
{
    worker_t workers[32] = {{0}};
    pthread_t threads[32];

    for (int i = 0; i < count; ++i) {
        workers[i].place = place;
        assert_int_equal(pthread_create(&threads[i], NULL, get_slowly, &workers[i]), 0);
    }
    for (int i = 0; i < count; ++i) {
        pthread_join(threads[i], NULL);
        assert_int_equal(workers[i].failures, 0);
    }
}

/* A new connection costs all of TLS: a crowd that comes again finds those it had. */
static void a_crowd_finds_its_connections_again(void **state)
{
    enum { CROWD = 24 };
    place_t *place = *state;
    server_rule_t rule = server_json("GET /slow", 200, "{}", place->p);
    int newest = 0;

    rule.delay = 300;
    server_add(place->server, rule);
    get_at_once(place, CROWD);
    for (int i = 0; i < CROWD; ++i) {
        int connection = server_request(place->server, "", i)->connection;

        newest = connection > newest ? connection : newest;
    }
    get_at_once(place, CROWD);
    for (int i = CROWD; i < 2 * CROWD; ++i) {
        assert_in_range(server_request(place->server, "", i)->connection, 1, newest);
    }
}

/* ---- URLs ---------------------------------------------------------------- */

/* ---- the end ------------------------------------------------------------- */

static void *stop_soon(void *data)
{
    apr_sleep(apr_time_from_msec(200));
    abb_http_stop(((place_t *)data)->http);
    return NULL;
}

static void a_stop_ends_what_is_under_way(void **state)
{
    place_t *place = *state;
    apr_time_t began = apr_time_now();
    abb_http_answer_t answer;
    pthread_t thread;

    server_add(place->server, server_ending("GET /", SERVER_HANG));
    assert_int_equal(pthread_create(&thread, NULL, stop_soon, place), 0);
    answer = get(place, "/");
    pthread_join(thread, NULL);
    assert_int_equal(answer.status, 0);
    assert_int_equal(answer.error.status, ABB_EUPSTREAM);
    assert_true(apr_time_now() - began < LIMIT + LATENESS);
    /* And nothing begins any more. */
    answer = get(place, "/later");
    assert_int_equal(answer.error.status, ABB_EUPSTREAM);
    assert_int_equal(server_count(place->server, "GET /later"), 0);
}

static void good_urls_may_be_talked_to(void **state)
{
    static const char *const urls[] = {
        "https://bitbucket.org/site/oauth2/authorize",
        "https://api.bitbucket.org/2.0",
        "https://api.bitbucket.org:8443/2.0?a=b&c=%7Bd%7D",
        "https://[2001:db8::1]/2.0",
        "https://localhost/",
        "HTTPS://API.BITBUCKET.ORG/2.0",
        "http://127.0.0.1/",
        "http://127.0.0.1:8080/2.0",
        "http://127.255.255.254:1/",
        "http://localhost:8080/2.0",
        "http://[::1]:8080/2.0",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(urls); ++i) {
        unit_equal(abb_http_check_url(urls[i]), NULL, urls[i]);
    }
}

static void bad_urls_are_refused(void **state)
{
    static const char *const urls[] = {
        "",
        "/",
        "//bitbucket.org/",
        "bitbucket.org",
        "api.bitbucket.org/2.0",
        "https:",
        "https://",
        "https://:443/",
        "http://bitbucket.org/",
        "http://127.evil.com/",
        "http://127.0.0.1.evil.com/",
        "http://localhost.evil.com/",
        "http://localhost.evil.com:127/",
        "http://localhostevil/",
        "http://evil.com/127.0.0.1",
        "http://evil.com/?localhost",
        "http://128.0.0.1/",
        "http://126.255.255.255/",
        "http://10.0.0.1/",
        "http://0.0.0.0/",
        "http://[::2]/",
        "http://[::ffff:10.0.0.1]/",
        "https://user@bitbucket.org/",
        "https://user:pass@bitbucket.org/",
        "https://:pass@bitbucket.org/",
        "https://@bitbucket.org/",
        "http://127.0.0.1@evil.com/",
        "http://localhost:80@evil.com/",
        "http://evil.com\\@127.0.0.1/",
        "https://bitbucket.org/a b",
        " https://bitbucket.org/",
        "https://bitbucket.org/ ",
        "https://bitbucket.org/\n",
        "https://bitbucket.org/\r\nX: y",
        "https://bitbucket.org/\t",
        "https://bitbucket.org/\x01",
        "https://bitbucket.org/\x7f",
        "https://bitbucket.org/\xc3\xa4",
        "https://b\xc3\xa4.org/",
        "https://bitbucket.org/#fragment",
        "https://bitbucket.org#",
        "https://bitbucket.org:99999/",
        "https://bitbucket.org:x/",
        "https://bitbucket org/",
        "ftp://bitbucket.org/",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "javascript://127.0.0.1/%0aalert(1)",
        "data:text/html,x",
        "gopher://127.0.0.1/",
        "ws://127.0.0.1/",
        "httpx://127.0.0.1/",
    };

    for (apr_size_t i = 0; i < UNIT_COUNT(urls); ++i) {
        const char *fault = abb_http_check_url(urls[i]);

        if (!fault || !*fault) {
            fail_msg("'%s' may be talked to", urls[i]);
        }
    }
}

/*
 * Processor time of some exchanges that get as far as the first bytes of TLS, with
 * these authorities; each with connections that know nothing of those before.
 */
static apr_interval_time_t cost_of_tls(place_t *place, const char *ca_file)
{
    abb_http_request_t request =
        get_request(apr_psprintf(place->p, "https://127.0.0.1:%d/", place->server->port));
    struct timespec start, end;

    place->settings.ca_file = ca_file;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
    for (int i = 0; i < 8; ++i) {
        assert_int_equal(abb_http_create(&place->http, place->p), APR_SUCCESS);
        assert_int_equal(perform(place, &request).error.status, ABB_EUPSTREAM);
    }
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
    return apr_time_from_sec(end.tv_sec - start.tv_sec) + (end.tv_nsec - start.tv_nsec) / 1000;
}

/* A burst of new connections would otherwise spend its time with the certificates of strangers. */
static void a_connection_does_not_read_all_authorities(void **state)
{
    place_t *place = *state;
    const curl_version_info_data *libcurl = curl_version_info(CURLVERSION_NOW);

    /* The server waits for the end of a header that TLS does not have. */
    place->settings.total_timeout = apr_time_from_msec(100);
    if (strncmp(libcurl->ssl_version, "OpenSSL/", 8) != 0 ||
        !abb_authorities_are_hashed(libcurl->capath, libcurl->cainfo, place->p)) {
        print_message("the system has no directory of hashed authorities for OpenSSL\n");
        skip();
    }
    cost_of_tls(place, libcurl->cainfo);
    assert_true(cost_of_tls(place, NULL) * 3 < cost_of_tls(place, libcurl->cainfo));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLACE_TEST(an_answer_comes_back_as_it_was_sent),
        PLACE_TEST(each_status_is_an_answer),
        PLACE_TEST(a_body_may_hold_any_byte),
        PLACE_TEST(chunked_and_closed_bodies_are_whole),
        PLACE_TEST(a_cut_answer_is_none),
        PLACE_TEST(a_body_has_a_largest_size),
        PLACE_TEST(an_endless_body_is_left_at_once),
        PLACE_TEST(header_lines_have_a_largest_size),
        PLACE_TEST(a_stop_ends_what_is_under_way),
        PLACE_TEST(exchanges_run_at_the_same_time),
        PLACE_TEST(one_failure_leaves_the_others_alone),
        PLACE_TEST(a_get_uses_the_kept_connection),
        PLACE_TEST(a_form_uses_a_connection_of_its_own),
        PLACE_TEST(a_dead_kept_connection_costs_a_get_nothing),
        PLACE_TEST(a_form_is_sent_once_even_without_an_answer),
        PLACE_TEST(a_get_sends_no_body),
        PLACE_TEST(a_form_is_sent_as_a_form),
        PLACE_TEST(authorization_goes_only_where_it_is_given),
        PLACE_TEST(redirects_are_not_followed),
        PLACE_TEST(content_codings_are_not_undone),
        PLACE_TEST(the_environment_names_no_proxy),
        PLACE_TEST(the_named_proxy_is_used),
        PLACE_TEST(a_connection_has_a_time_limit),
        PLACE_TEST(silence_has_a_time_limit),
        PLACE_TEST(a_stalled_body_has_a_time_limit),
        PLACE_TEST(a_dripping_body_has_a_time_limit),
        PLACE_TEST(dripping_header_lines_have_a_time_limit),
        PLACE_TEST(a_refused_connection_is_told_at_once),
        PLACE_TEST(threads_do_not_get_each_others_answers),
        PLACE_TEST(a_crowd_finds_its_connections_again),
        PLACE_TEST(a_connection_does_not_read_all_authorities),
        cmocka_unit_test(good_urls_may_be_talked_to),
        cmocka_unit_test(bad_urls_are_refused),
    };

    return cmocka_run_group_tests(tests, unit_begin, unit_end);
}
