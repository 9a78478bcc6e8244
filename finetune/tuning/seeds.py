"""One recipe, several seeds: a run for each, one after the other; their mean and spread.

    run.seeds: [0, 1, 2]    # → runs/<recipe>/<time>/seed-0, seed-1, seed-2, seeds.json, report.html

The interval of one run says what other documents would have done to its score; the spread over
seeds, what another order of rows, dropout or head would have. `seeds.json` holds

    recipe, seeds       as asked for
    runs                of each seed its folder
    main                the metric that a reader is told first
    validation, test    of each metric its values in the order of the seeds, mean, sd (of one run,
                        n - 1 below; null for one seed), low and high
"""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from finetune.config.schema import Recipe
from finetune.reporting import narrative
from finetune.runtime.console import format_table, print_line
from finetune.runtime.errors import InputError, StoppedError

Results = Mapping[str, Any]


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


def run_seeds(choices: Recipe, run: Callable[[Recipe], Path | None]) -> list[Path]:
    """Run each seed's recipe; the folders, of a dry run none.

    Raises:
        InputError, StoppedError: as one run does.
    """
    found = seed_recipes(choices)
    folders = []
    for number, one in enumerate(found, 1):
        print_line("\n" * (number > 1) + f"Seed {one.run.seed}, {number} of {len(found)}\n")
        try:
            folder = run(one)
        except StoppedError as error:
            raise error.within(Path(str(one.run.dir)).parent) from None
        if folder is None:
            break
        folders.append(folder)
    return folders


def summarize_seeds(choices: Recipe, folders: Sequence[Path]) -> dict[str, Any]:
    """What `seeds.json` holds, from the runs' `results.json`."""
    results = [json.loads((folder / "results.json").read_text("utf-8")) for folder in folders]
    found: dict[str, Any] = {
        "recipe": choices.run.name,
        "seeds": list(choices.run.seeds or ()),
        "runs": [folder.name for folder in folders],
        "main": narrative.main_metric(results[0]),
    }
    for split in ("validation", "test"):
        found[split] = {
            name: _spread([one[split][name] for one in results])
            for name in results[0][split].get("intervals", ())
        }
    return found


def _spread(values: list[float]) -> dict[str, Any]:
    return {
        "values": values,
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "low": min(values),
        "high": max(values),
    }


def format_seeds(found: Results) -> str:
    """Mean and spread of each metric, as a table."""
    split = "test" if found["test"] else "validation"
    rows = [(f"{split}, {len(found['seeds'])} seeds", "mean", "sd", "lowest", "highest")]
    for name, one in found[split].items():
        sd = "" if one["sd"] is None else f"{one['sd']:.4f}"
        rows.append(
            (name, f"{one['mean']:.4f}", sd, *(f"{one[end]:.4f}" for end in ("low", "high")))
        )
    return format_table(rows)
