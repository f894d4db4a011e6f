"""Where rules may stand: httpd's sections, virtual hosts, .htaccess, and how they add up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness import tags
from harness.client import NAVIGATION, SCRIPT
from harness.config import VirtualHost, place
from harness.fixtures import lasting, wanted_mpms
from harness.server import Server
from harness.simulator import repository_uuid, uuid_of
from test_require import PEOPLE

TOP = Path(__file__).resolve().parents[2]
MEMBERS = {"olivia", "priya", "mark"}



def within(section: str, *lines: str) -> list[str]:
    return [f"<{section}>", *lines, f"</{section.split()[0]}>"]


# -- sections

SECTIONS = "\n".join([
    place("start", "Require valid-user"),
    place("limit", *within("Limit GET", "Require bitbucket-workspace acme")),
    place("limit-post", *within("Limit POST", "Require bitbucket-workspace acme")),
    place("except", *within("LimitExcept GET", "Require bitbucket-workspace acme")),
    place("both", *within("Limit GET", "Require bitbucket-workspace acme:collaborator"),
          *within("LimitExcept GET", "Require bitbucket-workspace acme:owner")),
    place("method", *within("RequireAny", *within("RequireAll", "Require method GET", "Require bitbucket-workspace acme"),
                            "Require bitbucket-workspace acme:owner")),
    place("files", "Require bitbucket-workspace acme"),
    '<LocationMatch "^/(?<WHAT>alpha|beta)/(?<TEAM>[a-z]+)/">', "AuthType Bitbucket",
    "Require bitbucket-workspace %{env:MATCH_TEAM}", "</LocationMatch>",
    'AliasMatch "^/(?:alpha|beta)/[a-z]+/(.*)$" "${CONTENT}/$1"',
    place("if", "Require bitbucket-workspace acme:owner",
          *within("If \"%{QUERY_STRING} == 'member'\"", "Require bitbucket-workspace acme"),
          *within("ElseIf \"%{QUERY_STRING} == 'open'\"", "Require all granted")),
    place("if-type", "Require all granted",
          *within("If \"%{QUERY_STRING} == 'closed'\"", "AuthType Bitbucket", "Require bitbucket-workspace acme"), auth=False),
    # Files within a directory, and by pattern.
    '<Directory "${CONTENT}/by-name">', "AuthType Bitbucket", "Require bitbucket-workspace acme",
    *within('Files "owners.html"', "Require bitbucket-workspace acme:owner"),
    *within('FilesMatch "\\.open\\.html$"', "Require all granted"), "</Directory>",
    '<DirectoryMatch "/teams/(?<TEAM>[^/]+)/">', "AuthType Bitbucket", "Require bitbucket-workspace %{env:MATCH_TEAM}",
    "</DirectoryMatch>",
    # A site where all is closed but one place.
    place("closed", "Require bitbucket-workspace acme"),
    '<Location "/closed/data.txt">', "AuthType None", "Require all granted", "</Location>",
])

ASKED = [
    # method, path: who gets in (None: a stranger, too), everybody else is refused
    ("GET", "/limit/env.cgi", MEMBERS), ("HEAD", "/limit/page.html", MEMBERS), ("POST", "/limit/env.cgi", None),
    ("GET", "/limit-post/env.cgi", None), ("POST", "/limit-post/env.cgi", MEMBERS),
    ("GET", "/except/env.cgi", None), ("HEAD", "/except/page.html", None), ("POST", "/except/env.cgi", MEMBERS),
    ("PUT", "/except/env.cgi", MEMBERS), ("BREW", "/except/env.cgi", MEMBERS),
    ("GET", "/both/env.cgi", MEMBERS | {"carla"}), ("POST", "/both/env.cgi", {"olivia"}), ("HEAD", "/both/page.html", MEMBERS | {"carla"}),
    ("GET", "/method/env.cgi", MEMBERS), ("POST", "/method/env.cgi", {"olivia"}), ("HEAD", "/method/page.html", MEMBERS),
    ("GET", "/alpha/acme/page.html", MEMBERS), ("GET", "/beta/globex/page.html", {"gwen", "oscar"}),
    ("GET", "/beta/nowhere/page.html", set()),
    ("GET", "/if/page.html", {"olivia"}), ("GET", "/if/page.html?member", MEMBERS), ("GET", "/if/page.html?open", None),
    ("GET", "/if/page.html?x", {"olivia"}),
    ("GET", "/if-type/page.html", None), ("GET", "/if-type/page.html?closed", MEMBERS),
    ("GET", "/by-name/page.html", MEMBERS), ("GET", "/by-name/owners.html", {"olivia"}), ("GET", "/by-name/a.open.html", None),
    ("GET", "/teams/acme/page.html", MEMBERS), ("GET", "/teams/globex/page.html", {"gwen", "oscar"}),
    ("GET", "/closed/page.html", MEMBERS), ("GET", "/closed/data.txt", None),
]


def copy_pages(server: Server, *names: str) -> None:
    for name in names:
        path = server.content / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((server.content / "page.html").read_bytes())


@pytest.fixture(scope="module")
def sections(shared_simulator):
    host = VirtualHost(SECTIONS)
    server = Server([host], shared_simulator, wanted_mpms()[0])
    copy_pages(server, "by-name/page.html", "by-name/owners.html", "by-name/a.open.html", "teams/acme/page.html",
               "teams/globex/page.html")
    with lasting(server):
        yield host


def ask(browser, host, method: str, path: str) -> int:
    body = b"a=1" if method == "POST" else None
    return browser.request(method, host.url(path), SCRIPT, body=body).status


def wrong_answers(browser, host, person: str | None, asked: list) -> list[str]:
    found = []
    for method, path, allowed in asked:
        expected = 200 if allowed is None or person in allowed else 403 if person else 401
        status = ask(browser, host, method, path)
        if status != expected:
            found.append(f"{person}: {method} {path}: {status}, not {expected}")
    return found


def test_rules_in_sections(sections, log_watch, new_browser):
    wrong = wrong_answers(new_browser(), sections, None, ASKED)
    for person in PEOPLE:
        browser = new_browser()
        assert browser.sign_in(sections.url("/start/page.html"), person).status == 200
        wrong += wrong_answers(browser, sections, person, ASKED)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", ["/both/page.html", "/if/page.html?member", "/alpha/acme/page.html", "/by-name/page.html",
                                  "/teams/acme/page.html", "/if-type/page.html?closed"])
def test_signing_in_within_a_section(sections, log_watch, browser, simulator, path):
    """And what the section names is asked about at the sign-in."""
    answer = browser.sign_in(sections.url(path), "mark")
    assert answer.status == 200 and answer.url == sections.url(path)
    assert simulator.asked().count("permission acme") == 1


# -- AuthMerging

def sets_of(lines: list[tuple[str, set[str]]], merging: list[str], where: str) -> set[str] | None:
    """Whom nested sections let in, from the outermost on; None: everybody. httpd adds up all
    locations and lays the sum over the directory in the way that the last of them says: with
    Or, what the directory lets in comes in too, and here that is everybody."""
    allowed, how = lines[0][1], "Off"
    for how, (_, more) in zip(merging, lines[1:]):
        allowed = {"Off": more, "And": allowed & more, "Or": allowed | more}[how]
    return None if where == "locations" and how == "Or" else allowed


LEVELS = [("Require bitbucket-workspace acme", MEMBERS), ("Require bitbucket-workspace initechlabs", {"gwen", "mark"}),
          ("Require bitbucket-user %s %s" % (uuid_of("mark"), uuid_of("carla")), {"mark", "carla"})]
WAYS = [(first, second) for first in ("Off", "And", "Or") for second in ("Off", "And", "Or")]


def nested_locations(first: str, second: str) -> str:
    name = f"/m/{first}/{second}"
    return "\n".join([f'<Location "{name}">', "AuthType Bitbucket", LEVELS[0][0], "</Location>",
                      f'<Location "{name}/in">', f"AuthMerging {first}", LEVELS[1][0], "</Location>",
                      f'<Location "{name}/in/deep">', f"AuthMerging {second}", LEVELS[2][0], "</Location>"])


@pytest.mark.parametrize("where", ["locations", "htaccess"])
def test_auth_merging_over_three_levels(start_server, new_browser, where):
    places = [nested_locations(*way) for way in WAYS] if where == "locations" else []
    host = VirtualHost("\n".join([place("start", "Require valid-user"), *places,
                                  *(['AliasMatch "^/m/.*/(page\\.html)$" "${CONTENT}/$1"'] if places else [])]))
    server = start_server.prepare(host)
    for first, second in WAYS if where == "htaccess" else []:
        top = server.content / "m" / first / second
        copy_pages(server, f"m/{first}/{second}/page.html", f"m/{first}/{second}/in/page.html", f"m/{first}/{second}/in/deep/page.html")
        (top / ".htaccess").write_text(f"AuthType Bitbucket\n{LEVELS[0][0]}\n")
        (top / "in/.htaccess").write_text(f"AuthMerging {first}\n{LEVELS[1][0]}\n")
        (top / "in/deep/.htaccess").write_text(f"AuthMerging {second}\n{LEVELS[2][0]}\n")
    server.start()
    asked = [("GET", f"/m/{first}/{second}/{way}page.html", sets_of(LEVELS[:depth], [first, second], where))
             for first, second in WAYS for depth, way in ((1, ""), (2, "in/"), (3, "in/deep/"))]
    wrong = wrong_answers(new_browser(), host, None, asked)
    for person in PEOPLE:
        browser = new_browser()
        browser.sign_in(host.url("/start/page.html"), person)
        wrong += wrong_answers(browser, host, person, asked)
    assert not wrong, "\n".join(wrong)


# -- virtual hosts

class OnSamePort(VirtualHost):
    """A virtual host told by its name, on a port at which another listens."""

    def text(self) -> str:
        return super().text().partition("\n")[2]


def test_rules_from_the_main_server_down(start_server, new_browser):
    """What stands outside holds in each virtual host; what one says of its own replaces or narrows it."""
    def below(*lines: str) -> str:
        return "\n".join(within('Directory "${CONTENT}/here"', *lines))

    hosts = {"": MEMBERS, below("Require bitbucket-workspace globex"): {"gwen", "oscar"},
             below("AuthMerging And", "Require bitbucket-workspace initechlabs"): {"mark"},
             below("AuthMerging Or", "Require bitbucket-workspace globex:owner"): MEMBERS | {"gwen"}}
    made = [VirtualHost(text) for text in hosts]
    server = start_server.prepare(*made, main=below("AuthType Bitbucket", "Require bitbucket-workspace acme"))
    copy_pages(server, "here/page.html")
    server.start()
    for host, allowed in zip(made, hosts.values()):
        for person in PEOPLE:
            answer = new_browser().sign_in(host.url("/here/page.html"), person)
            assert answer.status == (200 if person in allowed else 403), (host.directives, person)


@pytest.fixture
def two_names(start_server):
    """Two sites with two OAuth clients at one address, told by the Host header."""
    one = VirtualHost(place("any", "Require bitbucket-workspace acme"))
    other = OnSamePort(place("any", "Require bitbucket-workspace globex"), name="127.0.0.1", port=one.port)
    start_server(one, other)
    return one, other


def test_two_sites_at_one_address(two_names, new_browser, simulator):
    one, other = two_names
    browser = new_browser()
    for host in two_names:
        asked = browser.get(host.url("/any/page.html")).location_query
        assert (asked["client_id"], asked["redirect_uri"]) == (host.client_id, host.callback_url)
    for host, person in ((one, "mark"), (other, "oscar")):
        browser = new_browser()
        simulator.forget_calls()
        assert browser.sign_in(host.url("/any/page.html"), person).status == 200
        assert sum(name.startswith("permission") for name in simulator.asked()) == 1, "of the other's nothing is asked"


def test_a_session_is_not_good_under_the_other_name(two_names, browser):
    one, other = two_names
    browser.sign_in(one.url("/any/page.html"), "mark")
    cookie = {**SCRIPT, "Cookie": browser.jar.line("localhost", False)}
    assert browser.get(one.url("/any/page.html"), cookie).status == 200
    assert browser.get(other.url("/any/page.html"), cookie).status == 401
    # Nor does a Host header of the visitor's choice lead to another answer than that site's own.
    mixed = browser.get(one.url("/any/page.html"), {**cookie, "Host": f"127.0.0.1:{one.port}"})
    assert mixed.status == 401


def test_a_callback_under_the_other_name(two_names, browser, simulator):
    one, other = two_names
    callback = browser.walk_to_callback(one.url("/any/page.html"), "mark")
    cookies = {**NAVIGATION, "Cookie": browser.jar.line("localhost", False)}
    answer = browser.get(callback.replace(one.origin, other.origin), cookies)
    assert answer.session_cookie is None and simulator.asked() == []


# -- .htaccess

REPOSITORY = "acme/{%s}" % repository_uuid("acme", "site")
HTACCESS = {
    # name: lines, and who gets in
    "workspace": (["Require bitbucket-workspace acme:create-project"], {"olivia", "priya"}),
    "repository": (["Require bitbucket-repository %s:write" % REPOSITORY], MEMBERS),
    "user": (["Require bitbucket-user {%s}" % uuid_of("carla")], {"carla"}),
    "email": (["Require bitbucket-email @globex.example"], {"gwen", "oscar"}),
    "valid-user": (["Require valid-user"], set(PEOPLE)),
    "all": (within("RequireAll", "Require bitbucket-workspace acme", "Require not bitbucket-workspace acme:owner"), {"priya", "mark"}),
    "none": (within("RequireAll", "Require valid-user", *within("RequireNone", "Require bitbucket-workspace acme")),
             {"carla", "oscar", "gwen"}),
    "expression": (["Require bitbucket-workspace %{tolower:ACME}"], MEMBERS),
    "limit": (within("Limit GET", "Require bitbucket-workspace acme"), MEMBERS),
    "if": (["Require all denied", *within('If "true"', "Require bitbucket-workspace acme")], MEMBERS),
    "files": (["Require all denied", *within('Files "page.html"', "Require bitbucket-workspace acme")], MEMBERS),
    "settings": (["AuthBitbucketRemoteUser uuid", "AuthBitbucketUnauthenticated 401", "AuthBitbucketPrivate Off",
                  "Require user " + uuid_of("mark")], {"mark"}),
}


def with_override(server: Server, override: str) -> None:
    text = server.config_file.read_text()
    server.config_file.write_text(re.sub("AllowOverride .*", "AllowOverride " + override, text))


def write_htaccess(server: Server, name: str, lines: list[str]) -> None:
    copy_pages(server, f"{name}/page.html")
    (server.content / name / ".htaccess").write_text("\n".join(lines) + "\n")


def test_rules_in_htaccess(start_server, new_browser):
    """AllowOverride AuthConfig is enough."""
    host = VirtualHost(place("start", "Require valid-user"))
    server = start_server.prepare(host)
    with_override(server, "AuthConfig")
    for name, (lines, _) in HTACCESS.items():
        write_htaccess(server, name, ["AuthType Bitbucket", *lines])
    server.start()
    asked = [("GET", f"/{name}/page.html", allowed) for name, (_, allowed) in HTACCESS.items()]
    wrong = wrong_answers(new_browser(), host, None, asked)
    for person in PEOPLE:
        browser = new_browser()
        browser.sign_in(host.url("/start/page.html"), person)
        wrong += wrong_answers(browser, host, person, asked)
    assert not wrong, "\n".join(wrong)


def directives(context: str) -> list[str]:
    """Names of the module's directives that the table of commands allows in this context."""
    text = (TOP / "src" / "config_directives.c").read_text()
    return re.findall(rf'AP_INIT_\w+\("(\w+)", \w+, NULL, {context},', text)


def test_settings_of_the_server_stand_in_no_htaccess(start_server, new_browser, logs):
    """Each is refused with a message that names it, and shows nothing of its value."""
    names = directives("RSRC_CONF")
    assert {"AuthBitbucketClientSecret", "AuthBitbucketSessionKey", "AuthBitbucketSessionCache"} < set(names)
    host = VirtualHost(place("start", "Require valid-user"))
    server = start_server.prepare(host)
    with_override(server, "All")
    for name in names:
        logs.remember(f"value-of-{name}-that-nobody-may-see")
        write_htaccess(server, name, ["AuthType Bitbucket", "Require valid-user", f"{name} value-of-{name}-that-nobody-may-see"])
    server.start()
    browser = new_browser()
    browser.sign_in(host.url("/start/page.html"), "mark")
    for name in names:
        answer = browser.get(host.url(f"/{name}/page.html"))
        assert answer.status == 500 and "test page" not in answer.text and "value-of" not in answer.text, name
    log = server.error_log.read_text()
    assert all(f"{name} not allowed here" in log for name in names)


def test_settings_of_places_need_allow_override(start_server, new_browser):
    names = directives("OR_AUTHCFG")
    assert {"AuthBitbucketRemoteUser", "AuthBitbucketUnauthenticated", "AuthBitbucketPrivate"} <= set(names)
    host = VirtualHost(place("start", "Require valid-user"))
    server = start_server.prepare(host)
    with_override(server, "FileInfo Indexes Limit Options")
    for name in names:
        write_htaccess(server, name, [f"{name} uuid"])
    server.start()
    for name in names:
        assert new_browser().get(host.url(f"/{name}/page.html")).status == 500, name
    log = server.error_log.read_text()
    assert all(f"{name} not allowed here" in log for name in names)


@pytest.mark.parametrize("line", [
    "Require bitbucket-workspace", "Require bitbucket-workspace acme:king", "Require bitbucket-repository acme", "Require bitbucket-user {1}",
    "Require bitbucket-email example.com", "Require bitbucket-workspace %{nonsense", "Require not bitbucket-workspace acme",
    "Require bitbucket-group acme", "AuthBitbucketUnauthenticated sometimes", "AuthBitbucketPrivate maybe",
])
def test_mistakes_in_htaccess_let_nobody_in(sections_with_mistakes, log_watch, browser, line):
    """httpd refuses the directory as a whole, and the log names the file and the directive."""
    host, server = sections_with_mistakes
    before = server.error_log.stat().st_size
    write_htaccess(server, "mistake", ["AuthType Bitbucket", "Require valid-user", line])
    browser.sign_in(host.url("/start/page.html"), "mark")
    for headers in (NAVIGATION, SCRIPT):
        answer = browser.get(host.url("/mistake/page.html"), headers)
        assert answer.status == 500 and "test page" not in answer.text
    said = [entry for entry in server.error_log.read_bytes()[before:].decode().splitlines() if "/mistake/.htaccess: " in entry]
    assert len(said) == 2 and all(any(word in entry for word in line.split()[:2]) for entry in said), said


@pytest.fixture(scope="module")
def sections_with_mistakes(shared_simulator):
    host = VirtualHost(place("start", "Require valid-user"))
    with lasting(Server([host], shared_simulator, wanted_mpms()[0])) as server:
        yield host, server


def test_an_htaccess_for_a_site_without_a_client(start_server, browser, logs):
    """It is read too late for httpd -t; nobody gets in, and the log says what to write."""
    logs.expect(tags.ANSWERED, "AuthBitbucketClientID")
    host, other = VirtualHost(place("start", "Require valid-user")), VirtualHost(configured=False)
    server = start_server.prepare(host, other)
    write_htaccess(server, "dir", ["AuthType Bitbucket", "Require bitbucket-workspace acme"])
    server.start()
    answer = browser.get(other.url("/dir/page.html"))
    assert answer.status == 500 and answer.reference and "test page" not in answer.text
