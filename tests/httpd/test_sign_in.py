"""Signing in: from the first request of a stranger to the page they wanted."""

from __future__ import annotations

import re

import pytest

from harness import tags
from harness.client import NAVIGATION, TICKET
from harness.config import VirtualHost, place


def test_navigation_is_sent_to_bitbucket(site, browser, simulator):
    answer = browser.get(site.plain.url("/any/page.html"))
    assert answer.status == 302
    assert answer.location.partition("?")[0] == simulator.authorize_url
    query = answer.location_query
    assert re.fullmatch(r"[A-Za-z0-9_-]{44}", query.pop("state"))
    assert query == {"response_type": "code", "client_id": site.plain.client_id,
                     "redirect_uri": site.plain.callback_url}
    assert answer.header("Cache-Control") == "no-store"
    assert simulator.asked() == []


def test_each_attempt_has_a_state_of_its_own(site, browser):
    states = {browser.get(site.plain.url("/any/")).location_query["state"] for _ in range(20)}
    assert len(states) == 20


def test_ticket_cookie_on_http(site, browser):
    answer = browser.get(site.plain.url("/any/page.html"))
    ticket, = answer.set_cookies
    assert re.fullmatch(TICKET + r"[A-Za-z0-9_-]{8}", ticket.name)
    assert answer.location_query["state"].endswith(ticket.name.removeprefix(TICKET))
    assert ticket.attributes == {"path": "/", "httponly": "", "samesite": "Lax", "max-age": "3600"}
    assert len(ticket.name) + len(ticket.value) <= 4096
    assert "page.html" not in ticket.value


def test_sign_in_ends_at_the_page(site, browser):
    steps = browser.walk(browser.get(site.plain.url("/any/page.html")), "mark")
    assert steps[-1].status == 200 and "The test page" in steps[-1].text
    callback = steps[-2]
    assert callback.status == 303
    assert callback.location == "/any/page.html" or callback.location == site.plain.url("/any/page.html")
    assert callback.header("Cache-Control") == "no-store"
    assert callback.header("Referrer-Policy") == "no-referrer"
    assert browser.ticket_names() == [], "the ticket is taken back"


def test_session_cookie_on_http(site, browser):
    steps = browser.walk(browser.get(site.plain.url("/any/page.html")), "mark")
    cookie = steps[-2].session_cookie
    assert cookie.name == "bitbucket_session"
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", cookie.value)
    assert cookie.attributes == {"path": "/", "httponly": "", "samesite": "Lax"}


def test_each_sign_in_has_a_session_of_its_own(site, new_browser):
    values = set()
    for _ in range(3):
        browser = new_browser()
        browser.sign_in(site.plain.url("/any/page.html"), "mark")
        values.add(browser.session_value())
    assert len(values) == 3


@pytest.mark.parametrize("prefix, name", [("__Host-", "secure"), ("__Secure-", "shared")])
def test_cookies_on_https(site, browser, prefix, name):
    host = getattr(site, name)
    steps = browser.walk(browser.get(host.url("/any/page.html")), "mark")
    assert steps[-1].status == 200, steps
    domain = {"domain": "example.test"} if name == "shared" else {}
    expected = {"path": "/", "httponly": "", "samesite": "Lax", "secure": "", **domain}
    ticket, = steps[0].tickets
    assert ticket.name.startswith(prefix + TICKET)
    assert ticket.attributes == {**expected, "max-age": "3600"}
    session = steps[-2].session_cookie
    assert session.name == prefix + "bitbucket_session"
    assert session.attributes == expected
    deleted, = [c for c in steps[-2].set_cookies if c.deletes]
    assert (deleted.name, deleted.value) == (ticket.name, "")
    assert deleted.attributes == {**expected, "max-age": "0"}


DEEP_LINKS = [
    "/any/page.html?q=a%20b&x=%C3%A9%2f%25&empty=&plus=1+1&again=1&again=2",
    "/any/page.html?",
    "/any/page.html?return=/elsewhere&state=x&code=y&error=z",
    "/any/p%61ge.html",
    "/any/%7Eperson/%c3%a9t%C3%A9;v=1/~x!$&'()*+,=:@",
    "/any/page.html?q=" + "a" * 1500,
    "/any/a//b/c",
    "/any/page.html?u=https://elsewhere.example/%5C..%2F//x",
    "/any/",
    "/any",
]


@pytest.mark.parametrize("path", DEEP_LINKS)
@pytest.mark.one_mpm
def test_deep_link_returns_exactly(site, browser, path):
    callback = browser.walk_to_callback(site.quiet.url(path), "mark")
    answer = browser.get(callback)
    assert answer.status == 303
    assert answer.location.removeprefix(site.quiet.origin) == path


@pytest.mark.one_mpm
def test_a_link_too_long_returns_to_the_front_page(site, browser):
    callback = browser.walk_to_callback(site.quiet.url("/any/page.html?q=" + "a" * 3000), "mark")
    answer = browser.get(callback)
    assert (answer.status, answer.location.removeprefix(site.quiet.origin)) == (303, "/")


@pytest.mark.one_mpm
def test_host_header_changes_nothing(site, browser):
    """The callback comes from the configuration, never from the request."""
    for header in ({"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}, {"Forwarded": "host=evil.example;proto=https"}):
        answer = browser.get(site.quiet.url("/any/"), {"Accept": "text/html", **header})
        assert answer.status == 302
        assert answer.location_query["redirect_uri"] == site.quiet.callback_url
        assert "evil" not in answer.location


@pytest.mark.one_mpm
@pytest.mark.parametrize("name", ["evil.example", "localhost.evil.example", "evil-localhost", "[::1]", "127.0.0.1:99"])
def test_another_name_begins_at_the_sites_own(site, browser, name):
    """Its cookie would not come back to the callback. The detour leads to the site's own address, whoever is named."""
    answer = browser.get(site.quiet.url("/any/page.html?a=1"), {**NAVIGATION, "Host": name})
    assert answer.status == 302 and answer.set_cookies == []
    assert answer.location == site.quiet.endpoint("login") + "?return=%2Fany%2Fpage.html%3Fa%3D1"
    # Also where a proxy in front says another name each time: there is one detour, no circle.
    again = browser.get(answer.location, {**NAVIGATION, "Host": name})
    assert again.status == 302 and again.location_query["redirect_uri"] == site.quiet.callback_url and again.tickets


@pytest.mark.one_mpm
@pytest.mark.parametrize("name", ["localhost", "LOCALHOST:1", "localhost:80"])
def test_the_sites_own_name_needs_no_detour(site, browser, name):
    assert browser.get(site.quiet.url("/any/"), {**NAVIGATION, "Host": name}).tickets


def test_signing_in_under_an_alias(start_server, browser):
    """It ends on the page that was wanted, at the site's own address."""
    host = VirtualHost("ServerAlias wiki.localhost\n" + place("any", "Require valid-user"))
    start_server(host)
    page = browser.sign_in(f"http://wiki.localhost:{host.port}/any/page.html?b=2", "mark")
    assert page.status == 200 and page.url == host.url("/any/page.html?b=2")


@pytest.mark.one_mpm
def test_a_second_sign_in_ends_the_first(site, browser):
    browser.sign_in(site.quiet.url("/any/page.html"), "mark")
    first = browser.session_value()
    browser.jar.cookies = {k: v for k, v in browser.jar.cookies.items() if k[0] == "localhost"}
    answer = browser.walk(browser.get(site.quiet.endpoint("login")), "olivia")[-1]
    assert browser.session_value() != first
    user = browser.get(site.quiet.url("/any/env.cgi")).environment["REMOTE_USER"]
    assert user == "olivia_owens", answer
    stale = browser.get(site.quiet.url("/any/page.html"), {"Accept": "*/*", "Cookie": f"bitbucket_session={first}"})
    assert stale.status == 401


@pytest.mark.one_mpm
def test_no_access_log_has_the_code(start_server, browser, mpm):
    """Nor the state: whatever a log can say of the callback's address, it has no query."""
    host = VirtualHost('CustomLog logs/all.log "%>s %r|%U|%q|%{REDIRECT_QUERY_STRING}e"\n' + place("any", "Require valid-user"))
    server = start_server(host, mpm=mpm)
    browser.get(browser.walk_to_callback(host.url("/any/page.html"), "mark"))
    browser.get(host.url("/any/page.html?x=1"))
    server.await_in_log("all.log", "\n303 GET")
    log = server.await_in_log("all.log", "x=1")
    assert "\n303 GET /bitbucket/callback HTTP/1.1|/bitbucket/callback||-\n" in log
    assert "code" not in log and "state" not in log
    assert "\n200 GET /any/page.html?x=1 HTTP/1.1|/any/page.html|?x=1|-\n" in log


# -- many tabs, slow people

def walk_back(browser, answer):
    """From an answer of the callback to the end."""
    return browser.walk(answer, "mark")[-1]


def test_ten_tabs_one_after_the_other(site, browser, simulator):
    """Cookies of the first had to make room; each still ends on its own page, whichever comes back first."""
    pages = [site.plain.url(f"/any/page.html?tab={number}") for number in range(10)]
    callbacks = [browser.walk_to_callback(page, "mark") for page in pages]
    assert len(browser.ticket_names()) <= 4
    order = [0, 9, *range(1, 9)]
    for number in order:
        page = walk_back(browser, browser.get(callbacks[number]))
        assert page.status == 200 and page.url == pages[number]
    assert simulator.asked().count("token") == 1, "the others only go on"


def test_what_a_browser_remembers_stays_small(site, browser):
    """Sixty abandoned tabs with long addresses: the cookies of all stay below 8 kB, and the newest attempts count."""
    for number in range(60):
        browser.get(site.plain.url(f"/any/page.html?{'x' * 300}{number}"))
    line = browser.jar.line("localhost", False)
    assert len(line) < 6500, len(line)
    assert len(browser.jar.named("localhost", "_ways")) == 1 and len(browser.ticket_names()) <= 4
    longest = "/any/page.html?" + "y" * 1900
    browser.get(site.plain.url(longest))
    assert len(browser.jar.line("localhost", False)) < 6500


@pytest.mark.parametrize("minutes", [11, 55])
def test_whoever_looks_for_the_password(start_server, clock, browser, logs, minutes):
    """The attempt is too old; it begins once more by itself and ends on the page that was wanted."""
    host = VirtualHost(place("any", "Require valid-user"))
    start_server(host, clock=clock)
    callback = browser.walk_to_callback(host.url("/any/page.html?wanted=1"), "mark")
    clock.advance(60 * minutes)
    first = browser.get(callback)
    assert first.status == 302 and first.session_cookie is None
    page = browser.walk(first, "mark")[-1]
    assert page.status == 200 and page.url == host.url("/any/page.html?wanted=1")
    line, = logs.lines(tags.ONCE_MORE)
    assert "longer than ten minutes" in line.text


@pytest.mark.parametrize("value", ["", "AAAA", "A" * 4000, "..", "%00"])
def test_a_made_up_memory_is_none(site, browser, value):
    callback = browser.walk_to_callback(site.plain.url("/any/page.html?wanted=1"), "mark")
    browser.jar.cookies.clear()
    answer = browser.get(callback, {**NAVIGATION, "Cookie": f"bitbucket_session_ways={value}"})
    assert answer.status == 302 and answer.session_cookie is None
    assert browser.walk(answer, "mark")[-1].url in (site.plain.url("/"), site.plain.url("/index.html"))
