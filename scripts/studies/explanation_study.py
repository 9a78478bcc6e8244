"""Deletion check of explanations: do the words that are named as telling decide the answer?

    python scripts/studies/explanation_study.py RUN ROWS --rows 50

Of each text, the fifth of its words with the highest scores is deleted, and the probability of the
answer is compared with that after the deletion of a fifth at random. Beside the scores that
`finetune predict --explain` gives (integrated gradients at 4 points, from mask tokens), the same is
done with those of other points and baselines, and of occlusion: of each word, what deleting it
alone costs. Seconds are of one CPU thread.
"""

import argparse
import sys
from pathlib import Path


def main() -> int:
    """Print what is measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", metavar="RUN")
    parser.add_argument("file", metavar="ROWS", type=Path, help="JSON Lines, perhaps gzipped")
    parser.add_argument("--rows", type=int, default=50)
    known = parser.parse_args()
    from explanation_runs import run_study

    run_study(known)
    return 0


if __name__ == "__main__":
    sys.exit(main())
