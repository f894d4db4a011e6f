"""What applications are told about the visitor, in variables and headers, and that nobody
else tells them."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

import pytest

from harness import config, tags
from harness.client import NAVIGATION, send_bytes
from harness.config import VirtualHost, place
from harness.simulator import account, uuid_of
from harness.waiting import eventually

ZOE = "Zoë 100% Ünal"
HTTP2 = "LoadModule http2_module {}/mod_http2.so".format(config.modules_directory())
LUA = "LoadModule lua_module {}/mod_lua.so".format(config.modules_directory())


# -- a backend

class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the headers it got, as pairs of Latin-1 texts, and reads the body first."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        if self.headers.get("Transfer-Encoding"):
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.dumps(self.headers.items()).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def __getattr__(self, name: str):
        if name.startswith("do_"):
            return self.answer
        raise AttributeError(name)

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture(scope="module")
def backend() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", config.free_port()), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def ours(pairs, prefix: str = "x-bitbucket-") -> dict[str, str]:
    """The headers that begin as ours by the loosest reading, each once, without the prefix."""
    def folded(text: str) -> str:
        return "".join(c if c.isalnum() else "_" for c in text.lower())
    found = [(name, value) for name, value in pairs if folded(name).startswith(folded(prefix))]
    assert len({name.lower() for name, _ in found}) == len(found), f"a header comes twice: {found}"
    return {name[len(prefix):]: value for name, value in found}


def seen_by_backend(answer) -> dict[str, str]:
    assert answer.status == 200, answer
    return ours(answer.json)


def seen_by_cgi(answer, prefix: str = "HTTP_X_BITBUCKET_") -> dict[str, str]:
    assert answer.status == 200, answer
    return {name[len(prefix):]: value for name, value in answer.environment.items() if name.startswith(prefix)}


def variables(answer) -> dict[str, str]:
    return seen_by_cgi(answer, "BITBUCKET_")


# -- the site

@dataclass
class Applications:
    host: VirtualHost
    server: object

    def url(self, path: str) -> str:
        return self.host.url(path)


def proxied(name: str, backend: str, *lines: str) -> str:
    return (f'<Location "/{name}">\n    AuthType Bitbucket\n    Require bitbucket-workspace acme\n    '
            + "\n    ".join(lines) + f'\n    ProxyPass "{backend}"\n</Location>')


def host_of(backend: str, *more: str) -> VirtualHost:
    return VirtualHost("\n".join([
        *[place(word, f"AuthBitbucketPass {word}", "Require bitbucket-workspace acme")
          for word in ("env", "headers", "both", "none")],
        place("default", "Require bitbucket-workspace acme"),
        place("strangers", "AuthBitbucketPass both", "AuthBitbucketUnauthenticated pass", "Require all granted"),
        place("owners", "AuthBitbucketPass both", "Require bitbucket-workspace acme:owner"),
        place("open", auth=False),
        *[proxied("proxied-" + word, backend, f"AuthBitbucketPass {word}")
          for word in ("env", "headers", "both", "none")],
        f'<Location "/proxied-open">\n    ProxyPass "{backend}"\n</Location>',
        'Alias "/errors" "${CONTENT}"', "ErrorDocument 400 /errors/env.cgi", "ErrorDocument 403 /errors/env.cgi",
        "ErrorDocument 404 /errors/env.cgi", *more]))


@pytest.fixture
def site(start_server, backend) -> Applications:
    host = host_of(backend)
    return Applications(host, start_server(host))


ALL = {"UUID": uuid_of("mark"), "ACCOUNT_ID": account("mark")["account_id"], "USERNAME": "mark_miller",
       "NICKNAME": "mark", "DISPLAY_NAME": "Mark Miller", "FIRST_NAME": "Mark", "LAST_NAME": "Miller",
       "EMAIL": "mark@acme.example", "EMAIL_VERIFIED": "1", "AVATAR_URL": "https://bitbucket.example/a/mark.png",
       "PROFILE_URL": "https://bitbucket.example/mark/", "WORKSPACES": "acme:member"}
IN_HEADERS = {"-".join(word.capitalize() for word in name.split("_")): value for name, value in ALL.items()}


@pytest.fixture
def mark(browser, simulator):
    simulator.change_account("mark", links={"avatar": {"href": ALL["AVATAR_URL"]}, "html": {"href": ALL["PROFILE_URL"]}})
    return browser


# -- env, headers, both, none

@pytest.mark.parametrize("word, in_variables, in_headers", [
    ("default", True, False), ("env", True, False), ("headers", False, True), ("both", True, True), ("none", False, False)])
def test_what_is_passed(site, mark, word, in_variables, in_headers):
    answer = mark.sign_in(site.url(f"/{word}/env.cgi"), "mark")
    assert variables(answer) == (ALL if in_variables else {})
    assert seen_by_cgi(answer) == (ALL if in_headers else {})
    assert answer.environment["REMOTE_USER"] == "mark_miller" and answer.environment["AUTH_TYPE"] == "Bitbucket"
    if word != "default":
        assert seen_by_backend(mark.get(site.url(f"/proxied-{word}/"))) == (IN_HEADERS if in_headers else {})


@pytest.mark.one_mpm
def test_a_place_does_not_leak_into_another(site, mark):
    """Internal redirects and subrequests share the table of headers."""
    mark.sign_in(site.url("/both/env.cgi"), "mark")
    missing = mark.get(site.url("/both/nothing-here"))
    assert missing.status == 404 and missing.environment["REDIRECT_BITBUCKET_UUID"] == ALL["UUID"]
    assert not [name for name in missing.environment if name.startswith("HTTP_X_BITBUCKET_")]
    refused = mark.get(site.url("/owners/env.cgi"))
    assert refused.status == 403
    assert not [name for name in refused.environment if name.startswith("HTTP_X_BITBUCKET_")]


@pytest.mark.one_mpm
def test_subrequests_and_redirects_see_what_their_place_sees(start_server, mark, backend):
    host = VirtualHost("\n".join([
        proxied("to-nobody", backend, "AuthBitbucketPass none"), proxied("to-somebody", backend, "AuthBitbucketPass headers"),
        f'<Location "/to-anybody">\n    ProxyPass "{backend}"\n</Location>',
        place("none", "AuthBitbucketPass none", "Require valid-user"),
        place("both", "AuthBitbucketPass both", "Require valid-user", "DirectoryIndex env.cgi", "RewriteEngine On",
              "RewriteRule moved$ /none/env.cgi", "RewriteRule stays$ /both/env.cgi",
              "RewriteRule back$ /both/env.cgi"),
        "<Location /none>", "RewriteEngine On", "RewriteRule to-both$ /both/env.cgi", "</Location>"]))
    server = start_server(host)
    (server.content / "mixed.shtml").write_text(
        "|".join(f'<!--#include virtual="/{path}/" -->' for path in ("to-nobody", "to-somebody", "to-anybody", "to-somebody")))
    mark.sign_in(host.url("/both/env.cgi"), "mark")
    assert seen_by_cgi(mark.get(host.url("/both/"))) == ALL
    assert seen_by_cgi(mark.get(host.url("/both/stays"))) == ALL
    assert seen_by_cgi(mark.get(host.url("/both/moved"))) == {}
    assert seen_by_cgi(mark.get(host.url("/none/to-both"))) == ALL
    parts = mark.get(host.url("/both/mixed.shtml")).text.split("|")
    seen = [ours(json.loads(part)).get("Uuid") for part in parts]
    assert seen == [None, ALL["UUID"], None, ALL["UUID"]]


@pytest.mark.one_mpm
def test_an_index_sees_what_its_place_sees(start_server, mark):
    """mod_dir lays it over the request of the directory."""
    host = VirtualHost("\n".join([
        place("none", "AuthBitbucketPass none", "Require valid-user"),
        place("both", "AuthBitbucketPass both", "AuthBitbucketPassAccessToken On", "DirectoryIndex /none/env.cgi", "Require valid-user"),
        place("bare", "AuthBitbucketPass none", "DirectoryIndex /full/env.cgi", "Require valid-user"),
        place("full", "AuthBitbucketPass both", "AuthBitbucketPassAccessToken On", "Require valid-user")]))
    start_server(host)
    full = mark.sign_in(host.url("/full/env.cgi"), "mark")
    answer = mark.get(host.url("/both/"))
    assert seen_by_cgi(answer) == {} and "BITBUCKET_ACCESS_TOKEN" not in answer.environment
    answer = mark.get(host.url("/bare/"))
    assert seen_by_cgi(answer) == seen_by_cgi(full) and "ACCESS_TOKEN" in seen_by_cgi(full)
    assert answer.environment["BITBUCKET_ACCESS_TOKEN"] == full.environment["BITBUCKET_ACCESS_TOKEN"]


# -- spoofing

SPOOFED = ["X-Bitbucket-Uuid: evil", "x_bitbucket_uuid: evil", "X-BITBUCKET.UUID: evil", "X_Bitbucket-Email: evil",
           "x-bitbucket-stale: 1", "X-Bitbucket-Access-Token: evil", "X-Bitbucket-Whatever: evil",
           "X~BITBUCKET!USERNAME: evil", "X-Bitbucket-Username: evil", "X-Bitbucket-Username: evil2"]


def raw(site, method: str, path: str, lines: list[str], cookies: str = "", body: bytes = b"") -> bytes:
    text = [f"{method} {path} HTTP/1.1", f"Host: localhost:{site.host.port}", *lines,
            *([f"Cookie: {cookies}"] if cookies else []), *([f"Content-Length: {len(body)}"] if body else [])]
    return send_bytes(site.host.port, "\r\n".join([*text, "", ""]).encode() + body)


def headers_of(received: bytes) -> list[tuple[str, str]]:
    assert received.startswith(b"HTTP/1.1 200"), received
    return json.loads(received.partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("path", ["/proxied-open/", "/proxied-env/", "/proxied-headers/", "/proxied-none/"])
@pytest.mark.parametrize("connection", ["close", "close, X-Bitbucket-Uuid", "x-bitbucket-uuid;X-BITBUCKET-USERNAME ,close"])
@pytest.mark.parametrize("spoofed", [SPOOFED, []])
def test_spoofed_headers_at_a_proxy(site, mark, path, connection, spoofed):
    mark.sign_in(site.url("/env/env.cgi"), "mark")
    cookies = mark.jar.line("localhost", False)
    received = raw(site, "GET", path, [*spoofed, "Connection: " + connection, "X-Mine: kept"], cookies)
    seen = headers_of(received)
    assert ours(seen) == (IN_HEADERS if path == "/proxied-headers/" else {})
    assert ("X-Mine", "kept") in [tuple(pair) for pair in seen]


@pytest.mark.one_mpm
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "REPORT", "FOO"])
def test_every_method(site, method):
    received = raw(site, method, "/proxied-open/", [*SPOOFED, "Connection: close"], body=b"x")
    assert ours(headers_of(received)) == {}


@pytest.mark.one_mpm
@pytest.mark.parametrize("path", ["/open/env.cgi", "/strangers/env.cgi", "/env/env.cgi", "/none/env.cgi"])
def test_spoofed_headers_at_cgi(site, mark, path):
    if path in ("/env/env.cgi", "/none/env.cgi"):
        mark.sign_in(site.url(path), "mark")
    received = raw(site, "GET", path, [*SPOOFED, "Connection: close"], mark.jar.line("localhost", False))
    assert received.startswith(b"HTTP/1.1 200") and b"HTTP_X_BITBUCKET" not in received and b"evil" not in received


@pytest.mark.one_mpm
def test_strangers_are_nobody_and_members_somebody(site, mark):
    stranger = mark.get(site.url("/strangers/env.cgi"), {**NAVIGATION, "X-Bitbucket-Uuid": "evil"})
    assert seen_by_cgi(stranger) == {} and variables(stranger) == {}
    mark.sign_in(site.url("/env/env.cgi"), "mark")
    member = mark.get(site.url("/strangers/env.cgi"), {**NAVIGATION, "X-Bitbucket-Uuid": "evil"})
    assert seen_by_cgi(member) == ALL and variables(member) == ALL


@pytest.mark.one_mpm
@pytest.mark.parametrize("request_text", [
    "GET /open/env.cgi HTTP/1.1\r\nX-Bitbucket-Uuid: evil\r\n\r\n",                          # no Host
    "GET /open/%zz HTTP/1.1\r\nHost: localhost\r\nX-Bitbucket-Uuid: evil\r\n\r\n",
    "GET /open/env.cgi HTTP/1.1\r\nHost: localhost\r\nX-Bitbucket-Uuid: evil\r\nno header\r\n\r\n",
    "GET /open/env.cgi HTTP/1.1\r\nHost: a\r\nX-Bitbucket-Uuid: evil\r\nHost: b\r\n\r\n",
    "GET /open/env.cgi HTTP/1.1\r\nHost: a/b\r\nX-Bitbucket-Uuid: evil\r\n\r\n",
])
def test_error_pages_of_requests_that_cannot_be_read(site, request_text):
    received = send_bytes(site.host.port, request_text.encode())
    assert received.startswith(b"HTTP/1.1 400") and b"evil" not in received


@pytest.mark.one_mpm
def test_what_was_dropped_is_told_in_debug_lines_only(site, logs):
    raw(site, "GET", "/open/page.html", ["X-Bitbucket-Uuid: evil", "Connection: close"])
    line, = logs.lines(tags.SCRUBBED)
    assert line.level == "debug" and "evil" not in line.text


@pytest.mark.one_mpm
def test_a_host_without_the_module_keeps_its_headers(start_server, backend):
    bare = VirtualHost(f'<Location "/x">\n    ProxyPass "{backend}"\n</Location>', configured=False)
    mine = VirtualHost(place("any", "Require valid-user"))
    start_server(mine, bare)
    site = Applications(bare, None)
    assert ours(headers_of(raw(site, "GET", "/x", ["X-Bitbucket-Uuid: mine", "Connection: close"]))) == {"Uuid": "mine"}


@pytest.mark.one_mpm
def test_http2(start_server, mark, backend):
    host = host_of(backend, "Protocols h2c http/1.1")
    start_server(host, main=HTTP2)
    mark.sign_in(host.url("/env/env.cgi"), "mark")
    for path, expected in (("/proxied-open/", {}), ("/proxied-headers/", IN_HEADERS)):
        found = subprocess.run(["curl", "-sS", "--http2-prior-knowledge", "-d", "x", "-H", "x_bitbucket_uuid: evil",
                                "-H", "X-Bitbucket-Uuid: evil", "-H", "Cookie: " + mark.jar.line("localhost", False),
                                f"http://127.0.0.1:{host.port}{path}", "-w", "\n%{http_version}"],
                               capture_output=True, text=True, timeout=30)
        body, _, version = found.stdout.rpartition("\n")
        assert version == "2" and ours(json.loads(body)) == expected


# -- mod_lua

LUA_PAGE = """
function handle(r)
    r.content_type = "text/plain"
    r:puts("variable=" .. tostring(r.subprocess_env["BITBUCKET_UUID"]) .. " header=" .. tostring(r.headers_in["X-Bitbucket-Uuid"]))
    return apache2.OK
end
"""


@pytest.mark.one_mpm
def test_lua_sees_variables_and_headers(start_server, browser):
    host = VirtualHost(place("both", "AuthBitbucketPass both", "Require valid-user", "AddHandler lua-script .lua"))
    server = start_server(host, main=LUA)
    (server.content / "seen.lua").write_text(LUA_PAGE)
    seen = browser.sign_in(host.url("/both/seen.lua"), "mark").text
    assert seen == f"variable={uuid_of('mark')} header={uuid_of('mark')}"


# -- trailers

@pytest.mark.one_mpm
@pytest.mark.parametrize("merge", ["On", "Off"])
@pytest.mark.parametrize("path", ["/both/env.cgi", "/open/env.cgi", "/both/moved"])
def test_trailers_become_no_headers_of_ours(start_server, browser, merge, path):
    """The log is written after the body was read."""
    log = "|".join(["%{X-Bitbucket-Uuid}i", "%{x_bitbucket_uuid}i", "%{X-Other}i", "%{X-Bitbucket-Uuid}^ti",
                    "%{x_bitbucket_uuid}^ti", "%{X-Other}^ti"])
    host = VirtualHost("\n".join([
        f"MergeTrailers {merge}", f'CustomLog logs/trailers.log "{log}" "expr=%{{REQUEST_METHOD}} == \'POST\'"',
        place("both", "AuthBitbucketPass both", "Require valid-user", "RewriteEngine On", "RewriteRule moved$ /both/env.cgi"),
        place("open", auth=False)]))
    server = start_server(host)
    browser.sign_in(host.url("/both/env.cgi"), "mark")
    text = "\r\n".join([f"POST {path} HTTP/1.1", f"Host: localhost:{host.port}", "Connection: close",
                        "Cookie: " + browser.jar.line("localhost", False), "Transfer-Encoding: chunked",
                        "Content-Type: text/plain", "", "1", "x", "0", "X-Bitbucket-Uuid: evil", "x_bitbucket_uuid: evil",
                        "X-Other: mine", "", ""])
    assert send_bytes(host.port, text.encode()).startswith(b"HTTP/1.1 200")
    uuid = "-" if path.startswith("/open") else uuid_of("mark")
    merged = "mine" if merge == "On" else "-"
    assert server.await_in_log("trailers.log", "\n") == f"{uuid}|-|{merged}|-|-|mine\n"



def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def packed(*pairs: tuple[bytes, bytes]) -> bytes:
    """HPACK without any packing: literals that are not indexed, RFC 7541 section 6.2.2."""
    return b"".join(b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value for name, value in pairs)


@pytest.mark.parametrize("length", [[(b"content-length", b"3")], []])
def test_trailers_of_http2(start_server, length):
    """They come behind any body, without chunks."""
    log = "%{X-Bitbucket-Uuid}i %{X-Bitbucket-Uuid}^ti %{X_Bitbucket_Uuid}i %{X-Plain}i %{X-Plain}^ti"
    host = VirtualHost("\n".join(["Protocols h2c http/1.1", f'CustomLog logs/trailers.log "{log}"', "MergeTrailers On",
                                  place("open", auth=False)]))
    server = start_server(host, mpm="event", main=HTTP2 + "\n")
    request = packed((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/open/env.cgi"), (b":authority", b"localhost"), *length)
    trailers = packed((b"x-bitbucket-uuid", b"evil"), (b"x_bitbucket_uuid", b"evil"), (b"x-plain", b"kept"))
    with socket.create_connection(("127.0.0.1", host.port), 20) as wire:
        wire.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + frame(1, 4, 1, request) +
                     frame(0, 0, 1, b"abc") + frame(1, 5, 1, trailers))
        seen = server.await_in_log("trailers.log", "\n")
    assert seen.split() == ["-", "-", "-", "kept", "kept"]


# -- encodings

@pytest.mark.one_mpm
@pytest.mark.parametrize("encoding", ["percent", "utf8"])
@pytest.mark.parametrize("name", [ZOE, "Zoë\r\nX-Evil: 1\x01\x7f\x85", "  ends  ", "%41", "😀", "名前 " * 200])
def test_encodings(start_server, browser, simulator, backend, encoding, name):
    host = host_of(backend, f"AuthBitbucketHeaderEncoding {encoding}")
    start_server(host)
    simulator.change_account("zoe", display_name=name)
    variable = variables(browser.sign_in(host.url("/both/env.cgi"), "zoe"))["DISPLAY_NAME"]
    answer = browser.get(host.url("/proxied-headers/"))
    value = seen_by_backend(answer)["Display-Name"]
    assert "X-Evil" not in dict(answer.json) and "".join(c for c in variable if ord(c) < 32) == ""
    if encoding == "percent":
        assert value.isascii() and value.isprintable() and len(value) <= 2048
        assert variable.startswith(unquote(value)) and (unquote(value) == variable or len(value) > 2030)
    else:
        value = value.encode("latin-1").decode()
        assert value == variable.replace("\x7f", "").replace("\x85", "").strip()
    if name == ZOE:
        assert value == ("Zo%C3%AB 100%25 %C3%9Cnal" if encoding == "percent" else ZOE)


@pytest.mark.one_mpm
def test_long_values(site, browser, simulator):
    simulator.change_account("mark", display_name="Mark " + "ë" * 1000, nickname="n" * 2048, username="u" * 2048)
    variable = variables(browser.sign_in(site.url("/both/env.cgi"), "mark"))
    headers = seen_by_backend(browser.get(site.url("/proxied-headers/")))
    assert len(variable["DISPLAY_NAME"]) == 1005
    assert headers["Display-Name"] == "Mark " + "%C3%AB" * 340 and headers["Last-Name"] == "%C3%AB" * 341
    assert headers["Username"] == variable["USERNAME"] == "u" * 2048


# -- STALE

@pytest.mark.one_mpm
def test_stale(start_server, browser, simulator, backend, clock, logs):
    host = host_of(backend)
    start_server(host, clock=clock)
    assert "STALE" not in seen_by_cgi(browser.sign_in(host.url("/both/env.cgi"), "mark"))
    logs.expect(tags.NOT_RENEWED)
    simulator.fault("api", status=503)
    clock.advance(1260)
    eventually(lambda: "STALE" in variables(browser.get(host.url("/both/env.cgi"))))
    seen = browser.get(host.url("/both/env.cgi"))
    assert 1260 <= int(variables(seen)["STALE"]) <= 1270
    assert seen_by_cgi(seen)["STALE"] == variables(seen)["STALE"]
    assert seen_by_backend(browser.get(host.url("/proxied-headers/")))["Stale"].startswith("12")


# -- directives

@pytest.mark.one_mpm
@pytest.mark.parametrize("line, words", [
    ("<Location /x>\nAuthBitbucketPass all\n</Location>", "'all'"), ("AuthBitbucketHeaderEncoding latin1", "'latin1'"),
    ("AuthBitbucketHeaderPrefix X-", "'X-'"), ("AuthBitbucketHeaderPrefix X-Bitbucket", "'X-Bitbucket'"),
    ("AuthBitbucketHeaderPrefix Content-", "'Content-'"),
    ('AuthBitbucketHeaderPrefix "X B-"', "'X B-'"), ("AuthBitbucketHeaderPrefix X-B;-", "'X-B;-'"),
    ("<Location /x>\nAuthBitbucketHeaderPrefix X-A-\n</Location>", "not allowed")])
def test_what_is_refused(start_server, line, words):
    said = start_server.prepare(VirtualHost(line)).run("-t")
    assert said.returncode != 0 and words in said.stdout and line.split("\n")[-2 if "\n" in line else 0].split()[0] in said.stdout


@pytest.mark.one_mpm
def test_merge_from_the_server_down_to_htaccess(start_server, browser):
    """Each level says another thing; each host and place has the nearest."""
    inherits = VirtualHost("\n".join([place("any", "Require valid-user"),
                                      place("env", "AuthBitbucketPass env", "Require valid-user")]))
    says = VirtualHost("\n".join(["AuthBitbucketHeaderPrefix Host-ID-", "AuthBitbucketHeaderEncoding percent",
                                  "<Location />\nAuthBitbucketPass both\n</Location>", place("any", "Require valid-user")]))
    files = VirtualHost("\n".join(['<Directory "${CONTENT}/files">', "AuthType Bitbucket", "AuthBitbucketPass none",
                                   "Require valid-user", "</Directory>"]))
    server = start_server(inherits, says, files, main="AuthBitbucketHeaderPrefix Main-ID-\nAuthBitbucketHeaderEncoding utf8\n"
                          '<Directory "${CONTENT}">\nAuthBitbucketPass headers\n</Directory>\n')
    for directory in (server.content / "files", server.content / "files" / "below"):
        directory.mkdir()
        (directory / "env.cgi").write_text(config.ENVIRONMENT_CGI)
        (directory / "env.cgi").chmod(0o755)
    (server.content / "files" / "below" / ".htaccess").write_text("AuthBitbucketPass both\n")
    name = account("zoe")["display_name"]

    seen = browser.sign_in(inherits.url("/any/env.cgi"), "zoe")
    assert seen_by_cgi(seen, "HTTP_MAIN_ID_")["DISPLAY_NAME"] == name and variables(seen) == {}
    seen = browser.get(inherits.url("/env/env.cgi"))
    assert seen_by_cgi(seen, "HTTP_MAIN_ID_") == {} and variables(seen)["DISPLAY_NAME"] == name

    browser.sign_in(says.url("/any/env.cgi"), "zoe")
    seen = browser.get(says.url("/any/env.cgi"), {**NAVIGATION, "Host_ID-Uuid": "evil", "Main-ID-Uuid": "mine"})
    encoded = seen_by_cgi(seen, "HTTP_HOST_ID_")["DISPLAY_NAME"]
    assert unquote(encoded) == name != encoded
    assert variables(seen)["DISPLAY_NAME"] == name and seen_by_cgi(seen, "HTTP_MAIN_ID_") == {"UUID": "mine"}

    seen = browser.sign_in(files.url("/files/env.cgi"), "zoe")
    assert seen_by_cgi(seen, "HTTP_MAIN_ID_") == {} and variables(seen) == {}
    seen = browser.get(files.url("/files/below/env.cgi"))
    assert seen_by_cgi(seen, "HTTP_MAIN_ID_")["DISPLAY_NAME"] == name == variables(seen)["DISPLAY_NAME"]


@pytest.mark.one_mpm
def test_log_format(start_server, browser):
    host = VirtualHost('CustomLog logs/who.log "%{BITBUCKET_USERNAME}e %{X-Bitbucket-Username}i %>s"\n'
                       + place("both", "AuthBitbucketPass both", "Require valid-user"))
    server = start_server(host)
    browser.sign_in(host.url("/both/page.html"), "mark")
    server.await_in_log("who.log", "mark_miller mark_miller 200")
