"""How long a checkpoint stops training: written between two steps, and by a thread beside them.

    python scripts/bench/bench_checkpoint.py FOLDER [--layers 12] [--hidden 768] [--rounds 3]

A model of BERT-base's shape with random weights, AdamW's memory and a best model, as a run has
them; both ways in turn, into FOLDER, on the GPU if there is one. Needs no network.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path


def main(words: Sequence[str] | None = None) -> int:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where checkpoints are written; must not exist")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    known = parser.parse_args(words)
    known.folder.mkdir(parents=True)
    from bench_checkpoint_run import Run  # which imports what --help does not need

    run = Run(known.folder, known.hidden, known.layers)
    run.save(beside=True)  # first, so that memory and files are there
    found: dict[bool, list[tuple[float, float, int]]] = {False: [], True: []}
    for _ in range(known.rounds):
        for beside, times in found.items():
            times.append(run.save(beside))
    for beside, times in found.items():
        stopped, written = (statistics.median(each) for each in list(zip(*times, strict=True))[:2])
        way = "by a thread" if beside else "between two steps"
        print(
            f"{way}: training is stopped for {stopped:.2f} s of {written:.2f} s, "
            f"{times[0][2] / 1e6:,.0f} MB of weights and optimizer"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
