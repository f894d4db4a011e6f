"""AuthBitbucketAPIToken: command-line clients with e-mail address and API token, or an access token."""

from __future__ import annotations

import base64
import http.server
import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import tags
from harness.client import NAVIGATION, SCRIPT, send
from harness.config import VirtualHost, place
from harness.simulator import account, uuid_of
from harness.waiting import eventually

ON, BEARER = "AuthBitbucketAPIToken On", "AuthBitbucketAPIToken On bearer"
SITE = "\n".join([
    place("any", ON, "Require valid-user"), place("team", ON, "Require bitbucket-workspace acme"),
    place("owners", ON, "Require bitbucket-workspace acme:owner"), place("mail", ON, "Require bitbucket-email @acme.example"),
    place("site", ON, "Require bitbucket-repository acme/site:write"), place("off", "Require valid-user"),
    place("keep", "AuthBitbucketAPIToken On keep", "CGIPassAuth On", "Require valid-user"),
    place("dropped", ON, "CGIPassAuth On", "Require valid-user"),
    place("pass", ON, "AuthBitbucketUnauthenticated pass", "Require bitbucket-workspace acme"),
    place("unasked", ON, "CGIPassAuth On", "<RequireAny>", "Require local", "Require bitbucket-workspace acme", "</RequireAny>"),
    place("kept-unasked", "AuthBitbucketAPIToken On keep", "CGIPassAuth On", "Require all granted"),
    place("open-pass", ON, "AuthBitbucketUnauthenticated pass", "CGIPassAuth On", "Require all granted"),
    place("bearer", BEARER, "AuthBitbucketRemoteUser uuid", "Require valid-user"),
    place("robot", BEARER, "AuthBitbucketRemoteUser uuid", f"Require bitbucket-user {uuid_of('robot')}"),
    place("not-robot", BEARER, "AuthBitbucketRemoteUser uuid", "<RequireAll>", "Require valid-user",
          f"Require not bitbucket-user {uuid_of('robot')}", "</RequireAll>"),
    place("named-and-denied", BEARER, "AuthBitbucketRemoteUser uuid", "<RequireAny>", "<RequireAll>", "Require valid-user",
          f"Require not bitbucket-user {uuid_of('robot')}", "</RequireAll>", "Require valid-user", "</RequireAny>"),
    place("bearer-index", BEARER, "AuthBitbucketRemoteUser uuid", "DirectoryIndex /any/env.cgi", "Require valid-user"),
    place("basic-index", ON, "DirectoryIndex /any/env.cgi", "Require valid-user"),
    place("token", ON, "AuthBitbucketPassAccessToken On", "Require valid-user"),
    place("lost", ON, "ErrorDocument 404 /off/page.html", "Require valid-user"),
    place("headers", ON, "AuthBitbucketPass headers", "Require valid-user"),
    place("lost-to-pass", ON, "ErrorDocument 404 /anybody/env.cgi", "Require valid-user"),
    place("refused-to-pass", BEARER, "ErrorDocument 403 /anybody/env.cgi", "AuthBitbucketRemoteUser uuid", "Require valid-user"),
    place("anybody", "AuthBitbucketUnauthenticated pass", "AuthBitbucketPass both", "AuthBitbucketRemoteUser uuid", "Require all granted"),
    place("onward", ON, "RewriteEngine On", "RewriteRule team$ /team/env.cgi", "Require all granted"),
    place("open-index", "DirectoryIndex /dropped/env.cgi", auth=False),
    place("asking", "<RequireAll>", "Require bitbucket-workspace acme", "Require expr \"-U '/any/page.html'\"", "</RequireAll>"),
    place("asking-not", "<RequireAll>", "Require bitbucket-workspace acme", "Require not expr \"-U '/any/page.html'\"", "</RequireAll>"),
    place("token-fallback", "AuthBitbucketPassAccessToken On", "RewriteEngine On", "RewriteRule moved$ /token/env.cgi", "Require valid-user"),
])
CLIENT = {"User-Agent": "git/2.39.5", "Accept": "*/*"}
WIDE, NARROW = (token["token"] for token in account("robot")["access_tokens"])


def api_token(name: str, which: int = 0) -> str:
    return account(name)["api_tokens"][which]["token"]


def basic(user: str, password: str) -> dict[str, str]:
    return {**CLIENT, "Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def of(name: str, which: int = 0) -> dict[str, str]:
    return basic(f"{name}@{'globex' if name == 'oscar' else 'acme'}.example", api_token(name, which))


def bearer(token: str) -> dict[str, str]:
    return {**CLIENT, "Authorization": f"Bearer {token}"}


def challenges(answer) -> list[str]:
    return [value.partition(" ")[0] for name, value in answer.headers if name.lower() == "www-authenticate"]


@pytest.fixture
def host(start_server, mpm):
    host = VirtualHost(SITE)
    start_server(host, mpm=mpm)
    return host


@pytest.fixture
def timed(start_server, clock):
    host = VirtualHost(SITE)
    start_server(host, clock=clock)
    return host


def ask(host, path: str, headers: dict[str, str], method: str = "GET"):
    return send(method, host.url(path), headers)


# -- who it is

def test_it_is_the_person_with_everything_that_a_session_has(host, simulator):
    answer = ask(host, "/team/env.cgi", of("mark"))
    seen = answer.environment
    assert answer.status == 200 and not answer.header("Set-Cookie")
    assert {name: seen[name] for name in ("REMOTE_USER", "AUTH_TYPE", "BITBUCKET_UUID", "BITBUCKET_EMAIL", "BITBUCKET_WORKSPACES")} == {
        "REMOTE_USER": "mark_miller", "AUTH_TYPE": "Bitbucket", "BITBUCKET_UUID": uuid_of("mark"),
        "BITBUCKET_EMAIL": "mark@acme.example", "BITBUCKET_WORKSPACES": "acme:member"}
    assert "Authorization" not in str(seen) and api_token("mark") not in answer.text
    simulator.forget_calls()
    assert [ask(host, "/team/page.html", of("mark")).status for _ in range(5)] == [200] * 5 and simulator.asked() == []


@pytest.mark.one_mpm
@pytest.mark.parametrize("path, mark, olivia, oscar", [
    ("any", 200, 200, 200), ("team", 200, 200, 403), ("owners", 403, 200, 403), ("mail", 200, 200, 403), ("site", 200, 200, 403),
    ("pass", 200, 200, 403), ("off", 401, 401, 401),
])
def test_the_same_rules(host, path, mark, olivia, oscar):
    assert [ask(host, f"/{path}/page.html", of(name)).status for name in ("mark", "olivia", "oscar")] == [mark, olivia, oscar]


@pytest.mark.one_mpm
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "OPTIONS", "PROPFIND"])
def test_any_method(host, method):
    assert ask(host, "/any/page.html", of("mark"), method).status not in (401, 403, 500)
    assert ask(host, "/any/page.html", CLIENT, method).status == 401


@pytest.mark.one_mpm
def test_the_address_in_other_letters_is_the_same_account(host):
    answer = ask(host, "/any/env.cgi", basic("Mark@ACME.example", api_token("mark")))
    assert answer.status == 200 and answer.environment["REMOTE_USER"] == "mark_miller"


@pytest.mark.one_mpm
def test_it_decides_whatever_cookie_comes_along(host, browser):
    browser.sign_in(host.url("/off/page.html"), "olivia")
    assert browser.get(host.url("/any/env.cgi"), of("mark")).environment["REMOTE_USER"] == "mark_miller"
    assert browser.get(host.url("/any/env.cgi"), basic("mark@acme.example", "wrong")).status == 401
    assert browser.get(host.url("/any/env.cgi")).environment["REMOTE_USER"] == "olivia_owens"
    assert browser.get(host.url("/off/env.cgi"), of("mark")).environment["REMOTE_USER"] == "olivia_owens"


@pytest.mark.one_mpm
def test_at_an_error_page_where_none_is_taken_it_is_nobody(host):
    answer = ask(host, "/lost/no-such-page", of("mark"))
    assert answer.status in (401, 404) and "The test page" not in answer.text


@pytest.mark.one_mpm
def test_at_a_page_for_anybody_it_is_nobody_either(host):
    """Also where the error document would say who somebody with a cookie is."""
    lost = ask(host, "/lost-to-pass/no-such-page", of("mark"))
    refused = ask(host, "/refused-to-pass/page.html", bearer(WIDE))
    assert (lost.status, refused.status) == (404, 403)
    for answer in lost, refused:
        told = [name for name in answer.environment
                if name.startswith(("BITBUCKET_", "HTTP_X_BITBUCKET_")) and not name.startswith("BITBUCKET_ERROR")]
        assert not told and "REMOTE_USER" not in answer.environment


@pytest.mark.one_mpm
def test_it_counts_at_the_place_that_httpd_goes_on_to(host, browser):
    """The place before takes it away from its application, and asks nobody."""
    browser.sign_in(host.url("/any/page.html"), "oscar")
    for answer in ask(host, "/onward/team", of("mark")), browser.get(host.url("/onward/team"), {**SCRIPT, **of("mark")}):
        assert answer.status == 200 and answer.environment["REMOTE_USER"] == "mark_miller"
        assert "HTTP_AUTHORIZATION" not in answer.environment
    assert ask(host, "/onward/team", basic("mark@acme.example", "wrong")).status == 401


@pytest.mark.one_mpm
def test_the_application_of_an_index_does_not_get_it(host):
    answer = ask(host, "/open-index/", of("mark"))
    assert answer.status == 200 and "HTTP_AUTHORIZATION" not in answer.environment


@pytest.mark.one_mpm
@pytest.mark.parametrize("path, status", [("/asking/page.html", 403), ("/asking-not/page.html", 401)])
def test_a_wrong_one_that_a_rule_comes_upon(host, browser, path, status):
    """The rule looks up a place that takes credentials, for a page that takes none."""
    browser.sign_in(host.url("/any/page.html"), "mark")
    assert browser.get(host.url("/asking/page.html"), SCRIPT).status == 200
    assert browser.get(host.url(path), {**SCRIPT, **basic("mark@acme.example", "wrong")}).status == status
    assert browser.get(host.url("/asking/page.html"), SCRIPT).status == 200, "the session is still there"


@pytest.mark.one_mpm
def test_nothing_of_the_cookies_account_goes_with_it(host, browser):
    browser.sign_in(host.url("/any/page.html"), "oscar")
    page = browser.get(host.url("/token-fallback/moved"), {**SCRIPT, **of("mark")})
    assert page.environment["REMOTE_USER"] == "mark_miller" and "BITBUCKET_ACCESS_TOKEN" not in page.environment


@pytest.mark.one_mpm
def test_the_credential_is_not_sent_on_unless_asked(host):
    assert "HTTP_AUTHORIZATION" not in ask(host, "/dropped/env.cgi", of("mark")).environment
    assert ask(host, "/keep/env.cgi", of("mark")).environment["HTTP_AUTHORIZATION"] == of("mark")["Authorization"]


@pytest.mark.one_mpm
@pytest.mark.parametrize("headers", [of("mark"), basic("mark@acme.example", "wrong")])
def test_no_credential_goes_on_where_the_rules_ask_nobody(host, headers):
    for path in "/unasked/env.cgi", "/open-pass/env.cgi":
        answer = ask(host, path, headers)
        assert answer.status == 200 and "HTTP_AUTHORIZATION" not in answer.environment, path
    assert ask(host, "/kept-unasked/env.cgi", headers).environment["HTTP_AUTHORIZATION"] == headers["Authorization"]


@pytest.mark.one_mpm
def test_a_credential_that_nobody_looks_at_is_not_the_cookies(host, browser):
    browser.sign_in(host.url("/any/page.html"), "oscar")
    page = browser.get(host.url("/open-pass/env.cgi"), NAVIGATION)
    assert page.environment["REMOTE_USER"] == "oscar_ortega"
    assert "REMOTE_USER" not in browser.get(host.url("/open-pass/env.cgi"), {**NAVIGATION, **of("mark")}).environment
    assert "BITBUCKET_ACCESS_TOKEN" not in ask(host, "/token/env.cgi", of("mark")).environment


@pytest.mark.one_mpm
def test_a_backend_does_not_get_it(start_server):
    seen: list[dict[str, str]] = []

    class Application(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Application)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f'ProxyPass "http://127.0.0.1:{server.server_port}/"'
        host = VirtualHost("\n".join([place("tool", ON, "AuthBitbucketPass headers", "Require valid-user", url),
                                      place("kept", "AuthBitbucketAPIToken On keep", "Require valid-user", url)]))
        start_server(host)
        assert [ask(host, path, of("mark")).status for path in ("/tool/x", "/kept/x")] == [204, 204]
    finally:
        server.shutdown()
        server.server_close()
    assert "Authorization" not in seen[0] and seen[0]["X-Bitbucket-Username"] == "mark_miller"
    assert seen[1]["Authorization"] == of("mark")["Authorization"]


# -- the challenge

@pytest.mark.one_mpm
@pytest.mark.parametrize("headers, expected", [
    (CLIENT, ["Basic", "Bitbucket"]), ({}, ["Basic", "Bitbucket"]), ({"User-Agent": "SVN/1.14.2 (x86_64-pc-linux-gnu) serf/1.3.9"}, ["Basic", "Bitbucket"]),
    ({"Accept": "application/json"}, ["Basic", "Bitbucket"]),
    (SCRIPT, ["Bitbucket"]), ({"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}, ["Bitbucket"]), ({"X-Requested-With": "XMLHttpRequest"}, ["Bitbucket"]),
    ({"Origin": "https://other.example"}, ["Bitbucket"]), ({"Sec-Fetch-Dest": "image"}, ["Bitbucket"]),
])
def test_basic_is_offered_to_what_is_no_browser(host, headers, expected):
    answer = ask(host, "/any/page.html", headers)
    assert (answer.status, challenges(answer)) == (401, expected)
    assert challenges(ask(host, "/off/page.html", headers)) == ["Bitbucket"]
    if "Basic" in expected and "Accept" not in headers:
        assert answer.text.startswith("Please sign in: send the e-mail address")


@pytest.mark.one_mpm
def test_browsers_are_still_sent_to_sign_in(host):
    assert ask(host, "/any/page.html", NAVIGATION).status == 302
    wrong = ask(host, "/any/page.html", {**NAVIGATION, "Authorization": basic("mark@acme.example", "wrong")["Authorization"]})
    assert (wrong.status, challenges(wrong)) == (401, ["Bitbucket"]) and "<html" in wrong.text


# -- what is not accepted

@pytest.mark.one_mpm
@pytest.mark.parametrize("value", [
    "Basic", "Basic ", "Basic !!!!", "Basic YQ", "Basic YTpi=", "Basic YTpi====", "Basic " + base64.b64encode(b"no colon").decode(),
    "Basic " + base64.b64encode(b"mark@acme.example:").decode(), "Basic " + base64.b64encode(b":token").decode(),
    "Basic " + base64.b64encode(b"mark_miller:an app password").decode(), "Basic " + base64.b64encode(b"@acme.example:x").decode(),
    "Basic " + base64.b64encode(b"ma rk@acme.example:x").decode(), "Basic " + base64.b64encode(b"mark@acme.example:a\0b").decode(),
    "Basic " + base64.b64encode(b"a" * 300 + b"@acme.example:x").decode(), "Basic " + "QUJD" * 3000, "Bearer", "Bearer a b", 'Bearer "x"',
    "Bearer " + "a" * 9000, "basic YQ", "BEARER !",
])
def test_malformed_ones_ask_nobody(host, simulator, value):
    for path in ("/any/page.html", "/bearer/page.html"):
        answer = ask(host, path, {**CLIENT, "Authorization": value})
        assert (answer.status, challenges(answer)) == (401, ["Basic", "Bitbucket"]) and answer.header("Content-Type").startswith("text/plain")
    assert simulator.asked() == []


@pytest.mark.one_mpm
@pytest.mark.parametrize("scheme", ["Digest", "Negotiate", "Basically YTpi", "Bearers x", ""])
def test_other_schemes_are_somebody_elses(host, browser, scheme):
    assert ask(host, "/any/page.html", {**CLIENT, "Authorization": f"{scheme} x"}).status == 401
    browser.sign_in(host.url("/any/page.html"), "mark")
    assert browser.get(host.url("/any/page.html"), {"Authorization": f"{scheme} x"}).status == 200


@pytest.mark.one_mpm
def test_a_wrong_one_is_asked_about_once_a_minute(timed, simulator, clock, logs):
    for _ in range(5):
        answer = ask(timed, "/any/page.html", basic("mark@acme.example", "wrong"))
        assert (answer.status, challenges(answer)) == (401, ["Basic", "Bitbucket"])
        assert "e-mail address" in answer.text or "Bitbucket does not accept" in answer.text
    assert simulator.asked() == ["user"]
    clock.advance(61)
    assert ask(timed, "/any/page.html", basic("mark@acme.example", "wrong")).status == 401 and simulator.asked() == ["user"] * 2
    assert {line.level for line in logs.lines(tags.ANSWERED)} == {"info"}


@pytest.mark.one_mpm
def test_what_it_lacks_is_said_to_its_owner(host, simulator, logs):
    """Not "no member": that would be a guess. Nor is it the operator's to mend."""
    answer = ask(host, "/team/page.html", of("mark", 1))
    assert answer.status == 403 and "read:workspace:bitbucket" in answer.text
    assert ask(host, "/any/env.cgi", of("mark", 1)).environment["REMOTE_USER"] == "mark_miller"
    assert {line.level for line in logs.lines(tags.ANSWERED)} == {"info"} and logs.lines(tags.SCOPE_MISSING) == []
    # One that does not even say whose it is.
    simulator.change_account("mark", api_tokens=[{"token": "ATATT-narrow", "scopes": ["read:pullrequest:bitbucket"]}])
    simulator.forget_calls()
    for _ in range(3):
        answer = ask(host, "/any/page.html", basic("mark@acme.example", "ATATT-narrow"))
        assert answer.status == 403 and "read:user:bitbucket" in answer.text
    assert simulator.asked() == ["user"]


@pytest.mark.one_mpm
def test_tokens_of_other_applications_are_refused_with_a_reason(host, simulator):
    answer = ask(host, "/any/page.html", bearer(WIDE))
    assert answer.status == 401 and "made for another application" in answer.text and simulator.asked() == []


@pytest.mark.one_mpm
def test_an_api_token_is_no_bearer(host, simulator):
    assert ask(host, "/bearer/page.html", bearer(api_token("mark"))).status == 401 and simulator.asked() == ["user"]


@pytest.mark.one_mpm
def test_an_account_that_is_not_active(host, simulator):
    simulator.change_account("mark", account_status="inactive")
    assert [ask(host, "/any/page.html", of("mark")).status for _ in range(3)] == [403] * 3 and simulator.asked() == ["user"]


# -- bearers, where they are taken

@pytest.mark.one_mpm
def test_bots_only_where_they_are_named(host):
    assert ask(host, "/robot/env.cgi", bearer(WIDE)).environment["REMOTE_USER"] == uuid_of("robot")
    for path in ("/bearer/page.html", "/not-robot/page.html", "/named-and-denied/page.html"):
        answer = ask(host, path, bearer(WIDE))
        assert answer.status == 403, path
    assert ask(host, "/robot/page.html", bearer(NARROW)).status == 403, "it does not say who it is"
    assert ask(host, "/robot/page.html", of("mark")).status == 403


@pytest.mark.one_mpm
def test_a_person_by_another_applications_token(host, browser, start_server, simulator):
    """What `bearer` is for, and why it is not the default."""
    other = VirtualHost(place("with", "AuthBitbucketPassAccessToken On", "Require valid-user"))
    start_server(other)
    token = browser.sign_in(other.url("/with/env.cgi"), "mark").environment["BITBUCKET_ACCESS_TOKEN"]
    assert ask(host, "/bearer/env.cgi", bearer(token)).environment["REMOTE_USER"] == uuid_of("mark")
    assert ask(host, "/any/page.html", bearer(token)).status == 401
    assert ask(host, "/bearer-index/", bearer(token)).status == 401, "the index is of a place that takes none"
    assert ask(host, "/basic-index/", of("mark")).environment["REMOTE_USER"] == "mark_miller"
    simulator.end_tokens("all")
    assert ask(host, "/robot/page.html", bearer(token)).status == 403


# -- how fresh it is

@pytest.mark.one_mpm
def test_the_account_once_a_minute_and_rows_at_their_age(timed, clock, simulator):
    assert ask(timed, "/team/page.html", of("mark")).status == 200
    assert sorted(simulator.asked()) == ["emails", "permission acme", "user", "user"]
    simulator.forget_calls()
    clock.advance(59)
    assert ask(timed, "/team/page.html", of("mark")).status == 200 and simulator.asked() == []
    clock.advance(2)
    assert ask(timed, "/team/page.html", of("mark")).status == 200 and sorted(simulator.asked()) == ["emails", "user"]


@pytest.mark.one_mpm
def test_a_revoked_token_is_out_within_a_minute(timed, clock, simulator, logs):
    assert ask(timed, "/any/page.html", of("mark")).status == 200
    simulator.change_account("mark", api_tokens=[])
    assert ask(timed, "/any/page.html", of("mark")).status == 200
    clock.advance(61)
    answer = ask(timed, "/any/page.html", of("mark"))
    assert (answer.status, challenges(answer)) == (401, ["Basic", "Bitbucket"])
    assert logs.lines(tags.ENDED)[0].level == "info" and "API token" in logs.lines(tags.ENDED)[0].text
    assert ask(timed, "/any/page.html", of("mark")).status == 401


@pytest.mark.one_mpm
def test_who_is_removed_is_out_and_who_is_added_is_in(timed, clock, simulator):
    assert ask(timed, "/team/page.html", of("oscar")).status == 403
    simulator.set_membership("acme", "oscar", "member")
    clock.advance(16)
    assert ask(timed, "/team/page.html", of("oscar")).status == 200
    simulator.set_membership("acme", "oscar", None)
    clock.advance(301)
    ask(timed, "/team/page.html", of("oscar"))
    eventually(lambda: ask(timed, "/team/page.html", of("oscar")).status == 403)


@pytest.mark.one_mpm
def test_in_an_outage_who_is_known_goes_on(timed, clock, simulator, logs):
    logs.allow(tags.BROKEN)
    logs.allow(tags.NOT_RENEWED)
    logs.expect(tags.ANSWERED)
    assert ask(timed, "/team/page.html", of("mark")).status == 200
    simulator.fault("api", status=503)
    clock.advance(120)
    assert ask(timed, "/team/page.html", of("mark")).status == 200
    stranger = ask(timed, "/team/page.html", of("olivia"))
    assert stranger.status == 503 and int(stranger.header("Retry-After")) > 0, "neither right nor wrong"
    clock.advance(3600)
    assert ask(timed, "/team/page.html", of("mark")).status == 503
    simulator.clear_faults()
    clock.advance(120)
    assert ask(timed, "/team/page.html", of("olivia")).status == 200, "it was not taken for wrong"


# -- guessing

def guess(host, number: int, user: str = "") -> int:
    return ask(host, "/any/page.html", basic(user or f"guess{number}@acme.example", f"guess {number}")).status


def test_a_flood_of_guesses_from_one_address(host, browser, simulator):
    """200 different ones at once: ten calls, and others notice nothing."""
    assert browser.sign_in(host.url("/any/page.html"), "olivia").status == 200
    assert ask(host, "/any/page.html", of("mark")).status == 200
    simulator.forget_calls()
    simulator.fault("user", delay=0.2)
    slowest = []
    ended = threading.Event()

    def go_on() -> None:
        while not ended.is_set():
            began = time.monotonic()
            assert browser.get(host.url("/any/page.html")).status == 200 and ask(host, "/any/page.html", of("mark")).status == 200
            slowest.append(time.monotonic() - began)

    with ThreadPoolExecutor(1) as others:
        other = others.submit(go_on)
        try:
            with ThreadPoolExecutor(40) as pool:
                statuses = Counter(pool.map(lambda number: guess(host, number), range(200)))
        finally:
            ended.set()
        other.result()
    assert set(statuses) <= {401, 429, 503} and statuses[401] <= 10, statuses
    assert len(simulator.asked()) <= 10
    assert slowest and sorted(slowest)[len(slowest) // 2] < 1


@pytest.mark.one_mpm
def test_ten_of_an_address_and_five_for_an_account(timed, clock, simulator):
    assert [guess(timed, number, "mark@acme.example") for number in range(7)] == [401] * 5 + [429] * 2
    assert ask(timed, "/any/page.html", of("mark")).status == 429, "a new one for the account waits, too"
    assert [guess(timed, number) for number in range(100, 107)] == [401] * 5 + [429] * 2
    answer = ask(timed, "/any/page.html", of("olivia"))
    assert answer.status == 429 and 0 < int(answer.header("Retry-After")) <= 60 and len(simulator.asked()) == 10
    clock.advance(61)
    assert ask(timed, "/any/page.html", of("mark")).status == 200 and ask(timed, "/any/page.html", of("olivia")).status == 200


@pytest.mark.one_mpm
def test_who_is_known_is_not_held_up(host):
    assert ask(host, "/any/page.html", of("mark")).status == 200
    assert [guess(host, number) for number in range(12)][-1] == 429
    assert ask(host, "/any/page.html", of("mark")).status == 200


@pytest.mark.one_mpm
def test_many_addresses_together(start_server, simulator):
    """Behind a proxy that mod_remoteip believes; IPv6 counts by network."""
    from harness.config import modules_directory
    main = f"LoadModule remoteip_module {modules_directory()}/mod_remoteip.so\nRemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy 127.0.0.1\n"
    host = VirtualHost(SITE)
    start_server(host, main=main)

    def from_address(address: str, number: int) -> int:
        return ask(host, "/any/page.html", {**basic(f"g{number}@acme.example", "x"), "X-Forwarded-For": address}).status
    network = [from_address(f"2001:db8:1:2::{number:x}", number) for number in range(1, 13)]
    assert network == [401] * 10 + [429] * 2
    others = [from_address(f"198.51.100.{number}", 100 + number) for number in range(1, 41)]
    assert others.count(401) == 20 and others.count(429) == 20 and len(simulator.asked()) == 30


def test_one_credential_at_once(host, simulator):
    """Fifty requests of a client that nobody knew make one session."""
    simulator.fault("user", delay=0.3)
    with ThreadPoolExecutor(50) as pool:
        statuses = Counter(pool.map(lambda _: ask(host, "/team/page.html", of("mark")).status, range(50)))
    assert statuses[200] >= 1 and set(statuses) <= {200, 503}, statuses
    assert simulator.asked().count("user") <= 2 and simulator.asked().count("permission acme") == 1
    assert ask(host, "/team/page.html", of("mark")).status == 200


@pytest.mark.one_mpm
def test_wrong_at_one_site_counts_at_the_other(start_server, simulator):
    hosts = [VirtualHost(SITE), VirtualHost(SITE)]
    start_server(*hosts)
    assert [guess(hosts[number % 2], number) for number in range(12)] == [401] * 10 + [429] * 2
    assert ask(hosts[0], "/any/page.html", of("olivia")).status == 429


@pytest.mark.one_mpm
def test_guesses_that_bitbucket_limits_pause_nobody_else(host, browser, simulator, logs):
    """Wrong credentials may count against the server's own address there."""
    logs.expect(tags.ANSWERED, "rate limit")
    logs.allow(tags.ANSWERED)
    simulator.fault("user", status=429, headers={"Retry-After": "600"}, body="Rate limit for this resource has been exceeded")
    assert {guess(host, number) for number in range(5)} == {503}
    simulator.clear_faults()
    simulator.forget_calls()
    assert ask(host, "/any/page.html", of("mark")).status == 503 and simulator.asked() == [], "all that are unknown wait"
    assert browser.sign_in(host.url("/team/page.html"), "olivia").status == 200


@pytest.mark.one_mpm
def test_a_revoked_credential_sees_no_error_page_of_a_protected_place(start_server, clock, simulator):
    host = VirtualHost("ErrorDocument 401 /any/page.html\n" + SITE)
    start_server(host, clock=clock)
    assert ask(host, "/any/page.html", of("mark")).status == 200
    simulator.change_account("mark", api_tokens=[])
    clock.advance(61)
    answer = ask(host, "/team/page.html", of("mark"))
    assert answer.status == 401 and "The test page" not in answer.text


# -- what is kept

@pytest.mark.one_mpm
def test_it_is_good_at_its_own_site_only(start_server, simulator):
    hosts = [VirtualHost(SITE), VirtualHost(SITE)]
    start_server(*hosts)
    assert ask(hosts[0], "/any/page.html", of("mark")).status == 200
    simulator.forget_calls()
    assert ask(hosts[1], "/any/page.html", of("mark")).status == 200 and "user" in simulator.asked()


@pytest.mark.one_mpm
def test_no_log_has_it(host, logs, start_server):
    """Neither a right one nor a guess, in no spelling."""
    assert ask(host, "/team/env.cgi", of("mark")).status == 200
    assert ask(host, "/team/env.cgi", basic("mark@acme.example", "secret-guess")).status == 401
    text = "\n".join(file.read_text(errors="replace") for server in start_server._made for file in server.log_files())
    secret = of("mark")["Authorization"].split()[1]
    assert api_token("mark") not in text and secret not in text and "secret-guess" not in text


@pytest.mark.one_mpm
def test_it_survives_a_graceful_restart(start_server, simulator):
    host = VirtualHost(SITE)
    server = start_server(host)
    assert ask(host, "/team/page.html", of("mark")).status == 200
    server.reload()
    simulator.forget_calls()
    assert ask(host, "/team/page.html", of("mark")).status == 200 and simulator.asked() == []


@pytest.mark.one_mpm
def test_endpoints_know_no_credential(host):
    answer = ask(host, "/bitbucket/userinfo", {**of("mark"), "Accept": "application/json"})
    assert answer.status == 401 and json.loads(answer.text)["error"]


@pytest.mark.parametrize("value, quoted", [("Yes", "'Yes'"), ("On x", "'x'"), ("Off bearer", "'Off'"), ("", "AuthBitbucketAPIToken"),
                                           ("On bearer keep x", "AuthBitbucketAPIToken")])
def test_malformed_directives(start_server, value, quoted):
    done = start_server.prepare(VirtualHost(place("x", f"AuthBitbucketAPIToken {value}", "Require valid-user"))).run("-t")
    assert done.returncode != 0 and quoted in done.stdout
