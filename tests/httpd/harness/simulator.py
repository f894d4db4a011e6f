"""The Bitbucket simulator of tests/simulator as a process, and how a test steers it."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Iterable
from urllib.parse import quote, urlencode

PROGRAM = Path(__file__).resolve().parents[2] / "simulator" / "bitbucket_simulator.py"
WORLD = json.loads((PROGRAM.parent / "bitbucket" / "default_world.json").read_text())

Call = dict[str, Any]


def account(name: str) -> dict[str, Any]:
    """What the simulator's world says of one of its people."""
    return WORLD["accounts"][name]


def uuid_of(name: str) -> str:
    """Without braces."""
    return account(name)["uuid"].strip("{}")


def workspace_uuid(slug: str) -> str:
    """Without braces."""
    return next(w["uuid"] for w in WORLD["workspaces"] if w["slug"] == slug).strip("{}")


def repository_uuid(workspace: str, slug: str) -> str:
    """Without braces."""
    space = next(w for w in WORLD["workspaces"] if w["slug"] == workspace)
    return next(r["uuid"] for r in space["repositories"] if r["slug"] == slug).strip("{}")


class Simulator:
    def __init__(self, directory: Path, *arguments: str, scheme: str = "http") -> None:
        self._directory = directory
        self._arguments = arguments
        self._scheme = scheme
        self._consumers: dict[str, dict[str, Any]] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    # -- life

    def start(self) -> "Simulator":
        port_file = self._directory / "simulator.port"
        with open(self._directory / "simulator.out", "wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-B", str(PROGRAM), "--port-file", str(port_file), *self._arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 20
        while not port_file.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the simulator did not start:\n{self.output()}")
            time.sleep(0.02)
        self.port = int(port_file.read_text())
        return self

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def output(self) -> str:
        return (self._directory / "simulator.out").read_text(errors="replace")

    # -- addresses

    @property
    def origin(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def authorize_url(self) -> str:
        return self.origin + "/site/oauth2/authorize"

    @property
    def token_url(self) -> str:
        return self.origin + "/site/oauth2/access_token"

    @property
    def api_url(self) -> str:
        return self.origin + "/2.0"

    # -- control

    def control(self, method: str, path: str, body: Any = None) -> Any:
        if self._scheme == "https":
            import ssl
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=20, context=ssl._create_unverified_context())
        else:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, "/_control/" + path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            value = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{method} /_control/{path}: {value}")
        return value

    def reset(self) -> None:
        """Back to the seed; consumers that servers use stay known."""
        self.control("POST", "reset")
        for consumer in self._consumers.values():
            self.control("POST", "consumers", consumer)

    def register(self, key: str, secret: str, callback_url: str, **more: Any) -> None:
        """Make a consumer known, also after every reset."""
        self._consumers[key] = {"key": key, "secret": secret, "callback_url": callback_url, **more}
        self.control("POST", "consumers", self._consumers[key])

    def forget_consumers(self, keys: Iterable[str]) -> None:
        """The next reset forgets them; each that is known makes every reset longer."""
        for key in keys:
            self._consumers.pop(key, None)

    def change_consumer(self, key: str, **changes: Any) -> None:
        """Until the next reset."""
        self.control("POST", "consumers", {**self._consumers[key], **changes})

    def fault(self, route: str, **effect: Any) -> None:
        self.control("POST", "faults", {"route": route, **effect})

    def clear_faults(self) -> None:
        self.control("DELETE", "faults")

    def settings(self, **changes: Any) -> None:
        self.control("POST", "settings", changes)

    def change_account(self, name: str, **changes: Any) -> None:
        self.control("POST", "accounts/" + name, changes)

    def set_membership(self, workspace: str, name: str, permission: str | None) -> None:
        self.control("POST", "memberships", {"workspace": workspace, "account": name, "permission": permission})

    def end_tokens(self, which: str, **more: Any) -> None:
        """which: access, refresh or all."""
        self.control("POST", "tokens", {"expire": which, **more})

    def advance_clock(self, seconds: float) -> None:
        self.control("POST", "clock", {"advance": seconds})

    # -- what was asked

    def calls(self, route: str | None = None) -> list[Call]:
        """Calls of API and token endpoint, or of one route."""
        if route:
            return self.control("GET", "calls?" + urlencode({"route": route}))["calls"]
        return [call for call in self.all_calls() if call["in_flight"] is not None]

    def all_calls(self) -> list[Call]:
        """Also those of pages for browsers, and of paths that are not there."""
        return self.control("GET", "calls")["calls"]

    def forget_calls(self) -> None:
        self.control("DELETE", "calls")

    def asked(self) -> list[str]:
        """Calls of API and token endpoint in short: 'token', 'user', 'emails', 'permission acme'."""
        return [short_name(call) for call in self.calls()]

    def secrets(self) -> set[str]:
        """Every code, token and secret since the reset."""
        lists = [value for value in self.control("GET", "secrets").values() if isinstance(value, list)]
        return {secret for values in lists for secret in values}


def short_name(call: Call) -> str:
    path = call["path"]
    if path == "/site/oauth2/access_token":
        return "refresh" if call["grant_type"] == "refresh_token" else "token"
    words = path.removeprefix("/2.0/").split("/")
    if words == ["user"]:
        return "user"
    if words == ["user", "emails"]:
        return "emails"
    if words[:2] == ["user", "workspaces"] and words[3:] == ["permission"]:
        return "permission " + words[2].lower()
    return path


def permission_route(workspace: str) -> str:
    """The route of the question for a role in one workspace, for faults and calls."""
    return f"/2.0/user/workspaces/{quote(workspace)}/permission"
