"""Identifiers of documents, as `data.id` names their column: kept in a store, compared by hash.

    column = IdColumn(store)
    column.append("T-17")
    ids = column.ids()       # of each row text, a number or a truth; None where it has none

An identifier decides nothing. It is copied to whatever names a row, so that a prediction can be
joined to where its document came from.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from finetune.data.text_store import Column, Store, Texts, hash_text, replace_surrogates


class Ids(Sequence[Any]):
    """The identifiers of some rows, 16 bytes each in memory."""

    def __init__(self, texts: Texts) -> None:
        """
        Args:
            texts: each as JSON; missing or empty where the row has none.
        """
        self._texts = texts

    @classmethod
    def of(cls, values: Sequence[Any]) -> Self:
        """Identifiers that are in memory already."""
        column = Column(Store())
        for value in values:
            column.add(_encode(value))
        return cls(column.texts())

    @classmethod
    def none(cls, texts: Texts) -> Self:
        """Of as many rows as there are texts, all without one; in their store."""
        return cls(texts.without())

    @classmethod
    def joined(cls, parts: Sequence["Ids"]) -> Self:
        """One after the other, all from the same store."""
        return cls(Texts.joined([part._texts for part in parts]))

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> "Ids":
        """Those of some of the rows, in the order given."""
        return Ids(self._texts.take(rows))

    def digests(self) -> NDArray[np.bytes_]:
        """16 bytes that identify each; the same for all rows without one. (rows,)"""
        return np.array([hash_text(text or "") for text in self._texts], dtype="S16")

    def missing(self) -> NDArray[np.bool_]:
        """Which rows have none. (rows,)"""
        return np.array([not text for text in self._texts], dtype=bool)

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> list[Any]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return [_decode(text) for text in self._texts[at]]
        return _decode(self._texts[at])

    def __iter__(self) -> Iterator[Any]:
        return map(_decode, self._texts)


class IdColumn:
    """A column of identifiers while it is read."""

    def __init__(self, store: Store) -> None:
        self._column = Column(store)

    def __len__(self) -> int:
        return len(self._column)

    def append(self, cell: Any) -> None:
        """The next row's cell, as it was read."""
        self._column.add(_encode(cell))

    def ids(self) -> Ids:
        """All that were appended."""
        return Ids(self._column.texts())


def is_missing(value: Any) -> bool:
    """Whether a cell names nothing: null, blank, or no number."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and value != value)


def _encode(value: Any) -> str | None:
    if is_missing(value):
        return None
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, dict):  # a row's shares
        return json.dumps(value, ensure_ascii=False)
    # Dates and the like as they are written; bytes that are not UTF-8 with U+FFFD.
    return json.dumps(replace_surrogates(str(value)), ensure_ascii=False)


def _decode(text: str | None) -> Any:
    return json.loads(text) if text else None
