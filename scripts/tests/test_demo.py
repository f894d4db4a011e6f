"""scripts/demo as somebody uses it: started, visited, signed in to, and stopped in several ways."""

import contextlib
import html
import os
import pathlib
import re
import select
import signal
import socket
import subprocess
import time
import uuid

import pytest
import requests

DEMO = pathlib.Path(__file__).parents[1] / "demo"
RUN_DIRECTORY = r"/tmp/mod_auth_bitbucket-demo\.\w+"
START_SECONDS = 180  # the first start builds the module
STOP_SECONDS = 15
NAVIGATION = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.fixture(autouse=True)
def localhost(monkeypatch):
    """localhost is this machine, as it is to browsers, also where no /etc/hosts says so."""
    ask = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo",
                        lambda host, *rest, **more: ask("127.0.0.1" if host == "localhost" else host, *rest, **more))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**settings):
    clean = {name: value for name, value in os.environ.items()
             if not name.startswith(("BITBUCKET_", "DEMO_")) and name != "TMPDIR"}
    return clean | settings


def processes_with(setting):
    """Of all processes, those with this setting in their environment: number and command line."""
    found = {}
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if setting.encode() in (process / "environ").read_bytes().split(b"\0"):
                found[process.name] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def shared_memory_of(pids):
    """System V segments that these processes have created. cpid is the fifth column."""
    rows = pathlib.Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return [row for row in rows if row.split()[4] in pids]


class Demo:
    """One running scripts/demo, and the site's address once it has said that it is ready."""

    def __init__(self, *options, **settings):
        self.port = free_port()
        self.site = f"http://localhost:{self.port}"
        self.mark = f"DEMO_TEST={uuid.uuid4()}"
        name, value = self.mark.split("=")
        self.process = subprocess.Popen(
            [DEMO, "--port", str(self.port), *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True, env=environment(**settings, **{name: value}))
        self.said = ""
        self.read_until("Ctrl-C stops it")

    def read_until(self, text):
        deadline = time.monotonic() + START_SECONDS
        while text not in self.said:
            assert time.monotonic() < deadline, self.said
            if select.select([self.process.stdout], [], [], 1)[0]:
                piece = os.read(self.process.stdout.fileno(), 65536)
                assert piece, f"the demo ended:\n{self.said}"
                self.said += piece.decode()

    def interrupt(self):
        """Ctrl-C: the terminal sends the signal to everything in the foreground."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self):
        self.said += (self.process.communicate(timeout=STOP_SECONDS)[0] or b"").decode()
        return self.process.returncode


def left_after_a_moment(mark):
    """Who got its signal may still be ending when the demo itself has ended."""
    deadline = time.monotonic() + 3
    while (left := processes_with(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


@contextlib.contextmanager
def running(*options, **settings):
    demo = Demo(*options, **settings)
    processes = processes_with(demo.mark)
    directory = pathlib.Path(re.search(RUN_DIRECTORY, " ".join(processes.values())).group())
    assert directory.is_dir()
    try:
        yield demo
    finally:
        if demo.process.poll() is None:
            demo.interrupt()
            demo.end()
        assert left_after_a_moment(demo.mark) == {}
        assert shared_memory_of(processes) == []
        assert not directory.exists()


def sign_in(visitor, address, account):
    """Open a protected page and click through the simulator as a person would."""
    page = visitor.get(address, headers=NAVIGATION)
    assert "Sign in" in page.text
    page = submit(visitor, page, account=account)
    return submit(visitor, page, decision="grant")


def submit(visitor, page, **choice):
    action = html.unescape(re.search(r'<form method="post" action="([^"]*)"', page.text).group(1))
    hidden = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)"', page.text)
    fields = {name: html.unescape(value) for name, value in hidden} | choice
    return visitor.post(requests.compat.urljoin(page.url, action), data=fields, headers=NAVIGATION)


@pytest.mark.parametrize("mpm", ["event", "worker", "prefork"])
def test_every_page_does_what_the_front_page_says(mpm):
    with running("--mpm", mpm) as demo:
        assert f"MPM {mpm}" in demo.said

        front = requests.get(demo.site + "/")
        assert front.status_code == 200
        assert "Olivia Owens" in front.text
        assert "an error occurred" not in front.text
        assert requests.get(demo.site + "/style.css").headers["Content-Type"].startswith("text/css")

        public = requests.get(demo.site + "/public.html")
        assert public.status_code == 200
        assert not public.cookies

        olivia = requests.Session()
        page = sign_in(olivia, demo.site + "/signed-in/?chapter=3&word=caf%C3%A9", "olivia")
        assert page.url == demo.site + "/signed-in/?chapter=3&word=caf%C3%A9"
        assert "Olivia Owens" in page.text
        for path in ("/workspace/", "/owners/"):
            page = olivia.get(demo.site + path, headers=NAVIGATION)
            assert page.status_code == 200
            assert "olivia_owens" in page.text
        assert "acme:owner" in olivia.get(demo.site + "/workspace/", headers=NAVIGATION).text

        page = olivia.get(demo.site + "/legacy/environment", headers=NAVIGATION)
        assert "<th>REMOTE_USER</th><td>olivia_owens</td>" in page.text
        assert "<th>AUTH_TYPE</th><td>Bitbucket</td>" in page.text
        assert "BITBUCKET_CLIENT_SECRET" not in page.text

        page = olivia.get(demo.site + "/application/", headers=NAVIGATION | {"X-Bitbucket-Username": "somebody else"})
        assert "<th>X-Bitbucket-Username</th><td>olivia_owens</td>" in page.text
        assert "somebody else" not in page.text

        command = re.search(r"try also +(curl .*)", demo.said).group(1)
        assert command in html.unescape(front.text)
        user, url = re.fullmatch(r"curl -u (\S+) (\S+)", command).groups()
        assert requests.get(url, auth=tuple(user.split(":"))).text == "Hello mark_miller, you are Mark Miller at Bitbucket.\n"
        refused = requests.get(url, headers={"User-Agent": "curl/8"})
        assert refused.status_code == 401 and "Basic" in refused.headers["WWW-Authenticate"]

        assert olivia.get(demo.site + "/bitbucket/userinfo").json()["username"] == "olivia_owens"
        signed_out = submit(olivia, olivia.get(demo.site + "/bitbucket/logout", headers=NAVIGATION))
        assert signed_out.status_code == 200
        assert olivia.get(demo.site + "/bitbucket/userinfo").status_code == 401


def test_members_and_outsiders_are_told_apart():
    with running() as demo:
        mark, oscar = requests.Session(), requests.Session()
        assert sign_in(mark, demo.site + "/workspace/", "mark").status_code == 200
        assert mark.get(demo.site + "/owners/", headers=NAVIGATION).status_code == 403
        assert sign_in(oscar, demo.site + "/workspace/", "oscar").status_code == 403
        assert oscar.get(demo.site + "/signed-in/", headers=NAVIGATION).status_code == 200


def test_two_at_once():
    with running() as first, running("--mpm", "prefork") as second:
        for demo in (first, second):
            assert sign_in(requests.Session(), demo.site + "/signed-in/", "priya").status_code == 200


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_end_it(name):
    with running() as demo:
        os.kill(demo.process.pid, signal.Signals[name])
        assert demo.end() == 128 + signal.Signals[name]


def test_terminal_goes_away():
    """Everything the demo prints fails; it still ends by itself, and running() sees that it cleans up."""
    with running() as demo:
        demo.process.stdout.close()
        demo.process.stdout = None
        os.kill(demo.process.pid, signal.SIGHUP)
        assert demo.process.wait(STOP_SECONDS) != 0


def test_a_part_that_dies_ends_it_all():
    with running() as demo:
        application, = (pid for pid, command in processes_with(demo.mark).items() if "application.py" in command)
        os.kill(int(application), signal.SIGKILL)
        assert demo.end() == 1
        assert "The proxied application ended by itself" in demo.said


def test_against_bitbucket_itself():
    """No exchange with bitbucket.org: only where visitors would be sent."""
    with running(BITBUCKET_CLIENT_ID="key-of-a-test", BITBUCKET_CLIENT_SECRET="secret-of-a-test") as demo:
        assert f"{demo.site}/bitbucket/callback" in demo.said
        assert "secret-of-a-test" not in demo.said
        page = requests.get(demo.site + "/signed-in/", headers=NAVIGATION, allow_redirects=False)
        assert page.status_code == 302
        assert page.headers["Location"].startswith("https://bitbucket.org/site/oauth2/authorize?")
        assert "key-of-a-test" in page.headers["Location"]
        assert "DEMO_WORKSPACE=" in requests.get(demo.site + "/workspace/").text
        assert "Olivia" not in requests.get(demo.site + "/").text


def test_against_bitbucket_with_a_workspace():
    with running(BITBUCKET_CLIENT_ID="key", BITBUCKET_CLIENT_SECRET="secret", DEMO_WORKSPACE="initech") as demo:
        assert "Require bitbucket-workspace initech:owner" in requests.get(demo.site + "/").text
        page = requests.get(demo.site + "/owners/", headers=NAVIGATION, allow_redirects=False)
        assert page.status_code == 302


def run_demo(*options, **settings):
    done = subprocess.run([DEMO, *options], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=START_SECONDS, env=environment(**settings))
    return done.returncode, done.stdout + done.stderr


def test_port_in_use():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run_demo("--port", str(port)) == (1, f"Port {port} is in use; choose another one with --port.\n")


def test_help():
    status, said = run_demo("--help")
    assert status == 0
    for word in ("--port", "--mpm", "BITBUCKET_CLIENT_ID", "BITBUCKET_CLIENT_SECRET", "DEMO_WORKSPACE"):
        assert word in said


@pytest.mark.parametrize("options, settings, sentence", [
    (["--port", "http"], {}, "The port 'http' is not a number from 1 to 65535."),
    (["--port", "65536"], {}, "The port '65536' is not a number from 1 to 65535."),
    (["--port"], {}, "--port needs a value; see scripts/demo --help."),
    (["--mpm", "itk"], {}, "The MPM 'itk' is none of event, worker and prefork."),
    (["--fast"], {}, "Unknown option '--fast'; see scripts/demo --help."),
    ([], {"BITBUCKET_CLIENT_ID": "k"},
     "BITBUCKET_CLIENT_ID is set but BITBUCKET_CLIENT_SECRET is not: set both, or none for the simulator."),
    ([], {"BITBUCKET_CLIENT_SECRET": "s"},
     "BITBUCKET_CLIENT_SECRET is set but BITBUCKET_CLIENT_ID is not: set both, or none for the simulator."),
    ([], {"BITBUCKET_CLIENT_ID": "k", "BITBUCKET_CLIENT_SECRET": "s", "DEMO_WORKSPACE": "a b"},
     "DEMO_WORKSPACE is 'a b', which is neither a workspace's name in Bitbucket's addresses nor its {uuid}."),
])
def test_what_cannot_be_is_said_in_one_sentence(options, settings, sentence):
    assert run_demo(*options, **settings) == (1, sentence + "\n")
