"""The encoder's own classification class, or pooling and one linear layer: which scores better?

    python scripts/studies/head_study.py DATA model.source=ENCODER [section.key=value …]
        [--sets agnews …] [--seeds 1] [--out runs/head_study] [--table]

DATA holds a folder for each set. Both heads (model.head) get the same rows in the same order, and
are scored on the same test rows. What was run already is not run again, so the study may be stopped
and taken up. Printed are a line for each set and head, and the mean difference over all pairs with
its standard error over the sets.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import study_runs

from finetune.runtime import console
from finetune.runtime.signals import SignalListener

SETS = ("agnews", "emotion", "sst2", "trec6", "banking77", "snips")
HEADS = ("linear", "native")
METRICS = ("accuracy", "f1_macro")
COMMON = (
    "data.max_train_rows=1000",
    "data.max_validation_rows=200",
    "data.max_test_rows=1000",
    "data.max_length=64",
    "train.epochs=2",
    "train.log_every=1000",
    "checkpoint.every=never",
)

Case = tuple[str, str, int]


def run_one(
    known: argparse.Namespace, words: Sequence[str], case: Case, listener: SignalListener
) -> dict[str, float] | None:
    """The scores of a run on test; None where there are none yet and only a table is wanted."""
    name, head, seed = case
    file = known.out / name / f"{head}-{seed}.json"
    if known.table and not file.is_file():
        return None
    asked = [f"data.source={known.data / name}", *COMMON, f"run.seed={seed}", f"model.head={head}"]
    whole = study_runs.run_once(file, [*asked, *words], listener)
    found = {metric: float(whole["test"][metric]) for metric in METRICS}
    found["rows_per_second"] = float(whole["train"]["rows_per_second"])
    return found


def report(found: Mapping[Case, Any]) -> str:
    """A line for each set and head, the means over the seeds; then the differences."""
    lines: list[Sequence[str]] = [("set", "head", *METRICS, "rows/s", "runs")]
    pairs: dict[str, list[dict[str, float]]] = {}
    for name, seed in {(name, seed): None for name, _, seed in found}:
        both = [found[name, head, seed] for head in HEADS]
        if None not in both:
            linear, native = both
            pairs.setdefault(name, []).append({m: native[m] - linear[m] for m in METRICS})
    for name, head in {(name, head): None for name, head, _ in found}:
        runs = [one for case, one in found.items() if case[:2] == (name, head) and one is not None]
        if runs:
            means = {key: statistics.fmean(run[key] for run in runs) for key in runs[0]}
            scores = [f"{100 * means[metric]:.1f}" for metric in METRICS]
            speed = f"{means['rows_per_second']:.1f}"
            lines.append((name, head, *scores, speed, str(len(runs))))
    said = [console.format_table(lines)]
    for metric in METRICS if pairs else ():
        of_set = [100 * statistics.fmean(pair[metric] for pair in own) for own in pairs.values()]
        mean, error = statistics.fmean(of_set), math.nan
        if len(of_set) > 1:
            error = statistics.stdev(of_set) / math.sqrt(len(of_set))
        said.append(
            f"native less linear, {metric}: {mean:+.1f} ± {error:.1f} points over {len(of_set)} "
            f"sets, from {min(of_set):+.1f} to {max(of_set):+.1f}"
        )
    return "\n".join(said)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = study_runs.study_parser(__doc__, "runs/head_study", SETS)
    return study_runs.run_study(parser, arguments, run_study)


def run_study(known: argparse.Namespace, words: Sequence[str]) -> int:
    """Run what is missing of the study, and print its table.

    Raises:
        InputError: for a problem in the data or an override.
        StoppedError: after a signal; the same command goes on.
    """
    cases = [(name, head, s) for s in range(known.seeds) for name in known.sets for head in HEADS]
    with SignalListener() as listener:
        found = {case: run_one(known, words, case, listener) for case in cases}
    print(f"\n{report(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
