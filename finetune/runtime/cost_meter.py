"""What a run costs: time by stage and by part of the steps, and memory.

    meter = CostMeter()
    with meter("score"):
        …
    meter.cost()  # {"seconds": {"score": 3.1}, "peak_memory": 1_532_000_000, …}

Of this process alone, and since it was started: a run that was taken up again counts anew.
"""

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

Given = ParamSpec("Given")
Result = TypeVar("Result")


class CostMeter:
    """Counts from when it is made.

    Args:
        on_stage: is told of each stage that begins or goes on.

    Attributes:
        seconds: spent in each stage, in the order in which they first came.
    """

    def __init__(self, on_stage: Callable[[str], None] = lambda stage: None) -> None:
        self.seconds: dict[str, float] = {}
        self._on_stage = on_stage
        self._stages = ["prepare"]
        self._since = time.perf_counter()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count the time inside as a stage's, and not as that of a stage around it."""
        self.seconds.setdefault(stage, 0.0)
        self._count()
        self._stages.append(stage)
        self._on_stage(stage)
        try:
            yield
        finally:
            self._count()
            self._stages.pop()
            self._on_stage(self._stages[-1])

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

    def total(self) -> float:
        """Seconds of all stages so far."""
        self._count()
        return sum(self.seconds.values())

    def cost(self) -> dict[str, Any]:
        """Seconds by stage (`prepare`: what no stage counts), and peak memory in bytes."""
        self._count()
        return {
            "seconds": dict(self.seconds),
            "peak_memory": _peak_memory(),
            "peak_device_memory": (
                int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else None
            ),
        }


class StepTimer:
    """How long each part of the steps takes: the time since the last mark is the named part's.

    A GPU works behind the host, which only hands it its tasks. There the marks are events in its
    own queue, which are read where the host waits for it anyway: at a line of the log.

    Attributes:
        seconds: of each part, in the order in which they first came; those whose marks were read.
    """

    MOST_OPEN = 4096  # parts whose marks wait to be read

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        queues = {"cuda": torch.cuda.Event, "mps": torch.mps.event.Event, "xpu": torch.xpu.Event}
        self._make: Callable[..., Any] = queues.get(device.type, Moment)
        self._open: list[tuple[str, Any, Any]] = []
        self.start()

    def start(self) -> None:
        """What came before is no part's."""
        self._last = self._mark()

    def end_part(self, part: str) -> None:
        now = self._mark()
        self._open.append((part, self._last, now))
        self._last = now
        if len(self._open) == self.MOST_OPEN:
            self.read()

    def read(self) -> dict[str, float]:
        """The `seconds` with all parts up to now; waits for the device."""
        self._last.synchronize()
        for part, start, end in self._open:
            took = start.elapsed_time(end) / 1000
            self.seconds[part] = self.seconds.get(part, 0.0) + took
        self._open.clear()
        return self.seconds

    def _mark(self) -> Any:
        mark = self._make(enable_timing=True)
        mark.record()
        return mark


class Moment:
    """A mark in the time of the host, in the manner of `torch.cuda.Event`."""

    def __init__(self, enable_timing: bool) -> None:
        self.seconds = math.nan

    def record(self) -> None:
        self.seconds = time.perf_counter()

    def synchronize(self) -> None:
        """The host need not wait for itself."""

    def elapsed_time(self, later: "Moment") -> float:
        """Milliseconds."""
        return 1000 * (later.seconds - self.seconds)


def _peak_memory() -> int | None:
    """The most that the process held at once, in bytes; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
