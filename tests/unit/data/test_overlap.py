"""Rows of one split that stand in another, exactly and nearly."""

import numpy as np

from finetune.data.overlap import Overlap
from finetune.data.text_store import Store

LONG = "one two three four five six seven eight nine ten eleven twelve"
SPLITS = {
    "train": ["a whole other text", LONG, f"{LONG} thirteen"],
    "test": [f" {LONG}\n", f"{LONG} fourteen", "nothing of it"],
}


def test_exact_and_near_matches() -> None:
    found = Overlap(SPLITS, Store(), find_near=True).find_matches("test", "train")
    assert found.rows.tolist() == [0, 1]
    assert found.others.tolist() == [1, 1]
    assert found.is_exact.tolist() == [True, False]
    assert found.overlaps[0] == 1
    assert 0.8 < found.overlaps[1] < 1
    assert found.select(np.array([False, True])).rows.tolist() == [1]


def test_near_repeats_within_a_split() -> None:
    found = Overlap(SPLITS, Store(), find_near=True).find_earlier("train")
    assert (found.rows.tolist(), found.others.tolist()) == ([2], [1])


def test_without_near_duplicates_exact_ones_are_found() -> None:
    overlap = Overlap(SPLITS, Store(), find_near=False)
    assert overlap.pairs is None
    assert overlap.find_matches("test", "train").rows.tolist() == [0]
    assert not len(overlap.find_earlier("train").rows)
