"""What is forgotten, counted by hand."""

import numpy as np
import pytest

from finetune.data.corpus import Corpus, Split
from finetune.data.rows import Places
from finetune.evaluation.analysis_model import ParentComparison
from finetune.evaluation.calibration import Temperature
from finetune.evaluation.outcome import Outcome, ParentPredictions
from finetune.evaluation.parent_comparison import compare_with_parent
from finetune.evaluation.scoring import Scores


def one_hot(ids, classes):
    return (5 * np.eye(classes)[ids]).astype(np.float32)


def compare(names, labels, logits, parent, multi_label=False):
    rows = len(labels)
    split = Split("test", ["x"] * rows, np.array(labels), Places("x", range(rows)), "x")
    corpus = Corpus(names, split, split, split, (), multi_label)
    outcome = Outcome(
        "hash", Temperature(1.0, "x"), 1.0, None, Scores(logits, {}), None, parent=parent
    )
    found = compare_with_parent(corpus, outcome)
    return None if found is None else ParentComparison.model_validate(found)


def test_single_labels():
    # a and c are known to both; b is new, and the parent's d is gone.
    names, labels = ("a", "b", "c"), [0, 0, 0, 0, 2, 2, 1, 1]
    now = one_hot([0, 1, 0, 2, 2, 2, 1, 0], 3)
    before = one_hot([2, 2, 1, 0, 0, 1, 0, 0], 3)  # d, a, c → c's place is 0, a's 2
    parent = ParentPredictions("old", ("c", "d", "a"), before, None)
    found = compare(names, labels, now, parent)
    assert (found.kept, found.new, found.gone) == (["a", "c"], ["b"], ["d"])
    assert (found.rows, found.new_rows, found.new_recall) == (6, 2, 0.5)
    assert found.before == pytest.approx(3 / 6)
    assert found.after == pytest.approx(4 / 6)
    assert found.difference == pytest.approx(1 / 6)
    assert found.taken_by_new == 1
    assert [(one.label, one.support, one.before, one.after) for one in found.labels] == [
        ("a", 4, 0.5, 0.5), ("c", 2, 0.5, 1.0),
    ]  # fmt: skip
    for one in found.labels:
        assert one.interval[0] <= one.difference <= one.interval[1]
        assert one.p_value == 1.0


def test_a_label_that_is_lost_by_more_than_chance():
    names, labels = ("a", "b"), [0] * 20 + [1] * 5
    now, before = one_hot([1] * 20 + [1] * 5, 2), one_hot([0] * 25, 1)
    found = compare(names, labels, now, ParentPredictions("old", ("a",), before, None))
    assert (found.before, found.after, found.taken_by_new) == (1.0, 0.0, 20)
    assert found.labels[0].p_value < 0.001
    assert found.interval[1] < -0.5


def test_several_labels():
    names, labels = ("a", "b"), [[1, 0], [1, 1], [0, 1], [0, 0]]
    now = np.array([[3, -3], [3, 3], [-3, -3], [-3, -3]], np.float32)
    before = np.array([[-3, 3], [-3, 3], [3, -3], [-3, -3]], np.float32)
    parent = ParentPredictions("old", ("z", "a"), before, np.array([0.5, 0.5]))
    found = compare(names, labels, now, parent, multi_label=True)
    assert (found.metric, found.kept, found.new, found.gone) == ("f1_micro", ["a"], ["b"], ["z"])
    assert (found.before, found.after, found.new_rows, found.new_recall) == (1.0, 1.0, 2, 0.5)


def test_nothing_to_compare():
    assert compare(("a", "b"), [0, 1], one_hot([0, 1], 2), None) is None
    parent = ParentPredictions("old", ("a",), one_hot([0, 0], 1), None)
    assert compare(("a", "b"), [1, 1], one_hot([0, 1], 2), parent) is None
