"""Contenders loaded in turns by wrk: requests per second, how long they take, and what httpd computed for each."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Mapping, NamedTuple, NoReturn, Sequence

import place

CONNECTIONS = 16
# How often each cookie is sent before measuring begins; two children share the requests.
WARM_UP = 5
# wrk sends these in turns. They are made before the clock runs, so all contenders cost wrk the same.
SCRIPT = """local requests, at = {}, 0
function init(arguments)
    for line in io.lines(arguments[1]) do
        requests[#requests + 1] = (line:gsub("\\\\n", "\\r\\n"))
    end
end
function request()
    at = at % #requests + 1
    return requests[at]
end
"""
# Each connection waits before each request, by chance, so that they do not fall into step.
PAUSE = """function delay()
    return math.random(0, 2 * %d)
end
"""


def processors() -> tuple[list[int], list[int]]:
    """Those of httpd and those of the client: nobody takes the other's. On one both share it."""
    all_of_them = sorted(os.sched_getaffinity(0))
    half = len(all_of_them) // 2
    return (all_of_them[:half], all_of_them[half:]) if half else (all_of_them, all_of_them)


class Latency(NamedTuple):
    """Microseconds from a request to the end of its answer."""

    p50: float
    p99: float


class Round(NamedTuple):
    requests: int
    per_second: float
    # Where the program tells.
    latency: Latency | None = None


@dataclass
class Contender:
    """One kind of request at one httpd. Cookies are values of the Cookie header, sent in turns."""

    name: str
    title: str
    httpd: place.Httpd
    path: str
    status: int
    cookies: Sequence[str] = ()
    headers: Mapping[str, str] = field(default_factory=lambda: place.LEAN_HEADERS)
    rates: list[float] = field(default_factory=list)
    microseconds: list[float] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)

    def requests(self) -> list[bytes]:
        return [place.request_bytes(self.httpd, self.path, cookie, self.headers) for cookie in self.cookies or [None]]

    def check(self) -> None:
        """wrk takes a redirect for success; so see that the answer is what it should be."""
        place.repeat(self.httpd, self.requests()[:20], 20, self.status)


def computed(httpd: place.Httpd) -> float:
    """Seconds that the processes of an httpd have been computing for."""
    assert httpd.process
    total = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if int((entry / "stat").read_text().rpartition(")")[2].split()[2]) == httpd.process.pid:
                    total += sum(int((task / "schedstat").read_text().split()[0]) for task in (entry / "task").iterdir())
            except OSError:
                continue
    return total / 1e9


_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}


def _microseconds(output: str, percent: int) -> float:
    found = re.search(rf"^ +{percent}% +([\d.]+)(us|ms|s|m)$", output, re.MULTILINE)
    return float(found.group(1)) * _UNITS[found.group(2)] if found else 0.0


class Load:
    """wrk and its files, as long as the with block lasts. With a pause, in milliseconds, the load
    is not all that httpd bears but one that stays the same: each connection waits so long between
    an answer and its next request, in the mean."""

    program = "wrk"

    def __init__(self, seconds: int, pause: int = 0) -> None:
        if not shutil.which(self.program):
            raise place.Unavailable(f"{self.program} is not installed")
        self.seconds = seconds
        self.directory = Path(tempfile.mkdtemp(prefix="abb-bench-load-"))
        (self.directory / "turns.lua").write_text(SCRIPT + (PAUSE % pause if pause else ""))

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def run(self, contender: Contender) -> int:
        """One round. Returns how many requests it had. Errors: RuntimeError when requests fail."""
        before = computed(contender.httpd)
        found = self.send(contender)
        contender.microseconds.append((computed(contender.httpd) - before) * 1e6 / found.requests)
        contender.rates.append(found.per_second)
        if found.latency:
            contender.latencies.append(found.latency)
        return found.requests

    def output_of(self, contender: Contender, command: Sequence[str]) -> str:
        """What a program says that ran on the client's processors. Errors: RuntimeError when it failed."""
        done = subprocess.run(["taskset", "-c", ",".join(map(str, processors()[1])), *command], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60 + 10 * self.seconds)
        if done.returncode:
            self.fail(contender, done.stdout + done.stderr)
        return done.stdout

    def fail(self, contender: Contender, output: str) -> NoReturn:
        raise RuntimeError(f"{contender.title}: {self.program} says\n{output}\n{contender.httpd.said()}")

    def send(self, contender: Contender) -> Round:
        """Errors: RuntimeError when requests fail. A few connections that httpd closes are none:
        mpm_event does so when all threads that it has started are busy."""
        file = self.directory / f"{contender.httpd.port}-{contender.name}"
        if not file.exists():
            file.write_bytes(b"".join(request.replace(b"\r\n", b"\\n") + b"\n" for request in contender.requests()))
        output = self.output_of(contender, [
            "wrk", f"-t{min(len(processors()[1]), 4)}", f"-c{CONNECTIONS}", f"-d{self.seconds}s", "--latency",
            "-s", str(self.directory / "turns.lua"), f"http://127.0.0.1:{contender.httpd.port}/", "--", str(file)])
        count = re.search(r"(\d+) requests in", output)
        rate = re.search(r"Requests/sec:\s*([\d.]+)", output)
        errors = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", output)))
        if not count or not rate or "Non-2xx" in output or errors > CONNECTIONS + int(count.group(1)) / 1000:
            self.fail(contender, output)
        return Round(int(count.group(1)), float(rate.group(1)),
                     Latency(_microseconds(output, 50), _microseconds(output, 99)))

    def warm_up(self, contender: Contender) -> None:
        """Rounds that do not count, until most children have seen most cookies. What a process reads for the first time
        costs a visit to the kernel, and on a virtual machine to the host as well."""
        wanted = WARM_UP * len(contender.cookies)
        while wanted > 0 or not contender.rates:
            wanted -= self.run(contender)
        for figures in (contender.rates, contender.microseconds, contender.latencies):
            figures.clear()

    def compare(self, contenders: Sequence[Contender], rounds: int, warms_up: bool = True) -> None:
        """All in turns, every other round the other way round."""
        for contender in contenders:
            contender.check()
            if warms_up:
                self.warm_up(contender)
        for number in range(rounds):
            for contender in contenders if number % 2 == 0 else reversed(contenders):
                self.run(contender)
        for contender in contenders:
            contender.check()


def result_of(contender: Contender, base: Contender | None, limit: float | None = None) -> dict[str, object]:
    """Medians, and ratios to the base as medians of the rounds' ratios."""
    result: dict[str, object] = {
        "name": contender.name, "title": contender.title, "per_second": statistics.median(contender.rates),
        "cpu_us": statistics.median(contender.microseconds), "rounds": len(contender.rates)}
    if base and base is not contender:
        ratios = [mine / other for mine, other in zip(contender.rates, base.rates)]
        costs = [other / mine for mine, other in zip(contender.microseconds, base.microseconds)]
        result |= {"base": base.name, "ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios),
                   "cpu_ratio": statistics.median(costs), "limit": limit}
    return result
