"""Texts, labels and a seed → which rows are cut from a pool for test and for validation.

The cut is stratified by label, keeps identical texts together, and is the same on every machine.
"""

import math
from collections.abc import Sequence

import numpy as np

STAYS = -1


def carve(
    texts: Sequence[str], labels: Sequence[int], fractions: Sequence[float], seed: int
) -> np.ndarray:
    """Cut shares of a pool, one after the other, stratified by label.

    Rows of the same text (white space at the ends aside) are one group and go to one side; a
    group's class is its first row's. Each cut takes `round(fraction × groups)` groups, shared over
    the classes by largest remainder. One group with each label, drawn at random, always stays, so
    no class leaves the pool. Each cut draws from a stream of its own: changing a fraction leaves
    the cuts before it as they were.

    Args:
        texts: (rows,)
        labels: (rows,) class ids
        fractions: the share of the whole pool for each cut; 0 cuts nothing
        seed: of PCG64

    Returns:
        (rows,) int64: the index of the cut each row belongs to, or STAYS.
    """
    group_of: dict[str, int] = {}
    groups = np.array([group_of.setdefault(text.strip(), len(group_of)) for text in texts], int)
    count = len(group_of)
    label_of = np.asarray(labels, dtype=np.int64)
    _, first_rows = np.unique(groups, return_index=True)
    classes = label_of[first_rows]  # (groups,)

    free = np.ones(count, dtype=bool)
    free[_anchors(groups, label_of, _shuffle(count, seed, 0))] = False
    taken = np.full(count, STAYS, dtype=np.int64)
    for cut, fraction in enumerate(fractions):
        order = _shuffle(count, seed, 1 + cut)
        order = order[free[order]]
        names, sizes = np.unique(classes, return_counts=True)
        members = [order[classes[order] == name] for name in names]
        shares = _shares(
            sizes * fraction,
            math.floor(count * fraction + 0.5),
            [len(member) for member in members],
            _shuffle(len(names), seed, 1001 + cut),
        )
        for member, share in zip(members, shares, strict=True):
            taken[member[:share]] = cut
            free[member[:share]] = False
    cuts: np.ndarray = taken[groups]
    return cuts


def draw(rows: int, most: int | None, seed: int, stream: int) -> np.ndarray:
    """At most `most` of `rows` row indices, drawn uniformly, in ascending order."""
    if most is None or most >= rows:
        return np.arange(rows)
    return np.sort(_shuffle(rows, seed, 2001 + stream)[:most])


def _anchors(groups: np.ndarray, labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """For each label, the group with such a row that comes first in `order`."""
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    by_label = np.lexsort((rank[groups], labels))
    _, starts = np.unique(labels[by_label], return_index=True)
    anchors: np.ndarray = groups[by_label[starts]]
    return anchors


def _shares(
    quotas: np.ndarray, total: int, room: Sequence[int], tie_break: np.ndarray
) -> list[int]:
    """Whole numbers near `quotas` that sum to `total`, each within `room` (largest remainder)."""
    shares = [min(math.floor(quota), most) for quota, most in zip(quotas, room, strict=True)]
    order = sorted(
        range(len(shares)), key=lambda i: (math.floor(quotas[i]) - quotas[i], tie_break[i])
    )
    missing = min(total, sum(room)) - sum(shares)
    while missing > 0:
        for i in order:
            if missing > 0 and shares[i] < room[i]:
                shares[i] += 1
                missing -= 1
    return shares


def _shuffle(count: int, seed: int, stream: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64([seed, stream])).permutation(count)
