"""Signing out."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from harness import tags
from harness.client import NAVIGATION, SCRIPT
from harness.simulator import account


@pytest.fixture
def signed_in(site, browser):
    assert browser.sign_in(site.quiet.url("/any/page.html"), "mark").status == 200
    return browser


def is_signed_in(site, browser) -> bool:
    return browser.get(site.quiet.url("/any/page.html"), {"Accept": "*/*"}).status == 200


def test_sign_out_by_the_page(site, signed_in, logs):
    page = signed_in.get(site.quiet.endpoint("logout"))
    assert page.status == 200 and "no-store" in page.header("Cache-Control")
    assert account("mark")["display_name"] in page.text
    assert is_signed_in(site, signed_in), "the page alone ends nothing"
    old = signed_in.session_value()
    done = signed_in.submit(page)
    assert done.status == 200 and "Bitbucket" in done.text
    deleted, = done.set_cookies
    assert (deleted.name, deleted.value) == ("bitbucket_session", "")
    assert deleted.attributes == {"path": "/", "httponly": "", "samesite": "Lax", "max-age": "0"}
    assert not is_signed_in(site, signed_in)
    stale = signed_in.get(site.quiet.url("/any/page.html"), {"Accept": "*/*", "Cookie": "bitbucket_session=" + old})
    assert stale.status == 401, "the stored session is gone, not only its cookie"
    assert signed_in.get(site.quiet.url("/any/page.html")).status == 302
    assert logs.lines(tags.SIGNED_OUT, "info")


def test_signing_in_again_after_it(site, signed_in):
    done = signed_in.submit(signed_in.get(site.quiet.endpoint("logout") + "?return=/any/page.html"))
    assert done.links["Continue"].endswith("/any/page.html")
    assert signed_in.walk(signed_in.click(done, "Sign in again"))[-1].status == 200


@pytest.mark.one_mpm
@pytest.mark.parametrize("form", [{}, {"token": ""}, {"token": "x"}, {"token": "A" * 43}, {"return": "/"}, {"Token": "x"},
                                  {"token": "A" * 7000}])
def test_without_the_pages_token_it_asks_first(site, signed_in, form):
    """Another site may have sent the form."""
    answer = signed_in.request("POST", site.quiet.endpoint("logout"), NAVIGATION, form)
    assert answer.status == 200 and answer.set_cookies == [] and answer.forms
    assert is_signed_in(site, signed_in)


@pytest.mark.one_mpm
def test_the_token_of_another_session(site, signed_in, new_browser):
    other = new_browser()
    other.sign_in(site.quiet.url("/any/page.html"), "oscar")
    token = other.get(site.quiet.endpoint("logout")).forms[0].fields["token"]
    signed_in.request("POST", site.quiet.endpoint("logout"), NAVIGATION, {"token": token})
    assert is_signed_in(site, signed_in) and is_signed_in(site, other)


@pytest.mark.one_mpm
def test_the_token_in_the_query_is_none(site, signed_in):
    token = signed_in.get(site.quiet.endpoint("logout")).forms[0].fields["token"]
    signed_in.get(site.quiet.endpoint("logout") + "?token=" + token)
    signed_in.request("POST", site.quiet.endpoint("logout") + "?token=" + token, NAVIGATION, {})
    assert is_signed_in(site, signed_in)


@pytest.mark.one_mpm
@pytest.mark.parametrize("headers, body", [
    ({"Content-Type": "text/plain"}, b"token=x"),
    ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x--"),
    ({"Content-Type": "application/json"}, b"{}"),
    ({"Content-Type": "application/x-www-form-urlencoded-not"}, b"token=x"),
    ({"Content-Type": "application/x-www-form-urlencoded"}, b"token=" + b"A" * 20_000),
    ({"Content-Type": "application/x-www-form-urlencoded"}, b"token=x&token=y"),
    ({"Content-Type": "application/x-www-form-urlencoded"}, b"token=%zz"),
    ({"Content-Type": "application/x-www-form-urlencoded"}, b"token=a\x00b"),
])
def test_bad_forms(site, signed_in, headers, body):
    answer = signed_in.request("POST", site.quiet.endpoint("logout"), {**NAVIGATION, **headers}, body=body)
    assert answer.status == 400 and answer.reference
    assert is_signed_in(site, signed_in)


@pytest.mark.one_mpm
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_when_nobody_is_signed_in(site, browser, method):
    answer = browser.request(method, site.quiet.endpoint("logout"), NAVIGATION, {} if method == "POST" else None)
    assert answer.status == 200 and not answer.forms


@pytest.mark.one_mpm
def test_sign_out_twice(site, signed_in):
    page = signed_in.get(site.quiet.endpoint("logout"))
    assert signed_in.submit(page).status == 200
    assert signed_in.submit(page).status == 200


@pytest.mark.one_mpm
@pytest.mark.parametrize("value", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)"])
def test_hostile_return(site, signed_in, value):
    url = site.quiet.endpoint("logout") + "?return=" + quote(value, safe="")
    page = signed_in.get(url)
    assert "evil.example" not in page.text and "javascript" not in page.text
    form = {**page.forms[0].fields, "return": value}
    done = signed_in.request("POST", site.quiet.endpoint("logout"), NAVIGATION, form)
    assert done.status == 200
    assert all("evil" not in href and "javascript" not in href for href in done.links.values())


@pytest.mark.one_mpm
def test_two_sessions_are_two(site, signed_in, new_browser):
    """Signing out here does not sign out there."""
    other = new_browser()
    other.sign_in(site.quiet.url("/any/page.html"), "mark")
    signed_in.submit(signed_in.get(site.quiet.endpoint("logout")))
    assert is_signed_in(site, other)


@pytest.mark.one_mpm
def test_head(site, signed_in):
    answer = signed_in.request("HEAD", site.quiet.endpoint("logout"))
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.one_mpm
def test_script(site, signed_in):
    """An application may send the form by script, with the token from the page."""
    token = signed_in.get(site.quiet.endpoint("logout")).forms[0].fields["token"]
    assert signed_in.request("POST", site.quiet.endpoint("logout"), SCRIPT, {"token": token}).status == 200
    assert not is_signed_in(site, signed_in)


@pytest.mark.one_mpm
def test_on_https(site, browser):
    browser.sign_in(site.secure.url("/any/page.html"), "mark")
    done = browser.submit(browser.get(site.secure.endpoint("logout")))
    deleted, = done.set_cookies
    assert deleted.name == "__Host-bitbucket_session" and "secure" in deleted.attributes
    assert browser.session_value() is None
