"""Documents without labels, and annotators who disagree: what does learning from shares bring?

    python scripts/studies/soft_label_study.py DATA model.source=ENCODER [section.key=value …]
        [--sets unlabelled votes] [--seeds 1] [--labelled 1000] [--unlabelled 9000]
        [--out runs/soft_label_study] [--table]

DATA holds a folder for each set; agnews is used, whose test is cut into 600 rows of validation and
2,000 of test. The seed draws the rows.

    unlabelled    `few` learns from the labelled rows; `student` from them and from unlabelled rows,
                  with `few` as its teacher (distil); `all` from all rows, with their labels
    votes         three simulated annotators each give a labelled row a wrong label, any of the
                  others, with a chance of --wrong; `majority` learns from the label that most give,
                  of ties the first one's, `votes` from their shares (data.label_probabilities)

`student` and `all` take as many steps. What was run already is not run again.
"""

import argparse
import json
import random
import shutil
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import study_runs

from finetune.runtime import console
from finetune.runtime.signals import SignalListener

ARMS = {"unlabelled": ("few", "all", "student"), "votes": ("majority", "votes")}
VALIDATION, TEST = 600, 2000
ANNOTATORS = 3
COMMON = ("data.max_length=64", "train.log_every=1000", "checkpoint.every=never")
Rows = list[dict[str, Any]]


def draw_rows(known: argparse.Namespace, seed: int) -> dict[str, Rows]:
    """Train's rows in a random order; validation and test are the same for all seeds."""
    train = study_runs.read_rows(known.data / "agnews", "train")
    random.Random(seed).shuffle(train)
    test = study_runs.read_rows(known.data / "agnews", "test")
    random.Random(0).shuffle(test)
    return {
        "train": train[: known.labelled + known.unlabelled],
        "validation": test[:VALIDATION],
        "test": test[VALIDATION : VALIDATION + TEST],
    }


def vote(rows: Rows, wrong: float, draw: random.Random) -> Rows:
    """The rows with the votes of three annotators, and the label that most of them give."""
    labels = sorted({row["label"] for row in rows})
    found = []
    for row in rows:
        others = [label for label in labels if label != row["label"]]
        given = [
            draw.choice(others) if draw.random() < wrong else row["label"]
            for _ in range(ANNOTATORS)
        ]
        votes = Counter(given)
        majority = max(given, key=lambda label: votes[label])  # of ties, the first
        found.append({"text": row["text"], "label": majority, "votes": dict(votes)})
    return found


def make_sets(known: argparse.Namespace, name: str, seed: int, folder: Path) -> dict[str, Path]:
    """The folder of each arm's rows; of `student`, also the file of unlabelled ones."""
    rows = draw_rows(known, seed)
    few = rows["train"][: known.labelled]
    if name == "votes":
        voted = vote(few, known.wrong, random.Random(seed))
        train = {
            "majority": [{key: row[key] for key in ("text", "label")} for row in voted],
            "votes": [{key: row[key] for key in ("text", "votes")} for row in voted],
        }
    else:
        train = {"few": few, "all": rows["train"], "student": few}
    for arm, own in train.items():
        (folder / arm).mkdir(parents=True, exist_ok=True)
        for split, some in (rows | {"train": own}).items():
            write(folder / arm / f"{split}.jsonl", some)
    texts = [{"text": row["text"]} for row in rows["train"][known.labelled :]]
    write(folder / "unlabelled.jsonl", texts)
    return {arm: folder / arm for arm in train}


def write(file: Path, rows: Rows) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run_seed(
    known: argparse.Namespace,
    words: Sequence[str],
    case: tuple[str, int],
    listener: SignalListener,
) -> dict[str, float] | None:
    """The test accuracy of each arm; None where there are none yet and only a table is wanted."""
    name, seed = case
    folder = known.out / name / f"seed-{seed}"
    files = {arm: folder / "runs" / f"{arm}.json" for arm in ARMS[name]}
    if known.table and not all(file.is_file() for file in files.values()):
        return None
    sources = make_sets(known, name, seed, folder)
    found: dict[str, float] = {}
    steps = 0
    for arm, file in files.items():
        own = [f"data.source={sources[arm]}", *COMMON, f"run.seed={seed}", *words]
        if arm == "votes":
            own.append("data.label_probabilities=votes")
        if arm == "all":
            own.append(f"train.epochs={known.epochs}")
        if arm == "student":
            own += [
                f"distil.teacher={folder / 'runs' / 'few'}",
                f"distil.unlabelled={folder / 'unlabelled.jsonl'}",
                f"train.epochs={known.epochs}",
                f"train.max_steps={steps}",
                f"train.min_steps={steps}",
            ]
        results = study_runs.run_once(file, own, listener, keep=arm == "few")
        steps = results["train"]["steps"]
        found[arm] = float(results["test"]["accuracy"])
    shutil.rmtree(folder / "runs" / "few", ignore_errors=True)
    return found


def report(found: Mapping[tuple[str, int], Mapping[str, float]]) -> str:
    """A line for each seed and the means, in percent; then what is recovered, or won, in pairs."""
    said = []
    for name in dict.fromkeys(name for name, _ in found):
        own = [(seed, one) for (other, seed), one in found.items() if other == name]
        lines: list[Sequence[str]] = [(name, *ARMS[name])]
        for seed, one in own:
            lines.append((f"seed {seed}", *(f"{100 * one[arm]:.1f}" for arm in ARMS[name])))
        if len(own) > 1:
            means = [spread([one[arm] for _, one in own]) for arm in ARMS[name]]
            lines.append(("mean ± sd", *means))
        said.append(console.format_table(lines))
        first, last = ARMS[name][0], ARMS[name][-1]
        gains = [one[last] - one[first] for _, one in own]
        said.append(f"{last} less {first}: {spread(gains, '+')} points")
        if name == "unlabelled":
            whole = statistics.fmean(one["all"] - one["few"] for _, one in own)
            share = statistics.fmean(gains) / whole if whole > 0 else float("nan")
            said.append(f"of the gap to all labels, {100 * share:.0f} % is recovered")
    return "\n".join(said)


def spread(values: Sequence[float], sign: str = "") -> str:
    """Mean and standard deviation, in percent."""
    mean = f"{100 * statistics.fmean(values):{sign}.1f}"
    return mean if len(values) < 2 else f"{mean} ± {100 * statistics.stdev(values):.1f}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = study_runs.study_parser(__doc__, "runs/soft_label_study", ARMS)
    parser.add_argument("--labelled", type=int, default=1000, help="rows with labels")
    parser.add_argument("--unlabelled", type=int, default=9000, help="rows without")
    parser.add_argument("--epochs", type=int, default=1, help="of student and all")
    parser.add_argument("--wrong", type=float, default=0.3, help="of an annotator's labels")
    return study_runs.run_study(parser, arguments, run_study)


def run_study(known: argparse.Namespace, words: Sequence[str]) -> int:
    """Run what is missing of the study, and print its table.

    Raises:
        InputError: for a problem in the data or an override.
        StoppedError: after a signal; the same command goes on.
    """
    found: dict[tuple[str, int], dict[str, float]] = {}
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
