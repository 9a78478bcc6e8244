"""Held-out rows with fixed masks → how well the model tells the masked tokens."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from finetune.compute import micro_batches
from finetune.compute.padding_masks import kept_padding_masks
from finetune.training.objective import StepTask


@dataclass(frozen=True)
class HeldOutScore:
    """How well masked tokens are told.

    Attributes:
        loss: the mean of -log p of the right token, in nats.
        step: after which.
    """

    step: int
    loss: float

    @property
    def perplexity(self) -> float:
        """exp(loss): among how many equally likely tokens the model would be as unsure."""
        return math.exp(min(self.loss, 700.0))

    def as_json(self) -> dict[str, Any]:
        """Its line in the log."""
        return {"loss": self.loss, "perplexity": self.perplexity}


@torch.no_grad()
def measure_loss(
    model: torch.nn.Module, task: StepTask, accelerator: Accelerator, micro_batch_tokens: int
) -> float:
    """The mean loss over all tokens that are asked for. All processes call this.

    Args:
        model: prepared by the accelerator; left in the mode in which it was.
        task: as of `masking.hold_masks`.
    """
    table, rows, losses_of = task
    was_training, device = model.training, accelerator.device
    model.eval()
    exact = torch.float32 if device.type == "mps" else torch.float64
    total = torch.zeros((), dtype=exact, device=device)
    parts = micro_batches.process_micro_batches(
        table,
        rows,
        accelerator.num_processes,
        accelerator.process_index,
        micro_batch_tokens,
        sharded=False,
    )
    with accelerator.autocast(), kept_padding_masks(device.type):
        for part, weight in parts:
            logits = model(**table.batch(part, device)).logits.float()
            total += weight * losses_of(logits, part).sum()
    model.train(was_training)
    return float(accelerator.reduce(total).item()) / len(rows)
