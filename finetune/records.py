"""A row's cells → a `Record`: what makes up its document, and what is wrong with it.

The same for every format, so that a row is refused for the same reasons wherever it stands.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from finetune.rows import SURROGATES, found_value, mend

MISSING = object()


@dataclass(frozen=True)
class Asked:
    """The columns to read.

    Attributes:
        texts: those that make up a document.
        option: what names them, for messages.
        id, keep: those that go to the output as they are.
    """

    texts: tuple[str, ...]
    option: str = "--text"
    id: str | None = None
    keep: tuple[str, ...] = ()

    @property
    def beside(self) -> tuple[str, ...]:
        return ((self.id,) if self.id is not None else ()) + self.keep

    def named(self) -> list[tuple[str, str]]:
        """Each column with the option that asks for it."""
        pairs = [(self.option, column) for column in self.texts]
        pairs += [("--id", self.id)] if self.id is not None else []
        return pairs + [("--keep", column) for column in self.keep]


class Record(NamedTuple):
    """A row: what makes up its document, what goes beside its answer, and what is wrong with it."""

    texts: tuple[str, ...]
    beside: tuple[Any, ...]
    error: str | None = None


class Maker:
    """Cells → `Record`, with whatever is wrong with them said."""

    def __init__(self, name: str, asked: Asked) -> None:
        self.name, self.asked = name, asked
        self.nothing: tuple[Any, ...] = (None,) * len(asked.beside)

    def of(self, unit: str, number: int, cells: Mapping[str, Any]) -> Record:
        texts = [cells.get(column, MISSING) for column in self.asked.texts]
        beside = tuple([_plain(cells.get(column)) for column in self.asked.beside])
        wrong = [
            f"'{column}' {why}"
            for column, text in zip(self.asked.texts, texts, strict=True)
            if (why := _wrong(text)) is not None
        ]
        if not wrong and not any(text.strip() for text in cast(list[str], texts)):
            names = "' and '".join(self.asked.texts)
            wrong = [f"'{names}' {'are' if len(texts) > 1 else 'is'} empty"]
        if wrong:
            return Record((), beside, f"{self.name}: {unit} {number}: {'; '.join(wrong)}")
        return Record(tuple(cast(list[str], texts)), beside)

    def of_text(self, unit: str, text: str, place: str) -> Record:
        """Of what has no columns."""
        why = _wrong(text) or (None if text.strip() else "is empty")
        beside = self.nothing
        if self.asked.id is not None:
            beside = (place, *beside[1:])
        if why is not None:
            return Record((), beside, f"{place}: the text {why}")
        return Record((text,), beside)

    def broken(self, unit: str, number: int, why: str) -> Record:
        return Record((), self.nothing, f"{self.name}: {unit} {number}: {why}")


def _wrong(text: object) -> str | None:
    if text is MISSING:
        return "is missing"
    if text is None:
        return "is null"
    if not isinstance(text, str):
        return f"should be text, and is {found_value(text)}"
    if not text.isascii() and SURROGATES.search(text):
        return "is not UTF-8"
    return None


def _plain(value: Any) -> Any:
    """A kept value as JSON has it: what it has no word for stands as text."""
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return value if value.isascii() or not SURROGATES.search(value) else mend(value)
    if isinstance(value, float):
        return value if value - value == 0 else None  # JSON knows no nan and no inf
    return mend(json.dumps(value, ensure_ascii=False, default=str))
