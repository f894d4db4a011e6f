"""Other modules that ask httpd who may what: listings, WebDAV, old access rules, expressions,
proxies, and an AuthType of another module next door."""

from __future__ import annotations

import base64
import hashlib
import http.server
import subprocess
import threading

import pytest

from harness import tags
from harness.caches import Redis
from harness.client import NAVIGATION, SCRIPT
from harness.config import VirtualHost, modules_directory, place
from harness.fixtures import lasting, wanted_mpms
from harness.server import Server, web_user
from test_combinators import UNDECIDABLE

MODULES = ("autoindex", "dav", "dav_fs", "access_compat", "auth_basic", "authn_file")
OWNERS = "Require bitbucket-workspace acme:owner"

SITE = "\n".join([
    place("start", "Require valid-user"),
    # Listings show what the visitor may see.
    '<Directory "${CONTENT}/listed">', "Options +Indexes", "DirectoryIndex disabled", "AuthType Bitbucket",
    "Require bitbucket-workspace acme", '<FilesMatch "^secret">', OWNERS, "</FilesMatch>", "</Directory>",
    # WebDAV looks at the place where something is to go.
    '<Directory "${CONTENT}/dav">', "Dav On", "AuthType Bitbucket", "Require bitbucket-workspace acme", "</Directory>",
    '<Directory "${CONTENT}/dav/owners">', OWNERS, "</Directory>",
    # The access rules of httpd 2.2.
    '<Location "/satisfy-any-denied">', "AuthType Bitbucket", "Require bitbucket-workspace acme", "Order allow,deny", "Deny from all",
    "Satisfy Any", "</Location>",
    '<Location "/satisfy-any-allowed">', "AuthType Bitbucket", "Require bitbucket-workspace acme", "Order allow,deny",
    "Allow from 127.0.0.1", "Satisfy Any", "</Location>",
    '<Location "/satisfy-all">', "AuthType Bitbucket", "Require bitbucket-workspace acme", "Order allow,deny", "Deny from all",
    "</Location>",
    'AliasMatch "^/satisfy-[a-z-]+/(.*)$" "${CONTENT}/$1"',
    # An expression that asks whether another address may be seen.
    place("owners", OWNERS),
    place("who-sees-owners", "<RequireAll>", "Require valid-user", "Require expr -U '/owners/page.html'", "</RequireAll>"),
    place("who-does-not", "<RequireAll>", "Require valid-user", "<RequireNone>", "Require expr -U '/owners/page.html'", "</RequireNone>",
          "</RequireAll>"),
    # Basic next door: rules of ours are for accounts of ours.
    'Alias "/basic" "${CONTENT}"', '<Location "/basic">', "AuthType Basic", 'AuthName "Basic"', "AuthBasicProvider file",
    "AuthUserFile conf/passwords", "Require valid-user", "</Location>",
    'Alias "/basic-acme" "${CONTENT}"', '<Location "/basic-acme">', "AuthType Basic", 'AuthName "Basic"', "AuthBasicProvider file",
    "AuthUserFile conf/passwords", "Require bitbucket-workspace acme", "</Location>",
])


@pytest.fixture(scope="module")
def served(shared_simulator):
    host = VirtualHost(SITE)
    server = Server([host], shared_simulator, wanted_mpms()[0], main="DavLockDB run/locks\n" + "".join(
        f"LoadModule {name}_module {modules_directory()}/mod_{name}.so\n" for name in MODULES))
    for name in ("listed/secret1.txt", "listed/secret2.html", "listed/plain.txt", "dav/page.txt", "dav/owners/keep.txt"):
        path = server.content / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("content of " + name)
    for number in range(40):
        (server.content / "listed" / f"secret-{number}.txt").write_text("x")
    if web_user():
        subprocess.run(["chown", "-R", web_user(), str(server.content / "dav"), str(server.root / "run")], check=True)
    (server.root / "conf" / "passwords").write_text("mark_miller:{SHA}" + base64.b64encode(
        hashlib.sha1(b"a-password-of-basic").digest()).decode() + "\n")
    with lasting(server):
        yield host, server


@pytest.fixture
def people(served, log_watch, new_browser):
    found = {}
    for person in ("mark", "olivia", "oscar"):
        found[person] = new_browser()
        assert found[person].sign_in(served[0].url("/start/page.html"), person).status == 200
    return found


def test_listings_show_what_may_be_seen(served, people, simulator):
    simulator.forget_calls()
    found = {person: browser.get(served[0].url("/listed/")) for person, browser in people.items()}
    assert (found["mark"].status, found["olivia"].status, found["oscar"].status) == (200, 200, 403)
    assert "plain.txt" in found["mark"].text and "secret" not in found["mark"].text
    assert found["olivia"].text.count("secret-") >= 40
    assert simulator.asked() in ([], ["permission acme"]) and found["mark"].set_cookies == []


@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_webdav_looks_where_something_goes(served, people, method):
    host, server = served
    for person, status in (("mark", 403), ("oscar", 403)):
        answer = people[person].request(method, host.url("/dav/page.txt"), {**SCRIPT, "Destination": host.url("/dav/owners/new.txt")})
        assert answer.status == status and not (server.content / "dav/owners/new.txt").exists()
    # Nor does something leave a place that the visitor may not see.
    answer = people["mark"].request(method, host.url("/dav/owners/keep.txt"), {**SCRIPT, "Destination": host.url("/dav/taken.txt")})
    assert answer.status == 403 and not (server.content / "dav/taken.txt").exists()
    answer = people["olivia"].request("COPY", host.url("/dav/page.txt"), {**SCRIPT, "Destination": host.url("/dav/owners/copy.txt"),
                                                                         "Overwrite": "T"})
    assert answer.status in (201, 204) and (server.content / "dav/owners/copy.txt").exists()


def test_webdav_lists_and_deletes_what_may_be_seen(served, people, new_browser):
    host, server = served
    stranger = new_browser().request("PROPFIND", host.url("/dav/"), {**SCRIPT, "Depth": "1"})
    assert stranger.status == 401 and "page.txt" not in stranger.text
    listed = people["mark"].request("PROPFIND", host.url("/dav/"), {**SCRIPT, "Depth": "1"})
    assert listed.status == 207 and "page.txt" in listed.text
    assert people["mark"].request("DELETE", host.url("/dav/owners/keep.txt"), SCRIPT).status == 403
    assert (server.content / "dav/owners/keep.txt").exists()


@pytest.mark.parametrize("path, stranger, mark, oscar", [
    ("/satisfy-any-denied", 401, 200, 403), ("/satisfy-any-allowed", 200, 200, 200), ("/satisfy-all", 403, 403, 403),
    # What httpd decides without a name is decided before anybody is asked for one.
    ("/who-sees-owners", 403, 403, 403), ("/who-does-not", 401, 200, 200),
])
def test_old_rules_and_expressions(served, people, new_browser, path, stranger, mark, oscar):
    url = served[0].url(path + "/page.html")
    assert new_browser().get(url, SCRIPT).status == stranger
    assert people["mark"].get(url).status == mark and people["oscar"].get(url).status == oscar
    if path.startswith("/who"):
        assert people["olivia"].get(url).status == (200 if path == "/who-sees-owners" else 403)


def test_another_auth_type_next_door(served, people):
    """Neither AuthType takes the other's people for its own, whatever their names."""
    host, mark = served[0], people["mark"]
    basic = {"Authorization": "Basic " + base64.b64encode(b"mark_miller:a-password-of-basic").decode()}
    assert mark.get(host.url("/basic/page.html"), SCRIPT).status == 401, "a session is no password"
    environment = mark.get(host.url("/basic/env.cgi"), {**SCRIPT, **basic}).environment
    assert (environment["AUTH_TYPE"], environment["REMOTE_USER"]) == ("Basic", "mark_miller")
    assert not any(key.startswith("BITBUCKET_") for key in environment)
    assert mark.get(host.url("/basic-acme/page.html"), {**SCRIPT, **basic}).status in (401, 403), "a name is no account"
    assert mark.get(host.url("/start/page.html"), {**SCRIPT, **basic, "Cookie": ""}).status == 401, "a password is no session"


# -- a proxied application

class Counting(http.server.BaseHTTPRequestHandler):
    seen: list[str] = []

    def do_GET(self) -> None:
        Counting.seen.append(self.path)
        body = b"The test page of the application"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_PUT = do_OPTIONS = do_HEAD = do_GET

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture
def application():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting) as server:
        Counting.seen = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_no_request_of_a_stranger_or_somebody_refused_reaches_an_application(start_server, new_browser, application):
    host = VirtualHost("\n".join([
        '<Location "/app/">', "AuthType Bitbucket", "Require bitbucket-workspace acme", f'ProxyPass "http://127.0.0.1:{application}/"',
        "</Location>"]))
    start_server(host)
    url = host.url("/app/data")
    kinds = [NAVIGATION, SCRIPT, {"Accept": "application/json"}, {**NAVIGATION, "Sec-Fetch-Dest": "iframe"},
             {"Connection": "Upgrade", "Upgrade": "websocket"}]
    oscar = new_browser()
    oscar.get(oscar.walk_to_callback(host.endpoint("login"), "oscar"))
    for browser in (new_browser(), oscar):
        for headers in kinds:
            for method in ("GET", "HEAD", "POST", "PUT", "OPTIONS"):
                answer = browser.request(method, url, headers, body=b"a=1" if method in ("POST", "PUT") else None)
                assert answer.status in (302, 401, 403) and "test page" not in answer.text.lower(), (method, headers, answer)
    assert Counting.seen == []
    assert new_browser().sign_in(url, "mark").text == "The test page of the application"
    assert Counting.seen == ["/data"]


# -- a store that does not answer

def test_a_silent_store_lets_nobody_in_under_not(start_server, scratch, new_browser, logs):
    """Neither by a rule that excludes, nor as a stranger where strangers may pass."""
    logs.allow(tags.CACHE_SILENT)
    logs.allow(tags.ANSWERED, "the session cache")
    key = "a-key-that-several-machines-would-share-0123456789"
    logs.remember(key)
    lines = ["Require bitbucket-workspace globex", "Require bitbucket-user {10a13d91-2c28-4fbc-bc2d-8829f4b39363}",
             "Require bitbucket-email @globex.example"]
    places = {f"p{n}{m}{'-pass' if action else ''}": [*action, *shape(line)] for n, shape in enumerate(UNDECIDABLE.values())
              for m, line in enumerate(lines) for action in ([], ["AuthBitbucketUnauthenticated pass"])}
    host = VirtualHost("\n".join([place("start", "Require valid-user"), *(place(name, *text) for name, text in places.items())]))
    redis = Redis(scratch).start()
    try:
        start_server(host, main=f"LoadModule socache_redis_module {modules_directory()}/mod_socache_redis.so\n"
                                f"AuthBitbucketSessionCache {redis.specification}\nAuthBitbucketSessionNearCache 0\n"
                                f"AuthBitbucketSessionKey {key}\n")
        browser = new_browser()
        browser.sign_in(host.url("/start/page.html"), "mark")
        assert {browser.get(host.url(f"/{name}/page.html")).status for name in places} == {200}
        redis.stop()
        answers = {name: browser.get(host.url(f"/{name}/page.html")) for name in places}
        assert {answer.status for answer in answers.values()} == {503}
        assert not any("test page" in answer.text for answer in answers.values())
        assert browser.session_value(), "the cookie stays"
    finally:
        redis.stop()
