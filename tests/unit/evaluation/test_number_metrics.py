"""Metrics of numbers against scikit-learn and scipy, their intervals, and prediction intervals."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

from finetune.evaluation import metrics, number_intervals, number_metrics, probabilities
from finetune.evaluation.number_intervals import NumberInterval

whole = st.integers(-9, 9).map(float)
pairs = st.lists(st.tuples(whole, whole), min_size=2, max_size=40)


@given(pairs)
def test_they_are_those_of_the_libraries(rows):
    true, predicted = (np.array(column) for column in zip(*rows, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rank = stats.spearmanr(true, predicted).statistic
    expected = {
        "mae": sk.mean_absolute_error(true, predicted),
        "rmse": np.sqrt(sk.mean_squared_error(true, predicted)),
        "r2": sk.r2_score(true, predicted) if len({*true}) > 1 else 0.0,
        "spearman": 0.0 if np.isnan(rank) else rank,
    }
    weights = np.ones((1, len(true)))
    for name, value in expected.items():
        found = number_metrics.NUMBERS[name](weights, true, predicted)[0]
        assert found == pytest.approx(value, abs=1e-9)
        computed = metrics.build_metric(name).compute(predictions=predicted, references=true)
        assert computed[name] == pytest.approx(found)


@given(pairs, st.integers(0, 99))
def test_a_weight_is_how_often_a_row_is_there(rows, seed):
    true, predicted = (np.array(column) for column in zip(*rows, strict=True))
    weights = np.random.default_rng(seed).integers(0, 4, len(true))
    weights[0] += 1
    again = np.repeat(np.arange(len(true)), weights)
    for metric in number_metrics.NUMBERS.values():
        weighted = metric(weights[None].astype(float), true, predicted)[0]
        if metric is number_metrics.r2 and len({*true[again]}) < 2:
            assert weighted == 0
            continue
        repeated = metric(np.ones((1, len(again))), true[again], predicted[again])[0]
        assert weighted == pytest.approx(repeated, abs=1e-9)


def test_intervals_hold_the_value_and_narrow_with_rows():
    draw = np.random.default_rng(0)
    widths = []
    for rows in (60, 3000):
        true = draw.normal(10, 3, rows)
        logits = (true + draw.normal(0, 1, rows)).astype(np.float32)[:, None]
        found = number_intervals.score_intervals([*number_metrics.NUMBERS], logits, true, 3.0)
        assert set(found) == {*number_metrics.NUMBERS, "loss"}
        values = metrics.measure(
            [metrics.build_metric(name) for name in number_metrics.NUMBERS], logits, true
        )
        for name, value in values.items():
            low, high = found[name]
            assert low <= value <= high
        widths.append({name: high - low for name, (low, high) in found.items()})
    assert all(widths[1][name] < 0.5 * widths[0][name] for name in widths[0])
    few = number_intervals.score_intervals(
        ["r2"], np.zeros((3, 1), np.float32), np.arange(3.0), 1.0
    )
    assert few["r2"] is None


def test_a_paired_difference_says_which_is_better():
    draw = np.random.default_rng(0)
    true = draw.normal(size=200)
    good, poor = true + draw.normal(0, 0.3, 200), true + draw.normal(0, 0.9, 200)
    gap = number_intervals.paired_difference("r2", true, good, poor)
    low, high = gap["interval"]
    assert 0 < low < gap["difference"] < high
    assert number_intervals.paired_difference("r2", true, good, good) == {
        "difference": 0.0, "interval": (0.0, 0.0),
    }  # fmt: skip


def test_an_interval_holds_as_many_new_documents_as_it_says():
    """Split conformal: over many draws, at least the coverage, and hardly more."""
    draw = np.random.default_rng(0)
    shares = []
    for _ in range(400):
        interval = NumberInterval.choose(draw.standard_t(3, 60), 0.8)
        shares.append(interval.holds(draw.standard_t(3, 200)).mean())
    assert 0.795 <= np.mean(shares) <= 0.825
    assert NumberInterval.choose(np.arange(9.0), 0.9) == NumberInterval(0.9, 8.0)
    assert NumberInterval.choose(np.arange(8.0), 0.9) is None  # too few rows to say


def test_the_loss_is_in_multiples_of_the_variance():
    losses = probabilities.row_losses(np.array([[3.0], [5.0]]), np.array([1.0, 5.0]), 2.0)
    assert losses.tolist() == [1.0, 0.0]
    assert metrics.is_better("mae", {"mae": 1.0}, {"mae": 2.0})
    assert metrics.is_better("r2", {"r2": 0.5}, {"r2": 0.4})
