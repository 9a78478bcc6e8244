"""A recipe → this machine's plan for it, and the one `Accelerator` of the run."""

from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, InitProcessGroupKwargs
from accelerate.utils import AutocastKwargs, GradientAccumulationPlugin, TorchDynamoPlugin

from finetune.compute import fsdp, hardware_plan, launch_checks
from finetune.compute.hardware_plan import Hardware
from finetune.config.schema import Recipe
from finetune.runtime import console, distributed, heartbeat

COMPILER = "inductor"  # of torch.compile


def start_accelerator(recipe: Recipe) -> tuple[Hardware, Accelerator]:
    """Join the other processes, where a launcher started several.

    Raises:
        InputError: where the machine, or what is installed, cannot do what the recipe asks for.
    """
    console.quiet_libraries()
    plan = hardware_plan.plan_hardware(recipe.model, recipe.train, recipe.run.deterministic)
    fsdp.prepare_environment()
    accelerator = Accelerator(
        mixed_precision="no" if plan.precision == "fp32" else plan.precision,
        log_with=list(recipe.run.trackers) or None,
        project_dir="runs",  # some trackers want one at once; the run's own comes later
        # The loop divides by the step's rows itself, whatever the environment says.
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        # Batches differ in size: graphs of fixed sizes would be compiled again and again.
        dynamo_plugin=(
            TorchDynamoPlugin(backend=COMPILER, dynamic=True) if recipe.train.compile else None
        ),
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=distributed.TIME_TO_JOIN),
            # A sharded layer's weights are other tensors in each forward: no cast of theirs lasts.
            AutocastKwargs(cache_enabled=not fsdp.is_asked_for()),
        ],
    )
    fsdp.configure_fsdp(accelerator)
    launch_checks.check_processes_joined(accelerator)
    launch_checks.check_distribution_supported(accelerator)
    distributed.wait_while_others_live()
    heartbeat.start(recipe.run.hang_minutes, heartbeat.RESUME)
    hardware_plan.apply_plan(plan)
    console.CONSOLE.is_main = accelerator.is_main_process
    return plan, accelerator


def prepare_training(
    accelerator: Accelerator, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[Any, Any]:
    """A model and its optimizer on the device, with the plan's precision and one set of weights.

    Torch's data-parallel module would hold all gradients a second time, in buckets that are for
    averaging them during the backward pass; here they are averaged after it (`step_memory.py`).
    """
    # `evaluation_mode` leaves out that module and nothing else.
    prepared = accelerator.prepare_model(model, evaluation_mode=True)
    if accelerator.num_processes > 1 and not accelerator.is_fsdp2:
        for tensor in (*model.parameters(), *model.buffers()):
            sent = tensor.detach().contiguous()  # a transposed weight is not, as it comes
            dist.broadcast(sent, 0)
            if not tensor.is_contiguous():
                tensor.detach().copy_(sent)
    return prepared, accelerator.prepare_optimizer(optimizer)
