"""httpd -t -D DUMP_BITBUCKET: what the configuration comes to; -D CHECK_BITBUCKET: whether Bitbucket
and the session cache can be worked with."""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path

import pytest

from harness.caches import KINDS
from harness.config import VirtualHost, modules_directory, place
from harness.simulator import uuid_of

pytestmark = pytest.mark.one_mpm
WORKSPACE = place("any", "Require bitbucket-workspace acme")
SESSION_KEY = "a-session-key-of-more-than-32-characters"


@pytest.fixture
def dump(start_server):
    """Run it on these hosts. Returns what it printed; no secret is ever in it."""
    def dump(*hosts: VirtualHost, **more) -> str:
        server = start_server.prepare(*hosts, **more)
        dump.server = server
        done = server.run("-t", "-D", "DUMP_BITBUCKET")
        assert done.returncode == 0 and "Syntax OK" in done.stdout, done.stdout
        for secret in (SESSION_KEY, *(host.client_secret for host in hosts)):
            assert secret not in done.stdout
        return done.stdout
    return dump


def warnings(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("warning: ")]


def fact(output: str, name: str) -> str:
    """The first fact of this name."""
    found = re.search(rf"^  {re.escape(name)} +(.*)$", output, re.MULTILINE)
    assert found, f"there is no {name}:\n{output}"
    return found[1]


def line_of(server, text: str) -> str:
    """Where a line of the configuration stands, as it is told."""
    lines = server.config_file.read_text().splitlines()
    return f"{server.config_file}:{next(n for n, line in enumerate(lines, 1) if text in line)}"


# -- facts

def test_a_plain_site(dump):
    host = VirtualHost(WORKSPACE)
    output = dump(host)
    assert ": 1 site\n" in output
    assert f"Site localhost ({line_of(dump.server, '<VirtualHost')})\n" in output
    assert host.callback_url in output.splitlines(), "the callback stands alone on its line"
    assert "    Account: Read      for every sign-in\n" in output and "Account: Email" not in output
    assert fact(output, "client id") == host.client_id
    assert fact(output, "client secret").startswith("the value in the configuration [")
    assert fact(output, "session key") == "generated, kept in memory [default]"
    assert fact(output, "addresses") == host.endpoint("login")
    assert host.endpoint("logout") in output and host.endpoint("userinfo") in output
    assert fact(output, "rules") == "1 Require line of this module; they name acme"
    assert fact(output, "session cookie") == "bitbucket_session [default]"
    assert "Path=/; HttpOnly; SameSite=Lax\n" in output
    assert fact(output, "sessions end") == "unused for 12h, or after 7d [default]"
    assert fact(output, "roles are asked") == "again after 5m, none older than 1h is used [default]"
    assert fact(output, "HTTP time-outs") == "connect 3s, total 10s [default]"
    assert fact(output, "proxy") == "none [default]"
    assert fact(output, "kept in") == "shm(32M) [default]"
    assert fact(output, "room for").startswith("about 6600 sessions ")
    assert not warnings(output)


def test_nothing_is_printed_unless_asked(start_server):
    server = start_server.prepare(VirtualHost(WORKSPACE))
    assert "Callback" not in server.run("-t").stdout
    assert "Callback" not in server.run("-t", "-D", "DUMP_OTHERS").stdout


def test_where_settings_come_from(dump):
    host = VirtualHost("AuthBitbucketSessionTimeout 1h 2d\nAuthBitbucketMembershipMaxAge 90s 10m\n" + WORKSPACE)
    output = dump(host, main="AuthBitbucketHTTPTimeout 2s 5s\nAuthBitbucketMembershipMaxAge 1m 2m\n"
                             "AuthBitbucketSessionCache shm(8M)")
    server = dump.server
    assert fact(output, "sessions end") == f"unused for 1h, or after 2d [{line_of(server, 'SessionTimeout')}]"
    assert fact(output, "roles are asked") == f"again after 90s, none older than 10m is used [{line_of(server, 'MaxAge 90s')}]"
    assert fact(output, "HTTP time-outs") == f"connect 2s, total 5s [{line_of(server, 'HTTPTimeout')}]"
    assert fact(output, "kept in") == f"shm(8M) [{line_of(server, 'SessionCache')}]"
    assert fact(output, "room for").startswith("about 1600 sessions ")


def test_permissions_and_the_rules_that_need_them(dump):
    host = VirtualHost(place("mail", "Require bitbucket-email @example.com") + "\n"
                       + place("code", "<RequireAll>", "Require not bitbucket-repository acme/site",
                               "Require bitbucket-workspace globex", "</RequireAll>"))
    output = dump(host)
    server = dump.server
    assert f"    Account: Email     for Require bitbucket-email ({line_of(server, 'bitbucket-email')})\n" in output
    assert (f"    Repositories: Read for Require bitbucket-repository ({line_of(server, 'bitbucket-repository')})\n"
            in output)
    assert fact(output, "rules") == "3 Require lines of this module; they name acme/site, globex"


def test_cookies_behind_a_terminator(dump):
    host = VirtualHost("AuthBitbucketCookieDomain example.com\nAuthBitbucketCookieName wiki\n" + WORKSPACE,
                       callback="https://wiki.example.com/auth/back")
    output = dump(host)
    assert "https://wiki.example.com/auth/back" in output.splitlines()
    assert fact(output, "addresses") == "https://wiki.example.com/auth/login"
    assert fact(output, "session cookie").startswith("__Secure-wiki [")
    assert "Path=/; Domain=example.com; Secure; HttpOnly; SameSite=Lax\n" in output


def test_only_the_host_of_a_rule_has_it(dump):
    """Lines outside of all hosts hold for each, those of another host do not."""
    first = VirtualHost(WORKSPACE, callback="/first/callback")
    second = VirtualHost(place("other", "Require bitbucket-workspace globex"), callback="/second/callback")
    output = dump(first, second)
    assert ": 2 sites\n" in output
    parts = output.split("\nSite ")[1:]
    assert first.callback_url in parts[0] and second.callback_url in parts[1]
    assert fact(parts[0], "rules").endswith("they name acme") and fact(parts[1], "rules").endswith("they name globex")


def test_a_hub(dump):
    hub = VirtualHost(WORKSPACE, callback="http://127.0.0.1:1/bitbucket/callback", name="127.0.0.1")
    hub.callback = f"{hub.origin}/bitbucket/callback"
    site = VirtualHost(WORKSPACE, callback=hub.callback, client_id=hub.client_id, client_secret=hub.client_secret)
    hub.directives += f"\nAuthBitbucketCallbackFor {site.origin}"
    output = dump(hub, site)
    assert fact(output, "is the hub of") == site.origin
    assert fact(output, "hub") == "the callback is another site's, which hands on to this one"


def test_no_site_at_all(dump):
    output = dump(VirtualHost(configured=False))
    assert ": 0 sites\n" in output and "AuthBitbucketClientID" in warnings(output)[0]


# -- secrets

def test_sources_of_secrets(dump, start_server):
    host = VirtualHost(configured=False)
    host.directives = (f"AuthBitbucketClientID {host.client_id}\nAuthBitbucketClientSecret file:conf/secret\n"
                       f"AuthBitbucketSessionKey env:SESSION_KEY {SESSION_KEY}-2\n" + WORKSPACE)
    server = start_server.prepare(host, environment={"SESSION_KEY": SESSION_KEY})
    file = server.root / "conf" / "secret"
    file.write_text(host.client_secret + "\n")
    file.chmod(0o600)
    output = server.run("-t", "-D", "DUMP_BITBUCKET").stdout
    assert fact(output, "client secret") == f"file {file} [{line_of(server, 'ClientSecret')}]"
    assert fact(output, "session keys").startswith("environment variable SESSION_KEY [")
    assert "the value in the configuration [" in output
    assert host.client_secret not in output and SESSION_KEY not in output and not warnings(output)

    file.chmod(0o644)
    output = server.run("-t", "-D", "DUMP_BITBUCKET").stdout
    assert [str(file) in line and "chmod 600" in line for line in warnings(output)] == [True]


def test_a_program_and_its_arguments(dump):
    host = VirtualHost(configured=False)
    host.directives = (f'AuthBitbucketClientID {host.client_id}\n'
                       f'AuthBitbucketClientSecret "exec:/bin/echo {host.client_secret}"\n' + WORKSPACE)
    assert fact(dump(host), "client secret").startswith("program /bin/echo [")


def test_the_environment(dump):
    host = VirtualHost(WORKSPACE, configured=False)
    output = dump(host, environment={"BITBUCKET_CLIENT_ID": "key-from-outside",
                                     "BITBUCKET_CLIENT_SECRET": host.client_secret})
    assert fact(output, "client id") == "key-from-outside"
    assert fact(output, "client secret") == "environment variable BITBUCKET_CLIENT_SECRET [default]"


def test_a_proxy_with_a_password(dump):
    output = dump(VirtualHost("AuthBitbucketProxy http://me:pass-word-of-mine@proxy.example.com:3128\n" + WORKSPACE))
    assert fact(output, "proxy").startswith("http://(not shown)@proxy.example.com:3128 [")
    assert "pass-word-of-mine" not in output


# -- warnings

def test_a_kept_file(dump, start_server):
    server = start_server.prepare(VirtualHost(WORKSPACE), main="AuthBitbucketSessionCache shm:run/sessions(8M)")
    output = server.run("-t", "-D", "DUMP_BITBUCKET").stdout
    key = server.root / "run" / "sessions.key"
    assert fact(output, "kept in").startswith(f"shm:{server.root}/run/sessions(8M) [")
    assert fact(output, "session key") == f"generated, kept in {key} [default]"
    key.write_text("x")
    key.chmod(0o644)
    assert [str(key) in line for line in warnings(server.run("-t", "-D", "DUMP_BITBUCKET").stdout)
            if "read" in line] == [True]


@pytest.mark.parametrize("lines, text", [
    ('Alias "/bitbucket" "${CONTENT}"', "Alias /bitbucket"),
    ("<Location /bitbucket/>\nRequire all denied\n</Location>", "Location /bitbucket/"),
    ("ProxyPass /bitbucket/login http://127.0.0.1:1/", "ProxyPass /bitbucket/login"),
])
def test_what_overlaps_the_endpoints(dump, lines, text):
    found = warnings(dump(VirtualHost(WORKSPACE + "\n" + lines)))
    assert len(found) == 1 and text + " (" in found[0], found
    assert line_of(dump.server, text.split()[1]) in found[0] or "<Location" in lines


@pytest.mark.parametrize("lines", [
    "ProxyPass / http://127.0.0.1:1/", 'Alias "/bitbuckets" "${CONTENT}"', "ProxyPass /bitbucket !",
    "<Location />\nRequire all granted\n</Location>",
])
def test_what_does_not(dump, lines):
    assert not warnings(dump(VirtualHost(WORKSPACE + "\n" + lines)))


@pytest.mark.parametrize("host, text", [
    (VirtualHost(place("any", "Require valid-user")), "no Require line is one of this module"),
    (VirtualHost(), "AuthType Bitbucket stands nowhere"),
    (VirtualHost("AuthBitbucketMembershipMaxAge 1h 2d\n" + WORKSPACE), "may stay in for 2d"),
    (VirtualHost("AuthBitbucketCookieSameSite None\n" + WORKSPACE, callback="https://wiki.example.com/cb/back"),
     "SameSite is None"),
    (VirtualHost(WORKSPACE, callback="http://wiki.example.com/bitbucket/callback"), "is plain http"),
])
def test_warnings(dump, host, text):
    found = warnings(dump(host))
    assert len(found) == 1 and text in found[0], found


# -- CHECK_BITBUCKET: what Bitbucket says to it

@pytest.fixture
def check(start_server, simulator):
    """Run it on these hosts. Returns exit status and output; no secret is ever in it."""
    def check(*hosts: VirtualHost, **more) -> tuple[int, str]:
        server = start_server.prepare(*hosts, **more)
        check.server = server
        done = server.run("-t", "-D", "CHECK_BITBUCKET")
        for secret in simulator.secrets() | {host.client_secret for host in hosts}:
            assert secret not in done.stdout
        return done.returncode, done.stdout
    return check


def results(output: str, state: str) -> list[str]:
    return [line.removeprefix(state).strip() for line in output.splitlines() if line.startswith(state + " ")]


ALL_RULES = (WORKSPACE + "\n" + place("code", "Require bitbucket-repository acme/site") + "\n"
             + place("mail", "Require bitbucket-email @example.com"))
PARTS = ["API: account", "API: e-mail addresses", "API: roles in workspaces", "API: permissions on repositories"]


@pytest.fixture(params=[False, True], ids=["public", "private"])
def client_kind(request, simulator, monkeypatch):
    """Clients that are private or not, whoever registers them."""
    register = simulator.register
    monkeypatch.setattr(simulator, "register", lambda *given, **more: register(*given, private=request.param, **more))


def test_all_is_well(check, client_kind):
    host = VirtualHost(ALL_RULES)
    code, output = check(host)
    assert code == 0 and not results(output, "FAILED") and not results(output, "warning"), output
    assert results(output, "ok") == [f"key and secret of {host.client_id}", *PARTS, "clock"]
    assert "Callback URL to register" not in output


def test_only_what_rules_need_is_asked(check, simulator):
    code, output = check(VirtualHost(place("any", "Require valid-user")))
    assert code == 0 and PARTS[0] in results(output, "ok") and not set(PARTS[1:]) & set(results(output, "ok"))
    assert [call["path"] for call in simulator.calls() if call["path"].startswith("/2.0/")] == ["/2.0/user"]


def test_a_wrong_secret(check, client_kind):
    host = VirtualHost(WORKSPACE)
    host.directives += "\nAuthBitbucketClientSecret some-other-secret"
    code, output = check(host)
    assert code == 1, output
    assert len(results(output, "FAILED")) == 1, output
    line = results(output, "FAILED")[0]
    assert line.startswith(f"key and secret of {host.client_id}: ") and "unauthorized_client" in line
    assert "copy key and secret again" in line and "some-other-secret" not in output
    assert "API: account" in results(output, "ok"), "the other checks are made, too"


@pytest.mark.parametrize("client_kind", [True], indirect=True)
def test_a_missing_permission(check, client_kind):
    code, output = check(VirtualHost(ALL_RULES, scopes=("account", "email")))
    assert code == 0 and len(results(output, "warning")) == 1, output
    assert results(output, "warning")[0].startswith("permission Repositories: Read: Require bitbucket-repository (")


@pytest.mark.parametrize("client_kind", [True], indirect=True)
@pytest.mark.parametrize("directives, warned", [("", True), ("AuthBitbucketScope account email\n", False)])
def test_permissions_that_change_things(check, client_kind, directives, warned):
    """No rule needs them. A token that asks for less does not have them."""
    code, output = check(VirtualHost(directives + WORKSPACE, scopes=("account", "email", "project:admin", "webhook", "wiki", "pullrequest")))
    assert code == 0, output
    lines = results(output, "warning")
    assert len(lines) == warned
    if warned:
        assert lines[0].startswith("permissions to change things: project:admin webhook wiki: no rule needs them"), output


def test_nothing_is_asked_twice(check, simulator):
    first = VirtualHost(WORKSPACE)
    second = VirtualHost(ALL_RULES, client_id=first.client_id, client_secret=first.client_secret)
    code, output = check(first, second, VirtualHost(WORKSPACE))
    assert code == 0, output
    one, two, three = output.split("\nSite ")[1:]
    key = f"key and secret of {first.client_id}"
    assert results(one, "ok") == [key, PARTS[0], PARTS[2], "clock"] and not results(one, "above")
    assert results(two, "above") == [key, PARTS[0], PARTS[2]] and results(two, "ok") == [PARTS[1], PARTS[3], "clock"]
    assert results(three, "above") == [PARTS[0], PARTS[2]] and results(three, "ok")[0].startswith("key and secret of ")
    assert len([call for call in simulator.calls() if call["path"].startswith("/2.0/")]) == 4


def test_one_key_with_two_secrets(check):
    first = VirtualHost(WORKSPACE)
    second = VirtualHost(WORKSPACE, client_id=first.client_id, client_secret=first.client_secret)
    second.directives += "\nAuthBitbucketClientSecret some-other-secret"
    code, output = check(first, second)
    key = f"key and secret of {first.client_id}"
    assert code == 1 and key in results(output, "ok") and len(results(output, "FAILED")) == 1, output
    assert results(output, "FAILED")[0].startswith(key)


def test_nobody_there(check):
    dead = "http://127.0.0.1:9"
    code, output = check(VirtualHost(f"AuthBitbucketTokenURL {dead}/token\nAuthBitbucketAPIURL {dead}/2.0\n" + WORKSPACE))
    assert code == 1 and not results(output, "ok")
    lines = results(output, "FAILED")
    assert [line.partition(": http")[0] for line in lines] == ["token endpoint", "API: account", "API: roles in workspaces"]
    assert all(dead in line and "AuthBitbucketProxy" in line for line in lines)


def test_a_name_that_is_none(check):
    nowhere = "https://bitbucket.invalid"
    code, output = check(VirtualHost(f"AuthBitbucketTokenURL {nowhere}/token\nAuthBitbucketAPIURL {nowhere}/2.0\n" + WORKSPACE))
    lines = results(output, "FAILED")
    assert code == 1 and len(lines) == 3, output
    assert all(nowhere in line and "resolve host" in line and "name server" in line for line in lines), output


def test_a_proxy_that_is_not_there(check):
    code, output = check(VirtualHost("AuthBitbucketProxy http://127.0.0.1:9\nAuthBitbucketAPIURL https://bitbucket.invalid/2.0\n"
                                     + WORKSPACE))
    lines = [line for line in results(output, "FAILED") if line.startswith("API: ")]
    assert code == 1 and [line.partition(": GET")[0].partition(": http")[0] for line in lines] == ["API: account", "API: roles in workspaces"], output
    assert all("127.0.0.1 port 9" in line and "AuthBitbucketProxy" in line for line in lines), output


def test_a_certificate_that_nobody_trusts(check, start_server, scratch):
    """Bitbucket is another httpd here, with a certificate that signs itself."""
    tls = start_server(VirtualHost(tls=True, configured=False, name="127.0.0.1"))
    origin = tls.hosts[0].origin
    lines = f"AuthBitbucketAPIURL {origin}/2.0\n" + WORKSPACE
    code, output = check(VirtualHost(lines))
    failed = results(output, "FAILED")
    assert code == 1 and failed and all("certificate" in line and "AuthBitbucketCAFile" in line for line in failed), output
    code, output = check(VirtualHost(f"AuthBitbucketCAFile {tls.root}/conf/site.crt\n" + lines))
    failed = results(output, "FAILED")
    assert code == 1 and failed and all("answered 404" in line for line in failed), output


def test_a_clock_that_is_off(check, clock):
    clock.set(90)
    code, output = check(VirtualHost(WORKSPACE), clock=clock)
    assert code == 0 and len(results(output, "warning")) == 1, output
    assert re.fullmatch(r"clock: this machine's is (89|90|91) s ahead of Bitbucket's; set it", results(output, "warning")[0])
    clock.set(-3600)
    code, output = check(VirtualHost(WORKSPACE), clock=clock)
    assert code == 0 and " s behind Bitbucket's" in results(output, "warning")[0]
    clock.set(30)
    assert "clock" in results(check(VirtualHost(WORKSPACE), clock=clock)[1], "ok")


def test_an_endpoint_that_is_withdrawn(check, simulator):
    simulator.fault("permission", status=410, json={"type": "error", "error": {"message": "CHANGE-1234 - gone"}})
    code, output = check(VirtualHost(WORKSPACE))
    assert code == 1 and len(results(output, "FAILED")) == 1, output
    line = results(output, "FAILED")[0]
    assert line.startswith("API: roles in workspaces: Bitbucket has withdrawn") and "newer version" in line


def test_a_wrong_address_of_the_api(check, simulator):
    code, output = check(VirtualHost(f"AuthBitbucketAPIURL {simulator.api_url}/3.0\n" + WORKSPACE))
    assert code == 1 and "withdrawn" in results(output, "FAILED")[0], output


@pytest.mark.parametrize("fault, text", [
    ({"status": 200, "body": "<p>Please sign in to this network", "content_type": "text/html"}, "text/html"),
    ({"status": 401, "body": "<p>Please sign in to this network", "content_type": "text/html"}, "401"),
    ({"status": 503}, "503"), ({"status": 429, "headers": {"Retry-After": "5"}}, "rate limit"), ({"close": True}, ""),
])
def test_something_else_answers(check, simulator, fault, text):
    simulator.fault("user", **fault)
    code, output = check(VirtualHost(WORKSPACE))
    assert code == 1 and len(results(output, "FAILED")) == 1, output
    assert text in results(output, "FAILED")[0]


def test_it_waits_no_longer_than_the_time_out(check, simulator):
    simulator.fault("user", hang=True)
    before = time.monotonic()
    code, output = check(VirtualHost("AuthBitbucketHTTPTimeout 1s 2s\n" + WORKSPACE))
    assert code == 1 and time.monotonic() - before < 8, output


def test_both_at_once(start_server):
    server = start_server.prepare(VirtualHost(WORKSPACE))
    output = server.run("-t", "-D", "DUMP_BITBUCKET", "-D", "CHECK_BITBUCKET").stdout
    assert "Callback URL to register" in output and "clock" in results(output, "ok")


# -- the session cache

def test_a_file_where_an_address_of_the_module_is(start_server):
    server = start_server.prepare(VirtualHost(WORKSPACE))
    hidden = server.content / "bitbucket" / "login"
    hidden.mkdir(parents=True)
    assert [str(hidden) in line and "nobody will see it" in line
            for line in warnings(server.run("-t", "-D", "DUMP_BITBUCKET").stdout)] == [True]


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_cache_on_another_machine(check, dump, scratch, kind):
    cache = KINDS[kind](scratch).start()
    main = (f"LoadModule socache_{cache.provider}_module {modules_directory()}/mod_socache_{cache.provider}.so\n"
            f"AuthBitbucketSessionCache {cache.specification}\nAuthBitbucketSessionKey {SESSION_KEY}\n")
    try:
        output = dump(VirtualHost(WORKSPACE), main=main)
        assert fact(output, "kept in").startswith(cache.specification + " [")
        assert fact(output, "copies") == "in shm(32M), up to 10s old, in an outage 1m [default]"
        code, output = check(VirtualHost(WORKSPACE), main=main)
        assert code == 0 and f"session cache {cache.specification}" in results(output, "ok"), output
        assert "AuthBitbucketSessionCache" not in str(warnings(dump(VirtualHost(WORKSPACE), main=main)))
        cache.freeze()
        frozen = check(VirtualHost(WORKSPACE), main=main)
        cache.thaw()
    finally:
        cache.stop()
    said = warnings(dump(VirtualHost(WORKSPACE), main=main))
    assert [line for line in said if line.startswith(f"warning: AuthBitbucketSessionCache: {cache.specification}: ")], said
    for code, output in (frozen, check(VirtualHost(WORKSPACE), main=main)):
        assert code == 1 and results(output, "FAILED")[0].startswith(f"session cache {cache.specification}: "), output
        assert "clock" in results(output, "ok")


# -- the file of sessions

def test_the_session_file_is_whole(start_server, scratch, browser):
    directory = Path(tempfile.mkdtemp(prefix="kept-", dir=scratch))
    host = VirtualHost(WORKSPACE)
    server = start_server(host, main=f"AuthBitbucketSessionCache shm:{directory}/sessions(8M)\n")

    def verify() -> tuple[int, str]:
        done = server.run("-t", "-D", "VERIFY_BITBUCKET")
        return done.returncode, done.stdout
    assert browser.sign_in(host.url("/any/page.html"), "mark").status == 200
    server.stop()
    before = (directory / "sessions").read_bytes()
    code, output = verify()
    # A session, its completed attempt, the workspace's uuid.
    assert code == 0 and results(output, "ok") == [f"{directory}/sessions: 3 records whole, 0 over, 0 damaged"], output
    assert (directory / "sessions").read_bytes() == before and not list(directory.glob("*.refused"))
    name = before.index(uuid_of("mark").encode())
    (directory / "sessions").write_bytes(before[:name] + b"x" + before[name + 1:])
    code, output = verify()
    assert code == 1 and "2 records whole, 0 over, 1 damaged" in results(output, "FAILED")[0], output
    (directory / "sessions").write_bytes(before)
    (directory / "sessions.key").rename(directory / "away")
    code, output = verify()
    assert code == 1 and "was written under another key: " in results(output, "FAILED")[0], output
    (directory / "away").rename(directory / "sessions.key")
    (directory / "sessions").chmod(0o644)
    code, output = verify()
    assert code == 1 and "0600" in results(output, "FAILED")[0], output
    (directory / "sessions").unlink()
    code, output = verify()
    assert code == 0 and results(output, "ok") == [f"{directory}/sessions: no sessions yet"], output


def test_sessions_in_no_file(start_server):
    done = start_server.prepare(VirtualHost(WORKSPACE)).run("-t", "-D", "VERIFY_BITBUCKET")
    assert done.returncode == 0 and results(done.stdout, "ok") == ["sessions are kept in no file"]
