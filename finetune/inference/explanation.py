"""Predictions → the same with the words that spoke for each.

    add_explanations(classifier, rows, table, logits, predictions, 5)
    prediction["explanation"]     # [{"word": "goal", "start": 17, "end": 21, "score": 1.84}, …]

Of a multi-label model, such a list for each of its labels; of a pair, each word names the column
that it is in. `evaluation/explanations.py` says what the scores are.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from finetune.evaluation.explanations import (
    Word,
    explain_rows,
    has_content,
    most_telling,
    weigh_answers,
)
from finetune.inference.decision import DecisionRules
from finetune.inference.engine import Engine, Logits
from finetune.inference.records import Record
from finetune.runtime.errors import InputError
from finetune.runtime.memory_errors import explain_memory_errors
from finetune.tokenization.document_format import DocumentFormat
from finetune.tokenization.token_origins import require_offsets
from finetune.tokenization.token_table import TokenTable

KEY = "explanation"
DIGITS = 4  # of a score that is written
LOWER = "explain fewer documents at once, or end other programs"

Prediction = dict[str, Any]


class Explainable(Protocol):
    """What a classifier has that its explanations need (`classifier.Classifier`)."""

    engine: Engine
    engine_name: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    reading: DocumentFormat
    rules: DecisionRules
    tokenizer: PreTrainedTokenizerBase


def check_explainable(classifier: Explainable, option: str) -> None:
    """
    Args:
        option: by which an explanation was asked for.

    Raises:
        InputError: where the engine has no gradients, or the tokenizer tells no words.
    """
    classifier.rules.refuse_number(option, "explains none yet")
    if classifier.engine_name != "torch":
        raise InputError(
            f"{option}: which words spoke for an answer is told by gradients, which the engine "
            f"{classifier.engine_name} does not compute; explain with the folder of the run and "
            "the engine torch"
        )
    require_offsets(classifier.tokenizer)


def add_explanations(
    classifier: Explainable,
    rows: Sequence[Record],
    table: TokenTable,
    logits: Logits | None,
    predictions: Iterable[Prediction],
    count: int,
) -> Iterator[Prediction]:
    """Each prediction with its `explanation`: the most telling words of each label, the most
    telling first; None where there is no label.

    Args:
        table, logits: of the rows without an error, as of `Classifier.decide`.
        count: words of each label, at most.
    """
    found = [*predictions]
    valid = [(row, one) for row, one in zip(rows, found, strict=True) if row.error is None]
    rules = classifier.rules
    labels = [[] if "error" in one else rules.labels_of(one) for _, one in valid]
    explained: list[dict[str, Any]] = [{} for _ in valid]
    for turn in range(max(map(len, labels), default=0)):
        assert logits is not None
        answers = [own[turn] if turn < len(own) else None for own in labels]
        words = explain_answers(classifier, [row for row, _ in valid], table, logits, answers)
        for own, label, (row, _), these in zip(explained, answers, valid, words, strict=True):
            if label is not None:
                own[label] = [
                    _as_json(word, row.texts, classifier.columns)
                    for word in most_telling(_without_punctuation(these, row.texts), count)
                ]
    several = classifier.rules.multi_label
    by_row = iter(explained)
    for row, one in zip(rows, found, strict=True):
        own = next(by_row) if row.error is None else {}
        if several:
            yield one | {KEY: None if "error" in one else own}
        else:
            yield one | {KEY: next(iter(own.values()), None)}


def _without_punctuation(words: Sequence[Word], texts: Sequence[str]) -> list[Word]:
    """The words that tell a person something."""
    return [one for one in words if has_content(texts[one.text][one.start : one.end])]


def explain_answers(
    classifier: Explainable,
    rows: Sequence[Record],
    table: TokenTable,
    logits: Logits,
    answers: Sequence[str | None],
) -> list[list[Word]]:
    """All words of each row with their scores, for an answer of each; none without one."""
    engine, number = classifier.engine, {label: i for i, label in enumerate(classifier.labels)}
    assert engine.attribute is not None, "check_explainable"
    classes = [None if answer is None else number[answer] for answer in answers]
    logits = logits[:, : len(classifier.labels)]
    is_finite = np.isfinite(logits)
    weights = weigh_answers(np.where(is_finite, logits, 0), classes, classifier.rules.multi_label)
    with explain_memory_errors("explaining", LOWER):
        return explain_rows(
            engine.attribute,
            classifier.reading,
            classifier.tokenizer,
            [row.texts for row in rows],
            table,
            weights,
            engine.logits,
        )


def _as_json(word: Word, texts: Sequence[str], columns: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"word": texts[word.text][word.start : word.end]}
    if len(texts) > 1:
        found["column"] = columns[word.text - len(texts)]
    return found | {"start": word.start, "end": word.end, "score": round(word.score, DIGITS)}
