"""Data frames, Arrow tables and data sets of this process → sources that a recipe can name.

    held = hold(frame)                     # pandas, polars, Arrow; datasets; a dict of splits
    held.name                              # "frame:3f2a9c…", for data.source
    find_held(held.name).splits            # {"train": DataSource}

A source is held for as long as somebody has the object that `hold` gave. Its name comes from its
content, so that the same data has the same name in another process too; what is later written into
the table does not reach it.
"""

import hashlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from finetune.data.formats.frame import FrameTable
from finetune.data.formats.source import DataSource
from finetune.data.local_paths import HELD
from finetune.runtime.errors import InputError
from finetune.runtime.memory_errors import reraise_memory_error

KINDS = (
    "a data frame of pandas or polars, an Arrow table, a datasets.Dataset, or a dict of such, one "
    "for each split"
)
HASHED_ROWS = 2**16  # at once


@dataclass(frozen=True, eq=False)
class HeldSource:
    """Tables of this process under one name.

    Attributes:
        name: what data.source calls them.
        splits: by name; a single table is called train.
    """

    name: str
    splits: Mapping[str, DataSource]


_HELD: WeakValueDictionary[str, HeldSource] = WeakValueDictionary()


def hold(data: Any, key: str = "data") -> HeldSource:
    """Let a recipe name a table, or a dict of tables by split.

    Args:
        key: how messages call what was passed.

    Raises:
        InputError: for what is no table.
    """
    splits = {"train": data}
    is_dict = isinstance(data, Mapping)
    if is_dict:
        splits = {str(split): table for split, table in data.items()}
        if not splits:
            raise InputError(f"{key}: expected {KINDS}, got an empty dict")
    sources = {}
    problems = []
    for split, table in splits.items():
        found = as_source(table, f" '{split}'" if is_dict else "")
        if found is None:
            at = f" for '{split}'" if is_dict else ""
            problems.append(f"{key}: expected {KINDS}, got {describe_kind(table)}{at}")
        else:
            sources[split] = found
    if problems:
        raise InputError(problems)
    digest = hashlib.sha256()
    for split, source in sources.items():
        digest.update(f"{split}\0".encode())
        _hash_table(source, digest)
    name = f"{HELD}{digest.hexdigest()[:16]}"
    # One for all who hold the same: it is there until the last of them lets go.
    return _HELD.setdefault(name, HeldSource(name, sources))


def find_held(name: str) -> HeldSource:
    """The tables of that name.

    Raises:
        InputError: where this process does not have them.
    """
    held = _HELD.get(name)
    if held is None:
        raise InputError(
            f"data.source: {name} was a data frame of the Python process that trained with it; "
            "pass the same frame again, as finetune.train(recipe, data=frame), or write it to a "
            "file, such as frame.to_csv('data.csv'), and set data.source to that"
        )
    return held


def as_source(data: Any, split: str = "") -> DataSource | None:
    """A table as something to be read; None for what is none.

    Args:
        split: follows the words by which messages call it.
    """
    if _is_of("datasets", "Dataset", data):
        return DataSource(f"the data set{split}", "table", table=data)
    table = _as_frame(data)
    return None if table is None else DataSource(f"the data frame{split}", "frame", table=table)


def describe_kind(data: Any) -> str:
    """What was passed, in a message; and what to do, where that is known."""
    kind = type(data)
    name = kind.__name__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__.partition('.')[0]}.{name}"
    if name == "polars.LazyFrame":
        return f"a {name}; pass frame.collect()"
    if name in ("datasets.IterableDataset", "datasets.IterableDatasetDict"):
        return f"a {name}, which may have no end; save it to a file, or load it without streaming"
    if name.endswith(".Series"):
        return f"a {name}; pass series.to_frame()"
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def as_texts(data: Any) -> Sequence[Any] | None:
    """A single column (a Series, an Arrow array) as Python's own values; None for what is none."""
    if _is_of("pandas", "Series", data):
        return _python_cells(data)
    if _is_of("polars", "Series", data):
        return list(data.to_list())
    if type(data).__module__.startswith("pyarrow") and hasattr(data, "to_pylist"):
        return list(data.to_pylist()) if not hasattr(data, "column_names") else None
    return None


def like(data: Any, columns: Mapping[str, Sequence[Any]]) -> Any:
    """Columns as a table of the same kind as the data, and with its index where it has one.

    Args:
        data: a table or a single column, of as many rows.
    """
    kind = type(data)
    for name in ("DataFrame", "Series"):
        if _is_of("pandas", name, data):
            return sys.modules["pandas"].DataFrame(dict(columns), index=data.index)
        if _is_of("polars", name, data):
            return sys.modules["polars"].DataFrame(dict(columns))
    if _is_of("datasets", "Dataset", data):
        return kind.from_dict(dict(columns))
    import pyarrow as pa

    return pa.table(dict(columns))


def _is_of(library: str, name: str, data: Any) -> bool:
    """Whether it is of a class of a library that, if so, is loaded already."""
    module = sys.modules.get(library)
    kind = getattr(module, name, None)
    return isinstance(kind, type) and isinstance(data, kind)


def _as_frame(data: Any) -> FrameTable | None:
    if _is_of("pandas", "DataFrame", data):
        columns = [_from_pandas(data.iloc[:, i]) for i in range(data.shape[1])]
        names = tuple(name if isinstance(name, str) else str(name) for name in data.columns)
        return FrameTable(names, tuple(columns), len(data))
    is_column = _is_of("pandas", "Series", data) or _is_of("polars", "Series", data)
    if is_column or isinstance(data, type):
        return None
    if hasattr(data, "to_arrow") and not hasattr(data, "__arrow_c_stream__"):
        data = data.to_arrow()  # polars before it spoke Arrow's own protocol
    if not hasattr(data, "__arrow_c_stream__") and not hasattr(data, "__arrow_c_array__"):
        return None
    import pyarrow as pa

    try:
        table = data if isinstance(data, pa.Table) else pa.table(data)
    except (pa.ArrowException, TypeError, ValueError) as error:  # an array, or a stream of no rows
        reraise_memory_error(error)
        return None
    columns = [_own(_without_views(column)) for column in table.columns]
    return FrameTable(tuple(table.column_names), tuple(columns), table.num_rows)


def _without_views(column: Any) -> Any:
    """A column of categories as polars has them, in a type that Arrow can cast."""
    import pyarrow as pa

    kind = column.type
    if not pa.types.is_dictionary(kind) or not pa.types.is_string_view(kind.value_type):
        return column
    plain = pa.dictionary(kind.index_type, pa.large_string())
    chunks = [
        pa.DictionaryArray.from_arrays(chunk.indices, chunk.dictionary.cast(pa.large_string()))
        for chunk in column.chunks
    ]
    return pa.chunked_array(chunks, plain)


def _own(column: Any) -> Any:
    """A column that nobody can write to: of NumPy's arrays, Arrow may have taken the memory itself.

    Texts are always Arrow's own.
    """
    import pyarrow as pa

    kinds = pa.types
    is_text = kinds.is_string(column.type) or kinds.is_large_string(column.type)
    buffers = [buffer for chunk in column.chunks for buffer in chunk.buffers()]
    if is_text or not any(buffer is not None and buffer.is_mutable for buffer in buffers):
        return column
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([("cells", column.type)])) as out:
        out.write_table(pa.table({"cells": column}))
    return pa.ipc.open_stream(sink.getvalue()).read_all().column(0)


def _from_pandas(column: Any) -> Any:
    """A column of a data frame: of Arrow, or as Python's own values where Arrow has no type."""
    import pandas as pd
    import pyarrow as pa

    if column.dtype == object and pd.api.types.infer_dtype(column, skipna=True) != "string":
        return _python_cells(column)
    try:
        # A copy: of numbers, Arrow would share the memory that the caller may write to.
        found = pa.array(column.copy(), from_pandas=True)
        if pd.api.types.is_float_dtype(column.dtype) and found.null_count:
            # Whole numbers with gaps are floats to pandas alone.
            with _or_as_it_is(pa.ArrowInvalid):
                found = found.cast(pa.int64())
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        reraise_memory_error(error)
        return _python_cells(column)
    return found if isinstance(found, pa.ChunkedArray) else pa.chunked_array([found])


@contextmanager
def _or_as_it_is(error: type[Exception]) -> Iterator[None]:
    try:
        yield
    except error:
        return


def _python_cells(column: Any) -> list[Any]:
    """The cells of a pandas column; None where one is missing, be it NaN, NaT or NA."""
    missing = column.isna().tolist()
    return [None if gone else _python(cell) for cell, gone in zip(column, missing, strict=True)]


def _python(cell: Any) -> Any:
    """A cell without NumPy's types, as JSON would have it."""
    if type(cell).__module__ == "numpy" and hasattr(cell, "tolist"):
        return cell.tolist()
    return list(cell) if isinstance(cell, tuple | list) else cell


class _HashSink:
    """A file to write to, of which only the hash is kept."""

    closed = False

    def __init__(self, digest: Any) -> None:
        self._digest = digest

    def write(self, content: Any) -> int:
        self._digest.update(content)
        return len(content)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def _hash_table(source: DataSource, digest: Any) -> None:
    """Add a table's columns to a hash: those of a data set by the fingerprint that it has."""
    if source.kind == "table":
        digest.update(str(source.table._fingerprint).encode())
        return
    import pyarrow as pa

    table: FrameTable = source.table
    for name, column in zip(table.names, table.columns, strict=True):
        digest.update(f"{name}\0".encode("utf-8", "surrogatepass"))
        if isinstance(column, list):
            digest.update(repr(column).encode("utf-8", "surrogatepass"))
            continue
        schema = pa.schema([("cells", column.type)])
        sink = pa.PythonFile(_HashSink(digest), mode="w")
        with pa.ipc.new_stream(sink, schema) as out:
            for start in range(0, table.rows, HASHED_ROWS):
                part = column.slice(start, HASHED_ROWS).combine_chunks()
                whole = part if isinstance(part, pa.ChunkedArray) else pa.chunked_array([part])
                for chunk in whole.unify_dictionaries().chunks:
                    out.write_batch(pa.record_batch([chunk], schema))
