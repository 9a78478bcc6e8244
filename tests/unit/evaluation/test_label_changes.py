"""Which labels changed between two classifiers: by hand, by brute force, by simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score, recall_score

from finetune.evaluation import intervals, label_changes


@pytest.mark.parametrize("multi_label", [False, True])
def test_scores_are_scikit_learns(multi_label):
    draw = np.random.default_rng(0)
    shape = (300, 4) if multi_label else (300,)
    columns = [draw.integers(0, 2 if multi_label else 4, shape) for _ in range(3)]
    labels, one, other = columns
    found = label_changes.compare_labels(*columns, 4)
    assert [change.label for change in found] == [0, 1, 2, 3]
    for at, given_labels in enumerate((one, other)):
        f1 = f1_score(labels, given_labels, average=None)
        recall = recall_score(labels, given_labels, average=None)
        assert [change.f1[at] for change in found] == pytest.approx(f1)
        assert [change.recall[at] for change in found] == pytest.approx(recall)
    for change in found:
        low, high = change.f1_interval
        assert low <= change.f1[1] - change.f1[0] <= high
        low, high = change.recall_interval
        assert low <= change.recall[1] - change.recall[0] <= high


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=8, max_size=8))
def test_the_p_value_is_that_of_all_exchanges(counts):
    """Each row's two predictions are exchanged or not, in all ways that there are."""
    cells = np.array(counts)
    if not cells[4:].any() or cells[[1, 2, 5, 6]].sum() > 8:
        return
    rows = np.repeat(np.arange(8), cells)
    has, one, other = rows // 4, rows // 2 % 2, rows % 2
    apart = np.flatnonzero(one != other)

    def gap(one, other):
        first, second = (2 * (has & x).sum() / max(1, (has + x).sum()) for x in (one, other))
        return abs(first - second)

    observed, as_large, ways = gap(one, other), 0, 0
    for swapped in itertools.product([False, True], repeat=len(apart)):
        change = np.zeros(len(rows), bool)
        change[apart] = swapped
        ways += 1
        exchanged = gap(np.where(change, other, one), np.where(change, one, other))
        as_large += exchanged >= observed - 1e-12
    assert label_changes.f1_p(cells) == pytest.approx(as_large / ways)


def test_where_only_recall_differs_it_is_mcnemars():
    cells = np.array([100, 0, 0, 0, 10, 12, 3, 50])
    assert label_changes.f1_p(cells) == pytest.approx(stats.binomtest(3, 15).pvalue)
    assert label_changes.f1_p(cells) == pytest.approx(intervals.mcnemar_p(3, 12))
    same = np.array([100, 0, 0, 5, 10, 0, 0, 50])
    assert label_changes.f1_p(same) == 1.0


def test_it_is_exact_for_many_rows_in_no_time():
    cells = np.array([10**6, 50_000, 50_600, 10, 10, 50_000, 50_000, 10**5])
    draw = np.random.default_rng(0)
    hits, misses = draw.binomial(100_000, 0.5, 10**6), draw.binomial(100_600, 0.5, 10**6)

    def gap(hits, misses):
        first, second = (
            2 * (10**5 + right) / (200_010 + 10**5 + right + 10 + wrong)
            for right, wrong in ((hits, misses), (100_000 - hits, 100_600 - misses))
        )
        return abs(first - second)

    drawn = (gap(hits, misses) >= gap(50_000, 50_600)).mean()
    assert label_changes.f1_p(cells) == pytest.approx(drawn, abs=0.003)
    assert label_changes.f1_p(cells[[0, 2, 1, 3, 4, 6, 5, 7]]) == pytest.approx(
        label_changes.f1_p(cells)
    )


def test_a_label_that_no_row_has_is_left_out_and_few_rows_say_little():
    labels, one, other = np.array([0] * 9 + [1]), np.array([0] * 10), np.array([0] * 9 + [1])
    found = label_changes.compare_labels(labels, one, other, 3)
    assert [change.label for change in found] == [0, 1]
    rare = found[1]
    assert (rare.f1, rare.support, rare.p) == ((0.0, 1.0), 1, 1.0)
    assert rare.f1_interval[0] <= 0  # one row says nothing
    assert rare.f1_interval[1] == 1
    never = label_changes.compare_labels(labels, one, one, 3)[1]
    assert never.f1_interval[0] < 0 < never.f1_interval[1]  # no interval is a point


def test_chance_alone_is_called_a_change_as_rarely_as_said():
    draw, small = np.random.default_rng(1), 0
    for _ in range(300):
        labels = draw.integers(0, 2, 150)
        one, other = (np.where(draw.random(150) < 0.3, 1 - labels, labels) for _ in range(2))
        small += label_changes.compare_labels(labels, one, other, 2)[1].p < 0.05
    assert small <= 300 * 0.05 + 3 * np.sqrt(300 * 0.05 * 0.95)
