"""Cells → sets of labels: lists, one text with a separator, a column for each."""

from typing import Any

import pytest

from finetune.data.label_cells import split_label_cells


def split(cells: list[Any], label: Any = "label", separator: str | None = None) -> Any:
    return split_label_cells(cells, label, separator, lambda i: f"row {i + 1}")


def test_lists() -> None:
    assert split([["a", "b"], [], None, "c"]) == ([("a", "b"), (), None, ("c",)], [])


def test_a_separator() -> None:
    assert split(["a; b;", "", None], separator=";") == ([("a", "b"), (), None], [])


def test_columns() -> None:
    cells = [("1", " True "), (0, False), (None, 1)]
    assert split(cells, ("x", "y")) == ([("x", "y"), (), None], [])


@pytest.mark.parametrize(
    ("cells", "label", "separator", "problem"),
    [
        ([[1.5]], "label", None, "got [1.5] at row 1"),
        ([3], "label", ";", "got 3 at row 1"),
        (
            [("yes", 1)],
            ("x", "y"),
            None,
            "got 'yes' in 'x' at row 1; where each has labels of its own, set data.tasks",
        ),
    ],
)
def test_what_is_no_label(cells: Any, label: Any, separator: str | None, problem: str) -> None:
    (message,) = split(cells, label, separator)[1]
    assert message.endswith(problem)
