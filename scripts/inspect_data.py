"""A recipe's data → what is in it and what is wrong with it, in seconds, before any training.

    python scripts/inspect_data.py recipes/ag_news.yaml [section.key=value …] [--json FILE]

Counts, lengths, and every finding with its first rows; `--json` writes all of it, each finding with
every row (`preflight.json` in a run's folder holds the same). Nothing is trained or downloaded but
the data.
"""

import argparse
import sys
from pathlib import Path

from finetune.config import loader
from finetune.config.schema import Recipe
from finetune.data import checks, prepare, sources
from finetune.data.corpus import Corpus
from finetune.reporting import console_report
from finetune.runtime import console
from finetune.runtime.atomic_files import write_json
from finetune.runtime.errors import InputError


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="inspect_data.py RECIPE [section.key=value …] [--json FILE]",
    )
    parser.add_argument("recipe", help="a YAML file, such as recipes/ag_news.yaml")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all of it")
    known, words = parser.parse_known_args()
    try:
        if known.json is not None and known.json.is_dir():
            raise InputError(f"--json: expected a file, found the folder {known.json}")
        console.quiet_libraries()
        recipe = loader.load(known.recipe, words)
        console_report.print_source(recipe)
        corpus, stops = look(recipe)
        found = checks.describe_corpus(corpus)
        if known.json is not None:
            write_json(known.json, found, "set --json to")
    except InputError as error:
        print(*(f"error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        return 2
    console_report.print_inspected(corpus, found)
    if known.json is not None:
        console.print_line(f"\nAll of it: {known.json}")
    for problem in stops:
        print(f"error: a run stops here: {problem}", file=sys.stderr)
    return 2 if stops else 0


def look(recipe: Recipe) -> tuple[Corpus, tuple[str, ...]]:
    """The documents with all that is found in them, and what would stop a run.

    Raises:
        InputError: where there is nothing to look at.
    """
    home = recipe.cache.folder()
    try:
        return prepare.prepare_corpus(sources.load_rows(recipe.data, home), recipe.data), ()
    except InputError as stopped:
        mild = recipe.data.never_stopping()
        if mild == recipe.data:
            raise
        return prepare.prepare_corpus(sources.load_rows(mild, home), mild), stopped.problems


if __name__ == "__main__":
    sys.exit(main())
