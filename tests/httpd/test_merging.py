"""Directives of places: what is said nearest holds, what is not said is inherited.

httpd lays the levels over each other in this order. A setting may stand at any of them:
with two, the later one wins; with one, it holds whatever stands around it.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import pytest

from harness.client import NAVIGATION, SCRIPT
from harness.config import VirtualHost, place
from harness.fixtures import lasting, wanted_mpms
from harness.server import Server
from harness.simulator import account, uuid_of

LEVELS = ("main directory", "directory", ".htaccess", "files", "main location", "location", "if")


# -- what is observed of each directive

@dataclass(frozen=True)
class Directive:
    """values: what may be written, and what is seen then. One value for each level and
    round, so chosen that any two levels differ in some round."""

    name: str
    values: dict[str, object]
    default: object
    see: Callable

    def value(self, level: int, number: int) -> str:
        return list(self.values)[level // len(self.values) ** number % len(self.values)]


def see_user(signed_in, new_browser, url):
    return signed_in.get(url).environment["REMOTE_USER"]


def see_private(signed_in, new_browser, url):
    return signed_in.get(url).header("Cache-Control") == "private"


def see_stranger(signed_in, new_browser, url):
    return tuple(new_browser().get(url, headers).status for headers in (NAVIGATION, SCRIPT))


MARK = account("mark")
DIRECTIVES = [
    Directive("AuthBitbucketRemoteUser", {"uuid": uuid_of("mark"), "email": "mark@acme.example", "nickname": "mark",
                                          "account_id": MARK["account_id"], "username": MARK["username"]}, MARK["username"], see_user),
    Directive("AuthBitbucketPrivate", {"Off": False, "On": True}, True, see_private),
    Directive("AuthBitbucketUnauthenticated", {"403": (403, 403), "401": (401, 401), "login": (302, 302), "pass": (200, 200),
                                               "auto": (302, 401)}, (302, 401), see_stranger),
]
# What they do is proven where they are; so is how they merge.
ELSEWHERE = {"AuthBitbucketPass", "AuthBitbucketPassAccessToken", "AuthBitbucketAPIToken", "AuthBitbucketPreservePost"}
ROUNDS = 3


def test_no_directive_is_missing():
    text = (Path(__file__).resolve().parents[2] / "src" / "config_directives.c").read_text()
    known = {directive.name for directive in DIRECTIVES} | ELSEWHERE
    of_places = re.findall(r'AP_INIT_\w+\("(\w+)", \w+, NULL, ([^,]+),', text)
    assert {name for name, context in of_places if context != "RSRC_CONF"} == known


# -- where each is said

# None, each, and each two of the levels, and all of them.
SETS = [(), *itertools.combinations(range(len(LEVELS)), 1), *itertools.combinations(range(len(LEVELS)), 2),
        tuple(range(len(LEVELS)))]


def levels_of(directive: int, case: int) -> tuple[int, ...]:
    """Each directive stands at other levels of a place, so that a merge that drops a
    neighbour's setting is seen."""
    return SETS[(case + 11 * directive) % len(SETS)]


def lines_at(level: int, case: int, number: int) -> list[str]:
    return [f"{directive.name} {directive.value(level, number)}" for n, directive in enumerate(DIRECTIVES)
            if level in levels_of(n, case)]


def section(level: int, path: str, lines: list[str]) -> str:
    head = {"main directory": f'Directory "${{CONTENT}}{path}"', "directory": f'Directory "${{CONTENT}}{path}"',
            "main location": f'Location "{path}"', "location": f'Location "{path}"',
            "if": f'If "%{{REQUEST_URI}} =~ m#^{path}/#"'}[LEVELS[level]]
    return "\n".join([f"<{head}>", *lines, f"</{head.split()[0]}>"]) if lines else ""


def places():
    return [(number, case, f"/merge/r{number}/c{case}") for number in range(ROUNDS) for case in range(len(SETS))]


@pytest.fixture(scope="module")
def host(shared_simulator):
    main, own = [], [place("start", "Require valid-user"), '<Location "/merge">', "AuthType Bitbucket", "Require valid-user",
                     "</Location>"]
    for number, case, path in places():
        for level, name in enumerate(LEVELS):
            if name not in (".htaccess", "files"):
                (main if name.startswith("main") else own).append(section(level, path, lines_at(level, case, number)))
    host = VirtualHost("\n".join(own))
    server = Server([host], shared_simulator, wanted_mpms()[0], main="\n".join(main))
    for number, case, path in places():
        directory = server.content / path[1:]
        directory.mkdir(parents=True)
        (directory / "env.cgi").write_bytes((server.content / "env.cgi").read_bytes())
        (directory / "env.cgi").chmod(0o755)
        of_files = lines_at(LEVELS.index("files"), case, number)
        lines = lines_at(LEVELS.index(".htaccess"), case, number)
        lines += ["<Files env.cgi>", *of_files, "</Files>"] if of_files else []
        (directory / ".htaccess").write_text("\n".join(lines) + "\n")
    with lasting(server):
        yield host


@pytest.mark.parametrize("number", range(len(DIRECTIVES)), ids=[directive.name for directive in DIRECTIVES])
def test_own_wins_and_absent_inherits(host, log_watch, new_browser, number):
    directive = DIRECTIVES[number]
    signed_in = new_browser()
    assert signed_in.sign_in(host.url("/start/page.html"), "mark").status == 200
    wrong = []
    for round_number, case, path in places():
        levels = levels_of(number, case)
        value = directive.value(max(levels), round_number) if levels else None
        expected = directive.values[value] if levels else directive.default
        seen = directive.see(signed_in, new_browser, host.url(path + "/env.cgi"))
        if seen != expected:
            wrong.append(f"{' + '.join(LEVELS[level] for level in levels) or 'nowhere'}: {seen}, not {expected}")
    assert not wrong, "\n".join(wrong)


def test_every_two_levels_differ_in_some_round():
    """Else the test above could not tell which of them wins."""
    for directive in DIRECTIVES:
        for a, b in itertools.combinations(range(len(LEVELS)), 2):
            seen = [[directive.values[directive.value(level, number)] for number in range(ROUNDS)] for level in (a, b)]
            assert seen[0] != seen[1], (directive.name, LEVELS[a], LEVELS[b])


# -- lines that add up, and lines that replace

def test_conditions_of_one_place_are_not_the_next_ones(start_server, new_browser):
    """Several lines of AuthBitbucketUnauthenticated make one list; a list of a nearer level
    replaces it as a whole."""
    host = VirtualHost("\n".join([
        place("outer", "AuthBitbucketUnauthenticated 403 \"expr=%{QUERY_STRING} == 'x'\"", "AuthBitbucketUnauthenticated 401",
              "Require valid-user"),
        '<Location "/outer/page.html">', "AuthBitbucketUnauthenticated login", "</Location>",
        '<Location "/outer/data.txt">', "AuthBitbucketRemoteUser uuid", "</Location>"]))
    start_server(host)
    found = {path: new_browser().get(host.url(path), SCRIPT).status
             for path in ("/outer/env.cgi", "/outer/env.cgi?x", "/outer/page.html", "/outer/page.html?x", "/outer/data.txt?x")}
    assert found == {"/outer/env.cgi": 401, "/outer/env.cgi?x": 403, "/outer/page.html": 302, "/outer/page.html?x": 302,
                     "/outer/data.txt?x": 403}


def test_an_htaccess_does_not_add_to_the_servers_list(start_server, new_browser):
    """Nor does one request's add to the next one's."""
    host = VirtualHost("\n".join(['<Directory "${CONTENT}/dir">', "AuthType Bitbucket", "AuthBitbucketUnauthenticated 403",
                                  "Require valid-user", "</Directory>"]))
    server = start_server.prepare(host)
    for name, text in (("dir", ""), ("dir/in", "AuthBitbucketUnauthenticated 401 \"expr=%{QUERY_STRING} == 'x'\"\n")):
        (server.content / name).mkdir()
        (server.content / name / "page.html").write_text("The test page")
        (server.content / name / ".htaccess").write_text(text)
    server.start()
    for _ in range(3):
        found = [new_browser().get(host.url(path), SCRIPT).status for path in ("/dir/page.html?x", "/dir/in/page.html?x",
                                                                               "/dir/in/page.html")]
        # What no line of a list says is auto.
        assert found == [403, 401, 401]
    assert new_browser().get(host.url("/dir/in/page.html")).status == 302
