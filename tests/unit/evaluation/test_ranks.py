"""Metrics of ordered labels, against scikit-learn and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from finetune.evaluation import confusion, intervals, metrics, ranks

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


@given(pairs)
def test_they_are_those_of_scikit_learn(rows):
    true, predicted = (np.array(column) for column in zip(*rows, strict=True))
    table = confusion.Confusion.from_labels(true, predicted, 5)
    distance = np.abs(true - predicted)
    assert table.observed("rank_mae") == pytest.approx(sk.mean_absolute_error(true, predicted))
    assert table.observed("within_one_accuracy") == pytest.approx((distance <= 1).mean())
    with np.errstate(invalid="ignore"):
        expected = sk.cohen_kappa_score(true, predicted, labels=[*range(5)], weights="quadratic")
    expected = 0.0 if np.isnan(expected) else expected
    assert table.observed("quadratic_weighted_kappa") == pytest.approx(expected, abs=1e-9)
    for name in ranks.RANKS:
        value = metrics.build_metric(name).compute(predictions=predicted, references=true)
        assert value[name] == pytest.approx(table.observed(name), abs=1e-9)


def test_intervals_hold_the_value_and_stay_in_range():
    draw = np.random.default_rng(0)
    true = draw.integers(0, 5, 120)
    predicted = np.clip(true + draw.integers(-1, 2, 120), 0, 4)
    table = confusion.Confusion.from_labels(true, predicted, 5)
    for name, (lowest, highest) in {
        "rank_mae": (0, 4), "within_one_accuracy": (0, 1), "quadratic_weighted_kappa": (-1, 1),
    }.items():  # fmt: skip
        low, high = table.interval(name)
        assert lowest <= low <= table.observed(name) <= high <= highest
        assert high - low < 0.4


def test_the_accuracy_within_one_rank_has_the_interval_of_a_share_of_rows():
    true, predicted = np.random.default_rng(0).integers(0, 5, (2, 50))
    table = confusion.Confusion.from_labels(true, predicted, 5)
    expected = intervals.wilson_interval(table.observed("within_one_accuracy"), 50)
    assert table.interval("within_one_accuracy") == pytest.approx(expected)


def test_an_error_is_better_where_it_is_lower():
    assert metrics.is_better("rank_mae", {"rank_mae": 0.2}, {"rank_mae": 0.3})
    assert not metrics.is_better(
        "within_one_accuracy", {"within_one_accuracy": 0.2}, {"within_one_accuracy": 0.3}
    )
    with pytest.raises(ValueError, match="one label each"):
        metrics.build_metric("rank_mae", True).compute(predictions=[[1, 0]], references=[[1, 0]])


def test_of_one_predicted_label_kappa_is_nought_and_its_interval_no_point():
    labels, guesses = np.arange(40) % 5, np.full(40, 2)
    table = confusion.Confusion.from_labels(labels, guesses, 5)
    assert table.observed("quadratic_weighted_kappa") == 0
    low, high = table.interval("quadratic_weighted_kappa")
    assert low < -0.05 < 0.05 < high
