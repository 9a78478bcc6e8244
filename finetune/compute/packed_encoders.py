"""The encoders whose layers are computed by hand without padding, and where each keeps its parts.

packed = find_layers(encoder)        # a PackedLayer for each layer
bias = position_bias(encoder, 64)    # MPNet's; None for the others
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.activations import ACT2FN, GELUActivation

from finetune.compute.packed_layer import LayerModules, PackedLayer
from finetune.modeling import pretrained
from finetune.modeling.freezing import encoder_layers
from finetune.modeling.tokenizer_fit import POSITIONS_AFTER_PADDING


def _of_bert(layer: Any) -> LayerModules:
    attention, inner = layer.attention, layer.attention.self
    return LayerModules(
        query=inner.query,
        key=inner.key,
        value=inner.value,
        out=attention.output.dense,
        first_norm=attention.output.LayerNorm,
        up=layer.intermediate.dense,
        down=layer.output.dense,
        second_norm=layer.output.LayerNorm,
    )


def _of_distilbert(layer: Any) -> LayerModules:
    attention = layer.attention
    return LayerModules(
        query=attention.q_lin,
        key=attention.k_lin,
        value=attention.v_lin,
        out=attention.out_lin,
        first_norm=layer.sa_layer_norm,
        up=layer.ffn.lin1,
        down=layer.ffn.lin2,
        second_norm=layer.output_layer_norm,
    )


def _of_mpnet(layer: Any) -> LayerModules:
    inner = layer.attention.attn
    return LayerModules(
        query=inner.q,
        key=inner.k,
        value=inner.v,
        out=inner.o,
        first_norm=layer.attention.LayerNorm,
        up=layer.intermediate.dense,
        down=layer.output.dense,
        second_norm=layer.output.LayerNorm,
    )


# model_type → the modules of one of its layers, which computes what BERT's do.
LAYERS: dict[str, Callable[[Any], LayerModules]] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra", "ernie"), _of_bert),
    "distilbert": _of_distilbert,
    "mpnet": _of_mpnet,
}


def why_no_packed_layers(config: PretrainedConfig) -> str | None:
    """Why the layers of this encoder, without dropout, are not computed by hand; None: they are."""
    if config.model_type not in LAYERS or getattr(config, "is_decoder", False):
        return f"the layers of {config.model_type} are not BERT's"
    # DistilBERT has another name for it.
    activation = getattr(config, "activation", None) or getattr(config, "hidden_act", None)
    if not isinstance(ACT2FN[activation], GELUActivation):
        return f"the encoder's activation is {activation}"
    limit = pretrained.max_positions(config)
    if limit is not None and limit % 32 and config.model_type not in POSITIONS_AFTER_PADDING:
        return f"its {limit} positions are no multiple of 32"  # to which lengths are rounded up
    return None


def find_layers(encoder: Any) -> list[PackedLayer]:
    """The layers of an encoder that `why_no_packed_layers` has nothing against, first to last."""
    config = encoder.config
    modules = LAYERS[config.model_type]
    return [
        PackedLayer(modules(layer), heads=config.num_attention_heads)
        for layer in encoder_layers(encoder)
    ]


def position_bias(encoder: Any, length: int) -> Tensor | None:
    """What MPNet adds to the scores of two tokens, by their places: (heads, length, length).

    The class computes it itself, from a table that its layers share; None: the encoder has none.
    """
    stack: Any = getattr(encoder, "encoder", None)
    if not hasattr(stack, "compute_position_bias"):
        return None
    weight = stack.relative_attention_bias.weight
    places = torch.empty(1, length, 0, device=weight.device)  # read for its shape alone
    bias: Tensor = stack.compute_position_bias(places)[0]
    return bias


def embed(encoder: Any, ids: Tensor, types: Tensor | None) -> Tensor:
    """(rows, length) → (rows × length, hidden)"""
    named: dict[str, Tensor] = {} if types is None else {"token_type_ids": types}
    states: Tensor = encoder.embeddings(input_ids=ids, **named)
    projection: nn.Module | None = getattr(encoder, "embeddings_project", None)  # ELECTRA's
    if projection is not None:
        states = projection(states)
    return states.flatten(0, 1)
