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

sys.path[0] = str(Path(__file__).parents[1])

from finetune import record, run, signals  # noqa: E402 # found by the line above

step, rank, code = int(sys.argv[1]), sys.argv[2], sys.argv[3]
end_step, listen = record.Record.end_step, signals.Listener.__enter__
listeners = []


def listen_and_tell(self):
    listeners.append(self)
    return listen(self)


def act(self, norm, **counts):
    lost = []
    if self.steps + 1 == step and rank in ("all", os.environ.get("RANK", "0")):
        names = {"os": os, "signal": signal, "time": time}
        exec(code, names | {"heard": lambda: listeners[0].heard, "lose": lambda: lost.append(1)})
    end_step(self, norm * float("nan") if lost else norm, **counts)


signals.Listener.__enter__ = listen_and_tell
record.Record.end_step = act
sys.exit(run.main(sys.argv[4:]))
