"""What httpd -t says to a wrong configuration, where secrets come from, and where they
must not go."""

from __future__ import annotations

import os
import re
import time

import pytest

from harness import tags
from harness.client import SCRIPT
from harness.config import VirtualHost, place

GOOD = {"id": "AuthBitbucketClientID some-key", "secret": "AuthBitbucketClientSecret some-client-secret"}


@pytest.fixture
def check(start_server):
    """Run httpd -t on a virtual host with these lines, or on lines outside all hosts."""
    def check(lines: str = "", main: str = "", client: bool = True, **more) -> tuple[int, str]:
        body = ("\n".join(GOOD.values()) + "\n" if client else "") + lines
        server = start_server.prepare(VirtualHost(body, configured=False), main=main, **more)
        done = server.run("-t")
        return done.returncode, done.stdout
    return check


# -- malformed directives: the line, what is quoted, and what is said to be allowed

MALFORMED = [
    ("AuthBitbucketClientID", "", "one argument"),
    ('AuthBitbucketClientID ""', "", "Key"),
    ('AuthBitbucketClientID "a b"', "'a b'", "Key"),
    ("AuthBitbucketClientID a:b", "'a:b'", "Key"),
    ("AuthBitbucketClientID a b", "", "one argument"),
    ('AuthBitbucketClientSecret ""', "", "file:PATH"),
    ("AuthBitbucketCallbackURL bitbucket/callback", "'bitbucket/callback'", "absolute"),
    ("AuthBitbucketCallbackURL ftp://wiki.example.com/cb", "'ftp://wiki.example.com/cb'", "http"),
    ("AuthBitbucketCallbackURL https://wiki.example.com", "'https://wiki.example.com'", "https://wiki.example.com/bitbucket/callback"),
    ("AuthBitbucketCallbackURL https://wiki.example.com/", "'https://wiki.example.com/'", "callback"),
    ("AuthBitbucketCallbackURL https://wiki.example.com/a?b=1", "'https://wiki.example.com/a?b=1'", ""),
    ("AuthBitbucketCallbackURL https://user@wiki.example.com/cb", "'https://user@wiki.example.com/cb'", ""),
    ('AuthBitbucketCallbackURL "https://wiki.example.com/cb#x"', "'https://wiki.example.com/cb#x'", ""),
    ("AuthBitbucketCallbackURL //wiki.example.com/cb", "'//wiki.example.com/cb'", ""),
    ("AuthBitbucketCallbackURL /a/../b", "'/a/../b'", ""),
    ("AuthBitbucketCallbackURL /a%2fb", "'/a%2fb'", ""),
    ("AuthBitbucketCallbackURL /bitbucket/login", "'/bitbucket/login'", "endpoint"),
    ("AuthBitbucketCallbackURL /bitbucket/logout", "'/bitbucket/logout'", "endpoint"),
    ("AuthBitbucketCallbackURL /bitbucket/userinfo", "'/bitbucket/userinfo'", "endpoint"),
    ("AuthBitbucketCallbackURL /bitbucket/kept-form", "'/bitbucket/kept-form'", "endpoint"),
    ('AuthBitbucketScope "account;email"', "'account;email'", "account email"),
    ("AuthBitbucketScope account&x=1", "'account&x=1'", "account email"),
    ("AuthBitbucketAuthorizeURL bitbucket.org/authorize", "'bitbucket.org/authorize'", ""),
    ("AuthBitbucketAuthorizeURL http://bitbucket.org/authorize", "'http://bitbucket.org/authorize'", "https://"),
    ("AuthBitbucketTokenURL http://bitbucket.org/token", "'http://bitbucket.org/token'", "https://"),
    ("AuthBitbucketTokenURL http://127.0.0.1.evil.example/token", "'http://127.0.0.1.evil.example/token'", "https://"),
    ("AuthBitbucketTokenURL http://localhost.evil.example/token", "'http://localhost.evil.example/token'", "https://"),
    ("AuthBitbucketAPIURL http://api.bitbucket.org/2.0", "'http://api.bitbucket.org/2.0'", "https://"),
    ("AuthBitbucketAPIURL https://user:pw@api.bitbucket.org/2.0", "'https://(not shown)@api.bitbucket.org/2.0'", "user name"),
    ("AuthBitbucketAPIURL https://api.bitbucket.org/2.0?x=1", "'https://api.bitbucket.org/2.0?x=1'", "/2.0"),
    ("AuthBitbucketAPIURL ftp://api.bitbucket.org/2.0", "'ftp://api.bitbucket.org/2.0'", "https://"),
    ('AuthBitbucketAPIURL "https://api.bitbucket.org/2.0#x"', "'https://api.bitbucket.org/2.0#x'", "fragment"),
    ("AuthBitbucketHTTPTimeout soon", "'soon'", "90s"),
    ("AuthBitbucketHTTPTimeout 3s soon", "'soon'", "90s"),
    ("AuthBitbucketHTTPTimeout 0", "'0'", "1s"),
    ("AuthBitbucketHTTPTimeout -1", "'-1'", ""),
    ("AuthBitbucketHTTPTimeout 3s 10y", "'10y'", "s, m, h or d"),
    ("AuthBitbucketHTTPTimeout 3s 1h", "'1h'", "60s"),
    ("AuthBitbucketHTTPTimeout 10s 3s", "'10s 3s'", ""),
    ("AuthBitbucketHTTPTimeout 20s", "", "10s"),
    ("AuthBitbucketHTTPTimeout 1.5s", "'1.5s'", ""),
    ("AuthBitbucketHTTPTimeout 99999999999999999999s", "'99999999999999999999s'", ""),
    ("AuthBitbucketHTTPTimeout 1s 2s 3s", "", "arguments"),
    ("AuthBitbucketCAFile conf/no-such-file.pem", "'conf/no-such-file.pem'", "PEM"),
    ("AuthBitbucketProxy proxy.example.com", "'proxy.example.com'", "http://proxy.example.com"),
    ("AuthBitbucketProxy socks5://proxy.example.com", "'socks5://proxy.example.com'", "http://"),
    ("AuthBitbucketProxy socks5://me:pw@proxy.example.com", "'socks5://(not shown)@proxy.example.com'", "http://"),
    ('AuthBitbucketCookieName ""', "", "one argument"),
    ('AuthBitbucketCookieName "a b"', "'a b'", "letters"),
    ("AuthBitbucketCookieName a=b", "'a=b'", "letters"),
    ("AuthBitbucketCookieName a;b", "'a;b'", "letters"),
    ("AuthBitbucketCookieName __Host-x", "'__Host-x'", "__Host-"),
    ("AuthBitbucketCookieName " + "a" * 65, "'" + "a" * 65 + "'", "64"),
    ("AuthBitbucketCookieDomain example", "'example'", "example.com"),
    ('AuthBitbucketCookieDomain "exam ple.com"', "'exam ple.com'", "example.com"),
    ("AuthBitbucketCookieDomain example.com;secure", "'example.com;secure'", "example.com"),
    ("AuthBitbucketCookieDomain other.example", "'other.example'", "localhost"),
    ("AuthBitbucketCookieSameSite Strict", "'Strict'", "Lax and None"),
    ("AuthBitbucketCookieSameSite sometimes", "'sometimes'", "Lax and None"),
    ("AuthBitbucketCookieSameSite None", "'None'", "https"),
    ("AuthBitbucketSessionTimeout never", "'never'", "12h"),
    ("AuthBitbucketSessionTimeout 12h never", "'never'", "12h"),
    ("AuthBitbucketSessionTimeout 8d 7d", "'8d 7d'", "idle"),
    ("AuthBitbucketSessionTimeout 8d", "", "idle"),
    ("AuthBitbucketSessionTimeout 0", "'0'", ""),
    ("AuthBitbucketSessionTimeout 12h 7d 1s", "", "arguments"),
    ('AuthBitbucketSessionKey ""', "", "keys"),
    ("AuthBitbucketSessionKey", "", "keys"),
    ("AuthBitbucketSessionKey too-short", "", "32"),
    ("AuthBitbucketSessionKey " + " ".join(f"key-number-{n}-of-too-many" for n in range(20)), "", "keys"),
    ("AuthBitbucketRemoteUser display_name", "'display_name'", "username, email, uuid, account_id and nickname"),
    ("AuthBitbucketRemoteUser Username", "'Username'", "username"),
    ("AuthBitbucketPrivate perhaps", "", "On or Off"),
    ("Require bitbucket-workspace", "", "acme"),
    ("Require bitbucket-workspace acme:admin", "'acme:admin'", "owner, create-project, member and collaborator"),
    ("Require bitbucket-workspace acme:", "'acme:'", "owner, create-project, member and collaborator"),
    ("Require bitbucket-workspace :owner", "':owner'", "slug"),
    ("Require bitbucket-workspace acme/site", "'acme/site'", "slug"),
    ("Require bitbucket-workspace ../x", "'../x'", "slug"),
    ("Require bitbucket-workspace good {not-a-uuid}", "'{not-a-uuid}'", "{uuid}"),
    ("Require bitbucket-workspace " + "a" * 200, "'" + "a" * 200 + "'", "slug"),
    ("Require bitbucket-workspace acme:OWNER", "'acme:OWNER'", "owner"),
    ("Require bitbucket-user", "", "{uuid}"),
    ("Require bitbucket-user {not-a-uuid}", "'{not-a-uuid}'", "account_id"),
    ("Require bitbucket-user some@body.example", "'some@body.example'", "username"),
    ("Require bitbucket-user 557058:nothing", "'557058:nothing'", "account_id"),
]
OUTSIDE = [
    ("AuthBitbucketSessionCache memory", "'memory'", "shm"),
    ("AuthBitbucketSessionCache shm(big)", "'shm(big)'", "256K"),
    ("AuthBitbucketSessionCache shm()", "'shm()'", "256K"),
    ("AuthBitbucketSessionCache shm(255K)", "'shm(255K)'", "256K"),
    ("AuthBitbucketSessionCache shm(1K)", "'shm(1K)'", "256K"),
    ("AuthBitbucketSessionCache shm(-1M)", "'shm(-1M)'", "256K"),
    ("AuthBitbucketSessionCache shm(99999999999999999999G)", "'shm(99999999999999999999G)'", "256"),
    ("AuthBitbucketSessionCache shm(17179869185G)", "'shm(17179869185G)'", "128G"),
    ("AuthBitbucketSessionCache shm(17592186044417M)", "'shm(17592186044417M)'", "128G"),
    ("AuthBitbucketSessionCache shm(129G)", "'shm(129G)'", "128G"),
    ("AuthBitbucketSessionCache shm(131073M)", "'shm(131073M)'", "128G"),
    ("AuthBitbucketSessionCache shm(134217729K)", "'shm(134217729K)'", "128G"),
    ("AuthBitbucketSessionCache shm(137438953473)", "'shm(137438953473)'", "128G"),
    ("AuthBitbucketSessionCache shm(1M", "'shm(1M'", "shm(SIZE)"),
    ("AuthBitbucketSessionCache shm(1M)x", "'shm(1M)x'", "shm(SIZE)"),
    ("AuthBitbucketSessionCache shmoo", "'shmoo'", "shm:FILE(SIZE)"),
    ("AuthBitbucketSessionCache :run/sessions", "':run/sessions'", "shm:FILE(SIZE)"),
    ("AuthBitbucketSessionCache shm:", "''", "shm:/"),
    ("AuthBitbucketSessionCache shm:(1M)", "''", "shm:/"),
    ("AuthBitbucketSessionCache shm:run/", "'run/'", "shm:/"),
    ("AuthBitbucketSessionCache shm:run/sessions(255K)", "'shm:run/sessions(255K)'", "256K"),
    ("AuthBitbucketSessionCache shm:run/sessions(1M)x", "'run/sessions(1M)x'", "shm:/"),
    (f"AuthBitbucketSessionCache shm:/run/{'x' * 200}", "", "200 characters"),
]


@pytest.mark.parametrize("line, quoted, allowed", MALFORMED)
def test_malformed(check, line, quoted, allowed):
    in_place = line.startswith(("Require", "AuthBitbucketRemoteUser", "AuthBitbucketPrivate"))
    code, output = check(place("any", line) if in_place else line)
    assert code != 0 and "Syntax OK" not in output
    assert quoted in output and allowed in output, output
    assert line.partition(" ")[0] in output, f"it does not name the directive: {output}"


@pytest.mark.parametrize("line, quoted, allowed", OUTSIDE)
def test_malformed_outside_of_hosts(check, line, quoted, allowed):
    code, output = check(main=line)
    assert code != 0 and quoted in output and allowed in output, output


WELL_FORMED = [
    "AuthBitbucketCallbackURL /oauth/back", "AuthBitbucketCallbackURL https://wiki.example.com/x/callback",
    "AuthBitbucketCallbackURL https://wiki.example.com:8443/callback", "AuthBitbucketCallbackURL http://localhost:8080/callback",
    "AuthBitbucketScope account email repository:write project:admin", "AuthBitbucketTokenURL http://127.0.0.1:9/token",
    "AuthBitbucketTokenURL http://localhost/token", "AuthBitbucketTokenURL http://[::1]:9/token",
    "AuthBitbucketAPIURL https://gateway.example.com/bitbucket/2.0/", "AuthBitbucketHTTPTimeout 1 60", "AuthBitbucketHTTPTimeout 2s",
    "AuthBitbucketProxy http://proxy.example.com:3128", "AuthBitbucketCookieName a-B_9", "AuthBitbucketCookieSameSite lax",
    "AuthBitbucketSessionTimeout 30m 1d", "AuthBitbucketSessionTimeout 3600", "AuthBitbucketSessionKey a-passphrase-of-some-length-0123456789",
]


@pytest.mark.parametrize("line", WELL_FORMED)
def test_well_formed(check, line):
    code, output = check(line)
    assert code == 0 and "Syntax OK" in output, output


@pytest.mark.parametrize("size", ["256K", "256k", "1M", "1G", "1048576", "128G", "131072M", "137438953472"])
def test_sizes_of_the_store(check, size):
    code, output = check(main=f"AuthBitbucketSessionCache shm({size})")
    assert code == 0, output


@pytest.mark.parametrize("line", [
    "AuthBitbucketClientID x", "AuthBitbucketClientSecret x", "AuthBitbucketCallbackURL /x/callback", "AuthBitbucketSessionKey x",
    "AuthBitbucketTokenURL https://x/", "AuthBitbucketAPIURL https://x/", "AuthBitbucketAuthorizeURL https://x/",
    "AuthBitbucketScope account", "AuthBitbucketHTTPTimeout 1s", "AuthBitbucketCAFile x", "AuthBitbucketProxy http://x",
    "AuthBitbucketCookieName x", "AuthBitbucketCookieDomain x.y", "AuthBitbucketCookieSameSite Lax",
    "AuthBitbucketSessionTimeout 1h", "AuthBitbucketSessionCache shm",
])
def test_settings_of_a_site_stand_in_no_directory(check, start_server, browser, line):
    code, output = check(f'<Location "/any">\n{line}\n</Location>')
    assert code != 0 and "not allowed" in output, output


@pytest.fixture
def with_htaccess(start_server):
    def start(text: str, override: str | None = None) -> VirtualHost:
        host = VirtualHost(place("any", "Require valid-user"))
        server = start_server.prepare(host)
        if override:
            config = server.config_file.read_text()
            server.config_file.write_text(re.sub("AllowOverride .*", "AllowOverride " + override, config))
        directory = server.content / "dir"
        directory.mkdir()
        (directory / "env.cgi").write_text((server.content / "env.cgi").read_text())
        (directory / "env.cgi").chmod(0o755)
        (directory / ".htaccess").write_text(text + "\n")
        server.start()
        return host
    return start


@pytest.mark.parametrize("line", ["AuthBitbucketClientSecret a-secret-in-htaccess", "AuthBitbucketClientID x",
                                  "AuthBitbucketSessionKey a-key-in-htaccess-file", "AuthBitbucketTokenURL https://evil.example/"])
def test_settings_of_a_site_stand_in_no_htaccess(with_htaccess, browser, logs, line):
    logs.remember(line.split()[1])
    host = with_htaccess(line)
    answer = browser.get(host.url("/dir/env.cgi"))
    assert answer.status == 500 and "REMOTE" not in answer.text


@pytest.mark.parametrize("line", ["Require bitbucket-workspace acme:admin", "Require bitbucket-user {x}",
                                  "AuthBitbucketRemoteUser shoe_size"])
def test_a_mistake_in_htaccess_lets_nobody_in(with_htaccess, browser, line):
    host = with_htaccess("AuthType Bitbucket\nRequire valid-user\n" + line)
    browser.sign_in(host.url("/any/page.html"), "mark")
    assert browser.get(host.url("/dir/env.cgi")).status == 500


def test_what_may_stand_in_htaccess(with_htaccess, browser):
    host = with_htaccess("AuthType Bitbucket\nAuthBitbucketRemoteUser email\nAuthBitbucketPrivate Off\n"
                         "Require bitbucket-workspace acme\n", override="AuthConfig")
    answer = browser.sign_in(host.url("/dir/env.cgi"), "mark")
    assert answer.environment["REMOTE_USER"] == "mark@acme.example"
    assert answer.header("Cache-Control") is None


def test_without_allow_override_it_may_not(with_htaccess, browser):
    host = with_htaccess("AuthType Bitbucket\nRequire valid-user\n", override="Limit")
    assert browser.get(host.url("/dir/env.cgi")).status == 500


# -- id and secret

@pytest.mark.parametrize("lines, directive, variable", [
    ("", "AuthBitbucketClientID", "BITBUCKET_CLIENT_ID"),
    (GOOD["secret"], "AuthBitbucketClientID", "BITBUCKET_CLIENT_ID"),
    (GOOD["id"], "AuthBitbucketClientSecret", "BITBUCKET_CLIENT_SECRET"),
])
@pytest.mark.parametrize("outside", [True, False])
def test_missing_id_or_secret(check, lines, directive, variable, outside):
    everything = lines + "\n" + place("any", "Require valid-user")
    code, output = check("" if outside else everything, main=everything if outside else "", client=False)
    assert code != 0
    assert directive in output and variable in output, output
    assert "AuthType Bitbucket" in output and re.search(r"httpd\.conf:\d+", output), "it names the place"


def test_without_any_use_nothing_is_needed(check):
    code, output = check(client=False)
    assert code == 0, output


def test_id_and_secret_from_the_environment(start_server, browser):
    host = VirtualHost(place("any", "Require valid-user"), configured=False)
    server = start_server(host, environment={"BITBUCKET_CLIENT_ID": host.client_id, "BITBUCKET_CLIENT_SECRET": host.client_secret})
    assert browser.sign_in(host.url("/any/env.cgi"), "mark").status == 200
    seen = browser.get(host.url("/any/env.cgi")).environment
    assert "BITBUCKET_CLIENT_SECRET" not in seen and host.client_secret not in str(seen)
    assert server.run("-t").returncode == 0


def test_a_directive_wins_over_the_environment(start_server, browser):
    host = VirtualHost(place("any", "Require valid-user"))
    start_server(host, environment={"BITBUCKET_CLIENT_ID": "other", "BITBUCKET_CLIENT_SECRET": "other-client-secret"})
    assert browser.get(host.url("/any/")).location_query["client_id"] == host.client_id
    assert browser.sign_in(host.url("/any/page.html"), "mark").status == 200


# -- where the secret comes from

def with_secret(start_server, specification: str, files: dict[str, tuple[str, int]] = {}, **more):
    """A host whose secret is told by a specification; files are put into conf/."""
    host = VirtualHost(configured=False)
    host.directives = (f"AuthBitbucketClientID {host.client_id}\nAuthBitbucketClientSecret {specification}\n"
                       + place("any", "Require valid-user"))
    server = start_server.prepare(host, **more)
    for name, (text, mode) in files.items():
        (server.root / "conf" / name).write_text(text.replace("SECRET", host.client_secret))
        (server.root / "conf" / name).chmod(mode)
    return host, server


SOURCES = {
    "file": ("file:conf/secret", {"secret": ("SECRET", 0o600)}),
    "file with line end": ("file:conf/secret", {"secret": ("SECRET\n", 0o600)}),
    "file with CRLF and more lines": ("file:conf/secret", {"secret": ("SECRET\r\nsomething else\n", 0o600)}),
    "program": ("exec:conf/print", {"print": ("#!/bin/sh\necho SECRET\necho more\n", 0o700)}),
    "program with arguments": ("exec:conf/print client secret",
                               {"print": ('#!/bin/sh\n[ "$1 $2" = "client secret" ] && echo SECRET\n', 0o700)}),
    "program with quoted arguments": ("\"exec:conf/print 'a b' c\"",
                                      {"print": ('#!/bin/sh\n[ "$1" = "a b" ] && [ "$2" = c ] && echo SECRET\n', 0o700)}),
    "program of the system": ("exec:/bin/sh conf/print", {"print": ("echo SECRET\n", 0o600)}),
}


@pytest.mark.parametrize("source", SOURCES)
def test_sources_of_the_secret(start_server, browser, source):
    specification, files = SOURCES[source]
    host, server = with_secret(start_server, specification, files)
    server.start()
    assert browser.sign_in(host.url("/any/page.html"), "mark").status == 200
    server.reload()
    assert browser.get(host.url("/any/page.html"), SCRIPT).status == 200


def test_absolute_file_and_environment_variable(start_server, browser):
    host, server = with_secret(start_server, "env:MY_OWN_SECRET")
    server._environment["MY_OWN_SECRET"] = host.client_secret
    server.start()
    assert browser.sign_in(host.url("/any/page.html"), "mark").status == 200


BAD_SOURCES = {
    "file:conf/absent": ({}, "conf/absent"),
    "file:conf": ({}, "conf"),
    "file:conf/empty": ({"empty": ("", 0o600)}, "empty"),
    "file:conf/blank": ({"blank": ("\nSECRET\n", 0o600)}, "empty"),
    "file:conf/control": ({"control": ("SEC\tRET\x01\n", 0o600)}, "control"),
    "file:conf/long": ({"long": ("x" * 100_000, 0o600)}, "more than"),
    "env:NOT_SET_ANYWHERE": ({}, "NOT_SET_ANYWHERE"),
    "exec:conf/absent": ({}, "conf/absent"),
    "exec:conf/fails": ({"fails": ("#!/bin/sh\necho SECRET\nexit 3\n", 0o700)}, "failed"),
    "exec:conf/silent": ({"silent": ("#!/bin/sh\n", 0o700)}, "empty"),
    "exec:conf/plain": ({"plain": ("echo SECRET\n", 0o600)}, "conf/plain"),
    "exec:": ({}, "program"),
    "file:": ({}, "file"),
    "env:": ({}, ""),
}


@pytest.mark.parametrize("specification", BAD_SOURCES)
def test_bad_sources_of_the_secret(start_server, specification):
    files, word = BAD_SOURCES[specification]
    host, server = with_secret(start_server, specification, files)
    done = server.run("-t")
    assert done.returncode != 0
    assert "AuthBitbucketClientSecret" in done.stdout and word in done.stdout, done.stdout
    assert host.client_secret not in done.stdout


def test_a_program_that_never_ends(start_server):
    """httpd -t ends nevertheless, when the ten seconds are over that a program has."""
    host, server = with_secret(start_server, "exec:conf/slow", {"slow": ("#!/bin/sh\nexec sleep 60\n", 0o700)})
    started = time.monotonic()
    done = server.run("-t")
    assert 9 < time.monotonic() - started < 30
    assert done.returncode != 0 and "conf/slow" in done.stdout


# -- secrets stay where they are

SECRET, KEY = "the-client-secret-nobody-may-see", "the-session-key-nobody-may-see-0123456789"
PASSWORD = "the-proxy-password-nobody-may-see"


def is_clean(text: str) -> bool:
    return not any(secret in text for secret in (SECRET, KEY, PASSWORD))


@pytest.mark.parametrize("lines", [
    f"AuthBitbucketClientSecret {SECRET}\nAuthBitbucketSessionKey {KEY} old-{KEY}",
    f'AuthBitbucketClientSecret "{SECRET}"\nAuthBitbucketSessionKey "{KEY}" "old {KEY}"',
    f"authbitbucketclientsecret {SECRET}\nAUTHBITBUCKETSESSIONKEY {KEY}",
])
@pytest.mark.parametrize("outside", [True, False])
def test_dumps_show_no_secret(start_server, browser, logs, lines, outside):
    logs.remember(SECRET)
    logs.remember(KEY)
    logs.remember(PASSWORD)
    place_for_info = '<Location "/server-info">\nSetHandler server-info\nRequire all granted\n</Location>\n'
    everything = f"AuthBitbucketClientID some-key\nAuthBitbucketProxy http://me:{PASSWORD}@127.0.0.1:9\n{lines}\n"
    host = VirtualHost(("" if outside else everything) + place_for_info + place("any", "Require valid-user"), configured=False)
    server = start_server(host, main=everything if outside else "")
    for arguments in (["-t", "-D", "DUMP_CONFIG"], ["-t", "-D", "DUMP_VHOSTS"], ["-t", "-D", "DUMP_RUN_CFG"], ["-S"]):
        done = server.run(*arguments)
        assert done.returncode == 0 and is_clean(done.stdout), arguments
    for query in ("", "?config", "?mod_auth_bitbucket.c", "?server"):
        answer = browser.get(host.url("/server-info" + query))
        assert answer.status == 200 and is_clean(answer.text), query
    server.reload()
    answer = browser.get(host.url("/server-info?config"))
    assert "some-key" in answer.text and is_clean(answer.text)


@pytest.mark.parametrize("line", [
    f"AuthBitbucketClientSecret {SECRET} {SECRET}", f'AuthBitbucketClientSecret "{SECRET}\x01"',
    f"AuthBitbucketProxy socks5://me:{PASSWORD}@proxy.example.com", f"AuthBitbucketProxy me:{PASSWORD}@proxy.example.com",
    f"AuthBitbucketProxy http://me:{PASSWORD}/x@proxy.example.com",
    f"AuthBitbucketTokenURL https://me:{PASSWORD}@bitbucket.org/token", f"AuthBitbucketAPIURL https://me:{PASSWORD}@bitbucket.org/2.0?x",
])
def test_messages_show_no_secret(check, line):
    code, output = check(line)
    assert code != 0 and is_clean(output), output


# -- an odd but allowed configuration

def test_auth_type_at_a_host_without_a_client(start_server, browser, logs):
    """A rule outside all hosts, meant for one of them: the other refuses, and says why."""
    logs.expect(tags.ANSWERED, "AuthBitbucketClientID")
    host, other = VirtualHost(), VirtualHost(configured=False)
    start_server(host, other, main=place("everywhere", "Require valid-user"))
    assert browser.sign_in(host.url("/everywhere/page.html"), "mark").status == 200
    answer = browser.get(other.url("/everywhere/page.html"))
    assert answer.status == 500 and answer.reference and "test page" not in answer.text


@pytest.mark.skipif(os.getuid() != 0, reason="only root may read another user's file")
def test_the_secret_file_is_read_before_privileges_are_dropped(start_server, browser):
    host, server = with_secret(start_server, "file:conf/secret", {"secret": ("SECRET", 0o400)})
    os.chown(server.root / "conf" / "secret", 0, 0)
    server.start()
    assert browser.sign_in(host.url("/any/page.html"), "mark").status == 200
