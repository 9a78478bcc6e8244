"""Token ids of many documents in one flat table, its batches, and a count of what was cut.

A table keeps no padding: piece i is `ids[starts[i]:starts[i + 1]]`. A document is one piece, or as
many as it has windows; `pooled` makes one row of logits of those of its windows. Batches are padded
when they are made, to their own longest piece.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.runtime.device_copies import copy_arrays

Rows = NDArray[np.int64]
Ids = NDArray[np.int32]
WindowPooling = Literal["mean", "max", "softmax"]
Layout = Literal["padded", "in groups", "end to end"]
SEGMENT_REDUCE_DEVICES = ("cpu",)  # MPS has none, and CUDA's makes the host wait
ASKED = "asked"  # the name under which a batch carries the places of tokens that are asked for
MOST_PADDING = 0.15  # of the tokens that are computed, where rows are padded


@dataclass(frozen=True)
class TokenTable:
    """Token ids of many documents, ragged.

    Attributes:
        ids: every piece's ids one after the other, special tokens included. (tokens,) int32
        starts: where each piece begins in `ids`, and the end. (pieces + 1,)
        full: each document's length before anything was cut. (rows,)
        pad_id: what fills a batch.
        first: each document's first piece, and the end; None: a piece each. (rows + 1,)
        kept: how many of a document's tokens are in some piece; None: in its one. (rows,)
        seconds: where in each piece the second text of a pair begins; None: no pairs, or an encoder
            that does not ask. (pieces,)
        window_pooling: how the logits of a document's pieces become one row.
        multiple: of how many tokens the length of a padded batch is, where that is little padding.
        longest: tokens of the longest piece that the encoder takes; None: of any.
        asked: the tokens whose own states are read, where the model predicts tokens; None: each
            piece is read as a whole. (tokens,)
    """

    ids: Ids
    starts: Rows
    full: Rows
    pad_id: int
    first: Rows | None = None
    kept: Rows | None = None
    seconds: Rows | None = None
    window_pooling: WindowPooling = "mean"
    multiple: int = 1
    longest: int | None = None
    asked: NDArray[np.bool_] | None = None

    @property
    def layout(self) -> Layout:
        """How a batch holds its pieces, which decides what it holds beside their tokens."""
        return "padded"

    def __len__(self) -> int:
        return len(self.full)

    @property
    def lengths(self) -> Rows:
        """Tokens of each row as the encoder sees it, all its pieces together. (rows,)"""
        return np.diff(self.starts if self.first is None else self.starts[self.first])

    @property
    def padded_tokens(self) -> Rows:
        """Tokens of each row in a batch, its pieces padded to the longest of them. (rows,)"""
        if self.first is None:
            return self.lengths
        longest = self.first[:-1]  # a document's first window is its longest
        padded: Rows = np.diff(self.first) * (self.starts[longest + 1] - self.starts[longest])
        return padded

    @property
    def batch_tokens(self) -> Rows:
        """Tokens of each row as a batch is measured by. (rows,)"""
        return self.lengths if self.layout == "end to end" else self.padded_tokens

    def width(self, longest: int) -> int:
        """The length of a padded batch whose longest piece has so many tokens."""
        rounded = -(-longest // self.multiple) * self.multiple
        if self.longest is not None:
            rounded = max(longest, min(rounded, self.longest))
        return rounded if rounded - longest <= MOST_PADDING * rounded else longest

    @property
    def lost_tokens(self) -> Rows:
        """How many tokens each row lost. (rows,)"""
        return self.full - (self.lengths if self.kept is None else self.kept)

    @property
    def truncated(self) -> int:
        """How many rows lost tokens."""
        return int((self.lost_tokens > 0).sum())

    @property
    def total_lost_tokens(self) -> int:
        """How many tokens were lost in all."""
        return int(self.lost_tokens.sum())

    def pieces(self, rows: Rows) -> Rows:
        """The pieces of some rows, in the order in which a batch holds them. (pieces,)"""
        if self.first is None:
            return rows
        pieces = self._in_order(rows)
        return pieces[self._longest_first(pieces)]

    def pooled(self, logits: torch.Tensor, rows: Rows) -> torch.Tensor:
        """The logits of a batch's pieces → one row for each document. (rows, classes)

        So a document has one loss, of all its windows together.
        """
        if self.first is None:
            return logits
        places = np.argsort(self._longest_first(self._in_order(rows)))
        windows = self.first[rows + 1] - self.first[rows]  # (rows,)
        # Of windows that tie for the maximum, its gradient counts negative ones several times.
        if self.window_pooling == "mean" and logits.device.type in SEGMENT_REDUCE_DEVICES:
            ordered = logits.index_select(0, torch.from_numpy(places))
            counts = torch.from_numpy(windows)
            return torch.segment_reduce(ordered, self.window_pooling, lengths=counts)
        there = np.arange(windows.max()) < windows[:, None]  # (rows, most windows)
        grid = np.zeros(there.shape, dtype=np.int64)
        grid[there] = places
        at, real = copy_arrays([grid, there.astype(np.int64)], logits.device)
        spread = logits.index_select(0, at.flatten()).view(*grid.shape, -1)
        missing = (real == 0).unsqueeze(-1)
        if self.window_pooling == "max":
            return spread.masked_fill(missing, -torch.inf).amax(dim=1)
        if self.window_pooling == "softmax":
            shares = spread.masked_fill(missing, -torch.inf).softmax(dim=1)
            return (shares * spread).sum(dim=1)
        return spread.masked_fill(missing, 0).sum(dim=1) / real.sum(dim=1, keepdim=True)

    def by_piece(self) -> Self:
        """The same, each piece a row: without a gradient, pieces can be computed one by one."""
        full = np.diff(self.starts)
        return dataclasses.replace(self, first=None, kept=None, full=full)

    def pool_windows(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logits of all pieces, in their order → of all documents. (rows, classes)"""
        assert self.first is not None
        if self.window_pooling == "softmax":
            shares = self.window_shares(logits)
            summed: NDArray[np.float32] = np.add.reduceat(shares * logits, self.first[:-1])
            return summed
        counts = torch.from_numpy(np.diff(self.first))
        pooled = torch.segment_reduce(torch.from_numpy(logits), self.window_pooling, lengths=counts)
        result: NDArray[np.float32] = pooled.numpy()
        return result

    def window_shares(self, logits: NDArray[Any]) -> NDArray[Any]:
        """What each piece's logits count in its document's, which are their weighted sum.

        With softmax pooling (McFee, Salamon & Bello 2018), the softmax of each label's logits over
        the windows: training decides which windows count, without parameters of its own.

        Args:
            logits: of all pieces, in their order. (pieces, classes)

        Returns:
            Of each label, shares that sum to 1 over a document's pieces. (pieces, classes)
        """
        assert self.first is not None
        begins, windows = self.first[:-1], np.diff(self.first)

        def per_piece(of_documents: NDArray[Any]) -> NDArray[Any]:
            return np.repeat(of_documents, windows, axis=0)

        if self.window_pooling == "mean":
            each = np.repeat((1 / windows).astype(logits.dtype), windows)
            return np.broadcast_to(each[:, None], logits.shape)
        if self.window_pooling == "softmax":
            powers = np.exp(logits - per_piece(np.maximum.reduceat(logits, begins)))
            shares: NDArray[Any] = powers / per_piece(np.add.reduceat(powers, begins))
            return shares
        largest = np.zeros_like(logits)
        for begin, end in zip(begins, self.first[1:], strict=True):
            largest[begin + logits[begin:end].argmax(axis=0), np.arange(logits.shape[1])] = 1
        return largest

    def batch(self, rows: Rows, device: torch.device) -> dict[str, torch.Tensor]:
        """The padded inputs of some rows: ids, mask, perhaps types, (pieces, width) int64.

        Where tokens are asked for, also their places among all of the batch, row by row. (asked,)
        """
        pieces = self.pieces(rows)
        lengths = self.starts[pieces + 1] - self.starts[pieces]
        mask = np.arange(self.width(int(lengths.max()))) < lengths[:, None]  # (pieces, width)
        inputs = {"input_ids": self.padded(pieces, mask), "attention_mask": mask.astype(np.int64)}
        if self.seconds is not None:
            inputs["token_type_ids"] = self.types(pieces, mask)
        if self.asked is not None:
            places = np.zeros(mask.shape, dtype=bool)
            places[mask] = self.asked_of(pieces)
            inputs[ASKED] = np.flatnonzero(places)
        return dict(zip(inputs, copy_arrays([*inputs.values()], device), strict=True))

    def padded(self, pieces: Rows, mask: NDArray[np.bool_]) -> Rows:
        """The ids of some pieces, where the mask says that there are any. (pieces, longest)"""
        ids = np.full(mask.shape, self.pad_id, dtype=np.int64)
        ids[mask] = np.concatenate([self.ids[self.span(piece)] for piece in pieces])
        return ids

    def asked_of(self, pieces: Rows) -> NDArray[np.bool_]:
        """Whether each token of some pieces is asked for, one piece after the other. (tokens,)"""
        assert self.asked is not None
        lengths = self.starts[pieces + 1] - self.starts[pieces]
        return self.asked[expand_ranges(self.starts[pieces], lengths)]

    def types(self, pieces: Rows, mask: NDArray[np.bool_]) -> Rows:
        """0 for the first text of a pair and for padding, 1 for the second. (pieces, longest)"""
        assert self.seconds is not None
        second = np.arange(mask.shape[1]) >= self.seconds[pieces][:, None]
        return (second & mask).astype(np.int64)

    def take(self, rows: Rows) -> Self:
        """Some rows, in this order."""
        pieces = rows if self.first is None else self._in_order(rows)
        lengths = self.starts[pieces + 1] - self.starts[pieces]
        windows = None if self.first is None else self.first[rows + 1] - self.first[rows]
        where = expand_ranges(self.starts[pieces], lengths)
        return dataclasses.replace(
            self,
            ids=self.ids[where],
            starts=range_starts(lengths),
            full=self.full[rows],
            first=None if windows is None else range_starts(windows),
            kept=None if self.kept is None else self.kept[rows],
            seconds=None if self.seconds is None else self.seconds[pieces],
            asked=None if self.asked is None else self.asked[where],
        )

    def between(self, begin: int, end: int) -> Self:
        """The rows from one to before another: `take` of rows in their order, which copies none."""
        first = None if self.first is None else self.first[begin : end + 1]
        low, high = (begin, end) if first is None else (int(first[0]), int(first[-1]))
        starts = self.starts[low : high + 1]
        tokens = slice(int(starts[0]), int(starts[-1]))
        return dataclasses.replace(
            self,
            ids=self.ids[tokens],
            starts=starts - starts[0],
            full=self.full[begin:end],
            first=None if first is None else first - first[0],
            kept=None if self.kept is None else self.kept[begin:end],
            seconds=None if self.seconds is None else self.seconds[low:high],
            asked=None if self.asked is None else self.asked[tokens],
        )

    def span(self, piece: int) -> slice:
        """The place of a piece in `ids`."""
        return slice(int(self.starts[piece]), int(self.starts[piece + 1]))

    def _in_order(self, rows: Rows) -> Rows:
        """The pieces of some rows, document after document."""
        assert self.first is not None
        return expand_ranges(self.first[rows], self.first[rows + 1] - self.first[rows])

    def _longest_first(self, pieces: Rows) -> Rows:
        """The order in which little is padded."""
        return np.argsort(self.starts[pieces] - self.starts[pieces + 1], kind="stable")


def concatenate(tables: Sequence[TokenTable]) -> TokenTable:
    """The documents of several tables, one table after the other.

    Args:
        tables: one or more, made by the same tokenizer with the same options.
    """
    if len(tables) == 1:
        return tables[0]

    def joined(name: str) -> Any:
        values = [getattr(table, name) for table in tables]
        return None if values[0] is None else np.concatenate(values)

    windows = [np.diff(table.first) for table in tables if table.first is not None]
    return dataclasses.replace(
        tables[0],
        ids=joined("ids"),
        starts=range_starts(np.concatenate([np.diff(table.starts) for table in tables])),
        full=joined("full"),
        first=range_starts(np.concatenate(windows)) if windows else None,
        kept=joined("kept"),
        seconds=joined("seconds"),
        asked=joined("asked"),
    )


def range_starts(lengths: Rows) -> Rows:
    """Where each of some ranges that follow each other begins, and the end."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def expand_ranges(begins: Rows, lengths: Rows) -> Rows:
    """`begin, begin + 1, …` of each range, one after the other."""
    return np.repeat(begins - range_starts(lengths)[:-1], lengths) + np.arange(int(lengths.sum()))
