"""A recipe → this machine's plan for it, and the one `Accelerator` of the run."""

from datetime import timedelta

from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import AutocastKwargs, GradientAccumulationPlugin

from finetune import hardware, sharding, terminal, trackers
from finetune.hardware import Hardware
from finetune.recipe import Recipe


def set_up(recipe: Recipe) -> tuple[Hardware, Accelerator]:
    """Join the other processes, where a launcher started several.

    Raises:
        InputError: where the machine, or what is installed, cannot do what the recipe asks for.
    """
    terminal.quiet_libraries()
    plan = hardware.plan(recipe.model, recipe.train)
    trackers.check(recipe.run.trackers)
    accelerator = Accelerator(
        mixed_precision="no" if plan.precision == "fp32" else plan.precision,
        log_with=list(recipe.run.trackers) or None,
        project_dir="runs",  # some trackers want one at once; the run's own comes later
        # The loop divides by the step's rows itself, whatever the environment says.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[
            # Buffers never change here; to send them at every forward would cost time.
            DistributedDataParallelKwargs(broadcast_buffers=False),
            # The others wait while the main process downloads.
            InitProcessGroupKwargs(timeout=timedelta(hours=2)),
            # A sharded layer's weights are other tensors in each forward: no cast of theirs lasts.
            AutocastKwargs(cache_enabled=not sharding.is_asked_for()),
        ],
    )
    sharding.set_up(accelerator)
    hardware.check_joined(accelerator)
    hardware.check_distributed(accelerator)
    hardware.set_up(plan)
    terminal.speak_only_if(accelerator.is_main_process)
    return plan, accelerator
