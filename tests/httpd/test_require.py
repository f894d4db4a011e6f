"""Require lines: who gets in where."""

from __future__ import annotations

import pytest

from harness import tags
from harness.client import SCRIPT
from harness.config import VirtualHost, place
from harness.simulator import account, permission_route, repository_uuid, uuid_of, workspace_uuid

PEOPLE = ("olivia", "priya", "mark", "carla", "oscar", "gwen")
ALL = frozenset(PEOPLE)
# In acme: olivia owns, priya creates projects, mark is a member, carla shares a repository.
# In globex: gwen owns, oscar is a member. In InitechLabs: gwen owns, mark is a member.
READERS = {"olivia", "priya", "mark", "carla"}
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
    # In acme/site: priya administers, mark writes, carla reads. acme/handbook is public.
    # Who owns a workspace administers its repositories.
    "repository": (["Require bitbucket-repository acme/site"], READERS),
    "repository read": (["Require bitbucket-repository acme/site:read"], READERS),
    "repository write": (["Require bitbucket-repository acme/site:write"], {"olivia", "priya", "mark"}),
    "repository admin": (["Require bitbucket-repository acme/site:admin"], {"olivia", "priya"}),
    "repository by uuid": (["Require bitbucket-repository acme/{%s}:write" % repository_uuid("acme", "site")],
                           {"olivia", "priya", "mark"}),
    "repository by uuids": (["Require bitbucket-repository {%s}/{%s}" % (workspace_uuid("acme"),
                                                                        repository_uuid("acme", "site"))],
                            READERS),
    "public repository": (["Require bitbucket-repository acme/handbook"], {"olivia"}),
    "repository of another workspace": (["Require bitbucket-repository globex/site"], set()),
    "unknown repository": (["Require bitbucket-repository acme/nothing"], set()),
    "several repositories": (["Require bitbucket-repository acme/vault acme/site:admin globex/reactor"],
                             {"olivia", "priya", "oscar", "gwen"}),
    "repository and workspace": (within("RequireAll", "Require bitbucket-workspace acme",
                                        "Require bitbucket-repository acme/site"), {"olivia", "priya", "mark"}),
    "no writer": (within("RequireAll", "Require valid-user", "Require not bitbucket-repository acme/site:write"),
                  {"carla", "oscar", "gwen"}),
    "no reader": (within("RequireAll", "Require valid-user", *within(
        "RequireNone", "Require bitbucket-repository acme/site:write", "Require bitbucket-workspace globex:owner")),
        {"carla", "oscar"}),
    "address": (["Require bitbucket-email mark@acme.example"], {"mark"}),
    "address in capitals": (["Require bitbucket-email Mark@ACME.example"], {"mark"}),
    "second address": (["Require bitbucket-email olivia.owens@home.example"], {"olivia"}),
    "domain": (["Require bitbucket-email @acme.example"], MEMBERS),
    "several domains": (["Require bitbucket-email @freelance.example @home.example"], {"carla", "olivia"}),
    "domain above": (["Require bitbucket-email @example"], set()),
    "part of a domain": (["Require bitbucket-email @me.example"], set()),
    "not this domain": (within("RequireAll", "Require valid-user", "Require not bitbucket-email @acme.example"),
                        {"carla", "oscar", "gwen"}),
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


@pytest.mark.parametrize("person, status", [("una", 403), ("pat", 200), ("noah", 200)])
def test_addresses_of_every_page_count_when_they_are_confirmed(start_server, browser, person, status):
    host = VirtualHost(place("here", "AuthBitbucketRemoteUser uuid", "Require bitbucket-email @acme.example"))
    start_server(host)
    assert browser.sign_in(host.url("/here/page.html"), person).status == status


def test_a_repository_rule_without_its_scope_is_the_operators_matter(start_server, browser, logs):
    logs.expect(tags.ANSWERED, "lacks the scope 'account repository'")
    logs.expect(tags.LESS_THAN_ASKED, "repository")
    logs.expect(tags.SCOPE_MISSING, "repository")
    host = VirtualHost(place("here", "Require bitbucket-repository acme/site"), scopes=("account", "email"))
    start_server(host)
    answer = browser.sign_in(host.url("/here/page.html"), "mark")
    assert answer.status == 500 and answer.reference


# -- expressions

EXPRESSIONS = "\n".join([
    '<LocationMatch "^/team/(?<TEAM>[^/]*)">', "AuthType Bitbucket",
    "Require bitbucket-workspace %{env:MATCH_TEAM}", "</LocationMatch>",
    '<LocationMatch "^/not/(?<TEAM>[^/]*)">', "AuthType Bitbucket", *within(
        "RequireAll", "Require valid-user", "Require not bitbucket-workspace %{env:MATCH_TEAM}"), "</LocationMatch>",
    '<LocationMatch "^/none/(?<TEAM>[^/]*)">', "AuthType Bitbucket", *within(
        "RequireAll", "Require valid-user", *within("RequireNone", "Require bitbucket-workspace %{env:MATCH_TEAM}")),
    "</LocationMatch>",
    '<LocationMatch "^/any/(?<TEAM>[^/]*)">', "AuthType Bitbucket",
    "Require bitbucket-workspace %{env:MATCH_TEAM}", "Require bitbucket-workspace initechlabs", "</LocationMatch>",
    '<LocationMatch "^/owners/(?<TEAM>[^/]*)">', "AuthType Bitbucket",
    "Require bitbucket-workspace %{env:MATCH_TEAM}:owner", "</LocationMatch>",
    '<LocationMatch "^/repository/(?<NAME>[^/]*)">', "AuthType Bitbucket",
    "Require bitbucket-repository acme/%{env:MATCH_NAME}:write", "</LocationMatch>",
    '<LocationMatch "^/person/(?<NAME>[^/]*)">', "AuthType Bitbucket",
    "Require bitbucket-user %{env:MATCH_NAME}", "</LocationMatch>",
    '<LocationMatch "^/mail/(?<NAME>[^/]*)">', "AuthType Bitbucket",
    "Require bitbucket-email @%{env:MATCH_NAME}", "</LocationMatch>",
    '<LocationMatch "^/own/">', "AuthType Bitbucket", "Require bitbucket-user %{tolower:%{REMOTE_USER}}",
    "</LocationMatch>",
    'AliasMatch "^/(team|not|none|any|owners|repository|person|mail|own)/[^/]*/(.*)$" "${CONTENT}/$2"',
    place("start", "Require valid-user"),
    place("void", "Require bitbucket-workspace %{env:NO_SUCH}"),
    place("void-not", *within("RequireAll", "Require valid-user", "Require not bitbucket-workspace %{env:NO_SUCH}")),
    place("void-none", *within("RequireAll", "Require valid-user", *within(
        "RequireNone", "Require bitbucket-user %{env:NO_SUCH}"))),
    place("void-any", "Require bitbucket-email %{env:NO_SUCH}", "Require bitbucket-workspace acme"),
    place("void-beside", "Require bitbucket-workspace acme %{env:NO_SUCH}"),
])

EXPRESSED = {
    # path: who gets in; mark is a member of acme and initechlabs and writes on acme/site
    "/team/acme/page.html": 200,
    "/team/ACME/page.html": 200,
    "/team/globex/page.html": 403,
    "/team/nowhere/page.html": 403,
    "/owners/acme/page.html": 403,
    "/not/acme/page.html": 403,
    "/not/globex/page.html": 200,
    "/none/acme/page.html": 403,
    "/none/globex/page.html": 200,
    "/any/globex/page.html": 200,
    "/repository/site/page.html": 200,
    "/repository/handbook/page.html": 403,
    "/person/mark_miller/page.html": 200,
    "/person/mark/page.html": 403,
    "/mail/acme.example/page.html": 200,
    "/mail/globex.example/page.html": 403,
    "/own/x/page.html": 200,
    # What comes to nothing, or to no name, lets nobody in, also under not.
    "/void/page.html": 403,
    "/void-not/page.html": 403,
    "/void-none/page.html": 403,
    "/void-any/page.html": 200,
    "/void-beside/page.html": 403,
    "/not/a%20b/page.html": 403,
    "/none/a%22b/page.html": 403,
    "/not/acme:emperor/page.html": 403,
    # One argument stays one argument.
    "/team/globex%20acme/page.html": 403,
    "/team/globex%22%20%22acme/page.html": 403,
    "/team/globex%09acme/page.html": 403,
    "/team/acme:collaborator%20x/page.html": 403,
    "/team/..%2fuser/page.html": 404,
    "/team/%25%7benv:PATH%7d/page.html": 403,
    "/mail/acme.example%20@x/page.html": 403,
    "/person/mark_miller%20x/page.html": 403,
}


def test_lines_of_an_alias_may_stand_under_not(start_server, browser):
    """httpd reads them once, wherever they are used."""
    host = VirtualHost("\n".join([
        place("start", "Require valid-user"),
        place("void-not", *within("RequireAll", "Require valid-user", "Require not nowhere")),
        place("void", *within("RequireAny", "Require nowhere", "Require valid-user")),
        place("in", "Require there"), place("out", *within("RequireAll", "Require valid-user", "Require not there"))]))
    start_server(host, main='<AuthzProviderAlias bitbucket-workspace nowhere "%{env:NO_SUCH}">\n</AuthzProviderAlias>\n'
                            "<AuthzProviderAlias bitbucket-workspace there acme>\n</AuthzProviderAlias>\n")
    browser.sign_in(host.url("/start/page.html"), "mark")
    statuses = {name: browser.get(host.url(f"/{name}/page.html"), SCRIPT).status for name in ("void-not", "void", "in", "out")}
    assert statuses == {"void-not": 403, "void": 403, "in": 200, "out": 403}


def test_arguments_may_be_expressions(start_server, browser):
    host = VirtualHost(EXPRESSIONS)
    start_server(host)
    assert browser.sign_in(host.url("/start/page.html"), "mark").status == 200
    answers = {path: browser.get(host.url(path)).status for path in EXPRESSED}
    assert answers == EXPRESSED


def test_signing_in_where_the_rule_is_an_expression(start_server, browser, simulator):
    """What the address names is asked about at the sign-in, in the same round."""
    host = VirtualHost(EXPRESSIONS)
    start_server(host)
    assert browser.sign_in(host.url("/team/acme/page.html"), "mark").status == 200
    assert simulator.asked().count("permission acme") == 1


@pytest.mark.one_mpm
@pytest.mark.parametrize("line, quoted", [
    ("Require bitbucket-repository acme", "'acme'"), ("Require bitbucket-repository acme/site:owner", "'owner'"),
    ("Require bitbucket-repository", "names no repository"), ("Require bitbucket-email", "names no address"),
    ("Require bitbucket-email example.com", "'example.com'"), ("Require bitbucket-email a@b@c", "'a@b@c'"),
    ("Require bitbucket-workspace %{nonsense", "'%{nonsense'"),
    ("Require bitbucket-user %{no_such_function:x}", "'%{no_such_function:x}'"),
])
def test_malformed_lines_stop_the_start(start_server, line, quoted):
    host = VirtualHost(place("here", line))
    checked = start_server.prepare(host).run("-t")
    assert checked.returncode != 0 and quoted in checked.stdout, checked.stdout


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


def test_a_reused_slug_lets_nobody_in(start_server, clock, new_browser, simulator, logs):
    """A slug is held to the workspace that it was when it first let somebody in."""
    logs.expect(tags.ANOTHER_WORKSPACE)
    host = VirtualHost(place("here", "Require bitbucket-workspace acme") + "\n"
                       + place("site", "Require bitbucket-repository acme/site"))
    start_server(host, clock=clock)
    mark, olivia = new_browser(), new_browser()
    assert mark.sign_in(host.url("/here/page.html"), "mark").status == 200
    simulator.control("POST", "workspaces/acme", {"uuid": "{00000000-1111-2222-3333-444444444444}"})
    assert olivia.sign_in(host.url("/here/page.html"), "olivia").status == 403
    clock.advance(3605)
    assert mark.get(host.url("/here/page.html")).status == 403
    assert mark.get(host.url("/site/page.html")).status == 200, "the repository is the same"
    simulator.control("POST", "workspaces/acme", {"uuid": "{%s}" % workspace_uuid("acme")})
    clock.advance(16)
    assert mark.get(host.url("/here/page.html")).status == 200


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


# -- scopes

REPOSITORY_RULE = place("here", "Require bitbucket-repository acme/site")


@pytest.mark.parametrize("directives, named", [
    ("AuthBitbucketScope email\n" + place("any", "Require valid-user"), "'account', which every sign-in needs"),
    ("AuthBitbucketScope account email\n" + REPOSITORY_RULE, "'repository', which Require bitbucket-repository ("),
    ("AuthBitbucketScope account repository\n" + place("a", "Require bitbucket-email @acme.example"), "'email', which Require bitbucket-email"),
    ("AuthBitbucketScope account\n" + place("a", "AuthBitbucketRemoteUser email", "Require valid-user"), "'email', which AuthBitbucketRemoteUser email"),
    ("AuthBitbucketScope account\n" + place("a", "<RequireAll>", "Require not bitbucket-email %{env:X}", "Require valid-user", "</RequireAll>"),
     "'email', which Require bitbucket-email"),
    ("AuthBitbucketScope account email repository:write\n" + REPOSITORY_RULE, None),
    ("AuthBitbucketScope account\n" + place("a", "AuthBitbucketRemoteUser uuid", "Require valid-user"), None),
])
def test_a_scope_that_is_left_out_stops_the_start(start_server, directives, named):
    server = start_server.prepare(VirtualHost(directives))
    done = server.run("-t")
    assert (done.returncode != 0) == (named is not None), done.stdout
    if named:
        assert "AuthBitbucketScope" in done.stdout and named in done.stdout
    if named and "(" in named:
        assert f"({server.config_file}:" in done.stdout


def test_what_was_not_granted_is_told_once(start_server, new_browser, logs):
    """Places that do not need the scope go on; the operator hears of it at the first sign-in."""
    logs.expect(tags.SCOPE_MISSING, "'repository', which Require bitbucket-repository (")
    logs.expect(tags.LESS_THAN_ASKED, "repository")
    logs.expect(tags.ANSWERED, "repository")
    host = VirtualHost(place("any", "Require valid-user") + "\n" + REPOSITORY_RULE, scopes=("account", "email"))
    start_server(host)
    for person in ("mark", "olivia"):
        browser = new_browser()
        assert browser.sign_in(host.url("/any/page.html"), person).status == 200
        page = browser.get(host.url("/here/page.html"))
        assert page.status == 500 and "What is missing" in page.text and "repository" in page.text
    line, = logs.lines(tags.SCOPE_MISSING)
    assert line.level == "error" and "tick 'Repositories: Read'" in line.text


def test_all_that_was_not_granted_stands_in_one_line(start_server, browser, logs):
    """The line comes once an hour; whoever ticks only what the first one names would wait for the next."""
    logs.expect(tags.SCOPE_MISSING)
    logs.expect(tags.LESS_THAN_ASKED)
    host = VirtualHost("\n".join([place("any", "Require valid-user"), place("mail", "Require bitbucket-email @acme.example"),
                                  REPOSITORY_RULE]), scopes=("account",))
    start_server(host)
    assert browser.sign_in(host.url("/any/page.html"), "mark").status == 200
    line, = logs.lines(tags.SCOPE_MISSING)
    assert "'email', which Require bitbucket-email (" in line.text
    assert ", nor 'repository', which Require bitbucket-repository (" in line.text
    assert "tick 'Account: Email' and 'Repositories: Read' in" in line.text
