"""Recipe → a fine-tuned, scored, saved document classifier. The whole story, in order.

accelerate launch finetune/run.py recipes/ag_news.yaml [section.key=value …] [--dry-run]
"""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

# Run as a file, this folder comes first on sys.path, where our modules would hide others'.
if Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from finetune.config import help, loader
from finetune.runtime import console, errors
from finetune.runtime.errors import InputError, StoppedError
from finetune.runtime.signals import SignalListener


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0 when all went well, 2 for a problem that the user can mend."""
    parser = argparse.ArgumentParser(
        prog="finetune/run.py",
        description="Fine-tune a pretrained encoder into a document classifier.",
        usage="accelerate launch finetune/run.py RECIPE [section.key=value …] [--dry-run]",
        epilog=help.recipe_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", help="a YAML file, such as recipes/ag_news.yaml")
    parser.add_argument("--dry-run", action="store_true", help="show what would run, then stop")
    parser.add_argument("--quiet", action="store_true", help="print the score and the report alone")
    parser.add_argument("--json", action="store_true", help="print results.json alone")
    known, words = parser.parse_known_args(arguments)
    with SignalListener() as listener:
        try:
            if known.json and known.dry_run:
                raise InputError("--json: a dry run has no results; leave one of the two out")
            console.set_quiet(known.quiet, known.json)
            recipe = loader.load(known.recipe, words)
            # Heavy imports wait until the recipe is known to be right: a typo is told at once.
            from finetune import pipeline

            if known.dry_run:
                pipeline.dry_run(recipe, listener)
                return console.exit_with(0)
            if recipe.run.seeds is not None:
                file = pipeline.run_seeds(recipe, listener) / "seeds.json"
            elif recipe.run.folds is not None:
                file = pipeline.run_folds(recipe, listener) / "results.json"
            else:
                file = pipeline.run(recipe, listener) / "results.json"
            if known.json:
                console.print_file(file)
        except InputError as error:
            listener.over = True
            return console.exit_with(2, *(f"error: {problem}" for problem in error.problems))
        except StoppedError as error:
            listener.over = True
            return console.exit_with(error.exit_code, str(error))
        except Exception as error:
            listener.over = True
            mendable = errors.from_os_error(error) if isinstance(error, OSError) else None
            if mendable is not None:
                return console.exit_with(2, *(f"error: {problem}" for problem in mendable.problems))
            if os.environ.get("WORLD_SIZE", "1") == "1":
                raise
            return console.exit_with(1, _said_of(error))
    return console.exit_with(0)


def _said_of(error: Exception) -> str:
    """What to print of an unexpected error in one of several processes."""
    from finetune.runtime import distributed

    if distributed.is_lost_peer(error):
        return (
            "error: another process of this run ended without a word: it was killed, or its "
            "machine or network failed; go on from the last checkpoint with run.resume=auto"
        )
    return traceback.format_exc().rstrip()


if __name__ == "__main__":
    sys.exit(main())
