"""Predictions of numbers on validation and test → scores with intervals, and where they are off."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.config.run_sections import Score
from finetune.data.corpus import Corpus, Split
from finetune.data.number_scale import NumberScale, format_number
from finetune.evaluation import intervals, number_baselines
from finetune.evaluation.analysis_model import Analysis
from finetune.evaluation.error_analysis import LENGTH_BUCKETS, SHOWN, TEXT
from finetune.evaluation.metrics import Metric
from finetune.evaluation.number_intervals import (
    NumberInterval,
    paired_difference,
    score_intervals,
)
from finetune.evaluation.outcome import Outcome
from finetune.evaluation.scoring import Scores, compute_metrics
from finetune.evaluation.slice_comparison import Compared
from finetune.evaluation.slices import score_slices
from finetune.tokenization.token_table import TokenTable

COMPARED = "r2"  # what the model and its baselines are compared by
POINTS = 400
RANGES = 5
Floats = NDArray[np.float64]


def analyse_numbers(
    corpus: Corpus,
    tables: Mapping[str, TokenTable],
    outcome: Outcome,
    metrics: Sequence[Metric],
    score: Score,
) -> Analysis:
    """Scores, prediction interval, and the largest errors of a run's model.

    Args:
        tables: the tokens of each split, by its name.
        score: what the recipe says of metrics and slices.
    """
    scale = corpus.number
    assert scale is not None
    is_scored = corpus.test.labels is not None
    split = corpus.test if is_scored else corpus.validation
    scores = outcome.test if is_scored else outcome.validation
    assert scores is not None
    return assemble_without_labels(
        {
            "validation": _split_scores(corpus.validation, outcome.validation, metrics, scale),
            "test": _split_scores(corpus.test, outcome.test, metrics, scale),
            "baselines": _baselines(corpus, scores, metrics, scale) if is_scored else None,
            "monitor": score.monitor,
            "analysed": split.name,
            "slices": _slices(
                split, tables[split.name], scores, metrics, scale, score.slices or ()
            ),
            "numbers": _describe(
                split, tables[split.name], scores, corpus.labels[0], scale, outcome.interval
            ),
        },
        outcome.temperature.why,
    )


def analyse_number_rows(
    split: Split,
    table: TokenTable,
    scores: Scores,
    column: str,
    metrics: Sequence[Metric],
    scale: NumberScale,
    interval: NumberInterval | None,
    slices: Sequence[str] = (),
) -> Analysis:
    """The same of rows alone, which a saved model has scored.

    Args:
        column: of the numbers.
        scale, interval: the model's.
        slices: columns by whose values the rows are scored too.
    """
    return assemble_without_labels(
        {
            "validation": _split_scores(split, None, metrics, scale),
            "test": _split_scores(split, scores, metrics, scale),
            "baselines": None,
            "monitor": COMPARED,
            "analysed": "test",
            "slices": _slices(split, table, scores, metrics, scale, slices),
            "numbers": _describe(split, table, scores, column, scale, interval),
        },
        "numbers have no probabilities",
    )


def _slices(
    split: Split,
    table: TokenTable,
    scores: Scores,
    metrics: Sequence[Metric],
    scale: NumberScale,
    columns: Sequence[str],
) -> list[dict[str, Any]]:
    """The scores by the values of columns, of a split with numbers."""
    if not columns or split.labels is None:
        return []
    compared = Compared.of_numbers(split.labels, scores.logits[:, 0].astype(np.float64))
    return score_slices(split, table, scores, metrics, columns, compared, scale.deviation)


def assemble_without_labels(found: dict[str, Any], why: str) -> Analysis:
    """An analysis without all that is of labels."""
    return Analysis.model_validate(
        {
            "thresholds": None,
            "calibration": {"temperature": 1.0, "why": why, "validation": None, "test": None},
            "abstention": None,
            "classes": [],
            "confusion": None,
            "confused_pairs": [],
            "lengths": [],
            "truncation": {"truncated": None, "whole": None},
            "mistakes": [],
            **found,
        }
    )


def _split_scores(
    split: Split, scores: Scores | None, metrics: Sequence[Metric], scale: NumberScale
) -> dict[str, Any]:
    if scores is None:  # there is no such split
        return {"rows": 0, "labelled": False}
    if split.labels is None:
        return {"rows": len(split), "labelled": False}
    names = [one.key for one in metrics]
    found = score_intervals(names, scores.logits, split.labels, scale.deviation)
    return {"rows": len(split), "labelled": True, "intervals": found} | scores.values


def _baselines(
    corpus: Corpus, scores: Scores, metrics: Sequence[Metric], scale: NumberScale
) -> dict[str, Any]:
    numbers, predicted = corpus.test.labels, scores.logits[:, 0].astype(np.float64)
    assert numbers is not None
    names = [one.key for one in metrics]
    found: dict[str, Any] = {}
    for name, baseline, label in (
        ("majority", number_baselines.mean_baseline(corpus), format_number(scale.mean)),
        ("tfidf", number_baselines.tfidf_ridge_baseline(corpus), None),
    ):
        theirs = baseline.logits[:, 0].astype(np.float64)
        found[name] = compute_metrics(baseline.logits, numbers, metrics, scale=scale.deviation) | {
            "intervals": score_intervals(names, baseline.logits, numbers, scale.deviation),
            "paired_difference": {
                COMPARED: paired_difference(COMPARED, numbers, predicted, theirs)
            },
            "label": label,
            "train_rows": baseline.train_rows,
            "seconds": baseline.seconds,
        }
    return found


def _describe(
    split: Split,
    table: TokenTable,
    scores: Scores,
    column: str,
    scale: NumberScale,
    interval: NumberInterval | None,
) -> dict[str, Any]:
    """What `NumberAnalysis` holds."""
    true, predicted = split.labels, scores.logits[:, 0].astype(np.float64)
    assert true is not None
    errors, cut = predicted - true, table.lost_tokens > 0
    shown = np.arange(len(true))
    if len(true) > POINTS:
        shown = np.sort(np.random.default_rng(0).choice(len(true), POINTS, replace=False))
    return {
        "column": column,
        "mean": scale.mean,
        "deviation": scale.deviation,
        "bias": float(errors.mean()),
        "interval": None if interval is None else _coverage(interval, errors),
        "points": [(float(true[i]), float(predicted[i])) for i in shown],
        "ranges": _groups(true, errors, RANGES),
        "lengths": _groups(table.full.astype(np.float64), errors, LENGTH_BUCKETS),
        "truncated": _group(table.full[cut], errors[cut]) if cut.any() else None,
        "whole": None if cut.all() else _group(table.full[~cut], errors[~cut]),
        "largest": _largest_errors(split, true, predicted),
    }


def _coverage(interval: NumberInterval, errors: Floats) -> dict[str, Any]:
    reached = float(interval.holds(errors).mean())
    return {
        "asked": interval.coverage,
        "half_width": interval.half_width,
        "reached": reached,
        "reached_interval": intervals.wilson_interval(reached, len(errors)),
    }


def _groups(values: Floats, errors: Floats, most: int) -> list[dict[str, Any]]:
    """Errors by quantiles of `values`, from the lowest on. (rows,) each"""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, most + 1)[1:-1]))
    bucket = np.searchsorted(edges, values)  # a value on an edge goes below it
    return [_group(values[bucket == b], errors[bucket == b]) for b in np.unique(bucket)]


def _group(values: NDArray[Any], errors: Floats) -> dict[str, Any]:
    return {
        "low": float(values.min()),
        "high": float(values.max()),
        "rows": len(errors),
        "mae": float(np.abs(errors).mean()),
        "bias": float(errors.mean()),
    }


def _largest_errors(split: Split, true: Floats, predicted: Floats) -> list[dict[str, Any]]:
    texts = split.whole()
    order = np.argsort(-np.abs(predicted - true), kind="stable")[:SHOWN]
    return [
        {
            "row": split.places.place(int(i)),
            "id": None if split.ids is None else split.ids[int(i)],
            "true": float(true[i]),
            "predicted": float(predicted[i]),
            "text": texts[i][:TEXT] + "…" * (len(texts[i]) > TEXT),
        }
        for i in order
        if true[i] != predicted[i]
    ]
