"""Documents → token ids: truncated or in windows, with special tokens around each piece."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from finetune.runtime.errors import InputError
from finetune.tokenization.token_table import (
    Ids,
    Rows,
    TokenTable,
    WindowPooling,
    expand_ranges,
    range_starts,
)

Truncation = Literal["head", "tail", "head_tail", "windows"]


class Chunk(NamedTuple):
    """Some documents, encoded. The last is None where no second text is to be marked."""

    ids: Ids  # (tokens,)
    lengths: Rows  # (pieces,)
    full: Rows  # (documents,)
    pieces: Rows  # of each (documents,)
    kept: Rows  # (documents,)
    seconds: Rows | None  # (pieces,)


@dataclass(frozen=True)
class TruncationOptions:
    """What is kept of a document that is longer than a piece.

    Attributes:
        truncation: its first tokens (head); its last (tail); a quarter of the length from its start
            and the rest from its end (head_tail; Sun et al. 2019, arXiv 1905.05583); or all of it,
            in windows.
        stride: tokens that neighbouring windows share.
        max_windows: of a document, from its start. None: all.
        window_pooling: how the logits of a document's windows become one row.
    """

    truncation: Truncation = "head"
    stride: int = 0
    max_windows: int | None = None
    window_pooling: WindowPooling = "mean"


def encode(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    options: TruncationOptions = TruncationOptions(),  # frozen
    *,
    seconds: Sequence[str] | None = None,
    on_chunk: Callable[[Ids], Any] | None = None,
    chunk_size: int = 1000,
) -> TokenTable:
    """Tokenize every document.

    By default the ids are those of `tokenizer(text, truncation=True, max_length=max_length)`; with
    second texts, those of the pair, truncated longest first.

    Args:
        max_length: of a piece, special tokens included.
        seconds: the second text of each pair.
        on_chunk: called with the ids of each chunk of documents, in order; the table then has none.
        chunk_size: documents tokenized at a time.

    Raises:
        InputError: where the special tokens leave no room, or for a tokenizer that does not put
            one text of a pair after the other.
    """
    cutter = PieceCutter(tokenizer, max_length, options) if seconds is None else None
    chunks: list[Chunk] = []
    for start in range(0, len(texts), chunk_size):
        some = list(texts[start : start + chunk_size])
        if cutter is not None:
            chunk = cutter(*_flatten(_encode_plain(tokenizer, some)))
        else:
            assert seconds is not None
            others = list(seconds[start : start + chunk_size])
            chunk = _encode_pairs(some, others, tokenizer, max_length)
        if on_chunk is not None:
            on_chunk(chunk.ids)
            chunk = chunk._replace(ids=chunk.ids[:0])
        chunks.append(chunk)

    def joined(name: str, dtype: type = np.int64) -> Any:
        return np.concatenate([np.zeros(0, dtype), *(getattr(chunk, name) for chunk in chunks)])

    in_windows = options.truncation == "windows"
    has_types = bool(chunks) and chunks[0].seconds is not None
    return TokenTable(
        ids=joined("ids", np.int32),
        starts=range_starts(joined("lengths")),
        full=joined("full"),
        pad_id=tokenizer.pad_token_id if isinstance(tokenizer.pad_token_id, int) else 0,
        first=range_starts(joined("pieces")) if in_windows else None,
        kept=joined("kept") if in_windows else None,
        seconds=joined("seconds") if has_types else None,
        window_pooling=options.window_pooling,
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


def count_windows(
    lengths: Rows, room: int, stride: int, max_windows: int | None
) -> tuple[Rows, Rows]:
    """How many windows hold documents of so many tokens, and how many of these are in some window.

    Args:
        lengths: without special tokens. (documents,)
        room: tokens that a window has for text.
        stride: tokens that neighbouring windows share.
        max_windows: windows of a document; None: any number.
    """
    step = room - stride
    windows = 1 + -(-np.maximum(lengths - room, 0) // step)
    windows = np.minimum(windows, max_windows or windows)
    return windows, np.minimum(lengths, (windows - 1) * step + room)


class PieceCutter:
    """Documents' own tokens → pieces that the encoder has room for, special tokens around each."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, max_length: int, options: TruncationOptions
    ) -> None:
        self.before, self.after = special_tokens(tokenizer)
        self.specials = len(self.before) + len(self.after)
        self.text_tokens = max_length - self.specials
        self.options = options
        if self.text_tokens < 1:
            raise InputError(
                f"data.max_length: expected more than the {self.specials} special tokens, got "
                f"{max_length}"
            )
        if options.truncation == "windows" and options.stride >= self.text_tokens:
            raise InputError(
                f"data.stride: expected fewer tokens than the {self.text_tokens} that a window has "
                f"for text, got {options.stride}"
            )

    def __call__(self, ids: Ids, lengths: Rows) -> Chunk:
        """
        Args:
            ids: of documents, one after the other. (tokens,)
            lengths: of each. (documents,)
        """
        begins = range_starts(lengths)[:-1]
        windows, heads, tails = (
            np.ones_like(lengths),
            np.minimum(lengths, self.text_tokens),
            0 * lengths,
        )
        if self.options.truncation == "windows":
            windows, kept = count_windows(
                lengths, self.text_tokens, self.options.stride, self.options.max_windows
            )
            # Where in its document each window begins.
            at = (self.text_tokens - self.options.stride) * expand_ranges(0 * windows, windows)
            heads = np.minimum(np.repeat(lengths, windows) - at, self.text_tokens)
            begins = np.repeat(begins, windows) + at
            ends, tails = begins, 0 * begins
        else:
            longer = lengths > self.text_tokens
            if self.options.truncation == "tail":
                tails = np.where(longer, self.text_tokens, tails)
            elif self.options.truncation == "head_tail":
                tails = np.where(longer, self.text_tokens - self.text_tokens // 4, tails)
            heads = heads - tails
            kept, ends = heads + tails, begins + lengths - tails
        sizes = heads + tails + self.specials
        at = range_starts(sizes)[:-1]
        pieces = np.empty(int(sizes.sum()), dtype=np.int32)
        for i, token in enumerate(self.before):
            pieces[at + i] = token
        for i, token in enumerate(self.after):
            pieces[at + sizes - len(self.after) + i] = token
        text = at + len(self.before)
        pieces[expand_ranges(text, heads)] = ids[expand_ranges(begins, heads)]
        pieces[expand_ranges(text + heads, tails)] = ids[expand_ranges(ends, tails)]
        return Chunk(pieces, sizes, lengths + self.specials, windows, kept + self.specials, None)


def _encode_pairs(
    texts: list[str], seconds: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Chunk:
    """Pairs as the tokenizer itself puts them together and truncates them."""
    marks = "token_type_ids" in tokenizer.model_input_names
    named: Any = {"return_attention_mask": False, "return_token_type_ids": marks, "verbose": False}
    encoded: Any = tokenizer(
        texts, seconds, truncation="longest_first", max_length=max_length, **named
    )
    untruncated: Any = tokenizer(texts, seconds, truncation=False, **named)
    ids, lengths = _flatten(encoded["input_ids"])
    where = None
    if marks:
        types, _ = _flatten(encoded["token_type_ids"])
        where = lengths - np.add.reduceat(types, range_starts(lengths)[:-1])
        if not np.array_equal(
            types, expand_ranges(0 * lengths, lengths) >= np.repeat(where, lengths)
        ):
            raise InputError(
                "data.text_pair: this encoder's tokenizer does not put the second text of a pair "
                "after the first; choose another model.source"
            )
    full = np.array([len(row) for row in untruncated["input_ids"]], dtype=np.int64)
    return Chunk(ids, lengths, full, np.ones_like(lengths), lengths, where)


def _flatten(lists: Sequence[Sequence[int]]) -> tuple[Ids, Rows]:
    """Lists one after the other, and the length of each."""
    lengths = np.fromiter(map(len, lists), np.int64, len(lists))
    every: Iterator[int] = (item for items in lists for item in items)
    return np.fromiter(every, np.int32, int(lengths.sum())), lengths


def _encode_plain(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
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


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a text.

    Raises:
        InputError: where it does not leave the text itself as it is.
    """
    with_specials: Any = tokenizer("a")["input_ids"]
    bare = _encode_plain(tokenizer, ["a"])[0]
    for start in range(len(with_specials) - len(bare) + 1):
        if with_specials[start : start + len(bare)] == bare:
            return with_specials[:start], with_specials[start + len(bare) :]
    raise InputError("model.source: its tokenizer changes a text when it adds special tokens")
