"""`data.tasks` in a recipe: what it takes the place of, and what it leaves no use for."""

import pytest
from pydantic import ValidationError

from finetune.config.label_tasks import base_metric
from finetune.config.schema import Recipe, for_task


def read(*, data=(), **sections):
    given = {"source": "rows.csv", "tasks": ["topic", "urgent"]} | dict(data)
    return Recipe.model_validate({"data": given, **sections})


def problem(**sections):
    with pytest.raises(ValidationError) as caught:
        read(**sections)
    (one,) = caught.value.errors()
    return f"{one['ctx']['key']}: {one['ctx']['expected']}"


def test_tasks_are_a_list_or_weights_and_name_the_columns_of_labels():
    assert read().data.task_weights() == {"topic": 1.0, "urgent": 1.0}
    weighed = read(data={"tasks": {"topic": 1, "urgent": 0.5}})
    assert weighed.data.label == ("topic", "urgent")
    assert weighed.data.task_weights() == {"topic": 1.0, "urgent": 0.5}
    again = Recipe.model_validate(weighed.model_dump(mode="json"))
    assert again == weighed  # as recipe.yaml of a run holds both
    assert weighed.data.given_labels() is None


def test_the_monitor_is_the_mean_of_the_tasks_or_that_of_one():
    recipe = for_task(read())
    assert recipe.score.metrics == ("f1_macro", "accuracy")
    assert recipe.score.monitor == "f1_macro"
    assert read(score={"monitor": "urgent.accuracy"}).score.monitor == "urgent.accuracy"
    assert base_metric("urgent.accuracy", ["urgent"]) == "accuracy"
    assert base_metric("accuracy", ["urgent"]) == "accuracy"
    assert base_metric("other.accuracy", ["urgent"]) == "other.accuracy"
    assert "one of them of a task" in problem(score={"monitor": "other.accuracy"})
    with pytest.raises(ValidationError, match=r"one of score.metrics"):
        Recipe.model_validate({"data": {"source": "x"}, "score": {"monitor": "topic.accuracy"}})
    assert "metrics alone" in problem(score={"metrics": ["accuracy", "topic.accuracy"]})


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"data": {"label": "other"}}, "data.label: no value with data.tasks"),
        ({"data": {"tasks": {"a": 0, "b": 0}}}, "data.tasks: a weight above 0 for one task"),
        ({"data": {"tasks": ["a: b", "c"]}}, "data.tasks: columns without ': '"),
        ({"data": {"tasks": ["a", "a_score"]}}, "data.tasks: columns of other names"),
        ({"data": {"tasks": ["id", "b"]}}, "data.tasks: columns of other names"),
        ({"data": {"weight": "topic"}}, "data.weight: another column"),
        ({"data": {"hierarchy": "/"}}, "data.hierarchy: null with data.tasks"),
        ({"data": {"truncation": "windows"}}, "data.truncation: head, tail or head_tail"),
        ({"data": {"rows_per_class": 5}}, "data.rows_per_class: null with data.tasks"),
        ({"model": {"head": "native"}}, "model.head: linear with data.tasks"),
        ({"model": {"head_init": "keep"}}, "model.head_init: zeros or normal with data.tasks"),
        ({"train": {"sampling": "balanced"}}, "train.sampling: auto, uniform or stratified"),
        ({"score": {"target_accuracy": 0.9}}, "score.target_accuracy: null with data.tasks"),
        ({"score": {"out_of_scope": "auto"}}, "score.out_of_scope: off with data.tasks"),
        ({"distil": {"teacher": "model"}}, "distil.teacher: null with data.tasks"),
        ({"run": {"folds": 5}}, "run.folds: null with data.tasks"),
        ({"publish": {"onnx": True}}, "publish.onnx: false with data.tasks"),
    ],
)
def test_what_has_no_use_is_refused_by_name(sections, expected):
    assert problem(**sections).startswith(expected)
