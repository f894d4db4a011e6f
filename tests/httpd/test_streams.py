"""HTTP/2: many streams on one connection, each with the identity of its own cookies."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.client import NAVIGATION, SCRIPT
from harness.config import VirtualHost, modules_directory, place
from harness.figures import Figures
from harness.fixtures import lasting, wanted_mpms
from harness.server import Server
from harness.simulator import account, uuid_of
from test_sections import OnSamePort

STREAMS = 60
PEOPLE = ("mark", "olivia", "priya")


@pytest.fixture(scope="module")
def served(shared_simulator):
    if wanted_mpms() == ["prefork"]:
        pytest.skip("mod_http2 does not work well with prefork")
    mpm = next(mpm for mpm in wanted_mpms() if mpm != "prefork")
    places = "\n".join([place("any", "Require valid-user"), place("team", "Require bitbucket-workspace acme"),
                        place("owners", "Require bitbucket-workspace acme:owner")])
    host = VirtualHost(places, tls=True)
    other = OnSamePort(places, tls=True, name="other.example.test", port=host.port)
    server = Server([host, other], shared_simulator, mpm,
                    main=f"LoadModule http2_module {modules_directory()}/mod_http2.so\nProtocols h2 http/1.1\n"
                         "AuthBitbucketSessionCache shm:state/sessions(1M)\n")
    (server.root / "state").mkdir(mode=0o700)
    with lasting(server):
        yield host, other, server


class Ask:
    """One request of many: what is sent, and after curl has run what came back."""

    def __init__(self, url: str, cookie: str = "", *options: str, headers=SCRIPT) -> None:
        self.url, self.options = url, options
        self.headers = {**headers, **({"Cookie": cookie} if cookie else {})}
        self.status, self.version, self.connects, self.body, self.answered = 0, "", 0, b"", {}

    @property
    def environment(self) -> dict[str, str]:
        return dict(entry.split("=", 1) for entry in self.body.decode().split("\0") if entry)


def run(directory: Path, asks: list[Ask]) -> list[Ask]:
    """All at once. httpd resets a stream whose body nobody read, behind the answer, and under load
    the reset may overtake it in curl: then that one is asked again."""
    run_once(directory, asks)
    for _ in range(3):
        if cut := [ask for ask in asks if ask.version == "0"]:
            run_once(directory, cut)
    assert {ask.version for ask in asks} == {"2"}
    return asks


def run_once(directory: Path, asks: list[Ask]) -> None:
    """Over as few connections as curl needs; over TLS, since Debian 12's curl mixes up streams
    without (h2c)."""
    command = ["curl", "--silent", "--parallel", "--parallel-max", str(len(asks))]
    for number, ask in enumerate(asks):
        command += (["--next"] if number else []) + [
            "--http2", "--insecure", "--max-time", "60", "--output", str(directory / f"body{number}"),
            "--dump-header", str(directory / f"head{number}"),
            "--write-out", f"{number} %{{http_code}} %{{http_version}} %{{num_connects}}\\n", *ask.options]
        for name, value in ask.headers.items():
            command += ["--header", f"{name}: {value}"]
        command.append(ask.url)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    # 92: a stream was reset; what was answered is judged by the caller.
    assert done.returncode in (0, 92), done.stderr
    for line in done.stdout.splitlines():
        number, status, version, connects = line.split()
        ask = asks[int(number)]
        ask.status, ask.version, ask.connects = int(status), version, int(connects)
        body = directory / f"body{number}"
        ask.body = body.read_bytes() if body.exists() else b""
        head = directory / f"head{number}"
        lines = head.read_text().splitlines()[1:] if head.exists() else []
        ask.answered = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if ":" in line)}


@pytest.fixture
def directory(tmp_path):
    if not shutil.which("curl"):
        raise RuntimeError("the tests of HTTP/2 need curl")
    return tmp_path


def cookie_of(browser, host) -> str:
    (name, value), = ((name, value) for name, value in browser.jar.named(host.name, "bitbucket_session").items()
                      if name.endswith("session"))
    return f"{name}={value}"


@pytest.fixture
def cookies(served, log_watch, new_browser):
    found = {}
    for person in PEOPLE:
        browser = new_browser()
        assert browser.sign_in(served[0].url("/team/page.html"), person).status == 200
        found[person] = cookie_of(browser, served[0])
    return found


def test_each_stream_is_who_its_cookie_says(served, cookies, directory, simulator, scratch):
    host, _, server = served
    simulator.forget_calls()
    figures, file = Figures(scratch), server.root / "state" / "sessions"
    before = figures.lookups(file)
    people = [(*PEOPLE, None)[n % 4] for n in range(STREAMS)]
    asks = run(directory, [Ask(host.url(f"/team/env.cgi?{n}"), cookies.get(person, "")) for n, person in enumerate(people)])
    for person, ask in zip(people, asks):
        if person:
            seen = ask.environment
            assert (seen["REMOTE_USER"], seen["BITBUCKET_UUID"]) == (account(person)["username"], uuid_of(person))
            assert seen["H2_STREAM_ID"] and seen["SERVER_PROTOCOL"] == "HTTP/2.0"
        else:
            assert ask.status == 401 and b"REMOTE_USER" not in ask.body
    assert sum(ask.connects for ask in asks) <= 4, "most share a connection"
    assert simulator.asked() == []
    after = figures.lookups(file)
    assert (after[0] - before[0], after[1] - before[1]) == (STREAMS * 3 // 4, 0)


def test_who_may_and_who_may_not_side_by_side(served, cookies, directory):
    host = served[0]
    people = [PEOPLE[n % 3] for n in range(STREAMS)]
    asks = run(directory, [Ask(host.url(f"/owners/page.html?{n}"), cookies[person]) for n, person in enumerate(people)])
    for person, ask in zip(people, asks):
        assert ask.status == (200 if person == "olivia" else 403), person
        assert (b"The test page" in ask.body) == (person == "olivia")
        assert account(person)["display_name"].encode() in ask.body or person == "olivia"
        others = [account(name)["display_name"].encode() for name in PEOPLE if name != person]
        assert not any(name in ask.body for name in others)


def test_strangers_on_streams_have_tickets_of_their_own(served, log_watch, directory):
    host = served[0]
    asks = run(directory, [Ask(host.url(f"/any/page.html?{n}"), headers=NAVIGATION) for n in range(20)])
    assert {ask.status for ask in asks} == {302}
    assert len({ask.answered["location"] for ask in asks}) == 20
    assert len({ask.answered["set-cookie"] for ask in asks}) == 20


def test_two_sites_on_one_connection(served, cookies, directory, new_browser):
    """Streams may name different hosts: a session of one is none at the other."""
    host, other, _ = served
    elsewhere = new_browser()
    assert elsewhere.sign_in(other.url("/team/page.html"), "olivia").status == 200
    by_name = {host.name: cookies["mark"], other.name: cookie_of(elsewhere, other)}
    asks, expected = [], []
    for n in range(24):
        name, cookie = (host.name, other.name)[n % 2], by_name[(host.name, other.name)[n // 2 % 2]]
        asks.append(Ask(host.url(f"/team/env.cgi?{n}"), cookie, headers={**SCRIPT, "Host": f"{name}:{host.port}"}))
        expected.append({host.name: "mark_miller", other.name: "olivia_owens"}[name] if by_name[name] == cookie else None)
    for ask, user in zip(run(directory, asks), expected):
        assert ask.status == (200 if user else 401)
        assert not user or ask.environment["REMOTE_USER"] == user


def test_a_cookie_in_several_fields(served, cookies, directory):
    """HTTP/2 may cut the Cookie header into pieces (RFC 9113 8.2.3)."""
    host = served[0]
    pieces = ["--header", "Cookie: a=1", "--header", f"Cookie: {cookies['mark']}", "--header", "Cookie: b=2"]
    ask, = run(directory, [Ask(host.url("/any/env.cgi"), "", *pieces)])
    assert ask.status == 200 and ask.environment["REMOTE_USER"] == "mark_miller"
    assert "bitbucket_session" not in ask.environment["HTTP_COOKIE"]
    assert {part.strip() for part in ask.environment["HTTP_COOKIE"].replace(",", ";").split(";")} == {"a=1", "b=2"}


def test_methods_on_streams(served, cookies, directory):
    host = served[0]
    head, post, options, stranger = run(directory, [
        Ask(host.url("/any/page.html"), cookies["mark"], "--head"),
        Ask(host.url("/any/env.cgi"), cookies["mark"], "--data", "a=1"),
        Ask(host.url("/any/page.html"), "", "--request", "OPTIONS"),
        Ask(host.url("/any/env.cgi"), "", "--data", "a=1")])
    assert head.status == 200 and head.answered["cache-control"] == "private"
    assert post.status == 200 and post.environment["REMOTE_USER"] == "mark_miller"
    assert (options.status, stranger.status) == (401, 401)
