"""Four processes that take themselves for those of two machines, and what each of them made.

    made = made_by(4, folder)    # → the ranks that made something, and those that found it

A process finds what another of its machine has put into the machine's folder, as tokens in a cache.
"""

import json
import os
import sys
from pathlib import Path

EACH = 2  # processes of a machine


def made_by(many, folder):
    """The ranks that made what all need, in order; as lines of JSON from each process."""
    from tests.support import forks

    done = forks.run_ranks(many, "tests.support.machines", cwd=folder, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert sorted(rank for rank, *_ in said) == [*range(many)]
    assert {value for _, _, value in said} == {"tokens"}
    return sorted(rank for rank, made, _ in said if made)


def main():
    """One process: make it, or find it."""
    rank = int(os.environ["RANK"])
    machine = Path(f"machine-{rank // EACH}")
    os.environ |= {"LOCAL_RANK": str(rank % EACH), "LOCAL_WORLD_SIZE": str(EACH)}
    from accelerate import Accelerator

    from finetune.runtime import distributed

    accelerator = Accelerator()
    made = []

    def find_or_make():
        if not machine.is_file():
            made.append(rank)
            machine.write_text("tokens", encoding="utf-8")
        return machine.read_text(encoding="utf-8")

    value = distributed.run_on_main_first(accelerator, find_or_make)
    os.write(1, json.dumps([rank, bool(made), value]).encode() + b"\n")
    accelerator.wait_for_everyone()
    return distributed.exit_process(0)


if __name__ == "__main__":
    sys.exit(main())
