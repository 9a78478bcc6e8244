"""The head's learning rate of multi-label models: 1, or labels / 8?

    python scripts/studies/multi_label_study.py DATA [section.key=value …]
        [--sets goemotions …] [--scales 1 labels/8 …] [--seeds 1] [--out runs/multi_label_study]
        [--table]

DATA holds a folder for each set, with train.jsonl.gz and test.jsonl. goemotions is multi-label
as it is. Two more are made of single-label sets: a document is two to three of their texts, one
after the other, in an order that is drawn, and has the labels of all of them.

    banking    banking77: 77 labels, of which each stands in few documents
    mixed      snips and trec6: 13 labels

What was run already is not run again, so the study may be stopped and taken up. Test is scored once
a run. Each takes 1,500 train rows, so that the whole study fits into an hour on two cores.
"""

import argparse
import itertools
import json
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import study_runs

from finetune.runtime import console
from finetune.runtime.signals import SignalListener

# Each set → the single-label sets that its documents are made of; none: it is one already.
SETS: dict[str, tuple[str, ...]] = {
    "goemotions": (),
    "banking": ("banking77",),
    "mixed": ("snips", "trec6"),
}
SCALES = ("1", "labels/8")
ROWS = {"train": 1500, "validation": 500, "test": 1000}
OWN = 500  # of train's texts that are validation's alone
METRICS = ("f1_macro", "f1_micro", "loss")
COMMON = (
    *(f"data.max_{split}_rows={rows}" for split, rows in ROWS.items()),
    "data.max_length=64",
    "train.log_every=1000",
    "checkpoint.every=never",
)


def join_documents(
    sources: Sequence[Sequence[dict[str, Any]]], rows: int, draw: random.Random
) -> Iterator[dict[str, Any]]:
    """Documents of two or three texts, each with the labels of all of them."""
    for number in range(rows):
        chosen = [draw.choice(sources[i % len(sources)]) for i in range(2 + number % 2)]
        draw.shuffle(chosen)
        labels = sorted({str(one["label"]) for one in chosen})
        yield {"text": " ".join(str(one["text"]) for one in chosen), "label": labels}


def make_set(data: Path, name: str, out: Path) -> Path:
    """The folder of a set, which is written where it is made of others."""
    if not SETS[name]:
        return data / name
    folder = out / name / "data"
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    pools = {
        s: [study_runs.read_rows(data / one, s) for one in SETS[name]] for s in ("train", "test")
    }
    for own in pools["train"]:
        draw.shuffle(own)  # a file may be in the order of its labels
    for split, rows in ROWS.items():
        parts = {"train": slice(None, -OWN), "validation": slice(-OWN, None)}
        part = parts.get(split, slice(None))
        pool = [own[part] for own in pools["test" if split == "test" else "train"]]
        lines = (json.dumps(row) + "\n" for row in join_documents(pool, rows, draw))
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def run_one(
    known: argparse.Namespace,
    words: Sequence[str],
    case: tuple[str, str, int],
    listener: SignalListener,
) -> dict[str, Any] | None:
    """The results of a run; None where there are none yet and only a table is wanted."""
    name, scale, seed = case
    file = known.out / name / scale.replace("/", "-") / f"seed-{seed}.json"
    if known.table and not file.is_file():
        return None
    source = make_set(known.data, name, known.out)
    labels = {one for row in study_runs.read_rows(source, "train") for one in row["label"]}
    rate = len(labels) / float(scale.partition("/")[2]) if "/" in scale else float(scale)
    asked = [f"data.source={source}", f"run.seed={seed}", f"optim.head_lr_scale={rate}"]
    found: dict[str, Any] = study_runs.run_once(file, [*asked, *COMMON, *words], listener)
    return found


def report(found: dict[tuple[str, str], list[Any]]) -> str:
    """A line for each set and scale: the means over the seeds."""
    lines: list[Sequence[str]] = [("set", "head's rate ×", *METRICS, "TF-IDF f1_macro", "runs")]
    for (name, scale), runs in found.items():
        if runs:
            means = [statistics.fmean(run["test"][metric] for run in runs) for metric in METRICS]
            tfidf = runs[0]["baselines"]["tfidf"]["f1_macro"]
            cells = [f"{100 * mean:.1f}" for mean in means[:-1]] + [f"{means[-1]:.3f}"]
            lines.append((name, scale, *cells, f"{100 * tfidf:.1f}", str(len(runs))))
    return console.format_table(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = study_runs.study_parser(__doc__, "runs/multi_label_study", SETS)
    parser.add_argument("--scales", nargs="+", default=SCALES)
    return study_runs.run_study(parser, arguments, run_study)


def run_study(known: argparse.Namespace, words: Sequence[str]) -> int:
    """Run what is missing of the study, and print its table.

    Raises:
        InputError: for a problem in the data or an override.
        StoppedError: after a signal; the same command goes on.
    """
    known.out.mkdir(parents=True, exist_ok=True)
    found: dict[tuple[str, str], list[Any]] = {}
    with SignalListener() as listener:
        for seed, name, scale in itertools.product(range(known.seeds), known.sets, known.scales):
            one = run_one(known, words, (name, scale, seed), listener)
            found.setdefault((name, scale), []).extend([] if one is None else [one])
    print(f"\n{report(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
