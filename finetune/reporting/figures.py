"""Results and the log → the page's charts, each with its text alternative."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from finetune.reporting import charts, narrative
from finetune.reporting.narrative import format_metric as said_score
from finetune.reporting.narrative import percent

MOST_IN_MATRIX = 30  # labels
SURELY = 0.2  # of all documents: on fewer, accuracy is a matter of chance

Results = Mapping[str, Any]
Log = narrative.Log


def overview(results: Results, main: str) -> Markup | None:
    plain, split = results["baselines"], results["analysed"]
    rows = [
        charts.Row(
            "this model",
            results[split][main],
            _pair(results[split]["intervals"][main]),
            "main",
            said_score(main, results[split][main]),
            strong=True,
        )
    ]
    if plain is not None:
        for name, key in (
            ("TF-IDF with logistic regression", "tfidf"),
            (f"always ‘{plain['majority']['label'][:30]}’", "majority"),
        ):
            value, pair = plain[key][main], _pair(plain[key]["intervals"][main])
            rows.append(charts.Row(name, value, pair, "third", said_score(main, value)))
    values = [end for row in rows for end in (row.value, *(row.interval or ()))]
    if not all(0 <= value <= 1 for value in values):
        return None  # a correlation, or a metric of elsewhere: the table says it
    said = "; ".join(f"{row.name} {row.note}" for row in rows)
    form = "{:.0%}" if main == "accuracy" else "{:.2f}"
    return charts.whiskers(f"{main} with 95 % intervals", said, rows, main, form)


def _pair(ends: Sequence[float] | None) -> tuple[float, float] | None:
    return None if ends is None else (ends[0], ends[1])


def heat(results: Results) -> list[dict[str, Any]]:
    """The confusion matrix with the shade of each cell; empty where it would be too large."""
    counts, labels = results["confusion"], [one["label"] for one in results["classes"]]
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


def reliability(results: Results) -> Iterator[dict[str, Any]]:
    found, split = results["calibration"], results["analysed"]
    changed = found["temperature"] != 1
    what = "decisions" if narrative.is_multi_label(results) else "rows"
    for when, caption in (("before", "As trained"), ("after", "As saved")):
        if when == "before" and not changed:
            continue
        about = found[split][when]
        said = "; ".join(
            f"sure {percent(part['confidence'], 0)}, right {percent(part['accuracy'], 0)}, "
            f"{part['rows']:.0f} {what}"
            for part in about["bins"]
        )
        yield {
            "caption": f"{caption}: sure against right, on {split}",
            "note": f"calibration error {about['ece']:.4f}; on the dashed line it would be honest",
            "chart": charts.reliability(f"Reliability, {caption.lower()}", said, about["bins"]),
        }


def coverage(results: Results) -> Markup | None:
    found = results["abstention"]
    if found is None or not found["validation"]["curve"]:
        return None
    series = [
        charts.Series(
            [
                (point["coverage"], point["accuracy"])
                for point in found[split]["curve"]
                if point["coverage"] >= SURELY
            ],
            split,
            style,
        )
        for split, style in (("validation", "third"), ("test", "main"))
        if found[split] is not None
    ]
    split = results["analysed"]
    chosen = found["threshold"] is not None and found[split]["coverage"]
    marks = (
        [(chosen, f"at {found['threshold']:.2f}: {percent(chosen, 0)} answered")] if chosen else []
    )
    lowest = min(y for one in series for _, y in one.points)
    return charts.lines(
        "Accuracy by coverage",
        narrative.abstention(results),
        series,
        "documents answered",
        "accuracy of the answers",
        "{:.0%}",
        "{:.1%}" if lowest > 0.97 else "{:.0%}",
        y_from=lowest,
        y_to=1.0,
        rules=[(found["target"], f"asked for: {percent(found['target'])}")]
        if found["target"] >= lowest
        else [],
        marks=marks,
        x_range=(SURELY, 1.0),
    )


def lengths(results: Results) -> Markup:
    rows = [
        charts.Row(
            f"{one['shortest']:,} to {one['longest']:,} tokens",
            one["accuracy"],
            _pair(one["accuracy_interval"]),
            "main",
            f"{percent(one['accuracy'])} of {one['rows']:,}",
        )
        for one in results["lengths"]
    ]
    said = "; ".join(f"{row.name}: {row.note}" for row in rows)
    return charts.whiskers("Accuracy by length", said, rows, "accuracy", "{:.0%}")


def training(results: Results, log: Log) -> Iterator[dict[str, Any]]:
    """The charts of how a run went: loss, validation's scores, rate, gradient, speed, time."""
    train = [line for line in log if line["kind"] == "train"]
    tuned = [line for line in log if line["kind"] == "validation"]
    best = results["train"]["best_step"]
    later = enumerate(results["train"].get("stages", [])[1:], 2)
    begins = [(one["first_step"], f"stage {number}") for number, one in later]
    if train:
        loss = charts.Series(
            [(line["step"], line["loss"]) for line in train],
            "train",
            band=[
                (
                    line["step"],
                    line["loss"] - line["loss_se"],
                    line["loss"] + line["loss_se"],
                )
                for line in train
            ],
        )
        of_tuned = charts.Series(
            [(line["step"], line["loss"]) for line in tuned], "validation", "other", marked=True
        )
        yield {
            "caption": "Loss",
            "note": "band: one standard error; a logarithmic scale",
            "chart": charts.lines(
                "Loss by step",
                f"Train loss fell from {train[0]['loss']:.3f} to {train[-1]['loss']:.3f}; "
                + ", ".join(f"validation at step {p['step']}: {p['loss']:.3f}" for p in tuned),
                [loss, of_tuned] if tuned else [loss],
                "step",
                "",
                "{:,.0f}",
                log=True,
                marks=begins,
            ),
        }
    several = len(results["train"].get("stages", [])) > 1
    for test in results["train"].get("lr_ranges", []):
        before = f"stage {test['stage']}" if several else "training"
        yield {
            "caption": "Range test of the learning rate",
            "note": f"before {before}: {test['rate']:g} was chosen",
            "chart": lr_range_chart(test),
        }
    measured = results[results["analysed"]]["intervals"]
    names = [name for name in measured if name in (tuned or [{}])[0]]
    names = [name for name in names if name != "loss" and "loss" not in name][:3]
    if tuned and names:
        low, high = (of(line[name] for line in tuned for name in names) for of in (min, max))
        yield {
            "caption": "Validation",
            "note": f"at each scoring; the best model is of step {best:,.0f}",
            "chart": charts.lines(
                "Validation metrics by step",
                "; ".join(f"step {p['step']}: {names[0]} {p[names[0]]:.4f}" for p in tuned),
                [
                    charts.Series([(p["step"], p[name]) for p in tuned], name, style, marked=True)
                    for name, style in zip(names, ("main", "other", "third"), strict=False)
                ],
                "step",
                "",
                "{:,.0f}",
                x_range=(0.0, max(line["step"] for line in log)),
                y_from=min(low, high - 0.05),  # a change in the fourth digit is no mountain
                y_to=max(high, min(1.0, low + 0.05)),
                marks=[(best, "the best")] if len(tuned) > 1 else [],
            ),
        }
    if not train:
        return
    steps = [line["step"] for line in train]
    clipped = results["train"]["clipped"]
    for key, caption, note, form in (
        ("lr", "Learning rate", "at each line of the log", "{:g}"),
        (
            "grad_norm",
            "Gradient norm",
            f"before clipping; {percent(clipped, 0)} of steps clipped",
            "{:g}",
        ),
        ("rows_per_second", "Speed", "documents a second", "{:,.0f}"),
    ):
        values = [line.get(key) or 0.0 for line in train]
        yield {
            "caption": caption,
            "note": note,
            "chart": charts.lines(
                f"{caption} by step",
                f"From {values[0]:.4g} to {values[-1]:.4g}, at most {max(values):.4g}",
                [charts.Series(list(zip(steps, values, strict=True)))],
                "step",
                "",
                "{:,.0f}",
                form,
                y_from=0.0,
                marks=begins,
            ),
        }
    yield from _time(results["cost"])


def _time(cost: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Where a run's time went, and that of its steps."""
    stages, parts = cost["seconds"], dict(cost.get("steps", {}))
    if parts:
        parts["the rest"] = max(0.0, stages["train"] - sum(parts.values()))
    for caption, what, note, spent in (
        ("Where the time went", "Time by stage", "in all since this process was started", stages),
        ("Where the steps’ time went", "Time by part of a step", "of training", parts),
    ):
        least = sum(spent.values()) / 200  # hardly to be seen
        shown = {name: took for name, took in spent.items() if took > least}
        if not shown:
            continue
        yield {
            "caption": caption,
            "note": f"{narrative.format_seconds(sum(shown.values()))} {note}",
            "chart": charts.parts(
                what,
                ", ".join(
                    f"{name} {narrative.format_seconds(took)}" for name, took in shown.items()
                ),
                [
                    (name, took, narrative.format_seconds(took))
                    for name, took in sorted(shown.items(), key=lambda part: -part[1])
                ],
            ),
        }


def lr_range_chart(found: Mapping[str, Any]) -> Markup:
    """Loss over rate, as `lr_range.json` holds it."""
    series = [
        charts.Series(_over(found, "losses"), "each step", "third"),
        charts.Series(_over(found, "smoothed"), "smoothed", "main"),
    ]
    top = 1.15 * max(found["smoothed"])
    clipped = [
        charts.Series([(x, min(y, top)) for x, y in one.points], one.name, one.style)
        for one in series
    ]
    rate = found["rate"]
    is_there = found["rates"][0] <= rate <= found["rates"][-1]  # a default may be beyond
    return charts.lines(
        "Loss by learning rate",
        f"Suggested rate {found['rate']:g}: {found['why']}.",
        clipped,
        "learning rate, powers of ten",
        "",
        "1e{:g}",
        y_to=top,
        marks=[(math.log10(rate), f"{rate:g}")] * is_there,
    )


def _over(found: Mapping[str, Any], key: str) -> list[charts.Point]:
    return [(math.log10(r), y) for r, y in zip(found["rates"], found[key], strict=True)]
