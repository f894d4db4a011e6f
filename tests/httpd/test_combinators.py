"""Trees of rules: every person at each, against a reckoning of what httpd's manual says."""

from __future__ import annotations

import random

import pytest

from harness import tags
from harness.client import NAVIGATION, SCRIPT
from harness.config import VirtualHost, place
from harness.simulator import account, permission_route, repository_uuid, uuid_of, workspace_uuid
from test_require import ALL, PEOPLE, RULES, within

# Single lines, each with whom it lets in.
LEAVES = {lines[0]: allowed for lines, allowed in RULES.values()
          if len(lines) == 1 and lines[0].startswith("Require bitbucket-")}
LEAVES |= {
    "Require valid-user": ALL, "Require user " + account("mark")["username"]: {"mark"},
    "Require ip 127.0.0.1": ALL, "Require ip 192.0.2.1": frozenset(),
    "Require bitbucket-workspace {%s}:owner acme:create-project" % workspace_uuid("globex"): {"olivia", "priya", "gwen"},
    "Require bitbucket-repository acme/{%s}:admin acme/vault" % repository_uuid("acme", "site"): {"olivia", "priya"},
    "Require bitbucket-email @ACME.example carla@freelance.example": {"olivia", "priya", "mark", "carla"},
    "Require bitbucket-user oscar_ortega " + account("gwen")["account_id"]: {"oscar", "gwen"},
}


# -- trees: a line, ("not", line), or (section, [trees])

def grow(chance: random.Random, depth: int):
    """A tree that can grant: httpd refuses to start with what never could."""
    kind = chance.choice(["line", "any", "all", "all"]) if depth else "line"
    if kind == "line":
        return chance.choice(list(LEAVES))
    children = [grow(chance, depth - 1) for _ in range(chance.randint(1, 3))]
    if kind == "all":
        for _ in range(chance.randint(0, 2)):
            children.append(("not", chance.choice(list(LEAVES))) if chance.random() < 0.5
                            else ("none", [grow(chance, depth - 1) for _ in range(chance.randint(1, 2))]))
        chance.shuffle(children)
    return kind, children


SECTIONS = {"any": "RequireAny", "all": "RequireAll", "none": "RequireNone"}


def written(tree) -> list[str]:
    if isinstance(tree, str):
        return [tree]
    kind, inside = tree
    if kind == "not":
        return [inside.replace("Require ", "Require not ", 1)]
    return within(SECTIONS[kind], *(line for child in inside for line in written(child)))


def reckon(tree, person: str) -> bool | None:
    """True: granted, False: denied, None: neither."""
    if isinstance(tree, str):
        return person in LEAVES[tree]
    kind, inside = tree
    if kind == "not":
        return False if person in LEAVES[inside] else None
    found = [reckon(child, person) for child in inside]
    if kind == "any":
        return True in found
    if kind == "none":
        return False if True in found else None
    return False if False in found else True if True in found else None


def forest(seed: int, count: int) -> list:
    chance = random.Random(seed)
    return [grow(chance, chance.randint(1, 3)) for _ in range(count)]


@pytest.mark.parametrize("seed", [1, 2])
def test_trees(start_server, new_browser, seed):
    """A tree stands below a line that asks who it is, so that nobody stays a stranger."""
    trees = forest(seed, 60)
    host = VirtualHost("\n".join([place("start", "Require valid-user")] + [
        place(f"tree{n}", *within("RequireAll", "Require valid-user", *written(tree))) for n, tree in enumerate(trees)]))
    start_server(host)
    wrong, seen = [], set()
    for person in PEOPLE:
        browser = new_browser()
        assert browser.sign_in(host.url("/start/page.html"), person).status == 200
        for n, tree in enumerate(trees):
            expected = 403 if reckon(tree, person) is False else 200
            status = browser.get(host.url(f"/tree{n}/page.html"), SCRIPT).status
            seen.add((person, status))
            if status != expected:
                wrong.append(f"{person} at {n}: {status}, not {expected}\n" + "\n".join(written(tree)))
    assert not wrong, "\n".join(wrong)
    assert len(seen) == 2 * len(PEOPLE), "everybody is let in somewhere and refused somewhere"


def test_trees_and_strangers(start_server, new_browser):
    """Nobody is let in without a name where every line asks for one, wherever `not` stands."""
    trees = [tree for tree in forest(3, 100) if not any(" ip " in line for line in written(tree))]
    assert len(trees) > 40
    host = VirtualHost("\n".join(place(f"tree{n}", *written(tree)) for n, tree in enumerate(trees)))
    start_server(host)
    for n, tree in enumerate(trees):
        assert new_browser().get(host.url(f"/tree{n}/page.html"), SCRIPT).status == 401, "\n".join(written(tree))
        assert new_browser().get(host.url(f"/tree{n}/page.html")).status == 302, "\n".join(written(tree))


# -- each keyword says no

DENY = {
    # keyword: a line that refuses mark, one that lets him in
    "bitbucket-workspace": ("Require bitbucket-workspace globex", "Require bitbucket-workspace acme"),
    "bitbucket-repository": ("Require bitbucket-repository acme/handbook", "Require bitbucket-repository acme/site:write"),
    "bitbucket-user": ("Require bitbucket-user {%s}" % uuid_of("oscar"), "Require bitbucket-user {%s}" % uuid_of("mark")),
    "bitbucket-email": ("Require bitbucket-email @globex.example", "Require bitbucket-email mark@acme.example"),
}
SHAPES = {
    # shape: the section with a yes and a no, and what mark gets
    "alone": (lambda yes, no: [no], 403),
    "beside a yes": (lambda yes, no: [no, yes], 200),
    "all, no first": (lambda yes, no: within("RequireAll", no, yes), 403),
    "all, yes first": (lambda yes, no: within("RequireAll", yes, no), 403),
    "any of noes": (lambda yes, no: within("RequireAny", no, no), 403),
    "not no": (lambda yes, no: within("RequireAll", yes, no.replace("Require", "Require not", 1)), 200),
    "not yes": (lambda yes, no: within("RequireAll", "Require valid-user", yes.replace("Require", "Require not", 1)), 403),
    "none of noes": (lambda yes, no: within("RequireAll", yes, *within("RequireNone", no, no)), 200),
    "none with a yes": (lambda yes, no: within("RequireAll", "Require valid-user", *within("RequireNone", no, yes)), 403),
    "all of none of all": (lambda yes, no: within("RequireAll", yes, *within("RequireNone", *within("RequireAll", yes, no))), 200),
    "any of all of any": (lambda yes, no: within("RequireAny", no, *within("RequireAll", yes, *within("RequireAny", no, yes))), 200),
}


def test_every_keyword_in_every_shape(start_server, browser):
    places = {f"{word}-{n}": (shape(yes, no), status) for word, (no, yes) in DENY.items()
              for n, (shape, status) in enumerate(SHAPES.values())}
    host = VirtualHost("\n".join([place("start", "Require valid-user")]
                                 + [place(name, *lines) for name, (lines, _) in places.items()]))
    start_server(host)
    assert browser.sign_in(host.url("/start/page.html"), "mark").status == 200
    found = {name: browser.get(host.url(f"/{name}/page.html")).status for name in places}
    assert found == {name: status for name, (_, status) in places.items()}


# -- addresses and names, letter by letter

LETTERS = [
    # line, who it is, whether it lets them in
    ("Require bitbucket-email @acme.example", "una", False),                # her address is not confirmed
    ("Require bitbucket-email una@acme.example", "una", False),
    ("Require bitbucket-email @ACME.EXAMPLE", "mark", True),
    ("Require bitbucket-email MARK@acme.example", "mark", True),
    ("Require bitbucket-email @sub.acme.example", "mark", False),
    ("Require bitbucket-email @example", "mark", False),
    ("Require bitbucket-email @cme.example", "mark", False),
    ("Require bitbucket-email ark@acme.example", "mark", False),
    ("Require bitbucket-user {%s}" % uuid_of("mark").upper(), "mark", True),
    ("Require bitbucket-user %s" % uuid_of("mark"), "mark", True),
    ("Require bitbucket-user %s" % account("mark")["account_id"], "mark", True),
    ("Require bitbucket-user %s" % account("mark")["account_id"].upper(), "mark", False),
    ("Require bitbucket-user mark_miller", "mark", True),
    ("Require bitbucket-user Mark_Miller", "mark", False),
    ("Require bitbucket-user mark_mille", "mark", False),
    ("Require bitbucket-user mark", "oscar", False),                        # his nickname
    ("Require user Mark_Miller", "mark", False),
    ("Require bitbucket-repository acme/handbook", "oscar", False),         # public
    ("Require bitbucket-repository acme/handbook:write", "mark", False),
    ("Require bitbucket-repository ACME/site:write", "mark", False),        # asked for as it is written
    ("Require bitbucket-workspace acme-", "mark", False),
]


def test_names_letter_by_letter(start_server, new_browser):
    host = VirtualHost("\n".join([place("start", "AuthBitbucketRemoteUser uuid", "Require valid-user")] + [
        place(f"n{n}", *([] if line.startswith("Require user") else ["AuthBitbucketRemoteUser uuid"]), line)
        for n, (line, _, _) in enumerate(LETTERS)]))
    start_server(host)
    wrong = []
    for person in {person for _, person, _ in LETTERS}:
        browser = new_browser()
        browser.sign_in(host.url("/start/page.html"), person)
        for n, (line, who, allowed) in enumerate(LETTERS):
            status = browser.get(host.url(f"/n{n}/page.html")).status if who == person else None
            if status not in (None, 200 if allowed else 403):
                wrong.append((line, who, status))
    assert not wrong


def test_an_address_that_two_neighbours_look_like(start_server, new_browser, simulator):
    """A domain is what stands behind the only @, as a whole."""
    host = VirtualHost(place("here", "AuthBitbucketRemoteUser uuid", "Require bitbucket-email @acme.example"))
    start_server(host)
    for email in ("mark@acme.example.evil.example", "mark@evilacme.example", "mark@sub.acme.example", "acme.example@evil.example",
                  "a@acme.example@evil.example", "mark@acme.exampl", "mark@acme.example."):
        simulator.change_account("mark", emails=[{"email": email, "is_primary": True, "is_confirmed": True}])
        assert new_browser().sign_in(host.url("/here/page.html"), "mark").status == 403, email
    simulator.change_account("mark", emails=[{"email": "M.Miller@Acme.Example", "is_primary": False, "is_confirmed": True}])
    assert new_browser().sign_in(host.url("/here/page.html"), "mark").status == 200


# -- errors under `not` let nobody in

UNDECIDABLE = {
    "not": lambda line: within("RequireAll", "Require valid-user", line.replace("Require", "Require not", 1)),
    "not, first": lambda line: within("RequireAll", line.replace("Require", "Require not", 1), "Require valid-user"),
    "none": lambda line: within("RequireAll", "Require valid-user", *within("RequireNone", line)),
    "none of all": lambda line: within("RequireAll", "Require valid-user", *within("RequireNone", *within(
        "RequireAll", "Require valid-user", line))),
    "not within any": lambda line: within("RequireAny", *within("RequireAll", "Require valid-user",
                                                                line.replace("Require", "Require not", 1))),
    "not in none": lambda line: within("RequireAll", "Require valid-user", *within("RequireNone", *within(
        "RequireAll", "Require bitbucket-workspace globex", line.replace("Require", "Require not", 1)))),
}
LINES = {"workspace": "Require bitbucket-workspace globex", "role": "Require bitbucket-workspace globex:owner",
         "repository": "Require bitbucket-repository globex/reactor:write"}
NOTHING = {"workspace": "Require bitbucket-workspace %{env:NO_SUCH}", "repository": "Require bitbucket-repository acme/%{env:NO_SUCH}:x",
           "user": "Require bitbucket-user %{env:NO_SUCH}", "email": "Require bitbucket-email %{env:NO_SUCH}",
           "no name": 'Require bitbucket-workspace "%{tolower:A B}"'}


@pytest.mark.parametrize("fault", [{"status": 500}, {"close": True}, {"status": 429}])
def test_bitbucket_down_under_not(start_server, browser, simulator, logs, clock, fault):
    """The rows are as old as may be, so they are asked about again, in vain."""
    logs.expect(tags.ANSWERED)
    for tag in (tags.BROKEN, tags.MENDED, tags.PAUSED, tags.NOT_RENEWED):
        logs.allow(tag)
    places = {f"p{n}-{kind}": shape(line) for n, shape in enumerate(UNDECIDABLE.values()) for kind, line in LINES.items()}
    host = VirtualHost("\n".join([place("start", "Require valid-user")]
                                 + [place(name, *lines) for name, lines in places.items()]))
    start_server(host, clock=clock)
    assert browser.sign_in(host.url("/start/page.html"), "mark").status == 200
    decided = {name: browser.get(host.url(f"/{name}/page.html")).status for name in places}
    assert set(decided.values()) == {200}, "mark is nothing in globex"
    for route in ("permission", "user", "emails", "repositories"):
        simulator.fault(route, **fault)
    clock.advance(3605)
    answers = {name: browser.get(host.url(f"/{name}/page.html")) for name in places}
    assert {name: answer.status for name, answer in answers.items()} == dict.fromkeys(places, 503)
    assert not any("test page" in answer.text for answer in answers.values())


def test_a_yes_beside_it_does_not_make_up_for_an_error(start_server, browser, simulator, logs, clock):
    """Only one of two workspaces can be asked about; the other lets mark in, but whether he is to
    be kept out is not known."""
    logs.expect(tags.ANSWERED)
    for tag in (tags.NOT_RENEWED, tags.BROKEN, tags.MENDED):
        logs.allow(tag)
    acme, site = "Require bitbucket-workspace acme", "Require bitbucket-repository acme/site"
    shut = {"not": ["Require not bitbucket-workspace globex"], "none": within("RequireNone", "Require bitbucket-workspace globex:owner")}
    places = {f"{kind}-{n}": within("RequireAll", *order) for kind, lines in shut.items()
              for n, order in enumerate(([acme, *lines], [*lines, acme], [*lines, acme, site], [site, *lines, acme]))}
    host = VirtualHost("\n".join([place("start", "Require valid-user")] + [place(name, *lines) for name, lines in places.items()]))
    start_server(host, clock=clock)
    browser.sign_in(host.url("/start/page.html"), "mark")
    assert {browser.get(host.url(f"/{name}/page.html")).status for name in places} == {200}
    simulator.fault(permission_route("globex"), status=500)
    clock.advance(3605)
    for _ in range(2):
        found = {name: browser.get(host.url(f"/{name}/page.html")).status for name in places}
        assert found == dict.fromkeys(places, 503)


@pytest.mark.parametrize("passing", [False, True])
def test_expressions_that_come_to_nothing_under_not(start_server, new_browser, passing):
    """Neither for somebody signed in, nor for a stranger where strangers may pass."""
    action = ["AuthBitbucketUnauthenticated pass"] if passing else []
    places = {f"p{n}-{kind.replace(' ', '')}": shape(line) for n, shape in enumerate(UNDECIDABLE.values())
              if "in none" not in list(UNDECIDABLE)[n] for kind, line in NOTHING.items()}
    host = VirtualHost("\n".join([place("start", "Require valid-user")]
                                 + [place(name, *action, *lines) for name, lines in places.items()]))
    start_server(host)
    browser = new_browser()
    assert browser.sign_in(host.url("/start/page.html"), "mark").status == 200
    found = {name: browser.get(host.url(f"/{name}/page.html")).status for name in places}
    assert found == dict.fromkeys(places, 403)
    stranger = {name: new_browser().get(host.url(f"/{name}/page.html"), NAVIGATION).status for name in places}
    assert stranger == dict.fromkeys(places, 302)
