"""Levels in label names and in columns."""

from dataclasses import replace

import datasets
import pytest

from finetune.config.schema import Data
from finetune.data import frames, read_rows
from finetune.data.columns import ColumnSpec
from finetune.data.label_cells import join_levels
from finetune.data.label_levels import check_levels
from finetune.runtime.errors import InputError


def test_columns_become_paths():
    cells = [("a", "x"), ("a", None), (None, None), (" b ", 1)]
    paths, problems = join_levels(cells, ("area", "topic"), "/", str)
    assert (paths, problems) == (["a/x", "a", None, "b/1"], [])
    cells = [(None, "x"), ("a/b", "x")]
    _, problems = join_levels(cells, ("area", "topic"), "/", "row {}".format)
    assert problems == [
        "data.label: expected the levels of a label from the coarsest on, each text, a whole "
        "number or true or false, without '/' (data.hierarchy) in them, got no 'area' above 'x' "
        "at row 0, 'a/b' in 'area' at row 1"
    ]
    _, problems = join_levels([("a", 1.5), (["a"], "x"), (True, "y")], ("m", "n"), "/", str)
    assert problems[0].endswith("got 1.5 in 'n' at 0, a list [\"a\"] in 'm' at 1")


def test_numbers_that_a_data_set_names_are_levels_by_their_names():
    features = datasets.Features(
        text=datasets.Value("string"),
        area=datasets.ClassLabel(names=["money", "sport"]),
        topic=datasets.ClassLabel(names=["bank", "race"]),
    )
    cells = {"text": ["one", "two", "three"], "area": [0, 1, -1], "topic": [0, -1, -1]}
    source = frames.as_source(datasets.Dataset.from_dict(cells, features))
    assert source is not None
    spec = ColumnSpec(("text",), ("area", "topic"), needs_label=True, hierarchy="/")
    rows = read_rows.read_rows(source, "here", spec)
    assert rows.labels == ["money/bank", "sport", None]
    assert rows.label_names is None
    rows = read_rows.read_rows(source, "here", replace(spec, hierarchy=None, are_tasks=True))
    assert rows.labels == [("area: money", "topic: bank"), ("area: sport",), None]


def test_names_that_are_no_paths_are_refused():
    check_levels(("a/x", "b"), Data(source="x", hierarchy="/"))
    check_levels(("a", "b"), Data(source="x"))
    for labels, problem in (
        (("a", "b"), "expected labels with '>' between their levels, found none in 'a', 'b'"),
        (("a>x", ">b"), "expected a name for each level between '>', got '>b'"),
        (("a > x", "a>y"), "got 'a ' and 'a', which differ by white space"),
    ):
        with pytest.raises(InputError, match=problem):
            check_levels(labels, Data(source="x", hierarchy=">"))
