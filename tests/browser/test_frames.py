"""A page of another site that shows ours in a frame: AuthBitbucketCookieSameSite None."""

from __future__ import annotations

from selenium.webdriver.common.by import By

import pytest

from harness.config import VirtualHost, place
from person import Person

MARK = "Mark Miller"
# The browser opens connections in advance and says nothing there; a child's end waits for that.
QUICK = "Timeout 1\n"


@pytest.fixture
def portal_and_wiki(start_server):
    wiki = VirtualHost(QUICK + "AuthBitbucketCookieSameSite None\n" + place("any", "Require valid-user"), name="wiki.localhost", tls=True)
    portal = VirtualHost(QUICK + place("open", auth=False), name="portal.localhost", tls=True, configured=False)
    server = start_server(portal, wiki, mpm="event")
    (server.root / "content" / "portal.html").write_text(
        f"<!DOCTYPE html><html lang=en><title>Portal</title><link rel=icon href='data:,'><h1>Portal</h1>"
        f"<iframe title=wiki src='{wiki.url('/any/page.html')}'></iframe></html>\n")
    return portal, wiki


def in_the_frame(driver) -> str:
    driver.switch_to.frame(driver.find_element(By.TAG_NAME, "iframe"))
    text = driver.find_element(By.TAG_NAME, "body").text
    driver.switch_to.default_content()
    return text


def test_whoever_is_signed_in_sees_the_frame(portal_and_wiki, person, chromium, simulator, log_watch):
    portal, wiki = portal_and_wiki
    visitor = Person(chromium, portal, simulator.origin)
    visitor.open("/open/portal.html")
    assert "Please sign in" in in_the_frame(chromium)
    Person(chromium, wiki, simulator.origin).open("/any/page.html")
    visitor.sign_in_at_bitbucket(MARK)
    visitor.wait_for_heading("The test page")
    visitor.open("/open/portal.html")
    text = in_the_frame(chromium)
    for secret in visitor.cookies_seen():
        log_watch.remember(secret)
    assert "The test page" in text
