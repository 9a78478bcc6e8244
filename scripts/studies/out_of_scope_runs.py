"""The work of out_of_scope_study.py, which imports what --help does not need."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

import frozen_states
import study_runs

from finetune.evaluation import out_of_scope
from finetune.evaluation.out_of_scope import Seen
from finetune.inference.classifier import Classifier
from finetune.inference.engines import EngineOptions
from finetune.inference.records import Record
from finetune.inference.torch_engine import torch_engine
from finetune.modeling import saved_model
from finetune.runtime.signals import SignalListener

LEFT_OUT, RATE = 19, 0.05
OTHERS = 500  # documents of the other domain
COMMON = (
    "data.max_length=64",
    "train.epochs=2",
    "train.log_every=1000",
    "checkpoint.every=never",
)
Rows = Sequence[dict[str, Any]]
Vectors = Mapping[str, Any]
# The rows of one part → what a model makes of them.
See = Callable[[str], Seen]
PARTS = ("train", "validation", "inside", "outside", "other")


def run_study(known: argparse.Namespace, words: Sequence[str]) -> None:
    """As out_of_scope_study.py says it, with its options.

    Raises:
        InputError: for a problem in the data or an override.
        StoppedError: after a signal.
    """
    rows = {split: study_runs.read_rows(known.banking77, split) for split in ("train", "test")}
    rows["other"] = study_runs.read_rows(known.other, "test")[:OTHERS]
    found: dict[str, list[dict[str, float]]] = {}
    vectors: Vectors = {}
    if known.tuned is None:
        texts = [row["text"] for some in rows.values() for row in some]
        vectors = dict(zip(texts, frozen_states.encode(texts), strict=True))
    with SignalListener() as listener:
        for seed in known.draws:
            parts, kept = divide(rows, seed)
            see = (
                see_tuned(parts, known.tuned / f"draw-{seed}", words, seed, listener)
                if known.tuned is not None
                else see_frozen(parts, kept, vectors)
            )
            for kind, one in measure(see, seed).items():
                found.setdefault(kind, []).append(one)
    print("\nmean ± sd over the draws")
    for kind, ones in found.items():
        said = ", ".join(f"{key} {spread([one[key] for one in ones])}" for key in ones[0])
        print(f"  {kind:<16} {said}")


def spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if values[1:] else "")


def divide(rows: Mapping[str, Rows], seed: int) -> tuple[dict[str, Rows], list[str]]:
    """Rows by part, and the intents that stay."""
    rng = np.random.default_rng(seed)
    names = sorted({row["label"] for row in rows["train"]})
    kept = [names[i] for i in np.sort(rng.permutation(len(names))[LEFT_OUT:])]
    own = [row for row in rows["train"] if row["label"] in kept]
    own = [own[i] for i in rng.permutation(len(own))]
    tenth = len(own) // 10
    return {
        "train": own[tenth:],
        "validation": own[:tenth],
        "inside": [row for row in rows["test"] if row["label"] in kept],
        "outside": [row for row in rows["test"] if row["label"] not in kept],
        "other": rows["other"],
    }, kept


def number_labels(rows: Rows, names: Sequence[str]) -> Any:
    number = {name: i for i, name in enumerate(names)}
    return np.array([number.get(row["label"], -1) for row in rows])


def see_frozen(parts: Mapping[str, Rows], kept: Sequence[str], vectors: Vectors) -> See:
    """By a logistic regression on the states of a frozen encoder, which are known by their text."""
    from sklearn.linear_model import LogisticRegression

    states = {part: np.stack([vectors[row["text"]] for row in parts[part]]) for part in PARTS}
    head = LogisticRegression(C=10, max_iter=300)
    head.fit(states["train"], number_labels(parts["train"], kept))

    def see(part: str) -> Seen:
        logits = head.decision_function(states[part]).astype(np.float32)
        return Seen(logits, states[part], number_labels(parts[part], kept))

    return see


def see_tuned(
    parts: Mapping[str, Rows], folder: Path, words: Sequence[str], seed: int, listener: Any
) -> See:
    """By a fine-tuned model, which is trained in `folder`."""
    splits = {"train": "train", "validation": "validation", "inside": "test"}
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for part, split in splits.items():
        lines = "".join(json.dumps(row) + "\n" for row in parts[part])
        (folder / "data" / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    asked = [f"data.source={folder / 'data'}", *COMMON, f"run.seed={seed}", *words]
    results = study_runs.run_once(folder / "run.json", asked, listener, keep=True)
    model = folder / "run" / "model"
    classifier = Classifier(str(model), engine="torch")
    precision, threads = results["hardware"]["precision"], results["hardware"]["threads"]
    options = EngineOptions(precision=precision, threads=threads, in_turn=True, states=True)
    engine = torch_engine(saved_model.load_classifier(model)[0], options)
    print(f"draw {seed}: test accuracy {100 * results['test']['accuracy']:.1f}")

    def see(part: str) -> Seen:
        records = [Record((row["text"],), ()) for row in parts[part]]
        outputs = engine.outputs(classifier.encode(records))
        labels = number_labels(parts[part], classifier.labels)
        return Seen(outputs[:, : engine.classes], outputs[:, engine.classes :], labels)

    return see


def measure(see: See, seed: int) -> dict[str, dict[str, float]]:
    """Choose, calibrate and score with one draw of intents: of each kind of detector."""
    seen = {part: see(part) for part in PARTS}
    train, validation = seen["train"], seen["validation"]
    choice = out_of_scope.choose_detector(train, validation)
    print(f"draw {seed}: {choice.kind} is chosen, by labels held out in turn")
    found = {}
    for kind in out_of_scope.KINDS:
        detector = out_of_scope.fit_detector(kind, train, validation, RATE)
        inside, outside, other = (
            detector.score(seen[part].logits, seen[part].states)
            for part in ("inside", "outside", "other")
        )
        low, high = out_of_scope.auroc_interval(outside, inside)
        one = {
            "held out": float(choice.aurocs[kind].mean()),
            "the 19 intents": out_of_scope.measure_auroc(outside, inside),
            "news": out_of_scope.measure_auroc(other, inside),
            "flagged known": float((inside > detector.threshold).mean()),
            "flagged 19": float((outside > detector.threshold).mean()),
            "flagged news": float((other > detector.threshold).mean()),
        }
        found[kind] = one
        said = ", ".join(f"{key} {value:.3f}" for key, value in one.items())
        print(f"  {kind:<16} {said} (95 % interval of the 19: {low:.3f} to {high:.3f})", flush=True)
    found["as chosen"] = found[choice.kind]
    return found
