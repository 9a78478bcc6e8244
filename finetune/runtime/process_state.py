"""A process that is the caller's → given back as it was, whatever a run did in it.

    with preserved_process():
        folder = pipeline.run(recipe, listener)

A command line has its process for itself. From Python, a run leaves the caller's random numbers,
threads, precision, logging, console, accelerate's state, the csv module's longest cell and the
Hub's client as they were, and nothing open, whether it returns or raises. Three things stay. What
a run sets in malloc cannot be asked for. Under a launcher on Linux, its end sends the process
SIGTERM. Predicting from a csv or tsv file leaves the csv module's longest cell at 2 GiB.
"""

import csv
import gc
import os
import random
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState, GradientState, PartialState

from finetune.runtime import console, telemetry

Restore = Callable[[], None]
# Variables that accelerate sets for itself while it starts, and those of a deterministic run.
OWN_VARIABLES = (
    *("ACCELERATE_", "PYTORCH_ENABLE_"),
    *("CUBLAS_WORKSPACE_CONFIG", "FLASH_ATTENTION_DETERMINISTIC"),
)


_blocks: list[ExitStack] = []  # those that are entered


def call_at_end(release: Callable[[], None]) -> None:
    """Have something released at the end of the block, even where an exception still names it.

    A command's process ends with it, and needs no such thing.
    """
    if _blocks:
        _blocks[-1].callback(release)


@contextmanager
def preserved_process() -> Iterator[None]:
    """For the block, a process as a command line finds it; after it, the one that was there."""
    handled = sys.exc_info()[1]  # in an `except` of the caller's
    with ExitStack() as stack:
        stack.callback(gc.collect)  # last: cycles hold files, locks and memory
        for keep in (
            console.keep_console,
            console.keep_library_logging,
            _keep_variables,
            telemetry.turn_off,
            _keep_longest_cell,
            _keep_random_numbers,
            _keep_torch_settings,
            _keep_accelerate_state,
        ):
            stack.callback(keep())
        _blocks.append(stack)
        stack.callback(_blocks.pop)
        try:
            with torch.inference_mode(False), torch.enable_grad():
                yield
        except BaseException as error:
            _clear_frames(error, handled)
            raise
        finally:
            console.close_progress()
            if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
                torch.cuda.empty_cache()


def _clear_frames(error: BaseException, handled: BaseException | None) -> None:
    """Let go of what the frames of an exception hold: a notebook keeps its last one forever.

    Args:
        handled: the exception that the caller was handling before, which is left as it is.
    """
    waiting, seen = [error], {id(handled)}
    while waiting:
        one = waiting.pop()
        if id(one) in seen:  # causes may run in a circle
            continue
        seen.add(id(one))
        traceback.clear_frames(one.__traceback__)
        waiting += [cause for cause in (one.__cause__, one.__context__) if cause is not None]


def _keep_variables() -> Restore:
    def own() -> dict[str, str]:
        return {name: value for name, value in os.environ.items() if name.startswith(OWN_VARIABLES)}

    before = own()

    def restore() -> None:
        for name in own().keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)

    return restore


def _keep_longest_cell() -> Restore:
    before = csv.field_size_limit()

    def restore() -> None:
        csv.field_size_limit(before)

    return restore


def _keep_random_numbers() -> Restore:
    of_python, of_numpy, of_cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    of_cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    of_mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None

    def restore() -> None:
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        torch.set_rng_state(of_cpu)
        if of_cuda:
            torch.cuda.set_rng_state_all(of_cuda)
        if of_mps is not None:
            torch.mps.set_rng_state(of_mps)

    return restore


def _keep_torch_settings() -> Restore:
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    dtype = torch.get_default_dtype()
    same_bits = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_default_dtype(torch.float32)

    def restore() -> None:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(same_bits, warn_only=warns)

    return restore


def _keep_accelerate_state() -> Restore:
    """Accelerate's state is the process's, and refuses another precision: each run has a new one.

    The processes of a launcher stay joined, as another run may follow.
    """
    states = (AcceleratorState, GradientState, PartialState)
    before = [dict(state._shared_state) for state in states]
    _set_states(states, [{}, {}, before[2] if dist.is_initialized() else {}])

    def restore() -> None:
        if dist.is_initialized():
            before[2] = dict(PartialState._shared_state)
        _set_states(states, before)

    return restore


def _set_states(states: tuple[type, ...], values: list[dict[str, object]]) -> None:
    for state, value in zip(states, values, strict=True):
        shared = state._shared_state  # type: ignore[attr-defined]
        shared.clear()  # in place: objects that the caller has share it
        shared.update(value)
