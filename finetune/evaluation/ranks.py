"""True and predicted ranks of ordered labels → by how much predictions are off.

    RANKS["rank_mae"](counts, true, predicted)

Each takes the rows of each cell of a confusion matrix (resamples, cells), and of each cell the
class ids (cells,), which are ranks; it gives (resamples,). Numpy alone.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ids = NDArray[Any]


def rank_mae(cells: Floats, true: Ids, predicted: Ids) -> Floats:
    """The mean absolute error in ranks: 0 perfect, 1 on average off by one label."""
    total: Floats = cells @ np.abs(true - predicted).astype(np.float64) / _rows(cells)
    return total


def within_one_accuracy(cells: Floats, true: Ids, predicted: Ids) -> Floats:
    """The share of texts that are given their own label or one beside it."""
    share: Floats = cells @ (np.abs(true - predicted) <= 1).astype(np.float64) / _rows(cells)
    return share


def quadratic_weighted_kappa(cells: Floats, true: Ids, predicted: Ids) -> Floats:
    """Agreement beyond chance, where an error counts by the square of its distance (Cohen 1968).

    1 perfect, 0 no better than chance; 0, too, where there is only one label in all.
    """
    rows = _rows(cells)
    t, p = true.astype(np.float64), predicted.astype(np.float64)
    observed = cells @ (t - p) ** 2 / rows
    # By chance, the true and the predicted rank are independent, each as often as it occurs.
    chance = (cells @ t**2 + cells @ p**2) / rows - 2 * (cells @ t / rows) * (cells @ p / rows)
    kappa: Floats = np.where(chance > 1e-12, 1 - observed / np.maximum(chance, 1e-12), 0.0)
    return np.where(np.abs(kappa) < 1e-12, 0.0, kappa)  # of one label throughout, rounding is left


def _rows(cells: Floats) -> Floats:
    """The rows of each resample; 1 where the jackknife leaves the only one out. (resamples,)"""
    rows: Floats = np.maximum(cells.sum(axis=1), 1)
    return rows


# The names that `score.metrics` takes, beside those of `metrics.METRICS`.
RANKS: dict[str, Callable[[Floats, Ids, Ids], Floats]] = {
    "quadratic_weighted_kappa": quadratic_weighted_kappa,
    "rank_mae": rank_mae,
    "within_one_accuracy": within_one_accuracy,
}
