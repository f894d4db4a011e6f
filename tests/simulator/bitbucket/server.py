"""One TCP port in front of it all: reads requests, picks who answers, writes.

Uses aiohttp's low-level server: no framework routing stands between a client
and what the simulated Bitbucket says.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import traceback
from typing import Any
from weakref import WeakKeyDictionary

from aiohttp import web

from . import control, pages
from .api import API_WORDS, Api, Credentials, forbidden
from .browser import AUTHORIZE, Browsers
from .calls import CallLog
from .exchange import Answer, BadRequest, Call, json_answer, make_call
from .faults import Fault, Faults, Wire, play
from .limits import Limits
from .oauth import Consumer, OAuth
from .settings import Clock, Settings
from .world import World, make_world

TOKEN = "/site/oauth2/access_token"
MAX_LINE = 65_536
BODY_SECONDS = 30


class Simulator:
    """All state, and the one function that turns a Call into an Answer."""

    def __init__(self, seed: dict[str, Any], consumers: list[Consumer]) -> None:
        self._seed = seed
        self._consumers = consumers
        self.closing = asyncio.Event()
        self.calls = CallLog()
        self._connections: WeakKeyDictionary[asyncio.BaseTransport, int] = WeakKeyDictionary()
        self._connection_count = 0
        self.reset()

    def reset(self) -> None:
        """Everything back to the seed. Answers that hang are ended."""
        self.closing.set()
        self.closing = asyncio.Event()
        self.clock = Clock()
        self.settings = Settings()
        self.faults = Faults()
        self.calls.clear()
        self.world: World = make_world(self._seed)
        self.oauth = OAuth(self.clock, self.settings, {c.key: c for c in self._consumers})
        self.browsers = Browsers(self.world, self.oauth, self.settings)
        self.api = Api(self.world, self.oauth, self.settings, self.clock, Limits())

    def use_settings(self, settings: Settings) -> None:
        self.settings = self.oauth.settings = self.browsers.settings = self.api.settings = settings

    # -- who answers

    def answer(self, call: Call, who: Credentials | None) -> Answer:
        try:
            return self._answer(call, who)
        except BadRequest as error:
            return pages.message("Bad request", str(error), 400)

    def _answer(self, call: Call, who: Credentials | None) -> Answer:
        if who is not None:
            return self.api.answer(call, who)
        if call.path == TOKEN:
            return self.oauth.token(call)
        if call.segments[0] in API_WORDS:
            return forbidden()
        if call.method not in ("GET", "HEAD", "POST"):
            return pages.message("Method not allowed", "This page knows GET and POST.", 405)
        if call.path == AUTHORIZE:
            return self.browsers.authorize(call)
        if call.path == "/account/signin":
            return self.browsers.sign_in(call, call.origin.startswith("https:"))
        if call.path in ("/account/signout", "/account/signout/"):
            return self.browsers.sign_out(call)
        if call.path == "/":
            return self.browsers.home(call)
        if len(call.segments) == 4 and call.segments[0] == "account" and call.segments[2:] == ("avatar", ""):
            return self.browsers.avatar(call.segments[1])
        return pages.message("Not found", "That link has no power here.", 404)

    def _identify(self, call: Call) -> tuple[Credentials | None, str | None, str | None]:
        """Credentials when the API is asked; account and client for log and faults."""
        if call.segments[0] == "2.0":
            who = self.api.credentials(call)
            return who, who.account, who.client
        if call.path == TOKEN:
            client, account = self.oauth.client_of(call)
            return None, account, client
        return None, self.browsers.account_of(call), call.parameter("client_id")

    # -- one request

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._handle(request)
        except Exception:  # noqa: BLE001
            return _response(_bug())

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        call = await self._read(request)
        if isinstance(call, Answer):
            return _response(call)
        if call.segments[0] == "_control":
            return _response(self._guard(lambda: control.answer(self, call)))
        who, account, client = self._identify(call)
        entry = self.calls.begin(call, self._connection(request), account, client, who is not None or call.path == TOKEN)
        fault = self.faults.take(call, account)
        status = 0
        try:
            if fault is None:
                answer = self._guard(lambda: self.answer(call, who))
                status = answer.status
                return _response(answer)
            entry.fault = fault.id
            response, status = await self._fail(fault, request, call, who)
            return response
        finally:
            self.calls.finish(entry, status)

    async def _fail(self, fault: Fault, request: web.BaseRequest, call: Call,
                    who: Credentials | None) -> tuple[web.StreamResponse, int]:
        wire = Wire(lambda: request.transport, self.closing)

        def real() -> Answer:   # who it is may have changed during a delay
            return self._guard(lambda: self.answer(call, self._identify(call)[0]))

        answer, status = await play(fault, wire, call, real)
        if answer is None:      # all is said; aiohttp finds a closed connection
            wire.close()
            return web.Response(), status
        return _response(answer), status

    def _guard(self, work: Any) -> Answer:
        try:
            return work()
        except Exception:  # noqa: BLE001
            return _bug()

    async def _read(self, request: web.BaseRequest) -> Call | Answer:
        body = b""
        try:
            if request.can_read_body:
                if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
                    request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await asyncio.wait_for(request.read(), BODY_SECONDS)
            bound = "%s:%s" % request.transport.get_extra_info("sockname")[:2] if request.transport else "localhost"
            return make_call(request.method, request.raw_path, request.headers, body,
                             "https" if request.secure else "http", bound, request.remote or "")
        except web.HTTPRequestEntityTooLarge:
            return pages.message("Too large", "The body is too large.", 413)
        except asyncio.TimeoutError:
            return pages.message("Too slow", "The body took too long.", 408)
        except (BadRequest, ValueError, ConnectionError, web.RequestPayloadError) as error:
            return pages.message("Bad request", str(error)[:200], 400)

    def _connection(self, request: web.BaseRequest) -> int:
        if request.transport is None:
            return 0
        number = self._connections.get(request.transport)
        if number is None:
            self._connection_count += 1
            number = self._connections[request.transport] = self._connection_count
        return number


def ignore_bad_targets(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """aiohttp's parser lets some malformed targets escape as ValueError, which ends the
    connection; that is the client's fault and no news."""
    if not (isinstance(context.get("exception"), ValueError) and "data_received" in context.get("message", "")):
        loop.default_exception_handler(context)


def _bug() -> Answer:
    """An error of ours shows in the terminal and as 500, never as a lost connection."""
    traceback.print_exc(file=sys.stderr)
    return json_answer({"error": "the simulator has a bug; see its error output"}, 500)


def _response(answer: Answer) -> web.Response:
    headers = {"Server": "bitbucket-simulator", "Content-Type": answer.content_type}
    headers.update(answer.headers)
    return web.Response(body=answer.body, status=answer.status, headers=headers)


def make_server(simulator: Simulator) -> web.Server:
    """aiohttp answers what is no HTTP with 400 by itself; its remarks on that are not
    worth the terminal."""
    silent = logging.getLogger("bitbucket.wire")
    silent.addHandler(logging.NullHandler())
    silent.propagate = False
    return web.Server(simulator.handle, access_log=None, logger=silent, max_line_size=MAX_LINE, max_field_size=MAX_LINE,
                      keepalive_timeout=75)
