"""One data file → the texts and labels of its rows.

In: a csv, tsv, json, jsonl, parquet or txt file (each optionally .gz) and the names of two columns.
Out: `Rows`. What the user can mend raises `InputError` with every problem of the file.

Everything is read as bytes and decoded here, so that a row that is not UTF-8 is known by its place
and a line ends at a line feed and nowhere else (texts carry U+2028, U+0085, U+001C, …).
"""

import csv
import gzip
import io
import json
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from finetune.data.rows import (
    BOM,
    Cells,
    ColumnSpec,
    Places,
    Rows,
    check_columns,
    decode,
    describe_value,
    rows_of,
    table_rows,
)
from finetune.data.text_store import Store
from finetune.runtime.errors import InputError, shorten

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".txt")
AT_ONCE = 256  # rows of a table that are in memory as Python's own
# The longest cell the csv module takes: its own limit of 128 KiB is short for a document, and a C
# long has 32 bits on some systems.
LONGEST_CELL = 2**31 - 1


def suffix_of(path: Path) -> str:
    """`.csv` of `x.csv` and of `x.CSV.gz`; empty where the ending is none of SUFFIXES."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def stem_of(path: Path) -> str:
    """The file name without its data ending: `train` of `train.jsonl.gz`."""
    gz = ".gz" if path.name.lower().endswith(".gz") else ""
    return path.name[: len(path.name) - len(suffix_of(path) + gz)] or path.name


def read_file(path: Path, wanted: ColumnSpec) -> Rows:
    """The rows of one file.

    Raises:
        InputError: with every problem of this file.
    """
    match suffix_of(path):
        case ".csv":
            return _read_delimited(path, wanted, ",")
        case ".tsv":
            return _read_delimited(path, wanted, "\t")
        case ".json":
            return _read_json(path, wanted)
        case ".jsonl" | ".ndjson":
            return _read_lines(path, wanted)
        case ".parquet":
            return _read_parquet(path, wanted)
        case ".txt":
            return _read_text(path, wanted)
    raise InputError(
        f"{path}: unknown file ending; expected one of {', '.join(SUFFIXES)}, each also with .gz"
    )


def read_documents(
    folder: Path, files: Sequence[tuple[Path, str | None]], labelled: bool, store: Store
) -> Rows:
    """A document in each file, with its label; places are paths within `folder`."""
    wanted = ColumnSpec(("text",), "label", store=store)
    cells = wanted.cells(["text", "label"] if labelled else ["text"])
    for path, label in files:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"{path}: cannot read: {error.strerror}") from None
        cells["text"].append(decode(content))
        if labelled:
            cells["label"].append(label)
    items = [path.relative_to(folder).as_posix() for path, _ in files]
    return rows_of(str(folder), Places(folder.name, items), cells, wanted)


def _read_delimited(path: Path, wanted: ColumnSpec, delimiter: str) -> Rows:
    try:
        return _read_cells(path, wanted, delimiter, csv.QUOTE_MINIMAL)
    except csv.Error as error:
        if delimiter == "\t":
            # Most tab-separated files know no quoting: there a quote is a letter like any other.
            return _read_cells(path, wanted, delimiter, csv.QUOTE_NONE)
        raise InputError(
            f"{path}: {error}; a cell that starts with a quote must end with one, and quotes "
            "within it are doubled"
        ) from None


def _read_cells(path: Path, wanted: ColumnSpec, delimiter: str, quoting: int) -> Rows:
    csv.field_size_limit(LONGEST_CELL)
    cells: Cells = {}
    ragged: list[str] = []
    number = 0
    with _opened(path) as stream:
        lines = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
        # strict: a quote in the wrong place is an error, and never swallows the rows after it.
        reader = csv.reader(lines, delimiter=delimiter, quoting=cast(Any, quoting), strict=True)
        try:
            header = [cell.strip() for cell in next(reader, [])]
            _check_header(path, header, wanted, delimiter)
            cells = wanted.cells(header)
            at = [(values, header.index(column)) for column, values in cells.items()]
            # With a separator, an empty cell is a row without labels, not a missing label.
            maybe_missing = wanted.labels() if wanted.separator is None else ()
            label_at = {header.index(column) for column in maybe_missing if column in cells}
            for row in reader:
                if not row:
                    if len(header) > 1:
                        continue  # a blank line
                    row = [""]
                number += 1
                if len(row) != len(header):
                    ragged.append(f"row {number} ({len(row)})")
                    continue
                for values, i in at:
                    values.append((row[i] or None) if i in label_at else row[i])
        except csv.Error as error:
            raise csv.Error(f"row {number + 1}: {error}") from None
    if ragged:
        raise InputError(
            f"{path}: expected {len(header)} cells in each row, as in the header, got another "
            f"number in {shorten(ragged)}"
        )
    places = Places(path.name, range(1, number + 1), "row")
    return rows_of(str(path), places, cells, wanted)


def _check_header(path: Path, header: list[str], wanted: ColumnSpec, delimiter: str) -> None:
    problems = []
    keys = dict.fromkeys([*wanted.asked(), *(("data.label", column) for column in wanted.labels())])
    for key, column in keys:
        if header.count(column) > 1:
            problems.append(f"{path}: {header.count(column)} columns are called '{column}' ({key})")
    if problems:
        raise InputError(problems)
    other = next((mark for mark in ";\t,|" if mark != delimiter and mark in header[0]), None)
    if len(header) == 1 and header[0] not in wanted.texts() and other is not None:
        found, asked = (
            {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}[mark]
            for mark in (other, delimiter)
        )
        raise InputError(f"{path}: expected cells separated by {asked}, got {found}")
    check_columns(str(path), header, wanted, "; the first line must name the columns")


def _read_lines(path: Path, wanted: ColumnSpec) -> Rows:
    with _opened(path) as stream:
        return _json_lines(path, wanted, stream)


def _json_lines(path: Path, wanted: ColumnSpec, stream: BinaryIO) -> Rows:
    cells = wanted.cells(wanted.columns())
    numbers = array("q")
    columns: dict[str, None] = {}
    broken: list[str] = []
    for number, line in enumerate(stream, start=1):
        if number == 1:
            line = line.removeprefix(BOM)
        if not line.strip():
            continue
        try:
            record = json.loads(line.rstrip().decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            broken.append(f"line {number} ({json_error(error)})")
            continue
        if not isinstance(record, dict):
            broken.append(f"line {number} ({describe_value(record)})")
            continue
        columns.update(dict.fromkeys(record))
        for column, into in cells.items():
            into.append(record.get(column))
        numbers.append(number)
    if broken:
        raise InputError(f"{path}: expected a JSON object on each line, got {shorten(broken)}")
    return _record_rows(path, cells, columns, Places(path.name, numbers, "line"), wanted)


def _read_json(path: Path, wanted: ColumnSpec) -> Rows:
    with _opened(path) as stream:
        content = stream.read()
    try:
        tree = json.loads(decode(content))
    except (ValueError, RecursionError) as error:
        # JSON Lines are often called .json.
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            return _json_lines(path, wanted, io.BytesIO(content))
        line = f"line {error.lineno}: " if isinstance(error, json.JSONDecodeError) else ""
        raise InputError(f"{path}: {line}not valid JSON ({json_error(error)})") from None
    if isinstance(tree, dict):
        lists = [key for key, value in tree.items() if isinstance(value, list)]
        if len(lists) != 1:
            what = f"lists under {', '.join(map(repr, lists))}" if lists else "an object without"
            raise InputError(
                f"{path}: expected an array of objects, or an object with one such array, got "
                f"{what}"
            )
        tree = tree[lists[0]]
    if not isinstance(tree, list):
        raise InputError(f"{path}: expected an array of objects, got {describe_value(tree)}")
    broken = [
        f"{describe_value(record)} at row {i}"
        for i, record in enumerate(tree, start=1)
        if not isinstance(record, dict)
    ]
    if broken:
        raise InputError(f"{path}: expected an array of objects, got {shorten(broken)}")
    columns = dict.fromkeys(key for record in tree for key in record)
    places = Places(path.name, range(1, len(tree) + 1), "row")
    cells = wanted.cells(wanted.columns())
    for record in tree:
        for column, into in cells.items():
            into.append(record.get(column))
    return _record_rows(path, cells, columns, places, wanted)


def _record_rows(
    path: Path, cells: Cells, columns: dict[str, None], places: Places, wanted: ColumnSpec
) -> Rows:
    """The rows of objects, of which `columns` are all the keys."""
    if not places.items:
        raise InputError(f"{path}: no rows; expected at least one object")
    check_columns(str(path), list(columns), wanted)
    found = {column: values for column, values in cells.items() if column in columns}
    return rows_of(str(path), places, found, wanted)


def _read_parquet(path: Path, wanted: ColumnSpec) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.name.lower().endswith(".gz"):
            with _opened(path) as stream:
                file = pq.ParquetFile(pa.BufferReader(stream.read()))
        else:
            file = pq.ParquetFile(path)
        names = file.schema_arrow.names
        check_columns(str(path), names, wanted)
        columns = [column for column in wanted.columns() if column in names]
        label_names = _label_names(file.schema_arrow.metadata or {}, wanted.labels()[0])
        batches = file.iter_batches(AT_ONCE, columns=columns)
        return table_rows(batches, columns, str(path), path.name, wanted, label_names)
    except pa.ArrowException as error:
        first = str(error).partition("\n")[0]
        raise InputError(f"{path}: not a Parquet file that can be read ({first})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror or error}") from None


def _label_names(metadata: dict[bytes, bytes], label: str) -> tuple[str, ...] | None:
    """The ClassLabel names that `datasets` writes into the schema of its Parquet files."""
    try:
        feature = json.loads(metadata[b"huggingface"])["info"]["features"][label]
        if isinstance(feature, list):  # of several labels a row; as older releases wrote it
            feature = feature[0]
        feature = feature.get("feature", feature)
        return tuple(feature["names"]) if feature["_type"] == "ClassLabel" else None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return None


def _read_text(path: Path, wanted: ColumnSpec) -> Rows:
    if wanted.needs_label:
        raise InputError(
            f"{path}: a .txt file carries no labels, which training needs; expected a csv, tsv, "
            "json, jsonl or parquet file, or a folder with a sub-folder of .txt files per label"
        )
    name = wanted.text[0]
    cells = wanted.cells([name])
    with _opened(path) as stream:
        for number, line in enumerate(stream, start=1):
            if number == 1:
                line = line.removeprefix(BOM)
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            cells[name].append(line.decode("utf-8", "surrogateescape"))
    places = Places(path.name, range(1, len(cells[name]) + 1), "line")
    return rows_of(str(path), places, cells, wanted)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked; what is wrong with the file as a whole becomes an InputError."""
    try:
        with _stream(path) as stream:
            head = stream.read(4)
            stream.seek(0)
            if head in (b"", BOM):
                raise InputError(f"{path}: the file is empty")
            if head.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise InputError(f"{path}: expected UTF-8, got UTF-16; save it as UTF-8")
            if head.startswith(b"PK\x03\x04"):
                raise InputError(f"{path}: expected text, got a zip archive or a spreadsheet")
            yield stream
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not a whole gzip file ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot read: {error.strerror or error}") from None


def _stream(path: Path) -> BinaryIO:
    if path.name.lower().endswith(".gz"):
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")


def json_error(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at column {error.colno}"
    return str(error).partition(";")[0]
