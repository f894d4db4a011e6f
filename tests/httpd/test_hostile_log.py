"""What strangers can make the module write: nothing above info, nothing that they sent in secret,
no byte that is not plain text."""

from __future__ import annotations

import base64
import itertools
import re
from urllib.parse import quote

import pytest

from harness.client import NAVIGATION, SCRIPT, send, send_bytes
from harness.config import VirtualHost, place
from harness.simulator import uuid_of

pytestmark = pytest.mark.one_mpm


def page(name: str, rule: str) -> str:
    """One of the module's own, for administrators."""
    return f'<Location "/{name}">\n    SetHandler bitbucket-{name}\n    AuthType Bitbucket\n    {rule}\n</Location>'


SITE = "\n".join([
    place("any", "Require valid-user"),
    place("team", "AuthBitbucketPreservePost On", "Require bitbucket-workspace acme"),
    place("tool", "AuthBitbucketAPIToken On bearer", "Require valid-user"),
    place("mapped", "AuthBitbucketAPIToken On", 'Require bitbucket-workspace "%{QUERY_STRING}"'),
    place("pass", "AuthBitbucketUnauthenticated pass", "Require bitbucket-workspace acme"),
    place("closed", "AuthBitbucketUnauthenticated 403", "Require valid-user"),
    page("status", "Require bitbucket-workspace acme:owner"), page("sessions", f"Require bitbucket-user {uuid_of('olivia')}"),
])
UGLY = ["%00", "%0a", "%0d%0aSet-Cookie:%20a=b", "%1b[2J", "%e2%80%ae", "%ff%fe", "%22%20account=0%20rule=%22none", "%25n%25s", "a" * 5000, "%", "%zz",
        "&" * 200, "%3Cscript%3E", "ABB0203:%20signed%20in;%20account=0"]
RETURNS = ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", "%0d%0aX:%20y", "/%00", "/..//evil", "%2f%2fevil"]
# Decoded bytes: what a header may hold that http.client sends as latin-1.
UGLY_BYTES = ["\x01\x02", "\x7f", "\x9b31m", "\xff" * 40, "\t", '"', "'; x", "%n%s", "=" * 60, "a" * 9000, "ABB0103: refused; user=\"x\""]
METHODS = ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "PROPFIND", "BREW", "TRACE"]


class Secrets:
    """Words that are sent where secrets are, each once."""

    def __init__(self, remember) -> None:
        self._numbers = itertools.count(1)
        self._remember = remember

    def __call__(self, length: int = 0) -> str:
        word = f"Sq{next(self._numbers):05d}zXkW7pT"
        word += "qQ9" * (max(0, length - len(word)) // 3 + 1) if length else ""
        word = word[:length] if length else word
        self._remember(word)
        return word


def encoded(text: str) -> str:
    return base64.b64encode(text.encode("latin-1")).decode()


def of_cookies(host, secret, own):
    """Cookies under every name of the module: forged, cut, longer, of bytes, and many."""
    session, attempt = own["session"], own["attempt"]
    values = [secret(43), secret(42), secret(44), secret(), secret(8000), "", own["value"][:-1], own["value"][:-1] + "_", own["value"] + "A"]
    names = [session, attempt, "bitbucket_session_ways", "bitbucket_session_recent", "bitbucket_session_badge", "__Host-" + session,
             "bitbucket_session_ticket_" + secret()]
    for name, value in itertools.product(names, values):
        yield "GET", "/any/page.html", {**NAVIGATION, "Cookie": f"{name}={value}"}, None
    for mess in UGLY_BYTES:
        yield "GET", "/any/page.html", {**NAVIGATION, "Cookie": f"{session}={secret()}{mess}; {attempt}={mess}{secret()}"}, None
    yield "GET", "/any/page.html", {**NAVIGATION, "Cookie": "; ".join(f"bitbucket_session_ticket_{n}={secret()}" for n in range(60))}, None


def of_callbacks(host, secret, own):
    """With no attempt, with that of another, and with an own one that is open."""
    state, line = own["state"], own["line"]
    queries = ["", "code", f"code={secret()}", f"state={state}", f"code={secret()}&state=", f"code={secret()}&state=x", f"code=&state={state}",
               f"code={secret()}&code={secret()}&state={state}", f"code={secret()}&state={state}&error=x", f"code={secret(3000)}&state={state}x",
               f"handover={secret()}", f"code={secret()}&state={state[::-1]}"]
    queries += [f"code={secret()}{mess}&state={state}{mess}" for mess in UGLY]
    queries += [f"error={mess}&error_description={mess}&state=x" for mess in UGLY]
    for query, cookie in itertools.product(queries, ({}, {"Cookie": line})):
        yield "GET", f"/bitbucket/callback?{query}", {**NAVIGATION, **cookie}, None
    for method in METHODS:
        yield method, f"/bitbucket/callback?code={secret()}&state={state}", {**NAVIGATION, "Cookie": line}, None


def of_endpoints(host, secret, own):
    """Return addresses, queries, methods and forms at the module's own addresses."""
    for name, value in itertools.product(("login", "logout"), RETURNS + UGLY):
        yield "GET", f"/bitbucket/{name}?return={value}", NAVIGATION, None
        yield "GET", f"/bitbucket/{name}?{value}", NAVIGATION, None
    for name, method in itertools.product(("login", "logout", "userinfo", "kept-form"), METHODS):
        yield method, f"/bitbucket/{name}", SCRIPT, None
    for value in UGLY:
        yield "GET", f"/bitbucket/kept-form?n={value}", NAVIGATION, None
        yield "GET", f"/bitbucket/userinfo?{value}", SCRIPT, None
    for body in (f"token={secret()}", f"token={secret(9000)}", f"token={secret()}&return=//evil.example", "%", "\0" * 50, f"token={secret()}&token=x"):
        for kind in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"):
            for cookie in ({}, {"Cookie": own["session"] + "=" + own["value"]}):
                yield "POST", "/bitbucket/logout", {**NAVIGATION, **cookie, "Content-Type": kind}, body.encode("latin-1")
                yield "POST", "/team/page.html", {**NAVIGATION, **cookie, "Content-Type": kind}, body.encode("latin-1")


def of_credentials(host, secret, own):
    """Basic and Bearer, whole and broken; sent over again what Bitbucket refuses would only be throttled."""
    broken = ["Basic", "Basic ", "Basic !!!!" + secret(), "Basic " + encoded(secret()), "Basic " + encoded(":" + secret()),
              "Basic " + encoded(f"mark@acme.example:{secret()}\0x"), "Basic " + encoded(f"m\x01ark@acme.example:{secret()}"),
              "Bearer", "Bearer ", "Bearer a b", f"Bearer {secret()} {secret()}", "Bearer " + secret(9000), f"Digest username=\"{secret()}\"",
              secret(), "Basic " + secret(300)]
    whole = ["Basic " + encoded(f"mark@acme.example:{secret()}"), "Basic " + encoded(f"{secret()}@x.example:{secret()}"), "Bearer " + secret(60),
             "Basic " + encoded(f"mark@acme.example:{secret()}\xe9\xff")]
    whole += [f"Bearer {secret()}{mess}" for mess in UGLY_BYTES] + ["Basic " + encoded(f"a@b.example:{secret()}{mess}") for mess in UGLY_BYTES]
    for credential in broken + whole:
        for path in ("/tool/page.html", "/any/page.html"):
            yield "GET", path, {"User-Agent": "curl/8.0", "Accept": "*/*", "Authorization": credential}, None


def of_places(host, secret, own):
    """Queries, methods and headers at protected places, and pages for administrators."""
    for value in UGLY:
        for path in ("/any/page.html", "/mapped/page.html", "/closed/page.html", "/pass/page.html", "/status", "/sessions"):
            yield "GET", f"{path}?{value}", NAVIGATION, None
    for path, method in itertools.product(("/any/page.html", "/status", "/sessions"), METHODS):
        yield method, path, SCRIPT, None
    for mess in UGLY_BYTES:
        yield "GET", "/any/page.html", {**NAVIGATION, "X-Bitbucket-User": mess, "Origin": mess, "Referer": mess, "Host": "evil.example"}, None
        yield "GET", "/sessions?account=" + quote(mess), {**NAVIGATION, "X-Requested-With": mess}, None
    yield "POST", "/sessions", {**NAVIGATION, "Content-Type": "application/x-www-form-urlencoded"}, f"action=end&account={uuid_of('mark')}".encode()


KINDS = (of_cookies, of_callbacks, of_endpoints, of_credentials, of_places)
SIGNED_IN = ("/mapped/page.html?%s", "/sessions?account=%s", "/status?%s", "/bitbucket/logout?return=%s", "/any/page.html?%s")


@pytest.fixture
def host(start_server):
    host = VirtualHost(SITE)
    start_server(host)
    return host


def bytes_of(logs) -> str:
    return "".join(text for path, text in logs.written() if path.name == "error.log")


def check(logs, count: int) -> None:
    levels = {line.level for line in logs.lines()}
    assert count >= 20 and not levels & {"notice", "warn", "error", "crit", "alert", "emerg"}, [
        line.text for line in logs.lines() if line.level in ("notice", "warn", "error")][:5]
    ours = [line for line in bytes_of(logs).split("\n") if "[auth_bitbucket:" in line]
    assert ours and not [line for line in ours if re.search(r"[^\x20-\x7e]", line)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_strangers(host, kind, new_browser, logs, simulator):
    """Every answer is one of the module's or of httpd; log_watch looks for what was sent in secret."""
    friend, browser = new_browser(), new_browser()
    friend.sign_in(host.url("/any/page.html"), "mark")
    state = browser.get(host.url("/any/page.html")).location_query["state"]
    own = {"session": "bitbucket_session", "value": friend.session_value(), "attempt": browser.ticket_names()[0], "state": state,
           "line": browser.jar.line("localhost", False)}
    count = 0
    for count, (method, path, headers, body) in enumerate(kind(host, Secrets(logs.remember), own), 1):
        answer = send(method, host.url(path), headers, body)
        # 503 is for too many at once; nobody else is there.
        assert answer.status < 500 or method in ("BREW", "PROPFIND", "TRACE"), (method, path[:200], answer)
        assert answer.status in range(200, 506)
    check(logs, count)


@pytest.mark.parametrize("error", ["server_error", "invalid_scope", "%1b[2J%0aABB0203", "x" * 3000], ids=str.__len__)
def test_errors_that_a_visitor_makes_up(host, browser, logs, error):
    """With an attempt of its own: Bitbucket has said nothing of the kind."""
    for _ in range(20):
        state = browser.get(host.url("/any/page.html")).location_query["state"]
        answer = browser.get(host.endpoint("callback") + f"?error={error}&error_description={error}&state={state}")
        assert answer.status in (500, 503) and answer.reference
    check(logs, 20)


def test_visitors_who_are_signed_in(host, browser, logs):
    browser.sign_in(host.url("/any/page.html"), "mark")
    for path, value in itertools.product(SIGNED_IN, UGLY + RETURNS):
        browser.get(host.url(path % value))
    for body in ("token=x", "return=//evil", "%"):
        browser.request("POST", host.endpoint("logout"), {**NAVIGATION, "Content-Type": "application/x-www-form-urlencoded"}, body=body.encode())
    check(logs, len(SIGNED_IN) * len(UGLY + RETURNS))


def test_bytes_that_are_no_request(host, logs):
    """httpd answers these; the module hears of some."""
    for data in (b"GET /bitbucket/callback?code=\x00 HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /any/page.html HTTP/1.1\r\nHost: x\r\nCookie: \x1b[2J\r\n\r\n",
                 b"GET /bitbucket/login?return=\x1b HTTP/1.0\r\n\r\n", b"\x16\x03\x01" * 50, b"GET http://evil.example/bitbucket/login?return=/x HTTP/1.0\r\n\r\n"):
        send_bytes(host.port, data)
        send_bytes(host.port, b"GET /any/page.html HTTP/1.0\r\nConnection: close\r\n\r\n")
    check(logs, 20)
