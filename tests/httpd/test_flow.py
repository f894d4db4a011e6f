"""One visitor followed in the log: LogLevel in <If> and in <Location>, and what there is to read then."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import client, tags
from harness.client import SCRIPT
from harness.config import VirtualHost, place
from harness.waiting import eventually

pytestmark = pytest.mark.one_mpm

QUIET = "LogLevel warn auth_bitbucket:info"
LOUD = "LogLevel auth_bitbucket:trace8"
FOLLOWED, OTHER = "127.0.0.2", "127.0.0.1"
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md").read_text()
# The two blocks of the page, with addresses and directories of the test.
ONE_VISITOR, ONE_DIRECTORY = (block.replace("192.0.2.7", FOLLOWED).replace("(intranet|bitbucket)", "(team|bitbucket)")
                              for block in re.findall(r"(?ms)^```apache\n(<.*?)^```", PAGE.split("## Follow one visitor")[1])[:2])
PLACES = "\n".join([place("any", "Require valid-user"), place("team", "Require bitbucket-workspace acme"),
                    place("owners", "Require bitbucket-workspace globex acme:owner")])
NO_SESSION, SENT, BACK, CALL, SIGNED_IN, DECIDED, RULE, RECHECK = (
    "ABB0113", "ABB0104", "ABB0210", "ABB0140", "ABB0203", "ABB0111", "ABB0112", "ABB0106")


@pytest.fixture
def come_from(monkeypatch):
    """Have requests come from an address of this machine."""
    connect = client.socket.create_connection

    def choose(address: str) -> None:
        monkeypatch.setattr(client.socket, "create_connection",
                            lambda to, timeout=None, *_: connect(to, timeout, source_address=(address, 0)))
    return choose


def values(line) -> dict[str, str]:
    return {key: value.strip('"') for key, value in re.findall(r' ([a-z]+)=("[^"]*"|[^ ":]+)', line.text)}


def tags_of(logs) -> list[str]:
    """Of lines about a visitor."""
    return [line.tag for line in logs.lines() if "[client " in line.text]


class Since:
    """The lines since it was last asked."""

    def __init__(self, logs) -> None:
        self._logs, self._seen = logs, len(logs.lines())

    def lines(self, tag: str | None = None) -> list:
        lines = self._logs.lines()[self._seen:]
        self._seen += len(lines)
        return [line for line in lines if tag in (None, line.tag)]


@pytest.fixture
def timed(start_server, clock):
    host = VirtualHost("\n".join([QUIET, ONE_VISITOR, PLACES]))
    start_server(host, clock=clock)
    return host


def test_the_sign_in_of_one_visitor(start_server, come_from, new_browser, logs):
    host = VirtualHost("\n".join([QUIET, ONE_VISITOR, PLACES]))
    start_server(host)
    come_from(OTHER)
    assert new_browser().sign_in(host.url("/team/page.html"), "olivia").status == 200
    assert tags_of(logs) == [SIGNED_IN]
    come_from(FOLLOWED)
    since = Since(logs)
    assert new_browser().sign_in(host.url("/team/page.html"), "mark").status == 200
    lines = since.lines()
    assert {FOLLOWED} == {re.search(r"\[client ([0-9.]+):", line.text)[1] for line in lines}
    assert [line.tag for line in lines if line.tag != CALL] == [NO_SESSION, SENT, BACK, SIGNED_IN, RULE, DECIDED]
    calls = [values(line) for line in lines if line.tag == CALL]
    assert {(call["method"], call["path"], call["status"]) for call in calls} == {
        ("POST", "/site/oauth2/access_token", "200"), ("GET", "/2.0/user", "200"), ("GET", "/2.0/user/emails", "200"),
        ("GET", "/2.0/user/workspaces/acme/permission", "200"), ("GET", "/2.0/user/workspaces/globex/permission", "403")}
    assert [line.tag for line in lines].index(BACK) < [line.tag for line in lines].index(CALL), "in their order"
    assert all(0 <= int(call["ms"]) < 60_000 for call in calls)
    by_tag = {line.tag: values(line) for line in lines}
    assert by_tag[NO_SESSION] == {"cookie": "none"} and by_tag[SENT] == {"attempt": "1"}
    assert (by_tag[BACK]["attempt"], by_tag[BACK]["state"], by_tag[BACK]["brings"]) == ("1", "ok", "code")
    assert by_tag[RULE]["require"] == "bitbucket-workspace acme" and by_tag[RULE]["outcome"] == "yes"
    assert re.fullmatch(r"acme=[a-z-]+/\ds", by_tag[RULE]["known"])
    decided = by_tag[DECIDED]
    assert (decided["outcome"], decided["rows"], decided["answers"], decided["asked"]) == ("granted", "acme", "fresh", "no")
    assert decided["session"] == by_tag[SIGNED_IN]["session"] == by_tag[RULE]["session"]


def test_a_refusal_of_one_visitor(timed, clock, come_from, browser, logs, simulator):
    """The rule that said no, what was known of its rows, and that Bitbucket was asked before it counted."""
    come_from(FOLLOWED)
    browser.sign_in(timed.url("/any/page.html"), "mark")
    clock.advance(60)
    since = Since(logs)
    assert browser.get(timed.url("/owners/page.html")).status == 403
    lines = since.lines()
    assert [line.tag for line in lines if line.tag != CALL] == [RULE, RECHECK, RULE, DECIDED, tags.REFUSED]
    rules = [values(line) for line in lines if line.tag == RULE]
    assert [rule["outcome"] for rule in rules] == ["no", "no"]
    assert [re.sub(r"/\d+s", "", rule["known"]) for rule in rules] == 2 * ["globex=none acme=member"]
    assert [60 <= int(re.search(r"/(\d+)s", rule["known"])[1]) <= 75 for rule in rules] == [True, False], "asked in between"
    assert {values(line)["path"] for line in lines if line.tag == CALL} == {
        "/2.0/user/workspaces/globex/permission", "/2.0/user/workspaces/acme/permission"}
    decided, = [values(line) for line in lines if line.tag == DECIDED]
    assert (decided["outcome"], decided["asked"], decided["answers"]) == ("refused", "yes", "fresh")
    assert [line.level for line in lines if line.tag == DECIDED] == ["debug"]


def test_answers_that_are_due(timed, clock, come_from, browser, logs, simulator):
    """They are asked about in the background, where the server's level holds."""
    come_from(FOLLOWED)
    browser.sign_in(timed.url("/team/page.html"), "mark")
    clock.advance(10 * 60)
    simulator.forget_calls()
    since = Since(logs)
    assert browser.get(timed.url("/team/page.html"), SCRIPT).status == 200
    lines = since.lines()
    decided = lines[-1]
    assert (values(decided)["answers"], values(decided)["asked"], decided.level) == ("due", "no", "trace1")

    def are_fresh() -> bool:
        """The new answers are stored; and what a page leaves meanwhile."""
        assert browser.get(timed.url("/team/page.html"), SCRIPT).status == 200
        lines.extend(since.lines())
        return values(lines[-1])["answers"] == "fresh"
    eventually(lambda: (calls := simulator.calls()) and all(call["finished"] for call in calls))
    eventually(are_fresh)
    assert {"user", "emails", "permission acme"} <= set(simulator.asked())
    assert {line.tag for line in lines} == {RULE, DECIDED}, "no line about the calls"


def test_answers_that_are_old(timed, clock, come_from, browser, logs):
    """They are asked about while the visitor waits."""
    come_from(FOLLOWED)
    browser.sign_in(timed.url("/team/page.html"), "mark")
    clock.advance(3 * 3600)
    since = Since(logs)
    assert browser.get(timed.url("/team/page.html"), SCRIPT).status == 200
    lines = since.lines()
    recheck, = [line for line in lines if line.tag == RECHECK]
    assert FOLLOWED in recheck.text and values(recheck)["outcome"] == "answered"
    decided, = [line for line in lines if line.tag == DECIDED]
    assert (values(decided)["answers"], values(decided)["asked"], decided.level) == ("fresh", "yes", "debug")
    assert {"/2.0/user", "/site/oauth2/access_token"} <= {values(line)["path"] for line in lines if line.tag == CALL}


def test_a_call_without_an_answer(timed, come_from, browser, logs, simulator):
    logs.allow(tags.ANSWERED)
    come_from(FOLLOWED)
    callback = browser.walk_to_callback(timed.url("/any/page.html"), "mark")
    simulator.fault("token", close=True)
    assert browser.get(callback).status == 503
    call, = logs.lines(CALL)
    assert values(call)["status"] == "0" and re.search(r" ms=\d+: \S", call.text)


def test_one_directory(start_server, new_browser, logs):
    """And the module's own addresses: a sign-in is to be followed whole, and no other place."""
    host = VirtualHost("\n".join([QUIET, PLACES, ONE_DIRECTORY]))
    start_server(host)
    browser = new_browser()
    browser.sign_in(host.url("/any/page.html"), "mark")
    assert [tag for tag in tags_of(logs) if tag != CALL] == [BACK, SIGNED_IN] and logs.lines(CALL)
    since = Since(logs)
    browser.get(host.url("/any/page.html"))
    assert since.lines() == []
    browser.get(host.url("/team/page.html"))
    assert [line.tag for line in since.lines()] == [RULE, DECIDED]


def test_nothing_else_of_the_place_holds_at_the_callback(start_server, new_browser):
    """What is taken from there for the log is LogLevel alone: no rule, no document of an error."""
    host = VirtualHost("\n".join([PLACES, '<Location "/bitbucket">\n    Require all denied\n    ErrorDocument 400 "other"\n</Location>',
                                  "<If \"true\">\n    Require all granted\n</If>"]))
    start_server(host)
    browser = new_browser()
    assert browser.sign_in(host.url("/any/page.html"), "mark").status == 200
    assert browser.get(host.endpoint("callback")).reference


def test_a_session_that_is_not_there(start_server, come_from, browser, logs):
    host = VirtualHost("\n".join([QUIET, ONE_VISITOR, PLACES]))
    start_server(host)
    come_from(FOLLOWED)
    browser.get(host.url("/any/page.html"), {**client.NAVIGATION, "Cookie": "bitbucket_session=" + "A" * 43})
    assert [values(line) for line in logs.lines(NO_SESSION)] == [{"cookie": "unknown"}]


def test_the_reference_of_a_401_is_in_the_log(start_server, browser, logs):
    host = VirtualHost("\n".join([QUIET, PLACES]))
    start_server(host)
    answer = browser.request("POST", host.url("/any/page.html"), client.NAVIGATION, {"a": "b"})
    line, = logs.lines("ABB0114")
    assert answer.status == 401 and answer.reference and line.text.endswith(f"reference={answer.reference}") and line.level == "info"
