"""The states of all random generators of this process, taken and put back."""

import random
from typing import Any

import numpy as np
import torch


def device_random(device: torch.device) -> Any:
    """The module that holds a device's random state; None for the CPU, which has torch's."""
    return {"cuda": torch.cuda, "mps": torch.mps}.get(device.type)


def get_random_states(device: torch.device) -> tuple[Any, ...]:
    """Of torch on the CPU and on a device, of Python and of NumPy."""
    own = device_random(device)
    on_device = None if own is None else own.get_rng_state()
    return torch.get_rng_state(), on_device, random.getstate(), np.random.get_state()


def set_random_states(states: tuple[Any, ...], device: torch.device) -> None:
    """Put back what `get_random_states` gave."""
    on_host, on_device, python, numpy = states
    own = device_random(device)
    torch.set_rng_state(on_host)
    if own is not None:
        own.set_rng_state(on_device)
    random.setstate(python)
    np.random.set_state(numpy)
