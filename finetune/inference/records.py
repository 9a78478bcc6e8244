"""A row's cells → a `Record`: what makes up its document, and what is wrong with it.

The same for every format, so that a row is refused for the same reasons in all of them. A row
that is not right (bytes that are not UTF-8, a missing value, a wrong type, a broken line) is a
`Record` too, whose `error` says what is wrong and where; it stops nothing.
"""

import datetime
import decimal
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from finetune.data.cells import describe_value
from finetune.data.columns import ColumnSpec, find_column_problems
from finetune.data.corpus import SHOWN, Finding
from finetune.data.formats.encodings import suggest_encodings
from finetune.data.formats.file_row import RowProblem
from finetune.data.formats.registry import open_rows
from finetune.data.formats.source import DataSource, ReadProgress
from finetune.data.places import Places
from finetune.data.text_store import (
    add_broken_bytes,
    holds_half_pair,
    is_broken,
    replace_surrogates,
)
from finetune.runtime.errors import InputError
from finetune.runtime.wording import count_of

# Columns of predictions, where the model tells documents that no label fits; and the most words
# that an explanation has. They stand here, as options are checked before heavy imports.
OUT_OF_SCOPE = ("out_of_scope", "out_of_scope_score")
MOST_WORDS = 100
ANSWERED_BY = "answered_by"  # of a cascade: which of its two models predicted the row
STUDENT, TEACHER = "student", "teacher"

MISSING = object()
HALF_PAIR = "holds half of a surrogate pair, such as \\ud83d alone, which is no character"
TEXT = ColumnSpec(("text",), "")


@dataclass(frozen=True)
class RequestedColumns:
    """The columns to read.

    Attributes:
        texts: what the data calls the text columns of `spec`.
        spec: how they make up a document: the text, and perhaps the second text of a pair.
        option: what names them, for messages.
        id, keep: those that go to the output as they are.
        kept: what names the columns of `keep`, for messages.
    """

    texts: tuple[str, ...]
    spec: ColumnSpec = TEXT
    option: str = "--text"
    id: str | None = None
    keep: tuple[str, ...] = ()
    kept: str = "--keep"

    @property
    def beside(self) -> tuple[str, ...]:
        """Those that go to the output as they are."""
        return ((self.id,) if self.id is not None else ()) + self.keep

    def all_columns(self) -> tuple[str, ...]:
        """Those of texts, then those that go to the output."""
        return (*self.texts, *self.beside)

    def required(self) -> list[tuple[str, str]]:
        """Each column after the option that asks for it."""
        pairs = [(self.option, column) for column in self.texts]
        pairs += [("--id", self.id)] if self.id is not None else []
        return pairs + [(self.kept, column) for column in self.keep]


class Record(NamedTuple):
    """A row.

    Attributes:
        texts: its document, and of a pair the second text; none where something is wrong.
        beside: what goes to the output beside its prediction.
        error: what is wrong with it.
    """

    texts: tuple[str, ...]
    beside: tuple[Any, ...]
    error: str | None = None


def read_records(
    source: DataSource,
    requested: RequestedColumns,
    progress: ReadProgress,
    tell: Callable[[str], None] = lambda message: None,
) -> Iterator[Record]:
    """The rows of one source, in its order, however many there are.

    Args:
        tell: is called at the end with what should be known of how they were read.

    Raises:
        InputError: for what is wrong with the source as a whole, be it in its middle.
    """
    make = RecordMaker(source.name, requested)
    with open_rows(source, requested.all_columns(), progress) as reader:
        if reader.columns is not None:  # of a pipe, nobody could look at them before
            problems = find_column_problems(source.name, reader.columns, requested.required())
            if problems:
                raise InputError(problems)
        for unit, number, row in reader.rows():
            if isinstance(row, str):
                place = f"{source.name}: {unit} {number}" if unit else source.name
                yield make.from_text(row, place)
            elif isinstance(row, RowProblem):
                yield make.refuse(unit, number, row)
            else:
                yield make.from_cells(unit, number, row)
        for kind, numbers, rule in reader.notes:
            places = Places(source.name, numbers, "row")
            shown = [places.short(i) for i in range(min(len(places), SHOWN))]
            tell(str(Finding(kind, source.name, len(places) or 1, shown, rule)))
        for note in make.describe_broken(source.encoding_option):
            tell(f"{source.name}: {note}")


class RecordMaker:
    """Cells → `Record`, with whatever is wrong with them described."""

    def __init__(self, name: str, requested: RequestedColumns) -> None:
        self.name, self.requested = name, requested
        self._no_values: tuple[Any, ...] = (None,) * len(requested.beside)
        self._broken: list[bytes] = []  # of some texts that are not UTF-8
        self._broken_texts = self._broken_values = 0

    def describe_broken(self, option: str) -> Iterator[str]:
        """How many texts and kept values are not UTF-8, and what they may be.

        Args:
            option: what sets the encoding.
        """
        hint = f"; set {option.strip(' =')}"
        if self._broken and (likely := suggest_encodings(self._broken)) is not None:
            hint += f" ({likely})"
        if self._broken_texts:
            rows = count_of(self._broken_texts, "text is", "texts are")
            yield f"{rows} not UTF-8: no prediction{hint}"
        if self._broken_values:
            values = count_of(self._broken_values, "kept value is", "kept values are")
            yield f"{values} not UTF-8, with U+FFFD where bytes were broken{hint}"

    def from_cells(self, unit: str, number: int, cells: Mapping[str, Any]) -> Record:
        """Of a row with columns."""
        spec, columns = self.requested.spec, self.requested.texts
        count = len(spec.text)
        texts = [cells.get(column, MISSING) for column in columns]
        beside = tuple([self._to_json_value(cells.get(column)) for column in self.requested.beside])
        if count > 1 and any(isinstance(text, str) for text in texts[:count]):
            # A document goes without one of several columns, in training too.
            texts[:count] = ["" if text in (None, MISSING) else text for text in texts[:count]]
        problems = [
            f"'{column}' {problem}"
            for column, text in zip(columns, texts, strict=True)
            if (problem := self._describe_problem(text)) is not None
        ]
        document: tuple[str, ...] = ()
        if not problems:
            document = (spec.join_texts(texts[:count]) or "", *texts[count:])
            if not any(map(str.strip, texts[:count])):  # of the cells: a template has words too
                problems.append(_describe_empty(columns[:count]))
            if texts[count:] and not document[1].strip():
                problems.append(_describe_empty(columns[count:]))
        if problems:
            return Record((), beside, f"{self.name}: {unit} {number}: {'; '.join(problems)}")
        return Record(document, beside)

    def from_text(self, text: str, place: str) -> Record:
        """Of a text without columns."""
        problem = self._describe_problem(text) or (None if text.strip() else "is empty")
        beside = self._no_values
        if self.requested.id is not None:
            beside = (place, *beside[1:])
        if problem is not None:
            return Record((), beside, f"{place}: the text {problem}")
        return Record((self.requested.spec.join_texts((text,)) or "",), beside)

    def refuse(self, unit: str, number: int, problem: RowProblem) -> Record:
        """Of a row that could not be read."""
        error = f"expected {problem.expected}, got {problem.got}"
        place = f"{self.name}: {unit} {number}" if unit else self.name
        return Record((), self._no_values, f"{place}: {error}")

    def _describe_problem(self, text: object) -> str | None:
        if text is MISSING:
            return "is missing"
        if text is None:
            return "is null"
        if not isinstance(text, str):
            return f"should be text, and is {describe_value(text)}"
        if is_broken(text):
            if holds_half_pair(text):
                return HALF_PAIR
            self._broken_texts += 1
            add_broken_bytes(self._broken, text)
            return "is not UTF-8"
        return None

    def _to_json_value(self, value: Any) -> Any:
        """A kept value for JSON; types that JSON does not have become text."""
        if value is None or isinstance(value, (bool, int)):
            return value
        if isinstance(value, float):
            return value if value - value == 0 else None  # JSON knows no nan and no inf
        text = value if isinstance(value, str) else text_of(value)
        if is_broken(text):
            if not holds_half_pair(text):
                self._broken_values += 1
                add_broken_bytes(self._broken, text)
            return replace_surrogates(text)
        return text


def _describe_empty(columns: Sequence[str]) -> str:
    names = "' and '".join(columns)
    return f"'{names}' {'are' if len(columns) > 1 else 'is'} empty"


def text_of(value: Any) -> str:
    """A value that JSON has no type for, as text: dates and times as ISO 8601 writes them."""
    match value:
        case datetime.datetime():
            return value.isoformat(" ")
        case datetime.date() | datetime.time():
            return value.isoformat()
        case decimal.Decimal():
            return format(value, "f")
        case bytes():
            return value.decode("utf-8", "surrogateescape")
        case list() | tuple() | dict():
            return json.dumps(value, ensure_ascii=False, default=text_of)
    return str(value)
