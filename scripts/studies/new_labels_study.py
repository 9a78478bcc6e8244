"""Seven labels more: does a model that goes on with them forget the seventy that it knows?

    python scripts/studies/new_labels_study.py DATA model.source=ENCODER [section.key=value …]
        [--sets banking77] [--new 7] [--share 0.3] [--seeds 1] [--out runs/new_labels_study]
        [--table]

DATA holds a folder for each set. A seed draws the new labels, and the tenth of train that is
validation. Three runs follow, all scored on the same test rows:

    parent     the encoder, with the rows of the old labels
    child      the parent (model.head_init keep), with the rows of all labels, for a share of the
               steps
    scratch    the encoder, with the rows of all labels and all steps

`taken` are the parent's right answers that the child gives a new label, and `new` is the accuracy
on rows of new labels. What was run already is not run again.
"""

import argparse
import json
import random
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import study_runs

from finetune.runtime import console
from finetune.runtime.signals import SignalListener

SETS = ("banking77",)
COMMON = (
    "data.max_length=64",
    "train.epochs=2",
    "train.log_every=1000",
    "checkpoint.every=never",
)
Rows = list[dict[str, Any]]
Found = dict[str, float]


def make_sets(data: Path, folder: Path, new: int, seed: int) -> frozenset[str]:
    """Write the rows of the old labels and those of all into two folders; return the new labels."""
    draw = random.Random(seed)
    rows = {split: study_runs.read_rows(data, split) for split in ("train", "test")}
    draw.shuffle(rows["train"])
    labels = sorted({row["label"] for row in rows["train"]})
    chosen = frozenset(draw.sample(labels, new))
    tenth = len(rows["train"]) // 10
    splits = {
        "train": rows["train"][tenth:],
        "validation": rows["train"][:tenth],
        "test": rows["test"],
    }
    for name, left_out in (("old", chosen), ("all", frozenset[str]())):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for split, own in splits.items():
            lines = [json.dumps(row) + "\n" for row in own if row["label"] not in left_out]
            (folder / name / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return chosen


def run_seed(
    known: argparse.Namespace,
    words: Sequence[str],
    case: tuple[str, int],
    listener: SignalListener,
) -> Found | None:
    """The scores of the three runs; None where there are none yet and only a table is wanted."""
    name, seed = case
    folder = known.out / name / f"seed-{seed}"
    files = {kind: folder / f"{kind}.json" for kind in ("parent", "scratch", "child")}
    if known.table and not all(file.is_file() for file in files.values()):
        return None
    new = make_sets(known.data / name, folder, known.new, seed)
    common = [*COMMON, f"run.seed={seed}", *words]
    old, everything = f"data.source={folder / 'old'}", f"data.source={folder / 'all'}"
    run = study_runs.run_once
    parent = run(files["parent"], [*common, old], listener, keep=True)
    scratch = run(files["scratch"], [*common, everything], listener)
    steps = round(known.share * scratch["train"]["steps"])
    go_on = [
        f"model.source={folder / 'parent'}",
        "model.head_init=keep",
        f"train.max_steps={steps}",
    ]
    child = run(files["child"], [*common, everything, *go_on], listener)
    shutil.rmtree(folder / "parent", ignore_errors=True)
    return {
        "parent": parent["test"]["accuracy"],
        "child": child["parent"]["after"],
        "scratch": recall_of(scratch, new, False),
        "change": child["parent"]["difference"],
        "taken": child["parent"]["taken_by_new"] / child["parent"]["rows"],
        "child, new": child["parent"]["new_recall"],
        "scratch, new": recall_of(scratch, new, True),
        "steps": steps / scratch["train"]["steps"],
    }


def recall_of(results: Mapping[str, Any], labels: frozenset[str], inside: bool) -> float:
    """The accuracy on test rows of these labels, or of all others."""
    own = [one for one in results["classes"] if (one["label"] in labels) == inside]
    right = sum(one["recall"] * one["support"] for one in own)
    return float(right / sum(one["support"] for one in own))


def report(found: Mapping[tuple[str, int], Found]) -> str:
    """A line for each seed, then means and standard deviations, in percent."""
    cases = [*found.items()]
    lines: list[Sequence[str]] = [("set", "seed", *cases[0][1])]
    for (name, seed), one in cases:
        lines.append((name, str(seed), *(f"{100 * value:.1f}" for value in one.values())))
    for name in dict.fromkeys(name for name, _ in found):
        own = [one for (other, _), one in cases if other == name]
        if len(own) > 1:
            lines.append(
                (name, "mean ± sd", *(spread([one[key] for one in own]) for key in own[0]))
            )
    return console.format_table(lines)


def spread(values: Sequence[float]) -> str:
    return f"{100 * statistics.fmean(values):.1f} ± {100 * statistics.stdev(values):.1f}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = study_runs.study_parser(__doc__, "runs/new_labels_study", SETS)
    parser.add_argument("--new", type=int, default=7, help="how many labels the parent lacks")
    parser.add_argument("--share", type=float, default=0.3, help="of the steps, for the child")
    return study_runs.run_study(parser, arguments, run_study)


def run_study(known: argparse.Namespace, words: Sequence[str]) -> int:
    """Run what is missing of the study, and print its table.

    Raises:
        InputError: for a problem in the data or an override.
        StoppedError: after a signal; the same command goes on.
    """
    found: dict[tuple[str, int], Found] = {}
    with SignalListener() as listener:
        for name in known.sets:
            for seed in range(known.seeds):
                one = run_seed(known, words, (name, seed), listener)
                if one is not None:
                    found[name, seed] = one
    print(f"\n{report(found)}" if found else "nothing was run yet")
    return 0


if __name__ == "__main__":
    sys.exit(main())
