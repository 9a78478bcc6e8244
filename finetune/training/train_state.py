"""A run's state, spread over its processes ↔ tensors and plain values on the main one.

What decides the steps to come: the weights that have been trained, the optimizer's memory, every
process's random states, and the sums behind the next line of the log. Weights that were always
frozen are the encoder's own, and the order of rows is a pure function of seed and step: neither
needs keeping.
"""

import random
from collections.abc import Collection

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, broadcast_object_list, gather_object
from torch.distributed.tensor import DTensor, distribute_tensor

from finetune.modeling.saved_model import Tensors
from finetune.runtime.random_states import device_random
from finetune.training.checkpoint import Plain
from finetune.training.state_check import check_state, check_tensors
from finetune.training.train_log import TrainLog

WEIGHTS = "model/"  # what the names of weights begin with among a state's tensors


def capture(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    log: TrainLog,
    accelerator: Accelerator,
    trained: Collection[str],
) -> tuple[Tensors, Plain]:
    """The state, whole, on the main process; the others get nothing. All must call this.

    Its tensors are those of the training where they are whole, on its device, and no copies. What
    is sharded is put together on the CPU, one after the other: no device need have room for all.

    Args:
        trained: the parameters that training has changed, as of `trained_names`: those of earlier
            stages too, which may be frozen by now.

    Raises:
        DivergedError: where a loss or a gradient was not finite: no state to go on from.
    """
    counts, own = log.state()
    parts = {f"{WEIGHTS}{name}": value for name, value in _changed(model, accelerator, trained)}
    for name, parameter in _parameters(model, accelerator).items():
        for key, value in optimizer.state.get(parameter, {}).items():
            parts[f"optimizer/{name}/{key}"] = value
    tensors: Tensors = {}
    for name, value in parts.items():
        together = whole(value) if isinstance(value, DTensor) else value.detach()
        if accelerator.is_main_process:
            tensors[name] = together
    own |= {"torch": torch.get_rng_state()}
    device = device_random(accelerator.device)
    if device is not None:
        own["device"] = device.get_rng_state()
    mine = {name: value.cpu() for name, value in own.items()}, _python_rng()
    everyone = gather_object([mine])
    if not accelerator.is_main_process:
        return {}, {}
    for rank, (others, _) in enumerate(everyone):
        tensors |= {f"process/{rank}/{name}": value for name, value in others.items()}
    scaler = accelerator.scaler
    return tensors, {
        "log": counts,
        "processes": [plain for _, plain in everyone],
        "scaler": scaler.state_dict() if scaler is not None else None,
    }


def restore(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    log: TrainLog,
    accelerator: Accelerator,
    trained: Collection[str],
    tensors: Tensors,
    plain: Plain,
) -> None:
    """Put a captured state back. All must call this; what the main process gives counts.

    With another number of processes than captured it, the sums go to the main one, and the random
    states of processes that were not there stay as they are.

    Args:
        trained: as of `capture`.

    Raises:
        InputError: where a tensor is missing, unknown, or not of the shape and type of what it
            replaces; nothing is put back then.
    """
    tensors = spread(accelerator, tensors)
    [plain] = broadcast_object_list([plain])
    weights = {f"{WEIGHTS}{name}": value for name, value in _changed(model, accelerator, trained)}
    parameters = _parameters(model, accelerator)
    check_state(
        tensors, weights, parameters, optimizer, len(plain["processes"]), plain.get("tensors")
    )
    for name, value in weights.items():
        place(tensors[name], value)
    for name, parameter in parameters.items():
        start = f"optimizer/{name}/"
        kept = {key.removeprefix(start): key for key in tensors if key.startswith(start)}
        memory = optimizer.state[parameter]
        memory.clear()
        for key, source in kept.items():
            if key == "step":  # a count, which stays on the CPU but for fused optimizers
                fused = bool(optimizer.defaults.get("fused"))
                memory[key] = tensors[source].clone().to(parameter.device if fused else "cpu")
            else:
                memory[key] = torch.empty_like(parameter)
                place(tensors[source], memory[key])
    processes, rank = plain["processes"], accelerator.process_index
    if rank < len(processes):
        torch.set_rng_state(tensors[f"process/{rank}/torch"])
        device, key = device_random(accelerator.device), f"process/{rank}/device"
        if device is not None and key in tensors:
            device.set_rng_state(tensors[key])
        _set_python_rng(processes[rank])
    if accelerator.scaler is not None and plain["scaler"]:
        accelerator.scaler.load_state_dict(plain["scaler"])
    sums = [tensors[f"process/{i}/sums"] for i in range(len(processes))]
    if len(processes) == accelerator.num_processes:
        mine = sums[rank]
    else:
        mine = torch.stack(sums).sum(0) if rank == 0 else torch.zeros_like(sums[0])
    log.load(plain["log"], {"sums": mine, "norms": tensors["process/0/norms"]})


def gather_weights(model: torch.nn.Module, accelerator: Accelerator) -> Tensors:
    """All weights, whole, on the main process's CPU; the others get nothing. All must call this."""
    named = _bare(model, accelerator).state_dict()
    main = accelerator.is_main_process
    gathered = {
        name: whole(value) for name, value in named.items() if main or isinstance(value, DTensor)
    }
    return gathered if main else {}


def on_host(tensors: Tensors) -> Tensors:
    """Those of a captured state, on the CPU."""
    return {name: value.cpu().contiguous() for name, value in tensors.items()}


def weights_in(tensors: Tensors) -> Tensors:
    """Those of a captured state's tensors that are weights, by name."""
    return {
        name.removeprefix(WEIGHTS): value
        for name, value in tensors.items()
        if name.startswith(WEIGHTS)
    }


def load_weights(
    model: torch.nn.Module, weights: Tensors, accelerator: Accelerator, partly: bool = False
) -> None:
    """Put weights of the main process into every process's model. All must call this.

    Args:
        partly: whether they may be a part of the model's.

    Raises:
        KeyError: where they are others than the model's.
        InputError: where one has another shape or type.
    """
    weights, own = spread(accelerator, weights), _bare(model, accelerator).state_dict()
    differ = weights.keys() - own.keys() if partly else weights.keys() ^ own.keys()
    if differ:
        raise KeyError(*sorted(differ))
    check_tensors(weights, own, "the weights")
    for name, value in weights.items():
        place(value, own[name])


def trained_names(model: torch.nn.Module, accelerator: Accelerator) -> list[str]:
    """The parameters that training changes."""
    return [*_parameters(model, accelerator)]


def whole(value: torch.Tensor) -> torch.Tensor:
    """A tensor on the CPU, put together where it is sharded."""
    value = value.detach()
    if isinstance(value, DTensor):
        value = value.full_tensor()
    return value.cpu().contiguous()


def place(value: torch.Tensor, target: torch.Tensor) -> None:
    """Copy a whole tensor into one that may be sharded."""
    with torch.no_grad():
        if isinstance(target, DTensor):
            target.copy_(
                distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
            )
        else:
            target.copy_(value)


def spread(accelerator: Accelerator, tensors: Tensors) -> Tensors:
    """The main process's tensors on the CPU of every process, as only it may have the files."""
    if accelerator.num_processes == 1:
        return tensors
    shapes = {name: (value.shape, value.dtype) for name, value in tensors.items()}
    [shapes] = broadcast_object_list([shapes])
    received = {}
    for name, (shape, dtype) in shapes.items():
        value = tensors[name] if accelerator.is_main_process else torch.empty(shape, dtype=dtype)
        received[name] = broadcast(value.to(accelerator.device)).cpu()
    return received


def _changed(
    model: torch.nn.Module, accelerator: Accelerator, trained: Collection[str]
) -> list[tuple[str, torch.Tensor]]:
    """What training changes: some parameters, and the buffers that are saved with a model."""
    bare = _bare(model, accelerator)
    saved = bare.state_dict().keys()
    buffers = [(name, value) for name, value in bare.named_buffers() if name in saved]
    return [(n, p) for n, p in bare.named_parameters() if n in trained] + buffers


def _parameters(model: torch.nn.Module, accelerator: Accelerator) -> dict[str, torch.nn.Parameter]:
    named = _bare(model, accelerator).named_parameters()
    return {name: parameter for name, parameter in named if parameter.requires_grad}


def _python_rng() -> Plain:
    """The states of Python's and NumPy's generators, which a model's own code may use."""
    version, words, gauss = random.getstate()
    kind, keys, at, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, [int(key) for key in keys], int(at), int(has_gauss), float(cached)],
    }


def _set_python_rng(plain: Plain) -> None:
    version, words, gauss = plain["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, at, has_gauss, cached = plain["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), at, has_gauss, cached))


def _bare(model: torch.nn.Module, accelerator: Accelerator) -> torch.nn.Module:
    """The model as it was built, whose weights have the names that are saved."""
    bare: torch.nn.Module = accelerator.unwrap_model(model, keep_torch_compile=False)
    return bare
