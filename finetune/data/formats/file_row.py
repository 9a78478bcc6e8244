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


class RowReader(ABC):
    """An open source.

    Attributes:
        columns: those that its beginning names; None where only its rows do, or nothing does.
    """

    columns: Sequence[str] | None = None

    def __init__(self, source: DataSource) -> None:
        self.source = source

    def rows(self) -> Iterator[FileRow]:
        """Every row in order, once.

        Raises:
            InputError: for what is wrong with the source as a whole, be it in its middle.
        """
        with explain_read_errors(self.source):
            yield from self._read()

    @abstractmethod
    def _read(self) -> Iterator[FileRow]: ...

    def describe_notes(self) -> list[str]:
        """What should be known of how the rows were read, once they are."""
        return []

    def label_names(self, column: str) -> tuple[str, ...] | None:
        """The names that the source itself gives to the numbers in a column, if it does."""
        return None
