"""Probabilities of labelled rows → from which probability on each label is predicted.

In multi-label data, one half is a poor threshold for a rare label: a calibrated probability of it
seldom gets there, and the threshold of the best F1 lies lower. A threshold that is tuned
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
MIN_SUPPORT = 2 * FOLDS  # rows of a class; with fewer, folds say nothing about it
GRID = np.arange(1, 100) / 100

Floats = NDArray[np.float64]


def choose_per_label(probabilities: Floats, labels: NDArray[Any]) -> Floats:
    """The threshold of each class. (classes,)

    The shared one makes macro-F1 best. A class's own is the mean of those that make its F1 best on
    all folds but one; it is taken where the F1 of what it decides on the fold left out, over all
    five, is better than with the shared one.

    Args:
        probabilities: of validation. (rows, classes)
        labels: 0 and 1. (rows, classes)
    """
    has = labels > 0
    chosen = choose_shared(probabilities, labels)
    fold = np.random.default_rng(0).permutation(len(labels)) % FOLDS
    for c in np.flatnonzero(has.sum(axis=0) >= MIN_SUPPORT):
        p, y = probabilities[:, c], has[:, c]
        candidates = np.array([_best_threshold(p[fold != k], y[fold != k]) for k in range(FOLDS)])
        if _f1(p >= candidates[fold], y) > _f1(p >= chosen[c], y):
            chosen[c] = candidates.mean()
    return chosen


def choose_shared(probabilities: Floats, labels: NDArray[Any]) -> Floats:
    """One for all classes: from the grid, that of the best mean F1 of the classes that occur.

    Without validation it may be chosen on train, where a class's own threshold would overfit. On
    rows that the model has memorized, even the shared one comes out too high.

    Args:
        probabilities, labels: as of `choose_per_label`.
    """
    has = labels > 0
    there = has.any(axis=0)
    if not there.any():
        return np.full(probabilities.shape[1], 0.5)
    scores = [_f1(probabilities[:, there] >= threshold, has[:, there]).mean() for threshold in GRID]
    best = np.flatnonzero(np.array(scores) == max(scores))
    return np.full(probabilities.shape[1], GRID[best[len(best) // 2]])  # the middle of a plateau


def _f1(predicted: NDArray[np.bool_], has: NDArray[np.bool_]) -> Any:
    """Of each class; 0 where nothing is predicted and nothing true. (classes,), or one number"""
    both = predicted.sum(axis=0) + has.sum(axis=0)
    return 2 * (predicted & has).sum(axis=0) / np.maximum(both, 1)


def _best_threshold(probabilities: Floats, has: NDArray[np.bool_]) -> float:
    """The threshold of one class with the best F1: halfway between two rows' probabilities."""
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order]
    f1 = 2 * has[order].cumsum() / (np.arange(1, len(has) + 1) + has.sum())
    last = np.append(np.diff(ranked) < 0, True)  # rows of equal probability go together
    end = int(np.where(last, f1, -1.0).argmax())
    below = ranked[end + 1] if end + 1 < len(ranked) else 0.0
    return float(ranked[end] + below) / 2


def save_thresholds(folder: Path, thresholds: Floats) -> None:
    """Put them into a saved model's config.json, under `document.thresholds`."""
    _save(folder, "thresholds", [float(value) for value in thresholds])


def save_abstention(folder: Path, threshold: float) -> None:
    """Put the probability below which a saved model predicts no label into its config.json, under
    `document.abstain_below`."""
    _save(folder, "abstain_below", threshold)


def save_interval(folder: Path, coverage: float, half_width: float) -> None:
    """Put the prediction interval of a model of numbers into its config.json, under
    `document.interval`."""
    _save(folder, "interval", [coverage, half_width])


def save_out_of_scope(folder: Path) -> None:
    """Note in its config.json that a saved model tells documents out of scope."""
    _save(folder, "out_of_scope", True)


def _save(folder: Path, key: str, value: Any) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["document"] = (config.get("document") or {}) | {key: value}
    atomic_files.write_text(file, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
