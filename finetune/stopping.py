"""SIGTERM, SIGINT, SIGUSR1 → the step is finished, a checkpoint written, the run ended.

What clusters send before they take a machine back, and what Ctrl-C sends. A second signal ends the
process at once.
"""

import os
import signal
import sys
import time
from types import FrameType, TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
from accelerate import Accelerator

from finetune.problems import InputError, StoppedError

SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)
]
# Ctrl-C reaches launcher and processes both, and the launcher then passes it on: one request.
ECHO_SECONDS = 5.0


class Stopping:
    """Listens for signals while it is entered, and has all processes answer at the same step.

    The processes' wishes are put together in the background while a step is computed, and looked
    at after the next: that costs no step any time, and all stop one step later than asked.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.heard: int | None = None  # the signal that came to this process
        self._since = 0.0
        self._before: dict[int, Any] = {}
        self._alone = accelerator.num_processes == 1
        # A group of its own, on the CPU: it neither waits for the GPU nor for the gradients.
        self._group = None if self._alone else dist.new_group(backend="gloo")
        self._wishes = torch.zeros(2, dtype=torch.int64)
        self._answer: Any = None

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        # All processes come here together, or after an error that each may have alone.
        together = kind is None or issubclass(kind, (StoppedError, InputError))
        if together and self._group is not None:
            if self._answer is not None:
                self._answer.wait()
            dist.destroy_process_group(self._group)

    def agreed(self, checkpoint: bool) -> tuple[int, bool]:
        """The signal on which all stop now, or 0; and whether all write a checkpoint now.

        Args:
            checkpoint: whether this process finds one due.
        """
        mine = torch.tensor([self.heard or 0, int(checkpoint)], dtype=torch.int64)
        if self._alone:
            answer = mine
        else:
            if self._answer is not None:
                self._answer.wait()
            answer, self._wishes = self._wishes, mine
            self._answer = dist.all_reduce(
                self._wishes, op=dist.ReduceOp.MAX, group=self._group, async_op=True
            )
        number, due = answer.tolist()
        return int(number), bool(due)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.heard is None:
            self.heard, self._since = number, now
            if os.environ.get("LOCAL_RANK", "0") == "0":
                name = signal.Signals(number).name
                # Not print, which the signal may have interrupted.
                os.write(
                    sys.stderr.fileno(),
                    f"\n{name}: finishing the step, then a checkpoint; a second signal stops at "
                    "once\n".encode(),
                )
        elif "TORCHELASTIC_RUN_ID" not in os.environ or now - self._since > ECHO_SECONDS:
            os._exit(128 + number)
