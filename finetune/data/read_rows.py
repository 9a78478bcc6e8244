"""One file, table or folder of documents → its `Rows`, as training takes them.

`formats/` parses the file; here its rows are collected. A file with a row that cannot be read
is refused, with every such row of it.
"""

import itertools
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from finetune.data.columns import Cells, ColumnSpec, require_columns
from finetune.data.corpus import Finding
from finetune.data.formats.delimiters import dividing_alike, name_delimiter
from finetune.data.formats.file_row import RowProblem, RowReader
from finetune.data.formats.registry import FORMATS, explain_ending, kind_of, open_rows, suffix_of
from finetune.data.formats.source import DataSource
from finetune.data.places import Places
from finetune.data.rows import Rows, build_rows
from finetune.data.text_store import Store
from finetune.runtime.errors import InputError, shorten

TABLE_LINES = 20  # of a .txt file, from which it looks like a table

NO_IDS = (
    "a .txt file has no columns, and data.id names one; leave it out: a document is named by its "
    "place"
)


def find_missing_values(spec: ColumnSpec) -> Iterator[str]:
    """What is said of columns beside text and label, where documents have none."""
    if spec.id is not None and spec.needs_id:
        yield NO_IDS
    for key, column in spec.attributes:
        yield f"a .txt file has no columns, and {key} names '{column}'; leave it out"


def read_file(path: Path, spec: ColumnSpec, name: str | None = None) -> Rows:
    """The rows of one file.

    Args:
        name: what the places of its rows begin with; None: the file's.

    Raises:
        InputError: with every problem of this file.
    """
    suffix = suffix_of(path)
    if not suffix:
        raise InputError(explain_ending(path))
    source = DataSource(
        str(path),
        kind_of(path, spec.delimiter),
        path,
        encoding=spec.encoding,
        delimiter=spec.delimiter,
    )
    return read_rows(source, name or path.name, spec)


def read_rows(source: DataSource, name: str, spec: ColumnSpec) -> Rows:
    """The rows of one source.

    Args:
        name: what the places of its rows begin with.

    Raises:
        InputError: with every problem of it.
    """
    format = FORMATS[source.kind]
    with open_rows(source, spec.all_columns()) as reader:
        if reader.columns is not None:
            require_columns(source.name, reader.columns, spec, has_header=not format.has_types)
        if not format.has_columns:
            return _read_texts(reader, name, spec)
        cells, places, columns = _collect(reader, name, spec)
        if reader.columns is None:
            if not len(places):
                raise InputError(f"{source.name}: no rows; expected at least one object")
            require_columns(source.name, columns, spec)
            cells = {column: values for column, values in cells.items() if column in columns}
        label_names = reader.label_names(spec.label_columns()[0])
        if spec.has_columns_of_names:
            label_names = None  # of one column: each has its own
            for column in {*spec.label_columns()} & cells.keys():
                _name_numbers(cells[column], reader.label_names(column))
    rows = build_rows(source.name, places, cells, spec, label_names)
    notes = [
        Finding(kind, "", len(numbers), Places(name, numbers, places.unit), rule)
        if numbers
        else Finding(kind, "", 1, [name], rule)
        for kind, numbers, rule in reader.notes
    ]
    return replace(rows, notes=(*notes, *rows.notes))


def _name_numbers(cells: Any, names: Sequence[str] | None) -> None:
    """Put a data set's own names in the place of a column's numbers; None for -1, no label."""
    if names is not None:
        for i, cell in enumerate(cells):
            if isinstance(cell, int) and -1 <= cell < len(names):
                cells[i] = None if cell < 0 else names[cell]


def read_documents(
    folder: Path,
    files: Sequence[tuple[Path, str | None]],
    is_labelled: bool,
    store: Store,
    encoding: str = "utf-8",
) -> Rows:
    """A document in each file, with its label; places are paths within `folder`.

    Raises:
        InputError: for each file that cannot be read.
    """
    spec = ColumnSpec(("text",), "label", store=store)
    cells = spec.empty_columns(["text", "label"] if is_labelled else ["text"])
    problems: list[str] = []
    for path, label in files:
        try:
            with open_rows(DataSource(str(path), "document", path, encoding=encoding)) as reader:
                for row in reader.rows():
                    if isinstance(row.cells, RowProblem):
                        problems.append(
                            f"{path}: expected {row.cells.expected}, got {row.cells.got}"
                        )
                    cells["text"].append(row.cells)
        except InputError as error:
            problems += error.problems
        if is_labelled:
            cells["label"].append(label)
    if problems:
        raise InputError(problems)
    items = [path.relative_to(folder).as_posix() for path, _ in files]
    return build_rows(str(folder), Places(folder.name, items), cells, spec)


def _collect(reader: RowReader, name: str, spec: ColumnSpec) -> tuple[Cells, Places, Sequence[str]]:
    """The cells of each column, the places of the rows, and all columns that rows have."""
    cells = spec.empty_columns(spec.all_columns() if reader.columns is None else reader.columns)
    append = [(column, _appender(column, cells, reader, spec)) for column in cells]
    seen: dict[str, None] = dict.fromkeys(reader.columns or ())
    numbers, unit = array("q"), "row"
    problems: dict[str, list[str]] = {}
    for unit, number, row in reader.rows():
        if isinstance(row, RowProblem):
            problems.setdefault(row.expected, []).append(f"{row.got} at {unit} {number}")
            continue
        assert not isinstance(row, str)
        if reader.columns is None:
            seen.update(dict.fromkeys(row))
        for column, add in append:
            add(row.get(column))
        numbers.append(number)
    if problems:
        raise InputError(
            f"{reader.source.name}: expected {expected}, got {shorten(got)}"
            for expected, got in problems.items()
        )
    count = len(numbers)
    is_gapless = not count or numbers[-1] == count
    places = Places(name, range(1, count + 1) if is_gapless else numbers, unit)
    return cells, places, list(seen)


def _appender(
    column: str, cells: Cells, reader: RowReader, spec: ColumnSpec
) -> Callable[[Any], None]:
    """Adds a cell to its column; a cell that says that there is no label becomes None."""
    append = cells[column].append
    if column not in spec.label_columns():
        return append
    if not FORMATS[reader.source.kind].has_types:
        # With a separator, an empty cell is a row without labels, not a missing label.
        return append if spec.separator is not None else lambda cell: append(cell or None)
    if column == spec.label_columns()[0] and reader.label_names(column) is not None:
        return lambda cell: append(None if cell == -1 else cell)  # the Hub's "no label"
    return append


FASTTEXT = "__label__"  # what each label begins with


def describe_table(reader: RowReader) -> str:
    """What comes first where the lines of a .txt file look like a table; else nothing."""
    lines = [f"{row.cells}\n" for row in itertools.islice(reader.rows(), TABLE_LINES)]
    if lines and all(line.startswith(FASTTEXT) for line in lines):
        return (
            "its lines are those of fastText, which are not read; write a csv file with a column "
            f"of labels, without {FASTTEXT}, and one of texts; "
        )
    marks = [name_delimiter(mark) for mark in dividing_alike(lines)]
    options = " or ".join(reader.source.delimiter_option + mark for mark in marks)
    return f"its lines look like a table: to read it so, set {options}; " if marks else ""


def _read_texts(reader: RowReader, name: str, spec: ColumnSpec) -> Rows:
    if spec.needs_label:
        raise InputError(
            f"{reader.source.name}: {describe_table(reader)}a .txt file carries no labels, which "
            "training needs; expected a csv, tsv, json, jsonl or parquet file, or a folder with a "
            "sub-folder of .txt files per label"
        )
    if len(spec.text_columns()) > 1:
        columns = ", ".join(spec.text_columns())
        raise InputError(
            f"{reader.source.name}: a .txt file has no columns, and the recipe reads several: "
            f"{columns}"
        )
    if problems := [f"{reader.source.name}: {why}" for why in find_missing_values(spec)]:
        raise InputError(problems)
    (column,) = spec.text
    cells = spec.empty_columns([column])
    count = 0
    for row in reader.rows():
        count += 1
        if isinstance(row.cells, RowProblem):
            where = f"{reader.source.name}: {row.unit} {row.number}"
            problems.append(f"{where}: expected {row.cells.expected}, got {row.cells.got}")
        else:
            cells[column].append(row.cells)
    if problems:
        raise InputError(problems)
    return build_rows(reader.source.name, Places(name, range(1, count + 1), "line"), cells, spec)
