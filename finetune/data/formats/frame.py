"""A data frame, as columns of Arrow or of Python's own values → its rows."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from finetune.data.cells import arrow_values
from finetune.data.formats.file_row import FileRow, RowReader
from finetune.data.formats.source import DataSource, ReadProgress

BATCH_ROWS = 1024  # rows that are in memory as Python's own


@dataclass(frozen=True)
class FrameTable:
    """The columns of a data frame.

    Attributes:
        names: of the columns, in order; one may come twice.
        columns: each a column of Arrow, or a list where Arrow has no type for its values.
        rows: how many.
    """

    names: tuple[str, ...]
    columns: tuple[Any, ...]
    rows: int

    def values(self, column: int, start: int, end: int) -> list[Any]:
        """Some rows of a column, as Python's own values."""
        cells = self.columns[column]
        if isinstance(cells, list):
            return cells[start:end]
        return arrow_values(cells.slice(start, end - start))


class FrameReader(RowReader):
    """A data frame, row by row."""

    def __init__(
        self,
        source: DataSource,
        requested: Sequence[str],
        progress: ReadProgress,
        stack: ExitStack,
    ) -> None:
        super().__init__(source)
        self._table: FrameTable = source.table
        self.columns = list(self._table.names)
        self._requested, self._progress = requested, progress
        progress.size = self._table.rows

    def _read(self) -> Iterator[FileRow]:
        table = self._table
        names = [name for name in dict.fromkeys(self._requested) if name in table.names]
        chosen = [table.names.index(name) for name in names]
        for start in range(0, table.rows, BATCH_ROWS):
            end = min(start + BATCH_ROWS, table.rows)
            columns = [table.values(column, start, end) for column in chosen]
            for i in range(end - start):
                cells = {name: column[i] for name, column in zip(names, columns, strict=True)}
                yield FileRow("row", start + i + 1, cells)
            self._progress.done = end
