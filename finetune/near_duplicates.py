"""Texts → the pairs that are nearly the same, found exactly and in seconds.

Two texts are near-duplicates where the sets of their word triples overlap by at least `ALIKE`
(Jaccard: shared triples / all triples), case and punctuation aside. No pair above it is missed,
as sampling (MinHash) may: of each text only the rarest triples are looked up, just so many that
two alike texts must share one (prefix filtering: Chaudhuri et al. 2006; Bayardo et al. 2007), and
the overlap of those who do is counted. Only of more than `CROWD` texts around one rare triple, as
of one template, are the most distant pairs left out.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Hashes = NDArray[np.uint64]

ALIKE = 0.8
WORDS = 3  # in a triple; a shorter text is one triple, filled up with nothing
CROWD = 100
AT_ONCE = 2_000_000  # triples compared together

_WORD = re.compile(r"\w+")
_MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)


class Pairs(NamedTuple):
    """Pairs of texts that are alike, the later one's index ascending.

    Attributes:
        first: the index of the earlier text. (pairs,)
        second: of the later one. (pairs,)
        overlap: Jaccard similarity of their word triples. (pairs,)
    """

    first: Ids
    second: Ids
    overlap: NDArray[np.float64]


def near_duplicates(texts: Sequence[str], alike: float = ALIKE) -> Pairs:
    """Which texts are nearly the same as which earlier ones.

    Of several texts with the same triples, each is paired with the first alone, and the first alone
    with others that are alike. A text without a single word is like no other.
    """
    triples, of = _triples(texts)
    first_of = _first_of_same(triples, of, len(texts))
    later = np.flatnonzero((first_of != np.arange(len(texts))) & (first_of >= 0))
    keep = first_of[of] == of
    first, second, overlap = _joined(triples[keep], of[keep], len(texts), alike)
    found = Pairs(
        np.concatenate([first_of[later], first]),
        np.concatenate([later, second]),
        np.concatenate([np.ones(len(later)), overlap]),
    )
    order = np.lexsort((found.first, found.second))
    return Pairs(found.first[order], found.second[order], found.overlap[order])


def _triples(texts: Sequence[str]) -> tuple[Hashes, Ids]:
    """The hash of each different word triple of each text, by text, and whose it is."""
    number: dict[str, int] = {}
    words: list[int] = []
    lengths = np.zeros(len(texts), dtype=np.int64)
    for i, text in enumerate(texts):
        found = _WORD.findall(text.casefold())
        words += [number.setdefault(word, len(number) + 1) for word in found]
        if 0 < len(found) < WORDS:
            words += [0] * (WORDS - len(found))
            lengths[i] = WORDS
        else:
            lengths[i] = len(found)
    many = np.maximum(lengths - (WORDS - 1), 0)
    of = np.repeat(np.arange(len(texts)), many)
    at = np.arange(len(of)) + np.repeat(np.cumsum(lengths) - lengths - np.cumsum(many) + many, many)
    flat = np.array(words, dtype=np.uint64)
    hashes = np.zeros(len(at), dtype=np.uint64)
    for i in range(WORDS):
        hashes = _mixed(hashes + flat[at + i] * _MIX[i])
    order = np.lexsort((hashes, of))
    hashes, of = hashes[order], of[order]
    new = np.ones(len(of), dtype=bool)
    new[1:] = (hashes[1:] != hashes[:-1]) | (of[1:] != of[:-1])
    return hashes[new], of[new]


def _first_of_same(triples: Hashes, of: Ids, texts: int) -> Ids:
    """The first text with just the same triples; -1 where a text has none. (texts,)"""
    sums = np.zeros((texts, 2), dtype=np.uint64)
    np.add.at(sums[:, 0], of, triples)
    np.add.at(sums[:, 1], of, _mixed(triples + np.uint64(1)))
    _, first, same = np.unique(sums, axis=0, return_index=True, return_inverse=True)
    found: Ids = first[same.ravel()]
    found[np.bincount(of, minlength=texts) == 0] = -1
    return found


def _joined(
    triples: Hashes, of: Ids, texts: int, alike: float
) -> tuple[Ids, Ids, NDArray[np.float64]]:
    """All pairs of different texts that are alike."""
    sizes = np.bincount(of, minlength=texts)
    _, which, counts = np.unique(triples, return_inverse=True, return_counts=True)
    which = which.ravel()
    rarest_first = np.lexsort((which, counts[which], of))
    place = np.arange(len(of)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # Two sets that share at least t of all must share one of their n - ⌈t·n⌉ + 1 rarest.
    looked_up = rarest_first[place < (sizes - np.ceil(alike * sizes - 1e-9) + 1)[of]]
    which, owner = which[looked_up], of[looked_up]
    order = np.lexsort((sizes[owner], which))  # those of like size side by side
    which, owner = which[order], owner[order]
    keys = [np.zeros(0, dtype=np.int64)]
    for apart in range(1, CROWD + 1):
        near = which[apart:] == which[:-apart]
        if not near.any():
            break
        one, other = owner[:-apart][near], owner[apart:][near]
        small, large = np.minimum(sizes[one], sizes[other]), np.maximum(sizes[one], sizes[other])
        able = small >= alike * large - 1e-9
        one, other = one[able], other[able]
        keys.append(np.unique(np.minimum(one, other) * texts + np.maximum(one, other)))
    first, second = np.divmod(np.unique(np.concatenate(keys)), texts)
    shared = _shared(triples, of, sizes, first, second)
    overlap = shared / (sizes[first] + sizes[second] - shared)
    enough = overlap >= alike - 1e-9
    return first[enough], second[enough], overlap[enough]


def _shared(triples: Hashes, of: Ids, sizes: Ids, first: Ids, second: Ids) -> Ids:
    """How many triples the texts of each pair share. (pairs,)"""
    if not len(first):
        return np.zeros(0, dtype=np.int64)
    begins = np.cumsum(sizes) - sizes
    owned = np.sort(_mixed(triples + of.astype(np.uint64) * _MIX[0]))
    shared = np.zeros(len(first), dtype=np.int64)
    parts = np.cumsum(sizes[first]) // AT_ONCE
    for part in np.unique(parts):
        pairs = np.flatnonzero(parts == part)
        many = sizes[first[pairs]]
        pair = np.repeat(pairs, many)
        at = np.arange(len(pair)) + np.repeat(begins[first[pairs]] - np.cumsum(many) + many, many)
        sought = _mixed(triples[at] + second[pair].astype(np.uint64) * _MIX[0])
        where = np.minimum(np.searchsorted(owned, sought), len(owned) - 1)
        np.add.at(shared, pair, owned[where] == sought)
    return shared


def _mixed(values: Hashes) -> Hashes:
    """The finalizer of splitmix64 (Steele et al. 2014): near numbers become far ones."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    result: Hashes = values ^ (values >> np.uint64(31))
    return result
