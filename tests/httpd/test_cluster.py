"""Several machines with one session cache: real Redis and memcached, real failures."""

from __future__ import annotations

import base64
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Callable, Iterator

import pytest

from harness import tags
from harness.caches import KINDS, Cache, Memcached, Redis, SlowLine
from harness.client import SCRIPT, Answer, Browser
from harness.config import VirtualHost, free_port, modules_directory, place
from harness.server import SANITIZED, Server
from harness.simulator import account


KEY = "session-key-of-all-nodes-0123456789abcdef"
PLACES = "\n".join([place("any", "Require valid-user"), place("team", "Require bitbucket-workspace acme"),
                    place("open", auth=False)])
# A copy is used for so long, and for so long in an outage.
AGE, OUTAGE_AGE = 1.0, 4.0
# How late things may be noticed on a busy machine.
SLACK = 3.0 if SANITIZED else 1.5


def load_module(*names: str) -> str:
    return "".join(f"LoadModule {name}_module {modules_directory()}/mod_{name}.so\n" for name in names)


def cache_text(specification: str, near: str = f"{AGE:.0f}s {OUTAGE_AGE:.0f}s", key: str = KEY) -> str:
    return (load_module("socache_redis", "socache_memcache") +
            f"AuthBitbucketSessionCache {specification}\nAuthBitbucketSessionNearCache {near}\n"
            f"AuthBitbucketSessionKey {key}\n")


# -- caches

@pytest.fixture
def start_cache(scratch, log_watch) -> Iterator[Callable[[str], Cache]]:
    started: list[Cache] = []

    def start(kind: str) -> Cache:
        started.append(KINDS[kind](scratch).start())
        return started[-1]

    yield start
    for cache in started:
        cache.stop()


@pytest.fixture(params=list(KINDS))
def cache(request, start_cache) -> Cache:
    return start_cache(request.param)


@pytest.fixture
def redis(start_cache) -> Redis:
    return start_cache("redis")


# -- clusters

@dataclass
class Cluster:
    """Two nodes with one public address, which leads to a balancer, or to the first node."""

    nodes: list[VirtualHost]
    servers: list[Server]
    public: str

    def url(self, path: str) -> str:
        return self.public + path

    def on(self, number: int, url: str) -> str:
        """The same address at one node."""
        return url.replace(self.public, self.nodes[number].origin)


@pytest.fixture
def start_cluster(start_server, logs) -> Callable[..., Cluster]:
    def start(specification: str, mpm: str = "event", balancer: bool = False, directives: str = PLACES,
              **more: Any) -> Cluster:
        logs.remember(KEY)
        # A machine that is busy with other things may be late once; answers are judged by the tests.
        logs.allow(tags.ANSWERED, "did not answer within 250 ms")
        port = free_port()
        public = f"http://localhost:{port}"
        first = VirtualHost(directives, callback=public + "/bitbucket/callback")
        second = VirtualHost(directives, callback=first.callback, client_id=first.client_id)
        if not balancer:
            first.port = port
        servers = [start_server(node, mpm=mpm, main=cache_text(specification, **more)) for node in (first, second)]
        if balancer:
            start_server(balancing(port, [first, second]), mpm=mpm,
                         main=load_module("slotmem_shm", "lbmethod_byrequests", "proxy_balancer"))
        return Cluster([first, second], servers, public)

    return start


def balancing(port: int, nodes: list[VirtualHost]) -> VirtualHost:
    members = "\n".join(f"    BalancerMember http://127.0.0.1:{node.port} retry=0" for node in nodes)
    return VirtualHost(f"<Proxy balancer://nodes>\n{members}\n</Proxy>\nProxyPreserveHost On\n"
                       "ProxyPass / balancer://nodes/", port=port, configured=False)


@pytest.fixture
def cluster(start_cluster, cache) -> Cluster:
    return start_cluster(cache.specification)


def status_on(cluster: Cluster, number: int, browser: Browser, path: str = "/any/page.html") -> int:
    return browser.get(cluster.nodes[number].url(path), SCRIPT).status


def timed(ask: Callable[[], Any]) -> tuple[Any, float]:
    began = time.monotonic()
    return ask(), time.monotonic() - began


def await_status(ask: Callable[[], int], wanted: int, seconds: float = 15) -> float:
    """Ask until all children seem to give the wanted answer; when that began."""
    began = time.monotonic()
    since, in_a_row = began, 0
    while in_a_row < 12:
        status = ask()
        if status != wanted:
            since, in_a_row = time.monotonic(), 0
            assert since - began < seconds, f"still {status} after {seconds} s"
            time.sleep(0.02)
        in_a_row += status == wanted
    return since - began


def await_sign_in(cluster: Cluster, began: float) -> None:
    """Each child notices for itself that the cache is back."""
    while Browser().sign_in(cluster.url("/any/page.html"), "olivia").status != 200:
        assert time.monotonic() - began < 2 + SLACK


def is_refusal(answer: Answer) -> bool:
    """Our 503: a page with a reference that says when to come again, no redirect."""
    return (answer.status == 503 and bool(answer.reference) and int(answer.header("Retry-After") or 0) > 0
            and answer.location is None and answer.session_cookie is None)


def expect_outage(logs: Any) -> None:
    logs.allow(tags.CACHE_SILENT)
    logs.allow(tags.ANSWERED, "the session cache")


# -- one session on all machines

def test_signed_in_on_one_is_signed_in_on_all(start_cluster, cache, browser, simulator, mpm):
    cluster = start_cluster(cache.specification, mpm=mpm)
    assert browser.sign_in(cluster.url("/team/page.html"), "mark").status == 200
    simulator.forget_calls()
    for number in (1, 0, 1):
        assert status_on(cluster, number, browser, "/team/page.html") == 200
    seen = browser.get(cluster.nodes[1].url("/any/env.cgi")).environment
    assert seen["BITBUCKET_UUID"] == account("mark")["uuid"].strip("{}")
    assert simulator.asked() == []


def test_the_callback_comes_to_another_node(cluster, new_browser):
    for number in (1, 0):
        browser = new_browser()
        callback = browser.walk_to_callback(cluster.on(1 - number, cluster.url("/any/page.html")), "mark")
        answer = browser.get(cluster.on(number, callback))
        assert answer.status == 303 and answer.session_cookie
        assert [status_on(cluster, node, browser) for node in (0, 1)] == [200, 200]


def test_an_attempt_is_spent_on_all_nodes(cluster, browser, simulator):
    callback = browser.walk_to_callback(cluster.url("/any/page.html"), "mark")
    jar = dict(browser.jar.cookies)
    assert browser.get(cluster.on(0, callback)).status == 303
    browser.jar.cookies.clear()
    browser.jar.cookies.update(jar)
    simulator.forget_calls()
    again = browser.get(cluster.on(1, callback))
    assert again.session_cookie is None and again.status == 302, "the sign-in starts once more"
    assert simulator.asked() == [], "the code is not sent again"


def test_behind_a_balancer_without_stickiness(start_cluster, redis, browser, simulator):
    cluster = start_cluster(redis.specification, balancer=True)
    assert browser.sign_in(cluster.url("/team/page.html"), "mark").status == 200
    simulator.forget_calls()
    assert {browser.get(cluster.url("/team/page.html"), SCRIPT).status for _ in range(20)} == {200}
    for server in cluster.servers:
        server.await_in_log("access.log", "GET /team/page.html 200")
    cluster.servers[0].stop()
    assert {browser.get(cluster.url("/team/page.html"), SCRIPT).status for _ in range(10)} == {200}
    assert simulator.asked() == []
    assert Browser().sign_in(cluster.url("/any/page.html"), "olivia").status == 200


def test_a_sign_out_is_seen_within_the_age(cluster, browser):
    browser.sign_in(cluster.url("/any/page.html"), "mark")
    cookie = {**SCRIPT, "Cookie": f"bitbucket_session={browser.session_value()}"}
    assert [status_on(cluster, node, browser) for node in (0, 1)] == [200, 200]
    out = Browser()
    out.jar.cookies.update(browser.jar.cookies)
    out.submit(out.get(cluster.nodes[1].endpoint("logout").replace(cluster.public, cluster.nodes[1].origin)))
    began = time.monotonic()
    assert browser.get(cluster.nodes[1].url("/any/page.html"), cookie).status == 401, "at once where it happened"
    await_status(lambda: browser.get(cluster.nodes[0].url("/any/page.html"), cookie).status, 401)
    assert time.monotonic() - began < AGE + SLACK


@pytest.mark.one_mpm
def test_sessions_survive_the_servers(start_cluster, redis, browser, simulator, mpm):
    """The cache has them, so a node may be stopped and started."""
    cluster = start_cluster(redis.specification, mpm=mpm)
    browser.sign_in(cluster.url("/team/page.html"), "mark")
    cluster.servers[0].reload(signal.SIGUSR1)
    assert status_on(cluster, 0, browser) == 200
    cluster.servers[0].stop()
    cluster.servers[0].start()
    simulator.forget_calls()
    assert status_on(cluster, 0, browser, "/team/page.html") == 200
    assert simulator.asked() == []


@pytest.mark.one_mpm
def test_without_a_near_cache(start_cluster, redis, browser, logs):
    """Each request asks, so another machine's sign-out is seen by the next one."""
    cluster = start_cluster(redis.specification, near="0")
    browser.sign_in(cluster.url("/any/page.html"), "mark")
    assert [status_on(cluster, node, browser) for node in (0, 1)] == [200, 200]
    redis.flush()
    assert [status_on(cluster, node, browser) for node in (0, 1)] == [401, 401]
    browser.sign_in(cluster.url("/any/page.html"), "mark")
    expect_outage(logs)
    redis.stop()
    assert status_on(cluster, 0, browser) == 503


# -- refresh tokens that are used up by their use

WORKSPACES = [f"workspace-{number}" for number in range(16)]


@pytest.fixture
def rows(start_cluster, redis, browser, simulator) -> Cluster:
    """Each place /workspace-N/ asks about another workspace, when it is visited first."""
    cluster = start_cluster(redis.specification, directives=PLACES)
    for server in cluster.servers:
        for name in WORKSPACES:
            (server.content / name).mkdir()
            (server.content / name / "page.html").write_text("page")
            (server.content / name / ".htaccess").write_text(
                f"AuthType Bitbucket\nRequire bitbucket-workspace {name}\n")
    simulator.settings(refresh_overlap=0)
    browser.sign_in(cluster.url("/any/page.html"), "mark")
    simulator.forget_calls()
    return cluster


def test_nodes_refresh_in_turn(rows, browser, simulator):
    """Each refresh uses up the token of the one before, which the other node has made."""
    for number in range(8):
        simulator.end_tokens("access", account="mark")
        assert status_on(rows, number % 2, browser, f"/{WORKSPACES[number]}/page.html") == 403
        assert simulator.asked().count("refresh") == number + 1
    assert [status_on(rows, node, browser) for node in (0, 1)] == [200, 200]


def test_nodes_refresh_at_once(rows, browser, simulator):
    """One refreshes, the other finds what it brought."""
    simulator.fault("token", delay=0.2)
    for round_number in range(3):
        simulator.end_tokens("access", account="mark")
        simulator.forget_calls()
        names = WORKSPACES[4 * round_number:4 * round_number + 4]
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda job: status_on(rows, job % 2, browser, f"/{names[job // 2]}/page.html"),
                                     range(8)))
        assert statuses == [403] * 8
        assert simulator.asked().count("refresh") == 1
        assert sum(name.startswith("permission") for name in simulator.asked()) <= 8
    assert [status_on(rows, node, browser) for node in (0, 1)] == [200, 200]


# -- the cache is not there

def outage(cluster: Cluster, browser: Browser, began: float, number: int = 0) -> None:
    """Served from the copy while it is young enough; then 503 with all that belongs to it,
    and never access again."""
    url = cluster.nodes[number].url("/any/page.html")
    while (answer := browser.get(url)).status == 200:
        assert time.monotonic() - began < OUTAGE_AGE + SLACK, "still access after the outage age"
        time.sleep(0.02)
    assert time.monotonic() - began > OUTAGE_AGE - AGE - 0.2, "the outage is bridged"
    for _ in range(10):
        assert is_refusal(answer), answer
        answer = browser.get(url)


def check_outage(cluster: Cluster, cache: Cache, how: str, logs: Any, browser: Browser,
                 new_browser: Callable[[], Browser]) -> None:
    browser.sign_in(cluster.url("/any/page.html"), "mark")
    assert status_on(cluster, 0, browser) == 200
    stranger = new_browser()
    callback = stranger.walk_to_callback(cluster.url("/any/page.html"), "olivia")
    cache.stop() if how == "stopped" else cache.freeze()
    began = time.monotonic()
    # Who is not signed in does not need it, up to the callback, which cannot store anything.
    assert new_browser().get(cluster.url("/any/page.html")).status == 302
    assert new_browser().get(cluster.url("/open/page.html")).status == 200
    assert is_refusal(stranger.get(callback))
    steps = new_browser().walk(new_browser().get(cluster.url("/any/page.html")), "olivia")
    assert len(steps) < 12 and is_refusal(steps[-1])
    # On the other node nobody has a copy.
    assert is_refusal(browser.get(cluster.nodes[1].url("/any/page.html")))
    outage(cluster, browser, began)
    assert any(line.level == "error" for line in logs.lines(tags.CACHE_SILENT))
    # A cookie of nobody's is not called unknown while nobody can look.
    unknown = {**SCRIPT, "Cookie": "bitbucket_session=" + base64.urlsafe_b64encode(bytes(32)).decode().rstrip("=")}
    assert new_browser().get(cluster.url("/any/page.html"), unknown).status == 503
    if how == "stopped":
        cache.start()
        began = time.monotonic()
        # It has forgotten everything.
        assert await_status(lambda: status_on(cluster, 0, browser), 401) < 2 + SLACK
    else:
        cache.thaw()
        began = time.monotonic()
        assert await_status(lambda: status_on(cluster, 0, browser), 200) < 2 + SLACK
        assert await_status(lambda: status_on(cluster, 1, browser), 200) < 2 + SLACK
    await_sign_in(cluster, began)


@pytest.mark.one_mpm
@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_an_outage(cluster, cache, browser, new_browser, logs, how):
    expect_outage(logs)
    check_outage(cluster, cache, how, logs, browser, new_browser)


def test_an_outage_of_redis(start_cluster, redis, browser, new_browser, logs, mpm):
    expect_outage(logs)
    check_outage(start_cluster(redis.specification, mpm=mpm), redis, "frozen", logs, browser, new_browser)


@pytest.mark.one_mpm
def test_a_short_freeze_is_not_noticed(cluster, cache, browser, logs):
    """By those who have a copy; the session outlives it."""
    logs.allow(tags.CACHE_SILENT)
    browser.sign_in(cluster.url("/any/page.html"), "mark")
    assert status_on(cluster, 0, browser) == 200
    cache.freeze()
    began = time.monotonic()
    slowest = 0.0
    while time.monotonic() - began < OUTAGE_AGE - AGE - 0.5:
        status, seconds = timed(lambda: status_on(cluster, 0, browser))
        assert status == 200
        slowest = max(slowest, seconds)
        time.sleep(0.01)
    cache.thaw()
    assert slowest < 0.25 + 0.25 * SLACK
    await_status(lambda: status_on(cluster, 1, browser, "/any/page.html"), 200)


@pytest.mark.one_mpm
def test_a_frozen_cache_holds_nobody(start_cluster, cache, browser, logs, new_browser, figure):
    """Three time-outs of 250 ms for each process, then next to nothing."""
    expect_outage(logs)
    cluster = start_cluster(cache.specification)
    browser.sign_in(cluster.url("/any/page.html"), "mark")
    cache.freeze()
    answers = []
    deadline = time.monotonic() + 20
    # Until each child has learned it.
    while len(answers) < 40 or max(seconds for _, seconds in answers[-40:]) > 0.2:
        answers.append(timed(lambda: status_on(cluster, 1, browser)))
        assert time.monotonic() < deadline
    assert {status for status, _ in answers} == {503}
    slow = [seconds for _, seconds in answers if seconds > 0.2]
    assert len(slow) <= 3 * len(cluster.servers[1].children())
    assert max(slow) < 0.25 + 0.25 * SLACK
    quick = sorted(seconds for _, seconds in answers[-40:])
    open_page = sorted(timed(lambda: status_on(cluster, 1, browser, "/open/page.html"))[1] for _ in range(40))
    figure("the slowest answer", 1000 * max(slow), "ms")
    figure("afterwards, more than an open page", 1000 * (quick[20] - open_page[20]), "ms")
    assert quick[20] - open_page[20] < 0.005 * (4 if SANITIZED else 1)
    cache.thaw()
    assert await_status(lambda: status_on(cluster, 1, browser), 200) < 2 + SLACK


@pytest.mark.one_mpm
def test_threads_do_not_pile_up(start_cluster, cache, browser, new_browser, logs):
    """A hundred requests at once at a frozen cache: all answered, and afterwards as before."""
    expect_outage(logs)
    cluster = start_cluster(cache.specification)
    browser.sign_in(cluster.url("/any/page.html"), "mark")
    cache.freeze()
    with ThreadPoolExecutor(50) as pool:
        statuses, seconds = timed(lambda: list(pool.map(lambda _: status_on(cluster, 1, browser), range(100))))
    assert statuses == [503] * 100
    assert seconds < 2 + 2 * SLACK
    cache.thaw()
    await_status(lambda: status_on(cluster, 1, browser), 200)


def test_an_emptied_cache_is_a_sign_in(cluster, cache, browser, simulator):
    """No error: nobody has a session any more."""
    browser.sign_in(cluster.url("/any/page.html"), "mark")
    assert status_on(cluster, 0, browser) == 200
    cache.flush()
    assert status_on(cluster, 1, browser) == 401
    await_status(lambda: status_on(cluster, 0, browser), 401, AGE + SLACK)
    steps = browser.walk(browser.get(cluster.url("/any/page.html")))
    assert steps[-1].status == 200, "silently, as Bitbucket knows the visitor"


@pytest.mark.one_mpm
def test_a_restart_is_not_noticed_by_others(cluster, cache, browser, new_browser):
    """Connections of before are dead; the next sign-in works at the first try."""
    browser.sign_in(cluster.url("/any/page.html"), "mark")
    for _ in range(2):
        cache.stop()
        cache.start()
        assert new_browser().sign_in(cluster.url("/any/page.html"), "olivia").status == 200


@pytest.mark.one_mpm
def test_a_full_redis(start_cluster, redis, browser, new_browser, logs):
    """Sessions that are there go on, new ones find no place."""
    logs.expect(tags.ANSWERED, "does not take a record")
    cluster = start_cluster(redis.specification)
    browser.sign_in(cluster.url("/any/page.html"), "mark")
    redis.set_full(True)
    steps = new_browser().walk(new_browser().get(cluster.url("/any/page.html")), "olivia")
    assert len(steps) < 12 and is_refusal(steps[-1])
    for _ in range(5):
        assert [status_on(cluster, node, browser) for node in (0, 1)] == [200, 200]
        time.sleep(AGE / 2)
    redis.set_full(False)
    assert new_browser().sign_in(cluster.url("/any/page.html"), "olivia").status == 200


@pytest.mark.one_mpm
def test_a_slow_way_to_the_cache(start_cluster, redis, browser, new_browser, logs):
    expect_outage(logs)
    line = SlowLine(redis)
    try:
        cluster = start_cluster(line.specification)
        browser.sign_in(cluster.url("/any/page.html"), "mark")
        line.delay = 0.06
        status, seconds = timed(lambda: status_on(cluster, 1, browser))
        assert status == 200 and seconds >= 0.06, "slow, but in time"
        line.delay = 0.4
        began = time.monotonic()
        outage(cluster, browser, began - AGE, 1)
        line.delay = 0.0
        assert await_status(lambda: status_on(cluster, 1, browser), 200) < 2 + SLACK
    finally:
        line.stop()


# -- what the cache knows

@pytest.mark.one_mpm
def test_a_copy_of_the_cache_tells_nothing(cluster, cache, browser, simulator):
    browser.sign_in(cluster.url("/team/page.html"), "mark")
    assert status_on(cluster, 1, browser, "/team/page.html") == 200
    # Twice a minute apart it would be noted as used; it need not wait here.
    copy = cache.dump()
    assert len(cache.keys()) >= 3 and len(copy) > 1000
    person = account("mark")
    words = [person["display_name"], person["nickname"], person["uuid"].strip("{}"), "acme", "bitbucket.org",
             "mark", browser.session_value() or "?", KEY, *simulator.secrets()]
    for word in words:
        assert len(word) > 3 and word.encode() not in copy, word


@pytest.mark.one_mpm
def test_another_key_finds_no_session(start_cluster, redis, browser, logs):
    """As if the cache were empty; with both keys on both nodes nobody is signed out."""
    other = "another-session-key-0123456789-abcdefgh"
    logs.remember(other)
    cluster = start_cluster(redis.specification)
    browser.sign_in(cluster.url("/any/page.html"), "mark")

    def give_keys(number: int, keys: str) -> None:
        file = cluster.servers[number].config_file
        lines = [f"AuthBitbucketSessionKey {keys}" if line.startswith("AuthBitbucketSessionKey") else line
                 for line in file.read_text().splitlines()]
        file.write_text("\n".join(lines) + "\n")
        cluster.servers[number].reload(signal.SIGHUP)

    give_keys(1, other)
    assert status_on(cluster, 1, browser) == 401
    give_keys(1, f"{other} {KEY}")
    assert status_on(cluster, 1, browser) == 200
    second = Browser()
    second.sign_in(cluster.on(1, cluster.url("/any/page.html")), "olivia")
    give_keys(0, f"{KEY} {other}")
    assert status_on(cluster, 0, browser) == 200


# -- other providers

@pytest.mark.one_mpm
def test_shmcb_works_too(start_server, browser, new_browser, mpm):
    """On one machine, with the generated key."""
    host = VirtualHost(PLACES)
    server = start_server(host, mpm=mpm, main=f"AuthBitbucketSessionCache shmcb:run/sessions(512000)\n"
                                              "AuthBitbucketSessionNearCache 1s 4s\n")
    browser.sign_in(host.url("/team/page.html"), "mark")
    for _ in range(3):
        assert browser.get(host.url("/team/page.html"), SCRIPT).status == 200
        time.sleep(0.6)
    old = browser.session_value()
    browser.submit(browser.get(host.endpoint("logout")))
    assert browser.get(host.url("/any/page.html"), {**SCRIPT, "Cookie": f"bitbucket_session={old}"}).status == 401
    assert new_browser().sign_in(host.url("/any/page.html"), "olivia").status == 200
    server.reload(signal.SIGUSR1)
    assert new_browser().sign_in(host.url("/any/page.html"), "olivia").status == 200


# -- configuration

@pytest.fixture
def check(start_server):
    def run(main: str) -> tuple[int, str]:
        done = start_server.prepare(VirtualHost(PLACES), main=main).run("-t")
        return done.returncode, done.stdout

    return run


@pytest.mark.one_mpm
@pytest.mark.parametrize("kind", ["redis", "memcache"])
def test_a_shared_cache_needs_a_key(check, kind):
    lines = load_module("socache_" + kind) + f"AuthBitbucketSessionCache {kind}:127.0.0.1:1\n"
    code, output = check(lines)
    assert code != 0 and tags.KEY_NEEDED in output and "AuthBitbucketSessionKey file:PATH" in output
    assert f"{kind}:127.0.0.1:1" in output
    code, output = check(lines + f"AuthBitbucketSessionKey {KEY}\n")
    assert code == 0, output


@pytest.mark.one_mpm
@pytest.mark.parametrize("value, parts", [
    ("redis:127.0.0.1:6379", ["'redis:127.0.0.1:6379'", "loaded are: shmcb", "mod_socache_redis"]),
    ("disk", ["'disk'", "shm(SIZE)", "loaded are: shmcb"]),
    ("shmcb:relative(12)", ["'shmcb:relative(12)'", "provider shmcb"]),
])
def test_a_cache_that_is_none(check, value, parts):
    code, output = check(f"AuthBitbucketSessionCache {value}\nAuthBitbucketSessionKey {KEY}\n")
    assert code != 0
    for part in ["AuthBitbucketSessionCache", *parts]:
        assert part in output


@pytest.mark.one_mpm
def test_a_cache_without_an_address(check):
    code, output = check(load_module("socache_redis") + "AuthBitbucketSessionCache redis\n")
    assert code != 0 and "'redis'" in output and "server names required" in output


@pytest.mark.one_mpm
@pytest.mark.parametrize("value, part", [
    ("soon", "'soon'"), ("10s 5s", "'10s 5s'"), ("-1", "'-1'"), ("2h", "3600s"), ("0 60s", "'0 60s'"), ("", "takes"),
    ("1s 2s 3s", "takes"),
])
def test_near_caches_that_are_none(check, value, part):
    code, output = check(f"AuthBitbucketSessionNearCache {value}\n")
    assert code != 0 and "AuthBitbucketSessionNearCache" in output and part in output


@pytest.mark.one_mpm
@pytest.mark.parametrize("value", ["0", "10s", "10s 60s", "5", "90s", "1s 1s"])
def test_near_caches(check, value):
    code, output = check(f"AuthBitbucketSessionNearCache {value}\n")
    assert code == 0, output


@pytest.mark.one_mpm
def test_near_caches_are_for_the_whole_server(start_server):
    done = start_server.prepare(VirtualHost("AuthBitbucketSessionNearCache 5s\n" + PLACES)).run("-t")
    assert done.returncode != 0 and "AuthBitbucketSessionNearCache" in done.stdout
