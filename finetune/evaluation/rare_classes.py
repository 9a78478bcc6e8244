"""The interval of a macro average where some classes have few rows.

A macro average gives a class of two rows the weight of one of two thousand. Resampling rows cannot
say how far it may be off there: what has one right row is right in every resample, and what a
resample leaves out has no score at all. F1 is also too low on average where a class has few rows,
so that an interval around the observed value is in the wrong place.

So each class's share of right rows (among those that have the class or are given it) is a
probability of its own, as in Goutte & Gaussier 2005, "A probabilistic interpretation of precision,
recall and F-score": F1 is 2q / (1 + q) of that share q. The shares of rare classes are drawn from
one beta distribution, whose mean may rise or fall with the number of rows (a hierarchical model,
Gelman et al., "Bayesian Data Analysis", chapter 5), fitted to those classes themselves. Rows have
the weights of the Bayesian bootstrap (Rubin 1981), so that one mistake counts in both of its
classes. The interval holds 95 % of the draws, and the observed score. The set of classes is
fixed: those that some row has or is given.

`scripts/studies/interval_coverage.py` measures how often it holds the true value.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import special

from finetune.evaluation import intervals
from finetune.evaluation.intervals import Floats, Ids

FEW = 30  # rows of a class, from which on resampling says enough
DRAWS = 1000
# The grid of the beta distribution's parameters: the logit of its mean at TYPICAL rows, what a
# logarithm of rows adds to that, and how many rows it is worth.
LEVELS = np.linspace(-4, 4, 25)[:, None, None]
SLOPES = np.linspace(-1.5, 1.5, 9)[None, :, None]
STRENGTHS = np.geomspace(0.5, 64, 10)[None, None, :]
TYPICAL = 5.0

# Weights of cells (draws, cells) → right, true and predicted rows of each class, each
# (draws, classes).
Sums = Callable[[Floats], tuple[Floats, Floats, Floats]]


def rows_that_count(kind: str, right: Floats, true: Floats, predicted: Floats) -> Floats:
    """The rows of which a class's precision, recall or F1 depends on the share that is right."""
    return {"precision": predicted, "recall": true, "f1": true + predicted - right}[kind]


def has_rare_classes(kind: str, counts: Ids, sums: Sums) -> bool:
    """Whether some class that occurs has too few rows for resampling alone."""
    right, true, predicted = _observed(counts, sums)
    rows = rows_that_count(kind, right, true, predicted)
    return bool((rows[true + predicted > 0] < FEW).any())


def macro_draws(kind: str, counts: Ids, sums: Sums, draws: int = DRAWS, seed: int = 0) -> Floats:
    """Values that macro-averaged precision, recall or F1 may truly have. (draws,)

    Two classifiers of the same cells have the same weights of rows in each draw, and the same
    quantiles of their rare classes' distributions, so that their differences are paired: what is
    hard for one is most often hard for the other.

    Args:
        kind: precision, recall or f1.
        counts: rows in each cell, none of them empty. (cells,)
        sums: `Confusion.sums`.
    """
    draw = np.random.default_rng(seed)
    right, true, predicted = _observed(counts, sums)
    occurs = true + predicted > 0
    rows = rows_that_count(kind, right, true, predicted)
    is_rare = occurs & (rows < FEW)
    # A mistake is in the rows of two classes: each counts as a part of one.
    weight = min(1.0, counts.sum() / max(1.0, rows.sum()))
    means, strengths = _draw_priors(right[is_rare], rows[is_rare], weight, draw.random(draws))
    values = np.zeros(draws)
    chunk = max(1, intervals.AT_ONCE // max(3 * len(right), len(counts)))
    for start in range(0, draws, chunk):
        some = slice(start, min(draws, start + chunk))
        shape = np.tile(counts.astype(np.float64), (len(values[some]), 1))
        hits, of_true, of_predicted = sums(draw.standard_gamma(shape))
        wrong = rows_that_count(kind, hits, of_true, of_predicted) - hits
        prior = strengths[some, None]
        # As many numbers, whichever classes are rare: the other classifier's are the same.
        quantiles = draw.random((2, *hits.shape))[:, :, is_rare]
        hits[:, is_rare] += special.gammaincinv(means[some] * prior, quantiles[0])
        wrong[:, is_rare] += special.gammaincinv((1 - means[some]) * prior, quantiles[1])
        share = hits / np.maximum(hits + wrong, 1e-300)
        scores = 2 * share / (1 + share) if kind == "f1" else share
        values[some] = scores[:, occurs].mean(axis=1)
    return values


def _observed(counts: Ids, sums: Sums) -> tuple[Floats, Floats, Floats]:
    right, true, predicted = sums(counts[None].astype(np.float64))
    return right[0], true[0], predicted[0]


def _draw_priors(
    right: Floats, rows: Floats, weight: float, quantiles: Floats
) -> tuple[Floats, Floats]:
    """Beta distributions that rare classes' shares may be drawn from, by their posterior.

    Args:
        right, rows: of each rare class. (classes,)
        weight: how many rows each of `rows` counts as.
        quantiles: random numbers between 0 and 1. (draws,)

    Returns:
        The mean for each class (draws, classes), and the rows that it is worth (draws,).
    """
    posterior = -((LEVELS / 2) ** 2) / 2 - (SLOPES / 0.5) ** 2 / 2 + 0 * STRENGTHS
    pairs, classes = np.unique(np.stack([right, rows]), axis=1, return_counts=True)
    for (hits, trials), count in zip(pairs.T, classes, strict=True):
        mean = _mean(LEVELS, SLOPES, trials)
        one, other = mean * STRENGTHS, (1 - mean) * STRENGTHS
        likelihood = special.betaln(one + hits, other + trials - hits) - special.betaln(one, other)
        posterior += weight * count * likelihood
    chances: NDArray[np.float64] = np.exp(posterior - posterior.max()).ravel()
    upper = np.cumsum(chances / chances.sum())
    drawn = np.minimum(np.searchsorted(upper, quantiles), len(upper) - 1)
    level, slope, strength = np.unravel_index(drawn, posterior.shape)
    levels, slopes = LEVELS[level, 0, 0][:, None], SLOPES[0, slope, 0][:, None]
    return _mean(levels, slopes, rows), STRENGTHS[0, 0, strength]


def _mean(levels: Floats, slopes: Floats, rows: Floats | float) -> Floats:
    mean: Floats = special.expit(levels + slopes * np.log(np.maximum(rows, 1.0) / TYPICAL))
    return mean
