"""Results → `results.json`, `metrics.jsonl`, `predictions/*.jsonl`, the saved recipe.

`results.json` holds one object; null stands for a number that could not be had:

    schema             2; raised when a key changes its meaning
    recipe             the recipe's name
    started            local time, ISO 8601
    num_processes      how many processes shared each step
    sharded            whether each of them held a part of the weights only
    hashes             SHA-256 of what decides a run and of what came out, to compare two at a
                       glance: data (labels, texts and classes of the three splits), tokens (what
                       the tokenizer made of them), recipe (all that decides a number),
                       first_weights, weights (the saved model's)
    data               source; labels in order; splits: of each its origin, rows, classes (rows of
                       each label), truncated_rows, cut_tokens; findings: of each its kind,
                       split, count, places (the first few), rule (what was done), other (a
                       second split)
    model              source, parameters, trainable_parameters, max_length (tokens kept)
    train              steps, rows, tokens and seconds of the loop without scoring,
                       rows_per_second, tokens_per_second, clipped (share of steps), back_offs (of
                       each: diverged_at, rate_scale, why)
    validation         the best model's: rows, step, loss, loss_se, and each metric by name
    test               rows, labelled; where it has labels, loss, loss_se and each metric by name,
                       scored once, and accuracy_interval: 95 % by Wilson, [low, high]
    baseline           label: train's most frequent; accuracy: on test, of always answering it
    hardware           device, name, precision, attention, micro_batch_tokens, threads, reasons
    machine            system, processor, cores
    versions           of Python and the libraries
"""

import dataclasses
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from finetune import recipe
from finetune.corpus import Corpus, Split, class_counts, majority_baseline
from finetune.course import Standing
from finetune.hardware import Hardware
from finetune.metrics import softmax
from finetune.record import Record
from finetune.run_folder import versions, write_whole
from finetune.scoring import Scores
from finetune.tokens import TokenTable

SCHEMA = 2


def write_predictions(
    file: Path, split: Split, labels: Sequence[str], logits: NDArray[np.float32]
) -> None:
    """One line for each row: where it came from, its label, the answer and all probabilities."""
    lines = []
    for i, row in enumerate(softmax(logits)):
        line: dict[str, Any] = {"row": split.places.place(i)}
        if split.labels is not None:
            line["label"] = labels[split.labels[i]]
        line["predicted"] = labels[int(row.argmax())]
        line["probabilities"] = [round(float(chance), 6) for chance in row]
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_whole(file, "".join(lines))


def results(
    choices: recipe.Recipe,
    started: datetime,
    num_processes: int,
    sharded: bool,
    plan: Hardware,
    corpus: Corpus,
    tables: Mapping[str, TokenTable],
    max_length: int,
    model: PreTrainedModel,
    record: Record,
    standing: Standing,
    test: Scores,
    hashes: Mapping[str, str],
) -> dict[str, Any]:
    """The whole of `results.json`, as this module's docstring lists it."""
    rows = len(corpus.test.texts)
    on_test: dict[str, Any] = {"rows": rows, "labelled": corpus.test.labels is not None}
    on_test |= test.values
    if "accuracy" in test.values:
        on_test["accuracy_interval"] = interval(test.values["accuracy"], rows)
    return {
        "schema": SCHEMA,
        "recipe": choices.run.name,
        "started": started.isoformat(timespec="seconds"),
        "num_processes": num_processes,
        "sharded": sharded,
        "data": {
            "source": choices.data.source,
            "labels": list(corpus.labels),
            "splits": {
                split.name: {
                    "origin": split.origin,
                    "rows": len(split.texts),
                    "classes": class_counts(split, corpus.labels),
                    "truncated_rows": tables[split.name].truncated,
                    "cut_tokens": tables[split.name].cut,
                }
                for split in corpus.splits()
            },
            "findings": [dataclasses.asdict(finding) for finding in corpus.findings],
        },
        "model": {
            "source": choices.model.source,
            "parameters": sum(p.numel() for p in model.parameters()),
            "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "max_length": max_length,
        },
        "train": {
            "steps": record.steps,
            "rows": record.rows,
            "tokens": record.tokens,
            "seconds": record.seconds,
            "rows_per_second": record.rows / record.seconds,
            "tokens_per_second": record.tokens / record.seconds,
            "clipped": record.clipped / record.steps,
            "back_offs": standing.back_offs,
        },
        "validation": {"rows": len(corpus.validation.texts)} | standing.best,
        "test": on_test,
        "baseline": majority(corpus),
        "hashes": dict(hashes),
        "hardware": dataclasses.asdict(plan),
        "machine": machine(),
        "versions": versions(),
    }


def majority(corpus: Corpus) -> dict[str, Any]:
    """What always answering train's most frequent label scores on test."""
    counts = class_counts(corpus.train, corpus.labels)
    share = majority_baseline(corpus)
    return {
        "label": max(counts, key=counts.__getitem__),
        "accuracy": None if math.isnan(share) else share,
    }


def interval(share: float, rows: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share of independent rows (Wilson 1927): it never leaves 0 to 1."""
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows**2))
    return centre - half, centre + half


def machine() -> dict[str, Any]:
    return {
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
