"""Logits → probabilities, in numpy alone."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities from logits, row by row. (rows, classes)"""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    odds = np.exp(shifted)
    result: NDArray[np.float64] = odds / odds.sum(axis=1, keepdims=True)
    return result


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities from logits, each for itself. (rows, classes)"""
    halved = np.tanh(logits.astype(np.float64) / 2)  # never overflows
    result: NDArray[np.float64] = (1 + halved) / 2
    return result


def to_probabilities(logits: NDArray[Any], several: bool) -> NDArray[np.float64]:
    """Of each class: one of them is true, or each may be. (rows, classes)"""
    return sigmoid(logits) if several else softmax(logits)
