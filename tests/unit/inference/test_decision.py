"""`decision.DecisionRules`: logits → labels, scores, and no label where the model abstains."""

from types import SimpleNamespace

import numpy as np
import pytest

from finetune.inference.decision import DecisionRules
from finetune.runtime.errors import InputError

LABELS = ("a", "b", "c")


def config(**values):
    named = {"id2label": dict(enumerate(LABELS)), "problem_type": "single_label_classification"}
    return SimpleNamespace(**named | values)


def reading(thresholds=None, abstain_below=None):
    return SimpleNamespace(thresholds=thresholds, abstain_below=abstain_below)


def test_rules_of_a_config():
    assert DecisionRules.from_config(config(), reading(abstain_below=0.7), "m") == DecisionRules(
        LABELS, abstain_below=0.7
    )
    rules = DecisionRules.from_config(
        config(problem_type="multi_label_classification"), reading((0.1, 0.2, 0.3)), "m"
    )
    assert (rules.multi_label, rules.thresholds) == (True, (0.1, 0.2, 0.3))
    assert rules.fields == ("labels", "scores")
    assert DecisionRules(LABELS).fields == ("label", "score")


@pytest.mark.parametrize(
    ("values", "thresholds", "message"),
    [
        ({"id2label": {0: "a"}}, None, "m: expected a classifier with two labels or more, found 1"),
        ({"problem_type": "regression"}, None, "m: expected a classifier with two labels"),
        ({}, (0.5,), "m: config.json: document.thresholds: expected one for each of 3 labels"),
    ],
)
def test_what_is_no_classifier(values, thresholds, message):
    with pytest.raises(InputError) as caught:
        DecisionRules.from_config(config(**values), reading(thresholds), "m")
    assert str(caught.value).startswith(message)


def test_a_tie_of_rounded_probabilities_goes_to_the_larger_logit():
    logits = np.array([[0.0, 1e-6, 0.0]], dtype=np.float32)
    [prediction] = DecisionRules(LABELS).decide(logits, False)
    assert prediction == {"label": "b", "score": 0.333334}


def test_probabilities_come_where_they_are_asked_for():
    logits = np.array([[0.0, 0.0, -1e4]], dtype=np.float32)
    [single] = DecisionRules(LABELS).decide(logits, True)
    assert single["probabilities"] == {"a": 0.5, "b": 0.5, "c": 0.0}
    [several] = DecisionRules(LABELS, multi_label=True).decide(logits, True)
    assert several["labels"] == ["a", "b"]
    assert several["probabilities"] == {"a": 0.5, "b": 0.5, "c": 0.0}


def test_abstaining_begins_below_the_threshold():
    logits = np.log(np.array([[0.5, 0.25, 0.25]], dtype=np.float32))
    for below, label in ((0.5, "a"), (0.51, None), (None, "a")):
        [prediction] = DecisionRules(LABELS, abstain_below=below).decide(logits, False)
        assert prediction == {"label": label, "score": 0.5}
