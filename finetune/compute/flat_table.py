"""Rows end to end as one row, through any class of transformers that takes its attention from us.

    attach_flat_rows(model, kernel)             # the class's own code, with `flat_attention.py`
    table.batch(rows) → ids (1, capacity), and where the rows are
    model(**batch)    → states (1, capacity, hidden) → pooling by row → logits

Nothing is padded but the last few places, up to a round number of tokens.
"""

# torch's own functions for autograd are not typed.
# mypy: disable-error-code="no-untyped-call"

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import MODEL_MAPPING, PretrainedConfig

from finetune.compute import flat_attention
from finetune.compute.cached_table import STATES, fields_of_rows
from finetune.compute.flat_attention import FlatRows
from finetune.compute.packed_attention import MASKED, ROUND, Group, Layout, layout
from finetune.modeling.modeling_document_classifier import DocumentClassifier
from finetune.modeling.tokenizer_fit import POSITIONS_AFTER_PADDING
from finetune.runtime.device_copies import copy_tensor
from finetune.tokenization.token_table import Rows, TokenTable, expand_ranges, range_starts

ROUND_ON_GPU = 8  # what its matrix products ask for; more would be padding


def why_not_flat(config: PretrainedConfig) -> str | None:
    """Why an encoder's class cannot compute a flat batch; None: it should, and `attach` tries."""
    kind = config.model_type
    model_class: Any = MODEL_MAPPING.get(type(config), None)
    if model_class is None:
        return f"{kind} has its own code"
    if not getattr(model_class, "_supports_attention_backend", False):
        return f"{kind}, in this release of transformers, takes no other attention than its own"
    if "position_ids" not in inspect.signature(model_class.forward).parameters:
        return f"{kind} counts positions over a whole batch row"
    return None


@dataclass(frozen=True)
class FlatTable(TokenTable):
    """A table whose batches are flat.

    Attributes:
        kernel: which of `flat_attention.KERNELS` computes the attention; None: groups of rows.
        after_padding: whether positions are counted from the padding id on, as RoBERTa's are.
        states: what frozen layers make of its tokens (tokens, hidden), or None.
    """

    kernel: str | None = None
    after_padding: bool = False
    states: Tensor | None = None

    @classmethod
    def of(cls, table: TokenTable, model: DocumentClassifier, kernel: str | None) -> TokenTable:
        """The same rows, flat; a table of pooled states stays as it is."""
        if (fields := fields_of_rows(table)) is None:
            return table
        after_padding = model.encoder.config.model_type in POSITIONS_AFTER_PADDING
        return cls(**fields, kernel=kernel, after_padding=after_padding)

    def batch(self, rows: Rows, device: torch.device) -> dict[str, Any]:
        """The inputs of some rows, best given by length: ids, perhaps types, (1, capacity) int64.

        All numbers go to the device in one copy.
        """
        pieces = self.pieces(rows)
        begins = self.starts[pieces]
        lengths = self.starts[pieces + 1] - begins
        places = layout(lengths, ROUND if device.type == "cpu" else ROUND_ON_GPU)
        where = expand_ranges(begins, lengths)  # of each token, in `ids`
        ids = np.full(places.capacity, self.pad_id)
        ids[: places.tokens] = self.ids[where]
        host = {"ids": ids, "positions": self._positions(ids, lengths)}
        host["ends"] = np.append(range_starts(lengths), places.capacity)
        if self.seconds is not None:
            host["types"] = np.zeros(places.capacity, dtype=np.int64)
            host["types"][: places.tokens] = where - np.repeat(begins, lengths) >= np.repeat(
                self.seconds[pieces], lengths
            )
        if self.kernel is None:
            host |= {"spread": places.spread.numpy(), "gather": places.gather.numpy()}
        there = _copy(host, device)
        flat = FlatRows(
            count=len(pieces),
            ends=there["ends"].int(),
            longest=max(int(lengths.max()), places.capacity - places.tokens),
            positions=there["positions"][None],
            layout=_on_device(places, there) if self.kernel is None else None,
            kernel=self.kernel,
        )
        batch: dict[str, Any] = {"input_ids": there["ids"][None], "attention_mask": flat}
        if self.seconds is not None:
            batch["token_type_ids"] = there["types"][None]
        if self.states is not None:
            states = torch.zeros(1, places.capacity, self.states.shape[1])
            states[0, : places.tokens] = self.states[torch.from_numpy(where)]
            batch[STATES] = copy_tensor(states, device)
        return batch

    def _positions(self, ids: Rows, lengths: Rows) -> Rows:
        """Of each token in its row; 0, which every class has, where no row is. (capacity,)"""
        positions = np.zeros(len(ids), dtype=np.int64)
        tokens = int(lengths.sum())
        if not self.after_padding:
            positions[:tokens] = expand_ranges(np.zeros_like(lengths), lengths)
            return positions
        # As `create_position_ids_from_input_ids`: a token that is called padding is not counted.
        real = ids[:tokens] != self.pad_id
        counted = np.cumsum(real)
        before = np.concatenate([[0], counted])[range_starts(lengths)[:-1]]
        positions[:tokens] = self.pad_id + real * (counted - np.repeat(before, lengths))
        return positions


def _copy(host: dict[str, Rows], device: torch.device) -> dict[str, Tensor]:
    """Some numbers, in one copy to the device."""
    joined = torch.from_numpy(np.concatenate([*host.values()]))
    if device.type == "cuda":
        joined = joined.pin_memory()  # else the host would wait for the copy
    there = joined.to(device, non_blocking=device.type == "cuda")
    parts = there.split([len(values) for values in host.values()])
    return dict(zip(host, parts, strict=True))


def _on_device(places: Layout, there: dict[str, Tensor]) -> Layout:
    """A layout with its tensors on the device; the groups' masks are made there."""
    if there["ends"].device.type == "cpu":
        return places
    lengths, groups, row = there["ends"].diff(), list[Group](), 0
    for group in places.groups:
        mask = None
        if group.mask is not None:
            place = torch.arange(group.length, device=lengths.device)
            padding = place >= lengths[row : row + group.rows, None]
            mask = torch.zeros(padding.shape, device=lengths.device)
            mask = mask.masked_fill_(padding, MASKED)[:, None, None]
        groups.append(dataclasses.replace(group, mask=mask))
        row += group.rows
    return dataclasses.replace(
        places, groups=tuple(groups), spread=there["spread"], gather=there["gather"]
    )


def attach_flat_rows(model: DocumentClassifier) -> None:
    """Teach a model the batches of a `FlatTable`; it computes the others as before."""
    model.encoder.set_attn_implementation(flat_attention.NAME)
    encode, pool = model.encoder.forward, model.pool
    model.encoder.forward = partial(_encode, encode)
    model.pool = partial(_pool, pool, model.config)  # type: ignore[method-assign]


def _encode(encode: Callable[..., Any], input_ids: Any, attention_mask: Any, **named: Any) -> Any:
    if not isinstance(attention_mask, FlatRows):
        return encode(input_ids=input_ids, attention_mask=attention_mask, **named)
    # transformers makes masks of masks with two dimensions, and leaves those with four as they are;
    # the attention function does not read it.
    unread = torch.zeros(1, 1, 1, 1, device=input_ids.device)
    flat = attention_mask
    return encode(
        input_ids=input_ids,
        attention_mask=unread,
        position_ids=flat.positions,
        flat_rows=flat,
        **named,
    )


def _mean(states: Tensor, flat: FlatRows) -> Tensor:
    # `unsafe`: it need not look at the numbers of rows first, for which a GPU's host would wait.
    means = torch.segment_reduce(states, "mean", offsets=flat.ends.long(), axis=0, unsafe=True)
    return means[: flat.count]


def _first(states: Tensor, flat: FlatRows) -> Tensor:
    return states.index_select(0, flat.ends[: flat.count])


# What `POOLINGS` does with padded rows: (capacity, hidden) → (rows, hidden).
POOLINGS = {"mean": _mean, "cls": _first}


def _pool(pool: Callable[..., Tensor], config: Any, states: Tensor, attention_mask: Any) -> Tensor:
    if not isinstance(attention_mask, FlatRows):
        return pool(states, attention_mask)
    return POOLINGS[config.pooling](states[0].float(), attention_mask)
