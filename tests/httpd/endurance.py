"""Many gracefuls and many requests, and whether anything has grown meanwhile.

Half of the requests come while httpd is reloaded again and again, the other half to children that
stay. Memory, file descriptors, threads, mappings, IPC objects and files are counted early and at the
end of each half. scripts/races runs it; docs/testing-races.md has figures.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Iterator

from harness.client import NAVIGATION, Browser
from harness.config import VirtualHost, place
from harness.load import at_once
from harness.logs import LogBook
from harness.machine import system_objects
from harness.server import Server
from harness.simulator import Simulator

PEOPLE = ("mark", "olivia")
# Browsers that stay signed in all the time; the answers about them are due again and again.
LASTING = 20
# Requests of which one is the start of a whole sign-in and sign-out, and how many httpd sees of it.
SIGN_IN_EVERY, SIGN_IN_COST = 100, 5
BATCH = 100
# Always two children, so that counts can be compared; room for those that are on their way out.
SETTINGS = """LogLevel notice auth_bitbucket:warn
ServerLimit 16
StartServers 2
MinSpareThreads 1
MaxSpareThreads 50
MaxRequestWorkers 50
AuthBitbucketMembershipMaxAge 1s 1h
"""
SETTLE_SECONDS = 60


# -- counting

@dataclass
class Limits:
    """How much more of each is noise. kB, or a number."""

    parent_kb: int = 512
    child_kb: int = 2048
    # A child keeps the names of the cookies that came lately in a table, to which the system gives memory
    # page by page: each new session may touch one more of its 8 MiB.
    page_kb: int = 4
    shared_kb: int = 512
    # A child's threads for re-checks come as they are needed, and go after a minute without work.
    threads: int = 8
    # Connections to Bitbucket that are kept, and the pipes of those threads.
    descriptors: int = 16
    mappings: int = 48


@dataclass
class Count:
    """What a server holds at one moment; of its children the one that holds most."""

    figures: dict[str, int] = field(default_factory=dict)
    objects: dict[str, list[str]] = field(default_factory=dict)


def memory(pid: int) -> dict[str, int]:
    """The fields of smaps_rollup, in kB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}


def entries(pid: int, name: str) -> int:
    return len(os.listdir(f"/proc/{pid}/{name}"))


def mappings(pid: int) -> int:
    return len(Path(f"/proc/{pid}/maps").read_text().splitlines())


def workers(server: Server) -> list[int]:
    """The children that answer requests: mod_cgid's daemon has but one thread."""
    return [pid for pid in server.children() if entries(pid, "task") > 25]


def objects_of(server: Server) -> dict[str, list[str]]:
    """Those of the machine that belong to nobody in particular; the files of this server."""
    return {**system_objects(), "run directory": sorted(path.name for path in (server.root / "run").iterdir())}


def count(server: Server) -> Count:
    pids = settled(server)
    parent, children = server.pid, [memory(pid) for pid in pids]
    return Count({
        "parent: memory of its own, kB": memory(parent)["Anonymous"],
        "parent: mappings": mappings(parent),
        "parent: file descriptors": entries(parent, "fd"),
        "parent: threads": entries(parent, "task"),
        "child: memory of its own, kB": max(child["Anonymous"] for child in children),
        "child: mappings": max(map(mappings, pids)),
        "child: file descriptors": max(entries(pid, "fd") for pid in pids),
        "child: threads": max(entries(pid, "task") for pid in pids),
        "all: shared memory, kB": sum(process["Pss_Shmem"] for process in [memory(parent), *children]),
        "all: processes": len(server.processes()),
    }, objects_of(server))


def settled(server: Server) -> list[int]:
    """The two children that stay, when all others have gone and nothing moves."""
    deadline = time.monotonic() + SETTLE_SECONDS
    before: list[int] = []
    while time.monotonic() < deadline:
        now = workers(server)
        if len(now) == 2 and now == before and len(server.processes()) == 4:
            return now
        before = now
        time.sleep(0.5)
    raise RuntimeError(f"children did not settle: {server.children()}")


def limit_of(name: str, limits: Limits, sign_ins: int) -> int:
    whose, _, what = name.partition(": ")
    if what.startswith("memory"):
        return limits.parent_kb if whose == "parent" else limits.child_kb + min(8192, limits.page_kb * sign_ins)
    if what.startswith("shared"):
        return limits.shared_kb
    if whose == "child":
        return {"threads": limits.threads, "file descriptors": limits.descriptors, "mappings": limits.mappings}[what]
    return {"mappings": 4}.get(what, 0)


def growth(title: str, before: Count, after: Count, limits: Limits, sign_ins: int = 0) -> list[str]:
    """A table for people; what has grown by more than noise. sign_ins: how many the same children saw."""
    faults = []
    print(f"\n{title}\n{'':36}{'early':>10}{'at the end':>12}{'noise':>8}")
    for name, value in before.figures.items():
        limit = limit_of(name, limits, sign_ins)
        is_worse = after.figures[name] > value + limit
        print(f"  {name:34}{value:10}{after.figures[name]:12}{limit:8}{'  GROWN' if is_worse else ''}")
        if is_worse:
            faults.append(f"{title}: {name} grew from {value} to {after.figures[name]}")
    for name, things in before.objects.items():
        more = sorted(set(after.objects[name]) - set(things))
        grown = len(after.objects[name]) > len(things)
        print(f"  {name:34}{len(things):10}{len(after.objects[name]):12}{0:8}{'  GROWN' if grown else ''}")
        if grown:
            faults.append(f"{title}: {name} has more: {' '.join(more)}")
    return faults


# -- work

class Crowd:
    """Visitors of all kinds."""

    def __init__(self, server: Server, host: VirtualHost, simulator: Simulator) -> None:
        self._server, self._host, self._simulator = server, host, simulator
        self._lasting = [Browser() for _ in range(LASTING)]
        self._random = random.Random(8)
        self.statuses: Counter[str] = Counter()
        self.sent = self.sign_ins = self.asked = 0

    def sign_in(self) -> None:
        for number, browser in enumerate(self._lasting):
            answer = browser.sign_in(self._host.url("/team/page.html"), PEOPLE[number % len(PEOPLE)])
            assert answer.status in (200, 403), answer

    def _batch(self, kind: str, amount: int, path: str, cookie: str | None) -> None:
        headers = {**NAVIGATION, **({"Cookie": cookie} if cookie else {})}
        outcome = at_once([self._host.url(path)] * amount, headers)
        for status, number in outcome.statuses.items():
            self.statuses[f"{kind} {status}"] += number
        self.sent += amount

    def _comes_and_goes(self) -> None:
        browser = Browser()
        answer = browser.sign_in(self._host.url("/any/page.html"), self._random.choice(PEOPLE))
        gone = browser.submit(browser.get(self._host.endpoint("logout")))
        self.statuses[f"sign-in {answer.status}, sign-out {gone.status}"] += 1
        self.sign_ins += 1
        self.sent += SIGN_IN_COST

    def work(self, amount: int) -> None:
        """Send about so many requests."""
        end = self.sent + amount
        while self.sent < end:
            batch = min(BATCH, end - self.sent)
            cookie = self._random.choice(self._lasting).jar.line("localhost", False)
            self._batch("session", batch * 6 // 10, "/any/page.html", cookie)
            self._batch("stranger", batch * 2 // 10, "/team/page.html", None)
            self._batch("open", batch // 10, "/open/page.html", None)
            self._batch("junk", max(1, batch // 20), "/any/page.html", "bitbucket_session=" + "x" * 43)
            if self.sent // SIGN_IN_EVERY >= self.sign_ins:
                self._comes_and_goes()
        self.asked += len(self._simulator.calls())
        self._simulator.forget_calls()


def unexpected(statuses: Counter[str]) -> list[str]:
    allowed = {"session 200", "stranger 302", "open 200", "junk 302", "sign-in 200, sign-out 303", "sign-in 200, sign-out 200"}
    return [f"answers that were not expected: {number} times {status}" for status, number in statuses.items()
            if status not in allowed]


def reload_at_work(server: Server, crowd: Crowd, gracefuls: int, requests: int) -> None:
    """Each graceful falls among requests."""
    for number in range(gracefuls):
        due = requests * (number + 1) // gracefuls - requests * number // gracefuls
        problems: list[BaseException] = []
        thread = threading.Thread(target=guarded, args=(lambda: crowd.work(due), problems))
        thread.start()
        try:
            server.reload(signal.SIGUSR1)
        finally:
            thread.join()
        if problems:
            raise problems[0]
        if (number + 1) % 100 == 0:
            print(f"{number + 1} gracefuls, {crowd.sent} requests", flush=True)


def guarded(work: Callable[[], None], problems: list[BaseException]) -> None:
    try:
        work()
    except BaseException as problem:
        problems.append(problem)


def endure(server: Server, crowd: Crowd, wanted: argparse.Namespace, limits: Limits) -> list[str]:
    crowd.sign_in()
    half = wanted.requests // 2
    early = half * wanted.early // (wanted.early + wanted.gracefuls)
    reload_at_work(server, crowd, wanted.early, early)
    first = count(server)
    reload_at_work(server, crowd, wanted.gracefuls, half - early)
    faults = growth(f"{wanted.gracefuls} gracefuls after the first {wanted.early}, with {half - early} requests",
                    first, count(server), limits)
    # Threads, their stacks and pools are there when all of them have had work.
    crowd.work(half // 5)
    first, before = count(server), crowd.sign_ins
    crowd.work(half - half // 5)
    faults += growth(f"{half - half // 5} requests to the same children, after {half // 5}", first, count(server), limits,
                     crowd.sign_ins - before)
    if not crowd.asked:
        faults.append("Bitbucket was never asked")
    return faults


# -- the program

def running_server(simulator: Simulator, cache: str | None) -> Iterator[tuple[Server, VirtualHost]]:
    host = VirtualHost("\n".join([place("any", "Require valid-user"), place("team", "Require bitbucket-workspace acme"),
                                  place("open", auth=False)]))
    server = Server([host], simulator, "event", main=SETTINGS + (f"AuthBitbucketSessionCache {cache}\n" if cache else ""))
    try:
        yield server.start(), host
    finally:
        server.stop()
        server.remove()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="endurance.py", description=__doc__)
    parser.add_argument("--gracefuls", type=int, default=1000)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--early", type=int, default=20, help="gracefuls before the first count")
    parser.add_argument("--cache", help="a value for AuthBitbucketSessionCache; {} is a directory of its own")
    return parser.parse_args()


def main() -> int:
    wanted, limits = arguments(), Limits()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="abb-endurance-") as directory:
        simulator = Simulator(Path(directory)).start()
        try:
            simulator.settings(quota=None)
            for server, host in running_server(simulator, wanted.cache and wanted.cache.format(directory)):
                book = LogBook()
                book.watch(server)
                crowd = Crowd(server, host, simulator)
                faults = endure(server, crowd, wanted, limits)
                faults += unexpected(crowd.statuses) + book.problems()
        finally:
            simulator.stop()
    print(f"\n{crowd.sent} requests, {crowd.sign_ins + LASTING} sign-ins, {crowd.asked} calls to Bitbucket in "
          f"{time.monotonic() - started:.0f} s: {dict(crowd.statuses)}")
    print("\n".join(["FOUND:", *faults] if faults else ["Nothing has grown."]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
