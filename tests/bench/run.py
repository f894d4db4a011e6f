#!/usr/bin/python3
"""The benchmark: `make bench`, or `make bench BENCH=quick` for a first look.

Measures the session store alone and in a real httpd, prints one table with what is asked and
whether it is so, and writes all figures to bench.json, from which report.py makes the tables
and plots of docs/performance.md.

usage: run.py --build DIR [full|quick|smoke] [--only PART]...
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Sequence

import instructions
import place
import request_bench
import series
import verdicts

@dataclass
class Extent:
    """How thoroughly to measure. A quick run gives a first impression; one for smoke shows that
    the benchmark works, and its figures mean nothing."""

    name: str
    # What store_bench is told.
    store: Sequence[str]
    requests: series.Extent
    counted_requests: int
    counted_lookups: int
    lookup_sizes: Sequence[int]


EXTENTS = {extent.name: extent for extent in (
    Extent("full", [], series.FULL, 1000, 20_000, (1_000, 10_000, 100_000, 1_000_000)),
    Extent("quick", ["quick"], series.QUICK, 200, 2_000, (1_000, 100_000)),
    Extent("smoke", ["quick"], series.SMOKE, 20, 1_000, (1_000, 2_000)))}
STORE_MEASURES = ("lookup", "apart", "processes", "full", "memory", "import", "recovery")
Figures = dict[str, Any]


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


# -- the machine

def _first(command: list[str]) -> str:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().split("\n")[0] if done.returncode == 0 else ""


def _value(file: str, name: str) -> str:
    for line in Path(file).read_text().splitlines():
        key, _, value = line.partition(":" if ":" in line else "=")
        if key.strip() == name:
            return value.strip().strip('"')
    return ""


def machine() -> Figures:
    source = Path(__file__).resolve().parents[2]
    return {
        "processor": _value("/proc/cpuinfo", "model name") or platform.machine(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": _value("/etc/os-release", "PRETTY_NAME"),
        "kernel": platform.release().split("-")[0],
        "httpd": _first([str(place.config.httpd_program()), "-v"]).removeprefix("Server version: "),
        "valgrind": _first(["valgrind", "--version"]),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": _first(["git", "-C", str(source), "rev-parse", "--short", "HEAD"]),
        # Of others: who measures on a busy machine should know.
        "load_before": round(os.getloadavg()[0], 2),
    }


# -- the parts

def store(build: Path, extent: Extent) -> list[Figures]:
    """Each measure in a process of its own, so that none inherits another's memory."""
    found: list[Figures] = []
    for measure in STORE_MEASURES:
        say(f"store: {measure}")
        done = subprocess.run([str(build / "tests" / "bench" / "store_bench"), measure, *extent.store],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=900)
        if done.returncode:
            raise RuntimeError(f"store_bench {measure} ended with status {done.returncode}")
        found += [json.loads(line) for line in done.stdout.splitlines()]
    return found


def _or_skipped(measure: Callable[[], Any]) -> Any:
    try:
        return measure()
    except place.Unavailable as reason:
        return {"skipped": str(reason)}


def count_requests(build: Path, extent: Extent) -> Any:
    say("instructions of a request")
    return _or_skipped(lambda: instructions.measure(build, extent.counted_requests))


def count_lookups(build: Path, extent: Extent) -> Any:
    say("instructions of a lookup")
    return _or_skipped(lambda: instructions.measure_lookups(build, extent.lookup_sizes, extent.counted_lookups))


def requests(build: Path, extent: Extent) -> Figures:
    return request_bench.measure(build, extent.requests, say=say)


PARTS: dict[str, tuple[Callable[[Path, Extent], Any], Any]] = {
    # What stands for a part that was not wanted.
    "store": (store, []),
    "lookup_instructions": (count_lookups, []),
    "instructions": (count_requests, {"skipped": "not wanted in this run"}),
    "requests": (requests, {}),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--build", default=".", help="where the module was built")
    parser.add_argument("--only", action="append", default=[], choices=list(PARTS))
    parser.add_argument("extent", nargs="?", default="full", choices=list(EXTENTS))
    options = parser.parse_args()
    place.end_orderly()
    build, extent = Path(options.build).resolve(), EXTENTS[options.extent]
    os.environ["ABB_BUILD_DIR"] = str(build)
    figures: Figures = {"format": 1, "extent": extent.name, "machine": machine()}
    for name, (measure, absent) in PARTS.items():
        figures[name] = measure(build, extent) if not options.only or name in options.only else absent
    file = build / "bench.json"
    file.write_text(json.dumps(figures, indent=1) + "\n")
    found = verdicts.rows(figures)
    verdicts.print_table(found)
    missed = [row for row in found if row.good is False]
    print(f"\n{sum(row.good is True for row in found)} good, {len(missed)} missed; all figures are in {file}")
    if verdicts.is_busy(figures):
        print(verdicts.BUSY)
    if extent.name != "full":
        print(f"This was a {extent.name} run: it is short, and its figures are no measurement.")
    # A figure that is missed is a result, not a failure of the benchmark.
    return 0


if __name__ == "__main__":
    sys.exit(main())
