"""Show what a recipe's data holds and what is wrong with it, in seconds, before any training.

    finetune inspect ag_news [section.key=value …] [--json FILE [--overwrite]]

Prints counts, lengths, and every finding with its first rows. `--json` writes all of it, each
finding with every row (`preflight.json` in a run's folder holds the same). Nothing is trained or
downloaded but the data.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.cli.exit_codes import run_command
from finetune.cli.output_files import add_overwrite, check_output
from finetune.cli.recipe_argument import load_recipe, parse_recipe, recipe_parser
from finetune.config.schema import Recipe
from finetune.runtime import console
from finetune.runtime.errors import InputError

if TYPE_CHECKING:
    from finetune.data.corpus import Corpus


def main(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    known, overrides = parse_recipe(build_parser(prog), arguments)
    return run_command(lambda: inspect_data(known, overrides))


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """The options; `prog` is how the command was called, a script's own name where it is None."""
    parser = recipe_parser(prog, __doc__, "[--json FILE [--overwrite]]")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write all findings to this file"
    )
    add_overwrite(parser, "the file of --json, where there is one")
    return parser


def inspect_data(known: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Print what is in the data; 2 where a run would stop at it.

    Raises:
        InputError: where there is nothing to look at.
    """
    check_output("--json", known.json, known.overwrite)
    recipe, _ = load_recipe(known, overrides)
    from finetune.data import checks
    from finetune.reporting import console_report
    from finetune.runtime.atomic_files import write_json

    console.quiet_libraries()
    console_report.print_source(recipe)
    corpus, problems = prepare_leniently(recipe)
    found = checks.describe_corpus(corpus)
    if known.json is not None:
        write_json(known.json, found, "set --json to")
    console_report.print_inspected(corpus, found)
    if known.json is not None:
        console.print_line(f"\nAll of it: {known.json}")
    if problems:
        console.print_error(*(f"error: a run stops here: {problem}" for problem in problems))
    return 2 if problems else 0


def prepare_leniently(recipe: Recipe) -> "tuple[Corpus, tuple[str, ...]]":
    """The documents with all that is found in them, and the problems that would stop a run.

    Raises:
        InputError: where there is nothing to look at.
    """
    from finetune.data import prepare, sources

    stops: list[str] = []
    rows = sources.load_rows(recipe.data, recipe.cache.folder(), recipe.score.slices or ())
    try:
        corpus = prepare.prepare_corpus(rows, recipe.data, stops=stops)
    except InputError as error:
        # What comes of a problem is none of its own.
        known = {*stops} <= {*error.problems}
        raise InputError(error.problems if known else stops) from None
    return corpus, tuple(stops)
