"""Where a browser ends: hostile addresses at every way in, read as browsers read them.

An address comes in as the request itself, as login?return=, as logout?return= and in its
form. It may end at itself, when it is a plain path of this site, or at /; nowhere else.
"""

from __future__ import annotations

import re
from urllib.parse import quote, urljoin, urlsplit

import pytest

from harness.client import NAVIGATION, Answer, send_bytes
from harness.config import VirtualHost, place
from harness.fixtures import lasting, wanted_mpms
from harness.server import Server


@pytest.fixture(scope="module")
def host(shared_simulator):
    """All of the site is protected; one corner is for others."""
    host = VirtualHost("\n".join(['<Location "/">', "AuthType Bitbucket", "Require bitbucket-workspace acme", "</Location>",
                                  '<LocationMatch "forbidden">', "Require bitbucket-workspace acme:owner", "</LocationMatch>",
                                  "AllowEncodedSlashes NoDecode"]))
    with lasting(Server([host], shared_simulator, wanted_mpms()[0])):
        yield host


# -- as browsers read

def landed(base: str, location: str) -> str:
    """Where a browser goes (WHATWG URL): controls and spaces around are cut off, tabs and line
    ends vanish, backslashes are slashes, and any number of slashes begins a host."""
    text = re.sub(r"[\t\r\n]", "", location.strip("".join(map(chr, range(0x21)))))
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", text)
    if scheme and scheme.group().lower() not in ("http:", "https:"):
        return text
    head, separator, query = text.partition("?")
    text = head.replace("\\", "/") + separator + query
    if scheme:
        rest = text[scheme.end():]
        same = scheme.group().lower() == urlsplit(base).scheme + ":" and not rest.startswith("/")
        text = rest if same else scheme.group() + "//" + rest.lstrip("/")
    elif text.startswith("//"):
        text = "//" + text.lstrip("/")
    return urljoin(base, text)


def test_the_judge_sees_what_browsers_do():
    base = "http://site.example/bitbucket/callback"
    for text, host in (("//evil", "evil"), ("/\\evil", "evil"), ("\\\\evil", "evil"), ("/\t/evil", "evil"), ("/\n\\evil", "evil"),
                       ("///evil", "evil"), ("https:evil", "evil"), ("https:/evil", "evil"), ("http:\\\\evil", "evil"),
                       ("http://site.example@evil/", "evil"), (" //evil", "evil"), ("\x01//evil", "evil"),
                       ("http:x", "site.example"), ("/x", "site.example"), ("x", "site.example"), ("/x?//evil", "site.example")):
        assert urlsplit(landed(base, text)).hostname == host, text
    assert landed(base, "javascript:alert(1)").startswith("javascript:")


def is_safe(host: VirtualHost, base: str, location: str, wanted: str) -> bool:
    """At the site itself, at the wanted address unchanged or at /."""
    parts = urlsplit(landed(base, location))
    path = parts.path + ("?" + parts.query if "?" in location else "")
    same_site = (f"{parts.scheme}://{parts.netloc}", parts.fragment) == (host.origin, "")
    return same_site and not path.startswith("//") and path in ("/", wanted)


# -- the values

HOSTILE = [
    "//evil.example", "///evil.example", "/\\evil.example", "/\\/evil.example", "\\/evil.example", "\\\\evil.example",
    "/%5cevil.example", "/%5Cevil.example", "/%2fevil.example", "/%2f%2fevil.example", "/%2F%5Cevil.example", "/%5c%5cevil.example",
    "/a/..//evil.example", "/a/../\\evil.example", "/./\\evil.example", "/.//evil.example", "/..//evil.example", "/%2e//evil.example",
    "/%2e%2e//evil.example", "/a/%2e%2e/%2fevil.example",
    "https:evil.example", "https:/evil.example", "https://evil.example", "http:evil.example", "http:\\\\evil.example",
    "https://{host}@evil.example/", "https://evil.example@{host}/", "https://user:password@{host}/", "http://user@{host}:{port}/x",
    "http://{host}:{other}/x", "http://{host}:{port}0/x", "http://{host}:0{port}/x", "http://{host}/x", "http://{host}:80/x",
    "https://{host}:{port}/x", "http://{host}.evil.example:{port}/", "http://{host}:{port}.evil.example/",
    "http://{host}:{port}@evil.example/", "http://{host}:{port}\\@evil.example/", "http://{host}:{port}//evil.example",
    "http://{host}:{port}/\\evil.example", "http://{host}:{port}/%5cevil.example", "HTTP://{host}:{port}/x", "http://LOCALHOST:{port}/x",
    "http://{host}:{port}x", "http://{host}:{port}?x", "http://{host}:{port}#x", "http://127.0.0.1:{port}/x", "http://[::1]:{port}/x",
    "/\tevil.example", "/\t/evil.example", "\t//evil.example", "/\n/evil.example", "/\r/evil.example", "/a\r\nX-Evil: 1",
    "/\x0b/evil.example", "/\x7f/evil.example",
    "/a?b=\\evil.example", "/a?b=\"x", "/a?b=<x>", "/a?b={x}",
    "/%09/evil.example", "/%0a/evil.example", "/%0d%0aX-Evil:%201", "/%00/evil.example", "/%7f",
    "/é", "/／evil.example", "/\u2028", "//evil。example", "/\u202egnp.exe",
    "/a/./b", "/a/../b", "/a/%2e/b", "/a/.%2e/b", "/./", "/../", "/.", "/..", "/a/..", "/a/.",
    "javascript:alert(1)", "JavaScript:alert(1)", "java\tscript:alert(1)", "javascript://%0aalert(1)", "data:text/html,x",
    "vbscript:x", "file:///etc/passwd", "about:blank", "blob:x", "mailto:x", "//javascript:alert(1)",
    "/a b", " /a", "/a ", "/<script>", "/\"x", "/'\"><x", "/a`b", "/{{7*7}}", "/|x", "/^x",
    "/%", "/%4", "/%zz", "/%u002f", "/a#//evil.example", "/a%5c%2e%2e%5cb",
    "x", "x/y", "?x", "#x", "@evil.example", ".evil.example", ":80", "*", "",
    "/" + "a" * 8192, "/a?" + "b" * 8192, "/" + "%41" * 3000,
]
HARMLESS = [
    # Odd, and what they seem: paths of this site.
    "/a//b", "/a?u=//evil.example", "/a?u=https://evil.example/", "/a?/../..//evil.example", "/a;//b", "/%e9", "/%C3%A9", "/%ed%a0%80",
    "/%EF%BC%8Fevil.example", "/a@evil.example", "/a:80", "/...", "/a..b/", "/%252f%252fevil.example", "/%255cevil.example",
    "/%2509", "/a?x=%0d%0aX-Evil:1", "/a?x=%00", "/a?x=%5c", "/javascript:alert(1)", "/a'b(c)*!$&+,=~",
]
# What stands twice encoded in a query is once encoded there.
TWICE = ["%252f%252fevil.example", "%255cevil.example", "%2509", "%250d%250aX-Evil", "%2500", "%252e%252e%252f", "%25", "%2525",
         "%25252f"]


def filled(value: str, host: VirtualHost) -> str:
    return value.replace("{host}", host.name).replace("{port}", str(host.port)).replace("{other}", str(host.port + 1))


def values(host: VirtualHost) -> list[str]:
    return [filled(value, host) for value in [*HOSTILE, *HARMLESS]]


@pytest.fixture
def mark(host, log_watch, browser):
    """Signed in at the site and at Bitbucket."""
    callback = browser.walk_to_callback(host.url("/page.html"), "mark")
    assert browser.get(callback).status == 303
    return browser


def through_login(host, browser, query: str):
    """Where a sign-in that the endpoint begins comes back to. Without a session, and
    without the count of sign-ins, which would end a browser's fifth."""
    kept = {key: value for key, value in browser.jar.cookies.items() if "bitbucket_session" not in key[1]}
    browser.jar.cookies = kept
    return browser.get(browser.walk_to_callback(host.endpoint("login") + query, "mark"))


def test_return_of_login(host, mark):
    wrong = []
    for value in values(host):
        answer = through_login(host, mark, "?return=" + quote(value, safe=""))
        if answer.status != 303 or not is_safe(host, answer.url, answer.location, value):
            wrong.append((value[:80], answer.status, answer.location))
        if value in HARMLESS and answer.location != value:
            wrong.append((value, "not kept", answer.location))
        if value in HOSTILE and answer.location != "/":
            wrong.append((value[:80], "kept", answer.location))
    assert not wrong, "\n".join(map(str, wrong))


def test_what_is_encoded_twice(host, mark):
    for value in TWICE:
        for prefix in ("/", "/a/", "/a?x="):
            answer = through_login(host, mark, "?return=" + prefix + value)
            decoded = prefix + value.replace("%25", "%")
            assert answer.status == 303 and is_safe(host, answer.url, answer.location, decoded), (prefix + value, answer.location)


@pytest.mark.parametrize("query", ["?return=/a&return=//evil.example", "?return=//evil.example&return=/a", "?return=/a&return=/a",
                                   "?return=/a&%72eturn=//evil.example", "?return=%", "?return=%0", "?return=%00", "?return=/a%00//evil",
                                   "?return=/%00/evil.example", "?return=/a&RETURN=//evil.example",
                                   "?return=/%u2215"])
def test_doubtful_queries_begin_nothing(host, mark, query):
    for endpoint in ("login", "logout"):
        answer = mark.get(host.endpoint(endpoint) + query)
        assert (answer.status, answer.location, answer.tickets) == (400, None, []), (endpoint, answer)
        assert "evil" not in answer.text


@pytest.mark.parametrize("query", ["?Return=//evil.example", "?return[]=//evil.example", "?return", "?return=",
                                   "?returnto=//evil.example", "?url=//evil.example", "?;return=/a"])
def test_other_names_mean_nothing(host, mark, query):
    assert through_login(host, mark, query).location == "/"


def addresses_on(answer) -> list[str]:
    return [*answer.links.values(), *(form.fields["return"] for form in answer.forms if "return" in form.fields),
            *(form.action for form in answer.forms)]


def check_page(host, answer, value: str) -> list:
    """Every address on a page leads to the site; those of endpoints carry a safe one on."""
    wrong = []
    for address in addresses_on(answer):
        parts = urlsplit(landed(answer.url, address))
        endpoints = {urlsplit(host.endpoint(name)).path for name in ("login", "logout")}
        if f"{parts.scheme}://{parts.netloc}" != host.origin or (parts.path not in endpoints
                                                                 and not is_safe(host, answer.url, address, value)):
            wrong.append((value[:80], address))
    return wrong


def test_return_of_logout(host, mark):
    """The page that asks, the form sent back with another address, and the page after it."""
    wrong = []
    for value in values(host):
        page = mark.get(host.endpoint("logout") + "?return=" + quote(value, safe=""))
        assert page.status == 200 and page.location is None
        wrong += check_page(host, page, value)
        # Without the right token the form asks again: nothing is ended, and the address is read anew.
        again = mark.request("POST", host.endpoint("logout"), NAVIGATION, {"token": "x", "return": value})
        assert again.status in (200, 400)
        wrong += check_page(host, again, value)
    assert not wrong, "\n".join(map(str, wrong))


def test_after_signing_out(host, log_watch, new_browser, mark):
    token = mark.get(host.endpoint("logout")).forms[0].fields["token"]
    done = mark.request("POST", host.endpoint("logout"), NAVIGATION, {"token": token, "return": "//evil.example"})
    assert done.status == 200 and check_page(host, done, "//evil.example") == []
    for value in values(host):
        page = new_browser().get(host.endpoint("logout") + "?return=" + quote(value, safe=""))
        assert page.status == 200 and check_page(host, page, value) == []


# -- the request itself

def targets(host: VirtualHost) -> list[str]:
    """Values that can stand in a request line: a path, or a whole address as proxies get it."""
    return [value for value in values(host) if value and value.isascii() and not re.search(r"[\x00-\x20\x7f]", value)]


def raw_request(host, target: str, cookie: str = "") -> tuple[int, dict[str, str], bytes]:
    """A navigation whose request line nothing has tidied."""
    lines = [f"GET {target} HTTP/1.1", f"Host: {host.name}:{host.port}", "Connection: close",
             *(f"{name}: {value}" for name, value in NAVIGATION.items()), *([f"Cookie: {cookie}"] if cookie else [])]
    received = send_bytes(host.port, "\r\n".join([*lines, "", ""]).encode())
    head, _, body = received.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    return int(status.split()[1]), {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in fields)}, body


def test_the_address_that_was_asked_for(host, mark, simulator):
    """A sign-in that it begins comes back to it, or to /."""
    wrong, begun = [], 0
    for target in targets(host):
        status, fields, _ = raw_request(host, target)
        location = fields.get("location", "")
        if status != 302:
            # httpd itself refuses what is no request.
            if status not in (400, 403, 404, 414) or location:
                wrong.append((target[:80], status, location))
            continue
        begun += 1
        cookie = fields.get("set-cookie", "")
        if location.startswith(host.endpoint("login") + "?return="):
            # It named another host: the sign-in begins at the site's own.
            begins = mark.get(location)
            location, cookie = begins.location, begins.header_lines("Set-Cookie")[0]
        if not location.startswith(simulator.authorize_url):
            wrong.append((target[:80], status, location))
            continue
        mark.jar.cookies = {key: value for key, value in mark.jar.cookies.items() if "bitbucket_session" not in key[1]}
        name, _, value = cookie.split(";")[0].partition("=")
        callback = mark.get(location).location
        answer = mark.get(callback, {**NAVIGATION, "Cookie": f"{name}={value}"})
        own = target.removeprefix(host.origin) or "/"
        if answer.status != 303 or not is_safe(host, answer.url, answer.location, own):
            wrong.append((target[:80], answer.status, answer.location))
    assert not wrong, "\n".join(map(str, wrong))
    assert begun > 60


def test_the_address_on_a_refusal(host, mark):
    """`Check again` and `Sign in as somebody else` lead to the site."""
    cookie = mark.jar.line("localhost", False)
    wrong, refused = [], 0
    for target in targets(host):
        target = target + ("&" if "?" in target else "?") + "forbidden" if "#" not in target else target
        status, fields, body = raw_request(host, target.replace("/a", "/forbidden", 1), cookie)
        if status == 403 and b"Check again" in body:
            refused += 1
            answer = Answer(host.url("/"), status, list(fields.items()), body)
            wrong += check_page(host, answer, target.replace("/a", "/forbidden", 1).removeprefix(host.origin))
            assert b"evil" not in body or re.search(rb"forbidden[^\"]*evil|return=[^\"]*evil", body), target
    assert not wrong, "\n".join(map(str, wrong))
    assert refused >= 10


def test_frames_and_scripts_are_told_a_safe_address(host, log_watch, new_browser):
    for target in targets(host):
        if not target.startswith("/"):
            continue
        for headers in ({**NAVIGATION, "Sec-Fetch-Dest": "iframe"}, {"Accept": "application/json"}):
            answer = new_browser().get(host.url(target), headers)
            if answer.status != 401:
                assert answer.status in (400, 403, 404, 414) and answer.location is None, (target[:80], answer)
                continue
            login = answer.json["login_url"] if answer.text.startswith("{") else answer.links["Sign in"]
            parts = urlsplit(landed(answer.url, login))
            assert (f"{parts.scheme}://{parts.netloc}{parts.path}") == host.endpoint("login"), (target[:80], login)
