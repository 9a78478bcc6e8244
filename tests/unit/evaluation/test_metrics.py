"""Metrics against scikit-learn and against values worked out by hand."""

import math

import evaluate
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from finetune.evaluation import metrics, probabilities
from finetune.runtime.errors import InputError

# Those of labels with levels are in test_hierarchy.py.
OF_ANY_LABELS = [n for n in metrics.METRICS if not n.startswith(("hierarchical", "level"))]
NAMES = (*OF_ANY_LABELS, "top_1_accuracy", "top_2_accuracy")


def test_by_hand():
    logits = np.log([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
    labels = np.array([0, 1, 1, 0])
    found = metrics.measure(metrics.load_metrics(NAMES, "accuracy", False), logits, labels)
    assert found["accuracy"] == found["top_1_accuracy"] == 0.5
    assert found["top_2_accuracy"] == 0.75
    assert found["log_loss"] == pytest.approx(-np.log([0.7, 0.6, 0.3, 0.2]).mean())
    assert found["f1_macro"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(1, 40), st.integers(0, 10**6))
def test_against_scikit_learn(classes, rows, seed):
    random = np.random.default_rng(seed)
    logits, labels = random.normal(size=(rows, classes)) * 5, random.integers(0, classes, rows)
    found = metrics.measure(metrics.load_metrics(NAMES, "accuracy", False), logits, labels)
    guesses = logits.argmax(axis=1)
    every = list(range(classes))
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, guesses))
    for average in metrics.AVERAGES:
        expected = sk.f1_score(labels, guesses, average=average, zero_division=0)
        assert found[f"f1_{average}"] == pytest.approx(expected)
    assert found["log_loss"] == pytest.approx(
        sk.log_loss(labels, probabilities.softmax(logits), labels=every)
    )
    assert found["top_3_accuracy"] == pytest.approx(
        np.mean([label in np.argsort(-row)[:3] for row, label in zip(logits, labels, strict=True)])
    )


def test_they_are_evaluate_metrics():
    for metric in metrics.load_metrics(NAMES, "accuracy", False):
        assert isinstance(metric, evaluate.Metric)
    assert metrics.Accuracy().compute(predictions=[0, 1], references=[0, 0]) == {"accuracy": 0.5}
    batched = metrics.Accuracy()
    batched.add_batch(predictions=[0, 1], references=[0, 0])
    batched.add_batch(predictions=[0], references=[0])
    assert batched.compute() == {"accuracy": pytest.approx(2 / 3)}


def test_extreme_logits_are_finite():
    found = metrics.measure(
        metrics.load_metrics(["log_loss"], "log_loss", False),
        np.array([[1e4, -1e4]]),
        np.array([1]),
    )
    assert math.isfinite(found["log_loss"])


def test_other_names_are_told_at_once(monkeypatch):
    with pytest.raises(InputError) as caught:
        metrics.load_metrics(["accuracy", "f1", "someone/metric"], "f1", trust_remote_code=False)
    own = ", ".join(metrics.METRICS)
    allows = "(evaluate.load would run code from elsewhere for it: score.trust_remote_code=true"
    assert caught.value.problems == (
        f"score.metrics: 'f1' is none of this package; did you mean 'f1_macro'? {allows} allows "
        "that)",
        f"score.metrics: 'someone/metric' is none of this package; its metrics are: {own} {allows} "
        "allows that)",
        "score.monitor: 'f1' is none of this package, so which way it is better is unknown; choose "
        f"loss or one of {own}",
    )

    def absent(*_, **__):
        raise FileNotFoundError("nothing there")

    monkeypatch.setattr(metrics.evaluate, "load", absent)  # the network's edge
    with pytest.raises(InputError) as caught:
        metrics.load_metrics(["f1"], "loss", trust_remote_code=True)
    assert str(caught.value) == (
        "score.metrics: evaluate.load cannot load 'f1' (no such metric, or no network)"
    )


def test_a_metric_of_evaluate_load(tmp_path, monkeypatch):
    """Any other name goes to `evaluate.load`; here it finds a module on disk."""
    folder = tmp_path / "balanced"
    folder.mkdir()
    (folder / "balanced.py").write_text(
        "import datasets\n"
        "import evaluate\n"
        "class Balanced(evaluate.Metric):\n"
        "    def _info(self):\n"
        "        features = {'predictions': datasets.Value('int64'),\n"
        "                    'references': datasets.Value('int64')}\n"
        "        return evaluate.MetricInfo(description='', citation='', inputs_description='',\n"
        "                                   features=datasets.Features(features))\n"
        "    def _compute(self, predictions, references):\n"
        "        if max(references) > 1: raise ValueError('two classes only')\n"
        "        return {'balanced': 0.5}\n"
    )
    monkeypatch.chdir(tmp_path)
    [metric] = metrics.load_metrics(["balanced"], "loss", trust_remote_code=True)
    assert metrics.measure([metric], np.eye(2), np.arange(2)) == {"balanced": 0.5}
    with pytest.raises(InputError) as caught:
        metrics.check_metrics([metric], 3)
    assert "'balanced' cannot score 3 classes (two classes only)" in str(caught.value)


def test_better_and_ties():
    assert metrics.is_better("accuracy", {"accuracy": 0.5}, {})
    assert metrics.is_better("accuracy", {"accuracy": 0.6}, {"accuracy": 0.5})
    assert not metrics.is_better("accuracy", {"accuracy": 0.5}, {"accuracy": 0.5})
    assert metrics.is_better("log_loss", {"log_loss": 0.4}, {"log_loss": 0.5})
