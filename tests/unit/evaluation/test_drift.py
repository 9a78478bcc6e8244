"""What has changed between two sets of scored rows: published values, and error rates by chance."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluation.analysis_model import LengthBucket
from finetune.evaluation.drift import (
    SIGNIFICANT,
    ScoredRows,
    compare_counts,
    compare_shares,
    measure_drift,
)
from finetune.evaluation.intervals import correct_p_values, newcombe_interval


@pytest.mark.parametrize(
    ("before", "after", "low", "high"),
    # Newcombe 1998, table II, method 10: two of its examples.
    [((48, 80), (56, 70), 0.0524, 0.3339), ((3, 10), (9, 10), 0.1705, 0.8090)],
)
def test_newcombe_gives_the_published_intervals(before, after, low, high):
    found = newcombe_interval(before, after)
    assert found == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@given(st.integers(1, 60), st.integers(1, 60), st.data())
def test_an_interval_holds_the_difference_and_turns_with_it(one, two, data):
    before, after = data.draw(st.integers(0, one)), data.draw(st.integers(0, two))
    low, high = newcombe_interval((before, one), (after, two))
    assert -1 <= low <= after / two - before / one <= high <= 1
    turned = newcombe_interval((after, two), (before, one))
    assert turned == (pytest.approx(-high), pytest.approx(-low))
    assert 0 < compare_shares((before, one), (after, two)) <= 1 + 1e-9


def test_p_values_are_corrected_by_holm():
    assert correct_p_values([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert correct_p_values([0.9, 0.8]) == [1.0, 1.0]
    assert correct_p_values([]) == []


def test_counts_by_length():
    assert compare_counts(np.array([[50, 50], [50, 50]])) == 1.0
    assert compare_counts(np.array([[50, 50], [90, 10]])) < 1e-6
    few = compare_counts(np.array([[3, 0], [0, 3]]))  # 2 of 20 divisions are as far apart
    assert few == pytest.approx(0.1, abs=0.02)
    assert compare_counts(np.array([[5, 0], [7, 0]])) == 1.0
    assert compare_counts(np.array([[5, 3], [0, 0]])) == 1.0


def bucket(shortest, longest, rows):
    return LengthBucket(shortest=shortest, longest=longest, rows=rows, accuracy=1,
                        accuracy_interval=(0, 1), truncated=0)  # fmt: skip


def scored(generator, rows, shares=(0.5, 0.3, 0.2), accuracy=0.8):
    labels = generator.choice(len(shares), rows, p=shares)
    right = generator.random(rows) < accuracy
    predictions = np.where(right, labels, (labels + 1) % len(shares))
    return ScoredRows(labels, predictions, 10)


def drift_of(generator, old, new):
    lengths = generator.integers(1, 40, (2, 200))
    buckets = [
        bucket(1, 20, int((lengths[0] <= 20).sum())),
        bucket(21, 39, int((lengths[0] > 20).sum())),
    ]
    return measure_drift(old, new, ["a", "b", "c"], buckets, lengths[1])


def test_nothing_is_found_where_nothing_changed():
    """Of 200 pairs of samples of the same population, at most 5 % have any clear change."""
    generator = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        drift = drift_of(generator, scored(generator, 200), scored(generator, 200))
        clear = [drift.accuracy, *drift.shares, *drift.recalls, drift.lengths]
        found += any(one.is_clear for one in clear)
    assert found / 200 <= SIGNIFICANT + 0.03


def test_changes_are_found_where_they_are():
    generator = np.random.default_rng(0)
    old, new = scored(generator, 200), scored(generator, 200, (0.2, 0.3, 0.5), 0.5)
    drift = drift_of(generator, old, new)
    assert drift.tests == 1 + 3 + 3 + 1
    assert drift.accuracy.is_clear
    assert drift.accuracy.difference < 0
    assert [one.is_clear for one in drift.shares] == [True, False, True]
    assert not drift.lengths.is_clear
    assert sum(one.after.rows for one in drift.shares) == 200


def test_each_bucket_of_length_has_its_difference():
    generator = np.random.default_rng(0)
    drift = drift_of(generator, scored(generator, 200), scored(generator, 200))
    short, long = drift.lengths.buckets
    assert short.difference == pytest.approx((short.after - short.before) / 200)
    assert short.interval == newcombe_interval((short.before, 200), (short.after, 200))
    assert long.difference == pytest.approx(-short.difference)
    assert long.interval[0] == pytest.approx(-short.interval[1])


def test_rows_of_several_labels():
    old = ScoredRows(np.array([[1, 0], [1, 1]]), np.array([[1, 0], [1, 0]]), 5)
    new = ScoredRows(np.array([[0, 0], [1, 0], [1, 0]]), np.array([[0, 0], [1, 0], [0, 1]]), 5)
    drift = measure_drift(old, new, ["a", "b"], [bucket(1, 9, 2)], np.array([1, 2, 3]))
    assert (drift.accuracy.before.rows, drift.accuracy.after.rows) == (1, 2)
    assert [(one.before.rows, one.after.rows) for one in drift.shares] == [(2, 2), (1, 0)]
    assert [(one.label, one.before.rows, one.after.rows) for one in drift.recalls] == [("a", 2, 1)]
