"""What grows old: tickets, sessions, answers of Bitbucket. httpd's clock is shifted."""

from __future__ import annotations

import pytest

from harness import tags
from harness.client import SCRIPT
from harness.config import VirtualHost, place


MINUTE, HOUR, DAY = 60, 3600, 86400


@pytest.fixture
def host(start_server, clock):
    host = VirtualHost("\n".join([place("any", "Require valid-user"), place("team", "Require bitbucket-workspace acme"),
                                  place("outside", "<RequireAll>", "Require valid-user",
                                        "Require not bitbucket-workspace acme", "</RequireAll>")]))
    start_server(host, clock=clock)
    return host


def status(browser, host, path: str = "/any/page.html") -> int:
    return browser.get(host.url(path), SCRIPT).status


# -- tickets

@pytest.mark.parametrize("seconds, good", [(9 * MINUTE + 55, True), (10 * MINUTE + 5, False)])
def test_an_attempt_takes_at_most_ten_minutes(host, clock, browser, simulator, seconds, good):
    callback = browser.walk_to_callback(host.url("/any/page.html"), "mark")
    clock.advance(seconds)
    answer = browser.get(callback)
    if good:
        assert answer.status == 303
    else:
        assert answer.status == 302 and answer.session_cookie is None and simulator.asked() == []
        assert browser.walk(answer)[-1].status in (200, 404)


def test_a_ticket_from_the_future(host, clock, browser, simulator):
    callback = browser.walk_to_callback(host.url("/any/page.html"), "mark")
    clock.advance(-10 * MINUTE)
    assert browser.get(callback).session_cookie is None and simulator.asked() == []


# -- sessions

def test_idle_sessions_end(host, clock, browser):
    browser.sign_in(host.url("/any/page.html"), "mark")
    clock.advance(11 * HOUR)
    assert status(browser, host) == 200
    clock.advance(11 * HOUR)
    assert status(browser, host) == 200, "its use was noted"
    clock.advance(12 * HOUR + 5)
    assert status(browser, host) == 401
    clock.advance(-13 * HOUR)
    assert status(browser, host) in (200, 401)


def test_sessions_end_after_a_week_in_any_case(host, clock, browser):
    browser.sign_in(host.url("/any/page.html"), "mark")
    for _ in range(15):
        clock.advance(11 * HOUR)
        assert status(browser, host) == 200
    clock.set(7 * DAY + 5)
    assert status(browser, host) == 401


def test_other_limits(start_server, clock, browser, logs):
    # The clock jumps past the lease of a re-check that is under way, so another begins.
    logs.allow(tags.NOT_RENEWED, "changed while it was re-checked")
    host = VirtualHost("AuthBitbucketSessionTimeout 10m 30m\n" + place("any", "Require valid-user"))
    start_server(host, clock=clock)
    browser.sign_in(host.url("/any/page.html"), "mark")
    for _ in range(3):
        clock.advance(9 * MINUTE)
        assert status(browser, host) == 200
    clock.advance(3 * MINUTE + 5)
    assert status(browser, host) == 401, "in any case"
    browser.sign_in(host.url("/any/page.html"), "mark")
    clock.advance(10 * MINUTE + 5)
    assert status(browser, host) == 401, "idle"


def test_userinfo_says_when_it_ends(start_server, clock, browser):
    host = VirtualHost("AuthBitbucketSessionTimeout 10m 15m\n" + place("any", "Require valid-user"))
    start_server(host, clock=clock)
    browser.sign_in(host.url("/any/page.html"), "mark")
    first = browser.get(host.endpoint("userinfo")).json["expires_at"]
    clock.advance(8 * MINUTE)
    status(browser, host)
    second = browser.get(host.endpoint("userinfo")).json["expires_at"]
    assert 5 * MINUTE - 5 <= second - first <= 5 * MINUTE + 5, "fifteen minutes in all"


@pytest.mark.parametrize("hours", [2, -2, 30, -30])
def test_the_clock_jumps(host, clock, browser, new_browser, simulator, hours):
    """No crash, no storm; sessions go on or end; whoever comes newly is let in."""
    browser.sign_in(host.url("/team/page.html"), "mark")
    simulator.forget_calls()
    clock.advance(hours * HOUR)
    assert {status(browser, host, "/team/page.html") for _ in range(10)} in ({200}, {401})
    asked = simulator.asked()
    assert len(asked) == len(set(asked)) <= 4, "each question once, and at most one refresh"
    assert new_browser().sign_in(host.url("/team/page.html"), "olivia").status == 200


# -- answers about workspaces

def test_a_person_just_added_gets_in_at_once(host, clock, browser, simulator):
    """A refusal older than 15 seconds is re-checked before it is given."""
    assert browser.sign_in(host.url("/team/page.html"), "oscar").status == 403
    simulator.set_membership("acme", "oscar", "member")
    simulator.forget_calls()
    assert status(browser, host, "/team/page.html") == 403 and simulator.asked() == []
    clock.advance(16)
    assert status(browser, host, "/team/page.html") == 200
    assert simulator.asked() == ["permission acme"]


def test_repeated_refusals_ask_seldom(host, clock, browser, simulator):
    browser.sign_in(host.url("/team/page.html"), "oscar")
    simulator.forget_calls()
    for _ in range(3):
        clock.advance(16)
        for _ in range(10):
            assert status(browser, host, "/team/page.html") == 403
    assert simulator.asked() == ["permission acme"] * 3


def test_a_refusal_that_cannot_be_checked(host, clock, browser, simulator, logs):
    logs.expect(tags.ANSWERED)
    browser.sign_in(host.url("/team/page.html"), "oscar")
    clock.advance(16)
    simulator.fault("permission", status=500)
    assert status(browser, host, "/team/page.html") == 503


def test_a_removed_member_is_out_after_the_hard_age(host, clock, browser, simulator):
    browser.sign_in(host.url("/team/page.html"), "mark")
    simulator.set_membership("acme", "mark", None)
    clock.advance(HOUR + 5)
    assert status(browser, host, "/team/page.html") == 403
    assert status(browser, host) == 200, "still signed in"


def test_no_decision_rests_on_an_answer_beyond_the_hard_age(host, clock, browser, simulator, logs):
    logs.expect(tags.ANSWERED)
    browser.sign_in(host.url("/team/page.html"), "mark")
    clock.advance(HOUR + 5)
    simulator.fault("permission", status=503)
    answer = browser.get(host.url("/team/page.html"), SCRIPT)
    assert answer.status == 503 and answer.header("Retry-After")
    assert status(browser, host, "/outside/page.html") == 503, "nor a negated one"


def test_an_answer_within_its_age_needs_no_bitbucket(host, clock, browser, simulator, logs):
    logs.allow(tags.NOT_RENEWED)
    browser.sign_in(host.url("/team/page.html"), "mark")
    simulator.fault("api", status=503)
    clock.advance(50 * MINUTE)
    assert status(browser, host, "/team/page.html") == 200


def test_an_old_answer_is_asked_again(host, clock, browser, simulator):
    browser.sign_in(host.url("/team/page.html"), "mark")
    simulator.forget_calls()
    clock.advance(HOUR + 5)
    assert status(browser, host, "/team/page.html") == 200
    assert [name for name in simulator.asked() if name.startswith("permission")] == ["permission acme"]


def test_expired_tokens_are_refreshed_on_need(host, clock, browser, simulator):
    """Three hours later the access token has run out on both sides."""
    browser.sign_in(host.url("/team/page.html"), "mark")
    simulator.forget_calls()
    clock.advance(3 * HOUR)
    simulator.advance_clock(3 * HOUR)
    assert status(browser, host, "/team/page.html") == 200
    asked = simulator.asked()
    assert asked.count("refresh") == 1 and asked.count("permission acme") == 1
