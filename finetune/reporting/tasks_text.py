"""Results of several tasks → those of each by itself, their table, and a sentence for each."""

from collections.abc import Iterator
from typing import TypeVar

from finetune.config.label_tasks import MARK, POINT
from finetune.evaluation.analysis_model import ColumnAnalysis, MetricValues, TaskAnalysis
from finetune.reporting.evaluation_model import Evaluation
from finetune.reporting.number_formats import format_interval, format_score
from finetune.reporting.results_model import Results

Some = TypeVar("Some", Results, Evaluation)


def task_results(results: Some, task: ColumnAnalysis) -> Some:
    """The results as those of a run of this task alone, over the rows that have a label of it."""
    start, data = f"{task.name}{MARK}", results.data
    splits = {}
    for name, split in data.splits.items():
        classes = {
            label.removeprefix(start): rows
            for label, rows in split.classes.items()
            if label.startswith(start)
        }
        rows = sum(classes.values()) or split.rows  # without labels, all are predicted
        splits[name] = split.model_copy(update={"classes": classes, "rows": rows})
    labels = [one.removeprefix(start) for one in data.labels if one.startswith(start)]
    own = data.model_copy(update={"labels": labels, "splits": splits})
    found = {name: getattr(task, name) for name in TaskAnalysis.model_fields}
    return results.model_copy(update=found | {"data": own, "tasks": []})


def each_task(results: Some) -> Iterator[tuple[ColumnAnalysis, Some]]:
    """Each task, with the results of it alone."""
    for task in results.tasks:
        yield task, task_results(results, task)


def tabulate_tasks(results: Results | Evaluation) -> list[list[str]]:
    """Each metric as the mean of the tasks, then of each, beside those of the baselines."""
    validation, test = results.validation, results.test
    is_compared = any(task.baselines is not None for task in results.tasks)
    header = ["", *["validation"] * validation.labelled]
    header += [*["test", "95 % interval"] * test.labelled, *["TF-IDF", "majority"] * is_compared]
    rows = [header]
    for name in results.scores.intervals:
        row = [name]
        if validation.labelled:
            row.append(_show(validation, name))
        if test.labelled:
            row += [_show(test, name), format_interval(test.intervals.get(name))]
        if is_compared:
            row += [*_baseline_scores(results, name)]
        rows.append(row)
    counts = [f"{one.rows:,}" for one in (validation, test) if one.labelled]
    return [*rows, ["rows", *counts, *[""] * (len(header) - 1 - len(counts))]]


def _show(scores: MetricValues, name: str) -> str:
    return format_score(scores.metric(name) if scores.has(name) else None)


def _baseline_scores(results: Results | Evaluation, name: str) -> Iterator[str]:
    """What each baseline scores of a task; of the mean of all, the mean of these."""
    task, _, metric = name.rpartition(POINT)
    asked = [one for one in results.tasks if one.name == task or not task]
    for kind in ("tfidf", "majority"):
        values = [
            getattr(one.baselines, kind).metric(metric)
            for one in asked
            if one.baselines is not None and metric != "loss"
        ]
        known = [value for value in values if value is not None]
        yield format_score(sum(known) / len(known)) if known and len(known) == len(asked) else "–"
