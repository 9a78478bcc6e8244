"""`seeds`: a recipe for each seed, and its runs in order."""

from pathlib import Path

import pytest

from finetune.config.schema import Recipe
from finetune.runtime.errors import InputError, StoppedError
from finetune.tuning import seeds


@pytest.fixture
def recipe():
    recipe = Recipe.model_validate(
        {"data": {"source": "x"}, "run": {"name": "r", "dir": "out", "seeds": [3, 1]}}
    )
    assert recipe.run.seeds == (3, 1)
    return recipe


def test_each_seed_has_a_folder(recipe):
    made = seeds.seed_recipes(recipe)
    assert [(one.run.seed, one.run.dir, one.run.seeds) for one in made] == [
        (3, "out/seed-3", None),
        (1, "out/seed-1", None),
    ]
    assert all(one.data == recipe.data for one in made)


def test_what_several_seeds_cannot_do(recipe):
    published = recipe.publish.model_copy(update={"repo_id": "ann/model"})
    with pytest.raises(
        InputError, match=r"run.seeds trains 2 models, and only one can be published"
    ):
        seeds.seed_recipes(recipe.model_copy(update={"publish": published}))
    resumed = recipe.run.model_copy(update={"resume": "out/seed-3"})
    with pytest.raises(InputError, match=r"run.resume: expected auto with run.seeds"):
        seeds.seed_recipes(recipe.model_copy(update={"run": resumed}))


def test_runs_come_in_order_and_a_stop_names_the_folder_of_all(recipe, capsys):
    assert seeds.run_seeds(recipe, lambda one: Path(one.run.dir)) == [
        Path("out/seed-3"),
        Path("out/seed-1"),
    ]
    assert "Seed 1, 2 of 2" in capsys.readouterr().out

    def stop(one):
        raise StoppedError("stopped")

    with pytest.raises(StoppedError):
        seeds.run_seeds(recipe, stop)
