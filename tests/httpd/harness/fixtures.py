"""The harness as pytest fixtures. A conftest.py imports what it uses by name."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from . import config
from .client import Browser
from .clock import Clock
from .logs import LogBook
from .recipes import Paster
from .server import Server
from .simulator import Simulator
from .sites import Site, standard_site

running: list[Server] = []


# -- MPMs

def wanted_mpms() -> list[str]:
    """All, or those that ABB_MPMS names."""
    named = os.environ.get("ABB_MPMS", "").replace(",", " ").split()
    return [mpm for mpm in config.MPMS if mpm in named] if named else list(config.MPMS)


def pytest_generate_tests(metafunc: Any) -> None:
    """Tests run on every MPM unless they are marked one_mpm."""
    if "mpm" in metafunc.fixturenames:
        mpms = wanted_mpms()
        if metafunc.definition.get_closest_marker("one_mpm"):
            mpms = mpms[:1]
        metafunc.parametrize("mpm", mpms, indirect=True, scope="session")


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """A test that is marked only_mpms("prefork") is there for no other."""
    marked = [(item, item.get_closest_marker("only_mpms")) for item in items]
    others = [item for item, marker in marked if marker and item.callspec.params["mpm"] not in marker.args]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


@pytest.fixture(scope="session")
def mpm(request: Any) -> str:
    return request.param


# -- Bitbucket

@pytest.fixture(scope="session")
def scratch() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="abb-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def shared_simulator(scratch: Path) -> Iterator[Simulator]:
    simulator = Simulator(scratch).start()
    yield simulator
    simulator.stop()


@pytest.fixture
def simulator(shared_simulator: Simulator, log_watch: LogBook) -> Simulator:
    """Reset before each test by log_watch."""
    return shared_simulator


# -- logs

@pytest.fixture(autouse=True)
def log_watch(shared_simulator: Simulator) -> Iterator[LogBook]:
    """Judges the logs of every test; set up first and torn down last."""
    shared_simulator.reset()
    book = LogBook()
    for server in running:
        server.let_time_pass()
        book.watch(server)
    yield book
    problems = book.problems(shared_simulator.secrets())
    last_lines = book.tail() if problems else ""
    for server in book.servers:
        if server not in running:
            server.remove()
    assert not problems, "\n".join([*problems, "", "The last lines of the logs:", last_lines])


@pytest.fixture
def logs(log_watch: LogBook) -> LogBook:
    return log_watch


# -- servers

@contextmanager
def lasting(server: Server) -> Iterator[Server]:
    """Run a server for more than one test. Set it up in a fixture of a wider scope than
    a test, so that log_watch knows of it. Errors: AssertionError when it dies at its end,
    which is in no test."""
    server.keep_clock()
    book = LogBook()
    # A browser keeps connections without a request, and a thread of httpd waits for each.
    book.forgive("still did not exit, sending a SIGTERM")
    try:
        running.append(server.start())
        yield server
    finally:
        if server in running:
            running.remove(server)
        book.watch(server)
        try:
            server.stop()
            deaths = book.deaths()
        finally:
            server.remove()
    assert not deaths, "\n".join(deaths)


@pytest.fixture(scope="session")
def site(mpm: str, shared_simulator: Simulator) -> Iterator[Site]:
    """The standard site, one server per MPM for all tests that change nothing in it."""
    site = standard_site(shared_simulator, mpm)
    with lasting(site.server):
        yield site


class ServerMaker:
    """Servers of one test's own. Keywords are those of Server; the MPM is the first of
    those wanted unless told."""

    def __init__(self, book: LogBook, simulator: Simulator) -> None:
        self._book = book
        self._simulator = simulator
        self._made: list[Server] = []

    def prepare(self, *hosts: config.VirtualHost, **more: Any) -> Server:
        server = Server(hosts, more.pop("simulator", self._simulator), **{"mpm": wanted_mpms()[0], **more})
        self._made.append(server)
        self._book.watch(server)
        return server

    def __call__(self, *hosts: config.VirtualHost, **more: Any) -> Server:
        return self.prepare(*hosts, **more).start()

    def stop_all(self) -> None:
        """Errors: RuntimeError when one ends badly; by then all have ended."""
        problems = []
        for server in self._made:
            try:
                server.stop()
            except RuntimeError as problem:
                problems.append(str(problem))
        if problems:
            raise RuntimeError("\n".join(problems))


@pytest.fixture
def start_server(log_watch: LogBook, shared_simulator: Simulator) -> Iterator[ServerMaker]:
    """Start a server of the test's own: start_server(host, ..., mpm="worker", main="...")."""
    maker = ServerMaker(log_watch, shared_simulator)
    yield maker
    maker.stop_all()


@pytest.fixture
def paste(request: Any, start_server: ServerMaker, mpm: str) -> Paster:
    """Runs what the test's mark names: @pytest.mark.recipe("cgi") or ("websocket", 1)."""
    return Paster(start_server, mpm, *request.node.get_closest_marker("recipe").args)


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """figure(what, value, unit): what a test has measured, for scripts/faults to print."""
    return lambda what, value, unit="": record_property("figure: " + what, f"{value:.6g} {unit}".strip())


@pytest.fixture
def clock(scratch: Path) -> Clock:
    """A clock that shows the real time, to hand to start_server."""
    clock = Clock(scratch)
    clock.set(0)
    return clock


# -- people

@pytest.fixture
def new_browser(log_watch: LogBook) -> Callable[[], Browser]:
    return lambda: Browser(log_watch.remember)


@pytest.fixture
def browser(new_browser: Callable[[], Browser]) -> Browser:
    return new_browser()


# -- reports

@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Any:
    """A failed test shows what httpd wrote."""
    outcome = yield
    report = outcome.get_result()
    book = getattr(item, "funcargs", {}).get("log_watch")
    if report.failed and report.when == "call" and book is not None:
        report.sections.append(("httpd's logs during the test", book.tail()))
