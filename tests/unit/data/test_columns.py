"""Which columns are asked for, and what is said where they are missing."""

import pytest

from finetune.data.columns import ColumnSpec, LabelColumn, find_column_problems, require_columns
from finetune.data.text_store import Column
from finetune.runtime.errors import InputError

PAIR = ColumnSpec(("text",), ("x", "y"), second="claim")


def test_columns_of_a_pair_with_two_label_columns() -> None:
    assert PAIR.text_columns() == ("text", "claim")
    assert PAIR.all_columns() == ("text", "claim", "x", "y")
    assert PAIR.required() == [("data.text", "text"), ("data.text_pair", "claim")]
    empty = PAIR.empty_columns(["text", "x", "other"])
    assert {name: type(column) for name, column in empty.items()} == {
        "text": Column,
        "x": LabelColumn,
    }


def test_some_of_several_label_columns_are_not_enough() -> None:
    require_columns("a.csv", ["text", "claim"], PAIR)  # unlabelled
    with pytest.raises(InputError, match=r"a\.csv: no column 'y' \(data\.label\)"):
        require_columns("a.csv", ["text", "claim", "x"], PAIR)


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (["texts"], "a: no column 'text' (--text); did you mean 'text'? (columns: 'texts')"),
        (["1", "2"], "a: no column 'text' (--text) (columns: '1', '2'); the first line must name "
         "the columns"),
        (["text", "b", "text"], "a: 2 columns are called 'text' (--text)"),
    ],
)  # fmt: skip
def test_messages(columns: list[str], problem: str) -> None:
    expected = problem.replace("mean 'text'", "mean 'texts'")
    assert find_column_problems("a", columns, [("--text", "text")], True) == [expected]


def test_equal_labels_are_one_object_and_true_is_not_one() -> None:
    column = LabelColumn()
    for cell in ("".join(["a", "b"]), "".join(["a", "b"]), 1, True):
        column.append(cell)
    assert column[0] is column[1]
    assert [type(cell) for cell in column] == [str, str, int, bool]
