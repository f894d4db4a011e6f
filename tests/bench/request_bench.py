#!/usr/bin/python3
"""Requests and sign-ins of httpd with and without protection, loaded in turns in one run.

Prints one line for each comparison. What cannot be measured here is skipped with its reason.

usage: request_bench.py [--build DIR] [--quick] [--only NAME]... [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Callable, Sequence

import crowd
import h2load
import latency
import peers
import place
import sign_ins
import verdicts
from series import FULL, QUICK, Extent, Result, Run
from wrk import Contender, Load, result_of

PASSPHRASE = "a passphrase that is used for measuring and for nothing else"
SESSION_KEY = f'AuthBitbucketSessionKey "{PASSPHRASE}"\n'
# So many of the sessions in a store are used, so that caches of the processor cannot hold them all.
USED_SESSIONS = 20_000


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
    contenders: list[Contender] = []
    with ExitStack() as stack:
        directory = stack.enter_context(place.scratch())
        for sessions in run.extent.sizes:
            httpd, cookies = filled(run, sessions, directory)
            stack.callback(httpd.end)
            contenders.append(Contender(f"open_{sessions}", f"open page, {sessions:,} live sessions", httpd, place.OPEN,
                                        200, cookies))
            contenders.append(Contender(f"session_{sessions}", f"session, {sessions:,} live sessions", httpd, place.TEAM,
                                        200, cookies))
        run.compare(contenders)
    results = []
    for sessions, opened, session in zip(run.extent.sizes, contenders[::2], contenders[1::2]):
        results += [{**result_of(session, opened, 0.95), "sessions": sessions}]
    smallest, largest = contenders[1], contenders[-1]
    results.append({**result_of(largest, smallest, 0.91), "name": "largest_smallest",
                    "title": f"{run.extent.sizes[-1]:,} against {run.extent.sizes[0]:,} live sessions"})
    return results


# -- other kinds of httpd

def _four(run: Run, load: Load, httpd: place.Httpd) -> list[Result]:
    """Open page and session, open page without a cookie and the redirect."""
    cookies = [place.sign_in(httpd)]
    opened = Contender("open", "open page, the cookie is sent", httpd, place.OPEN, 200, cookies)
    session = Contender("session", "session, Require bitbucket-workspace", httpd, place.TEAM, 200, cookies)
    plain = Contender("open_anonymous", "open page, no cookie", httpd, place.OPEN, 200)
    anonymous = Contender("anonymous", "no session: ticket and redirect", httpd, place.TEAM, 302)
    run.compare([opened, session, plain, anonymous], run.extent.other_rounds, load)
    return [result_of(opened, None), result_of(session, opened, 0.95), result_of(plain, None), result_of(anonymous, plain)]


def worker(run: Run) -> list[Result]:
    """The same pages with mpm_worker."""
    with place.protected(run.simulator, wrapper=run.wrapper, mpm="worker") as httpd:
        return _four(run, run.load, httpd)


def prefork(run: Run) -> list[Result]:
    """The same pages with mpm_prefork."""
    with place.protected(run.simulator, wrapper=run.wrapper, mpm="prefork") as httpd:
        return _four(run, run.load, httpd)


def http2(run: Run) -> list[Result]:
    """The same pages over HTTP/2."""
    with h2load.H2Load(1) as load, place.protected(run.simulator, h2load.PROTOCOLS, modules=(h2load.MODULE,),
                                                   wrapper=run.wrapper) as httpd:
        return _four(run, load, httpd)


# -- several machines

CACHES = (("redis", "redis"), ("memcache", "memcached"))
NEAR = (("near", "near cache of 10 s", "", 0.90), ("far", "no near cache", "AuthBitbucketSessionNearCache 0\n", None))


def cluster(run: Run) -> list[Result]:
    """A session in redis and in memcached, with and without the near table in front of it."""
    results: list[Result] = []
    for kind, title in CACHES:
        try:
            with place.cache(kind) as server:
                results += _in_cache(run, kind, title, server.specification)
        except place.Unavailable as reason:
            results.append({"name": kind, "title": f"session in {title}", "skipped": str(reason)})
    return results


def _in_cache(run: Run, kind: str, title: str, specification: str) -> list[Result]:
    results = []
    for name, near, more, limit in NEAR if run.extent.with_far_cache else NEAR[:1]:
        main = f"AuthBitbucketSessionCache {specification}\n{SESSION_KEY}{more}"
        with place.protected(run.simulator, main, modules=(f"socache_{kind}",), wrapper=run.wrapper) as httpd:
            cookies = [place.sign_in(httpd)]
            opened = Contender(f"open_{name}", "open page", httpd, place.OPEN, 200, cookies)
            session = Contender(f"{kind}_{name}", f"session in {title}, {near}", httpd, place.TEAM, 200, cookies)
            run.compare([opened, session], run.extent.other_rounds)
            results.append(result_of(session, opened, limit))
    return results


# -- other modules

def other_modules(run: Run) -> list[Result]:
    """Modules of Debian that keep sessions, each at an httpd of its own."""
    results: list[Result] = []
    for peer in peers.PEERS:
        if run.extent.peers is not None and peer.name not in run.extent.peers:
            continue
        try:
            with peer.open(run.wrapper) as (httpd, cookies):
                headers = {**place.LEAN_HEADERS, **peer.headers}
                opened = Contender(f"open_{peer.name}", "open page", httpd, place.OPEN, 200, cookies, headers)
                session = Contender(peer.name, peer.title, httpd, place.TEAM, 200, cookies, headers)
                run.compare([opened, session], run.extent.other_rounds)
                results.append(result_of(session, opened))
        except place.Unavailable as reason:
            results.append({"name": peer.name, "title": peer.title, "skipped": str(reason)})
    return results


SERIES: dict[str, Callable[[Run], list[Result]]] = {
    "pages": pages, "worker": worker, "prefork": prefork, "http2": http2, "live_sessions": live_sessions,
    "cluster": cluster, "other_modules": other_modules, "fixed_load": latency.fixed_load, "outage": latency.outage,
    "sign_ins": sign_ins.sign_ins}


def measure(build: Path, extent: Extent, only: Sequence[str] = (),
            say: Callable[[str], None] = lambda text: None) -> dict[str, object]:
    """All series. Those that cannot be here are there with "skipped"."""
    found: dict[str, object] = {}
    for name, series in SERIES.items():
        if name not in (only or SERIES) or (name in extent.without and not only):
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
    verdicts.print_table(verdicts.rows_of_requests({"requests": found}))
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
