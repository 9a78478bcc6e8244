"""Two classifiers' predictions of the same rows → which labels changed, by how much, how surely.

A label's F1 depends on the rows that have it or are given it, so the two F1 are no shares of the
same rows. What is tested is whether it matters which of the two made a prediction: each row's
predictions are exchanged with probability one half, and the p-value is how often the two F1 then
differ at least as much (Yeh 2000, "More accurate tests for the statistical significance of result
differences"). Only rows count that one of the two gives the label and the other does not. Their
exchanges are binomial, so the p-value is computed exactly; no draws are needed.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from finetune.evaluation import intervals
from finetune.evaluation.intervals import Floats, Interval

Labels = NDArray[np.int64]  # class ids (rows,); multi-label: 0 and 1 (rows, classes)
BEYOND = 8.0  # standard deviations, beyond which a binomial's probability is below 1e-14


@dataclass(frozen=True)
class LabelChange:
    """How one label's scores differ between two classifiers.

    Attributes:
        label: its class id.
        support: the rows that have it.
        f1, recall: of the first and of the second.
        f1_interval, recall_interval: of the second's minus the first's, paired by row.
        p: that F1 differs by chance alone.
    """

    label: int
    support: int
    f1: tuple[float, float]
    f1_interval: Interval
    recall: tuple[float, float]
    recall_interval: Interval
    p: float


def compare_labels(labels: Labels, ones: Labels, others: Labels, classes: int) -> list[LabelChange]:
    """The change of each label that some row has, from `ones` to `others`.

    Args:
        labels: the true ones. ones, others: the predicted ones.
    """
    columns = (labels, ones, others)
    found = []
    for label in range(classes):
        has, one, other = (
            column[:, label] > 0 if column.ndim == 2 else column == label for column in columns
        )
        cells = np.bincount(4 * has + 2 * one + other, minlength=8)
        if has.any():
            found.append(_compare(label, cells))
    return found


def _compare(label: int, cells: NDArray[np.int64]) -> LabelChange:
    """
    Args:
        cells: rows by 4 where they have the label + 2 where the first gives it + 1 where the
            second does. (8,)
    """
    support = int(cells[4:].sum())
    hits = int(cells[6] + cells[7]), int(cells[5] + cells[7])
    f1 = _f1(cells[None].astype(np.float64))[0]
    only_one, only_other = int(cells[6]), int(cells[5])
    return LabelChange(
        label,
        support,
        (float(f1[0]), float(f1[1])),
        _f1_interval(cells),
        (hits[0] / support, hits[1] / support),
        intervals.paired_interval(only_other, only_one, support),
        f1_p(cells),
    )


def _f1(cells: Floats) -> Floats:
    """Of the first and of the second. (draws, 8) → (draws, 2)"""
    true = cells[:, 4:].sum(axis=1)
    hits = np.stack([cells[:, 6] + cells[:, 7], cells[:, 5] + cells[:, 7]], axis=1)
    wrong = np.stack([cells[:, 2] + cells[:, 3], cells[:, 1] + cells[:, 3]], axis=1)
    f1: Floats = 2 * hits / np.maximum(true[:, None] + hits + wrong, 1e-12)
    return f1


def _f1_interval(cells: NDArray[np.int64]) -> Interval:
    """Of the difference: the Bayesian bootstrap's, as in `confusion.paired_difference`."""
    occurring = np.flatnonzero(cells)

    def gap(some: Floats) -> Floats:
        every = np.zeros((len(some), 8))
        every[:, occurring] = some
        f1 = _f1(every)
        return f1[:, 1] - f1[:, 0]

    observed = float(gap(cells[None, occurring].astype(np.float64))[0])
    found = intervals.bayesian_interval(cells[occurring], gap, width=8)
    apart, concerned = int(cells[[1, 2, 5, 6]].sum()), int(cells[1:].sum())
    if concerned < intervals.FEW_ROWS or intervals.is_point(found):  # no interval is a point
        better, worse = int(cells[2] + cells[5]), int(cells[1] + cells[6])
        found = intervals.hull(found, intervals.paired_interval(better, worse, concerned))
    if apart < intervals.LEAST_APART:
        found = intervals.hull(found, (0.0, 0.0))
    return intervals.hull(found, (observed, observed))


def f1_p(cells: NDArray[np.int64]) -> float:
    """The p-value of a label's difference in F1.

    Args:
        cells: as of `_compare`.
    """
    both_right, both_wrong = int(cells[7]), int(cells[3])
    true = int(cells[4:].sum())
    right, wrong = int(cells[5] + cells[6]), int(cells[1] + cells[2])  # one of the two gives it

    def gap(hits: NDArray[np.int64], misses: NDArray[np.int64]) -> Floats:
        """Of F1, where the first has so many of the rows that one of the two gives the label."""
        first = 2 * (both_right + hits) / (true + both_right + hits + both_wrong + misses)
        hits, misses = right - hits, wrong - misses
        second = 2 * (both_right + hits) / (true + both_right + hits + both_wrong + misses)
        apart: Floats = np.abs(first - second)
        return apart

    observed = gap(np.array([cells[6]]), np.array([cells[2]]))[0] - 1e-12
    misses, of_misses = _exchanges(wrong)
    p = sum(
        chance * float(of_misses[gap(np.array([hit]), misses) >= observed].sum())
        for hit, chance in _pairs(*_exchanges(right))
    )
    return min(1.0, p)


def _exchanges(rows: int) -> tuple[NDArray[np.int64], Floats]:
    """How many of some rows fall to the first by chance, and the probability of each number."""
    reach = BEYOND * np.sqrt(rows) / 2
    numbers = np.arange(
        max(0, int(rows / 2 - reach)), min(rows, int(np.ceil(rows / 2 + reach))) + 1
    )
    return numbers, stats.binom.pmf(numbers, rows, 0.5)


def _pairs(numbers: NDArray[np.int64], chances: Floats) -> Iterator[tuple[int, float]]:
    return zip(numbers.tolist(), chances.tolist(), strict=True)
