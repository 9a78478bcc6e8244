"""Texts → the pairs that are nearly the same, found in seconds, in memory that texts do not fill.

Two texts are near-duplicates where the sets of their word triples overlap by at least `THRESHOLD`
(Jaccard: shared triples / all triples), case and punctuation aside. Of scripts that set no space
between words (Chinese, Japanese, Thai, …) each character counts as a word. No pair above it is
missed, as sampling (MinHash) may: of each text only the rarest triples are looked up, just so many
that two similar texts must share one (prefix filtering: Chaudhuri et al. 2006; Bayardo et al.
2007), and the overlap of those who do is counted. How rare a triple is, a table of fixed size
estimates; any order serves, if it is the same for all texts.

Where a great many texts share their rarest triples, as those of one template do, there are too many
pairs to count; then each is compared with only those closest in size, and `Pairs.crowd` says so.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from finetune.data.text_store import Store
from finetune.data.word_triples import Hashes, Ids, blocks, mixed, spans, triples_of

THRESHOLD = 0.8
CROWD = 100  # texts around one triple with which each is compared, on either side
MOST_PAIRS = 5_000_000  # to compare, above which CROWD shrinks
AT_ONCE = 2**20  # triples
MOST_SLOTS = 2**26  # bytes that count triples


class Pairs(NamedTuple):
    """Pairs of near-duplicate texts, the later one's index ascending.

    Attributes:
        first: the index of the earlier text. (pairs,)
        second: of the later one. (pairs,)
        overlap: Jaccard similarity of their word triples. (pairs,)
        crowd: with how many others around one triple, on either side, a text was compared.
        crowded: how many texts had more, so that pairs of theirs may be missing.
    """

    first: Ids
    second: Ids
    overlap: NDArray[np.float64]
    crowd: int = CROWD
    crowded: int = 0


class _Sets(NamedTuple):
    """The different triples of each text, by text.

    Attributes:
        triples: their hashes, those of a text ascending. (triples,)
        begins: where those of each text begin, and the end of all. (texts + 1,)
    """

    triples: Hashes
    begins: Ids

    def sizes(self) -> Ids:
        return np.diff(self.begins)

    def blocks(self, of: Ids) -> Iterator[tuple[Ids, Ids]]:
        """Some texts at a time, and where their triples are."""
        sizes = self.sizes()[of]
        parts = np.cumsum(sizes) // AT_ONCE
        for start, end in _runs(parts):
            yield of[start:end], spans(self.begins[of[start:end]], sizes[start:end])


def find_near_duplicates(
    texts: Iterable[str], threshold: float = THRESHOLD, store: Store | None = None
) -> Pairs:
    """Which texts are nearly the same as which earlier ones.

    Of several texts with the same triples, each is paired with the first alone, and the first alone
    with others that are near-duplicates. A text without a single word has none.

    Args:
        threshold: the least overlap, above 0.
        store: an empty one for the triples, 8 bytes each; None: they stay in memory.
    """
    sets, sums = _build_sets(texts, Store() if store is None else store)
    _, first, same = np.unique(sums, return_index=True, return_inverse=True)
    first_of = first[same]
    has_words = sets.sizes() > 0
    own = first_of == np.arange(len(first_of))
    later = np.flatnonzero(~own & has_words)
    pairs = _find_pairs(sets, np.flatnonzero(own & has_words), threshold)
    first = np.concatenate([first_of[later], pairs.first])
    second = np.concatenate([later, pairs.second])
    overlap = np.concatenate([np.ones(len(later)), pairs.overlap])
    order = np.lexsort((first, second))
    return Pairs(first[order], second[order], overlap[order], pairs.crowd, pairs.crowded)


def _build_sets(texts: Iterable[str], store: Store) -> tuple[_Sets, Hashes]:
    """The triples of each text, and a sum of them: the same for the same triples. (texts,)"""
    sizes, sums = [np.zeros(1, dtype=np.int64)], [np.zeros(0, dtype=np.uint64)]
    for block in blocks(texts):
        triples, of = triples_of(block)
        store.add(triples.tobytes())
        sizes.append(np.bincount(of, minlength=len(block)))
        sums.append(np.zeros(len(block), dtype=np.uint64))
        np.add.at(sums[-1], of, mixed(triples))
    begins = np.cumsum(np.concatenate(sizes))
    return _Sets(np.frombuffer(store.mapped(), dtype=np.uint64), begins), np.concatenate(sums)


def _find_pairs(sets: _Sets, of: Ids, threshold: float) -> Pairs:
    """All pairs of different texts that are near-duplicates, among those given."""
    sizes = sets.sizes()
    which, owner = _rarest(sets, of, threshold)
    order = np.lexsort((sizes[owner], which))  # those of like size side by side
    which, owner = which[order], owner[order]
    starts = np.flatnonzero(np.diff(which, prepend=which[:1] + np.uint64(1)))
    around = np.diff(starts, append=len(which))  # texts around each triple
    crowd = _crowd(around)
    keys = [np.zeros(0, dtype=np.int64)]
    for apart in range(1, min(crowd, int(around.max(initial=1)) - 1) + 1):
        near = np.flatnonzero(which[apart:] == which[:-apart])
        one, other = owner[near], owner[near + apart]
        able = sizes[one] >= threshold * sizes[other] - 1e-9  # the larger comes later
        one, other = one[able], other[able]
        keys.append(np.unique(np.minimum(one, other) * len(sizes) + np.maximum(one, other)))
    first, second = np.divmod(np.unique(np.concatenate(keys)), len(sizes))
    shared = _shared(sets, first, second)
    overlap = shared / np.maximum(sizes[first] + sizes[second] - shared, 1)
    enough = overlap >= threshold - 1e-9
    crowded = len(np.unique(owner[np.repeat(around > crowd + 1, around)]))
    return Pairs(first[enough], second[enough], overlap[enough], crowd, crowded)


def _rarest(sets: _Sets, of: Ids, threshold: float) -> tuple[Hashes, Ids]:
    """The triples of each text that are looked up, but for those that no other text has; whose."""
    many = int(sets.sizes()[of].sum())
    slots = min(MOST_SLOTS, 2 ** max(10, (4 * many).bit_length()))
    shift = np.uint64(64 - (slots.bit_length() - 1))
    counts = np.zeros(slots, dtype=np.uint8)
    for _, at in sets.blocks(of):
        slot, times = np.unique(sets.triples[at] >> shift, return_counts=True)
        counts[slot] = np.minimum(counts[slot] + times, 255)
    which, owner = [np.zeros(0, dtype=np.uint64)], [np.zeros(0, dtype=np.int64)]
    for texts, at in sets.blocks(of):
        triples, sizes = sets.triples[at], sets.sizes()[texts]
        count = counts[triples >> shift]
        rarest_first = np.argsort(
            (count.astype(np.uint64) << np.uint64(56)) | (triples >> np.uint64(8))
        )
        whose = np.repeat(np.arange(len(texts)), sizes)
        rarest_first = rarest_first[np.argsort(whose[rarest_first], kind="stable")]
        place = np.arange(len(at)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        # Two sets that share at least t of all must share one of their n - ⌈t·n⌉ + 1 rarest.
        looked_up = place < np.repeat(sizes - np.ceil(threshold * sizes - 1e-9) + 1, sizes)
        chosen = rarest_first[looked_up]
        chosen = chosen[count[chosen] > 1]
        which.append(triples[chosen])
        owner.append(texts[whose[chosen]])
    return np.concatenate(which), np.concatenate(owner)


def _crowd(around: Ids) -> int:
    """With how many texts around a triple each is compared, so that pairs are not too many."""
    pairs = 0
    for apart in range(1, CROWD + 1):
        pairs += int(np.maximum(around - apart, 0).sum())
        if pairs > MOST_PAIRS:
            return max(1, apart - 1)
    return CROWD


def _shared(sets: _Sets, first: Ids, second: Ids) -> Ids:
    """How many triples the texts of each pair share. (pairs,)"""
    sizes, shared = sets.sizes(), np.zeros(len(first), dtype=np.int64)
    parts = np.cumsum(sizes[first] + sizes[second]) // AT_ONCE
    for start, end in _runs(parts):
        for begin in range(start, end, 2**16):
            pairs = slice(begin, min(begin + 2**16, end))
            keys = []
            for texts in (first[pairs], second[pairs]):
                at = spans(sets.begins[texts], sizes[texts])
                pair = np.repeat(np.arange(len(texts), dtype=np.uint64), sizes[texts])
                keys.append((pair << np.uint64(48)) | (sets.triples[at] >> np.uint64(16)))
            both = np.sort(np.concatenate(keys))
            again = both[1:][both[1:] == both[:-1]] >> np.uint64(48)
            shared[pairs] = np.bincount(again.astype(np.int64), minlength=len(first[pairs]))
    return shared


def _runs(parts: Ids) -> Iterator[tuple[int, int]]:
    """Where equal numbers in a row begin and end."""
    bounds = [0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), len(parts)]
    return ((start, end) for start, end in itertools.pairwise(bounds) if start < end)
