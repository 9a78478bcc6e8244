"""How many tokens at once fit into a GPU: tried on the longest rows before the first step."""

import dataclasses

import numpy as np
import torch
from accelerate import Accelerator

from finetune.compute import micro_batches
from finetune.compute.hardware_plan import Hardware
from finetune.runtime.console import print_wrapped
from finetune.runtime.errors import InputError
from finetune.tokenization.token_table import Rows, TokenTable


def fit_micro_batches(
    plan: Hardware, model: torch.nn.Module, table: TokenTable, accelerator: Accelerator
) -> Hardware:
    """The plan, with its micro-batches halved until the largest of them fits on every process.

    Micro-batches decide memory and speed, and not the gradient, so a run on a smaller GPU is the
    same run. Nothing is kept of what is computed here, and the random states stay as they are.

    Raises:
        InputError: where not even the longest row alone fits.
    """
    if plan.device != "cuda":  # elsewhere the system gives memory out, and does not say no
        return plan
    planned = budget = plan.micro_batch_tokens
    longest = np.argsort(-table.padded_tokens, kind="stable")
    while True:
        part = micro_batches.micro_batches(longest[:budget], table.padded_tokens, budget)[0]
        if _everywhere(_fits(model, table, part, accelerator), accelerator):
            break
        if len(part) == 1:
            bound = "data.max_length" if table.first is None else "data.max_windows"
            raise InputError(
                f"{bound}: one row of {table.lengths.max():,} tokens does not fit into "
                f"{plan.name}; set {bound} lower, model.freeze to more layers, or "
                "train.precision=bf16"
            )
        budget //= 2
    if budget == planned:
        return plan
    print_wrapped(
        f"{planned:,} tokens at once do not fit into {plan.name}: {budget:,} do", mark="       "
    )
    reasons = [
        plan.reason_for(budget) if r == plan.reason_for(planned) else r for r in plan.reasons
    ]
    return dataclasses.replace(plan, micro_batch_tokens=budget, reasons=tuple(reasons))


def _fits(model: torch.nn.Module, table: TokenTable, part: Rows, accelerator: Accelerator) -> bool:
    was_training = model.training
    model.train()
    try:
        with (
            torch.random.fork_rng(),
            accelerator.autocast(),
            accelerator.no_sync(model),  # one process may run out alone
        ):
            loss = model(**table.batch(part, accelerator.device)).logits.float().sum()
            accelerator.backward(0 * loss)
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
