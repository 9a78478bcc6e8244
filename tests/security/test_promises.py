"""docs/security.md → every promise names tests, and they exist."""

import re

import pytest

from tests.support.pages import ROOT

PAGE = ROOT / "docs" / "security.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith(("| promise", "| **"))
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_promise_names_tests_that_exist(row):
    promise, how, tests = row
    assert promise
    assert how
    files = [(PAGE.parent / link).resolve() for link in re.findall(r"\]\((\S+\.py)\)", tests)]
    assert files
    assert [file for file in files if not file.is_relative_to(ROOT / "tests")] == []
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    named = re.findall(r"`(test_\w+)`", tests)
    assert [name for name in named if f"def {name}(" not in code] == []


def test_every_attack_is_in_the_table():
    attacks = sorted((ROOT / "tests" / "security").glob("test_*.py"))
    linked = PAGE.read_text(encoding="utf-8")
    missing = [file.name for file in attacks if f"../tests/security/{file.name})" not in linked]
    assert missing == ["test_promises.py"]


def test_promises_are_found():
    assert len(ROWS) >= 6


def test_exceptions_to_bandit_s_checks_have_their_reasons():
    lines = [
        f"{file.name}:{number}: {line.strip()}"
        for file in (ROOT / "finetune").rglob("*.py")
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(r"noqa: .*\bS\d{3}", line)
    ]
    assert len(lines) >= 5
    assert [line for line in lines if not re.search(r"noqa: [\w, ]+ # \w", line)] == []
