"""The training loop: finished objects in, a trained model out. This is the textbook page.

The caller builds everything and passes it in: nothing is loaded or configured here. A step is one
update of the weights. Its rows may be computed in several micro-batches, on several processes;
that changes neither the loss nor the gradient.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from accelerate import Accelerator

from finetune.compute import micro_batches
from finetune.compute.padding_masks import kept_padding_masks
from finetune.config.schema import Recipe
from finetune.runtime.console import ProgressBar
from finetune.training import sampling
from finetune.training.objective import LearnedRows, StepTask
from finetune.training.schedule import Schedule, resolve_sampling
from finetune.training.step_memory import OnLowered, StepMemory
from finetune.training.train_log import Line, TrainLog
from finetune.training.weight_average import add_to_average


@dataclass(frozen=True)
class Callbacks:
    """What happens between steps; by default, nothing.

    Attributes:
        log: is given the steps done and a line of numbers, wherever the schedule has one.
        validate: is given the steps done, wherever the schedule has validation scored.
        after_step: is given the steps done, and whether validation was scored; it may write a
            checkpoint, and ends the loop by returning True.
        lowered: is told where a step ran out of memory, as of `StepMemory`.
    """

    log: Callable[[int, Line], None] = lambda step, line: None
    validate: Callable[[int], None] = lambda step: None
    after_step: Callable[[int, bool], bool] = lambda step, scored: False
    lowered: OnLowered = lambda step, tokens, recomputes: None


def fit(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    rows: LearnedRows,
    schedule: Schedule,
    recipe: Recipe,
    accelerator: Accelerator,
    log: TrainLog,
    callbacks: Callbacks,
) -> None:
    """Stochastic gradient descent on the mean loss of the training rows.

    Args:
        model: prepared by the accelerator, as is the optimizer; returns logits (rows, classes).
        rows: what is trained on, and what is learned of it.
        log: the account so far, empty or of an earlier part of the run; goes on from its step.

    Raises:
        DivergedError: at the first step whose loss or gradient is not finite.
    """
    table, device = rows.table, accelerator.device
    objective = rows.objective(recipe.train, device)
    memory = StepMemory(
        rows.micro_batch_tokens, model, recipe.train, accelerator, callbacks.lowered
    )
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

        # Forward and backward, micro-batch by micro-batch: gradients add up.
        gradients = partial(
            add_gradients,
            model,
            objective.of_step(step, batch_rows),
            accelerator,
            log,
        )
        for losses in memory.compute(step + 1, gradients):
            log.add(losses)

        # Clip, set the learning rate, descend.
        accelerator.unscale_gradients(optimizer)  # of fp16
        norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)  # as it was before clipping
        log.end_step(norm, rows=len(batch_rows), tokens=int(table.lengths[batch_rows].sum()))
        rate = schedule.learning_rate(step)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        optimizer.step()
        if step >= schedule.average_from:
            add_to_average(optimizer, step - schedule.average_from)
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


def add_gradients(
    model: torch.nn.Module,
    task: StepTask,
    accelerator: Accelerator,
    log: TrainLog,
    memory: StepMemory,
) -> list[torch.Tensor]:
    """Add to the gradients those of a step's mean loss, of this process's part of its rows.

    Args:
        task: what the step computes, of all processes.

    Returns:
        Of each micro-batch, the losses of its rows.
    """
    device, processes, sharded = accelerator.device, accelerator.num_processes, accelerator.is_fsdp2
    table, batch_rows, losses_of = task
    parts = micro_batches.process_micro_batches(
        table,
        batch_rows,
        processes,
        accelerator.process_index,
        memory.tokens,
        sharded,
    )
    if memory.stands_in:
        parts = micro_batches.shortest_row(table, batch_rows, len(parts))
    computed = []
    # One for all parts, so that weights are cast once.
    with accelerator.autocast(), kept_padding_masks(device.type):
        for part, weight in parts:
            memory.rows = len(part)
            batch = table.batch(part, device)
            log.mark("data")
            logits = model(**batch).logits.float()
            logits = table.pooled(logits, part)  # of a document's windows: (part, classes)
            losses = weight * losses_of(logits, part)  # (part,)
            log.mark("forward")
            # Autocast would round the gradient of the head, which is computed in fp32.
            with torch.autocast(device.type, enabled=False):
                # Divided by the step's true row count; times processes, as they are averaged
                # (by `memory`; a sharded model's at once).
                accelerator.backward(losses.sum() * (processes / len(batch_rows)))
            computed.append(losses.detach())
            log.mark("backward")
    return computed
