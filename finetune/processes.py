"""Work that the main process does first, or alone, when several share a run.

What the main process refuses, all refuse: else the others would wait for it until they are killed,
and their tracebacks would bury its message.
"""

from collections.abc import Callable
from typing import TypeVar

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from finetune.problems import InputError

Result = TypeVar("Result")


def main_only(accelerator: Accelerator, call: Callable[[], Result]) -> Result:
    """`call()` on the main process; what it returns, or refuses, on all."""
    said: list[Result | tuple[str, ...] | None] = [None, None]  # result, problems
    if accelerator.is_main_process:
        try:
            said[0] = call()
        except InputError as error:
            said[1] = error.problems
    result, problems = broadcast_object_list(said)
    if problems is not None:
        raise InputError(problems)
    return result  # type: ignore[no-any-return]


def main_first(accelerator: Accelerator, call: Callable[[], Result]) -> Result:
    """`call()` on the main process, which may fill a cache, then on the others."""
    kept: list[Result] = []
    main_only(accelerator, lambda: kept.append(call()))
    return kept[0] if kept else call()
