"""Documents in Python's own shapes → records: texts, rows by column, rows in the columns' order.

    reader = DocumentReader(classifier.reading)
    reader.read(["a text", {"text": "another"}, None])     # three records, the last with an error

What is wrong with a row is its `error`, and costs no other row its prediction.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from finetune.data import frames
from finetune.data.cells import clip
from finetune.inference.records import Record, RecordMaker, RequestedColumns
from finetune.runtime.errors import InputError
from finetune.runtime.wording import count_of
from finetune.tokenization.document_format import DocumentFormat

SHOWN = 60  # characters of what was passed instead of a document


class DocumentReader:
    """Makes a record of whatever was passed as a document.

    Args:
        reading: how the model reads documents.
        columns: what rows call the columns of the documents; None: as in training.
        name, unit: how messages call all that was passed, and one of it.
    """

    def __init__(
        self,
        reading: DocumentFormat,
        columns: Sequence[str] | None = None,
        name: str = "documents",
        unit: str = "number",
    ) -> None:
        spec = reading.column_spec()
        self.columns = tuple(columns or spec.text_columns())
        self._name, self._unit = name, unit
        self._maker = RecordMaker(name, RequestedColumns(self.columns, spec, id=reading.id))

    def read(self, documents: Any) -> list[Record]:
        """A record for each document, in their order.

        Args:
            documents: a text, a row, or an iterable of these. A row is a dict by column, or a
                tuple or list of the texts in the order of the columns.

        Raises:
            InputError: for what is none of these.
        """
        if isinstance(documents, str | Mapping):
            documents = [documents]
        if not isinstance(documents, Iterable):
            raise InputError(
                f"{self._name}: expected a text or several, got {frames.describe_kind(documents)}"
            )
        return [self.read_one(number, row) for number, row in enumerate(documents, start=1)]

    def read_one(self, number: int, row: Any) -> Record:
        """The record of one document; what is wrong with it is its `error`."""
        if isinstance(row, str) and len(self.columns) == 1:
            row = {self.columns[0]: row}
        elif isinstance(row, tuple | list) and len(row) == len(self.columns):
            row = dict(zip(self.columns, row, strict=True))
        if isinstance(row, Mapping):
            return self._maker.from_cells(self._unit, number, row)
        return Record((), (), f"{self._name}: {self._unit} {number}: {self._describe(row)}")

    def _describe(self, row: Any) -> str:
        expected = "text"
        if len(self.columns) > 1:
            named = f"the columns {', '.join(self.columns)}"
            expected = f"a row with {named}"
            if isinstance(row, tuple | list):
                count = count_of(len(row), "text")
                return f"expected {count_of(len(self.columns), 'text')} ({named}), got {count}"
        elif isinstance(row, tuple | list):
            return f"expected text, got a {type(row).__name__} of {len(row)}"
        return f"expected {expected}, got {clip(repr(row), SHOWN)}"
