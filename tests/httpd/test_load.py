"""Many visitors at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import tags
from harness.client import NAVIGATION
from harness.load import at_once

pytestmark = pytest.mark.alone

COUNT = 200


def test_one_session_many_requests(site, browser, simulator, capsys):
    browser.sign_in(site.plain.url("/team/page.html"), "mark")
    simulator.forget_calls()
    headers = {**NAVIGATION, "Cookie": browser.jar.line("localhost", False)}
    outcome = at_once([site.plain.url("/team/page.html")] * COUNT, headers)
    with capsys.disabled():
        print(f"\n{site.server.mpm}, one session: {outcome}")
    assert outcome.statuses == {200: COUNT}
    assert simulator.asked() == []


def test_many_strangers(site, simulator, capsys):
    outcome = at_once([site.plain.url("/team/page.html")] * COUNT, NAVIGATION)
    with capsys.disabled():
        print(f"\n{site.server.mpm}, strangers: {outcome}")
    assert outcome.statuses == {302: COUNT}
    assert simulator.asked() == []


def test_many_sign_ins(site, new_browser, simulator, logs):
    """Thirty people come back from Bitbucket in the same moment. A child lets no more wait for
    Bitbucket than leave it threads for others; who is turned away comes in by a reload."""
    simulator.settings(quota=None)
    logs.allow(tags.CROWDED)
    browsers = [new_browser() for _ in range(30)]
    callbacks = [browser.walk_to_callback(site.plain.url("/team/page.html"), "mark") for browser in browsers]
    with ThreadPoolExecutor(30) as pool:
        statuses = list(pool.map(lambda pair: pair[0].get(pair[1]).status, zip(browsers, callbacks)))
    assert set(statuses) <= {303, 503} and statuses.count(303) >= 12
    for browser, callback, status in zip(browsers, callbacks, statuses):
        assert status == 303 or browser.get(callback).status == 303
    assert [b.get(site.plain.url("/team/page.html")).status for b in browsers] == [200] * 30
    assert len(simulator.calls("token")) == 30


def test_junk_cookies_at_once(site):
    outcome = at_once([site.plain.url("/team/page.html")] * COUNT,
                      {**NAVIGATION, "Cookie": "bitbucket_session=" + "x" * 43 + "; bitbucket_session_ticket_a=" + "y" * 500})
    assert outcome.statuses == {302: COUNT}
