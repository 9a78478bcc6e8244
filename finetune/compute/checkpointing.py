"""Gradient checkpointing: keep each layer's input, and compute the layer again for its gradient.

    enable_checkpointing(model)

What a layer makes on its way is then held for one layer at a time instead of for all of them, for
one more forward pass (Chen et al. 2016, arXiv 1604.06174). The gradient is the same to the bit:
dropout draws the same numbers again.
"""

from functools import partial
from typing import Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from finetune.compute.hardware_plan import keep_freed_memory
from finetune.modeling.freezing import encoder_layers
from finetune.runtime.random_states import device_random

MARK = "recomputes_layers"  # an attribute of encoders that do, which packed layers read too


def enable_checkpointing(model: PreTrainedModel) -> bool:
    """Have a model's layers computed again for their gradients; False where they already are.

    Packed layers, which are not called as modules, see the mark and do so by themselves.
    """
    encoder = model.base_model
    if recomputes_layers(encoder):
        return False
    for block in encoder_layers(encoder):
        block.forward = partial(_recomputed, block, block.forward)
    setattr(encoder, MARK, True)
    if model.device.type == "cpu":
        # Between the layers' inputs, which stay, kept memory comes apart: a row of 8,192 tokens of
        # ModernBERT-base took 6.7 GB, and takes 2.8.
        keep_freed_memory(below=2**24)
    return True


def recomputes_layers(encoder: Any) -> bool:
    """Whether an encoder's layers are computed again for their gradients."""
    return bool(getattr(encoder, MARK, False))


def _recomputed(block: Any, forward: Any, *given: Any, **named: Any) -> Any:
    if not block.training:
        return forward(*given, **named)
    devices = {x.device for x in (*given, *named.values()) if isinstance(x, Tensor)}
    for device in devices:
        if device.type == "mps":  # whose random state torch's `checkpoint` does not keep
            forward = _with_same_draws(forward, device_random(device))
    return checkpoint(forward, *given, use_reentrant=False, **named)


def _with_same_draws(forward: Any, random: Any) -> Any:
    """`forward`, which draws at each later call what it drew at the first.

    Args:
        random: the module that has a device's random state.
    """
    states: list[Tensor] = []

    def call(*given: Any, **named: Any) -> Any:
        if not states:
            states.append(random.get_rng_state())
            return forward(*given, **named)
        now = random.get_rng_state()
        random.set_rng_state(states[0])
        try:
            return forward(*given, **named)
        finally:
            random.set_rng_state(now)

    return call
