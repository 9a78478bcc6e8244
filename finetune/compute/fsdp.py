"""FSDP2, as `recipes/accelerate/fsdp2.yaml` asks for it: weights spread over the processes.

Each process holds a part of every weight, of its gradient and of its momentum; a layer's weights
are put together when it is computed. `train_state.py` puts them together to be saved.
"""

import os

from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin, PartialState
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import PreTrainedModel

from finetune.modeling.freezing import encoder_layers


def is_asked_for() -> bool:
    """Whether the launcher's configuration says FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "").lower() in {"1", "true", "yes"}


def configure_fsdp(accelerator: Accelerator) -> None:
    """Shard on CPUs too, where accelerate would leave every process the whole model unasked."""
    if not is_asked_for() or accelerator.distributed_type != DistributedType.MULTI_CPU:
        return
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
    accelerator.state.distributed_type = DistributedType.FSDP
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP


def shard_model(accelerator: Accelerator, model: PreTrainedModel) -> None:
    """Say what is put together at once: each layer of the encoder, then all that is left.

    Weights stay fp32, and autocast casts them: a policy of its own would cast the head, too.
    """
    plugin = accelerator.state.fsdp_plugin
    if plugin.transformer_cls_names_to_wrap is None:
        blocks = encoder_layers(model.base_model)
        plugin.transformer_cls_names_to_wrap = sorted({type(block).__name__ for block in blocks})
    plugin.mixed_precision_policy = MixedPrecisionPolicy()
