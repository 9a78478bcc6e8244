"""Work that the main process does first, or alone, when several share a run.

What the main process refuses, all refuse: else the others would wait for it until they are killed,
and their tracebacks would bury its message.
"""

import os
import re
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from finetune.runtime import heartbeat
from finetune.runtime.errors import InputError
from finetune.runtime.memory_errors import describe_memory_error, is_out_of_memory

Result = TypeVar("Result")

TIME_TO_JOIN = timedelta(minutes=30)  # for all processes of a run to have started
# Of a collective. One process may download or score alone for hours; `heartbeat` tells those that
# are slow from those that are gone, which no timeout can.
PATIENCE = timedelta(days=30)

# What gloo and NCCL say where a process that they wait for has gone.
LOST = (
    "Connection (closed|reset) by peer|Broken pipe|remote process exited|Connection refused|"
    "ncclRemoteError|NCCL communicator was aborted"
)


def run_on_main(accelerator: Accelerator, call: Callable[[], Result]) -> Result:
    """`call()` on the main process; what it returns, or refuses, on all."""
    said: list[Result | tuple[str, ...] | None] = [None, None]  # result, problems
    failure: Exception | None = None
    if accelerator.is_main_process:
        try:
            said[0] = call()
        except InputError as error:
            said[1] = error.problems
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            failure, said[1] = error, describe_memory_error(error).problems
    result, problems = broadcast_object_list(said)
    if failure is not None:
        raise failure  # whoever called knows what to lower
    if problems is not None:
        raise InputError(problems)
    return result  # type: ignore[no-any-return]


def run_on_main_first(accelerator: Accelerator, call: Callable[[], Result]) -> Result:
    """`call()` on the main process, which may fill a cache, then on the others.

    On each other machine, which has caches of its own, one process is the first, too.
    """
    kept: list[Result] = []
    run_on_main(accelerator, lambda: kept.append(call()))
    if spans_machines():
        if accelerator.is_local_main_process and not kept:
            kept.append(call())
        accelerator.wait_for_everyone()
    return kept[0] if kept else call()


def spans_machines() -> bool:
    """Whether a run's processes are on several machines, as its launcher says."""
    everywhere = os.environ.get("WORLD_SIZE", "1")
    return int(os.environ.get("LOCAL_WORLD_SIZE", everywhere)) < int(everywhere)


def wait_while_others_live() -> None:
    """Let collectives take as long as they may, once all processes have joined."""
    if dist.is_initialized():
        dist.distributed_c10d._set_pg_timeout(PATIENCE)


def claim_first_error() -> bool:
    """Whether this process is the first of a run to report an error; the others keep silent.

    When one process fails, the others lose their connection to it, which is no news.
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return True
    if not dist.is_initialized():
        return os.environ.get("LOCAL_RANK", "0") == "0"
    if (beating := heartbeat.current()) is not None:
        return beating.is_first_to_report()
    try:
        # The launcher holds this store, so that it outlives the process that failed.
        return int(dist.distributed_c10d._get_default_store().add(heartbeat.ERRORS, 1)) == 1
    except RuntimeError:
        return True  # nobody is left to ask


def is_lost_peer(error: BaseException) -> bool:
    """Whether an error only says that another process of the run is gone."""
    return isinstance(error, RuntimeError) and re.search(LOST, str(error)) is not None


def exit_process(code: int) -> int:
    """End this process at once where it is one of several; else give back the exit code.

    The destructors of process groups wait for each other, and for threads that wait for Python:
    of several processes, one hangs now and then.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        if code == 0:
            heartbeat.stop()
        if code == 0 and dist.is_initialized():
            dist.destroy_process_group()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code
