"""Levels in label names and in columns."""

import pytest

from finetune.config.schema import Data
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
        "data.label: expected the levels of a label from the coarsest on, without '/' "
        "(data.hierarchy) in them, got no 'area' above 'x' at row 0, 'a/b' in 'area' at row 1"
    ]


def test_names_that_are_no_paths_are_refused():
    check_levels(("a/x", "b"), Data(source="x", hierarchy="/"))
    check_levels(("a", "b"), Data(source="x"))
    for labels, problem in (
        (("a", "b"), "expected labels with '>' between their levels, found none in 'a', 'b'"),
        (("a>x", ">b"), "expected a name for each level between '>', got '>b'"),
    ):
        with pytest.raises(InputError, match=problem):
            check_levels(labels, Data(source="x", hierarchy=">"))
