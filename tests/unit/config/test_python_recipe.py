"""A recipe that is written in Python is validated as a file is."""

from pathlib import Path

import numpy as np
import pytest

from finetune import Recipe
from finetune.config import loader, problems, python_recipe, schema
from finetune.config.python_recipe import compose
from finetune.runtime.errors import InputError

KEYS = {
    "data": {"source": "a.csv", "text": ["title", "body"], "max_length": 64},
    "train": {"epochs": 2, "stages": [{"freeze": "encoder", "epochs": 1}, {"freeze": "none"}]},
    "score": {"metrics": ["accuracy"], "monitor": "loss"},
}


def test_it_is_the_recipe_that_a_file_of_the_same_keys_is(tmp_path):
    made = Recipe(**KEYS)
    file = tmp_path / "recipe.yaml"
    file.write_text(made.to_yaml())
    assert compose(made, (), {}, "x").model_dump() == loader.load(file).model_dump()
    assert Recipe.load(file).data == made.data
    assert Recipe.of(made) is made
    assert Recipe.of(loader.load(file)).model_dump() == loader.load(file).model_dump()
    assert made.score.model_fields_set == {"metrics", "monitor"}


def test_parts_of_it_and_other_types_of_values_are_taken():
    made = Recipe(
        data=schema.Data(source="a.csv"),
        optim={"lr": np.float64(0.5), "layer_decay": 1},
        train={"epochs": np.int64(3)},
        run={"dir": Path("runs/a"), "seeds": (1, 2)},
    )
    assert (made.optim.lr, made.train.epochs, made.run.dir, made.run.seeds) == (
        0.5, 3, str(Path("runs/a")), (1, 2),
    )  # fmt: skip


def test_every_problem_is_told_at_once_in_the_words_of_a_files():
    with pytest.raises(InputError) as told:
        Recipe(data={"sorce": "a.csv"}, optim={"lr": "high"}, trian={}, epochs=3, run=5)
    assert told.value.problems == (
        "Recipe: trian: no such section; did you mean 'train'?",
        "Recipe: epochs: no such section; did you mean train={'epochs': …}?",
        "Recipe: run: expected a dict of keys, got 5",
        "Recipe: data.source: missing; expected a word: "
        + schema.Data.model_fields["source"].description,
        "Recipe: data.sorce: no such key; did you mean data.source?",
        "Recipe: optim.lr: expected a number above 0 or auto, got 'high'",
    )


def test_a_copy_that_pydantic_did_not_check_is_checked():
    wrong = Recipe(**KEYS).model_copy(update={"train": schema.Train.model_construct(epochs=-1)})
    with pytest.raises(InputError, match=r"Recipe: train.epochs: expected .*, got -1"):
        compose(wrong, (), {}, "finetune.train")


def test_overrides_are_words_or_keys_and_come_before_sections(tmp_path):
    file = tmp_path / "tickets.yaml"
    file.write_text("data: {source: a.csv}\ntrain: {epochs: 1}\n")
    for overrides in (
        ["train.epochs=2", "optim.lr=0.5"],
        {"train.epochs": 2, "optim.lr": 0.5},
        {"train": {"epochs": 2}, "optim": {"lr": 0.5}},
    ):
        found = compose(file, overrides, {"train": {"batch_size": 4}}, "x")
        assert (found.train.epochs, found.train.batch_size, found.optim.lr) == (2, 4, 0.5)
        assert found.run.name == "tickets"
    assert compose(file, "train.epochs=4", {}, "x").train.epochs == 4
    assert compose(file, {"train.epochs": 4}, {"train": {"epochs": 5}}, "x").train.epochs == 5
    with pytest.raises(InputError, match=r"x: overrides: expected words such as .*, got 3"):
        compose(file, [3], {}, "x")
    with pytest.raises(InputError, match=r"no such recipe file; did you mean 'tickets.yaml'\?"):
        compose(tmp_path / "ticket.yaml", (), {}, "x")


def test_old_names_of_keys_are_told():
    found = list(problems.take_renamed({"train": {"epochs": 1}}, "x", {}))
    assert found == []
    assert python_recipe.plain({"a": (Path("b"), np.int32(1))}) == {"a": ["b", 1]}
