"""How long a request takes while httpd has a load that stays the same: with and without a session,
and while Bitbucket hangs.

wrk pauses before each request, each connection by chance. Visitors wait for a page before they ask
for the next one, so a slow answer here delays the next request of its own connection only.
"""

from __future__ import annotations

import statistics
from typing import Sequence

import place
from series import Result, Run
from wrk import Contender, Load

# Milliseconds: 16 connections ask 1,000 times a second, a tenth of what one processor serves.
PAUSE = 16
SESSIONS = 20


def _result(contender: Contender, base: Contender, limit: float | None = None) -> Result:
    """Medians over rounds, and ratios to the base as medians of the rounds' ratios."""
    result: Result = {"name": contender.name, "title": contender.title, "limit": limit,
                      "per_second": statistics.median(contender.rates),
                      "cpu_us": statistics.median(contender.microseconds)}
    for name in ("p50", "p99"):
        mine, others = ([getattr(found, name) for found in each.latencies] for each in (contender, base))
        result[name + "_us"] = statistics.median(mine)
        if base is not contender:
            result[name + "_ratio"] = statistics.median(a / b for a, b in zip(mine, others))
    return result


def fixed_load(run: Run) -> list[Result]:
    """Latency under a fixed load: open page, session, no session."""
    with Load(run.extent.latency_seconds, PAUSE) as load, place.protected(run.simulator, wrapper=run.wrapper) as httpd:
        cookies = [place.sign_in(httpd)]
        opened = Contender("open", "open page, the cookie is sent", httpd, place.OPEN, 200, cookies)
        session = Contender("session", "session, Require bitbucket-workspace", httpd, place.TEAM, 200, cookies)
        plain = Contender("open_anonymous", "open page, no cookie", httpd, place.OPEN, 200)
        anonymous = Contender("anonymous", "no session: ticket and redirect", httpd, place.TEAM, 302)
        run.compare([opened, session, plain, anonymous], run.extent.other_rounds, load)
        return [_result(opened, opened), _result(session, opened), _result(plain, plain), _result(anonymous, plain)]


# -- while Bitbucket hangs

# Answers are old after a second, so that there is always something to ask.
SOON_OLD = "AuthBitbucketMembershipMaxAge 1s 1h\n"
STATES = (("calm", "Bitbucket answers", {}), ("slow", "Bitbucket takes 2 s", {"delay": 2}),
          ("hangs", "Bitbucket never answers", {"hang": True}))


def _turn(simulator: place.Simulator, fault: dict[str, object]) -> None:
    simulator.clear_faults()
    if fault:
        for route in ("token", "api"):
            simulator.fault(route, **fault)


def outage(run: Run) -> list[Result]:
    """Latency of a session while Bitbucket hangs."""
    run.simulator.settings(quota=None)
    with (Load(run.extent.latency_seconds, PAUSE) as load,
          place.protected(run.simulator, SOON_OLD, wrapper=run.wrapper) as httpd):
        cookies = [place.sign_in(httpd) for _ in range(SESSIONS)]
        states = [Contender(name, f"session, {title}", httpd, place.TEAM, 200, cookies) for name, title, _ in STATES]
        states[0].check()
        for number in range(run.extent.other_rounds):
            _rounds(run.simulator, load, states if number % 2 == 0 else states[::-1])
        return [_result(state, states[0], None if state is states[0] else 1.25) for state in states]


def _rounds(simulator: place.Simulator, load: Load, states: Sequence[Contender]) -> None:
    faults = {name: fault for name, _, fault in STATES}
    for state in states:
        _turn(simulator, faults[state.name])
        load.run(state)
