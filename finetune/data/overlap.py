"""Splits → which documents of one are in another, or earlier in train: exactly, and nearly.

    overlap = Overlap({split.name: split.whole() for split in splits}, store, find_near=True)
    matches = overlap.find_matches("test", "train")  # the test rows that are in train, and where

All of it is arrays of row numbers: a finding over a million rows takes no million objects.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finetune.data.near_duplicates import Pairs, find_near_duplicates
from finetune.data.text_store import Store, hash_text, number_digests

Ids = NDArray[np.int64]
Shares = NDArray[np.float64]
NONE = -1


class Matches(NamedTuple):
    """Rows that have a duplicate or near-duplicate, ascending, each with the one most similar.

    Attributes:
        rows: (matches,)
        others: the row that each matches. (matches,)
        overlaps: Jaccard similarity of their word triples. (matches,)
        is_exact: the same text, but for white space around it. (matches,)
    """

    rows: Ids
    others: Ids
    overlaps: Shares
    is_exact: NDArray[np.bool_]

    def select(self, mask: NDArray[np.bool_]) -> "Matches":
        """Those where the mask is true. (matches,)"""
        rows, others, overlaps, is_exact = self
        return Matches(rows[mask], others[mask], overlaps[mask], is_exact[mask])


class Overlap:
    """Which documents of all splits are duplicates or near-duplicates.

    Attributes:
        pairs: the near-duplicates; None where they are not looked for.
    """

    def __init__(self, texts: Mapping[str, Sequence[str]], store: Store, find_near: bool) -> None:
        """
        Args:
            texts: split → its documents.
            store: an empty one, for what near-duplicates are found by.
            find_near: whether to look for near-duplicates.
        """
        digests = [
            np.fromiter((hash_text(text.strip()) for text in part), "S16", len(part))
            for part in texts.values()
        ]
        self._keys = dict(zip(texts, number_digests(digests), strict=True))
        self.pairs: Pairs | None = None
        if not find_near:
            return
        sizes = [len(part) for part in texts.values()]
        self.pairs = find_near_duplicates(itertools.chain(*texts.values()), store=store)
        # Documents of the same words are one cluster, by its first; clusters have neighbours.
        clusters = np.arange(sum(sizes))
        same = self.pairs.overlap == 1
        clusters[self.pairs.second[same]] = self.pairs.first[same]
        one, other, overlap = (part[~same] for part in self.pairs[:3])
        self._one, self._other = np.concatenate([one, other]), np.concatenate([other, one])
        self._overlap = np.concatenate([overlap, overlap])
        self._clusters = dict(zip(texts, np.split(clusters, np.cumsum(sizes)[:-1]), strict=True))
        self._first = {name: self._first_rows(own) for name, own in self._clusters.items()}

    def _first_rows(self, clusters: Ids) -> Ids:
        """The first row of each cluster in a split, or NONE. (documents of all splits,)"""
        first = np.full(sum(map(len, self._keys.values())), NONE)
        first[clusters[::-1]] = np.arange(len(clusters))[::-1]
        return first

    def find_matches(self, split: str, other: str) -> Matches:
        """The rows of a split that are in another split too."""
        there, first = np.unique(self._keys[other], return_index=True)
        at = np.minimum(np.searchsorted(there, self._keys[split]), len(there) - 1)
        same = there[at] == self._keys[split]
        others = np.where(same, first[at], NONE)
        overlaps = same.astype(np.float64)
        if self.pairs is not None:
            clusters, first = self._clusters[split], self._first[other]
            nearest, overlap = self._nearest(first[self._other] != NONE, first)
            for rows, shares in (
                (first[clusters], np.ones(len(clusters))),
                (nearest[clusters], overlap[clusters]),
            ):
                fresh = (others == NONE) & (rows != NONE)
                others[fresh], overlaps[fresh] = rows[fresh], shares[fresh]
        return _matches(others, overlaps, same)

    def find_earlier(self, split: str) -> Matches:
        """The rows of a split that nearly repeat an earlier one of it.

        Exact repeats are left out: a rule of its own finds them (`row_rules.py`).
        """
        if self.pairs is None:
            return _matches(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, bool))
        keys, clusters, first = self._keys[split], self._clusters[split], self._first[split]
        one, other = first[self._one], first[self._other]
        nearest, overlap = self._nearest((other != NONE) & (other < one), first)
        leads = first[clusters] == np.arange(len(clusters))
        others = np.where(leads, nearest[clusters], first[clusters])
        overlaps = np.where(leads, overlap[clusters], 1.0)
        others[(others != NONE) & (keys == keys[others])] = NONE
        return _matches(others, overlaps, np.zeros(len(others), dtype=bool))

    def _nearest(self, able: NDArray[np.bool_], first: Ids) -> tuple[Ids, Shares]:
        """Of each cluster, the first row of the most similar neighbour, or NONE, and its overlap.

        Args:
            able: which pairs of neighbours count. (2 × pairs,)
            first: the first row of each cluster. (documents of all splits,)
        """
        one, row, overlap = self._one[able], first[self._other[able]], self._overlap[able]
        order = np.lexsort((row, -overlap, one))
        clusters, best = np.unique(one[order], return_index=True)
        nearest, overlaps = np.full(len(first), NONE), np.zeros(len(first))
        nearest[clusters], overlaps[clusters] = row[order][best], overlap[order][best]
        return nearest, overlaps


def _matches(others: Ids, overlaps: Shares, same: NDArray[np.bool_]) -> Matches:
    rows = np.flatnonzero(others != NONE)
    return Matches(rows, others[rows], overlaps[rows], same[rows])
