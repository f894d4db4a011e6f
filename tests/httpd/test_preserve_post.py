"""AuthBitbucketPreservePost: a form posted after the session ended survives the sign-in."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from urllib.parse import quote, urljoin, urlparse

import pytest

from harness.client import NAVIGATION, SCRIPT, Answer, Browser, send, send_bytes
from harness.config import VirtualHost, place
from test_cluster import cache, redis, start_cache, start_cluster  # noqa: F401
from test_hub import of_client, own

URLENCODED = "application/x-www-form-urlencoded"
BOUNDARY = "----WebKitFormBoundaryabcDEF0123456789"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
KEPT = 64 * 1024
ECHO = """#!/bin/sh
printf 'Content-Type: application/octet-stream\\r\\n\\r\\n%s\\n%s\\n%s\\n' "$CONTENT_TYPE" "$QUERY_STRING" "$REMOTE_USER"
[ "$REQUEST_METHOD" != POST ] || cat
"""
PRESERVING = "\n".join([
    place("any", "AuthBitbucketPreservePost On", "Require valid-user"),
    place("team", "AuthBitbucketPreservePost On", "Require bitbucket-workspace acme"),
    place("owners", "AuthBitbucketPreservePost On", "Require bitbucket-workspace acme:owner"),
    place("either", "AuthBitbucketPreservePost On", "<RequireAny>", "Require ip 192.0.2.1",
          "Require bitbucket-workspace acme", "</RequireAny>"),
    place("none", "AuthBitbucketPreservePost On", "<RequireAll>", "Require valid-user",
          "<RequireNone>", "Require bitbucket-user somebody-else", "</RequireNone>", "</RequireAll>"),
    place("shared", "AuthBitbucketPreservePost On", "AuthBitbucketPrivate Off", "Require valid-user"),
    place("off", "Require valid-user"),
    *(place("un" + action, "AuthBitbucketPreservePost On", f"AuthBitbucketUnauthenticated {action}", "Require valid-user",
            "Require bitbucket-workspace acme") for action in ("auto", "login", "401", "403")),
    place("unpass", "AuthBitbucketPreservePost On", "AuthBitbucketUnauthenticated pass", "Require bitbucket-workspace acme"),
])


# -- a site, and people at forms

def add_echo(server) -> None:
    path = server.content / "echo.cgi"
    path.write_text(ECHO)
    path.chmod(0o755)


@pytest.fixture
def host():
    return VirtualHost(PRESERVING)


@pytest.fixture
def server(start_server, host, clock):
    server = start_server(host, clock=clock)
    add_echo(server)
    return server


@pytest.fixture
def mark(server, host, browser):
    """Mark's browser, whose session is over."""
    sign_in_and_lose(browser, host)
    return browser


def sign_in_and_lose(browser, host, person="mark", path="/any/page.html") -> None:
    assert "The test page" in browser.sign_in(host.url(path), person).text
    browser.lose_session()


def form_headers(host, content_type=URLENCODED, **more):
    headers = {**NAVIGATION, "Sec-Fetch-Site": "same-origin", "Origin": host.origin,
               "Referer": host.url("/any/page.html"), "Content-Type": content_type, **more}
    return {name: value for name, value in headers.items() if value is not None}


def post(browser, host, body, path="/any/echo.cgi", content_type=URLENCODED, **more):
    headers = form_headers(host, content_type, **{name.replace("_", "-"): value for name, value in more.items()})
    return browser.request("POST", host.url(path), headers, body=body)


def is_kept(answer) -> bool:
    return answer.status == 303 and re.fullmatch(r"/bitbucket/kept-form\?n=[0-9a-f]{16}", answer.location or "") is not None


def open_offer(browser, answer, person="mark"):
    """From the answer to the form to our page after the sign-in."""
    assert is_kept(answer), repr(answer)
    page = browser.follow(answer)
    assert "Sign in to send your form" in page.text, repr(page)
    return browser.walk(browser.click(page, "Sign in"), person)[-1]


class Offer(HTMLParser):
    """The form that our page holds, encoded as browsers do. Source: HTML, section 4.10.21."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer
        self.attributes = {}
        self.fields: list[tuple[str, str, bool]] = []
        self._form = -1
        self._area: str | None = None
        # What parsers do first; references come later.
        self.feed(re.sub("\r\n?", "\n", answer.body.decode()))

    def handle_starttag(self, tag, pairs):
        attributes = dict(pairs)
        if tag == "form":
            self._form += 1
            if self._form == 0:
                self.attributes = attributes
        elif tag == "input" and self._form == 0:
            is_of_charset = attributes["name"].lower() == "_charset_"
            value = self.charset.upper() if is_of_charset else attributes.get("value", "")
            self.fields.append((attributes["name"], value, attributes["type"] == "file"))
        elif tag == "textarea" and self._form == 0:
            self.fields.append((attributes["name"], "", False))
            self._area = ""

    def handle_data(self, data):
        if self._area is not None:
            self._area += data if self._area else data.removeprefix("\n")

    def handle_endtag(self, tag):
        if tag == "textarea" and self._area is not None:
            name, _, _ = self.fields[-1]
            self.fields[-1] = (name, self._area, False)
            self._area = None

    @property
    def charset(self) -> str:
        return self.attributes["accept-charset"]

    def bytes_of(self, text: str) -> bytes:
        text = re.sub("\r\n|\r|\n", "\r\n", text)
        if self.charset == "utf-8":
            return text.encode()
        # windows-1252 as browsers have it: the bytes that Python's leaves out are controls.
        return b"".join(bytes([ord(c)]) if 0x80 <= ord(c) < 0xa0 else c.encode("cp1252") for c in text)

    def urlencoded(self) -> bytes:
        def encode(text: str) -> str:
            return quote(self.bytes_of(text), safe=" *-._").replace("~", "%7E").replace(" ", "+")
        return "&".join(f"{encode(name)}={encode(value)}" for name, value, _ in self.fields).encode()

    def multipart(self, boundary: str = BOUNDARY) -> bytes:
        parts = []
        for name, value, is_file in self.fields:
            name = self.bytes_of(name).replace(b"\r", b"%0D").replace(b"\n", b"%0A").replace(b'"', b"%22")
            more = b'; filename=""\r\nContent-Type: application/octet-stream' if is_file else b""
            parts.append(part(name, self.bytes_of(value), more))
        return body_of(*parts, boundary=boundary)

    def send(self, browser, host):
        """Click on "Send it now"."""
        is_multipart = self.attributes["enctype"] == "multipart/form-data"
        return post(browser, host, self.multipart() if is_multipart else self.urlencoded(), self.attributes["action"],
                    MULTIPART if is_multipart else URLENCODED, Referer=self.answer.url)


def part(name: bytes, value: bytes, more: bytes = b"") -> bytes:
    return b'Content-Disposition: form-data; name="' + name + b'"' + more + b"\r\n\r\n" + value + b"\r\n"


def body_of(*parts: bytes, boundary: str = BOUNDARY) -> bytes:
    line = b"--" + boundary.encode()
    return b"".join(line + b"\r\n" + one for one in parts) + line + b"--\r\n"


def received(answer) -> bytes:
    """What the program got: the body."""
    assert answer.status == 200, repr(answer)
    return answer.body.split(b"\n", 3)[3]


# -- the way

URLENCODED_BODIES = {
    "plain": b"a=1&b=two",
    "nothing": b"",
    "empty values": b"a=&b=&a=",
    "duplicates in order": b"z=1&a=2&z=3&a=1&Z=4",
    "odd names": b"%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E=1&%5B%5D=2&a+b=3&%27=4&%26amp%3B=5".replace(b"(1)", b"%281%29"),
    "markup": b"text=%3C%2Ftextarea%3E%3C%2Fform%3E%22%27%26lt%3B%26%23x41%3B&x=%26quot%3B",
    "lines": b"text=%0D%0Aone%0D%0A%0D%0Atwo%0D%0A&a%0D%0Ab=1",
    "UTF-8": "name=".encode() + quote("Zoë 😀 ß ‮ \u0085 \ufeff \ufffe \u2028").replace("%20", "+").encode(),
    "controls": b"text=%01%02%08%0B%0C%0E%1F%7F%09+",
    "bytes that are not UTF-8": b"name=J%F6rg&other=%80%81%8D%8F%90%9D%9F%A0%FF%C3%28&%E9=1",
    "half a character": b"a=%C3&b=%A9",
    "a surrogate": b"a=%ED%A0%80",
    "names of the encoding": b"_charset_=iso-8859-15&_Charset_=%0D%0Ax&isindex=1&token=t&return=r&n=1",
    "many fields": b"&".join(b"f%d=%d" % (n, n) for n in range(5000)),
}


@pytest.mark.one_mpm
@pytest.mark.parametrize("kind", URLENCODED_BODIES)
def test_a_form_survives(mark, host, kind):
    body = URLENCODED_BODIES[kind]
    page = open_offer(mark, post(mark, host, body))
    assert page.status == 200 and "Your form is still here" in page.text and "/any/echo.cgi" in page.text
    assert received(Offer(page).send(mark, host)) == body


MULTIPART_BODIES = {
    "plain": body_of(part(b"a", b"1"), part(b"b", b"two")),
    "nothing": body_of(),
    "empty values": body_of(part(b"a", b""), part(b"a", b"")),
    "lines and dashes": body_of(part(b"text", b"\r\n--\r\n" + b"--" + BOUNDARY.encode()[:-1] + b"\r\n\r\n")),
    "odd names": body_of(part(b"a%22b%0D%0A;filename=", b"1"), part(b"a\\", b"2"), part(b"<x>'&amp;", b"3")),
    "UTF-8": body_of(part("naïve".encode(), "😀".encode())),
    "bytes that are not UTF-8": body_of(part(b"na\xefve", b"\x80\x81\x9d\xff"), part(b"b", "ü".encode())),
    "name of the encoding": body_of(part(b"_charset_", b"x")),
    "no file chosen": body_of(part(b"a", b"1"), part(b"f", b"", b'; filename=""\r\nContent-Type: application/octet-stream'),
                              part(b"b", b"2")),
}


@pytest.mark.one_mpm
@pytest.mark.parametrize("kind", MULTIPART_BODIES)
def test_a_multipart_form_survives(mark, host, kind):
    body = MULTIPART_BODIES[kind]
    page = open_offer(mark, post(mark, host, body, content_type=MULTIPART))
    offer = Offer(page)
    assert offer.attributes["enctype"] == "multipart/form-data"
    assert received(offer.send(mark, host)) == body


def test_every_mpm(start_server, new_browser, mpm):
    """With a session that really ends, sent in pieces, to an address with a query."""
    host = VirtualHost("AuthBitbucketSessionTimeout 1s\n" + PRESERVING)
    server = start_server(host, mpm=mpm)
    add_echo(server)
    browser = new_browser()
    sign_in_and_lose(browser, host)
    head = "".join(f"{name}: {value}\r\n" for name, value in form_headers(host, Connection="close").items())
    data = (f"POST /any/echo.cgi?q=%3Cb%3E&x='1' HTTP/1.1\r\nHost: localhost:{host.port}\r\nTransfer-Encoding: chunked\r\n"
            f"Expect: 100-continue\r\nCookie: {browser.jar.line('localhost', False)}\r\n{head}\r\n3\r\na=1\r\n4\r\n&b=2\r\n0\r\n\r\n")
    answer = send_bytes(host.port, data.encode())
    address = re.search(rb"Location: (/bitbucket/kept-form\?n=[0-9a-f]+)", answer)
    assert address, answer
    page = browser.get(host.url(address.group(1).decode()))
    page = browser.walk(browser.click(page, "Sign in"))[-1]
    answer = Offer(page).send(browser, host)
    assert answer.body.split(b"\n")[1] == b"q=%3Cb%3E&x='1'" and received(answer) == b"a=1&b=2"


@pytest.mark.one_mpm
@pytest.mark.parametrize("name", ["team", "either", "none", "unauto", "unlogin"])
def test_with_every_rule(mark, host, name):
    page = open_offer(mark, post(mark, host, b"a=1", f"/{name}/echo.cgi"))
    assert received(Offer(page).send(mark, host)) == b"a=1"


@pytest.mark.one_mpm
def test_somebody_the_rules_refuse(mark, host):
    """The form stays, until it runs out: perhaps the rules change."""
    page = open_offer(mark, post(mark, host, b"a=1", "/owners/echo.cgi"))
    assert Offer(page).send(mark, host).status == 403
    assert "Your form is still here" in mark.get(page.url).text


@pytest.mark.one_mpm
@pytest.mark.parametrize("action, status", [("401", 401), ("403", 403), ("pass", 401)])
def test_actions_that_keep_no_form(mark, host, action, status):
    answer = post(mark, host, b"a=1", f"/un{action}/echo.cgi")
    assert answer.status == status and "Your form was not sent" not in answer.text
    assert "No form is kept here" in mark.get(host.endpoint("kept-form")).text


@pytest.mark.one_mpm
def test_off_is_the_default(mark, host, simulator):
    before = simulator.asked()
    answer = post(mark, host, b"a=1", "/off/echo.cgi")
    assert answer.status == 401 and answer.set_cookies == [] and "Your form was not sent" not in answer.text
    assert simulator.asked() == before


@pytest.mark.one_mpm
def test_somebody_signed_in_notices_nothing(server, browser, host):
    browser.sign_in(host.url("/any/page.html"), "mark")
    assert received(post(browser, host, b"a=1&a=2")) == b"a=1&a=2"


@pytest.mark.one_mpm
def test_the_session_ends_again_before_the_click(mark, host):
    page = open_offer(mark, post(mark, host, b"a=1"))
    mark.lose_session()
    page = open_offer(mark, Offer(page).send(mark, host))
    assert received(Offer(page).send(mark, host)) == b"a=1"
    mark.lose_session()
    page = mark.follow(Offer(page).send(mark, host))
    assert mark.submit(page).links["Continue"] == "/", "our own page would have nothing to show"


@pytest.mark.one_mpm
def test_in_htaccess(start_server, browser, host):
    server = start_server(VirtualHost("", port=host.port, client_id=host.client_id, client_secret=host.client_secret))
    directory = server.content / "inside"
    directory.mkdir()
    (directory / ".htaccess").write_text("AuthType Bitbucket\nAuthBitbucketPreservePost On\nRequire valid-user\n")
    (directory / "page.html").write_text("<h1>The test page</h1>")
    sign_in_and_lose(browser, host, path="/inside/page.html")
    assert is_kept(post(browser, host, b"a=1", "/inside/page.html"))


OUTER = '<Location "/">\nAuthBitbucketPreservePost {}\n</Location>'
MERGES = {
    "nothing": ("", "", False),
    "inner alone": ("", "AuthBitbucketPreservePost On", True),
    "outer to inner": (OUTER.format("On"), "AuthBitbucketRemoteUser uuid", True),
    "inner off, outer on": (OUTER.format("On"), "AuthBitbucketPreservePost Off", False),
    "inner on, outer off": (OUTER.format("Off"), "AuthBitbucketPreservePost On", True),
}


@pytest.mark.one_mpm
@pytest.mark.parametrize("kind", MERGES)
def test_merging(start_server, browser, kind):
    around, inside, expected = MERGES[kind]
    host = VirtualHost("\n".join([around, place("any", inside, "Require valid-user"),
                                  place("on", "AuthBitbucketPreservePost On", "Require valid-user")]))
    start_server(host)
    sign_in_and_lose(browser, host, path="/on/page.html")
    assert is_kept(post(browser, host, b"a=1", "/any/page.html")) == expected


@pytest.mark.one_mpm
def test_a_bad_value_stops_the_start(start_server):
    server = start_server.prepare(VirtualHost(place("any", "AuthBitbucketPreservePost Perhaps", "Require valid-user")))
    checked = server.run("-t")
    assert checked.returncode != 0 and "AuthBitbucketPreservePost" in checked.stdout


# -- the page

@pytest.mark.one_mpm
def test_the_page_runs_nothing_and_sends_only_here(mark, host):
    body = b"x=%22%3E%3Cscript%3Ealert%281%29%3C%2Fscript%3E&%22%3E%3Cb=1"
    page = open_offer(mark, post(mark, host, body, "/any/echo.cgi?%22%3E%3Cscript%3E"))
    policy = page.header("Content-Security-Policy")
    assert "default-src 'none'" in policy and "form-action 'self';" in policy and "frame-ancestors 'none'" in policy
    assert page.header("Cache-Control") == "no-store" and page.header("X-Content-Type-Options") == "nosniff"
    # With no-referrer the browser would say "Origin: null", and many applications refuse that.
    assert page.header("Referrer-Policy") == "same-origin"
    assert "<script" not in page.text and "<b" not in page.text.replace("<body", "").replace("<button", "")
    assert page.header("Content-Type") == "text/html; charset=utf-8"
    assert 'autocomplete="off"' in page.text and "http-equiv" not in page.text


@pytest.mark.one_mpm
def test_nothing_of_the_form_is_shown_before_the_sign_in(mark, host):
    page = mark.follow(post(mark, host, b"text=the+secret+text"))
    assert "Sign in to send your form" in page.text and page.status == 200
    assert "secret" not in page.text and "text" not in [name for form in page.forms for name in form.fields]
    assert "/any/echo.cgi" in page.text


@pytest.mark.one_mpm
def test_nothing_is_sent_without_a_click(mark, host, server):
    """Looking at the page, reloading it, asking with HEAD: nothing reaches the program."""
    page = open_offer(mark, post(mark, host, b"a=1"))
    for method in ("GET", "HEAD"):
        assert mark.request(method, page.url).status == 200
    log = server.await_in_log("access.log", f" HEAD {urlparse(page.url).path} 200")
    assert [line.split()[-1] for line in log.splitlines() if " POST /any/echo.cgi " in line] == ["303"]


@pytest.mark.one_mpm
def test_it_is_forgotten_when_sent(mark, host):
    page = open_offer(mark, post(mark, host, b"a=1"))
    # A form of the application itself says nothing about this one.
    received(post(mark, host, b"a=1"))
    assert "Your form is still here" in mark.get(page.url).text
    received(Offer(page).send(mark, host))
    assert "No form is kept here" in mark.get(page.url).text


@pytest.mark.one_mpm
def test_an_old_page_does_not_forget_a_newer_form(mark, host):
    old = open_offer(mark, post(mark, host, b"a=old"))
    mark.lose_session()
    new = open_offer(mark, post(mark, host, b"a=new"))
    assert received(Offer(old).send(mark, host)) == b"a=old"
    assert received(Offer(mark.get(new.url)).send(mark, host)) == b"a=new"


@pytest.mark.one_mpm
def test_one_for_each_browser(mark, host):
    first = post(mark, host, b"a=first")
    second = post(mark, host, b"a=second")
    page = open_offer(mark, second)
    assert received(Offer(page).send(mark, host)) == b"a=second"
    assert "No form is kept here" in mark.follow(first).text


@pytest.mark.one_mpm
def test_the_address_of_an_older_form_leads_to_the_newer(mark, host):
    first = post(mark, host, b"a=first")
    second = post(mark, host, b"a=second")
    for address in (first.location, "/bitbucket/kept-form", "/bitbucket/kept-form?n=x&n=y"):
        answer = mark.get(host.url(address))
        assert (answer.status, answer.location) == (303, second.location)


@pytest.mark.one_mpm
@pytest.mark.parametrize("when", ["before the sign-in", "after it"])
def test_discarding(mark, host, when):
    kept = post(mark, host, b"a=1")
    page = mark.follow(kept) if when == "before the sign-in" else open_offer(mark, kept)
    number = 0 if when == "before the sign-in" else 1
    assert "Discard it" in page.text
    answer = mark.submit(page, number=number)
    assert "The form is discarded" in answer.text
    assert answer.links["Continue"] == "/any/page.html", "where the form was filled in"
    assert "No form is kept here" in mark.get(page.url).text


@pytest.mark.one_mpm
@pytest.mark.parametrize("body", [b"", b"token=", b"token=" + b"A" * 43, b"token=a&token=b", b"x" * 5000, b"%zz"])
def test_another_site_cannot_discard(mark, host, body):
    page = open_offer(mark, post(mark, host, b"a=1"))
    headers = {**NAVIGATION, "Sec-Fetch-Site": "cross-site", "Content-Type": URLENCODED}
    mark.request("POST", host.endpoint("kept-form"), headers, body=body)
    assert "Your form is still here" in mark.get(page.url).text


@pytest.mark.one_mpm
def test_the_token_is_the_browsers_own(mark, host, new_browser):
    page = open_offer(mark, post(mark, host, b"a=1"))
    other = new_browser()
    sign_in_and_lose(other, host)
    token = other.follow(post(other, host, b"a=2")).forms[0].fields["token"]
    mark.request("POST", host.endpoint("kept-form"), form={"token": token})
    assert "Your form is still here" in mark.get(page.url).text


@pytest.mark.one_mpm
@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "BREW"])
def test_other_methods(mark, host, method):
    answer = mark.request(method, host.endpoint("kept-form"), SCRIPT)
    assert answer.status == 405


@pytest.mark.one_mpm
@pytest.mark.parametrize("value", ["", "x", "A" * 160, "=" * 50, "é", "A" * 9000])
def test_a_badge_that_is_none(server, browser, host, value):
    headers = {**form_headers(host), "Cookie": "bitbucket_session_badge=" + value}
    answer = browser.request("POST", host.url("/any/echo.cgi"), headers, body=b"a=1")
    assert answer.status == 401 and "Your form was not sent" in answer.text
    headers = {**NAVIGATION, "Cookie": "bitbucket_session_badge=" + value}
    assert "No form is kept here" in browser.get(host.endpoint("kept-form"), headers).text


# -- who keeps a form

@pytest.mark.one_mpm
@pytest.mark.parametrize("size, kept", [(KEPT - 1, True), (KEPT, True), (KEPT + 1, False), (10 * KEPT, False)])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_largest_form(mark, host, size, kept, chunked):
    body = b"a=" + b"x" * (size - 2)
    headers = {**form_headers(host), "Cookie": mark.jar.line("localhost", False)}
    if chunked:
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[n:n + 5000]), body[n:n + 5000]) for n in range(0, size, 5000))
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        raw = send_bytes(host.port, f"POST /any/echo.cgi HTTP/1.1\r\nHost: localhost:{host.port}\r\nConnection: close\r\n"
                                    f"Transfer-Encoding: chunked\r\n{head}\r\n".encode() + chunks + b"0\r\n\r\n")
        assert raw.startswith(b"HTTP/1.1 303 " if kept else b"HTTP/1.1 401 ")
        assert kept or b"larger than the 64 kB" in raw
    else:
        answer = mark.request("POST", host.url("/any/echo.cgi"), headers, body=body)
        assert is_kept(answer) == kept
        assert kept or (answer.status == 401 and "larger than the 64 kB" in answer.text)
    page = mark.get(host.endpoint("kept-form"))
    if not kept:
        assert "No form is kept here" in page.text
        return
    page = mark.walk(mark.click(mark.follow(page), "Sign in"), "mark")[-1]
    assert received(Offer(page).send(mark, host)) == body


@pytest.mark.one_mpm
def test_the_largest_form_of_many_fields(mark, host):
    """As long a page as can be."""
    body = (b"a=&" * (KEPT // 3)).rstrip(b"&")
    page = open_offer(mark, post(mark, host, body))
    assert received(Offer(page).send(mark, host)) == body
    mark.lose_session()
    body = b"a=" + b"\"" * (KEPT - 2)
    page = open_offer(mark, post(mark, host, body))
    assert Offer(page).fields == [("a", "\"" * (KEPT - 2), False)]


FILE = b'; filename="a.txt"\r\nContent-Type: text/plain'
NOT_KEPT = {
    "a file": (MULTIPART, body_of(part(b"a", b"1"), part(b"f", b"content", FILE)), "holds a file"),
    "an empty file": (MULTIPART, body_of(part(b"f", b"", FILE)), "holds a file"),
    "text/plain": ("text/plain", b"a=1", "of a kind that"),
    "JSON": ("application/json", b"{}", "of a kind that"),
    "no type": (None, b"a=1", "of a kind that"),
    "an encoding of its own": (URLENCODED + "; charset=iso-8859-1", b"a=1", "of a kind that"),
    "no boundary": ("multipart/form-data", body_of(part(b"a", b"1")), "cannot read"),
    "cut": (MULTIPART, body_of(part(b"a", b"1"))[:-10], "cannot read"),
    "a percent sign": (URLENCODED, b"a=100%", "cannot read"),
    "a NUL": (URLENCODED, b"a=%00", "exactly the same"),
    "a NUL in a part": (MULTIPART, body_of(part(b"a", b"\0")), "exactly the same"),
    "a line feed alone": (URLENCODED, b"a=1%0A2", "exactly the same"),
    "a name without a value": (URLENCODED, b"a", "exactly the same"),
    "a value without a name": (URLENCODED, b"=1", "exactly the same"),
    "a part with a type": (MULTIPART, body_of(part(b"a", b"1", b"\r\nContent-Type: text/plain")), "exactly the same"),
}


@pytest.mark.one_mpm
@pytest.mark.parametrize("kind", NOT_KEPT)
def test_what_is_not_kept_is_said(mark, host, logs, kind):
    content_type, body, text = NOT_KEPT[kind]
    answer = post(mark, host, body, content_type=content_type)
    assert answer.status == 401 and "Your form was not sent" in answer.text and text in answer.text
    assert answer.header("WWW-Authenticate") == 'Bitbucket realm="Test site"'
    assert "/bitbucket/login?return=%2Fany%2Fpage.html" in answer.links["Sign in"] and 'target="_blank"' in answer.text
    assert "No form is kept here" in mark.get(host.endpoint("kept-form")).text
    line, = logs.lines("ABB0401")
    assert line.level == "info" and f"reference={answer.reference}" in line.text


@pytest.mark.one_mpm
def test_a_compressed_body(mark, host):
    assert "of a kind that" in post(mark, host, b"a=1", Content_Encoding="gzip").text


@pytest.mark.one_mpm
def test_a_body_that_is_cut(mark, host):
    head = "".join(f"{name}: {value}\r\n" for name, value in form_headers(host).items())
    data = (f"POST /any/echo.cgi HTTP/1.1\r\nHost: localhost:{host.port}\r\nContent-Length: 100\r\n"
            f"Cookie: {mark.jar.line('localhost', False)}\r\n{head}\r\na=1")
    send_bytes(host.port, data.encode())
    assert "No form is kept here" in mark.get(host.endpoint("kept-form")).text


@pytest.mark.one_mpm
def test_a_limit_of_httpds_own(start_server, browser, host):
    """LimitRequestBody below 64 kB holds as ever."""
    host.directives = host.directives.replace("AuthType", "LimitRequestBody 1000\nAuthType")
    start_server(host)
    sign_in_and_lose(browser, host)
    assert is_kept(post(browser, host, b"a=" + b"x" * 998))
    assert post(browser, host, b"a=" + b"y" * 2000).status in (401, 413)
    assert "y" * 10 not in browser.follow(browser.get(host.endpoint("kept-form"))).text


@pytest.mark.one_mpm
def test_with_an_error_document(start_server, browser, host):
    """A form is kept as ever; where it is not, the administrator's document wins."""
    host.directives += '\nAlias "/errors" "${CONTENT}"\nErrorDocument 401 /errors/error.cgi'
    server = start_server(host)
    add_echo(server)
    sign_in_and_lose(browser, host)
    answer = post(browser, host, b"a=%00")
    assert answer.status == 401 and "error=unauthenticated" in answer.text
    page = open_offer(browser, post(browser, host, b"a=1"))
    assert received(Offer(page).send(browser, host)) == b"a=1"


@pytest.mark.one_mpm
@pytest.mark.parametrize("lines", ['RewriteEngine On\nRewriteRule "^/nice/save$" /any/echo.cgi [PT]',
                                   '<Location "/nice">\nRewriteEngine On\nRewriteRule ".*" /any/echo.cgi\n</Location>'])
def test_an_address_that_is_rewritten(start_server, browser, host, lines):
    """The form goes to the address that the browser knows."""
    host.directives += "\n" + lines
    server = start_server(host)
    add_echo(server)
    sign_in_and_lose(browser, host)
    page = open_offer(browser, post(browser, host, b"a=1", "/nice/save?q=1"))
    assert Offer(page).attributes["action"] == "/nice/save?q=1"
    assert received(Offer(page).send(browser, host)) == b"a=1"


@pytest.mark.one_mpm
def test_after_reloading_the_page_of_the_401_the_form_is_sent(mark, host):
    """What that page advises for files and large forms."""
    content_type, body, _ = NOT_KEPT["a file"]
    answer = post(mark, host, body, content_type=content_type)
    assert "reload" in answer.text
    mark.walk(mark.click(answer, "Sign in"), "mark")
    assert received(post(mark, host, body, content_type=content_type)) == body


ORIGINS = {
    "same origin": ({}, True),
    "no Origin": ({"Origin": None}, True),
    "a page without referrer": ({"Origin": "null"}, True),
    "typed in": ({"Sec_Fetch_Site": "none"}, True),
    "Origin alone": ({"Sec_Fetch_Site": None}, True),
    "neither": ({"Sec_Fetch_Site": None, "Origin": None}, False),
    "null alone": ({"Sec_Fetch_Site": None, "Origin": "null"}, False),
    "another site": ({"Sec_Fetch_Site": "cross-site", "Origin": "https://evil.example"}, False),
    "another site that lies about Origin": ({"Sec_Fetch_Site": "cross-site"}, False),
    "a sister": ({"Sec_Fetch_Site": "same-site"}, False),
    "another port": ({"Sec_Fetch_Site": None, "Origin": "http://localhost:1"}, False),
    "https": ({"Sec_Fetch_Site": None, "Origin": "https://localhost"}, False),
    "another Origin": ({"Origin": "https://evil.example"}, False),
    "two values": ({"Sec_Fetch_Site": "same-origin, cross-site"}, False),
    "upper case": ({"Sec_Fetch_Site": "Same-Origin"}, False),
}


@pytest.mark.one_mpm
@pytest.mark.parametrize("kind", ORIGINS)
def test_only_pages_of_this_site_leave_a_form(mark, host, kind):
    headers, kept = ORIGINS[kind]
    answer = post(mark, host, b"a=1", **headers)
    assert is_kept(answer) == kept
    if not kept:
        assert answer.status == 401 and "does not come from a page of this site" in answer.text
        assert "reload" not in answer.text, "that would send another site's form"
        assert "No form is kept here" in mark.get(host.endpoint("kept-form")).text


NO_FORMS = {
    "fetch": {"Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty"},
    "same-origin fetch": {"Sec_Fetch_Mode": "same-origin", "Sec_Fetch_Dest": "empty"},
    "fetch without cors": {"Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "empty"},
    "XHR": {"Sec_Fetch_Mode": None, "Sec_Fetch_Dest": None, "X_Requested_With": "XMLHttpRequest"},
    "a program": {"Sec_Fetch_Mode": None, "Sec_Fetch_Dest": None, "Accept": "*/*"},
    "JSON": {"Sec_Fetch_Mode": None, "Sec_Fetch_Dest": None, "Accept": "application/json"},
    "another type": {"Sec_Fetch_Mode": None, "Sec_Fetch_Dest": None, "content_type": "application/json"},
    "a prefetch": {"Sec_Purpose": "prefetch"},
}


@pytest.mark.one_mpm
@pytest.mark.parametrize("kind", NO_FORMS)
def test_scripts_get_401_as_ever(mark, host, kind):
    answer = post(mark, host, b"a=1", **NO_FORMS[kind])
    assert answer.status == 401 and answer.location is None and answer.set_cookies == []
    assert "Your form was not sent" not in answer.text
    assert "No form is kept here" in mark.get(host.endpoint("kept-form")).text


@pytest.mark.one_mpm
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_other_methods_get_401_as_ever(mark, host, method):
    answer = mark.request(method, host.url("/any/echo.cgi"), form_headers(host), body=b"a=1")
    assert answer.status == 401 and "Your form was not sent" not in answer.text


@pytest.mark.one_mpm
def test_without_fetch_metadata(mark, host):
    assert is_kept(post(mark, host, b"a=1", Sec_Fetch_Mode=None, Sec_Fetch_Dest=None, Sec_Fetch_Site=None))


@pytest.mark.one_mpm
def test_a_form_in_a_frame(mark, host):
    answer = post(mark, host, b"a=1", Sec_Fetch_Dest="iframe")
    assert answer.status == 401 and "frame of another page" in answer.text and 'target="_blank"' in answer.text


@pytest.mark.one_mpm
@pytest.mark.parametrize("target", ["//any/echo.cgi", "/any/../any/echo.cgi", "/any/echo.cgi?" + "x" * 3000])
def test_an_address_that_cannot_be_used_again(mark, host, target):
    head = "".join(f"{name}: {value}\r\n" for name, value in form_headers(host, Connection="close").items())
    data = (f"POST {target} HTTP/1.1\r\nHost: localhost:{host.port}\r\nContent-Length: 3\r\n"
            f"Cookie: {mark.jar.line('localhost', False)}\r\n{head}\r\na=1")
    assert b"The address that the form goes to" in send_bytes(host.port, data.encode())


# -- strangers and others

def in_a_file(start_server, host, **more):
    server = start_server.prepare(host, main="AuthBitbucketSessionCache shm:state/sessions(2M)\n", **more)
    (server.root / "state").mkdir(mode=0o700)
    server.start()
    add_echo(server)
    return server, server.root / "state" / "sessions"


@pytest.mark.one_mpm
def test_a_stranger_takes_no_place(start_server, host, new_browser):
    _, file = in_a_file(start_server, host)
    before = file.read_bytes()
    for number in range(50):
        stranger = new_browser()
        answer = post(stranger, host, b"a=%d" % number)
        assert answer.status == 401 and "Your form was not sent" in answer.text and answer.set_cookies == []
        assert "/bitbucket/login" in answer.links["Sign in"] and "reload" in answer.text
        stranger.get(host.endpoint("kept-form"))
    assert file.read_bytes() == before
    # The same of somebody known does change it.
    browser = new_browser()
    sign_in_and_lose(browser, host)
    before = file.read_bytes()
    assert is_kept(post(browser, host, b"a=1"))
    assert file.read_bytes() != before


@pytest.mark.one_mpm
def test_the_file_tells_nothing(start_server, host, browser, log_watch):
    """Neither the form nor where it goes; nor do logs tell."""
    server, file = in_a_file(start_server, host)
    secret = "the-Text-of-a-Form-0815"
    log_watch.remember(secret)
    sign_in_and_lose(browser, host)
    size = len(file.read_bytes().replace(b"\0", b""))
    kept = post(browser, host, f"text={secret}&more={'x' * 5000}".encode(), "/any/echo.cgi?private-query")
    content = file.read_bytes()
    assert is_kept(kept) and len(content.replace(b"\0", b"")) > size + 5000, "it is in there"
    for text in (secret, "xxxxxxxx", "private-query", "echo.cgi", "urlencoded", browser.jar.named("localhost", "_badge").popitem()[1]):
        assert text.encode() not in content
    page = open_offer(browser, kept)
    assert ("text", secret, False) in Offer(page).fields
    received(Offer(page).send(browser, host))


@pytest.mark.one_mpm
def test_it_outlasts_the_server_with_the_file(start_server, host, browser):
    server, _ = in_a_file(start_server, host)
    sign_in_and_lose(browser, host)
    kept = post(browser, host, b"a=1")
    server.stop()
    server.start()
    assert received(Offer(open_offer(browser, kept)).send(browser, host)) == b"a=1"


@pytest.mark.one_mpm
def test_other_browsers_do_not_see_it(mark, host, new_browser):
    kept = post(mark, host, b"a=1")
    stranger = new_browser()
    assert "No form is kept here" in stranger.follow(kept).text
    other = new_browser()
    other.sign_in(host.url("/any/page.html"), "mark")
    assert "No form is kept here" in other.follow(kept).text, "not even Mark himself in another"


@pytest.mark.one_mpm
def test_other_accounts_in_this_browser_do_not_see_it(mark, host, simulator):
    kept = post(mark, host, b"text=only+for+Mark")
    for key in [key for key in mark.jar.cookies if "bitbucket_session" not in key[1]]:
        del mark.jar.cookies[key]       # signed out at Bitbucket
    page = mark.walk(mark.click(mark.follow(kept), "Sign in"), "oscar")[-1]
    assert "somebody else" in page.text and "only for Mark" not in page.text and len(page.forms) == 1
    # And his own forms are his.
    mark.get(host.url("/any/page.html"))
    mark.lose_session()
    page = open_offer(mark, post(mark, host, b"text=of+Oscar"))
    assert received(Offer(page).send(mark, host)) == b"text=of+Oscar"


@pytest.mark.one_mpm
def test_other_sites_do_not_see_it(start_server, browser):
    """Two virtual hosts under one name: the browser shows both the same cookies."""
    one, two = VirtualHost(PRESERVING), VirtualHost(PRESERVING)
    server = start_server(one, two)
    add_echo(server)
    sign_in_and_lose(browser, one)
    kept = post(browser, one, b"a=1")
    assert is_kept(kept)
    assert "No form is kept here" in browser.get(two.url(kept.location)).text
    assert "Your form was not sent" in post(browser, two, b"a=1").text, "a badge of another site is none"
    assert "Sign in to send your form" in browser.follow(kept).text


@pytest.mark.one_mpm
def test_it_runs_out(mark, host, clock):
    page = open_offer(mark, post(mark, host, b"a=1"))
    clock.advance(590)
    assert "Your form is still here" in mark.get(page.url).text
    clock.advance(20)
    assert "No form is kept here" in mark.get(page.url).text


# -- the badge

@pytest.mark.one_mpm
def test_the_badge_is_given_where_forms_are_kept(server, host, browser):
    browser.sign_in(host.url("/off/page.html"), "mark")
    assert not browser.jar.named("localhost", "_badge")
    browser.get(host.url("/shared/page.html"))
    assert not browser.jar.named("localhost", "_badge"), "a shared cache would hand it to others"
    answer = browser.get(host.url("/any/page.html"))
    given = next(cookie for cookie in answer.set_cookies if cookie.name == "bitbucket_session_badge")
    assert {"httponly", "path", "samesite", "max-age"} <= set(given.attributes)
    assert int(given.attributes["max-age"]) == (30 + 7) * 86400
    assert browser.get(host.url("/any/page.html")).set_cookies == [], "once"


@pytest.mark.one_mpm
def test_one_sign_in_makes_one_badge(server, host, browser):
    """Whoever throws it away gets the same again, so nobody fills the store with one session."""
    browser.sign_in(host.url("/any/page.html"), "mark")
    session = f"bitbucket_session={browser.session_value()}"
    first, second = ([c for c in send("GET", host.url("/any/page.html"), {**NAVIGATION, "Cookie": session}).set_cookies
                      if c.name == "bitbucket_session_badge"][0].value for _ in range(2))
    headers = form_headers(host)
    kept = send("POST", host.url("/any/echo.cgi"), {**headers, "Cookie": "bitbucket_session_badge=" + first}, b"a=1")
    seen = send("GET", host.url(kept.location), {**NAVIGATION, "Cookie": "bitbucket_session_badge=" + second})
    assert "Sign in to send your form" in seen.text


@pytest.mark.one_mpm
def test_the_badge_is_renewed_and_runs_out(server, host, browser, clock):
    browser.sign_in(host.url("/any/page.html"), "mark")
    first = browser.jar.named("localhost", "_badge")
    clock.advance(16 * 86400)
    browser.sign_in(host.url("/any/page.html"), "mark")
    second = browser.jar.named("localhost", "_badge")
    assert second != first
    browser.lose_session()
    clock.advance(36 * 86400)
    assert is_kept(post(browser, host, b"a=1"))
    clock.advance(2 * 86400)
    assert "Your form was not sent" in post(browser, host, b"a=1").text


@pytest.mark.one_mpm
def test_applications_do_not_see_the_badge(server, host, browser):
    browser.sign_in(host.url("/any/page.html"), "mark")
    answer = browser.get(host.url("/any/env.cgi"))
    assert "HTTP_COOKIE" not in answer.environment


@pytest.mark.one_mpm
@pytest.mark.parametrize("kind, name", [("host", "__Host-bitbucket_session_badge"), ("domain", "__Secure-bitbucket_session_badge")])
def test_over_https(start_server, browser, kind, name):
    lines = "AuthBitbucketCookieDomain example.test\n" if kind == "domain" else ""
    host = VirtualHost(lines + PRESERVING, name="wiki.example.test", tls=True)
    server = start_server(host)
    add_echo(server)
    sign_in_and_lose(browser, host)
    assert list(browser.jar.named("wiki.example.test", "_badge")) == [name]
    assert received(Offer(open_offer(browser, post(browser, host, b"a=1"))).send(browser, host)) == b"a=1"


@pytest.mark.one_mpm
def test_with_the_callback_at_another_site(start_server, browser):
    """The page is the site's own, whoever's the callback is."""
    hub = VirtualHost(name="sso.localhost")
    hub.callback = own(hub, "callback")
    host = of_client(hub, "wiki.localhost", PRESERVING)
    hub.directives = f"AuthBitbucketCallbackFor {host.origin}"
    server = start_server(hub, host)
    add_echo(server)
    sign_in_and_lose(browser, host)
    page = open_offer(browser, post(browser, host, b"a=1"))
    assert page.url.startswith(own(host, "kept-form"))
    assert received(Offer(page).send(browser, host)) == b"a=1"


@pytest.mark.one_mpm
def test_what_a_page_loads_brings_no_badge(server, host, browser):
    browser.sign_in(host.url("/off/page.html"), "mark")
    assert browser.get(host.url("/any/data.txt"), SCRIPT).status == 200
    assert not browser.jar.named("localhost", "_badge")


# -- the store

@pytest.mark.one_mpm
def test_a_store_too_small(start_server, browser, host, logs):
    server = start_server(host, main="AuthBitbucketSessionCache shm(256K)\n")
    sign_in_and_lose(browser, host)
    answer = post(browser, host, b"a=" + b"x" * 65000)
    assert answer.status == 401 and "no room to keep the form" in answer.text
    assert [line.level for line in logs.lines("ABB0401")] == ["info"] and "no room" in logs.lines("ABB0401")[0].text
    assert is_kept(post(browser, host, b"a=1"))


@pytest.mark.one_mpm
def test_a_full_store_makes_room(start_server, new_browser, host, logs):
    logs.allow("ABB0206")
    start_server(host, main="AuthBitbucketSessionCache shm(512K)\n")
    for number in range(8):
        browser = new_browser()
        sign_in_and_lose(browser, host)
        kept = post(browser, host, b"a=" + b"%d" % number * 60000)
        assert "Sign in to send your form" in browser.follow(kept).text


@pytest.mark.one_mpm
@pytest.mark.parametrize("near", ["10s", "0"])
def test_in_a_store_that_machines_share(start_cluster, cache, browser, near):
    """Posted at one, offered and sent at the other, forgotten at once at both."""
    cluster = start_cluster(cache.specification, directives=PRESERVING, near=near)
    for server in cluster.servers:
        add_echo(server)
    browser.sign_in(cluster.url("/any/page.html"), "mark")
    browser.lose_session()
    headers = {**form_headers(cluster.nodes[0]), "Origin": cluster.public}
    secret = b"text=the-Text-of-a-Form-" + b"x" * 60000
    older = browser.request("POST", cluster.url("/any/echo.cgi"), headers, body=b"a=older")
    kept = browser.request("POST", cluster.url("/any/echo.cgi"), headers, body=secret)
    assert is_kept(older) and is_kept(kept)
    content = cache.dump()
    assert len(content) > 60000 and b"the-Text" not in content and b"xxxxxxxx" not in content and b"echo.cgi" not in content
    page = browser.walk(browser.get(cluster.url("/bitbucket/login?return=" + quote(kept.location, safe=""))), "mark")[-1]
    page = browser.get(cluster.on(1, page.url))
    assert Offer(page).urlencoded() == secret
    headers = {**headers, "Referer": cluster.url(kept.location)}
    assert received(browser.request("POST", cluster.on(1, cluster.url("/any/echo.cgi")), headers, body=secret)) == secret
    for node in (0, 1):
        assert "No form is kept here" in browser.get(cluster.on(node, cluster.url(kept.location))).text


@pytest.mark.one_mpm
def test_an_old_page_at_another_machine(start_cluster, redis, browser):
    """What a machine has seen of an older form is no reason to forget the newer."""
    cluster = start_cluster(redis.specification, directives=PRESERVING, near="10s")
    for server in cluster.servers:
        add_echo(server)
    browser.sign_in(cluster.url("/any/page.html"), "mark")
    session = dict(browser.jar.cookies)

    def send_at_the_other(referer: str) -> None:
        headers = {**form_headers(cluster.nodes[0]), "Origin": cluster.public, "Referer": cluster.url(referer)}
        received(browser.request("POST", cluster.on(1, cluster.url("/any/echo.cgi")), headers, body=b"a=1"))

    numbers = []
    for text in (b"a=older", b"a=newer"):
        browser.lose_session()
        headers = {**form_headers(cluster.nodes[0]), "Origin": cluster.public}
        numbers.append(browser.request("POST", cluster.url("/any/echo.cgi"), headers, body=text).location)
        browser.jar.cookies.update(session)
        send_at_the_other("/bitbucket/kept-form?n=0123456789abcdef")
    send_at_the_other(numbers[0])
    assert Offer(browser.get(cluster.url(numbers[1]))).urlencoded() == b"a=newer"


@pytest.mark.one_mpm
def test_many_at_once(mark, host):
    """Of a browser that sends twenty at the same moment one is kept, whole."""
    cookies = mark.jar.line("localhost", False)

    def send_one(number: int) -> Answer:
        headers = {**form_headers(host), "Cookie": cookies}
        return send("POST", host.url("/any/echo.cgi"), headers, b"a=" + b"%d" % (number % 10) * 30000)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(send_one, range(20)))
    assert len(answers) == 20
    assert any(map(is_kept, answers))
    assert all(is_kept(answer) or answer.status == 401 for answer in answers)
    page = mark.follow(mark.get(host.endpoint("kept-form")))
    page = mark.walk(mark.click(page, "Sign in"), "mark")[-1]
    (name, value, _), = Offer(page).fields
    assert name == "a" and len(value) == 30000 and len(set(value)) == 1


@pytest.mark.one_mpm
def test_a_kept_connection(mark, host):
    """The body is read as a whole, kept or not, and the next request is the next."""
    cookies = mark.jar.line("localhost", False)
    head = "".join(f"{name}: {value}\r\n" for name, value in form_headers(host).items())
    smuggled = b"GET /any/page.html HTTP/1.1\r\nHost: localhost\r\n\r\n"
    body = b"a=" + smuggled.replace(b" ", b"+").replace(b"\r\n", b"%0D%0A")
    one = (f"POST /any/echo.cgi HTTP/1.1\r\nHost: localhost:{host.port}\r\nContent-Length: {{}}\r\nCookie: {cookies}\r\n{head}\r\n")
    data = one.format(len(body)).encode() + body + one.format(len(smuggled)).encode() + smuggled
    data += b"GET /any/data.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert re.findall(rb"HTTP/1.1 (\d+) ", send_bytes(host.port, data)) == [b"303", b"401", b"401"]
