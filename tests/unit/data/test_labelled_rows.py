"""Labelled rows of later on → classes of a model that knows its labels already."""

import numpy as np
import pytest

from finetune.data.labelled_rows import label_rows
from finetune.data.places import Places
from finetune.data.rows import Rows
from finetune.data.text_store import Column, Store
from finetune.runtime.errors import InputError


def rows_of(labels, texts=None, multi_label=False, **more):
    column = Column(Store())
    for i in range(len(labels)):
        column.append(f"text {i}" if texts is None else texts[i])
    places = Places("new.csv", range(1, len(labels) + 1), "row")
    return Rows(column.texts(), list(labels), places, [], origin="new.csv",
                multi_label=multi_label, **more)  # fmt: skip


def messages(found):
    return [str(finding) for finding in found.findings]


def test_labels_by_name_and_what_is_left_out():
    rows = rows_of([" b", "a", None, "a", ""], ["x", "y", "z", " ", "w"])
    found = label_rows(rows, ["a", "b", "c"], multi_label=False, on_unknown="stop")
    assert found.split.labels.tolist() == [1, 0]
    assert list(found.split.texts) == ["x", "y"]
    assert found.labels == ("a", "b", "c")
    assert messages(found) == [
        "new.csv: 1 row has no text (new.csv: row 4): left out",
        "new.csv: 2 rows have no label (new.csv: row 3, new.csv: row 5): left out",
        "new.csv: 1 label of the model has no row (c): not scored",
    ]


@pytest.mark.parametrize("cells", [[0, 1, 1], ["0", "1", "1"]])
def test_numbers_are_places_unless_the_model_has_such_names(cells):
    found = label_rows(rows_of(cells), ["x", "y"], multi_label=False, on_unknown="stop")
    assert found.split.labels.tolist() == [0, 1, 1]
    assert "3 labels are read as places of the model's labels: 0 is x, 1 is y" in messages(found)[0]
    found = label_rows(rows_of(cells), ["1", "0"], multi_label=False, on_unknown="stop")
    assert found.split.labels.tolist() == [1, 0, 0]
    with pytest.raises(InputError, match=r"got '1' \(2 rows, first row 2\), '0' \(1 row, f"):
        label_rows(rows_of(cells), ["x"], multi_label=False, on_unknown="stop")


def test_names_of_the_source_itself_and_truth_values():
    named = rows_of([1, 0], label_names=("no", "yes"))
    found = label_rows(named, ["yes", "no"], multi_label=False, on_unknown="stop")
    assert found.split.labels.tolist() == [0, 1]
    found = label_rows(rows_of([True, False]), ["false", "true"], False, "stop")
    assert found.split.labels.tolist() == [1, 0]


def test_unknown_labels():
    rows = rows_of(["a", "Bee", "x", "x"])
    with pytest.raises(InputError) as caught:
        label_rows(rows, ["a", "bees"], multi_label=False, on_unknown="stop")
    assert caught.value.problems == (
        "new.csv: expected the labels of the model (a, bees), got 'x' (2 rows, first row 3), 'Bee' "
        "(1 row, first row 2, perhaps 'bees'); --unknown-labels drop leaves these rows out, and "
        "wrong counts each of them as a wrong prediction; --label names another column",
    )
    dropped = label_rows(rows, ["a", "b"], multi_label=False, on_unknown="drop")
    assert dropped.split.labels.tolist() == [0]
    assert dropped.unknown == {"x": 2, "Bee": 1}
    kept = label_rows(rows, ["a", "b"], multi_label=False, on_unknown="wrong")
    assert kept.labels == ("a", "b", "x", "Bee")
    assert kept.split.labels.tolist() == [0, 3, 2, 2]
    with pytest.raises(InputError, match="no row is left to be scored"):
        label_rows(rows_of(["x"]), ["a", "b"], multi_label=False, on_unknown="drop")


def test_several_labels():
    rows = rows_of([("a", "b"), (), ("z",), None], multi_label=True)
    found = label_rows(rows, ["b", "a"], multi_label=True, on_unknown="wrong")
    assert found.labels == ("b", "a", "z")
    assert np.array_equal(found.split.labels, [[1, 1, 0], [0, 0, 0], [0, 0, 1]])
    single = label_rows(rows_of(["a"]), ["b", "a"], multi_label=True, on_unknown="stop")
    assert single.split.labels.tolist() == [[0, 1]]
    with pytest.raises(InputError, match="rows may have several labels, and the model predicts"):
        label_rows(rows, ["b", "a"], multi_label=False, on_unknown="stop")


def test_repeats_are_named_and_kept():
    rows = rows_of(["a", "a", "b"], ["same", " same", "same"])
    found = label_rows(rows, ["a", "b"], multi_label=False, on_unknown="stop")
    assert len(found.split) == 3
    assert messages(found) == [
        "new.csv: 1 row duplicates an earlier text and label (new.csv: row 2): kept",
    ]
