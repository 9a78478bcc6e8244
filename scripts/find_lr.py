"""A recipe → a learning rate for it, from one short run with a growing rate on train rows.

    python scripts/find_lr.py RECIPE [section.key=value …] [--page lr_range.html]

Prints the rate and its reason, and draws the loss over the rate. `optim.lr: auto` in a recipe does
the same before its first step.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from finetune import pipeline
from finetune.config import loader
from finetune.runtime import console
from finetune.runtime.errors import InputError, StoppedError
from finetune.runtime.signals import SignalListener


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n", 1)[0],
        usage="python scripts/find_lr.py RECIPE [section.key=value …] [--page lr_range.html]",
    )
    parser.add_argument("recipe")
    parser.add_argument(
        "--page",
        type=Path,
        default=Path("lr_range.html"),
        help="where the drawing goes (default: %(default)s)",
    )
    known, words = parser.parse_known_args(arguments)
    with SignalListener() as listener:
        try:
            listener.moment = "in the range test"
            choices = loader.load(known.recipe, [*words, "run.resume=null"])
            if not known.page.parent.is_dir():
                expected = "expected a file in a folder that exists"
                raise InputError(f"--page: {expected}, got {known.page}")
            found = pipeline.range_test(choices, listener)
            from finetune.reporting import html_report  # torch and all: after a typo had its chance

            html_report.write_range_report(asdict(found), choices.run.name or "", known.page)
        except InputError as error:
            print(*(f"error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
            return 2
        except StoppedError as error:
            print(str(error).split(";")[0], file=sys.stderr)
            return error.exit_code
    where = "lr of the first of train.stages" if choices.train.stages else "optim.lr"
    console.print_line(f"{where}: {found.rate:g}")
    console.print_wrapped(found.why, mark="  ")
    console.print_line(f"Page: {known.page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
