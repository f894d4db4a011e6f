"""The pages of docs/recipes as they stand there: programs and modules within httpd, and PHP.
Each block of each page is run by a test that is marked with it."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from harness.client import SCRIPT
from harness.recipes import PAGES, Page
from harness.server import START_SECONDS, STOP_SECONDS, web_user
from harness.simulator import account, uuid_of

recipe = pytest.mark.recipe
MARK = ["mark_miller", uuid_of("mark")]
EVIL = {**SCRIPT, "X-Bitbucket-Uuid": "evil", "Remote-User": "evil", "BITBUCKET_UUID": "evil"}


# -- the pages as such

def names_of_pages() -> set[str]:
    return {path.stem for path in PAGES.glob("*.md")} - {"README"}


def test_every_block_of_every_page_is_run():
    blocks = {(name, number) for name in names_of_pages() for number in range(len(Page(name).samples("apache")))}
    marks = {(name, int(number or 0)) for file in Path(__file__).parent.glob("test_neighbour_recipes*.py")
             for name, number in re.findall(r'(?m)^@recipe\("([a-z0-9-]+)"(?:, (\d+))?\)', file.read_text())}
    assert marks == blocks and {name for name, _ in blocks} == names_of_pages()


def test_the_index_names_every_page():
    linked = re.findall(r"(?m)^\|[^|]+\| \[([a-z0-9-]+)\]\(\1\.md\) \|[^|]+\|$", (PAGES / "README.md").read_text())
    assert sorted(linked) == sorted(names_of_pages())


def test_pages_are_of_one_shape():
    for name in names_of_pages():
        text = Page(name).text
        assert re.findall(r"(?m)^## (.*)", text) == ["What it does", "What can go wrong"], name
        assert text.count("| You see | It is |") == 1 and text.startswith("# "), name


def refused(new_browser, url: str) -> None:
    """A program without a session, and somebody of another workspace."""
    stranger = new_browser().get(url, EVIL)
    assert stranger.status == 401 and "evil" not in stranger.text
    assert new_browser().sign_in(url, "oscar").status == 403


# -- programs within httpd

@recipe("cgi")
def test_cgi(paste, new_browser):
    count = '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"\nenv\necho "$REMOTE_USER" >> "${0%/*}/ran/by"\n'
    host, server = paste(programs={"/srv/wiki/cgi-bin/who": paste.page.samples("sh")[0], "/srv/wiki/cgi-bin/count": count},
                         writable=("/srv/wiki/cgi-bin/ran",))
    mark = new_browser()
    assert mark.sign_in(host.url("/cgi-bin/who"), "mark").text.splitlines() == [*MARK, "mark@acme.example", "Mark Miller"]
    zoe = new_browser().sign_in(host.url("/cgi-bin/who"), "zoe")
    assert zoe.body.decode().splitlines()[-1] == account("zoe")["display_name"]
    refused(new_browser, host.url("/cgi-bin/count"))
    assert "evil" not in mark.get(host.url("/cgi-bin/count"), {**SCRIPT, "X-Bitbucket-Uuid": "evil"}).text
    assert (server.root / "srv/wiki/cgi-bin/ran/by").read_text() == "mark_miller\n"


@recipe("log")
@pytest.mark.one_mpm
def test_log(paste, new_browser):
    host, server = paste()
    mark = new_browser()
    mark.sign_in(host.url("/page.html"), "mark")
    refused(new_browser, host.url("/data.txt"))
    for last in ('/page.html HTTP/1.1" 200', '/data.txt HTTP/1.1" 401', '/data.txt HTTP/1.1" 403'):
        lines = server.await_in_log("wiki.log", last).splitlines()
    found = {tuple(re.fullmatch(r'(\S+) (\S+) (\S+) (\S+) \[[^]]+\] "GET (\S+) HTTP/1.1" (\d+)', line).groups())
             for line in lines if "/bitbucket/" not in line}
    assert ("127.0.0.1", *MARK, "-", "/page.html", "200") in found
    assert ("127.0.0.1", "-", "-", "-", "/data.txt", "401") in found
    assert ("127.0.0.1", "oscar_ortega", "/data.txt", "403") in {(a, u, p, s) for a, u, _, _, p, s in found}


@recipe("lua")
@pytest.mark.one_mpm
def test_lua(paste, new_browser, simulator):
    host, _ = paste(files={"/srv/wiki/lua/who.lua": paste.page.samples("lua")[0]})
    url = host.url("/lua/who.lua")
    assert new_browser().sign_in(url, "mark").text.splitlines() == [*MARK, "mark@acme.example"]
    simulator.change_account("priya", emails=[{"email": "priya@acme.example", "is_primary": True, "is_confirmed": False}])
    assert new_browser().sign_in(url, "priya").text.splitlines()[-1] == "no address"
    refused(new_browser, url)


@recipe("ssi")
@pytest.mark.one_mpm
def test_ssi(paste, new_browser, simulator):
    host, _ = paste(before='Alias "/pages/" "${ROOT}/srv/pages/"\n<Directory "${ROOT}/srv">\nRemoveOutputFilter .shtml\n'
                           "RemoveType .shtml\nOptions None\n</Directory>",
                    files={"/srv/pages/who.shtml": paste.page.samples("html")[0]})
    url = host.url("/pages/who.shtml")
    simulator.change_account("mark", display_name="<script>Zoë</script>")
    mark = new_browser().sign_in(url, "mark")
    assert mark.body.decode() == "<p>Hello &lt;script&gt;Zo\u00eb&lt;/script&gt; (mark_miller).\n</p>\n"
    assert mark.header("Content-Type").startswith("text/html")
    assert "(olivia_owens).\nYou own it." in new_browser().sign_in(url, "olivia").text
    refused(new_browser, url)


ROOT = 'DocumentRoot "${ROOT}/srv/wiki"'


@recipe("rewrite")
@pytest.mark.one_mpm
def test_rewriting_outside_of_sections(paste, new_browser, simulator):
    files = {f"/srv/wiki/people/{name}/plan.html": f"plan of {name}" for name in ("mark_miller", "olivia_owens", "oscar_ortega")}
    more = 'RewriteCond %{LA-U:ENV:BITBUCKET_UUID} (.+)\nRewriteRule "^/ahead$" "/ahead/%1" [R]\n' \
           'RewriteRule "^/blind$" "/blind/%{REMOTE_USER}:%{ENV:BITBUCKET_UUID}" [R]'
    host, _ = paste(before=ROOT, after=more, files=files)
    for person, name in (("mark", "mark_miller"), ("olivia", "olivia_owens")):
        browser = new_browser()
        assert browser.sign_in(host.url("/me/plan.html"), person).text == f"plan of {name}"
        simulator.forget_calls()
        assert browser.get(host.url("/me/plan.html")).text == f"plan of {name}"
        # What the table of contexts says.
        assert browser.get(host.url("/ahead")).location.endswith("/ahead/" + uuid_of(person))
        assert browser.get(host.url("/blind")).location.endswith("/blind/:")
        assert simulator.asked() == []
    for path in ("/me/plan.html", "/people/mark_miller/plan.html"):
        refused(new_browser, host.url(path))
        assert new_browser().get(host.url(path)).status == 302, "a sign-in, no page that is not there"


@recipe("rewrite", 1)
@pytest.mark.one_mpm
def test_rewriting_in_a_directory(paste, new_browser):
    files = {f"/srv/wiki/reports/{uuid_of(name)}.html": f"report of {name}" for name in ("mark", "olivia", "oscar")}
    more = '<Directory "${ROOT}/srv/wiki/names">\nAuthType Bitbucket\nRequire valid-user\nRewriteEngine On\n' \
           'RewriteRule "^name$" "/x/%{REMOTE_USER}" [R]\n</Directory>'
    host, _ = paste(before=ROOT, after=more, files={**files, "/srv/wiki/names/none": ""})
    for person, name in (("mark", "mark_miller"), ("olivia", "olivia_owens")):
        browser = new_browser()
        assert browser.sign_in(host.url("/reports/mine.html"), person).text == f"report of {person}"
        assert browser.get(host.url("/names/name")).location.endswith("/x/" + name)
    refused(new_browser, host.url("/reports/mine.html"))


# -- PHP

class PhpFpm:
    """A php-fpm with a pool and a socket of its own."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "fpm.sock"
        self._asked = directory / "asked.log"
        as_user = f"user = {web_user()}\ngroup = {web_user()}\nlisten.owner = {web_user()}\n" if web_user() else ""
        settings = directory / "fpm.conf"
        settings.write_text(f"[global]\nerror_log = {directory}/fpm.log\ndaemonize = no\n[www]\n{as_user}"
                            f"listen = {self.socket}\npm = static\npm.max_children = 2\n"
                            f'access.log = {self._asked}\naccess.format = "%m %r"\n')
        program = max(Path("/usr/sbin").glob("php-fpm*"))
        with open(directory / "fpm.out", "wb") as output:
            self._process = subprocess.Popen([str(program), "-n", "-F", "-y", str(settings)], stdin=subprocess.DEVNULL,
                                             stdout=output, stderr=output)

        deadline = time.monotonic() + START_SECONDS
        while not self.socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError("php-fpm did not start:\n" + (directory / "fpm.out").read_text())
            time.sleep(0.02)

    def asked(self) -> int:
        return len(self._asked.read_text().splitlines())

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="session")
def php(scratch):
    (scratch / "php").mkdir()
    php = PhpFpm(scratch / "php")
    yield php
    php.stop()


def own_socket(php: PhpFpm) -> dict[str, str]:
    return {"/run/php/php8.2-fpm.sock": str(php.socket)}


@recipe("php-fpm")
def test_php(paste, new_browser, php):
    host, _ = paste(own_socket(php), files={"/content/who.php": paste.page.samples("php")[0]})
    url = host.url("/who.php")
    mark = new_browser()
    assert mark.sign_in(url, "mark").text.splitlines() == [*MARK, "Mark Miller"]
    assert new_browser().sign_in(url, "zoe").body.decode().splitlines()[2] == account("zoe")["display_name"]
    asked = php.asked()
    refused(new_browser, url)
    assert php.asked() == asked > 0


@recipe("php-fpm")
@pytest.mark.one_mpm
def test_php_and_what_a_browser_says(paste, browser, php):
    """PHP_AUTH_USER is whatever it says, as the page warns; what the module says stays."""
    host, _ = paste(own_socket(php), after='SetEnvIfNoCase ^Authorization$ "(.+)" HTTP_AUTHORIZATION=$1\n'
                                           'ProxyFCGISetEnvIf "true" MY_USER "%{reqenv:BITBUCKET_UUID}"',
                    files={"/content/all.php": "<?php echo json_encode($_SERVER);"})
    browser.sign_in(host.url("/all.php"), "mark")
    seen = browser.get(host.url("/all.php"), {**EVIL, "Authorization": "Basic b2xpdmlhOng="}).json
    assert seen["PHP_AUTH_USER"] == "olivia"
    assert [seen["REMOTE_USER"], seen["BITBUCKET_UUID"], seen["MY_USER"]] == [*MARK, uuid_of("mark")]
    assert not [name for name in seen if name.startswith("HTTP_X_BITBUCKET")]
