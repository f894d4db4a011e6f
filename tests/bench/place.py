"""A private httpd for measuring: few modules, no logging of requests, one site.

It stands on the harness of the httpd tests for what is the same: where httpd is, free ports,
the simulator, a browser that signs in.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Iterable, Iterator, Mapping, Sequence

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "httpd"))

from harness import caches, config  # noqa: E402
from harness.client import Answer, Browser  # noqa: E402
from harness.server import web_user  # noqa: E402
from harness.simulator import Simulator  # noqa: E402

MODULES = ("authn_core", "authz_core", "authz_user", "alias", "mime", "dir")
WORKSPACE, PERSON = "acme", "mark"
PAGE = "<!DOCTYPE html><html lang=en><title>Page</title>" + "<p>A page of one kilobyte, as many are.</p>" * 22 + "</html>\n"
# As little as a page load in a window has: the harder measure, since what a request costs anyway is
# least. And what a browser really sends.
LEAN_HEADERS = {"User-Agent": "Mozilla/5.0", "Accept": "text/html"}
BROWSER_HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5", "Accept-Encoding": "gzip, deflate",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "none", "Sec-Fetch-User": "?1",
}
OPEN, TEAM, REDIRECT, ANY = "/open/page.html", "/team/page.html", "/away/page.html", "/any/page.html"
# Open to all, but by a rule of its own: what httpd itself takes for a place that has rules.
RULED = "/ruled/page.html"
SITE = f"""Alias /open "${{CONTENT}}"
Alias /team "${{CONTENT}}"
Alias /any "${{CONTENT}}"
Alias /ruled "${{CONTENT}}"
Redirect 302 /away "http://localhost/somewhere/else"
<Location /team>
    AuthType Bitbucket
    AuthName "Measured"
    Require bitbucket-workspace {WORKSPACE}
</Location>
<Location /ruled>
    Require all granted
</Location>
<Location /any>
    AuthType Bitbucket
    AuthName "Measured"
    Require valid-user
</Location>
"""


def end_orderly() -> None:
    """Let a signal that asks for the end be an exception, so that all that was started ends."""
    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)


class Unavailable(Exception):
    """What was to be measured cannot be here; the text says why."""


@dataclass
class Httpd:
    """One httpd of its own. `main` is its part of the configuration before the site, `site` the
    inside of its virtual host, `wrapper` a program that runs it, `options` more arguments.
    module is None for one without the module under test. Where processes have one thread each
    (mpm prefork), there are as many processes as else there are threads."""

    site: str
    main: str = ""
    modules: Sequence[str] = ()
    mpm: str = "event"
    module: Path | None = None
    wrapper: Sequence[str] = ()
    options: Sequence[str] = ("-DFOREGROUND",)
    threads: int = 25
    start_seconds: int = 30
    name: str = "localhost"
    port: int = field(default_factory=config.free_port)
    root: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="abb-bench-")))
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.root.chmod(0o755)
        for directory in ("conf", "logs", "run", "content", "output"):
            (self.root / directory).mkdir(exist_ok=True)
        (self.root / "output").chmod(0o777)
        (self.root / "conf" / "mime.types").write_text("text/html html\n")
        (self.root / "content" / "page.html").write_text(PAGE)

    # -- configuration

    def _load(self) -> str:
        lines = []
        for name in (f"mpm_{self.mpm}", *MODULES, *self.modules):
            file = config.modules_directory() / f"mod_{name}.so"
            if not file.exists():
                raise Unavailable(f"httpd has no mod_{name}")
            lines.append(f'LoadModule {name}_module "{file}"')
        if self.module:
            lines.append(f'LoadModule auth_bitbucket_module "{self.module}"')
        return "\n".join(lines)

    @property
    def workers(self) -> int:
        """How many requests can be worked on at once."""
        return 2 * self.threads

    def _processes(self) -> str:
        if self.mpm == "prefork":
            return f"""StartServers 20
ServerLimit {self.workers}
MinSpareServers 1
MaxSpareServers {self.workers}"""
        return f"""StartServers 2
ServerLimit 2
ThreadsPerChild {self.threads}
ThreadLimit {self.threads}
MinSpareThreads 1
MaxSpareThreads {self.workers}"""

    def text(self) -> str:
        user = web_user()
        as_user = f"User {user}\nGroup {user}" if user else ""
        return f"""ServerRoot "{self.root}"
DefaultRuntimeDir "{self.root}/run"
PidFile run/httpd.pid
ServerName {self.name}
{self._load()}
{as_user}
{self._processes()}
MaxRequestWorkers {self.workers}
MaxConnectionsPerChild 0
MaxKeepAliveRequests 0
KeepAliveTimeout 60
Define CONTENT "{self.root}/content"
DocumentRoot "{self.root}/content"
TypesConfig conf/mime.types
ErrorLog logs/error.log
LogLevel warn
<Directory />
    AllowOverride None
    Require all granted
</Directory>
Listen 127.0.0.1:{self.port}
{self.main}
<VirtualHost 127.0.0.1:{self.port}>
ServerName {self.name}
{self.site}
</VirtualHost>
"""

    @property
    def origin(self) -> str:
        return f"http://{self.name}:{self.port}"

    def url(self, path: str) -> str:
        return self.origin + path

    # -- life

    def _command(self, *options: str) -> list[str]:
        return [str(config.httpd_program()), "-d", str(self.root), "-f", str(self.root / "conf" / "httpd.conf"), *options]

    def start(self) -> "Httpd":
        """Errors: Unavailable when httpd does not take the configuration."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("BITBUCKET_")}
        environment["LC_ALL"] = "C.UTF-8"
        try:
            (self.root / "conf" / "httpd.conf").write_text(self.text())
            self._check(environment)
            with open(self.root / "logs" / "console", "ab") as console:
                self.process = subprocess.Popen([*self.wrapper, *self._command(*self.options)], env=environment,
                                                stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                                                start_new_session=True)
            self._await_start()
        except BaseException:
            self.end()
            raise
        return self

    def _check(self, environment: Mapping[str, str]) -> None:
        check = subprocess.run(self._command("-t"), env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                               text=True, timeout=60)
        if check.returncode:
            reason = re.sub(r"^AH\d+: Syntax error on line \d+ of \S+ ", "", " ".join(check.stderr.split()))
            reason = re.sub(r"/[^ ']*/", "", reason)
            raise Unavailable("httpd refuses: " + reason)

    def _await_start(self) -> None:
        deadline = time.monotonic() + self.start_seconds
        while not self._answers():
            if self.process and self.process.poll() is not None:
                raise RuntimeError("httpd ended:\n" + self.said())
            if time.monotonic() > deadline:
                raise RuntimeError("httpd did not start in time:\n" + self.said())
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as wire:
                wire.settimeout(self.start_seconds)
                wire.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return bool(wire.recv(1))
        except OSError:
            return False

    def said(self) -> str:
        return "\n".join(file.read_text(errors="replace")[-4000:] for file in sorted((self.root / "logs").iterdir()))

    def stop(self) -> None:
        """Stop it and all that it started; they share a process group of their own."""
        if self.process:
            if self.process.poll() is None:
                self.process.terminate()
                try:
                    self.process.wait(20)
                except subprocess.TimeoutExpired:
                    pass
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()
            self.process = None

    def end(self) -> None:
        """Stop it and remove its directory."""
        self.stop()
        if not os.environ.get("ABB_KEEP_LOGS"):
            shutil.rmtree(self.root, ignore_errors=True)

    def __enter__(self) -> "Httpd":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.end()


@contextmanager
def cache(kind: str) -> Iterator[caches.Cache]:
    """A server for sessions, "redis" or "memcache", in memory only. Errors: Unavailable."""
    if not shutil.which(caches.KINDS[kind].program):
        raise Unavailable(f"{caches.KINDS[kind].program} is not installed")
    with tempfile.TemporaryDirectory(prefix="abb-bench-cache-", ignore_cleanup_errors=True) as directory:
        server = caches.KINDS[kind](Path(directory))
        try:
            yield server.start()
        finally:
            server.stop()


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory that httpd can read whoever it is, as long as the with block lasts."""
    with tempfile.TemporaryDirectory(prefix="abb-bench-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


# -- the module's own site

class Bitbucket:
    """The simulator of Bitbucket, as long as the with block lasts."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="abb-bench-simulator-"))
        self.simulator = Simulator(self.directory)

    def __enter__(self) -> Simulator:
        return self.simulator.start()

    def __exit__(self, *_: object) -> None:
        self.simulator.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


CLIENT_ID, CLIENT_SECRET = "measured-consumer", "measured-consumer-secret"


def protected(simulator: Simulator, main: str = "", **more: object) -> Httpd:
    """An httpd with the module under test and the site above."""
    httpd = Httpd(site=f"AuthBitbucketClientID {CLIENT_ID}\nAuthBitbucketClientSecret {CLIENT_SECRET}\n{SITE}",
                  main=config.bitbucket_text(simulator.authorize_url, simulator.token_url, simulator.api_url) + main,
                  module=config.module_under_test(), **more)  # type: ignore[arg-type]
    simulator.register(CLIENT_ID, CLIENT_SECRET, httpd.url("/bitbucket/callback"), scopes=["account", "email"])
    return httpd


def sign_in(httpd: Httpd) -> str:
    """Returns the value of the Cookie header of a browser that has signed in."""
    browser = Browser()
    answer = browser.sign_in(httpd.url(TEAM), PERSON)
    if answer.status != 200:
        raise RuntimeError(f"the sign-in failed: {answer!r}\n{httpd.said()}")
    return f"bitbucket_session={browser.session_value()}"


# -- requests one after the other over one connection

def request_bytes(httpd: Httpd, path: str, cookie: str | None = None, headers: Mapping[str, str] = LEAN_HEADERS) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {httpd.name}:{httpd.port}", *(f"{k}: {v}" for k, v in headers.items())]
    if cookie:
        lines.append(f"Cookie: {cookie}")
    return "\r\n".join([*lines, "", ""]).encode()


def _read_answer(wire: socket.socket) -> int:
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        if not (piece := wire.recv(65536)):
            raise RuntimeError("httpd closed the connection")
        data += piece
    length = 0
    for line in data[:end].split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    left = end + 4 + length - len(data)
    while left > 0:
        left -= len(wire.recv(65536))
    return int(data[9:12])


def repeat(httpd: Httpd, requests: Iterable[bytes], count: int, expected: int, seconds: float = 300) -> None:
    """Send so many requests, each after the answer to the one before: a list in turns from its
    beginning, or what an iterator has next."""
    coming = requests if isinstance(requests, Iterator) else itertools.cycle(requests)
    with socket.create_connection(("127.0.0.1", httpd.port), 30) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.settimeout(seconds)
        for request in itertools.islice(coming, count):
            wire.sendall(request)
            if (status := _read_answer(wire)) != expected:
                raise RuntimeError(f"{status} instead of {expected}:\n{request.decode()}\n{httpd.said()}")
