"""Labels + seed + epoch → the rows of each of its steps.

Everything here is a pure function. The rows of a step depend on the seed, the epoch and the step
alone: not on how many processes share them, nor on how much memory there is.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from finetune.data import splitting
from finetune.data.number_scale import bin_numbers, is_number
from finetune.tokenization.token_table import Rows


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Steps that pass over all rows once; the last may be short."""
    return -(-rows // batch_size)


def epoch_steps(
    labels: NDArray[Any],
    sampling: Literal["uniform", "balanced", "stratified"],
    batch_size: int,
    seed: int,
    epoch: int,
) -> list[Rows]:
    """The global batch of each step of an epoch. (≤ batch_size,) each

    In all three, a row is as likely in one step as in any other, so a step's gradient has no bias
    towards some of the rows that the epoch takes.

    Args:
        labels: class ids (rows,), or 0 and 1 (rows, classes).
        sampling: uniform, a sample without replacement; balanced, as of `epoch_order`;
            stratified, as of `deal_stratified`.
    """
    if sampling == "stratified":
        return deal_stratified(
            strata(labels), steps_per_epoch(len(labels), batch_size), seed, epoch
        )
    groups = rows_by_class(labels) if sampling == "balanced" else None
    order = epoch_order(len(labels), seed, epoch, groups)
    return [step_rows(order, batch_size, s) for s in range(steps_per_epoch(len(order), batch_size))]


def epoch_order(rows: int, seed: int, epoch: int, groups: Sequence[Rows] | None = None) -> Rows:
    """The order in which an epoch visits the rows: a uniform permutation. (rows,)

    With groups of rows, each group has the same share of an epoch's places, whatever its size. Its
    rows come in shuffled rounds that go on from epoch to epoch: a row of a large group is not
    passed over for good, and one of a small group comes again only after all others of it have.

    Args:
        groups: the rows of each group, as of `rows_by_class`.
    """
    draw = np.random.default_rng([seed, epoch])
    if groups is None:
        return draw.permutation(rows)
    ends = np.arange(len(groups) + 1) * rows // len(groups)
    chosen = []
    for group, (members, places) in enumerate(zip(groups, np.diff(ends), strict=True)):
        first, last = epoch * places, (epoch + 1) * places  # of the group's endless row of rounds
        rounds = range(first // len(members), -(-last // len(members)))
        shuffled = [np.random.default_rng([seed, group, r]).permutation(members) for r in rounds]
        start = first - rounds.start * len(members)
        if places:
            chosen.append(np.concatenate(shuffled)[start : start + places])
    return draw.permutation(np.concatenate(chosen))


def rows_by_class(labels: NDArray[Any]) -> list[Rows]:
    """The rows of each class that has some, for an order that is balanced over the classes.

    Multi-label: a row is in the group of each of its labels; rows without any label are a group of
    their own.

    Args:
        labels: class ids (rows,), or 0 and 1 (rows, classes).
    """
    if labels.ndim == 1:
        return [np.flatnonzero(labels == c) for c in np.unique(labels)]
    groups = [*(labels.T > 0), ~(labels > 0).any(axis=1)]
    return [np.flatnonzero(group) for group in groups if group.any()]


def deal_stratified(groups: Sequence[Rows], steps: int, seed: int, epoch: int) -> list[Rows]:
    """All rows of some groups, each once, dealt to the steps like cards. (≤ rows / steps + 1,) each

    A group of n rows has n / steps rows in each step, rounded up or down: none is missing from a
    step by chance. Steps have as many rows as one another, but for one.
    """
    draw = np.random.default_rng([seed, epoch])
    shuffled = [draw.permutation(groups[g]) for g in draw.permutation(len(groups))]
    line, first = np.concatenate(shuffled), int(draw.integers(steps))
    return [line[(step + first) % steps :: steps] for step in range(steps)]


def strata(labels: NDArray[Any]) -> list[Rows]:
    """The rows of each class that has some, each row once: of several labels, with its rarest.

    Of numbers, those of each tenth.

    Args:
        labels: class ids (rows,), or 0 and 1 (rows, classes).
    """
    classes = bin_numbers(labels) if is_number(labels) else splitting.rarest_labels(labels)
    return rows_by_class(classes)


def step_rows(order: Rows, batch_size: int, step: int) -> Rows:
    """The global batch of a step: a uniform sample without replacement. (≤ batch_size,)"""
    return order[step * batch_size : (step + 1) * batch_size]
