"""How a recipe's stages divide its steps."""

import pytest

from finetune.config import schema
from finetune.training.stages import plan_stages, stage_at


def recipe(stages=()):
    train = schema.Train(
        batch_size=4, epochs=2, stages=tuple(map(schema.Stage.model_validate, stages))
    )
    return schema.Recipe(data=schema.Data(source="x"), train=train)


def test_without_stages_there_is_one():
    [stage] = plan_stages(recipe(), rows=10)
    assert (stage.number, stage.count, stage.begin, stage.end) == (1, 1, 0, 6)
    assert stage.is_last
    assert stage.passes == pytest.approx(2)


def test_stages_follow_each_other():
    first, second = plan_stages(recipe([{"freeze": "encoder", "max_steps": 4}, {"epochs": 1}]), 10)
    assert (first.begin, first.end, second.begin, second.end) == (0, 4, 4, 7)
    assert (first.recipe.model.freeze, first.is_last, second.is_last) == ("encoder", False, True)
    assert [stage_at((first, second), done).number for done in (0, 4, 5, 7, 99)] == [1, 1, 2, 2, 2]
    assert first.as_json()["steps"] == 4
