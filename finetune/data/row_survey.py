"""A source's rows as training reads them, for a first look: labels, lengths, what would stop it.

seen = survey_rows(schema.Data(source="tickets.csv", text="body", label="queue"))
seen.counts                      # {"billing": 510, "returns": 122}
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.config import schema
from finetune.data import prepare, sources
from finetune.data.rows import Rows
from finetune.runtime.errors import InputError

TOKENS_PER_WORD, CHARACTERS_PER_TOKEN = 1.3, 4  # about, of English text
SAMPLED = 1_000  # documents whose lengths are looked at
# Which rows are right does not depend on these, and the search for near-duplicates among all of
# many rows takes long.
SOME = {"max_train_rows": 2_000, "max_validation_rows": 500, "max_test_rows": 500}
# Findings that concern single rows.
OF_ROWS = (
    "undecodable",
    "half pair",
    "empty",
    "null label",
    "repeat",
    "conflicting labels",
    "unseen label",
)


@dataclass(frozen=True)
class RowSurvey:
    """The documents as training reads them.

    Attributes:
        rows: of train, as the source has it.
        counts: label → rows, the commonest first.
        multi_label: whether a row may have several labels.
        tokens: of some documents, about. (documents,)
        foreign: share of characters in other scripts than Latin.
        findings: what is wrong with rows, and what training does about it.
        settled: keys of `data` without which training would stop, each with its value and the
            problem that it settles.
    """

    rows: int
    counts: Mapping[str, int]
    multi_label: bool
    tokens: NDArray[np.float64]
    foreign: float
    findings: tuple[str, ...]
    settled: Mapping[str, tuple[str, str]]

    @property
    def rows_of_a_label(self) -> float:
        """Half of the labels have no more rows."""
        return float(np.median([*self.counts.values()]))

    @property
    def has_names(self) -> bool:
        """Whether the labels are words, which an encoder can read."""
        return all(any(mark.isalpha() for mark in label) for label in self.counts)


def survey_rows(data: schema.Data) -> RowSurvey:
    """Read the data by its keys, and find the keys without which training would stop.

    Raises:
        InputError: where no key helps.
    """
    splits = sources.load_rows(data, schema.Cache().folder())
    settled: dict[str, tuple[str, str]] = {}
    try:
        corpus = prepare.prepare_corpus(splits, data.model_copy(update=SOME))
    except InputError as stopped:
        mild = data.never_stopping()
        if mild == data:
            raise
        corpus = prepare.prepare_corpus(splits, mild.model_copy(update=SOME))
        for key in type(data).model_fields:
            if getattr(mild, key) != getattr(data, key):
                why = " ".join(one for one in stopped.problems if f"data.{key} " in one)
                settled[key] = (getattr(mild, key), why)
    train = splits[sources.assign_roles(splits, data).train]
    some = np.unique(np.linspace(0, len(train.texts) - 1, SAMPLED).astype(np.int64))
    texts = [text or "" for text in train.texts.take(some)]
    seconds = [""] * len(texts) if train.seconds is None else train.seconds.take(some)
    both = [f"{text} {second or ''}" for text, second in zip(texts, seconds, strict=True)]
    return RowSurvey(
        rows=len(train.texts),
        counts=dict(_count_labels(train).most_common()),
        multi_label=corpus.multi_label,
        tokens=np.array([estimate_tokens(text) for text in both]),
        foreign=sum(map(count_foreign, both)) / max(1, sum(map(len, both))),
        findings=tuple(
            str(one)
            for one in corpus.findings
            if one.kind in OF_ROWS and (one.split == "train" or one.rule.startswith("dropped"))
        ),
        settled=settled,
    )


def _count_labels(rows: Rows) -> Counter[str]:
    labels: Counter[str] = Counter()
    for of_row in rows.labels or ():
        for label in of_row if isinstance(of_row, tuple) else (of_row,):
            name = "" if label is None else _name(label, rows.label_names)
            labels.update([name] * bool(name))
    return labels


def _name(label: Any, own: Sequence[str] | None) -> str:
    if isinstance(label, bool):
        return str(label).lower()
    if isinstance(label, int) and own is not None and 0 <= label < len(own):
        return own[label]
    return str(label).strip()


def estimate_tokens(text: str) -> float:
    """About how many tokens an encoder reads in a text: of its words, or its characters."""
    return max(TOKENS_PER_WORD * len(text.split()), len(text) / CHARACTERS_PER_TOKEN) + 2


def count_foreign(text: str) -> int:
    """Letters of other scripts than Latin, whose letters and marks lie below U+0370."""
    return 0 if text.isascii() else sum(mark >= "\u0370" and mark.isalpha() for mark in text)
