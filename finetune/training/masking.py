"""Rows of tokens → some of them masked, which the model is to tell: what adapting descends.

    rows = MaskedRows(table, micro_batch_tokens, masking)
    task = rows.objective(train, device).of_step(step, batch_rows)
    logits = model(**task.table.batch(part, device)).logits     # (asked, vocabulary)

A masked language model (Devlin et al. 2019, arXiv 1810.04805) is asked for a share of each row's
tokens. Of these, 80 % are replaced by the mask token, 10 % by a token drawn at random, and 10 %
stay as they are, so that the encoder cannot know which tokens it will be asked for; or all are
masked.

They are drawn anew in each step (Liu et al. 2019, arXiv 1907.11692), by the seed and the step
alone. So the masks are the same on any number of processes, and in a run that is taken up.

A row with n tokens is asked for the nearest whole number to the share of n, one at least. A step's
loss is the mean over all tokens that it asks for, on all processes.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from finetune.config import schema
from finetune.runtime.device_copies import copy_arrays, copy_tensor
from finetune.runtime.errors import InputError
from finetune.tokenization.token_table import Rows, TokenTable, expand_ranges
from finetune.training.objective import StepTask

Replacement = Literal["mixed", "mask"]
MASKED, RANDOM = 0.8, 0.1  # of the tokens that are asked for, with `mixed`
HELD_OUT = 2**31  # in the place of a step, for the masks of held-out rows


@dataclass(frozen=True)
class Masking:
    """How tokens are masked.

    Attributes:
        mask_id: of the mask token.
        ordinary: the ids of the tokens that may be asked for, or drawn at random. (ids,)
        fraction: of a row's tokens that are asked for.
        replacement: mixed: 80 % masked, 10 % random, 10 % unchanged; mask: all masked.
        seed: of the draws.
    """

    mask_id: int
    ordinary: NDArray[np.int64]
    fraction: float = 0.15
    replacement: Replacement = "mixed"
    seed: int = 0

    @classmethod
    def of_tokenizer(cls, tokenizer: PreTrainedTokenizerBase, **how: Any) -> Self:
        """That of a tokenizer, whose special tokens are never asked for.

        Raises:
            InputError: where it has no mask token.
        """
        if tokenizer.mask_token_id is None:
            raise InputError(
                "ENCODER: expected a tokenizer with a mask token, as of BERT or RoBERTa, found "
                "none; name an encoder that was trained with one"
            )
        special = {*tokenizer.all_special_ids}
        ids = sorted(set(tokenizer.get_vocab().values()) - special)
        return cls(int(str(tokenizer.mask_token_id)), np.array(ids, dtype=np.int64), **how)

    def count_asked(self, table: TokenTable) -> Rows:
        """How many tokens of each row are asked for; 0 where all are special. (rows,)"""
        ordinary = np.concatenate([[0], np.cumsum(self._is_ordinary(table.ids))])
        counts = ordinary[table.starts[1:]] - ordinary[table.starts[:-1]]
        asked: Rows = np.maximum(np.rint(self.fraction * counts), counts > 0).astype(np.int64)
        return asked

    def mask(self, table: TokenTable, draw: Sequence[int]) -> TokenTable:
        """The same rows, with some tokens asked for, and most of these masked.

        Args:
            draw: what the draw depends on beside the seed.
        """
        rng = np.random.default_rng([self.seed, *draw])
        lengths = np.diff(table.starts)
        # Of each row, the ordinary tokens with the smallest keys: each is as likely as any other.
        keys = rng.random(len(table.ids))
        keys[~self._is_ordinary(table.ids)] = 2.0
        order = np.lexsort((keys, np.repeat(np.arange(len(lengths)), lengths)))
        rank = expand_ranges(np.zeros_like(lengths), lengths)
        asked = np.zeros(len(table.ids), dtype=bool)
        asked[order] = rank < np.repeat(self.count_asked(table), lengths)
        places, ids = np.flatnonzero(asked), np.array(table.ids)
        fate = rng.random(len(places)) if self.replacement == "mixed" else np.zeros(len(places))
        random = self.ordinary[rng.integers(len(self.ordinary), size=len(places))]
        ids[places] = np.where(fate < MASKED + RANDOM, random, ids[places])
        ids[places[fate < MASKED]] = self.mask_id
        return dataclasses.replace(table, ids=ids, asked=asked)

    def _is_ordinary(self, ids: NDArray[Any]) -> NDArray[np.bool_]:
        known = np.zeros(int(max(self.ordinary.max(), ids.max(initial=0))) + 1, dtype=bool)
        known[self.ordinary] = True
        found: NDArray[np.bool_] = known[ids]
        return found


@dataclass(frozen=True)
class MaskedRows:
    """What is trained on.

    Attributes:
        table: the token ids of each row, unmasked.
        micro_batch_tokens: tokens that are computed at once.
        masking: of the rows of a step.
    """

    table: TokenTable
    micro_batch_tokens: int
    masking: Masking

    @property
    def labels(self) -> NDArray[np.int64]:
        """None that rows could be drawn by: all are alike. (rows,)"""
        return np.zeros(len(self.table), dtype=np.int64)

    def objective(self, train: schema.Train, device: torch.device) -> "MaskedTokens":
        """What is to be learned: the tokens that are asked for."""
        return MaskedTokens(self.table, self.masking, device)


class MaskedTokens:
    """Asks for tokens of each step's rows."""

    def __init__(self, table: TokenTable, masking: Masking, device: torch.device) -> None:
        self._table, self._masking, self._device = table, masking, device

    def of_step(self, step: int, batch_rows: Rows) -> StepTask:
        """The rows of a step, masked, by their numbers among these."""
        return self.of_rows(self._table.take(batch_rows), step)

    def of_rows(self, rows: TokenTable, draw: int) -> StepTask:
        """Rows, masked by a draw, and the loss of what is asked for of them."""
        masked = self._masking.mask(rows, [draw])
        counts = self._masking.count_asked(rows)
        # So that the mean over the rows is the mean over all tokens that are asked for.
        scale = len(rows) / max(1, int(counts.sum()))

        def losses_of(logits: Tensor, part: Rows) -> Tensor:
            where = expand_ranges(rows.starts[part], rows.starts[part + 1] - rows.starts[part])
            assert masked.asked is not None
            targets = rows.ids[where[masked.asked[where]]].astype(np.int64)
            owners = np.repeat(np.arange(len(part)), counts[part])
            right, owner = copy_arrays([targets, owners], self._device)
            nats = torch.nn.functional.cross_entropy(logits, right, reduction="none")
            total = copy_tensor(torch.zeros(len(part)), self._device)
            return scale * total.index_add(0, owner, nats)

        return StepTask(masked, np.arange(len(rows)), losses_of)


def hold_masks(table: TokenTable, masking: Masking, device: torch.device) -> StepTask:
    """Held-out rows with masks that stay the same, whenever they are scored."""
    return MaskedTokens(table, masking, device).of_rows(table, HELD_OUT)
