"""The packages, built once, and the harness of tests/httpd."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "httpd"))
pytest.register_assert_rewrite("harness")

from harness.fixtures import (browser, log_watch, logs, new_browser, pytest_runtest_makereport, scratch, shared_simulator,  # noqa: E402,F401
                              simulator)
from packages import Source  # noqa: E402


@pytest.fixture(scope="session")
def place():
    """A directory that anybody may look into: www-data has to."""
    directory = Path(tempfile.mkdtemp(prefix="abb-packaging-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def source(place):
    """Built, as source and as packages."""
    source = Source(place)
    source.build()
    return source
