"""Documents, their logits and an answer for each → the words that spoke for it.

    weights = weigh_answers(logits, answers, multi_label)        # of which sum of logits it is told
    words = explain_rows(attribute, reading, tokenizer, documents, table, weights, …)
    # [[Word(text=0, start=0, end=6, score=1.84), …], …]: of each document, in the text's order

What is explained is the answer's log-odds: of a multi-label model its own logit, of others its
logit less those of the other labels, each as probable as it is among them. The score of a word is
by how much it raises them, against the same document without a word; one below 0 spoke against it.
"""

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from finetune.evaluation.probabilities import softmax
from finetune.tokenization.document_format import DocumentFormat
from finetune.tokenization.text_words import find_words, group_tokens
from finetune.tokenization.token_origins import TokenOrigins, locate_tokens
from finetune.tokenization.token_table import TokenTable

Floats = NDArray[np.float64]
# A table with a row for each piece, which tokens are of a text, the weights of each piece's logits
# → the score of each token.
Attribute = Callable[[TokenTable, NDArray[np.bool_], Floats], Floats]


@dataclass(frozen=True)
class Word:
    """A word of a document, and what it said for an answer.

    Attributes:
        text: 0: it is in the document's text, 1: in the second of a pair.
        start, end: its characters there.
        score: by how much it raises the answer's log-odds.
    """

    text: int
    start: int
    end: int
    score: float


def weigh_answers(logits: NDArray[Any], answers: Sequence[int | None], multi_label: bool) -> Floats:
    """Of which sum of its logits a document's answer is explained. (rows, classes)

    Args:
        logits: (rows, classes)
        answers: the class of each row; None: there is none, and the weights are 0.
    """
    weights = np.zeros(logits.shape)
    others = softmax(logits)
    for row, answer in enumerate(answers):
        if answer is None:
            continue
        if not multi_label:
            rest = others[row].copy()
            rest[answer] = 0
            if not rest.any():  # the answer is as good as certain
                rest[:] = 1
                rest[answer] = 0
            weights[row] = -rest / rest.sum()
        weights[row, answer] = 1
    return weights


def explain_rows(
    attribute: Attribute,
    reading: DocumentFormat,
    tokenizer: PreTrainedTokenizerBase,
    documents: Sequence[tuple[str, ...]],
    table: TokenTable,
    weights: Floats,
    piece_logits: Callable[[TokenTable], NDArray[Any]],
) -> list[list[Word]]:
    """The words of each document with their scores; of one without an answer none.

    Args:
        documents: the text of each, or the two of a pair.
        table: their tokens.
        weights: of their logits (`weigh_answers`). (rows, classes)
        piece_logits: computes those of a table with a row for each piece; called where of a
            document's windows the highest logit counts.

    Raises:
        InputError: for a tokenizer that does not tell where its tokens are.
    """
    answered: Any = weights.any(axis=1)
    origins = [
        locate_tokens(reading, texts[0], texts[1] if len(texts) > 1 else None, tokenizer)
        if is_answered
        else None
        for texts, is_answered in zip(documents, answered, strict=True)
    ]
    bounds = table.starts if table.first is None else table.starts[table.first]
    is_text = np.zeros(len(table.ids), dtype=np.bool_)
    for row, found in enumerate(origins):
        if found is not None:
            is_text[bounds[row] : bounds[row + 1]] = found.text >= 0
    pieces = table if table.first is None else table.by_piece()
    scores = attribute(pieces, is_text, _spread_weights(table, weights, piece_logits))
    return [
        [] if found is None else [*_sum_words(texts, found, scores[bounds[row] : bounds[row + 1]])]
        for row, (texts, found) in enumerate(zip(documents, origins, strict=True))
    ]


def _spread_weights(
    table: TokenTable, weights: Floats, piece_logits: Callable[[TokenTable], NDArray[Any]]
) -> Floats:
    """The weights of documents' logits → of their pieces'. (pieces, classes)"""
    if table.first is None:
        return weights
    windows = np.diff(table.first)
    spread: Floats = np.repeat(weights, windows, axis=0)
    logits: NDArray[Any] = np.zeros_like(spread)
    if len(windows) < len(spread) and table.window_pooling != "mean":
        logits = piece_logits(table.by_piece())
    shares: Floats = table.window_shares(logits)
    return spread * shares


def _sum_words(texts: Sequence[str], origins: TokenOrigins, scores: Floats) -> Iterator[Word]:
    """The words of a document, each with the scores of its tokens, in all windows."""
    for number, text in enumerate(texts):
        own = np.flatnonzero(origins.text == number)
        word_of, spans = group_tokens(find_words(text), origins.begins[own], origins.ends[own])
        inside = word_of >= 0
        sums = np.bincount(word_of[inside], scores[own][inside], len(spans))
        read = np.bincount(word_of[inside], minlength=len(spans)) > 0
        for word in np.flatnonzero(read).tolist():
            yield Word(number, spans[word].start, spans[word].stop, float(sums[word]))


def has_content(word: str) -> bool:
    """Whether a word has a letter, a digit or a symbol such as an emoji: it is no punctuation."""
    return any(one.isalnum() or unicodedata.category(one) == "So" for one in word)


def most_telling(words: Sequence[Word], count: int) -> list[Word]:
    """The words that spoke most for the answer, the most telling first; none that spoke against."""
    ranked = sorted((one for one in words if one.score > 0), key=lambda one: -one.score)
    return ranked[:count]
