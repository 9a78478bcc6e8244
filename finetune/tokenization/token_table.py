"""Documents → token ids in one flat table, and a count of what was cut.

A table keeps no padding: piece i is `ids[starts[i]:starts[i + 1]]`. A document is one piece, or as
many as it has windows; `pooled` makes one row of logits of those of its windows. Batches are padded
when they are made, to their own longest piece.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from finetune.runtime.errors import InputError

Rows = NDArray[np.int64]
Ids = NDArray[np.int32]
Truncation = Literal["head", "tail", "head_tail", "windows"]
WindowPooling = Literal["mean", "max"]


@dataclass(frozen=True)
class TokenTable:
    """Token ids of many documents, ragged.

    Attributes:
        ids: every piece's ids one after the other, special tokens included. (tokens,) int32
        starts: where each piece begins in `ids`, and the end. (pieces + 1,)
        full: each document's length before anything was cut. (rows,)
        pad_id: what fills a batch.
        first: each document's first piece, and the end; None: a piece each. (rows + 1,)
        kept: how many of a document's tokens stand in some piece; None: in its one. (rows,)
        seconds: where in each piece the second text of a pair begins; None: no pairs, or an encoder
            that does not ask. (pieces,)
        window_pooling: how the logits of a document's pieces become one row.
    """

    ids: Ids
    starts: Rows
    full: Rows
    pad_id: int
    first: Rows | None = None
    kept: Rows | None = None
    seconds: Rows | None = None
    window_pooling: WindowPooling = "mean"

    def __len__(self) -> int:
        return len(self.full)

    @property
    def lengths(self) -> Rows:
        """Tokens of each row as the encoder sees it, all its pieces together. (rows,)"""
        return np.diff(self.starts if self.first is None else self.starts[self.first])

    @property
    def room(self) -> Rows:
        """What each row takes in a batch, its pieces padded to the longest of them. (rows,)"""
        if self.first is None:
            return self.lengths
        longest = self.first[:-1]  # a document's first window is its longest
        room: Rows = np.diff(self.first) * (self.starts[longest + 1] - self.starts[longest])
        return room

    @property
    def cuts(self) -> Rows:
        """How many tokens each row lost. (rows,)"""
        return self.full - (self.lengths if self.kept is None else self.kept)

    @property
    def truncated(self) -> int:
        """How many rows lost tokens."""
        return int((self.cuts > 0).sum())

    @property
    def cut(self) -> int:
        """How many tokens were lost in all."""
        return int(self.cuts.sum())

    def pieces(self, rows: Rows) -> Rows:
        """The pieces of some rows, in the order in which a batch holds them. (pieces,)"""
        if self.first is None:
            return rows
        pieces = self._in_order(rows)
        return pieces[self._longest_first(pieces)]

    def pooled(self, logits: torch.Tensor, rows: Rows) -> torch.Tensor:
        """The logits of a batch's pieces → one row for each document. (rows, classes)

        So a document's loss is taken once, of what all its windows say together.
        """
        if self.first is None:
            return logits
        places = np.argsort(self._longest_first(self._in_order(rows)))
        many = torch.from_numpy(self.first[rows + 1] - self.first[rows]).to(logits.device)
        of_each = logits.index_select(0, torch.from_numpy(places).to(logits.device))
        return torch.segment_reduce(of_each, self.window_pooling, lengths=many)

    def by_piece(self) -> Self:
        """The same, each piece a row: where no gradient is wanted, none must wait for another."""
        full = np.diff(self.starts)
        return dataclasses.replace(self, first=None, kept=None, full=full)

    def joined(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The logits of all pieces, in their order → of all documents. (rows, classes)"""
        assert self.first is not None
        many = torch.from_numpy(np.diff(self.first))
        pooled = torch.segment_reduce(torch.from_numpy(logits), self.window_pooling, lengths=many)
        found: NDArray[np.float32] = pooled.numpy()
        return found

    def batch(self, rows: Rows, device: torch.device) -> dict[str, torch.Tensor]:
        """The padded inputs of some rows: ids, mask, perhaps types, (pieces, longest) int64."""
        pieces = self.pieces(rows)
        lengths = self.starts[pieces + 1] - self.starts[pieces]
        mask = np.arange(lengths.max()) < lengths[:, None]  # (pieces, longest)
        inputs = {"input_ids": self.padded(pieces, mask), "attention_mask": mask.astype(np.int64)}
        if self.seconds is not None:
            inputs["token_type_ids"] = self.types(pieces, mask)
        return {
            name: torch.from_numpy(values).to(device, non_blocking=True)
            for name, values in inputs.items()
        }

    def padded(self, pieces: Rows, mask: NDArray[np.bool_]) -> Rows:
        """The ids of some pieces, where the mask says that there are any. (pieces, longest)"""
        ids = np.full(mask.shape, self.pad_id, dtype=np.int64)
        ids[mask] = np.concatenate([self.ids[self.span(piece)] for piece in pieces])
        return ids

    def types(self, pieces: Rows, mask: NDArray[np.bool_]) -> Rows:
        """0 for the first text of a pair and for padding, 1 for the second. (pieces, longest)"""
        assert self.seconds is not None
        second = np.arange(mask.shape[1]) >= self.seconds[pieces][:, None]
        return (second & mask).astype(np.int64)

    def span(self, piece: int) -> slice:
        """Where a piece stands in `ids`."""
        return slice(int(self.starts[piece]), int(self.starts[piece + 1]))

    def _in_order(self, rows: Rows) -> Rows:
        """The pieces of some rows, document after document."""
        assert self.first is not None
        return _ranges(self.first[rows], self.first[rows + 1] - self.first[rows])

    def _longest_first(self, pieces: Rows) -> Rows:
        """The order in which little is padded."""
        return np.argsort(self.starts[pieces] - self.starts[pieces + 1], kind="stable")


class Chunk(NamedTuple):
    """Some documents, encoded. The last is None where no second text is to be marked."""

    ids: Ids  # (tokens,)
    lengths: Rows  # (pieces,)
    full: Rows  # (documents,)
    many: Rows  # pieces of each (documents,)
    kept: Rows  # (documents,)
    seconds: Rows | None  # (pieces,)


def encode(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    *,
    seconds: Sequence[str] | None = None,
    truncation: Truncation = "head",
    stride: int = 0,
    max_windows: int | None = None,
    window_pooling: WindowPooling = "mean",
    at_once: int = 1000,
    keep: Callable[[Ids], Any] | None = None,
) -> TokenTable:
    """Tokenize every document.

    With `head` the ids are those of `tokenizer(text, truncation=True,
    max_length=max_length)`; with second texts, those of the pair, truncated longest first.

    Args:
        max_length: of a piece, special tokens included.
        seconds: the second text of each pair.
        truncation: what stays of a longer document: its first tokens; its last; a quarter of the
            room for its first and the rest for its last (Sun et al. 2019, arXiv 1905.05583); or all
            of it, in windows.
        stride: tokens that neighbouring windows share.
        max_windows: of a document, from its start. None: all.
        keep: called with the ids of some documents after the other; the table then has none.

    Raises:
        InputError: where the special tokens leave no room, or for a tokenizer that does not put
            one text of a pair after the other.
    """
    cut = _Cut(tokenizer, max_length, truncation, stride, max_windows) if seconds is None else None
    chunks: list[Chunk] = []
    for start in range(0, len(texts), at_once):
        some = list(texts[start : start + at_once])
        if cut is not None:
            chunk = cut(*_flat(_bare(tokenizer, some)))
        else:
            assert seconds is not None
            chunk = _pairs(some, list(seconds[start : start + at_once]), tokenizer, max_length)
        if keep is not None:
            keep(chunk.ids)
            chunk = chunk._replace(ids=chunk.ids[:0])
        chunks.append(chunk)

    def joined(name: str, kind: type = np.int64) -> Any:
        return np.concatenate([np.zeros(0, kind), *(getattr(chunk, name) for chunk in chunks)])

    marked = bool(chunks) and chunks[0].seconds is not None
    return TokenTable(
        ids=joined("ids", np.int32),
        starts=_ends(joined("lengths")),
        full=joined("full"),
        pad_id=tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else 0,
        first=_ends(joined("many")) if truncation == "windows" else None,
        kept=joined("kept") if truncation == "windows" else None,
        seconds=joined("seconds") if marked else None,
        window_pooling=window_pooling,
    )


def resolve_max_length(asked: int | None, limit: int | None) -> int:
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


def windows_of(lengths: Rows, room: int, stride: int, most: int | None) -> tuple[Rows, Rows]:
    """How many windows hold documents of so many tokens, and how many of these stand in some.

    Args:
        lengths: without special tokens. (documents,)
        room: tokens that a window has for text.
        stride: tokens that neighbouring windows share.
        most: windows of a document; None: any number.
    """
    step = room - stride
    many = 1 + -(-np.maximum(lengths - room, 0) // step)
    many = np.minimum(many, most or many)
    return many, np.minimum(lengths, (many - 1) * step + room)


class _Cut:
    """Documents' own tokens → pieces that the encoder has room for, special tokens around each."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        truncation: Truncation,
        stride: int,
        max_windows: int | None,
    ) -> None:
        self.before, self.after = _special_tokens(tokenizer)
        self.specials = len(self.before) + len(self.after)
        self.room = max_length - self.specials
        self.truncation, self.stride, self.max_windows = truncation, stride, max_windows
        if self.room < 1:
            raise InputError(
                f"data.max_length: expected more than the {self.specials} special tokens, got "
                f"{max_length}"
            )
        if truncation == "windows" and stride >= self.room:
            raise InputError(
                f"data.stride: expected fewer tokens than the {self.room} that a window has for "
                f"text, got {stride}"
            )

    def __call__(self, ids: Ids, lengths: Rows) -> Chunk:
        """
        Args:
            ids: of documents, one after the other. (tokens,)
            lengths: of each. (documents,)
        """
        begins = _ends(lengths)[:-1]
        many, heads, tails = np.ones_like(lengths), np.minimum(lengths, self.room), 0 * lengths
        if self.truncation == "windows":
            many, kept = windows_of(lengths, self.room, self.stride, self.max_windows)
            # Where in its document each window begins.
            at = (self.room - self.stride) * _ranges(0 * many, many)
            heads = np.minimum(np.repeat(lengths, many) - at, self.room)
            begins = np.repeat(begins, many) + at
            ends, tails = begins, 0 * begins
        else:
            longer = lengths > self.room
            if self.truncation == "tail":
                tails = np.where(longer, self.room, tails)
            elif self.truncation == "head_tail":
                tails = np.where(longer, self.room - self.room // 4, tails)
            heads = heads - tails
            kept, ends = heads + tails, begins + lengths - tails
        sizes = heads + tails + self.specials
        at = _ends(sizes)[:-1]
        found = np.empty(int(sizes.sum()), dtype=np.int32)
        for i, token in enumerate(self.before):
            found[at + i] = token
        for i, token in enumerate(self.after):
            found[at + sizes - len(self.after) + i] = token
        text = at + len(self.before)
        found[_ranges(text, heads)] = ids[_ranges(begins, heads)]
        found[_ranges(text + heads, tails)] = ids[_ranges(ends, tails)]
        return Chunk(found, sizes, lengths + self.specials, many, kept + self.specials, None)


def _pairs(
    texts: list[str], seconds: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Chunk:
    """Pairs as the tokenizer itself puts them together and truncates them."""
    marks = "token_type_ids" in tokenizer.model_input_names
    named: Any = {"return_attention_mask": False, "return_token_type_ids": marks, "verbose": False}
    encoded: Any = tokenizer(
        texts, seconds, truncation="longest_first", max_length=max_length, **named
    )
    whole: Any = tokenizer(texts, seconds, truncation=False, **named)
    ids, lengths = _flat(encoded["input_ids"])
    where = None
    if marks:
        types, _ = _flat(encoded["token_type_ids"])
        where = lengths - np.add.reduceat(types, _ends(lengths)[:-1])
        if not np.array_equal(types, _ranges(0 * lengths, lengths) >= np.repeat(where, lengths)):
            raise InputError(
                "data.text_pair: this encoder's tokenizer does not put the second text of a pair "
                "after the first; choose another model.source"
            )
    full = np.array([len(row) for row in whole["input_ids"]], dtype=np.int64)
    return Chunk(ids, lengths, full, np.ones_like(lengths), lengths, where)


def _flat(lists: Sequence[Sequence[int]]) -> tuple[Ids, Rows]:
    """Lists one after the other, and the length of each."""
    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    every: Iterator[int] = (item for items in lists for item in items)
    return np.fromiter(every, np.int32, int(lengths.sum())), lengths


def _ends(lengths: Rows) -> Rows:
    """Where each of some ranges that follow each other begins, and the end."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _ranges(begins: Rows, lengths: Rows) -> Rows:
    """`begin, begin + 1, …` of each range, one after the other."""
    return np.repeat(begins - _ends(lengths)[:-1], lengths) + np.arange(int(lengths.sum()))


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
