"""A token table whose batches carry what a model's frozen layers make of their rows."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch

from finetune.runtime.device_copies import copy_tensor
from finetune.tokenization.token_table import Layout, Rows, TokenTable

STATES = "frozen_states"  # the name under which a batch carries them to the model


@dataclass(frozen=True)
class CachedTable(TokenTable):
    """A table whose batches also carry what the frozen layers made of their rows.

    Attributes:
        states: of each token (tokens, hidden), or of each pooled piece (pieces, hidden).
        pooled_states: whether they are one vector for each piece.
    """

    states: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    pooled_states: bool = False

    @property
    def layout(self) -> Layout:
        """Pooled states have no tokens to pad."""
        return "in groups" if self.pooled_states else "padded"

    def batch(self, rows: Rows, device: torch.device) -> dict[str, torch.Tensor]:
        """The inputs of some rows, with states: (pieces, longest, hidden) or (pieces, hidden)."""
        pieces = self.pieces(rows)
        if self.pooled_states:
            one = torch.ones(len(pieces), 1, dtype=torch.long, device=device)  # nothing reads them
            states = copy_tensor(self.states[torch.from_numpy(pieces)], device)
            return {"input_ids": one, "attention_mask": one, STATES: states}
        inputs = super().batch(rows, device)
        states = torch.zeros(*inputs["input_ids"].shape, self.states.shape[1])
        for i, piece in enumerate(pieces):
            some = self.states[self.span(piece)]
            states[i, : len(some)] = some
        return inputs | {STATES: copy_tensor(states, device)}


def has_states(table: TokenTable) -> bool:
    """Whether a table's batches carry what frozen layers made of their rows."""
    return getattr(table, "states", None) is not None


def fields_of_rows(table: TokenTable) -> dict[str, Any] | None:
    """What a table of another kind is made of: the rows, and `states` of their tokens or None.

    None for a table of pooled states, which has no tokens to arrange.
    """
    states = None
    if isinstance(table, CachedTable):
        if table.pooled_states:
            return None
        states = table.states
    rows = {one.name: getattr(table, one.name) for one in dataclasses.fields(TokenTable)}
    return rows | {"states": states}
