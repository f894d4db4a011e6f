"""A Chromium in front of the harness of tests/httpd: one server, one driver for all tests,
a clean browser for each."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "httpd"))
pytest.register_assert_rewrite("harness", "person")

from harness.config import VirtualHost, place  # noqa: E402
from harness.fixtures import (lasting, log_watch, logs, pytest_runtest_makereport, scratch, shared_simulator, simulator,  # noqa: E402,F401
                              start_server)
from harness.server import Server  # noqa: E402
from person import Person, start_chromium  # noqa: E402

PLACES = "\n".join([place("any", "Require valid-user"), place("team", "Require bitbucket-workspace acme"),
                    place("owners", "Require bitbucket-workspace acme:owner"), place("globex", "Require bitbucket-workspace globex")])


@pytest.fixture(scope="session")
def server(shared_simulator):
    with lasting(Server([VirtualHost(PLACES)], shared_simulator, "event")) as server:
        yield server


@pytest.fixture(scope="session")
def host(server):
    """A site to visit."""
    return server.hosts[0]


@contextmanager
def chromium_with(**more):
    profile = tempfile.mkdtemp(prefix="abb-chromium-")
    driver = start_chromium(profile, **more)
    try:
        yield driver
    finally:
        driver.quit()
        shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture(scope="session")
def chromium():
    with chromium_with() as driver:
        yield driver


@pytest.fixture(scope="module")
def chromium_without_cookies():
    with chromium_with(blocks_cookies=True) as driver:
        yield driver


@contextmanager
def somebody_at(driver, host, simulator, log_watch):
    """With a clean browser. Errors in its console fail the test."""
    somebody = Person(driver, host, simulator.origin)
    somebody.start_clean()
    yield somebody
    for secret in somebody.cookies_seen():
        log_watch.remember(secret)
    problems = somebody.console_errors()
    assert not problems, "\n".join(problems)


@pytest.fixture
def person(chromium, host, simulator, log_watch):
    with somebody_at(chromium, host, simulator, log_watch) as somebody:
        yield somebody


@pytest.fixture
def person_without_cookies(chromium_without_cookies, host, simulator, log_watch):
    with somebody_at(chromium_without_cookies, host, simulator, log_watch) as somebody:
        yield somebody


def save_screenshot(driver, name: str) -> None:
    """If ABB_SCREENSHOTS names a directory."""
    directory = os.environ.get("ABB_SCREENSHOTS")
    if directory:
        Path(directory).mkdir(parents=True, exist_ok=True)
        driver.save_screenshot(str(Path(directory) / f"{name}.png"))


@pytest.fixture
def screenshot(chromium):
    """Save what is seen."""
    return lambda name: save_screenshot(chromium, name)


@pytest.fixture
def screenshot_without_cookies(chromium_without_cookies):
    return lambda name: save_screenshot(chromium_without_cookies, name)
