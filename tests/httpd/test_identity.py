"""What an application behind the module learns about the visitor."""

from __future__ import annotations

import pytest

from harness import tags
from harness.config import VirtualHost
from harness.simulator import account, uuid_of


def identity(environment: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in environment.items() if k.startswith("BITBUCKET_") or k in ("REMOTE_USER", "AUTH_TYPE")}


def expected(name: str, origin: str, **more: str) -> dict[str, str]:
    """The variables of one of the simulator's people whose name has two words. origin is
    that of the links in Bitbucket's answers."""
    first, last = account(name)["display_name"].split(" ", 1)
    return {"REMOTE_USER": account(name)["username"], "AUTH_TYPE": "Bitbucket", "BITBUCKET_UUID": uuid_of(name),
            "BITBUCKET_ACCOUNT_ID": account(name)["account_id"], "BITBUCKET_USERNAME": account(name)["username"],
            "BITBUCKET_NICKNAME": account(name)["nickname"],
            "BITBUCKET_DISPLAY_NAME": account(name)["display_name"], "BITBUCKET_FIRST_NAME": first,
            "BITBUCKET_LAST_NAME": last, "BITBUCKET_EMAIL": name + "@acme.example", "BITBUCKET_EMAIL_VERIFIED": "1",
            "BITBUCKET_AVATAR_URL": f"{origin}/account/%7B{uuid_of(name)}%7D/avatar/",
            "BITBUCKET_PROFILE_URL": f"{origin}/%7B{uuid_of(name)}%7D/", **more}


def test_every_variable(site, browser, simulator):
    avatar, profile = "https://bitbucket.example/a/mark.png", "https://bitbucket.example/mark/"
    simulator.change_account("mark", links={"avatar": {"href": avatar}, "html": {"href": profile}})
    seen = browser.sign_in(site.plain.url("/team/env.cgi"), "mark").environment
    assert identity(seen) == expected("mark", "", BITBUCKET_AVATAR_URL=avatar, BITBUCKET_PROFILE_URL=profile,
                                      BITBUCKET_WORKSPACES="acme:member")


@pytest.mark.one_mpm
def test_without_workspaces_there_is_no_such_variable(site, browser, simulator):
    seen = identity(browser.sign_in(site.quiet.url("/any/env.cgi"), "mark").environment)
    assert "BITBUCKET_WORKSPACES" not in seen
    assert seen == expected("mark", simulator.origin)


@pytest.mark.one_mpm
@pytest.mark.parametrize("links", [
    {"avatar": {"href": "javascript:alert(1)"}, "html": {"href": "ftp://x/"}},
    {"avatar": {"href": 5}, "html": {"href": None}},
    {"avatar": "https://x/", "html": {"href": ["https://x/"]}},
    {},
    "https://x/",
])
def test_links_that_are_none_are_absent(site, browser, simulator, links):
    simulator.change_account("mark", links=links)
    seen = identity(browser.sign_in(site.quiet.url("/any/env.cgi"), "mark").environment)
    assert "BITBUCKET_AVATAR_URL" not in seen and "BITBUCKET_PROFILE_URL" not in seen


@pytest.mark.one_mpm
def test_workspaces_with_roles(site, browser):
    seen = browser.sign_in(site.plain.url("/team/env.cgi"), "olivia").environment
    assert seen["BITBUCKET_WORKSPACES"] == "acme:owner"


@pytest.mark.one_mpm
@pytest.mark.parametrize("missing", [None, ""])
@pytest.mark.parametrize("field, variables", [
    ("account_id", ["BITBUCKET_ACCOUNT_ID"]),
    ("nickname", ["BITBUCKET_NICKNAME"]),
    ("display_name", ["BITBUCKET_DISPLAY_NAME", "BITBUCKET_FIRST_NAME", "BITBUCKET_LAST_NAME"]),
])
def test_absent_never_empty(site, browser, simulator, field, variables, missing):
    simulator.change_account("mark", **{field: missing})
    seen = identity(browser.sign_in(site.quiet.url("/any/env.cgi"), "mark").environment)
    assert seen == {k: v for k, v in expected("mark", simulator.origin).items() if k not in variables}


@pytest.mark.one_mpm
def test_names_of_one_word(site, browser, simulator):
    simulator.change_account("mark", display_name="Mononym")
    seen = browser.sign_in(site.quiet.url("/any/env.cgi"), "mark").environment
    assert seen["BITBUCKET_FIRST_NAME"] == "Mononym" and "BITBUCKET_LAST_NAME" not in seen


@pytest.mark.one_mpm
def test_control_characters_never_arrive(site, browser, simulator):
    simulator.change_account("mark", display_name="Mark\r\nX-Evil: 1\x01\x7f Miller")
    seen = browser.sign_in(site.quiet.url("/any/env.cgi"), "mark").environment
    assert all(c.isprintable() for c in seen["BITBUCKET_DISPLAY_NAME"])


@pytest.mark.one_mpm
def test_names_beyond_ascii_arrive_as_utf8(site, browser):
    seen = browser.sign_in(site.quiet.url("/any/env.cgi"), "zoe").environment
    assert seen["BITBUCKET_DISPLAY_NAME"] == account("zoe")["display_name"]
    assert seen["BITBUCKET_FIRST_NAME"] == "Zoë"
    assert seen["BITBUCKET_NICKNAME"] == "zoë"


@pytest.mark.one_mpm
def test_headers_of_the_request_are_no_identity(site, browser, simulator):
    answer = browser.sign_in(site.quiet.url("/any/page.html"), "mark")
    assert answer.status == 200
    headers = {"Accept": "text/html", "X-Bitbucket-Uuid": "evil", "Bitbucket-Username": "evil", "Remote-User": "evil"}
    seen = browser.get(site.quiet.url("/any/env.cgi"), headers).environment
    assert identity(seen) == expected("mark", simulator.origin)


@pytest.mark.one_mpm
def test_an_open_place_learns_nothing(site, browser):
    browser.sign_in(site.plain.url("/any/page.html"), "mark")
    assert identity(browser.get(site.plain.url("/open/env.cgi")).environment) == {}


# -- e-mail

@pytest.mark.one_mpm
@pytest.mark.parametrize("name, email", [
    ("mark", "mark@acme.example"),      # the primary one
    ("una", None),                      # not confirmed
    ("pat", "pat@acme.example"),        # the primary one, on a later page
])
def test_email(site, browser, name, email):
    seen = browser.sign_in(site.quiet.url("/any/env.cgi"), name).environment
    assert seen.get("BITBUCKET_EMAIL") == email
    assert seen.get("BITBUCKET_EMAIL_VERIFIED") == ("1" if email else None)


@pytest.mark.one_mpm
@pytest.mark.parametrize("emails, email", [
    ([("a@x.example", False, True), ("b@x.example", True, False), ("c@x.example", False, True)], "a@x.example"),
    ([("a@x.example", False, True), ("b@x.example", True, True)], "b@x.example"),
    ([], None),
    ([("a@x.example", "true", "true")], None),          # texts are no flags
    ([("a@x.example", 1, 1)], None),
    ([("two@at@x.example", True, True)], None),
    ([("no-at.example", True, True)], None),
    ([("línea@x.example", True, True)], None),
    ([("sp ace@x.example", True, True), ("b@x.example", False, True)], "b@x.example"),
])
def test_email_choice(site, browser, simulator, emails, email):
    entries = [{"type": "email", "email": e, "is_primary": p, "is_confirmed": c} for e, p, c in emails]
    simulator.fault("emails", json={"values": entries})
    seen = browser.sign_in(site.quiet.url("/any/env.cgi"), "mark").environment
    assert seen.get("BITBUCKET_EMAIL") == email


@pytest.mark.one_mpm
@pytest.mark.parametrize("paging", ["full", "bare"])
def test_all_pages_are_read(site, browser, simulator, paging):
    simulator.settings(paging=paging)
    many = [{"email": f"p{n}@x.example", "is_primary": False, "is_confirmed": False} for n in range(250)]
    many.append({"email": "last@x.example", "is_primary": True, "is_confirmed": True})
    simulator.change_account("pat", emails=many)
    seen = browser.sign_in(site.quiet.url("/any/env.cgi"), "pat").environment
    assert seen["BITBUCKET_EMAIL"] == "last@x.example"
    assert simulator.asked().count("emails") == 3


@pytest.mark.one_mpm
def test_without_the_email_scope(site, browser, simulator, logs):
    """Whoever needs no address gets in; the log says what is missing."""
    logs.expect(tags.LESS_THAN_ASKED, "email")
    simulator.change_consumer(site.quiet.client_id, scopes=["account"])
    seen = identity(browser.sign_in(site.quiet.url("/any/env.cgi"), "mark").environment)
    assert seen == {k: v for k, v in expected("mark", simulator.origin).items() if "EMAIL" not in k}


# -- AuthBitbucketRemoteUser

@pytest.mark.one_mpm
@pytest.mark.parametrize("place_name, value", [
    ("any", account("mark")["username"]),
    ("by-username", account("mark")["username"]),
    ("by-uuid", uuid_of("mark")),
    ("by-account-id", account("mark")["account_id"]),
    ("by-email", "mark@acme.example"),
    ("by-nickname", "mark"),
])
def test_remote_user(site, browser, place_name, value):
    seen = browser.sign_in(site.plain.url(f"/{place_name}/env.cgi"), "mark").environment
    assert seen["REMOTE_USER"] == value


@pytest.mark.one_mpm
@pytest.mark.parametrize("place_name, name, changes, word", [
    ("any", "noah", {}, "username"),
    ("by-email", "una", {}, "email"),
    ("by-nickname", "mark", {"nickname": None}, "nickname"),
    ("by-account-id", "mark", {"account_id": None}, "account_id"),
    ("by-username", "mark", {"username": ""}, "username"),
])
def test_a_missing_attribute_is_refused(site, browser, simulator, logs, place_name, name, changes, word):
    """Nothing falls back silently, and the log says why."""
    if changes:
        simulator.change_account(name, **changes)
    answer = browser.sign_in(site.plain.url(f"/{place_name}/page.html"), name)
    assert answer.status == 403
    assert "test page" not in answer.text
    line, = logs.lines(tags.ANSWERED)
    assert word in line.text and uuid_of(name) in line.text and "AuthBitbucketRemoteUser" in line.text
    assert answer.reference and answer.reference in line.text


@pytest.mark.one_mpm
def test_the_account_without_username_gets_in_by_uuid(site, browser):
    seen = browser.sign_in(site.plain.url("/by-uuid/env.cgi"), "noah").environment
    assert seen["REMOTE_USER"] == uuid_of("noah")
    assert "BITBUCKET_USERNAME" not in seen


@pytest.mark.one_mpm
def test_email_as_user_without_the_email_scope(site, browser, simulator, logs):
    logs.expect(tags.LESS_THAN_ASKED, "email")
    logs.allow(tags.SCOPE_MISSING)
    simulator.change_consumer(site.plain.client_id, scopes=["account"])
    assert browser.sign_in(site.plain.url("/by-email/page.html"), "mark").status == 403


# -- who may not be anybody

@pytest.mark.one_mpm
@pytest.mark.parametrize("name, changes", [
    ("robot", {}),                              # an app_user
    ("ines", {}),                               # inactive
    ("mark", {"account_status": "closed"}),
    ("mark", {"type": "team"}),
])
def test_accounts_that_are_no_active_person(site, browser, simulator, name, changes):
    if changes:
        simulator.change_account(name, **changes)
    answer = browser.sign_in(site.quiet.url("/any/page.html"), name)
    assert (answer.status, browser.session_value()) == (403, None)
    assert answer.reference


# -- others that look at the identity

def test_subrequests_know_who_it_is(site, browser):
    """mod_include, mod_dir and mod_rewrite make requests of their own."""
    answer = browser.sign_in(site.plain.url("/any/include.shtml"), "mark")
    assert f"user={account('mark')['username']} included=" in answer.text and "The test page" in answer.text
    assert "index page" in browser.get(site.plain.url("/any/")).text
    assert browser.get(site.plain.url("/any/env.cgi")).environment["SEEN_AHEAD"] == account("mark")["username"]


def test_subrequests_of_a_stranger(site, browser):
    """They never give a ticket, nor change the answer of the main request."""
    answer = browser.get(site.plain.url("/open/outside.shtml"))
    assert answer.status == 200 and "test page" not in answer.text
    assert answer.set_cookies == [] and answer.location is None
    looked_ahead = browser.get(site.plain.url("/any/env.cgi"))
    assert looked_ahead.status == 302 and len(looked_ahead.tickets) == 1
    index = browser.get(site.plain.url("/any/"))
    assert index.status == 302 and len(index.tickets) == 1


@pytest.mark.one_mpm
def test_an_include_of_a_protected_page_for_somebody_signed_in(site, browser):
    browser.sign_in(site.plain.url("/any/page.html"), "mark")
    assert "The test page" in browser.get(site.plain.url("/open/outside.shtml")).text


REDIRECTS = {
    "front controller": "RewriteEngine On\nRewriteRule !env\\.cgi$ env.cgi [L]",
    "fallback": "FallbackResource {path}/env.cgi",
    "index": "DirectoryIndex env.cgi",
    "error document": "ErrorDocument 404 {path}/env.cgi",
}


@pytest.mark.parametrize("kind", REDIRECTS)
@pytest.mark.parametrize("where", ["htaccess", "location"])
def test_internal_redirects_keep_the_identity(start_server, browser, simulator, kind, where):
    """Applications behind a front controller learn the same as others."""
    rules = "AuthType Bitbucket\nRequire valid-user\n"
    host = VirtualHost(f'<Location "/app">\n{rules}</Location>' if where == "location" else "")
    server = start_server.prepare(host)
    directory = server.content / "app"
    directory.mkdir()
    (directory / "env.cgi").write_text((server.content / "env.cgi").read_text())
    (directory / "env.cgi").chmod(0o755)
    (directory / ".htaccess").write_text((rules if where == "htaccess" else "") + REDIRECTS[kind].format(path="/app"))
    server.start()
    path = "/app/" if kind == "index" else "/app/some/where"
    seen = browser.sign_in(host.url(path), "mark").environment
    assert identity(seen) == expected("mark", simulator.origin)
