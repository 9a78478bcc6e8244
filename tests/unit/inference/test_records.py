"""A row's cells → a record, or what is wrong with it."""

import datetime
import decimal
from pathlib import Path
from typing import Any

import pytest

from finetune.data.columns import ColumnSpec
from finetune.data.formats.file_row import RowProblem
from finetune.data.formats.source import DataSource, ReadProgress
from finetune.inference.records import RecordMaker, RequestedColumns, read_records
from finetune.runtime.errors import InputError

ONE = RecordMaker("a", RequestedColumns(("text",), id="n", keep=("real",)))
PAIR = RecordMaker(
    "a", RequestedColumns(("x", "y"), ColumnSpec(("x",), "", second="y", template="<{x}>"))
)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (None, "a: row 3: 'text' is null"),
        (3, "a: row 3: 'text' should be text, and is 3"),
        ("caf\udce9", "a: row 3: 'text' is not UTF-8"),
        (" \n", "a: row 3: 'text' is empty"),
    ],
)
def test_a_text_that_is_not_right(text: Any, error: str) -> None:
    record = ONE.from_cells("row", 3, {"text": text, "n": 7, "real": float("nan")})
    assert record == ((), (7, None), error)


def test_a_row_that_is_right() -> None:
    cells = {"text": "good", "n": {"a": [1]}, "real": 0.5}
    assert ONE.from_cells("row", 1, cells) == (("good",), ('{"a": [1]}', 0.5), None)
    assert ONE.from_cells("row", 1, {}).error == "a: row 1: 'text' is missing"


def test_pairs_and_templates() -> None:
    assert PAIR.from_cells("row", 1, {"x": "one", "y": "two"}).texts == ("<one>", "two")
    assert PAIR.from_cells("row", 1, {"x": " ", "y": ""}).error == (
        "a: row 1: 'x' is empty; 'y' is empty"
    )


def test_texts_without_columns_and_rows_that_cannot_be_read() -> None:
    assert ONE.from_text("good", "a: line 2") == (("good",), ("a: line 2", None), None)
    assert ONE.from_text("", "a: line 2").error == "a: line 2: the text is empty"
    refused = ONE.refuse("row", 4, RowProblem("2 cells", "3"))
    assert refused == ((), (None, None), "a: row 4: expected 2 cells, got 3")


def test_a_column_that_is_missing_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\na\n")
    source = DataSource("a.csv", "csv", tmp_path / "a.csv")
    with pytest.raises(InputError, match=r"a\.csv: no column 'm' \(--id\)"):
        list(read_records(source, RequestedColumns(("text",), id="m"), ReadProgress()))


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (datetime.date(2024, 5, 1), "2024-05-01"),
        (datetime.datetime(2024, 5, 1, 12, 30), "2024-05-01 12:30:00"),
        (datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC), "2024-05-01 00:00:00+00:00"),
        (datetime.time(9, 30), "09:30:00"),
        (datetime.timedelta(seconds=90), "0:01:30"),
        (decimal.Decimal("12.50"), "12.50"),
        (decimal.Decimal("1E+3"), "1000"),
        (b"bytes", "bytes"),
        ([datetime.date(2024, 5, 1), 1, "a"], '["2024-05-01", 1, "a"]'),
        ({"d": decimal.Decimal("0.10")}, '{"d": "0.10"}'),
        ("text", "text"),
        (1.5, 1.5),
        (float("nan"), None),
        (True, True),
        (None, None),
    ],
)
def test_kept_values_are_written_as_they_read(value: Any, kept: Any) -> None:
    make = RecordMaker("a", RequestedColumns(("text",), keep=("k",)))
    record = make.from_cells("row", 1, {"text": "a", "k": value})
    assert record.beside == (kept,)
