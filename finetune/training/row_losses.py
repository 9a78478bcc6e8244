"""Training rows → the loss of each, by what it is compared with and what it counts.

    losses = RowLosses(rows, recipe.train, device)
    losses_of = losses.of_step(batch_rows)
    losses_of(logits, part)      # (part,); the mean over the step's rows is what it descends

Where rows have weights w, a step descends the weighted mean of its rows' losses l, Σ w·l / Σ w,
both sums over the step's rows on all processes. So a row of weight 0 might as well not be there,
and one of weight 2 is there twice.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.config import schema
from finetune.runtime.device_copies import copy_rows, copy_tensor
from finetune.tokenization.token_table import Rows, TokenTable
from finetune.training.losses import row_loss, soft_row_loss

# Logits (part, classes) and the rows that they are of → their losses. (part,)
StepLosses = Callable[[Tensor, Rows], Tensor]


@dataclass(frozen=True)
class TrainingRows:
    """What is trained on.

    Attributes:
        table: the token ids of each row.
        labels: the true class of each row (rows,); multi-label: 0 and 1 for each class
            (rows, classes).
        micro_batch_tokens: tokens that are computed at once.
        class_weights: of each class in the loss, as of `losses.class_weights`. (classes,)
        shares: soft labels, in the place of `labels` in the loss. (rows, classes)
        weights: what each row counts in the mean of its step; None: all alike. (rows,)
    """

    table: TokenTable
    labels: NDArray[Any]
    micro_batch_tokens: int
    class_weights: NDArray[np.float64] | None = None
    shares: NDArray[np.float32] | None = None
    weights: NDArray[np.float64] | None = None


class RowLosses:
    """What each row of train costs."""

    def __init__(self, rows: TrainingRows, train: schema.Train, device: torch.device) -> None:
        self._device = device
        if rows.shares is None:
            self._targets = torch.from_numpy(rows.labels).to(device)
            self._loss = row_loss(train, rows.class_weights, device)
        else:
            self._targets = torch.from_numpy(rows.shares).to(device)
            several = rows.labels.ndim == 2
            self._loss = soft_row_loss(train, several, rows.class_weights, device)
        self._weights = rows.weights

    def of_step(self, batch_rows: Rows) -> StepLosses:
        """The losses of a step's rows, whose mean is what the step descends.

        Args:
            batch_rows: of the step, of all processes.
        """
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
        return self._loss(logits, self._targets[copy_rows(part, self._device)])
