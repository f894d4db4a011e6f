"""AuthBitbucketPassAccessToken: the visitor's token for Bitbucket's API, good, and only where it is wanted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from harness import tags
from harness.client import SCRIPT
from harness.config import VirtualHost, place
from harness.waiting import eventually

VARIABLE, HEADER = "BITBUCKET_ACCESS_TOKEN", "HTTP_X_BITBUCKET_ACCESS_TOKEN"
ON = "AuthBitbucketPassAccessToken On"
ANY = "Require valid-user"
LIFETIME = 7200

SITE = "\n".join(["TraceEnable On",
    place("with", ON, ANY), place("both", ON, "AuthBitbucketPass both", ANY), place("headers", ON, "AuthBitbucketPass headers", ANY),
    place("none", ON, "AuthBitbucketPass none", ANY), place("without", "AuthBitbucketPass both", ANY), place("open", auth=False),
    place("team", ON, "Require bitbucket-workspace acme"), place("adopted", ON, "AuthBitbucketUnauthenticated pass", "Require all granted"),
    place("lost", ON, ANY, "ErrorDocument 404 /without/env.cgi"), place("lost-open", ON, ANY, "ErrorDocument 404 /open/env.cgi"),
    place("includes", ON, "AuthBitbucketPass both", "Options +Includes", "AddOutputFilter INCLUDES .shtml", ANY),
])
PAGE = '<!--#include virtual="/without/env.cgi" -->\n<!--#include virtual="/open/env.cgi" -->\n'


@pytest.fixture
def host(start_server, mpm):
    host = VirtualHost(SITE)
    server = start_server(host, mpm=mpm)
    (server.content / "page-of-parts.shtml").write_text(PAGE)
    return host


@pytest.fixture
def mark(host, browser):
    assert browser.sign_in(host.url("/without/page.html"), "mark").status == 200
    return browser


def who_has(simulator, token: str) -> str | None:
    answer = requests.get(f"{simulator.api_url}/user", headers={"Authorization": f"Bearer {token}"}, timeout=10)
    return answer.json()["nickname"] if answer.status_code == 200 else None


# -- where it is

def test_it_is_the_visitors_and_bitbucket_takes_it(host, mark, simulator, new_browser):
    token = mark.get(host.url("/with/env.cgi")).environment[VARIABLE]
    assert who_has(simulator, token) == "mark"
    olivia = new_browser()
    other = olivia.sign_in(host.url("/with/env.cgi"), "olivia").environment[VARIABLE]
    assert other != token and who_has(simulator, other) == "olivia"


@pytest.mark.one_mpm
@pytest.mark.parametrize("path, variable, header", [
    ("with", True, False), ("both", True, True), ("headers", False, True), ("none", False, False), ("without", False, False),
    ("open", False, False), ("adopted", True, False),
])
def test_only_where_and_how_it_is_wanted(host, mark, path, variable, header):
    seen = mark.get(host.url(f"/{path}/env.cgi")).environment
    assert (VARIABLE in seen, HEADER in seen) == (variable, header)
    assert not [name for name, value in seen.items() if "ACCESS_TOKEN" in name and name not in (VARIABLE, HEADER)]


@pytest.mark.one_mpm
@pytest.mark.parametrize("path", ["lost", "lost-open"])
def test_an_error_page_elsewhere_does_not_get_it(host, mark, path):
    """httpd keeps the variables of the request that failed under other names."""
    seen = mark.get(host.url(f"/{path}/no-such-page")).environment
    assert seen["REDIRECT_STATUS"] == "404" and not [name for name in seen if "ACCESS_TOKEN" in name]


@pytest.mark.one_mpm
def test_a_part_from_elsewhere_does_not_get_it(host, mark):
    page = mark.get(host.url("/includes/page-of-parts.shtml"))
    assert page.status == 200 and page.text.count("REQUEST_METHOD=") == 2 and "ACCESS_TOKEN" not in page.text


@pytest.mark.one_mpm
def test_it_is_not_echoed(host, mark):
    answer = mark.request("TRACE", host.url("/both/page.html"))
    assert answer.status == 200 and "Host:" in answer.text and "Access-Token" not in answer.text


@pytest.mark.one_mpm
def test_a_backend_does_not_echo_it(start_server, browser, mpm):
    """httpd answers TRACE itself before anybody is known; through a proxy it goes on like any other request."""
    backend = VirtualHost("TraceEnable On", configured=False)
    host = VirtualHost("TraceEnable On\n" + place("tool", ON, "AuthBitbucketPass headers", ANY, f'ProxyPass "http://127.0.0.1:{backend.port}/"'))
    start_server(host, backend, mpm=mpm)
    browser.sign_in(host.url("/tool/page.html"), "mark")
    answer = browser.request("TRACE", host.url("/tool/page.html"))
    assert answer.status == 200 and "X-Bitbucket-Username: mark_miller" in answer.text and "Access-Token" not in answer.text


@pytest.mark.one_mpm
@pytest.mark.parametrize("spelling", ["X-Bitbucket-Access-Token", "x_bitbucket_access_token", "X-BITBUCKET.ACCESS-TOKEN"])
def test_nobody_else_says_it(host, mark, spelling):
    for path in ("without", "headers", "open"):
        seen = mark.get(host.url(f"/{path}/env.cgi"), {spelling: "evil"}).environment
        assert "evil" not in seen.values()


@pytest.mark.one_mpm
def test_a_long_one_arrives_whole(host, new_browser, simulator):
    """Longer than any other header may be; Bitbucket's passed 2,500 characters in 2026."""
    simulator.settings(token_length=3000)
    seen = new_browser().sign_in(host.url("/both/env.cgi"), "mark").environment
    assert len(seen[VARIABLE]) >= 3000 and seen[HEADER] == seen[VARIABLE] and who_has(simulator, seen[VARIABLE]) == "mark"


# -- how fresh it is

@pytest.fixture
def timed(start_server, clock, mpm):
    host = VirtualHost("AuthBitbucketMembershipMaxAge 1d 2d\nAuthBitbucketSessionTimeout 2d 7d\n" + SITE)
    start_server(host, mpm=mpm, clock=clock)
    return host


def token_of(browser, host, path="with") -> str | None:
    return browser.get(host.url(f"/{path}/env.cgi"), SCRIPT).environment.get(VARIABLE)


def pass_time(clock, simulator, seconds: int) -> None:
    clock.advance(seconds)
    simulator.advance_clock(seconds)


def test_it_is_renewed_before_it_ends(timed, clock, browser, simulator):
    before = browser.sign_in(timed.url("/with/env.cgi"), "mark").environment[VARIABLE]
    pass_time(clock, simulator, LIFETIME - 300)
    simulator.forget_calls()
    assert token_of(browser, timed) == before and simulator.asked() == []
    pass_time(clock, simulator, 260)
    after = token_of(browser, timed)
    assert after != before and who_has(simulator, after) == "mark"
    assert simulator.asked()[:2] == ["refresh", "user"]


def test_in_its_last_two_minutes_nobody_waits(timed, clock, browser, simulator):
    before = browser.sign_in(timed.url("/with/env.cgi"), "mark").environment[VARIABLE]
    pass_time(clock, simulator, LIFETIME - 100)
    assert token_of(browser, timed) == before
    eventually(lambda: token_of(browser, timed) != before)


def test_many_at_once_make_one_renewal(timed, clock, browser, simulator):
    before = browser.sign_in(timed.url("/with/env.cgi"), "mark").environment[VARIABLE]
    pass_time(clock, simulator, LIFETIME)
    simulator.forget_calls()
    with ThreadPoolExecutor(30) as pool:
        seen = set(pool.map(lambda _: token_of(browser, timed), range(60)))
    assert len(seen) == 1 and before not in seen and None not in seen
    assert simulator.asked().count("refresh") == 1


@pytest.mark.one_mpm
def test_places_without_it_renew_nothing(timed, clock, browser, simulator):
    browser.sign_in(timed.url("/without/env.cgi"), "mark")
    pass_time(clock, simulator, LIFETIME)
    simulator.forget_calls()
    assert browser.get(timed.url("/without/env.cgi"), SCRIPT).status == 200 and simulator.asked() == []


@pytest.mark.one_mpm
def test_in_an_outage_people_go_on_without_it(timed, clock, browser, simulator, logs):
    """What the token is for does not answer either."""
    logs.allow(tags.BROKEN)
    before = browser.sign_in(timed.url("/with/env.cgi"), "mark").environment[VARIABLE]
    pass_time(clock, simulator, LIFETIME - 30)
    simulator.fault("token", status=503)
    assert token_of(browser, timed) == before, "it is good for half a minute"
    pass_time(clock, simulator, 40)
    answer = browser.get(timed.url("/with/env.cgi"), SCRIPT)
    assert answer.status == 200 and answer.environment["REMOTE_USER"] and VARIABLE not in answer.environment


@pytest.mark.one_mpm
def test_revoked_access_ends_the_session(timed, clock, browser, simulator):
    browser.sign_in(timed.url("/with/env.cgi"), "mark")
    pass_time(clock, simulator, LIFETIME)
    simulator.end_tokens("all")
    assert browser.get(timed.url("/with/env.cgi"), SCRIPT).status == 401
    assert browser.get(timed.url("/adopted/env.cgi"), SCRIPT).environment.get("REMOTE_USER") is None


@pytest.mark.one_mpm
def test_an_unproved_one_is_not_given_out(timed, clock, browser, simulator, logs):
    """The pair is new, and Bitbucket does not say whose it is."""
    logs.allow(tags.BROKEN)
    browser.sign_in(timed.url("/with/env.cgi"), "mark")
    pass_time(clock, simulator, LIFETIME)
    simulator.fault("user", status=503)
    assert token_of(browser, timed) is None
    assert token_of(browser, timed) is None
    simulator.clear_faults()
    pass_time(clock, simulator, 120)
    simulator.forget_calls()
    assert who_has(simulator, token_of(browser, timed)) == "mark"
    assert "refresh" not in simulator.asked(), "the pair that was kept is proved"


@pytest.mark.one_mpm
def test_a_new_name_comes_with_a_new_token(timed, clock, browser, simulator):
    browser.sign_in(timed.url("/both/env.cgi"), "mark")
    simulator.change_account("mark", username="mark_renamed")
    pass_time(clock, simulator, LIFETIME)
    seen = browser.get(timed.url("/both/env.cgi"), SCRIPT).environment
    assert {seen["REMOTE_USER"], seen["BITBUCKET_USERNAME"], seen["HTTP_X_BITBUCKET_USERNAME"]} == {"mark_renamed"}


@pytest.mark.parametrize("value", ["", "Yes"])
def test_malformed(start_server, value):
    done = start_server.prepare(VirtualHost(place("x", f"AuthBitbucketPassAccessToken {value}", ANY))).run("-t")
    assert done.returncode != 0 and "AuthBitbucketPassAccessToken" in done.stdout


@pytest.mark.one_mpm
def test_it_merges_as_other_settings_do(start_server, browser):
    off = "AuthBitbucketPassAccessToken Off"
    host = VirtualHost("\n".join(['<Directory "${CONTENT}">', ON, "</Directory>", place("off", off, ANY),
                                  place("inherits", ANY, "<If \"%{QUERY_STRING} == 'off'\">", off, "</If>")]))
    start_server(host)
    assert VARIABLE in browser.sign_in(host.url("/inherits/env.cgi"), "mark").environment
    assert VARIABLE not in browser.get(host.url("/inherits/env.cgi?off")).environment
    assert VARIABLE not in browser.get(host.url("/off/env.cgi")).environment
