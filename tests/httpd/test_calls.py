"""How often Bitbucket is asked, in which order, and how long a sign-in takes."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.config import VirtualHost, place
from harness.simulator import permission_route, short_name


WORKSPACES_MAX = 8


def test_a_sign_in_without_workspaces(site, browser, simulator):
    browser.sign_in(site.quiet.url("/any/page.html"), "mark")
    asked = simulator.asked()
    assert asked[0] == "token"
    assert sorted(asked[1:]) == ["emails", "user"]


def test_a_sign_in_asks_once_for_each_named_workspace(site, browser, simulator):
    browser.sign_in(site.plain.url("/any/page.html"), "mark")
    asked = simulator.asked()
    assert asked[0] == "token"
    assert sorted(asked[1:]) == ["emails", "permission acme", "permission globex", "user"]


def test_how_bitbucket_is_asked(site, browser, simulator):
    browser.sign_in(site.plain.url("/any/page.html"), "mark")
    for call in simulator.calls():
        is_token = short_name(call) == "token"
        assert call["authorization_scheme"] == ("basic" if is_token else "bearer")
        assert call["method"] == ("POST" if is_token else "GET")
        assert call["headers"]["user-agent"].startswith("mod_auth_bitbucket/")
        assert "accept-encoding" not in call["headers"]
        assert "cookie" not in call["headers"]
        assert "access_token" not in call["query"]
    token, = simulator.calls("token")
    assert token["grant_type"] == "authorization_code"
    assert token["headers"]["content-type"] == "application/x-www-form-urlencoded"


CROWD = "\n".join(place(f"w{n}", f"Require bitbucket-workspace crowd-{n}") for n in range(10))


def test_at_most_eight_workspaces_the_requested_ones_first(start_server, browser, simulator):
    host = VirtualHost(CROWD)
    start_server(host)
    assert browser.sign_in(host.url("/w9/page.html"), "mark").status == 403
    asked = [name for name in simulator.asked() if name.startswith("permission")]
    assert len(asked) == len(set(asked)) == WORKSPACES_MAX
    assert "permission crowd-9" in asked
    assert set(asked) == {f"permission crowd-{n}" for n in (9, *range(7))}
    simulator.forget_calls()
    assert browser.get(host.url("/w8/page.html")).status == 403
    assert simulator.asked() == ["permission crowd-8"], "the rest is asked on first need"
    assert browser.get(host.url("/w8/page.html")).status == 403
    assert simulator.asked() == ["permission crowd-8"], "and only once"


def test_the_same_workspace_is_asked_once_however_it_is_written(start_server, browser, simulator):
    host = VirtualHost("\n".join([place("a", "Require bitbucket-workspace Acme acme:owner ACME:member"),
                                  place("b", "Require bitbucket-workspace acme")]))
    start_server(host)
    assert browser.sign_in(host.url("/a/page.html"), "mark").status == 200
    assert simulator.asked().count("permission acme") == 1


def test_two_rounds(site, browser, simulator):
    """The code for tokens; then everything else at the same time."""
    delay = 0.5
    callback = browser.walk_to_callback(site.plain.url("/team/page.html"), "mark")
    simulator.fault("token", delay=delay)
    simulator.fault("api", delay=delay)
    started = time.monotonic()
    assert browser.get(callback).status == 303
    seconds = time.monotonic() - started
    assert 2 * delay <= seconds < 3 * delay
    token, *others = simulator.calls()
    assert len(others) == 4
    assert all(call["time"] >= token["finished"] for call in others)
    assert sorted(call["in_flight"] for call in others) == [0, 1, 2, 3]
    assert max(call["time"] for call in others) < min(call["finished"] for call in others)


def test_a_session_asks_nobody(site, browser, simulator):
    browser.sign_in(site.plain.url("/team/page.html"), "mark")
    simulator.forget_calls()
    for _ in range(100):
        assert browser.get(site.plain.url("/team/page.html")).status == 200
        assert browser.get(site.plain.url("/any/data.txt"), {"Accept": "*/*"}).status == 200
    assert simulator.asked() == []


def test_a_session_needs_no_bitbucket(site, browser, simulator):
    browser.sign_in(site.plain.url("/team/page.html"), "mark")
    simulator.fault("token", close=True)
    simulator.fault("api", close=True)
    assert browser.get(site.plain.url("/team/page.html")).status == 200
    assert browser.get(site.plain.url("/team/env.cgi")).environment["BITBUCKET_WORKSPACES"] == "acme:member"


@pytest.mark.one_mpm
def test_strangers_ask_nobody(site, new_browser, simulator):
    for _ in range(20):
        assert new_browser().get(site.plain.url("/team/page.html")).status == 302
    assert simulator.asked() == []


def test_connections_are_kept(start_server, new_browser, simulator):
    """One child, so that both sign-ins meet the same connections. The exchange of the
    code has a connection of its own: it must never be sent twice."""
    host = VirtualHost(place("team", "Require bitbucket-workspace acme"))
    start_server(host, main="StartServers 1\nMinSpareThreads 5\nMaxSpareThreads 30\nServerLimit 1\nMaxRequestWorkers 25\n")
    sign_ins = 4
    for _ in range(sign_ins):
        assert new_browser().sign_in(host.url("/team/page.html"), "mark").status == 200
    used = {call["connection"] for call in simulator.calls()}
    # At most three reads at once and one exchange a sign-in; unkept it would be four for each.
    assert len(used) <= 3 + sign_ins


def test_many_requests_at_once_ask_one_question(start_server, browser, simulator):
    """A workspace named only in .htaccess, needed by 20 requests at the same time."""
    host = VirtualHost(place("any", "Require valid-user"))
    server = start_server(host)
    directory = server.content / "late"
    directory.mkdir()
    (directory / "page.html").write_text("late page")
    (directory / ".htaccess").write_text("AuthType Bitbucket\nRequire bitbucket-workspace acme\n")
    browser.sign_in(host.url("/any/page.html"), "mark")
    simulator.fault(permission_route("acme"), delay=0.3)
    simulator.forget_calls()
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: browser.get(host.url("/late/page.html")).status, range(20)))
    assert statuses == [200] * 20
    assert simulator.asked() == ["permission acme"]
