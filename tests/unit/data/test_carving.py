"""Splits that the source lacks, and limits on rows."""

from typing import Any

import numpy as np
import pytest

from finetune.config.schema import Data
from finetune.data.carving import NONE, carve_missing, deal_folds, limit_rows, note_rare_classes
from finetune.data.places import Places
from finetune.data.row_rules import FindingLog, SplitRows
from finetune.data.rows import Rows
from finetune.data.text_store import Texts
from finetune.runtime.errors import InputError

IDS = {"x": 0, "y": 1}


def pool_of(count: int, names: Any = "xy") -> SplitRows:
    places = Places("a.csv", range(1, count + 1), "row")
    labels = [names[i % len(names)] for i in range(count)]
    rows = Rows(Texts.of([f"text {i}" for i in range(count)]), list(labels), places, [])
    pool = SplitRows(
        "train", rows, "a.csv", np.arange(count), np.zeros(count, bool), np.arange(count)
    )
    pool.set_labels(labels)
    return pool


def test_test_and_validation_are_cut_and_train_keeps_the_rest() -> None:
    pool = pool_of(400)
    data = Data(source="a", test_fraction=0.25, validation_fraction=0.1, validation="carve")
    splits = carve_missing(pool, IDS, ["test", "validation"], data, None)
    sizes = {role: len(split.keep) for role, split in splits.items()}
    assert (sizes, len(pool.keep)) == ({"test": 100, "validation": 40}, 260)
    everything = [pool.keep, *(split.keep for split in splits.values())]
    assert sorted(np.concatenate(everything)) == list(range(400))
    assert splits["test"].count_labels() == {"x": 50, "y": 50}
    assert splits["test"].origin == "split off from a.csv: 25 %, stratified, seed 0"


def test_of_few_rows_no_validation_is_cut() -> None:
    pool = pool_of(40)
    splits = carve_missing(pool, IDS, ["validation"], Data(source="a", validation="auto"), None)
    assert splits["validation"].origin.startswith(f"{NONE}, as ")
    assert (len(splits["validation"].keep), len(pool.keep)) == (0, 40)


def test_a_cut_of_nothing_is_refused() -> None:
    data = Data(source="a", test_fraction=0.01)
    with pytest.raises(InputError, match=r"test: carving 1 % .* of 9 rows gives none"):
        carve_missing(pool_of(9), IDS, ["test"], data, None)


def test_folds() -> None:
    folds = deal_folds(pool_of(10), IDS, 5, Data(source="a"))
    assert np.bincount(folds).tolist() == [2] * 5
    with pytest.raises(InputError, match="at least 20 different texts in train, found 10"):
        deal_folds(pool_of(10), IDS, 20, Data(source="a"))


def test_limits() -> None:
    pool, log = pool_of(30, "xxy"), FindingLog(Data(source="a"))
    limit_rows({"train": pool}, Data(source="a", rows_per_class=3), log)
    assert pool.count_labels() == {"x": 3, "y": 3}
    limit_rows({"train": pool}, Data(source="a", max_train_rows=4), log)
    assert len(pool.keep) == 4
    assert [finding.count for finding in log.findings] == [24, 2]


def test_a_class_that_is_missing_from_what_was_cut() -> None:
    pool, log = pool_of(10, "xxxxxxxxxy"), FindingLog(Data(source="a"))
    test = pool_of(4, "x")
    test.role = "test"
    note_rare_classes({"train": pool, "test": test}, {"train"}, log)
    assert log.findings[0].places == ("y: 1 row in train",)
