"""Lists of 0 and 1 as labels, and lists that are written as text."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.config.schema import Data
from finetune.data.label_lists import looks_like_list, parse_list, read_one_hot
from finetune.data.prepare import prepare_corpus
from finetune.data.sources import load_rows
from finetune.runtime.errors import InputError

ITEMS = st.one_of(
    st.text(st.sampled_from("ab ,'\"\\[]é\n"), max_size=5), st.integers(-9, 99), st.booleans()
)


def place(i: int) -> str:
    return f"row {i + 1}"


def write(folder: Path, split: str, labels: list[Any]) -> None:
    rows = [{"text": f"{split} {i} of {i * 7}", "label": cell} for i, cell in enumerate(labels)]
    (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))


def prepared(folder: Path, **keys: Any) -> Any:
    data = Data(source=str(folder), **keys)
    return prepare_corpus(load_rows(data), data)


@given(
    st.integers(2, 6).flatmap(
        lambda width: st.lists(
            st.lists(st.sampled_from([0, 1]), min_size=width, max_size=width), min_size=1
        )
    ),
    st.sampled_from([int, bool, float]),
)
def test_lists_of_0_and_1_are_the_places_of_the_ones(cells: list[list[int]], kind: type) -> None:
    typed: list[Any] = [*([kind(value) for value in cell] for cell in cells), None]
    found = read_one_hot(typed, place)
    assert found is not None
    assert found.sets == [*(tuple(np.flatnonzero(cell)) for cell in cells), None]
    assert (found.width, found.problem) == (len(cells[0]), None)


@pytest.mark.parametrize(
    "cells",
    [
        [[0], [1], [0, 1]],  # ids of labels
        [[0], [1]],
        [[0, 2], [1, 1]],
        [["0", "1"], ["1", "0"]],
        [[], []],
        [0, [0, 1]],
        ["a", None],
        [None],
    ],
)
def test_what_may_be_lists_of_labels_stays_so(cells: list[Any]) -> None:
    assert read_one_hot(cells, place) is None


def test_a_declared_list_of_ids_is_one_hot_only_where_it_holds_one_twice() -> None:
    assert read_one_hot([[0, 1], [1, 0]], place, are_ids=True) is None
    assert read_one_hot([[0, 0], [1, 0]], place, are_ids=True) is not None


def test_lists_of_several_lengths_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "train", [[0, 0, 1], [1, 0, 0], [0, 1]] * 20)
    with pytest.raises(InputError, match="one length, got 3 at line 1, 2 at line 3"):
        prepared(tmp_path)


@pytest.mark.parametrize("kind", [int, bool, float])
def test_a_run_has_each_label_that_the_lists_have_a_place_for(tmp_path: Path, kind: type) -> None:
    cells = [[kind(v) for v in cell] for cell in ([1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0])]
    write(tmp_path, "train", cells * 20)
    write(tmp_path, "test", [[kind(0)] * 4] * 5)
    corpus = prepared(tmp_path)
    assert (corpus.labels, corpus.multi_label) == (("0", "1", "2", "3"), True)
    assert corpus.test.labels.sum() == 0
    said = [str(finding) for finding in corpus.findings]
    assert any("60 rows have a list of 0 and 1 as their label" in line for line in said)
    assert (
        "train: 1 label has no row in train (3): kept in the label space, and never learned" in said
    )
    named = prepared(tmp_path, labels=("joy", "love", "anger", "fear"))
    assert named.labels == ("joy", "love", "anger", "fear")
    assert (named.train.labels == corpus.train.labels).all()


def test_lists_of_another_length_in_another_split_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "train", [[1, 0, 0], [0, 1, 1]] * 20)
    write(tmp_path, "test", [[1, 0], [0, 0]])
    with pytest.raises(
        InputError, match="3 times 0 or 1 in train, lists of 2 times 0 or 1 in test"
    ):
        prepared(tmp_path)


def test_empty_lists_are_labels_and_empty_cells_are_none(tmp_path: Path) -> None:
    """A split without a single label is scored where its lists are empty."""
    write(tmp_path, "train", [["a"], ["b"], []] * 20)
    write(tmp_path, "test", [[]] * 5)
    assert prepared(tmp_path).test.labels.shape == (5, 2)
    write(tmp_path, "train", ["a", "b", "a;b"] * 40)
    write(tmp_path, "test", [""] * 5)
    assert prepared(tmp_path, label_separator=";").test.labels is None


def test_a_separator_does_not_split_what_looks_like_lists(tmp_path: Path) -> None:
    write(tmp_path, "train", ["['a', 'b']", "['a']", "[]"] * 20)
    with pytest.raises(InputError, match="label_separator=null to read"):
        prepared(tmp_path, label_separator=",")
    kept = prepared(tmp_path, label_separator=",", label_lists=False)
    assert "['a'" in kept.labels


@given(st.lists(ITEMS, max_size=5))
def test_lists_of_python_and_json(items: list[Any]) -> None:
    assert parse_list(repr(items)) == items
    assert parse_list(json.dumps(items)) == items
    assert looks_like_list(repr(items))


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("['joy' 'anger']", ["joy", "anger"]),  # as NumPy prints it; to Python one text
        ("['joy'\n 'anger']", ["joy", "anger"]),
        ("[0 1 0]", [0, 1, 0]),
        ("[0. 1.]", ["0.", "1."]),
        ("[joy, world news]", ["joy", "world news"]),
        ("('joy', 'anger')", ["joy", "anger"]),
        ("{'joy'}", ["joy"]),
        ("[]", []),
        (" [ 'a' , \"b\" ] ", ["a", "b"]),
        ("['a', 'b'", None),
        ("['a' b, c]", None),
        ("[['a']]", None),
        ("[a]b]", None),
        ("joy", None),
        ("", None),
        ("[", None),
    ],
)
def test_lists_as_text(text: str, items: list[Any] | None) -> None:
    assert parse_list(text) == items


@pytest.mark.parametrize("name", ["(other)", "joy", "{x}", "a [b]"])
def test_names_are_no_lists(name: str) -> None:
    assert not looks_like_list(name)


def test_a_run_stops_at_lists_as_text_until_it_is_told_what_they_are(tmp_path: Path) -> None:
    write(tmp_path, "train", ["['joy']", "[]", "['joy', 'anger']"] * 20)
    with pytest.raises(InputError, match=r"set data.label_lists=true to read the labels in them"):
        prepared(tmp_path)
    assert prepared(tmp_path, label_lists=True).labels == ("anger", "joy")
    assert len(prepared(tmp_path, label_lists=False).labels) == 3
    write(tmp_path, "train", ["[0, 1]", "[1, 0]", "[0 0]"] * 20)
    assert prepared(tmp_path, label_lists=True).labels == ("0", "1")
    write(tmp_path, "train", ["['joy'", "[]", "['anger']"] * 20)
    with pytest.raises(
        InputError, match=r"expected lists written as text \(data.label_lists\), got"
    ):
        prepared(tmp_path, label_lists=True)


def test_a_few_lists_among_names_get_a_hint(tmp_path: Path) -> None:
    write(tmp_path, "train", ["joy", "anger", "['joy', 'anger']"] * 20)
    corpus = prepared(tmp_path)
    assert len(corpus.labels) == 3
    (finding,) = [f for f in corpus.findings if f.kind == "list as text"]
    assert finding.rule == "read as text (data.label_lists=true reads them as lists)"
    assert prepared(tmp_path, label_lists=True).labels == ("anger", "joy")
