"""Pages for people who are refused, and what ErrorDocument makes of them."""

from __future__ import annotations

import re

import pytest

from harness import tags
from harness.client import SCRIPT
from harness.config import VirtualHost, place
from harness.simulator import account, uuid_of

OUR_CSP = re.compile(r"default-src 'none'; style-src 'sha256-[A-Za-z0-9+/=]+'; form-action 'self'; base-uri 'none'; "
                     r"frame-ancestors 'none'")


def check_page(answer):
    """What holds for each page of the module."""
    assert answer.header("Content-Type").startswith("text/html")
    assert OUR_CSP.fullmatch(answer.header("Content-Security-Policy"))
    assert answer.header("X-Content-Type-Options") == "nosniff"
    assert answer.header("Referrer-Policy") == "no-referrer"
    assert "no-store" in answer.header("Cache-Control")
    assert answer.body.startswith(b"<!DOCTYPE html>") and answer.body.rstrip().endswith(b"</html>")
    assert not re.search(r"<script|javascript:|\son[a-z]+=|src=", answer.text)


def test_signed_in_but_refused(site, browser, logs):
    answer = browser.sign_in(site.plain.url("/owners/page.html?q=1"), "mark")
    assert answer.status == 403
    check_page(answer)
    assert account("mark")["display_name"] in answer.text and account("mark")["username"] in answer.text
    assert "owner of acme" in answer.text
    assert "Test site" in answer.text
    line, = logs.lines(tags.REFUSED)
    assert answer.reference and f"reference={answer.reference}" in line.text
    assert uuid_of("mark") in line.text and "owner of acme" in line.text
    assert answer.links["Check again"].endswith("/owners/page.html?q=1")
    assert "/bitbucket/login?return=%2Fowners%2Fpage.html%3Fq%3D1" in answer.links["Sign in as somebody else"]


def test_each_refusal_has_a_reference_of_its_own(site, browser):
    browser.sign_in(site.plain.url("/any/page.html"), "mark")
    references = {browser.get(site.plain.url("/owners/page.html")).reference for _ in range(5)}
    assert len(references) == 5 and None not in references


@pytest.mark.one_mpm
def test_check_again(site, browser, simulator):
    refused = browser.sign_in(site.plain.url("/owners/page.html"), "mark")
    assert browser.click(refused, "Check again").status == 403


@pytest.mark.one_mpm
def test_sign_in_as_somebody_else(site, browser, simulator):
    refused = browser.sign_in(site.plain.url("/owners/page.html"), "mark")
    browser.jar.cookies = {k: v for k, v in browser.jar.cookies.items() if k[0] == "localhost"}
    answer = browser.walk(browser.click(refused, "Sign in as somebody else"), "olivia")[-1]
    assert (answer.status, answer.url) == (200, site.plain.url("/owners/page.html"))


@pytest.mark.one_mpm
def test_names_are_escaped(site, browser):
    answer = browser.sign_in(site.plain.url("/owners/page.html"), "zoe")
    assert answer.status == 403
    check_page(answer)
    assert "<b>O" not in answer.text and "&#60;b&#62;O" in answer.text


@pytest.mark.one_mpm
def test_no_text_of_the_request_is_shown(site, browser):
    """But as an escaped address to go on to."""
    browser.sign_in(site.plain.url("/any/page.html"), "mark")
    answer = browser.get(site.plain.url("/owners/page.html?%3Cscript%3Ealert(1)%3C/script%3E&%22%27=x"))
    assert answer.status == 403
    check_page(answer)


@pytest.mark.one_mpm
def test_refused_by_httpds_own_rule(site, browser, logs):
    answer = browser.sign_in(site.plain.url("/nobody/page.html"), "mark")
    assert answer.status == 403 and answer.location is None
    check_page(answer)
    assert logs.lines(tags.REFUSED)


def test_no_redirect_loop(site, browser):
    steps = browser.walk(browser.get(site.plain.url("/owners/page.html")), "mark")
    assert steps[-1].status == 403
    assert [step.status for step in steps if step.url.startswith(site.plain.origin)] == [302, 303, 403]
    for _ in range(3):
        assert browser.get(site.plain.url("/owners/page.html")).status == 403


@pytest.mark.one_mpm
def test_head_of_a_refusal(site, browser):
    browser.sign_in(site.plain.url("/any/page.html"), "mark")
    answer = browser.request("HEAD", site.plain.url("/owners/page.html"))
    assert (answer.status, answer.body) == (403, b"")


@pytest.mark.one_mpm
def test_post_of_somebody_refused(site, browser):
    browser.sign_in(site.plain.url("/any/page.html"), "mark")
    answer = browser.request("POST", site.plain.url("/owners/env.cgi"), form={"a": "1"})
    assert answer.status == 403 and "REMOTE_USER" not in answer.text


# -- ErrorDocument

def read_error(answer) -> dict[str, str]:
    return dict(re.findall(r"(\w+)=(\S*)", answer.text))


def test_error_document_of_403(site, browser, logs):
    browser.sign_in(site.documents.url("/any/page.html"), "oscar")
    answer = browser.get(site.documents.url("/team/page.html"))
    error = read_error(answer)
    line, = logs.lines(tags.REFUSED)
    assert answer.status == 403
    assert error == {"error": "forbidden", "id": error["id"], "status": "403"}
    assert error["id"] and f"reference={error['id']}" in line.text
    assert answer.header("Content-Security-Policy") is None, "that is for our own pages"


def test_error_document_of_401(site, browser):
    answer = browser.get(site.documents.url("/any/page.html"), SCRIPT)
    error = read_error(answer)
    assert answer.status == 401 and answer.header("WWW-Authenticate")
    assert error["error"] == "unauthenticated" and error["id"]


def test_error_document_of_503(site, browser, simulator, logs):
    logs.expect(tags.ANSWERED)
    callback = browser.walk_to_callback(site.documents.url("/any/page.html"), "mark")
    simulator.fault("user", status=500)
    answer = browser.get(callback)
    error = read_error(answer)
    assert answer.status == 503 and int(answer.header("Retry-After")) >= 1
    assert error["error"] == "upstream"
    assert f"reference={error['id']}" in logs.lines(tags.ANSWERED)[0].text


def test_an_error_document_behind_rules_of_its_own(start_server, new_browser):
    """A protected ErrorDocument neither loops nor lets anybody in. (One in the same place
    is shown: httpd does not ask twice under one set of rules.)"""
    host = VirtualHost("\n".join([place("team", "Require bitbucket-workspace acme"),
                                  place("owners", "Require bitbucket-workspace acme:owner"),
                                  "ErrorDocument 401 /owners/page.html", "ErrorDocument 403 /owners/page.html"]))
    start_server(host)
    stranger = new_browser().get(host.url("/team/data.txt"), SCRIPT)
    assert stranger.status == 401 and "test page" not in stranger.text
    browser = new_browser()
    refused = browser.sign_in(host.url("/team/data.txt"), "oscar")
    assert refused.status == 403 and "test page" not in refused.text


def test_error_document_texts_and_urls(start_server, new_browser):
    host = VirtualHost("\n".join([place("team", "Require bitbucket-workspace acme"),
                                  'ErrorDocument 401 "sign in first"', "ErrorDocument 403 https://help.example/"]))
    start_server(host)
    assert "sign in first" in new_browser().get(host.url("/team/data.txt"), SCRIPT).text
    browser = new_browser()
    steps = browser.walk_to_callback(host.url("/team/data.txt"), "oscar")
    answer = browser.follow(browser.get(steps))
    assert answer.location == "https://help.example/"
