"""Model + rows → logits → metrics: the one function for every split."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedType
from numpy.typing import NDArray

from finetune.compute import micro_batches
from finetune.compute.forward import forward_rows
from finetune.compute.padding_masks import kept_padding_masks
from finetune.data.label_tasks import Tasks
from finetune.evaluation.metrics import Metric, measure
from finetune.evaluation.probabilities import row_losses
from finetune.evaluation.task_scores import measure_tasks, task_losses
from finetune.runtime.device_copies import copy_rows
from finetune.tokenization.token_table import TokenTable


@dataclass(frozen=True)
class Scores:
    """A model's logits on a split, and its scores.

    Attributes:
        logits: (rows, classes) float32, in the split's own order.
        values: `loss`, its standard error `loss_se`, and each metric by name; empty where the
            split has no labels.
        thresholds: multi-label: from which probability on each label is predicted. (classes,)
    """

    logits: NDArray[np.float32]
    values: dict[str, float]
    thresholds: NDArray[np.float64] | None = None


def score(
    model: torch.nn.Module,
    table: TokenTable,
    labels: NDArray[Any] | None,
    metrics: Sequence[Metric],
    accelerator: Accelerator,
    micro_batch_tokens: int,
    thresholds: NDArray[np.float64] | None = None,
    scale: float | Tasks = 1.0,
) -> Scores:
    """Score a split, the same on any number of processes.

    Args:
        labels: class ids (rows,); multi-label: 0 and 1 for each class (rows, classes); None
            where the split has none.
        thresholds: multi-label: from which probability on each label is predicted. (classes,)
        scale: as of `compute_metrics`.
    """
    logits = compute_logits(model, table, accelerator, micro_batch_tokens)
    if labels is None:
        return Scores(logits, {}, thresholds)
    values = compute_metrics(logits, labels, metrics, thresholds, scale)
    return Scores(logits, values, thresholds)


def compute_metrics(
    logits: NDArray[np.float32],
    labels: NDArray[Any],
    metrics: Sequence[Metric],
    thresholds: NDArray[np.float64] | None = None,
    scale: float | Tasks = 1.0,
) -> dict[str, float]:
    """`loss`, its standard error `loss_se`, and each metric by name.

    Args:
        scale: of train's numbers the deviation, as of `probabilities.row_losses`; of several tasks,
            these.
    """
    if isinstance(scale, Tasks):
        losses = task_losses(logits, labels, scale)
        values = measure_tasks(metrics, logits, labels, scale)
    else:
        losses = row_losses(logits, labels, scale)
        values = measure(metrics, logits, labels, thresholds)
    return {"loss": float(losses.mean()), "loss_se": standard_error(losses)} | values


@torch.no_grad()  # not inference_mode: what an encoder caches must serve training again
def compute_logits(
    model: torch.nn.Module, table: TokenTable, accelerator: Accelerator, micro_batch_tokens: int
) -> NDArray[np.float32]:
    """The logits of every row, in the table's order, on every process. (rows, classes)

    Each process fills in its own rows and the sum over processes joins them, so that no row is
    padded in, repeated or lost, however the rows divide.
    """
    if table.first is not None:  # else a long document's windows would all be computed at once
        return table.pool_windows(
            compute_logits(model, table.by_piece(), accelerator, micro_batch_tokens)
        )
    was_training = model.training
    model.eval()
    batches = micro_batches.split_rows(table, np.arange(len(table)), micro_batch_tokens)
    classes = accelerator.unwrap_model(model).config.num_labels
    logits = torch.zeros(len(table), classes, device=accelerator.device)
    mine = batches[accelerator.process_index :: accelerator.num_processes]
    computed: list[torch.Tensor] = []
    with accelerator.autocast(), kept_padding_masks(accelerator.device.type):
        for rows in mine:
            computed.append(forward_rows(model, table, rows, accelerator.device))
        if accelerator.distributed_type == DistributedType.FSDP:
            # All processes must take part in every forward pass of a sharded model.
            for _ in range(-(-len(batches) // accelerator.num_processes) - len(mine)):
                model(**table.batch(batches[-1], accelerator.device))
    if mine:  # in one go, as each would be a copy to the device of its own
        at = copy_rows(np.concatenate(mine), accelerator.device)
        logits.index_copy_(0, at, torch.cat(computed))
    model.train(was_training)
    joined: torch.Tensor = accelerator.reduce(logits)
    result: NDArray[np.float32] = joined.cpu().numpy()
    return result


def standard_error(losses: NDArray[np.float64]) -> float:
    """How far a mean of independent draws is from the true mean: s / sqrt(n)."""
    if len(losses) < 2:
        return math.inf
    return float(losses.std(ddof=1) / math.sqrt(len(losses)))
