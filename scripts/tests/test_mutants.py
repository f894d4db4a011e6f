"""The table of mutants against the tree: each can still be made, and its tests are there. scripts/mutants tries them."""

import pathlib
import sys

import pytest

TOP = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(TOP / "scripts"))

import mutate  # noqa: E402

MUTANTS = mutate.read_table(mutate.TABLE.read_text())
BLOCK = """
== one
src/a.c
It is wrong.
unit t_a
httpd test_b -k "word"
- a
-     b
+ c
- d
"""


def test_names_are_names_of_one_mutant():
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) >= 30
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_can_be_made(mutant):
    text = (TOP / mutant.file).read_text()
    assert mutant.apply(text) != text


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_its_tests_are_there(mutant):
    for test in mutant.tests:
        kind, name = test.split()[:2]
        assert (TOP / "tests" / (f"unit/{name}.c" if kind == "unit" else f"httpd/{name}.py")).is_file()


def test_document_has_them_all():
    rows = [line.split("`")[1] for line in mutate.REPORT.read_text().splitlines() if line.startswith("| `")]
    assert rows == [mutant.name for mutant in MUTANTS]


def test_reads_several_lines_and_pairs():
    [mutant] = mutate.read_table(BLOCK)
    assert (mutant.name, mutant.file, mutant.wrong) == ("one", "src/a.c", "It is wrong.")
    assert mutant.tests == ["unit t_a", 'httpd test_b -k "word"']
    assert mutant.pairs == [("a\n    b", "c"), ("d", "")]
    assert mutant.apply("a\n    b;d;") == "c;;"


@pytest.mark.parametrize("text", ["no such words", "a\n    b d d", "a\n    b"])
def test_refuses_what_does_not_fit(text):
    [mutant] = mutate.read_table(BLOCK)
    with pytest.raises(mutate.Trouble, match="one: src/a.c holds"):
        mutant.apply(text)


@pytest.mark.parametrize("block", ["== one\nsrc/a.c\nIt is wrong.\n- a\n", "== one\nsrc/a.c\nIt is wrong.\nunit t_a\n",
                                   BLOCK + "something else\n"])
def test_refuses_what_it_cannot_read(block):
    with pytest.raises(mutate.Trouble, match="one cannot be read"):
        mutate.read_table(block)
