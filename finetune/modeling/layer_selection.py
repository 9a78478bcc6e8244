"""`model.keep_layers`: an encoder of fewer layers, cut from a pretrained one.

    keep = resolve_layers(options.keep_layers, config)  # [0, 2, 5]
    cut_layers(encoder, keep)

A small model begins so (Sanh et al. 2019, arXiv 1910.01108, take every second layer; Sajjad et al.
2023, arXiv 2004.03844, compare which to drop). The class stays the encoder's own, with a smaller
`num_hidden_layers`, so that the saved model loads as any of that class.
"""

# transformers says it is typed, but much of it is not.
# mypy: disable-error-code="no-untyped-call"

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from finetune.config.model_section import LayerChoice
from finetune.modeling.freezing import encoder_layers
from finetune.runtime.errors import InputError
from finetune.runtime.memory_errors import reraise_memory_error

# What a layer may remember of its own place in the stack.
PLACES = ("layer_idx", "layer_id", "layer_index")
# What a config's lists with an entry for each layer are named after: `layer_types`, Longformer's
# `attention_window`.
PER_LAYER = ("layer", "window")
TRIED = 320  # tokens


def resolve_layers(choice: LayerChoice, config: PretrainedConfig) -> list[int]:
    """The layers that stay, counted from 0, in order.

    Args:
        choice: which, or how many: these are spread evenly, the first and the last among them.

    Raises:
        InputError: where the encoder has fewer, shares its weights between layers, or has a config
            that takes no other number of them, as Funnel's, whose layers are in blocks.
    """
    count, name = getattr(config, "num_hidden_layers", None), config.model_type
    if (
        hasattr(config, "num_hidden_groups")
        or not isinstance(count, int)
        or not _takes_layers(config, count)
    ):
        raise InputError(
            f"model.keep_layers: the layers of {name} share their weights, or its config takes no "
            "other number of them; leave it out"
        )
    if isinstance(choice, int):
        if choice > count:
            raise InputError(
                f"model.keep_layers: expected at most {count}, the number of layers that {name} "
                f"has, got {choice}"
            )
        return sorted({round(i * (count - 1) / max(1, choice - 1)) for i in range(choice)})
    outside = [layer for layer in choice if layer >= count]
    if outside:
        raise InputError(
            f"model.keep_layers: expected layers 0 to {count - 1} of {name}, got "
            f"{', '.join(map(str, outside))}"
        )
    return [*choice]


def cut_config(config: PretrainedConfig, keep: Sequence[int]) -> None:
    """Make an encoder's config that of the layers which stay."""
    count = config.num_hidden_layers
    lists = {
        key: value
        for key, value in vars(config).items()
        if any(word in key for word in PER_LAYER)
        and isinstance(value, list | tuple)
        and len(value) == count
    }
    config.num_hidden_layers = len(keep)
    for key, values in lists.items():
        setattr(config, key, [values[layer] for layer in keep])


def _takes_layers(config: PretrainedConfig, count: int) -> bool:
    try:
        config.num_hidden_layers = count
    except (NotImplementedError, AttributeError):  # it is computed of others
        return False
    return True


def cut_layers(encoder: PreTrainedModel, keep: Sequence[int]) -> None:
    """Leave an encoder only some of its layers, in place.

    Raises:
        InputError: for a class that would compute otherwise once it is saved and loaded again, as
            where the kind of a layer follows from its place in the stack.
    """
    blocks = encoder_layers(encoder)
    owner = next(m for m in encoder.modules() if any(child is blocks for child in m.children()))
    name = next(name for name, child in owner.named_children() if child is blocks)
    setattr(owner, name, nn.ModuleList(blocks[layer] for layer in keep))
    for place, layer in enumerate(keep):
        for module in blocks[layer].modules():
            for key in PLACES:
                if isinstance(getattr(module, key, None), int):
                    setattr(module, key, place)
    cut_config(encoder.config, keep)
    if not _is_as_loaded(encoder):
        raise InputError(
            f"model.keep_layers: layers {', '.join(map(str, keep))} of {encoder.config.model_type} "
            "would compute otherwise once they are saved, or nothing, as where their kind follows "
            "from their place; keep other layers, or leave it out"
        )


def _is_as_loaded(encoder: PreTrainedModel) -> bool:
    """Whether an encoder that is built from the config, with these weights, gives the same states.

    Of as many tokens as make a sliding window tell, where there are so many positions.
    """
    kind: Any = type(encoder)
    attention = encoder.config._attn_implementation
    encoder.set_attn_implementation("eager")  # flash attention has no kernel on a CPU
    try:
        try:
            again = kind(copy.deepcopy(encoder.config)).eval()
        except Exception as error:  # whatever a class asks of its config
            reraise_memory_error(error)
            return False
        lacking, more = again.load_state_dict(encoder.state_dict(), strict=False)
        if more or any("pooler" not in name for name in lacking):  # a pooler that no head reads
            return False
        config = encoder.config
        length = min(TRIED, int(getattr(config, "max_position_embeddings", TRIED)) // 2)
        ids = torch.arange(length)[None] % min(int(config.vocab_size), 97)
        mask, was_training = torch.ones_like(ids), encoder.training
        encoder.eval()
        with torch.no_grad():
            states, others = (m(ids, attention_mask=mask)[0] for m in (encoder, again))
        encoder.train(was_training)
        return bool(torch.allclose(states, others, atol=1e-5))
    finally:
        encoder.set_attn_implementation(attention)
