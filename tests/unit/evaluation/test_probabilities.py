"""Softmax, sigmoid and the losses against torch's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from finetune.evaluation import probabilities

LOGITS = arrays(np.float32, (4, 3), elements=st.floats(-80, 80, width=32))


@given(LOGITS)
def test_softmax_and_sigmoid(logits):
    exact = torch.from_numpy(logits.astype(np.float64))
    np.testing.assert_allclose(probabilities.softmax(logits), exact.softmax(1), atol=1e-12)
    np.testing.assert_allclose(probabilities.sigmoid(logits), exact.sigmoid(), atol=1e-12)


def test_logits_of_any_size_do_not_overflow():
    with np.errstate(over="raise", invalid="raise"):
        assert probabilities.softmax(np.array([[1e4, -1e4]])).tolist() == [[1, 0]]
        assert probabilities.sigmoid(np.array([[1e4, -1e4]])).tolist() == [[1, 0]]


@given(LOGITS)
def test_losses_of_rows(logits):
    exact = torch.from_numpy(logits.astype(np.float64))
    classes = np.array([0, 1, 2, 0])
    expected = F.cross_entropy(exact, torch.from_numpy(classes), reduction="none")
    np.testing.assert_allclose(probabilities.row_losses(logits, classes), expected, atol=1e-6)
    sets = np.array([[1, 0, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]])
    expected = F.binary_cross_entropy_with_logits(
        exact, torch.from_numpy(sets).double(), reduction="none"
    ).sum(1)
    np.testing.assert_allclose(probabilities.row_losses(logits, sets), expected, atol=1e-6)


def test_predictions():
    logits = np.array([[0.0, 2.0], [1.0, -1.0]])
    assert probabilities.predict_labels(logits).tolist() == [1, 0]
    assert probabilities.predict_labels(logits, multi_label=True).tolist() == [[1, 1], [1, 0]]
    strict = np.array([0.9, 0.1])
    assert probabilities.predict_labels(logits, True, strict).tolist() == [[0, 1], [0, 1]]


@pytest.mark.parametrize(
    ("labels", "predictions", "expected"),
    [([0, 1], [0, 0], [True, False]), ([[1, 0], [1, 1]], [[1, 0], [1, 0]], [True, False])],
)
def test_a_multi_label_prediction_is_right_in_all_or_not_at_all(labels, predictions, expected):
    found = probabilities.is_correct(np.array(labels), np.array(predictions))
    assert found.tolist() == expected
