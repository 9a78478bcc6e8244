"""What a launcher started → refused where a run cannot be shared so."""

import os

from accelerate import Accelerator, DistributedType

from finetune.config.shipped_recipes import accelerate_config
from finetune.runtime.errors import InputError


def check_distribution_supported(accelerator: Accelerator) -> None:
    """Refuse ways of sharing a run that the loop and the saving are not made for.

    Raises:
        InputError: for DeepSpeed, FSDP's first version, Megatron and the like.
    """
    ways = {
        DistributedType.NO,
        DistributedType.MULTI_CPU,
        DistributedType.MULTI_GPU,
    }
    if accelerator.distributed_type not in ways and not accelerator.is_fsdp2:
        raise InputError(
            f"accelerate: expected one process, data-parallel ones, or FSDP2, got "
            f"{accelerator.distributed_type.value}; pass --num_processes and --multi_gpu, or "
            f"--config_file {accelerate_config()}"
        )


def check_processes_joined(accelerator: Accelerator) -> None:
    """Refuse a run whose launcher started several processes that did not find each other.

    Raises:
        InputError: with the way to start them.
    """
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != accelerator.num_processes:
        raise InputError(
            f"accelerate: {started} processes were started, and each would train alone; on CPUs, "
            "set ACCELERATE_USE_CPU=true in the environment"
        )
