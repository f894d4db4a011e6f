"""The harness itself: what must fail does fail."""

from __future__ import annotations

import subprocess

import pytest

from harness.client import Jar, parse_set_cookie
from harness.fixtures import ServerMaker, lasting
from harness.logs import LogBook
from harness.server import Server


class FakeServer:
    """A directory of logs as a server has it."""

    hosts: list = []

    def __init__(self, root):
        self.root = root

    def log_files(self):
        return sorted(self.root.glob("*.log"))

    def sanitizer_reports(self):
        return sorted(self.root.glob("report*"))


@pytest.fixture
def written(tmp_path):
    """A log book that watches error.log, and a way to write lines to it."""
    (tmp_path / "error.log").write_text("[auth_bitbucket:error] [pid 1] ABB0999: of an earlier test\n")
    book = LogBook()
    book.watch(FakeServer(tmp_path))

    def write(*lines):
        with open(tmp_path / "error.log", "a") as log:
            log.writelines(line + "\n" for line in lines)
        return book
    return write


OURS = "[Mon Jan 01] [auth_bitbucket:{}] [pid 1:tid 1] x.c(1): [client 127.0.0.1:1] {}"


def test_quiet_logs_are_no_problem(written):
    book = written(OURS.format("info", "ABB0203: signed in"), OURS.format("debug", "ABB0104: sent"),
                   OURS.format("trace1", "no tag needed"), "[core:warn] [pid 1] AH00111: something of httpd's")
    assert book.problems() == []
    assert [line.tag for line in book.lines()] == ["ABB0203", "ABB0104", None]


@pytest.mark.parametrize("line", [
    OURS.format("warn", "ABB0102: not announced"), OURS.format("error", "ABB0102: x"), OURS.format("emerg", "ABB0010: x"),
    OURS.format("info", "without a tag"), OURS.format("debug", "without a tag"),
    "[core:notice] [pid 1] AH00052: child pid 2 exit signal Segmentation fault (11)", "[core:notice] AH00051: child pid 2",
    "[core:notice] [pid 1] AH00060: seg fault or similar nasty error detected in the parent process",
])
def test_problems_are_found(written, line):
    assert len(written(line).problems()) == 1


def test_announced_lines(written):
    book = written(OURS.format("warn", "ABB0102: the reason"))
    book.expect("ABB0102", "reason")
    assert book.problems() == []


def test_announced_lines_that_do_not_come(written):
    book = written()
    book.expect("ABB0102")
    assert len(book.problems()) == 1


def test_announced_with_another_text(written):
    book = written(OURS.format("warn", "ABB0102: the reason"))
    book.expect("ABB0102", "another reason")
    assert len(book.problems()) == 2


@pytest.mark.parametrize("level", ["info", "notice", "debug"])
def test_announced_lines_that_are_not_loud(written, level):
    """What must be there at warning is not there at another level."""
    book = written(OURS.format(level, "ABB0102: the reason"))
    book.expect("ABB0102", "reason")
    assert len(book.problems()) == 1
    book.allow("ABB0102")
    assert len(book.problems()) == 1


def test_secrets_are_found(written):
    book = written("GET /?code=0123456789abcdef0123456789abcdef", "half of one: fedcba9876543210...")
    assert len(book.problems(["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"])) == 2
    book.remember("GET /?code")
    assert len(book.problems()) == 1


def test_sanitizer_reports_are_found(written, tmp_path):
    (tmp_path / "report.17").write_text("ERROR: AddressSanitizer: heap-use-after-free")
    assert len(written().problems()) == 1


# -- the end of a server, which is in no test

class DyingServer(FakeServer):
    """Writes something while it stops."""

    def __init__(self, root, name, text):
        super().__init__(root)
        self._last_words = name, text
        self.is_removed = False

    def keep_clock(self):
        (self.root / "error.log").write_text("AH00052: child pid 2 exit signal Killed, as its test had announced\n")

    def start(self):
        return self

    def stop(self):
        name, text = self._last_words
        with open(self.root / name, "a") as file:
            file.write(text + "\n")

    def remove(self):
        self.is_removed = True


@pytest.mark.parametrize("name, text", [
    ("error.log", "AH00052: child pid 3 exit signal Segmentation fault (11)"),
    ("error.log", "AH00060: seg fault or similar nasty error detected in the parent process"),
    ("report.17", "ERROR: AddressSanitizer: heap-use-after-free")])
def test_a_death_at_the_end_is_found(tmp_path, name, text):
    server = DyingServer(tmp_path, name, text)
    with pytest.raises(AssertionError, match=text[:8]):
        with lasting(server):
            pass
    assert server.is_removed


def test_a_quiet_end_is_no_problem(tmp_path):
    with lasting(DyingServer(tmp_path, "error.log", "AH00169: caught SIGTERM, shutting down")):
        pass


@pytest.fixture
def bad_end():
    """A server whose program ends with a status of its own."""
    server = Server([])
    yield server
    server.remove()


def test_an_end_with_a_status_is_found(bad_end):
    bad_end._process = subprocess.Popen(["false"], start_new_session=True)
    bad_end._process.wait()
    with pytest.raises(RuntimeError, match="ended with status 1"):
        bad_end.stop()


def test_all_of_a_tests_servers_are_stopped(bad_end):
    bad_end._process = subprocess.Popen(["false"], start_new_session=True)
    bad_end._process.wait()
    other = Server([])
    other._process = sleeping = subprocess.Popen(["sleep", "60"], start_new_session=True)
    maker = ServerMaker(LogBook(), None)
    maker._made += [bad_end, other]
    try:
        with pytest.raises(RuntimeError, match="status 1"):
            maker.stop_all()
        assert sleeping.poll() is not None
    finally:
        other.kill()
        other.remove()


# -- cookies

def test_the_jar_keeps_cookies_as_browsers_do():
    jar = Jar()
    jar.take("a", True, parse_set_cookie("one=1; Path=/; Secure"))
    jar.take("a", False, parse_set_cookie("two=2; Path=/; Secure"))
    jar.take("a", False, parse_set_cookie("three=3; Path=/"))
    assert jar.line("a", True) == "one=1; three=3"
    assert jar.line("a", False) == "three=3"
    assert jar.line("b", True) == ""
    jar.take("a", False, parse_set_cookie("three=; Max-Age=0; Path=/"))
    assert jar.line("a", False) == ""
    with pytest.raises(AssertionError):
        jar.take("a", False, parse_set_cookie("__Host-x=1; Path=/"))
