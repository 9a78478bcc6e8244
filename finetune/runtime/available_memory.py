"""How much memory can still be taken: on this machine, in its container, and on a CUDA device."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch

MACHINE = Path("/proc/meminfo")
GROUPS = Path("/sys/fs/cgroup")
# What a container may take, what it has taken, and what of that is files that the system would
# give up: of version 2 and of version 1 of Linux' control groups.
NAMES = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def available_memory(machine: Path = MACHINE, groups: Path = GROUPS) -> int | None:
    """Bytes that this process can take without swapping; None where the system does not tell.

    Linux alone tells, of the machine and of a container's limit.
    """
    bounds: list[int] = []
    with suppress(OSError, ValueError, KeyError):
        lines = machine.read_text(encoding="ascii").splitlines()
        amounts = dict(line.split(":", 1) for line in lines)
        bounds.append(1024 * int(amounts["MemAvailable"].split()[0]))
    for names in NAMES:
        with suppress(OSError, ValueError):  # no such group; or "max", which is no number
            bounds.append(_left_in_group(groups, names))
    return min(bounds, default=None)


def _left_in_group(groups: Path, names: Sequence[str]) -> int:
    limit, used, counts, files = names
    lines = (groups / counts).read_text(encoding="ascii").splitlines()
    amounts = dict(line.split(maxsplit=1) for line in lines)
    taken = int((groups / used).read_text(encoding="ascii")) - int(amounts.get(files, 0))
    return int((groups / limit).read_text(encoding="ascii")) - taken


def available_device_memory(device: torch.device) -> int:
    """Bytes of a CUDA device that are free even where training takes as much as it ever did."""
    free, _ = torch.cuda.mem_get_info(device)
    spare = torch.cuda.memory_reserved(device) - torch.cuda.max_memory_allocated(device)
    return int(free + spare)
