"""Visitors without a session: pages go to Bitbucket, everything else is told 401."""

from __future__ import annotations

import re

import pytest

from harness.client import NAVIGATION, SCRIPT, send_bytes
from harness.config import VirtualHost, place

HTML = {"Accept": "text/html,application/xhtml+xml"}

REDIRECTED = {
    "Fetch Metadata": ("GET", NAVIGATION),
    "Fetch Metadata from another site": ("GET", {**NAVIGATION, "Sec-Fetch-Site": "cross-site"}),
    "HEAD": ("HEAD", NAVIGATION),
    "Accept": ("GET", HTML),
    "HEAD by Accept": ("HEAD", HTML),
    "Accept with weights": ("GET", {"Accept": "application/json;q=0.1, TEXT/HTML;q=0.9"}),
}
REFUSED = {
    "no Accept": ("GET", {}),
    "anything": ("GET", {"Accept": "*/*"}),
    "fetch": ("GET", {"Accept": "*/*", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}),
    "fetch of HTML": ("GET", {**HTML, "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}),
    "same-origin fetch": ("GET", {**HTML, "Sec-Fetch-Mode": "same-origin", "Sec-Fetch-Dest": "empty"}),
    "XHR": ("GET", {**HTML, "X-Requested-With": "XMLHttpRequest"}),
    "image": ("GET", {"Accept": "image/avif,image/webp,*/*", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}),
    "style": ("GET", {"Accept": "text/css,*/*;q=0.1", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "style"}),
    "web socket": ("GET", {**HTML, "Upgrade": "websocket", "Sec-Fetch-Mode": "websocket"}),
    "POST": ("POST", NAVIGATION),
    "PUT": ("PUT", NAVIGATION),
    "DELETE": ("DELETE", NAVIGATION),
    "PATCH": ("PATCH", NAVIGATION),
    "unknown method": ("BREW", NAVIGATION),
    "PROPFIND": ("PROPFIND", {"Accept": "*/*"}),
    "preflight": ("OPTIONS", {"Origin": "https://app.example", "Access-Control-Request-Method": "GET",
                              "Sec-Fetch-Mode": "cors"}),
    "OPTIONS navigation": ("OPTIONS", NAVIGATION),
    "prefetch": ("GET", {**NAVIGATION, "Sec-Purpose": "prefetch"}),
    "prerender": ("GET", {**NAVIGATION, "Sec-Purpose": "prefetch;prerender"}),
    "old prefetch": ("GET", {**HTML, "Purpose": "prefetch"}),
    "Firefox' prefetch": ("GET", {**HTML, "X-Moz": "prefetch"}),
    "iframe": ("GET", {**NAVIGATION, "Sec-Fetch-Dest": "iframe"}),
    "frame": ("GET", {**NAVIGATION, "Sec-Fetch-Dest": "frame"}),
    "object": ("GET", {**NAVIGATION, "Sec-Fetch-Dest": "object"}),
    "embed": ("GET", {**NAVIGATION, "Sec-Fetch-Dest": "embed"}),
    "JSON": ("GET", {"Accept": "application/json"}),
    "curl": ("GET", {"Accept": "*/*", "User-Agent": "curl/8.0"}),
}


@pytest.mark.parametrize("kind", REDIRECTED)
def test_navigations_are_sent_to_bitbucket(site, browser, kind):
    method, headers = REDIRECTED[kind]
    answer = browser.request(method, site.quiet.url("/any/page.html"), headers)
    assert answer.status == 302 and len(answer.tickets) == 1
    assert "client_id=" in answer.location
    if method == "HEAD":
        assert answer.body == b""


@pytest.mark.parametrize("kind", REFUSED)
def test_everything_else_gets_401_and_no_ticket(site, browser, simulator, kind):
    method, headers = REFUSED[kind]
    body = b"a=1" if method in ("POST", "PUT", "PATCH") else None
    answer = browser.request(method, site.quiet.url("/any/page.html"), headers, body=body)
    assert (answer.status, answer.location, answer.set_cookies) == (401, None, [])
    assert answer.header("WWW-Authenticate") == 'Bitbucket realm="Test site"'
    assert answer.header("Cache-Control") == "no-store"
    assert "test page" not in answer.text
    assert simulator.asked() == []


@pytest.mark.one_mpm
def test_json_where_it_is_asked_for(site, browser):
    answer = browser.get(site.quiet.url("/any/page.html"), {"Accept": "application/json"})
    assert answer.status == 401
    assert answer.header("Content-Type") == "application/json"
    assert answer.json["error"] == "unauthenticated"
    assert "/bitbucket/login" in answer.json["login_url"]


@pytest.mark.one_mpm
@pytest.mark.parametrize("kind", ["iframe", "frame"])
def test_frames_get_a_page_that_opens_in_its_own_tab(site, browser, kind):
    method, headers = REFUSED[kind]
    answer = browser.request(method, site.quiet.url("/any/page.html?q=1"), headers)
    assert answer.status == 401 and 'target="_blank"' in answer.text and "noopener" in answer.text
    login = answer.links["Sign in"]
    assert "/bitbucket/login?return=%2Fany%2Fpage.html%3Fq%3D1" in login


@pytest.mark.one_mpm
def test_a_preflight_may_be_exempted(site, browser):
    answer = browser.request("OPTIONS", site.plain.url("/preflight/data.txt"), REFUSED["preflight"][1])
    assert answer.status == 200
    assert browser.get(site.plain.url("/preflight/data.txt"), {"Accept": "*/*"}).status == 401


@pytest.mark.one_mpm
@pytest.mark.parametrize("value", ["", "x", "A" * 43, "A" * 42 + "!", "=" * 43, "../" * 20, "%00", "A" * 8000, "é" * 43,
                                   '"quoted"', "a b c", "\t", "A" * 44, "-" * 43])
def test_a_bad_session_cookie_is_no_cookie(site, browser, value):
    headers = {"Accept": "*/*", "Cookie": "bitbucket_session=" + value}
    assert browser.get(site.quiet.url("/any/page.html"), headers).status == 401
    headers["Accept"] = "text/html"
    assert browser.get(site.quiet.url("/any/page.html"), headers).status == 302


@pytest.mark.one_mpm
@pytest.mark.parametrize("line", [";", ";;;=;=;", "=", "bitbucket_session", "bitbucket_session=;" * 200, ", ".join("ab"),
                                  "; ".join(f"bitbucket_session_ticket_{n:08}=x" for n in range(150)),
                                  "bitbucket_session_ticket_=x", "bitbucket_session_ticket_a=" + "b" * 20000])
def test_odd_cookie_lines(site, browser, line):
    answer = browser.get(site.quiet.url("/any/page.html"), {**NAVIGATION, "Cookie": line})
    assert answer.status == 302 and len(answer.tickets) == 1


@pytest.mark.one_mpm
def test_a_body_does_not_become_the_next_request(site):
    """A refused POST on a kept connection: its body is read, not answered."""
    smuggled = b"GET /any/page.html HTTP/1.1\r\nHost: localhost\r\n\r\n"
    data = (b"POST /any/page.html HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(smuggled) + smuggled
            + b"GET /any/data.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert send_bytes(site.quiet.port, data).count(b"HTTP/1.1 401 ") == 2


@pytest.mark.parametrize("way", ["rewritten", "error document", "fallback", "included"])
def test_no_internal_redirect_leads_around_the_rules(start_server, browser, way):
    """From an open place into a protected one."""
    lines = {"rewritten": 'RewriteEngine On\nRewriteRule "^/open/way$" /team/page.html [PT]', "included": "",
             "error document": '<Location "/open/way">\nErrorDocument 404 /team/page.html\n</Location>',
             "fallback": '<Location "/open/way">\nFallbackResource /team/page.html\n</Location>'}[way]
    host = VirtualHost("\n".join([place("team", "Require bitbucket-workspace acme"), place("open", auth=False), lines]))
    server = start_server(host)
    (server.content / "way.shtml").write_text('before <!--#include virtual="/team/page.html" --> after')
    path = "/open/way.shtml" if way == "included" else "/open/way"
    for headers in (NAVIGATION, SCRIPT):
        assert "test page" not in browser.get(host.url(path), headers).text
    browser.sign_in(host.url("/team/page.html"), "oscar")
    for headers in (NAVIGATION, SCRIPT):
        assert "test page" not in browser.get(host.url(path), headers).text, "nor for somebody refused"


@pytest.mark.one_mpm
@pytest.mark.parametrize("rewriting", ["open", "team"])
def test_an_internal_redirect_knows_who_is_signed_in(start_server, browser, rewriting):
    """From an open place or a protected one; httpd runs all hooks again for it."""
    rule = f'<Location "/{rewriting}/way">\nRewriteEngine On\nRewriteRule ".*" /team/env.cgi\n</Location>'
    host = VirtualHost("\n".join([place("team", "Require bitbucket-workspace acme"), place("open", auth=False), rule]))
    start_server(host)
    browser.sign_in(host.url("/team/page.html"), "mark")
    answer = browser.get(host.url(f"/{rewriting}/way"))
    assert answer.status == 200 and answer.environment["REMOTE_USER"] == "mark_miller"
    assert "HTTP_COOKIE" not in answer.environment


@pytest.mark.one_mpm
def test_a_kept_connection_remembers_nobody(site, browser):
    """Requests of different people may share one, through a proxy."""
    browser.sign_in(site.quiet.url("/any/page.html"), "mark")
    cookie = b"Cookie: " + browser.jar.line("localhost", False).encode() + b"\r\n"
    head = b"GET /any/data.txt HTTP/1.1\r\nHost: localhost\r\n"
    data = head + cookie + b"\r\n" + head + b"\r\n" + head + cookie + b"\r\n" + head + b"Connection: close\r\n\r\n"
    statuses = re.findall(rb"HTTP/1.1 (\d+) ", send_bytes(site.quiet.port, data))
    assert statuses == [b"200", b"401", b"200", b"401"]


@pytest.mark.one_mpm
@pytest.mark.parametrize("session", [True, False])
def test_a_large_post_is_refused_or_read(site, browser, session):
    """413 and its like apart, a big body leaves the server well."""
    if session:
        browser.sign_in(site.quiet.url("/any/page.html"), "mark")
    answer = browser.request("POST", site.quiet.url("/any/env.cgi"), {"Accept": "*/*"}, body=b"x" * 3_000_000)
    assert answer.status == (200 if session else 401)


# -- AuthBitbucketUnauthenticated

def unauthenticated(name: str, *lines: str, rule: str = "Require bitbucket-workspace acme") -> str:
    return place(name, *(f"AuthBitbucketUnauthenticated {line}" for line in lines), rule)


ACTIONS = "\n".join([
    unauthenticated("auto", "auto"), unauthenticated("login", "login"), unauthenticated("s401", "401"),
    unauthenticated("s403", "403"), unauthenticated("pass", "pass"),
    unauthenticated("pass-any", "pass", rule="Require valid-user"),
    unauthenticated("pass-all", "pass", rule="Require all granted"),
    unauthenticated("pass-not", "pass", rule="<RequireAll>\nRequire valid-user\nRequire not bitbucket-workspace acme\n"
                                             "</RequireAll>"),
    unauthenticated("pass-email", "pass", rule="AuthBitbucketRemoteUser email\nRequire all granted"),
    unauthenticated("odd", '401 "expr=%{HTTP_USER_AGENT} =~ /^tool/"', '403 "expr=%{QUERY_STRING} == \'x\'"', "login"),
    unauthenticated("odd-auto", '401 "expr=%{HTTP_USER_AGENT} =~ /^tool/"'),
    place("above", "AuthBitbucketUnauthenticated 403", "Require valid-user"),
    '<Location "/above/login">\nAuthBitbucketUnauthenticated login\n</Location>',
    'Alias "/above/login" "${CONTENT}"',
    '<If "%{HTTP_USER_AGENT} == \'if\'">\nAuthBitbucketUnauthenticated 403\n</If>',
])
TOOL = {"Accept": "*/*", "User-Agent": "tool/1"}

ANSWERS = [
    # place, method, headers, status, whether there is a ticket
    ("auto", "GET", NAVIGATION, 302, True), ("auto", "GET", SCRIPT, 401, False),
    ("login", "GET", NAVIGATION, 302, True), ("login", "GET", SCRIPT, 302, True),
    ("login", "HEAD", {"Accept": "*/*"}, 302, True), ("login", "POST", NAVIGATION, 401, False),
    ("login", "PROPFIND", {"Accept": "*/*"}, 401, False),
    ("s401", "GET", NAVIGATION, 401, False), ("s401", "GET", SCRIPT, 401, False),
    ("s403", "GET", NAVIGATION, 403, False), ("s403", "GET", SCRIPT, 403, False), ("s403", "POST", NAVIGATION, 403, False),
    # Strangers whom the rules refuse are asked to sign in.
    ("pass", "GET", NAVIGATION, 302, True), ("pass", "GET", SCRIPT, 401, False),
    ("pass-any", "GET", NAVIGATION, 200, False), ("pass-any", "GET", SCRIPT, 200, False),
    ("pass-all", "GET", NAVIGATION, 200, False),
    # A stranger is a member of nothing.
    ("pass-not", "GET", NAVIGATION, 200, False),
    ("odd", "GET", TOOL, 401, False), ("odd", "GET", {"Accept": "*/*"}, 302, True),
    ("odd", "GET", NAVIGATION, 302, True), ("odd-auto", "GET", NAVIGATION, 302, True),
    ("odd-auto", "GET", {**NAVIGATION, **TOOL}, 401, False),
    ("above", "GET", NAVIGATION, 403, False), ("above/login", "GET", SCRIPT, 302, True),
    ("auto", "GET", {**NAVIGATION, "User-Agent": "if"}, 403, False),
]


@pytest.fixture
def actions(start_server):
    host = VirtualHost(ACTIONS)
    start_server(host)
    return host


def test_what_becomes_of_strangers(actions, new_browser, simulator):
    wrong = []
    for name, method, headers, status, has_ticket in ANSWERS:
        answer = new_browser().request(method, actions.url(f"/{name}/page.html"), headers,
                                       body=b"a=1" if method == "POST" else None)
        if (answer.status, bool(answer.tickets)) != (status, has_ticket):
            wrong.append(f"{method} {name} {headers}: {answer!r}")
        assert status == 200 or "test page" not in answer.text
    assert not wrong, "\n".join(wrong)
    assert simulator.asked() == []


def test_a_stranger_who_passes_is_nobody(actions, browser):
    for name in ("pass-any", "pass-all"):
        environment = browser.get(actions.url(f"/{name}/env.cgi")).environment
        found = {key for key in environment if key in ("REMOTE_USER", "AUTH_TYPE") or key.startswith("BITBUCKET_")}
        assert not found, (name, found)


@pytest.mark.parametrize("name", ["pass", "pass-any", "pass-all", "auto", "login", "s401", "s403", "odd"])
def test_whoever_is_signed_in_has_a_name_everywhere(actions, browser, name):
    browser.sign_in(actions.url("/auto/page.html"), "mark")
    environment = browser.get(actions.url(f"/{name}/env.cgi")).environment
    assert environment["REMOTE_USER"] == "mark_miller" and environment["AUTH_TYPE"] == "Bitbucket"
    assert environment["BITBUCKET_WORKSPACES"] == "acme:member"


def test_signed_in_and_refused_is_403_where_strangers_pass(actions, browser):
    browser.sign_in(actions.url("/auto/page.html"), "oscar")
    assert browser.get(actions.url("/pass/page.html")).status == 403
    assert browser.get(actions.url("/pass-not/page.html")).status == 200


def test_an_open_page_refuses_nobody_for_a_missing_name(actions, browser):
    """una's only address is not confirmed: at an open page she is nobody, not refused."""
    assert browser.sign_in(actions.url("/auto/page.html"), "una").status == 200
    answer = browser.get(actions.url("/pass-email/env.cgi"))
    assert answer.status == 200 and "REMOTE_USER" not in answer.environment


def test_a_broken_cookie_passes_as_a_stranger(actions, browser):
    answer = browser.get(actions.url("/pass-any/env.cgi"), {"Cookie": "bitbucket_session=" + "A" * 43})
    assert answer.status == 200 and "REMOTE_USER" not in answer.environment


@pytest.mark.one_mpm
@pytest.mark.parametrize("line, quoted", [("never", "'never'"), ("", ""), ("404", "'404'"), ("401 x=y", "'x=y'"),
                                          ('401 "expr=%{nonsense"', "expr=%{nonsense")])
def test_bad_actions_stop_the_start(start_server, line, quoted):
    checked = start_server.prepare(VirtualHost(unauthenticated("here", line))).run("-t")
    assert checked.returncode != 0 and quoted in checked.stdout
