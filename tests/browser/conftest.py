"""A Chromium in front of the harness of tests/httpd: one server, one driver for all tests,
a clean browser for each."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
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
def host(shared_simulator):
    """A site to visit."""
    host = VirtualHost(PLACES)
    with lasting(Server([host], shared_simulator, "event")):
        yield host


@pytest.fixture(scope="session")
def chromium():
    profile = tempfile.mkdtemp(prefix="abb-chromium-")
    driver = start_chromium(profile)
    yield driver
    driver.quit()
    shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture
def person(chromium, host, simulator, log_watch):
    """Somebody with a clean browser. Errors in the browser's console fail the test."""
    somebody = Person(chromium, host, simulator.origin)
    somebody.start_clean()
    yield somebody
    for secret in somebody.cookies_seen():
        log_watch.remember(secret)
    problems = somebody.console_errors()
    assert not problems, "\n".join(problems)


@pytest.fixture
def screenshot(person, request):
    """Save what is seen, if ABB_SCREENSHOTS names a directory."""
    def save(name: str) -> None:
        directory = os.environ.get("ABB_SCREENSHOTS")
        if directory:
            Path(directory).mkdir(parents=True, exist_ok=True)
            person.driver.save_screenshot(str(Path(directory) / f"{name}.png"))
    return save
