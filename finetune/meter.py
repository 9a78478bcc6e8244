"""What a run costs: time by stage, memory, and energy where the machine can tell.

    meter = Meter()
    with meter("test"):
        …
    meter.cost()  # {"seconds": {"test": 3.1}, "peak_memory": 1_532_000_000, …}

Of this process alone, and since it was started: a run that was taken up again counts anew.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

POWERCAP = Path("/sys/class/powercap")

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Meter:
    """Counts from when it is made.

    Attributes:
        seconds: spent in each stage, in the order in which they first came.
    """

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self.seconds: dict[str, float] = {}
        self._stages = ["prepare"]
        self._since = time.perf_counter()
        self._counters = [*_rapl(powercap), *_nvml()]
        self._last = [read() for read, _ in self._counters]
        self._joules = 0.0

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count the time inside as a stage's, and not as that of a stage around it."""
        self.seconds.setdefault(stage, 0.0)
        self._count()
        self._stages.append(stage)
        try:
            yield
        finally:
            self._count()
            self._stages.pop()
            self.look()

    def _count(self) -> None:
        now = time.perf_counter()
        stage = self._stages[-1]
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._since
        self._since = now

    def timed(self, stage: str, call: Callable[Given, Result]) -> Callable[Given, Result]:
        """`call`, with its time counted as a stage's."""

        @wraps(call)
        def timed(*args: Given.args, **kwargs: Given.kwargs) -> Result:
            with self(stage):
                return call(*args, **kwargs)

        return timed

    def look(self) -> None:
        """Read the energy counters, which start again from 0 when they are full (after an hour)."""
        now = [read() for read, _ in self._counters]
        for before, after, (_, full) in zip(self._last, now, self._counters, strict=True):
            self._joules += after - before + (full if after < before else 0.0)
        self._last = now

    def cost(self) -> dict[str, Any]:
        """Seconds by stage (`prepare`: what no stage counts), peak memory in bytes, joules.

        Energy is the machine's, others' work included; null where it has no counter one may read.
        """
        self._count()
        self.look()
        return {
            "seconds": dict(self.seconds),
            "peak_memory": _peak_memory(),
            "peak_device_memory": (
                int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None
            ),
            "joules": self._joules if self._counters else None,
        }


# How to read a counter in joules, and at which value it starts again.
Counter = tuple[Callable[[], float], float]


def _rapl(powercap: Path) -> list[Counter]:
    """The processor packages' counters (Linux; most machines let only root read them)."""
    found: list[Counter] = []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        if zone.name.count(":") != 1:
            continue  # a part of a package, which counts it already
        file = zone / "energy_uj"

        def read(file: Path = file) -> float:
            return int(file.read_text()) / 1e6

        try:
            read()
            full = int((zone / "max_energy_range_uj").read_text()) / 1e6
        except (OSError, ValueError):
            continue
        found.append((read, full))
    return found


def _nvml() -> list[Counter]:
    """The GPUs' counters, where NVIDIA's Python binding is installed."""
    if not torch.cuda.is_available():
        return []
    try:
        import pynvml  # type: ignore[import-not-found, unused-ignore]

        pynvml.nvmlInit()
        device = pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())
        pynvml.nvmlDeviceGetTotalEnergyConsumption(device)
    except Exception:  # not installed, or a device without a counter: an error class of its own
        return []
    return [(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(device) / 1e3, 0.0)]


def _peak_memory() -> int | None:
    """The most that the process held at once, in bytes; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
