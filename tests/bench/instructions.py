#!/usr/bin/python3
"""Instructions in user mode that httpd spends on one request, counted by callgrind.

One httpd runs under valgrind as one process (-X). For each kind of request the difference of two
counts is taken, so that start and connection cancel out, and set against the same request for a
page that is not protected. Cookie and headers are the same for both.

usage: instructions.py [--build DIR] [--requests N] [--top N] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping, Sequence

import crowd
import place

WARM_UP = 100


@dataclass
class Kind:
    name: str
    title: str
    path: str
    # How many visitors' cookies come in turns.
    visitors: int
    status: int
    # The kind it is compared with, and the most that it may cost of it.
    base: str = ""
    limit: float = 0
    headers: Mapping[str, str] = field(default_factory=lambda: place.LEAN_HEADERS)


KINDS = [
    Kind("open", "open page, the cookie is sent", place.OPEN, 1, 200),
    Kind("ruled", "open page, by a rule of its own", place.RULED, 1, 200, "open"),
    Kind("session", "session, Require bitbucket-workspace", place.TEAM, 1, 200, "open", 1.25),
    Kind("valid_user", "session, Require valid-user", place.ANY, 1, 200, "open", 1.25),
    Kind("open_anonymous", "open page, no cookie", place.OPEN, 0, 200),
    Kind("anonymous", "no session: ticket and redirect", place.TEAM, 0, 302, "open_anonymous", 2.0),
    Kind("redirect", "open redirect of mod_alias", place.REDIRECT, 0, 302, "open_anonymous"),
    Kind("open_browser", "open page, all headers of a browser", place.OPEN, 1, 200,
         headers=place.BROWSER_HEADERS),
    Kind("session_browser", "session, all headers of a browser", place.TEAM, 1, 200, "open_browser", 1.25,
         place.BROWSER_HEADERS),
    Kind("open_anonymous_browser", "open page, no cookie, all headers of a browser", place.OPEN, 0, 200,
         headers=place.BROWSER_HEADERS),
    Kind("anonymous_browser", "no session, all headers of a browser", place.TEAM, 0, 302,
         "open_anonymous_browser", 2.0, place.BROWSER_HEADERS),
]


# With a crowd, so that nothing that a child remembers of some hundreds of visitors helps.
CROWD_SESSIONS, CROWD_VISITORS = 4000, 2000
CROWD_KINDS = [
    Kind("open_crowd", "open page, another visitor each time", place.OPEN, CROWD_VISITORS, 200),
    Kind("session_crowd", "session, another visitor each time", place.TEAM, CROWD_VISITORS, 200, "open_crowd", 1.25),
]


class Callgrind:
    """An httpd under callgrind, and how to get its counts: it writes them down each time it
    enters MARK, a function that nothing but the answer to an OPTIONS request calls. (Asking it
    from outside, as callgrind_control does, fails once httpd has changed its user.)"""

    MARK = "ap_send_http_options"

    def __init__(self, httpd: place.Httpd) -> None:
        """Of an httpd that does not run yet."""
        self.httpd = httpd
        self.output = httpd.root / "output" / "callgrind"
        httpd.wrapper = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={self.output}",
                              f"--dump-before={self.MARK}")
        self.dumps = 0

    def dump(self) -> tuple[int, Path]:
        """What was executed since the last dump: the count, and the file with all functions.
        The OPTIONS request itself is part of it, always the same."""
        self.dumps += 1
        file = Path(f"{self.output}.{self.dumps}")
        request = place.request_bytes(self.httpd, place.OPEN).replace(b"GET", b"OPTIONS", 1)
        place.repeat(self.httpd, [request], 1, 200)
        if not file.exists():
            raise RuntimeError(f"callgrind wrote no {file}:\n{self.httpd.said()}")
        found = re.search(r"^totals: (\d+)", file.read_text(errors="replace"), re.MULTILINE)
        if not found:
            raise RuntimeError(f"{file} holds no total")
        return int(found.group(1)), file


def measure_kind(run: Callgrind, kind: Kind, cookies: Sequence[str], requests: int) -> tuple[float, Path]:
    """Instructions per request, and a file with the functions of twice so many requests."""
    turns = itertools.cycle([place.request_bytes(run.httpd, kind.path, cookie, kind.headers)
                             for cookie in cookies[:kind.visitors] or [None]])
    place.repeat(run.httpd, turns, WARM_UP, kind.status)
    run.dump()
    place.repeat(run.httpd, turns, requests, kind.status)
    once, _ = run.dump()
    place.repeat(run.httpd, turns, 2 * requests, kind.status)
    twice, file = run.dump()
    return (twice - once) / requests, file


# -- where they go

def functions(file: Path, requests: float, inclusive: bool) -> dict[str, float]:
    """Instructions per request by function."""
    text = subprocess.run(["callgrind_annotate", f"--inclusive={'yes' if inclusive else 'no'}", "--threshold=100",
                           "--auto=no", str(file)], capture_output=True, text=True, timeout=120).stdout
    found: dict[str, float] = {}
    for line in text.splitlines():
        match = re.match(r"\s*([\d,]+) \(([\d. ]+)%\)\s+(?:\S+:)?(\S+?)(?:'\d+)?(?: \[(.*)\])?$", line)
        # What was running when the counts were taken has no costs of its own: it shows 100 %.
        if match and (inclusive or float(match.group(2)) < 99):
            name = match.group(3)
            if name.startswith("0x"):
                name = f"{os.path.basename(match.group(4) or '?')} {int(name, 16):#x}"
            found[name] = found.get(name, 0) + int(match.group(1).replace(",", "")) / requests
    return found


def print_top(kind: Kind, file: Path, base_file: Path, requests: float, top: int) -> None:
    """Functions by what they cost more than in the base."""
    for inclusive in (True, False):
        base, here = functions(base_file, requests, inclusive), functions(file, requests, inclusive)
        rows = sorted(((count - base.get(name, 0), count, name) for name, count in here.items()), reverse=True)
        print(f"\n{kind.title}, by function {'with what it calls' if inclusive else 'by itself'}:\n"
              "      more       all   instructions per request; more is than for the open page")
        for more, count, name in rows[:top]:
            print(f"{more:10,.0f} {count:10,.0f}  {name}")


# -- the store alone

def measure_lookups(build: Path, sizes: Sequence[int], lookups: int) -> list[dict[str, float]]:
    """Instructions of one lookup in tables of several sizes. Errors: place.Unavailable."""
    if not shutil.which("valgrind"):
        raise place.Unavailable("valgrind is not installed")
    results = []
    for sessions in sizes:
        with tempfile.TemporaryDirectory(prefix="abb-bench-count-") as directory:
            table, output = Path(directory) / "table", Path(directory) / "callgrind"
            crowd.store_bench(build, "prepare", table, sessions)
            subprocess.run(["valgrind", "--quiet", "--tool=callgrind", f"--callgrind-out-file={output}",
                            "--toggle-collect=bench_get_all", "--toggle-collect=bench_find_all",
                            str(build / "tests" / "bench" / "store_bench"), "count", str(table), str(sessions), str(lookups)], check=True, timeout=600,
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            costs = functions(output, lookups, inclusive=True)
            results.append({"sessions": sessions, "get": costs["bench_get_all"], "find": costs["bench_find_all"]})
    return results


Counts = dict[str, tuple[float, Path]]


def _measure_kinds(run: Callgrind, kinds: Sequence[Kind], cookies: Sequence[str], requests: int, top: int) -> Counts:
    counts = {kind.name: measure_kind(run, kind, cookies, requests) for kind in kinds}
    for kind in kinds:
        if top and kind.limit and kind.headers is place.LEAN_HEADERS:
            print_top(kind, counts[kind.name][1], counts[kind.base][1], 2 * requests, top)
    return counts


def _httpd(simulator: place.Simulator) -> place.Httpd:
    return place.protected(simulator, threads=4, start_seconds=120, options=("-X",))


def _measure_visitor(simulator: place.Simulator, requests: int, top: int) -> Counts:
    run = Callgrind(_httpd(simulator))
    with run.httpd:
        return _measure_kinds(run, KINDS, [place.sign_in(run.httpd)], requests, top)


def _measure_crowd(simulator: place.Simulator, build: Path, requests: int, top: int) -> Counts:
    """Errors: place.Unavailable."""
    with tempfile.TemporaryDirectory(prefix="abb-bench-crowd-") as directory:
        httpd = _httpd(simulator)
        try:
            cookies = crowd.fill(httpd, build, CROWD_SESSIONS, CROWD_VISITORS, Path(directory))
            run = Callgrind(httpd)
            crowd.check(httpd.start(), cookies)
            return _measure_kinds(run, CROWD_KINDS, cookies, requests, top)
        finally:
            httpd.end()


def _result(kind: Kind, counts: Counts) -> dict[str, object]:
    count = counts[kind.name][0]
    return {"name": kind.name, "title": kind.title, "instructions": count, "base": kind.base,
            "ratio": count / counts[kind.base][0] if kind.base else None, "limit": kind.limit or None}


def measure(build: Path, requests: int, top: int = 0) -> dict[str, object]:
    """All kinds. Errors: place.Unavailable when none can be counted."""
    if not shutil.which("valgrind"):
        raise place.Unavailable("valgrind is not installed")
    with place.Bitbucket() as simulator:
        counts = _measure_visitor(simulator, requests, top)
        results = [_result(kind, counts) for kind in KINDS]
        try:
            counts = _measure_crowd(simulator, build, requests, top)
            results += [_result(kind, counts) for kind in CROWD_KINDS]
        except place.Unavailable as reason:
            results.append({"name": "crowd", "title": CROWD_KINDS[1].title, "skipped": str(reason)})
    return {"requests": requests, "kinds": results}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--build", default=os.environ.get("ABB_BUILD_DIR", "."), help="where the module was built")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--top", type=int, default=0, help="also the functions that cost most")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    place.end_orderly()
    build = Path(options.build).resolve()
    os.environ["ABB_BUILD_DIR"] = str(build)
    result = measure(build, options.requests, options.top)
    print()
    for kind in result["kinds"]:  # type: ignore[attr-defined]
        if "skipped" in kind:
            print(f"{'skipped':>10}  {'':23} {kind['title']}: {kind['skipped']}")
            continue
        ratio = f"{kind['ratio']:6.3f} x" if kind["ratio"] else ""
        limit = f"(limit {kind['limit']:.2f})" if kind["limit"] else ""
        print(f"{kind['instructions']:10,.0f}  {ratio:9} {limit:13} {kind['title']}")
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
