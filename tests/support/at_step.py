"""A run as a process of its own that does something in the middle of a step.

at_step.py STEP RANK CODE recipe.yaml [section.key=value …]

CODE is Python; `heard()` is the signal that came to the process, and `lose()` makes the step's
gradient not finite.
"""

import os
import signal
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])

from finetune import run  # found by the line above
from finetune.runtime import signals
from finetune.training import train_log


def main():
    """Patch this process, which does nothing after, and run."""
    step, rank, code, *words = sys.argv[1:]
    step = int(step)
    end_step, listen = train_log.TrainLog.end_step, signals.SignalListener.__enter__
    listeners = []

    def listen_and_tell(self):
        listeners.append(self)
        return listen(self)

    def act(self, norm, **counts):
        lost = []
        if self.steps + 1 == step and rank in ("all", os.environ.get("RANK", "0")):
            names = {"os": os, "signal": signal, "time": time}
            exec(
                code, names | {"heard": lambda: listeners[0].heard, "lose": lambda: lost.append(1)}
            )
        end_step(self, norm * float("nan") if lost else norm, **counts)

    signals.SignalListener.__enter__ = listen_and_tell
    train_log.TrainLog.end_step = act
    return run.main(words)


if __name__ == "__main__":
    sys.exit(main())
