"""Splits, findings and their hashes."""

import dataclasses

import numpy as np

from finetune.data.corpus import (
    Corpus,
    Finding,
    Split,
    class_counts,
    corpus_hash,
    format_labels,
    label_names_of,
    split_hash,
    texts_hash,
)
from finetune.data.places import Places


def split_of(labels: list[int] | list[list[int]] | None, name: str = "train") -> Split:
    count = len(labels or [0])
    places = Places("a.csv", range(1, count + 1), "row")
    values = None if labels is None else np.array(labels)
    return Split(name, [f"text {i}" for i in range(count)], values, places, "a.csv")


def test_some_rows_and_none() -> None:
    split = split_of([0, 1, 1])
    taken = split.take(np.array([2, 0]))
    assert (list(taken.texts), taken.places[:]) == (
        ["text 2", "text 0"],
        ["a.csv: row 3", "a.csv: row 1"],
    )
    assert class_counts(taken, ["x", "y"]) == {"x": 1, "y": 1}
    assert len(split.without_rows()) == 0
    paired = dataclasses.replace(split, seconds=["a", "b", "c"])
    assert paired.whole()[1] == "text 1\n\nb"


def test_hashes_tell_texts_and_labels_apart() -> None:
    one, other = split_of([0, 1]), split_of([1, 1])
    assert split_hash(one) == split_hash(split_of([0, 1])) != split_hash(other)
    assert texts_hash(["ab", "c"]) != texts_hash(["a", "bc"])
    corpora = [Corpus(("x", "y"), split, one, one, ()) for split in (one, other)]
    assert corpus_hash(corpora[0]) != corpus_hash(corpora[1])


def test_several_labels_of_a_row() -> None:
    split = split_of([[1, 1], [0, 0]])
    corpus = Corpus(("x", "y"), split, split.without_rows(), split, (), True)
    assert corpus.priors() == [0.5, 0.5]
    assert [format_labels(row, corpus.labels) for row in np.array([[1, 1], [0, 0]])] == [
        "x, y",
        "no label",
    ]
    assert label_names_of(1, corpus.labels) == ["y"]
    assert len(corpus.splits()) == 2
    assert len(corpus.without_test().test) == 0


def test_a_finding_in_words() -> None:
    places = Places("a.csv", range(1, 9), "row")
    finding = Finding("empty", "train", 8, places, "dropped (data.on_empty: drop)")
    assert str(finding) == (
        "train: 8 rows have no text (a.csv: row 1, a.csv: row 2, a.csv: row 3, a.csv: row 4, "
        "a.csv: row 5 and 3 more): dropped (data.on_empty: drop)"
    )
    assert finding.as_json()["message"] == str(finding)
    assert len(finding.as_json()["places"]) == 8
