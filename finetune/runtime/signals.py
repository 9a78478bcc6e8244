"""SIGTERM, SIGINT, SIGUSR1 → a run that ends in order. It listens before torch is loaded.

What clusters send before they take a machine back, and what Ctrl-C sends. While steps are under
way, a signal waits for the step and its checkpoint (`stop_consensus.py`); at any other time it
ends the run on the spot. The next signal has the system's default effect again, which ends the
process at once.
"""

import ctypes
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from finetune.runtime.errors import BEFORE_TRAINING, StoppedError

SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)
]
# Ctrl-C reaches launcher and processes both, and the launcher then passes it on: one request.
ECHO_SECONDS = 5.0
LAUNCHERS = (b"accelerate", b"torchrun", b"torch.distributed.run", b"torch/distributed/run")


class SignalListener:
    """Hears signals while it is entered.

    Attributes:
        heard: the first that came.
        patient: whether the run looks at `heard` itself, after each step.
        moment: where the run is while it is not patient, for the message.
        launcher: the process whose end this one is told by SIGTERM.
        over: whether all is done but to say how it ended, which a signal need not interrupt: the
            launcher sends one to all where one process fails.

    Args:
        returns_to_caller: whether the process is not the run's own, as in a notebook: the next
            signal then has the effect that it had before, so that Ctrl-C raises KeyboardInterrupt.
    """

    def __init__(self, returns_to_caller: bool = False) -> None:
        self._returns_to_caller = returns_to_caller
        self.heard: int | None = None
        self.patient = False
        self.moment = BEFORE_TRAINING
        self.launcher: int | None = None
        self.over = False
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is not threading.main_thread():
            return self  # signals are the main thread's
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._hear)
        self.launcher = _end_with_launcher()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number in self._before:
            self._restore(number)

    def _restore(self, number: int) -> None:
        handler = self._before[number]
        # None: of something that is not Python.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _let_through(self, number: int) -> None:
        """Have the next signal stop at once."""
        if self._returns_to_caller:
            self._restore(number)
        else:
            signal.signal(number, signal.SIG_DFL)

    def stop(self) -> NoReturn:
        """End the run for the signal that was heard.

        Raises:
            StoppedError: always.
        """
        assert self.heard is not None
        raise StoppedError.during(self.heard, self.moment)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.over:
            self._let_through(number)  # a second one stops at once
            return
        if self.heard is not None:
            if not self._is_echo(number):
                self._let_through(number)
                os.kill(os.getpid(), number)
            return
        self.heard, self._since = number, time.monotonic()
        for other in SIGNALS:
            if not self._may_echo(other):
                # The system's own way works too where the process waits for another.
                self._let_through(other)
        if not self.patient:
            self.stop()
        if os.environ.get("LOCAL_RANK", "0") == "0":
            name = signal.Signals(number).name
            # Not print, which the signal may have interrupted. Nobody may read: `| tee log` hears
            # Ctrl-C as well.
            with suppress(OSError):
                os.write(
                    2,
                    f"\n{name}: finishing the step, then a checkpoint; a second signal stops at "
                    "once\n".encode(),
                )

    def _may_echo(self, number: int) -> bool:
        """Whether a launcher may send a signal for the request that was heard already."""
        passed_on = number == self.heard and "TORCHELASTIC_RUN_ID" in os.environ
        return passed_on or (number == signal.SIGTERM and self.launcher is not None)

    def _is_echo(self, number: int) -> bool:
        if number == signal.SIGTERM and self.launcher not in (None, os.getppid()):
            self.launcher = None  # it ended, once
            return True
        passed_on = number == self.heard and "TORCHELASTIC_RUN_ID" in os.environ
        return passed_on and time.monotonic() - self._since < ECHO_SECONDS


def _end_with_launcher() -> int | None:
    """Be told by SIGTERM when the launcher ends (Linux): it passes on few of its own signals.

    Returns the launcher, where this is so.
    """
    launcher = os.getppid()
    try:
        started_by = Path(f"/proc/{launcher}/cmdline").read_bytes()
        if not any(name in started_by for name in LAUNCHERS):
            return None
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG of <sys/prctl.h>
    except (OSError, AttributeError):
        return None  # another system
    if os.getppid() != launcher:  # it ended before it was asked for
        os.kill(os.getpid(), signal.SIGTERM)
    return launcher
