"""Labels as they stand → their names and their order."""

from typing import Any

import numpy as np
import pytest

from finetune.data.label_space import name_label_sets, name_labels
from finetune.data.places import Places
from finetune.data.rows import Rows
from finetune.data.text_store import Texts
from finetune.runtime.errors import InputError


def rows(labels: list[Any], names: tuple[str, ...] | None = None, **keys: Any) -> Rows:
    places = Places("train.csv", range(1, len(labels) + 1), "row")
    return Rows(Texts.of(["text"] * len(labels)), labels, places, [], names, **keys)


def space_of(labels: list[Any], given: Any = None, names: Any = None) -> tuple[str, ...]:
    train = rows(labels, names)
    return name_labels({"train": train}, np.arange(len(labels)), given)[0]


@pytest.mark.parametrize(
    ("labels", "given", "names", "space"),
    [
        (["b", "a10", "a9"], None, None, ("a9", "a10", "b")),
        ([10, 9], None, None, ("9", "10")),
        ([True, True], None, None, ("false", "true")),
        ([1, 0], None, ("neg", "pos"), ("neg", "pos")),
        (["1", "0"], ("neg", "pos"), None, ("neg", "pos")),
        ([1, 0], ("bad", "good"), ("neg", "pos"), ("bad", "good")),
        (["b", "a"], ("b", "a", "c"), None, ("b", "a", "c")),
    ],
)
def test_the_order_of_classes(labels: Any, given: Any, names: Any, space: Any) -> None:
    assert space_of(labels, given, names) == space


def test_white_space_is_trimmed_and_noted() -> None:
    _, named = name_labels({"train": rows([" a", "b", "", None])}, np.arange(4), None)
    assert named["train"].names == ["a", "b", None, None]
    assert named["train"].trimmed == [0]


def test_sets_stand_in_the_order_of_the_classes() -> None:
    train = rows([("b", "a"), (), None, ("b",)], multi_label=True)
    space, named = name_label_sets({"train": train}, np.arange(4), None)
    assert space == ("a", "b")
    assert named["train"].names == [("a", "b"), (), None, ("b",)]


@pytest.mark.parametrize(
    ("labels", "given", "names", "problem"),
    [
        (["a", 1], None, None, "expected labels of one type"),
        (["a", "b"], ("a",), None, "expected labels among data.labels"),
        ([0, 1], ("a",), ("x", "y"), "expected 2 names, one for each"),
        ([f"id{i}" for i in range(60)], None, None, "60 different labels in 60 rows"),
    ],
)
def test_what_does_not_fit(labels: Any, given: Any, names: Any, problem: str) -> None:
    with pytest.raises(InputError) as error:
        space_of(labels, given, names)
    assert problem in str(error.value)
