"""One data file, a pipe or a table → its rows, one after another, however many there are.

In: an `Item`, and the names of the columns to read. Out: `Record`s in the file's order. A row that
is not right (bytes that are not UTF-8, a missing value, a wrong type, a broken line) is a `Record`
too, whose `error` says what is wrong and where; it stops nothing. Held is the row at hand, of
Parquet a batch of rows.
"""

import gzip
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from finetune.data.parsing import Cells, array_values, line_values
from finetune.data.rows import BOM, column_values, describe_value
from finetune.inference.records import Record, RecordMaker, RequestedColumns
from finetune.runtime.errors import InputError

Kind = Literal["csv", "tsv", "jsonl", "json", "parquet", "txt", "document", "table"]
FORMATS: dict[str, Kind] = {
    "csv": "csv", "tsv": "tsv", "json": "json", "jsonl": "jsonl", "ndjson": "jsonl",
    "parquet": "parquet", "txt": "txt",
}  # fmt: skip
AT_ONCE = 1000  # rows of a Parquet file or table that are held at once
LOOKED_AT = 100  # lines of a JSON Lines file that may lack a column before it is taken for a typo
_DELIMITERS = {"csv": ",", "tsv": "\t"}


@dataclass(frozen=True)
class InputItem:
    """One thing to read: a file, standard input (no path), or a table of `datasets`."""

    name: str
    kind: Kind
    path: Path | None = None
    table: Any = None


class ReadProgress:
    """How far an item is read: the share of its bytes or rows; None where nobody can know."""

    def __init__(self) -> None:
        self.stream: BinaryIO | None = None
        self.size = 0
        self.done = 0

    def share(self) -> float | None:
        if not self.size:
            return None
        if self.stream is not None and not self.stream.closed:
            self.done = self.stream.tell()
        return min(1.0, self.done / self.size)


def read_records(item: InputItem, asked: RequestedColumns, reach: ReadProgress) -> Iterator[Record]:
    """The rows of one item.

    Raises:
        InputError: for what is wrong with the item as a whole, be it in its middle.
    """
    make = RecordMaker(item.name, asked)
    if item.kind == "table":
        yield from _table_records(_slices(item.table), make, reach, len(item.table))
    elif item.kind == "parquet":
        with _parquet(item) as file:
            batches = file.iter_batches(AT_ONCE, columns=_present(file.schema_arrow.names, asked))
            yield from _table_records(batches, make, reach, file.metadata.num_rows)
    else:
        with _opened(item, reach) as stream:
            match item.kind:
                case "csv" | "tsv":
                    yield from _delimited(stream, item, make)
                case "jsonl":
                    yield from _lines(stream, make)
                case "json":
                    yield from _array(stream, make)
                case "txt":
                    yield from _texts(stream, make)
                case "document":
                    content = stream.read().removeprefix(BOM).decode("utf-8", "surrogateescape")
                    yield make.of_text("", content, item.name)


def columns_of(item: InputItem) -> list[str] | None:
    """The columns that an item's beginning names; None where it does not say.

    Standard input is not touched: what was read of it would be gone.
    """
    if item.kind == "table":
        return list(item.table.column_names)
    if item.kind in ("txt", "document"):
        return None
    if item.kind == "parquet":
        with _parquet(item) as file:
            return list(file.schema_arrow.names)
    if item.path is None or not item.path.is_file():
        return None
    with _opened(item, ReadProgress()) as stream:
        if item.kind in ("csv", "tsv"):
            return Cells(stream, _DELIMITERS[item.kind]).header
        found: dict[str, None] = {}
        objects = array_values(stream) if item.kind == "json" else line_values(stream)
        for number, (_, value) in enumerate(objects):
            if isinstance(value, dict):
                found.update(dict.fromkeys(value))
            if number == LOOKED_AT:
                break
        return list(found) or None


def kind_of_pipe() -> Kind:
    """Whether standard input begins like JSON Lines; else its lines are documents."""
    head = sys.stdin.buffer.peek(1)[:1] if hasattr(sys.stdin.buffer, "peek") else b""
    return "jsonl" if head == b"{" else "txt"


def _delimited(stream: BinaryIO, item: InputItem, make: RecordMaker) -> Iterator[Record]:
    cells = Cells(stream, _DELIMITERS[item.kind])
    header, number = cells.header, 0
    _check_header(item, header, make.asked)
    while (row := cells.next_row()) is not None:
        if not row and len(header) > 1:
            continue  # a blank line
        number += 1
        if isinstance(row, str):
            yield make.broken("row", number, row)
        elif len(row) != len(header) and (row or len(header) > 1):
            yield make.broken("row", number, f"{len(row)} cells instead of {len(header)}")
        else:
            yield make.of("row", number, dict(zip(header, row or [""], strict=True)))


def _check_header(item: InputItem, header: Sequence[str], asked: RequestedColumns) -> None:
    """For what comes through a pipe, where nobody could look ahead."""
    missing = [(option, column) for option, column in asked.named() if column not in header]
    if missing:
        raise InputError(
            f"{item.name}: no column '{column}' ({option}) (columns: {', '.join(header)})"
            for option, column in missing
        )


def _lines(stream: BinaryIO, make: RecordMaker) -> Iterator[Record]:
    for number, value in line_values(stream):
        yield _of_value("line", number, value, make)


def _of_value(unit: str, number: int, value: Any, make: RecordMaker) -> Record:
    if isinstance(value, ValueError):
        return make.broken(unit, number, str(value))
    if not isinstance(value, dict):
        return make.broken(unit, number, f"should be an object, and is {describe_value(value)}")
    return make.of(unit, number, value)


def _array(stream: BinaryIO, make: RecordMaker) -> Iterator[Record]:
    for number, value in array_values(stream):
        yield _of_value("row", number, value, make)


def _texts(stream: BinaryIO, make: RecordMaker) -> Iterator[Record]:
    for number, line in enumerate(stream, start=1):
        if number == 1:
            line = line.removeprefix(BOM)
        text = line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "surrogateescape")
        yield make.of_text("line", text, f"{make.name}: line {number}")


def _present(names: Sequence[str], asked: RequestedColumns) -> list[str]:
    return [column for column in dict.fromkeys((*asked.texts, *asked.beside)) if column in names]


def _slices(table: Any) -> Iterator[Any]:
    for start in range(0, len(table), AT_ONCE):
        yield table.with_format("arrow")[start : start + AT_ONCE]


def _table_records(
    batches: Iterable[Any], make: RecordMaker, reach: ReadProgress, rows: int
) -> Iterator[Record]:
    reach.size, number = rows, 0
    for batch in batches:
        names = _present(batch.schema.names, make.asked)
        columns = [column_values(batch.column(name)) for name in names]
        for cells in zip(*columns, strict=True):
            number += 1
            yield make.of("row", number, dict(zip(names, cells, strict=True)))
        reach.done = number


@contextmanager
def _parquet(item: InputItem) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    assert item.path is not None
    try:
        with tempfile.TemporaryFile() as unpacked:
            source: Any = item.path
            if item.path.name.lower().endswith(".gz"):
                with gzip.open(item.path) as stream:
                    shutil.copyfileobj(stream, unpacked)
                source = unpacked
            # Without its read-ahead, a row group is not held whole.
            with pq.ParquetFile(source, buffer_size=2**20, pre_buffer=False) as file:
                yield file
    except pa.ArrowException as error:
        first = str(error).partition("\n")[0]
        raise InputError(f"{item.name}: not a Parquet file that can be read ({first})") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{item.name}: cannot read: {_reason(error)}") from None


@contextmanager
def _opened(item: InputItem, reach: ReadProgress) -> Iterator[BinaryIO]:
    """An item's bytes, unpacked; what is wrong with it as a whole names it."""
    try:
        with _raw(item) as raw:
            if item.path is not None and item.path.is_file():
                reach.stream, reach.size = raw, item.path.stat().st_size
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            stream = cast(Any, gzip.GzipFile(fileobj=raw) if packed else raw)
            head = stream.peek(4)[:4]
            if head in (b"", BOM) and item.kind != "document":
                raise InputError("the file is empty")
            if head.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise InputError("expected UTF-8, found UTF-16; save it as UTF-8")
            if head.startswith((b"PK\x03\x04", b"PAR1")):
                raise InputError("expected text, found a zip archive, a spreadsheet or Parquet")
            yield stream
    except InputError as error:
        own = f"{item.name}: "
        raise InputError(
            problem if problem.startswith(own) else own + problem for problem in error.problems
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{item.name}: not a whole gzip file ({error})") from None
    except OSError as error:
        raise InputError(f"{item.name}: cannot read: {_reason(error)}") from None


def _raw(item: InputItem) -> Any:
    if item.path is None:
        return nullcontext(sys.stdin.buffer)  # with what was looked at already
    return item.path.open("rb")


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
