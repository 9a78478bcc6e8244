"""The chosen thresholds against trying every one."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from finetune.evaluation import thresholds

ROWS = st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=1, max_size=30)


@given(ROWS)
def test_one_class_gets_the_threshold_of_the_best_f1(rows):
    probabilities = np.array([p / 10 for p, _ in rows])
    has = np.array([y for _, y in rows])
    threshold = thresholds._best_threshold(probabilities, has)
    reached = f1_score(has, probabilities >= threshold, zero_division=0)
    every = [f1_score(has, probabilities >= t, zero_division=0) for t in np.linspace(0, 1.05, 106)]
    assert reached == pytest.approx(max(every))


@given(st.integers(0, 1000))
def test_the_shared_threshold_has_the_best_mean_f1_of_the_grid(seed):
    draw = np.random.default_rng(seed)
    probabilities, labels = draw.random((20, 3)), draw.integers(0, 2, (20, 3))
    labels[:, 2] = 0  # a class that does not occur counts for nothing
    [threshold, *others] = thresholds.choose_shared(probabilities, labels)
    assert others == [threshold, threshold]

    def mean_f1(t):
        scores = [f1_score(labels[:, c], probabilities[:, c] >= t) for c in (0, 1)]
        return np.mean(scores)

    assert mean_f1(threshold) == pytest.approx(max(map(mean_f1, thresholds.GRID)))


def test_without_any_label_it_stays_at_one_half():
    nothing = thresholds.choose_shared(np.full((4, 2), 0.9), np.zeros((4, 2)))
    assert nothing.tolist() == [0.5, 0.5]


def test_a_class_of_few_rows_keeps_the_shared_threshold():
    draw = np.random.default_rng(0)
    labels = np.zeros((200, 2), np.int8)
    labels[:100, 0] = 1
    labels[: thresholds.MIN_SUPPORT - 1, 1] = 1
    probabilities = np.clip(0.3 * labels + draw.normal(0.3, 0.1, labels.shape), 0, 1)
    chosen = thresholds.choose_per_label(probabilities, labels)
    assert chosen[1] == thresholds.choose_shared(probabilities, labels)[1]


def test_they_are_saved_with_the_model(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"a": 1, "document": {"max_length": 9}}))
    thresholds.save_thresholds(tmp_path, np.array([0.25, 0.5]))
    assert json.loads((tmp_path / "config.json").read_text()) == {
        "a": 1,
        "document": {"max_length": 9, "thresholds": [0.25, 0.5]},
    }
