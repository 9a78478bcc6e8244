"""How a command ends: an exception → an exit code and one clear message, whichever command it is.

    return run_command(lambda: predict(options))

0: done. 1: a bug, with its traceback. 2: a problem that the user can fix. 75: stopped by Ctrl-C
or another signal, with a way to go on. 130: Ctrl-C where nothing is kept to go on from. Of several
processes, one prints.
"""

import os
import traceback
from collections.abc import Callable

from finetune.runtime import console, errors, streams
from finetune.runtime.console import Verbosity
from finetune.runtime.errors import InputError, StoppedError
from finetune.runtime.memory_errors import describe_memory_error, is_out_of_memory
from finetune.runtime.signals import SignalListener
from finetune.runtime.visible_text import visible_line


def run_command(
    command: Callable[[], int],
    listener: SignalListener | None = None,
    interrupted: str = "",
    remedy: str = "run the same command again",
    verbosity: Verbosity = Verbosity.NORMAL,
) -> int:
    """Run a command, and print how it ended where it did not end well; its exit code.

    Args:
        listener: hears no more signals once there is an error to print.
        interrupted: what to print after Ctrl-C.
        remedy: what to do after another process of the command was lost.
        verbosity: how much this command prints; a later one of the process chooses anew.

    Raises:
        Exception: one that nobody expected, in a single process.
    """
    lines: list[str] = []
    try:
        with console.CONSOLE.at(verbosity):
            code = command()
    except (Exception, KeyboardInterrupt) as error:
        if listener is not None:
            listener.over = True
        ending = _ending(error, interrupted, remedy)
        if ending is None:
            raise
        code, *lines = ending
    return finish(code, *lines)


def finish(code: int, *lines: str) -> int:
    """Print how a command ended, once for all its processes; its exit code."""
    console.close_progress()
    unwritten = streams.take_failure()
    if unwritten is not None:  # what was computed is not lost, but what was printed is
        code, lines = code or 2, (*lines, f"error: standard output: cannot write: {unwritten}")
    if os.environ.get("WORLD_SIZE", "1") == "1":
        if lines:
            console.print_error(*lines)
        return code
    from finetune.runtime import distributed  # imports torch

    if lines and distributed.claim_first_error():
        console.print_error(*lines)
    return distributed.exit_process(code)


def error_lines(error: InputError) -> list[str]:
    """Each problem as the line that is printed of it."""
    return [f"error: {visible_line(problem)}" for problem in error.problems]


def _ending(
    error: BaseException, interrupted: str, remedy: str
) -> tuple[int, *tuple[str, ...]] | None:
    """Exit code and lines for an exception; None for an unexpected one in a single process."""
    if isinstance(error, Exception) and is_out_of_memory(error):
        error = describe_memory_error(error)
    if isinstance(error, OSError):
        error = errors.from_os_error(error) or error
    if isinstance(error, InputError):
        return 2, *error_lines(error)
    if isinstance(error, StoppedError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return (130, interrupted) if interrupted else (130,)
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return None
    return 1, _describe_crash(error, remedy)


def _describe_crash(error: BaseException, remedy: str) -> str:
    """What to print of an unexpected error in one of several processes."""
    from finetune.runtime import distributed, heartbeat

    if distributed.is_lost_peer(error):
        beating = heartbeat.current()
        gone = None if beating is None else beating.describe_gone()
        which = "" if gone is None else f" ({gone})"
        return (
            f"error: another process of this run ended without a word{which}: it was killed, or "
            f"its machine or network failed; {remedy}"
        )
    return "".join(traceback.format_exception(error)).rstrip()
