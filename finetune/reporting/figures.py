"""Results and the log → the report's figures, each with its text alternative."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from finetune.config.label_tasks import POINT, base_metric
from finetune.evaluation.analysis_model import Analysis, MetricValues, OutOfScope
from finetune.reporting import charts
from finetune.reporting.baseline_comparison import compared_metric
from finetune.reporting.charts import AxisSpec, Marks, Row, Series
from finetune.reporting.number_formats import (
    format_metric,
    format_seconds,
    is_share,
    name_metric,
    percent,
    signed,
)
from finetune.reporting.results_model import LrRange, Results
from finetune.reporting.svg import Point
from finetune.runtime.wording import token_range

MOST_IN_MATRIX = 30  # labels
LEAST_COVERAGE = 0.2  # on fewer documents, accuracy is a matter of chance

Log = Sequence[Mapping[str, Any]]  # the lines of metrics.jsonl


@dataclass(frozen=True)
class Figure:
    """A chart with its caption, and a note beneath that."""

    caption: str
    note: str
    chart: Markup


def overview(results: Results, main: str) -> Markup | None:
    """The main metric of the model and of the baselines; None where it is not between 0 and 1."""
    rows = [metric_row("this model", results.scores, main, "main")]
    baselines = results.baselines
    if baselines is not None:
        majority, regression = f"always ‘{(baselines.majority.label or '')[:30]}’", "logistic"
        if results.numbers is not None:
            majority, regression = f"always {baselines.majority.label}", "ridge"
        for name, scores in (
            (f"TF-IDF with {regression} regression", baselines.tfidf),
            (majority, baselines.majority),
        ):
            rows.append(metric_row(name, scores, main, "third"))
    values = [end for row in rows for end in (row.value, *(row.interval or ()))]
    if not all(0 <= value <= 1 for value in values):
        return None  # such as a correlation: the table has it
    description = "; ".join(f"{row.name} {row.note}" for row in rows)
    form = "{:.0%}" if main == "accuracy" else "{:.2f}"
    return charts.whiskers(f"{main} with 95 % intervals", description, rows, main, form)


def metric_row(name: str, scores: MetricValues, main: str, style: str) -> Row:
    """A score with its interval, for `charts.whiskers`."""
    value = scores.metric(main)
    return Row(
        name,
        math.nan if value is None else value,
        scores.intervals[main],
        style,
        format_metric(main, value),
        strong=style == "main",
    )


def confusion_matrix(results: Analysis) -> list[dict[str, Any]]:
    """The confusion matrix with the shade of each cell; empty where it would be too large."""
    counts, labels = results.confusion, [one.label for one in results.classes]
    if counts is None or len(labels) > MOST_IN_MATRIX:
        return []
    return [
        {
            "label": labels[i],
            "rows": sum(row),
            "cells": [
                {
                    "label": labels[j],
                    "rows": n,
                    "share": n / max(1, sum(row)),
                    "kind": ("right" if i == j else "")
                    + (" none" if n == 0 else "")
                    + (" full" if n > 0.55 * sum(row) > 0 else ""),
                }
                for j, n in enumerate(row)
            ],
        }
        for i, row in enumerate(counts)
    ]


def reliability(results: Analysis, where: str | None = None) -> Iterator[Figure]:
    """Reliability diagrams: as trained, where a temperature changed that, and as saved.

    Args:
        where: what to call the analysed split; None: by its name.
    """
    calibration, split = results.calibration, results.analysed
    counted = "documents" if results.thresholds is None else "decisions"
    for when, quality in (
        ("as trained", calibration.on(split).before),
        ("as saved", calibration.on(split).after),
    ):
        if when == "as trained" and calibration.temperature == 1:
            continue
        description = "; ".join(
            f"confidence {percent(one.confidence, 0)}, accuracy {percent(one.accuracy, 0)}, "
            f"{one.rows:,} {counted}"
            for one in quality.bins
        )
        yield Figure(
            f"Reliability diagram, {when}",
            f"Accuracy by confidence on {where or split}. ECE {quality.ece:.4f}; on the dashed "
            "line it would be 0.",
            charts.reliability(f"Reliability diagram, {when}", description, quality.bins),
        )


def coverage(results: Analysis, description: str, where: str = "test") -> Markup | None:
    """Accuracy over coverage; None where there is nothing to abstain from.

    Args:
        description: the figure in words.
        where: what to call the test split.
    """
    abstention, split = results.abstention, results.analysed
    if abstention is None or not abstention.on(split).curve:
        return None
    series = [
        Series(
            [(p.coverage, p.accuracy) for p in curve.curve if p.coverage >= LEAST_COVERAGE],
            name,
            style,
        )
        for name, curve, style in (
            ("validation", abstention.validation, "third"),
            (where, abstention.test, "main"),
        )
        if curve is not None
    ]
    chosen, threshold = abstention.on(split).coverage, abstention.threshold
    down = []
    if threshold is not None and chosen:
        down = [(chosen, f"at {threshold:.2f}: {percent(chosen, 0)} covered")]
    lowest = min(y for one in series for _, y in one.points)
    target = abstention.target
    across = []
    if target is not None and target >= lowest:
        across = [(target, f"target: {percent(target)}")]
    return charts.lines(
        "Accuracy vs coverage",
        description,
        series,
        AxisSpec("coverage: share of the documents", "{:.0%}", LEAST_COVERAGE, 1.0),
        AxisSpec("accuracy", "{:.1%}" if lowest > 0.97 else "{:.0%}", lowest, 1.0),
        Marks(across, down),
    )


def lengths(results: Analysis) -> Markup:
    """Accuracy by the length of the documents."""
    rows = [
        Row(
            token_range(one.shortest, one.longest),
            one.accuracy,
            one.accuracy_interval,
            "main",
            f"{percent(one.accuracy)} of {one.rows:,}",
        )
        for one in results.lengths
    ]
    description = "; ".join(f"{row.name}: {row.note}" for row in rows)
    return charts.whiskers("Accuracy by length", description, rows, "accuracy", "{:.0%}")


def paired_differences(results: Results) -> Markup | None:
    """By how much the model is better than each baseline; None without baselines."""
    baselines = results.baselines
    if baselines is None:
        return None
    key = compared_metric(results)
    tfidf, majority = baselines.tfidf, baselines.majority
    scale, digits, unit = (100, 1, " points") if is_share(key) else (1, 3, "")
    rows = []
    for name, scores in (
        ("than TF-IDF", tfidf),
        ("than the majority label" if results.numbers is None else "than the mean", majority),
    ):
        gap = scores.paired_difference[key]
        low, high = (signed(scale * end, digits) for end in gap.interval)
        note = f"{signed(scale * gap.difference, digits)}{unit} ({low} to {high})"
        rows.append(Row(name, gap.difference, gap.interval, "main", note))
    description = "; ".join(f"{row.name} {row.note}" for row in rows)
    title = f"Difference of {name_metric(key)}, paired by document"
    form = "{:+.0%}" if is_share(key) else "{:+.2f}"
    return charts.whiskers(title, description, rows, title, form, low=-1.0)


def training(results: Results, log: Log) -> Iterator[Figure]:
    """The training curves: loss, validation's scores, rate, gradient, speed, time."""
    train = [line for line in log if line["kind"] == "train"]
    scorings = [line for line in log if line["kind"] == "validation"]
    stages = enumerate(results.train.stages[1:], 2)
    begins = Marks(down=[(stage.first_step, f"stage {number}") for number, stage in stages])
    if train:
        yield _loss(train, scorings, begins)
    for test in results.train.lr_ranges:
        before = f"stage {test.stage}" if len(results.train.stages) > 1 else "training"
        note = f"A learning rate of {test.rate:g} was chosen before {before}."
        yield Figure("Learning rate range test", note, lr_range_chart(test))
    if scorings:
        yield from _validation_metrics(results, scorings, max(line["step"] for line in log))
    if train:
        clipped = f"Before clipping. {percent(results.train.clipped, 0)} of the steps were clipped."
        yield _by_step(train, "lr", "Learning rate", "At each line of the log.", begins)
        yield _by_step(train, "grad_norm", "Gradient norm", clipped, begins)
        yield _by_step(train, "rows_per_second", "Speed", "Documents a second.", begins, "{:,.0f}")
        yield from _time(results)


STEPS = AxisSpec("step", "{:,.0f}")


def _loss(train: Log, scorings: Log, begins: Marks) -> Figure:
    band = [(p["step"], p["loss"] - p["loss_se"], p["loss"] + p["loss_se"]) for p in train]
    series = [Series([(p["step"], p["loss"]) for p in train], "train", band=band)]
    if scorings:
        points = [(p["step"], p["loss"]) for p in scorings]
        series.append(Series(points, "validation", "other", marked=True))
    description = (
        f"Train loss went from {train[0]['loss']:.3f} to {train[-1]['loss']:.3f}"
        + "".join(f"; validation at step {p['step']}: {p['loss']:.3f}" for p in scorings)
    )
    chart = charts.lines("Loss by step", description, series, STEPS, AxisSpec(log=True), begins)
    return Figure("Loss", "The band is one standard error. Logarithmic scale.", chart)


def _validation_metrics(results: Results, scorings: Log, last: float) -> Iterator[Figure]:
    names = [name for name in results.metric_names if name in scorings[0]]
    if results.tasks:  # what picks the model, of all tasks and of each
        picks = base_metric(results.monitor or names[0], [task.name for task in results.tasks])
        names = [name for name in names if name.rpartition(POINT)[2] == picks]
    names = [name for name in names if "loss" not in name][:3]
    if results.numbers is not None:  # the others are in the unit of the numbers
        names = [name for name in names if name in ("r2", "spearman")]
    if not names:
        return
    values = [line[name] for line in scorings for name in names]
    low, high = min(values), max(values)
    best = results.train.best_step
    series = [
        Series([(p["step"], p[name]) for p in scorings], name, style, marked=True)
        for name, style in zip(names, ("main", "other", "third"), strict=False)
    ]
    chart = charts.lines(
        "Validation metrics by step",
        "; ".join(f"step {p['step']}: {names[0]} {p[names[0]]:.4f}" for p in scorings),
        series,
        AxisSpec("step", "{:,.0f}", 0.0, last),
        # A change in the fourth digit is no mountain.
        AxisSpec(low=min(low, high - 0.05), high=max(high, min(1.0, low + 0.05))),
        Marks(down=[(best, "best")] if len(scorings) > 1 else []),
    )
    note = f"The saved model is that of step {best:,}."
    yield Figure("Validation metrics", note, chart)


def _by_step(
    train: Log, key: str, caption: str, note: str, begins: Marks, form: str = "{:g}"
) -> Figure:
    points: list[Point] = [(line["step"], line.get(key) or 0.0) for line in train]
    values = [value for _, value in points]
    description = f"From {values[0]:.4g} to {values[-1]:.4g}, at most {max(values):.4g}"
    chart = charts.lines(
        f"{caption} by step",
        description,
        [Series(points)],
        STEPS,
        AxisSpec(form=form, low=0.0),
        begins,
    )
    return Figure(caption, note, chart)


def _time(results: Results) -> Iterator[Figure]:
    """The time of a run's stages, and of the parts of its steps."""
    stages, parts = results.cost.seconds, dict(results.cost.steps)
    if parts:
        parts["other"] = max(0.0, stages["train"] - sum(parts.values()))
    for caption, note, seconds in (
        ("Time by part of the run", "in all since this process was started", stages),
        ("Time by part of a step", "of training", parts),
    ):
        least = sum(seconds.values()) / 200  # hardly to be seen
        shown = {name: took for name, took in seconds.items() if took > least}
        if not shown:
            continue
        texts = {name: format_seconds(took) for name, took in shown.items()}
        order = sorted(shown, key=lambda name: -shown[name])
        yield Figure(
            caption,
            f"{format_seconds(sum(shown.values()))} {note}.",
            charts.parts(
                caption,
                ", ".join(f"{name} {took}" for name, took in texts.items()),
                [(name, shown[name], texts[name]) for name in order],
            ),
        )


def lr_range_chart(test: LrRange) -> Markup:
    """Loss over the learning rate of a range test."""
    smoothed = [loss for loss in test.smoothed if loss is not None]
    top = 1.15 * max(smoothed)
    series = [
        Series(_loss_by_rate(test.rates, losses, top), name, style)
        for losses, name, style in (
            (test.losses, "each step", "third"),
            (test.smoothed, "smoothed", "main"),
        )
    ]
    is_inside = test.rates[0] <= test.rate <= test.rates[-1]  # a default may be beyond
    return charts.lines(
        "Loss by learning rate",
        f"Suggested rate {test.rate:g}: {test.why}.",
        series,
        AxisSpec("learning rate, powers of ten", "1e{:g}"),
        AxisSpec(high=top),
        Marks(down=[(math.log10(test.rate), f"{test.rate:g}")] if is_inside else []),
    )


def _loss_by_rate(
    rates: Sequence[float], losses: Sequence[float | None], top: float
) -> list[Point]:
    return [
        (math.log10(rate), min(loss, top))
        for rate, loss in zip(rates, losses, strict=True)
        if loss is not None
    ]


def out_of_scope_curve(found: OutOfScope | None) -> Markup | None:
    """The share of documents of held-out labels that is found, by that of others found too."""
    if found is None:
        return None
    points = [(one.flagged, one.found) for one in found.curve]
    at = max((one for one in found.curve if one.flagged <= found.rate), key=lambda one: one.flagged)
    return charts.lines(
        "Held-out labels found",
        f"at {percent(at.flagged)} of the others, {percent(at.found)} are found",
        [Series(points, "", "main")],
        AxisSpec("found by mistake: share of the other documents", "{:.0%}", 0.0, 1.0),
        AxisSpec("held-out labels found", "{:.0%}", 0.0, 1.0),
        Marks((), [(found.rate, f"threshold: {percent(found.rate)}")]),
    )
