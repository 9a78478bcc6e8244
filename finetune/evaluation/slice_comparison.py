"""Documents of a slice against all others: by how much they are worse, and whether by chance.

    compared = Compared.of_labels(labels, predictions, ordered=False)
    compare_slices(compared, slice_of, slices)

What is compared is what a document has right or how far it is off: accuracy of labels, the absolute
error in ranks of ordered ones, the absolute error of numbers. Of accuracies, the difference has
Newcombe's interval (1998, method 10), and Fisher's exact test tells whether it is more than chance.
Of errors, it has Welch's interval (1947), and a permutation test tells it: in how many random
divisions of the documents is the difference as large (Phipson & Smyth 2010)?
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from finetune.evaluation import intervals
from finetune.evaluation.probabilities import is_correct

LEAST_DRAWS, MOST_DRAWS = 999, 9_999  # random divisions
NUMBERS_DRAWN = 20_000_000  # in all, of many documents

Floats = NDArray[np.float64]
Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Compared:
    """What slices are compared by.

    Attributes:
        metric: the metric that is its mean.
        values: of each document: 1 where it is right and else 0, or its error. (rows,)
    """

    metric: Literal["accuracy", "rank_mae", "mae"]
    values: Floats

    @classmethod
    def of_labels(
        cls, labels: NDArray[Any], predictions: NDArray[Any], ordered: bool
    ) -> "Compared":
        """
        Args:
            labels, predictions: class ids (rows,), or 0 and 1 (rows, classes), of which all must be
                right.
        """
        if ordered:
            return cls("rank_mae", np.abs(predictions - labels).astype(np.float64))
        return cls("accuracy", is_correct(labels, predictions).astype(np.float64))

    @classmethod
    def of_numbers(cls, numbers: Floats, predicted: Floats) -> "Compared":
        return cls("mae", np.abs(predicted - numbers))

    @property
    def are_errors(self) -> bool:
        """Whether more of it is worse."""
        return self.metric != "accuracy"


def compare_slices(compared: Compared, slice_of: Ids, count: int) -> list[dict[str, Any]]:
    """The mean of each slice, less that of the other documents; `p_value` is not corrected yet.

    Args:
        slice_of: which slice each document is in. (rows,)
        count: how many slices there are.
    """
    found: list[dict[str, Any]] = []
    chances = _permutation_test(compared.values, slice_of, count) if compared.are_errors else None
    for index in range(count):
        inside = slice_of == index
        own, others = compared.values[inside], compared.values[~inside]
        if not len(others):
            found.append({"difference": None, "difference_interval": None, "p_value": None})
            continue
        if chances is not None:
            interval, p_value = _welch_interval(own, others), float(chances[index])
        else:
            counts = [(int(of.sum()), len(of)) for of in (others, own)]
            table = [[right, rows - right] for right, rows in counts]
            interval = intervals.newcombe_interval(*counts)
            p_value = float(stats.fisher_exact(table).pvalue)
        difference = float(own.mean() - others.mean())
        found.append(
            {"difference": difference, "difference_interval": interval, "p_value": p_value}
        )
    return found


def _welch_interval(own: Floats, others: Floats) -> intervals.Interval | None:
    """The interval of the difference of two means; None where too few documents tell nothing."""
    if min(len(own), len(others)) < 2:
        return None
    first, second = own.var(ddof=1) / len(own), others.var(ddof=1) / len(others)
    if first + second <= 0:
        return None
    freedom = (first + second) ** 2 / (first**2 / (len(own) - 1) + second**2 / (len(others) - 1))
    half = float(stats.t.ppf((1 + intervals.LEVEL) / 2, freedom) * np.sqrt(first + second))
    difference = float(own.mean() - others.mean())
    return difference - half, difference + half


def _permutation_test(values: Floats, slice_of: Ids, count: int) -> Floats:
    """The chance that as many documents as a slice has, drawn at random, differ so. (slices,)"""
    rows = len(values)
    draws = int(np.clip(NUMBERS_DRAWN // max(1, rows), LEAST_DRAWS, MOST_DRAWS))
    expected = np.bincount(slice_of, minlength=count) * values.mean()
    apart = np.abs(np.bincount(slice_of, weights=values, minlength=count) - expected)
    apart -= intervals.ROUNDING * max(1.0, float(np.abs(values).sum()))
    as_far, draw = np.zeros(count), np.random.default_rng(0)
    for _ in range(draws):
        sums = np.bincount(slice_of, weights=draw.permutation(values), minlength=count)
        as_far += np.abs(sums - expected) >= apart
    chances: Floats = (as_far + 1) / (draws + 1)
    return chances


def find_worst(slices: Sequence[dict[str, Any]], compared: Compared) -> str | None:
    """Of the slices that are worse than the others, that which chance explains least."""
    sign = 1 if compared.are_errors else -1
    worse = [
        one for one in slices if one["difference"] is not None and sign * one["difference"] > 0
    ]
    if not worse:
        return None
    return str(min(worse, key=lambda one: (one["p_value"], -sign * one["difference"]))["value"])
