"""The harness itself: what must fail does fail."""

from __future__ import annotations

import pytest

from harness.client import Jar, parse_set_cookie
from harness.logs import LogBook


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


def test_secrets_are_found(written):
    book = written("GET /?code=0123456789abcdef0123456789abcdef", "half of one: fedcba9876543210...")
    assert len(book.problems(["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"])) == 2
    book.remember("GET /?code")
    assert len(book.problems()) == 1


def test_sanitizer_reports_are_found(written, tmp_path):
    (tmp_path / "report.17").write_text("ERROR: AddressSanitizer: heap-use-after-free")
    assert len(written().problems()) == 1


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
