"""The page of faults is read as it is written."""

from __future__ import annotations

import pathlib
import sys
import xml.etree.ElementTree as ET

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import run_faults  # noqa: E402

TOP = pathlib.Path(__file__).parents[2]
Named, Outcome = run_faults.Named, run_faults.Outcome

PAGE = """
| What breaks | Tests |
|---|---|
| one thing | `httpd/test_a.py` `test_one`, `test_two`, `unit/t_b.c` |
| another | `unit/t_b.c` `a_b_c`, `httpd/test_a.py` `test_one` |

| What `shm` is | nothing |

<!-- begin figures -->
old
<!-- end figures -->
end
"""


def test_rows_name_files_and_functions():
    one, another = run_faults.rows_of(PAGE)
    assert one == ("one thing", [Named("httpd/test_a.py", "test_one"), Named("httpd/test_a.py", "test_two"), Named("unit/t_b.c", "")])
    assert another == ("another", [Named("unit/t_b.c", "a_b_c"), Named("httpd/test_a.py", "test_one")])


@pytest.mark.parametrize("values, told", [
    (["3 ms"], "3 ms"), (["3 ms", "3 ms"], "3 ms"), (["1 s", "3 s", "2.5 s"], "2.5 (1 to 3) s"), (["0"], "0"), (["1", "2", "3"], "2 (1 to 3)"),
    (["1428.2 ms", "0.01234 ms", "3 ms"], "3 (0.0123 to 1,428) ms")])
def test_several_values_are_told_by_median_and_range(values, told):
    assert run_faults.summary(values) == told


REPORT = """<testsuites><testsuite>
<testcase classname="tests.httpd.test_a" name="test_one[event]"><properties>
<property name="figure: page after" value="3 ms"/><property name="other" value="4"/></properties></testcase>
<testcase classname="tests.httpd.test_a" name="test_one[worker]"><failure/></testcase>
<testcase classname="tests.httpd.test_a" name="test_one_more"/>
<testcase classname="tests.httpd.test_ba" name="test_one"/>
</testsuite></testsuites>"""


def test_reports_are_read():
    """Other tests whose names begin alike do not count, and one that did not run has not passed."""
    one, two = Named("httpd/test_a.py", "test_one"), Named("httpd/test_a.py", "test_two")
    found = run_faults.outcomes_from(list(ET.fromstring(REPORT).iter("testcase")), {one, two})
    assert found == {one: Outcome(1, 1, {"page after": ["3 ms"]}), two: Outcome(0, 1, {})}


def test_figures_are_written_into_the_page():
    rows = run_faults.rows_of(PAGE)
    outcomes = {test: Outcome(1, 0, {}) for row in rows for test in row.tests}
    outcomes[Named("httpd/test_a.py", "test_two")] = Outcome(1, 0, {"page after": ["3 ms"]})
    page = run_faults.written(PAGE, rows, outcomes)
    assert "| one thing | page after | 3 ms |\n<!-- end figures -->\nend\n" in page and "old" not in page
    assert run_faults.written(page, rows, outcomes) == page


def test_every_row_of_the_real_page_names_tests_that_are_there():
    rows = run_faults.rows_of((TOP / "docs" / "faults.md").read_text())
    assert len(rows) > 40
    for test in {test for row in rows for test in row.tests}:
        text = (TOP / "tests" / test.file).read_text()
        assert f"{test.function}(" in text if test.function else test.file.startswith("unit/"), test
