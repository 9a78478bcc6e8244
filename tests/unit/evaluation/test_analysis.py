"""Error analysis, baselines and cost: by hand, on a few rows."""

from itertools import pairwise

import numpy as np
import pytest

from finetune.data.corpus import Corpus, Split
from finetune.data.places import Places
from finetune.evaluation import baselines, error_analysis
from finetune.tokenization.token_table import TokenTable

NAMES = ("a", "b", "c")
LABELS = np.array([0, 0, 0, 1, 1, 2])
GUESSES = np.array([0, 0, 1, 1, 0, 0])


def split(texts, labels, name="test"):
    return Split(name, texts, np.array(labels), Places(name, range(1, len(texts) + 1), "row"), "x")


def test_by_class():
    a, b, c = error_analysis.score_by_class(LABELS, GUESSES, NAMES)
    assert (a["support"], a["predicted"], a["precision"], a["recall"]) == (3, 4, 0.5, 2 / 3)
    assert a["f1"] == pytest.approx(4 / 7)
    assert (b["precision"], b["recall"]) == (0.5, 0.5)
    assert (c["support"], c["predicted"], c["precision"], c["f1"]) == (1, 0, None, 0.0)
    for one in (a, b, c):
        for kind in ("precision", "recall", "f1"):
            low, high = one[f"{kind}_interval"]
            assert low < high
            assert one[kind] is None or low <= one[kind] <= high


def test_a_class_without_rows_has_no_recall_and_no_f1():
    never, wrongly = error_analysis.score_by_class(np.zeros(3, int), np.array([0, 0, 2]), NAMES)[1:]
    assert (never["precision"], never["recall"], never["f1"]) == (None, None, None)
    assert (wrongly["precision"], wrongly["recall"], wrongly["f1"]) == (0.0, None, None)


def test_confusion_and_pairs():
    assert error_analysis.confusion_matrix(LABELS, GUESSES, 3) == [[2, 1, 0], [1, 1, 0], [1, 0, 0]]
    assert error_analysis.confusion_matrix(LABELS, GUESSES, 201) is None
    pairs = error_analysis.confused_pairs(LABELS, GUESSES, NAMES)
    assert [(p["label"], p["predicted"], p["rows"]) for p in pairs] == [
        ("a", "b", 1), ("b", "a", 1), ("c", "a", 1),
    ]  # fmt: skip
    assert [p["share"] for p in pairs] == [1 / 3, 1 / 2, 1.0]


def test_by_length_and_truncation():
    full = np.array([3, 3, 5, 8, 13, 21])
    starts = np.concatenate([[0], np.minimum(full, 10).cumsum()])
    table = TokenTable(np.zeros(starts[-1], np.int32), starts, full, 0)
    buckets = error_analysis.accuracy_by_length(LABELS, GUESSES, table)
    assert sum(one["rows"] for one in buckets) == 6
    assert (buckets[0]["shortest"], buckets[-1]["longest"]) == (3, 21)
    assert all(one["longest"] < two["shortest"] for one, two in pairwise(buckets))
    assert sum(one["truncated"] for one in buckets) == 2
    found = error_analysis.accuracy_by_truncation(LABELS, GUESSES, table)
    assert (found["truncated"]["rows"], found["truncated"]["accuracy"]) == (2, 0.0)
    assert (found["whole"]["rows"], found["whole"]["accuracy"]) == (4, 0.75)
    same = TokenTable(np.zeros(12, np.int32), np.arange(0, 13, 2), np.full(6, 2), 0)
    assert error_analysis.accuracy_by_truncation(LABELS, GUESSES, same)["truncated"] is None
    assert len(error_analysis.accuracy_by_length(LABELS, GUESSES, same)) == 1


def test_the_surest_mistakes_come_first():
    logits = np.log(np.array([[0.6, 0.4], [0.1, 0.9], [0.2, 0.8], [0.5, 0.5]])).astype(np.float32)
    found = error_analysis.most_confident_mistakes(
        split(["w", "x" * 900, "y", "z"], [1, 0, 1, 1]), logits, ("a", "b")
    )
    assert [one["row"] for one in found] == ["test: row 2", "test: row 1", "test: row 4"]
    assert (found[0]["label"], found[0]["predicted"]) == ("a", "b")
    assert found[0]["confidence"] == pytest.approx(0.9)
    assert found[0]["label_probability"] == pytest.approx(0.1)
    assert found[0]["text"] == "x" * 800 + "…"


def corpus(train, labels):
    parts = [
        split(train, labels, "train"),
        split(["won game"], [0]),
        split(["bank tax", "!"], [1, 0]),
    ]
    return Corpus(("sport", "money"), *parts, ())


def test_baselines_learn_from_train_alone():
    train = ["team won game", "cup game won", "team game", "bank price tax", "bank tax"]
    found = baselines.tfidf_baseline(corpus(train, [0, 0, 0, 1, 1]))
    assert found.logits.argmax(axis=1).tolist() == [1, 0]
    np.testing.assert_allclose(np.exp(found.logits).sum(axis=1), 1, rtol=1e-5)
    assert found.train_rows == 5
    plain = baselines.majority_baseline(corpus(train, [0, 0, 0, 1, 1]))
    np.testing.assert_allclose(np.exp(plain.logits), [[0.6, 0.4]] * 2, rtol=1e-6)


def test_baselines_of_texts_without_words_and_of_a_part_of_train(monkeypatch):
    found = baselines.tfidf_baseline(corpus(["!", "?", "."], [0, 1, 0]))
    assert found.logits.argmax(axis=1).tolist() == [0, 0]
    monkeypatch.setattr(baselines, "MAX_CHARACTERS", 60)
    part = baselines.tfidf_baseline(
        corpus(["team won game"] * 20 + ["bank price tax"] * 20, [0] * 20 + [1] * 20)
    )
    assert part.train_rows == 4
