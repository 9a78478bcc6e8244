"""Run folders of the same test rows → which is better, by how much, and how sure that is.

    found = compare([read(Path("runs/bbc_news/a")), read(Path("runs/bbc_news/b"))])

Rows that are hard for both say nothing of the difference, so it is taken row by row: its interval
by the bootstrap over rows with both answers, its p-value by McNemar's exact test (1947), which asks
whether of the rows that only one gets right, more than chance are one's. With more than two runs,
p-values are Holm's (1979): the more pairs, the more of them differ by chance.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from finetune.evaluation import confusion, intervals, probabilities
from finetune.reporting import charts, html_report, narrative
from finetune.reporting import results_model as results_module
from finetune.reporting.narrative import percent, signed
from finetune.runtime.console import format_table
from finetune.runtime.errors import InputError

METRICS = ("accuracy", "f1_macro")
CLEAR = 0.05  # a p-value below it


@dataclass(frozen=True)
class Run:
    """A finished run's answers on test.

    Attributes:
        name: its folder, as the user gave it.
        results: its `results.json`.
        labels, guesses: true and given class ids (rows,); of several labels, 0 and 1 (rows,
            classes).
    """

    name: str
    results: Mapping[str, Any]
    labels: confusion.Labels
    guesses: confusion.Labels


def read_run(folder: Path) -> Run:
    """A run folder.

    Raises:
        InputError: where it is none, is of an earlier version, or has no labelled test split.
    """
    results = results_module.read_results(folder).as_json()
    if not results["test"]["labelled"]:
        raise InputError(f"{folder}: its test split has no labels, so nothing can be compared")
    ids = {name: i for i, name in enumerate(results["data"]["labels"])}
    lines = (folder / "predictions" / "test.jsonl").read_text(encoding="utf-8")
    answers = [json.loads(line) for line in lines.split("\n") if line]
    labels, guesses = (
        _ids([answer[key] for answer in answers], ids) for key in ("label", "predicted")
    )
    return Run(str(folder), results, labels, guesses)


def _ids(names: Sequence[str | list[str]], ids: Mapping[str, int]) -> confusion.Labels:
    if not any(isinstance(name, list) for name in names):
        return np.array([ids[str(name)] for name in names], dtype=np.int64)
    sets = np.zeros((len(names), len(ids)), dtype=np.int64)
    for row, several in zip(sets, names, strict=True):
        row[[ids[name] for name in several]] = 1
    return sets


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs that were not tested on the same rows.

    Raises:
        InputError: for each that differs from the first, by the hash of its test split.
    """
    first = runs[0]
    problems = []
    for run in runs[1:]:
        of_both = [
            (one.results["hashes"]["test"], one.results["data"]["labels"]) for one in (first, run)
        ]
        if of_both[0] != of_both[1]:
            problems.append(
                f"{run.name}: its test rows are not those of {first.name} ({len(run.labels):,} "
                f"rows of {run.results['data']['source']}, hash {of_both[1][0][:12]}, against "
                f"{len(first.labels):,} of {first.results['data']['source']}, hash "
                f"{of_both[0][0][:12]}); only answers to the same rows can be compared"
            )
    if problems:
        raise InputError(problems)


def compare_runs(runs: Sequence[Run]) -> dict[str, Any]:
    """Scores of each run, and each pair's differences.

    Raises:
        InputError: where the test rows are not the same.
    """
    check_comparable(runs)
    classes = len(runs[0].results["data"]["labels"])
    pairs = [_pair(one, other, classes) for one, other in combinations(runs, 2)]
    # Holm: the smallest p-value times the number of pairs, the next times one less, …
    order = sorted(range(len(pairs)), key=lambda i: pairs[i]["p"])
    least = 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, pairs[i]["p"] * (len(pairs) - rank)))
        pairs[i]["p_holm"] = least
    return {
        "rows": len(runs[0].labels),
        "test": runs[0].results["hashes"]["test"],
        "runs": [_scores(run, classes) for run in runs],
        "pairs": pairs,
    }


def _scores(run: Run, classes: int) -> dict[str, Any]:
    table = confusion.Confusion.from_labels(run.labels, run.guesses, classes)
    accuracy, results = table.observed("accuracy"), run.results
    return {
        "run": run.name,
        "recipe": results["recipe"],
        "model": results["model"]["source"],
        "accuracy": accuracy,
        "accuracy_interval": intervals.wilson_interval(accuracy, len(run.labels)),
        "f1_macro": table.observed("f1_macro"),
        "f1_macro_interval": table.interval(lambda cells: table.value("f1_macro", cells)),
        "ece": results["calibration"]["test"]["after"]["ece"],
        "loss": results["test"]["loss"],
        "seconds": results["train"]["seconds"],
    }


def _pair(one: Run, other: Run, classes: int) -> dict[str, Any]:
    ones, others = (probabilities.is_correct(one.labels, run.guesses) for run in (one, other))
    only_one, only_other = int((ones & ~others).sum()), int((others & ~ones).sum())
    apart = only_one + only_other
    return {
        "one": one.name,
        "other": other.name,
        **{
            name: confusion.paired_difference(name, one.labels, other.guesses, one.guesses, classes)
            for name in METRICS
        },
        "only_one_right": only_one,
        "only_other_right": only_other,
        "p": float(binomtest(only_other, apart).pvalue) if apart else 1.0,
    }


def verdict(pair: Mapping[str, Any]) -> str:
    """A pair in words."""
    gap = pair["accuracy"]
    low, high = (signed(100 * end) for end in gap["interval"])
    clear = pair["p_holm"] < CLEAR
    better = pair["other"] if gap["difference"] > 0 else pair["one"]
    said = f"{better} is better" if clear else "no clear difference"
    return (
        f"{pair['other']} against {pair['one']}: {signed(100 * gap['difference'])} points of "
        f"accuracy (95 % interval {low} to {high}), p = {pair['p_holm']:.2g}: {said}"
    )


def as_text(found: Mapping[str, Any]) -> str:
    """The comparison as a table of at most 80 columns, and a line for each pair."""
    names = _short([run["run"] for run in found["runs"]])
    rows = [("", "accuracy", "95 % interval", "f1_macro", "ECE", "trained")]
    for name, run in zip(names, found["runs"], strict=True):
        low, high = run["accuracy_interval"]
        rows.append(
            (
                name,
                f"{run['accuracy']:.4f}",
                f"{low:.4f} to {high:.4f}",
                f"{run['f1_macro']:.4f}",
                f"{run['ece']:.3f}",
                narrative.format_seconds(run["seconds"]),
            )
        )
    return format_table(rows, indent=0)


def _short(names: Sequence[str], most: int = 26) -> list[str]:
    """Names without what they begin with alike, at most so long: their ends tell them apart."""
    parts = [Path(name).parts for name in names]
    while len({part[0] for part in parts}) == 1 and all(len(part) > 1 for part in parts):
        parts = [part[1:] for part in parts]
    joined = ["/".join(part) for part in parts]
    return [name if len(name) <= most else "…" + name[1 - most :] for name in joined]


def as_page(found: Mapping[str, Any]) -> str:
    """The comparison as one page, whole in itself."""
    names = _short([run["run"] for run in found["runs"]], 44)
    rows = [
        charts.Row(
            name, run["accuracy"], run["accuracy_interval"], "main", percent(run["accuracy"])
        )
        for name, run in zip(names, found["runs"], strict=True)
    ]
    said = "; ".join(f"{row.name} {row.note}" for row in rows)
    return (
        html_report.template_environment()
        .get_template("compare.html")
        .render(
            found=found,
            names=dict(zip((run["run"] for run in found["runs"]), names, strict=True)),
            overview=charts.whiskers("Accuracy of each run", said, rows, "accuracy", "{:.0%}"),
            verdicts=[verdict(pair) for pair in found["pairs"]],
            signed=signed,
        )
    )
