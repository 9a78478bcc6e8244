"""Scores of validation → whether the model has collapsed: the same answer to every document.

SGD at too high a rate drives an encoder to where its output no longer depends on its input. Only
the head's bias learns from there on: the loss stays finite, wanders above that of a guess, and the
run never recovers. The logits' spread over the documents is then a hundredth of their size or less.
An encoder whose outputs are much alike to begin with looks the same
in its first steps, but its loss does not exceed a guess's.
"""

import math

import numpy as np
from numpy.typing import NDArray

LEAST_ROWS = 8  # fewer documents may be alike by chance
SAME = 0.01  # spread over size
WORSE = 1.05  # what is worse than a guess by less may be a slow start


def answers_alike(logits: NDArray[np.float32]) -> bool:
    """Whether the logits do not depend on the document. logits: (rows, classes)"""
    if len(logits) < LEAST_ROWS:
        return False
    centred = logits.astype(np.float64) - logits.mean(axis=1, keepdims=True, dtype=np.float64)
    size = float(np.abs(centred.mean(axis=0)).max())  # softmax sees only what is centred
    spread = float(centred.std(axis=0).max())
    return spread < SAME * size


def has_collapsed(
    logits: NDArray[np.float32],
    labels: NDArray[np.int64],
    train_shares: NDArray[np.float64],
    loss: float,
    loss_se: float,
    best_loss: float | None,
) -> bool:
    """Whether answers are alike, and worse than a guess or than the run's own before.

    Args:
        labels: the true classes. (rows,)
        train_shares: the share of each class in train. (classes,)
        loss, loss_se: the mean over the documents and its standard error.
        best_loss: of the best scoring before; None at the first.
    """
    if not answers_alike(logits):
        return False
    guesses = [
        math.log(len(train_shares)),  # all classes equally likely
        float(-np.log(np.maximum(train_shares[labels], 1e-12)).mean()),  # likely as in train
    ]
    bar = max(guesses) if best_loss is None else min(max(guesses), best_loss)
    return loss > WORSE * bar + 2 * loss_se
