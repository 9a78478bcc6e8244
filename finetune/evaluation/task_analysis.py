"""Several tasks → the analysis of each by itself, as if it were a model's only one.

Each is over the rows that have a label of it: `task_corpus` and `Tasks.view` give what `analyse`
takes of one task.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from finetune.config.label_tasks import POINT, base_metric
from finetune.config.run_sections import Score
from finetune.data.corpus import Corpus, Split
from finetune.data.label_tasks import Task, Tasks
from finetune.evaluation import analysis, confusion, intervals
from finetune.evaluation.analysis_model import Analysis, TaskAnalysis
from finetune.evaluation.metrics import Metric
from finetune.evaluation.number_analysis import assemble_without_labels
from finetune.evaluation.outcome import Outcome
from finetune.evaluation.scoring import Scores, compute_metrics
from finetune.evaluation.task_scores import task_losses
from finetune.tokenization.token_table import TokenTable

WHY = "each task has its own"


def analyse_tasks(
    corpus: Corpus,
    tables: Mapping[str, TokenTable],
    outcome: Outcome,
    metrics: Sequence[Metric],
    score: Score,
) -> Analysis:
    """Scores of all tasks together, and what `analysis.analyse` finds of each."""
    tasks, temperatures = corpus.tasks, outcome.of_tasks
    assert tasks is not None
    assert temperatures is not None
    each, names = [], tasks.names
    alone = score.model_copy(update={"monitor": base_metric(score.monitor, names)})
    for task, temperature in zip(tasks, temperatures.each, strict=True):
        of_outcome = replace(
            outcome,
            temperature=temperature,
            test_temperature=temperature.value,
            validation=None
            if outcome.validation is None
            else _task_scores(corpus.validation, outcome.validation, tasks, task, metrics),
            test=_task_scores(corpus.test, outcome.test, tasks, task, metrics),
            of_tasks=None,
        )
        its_tables = {
            split.name: _task_table(split, tables[split.name], tasks, task)
            for split in corpus.splits()
        }
        each.append((task, analysis.analyse(
            task_corpus(corpus, task), its_tables, of_outcome, metrics, alone
        )))  # fmt: skip
    is_scored = corpus.test.labels is not None
    return _assemble(
        each,
        _split_scores(corpus.validation, outcome.validation, metrics, tasks),
        _split_scores(corpus.test, outcome.test, metrics, tasks),
        score.monitor,
        corpus.test.name if is_scored else corpus.validation.name,
    )


def analyse_task_rows(
    split: Split,
    table: TokenTable,
    scores: Scores,
    tasks: Tasks,
    metrics: Sequence[Metric],
    choices: Callable[[Task], analysis.SavedChoices],
    monitor: str | None,
    slices: Sequence[str] = (),
) -> Analysis:
    """The same of labelled rows alone: of the tasks that some row has a label of.

    Args:
        choices: what was chosen for a task when the model was trained.
        slices: columns by whose values each task is scored too.
    """
    assert split.labels is not None
    each = [
        (
            task,
            analysis.analyse_rows(
                task_split(split, tasks, task),
                _task_table(split, table, tasks, task),
                of_task,
                task.labels,
                metrics,
                choices(task),
                slices,
            ),
        )
        for task in tasks
        if len((of_task := _task_scores(split, scores, tasks, task, metrics)).logits)
    ]
    found = _split_scores(split, scores, metrics, tasks)
    return _assemble(each, _split_scores(split, None, metrics, tasks), found, monitor, "test")


def task_corpus(corpus: Corpus, task: Task) -> Corpus:
    """The corpus of one task."""
    tasks = corpus.tasks
    assert tasks is not None
    return replace(
        corpus,
        labels=task.labels,
        train=task_split(corpus.train, tasks, task),
        validation=task_split(corpus.validation, tasks, task),
        test=task_split(corpus.test, tasks, task),
        multi_label=False,
        tasks=None,
    )


def task_split(split: Split, tasks: Tasks, task: Task) -> Split:
    """The rows that have a label of a task, with its class ids; all of a split without labels."""
    if split.labels is None:
        return split
    rows = tasks.rows_of(split.labels, task)
    return replace(split.take(rows), labels=tasks.ids_of(split.labels, task))


def _task_table(split: Split, table: TokenTable, tasks: Tasks, task: Task) -> TokenTable:
    if split.labels is None:
        return table
    rows = tasks.rows_of(split.labels, task)
    return table if len(rows) == len(table) else table.take(rows)


def _task_scores(
    split: Split, scores: Scores, tasks: Tasks, task: Task, metrics: Sequence[Metric]
) -> Scores:
    """The scores of one task, over its rows."""
    if split.labels is None:
        return Scores(cast(Any, tasks.log_probabilities(scores.logits, task)), {})
    # In double precision, in which no two logits of fp32 become one.
    wide, ids = tasks.view(scores.logits, split.labels, task)
    logits = cast(Any, wide)
    return Scores(logits, compute_metrics(logits, ids, metrics) if len(ids) else {})


def _split_scores(
    split: Split, scores: Scores | None, metrics: Sequence[Metric], tasks: Tasks
) -> dict[str, Any]:
    if scores is None:  # there is no such split
        return {"rows": 0, "labelled": False}
    if split.labels is None:
        return {"rows": len(split), "labelled": False}
    found: dict[str, Any] = {
        metric.key: confusion.interval_of_tasks(
            metric.key, split.labels, tasks.predict(scores.logits), [task.block for task in tasks]
        )
        if metric.interval_method in ("share", "confusion")
        else None
        for metric in metrics
    }
    found["loss"] = intervals.mean_interval(task_losses(scores.logits, split.labels, tasks))
    for task in tasks:
        logits, ids = tasks.view(scores.logits, split.labels, task)
        if len(ids):
            of_task = confusion.metric_intervals(metrics, cast(Any, logits), ids)
            found |= {f"{task.name}{POINT}{key}": of_task[key] for key in of_task if key != "loss"}
    return {"rows": len(split), "labelled": True, "intervals": found} | scores.values


def _assemble(
    each: Sequence[tuple[Task, Analysis]],
    validation: dict[str, Any],
    test: dict[str, Any],
    monitor: str | None,
    analysed: str,
) -> Analysis:
    return assemble_without_labels(
        {
            "validation": validation,
            "test": test,
            "baselines": None,
            "monitor": monitor,
            "analysed": analysed,
            "tasks": [
                {name: getattr(found, name) for name in TaskAnalysis.model_fields}
                | {"name": task.name, "weight": task.weight}
                for task, found in each
            ],
        },
        WHY,
    )
