"""How many tokens at once fit into a GPU: tried on the longest rows before the first step."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import Accelerator

from finetune.compute import micro_batches
from finetune.compute.checkpointing import enable_checkpointing
from finetune.compute.hardware_plan import Hardware
from finetune.compute.shared_passes import SharedPasses
from finetune.config import schema
from finetune.runtime.console import print_wrapped
from finetune.runtime.errors import InputError
from finetune.tokenization.token_table import Rows, TokenTable


def fit_micro_batches(
    plan: Hardware,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    table: TokenTable,
    accelerator: Accelerator,
    train: schema.Train,
) -> Hardware:
    """The plan, with its micro-batches halved until the largest of them fits on every process.

    Micro-batches decide memory and speed, and not the gradient, so a run on a smaller GPU is the
    same run. What later steps hold beside a micro-batch, the gradients of those before it and the
    optimizer's memory, is held while one is tried. Nothing is kept of what is computed here, and
    the random states stay as they are.

    Where the longest row alone does not fit, gradient checkpointing is switched on if the recipe
    leaves it open.

    Raises:
        InputError: where not even the longest row alone fits.
    """
    if plan.device != "cuda":  # elsewhere the system gives memory out, and does not say no
        return plan
    planned = budget = plan.micro_batch_tokens
    longest = np.argsort(-table.padded_tokens, kind="stable")
    recomputes, passes = False, SharedPasses(model, accelerator)
    with _held(model, _slots(optimizer), accelerator):
        while True:
            part = micro_batches.largest_part(table, longest[:budget], budget)
            if _everywhere(_fits(model, table, part, accelerator, passes), accelerator):
                break
            if len(part) > 1:
                budget //= 2
                continue
            bare = accelerator.unwrap_model(model, keep_torch_compile=False)
            recomputes = train.checkpointing == "auto" and enable_checkpointing(bare)
            if not recomputes:
                raise _too_long(plan, table)
            budget = planned
    return _fitted(plan, budget, table, recomputes)


def _too_long(plan: Hardware, table: TokenTable) -> InputError:
    bound = "data.max_length" if table.first is None else "data.max_windows"
    return InputError(
        f"{bound}: one row of {table.lengths.max():,} tokens does not fit into "
        f"{plan.name}; set {bound} lower, model.freeze to more layers, or "
        "train.precision=bf16"
    )


def _fitted(plan: Hardware, budget: int, table: TokenTable, recomputes: bool) -> Hardware:
    """The plan with what fits, and the line that says so."""
    planned, reasons = plan.micro_batch_tokens, [*plan.reasons]
    if recomputes:
        why = f"gradient checkpointing: a row of {table.lengths.max():,} tokens needs it"
        print_wrapped(why, mark="       ")
        reasons.insert(-1, why)
    if budget != planned:
        print_wrapped(
            f"{planned:,} tokens at once do not fit into {plan.name}: {budget:,} do", mark="       "
        )
        reasons = [plan.reason_for(budget) if r == plan.reason_for(planned) else r for r in reasons]
    if not recomputes and budget == planned:
        return plan
    return dataclasses.replace(plan, micro_batch_tokens=budget, reasons=tuple(reasons))


def _slots(optimizer: torch.optim.Optimizer) -> int:
    """How many numbers an optimizer keeps for each one that it updates."""
    [group, *_] = optimizer.param_groups
    return 2 if "betas" in group else int(group.get("momentum", 0) != 0)


@contextmanager
def _held(model: torch.nn.Module, slots: int, accelerator: Accelerator) -> Iterator[None]:
    """While it is entered, the device holds what an optimizer will keep.

    Raises:
        InputError: on all processes, where it does not fit on one.
    """
    memory: list[torch.Tensor] = []
    try:
        # One process may run out alone, and the others must not wait for it.
        if not _everywhere(_allocate(model, slots, memory), accelerator):
            raise InputError(
                "model.source: the model and what the optimizer keeps do not fit into the GPU; "
                "choose a smaller model, model.freeze of more layers, or optim.name=sgd"
            )
        yield
    finally:
        memory.clear()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _allocate(model: torch.nn.Module, slots: int, memory: list[torch.Tensor]) -> bool:
    """Whether the numbers that an optimizer keeps fit; they are added to `memory`."""
    try:
        for parameter in model.parameters():
            if parameter.requires_grad:
                memory += [torch.zeros_like(parameter) for _ in range(slots)]
    except torch.OutOfMemoryError:
        memory.clear()
        torch.cuda.empty_cache()
        return False
    return True


def _fits(
    model: torch.nn.Module,
    table: TokenTable,
    part: Rows,
    accelerator: Accelerator,
    passes: SharedPasses,
) -> bool:
    """Whether a micro-batch fits on this process."""

    def try_rows(rows: Rows) -> None:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)  # of a micro-batch before this one
        with torch.random.fork_rng(), accelerator.autocast():
            loss = model(**table.batch(rows, accelerator.device)).logits.float().sum()
            with torch.autocast(accelerator.device.type, enabled=False):
                accelerator.backward(0 * loss)

    was_training = model.training
    model.train()
    try:
        [(shortest, _)] = micro_batches.shortest_row(table, np.arange(len(table)), 1)
        passes.run(lambda: try_rows(part), lambda: try_rows(shortest))
    except torch.OutOfMemoryError:
        return False
    finally:
        model.zero_grad()
        model.train(was_training)
        torch.cuda.empty_cache()
    return True


def _everywhere(here: bool, accelerator: Accelerator) -> bool:
    lacking = torch.tensor([int(not here)], device=accelerator.device)
    return int(accelerator.reduce(lacking).item()) == 0
