"""scripts/races: when a program counts as one in which nothing was found."""

import os
import pathlib
import subprocess

import pytest

SCRIPT = (pathlib.Path(__file__).parents[1] / "races").read_text()
# What judges one program.
JUDGE = SCRIPT[SCRIPT.index("findings="):SCRIPT.index("# ThreadSanitizer wants its own places")]


def judge(directory, kind, said, status):
    """What is said of a program that says this and ends like this, and whether something counts as found."""
    script = "\n".join(["set -euo pipefail", f"results={directory}", "code=0", JUDGE,
                        f"run_one {kind} it bash -c 'printf \"%s\" \"$SAID\"; exit {status}'", 'exit "$code"'])
    done = subprocess.run(["bash", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          env={**os.environ, "SAID": said})
    assert not done.stderr
    return done.stdout, done.returncode == 1


@pytest.mark.parametrize("kind, said, status", [
    ("unit", "1..2\nok 1 - a\nok 2 - b\n", 0), ("unit", "1..2\nok 1 - a\nnot ok 2 - b\n", 1),
    ("pytest", "..\n2 passed in 3.1s\n", 0), ("pytest", "F.\nFAILED tests/x.py::y\n1 failed, 1 passed in 3.1s\n", 1),
    ("program", "Nothing has grown.\n", 0)])
def test_nothing_found(tmp_path, kind, said, status):
    told, is_found = judge(tmp_path, kind, said, status)
    assert "nothing found" in told and not is_found
    assert ("1 tests failed" in told) == (status == 1)


@pytest.mark.parametrize("kind, said, status", [
    ("unit", "1..1\nok 1 - a\nWARNING: ThreadSanitizer: data race\n", 66), ("unit", "1..2\nok 1 - a\n", 139),
    ("unit", "1..2\nok 1 - a\n", 124), ("unit", "", 0), ("unit", "1..1\nok 1 # SKIP a\n", 0),
    ("unit", "1..1\nnot ok 1 - a\n", 1),
    # pytest: no tests, an error while it collects, an end by a signal, a wrong option, a fault of its own, all failed.
    ("pytest", "no tests ran in 0.1s\n", 5), ("pytest", "ERROR tests/x.py\n1 error in 0.1s\n", 2),
    ("pytest", "FAILED tests/x.py::y\n1 failed, 3 passed in 3.1s\n", 2), ("pytest", "ERROR: wrong\n", 4),
    ("pytest", "INTERNALERROR> x\n", 3), ("pytest", "FAILED tests/x.py::y\n1 failed in 3.1s\n", 1),
    ("pytest", "3 skipped in 0.1s\n", 0), ("pytest", "/usr/bin/python3: No module named pytest\n", 1),
    ("program", "FOUND:\nit has grown\n", 1)])
def test_found(tmp_path, kind, said, status):
    told, is_found = judge(tmp_path, kind, said, status)
    assert "FOUND" in told and is_found
