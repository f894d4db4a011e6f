"""The pages of docs/recipes as they stand there: the site as a whole. TLS, a load balancer in
front, and a local account beside Bitbucket. The other pages are in test_neighbour_recipes.py."""

from __future__ import annotations

import base64
import http.client
import re
import ssl
import subprocess
from pathlib import Path

import pytest

from harness.client import NAVIGATION, SCRIPT
from harness.config import VirtualHost, free_port
from harness.simulator import WORLD

recipe = pytest.mark.recipe


# -- TLS and HTTP/2

class WholeSite(VirtualHost):
    """A page that holds the <VirtualHost> itself. plain_port stands for port 80."""

    plain_port = 0

    def text(self) -> str:
        return f"Listen 127.0.0.1:{self.port}\nListen 127.0.0.1:{self.plain_port}\n{self.directives}"


@recipe("tls-http2")
@pytest.mark.only_mpms("event", "worker")
def test_tls_and_http2(paste, browser, tmp_path):
    site = WholeSite(name="wiki.example.test", tls=True)
    site.plain_port = free_port()
    site.directives = paste.block({"https://wiki.example.com": site.origin, "ServerName wiki.example.com": "ServerName " + site.name,
                                   "*:443": f"127.0.0.1:{site.port}", "*:80": f"127.0.0.1:{site.plain_port}",
                                   "/etc/ssl/certs/wiki.example.com.pem": "conf/site.crt",
                                   "/etc/ssl/private/wiki.example.com.key": "conf/site.key",
                                   "the-key-that-bitbucket-shows": site.client_id})
    paste.start(site, files={"/etc/apache2/bitbucket-client-secret": site.client_secret + "\n",
                             **{f"/srv/wiki/{number}.html": f"page {number}" for number in range(20)}})
    moved = browser.get(f"http://{site.name}:{site.plain_port}/7.html?a=b")
    assert moved.status == 301 and moved.location == site.url("/7.html?a=b")
    assert browser.walk(moved, "mark")[-1].text == "page 7"
    name, value = "__Host-bitbucket_session", browser.session_value(site.name)
    assert browser.jar.named(site.name, name)[name] == value

    url = f"https://127.0.0.1:{site.port}"
    guessed = f"{name}={'B' if value[0] == 'A' else 'A'}{value[1:]}"
    assert curl(site, tmp_path, "-b", f"{name}={value}", *[f"{url}/{number}.html" for number in range(20)]) == \
        sorted(f"2 200 page {number}" for number in range(20))
    assert [line[:5] for line in curl(site, tmp_path, "-b", guessed, url + "/1.html", url + "/2.html")] == ["2 401"] * 2
    assert "strict-transport-security: max-age=31536000" in curl(site, tmp_path, "-i", url + "/1.html")[0].lower()


def curl(site: VirtualHost, directory: Path, *words: str) -> list[str]:
    """Version, status and body of each answer, asked for at the same time."""
    said = subprocess.run(["curl", "-sSk", "--http2", "-Z", "-H", f"Host: {site.name}:{site.port}", "-O", "--remote-name-all",
                           "--output-dir", str(directory), "-w", r"%{http_version} %{http_code} %{filename_effective}\n", *words],
                          capture_output=True, text=True, timeout=30)
    assert said.returncode == 0, said.stderr
    found = [line.split(" ", 2) for line in said.stdout.splitlines()]
    return sorted(f"{version} {status} {Path(file).read_text()}" for version, status, file in found)


# -- a load balancer

LOAD_BALANCER, OFFICE, AT_HOME = "127.0.0.1", "127.9.0.1", "127.8.0.1"


def ask_from(address: str, host: VirtualHost, path: str, **headers: str) -> int:
    """The status that somebody at this address gets from a host of this machine."""
    kinds = {True: http.client.HTTPSConnection, False: http.client.HTTPConnection}
    more = {"context": ssl._create_unverified_context()} if host.tls else {}
    connection = kinds[host.tls]("127.0.0.1", host.port, timeout=20, source_address=(address, 0), **more)
    try:
        connection.request("GET", path, headers={"Host": f"localhost:{host.port}", **SCRIPT,
                                                 **{name.replace("_", "-"): value for name, value in headers.items()}})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


@recipe("remoteip")
def test_remoteip(paste, new_browser):
    port = free_port()
    balancer = VirtualHost(f'ProxyPreserveHost On\nProxyPass "/" "http://127.0.0.1:{port}/"', tls=True, configured=False)
    host = VirtualHost(paste.block({"192.0.2.10": LOAD_BALANCER, "198.51.100.0/24": "127.9.0.0/16",
                                    "https://wiki.example.com": balancer.origin}),
                       port=port, callback=balancer.origin + "/bitbucket/callback")
    server = paste.start(balancer, host)
    # Through the load balancer, which adds to what it gets.
    assert ask_from(OFFICE, balancer, "/page.html") == 200
    assert ask_from(AT_HOME, balancer, "/page.html") == 401
    assert ask_from(AT_HOME, balancer, "/page.html?spoofed", X_Forwarded_For=OFFICE) == 401
    # Past it: what the visitor says counts for nothing.
    assert ask_from(AT_HOME, host, "/page.html?past", X_Forwarded_For=OFFICE) == 401
    # Signing in works with the public address.
    browser = new_browser()
    assert ask_from(AT_HOME, balancer, "/page.html", Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document") == 302
    browser.get(browser.walk_to_callback(balancer.url("/bitbucket/login"), "mark"))
    assert "__Host-bitbucket_session" in browser.jar.named("localhost", "bitbucket_session")
    assert ask_from(AT_HOME, balancer, "/data.txt", Cookie=browser.jar.line("localhost", True)) == 200
    # A line is written after its answer, so two processes may write theirs in another order.
    for last in ("?spoofed", "?past", '" 302', "/data.txt"):
        lines = server.await_in_log("visitors.log", last).splitlines()
    seen = [re.sub(r" \[.*?\]", "", line) for line in lines if "/bitbucket/" not in line]
    assert sorted(seen) == sorted([
        f'{OFFICE} - "GET /page.html HTTP/1.1" 200', f'{AT_HOME} - "GET /page.html HTTP/1.1" 401',
        f'{AT_HOME} - "GET /page.html?spoofed HTTP/1.1" 401', f'{AT_HOME} - "GET /page.html?past HTTP/1.1" 401',
        f'{AT_HOME} - "GET /page.html HTTP/1.1" 302', f'{AT_HOME} mark_miller "GET /data.txt HTTP/1.1" 200'])
    sent, = [line for line in server.error_log.read_text().splitlines() if "ABB0104" in line and "/page.html" not in line
             and "[client 127.0.0.1" not in line]
    assert f"[client {AT_HOME}:" in sent


# -- a local account

def basic(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


RESCUE = basic("rescue@local", "a long password of this server")
WRONG = [basic("rescue@local", "guess"), basic("rescue@local", ""), basic("nobody", "guess"), basic("", ""),
         {"Authorization": "Basic"}, {"Authorization": "Basic !"}, {"Authorization": "Bearer x"},
         # Somebody's name at Bitbucket, in the file by chance.
         basic("mark_miller", "a password of no use")]


def with_passwords(server) -> None:
    file = server.root / "etc/apache2/break-glass.users"
    file.parent.mkdir(parents=True)
    file.touch()
    for name, password in (("rescue@local", "a long password of this server"), ("mark_miller", "a password of no use")):
        subprocess.run(["htpasswd", "-bB", str(file), name, password], check=True, capture_output=True)


@recipe("break-glass")
@pytest.mark.one_mpm
def test_a_local_account(paste, new_browser, simulator):
    inner = '<Location "/owners">\nRequire bitbucket-workspace acme:owner\n</Location>'
    host, _ = paste({"192.0.2.0/24": "127.0.0.0/8"}, after=inner, prepare=with_passwords,
                    files={"/content/owners/page.html": "for owners", "/content/kept/page.html": "for owners",
                           "/content/kept/.htaccess": "AuthType Bitbucket\nRequire bitbucket-workspace acme:owner\n"})
    url = host.url("/env.cgi")
    mark = new_browser()
    assert mark.sign_in(url, "mark").environment["REMOTE_USER"] == "mark_miller"
    for route in ("authorize", "token", "api"):
        simulator.fault(route, status=503)
    simulator.forget_calls()
    # With the password, with or without a session.
    for browser in (new_browser(), mark):
        seen = browser.get(url, {**NAVIGATION, **RESCUE})
        assert seen.status == 200 and seen.environment["REMOTE_USER"] == "rescue@local"
        assert seen.environment["AUTH_TYPE"] == "Basic"
        assert not [name for name in seen.environment if name.startswith("BITBUCKET_")]
    for path in ("/owners/page.html", "/kept/page.html"):
        assert new_browser().get(host.url(path), {**NAVIGATION, **RESCUE}).text == "for owners"
    # With a wrong one.
    for headers in WRONG:
        for kind in (NAVIGATION, SCRIPT):
            answer = new_browser().get(url, {**kind, **headers})
            assert answer.status in (401, 302) and "REMOTE_USER" not in answer.text, headers
            if " " in headers["Authorization"] and "Bearer" not in headers["Authorization"]:
                assert answer.status == 401 and answer.header("WWW-Authenticate") == 'Basic realm="Break glass"'
    # Without any: as ever.
    assert new_browser().get(url).location.startswith(simulator.authorize_url)
    assert new_browser().get(url, SCRIPT).status == 401
    assert mark.get(url).environment["REMOTE_USER"] == "mark_miller"
    assert simulator.asked() == []
    simulator.clear_faults()
    assert new_browser().sign_in(url, "oscar").status == 403


@recipe("break-glass")
@pytest.mark.one_mpm
def test_the_door_for_browsers(paste, new_browser):
    host, _ = paste({"192.0.2.0/24": "127.0.0.0/8"}, prepare=with_passwords)
    for headers in (NAVIGATION, {**NAVIGATION, **WRONG[0]}):
        asked = new_browser().get(host.url("/break-glass"), headers)
        assert asked.status == 401 and asked.header("WWW-Authenticate") == 'Basic realm="Break glass"'
    opened = new_browser().get(host.url("/break-glass"), {**NAVIGATION, **RESCUE})
    assert opened.status == 302 and opened.location == host.url("/")
    for path in ("/break-glass/", "/break-glass/x", "/BREAK-GLASS", "//break-glass", "/break-glass%2f"):
        assert new_browser().get(host.url(path), SCRIPT).status in (401, 404), path


@recipe("break-glass")
@pytest.mark.one_mpm
def test_a_local_account_from_elsewhere(paste, new_browser):
    """The addresses as they stand there are not this machine's."""
    host, _ = paste(prepare=with_passwords)
    for path in ("/page.html", "/break-glass"):
        for headers in (RESCUE, WRONG[0]):
            assert new_browser().get(host.url(path), {**NAVIGATION, **headers}).status == 403
    assert new_browser().sign_in(host.url("/page.html"), "mark").status == 200


@recipe("break-glass")
@pytest.mark.one_mpm
def test_a_local_account_and_api_tokens_do_not_go_together(paste, new_browser, simulator):
    host, _ = paste({"192.0.2.0/24": "127.0.0.0/8"}, prepare=with_passwords,
                    after='<Location "/page.html">\nAuthBitbucketAPIToken On\n</Location>')
    token = basic("mark@acme.example", WORLD["accounts"]["mark"]["api_tokens"][0]["token"])
    assert new_browser().get(host.url("/page.html"), {**SCRIPT, **token}).status == 401
    assert new_browser().get(host.url("/page.html"), {**SCRIPT, **RESCUE}).status == 200
    assert simulator.asked() == []


@recipe("break-glass")
@pytest.mark.one_mpm
@pytest.mark.parametrize("more", ["", "AuthBitbucketUnauthenticated pass"])
def test_basic_within_our_section_does_nothing(paste, new_browser, more):
    """The tempting way, of which the page warns."""
    after = '<Location "/tempting">\nAuthType Bitbucket\n' + more + '\nAuthBasicProvider file\nAuthUserFile ' \
            '"${ROOT}/etc/apache2/break-glass.users"\nRequire user rescue@local\n</Location>\nAlias "/tempting" "${CONTENT}"'
    host = VirtualHost(after)
    paste.start(host, prepare=with_passwords)
    assert new_browser().get(host.url("/tempting/page.html"), {**SCRIPT, **RESCUE}).status == 401
