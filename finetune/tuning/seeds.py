"""One recipe, several seeds: a run for each, one after the other; their mean and spread.

    run.seeds: [0, 1, 2]    # → runs/<recipe>/<time>/seed-0, seed-1, seed-2, seeds.json, report.html

The interval of one run says what other documents would have done to its score; the spread over
seeds, what another order of rows, dropout or head would have. `reporting/seeds_report.py` sums the
runs up in `seeds.json`.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from finetune.config.schema import Recipe
from finetune.runtime.console import print_line
from finetune.runtime.errors import InputError, StoppedError


def seed_recipes(choices: Recipe) -> list[Recipe]:
    """The recipe of each seed's run.

    Raises:
        InputError: where a run of several seeds cannot do what is asked for.
    """
    run = choices.run
    assert run.seeds is not None
    if choices.publish.repo_id is not None:
        raise InputError(
            f"publish.repo_id: one model of {len(run.seeds)} (run.seeds) would be published; leave "
            "one of the two out"
        )
    if run.resume is not None and (run.resume != "auto" or run.dir is None):
        raise InputError(
            f"run.resume: expected auto with run.seeds, and run.dir, the folder that holds "
            f"seed-{run.seeds[0]}, got {run.resume}; or go on with one seed's folder, without "
            "run.seeds"
        )
    home = Path("runs") / (run.name or "run") / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    base = home if run.dir is None else Path(run.dir)
    return [
        choices.model_copy(
            update={
                "run": run.model_copy(
                    update={"seeds": None, "seed": seed, "dir": str(base / f"seed-{seed}")}
                )
            }
        )
        for seed in run.seeds
    ]


def run_seeds(choices: Recipe, run: Callable[[Recipe], Path]) -> list[Path]:
    """Run each seed's recipe; returns the folders.

    Raises:
        InputError, StoppedError: as one run does.
    """
    found = seed_recipes(choices)
    folders = []
    for number, one in enumerate(found, 1):
        print_line("\n" * (number > 1) + f"Seed {one.run.seed}, {number} of {len(found)}\n")
        try:
            folders.append(run(one))
        except StoppedError as error:
            raise error.within(Path(str(one.run.dir)).parent) from None
    return folders
