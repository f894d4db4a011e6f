"""The events of docs/operating.md, by the one regular expression that stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.config import VirtualHost, place

DOCS = Path(__file__).resolve().parents[2] / "docs"
FORM = re.compile(re.search(r"(?m)^    (\(ABB.*)$", (DOCS / "operating.md").read_text())[1])
KEYS = {"ABB0203": ["account", "session", "workspaces"], "ABB0205": ["account", "session"],
        "ABB0103": ["user", "account", "rule", "reference"], "ABB0105": ["account", "session"]}


def parse(line: str) -> dict[str, str]:
    found = FORM.search(line)
    assert found, line
    return {key: value.strip('"') for key, value in re.findall(r' ([a-z]+)=("[^"]*"|[^ ":]+)', found[3])}


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
