#!/usr/bin/python3
"""Run the tests that docs/faults.md names; print each row's result and what was measured.

Arguments: the source directory, the build directory, then --write to write the figures into the page, or words
that choose rows.
"""

import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from typing import NamedTuple

PAGE = "docs/faults.md"
NAME = re.compile(r"`([\w/.]+)`")
FIGURE = "figure: "
BEGIN, END = "<!-- begin figures -->\n", "<!-- end figures -->"


class Named(NamedTuple):
    """A function of a file below tests/, or all of a unit test's when the function is empty."""

    file: str
    function: str


class Row(NamedTuple):
    title: str
    tests: list[Named]


class Outcome(NamedTuple):
    passed: int
    failed: int
    figures: dict[str, list[str]]


def rows_of(page: str) -> list[Row]:
    """Rows of tables whose last cell names tests: a file, then functions of it."""
    rows = []
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if not line.startswith("| ") or "`" not in cells[-1]:
            continue
        tests: list[Named] = []
        file, is_named = "", True
        for name in NAME.findall(cells[-1]):
            if "/" in name:
                if not is_named:
                    tests.append(Named(file, ""))
                file, is_named = name, False
            else:
                tests.append(Named(file, name))
                is_named = True
        if not is_named:
            tests.append(Named(file, ""))
        rows.append(Row(cells[0], tests))
    return rows


def run_unit(build: pathlib.Path, file: str) -> str:
    program = build / "tests" / file.removesuffix(".c")
    return subprocess.run([str(program)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600,
                          env={**os.environ, "CMOCKA_MESSAGE_OUTPUT": "TAP"}).stdout


def unit_outcomes(source: pathlib.Path, build: pathlib.Path, tests: set[Named]) -> dict[Named, Outcome]:
    outcomes = {}
    for file in sorted({test.file for test in tests}):
        said = run_unit(build, file)
        results = re.findall(r"^(not ok|ok) \d+ - (\w+)$", said, re.M)
        for test in tests:
            if test.file == file:
                mine = [result for result, name in results if test.function in ("", name)]
                failed = mine.count("not ok") or not mine
                outcomes[test] = Outcome(mine.count("ok"), int(failed), {})
    return outcomes


def outcomes_from(cases: list[ET.Element], tests: set[Named]) -> dict[Named, Outcome]:
    """What pytest's reports say of tests; figures are properties of the test that measured them."""
    outcomes = {}
    for test in tests:
        module = test.file.removesuffix(".py").rpartition("/")[2]
        mine = [case for case in cases if case.get("name", "").split("[")[0] == test.function
                and case.get("classname", "").rpartition(".")[2] == module]
        bad = [case for case in mine if any(case.find(what) is not None for what in ("failure", "error", "skipped"))]
        figures: dict[str, list[str]] = {}
        for case in mine:
            for entry in case.iter("property"):
                if entry.get("name", "").startswith(FIGURE):
                    figures.setdefault(entry.get("name", "").removeprefix(FIGURE), []).append(entry.get("value", ""))
        outcomes[test] = Outcome(len(mine) - len(bad), len(bad) or int(not mine), figures)
    return outcomes


def httpd_outcomes(source: pathlib.Path, build: pathlib.Path, tests: set[Named]) -> dict[Named, Outcome]:
    with tempfile.TemporaryDirectory() as directory:
        report = pathlib.Path(directory, "report.xml")
        subprocess.run([sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", "-q", f"--junitxml={report}",
                        *sorted(f"tests/{test.file}::{test.function}" for test in tests)], cwd=source,
                       stdin=subprocess.DEVNULL, stdout=sys.stderr, env={**os.environ, "ABB_BUILD_DIR": str(build)})
        return outcomes_from(list(ET.parse(report).getroot().iter("testcase")), tests)


def told(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def summary(values: list[str]) -> str:
    """The median, and the range where there are several."""
    numbers = [float(value.split()[0]) for value in values]
    unit = values[0].partition(" ")[2]
    spread = f" ({told(min(numbers))} to {told(max(numbers))})" if max(numbers) > min(numbers) else ""
    return f"{told(statistics.median(numbers))}{spread} {unit}".strip()


def written(page: str, rows: list[Row], outcomes: dict[Named, Outcome]) -> str:
    """The page with a table of the figures."""
    lines = ["| What broke | What was measured | Figure |", "|---|---|---|"]
    for row in rows:
        for test in row.tests:
            lines += [f"| {row.title} | {name} | {summary(values)} |"
                      for name, values in outcomes[test].figures.items()]
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + "\n".join(lines) + "\n" + END + rest.partition(END)[2]


def main() -> int:
    source, build = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    words = [word for word in sys.argv[3:] if word != "--write"]
    page = (source / PAGE).read_text()
    rows = [row for row in rows_of(page) if not words or any(word in f"{row.title} {row.tests}" for word in words)]
    tests = {test for row in rows for test in row.tests}
    if not tests:
        print(f"no row of {PAGE} has any of these words: {' '.join(words)}", file=sys.stderr)
        return 2
    outcomes: dict[Named, Outcome] = {}
    for kind, run in (("unit/", unit_outcomes), ("httpd/", httpd_outcomes)):
        chosen = {test for test in tests if test.file.startswith(kind)}
        outcomes |= run(source, build, chosen) if chosen else {}
    for row in rows:
        passed, failed = (sum(getattr(outcomes[test], what) for test in row.tests) for what in ("passed", "failed"))
        print(f"{'FAILED' if failed else 'good':6} {passed:4} passed {failed:3} failed  {row.title}")
        for test in row.tests:
            for name, values in outcomes[test].figures.items():
                print(f"{'':27}{name}: {summary(values)}")
    if "--write" in sys.argv[3:]:
        (source / PAGE).write_text(written(page, rows, outcomes))
    return int(any(outcome.failed for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
