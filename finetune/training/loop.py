"""Finished objects → a trained model. This is the textbook page.

Everything is built by the caller and passed in: nothing is loaded or configured here.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator, DistributedType
from numpy.typing import NDArray

from finetune.compute import micro_batches
from finetune.config import schema
from finetune.runtime.console import ProgressBar
from finetune.tokenization.token_table import TokenTable
from finetune.training import optimizer as optimizer_module
from finetune.training.losses import row_loss
from finetune.training.train_log import Line, TrainLog


def fit(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    table: TokenTable,
    labels: NDArray[Any],
    choices: schema.Recipe,
    micro_batch_tokens: int,
    accelerator: Accelerator,
    record: TrainLog,
    log: Callable[[int, Line], None],
    validate: Callable[[int], None],
    pause: Callable[[int, bool], bool],
    rate_at: Callable[[int], float] | None = None,
    weights: NDArray[np.float64] | None = None,
    begin: int = 0,
) -> None:
    """Gradient descent on the mean loss of the training rows.

    Args:
        model: prepared by the accelerator, as is the optimizer; returns logits (rows, classes).
        labels: the true class of each row of the table (rows,); or, of several labels a row, 0 and
            1 for each class (rows, classes).
        record: the account so far, empty or of an earlier part of the run; goes on from its step.
        log: called with the steps done and a line of numbers every `train.log_every` steps, and
            after the first and the last.
        validate: called with the steps done wherever the recipe wants validation scored.
        pause: called after each step with the steps done, and whether validation was scored; may
            write a checkpoint, and ends the loop by returning True.
        rate_at: the rate of a step, counted from `begin`; None: as of `scheduled`.
        weights: of each class in the loss, as of `losses.class_weights`. (classes,)
        begin: the first step, where this is a later stage of a run: its epochs, scorings and rates
            are counted from there.

    Raises:
        DivergedError: at the first step whose loss or gradient is not finite.
    """
    train, device, processes = choices.train, accelerator.device, accelerator.num_processes
    sharded = accelerator.distributed_type == DistributedType.FSDP
    per_epoch = micro_batches.steps_per_epoch(len(table), train.batch_size)
    per_round = per_epoch * epochs_per_round(len(table), train)
    shift = -begin % per_epoch  # a stage begins with an epoch of its own
    steps = begin + total_steps(len(table), train)
    limit = choices.optim.max_grad_norm or math.inf
    blocks = optimizer_module.blocks(optimizer)  # none, unless each is clipped by itself
    max_norm = math.inf if blocks else limit
    rate_at = rate_at or lr_schedule(len(table), choices)
    first = record.steps
    lengths, room = table.lengths, table.room
    targets = torch.from_numpy(labels).to(device)
    loss_of = row_loss(train, weights)
    how = resolve_sampling(len(table), train)
    parameters = [p for p in model.parameters() if p.requires_grad]
    progress = ProgressBar(steps, first, shown=accelerator.is_main_process, begin=begin)
    model.train()
    record.start()

    for step in range(first, steps):
        epoch, step_in_epoch = divmod(step + shift, per_epoch)
        if step_in_epoch == 0 or step == first:
            drawn = micro_batches.epoch_steps(
                labels, how, train.batch_size, choices.run.seed, epoch
            )
        # The step's rows are a uniform sample, so their mean loss is a Monte Carlo estimate of
        # the true loss, and its gradient one of the true gradient.
        rows = drawn[step_in_epoch]
        parts = micro_batches.process_micro_batches(
            rows, room, processes, accelerator.process_index, micro_batch_tokens, sharded
        )

        with accelerator.autocast():  # one for all parts, so that weights are cast once
            for i, (part, weight) in enumerate(parts, 1):
                joined = i == len(parts)  # the processes' gradients are averaged once
                with nullcontext() if joined else accelerator.no_sync(model):
                    batch = table.batch(part, device)
                    record.lap("data")
                    logits = model(**batch).logits.float()
                    logits = table.pooled(logits, part)  # of a document's windows: (part, classes)
                    losses = weight * loss_of(logits, targets[torch.from_numpy(part)])  # (part,)
                    record.lap("forward")
                    # Divided by the step's true row count; times processes, as they are averaged.
                    accelerator.backward(losses.sum() * (processes / len(rows)))
                record.add(losses)
                record.lap("backward")

        norm = accelerator.clip_grad_norm_(parameters, max_norm)  # as it was before clipping
        longest = optimizer_module.clip_blocks(blocks, limit) if blocks else norm
        record.end_step(norm, rows=len(rows), tokens=int(lengths[rows].sum()), longest=longest)
        rate = rate_at(step - begin)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        optimizer.step()
        optimizer.zero_grad()
        record.lap("step")

        done = step + 1
        progress.step()
        if done % train.log_every == 0 or done in (begin + 1, steps):
            line = record.line() | {"lr": rate, "epoch": done / per_epoch}
            log(done, line)
            progress.show(line)
        scored = is_evaluation(done - begin, steps - begin, per_round, choices.score.every)
        with record.paused():
            if scored:
                validate(done)
            if pause(done, scored):
                break
    progress.close()


def total_steps(rows: int, train: schema.Train) -> int:
    """Optimizer steps of the whole run, or of a stage."""
    steps = resolve_epochs(rows, train) * micro_batches.steps_per_epoch(rows, train.batch_size)
    steps = max(steps, train.min_steps or 0)
    return steps if train.max_steps is None else min(steps, train.max_steps)


def resolve_epochs(rows: int, train: schema.Train) -> int:
    """Passes over the rows, but for what `train.min_steps` and `train.max_steps` say."""
    return schema.EPOCHS * epochs_per_round(rows, train) if train.epochs == "auto" else train.epochs


def epochs_per_round(rows: int, train: schema.Train) -> int:
    """How many epochs are taken for one, where `train.epochs` is auto: above 1, rows are few.

    Of a few dozen rows, three epochs are three steps, which train nothing.
    """
    if train.epochs != "auto":
        return 1
    by_default = schema.EPOCHS * micro_batches.steps_per_epoch(rows, train.batch_size)
    least = min(train.min_steps or schema.LEAST_STEPS, schema.LEAST_STEPS)
    return max(1, -(-least // by_default))


def resolve_sampling(
    rows: int, train: schema.Train
) -> Literal["uniform", "balanced", "stratified"]:
    """How the rows of a step are drawn; auto: stratified where rows are few, else uniform."""
    if train.sampling != "auto":
        return train.sampling
    return "stratified" if epochs_per_round(rows, train) > 1 else "uniform"


def lr_schedule(rows: int, choices: schema.Recipe, scale: float = 1.0) -> Callable[[int], float]:
    """The rates of the recipe's schedule, times `scale`, by step."""
    steps = total_steps(rows, choices.train)
    per_epoch = micro_batches.steps_per_epoch(rows, choices.train.batch_size)
    return lambda step: (
        scale * optimizer_module.learning_rate(step, steps, per_epoch, choices.optim)
    )


def is_evaluation(done: int, steps: int, per_round: int, every: str | int) -> bool:
    """Whether validation is scored after so many steps: as the recipe says, and after the last.

    Args:
        done, steps: of the run, or of a stage.
        per_round: steps of an epoch, or of the epochs that are taken for one (`rounds`).
    """
    interval = per_round if every == "epoch" else int(every)
    return done % interval == 0 or done == steps
