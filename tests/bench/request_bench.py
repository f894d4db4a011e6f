#!/usr/bin/python3
"""Requests per second of httpd with and without protection, loaded in turns in one run.

Prints one line for each comparison. What cannot be measured here is skipped with its reason.

usage: request_bench.py [--build DIR] [--quick] [--only NAME]... [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Sequence

import crowd
import peers
import place
from wrk import Contender, Load, processors, result_of

PASSPHRASE = "a passphrase that is used for measuring and for nothing else"
SESSION_KEY = f'AuthBitbucketSessionKey "{PASSPHRASE}"\n'
# So many of the sessions in a store are used, so that caches of the processor cannot hold them all.
USED_SESSIONS = 20_000
Result = dict[str, object]


@dataclass
class Extent:
    """How thoroughly to measure: rounds of a second each, and how many live sessions."""

    rounds: int = 12
    sizes: Sequence[int] = (1_000, 100_000, 1_000_000)
    warms_up: bool = True
    with_other_modules: bool = True


FULL = Extent()
QUICK = Extent(rounds=2, sizes=(1_000, 100_000))
SMOKE = Extent(rounds=1, sizes=(1_000, 2_000), warms_up=False, with_other_modules=False)


@dataclass
class Run:
    """One series, with what."""

    build: Path
    extent: Extent
    load: Load
    simulator: place.Simulator

    @property
    def wrapper(self) -> tuple[str, ...]:
        return ("taskset", "-c", ",".join(map(str, processors()[0])))

    def compare(self, contenders: Sequence[Contender]) -> None:
        self.load.compare(contenders, self.extent.rounds, self.extent.warms_up)


# -- one machine

def pages(run: Run) -> list[Result]:
    """Open page, session, anonymous redirect, open redirect at one httpd."""
    with place.protected(run.simulator, wrapper=run.wrapper) as httpd:
        cookies = [place.sign_in(httpd)]
        opened = Contender("open", "open page, the cookie is sent", httpd, place.OPEN, 200, cookies)
        ruled = Contender("ruled", "open page, by a rule of its own", httpd, place.RULED, 200, cookies)
        session = Contender("session", "session, Require bitbucket-workspace", httpd, place.TEAM, 200, cookies)
        plain = Contender("open_anonymous", "open page, no cookie", httpd, place.OPEN, 200)
        anonymous = Contender("anonymous", "no session: ticket and redirect", httpd, place.TEAM, 302)
        redirect = Contender("redirect", "open redirect of mod_alias", httpd, place.REDIRECT, 302)
        run.compare([opened, ruled, session, plain, anonymous, redirect])
        return [result_of(opened, None), result_of(ruled, opened), result_of(session, opened, 0.95), result_of(plain, None),
                result_of(anonymous, plain), result_of(redirect, plain),
                {**result_of(anonymous, redirect), "name": "anonymous_redirect",
                 "title": "ticket and redirect, against mod_alias' redirect"}]


def filled(run: Run, sessions: int, directory: Path) -> tuple[place.Httpd, list[str]]:
    """An httpd with so many live sessions, and the cookies of some."""
    httpd = place.protected(run.simulator, wrapper=run.wrapper, start_seconds=120)
    try:
        cookies = crowd.fill(httpd, run.build, sessions, USED_SESSIONS, directory)
        crowd.check(httpd.start(), cookies)
    except BaseException:
        httpd.end()
        raise
    return httpd, cookies


def live_sessions(run: Run) -> list[Result]:
    """The same page with a thousand, a hundred thousand and a million live sessions."""
    directory = Path(tempfile.mkdtemp(prefix="abb-bench-sessions-"))
    directory.chmod(0o755)
    started: list[place.Httpd] = []
    contenders: list[Contender] = []
    try:
        for sessions in run.extent.sizes:
            httpd, cookies = filled(run, sessions, directory)
            started.append(httpd)
            contenders.append(Contender(f"open_{sessions}", f"open page, {sessions:,} live sessions", httpd, place.OPEN,
                                        200, cookies))
            contenders.append(Contender(f"session_{sessions}", f"session, {sessions:,} live sessions", httpd, place.TEAM,
                                        200, cookies))
        run.compare(contenders)
    finally:
        for httpd in started:
            httpd.end()
        shutil.rmtree(directory, ignore_errors=True)
    results = []
    for sessions, opened, session in zip(run.extent.sizes, contenders[::2], contenders[1::2]):
        results += [{**result_of(session, opened, 0.95), "sessions": sessions}]
    smallest, largest = contenders[1], contenders[-1]
    results.append({**result_of(largest, smallest, 0.91), "name": "largest_smallest",
                    "title": f"{run.extent.sizes[-1]:,} against {run.extent.sizes[0]:,} live sessions"})
    return results


# -- several machines

class Redis:
    """A redis-server of its own, as long as the with block lasts."""

    def __init__(self) -> None:
        if not shutil.which("redis-server"):
            raise place.Unavailable("redis-server is not installed")
        self.port = place.config.free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="abb-bench-redis-"))

    def __enter__(self) -> "Redis":
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
             "--dir", str(self.directory)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.__exit__()
                    raise place.Unavailable("redis-server did not start") from None
                time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(10)
        shutil.rmtree(self.directory, ignore_errors=True)


def cluster(run: Run) -> list[Result]:
    """A session in redis, with and without the near table in front of it."""
    results = []
    with Redis() as redis:
        cache = f"AuthBitbucketSessionCache redis:127.0.0.1:{redis.port}\n{SESSION_KEY}"
        for name, title, more, limit in (("near", "session in redis, near cache of 10 s", "", 0.90),
                                         ("far", "session in redis, no near cache", "AuthBitbucketSessionNearCache 0\n", None)):
            with place.protected(run.simulator, cache + more, modules=("socache_redis",), wrapper=run.wrapper) as httpd:
                cookies = [place.sign_in(httpd)]
                opened = Contender(f"open_{name}", "open page", httpd, place.OPEN, 200, cookies)
                session = Contender(f"redis_{name}", title, httpd, place.TEAM, 200, cookies)
                run.compare([opened, session])
                results.append(result_of(session, opened, limit))
    return results


# -- other modules

def other_modules(run: Run) -> list[Result]:
    """Modules of Debian that keep sessions, each at an httpd of its own."""
    results: list[Result] = []
    for peer in peers.PEERS:
        try:
            with peer.open(run.wrapper) as (httpd, cookies):
                opened = Contender(f"open_{peer.name}", "open page", httpd, place.OPEN, 200, cookies)
                session = Contender(peer.name, peer.title, httpd, place.TEAM, 200, cookies)
                run.compare([opened, session])
                results.append(result_of(session, opened))
        except place.Unavailable as reason:
            results.append({"name": peer.name, "title": peer.title, "skipped": str(reason)})
    return results


SERIES: dict[str, Callable[[Run], list[Result]]] = {
    "pages": pages, "live_sessions": live_sessions, "cluster": cluster, "other_modules": other_modules}


def measure(build: Path, extent: Extent, only: Sequence[str] = (),
            say: Callable[[str], None] = lambda text: None) -> dict[str, object]:
    """All series. Those that cannot be here are there with "skipped"."""
    found: dict[str, object] = {}
    for name, series in SERIES.items():
        if name not in (only or SERIES) or (name == "other_modules" and not extent.with_other_modules):
            continue
        say("requests: " + name.replace("_", " "))
        try:
            with Load(1) as load, place.Bitbucket() as simulator:
                found[name] = series(Run(build, extent, load, simulator))
        except place.Unavailable as reason:
            found[name] = [{"name": name, "title": (series.__doc__ or name).rstrip("."), "skipped": str(reason)}]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--build", default=os.environ.get("ABB_BUILD_DIR", "."), help="where the module was built")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", action="append", default=[], choices=list(SERIES))
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    place.end_orderly()
    build = Path(options.build).resolve()
    os.environ["ABB_BUILD_DIR"] = str(build)
    found = measure(build, QUICK if options.quick else FULL, options.only)
    for series in found.values():
        for result in series:  # type: ignore[attr-defined]
            if "skipped" in result:
                print(f"{'skipped':>42}  {result['title']}: {result['skipped']}")
            else:
                ratio = f"{result['ratio']:.3f} x (cpu {result['cpu_ratio']:.3f})" if "ratio" in result else ""
                print(f"{result['per_second']:9,.0f}/s {result['cpu_us']:6.1f} us {ratio:24}  {result['title']}")
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
