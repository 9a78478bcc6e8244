"""Label probabilities and votes as cells have them: shares, majority labels, and what is wrong."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.config import schema
from finetune.data import prepare, sources
from finetune.data.corpus import split_hash
from finetune.data.soft_labels import ShareColumns, read_shares
from finetune.runtime.errors import InputError

OBJECTS = ShareColumns(("votes",), None, are_objects=True)
COLUMNS = ShareColumns(("a", "b"), ("a", "b"), are_objects=False)
SEVERAL = ShareColumns(("a", "b"), ("a", "b"), are_objects=False, multi_label=True)


def place(row):
    return f"row {row + 1}"


@pytest.mark.parametrize(
    ("cell", "shares", "label"),
    [
        ({"joy": 3, "anger": 1}, {"joy": 0.75, "anger": 0.25}, "joy"),
        ('{"joy": 3, "anger": "1"}', {"joy": 0.75, "anger": 0.25}, "joy"),
        ("{'joy': 3, 'anger': 1.0}", {"joy": 0.75, "anger": 0.25}, "joy"),  # as pandas writes it
        ([("joy", 0.2), ("anger", 0.8)], {"joy": 0.2, "anger": 0.8}, "anger"),  # an Arrow map
        ({"joy": None, " anger ": 1}, {"anger": 1.0}, "anger"),
        ({"b": 2, "a": 2, "c": 1}, {"a": 0.4, "b": 0.4, "c": 0.2}, "a"),  # tied: the first
        ({"joy": None}, None, None),
        ({}, None, None),
        ("", None, None),
        (None, None, None),
    ],
)
def test_objects(cell, shares, label):
    found = read_shares([[cell]], OBJECTS, place)
    assert not found.problems
    assert found.labels == [label]
    assert found.shares[0] == pytest.approx(shares) if shares else found.shares == [None]


def test_what_rows_are_is_told():
    rows = [
        (1.0, 0.0),
        (0.5, 0.5),
        ("2", "1"),
        (0.2, 0.2),
        (None, 4),
        (None, None),
        (0.3333, 0.6667),
    ]
    found = read_shares([*zip(*rows, strict=True)], COLUMNS, place)
    assert found.labels == ["a", "a", "a", "a", "b", None, "b"]
    assert (found.soft, found.votes) == ([1, 2, 3, 6], [2, 4])
    assert (found.scaled, found.tied) == ([3], [1, 3])
    found = read_shares([[0.9, 0.5, 0.0], [0.1, 1.0, 0.2]], SEVERAL, place)
    assert found.labels == [("a",), ("a", "b"), ()]
    assert (found.soft, found.tied, found.votes) == ([0, 1, 2], [1], [])


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ({"joy": -1}, "expected numbers of 0 or more for each label, got -1 for 'joy' at row 1"),
        ({"joy": float("nan")}, "got nan for 'joy' at row 1"),
        ('{"joy": NaN}', "got nan for 'joy' at row 1"),
        ({"joy": float("inf")}, "got inf for 'joy' at row 1"),
        ({"joy": True}, "got True for 'joy' at row 1"),
        ({"joy": "much"}, "got 'much' for 'joy' at row 1"),
        ({"joy": [1]}, "got a list [1] for 'joy' at row 1"),
        ({"joy": 0, "anger": 0.0}, "a number above 0 for a label in each row, got zeros alone"),
        ({"": 1}, "labels with a name, in UTF-8, got '' at row 1"),
        ('{"joy": 1, "joy ": 2}', "each label once, got 'joy' twice at row 1"),
        ("joy", "an object of label → number in each row, got 'joy' at row 1"),
        (["joy"], "an object of label → number in each row, got 'joy' at row 1"),
        (3, "an object of label → number in each row, got 3 at row 1"),
        ("{'joy': 1, 'joy': 2}", "each label once, got 'joy' twice at row 1"),
        ("{'joy': open('x')}", "an object of label → number in each row, got"),
        ("{" * 200_000, "an object of label → number in each row, got '{{{"),
        ("{" + "-" * 200_000, "an object of label → number in each row, got '{---"),
        ("{**{'joy': 1}}", "an object of label → number in each row, got"),
        ("[" * 200_000, "an object of label → number in each row, got '[[["),
        ({"joy": 1e308, "anger": 1e308}, "numbers whose sum is one, got 1e+308, 1e+308 at row 1"),
    ],
)
def test_cells_that_say_nothing_are_named(cell, expected):
    [problem] = read_shares([[cell]], OBJECTS, place).problems
    assert problem.startswith("'votes' (data.label_probabilities): ")
    assert expected in problem


def test_unknown_labels_and_impossible_probabilities_are_named():
    known = ShareColumns(("votes",), ("joy", "anger"), are_objects=True)
    cells = [{"joy": 1}, {"fear": 2, "joy": 1}, {"fear": 0, "anger": 1}]
    found = read_shares([cells], known, place)
    [problem] = found.problems
    assert "among those of the recipe (joy, anger), got 'fear' at row 2" in problem
    [problem] = read_shares([[0.5, 3], [0.1, 0]], SEVERAL, place).problems
    assert "probabilities from 0 to 1 for each label, got 3 for 'a' at row 2" in problem


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)).filter(any), min_size=1))
def test_votes_are_shares_of_their_sum(rows):
    found = read_shares([*zip(*rows, strict=True)], COLUMNS, place)
    for (a, b), shares, label in zip(rows, found.shares, found.labels, strict=True):
        assert sum(shares.values()) == pytest.approx(1)
        assert shares.get("a", 0) * (a + b) == pytest.approx(a)
        assert label == ("a" if a >= b else "b")


ROWS = [
    {"text": f"w{i}", "votes": {"joy": 1 + i % 3, "anger": i % 4}, "weight": i / 2, "label": "joy"}
    for i in range(20)
]


def prepared(folder, rows, form="jsonl", **keys):
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    else:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "rows.jsonl").write_text(lines)
    data = schema.Data(source=str(folder / f"rows.{form}"), validation="none", **keys)
    return prepare.prepare_corpus(sources.load_rows(data), data)


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_train_has_shares_and_weights_and_what_is_scored_has_majority_labels(tmp_path, form):
    corpus = prepared(tmp_path, ROWS, form, label_probabilities="votes", weight="weight")
    assert corpus.labels == ("anger", "joy")
    train, test = corpus.train, corpus.test
    assert test.shares is None
    assert test.weights is None
    assert test.labels is not None
    assert train.shares.shape == (18, 2)
    for text, shares, weight, label in zip(
        train.texts, train.shares, train.weights, train.labels, strict=True
    ):
        row = ROWS[int(text[1:])]
        votes = np.array([row["votes"]["anger"], row["votes"]["joy"]])
        assert shares == pytest.approx(votes / votes.sum())
        assert weight == row["weight"]
        assert label == int(votes.argmax())
    kinds = {finding.kind for finding in corpus.findings}
    assert {"soft label", "votes", "tied labels", "weighted", "weight of 0"} <= kinds


def test_columns_get_names_and_other_splits_their_own_labels(tmp_path):
    (tmp_path / "data").mkdir()
    train = "text,p1,p2\n" + "".join(f"w{i},{i % 2},{1 - i % 2}\n" for i in range(20))
    (tmp_path / "data/train.csv").write_text(train)
    (tmp_path / "data/test.csv").write_text("text,label\nq,joy\nr,anger\n")
    data = schema.Data(
        source=str(tmp_path / "data"), label_probabilities=("p1", "p2"), labels=("joy", "anger")
    )
    corpus = prepare.prepare_corpus(sources.load_rows(data), data)
    assert corpus.labels == ("joy", "anger")
    assert corpus.test.labels.tolist() == [0, 1]
    assert set(corpus.train.shares.ravel()) == {0.0, 1.0}


def test_weights_and_columns_that_are_wrong_stop_the_run(tmp_path):
    for value, got in ((-1, "-1"), ("x", "'x'"), (None, "None"), (True, "True")):
        rows = [*ROWS, {**ROWS[0], "text": "bad", "weight": value}]
        with pytest.raises(InputError, match=rf"'weight' \(data.weight\).*got {got} at .*line 21"):
            prepared(tmp_path, rows, label_probabilities="votes", weight="weight")
    rows = [{**row, "weight": 0} for row in ROWS]
    with pytest.raises(InputError, match="nothing would be learned"):
        prepared(tmp_path, rows, label_probabilities="votes", weight="weight")
    with pytest.raises(InputError, match=r"no column 'vote' \(data.label_probabilities\).*'votes'"):
        prepared(tmp_path, ROWS, label_probabilities="vote")


def test_only_the_same_shares_and_weight_are_a_repeat(tmp_path):
    first = {"text": "same", "votes": {"joy": 1}, "weight": 1}
    others = [{**first, "weight": 2}, {**first, "votes": {"joy": 3, "anger": 1}}, first]
    corpus = prepared(
        tmp_path, [*ROWS, first, *others], label_probabilities="votes", weight="weight",
        test_fraction=0.05,
    )  # fmt: skip
    [finding] = [one for one in corpus.findings if one.kind == "repeat"]
    assert finding.count == 1
    assert "line 24" in finding.places[0]


def test_shares_and_weights_are_part_of_what_train_is(tmp_path):
    corpus = prepared(tmp_path, ROWS, label_probabilities="votes", weight="weight")
    hashes = {split_hash(corpus.train), split_hash(corpus.train.scored_only())}
    other = prepared(tmp_path, ROWS, label_probabilities="votes")
    assert len(hashes | {split_hash(other.train)}) == 3


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"multi_label": True}, "data.label is a list"),
        ({"weight": "text"}, "another column than those of text"),
        ({"label_probabilities": ("a",)}, "two or more, each once"),
        ({"label_probabilities": ("a", "a")}, "two or more, each once"),
        ({"label_probabilities": "text"}, "another column than those of text"),
        ({"label_probabilities": ("a", "b"), "labels": ("x",)}, "2 columns"),
        ({"label_probabilities": "v", "label_separator": ";"}, "null with"),
        ({"label_probabilities": "v", "label": ("a", "b")}, "one column with"),
        (
            {"label_probabilities": "v", "task": "ordered", "multi_label": True},
            "false with data.task",
        ),
    ],
)
def test_keys_that_contradict_each_other(keys, message):
    with pytest.raises(ValueError, match=message):
        schema.Data(source="x", **keys)
