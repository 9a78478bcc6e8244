"""Made-up results, from made-up logits, as a run would write them."""

import dataclasses
from datetime import datetime

import numpy as np

from finetune.compute.hardware_plan import Hardware
from finetune.config.run_sections import Score
from finetune.data.corpus import Corpus, Split, class_counts
from finetune.data.rows import Places
from finetune.evaluation import analysis, metrics, scoring
from finetune.evaluation.calibration import Temperature
from finetune.evaluation.outcome import Outcome
from finetune.evaluation.scoring import Scores
from finetune.reporting.results_model import Results
from finetune.tokenization.document_format import DocumentFormat
from finetune.tokenization.token_table import TokenTable

PER_CLASS = 3  # rows of a split


def made_results(classes=3, test_noise=0.3, **changes):
    """Results of a run with so many labels; `changes` replace keys of their JSON."""
    names = tuple(f"label {c}" for c in range(classes))
    corpus, table = made_corpus(names)
    outcome = made_outcome(corpus, test_noise)
    measured = metrics.load_metrics(["accuracy", "f1_macro", "top_3_accuracy"], "accuracy", False)
    tables = dict.fromkeys(("train", "validation", "test"), table)
    found = analysis.analyse(corpus, tables, outcome, measured, Score())
    split = {
        "origin": "x", "rows": len(corpus.test), "truncated_rows": table.truncated,
        "cut_tokens": table.total_lost_tokens, "median": 20, "longest": 49,
        "classes": class_counts(corpus.test, names),
    }  # fmt: skip
    plan = Hardware("cpu", "x", "fp32", "eager", 512, 1, ("fp32: for a test",))
    whole = found.model_dump() | {
        "schema": 5, "recipe": "many", "seed": 0, "num_processes": 2, "sharded": False,
        "started": datetime(2026, 1, 1).isoformat(),
        "data": {"source": "x", "labels": list(names), "multi_label": False, "folds": None,
                 "splits": dict.fromkeys(tables, split), "findings": [], "truncation_audit": [],
                 "reading": dataclasses.asdict(DocumentFormat())},
        "model": {"source": "x", "parameters": 1, "trainable_parameters": 1, "max_length": 20,
                  "custom_code": False},
        "train": {"steps": 60, "planned_steps": 60, "min_steps": None, "best_step": 60, "rows": 1,
                  "tokens": 1, "seconds": 1.0, "rows_per_second": 1.0, "tokens_per_second": 1.0,
                  "clipped": 1.0, "back_offs": [], "stages": [], "lr_ranges": []},
        "hashes": dict.fromkeys(
            ("data", "test", "tokens", "recipe", "first_weights", "weights"), "hash"),
        "hardware": dataclasses.asdict(plan),
        "machine": {"system": "x", "processor": "x", "cores": 1}, "versions": {"python": "3"},
        "cost": {"seconds": {"train": 1.0}, "steps": {"forward": 0.4}, "peak_memory": 1,
                 "peak_device_memory": None},
    }  # fmt: skip
    return Results.model_validate(whole | changes)


def made_corpus(names):
    """Three splits of the same rows, and their tokens."""
    rows = PER_CLASS * len(names)
    labels = np.arange(rows) % len(names)
    splits = [
        Split(name, [f"word{c} text" for c in labels], labels, Places("x", range(rows)), "x")
        for name in ("train", "validation", "test")
    ]
    lengths = np.random.default_rng(0).integers(3, 50, rows)
    starts = np.concatenate([[0], np.minimum(lengths, 20).cumsum()])
    return Corpus(names, *splits, ()), TokenTable(
        np.zeros(starts[-1], np.int32), starts, lengths, 0
    )


def made_outcome(corpus, test_noise):
    draw, found = np.random.default_rng(0), {}
    classes, labels = len(corpus.labels), corpus.test.labels
    measured = metrics.load_metrics(["accuracy", "f1_macro", "top_3_accuracy"], "accuracy", False)
    for name, noise in (("validation", 0.1), ("test", test_noise)):
        logits = 5 * np.eye(classes)[labels] + noise * draw.normal(size=(len(labels), classes)) * 9
        logits = logits.astype(np.float32)
        found[name] = Scores(logits, scoring.compute_metrics(logits, labels, measured))
    return Outcome("hash", Temperature(1.5, "fitted for a test"), 1.5, **found, thresholds=None)


def made_log(steps=4):
    """The lines of metrics.jsonl."""
    lines = []
    for step in range(1, steps + 1):
        lines.append({
            "kind": "train", "step": step, "loss": 1 / step, "loss_se": 0.01, "lr": 0.1,
            "grad_norm": 1.0, "rows_per_second": 10.0,
        })  # fmt: skip
        lines.append({
            "kind": "validation", "step": step, "loss": 1 / step, "loss_se": 0.01,
            "accuracy": 0.5, "f1_macro": 0.5,
        })  # fmt: skip
    return lines


def changed(results, change):
    """Results whose JSON was changed in place by a function."""
    values = results.as_json()
    change(values)
    return Results.model_validate(values)
