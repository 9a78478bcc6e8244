"""Documents' lengths → what each way of reading long ones would cut, and what it would cost.

    choices = audit.of(corpus.train, corpus.labels, table, reading, specials, config, plan, 32)

Counted from lengths alone, before anything is trained. Costs are estimates, relative to those of
the run's own choice: time by the encoder's matrix products, memory by the activations that the
largest micro-batch keeps for the backward pass.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PretrainedConfig

from finetune.data.corpus import Split
from finetune.tokenization.document_format import DocumentFormat
from finetune.tokenization.token_table import Rows, TokenTable, windows_of


@dataclass(frozen=True)
class OfClass:
    """What a choice cuts of a label's documents."""

    rows_cut: int
    tokens: int  # of all its documents, whole
    tokens_cut: int


@dataclass(frozen=True)
class ReadingOption:
    """One way of reading long documents, and what it does to those of train.

    Attributes:
        windows: whether they are read in windows; else they are truncated, wherever.
        max_length: tokens of a piece, special ones included.
        chosen: whether this is what the run does.
        rows: documents of train.
        tokens: those of all of them, whole.
        rows_cut: documents that lose tokens.
        tokens_cut: how many they lose.
        tokens_read: what the encoder is given in an epoch: pieces with their overlaps.
        pieces: how many those are.
        time: of an epoch, as a multiple of the chosen one's.
        memory: of the largest micro-batch, as such a multiple.
        classes: by label.
    """

    windows: bool
    max_length: int
    chosen: bool
    rows: int
    tokens: int
    rows_cut: int
    tokens_cut: int
    tokens_read: int
    pieces: int
    time: float
    memory: float
    classes: dict[str, OfClass]

    def __str__(self) -> str:
        return f"{'windows of' if self.windows else 'truncated to'} {self.max_length:,}"


def audit_truncation(
    split: Split,
    labels: Sequence[str],
    table: TokenTable,
    reading: DocumentFormat,
    limit: int | None,
    specials: int,
    config: PretrainedConfig,
    budget: int,
    batch_size: int,
) -> list[ReadingOption]:
    """The choices that a run has, the shorter pieces first; without longer ones where none is cut.

    Args:
        limit: tokens that the encoder has positions for; None: any number.
        specials: tokens that the tokenizer puts around a text.
        config: the encoder's.
        budget: tokens that a process computes at once.
        batch_size: documents of a step.
    """
    own = table.full - specials
    found = []
    for windows, length in _open(reading, limit, int(table.full.max())):
        chosen = windows == (reading.truncation == "windows") and length == reading.max_length
        room = length - specials
        stride = reading.stride if chosen else min(length // 4, room - 1)
        most = (reading.max_windows if chosen else None) if windows else 1
        many, kept = windows_of(own, room, stride, most)
        # All windows are full but the last.
        last = kept - (many - 1) * (room - stride) + specials
        tokens = (many - 1) * length + last  # of each document (rows,)
        squares = (many - 1) * length**2 + last**2
        at_once = min(max(budget, int(tokens.max())), batch_size * int(tokens.max()))
        found.append(
            ReadingOption(
                windows=windows,
                max_length=length,
                chosen=chosen,
                rows=len(table),
                tokens=int(table.full.sum()),
                rows_cut=int((kept < own).sum()),
                tokens_cut=int((own - kept).sum()),
                tokens_read=int(tokens.sum()),
                pieces=int(many.sum()),
                time=_products(int(tokens.sum()), int(squares.sum()), config),
                memory=at_once * _activations(int(min(length, table.full.max())), config),
                classes={name: _of_class(table.full, own - kept, rows)
                         for name, rows in _members(split, labels)},
            )
        )  # fmt: skip
    now = next(choice for choice in found if choice.chosen)
    return [
        ReadingOption(
            **vars(one) | {"time": one.time / now.time, "memory": one.memory / now.memory}
        )
        for one in found
    ]


def as_json(choices: Sequence[ReadingOption]) -> list[dict[str, Any]]:
    """As `results.json` holds them."""
    return [
        asdict(one) | {"says": str(one), "time": round(one.time, 3), "memory": round(one.memory, 3)}
        for one in choices
    ]


def most_truncated(choice: ReadingOption) -> tuple[tuple[str, float], tuple[str, float]] | None:
    """The labels that lose the largest and the smallest share of their tokens, and the shares."""
    shares = {name: one.tokens_cut / one.tokens for name, one in choice.classes.items()
              if one.tokens}  # fmt: skip
    if len(shares) < 2:
        return None
    least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    return (most, shares[most]), (least, shares[least])


def _open(reading: DocumentFormat, limit: int | None, longest: int) -> Iterator[tuple[bool, int]]:
    """Truncation and windows, of the run's length, and of one that the longest document needs."""
    length = reading.max_length
    lengths = [length]
    if longest > length:
        longer = length
        while longer < longest:
            longer *= 2
        longer = min(longer, limit or longer)
        lengths += [longer] * (longer > length)
    for one in lengths:
        yield False, one
        # Pairs are not read in windows, and nothing is to be split where one piece holds all.
        if reading.text_pair is None and (longest > one or reading.truncation == "windows"):
            yield True, one


def _products(tokens: int, squares: int, config: PretrainedConfig) -> float:
    """Operations of the matrix products of one layer: of the weights, and of attention."""
    hidden, inner, _ = _sizes(config)
    return tokens * (8.0 * hidden**2 + 4 * hidden * inner) + 4.0 * hidden * squares


def _activations(length: int, config: PretrainedConfig) -> float:
    """What a layer keeps for each token, in bytes (Korthikanti et al. 2022, arXiv 2205.05198)."""
    hidden, _, heads = _sizes(config)
    return 34.0 * hidden + 5.0 * heads * length


def _sizes(config: PretrainedConfig) -> tuple[int, int, int]:
    """Width, width inside, and heads of a layer; of an unusual encoder, those of a usual one."""
    hidden = int(getattr(config, "hidden_size", 768))
    inner = getattr(config, "intermediate_size", getattr(config, "hidden_dim", 4 * hidden))
    return hidden, int(inner), int(getattr(config, "num_attention_heads", max(1, hidden // 64)))


def _of_class(full: Rows, cut: Rows, rows: NDArray[np.bool_]) -> OfClass:
    lost = cut[rows]
    return OfClass(int((lost > 0).sum()), int(full[rows].sum()), int(lost.sum()))


def _members(split: Split, labels: Sequence[str]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Each label and which rows have it, be it one label a row or several."""
    assert split.labels is not None
    for i, name in enumerate(labels):
        yield name, split.labels == i if split.labels.ndim == 1 else split.labels[:, i] > 0
