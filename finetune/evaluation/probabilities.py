"""Logits → probabilities, predictions and the loss of each row, in numpy alone."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.number_scale import is_number


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities from logits, row by row. (rows, classes)"""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    odds = np.exp(shifted)
    result: NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
    return result


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities from logits, each class by itself. (rows, classes)"""
    halved = np.tanh(logits.astype(np.float64) / 2)  # never overflows
    result: NDArray[np.float64] = (1 + halved) / 2
    return result


def divide_logits(
    logits: NDArray[Any], divisor: float | NDArray[np.float64], ordered: bool = False
) -> NDArray[np.float64]:
    """The logits of a model whose head is divided by a temperature.

    Of ordered labels the logits are log-probabilities, which are made of the head's outputs (see
    `modeling_document_classifier.py`): these are found again, divided, and make the new ones.

    Args:
        logits: (rows, classes)
        divisor: one, or (rows, 1).
    """
    if not ordered:
        divided: NDArray[np.float64] = logits / divisor
        return divided
    log_p = logits.astype(np.float64)
    # of each label the logarithm of the probability of that label and all above it
    reached = np.logaddexp.accumulate(log_p[:, ::-1], axis=1)[:, ::-1]
    outputs = (reached[:, 1:] - log_p[:, :-1]) / divisor
    above = np.cumsum(-np.logaddexp(0.0, -outputs), axis=1)
    stays = -np.logaddexp(0.0, outputs)
    found: NDArray[np.float64] = np.pad(above, ((0, 0), (1, 0))) + np.pad(stays, ((0, 0), (0, 1)))
    return found


def to_probabilities(logits: NDArray[Any], multi_label: bool) -> NDArray[np.float64]:
    """Of each class: by a softmax, or multi-label by a sigmoid of each. (rows, classes)"""
    return sigmoid(logits) if multi_label else softmax(logits)


def predict_labels(
    logits: NDArray[Any], multi_label: bool = False, thresholds: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """The predictions of logits (rows, classes): each row's class id (rows,).

    Multi-label: 0 and 1 for each class (rows, classes), 1 where its probability is at least its
    threshold.

    Args:
        thresholds: of each class (classes,), or of each class in each row (rows, classes); None:
            one half.
    """
    if not multi_label:
        classes: NDArray[np.int64] = logits.argmax(axis=1)
        return classes
    predicted = sigmoid(logits) >= (0.5 if thresholds is None else thresholds)
    return predicted.astype(np.int64)


def row_losses(
    logits: NDArray[Any], labels: NDArray[Any], deviation: float = 1.0
) -> NDArray[np.float64]:
    """Cross-entropy of each row, in nats: -log of the true label's probability. (rows,)

    Multi-label: binary cross-entropy summed over the classes, -log of the probability of just that
    set of labels.

    Of numbers, the squared error, as a multiple of their variance.

    Args:
        labels: class ids (rows,), 0 and 1 for each class (rows, classes), or numbers (rows,).
        deviation: of train's numbers.
    """
    if is_number(labels):
        squares: NDArray[np.float64] = ((logits[:, 0].astype(np.float64) - labels) / deviation) ** 2
        return squares
    if labels.ndim == 2:
        signed = np.where(labels > 0, -1.0, 1.0) * logits.astype(np.float64)
        summed: NDArray[np.float64] = np.logaddexp(0.0, signed).sum(axis=1)
        return summed
    true = softmax(logits)[np.arange(len(labels)), labels]
    result: NDArray[np.float64] = -np.log(np.maximum(true, np.finfo(np.float64).tiny))
    return result


def is_correct(labels: NDArray[Any], predictions: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each row's prediction is right; multi-label: in all of its labels. (rows,)"""
    same = np.equal(labels, predictions)
    return np.asarray(same.all(axis=1) if same.ndim == 2 else same)
