"""Sessions that last: graceful and restart under load, files, kills, changed settings."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import threading
import time
from http.client import BadStatusLine, IncompleteRead
from pathlib import Path

import pytest

from harness.client import SCRIPT
from harness.config import VirtualHost, free_port, module_under_test, place
from harness.disk import Disk
from harness.machine import system_objects
from harness.server import SANITIZED
from harness.waiting import eventually

pytestmark = pytest.mark.alone

SIZE = 2 * 1024 * 1024


# -- a site whose sessions are in a file

@pytest.fixture
def host():
    return VirtualHost(place("any", "Require valid-user"))


class Place:
    """Directory and settings of a session file."""

    def __init__(self, server) -> None:
        self.server = server
        self.directory = server.root / "state"
        self.directory.mkdir(mode=0o700)
        self.file = self.directory / "sessions"

    def beside(self, ending: str) -> Path:
        return self.file.with_name("sessions" + ending)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.directory.iterdir())

    def use(self, cache: str) -> None:
        """Another AuthBitbucketSessionCache, from the next start or reload on."""
        text = self.server.config_file.read_text()
        self.server.config_file.write_text(re.sub(r"(?m)^AuthBitbucketSessionCache .*$",
                                                  "AuthBitbucketSessionCache " + cache, text))


CACHE = "shm:state/sessions(2M)"


@pytest.fixture
def prepare(start_server, mpm):
    """A server with a session file, not started yet."""
    def prepare(host, cache=CACHE, **more):
        server = start_server.prepare(host, mpm=mpm, main=f"AuthBitbucketSessionCache {cache}\n", **more)
        return server, Place(server)
    return prepare


def sign_in(browser, host, person="mark"):
    assert browser.sign_in(host.url("/any/page.html"), person).status == 200
    return browser


def status(browser, host):
    return browser.get(host.url("/any/page.html"), SCRIPT).status


def taken_over(logs):
    """Records that the last start found, by what became of them."""
    line = logs.lines("ABB0015")[-1].text
    words = ("taken over", "had ended", "were damaged", "found no room", "bytes could not be read")
    return dict(zip(words, map(int, re.findall(r" (\d+) (?:records |bytes |were |had |found )", line)), strict=True))


# -- visitors who are at it all the time

class Visitors:
    """Threads that sign in and ask for pages; who is signed in must stay so."""

    def __init__(self, host, new_browser, threads=3):
        self._host = host
        self._new_browser = new_browser
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work) for _ in range(threads)]
        self.signed_in = []
        self.problems = []
        self.requests = 0

    def _work(self):
        while not self._stop.is_set():
            browser = self._new_browser()
            try:
                answer = browser.sign_in(self._host.url("/any/page.html"), "mark")
                if answer.status != 200:
                    self.problems.append(answer)
                    continue
                self.signed_in.append(browser)
                for _ in range(5):
                    answer = random.choice(self.signed_in).get(self._host.url("/any/page.html"), SCRIPT)
                    self.requests += 1
                    if answer.status != 200:
                        self.problems.append(answer)
            except Exception as problem:  # noqa: BLE001 - none is lost; the test says which may be
                self.problems.append(problem)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def __exit__(self, *_):
        self.stop()


def was_cut(problem) -> bool:
    """The connection ended before its answer was whole: httpd itself does that when it is killed or restarted."""
    return isinstance(problem, (OSError, IncompleteRead, BadStatusLine)) or "was closed" in str(problem)


def tell(capsys, mpm, what, visitors):
    with capsys.disabled():
        print(f"\n{mpm}, {what}: {len(visitors.signed_in)} sign-ins, {visitors.requests} requests, "
              f"{len(visitors.problems)} problems")


# -- reloads

@pytest.mark.parametrize("cache", ["shm(16M)", "shm:state/sessions(16M)"])
def test_gracefuls_in_a_row_under_load(prepare, new_browser, simulator, logs, mpm, host, cache, figure, capsys):
    """Nobody is signed out and no sign-in fails, not one. 100 in a row were seen, too."""
    simulator.settings(quota=None)
    rounds = {"event": 10 if SANITIZED else 100, "worker": 5, "prefork": 5}[mpm]
    server, _ = prepare(host, cache)
    server.start()
    before = system_objects()
    with Visitors(host, new_browser) as visitors:
        for _ in range(rounds):
            server.reload(signal.SIGUSR1)
    tell(capsys, mpm, f"{cache}, {rounds} gracefuls", visitors)
    figure("sign-ins and requests during them", len(visitors.signed_in) + visitors.requests)
    figure("of these failed", len(visitors.problems))
    assert visitors.problems == []
    assert len(visitors.signed_in) > rounds // 2
    assert {status(browser, host) for browser in visitors.signed_in} == {200}
    assert system_objects() == before
    assert logs.lines("ABB0011") == logs.lines("ABB0015") == []


def test_restarts_in_a_row_under_load(prepare, new_browser, simulator, logs, mpm, host, capsys):
    """httpd itself cuts connections then; who is signed in stays so."""
    simulator.settings(quota=None)
    if mpm == "event":
        # Its main thread looks at a connection that a worker is just freeing; see Server.stop.
        logs.forgive("exit signal Segmentation fault")
    if mpm == "prefork":
        # It destroys its pools in the handler of SIGTERM, which may have come into the middle of malloc():
        # seen in the stacks of children that hung there, and in one of 20 rounds as an abort.
        for consequence in ("corrupted double-linked list", "exit signal Abort", "exit signal Segmentation fault",
                            "still did not exit, sending a SIG"):
            logs.forgive(consequence)
    rounds = 10 if mpm == "event" else 3
    server, _ = prepare(host)
    server.start()
    with Visitors(host, new_browser) as visitors:
        for _ in range(rounds):
            server.reload(signal.SIGHUP)
    tell(capsys, mpm, f"{rounds} restarts", visitors)
    assert [problem for problem in visitors.problems if not was_cut(problem)] == []
    assert visitors.signed_in
    assert {status(browser, host) for browser in visitors.signed_in} == {200}


@pytest.mark.one_mpm
@pytest.mark.parametrize("caches", [
    ["shm(1M)", "shm(4M)", "shm(512K)"],
    ["shm:state/sessions(1M)", "shm:state/sessions(4M)", "shm:state/sessions(512K)"],
    ["shm(1M)", "shm:state/sessions(1M)", "shm(1M)", "shm:state/sessions(1M)"],
    ["shm:state/sessions(1M)", "shm:state/others(1M)", "shm:state/sessions(2M)"]])
def test_changed_settings(prepare, browser, new_browser, logs, host, caches):
    """Sessions and sign-ins under way move; who has signed out does not come back."""
    server, place_of = prepare(host, caches[0])
    server.start()
    sign_in(browser, host)
    for cache in caches[1:]:
        pending = new_browser()
        callback = pending.walk_to_callback(host.url("/any/page.html"), "olivia")
        gone = sign_in(new_browser(), host)
        value = gone.session_value()
        gone.submit(gone.get(host.endpoint("logout")))
        place_of.use(cache)
        server.reload(signal.SIGUSR1)
        assert status(browser, host) == 200
        assert browser.get(host.endpoint("userinfo")).json["username"] == "mark_miller", "the tokens open"
        assert pending.get(callback).status == 303
        assert status(pending, host) == 200
        assert browser.get(host.url("/any/page.html"),
                           {**SCRIPT, "Cookie": f"bitbucket_session={value}"}).status == 401
        name = re.search(r"state/(\w+)", cache)
        assert place_of.names() == ([name[1] + ending for ending in ("", ".key", ".lock")] if name else [])
    assert len(logs.lines("ABB0011", "notice")) == len(caches) - 1
    server.stop()
    server.start()
    assert status(browser, host) == (200 if "state" in caches[-1] else 401)


@pytest.mark.one_mpm
def test_settings_that_cannot_be_used_do_not_end_the_server(prepare, browser, logs, host):
    server, place_of = prepare(host)
    server.start()
    sign_in(browser, host)
    place_of.use("shm:nowhere/sessions")
    logs.expect("ABB0017", "nowhere")
    server.reload(signal.SIGUSR1)
    assert status(browser, host) == 200
    place_of.use(CACHE)
    server.stop()
    server.start()
    assert status(browser, host) == 200
    assert place_of.names() == ["sessions", "sessions.key", "sessions.lock"]


@pytest.mark.one_mpm
def test_a_file_that_is_taken_away(prepare, browser, logs, host):
    """The next reload writes it again."""
    server, place_of = prepare(host)
    server.start()
    sign_in(browser, host)
    place_of.file.unlink()
    server.reload(signal.SIGUSR1)
    assert status(browser, host) == 200
    place_of.file.unlink()
    place_of.file.write_bytes(b"another one's")
    server.reload(signal.SIGUSR1)
    assert place_of.beside(".refused").read_bytes() == b"another one's"
    assert len(logs.lines("ABB0011", "notice")) == 2
    server.stop()
    server.start()
    assert status(browser, host) == 200


@pytest.mark.one_mpm
@pytest.mark.parametrize("cache, expected", [("shm(2M)", 401), (CACHE, 200)])
def test_another_version_by_a_graceful(prepare, browser, host, cache, expected):
    """It cannot use what the old one has in memory; the file it can, and the server goes on."""
    server, place_of = prepare(host, cache)
    server.start()
    sign_in(browser, host)
    module = module_under_test()
    newer = server.root / "newer.so"
    newer.write_bytes(module.read_bytes().replace(b"mod_auth_bitbucket:2\0", b"mod_auth_bitbucket:~\0"))
    assert newer.read_bytes() != module.read_bytes()
    server.config_file.write_text(server.config_file.read_text().replace(str(module), str(newer)))
    for _ in range(2):
        server.reload(signal.SIGUSR1)
        assert status(browser, host) == expected
    server.stop()
    server.start()
    assert status(browser, host) == expected


# -- stops and kills

def test_stop_and_start(prepare, browser, new_browser, logs, mpm, host):
    before = system_objects()
    server, place_of = prepare(host)
    server.start()
    key = place_of.beside(".key").read_text().split()[1]
    logs.remember(key)
    sign_in(browser, host)
    other = new_browser()
    callback = other.walk_to_callback(host.url("/any/page.html"), "olivia")
    for _ in range(3):
        server.stop()
        assert system_objects() == before
        assert [path.name for path in (server.root / "run").iterdir() if not path.name.startswith("cgid")] == []
        assert place_of.names() == ["sessions", "sessions.key", "sessions.lock"]
        assert {path.stat().st_mode & 0o7777 for path in place_of.directory.iterdir()} == {0o600}
        assert place_of.file.stat().st_size == SIZE
        server.start()
        assert status(browser, host) == 200
        assert browser.get(host.endpoint("userinfo")).json["username"] == "mark_miller", "the tokens open"
        assert taken_over(logs)["taken over"] >= 1
        assert taken_over(logs)["were damaged"] == 0
    assert other.get(callback).status == 303, "a sign-in that was under way"
    assert status(other, host) == 200
    assert place_of.beside(".key").read_text().split()[1] == key


@pytest.mark.one_mpm
def test_the_file_holds_no_token_and_no_cookie(prepare, browser, simulator, host):
    """Names are readable in it, as docs/sessions.md says; nothing is that opens a door."""
    server, place_of = prepare(host)
    server.start()
    sign_in(browser, host)
    key = place_of.beside(".key").read_text().split()[1]
    secrets = [browser.session_value(), key, *simulator.secrets()]
    assert len(secrets) > 4
    content = place_of.file.read_bytes()
    assert b"mark_miller" in content, "the session is in there"
    for secret in secrets:
        assert len(secret) > 8 and secret.encode() not in content
    server.stop()
    assert not any(secret.encode() in place_of.file.read_bytes() for secret in [*secrets, *simulator.secrets()])


def test_everything_is_killed(prepare, new_browser, simulator, logs, mpm, host, figure, capsys):
    """Again and again, in the middle of work: who has a session cookie is signed in. 100 in a row were seen, too."""
    simulator.settings(quota=None)
    rounds = {"event": 10 if SANITIZED else 40, "worker": 5, "prefork": 5}[mpm]
    before = system_objects()
    server, place_of = prepare(host, "shm:state/sessions(16M)")
    server.start()
    signed_in = []
    for number in range(rounds):
        with Visitors(host, new_browser) as visitors:
            visitors.signed_in = signed_in
            time.sleep(random.uniform(0.02, 0.12))
            server.kill()
            visitors.stop()
        assert [problem for problem in visitors.problems if not was_cut(problem)] == []
        server.start()
        assert status(random.choice(signed_in), host) == 200 if signed_in else True
        assert taken_over(logs)["were damaged"] == 0
    with capsys.disabled():
        print(f"\n{mpm}: {rounds} times killed, {len(signed_in)} sign-ins")
    figure("times killed", rounds)
    figure("sessions lost", len([browser for browser in signed_in if status(browser, host) != 200]))
    assert len(signed_in) > rounds // 4
    assert {status(browser, host) for browser in signed_in} == {200}
    assert place_of.names() == ["sessions", "sessions.key", "sessions.lock"]
    server.stop()
    assert system_objects() == before


@pytest.mark.one_mpm
def test_one_file_for_two_servers(prepare, browser, host):
    first, place_of = prepare(host)
    first.start()
    sign_in(browser, host)
    second, _ = prepare(VirtualHost(host.directives), f"shm:{place_of.file}(4M)")
    with pytest.raises(RuntimeError, match=rf"ABB0010: .* is in use by another httpd \(process {first.pid} "):
        second.start()
    assert status(browser, host) == 200
    first.stop()
    second.start()
    second.stop()


@pytest.mark.one_mpm
def test_children_without_a_parent(prepare, browser):
    """They go on with the file, so nobody else may have it; when they end, a start goes well."""
    port = free_port()
    host = VirtualHost(place("any", "Require valid-user"), port=port,
                       callback=f"http://localhost:{port}/bitbucket/callback")
    server, _ = prepare(host)
    server.start()
    sign_in(browser, host)
    dead = server.pid
    group = server.kill_parent()
    old_url = host.url("/any/page.html")
    try:
        assert browser.get(old_url, SCRIPT).status == 200
        text = server.config_file.read_text()
        host.port = free_port()
        server.config_file.write_text(re.sub(rf"127\.0\.0\.1:{port}\b", f"127.0.0.1:{host.port}", text))
        (server.root / "run" / "httpd.pid").unlink()
        with pytest.raises(RuntimeError, match=f"process {dead} or children of its"):
            server.start()
        timer = threading.Timer(1.5, os.killpg, (group, signal.SIGKILL))
        timer.start()
        started = time.monotonic()
        server.start()
        assert 1 < time.monotonic() - started < 10
        assert status(browser, host) == 200
    finally:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            pass


# -- keys

KEYS = ["first-session-key-0123456789abcdef", "second-session-key-0123456789abcdef"]


@pytest.mark.one_mpm
@pytest.mark.parametrize("cache", ["shm(2M)", CACHE])
def test_keys_are_replaced(prepare, browser, new_browser, logs, host, cache):
    """None, one, a new one before it, the new one alone: nobody is signed out, and what is
    under way is finished."""
    for key in KEYS:
        logs.remember(key)
    host.directives = "# keys\n" + host.directives
    server, _ = prepare(host, cache)
    server.start()
    for line in (KEYS[0], f"{KEYS[1]} {KEYS[0]}"):
        sign_in(browser, host)
        other = new_browser()
        callback = other.walk_to_callback(host.url("/any/page.html"), "olivia")
        text = server.config_file.read_text()
        server.config_file.write_text(re.sub(r"(?m)^(# keys|AuthBitbucketSessionKey .*)$",
                                             "AuthBitbucketSessionKey " + line, text))
        server.reload(signal.SIGUSR1)
        if cache == CACHE:
            server.stop()
            server.start()
        assert browser.get(host.endpoint("userinfo")).json["username"] == "mark_miller", "the tokens open"
        assert other.get(callback).status == 303, "the ticket opens"
        browser.jar.cookies.clear()


@pytest.mark.one_mpm
def test_the_key_is_lost(prepare, browser, logs, host):
    """The file is kept, and put back with its key it is as good as before."""
    server, place_of = prepare(host)
    server.start()
    sign_in(browser, host)
    server.stop()
    key = place_of.beside(".key").read_bytes()
    place_of.beside(".key").unlink()
    logs.expect("ABB0016", "was written under another key")
    server.start()
    assert status(browser, host) == 401
    server.stop()
    place_of.beside(".refused").rename(place_of.file)
    place_of.beside(".key").write_bytes(key)
    server.start()
    assert status(browser, host) == 200


@pytest.mark.one_mpm
def test_the_key_is_damaged(prepare, browser, host):
    server, place_of = prepare(host)
    place_of.beside(".key").write_text("bitbucket-session-key-1 short\n")
    place_of.beside(".key").chmod(0o600)
    with pytest.raises(RuntimeError, match="sessions.key is damaged: put a backup in its place, or remove it"):
        server.start()
    place_of.beside(".key").unlink()
    server.start()
    sign_in(browser, host)


# -- what stands in the way

def make_link(file):
    file.symlink_to(file.with_name("elsewhere"))


def make_foreign_text(file):
    file.write_text("somebody's own text\n")
    file.chmod(0o600)


def make_readable(file):
    file.write_text("root:x:0:0\n")
    file.chmod(0o644)


@pytest.mark.one_mpm
@pytest.mark.parametrize("make, sentence", [
    (make_link, "is a symbolic link"), (Path.mkdir, "is no regular file"), (os.mkfifo, "is no regular file"),
    (make_foreign_text, "holds no sessions"), (make_readable, "may be used by others")])
def test_it_is_not_ours(prepare, browser, host, make, sentence):
    """A start that would destroy what somebody else has made is refused."""
    server, place_of = prepare(host)
    make(place_of.file)
    before = place_of.file.lstat()
    with pytest.raises(RuntimeError, match=sentence):
        server.start()
    after = place_of.file.lstat()
    assert (before.st_ino, before.st_mtime, before.st_size) == (after.st_ino, after.st_mtime, after.st_size)
    assert set(place_of.names()) <= {"sessions", "sessions.key"}
    place_of.file.rename(place_of.directory / "moved-away")
    server.start()
    sign_in(browser, host)


@pytest.mark.one_mpm
def test_directories(prepare, browser, host):
    server, place_of = prepare(host)
    place_of.directory.rmdir()
    with pytest.raises(RuntimeError, match="No such file or directory: make it, owned by the user httpd starts as"):
        server.start()
    place_of.directory.mkdir()
    place_of.directory.chmod(0o1777)
    with pytest.raises(RuntimeError, match="may make files"):
        server.start()
    place_of.directory.chmod(0o700)
    server.start()
    sign_in(browser, host)


@pytest.mark.one_mpm
def test_another_owner(prepare, browser, logs, host):
    """The file was ours; who has it now may have changed it."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    server, place_of = prepare(host)
    server.start()
    sign_in(browser, host)
    server.stop()
    os.chown(place_of.file, 65534, 65534)
    logs.expect("ABB0016", "belongs to user id 65534, not to 0")
    server.start()
    assert status(browser, host) == 401
    server.stop()
    place_of.beside(".refused").rename(place_of.file)
    os.chown(place_of.file, 0, 0)
    server.start()
    assert status(browser, host) == 200


@pytest.mark.one_mpm
def test_damaged_files(prepare, new_browser, logs, host):
    """Flipped, cut, of another version: each start goes well and tells."""
    logs.allow("ABB0015")
    logs.allow("ABB0016")
    server, place_of = prepare(host)
    server.start()
    browsers = [sign_in(new_browser(), host) for _ in range(20)]
    server.stop()
    good = place_of.file.read_bytes()
    chance = random.Random(7)
    used = [at for at in range(0, len(good), 64) if any(good[at:at + 64])]
    kept = []
    for number in range(30):
        bad = bytearray(good)
        for _ in range(10 ** (number % 4)):
            bad[chance.choice(used) + chance.randrange(64)] ^= 1 << chance.randrange(8)
        if number % 3 == 0:
            del bad[chance.randrange(len(bad)):]
        place_of.file.write_bytes(bad)
        server.start()
        statuses = [status(browser, host) for browser in browsers]
        assert set(statuses) <= {200, 401}
        kept.append(statuses.count(200))
        server.stop()
    assert max(kept) >= 15 and min(kept) < 15, kept
    assert len(logs.lines("ABB0015")) + len(logs.lines("ABB0016")) == 30, "one line each start"
    place_of.file.write_bytes(good)
    server.start()
    assert {status(browser, host) for browser in browsers} == {200}


# -- the disk

def test_changes_go_to_the_disk(prepare, scratch, clock, browser, mpm, host):
    """All within a second while there is something to write, by one process at a time; an
    idle server lets its disk sleep."""
    disk = Disk(scratch)
    server, _ = prepare(host, clock=clock, preload=[disk.library], environment=disk.environment)
    server.start()
    sign_in(browser, host)
    syncs = disk.await_syncs(6)
    assert not any(sync.failed for sync in syncs)
    gaps = [after.at - before.at for before, after in zip(syncs, syncs[1:])]
    assert max(gaps) < 1.5 and min(gaps) > 0.5, gaps
    assert server.pid not in {sync.process for sync in syncs}
    clock.advance(601)
    disk.await_syncs(0)
    time.sleep(1)
    count = len(disk.syncs())
    time.sleep(2)
    assert len(disk.syncs()) == count
    assert status(browser, host) == 200
    disk.await_syncs(2)
    server.stop()
    assert disk.syncs()[-1].process not in (0, syncs[0].process), "the last is the server's own"


@pytest.mark.one_mpm
def test_who_writes_dies(prepare, scratch, browser, logs, host):
    """Another process takes its place."""
    logs.forgive("exit signal Killed")
    disk = Disk(scratch)
    server, _ = prepare(host, preload=[disk.library], environment=disk.environment)
    server.start()
    for _ in range(3):
        sign_in(browser, host)
        dead = disk.await_syncs(1)[0].process
        os.kill(dead, signal.SIGKILL)
        eventually(lambda: dead not in {sync.process for sync in disk.await_syncs(2)})
        browser.jar.cookies.clear()


@pytest.mark.one_mpm
def test_the_disk_breaks(prepare, scratch, clock, browser, logs, host):
    """Requests go on, and one line a minute says so."""
    disk = Disk(scratch)
    server, _ = prepare(host, clock=clock, preload=[disk.library], environment=disk.environment)
    server.start()
    disk.break_down()
    logs.expect("ABB0019", "Input/output error")
    sign_in(browser, host)
    assert all(sync.failed for sync in disk.await_syncs(4)[1:])
    assert status(browser, host) == 200
    assert len(logs.lines("ABB0019")) == 1
    clock.advance(61)
    disk.await_syncs(3)
    assert len(logs.lines("ABB0019")) == 2
    disk.mend()
    assert not disk.await_syncs(2)[-1].failed


# -- the power fails

class LoopDisk:
    """A file system in a file, of which a copy is what a power failure would leave."""

    def __init__(self, directory: Path) -> None:
        self._image = directory / "image"
        self.path = directory / "mounted"
        self.path.mkdir()
        self._run(f"truncate -s 32M {self._image}; mkfs.ext4 -q {self._image}")
        self.mount()

    @staticmethod
    def _run(command: str) -> None:
        subprocess.run(["sh", "-ec", command], check=True, capture_output=True, timeout=60)

    def mount(self) -> None:
        self._run(f"mount -o loop {self._image} {self.path}")

    def unmount(self) -> None:
        """Who was killed may take a moment to let go."""
        deadline = time.monotonic() + 10
        while subprocess.run(["umount", self.path], capture_output=True).returncode:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def remember(self) -> None:
        """What has come to the disk up to now."""
        self._run(f"cp --sparse=always {self._image} {self._image}.now")

    def go_back(self) -> None:
        self._run(f"mv {self._image}.now {self._image}")


@pytest.fixture
def loop_disk(tmp_path):
    if os.geteuid() != 0 or not shutil.which("mkfs.ext4"):
        pytest.skip("needs root and mkfs.ext4")
    try:
        disk = LoopDisk(tmp_path)
    except subprocess.CalledProcessError as problem:
        pytest.skip(f"no file system can be mounted here: {problem.stderr.decode().strip()[:100]}")
    yield disk
    if os.path.ismount(disk.path):
        disk.unmount()


@pytest.mark.one_mpm
def test_power_failures(loop_disk, prepare, new_browser, simulator, logs, host):
    """Everything that was a second old is there afterwards. The disk comes first, so that it goes last, after the
    server whose files it has."""
    simulator.settings(quota=None)
    logs.allow("ABB0015")
    (loop_disk.path / "state").mkdir(mode=0o700)
    server, _ = prepare(host, f"shm:{loop_disk.path}/state/sessions(4M)")
    server.start()
    count = 0
    for _ in range(4):
        signed_in = []
        end = time.monotonic() + random.uniform(2, 3)
        while time.monotonic() < end:
            signed_in.append((time.monotonic(), sign_in(new_browser(), host)))
            time.sleep(0.02)
        cut = time.monotonic()
        loop_disk.remember()
        server.kill()
        loop_disk.unmount()
        loop_disk.go_back()
        loop_disk.mount()
        server.start()
        # Half a second more for a machine that has much to do.
        old = [browser for at, browser in signed_in if at < cut - 1.5]
        assert {status(browser, host) for browser in old} == {200}
        count += len(old)
    assert count > 20
    server.stop()


# -- strangers


def _records(file: Path) -> bytes:
    """All of a session file behind its header, whose counts of hits and misses may change."""
    image = file.read_bytes()
    return image[int.from_bytes(image[32:40], "little"):]


def _own_memory(server) -> int:
    """Bytes that the largest child has for itself, without what is shared."""
    texts = [Path(f"/proc/{pid}/status").read_text() for pid in server.children()]
    return max(1024 * int(match.group(1)) for text in texts if (match := re.search(r"RssAnon:\s+(\d+) kB", text)))


def _ask_as_strangers(url: str, count: int) -> None:
    """Each of them makes up a session cookie."""
    done = subprocess.run(["ab", "-q", "-k", "-n", str(count), "-c", "20", "-s", "30", "-H", "Accept: text/html",
                           "-H", "Sec-Fetch-Mode: navigate", "-C", "bitbucket_session=" + "A" * 43, url],
                          capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"Non-2xx responses:\s+{count}$", done.stdout, re.M), done.stdout
    assert re.search(r"Failed requests:\s+0$", done.stdout, re.M), done.stdout


def test_many_strangers_take_nothing(prepare, new_browser, mpm, host, figure):
    """The smallest store there is, and one who is signed in."""
    server, place = prepare(host, cache="shm:state/sessions(256K)")
    text = server.config_file.read_text()
    server.config_file.write_text(text.replace("auth_bitbucket:trace8", "auth_bitbucket:info"))
    server.start()
    browser = sign_in(new_browser(), host)
    _ask_as_strangers(host.url("/any/page.html"), 5000)
    records, memory = _records(place.file), _own_memory(server)
    _ask_as_strangers(host.url("/any/page.html"), 100_000 if mpm == "event" and not SANITIZED else 5000)
    assert _records(place.file) == records
    figure("memory of a child grows by", (_own_memory(server) - memory) / 2**20, "MiB")
    assert _own_memory(server) < memory + 8 * 1024 * 1024
    assert status(browser, host) == 200
