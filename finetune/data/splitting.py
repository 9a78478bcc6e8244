"""Texts, labels and a seed → which rows are cut from a pool for test and for validation.

The cut is stratified by label, keeps identical texts together, and is the same on every machine.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STAYS = -1


def carve(
    keys: np.ndarray, labels: np.ndarray, fractions: Sequence[float], seed: int
) -> np.ndarray:
    """Cut shares of a pool, one after the other, stratified by label.

    Rows of the same key are one group and go to one side; a group's class is its first row's. Each
    cut takes `round(fraction × groups)` groups, shared over
    the classes by largest remainder. One group with each label, drawn at random, always stays, so
    no class leaves the pool. Each cut draws from a stream of its own: changing a fraction leaves
    the cuts before it as they were.

    Where rows may have several labels, each cut is stratified by all of them, the rarest first
    (Sechidis et al. 2011, "On the stratification of multi-label data"), and may lack a few groups.

    Args:
        keys: what tells documents apart, as numbers or as texts. (rows,)
        labels: (rows,) class ids, or 0 and 1 (rows, classes)
        fractions: the share of the whole pool for each cut; 0 takes nothing
        seed: of PCG64

    Returns:
        (rows,) int64: the index of the cut each row belongs to, or STAYS.
    """
    _, first_rows, groups = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first_rows)  # groups count in the order in which they first come
    groups, first_rows = np.argsort(order)[groups], first_rows[order]
    count = len(first_rows)
    label_of = np.asarray(labels, dtype=np.int64)
    multi_label = label_of.ndim == 2
    classes = label_of[first_rows]  # (groups,)

    free = np.ones(count, dtype=bool)
    free[_anchors(groups, label_of, _shuffle(count, seed, 0))] = False
    taken = np.full(count, STAYS, dtype=np.int64)
    for cut, fraction in enumerate(fractions):
        order = _shuffle(count, seed, 1 + cut)
        order = order[free[order]]
        total = math.floor(count * fraction + 0.5)
        if multi_label:
            chosen = _rarest_first(classes > 0, order, fraction, total)
            taken[chosen] = cut
            free[chosen] = False
            continue
        names, sizes = np.unique(classes, return_counts=True)
        members = [order[classes[order] == name] for name in names]
        shares = _shares(
            sizes * fraction,
            total,
            [len(member) for member in members],
            _shuffle(len(names), seed, 1001 + cut),
        )
        for member, share in zip(members, shares, strict=True):
            taken[member[:share]] = cut
            free[member[:share]] = False
    assigned: np.ndarray = taken[groups]
    return assigned


def assign_folds(keys: np.ndarray, labels: np.ndarray, many: int, seed: int) -> np.ndarray:
    """Deal a pool into parts of like size, each with its share of each label.

    Rows of the same key go to one part, as in `carve`. Of several labels a row, its rarest counts.

    Args:
        keys, labels, seed: as of `carve`.

    Returns:
        (rows,) int64: 0 … many - 1.
    """
    _, first_rows, groups = np.unique(keys, return_index=True, return_inverse=True)
    line = _shuffle(len(first_rows), seed, 3001)
    line = line[np.argsort(rarest_labels(labels)[first_rows[line]], kind="stable")]
    parts = np.empty(len(line), dtype=np.int64)
    parts[line] = np.arange(len(line)) % many
    part_of: np.ndarray = parts[groups]
    return part_of


def carve_groups(
    keys: np.ndarray, labels: np.ndarray, fractions: Sequence[float], seed: int
) -> np.ndarray:
    """Cut shares of a pool of groups whose sizes differ, one after the other.

    As `carve`, but a cut has about its fraction of each label's rows, not of groups: in random
    order, a group is taken where that brings the cut nearer to these (the sum of squares over the
    labels).

    Args, Returns: as of `carve`.
    """
    groups, counts = _count_by_group(keys, labels)
    many = len(counts.starts) - 1
    free = np.ones(many, dtype=bool)
    free[_anchors(groups, np.asarray(labels), _shuffle(many, seed, 0))] = False
    taken = np.full(many, STAYS, dtype=np.int64)
    for cut, fraction in enumerate(fractions):
        missing = counts.totals() * fraction
        order = _shuffle(many, seed, 1 + cut)
        for group in order[free[order]]:
            names, own = counts.of(group)
            if 2 * missing[names] @ own > own @ own:
                missing[names] -= own
                taken[group], free[group] = cut, False
    assigned: np.ndarray = taken[groups]
    return assigned


def deal_groups(keys: np.ndarray, labels: np.ndarray, many: int, seed: int) -> np.ndarray:
    """Deal a pool of groups whose sizes differ into parts, each with about its share of each label.

    The largest first, each goes where most of its labels' rows are missing.

    Args, Returns: as of `assign_folds`.
    """
    groups, counts = _count_by_group(keys, labels)
    sizes = np.bincount(groups)
    order = _shuffle(len(sizes), seed, 3001)
    order = order[np.argsort(-sizes[order], kind="stable")]
    # What each part lacks of each label and in all, times `many`: whole numbers, so ties are exact.
    missing = np.tile(counts.totals(), (many, 1))
    room = np.full(many, len(groups))
    parts = np.empty(len(sizes), dtype=np.int64)
    for group in order:
        names, own = counts.of(group)
        part = int(np.lexsort((-room, -(missing[:, names] @ own)))[0])
        parts[group] = part
        missing[part, names] -= many * own
        room[part] -= many * own.sum()
    part_of: np.ndarray = parts[groups]
    return part_of


@dataclass(frozen=True)
class _LabelCounts:
    """The rows of each label in each group, of the labels alone that the group has.

    Groups and labels may be many, so the table of all of them does not fit into memory.

    Attributes:
        starts: where each group's labels begin in `names`, and the end. (groups + 1,)
        names: ascending within a group.
        rows: of that label in that group; of several labels, a row counts for each.
    """

    starts: np.ndarray
    names: np.ndarray
    rows: np.ndarray

    def of(self, group: int) -> tuple[np.ndarray, np.ndarray]:
        """The labels of a group, and how many rows it has of each."""
        own = slice(self.starts[group], self.starts[group + 1])
        return self.names[own], self.rows[own]

    def totals(self) -> np.ndarray:
        """The rows of each label. (labels,)"""
        totals = np.zeros(int(self.names.max(initial=0)) + 1, dtype=np.int64)
        np.add.at(totals, self.names, self.rows)
        return totals


def _count_by_group(keys: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, _LabelCounts]:
    """Each row's group (rows,), and the rows of each label, and without, in each."""
    _, first_rows, groups = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first_rows)
    groups = np.argsort(order)[groups]
    if labels.ndim == 1:
        rows, names = np.arange(len(labels)), np.unique(labels, return_inverse=True)[1].reshape(-1)
    else:
        rows, names = np.nonzero(labels > 0)
        without = np.flatnonzero(np.bincount(rows, minlength=len(labels)) == 0)
        rows = np.concatenate([rows, without])
        names = np.concatenate([names, np.full(len(without), labels.shape[1])])
    width = int(names.max(initial=0)) + 1
    pairs, counts = np.unique(groups[rows] * width + names, return_counts=True)
    starts = np.searchsorted(pairs // width, np.arange(len(first_rows) + 1))
    return groups, _LabelCounts(starts, pairs % width, counts)


def cut_latest(times: np.ndarray, fractions: Sequence[float]) -> np.ndarray:
    """Cut the latest share of a pool, then the latest of what is left, and so on.

    Rows of the same time go to one side, so a cut may have more or fewer rows than its fraction;
    the earliest time always stays.

    Args:
        times: (rows,)
        fractions: as of `carve`.

    Returns:
        (rows,) int64: the index of the cut each row belongs to, or STAYS.
    """
    side = np.full(len(times), STAYS, dtype=np.int64)
    for cut, fraction in enumerate(fractions):
        left = np.flatnonzero(side == STAYS)
        wanted = math.floor(len(times) * fraction + 0.5)
        moments, counts = np.unique(times[left], return_counts=True)
        if not wanted or len(moments) < 2:
            continue
        taken = counts[::-1].cumsum()[:-1]  # by how many of the latest times are cut off
        many = int(np.abs(taken - wanted).argmin()) + 1
        side[left[times[left] >= moments[-many]]] = cut
    return side


def rarest_labels(labels: np.ndarray) -> np.ndarray:
    """One class id for each row: its own; of several, that of the fewest rows; of none, another.

    Args:
        labels: class ids (rows,), or 0 and 1 (rows, classes).
    """
    if labels.ndim == 1:
        return labels
    has = labels > 0
    found = np.where(has, has.sum(axis=0), len(labels) + 1).argmin(axis=1)
    one: np.ndarray = np.where(has.any(axis=1), found, labels.shape[1])
    return one


def draw(rows: int, most: int | None, seed: int, stream: int) -> np.ndarray:
    """At most `most` of `rows` row indices, drawn uniformly, in ascending order."""
    if most is None or most >= rows:
        return np.arange(rows)
    return np.sort(_shuffle(rows, seed, 2001 + stream)[:most])


def _anchors(groups: np.ndarray, labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """For each label, the group with such a row that comes first in `order`."""
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    if labels.ndim == 2:
        ranks = rank[groups]
        of_each = [np.flatnonzero(has) for has in labels.T > 0 if has.any()]
        return np.array([groups[rows[ranks[rows].argmin()]] for rows in of_each], dtype=np.int64)
    by_label = np.lexsort((rank[groups], labels))
    _, starts = np.unique(labels[by_label], return_index=True)
    anchors: np.ndarray = groups[by_label[starts]]
    return anchors


def _rarest_first(sets: np.ndarray, order: np.ndarray, fraction: float, total: int) -> np.ndarray:
    """Groups for a cut that has about `fraction` of each label's, and `total` in all.

    The label with the fewest groups left is dealt with first, as it has the least room; what the
    cut gets with it of other labels counts for those. Groups without a label are dealt with too.

    Args:
        sets: the labels of all groups. (groups, labels) bool
        order: the groups that may be taken, shuffled.
    """
    sets = np.column_stack([sets, ~sets.any(axis=1)])
    missing = sets.sum(axis=0) * fraction
    left = order
    chosen = np.zeros(0, dtype=np.int64)
    while len(left):
        counts = sets[left].sum(axis=0)
        there = np.flatnonzero(counts)
        label = there[counts[there].argmin()]
        has = sets[left, label]
        room = total - len(chosen)
        many = room if has.all() else min(room, math.floor(missing[label] + 0.5))
        found = left[has][: max(0, many)]
        missing = missing - sets[found].sum(axis=0)
        chosen, left = np.concatenate([chosen, found]), left[~has]
    return chosen


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
