"""Rows of predictions, in order → a csv, tsv, jsonl or Parquet file that appears as a whole.

Nothing is held but the row at hand, of Parquet a batch of rows. In a table, a list or an object of
JSON is written as its text; probabilities are a column for each label.
"""

import csv
import gzip
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from finetune.runtime.atomic_files import fsync_path, move_into_place
from finetune.runtime.errors import InputError, explain_write_errors

ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
REMEDY = "write the output to"
GROUP_ROWS = 10_000  # in a row group of Parquet
# What spreadsheets take for the beginning of a formula, also behind blanks (OWASP, CSV injection).
FORMULA = re.compile(r"[\t\r]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20]")
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Columns:
    """What a table's header says.

    Attributes:
        names: in order; `probabilities.X` is the entry X of the object `probabilities`.
        kinds: the types of JSON that a column's values have: str, int, float, bool, list.
        spreadsheet_safe: whether text that a spreadsheet would run gets an apostrophe before it.
    """

    names: tuple[str, ...]
    kinds: Mapping[str, frozenset[str]]
    spreadsheet_safe: bool = False


def find_ending(file: Path) -> str:
    """`.csv` of `x.csv` and `x.csv.gz`.

    Raises:
        InputError: where no format has this ending.
    """
    name = file.name.lower()
    bare = name.removesuffix(".gz")
    found = next((known for known in ENDINGS if bare.endswith(known)), None)
    if file.is_dir():
        raise InputError(
            f"{file}: this is a folder; name a file in it, such as {file / 'predictions.csv'}"
        )
    if found is None or (found == ".parquet" and bare != name):
        raise InputError(
            f"{file}: unknown ending; expected {', '.join(ENDINGS)}, the first three also with .gz"
        )
    return found


def check_output_file(file: Path | None) -> None:
    """Refuse a file that cannot be written.

    Raises:
        InputError: naming it.
    """
    if file is None:
        return
    find_ending(file)
    if not file.parent.is_dir():
        raise InputError(f"{file}: the folder {file.parent} does not exist; create it first")
    if file.is_dir():
        raise InputError(f"{file}: expected a file, found a folder")


def write_rows(rows: Iterator[Row], file: Path, columns: Columns) -> None:
    """Write the rows aside, and put the whole file in place.

    Raises:
        InputError: where it cannot be written; an earlier file stays.
    """
    with write_atomically(file) as out:
        match find_ending(file):
            case ".jsonl":
                for row in rows:
                    out.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            case ".parquet":
                _parquet(rows, out, columns)
            case kind:
                _delimited(rows, out, columns, "," if kind == ".csv" else "\t")


@contextmanager
def write_atomically(file: Path) -> Iterator[IO[bytes]]:
    """A stream to a file that takes its name when all is written; gzipped where it is called so."""
    aside = file.with_name(f".{file.name}.new")
    with explain_write_errors(file, REMEDY):
        try:
            with aside.open("wb") as raw:
                if file.name.lower().endswith(".gz"):
                    # No name and no time in it: the same rows make the same file.
                    with gzip.GzipFile("", "wb", 6, raw, mtime=0) as out:
                        yield cast(IO[bytes], out)
                else:
                    yield raw
            fsync_path(aside)
            move_into_place(aside, file)
            fsync_path(file.parent)
        finally:
            aside.unlink(missing_ok=True)


def _cell(row: Row, column: str) -> Any:
    if column not in row and column.startswith("probabilities."):
        return (row.get("probabilities") or {}).get(column.removeprefix("probabilities."))
    return row.get(column)


def is_delimited(file: Path) -> bool:
    """Whether the file is a table of cells between commas or tabs."""
    return find_ending(file) in (".csv", ".tsv")


def _delimited(rows: Iterator[Row], out: IO[bytes], columns: Columns, delimiter: str) -> None:
    text = io.TextIOWrapper(out, "utf-8", newline="", write_through=True)
    # The line end that the writer is told of is quoted in cells, also by Python before 3.11.9.
    writer = csv.writer(_LineFeeds(text), delimiter=delimiter, lineterminator="\r\n")
    as_cell = _as_safe_text if columns.spreadsheet_safe else _as_text
    writer.writerow([as_cell(name) for name in columns.names])
    for row in rows:
        writer.writerow([as_cell(_cell(row, name)) for name in columns.names])
    text.detach()


class _LineFeeds:
    """Rows of a csv writer, ended by a line feed alone."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._write = text.write

    def write(self, row: str) -> int:
        return self._write(f"{row[:-2]}\n")


def _as_safe_text(value: Any) -> Any:
    text = _as_text(value)
    return f"'{text}" if isinstance(value, str) and FORMULA.match(value) else text


def _as_text(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _parquet(rows: Iterator[Row], out: IO[bytes], columns: Columns) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        frozenset({"int"}): pa.int64(),
        frozenset({"float"}): pa.float64(),
        frozenset({"int", "float"}): pa.float64(),
        frozenset({"bool"}): pa.bool_(),
        frozenset({"texts"}): pa.list_(pa.string()),
        frozenset({"floats"}): pa.list_(pa.float64()),
    }
    fields = {
        name: types.get(columns.kinds.get(name, frozenset()), pa.string()) for name in columns.names
    }
    schema = pa.schema(list(fields.items()))

    def array(name: str, batch: Sequence[Row]) -> Any:
        values = [_cell(row, name) for row in batch]
        if fields[name] == pa.string():
            values = [_as_text(value) for value in values]
        return pa.array(values, fields[name])

    with pq.ParquetWriter(out, schema) as writer:
        batch: list[Row] = []
        for row in rows:
            batch.append(row)
            if len(batch) == GROUP_ROWS:
                writer.write_batch(pa.record_batch([array(n, batch) for n in fields], schema))
                batch = []
        if batch:
            writer.write_batch(pa.record_batch([array(n, batch) for n in fields], schema))


def json_kind(value: Any) -> str | None:
    """The kind of a value of JSON; None for null, `text` for what no column of numbers holds."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -(2**63) <= value < 2**63 else "text"
    return "float" if isinstance(value, float) else "text"
