"""What a training loop descends: rows, and what is computed of those of each step.

    objective = rows.objective(recipe.train, device)
    task = objective.of_step(step, batch_rows)     # the same on every process
    logits = model(**task.table.batch(part, device)).logits
    task.losses_of(logits, part)                   # (part,); their mean is what the step descends

Classifiers learn labels (`row_losses.py`); an encoder that is adapted to documents learns their own
tokens (`masking.py`). The loop is the same for both.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.config import schema
from finetune.tokenization.token_table import Rows, TokenTable

# Logits and the rows that they are of → the losses of these. (part,)
StepLosses = Callable[[Tensor, Rows], Tensor]


class StepTask(NamedTuple):
    """What a step computes.

    Attributes:
        table: makes the batches.
        rows: the step's in it, of all processes.
        losses_of: of logits (part, classes), and of which of the rows they are.
    """

    table: TokenTable
    rows: Rows
    losses_of: StepLosses


class Objective(Protocol):
    """Says what each step computes."""

    def of_step(self, step: int, batch_rows: Rows) -> StepTask:
        """A pure function, so that all processes, and a run that is taken up, do the same.

        Args:
            step: counted from 0, through all stages.
            batch_rows: of the step, of all processes.
        """
        ...


class LearnedRows(Protocol):
    """What a loop takes: the rows of an epoch, and what is to be learned of them."""

    @property
    def table(self) -> TokenTable:
        """The tokens of each row."""
        ...

    @property
    def labels(self) -> NDArray[Any]:
        """By which the rows of a step are drawn. (rows, …)"""
        ...

    @property
    def micro_batch_tokens(self) -> int:
        """Tokens that are computed at once."""
        ...

    def objective(self, train: schema.Train, device: torch.device) -> Objective:
        """What is to be learned of the rows, with targets on a device."""
        ...
