"""Search a space of values for the recipe that is best on validation, and score it on test once.

    finetune sweep RECIPE --space SPACE.yaml [section.key=value …] [--trials 30]
        [--minutes M] [--seeds 3] [--pruner median|hyperband|off] [--storage URL] [--dir FOLDER]

Stopped or killed, the same command goes on. Started several times, the processes share the trials.
"""

import argparse
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.exit_codes import run_command
from finetune.cli.recipe_argument import load_recipe, parse_recipe, recipe_parser
from finetune.config.shipped_recipes import find_recipe
from finetune.runtime import console
from finetune.runtime.commands import command, install
from finetune.runtime.errors import InputError
from finetune.runtime.signals import SignalListener
from finetune.tuning import search_space

if TYPE_CHECKING:
    from finetune.tuning.study import Sweep


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known, overrides = parse_recipe(build_parser(prog), arguments)
    with SignalListener() as listener:
        return run_command(lambda: sweep(known, overrides, listener), listener)


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called, a script's own name where it is None."""
    forms = f"SPACE.yaml holds a line for each key, such as optim.lr, with {search_space.FORMS}."
    parser = recipe_parser(prog, __doc__, "--space SPACE.yaml [options]", textwrap.fill(forms, 80))
    parser.add_argument(
        "--space", type=Path, required=True, help="a YAML file with the keys to vary"
    )
    parser.add_argument(
        "--trials",
        type=int,
        help="the number of trials in all (default: 30 unless --minutes is given)",
    )
    parser.add_argument("--minutes", type=float, help="begin no trial after this many minutes")
    parser.add_argument(
        "--pruner",
        choices=search_space.PRUNERS,
        default="median",
        help="the rule that stops poor trials early (default: %(default)s)",
    )
    parser.add_argument(
        "--storage", help="the URL of a database for the trials (default: study.db in the folder)"
    )
    parser.add_argument(
        "--dir", type=Path, help="the folder of the sweep (default: runs/<recipe>/sweep)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="the seed that decides what is tried (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=3,
        help="the number of seeds to train the best recipe with; 0 for none (default: %(default)s)",
    )
    return parser


def sweep(known: argparse.Namespace, overrides: Sequence[str], listener: SignalListener) -> int:
    """Try the trials, train the winner from several seeds, and write the report.

    Raises:
        InputError: for a problem in the options, the space or the recipe.
        StoppedError: after a signal; the same command goes on.
    """
    asked = read_options(known, overrides)
    listener.moment = "between two trials"
    from finetune import pipeline  # torch and all: after a typo had its chance
    from finetune.tuning import sweep as sweep_module
    from finetune.tuning import sweep_report

    console.print_line(sweep_report.describe_sweep(asked), even_if_quiet=True)
    with console.CONSOLE.at(console.Verbosity.QUIET):
        study = sweep_module.run_sweep(asked, listener, pipeline.run_trial)
        best = sweep_module.write_best(study, asked)
        winner = None
        others = sweep_module.count_running(study)
        if others == 0 and known.seeds > 0:
            many = f"{known.seeds} seed{'s' * (known.seeds > 1)}"
            console.print_line(f"\nThe winner, {many}, scored on test", even_if_quiet=True)
            winner = sweep_module.retrain(study, asked, known.seeds, listener, pipeline.run_seeds)
    found = sweep_report.summarize_sweep(study, asked, winner)
    sweep_report.write_sweep_report(found, asked.folder)
    console.print_line(f"\n{sweep_report.format_sweep(found)}\n")
    if others:
        console.print_line(
            f"Other processes are at {others} more; the last of them trains the winner"
        )
    console.print_line(f"Best: {best}\nReport: {asked.folder / 'report.html'}")
    return 0


def read_options(known: argparse.Namespace, overrides: Sequence[str]) -> "Sweep":
    """The sweep that the command line asks for.

    Raises:
        InputError: for a problem in the options, the space or the recipe.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError(
            f"start {command('sweep')} without a launcher, several times to share the trials"
        )
    for name in ("trials", "minutes"):
        value = getattr(known, name)
        if value is not None and value <= 0:
            raise InputError(f"--{name}: expected a number above 0, got {value:g}")
    recipe = find_recipe(known.recipe)
    base, words = load_recipe(known, overrides)
    dimensions = search_space.load_space(known.space, recipe, words)
    if base.run.folds is not None:
        raise InputError(
            f"run.folds: expected none in a sweep, got {base.run.folds}: its trials are compared "
            "on one validation split, and its winner is scored on test; leave it out, and give it "
            "to the run of best.yaml (run.folds=5), which scores every document"
        )
    _require_optuna()
    from finetune.training.runs_home import runs_home
    from finetune.tuning.study import Sweep

    trials = known.trials or (None if known.minutes else 30)
    folder = known.dir or runs_home(base.run) / "sweep"
    return Sweep(
        search_space.BaseRecipe(recipe, tuple(words), base), dimensions, folder,
        known.storage, trials, known.minutes, known.pruner, known.seed,
    )  # fmt: skip


def _require_optuna() -> None:
    """
    Raises:
        InputError: where it is not installed.
    """
    try:
        import optuna  # noqa: F401
    except ImportError:
        raise InputError(f"Optuna is not installed; {install('sweep')}") from None
