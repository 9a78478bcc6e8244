"""The rules for rows: what they drop, keep and refuse, and what is noted."""

from typing import Any

import numpy as np
import pytest

from finetune.config.schema import Data
from finetune.data.label_space import NamedLabels
from finetune.data.places import Places
from finetune.data.row_rules import (
    FindingLog,
    SplitRows,
    apply_given_split_rules,
    apply_repeat_rules,
    assign_labels,
    describe_empty_split,
    require_classes,
    split_names,
)
from finetune.data.rows import Rows
from finetune.data.text_store import Texts
from finetune.runtime.errors import InputError


def split_of(documents: list[int], names: list[Any], role: str = "train") -> SplitRows:
    count = len(documents)
    places = Places("a.csv", range(1, count + 1), "row")
    rows = Rows(Texts.of([f"text {i}" for i in documents]), list(names), places, [])
    split = SplitRows(
        role, rows, "a.csv", np.array(documents), np.zeros(count, bool), np.arange(count)
    )
    split.set_labels(names)
    return split


@pytest.mark.parametrize(
    ("rule", "kept", "problems"), [("drop", [1], 0), ("keep", [0, 1], 0), ("stop", [1], 1)]
)
def test_a_rule(rule: str, kept: list[int], problems: int) -> None:
    split, log = split_of([0, 1], ["x", "y"]), FindingLog(Data(source="x", on_empty=rule))
    log.apply_rule("empty", "on_empty", split, [0])
    assert split.keep.tolist() == kept
    assert len(log.problems) == problems
    assert len(log.findings) == 1 - problems


def test_repeats_are_of_document_and_label() -> None:
    split, log = split_of([0, 0, 0, 1], ["x", "x", "y", "y"]), FindingLog(Data(source="x"))
    apply_repeat_rules(split, log)
    assert split.keep.tolist() == [0, 2, 3]
    assert [(f.kind, f.count) for f in log.findings] == [
        ("repeat", 1),
        ("conflicting labels", 2),
    ]


def test_labels_that_train_has_not() -> None:
    split = split_of([0, 1], ["x", "z"], "test")
    log = FindingLog(Data(source="x"))
    apply_given_split_rules(split, {"x", "y"}, log)
    assert "namely 'z' (1 row)" in log.problems[0]
    assert split.keep.tolist() == [0]


def test_rows_without_a_label() -> None:
    split, log = split_of([0, 1], ["x", "y"]), FindingLog(Data(source="x", on_null_label="drop"))
    assign_labels(split, NamedLabels(["x", None], [0]), log)
    assert split.keep.tolist() == [0]
    assert [finding.kind for finding in log.findings] == ["null label", "trimmed label"]
    assign_labels(split, None, log)
    assert log.findings[-1].kind == "unlabelled"


def test_class_ids_of_one_and_of_several_labels() -> None:
    class_ids = {"x": 0, "y": 1}
    assert split_of([0, 1, 2], ["y", "x", None]).class_ids(class_ids).tolist() == [1, 0, -1]
    several = split_of([0, 1, 2], [("x", "y"), (), ("y",)])
    assert several.class_ids(class_ids).tolist() == [[1, 1], [0, 0], [0, 1]]
    assert several.count_labels() == {"x": 1, "y": 2}
    assert [split_names(names) for names in ("x", None, ("x", "y"))] == [("x",), (), ("x", "y")]


def test_one_label_is_not_enough() -> None:
    split, log = split_of([0, 1], ["x", "x"]), FindingLog(Data(source="x"))
    with pytest.raises(InputError, match=r"at least two labels, got only 'x' \(2 rows\)"):
        require_classes(split, log)
    log.apply_rule("empty", "on_empty", split, [0, 1])
    assert describe_empty_split(split, log).startswith("train: no rows are left of a.csv (2 rows)")
