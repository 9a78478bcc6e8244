"""Small and fast students of a trained encoder: what do they lose?

    python scripts/studies/small_model_study.py DATA model.source=ENCODER [section.key=value …]
        [--sets agnews emotion] [--arms cut student …] [--seeds 3] [--first 0] [--labelled 4000]
        [--unlabelled 6000] [--keep] [--out runs/small_model_study] [--table]

DATA holds a folder for each set. The seed draws the labelled rows, which all learn from, and the
unlabelled ones. A set without a validation split has 2,000 rows of test for it, and is scored on
4,000 others. The teacher is trained first, as the recipe's defaults say, and each arm is compared
with it on the same rows:

    cut             three layers of the encoder, with labels alone
    student         three layers of the encoder, with the teacher and the unlabelled rows
    static          a table of static embeddings of the encoder, with labels alone
    static-taught   the same table, with the teacher and the unlabelled rows
    static-student  a table of the teacher's encoder, with the teacher and the unlabelled rows

What was run already is not run again. --keep leaves the runs' folders, for bench_small_models.py.
"""

import argparse
import json
import math
import random
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

import study_runs

from finetune.runtime import console
from finetune.runtime.errors import InputError
from finetune.runtime.signals import SignalListener

SETS = ("agnews", "emotion")
VALIDATION, TEST = 2000, 4000
COMMON = ("train.log_every=1000", "checkpoint.every=never")
TEACHER = "teacher"


class Arm(NamedTuple):
    """A small model.

    Attributes:
        words: overrides of the recipe.
        source: of the model, with {encoder} and {teacher}.
        is_taught: whether it learns from the teacher, and from the unlabelled rows.
    """

    words: tuple[str, ...]
    source: str = "{encoder}"
    is_taught: bool = False


ARMS = {
    "cut": Arm(("model.keep_layers=3",)),
    "student": Arm(("model.keep_layers=3",), is_taught=True),
    "static": Arm(("train.epochs=6",), "static:{encoder}"),
    "static-taught": Arm(("train.epochs=6",), "static:{encoder}", is_taught=True),
    "static-student": Arm(("train.epochs=6",), "static:{teacher}/model", is_taught=True),
}
Rows = list[dict[str, Any]]
Case = tuple[str, int]  # set, seed


def make_data(known: argparse.Namespace, case: Case, folder: Path) -> None:
    """The files of a seed: data/{train,validation,test}.jsonl and unlabelled.jsonl."""
    name, seed = case
    source = known.data / name
    train = study_runs.read_rows(source, "train")
    random.Random(seed).shuffle(train)
    test = study_runs.read_rows(source, "test")
    if any(source.glob("validation.*")):
        validation = study_runs.read_rows(source, "validation")
    else:
        random.Random(0).shuffle(test)  # the same for all seeds
        validation, test = test[:VALIDATION], test[VALIDATION : VALIDATION + TEST]
    rest = train[known.labelled : known.labelled + known.unlabelled]
    data = folder / "data"
    data.mkdir(parents=True, exist_ok=True)
    write(data / "train.jsonl", train[: known.labelled])
    write(data / "validation.jsonl", validation)
    write(data / "test.jsonl", test)
    write(folder / "unlabelled.jsonl", [{"text": row["text"]} for row in rest])


def write(file: Path, rows: Rows) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def run_seed(
    known: argparse.Namespace, words: Sequence[str], case: Case, listener: SignalListener
) -> dict[str, Any]:
    """What each arm came to; without those that are not there if only a table is wanted."""
    folder = known.out / case[0] / f"seed-{case[1]}"
    files = {arm: folder / "runs" / f"{arm}.json" for arm in (TEACHER, *known.arms)}
    missing = [arm for arm, file in files.items() if not file.is_file()]
    if missing and not known.table:
        make_data(known, case, folder)
    found = {}
    for arm, file in files.items():
        if arm in missing and known.table:
            continue
        own = words_of(known.encoder, arm, folder)
        shared = [f"data.source={folder / 'data'}", *COMMON, f"run.seed={case[1]}", *own, *words]
        found[arm] = study_runs.run_once(file, shared, listener, keep=known.keep or arm == TEACHER)
    return found


def words_of(encoder: str, arm: str, folder: Path) -> list[str]:
    """The overrides that make an arm."""
    if arm == TEACHER:
        return [f"model.source={encoder}"]
    teacher, one = folder / "runs" / TEACHER, ARMS[arm]
    words = [f"model.source={one.source.format(encoder=encoder, teacher=teacher)}", *one.words]
    if one.is_taught:
        words += [f"distil.teacher={teacher}", f"distil.unlabelled={folder / 'unlabelled.jsonl'}"]
    return words


def report(found: Mapping[Case, Mapping[str, Any]], arms: Sequence[str]) -> str:
    """A line for each arm of each set: test accuracy, and what it is less than the teacher's."""
    said = []
    for name in dict.fromkeys(name for name, _ in found):
        own = {seed: one for (other, seed), one in found.items() if other == name}
        lines: list[Sequence[str]] = [(name, "accuracy", "less the teacher's", "of seeds")]
        for arm in (TEACHER, *arms):
            seeds = [seed for seed, one in own.items() if {arm, TEACHER} <= {*one}]
            if not seeds:
                continue
            scores = {seed: 100 * float(own[seed][arm]["test"]["accuracy"]) for seed in seeds}
            lost = [s - 100 * own[seed][TEACHER]["test"]["accuracy"] for seed, s in scores.items()]
            each = ", ".join(str(seed) for seed in seeds)
            shown = "" if arm == TEACHER else describe_spread(lost)
            lines.append((arm, f"{statistics.fmean(scores.values()):.1f}", shown, each))
        said.append(console.format_table(lines))
    return "\n\n".join(said)


def describe_spread(values: Sequence[float]) -> str:
    """The mean, with its standard error where there are several."""
    mean = f"{statistics.fmean(values):+.2f}"
    if len(values) < 2:
        return mean
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean} ± {error:.2f} ({', '.join(f'{value:+.2f}' for value in values)})"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = study_runs.study_parser(__doc__, "runs/small_model_study", SETS)
    parser.add_argument("--arms", nargs="+", choices=[*ARMS], default=[*ARMS])
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--labelled", type=int, default=4000, help="rows with labels")
    parser.add_argument("--unlabelled", type=int, default=6000, help="rows without")
    parser.add_argument("--keep", action="store_true", help="leave the folders of the runs")
    return study_runs.run_study(parser, arguments, run_study)


def run_study(known: argparse.Namespace, words: Sequence[str]) -> int:
    """Run what is missing of the study, and print its table.

    Raises:
        InputError: for a problem in the data or an override.
        StoppedError: after a signal; the same command goes on.
    """
    sources = [word.partition("=")[2] for word in words if word.startswith("model.source=")]
    if not sources and not known.table:
        raise InputError("expected model.source=ENCODER, of the teacher")
    known.encoder = sources[-1] if sources else ""
    words = [word for word in words if not word.startswith("model.source=")]
    with SignalListener() as listener:
        found = {
            (name, seed): run_seed(known, words, (name, seed), listener)
            for name in known.sets
            for seed in range(known.first, known.first + known.seeds)
        }
    print(f"\n{report(found, known.arms)}" if any(found.values()) else "nothing was run yet")
    return 0


if __name__ == "__main__":
    sys.exit(main())
