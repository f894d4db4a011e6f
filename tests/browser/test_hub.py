"""One callback for many sites, in a real browser: names of different sites, their own cookies only."""

from __future__ import annotations

import pytest

from harness.config import VirtualHost, place
from person import Person

MARK = "Mark Miller"
PLACES = place("team", "Require bitbucket-workspace acme")


@pytest.fixture
def hosts(start_server):
    hub = VirtualHost(name="sso.localhost")
    hub.callback = hub.origin + "/bitbucket/callback"
    sites = [VirtualHost(PLACES, name=name, callback=hub.callback, client_id=hub.client_id, client_secret=hub.client_secret)
             for name in ("wiki.localhost", "shop.localhost")]
    hub.directives = "AuthBitbucketCallbackFor " + " ".join(site.origin for site in sites)
    start_server(hub, *sites, mpm="event")
    return hub, *sites


@pytest.fixture
def at(person, chromium, simulator):
    return lambda host: Person(chromium, host, simulator.origin)


def test_signing_in_at_two_sites(hosts, person, at, chromium, log_watch):
    hub, wiki, shop = hosts
    visitor = at(wiki)
    visitor.open("/team/page.html?x=1")
    visitor.sign_in_at_bitbucket(MARK)
    visitor.wait_for_heading("The test page")
    assert visitor.url == wiki.url("/team/page.html?x=1") and visitor.has_session()
    # Bitbucket knows the visitor and has asked for access already: nothing is to click.
    visitor = at(shop)
    visitor.open("/team/page.html?y=2")
    visitor.wait_for_heading("The test page")
    assert visitor.url == shop.url("/team/page.html?y=2") and visitor.has_session()
    cookies = chromium.execute_cdp_cmd("Network.getAllCookies", {})["cookies"]
    ours = [cookie for cookie in cookies if "bitbucket_session" in cookie["name"]]
    for cookie in ours:
        log_watch.remember(cookie["value"])
    assert {cookie["domain"] for cookie in ours} == {wiki.name, shop.name}, "nothing at the hub"
    visitor.driver.back()
    visitor.driver.forward()
    visitor.wait_for_heading("The test page")
