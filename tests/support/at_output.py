"""A run as a process of its own that gets a signal where one output ends and the next begins.

at_output.py "before OUTPUT" SIGNAL recipe.yaml [section.key=value …]
at_output.py "after OUTPUT:2" SIGNAL …      # the second time that it is made

AT_OUTPUT_HUB is the URL of the Hub that the process publishes to.
"""

import os
import signal
import sys
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])

from huggingface_hub import constants

from finetune import run  # found by the line above
from finetune.hub import delivery, publish
from finetune.reporting import html_report, run_outputs, seeds_report
from tests.support.hub import TOKEN

# What is no call of `RunOutputs.attempt`: name → where it is made.
STEPS = {
    "calibration": (run_outputs, "finalize"),
    "analysis": (run_outputs, "analyse"),
    "the push": (publish, "push_model"),
    "the mark": (delivery, "mark_finished"),
    "seeds.json": (seeds_report, "write_seeds"),
    "the report of all seeds": (html_report, "write_seeds_report"),
}


def main():
    """Patch this process, which does nothing after, and run."""
    place, name, *words = sys.argv[1:]
    when, _, output = place.partition(" ")
    output, _, number = output.partition(":")
    made = Counter()

    def kill_at(moment, step):
        if (moment, step, made[step]) == (when, output, int(number or 1)):
            os.kill(os.getpid(), getattr(signal, name))

    def watched(step, call):
        def make(*given, **named):
            made[step] += 1
            kill_at("before", step)
            result = call(*given, **named)
            kill_at("after", step)
            return result

        return make

    attempt = run_outputs.RunOutputs.attempt
    run_outputs.RunOutputs.attempt = lambda self, step, call, **named: attempt(
        self, step, watched(step, call), **named
    )
    for step, (module, function) in STEPS.items():
        setattr(module, function, watched(step, getattr(module, function)))
    if url := os.environ.get("AT_OUTPUT_HUB"):
        constants.ENDPOINT, constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET = (
            url,
            False,
            True,
        )
        os.environ["HF_TOKEN"] = TOKEN
    return run.main(words)


if __name__ == "__main__":
    sys.exit(main())
