"""userinfo, and what holds for all endpoints of the module."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness.client import NAVIGATION, SCRIPT, send
from harness.config import VirtualHost, modules_directory, place
from harness.simulator import account, uuid_of, workspace_uuid


def test_userinfo(site, browser, simulator):
    browser.sign_in(site.plain.url("/team/page.html"), "mark")
    simulator.forget_calls()
    answer = browser.get(site.plain.endpoint("userinfo"), SCRIPT)
    assert answer.status == 200
    assert answer.header("Content-Type") == "application/json"
    assert "no-store" in answer.header("Cache-Control")
    assert answer.header("X-Content-Type-Options") == "nosniff"
    info = answer.json
    now = site.server.now()
    raw, expires_at = info.pop("raw_data"), info.pop("expires_at")
    assert isinstance(expires_at, int) and now + 11 * 3600 < expires_at <= now + 12 * 3600 + 5
    shown = {"provider": "bitbucket", "oauth_id": uuid_of("mark"), "email": "mark@acme.example", "email_verified": True,
             "username": account("mark")["username"], "first_name": "Mark", "last_name": "Miller",
             "display_name": "Mark Miller",
             "avatar_url": f"{simulator.origin}/account/%7B{uuid_of('mark')}%7D/avatar/",
             "profile_url": f"{simulator.origin}/%7B{uuid_of('mark')}%7D/",
             "workspaces": [{"slug": "acme", "uuid": workspace_uuid("acme"), "role": "member"}]}
    assert {key: info[key] for key in shown} == shown
    for key, value in account("mark").items():
        if key not in ("about", "emails", "api_tokens"):
            assert raw[key] == value, key
    assert simulator.asked() == []


CORS = """<Location "/bitbucket/userinfo">
    Header always set Access-Control-Allow-Origin "https://app.example.com"
    Header always set Access-Control-Allow-Credentials "true"
    Header always merge Vary "Origin"
</Location>
"""


@pytest.mark.one_mpm
def test_pages_of_other_origins_read_userinfo_where_the_administrator_says_so(start_server, browser):
    assert CORS in (Path(__file__).resolve().parents[2] / "docs" / "rules.md").read_text()
    host = VirtualHost(CORS + place("any", "Require valid-user"))
    other = VirtualHost(place("any", "Require valid-user"))
    start_server(host, other)
    for site, allowed in ((host, "https://app.example.com"), (other, None)):
        for status in (401, 200):
            answer = browser.get(site.endpoint("userinfo"), {**SCRIPT, "Origin": "https://app.example.com"})
            assert (answer.status, answer.header("Access-Control-Allow-Origin")) == (status, allowed)
            assert answer.header("Cache-Control") == "no-store" and answer.json
            browser.sign_in(site.url("/any/page.html"), "mark")


@pytest.mark.one_mpm
def test_userinfo_beside_filters_that_wait_for_a_handler(start_server, browser):
    """Debian's own configuration has such a line; mod_filter crashes where nobody prepared it."""
    modules = "".join(f"LoadModule {name}_module {modules_directory()}/mod_{name}.so\n" for name in ("filter", "deflate"))
    host = VirtualHost(CORS + place("any", "Require valid-user"))
    start_server(host, main=modules + "AddOutputFilterByType DEFLATE text/html application/json\n")
    for status in (401, 200):
        answer = browser.get(host.endpoint("userinfo"), {**SCRIPT, "Accept-Encoding": "gzip"})
        assert (answer.status, answer.header("Access-Control-Allow-Origin")) == (status, "https://app.example.com") and answer.json
        browser.sign_in(host.url("/any/page.html"), "mark")


@pytest.mark.one_mpm
def test_userinfo_without_details(site, browser, simulator):
    simulator.change_account("noah", nickname=None, display_name=None, account_id=None, links={}, emails=[])
    browser.sign_in(site.quiet.url("/any/page.html"), "noah")
    info = browser.get(site.quiet.endpoint("userinfo"), SCRIPT).json
    assert info["email_verified"] is False and info["workspaces"] == []
    for key in ("email", "username", "first_name", "last_name", "display_name", "avatar_url", "profile_url"):
        assert info[key] is None, key


@pytest.mark.one_mpm
def test_userinfo_beyond_ascii(site, browser):
    browser.sign_in(site.quiet.url("/any/page.html"), "zoe")
    answer = browser.get(site.quiet.endpoint("userinfo"), SCRIPT)
    assert answer.json["display_name"] == account("zoe")["display_name"]
    assert b"<b>" not in answer.body.partition(b'"raw_data"')[0]


@pytest.mark.parametrize("headers", [SCRIPT, NAVIGATION])
def test_userinfo_of_a_stranger(site, browser, headers):
    answer = browser.get(site.quiet.endpoint("userinfo"), headers)
    assert answer.status == 401 and answer.json["error"] == "unauthenticated"
    assert answer.set_cookies == [] and answer.location is None
    assert "no-store" in answer.header("Cache-Control")


@pytest.mark.one_mpm
def test_userinfo_head(site, browser):
    browser.sign_in(site.quiet.url("/any/page.html"), "mark")
    answer = browser.request("HEAD", site.quiet.endpoint("userinfo"), SCRIPT)
    assert (answer.status, answer.body) == (200, b"")


STRICT = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "X-Content-Type-Options": "nosniff"}
IN_FRAME = {**NAVIGATION, "Sec-Fetch-Dest": "iframe"}


def strictness(answer) -> dict[str, str]:
    return {name: answer.header(name) for name in STRICT if answer.header(name)}


@pytest.mark.one_mpm
def test_answers_that_are_no_pages_run_nothing_and_show_in_no_frame(start_server, browser):
    host = VirtualHost("\n".join([
        place("any", "Require valid-user", "Redirect /any/moved /any/page.html"),
        place("tool", "AuthBitbucketAPIToken On", "Require valid-user")]))
    start_server(host)
    page = host.url("/any/page.html")
    callback = browser.walk_to_callback(page, "mark")
    login = host.endpoint("login") + "?return=%2Fany%2Fpage.html"
    for status, address, headers in ((302, page, NAVIGATION), (302, login, NAVIGATION), (401, page, {"Accept": "application/json"}),
                                     (401, host.endpoint("userinfo"), SCRIPT), (401, host.url("/tool/page.html"), {})):
        answer = send("GET", address, headers)
        assert (answer.status, strictness(answer)) == (status, STRICT), address
    for status, address, headers in ((303, callback, NAVIGATION), (200, host.endpoint("userinfo"), SCRIPT), (303, callback, NAVIGATION)):
        answer = browser.get(address, headers)
        assert (answer.status, strictness(answer)) == (status, STRICT), address
    for status, address in ((200, page), (302, host.url("/any/moved"))):
        answer = browser.get(address, NAVIGATION)
        assert (answer.status, strictness(answer)) == (status, {}), "what the application says is its own"


@pytest.mark.one_mpm
def test_a_redirect_in_a_frame_leaves_the_frame_to_the_page(start_server, browser):
    host = VirtualHost(place("any", "Require valid-user"))
    start_server(host)
    callback = browser.walk_to_callback(host.url("/any/page.html"), "mark")
    assert browser.get(callback, NAVIGATION).status == 303
    answer = browser.get(callback, IN_FRAME)
    assert (answer.status, strictness(answer)) == (303, {**STRICT, "Content-Security-Policy": "default-src 'none'"})
    page = browser.get(host.url("/any/page.html"), IN_FRAME)
    assert (page.status, strictness(page)) == (200, {})


@pytest.mark.one_mpm
def test_the_administrators_document_of_a_redirect_has_its_own_policy(start_server):
    host = VirtualHost('ErrorDocument 302 /open/error.html\nAlias "/open" "${CONTENT}"\n' + place("any", "Require valid-user"))
    start_server(host)
    answer = send("GET", host.url("/any/page.html"), NAVIGATION)
    assert (answer.status, strictness(answer)) == (302, {})
    assert answer.location and answer.header("Cache-Control") == "no-store"


@pytest.mark.one_mpm
@pytest.mark.parametrize("endpoint, method, allowed", [
    ("login", "POST", "GET"), ("login", "PUT", "GET"), ("login", "OPTIONS", "GET"),
    ("logout", "PUT", "POST"), ("logout", "DELETE", "GET"),
    ("userinfo", "POST", "GET"), ("userinfo", "DELETE", "GET"), ("userinfo", "OPTIONS", "GET"),
])
def test_methods(site, browser, endpoint, method, allowed):
    answer = browser.request(method, site.quiet.endpoint(endpoint), NAVIGATION, body=b"" if method in ("POST", "PUT") else None)
    assert answer.status == 405
    assert allowed in answer.header("Allow")
    assert answer.set_cookies == []


FRONT = """
RewriteEngine On
RewriteRule ^ /elsewhere [L]
ProxyPass / http://127.0.0.1:{port}/
<Location "/bitbucket">
    Require all denied
</Location>
<Location "/">
    Header set X-Application yes
</Location>
"""


def test_endpoints_come_first(start_server, simulator, browser, mpm):
    """Before rewriting, proxying and access rules."""
    host = VirtualHost(FRONT.format(port=simulator.port))
    start_server(host, mpm=mpm)
    login = browser.get(host.endpoint("login"))
    assert login.status == 302 and login.location.startswith(simulator.authorize_url)
    callback = browser.walk_to_callback(host.endpoint("login"), "mark")
    assert browser.get(callback).status == 303
    assert browser.get(host.endpoint("userinfo")).json["username"] == account("mark")["username"]
    assert browser.submit(browser.get(host.endpoint("logout"))).status == 200
    assert browser.session_value() is None
    assert browser.get(host.endpoint("userinfo")).status == 401


@pytest.mark.one_mpm
def test_only_these_paths(site, browser):
    for path in ("/bitbucket/", "/bitbucket", "/bitbucket/login/", "/bitbucket/loginx", "/bitbucket/callback/x", "/BITBUCKET/login",
                 "/bitbucket/status"):
        answer = browser.get(site.quiet.url(path))
        assert answer.status == 404 and answer.set_cookies == [], path


@pytest.mark.one_mpm
@pytest.mark.parametrize("path", ["/bitbucket//login", "//bitbucket/login", "/x/../bitbucket/login", "/bitbucket/%6cogin",
                                  "/bitbucket/./login"])
def test_other_spellings_give_no_secret_away(site, browser, path):
    """httpd may or may not read them as the endpoint; nothing breaks either way."""
    assert browser.get(site.quiet.url(path)).status in (302, 400, 404)


def test_the_callback_stands_where_it_is_configured(start_server, browser):
    host = VirtualHost(place("any", "Require valid-user"), callback="/deep/er/oauth-return")
    start_server(host)
    assert browser.get(host.url("/any/")).location_query["redirect_uri"] == host.url("/deep/er/oauth-return")
    assert browser.sign_in(host.url("/any/page.html"), "mark").status == 200
    assert browser.get(host.url("/deep/er/userinfo")).status == 200
    assert browser.get(host.url("/bitbucket/userinfo")).status == 404


def test_a_public_address_behind_a_tls_terminator(start_server, browser, simulator):
    """httpd speaks http, the world sees https: the absolute callback says so."""
    host = VirtualHost(place("any", "Require valid-user"), callback="https://wiki.example.test/bitbucket/callback")
    start_server(host)
    detour = browser.get(host.url("/any/page.html"))
    assert detour.location == "https://wiki.example.test/bitbucket/login?return=%2Fany%2Fpage.html", "a name of the inside"
    for first in (browser.get(host.url("/any/page.html"), {**NAVIGATION, "Host": "wiki.example.test"}),
                  browser.get(host.url("/bitbucket/login?return=/any/page.html"))):
        assert first.location_query["redirect_uri"] == "https://wiki.example.test/bitbucket/callback"
        ticket, = first.tickets
        assert ticket.name.startswith("__Host-") and "secure" in ticket.attributes


def test_a_host_without_settings_has_no_endpoints(start_server, browser):
    host = VirtualHost(place("any", "Require valid-user"))
    other = VirtualHost(configured=False)
    start_server(host, other)
    for endpoint in ("login", "callback", "logout", "userinfo"):
        assert browser.get(other.endpoint(endpoint)).status == 404


@pytest.mark.one_mpm
def test_userinfo_names_no_secret(site, browser, simulator):
    """Neither tokens nor the cookie stand in it."""
    browser.sign_in(site.plain.url("/team/page.html"), "mark")
    text = browser.get(site.plain.endpoint("userinfo"), SCRIPT).text
    assert all(secret not in text for secret in simulator.secrets())
    assert browser.session_value() not in text
