"""The callback: what Bitbucket, a lost browser or an attacker sends there."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

import pytest

from harness import tags
from harness.client import NAVIGATION, TICKET, parse_set_cookie, send_bytes
from harness.config import VirtualHost, place

STATE = "A" * 44


def query_of(callback: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(callback).query))


HOSTILE = {
    "nothing": "",
    "only a state": "state=" + STATE,
    "only a code": "code=x",
    "only an error": "error=access_denied",
    "code and error": f"state={STATE}&code=x&error=access_denied",
    "two codes": f"state={STATE}&code=x&code=y",
    "two equal codes": f"state={STATE}&code=x&code=x",
    "two states": f"state={STATE}&state={STATE}&code=x",
    "two errors": f"state={STATE}&error=x&error=y",
    "names in capitals": f"State={STATE}&state={STATE}&code=x",
    "an empty code": f"state={STATE}&code=",
    "an empty state": "state=&code=x",
    "a state of another form": "state=abc&code=x",
    "a state with junk": "state=" + "!" * 44 + "&code=x",
    "a state too long": "state=" + "A" * 45 + "&code=x",
    "a very long state": "state=" + "A" * 30000 + "&code=x",
    "a very long code": "state=x&code=" + "A" * 30000,
    "100 KB": "state=x&code=y&junk=" + "A" * 100_000,
    "a NUL": f"state={STATE}&code=a%00b",
    "a NUL in a name": f"state={STATE}&code=x&a%00b=1",
    "a broken encoding": f"state={STATE}&code=%",
    "another broken encoding": f"state={STATE}&code=%4",
    "no hexadecimal": f"state={STATE}&code=%zz",
    "many parameters": f"state={STATE}&code=x&" + "&".join(f"p{n}=1" for n in range(200)),
    "HTML": "state=%3Cscript%3Ealert(1)%3C/script%3E&code=x",
    "no ASCII": "state=%C3%A9&code=%ff",
    "semicolons": f"state={STATE};code=x",
    "a path": "/../../etc/passwd",
}


@pytest.mark.one_mpm
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_queries(site, browser, simulator, kind):
    """The plain error page with a reference, or a new sign-in; nobody is asked."""
    answer = browser.get(site.quiet.endpoint("callback") + "?" + HOSTILE[kind])
    assert answer.status in (400, 302), answer
    if answer.status == 400:
        assert answer.reference and answer.set_cookies == []
        assert "<script>alert" not in answer.text
    else:
        assert answer.location.startswith(simulator.authorize_url)
    assert answer.session_cookie is None
    assert simulator.asked() == []


@pytest.mark.one_mpm
@pytest.mark.parametrize("kind", ["nothing", "only a state", "only a code", "code and error", "two codes", "two equal codes",
                                  "two states", "an empty code", "a NUL", "a broken encoding", "many parameters"])
def test_hostile_queries_are_told_apart_from_lost_ones(site, browser, kind):
    assert browser.get(site.quiet.endpoint("callback") + "?" + HOSTILE[kind]).status == 400


@pytest.mark.one_mpm
@pytest.mark.parametrize("kind", ["two codes", "two equal codes", "code and error", "two states"])
def test_good_ticket_and_a_query_in_doubt(site, browser, simulator, kind):
    """The open attempt is not spent on it either."""
    callback = browser.walk_to_callback(site.quiet.url("/any/page.html"), "mark")
    extra = {"two codes": "&code=other", "two equal codes": "&code=" + query_of(callback)["code"],
             "code and error": "&error=x", "two states": "&state=" + query_of(callback)["state"]}[kind]
    assert browser.get(callback + extra).status == 400
    assert simulator.asked() == []
    assert browser.get(callback).status == 303


@pytest.mark.one_mpm
def test_raw_bytes(site):
    """What never reaches the module must not hurt either."""
    for junk in (b"\x00", b"\xff", b" ", b"\x01", b"%00"):
        data = b"GET /bitbucket/callback?state=" + junk + b"&code=x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        assert re.match(rb"HTTP/1.1 (400|302) ", send_bytes(site.quiet.port, data)), junk


@pytest.mark.one_mpm
def test_the_state_of_another_browser(site, new_browser, simulator):
    """Login CSRF: a callback of the attacker's account in the victim's browser."""
    attacker, victim = new_browser(), new_browser()
    callback = attacker.walk_to_callback(site.quiet.url("/any/page.html"), "oscar")
    answer = victim.get(callback)
    assert answer.session_cookie is None and simulator.asked() == []
    assert answer.status == 302 and answer.location.startswith(simulator.authorize_url)
    own = new_browser()
    own.get(site.quiet.url("/any/page.html"))
    assert own.get(callback).session_cookie is None, "also while an attempt of its own is open"
    assert simulator.asked() == []


@pytest.mark.one_mpm
def test_the_ticket_of_another_attempt(site, browser, simulator):
    """Its content counts, not its name."""
    callback = browser.walk_to_callback(site.quiet.url("/any/page.html"), "mark")
    browser.get(site.quiet.url("/any/page.html"))
    first, second = browser.ticket_names()
    cookies = browser.jar.cookies
    wrong = {first: cookies["localhost", second].value, second: cookies["localhost", first].value}
    line = "; ".join(f"{name}={value}" for name, value in wrong.items())
    answer = browser.get(callback, {**NAVIGATION, "Cookie": line})
    assert answer.session_cookie is None and simulator.asked() == []


CHANGES = {
    "one character less": lambda value: value[:-1],
    "one character more": lambda value: value + "A",
    "another first character": lambda value: ("B" if value[0] == "A" else "A") + value[1:],
    "another last byte": lambda value: value[:-4] + ("AAAA" if value[-4:] != "AAAA" else "BBBB"),
    "empty": lambda value: "",
    "three times": lambda value: value * 3,
    "cut": lambda value: value[:40],
}


@pytest.mark.one_mpm
@pytest.mark.parametrize("kind", CHANGES)
def test_a_changed_ticket(site, browser, simulator, kind):
    callback = browser.walk_to_callback(site.quiet.url("/any/page.html"), "mark")
    name, = browser.ticket_names()
    value = browser.jar.cookies["localhost", name].value
    answer = browser.get(callback, {**NAVIGATION, "Cookie": f"{name}={CHANGES[kind](value)}"})
    assert answer.session_cookie is None and simulator.asked() == []
    assert answer.status in (302, 400)


def test_a_repeated_callback_with_the_session(site, browser, simulator):
    callback = browser.walk_to_callback(site.quiet.url("/any/page.html?q=1"), "mark")
    assert browser.get(callback).status == 303
    session = browser.session_value()
    simulator.forget_calls()
    again = browser.get(callback)
    assert again.status == 303 and again.location.endswith("/any/page.html?q=1")
    assert simulator.asked() == []
    assert browser.session_value() == session


def test_a_repeated_callback_without_the_session(site, browser, new_browser, simulator):
    callback = browser.walk_to_callback(site.quiet.url("/any/page.html"), "mark")
    assert browser.get(callback).status == 303
    simulator.forget_calls()
    answer = new_browser().get(callback)
    assert answer.session_cookie is None and simulator.asked() == []
    assert answer.status == 302 and answer.location.startswith(simulator.authorize_url)


def test_a_repeated_callback_with_the_ticket_kept(site, browser, simulator):
    """A used state is refused even if its cookie was kept."""
    callback = browser.walk_to_callback(site.quiet.url("/any/page.html?q=1"), "mark")
    name, = browser.ticket_names()
    ticket = f"{name}={browser.jar.cookies['localhost', name].value}"
    assert browser.get(callback).status == 303
    session = browser.session_value()
    simulator.forget_calls()
    alone = browser.get(callback, {**NAVIGATION, "Cookie": ticket})
    assert alone.session_cookie is None and alone.status == 302
    assert alone.location.startswith(simulator.authorize_url)
    both = browser.get(callback, {**NAVIGATION, "Cookie": f"{ticket}; bitbucket_session={session}"})
    assert both.session_cookie is None and both.status == 303 and both.location.endswith("/any/page.html?q=1")
    assert simulator.asked() == []


# -- errors from Bitbucket

@pytest.mark.one_mpm
@pytest.mark.parametrize("error, status", [
    ("access_denied", 403), ("temporarily_unavailable", 503), ("server_error", 503), ("invalid_scope", 500),
    ("unauthorized_client", 500), ("invalid_request", 500), ("unsupported_response_type", 500), ("something_new", 500),
    ("%3Cscript%3Ealert(1)%3C/script%3E", 500),
])
def test_errors_of_rfc_6749(site, browser, simulator, logs, error, status):
    state = browser.get(site.quiet.url("/any/page.html")).location_query["state"]
    answer = browser.get(site.quiet.endpoint("callback")
                         + f"?error={error}&error_description=%3Cb%3Ewhy%0A[x:error]&state={state}")
    assert (answer.status, answer.location, answer.session_cookie) == (status, None, None)
    assert answer.reference
    assert "<script>alert" not in answer.text and "<b>why" not in answer.text
    assert "why?[x:error]" in logs.lines(tags.ANSWERED)[0].text, "a line end is no line end in the log"
    assert browser.ticket_names() == []
    assert (answer.header("Retry-After") is not None) == (status == 503)


@pytest.mark.one_mpm
@pytest.mark.parametrize("error", ["unauthorized_client", "server_error", "invalid_scope"])
def test_a_client_alone_causes_no_alarm(site, browser, error):
    """Whoever invents an error without an attempt of their own leaves no warning in the log; test_hostile_log has
    those with one."""
    answer = browser.get(site.quiet.endpoint("callback") + f"?error={error}&state={STATE}")
    assert answer.status in (400, 302)
    assert answer.reference or answer.location


@pytest.mark.one_mpm
def test_access_denied_by_a_person(site, browser):
    """Never an automatic restart; a link to try again."""
    callback = browser.walk_to_callback(site.quiet.url("/any/page.html"), "mark", consents=False)
    answer = browser.get(callback)
    assert (answer.status, answer.location) == (403, None)
    assert answer.links["Try again"].endswith("/any/page.html")
    assert browser.walk(browser.click(answer, "Try again"), "mark")[-1].status == 200


@pytest.mark.one_mpm
def test_the_address_of_the_error_page_of_bitbucket_is_not_followed(site, browser):
    state = browser.get(site.quiet.url("/any/page.html")).location_query["state"]
    answer = browser.get(site.quiet.endpoint("callback") + f"?error=server_error&error_uri=http://evil.example/&state={state}")
    assert "evil.example" not in answer.text


# -- cookies

def test_cookies_blocked(site, browser, simulator):
    """The sign-in starts once more, then it is explained."""
    browser.jar.blocks_all = True
    page = site.quiet.url("/any/page.html")
    simulator.settings(auto_account="mark")
    steps = browser.walk(browser.get(page))
    last = steps[-1]
    assert last.status == 400 and last.reference and "cookies" in last.text.lower()
    assert [step.status for step in steps if step.url.startswith(site.quiet.origin)] == [302, 302, 400]
    assert simulator.asked() == [], "no code is spent"
    browser.jar.blocks_all = False
    assert browser.walk(browser.click(last, "Try again"))[-1].status == 200


@pytest.mark.one_mpm
def test_a_second_attempt_works_and_leads_to_the_page(site, browser, simulator):
    """The ticket got lost, but cookies work."""
    callback = browser.walk_to_callback(site.quiet.url("/any/page.html"), "mark")
    browser.jar.cookies = {k: v for k, v in browser.jar.cookies.items() if TICKET not in k[1]}
    steps = browser.walk(browser.get(callback))
    assert steps[-1].status in (200, 404) and browser.session_value()


@pytest.mark.one_mpm
@pytest.mark.parametrize("path", ["/any/page.html", "/any/page.html?q=" + "a" * 1900])
def test_abandoned_attempts(site, browser, path):
    """At most four tickets and 4 kB of them, and the latest always works."""
    for _ in range(60):
        browser.get(site.quiet.url(path))
        names = browser.ticket_names()
        size = sum(len(n) + len(browser.jar.cookies["localhost", n].value) for n in names)
        assert 1 <= len(names) <= 4 and size <= 4096
    assert browser.sign_in(site.quiet.url(path), "mark").status == 200


@pytest.mark.one_mpm
def test_ten_tabs(site, browser, simulator):
    """All are opened before anybody signs in; then each goes its way, and arrives."""
    tabs = [site.quiet.url(f"/any/page.html?tab={n}") for n in range(10)]
    callbacks = [browser.walk_to_callback(tab, "mark") for tab in tabs]
    for tab, callback in zip(reversed(tabs), reversed(callbacks)):
        last = browser.walk(browser.get(callback))[-1]
        assert last.status in (200, 404)
    assert browser.get(tabs[0]).status == 200
    assert simulator.asked().count("token") <= 4


@pytest.mark.one_mpm
def test_the_oldest_tab_first(site, browser):
    """Its ticket is gone, so the sign-in starts once more, by itself."""
    callbacks = [browser.walk_to_callback(site.quiet.url(f"/any/page.html?tab={n}"), "mark") for n in range(10)]
    last = browser.walk(browser.get(callbacks[0]))[-1]
    assert browser.session_value()
    assert last.status in (200, 404)


# -- methods

@pytest.mark.one_mpm
@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_spend_nothing(site, browser, simulator, method):
    callback = browser.walk_to_callback(site.quiet.url("/any/page.html"), "mark")
    answer = browser.request(method, callback, body=b"" if method in ("POST", "PUT") else None)
    assert answer.status == 405 and "GET" in answer.header("Allow")
    assert simulator.asked() == []
    assert browser.get(callback).status == 303


# -- many tabs, and browsers that go round in circles

def test_ten_tabs_at_once_land_on_their_own_pages(site, browser, simulator):
    """A browser restores its tabs: ten requests before the first answer. The first that comes
    back from Bitbucket signs in, the others go on to their pages."""
    browser.sign_in(site.plain.url("/any/page.html"), "mark")
    browser.jar.cookies = {key: cookie for key, cookie in browser.jar.cookies.items() if key[0] != "localhost"}
    pages = [f"/any/page.html?tab={n}" for n in range(10)]
    first = [browser.request("GET", site.plain.url(page), {**NAVIGATION, "Cookie": ""}) for page in pages]
    assert [answer.status for answer in first] == [302] * 10
    simulator.forget_calls()
    callbacks = [browser.follow(answer).location for answer in first]
    for page, callback in zip(pages, callbacks):
        answer = browser.get(callback)
        assert (answer.status, answer.location) == (303, page)
        assert browser.follow(answer).status == 200
    assert simulator.asked().count("token") == 1, "one sign-in for all"
    assert browser.ticket_names() == []


def test_somebody_else_is_signed_in_all_the_same(site, browser, simulator):
    """Who begins a sign-in with a session means it."""
    browser.sign_in(site.plain.url("/any/page.html"), "mark")
    before = browser.session_value()
    simulator.forget_calls()
    answer = browser.walk(browser.get(site.plain.endpoint("login") + "?return=/any/page.html"))[-1]
    assert answer.status == 200 and browser.session_value() != before
    assert simulator.asked().count("token") == 1


def test_a_browser_that_goes_round_in_circles_is_stopped(site, browser, simulator, logs):
    url = site.plain.url("/any/page.html")
    for _ in range(5):
        assert browser.sign_in(url, "mark").status == 200
        browser.lose_session()
    callback = browser.walk_to_callback(url, "mark")
    simulator.forget_calls()
    answer = browser.get(callback)
    assert (answer.status, answer.location) == (403, None)
    assert answer.reference and "no session cookie" in answer.text
    assert simulator.asked() == [], "Bitbucket is spared"
    line, = [line for line in logs.lines(tags.ANSWERED) if answer.reference in line.text]
    assert line.level == "info" and "reason=loop" in line.text


@pytest.mark.one_mpm
@pytest.mark.parametrize("how, seen", [("kept", "although it is signed in"), ("lost", "no session cookie"),
                                       ("ended", "a session that is not there")])
def test_what_is_said_of_the_session_is_what_was_seen(site, browser, how, seen):
    """Whoever picks another account again and again has a session."""
    login = site.plain.endpoint("login") + "?return=/any/page.html"
    for _ in range(5):
        assert browser.walk(browser.get(login), "mark")[-1].status == 200
    if how == "lost":
        browser.lose_session()
    elif how == "ended":
        cookies = dict(browser.jar.cookies)
        browser.submit(browser.get(site.plain.endpoint("logout")))
        browser.jar.cookies = cookies
    answer = browser.walk(browser.get(login))[-1]
    assert answer.status == 403 and "5 sign-ins within a minute" in answer.text and seen in answer.text


def test_the_circle_ends_after_a_minute(start_server, clock, browser):
    host = VirtualHost(place("any", "Require valid-user"))
    start_server(host, clock=clock)
    url = host.url("/any/page.html")
    for _ in range(5):
        assert browser.sign_in(url, "mark").status == 200
        browser.lose_session()
    assert browser.sign_in(url, "mark").status == 403
    clock.advance(61)
    assert browser.sign_in(url, "mark").status == 200


def test_a_made_up_count_counts_for_nothing(site, browser):
    browser.jar.take("localhost", False, parse_set_cookie("bitbucket_session_recent=" + "A" * 200 + "; Path=/"))
    assert browser.sign_in(site.plain.url("/any/page.html"), "mark").status == 200


def test_the_count_does_not_reach_applications(site, browser):
    browser.sign_in(site.plain.url("/any/page.html"), "mark")
    assert browser.jar.named("localhost", "_recent")
    assert "HTTP_COOKIE" not in browser.get(site.plain.url("/any/env.cgi")).environment


@pytest.mark.parametrize("keeps_others, seen", [(False, "brought no cookie at all"),
                                                (True, "brought other cookies, but not that of this sign-in")])
def test_blocked_cookies_are_told_as_they_were_seen(site, browser, logs, keeps_others, seen):
    """The second attempt ends on a page that says what was measured, as the log does."""
    url = site.plain.url("/any/page.html")
    callback = browser.walk_to_callback(url, "mark")
    headers = {**NAVIGATION, "Cookie": "theme=dark"} if keeps_others else NAVIGATION
    browser.jar.blocks_all = True
    browser.jar.cookies = {key: cookie for key, cookie in browser.jar.cookies.items() if key[0] != "localhost"}
    again = browser.request("GET", callback, headers)
    assert again.status == 302, "it starts once more"
    answer = browser.request("GET", browser.follow(again).location, headers)
    assert answer.status == 400 and seen in answer.text
    assert any(answer.reference in line.text and seen in line.text for line in logs.lines(tags.ANSWERED))

