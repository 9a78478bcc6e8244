"""Labels with levels: TREC's 6 kinds of questions and the 50 below them, in one model.

    python scripts/studies/levels_study.py train_5500.label TREC_10.label model.source=ENCODER
        [section.key=value …] [--seeds 3] [--out runs/levels_study] [--table]

The two files are those of Li & Roth 2002, with lines such as `DESC:manner How did serfdom …` in
Latin-1. They become the columns `coarse` (DESC), `below` (manner) and `fine` (DESC/manner) of JSON
Lines in OUT; a tenth of train, drawn by the seed, is validation. Three models are fine-tuned alike:

    levels     data.label: [coarse, below], data.hierarchy: one softmax over the paths
    tasks      data.tasks: [coarse, fine]: two softmaxes, neither of which knows of the other
    coarse     data.label: coarse: a flat model of the 6 kinds

Accuracies are on the 500 test rows, and `hierarchical F1` is of both levels together, by the
predicted labels of each. `inconsistent` counts the rows whose two labels do not make a path, such
as LOC and NUM/date, and where a part of a path is more probable than what it is part of. A flat
model of the 50 fine labels is `levels` itself, as its loss is the same: `--flat` trains it, and
says whether its weights are. What was run already is not run again.
"""

import argparse
import json
import random
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import study_runs

from finetune.runtime import console
from finetune.runtime.errors import InputError
from finetune.runtime.signals import SignalListener

COMMON = ("train.epochs=4", "train.log_every=1000", "checkpoint.every=never")
METRICS = "score.metrics=[accuracy, f1_macro]"
MODELS = {
    "levels": ("data.label=[coarse, below]", "data.hierarchy=/"),
    "tasks": ("data.tasks=[coarse, fine]", METRICS, "score.monitor=fine.accuracy"),
    "coarse": ("data.label=coarse", METRICS),
}
FLAT = ("data.label=fine", METRICS)
SCORES = ("coarse", "fine", "fine, macro-F1", "hierarchical F1", "inconsistent")
Rows = list[dict[str, str]]
Found = dict[str, float | None]


def read_questions(file: Path) -> Rows:
    """The rows of one of the two files.

    Raises:
        InputError: for a file that is not there, or a line that is not `COARSE:fine question`.
    """
    try:
        text = file.read_text(encoding="latin-1")
    except OSError as error:
        raise InputError(f"{file}: expected a file of TREC, found {error.strerror}") from None
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        name, _, question = line.strip().partition(" ")
        coarse, colon, below = name.partition(":")
        if not (coarse and colon and below and question):
            what = "a line such as 'LOC:city What county is Modesto in ?'"
            raise InputError(f"{file}, line {number}: expected {what}, found another")
        rows.append(
            {"text": question, "coarse": coarse, "below": below, "fine": f"{coarse}/{below}"}
        )
    return rows


def make_set(files: Sequence[Path], folder: Path, seed: int) -> None:
    """Write train, validation and test, where they are not there yet."""
    if folder.is_dir():
        return
    train, test = map(read_questions, files)
    random.Random(seed).shuffle(train)
    tenth = len(train) // 10
    parts = {"train": train[tenth:], "validation": train[:tenth], "test": test}
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in parts.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")


def run_model(
    known: argparse.Namespace, words: Sequence[str], case: tuple[str, int], listener: SignalListener
) -> Found | None:
    """The scores of a model with a seed; None where it was not run and only a table is wanted."""
    name, seed = case
    folder = known.out / f"seed-{seed}"
    scores = folder / f"{name}-scores.json"
    if not scores.is_file():
        if known.table:
            return None
        make_set((known.train, known.test), folder / "rows", seed)
        results = study_runs.run_once(
            folder / f"{name}.json",
            [*COMMON, f"data.source={folder / 'rows'}", f"run.seed={seed}", *MODELS[name], *words],
            listener,
            keep=True,
        )
        found = measure(name, folder, results)
        scores.write_text(json.dumps(found), encoding="utf-8")
    return dict(study_runs.read(scores))


def measure(name: str, folder: Path, results: Mapping[str, Any]) -> Found:
    """The scores of a model, by what it predicts of the test rows."""
    from finetune import load

    test = results["test"]
    if name == "coarse":
        return dict.fromkeys(SCORES) | {"coarse": test["accuracy"]}
    rows = [json.loads(line) for line in (folder / "rows" / "test.jsonl").open(encoding="utf-8")]
    said = load(folder / name)([row["text"] for row in rows])
    if name == "levels":
        paths = [one["levels"] for one in said]
        falls = [one["level_scores"][0] >= one["level_scores"][1] for one in said]
        macro = test["f1_macro"]
    else:
        paths = [(one["coarse"], one["fine"]) for one in said]
        falls = [True] * len(said)  # of two softmaxes, only the labels can be compared
        macro = test["fine.f1_macro"]
    coarse = [row["coarse"] == path[0] for row, path in zip(rows, paths, strict=True)]
    fine = [row["fine"] == path[1] for row, path in zip(rows, paths, strict=True)]
    broken = sum(
        not (path[1].startswith(f"{path[0]}/") and falling)
        for path, falling in zip(paths, falls, strict=True)
    )
    return {
        "coarse": statistics.fmean(coarse),
        "fine": statistics.fmean(fine),
        "fine, macro-F1": macro,
        # Each row has two nodes, and is given two: precision, recall and F1 are the same.
        "hierarchical F1": (sum(coarse) + sum(fine)) / (2 * len(rows)),
        "inconsistent": broken,
    }


def report(found: Mapping[tuple[str, int], Found]) -> str:
    """A line for each run, then means and standard deviations; in percent, but for counts."""
    lines: list[Sequence[str]] = [("model", "seed", *SCORES)]
    for (name, seed), one in found.items():
        lines.append((name, str(seed), *(show(key, [one[key]]) for key in SCORES)))
    for name in MODELS:
        own = [one for (other, _), one in found.items() if other == name]
        if len(own) > 1:
            cells = [show(key, [one[key] for one in own]) for key in SCORES]
            lines.append((name, "mean ± sd", *cells))
    return console.format_table(lines)


def show(key: str, values: Sequence[float | None]) -> str:
    """One number, or the mean and the standard deviation of several; counts are summed."""
    there = [value for value in values if value is not None]
    if not there:
        return "–"
    if key == "inconsistent":
        return f"{sum(there):g}"
    mean = f"{100 * statistics.fmean(there):.1f}"
    return mean if len(there) == 1 else f"{mean} ± {100 * statistics.stdev(there):.1f}"


def compare_flat(known: argparse.Namespace, words: Sequence[str], listener: SignalListener) -> str:
    """Whether a flat model of the fine labels has the weights of `levels`, with seed 0."""
    folder = known.out / "seed-0"
    asked = [*COMMON, f"data.source={folder / 'rows'}", "run.seed=0", *FLAT, *words]
    flat = study_runs.run_once(folder / "flat.json", asked, listener)
    levels = study_runs.read(folder / "levels.json")
    same = flat["hashes"]["weights"] == levels["hashes"]["weights"]
    return f"flat model of the fine labels: {'the same' if same else 'other'} weights as 'levels'"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train", type=Path, help="train_5500.label")
    parser.add_argument("test", type=Path, help="TREC_10.label")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/levels_study"))
    parser.add_argument("--flat", action="store_true", help="also a flat model of the fine labels")
    parser.add_argument("--table", action="store_true", help="print what there is, run nothing")
    return study_runs.run_study(parser, arguments, run_all)


def run_all(known: argparse.Namespace, words: Sequence[str]) -> int:
    """Run what is missing of the study, and print its table.

    Raises:
        InputError: for a problem in the files or an override.
        StoppedError: after a signal; the same command goes on.
    """
    found: dict[tuple[str, int], Found] = {}
    said = ""
    with SignalListener() as listener:
        for seed in range(known.seeds):
            for name in MODELS:
                one = run_model(known, words, (name, seed), listener)
                if one is not None:
                    found[name, seed] = one
        if known.flat and not known.table:
            said = f"\n{compare_flat(known, words, listener)}"
    print(f"\n{report(found)}{said}" if found else "nothing was run yet")
    return 0


if __name__ == "__main__":
    sys.exit(main())
