"""Texts → token ids in one flat table, and a count of what truncation cut.

A table keeps no padding: row i is `ids[starts[i]:starts[i + 1]]`. Batches are padded when they
are made, to their own longest row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from finetune.problems import InputError

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class TokenTable:
    """Token ids of many texts, ragged.

    Attributes:
        ids: every row's ids one after the other, special tokens included. (tokens,) int32
        starts: where each row begins in `ids`, and the end. (rows + 1,)
        full: each row's length before truncation. (rows,)
        pad_id: what fills a batch.
    """

    ids: NDArray[np.int32]
    starts: Rows
    full: Rows
    pad_id: int

    def __len__(self) -> int:
        return len(self.full)

    @property
    def lengths(self) -> Rows:
        """Tokens of each row as the encoder sees it. (rows,)"""
        return np.diff(self.starts)

    @property
    def truncated(self) -> int:
        """How many rows lost tokens."""
        return int((self.full > self.lengths).sum())

    @property
    def cut(self) -> int:
        """How many tokens were lost in all."""
        return int((self.full - self.lengths).sum())

    def batch(self, rows: Rows, device: torch.device) -> dict[str, torch.Tensor]:
        """The padded inputs of some rows: ids and mask, each (rows, longest) int64."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        mask = np.arange(lengths.max()) < lengths[:, None]  # (rows, longest)
        ids = np.full(mask.shape, self.pad_id, dtype=np.int64)
        ids[mask] = np.concatenate([self.ids[self.starts[r] : self.starts[r + 1]] for r in rows])
        return {
            "input_ids": torch.from_numpy(ids).to(device, non_blocking=True),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)).to(device, non_blocking=True),
        }


def encode(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_length: int, at_once: int = 1000
) -> TokenTable:
    """Tokenize every text, keeping its first tokens and the tokenizer's special ones.

    The ids are those of `tokenizer(text, truncation=True, max_length=max_length)`.
    """
    before, after = _special_tokens(tokenizer)
    room = max_length - len(before) - len(after)
    pieces: list[NDArray[np.int32]] = []
    full = np.zeros(len(texts), dtype=np.int64)
    for start in range(0, len(texts), at_once):
        encoded = _bare(tokenizer, list(texts[start : start + at_once]))
        for i, ids in enumerate(encoded, start):
            full[i] = len(ids) + len(before) + len(after)
            pieces.append(np.array([*before, *ids[:room], *after], dtype=np.int32))
    lengths = np.array([len(piece) for piece in pieces], dtype=np.int64)
    return TokenTable(
        ids=np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int32),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        full=full,
        pad_id=tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else 0,
    )


def max_length(asked: int | None, limit: int | None) -> int:
    """The tokens kept of each document: as asked, else the encoder's limit, at most 512.

    Raises:
        InputError: where more is asked than the encoder has positions for.
    """
    if asked is None:
        return min(limit or 512, 512)
    if limit is not None and asked > limit:
        raise InputError(
            f"data.max_length: the encoder has positions for {limit} tokens, got {asked}; "
            f"set data.max_length={limit} or less, or choose an encoder for longer texts"
        )
    return asked


def _bare(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """The ids of whole texts, without special tokens."""
    encoded: Any = tokenizer(
        texts,
        add_special_tokens=False,
        truncation=False,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # the tokenizer would warn of every text that is to be truncated
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a text."""
    whole: Any = tokenizer("a")["input_ids"]
    bare = _bare(tokenizer, ["a"])[0]
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    raise InputError("model.source: its tokenizer changes a text when it adds special tokens")
