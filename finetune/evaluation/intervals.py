"""How certain a score is: 95 % intervals over documents.

The rows of a test split are a sample of the documents that the model will meet. Another sample
would give another score; an interval says how far off this one may be. One method for each kind of
number:

- a share of rows (accuracy, top-k accuracy, micro averages; a class's recall and precision):
  Wilson 1927, which never leaves 0 to 1 and holds for a few rows and for shares near 1.
- what is computed from the confusion matrix (macro and weighted averages, Matthews correlation):
  the bias-corrected and accelerated bootstrap (Efron 1987, "Better bootstrap confidence
  intervals"), 2,000 resamples of rows. A resample of rows is a multinomial draw of the matrix's
  cells, so it costs the same for a thousand rows and for a million.
- a mean over rows (loss): the same bootstrap, of the rows.

Multi-label, a cell holds the rows of one true and one predicted set of labels; micro averages are
computed from these too, as they are no share of rows.

`tests/unit/evaluation/test_intervals.py` measures how often each holds the true value. Which metric
has which interval is `confusion.metric_intervals`.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special

RESAMPLES = 2000
LEVEL = 0.95
MANY_CELLS = 2_000  # of which the jackknife leaves out each; of more, of as many drawn at random
NORMAL_FROM = 20_000  # rows from which on a resample's mean is drawn from a normal distribution
AT_ONCE = 4_000_000  # numbers held at a time: resamples are drawn in chunks of that size

Interval = tuple[float, float]
Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
# Weights of cells (resamples, cells) → a value for each resample.
Statistic = Callable[[Floats], Floats]


def wilson_interval(share: float, rows: int, z: float = 1.96) -> Interval:
    """The interval of a share of independent rows; of no rows at all, everything is possible."""
    if rows == 0:
        return 0.0, 1.0
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_interval(values: Floats, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The interval of the mean of independent draws. (rows,)"""
    rows = len(values)
    draw = np.random.default_rng(seed)
    if rows > NORMAL_FROM:
        means = values.mean() + values.std() / math.sqrt(rows) * draw.normal(size=resamples)
        return bca_interval(float(values.mean()), means, values - values.mean(), np.ones(rows))
    chunk = max(1, AT_ONCE // max(1, rows))
    chunks = [
        values[draw.integers(0, rows, (min(chunk, resamples - start), rows))].mean(axis=1)
        for start in range(0, resamples, chunk)
    ]
    deviations = values - values.mean()
    return bca_interval(float(values.mean()), np.concatenate(chunks), deviations, np.ones(rows))


def cells_interval(
    counts: Ids, statistic: Statistic, resamples: int = RESAMPLES, seed: int = 0, width: int = 1
) -> Interval:
    """The interval of a statistic of rows that fall into cells, such as a confusion matrix's.

    Args:
        counts: rows in each cell, none of them empty. (cells,)
        width: numbers that the statistic holds for each resample.
    """
    draw = np.random.default_rng(seed)
    rows = int(counts.sum())
    chunk = max(1, AT_ONCE // max(width, len(counts)))
    resampled = [
        statistic(
            draw.multinomial(rows, counts / rows, min(chunk, resamples - start)).astype(np.float64)
        )
        for start in range(0, resamples, chunk)
    ]
    # The jackknife: one row less in a cell, as often as the cell has rows.
    left_out = np.arange(len(counts))
    if len(counts) > MANY_CELLS:
        left_out = draw.choice(len(counts), MANY_CELLS, replace=False)
    less = []
    for some in np.array_split(left_out, -(-len(left_out) // chunk)):
        without = np.tile(counts.astype(np.float64), (len(some), 1))
        without[np.arange(len(some)), some] -= 1
        less.append(statistic(without))
    influence, weights = np.concatenate(less), counts[left_out].astype(np.float64)
    influence = np.average(influence, weights=weights) - influence
    value = float(statistic(counts[None].astype(np.float64))[0])
    weights *= rows / weights.sum()
    return bca_interval(value, np.concatenate(resampled), influence, weights)


def bca_interval(value: float, resampled: Floats, influence: Floats, weights: Floats) -> Interval:
    """Efron's interval: quantiles of the resamples, moved by their bias and by their skew.

    Args:
        value: the statistic of the rows themselves.
        resampled: of each resample. (resamples,)
        influence: how much each row adds to the statistic, around 0. (rows,)
        weights: how many rows are meant by each. (rows,)
    """
    resampled = resampled[np.isfinite(resampled)]
    if len(resampled) == 0 or resampled.min() == resampled.max():
        return value, value
    # Ties count half: scores of few rows take few values.
    below = ((resampled < value).mean() + (resampled <= value).mean()) / 2
    below = float(np.clip(below, 1 / (2 * len(resampled)), 1 - 1 / (2 * len(resampled))))
    bias = special.ndtri(below)
    spread = float((weights * influence**2).sum())
    skew = float((weights * influence**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    ends = []
    for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2):
        at = bias + special.ndtri(tail)
        ends.append(float(np.quantile(resampled, special.ndtr(bias + at / (1 - skew * at)))))
    return ends[0], ends[1]


def newcombe_interval(before: tuple[int, int], after: tuple[int, int]) -> Interval:
    """The interval of the difference of two independent shares, the later minus the earlier.

    Newcombe 1998, "Interval estimation for the difference between independent proportions", method
    10: each share's own Wilson interval, put together. Like these, it holds for a few rows, and
    never leaves -1 to 1.

    Args:
        before, after: each how many rows have it, of how many rows.
    """
    (one, of_one), (two, of_two) = before, after
    first, second = one / max(1, of_one), two / max(1, of_two)
    low_1, high_1 = wilson_interval(first, of_one)
    low_2, high_2 = wilson_interval(second, of_two)
    gap = second - first
    return (
        gap - math.hypot(second - low_2, high_1 - first),
        gap + math.hypot(high_2 - second, first - low_1),
    )


def correct_p_values(values: Sequence[float]) -> list[float]:
    """The p-values of several tests, corrected by Holm 1979: more of them are small by chance.

    The smallest is multiplied by their number, the next by one less, and so on.
    """
    corrected, least = [0.0] * len(values), 0.0
    for rank, i in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
        least = max(least, min(1.0, values[i] * (len(values) - rank)))
        corrected[i] = least
    return corrected
