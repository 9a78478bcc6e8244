"""Labels that look alike are named with their counts, and stay apart or are merged."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.config.schema import Data
from finetune.data.label_names import MISSING, count_nodes
from finetune.data.prepare import prepare_corpus
from finetune.data.similar_labels import (
    find_joined,
    find_similar,
    fold_label,
    merge_similar,
    show_apart,
    show_label,
)
from finetune.data.sources import load_rows
from finetune.runtime.errors import InputError


def prepared(folder: Path, test: list[str] | None = None, *labels: str) -> Any:
    for split, names in (("train", list(labels) * 15), ("test", test)):
        if names:
            rows = [{"text": f"{split} {i} of {i * 7}", "label": n} for i, n in enumerate(names)]
            (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = Data(source=str(folder))
    return prepare_corpus(load_rows(data), data)


@pytest.mark.parametrize(
    ("one", "other", "shown"),
    [
        ("sport", "Sport", "'Sport'"),
        ("sport", "sport\u200b", "'sport\\u200b'"),
        ("sport", "\ufeffsport", "'\\ufeffsport'"),
        ("sport", "sp\u00adort", "'sp\\xadort'"),
        ("caf\u00e9", "cafe\u0301", "'cafe\\u0301'"),
        ("straße", "STRASSE", "'STRASSE'"),
        ("world news", "world\u00a0news", "'world\\xa0news'"),
        ("world news", "world_news", "'world_news'"),
        ("world-news", "World  News", "'World  News'"),
        ("sport", "ｓｐｏｒｔ", "'ｓｐｏｒｔ'"),
        ("sport", "ѕроrt", "'\\u0455\\u0440\\u043ert'"),
        ("体育", "体育\u200d", "'体育\\u200d'"),
    ],
)
def test_a_run_names_them_with_their_rows(tmp_path: Path, one: str, other: str, shown: str) -> None:
    corpus = prepared(tmp_path, None, one, other, "money")
    assert {one, other} < set(corpus.labels)
    (finding,) = [f for f in corpus.findings if f.kind == "similar labels"]
    assert str(finding) == (
        f"source: 1 group of labels look alike ('{one}' (15 rows) and {shown} (15 rows)): kept "
        "apart; if they mean the same, correct the data, or set data.similar_labels=merge"
    )


@pytest.mark.parametrize(("more", "found"), [([], 1), (["sport", "money"], 0)])
def test_lists_of_one_label_each_are_named(tmp_path: Path, more: list[str], found: int) -> None:
    rows = [
        {"text": f"row {i} of {i * 7}", "label": [n]} for i, n in enumerate(["sport", "tax"] * 9)
    ]
    rows += [{"text": "both of them", "label": more}] * (more != [])
    rows.append({"text": "left out", "label": None})
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = Data(source=str(tmp_path))
    findings = [
        f for f in prepare_corpus(load_rows(data), data).findings if f.kind == "single labels"
    ]
    assert [str(finding)[:37] for finding in findings] == [
        "source: 18 rows list one label each: "
    ] * found


@pytest.mark.parametrize("word", ["NaN", *sorted(MISSING - {"nan"}), "N/A", "\\N"])
def test_words_for_a_missing_value_are_named(tmp_path: Path, word: str) -> None:
    corpus = prepared(tmp_path, None, word, "sport", "money")
    assert word in corpus.labels
    (finding,) = [f for f in corpus.findings if f.kind == "missing labels"]
    assert str(finding).startswith("source: 1 label is a word for a missing value ('")
    assert str(finding).endswith(
        "(15 rows)): read as any other label; where it means none, leave the cell empty"
    )


@pytest.mark.parametrize(
    "names", [["1", "2", "10"], ["c", "c++", "c#"], ["a", "á"], ["-", "_"], ["体育", "财经"]]
)
def test_others_are_not_named(names: list[str]) -> None:
    assert find_similar(names) == []


@given(st.text(min_size=1, max_size=12))
def test_folding_takes_normal_forms_and_case_alike(name: str) -> None:
    folded = fold_label(name)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert fold_label(unicodedata.normalize(form, name)) == folded
    invisible = unicodedata.normalize("NFKC", f"{name}\u200b")
    assert fold_label(f"{name}\u200b") in (folded, invisible)
    assert len(show_apart([name])) == 1


def test_an_unseen_label_is_told_like_which_it_looks(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        prepared(tmp_path, ["sport", "sport\u200b", "war"], "sport", "money")
    assert (
        "namely 'sport\\u200b' (1 row, which looks like 'sport' of train), 'war' (1 row): "
        in str(error.value)
    )
    assert show_label("a b") == "'a b'"


def test_conflicting_labels_within_test_are_named(tmp_path: Path) -> None:
    rows = [{"text": "the same", "label": "sport"}, {"text": "the same ", "label": "money"}]
    prepared(tmp_path, ["sport", "money"], "sport", "money")
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    data = Data(source=str(tmp_path))
    found = prepare_corpus(load_rows(data), data).findings
    assert (
        "test: 2 rows have the same text as a row with another label (test.jsonl: line 1, "
        "test.jsonl: line 2): kept, so that scores stay comparable; not all of them can be "
        "predicted correctly"
    ) in [str(finding) for finding in found]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (["a", "b", "c", "a,b", "b,c"], (",", ["a,b", "b,c"])),
        (["a; b", "b; c", "c", "a"], (";", ["a; b", "b; c"])),
        (["x|y", "y|z", "x|z", "x|y|z"], ("|", ["x|y", "y|z", "x|z", "x|y|z"])),
        (["Paris, France", "Rome, Italy", "London"], None),
        (["Arts, Crafts", "Sports", "Money"], None),
        (["a", "b", "a,b"], None),  # one alone may be a name
        (["a,", "b,", "a"], None),
        ([], None),
    ],
)
def test_labels_that_may_be_several(labels, found):
    assert find_joined(labels) == found


def merging(folder: Path, rows: dict[str, list[dict[str, Any]]], **keys: Any) -> Any:
    for split, own in rows.items():
        lines = [
            json.dumps({"text": f"{split} {i} of {i * 7}"} | row) for i, row in enumerate(own * 12)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    data = Data(source=str(folder), similar_labels="merge", **keys)
    return prepare_corpus(load_rows(data), data)


def labelled(*labels: Any) -> list[dict[str, Any]]:
    return [{"label": label} for label in labels]


def names_of(split: Any, corpus: Any) -> list[str]:
    return [corpus.labels[i] for i in split.labels]


def test_they_are_merged_into_the_one_that_most_train_rows_have(tmp_path: Path) -> None:
    train = labelled("Sport", "sport", "sport", "money", "ｍｏｎｅｙ\u200b", "money")
    corpus = merging(tmp_path, {"train": train, "test": labelled("SPORT", "money", "Money")})
    assert corpus.labels == ("money", "sport")
    assert names_of(corpus.test, corpus) == ["sport", "money", "money"] * 12
    assert [str(one) for one in corpus.findings if "labels" in one.kind] == [
        "source: 2 labels have variants ('Sport' (12 rows) and 'sport' (24 rows) and 'SPORT' "
        "(12 rows), 'money' (36 rows) and 'ｍｏｎｅｙ\\u200b' (12 rows) and 'Money' (12 rows)): "
        "merged into 'sport', 'money' (data.similar_labels)"
    ]


def test_labels_that_the_recipe_names_stay(tmp_path: Path) -> None:
    train = labelled("Sport", "sport", "sport", "money")
    corpus = merging(tmp_path, {"train": train}, labels=["Sport", "money"])
    assert corpus.labels == ("Sport", "money")
    corpus = merging(tmp_path, {"train": train}, labels=["Sport", "sport", "money"])
    assert corpus.labels == ("Sport", "sport", "money")


def test_merging_of_several_labels_levels_order_and_tasks(tmp_path: Path) -> None:
    corpus = merging(tmp_path, {"train": labelled(["a", "A", "b"], ["a"], ["B"], ["b"])})
    assert corpus.labels == ("a", "b")
    assert (
        corpus.train.labels.sum()
        == len(corpus.train.labels) + (corpus.train.labels > 0).all(axis=1).sum()
    )
    corpus = merging(
        tmp_path, {"train": labelled("x/one", "x/two", "X/three", "y/One")}, hierarchy="/"
    )
    assert corpus.labels == ("x/one", "x/three", "x/two", "y/One")
    corpus = merging(
        tmp_path, {"train": labelled("low", "Low", "high", "HIGH", "high")},
        task="ordered", label_order=["low", "high"],
    )  # fmt: skip
    assert corpus.labels == ("low", "high")
    rows = [
        {"topic": "a", "Topic": "A"},
        {"topic": "A", "Topic": "b"},
        {"topic": "a", "Topic": "B"},
    ]
    corpus = merging(
        tmp_path, {"train": [*rows, {"topic": "c", "Topic": "b"}]}, tasks=["topic", "Topic"]
    )
    assert corpus.labels == ("topic: a", "topic: c", "Topic: A", "Topic: b")


def test_levels_that_look_alike_are_named(tmp_path: Path) -> None:
    merging(tmp_path, {"train": labelled("x/one", "X/two")}, hierarchy="/")
    data = Data(source=str(tmp_path), hierarchy="/")
    found = prepare_corpus(load_rows(data), data).findings
    assert count_nodes({"x/one": 2, "x/two": 1, "y": 3}, "/") == {
        "x": 3, "x/one": 2, "x/two": 1, "y": 3,
    }  # fmt: skip
    assert (
        "source: 1 group of labels look alike ('x' (12 rows) and 'X' (12 rows)): kept apart; if "
        "they mean the same, correct the data, or set data.similar_labels=merge"
    ) in map(str, found)


@given(st.dictionaries(st.text(min_size=1, max_size=6), st.integers(0, 9), min_size=1))
def test_merging_twice_changes_nothing(counts: dict[str, int]) -> None:
    merged = merge_similar(counts)
    left = {name: counts.get(name, 0) for name in counts if name not in merged}
    assert {*merged.values()} <= {*left}
    assert merge_similar(left) == {}
    assert find_similar(left) == []
