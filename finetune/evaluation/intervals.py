"""How certain a score is: 95 % intervals over documents.

The rows of a test split are a sample of the documents that the model will meet. Another sample
would give another score; an interval says how far off this one may be. One method for each kind of
number:

- a share of rows (accuracy, also top-k, of a level and within one rank, micro averages; a class's
  recall and precision): Wilson 1927, which never leaves 0 to 1 and holds for a few rows and for
  shares near 1. A class's F1 is 2q / (1 + q) of such a share q.
- what is computed from the confusion matrix (macro and weighted averages, Matthews correlation):
  the bias-corrected and accelerated bootstrap (Efron 1987, "Better bootstrap confidence
  intervals"), 2,000 resamples of rows. A resample of rows is a multinomial draw of the matrix's
  cells, so it costs the same for a thousand rows and for a million. Where a class has fewer than
  30 rows, macro averages have the interval of `rare_classes.py`.
- a mean over rows (loss): the same bootstrap, of the rows; of few rows also Student's.
- a difference of two accuracies on the same rows: Bonett & Price 2012, "Adjusted Wald confidence
  intervals for a difference of binomial proportions based on paired data", which adds a row to
  each side; it holds 0 unless McNemar's exact test tells the two apart. Of other metrics:
  `confusion.paired_difference`.

No interval is a point. What all rows agree on may be otherwise for the next row, and resampling
them does not show that: of fewer than 20 rows, an interval of a score is at least Wilson's.

Multi-label, a cell holds the rows of one true and one predicted set of labels; micro averages are
computed from these too, as they are no share of rows.

`tests/unit/evaluation/test_intervals.py` measures how often each holds the true value. Which metric
has which interval is `confusion.metric_intervals`.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

RESAMPLES = 2000
LEVEL = 0.95
MANY_CELLS = 2_000  # of which the jackknife leaves out each; of more, of as many drawn at random
NORMAL_FROM = 20_000  # rows from which on a resample's mean is drawn from a normal distribution
FEW_ROWS = 20  # of which resampling alone says too little
LEAST_APART = 6  # rows: 2 / 2^6 < 0.05
ROUNDING = 1e-9  # of the largest value, or of 1: a spread below it is that of the arithmetic
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


def score_interval(value: float, rows: int, lowest: float = 0.0) -> Interval:
    """Wilson's interval for the mean of scores between `lowest` and 1.

    Of all scores between two ends, those at the ends vary most, as those of a share do.
    """
    low, high = wilson_interval((value - lowest) / (1 - lowest), rows)
    return lowest + (1 - lowest) * low, lowest + (1 - lowest) * high


def is_point(interval: Interval) -> bool:
    """Whether its ends are the same but for rounding."""
    return interval[1] - interval[0] < 1e-9


def hull(one: Interval, other: Interval) -> Interval:
    """The smallest interval that holds both."""
    return min(one[0], other[0]), max(one[1], other[1])


def f1_interval(right: int, rows: int) -> Interval:
    """The interval of a class's F1.

    F1 grows with the share that is right of the rows that have the class or are given it.

    Args:
        right: rows that have it and are given it.
        rows: rows that have it or are given it.
    """
    low, high = wilson_interval(right / max(1, rows), rows)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def paired_interval(only_one: int, only_other: int, rows: int, z: float = 1.96) -> Interval:
    """The interval of a difference of two accuracies on the same rows.

    Args:
        only_one, only_other: rows that only one, or only the other, has right.
    """
    difference = (only_one - only_other) / (rows + 2)
    apart = (only_one + only_other + 2) / (rows + 2)
    half = z * math.sqrt(max(0.0, apart - difference**2) / (rows + 2))
    found = max(-1.0, difference - half), min(1.0, difference + half)
    differs = mcnemar_p(only_one, only_other) < 1 - LEVEL
    observed = (only_one - only_other) / max(1, rows)
    return hull(hull(found, (observed, observed)), found if differs else (0.0, 0.0))


def mcnemar_p(only_one: int, only_other: int) -> float:
    """McNemar's exact test (1947): of the rows that only one of two has right, is the share of each
    more than chance?"""
    apart = only_one + only_other
    return float(stats.binomtest(only_one, apart).pvalue) if apart else 1.0


def mean_interval(values: Floats, resamples: int = RESAMPLES, seed: int = 0) -> Interval | None:
    """The interval of the mean of independent draws of 0 or more. (rows,)

    None where they are all the same up to rounding, which says nothing of how far they spread, and
    where one is infinite, as the loss of a label that the model does not know is.
    """
    rows = len(values)
    if rows == 0 or not np.isfinite(values).all():
        return None
    if np.ptp(values) <= ROUNDING * max(1.0, float(np.abs(values).max())):
        return None
    if rows < FEW_ROWS:
        spread = values.std(ddof=1) / math.sqrt(rows)
        half = float(stats.t.ppf((1 + LEVEL) / 2, rows - 1) * spread)
        students = max(0.0, float(values.mean()) - half), float(values.mean()) + half
        return hull(students, _bootstrap_mean(values, resamples, seed))
    return _bootstrap_mean(values, resamples, seed)


def _bootstrap_mean(values: Floats, resamples: int, seed: int) -> Interval:
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


def bayesian_interval(
    counts: Ids, statistic: Statistic, draws: int = RESAMPLES, seed: int = 0, width: int = 1
) -> Interval:
    """The interval of a statistic of rows in cells, by the Bayesian bootstrap (Rubin 1981).

    Each row has a random weight, and none is left out.

    Args:
        counts, width: as of `cells_interval`.
    """
    draw = np.random.default_rng(seed)
    chunk = max(1, AT_ONCE // max(width, len(counts)))
    values = np.concatenate(
        [
            statistic(
                draw.standard_gamma(
                    np.tile(counts.astype(np.float64), (min(chunk, draws - start), 1))
                )
            )
            for start in range(0, draws, chunk)
        ]
    )
    return middle(values)


def middle(drawn: Floats) -> Interval:
    """The ends of the middle 95 % of what was drawn."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


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
        max(-1.0, gap - math.hypot(second - low_2, high_1 - first)),
        min(1.0, gap + math.hypot(high_2 - second, first - low_1)),
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
