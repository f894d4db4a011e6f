"""How fresh what Bitbucket said must be, who asks, who waits, and what that costs.

httpd's clock is shifted. That a re-check in the background is over is seen in the log, where
each leaves a line after its answer is stored.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Iterator
from urllib.parse import urlsplit

import aiohttp
import pytest

from harness import tags
from harness.client import NAVIGATION, SCRIPT, Browser
from harness.clock import Clock
from harness.config import VirtualHost, place
from harness.fixtures import lasting, wanted_mpms
from harness.load import at_once
from harness.server import SANITIZED, Server
from harness.simulator import Simulator, permission_route, short_name, uuid_of
from test_cluster import redis, start_cache, start_cluster  # noqa: F401


MINUTE, HOUR, DAY = 60, 3600, 86400
SOFT, HARD, REFUSAL = 5 * MINUTE, HOUR, 15
ACCOUNT = ["emails", "user"]
ACME, GLOBEX, INITECH = "permission acme", "permission globex", "permission initechlabs"
RECHECK = "ABB0106"
# From a failed re-check to the next one at most, and how long a lease of theirs may last.
PAUSE, LEASE = 20, 55
# A Bitbucket that is slow, and an answer that cannot have waited for it.
SLOW, AT_ONCE = 2.0, 1.0
# Time-outs of httpd's questions that make a lease short: five times the second, and five seconds.
SHORT_TIMEOUTS, SHORT_LEASE = "AuthBitbucketHTTPTimeout 1s 1s\n", 10

PLACES = "\n".join([
    place("any", "Require valid-user"),
    place("team", "Require bitbucket-workspace acme"),
    place("owners", "Require bitbucket-workspace acme:owner"),
    place("globex", "Require bitbucket-workspace globex"),
    place("both", "<RequireAll>", "Require bitbucket-workspace acme", "Require bitbucket-workspace initechlabs",
          "</RequireAll>"),
    place("either", "<RequireAny>", "Require bitbucket-workspace acme", "Require bitbucket-workspace globex",
          "</RequireAny>"),
    place("one-line", "Require bitbucket-workspace acme globex"),
    place("outside", "<RequireAll>", "Require valid-user", "Require not bitbucket-workspace acme", "</RequireAll>"),
    place("neither", "<RequireAll>", "Require valid-user", "<RequireNone>", "Require bitbucket-workspace acme",
          "Require bitbucket-workspace initechlabs", "</RequireNone>", "</RequireAll>"),
    place("not-mark", "<RequireAll>", "Require valid-user", "Require not bitbucket-user mark_miller", "</RequireAll>"),
    place("by-email", "AuthBitbucketRemoteUser email", "Require valid-user"),
    place("index", "DirectoryIndex env.cgi", "Require bitbucket-workspace acme"),
    place("errors", "ErrorDocument 404 /errors/env.cgi", "Require bitbucket-workspace acme"),
    place("fallback", "FallbackResource /fallback/env.cgi", "Require bitbucket-workspace acme"),
])
STALE_PAGE = 'stale=<!--#echo var="BITBUCKET_STALE" -->;\n'
# Nothing behind it: entries end with a NUL each.
STALE_AROUND = '<!--#include virtual="env.cgi" -->'


# -- a server that most tests share; its clock only goes on

@dataclass
class House:
    server: Server
    clock: Clock
    plain: VirtualHost
    quick: VirtualHost
    equal: VirtualHost
    never: VirtualHost
    single: VirtualHost


@pytest.fixture(scope="module")
def own_house(shared_simulator: Simulator, scratch) -> Iterator[House]:
    directory = scratch / "house"
    directory.mkdir()
    clock = Clock(directory)
    plain = VirtualHost(PLACES)
    ages = [VirtualHost(f"AuthBitbucketMembershipMaxAge {ages}\n" + place("any", "Require valid-user") + "\n" +
                        place("team", "Require bitbucket-workspace acme"))
            for ages in ("1m 3m", "2m 2m", "0 0", "10m")]
    server = Server([plain, *ages], shared_simulator, wanted_mpms()[0], main="AuthBitbucketHTTPTimeout 2s 4s\n",
                    clock=clock)
    (server.content / "stale.shtml").write_text(STALE_PAGE)
    (server.content / "around.shtml").write_text(STALE_AROUND)
    with lasting(server):
        yield House(server, clock, plain, *ages)


@pytest.fixture
def house(own_house: House, log_watch) -> House:
    return own_house


class Rechecks:
    """Those that have ended since this was made."""

    def __init__(self, *servers: Server) -> None:
        self._begins = {server.error_log: server.error_log.stat().st_size for server in servers}

    def lines(self) -> list[str]:
        found = []
        for log, begin in self._begins.items():
            with open(log, "rb") as file:
                file.seek(begin)
                found += [line.decode("utf-8", "replace") for line in file if RECHECK.encode() in line]
        return found

    def asked(self) -> list[str]:
        return [line for line in self.lines() if "asked=yes" in line]

    def wait(self, count: int, seconds: float = 20) -> None:
        """Until so many have ended in all. Errors: AssertionError."""
        deadline = time.monotonic() + seconds
        while len(self.lines()) < count:
            assert time.monotonic() < deadline, f"{len(self.lines())} of {count} re-checks after {seconds} s"
            time.sleep(0.01)

    @contextmanager
    def after(self, more: int = 1) -> Iterator[None]:
        """Go on when so many more have ended."""
        before = len(self.lines())
        yield
        self.wait(before + more)


@pytest.fixture
def rechecks(house: House) -> Rechecks:
    return Rechecks(house.server)


def await_calls(simulator: Simulator, is_enough: Callable[[list[Any]], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not is_enough(simulator.calls()):
        assert time.monotonic() < deadline, f"not after {seconds} s: {simulator.asked()}"
        time.sleep(0.02)


def await_quiet(simulator: Simulator, jobs: Rechecks, seconds: float = 20) -> None:
    """Until nothing is asked any more and no re-check has just ended."""
    deadline = time.monotonic() + seconds
    before, in_a_row = None, 0
    while in_a_row < 8:
        calls = simulator.calls()
        now = (len(calls), len(jobs.lines()))
        in_a_row = in_a_row + 1 if now == before and all(call["status"] is not None for call in calls) else 0
        before = now
        assert time.monotonic() < deadline, f"still at it after {seconds} s"
        time.sleep(0.02)


def signed_in(simulator: Simulator, browser: Browser, url: str, person: str, wanted: int = 200) -> Browser:
    assert browser.sign_in(url, person).status == wanted
    simulator.forget_calls()
    return browser


def status(browser: Browser, host: VirtualHost, path: str = "/team/page.html") -> int:
    return browser.get(host.url(path), SCRIPT).status


def variables(browser: Browser, host: VirtualHost, path: str = "/team/env.cgi") -> dict[str, str]:
    answer = browser.get(host.url(path), SCRIPT)
    assert answer.status == 200, answer
    return answer.environment


def asked(simulator: Simulator) -> list[str]:
    return sorted(simulator.asked())


# -- ages

BASES = {
    "the account alone": ("mark", "/any", []),
    "one workspace": ("mark", "/team", [ACME]),
    "two, both needed": ("mark", "/both", [ACME, INITECH]),
    "the first of two": ("mark", "/either", [ACME]),
    "the second of two, and that it is not the first": ("oscar", "/either", [ACME, GLOBEX]),
    "no workspace of those": ("oscar", "/neither", [ACME, INITECH]),
    "no member": ("oscar", "/outside", [ACME]),
}


@pytest.mark.parametrize("basis", BASES)
def test_fresh_due_and_old(house, browser, simulator, rechecks, basis):
    """Fresh: nobody is asked. Due: the old answer at once, one re-check of all that it rests on, then the
    new one. Old: asked first."""
    person, path, rows = BASES[basis]
    signed_in(simulator, browser, house.plain.url(path + "/page.html"), person)

    def name() -> str:
        return variables(browser, house.plain, path + "/env.cgi")["BITBUCKET_DISPLAY_NAME"]

    first = name()
    simulator.change_account(person, display_name="Second Name")
    house.clock.advance(SOFT - 30)
    assert name() == first
    assert (simulator.asked(), rechecks.lines()) == ([], []), "fresh"

    house.clock.advance(MINUTE)
    with rechecks.after(1):
        assert name() == first, "due: the answer that is there"
    assert name() == "Second Name", "and the next request has the new one"
    assert asked(simulator) == sorted(ACCOUNT + rows)
    assert len(rechecks.lines()) == 1, "one, and the request after it needs none"

    simulator.change_account(person, display_name="Third Name")
    simulator.forget_calls()
    house.clock.advance(HARD + 5)
    assert name() == "Third Name", "old: asked first"
    assert sorted(set(simulator.asked())) == sorted(simulator.asked()), "each question once"
    assert set(ACCOUNT + rows) <= set(simulator.asked())


def test_within_hard_nobody_waits_and_beyond_it_everybody_does(house, browser, simulator, rechecks):
    """Seen by the order: the answer came before the question was answered, or after it."""
    simulator.settings(access_token_lifetime=DAY)
    signed_in(simulator, browser, house.plain.url("/team/page.html"), "mark")
    simulator.fault("api", delay=0.5)
    for age, waits in ((HARD - 30, False), (HARD + 5, True)):
        simulator.forget_calls()
        house.clock.advance(age)
        with rechecks.after(1):
            began = time.time()
            assert status(browser, house.plain) == 200
            ended = time.time()
        calls = simulator.calls()
        assert sorted(map(short_name, calls)) == sorted([*ACCOUNT, ACME])
        assert all((call["finished"] < ended) == waits for call in calls), (age, began, ended, calls)


def test_many_requests_at_once_that_are_due_ask_once(house, browser, simulator, rechecks):
    signed_in(simulator, browser, house.plain.url("/team/page.html"), "mark")
    simulator.fault("api", delay=0.3)
    house.clock.advance(SOFT + 5)
    with ThreadPoolExecutor(10) as pool:
        statuses = list(pool.map(lambda _: status(browser, house.plain), range(60)))
    rechecks.wait(1)
    await_quiet(simulator, rechecks)
    assert statuses == [200] * 60
    assert asked(simulator) == sorted([*ACCOUNT, ACME])


def test_what_a_request_does_not_rest_on_is_not_asked(house, browser, simulator, rechecks):
    """The host's rules name three workspaces; each is asked about by who needs it."""
    signed_in(simulator, browser, house.plain.url("/team/page.html"), "mark")
    house.clock.advance(SOFT + 5)
    with rechecks.after(1):
        assert status(browser, house.plain, "/any/page.html") == 200
    assert asked(simulator) == ACCOUNT
    house.clock.advance(3)
    with rechecks.after(1):
        assert status(browser, house.plain, "/team/page.html") == 200
    assert asked(simulator) == sorted([*ACCOUNT, ACME]), "the account was fresh by then"


def test_an_idle_session_costs_nothing(house, browser, new_browser, simulator, rechecks):
    signed_in(simulator, browser, house.plain.url("/team/page.html"), "mark")
    signed_in(simulator, new_browser(), house.plain.url("/team/page.html"), "olivia")
    for _ in range(5):
        house.clock.advance(SOFT + 5)
        with rechecks.after(1):
            assert status(browser, house.plain) == 200
    assert {call["account"] for call in simulator.calls()} == {"mark"}


# -- other ages

def test_zero_asks_on_every_request(house, browser, simulator, rechecks, logs):
    signed_in(simulator, browser, house.never.url("/team/page.html"), "mark")
    for number in range(1, 4):
        simulator.forget_calls()
        assert status(browser, house.never) == 200
        assert asked(simulator) == sorted([*ACCOUNT, ACME]), f"request {number}"
    simulator.set_membership("acme", "mark", None)
    assert status(browser, house.never) == 403, "out at once"
    simulator.set_membership("acme", "mark", "member")
    assert status(browser, house.never) == 200, "in at once"
    logs.expect(tags.ANSWERED, "503")
    simulator.fault("api", status=503)
    assert status(browser, house.never) == 503, "and what was said before counts for nothing"


def test_equal_ages_are_a_strict_bound(house, browser, simulator, rechecks):
    signed_in(simulator, browser, house.equal.url("/team/page.html"), "mark")
    simulator.set_membership("acme", "mark", None)
    house.clock.advance(100)
    assert status(browser, house.equal) == 200
    assert (simulator.asked(), rechecks.lines()) == ([], [])
    house.clock.advance(25)
    assert status(browser, house.equal) == 403, "the first request after the bound"
    assert asked(simulator) == sorted([*ACCOUNT, ACME])


def test_each_virtual_host_has_its_ages(house, new_browser, simulator, rechecks):
    hosts = {"plain": house.plain, "quick": house.quick, "single": house.single}
    browsers = {name: signed_in(simulator, new_browser(), host.url("/team/page.html"), "mark")
                for name, host in hosts.items()}

    def questions(name: str) -> list[str]:
        """Of one request that is served, and of the re-check it starts, if any."""
        simulator.forget_calls()
        before = len(rechecks.lines())
        assert status(browsers[name], hosts[name]) == 200
        if name == due:
            rechecks.wait(before + 1)
        return asked(simulator)

    due = "quick"
    house.clock.advance(MINUTE + 10)
    assert [len(questions(name)) for name in hosts] == [0, 3, 0], "after a minute"
    due = "plain"
    house.clock.advance(SOFT - MINUTE + 10)
    # The quick one's answer is older than its hard age by now: it asks, and waits.
    assert [len(questions(name)) for name in hosts] == [3, 3, 0], "after five"
    due = "none of them"
    house.clock.advance(SOFT - MINUTE)
    assert [len(questions(name)) for name in ("single", "plain")] == [0, 0], "soft alone: ten minutes"
    due = "single"
    house.clock.advance(MINUTE + 20)
    assert len(questions("single")) == 3


@pytest.mark.parametrize("value, named", [
    ("5m 1m", "5m 1m"), ("2h 1h", "2h 1h"), ("1s 0", "1s 0"),
    ("-1s", "-1s"), ("-1", "-1"), ("5m -1s", "-1s"), ("0 -1", "-1"),
    ("soon", "soon"), ("5m later", "later"), ("5x", "5x"), ("5m1h", "5m1h"), ("1.5m", "1.5m"),
    ("31d 31d", "31d"), ("5m 31d", "31d"), ("99999999999999999999s 1h", "99999999999999999999s"),
    ("2h", "2h"), ("3601s", "3601s"),
])
def test_bad_ages_stop_httpd(start_server, value, named):
    for where in ("main", "host"):
        line = f"AuthBitbucketMembershipMaxAge {value}\n"
        host = VirtualHost((line if where == "host" else "") + place("any", "Require valid-user"))
        done = start_server.prepare(host, main=line if where == "main" else "").run("-t")
        assert done.returncode != 0, f"{where}: {done.stdout}"
        assert "AuthBitbucketMembershipMaxAge" in done.stdout and f"'{named}'" in done.stdout, done.stdout


@pytest.mark.parametrize("value", ["0 0", "0s 1s", "5m", "1h", "60m 1h", "1h 30d", "30d 30d", "90 90"])
def test_good_ages(start_server, value):
    done = start_server.prepare(VirtualHost(f"AuthBitbucketMembershipMaxAge {value}\n" +
                                            place("any", "Require valid-user"))).run("-t")
    assert done.returncode == 0, done.stdout


# -- who is out, who is in

LOSSES = {
    "removed from the workspace": ("mark", "/team", "acme", None, [ACME]),
    "removed from one of two that are needed": ("mark", "/both", "InitechLabs", None, [ACME, INITECH]),
    "removed from the one that let in": ("oscar", "/either", "globex", None, [ACME, GLOBEX]),
    "an owner no more": ("olivia", "/owners", "acme", "member", [ACME]),
    "added where members are not wanted": ("oscar", "/outside", "acme", "member", [ACME]),
    "added to one of those that are not wanted": ("oscar", "/neither", "InitechLabs", "member", [ACME, INITECH]),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_out_after_soft_one_request_and_the_answer(house, browser, simulator, rechecks, loss):
    person, path, workspace, permission, rows = LOSSES[loss]
    path += "/page.html"
    signed_in(simulator, browser, house.plain.url(path), person)
    simulator.set_membership(workspace, person, permission)
    house.clock.advance(SOFT - 30)
    assert status(browser, house.plain, path) == 200
    house.clock.advance(MINUTE)
    with rechecks.after(1):
        assert status(browser, house.plain, path) == 200
    assert status(browser, house.plain, path) == 403
    assert asked(simulator) == sorted(ACCOUNT + rows), "the refusal needs no question of its own"
    assert status(browser, house.plain, "/any/page.html") == 200, "and the session goes on"


@pytest.mark.parametrize("loss", LOSSES)
def test_never_in_after_hard(house, browser, simulator, loss):
    person, path, workspace, permission, _ = LOSSES[loss]
    signed_in(simulator, browser, house.plain.url(path + "/page.html"), person)
    simulator.set_membership(workspace, person, permission)
    house.clock.advance(HARD + 5)
    assert status(browser, house.plain, path + "/page.html") == 403


GAINS = {
    "added": ("oscar", "/team", "acme", "member", [ACME]),
    "made an owner": ("mark", "/owners", "acme", "owner", [ACME]),
    "added to one of two": ("carla", "/either", "globex", "member", [ACME, GLOBEX]),
    "added to one of two in a line": ("carla", "/one-line", "globex", "member", [ACME, GLOBEX]),
    "removed where members are not wanted": ("mark", "/outside", "acme", None, [ACME]),
    "removed from the one that is not wanted": ("olivia", "/neither", "acme", None, [ACME]),
}


@pytest.mark.parametrize("gain", GAINS)
def test_in_at_once(house, browser, simulator, gain):
    """The refusal would rest on an answer older than 15 seconds: it asks, whatever soft is."""
    person, path, workspace, permission, rows = GAINS[gain]
    path += "/page.html"
    signed_in(simulator, browser, house.plain.url(path), person, 403)
    simulator.set_membership(workspace, person, permission)
    assert status(browser, house.plain, path) == 403 and simulator.asked() == []
    house.clock.advance(REFUSAL + 1)
    assert status(browser, house.plain, path) == 200
    assert asked(simulator) == rows


def test_a_refusal_asks_once_in_15_seconds_and_row(house, browser, simulator):
    signed_in(simulator, browser, house.plain.url("/globex/page.html"), "carla", 403)
    paths = ["/team/page.html", "/globex/page.html", "/team/page.html", "/either/page.html", "/one-line/page.html"]
    for turn in range(1, 4):
        house.clock.advance(REFUSAL + 1)
        assert {status(browser, house.plain, path) for path in paths} == {403}
        assert Counter(simulator.asked()) == {ACME: turn, GLOBEX: turn}


def test_20_refusals_at_once_ask_once(house, browser, simulator):
    signed_in(simulator, browser, house.plain.url("/team/page.html"), "oscar", 403)
    simulator.fault("permission", delay=0.3)
    house.clock.advance(REFUSAL + 1)
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: status(browser, house.plain), range(20)))
    assert statuses == [403] * 20
    assert simulator.asked() == [ACME]


def test_20_at_once_after_somebody_was_added_are_all_in(house, browser, simulator):
    signed_in(simulator, browser, house.plain.url("/team/page.html"), "oscar", 403)
    simulator.set_membership("acme", "oscar", "member")
    simulator.fault("permission", delay=0.3)
    house.clock.advance(REFUSAL + 1)
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: status(browser, house.plain), range(20)))
    assert statuses == [200] * 20
    assert simulator.asked() == [ACME]


def times_of(browser: Browser, host: VirtualHost, path: str, count: int) -> list[float]:
    """Seconds of requests that are served."""
    found = []
    for _ in range(count):
        began = time.monotonic()
        assert status(browser, host, path) == 200
        found.append(time.monotonic() - began)
    return found


def assert_nobody_waited(quick: list[float], slow: list[float]) -> None:
    """The typical request takes as long as with a quick Bitbucket; none waits for a slow one."""
    tell = f"medians {statistics.median(quick) * 1000:.1f} and {statistics.median(slow) * 1000:.1f} ms, " \
           f"slowest {max(quick) * 1000:.0f} and {max(slow) * 1000:.0f} ms"
    assert statistics.median(slow) < 4 * statistics.median(quick) + 0.01, tell
    assert max(slow) < AT_ONCE, tell


@pytest.mark.alone
@pytest.mark.parametrize("path", ["/either/page.html", "/one-line/page.html"])
def test_members_of_the_second_never_wait_because_of_the_first(start_server, clock, browser, simulator, path):
    """Beyond the hard age of the first answers, too: what a request has rested on is renewed with the rest."""
    host = VirtualHost("AuthBitbucketMembershipMaxAge 10m 20m\n" + PLACES)
    server = start_server(host, clock=clock)
    jobs = Rechecks(server)
    signed_in(simulator, browser, host.url(path), "oscar")
    seconds = []
    for delay in (0.0, SLOW):
        simulator.clear_faults()
        simulator.fault("api", delay=delay)
        taken = []
        for minute in range(8, 33, 8):
            clock.advance(8 * MINUTE)
            with jobs.after(1 if minute % 16 == 0 else 0):
                taken += times_of(browser, host, path, 10)
        seconds.append(taken)
    assert simulator.asked().count(GLOBEX) == 4
    assert_nobody_waited(*seconds)


# -- with Require valid-user alone

def deactivate(simulator: Simulator) -> None:
    simulator.change_account("mark", account_status="inactive")


def make_a_bot(simulator: Simulator) -> None:
    simulator.change_account("mark", type="app_user")


def revoke(simulator: Simulator) -> None:
    simulator.end_tokens("all", account="mark", revoke=True)


ENDS = {"deactivated": (deactivate, "inactive"), "a bot": (make_a_bot, "app_user"), "revoked": (revoke, "refresh")}


@pytest.mark.parametrize("client", ["navigation", "script"])
@pytest.mark.parametrize("end", ENDS)
def test_a_session_ends_in_the_background(house, browser, simulator, rechecks, logs, end, client):
    happen, word = ENDS[end]
    signed_in(simulator, browser, house.plain.url("/any/page.html"), "mark")
    happen(simulator)
    house.clock.advance(SOFT - 30)
    assert status(browser, house.plain, "/any/page.html") == 200 and simulator.asked() == []
    house.clock.advance(MINUTE)
    with rechecks.after(1):
        assert status(browser, house.plain, "/any/page.html") == 200, "nobody knows yet"
    line, = logs.lines(tags.ENDED)
    assert line.level == "info" and uuid_of("mark") in line.text and word in line.text
    if client == "navigation":
        answer = browser.get(house.plain.url("/any/page.html"))
        assert answer.status == 302 and answer.location.startswith(simulator.authorize_url)
    else:
        answer = browser.get(house.plain.url("/any/page.html"), SCRIPT)
        assert (answer.status, answer.location, answer.tickets) == (401, None, [])


@pytest.mark.parametrize("end", ENDS)
def test_a_session_ends_at_hard_at_the_latest(house, browser, simulator, logs, end):
    signed_in(simulator, browser, house.plain.url("/any/page.html"), "mark")
    ENDS[end][0](simulator)
    house.clock.advance(HARD + 5)
    answer = browser.get(house.plain.url("/any/page.html"))
    assert answer.status == 302 and answer.location.startswith(simulator.authorize_url)
    assert [line.level for line in logs.lines(tags.ENDED)] == ["info"]


def test_changed_names_reach_the_application(house, browser, simulator, rechecks):
    signed_in(simulator, browser, house.plain.url("/any/page.html"), "mark")
    simulator.change_account("mark", username="marcus", nickname="marky", display_name="Marcus Miller",
                             emails=[{"email": "marcus@acme.example", "is_primary": True, "is_confirmed": True}])
    house.clock.advance(SOFT + 5)
    with rechecks.after(1):
        seen = variables(browser, house.plain, "/any/env.cgi")
    assert (seen["REMOTE_USER"], seen["BITBUCKET_EMAIL"]) == ("mark_miller", "mark@acme.example")
    seen = variables(browser, house.plain, "/any/env.cgi")
    assert {name: seen[name] for name in seen if name.startswith("BITBUCKET_") or name == "REMOTE_USER"} | {
        "REMOTE_USER": "marcus", "BITBUCKET_USERNAME": "marcus", "BITBUCKET_NICKNAME": "marky",
        "BITBUCKET_DISPLAY_NAME": "Marcus Miller", "BITBUCKET_FIRST_NAME": "Marcus", "BITBUCKET_LAST_NAME": "Miller",
        "BITBUCKET_EMAIL": "marcus@acme.example", "BITBUCKET_UUID": uuid_of("mark")} == \
        {name: seen[name] for name in seen if name.startswith("BITBUCKET_") or name == "REMOTE_USER"}
    told = browser.get(house.plain.endpoint("userinfo")).json
    assert (told["username"], told["email"]) == ("marcus", "marcus@acme.example")


def test_no_workspace_is_told_beyond_the_hard_age(house, browser, simulator):
    """No rule of the page asks for them, so nobody has asked Bitbucket again."""
    signed_in(simulator, browser, house.plain.url("/both/page.html"), "mark")
    house.clock.advance(HARD - 60)
    assert variables(browser, house.plain, "/team/env.cgi")["BITBUCKET_WORKSPACES"] == "acme:member initechlabs:member"
    await_calls(simulator, lambda calls: len(calls) > 0)
    house.clock.advance(65)
    seen = variables(browser, house.plain, "/any/env.cgi")
    assert seen["BITBUCKET_WORKSPACES"] == "acme:member", "initechlabs was asked about an hour ago"
    assert [row["slug"] for row in browser.get(house.plain.endpoint("userinfo")).json["workspaces"]] == ["acme"]
    house.clock.advance(HARD + 5)
    assert "BITBUCKET_WORKSPACES" not in variables(browser, house.plain, "/any/env.cgi")
    assert browser.get(house.plain.endpoint("userinfo")).json["workspaces"] == []
    assert variables(browser, house.plain, "/both/env.cgi")["BITBUCKET_WORKSPACES"] == "acme:member initechlabs:member"


def test_what_a_rule_has_asked_reaches_the_application_at_once(house, browser, simulator):
    signed_in(simulator, browser, house.plain.url("/any/page.html"), "mark")
    assert variables(browser, house.plain, "/team/env.cgi")["BITBUCKET_WORKSPACES"] == "acme:member initechlabs:member"
    simulator.change_account("mark", username="marcus")
    simulator.set_membership("acme", "mark", "owner")
    house.clock.advance(HARD + 5)
    assert status(browser, house.plain, "/any/page.html") == 200
    seen = variables(browser, house.plain, "/team/env.cgi")
    assert (seen["REMOTE_USER"], seen["BITBUCKET_WORKSPACES"]) == ("marcus", "acme:owner")


def test_a_refusal_by_name_is_asked_about(house, browser, simulator):
    """Whoever has given up a name that is kept out comes in with the next request."""
    signed_in(simulator, browser, house.plain.url("/any/page.html"), "mark")
    assert status(browser, house.plain, "/not-mark/page.html") == 403
    simulator.change_account("mark", username="marcus")
    house.clock.advance(16)
    assert status(browser, house.plain, "/not-mark/page.html") == 200


def test_remote_user_may_be_an_address_that_changes(house, browser, simulator, rechecks, logs):
    signed_in(simulator, browser, house.plain.url("/by-email/page.html"), "mark")
    simulator.change_account("mark", emails=[{"email": "new@acme.example", "is_primary": True, "is_confirmed": True}])
    house.clock.advance(SOFT + 5)
    with rechecks.after(1):
        assert variables(browser, house.plain, "/by-email/env.cgi")["REMOTE_USER"] == "mark@acme.example"
    assert variables(browser, house.plain, "/by-email/env.cgi")["REMOTE_USER"] == "new@acme.example"
    simulator.change_account("mark", emails=[])
    house.clock.advance(SOFT + 5)
    with rechecks.after(1):
        assert variables(browser, house.plain, "/by-email/env.cgi")["REMOTE_USER"] == "new@acme.example"
    logs.allow(tags.ANSWERED, "email")
    assert status(browser, house.plain, "/by-email/page.html") == 403, "no address, no such user"
    assert "BITBUCKET_EMAIL" not in variables(browser, house.plain, "/any/env.cgi")


# -- nobody waits

PEOPLE = ["mark", "olivia", "priya", "zoe"]


@pytest.mark.alone
def test_nobody_waits_for_a_slow_bitbucket(start_server, clock, new_browser, simulator, mpm):
    host = VirtualHost(PLACES)
    server = start_server(host, mpm=mpm, clock=clock)
    jobs = Rechecks(server)
    browsers = [signed_in(simulator, new_browser(), host.url("/team/page.html"), person) for person in PEOPLE]
    seconds = []
    for delay in (0.0, SLOW):
        simulator.clear_faults()
        simulator.fault("api", delay=delay)
        clock.advance(SOFT + 5)
        simulator.forget_calls()
        with jobs.after(len(browsers)):
            seconds.append([taken for _ in range(10) for browser in browsers
                            for taken in times_of(browser, host, "/team/page.html", 1)])
            if delay:
                assert any(call["status"] is None for call in simulator.calls()), "they are under way all the time"
        assert Counter(simulator.asked()) == {"user": 4, "emails": 4, ACME: 4}
    assert_nobody_waited(*seconds)


# -- one refresh

@pytest.fixture
def refresher(start_server, clock):
    """Start a server with ages of its own, sign somebody in, and let the tokens run out."""
    def start(mpm: str, directives: str = "") -> tuple[VirtualHost, Server]:
        host = VirtualHost(directives + PLACES)
        return host, start_server(host, mpm=mpm, clock=clock)
    return start


def refreshes(simulator: Simulator) -> list[Any]:
    return [call for call in simulator.calls("token") if call["grant_type"] == "refresh_token"]


@pytest.mark.parametrize("age, count", [("due", 1000), ("old", 100)])
def test_a_thousand_requests_at_once_refresh_once(refresher, clock, browser, simulator, logs, mpm, figure, age, count):
    host, server = refresher(mpm)
    jobs = Rechecks(server)
    signed_in(simulator, browser, host.url("/team/page.html"), "mark")
    simulator.settings(refresh_overlap=0)
    simulator.end_tokens("access", account="mark")
    clock.advance((SOFT if age == "due" else HARD) + 5)
    headers = {**SCRIPT, "Cookie": browser.jar.line("localhost", False)}
    outcome = at_once([host.url("/team/page.html")] * count, headers)
    jobs.wait(1)
    await_quiet(simulator, jobs)
    figure(f"{count:,} at once, the slowest", 1000 * outcome.slowest, "ms")
    assert outcome.statuses == {200: count}, outcome
    assert [call["status"] for call in refreshes(simulator)] == [200]
    good = [short_name(call) for call in simulator.calls() if call["status"] == 200]
    assert sorted(good) == sorted([*ACCOUNT, ACME, "refresh"])
    assert logs.lines(tags.ENDED) == []
    simulator.end_tokens("access", account="mark")
    clock.advance(SOFT + 5)
    with jobs.after(1):
        assert status(browser, host) == 200
    assert [call["status"] for call in refreshes(simulator)] == [200, 200], "the pair that was kept is the newest"
    assert status(browser, host) == 200


def status_at_last(browser: Browser, host: VirtualHost, path: str = "/team/page.html") -> int:
    """Of the first answer: a connection that a dead child had accepted is closed without one."""
    deadline = time.monotonic() + 15
    while True:
        try:
            return status(browser, host, path)
        except (AssertionError, OSError) as problem:
            assert isinstance(problem, OSError) or "connection was closed" in str(problem)
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_the_new_pair_is_stored_before_it_is_used(refresher, clock, browser, simulator, logs):
    """The process dies between the refresh and the first answer to the new token; nothing is lost, though
    a used refresh token is good for nothing here."""
    logs.forgive("exit signal Killed")
    host, server = refresher(wanted_mpms()[0], SHORT_TIMEOUTS)
    jobs = Rechecks(server)
    simulator.settings(access_token_lifetime=30, refresh_overlap=0)
    signed_in(simulator, browser, host.url("/team/page.html"), "mark")
    simulator.settings(access_token_lifetime=7200)
    simulator.fault("api", hang=True)
    clock.advance(SOFT + 5)
    assert status(browser, host) == 200
    await_calls(simulator, lambda calls: any(short_name(call) == "user" for call in calls))
    server.kill_children()
    assert simulator.asked().count("refresh") == 1 and jobs.lines() == [], "it died in the midst of it"
    simulator.clear_faults()
    clock.advance(SHORT_LEASE + 1)
    with jobs.after(1):
        assert status_at_last(browser, host) == 200
    assert "outcome=answered" in jobs.lines()[-1]
    assert [call["status"] for call in refreshes(simulator)] == [200], "no second refresh"
    assert status(browser, host) == 200


def test_a_child_killed_during_a_refresh_is_replaced(refresher, clock, browser, simulator, logs):
    """When its lease has run out; Bitbucket takes the used token a while longer."""
    logs.forgive("exit signal Killed")
    host, server = refresher(wanted_mpms()[0], SHORT_TIMEOUTS)
    jobs = Rechecks(server)
    signed_in(simulator, browser, host.url("/team/page.html"), "mark")
    simulator.end_tokens("access", account="mark")
    simulator.fault("token", hang=True, effect=True)
    clock.advance(SOFT + 5)
    assert status(browser, host) == 200
    await_calls(simulator, lambda calls: any(short_name(call) == "refresh" for call in calls))
    server.kill_children()
    simulator.clear_faults()
    clock.advance(3)
    assert status_at_last(browser, host) == 200
    assert (len(refreshes(simulator)), jobs.lines()) == (1, []), "the dead one's lease goes on"
    clock.advance(SHORT_LEASE)
    with jobs.after(1):
        assert status(browser, host) == 200
    assert "asked=yes outcome=answered" in jobs.lines()[-1]
    assert len(refreshes(simulator)) == 2
    assert status(browser, host) == 200 and logs.lines(tags.ENDED) == []


@pytest.mark.parametrize("path, age, answered", [
    ("/any", SOFT + 5, 200),
    ("/any", HARD + 5, 401),
    ("/globex", REFUSAL + 1, 401),  # Only the row is asked for, and whose the new tokens are.
])
def test_tokens_that_became_another_accounts(house, browser, simulator, rechecks, logs, path, age, answered):
    """The session is over for everybody who has its cookie."""
    logs.expect(tags.ANOTHER_ACCOUNT)
    signed_in(simulator, browser, house.plain.url(path + "/page.html"), "mark", 403 if path == "/globex" else 200)
    simulator.end_tokens("access", account="mark")
    simulator.fault("user", merge={"uuid": "{" + uuid_of("olivia") + "}"})
    house.clock.advance(age)
    with rechecks.after(1):
        first = browser.get(house.plain.url(path + "/env.cgi"), SCRIPT)
    assert first.status == answered
    assert uuid_of("olivia") not in first.text and "olivia" not in first.text
    line, = logs.lines(tags.ANOTHER_ACCOUNT)
    assert line.level == "error" and uuid_of("mark") in line.text
    answer = browser.get(house.plain.url("/any/env.cgi"), SCRIPT)
    assert (answer.status, answer.location) == (401, None)


@pytest.mark.one_mpm
def test_two_machines_refresh_twice_at_most(start_cluster, redis, browser, simulator, logs, mpm):  # noqa: F811
    """A cache that machines share knows no lease over all of them; Bitbucket's overlap covers that."""
    cluster = start_cluster(redis.specification, mpm=mpm, directives="AuthBitbucketMembershipMaxAge 1s 1h\n" + PLACES)
    jobs = Rechecks(*cluster.servers)
    signed_in(simulator, browser, cluster.url("/team/page.html"), "mark")
    await_quiet(simulator, jobs)
    simulator.end_tokens("access", account="mark")
    simulator.fault("token", delay=0.2)
    simulator.forget_calls()
    deadline = time.monotonic() + 10
    statuses: Counter[int] = Counter()
    with ThreadPoolExecutor(8) as pool:
        while not refreshes(simulator) or sum(statuses.values()) < 160:
            assert time.monotonic() < deadline
            statuses.update(pool.map(lambda number: status(browser, cluster.nodes[number % 2]), range(32)))
    await_quiet(simulator, jobs)
    assert set(statuses) == {200}
    assert 1 <= len(refreshes(simulator)) <= 2
    assert {call["status"] for call in refreshes(simulator)} == {200}
    assert [status(browser, node) for node in cluster.nodes] == [200, 200]
    assert logs.lines(tags.ENDED) == []


# -- Bitbucket's limits

SESSIONS_OF_ONE, IDLE = 20, 5
LIMIT, LIMIT_OF_SESSION = 1000, 48


@pytest.mark.alone
def test_an_hour_of_work_stays_within_the_limit(start_server, clock, new_browser, simulator, capsys):
    """A request each minute by each of 100 sessions: five people with 20 each, which nobody has, remain below
    Bitbucket's 1,000 an hour for each, and the simulator counts along."""
    people = [*PEOPLE, "una"]
    minutes = 20 if SANITIZED else 60
    host = VirtualHost(PLACES)
    server = start_server(host, clock=clock)
    # Sign-ins are not part of the hour.
    simulator.settings(quota=None)
    cookies: list[str] = []
    for person in [*people, "pat"]:
        simulator.settings(auto_account=person)
        for _ in range(IDLE if person == "pat" else SESSIONS_OF_ONE):
            browser = new_browser()
            assert browser.walk(browser.get(host.url("/team/page.html")))[-1].status == 200
            cookies.append(browser.jar.line("localhost", False))
    simulator.settings(auto_account=None)
    del cookies[-IDLE:]
    simulator.forget_calls()
    jobs = Rechecks(server)
    calls: Counter[str] = Counter()
    statuses: Counter[int] = Counter()
    began = time.monotonic()
    for _ in range(minutes):
        clock.advance(MINUTE)
        statuses += ask_each(host.url("/team/page.html"), cookies)
        await_quiet(simulator, jobs)
        calls.update(call["account"] for call in simulator.calls())
        simulator.forget_calls()
    per_session = max(calls.values()) / SESSIONS_OF_ONE * 60 / minutes
    with capsys.disabled():
        print(f"\n{len(cookies)} sessions, {minutes} minutes in {time.monotonic() - began:.1f} s: "
              f"at most {per_session:.1f} calls per session and hour")
    assert statuses == {200: minutes * len(cookies)}
    assert set(calls) == set(people), "who was idle was not asked about"
    assert 30 <= min(calls.values()) / SESSIONS_OF_ONE * 60 / minutes, "each was asked about all the time"
    assert per_session <= LIMIT_OF_SESSION
    assert SESSIONS_OF_ONE * per_session < LIMIT


def ask_each(url: str, cookies: list[str]) -> Counter[int]:
    """One request of each, eight at a time."""
    async def ask() -> list[int]:
        parts = urlsplit(url)
        here = f"http://127.0.0.1:{parts.port}{parts.path}"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=8),
                                         cookie_jar=aiohttp.DummyCookieJar()) as client:
            async def one(cookie: str) -> int:
                headers = {**SCRIPT, "Host": parts.netloc, "Cookie": cookie}
                async with client.get(here, headers=headers, allow_redirects=False) as answer:
                    await answer.read()
                    return answer.status
            return list(await asyncio.gather(*map(one, cookies)))

    return Counter(asyncio.run(ask()))


# -- clocks that jump

@pytest.mark.parametrize("hours", [1, -1, 2, -2])
def test_a_jump_of_the_clock_is_no_storm(start_server, clock, new_browser, simulator, logs, hours):
    """With rows that are due and re-checks under way at that moment."""
    # Whoever asked before the jump may find that another has taken over since.
    logs.allow(tags.NOT_RENEWED, "changed while it was re-checked")
    host = VirtualHost(PLACES)
    server = start_server(host, clock=clock)
    jobs = Rechecks(server)
    browsers = [signed_in(simulator, new_browser(), host.url("/team/page.html"), person) for person in PEOPLE]
    clock.advance(SOFT + 5)
    simulator.fault("api", delay=0.7, times=3 * len(browsers))
    assert [status(browser, host) for browser in browsers] == [200] * len(browsers)
    await_calls(simulator, lambda calls: len(calls) == 3 * len(browsers))
    simulator.forget_calls()
    clock.advance(hours * HOUR)
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda number: status(browsers[number % len(browsers)], host), range(40)))
    await_quiet(simulator, jobs)
    assert statuses == [200] * 40
    asked_of = Counter((call["account"], short_name(call)) for call in simulator.calls())
    assert max(asked_of.values(), default=0) <= 1, asked_of
    assert [status(browser, host) for browser in browsers] == [200] * len(browsers), "sessions live on"
    simulator.set_membership("acme", "mark", None)
    before = len(simulator.calls())
    clock.advance(SOFT + 5)
    with jobs.after(1):
        assert status(browsers[0], host) == 200
    assert status(browsers[0], host) == 403, "and all goes on as before"
    assert len(simulator.calls()) == before + 3


def test_a_dead_ones_lease_does_not_outlive_a_jump_back(refresher, clock, browser, simulator, logs):
    logs.forgive("exit signal Killed")
    host, server = refresher(wanted_mpms()[0])
    signed_in(simulator, browser, host.url("/team/page.html"), "mark")
    simulator.fault("api", hang=True)
    clock.advance(SOFT + 5)
    assert status(browser, host) == 200
    await_calls(simulator, lambda calls: len(calls) == 3)
    server.kill_children()
    simulator.clear_faults()
    clock.advance(-2 * HOUR)
    began = time.monotonic()
    assert status_at_last(browser, host) == 200
    assert time.monotonic() - began < LEASE / 2, "it did not wait for the dead one"


@pytest.mark.parametrize("hours", [-2, 2])
def test_no_jump_lengthens_a_session_by_more_than_itself(start_server, clock, browser, simulator, hours):
    host = VirtualHost("AuthBitbucketSessionTimeout 7d 7d\n" + place("any", "Require valid-user"))
    start_server(host, clock=clock)
    signed_in(simulator, browser, host.url("/any/page.html"), "mark")
    clock.advance(hours * HOUR)
    assert status(browser, host, "/any/page.html") == 200
    # The time by the clock counts: after a jump back it comes two hours later, and not more.
    clock.set(7 * DAY - MINUTE)
    assert status(browser, host, "/any/page.html") == 200
    clock.set(7 * DAY + 5)
    assert status(browser, host, "/any/page.html") == 401


@pytest.mark.parametrize("hours", [-1, -2])
def test_a_jump_back_makes_no_answer_good_for_longer(start_server, clock, browser, simulator, hours):
    """An answer that lies ahead counts for nothing: who was removed is out with the next request."""
    host = VirtualHost(PLACES)
    start_server(host, clock=clock)
    signed_in(simulator, browser, host.url("/team/page.html"), "mark")
    simulator.set_membership("acme", "mark", None)
    clock.advance(hours * HOUR)
    assert status(browser, host) == 403
    assert asked(simulator).count(ACME) == 1


# -- ends of children

def signal_and_wait(server: Server, how: int) -> float:
    """Seconds until all children of now are gone."""
    before = set(server.children())
    began = time.monotonic()
    os.kill(server.pid, how)
    while before & set(server.children()):
        assert time.monotonic() - began < 20, "children stayed"
        time.sleep(0.01)
    return time.monotonic() - began


def hang_jobs(simulator: Simulator, host: VirtualHost, clock: Clock, browsers: list[Browser], wanted: int) -> None:
    """Re-checks of so many sessions are under way and will not end."""
    simulator.fault("api", hang=True)
    simulator.forget_calls()
    clock.advance(SOFT + 5)
    deadline = time.monotonic() + 15
    while len(simulator.calls()) < 3 * wanted:
        assert time.monotonic() < deadline, simulator.asked()
        assert [status_at_last(browser, host) for browser in browsers] == [200] * len(browsers)
        # A session is re-checked once in two seconds at most.
        clock.advance(2)


def limit_connections(server: Server) -> None:
    """One for each child; many children, since others come by the second only."""
    many = "StartServers 20\nMinSpareServers 15" if server.mpm == "prefork" else "StartServers 4\nMinSpareThreads 90"
    server.config_file.write_text(f"{server.config_file.read_text()}\nMaxConnectionsPerChild 1\n{many}\n")
    server.reload(signal.SIGUSR1)


@pytest.mark.alone
@pytest.mark.parametrize("how", ["SIGUSR1", "SIGHUP", "SIGTERM"])
def test_children_end_with_jobs_under_way(start_server, clock, new_browser, simulator, logs, mpm, how):
    """Within a second of what they take without any."""
    host = VirtualHost(PLACES)
    server = start_server(host, mpm=mpm, clock=clock)

    def stop_and_start() -> float:
        starts = server.error_log.read_text().count("resuming normal operations")
        seconds = signal_and_wait(server, getattr(signal, how))
        if how == "SIGTERM":
            server.stop()
            server.start()
        else:
            deadline = time.monotonic() + 20
            while server.error_log.read_text().count("resuming normal operations") == starts:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        return seconds

    idle = min(stop_and_start() for _ in range(2))
    browsers = [signed_in(simulator, new_browser(), host.url("/team/page.html"), person) for person in PEOPLE]
    hang_jobs(simulator, host, clock, browsers, len(browsers))
    busy = stop_and_start()
    assert busy < idle + 1, f"{busy:.2f} s with jobs, {idle:.2f} s without"
    simulator.clear_faults()
    if how != "SIGTERM":
        clock.advance(LEASE + PAUSE)
        with Rechecks(server).after(1):
            assert status_at_last(browsers[0], host) == 200
    assert logs.lines(tags.ENDED) == []


@pytest.mark.alone
@pytest.mark.only_mpms("worker", "prefork")
def test_children_of_one_connection_end_with_jobs_under_way(start_server, clock, new_browser, simulator, logs, mpm):
    """MaxConnectionsPerChild 1: each request is its child's last. Within a second of what it takes without jobs.

    Not on event: where a child's only connection is over before its listener looks again, the listener waits
    for ever (httpd 2.4.71), without a job, and without this module.
    """
    host = VirtualHost(PLACES)
    server = start_server(host, mpm=mpm, clock=clock)
    access_log = server.root / "logs" / "access.log"
    browsers = [signed_in(simulator, new_browser(), host.url("/team/page.html"), person) for person in PEOPLE]
    limit_connections(server)

    def seconds_until_gone() -> float:
        served = {int(line.split()[0]) for line in access_log.read_text().splitlines()}
        began = time.monotonic()
        while served & set(server.processes()):
            assert time.monotonic() - began < 15, "children stayed"
            if mpm == "worker":
                # It looks at the limit when the next connection has come.
                socket.create_connection(("127.0.0.1", host.port), 5).close()
            time.sleep(0.02)
        return time.monotonic() - began

    assert [status_at_last(browser, host) for browser in browsers] == [200] * len(browsers)
    idle = seconds_until_gone()
    hang_jobs(simulator, host, clock, browsers, 1)
    busy = seconds_until_gone()
    assert busy < idle + 1, f"{busy:.2f} s with jobs, {idle:.2f} s without"
    simulator.clear_faults()
    clock.advance(LEASE + PAUSE)
    assert status_at_last(browsers[0], host) == 200
    assert logs.lines(tags.ENDED) == []


@pytest.mark.only_mpms("prefork")
def test_the_last_request_of_a_child_asks_too(start_server, clock, new_browser, simulator, mpm):
    """After soft and one more request the next one has the answer, also when that was its child's last one."""
    host = VirtualHost(PLACES)
    server = start_server(host, mpm=mpm, clock=clock)
    jobs = Rechecks(server)
    browsers = [signed_in(simulator, new_browser(), host.url("/team/page.html"), person) for person in PEOPLE]
    limit_connections(server)
    for turn in range(1, 4):
        clock.advance(SOFT + 5)
        assert [status_at_last(browser, host) for browser in browsers] == [200] * len(browsers)
        jobs.wait(turn * len(browsers), seconds=5)


# -- what applications hear

def stale(browser: Browser, host: VirtualHost, path: str = "/team/env.cgi") -> str | None:
    return variables(browser, host, path).get("BITBUCKET_STALE")


def fail_once(house: House, simulator: Simulator, browser: Browser, rechecks: Rechecks, age: int, path="/team/env.cgi",
              route="api") -> None:
    """The answers are as old as that, and asking for others has failed."""
    simulator.fault(route, status=503)
    house.clock.advance(age)
    with rechecks.after(1):
        assert stale(browser, house.plain, path) is None, "nobody has asked yet"


def test_stale_is_there_when_bitbucket_failed_and_only_then(house, browser, simulator, rechecks, logs):
    logs.expect(tags.NOT_RENEWED)
    signed_in(simulator, browser, house.plain.url("/team/page.html"), "mark")
    assert stale(browser, house.plain) is None, "fresh"
    fail_once(house, simulator, browser, rechecks, 1200)
    assert 1200 <= int(stale(browser, house.plain)) <= 1220
    house.clock.advance(100)
    with rechecks.after(1):
        assert 1300 <= int(stale(browser, house.plain)) <= 1330, "it counts on"
    simulator.clear_faults()
    house.clock.advance(PAUSE + 1)
    with rechecks.after(1):
        assert 1320 <= int(stale(browser, house.plain)) <= 1360
    assert stale(browser, house.plain) is None, "Bitbucket has answered"
    house.clock.advance(SOFT + 5)
    with rechecks.after(1):
        assert stale(browser, house.plain) is None, "due again, and nobody has failed since"


def test_stale_is_absent_while_a_job_is_under_way(house, browser, simulator, rechecks):
    signed_in(simulator, browser, house.plain.url("/team/page.html"), "mark")
    simulator.fault("api", delay=2)
    house.clock.advance(1200)
    with rechecks.after(1):
        for _ in range(3):
            assert stale(browser, house.plain) is None
        assert any(call["status"] is None for call in simulator.calls())
    assert stale(browser, house.plain) is None


def test_stale_is_of_what_the_request_rests_on(house, browser, simulator, rechecks, logs):
    """One workspace cannot be told about; where it does not matter nothing is stale."""
    logs.expect(tags.NOT_RENEWED)
    signed_in(simulator, browser, house.plain.url("/both/page.html"), "mark")
    fail_once(house, simulator, browser, rechecks, 1200, "/both/env.cgi", permission_route("initechlabs"))
    assert 1200 <= int(stale(browser, house.plain, "/both/env.cgi")) <= 1220
    assert stale(browser, house.plain, "/team/env.cgi") is None, "acme was answered"
    assert stale(browser, house.plain, "/any/env.cgi") is None, "the account was, too"


WAYS = {
    "itself": "/team/env.cgi",
    "DirectoryIndex": "/index/",
    "an error document": "/errors/there-is-no-such-page",
    "FallbackResource": "/fallback/there-is-no-such-page",
    "a subrequest": "/team/around.shtml",
    "server side includes": "/team/stale.shtml",
}


@pytest.mark.parametrize("way", WAYS)
def test_stale_reaches_whoever_answers_in_the_end(house, browser, simulator, rechecks, logs, way):
    def seen() -> str:
        answer = browser.get(house.plain.url(WAYS[way]), SCRIPT)
        assert answer.status == (404 if way == "an error document" else 200)
        if way == "server side includes":
            return answer.text.strip().removeprefix("stale=").rstrip(";").replace("(none)", "")
        return answer.environment.get("BITBUCKET_STALE", "")

    logs.expect(tags.NOT_RENEWED)
    signed_in(simulator, browser, house.plain.url("/team/page.html"), "mark")
    assert seen() == ""
    fail_once(house, simulator, browser, rechecks, 1200)
    assert 1200 <= int(seen()) <= 1220
    simulator.clear_faults()
    house.clock.advance(PAUSE + 1)
    with rechecks.after(1):
        assert seen()
    assert seen() == ""


# -- an outage, in short

def test_an_outage_shorter_than_hard_is_no_refusal(house, browser, simulator, rechecks, logs):
    """Served up to hard after the last good answer, then 503, never 403 and never the page."""
    for tag in (tags.NOT_RENEWED, tags.BROKEN, tags.MENDED):
        logs.allow(tag)
    signed_in(simulator, browser, house.plain.url("/team/page.html"), "mark")
    simulator.fault("api", status=503)
    for _ in range(8):
        house.clock.advance(7 * MINUTE)
        with rechecks.after(1):
            assert status(browser, house.plain) == 200
    logs.expect(tags.ANSWERED, "503")
    house.clock.advance(HARD - 8 * 7 * MINUTE + 5)
    answer = browser.get(house.plain.url("/team/page.html"), SCRIPT)
    assert answer.status == 503 and int(answer.header("Retry-After")) > 0 and "test page" not in answer.text
    simulator.clear_faults()
    house.clock.advance(MINUTE + 1)
    assert status(browser, house.plain) == 200


def test_after_a_failure_a_session_pauses(house, browser, simulator, rechecks, logs):
    """Ten to twenty seconds, however many requests there are."""
    logs.expect(tags.NOT_RENEWED)
    signed_in(simulator, browser, house.plain.url("/team/page.html"), "mark")
    simulator.fault("user", status=503)
    house.clock.advance(SOFT + 5)
    with rechecks.after(1):
        assert status(browser, house.plain) == 200
    simulator.clear_faults()
    simulator.forget_calls()
    house.clock.advance(4)
    assert {status(browser, house.plain) for _ in range(20)} == {200}
    assert len(rechecks.lines()) == 1
    house.clock.advance(PAUSE)
    with rechecks.after(1):
        assert status(browser, house.plain) == 200
    assert set(simulator.asked()) >= {"user"}


@pytest.mark.parametrize("headers, answered", [(SCRIPT, 401), (NAVIGATION, 302)])
def test_who_is_not_signed_in_never_asks(house, new_browser, simulator, rechecks, headers, answered):
    assert {new_browser().get(house.plain.url("/team/page.html"), headers).status for _ in range(5)} == {answered}
    assert (simulator.asked(), rechecks.lines()) == ([], [])
