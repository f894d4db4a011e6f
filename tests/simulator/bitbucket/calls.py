"""The log of what clients asked, for tests to count and compare. Holds no secret:
values of secret parameters are hidden, of headers only harmless ones are kept."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from .exchange import BadRequest, Call

MAX_CALLS = 50_000
_SHOWN_HEADERS = ("user-agent", "accept", "content-type")
_SECRET_PARAMETERS = ("access_token", "refresh_token", "client_secret", "code", "code_verifier", "token", "password")
_SCHEMES = ("basic", "bearer", "jwt", "digest", "negotiate")


@dataclass
class Entry:
    """One call, reduced to what may be shown."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str | None]
    scheme: str | None
    grant_type: str | None
    connection: int
    account: str | None
    client: str | None
    in_flight: int | None           # API calls under way when this one came, without it
    started: float
    finished: float | None = None
    status: int | None = None       # None while under way, 0 when nothing was answered
    fault: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {"time": self.started, "finished": self.finished, "method": self.method, "path": self.path,
                "query": self.query, "status": self.status, "account": self.account, "client_id": self.client,
                "authorization_scheme": self.scheme, "grant_type": self.grant_type, "headers": self.headers,
                "in_flight": self.in_flight, "connection": self.connection, "fault": self.fault}


def _scheme(call: Call) -> str | None:
    """A header without a scheme may be a bare secret, so unknown words are not kept."""
    authorization = call.authorization()
    if authorization is None:
        return None
    return authorization[0] if authorization[0] in _SCHEMES else "other"


def _grant_type(call: Call) -> str | None:
    if call.method != "POST":
        return None
    try:
        return next((value[:100] for key, value in call.form() if key == "grant_type"), None)
    except BadRequest:
        return None


def _headers(call: Call) -> dict[str, str | None]:
    return {name.lower(): (value if name.lower() in _SHOWN_HEADERS else None) for name, value in call.headers.items()}


@dataclass
class CallLog:
    entries: deque[Entry] = field(default_factory=lambda: deque(maxlen=MAX_CALLS))
    under_way: int = 0
    dropped: int = 0

    def begin(self, call: Call, connection: int, account: str | None, client: str | None, api: bool) -> Entry:
        if len(self.entries) == MAX_CALLS:
            self.dropped += 1
        query = {key: "(hidden)" if key in _SECRET_PARAMETERS else value for key, value in call.query}
        entry = Entry(call.method, call.path, query, _headers(call), _scheme(call), _grant_type(call), connection,
                      account, client, self.under_way if api else None, time.time())
        self.under_way += api
        self.entries.append(entry)
        return entry

    def finish(self, entry: Entry, status: int) -> None:
        entry.finished = time.time()
        entry.status = status
        if entry.in_flight is not None:
            self.under_way -= 1

    def clear(self) -> None:
        """Calls under way stay counted; they finish on their own."""
        self.entries.clear()
        self.dropped = 0
