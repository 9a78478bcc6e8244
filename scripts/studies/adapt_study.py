"""What continued pretraining brings: the same recipe from an encoder as it is, and adapted.

    python scripts/studies/adapt_study.py DATA model.source=ENCODER [section.key=value …]
        [--sets banking77 bbc] [--seeds 3] [--steps N] [--lr RATE] [--out runs/adapt_study]
        [--table]

DATA holds a folder for each set. The texts of its train rows, without their labels, are what the
encoder is adapted to, once; a set without a test split has every fifth document put aside for it
first. Then a few of the labelled rows are learned from both encoders, with the same seeds. What was
run already is not run again. Printed are the perplexities of held-out documents, and for each set
the scores on test and the mean of the paired differences with its standard error over the seeds.
"""

import argparse
import gzip
import json
import math
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


class Set(NamedTuple):
    """How a set is adapted to and learned.

    Attributes:
        steps: of `finetune adapt`, which has its defaults beside that.
        words: overrides of the recipe.
    """

    steps: int
    words: tuple[str, ...]


SETS = {
    "banking77": Set(200, ("data.max_train_rows=400", "data.max_test_rows=1000", "train.epochs=6")),
    "bbc": Set(60, ("data.max_train_rows=60", "data.max_length=64")),
    "emotion": Set(200, ("data.max_train_rows=400", "data.max_test_rows=1000", "train.epochs=6")),
}
ENCODERS = ("as it is", "adapted")
METRICS = ("accuracy", "f1_macro")
COMMON = ("train.log_every=1000", "checkpoint.every=never", "data.validation_fraction=0.1")
TEST_EVERY = 5  # documents of a set without a test split, one of which is put aside

Case = tuple[str, str, int]


def split_set(folder: Path, out: Path) -> Path:
    """A folder with a train and a test file: the set's own, or one that is cut from its rows."""
    if any(folder.glob("test.*")):
        return folder
    out.mkdir(parents=True, exist_ok=True)
    [file] = folder.glob("all.jsonl*")
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open() as lines:
        rows = [*{json.loads(line)["text"].strip(): line for line in lines}.values()]
    for name, part in (
        ("test", rows[::TEST_EVERY]),
        ("train", [row for i, row in enumerate(rows) if i % TEST_EVERY]),
    ):
        (out / f"{name}.jsonl").write_text("".join(part), encoding="utf-8")
    return out


def adapt(known: argparse.Namespace, name: str, data: Path, listener: SignalListener) -> Any:
    """What adapting to a set came to; None where it is not there and only a table is wanted."""
    from finetune.adaptation.pretraining import adapt_encoder
    from finetune.adaptation.settings import Settings

    folder, steps = known.out / name / "encoder", SETS[name].steps
    if not (folder / "adaptation.json").is_file():
        if known.table:
            return None
        train = next(path for path in sorted(data.iterdir()) if path.name.startswith("train."))
        length = dict.fromkeys(("train.min_steps", "train.max_steps"), known.steps or steps)
        keys = {**length, **known.adapting}
        adapt_encoder(
            Settings(known.encoder, (str(train),), folder, folder.is_dir(), keys=keys), listener
        )
    return study_runs.read(folder / "adaptation.json")


def run_one(
    known: argparse.Namespace, words: Sequence[str], case: Case, data: Path, listener: Any
) -> dict[str, float] | None:
    """The scores of a run on test; None where there are none yet and only a table is wanted."""
    name, encoder, seed = case
    file = known.out / name / f"{encoder.replace(' ', '-')}-{seed}.json"
    if known.table and not file.is_file():
        return None
    source = known.encoder if encoder == ENCODERS[0] else str(known.out / name / "encoder")
    asked = [f"data.source={data}", *COMMON, *SETS[name].words, *words]
    own = [f"run.seed={seed}", f"data.split_seed={seed}", f"model.source={source}"]
    whole = study_runs.run_once(file, [*asked, *own], listener)
    return {metric: float(whole["test"][metric]) for metric in METRICS}


def report(adapted: Mapping[str, Any], found: Mapping[Case, Any]) -> str:
    """The perplexities; a line for each set and encoder; the paired differences."""
    said = []
    for name, one in adapted.items():
        if one is not None:
            perplexity, train = one["perplexity"], one["train"]
            said.append(
                f"{name}: perplexity {perplexity['before']:.1f} before, {perplexity['after']:.1f} "
                f"after {train['steps']:,} steps in {train['seconds']:,.0f} s"
            )
    lines: list[Sequence[str]] = [("set", "encoder", *METRICS, "runs")]
    for name, encoder in {case[:2]: None for case in found}:
        runs = [one for case, one in found.items() if case[:2] == (name, encoder) and one]
        if runs:
            means = [f"{100 * statistics.fmean(run[m] for run in runs):.1f}" for m in METRICS]
            lines.append((name, encoder, *means, str(len(runs))))
    said.append(console.format_table(lines, left=2))
    for name in {case[0]: None for case in found}:
        for metric in METRICS:
            pairs = [
                100 * (found[name, ENCODERS[1], seed][metric] - one[metric])
                for (own, encoder, seed), one in found.items()
                if own == name and encoder == ENCODERS[0] and one
                if found[name, ENCODERS[1], seed]
            ]
            if pairs:
                error = math.nan
                if len(pairs) > 1:
                    error = statistics.stdev(pairs) / math.sqrt(len(pairs))
                said.append(
                    f"{name}, adapted less as it is, {metric}: {statistics.fmean(pairs):+.1f} ± "
                    f"{error:.1f} points over {len(pairs)} seeds"
                )
    return "\n".join(said)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = study_runs.study_parser(__doc__, "runs/adapt_study", SETS)
    parser.add_argument("--steps", type=int, help="of adapting (default: each set's own)")
    parser.add_argument("--lr", type=float, help="of adapting (default: that of finetune adapt)")
    return study_runs.run_study(parser, arguments, run_study)


def run_study(known: argparse.Namespace, words: Sequence[str]) -> int:
    """Run what is missing of the study, and print its table.

    Raises:
        InputError: for a problem in the data or an override.
        StoppedError: after a signal; the same command goes on.
    """
    sources = [word.partition("=")[2] for word in words if word.startswith("model.source=")]
    if not sources:
        raise InputError("expected model.source=ENCODER, the encoder to adapt")
    known.encoder = sources[-1]
    threads = [int(word.partition("=")[2]) for word in words if word.startswith("train.threads=")]
    known.adapting = {"train.threads": threads[-1]} if threads else {}
    known.adapting |= {} if known.lr is None else {"optim.lr": known.lr}
    words = [word for word in words if not word.startswith("model.source=")]
    adapted, found = {}, {}
    with SignalListener() as listener:
        for name in known.sets:
            data = split_set(known.data / name, known.out / name / "data")
            adapted[name] = adapt(known, name, data, listener)
            for seed in range(known.seeds):
                for encoder in ENCODERS:
                    case = (name, encoder, seed)
                    found[case] = run_one(known, words, case, data, listener)
    print(f"\n{report(adapted, found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
