"""How long documents are read: which choice scores best for the same number of trained tokens?

    python scripts/studies/long_document_study.py DATA [section.key=value …]
        [--sets bbc hidden] [--ways head tail head_tail mean max softmax] [--seeds 1]
        [--out runs/long_document_study] [--table]

DATA holds agnews, sst2 and bbc, as JSON Lines. Two sets of documents of several windows:

    bbc      articles, whose start tells their topic
    hidden   a review's sentence (sst2: negative or positive) at a random place among news (agnews):
             what decides the label is a twentieth of the document, anywhere

head, tail and head_tail read 128 tokens of a document; mean, max and softmax pool windows of 128
tokens. Windows read more tokens an epoch, so the others train for as many epochs as come to the
same number of tokens, which is then the same time. What was run already is not run again.
"""

import argparse
import itertools
import json
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import study_runs

from finetune.runtime import console
from finetune.runtime.signals import SignalListener

LENGTH = 128
WINDOWS = ("mean", "max", "softmax")
WAYS = ("head", "tail", "head_tail", *WINDOWS)
ROWS = {"train": 1200, "validation": 300, "test": 1000}
NEWS = 8  # articles of some 50 tokens around a hidden sentence
# Of a set, of windows and of what is cut: about as many tokens, as the table shows.
EPOCHS = {"bbc": (1, 4), "hidden": (2, 8)}
COMMON = (f"data.max_length={LENGTH}", "train.batch_size=16", "checkpoint.every=never")
OF_SET = {
    "bbc": ("data.test=carve", "data.test_fraction=0.2", "data.max_train_rows=1200"),
    "hidden": (),
}


def make_hidden(data: Path, folder: Path) -> Path:
    """Write the set of hidden sentences, the same one each time."""
    if folder.is_dir():
        return folder
    folder.mkdir(parents=True)
    draw = random.Random(0)
    for split, rows in ROWS.items():
        part = "test" if split == "test" else "train"
        reviews = study_runs.read_rows(data / "sst2", split)
        news = study_runs.read_rows(data / "agnews", part)
        draw.shuffle(reviews)
        with (folder / f"{split}.jsonl").open("w", encoding="utf-8") as lines:
            for review in reviews[:rows]:
                around = [str(one["text"]) for one in draw.sample(news, NEWS)]
                around.insert(draw.randint(0, NEWS), str(review["text"]))
                row = {"text": " ".join(around), "label": review["label"]}
                lines.write(json.dumps(row) + "\n")
    return folder


def words_of(name: str, way: str) -> list[str]:
    """The overrides that make a set be read in a way."""
    windows, cut = EPOCHS[name]
    if way in WINDOWS:
        reading = ["data.truncation=windows", f"data.window_pooling={way}", "data.stride=16"]
        return [*reading, f"train.epochs={windows}"]
    return [f"data.truncation={way}", f"train.epochs={cut}"]


def run_study(known: argparse.Namespace, words: Sequence[str]) -> int:
    """Run what is missing of the study, and print its table.

    Raises:
        InputError: for a problem in the data or an override.
        StoppedError: after a signal; the same command goes on.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    with SignalListener() as listener:
        for seed, name, way in itertools.product(range(known.seeds), known.sets, known.ways):
            file = known.out / name / f"{way}-seed-{seed}.json"
            if known.table and not file.is_file():
                continue
            source = known.data / "bbc"
            if name == "hidden":
                source = make_hidden(known.data, known.out / name / "data")
            asked = [f"data.source={source}", f"run.seed={seed}", *COMMON, *OF_SET[name]]
            one = study_runs.run_once(file, [*asked, *words_of(name, way), *words], listener)
            found.setdefault((name, way), []).append(one)
    print(f"\n{report(found)}")
    return 0


def report(found: dict[tuple[str, str], list[dict[str, Any]]]) -> str:
    """A line for each set and way to read: the means over the seeds."""
    lines: list[Sequence[str]] = [
        ("set", "reads", "trained tokens", "test accuracy, %", "95 % interval", "TF-IDF", "seeds")
    ]
    for (name, way), runs in found.items():
        low, high = runs[0]["test"]["intervals"]["accuracy"]
        lines.append(
            (
                name,
                way,
                f"{statistics.fmean(run['train']['tokens'] for run in runs):,.0f}",
                f"{100 * statistics.fmean(run['test']['accuracy'] for run in runs):.1f}",
                f"{100 * low:.1f} to {100 * high:.1f}" + " of the first" * (len(runs) > 1),
                f"{100 * runs[0]['baselines']['tfidf']['accuracy']:.1f}",
                str(len(runs)),
            )
        )
    return console.format_table(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = study_runs.study_parser(__doc__, "runs/long_document_study", EPOCHS)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[*WAYS])
    return study_runs.run_study(parser, arguments, run_study)


if __name__ == "__main__":
    sys.exit(main())
