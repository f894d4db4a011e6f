"""That endurance.py sees what grows, and that it runs; scripts/races has it run for long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from endurance import Count, Limits, growth

PROGRAM = Path(__file__).with_name("endurance.py")


def held(parent_kb: int = 1000, child_kb: int = 4000, descriptors: int = 7, semaphores: int = 0) -> Count:
    return Count({"parent: memory of its own, kB": parent_kb, "parent: file descriptors": descriptors,
                  "child: memory of its own, kB": child_kb}, {"ipcs sem": [str(number) for number in range(semaphores)]})


def test_noise_is_no_growth():
    limits = Limits()
    assert growth("", held(), held(1000 + limits.parent_kb, 4000 + limits.child_kb), limits) == []


@pytest.mark.parametrize("after, what", [
    (held(parent_kb=1000 + Limits.parent_kb + 1), "parent: memory"), (held(child_kb=4000 + Limits.child_kb + 1), "child: memory"),
    (held(descriptors=8), "file descriptors"), (held(semaphores=1), "ipcs sem")])
def test_growth_is_told(after, what):
    faults = growth("", held(), after, Limits())
    assert len(faults) == 1 and what in faults[0]


def test_sign_ins_fill_a_table_that_ends():
    pages = Limits.child_kb + 100 * Limits.page_kb
    assert growth("", held(), held(child_kb=4000 + pages), Limits(), 100) == []
    assert growth("", held(), held(child_kb=4000 + pages + 1), Limits(), 100)
    assert growth("", held(), held(child_kb=4000 + Limits.child_kb + 8193), Limits(), 1_000_000)


@pytest.mark.alone
@pytest.mark.one_mpm
def test_a_short_run(mpm):
    """On event, whatever else is tested."""
    done = subprocess.run([sys.executable, "-B", str(PROGRAM), "--early", "2", "--gracefuls", "3", "--requests", "200"],
                          env=os.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=240)
    assert done.returncode == 0 and "Nothing has grown." in done.stdout, done.stdout
