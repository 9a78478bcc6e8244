"""Text files → blocks of rows for Ray Data, read as everywhere: any encoding, any delimiter.

    files = ray.data.from_items([{"path": path} for path in paths])
    rows = files.map_batches(FileReader(source_of), batch_size=1, batch_format="pyarrow")

A row that cannot be read stays a row: the column `PROBLEM` says what is wrong with it.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from finetune.data.formats.file_row import FileRow, RowProblem
from finetune.data.formats.registry import open_rows
from finetune.data.formats.source import DataSource
from finetune.data.text_store import is_broken, replace_surrogates

PROBLEM = "finetune.problem"
BLOCK_ROWS = 4096


class FileReader:
    """Reads the files of a batch of paths.

    Args:
        like: a source with their kind, encoding and delimiter.
        requested: the columns that are asked for; empty: those of the model.
    """

    def __init__(self, like: DataSource, requested: Sequence[str]) -> None:
        self.like, self.requested = like, tuple(requested)

    def __call__(self, batch: Any) -> Iterator[Any]:
        """A `pyarrow.Table` with the column `path` → tables of the files' rows, in order."""
        for path in batch.column("path").to_pylist():
            yield from read_blocks(replace(self.like, name=path, path=Path(path)), self.requested)


def read_blocks(source: DataSource, requested: Sequence[str] = ()) -> Iterator[Any]:
    """The rows of a file, so many at a time, as tables with the column `PROBLEM`."""
    with open_rows(source, requested) as reader:
        rows = reader.rows()
        while block := [*itertools.islice(rows, BLOCK_ROWS)]:
            yield _make_block(block, source, reader.columns)


def _make_block(rows: Sequence[FileRow], source: DataSource, columns: Sequence[str] | None) -> Any:
    names = dict.fromkeys(columns or ())
    for row in rows:
        if isinstance(row.cells, dict):
            names.update(dict.fromkeys(row.cells))
    values: dict[str, list[Any]] = {name: [] for name in names}
    problems: list[str | None] = []
    for unit, number, cells in rows:
        place, problem = f"{source.name}: {unit} {number}", None
        if isinstance(cells, RowProblem):
            problem, cells = f"{place}: expected {cells.expected}, got {cells.got}", {}
        assert not isinstance(cells, str), "these formats have columns"
        for name, column in values.items():
            cell = cells.get(name)
            if isinstance(cell, str) and is_broken(cell):
                problem = problem or f"{place}: '{name}' is not {source.encoding.upper()}"
                cell = replace_surrogates(cell)
            column.append(cell)
        problems.append(problem)
    made = {name: pa.array(column) for name, column in values.items()}
    return pa.table(made | {PROBLEM: pa.array(problems, pa.string())})
