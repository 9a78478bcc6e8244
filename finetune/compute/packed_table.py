"""Rows end to end, without padding, through the layers of a BERT-like encoder.

    table.batch(rows) → ids in groups of like length, and their layout
    model(**batch)    → embeddings by group → layers over all tokens → pooling by group → logits

A model stays what it is: its weights, its state dict, and what it makes of a padded batch.
`attach_packed_layers` only teaches it to take the batches of a `PackedTable` too. The products with
the weights then run over the tokens of many rows at once, none of them padding (`packed_layer.py`).
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from finetune.compute import packed_encoders
from finetune.compute.cached_table import fields_of_rows
from finetune.compute.checkpointing import recomputes_layers
from finetune.compute.packed_attention import Layout, layout, like_lengths
from finetune.compute.packed_layer import PackedLayer
from finetune.modeling.modeling_document_classifier import DocumentClassifier
from finetune.tokenization import token_table as tokens
from finetune.tokenization.token_table import Rows, TokenTable


def attach_packed_layers(model: PreTrainedModel) -> Callable[[], None]:
    """Teach a model the batches of a `PackedTable`; it computes the others as before.

    Returns: what makes it forget them.
    """
    assert isinstance(model, DocumentClassifier)
    packed = packed_encoders.find_layers(model.encoder)
    before = encode, pool = model.encoder.forward, model.pool

    def undo() -> None:
        model.encoder.forward, model.pool = before  # type: ignore[method-assign]

    model.encoder.forward = partial(_encode, encode, model, packed)
    model.pool = partial(_pool, pool)  # type: ignore[method-assign]
    return undo


@dataclass(frozen=True)
class PackedBatch:
    """What a packed batch has in the place of an attention mask.

    Attributes:
        masks: of each group, 1 for a real token and 0 for padding, (rows, length) int64.
        types: of each group, 1 for the second text of a pair; None: no pairs.
        states: what layers below `boundary` make of the packed tokens, where that is known.
        asked: the packed tokens whose states alone are read; None: all, or each row's first where
            that is pooled. (asked,)
    """

    layout: Layout
    masks: tuple[Tensor, ...]
    types: tuple[Tensor, ...] | None = None
    boundary: int = 0
    states: Tensor | None = None
    asked: Tensor | None = None


@dataclass(frozen=True)
class PackedTable(TokenTable):
    """A table whose batches are packed.

    Attributes:
        states: what frozen layers below `boundary` make of its tokens, or None. (tokens, hidden)
    """

    boundary: int = 0
    states: Tensor | None = None

    @property
    def layout(self) -> tokens.Layout:
        """A batch holds no padding but that of the attention."""
        return "in groups"

    @classmethod
    def of(cls, table: TokenTable, boundary: int = 0) -> TokenTable:
        """The same rows, packed; a table of pooled states stays as it is."""
        if (fields := fields_of_rows(table)) is None:
            return table
        return cls(**fields, boundary=boundary if fields["states"] is not None else 0)

    def batch(self, rows: Rows, device: torch.device) -> dict[str, Any]:
        """The inputs of some rows, best given by length: groups of ids (pieces, length) int64."""
        pieces = self.pieces(rows)
        lengths = self.starts[pieces + 1] - self.starts[pieces]
        ids, masks, types = [], [], []
        for start, end, length in like_lengths(lengths):
            some = pieces[start:end]
            mask = np.arange(length) < lengths[start:end, None]  # (pieces, length)
            ids.append(torch.from_numpy(self.padded(some, mask)))
            masks.append(torch.from_numpy(mask.astype(np.int64)))
            if self.seconds is not None:
                types.append(torch.from_numpy(self.types(some, mask)))
        states = None
        if self.states is not None:
            states = torch.cat([self.states[self.span(piece)] for piece in pieces])
        packed = PackedBatch(
            layout(lengths), tuple(masks), tuple(types) or None, self.boundary, states
        )
        batch = {"input_ids": tuple(ids), "attention_mask": packed}
        if self.asked is not None:
            asked = torch.from_numpy(np.flatnonzero(self.asked_of(pieces)))
            batch["attention_mask"] = dataclasses.replace(packed, asked=asked)
            batch[tokens.ASKED] = torch.arange(len(asked))  # no others come out of the last layer
        return batch


def _encode(
    padded: Callable[..., Any],
    model: DocumentClassifier,
    packed: list[PackedLayer],
    input_ids: Any,
    attention_mask: Any,
    **named: Any,
) -> Any:
    if not isinstance(attention_mask, PackedBatch):
        return padded(input_ids=input_ids, attention_mask=attention_mask, **named)
    batch, device = attention_mask, model.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
    with torch.autocast(device, enabled=False):
        layout = _in(dtype, batch.layout)
        if batch.states is None:
            types = batch.types or (None,) * len(input_ids)
            groups = zip(input_ids, types, strict=True)
            places = torch.cat([packed_encoders.embed(model.encoder, *group) for group in groups])
            states = places.index_select(0, layout.gather)
        else:
            states = batch.states
        states = nn.functional.pad(states, (0, 0, 0, layout.capacity - layout.tokens))
        longest = max(group.length for group in layout.groups)
        bias = packed_encoders.position_bias(model.encoder, longest)
        recomputes = recomputes_layers(model.encoder)
        for layer in packed[batch.boundary :]:
            if layer is packed[-1] and batch.asked is not None:
                layout = dataclasses.replace(layout, only=batch.asked)
            elif layer is packed[-1] and model.config.pooling == "cls":
                layout = dataclasses.replace(layout, only=_first_tokens(batch))
            states = layer(states, layout, dtype, bias, recomputes)
    return BaseModelOutput(last_hidden_state=states.float())


def _first_tokens(batch: PackedBatch) -> Tensor:
    """Of each row, among the packed tokens. (rows,)"""
    lengths = torch.cat([mask.sum(1) for mask in batch.masks])
    return lengths.cumsum(0) - lengths


def _in(dtype: torch.dtype, layout: Layout) -> Layout:
    groups = tuple(
        group if group.mask is None else dataclasses.replace(group, mask=group.mask.to(dtype))
        for group in layout.groups
    )
    return dataclasses.replace(layout, groups=groups)


def _pool(pool: Callable[..., Tensor], states: Tensor, attention_mask: Any) -> Tensor:
    if not isinstance(attention_mask, PackedBatch):
        return pool(states, attention_mask)
    layout = attention_mask.layout
    if len(states) != layout.capacity:  # the last layer computed what is pooled alone
        return states
    places: Tensor = _ToGroups.apply(states, layout)  # type: ignore[no-untyped-call]
    pooled = [
        pool(places[group.start : group.end].view(group.rows, group.length, -1), mask)
        for group, mask in zip(layout.groups, attention_mask.masks, strict=True)
    ]
    return torch.cat(pooled)


class _ToGroups(torch.autograd.Function):
    """`Layout.to_groups`, whose gradient needs no sums: padding's is zero, as pooling masks it."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, layout: Layout) -> Tensor:
        ctx.layout = layout
        return layout.to_groups(states)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return ctx.layout.to_packed(gradient.contiguous()), None
