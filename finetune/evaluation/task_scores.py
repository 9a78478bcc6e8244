"""Logits of several tasks (`label_tasks.py`) → the metrics of each, their means, the loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from finetune.config.label_tasks import POINT
from finetune.data.label_tasks import Tasks
from finetune.evaluation.calibration import Temperature, fit_temperature
from finetune.evaluation.metrics import Metric, measure

Floats = NDArray[np.float64]
Ids = NDArray[Any]


def task_losses(logits: NDArray[Any], labels: Ids, tasks: Tasks) -> Floats:
    """Of each row the mean cross-entropy of the tasks, by their weights, in nats. (rows,)

    A task that the row has no label of counts 0.

    Args:
        labels: 0 and 1. (rows, labels)
    """
    nats = np.logaddexp(0.0, -logits.astype(np.float64))
    summed: Floats = (labels * tasks.label_weights() * nats).sum(axis=1)
    return summed


def constant_guess_of_tasks(labels: Ids, counts: Ids, tasks: Tasks) -> float:
    """The loss of the worse guess: the labels of each task equally likely, or as likely as in
    train.

    Args:
        labels: 0 and 1. (rows, labels)
        counts: the rows of train that have each label. (labels,)
    """
    even = np.concatenate([np.full(len(task.labels), len(task.labels)) for task in tasks])
    all_rows = np.concatenate(
        [np.full(len(task.labels), counts[task.block].sum()) for task in tasks]
    )
    likely = np.maximum(counts / np.maximum(all_rows, 1), 1e-12)
    weighted = labels.mean(axis=0) * tasks.label_weights()
    return float(max(weighted @ np.log(even), weighted @ -np.log(likely)))


def measure_tasks(
    metrics: Sequence[Metric], logits: NDArray[Any], labels: Ids, tasks: Tasks
) -> dict[str, float]:
    """Every metric as the mean of the tasks', then of each task: `topic.accuracy`.

    A task is measured over the rows that have a label of it; where none has, it is left out.

    Args:
        metrics: of single labels.
        labels: 0 and 1. (rows, labels)
    """
    of_task = {}
    for task in tasks:
        its_logits, ids = tasks.view(logits, labels, task)
        if len(ids):
            of_task[task.name] = measure(metrics, its_logits, ids)
    keys = [*next(iter(of_task.values()), {})]
    means = {key: float(np.mean([of[key] for of in of_task.values()])) for key in keys}
    return means | {
        f"{name}{POINT}{key}": value for name, of in of_task.items() for key, value in of.items()
    }


@dataclass(frozen=True)
class TaskTemperatures:
    """What the outputs of each task are divided by, as of `calibration.Temperature`."""

    tasks: Tasks
    each: tuple[Temperature, ...]

    @classmethod
    def fit(cls, tasks: Tasks, logits: NDArray[Any], labels: Ids) -> "TaskTemperatures":
        """Those of held-out rows; a task is fitted on the rows that have a label of it."""
        views = [tasks.view(logits, labels, task) for task in tasks]
        return cls(tasks, tuple(fit_temperature(cast(Any, of), ids) for of, ids in views))

    @property
    def are_one(self) -> bool:
        """Whether the model stays as it is."""
        return all(one.value == 1 for one in self.each)

    @property
    def value(self) -> Floats:
        """What the head's outputs are divided by. (labels,)"""
        sizes = [len(task.labels) for task in self.tasks]
        return np.repeat([one.value for one in self.each], sizes)

    def divide(self, logits: NDArray[Any]) -> NDArray[np.float32]:
        """The logits of the saved model, from those that it was trained to. (rows, labels)"""
        divided = [
            self.tasks.log_probabilities(logits, task) / one.value
            for task, one in zip(self.tasks, self.each, strict=True)
        ]
        return self.tasks.log_odds(divided).astype(np.float32)
