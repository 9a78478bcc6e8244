"""A row's cells → a `Record`: what makes up its document, and what is wrong with it.

The same for every format, so that a row is refused for the same reasons wherever it stands.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from finetune.data.rows import ColumnSpec, describe_value
from finetune.data.text_store import SURROGATES, replace_surrogates

MISSING = object()
TEXT = ColumnSpec(("text",), "")


@dataclass(frozen=True)
class RequestedColumns:
    """The columns to read.

    Attributes:
        texts: what the data calls the columns of `wanted.texts()`.
        wanted: how they make up a document: the text, and perhaps the second text of a pair.
        option: what names them, for messages.
        id, keep: those that go to the output as they are.
        kept: what names the columns of `keep`, for messages.
    """

    texts: tuple[str, ...]
    wanted: ColumnSpec = TEXT
    option: str = "--text"
    id: str | None = None
    keep: tuple[str, ...] = ()
    kept: str = "--keep"

    @property
    def beside(self) -> tuple[str, ...]:
        return ((self.id,) if self.id is not None else ()) + self.keep

    def named(self) -> list[tuple[str, str]]:
        """Each column with the option that asks for it."""
        pairs = [(self.option, column) for column in self.texts]
        pairs += [("--id", self.id)] if self.id is not None else []
        return pairs + [(self.kept, column) for column in self.keep]


class Record(NamedTuple):
    """A row.

    Attributes:
        texts: its document, and of a pair the second text; none where something is wrong.
        beside: what goes beside its answer.
        error: what is wrong with it.
    """

    texts: tuple[str, ...]
    beside: tuple[Any, ...]
    error: str | None = None


class RecordMaker:
    """Cells → `Record`, with whatever is wrong with them said."""

    def __init__(self, name: str, asked: RequestedColumns) -> None:
        self.name, self.asked = name, asked
        self.nothing: tuple[Any, ...] = (None,) * len(asked.beside)

    def of(self, unit: str, number: int, cells: Mapping[str, Any]) -> Record:
        wanted, columns = self.asked.wanted, self.asked.texts
        many = len(wanted.text)
        texts = [cells.get(column, MISSING) for column in columns]
        beside = tuple([_plain(cells.get(column)) for column in self.asked.beside])
        if many > 1 and any(isinstance(text, str) for text in texts[:many]):
            # A document goes without one of several columns, in training too.
            texts[:many] = ["" if text in (None, MISSING) else text for text in texts[:many]]
        wrong = [
            f"'{column}' {why}"
            for column, text in zip(columns, texts, strict=True)
            if (why := _wrong(text)) is not None
        ]
        if not wrong:
            found = [wanted.joined(texts[:many]) or "", *texts[many:]]
            # Not the joined text, in which a template's own words stand.
            wrong += [] if any(map(str.strip, texts[:many])) else [_empty(columns[:many])]
            wrong += [_empty(columns[many:])] if texts[many:] and not found[1].strip() else []
        if wrong:
            return Record((), beside, f"{self.name}: {unit} {number}: {'; '.join(wrong)}")
        return Record(tuple(found), beside)

    def of_text(self, unit: str, text: str, place: str) -> Record:
        """Of what has no columns."""
        why = _wrong(text) or (None if text.strip() else "is empty")
        beside = self.nothing
        if self.asked.id is not None:
            beside = (place, *beside[1:])
        if why is not None:
            return Record((), beside, f"{place}: the text {why}")
        return Record((self.asked.wanted.joined((text,)) or "",), beside)

    def broken(self, unit: str, number: int, why: str) -> Record:
        return Record((), self.nothing, f"{self.name}: {unit} {number}: {why}")


def _empty(columns: Sequence[str]) -> str:
    names = "' and '".join(columns)
    return f"'{names}' {'are' if len(columns) > 1 else 'is'} empty"


def _wrong(text: object) -> str | None:
    if text is MISSING:
        return "is missing"
    if text is None:
        return "is null"
    if not isinstance(text, str):
        return f"should be text, and is {describe_value(text)}"
    if not text.isascii() and SURROGATES.search(text):
        return "is not UTF-8"
    return None


def _plain(value: Any) -> Any:
    """A kept value as JSON has it: what it has no word for stands as text."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return (
            value if value.isascii() or not SURROGATES.search(value) else replace_surrogates(value)
        )
    if isinstance(value, float):
        return value if value - value == 0 else None  # JSON knows no nan and no inf
    return replace_surrogates(json.dumps(value, ensure_ascii=False, default=str))
