"""Arrays of the host → tensors on a device, without waiting for it.

    ids, mask = copy_arrays([ids, mask], device)

A CUDA device takes a copy without a wait only from pinned (page-locked) memory. From other memory,
the host waits until all work before it is done. Elsewhere copies are ordinary ones: on MPS,
`non_blocking=True` from memory that is released at once can corrupt what arrives (pytorch#189690).
"""

# torch's own `split` is not typed.
# mypy: disable-error-code="no-untyped-call"

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PINNED = ("cuda",)  # devices that copy from pinned memory while the host goes on


def copy_arrays(arrays: Sequence[NDArray[np.int64]], device: torch.device) -> list[Tensor]:
    """Arrays of any shapes on a device, in one copy; on a CPU they share the arrays' memory."""
    if device.type == "cpu":
        return [torch.from_numpy(array) for array in arrays]
    flat = np.concatenate([array.ravel() for array in arrays])
    parts = copy_tensor(torch.from_numpy(flat), device).split([array.size for array in arrays])
    return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]


def copy_tensor(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device."""
    if device.type in PINNED:
        # The allocator of pinned memory keeps it until the copy is done.
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def copy_rows(rows: NDArray[Any], device: torch.device) -> Tensor:
    """Places of rows, by which a tensor on a device is indexed. (rows,) int64"""
    return copy_arrays([rows], device)[0]
