"""docs/security.md: each promise names tests that exist, each attack has a promise."""

import ast
import re
from functools import cache

import pytest

from tests.support.pages import ROOT

PAGE = ROOT / "docs" / "security.md"
ATTACKS = ROOT / "tests" / "security"
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith(("| promise", "| **"))
]
LINK = re.compile(r"\]\(([^\s)]+)\)")
NAMED = re.compile(r"`(test_\w+)`")


@cache
def names_in(file):
    """The names of the tests in a file."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def files_of(cell):
    return [(PAGE.parent / link).resolve() for link in LINK.findall(cell)]


def test_every_row_of_the_table_is_read():
    lines = [
        line for line in PAGE.read_text(encoding="utf-8").splitlines() if "](../tests/" in line
    ]
    assert len(ROWS) == len(lines) >= 30
    assert {len(row) for row in ROWS} == {3}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_promise_names_tests_that_exist(row):
    promise, how, tests = row
    assert promise
    assert how
    files = files_of(tests)
    assert files
    assert [file for file in files if not file.is_relative_to(ROOT / "tests")] == []
    assert [file for file in files if not names_in(file)] == []
    # Each name stands behind the file that has it.
    file = None
    for link, name in re.findall(rf"{LINK.pattern}|{NAMED.pattern}", tests):
        file = (PAGE.parent / link).resolve() if link else file
        assert not name or name in names_in(file)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_code_that_keeps_a_promise_exists(row):
    assert [file for file in files_of(row[1]) if not file.is_file()] == []


def test_every_attack_is_in_a_row():
    attacks = {file for file in ATTACKS.glob("test_*.py") if file.name != "test_promises.py"}
    in_rows = {file for row in ROWS for file in files_of(row[2])}
    assert len(attacks) >= 18
    assert sorted(file.name for file in attacks - in_rows) == []


def test_exceptions_to_bandit_s_checks_have_their_reasons():
    lines = [
        f"{file.name}:{number}: {line.strip()}"
        for file in (ROOT / "finetune").rglob("*.py")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"noqa: .*\bS\d{3}", line)
    ]
    assert len(lines) >= 5
    assert [line for line in lines if not re.search(r"noqa: [\w, ]+ # \w", line)] == []
