"""The mean of the weights over the last steps of a run, in place of those of the last step.

    add_to_average(optimizer, step - first)  # after each step of the last ones, from `first` on
    with averaged_weights(model, optimizer):  # it has the mean here, to be scored and saved
        …

Stochastic weight averaging (Izmailov et al. 2018, arXiv 1803.05407), over the tail of the schedule.
Training itself goes on from the weights of each step. The mean is kept among what the optimizer
remembers of each parameter, so it is part of every checkpoint, sharded where the weights are, and
dropped where a stage's new optimizer begins.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from finetune.compute.fsdp import forget_gathered_weights

AVERAGE = "average"  # its name among what an optimizer remembers


@torch.no_grad()
def add_to_average(optimizer: torch.optim.Optimizer, before: int) -> None:
    """Count the weights as they are now in their mean, after a step and before its gradients go.

    A parameter that no step has reached, as of a layer that was dropped each time, has no mean: it
    is as it was.

    Args:
        before: how many steps are in the mean; 0 begins it anew.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            if parameter.grad is None and not state:
                continue
            if before == 0 or AVERAGE not in state:
                optimizer.state[parameter][AVERAGE] = parameter.detach().clone()
            else:
                mean = state[AVERAGE]
                mean.add_(parameter.detach() - mean, alpha=1 / (before + 1))


@contextmanager
@torch.no_grad()
def averaged_weights(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """The model has the mean of its weights while this lasts, where there is one."""
    kept = [
        (parameter, state[AVERAGE], parameter.detach().clone())
        for parameter, state in optimizer.state.items()
        if AVERAGE in state
    ]
    for parameter, mean, _ in kept:
        parameter.copy_(mean)
    forget_gathered_weights(model)
    try:
        yield
    finally:
        for parameter, _, own in kept:
            parameter.copy_(own)
        forget_gathered_weights(model)
