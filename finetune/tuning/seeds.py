"""One recipe, several seeds: a run for each, one after the other; their mean and spread.

    run.seeds: [0, 1, 2]    # → runs/<recipe>/<time>/seed-0, seed-1, seed-2, seeds.json, report.html

A run's confidence interval is about other documents; the spread over seeds is about another order
of rows, other dropout and another head. `reporting/seeds_report.py` summarizes the runs in
`seeds.json`.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from finetune.config.schema import Recipe
from finetune.runtime.console import print_line
from finetune.runtime.errors import InputError, StoppedError
from finetune.training import folder_mark
from finetune.training.runs_home import runs_home

FILE = "seeds.json"


def seed_recipes(recipe: Recipe) -> list[Recipe]:
    """The recipe of each seed's run.

    Raises:
        InputError: where several seeds cannot do what the recipe asks for.
    """
    run = recipe.run
    assert run.seeds is not None
    if recipe.publish.repo_id is not None:
        raise InputError(
            f"publish.repo_id: run.seeds trains {len(run.seeds)} models, and only one can be "
            "published; remove one of the two keys"
        )
    if run.mlflow_model is not None:
        raise InputError(
            f"run.mlflow_model: run.seeds trains {len(run.seeds)} models, and only one can be "
            "registered; remove one of the two keys"
        )
    if run.resume is not None and (run.resume != "auto" or run.dir is None):
        raise InputError(
            f"run.resume: expected auto with run.seeds, and run.dir, the folder that holds "
            f"seed-{run.seeds[0]}, got {run.resume}; or resume one seed's folder, without "
            "run.seeds"
        )
    home = runs_home(run) / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    base = home if run.dir is None else Path(run.dir)
    return [
        recipe.model_copy(
            update={
                "run": run.model_copy(
                    update={"seeds": None, "seed": seed, "dir": str(base / f"seed-{seed}")}
                )
            }
        )
        for seed in run.seeds
    ]


def check_home(recipe: Recipe) -> None:
    """Refuse a folder whose report the one of all seeds would replace.

    Raises:
        InputError: where it is a run's own, or somebody else's.
    """
    home = Path(str(seed_recipes(recipe)[0].run.dir)).parent
    mark = folder_mark.read_mark(home)
    if mark is not None:
        raise InputError(
            f"run.dir: {home} is the folder of a {mark.kind}; choose another for run.seeds"
        )
    if (home / "report.html").exists() and not (home / FILE).is_file():
        raise InputError(
            f"run.dir: {home} has a report.html that no run of several seeds wrote; choose another "
            "folder"
        )


def run_seeds(recipe: Recipe, run: Callable[[Recipe], Path]) -> list[Path]:
    """Run each seed's recipe; returns the folders.

    Raises:
        InputError, StoppedError: as one run does.
    """
    recipes = seed_recipes(recipe)
    folders = []
    for number, its_recipe in enumerate(recipes, 1):
        seed = its_recipe.run.seed
        print_line("\n" * (number > 1) + f"Seed {seed}, {number} of {len(recipes)}\n")
        try:
            folders.append(run(its_recipe))
        except StoppedError as error:
            raise error.with_run_dir(Path(str(its_recipe.run.dir)).parent) from None
    return folders
