"""The login endpoint, and the grammar of the address to return to."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from harness import tags
from harness.client import NAVIGATION, SCRIPT
from harness.config import VirtualHost, place

GOOD = [
    "/", "/any/page.html", "/any/page.html?a=1&b=2", "/any/p%61ge.html?x=%2F%2F", "/a/b/c/", "/~user/;v=1/(x)!$'*,=:@",
    "/any?u=https://elsewhere.example/", "/%C3%A9", "/any/..hidden", "/any/a..b", "/any/...", "/a//b",
    "/any?x=/../", "/any?x=%0a", "/?", "/any/page.html?x=[1]",
]
HOSTILE = [
    "", "any", "//evil.example", "///evil.example", "////evil.example", "/\\evil.example", "\\\\evil.example", "/\\/evil.example",
    "/%2fevil.example", "/%2Fevil.example", "/%5cevil.example", "/%5Cevil.example", "%2f%2fevil.example",
    "http://evil.example/", "https://evil.example/", "HTTP://evil.example", "http:evil.example", "http:/evil.example",
    "javascript:alert(1)", "data:text/html,x", "//evil.example@localhost/", "http://localhost@evil.example/",
    "/\tevil", "/\t/evil.example", "/\n/evil.example", "/\r\nLocation: http://evil.example", "/%0d%0aX: y",
    "/%09/evil.example", "/%00", " /any", "/any page", "/any/../../x", "/any/..", "/any/.", "/./any", "/../", "/%2e%2e/x",
    "/any/%2E%2e/x", "/any/%2e", "/.", "/..", "/any/..%2fx", "/any#fragment", "/any\\..\\x", "/any%5c..%5cx", "/é", "/any\x7f",
    "/any%7f", "/%", "/%2", "/%zz", "/<script>", '/"x"', "/`x`", "/{x}", "/|x", "/^x", "?x=1", "#", "*", "@evil.example",
    ".evil.example", "/" + "a" * 2100,
]


def returned_to(browser, host, value: str | None, raw: bool = False) -> str:
    """Sign in through the endpoint; where it leads."""
    query = "" if value is None else "?return=" + (value if raw else quote(value, safe=""))
    callback = browser.walk_to_callback(host.endpoint("login") + query, "mark")
    answer = browser.get(callback)
    assert answer.status == 303, answer
    return answer.location


@pytest.mark.one_mpm
@pytest.mark.parametrize("value", GOOD)
def test_good_addresses(site, browser, value):
    assert returned_to(browser, site.quiet, value).removeprefix(site.quiet.origin) == value


@pytest.mark.one_mpm
@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_addresses(site, browser, logs, value):
    assert returned_to(browser, site.quiet, value).removeprefix(site.quiet.origin) == "/"
    assert logs.lines(tags.RETURN_REFUSED, "info"), "the log says that it was refused"


@pytest.mark.one_mpm
def test_own_origin_is_good(site, browser):
    assert returned_to(browser, site.quiet, site.quiet.url("/any/page.html?q=1")).endswith("/any/page.html?q=1")


@pytest.mark.one_mpm
@pytest.mark.parametrize("suffix", [".evil.example/", "@evil.example/", "0/", ":80/", "\\@evil.example", "//evil.example",
                                    "/\\evil.example", "evil"])
def test_like_own_origin_is_hostile(site, browser, suffix):
    assert returned_to(browser, site.quiet, site.quiet.origin + suffix).removeprefix(site.quiet.origin) == "/"


@pytest.mark.one_mpm
def test_without_an_address(site, browser):
    assert returned_to(browser, site.quiet, None).removeprefix(site.quiet.origin) == "/"


@pytest.mark.one_mpm
@pytest.mark.parametrize("value", ["/any+x", "/any%252e%252e/x", "/any%252f%252fevil.example"])
def test_decoded_once(site, browser, value):
    """What is encoded twice stays encoded once; a plus is a space."""
    expected = {"/any+x": "/", "/any%252e%252e/x": "/any%2e%2e/x", "/any%252f%252fevil.example": "/any%2f%2fevil.example"}
    assert returned_to(browser, site.quiet, value, raw=True).removeprefix(site.quiet.origin) == expected[value]


HTML = {"Accept": "text/html,application/xhtml+xml", "User-Agent": "Mozilla/5.0 (test)"}
PAGE_LOADS = {
    "a page load": NAVIGATION,
    "nothing is said": {},
    "curl": {"Accept": "*/*", "User-Agent": "curl/8.0"},
    "an old browser": HTML,
    "a page in an old application": {**HTML, "X-Requested-With": "com.example.app"},
}
OTHERS = {
    "a script": SCRIPT,
    "a script that wants HTML": {**SCRIPT, "Accept": "text/html"},
    "a script that wants JSON": {**SCRIPT, "Accept": "application/json"},
    "an image": {"Accept": "image/webp,*/*", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    "a web socket": {**HTML, "Connection": "Upgrade", "Upgrade": "websocket", "Sec-Fetch-Mode": "websocket"},
    "a prefetch": {**NAVIGATION, "Sec-Purpose": "prefetch"},
    "a page rendered ahead": {**NAVIGATION, "Sec-Purpose": "prefetch;prerender"},
    "an old prefetch": {**HTML, "Purpose": "prefetch"},
    "an old prefetch of Firefox": {**HTML, "X-Moz": "prefetch"},
}


@pytest.mark.parametrize("kind", PAGE_LOADS)
def test_login_begins_a_sign_in(site, browser, kind):
    answer = browser.get(site.quiet.endpoint("login"), PAGE_LOADS[kind])
    assert answer.status == 302 and len(answer.tickets) == 1
    assert answer.header("Cache-Control") == "no-store"


@pytest.mark.parametrize("kind", OTHERS)
def test_what_loads_no_page_begins_none(site, browser, kind):
    answer = browser.get(site.quiet.endpoint("login") + "?return=/any/page.html", OTHERS[kind])
    assert (answer.status, answer.location, answer.set_cookies) == (401, None, [])
    assert answer.header("WWW-Authenticate") == 'Bitbucket realm="Bitbucket"'
    login = answer.json["login_url"] if "JSON" in kind else answer.links["Sign in"]
    assert login == site.quiet.endpoint("login") + "?return=%2Fany%2Fpage.html"


def test_a_hovering_mouse_pushes_out_no_attempt(site, browser):
    """A browser keeps four attempts; links to the endpoint are fetched ahead as others are."""
    callback = browser.walk_to_callback(site.quiet.endpoint("login") + "?return=/any/page.html", "mark")
    for _ in range(6):
        browser.get(site.quiet.endpoint("login"), OTHERS["a prefetch"])
    assert browser.get(callback).location == "/any/page.html"


@pytest.mark.one_mpm
def test_login_in_a_frame(site, browser):
    answer = browser.get(site.quiet.endpoint("login"), {**NAVIGATION, "Sec-Fetch-Dest": "iframe"})
    assert (answer.status, answer.set_cookies) == (401, [])
    assert 'target="_blank"' in answer.text


@pytest.mark.one_mpm
@pytest.mark.parametrize("query", ["return=/a&return=/b", "return=%", "return=%00", "return=/a&return=/a", "%zz=1",
                                   "&".join(f"p{n}=1" for n in range(100))])
def test_bad_queries(site, browser, query):
    answer = browser.get(site.quiet.endpoint("login") + "?" + query)
    assert (answer.status, answer.set_cookies) == (400, [])
    assert answer.reference


def test_a_scope_is_sent_when_configured(start_server, browser):
    host = VirtualHost("AuthBitbucketScope account email\n" + place("any", "Require valid-user"))
    start_server(host)
    assert browser.get(host.url("/any/")).location_query["scope"] == "account email"
    assert browser.sign_in(host.url("/any/page.html"), "mark").status == 200
