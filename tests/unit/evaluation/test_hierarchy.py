"""Levels of label names: paths, sums of probabilities, hierarchical scores by their definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.evaluation import confusion, intervals, metrics
from finetune.evaluation.hierarchy import Hierarchy, path_of
from finetune.runtime.errors import InputError

LABELS = ("a/x/1", "a/x/2", "a/y", "b/x/1", "c")
TREE = Hierarchy.of(LABELS, "/")


def test_paths_and_nodes():
    assert path_of("a/x/1", "/") == ("a", "a/x", "a/x/1")
    assert (TREE.depth, TREE.level(1)[0]) == (3, ["a", "b", "c"])
    assert TREE.level(2)[0] == ["a/x", "a/y", "b/x", "c"]
    assert TREE.level(3)[0] == [*LABELS]
    assert TREE.at_level(np.array([0, 2, 4]), 1).tolist() == [0, 0, 2]


@given(st.lists(st.floats(0.01, 1), min_size=5, max_size=5))
def test_no_path_contradicts_itself(weights):
    p = np.array([weights]) / sum(weights)
    levels = [TREE.level_probabilities(p, number) for number in (1, 2, 3)]
    for summed in levels:
        assert summed.sum() == pytest.approx(1)
    for label in range(5):
        along = [
            of[0, TREE.at_level(np.array([label]), number)[0]]
            for number, of in enumerate(levels, 1)
        ]
        assert along == sorted(along, reverse=True) or np.allclose(along, sorted(along)[::-1])


rows = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30)


@given(rows)
def test_hierarchical_scores_are_those_of_the_sets_of_nodes(pairs):
    true, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    sets = [({*TREE.paths[t]}, {*TREE.paths[p]}) for t, p in pairs]
    shared = sum(len(t & p) for t, p in sets)
    precision = shared / sum(len(p) for _, p in sets)
    recall = shared / sum(len(t) for t, _ in sets)
    expected = {
        "hierarchical_precision": precision,
        "hierarchical_recall": recall,
        "hierarchical_f1": 2 * precision * recall / max(precision + recall, 1e-12),
        "level_1_accuracy": np.mean([TREE.paths[t][0] == TREE.paths[p][0] for t, p in pairs]),
        "level_9_accuracy": np.mean(true == predicted),
    }
    measured = [metrics.build_metric(name) for name in expected]
    metrics.bind_labels(measured, LABELS, "/")
    table = confusion.Confusion.from_labels(true, predicted, 5)
    for metric in measured:
        found = metric.compute(predictions=predicted, references=true)[metric.key]
        assert found == pytest.approx(expected[metric.key])
        low, high = table.path_interval(metric)
        assert 0 <= low <= found + 1e-9
        assert found - 1e-9 <= high <= 1


def test_the_accuracy_of_a_level_has_the_interval_of_a_share_of_rows():
    draw = np.random.default_rng(0)
    true, predicted = draw.integers(0, 5, (2, 60))
    metric = metrics.build_metric("level_1_accuracy")
    metrics.bind_labels([metric], LABELS, "/")
    value = metric.compute(predictions=predicted, references=true)[metric.key]
    table = confusion.Confusion.from_labels(true, predicted, 5)
    assert table.path_interval(metric) == pytest.approx(intervals.wilson_interval(value, 60))
    # As the table of levels has it.
    at = (TREE.at_level(of, 1) for of in (true, predicted))
    level = confusion.Confusion.from_labels(*at, len(TREE.level(1)[0]))
    assert table.path_interval(metric) == pytest.approx(level.interval("accuracy"))


def test_a_level_that_no_label_has_is_refused():
    measured = [metrics.build_metric(f"level_{n}_accuracy") for n in (TREE.depth, TREE.depth + 1)]
    metrics.bind_labels(measured, LABELS, "/")
    with pytest.raises(InputError) as caught:
        metrics.check_metrics(measured, 5)
    assert str(caught.value) == (
        f"score.metrics: expected a level from 1 to {TREE.depth}, as many as the labels have by "
        f"data.hierarchy, got 'level_{TREE.depth + 1}_accuracy'"
    )


def test_without_levels_a_metric_of_paths_says_what_it_needs():
    [metric] = metrics.load_metrics(["hierarchical_f1"], "hierarchical_f1", False)
    metrics.bind_labels([metric], LABELS, None)
    with pytest.raises(Exception, match=r"it needs data\.hierarchy, and rows with one label each"):
        metrics.check_metrics([metric], 5)
