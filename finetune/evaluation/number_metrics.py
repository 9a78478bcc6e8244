"""True and predicted numbers → how far predictions are off.

    NUMBERS["mae"](weights, true, predicted)

Each takes how often every row counts (resamples, rows) and of each row the numbers (rows,); it
gives (resamples,). Numpy alone.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def mae(weights: Floats, true: Floats, predicted: Floats) -> Floats:
    """The mean absolute error, in the unit of the numbers."""
    mean: Floats = weights @ np.abs(predicted - true) / _rows(weights)
    return mean


def rmse(weights: Floats, true: Floats, predicted: Floats) -> Floats:
    """The root of the mean squared error, in the unit of the numbers."""
    root: Floats = np.sqrt(weights @ (predicted - true) ** 2 / _rows(weights))
    return root


def r2(weights: Floats, true: Floats, predicted: Floats) -> Floats:
    """R², the share of the numbers' variance that predictions explain: 1 perfect, 0 as good as
    their mean; 0, too, where they are all the same."""
    rows, centred = _rows(weights), true - true.mean()
    variance = weights @ centred**2 / rows - (weights @ centred / rows) ** 2
    error = weights @ (predicted - true) ** 2 / rows
    least = 1e-12 * max(float((centred**2).mean()), np.finfo(np.float64).tiny)
    explained: Floats = np.where(
        variance > least, 1 - error / np.where(variance > least, variance, 1.0), 0.0
    )
    return explained


def spearman(weights: Floats, true: Floats, predicted: Floats) -> Floats:
    """Spearman's rank correlation: 1 the same order, -1 the opposite; 0, too, where one side is
    all the same. Ranks of ties are their mean."""
    found = np.empty(len(weights))
    for i, weight in enumerate(weights):
        one, other = (_centred_ranks(values, weight) for values in (true, predicted))
        below = np.sqrt((weight @ one**2) * (weight @ other**2))
        found[i] = weight @ (one * other) / below if below > 0 else 0.0
    return found


def _centred_ranks(values: Floats, weight: Floats) -> Floats:
    """Ranks less their mean, where each row is there as often as its weight says. (rows,)"""
    _, places = np.unique(values, return_inverse=True)
    counts = np.bincount(places, weight)
    ranks = (np.cumsum(counts) - counts / 2)[places]
    centred: Floats = ranks - weight @ ranks / max(weight.sum(), 1)
    return np.where(np.abs(centred) < 1e-9, 0.0, centred)


def _rows(weights: Floats) -> Floats:
    """The rows of each resample; 1 where the jackknife leaves the only one out. (resamples,)"""
    rows: Floats = np.maximum(weights.sum(axis=1), 1)
    return rows


# The names that `score.metrics` takes with data.task number, beside those of `metrics.METRICS`.
NUMBERS: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
    "r2": r2,
    "mae": mae,
    "rmse": rmse,
    "spearman": spearman,
}
