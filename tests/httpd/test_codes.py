"""Codes that Bitbucket never gave: what they cost, and whom they hold up."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlsplit

import pytest

from harness import tags
from harness.client import NAVIGATION, Browser
from harness.config import VirtualHost, modules_directory, place
from harness.waiting import eventually

pytestmark = pytest.mark.one_mpm

TEAM = place("team", "Require bitbucket-workspace acme")
# Behind a proxy that mod_remoteip believes, so that a test has many addresses.
MANY_ADDRESSES = (f"LoadModule remoteip_module {modules_directory()}/mod_remoteip.so\n"
                  "RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy 127.0.0.1\n")
A_MINUTE = 61
WRONG_MAX = 10


@pytest.fixture
def host(start_server, clock):
    host = VirtualHost(TEAM)
    start_server(host, clock=clock, main=MANY_ADDRESSES)
    return host


def of(address: str) -> dict[str, str]:
    return {**NAVIGATION, "X-Forwarded-For": address}


def invented(host: VirtualHost, address: str, code: str) -> tuple[Browser, str]:
    """A browser that began to sign in, and a callback with a code that it made up."""
    browser = Browser()
    answer = browser.get(host.url("/team/page.html"), of(address))
    assert answer.status == 302
    state, = parse_qs(urlsplit(answer.header("Location")).query)["state"]
    return browser, host.url(f"/bitbucket/callback?state={state}&code={code}")


def bring(host: VirtualHost, address: str, code: str):
    browser, callback = invented(host, address, code)
    return browser.get(callback, of(address))


def test_an_address_has_ten_a_minute(host, clock, simulator):
    statuses = [bring(host, "192.0.2.1", f"made-up-{number}").status for number in range(14)]
    # The first of each browser starts once more by itself.
    assert statuses == [302] * WRONG_MAX + [429] * 4
    assert simulator.asked() == ["token"] * WRONG_MAX
    clock.advance(A_MINUTE)
    assert bring(host, "192.0.2.1", "made-up-again").status == 302


def test_who_waits_is_told_how_long_and_signs_in_then(host, clock, simulator, logs):
    browser = Browser()
    callback = browser.walk_to_callback(host.url("/team/page.html"), "mark")
    for number in range(WRONG_MAX):
        bring(host, "127.0.0.1", f"made-up-{number}")
    answer = browser.get(callback)
    assert answer.status == 429 and 0 < int(answer.header("Retry-After")) <= 60
    assert "Too many sign-ins failed" in answer.text and browser.ticket_names()
    assert [line.level for line in logs.lines(tags.ANSWERED) if "reason=codes" in line.text] == ["info"]
    clock.advance(A_MINUTE)
    assert browser.follow(browser.get(callback)).status == 200


def test_other_addresses_go_on(host, simulator):
    for number in range(WRONG_MAX + 1):
        bring(host, "192.0.2.1", f"made-up-{number}")
    browser = Browser()
    assert browser.sign_in(host.url("/team/page.html"), "mark").status == 200
    assert browser.get(host.url("/team/page.html"), of("192.0.2.1")).status == 200, "and who is signed in, everywhere"


def test_an_ipv6_network_is_one_address(host, simulator):
    statuses = [bring(host, f"2001:db8:1:2::{number:x}", f"made-up-{number}").status for number in range(1, 13)]
    assert statuses == [302] * WRONG_MAX + [429] * 2
    assert bring(host, "2001:db8:1:3::1", "made-up").status == 302


def test_no_number_of_addresses_shuts_out_all(host, simulator):
    for number in range(40):
        bring(host, f"198.51.100.{number}", f"made-up-{number}")
    assert Browser().sign_in(host.url("/team/page.html"), "mark").status == 200


def test_a_code_that_is_wrong_is_sent_once(host, simulator):
    assert [bring(host, f"192.0.2.{number}", "made-up").status for number in range(1, 4)] == [302] * 3
    assert simulator.asked() == ["token"] * 3, "two people's codes may look alike; each has an attempt of its own"


def test_honest_trouble_counts_for_nothing(host, simulator, logs):
    """Of an office behind one address many may come while Bitbucket is down."""
    logs.expect(tags.ANSWERED)
    simulator.fault("token", status=400, json={"error": "invalid_client"})
    for number in range(WRONG_MAX + 2):
        bring(host, "127.0.0.1", f"code-{number}")
    simulator.clear_faults()
    assert Browser().sign_in(host.url("/team/page.html"), "mark").status == 200


def test_two_hundred_at_once(host, simulator, logs):
    """A place for all that wait bounds how many are asked before the first is known to be wrong."""
    logs.allow(tags.CROWDED)
    simulator.fault("token", delay=0.2)
    callbacks = [invented(host, "192.0.2.1", f"made-up-{number}") for number in range(200)]
    with ThreadPoolExecutor(200) as pool:
        statuses = Counter(pool.map(lambda one: one[0].get(one[1], of("192.0.2.1")).status, callbacks))
    assert set(statuses) <= {302, 429, 503}, statuses
    assert len(simulator.asked()) == statuses[302] <= 40, statuses
    simulator.clear_faults()
    assert Browser().sign_in(host.url("/team/page.html"), "mark").status == 200


def test_a_pause_for_codes_is_nobody_elses(host, clock, simulator, browser, logs):
    """Bitbucket may count made-up codes against the consumer or the server's address."""
    logs.expect(tags.ANSWERED)
    assert browser.sign_in(host.url("/team/page.html"), "mark").status == 200
    simulator.fault("token", status=429, headers={"Retry-After": "600"}, body="Rate limit for this resource has been exceeded")
    assert {bring(host, f"192.0.2.{number}", f"made-up-{number}").status for number in range(5)} == {503}
    assert simulator.asked().count("token") == 2, "one of mark, one that learned of the limit"
    simulator.clear_faults()
    simulator.forget_calls()
    assert bring(host, "192.0.2.9", "made-up").status == 503 and simulator.asked() == []
    clock.advance(301)
    assert browser.get(host.url("/team/page.html")).status == 200
    eventually(lambda: "permission acme" in simulator.asked())
