"""Run folders of the same test rows → which is better, by how much, and how certain that is.

    runs = [read_run(Path("runs/bbc_news/a")), read_run(Path("runs/bbc_news/b"))]
    comparison = compare_runs(runs)

Rows that are hard for both runs do not show a difference, so runs are compared row by row. The
interval of a difference is that of `confusion.paired_difference`. The p-value is McNemar's exact
test (1947): of the rows that only one of two runs gets right, is each one's share beyond chance?
With more than two runs, p-values are corrected by Holm (1979), as more pairs differ by chance.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from finetune.evaluation import confusion, intervals, probabilities
from finetune.reporting import charts, html_report
from finetune.reporting.baseline_comparison import name_metric
from finetune.reporting.number_formats import format_seconds, percent, signed
from finetune.reporting.results_model import Results, read_results
from finetune.runtime.console import format_table
from finetune.runtime.errors import InputError

METRICS = ("accuracy", "f1_macro")
SIGNIFICANT = 0.05  # a p-value below it


@dataclass(frozen=True)
class Run:
    """A finished run's predictions on test.

    Attributes:
        name: its folder, as the user gave it.
        results: its `results.json`.
        labels, predictions: true and predicted class ids (rows,); multi-label: 0 and 1 (rows,
            classes).
    """

    name: str
    results: Results
    labels: confusion.Labels
    predictions: confusion.Labels


def read_run(folder: Path) -> Run:
    """A run folder.

    Raises:
        InputError: where it is none, is of an earlier version, or has no labelled test split.
    """
    results = read_results(folder)
    if not results.test.labelled:
        raise InputError(f"{folder}: its test split has no labels, so nothing can be compared")
    ids = {name: i for i, name in enumerate(results.data.labels)}
    text = (folder / "predictions" / "test.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.split("\n") if line]
    labels, predictions = (
        _class_ids([line[key] for line in lines], ids) for key in ("label", "predicted")
    )
    return Run(str(folder), results, labels, predictions)


def _class_ids(names: Sequence[str | list[str]], ids: Mapping[str, int]) -> confusion.Labels:
    if not any(isinstance(name, list) for name in names):
        return np.array([ids[str(name)] for name in names], dtype=np.int64)
    sets = np.zeros((len(names), len(ids)), dtype=np.int64)
    for row, of_row in zip(sets, names, strict=True):
        row[[ids[name] for name in of_row]] = 1
    return sets


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs that were not tested on the same rows.

    Raises:
        InputError: for each that differs from the first, by the hash of its test split.
    """
    first = runs[0]
    problems = []
    for run in runs[1:]:
        same_rows = run.results.hashes.test == first.results.hashes.test
        if not same_rows or run.results.data.labels != first.results.data.labels:
            problems.append(
                f"{run.name}: its test rows are not those of {first.name} ({_test_rows(run)}, "
                f"against {_test_rows(first)}); only predictions of the same rows can be compared"
            )
    if problems:
        raise InputError(problems)


def _test_rows(run: Run) -> str:
    results = run.results
    return f"{len(run.labels):,} rows of {results.data.source}, hash {results.hashes.test[:12]}"


def compare_runs(runs: Sequence[Run]) -> dict[str, Any]:
    """Scores of each run, and each pair's differences.

    Raises:
        InputError: where the test rows are not the same.
    """
    check_comparable(runs)
    classes = len(runs[0].results.data.labels)
    pairs = [_pair(one, other, classes) for one, other in combinations(runs, 2)]
    corrected = intervals.correct_p_values([pair["p"] for pair in pairs])
    for pair, value in zip(pairs, corrected, strict=True):
        pair["p_holm"] = value
    return {
        "rows": len(runs[0].labels),
        "test": runs[0].results.hashes.test,
        "runs": [_scores(run, classes) for run in runs],
        "pairs": pairs,
    }


def _scores(run: Run, classes: int) -> dict[str, Any]:
    table = confusion.Confusion.from_labels(run.labels, run.predictions, classes)
    accuracy, results = table.observed("accuracy"), run.results
    return {
        "run": run.name,
        "recipe": results.recipe,
        "model": results.model.source,
        "accuracy": accuracy,
        "accuracy_interval": intervals.wilson_interval(accuracy, len(run.labels)),
        "f1_macro": table.observed("f1_macro"),
        "f1_macro_interval": table.interval("f1_macro"),
        "ece": results.calibration.on("test").after.ece,
        "loss": results.test.loss,
        "seconds": results.train.seconds,
    }


def _pair(one: Run, other: Run, classes: int) -> dict[str, Any]:
    ones, others = (probabilities.is_correct(one.labels, run.predictions) for run in (one, other))
    only_one, only_other = int((ones & ~others).sum()), int((others & ~ones).sum())
    return {
        "one": one.name,
        "other": other.name,
        **{
            name: confusion.paired_difference(
                name, one.labels, other.predictions, one.predictions, classes
            )
            for name in METRICS
        },
        "monitor": _shared_monitor(one, other),
        "only_one_right": only_one,
        "only_other_right": only_other,
        "p": intervals.mcnemar_p(only_other, only_one),
    }


def _shared_monitor(one: Run, other: Run) -> str:
    """The metric that picked both models, where they are compared by it; else accuracy."""
    names = {run.results.monitor for run in (one, other)}
    return "f1_macro" if names == {"f1_macro"} else "accuracy"


def describe_pair(pair: Mapping[str, Any]) -> str:
    """Which of two runs is better, in a sentence."""
    metric = pair["monitor"]
    gap = pair[metric]
    low, high = (signed(100 * end) for end in gap["interval"])
    differs = gap["interval"][0] > 0 or gap["interval"][1] < 0
    better, worse = pair["one"], pair["other"]
    if gap["difference"] > 0:
        better, worse = worse, better
    certainty = f"95 % interval {low} to {high}"
    if metric == "accuracy":
        differs = pair["p_holm"] < SIGNIFICANT
        certainty += f", p = {pair['p_holm']:.2g}"
    if differs:
        conclusion = f"{better} is better than {worse}"
    else:
        conclusion = f"No clear difference between {pair['other']} and {pair['one']}"
    return (
        f"{conclusion}: {signed(100 * gap['difference'])} points of {name_metric(metric)} for "
        f"{pair['other']} ({certainty})."
    )


def as_text(comparison: Mapping[str, Any]) -> str:
    """The comparison as a table of at most 80 columns, and a line for each pair."""
    names = _short([run["run"] for run in comparison["runs"]])
    rows = [("", "accuracy", "95 % interval", "f1_macro", "ECE", "trained")]
    for name, run in zip(names, comparison["runs"], strict=True):
        low, high = run["accuracy_interval"]
        rows.append(
            (
                name,
                f"{run['accuracy']:.4f}",
                f"{low:.4f} to {high:.4f}",
                f"{run['f1_macro']:.4f}",
                f"{run['ece']:.3f}",
                format_seconds(run["seconds"]),
            )
        )
    return format_table(rows, indent=0)


def _short(names: Sequence[str], most: int = 26) -> list[str]:
    """Names without their common start, and at most so long: their ends tell them apart."""
    parts = [Path(name).parts for name in names]
    while len({part[0] for part in parts}) == 1 and all(len(part) > 1 for part in parts):
        parts = [part[1:] for part in parts]
    joined = ["/".join(part) for part in parts]
    return [name if len(name) <= most else "…" + name[1 - most :] for name in joined]


def as_page(comparison: Mapping[str, Any]) -> str:
    """The comparison as one self-contained page."""
    names = _short([run["run"] for run in comparison["runs"]], 44)
    rows = [
        charts.Row(
            name, run["accuracy"], run["accuracy_interval"], "main", percent(run["accuracy"])
        )
        for name, run in zip(names, comparison["runs"], strict=True)
    ]
    description = "; ".join(f"{row.name} {row.note}" for row in rows)
    return (
        html_report.template_environment()
        .get_template("compare.html")
        .render(
            comparison=comparison,
            names=dict(zip((run["run"] for run in comparison["runs"]), names, strict=True)),
            overview=charts.whiskers(
                "Accuracy of each run", description, rows, "accuracy", "{:.0%}"
            ),
            verdicts=[describe_pair(pair) for pair in comparison["pairs"]],
            signed=signed,
        )
    )
