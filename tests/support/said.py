"""A process that says what it was given, and ends as it is told; for the tests of `forks`."""

import atexit
import json
import os
import signal
import sys
import time
from pathlib import Path


def main():
    how, *more = sys.argv[1:]
    atexit.register(print, "at exit")
    match how:
        case "exit":
            sys.exit(int(more[0]) if more[0].isdigit() else " ".join(more))
        case "raise":
            raise ValueError("as it was told")
        case "SIGTERM":
            os.kill(os.getpid(), signal.SIGTERM)
        case "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)
        case "wait":
            print("waiting", flush=True)
            time.sleep(60)
        case "fail":
            if os.environ["RANK"] == "1":
                sys.exit(3)
            time.sleep(60)
        case "meet":
            _meet()
        case "out":
            atexit.unregister(print)
            print("err", file=sys.stderr)
            print(json.dumps(_about(sys.argv[1:])))
    return 0


def _about(words):
    return {
        "words": words, "folder": str(Path.cwd()), "pid": os.getpid(),
        "with": os.environ.get("WITH"), "stdin": sys.stdin.read(),
        "imported": [name for name in ("torch", "transformers") if name in sys.modules],
    }  # fmt: skip


def _meet():
    import torch
    from accelerate import Accelerator

    atexit.unregister(print)
    accelerator = Accelerator()
    total = accelerator.reduce(torch.ones(1), "sum")
    said = f"{accelerator.process_index}/{accelerator.num_processes}:{int(total)}"
    sys.stdout.write(f"{said}\n")  # at once: the others write to the same pipe
