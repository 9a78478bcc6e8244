"""Tensors as they are now, for a thread that writes them while training changes them.

held = hold_tensors(tensors)    # None: there is no room for copies
held()                          # → copies on the host, once
"""

# torch's own streams are not typed.
# mypy: disable-error-code="no-untyped-call"

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from finetune.runtime.available_memory import available_device_memory, available_memory

SPARE = 0.5  # of the copies' size: what must be left beside them


def hold_tensors(tensors: Mapping[str, Tensor]) -> Callable[[], dict[str, Tensor]] | None:
    """Copy tensors of the host, or of one device, by name; None where the host has no room.

    A CUDA device copies its own at once, if it has room, and a thread then fetches them in a queue
    of their own, beside the training's. From any other device they are fetched here.
    """
    size = sum(value.nbytes for value in tensors.values())
    available = available_memory()
    if available is not None and available < (1 + SPARE) * size:
        return None
    device = next((x.device for x in tensors.values() if x.device.type == "cuda"), None)
    if device is None or available_device_memory(device) < (1 + SPARE) * size:
        copies = {
            name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
            for name, value in tensors.items()
        }
        return lambda: copies
    there = {
        name: value.detach().clone(memory_format=torch.contiguous_format)
        for name, value in tensors.items()
    }
    queue = torch.cuda.Stream(device)
    queue.wait_stream(torch.cuda.current_stream(device))

    def fetch() -> dict[str, Tensor]:
        fetched = {}
        with torch.cuda.stream(queue):
            for name in [*there]:  # each copy's room on the device is given back with the next
                fetched[name] = there.pop(name).cpu()
        return fetched

    return fetch
