"""Every recipe of docs/rules.md, as it stands there, and who comes in by it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.client import NAVIGATION, SCRIPT
from harness.config import VirtualHost
from harness.fixtures import lasting, wanted_mpms
from harness.server import Server
from test_require import PEOPLE

RULES = Path(__file__).resolve().parents[2] / "docs" / "rules.md"
ALL = set(PEOPLE)
MEMBERS = {"olivia", "priya", "mark"}
HTACCESS = "In .htaccess"

# heading: method, path and who gets in; None: strangers too. In acme olivia owns, priya
# creates projects, mark is a member and carla shares a repository; gwen owns globex, and
# oscar is a member there. acme/site: priya administers, mark writes, carla reads.
RECIPES: dict[str, list[tuple[str, str, set[str] | None]]] = {
    "The members of our workspace": [("GET", "/page.html", MEMBERS)],
    "The members of our workspace, and people who share a repository": [("GET", "/page.html", MEMBERS | {"carla"})],
    "Owners only": [("GET", "/admin/page.html", {"olivia"}), ("GET", "/page.html", None)],
    "Several workspaces": [("GET", "/page.html", MEMBERS | {"gwen"})],
    "Members of both workspaces": [("GET", "/page.html", {"mark"})],
    "Who may write to a repository": [("GET", "/deploy/page.html", {"olivia", "priya", "mark"})],
    "These people": [("GET", "/payroll/page.html", {"mark"})],
    "Everybody with an address of our company": [("GET", "/page.html", MEMBERS)],
    "Anybody who has a Bitbucket account": [("GET", "/page.html", ALL)],
    "Members, but for one": [("GET", "/page.html", {"olivia", "priya"})],
    "From the office without sign-in": [("GET", "/page.html", None)],
    "All but one corner": [("GET", "/page.html", MEMBERS), ("GET", "/public/page.html", None)],
    "One file for owners": [("GET", "/reports/page.html", MEMBERS), ("GET", "/reports/salaries.html", {"olivia"})],
    "A stricter place within": [("GET", "/wiki/page.html", MEMBERS), ("GET", "/wiki/board/page.html", {"mark"})],
    "Everybody reads, some write": [("GET", "/data/env.cgi", MEMBERS | {"carla"}), ("HEAD", "/data/page.html", MEMBERS | {"carla"}),
                                    ("POST", "/data/env.cgi", {"olivia", "priya"}), ("BREW", "/data/env.cgi", {"olivia", "priya"})],
    "Scripts of other sites (CORS)": [("OPTIONS", "/api/page.html", None), ("GET", "/api/page.html", MEMBERS),
                                      ("PUT", "/api/env.cgi", MEMBERS)],
    "A monitor that has a password": [("GET", "/health/page.html", MEMBERS)],
    "Open, but it knows who is signed in": [("GET", "/page.html", None)],
    "A directory for each team": [("GET", "/team/acme/page.html", MEMBERS), ("GET", "/team/globex/page.html", {"gwen", "oscar"})],
    HTACCESS: [("GET", "/dir/page.html", MEMBERS)],
}


def blocks() -> dict[str, str]:
    """All that is to be pasted, by heading."""
    found: dict[str, str] = {}
    for part in re.split(r"(?m)^## ", RULES.read_text())[1:]:
        heading, _, text = part.partition("\n")
        pasted = re.findall(r"```apache\n(.*?)```", text, re.S)
        if pasted:
            found[heading] = "\n".join(pasted)
    return found


def test_every_recipe_is_run():
    assert set(blocks()) == set(RECIPES)


def site_of(heading: str) -> str:
    """A site for a recipe; what is for a site as a whole is given a place. A workspace that
    Bitbucket does not have stands for one of the simulator's."""
    text = blocks()[heading].replace("initech", "InitechLabs").replace("@example.com", "@acme.example")
    if heading == "From the office without sign-in":
        text = text.replace("192.0.2.0/24", "127.0.0.0/8")
    return text if "AuthType" in text else f'<Location "/">\nAuthType Bitbucket\n{text}</Location>'


@pytest.fixture(scope="module")
def hosts(shared_simulator):
    hosts = {heading: VirtualHost("" if heading == HTACCESS else site_of(heading)) for heading in RECIPES}
    server = Server(list(hosts.values()), shared_simulator, wanted_mpms()[0])
    paths = {path for asked in RECIPES.values() for _, path, _ in asked}
    for path in paths:
        target = server.content / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        source = server.content / ("env.cgi" if path.endswith(".cgi") else "page.html")
        if not target.exists():
            target.write_bytes(source.read_bytes())
            target.chmod(0o755)
    (server.content / "dir" / ".htaccess").write_text(blocks()[HTACCESS])
    with lasting(server):
        yield hosts


def ask(browser, url: str, method: str) -> int:
    return browser.request(method, url, SCRIPT, body=b"a=1" if method == "POST" else None).status


@pytest.mark.parametrize("heading", RECIPES)
def test_recipe(hosts, log_watch, new_browser, heading):
    host, asked = hosts[heading], RECIPES[heading]
    for method, path, allowed in asked:
        assert ask(new_browser(), host.url(path), method) == (200 if allowed is None else 401), (method, path)
    for person in PEOPLE:
        browser = new_browser()
        callback = browser.walk_to_callback(host.endpoint("login"), person)
        assert browser.get(callback).status == 303
        for method, path, allowed in asked:
            expected = 200 if allowed is None or person in allowed else 403
            assert ask(browser, host.url(path), method) == expected, (person, method, path)


def test_signing_in_at_a_recipe(hosts, log_watch, new_browser):
    """A person who comes to the page, not to the endpoint."""
    for heading, asked in RECIPES.items():
        for method, path, allowed in asked:
            if method == "GET" and allowed:
                person = sorted(allowed)[0]
                answer = new_browser().sign_in(hosts[heading].url(path), person)
                assert (answer.status, answer.url) == (200, hosts[heading].url(path)), heading


# -- what a table does not hold

def test_from_elsewhere_one_signs_in(start_server, new_browser):
    """The office's addresses as they stand in the manual are not this machine's."""
    host = VirtualHost(blocks()["From the office without sign-in"])
    start_server(host)
    assert new_browser().get(host.url("/page.html"), SCRIPT).status == 401
    assert new_browser().sign_in(host.url("/page.html"), "mark").status == 200
    assert new_browser().sign_in(host.url("/page.html"), "oscar").status == 403


def test_the_monitor(hosts, log_watch, browser):
    url = hosts["A monitor that has a password"].url("/health/page.html")
    assert browser.get(url, {**SCRIPT, "X-Monitor": "choose-a-long-random-text"}).status == 200
    assert browser.get(url, {**SCRIPT, "X-Monitor": "guess"}).status == 401
    assert browser.get(url, {**SCRIPT, "X-Monitor": ""}).status == 401


def test_open_but_it_knows_who_is_signed_in(hosts, log_watch, new_browser):
    host = hosts["Open, but it knows who is signed in"]
    assert "REMOTE_USER" not in new_browser().get(host.url("/env.cgi"), NAVIGATION).environment
    browser = new_browser()
    browser.get(browser.walk_to_callback(host.endpoint("login"), "oscar"))
    assert browser.get(host.url("/env.cgi")).environment["REMOTE_USER"] == "oscar_ortega"


def test_the_trap_of_not_beside_what_needs_no_name(start_server, new_browser):
    """docs/rules.md warns: nobody is asked for a name, so nobody is the one who is kept out."""
    unnamed = ["Require ip 127.0.0.0/8", "Require not bitbucket-user mark_miller"]
    named = [*unnamed, "Require valid-user"]
    host = VirtualHost("\n".join(f'Alias "/{name}" "${{CONTENT}}"\n<Location "/{name}">\nAuthType Bitbucket\n<RequireAll>\n'
                                 + "\n".join(lines) + "\n</RequireAll>\n</Location>"
                                 for name, lines in (("unnamed", unnamed), ("named", named))))
    start_server(host)
    browser = new_browser()
    assert browser.get(host.url("/unnamed/page.html"), SCRIPT).status == 200
    assert browser.get(host.url("/named/page.html"), SCRIPT).status == 401
    assert browser.sign_in(host.url("/named/page.html"), "mark").status == 403
    assert browser.get(host.url("/unnamed/page.html")).status == 200
