"""The rules of a model that predicts numbers."""

from types import SimpleNamespace

import numpy as np
import pytest

from finetune.inference.decision import DecisionRules
from finetune.inference.number_rules import NumberRules
from finetune.runtime.errors import InputError
from finetune.tokenization.document_format import DocumentFormat


def config_of(**more):
    fields = {"id2label": {0: "price"}, "problem_type": "regression", "number_mean": 5.0}
    return SimpleNamespace(**fields, **{"number_deviation": 2.0, **more})


def test_a_number_with_its_interval():
    rules = DecisionRules.from_config(config_of(), DocumentFormat(interval=(0.9, 1.5)), "m")
    assert (rules.kind, rules.fields) == ("number", ("number", "low", "high"))
    [one] = rules.decide(np.array([[4.25]], np.float32), False)
    assert one == {"number": 4.25, "low": 2.75, "high": 5.75}
    bare = DecisionRules.from_config(config_of(), DocumentFormat(), "m")
    assert [*bare.decide(np.array([[1 / 3]], np.float32), False)] == [{"number": 0.3333333}]
    with pytest.raises(InputError, match="--probabilities: expected a model of labels, got one"):
        bare.refuse_number("--probabilities", "has none")
    DecisionRules(("a", "b")).refuse_number("--probabilities", "has none")


def test_a_config_without_a_scale_is_refused():
    with pytest.raises(InputError, match="expected number_mean and number_deviation"):
        DecisionRules.from_config(config_of(number_deviation=float("nan")), DocumentFormat(), "m")
    assert isinstance(NumberRules.read(config_of(), "price", DocumentFormat(), "m"), NumberRules)
