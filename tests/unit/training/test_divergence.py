"""A collapsed model is told from a slow start, by what softmax sees of its logits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.training import divergence


def test_a_collapse_is_told_from_a_slow_start():
    draw = np.random.default_rng(0)
    guess = divergence.constant_guess_loss(draw.integers(0, 3, 60), np.full(3, 1 / 3))
    assert guess == pytest.approx(np.log(3))
    constant = np.tile([4.0, 0.0, -4.0], (60, 1)) + draw.normal(0, 1e-4, (60, 3))
    assert divergence.predictions_are_constant(constant)
    assert divergence.has_collapsed(constant, 3.0, 0.1, guess, None)
    # As good as a guess: a head that has not moved yet.
    assert not divergence.has_collapsed(constant, 1.1, 0.1, guess, None)
    # Confident, wrong and different for each document: bad, but no collapse.
    assert not divergence.has_collapsed(draw.normal(0, 4, (60, 3)), 5.0, 0.1, guess, None)
    # Worse than the run was before.
    assert divergence.has_collapsed(constant, 1.09, 0.01, guess, best_loss=0.5)


@given(
    st.integers(2, 6),
    st.integers(divergence.LEAST_ROWS, 40),
    st.floats(-50, 50),
    st.integers(0, 2**32 - 1),
)
def test_what_softmax_does_not_see_does_not_matter(classes, rows, shift, seed):
    """A number added to all logits of a document changes no probability, and no verdict."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0, 1, (rows, classes)) * draw.choice([1e-3, 1]) + draw.normal(
        0, 3, classes
    )
    moved = logits + shift * draw.normal(0, 1, (rows, 1))
    ratio = divergence.spread_over_size(logits)
    assert divergence.spread_over_size(moved) == pytest.approx(ratio, rel=1e-6)


@given(st.integers(1, divergence.LEAST_ROWS - 1))
def test_a_few_documents_prove_nothing(rows):
    assert not divergence.predictions_are_constant(np.tile([9.0, 0.0], (rows, 1)))
