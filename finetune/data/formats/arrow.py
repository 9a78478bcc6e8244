"""Parquet files, and tables of `datasets`: batches of rows, the columns asked for alone."""

import gzip
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from finetune.data.cells import arrow_values
from finetune.data.formats import bounded
from finetune.data.formats.file_row import FileRow, RowProblem, RowReader
from finetune.data.formats.source import (
    DataSource,
    ReadProgress,
    is_gzip,
    refuse_packed_twice,
)
from finetune.runtime.errors import InputError
from finetune.runtime.memory_errors import reraise_memory_error

BATCH_ROWS = 256  # rows that are in memory as Python's own


class TableReader(RowReader):
    """A table that `datasets` has in memory or mapped."""

    def __init__(
        self,
        source: DataSource,
        requested: Sequence[str],
        progress: ReadProgress,
        stack: ExitStack,
    ) -> None:
        super().__init__(source)
        self.columns = list(source.table.column_names)
        self._requested, self._progress = requested, progress
        progress.size = len(source.table)

    def _read(self) -> Iterator[FileRow]:
        names = _present(self._requested, self.columns or ())
        return _read_batches(self._slices(names), names, self._progress)

    def _slices(self, names: list[str]) -> Iterator[Any]:
        table = self.source.table.select_columns(names).with_format("arrow")
        for start in range(0, len(table), BATCH_ROWS):
            yield table[start : start + BATCH_ROWS]

    def label_names(self, column: str) -> tuple[str, ...] | None:
        feature = self.source.table.features.get(column)
        feature = getattr(feature, "feature", feature)  # of a list of labels
        names = getattr(feature, "names", None)  # of a ClassLabel
        return None if names is None else tuple(names)


class ParquetReader(RowReader):
    """A Parquet file. It is read from its end, so that a packed one is unpacked to disk first."""

    def __init__(
        self,
        source: DataSource,
        requested: Sequence[str],
        progress: ReadProgress,
        stack: ExitStack,
    ) -> None:
        super().__init__(source)
        assert source.path is not None
        self._requested, self._progress = requested, progress
        with source.path.open("rb") as stream:
            packed = is_gzip(stream.read(2))
        with _explain_arrow_errors(source):
            import pyarrow.parquet as pq

            place: Any = source.path
            if packed:
                place = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 # the stack's
                with gzip.open(source.path) as unpacked:
                    shutil.copyfileobj(unpacked, place)
                place.seek(0)
                refuse_packed_twice(source.name, place.read(2))
            # Without its read-ahead, a row group is not held whole.
            file = pq.ParquetFile(place, buffer_size=2**20, pre_buffer=False)
            self._file = stack.enter_context(file)
            self.columns = list(self._file.schema_arrow.names)
            progress.size = self._file.metadata.num_rows

    def _read(self) -> Iterator[FileRow]:
        names = _present(self._requested, self.columns or ())
        with _explain_arrow_errors(self.source):
            batches = self._file.iter_batches(self._batch_rows(names), columns=names)
            yield from _read_batches(batches, names, self._progress)

    def _batch_rows(self, names: Sequence[str]) -> int:
        """The rows of a batch: fewer where the file says that they are long."""
        metadata = self._file.metadata
        longest = 1
        for group in range(metadata.num_row_groups):
            of_group = metadata.row_group(group)
            parts = [of_group.column(i) for i in range(of_group.num_columns)]
            size = sum(
                part.total_uncompressed_size
                for part in parts
                if part.path_in_schema.partition(".")[0] in names
            )
            longest = max(longest, size // max(1, of_group.num_rows))
        return max(1, min(BATCH_ROWS, bounded.LONGEST_LINE // longest))

    def label_names(self, column: str) -> tuple[str, ...] | None:
        """The ClassLabel names that `datasets` writes into the schema of its Parquet files."""
        try:
            metadata = self._file.schema_arrow.metadata or {}
            feature = json.loads(metadata[b"huggingface"])["info"]["features"][column]
            if isinstance(feature, list):  # of several labels a row; as older releases wrote it
                feature = feature[0]
            feature = feature.get("feature", feature)
            return tuple(feature["names"]) if feature["_type"] == "ClassLabel" else None
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            return None


def _read_batches(
    batches: Iterable[Any], names: Sequence[str], progress: ReadProgress
) -> Iterator[FileRow]:
    number = 0
    for batch in batches:
        columns = [_read_column(batch.column(name), name) for name in names]
        for cells in zip(*columns, strict=True):
            number += 1
            problem = next((cell for cell in cells if isinstance(cell, RowProblem)), None)
            yield FileRow("row", number, problem or dict(zip(names, cells, strict=True)))
        progress.done = number


def _read_column(column: Any, name: str) -> list[Any]:
    """An Arrow column as Python values; a `RowProblem` for each cell that is none of Python's."""
    import pyarrow as pa

    try:
        values = arrow_values(column)
    except (ValueError, OverflowError, TypeError, pa.ArrowException) as error:
        reraise_memory_error(error)
        if len(column) == 1:
            why = str(error).partition("\n")[0]
            return [RowProblem(f"a value that can be read in '{name}'", f"one that cannot ({why})")]
        return [
            value for i in range(len(column)) for value in _read_column(column.slice(i, 1), name)
        ]
    most = bounded.LONGEST_LINE
    return [
        bounded.too_long("cell") if isinstance(value, str) and len(value) > most else value
        for value in values
    ]


def _present(requested: Sequence[str], columns: Sequence[str]) -> list[str]:
    return [name for name in dict.fromkeys(requested) if name in columns]


@contextmanager
def _explain_arrow_errors(source: DataSource) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except pa.ArrowException as error:
        reraise_memory_error(error)
        first = str(error).partition("\n")[0]
        raise InputError(f"{source.name}: not a Parquet file that can be read ({first})") from None
