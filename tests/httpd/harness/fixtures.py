"""The harness as pytest fixtures. A conftest.py imports what it uses by name."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from . import config
from .client import Browser
from .clock import Clock
from .logs import LogBook
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
        book.watch(server)
    yield book
    problems = book.problems(shared_simulator.secrets())
    for server in book._servers:
        if server not in running:
            server.remove()
    assert not problems, "\n".join(problems)


@pytest.fixture
def logs(log_watch: LogBook) -> LogBook:
    return log_watch


# -- servers

@pytest.fixture(scope="session")
def site(mpm: str, shared_simulator: Simulator) -> Iterator[Site]:
    """The standard site, one server per MPM for all tests that change nothing in it."""
    site = standard_site(shared_simulator, mpm)
    site.server.start()
    running.append(site.server)
    yield site
    running.remove(site.server)
    try:
        site.server.stop()
    finally:
        site.server.remove()


@pytest.fixture
def start_server(log_watch: LogBook, shared_simulator: Simulator) -> Iterator[Callable[..., Server]]:
    """Start a server of the test's own: start_server(host, ..., mpm="event", main="...")."""
    started: list[Server] = []

    def start(*hosts: config.VirtualHost, **more: Any) -> Server:
        server = make(*hosts, **more)
        return server.start()

    def make(*hosts: config.VirtualHost, **more: Any) -> Server:
        server = Server(hosts, more.pop("simulator", shared_simulator), **{"mpm": wanted_mpms()[0], **more})
        started.append(server)
        log_watch.watch(server)
        return server

    start.without_starting = make  # type: ignore[attr-defined]
    yield start
    for server in started:
        server.stop()


@pytest.fixture
def clock(tmp_path: Path) -> Iterator[Clock]:
    """A clock to hand to start_server."""
    directory = Path(tempfile.mkdtemp(prefix="abb-clock-"))
    directory.chmod(0o755)
    yield Clock(directory)
    shutil.rmtree(directory, ignore_errors=True)


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
    if report.failed and book is not None:
        lines = [line for path, text in book._written() if path.name != "access.log" for line in text.splitlines()]
        report.sections.append(("httpd's logs during the test", "\n".join(lines[-60:])))
