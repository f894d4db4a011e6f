"""Require lines: who gets in where."""

from __future__ import annotations

import pytest

from harness import tags
from harness.client import SCRIPT
from harness.config import VirtualHost, place
from harness.simulator import account, permission_route, uuid_of, workspace_uuid

PEOPLE = ("olivia", "priya", "mark", "carla", "oscar", "gwen")
ALL = frozenset(PEOPLE)
# In acme: olivia owns, priya creates projects, mark is a member, carla shares a repository.
# In globex: gwen owns, oscar is a member. In InitechLabs: gwen owns, mark is a member.
MEMBERS, INITECH = {"olivia", "priya", "mark"}, {"gwen", "mark"}


def within(section: str, *lines: str) -> list[str]:
    return [f"<{section}>", *lines, f"</{section}>"]


RULES: dict[str, tuple[list[str], set[str] | frozenset[str]]] = {
    "valid-user": (["Require valid-user"], ALL),
    "slug": (["Require bitbucket-workspace acme"], MEMBERS),
    "slug in capitals": (["Require bitbucket-workspace ACME"], MEMBERS),
    "capitals at Bitbucket": (["Require bitbucket-workspace initechlabs"], INITECH),
    "as Bitbucket writes it": (["Require bitbucket-workspace InitechLabs"], INITECH),
    "uuid": (["Require bitbucket-workspace {%s}" % workspace_uuid("acme")], MEMBERS),
    "uuid without braces": (["Require bitbucket-workspace " + workspace_uuid("acme")], MEMBERS),
    "uuid in capitals": (["Require bitbucket-workspace {%s}" % workspace_uuid("acme").upper()], MEMBERS),
    "uuid with role": (["Require bitbucket-workspace {%s}:owner" % workspace_uuid("acme")], {"olivia"}),
    "owner": (["Require bitbucket-workspace acme:owner"], {"olivia"}),
    "create-project": (["Require bitbucket-workspace acme:create-project"], {"olivia", "priya"}),
    "member": (["Require bitbucket-workspace acme:member"], MEMBERS),
    "collaborator": (["Require bitbucket-workspace acme:collaborator"], MEMBERS | {"carla"}),
    "several": (["Require bitbucket-workspace acme:owner globex"], {"olivia", "oscar", "gwen"}),
    "several lines": (["Require bitbucket-workspace acme:owner", "Require bitbucket-workspace globex:owner"],
                      {"olivia", "gwen"}),
    "quoted": (['Require bitbucket-workspace "acme:owner" "globex"'], {"olivia", "oscar", "gwen"}),
    "unknown workspace": (["Require bitbucket-workspace no-such-workspace"], set()),
    "part of a name": (["Require bitbucket-workspace acm"], set()),
    "user uuid": (["Require bitbucket-user {%s}" % uuid_of("carla")], {"carla"}),
    "user uuid without braces": (["Require bitbucket-user " + uuid_of("carla")], {"carla"}),
    "user uuid in capitals": (["Require bitbucket-user " + uuid_of("carla").upper()], {"carla"}),
    "user account_id": (["Require bitbucket-user " + account("carla")["account_id"]], {"carla"}),
    "user account_id of digits": (["Require bitbucket-user " + account("oscar")["account_id"]], {"oscar"}),
    "user username": (["Require bitbucket-user " + account("mark")["username"]], {"mark"}),
    "user nickname": (["Require bitbucket-user mark"], set()),      # oscar calls himself mark too
    "user several": (["Require bitbucket-user {%s} %s" % (uuid_of("gwen"), account("mark")["username"])],
                     {"gwen", "mark"}),
    "httpd's user": (["Require user " + account("mark")["username"]], {"mark"}),
    "httpd's expr": (["Require expr %{REMOTE_USER} == '" + account("gwen")["username"] + "'"], {"gwen"}),
    "any": (within("RequireAny", "Require bitbucket-workspace acme:owner", "Require bitbucket-workspace globex"),
            {"olivia", "oscar", "gwen"}),
    "all": (within("RequireAll", "Require bitbucket-workspace acme", "Require bitbucket-workspace initechlabs"),
            {"mark"}),
    "not": (within("RequireAll", "Require valid-user", "Require not bitbucket-workspace acme"),
            {"carla", "oscar", "gwen"}),
    "not the owner": (within("RequireAll", "Require bitbucket-workspace acme",
                             "Require not bitbucket-workspace acme:owner"), {"priya", "mark"}),
    "not this user": (within("RequireAll", "Require valid-user",
                             "Require not bitbucket-user {%s}" % uuid_of("mark")), ALL - {"mark"}),
    "none": (within("RequireAll", "Require valid-user", *within(
        "RequireNone", "Require bitbucket-workspace acme:owner", "Require bitbucket-workspace globex")),
        {"priya", "mark", "carla"}),
    "nested": (within("RequireAny", "Require bitbucket-user {%s}" % uuid_of("carla"), *within(
        "RequireAll", "Require bitbucket-workspace acme", "Require not bitbucket-workspace acme:create-project")),
        {"carla", "mark"}),
    "address and workspace": (within("RequireAll", "Require ip 127.0.0.1", "Require bitbucket-workspace acme"), MEMBERS),
    "wrong address": (within("RequireAll", "Require ip 192.0.2.1", "Require bitbucket-workspace acme"), set()),
    "denied": (["Require all denied"], set()),
}


def path_of(rule: str) -> str:
    return "/" + "".join(c if c.isalnum() else "-" for c in rule)


def test_matrix(start_server, new_browser):
    """Every person at every rule: one sign-in each, the place decides."""
    host = VirtualHost("\n".join([place(path_of(rule)[1:], *lines) for rule, (lines, _) in RULES.items()]
                                 + [place("start", "Require valid-user")]))
    start_server(host)
    wrong = []
    for person in PEOPLE:
        browser = new_browser()
        assert browser.sign_in(host.url("/start/page.html"), person).status == 200
        for rule, (_, allowed) in RULES.items():
            answer = browser.get(host.url(path_of(rule) + "/page.html"))
            if answer.status != (200 if person in allowed else 403):
                wrong.append(f"{person} at {rule}: {answer!r}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("rule", ["slug", "owner", "user uuid", "not", "none", "denied", "address and workspace"])
def test_signing_in_right_there(start_server, new_browser, rule):
    lines, allowed = RULES[rule]
    host = VirtualHost(place("here", *lines))
    start_server(host)
    for person in ("olivia", "oscar"):
        first = new_browser().get(host.url("/here/page.html"))
        if rule == "denied":
            assert first.status == 403      # httpd need not know who it is
        else:
            answer = new_browser().sign_in(host.url("/here/page.html"), person)
            assert answer.status == (200 if person in allowed else 403), answer


@pytest.mark.one_mpm
@pytest.mark.parametrize("setting, status", [("collaborator", 403), ("403", 403)])
def test_a_collaborator_is_no_member(site, browser, simulator, setting, status):
    simulator.settings(collaborator_answer=setting)
    assert browser.sign_in(site.plain.url("/team/page.html"), "carla").status == status


def test_a_reused_slug_of_another_workspace_gives_nothing(start_server, browser, simulator):
    """Rules by uuid do not follow a slug."""
    host = VirtualHost(place("here", "Require bitbucket-workspace {%s}" % workspace_uuid("acme")))
    start_server(host)
    simulator.control("POST", "workspaces/acme", {"uuid": "{00000000-1111-2222-3333-444444444444}"})
    assert browser.sign_in(host.url("/here/page.html"), "mark").status == 403


# -- .htaccess

HTACCESS = """AuthType Bitbucket
AuthName "From .htaccess"
Require bitbucket-workspace {workspace}
"""


@pytest.fixture
def htaccess_site(start_server):
    """A server with directories whose rules stand in .htaccess: /acme/ and /globex/."""
    host = VirtualHost("\n".join([place("any", "Require valid-user"), place("named", "Require bitbucket-workspace initechlabs")]))
    server = start_server(host)
    for workspace in ("acme", "globex"):
        directory = server.content / workspace
        directory.mkdir()
        (directory / "page.html").write_text("The test page")
        (directory / ".htaccess").write_text(HTACCESS.format(workspace=workspace))
    return host, server


def test_a_workspace_named_only_in_htaccess(htaccess_site, browser, simulator):
    """It is asked about at the first need, then no more."""
    host, _ = htaccess_site
    browser.sign_in(host.url("/any/page.html"), "mark")
    assert "permission acme" not in simulator.asked()
    simulator.forget_calls()
    assert browser.get(host.url("/acme/page.html")).status == 200
    assert simulator.asked() == ["permission acme"]
    assert browser.get(host.url("/acme/page.html")).status == 200
    assert simulator.asked() == ["permission acme"]
    assert browser.get(host.url("/globex/page.html")).status == 403
    assert simulator.asked() == ["permission acme", "permission globex"]


def test_signing_in_at_a_directory_with_htaccess(htaccess_site, browser, simulator):
    host, _ = htaccess_site
    assert browser.sign_in(host.url("/acme/page.html"), "mark").status == 200
    assert sorted(simulator.asked()) == ["emails", "permission acme", "permission initechlabs", "token", "user"]


# -- when Bitbucket cannot be asked

CANNOT_ASK = {
    "500": {"status": 500}, "502": {"status": 502}, "503": {"status": 503}, "429": {"status": 429},
    "closed": {"close": True}, "cut": {"cut": 10}, "HTML": {"status": 200, "body": "<html>maintenance</html>"},
    "empty": {"status": 200, "body": "", "content_type": "application/json"},
}


@pytest.mark.parametrize("fault", list(CANNOT_ASK))
def test_could_not_ask_is_503_never_403(htaccess_site, browser, simulator, logs, fault):
    host, _ = htaccess_site
    browser.sign_in(host.url("/any/page.html"), "mark")
    simulator.fault("permission", **CANNOT_ASK[fault])
    logs.expect(tags.ANSWERED)
    answer = browser.get(host.url("/acme/page.html"))
    assert answer.status == 503
    assert int(answer.header("Retry-After")) >= 1
    assert answer.reference
    assert "test page" not in answer.text
    simulator.clear_faults()
    assert browser.session_value(), "the session is kept"
    assert browser.get(host.url("/acme/page.html")).status in (200, 503)


NEGATED = {
    "not": within("RequireAll", "Require valid-user", "Require not bitbucket-workspace globex"),
    "none": within("RequireAll", "Require valid-user", *within("RequireNone", "Require bitbucket-workspace globex")),
    "not role": within("RequireAll", "Require valid-user", "Require not bitbucket-workspace globex:owner"),
    "all": within("RequireAll", "Require bitbucket-workspace globex", "Require valid-user"),
}


@pytest.mark.parametrize("rule", NEGATED)
@pytest.mark.parametrize("fault", ["500", "closed", "HTML"])
def test_an_error_never_lets_in(start_server, browser, simulator, logs, rule, fault):
    host = VirtualHost(place("any", "Require valid-user"))
    server = start_server(host)
    directory = server.content / "here"
    directory.mkdir()
    (directory / "page.html").write_text("The test page")
    (directory / ".htaccess").write_text("\n".join(["AuthType Bitbucket", *NEGATED[rule]]))
    browser.sign_in(host.url("/any/page.html"), "mark")
    simulator.fault("permission", **CANNOT_ASK[fault])
    logs.expect(tags.ANSWERED)
    answer = browser.get(host.url("/here/page.html"))
    assert answer.status == 503 and "test page" not in answer.text
    simulator.clear_faults()


@pytest.mark.one_mpm
@pytest.mark.parametrize("change, tag", [
    ({"merge": {"permission": "superuser"}}, tags.LESS_THAN_ASKED),
    ({"merge": {"permission": "OWNER"}}, tags.LESS_THAN_ASKED),
    ({"remove": ["permission"]}, tags.LESS_THAN_ASKED),
])
def test_an_unknown_role_denies(site, browser, simulator, logs, change, tag):
    logs.expect(tag)
    logs.allow(tags.ODD_ROLE)
    simulator.fault("permission", **change)
    assert browser.sign_in(site.plain.url("/team/page.html"), "olivia").status == 403


@pytest.mark.one_mpm
@pytest.mark.parametrize("change", [
    {"merge": {"workspace": {"slug": "other", "uuid": "{00000000-1111-2222-3333-444444444444}"}}},
    {"merge": {"user": {"uuid": "{00000000-1111-2222-3333-444444444444}"}}},
    {"merge": {"permission": 7}},
    {"merge": {"permission": ["owner"]}},
    {"remove": ["workspace"]},
    {"merge": {"workspace": {"uuid": 5}}},
])
def test_an_answer_about_something_else_is_none(site, browser, simulator, logs, change):
    logs.expect(tags.ANSWERED)
    simulator.fault("permission", **change)
    answer = browser.sign_in(site.plain.url("/team/page.html"), "olivia")
    assert (answer.status, browser.session_value()) == (503, None)


@pytest.mark.one_mpm
@pytest.mark.parametrize("status", [403, 404])
def test_a_definite_no(site, browser, simulator, status):
    simulator.fault(permission_route("acme"), status=status)
    assert browser.sign_in(site.plain.url("/team/page.html"), "mark").status == 403


GONE = {"type": "error", "error": {"message": "CHANGE-9999 - Functionality has been deprecated",
                                   "data": {"announcement_url": "https://developer.example/CHANGE-9999"}}}


@pytest.mark.parametrize("fault", [
    {"status": 410, "json": GONE},
    {"status": 404, "json": {"type": "error", "error": {"message": "There is no API hosted at this URL."}}},
])
def test_a_withdrawn_endpoint(start_server, new_browser, simulator, logs, fault):
    """The members' list answers instead; it proves plain membership and nothing above."""
    logs.expect(tags.CHANGED, "withdrawn")
    host = VirtualHost("\n".join([place("team", "Require bitbucket-workspace acme"),
                                  place("owners", "Require bitbucket-workspace acme:owner")]))
    start_server(host)
    simulator.fault("permission", **fault)
    for person, team in (("mark", 200), ("olivia", 200), ("oscar", 403), ("carla", 403)):
        browser = new_browser()
        assert browser.sign_in(host.url("/team/page.html"), person).status == team, person
        assert browser.get(host.url("/owners/page.html")).status == 403, person


# -- what else the rules do

@pytest.mark.one_mpm
def test_a_refused_script_gets_403_without_a_redirect(site, browser):
    browser.sign_in(site.plain.url("/any/page.html"), "oscar")
    answer = browser.get(site.plain.url("/team/page.html"), SCRIPT)
    assert (answer.status, answer.location) == (403, None)


@pytest.mark.parametrize("merging, allowed", [("And", {"mark"}), ("Off", {"mark", "gwen"})])
def test_auth_merging(start_server, new_browser, merging, allowed):
    """A place within a place, as httpd's AuthMerging says."""
    host = VirtualHost("\n".join([place("outer", "Require bitbucket-workspace acme"), '<Location "/outer/page.html">',
                                  f"AuthMerging {merging}", "Require bitbucket-workspace initechlabs", "</Location>"]))
    start_server(host)
    for person in ("olivia", "mark", "gwen", "oscar"):
        assert new_browser().sign_in(host.url("/outer/page.html"), person).status == (200 if person in allowed else 403), person


@pytest.mark.one_mpm
def test_a_new_sign_in_brings_new_rows(site, browser, simulator):
    """Somebody just removed is out at the next sign-in."""
    browser.sign_in(site.plain.url("/team/page.html"), "mark")
    simulator.set_membership("acme", "mark", None)
    assert browser.walk(browser.get(site.plain.endpoint("login") + "?return=/team/page.html"))[-1].status == 403


def test_other_places_are_left_alone(start_server, browser):
    host = VirtualHost("\n".join([place("any", "Require valid-user"),
                                  place("elsewhere", "Require all granted", auth=False)]))
    start_server(host)
    assert browser.get(host.url("/elsewhere/page.html")).status == 200
    assert browser.get(host.url("/any/page.html")).status == 302
