"""Fixtures of the tests against a real httpd; see harness/."""

import pytest

pytest.register_assert_rewrite("harness")

from harness.fixtures import (browser, clock, figure, log_watch, logs, mpm, new_browser, paste,  # noqa: E402,F401
                              pytest_collection_modifyitems, pytest_generate_tests, pytest_runtest_makereport, scratch,
                              shared_simulator, simulator, site, start_server)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "one_mpm: does not depend on the MPM and runs on one")
    config.addinivalue_line("markers", "only_mpms(name, ...): runs on these")
    config.addinivalue_line("markers", "recipe(page, number): runs a block of docs/recipes, the first unless told")
    config.addinivalue_line("markers", "alone: watches the clock or loads the machine, and runs beside no other test")
