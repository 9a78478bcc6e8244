"""FSDP2, as `recipes/accelerate/fsdp2.yaml` asks for it: weights spread over the processes.

Each process holds a part of every weight, of its gradient and of its momentum; a layer's weights
are put together when it is computed. `train_state.py` puts them together to be saved.
"""

import os

import torch
from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin, PartialState
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from transformers import PreTrainedModel

from finetune.modeling.freezing import encoder_layers
from finetune.modeling.head import find_head

# Where accelerate and transformers read that the main process alone reads the weights.
MAIN_LOADS = "FSDP_CPU_RAM_EFFICIENT_LOADING"


def is_asked_for() -> bool:
    """Whether the launcher's configuration says FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in {"1", "true", "yes"}


def prepare_environment() -> None:
    """Have every process read the weights, whatever a configuration says: each checks their hash.

    Is called before the `Accelerator` is there, which reads the environment.
    """
    if is_asked_for():
        os.environ[MAIN_LOADS] = "false"


def configure_fsdp(accelerator: Accelerator) -> None:
    """Shard on CPUs too, where accelerate would leave every process the whole model unasked."""
    if not is_asked_for() or accelerator.distributed_type != DistributedType.MULTI_CPU:
        return
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
    accelerator.state.distributed_type = DistributedType.FSDP
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP


def asks_for_checkpointing(accelerator: Accelerator) -> bool:
    """Whether the launcher's configuration has layers computed again for their gradients."""
    return accelerator.is_fsdp2 and bool(accelerator.state.fsdp_plugin.activation_checkpointing)


def shard_model(accelerator: Accelerator, model: PreTrainedModel) -> None:
    """Spread a model's weights, before its optimizer is built.

    Each layer of the encoder is put together by itself when it is computed, as are the input
    embeddings and the head; all that is left is the last unit. Sharded weights stay fp32. In a run
    in bf16 they are rounded before they are sent, which halves what is sent and held, and gradients
    are summed in fp32; the head, which is computed in fp32, is sent in fp32. Inputs are left to
    autocast, as in a run that is not sharded.
    """
    plugin = accelerator.state.fsdp_plugin
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    exact, policy = MixedPrecisionPolicy(), MixedPrecisionPolicy()
    if accelerator.mixed_precision == "bf16":
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    how = {"mesh": mesh, "offload_policy": plugin.cpu_offload}
    freed = {**how, "reshard_after_forward": plugin.reshard_after_forward}
    head = find_head(model)
    for unit in _units(model, plugin.transformer_cls_names_to_wrap):
        fully_shard(unit, mp_policy=policy, **freed)
    fully_shard(head, mp_policy=exact, **freed)
    fully_shard(model, mp_policy=policy, **how)


def forget_gathered_weights(model: torch.nn.Module) -> None:
    """Have the next pass put sharded weights together anew, as they were changed.

    The last unit stays put together after a forward pass, until a backward pass.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def _units(model: PreTrainedModel, names: list[str] | None) -> list[torch.nn.Module]:
    """What is put together by itself, inner modules first.

    Args:
        names: classes that the launcher's configuration asks for; None: the encoder's layers.
    """
    classes = set(names or (type(block).__name__ for block in encoder_layers(model.base_model)))
    weight = getattr(model.get_input_embeddings(), "weight", None)
    units = []
    for module in model.modules():
        owned = [*module.parameters(recurse=False)]
        if type(module).__name__ in classes or (len(owned) == 1 and owned[0] is weight):
            units.append(module)
    holders = [unit for unit in units if getattr(unit, "weight", None) is weight]
    if len(holders) > 1:  # a weight that modules share belongs to what holds them all
        units = [unit for unit in units if unit not in holders]
    return units[::-1]
