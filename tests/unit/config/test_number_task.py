"""What data.task number leaves of a recipe's other keys."""

import pytest
from pydantic import ValidationError

from finetune.config import number_task
from finetune.config.schema import Recipe, for_task

NUMBERS = {"source": "rows", "task": "number"}


@pytest.mark.parametrize(
    ("section", "values", "expected"),
    [
        ("data", {"labels": ("a", "b")}, "null with data.task 'number', which predicts no labels"),
        ("data", {"rows_per_class": 3}, "null with data.task 'number', which predicts no labels"),
        ("model", {"head": "native"}, "linear with data.task 'number', whose scale"),
        ("model", {"head_init": "label_names"}, "zeros or normal with data.task 'number'"),
        ("train", {"loss": "focal"}, "cross_entropy with data.task 'number', whose loss is the sq"),
        ("train", {"label_smoothing": 0.1}, "0.0 with data.task 'number', whose loss is the squar"),
        ("train", {"class_weights": "balanced"}, "null with data.task 'number', which predicts"),
        ("train", {"sampling": "balanced"}, "auto, uniform or stratified with data.task 'number'"),
        ("score", {"target_accuracy": 0.9}, "null with data.task 'number', which has prediction"),
        ("score", {"out_of_scope": "auto"}, "off with data.task 'number', as every document"),
        ("score", {"metrics": ("accuracy",), "monitor": "accuracy"}, "some of r2, mae, rmse, spea"),
        ("run", {"folds": 3}, "null with data.task 'number', which is scored on one test split"),
        ("publish", {"onnx": True, "repo_id": "a/b"}, "false with data.task 'number'"),
    ],
)
def test_what_is_of_labels_is_refused(section, values, expected):
    given = {"data": NUMBERS, section: {**(NUMBERS if section == "data" else {}), **values}}
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(given)
    assert expected in str(caught.value)


def test_its_metrics_are_of_numbers_and_of_nothing_else():
    recipe = for_task(Recipe.model_validate({"data": NUMBERS}))
    assert recipe.score.metrics == number_task.NUMBER_METRICS
    assert recipe.score.monitor == "r2"
    named = {"data": NUMBERS, "score": {"metrics": ("mae",), "monitor": "mae"}}
    assert for_task(Recipe.model_validate(named)).score.metrics == ("mae",)
    for score, expected in (
        ({"metrics": ("mae",), "monitor": "loss"}, "no mae without data.task 'number'"),
        ({"interval_coverage": 0.5}, "0.9, its default, without data.task 'number', got 0.5"),
    ):
        with pytest.raises(ValidationError) as caught:
            Recipe.model_validate({"data": {"source": "rows"}, "score": score})
        assert expected in str(caught.value)
