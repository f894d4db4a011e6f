"""Graceful, restart, stop, and children that die."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

import pytest

from harness.client import SCRIPT
from harness.config import VirtualHost, place
from harness.machine import system_objects
from harness.waiting import eventually

pytestmark = pytest.mark.alone


def kill_who_answered(server) -> bool:
    """Unless it is gone already: httpd ends children of its own accord, too."""
    try:
        os.kill(server.last_answering_process(), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def process_of(server, request: str) -> int:
    """The process that has answered this, by the access log's line, which begins with it."""
    log = server.await_in_log("access.log", request)
    return int(next(line for line in log.splitlines() if request in line).split()[0])


@pytest.fixture
def host():
    return VirtualHost("\n".join([place("any", "Require valid-user"), place("team", "Require bitbucket-workspace acme")]))


@pytest.mark.parametrize("how", [signal.SIGUSR1, signal.SIGHUP])
def test_a_reload_keeps_sessions(start_server, browser, simulator, mpm, host, how):
    server = start_server(host, mpm=mpm)
    browser.sign_in(host.url("/team/page.html"), "mark")
    before = set(server.children())
    simulator.forget_calls()
    for _ in range(3):
        server.reload(how)
        assert browser.get(host.url("/team/page.html"), SCRIPT).status == 200
    assert simulator.asked() == []
    if how == signal.SIGHUP:
        assert not before & set(server.children()), "other children answer now"
    old = browser.session_value()
    browser.submit(browser.get(host.endpoint("logout")))
    assert browser.get(host.url("/any/page.html"), {**SCRIPT, "Cookie": f"bitbucket_session={old}"}).status == 401


def test_a_sign_in_across_a_reload(start_server, browser, mpm, host):
    """The ticket's key outlives it too."""
    server = start_server(host, mpm=mpm)
    callback = browser.walk_to_callback(host.url("/any/page.html"), "mark")
    server.reload(signal.SIGUSR1)
    assert browser.walk(browser.get(callback))[-1].status == 200


@pytest.mark.one_mpm
def test_a_sign_in_during_a_graceful(start_server, browser, simulator, mpm, host):
    """One that waits for Bitbucket is finished by the old child."""
    server = start_server(host, mpm=mpm)
    callback = browser.walk_to_callback(host.url("/any/page.html"), "mark")
    simulator.fault("token", delay=1)
    before = set(server.children())
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(browser.get, callback)
        eventually(lambda: simulator.calls("token"))
        told = time.time()
        server.reload(signal.SIGUSR1)
        assert answer.result().status == 303
    call, = simulator.calls("token")
    assert call["finished"] > told
    assert browser.get(host.url("/any/data.txt"), SCRIPT).status == 200
    assert process_of(server, "GET /bitbucket/callback 303") in before
    assert process_of(server, "GET /any/data.txt 200") not in before


def test_stop_leaves_nothing(start_server, browser, mpm, host):
    before = system_objects()
    server = start_server(host, mpm=mpm)
    browser.sign_in(host.url("/team/page.html"), "mark")
    server.reload(signal.SIGUSR1)
    server.reload(signal.SIGHUP)
    group = server.pid
    server.stop()
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
    assert system_objects() == before
    left = sorted(path.name for path in (server.root / "run").iterdir() if not path.name.startswith("cgid"))
    assert left == [], left


def test_a_full_stop_ends_sessions(start_server, browser, mpm, host):
    """They live in memory; a new start is a silent new sign-in."""
    server = start_server(host, mpm=mpm)
    browser.sign_in(host.url("/any/page.html"), "mark")
    server.stop()
    server.start()
    steps = browser.walk(browser.get(host.url("/any/page.html")))
    assert steps[-1].status == 200
    assert sum("account/signin" in step.url for step in steps) == 0, "nobody is asked anything"


def test_a_killed_child_takes_no_session_along(start_server, browser, logs, mpm, host):
    logs.forgive("exit signal Killed")
    server = start_server(host, mpm=mpm)
    browser.sign_in(host.url("/team/page.html"), "mark")
    for _ in range(3):
        kill_who_answered(server)
        deadline = time.monotonic() + 10
        while True:
            try:
                assert browser.get(host.url("/team/page.html"), SCRIPT).status == 200
                break
            except (AssertionError, OSError) as problem:
                # A connection that the dead child had accepted.
                assert "connection was closed" in str(problem) or isinstance(problem, OSError)
                assert time.monotonic() < deadline


@pytest.mark.one_mpm
def test_children_killed_at_work(start_server, new_browser, logs, mpm, host):
    """Sign-ins and sign-outs go on while children die at any instruction."""
    logs.forgive("exit signal Killed")
    server = start_server(host, mpm=mpm)
    lasting = new_browser()
    lasting.sign_in(host.url("/team/page.html"), "mark")
    stop = threading.Event()

    def work() -> int:
        """How often it went well."""
        count = 0
        while not stop.is_set():
            browser = new_browser()
            try:
                assert browser.sign_in(host.url("/any/page.html"), "olivia").status == 200
                assert browser.submit(browser.get(host.endpoint("logout"))).status in (200, 303)
                count += 1
            except (AssertionError, OSError, HTTPException, IndexError):
                pass
        return count

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(work) for _ in range(4)]
        kills = 0
        try:
            for _ in range(10):
                time.sleep(0.15)
                kills += kill_who_answered(server)
        finally:
            stop.set()
        went_well = sum(worker.result() for worker in workers)
    assert kills >= 5 and went_well >= 5, (kills, went_well)
    time.sleep(0.5)
    started = time.monotonic()
    assert lasting.get(host.url("/team/page.html"), SCRIPT).status == 200
    assert new_browser().sign_in(host.url("/any/page.html"), "mark").status == 200
    assert time.monotonic() - started < 3


@pytest.mark.one_mpm
def test_another_session_key(start_server, browser, new_browser, logs, mpm):
    """With the old key beside it nobody is signed out."""
    keys = ["first-session-key-0123456789abcdef", "second-session-key-0123456789abcdef"]
    for key in keys:
        logs.remember(key)
    host = VirtualHost(f"AuthBitbucketSessionKey {keys[0]}\n" + place("any", "Require valid-user"))
    server = start_server(host, mpm=mpm)
    browser.sign_in(host.url("/any/page.html"), "mark")
    other = new_browser()
    pending = other.walk_to_callback(host.url("/any/page.html"), "olivia")
    text = server.config_file.read_text()
    server.config_file.write_text(text.replace(f"SessionKey {keys[0]}", f"SessionKey {keys[1]} {keys[0]}"))
    server.reload(signal.SIGUSR1)
    assert browser.get(host.url("/any/page.html"), SCRIPT).status == 200
    assert other.get(pending).status == 303, "a ticket under the old key opens"


@pytest.mark.one_mpm
def test_a_small_store_refuses_nobody(start_server, new_browser, logs, mpm):
    """When it is full the longest unused sessions go; each sign-in works, and one line says so."""
    logs.expect("ABB0206", "instead of shm(256K) write AuthBitbucketSessionCache shm(512K)")
    host = VirtualHost(place("any", "Require valid-user"))
    start_server(host, mpm=mpm, main="AuthBitbucketSessionCache shm(256K)\n")
    browsers = []
    for _ in range(80):
        browsers.append(new_browser())
        assert browsers[-1].sign_in(host.url("/any/page.html"), "mark").status == 200
    statuses = [browser.get(host.url("/any/page.html"), SCRIPT).status for browser in browsers]
    assert statuses[-1] == 200 and 401 in statuses and set(statuses) == {200, 401}
    assert len(logs.lines("ABB0206")) == 1, "within a minute"
