"""Documents' lengths → what each way of reading long ones would cut, and what it would cost.

    encoder = AuditedEncoder(config, limit=512, special_tokens=2, micro_batch_tokens=4096, …)
    options = audit_truncation(corpus.train, corpus.labels, table, document_format, encoder)

Counted from lengths alone, before anything is trained. Costs are estimates, relative to those of
the run's own option: time by the encoder's matrix products, memory by the activations that the
largest micro-batch keeps for the backward pass.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PretrainedConfig

from finetune.data.corpus import Split
from finetune.data.number_scale import is_number
from finetune.tokenization.document_format import DocumentFormat
from finetune.tokenization.encoding import count_windows
from finetune.tokenization.token_table import Rows, TokenTable


@dataclass(frozen=True)
class ClassTruncation:
    """How much an option truncates a label's documents."""

    rows_cut: int
    tokens: int  # of all its documents, before anything is cut
    tokens_cut: int


@dataclass(frozen=True)
class ReadingOption:
    """One way of reading long documents, and what it does to those of train.

    Attributes:
        windows: whether they are read in windows; else they are truncated, on either side.
        max_length: tokens of a piece, special ones included.
        chosen: whether this is what the run does.
        rows: documents of train.
        tokens: of all of them, before anything is cut.
        rows_cut: documents that lose tokens.
        tokens_cut: how many they lose.
        tokens_read: what the encoder is given in an epoch: pieces with their overlaps.
        pieces: how many those are.
        time: of an epoch, as a multiple of the chosen one's.
        memory: of the largest micro-batch, as such a multiple.
        classes: by label.
    """  # a row of a table, all of whose columns go to results.json

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
    classes: dict[str, ClassTruncation]

    def __str__(self) -> str:
        return f"{'windows of' if self.windows else 'truncated to'} {self.max_length:,}"


@dataclass(frozen=True)
class AuditedEncoder:
    """What of an encoder and this machine decides the options and their costs.

    Attributes:
        config: the encoder's own.
        limit: tokens that it has positions for; None: any number.
        special_tokens: that the tokenizer puts around a text.
        micro_batch_tokens: that a process computes at once.
        batch_size: documents of a step.
    """

    config: PretrainedConfig
    limit: int | None
    special_tokens: int
    micro_batch_tokens: int
    batch_size: int


def audit_truncation(
    split: Split,
    labels: Sequence[str],
    table: TokenTable,
    document_format: DocumentFormat,
    encoder: AuditedEncoder,
) -> list[ReadingOption]:
    """The options that a run has, the shorter pieces first; without longer ones where none is cut.

    Args:
        table: the tokens of `split`, read as `document_format` says.
    """
    options = [
        _audit_option(split, labels, table, document_format, encoder, windows, length)
        for windows, length in _list_options(document_format, encoder.limit, int(table.full.max()))
        if not windows or _has_layers(encoder.config)  # else nothing asks for short pieces
    ]
    chosen = next(option for option in options if option.chosen)
    return [
        replace(option, time=option.time / chosen.time, memory=option.memory / chosen.memory)
        for option in options
    ]


def _audit_option(
    split: Split,
    labels: Sequence[str],
    table: TokenTable,
    document_format: DocumentFormat,
    encoder: AuditedEncoder,
    windows: bool,
    length: int,
) -> ReadingOption:
    """One option, with its costs in operations and bytes."""
    in_windows = document_format.truncation == "windows"
    chosen = windows == in_windows and length == document_format.max_length
    specials = encoder.special_tokens
    own, room = table.full - specials, length - specials
    stride = document_format.stride if chosen else min(length // 4, room - 1)
    max_windows = (document_format.max_windows if chosen else None) if windows else 1
    pieces, kept = count_windows(own, room, stride, max_windows)
    # All windows are full but the last.
    last = kept - (pieces - 1) * (room - stride) + specials
    tokens = (pieces - 1) * length + last  # of each document (rows,)
    squares = (pieces - 1) * length**2 + last**2
    longest = int(tokens.max())
    at_once = min(max(encoder.micro_batch_tokens, longest), encoder.batch_size * longest)
    return ReadingOption(
        windows=windows,
        max_length=length,
        chosen=chosen,
        rows=len(table),
        tokens=int(table.full.sum()),
        rows_cut=int((kept < own).sum()),
        tokens_cut=int((own - kept).sum()),
        tokens_read=int(tokens.sum()),
        pieces=int(pieces.sum()),
        time=_operations(int(tokens.sum()), int(squares.sum()), encoder.config),
        memory=at_once * _activation_bytes(int(min(length, table.full.max())), encoder.config),
        classes={
            name: _class_truncation(table.full, own - kept, rows)
            for name, rows in _rows_by_label(split, labels)
        },
    )


def as_json(options: Sequence[ReadingOption]) -> list[dict[str, Any]]:
    """As `results.json` holds them."""
    return [
        asdict(option)
        | {
            "says": str(option),
            "time": round(option.time, 3),
            "memory": round(option.memory, 3),
        }
        for option in options
    ]


def most_truncated(option: ReadingOption) -> tuple[tuple[str, float], tuple[str, float]] | None:
    """The labels that lose the largest and the smallest share of their tokens, and the shares."""
    shares = {
        name: label.tokens_cut / label.tokens
        for name, label in option.classes.items()
        if label.tokens
    }
    if len(shares) < 2:
        return None
    least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    return (most, shares[most]), (least, shares[least])


def _list_options(
    document_format: DocumentFormat, limit: int | None, longest: int
) -> Iterator[tuple[bool, int]]:
    """Truncation and windows, of the run's length, and of one that the longest document needs."""
    length = document_format.max_length
    lengths = [length]
    if longest > length:
        longer = length
        while longer < longest:
            longer *= 2
        longer = min(longer, limit or longer)
        lengths += [longer] * (longer > length)
    in_windows = document_format.truncation == "windows"
    for length in lengths:
        yield False, length
        # Pairs are not read in windows, and nothing is to be split where one piece holds all.
        if document_format.text_pair is None and (longest > length or in_windows):
            yield True, length


def _operations(tokens: int, squares: int, config: PretrainedConfig) -> float:
    """Operations of the matrix products of one layer: of the weights, and of attention.

    Of static embeddings, which have no layer, those of their mean.
    """
    hidden, inner, _ = _sizes(config)
    if not _has_layers(config):
        return float(tokens * hidden)
    return tokens * (8.0 * hidden**2 + 4 * hidden * inner) + 4.0 * hidden * squares


def _activation_bytes(length: int, config: PretrainedConfig) -> float:
    """What a layer keeps for each token, in bytes (Korthikanti et al. 2022, arXiv 2205.05198)."""
    hidden, _, heads = _sizes(config)
    if not _has_layers(config):
        return 4.0 * hidden
    return 34.0 * hidden + 5.0 * heads * length


def _has_layers(config: PretrainedConfig) -> bool:
    """Whether an encoder computes more than a table of static embeddings does."""
    return getattr(config, "num_hidden_layers", None) != 0


def _sizes(config: PretrainedConfig) -> tuple[int, int, int]:
    """Width, width inside, and heads of a layer; of an unusual encoder, those of a usual one."""
    hidden = int(getattr(config, "hidden_size", 768))
    inner = getattr(config, "intermediate_size", getattr(config, "hidden_dim", 4 * hidden))
    return hidden, int(inner), int(getattr(config, "num_attention_heads", max(1, hidden // 64)))


def _class_truncation(full: Rows, cut: Rows, rows: NDArray[np.bool_]) -> ClassTruncation:
    lost = cut[rows]
    return ClassTruncation(int((lost > 0).sum()), int(full[rows].sum()), int(lost.sum()))


def _rows_by_label(split: Split, labels: Sequence[str]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Each label and which rows have it of their own, single-label or multi-label; none of
    numbers."""
    assert split.labels is not None
    if is_number(split.labels):
        return
    own = np.ones(len(split), dtype=bool) if split.is_labelled is None else split.is_labelled
    for i, name in enumerate(labels):
        has = split.labels == i if split.labels.ndim == 1 else split.labels[:, i] > 0
        yield name, own & has
