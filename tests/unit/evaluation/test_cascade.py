"""Which threshold of a cascade is chosen, for any answers of its two models."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluation.cascade import choose_threshold

ROWS = st.lists(
    st.tuples(st.integers(-1, 20).map(lambda n: n / 20), st.booleans(), st.booleans()),
    min_size=1,
    max_size=60,
)


def accuracy(scores, student, teacher, threshold):
    return np.where(scores >= threshold, student, teacher).mean()


@given(ROWS, st.sampled_from([0.0, 0.01, 0.05, 0.2]))
def test_neither_the_threshold_nor_a_higher_one_loses_more(rows, max_loss):
    scores, student, teacher = (np.array(column) for column in zip(*rows, strict=True))
    found = choose_threshold(scores, student, teacher, max_loss)
    answered = sorted({score for score in scores if score >= 0}, reverse=True)
    lost = [teacher.mean() - accuracy(scores, student, teacher, one) for one in answered]
    allowed = [i for i in range(len(lost)) if max(lost[: i + 1]) <= max_loss + 1e-9]
    if not allowed:
        assert found is None
        return
    assert found.threshold == answered[allowed[-1]]
    assert found.share == pytest.approx((scores >= found.threshold).mean())
    assert found.accuracy == pytest.approx(accuracy(scores, student, teacher, found.threshold))
    assert found.lost[0] <= found.teacher_accuracy - found.accuracy <= found.lost[1]


def test_a_model_that_abstains_answers_nothing():
    wrong = np.array([False, False])
    assert choose_threshold(np.array([-1.0, -1.0]), wrong, ~wrong, 1.0) is None
