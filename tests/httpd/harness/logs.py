"""What httpd wrote, what a test announced, and what must never be written.

A line of the module at warning or above that no test announced is a failure; so is a
crash of a child, a line of the module without its tag, and any secret in any log.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterable

from . import sanitizers
from .server import Server

OUR_LINE = re.compile(r"\[auth_bitbucket:(?P<level>[a-z0-9]+)\] (?P<rest>.*)")
TAG = re.compile(r"\bABB\d{4}\b")
# Under valgrind a child takes longer to end than httpd waits without a word.
SLOW_END = "" if sanitizers.KIND == "memcheck" else "AH00045|"
CRASH = re.compile(SLOW_END + r"AH00050|AH00051|AH00052|AH00060|exit signal|Segmentation|free\(\)|double free|corrupted")
LOUD = ("warn", "error", "crit", "alert", "emerg")
# So many first characters of a long secret give it away.
PREFIX = 16


@dataclass
class Line:
    text: str
    level: str
    tag: str | None


@dataclass
class Announced:
    tag: str
    text: str
    required: bool
    seen: int = 0


@dataclass
class LogBook:
    """The logs of all servers during one test."""

    servers: list[Server] = field(default_factory=list)
    _offsets: dict[Path, int] = field(default_factory=dict)
    _forgiven: list[str] = field(default_factory=list)
    _announced: list[Announced] = field(default_factory=list)
    _secrets: set[str] = field(default_factory=set)

    # -- what a test says

    def expect(self, tag: str, text: str = "") -> None:
        """Lines at warning or above with this tag, holding a text, will be there."""
        self._announced.append(Announced(tag, text, True))

    def allow(self, tag: str, text: str = "") -> None:
        """They may be there."""
        self._announced.append(Announced(tag, text, False))

    def forgive(self, text: str) -> None:
        """Lines about a child's death that hold this are the test's own doing."""
        self._forgiven.append(text)

    def remember(self, secret: str) -> None:
        """No log may hold this."""
        if len(secret) >= 8:
            self._secrets.add(secret)

    # -- what was written

    def watch(self, server: Server) -> None:
        """Look at what this server writes from now on."""
        if server not in self.servers:
            self.servers.append(server)
            for path in server.log_files():
                self._offsets[path] = path.stat().st_size
            for host in server.hosts:
                self.remember(host.client_secret)
                pair = f"{host.client_id}:{host.client_secret}"
                self.remember(base64.b64encode(pair.encode()).decode())

    def written(self) -> Iterable[tuple[Path, str]]:
        for server in self.servers:
            for path in server.log_files():
                with open(path, "rb") as file:
                    file.seek(self._offsets.get(path, 0))
                    yield path, file.read().decode("utf-8", "replace")

    def lines(self, tag: str | None = None, level: str | None = None) -> list[Line]:
        """The module's lines of this test."""
        found = []
        for _, text in self.written():
            for match in OUR_LINE.finditer(text):
                mark = TAG.search(match["rest"])
                found.append(Line(match["rest"], match["level"], mark.group() if mark else None))
        return [line for line in found if (tag is None or line.tag == tag) and (level is None or line.level == level)]

    def tail(self, count: int = 60) -> str:
        """The last lines of the error logs, for people."""
        lines = [line for path, text in self.written() if path.name != "access.log" for line in text.splitlines()]
        return "\n".join(lines[-count:])

    # -- judgement

    def problems(self, secrets: Iterable[str] = ()) -> list[str]:
        found = [*self._unannounced(), *self._untagged(), *self._leaks(secrets)]
        found += [f"announced, but not logged: {a.tag} {a.text}" for a in self._announced if a.required and not a.seen]
        return found + self.deaths()

    def deaths(self) -> list[str]:
        """Crashes, and what the sanitizers found."""
        return [*self._crashes(), *(f"sanitizer report:\n{path.read_text(errors='replace')}" for server in self.servers
                                    for path in server.sanitizer_reports())]

    def _unannounced(self) -> list[str]:
        found = []
        for line in self.lines():
            if line.level not in LOUD:
                continue
            matching = [a for a in self._announced if a.tag == line.tag and a.text in line.text]
            for announced in matching:
                announced.seen += 1
            if not matching:
                found.append(f"not announced: [{line.level}] {line.text}")
        return found

    def _untagged(self) -> list[str]:
        return [f"without a tag: {line.text}" for line in self.lines()
                if line.tag is None and not line.level.startswith("trace")]

    def _crashes(self) -> list[str]:
        return [f"crash in {path.name}: {line}" for path, text in self.written() for line in text.splitlines()
                if CRASH.search(line) and not any(forgiven in line for forgiven in self._forgiven)]

    def _leaks(self, more: Iterable[str]) -> list[str]:
        secrets = {secret[:PREFIX] if len(secret) > PREFIX + 8 else secret for secret in {*self._secrets, *more}}
        written = list(self.written())
        return [f"secret {secret[:4]}... of {len(secret)} characters in {path.name}: "
                f"{next(line for line in text.splitlines() if secret in line)[:300]}"
                for secret in secrets for path, text in written if secret in text]
