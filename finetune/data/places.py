"""The rows' places for messages, made when they are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Places(Sequence[str]):
    """Each row's place for messages, made when asked for: of one name and a number, or a path."""

    name: str  # "train.csv", "fancyzhx/ag_news train"
    items: Sequence[int] | Sequence[str]
    unit: str = ""  # row or line; empty where the items are whole places already
    taken: NDArray[np.int64] | None = None  # which of the items; None: all (rows,)

    def __len__(self) -> int:
        return len(self.items if self.taken is None else self.taken)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self.place(i) for i in range(len(self))[at]]
        return self.place(at)

    def place(self, i: int) -> str:
        item = self._item(i)
        return f"{self.name}: {self.unit} {item}" if self.unit else str(item)

    def short(self, i: int) -> str:
        """The place where the file is known already: `row 12`."""
        item = self._item(i)
        return f"{self.unit} {item}" if self.unit else str(item)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> "Places":
        """The places of some of the rows, in the order given."""
        chosen = np.asarray(rows, dtype=np.int64)
        return replace(self, taken=chosen if self.taken is None else self.taken[chosen])

    def sources(self) -> list[str]:
        """The file or table that each row comes from; of a folder of documents, the folder."""
        if isinstance(self.items, Shards):
            return self.items.sources(np.arange(len(self)) if self.taken is None else self.taken)
        return [self.name] * len(self)

    def without(self, others: "Places") -> "Places":
        """Those that are not also among others of the same source."""
        if others.items is not self.items:
            return self
        own, known = (np.arange(len(p)) if p.taken is None else p.taken for p in (self, others))
        return self.take(np.flatnonzero(~np.isin(own, known)))

    def _item(self, i: int) -> int | str:
        return self.items[i if self.taken is None else int(self.taken[i])]


class Shards(Sequence[str]):
    """The whole places of the rows of several files, said when they are asked for."""

    def __init__(self, parts: Sequence[Places]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def sources(self, rows: NDArray[np.int64]) -> list[str]:
        """The name of the file that each of these rows is from."""
        parts = np.searchsorted(self._ends, rows, side="right").tolist()
        return [self._parts[part].name for part in parts]

    def __getitem__(self, i: Any) -> Any:
        part = int(np.searchsorted(self._ends, i, side="right"))
        return self._parts[part].place(int(i) - int(self._ends[part - 1] if part else 0))


class PairPlaces(Sequence[str]):
    """Rows and what each is like, in words: `test.csv: row 3 ≈ train.csv: row 1 (0.92)`."""

    def __init__(self, ones: Places, others: Places, overlaps: NDArray[np.float64]) -> None:
        self._ones, self._others, self._overlaps = ones, others, overlaps

    def __len__(self) -> int:
        return len(self._ones)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(len(self))[at]]
        return f"{self._ones[at]} ≈ {self._others[at]} ({self._overlaps[at]:.2f})"
