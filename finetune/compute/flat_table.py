"""Rows end to end as one row: the batches that `flat_model.py` teaches a model.

    table.batch(rows) → ids (1, capacity), and where the rows are

Nothing is padded but the last few places, up to a round number of tokens.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from finetune.compute.cached_table import STATES, fields_of_rows
from finetune.compute.flat_attention import FlatRows
from finetune.compute.packed_attention import AT_ONCE, MASKED, ROUND, Group, Layout, layout
from finetune.modeling.modeling_document_classifier import DocumentClassifier
from finetune.modeling.tokenizer_fit import POSITIONS_AFTER_PADDING
from finetune.runtime.device_copies import copy_arrays, copy_tensor
from finetune.tokenization import token_table as tokens
from finetune.tokenization.token_table import Rows, TokenTable, expand_ranges, range_starts

FLAT_ROWS = "flat_rows"  # the name under which a batch carries them to a class's own head
ROUND_ON_GPU = 8  # what its matrix products ask for; more would be padding
AT_ONCE_ON_GPU = 2**22  # rows × length² whose attention is computed at once there


@dataclass(frozen=True)
class FlatTable(TokenTable):
    """A table whose batches are flat.

    Attributes:
        kernel: which of `flat_attention.KERNELS` computes the attention; None: groups of rows.
        after_padding: whether positions are counted from the padding id on, as RoBERTa's are.
        own_head: whether the logits come from the class's own head, which takes padded rows.
        states: what frozen layers make of its tokens (tokens, hidden), or None.
    """

    kernel: str | None = None
    after_padding: bool = False
    own_head: bool = False
    states: Tensor | None = None

    @property
    def layout(self) -> tokens.Layout:
        """A batch holds as many tokens as its rows have."""
        return "end to end"

    @classmethod
    def of(cls, table: TokenTable, model: PreTrainedModel, kernel: str | None) -> TokenTable:
        """The same rows, flat; a table of pooled states stays as it is."""
        if (fields := fields_of_rows(table)) is None:
            return table
        config: Any = model.base_model.config
        return cls(
            **fields,
            kernel=kernel,
            after_padding=config.model_type in POSITIONS_AFTER_PADDING,
            own_head=not isinstance(model, DocumentClassifier),
        )

    def batch(self, rows: Rows, device: torch.device) -> dict[str, Any]:
        """The inputs of some rows, best given by length: ids, perhaps types, (1, capacity) int64.

        All numbers go to the device in one copy.
        """
        pieces = self.pieces(rows)
        begins = self.starts[pieces]
        lengths = self.starts[pieces + 1] - begins
        on_cpu = device.type == "cpu"
        multiple, at_once = (ROUND, AT_ONCE) if on_cpu else (ROUND_ON_GPU, AT_ONCE_ON_GPU)
        places = layout(lengths, multiple, at_once)
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
        if self.asked is not None:
            host[tokens.ASKED] = np.flatnonzero(self.asked_of(pieces))
        if self.own_head:
            place = np.arange(lengths.max())
            at = host["ends"][:-2, None] + place
            host["padded"] = np.where(place < lengths[:, None], at, places.capacity - 1)
        there = dict(zip(host, copy_arrays([*host.values()], device), strict=True))
        flat = FlatRows(
            count=len(pieces),
            ends=there["ends"].int(),
            longest=max(int(lengths.max()), places.capacity - places.tokens),
            positions=there["positions"][None],
            layout=_on_device(places, there) if self.kernel is None else None,
            kernel=self.kernel,
            padded=there.get("padded"),
        )
        batch: dict[str, Any] = {"input_ids": there["ids"][None], "attention_mask": flat}
        if flat.padded is not None:
            batch |= {"attention_mask": (flat.padded < places.capacity - 1).long(), FLAT_ROWS: flat}
        if self.seconds is not None:
            batch["token_type_ids"] = there["types"][None]
        if self.asked is not None:
            batch[tokens.ASKED] = there[tokens.ASKED]
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
