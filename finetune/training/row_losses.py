"""Training rows → the loss of each, by what it is compared with and what it counts.

    objective = rows.objective(recipe.train, device)
    task = objective.of_step(step, batch_rows)
    task.losses_of(logits, part)     # (part,); the mean over the step's rows is what it descends

Where rows have weights w, a step descends the weighted mean of its rows' losses l, Σ w·l / Σ w,
both sums over the step's rows on all processes. So a row of weight 0 might as well not be there,
and one of weight 2 is there twice.

Where teachers are learned from, a row's loss is (1 - a)·l + a·T²·KL, with a the teachers' part:
that of the recipe where the row has a label, 1 where it has none.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.config import schema
from finetune.data.label_tasks import Tasks
from finetune.runtime.device_copies import copy_rows, copy_tensor
from finetune.tokenization.token_table import Rows, TokenTable
from finetune.training.losses import (
    distillation_loss,
    row_loss,
    soft_row_loss,
    task_row_loss,
)
from finetune.training.objective import StepLosses, StepTask


@dataclass(frozen=True)
class TeacherLessons:
    """What teachers say of each row, and how much of its loss that is.

    Attributes:
        probabilities: at the temperature. (rows, classes)
        parts: of a row's loss, from 0 to 1. (rows,)
        temperature: what logits are divided by.
    """

    probabilities: NDArray[np.float32]
    parts: NDArray[np.float64]
    temperature: float


@dataclass(frozen=True)
class TrainingRows:
    """What is trained on.

    Attributes:
        table: the token ids of each row.
        labels: the true class of each row (rows,); multi-label: 0 and 1 for each class
            (rows, classes); or the numbers to be predicted (rows,), float64.
        micro_batch_tokens: tokens that are computed at once.
        class_weights: of each class in the loss, as of `losses.class_weights`. (classes,)
        shares: soft labels, in the place of `labels` in the loss. (rows, classes)
        weights: what each row counts in the mean of its step; None: all alike. (rows,)
        teacher: what teachers say of the rows, which is learned too.
        scale: of numbers, their deviation, which the loss divides errors by; of several tasks,
            these; None: labels are those of one task.
    """

    table: TokenTable
    labels: NDArray[Any]
    micro_batch_tokens: int
    class_weights: NDArray[np.float64] | None = None
    shares: NDArray[np.float32] | None = None
    weights: NDArray[np.float64] | None = None
    teacher: TeacherLessons | None = None
    scale: float | Tasks | None = None

    def objective(self, train: schema.Train, device: torch.device) -> "RowLosses":
        """What is learned of the rows by a recipe, with targets on a device."""
        return RowLosses(self, train, device)


class RowLosses:
    """What each row of train costs."""

    def __init__(self, rows: TrainingRows, train: schema.Train, device: torch.device) -> None:
        self._device, self._table = device, rows.table
        if isinstance(rows.scale, Tasks):
            self._targets = torch.from_numpy(rows.labels).to(device)
            self._loss = task_row_loss(train, rows.scale, rows.class_weights, device)
        elif rows.shares is None:
            labels = rows.labels if rows.scale is None else rows.labels.astype(np.float32)
            self._targets = torch.from_numpy(labels).to(device)
            self._loss = row_loss(train, rows.class_weights, device, rows.scale)
        else:
            self._targets = torch.from_numpy(rows.shares).to(device)
            several = rows.labels.ndim == 2
            self._loss = soft_row_loss(train, several, rows.class_weights, device)
        self._weights = rows.weights
        self._teacher, self._multi_label = rows.teacher, rows.labels.ndim == 2
        if rows.teacher is not None:
            self._lessons = torch.from_numpy(rows.teacher.probabilities).to(device)
            self._parts = torch.from_numpy(rows.teacher.parts.astype(np.float32)).to(device)

    def of_step(self, step: int, batch_rows: Rows) -> StepTask:
        """The rows of a step and their losses, whose mean is what the step descends.

        Args:
            batch_rows: of the step, of all processes.
        """
        return StepTask(self._table, batch_rows, self._losses(batch_rows))

    def _losses(self, batch_rows: Rows) -> StepLosses:
        if self._weights is None:
            return self._unweighted
        weights = self._weights
        total = float(weights[batch_rows].sum())
        scale = len(batch_rows) / total if total else 0.0

        def weighted(logits: Tensor, part: Rows) -> Tensor:
            factors = torch.from_numpy(weights[part] * scale).to(logits.dtype)
            return self._unweighted(logits, part) * copy_tensor(factors, self._device)

        return weighted

    def _unweighted(self, logits: Tensor, part: Rows) -> Tensor:
        rows = copy_rows(part, self._device)
        own = self._loss(logits, self._targets[rows])
        if self._teacher is None:
            return own
        taught = distillation_loss(
            logits, self._lessons[rows], self._teacher.temperature, self._multi_label
        )
        return (1 - self._parts[rows]) * own + self._parts[rows] * taught
