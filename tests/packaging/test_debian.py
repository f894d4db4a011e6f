"""The Debian packages: built, looked at by lintian, installed, used, upgraded, removed."""

from __future__ import annotations

import os
import subprocess

import pytest

from harness.client import SCRIPT
from harness.config import VirtualHost, bitbucket_text
from harness.server import Server
from machine import Machine, run
from packages import NAME, checks_at_build

STORE = "/var/lib/mod_auth_bitbucket"
MODULE = "/usr/lib/apache2/modules/mod_auth_bitbucket.so"
SECRET = "/etc/apache2/bitbucket-client-secret"


# -- built

def test_lintian_has_nothing_to_say(source):
    [changes] = source.directory.parent.glob(f"{NAME}_{source.version}_*.changes")
    said = subprocess.run(["lintian", "--allow-root", "--fail-on", "error,warning", changes], capture_output=True, text=True)
    assert (said.returncode, said.stdout) == (0, ""), said.stdout + said.stderr


def test_source_holds_what_the_tree_holds(source):
    names = run("tar", "-tf", source.file(f"_{source.version}.tar.xz")).splitlines()
    inside = {name.partition("/")[2] for name in names}
    assert {"debian/rules", "configure.ac", "docs/directives.md", "tests/packaging/machine.py"} <= inside
    assert [name for name in inside if name.startswith((".git/", "build/")) or "__pycache__" in name] == []


def test_unit_tests_run_at_build_unless_told(source):
    assert " check" in checks_at_build(source, "")
    assert checks_at_build(source, "nocheck") == ""


def test_header_for_other_modules(source, tmp_path):
    run("dpkg-deb", "-x", source.deb("-dev"), tmp_path)
    example = tmp_path / f"usr/share/doc/{NAME}-dev/examples/mod_example_who.c"
    flags = run("sh", "-c", "apr-1-config --cppflags --includes").split()
    run("gcc", "-fsyntax-only", "-Werror", *flags, "-I", tmp_path / "usr/include/apache2", "-I", "/usr/include/apache2", example)


# -- used

class PackagedServer(Server):
    """Debian's httpd with Debian's configuration, in a machine."""

    def __init__(self, machine: Machine, host: VirtualHost) -> None:
        self.machine, self.hosts, self.mpm, self.root = machine, [host], "event", machine.root
        self._environment, self._clock, self._preload, self._process = {}, None, (), None
        (self.root / "logs").symlink_to("var/log/apache2")

    def command(self) -> list[str]:
        return ["chroot", str(self.root), "/bin/sh", "-c", '. /etc/apache2/envvars; exec /usr/sbin/apache2 "$@"', "httpd"]

    def remove(self) -> None:
        """Goes with the machine."""


@pytest.fixture
def machine(place):
    root = place / "machine"
    root.mkdir()
    machine = Machine(root, place / "downloads")
    machine.path("/etc/apache2/ports.conf").write_text("# Each site says where it listens.\n")
    machine.path("/etc/apache2/conf-enabled/name.conf").write_text("ServerName localhost\n")
    machine.run("a2dissite", "-q", "000-default")
    machine.wanted_of_the_service()
    return machine


@pytest.fixture
def server(machine, log_watch):
    host = VirtualHost()
    server = PackagedServer(machine, host)
    log_watch.watch(server)
    yield server
    server.stop()


def write_site(machine, host, simulator):
    """The example that comes with the package, with this site's values in it."""
    simulator.register(host.client_id, host.client_secret, host.callback_url, scopes=["account", "email"])
    secret = machine.path(SECRET)
    secret.write_text(host.client_secret + "\n")
    secret.chmod(0o600)
    text = machine.path(f"/usr/share/doc/{NAME}/examples/site.conf").read_text()
    for old, new in (("<VirtualHost *:443>", f"Listen 127.0.0.1:{host.port}\n<VirtualHost 127.0.0.1:{host.port}>"),
                     ("https://wiki.example.com", host.origin), ("wiki.example.com", host.name),
                     ("the-key-that-bitbucket-shows", host.client_id)):
        assert old in text
        text = text.replace(old, new)
    machine.path("/etc/apache2/sites-available/wiki.conf").write_text(text)
    machine.path("/etc/apache2/conf-enabled/simulator.conf").write_text(
        "<IfModule mod_auth_bitbucket.c>\n"
        + bitbucket_text(simulator.authorize_url, simulator.token_url, simulator.api_url) + "</IfModule>\n")
    machine.run("a2ensite", "-q", "wiki")


def restart(server):
    server.stop()
    server.start()


def page(browser, host):
    return browser.get(host.url("/index.html"), SCRIPT).status


def modes(directory):
    return {path.name: path.stat().st_mode & 0o7777 for path in directory.iterdir()}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the root directory and install")
def test_from_installing_to_purging(machine, server, source, simulator, browser, new_browser, logs):
    host, store = server.hosts[0], machine.path(STORE)

    machine.install(source.deb())
    assert machine.run("a2query", "-m", "auth_bitbucket").startswith("auth_bitbucket (enabled by maintainer script)")
    assert machine.wanted_of_the_service() == ["apache2 restart"]
    assert machine.run("apache2ctl", "configtest").strip() == "Syntax OK", "without a site of its own"
    assert (store.stat().st_mode & 0o7777, store.stat().st_uid, store.stat().st_gid) == (0o700, 0, 0)
    assert modes(store) == {}
    assert machine.run("dpkg", "--verify", NAME) == ""

    write_site(machine, host, simulator)
    server.start()
    assert page(browser, host) == 401
    assert browser.sign_in(host.url("/index.html"), "mark").status == 200
    assert modes(store) == {"sessions": 0o600, "sessions.key": 0o600, "sessions.lock": 0o600}
    waiting = new_browser()
    callback = waiting.walk_to_callback(host.url("/index.html"), "olivia")

    before = machine.path(MODULE).read_bytes()
    source.become("0.1.0+next")
    source.build("-b", "-nc")
    said = machine.install(source.deb())
    assert "Unpacking" in said and "over (0.1.0)" in said
    assert machine.path(MODULE).read_bytes() != before
    assert machine.wanted_of_the_service() == ["apache2 restart"]
    assert page(browser, host) == 200, "the site runs on until it is restarted"
    restart(server)
    assert page(browser, host) == 200
    assert browser.get(host.endpoint("userinfo")).json["username"] == "mark_miller", "the tokens open"
    assert waiting.get(callback).status == 303, "a sign-in that was under way"
    assert page(waiting, host) == 200

    machine.run("a2dissite", "-q", "wiki")
    machine.run("dpkg", "-r", NAME)
    assert machine.wanted_of_the_service() == ["apache2 restart"]
    server.stop()
    assert machine.run("apache2ctl", "configtest").strip() == "Syntax OK"
    assert set(modes(store)) == {"sessions", "sessions.key", "sessions.lock"}, "removed is not purged"
    machine.install(source.deb())
    machine.run("a2ensite", "-q", "wiki")
    server.start()
    assert page(browser, host) == 200, "installed again"
    server.stop()

    machine.run("a2dissite", "-q", "wiki")
    machine.run("dpkg", "-P", NAME)
    assert machine.traces("auth_bitbucket") == machine.traces("auth-bitbucket") == []
    assert machine.path(SECRET).exists(), "what the administrator wrote stays"
