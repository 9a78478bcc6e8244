"""What a reader yields: one row after another, each with its place, right or not."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from finetune.data.formats.source import DataSource, explain_read_errors


class RowProblem(NamedTuple):
    """Why a row cannot be read: `expected {expected}, got {got}`."""

    expected: str
    got: str


class FileRow(NamedTuple):
    """A row as its file has it.

    Attributes:
        unit: what is counted: "row" or "line"; empty where the source is one document.
        number: from 1.
        cells: column → value; a text where the format has no columns; what is wrong with the row.
    """

    unit: str
    number: int
    cells: Mapping[str, Any] | str | RowProblem


class ReadNote(NamedTuple):
    """What a person should know of how some rows, or a whole source, were read.

    Attributes:
        kind: a key of `corpus.PHRASES`.
        rows: their numbers; none: the source as a whole.
        rule: how they were read, and why.
    """

    kind: str
    rows: Sequence[int]
    rule: str


class RowReader(ABC):
    """An open source.

    Attributes:
        columns: those that its beginning names; None where only its rows do, or nothing does.
        notes: what should be known of the rows that were read.
    """

    columns: Sequence[str] | None = None

    def __init__(self, source: DataSource) -> None:
        self.source = source
        self.notes: list[ReadNote] = []

    def rows(self) -> Iterator[FileRow]:
        """Every row in order, once.

        Raises:
            InputError: for what is wrong with the source as a whole, be it in its middle.
        """
        with explain_read_errors(self.source):
            yield from self._read()

    @abstractmethod
    def _read(self) -> Iterator[FileRow]: ...

    def label_names(self, column: str) -> tuple[str, ...] | None:
        """The names that the source itself gives to the numbers in a column, if it does."""
        return None
