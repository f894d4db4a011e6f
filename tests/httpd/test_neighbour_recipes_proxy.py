"""The pages of docs/recipes as they stand there: applications behind httpd,
and caches. The other pages are in test_neighbour_recipes.py."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import threading
import time

import aiohttp
import pytest
from aiohttp import web

from harness.client import SCRIPT
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
        if self.path == "/moves":
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/data")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
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
    assert mark.get(host.url("/tool/moves")).location == url


@recipe("headers")
@pytest.mark.one_mpm
def test_headers(paste, new_browser, application):
    open_place = f'<Location "/other/">\nProxyPass "{application}"\nRequire all granted\n</Location>'
    host, _ = paste({APPLICATION: application}, after=open_place)
    mark = new_browser()
    mark.sign_in(host.url("/tool/data"), "mark")
    cookies = mark.jar.line("localhost", False)
    for connection in ("close", "close, X-User", "x-user,close", "X_User, close,x-user"):
        spoofed = ["X-User: evil", "x_user: evil", "X-USER: evil", "Connection: " + connection]
        for path, expected in (("/tool/data", {"": "mark@acme.example"}), ("/other/data", {})):
            received = raw(Applications(host, None), "GET", path, spoofed, cookies)
            assert received.startswith(b"HTTP/1.1 200"), received
            seen = json.loads(received.partition(b"\r\n\r\n")[2])
            assert ours(seen, "x-user") == expected and "evil" not in str(seen), (path, connection)


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
            await web.TCPSite(runner, "127.0.0.1", 0).start()
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
            async with session.ws_connect(f"http://127.0.0.1:{host.port}/chat/room",
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
WITH_COOKIE = r"""#!/bin/sh
printf 'Content-Type: text/plain\r\nCache-Control: public, max-age=600\r\nSet-Cookie: own=%s\r\n\r\nfor members' "$REMOTE_USER"
"""


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
    host, _ = paste(after="CacheHeader On\nCacheIgnoreNoLastMod On", programs={"/content/reports/page.cgi": WITH_COOKIE}, writable=(CACHE,))
    url = host.url("/reports/page.cgi")
    mark, olivia = new_browser(), new_browser()
    assert not from_cache(mark.sign_in(url, "mark"))
    assert from_cache(mark.get(url))
    shared = olivia.sign_in(url, "olivia")
    assert from_cache(shared) and shared.text == "for members" and shared.set_cookies == []
    stranger = new_browser().get(url, SCRIPT)
    assert stranger.status == 401 and "for members" not in stranger.text
    assert new_browser().sign_in(url, "oscar").status == 403
    assert from_cache(mark.get(url))
