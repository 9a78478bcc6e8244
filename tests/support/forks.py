"""Runs as processes of their own that start at once: forked from one that holds the imports.

For a test that starts the same run many times. What differs from a run that a user starts is that
all of them hash strings alike.

    with Forks(folder) as forks:
        process = forks.start("run.dir=run")
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])

from tests.support.processes import ENVIRONMENT


class Forks:
    """The process that forks: one run at a time, each with `tiny.yaml` of `folder`."""

    def __init__(self, folder):
        self.pipe = folder / "said-by-forks"
        os.mkfifo(self.pipe)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        command = [sys.executable, __file__, str(self.pipe)]
        self.parent = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, text=True, **pipes)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.parent.communicate()
        self.pipe.unlink()

    def start(self, *words):
        print(json.dumps(words), file=self.parent.stdin, flush=True)
        return Fork(int(self.parent.stdout.readline()), self.pipe.open(), self.parent.stdout)


class Fork:
    """As `subprocess.Popen`, as far as is needed."""

    def __init__(self, pid, stdout, ends):
        self.pid, self.stdout, self.ends = pid, stdout, ends

    def is_alive(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, 0)
            return True
        return False

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self):
        """Its exit code; the negative number of the signal that ended it."""
        self.stdout.close()
        return os.waitstatus_to_exitcode(int(self.ends.readline()))


def serve(pipe):
    """A run for each line of words, its process and then its status printed."""
    from finetune import run
    from finetune.evaluation import analysis  # noqa: F401 # and all that these import
    from finetune.reporting import results  # noqa: F401
    from finetune.training import finalize  # noqa: F401

    for line in sys.stdin:
        if (pid := os.fork()) == 0:
            said = os.open(pipe, os.O_WRONLY)
            os.dup2(said, 1)
            os.dup2(said, 2)
            sys.exit(run.main(["tiny.yaml", *json.loads(line)]))
        print(pid, flush=True)
        print(os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
