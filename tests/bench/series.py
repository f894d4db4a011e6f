"""What each series of the benchmark is given, and how thoroughly it measures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

import place
from wrk import Contender, Load, processors

Result = dict[str, object]


@dataclass
class Extent:
    """Rounds of a second each, or of as many as said; other_rounds where what is compared is not
    what this module is mostly used with."""

    rounds: int = 12
    other_rounds: int = 6
    latency_seconds: int = 2
    sizes: Sequence[int] = (1_000, 100_000, 1_000_000)
    warms_up: bool = True
    # Series that are left out, and the only other modules to compare with.
    without: Sequence[str] = ()
    peers: Sequence[str] | None = None
    # A cache without the near table in front of it, too.
    with_far_cache: bool = True
    sign_in_rounds: int = 4
    sign_in_seconds: float = 3
    # Fewer than httpd has workers, so that none waits for one.
    browsers: int = 40


FULL = Extent()
QUICK = Extent(rounds=2, other_rounds=1, latency_seconds=1, sizes=(1_000, 100_000), warms_up=False,
               without=("worker", "prefork"), peers=("auth_basic", "auth_openidc_1", "auth_openidc_cookie"),
               sign_in_rounds=1, sign_in_seconds=1, browsers=8)
SMOKE = Extent(rounds=1, other_rounds=1, latency_seconds=1, sizes=(1_000, 2_000), warms_up=False,
               without=("worker", "prefork", "outage"), peers=("auth_basic",), with_far_cache=False,
               sign_in_rounds=1, sign_in_seconds=0.5, browsers=4)


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

    @property
    def client_wrapper(self) -> tuple[str, ...]:
        return ("taskset", "-c", ",".join(map(str, processors()[1])))

    def compare(self, contenders: Sequence[Contender], rounds: int = 0, load: Load | None = None) -> None:
        (load or self.load).compare(contenders, rounds or self.extent.rounds, self.extent.warms_up)
