"""Sessions in an administrator's hands: listed, ended, limited, and by nobody else."""

from __future__ import annotations

import base64
import hashlib
import re
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import pytest

from harness.caches import KINDS, Redis
from harness.client import NAVIGATION, Browser, send
from harness.config import VirtualHost, modules_directory, place
from harness.simulator import uuid_of
from harness.waiting import eventually
from test_api_token import basic, of

# Nothing here depends on threads or processes but what t_index shows with processes.
pytestmark = pytest.mark.one_mpm
SESSION_KEY = '"a passphrase that is long enough for all"'
MANAGER = ('<Location "/sessions">\n    SetHandler bitbucket-sessions\n    AuthType Bitbucket\n    AuthBitbucketAPIToken On\n'
           f'    Require bitbucket-user {uuid_of("olivia")}\n</Location>')
OPEN = '<Location "/open">\n    SetHandler bitbucket-sessions\n</Location>'
LOCAL = '<Location "/local">\n    SetHandler bitbucket-sessions\n    Require local\n</Location>'
SITE = "\n".join([place("any", "Require valid-user"), place("tool", "AuthBitbucketAPIToken On", "Require valid-user"),
                  MANAGER, OPEN, LOCAL])
ADMIN = {**of("olivia"), "User-Agent": "curl/8.0"}


@pytest.fixture(params=["shm", "file", *KINDS])
def host(request, start_server, scratch):
    """A site whose sessions are kept in each way there is."""
    host = VirtualHost(SITE)
    cache = None
    if request.param == "shm":
        start_server(host)
    elif request.param == "file":
        directory = Path(tempfile.mkdtemp(prefix="kept-", dir=scratch))
        start_server(host, main=f"AuthBitbucketSessionCache shm:{directory}/sessions(8M)\n")
    else:
        cache = KINDS[request.param](scratch).start()
        start_server(host, main=(
            f"LoadModule socache_{cache.provider}_module {modules_directory()}/mod_socache_{cache.provider}.so\n"
            f"AuthBitbucketSessionCache {cache.specification}\nAuthBitbucketSessionKey {SESSION_KEY}\n"))
    host.is_walked = cache is None
    yield host
    if cache:
        cache.stop()


@pytest.fixture
def plain(start_server, clock):
    host = VirtualHost(SITE)
    host.server = start_server(host, clock=clock)
    return host


def signed_in(host: VirtualHost, person: str, path: str = "/any/page.html") -> Browser:
    browser = Browser()
    assert browser.sign_in(host.url(path), person).status == 200
    return browser


def is_in(host: VirtualHost, browser: Browser) -> bool:
    return browser.get(host.url("/any/page.html")).status == 200


def sessions(host: VirtualHost, person: str) -> list[dict]:
    answer = send("GET", host.url(f"/sessions?account={uuid_of(person)}&json"), ADMIN)
    assert (answer.status, answer.header("Content-Type")) == (200, "application/json"), answer.text
    assert answer.json["account"] == uuid_of(person)
    return answer.json["sessions"]


def end(host: VirtualHost, headers: dict[str, str] = ADMIN, path: str = "/sessions", **words: str):
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    return send("POST", host.url(path + "?json"), {**headers, **form}, urlencode(words).encode())


# -- what an administrator does

def test_sessions_of_an_account_are_found_and_ended(host, logs):
    first, second, other = signed_in(host, "mark"), signed_in(host, "mark"), signed_in(host, "oscar")
    assert len(sessions(host, "mark")) == 2 and len(sessions(host, "oscar")) == 1
    answer = end(host, action="end", account=uuid_of("mark"))
    assert (answer.status, answer.json["ended"], answer.json["sessions"]) == (200, 2, [])
    assert not is_in(host, first) and not is_in(host, second) and is_in(host, other)
    line, = logs.lines("ABB0209")
    assert line.level == "notice"
    assert re.search(rf'account={uuid_of("mark")} session=\* count=2 by="olivia', line.text), line.text


def test_one_of_them_is_ended(host, logs):
    first, second = signed_in(host, "mark"), signed_in(host, "mark")
    both = {one["session"] for one in sessions(host, "mark")}
    signed = [line.text for line in logs.lines("ABB0203") if uuid_of("mark") in line.text]
    names = [re.search(r"session=(\w+)", text).group(1) for text in signed]
    assert set(names) == both, "the names are those of the log"
    answer = end(host, action="end", account=uuid_of("mark"), session=names[0])
    assert (answer.status, answer.json["ended"]) == (200, 1)
    assert [one["session"] for one in answer.json["sessions"]] == [names[1]]
    assert not is_in(host, first) and is_in(host, second)
    assert end(host, action="end", account=uuid_of("mark"), session=names[0]).json["ended"] == 0


def test_all_are_ended(host, logs):
    browsers = [signed_in(host, person) for person in ("mark", "mark", "oscar")]
    answer = end(host, action="end-all")
    if host.is_walked:
        assert answer.status == 200 and answer.json["ended"] >= 3
        assert not any(is_in(host, browser) for browser in browsers)
        assert "account=* session=* count=" in logs.lines("ABB0209")[0].text
        assert signed_in(host, "mark"), "and sign in again"
    else:
        assert answer.status == 501 and "AuthBitbucketSessionKey" in answer.json["error"]
        assert all(is_in(host, browser) for browser in browsers)


def test_a_credentials_session_is_one_of_them(host):
    assert send("GET", host.url("/tool/page.html"), of("mark")).status == 200
    browser = signed_in(host, "mark")
    assert len(sessions(host, "mark")) == 2
    assert end(host, action="end", account=uuid_of("mark")).json["ended"] == 2
    assert not is_in(host, browser)
    assert send("GET", host.url("/tool/page.html"), of("mark")).status == 200, "its owner comes in as before"


def test_sites_of_one_server(start_server):
    hosts = [VirtualHost(SITE), VirtualHost(place("any", "Require valid-user"))]
    start_server(*hosts)
    browsers = [signed_in(host, "mark") for host in hosts]
    assert len(sessions(hosts[0], "mark")) == 2
    end(hosts[0], action="end", account=uuid_of("mark"))
    assert not any(is_in(host, browser) for host, browser in zip(hosts, browsers))


def test_times(plain, clock):
    signed_in(plain, "mark")
    clock.advance(3600)
    one, = sessions(plain, "mark")
    now = send("GET", plain.url("/sessions?json"), ADMIN).json["time"]
    assert now - 3610 <= one["signed_in"] == one["last_used"] <= now - 3595
    assert one["ends"] == one["last_used"] + 12 * 3600


def test_after_a_restart(plain):
    browser = signed_in(plain, "mark")
    plain.server.reload()
    assert len(sessions(plain, "mark")) == 1
    assert end(plain, action="end", account=uuid_of("mark")).json["ended"] == 1
    assert not is_in(plain, browser)


# -- the page

def test_the_page(plain):
    admin, visitor = signed_in(plain, "olivia"), signed_in(plain, "mark")
    answer = admin.get(plain.url("/sessions"))
    assert answer.status == 200 and "no-store" in answer.header("Cache-Control")
    assert "script" not in answer.text and "default-src 'none'" in answer.header("Content-Security-Policy")
    answer = admin.get(plain.url(f"/sessions?account=%7B{uuid_of('mark')}%7D"))
    assert answer.text.count("<tr>") == 2 and uuid_of("mark") in answer.text
    # The row's button, then the one for all.
    answer = admin.submit(answer, number=0)
    assert "One session was ended." in answer.text and "has no session" in answer.text
    assert not is_in(plain, visitor) and is_in(plain, admin)


def test_no_cookie_and_no_token_is_shown(plain, simulator):
    browser = signed_in(plain, "mark")
    page = send("GET", plain.url(f"/sessions?account={uuid_of('mark')}"), ADMIN).text
    assert browser.session_value() not in page and not any(secret in page for secret in simulator.secrets())


def test_with_a_password_file(start_server):
    """Bitbucket may be down, or nobody of ours may have a session."""
    host = VirtualHost('<Location "/sessions">\n    SetHandler bitbucket-sessions\n    AuthType Basic\n    AuthName keys\n'
                       '    AuthBasicProvider file\n    AuthUserFile conf/people\n    Require valid-user\n</Location>\n'
                       + place("any", "Require valid-user"))
    server = start_server.prepare(host, main="".join(
        f"LoadModule {name}_module {modules_directory()}/mod_{name}.so\n" for name in ("auth_basic", "authn_file")))
    (server.root / "conf").mkdir(exist_ok=True)
    (server.root / "conf" / "people").write_text(
        "anna:{SHA}" + base64.b64encode(hashlib.sha1(b"a password").digest()).decode() + "\n")
    server.start()
    visitor = signed_in(host, "mark")
    assert end(host, {"User-Agent": "curl/8.0"}, action="end", account=uuid_of("mark")).status == 401
    assert is_in(host, visitor)
    assert end(host, {**basic("anna", "a password"), "User-Agent": "curl/8.0"}, action="end", account=uuid_of("mark")).json["ended"] == 1
    assert not is_in(host, visitor)


# -- whom it obeys

def test_who_may_not(plain):
    browser, other = signed_in(plain, "mark"), signed_in(plain, "oscar")
    assert browser.get(plain.url("/sessions")).status == 403
    for path in ("/open", "/local"):
        answer = end(plain, {"User-Agent": "curl/8.0"}, path, action="end", account=uuid_of("oscar"))
        assert answer.status == 403 and "AuthType" in answer.json["error"], "nobody without a name"
        assert send("GET", plain.url(path), NAVIGATION).status == 403
    assert browser.get(plain.url("/open")).status == 403, "a cookie is no name where nobody asked for one"
    assert is_in(plain, other)


@pytest.mark.parametrize("headers, is_done", [
    ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate"}, True),
    ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, False),
    ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "navigate"}, False),
    ({"Sec-Fetch-Site": "none"}, True),
    ({"Origin": "https://evil.example"}, False),
    ({"Origin": "null"}, False),
    ({"User-Agent": "Mozilla/5.0 (old)"}, False),
    ({"User-Agent": "curl/8.0", "Origin": "http://evil.example"}, False),
    ({"User-Agent": "Wget/1.21"}, True),
    ({}, True),
])
def test_forms_of_other_sites(plain, headers, is_done):
    visitor = signed_in(plain, "mark")
    answer = end(plain, {**of("olivia"), **headers}, action="end", account=uuid_of("mark"))
    assert answer.status == (200 if is_done else 403)
    assert is_in(plain, visitor) is not is_done


def test_own_origin_of_an_old_browser(plain):
    visitor = signed_in(plain, "mark")
    origin = plain.url("/").rstrip("/")
    assert end(plain, {**of("olivia"), "User-Agent": "Mozilla/5.0", "Origin": origin}, action="end",
               account=uuid_of("mark")).status == 200
    assert not is_in(plain, visitor)


@pytest.mark.parametrize("query", [
    "account=", "account=mark", "account=%7B%7D", "account=" + "a" * 36, "account=" + "a" * 5000, "account=%00", "account=<script>",
    "account=a&account=b", "json&json=1",
])
def test_questions_that_make_no_sense(plain, query):
    answer = send("GET", plain.url(f"/sessions?{query}"), ADMIN)
    assert answer.status == 400 and "<script>" not in answer.text


@pytest.mark.parametrize("words", [
    {}, {"action": "end"}, {"action": "end-all", "account": uuid_of("mark")}, {"action": "drop", "account": uuid_of("mark")},
    {"action": "end", "account": "mark"}, {"account": uuid_of("mark")}, {"action": "end", "account": "x" * 5000},
])
def test_forms_that_make_no_sense(plain, words):
    visitor = signed_in(plain, "mark")
    assert end(plain, **words).status == 400
    assert is_in(plain, visitor)


def test_forms_of_another_type(plain):
    visitor = signed_in(plain, "mark")
    body = f'{{"action":"end","account":"{uuid_of("mark")}"}}'.encode()
    assert send("POST", plain.url("/sessions?json"), {**ADMIN, "Content-Type": "application/json"}, body).status == 400
    assert send("PUT", plain.url("/sessions"), ADMIN, b"").status == 405
    assert send("GET", plain.url(f"/sessions?action=end&account={uuid_of('mark')}"), ADMIN).status == 200
    assert is_in(plain, visitor), "a question ends nothing"


def test_a_hostile_name_of_a_session(plain, logs):
    signed_in(plain, "mark")
    answer = end(plain, action="end", account=uuid_of("mark"), session='"\n[error] forged')
    assert (answer.status, answer.json["ended"]) == (200, 0)
    assert len(logs.lines("ABB0209")) == 1


# -- a list that is lost


def lose_list(cache: Redis, is_lost: Callable[[], bool]) -> None:
    """Of all that is in the cache the one object without which this comes true."""
    for key in cache.keys():
        cache.ask(b"RENAME %s aside\r\n" % key, b"+OK\r\n")
        if is_lost():
            return
        cache.ask(b"RENAME aside %s\r\n" % key, b"+OK\r\n")
    raise AssertionError("nothing in the cache is the list")


@pytest.mark.parametrize("away", [pytest.param(301, id="background"), pytest.param(3601, id="visitor_waits")])
def test_a_list_that_the_cache_forgot_comes_back(start_server, scratch, clock, away):
    """A list is used less often than sessions are, so a full cache throws it away first."""
    host = VirtualHost(SITE)
    cache = Redis(scratch).start()
    try:
        start_server(host, clock=clock, main=(
            f"LoadModule socache_redis_module {modules_directory()}/mod_socache_redis.so\n"
            f"AuthBitbucketSessionCache {cache.specification}\nAuthBitbucketSessionKey {SESSION_KEY}\n"
            "AuthBitbucketSessionNearCache 0\n"))
        browsers = [signed_in(host, "mark") for _ in range(2)]
        lose_list(cache, lambda: not sessions(host, "mark") and all(is_in(host, browser) for browser in browsers))
        clock.advance(away)
        assert all(is_in(host, browser) for browser in browsers)
        eventually(lambda: len(sessions(host, "mark")) == 2)
        assert end(host, action="end", account=uuid_of("mark")).json["ended"] == 2
        assert not any(is_in(host, browser) for browser in browsers)
    finally:
        cache.stop()


# -- a limit

LIMITED = "AuthBitbucketMaxSessionsPerUser 2\n"


@pytest.fixture(params=["shm", *KINDS])
def limited(request, start_server, scratch):
    host = VirtualHost(LIMITED + SITE)
    cache = None
    if request.param == "shm":
        start_server(host)
    else:
        cache = KINDS[request.param](scratch).start()
        start_server(host, main=(
            f"LoadModule socache_{cache.provider}_module {modules_directory()}/mod_socache_{cache.provider}.so\n"
            f"AuthBitbucketSessionCache {cache.specification}\nAuthBitbucketSessionKey {SESSION_KEY}\n"))
    yield host
    if cache:
        cache.stop()


def test_the_oldest_ends(limited, logs):
    other = signed_in(limited, "oscar")
    first, second, third = (signed_in(limited, "mark") for _ in range(3))
    assert [is_in(limited, browser) for browser in (first, second, third, other)] == [False, True, True, True]
    line, = logs.lines("ABB0208")
    assert line.level == "info" and f"account={uuid_of('mark')} count=1 limit=2" in line.text


def test_signing_in_again_in_one_browser_ends_no_other(limited):
    first, second = signed_in(limited, "mark"), signed_in(limited, "mark")
    answer = second.walk(second.get(limited.url("/bitbucket/login?return=/any/page.html"), NAVIGATION), "mark")
    assert answer[-1].status == 200
    assert is_in(limited, first) and is_in(limited, second)


def test_one_that_signed_out_makes_room(limited):
    first, second = signed_in(limited, "mark"), signed_in(limited, "mark")
    second.submit(second.get(limited.url("/bitbucket/logout")))
    third = signed_in(limited, "mark")
    assert is_in(limited, first) and is_in(limited, third)


def test_many_at_once(limited, logs):
    # On a busy machine a cache may take longer than a request waits; that sign-in fails.
    logs.allow("ABB0102", "did not answer within 250 ms")
    with ThreadPoolExecutor(8) as pool:
        browsers = list(pool.map(lambda _: signed_in_or_late(limited), range(8)))
    assert 1 <= sum(is_in(limited, browser) for browser in browsers) <= 2


def signed_in_or_late(host: VirtualHost) -> Browser:
    """At once with others, its session may have ended before its page is asked for."""
    browser = Browser()
    browser.get(browser.walk_to_callback(host.url("/any/page.html"), "mark"))
    return browser


@pytest.mark.parametrize("value, is_good", [("1", True), ("1000", True), ("none", True), ("0", False), ("1001", False), ("-1", False),
                                            ("2x", False), ("", False), ("many", False)])
def test_the_directive(start_server, value, is_good):
    server = start_server.prepare(VirtualHost(f'AuthBitbucketMaxSessionsPerUser "{value}"\n' + SITE))
    done = server.run("-t")
    assert (done.returncode == 0) is is_good, done.stdout
    assert is_good or "AuthBitbucketMaxSessionsPerUser" in done.stdout
