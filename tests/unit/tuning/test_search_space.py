"""`search_space`: a YAML file → dimensions, with every value tried on the recipe."""

import pytest

from finetune.config import loader
from finetune.runtime.errors import InputError
from finetune.tuning import search_space
from finetune.tuning.search_space import BaseRecipe, Dimension


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("data: {source: x, text: text, label: label}\n")
    return file


def load(tmp_path, recipe, text):
    (tmp_path / "space.yaml").write_text(text)
    return search_space.load_space(tmp_path / "space.yaml", recipe)


def test_every_kind(tmp_path, recipe):
    text = (
        "optim.lr: {log: [1e-3, 0.3]}\noptim.warmup: {uniform: [0, 0.2]}\n"
        "train.epochs: {int: [2, 6]}\ntrain.batch_size: {log_int: [8, 64]}\n"
        "optim.schedule: {choice: [linear, cosine]}\n"
    )
    dimensions = load(tmp_path, recipe, text)
    assert dimensions == (
        Dimension("optim.lr", "log", (0.001, 0.3)),
        Dimension("optim.warmup", "uniform", (0.0, 0.2)),
        Dimension("train.epochs", "int", (2, 6)),
        Dimension("train.batch_size", "log_int", (8, 64)),
        Dimension("optim.schedule", "choice", ("linear", "cosine")),
    )
    assert [dimension.log for dimension in dimensions] == [True, False, False, True, False]
    assert dimensions[-1].describe() == "optim.schedule choice [linear, cosine]"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("lr: {log: [1, 2]}", "expected a key of the recipe such as optim.lr"),
        ("optim.lr: {log: [0, 2]}", "expected two numbers above 0 after log, the lower first"),
        ("optim.lr: {log: [2, 1]}", "expected two numbers above 0 after log, the lower first"),
        ("train.epochs: {int: [1, 2.5]}", "expected two whole numbers after int"),
        ("optim.lr: {logg: [1, 2]}", "expected {log: [low, high]}"),
        ("optim.lr: {log: 3}", "expected a list after log, got 3"),
        ("optim.name: {choice: [sgd, sgd]}", "expected two choices or more, each once"),
        ("run.seed: {int: [0, 3]}", "a sweep cannot vary this, as it decides by luck alone"),
        ("data.test: {choice: [a, b]}", "a sweep cannot vary this, as it decides which rows"),
        ("optim.name: {choice: [sgd, adamm]}", "adamm"),
    ],
)
def test_problems(tmp_path, recipe, line, message):
    with pytest.raises(InputError) as caught:
        load(tmp_path, recipe, line + "\n")
    assert message in str(caught.value)


def test_settings_are_put_on_the_recipe_and_its_overrides(recipe):
    words = ("optim.lr=0.5", "train.epochs=3")
    base = BaseRecipe(recipe, words, loader.load(recipe, words))
    made = base.with_settings({"optim.lr": 0.25})
    assert (made.optim.lr, made.train.epochs) == (0.25, 3)
    with pytest.raises(InputError, match=r"^the sweep: optim.lr"):
        base.with_settings({"optim.lr": -1})
