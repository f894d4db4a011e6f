"""Bitbucket down, slow, limiting or changed, for a while: who goes on, who waits, who is put off,
how often it is asked meanwhile, and that all is well by itself afterwards."""

from __future__ import annotations

import itertools
import re
import signal
import socket
import statistics
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import tags
from harness.client import NAVIGATION, SCRIPT, Browser
from harness.clock import Clock
from harness.config import THREADS_PER_CHILD, VirtualHost, place
from harness.fixtures import lasting, wanted_mpms
from harness.load import at_once
from harness.sanitizers import SLOWER
from harness.server import Server
from harness.simulator import account, permission_route, short_name
from harness.waiting import eventually
from test_bitbucket_faults import SLOW, UNUSABLE, as_json


MINUTE, HOUR = 60, 3600
DUE = 6 * MINUTE            # beyond soft
OLD = HOUR + 5              # beyond hard
SECONDS = 2                 # AuthBitbucketHTTPTimeout 1s 2s
TIMEOUTS = "AuthBitbucketHTTPTimeout 1s 2s\n"
PLACES = "\n".join([place("any", "Require valid-user"), place("team", "Require bitbucket-workspace acme"),
                    place("owners", "Require bitbucket-workspace acme:owner"),
                    place("printers", "Require bitbucket-workspace InitechLabs"),
                    place("either", "Require bitbucket-workspace acme InitechLabs")])
TEAM = place("team", "Require bitbucket-workspace acme")
READS = ("user", "emails", "permission")
SCOPE = {"status": 403, "json": {"type": "error", "error": {
    "message": "Your credentials lack one or more required privilege scopes.",
    "detail": {"required": ["account"], "granted": ["team"]}}}}
NEVER = {"hang": True}


# -- a server for most tests; a test has hosts for itself, so that no breaker is another's

HOSTS = 60


class OwnSite:
    def __init__(self, server: Server, clock: Clock) -> None:
        self.server = server
        self.clock = clock
        self._hosts = itertools.cycle(server.hosts)

    def hosts(self, count: int) -> list[VirtualHost]:
        return list(itertools.islice(self._hosts, count))


@pytest.fixture(scope="module")
def own_site(scratch, shared_simulator):
    directory = scratch / "outages"
    directory.mkdir()
    clock = Clock(directory)
    hosts = [VirtualHost(TIMEOUTS + (PLACES if number % 2 else TEAM)) for number in range(HOSTS)]
    server = Server(hosts, shared_simulator, wanted_mpms()[0], main="AuthBitbucketMaxLogins 200\n", clock=clock)
    with lasting(server):
        yield OwnSite(server, clock)


@pytest.fixture
def hosts(own_site, log_watch, simulator):
    """Any number of them: all have /team/."""
    simulator.settings(quota=None)
    return own_site.hosts


@pytest.fixture
def host(hosts):
    """One that has all places."""
    return next(host for host in hosts(2) if "/printers" in host.directives)


@pytest.fixture
def time_passes(own_site):
    """Seconds, for httpd; Bitbucket's clock stays."""
    return own_site.clock.advance


# -- people

class Visitor:
    """Somebody who has signed in."""

    def __init__(self, browser: Browser, host: VirtualHost, person: str, path: str = "/team/env.cgi") -> None:
        self.browser, self.host, self.person = browser, host, person
        assert browser.sign_in(host.url(path), person).status == 200

    def get(self, path: str = "/team/env.cgi"):
        return self.browser.get(self.host.url(path))

    def timed(self, path: str = "/team/env.cgi"):
        started = time.monotonic()
        return self.get(path), time.monotonic() - started

    def is_stale(self, path: str = "/team/env.cgi") -> bool:
        """What the application is told; the visitor is served in any case."""
        answer = self.get(path)
        assert answer.status == 200, answer
        return "BITBUCKET_STALE" in answer.environment

    def stale(self, path: str = "/team/env.cgi") -> int:
        return int(self.get(path).environment["BITBUCKET_STALE"])


@pytest.fixture
def signed_in(new_browser, simulator):
    """signed_in(host, person): a browser of its own for each."""
    return lambda host, person="mark", path="/team/env.cgi": Visitor(new_browser(), host, person, path)


class Returning:
    """Somebody whom Bitbucket has just sent back, and who has not come yet."""

    def __init__(self, browser: Browser, host: VirtualHost) -> None:
        self.browser = browser
        self.callback = browser.walk_to_callback(host.url("/team/page.html"))
        self.answer = None
        self.seconds = 0.0

    def come(self):
        started = time.monotonic()
        self.answer = self.browser.get(self.callback)
        self.seconds = time.monotonic() - started
        return self.answer

    @property
    def found_no_place(self) -> bool:
        return self.answer.status == 503 and "Too many people are waiting" in self.answer.text


@pytest.fixture
def on_the_way_back(new_browser, simulator):
    """on_the_way_back(host, count): people who signed in at Bitbucket."""
    def prepare(host, count, person="mark"):
        simulator.settings(quota=None, auto_account=person)
        people = [Returning(new_browser(), host) for _ in range(count)]
        simulator.settings(auto_account=None)
        return people
    return prepare


def all_come(people) -> Counter:
    """At once. Returns how often each status was answered."""
    with ThreadPoolExecutor(len(people)) as pool:
        return Counter(answer.status for answer in pool.map(Returning.come, people))


def assert_put_off(answer, at_most: int = 900) -> int:
    """503 with a page of the module, which is neither a no nor what was asked for."""
    assert (answer.status, answer.location) == (503, None), answer
    assert answer.reference and "BITBUCKET_" not in answer.text
    seconds = int(answer.header("Retry-After"))
    assert 1 <= seconds <= at_most, seconds
    return seconds


# -- 1. the breaker

def lengths_of_breaks(logs) -> list[int]:
    return [int(re.search(r"nobody asks it for (\d+) s", line.text)[1]) for line in logs.lines(tags.BROKEN, "warn")]


def open_the_breaker(simulator, people) -> None:
    """Five questions get no answer."""
    simulator.fault("token", status=500)
    for _ in range(5):
        assert next(people).come().status == 503
    simulator.clear_faults()
    simulator.forget_calls()


def processes_that_answered(server, status: int) -> set[str]:
    lines = (server.root / "logs" / "access.log").read_text().splitlines()
    return {line.split()[0] for line in lines if line.endswith(f"/team/page.html {status}")}


def test_five_failures_in_a_row_open_the_breaker_for_all_processes(start_server, clock, mpm, signed_in, on_the_way_back,
                                                                   simulator, logs):
    logs.expect(tags.ANSWERED)
    logs.expect(tags.BROKEN)
    host = VirtualHost(TIMEOUTS + TEAM)
    server = start_server(host, clock=clock, mpm=mpm, main="AuthBitbucketMaxLogins 100\n")
    there = signed_in(host)
    clock.advance(OLD)
    people = iter(on_the_way_back(host, 6))
    simulator.fault("token", status=500)
    for _ in range(4):
        assert_put_off(next(people).come())
    assert logs.lines(tags.BROKEN) == [], "four are not five"
    simulator.forget_calls()
    assert_put_off(next(people).come())
    assert simulator.asked() == ["token"], "a code is sent once"
    assert lengths_of_breaks(logs) == [5]
    simulator.forget_calls()
    simulator.clear_faults()
    headers = {**NAVIGATION, "Cookie": there.browser.jar.line("localhost", False)}
    for _ in range(10):
        outcome = at_once([host.url("/team/page.html")] * 24, headers)
        assert set(outcome.statuses) == {503} and outcome.slowest < SECONDS
        if len(processes_that_answered(server, 503)) > 1:
            break
    eventually(lambda: len(processes_that_answered(server, 503)) > 1)
    assert_put_off(there.get("/team/page.html"), at_most=5)
    assert simulator.asked() == []
    clock.advance(6)
    assert next(people).come().status == 303
    assert len(logs.lines(tags.MENDED, "notice")) == 1
    assert set(at_once([host.url("/team/page.html")] * 24, headers).statuses) == {200}
    assert len(logs.lines(tags.BROKEN)) == len(logs.lines(tags.MENDED)) == 1


def test_an_answer_in_between_begins_the_count_anew(host, on_the_way_back, simulator, logs):
    logs.expect(tags.ANSWERED)
    simulator.fault("token", status=500, times=4)
    simulator.fault("token", status=500, after=1)
    statuses = [person.come().status for person in on_the_way_back(host, 9)]
    assert statuses == [503] * 4 + [303] + [503] * 4
    assert len(simulator.calls("token")) == 9 and lengths_of_breaks(logs) == []


def test_breaks_grow_from_five_seconds_to_a_minute(host, time_passes, on_the_way_back, simulator, logs):
    """Between them one request tries, and asks once."""
    logs.expect(tags.ANSWERED)
    logs.expect(tags.BROKEN)
    people = iter(on_the_way_back(host, 30))
    open_the_breaker(simulator, people)
    simulator.fault("token", status=500)
    for length in (5, 10, 20, 40, 60, 60):
        time_passes(length - 3)
        simulator.forget_calls()
        assert_put_off(next(people).come(), at_most=3)
        assert simulator.asked() == []
        time_passes(4)
        assert next(people).come().status == 503
        assert simulator.asked() == ["token"]
    assert lengths_of_breaks(logs) == [5, 10, 20, 40, 60, 60, 60]
    assert logs.lines(tags.MENDED) == []
    simulator.clear_faults()
    time_passes(61)
    assert next(people).come().status == 303
    assert next(people).come().status == 303
    assert len(logs.lines(tags.MENDED, "notice")) == 1
    open_the_breaker(simulator, people)
    assert lengths_of_breaks(logs)[7:] == [5], "from the beginning"


@pytest.mark.alone
@pytest.mark.parametrize("answers", [True, False])
def test_one_tries_while_the_others_are_put_off(host, time_passes, on_the_way_back, simulator, logs, answers):
    logs.expect(tags.ANSWERED)
    logs.expect(tags.BROKEN)
    people = on_the_way_back(host, 15)
    open_the_breaker(simulator, iter(people[:5]))
    time_passes(6)
    delay = 1.2
    simulator.fault("token", delay=delay, **({} if answers else {"status": 500}))
    assert all_come(people[5:]) == ({303: 1, 503: 9} if answers else {503: 10})
    assert len(simulator.calls("token")) == 1
    assert sum(person.seconds > delay for person in people[5:]) == 1, "only the one waits"
    assert lengths_of_breaks(logs) == ([5] if answers else [5, 10])
    assert len(logs.lines(tags.MENDED)) == answers


def test_who_tries_reads_asks_once(host, time_passes, signed_in, on_the_way_back, simulator, logs):
    """A probe that fails says enough: nothing is tried once more."""
    logs.expect(tags.ANSWERED)
    logs.expect(tags.BROKEN)
    there = signed_in(host)
    time_passes(OLD)
    open_the_breaker(simulator, iter(on_the_way_back(host, 5)))
    time_passes(6)
    simulator.fault("api", status=500)
    assert_put_off(there.get())
    assert max(Counter(simulator.asked()).values()) == 1
    assert lengths_of_breaks(logs) == [5, 10]


def comes_in_vain(person) -> None:
    """A request whose process is killed meanwhile."""
    try:
        person.come()
    except (AssertionError, OSError):
        pass


def test_a_child_that_dies_while_it_tries_is_replaced(start_server, clock, on_the_way_back, simulator, logs):
    logs.expect(tags.ANSWERED)
    logs.expect(tags.BROKEN)
    logs.forgive("exit signal Killed")
    host = VirtualHost("AuthBitbucketHTTPTimeout 1s 30s\n" + TEAM)
    server = start_server(host, clock=clock)
    people = iter(on_the_way_back(host, 8))
    open_the_breaker(simulator, people)
    clock.advance(6)
    simulator.fault("token", **NEVER)
    thread = threading.Thread(target=comes_in_vain, args=(next(people),))
    thread.start()
    eventually(lambda: simulator.calls("token"))
    server.kill_children()
    thread.join()
    simulator.clear_faults()
    simulator.forget_calls()
    assert_put_off(next(people).come(), at_most=2)
    assert simulator.asked() == [], "for as long as it could have taken"
    clock.advance(31)
    assert next(people).come().status == 303
    assert len(logs.lines(tags.MENDED)) == 1 and lengths_of_breaks(logs) == [5]


def test_the_breaker_survives_a_graceful_restart(start_server, clock, on_the_way_back, simulator, logs):
    logs.expect(tags.ANSWERED)
    logs.expect(tags.BROKEN)
    host = VirtualHost(TIMEOUTS + TEAM)
    server = start_server(host, clock=clock)
    people = on_the_way_back(host, 20)
    open_the_breaker(simulator, iter(people[:5]))
    server.reload(signal.SIGUSR1)
    assert all_come(people[5:15]) == {503: 10} and simulator.asked() == []
    clock.advance(6)
    assert people[15].come().status == 303
    assert lengths_of_breaks(logs) == [5] and len(logs.lines(tags.MENDED)) == 1


def test_one_workspace_that_fails_does_not_open_the_breaker(host, time_passes, signed_in, simulator, logs):
    """Others are asked about and let in."""
    logs.expect(tags.ANSWERED)
    gwen, olivia = signed_in(host, "gwen", "/printers/env.cgi"), signed_in(host, "olivia")
    simulator.fault(permission_route("initechlabs"), status=500)
    for _ in range(6):
        time_passes(OLD)
        assert_put_off(gwen.get("/printers/env.cgi"))
    simulator.forget_calls()
    assert olivia.get().status == 200 and "permission acme" in simulator.asked()
    assert logs.lines(tags.BROKEN) == []


def test_retry_after_is_not_longer_than_the_break(host, time_passes, on_the_way_back, simulator, logs):
    """Less than a second is left of it."""
    logs.expect(tags.ANSWERED)
    logs.expect(tags.BROKEN)
    people = iter(on_the_way_back(host, 6))
    open_the_breaker(simulator, people)
    time_passes(4)
    assert_put_off(next(people).come(), at_most=1)


def test_strangers_are_sent_to_sign_in_while_the_breaker_is_open(host, browser, on_the_way_back, simulator, logs):
    logs.expect(tags.ANSWERED)
    logs.expect(tags.BROKEN)
    open_the_breaker(simulator, iter(on_the_way_back(host, 5)))
    answer = browser.get(host.url("/team/page.html"))
    assert answer.status == 302 and answer.location.startswith(simulator.authorize_url)


# -- 2. signed-in people in an outage

# Limits have rules of their own, below.
KINDS = ("500", "502", "503", "504", "204", "400", "closed", "cut", "cut at once", "empty", "no HTTP", "bad chunks", "redirect",
         "redirect with content", "HTML", "HTML called JSON", "JSON called text", "no content type", "an array", "null",
         "an empty object", "two objects", "huge number", "invalid UTF-8", "deep nesting", "very deep nesting", "10 MB",
         "a gzip bomb", "a very long header", "many headers")
OUTAGES = {**{kind: UNUSABLE[kind] for kind in KINDS}, **SLOW}
CALLS = {"refresh": "token", "user": "user", "emails": "emails", "permission": "permission"}


@pytest.fixture
def crowd(hosts, new_browser, simulator):
    """crowd(kinds): for each a visitor with an account and a host of its own, so that each has
    a fault and a breaker of its own."""
    def gather(kinds):
        people = {}
        for number, (kind, host) in enumerate(zip(kinds, hosts(len(kinds)), strict=True)):
            person = f"visitor-{number}"
            simulator.change_account(person, create=True)
            simulator.set_membership("acme", person, "member")
            people[kind] = Visitor(new_browser(), host, person)
        return people
    return gather


def for_each(people, action) -> dict:
    """What each gets, with some at once."""
    with ThreadPoolExecutor(16) as pool:
        return dict(zip(people, pool.map(lambda kind: action(people[kind]), people)))


def become(wanted: bool, people, seconds: float = 15) -> None:
    """Until each application has heard that Bitbucket could not be asked, or no longer does;
    all are served."""
    deadline = time.monotonic() + seconds
    others = dict(people)
    while others:
        others = {kind: people[kind] for kind, is_stale in for_each(others, Visitor.is_stale).items() if is_stale != wanted}
        assert time.monotonic() < deadline, list(others)
        time.sleep(0.2)


@pytest.mark.parametrize("call", CALLS)
def test_signed_in_people_in_every_kind_of_outage(crowd, time_passes, simulator, logs, call):
    """Served up to the hard age and told how old the answer is; then put off, not refused; and
    well again by itself. Nobody is sent to sign in."""
    logs.expect(tags.NOT_RENEWED)
    logs.expect(tags.ANSWERED)
    if call == "refresh":
        simulator.settings(access_token_lifetime=200)
    people = crowd([*OUTAGES, "a listener elsewhere"])
    simulator.settings(access_token_lifetime=7200)
    sessions = {kind: person.browser.session_value() for kind, person in people.items()}
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        elsewhere.settimeout(0.1)
        redirect = {"redirect": f"http://127.0.0.1:{elsewhere.getsockname()[1]}/2.0/user", "status": 307}
        for kind, person in people.items():
            simulator.fault(CALLS[call], account=person.person, **OUTAGES.get(kind, redirect))
        time_passes(DUE)
        for kind, (answer, seconds) in for_each(people, Visitor.timed).items():
            assert answer.status == 200 and seconds < SECONDS - 0.5, f"{kind}: nobody waits"
        become(True, people)
        ages = for_each(people, Visitor.stale)
        assert all(DUE <= age < DUE + 60 for age in ages.values()), ages
        time_passes(OLD - DUE)
        for kind, (answer, seconds) in for_each(people, Visitor.timed).items():
            assert answer.status == 503, (kind, answer)
            assert_put_off(answer)
            assert seconds < 4 * SECONDS + 1.5, kind
        with pytest.raises(TimeoutError):
            elsewhere.accept()
    simulator.clear_faults()
    assert {kind: answer.status for kind, answer in for_each(people, Visitor.get).items()} == dict.fromkeys(people, 200)
    time_passes(21)
    become(False, people)
    assert {kind: person.browser.session_value() for kind, person in people.items()} == sessions
    assert lengths_of_breaks(logs) == []


class Cable:
    """The way to Bitbucket. Unplugged, connections are refused."""

    def __init__(self, port: int) -> None:
        self._far = port
        self.port = 0
        self._wires: list[socket.socket] = []
        self.plug()

    def plug(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def unplug(self) -> None:
        # shutdown wakes the thread that accepts; closed alone the socket would live on in it.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for wire in self._wires:
            self._end(wire)
        self._wires.clear()

    @staticmethod
    def _end(wire: socket.socket) -> None:
        try:
            wire.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._far), 5)
            far.settimeout(None)
            self._wires += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, target), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while piece := source.recv(65536):
                target.sendall(piece)
        except OSError:
            pass
        self._end(target)


@pytest.fixture
def cable(simulator):
    cable = Cable(simulator.port)
    yield cable
    cable.unplug()


def at_the_end_of(cable: Cable) -> VirtualHost:
    return VirtualHost(f"AuthBitbucketTokenURL http://127.0.0.1:{cable.port}/site/oauth2/access_token\n"
                       f"AuthBitbucketAPIURL http://127.0.0.1:{cable.port}/2.0\n" + TIMEOUTS + TEAM)


def test_bitbucket_refuses_connections(start_server, clock, cable, signed_in, on_the_way_back, simulator, logs):
    logs.expect(tags.NOT_RENEWED)
    logs.expect(tags.ANSWERED)
    logs.allow(tags.BROKEN)
    host = at_the_end_of(cable)
    start_server(host, clock=clock)
    there = signed_in(host)
    simulator.forget_calls()
    cable.unplug()
    for _ in range(20):
        assert there.get().status == 200
    clock.advance(DUE)
    eventually(there.is_stale)
    people = on_the_way_back(host, 2)
    assert_put_off(people[0].come())
    assert people[0].seconds < 1
    clock.advance(OLD - DUE)
    answer, seconds = there.timed()
    assert_put_off(answer)
    assert seconds < SECONDS and simulator.asked() == []
    cable.plug()
    clock.advance(61)
    assert not there.is_stale()
    assert on_the_way_back(host, 1)[0].come().status == 303


def test_after_a_failure_nobody_asks_for_ten_seconds_and_then_it_heals(host, time_passes, signed_in, simulator, logs):
    logs.expect(tags.NOT_RENEWED)
    there = signed_in(host)
    simulator.fault("user", status=500)
    time_passes(DUE)
    eventually(there.is_stale)
    simulator.forget_calls()
    time_passes(7)
    assert all(there.is_stale() for _ in range(10))
    assert simulator.asked() == []
    simulator.clear_faults()
    time_passes(14)
    eventually(lambda: not there.is_stale())
    simulator.forget_calls()
    time_passes(60)
    assert not there.is_stale() and simulator.asked() == [], "as good as new"


def test_beyond_the_hard_age_a_request_asks_once_for_all_its_rules(host, time_passes, signed_in, simulator, logs):
    """Each question is asked, and tried once more; what failed a moment ago is not asked again."""
    logs.expect(tags.ANSWERED)
    there = signed_in(host)
    time_passes(OLD)
    simulator.fault("permission", status=500)
    simulator.forget_calls()
    assert_put_off(there.get())
    assert Counter(simulator.asked()) == {"user": 1, "emails": 1, "permission acme": 2}


# What is answered, and what that is: a no, the operator's error, or no answer at all.
NO, ERROR, UNASKED, ENDED, YES = 403, 500, 503, 302, 200
MEANINGS = {
    "no member": ("permission", {"status": 403, "json": {"type": "error", "error": {"message": "No"}}}, NO),
    "no workspace": ("permission", {"status": 404, "json": {"type": "error", "error": {"message": "No"}}}, NO),
    "no role": ("permission", {"merge": {"permission": "collaborator"}}, NO),
    "no scope for the role": ("permission", SCOPE, ERROR),
    "no scope for the account": ("user", SCOPE, ERROR),
    "no scope for addresses": ("emails", SCOPE, YES),
    "the account is blocked": ("user", {"merge": {"account_status": "inactive"}}, ENDED),
    "the token is refused again": ("user", {"status": 401, "json": {"type": "error", "error": {"message": "No"}}}, ENDED),
    "somebody else's token": ("user", {"merge": {"uuid": account("oscar")["uuid"]}}, ENDED),
    "500": ("user", {"status": 500}, UNASKED),
    "403 without a word": ("user", {"status": 403, "body": ""}, UNASKED),
    "404 for the account": ("user", {"status": 404, "json": {"type": "error", "error": {"message": "No"}}}, UNASKED),
    "another account's role": ("permission", {"merge": {"user": {"uuid": account("oscar")["uuid"]}}}, UNASKED),
}


@pytest.mark.parametrize("when", ["in the background", "while the visitor waits"])
@pytest.mark.parametrize("what", MEANINGS)
def test_no_and_error_and_no_answer_are_told_apart(host, time_passes, signed_in, simulator, logs, what, when):
    route, fault, meaning = MEANINGS[what]
    logs.allow(tags.ODD_ROLE)
    if what == "somebody else's token":
        logs.expect(tags.ANOTHER_ACCOUNT)
    there = signed_in(host)
    simulator.fault(route, **fault)
    simulator.forget_calls()
    if when == "in the background":
        if meaning in (ERROR, UNASKED):
            logs.expect(tags.NOT_RENEWED)
        time_passes(DUE)
        assert there.get().status == 200
        if meaning in (NO, ENDED):
            eventually(lambda: there.get().status == meaning)
            return
        if meaning == YES:
            eventually(lambda: any(call["finished"] for call in simulator.calls("permission")))
            assert not there.is_stale()
        else:
            eventually(there.is_stale)
            assert {line.level for line in logs.lines(tags.NOT_RENEWED)} == {"error" if meaning == ERROR else "warn"}
        time_passes(OLD - DUE)
    else:
        time_passes(OLD)
    if meaning in (ERROR, UNASKED):
        logs.expect(tags.ANSWERED)
    answer = there.get()
    assert answer.status == meaning, answer
    if meaning == UNASKED:
        assert_put_off(answer)
    if meaning == ERROR:
        assert answer.reference and "'account'" in logs.lines(tags.ANSWERED, "error")[-1].text


def test_one_workspace_fails_while_another_answers(host, time_passes, signed_in, simulator, logs):
    """Mark is in both. The row that was answered is renewed and lets him in."""
    logs.expect(tags.NOT_RENEWED)
    logs.expect(tags.ANSWERED)
    there = signed_in(host, path="/printers/env.cgi")
    assert there.get("/team/env.cgi").status == 200
    simulator.fault(permission_route("acme"), status=500)
    simulator.forget_calls()
    time_passes(DUE)
    assert there.get("/printers/env.cgi").status == 200
    eventually(lambda: any(call["finished"] for call in simulator.calls(permission_route("initechlabs"))))
    time_passes(21)
    eventually(lambda: there.is_stale("/team/env.cgi"))
    time_passes(21)
    assert not there.is_stale("/printers/env.cgi") and there.get("/either/env.cgi").status == 200
    time_passes(OLD - DUE - 42)
    simulator.fault("api", status=500)
    assert there.get("/printers/env.cgi").status == 200, "its row is not beyond the hard age, as at first it was"
    assert there.get("/either/env.cgi").status == 200, "one of the two is enough"
    assert_put_off(there.get("/team/env.cgi"))
    simulator.clear_faults()
    simulator.fault(permission_route("acme"), status=500)
    time_passes(OLD)
    assert there.get("/printers/env.cgi").status == there.get("/either/env.cgi").status == 200
    assert_put_off(there.get("/team/env.cgi"))
    simulator.clear_faults()
    assert there.get("/team/env.cgi").status == 200


# -- 3. once more

# As docs/freshness.md has it: "could not ask. Reads are tried once more".
AGAIN = {"errors": ("500", "502", "503", "504"), "no JSON": ("HTML", "JSON called text"),
         "cut or too large": ("cut", "10 MB")}
# "not tried again, since Bitbucket is there".
NOT_AGAIN = {"too deep": ("deep nesting",), "of another form": ("a comma too many", "an empty object")}


@pytest.mark.parametrize("route", READS)
@pytest.mark.parametrize("kinds", AGAIN)
def test_reads_without_a_usable_answer_are_tried_once_more(crowd, time_passes, simulator, logs, route, kinds):
    """After 0.2 to 0.5 seconds, and not a third time. The other questions are asked once."""
    logs.expect(tags.NOT_RENEWED)
    people = crowd(AGAIN[kinds])
    for kind, person in people.items():
        simulator.fault(route, account=person.person, **UNUSABLE[kind])
    simulator.forget_calls()
    time_passes(DUE)
    become(True, people)
    wanted = {name: 1 + (name.split()[0] == route) for name in ("user", "emails", "permission acme")}
    for kind, person in people.items():
        calls = [call for call in simulator.calls() if call["account"] == person.person]
        assert Counter(map(short_name, calls)) == wanted, kind
        first, second = [call for call in calls if short_name(call).split()[0] == route]
        assert 0.15 < second["time"] - first["finished"] < 1, kind


@pytest.mark.parametrize("route", READS)
@pytest.mark.parametrize("kinds", NOT_AGAIN)
def test_json_that_cannot_be_used_is_not_asked_for_again(crowd, time_passes, simulator, logs, route, kinds):
    logs.expect(tags.NOT_RENEWED)
    people = crowd(NOT_AGAIN[kinds])
    for kind, person in people.items():
        simulator.fault(route, account=person.person, **UNUSABLE[kind])
    simulator.forget_calls()
    time_passes(DUE)
    become(True, people)
    for kind, person in people.items():
        calls = [short_name(call) for call in simulator.calls() if call["account"] == person.person]
        assert Counter(calls) == {"user": 1, "emails": 1, "permission acme": 1}, kind


@pytest.mark.alone
@pytest.mark.parametrize("route", READS)
def test_a_closed_connection_is_tried_once_more_on_a_new_one(crowd, time_passes, simulator, logs, route):
    """libcurl takes a kept connection that closes for a dead one and tries the next, the last time
    a new one. After the pause it is one call more."""
    logs.expect(tags.NOT_RENEWED)
    person, = crowd(["closed"]).values()
    simulator.fault(route, account=person.person, **UNUSABLE["closed"])
    simulator.forget_calls()
    time_passes(DUE)
    become(True, {"closed": person})
    *first, last = [call for call in simulator.calls(route) if call["account"] == person.person]
    assert 1 <= len(first) <= 9
    assert first[-1]["finished"] - first[0]["time"] < 0.2 * SLOWER
    assert 0.15 < last["time"] - first[-1]["finished"] < 1 * SLOWER


@pytest.mark.parametrize("route", READS)
def test_a_single_failure_is_invisible(hosts, time_passes, signed_in, on_the_way_back, simulator, route):
    """At a sign-in, in the background, and while somebody waits."""
    host, = hosts(1)
    there = signed_in(host)
    person, = on_the_way_back(host, 1)
    simulator.fault(route, status=500, times=1)
    assert person.come().status == 303
    for seconds in (DUE, OLD):
        simulator.fault(route, status=500, times=1)
        simulator.forget_calls()
        time_passes(seconds)
        assert not there.is_stale()
        eventually(lambda: len([call for call in simulator.calls(route) if call["finished"]]) == 2)
        eventually(lambda: len([call for call in simulator.calls() if call["finished"]]) == 4)
        assert not there.is_stale()


@pytest.mark.parametrize("fault", [{"status": 500}, {"close": True}, {"cut": 10}, {"status": 200, "body": "<html>"},
                                   {"close": True, "effect": True}])
def test_a_code_and_a_refresh_token_are_sent_once(hosts, time_passes, signed_in, on_the_way_back, simulator, logs, fault):
    logs.expect(tags.ANSWERED)
    logs.expect(tags.NOT_RENEWED)
    host, = hosts(1)
    simulator.settings(access_token_lifetime=200)
    there = signed_in(host)
    person, = on_the_way_back(host, 1)
    simulator.fault("token", **fault)
    simulator.forget_calls()
    assert person.come().status == 503 and simulator.asked() == ["token"]
    simulator.forget_calls()
    time_passes(DUE)
    eventually(there.is_stale)
    assert simulator.asked() == ["refresh"], "and without a good token nothing else is asked"
    simulator.forget_calls()
    time_passes(OLD - DUE)
    assert_put_off(there.get())
    assert simulator.asked() == ["refresh"]


@pytest.mark.parametrize("delay, calls", [(1.0, 2), (1.85, 1)])
def test_once_more_only_while_there_is_time(hosts, on_the_way_back, simulator, logs, delay, calls):
    logs.expect(tags.ANSWERED)
    host, = hosts(1)
    person, = on_the_way_back(host, 1)
    simulator.fault("user", status=500, delay=delay)
    assert_put_off(person.come())
    assert len(simulator.calls("user")) == calls and person.seconds < SECONDS + 1


# -- 4. limits

LIMITS = [("17", 17, 17), ("0", 1, 1), ("100000", 900, 900), (None, 60, 70), ("soon", 60, 70), ("-5", 60, 70)]


@pytest.mark.parametrize("route", ["user", "permission", "token"])
@pytest.mark.parametrize("sent, shortest, longest", LIMITS)
def test_an_account_at_its_limit_pauses_and_others_do_not(hosts, time_passes, signed_in, simulator, logs, route, sent, shortest,
                                                          longest):
    logs.expect(tags.ANSWERED, "limit")
    logs.allow(tags.ANSWERED, "pause")
    host, = hosts(1)
    if route == "token":
        simulator.settings(access_token_lifetime=200)
    mark, olivia = signed_in(host, "mark"), signed_in(host, "olivia")
    simulator.settings(access_token_lifetime=7200)
    time_passes(OLD)
    simulator.fault(route, account="mark", status=429, headers={} if sent is None else {"Retry-After": sent})
    simulator.forget_calls()
    said = assert_put_off(mark.get())
    assert shortest - 1 <= said <= longest
    assert len(simulator.calls(route)) == 1, "a limit is not tried once more"
    simulator.clear_faults()
    simulator.forget_calls()
    assert olivia.get().status == 200
    assert {call["account"] for call in simulator.calls()} == {"olivia"}
    if shortest > 3:
        time_passes(shortest - 3)
        simulator.forget_calls()
        assert_put_off(mark.get(), at_most=longest - shortest + 4)
        assert simulator.asked() == []
    time_passes(longest - shortest + 4)
    assert mark.get().status == 200
    assert logs.lines(tags.PAUSED) == []


def test_within_the_hard_age_a_limit_disturbs_nobody(hosts, time_passes, signed_in, simulator, logs):
    """And background questions pause, too: longer than after other failures."""
    logs.expect(tags.NOT_RENEWED, "limit")
    logs.allow(tags.NOT_RENEWED)
    there = signed_in(hosts(1)[0])
    simulator.fault("user", status=429, headers={"Retry-After": "300"})
    time_passes(DUE)
    eventually(there.is_stale)
    simulator.clear_faults()
    simulator.forget_calls()
    for _ in range(9):
        time_passes(31)
        assert there.is_stale()
        time.sleep(0.05)
    assert simulator.asked() == []
    time_passes(42)
    eventually(lambda: not there.is_stale())


LIMITED = {"status": 429, "headers": {"Retry-After": "120"}}


def test_three_accounts_at_their_limits_within_a_minute_pause_all(host, time_passes, signed_in, on_the_way_back, simulator,
                                                                  logs):
    logs.expect(tags.ANSWERED)
    logs.expect(tags.PAUSED, "about 3 accounts")
    logs.allow(tags.NOT_RENEWED)
    people = [signed_in(host, name) for name in ("mark", "olivia", "priya")]
    una = signed_in(host, "una")
    time_passes(OLD - DUE)
    zoe = signed_in(host, "zoe")
    time_passes(DUE)
    simulator.fault("user", **LIMITED)
    for number, person in enumerate(people):
        assert len(logs.lines(tags.PAUSED)) == 0, number
        assert assert_put_off(person.get()) > 110
    assert len(logs.lines(tags.PAUSED, "warn")) == 1
    simulator.clear_faults()
    person, *others = on_the_way_back(host, 3)
    simulator.forget_calls()
    assert 100 < assert_put_off(person.come()) <= 120
    assert 100 < assert_put_off(una.get()) <= 120
    assert zoe.get().status == 200, "within the hard age"
    eventually(zoe.is_stale)
    time_passes(110)
    assert others[0].come().status == 503 and simulator.asked() == []
    time_passes(11)
    assert others[1].come().status == 303 and una.get().status == 200
    assert len(logs.lines(tags.PAUSED)) == 1


@pytest.mark.parametrize("names, gap", [(("mark", "olivia", "priya"), 35), (("mark", "mark", "mark", "mark", "olivia"), 0)])
def test_fewer_accounts_do_not_pause_all(hosts, time_passes, signed_in, on_the_way_back, simulator, logs, names, gap):
    """Nor do three in more than a minute."""
    logs.expect(tags.ANSWERED)
    host, = hosts(1)
    people = {name: signed_in(host, name) for name in names}
    time_passes(OLD)
    simulator.fault("user", status=429, headers={"Retry-After": "1"})
    for name in names:
        assert people[name].get().status == 503
        time_passes(gap or 2)
    simulator.clear_faults()
    assert on_the_way_back(host, 1)[0].come().status == 303
    assert logs.lines(tags.PAUSED) == []


# -- 5. a change at Bitbucket

WITHDRAWN = {
    "410": {"status": 410, "json": {"type": "error", "error": {
        "message": "CHANGE-9999 - Functionality has been deprecated",
        "data": {"announcement_url": "https://developer.atlassian.com/cloud/bitbucket/changelog/#CHANGE-9999"}}}},
    # As tests/fixtures/reply/valid/error-not-found has it from Bitbucket.
    "no API": {"status": 404, "json": {"type": "error", "error": {
        "message": "Resource not found", "detail": "There is no API hosted at this URL."}}},
    "no API in the message": {"status": 404, "json": {"type": "error", "error": {
        "message": "There is no API hosted at this URL."}}},
}


@pytest.mark.parametrize("kind", WITHDRAWN)
def test_a_withdrawn_address_is_told_once_an_hour_and_done_without(host, time_passes, signed_in, simulator, logs, kind):
    """Plain membership is found another way, again and again; nobody is stale or out."""
    logs.expect(tags.CHANGED, "withdrawn GET /user/workspaces/{workspace}/permission")
    there = signed_in(host)
    owner = signed_in(host, "olivia", "/owners/env.cgi")
    simulator.fault("permission", **WITHDRAWN[kind])
    members = "/2.0/workspaces/acme/members/*"
    for number in range(1, 15):
        simulator.forget_calls()
        time_passes(DUE)
        assert not there.is_stale(), number
        eventually(lambda: any(call["finished"] for call in simulator.calls(members)), 3)
        if number == 9:
            assert len(logs.lines(tags.CHANGED, "error")) == 1, "within the first hour"
    assert there.get().status == 200, "far beyond the hard age of the first answer"
    assert len(logs.lines(tags.CHANGED, "error")) == 2
    assert owner.get("/owners/env.cgi").status == 403, "a role above that is not proved"
    simulator.set_membership("acme", "mark", None)
    time_passes(OLD)
    assert there.get().status == 403, "who is no member is found out, too"


# -- 6. how many may wait

def threads_of(mpm: str) -> int:
    """Of all processes, as harness/config.py writes it."""
    return 40 if mpm == "prefork" else 4 * THREADS_PER_CHILD


@pytest.mark.parametrize("configured", [None, 5])
def test_so_many_wait_for_a_bitbucket_that_hangs(start_server, clock, mpm, signed_in, on_the_way_back, simulator, logs,
                                                 figure, configured):
    """The others are told at once, come in by a reload afterwards, and pages that need not ask
    are not touched."""
    logs.expect(tags.ANSWERED)
    logs.expect(tags.CROWDED)
    logs.allow(tags.BROKEN)
    timeout = 3
    host = VirtualHost(f"AuthBitbucketHTTPTimeout 1s {timeout}s\n" + TEAM)
    main = f"AuthBitbucketMaxLogins {configured}\n" if configured else ""
    if mpm == "prefork":
        # More processes than may wait, from the beginning: how fast httpd starts them is no matter of ours.
        main += "StartServers 25\nMinSpareServers 10\nMaxSpareServers 40\n"
    server = start_server(host, clock=clock, mpm=mpm, main=main)
    limit = configured or threads_of(mpm) // 4
    share = max(1, limit * (1 if mpm == "prefork" else THREADS_PER_CHILD) // threads_of(mpm))
    there = signed_in(host)
    people = on_the_way_back(host, 120)
    simulator.fault("token", **NEVER)
    simulator.forget_calls()
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(all_come(people)))
    thread.start()
    eventually(lambda: len(simulator.calls("token")) >= 2)
    pages = [there.timed() for _ in range(5)]
    thread.join()
    assert {answer.status for answer, _ in pages} == {200}
    figure("of 120 at once ask", len(simulator.calls("token")))
    figure("a page of somebody signed in, meanwhile", 1000 * statistics.median(seconds for _, seconds in pages), "ms")
    assert statistics.median(seconds for _, seconds in pages) < timeout / 2
    calls = simulator.calls("token")
    assert 2 <= max(call["in_flight"] for call in calls) + 1 <= limit
    assert len(calls) <= limit, "none came after the first"
    assert len(calls) <= share * len(server.children()), "nor more than a process has places"
    assert statuses == [{503: 120}]
    refused = [person for person in people if person.found_no_place]
    assert len(refused) == 120 - len(calls)
    assert all(assert_put_off(person.answer) == 2 for person in refused)
    assert sorted(person.seconds for person in refused)[len(refused) // 2] < timeout / 2
    assert len(logs.lines(tags.CROWDED, "warn")) == 1
    assert str(limit) in logs.lines(tags.CROWDED)[0].text
    simulator.clear_faults()
    clock.advance(6)
    for person in refused[:10]:
        assert person.come().status == 303, "the same address, once more"
        assert person.browser.get(host.url("/team/page.html"), SCRIPT).status == 200


def test_a_quarter_of_a_process_may_wait(start_server, clock, signed_in, on_the_way_back, simulator, logs):
    """The only one there is goes on serving everybody else."""
    logs.expect(tags.ANSWERED)
    logs.expect(tags.CROWDED)
    logs.allow(tags.BROKEN)
    host = VirtualHost("AuthBitbucketHTTPTimeout 1s 3s\n" + TEAM)
    start_server(host, clock=clock, mpm="event", main="StartServers 1\nMinSpareThreads 5\nMaxSpareThreads 30\n"
                 f"ServerLimit 1\nMaxRequestWorkers {THREADS_PER_CHILD}\n")
    there = signed_in(host)
    people = on_the_way_back(host, 40)
    simulator.fault("token", **NEVER)
    simulator.forget_calls()
    thread = threading.Thread(target=all_come, args=(people,))
    thread.start()
    eventually(lambda: len(simulator.calls("token")) == THREADS_PER_CHILD // 4)
    pages = [there.timed("/team/page.html") for _ in range(20)]
    thread.join()
    assert {answer.status for answer, _ in pages} == {200}
    assert statistics.median(seconds for _, seconds in pages) < 0.5
    assert len(simulator.calls("token")) == THREADS_PER_CHILD // 4


def test_a_crowd_is_told_once_a_minute(start_server, clock, on_the_way_back, simulator, logs):
    logs.expect(tags.CROWDED)
    host = VirtualHost("AuthBitbucketMaxLogins 1\n" + TEAM)
    start_server(host, clock=clock)
    waves = [on_the_way_back(host, 8) for _ in range(4)]
    simulator.fault("token", delay=1.3)
    counts = []
    for number, people in enumerate(waves):
        if number == 2:
            clock.advance(61)
        statuses = all_come(people)
        assert statuses[303] >= 1 and statuses[503] >= 5
        counts.append(statuses[503])
        assert len(logs.lines(tags.CROWDED, "warn")) == (1 if number < 2 else 2)
    told = [int(re.search(r"ABB0305: (\d+) requests", line.text)[1]) for line in logs.lines(tags.CROWDED)]
    assert told[0] == 1 and told[1] == counts[0] + counts[1], "with those that were not told"


def test_a_child_that_dies_frees_its_places(start_server, clock, on_the_way_back, simulator, logs):
    """When the time is over that its requests could have taken."""
    logs.allow(tags.ANSWERED)
    logs.expect(tags.CROWDED)
    logs.forgive("exit signal Killed")
    timeout = 5
    host = VirtualHost(f"AuthBitbucketHTTPTimeout 1s {timeout}s\nAuthBitbucketMaxLogins 1\n" + TEAM)
    server = start_server(host, clock=clock)
    waiting, refused, welcome = on_the_way_back(host, 3)
    simulator.fault("token", **NEVER)
    thread = threading.Thread(target=comes_in_vain, args=(waiting,))
    thread.start()
    eventually(lambda: simulator.calls("token"))
    server.kill_children()
    thread.join()
    simulator.clear_faults()
    assert refused.come().status == 503 and refused.found_no_place
    clock.advance(10 * timeout + 11)
    assert welcome.come().status == 303 and refused.come().status == 303


@pytest.mark.parametrize("value", ["0", "-1", "1025", "100000000000000000000", "ten", "1.5", "5s", '""', "", "4 5"])
def test_numbers_of_logins_that_make_no_sense(start_server, value):
    host = VirtualHost(f"AuthBitbucketMaxLogins {value}\n" + TEAM)
    done = start_server.prepare(host).run("-t")
    assert done.returncode != 0 and "AuthBitbucketMaxLogins" in done.stdout


@pytest.mark.parametrize("value", ["1", "1024"])
def test_numbers_of_logins_that_make_sense(start_server, value):
    assert start_server.prepare(VirtualHost(f"AuthBitbucketMaxLogins {value}\n" + TEAM)).run("-t").returncode == 0


# -- 7. others do not notice

CONNECTIONS = 4


def requests_a_second(url: str, cookie: str) -> float:
    """A server under load may close connections that it keeps open, and a client that has just
    sent something there counts a failed read: one for each connection is no fault."""
    done = subprocess.run(["wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", "1s", "-H", "Cookie: " + cookie, url],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and "Non-2xx" not in done.stdout, done.stdout
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", done.stdout)
    connect, read, write, timeout = map(int, errors.groups()) if errors else (0, 0, 0, 0)
    assert not (connect or write or timeout) and read <= CONNECTIONS, done.stdout
    return float(re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)[1])


class Onslaught:
    """Visitors who cannot sign in: those who found a place wait, the others press reload."""

    def __init__(self, people, simulator) -> None:
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(len(people) + 1)
        coming = [self._pool.submit(Returning.come, person) for person in people]

        def waiting() -> int:
            return len([call for call in simulator.calls("token") if not call["finished"]])

        eventually(lambda: sum(future.done() for future in coming) + waiting() == len(people))
        self.waiting = waiting()
        self._pool.submit(self._press_reload, [p for p, future in zip(people, coming) if future.done()])

    def _press_reload(self, people) -> None:
        for person in itertools.cycle(people):
            if self._over.wait(0.1):
                return
            person.browser.get(person.callback)

    def end(self) -> None:
        self._over.set()
        self._pool.shutdown()


@pytest.mark.alone
def test_fresh_sessions_are_served_as_fast_as_ever_while_hundreds_cannot_sign_in(start_server, clock, signed_in,
                                                                                 on_the_way_back, simulator, logs, figure,
                                                                                 capsys):
    """Bitbucket hangs and a child's places are taken, in turns with quiet: each time is held
    against the quiet before and after it."""
    logs.allow(tags.ANSWERED)
    logs.allow(tags.CROWDED)
    logs.allow(tags.BROKEN)
    rounds, count = 4, 55
    host = VirtualHost("AuthBitbucketHTTPTimeout 1s 20s\nAuthBitbucketMembershipMaxAge 2h 4h\n" + TEAM)
    start_server(host, clock=clock, mpm="event")
    there = signed_in(host)
    cookie = there.browser.jar.line("localhost", False)
    people = on_the_way_back(host, rounds * count)
    url = host.url("/team/page.html")
    outage, quiet = [], [requests_a_second(url, cookie)]
    for number in range(rounds):
        simulator.fault("token", **NEVER)
        simulator.forget_calls()
        onslaught = Onslaught(people[count * number:count * (number + 1)], simulator)
        assert onslaught.waiting >= THREADS_PER_CHILD // 4
        outage.append(requests_a_second(url, cookie))
        simulator.reset()
        onslaught.end()
        simulator.settings(quota=None)
        clock.advance(61)
        signed_in(host)
        quiet.append(requests_a_second(url, cookie))
    ratios = [2 * now / (before + after) for now, before, after in zip(outage, quiet, quiet[1:])]
    with capsys.disabled():
        print(f"\nrequests a second: quiet {[*map(round, quiet)]}, outage {[*map(round, outage)]}, "
              f"median of ratios {statistics.median(ratios):.2f}")
    figure("rate in the outage to rate in quiet", statistics.median(ratios))
    assert statistics.median(ratios) >= 0.9, ratios


@pytest.mark.alone
def test_strangers_are_redirected_as_fast_as_ever(start_server, clock, cable, new_browser, on_the_way_back, simulator, logs,
                                                  figure):
    """While Bitbucket refuses connections, before and after the breaker has opened."""
    logs.expect(tags.ANSWERED)
    logs.allow(tags.BROKEN)
    host = at_the_end_of(cable)
    start_server(host, clock=clock)
    people = iter(on_the_way_back(host, 10))

    def redirect() -> float:
        started = time.monotonic()
        assert new_browser().get(host.url("/team/page.html")).status == 302
        return time.monotonic() - started

    quiet, outage = [], []
    for _ in range(5):
        quiet += [redirect() for _ in range(20)]
        cable.unplug()
        assert next(people).come().status == 503
        assert next(people).come().status == 503
        outage += [redirect() for _ in range(20)]
        cable.plug()
    figure("a redirect, to one in quiet", statistics.median(outage) / statistics.median(quiet))
    assert statistics.median(outage) < 1.5 * statistics.median(quiet)
    assert statistics.median(outage) < 0.01


# -- 8. the longest sign-in

DRIP = {"drip": 1}


def slow_pages(simulator, delay: float) -> None:
    """Addresses in many pages, each of them slow."""
    empty = {"values": [], "next": ""}
    for number in range(1, 12):
        simulator.fault("emails", query=f"*page={number}", delay=delay,
                        json={**empty, "next": f"{simulator.api_url}/user/emails?page={number + 1}"})
    simulator.fault("emails", delay=delay, json={**empty, "next": f"{simulator.api_url}/user/emails?page=1"})


WORST = {
    "the token drips": lambda simulator: simulator.fault("token", **DRIP),
    "the account drips": lambda simulator: simulator.fault("user", **DRIP),
    "the addresses drip": lambda simulator: simulator.fault("emails", **DRIP),
    "the role drips": lambda simulator: simulator.fault("permission", **DRIP),
    "everything drips": lambda simulator: simulator.fault("api", **DRIP),
    "addresses in slow pages": lambda simulator: slow_pages(simulator, 0.3),
    "a late failure and another try": lambda simulator: simulator.fault("api", delay=0.4, status=500),
    "a role by a detour": lambda simulator: (simulator.fault("permission", delay=0.6, **WITHDRAWN["410"]),
                                             simulator.fault("/2.0/workspaces/*", delay=0.6)),
}


@pytest.mark.parametrize("what", WORST)
def test_the_longest_sign_in_takes_two_time_outs(start_server, on_the_way_back, simulator, logs, figure, what):
    """As 20 seconds are two of 10: here two of one. The code's exchange takes nearly all of its own."""
    logs.expect(tags.ANSWERED)
    logs.allow(tags.CHANGED)
    host = VirtualHost("AuthBitbucketHTTPTimeout 1s 1s\n" + TEAM)
    start_server(host)
    person, = on_the_way_back(host, 1)
    WORST[what](simulator)
    simulator.fault("token", delay=0.8)
    assert_put_off(person.come())
    figure("time-out of 1 s, page 503 after", person.seconds, "s")
    assert person.seconds < 2 + 0.8
    assert len(simulator.calls("emails")) <= 11


# -- 9. slow visitors

HALVES = {
    "half a line": lambda host: b"GET /bitbucket/callback?code=abc",
    "half a header": lambda host: (f"GET /bitbucket/callback?code=abc&state=def HTTP/1.1\r\n"
                                   f"Host: localhost:{host.port}\r\n").encode(),
    "no body": lambda host: (f"POST /bitbucket/callback?code=abc&state=def HTTP/1.1\r\nHost: localhost:{host.port}\r\n"
                             "Content-Length: 1000\r\n\r\n").encode(),
}


@pytest.mark.alone
@pytest.mark.parametrize("kind", HALVES)
def test_slow_visitors_at_the_callback_hold_up_nobody(start_server, signed_in, simulator, logs, figure, kind):
    host = VirtualHost(TEAM)
    start_server(host, mpm="event")
    there = signed_in(host)
    usual = statistics.median(there.timed("/team/page.html")[1] for _ in range(20))
    wires = [socket.create_connection(("127.0.0.1", host.port), 5) for _ in range(50)]
    try:
        for wire in wires:
            wire.sendall(HALVES[kind](host))
        # httpd itself reads with a thread each, and starts the processes it needs for that.
        eventually(lambda: max(there.timed("/team/page.html")[1] for _ in range(3)) < 0.5)
        answers = [there.timed("/team/page.html") for _ in range(30)]
    finally:
        for wire in wires:
            wire.close()
    assert {answer.status for answer, _ in answers} == {200}
    during = statistics.median(seconds for _, seconds in answers)
    figure("a page of somebody signed in, meanwhile", 1000 * during, "ms")
    assert during < 3 * usual + 0.005 and during < 0.05 * SLOWER, (usual, during)


def test_a_callback_whose_body_never_comes_keeps_no_place(start_server, on_the_way_back, simulator):
    """One is announced; the module does not wait for it, as httpd does when all is done."""
    host = VirtualHost("AuthBitbucketMaxLogins 1\n" + TEAM)
    start_server(host, mpm="event")
    *slow, person = on_the_way_back(host, 4)
    wires = []
    try:
        for number, other in enumerate(slow, 1):
            wires.append(socket.create_connection(("127.0.0.1", host.port), 10))
            wires[-1].sendall((f"GET {other.callback.removeprefix(host.origin)} HTTP/1.1\r\nHost: localhost:{host.port}\r\n"
                               f"Content-Length: 1000\r\nCookie: {other.browser.jar.line('localhost', False)}\r\n\r\n").encode())
            eventually(lambda: len([call for call in simulator.calls("permission") if call["finished"]]) == number, 3)
        assert person.come().status == 303 and person.seconds < 1
    finally:
        for wire in wires:
            wire.close()
