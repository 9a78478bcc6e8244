"""Intervals: against scikit-learn's values, by hand, and by how often they hold the truth."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.evaluation import confusion, intervals, metrics, rare_classes

OTHERS = ("top", "log", "hierarchical", "level")  # not of the confusion matrix of any labels
NAMES = [n for n in metrics.METRICS if "_" in n and not n.startswith(OTHERS)]
CONFUSED = [n for n in NAMES if metrics.load_metrics([n], n, False)]


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 6), st.integers(1, 40), st.integers(0, 10**6))
def test_the_confusion_matrix_gives_scikit_learn_s_values(classes, rows, seed):
    draw = np.random.default_rng(seed)
    labels, guesses = draw.integers(0, classes, rows), draw.integers(0, classes, rows)
    table = confusion.Confusion.from_labels(labels, guesses, classes)
    logits = np.eye(classes)[guesses]
    for metric in metrics.load_metrics(CONFUSED, "f1_macro", False):
        found = metrics.measure([metric], logits, labels)[metric.key]
        assert table.observed(metric.key) == pytest.approx(found, abs=1e-9), metric.key


def test_wilson_by_hand():
    low, high = intervals.wilson_interval(0.5, 4)
    assert (low, high) == (pytest.approx(0.15003, abs=1e-4), pytest.approx(0.84997, abs=1e-4))
    assert intervals.wilson_interval(1.0, 17)[1] == 1.0
    assert intervals.wilson_interval(1.0, 17)[0] == pytest.approx(0.816, abs=1e-3)
    assert intervals.wilson_interval(0.0, 0) == (0.0, 1.0)


def joint(classes, right, sizes):
    """Probabilities of each cell: true class by given one, some classes easier than others."""
    draw = np.random.default_rng(5)
    rows = []
    for c, size in enumerate(sizes):
        row = draw.dirichlet(np.ones(classes)) + 0.05
        row[c] = 0
        mine = right + 0.08 * (c % 2)
        row *= (1 - mine) / row.sum()
        row[c] = mine
        rows.append(size * row)
    found = np.array(rows)
    return (found / found.sum()).ravel()


@pytest.mark.parametrize("name", ["accuracy", "f1_macro", "matthews_correlation"])
def test_of_a_thousand_test_splits_95_in_100_hold_the_truth(name):
    classes, rows, splits = 6, 400, 1000
    chances = joint(classes, 0.84, [30, 25, 20, 10, 9, 6])
    true, given_as = np.divmod(np.arange(classes**2), classes)
    every = confusion.Confusion(true, given_as, np.ones(classes**2, dtype=int), classes)
    truth = every.value(name, chances[None])[0]
    draw = np.random.default_rng(0)
    held = 0
    for split in range(splits):
        counts = draw.multinomial(rows, chances)
        there = counts.nonzero()[0]
        table = confusion.Confusion(true[there], given_as[there], counts[there], classes)
        if name == "accuracy":
            low, high = intervals.wilson_interval(table.observed(name), rows)
        else:
            low, high = intervals.cells_interval(
                table.counts, lambda cells, table=table: table.value(name, cells), 600, split
            )
        held += low <= truth <= high
    assert 0.93 <= held / splits <= 0.97, held


def test_of_a_thousand_test_splits_95_in_100_hold_the_true_loss():
    """Losses of a classifier: most near 0, some large."""
    draw = np.random.default_rng(1)
    losses = draw.gamma(0.6, 0.5, (1000, 300))
    held = sum(
        low <= 0.3 <= high
        for low, high in (intervals.mean_interval(row, 600, i) for i, row in enumerate(losses))
    )
    assert 930 <= held <= 970, held


def test_of_a_thousand_pairs_95_in_100_hold_the_true_difference():
    classes, rows, splits = 3, 300, 1000
    draw = np.random.default_rng(2)
    held = 0
    for _ in range(splits):
        labels = draw.integers(0, classes, rows)
        hard = draw.random(rows) < 0.3  # for both
        ones = np.where(hard & (draw.random(rows) < 0.5), (labels + 1) % classes, labels)
        others = np.where(hard & (draw.random(rows) < 0.7), (labels + 1) % classes, labels)
        found = confusion.paired_difference("accuracy", labels, ones, others, classes)
        low, high = found["interval"]
        held += low <= 0.3 * 0.2 <= high
    assert 0.93 <= held / splits <= 0.97, held


def test_without_a_mistake_the_interval_still_has_a_width():
    logits, labels = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1]] * 9, np.array([0, 1, 2, 0, 1])
    wanted = metrics.load_metrics(
        ["accuracy", "f1_macro", "log_loss", "top_2_accuracy"], "loss", False
    )
    found = confusion.metric_intervals(wanted, logits, labels)
    assert found["accuracy"] == pytest.approx((0.5655, 1.0), abs=1e-3)
    assert found["f1_macro"][0] <= found["accuracy"][0]
    assert found["f1_macro"][1] == 1.0
    assert set(found) == {"loss", "accuracy", "f1_macro", "log_loss", "top_2_accuracy"}


def test_one_row_of_many_classes():
    logits, labels = np.zeros((1, 500), dtype=np.float32), np.array([3])
    found = confusion.metric_intervals(
        metrics.load_metrics(CONFUSED, "f1_macro", False), logits, labels
    )
    assert found.pop("loss") is None  # of one row, nobody knows how far losses spread
    for name, (low, high) in found.items():
        signed = name in ("matthews_correlation", "quadratic_weighted_kappa")
        highest = 499 if name == "rank_mae" else 1
        assert (-1 if signed else 0) <= low < high <= highest, name


def test_a_metric_of_evaluate_load_has_none(monkeypatch):
    class Other:
        key, takes_probabilities, interval_method = "other", False, None

        def compute(self, predictions, references):
            return {"other": 0.5}

    found = confusion.metric_intervals([Other()], np.eye(3, dtype=np.float32), np.arange(3))
    assert found["other"] is None


def test_of_several_labels_an_interval_holds_its_own_score_though_no_row_is_all_right():
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 2, (150, 5))
    logits = np.where(truth == 1, 1.0, -1.0)
    logits[np.arange(150), draw.integers(0, 5, 150)] *= -1  # one label of each row is wrong
    table = confusion.Confusion.from_labels(truth, (logits > 0).astype(np.int64), 5)
    for name in ("f1_micro", "f1_macro", "accuracy"):
        low, high = table.interval(name)
        assert low <= table.observed(name) <= high
        assert (table.observed(name) == 0) == (name == "accuracy")


def test_two_that_answer_alike_may_still_differ():
    rows = np.arange(4) % 2
    for metric in ("accuracy", "f1_macro"):
        found = confusion.paired_difference(metric, rows, rows, rows, 2)
        low, high = found["interval"]
        assert found["difference"] == 0
        assert low == -high
        assert high == pytest.approx(1.96 * np.sqrt(2) / 6)  # Bonett & Price: one row each way


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 40),
    classes=st.integers(2, 5),
    outcome=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    varied=st.booleans(),
)
def test_rows_that_all_end_alike_leave_a_width_and_few_of_them_no_verdict(
    rows, classes, outcome, varied
):
    labels = np.arange(rows) % classes if varied else np.zeros(rows, dtype=np.int64)
    ones, others = (np.where(right, labels, (labels + 1) % classes) for right in outcome)
    logits = np.eye(classes, dtype=np.float32)[ones]
    names = ["accuracy", "f1_macro", "f1_weighted", "matthews_correlation", "log_loss"]
    measured = metrics.load_metrics(names, "accuracy", False)
    values = metrics.measure(measured, logits, labels)
    for name, interval in confusion.metric_intervals(measured, logits, labels).items():
        if "loss" in name:
            assert interval is None
            continue
        low, high = interval
        assert low < high, name
        assert low - 1e-9 <= values[name] <= high + 1e-9, name
    for metric in ("accuracy", "f1_macro"):
        found = confusion.paired_difference(metric, labels, ones, others, classes)
        low, high = found["interval"]
        assert low < high
        assert low <= found["difference"] <= high
        if rows < 6 or outcome[0] == outcome[1]:
            assert low <= 0 <= high
        elif metric == "accuracy":
            assert (low > 0) == (outcome[0] > outcome[1])


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_the_interval_of_a_difference_and_mcnemar_s_test_never_contradict(one, other, both):
    low, high = intervals.paired_interval(one, other, one + other + both + 1)
    assert low < high
    if intervals.mcnemar_p(one, other) >= 0.05:
        assert low <= 0 <= high


def test_the_f1_of_a_class_has_wilson_s_interval():
    assert intervals.f1_interval(0, 0) == (0.0, 1.0)
    assert intervals.f1_interval(5, 5)[1] == 1.0
    low, high = intervals.wilson_interval(0.5, 10)
    assert intervals.f1_interval(5, 10) == (2 * low / (1 + low), 2 * high / (1 + high))


def test_of_one_row_a_class_the_interval_is_that_of_the_classes_together():
    """40 rare classes of which half are right: their mean is known, none of them is."""
    labels = np.arange(40)
    predicted = np.where(labels % 2, labels, 40)
    table = confusion.Confusion.from_labels(labels, predicted, 41)
    low, high = intervals.middle(rare_classes.macro_draws("recall", table.counts, table.sums))
    assert low < 20 / 41 < high
    assert 0.2 < high - low < 0.45  # of 40 rows, Wilson's is 0.30 wide
    assert table.interval("recall_macro") == (low, high)


def test_the_classes_of_a_macro_average_are_fixed():
    """A class of one row is absent from a third of the resamples, and counts in each."""
    labels = np.array([0] * 50 + [1])
    table = confusion.Confusion.from_labels(labels, np.zeros(51, dtype=np.int64), 3)
    assert table.occurs.tolist() == [True, True, False]
    without = np.array([[50.0, 0.0]])
    assert table.value("f1_macro", without) == pytest.approx(0.5)


def test_a_mean_of_few_rows_is_as_uncertain_as_student_says():
    low, high = intervals.mean_interval(np.array([0.1, 0.3]))
    assert (low, high) == (0.0, pytest.approx(0.2 + 12.706 * 0.1, abs=1e-2))
    assert intervals.mean_interval(np.full(30, 0.2)) is None
    assert intervals.mean_interval(np.full(30, 0.2) + 1e-16 * np.arange(30)) is None
    assert intervals.mean_interval(np.full(3, 1.743) + 1e-15 * np.arange(3)) is None
    assert intervals.mean_interval(np.array([])) is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("rows", [3, 40])
def test_a_mean_that_is_not_finite_has_no_interval(rows):
    assert intervals.mean_interval(np.array([math.inf, *[0.5] * rows, 0.25])) is None
