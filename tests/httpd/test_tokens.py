"""What the operator got wrong, and tokens that run out, are refused or revoked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import tags
from harness.client import SCRIPT
from harness.config import VirtualHost, place
from harness.simulator import permission_route


@pytest.fixture
def late(start_server):
    """A site with a workspace that is asked about only when /late/ is visited."""
    host = VirtualHost(place("any", "Require valid-user"))
    server = start_server(host)
    directory = server.content / "late"
    directory.mkdir()
    (directory / "page.html").write_text("The test page")
    (directory / ".htaccess").write_text("AuthType Bitbucket\nRequire bitbucket-workspace acme\n")
    return host


# -- the operator's mistakes

def test_a_wrong_secret(start_server, browser, simulator, logs):
    logs.expect(tags.ANSWERED, "Invalid OAuth client credentials")
    host = VirtualHost(place("any", "Require valid-user"))
    start_server(host)
    simulator.change_consumer(host.client_id, secret="another-secret-than-the-one-configured")
    answer = browser.sign_in(host.url("/any/page.html"), "mark")
    assert answer.status == 500 and answer.reference
    line, = logs.lines(tags.ANSWERED)
    assert line.level == "error" and answer.reference in line.text
    assert "secret" not in answer.text.lower() or "key" in answer.text.lower()
    assert browser.session_value() is None


def test_the_account_scope_is_missing(start_server, browser, simulator, logs):
    logs.expect(tags.ANSWERED, "account")
    host = VirtualHost(place("any", "Require valid-user"))
    start_server(host)
    simulator.change_consumer(host.client_id, scopes=["email"])
    answer = browser.sign_in(host.url("/any/page.html"), "mark")
    assert answer.status == 500 and answer.reference
    line, = logs.lines(tags.ANSWERED)
    assert line.level == "error" and "'account'" in line.text


def test_a_scope_that_the_client_lacks(start_server, browser, logs):
    """Bitbucket refuses it before anybody signs in. The browser brings that, so it is told at info."""
    host = VirtualHost("AuthBitbucketScope account webhook\n" + place("any", "Require valid-user"))
    start_server(host)
    answer = browser.sign_in(host.url("/any/page.html"), "mark")
    line, = logs.lines(tags.ANSWERED)
    assert answer.status == 500 and line.level == "info" and "invalid_scope" in line.text


def test_a_narrowed_scope(start_server, browser, simulator, logs):
    """As the directive's name says: without email in it, no address."""
    logs.expect(tags.LESS_THAN_ASKED, "email")
    host = VirtualHost("AuthBitbucketScope account\n" + place("any", "Require valid-user"))
    start_server(host)
    seen = browser.sign_in(host.url("/any/env.cgi"), "mark").environment
    assert "BITBUCKET_EMAIL" not in seen and seen["REMOTE_USER"]


def test_the_scope_is_lost_later(late, browser, simulator, logs):
    logs.expect(tags.ANSWERED, "account")
    browser.sign_in(late.url("/any/page.html"), "mark")
    simulator.fault("permission", status=403, json={"type": "error", "error": {
        "message": "Your credentials lack one or more required privilege scopes.",
        "detail": {"required": ["account"], "granted": ["team"]}}})
    answer = browser.get(late.url("/late/page.html"))
    assert answer.status == 500 and answer.reference, "not: no member"


# -- refreshing

def test_a_refused_access_token_is_refreshed_once(late, browser, simulator):
    browser.sign_in(late.url("/any/page.html"), "mark")
    simulator.end_tokens("access", account="mark", revoke=True)
    simulator.forget_calls()
    assert browser.get(late.url("/late/page.html")).status == 200
    asked = simulator.asked()
    assert asked[:2] == ["permission acme", "refresh"]
    assert sorted(asked[2:]) == ["permission acme", "user"], "whose the new token is, is proved"


def test_a_token_about_to_expire_is_refreshed_before(late, browser, simulator):
    simulator.settings(access_token_lifetime=30)
    browser.sign_in(late.url("/any/page.html"), "mark")
    simulator.settings(access_token_lifetime=7200)
    simulator.forget_calls()
    assert browser.get(late.url("/late/page.html")).status == 200
    asked = simulator.asked()
    assert asked[0] == "refresh" and sorted(asked[1:]) == ["permission acme", "user"]
    assert browser.get(late.url("/late/page.html")).status == 200
    assert simulator.asked() == asked


def test_the_new_pair_is_kept(start_server, browser, simulator):
    """Each refresh uses the refresh token of the one before it."""
    host = VirtualHost(place("any", "Require valid-user"))
    server = start_server(host)
    for workspace in ("acme", "globex", "initechlabs"):
        directory = server.content / workspace
        directory.mkdir()
        (directory / "page.html").write_text("page")
        (directory / ".htaccess").write_text(f"AuthType Bitbucket\nRequire bitbucket-workspace {workspace}\n")
    simulator.settings(refresh_overlap=0)
    browser.sign_in(host.url("/any/page.html"), "mark")
    for workspace, status in (("acme", 200), ("globex", 403), ("initechlabs", 200)):
        simulator.end_tokens("access", account="mark")
        assert browser.get(host.url(f"/{workspace}/page.html")).status == status
    assert simulator.asked().count("refresh") == 3


def test_many_requests_at_once_refresh_once(late, browser, simulator):
    browser.sign_in(late.url("/any/page.html"), "mark")
    simulator.end_tokens("access", account="mark")
    simulator.settings(refresh_overlap=0)
    simulator.fault("token", delay=0.2)
    simulator.fault("permission", delay=0.1)
    simulator.forget_calls()
    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(lambda _: browser.get(late.url("/late/page.html"), SCRIPT).status, range(20)))
    assert statuses == [200] * 20
    assert simulator.asked().count("refresh") == 1


def test_a_refused_refresh_ends_the_session(late, browser, simulator, logs):
    browser.sign_in(late.url("/any/page.html"), "mark")
    simulator.end_tokens("all", account="mark", revoke=True)
    simulator.forget_calls()
    answer = browser.get(late.url("/late/page.html"))
    assert answer.status == 302 and answer.location.startswith(simulator.authorize_url)
    assert simulator.asked().count("refresh") == 1
    ended, = logs.lines(tags.ENDED)
    assert ended.level == "info"
    assert browser.get(late.url("/any/page.html"), SCRIPT).status == 401, "everywhere"
    assert browser.walk(answer)[-1].status == 200, "and a new one begins"


def test_a_refused_refresh_and_a_script(late, browser, simulator):
    browser.sign_in(late.url("/any/page.html"), "mark")
    simulator.end_tokens("all", account="mark", revoke=True)
    answer = browser.get(late.url("/late/page.html"), SCRIPT)
    assert (answer.status, answer.location, answer.tickets) == (401, None, [])


@pytest.mark.parametrize("refresh_error", ["invalid_grant", "invalid_request"])
def test_both_words_for_a_refused_refresh(late, browser, simulator, refresh_error):
    simulator.settings(refresh_error=refresh_error)
    browser.sign_in(late.url("/any/page.html"), "mark")
    simulator.end_tokens("all", account="mark", revoke=True)
    assert browser.get(late.url("/late/page.html")).status == 302


def test_a_used_up_refresh_token(late, browser, simulator):
    """unauthorized_client, which at a refresh means the token, not the client."""
    browser.sign_in(late.url("/any/page.html"), "mark")
    simulator.end_tokens("access", account="mark")
    simulator.fault("token", status=400, json={"error": "unauthorized_client",
                                               "error_description": "Invalid OAuth client credentials"})
    assert browser.get(late.url("/late/page.html")).status == 302


CANNOT = {"500": {"status": 500}, "closed": {"close": True}, "HTML": {"status": 200, "body": "<html>"}, "429": {"status": 429}}


@pytest.mark.parametrize("kind", CANNOT)
def test_a_refresh_that_cannot_be_done_ends_nothing(late, browser, simulator, logs, kind):
    logs.expect(tags.ANSWERED)
    browser.sign_in(late.url("/any/page.html"), "mark")
    simulator.end_tokens("access", account="mark")
    simulator.fault("token", **CANNOT[kind])
    answer = browser.get(late.url("/late/page.html"))
    assert answer.status == 503 and answer.header("Retry-After")
    assert len(simulator.calls("token")) == 2, "a refresh is sent once"
    assert browser.get(late.url("/any/page.html")).status == 200, "the session lives"


def test_the_answer_of_a_refresh_is_lost(late, browser, simulator, logs):
    """Bitbucket has rotated, we do not know: the old token works on for ten minutes."""
    logs.expect(tags.ANSWERED)
    browser.sign_in(late.url("/any/page.html"), "mark")
    simulator.end_tokens("access", account="mark")
    simulator.fault("token", close=True, effect=True, times=1)
    assert browser.get(late.url("/late/page.html")).status == 503
    assert browser.get(late.url("/late/page.html")).status in (200, 503)


def test_401_again_after_a_refresh_ends_the_session(late, browser, simulator):
    browser.sign_in(late.url("/any/page.html"), "mark")
    simulator.fault("permission", status=401, json={"type": "error", "error": {"message": "Token is invalid"}})
    simulator.forget_calls()
    assert browser.get(late.url("/late/page.html")).status == 302
    assert simulator.asked().count("refresh") == 1


def test_without_a_refresh_token(late, browser, simulator):
    """The session lives as long as nothing must be asked."""
    simulator.fault("token", remove=["refresh_token"])
    browser.sign_in(late.url("/any/page.html"), "mark")
    assert browser.get(late.url("/any/page.html")).status == 200
    simulator.end_tokens("access", account="mark")
    assert browser.get(late.url("/late/page.html")).status == 302


def test_a_refresh_that_brings_somebody_else(late, browser, simulator, logs):
    """The answer about the workspace names another user: it counts for nothing."""
    logs.expect(tags.ANSWERED)
    browser.sign_in(late.url("/any/page.html"), "oscar")
    simulator.fault(permission_route("acme"), json={
        "type": "workspace_membership", "permission": "owner",
        "user": {"type": "user", "uuid": "{5df6f817-b099-4bcf-a0ec-6db25097c040}"},
        "workspace": {"type": "workspace", "slug": "acme", "uuid": "{e4bd580a-c40f-4411-9483-afa0f5baaca6}"}})
    answer = browser.get(late.url("/late/page.html"))
    assert answer.status == 503 and "test page" not in answer.text


def test_a_session_without_questions_outlives_its_tokens(late, browser, simulator):
    browser.sign_in(late.url("/any/page.html"), "mark")
    simulator.end_tokens("all", account="mark", revoke=True)
    simulator.forget_calls()
    assert browser.get(late.url("/any/page.html")).status == 200
    assert simulator.asked() == []
