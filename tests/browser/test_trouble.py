"""What people see when something is in the way: blocked cookies, circles, a slow sign-in,
addresses of somebody who means harm, and an outage."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from harness import tags
from harness.simulator import WORLD

MARK, OLIVIA = (WORLD["accounts"][name]["display_name"] for name in ("mark", "olivia"))


def line_of(logs, reference: str):
    line, = [line for line in logs.lines(tags.ANSWERED) if line.text.endswith("reference=" + reference)]
    return line


def test_blocked_cookies(person_without_cookies, simulator, logs, screenshot_without_cookies):
    """It ends after the second attempt, and the page says what was seen, as the log does."""
    person = person_without_cookies
    simulator.settings(auto_account="mark")
    person.open("/any/page.html?q=1")
    person.wait_for_heading("Sign-in could not be finished")
    screenshot_without_cookies("cookies-blocked")
    assert "the browser brought no cookie at all" in person.text
    line = line_of(logs, person.reference)
    assert line.level == "info" and "brought no cookie at all" in line.text and "reason=attempt" in line.text
    assert simulator.asked() == [], "no code is spent"
    assert len(logs.lines(tags.ONCE_MORE)) == 1
    assert person.driver.execute_cdp_cmd("Network.getAllCookies", {})["cookies"] == []
    first = person.reference
    # What page was wanted was in the cookie, so `Try again` leads to the front page.
    person.click("Try again")
    assert person.url == person.host.url("/")
    person.open("/any/page.html?q=1")
    person.wait_for_heading("Sign-in could not be finished")
    assert person.reference != first


def test_a_browser_that_loses_its_session_each_time(person, simulator, logs, screenshot):
    person.open("/any/page.html")
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_heading("The test page")
    for number in range(4):
        person.driver.delete_cookie("bitbucket_session")
        person.open(f"/any/page.html?{number}")
        person.wait_for_heading("The test page")
    person.driver.delete_cookie("bitbucket_session")
    simulator.forget_calls()
    person.open("/any/page.html?last")
    person.wait_for_heading("Signing in goes round in circles")
    screenshot("circles")
    assert "5 sign-ins within a minute" in person.text
    assert "reason=loop" in line_of(logs, person.reference).text
    assert simulator.asked() == []
    # It stays so while the minute lasts, and does not go on by itself.
    person.click("Try again")
    person.wait_for_heading("Signing in goes round in circles")


def test_a_sign_in_that_took_too_long(person, server, simulator, logs):
    """More than ten minutes at Bitbucket: it starts once more by itself, and ends signed in."""
    person.open("/team/page.html?q=1")
    person.wait_for_heading("Sign in")
    server.let_time_pass()
    person.click(MARK)
    person.wait_for_heading("Confirm access to your account")
    person.click("Grant access")
    assert person.url in (person.host.url("/team/page.html?q=1"), person.host.url("/"))
    assert person.has_session() and simulator.asked().count("token") == 1
    assert len(logs.lines(tags.ONCE_MORE)) == 1
    person.open("/team/page.html?q=1")
    assert person.heading == "The test page"


def test_a_session_that_ended_between_two_clicks(person, server):
    """The next click signs in again where the person is; Bitbucket knows the browser."""
    person.open("/team/page.html")
    person.sign_in_at_bitbucket(MARK)
    person.wait_for_heading("The test page")
    for _ in range(50):         # of the thousand seconds that this is
        server.let_time_pass()
    person.open("/team/page.html?again")
    person.wait_for_address("/team/page.html?again")
    assert person.heading == "The test page"


@pytest.mark.parametrize("value", ["//evil.example/", "/\\evil.example/", "https:evil.example", "/%5cevil.example/",
                                   "/\t/evil.example/", "javascript:alert(document.domain)", "http://localhost:1@evil.example/",
                                   "/%2f%2fevil.example/", "/.//evil.example/"])
def test_hostile_addresses(person, simulator, value):
    """Wherever they stand, the browser stays at the site."""
    simulator.settings(auto_account="mark")
    person.open("/bitbucket/login?return=" + quote(value, safe=""))
    assert person.url == person.host.url("/") and person.has_session()
    person.open("/bitbucket/logout?return=" + quote(value, safe=""))
    person.click("Stay signed in")
    assert person.url == person.host.url("/")
    person.open("/bitbucket/logout?return=" + quote(value, safe=""))
    person.click("Sign out")
    person.wait_for_heading("You are signed out")
    person.click("Continue")
    assert person.url == person.host.url("/") and not person.has_session()


def test_an_outage_of_bitbucket(person, simulator, logs, screenshot):
    """A page that says so, without a redirect; and what `Try again` does when it is over."""
    logs.expect(tags.ANSWERED)
    person.open("/team/page.html?q=1")
    person.wait_for_heading("Sign in")
    person.click(MARK)
    person.wait_for_heading("Confirm access to your account")
    simulator.fault("user", status=503)
    person.click("Grant access")
    person.wait_for_heading("Bitbucket cannot be asked right now")
    screenshot("outage")
    assert "reason=upstream" in line_of(logs, person.reference).text
    assert person.url.startswith(person.host.endpoint("callback")) and not person.has_session()
    simulator.clear_faults()
    person.click("Try again")
    person.wait_for_address("/team/page.html?q=1")


def test_six_people_at_one_browser_within_a_minute(person, simulator, screenshot):
    """`Sign in as somebody else` until somebody may: the sixth within a minute waits."""
    simulator.settings(auto_account="mark")
    person.open("/owners/page.html")
    for _ in range(4):
        person.wait_for_heading("You may not see this page")
        person.click("Sign in as somebody else")
    person.wait_for_heading("You may not see this page")
    person.click("Sign in as somebody else")
    person.wait_for_heading("Signing in goes round in circles")
    screenshot("too-many-sign-ins")
    assert "although it is signed in" in person.text
