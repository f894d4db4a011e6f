"""Failures on demand: which request fails, and how it goes wrong on the wire.

A fault is matched before the request is answered. One that brings an answer of
its own (status, body, json, redirect, gzip_bomb, raw) or none (hang, close)
leaves the simulated Bitbucket untouched, unless "effect" asks that the real
thing happens first: the code is spent, the token rotated, the answer lost.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import copy
import json
import zlib
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Callable

from .exchange import HTML, JSON, Answer, Call, encode_json, reason_of
from .objects import error
from .settings import Refused, number

MAX_FAULTS = 1_000
MAX_SECONDS = 3_600
MAX_BODY = 256 * 2**20
MAX_BOMB = 2**30
MAX_FLOOD = 100_000

ALIASES = {
    "authorize": ("/site/oauth2/authorize",),
    "token": ("/site/oauth2/access_token",),
    "user": ("/2.0/user",),
    "emails": ("/2.0/user/emails",),
    "permission": ("/2.0/user/workspaces/*/permission",),
    "workspaces": ("/2.0/user/workspaces",),
    "repositories": ("/2.0/user/workspaces/*/permissions/repositories", "/2.0/repositories/*"),
    "api": ("/2.0/*",),
}


def route_matches(route: str, path: str) -> bool:
    return any(fnmatchcase(path, glob) for glob in ALIASES.get(route, (route,)))


@dataclass
class Fault:
    id: int
    spec: dict[str, Any]            # as asked for, and shown again by GET
    skip: int                       # calls to let through first
    left: int | None                # None: until cleared
    hits: int = 0
    own_body: bytes | None = None

    def matches(self, call: Call, account: str | None) -> bool:
        spec = self.spec
        return (route_matches(spec["route"], call.path)
                and spec.get("method", call.method) == call.method
                and spec.get("account", account) == account
                and ("query" not in spec or fnmatchcase(call.query_text, spec["query"])))

    def as_json(self) -> dict[str, Any]:
        return {"id": self.id, **self.spec, "hits": self.hits, "left": self.left, "after_left": self.skip}


@dataclass
class Faults:
    faults: list[Fault] = field(default_factory=list)
    _next: int = 1

    def add(self, spec: Any) -> Fault:
        """Errors: Refused."""
        if len(self.faults) >= MAX_FAULTS:
            raise Refused("there are too many faults; clear some")
        body = _check(spec)
        fault = Fault(self._next, spec, spec.get("after", 0), spec.get("times"), own_body=body)
        self._next += 1
        self.faults.append(fault)
        return fault

    def take(self, call: Call, account: str | None) -> Fault | None:
        """The first fault for this call. The ones before it that still let calls
        through count this one."""
        for fault in self.faults:
            if not fault.matches(call, account):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.hits += 1
            if fault.left is not None:
                fault.left -= 1
                if fault.left == 0:
                    self.faults.remove(fault)
            return fault
        return None

    def remove(self, fault_id: int) -> bool:
        before = len(self.faults)
        self.faults = [fault for fault in self.faults if fault.id != fault_id]
        return len(self.faults) < before


# -- what may be asked for

def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 2**20


def _seconds(value: Any, name: str) -> None:
    number(value, name, 0, MAX_SECONDS)


def _whole(limit: int) -> Callable[[Any, str], None]:
    return lambda value, name: number(value, name, 0, limit, whole=True)


def _text(value: Any, name: str) -> None:
    if not _is_text(value):
        raise Refused(f"{name} is a text")


def _header_text(value: Any, name: str) -> None:
    if not _is_text(value) or "\r" in value or "\n" in value or "\0" in value:
        raise Refused(f"{name} is a text of one line")


def _flag(value: Any, name: str) -> None:
    if not isinstance(value, bool):
        raise Refused(f"{name} is true or false")


def _object(value: Any, name: str) -> None:
    if not isinstance(value, dict):
        raise Refused(f"{name} is an object")


def _headers(value: Any, name: str) -> None:
    _object(value, name)
    for key, text in value.items():
        if not key or not key.isascii() or not all(c.isalnum() or c in "-_" for c in key):
            raise Refused(f"{name} has names of letters, digits and dashes")
        _header_text(text, f"{name}.{key}")


def _names(value: Any, name: str) -> None:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise Refused(f"{name} is a list of keys (dots go deeper)")


def _rate(value: Any, name: str) -> None:
    number(value, name, 0.01, 10**9)


def _anything(value: Any, name: str) -> None:
    pass


_KEYS: dict[str, Callable[[Any, str], None]] = {
    "route": _text, "method": _text, "account": _text, "query": _text,
    "times": lambda v, n: number(v, n, 1, 10**9, whole=True), "after": _whole(10**9), "effect": _flag,
    "delay": _seconds, "status": lambda v, n: number(v, n, 200, 599, whole=True),
    "body": _text, "body_base64": _text, "repeat": _whole(10**9), "content_type": _header_text, "headers": _headers,
    "json": _anything, "merge": _object, "remove": _names, "redirect": _header_text,
    "gzip_bomb": _whole(MAX_BOMB), "header_flood": _whole(MAX_FLOOD),
    "cut": _whole(MAX_BODY), "hang": _flag, "hang_after": _whole(MAX_BODY), "close": _flag,
    "drip": _rate, "drip_headers": _flag, "raw": _text, "raw_base64": _text,
}


def _check(spec: Any) -> bytes | None:
    """Errors: Refused. Returns the body the fault brings."""
    _object(spec, "a fault")
    for key, value in spec.items():
        if key not in _KEYS:
            raise Refused(f"a fault has no {key!r}; known are {', '.join(_KEYS)}")
        _KEYS[key](value, key)
    if not spec.get("route"):
        raise Refused(f"a fault has a route: a glob on the path or one of {', '.join(ALIASES)}")
    if sum(key in spec for key in ("body", "body_base64", "json", "redirect", "gzip_bomb", "raw", "raw_base64")) > 1:
        raise Refused("body, body_base64, json, redirect, gzip_bomb, raw and raw_base64 exclude each other")
    body = _own_body(spec)
    if body is not None and len(body) * max(1, spec.get("repeat", 1)) > MAX_BODY:
        raise Refused(f"a body has at most {MAX_BODY} bytes")
    return body


def _own_body(spec: dict[str, Any]) -> bytes | None:
    for key in ("body", "raw"):
        if key in spec:
            return spec[key].encode("utf-8", "replace")
        if key + "_base64" in spec:
            try:
                return base64.b64decode(spec[key + "_base64"], validate=True)
            except (binascii.Error, ValueError) as problem:
                raise Refused(f"{key}_base64 is not base64") from problem
    return encode_json(spec["json"]) if "json" in spec else None


# -- how it goes wrong

@dataclass(frozen=True)
class Wire:
    """The connection under one request."""

    transport: Callable[[], asyncio.Transport | None]
    closing: asyncio.Event          # set when the simulator resets or ends

    def gone(self) -> bool:
        transport = self.transport()
        return transport is None or transport.is_closing() or self.closing.is_set()

    async def wait(self, seconds: float) -> bool:
        """Sleep; False as soon as the client is gone."""
        end = asyncio.get_running_loop().time() + min(seconds, MAX_SECONDS)
        while not self.gone():
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                return True
            await asyncio.sleep(min(left, 0.05))
        return False

    def close(self) -> None:
        transport = self.transport()
        if transport is not None:
            transport.close()

    def write(self, data: bytes) -> None:
        transport = self.transport()
        if transport is not None and not transport.is_closing():
            transport.write(data)


async def play(fault: Fault, wire: Wire, call: Call, real: Callable[[], Answer]) -> tuple[Answer | None, int]:
    """Answer one call the way the fault wants. Returns the answer still to be sent,
    or None when everything that will be sent has been; and the status for the log
    (0: no answer)."""
    spec = fault.spec
    if "delay" in spec:
        await wire.wait(spec["delay"])
    silent = spec.get("hang") or spec.get("close")
    answer = real() if spec.get("effect") or not (silent or _brings_answer(spec)) else None
    if silent:
        if spec.get("hang"):
            await wire.wait(MAX_SECONDS)
        wire.close()
        return None, 0
    if "raw" in spec or "raw_base64" in spec:
        data = (fault.own_body or b"") * spec.get("repeat", 1)
        await _send(wire, data, len(data), spec)
        return None, spec.get("status", 200)
    answer = await _spoil(fault, spec, answer)
    if not any(key in spec for key in ("cut", "hang_after", "drip", "header_flood")):
        return answer, answer.status
    head = _head(answer, spec.get("header_flood", 0))
    body = b"" if call.method == "HEAD" else answer.body
    await _send(wire, head + body, len(head), spec)
    return None, answer.status


def _brings_answer(spec: dict[str, Any]) -> bool:
    if any(key in spec for key in ("body", "body_base64", "json", "redirect", "gzip_bomb", "raw", "raw_base64")):
        return True
    return "status" in spec and not any(key in spec for key in ("merge", "remove"))


async def _spoil(fault: Fault, spec: dict[str, Any], answer: Answer | None) -> Answer:
    """The answer after everything that changes its content."""
    status = spec.get("status", 200)
    headers: dict[str, str] = {}
    if "redirect" in spec:
        body, kind, status, headers = b"", HTML, spec.get("status", 302), {"Location": spec["redirect"]}
    elif "gzip_bomb" in spec:
        body = await asyncio.to_thread(gzip_bomb, spec["gzip_bomb"])
        kind, headers = JSON, {"Content-Encoding": "gzip"}
    elif fault.own_body is not None:
        body, kind = fault.own_body * spec.get("repeat", 1), JSON if "json" in spec else HTML
        if "json" not in spec and body.lstrip()[:1] in (b"{", b"["):
            kind = JSON
    elif answer is None or _brings_answer(spec):
        body, kind = _plain_failure(status)
    else:
        body, kind, headers = answer.body, answer.content_type, dict(answer.headers)
        status = spec.get("status", answer.status)
    if "merge" in spec or "remove" in spec:
        body = _change_json(body, spec)
    headers.update(spec.get("headers", {}))
    kind = next((headers.pop(name) for name in list(headers) if name.lower() == "content-type"), kind)
    return Answer(status, body, spec.get("content_type", kind), headers)


def _plain_failure(status: int) -> tuple[bytes, str]:
    """5xx of Bitbucket come as HTML (seen), its other errors as JSON."""
    reason = reason_of(status)
    if status >= 500:
        return f"<html><head><title>{status} {reason}</title></head><body><h1>{reason}</h1></body></html>".encode(), HTML
    return encode_json(error(reason)), JSON


def _change_json(body: bytes, spec: dict[str, Any]) -> bytes:
    try:
        value = json.loads(body)
    except ValueError:
        return body
    if isinstance(value, dict):
        value = _merged(value, spec.get("merge", {}))
        for name in spec.get("remove", ()):
            _without(value, name.split("."))
    return encode_json(value)


def _merged(value: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    result = dict(value)
    for key, change in changes.items():
        both = isinstance(change, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], change) if both else copy.deepcopy(change)
    return result


def _without(value: Any, path: list[str]) -> None:
    if isinstance(value, list):
        for item in value:
            _without(item, path)
    elif isinstance(value, dict):
        if len(path) == 1:
            value.pop(path[0], None)
        elif path[0] in value:
            _without(value[path[0]], path[1:])


def _head(answer: Answer, flood: int) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} {reason_of(answer.status)}", f"Content-Type: {answer.content_type}",
             f"Content-Length: {len(answer.body)}"]
    lines += [f"{key}: {value}" for key, value in answer.headers.items()]
    lines += [f"X-Flood-{n}: {'f' * 80}" for n in range(flood)]
    return ("\r\n".join(lines) + "\r\nConnection: close\r\n\r\n").encode("utf-8", "replace")


async def _send(wire: Wire, data: bytes, head: int, spec: dict[str, Any]) -> None:
    """Write data, of which head bytes are the header, as far and as fast as the fault
    allows; then hang or close."""
    end = len(data)
    for key in ("cut", "hang_after"):
        if key in spec:
            end = min(end, head + spec[key])
    at = 0 if spec.get("drip_headers") else min(head, end)
    rate = spec.get("drip")
    if rate is None:
        wire.write(data[:end])
    else:
        wire.write(data[:at])
        piece = max(1, int(rate * 0.05))
        while at < end and await wire.wait(piece / rate):
            wire.write(data[at:min(at + piece, end)])
            at += piece
    if "hang_after" in spec:
        await wire.wait(MAX_SECONDS)
    wire.close()


def gzip_bomb(size: int) -> bytes:
    """A gzip body that unpacks to size bytes of JSON, about a thousandth as long."""
    start, stop = b'{"type":"user","padding":"', b'"}'
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(start)]
    left, block = max(0, size - len(start) - len(stop)), b"A" * 2**20
    while left > 0:
        parts.append(packer.compress(block[:left]))
        left -= len(block)
    return b"".join([*parts, packer.compress(stop), packer.flush()])
