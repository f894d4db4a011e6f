"""What came in and what goes out, free of any web framework.

A Call is one HTTP request read in full; an Answer is one HTTP response held
in full. Everything that decides lives between the two and is plain Python.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Generic, Mapping, TypeVar
from urllib.parse import parse_qsl, quote, unquote

JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=utf-8"
TEXT = "text/plain; charset=utf-8"

MAX_PARAMETERS = 100
_HOST = re.compile(r"[A-Za-z0-9._\-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")


class BadRequest(Exception):
    """The request cannot be read; its text tells why."""


@dataclass(frozen=True)
class Answer:
    """One HTTP response."""

    status: int = 200
    body: bytes = b""
    content_type: str = HTML
    headers: Mapping[str, str] = field(default_factory=dict)


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None,
                content_type: str = JSON) -> Answer:
    return Answer(status, encode_json(value), content_type, headers or {})


def encode_json(value: Any) -> bytes:
    """UTF-8 as Bitbucket sends it; escapes where a lone surrogate has no UTF-8."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def redirect(location: str, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(302, b"", HTML, {"Location": location, "Cache-Control": "no-store", **(headers or {})})


def with_parameters(url: str, parameters: list[tuple[str, str]]) -> str:
    """url with parameters added; bytes that are no UTF-8 go back as they came."""
    pairs = "&".join(f"{quote(k, safe='')}={quote(v, safe='', errors='surrogateescape')}"
                     for k, v in parameters)
    return f"{url}{'&' if '?' in url else '?'}{pairs}"


def reason_of(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def parse_pairs(text: str) -> list[tuple[str, str]]:
    """Pairs of a query or form. Errors: BadRequest when there are too many."""
    try:
        return parse_qsl(text, keep_blank_values=True, errors="surrogateescape",
                         max_num_fields=MAX_PARAMETERS)
    except ValueError as error:
        raise BadRequest("too many parameters") from error


@dataclass(frozen=True)
class Call:
    """One HTTP request, its body read."""

    method: str
    path: str                       # percent-decoded
    segments: tuple[str, ...]       # decoded after splitting, so %2F stays inside one
    target: str                     # path and query as sent
    query_text: str
    query: list[tuple[str, str]]
    headers: Mapping[str, str]      # names in any case
    body: bytes
    origin: str                     # scheme and host the client used, for absolute links
    peer: str

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "").split(";")[0].strip().lower()

    def parameter(self, name: str) -> str | None:
        """The first value of a query parameter."""
        return next((value for key, value in self.query if key == name), None)

    def repeated(self) -> str | None:
        """A query parameter that was sent more than once."""
        return repeated(self.query)

    def form(self) -> list[tuple[str, str]]:
        """The form of the body; empty when it is not form-encoded."""
        if self.content_type != "application/x-www-form-urlencoded":
            return []
        return parse_pairs(self.body.decode("utf-8", "surrogateescape"))

    def cookie(self, name: str) -> str | None:
        for part in self.headers.get("Cookie", "").split(";"):
            key, _, value = part.strip().partition("=")
            if key == name:
                return value
        return None

    def authorization(self) -> tuple[str, str] | None:
        """Scheme in lower case and credentials, or None without the header."""
        text = self.headers.get("Authorization")
        if text is None:
            return None
        scheme, _, credentials = text.strip().partition(" ")
        return scheme.lower(), credentials.strip()


def repeated(pairs: list[tuple[str, str]]) -> str | None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            return key
        seen.add(key)
    return None


def split_target(target: str) -> tuple[str, str]:
    """Path and query of a request target; absolute form is reduced to its path."""
    if target[:1] != "/":
        match = re.match(r"https?://[^/?#]*", target, re.IGNORECASE)
        if not match:
            raise BadRequest("the request target is no path")
        target = target[match.end():] or "/"
    path, _, query = target.partition("#")[0].partition("?")
    return path, query


def make_call(method: str, target: str, headers: Mapping[str, str], body: bytes,
              scheme: str, bound: str, peer: str) -> Call:
    """Errors: BadRequest."""
    raw_path, query = split_target(target)
    segments = tuple(unquote(part) for part in raw_path[1:].split("/"))
    host = headers.get("Host", "")
    if not _HOST.fullmatch(host):
        host = bound
    return Call(method, "/" + "/".join(segments), segments, target, query,
                parse_pairs(query) if query else [], headers, body, f"{scheme}://{host}", peer)


def decode_basic(credentials: str) -> tuple[str, str] | None:
    """User and password of Basic credentials, or None when they are malformed."""
    try:
        text = base64.b64decode(credentials, validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    user, colon, password = text.partition(":")
    return (user, password) if colon else None


K = TypeVar("K")
V = TypeVar("V")


class Bounded(OrderedDict, Generic[K, V]):
    """A dict that drops its oldest entries beyond a limit, and counts them."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.dropped = 0

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        while len(self) > self.limit:
            self.popitem(last=False)
            self.dropped += 1
