"""Validation's probabilities → from which probability on each label is given.

Where a row may have several labels, one half is a poor threshold for a rare one: an honest
probability of it seldom gets there. What serves F1 best lies lower.
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune import run_folder

Floats = NDArray[np.float64]


def choose(chances: Floats, labels: NDArray[np.int8]) -> Floats:
    """One for each class. (classes,)

    Args:
        chances: of validation. (rows, classes)
        labels: 0 and 1. (rows, classes)
    """
    order = np.argsort(-chances, axis=0, kind="stable")
    hits = np.take_along_axis(labels, order, axis=0).cumsum(axis=0, dtype=np.int64)
    given = np.arange(1, len(labels) + 1)[:, None]
    f1: Floats = 2 * hits / (given + labels.sum(axis=0))
    best: Floats = f1.max(axis=0) / 2
    return best


def save(folder: Path, thresholds: Floats) -> None:
    """Put them into a saved model's config.json, under `document.thresholds`."""
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["document"] = config.get("document") or {}
    config["document"]["thresholds"] = [round(float(value), 6) for value in thresholds]
    run_folder.write_whole(file, json.dumps(config, indent=2, ensure_ascii=False) + "\n")
