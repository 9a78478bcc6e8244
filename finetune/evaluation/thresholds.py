"""Probabilities of labelled rows → from which probability on each label is given.

Where a row may have several labels, one half is a poor threshold for a rare one: an honest
probability of it seldom gets there, and what serves F1 best lies lower. A threshold that is tuned
for each class alone follows the accidents of a few rows. So there is one for all classes, and a
class gets one of its own only where that does better on rows that it was not tuned on. Without
validation, train's own probabilities choose the one for all.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.runtime import atomic_files

FOLDS = 5
FEWEST = 2 * FOLDS  # rows that have a class; with fewer, folds say nothing of it
GRID = np.arange(1, 100) / 100

Floats = NDArray[np.float64]


def choose_per_label(chances: Floats, labels: NDArray[Any]) -> Floats:
    """The threshold of each class. (classes,)

    The shared one makes macro-F1 best. A class's own is the mean of those that make its F1 best on
    all folds but one; it is taken where the F1 of what it decides on the fold left out, over all
    five, is better than with the shared one.

    Args:
        chances: of validation. (rows, classes)
        labels: 0 and 1. (rows, classes)
    """
    has = labels > 0
    found = choose_shared(chances, labels)
    fold = np.random.default_rng(0).permutation(len(labels)) % FOLDS
    for c in np.flatnonzero(has.sum(axis=0) >= FEWEST):
        p, y = chances[:, c], has[:, c]
        cuts = np.array([_best(p[fold != k], y[fold != k]) for k in range(FOLDS)])
        if _f1(p >= cuts[fold], y) > _f1(p >= found[c], y):
            found[c] = cuts.mean()
    return found


def choose_shared(chances: Floats, labels: NDArray[Any]) -> Floats:
    """One for all classes: from the grid, that of the best mean F1 of the classes that occur. Where
    it may be chosen on train, as nothing else is there: a class's own would be learnt by heart. Of
    rows that are learnt by heart, it comes out too high.

    Args:
        chances, labels: as of `choose`.
    """
    has = labels > 0
    there = has.any(axis=0)
    if not there.any():
        return np.full(chances.shape[1], 0.5)
    scores = [_f1(chances[:, there] >= cut, has[:, there]).mean() for cut in GRID]
    best = np.flatnonzero(np.array(scores) == max(scores))
    return np.full(chances.shape[1], GRID[best[len(best) // 2]])  # the middle of a plateau


def _f1(given: NDArray[np.bool_], has: NDArray[np.bool_]) -> Any:
    """Of each class; 0 where nothing is given and nothing there. (classes,), or one number"""
    both = given.sum(axis=0) + has.sum(axis=0)
    return 2 * (given & has).sum(axis=0) / np.maximum(both, 1)


def _best(chances: Floats, has: NDArray[np.bool_]) -> float:
    """The threshold of one class with the best F1: halfway between two rows' probabilities."""
    order = np.argsort(-chances, kind="stable")
    ranked = chances[order]
    f1 = 2 * has[order].cumsum() / (np.arange(1, len(has) + 1) + has.sum())
    last = np.append(np.diff(ranked) < 0, True)  # rows of equal probability go together
    end = int(np.where(last, f1, -1.0).argmax())
    below = ranked[end + 1] if end + 1 < len(ranked) else 0.0
    return float(ranked[end] + below) / 2


def save_thresholds(folder: Path, thresholds: Floats) -> None:
    """Put them into a saved model's config.json, under `document.thresholds`."""
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["document"] = config.get("document") or {}
    config["document"]["thresholds"] = [float(value) for value in thresholds]
    atomic_files.write_text(file, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
