"""The work of suggest_study.py, which imports what --help does not need."""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent))

import frozen_states
import study_runs

from finetune.inference.decision import DecisionRules
from finetune.inference.inputs import InputSpec, find_inputs
from finetune.inference.records import Record, RequestedColumns
from finetune.inference.suggestions import SuggestOptions, suggest
from finetune.runtime import console

TEST_ROWS = 1000
COLUMNS = RequestedColumns(("text",), keep=("row",))
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Documents:
    """Texts with their vectors and labels. Labels are numbers of `names`."""

    texts: list[str]
    states: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...]

    def take(self, rows: Rows) -> "Documents":
        return Documents(
            [self.texts[i] for i in rows], self.states[rows], self.labels[rows], self.names
        )


class Head:
    """A logistic regression on states, which suggests as a classifier does."""

    def __init__(self, train: Documents) -> None:
        from sklearn.linear_model import LogisticRegression

        self._fitted = LogisticRegression(C=10, max_iter=300)
        self._fitted.fit(train.states, train.labels)
        self.labels = tuple(train.names[i] for i in self._fitted.classes_)
        self.rules = DecisionRules(self.labels)

    def logits(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """(rows, hidden) → (rows, labels of train)"""
        found = self._fitted.decision_function(states)
        if found.ndim == 1:
            found = np.stack([np.zeros_like(found), found], axis=1)
        return np.asarray(found, dtype=np.float32)

    def accuracy(self, test: Documents) -> float:
        return float((self._fitted.predict(test.states) == test.labels).mean())

    def over(self, pool: Documents) -> Any:
        """What `suggest` asks of a classifier: encoded rows are their numbers in the pool."""

        def encode(records: Sequence[Record]) -> list[int]:
            return [int(record.beside[0]) for record in records]

        engine = SimpleNamespace(logits=lambda rows: self.logits(pool.states[rows]))
        return SimpleNamespace(labels=self.labels, rules=self.rules, engine=engine, encode=encode)


def run_study(known: argparse.Namespace) -> None:
    """As suggest_study.py says it, with its options."""
    known.out.mkdir(parents=True, exist_ok=True)
    strategies = dict.fromkeys(("random", *known.strategies))
    areas: dict[tuple[str, str], list[float]] = {}
    for name in known.sets:
        train, test = load(known, name, "train", known.pool), load(known, name, "test", TEST_ROWS)
        for seed in range(known.seeds):
            pool = train.take(np.random.default_rng(seed).permutation(len(train.texts)))
            for strategy in strategies:
                curve = learn(known, strategy, seed, pool, test)
                areas.setdefault((name, strategy), []).append(100 * statistics.fmean(curve[1:]))
                shown = " ".join(f"{100 * one:.1f}" for one in curve)
                print(f"  {name}, seed {seed}, {strategy}: {shown}", flush=True)
    print(f"\n{report(areas)}")


def load(known: argparse.Namespace, name: str, split: str, most: int) -> Documents:
    """Rows of a split at random, the same for all seeds, with vectors that are computed once."""
    every = study_runs.read_rows(known.data / name, split)
    rows = [every[i] for i in np.random.default_rng(0).permutation(len(every))[:most]]
    texts = [row["text"] for row in rows]
    file = known.out / f"{name}-{split}-{len(texts)}.npy"
    if not file.is_file():
        np.save(file, frozen_states.encode(texts))
    states = np.load(file, allow_pickle=False)
    train = every if split == "train" else study_runs.read_rows(known.data / name, "train")
    names = tuple(sorted({row["label"] for row in train}))
    labels = np.array([names.index(row["label"]) for row in rows])
    return Documents(texts, states, labels, names)


def learn(
    known: argparse.Namespace, strategy: str, seed: int, pool: Documents, test: Documents
) -> list[float]:
    """The accuracy at the start and after each round. The pool's first rows are the start."""
    draw = np.random.default_rng(seed)
    labelled: Rows = np.arange(known.start)
    curve = []
    for turn in range(known.rounds + 1):
        head = Head(pool.take(labelled))
        curve.append(head.accuracy(test))
        others = np.setdiff1d(np.arange(len(pool.texts)), labelled)
        if turn == known.rounds:
            break
        if strategy == "random":
            chosen: Rows = draw.permutation(others)[: known.step]
        elif strategy.startswith("small_text."):
            chosen = ask_small_text(strategy, head, pool, labelled, known.step)
        else:
            chosen = ask_suggest(known, strategy, head, pool, others)
        labelled = np.concatenate([labelled, chosen])
    return curve


def ask_suggest(
    known: argparse.Namespace, strategy: str, head: Head, pool: Documents, others: Rows
) -> Rows:
    """What `finetune suggest` names, in the order in which it does."""
    file = known.out / "unlabelled.jsonl"
    lines = (json.dumps({"text": pool.texts[i], "row": int(i)}) + "\n" for i in others)
    file.write_text("".join(lines), encoding="utf-8")
    options = SuggestOptions(known.step, strategy)
    found = suggest(head.over(pool), find_inputs(InputSpec(str(file))), COLUMNS, options)
    return np.array([int(one.record.beside[0]) for one in found.found])


def ask_small_text(strategy: str, head: Head, pool: Documents, labelled: Rows, step: int) -> Rows:
    """What small-text (PyPI) would label, of the same probabilities and vectors."""
    small_text = import_module("small_text")
    classes = {
        "breaking_ties": "BreakingTies", "entropy": "PredictionEntropy",
        "core_set": "GreedyCoreset", "k_means": "EmbeddingKMeans",
    }  # fmt: skip
    asked = getattr(small_text, classes[strategy.partition(".")[2]])()
    probabilities = head.rules.probabilities(head.logits(pool.states))

    def embed(rows: Rows, return_proba: bool = False, **options: Any) -> Any:
        return (pool.states[rows], probabilities[rows]) if return_proba else pool.states[rows]

    classifier = SimpleNamespace(predict_proba=lambda rows: probabilities[rows], embed=embed)
    every: Any = np.arange(len(pool.texts))
    others = np.setdiff1d(every, labelled)
    np.random.seed(0)  # small-text draws from it
    chosen: Any = asked.query(classifier, every, others, labelled, pool.labels[labelled], n=step)
    return np.asarray(chosen)


def report(areas: dict[tuple[str, str], list[float]]) -> str:
    """A line for each set and strategy: the area, and by how much it is above chance's."""
    lines: list[Sequence[str]] = [("set", "strategy", "area", "above random", "seeds")]
    gaps: dict[str, list[float]] = {}
    for (name, strategy), values in areas.items():
        by_chance = areas[name, "random"]
        pairs = [one - other for one, other in zip(values, by_chance, strict=True)]
        gaps.setdefault(strategy, []).append(statistics.fmean(pairs))
        gap = "" if strategy == "random" else spread(pairs, "+")
        lines.append((name, strategy, spread(values), gap, str(len(values))))
    for strategy, means in gaps.items():
        if strategy != "random" and len(means) > 1:
            lines.append(("all sets", strategy, "", f"{statistics.fmean(means):+.1f}", ""))
    return console.format_table(lines)


def spread(values: Sequence[float], sign: str = "") -> str:
    """Mean and standard deviation."""
    if len(values) < 2:
        return f"{values[0]:{sign}.1f}"
    return f"{statistics.fmean(values):{sign}.1f} ± {statistics.stdev(values):.1f}"
