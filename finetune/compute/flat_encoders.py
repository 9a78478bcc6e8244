"""MPNet and DeBERTa over rows end to end: encoders that look at distances, in code of their own.

    undo = teach(encoder)                    # its attention takes rows end to end too
    states = encode(encoder, batch)          # (1, capacity, hidden)

Other classes take their attention from transformers' table (`flat_attention.py`). These two do not:
MPNet (Song et al. 2020, arXiv 2004.09297) adds a bias to the scores of two tokens, by how far apart
they are; DeBERTa (He et al. 2021, arXiv 2006.03654) adds two products, of each token's content with
a vector for the distance. With i and j two tokens of a row, and b their distance's place in a
table:

    score(i, j) = (query(i)·key(j) + query(i)·position_key(b) + key(j)·position_query(b)) / scale

transformers multiplies each token with the vectors of all distances there are, 512 for DeBERTa v3,
and then picks. Here it is those that occur in rows of a group's length, and what is picked from the
product is a view of it.
"""

# torch's own `unflatten` is not typed.
# mypy: disable-error-code="no-untyped-call"

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig
from transformers.activations import ACT2FN

from finetune.compute.flat_attention import FlatRows, attend_in_groups
from finetune.compute.packed_encoders import position_bias
from finetune.runtime.device_copies import copy_rows

Undo = Callable[[], None]


@dataclass(frozen=True)
class Biased:
    """What MPNet's layers are given for a bias of their scores; it says where the rows are, too."""

    flat: FlatRows
    bias: Tensor  # (heads, longest_group, longest_group)


@dataclass(frozen=True)
class Distances:
    """What DeBERTa's layers are given for the distances of tokens; it says where the rows are, too.

    Attributes:
        first, last: of the table's vectors, those that occur.
        index: of each distance i - j, from the most negative on, its vector, counted from `first`.
            (2 × longest_group - 1,)
    """

    flat: FlatRows
    first: int
    last: int
    index: Tensor


def computes_own_attention(config: PretrainedConfig) -> bool:
    """Whether an encoder's attention is taken from here."""
    return config.model_type in ENCODERS


def why_not(config: PretrainedConfig) -> str | None:
    """Why an encoder whose attention is taken from here cannot be computed so; None: it can."""
    if getattr(config, "talking_head", False):
        return f"the attention heads of this {config.model_type} are mixed (talking_head)"
    return None


def teach(encoder: Any) -> Undo:
    """Have the attention of an encoder's layers take what `encode` gives them, too."""
    find, attend, _ = ENCODERS[encoder.config.model_type]
    modules = [find(layer) for layer in encoder.encoder.layer]
    before = [module.forward for module in modules]
    for module in modules:
        module.forward = partial(attend, module, module.forward)

    def undo() -> None:
        for module, forward in zip(modules, before, strict=True):
            module.forward = forward

    return undo


def encode(encoder: Any, input_ids: Tensor, flat: FlatRows, types: Tensor | None = None) -> Tensor:
    """The last states of all tokens: ids (1, capacity) → (1, capacity, hidden)."""
    states: Tensor = ENCODERS[encoder.config.model_type][2](encoder, input_ids, flat, types)
    return states


def _first(output: Any) -> Any:
    """A layer's states; classes and releases differ in what comes after them."""
    return output[0] if isinstance(output, tuple) else output


def _encode_mpnet(encoder: Any, input_ids: Tensor, flat: FlatRows, types: Tensor | None) -> Any:
    states = encoder.embeddings(input_ids=input_ids, position_ids=flat.positions)
    bias = position_bias(encoder, flat.longest_group)
    assert bias is not None
    for layer in encoder.encoder.layer:
        states = _first(layer(states, None, position_bias=Biased(flat, bias)))
    return states


def _attend_mpnet(
    module: Any, forward: Callable[..., Any], states: Tensor, *given: Any, **named: Any
) -> Any:
    # transformers 4 has an argument more before the bias.
    ours = [one for one in (*given, *named.values()) if isinstance(one, Biased)]
    if not ours:
        return forward(states, *given, **named)
    heads = module.num_attention_heads
    rows = [part(states[0]).unflatten(1, (heads, -1)) for part in (module.q, module.k, module.v)]
    rate = module.dropout.p if module.training else 0.0
    scale = module.attention_head_size**-0.5
    mixed = attend_in_groups(rows, ours[0].flat, scale, rate, ours[0].bias)
    return (module.o(mixed.flatten(1)[None]),)


def _encode_deberta(encoder: Any, input_ids: Tensor, flat: FlatRows, types: Tensor | None) -> Any:
    stack = encoder.encoder
    states = embedded = encoder.embeddings(
        input_ids=input_ids, token_type_ids=types, position_ids=flat.positions
    )
    table = stack.get_rel_embedding()
    distances = _distances(stack.layer[0].attention.self, flat)
    convolution = getattr(stack, "conv", None)  # of DeBERTa v2's largest
    for number, layer in enumerate(stack.layer):
        states = _first(layer(states, None, relative_pos=distances, rel_embeddings=table))
        if number == 0 and convolution is not None:
            states = _convolve(convolution, flat, embedded, states)
    return states


def _distances(module: Any, flat: FlatRows) -> Distances:
    """By the class's own rule: near distances each have a vector, farther ones share some."""
    longest = flat.longest_group
    distance = torch.arange(1 - longest, longest)
    if not module.relative_attention:
        return Distances(flat, 0, 0, distance)
    span = most = module.max_relative_positions
    buckets = getattr(module, "position_buckets", -1)  # DeBERTa v1 has none
    if buckets > 0:
        from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

        span, distance = buckets, make_log_bucket_position(distance, buckets, most).long()
    index = (distance + span).clamp(0, 2 * span - 1).numpy()
    first, last = int(index[0]), int(index[-1])
    return Distances(flat, first, last, copy_rows(index - first, flat.ends.device))


def _attend_deberta(
    module: Any, forward: Callable[..., Any], states: Tensor, mask: Any, *given: Any,
    relative_pos: Any = None, rel_embeddings: Tensor | None = None, **named: Any,
) -> Any:  # fmt: skip
    if not isinstance(relative_pos, Distances):
        named |= {"relative_pos": relative_pos, "rel_embeddings": rel_embeddings}
        return forward(states, mask, *given, **named)
    rows = _content(module, states[0])
    kinds = module.pos_att_type
    is_v1 = hasattr(module, "in_proj")
    products = 1 + (len(kinds) if is_v1 else ("c2p" in kinds) + ("p2c" in kinds))
    scale = (rows[0].shape[-1] * products) ** -0.5
    bias_of = None
    if rel_embeddings is not None and {"c2p", "p2c"} & set(kinds):
        used = module.pos_dropout(rel_embeddings[relative_pos.first : relative_pos.last + 1])
        keys, queries = (
            None if layer is None else _by_distance(layer(used), relative_pos.index, rows[0])
            for layer in _position_layers(module)
        )
        bias_of = partial(_disentangled, keys, queries, scale)
    rate = module.dropout.p if module.training else 0.0
    mixed = attend_in_groups(rows, relative_pos.flat, scale, rate, bias_of=bias_of)
    return mixed.flatten(1)[None], None


def _content(module: Any, states: Tensor) -> list[Tensor]:
    """Query, key and value of all tokens, (capacity, heads, size) each."""
    heads = module.num_attention_heads
    if not hasattr(module, "in_proj"):
        layers = (module.query_proj, module.key_proj, module.value_proj)
        return [layer(states).unflatten(1, (heads, -1)) for layer in layers]
    query, key, value = module.in_proj(states).unflatten(1, (heads, -1)).chunk(3, dim=-1)
    return [query + module.q_bias.view(heads, -1), key, value + module.v_bias.view(heads, -1)]


def _position_layers(module: Any) -> tuple[Any, Any]:
    """What makes keys, and what makes queries, of the vectors of distances; None: not used."""
    if hasattr(module, "in_proj"):
        names = "pos_proj", "pos_q_proj"
    elif module.share_att_key:
        names = "key_proj", "query_proj"
    else:
        names = "pos_key_proj", "pos_query_proj"
    uses = ("c2p" in module.pos_att_type, "p2c" in module.pos_att_type)
    key, query = (getattr(module, n) if used else None for n, used in zip(names, uses, strict=True))
    return key, query


def _by_distance(vectors: Tensor, index: Tensor, like: Tensor) -> Tensor:
    """(vectors, hidden) → (heads, size, distances)"""
    spread = vectors.index_select(0, index).to(like.dtype)
    result: Tensor = spread.unflatten(1, like.shape[1:]).permute(1, 2, 0)
    return result


def _disentangled(
    keys: Tensor | None, queries: Tensor | None, scale: float, query: Tensor, key: Tensor
) -> Tensor:
    """What distances add to the scores of a group's rows: (rows, heads, length, length).

    Args:
        keys, queries: of the distances i - j of the longest group's rows, from the most negative
            on; shorter rows take those in the middle. (heads, size, distances)
        query, key: (rows, heads, length, size).
    """
    length, parts = query.shape[2], []
    if keys is not None:  # in each row i, j grows from place to place: i - j falls
        parts.append(_diagonals(query, _middle(keys, length).flip(2)))
    if queries is not None:  # in each row j, i grows
        parts.append(_diagonals(key, _middle(queries, length)).mT)
    total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    return (total * scale).transpose(0, 1)


def _middle(vectors: Tensor, length: int) -> Tensor:
    extra = (vectors.shape[2] + 1) // 2 - length
    return vectors[:, :, extra : vectors.shape[2] - extra]


def _diagonals(content: Tensor, vectors: Tensor) -> Tensor:
    """Each token's products with the vectors of its own distances to the others of its row.

    The product with all of them has row i's in the places from length - 1 - i on: read with rows
    that are one place shorter, they are below each other.

    Args:
        content: (rows, heads, length, size).
        vectors: (heads, size, 2 × length - 1).

    Returns: (heads, rows, length, length)
    """
    rows, heads, length, size = content.shape
    flat = content.transpose(0, 1).reshape(heads, rows * length, size)
    products = torch.bmm(flat, vectors).view(heads, rows, -1)
    begin, wide = length - 1, 2 * length - 2
    below: Tensor = products[..., begin : begin + length * wide].unflatten(2, (length, wide))
    return below[..., :length]


def _convolve(convolution: Any, flat: FlatRows, embedded: Tensor, states: Tensor) -> Tensor:
    """DeBERTa v2's convolution over each row's tokens; padding, and what is beyond, counts as 0."""
    layout = flat.layout
    assert layout is not None
    real = torch.arange(layout.capacity, device=states.device) < layout.tokens
    places = layout.to_groups(embedded[0] * real[:, None])
    convolved = []
    for group in layout.groups:
        rows = places[group.start : group.end].view(group.rows, group.length, -1)
        convolved.append(convolution.conv(rows.transpose(1, 2)).transpose(1, 2).flatten(0, 1))
    packed = torch.cat(convolved).index_select(0, layout.gather)
    packed = nn.functional.pad(packed, (0, 0, 0, layout.capacity - layout.tokens))
    active = ACT2FN[convolution.conv_act](convolution.dropout(packed[None]))
    result: Tensor = convolution.LayerNorm(states + active)
    return result


# model_type → where a layer's attention is, what computes it, and what computes the encoder.
ENCODERS: dict[str, tuple[Callable[[Any], Any], Callable[..., Any], Callable[..., Any]]] = {
    "mpnet": (lambda layer: layer.attention.attn, _attend_mpnet, _encode_mpnet),
    "deberta": (lambda layer: layer.attention.self, _attend_deberta, _encode_deberta),
    "deberta-v2": (lambda layer: layer.attention.self, _attend_deberta, _encode_deberta),
}
