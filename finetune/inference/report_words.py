"""A trained run → the words that spoke for its mistakes and for each label, in its results.

    results = add_words(session, results, outcome, outputs)

One process explains the documents, with the saved model, so that the words are the same of one
process and of many.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.compute.attribution import baseline_token
from finetune.data.corpus import Split
from finetune.evaluation.analysis_model import LabelWords, MarkedWord, Mistake, StrongWord
from finetune.evaluation.explanations import (
    Word,
    explain_rows,
    has_content,
    most_telling,
    weigh_answers,
)
from finetune.evaluation.outcome import Outcome
from finetune.evaluation.probabilities import predict_labels
from finetune.inference.engine import Engine
from finetune.inference.engines import EngineOptions
from finetune.inference.torch_engine import torch_engine
from finetune.modeling import saved_model
from finetune.reporting.results_model import Results
from finetune.reporting.run_outputs import RunOutputs
from finetune.runtime.console import print_line
from finetune.tokenization.token_origins import require_offsets
from finetune.tokenization.token_table import TokenTable
from finetune.training.session import Session

MARKED = 12  # words of a mistake
STRONGEST = 10  # words of a label
AT_ONCE = 64  # documents
DIGITS = 4
TINY = 1e-9  # a standard error of words that say the same in all documents
BETWEEN = len("\n\n")  # the two texts of a pair, as a person reads them

Explained = dict[int, list[Word]]  # row → its words


def add_words(session: Session, results: Results, outcome: Outcome, outputs: RunOutputs) -> Results:
    """The results with words, where the recipe asks for them. On all processes."""
    if not session.recipe.score.explained_rows:
        return results
    found: list[dict[str, Any]] = []
    with session.env.meter("explain"):
        outputs.attempt("explaining", lambda: found.append(_find_words(session, results, outcome)))
        shared: list[dict[str, Any]] = session.env.on_main(lambda: found)
    return results.model_copy(update=shared[0]) if shared else results


def _find_words(session: Session, results: Results, outcome: Outcome) -> dict[str, Any]:
    """The sections of the results that hold words."""
    corpus = session.data.corpus
    split = corpus.test if results.analysed == "test" else corpus.validation
    scores = outcome.test if results.analysed == "test" else outcome.validation
    assert scores is not None
    print_line("Explaining predictions: which words spoke for them")
    explainer = _Explainer(session, split, scores.logits)
    names = corpus.labels
    predicted = predict_labels(scores.logits, corpus.multi_label, scores.thresholds)
    at = {split.places.place(row): row for row in range(len(split))}
    of_mistakes = [at[one.row] for one in results.mistakes]
    decisions = [_decision(one, names) for one in results.mistakes]
    words = explainer.explain(of_mistakes, decisions)
    mistakes = [
        one.model_copy(update={"words": _mark(words[row], split, row, len(one.text))})
        for one, row in zip(results.mistakes, of_mistakes, strict=True)
    ]
    chosen = choose_rows(predicted, session.recipe.score.explained_rows)
    rows = [row for row, _ in chosen]
    explained = explainer.explain(rows, [(label, 1) for _, label in chosen])
    texts = {row: _texts(split, row) for row in rows}
    by_label: dict[int, Explained] = defaultdict(dict)
    for row, label in chosen:
        by_label[label][row] = explained[row]
    words_of = find_strongest(by_label, texts)
    strongest = [
        LabelWords(label=names[label], rows=len(by_label[label]), words=words_of[label])
        for label in sorted(words_of)
    ]
    return {"mistakes": mistakes, "strongest_words": strongest}


class _Explainer:
    """Explains rows of a split by the saved model."""

    def __init__(self, session: Session, split: Split, logits: NDArray[np.float32]) -> None:
        data = session.data
        model, tokenizer = saved_model.load_classifier(
            session.folder / "model", trust_remote_code=session.recipe.model.trust_remote_code
        )
        require_offsets(tokenizer)
        options = EngineOptions(
            threads=data.plan.threads, in_turn=True, device=session.env.accelerator.device
        )
        self._engine: Engine = torch_engine(model, options, baseline_token(tokenizer))
        self._tokenizer, self._reads = tokenizer, data.tokens.reads
        self._table: TokenTable = data.tokens.tables[split.name]
        self._split, self._logits, self._multi_label = split, logits, data.corpus.multi_label

    def explain(self, rows: Sequence[int], decisions: Sequence[tuple[int, int]]) -> Explained:
        """The words of each row.

        Args:
            decisions: the class that each is explained of, and 1: which words spoke for it, or
                -1: against it.
        """
        found: Explained = {}
        assert self._engine.attribute is not None
        for start in range(0, len(rows), AT_ONCE):
            some = np.array(rows[start : start + AT_ONCE], dtype=np.int64)
            part = decisions[start : start + AT_ONCE]
            weights = weigh_answers(
                self._logits[some], [label for label, _ in part], self._multi_label
            )
            weights *= np.array([sign for _, sign in part])[:, None]
            words = explain_rows(
                self._engine.attribute,
                self._reads,
                self._tokenizer,
                [_texts(self._split, int(row)) for row in some],
                self._table.take(some),
                weights,
                self._engine.logits,
            )
            found |= dict(zip(some.tolist(), words, strict=True))
        return found


def _texts(split: Split, row: int) -> tuple[str, ...]:
    first = (split.texts[row],)
    return first if split.seconds is None else (*first, split.seconds[row])


def _decision(mistake: Mistake, names: Sequence[str]) -> tuple[int, int]:
    """What a mistake is explained of: its prediction, or the label that was wrongly left out."""
    if mistake.decision is None:
        return names.index(mistake.predicted), 1
    label, _, kind = mistake.decision.rpartition(": ")
    return names.index(label), 1 if kind == "given" else -1


def _mark(words: Sequence[Word], split: Split, row: int, length: int) -> list[MarkedWord]:
    """The most telling words of a row, where they are in the text that the report shows."""
    second = len(split.texts[row]) + BETWEEN
    return [
        MarkedWord(
            start=one.start + second * one.text,
            end=one.end + second * one.text,
            score=round(one.score, DIGITS),
        )
        for one in most_telling(words, MARKED)
        if one.end + second * one.text <= length
    ]


def choose_rows(predicted: NDArray[np.int64], most: int) -> list[tuple[int, int]]:
    """Rows with a label that each is given, from all labels in turn.

    Args:
        predicted: (rows,), or multi-label 0 and 1 (rows, classes).
    """
    of_label: dict[int, list[int]] = defaultdict(list)
    if predicted.ndim == 2:
        for row, label in np.argwhere(predicted > 0).tolist():
            of_label[label].append(row)
    else:
        for row, label in enumerate(predicted.tolist()):
            of_label[label].append(row)
    chosen: list[tuple[int, int]] = []
    taken: set[int] = set()
    queues = [(label, iter(of_label[label])) for label in sorted(of_label)]
    while queues and len(chosen) < most:
        left = []
        for label, rows in queues:
            found = next((one for one in rows if one not in taken), None)
            if found is None:
                continue
            left.append((label, rows))
            if len(chosen) < most:
                taken.add(found)
                chosen.append((found, label))
        queues = left
    return chosen


def find_strongest(
    explained: dict[int, Explained], texts: dict[int, tuple[str, ...]]
) -> dict[int, list[StrongWord]]:
    """The words that spoke most for each label: more than the same words spoke elsewhere.

    A word such as `the` is in the documents of all labels, and speaks a little for each. So what a
    word says for a label, in the documents that are given it, is compared with what it says for the
    others in theirs: words are ranked by how clear the difference of the two means is (Welch's t),
    times the logarithm by which rare words count more (inverse document frequency, Spärck Jones
    1972). A word that a document does not have says nothing there.

    Args:
        explained: of each label the words of the rows that are given it.
    """
    counts = {label: len(rows) for label, rows in explained.items()}
    scores = {label: _sum_by_word(rows, texts) for label, rows in explained.items()}
    sums: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(3))  # of all labels
    for own in scores.values():
        for word, values in own.items():
            sums[word] += (sum(values), np.square(values).sum(), len(values))
    documents = sum(counts.values())
    found = {}
    for label, own in scores.items():
        clear = {}
        for word, values in own.items():
            of_label = np.array((sum(values), np.square(values).sum(), len(values)))
            one = _mean_and_error(of_label, counts[label])
            other = _mean_and_error(sums[word] - of_label, documents - counts[label])
            difference = one[0] - other[0]
            if difference > 0 and one[0] > 0:
                rarity = np.log((documents + 1) / sums[word][2])
                error = max(float(np.hypot(one[1], other[1])), TINY)
                clear[word] = float(rarity * difference / error)
        ranked = sorted(clear, key=lambda word: (-round(clear[word], 6), -sum(own[word]), word))
        found[label] = [
            StrongWord(
                word=word, rows=len(own[word]), score=round(float(np.mean(own[word])), DIGITS)
            )
            for word in ranked[:STRONGEST]
        ]
    return found


def _sum_by_word(rows: Explained, texts: dict[int, tuple[str, ...]]) -> dict[str, list[float]]:
    """Each word in lower case → what it says in each document that has it."""
    scores: dict[str, list[float]] = defaultdict(list)
    for row, words in rows.items():
        of_row: dict[str, float] = defaultdict(float)
        for one in words:
            word = texts[row][one.text][one.start : one.end].lower()
            if has_content(word):
                of_row[word] += one.score
        for word, score in of_row.items():
            scores[word].append(score)
    return scores


def _mean_and_error(sums: NDArray[np.float64], rows: int) -> tuple[float, float]:
    """The mean over some documents, and its standard error.

    Args:
        sums: of the values, of their squares, and of the documents that have one.
    """
    if not rows:
        return 0.0, 0.0
    mean = float(sums[0]) / rows
    spread = max(float(sums[1]) / rows - mean**2, 0.0)
    return mean, float(np.sqrt(spread / max(rows - 1, 1)))
