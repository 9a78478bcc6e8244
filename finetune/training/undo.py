"""Steps that are tried and then undone: training starts as if nothing had been tried."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator

from finetune.runtime.random_states import get_random_states, set_random_states


@contextmanager
def undone(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator
) -> Iterator[None]:
    """At the end put back weights, the optimizer's state and rates, fp16's scale, random states.

    Args:
        model, optimizer: prepared by the accelerator.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in parameters]
    scaler = accelerator.scaler
    scale = None if scaler is None else scaler.state_dict()
    was = [group["lr"] for group in optimizer.param_groups]
    settled = {
        id(p): {k: v.clone() if torch.is_tensor(v) else v for k, v in state.items()}
        for p, state in optimizer.state.items()
    }
    random_states = get_random_states(accelerator.device)
    try:
        yield
    finally:
        set_random_states(random_states, accelerator.device)
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
        optimizer.zero_grad()
        optimizer.state.clear()
        for parameter in parameters:
            if id(parameter) in settled:
                optimizer.state[parameter] = settled[id(parameter)]
        for group, rate in zip(optimizer.param_groups, was, strict=True):
            group["lr"] = rate
        if scaler is not None and scale is not None:
            scaler.load_state_dict(scale)
