"""The tensors of a checkpoint, compared with the model and optimizer that they are put into.

`Tensor.copy_` broadcasts and converts without a word: a weight of (1, n) would fill a matrix with
copies of one row. So names, shapes, types and values are compared before anything is copied.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from finetune.modeling.saved_model import Tensors
from finetune.runtime.errors import InputError, shorten
from finetune.training.weight_average import AVERAGE

# What each optimizer remembers of a parameter that it has updated. `step` is a count, a scalar.
SLOTS: dict[type[torch.optim.Optimizer], frozenset[str]] = {
    torch.optim.AdamW: frozenset({"step", "exp_avg", "exp_avg_sq"}),
    torch.optim.SGD: frozenset({"momentum_buffer"}),
}
STEP = "step"
OPTIONAL = frozenset({AVERAGE})
PARTS = ("torch", "device", "sums", "norms")  # what each process keeps


def check_tensors(tensors: Tensors, expected: Mapping[str, torch.Tensor], what: str) -> None:
    """Compare tensors with those of the same names that they are to replace.

    Args:
        what: what the message begins with.

    Raises:
        InputError: with all whose shape or type differs, or that are not finite where the type
            has infinities.
    """
    problems = [
        problem
        for name, target in expected.items()
        if name in tensors
        and (problem := _describe_difference(name, tensors[name], target)) is not None
    ]
    _raise(what, problems)


def check_state(
    tensors: Tensors,
    weights: Mapping[str, torch.Tensor],
    parameters: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    processes: int,
    listed: Sequence[str] | None,
) -> None:
    """Compare the tensors of a checkpoint with all that they are to replace.

    Args:
        weights: by their names in the checkpoint.
        parameters: those that the optimizer updates, by their names in the model.
        processes: how many wrote the checkpoint.
        listed: the names that the checkpoint says it has; None: it does not say.

    Raises:
        InputError: with all that is missing, unknown, of another shape or type, or not finite.
    """
    problems = list(_of_weights(tensors, weights))
    problems += _of_optimizer(tensors, parameters, optimizer)
    problems += _of_processes(tensors, processes)
    known = ("model/", "optimizer/", "process/")
    problems += [f"{name} is unknown" for name in sorted(tensors) if not name.startswith(known)]
    if listed is not None:
        problems += [f"{name} is missing" for name in listed if name not in tensors]
        problems += [f"{name} is unknown" for name in sorted(tensors) if name not in {*listed}]
    _raise("the checkpoint's tensors", [*dict.fromkeys(problems)])


def _raise(what: str, problems: Sequence[str]) -> None:
    if problems:
        raise InputError(
            f"run.resume: {what} are not those of this model and optimizer: {shorten(problems)}; "
            "go on from an earlier checkpoint, or start a new run"
        )


def _of_weights(tensors: Tensors, weights: Mapping[str, torch.Tensor]) -> Iterator[str]:
    for name, target in weights.items():
        if name not in tensors:
            yield f"{name} is missing"
        elif (problem := _describe_difference(name, tensors[name], target)) is not None:
            yield problem
    for name in sorted(tensors):
        if name.startswith("model/") and name not in weights:
            yield f"{name} is unknown"


def _of_optimizer(
    tensors: Tensors, parameters: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer
) -> Iterator[str]:
    bare: Any = getattr(optimizer, "optimizer", optimizer)  # without accelerate's wrapper
    slots = SLOTS.get(type(bare))
    kept: dict[str, set[str]] = {}
    for name in sorted(tensors):
        if not name.startswith("optimizer/"):
            continue
        parameter, _, slot = name.removeprefix("optimizer/").rpartition("/")
        if parameter not in parameters or (slots is not None and slot not in slots | OPTIONAL):
            yield f"{name} is unknown"
            continue
        kept.setdefault(parameter, set()).add(slot)
        target = parameters[parameter]
        if slot == STEP:
            target = torch.empty((), dtype=torch.float32)
        if (problem := _describe_difference(name, tensors[name], target)) is not None:
            yield problem
    for parameter, some in kept.items():
        if some <= OPTIONAL:  # SGD without momentum remembers nothing of its own
            continue
        for slot in sorted((slots or frozenset(some)) - some):
            yield f"optimizer/{parameter}/{slot} is missing"


def _of_processes(tensors: Tensors, processes: int) -> Iterator[str]:
    """Of random states, and of the sums behind the next line of the log."""
    known = {f"process/{rank}/{part}" for rank in range(processes) for part in PARTS}
    for name in sorted(known | {n for n in tensors if n.startswith("process/")}):
        part = name.rpartition("/")[2]
        if name not in known:
            yield f"{name} is unknown"
        elif name not in tensors:
            if part != "device":  # a CPU has no other generator
                yield f"{name} is missing"
        elif (problem := _describe_part(name, part, tensors[name])) is not None:
            yield problem


def _describe_part(name: str, part: str, value: torch.Tensor) -> str | None:
    if part in ("torch", "device"):
        if value.dtype != torch.uint8 or value.ndim != 1:
            return f"{name} is {_format(value)}, expected uint8 of one dimension"
        size = len(torch.get_rng_state())
        if part == "torch" and len(value) != size:
            return f"{name} has {len(value):,} bytes, expected {size:,}"
        return None
    if not value.is_floating_point() or value.ndim != 1 or (part == "sums" and len(value) != 2):
        expected = "two" if part == "sums" else "one dimension of"
        return f"{name} is {_format(value)}, expected {expected} floating-point numbers"
    return None


def _describe_difference(name: str, value: torch.Tensor, target: torch.Tensor) -> str | None:
    if value.shape != target.shape or value.dtype != target.dtype:
        return f"{name} is {_format(value)}, expected {_format(target)}"
    if value.is_floating_point() and not torch.isfinite(value).all():
        return f"{name} has values that are not finite"
    return None


def _format(value: torch.Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
