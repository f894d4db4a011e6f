#!/usr/bin/python3
"""Count test results: prints "passed failed skipped" over everything that is named.

Arguments: JUnit XML files, as pytest writes them, and directories in which automake's "make check"
has run. In such a directory every *.trs file is one test program; where its log speaks TAP, as
cmocka's programs do, the tests inside are counted, else the program is one test. A program that
fails without a failing test, or dies before its last one, counts as failed too. What is wrong with
a result is said on standard error.
"""

import pathlib
import re
import sys
import xml.etree.ElementTree as ET
from typing import NamedTuple

# A plan, a result with its directive, or nothing of interest.
TAP_PLAN = re.compile(r"\s*1\.\.(\d+)\s*$")
TAP_RESULT = re.compile(r"\s*(not )?ok\b(?P<number> \d+)?(?P<rest>.*)$")
TAP_DIRECTIVE = re.compile(r"#\s*(SKIP|TODO)\b", re.IGNORECASE)

# One line for the program, or with automake's TAP driver one for each test; then how it ended.
TRS_RESULT = re.compile(r"^:test-result:\s*([A-Z]+)", re.MULTILINE)
TRS_END = re.compile(r"^:global-test-result:\s*([A-Z]+)", re.MULTILINE)


class Counts(NamedTuple):
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other):
        return Counts(*(mine + theirs for mine, theirs in zip(self, other)))

    def __str__(self):
        return f"{self.passed} {self.failed} {self.skipped}"


PASSED, FAILED, SKIPPED = Counts(passed=1), Counts(failed=1), Counts(skipped=1)

# automake's words; an expected failure is as it should be, an unexpected success is not.
WORDS = {"PASS": PASSED, "XFAIL": PASSED, "SKIP": SKIPPED}


def complain(where, what):
    print(f"{where}: {what}", file=sys.stderr)


def count_tap(text):
    """The results in a TAP stream, and how many its plans promised."""
    counts, planned = Counts(), 0
    for line in text.splitlines():
        if plan := TAP_PLAN.match(line):
            planned += int(plan.group(1))
        elif (result := TAP_RESULT.match(line)) and result.group("number"):
            directive = TAP_DIRECTIVE.search(result.group("rest"))
            if directive:
                counts += SKIPPED
            else:
                counts += FAILED if result.group(1) else PASSED
    return counts, planned


def count_program(trs):
    """One program that automake ran: its .trs file says how it ended, its .log what it printed."""
    said = trs.read_text(errors="replace")
    results, end = TRS_RESULT.findall(said), TRS_END.search(said)
    if not results or not end:
        complain(trs, "says no result")
        return FAILED
    log = trs.with_suffix(".log")
    counts, planned = count_tap(log.read_text(errors="replace")) if log.exists() else (Counts(), 0)
    told = sum(counts)
    if not told and not planned:
        return sum((WORDS.get(word, FAILED) for word in results), Counts())
    if planned > told:
        complain(log, f"promises {planned} tests but tells of {told}")
        counts += Counts(failed=planned - told)
    if WORDS.get(end.group(1), FAILED) == FAILED and not counts.failed:
        complain(log, "the program failed, though none of its tests did")
        counts += FAILED
    return counts


def count_automake(directory):
    return sum(map(count_program, sorted(directory.rglob("*.trs"))), Counts())


def count_case(case):
    children = {child.tag for child in case}
    if children & {"failure", "error"}:
        return FAILED
    return SKIPPED if "skipped" in children else PASSED


def count_junit(file):
    try:
        root = ET.parse(file).getroot()
    except (OSError, ET.ParseError) as error:
        complain(file, f"is no complete JUnit file: {error}")
        return FAILED
    return sum(map(count_case, root.iter("testcase")), Counts())


def count(path):
    return count_automake(path) if path.is_dir() else count_junit(path)


if __name__ == "__main__":
    print(sum(map(count, map(pathlib.Path, sys.argv[1:])), Counts()))
