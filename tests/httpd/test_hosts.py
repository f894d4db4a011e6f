"""Several virtual hosts: what they share and what they must not."""

from __future__ import annotations

import pytest

from harness import tags
from harness.client import NAVIGATION, SCRIPT, TICKET
from harness.config import VirtualHost, place
from harness.simulator import uuid_of

ANY = "\n".join([place("any", "Require valid-user"), place("free", auth=False)])


@pytest.fixture
def two_hosts(start_server):
    """Two sites of one httpd with two OAuth clients."""
    hosts = VirtualHost(ANY), VirtualHost(ANY)
    start_server(*hosts)
    return hosts


def test_a_session_is_good_at_its_own_site_only(two_hosts, browser):
    one, other = two_hosts
    browser.sign_in(one.url("/any/page.html"), "mark")
    assert browser.get(one.url("/any/page.html"), SCRIPT).status == 200
    assert browser.get(other.url("/any/page.html"), SCRIPT).status == 401     # the jar sends it along
    assert browser.get(other.endpoint("userinfo"), SCRIPT).status == 401
    page = browser.get(other.endpoint("logout"))
    assert page.status == 200 and not page.forms
    assert browser.get(one.url("/any/page.html"), SCRIPT).status == 200


def test_a_ticket_is_good_at_its_own_site_only(two_hosts, browser, simulator):
    one, other = two_hosts
    callback = browser.walk_to_callback(one.url("/any/page.html"), "mark")
    stolen = browser.get(callback.replace(one.origin, other.origin))
    assert stolen.session_cookie is None and simulator.asked() == []


def test_attempts_at_two_sites_of_one_host_name(two_hosts, browser):
    """Their cookies meet in the browser, as under one CookieDomain; both sign-ins end well."""
    one, other = two_hosts
    first = browser.walk_to_callback(one.url("/any/page.html"), "mark")
    second = browser.walk_to_callback(other.url("/any/page.html"), "mark")
    assert browser.get(first).status == 303
    assert browser.get(second).status == 303


def test_a_state_of_the_neighbour(two_hosts, browser, simulator):
    """The ticket of one site under the name it would have at the other."""
    one, other = two_hosts
    state = browser.get(one.url("/any/page.html")).location_query["state"]
    name, = browser.ticket_names()
    answer = browser.get(other.endpoint("callback") + f"?state={state}&code=x",
                         {**NAVIGATION, "Cookie": f"{name}={browser.jar.cookies['localhost', name].value}"})
    assert answer.session_cookie is None and simulator.asked() == []


@pytest.fixture(params=["", "AuthBitbucketSessionKey the-same-key-at-both-sites-0123456789\n"], ids=["keys of their own", "one key"])
def two_addresses(request, start_server, simulator):
    """Two sites with one OAuth client, which knows the callbacks of both."""
    one = VirtualHost(request.param + ANY)
    other = VirtualHost(request.param + ANY, client_id=one.client_id, client_secret=one.client_secret)
    start_server(one, other)
    simulator.change_consumer(one.client_id, callback_url=None, callback_urls=[one.callback_url, other.callback_url])
    return one, other


def test_the_same_client_at_two_addresses(two_addresses, browser):
    """The public host is part of what a session is good for."""
    one, other = two_addresses
    assert browser.sign_in(one.url("/any/page.html"), "mark").status == 200
    assert browser.get(one.url("/any/page.html"), SCRIPT).status == 200
    assert browser.get(other.url("/any/page.html"), SCRIPT).status == 401
    assert browser.get(other.endpoint("userinfo"), SCRIPT).status == 401


def test_a_ticket_of_the_same_client_at_two_addresses(two_addresses, browser, simulator):
    """And of what a ticket is good for: also under the same name, no code is exchanged elsewhere."""
    one, other = two_addresses
    callback = browser.walk_to_callback(one.url("/any/page.html"), "mark")
    name, = browser.ticket_names()
    cookie = f"{name}={browser.jar.cookies['localhost', name].value}"
    answer = browser.get(callback.replace(one.origin, other.origin), {**NAVIGATION, "Cookie": cookie})
    assert answer.session_cookie is None and simulator.asked() == []
    answer = browser.get(callback, {**NAVIGATION, "Cookie": cookie})
    assert answer.status == 303 and answer.session_cookie, "at its own address all of it is good"


@pytest.mark.parametrize("name, origin", [
    ("https://wiki.example.com", "https://wiki.example.com"),
    ("https://wiki.example.com:443", "https://wiki.example.com"),
    ("https://wiki.example.com:8443", "https://wiki.example.com:8443"),
    ("http://wiki.example.com", "http://wiki.example.com"),
])
def test_a_server_name_with_its_scheme_is_the_public_address(start_server, browser, logs, name, origin):
    """Behind a TLS terminator; the port that httpd listens to says nothing of it."""
    if origin.startswith("http://"):
        logs.expect(tags.PLAIN_HTTP)
    host = VirtualHost(f"ServerName {name}\n{ANY}")
    start_server(host)
    assert browser.get(host.url("/any/page.html")).location.startswith(f"{origin}/bitbucket/login?")


def test_one_public_address_at_two_hosts(start_server, browser):
    """The same client and the same absolute callback: one site, however httpd cuts it."""
    one = VirtualHost(ANY)
    callback = one.url("/bitbucket/callback")
    one.callback = callback
    other = VirtualHost(ANY, callback=callback, client_id=one.client_id, client_secret=one.client_secret)
    start_server(one, other)
    browser.sign_in(one.url("/any/page.html"), "mark")
    assert browser.get(other.url("/any/page.html"), SCRIPT).status == 200


def test_workspaces_of_the_neighbour_are_not_asked(start_server, browser, simulator):
    one = VirtualHost(place("team", "Require bitbucket-workspace acme"))
    other = VirtualHost(place("team", "Require bitbucket-workspace globex"))
    start_server(one, other)
    browser.sign_in(one.url("/team/page.html"), "mark")
    assert [name for name in simulator.asked() if name.startswith("permission")] == ["permission acme"]


def test_settings_are_inherited(start_server, browser):
    """What stands outside all virtual hosts holds in each, unless it says otherwise."""
    base = VirtualHost(ANY, configured=False)
    own = VirtualHost("AuthBitbucketCookieName own_name\nAuthBitbucketScope account\n" + ANY, configured=False,
                      client_id=base.client_id, client_secret=base.client_secret)
    server_settings = (f"AuthBitbucketClientID {base.client_id}\nAuthBitbucketClientSecret {base.client_secret}\n"
                       "AuthBitbucketCookieName shared_name\nAuthBitbucketScope account email\n"
                       "AuthBitbucketCallbackURL /oauth/back\n")
    start_server(base, own, main=server_settings)
    first, second = browser.get(base.url("/any/page.html")), browser.get(own.url("/any/page.html"))
    assert first.set_cookies[0].name.startswith("shared_name_ticket_")
    assert second.set_cookies[0].name.startswith("own_name_ticket_")
    assert first.location_query["scope"] == "account email" and second.location_query["scope"] == "account"
    assert first.location_query["redirect_uri"] == base.url("/oauth/back")
    assert second.location_query["redirect_uri"] == own.url("/oauth/back")
    assert first.location_query["client_id"] == second.location_query["client_id"] == base.client_id


def test_hosts_without_a_line_of_ours_are_sites_of_their_own(start_server, browser):
    """What stands outside says all; each host still has its own address, and its own sessions."""
    other = VirtualHost(ANY, configured=False)
    registered = VirtualHost(ANY, configured=False, client_id=other.client_id, client_secret=other.client_secret)
    start_server(other, registered, main=(
        f"AuthBitbucketClientID {other.client_id}\nAuthBitbucketClientSecret {other.client_secret}\n"
        "AuthBitbucketCallbackURL /bitbucket/callback\n"))
    for host in other, registered:
        assert browser.get(host.url("/any/page.html")).location_query["redirect_uri"] == host.endpoint("callback")
    browser.sign_in(registered.url("/any/page.html"), "mark")
    assert browser.get(registered.url("/any/page.html"), SCRIPT).status == 200
    assert browser.get(other.url("/any/page.html"), SCRIPT).status == 401     # the jar sends it along


def test_rules_are_inherited(start_server, browser):
    """A rule outside all virtual hosts protects each."""
    host = VirtualHost()
    start_server(host, main=place("everywhere", "Require bitbucket-workspace acme"))
    assert browser.sign_in(host.url("/everywhere/page.html"), "mark").status == 200


def test_places_inherit_settings(start_server, browser):
    host = VirtualHost("\n".join([
        '<Location "/">', "AuthType Bitbucket", "AuthBitbucketRemoteUser uuid", "Require valid-user", "</Location>",
        'Alias "/inner" "${CONTENT}"', '<Location "/inner">', "Require bitbucket-workspace acme", "</Location>",
        'Alias "/named" "${CONTENT}"', '<Location "/named">', "AuthBitbucketRemoteUser email", "</Location>",
        'Alias "/free" "${CONTENT}"', '<Location "/free">', "Require all granted", "</Location>"]))
    start_server(host)
    assert browser.sign_in(host.url("/inner/env.cgi"), "mark").environment["REMOTE_USER"] == uuid_of("mark")
    assert browser.get(host.url("/named/env.cgi")).environment["REMOTE_USER"] == "mark@acme.example"
    assert browser.get(host.url("/free/page.html"), {"Accept": "*/*", "Cookie": ""}).status == 200


def test_cookie_name_and_same_site(start_server, browser):
    host = VirtualHost("AuthBitbucketCookieName wiki-session\nAuthBitbucketCookieSameSite None\n" + ANY, tls=True)
    start_server(host)
    steps = browser.walk(browser.get(host.url("/any/page.html")), "mark")
    assert steps[-1].status == 200
    cookie = next(c for c in steps[-2].set_cookies if not c.deletes and not c.name.endswith("_recent"))
    assert cookie.name == "__Host-wiki-session" and cookie.attributes["samesite"] == "None"
    assert steps[0].set_cookies[0].name.startswith("__Host-wiki-session_ticket_")


@pytest.mark.parametrize("same_site, destination, is_partitioned", [
    ("None", "document", False), ("None", "iframe", True), ("None", "frame", True), ("Lax", "iframe", False)])
def test_cookies_within_frames(start_server, browser, same_site, destination, is_partitioned):
    """A cookie that a frame gives or deletes is kept for the page around it, if at all."""
    host = VirtualHost(f"AuthBitbucketCookieSameSite {same_site}\n" + ANY, tls=True)
    start_server(host)
    browser.sign_in(host.url("/any/page.html"), "mark")
    form, = browser.get(host.endpoint("logout")).forms
    answer = browser.request("POST", host.endpoint("logout"), {**NAVIGATION, "Sec-Fetch-Dest": destination}, form.fields)
    deleted, = answer.set_cookies
    assert deleted.deletes and ("partitioned" in deleted.attributes) == is_partitioned
    assert "secure" in deleted.attributes and deleted.attributes["path"] == "/"


def test_plain_http_away_from_loopback_warns(start_server, browser, logs):
    """It works, and the log says what is wrong with it."""
    logs.expect(tags.PLAIN_HTTP, "plain http")
    host = VirtualHost(ANY, name="wiki.example.test")
    start_server(host)
    assert browser.sign_in(host.url("/any/page.html"), "mark").status == 200


def test_own_cookies_stay_out_of_applications(two_hosts, browser):
    """The application needs them not, and its logs and pages must not have them."""
    one, _ = two_hosts
    browser.sign_in(one.url("/any/page.html"), "mark")
    browser.get(one.url("/any/page.html"), {**NAVIGATION, "Cookie": ""})     # leaves a ticket
    assert browser.ticket_names()
    cookies = browser.jar.line("localhost", False)
    seen = browser.get(one.url("/any/env.cgi"), {**NAVIGATION, "Cookie": f"a=1; {cookies}; b=2"}).environment
    assert seen["REMOTE_USER"] and seen["HTTP_COOKIE"].replace(" ", "") == "a=1;b=2"
    open_place = browser.get(one.url("/free/env.cgi"), {**NAVIGATION, "Cookie": f"a=1; {cookies}"}).environment
    assert open_place["HTTP_COOKIE"].strip() == "a=1", "also where nobody need sign in"
    alone = browser.get(one.url("/any/env.cgi"), {**NAVIGATION, "Cookie": cookies}).environment
    assert TICKET not in alone.get("HTTP_COOKIE", "") and browser.session_value() not in str(alone)
