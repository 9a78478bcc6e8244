"""Rows whose identifier does not tell them from others: without one, or with another row's.

Nothing is dropped for it, and no run stops: what is learned and scored is the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.cells import clip
from finetune.data.corpus import Corpus, Finding, Split
from finetune.data.identifiers import Ids
from finetune.data.places import Places
from finetune.data.text_store import number_digests

KEPT = "kept, though data.id does not tell them apart"


class NamedPlaces(Sequence[str]):
    """Rows with their identifiers, in words: `test.csv: row 3 (T-17)`."""

    def __init__(self, places: Places, ids: Ids) -> None:
        self._places, self._ids = places, ids

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(len(self))[at]]
        return f"{self._places[at]} ({clip(str(self._ids[at]))})"


def note_id_problems(corpus: Corpus) -> Corpus:
    """The corpus with findings on its identifiers, where it has some."""
    found = tuple(find_id_problems(corpus.splits()))
    return replace(corpus, findings=(*corpus.findings, *found)) if found else corpus


def find_id_problems(splits: Sequence[Split]) -> Iterator[Finding]:
    """Of each split the rows without an identifier, those with that of an earlier row, and those
    with that of a row of an earlier split."""
    known = [(split, split.ids) for split in splits if split.ids is not None]
    if not known:
        return
    numbers = number_digests([ids.digests() for _, ids in known])
    before: list[tuple[str, NDArray[np.int64]]] = []
    for (split, ids), own in zip(known, numbers, strict=True):
        missing = ids.missing()
        if missing.any():
            places = split.places.take(np.flatnonzero(missing))
            rule = "kept; its file and row alone tell which document it is (data.id)"
            yield Finding("no id", split.name, len(places), places, rule)
        named = np.flatnonzero(~missing)
        firsts = named[np.unique(own[named], return_index=True)[1]]
        repeated = np.setdiff1d(named, firsts)
        if len(repeated):
            yield _finding("repeated id", split, ids, repeated)
        for name, others in before:
            shared = named[np.isin(own[named], others)]
            if len(shared):
                yield _finding("shared id", split, ids, shared, name)
        before.append((split.name, own[named]))


def _finding(
    kind: str, split: Split, ids: Ids, rows: NDArray[np.int64], other: str = ""
) -> Finding:
    places = NamedPlaces(split.places.take(rows), ids.take(rows))
    return Finding(kind, split.name, len(rows), places, KEPT, other)
