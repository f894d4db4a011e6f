"""Requests hidden within requests: none reaches an application around the rules, whoever answers the one it is hidden in."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Iterator

import pytest

from harness import config
from harness.client import send_bytes
from harness.config import VirtualHost, place


class Handler(http.server.BaseHTTPRequestHandler):
    """An application that believes lengths as they come, and notes what it was asked."""

    protocol_version = "HTTP/1.1"
    seen: list[str] = []

    def answer(self) -> None:
        self.seen.append(self.requestline)
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline() or b"0", 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        else:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = answer

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def application() -> Iterator[tuple[str, list[str]]]:
    """Its URL, and the request lines it has seen."""
    Handler.seen = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", config.free_port()), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", Handler.seen
    server.shutdown()
    server.server_close()


@pytest.fixture
def site(start_server, application):
    url, _ = application
    host = VirtualHost("\n".join([
        place("team", "Require bitbucket-workspace acme"),
        place("owners", "Require bitbucket-workspace acme:owner"),
        f'<Location "/app/">\n    AuthType Bitbucket\n    Require bitbucket-workspace acme\n    ProxyPass "{url}"\n</Location>']))
    start_server(host)
    return host


HIDDEN = "GET /app/hidden HTTP/1.1\r\nHost: localhost:{port}\r\nX: "
BODY = HIDDEN + "\r\n\r\n"

# What is said of the length, and the body. {body} is a request of its own, {size} its length.
LENGTHS = {
    "as it is": ("Content-Length: {size}", "{body}"),
    "chunked": ("Transfer-Encoding: chunked", "{hex}\r\n{body}\r\n0\r\n\r\n"),
    "both, chunked ends first": ("Content-Length: {more}\r\nTransfer-Encoding: chunked", "0\r\n\r\n{body}"),
    "both, length ends first": ("Content-Length: 4\r\nTransfer-Encoding: chunked", "{hex}\r\n{body}\r\n0\r\n\r\n"),
    "two lengths": ("Content-Length: 0\r\nContent-Length: {size}", "{body}"),
    "a list of lengths": ("Content-Length: 0, {size}", "{body}"),
    "a signed length": ("Content-Length: +{size}", "{body}"),
    "a hexadecimal length": ("Content-Length: 0x{hex}", "{body}"),
    "a length with an underscore": ("Content_Length: {size}", "{body}"),
    "a blank before the colon": ("Transfer-Encoding : chunked\r\nContent-Length: {more}", "0\r\n\r\n{body}"),
    "a tab before the value": ("Transfer-Encoding:\tchunked\r\nContent-Length: {more}", "0\r\n\r\n{body}"),
    "a vertical tab": ("Transfer-Encoding: \x0bchunked\r\nContent-Length: {more}", "0\r\n\r\n{body}"),
    "an unknown coding": ("Transfer-Encoding: xchunked\r\nContent-Length: {more}", "0\r\n\r\n{body}"),
    "chunked and then another": ("Transfer-Encoding: chunked, identity\r\nContent-Length: {more}", "0\r\n\r\n{body}"),
    "codings in two headers": ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\nContent-Length: {more}",
                               "0\r\n\r\n{body}"),
    "upper case": ("TRANSFER-ENCODING: CHUNKED\r\nContent-Length: {more}", "0\r\n\r\n{body}"),
    "folded": ("Transfer-Encoding:\r\n chunked\r\nContent-Length: {more}", "0\r\n\r\n{body}"),
    "a line feed alone": ("X: y\nTransfer-Encoding: chunked\r\nContent-Length: {more}", "0\r\n\r\n{body}"),
    "a carriage return alone": ("X: y\rTransfer-Encoding: chunked\r\nContent-Length: {more}", "0\r\n\r\n{body}"),
    "an extension of a chunk": ("Transfer-Encoding: chunked", "{hex};x=\r\n{body}\r\n0\r\n\r\n"),
    "a chunk longer than long": ("Transfer-Encoding: chunked", "ffffffffffffffff{hex}\r\n{body}\r\n0\r\n\r\n"),
    "a length named in Connection": ("Connection: Content-Length\r\nContent-Length: {size}", "{body}"),
    "an answer is awaited": ("Expect: 100-continue\r\nContent-Length: {size}", "{body}"),
    "HTTP/1.0 and chunked": ("Connection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: {more}", "0\r\n\r\n{body}"),
}

PLACES = {
    "stranger at the application": ("/app/page", False),
    "stranger at a page": ("/team/page.html", False),
    "signed in, at the application": ("/app/page", True),
    "signed in, at a page": ("/team/page.html", True),
    "signed in, refused": ("/owners/page.html", True),
    "callback": ("/bitbucket/callback?code=a&state=b", False),
    "login": ("/bitbucket/login", False),
    "logout": ("/bitbucket/logout", True),
    "userinfo": ("/bitbucket/userinfo", True),
}


def made(host: VirtualHost, path: str, cookie: str, length: str) -> bytes:
    body = BODY.format(port=host.port)
    size = {"body": body, "size": len(body), "hex": f"{len(body):x}", "more": len(body) + 5}
    version = "1.0" if length.startswith("HTTP/1.0") else "1.1"
    header, content = (part.format(**size) for part in LENGTHS[length])
    return (f"POST {path} HTTP/{version}\r\nHost: localhost:{host.port}\r\n" + (f"Cookie: {cookie}\r\n" if cookie else "")
            + f"{header}\r\n\r\n{content}").encode("latin-1")


@pytest.mark.parametrize("where", PLACES)
def test_nothing_hidden_reaches_an_application(site, browser, application, logs, where):
    """The hidden request has no cookie. Where httpd takes it for one of its own, the rules are asked about it as about
    any other; and what was hidden in something whole is never an answer more."""
    logs.allow("ABB0101")
    logs.allow("ABB0102")
    _, seen = application
    assert browser.sign_in(site.url("/team/page.html"), "mark").status == 200
    path, is_signed_in = PLACES[where]
    cookie = browser.jar.line("localhost", False) if is_signed_in else ""
    for length in LENGTHS:
        received = send_bytes(site.port, made(site, path, cookie, length))
        answers = re.findall(rb"(?m)^HTTP/1\.1 (\d{3})", received)
        finals = [answer for answer in answers if answer != b"100"]
        assert finals, f"{length}: no answer at all"
        assert not any("hidden" in line for line in seen), f"{length}: {seen}"
        if length in ("as it is", "chunked", "an extension of a chunk", "an answer is awaited"):
            assert len(finals) == 1, f"{length}: {received!r}"
        if len(finals) > 1:
            assert all(answer in (b"302", b"400", b"401") for answer in finals[1:]), f"{length}: {received!r}"
    if where == "signed in, at the application":
        assert "POST /page HTTP/1.1" in seen


def test_an_answer_of_the_module_leaves_the_connection_in_step(site, browser, application):
    """A request with a body is refused; the next one on the same connection is read from where it begins."""
    _, seen = application
    assert browser.sign_in(site.url("/team/page.html"), "mark").status == 200
    cookie = browser.jar.line("localhost", False)
    body = BODY.format(port=site.port)
    for path, known in [("/app/page", ""), ("/owners/page.html", cookie), ("/bitbucket/userinfo", cookie)]:
        data = (f"POST {path} HTTP/1.1\r\nHost: localhost:{site.port}\r\nCookie: {known}\r\nContent-Length: {len(body)}\r\n\r\n"
                f"{body}GET /app/after HTTP/1.1\r\nHost: localhost:{site.port}\r\nCookie: {cookie}\r\nConnection: close\r\n\r\n")
        received = send_bytes(site.port, data.encode())
        answers = re.findall(rb"(?m)^HTTP/1\.1 (\d{3})", received)
        assert len(answers) == 2 and answers[0] in (b"401", b"403", b"405") and answers[1] == b"200", received
    assert seen == ["GET /after HTTP/1.1"] * 3
