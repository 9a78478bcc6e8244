"""This process of a run: its machine's plan, the one `Accelerator`, signals, the folder's lock."""

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

import torch
from accelerate import Accelerator

from finetune.compute.accelerator import start_accelerator
from finetune.compute.hardware_plan import Hardware
from finetune.config.schema import Recipe
from finetune.runtime import heartbeat
from finetune.runtime.cost_meter import CostMeter
from finetune.runtime.distributed import run_on_main, run_on_main_first
from finetune.runtime.folder_lock import FolderLock
from finetune.runtime.process_state import call_at_end
from finetune.runtime.signals import SignalListener
from finetune.training import trackers
from finetune.training.checkpoint import CheckpointReader

Result = TypeVar("Result")


@dataclass(frozen=True)
class RunEnvironment:
    """What a run has before it knows its data.

    Attributes:
        started: local time.
        plan: precision, attention and micro-batches that suit this machine.
        listener: hears signals.
        lock: keeps the run's folder from other processes, for as long as this lives.
        checkpoints: reads each checkpoint once.
    """

    started: datetime
    meter: CostMeter
    plan: Hardware
    accelerator: Accelerator
    listener: SignalListener
    lock: FolderLock = field(default_factory=FolderLock)
    checkpoints: CheckpointReader = field(default_factory=CheckpointReader)

    @classmethod
    def start(cls, recipe: Recipe, listener: SignalListener) -> "RunEnvironment":
        """Join the other processes, where a launcher started several.

        Raises:
            InputError: where the machine, or what is installed, cannot do what the recipe asks for.
        """
        free_memory()
        started, meter = datetime.now().astimezone(), CostMeter(heartbeat.note)
        trackers.validate_trackers(recipe.run.trackers)
        plan, accelerator = start_accelerator(recipe)
        env = cls(started, meter, plan, accelerator, listener)
        call_at_end(env.lock.release)
        call_at_end(heartbeat.stop)
        return env

    def on_main(self, call: Callable[[], Result]) -> Result:
        """`call()` on the main process; its result, or what it refuses, on all."""
        return run_on_main(self.accelerator, call)

    def on_main_first(self, call: Callable[[], Result]) -> Result:
        """`call()` on the main process, which may fill a cache, then on the others."""
        return run_on_main_first(self.accelerator, call)


def free_memory() -> None:
    """Give back what an earlier run of this process held, such as its model on a GPU.

    Models that skip or pack layers refer to themselves, and only the collector finds that nobody
    else does. It would wait until many objects had come, however large these are.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
