"""scripts/fuzz, with a driver that only waits: what happens when somebody ends it."""

import os
import pathlib
import signal
import subprocess
import time

import pytest

SCRIPT = (pathlib.Path(__file__).parents[1] / "fuzz").read_text()
# The functions, and what runs all targets.
FUNCTIONS = SCRIPT[SCRIPT.index("# --- One target"):SCRIPT.index("while [ $# -gt 0 ]")]
RUN = SCRIPT[SCRIPT.rindex("code=0\n"):]
# Named without an argument it lists its targets; else it ends as libFuzzer does, by SIGUSR1 in good order.
DRIVER = """#!/bin/bash
if [ $# -eq 0 ]; then printf 'Targets:\\none 10\\ntwo 10\\nthree 10\\n'; exit 1; fi
trap 'exit 72' TERM INT
trap 'exit 0' USR1
echo $$ >>"$(dirname "$0")/started"
while :; do sleep 0.05; done
"""


def is_alive(pid):
    try:
        return "\nState:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


@pytest.fixture
def fuzz(tmp_path):
    """The running script, and the numbers of the drivers that it has started."""
    driver = tmp_path / "driver"
    driver.write_text(DRIVER)
    driver.chmod(0o755)
    started = tmp_path / "started"
    started.touch()
    settings = [f"{name}={tmp_path}/{name}" for name in ("driver", "work", "corpus", "replies", "top")]
    script = "\n".join(["set -euo pipefail", *settings, "longer='' seconds=600 keeps=0 chosen=()", "say() { echo \"$@\"; }",
                        "nproc() { echo 2; }", FUNCTIONS, RUN])
    process = subprocess.Popen(["bash", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True, start_new_session=True)
    yield process, lambda: [int(pid) for pid in started.read_text().split()]
    for pid in (process.pid, *(int(pid) for pid in started.read_text().split())):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_an_end_ends_all_and_finds_nothing(fuzz, name):
    process, started = fuzz
    deadline = time.monotonic() + 20
    while len(started()) < 2:
        assert time.monotonic() < deadline, "the drivers do not start"
        time.sleep(0.05)
    os.kill(process.pid, signal.Signals[name])
    said, _ = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.Signals[name], said
    assert "FOUND" not in said and "Ended early" in said
    assert [pid for pid in started() if is_alive(pid)] == [] and len(started()) == 2, "nor has a third begun"
