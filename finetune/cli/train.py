"""Fine-tune a pretrained encoder into a document classifier.

    finetune train RECIPE [section.key=value …] [--dry-run]
    accelerate launch -m finetune train RECIPE …    # the same, in several processes too

Writes a run folder with the model, its scores on the test split, predictions and a report.
"""

import argparse
from collections.abc import Sequence

from finetune.cli.exit_codes import run_command
from finetune.cli.path_checks import check_recipe
from finetune.cli.recipe_argument import load_recipe, parse_recipe, recipe_parser
from finetune.config import help
from finetune.runtime import console
from finetune.runtime.errors import InputError
from finetune.runtime.signals import SignalListener


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known, overrides = parse_recipe(build_parser(prog), arguments)
    with SignalListener() as listener:
        return run_command(
            lambda: train(known, overrides, listener),
            listener,
            remedy="go on from the last checkpoint with run.resume=auto",
            verbosity=console.chosen_verbosity(known.quiet, known.json),
        )


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called, a script's own name where it is None."""
    parser = recipe_parser(
        prog or "accelerate launch finetune/run.py",
        __doc__,
        "[--dry-run] [--quiet] [--json]",
        epilog=help.list_keys(),
        publishes=True,
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would run, and stop")
    parser.add_argument(
        "--quiet", action="store_true", help="print only the score and the report's path"
    )
    parser.add_argument("--json", action="store_true", help="print only results.json")
    return parser


def train(known: argparse.Namespace, overrides: Sequence[str], listener: SignalListener) -> int:
    """The run, the runs of several seeds, or those of a cross-validation, as the recipe says.

    Raises:
        InputError, StoppedError: as `pipeline.run` does.
    """
    if known.json and known.dry_run:
        raise InputError("--json: a dry run has no results; leave one of the two out")
    recipe, _ = load_recipe(known, overrides)
    check_recipe(recipe)
    from finetune import pipeline  # after a typo in the recipe had its chance

    if known.dry_run:
        pipeline.dry_run(recipe, listener)
        return 0
    folder = pipeline.run_recipe(recipe, listener)
    if known.json:
        several = recipe.run.seeds is not None
        console.print_file(folder / ("seeds.json" if several else "results.json"))
    return 0
