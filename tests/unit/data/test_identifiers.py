"""Identifiers of documents: kept as they are, compared, and never in the way of a row."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.config import loader, schema
from finetune.data import id_checks, prepare, sources
from finetune.data.corpus import split_hash
from finetune.data.identifiers import IdColumn, Ids
from finetune.data.text_store import Store
from finetune.runtime.errors import InputError
from tests.unit.reporting.made import made_corpus

VALUES = st.one_of(
    st.none(), st.text(), st.integers(), st.booleans(), st.floats(allow_nan=False),
)  # fmt: skip


@given(st.lists(VALUES))
def test_they_come_back_as_they_are(values):
    column = IdColumn(Store())
    for value in values:
        column.append(value)
    ids = column.ids()
    expected = [
        None if value is None or (isinstance(value, str) and not value.strip()) else value
        for value in values
    ]
    assert [*ids] == expected == ids[:]
    assert [type(one) for one in ids] == [type(one) for one in expected]
    assert ids.missing().tolist() == [one is None for one in expected]
    order = np.arange(len(values))[::-1]
    assert [*ids.take(order)] == expected[::-1]
    assert [*ids.take(order).take(order)] == expected


def test_what_is_no_identifier_and_what_json_does_not_have():
    values = [math.nan, " ", "", None, "a\udcff", b"x", 1, "1", 1.0, True]
    ids = Ids.of(values)
    assert ids[:4] == [None] * 4
    assert ids[4] == "a\ufffd"
    assert len({*ids.digests()[5:].tolist()}) == 5
    assert [*Ids.joined([ids])] == [*ids]


def corpus_with(train, test):
    corpus, _ = made_corpus(("a", "b"))
    rows = len(corpus.train)
    return replace(
        corpus,
        train=replace(corpus.train, ids=Ids.of(train + [f"t{i}" for i in range(len(train), rows)])),
        test=replace(corpus.test, ids=Ids.of(test + [f"u{i}" for i in range(len(test), rows)])),
    )


def test_rows_that_it_does_not_tell_apart_are_named():
    corpus = corpus_with(["x", "y", "x", None, ""], ["y", "z", "z", "z"])
    found = id_checks.note_id_problems(corpus).findings
    assert [str(finding) for finding in found] == [
        "train: 2 rows have no identifier (3, 4): kept; its file and row alone tell "
        "which document it is (data.id)",
        "train: 1 row has the identifier of an earlier one (2 (x)): kept, though data.id does not "
        "tell them apart",
        "test: 2 rows have the identifier of an earlier one (2 (z), 3 (z)): kept, though data.id "
        "does not tell them apart",
        "test: 1 row has an identifier that is also in train (0 (y)): kept, though data.id does "
        "not tell them apart",
    ]
    assert id_checks.note_id_problems(corpus_with([1, "1", True], [])).findings == ()


TABLES = {
    "csv": ("ticket,text,label\n{}", '{0},text {1},{2}\n'),
    "jsonl": ("{}", '{{"ticket": "{0}", "text": "text {1}", "label": "{2}"}}\n'),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_they_stay_with_their_rows_whatever_is_dropped_and_cut(tmp_path, kind):
    head, line = TABLES[kind]
    for split, rows in (("train", 60), ("test", 20)):
        lines = "".join(
            line.format(f"{split}-{i}", f"{split} {i}", "ab"[i % 2]) for i in range(rows)
        )
        lines += line.format(f"{split}-empty", "", "a").replace("text ", "")  # no text
        (tmp_path / f"{split}.{kind}").write_text(head.format(lines))
    changes = {"max_test_rows": 7, "split_seed": 3, "validation": "carve"}
    data = schema.Data(source=str(tmp_path), id="ticket", **changes)
    corpus = prepare.prepare_corpus(sources.load_rows(data), data)
    assert (len(corpus.test), len(corpus.validation) > 0) == (7, True)
    for split in corpus.splits():
        assert [f"text {str(one).replace('-', ' ')}" for one in split.ids] == [*split.texts]
    without = schema.Data(source=str(tmp_path), **changes)
    plain = prepare.prepare_corpus(sources.load_rows(without), without)
    assert plain.test.ids is None
    assert [split_hash(one) for one in plain.splits()] == [
        split_hash(one) for one in corpus.splits()
    ]


def test_a_column_that_is_not_there_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text("text,label,tickets\nx,a,1\ny,b,2\n")
    data = schema.Data(source=str(tmp_path / "train.csv"), id="ticket")
    with pytest.raises(InputError, match=r"no column 'ticket' \(data.id\); did you mean 'tickets'"):
        sources.load_rows(data)
    for label in "ab":
        (tmp_path / "folder" / label).mkdir(parents=True)
        (tmp_path / "folder" / label / "1.txt").write_text("x")
    data = schema.Data(source=str(tmp_path / "folder"), id="ticket")
    with pytest.raises(InputError, match=r"a \.txt file has no columns, and data\.id names one"):
        sources.load_rows(data)


@pytest.mark.parametrize("column", ["text", "label", "second"])
def test_it_is_no_column_that_is_read_as_something_else(tmp_path, column):
    file = tmp_path / "x.yaml"
    file.write_text("data: {source: x, text_pair: second}\n")
    with pytest.raises(InputError, match=r"data\.id: expected another column"):
        loader.load(file, [f"data.id={column}"])


def test_shards_join_theirs(tmp_path):
    for i in (0, 1):
        rows = "".join(f"{i}{j},text {i}{j},{'ab'[j % 2]}\n" for j in range(4))
        (tmp_path / f"train-0000{i}-of-00002.csv").write_text("n,text,label\n" + rows)
    rows = sources.load_rows(schema.Data(source=str(tmp_path), id="n"))["train"]
    assert [*rows.ids] == [f"{i}{j}" for i in (0, 1) for j in range(4)]
