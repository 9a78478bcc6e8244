"""Intervals of numbers: those that predictions have, and those of their scores over documents.

- A prediction interval by split conformal prediction (Lei et al. 2018, arXiv 1604.04173): half its
  width is the k-th smallest of n absolute errors on validation, k = ⌈(n + 1) · coverage⌉. It holds
  the true number of a new document of the same kind with at least that probability, whatever the
  model is.
- A score's interval over documents: the bias-corrected and accelerated bootstrap of `intervals.py`,
  of the rows; that of Spearman's correlation by Fisher's z with the variance of Bonett & Wright
  2000, "Sample size requirements for estimating Pearson, Kendall and Spearman correlations".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation import intervals
from finetune.evaluation.number_metrics import NUMBERS
from finetune.evaluation.probabilities import row_losses

Floats = NDArray[np.float64]
MOST_ROWS = 2_000  # that are resampled; of more, as many drawn at random tell the width


@dataclass(frozen=True)
class NumberInterval:
    """A prediction less and plus half a width.

    Attributes:
        coverage: the share of documents whose number it should hold.
        half_width: in the unit of the numbers.
    """

    coverage: float
    half_width: float

    @classmethod
    def choose(cls, errors: Floats, coverage: float) -> "NumberInterval | None":
        """The narrowest that holds as many as asked for; None where rows are too few to tell.

        Args:
            errors: of rows that the model was not fitted on. (rows,)
        """
        rank = math.ceil((len(errors) + 1) * coverage - 1e-9)
        if rank > len(errors):
            return None
        return cls(coverage, float(np.sort(np.abs(errors))[rank - 1]))

    def holds(self, errors: Floats) -> NDArray[np.bool_]:
        """Whether it holds the true number. (rows,)"""
        within: NDArray[np.bool_] = np.abs(errors) <= self.half_width
        return within


def score_intervals(
    names: Sequence[str], logits: NDArray[np.float32], numbers: Floats, deviation: float
) -> dict[str, intervals.Interval | None]:
    """The 95 % interval of each metric by name, and of the `loss`.

    Args:
        logits: the predictions. (rows, 1)
        deviation: of train's numbers.
    """
    predicted = logits[:, 0].astype(np.float64)
    found = {name: _score_interval(name, numbers, predicted) for name in names}
    return found | {"loss": intervals.mean_interval(row_losses(logits, numbers, deviation))}


def paired_difference(
    name: str, numbers: Floats, predicted: Floats, others: Floats
) -> dict[str, float | intervals.Interval]:
    """How much higher a metric of `predicted` is than that of `others`, paired by row."""
    weights = np.ones((1, len(numbers)))
    difference = float((_score(name, weights, numbers, predicted, others))[0])
    kept, scale = _sample(len(numbers))
    numbers, predicted, others = numbers[kept], predicted[kept], others[kept]
    middle = float(_score(name, np.ones((1, len(kept))), numbers, predicted, others)[0])
    low, high = intervals.bayesian_interval(
        np.ones(len(kept), dtype=np.int64),
        lambda w: _score(name, w, numbers, predicted, others),
        width=len(kept),
    )
    ends = difference + scale * (low - middle), difference + scale * (high - middle)
    if np.count_nonzero(predicted != others) < intervals.LEAST_APART:
        ends = intervals.hull(ends, (0.0, 0.0))
    return {"difference": difference, "interval": intervals.hull(ends, (difference, difference))}


def _score(name: str, weights: Floats, numbers: Floats, one: Floats, other: Floats) -> Floats:
    of = NUMBERS[name]
    difference: Floats = of(weights, numbers, one) - of(weights, numbers, other)
    return difference


def _score_interval(name: str, numbers: Floats, predicted: Floats) -> intervals.Interval | None:
    rows = len(numbers)
    value = float(NUMBERS[name](np.ones((1, rows)), numbers, predicted)[0])
    if rows < 5 or numbers.min() == numbers.max():
        return None  # of so few, nothing tells how far they spread
    if name == "spearman":
        half = 1.96 * math.sqrt((1 + value**2 / 2) / (rows - 3))
        z = math.atanh(min(max(value, -1 + 1e-9), 1 - 1e-9))
        return intervals.hull((math.tanh(z - half), math.tanh(z + half)), (value, value))
    kept, scale = _sample(rows)
    true, given = numbers[kept], predicted[kept]
    low, high = intervals.cells_interval(
        np.ones(len(kept), dtype=np.int64), lambda w: NUMBERS[name](w, true, given), width=len(kept)
    )
    middle = float(NUMBERS[name](np.ones((1, len(kept))), true, given)[0])
    ends = value + scale * (low - middle), value + scale * (high - middle)
    return intervals.hull(ends, (value, value))


def _sample(rows: int) -> tuple[NDArray[np.int64], float]:
    """The rows that are resampled, and what the width of their interval is multiplied by."""
    if rows <= MOST_ROWS:
        return np.arange(rows), 1.0
    kept = np.sort(np.random.default_rng(0).choice(rows, MOST_ROWS, replace=False))
    return kept, math.sqrt(MOST_ROWS / rows)
