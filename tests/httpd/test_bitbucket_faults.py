"""Bitbucket ill, slow, rude or hostile during a sign-in: never access, never a crash,
an answer in time, a page with a reference."""

from __future__ import annotations

import base64
import signal
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from harness import tags
from harness.config import VirtualHost, free_port, place
from harness.fixtures import lasting, wanted_mpms
from harness.names import LOST, Names
from harness.names import SECONDS as NAME_SECONDS
from harness.server import Server
from harness.simulator import permission_route, uuid_of
from harness.waiting import eventually


ROUTES = ("token", "user", "emails", "permission")
SECONDS = 2     # AuthBitbucketHTTPTimeout 1s 2s
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def own_site(shared_simulator):
    """A server with short time-outs, of this file's own."""
    host = VirtualHost("AuthBitbucketHTTPTimeout 1s 2s\n" + place("team", "Require bitbucket-workspace acme"))
    with lasting(Server([host], shared_simulator, wanted_mpms()[0])):
        yield host


@pytest.fixture
def host(own_site, log_watch):
    return own_site


def attempt(browser, host, simulator, route, **fault):
    """A sign-in of mark with one fault. Returns the answer to the callback and its seconds."""
    callback = browser.walk_to_callback(host.url("/team/page.html"), "mark")
    simulator.fault(route, **fault)
    started = time.monotonic()
    answer = browser.get(callback)
    return answer, time.monotonic() - started


def assert_refused(browser, host, answer, status=503):
    assert (answer.status, answer.location) == (status, None), answer
    assert answer.reference
    assert (answer.header("Retry-After") is not None) == (status == 503)
    assert browser.session_value() is None
    assert browser.get(host.url("/team/page.html"), {"Accept": "*/*"}).status == 401


def as_json(body: bytes | str) -> dict[str, str]:
    """A fault that answers 200 with this text as JSON."""
    data = body.encode() if isinstance(body, str) else body
    return {"body_base64": base64.b64encode(data).decode(), "content_type": "application/json"}


@contextmanager
def somebody_elses_port():
    """Nobody has connected to it by the end, which would have brought a token."""
    with socket.create_server(("127.0.0.1", 0)) as evil:
        yield evil.getsockname()[1]
        # A connection is in the queue by the time that its client has given up.
        evil.setblocking(False)
        with pytest.raises(BlockingIOError):
            evil.accept()


USER = '"type":"user","uuid":"{%s}","account_id":"x","username":"mark_miller","account_status":"active"' % uuid_of("mark")
UNUSABLE = {
    "cut": {"cut": 20},
    "cut at once": {"cut": 0},
    "empty": as_json(""),
    "blank": as_json("   "),
    "HTML": {"status": 200, "body": "<html><body>We are down for maintenance</body></html>"},
    "HTML called JSON": as_json("<html></html>"),
    "JSON called text": {"content_type": "text/plain"},
    "JSON called HTML": {"content_type": "text/html"},
    "no content type": {"content_type": ""},
    "an array": as_json("[]"),
    "a text": as_json('"user"'),
    "a number": as_json("17"),
    "null": as_json("null"),
    "an empty object": as_json("{}"),
    "two objects": as_json("{}{}"),
    "a comma too many": as_json("{" + USER + ",}"),
    "deep nesting": as_json("{" + USER + ',"x":' + "[" * 1000 + "]" * 1000 + "}"),
    "very deep nesting": as_json("[" * 200_000),
    "no end": as_json("{" + USER),
    "invalid UTF-8": as_json(b'{"type":"user\xff","uuid":"\xc3\x28"}'),
    "NUL escape": as_json('{"type":"us\\u0000er","uuid":"x\\u0000"}'),
    "NUL byte": as_json(b'{"type":"user","uuid":"x"}\x00\x00'),
    "lone surrogate": as_json('{"type":"\\ud800","uuid":"x"}'),
    "UTF-16": as_json('{"type":"user"}'.encode("utf-16")),
    "huge number": as_json('{"type":1e999,"values":1e999,"access_token":1e999}'),
    "500": {"status": 500}, "502": {"status": 502}, "503": {"status": 503}, "504": {"status": 504},
    "201": {"status": 201}, "204": {"status": 204, "body": ""}, "299": {"status": 299}, "400": {"status": 400},
    "405": {"status": 405}, "418": {"status": 418},
    "429": {"status": 429},
    "429 as text": {"status": 429, "body": "Rate limit for this resource has been exceeded", "content_type": "text/plain"},
    "redirect": {"redirect": "http://127.0.0.1:1/2.0/user"},
    "redirect with content": {"status": 301, "body": "{}", "headers": {"Location": "https://evil.example/"}},
    "closed": {"close": True},
    "no HTTP": {"raw": "hello\r\n\r\n"},
    "HTTP/0.9": {"raw": "{" + USER + "}"},
    "SSH": {"raw": "SSH-2.0-OpenSSH_9.2\r\n"},
    "a bad length": {"raw": "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: -5\r\n\r\n{}"},
    "two lengths": {"raw": "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-Length: 200\r\n\r\n{}"},
    "bad chunks": {"raw": "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n"},
    "a very long header": {"raw": "HTTP/1.1 200 OK\r\nX: " + "a" * 300_000 + "\r\n\r\n{}"},
    "many headers": {"header_flood": 5000},
    "10 MB": {"body": "{" + USER + ',"x":"' + "a" * 1000 + '"}', "repeat": 10_000, "content_type": "application/json"},
    "2 MB of blanks": {"body": " " * 1024, "repeat": 2048, "content_type": "application/json"},
    "a gzip bomb": {"gzip_bomb": 100 * MEGABYTE},
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("kind", UNUSABLE)
def test_unusable_answers(host, browser, simulator, logs, figure, route, kind):
    logs.expect(tags.ANSWERED)
    answer, seconds = attempt(browser, host, simulator, route, **UNUSABLE[kind])
    figure("page 503 after", seconds, "s")
    assert_refused(browser, host, answer)
    assert seconds < SECONDS + 1.5
    assert len(simulator.calls("token")) == 1, "a code is sent once"


SLOW = {
    "never answers": {"hang": True},
    "stops in the middle": {"hang_after": 10},
    "one byte a second": {"drip": 1},
    "slow header": {"drip": 5, "drip_headers": True},
    "too late": {"delay": 6},
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("kind", SLOW)
def test_slow_answers(host, browser, simulator, logs, figure, route, kind):
    logs.expect(tags.ANSWERED)
    answer, seconds = attempt(browser, host, simulator, route, **SLOW[kind])
    figure("time-out of 2 s, page 503 after", seconds, "s")
    assert_refused(browser, host, answer)
    assert SECONDS - 0.5 < seconds < SECONDS + 1.5
    assert len(simulator.calls("token")) == 1


def test_bitbucket_is_not_there(start_server, browser, simulator, logs, figure):
    """Strangers are redirected as ever; whoever comes back is told at once."""
    logs.expect(tags.ANSWERED)
    port = free_port()
    host = VirtualHost(f"AuthBitbucketTokenURL http://127.0.0.1:{port}/token\n" + place("any", "Require valid-user"))
    start_server(host)
    callback = browser.walk_to_callback(host.url("/any/page.html"), "mark")
    started = time.monotonic()
    answer = browser.get(callback)
    seconds = time.monotonic() - started
    figure("page 503 after", 1000 * seconds, "ms")
    assert seconds < 1
    assert answer.status == 503 and answer.reference and browser.session_value() is None


def test_a_host_that_does_not_resolve(start_server, browser, logs, figure):
    logs.expect(tags.ANSWERED)
    host = VirtualHost("AuthBitbucketAPIURL https://bitbucket.invalid/2.0\nAuthBitbucketHTTPTimeout 2s 3s\n"
                       + place("any", "Require valid-user"))
    start_server(host)
    started = time.monotonic()
    answer = browser.sign_in(host.url("/any/page.html"), "mark")
    seconds = time.monotonic() - started
    figure("page 503 after", seconds, "s")
    assert answer.status == 503 and seconds < 6


@pytest.mark.parametrize("end", ["SIGUSR1", "SIGHUP", "SIGTERM"])
def test_a_name_server_that_does_not_answer(start_server, scratch, browser, logs, figure, end):
    """Nobody waits for the threads that ask it, neither a request nor the end of a child."""
    logs.expect(tags.ANSWERED)
    names = Names(scratch)
    host = VirtualHost(f"AuthBitbucketAPIURL https://{LOST}/2.0\nAuthBitbucketHTTPTimeout 1s 3s\n"
                       + place("any", "Require valid-user"))
    server = start_server(host, preload=[names.library], environment=names.environment)
    callback = browser.walk_to_callback(host.url("/any/page.html"), "mark")
    started = time.monotonic()
    answer = browser.get(callback)
    seconds = time.monotonic() - started
    figure("page 503 after", seconds, "s")
    assert answer.status == 503 and seconds < 6
    before = set(server.processes()) - {server.pid}
    if end == "SIGTERM":
        server.stop()
    else:
        server.reload(getattr(signal, end))
        while before & set(server.processes()):
            time.sleep(0.02)
    assert names.questions() and time.monotonic() - started < NAME_SECONDS / 2
    assert "exit signal" not in server.error_log.read_text()


def test_no_redirect_is_followed(host, browser, simulator, logs):
    """The listener that a redirect names sees no connection: it would get the token."""
    logs.expect(tags.ANSWERED)
    with somebody_elses_port() as port:
        for route in ROUTES:
            for status in (301, 302, 307, 308):
                answer, _ = attempt(browser, host, simulator, route, redirect=f"http://127.0.0.1:{port}/2.0/user", status=status)
                assert_refused(browser, host, answer)
                simulator.clear_faults()


# -- the token endpoint

@pytest.mark.parametrize("change", [
    {"access_token": None}, {"access_token": ""}, {"access_token": 5}, {"access_token": ["x"]}, {"access_token": "a b"},
    {"access_token": "a\nb"}, {"access_token": "é"}, {"access_token": "x" * 9000}, {"token_type": "mac"}, {"token_type": 5},
    {"refresh_token": 5}, {"refresh_token": "a b"}, {"refresh_token": "x" * 9000},
])
def test_malformed_tokens(host, browser, simulator, logs, change):
    logs.expect(tags.ANSWERED)
    answer, _ = attempt(browser, host, simulator, "token", merge=change)
    assert_refused(browser, host, answer)


def test_a_key_twice_in_the_answer_of_the_token_endpoint(host, browser, simulator, logs):
    logs.expect(tags.ANSWERED)
    answer, _ = attempt(browser, host, simulator, "token",
                        **as_json('{"access_token":"aaaaaaaa","token_type":"bearer","access_token":"bbbbbbbb"}'))
    assert_refused(browser, host, answer)


@pytest.mark.parametrize("settings", [
    {"token_type": None}, {"token_type": "Bearer"}, {"token_type": "BEARER"}, {"send_scope_as": "scopes"},
    {"send_scope_as": "none"}, {"scope_separator": "comma"}, {"expires_in_format": "string"}, {"expires_in_format": "missing"},
    {"token_length": 16}, {"token_length": 8000},
])
def test_answers_of_the_token_endpoint_that_are_good(host, browser, simulator, settings):
    simulator.settings(**settings)
    assert browser.sign_in(host.url("/team/page.html"), "mark").status == 200


@pytest.mark.parametrize("expires_in", [None, 0, -1, 1, "", "x", "7200", 1e300, 7200.5, True, [], {}, 10**18])
def test_expires_in(host, browser, simulator, expires_in):
    """Odd values are survived."""
    simulator.fault("token", merge={"expires_in": expires_in})
    assert browser.sign_in(host.url("/team/page.html"), "mark").status == 200


def test_a_code_that_bitbucket_refuses(host, browser, simulator):
    """invalid_grant: starts once more, then a page."""
    callback = browser.walk_to_callback(host.url("/team/page.html"), "mark")
    simulator.fault("token", status=400, json={"error": "invalid_grant", "error_description": "no"})
    again = browser.get(callback)
    assert again.status == 302 and again.location.startswith(simulator.authorize_url)
    last = browser.walk(again)[-1]
    assert last.status == 400 and last.reference and last.links["Try again"].endswith("/team/page.html")
    assert browser.session_value() is None
    simulator.clear_faults()
    assert browser.walk(browser.click(last, "Try again"))[-1].status == 200


def test_the_answer_of_the_exchange_is_lost(host, browser, simulator, logs):
    """The code is spent at Bitbucket, but nobody knows: it is not sent again."""
    logs.expect(tags.ANSWERED)
    answer, _ = attempt(browser, host, simulator, "token", close=True, effect=True)
    assert_refused(browser, host, answer)
    assert len(simulator.calls("token")) == 1


@pytest.mark.parametrize("error, status", [
    ("unauthorized_client", 500), ("invalid_client", 500), ("invalid_request", 500), ("invalid_scope", 500),
    ("something_new", 503), ({"message": "x"}, 503), (5, 503),
])
@pytest.mark.parametrize("http_status", [400, 401])
def test_errors_of_the_token_endpoint(host, browser, simulator, logs, error, status, http_status):
    logs.expect(tags.ANSWERED)
    answer, _ = attempt(browser, host, simulator, "token", status=http_status,
                        json={"error": error, "error_description": "<b>why\r\n[x:error] fake"})
    assert answer.status in (status, 503) if http_status == 401 else answer.status == status
    assert answer.reference and "<b>why" not in answer.text and browser.session_value() is None


# -- limits

@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.parametrize("sent, answered", [("17", 17), ("100000", 900), ("0", 1), (None, None), ("soon", None), ("-5", None),
                                            ("Fri, 31 Dec 2027 23:59:59 GMT", None)])
def test_rate_limit(host, browser, simulator, logs, route, form, sent, answered):
    logs.expect(tags.ANSWERED)
    body = {"json": {"type": "error", "error": {"message": "Rate limit"}}} if form == "json" else \
           {"body": "Rate limit", "content_type": "text/plain"}
    headers = {} if sent is None else {"Retry-After": sent}
    answer, _ = attempt(browser, host, simulator, route, status=429, headers=headers, **body)
    assert_refused(browser, host, answer)
    pause = int(answer.header("Retry-After"))
    assert pause == answered if answered else 60 <= pause <= 70


# -- the account

@pytest.mark.parametrize("change", [
    {"uuid": None}, {"uuid": ""}, {"uuid": 5}, {"uuid": "{}"}, {"uuid": "{not-a-uuid}"}, {"uuid": "{" + "a" * 36 + "}"},
    {"type": None}, {"type": 5}, {"username": 5}, {"username": {"x": 1}}, {"nickname": []}, {"display_name": True},
    {"account_id": 17}, {"account_status": 1}, {"display_name": "x" * 100_000}, {"username": "u" * 100_000},
])
def test_malformed_accounts(host, browser, simulator, logs, change):
    logs.expect(tags.ANSWERED)
    answer, _ = attempt(browser, host, simulator, "user", merge=change)
    assert_refused(browser, host, answer)


@pytest.mark.parametrize("body", [
    "{%s,\"uuid\":\"{%s}\"}" % (USER, uuid_of("olivia")),
    "{%s,\"links\":{\"html\":{},\"html\":{}}}" % USER,
])
def test_a_key_twice_in_the_account(host, browser, simulator, logs, body):
    logs.expect(tags.ANSWERED)
    answer, _ = attempt(browser, host, simulator, "user", **as_json(body))
    assert_refused(browser, host, answer)


def test_nesting_that_is_allowed(host, browser, simulator):
    simulator.fault("user", merge={"x": {"a": {"b": {"c": [[[["deep"]]]]}}}, "unknown": [1, 2.5, None, True]})
    assert browser.sign_in(host.url("/team/page.html"), "mark").status == 200


# -- addresses

def page(entries, **more) -> dict:
    return {"json": {"values": entries, **more}}


@pytest.mark.parametrize("answer_of_emails, reason", [
    ({"json": {}}, "array of values"), ({"json": {"values": None}}, "array of values"),
    ({"json": {"values": {}}}, "array of values"), ({"json": {"values": "x"}}, "array of values"),
    (page([], next=5), "next is no text"), (page([], next={"href": "x"}), "next is no text"),
])
def test_malformed_addresses(host, browser, simulator, logs, answer_of_emails, reason):
    logs.expect(tags.ANSWERED, reason)
    answer, _ = attempt(browser, host, simulator, "emails", **answer_of_emails)
    assert_refused(browser, host, answer)


def assert_next_is_refused(host, browser, simulator, logs, url):
    """Nothing is asked for behind the first page, at whatever path, and the log says why."""
    logs.expect(tags.ANSWERED, "lies outside the API")
    callback = browser.walk_to_callback(host.url("/team/page.html"), "mark")
    simulator.fault("emails", **page([], next=url))
    simulator.forget_calls()
    answer = browser.get(callback)
    asked = sorted(call["path"] for call in simulator.all_calls())
    assert asked == ["/2.0/user", "/2.0/user/emails", "/2.0/user/workspaces/acme/permission", "/site/oauth2/access_token"]
    assert_refused(browser, host, answer)


@pytest.mark.parametrize("next_page", ["http://127.0.0.1:{port}/2.0/user/emails?page=2", "https://evil.example/2.0/user/emails",
                                       "//127.0.0.1:{port}/2.0/user/emails", "/2.0/user/emails?page=2", "file:///etc/passwd",
                                       "gopher://127.0.0.1:{port}/x"])
def test_next_elsewhere(host, browser, simulator, logs, next_page):
    with somebody_elses_port() as port:
        assert_next_is_refused(host, browser, simulator, logs, next_page.format(port=port))


@pytest.mark.parametrize("path", ["/2.0/../site/oauth2/authorize", "/1.0/user/emails", "/2.0evil/x", "/", "/2.0/%2e%2e/x",
                                  "/2.0/user/emails#x", "/2.0/user/emails page=2", "/2.0\\..\\x"])
def test_next_outside_the_api(host, browser, simulator, logs, path):
    assert_next_is_refused(host, browser, simulator, logs, simulator.origin + path)


@pytest.mark.parametrize("trick", ["@127.0.0.1:{port}", ".evil.example", "0", ":{port}"])
def test_next_at_a_similar_origin(host, browser, simulator, logs, trick):
    with somebody_elses_port() as port:
        assert_next_is_refused(host, browser, simulator, logs, simulator.origin + trick.format(port=port) + "/2.0/user/emails")


def test_the_same_page_again_and_again(host, browser, simulator, logs):
    logs.expect(tags.ANSWERED, "has no last page")
    answer, _ = attempt(browser, host, simulator, "emails",
                        **page([], next=simulator.api_url + "/user/emails?page=2"))
    assert_refused(browser, host, answer)
    assert len(simulator.calls("emails")) <= 3


def test_endless_pages(host, browser, simulator, logs):
    """A next page behind each, all different."""
    logs.expect(tags.ANSWERED, "has no last page")
    for number in range(1, 40):
        simulator.fault("emails", query=f"*page={number}",
                        **page([], next=f"{simulator.api_url}/user/emails?page={number + 1}"))
    answer, _ = attempt(browser, host, simulator, "emails", **page([], next=simulator.api_url + "/user/emails?page=1"))
    assert_refused(browser, host, answer)
    assert len(simulator.calls("emails")) <= 11


@pytest.mark.parametrize("entry", [None, 5, "x", [], {}, {"email": 5}, {"email": None, "is_confirmed": True},
                                   {"email": "a@b", "is_confirmed": "yes"}, {"email": "x" * 300 + "@b", "is_confirmed": True}])
def test_odd_addresses_are_left_out(host, browser, simulator, entry):
    simulator.fault("emails", **page([entry, {"email": "good@x.example", "is_confirmed": True, "is_primary": True}]))
    seen = browser.sign_in(host.url("/team/env.cgi"), "mark").environment
    assert seen["BITBUCKET_EMAIL"] == "good@x.example"


# -- several at once

def test_a_slow_bitbucket_holds_up_nobody_else(host, new_browser, simulator, logs):
    """While sign-ins wait for Bitbucket, signed-in visitors are served as ever."""
    logs.allow(tags.ANSWERED)
    logs.allow(tags.CROWDED)    # where many callbacks happen to come to one process, its share is full
    there = new_browser()
    assert there.sign_in(host.url("/team/page.html"), "mark").status == 200
    waiting = [new_browser() for _ in range(10)]
    callbacks = [browser.walk_to_callback(host.url("/team/page.html"), "olivia") for browser in waiting]
    simulator.fault("token", delay=1.5)
    simulator.forget_calls()
    threads = [threading.Thread(target=b.get, args=(c,)) for b, c in zip(waiting, callbacks)]
    for thread in threads:
        thread.start()
    eventually(lambda: simulator.calls("token"))
    for _ in range(10):
        assert there.get(host.url("/team/page.html")).status == 200
    first = simulator.calls("token")[0]
    for thread in threads:
        thread.join()
    assert first["finished"] is None, "the pages were there before any sign-in had its answer"


def test_all_is_well_after_all_that(host, browser, simulator):
    """The same server, connections and children still sign people in."""
    assert browser.sign_in(host.url("/team/page.html"), "mark").status == 200
    assert simulator.asked()[0] == "token" and len(simulator.calls(permission_route("acme"))) == 1
