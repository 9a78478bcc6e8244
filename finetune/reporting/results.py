"""Results → `results.json`, `metrics.jsonl`, `predictions/*.jsonl`, the saved recipe.

`results.json` holds one object; null stands for a number that could not be had. Every interval is
[low, high], of 95 %, over documents; `intervals.py` says by which method.

    schema             4; raised when a key changes its meaning, or the page needs a new one
    recipe             the recipe's name
    seed               of the order of rows, dropout and the head
    started            local time, ISO 8601
    num_processes      how many processes shared each step
    sharded            whether each of them held a part of the weights only
    hashes             SHA-256 of what decides a run and of what came out, to compare two at a
                       glance: data (labels, texts and classes of the three splits), test (texts
                       and classes of that one), tokens (what the tokenizer made of them), recipe
                       (all that decides a number), first_weights, weights (the saved model's)
    data               source; labels in order; multi_label: whether a row may have several, or
                       none; splits: of each its origin, rows, classes (rows of each label),
                       truncated_rows, cut_tokens, median and longest (tokens of a whole text);
                       folds: null, or into how many parts train was dealt where test is train
                       itself, each part judged by a model that had not seen it (run.folds);
                       findings: of each its kind, split, count, places (the first few), rule (what
                       was done), other (a second split), says (it in words)
    data.reading       how a document becomes tokens, as the saved model's config.json has it under
                       `document`: text, template, text_pair (columns), max_length, long, stride,
                       max_windows, pool, and thresholds and abstain_below of answers
    data.long          what each way of reading train's documents would do: windows (or truncation,
                       wherever), max_length, chosen (is it this run's), rows, tokens, rows_cut,
                       tokens_cut, tokens_read and pieces (overlaps included), time of an epoch and
                       memory of a micro-batch (estimates, as multiples of the chosen one's),
                       classes (of each label tokens, rows_cut, tokens_cut), says (it in words)
    model              source, parameters, trainable_parameters, max_length (tokens kept),
                       custom_code: whether its folder needs trust_remote_code to load
    train              steps, planned_steps (more, where patience ended it), min_steps (of
                       the last stage), rows, tokens and seconds of the loop without scoring,
                       rows_per_second, tokens_per_second,
                       clipped (share of steps), back_offs (of each: diverged_at, rate_scale, why),
                       stages (of each of train.stages: freeze, lr, steps, first_step, epochs; none
                       where the recipe names none)
    validation         the saved model's: rows, labelled, step, loss, loss_se, each metric by name,
                       and their intervals
    test               the same, scored once; rows and labelled alone where it has no labels
    baselines          what needs no encoder scores on test; majority (label: train's commonest)
                       and tfidf (words and word pairs under a logistic regression); of each the
                       metrics, intervals, train_rows it was fitted on, seconds, and
                       model_is_better_by: the difference in accuracy and in f1_macro (multi-label:
                       also f1_micro) and its interval, paired by row
    thresholds         multi-label: from which probability on each label is given, chosen on
                       validation, or else on train; else null
    calibration        temperature that the saved head was divided by, why; of validation and test:
                       before and after, each with ece (expected calibration error, 15 bins),
                       ece_by_chance (what honest probabilities would show on so many rows),
                       log_loss, bins (low, high, rows, confidence, accuracy); multi-label: over
                       the decisions on each row and label, by the label's probability
    abstention         target: the accuracy that was asked for; threshold: answer only where the
                       probability is at least that, chosen on validation; of validation and test:
                       rows, coverage and accuracy of what is answered, and curve: the same for
                       every threshold; multi-label: null
    analysed           the split that the next six tell of: test, or validation where test has no
                       labels
    classes            of each label: support and predicted (rows), precision, recall, f1, and
                       precision_interval, recall_interval, f1_interval
    confusion          rows by true label (first index) and by answer; null above 200 labels, and
                       multi-label
    confused_pairs     label, predicted, rows, share of the label's rows; the most frequent first;
                       multi-label: rows that lack a label and have another one wrongly
    lengths            of rows from shortest to longest (tokens of the whole text): rows, accuracy,
                       accuracy_interval, truncated rows
    truncation         the same of the truncated rows and of the whole ones
    mistakes           the surest wrong answers: row, label, predicted, confidence,
                       label_probability, text (its first 800 characters); multi-label: decision,
                       which was most surely wrong, and confidence in that
    lr_ranges          the range tests of optim.lr=auto, with the stage's number, as lr_range.py
                       describes them
    cost               of the main process since it was started: seconds of each stage (prepare,
                       train; score: validation; validate: keep the best model; test: score it;
                       checkpoint; close: calibrate; analyse), peak_memory and peak_device_memory
                       in bytes, joules of the whole machine; steps: which part of a step took how
                       many seconds of train (data, forward, backward, step: clip and descend)
    hardware           device, name, precision, attention, packed (rows end to end, not padded),
                       micro_batch_tokens, threads, reasons
    machine            system, processor, cores
    versions           of Python and the libraries
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from finetune.compute.hardware_plan import Hardware
from finetune.config import schema
from finetune.data.corpus import Corpus, Split, answer_names, class_counts
from finetune.evaluation.metrics import predict_labels
from finetune.evaluation.probabilities import to_probabilities
from finetune.runtime.atomic_files import write_text
from finetune.runtime.environment import library_versions, machine
from finetune.runtime.errors import InputError
from finetune.tokenization import truncation_audit
from finetune.tokenization.document_format import DocumentFormat
from finetune.tokenization.token_table import TokenTable
from finetune.training.session import RunState
from finetune.training.stages import Stage
from finetune.training.train_log import TrainLog

SCHEMA = 4


def write_predictions(
    file: Path,
    split: Split,
    labels: Sequence[str],
    logits: NDArray[np.float32],
    several: bool = False,
    thresholds: NDArray[np.float64] | None = None,
) -> None:
    """One line for each row: where it came from, its label, the answer and all probabilities.

    Where a row may have several labels, its label and the answer are lists.
    """
    guesses = predict_labels(logits, several, thresholds)
    write_text(file, _prediction_lines(split, labels, logits, guesses, several))


def _prediction_lines(
    split: Split,
    labels: Sequence[str],
    logits: NDArray[np.float32],
    guesses: NDArray[Any],
    several: bool,
) -> Iterator[str]:
    for i, guess in enumerate(guesses):
        line: dict[str, Any] = {"row": split.places.place(i)}
        if split.labels is not None:
            line["label"] = _said(split.labels[i], labels)
        line["predicted"] = _said(guess, labels)
        chances = to_probabilities(logits[i : i + 1], several)[0]
        line["probabilities"] = [round(float(chance), 6) for chance in chances]
        yield json.dumps(line, ensure_ascii=False) + "\n"


def _said(answer: Any, labels: Sequence[str]) -> str | list[str]:
    found = answer_names(answer, labels)
    return found if np.ndim(answer) else found[0]


def build_results(
    choices: schema.Recipe,
    started: datetime,
    num_processes: int,
    sharded: bool,
    plan: Hardware,
    corpus: Corpus,
    tables: Mapping[str, TokenTable],
    reading: DocumentFormat,
    long: Sequence[truncation_audit.ReadingOption],
    model: PreTrainedModel,
    all_stages: Sequence[Stage],
    record: TrainLog,
    standing: RunState,
    analysis: Mapping[str, Any],
    hashes: Mapping[str, str],
    cost: Mapping[str, Any],
) -> dict[str, Any]:
    """The whole of `results.json`, as this module's docstring lists it.

    Args:
        tables: the tokens of each split, by its name.
        long: what each way of reading long documents would do to those of train.
        model: of the last stage.
        analysis: of `analysis.analyse`.
        cost: of `cost_meter.CostMeter.cost`, and `steps`: of `cost_meter.StepTimer.read`.
    """
    return {
        "schema": SCHEMA,
        "recipe": choices.run.name,
        "seed": choices.run.seed,
        "started": started.isoformat(timespec="seconds"),
        "num_processes": num_processes,
        "sharded": sharded,
        "data": {
            "source": choices.data.source,
            "labels": list(corpus.labels),
            "multi_label": corpus.multi_label,
            "splits": {
                split.name: {
                    "origin": split.origin,
                    "rows": len(split.texts),
                    "classes": class_counts(split, corpus.labels),
                    "truncated_rows": tables[split.name].truncated,
                    "cut_tokens": tables[split.name].cut,
                    "median": int(np.median(tables[split.name].full)),
                    "longest": int(tables[split.name].full.max()),
                }
                for split in corpus.splits()
            },
            "folds": None if corpus.folds is None else int(corpus.folds.max()) + 1,
            "reading": dataclasses.asdict(reading),
            "long": truncation_audit.as_json(long),
            "findings": [finding.short() for finding in corpus.findings],
        },
        "model": {
            "source": choices.model.source,
            "parameters": sum(p.numel() for p in model.parameters()),
            "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "max_length": reading.max_length,
            "custom_code": bool(getattr(model.config, "auto_map", None)),
        },
        "train": {
            "steps": record.steps,
            "planned_steps": all_stages[-1].end,
            "min_steps": all_stages[-1].choices.train.min_steps,
            "rows": record.rows,
            "tokens": record.tokens,
            "seconds": record.seconds,
            "rows_per_second": record.rows / record.seconds,
            "tokens_per_second": record.tokens / record.seconds,
            "clipped": record.clipped / record.steps,
            "back_offs": standing.back_offs,
            "stages": [stage.as_json() for stage in all_stages if choices.train.stages],
        },
        **analysis,
        "validation": analysis["validation"] | {"step": standing.best["step"]},
        "hashes": dict(hashes),
        "cost": dict(cost),
        "hardware": dataclasses.asdict(plan),
        "machine": machine(),
        "versions": library_versions(),
    }


def read_results(folder: Path) -> dict[str, Any]:
    """The `results.json` of a finished run.

    Raises:
        InputError: where there is none, or one of another version.
    """
    file = folder / "results.json"
    if not file.is_file():
        raise InputError(
            f"{folder}: expected the folder of a finished run, found no results.json in it"
        )
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if found.get("schema") != SCHEMA:
        raise InputError(
            f"{file}: expected schema {SCHEMA}, found {found.get('schema')}; run the recipe.yaml "
            "beside it again"
        )
    return found
