"""Requests that httpd makes of its own: the same identity, and nothing is asked or looked up
once more."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.client import NAVIGATION, SCRIPT, Answer, Browser
from harness.config import VirtualHost, modules_directory, place
from harness.figures import Figures
from harness.fixtures import lasting, wanted_mpms
from harness.server import Server
from harness.simulator import account, uuid_of

USER, UUID = account("mark")["username"], uuid_of("mark")
RULE = "Require bitbucket-workspace acme"

SITE = "\n".join([
    # All of one place, where httpd asks once; and over several places, where it asks again.
    *(place(name, RULE) for name in ("app", "other", "third")),
    place("owners", "Require bitbucket-workspace acme:owner"),
    place("open", auth=False),
    '<Location "/app">',
    "FallbackResource disabled", "Options +Includes +ExecCGI +MultiViews +FollowSymLinks",
    "ErrorDocument 404 /other/env.cgi",
    "</Location>",
    "RewriteEngine On",
    "RewriteRule ^/app/rewritten$ /app/env.cgi [PT]",
    "RewriteRule ^/app/elsewhere$ /other/env.cgi [PT]",
    "RewriteCond %{LA-U:REMOTE_USER} (.+)",
    "RewriteRule ^/app/ahead\\.cgi$ - [E=SEEN_AHEAD:%1]",
    "RewriteCond %{LA-U:ENV:BITBUCKET_UUID} (.+)",
    "RewriteRule ^/app/ahead\\.cgi$ - [E=UUID_AHEAD:%1]",
    "RewriteCond %{LA-U:REMOTE_USER} (.+)",
    "RewriteRule ^/other/for-me$ /other/%1/env.cgi [PT]",
    '<Location "/app/by-action">', "Action wrapped /app/env.cgi virtual", "SetHandler wrapped", "</Location>",
    '<Location "/app/by-open-action">', "Action wrapped /open/env.cgi virtual", "SetHandler wrapped", "</Location>",
    '<Location "/app/fallen">', "FallbackResource /app/env.cgi", "</Location>",
    '<Location "/app/fallen-elsewhere">', "FallbackResource /third/env.cgi", "</Location>",
    "Action by-suffix /app/env.cgi", "AddHandler by-suffix .wrapped",
])

HTACCESS = "RewriteEngine On\nRewriteRule ^front/ /app/env.cgi [L]\nRewriteCond %{LA-F:REMOTE_USER} (.+)\nRewriteRule ^later\\.cgi$ - [E=SEEN_AHEAD:%1]\n"

INCLUDES = "".join(f'<!--#include virtual="{path}" -->|' for path in (
    "page.html", "/other/page.html", "/third/data.txt", "page.html", "/open/page.html", "/app/nested.shtml"))


@pytest.fixture(scope="module")
def served(shared_simulator):
    host = VirtualHost(SITE)
    more = ("negotiation", "actions")
    main = "".join(f"LoadModule {name}_module {modules_directory()}/mod_{name}.so\n" for name in more)
    server = Server([host], shared_simulator, wanted_mpms()[0],
                    main=main + "AddLanguage en .en\nAddLanguage de .de\nAuthBitbucketSessionCache shm:state/sessions(1M)\n")
    (server.root / "state").mkdir(mode=0o700)
    content = server.content
    (content / "many.shtml").write_text('<!--#echo var="REMOTE_USER" --> <!--#echo var="BITBUCKET_UUID" -->|' + INCLUDES)
    (content / "nested.shtml").write_text('nested <!--#echo var="REMOTE_USER" --> <!--#include virtual="/third/page.html" -->')
    (content / "secret.shtml").write_text('before <!--#include virtual="/owners/page.html" --> after')
    (content / "program.shtml").write_text('<!--#include virtual="/other/env.cgi" -->')
    for name in ("page.html.en", "page.html.de"):
        (content / f"two-{name}").write_text(f"The test page in two languages: {name}")
    (content / "file.wrapped").write_text("handled by an action")
    for name in ("ahead.cgi", "later.cgi"):
        (content / name).write_bytes((content / "env.cgi").read_bytes())
        (content / name).chmod(0o755)
    (content / USER).mkdir()
    (content / USER / "env.cgi").symlink_to("../env.cgi")
    (content / "indexed").mkdir()
    (content / "indexed" / "index.html").write_text("The index page, indexed")
    (content / ".htaccess").write_text(HTACCESS)
    with lasting(server):
        yield host, server


class Counted:
    """A browser of somebody signed in, and what its requests cost."""

    def __init__(self, served, browser: Browser, simulator, figures: Figures) -> None:
        self.host, server = served
        self.browser = browser
        self._simulator = simulator
        self._figures = figures
        self._file: Path = server.root / "state" / "sessions"

    def get(self, path: str, headers=None) -> tuple[Answer, int, int, list[str]]:
        """The answer, how many look-ups found something and how many did not, what was asked."""
        self._simulator.forget_calls()
        before = self._figures.lookups(self._file)
        answer = self.browser.get(self.host.url(path), headers)
        after = self._figures.lookups(self._file)
        return answer, after[0] - before[0], after[1] - before[1], self._simulator.asked()


@pytest.fixture
def mark(served, scratch, simulator, browser):
    counted = Counted(served, browser, simulator, Figures(scratch))
    assert browser.sign_in(counted.host.url("/app/page.html"), "mark").status == 200
    return counted


def test_the_count_counts(mark):
    """A request costs one look-up, a stranger with a made-up cookie two misses: nothing lives, and nothing is left."""
    assert mark.get("/app/page.html")[1:] == (1, 0, [])
    assert mark.get("/app/page.html", {**SCRIPT, "Cookie": "bitbucket_session=" + "A" * 43})[1:] == (0, 2, [])
    assert mark.get("/app/page.html", {**SCRIPT, "Cookie": ""})[1:] == (0, 0, [])
    assert mark.get("/open/page.html")[1:] == (0, 0, [])


PROGRAMS = {
    # path: how httpd comes to env.cgi
    "/app/env.cgi": "itself",
    "/app/rewritten": "mod_rewrite, in one place",
    "/app/elsewhere": "mod_rewrite, into another place",
    "/app/front/a/b?c=d": "mod_rewrite in .htaccess",
    "/app/by-action/x": "mod_actions",
    "/app/file.wrapped": "mod_actions by suffix",
    "/app/fallen/some/where": "mod_dir's FallbackResource",
    "/app/fallen-elsewhere/some/where": "FallbackResource in another place",
    "/app/no-such-page": "ErrorDocument in another place",
    f"/other/{USER}/env.cgi": "a symbolic link",
    "/other/for-me": "mod_rewrite by the user's name",
    "/app/program.shtml": "mod_include",
}


@pytest.mark.parametrize("path", PROGRAMS, ids=list(PROGRAMS.values()))
def test_programs_learn_who_it_is_at_no_further_cost(mark, path):
    answer, hits, misses, asked = mark.get(path)
    seen = answer.environment
    assert (seen["REMOTE_USER"], seen["AUTH_TYPE"], seen["BITBUCKET_UUID"]) == (USER, "Bitbucket", UUID)
    assert seen["BITBUCKET_WORKSPACES"] == "acme:member" and seen["BITBUCKET_DISPLAY_NAME"] == "Mark Miller"
    assert (hits, misses, asked) == (1, 0, [])
    assert not any(key.startswith("BITBUCKET_ERROR") for key in seen)


@pytest.mark.parametrize("path, texts", [
    ("/app/many.shtml", [f"{USER} {UUID}|", "The test page", "plain data", f"nested {USER}"]),
    ("/app/", ["The index page"]), ("/app/indexed/", ["indexed"]),
    ("/app/two-page.html", ["in two languages"]), ("/app/two-page", ["in two languages"]),
    ("/open/many.shtml", ["plain data"]),
])
def test_pages_made_of_several_requests(mark, path, texts):
    answer, hits, misses, asked = mark.get(path)
    assert answer.status == 200 and all(text in answer.text for text in texts), answer
    assert (hits, misses, asked) == (1, 0, [])
    assert answer.set_cookies == []


@pytest.mark.parametrize("path, variable", [("/app/ahead.cgi", "SEEN_AHEAD"), ("/app/ahead.cgi", "UUID_AHEAD"),
                                            ("/app/later.cgi", "SEEN_AHEAD")])
def test_looking_ahead(mark, path, variable):
    answer, hits, misses, asked = mark.get(path)
    assert answer.environment[variable] == (UUID if variable == "UUID_AHEAD" else USER)
    assert (hits, misses, asked) == (1, 0, [])


def test_an_action_of_an_open_place_finds_it_one_step_back(mark):
    """As with every AuthType: httpd asks nobody there, and hands on what was before as REDIRECT_."""
    answer, hits, misses, asked = mark.get("/app/by-open-action/x")
    seen = answer.environment
    assert "REMOTE_USER" not in seen and "BITBUCKET_UUID" not in seen
    assert (seen["REDIRECT_REMOTE_USER"], seen["REDIRECT_BITBUCKET_UUID"]) == (USER, UUID)
    assert (hits, misses, asked) == (1, 0, [])


def test_head_costs_and_says_what_get_does(mark):
    for path in ("/app/page.html", "/app/", "/app/two-page.html", "/owners/page.html"):
        got = mark.get(path)[0]
        answer = mark.browser.request("HEAD", mark.host.url(path))
        assert (answer.status, answer.body) == (got.status, b"")
        volatile = ("Date", "Content-Length", "Keep-Alive", "Connection", "Transfer-Encoding")
        assert [h for h in answer.headers if h[0] not in volatile] == [h for h in got.headers if h[0] not in volatile]


def test_what_is_refused_inside_stays_out(mark):
    """An include that the visitor may not see, and redirects into a place for others."""
    answer, hits, _, asked = mark.get("/app/secret.shtml")
    assert answer.status == 200 and "test page" not in answer.text and "before" in answer.text
    assert (hits, asked) == (1, [])
    assert answer.set_cookies == [] and answer.header("WWW-Authenticate") is None


def test_strangers_learn_nothing_inside(served, log_watch, browser):
    """No ticket, no challenge and no redirect comes from a request within."""
    host, _ = served
    for path in ("/open/many.shtml", "/open/secret.shtml"):
        answer = browser.get(host.url(path))
        assert answer.status == 200 and "plain data" not in answer.text
        assert (answer.set_cookies, answer.location, answer.header("WWW-Authenticate")) == ([], None, None)
    for path in PROGRAMS:
        answer = browser.get(host.url(path))
        assert answer.status == 302 and len(answer.tickets) == 1, path
        assert answer.location.count("state=") == 1


def test_the_way_back_of_an_internal_redirect_is_what_was_asked_for(served, log_watch, new_browser):
    host, _ = served
    for path in ("/app/elsewhere", "/app/front/a/b?c=d", "/app/fallen-elsewhere/x?y=1", "/app/two-page.html", "/app/indexed/"):
        browser = new_browser()
        answer = browser.get(browser.walk_to_callback(host.url(path), "mark"))
        assert (answer.status, answer.location) == (303, path)


def test_an_old_answer_is_asked_about_once_for_all_of_them(start_server, clock, browser, simulator):
    """The visitor comes back after hours: the page and what it is made of wait for one round."""
    host = VirtualHost("\n".join([place("app", RULE), place("other", "Require bitbucket-workspace acme:member"),
                                  place("repo", "Require bitbucket-repository acme/site")]))
    server = start_server.prepare(host, clock=clock)
    (server.content / "many.shtml").write_text("".join(
        f'<!--#include virtual="{path}" -->|' for path in ("/other/page.html", "/repo/page.html", "/app/page.html") * 3))
    server.start()
    browser.sign_in(host.url("/app/page.html"), "mark")
    simulator.forget_calls()
    clock.advance(3605)
    answer = browser.get(host.url("/app/many.shtml"))
    assert answer.text.count("The test page") == 9
    asked = simulator.asked()
    assert len(asked) == len(set(asked)), asked


# -- upgrades and preflights

UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
           "Origin": "https://app.example", "Sec-Fetch-Mode": "websocket", "Sec-Fetch-Dest": "empty"}
PREFLIGHT = {"Origin": "https://app.example", "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "x-a",
             "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}


def test_a_websocket_of_a_stranger_is_told_401(served, log_watch, browser):
    for headers in (UPGRADE, {**UPGRADE, "Accept": "text/html"}, {**UPGRADE, **NAVIGATION, "Upgrade": "websocket"}):
        answer = browser.get(served[0].url("/app/env.cgi"), headers)
        assert (answer.status, answer.location, answer.set_cookies) == (401, None, [])


def test_a_websocket_of_somebody_signed_in_comes_through(mark):
    answer, hits, _, asked = mark.get("/app/env.cgi", UPGRADE)
    assert answer.status == 200 and answer.environment["REMOTE_USER"] == USER
    assert (hits, asked) == (1, [])


def test_a_preflight_is_told_401_unless_exempted(start_server, browser):
    host = VirtualHost("\n".join([
        place("api", RULE),
        place("cors", "<RequireAny>", "Require method OPTIONS", RULE, "</RequireAny>")]))
    start_server(host)
    for headers in (PREFLIGHT, {**PREFLIGHT, "Accept": "text/html"}, {**PREFLIGHT, "Sec-Fetch-Mode": "navigate"}):
        answer = browser.request("OPTIONS", host.url("/api/data.txt"), headers)
        assert (answer.status, answer.location, answer.set_cookies) == (401, None, [])
        assert browser.request("OPTIONS", host.url("/cors/data.txt"), headers).status == 200
    # The exemption is for the method alone.
    assert browser.get(host.url("/cors/data.txt"), SCRIPT).status == 401
    assert browser.request("PUT", host.url("/cors/data.txt"), SCRIPT).status == 401
    for override in ("X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"):
        assert browser.get(host.url("/cors/data.txt"), {**SCRIPT, override: "OPTIONS"}).status == 401
