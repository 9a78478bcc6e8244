"""Find a learning rate for a recipe by one short run with a growing rate on train rows.

    finetune find-lr RECIPE [section.key=value …] [--page lr_range.html]

Prints the rate and its reason, and draws the loss over the rate. `optim.lr: auto` in a recipe does
the same before its first step.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from finetune.cli.exit_codes import run_command
from finetune.cli.output_files import add_overwrite, check_output
from finetune.cli.path_checks import check_recipe
from finetune.cli.recipe_argument import load_recipe, parse_recipe, recipe_parser
from finetune.runtime import console
from finetune.runtime.errors import InputError, StoppedError
from finetune.runtime.signals import SignalListener


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known, overrides = parse_recipe(build_parser(prog), arguments)
    with SignalListener() as listener:
        return run_command(lambda: find_lr(known, overrides, listener), listener)


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called, a script's own name where it is None."""
    parser = recipe_parser(prog, __doc__, "[--page lr_range.html] [--overwrite]")
    parser.add_argument(
        "--page",
        type=Path,
        default=Path("lr_range.html"),
        help="the HTML page to write, with the loss over the rate (default: %(default)s)",
    )
    add_overwrite(parser, "the page, where there is one")
    return parser


def find_lr(known: argparse.Namespace, overrides: Sequence[str], listener: SignalListener) -> int:
    """Make the range test, print the rate, and write the page.

    Raises:
        InputError: for a problem in the recipe or with the page's folder.
        StoppedError: after a signal.
    """
    listener.moment = "in the range test"
    recipe, _ = load_recipe(known, [*overrides, "run.resume=null"])
    if not known.page.parent.is_dir():
        raise InputError(f"--page: expected a file in a folder that exists, got {known.page}")
    check_output("--page", known.page, known.overwrite)
    check_recipe(recipe)
    from finetune import pipeline  # after a typo in the recipe had its chance
    from finetune.reporting import html_report

    try:
        found = pipeline.range_test(recipe, listener)
    except StoppedError as error:  # there is no run to go on with
        raise StoppedError(error.what_stopped) from None
    html_report.write_range_report(asdict(found), recipe.run.name or "", known.page)
    where = "lr of the first of train.stages" if recipe.train.stages else "optim.lr"
    console.print_line(f"{where}: {found.rate:g}")
    console.print_wrapped(found.why, mark="  ")
    console.print_line(f"Page: {known.page}")
    return 0
