"""The training loop: finished objects in, a trained model out. This is the textbook page.

The caller builds everything and passes it in: nothing is loaded or configured here. A step is one
update of the weights. Its rows may be computed in several micro-batches, on several processes;
that changes neither the loss nor the gradient.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from finetune.compute import micro_batches
from finetune.config.schema import Recipe
from finetune.runtime.console import ProgressBar
from finetune.tokenization.token_table import TokenTable
from finetune.training import sampling
from finetune.training.losses import row_loss
from finetune.training.schedule import Schedule, resolve_sampling
from finetune.training.train_log import Line, TrainLog


@dataclass(frozen=True)
class TrainingRows:
    """What is trained on.

    Attributes:
        table: the token ids of each row.
        labels: the true class of each row (rows,); multi-label: 0 and 1 for each class
            (rows, classes).
        micro_batch_tokens: tokens that are computed at once.
        class_weights: of each class in the loss, as of `losses.class_weights`. (classes,)
    """

    table: TokenTable
    labels: NDArray[Any]
    micro_batch_tokens: int
    class_weights: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Callbacks:
    """What happens between steps; by default, nothing.

    Attributes:
        log: is given the steps done and a line of numbers, wherever the schedule has one.
        validate: is given the steps done, wherever the schedule has validation scored.
        after_step: is given the steps done, and whether validation was scored; it may write a
            checkpoint, and ends the loop by returning True.
    """

    log: Callable[[int, Line], None] = lambda step, line: None
    validate: Callable[[int], None] = lambda step: None
    after_step: Callable[[int, bool], bool] = lambda step, scored: False


def fit(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    rows: TrainingRows,
    schedule: Schedule,
    recipe: Recipe,
    accelerator: Accelerator,
    log: TrainLog,
    callbacks: Callbacks,
) -> None:
    """Stochastic gradient descent on the mean loss of the training rows.

    Args:
        model: prepared by the accelerator, as is the optimizer; returns logits (rows, classes).
        log: the account so far, empty or of an earlier part of the run; goes on from its step.

    Raises:
        DivergedError: at the first step whose loss or gradient is not finite.
    """
    table, device, processes = rows.table, accelerator.device, accelerator.num_processes
    targets = torch.from_numpy(rows.labels).to(device)
    loss_of = row_loss(recipe.train, rows.class_weights)
    method = resolve_sampling(len(table), recipe.train)
    parameters = [p for p in model.parameters() if p.requires_grad]
    max_norm = recipe.optim.max_grad_norm or math.inf
    first = log.steps
    shown = accelerator.is_main_process
    progress = ProgressBar(schedule.end, first, shown=shown, begin=schedule.begin)
    model.train()
    log.start()

    for step in range(first, schedule.end):
        # Draw the step's rows. They are a uniform sample of train, so their mean loss is a Monte
        # Carlo estimate of the true loss, and its gradient one of the true gradient.
        epoch, step_in_epoch = schedule.position(step)
        if step_in_epoch == 0 or step == first:
            drawn = sampling.epoch_steps(
                rows.labels, method, recipe.train.batch_size, recipe.run.seed, epoch
            )
        batch_rows = drawn[step_in_epoch]
        parts = micro_batches.process_micro_batches(
            batch_rows,
            table.padded_tokens,
            processes,
            accelerator.process_index,
            rows.micro_batch_tokens,
            accelerator.is_fsdp2,
        )

        # Forward and backward, micro-batch by micro-batch: gradients add up.
        with accelerator.autocast():  # one for all parts, so that weights are cast once
            for i, (part, weight) in enumerate(parts, 1):
                # The processes' gradients are averaged once, with the last part.
                with nullcontext() if i == len(parts) else accelerator.no_sync(model):
                    batch = table.batch(part, device)
                    log.mark("data")
                    logits = model(**batch).logits.float()
                    logits = table.pooled(logits, part)  # of a document's windows: (part, classes)
                    losses = weight * loss_of(logits, targets[torch.from_numpy(part)])  # (part,)
                    log.mark("forward")
                    # Divided by the step's true row count; times processes, as they are averaged.
                    accelerator.backward(losses.sum() * (processes / len(batch_rows)))
                log.add(losses)
                log.mark("backward")

        # Clip, set the learning rate, descend.
        norm = accelerator.clip_grad_norm_(parameters, max_norm)  # as it was before clipping
        log.end_step(norm, rows=len(batch_rows), tokens=int(table.lengths[batch_rows].sum()))
        rate = schedule.learning_rate(step)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        optimizer.step()
        optimizer.zero_grad()
        log.mark("step")

        # Log, validate, checkpoint.
        done = step + 1
        progress.step()
        if schedule.is_logged(done):
            line = log.line() | {"lr": rate, "epoch": done / schedule.per_epoch}
            callbacks.log(done, line)
            progress.show(line)
        with log.paused():
            scored = schedule.is_evaluated(done)
            if scored:
                callbacks.validate(done)
            if callbacks.after_step(done, scored):
                break
    progress.close()
