"""What a run trains, tunes and is tested on: three splits, the label space, the findings.

Also what can be said of them at a glance: counts, hashes.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from finetune.data.identifiers import Ids
from finetune.data.label_tasks import Tasks
from finetune.data.number_scale import NumberScale, is_number
from finetune.data.places import Places
from finetune.data.text_store import Pairs, Texts

SHOWN, SHOWN_PAIRS = 5, 2  # places named of each finding

# kind → the phrase for one row, and for several
PHRASES = {
    "undecodable": ("row is not UTF-8", "rows are not UTF-8"),
    "undecodable label": (
        "row has a label that is not UTF-8",
        "rows have a label that is not UTF-8",
    ),
    "half pair": (
        "row holds half of a surrogate pair, such as \\ud83d alone, which is no character",
        "rows hold half of a surrogate pair, such as \\ud83d alone, which is no character",
    ),
    "half pair label": (
        "row has a label with half of a surrogate pair, such as \\ud83d alone",
        "rows have a label with half of a surrogate pair, such as \\ud83d alone",
    ),
    "quotes as text": (
        "row holds a quote that is read as text",
        "rows hold quotes that are read as text",
    ),
    "quoted cells": ("row has cells in quotes", "rows have cells in quotes"),
    "lines as one row": (
        "row is of several lines, each of which would be a row by itself",
        "rows are of several lines, each of which would be a row by itself",
    ),
    "delimiter": (
        "file has other delimiters than its name says",
        "files have other delimiters than their names say",
    ),
    "empty": ("row has no text", "rows have no text"),
    "null label": ("row has no label", "rows have no label"),
    "no label of a task": ("row has no label in", "rows have no label in"),
    "unlabelled": ("row without any label", "rows without any label"),
    "trimmed label": (
        "row has white space around its label",
        "rows have white space around their label",
    ),
    "one-hot": (
        "row has a list of 0 and 1 as its label",
        "rows have a list of 0 and 1 as their label",
    ),
    "soft label": (
        "row has shares of several labels",
        "rows have shares of several labels",
    ),
    "votes": ("row has votes for labels", "rows have votes for labels"),
    "scaled shares": (
        "row has label probabilities that do not sum to 1",
        "rows have label probabilities that do not sum to 1",
    ),
    "tied labels": (
        "row has several labels with the same largest share",
        "rows have several labels with the same largest share",
    ),
    "taught": ("row has no label of its own", "rows have no label of their own"),
    "unlabelled repeat": (
        "row repeats a row of train or an earlier one",
        "rows repeat a row of train or an earlier one",
    ),
    "distilled": ("row has probabilities of a teacher", "rows have probabilities of a teacher"),
    "weighted": ("row has a weight other than 1", "rows have a weight other than 1"),
    "weight of 0": ("row has a weight of 0", "rows have a weight of 0"),
    "list as text": (
        "row has a label that looks like a list",
        "rows have a label that looks like a list",
    ),
    "joined labels": ("label looks like several", "labels look like several"),
    "missing labels": (
        "label is a word for a missing value",
        "labels are words for a missing value",
    ),
    "single labels": ("row lists one label", "rows list one label each"),
    "similar labels": ("group of labels look alike", "groups of labels look alike"),
    "merged labels": ("label has variants", "labels have variants"),
    "repeat": (
        "row duplicates an earlier text and label",
        "rows duplicate an earlier text and label",
    ),
    "conflicting labels": (
        "row has the same text as a row with another label",
        "rows have the same text as a row with another label",
    ),
    "unseen label": (
        "row has a label that train does not have",
        "rows have a label that train does not have",
    ),
    "unknown label": (
        "row has a label that the model does not know",
        "rows have a label that the model does not know",
    ),
    "absent label": ("label of the model has no row", "labels of the model have no row"),
    "label numbers": (
        "label is read as the place of a label of the model",
        "labels are read as places of the model's labels",
    ),
    "leak": ("text also appears in", "texts also appear in"),
    "one character": ("row is a single character", "rows are a single character"),
    "broken character": ("row holds U+FFFD", "rows hold U+FFFD"),
    "mojibake": (
        "row looks wrongly decoded, as ‘Ã©’ for ‘é’",
        "rows look wrongly decoded, as ‘Ã©’ for ‘é’",
    ),
    "control": ("row holds control characters", "rows hold control characters"),
    "near repeat": (
        "row is a near-duplicate of an earlier one",
        "rows are near-duplicates of an earlier one",
    ),
    "near conflict": (
        "row is a near-duplicate of an earlier one with another label",
        "rows are near-duplicates of an earlier one with another label",
    ),
    "near leak": ("text has a near-duplicate in", "texts have near-duplicates in"),
    "few rows": ("class has few rows", "classes have few rows"),
    "not sought": (
        "document not searched for near-duplicates",
        "documents not searched for near-duplicates",
    ),
    "crowded": (
        "document shares its rarest words with many others",
        "documents share their rarest words with many others",
    ),
    "rare class": ("class has no row in this split", "classes have no row in this split"),
    "unused label": ("label has no row in train", "labels have no row in train"),
    "unused split": ("split of the source is not used", "splits of the source are not used"),
    "not read": (
        "file or folder of the source is not read",
        "files or folders of the source are not read",
    ),
    "unread split": (
        "split of the source is not used, and cannot be read",
        "splits of the source are not used, and cannot be read",
    ),
    "no id": ("row has no identifier", "rows have no identifier"),
    "repeated id": (
        "row has the identifier of an earlier one",
        "rows have the identifier of an earlier one",
    ),
    "shared id": (
        "row has an identifier that is also in",
        "rows have an identifier that is also in",
    ),
    "shared group": ("row is of a group that is also in", "rows are of groups that are also in"),
    "limited": ("row left out", "rows left out"),
}


@dataclass(frozen=True)
class Split:
    """The rows of one role, in the order of the source."""

    name: str  # train, validation or test
    texts: Sequence[str]
    # (rows,) int64 class ids; (rows, classes) int8, 1 for each label that a row has, where it may
    # have several; float64 where they are numbers; None where unlabelled (test only)
    labels: np.ndarray | None
    places: Places
    origin: str  # "test.jsonl.gz", "split off from train.jsonl.gz: 10 %, stratified, seed 0"
    seconds: Sequence[str] | None = None  # (rows,) the second text of each pair
    ids: Ids | None = None  # (rows,) of data.id
    # column → (rows,) what it holds of each, of score.slices
    attributes: Mapping[str, Ids] = dataclasses.field(default_factory=dict)
    # of train alone: (rows, classes) float32, the share or probability of each label, where they
    # are soft; and (rows,) float64, what each row counts in the loss, where it is not 1
    shares: np.ndarray | None = None
    weights: np.ndarray | None = None
    # (rows,) False where the label is a teacher's, and not the row's own; None: all are their own
    is_labelled: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> "Split":
        """Some of the rows, in the order given."""
        return dataclasses.replace(
            self,
            texts=Texts.of(self.texts).take(rows),
            seconds=None if self.seconds is None else Texts.of(self.seconds).take(rows),
            labels=None if self.labels is None else self.labels[rows],
            ids=None if self.ids is None else self.ids.take(rows),
            attributes={name: values.take(rows) for name, values in self.attributes.items()},
            places=self.places.take(rows),
            shares=None if self.shares is None else self.shares[rows],
            weights=None if self.weights is None else self.weights[rows],
            is_labelled=None if self.is_labelled is None else self.is_labelled[rows],
        )

    def without_rows(self) -> "Split":
        """A split of no row and no label."""
        places = self.places.take([])
        return dataclasses.replace(
            self.scored_only(),
            texts=[],
            seconds=None,
            ids=None,
            attributes={},
            labels=None,
            places=places,
        )

    def scored_only(self) -> "Split":
        """The same without what only training takes: soft labels and weights."""
        return dataclasses.replace(self, shares=None, weights=None)

    def labelled_only(self) -> "Split":
        """The rows that have a label of their own."""
        if self.is_labelled is None:
            return self
        labelled = self.take(np.flatnonzero(self.is_labelled))
        return dataclasses.replace(labelled, is_labelled=None)

    def whole(self) -> Sequence[str]:
        """Each document as a person reads it: of a pair, both texts."""
        if self.seconds is None:
            return self.texts
        return Pairs(self.texts, self.seconds)


@dataclass(frozen=True)
class Finding:
    """Rows that are not as one would wish, and what was done with them."""

    kind: str  # a key of PHRASES
    split: str  # train, validation, test, or source
    count: int
    places: Sequence[str]  # of the rows; names with counts where labels are meant
    rule: str  # "dropped (data.on_duplicate: drop)"
    other: str = ""  # leak: the split where the texts also appear
    of_numbers: bool = False  # whether labels are numbers, and called so

    def __str__(self) -> str:
        return f"{self.describe()}: {self.rule}"

    def as_json(self) -> dict[str, Any]:
        """What preflight.json holds of it, with all its places."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "of_numbers"]
        fields = {name: getattr(self, name) for name in names}
        return fields | {"message": str(self)}

    def describe(self) -> str:
        """The line without what was done: `train: 1 row has no text (train.csv: row 3)`."""
        phrase = PHRASES[self.kind][self.count != 1] + (f" {self.other}" if self.other else "")
        if self.of_numbers:
            phrase = phrase.replace("label", "number")
        shown = self.places[: SHOWN_PAIRS if self.kind.startswith("near ") else SHOWN]
        more = self.count - len(shown)
        places = ", ".join(shown) + (f" and {more:,} more" if more > 0 else "")
        return f"{self.split}: {self.count:,} {phrase}" + (f" ({places})" if self.places else "")


@dataclass(frozen=True)
class Corpus:
    """What a run trains, tunes and is tested on."""

    labels: tuple[str, ...]  # class id → name
    train: Split
    validation: Split  # without a row where nothing is tuned
    test: Split
    findings: tuple[Finding, ...]
    multi_label: bool = False  # whether a row may have several labels, or none
    # (rows,) which part each row of train was scored in, where test is train itself, as run.folds
    # has it: each row by a model that had not seen that part
    folds: np.ndarray | None = None
    # of each part, `split_hash` of its rows, those included that train has lost to validation
    fold_hashes: tuple[str, ...] = ()
    hierarchy: str | None = None  # what separates the levels in label names, where they have some
    number: NumberScale | None = None  # of train, where labels are numbers: `labels` is the column
    tasks: Tasks | None = (
        None  # whose labels `labels` are, where there are several; then multi_label
    )

    def splits(self) -> tuple[Split, ...]:
        """Those that have rows: train, validation if there is one, and test unless taken out."""
        return tuple(split for split in (self.train, self.validation, self.test) if len(split))

    def priors(self) -> list[float] | None:
        """The share of train's rows that has each label, where a row may have several; else None.

        Above 0 and below 1, as half a row more of one more is counted.
        """
        if not self.multi_label:
            return None
        rows = len(self.train.labelled_only()) + 1
        return [(many + 0.5) / rows for many in class_counts(self.train, self.labels).values()]

    def without_test(self) -> "Corpus":
        """The same with no row of test, for tuning: what is not there cannot be looked at."""
        return replace(self, test=self.test.without_rows())


def label_names_of(answer: int | np.ndarray, labels: Sequence[str]) -> list[str]:
    """The labels of a row, or of an answer, by name: a class id, or 0 and 1 for each class.

    A number stays one.
    """
    if isinstance(answer, float):
        return [f"{answer:g}"]
    ids = np.flatnonzero(answer) if np.ndim(answer) else [answer]
    return [labels[int(i)] for i in ids]


def format_labels(answer: int | np.ndarray, labels: Sequence[str]) -> str:
    """The labels of a row, or of an answer, in words."""
    return ", ".join(label_names_of(answer, labels)) or "no label"


def class_counts(split: Split, labels: Sequence[str]) -> dict[str, int]:
    """Rows of each label, in the order of the label space; all 0 for an unlabelled split.

    A row whose label is a teacher's counts for none. Numbers are no labels: none is counted.
    """
    if is_number(split.labels):
        return {}
    ids = np.zeros(0, np.int64) if split.labels is None else split.labels
    if split.is_labelled is not None:
        ids = ids[split.is_labelled]
    counts = ids.sum(axis=0) if ids.ndim == 2 else np.bincount(ids, minlength=len(labels))
    return {name: int(count) for name, count in zip(labels, counts, strict=True)}


def texts_hash(texts: Iterable[str]) -> str:
    """SHA-256 of some texts, in order; the same on every machine."""
    return _of_texts(texts).hexdigest()


def split_hash(split: Split) -> str:
    """SHA-256 of a split's texts and class ids, in order; the same on every machine.

    Of train, also of the shares and weights that its rows have.
    """
    digest = _of_texts(split.texts)
    for text in split.seconds or ():
        _add(digest, text)
    if split.labels is not None:
        digest.update(split.labels.astype("<f8" if is_number(split.labels) else "<i8").tobytes())
    for values, kind in ((split.shares, "<f4"), (split.weights, "<f8")):
        if values is not None:
            _add(digest, kind)
            digest.update(values.astype(kind).tobytes())
    return digest.hexdigest()


def corpus_hash(corpus: Corpus) -> str:
    """SHA-256 of the label space and of the texts and class ids of the three splits."""
    digest = hashlib.sha256()
    hashes = [split_hash(split) for split in (corpus.train, corpus.validation, corpus.test)]
    for word in (*corpus.labels, *hashes):
        _add(digest, word)
    return digest.hexdigest()


def _of_texts(texts: Iterable[str]) -> "hashlib._Hash":
    digest = hashlib.sha256()
    for text in texts:
        _add(digest, text)
    return digest


def _add(digest: "hashlib._Hash", text: str) -> None:
    encoded = text.encode("utf-8", "surrogatepass")
    digest.update(len(encoded).to_bytes(8, "little"))  # so that no two lists give the same bytes
    digest.update(encoded)
