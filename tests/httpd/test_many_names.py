"""Places that name more workspaces than Bitbucket is asked about at once."""

from __future__ import annotations

import time

import pytest

from harness import tags
from harness.config import VirtualHost, place
from harness.simulator import permission_route
from test_combinators import within

AT_ONCE = 8


def names(count: int) -> list[str]:
    """So many workspaces; mark may become a member of the last."""
    return [*(f"no-such-{n}" for n in range(count - 1)), "globex"]


@pytest.fixture
def start_place(start_server, clock, browser):
    """A place with these lines and mark, who has seen it once with this status."""
    def start(lines: list[str], status: int) -> str:
        host = VirtualHost("\n".join([place("start", "Require valid-user"), place("many", *lines)]))
        start_server(host, clock=clock)
        assert browser.sign_in(host.url("/start/page.html"), "mark").status == 200
        assert browser.get(host.url("/many/page.html")).status == status
        return host.url("/many/page.html")
    return start


@pytest.mark.parametrize("count", [AT_ONCE, AT_ONCE + 1, 20])
@pytest.mark.parametrize("form", ["one line", "lines"])
def test_somebody_just_added_gets_in_at_once(start_place, clock, browser, simulator, count, form):
    """A refusal rests on answers no older than fifteen seconds, on all of them."""
    lines = ["Require bitbucket-workspace " + (" ".join(names(count)))] if form == "one line" else [
        "Require bitbucket-workspace " + name for name in names(count)]
    url = start_place(lines, 403)
    clock.advance(20)
    simulator.set_membership("globex", "mark", "member")
    simulator.forget_calls()
    assert browser.get(url).status == 200
    asked = simulator.asked()
    assert sorted(asked) == sorted(f"permission {name}" for name in names(count)), "each once"
    assert browser.get(url).status == 200 and simulator.asked() == asked


@pytest.mark.parametrize("lines", [
    within("RequireAll", "Require bitbucket-workspace globex", "Require bitbucket-repository globex/reactor"),
    within("RequireAll", "Require bitbucket-workspace globex", "Require bitbucket-workspace InitechLabs:create-project",
           "Require bitbucket-repository globex/reactor"),
])
def test_somebody_added_to_all_that_must_hold(start_place, clock, browser, simulator, lines):
    """The second is looked at only when the first says yes, and may be as old."""
    url = start_place(lines, 403)
    # Each is known, as from other places.
    simulator.set_membership("globex", "mark", "owner")
    clock.advance(20)
    assert browser.get(url).status == (200 if len(lines) == 4 else 403)
    simulator.set_membership("globex", "mark", None)
    clock.advance(20)
    simulator.set_membership("InitechLabs", "mark", "owner")
    clock.advance(3605)
    assert browser.get(url).status == 403
    simulator.set_membership("globex", "mark", "owner")
    clock.advance(20)
    assert browser.get(url).status == 200


def test_a_refusal_is_not_asked_about_again_within_the_time(start_place, clock, browser, simulator):
    url = start_place(["Require bitbucket-workspace " + " ".join(names(20))], 403)
    clock.advance(20)
    simulator.forget_calls()
    for _ in range(3):
        assert browser.get(url).status == 403
    assert len(simulator.asked()) == 20


def test_one_that_fails_is_not_asked_about_in_a_circle(start_place, clock, browser, simulator, logs):
    """It may matter, so it is 503; and Bitbucket is spared."""
    logs.expect(tags.ANSWERED)
    for tag in (tags.NOT_RENEWED, tags.BROKEN, tags.MENDED):
        logs.allow(tag)
    url = start_place(["Require bitbucket-workspace " + " ".join(names(12))], 403)
    clock.advance(20)
    simulator.fault(permission_route("no-such-3"), status=500)
    simulator.forget_calls()
    assert browser.get(url).status in (403, 503)
    assert len(simulator.asked()) <= 12 + 2, simulator.asked()


def test_what_lets_in_is_renewed_in_the_background_however_many_there_are(start_place, clock, browser, simulator):
    """Rows that nobody waits for, eight a time; the last of them becomes a reason to refuse."""
    shut = ["Require not bitbucket-workspace " + name for name in names(12)]
    url = start_place(within("RequireAll", "Require bitbucket-workspace acme", *shut), 200)
    simulator.set_membership("globex", "mark", "member")
    clock.advance(301)
    deadline = time.monotonic() + 12
    while browser.get(url).status == 200:
        assert time.monotonic() < deadline, "the last of them is never asked about again"
        time.sleep(0.3)
    assert browser.get(url).status == 403
