"""Several label columns, each a task with labels of its own → one label space, divided into blocks.

    tasks = Tasks.of(("topic: sport", "topic: art", "urgent: no", "urgent: yes"), {"topic": 1.0, …})
    tasks.predict(logits)          # (rows, labels) 0 and 1: in each block, the label of the most
    tasks.view(logits, labels, 0)  # one task's logits and class ids, of the rows that have a label

A model's logit of a label is the log-odds of its probability, which is a softmax over its task's
labels alone. So a sigmoid gives that probability, and -log of a true label's is softplus(-logit),
without the others. Numpy alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.config.label_tasks import MARK
from finetune.runtime.errors import InputError, shorten

LEAST = 2  # labels of a task
# From this many rows on, a column with half as many values as rows is no set of classes.
SUSPICIOUS_ROWS = 50


@dataclass(frozen=True)
class Task:
    """A block of the label space.

    Attributes:
        labels: their names, without the task's.
        weight: in the loss.
        first: the place of its first label in the label space.
    """

    name: str
    labels: tuple[str, ...]
    weight: float
    first: int

    @property
    def block(self) -> slice:
        """Its columns of logits."""
        return slice(self.first, self.first + len(self.labels))


@dataclass(frozen=True)
class Tasks:
    """The tasks that one label space is of, in its order."""

    each: tuple[Task, ...]

    @classmethod
    def of(cls, space: Sequence[str], weights: Mapping[str, float]) -> "Tasks | None":
        """Those of a label space in the order of `order_tasks`; None where there are no tasks.

        Args:
            weights: task → its weight in the loss.
        """
        found, first = [], 0
        for name, weight in weights.items():
            start = f"{name}{MARK}"
            labels = tuple(one.removeprefix(start) for one in space if one.startswith(start))
            found.append(Task(name, labels, float(weight), first))
            first += len(labels)
        return cls(tuple(found)) if found else None

    def __iter__(self) -> Iterator[Task]:
        return iter(self.each)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(task.name for task in self)

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each in the loss."""
        return {task.name: task.weight for task in self}

    def label_weights(self) -> NDArray[np.float64]:
        """What -log p of each label counts: its task's share of all weights. (labels,)"""
        total = sum(task.weight for task in self)
        shares = [task.weight / total for task in self]
        return np.repeat(shares, [len(task.labels) for task in self])

    def same_task(self) -> NDArray[np.float64]:
        """1 / labels of the task where two labels are of one, else 0. (labels, labels)"""
        count = sum(len(task.labels) for task in self)
        shares = np.zeros((count, count))
        for task in self:
            shares[task.block, task.block] = 1 / len(task.labels)
        return shares

    def choose(self, logits: NDArray[Any]) -> NDArray[np.int64]:
        """The most probable label of each task, as its place in it. (rows, tasks)"""
        return np.stack([logits[:, task.block].argmax(axis=1) for task in self], axis=1)

    def predict(self, logits: NDArray[Any]) -> NDArray[np.int64]:
        """The same as 0 and 1 for each label, one in each block. (rows, labels)"""
        chosen = self.choose(logits) + np.array([task.first for task in self])
        predicted = np.zeros(logits.shape, dtype=np.int64)
        np.put_along_axis(predicted, chosen, 1, axis=1)
        return predicted

    def rows_of(self, labels: NDArray[Any], task: Task) -> NDArray[np.int64]:
        """The rows that have a label of a task.

        Args:
            labels: 0 and 1. (rows, labels)
        """
        return np.flatnonzero(labels[:, task.block].any(axis=1))

    def ids_of(self, labels: NDArray[Any], task: Task) -> NDArray[np.int64]:
        """The class ids within a task, of the rows that have a label of it. (its rows,)"""
        found: NDArray[np.int64] = labels[self.rows_of(labels, task), task.block].argmax(axis=1)
        return found

    def view(
        self, logits: NDArray[Any], labels: NDArray[Any], task: Task
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """A task's logits and class ids, of the rows that have a label of it.

        Args:
            labels: 0 and 1. (rows, labels)

        Returns:
            Logarithms of its probabilities, (its rows, its labels), and (its rows,)
        """
        rows = self.rows_of(labels, task)
        return self.log_probabilities(logits[rows], task), self.ids_of(labels, task)

    @staticmethod
    def log_probabilities(logits: NDArray[Any], task: Task) -> NDArray[np.float64]:
        """The logarithms of the probabilities of a task's labels. (rows, its labels)"""
        log_odds = logits[:, task.block].astype(np.float64)
        found: NDArray[np.float64] = -np.logaddexp(0.0, -log_odds)
        return found

    def log_odds(self, of_tasks: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        """Logits of this model, from any logits of each task under a softmax. (rows, labels)"""
        found = []
        for logits in of_tasks:
            wide = logits.astype(np.float64)
            others = np.empty_like(wide)
            for label in range(wide.shape[1]):
                others[:, label] = np.logaddexp.reduce(np.delete(wide, label, axis=1), axis=1)
            found.append(wide - others)
        return np.concatenate(found, axis=1)

    def as_config(self) -> list[dict[str, Any]]:
        """What a model's config.json says of them. A list, as its keys are sorted."""
        return [
            {"name": task.name, "labels": len(task.labels), "weight": task.weight} for task in self
        ]

    @classmethod
    def of_config(cls, given: Any, space: Sequence[str]) -> "Tasks":
        """Those of a model's config.json.

        Raises:
            ValueError: where they are not those of the label space.
        """
        found = cls.of(space, {str(one["name"]): float(one["weight"]) for one in given})
        sizes = [int(one["labels"]) for one in given]
        names = (
            ()
            if found is None
            else tuple(f"{task.name}{MARK}{label}" for task in found for label in task.labels)
        )
        if found is None or names != tuple(space) or sizes != [len(t.labels) for t in found]:
            raise ValueError(f"expected the tasks of the labels, found {given!r}")
        return found


def order_tasks(space: tuple[str, ...], weights: Mapping[str, float]) -> tuple[str, ...]:
    """A label space with the labels of each task side by side, in the order of the tasks.

    Args:
        weights: of each task; empty: there are none.
    """
    if not weights:
        return space
    place = {name: i for i, name in enumerate(weights)}
    return tuple(sorted(space, key=lambda label: place[label.split(MARK, 1)[0]]))  # stable


def check_task_labels(tasks: Tasks, splits: Mapping[str, NDArray[Any] | None]) -> None:
    """
    Args:
        splits: name → 0 and 1 (rows, labels), None where a split has no labels; train among them.

    Raises:
        InputError: for each task with fewer than two labels in train, or as many as identifiers
            have; and where no row of another split has a label of it.
    """
    problems = []
    for task in tasks:
        train = splits["train"]
        assert train is not None, "train rows without labels are refused"
        rows = len(tasks.rows_of(train, task))
        if len(task.labels) < LEAST:
            listed = shorten([repr(one) for one in task.labels]) or "none"
            problems.append(
                f"train: expected {LEAST} labels or more in '{task.name}' (data.tasks), found "
                f"{listed}; leave the column out, or give rows that have others"
            )
        elif rows > SUSPICIOUS_ROWS and 2 * len(task.labels) > rows:
            problems.append(
                f"train: {len(task.labels):,} different labels in '{task.name}' in {rows:,} rows: "
                "that looks like ids or free text; name columns of classes in data.tasks"
            )
        for name, labels in splits.items():
            if labels is not None and len(labels) and not len(tasks.rows_of(labels, task)):
                problems.append(
                    f"{name}: no row has a label in '{task.name}' (data.tasks), which cannot be "
                    f"scored there; give it some, set data.{name}=carve, or leave the column out"
                )
    if problems:
        raise InputError(problems)
