"""The pages of docs/recipes as they stand there: what is behind httpd, in front of it, and
beside the sign-in. The other pages are in test_neighbour_recipes.py."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import re
import ssl
import subprocess
import threading
import time
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from harness.client import NAVIGATION, SCRIPT
from harness.config import VirtualHost, free_port
from harness.simulator import uuid_of
from test_pass import SPOOFED, Applications, Handler, ours, raw

recipe = pytest.mark.recipe
APPLICATION = "http://127.0.0.1:9000/"


class Remembering(Handler):
    """An application that tells the headers it got, and keeps the paths it was asked for."""

    paths: list[str] = []

    def answer(self) -> None:
        Remembering.paths.append(self.path)
        super().answer()


@pytest.fixture
def application():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Remembering) as server:
        server.daemon_threads = True
        Remembering.paths = []
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


# -- a proxied application

@recipe("proxy")
def test_proxy(paste, new_browser, application):
    host, _ = paste({APPLICATION: application})
    url = host.url("/tool/data")
    assert new_browser().get(url, SCRIPT).status == 401
    assert new_browser().sign_in(url, "oscar").status == 403
    assert Remembering.paths == []
    mark = new_browser()
    found = mark.sign_in(url, "mark")
    headers = ours(found.json)
    assert headers["Uuid"] == uuid_of("mark") and headers["Email"] == "mark@acme.example"
    assert "bitbucket" not in str(dict(found.json).get("Cookie", "")).lower()
    cookies = mark.jar.line("localhost", False) + "; own=kept"
    for connection in ("close", "close, X-Bitbucket-Uuid"):
        received = raw(Applications(host, None), "GET", "/tool/data", [*SPOOFED, "Connection: " + connection], cookies)
        assert received.startswith(b"HTTP/1.1 200")
        seen = json.loads(received.partition(b"\r\n\r\n")[2])
        assert ours(seen) == headers and "evil" not in str(seen) and dict(seen)["Cookie"] == "own=kept"
    assert set(Remembering.paths) == {"/data"}


@recipe("headers")
@pytest.mark.one_mpm
def test_headers(paste, new_browser, application):
    host, _ = paste({APPLICATION: application})
    mark = new_browser()
    mark.sign_in(host.url("/tool/data"), "mark")
    cookies = mark.jar.line("localhost", False)
    for connection in ("close", "close, X-User", "x-user,close", "X_User, close,x-user"):
        spoofed = ["X-User: evil", "x_user: evil", "X-USER: evil", "Connection: " + connection]
        received = raw(Applications(host, None), "GET", "/tool/data", spoofed, cookies)
        assert received.startswith(b"HTTP/1.1 200"), received
        seen = json.loads(received.partition(b"\r\n\r\n")[2])
        assert ours(seen, "x-user") == {"": "mark@acme.example"} and "evil" not in str(seen), connection


@recipe("headers")
@pytest.mark.one_mpm
def test_headers_that_are_absent_early_or_escaped(paste, new_browser, application, simulator):
    """What the page says can go wrong."""
    after = 'RequestHeader set X-Early "expr=%{reqenv:BITBUCKET_EMAIL}" early\n<Location "/tool/">\n' \
            'RequestHeader set X-Name "expr=%{escape:%{reqenv:BITBUCKET_DISPLAY_NAME}}"\n</Location>'
    host, _ = paste({APPLICATION: application}, after=after)
    simulator.change_account("zoe", emails=[{"email": "zoe@acme.example", "is_primary": True, "is_confirmed": False}])
    seen = dict(new_browser().sign_in(host.url("/tool/data"), "zoe").json)
    assert seen.get("X-User", "") == "" and seen.get("X-Early", "") == ""
    assert seen["X-Name"].isascii() and "Zo%c3%ab" in seen["X-Name"]


# -- WebSockets

class Echo:
    """A WebSocket server that says who it is told speaks, and everything it hears."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,))
        self._thread.start()
        assert started.wait(20)

    def _run(self, started: threading.Event) -> None:
        async def serve() -> web.AppRunner:
            application = web.Application()
            application.router.add_get("/{tail:.*}", self._talk)
            runner = web.AppRunner(application)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0, shutdown_timeout=1).start()
            self.port = runner.addresses[0][1]
            return runner
        runner = self._loop.run_until_complete(serve())
        started.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _talk(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request.path)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(request.headers.get("X-Bitbucket-Username", "nobody"))
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)


@pytest.fixture
def echo():
    echo = Echo()
    yield echo
    echo.stop()


async def talk(host: VirtualHost, headers: dict[str, str], between=lambda: None) -> list[str] | int:
    """What comes back, or the status of a refusal."""
    async with aiohttp.ClientSession() as session:
        try:
            async with session.ws_connect(f"http://127.0.0.1:{host.port}/chat/room", timeout=10,
                                          headers={"Host": f"localhost:{host.port}", **headers}) as socket:
                heard = [await socket.receive_str(timeout=10)]
                for word in ("one", "two"):
                    await socket.send_str(word)
                    heard.append(await socket.receive_str(timeout=10))
                    between()
                return heard
        except aiohttp.WSServerHandshakeError as refusal:
            return refusal.status


def sockets_are_for_members(paste, new_browser, echo, written: str, here: str) -> None:
    port = free_port()
    origin = f"http://localhost:{port}"
    host, _ = paste({written: here.replace("PORT", str(echo.port)), "https://wiki.example.com": origin}, port=port)
    people = {}
    for person in ("mark", "oscar"):
        people[person] = new_browser()
        people[person].get(people[person].walk_to_callback(host.endpoint("login"), person))
    cookies = {person: browser.jar.line("localhost", False) for person, browser in people.items()}
    refusals = {401: {"Origin": origin}, 403: {"Origin": origin, "Cookie": cookies["oscar"]}}
    for status, headers in refusals.items():
        assert asyncio.run(talk(host, headers)) == status
    for foreign in ({"Origin": "https://elsewhere.example"}, {"Origin": origin + ".elsewhere.example"}, {}):
        assert asyncio.run(talk(host, {**foreign, "Cookie": cookies["mark"]})) == 403
    assert echo.seen == []

    def sign_out() -> None:
        if people["mark"].session_value():
            people["mark"].submit(people["mark"].get(host.endpoint("logout")))

    member = {"Origin": origin, "Cookie": cookies["mark"], "X-Bitbucket-Username": "evil"}
    assert asyncio.run(talk(host, member, sign_out)) == ["mark_miller", "one", "two"]
    assert asyncio.run(talk(host, member)) == 401
    assert echo.seen == ["/room"]


@recipe("websocket")
def test_websocket(paste, new_browser, echo):
    sockets_are_for_members(paste, new_browser, echo, APPLICATION, "http://127.0.0.1:PORT/")


@recipe("websocket", 1)
@pytest.mark.one_mpm
def test_websocket_by_wstunnel(paste, new_browser, echo):
    sockets_are_for_members(paste, new_browser, echo, "ws://127.0.0.1:9000/", "ws://127.0.0.1:PORT/")


# -- caches

PUBLIC = 'CacheHeader On\nHeader set Cache-Control "public, max-age=600"\n'
CACHE = "/var/cache/apache2/mod_cache_disk"


def of_yesterday(server) -> None:
    for path in (server.root / "content").rglob("*.html"):
        os.utime(path, (time.time() - 86400,) * 2)


def from_cache(answer) -> bool:
    assert answer.status == 200, answer
    return (answer.header("X-Cache") or "").startswith("HIT")


@recipe("cache")
@pytest.mark.one_mpm
def test_cache_in_front(paste, new_browser):
    host, _ = paste(after=PUBLIC, files={"/content/public/page.html": "for all"}, writable=(CACHE,), prepare=of_yesterday)
    mark, olivia = new_browser(), new_browser()
    assert not from_cache(mark.sign_in(host.url("/page.html"), "mark"))
    assert not from_cache(olivia.sign_in(host.url("/page.html"), "olivia"))
    for browser in (mark, olivia, mark):
        assert not from_cache(browser.get(host.url("/page.html")))
    assert new_browser().get(host.url("/page.html"), SCRIPT).status == 401
    assert not from_cache(new_browser().get(host.url("/public/page.html"), SCRIPT))
    assert from_cache(new_browser().get(host.url("/public/page.html"), SCRIPT))


@recipe("cache")
@pytest.mark.one_mpm
def test_what_a_stranger_gets_without_private(paste, new_browser):
    """The page warns of it; so the test above can fail."""
    host, _ = paste(after=PUBLIC + '<Location "/">\nAuthBitbucketPrivate Off\n</Location>', writable=(CACHE,), prepare=of_yesterday)
    assert not from_cache(new_browser().sign_in(host.url("/page.html"), "mark"))
    assert from_cache(new_browser().get(host.url("/page.html"), SCRIPT))


@recipe("cache", 1)
@pytest.mark.one_mpm
def test_cache_behind_the_sign_in(paste, new_browser):
    host, _ = paste(after=PUBLIC, files={"/content/reports/page.html": "for members"}, writable=(CACHE,), prepare=of_yesterday)
    url = host.url("/reports/page.html")
    mark, olivia = new_browser(), new_browser()
    assert not from_cache(mark.sign_in(url, "mark"))
    assert from_cache(mark.get(url)) and from_cache(olivia.sign_in(url, "olivia"))
    stranger = new_browser().get(url, SCRIPT)
    assert stranger.status == 401 and "for members" not in stranger.text
    assert new_browser().sign_in(url, "oscar").status == 403
    assert from_cache(mark.get(url))


# -- TLS and HTTP/2

class WholeSite(VirtualHost):
    """A page that holds the <VirtualHost> itself. plain_port stands for port 80."""

    plain_port = 0

    def text(self) -> str:
        return f"Listen 127.0.0.1:{self.port}\nListen 127.0.0.1:{self.plain_port}\n{self.directives}"


@recipe("tls-http2")
@pytest.mark.only_mpms("event", "worker")
def test_tls_and_http2(paste, browser, tmp_path):
    site = WholeSite(tls=True)
    site.plain_port = free_port()
    site.directives = paste.block({"https://wiki.example.com": site.origin, "ServerName wiki.example.com": "ServerName localhost",
                                   "*:443": f"127.0.0.1:{site.port}", "*:80": f"127.0.0.1:{site.plain_port}",
                                   "/etc/ssl/certs/wiki.example.com.pem": "conf/site.crt",
                                   "/etc/ssl/private/wiki.example.com.key": "conf/site.key",
                                   "the-key-that-bitbucket-shows": site.client_id})
    paste.start(site, files={"/etc/apache2/bitbucket-client-secret": site.client_secret + "\n",
                             **{f"/srv/wiki/{number}.html": f"page {number}" for number in range(20)}})
    moved = browser.get(f"http://localhost:{site.plain_port}/7.html?a=b")
    assert moved.status == 301 and moved.location == site.url("/7.html?a=b")
    assert browser.walk(moved, "mark")[-1].text == "page 7"
    name, value = "__Host-bitbucket_session", browser.session_value()
    assert browser.jar.named("localhost", name)[name] == value

    url = f"https://127.0.0.1:{site.port}"
    guessed = f"{name}={'B' if value[0] == 'A' else 'A'}{value[1:]}"
    assert curl(site, tmp_path, "-b", f"{name}={value}", *[f"{url}/{number}.html" for number in range(20)]) == \
        sorted(f"2 200 page {number}" for number in range(20))
    assert [line[:5] for line in curl(site, tmp_path, "-b", guessed, url + "/1.html", url + "/2.html")] == ["2 401"] * 2
    assert "strict-transport-security: max-age=31536000" in curl(site, tmp_path, "-i", url + "/1.html")[0].lower()


def curl(site: VirtualHost, directory: Path, *words: str) -> list[str]:
    """Version, status and body of each answer, asked for at the same time."""
    said = subprocess.run(["curl", "-sSk", "--http2", "-Z", "-H", f"Host: localhost:{site.port}", "-O", "--remote-name-all",
                           "--output-dir", str(directory), "-w", r"%{http_version} %{http_code} %{filename_effective}\n", *words],
                          capture_output=True, text=True, timeout=30)
    assert said.returncode == 0, said.stderr
    found = [line.split(" ", 2) for line in said.stdout.splitlines()]
    return sorted(f"{version} {status} {Path(file).read_text()}" for version, status, file in found)


# -- a load balancer

LOAD_BALANCER, OFFICE, AT_HOME = "127.0.0.1", "127.9.0.1", "127.8.0.1"


def ask_from(address: str, host: VirtualHost, path: str, **headers: str) -> int:
    """The status that somebody at this address gets from a host of this machine."""
    kinds = {True: http.client.HTTPSConnection, False: http.client.HTTPConnection}
    more = {"context": ssl._create_unverified_context()} if host.tls else {}
    connection = kinds[host.tls]("127.0.0.1", host.port, timeout=20, source_address=(address, 0), **more)
    try:
        connection.request("GET", path, headers={"Host": f"localhost:{host.port}", **SCRIPT,
                                                 **{name.replace("_", "-"): value for name, value in headers.items()}})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


@recipe("remoteip")
def test_remoteip(paste, new_browser):
    port = free_port()
    balancer = VirtualHost(f'ProxyPreserveHost On\nProxyPass "/" "http://127.0.0.1:{port}/"', tls=True, configured=False)
    host = VirtualHost(paste.block({"192.0.2.10": LOAD_BALANCER, "198.51.100.0/24": "127.9.0.0/16",
                                    "https://wiki.example.com": balancer.origin}),
                       port=port, callback=balancer.origin + "/bitbucket/callback")
    server = paste.start(balancer, host)
    # Through the load balancer, which adds to what it gets.
    assert ask_from(OFFICE, balancer, "/page.html") == 200
    assert ask_from(AT_HOME, balancer, "/page.html") == 401
    assert ask_from(AT_HOME, balancer, "/page.html?spoofed", X_Forwarded_For=OFFICE) == 401
    # Past it: what the visitor says counts for nothing.
    assert ask_from(AT_HOME, host, "/page.html?past", X_Forwarded_For=OFFICE) == 401
    # Signing in works with the public address.
    browser = new_browser()
    assert ask_from(AT_HOME, balancer, "/page.html", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document") == 302
    browser.get(browser.walk_to_callback(balancer.url("/bitbucket/login"), "mark"))
    assert "__Host-bitbucket_session" in browser.jar.named("localhost", "bitbucket_session")
    assert ask_from(AT_HOME, balancer, "/data.txt", Cookie=browser.jar.line("localhost", True)) == 200
    lines = server.await_in_log("visitors.log", "/data.txt").splitlines()
    seen = [re.sub(r" \[.*?\]", "", line) for line in lines if "/bitbucket/" not in line]
    assert seen == [f'{OFFICE} - "GET /page.html HTTP/1.1" 200', f'{AT_HOME} - "GET /page.html HTTP/1.1" 401',
                    f'{AT_HOME} - "GET /page.html?spoofed HTTP/1.1" 401', f'{AT_HOME} - "GET /page.html?past HTTP/1.1" 401',
                    f'{AT_HOME} - "GET /page.html HTTP/1.1" 302', f'{AT_HOME} mark_miller "GET /data.txt HTTP/1.1" 200']
    sent, = [line for line in server.error_log.read_text().splitlines() if "ABB0104" in line and "/page.html" not in line
             and "[client 127.0.0.1" not in line]
    assert f"[client {AT_HOME}:" in sent


# -- a local account

def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


RESCUE = basic("rescue@local", "a long password of this server")
WRONG = [basic("rescue@local", "guess"), basic("rescue@local", ""), basic("nobody", "guess"), basic("", ""),
         {"Authorization": "Basic"}, {"Authorization": "Basic !"}, {"Authorization": "Bearer x"},
         # Somebody's name at Bitbucket, in the file by chance.
         basic("mark_miller", "a password of no use")]


def with_passwords(server) -> None:
    file = server.root / "etc/apache2/break-glass.users"
    file.parent.mkdir(parents=True)
    file.touch()
    for name, password in (("rescue@local", "a long password of this server"), ("mark_miller", "a password of no use")):
        subprocess.run(["htpasswd", "-bB", str(file), name, password], check=True, capture_output=True)


@recipe("break-glass")
@pytest.mark.one_mpm
def test_a_local_account(paste, new_browser, simulator):
    inner = '<Location "/owners">\nRequire bitbucket-workspace acme:owner\n</Location>'
    host, _ = paste({"192.0.2.0/24": "127.0.0.0/8"}, before=inner, prepare=with_passwords,
                    files={"/content/owners/page.html": "for owners"})
    url = host.url("/env.cgi")
    mark = new_browser()
    assert mark.sign_in(url, "mark").environment["REMOTE_USER"] == "mark_miller"
    for route in ("authorize", "token", "api"):
        simulator.fault(route, status=503)
    simulator.forget_calls()
    # With the password, with or without a session.
    for browser in (new_browser(), mark):
        seen = browser.get(url, {**NAVIGATION, **RESCUE})
        assert seen.status == 200 and seen.environment["REMOTE_USER"] == "rescue@local"
        assert seen.environment["AUTH_TYPE"] == "Basic"
        assert not [name for name in seen.environment if name.startswith("BITBUCKET_")]
    assert new_browser().get(host.url("/owners/page.html"), {**NAVIGATION, **RESCUE}).text == "for owners"
    # With a wrong one.
    for headers in WRONG:
        for kind in (NAVIGATION, SCRIPT):
            answer = new_browser().get(url, {**kind, **headers})
            assert answer.status in (401, 302) and "REMOTE_USER" not in answer.text, headers
            if " " in headers["Authorization"] and "Bearer" not in headers["Authorization"]:
                assert answer.status == 401 and answer.header("WWW-Authenticate") == 'Basic realm="Break glass"'
    # Without any: as ever.
    assert new_browser().get(url).location.startswith(simulator.authorize_url)
    assert new_browser().get(url, SCRIPT).status == 401
    assert mark.get(url).environment["REMOTE_USER"] == "mark_miller"
    assert simulator.asked() == []
    simulator.clear_faults()
    assert new_browser().sign_in(url, "oscar").status == 403


@recipe("break-glass")
@pytest.mark.one_mpm
def test_the_door_for_browsers(paste, new_browser):
    host, _ = paste({"192.0.2.0/24": "127.0.0.0/8"}, prepare=with_passwords)
    for headers in (NAVIGATION, {**NAVIGATION, **WRONG[0]}):
        asked = new_browser().get(host.url("/break-glass"), headers)
        assert asked.status == 401 and asked.header("WWW-Authenticate") == 'Basic realm="Break glass"'
    opened = new_browser().get(host.url("/break-glass"), {**NAVIGATION, **RESCUE})
    assert opened.status == 302 and opened.location == host.url("/")
    for path in ("/break-glass/", "/break-glass/x", "/BREAK-GLASS", "//break-glass", "/break-glass%2f"):
        assert new_browser().get(host.url(path), SCRIPT).status in (401, 404), path


@recipe("break-glass")
@pytest.mark.one_mpm
def test_a_local_account_from_elsewhere(paste, new_browser):
    """The addresses as they stand there are not this machine's."""
    host, _ = paste(prepare=with_passwords)
    for path in ("/page.html", "/break-glass"):
        for headers in (RESCUE, WRONG[0]):
            assert new_browser().get(host.url(path), {**NAVIGATION, **headers}).status == 403
    assert new_browser().sign_in(host.url("/page.html"), "mark").status == 200


@recipe("break-glass")
@pytest.mark.one_mpm
@pytest.mark.parametrize("more", ["", "AuthBitbucketUnauthenticated pass"])
def test_basic_within_our_section_does_nothing(paste, new_browser, more):
    """The tempting way, of which the page warns."""
    after = '<Location "/tempting">\nAuthType Bitbucket\n' + more + '\nAuthBasicProvider file\nAuthUserFile ' \
            '"${ROOT}/etc/apache2/break-glass.users"\nRequire user rescue@local\n</Location>\nAlias "/tempting" "${CONTENT}"'
    host = VirtualHost(after)
    paste.start(host, prepare=with_passwords)
    assert new_browser().get(host.url("/tempting/page.html"), {**SCRIPT, **RESCUE}).status == 401
