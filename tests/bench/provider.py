#!/usr/bin/python3
"""Bitbucket and an OpenID provider that cost next to nothing: the same answers for everybody, over
TLS, each after the same delay. For measuring sign-ins; the simulator of tests/simulator knows what
Bitbucket knows, and so computes more for each answer.

A browser is not sent here: whoever measures takes what the provider would send back from
`granted`. The nonce of an OpenID client is its code, so that nothing has to be remembered.

usage: provider.py CERTIFICATE DELAY_MS    (CERTIFICATE.crt and .key); prints its port
"""

from __future__ import annotations

import asyncio
import base64
import functools
import hashlib
import hmac
import json
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Sequence
from urllib.parse import parse_qs, urlencode, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "httpd"))

from harness import certificates  # noqa: E402

CLIENT, SECRET = "measured", "a secret of the measured client, long enough for a hash"
WORKSPACE = "acme"
UUID = "{9a01f37b-b1b2-40c5-8c5e-1a39f4b5e645}"
Answer = dict[str, Any]


# -- for those who measure

class Provider:
    """The program below, as long as the with block lasts, on the client's processors."""

    def __init__(self, certificate: Path, delay_ms: int = 0, wrapper: Sequence[str] = ()) -> None:
        self._command = [*wrapper, sys.executable, "-B", __file__, str(certificate), str(delay_ms)]

    def __enter__(self) -> "Provider":
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        self.origin = f"https://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def computed(self) -> float:
        """Seconds that it has been computing for."""
        return int(Path(f"/proc/{self._process.pid}/schedstat").read_text().split()[0]) / 1e9

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()


SYSTEM_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def certify(certificate: Path) -> Path:
    """Make CERTIFICATE.crt and .key. Returns a file that certifies it among as many authorities as
    a system has, since reading them is part of what a client does."""
    certificates.write(certificate, ["127.0.0.1"])
    authorities = certificate.with_suffix(".authorities")
    known = SYSTEM_AUTHORITIES.read_text() if SYSTEM_AUTHORITIES.exists() else ""
    authorities.write_text(known + certificate.with_suffix(".crt").read_text())
    return authorities


def granted(authorize: str, callback: str) -> str:
    """Where the browser goes back to from an authorize URL: the callback it names, or that one."""
    query = {name: values[0] for name, values in parse_qs(urlsplit(authorize).query).items()}
    return query.get("redirect_uri", callback) + "?" + urlencode(
        {"code": query.get("nonce", "a-code"), "state": query["state"]})


# -- answers

def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _signed(claims: Answer) -> str:
    parts = [_base64url(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    signature = hmac.new(SECRET.encode(), ".".join(parts).encode(), hashlib.sha256).digest()
    return ".".join([*parts, _base64url(signature)])


def _openid_token(origin: str, form: bytes) -> Answer:
    now = int(time.time())
    claims = {"iss": origin, "sub": UUID, "aud": CLIENT, "iat": now, "exp": now + 3600,
              "nonce": parse_qs(form.decode())["code"][0]}
    return {"access_token": "x" * 43, "token_type": "Bearer", "expires_in": 3600, "id_token": _signed(claims)}


PERSON = {"type": "user", "uuid": UUID, "account_id": "557058:0e5c6000-c6e5-4f4d-a936-be1a54e66454", "username": "ada",
          "nickname": "ada", "display_name": "Ada Lovelace", "account_status": "active", "links": {}}
ALWAYS: dict[str, Answer] = {
    "/site/oauth2/access_token": {"access_token": "x" * 2600, "refresh_token": "y" * 2600, "scope": "account email",
                                  "token_type": "bearer", "expires_in": 7200, "state": "authorization_code"},
    "/2.0/user": PERSON,
    "/2.0/user/emails": {"values": [{"type": "email", "email": "ada@acme.example", "is_primary": True,
                                     "is_confirmed": True}]},
    f"/2.0/user/workspaces/{WORKSPACE}/permission": {
        "type": "workspace_membership", "permission": "member", "user": PERSON,
        "workspace": {"type": "workspace", "uuid": "{e4bd580a-c40f-4411-9483-afa0f5baaca6}", "slug": WORKSPACE}},
    "/userinfo": {"sub": UUID, "email": "ada@acme.example", "name": "Ada Lovelace", "preferred_username": "ada"},
}


def _http(value: Answer | None) -> bytes:
    body = json.dumps(value or {}).encode()
    status = "404 Not Found" if value is None else "200 OK"
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


READY = {path: _http(value) for path, value in ALWAYS.items()}


# -- the wire

class Connection(asyncio.Protocol):
    """Reads no more of HTTP than curl's requests need: they come one at a time, and whole bodies
    have their length said."""

    def __init__(self, origin: Callable[[], str], delay: float) -> None:
        self._origin, self._delay = origin, delay
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, end, body = self._data.partition(b"\r\n\r\n")
        if not end or len(body) < self._length(head):
            return
        self._data = b""
        path = head.split(b" ", 2)[1].partition(b"?")[0].decode()
        answer = READY.get(path) or _http(_openid_token(self._origin(), body) if path == "/token" else None)
        asyncio.get_running_loop().call_later(self._delay, self._transport.write, answer)  # type: ignore[attr-defined]

    @staticmethod
    def _length(head: bytes) -> int:
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                return int(value)
        return 0


async def serve(certificate: str, delay: float) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate + ".crt", certificate + ".key")
    made = functools.partial(Connection, lambda: f"https://127.0.0.1:{port}", delay)
    server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0, ssl=context, backlog=1024)
    port = server.sockets[0].getsockname()[1]
    print(port, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]) / 1000))
