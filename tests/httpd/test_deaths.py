"""Children that die or end at the worst moment, and what visitors notice of it."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from pathlib import Path
from typing import Iterable

import pytest

from harness.client import SCRIPT, Answer, Browser
from harness.config import VirtualHost, place
from harness.server import SANITIZED, Server
from harness.simulator import short_name
from harness.waiting import eventually

pytestmark = pytest.mark.alone

ANY = place("any", "Require valid-user")
TEAM = place("team", "Require bitbucket-workspace acme")


# -- killed

@pytest.fixture
def limited():
    """Each account has a list of its sessions, which a sign-in writes too."""
    return VirtualHost("AuthBitbucketMaxSessionsPerUser 5\n" + ANY + "\n" + TEAM)


def first_answer(browser: Browser, url: str) -> Answer:
    """A connection that a dead child had accepted is closed without one."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return browser.get(url)
        except (AssertionError, OSError):
            assert time.monotonic() < deadline, "nobody answers"
            time.sleep(0.02)


def come_in_vain(browser, callback: str) -> None:
    """The connection ends without an answer."""
    with pytest.raises((AssertionError, OSError)):
        browser.get(callback)


@pytest.mark.parametrize("route", ["token", "user", "emails", "permission"])
def test_killed_during_a_sign_in(start_server, new_browser, simulator, logs, limited, figure, route):
    """Who reloads is in without a click: a new attempt begins by itself, and Bitbucket still knows them. No code is sent
    twice, the dead hold nothing, and who was signed in stays so."""
    logs.forgive("exit signal Killed")
    server = start_server(limited)
    lasting = new_browser()
    assert lasting.sign_in(limited.url("/team/page.html"), "mark").status == 200
    browser = new_browser()
    callback = browser.walk_to_callback(limited.url("/team/page.html"), "mark")
    simulator.forget_calls()
    simulator.fault(route, hang=True, effect=True)
    thread = threading.Thread(target=come_in_vain, args=(browser, callback))
    thread.start()
    eventually(lambda: any(short_name(call).startswith(route) for call in simulator.calls()))
    server.kill_children()
    thread.join()
    simulator.clear_faults()
    assert browser.session_value() is None
    before, began = len(simulator.calls("token")), time.monotonic()
    steps = browser.walk(first_answer(browser, callback))
    figure("from the reload to the page", 1000 * (time.monotonic() - began), "ms")
    assert [step.status for step in steps] == [302, 302, 303, 200], steps
    assert len(simulator.calls("token")) == before + 1 == 2
    for person in (browser, lasting):
        assert person.get(limited.url("/team/page.html"), SCRIPT).status == 200


# -- ended by httpd itself

def status_of(pid: int) -> str:
    """What the system says of a process; nothing when it has just ended."""
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def memory(pids: Iterable[int]) -> int:
    """Bytes of the largest that are its own."""
    found = (re.search(r"RssAnon:\s+(\d+) kB", status_of(pid)) for pid in pids)
    return max(1024 * int(match.group(1)) for match in found if match)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def zombies(server: Server) -> list[int]:
    """A child that has just ended is one for a moment."""
    return [pid for pid in server.children() if "\nState:\tZ" in status_of(pid)]


def ask_without_keeping(host: VirtualHost, cookie: str, count: int) -> None:
    """Each request on a connection of its own."""
    done = subprocess.run(["ab", "-q", "-n", str(count), "-c", "8", "-s", "30", "-H", "Sec-Fetch-Mode: cors",
                           "-C", cookie, host.url("/team/page.html")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Non-2xx" not in done.stdout and re.search(r"Failed requests:\s+0$", done.stdout, re.M), done.stdout


@pytest.mark.one_mpm
def test_children_that_end_after_some_connections(start_server, browser, mpm, figure):
    """Each takes over from the one before: no session is lost and nothing grows, in children or in their parent."""
    host = VirtualHost(TEAM)
    server = start_server.prepare(host, mpm=mpm)
    text = server.config_file.read_text().replace("auth_bitbucket:trace8", "auth_bitbucket:info")
    server.config_file.write_text(text + "\nMaxConnectionsPerChild 200\n")
    server.start()
    assert browser.sign_in(host.url("/team/page.html"), "mark").status == 200
    cookie = browser.jar.line("localhost", False)
    ask_without_keeping(host, cookie, 1000)
    eventually(server.children)
    before = (memory(server.children()), memory([server.pid]), descriptors(server.pid))
    ask_without_keeping(host, cookie, 1500 if SANITIZED else 3000)
    eventually(server.children)
    after = (memory(server.children()), memory([server.pid]), descriptors(server.pid))
    figure("memory of a child grows by", (after[0] - before[0]) / 2**20, "MiB")
    figure("memory of the parent grows by", (after[1] - before[1]) / 2**20, "MiB")
    log = (server.root / "logs" / "access.log").read_text().splitlines()
    assert len({line.split()[0] for line in log}) > 8, "many have answered"
    assert after[0] < before[0] * 1.25 + 2**21 and after[1] < before[1] * 1.05 + 2**18 and after[2] <= before[2] + 16
    eventually(lambda: not zombies(server))
    assert browser.get(host.url("/team/page.html"), SCRIPT).status == 200
