"""Scores of validation → whether the model has collapsed: the same prediction for every document.

SGD at too high a rate drives an encoder to where its output no longer depends on its input. Only
the head's bias learns from there on: the loss stays finite, wanders above that of a guess, and the
run never recovers. In 20 runs over BBC articles (scripts/studies/collapse_study.py) the logits'
spread over the documents, relative to their size, ended at 0.002 or less in those that collapsed,
and was never below 0.37 in those that learned. An encoder whose outputs are nearly equal to begin
with looks the same in its first steps, but its loss does not exceed a guess's.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation import probabilities

LEAST_ROWS = 8  # fewer documents may agree by chance
SAME = 0.01  # spread over size
WORSE = 1.05  # what is worse than a guess by less may be a slow start


def spread_over_size(logits: NDArray[np.floating[Any]], multi_label: bool = False) -> float:
    """How much logits differ between documents, relative to how large they are.

    Args:
        logits: (rows, classes)
        multi_label: whether a row may have several labels.
    """
    wide = logits.astype(np.float64)
    # Softmax sees no more than the differences between a row's logits; a sigmoid sees each alone.
    centred = wide if multi_label else wide - wide.mean(axis=1, keepdims=True)
    size = float(np.abs(centred.mean(axis=0)).max())
    spread = float(centred.std(axis=0).max())
    return spread / size if size > 0 else math.inf


def predictions_are_constant(logits: NDArray[np.floating[Any]], multi_label: bool = False) -> bool:
    """Whether the logits do not depend on the document. logits: (rows, classes)"""
    return len(logits) >= LEAST_ROWS and spread_over_size(logits, multi_label) < SAME


def constant_guess_loss(labels: NDArray[Any], train_shares: NDArray[np.float64]) -> float:
    """The loss of the worse guess: all classes equally likely, or as likely as in train.

    Args:
        labels: the true classes (rows,); multi-label: 0 and 1 (rows, classes).
        train_shares: the share of train's rows that have each class. (classes,)
    """
    if labels.ndim == 2:
        shares = np.clip(train_shares, 1e-12, 1 - 1e-12)
        logits = np.tile(np.log(shares / (1 - shares)), (len(labels), 1))
        nats = float(probabilities.row_losses(logits, labels).mean())
        return max(len(train_shares) * math.log(2), nats)
    even = math.log(len(train_shares))
    return max(even, float(-np.log(np.maximum(train_shares[labels], 1e-12)).mean()))


def is_worse(loss: float, loss_se: float, bar: float) -> bool:
    """Whether a mean loss, with its standard error, is above another by more than chance."""
    return loss > WORSE * bar + 2 * loss_se


def has_collapsed(
    logits: NDArray[np.floating[Any]],
    loss: float,
    loss_se: float,
    guess: float,
    best_loss: float | None,
    multi_label: bool = False,
) -> bool:
    """Whether predictions are constant, and worse than a guess or than the run's own before.

    Args:
        loss, loss_se: the mean over the documents and its standard error.
        guess: the loss of a guess.
        best_loss: of the best scoring before; None at the first.
    """
    bar = guess if best_loss is None else min(guess, best_loss)
    return predictions_are_constant(logits, multi_label) and is_worse(loss, loss_se, bar)
