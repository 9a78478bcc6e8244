"""How often the 95 % intervals of `finetune/evaluation/` hold the true value, by simulation.

    python scripts/studies/interval_coverage.py [--splits 200] [--only WORD]

Draws test splits from a known population of labels and predictions, and counts the intervals that
hold the population's own score. The populations: 83 labels whose rows fall off as Zipf's law, as in
Reuters-21578, most of them with a few rows, once with rare labels learned worse than frequent ones
and once without; and 4 labels of equal size, of many and of few documents. Prints a line for each:
the share of the intervals that hold the truth, and their mean width. With 200 splits, a coverage of
95 % is known to 3 points.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


Floats = NDArray[np.float64]


def population(classes: int, zipf: float, rare_are_hard: bool) -> Floats:
    """How often each true class (first index) is predicted as each. (classes, classes)"""
    draw = np.random.default_rng(3)
    sizes = 1 / np.arange(1, classes + 1) ** zipf
    recall = draw.beta(4, 2, classes)
    if rare_are_hard:
        recall = 0.95 - 0.75 * np.linspace(0, 1, classes) + draw.normal(0, 0.15, classes)
    found = np.zeros((classes, classes))
    for true, share in enumerate(recall.clip(0.02, 0.98)):
        wrong = sizes**0.7 * draw.gamma(0.5, 1.0, classes)  # mostly for frequent classes
        wrong[true] = 0
        found[true] = sizes[true] * (1 - share) * wrong / wrong.sum()
        found[true, true] = sizes[true] * share
    joint: Floats = found / found.sum()
    return joint


CASES = {  # classes, exponent of Zipf's law, whether rare classes are learned worse; rows
    "83 labels, rare ones hard": ((83, 1.3, True), 1000),
    "83 labels, all alike": ((83, 1.3, False), 1000),
    "83 labels, rare ones hard, 3,000 rows": ((83, 1.0, True), 3000),
    "4 balanced labels, 400 rows": ((4, 0.0, False), 400),
    "4 balanced labels, 40 rows": ((4, 0.0, False), 40),
    "4 balanced labels, 8 rows": ((4, 0.0, False), 8),
}


def macro_f1(only: str, splits: int) -> Iterator[tuple[str, float, float]]:
    """Macro-F1 over the labels that a split has, against their true macro-F1."""
    from finetune.evaluation import confusion  # after the arguments: it takes seconds

    for name, (how, rows) in CASES.items():
        if only not in name:
            continue
        joint, draw = population(*how), np.random.default_rng(0)
        true_f1 = 2 * np.diag(joint) / (joint.sum(axis=0) + joint.sum(axis=1))
        held, widths = 0, []
        for _ in range(splits):
            drawn = draw.choice(joint.size, rows, p=joint.ravel())
            labels, predicted = np.divmod(drawn, len(joint))
            table = confusion.Confusion.from_labels(labels, predicted, len(joint))
            low, high = table.interval("f1_macro")
            held += low <= true_f1[table.occurs].mean() <= high
            widths.append(high - low)
        yield f"macro-F1, {name}", held / splits, float(np.mean(widths))


def differences(only: str, splits: int) -> Iterator[tuple[str, float, float]]:
    """The paired difference of two models: the second repairs, and breaks, some of the first."""
    from finetune.evaluation import confusion  # after the arguments: it takes seconds

    for name, (how, rows) in CASES.items():
        if only not in name:
            continue
        joint, draw = population(*how), np.random.default_rng(1)
        classes = len(joint)
        true, first = (of.ravel() for of in np.divmod(np.arange(joint.size), classes))
        repaired, broken = 0.3, 0.05
        for metric in ("accuracy", "f1_macro"):
            # Of the population: each cell's rows as they are, or changed by the second model.
            second = joint * (1 - np.where(np.eye(classes) > 0, broken, repaired))
            diagonal = np.arange(classes)
            second[diagonal, diagonal] += repaired * (joint.sum(axis=1) - np.diag(joint))
            second[diagonal, (diagonal + 1) % classes] += broken * np.diag(joint)
            held, widths = 0, []
            for _ in range(splits):
                cells = draw.choice(joint.size, rows, p=joint.ravel())
                labels, ones = true[cells], first[cells]
                chance = draw.random(rows)
                others = np.where((ones != labels) & (chance < repaired), labels, ones)
                others = np.where(
                    (ones == labels) & (chance < broken), (labels + 1) % classes, others
                )
                found = confusion.paired_difference(metric, labels, others, ones, classes)
                low, high = cast(tuple[float, float], found["interval"])
                truth = _true_difference(metric, joint, second, (labels, ones, others))
                held += low <= truth <= high
                widths.append(high - low)
            yield f"difference of {metric}, {name}", held / splits, float(np.mean(widths))


def _true_difference(
    metric: str, joint: Floats, second: Floats, split: tuple[NDArray[np.int64], ...]
) -> float:
    """Of the population; macro-F1 over the labels that the split has."""
    if metric == "accuracy":
        return float(np.trace(second) - np.trace(joint))
    labels, ones, others = split
    scores = []
    for table, predicted in ((second, others), (joint, ones)):
        f1 = 2 * np.diag(table) / (table.sum(axis=0) + table.sum(axis=1))
        scores.append(f1[np.union1d(labels, predicted)].mean())
    return float(scores[0] - scores[1])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--splits", type=int, default=200, help="test splits to draw")
    parser.add_argument("--only", default="", help="the cases whose name holds this word")

    known = parser.parse_args()

    print(f"{'95 % interval':<60} {'holds':>7} {'width':>7}")
    for study in (macro_f1, differences):
        for name, held, width in study(known.only, known.splits):
            print(f"{name:<60} {100 * held:>6.1f}% {width:>7.3f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
