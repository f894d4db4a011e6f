"""Contenders loaded in turns by wrk: requests per second, and what httpd computed for each."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Sequence

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


def processors() -> tuple[list[int], list[int]]:
    """Those of httpd and those of the client: nobody takes the other's. On one both share it."""
    all_of_them = sorted(os.sched_getaffinity(0))
    half = len(all_of_them) // 2
    return (all_of_them[:half], all_of_them[half:]) if half else (all_of_them, all_of_them)


@dataclass
class Contender:
    """One kind of request at one httpd. Cookies are values of the Cookie header, sent in turns."""

    name: str
    title: str
    httpd: place.Httpd
    path: str
    status: int
    cookies: Sequence[str] = ()
    rates: list[float] = field(default_factory=list)
    microseconds: list[float] = field(default_factory=list)

    def requests(self) -> list[bytes]:
        return [place.request_bytes(self.httpd, self.path, cookie) for cookie in self.cookies or [None]]

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


class Load:
    """wrk and its files, as long as the with block lasts."""

    def __init__(self, seconds: int) -> None:
        if not shutil.which("wrk"):
            raise place.Unavailable("wrk is not installed")
        self.seconds = seconds
        self.directory = Path(tempfile.mkdtemp(prefix="abb-bench-wrk-"))
        (self.directory / "turns.lua").write_text(SCRIPT)

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)

    def run(self, contender: Contender) -> int:
        """One round. Returns how many requests it had. Errors: RuntimeError when requests fail. A few connections that httpd closes
        are none: mpm_event does so when all threads that it has started are busy."""
        file = self.directory / f"{contender.httpd.port}-{contender.name}"
        if not file.exists():
            file.write_bytes(b"".join(request.replace(b"\r\n", b"\\n") + b"\n" for request in contender.requests()))
        client = processors()[1]
        before = computed(contender.httpd)
        done = subprocess.run(
            ["taskset", "-c", ",".join(map(str, client)), "wrk", f"-t{min(len(client), 4)}", f"-c{CONNECTIONS}",
             f"-d{self.seconds}s", "-s", str(self.directory / "turns.lua"),
             f"http://127.0.0.1:{contender.httpd.port}/", "--", str(file)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60 + 10 * self.seconds)
        spent = computed(contender.httpd) - before
        count = re.search(r"(\d+) requests in", done.stdout)
        rate = re.search(r"Requests/sec:\s*([\d.]+)", done.stdout)
        errors = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", done.stdout)))
        if (done.returncode or not count or not rate or "Non-2xx" in done.stdout
                or errors > CONNECTIONS + int(count.group(1)) / 1000):
            raise RuntimeError(f"{contender.title}: wrk says\n{done.stdout}{done.stderr}\n{contender.httpd.said()}")
        contender.rates.append(float(rate.group(1)))
        contender.microseconds.append(spent * 1e6 / int(count.group(1)))
        return int(count.group(1))

    def warm_up(self, contender: Contender) -> None:
        """Rounds that do not count, until most children have seen most cookies. What a process reads for the first time
        costs a visit to the kernel, and on a virtual machine to the host as well."""
        wanted = WARM_UP * len(contender.cookies)
        while wanted > 0 or not contender.rates:
            wanted -= self.run(contender)
        contender.rates.clear()
        contender.microseconds.clear()

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
