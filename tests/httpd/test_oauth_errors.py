"""Errors at the callback (RFC 6749 4.1.2.1): a plain page each; doubtful parameters: refused
before anybody is asked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qsl, urlsplit

import pytest

from harness import tags
from harness.client import NAVIGATION, send_bytes
from test_refusals import check_page

ERRORS = {
    # error: status, reason, a word of the page
    "access_denied": (403, "cancelled", "You did not grant access"),
    "temporarily_unavailable": (503, "upstream", "Bitbucket cannot be asked right now"),
    "server_error": (503, "upstream", "Bitbucket cannot be asked right now"),
    "invalid_scope": (500, "scope", "This site is not set up correctly"),
    "unauthorized_client": (500, "client", "This site is not set up correctly"),
    "unsupported_response_type": (500, "client", "This site is not set up correctly"),
    "invalid_request": (500, "client", "This site is not set up correctly"),
    "never_heard_of": (500, "client", "This site is not set up correctly"),
    "ACCESS_DENIED": (500, "client", "This site is not set up correctly"),
}


def begin(site, browser) -> str:
    return browser.get(site.quiet.url("/any/page.html?q=1")).location_query["state"]


@pytest.mark.one_mpm
@pytest.mark.parametrize("error", ERRORS)
def test_each_error_has_its_page(site, browser, simulator, logs, error):
    status, reason, heading = ERRORS[error]
    callback = site.quiet.endpoint("callback") + f"?error={error}&state={begin(site, browser)}"
    answer = browser.get(callback)
    assert (answer.status, answer.location, answer.session_cookie) == (status, None, None)
    check_page(answer)
    assert heading in answer.text and error not in answer.text
    line, = logs.lines(tags.ANSWERED)
    assert line.level == "info" and f"reason={reason} reference={answer.reference}" in line.text and error in line.text
    assert (answer.header("Retry-After") is not None) == (status == 503)
    # The way on is the page that was wanted; nothing has begun by itself, and nobody was asked.
    assert answer.links["Try again"].endswith("/any/page.html?q=1") and answer.tickets == []
    assert simulator.asked() == []
    # The attempt is over: the same address leads to no second page of this kind.
    again = browser.get(callback)
    assert again.status == 400 and again.session_cookie is None and simulator.asked() == []
    # Nothing stands in the way of another.
    assert browser.sign_in(site.quiet.url("/any/page.html"), "mark").status == 200


@pytest.mark.one_mpm
@pytest.mark.parametrize("error", ERRORS)
def test_an_error_disturbs_nobody_who_is_signed_in(site, browser, simulator, error):
    state = begin(site, browser)
    browser.sign_in(site.quiet.url("/any/page.html"), "mark")
    session = browser.session_value()
    simulator.forget_calls()
    browser.get(site.quiet.endpoint("callback") + f"?error={error}&state={state}")
    assert browser.session_value() == session
    assert browser.get(site.quiet.url("/any/page.html")).status == 200 and simulator.asked() == []


@pytest.mark.one_mpm
@pytest.mark.parametrize("more", [
    "error_description=a&error_description=b", "error_uri=x&error_uri=y", "error=access_denied", "error=server_error",
    "code=x", "Error=x", "%65rror=x", "state=x", "State=x", "st%61te=x",
])
def test_errors_with_doubtful_company(site, browser, simulator, logs, more):
    """Nothing is believed of a query that two readers could read in two ways."""
    state = begin(site, browser)
    for query in (f"error=access_denied&state={state}&{more}", f"{more}&state={state}&error=access_denied"):
        answer = browser.get(site.quiet.endpoint("callback") + "?" + query)
        assert (answer.status, answer.location, answer.session_cookie) == (400, None, None), answer
        check_page(answer)
        line = logs.lines(tags.ANSWERED)[-1]
        assert line.level == "info" and f"reason=input reference={answer.reference}" in line.text
    assert simulator.asked() == []
    assert browser.ticket_names(), "the attempt is open still"


def mixtures(code: str, state: str) -> list[str]:
    pair = f"code={code}&state={state}"
    return [f"{pair}&{more}" for more in (
        f"code={code}", "code=", "code=other", f"c%6fde={code}", "Code=other", "CODE=other", f"state={state}", "state=", "state=other",
        f"st%61te={state}", "STATE=other", "error=access_denied", "error=", "error=x&error=x", "err%6fr=server_error", "a=%", "a=%4", "a=%zz",
        "a=%00", "%00=a", "&".join(f"p{n}=1" for n in range(100)))] + [
        pair.replace("&", ";"), f"code={code}%00&state={state}", f"code={code}&state={state}%00", f"code=&state={state}",
        f"code={code}&state=", f"code={code}", f"state={state}"]


@pytest.mark.one_mpm
def test_doubtful_callbacks_are_refused_before_anybody_is_asked(site, browser, simulator, logs):
    """With the true code and the true state in them; and the plain callback still works."""
    callback = browser.walk_to_callback(site.quiet.url("/any/page.html"), "mark")
    query = dict(parse_qsl(urlsplit(callback).query))
    base = site.quiet.endpoint("callback")
    for mixture in mixtures(query["code"], query["state"]):
        answer = browser.get(base + "?" + mixture)
        assert (answer.status, answer.location, answer.set_cookies) == (400, None, []), mixture[:100]
        check_page(answer)
        assert simulator.asked() == [], mixture[:100]
    assert browser.get(callback).status == 303


@pytest.mark.one_mpm
def test_a_body_adds_nothing_to_the_query(site, browser, simulator):
    """A form that another site posts: the method alone refuses it; a GET's body is not looked at."""
    callback = browser.walk_to_callback(site.quiet.url("/any/page.html"), "mark")
    query = urlsplit(callback).query
    base = site.quiet.endpoint("callback")
    assert browser.request("POST", base, NAVIGATION, dict(parse_qsl(query))).status == 405
    assert browser.request("GET", base, {**NAVIGATION, "Content-Type": "application/x-www-form-urlencoded"}, body=query.encode()).status == 400
    assert simulator.asked() == []
    assert browser.get(callback).status == 303


@pytest.mark.one_mpm
def test_the_same_callback_from_many_hands_at_once(site, browser, simulator):
    """The code is sent once, and one session comes of it; the others begin once more."""
    callback = browser.walk_to_callback(site.quiet.url("/any/page.html"), "mark")
    cookie = browser.jar.line("localhost", False)
    target = callback.removeprefix(site.quiet.origin)
    request = (f"GET {target} HTTP/1.1\r\nHost: localhost:{site.quiet.port}\r\nCookie: {cookie}\r\nAccept: text/html\r\n"
               "Sec-Fetch-Mode: navigate\r\nConnection: close\r\n\r\n").encode()
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: send_bytes(site.quiet.port, request), range(12)))
    assert sum(b"Set-Cookie: bitbucket_session=" in answer for answer in answers) == 1
    assert {int(answer.split()[1]) for answer in answers} <= {302, 303}
    assert simulator.asked().count("token") == 1 and simulator.asked().count("user") == 1
