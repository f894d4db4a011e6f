"""Answers to signed-in visitors stay out of shared caches."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from harness import config
from harness.client import SCRIPT
from harness.config import VirtualHost, place
from harness.fixtures import lasting, wanted_mpms
from harness.server import Server


def says(value: str) -> str:
    return f"SetEnv WANTED_CACHE_CONTROL '{value}'"


# What the application says, and what the visitor gets.
CONTROLS = {
    "nothing": (None, {"private"}),
    "public": ("public", {"private"}),
    "public-age": ("public, max-age=600", {"private", "max-age=600"}),
    "shared-age": ("s-maxage=600, max-age=60", {"private", "max-age=60"}),
    "PUBLIC": ("PUBLIC, S-MaxAge=600", {"private"}),
    "private": ("private, max-age=60", {"private", "max-age=60"}),
    "private-field": ('private="Set-Cookie", max-age=60', {"private", "max-age=60", 'private="Set-Cookie"'}),
    "no-store": ("no-store", {"private", "no-store"}),
    "quoted": (r'max-age=60, no-cache="a, private"', {"private", "max-age=60", 'no-cache="a', 'private"'}),
    "quoted-private": (r'max-age=60, no-cache="a, Private, b"', {"private", "max-age=60", 'no-cache="a', "Private", 'b"'}),
    "quoted-public": (r'no-cache="a, public", public', {"private", 'no-cache="a', 'public"'}),
    "unquoted": (r'max-age=60, no-cache="a, Private', {"private", "max-age=60", 'no-cache="a', "Private"}),
    "no-cache": ("no-cache, must-revalidate", {"private", "no-cache", "must-revalidate"}),
    "space-before-comma": ("public , max-age=60 , s-maxage=600 ", {"private", "max-age=60"}),
    "private-and-space": ("max-age=60, private , no-transform", {"private", "max-age=60", "no-transform"}),
    "immutable": ("public, max-age=31536000, immutable", {"private", "max-age=31536000", "immutable"}),
}

# Lines of Cache-Control that a proxied application sends, and what the visitor gets.
LINES = {
    "no-store-last": (["max-age=0", "no-store"], {"private", "max-age=0", "no-store"}),
    "public-last": (["max-age=60", "public, s-maxage=600"], {"private", "max-age=60"}),
    "private-first": (["private", "max-age=60"], {"private", "max-age=60"}),
    "three": (["public", "max-age=60", "must-revalidate"], {"private", "max-age=60", "must-revalidate"}),
}

# Fields by which some caches go instead of Cache-Control, and some that only look like them.
TARGETED = ("CDN-Cache-Control", "Cloudflare-CDN-Cache-Control", "akamai-cache-control", "Surrogate-Control", "EDGE-CONTROL",
            "X-Accel-Expires")
ALIKE = ("CDN-Cache-Control-Was", "XCache-Control", "Surrogate-Key")


def sets(condition: str = "onsuccess") -> list[str]:
    return [f'Header {condition} set {name} "public, max-age=600"' for name in TARGETED + ALIKE]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with the lines that the address names."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        for value in LINES[self.path.lstrip("/")][0]:
            self.send_header("Cache-Control", value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def application() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", config.free_port()), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def hosts(shared_simulator, application):
    host = VirtualHost("\n".join([
        *(place(name, *([says(value)] if value else []), "Require valid-user") for name, (value, _) in CONTROLS.items()),
        f'<Location "/lines/">\n    AuthType Bitbucket\n    Require valid-user\n    ProxyPass "{application}"\n</Location>',
        place("off", "AuthBitbucketPrivate Off", says("public, max-age=600"), "Require valid-user"),
        place("headers", 'Header set Cache-Control "public, max-age=600"', "Require valid-user"),
        place("always", 'Header always set Cache-Control "public, max-age=600"', "Require valid-user"),
        place("targeted", *sets(), "Require valid-user"),
        place("targeted-always", *sets("always"), "Require valid-user"),
        place("targeted-off", "AuthBitbucketPrivate Off", *sets(), "Require valid-user"),
        place("expires", "ExpiresActive On", 'ExpiresDefault "access plus 1 hour"', "Require valid-user"),
        place("team", "Require bitbucket-workspace acme"),
        place("open", says("public, max-age=600"), auth=False),
    ]))
    server = Server([host], shared_simulator, wanted_mpms()[0])
    directory = server.content / "with-htaccess"
    directory.mkdir()
    (directory / "env.cgi").write_text((server.content / "env.cgi").read_text())
    (directory / "env.cgi").chmod(0o755)
    (directory / ".htaccess").write_text("AuthType Bitbucket\nRequire valid-user\nAuthBitbucketPrivate Off\n"
                                         + says("public, max-age=600") + "\n")
    with lasting(server):
        yield host


def controls(answer) -> set[str]:
    value = answer.header("Cache-Control") or ""
    return {word.strip() for word in value.split(",") if word.strip()}


@pytest.mark.parametrize("name", CONTROLS)
def test_what_the_application_says(hosts, log_watch, browser, name):
    answer = browser.sign_in(hosts.url(f"/{name}/env.cgi"), "mark")
    assert answer.status == 200
    assert controls(answer) == CONTROLS[name][1]
    assert len((answer.header("Cache-Control") or "").split(",")) == len(CONTROLS[name][1]), "no word comes twice"
    assert len(answer.header_lines("Cache-Control")) == 1


@pytest.mark.parametrize("name", LINES)
def test_several_lines(hosts, log_watch, browser, name):
    """mod_proxy hands on each line as it came."""
    answer = browser.sign_in(hosts.url(f"/lines/{name}"), "mark")
    assert answer.status == 200 and controls(answer) == LINES[name][1]
    assert len(answer.header_lines("Cache-Control")) == 1


@pytest.mark.parametrize("name", ["headers", "always", "expires"])
def test_what_other_modules_say(hosts, log_watch, browser, name):
    """mod_headers and mod_expires work as late as a cache does; we come after them."""
    found = controls(browser.sign_in(hosts.url(f"/{name}/page.html"), "mark"))
    assert "private" in found and "public" not in found


@pytest.mark.parametrize("name", ["targeted", "targeted-always"])
def test_what_is_said_to_some_caches_only(hosts, log_watch, browser, name):
    """A CDN that finds a field of its own does not look at Cache-Control."""
    answer = browser.sign_in(hosts.url(f"/{name}/page.html"), "mark")
    assert answer.status == 200 and [field for field in TARGETED if answer.header(field)] == []
    assert [field for field in ALIKE if answer.header(field)] == list(ALIKE)


def test_static_files_too(hosts, log_watch, browser):
    assert controls(browser.sign_in(hosts.url("/nothing/page.html"), "mark")) == {"private"}
    answer = browser.get(hosts.url("/nothing/page.html"))
    again = browser.get(hosts.url("/nothing/page.html"), {**SCRIPT, "If-None-Match": answer.header("ETag")})
    assert again.status == 304 and "public" not in controls(again)


@pytest.mark.parametrize("path", ["/nothing/absent.html", "/nothing/data.txt/x"])
def test_errors_too(hosts, log_watch, browser, path):
    answer = browser.sign_in(hosts.url(path), "mark")
    assert answer.status == 404 and controls(answer) == {"private"}


@pytest.mark.parametrize("path", ["/off/env.cgi", "/with-htaccess/env.cgi"])
def test_switched_off(hosts, log_watch, browser, path):
    assert controls(browser.sign_in(hosts.url(path), "mark")) == {"public", "max-age=600"}


def test_switched_off_for_some_caches(hosts, log_watch, browser):
    answer = browser.sign_in(hosts.url("/targeted-off/page.html"), "mark")
    assert [field for field in TARGETED if answer.header(field)] == list(TARGETED)


def test_open_places_are_left_alone(hosts, log_watch, browser):
    browser.sign_in(hosts.url("/nothing/page.html"), "mark")
    assert controls(browser.get(hosts.url("/open/env.cgi"))) == {"public", "max-age=600"}


def test_refusals_are_not_kept(hosts, log_watch, browser):
    answer = browser.sign_in(hosts.url("/team/page.html"), "oscar")
    assert answer.status == 403 and controls(answer) & {"no-store", "private"} and "public" not in controls(answer)


CACHE = """
CacheEnable socache "/"
CacheSocache shmcb
CacheQuickHandler On
CacheIgnoreNoLastMod On
Header set Cache-Control "public, max-age=600"
"""


@pytest.mark.parametrize("private", [True, False])
def test_mod_cache(start_server, new_browser, private):
    """It answers before anybody is asked who they are. With AuthBitbucketPrivate Off it
    hands the page to a stranger, which shows that this test can fail."""
    host = VirtualHost(CACHE + place("any", *([] if private else ["AuthBitbucketPrivate Off"]), "Require valid-user"))
    start_server(host)
    browser = new_browser()
    assert browser.sign_in(host.url("/any/page.html"), "mark").status == 200
    assert browser.get(host.url("/any/page.html")).status == 200
    stranger = new_browser().get(host.url("/any/page.html"))
    assert stranger.status == (302 if private else 200)


def test_the_callback_comes_before_mod_cache(start_server, browser):
    """Else mod_cache would look it up, and at debug write the code into the log."""
    host = VirtualHost("LogLevel cache:debug\n" + CACHE + place("any", "Require valid-user"))
    start_server(host)
    assert browser.sign_in(host.url("/any/page.html"), "mark").status == 200


def test_mod_cache_and_the_endpoints(start_server, new_browser):
    """Neither redirects, nor pages, nor userinfo are kept."""
    host = VirtualHost(CACHE + place("any", "Require valid-user"))
    start_server(host)
    browsers = [new_browser(), new_browser()]
    locations = [browser.get(host.url("/any/page.html")).location for browser in browsers]
    assert locations[0] != locations[1]
    for browser, person in zip(browsers, ("mark", "olivia")):
        browser.sign_in(host.url("/any/page.html"), person)
    names = [browser.get(host.endpoint("userinfo"), SCRIPT).json["display_name"] for browser in browsers]
    assert names == ["Mark Miller", "Olivia Owens"]
    assert new_browser().get(host.endpoint("userinfo"), SCRIPT).status == 401
    tokens = [browser.get(host.endpoint("logout")).forms[0].fields["token"] for browser in browsers]
    assert tokens[0] != tokens[1]
