"""scripts/count_results.py against results as automake, cmocka and pytest leave them."""

import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parents[1] / "count_results.py"

# As cmocka prints with CMOCKA_MESSAGE_OUTPUT=TAP: two groups in one program, the second after the first.
CMOCKA = """\
1..4
ok 1 - encodes
not ok 2 - decodes
# 0x1 != 0
# src/t_text.c:12: error: Failure!
not ok 3 # SKIP needs_root
not ok 4 - splits Could not run test: Test setup failed
# not ok - text
1..1
ok 1 - second_group
# ok - more
"""


def count(*paths):
    done = subprocess.run([sys.executable, SCRIPT, *paths], capture_output=True, text=True, check=True)
    return done.stdout.strip(), done.stderr


def program(directory, name, result, log=None):
    directory.mkdir(exist_ok=True, parents=True)
    (directory / f"{name}.trs").write_text(f":test-result: {result}\n:global-test-result: {result}\n")
    if log is not None:
        (directory / f"{name}.log").write_text(log)


def test_nothing_is_nothing(tmp_path):
    assert count(tmp_path) == ("0 0 0", "")


def test_cmocka_program_counts_its_tests(tmp_path):
    program(tmp_path / "tests" / "unit", "t_text", "FAIL", CMOCKA)
    assert count(tmp_path) == ("2 2 1", "")


@pytest.mark.parametrize("result, counted", [
    ("PASS", "1 0 0"), ("FAIL", "0 1 0"), ("SKIP", "0 0 1"),
    ("XFAIL", "1 0 0"), ("XPASS", "0 1 0"), ("ERROR", "0 1 0"),
])
def test_plain_program_is_one_test(tmp_path, result, counted):
    program(tmp_path, "guard", result, "everything is ok\nnot ok at all\n")
    assert count(tmp_path)[0] == counted


def test_program_that_dies_midway_has_failed_the_rest(tmp_path):
    program(tmp_path, "t_store", "FAIL", "1..5\nok 1 - a\nok 2 - b\n")
    counted, said = count(tmp_path)
    assert counted == "2 3 0"
    assert "promises 5 tests but tells of 2" in said


def test_program_that_dies_before_its_first_test(tmp_path):
    program(tmp_path, "t_store", "FAIL", "1..4\n")
    assert count(tmp_path)[0] == "0 4 0"


def test_program_that_fails_after_its_last_test(tmp_path):
    program(tmp_path, "t_store", "FAIL", "1..1\nok 1 - a\nERROR: LeakSanitizer: detected memory leaks\n")
    counted, said = count(tmp_path)
    assert counted == "1 1 0"
    assert "though none of its tests did" in said


def tap_driver(directory, end, results, log):
    """As automake's tap-driver.sh leaves a program."""
    said = "".join(f":test-result: {result}\n" for result in results)
    (directory / "t.trs").write_text(f":global-test-result: {end}\n:recheck: no\n:copy-in-global-log: no\n{said}")
    (directory / "t.log").write_text(log)


def test_automakes_tap_driver(tmp_path):
    """The exit status that goes with a failing test is no second failure."""
    tap_driver(tmp_path, "ERROR", ["PASS", "FAIL", "SKIP", "ERROR"],
               "1..3\nok 1 - a\nPASS: t 1 - a\nnot ok 2 - b\nFAIL: t 2 - b\nok 3 - c # SKIP why\n"
               "SKIP: t 3 - c # SKIP why\nERROR: t - exited with status 1\n")
    assert count(tmp_path)[0] == "1 1 1"


def test_automakes_tap_driver_and_a_crash_at_the_end(tmp_path):
    tap_driver(tmp_path, "ERROR", ["PASS", "ERROR"],
               "1..1\nok 1 - a\nPASS: t 1 - a\nERROR: t - exited with status 139\n")
    counted, said = count(tmp_path)
    assert counted == "1 1 0"
    assert "though none of its tests did" in said


def test_automakes_tap_driver_and_no_tap(tmp_path):
    tap_driver(tmp_path, "ERROR", ["ERROR"], "no such file\nERROR: t - missing test plan\n")
    assert count(tmp_path)[0] == "0 1 0"


def test_empty_trs_has_failed(tmp_path):
    (tmp_path / "t.trs").write_text("")
    assert count(tmp_path)[0] == "0 1 0"


def test_log_that_is_no_text(tmp_path):
    program(tmp_path, "t", "PASS", None)
    (tmp_path / "t.log").write_bytes(b"1..1\n\xff\xfe\nok 1 - a\n")
    assert count(tmp_path)[0] == "1 0 0"


def test_pytests_own_file(tmp_path):
    (tmp_path / "test_x.py").write_text(
        "import pytest\n"
        "def test_pass(): pass\n"
        "def test_fail(): assert False\n"
        "def test_skip(): pytest.skip('why')\n"
        "@pytest.fixture\n"
        "def broken(): yield; raise RuntimeError\n"
        "def test_error(broken): pass\n")
    junit = tmp_path / "junit.xml"
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={junit}", tmp_path],
                   capture_output=True, check=False)
    assert count(junit)[0] == "1 2 1"


def test_file_that_cannot_be_collected(tmp_path):
    (tmp_path / "test_x.py").write_text("import no_such_module\n")
    junit = tmp_path / "junit.xml"
    subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={junit}", tmp_path],
                   capture_output=True, check=False)
    assert count(junit)[0] == "0 1 0"


@pytest.mark.parametrize("text", [None, "", "<testsuites><testsuite>"])
def test_junit_file_missing_or_cut(tmp_path, text):
    junit = tmp_path / "junit.xml"
    if text is not None:
        junit.write_text(text)
    counted, said = count(junit)
    assert counted == "0 1 0"
    assert "no complete JUnit file" in said


def test_everything_is_summed(tmp_path):
    program(tmp_path / "a", "t_text", "FAIL", CMOCKA)
    program(tmp_path / "b", "guard", "PASS")
    assert count(tmp_path / "a", tmp_path / "b")[0] == "3 2 1"
