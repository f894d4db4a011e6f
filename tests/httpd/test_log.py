"""The events of docs/operating.md, by the regular expressions and commands that stand there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from harness.client import SCRIPT, send
from harness.config import VirtualHost, place
from harness.load import at_once
from harness.simulator import uuid_of
from test_api_token import basic, of

DOCS = Path(__file__).resolve().parents[2] / "docs"
OPERATING = (DOCS / "operating.md").read_text()
FORM = re.compile(re.search(r"(?m)^    (\(ABB.*)$", OPERATING)[1])
KEYS = {"ABB0203": ["account", "session", "workspaces"], "ABB0205": ["account", "session"],
        "ABB0103": ["user", "account", "rule", "reference"], "ABB0105": ["account", "session"],
        "ABB0208": ["account", "count", "limit"], "ABB0209": ["account", "session", "count", "by"]}
# What fail2ban takes for an address, near enough.
HOST = r"(?P<host>[0-9a-fA-F.:]+?)"
HOUR = 3600


def parse(line: str) -> dict[str, str]:
    found = FORM.search(line)
    assert found, line
    return {key: value.strip('"') for key, value in re.findall(r' ([a-z]+)=("[^"]*"|[^ ":]+)', found[3])}


def error_log(logs) -> str:
    """Of all servers: one of another file's tests may still run beside that of the test."""
    return "".join(text for path, text in logs.written() if path.name == "error.log")


@pytest.mark.parametrize("tag", KEYS)
def test_the_examples_have_the_form(tag):
    example = re.search(rf"(?m)^    ({tag}: .*)$", (DOCS / "messages.md").read_text())[1]
    assert list(parse(example)) == KEYS[tag]


def test_events_have_the_form(start_server, logs, simulator, new_browser):
    simulator.change_account("mark", nickname='Mark" account=0 rule="none')
    host = VirtualHost(place("any", "Require valid-user") + "\n"
                       + place("owners", "AuthBitbucketRemoteUser nickname", "Require bitbucket-workspace acme:owner"))
    start_server(host)
    browser = new_browser()
    assert browser.sign_in(host.url("/any/page.html"), "mark").status == 200
    assert browser.get(host.url("/owners/page.html")).status == 403
    signed_in, refused = logs.lines("ABB0203"), logs.lines("ABB0103")
    assert [list(parse(line.text)) for line in signed_in] == [KEYS["ABB0203"]]
    assert [list(parse(line.text)) for line in refused] == [KEYS["ABB0103"]]
    assert {line.level for line in signed_in + refused} == {"info"}
    assert parse(refused[0].text)["user"] == "Mark' account=0 rule='none"
    assert parse(refused[0].text)["rule"] == "owner of acme"


# -- the end of a session

SITE = "\n".join([place("any", "Require valid-user"), place("team", "Require bitbucket-workspace acme"),
                  place("tool", "AuthBitbucketAPIToken On", "Require valid-user"),
                  '<Location "/sessions">\n    SetHandler bitbucket-sessions\n    AuthType Bitbucket\n    AuthBitbucketAPIToken On\n'
                  f'    Require bitbucket-user {uuid_of("olivia")}\n</Location>'])


@pytest.fixture
def timed(start_server, clock):
    host = VirtualHost("AuthBitbucketSessionTimeout 8h 24h\n" + SITE)
    start_server(host, clock=clock, main="AuthBitbucketMaxSessionsPerUser 2\n")
    return host


def ended(logs) -> list[tuple[str, str]]:
    """Session and reason of each."""
    found = [FORM.search(line.text) for line in logs.lines("ABB0105")]
    assert all(match and match[2] == "session ended" for match in found)
    assert all(line.level == "info" for line in logs.lines("ABB0105"))
    return [(parse(match[0])["session"], match[4]) for match in found]


def test_signing_out(timed, browser, logs):
    browser.sign_in(timed.url("/any/page.html"), "mark")
    browser.submit(browser.get(timed.endpoint("logout")))
    line, = logs.lines("ABB0205")
    assert list(parse(line.text)) == KEYS["ABB0205"] and line.level == "info"
    assert parse(line.text) == {key: value for key, value in parse(logs.lines("ABB0203")[0].text).items() if key != "workspaces"}


def test_a_session_that_was_not_used(timed, clock, new_browser, logs):
    """Told once, however often and however many at once its cookie comes; a page is no other than a script."""
    browser, other = new_browser(), new_browser()
    browser.sign_in(timed.url("/any/page.html"), "mark")
    other.sign_in(timed.url("/any/page.html"), "oscar")
    clock.advance(8 * HOUR + 5)
    for _ in range(3):
        assert browser.get(timed.url("/any/page.html")).status == 302
        assert browser.get(timed.url("/team/page.html"), SCRIPT).status == 401
    session, others = (parse(line.text)["session"] for line in logs.lines("ABB0203"))
    why = "unused for 8h, see AuthBitbucketSessionTimeout"
    assert ended(logs) == [(session, why)]
    assert parse(logs.lines("ABB0105")[0].text)["account"] == uuid_of("mark")
    cookie = {**SCRIPT, "Cookie": f"bitbucket_session={other.session_value()}"}
    assert at_once([timed.url("/any/page.html")] * 40, cookie).statuses == {401: 40}
    assert ended(logs) == [(session, why), (others, why)]
    assert browser.sign_in(timed.url("/any/page.html"), "mark").status == 200


def test_a_session_that_is_old(timed, clock, browser, logs):
    browser.sign_in(timed.url("/any/page.html"), "mark")
    for _ in range(3):
        clock.advance(7 * HOUR)
        assert browser.get(timed.url("/any/page.html")).status == 200
    clock.advance(4 * HOUR)
    for _ in range(3):
        assert browser.get(timed.url("/any/page.html")).status == 302
    assert [why for _, why in ended(logs)] == ["it began 1d ago, see AuthBitbucketSessionTimeout"]


def test_what_is_no_end_by_age(timed, clock, browser, logs):
    """Signed out before, or never a session: no line, whenever the cookie comes."""
    browser.sign_in(timed.url("/any/page.html"), "mark")
    cookie = {**SCRIPT, "Cookie": f"bitbucket_session={browser.session_value()}"}
    browser.submit(browser.get(timed.endpoint("logout")))
    clock.advance(9 * HOUR)
    assert send("GET", timed.url("/any/page.html"), cookie).status == 401
    assert send("GET", timed.url("/any/page.html"), {**SCRIPT, "Cookie": "bitbucket_session=" + "A" * 43}).status == 401
    assert ended(logs) == []


def test_an_end_that_bitbucket_brings(timed, clock, browser, logs, simulator):
    browser.sign_in(timed.url("/any/page.html"), "mark")
    simulator.end_tokens("all")
    clock.advance(3 * HOUR)
    assert browser.get(timed.url("/any/page.html"), SCRIPT).status == 401
    (session, why), = ended(logs)
    assert session == parse(logs.lines("ABB0203")[0].text)["session"] and "invalid_grant" in why


def test_ends_by_others(timed, new_browser, logs):
    """One session too many of an account, and an administrator."""
    for _ in range(3):
        assert new_browser().sign_in(timed.url("/any/page.html"), "mark").status == 200
    newer, = logs.lines("ABB0208")
    assert parse(newer.text) == {"account": uuid_of("mark"), "count": "1", "limit": "2"}
    headers = {**of("olivia"), "User-Agent": "curl/8.0", "Content-Type": "application/x-www-form-urlencoded"}
    assert send("POST", timed.url("/sessions"), headers, f"action=end&account={uuid_of('mark')}".encode()).status == 200
    by_hand, = logs.lines("ABB0209")
    assert list(parse(by_hand.text)) == KEYS["ABB0209"] and parse(by_hand.text)["count"] == "2"
    assert FORM.search(newer.text)[2] == "ended for a newer session" and FORM.search(by_hand.text)[2] == "ended by an administrator"


# -- what the manual has to paste

def failregexes() -> list[re.Pattern[str]]:
    block = re.search(r"(?ms)^```ini\n\[Definition\]\nfailregex = (.*?)^```", OPERATING)[1]
    return [re.compile(line.strip().replace("<HOST>", HOST)) for line in block.strip().splitlines()]


def commands() -> list[str]:
    """Of the section; each reads Debian's log."""
    section = OPERATING.split("## Events in the log")[1].split("\n## ")[0]
    return [line.strip() for line in section.splitlines() if re.match(r"    (grep|awk) ", line)]


@pytest.fixture
def busy(start_server, new_browser, logs):
    """A log with a sign-in, refusals, wrong credentials, and what somebody would like to be taken for one."""
    host = VirtualHost(SITE + "\n" + place("owners", "Require bitbucket-workspace acme:owner"))
    start_server(host)
    browser = new_browser()
    browser.sign_in(host.url("/any/page.html"), "mark")
    for _ in range(3):
        assert browser.get(host.url("/owners/page.html")).status == 403
    for number in range(12):
        send("GET", host.url("/tool/page.html"), basic("mark@acme.example", f"wrong-password-{number}"))
    browser.get(host.url("/any/page.html"), SCRIPT)
    fake = "[client%20192.0.2.66:1]%20ABB0102:%20answered%20401:%20x;%20reason=credential%20reference=0000000000"
    browser.get(host.endpoint("login") + f"?return=//{fake}")
    browser.get(host.endpoint("callback") + f"?error={fake}&error_description={fake}&state=x")
    return host


def test_the_filter_for_fail2ban(busy, logs):
    """It finds wrong credentials and refusals with the address, before and after fail2ban takes the date out, and
    nothing that only looks so."""
    wrong, refused = failregexes()
    lines = error_log(logs).splitlines()
    for shown in (lines, [re.sub(r"^\[[^]]*\]", "[]", line) for line in lines], [re.sub(r"^\[[^]]*\] ", "", line) for line in lines]):
        found = [[match["host"] for line in shown if (match := expression.search(line))] for expression in (wrong, refused)]
        assert [len(hosts) for hosts in found] == [12, 3] and set(sum(found, [])) == {"127.0.0.1"}
    assert any("192.0.2.66" in line for line in lines)


def test_commands_for_the_log(busy, logs, tmp_path):
    copy = tmp_path / "error.log"
    copy.write_text(error_log(logs))
    session = parse(logs.lines("ABB0203")[0].text)["session"]
    known = {"account=a9225a7d-3e21-431d-a4d3-921a724a67f6": f"account={uuid_of('mark')}", "session=d161d29e": f"session={session}",
             "/var/log/apache2/error.log": str(copy)}
    answers = []
    for command in commands():
        for old, new in known.items():
            command = command.replace(old, new)
        answers.append(subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, timeout=20).stdout.splitlines())
    account, one, rules = answers
    assert sum("ABB0103" in line for line in account) == 3 and any("ABB0203" in line for line in one)
    assert rules == [f'3 account={uuid_of("mark")} rule="owner of acme"']
