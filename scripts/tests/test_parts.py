"""What one part of scripts/test leaves out, another runs."""

from __future__ import annotations

import pathlib
import re

TOP = pathlib.Path(__file__).parents[2]


def left_out() -> list[set[str]]:
    """The names in the loops of part_httpd and part_sanitizers, in this order."""
    text = (TOP / "scripts" / "test").read_text()
    return [set(words.replace("\\\n", " ").split()) for words in re.findall(r"for name in ((?:[a-z_]|\s|\\\n)+); do", text)]


def test_every_test_of_httpd_is_in_some_part():
    by_httpd, by_sanitizers = left_out()
    assert len(by_httpd) > 2 and len(by_sanitizers) > 10
    assert not by_httpd & by_sanitizers
    for name in by_httpd | by_sanitizers:
        assert (TOP / "tests" / "httpd" / f"test_{name}.py").exists(), name


def test_what_only_the_sanitizers_run_is_not_left_out_there():
    """They run no test that is marked to run alone."""
    for name in left_out()[0]:
        assert "mark.alone" not in (TOP / "tests" / "httpd" / f"test_{name}.py").read_text(), name
