"""The order of labels: numbers have their own, words are asked for."""

import pytest

from finetune.config.schema import Data
from finetune.data.label_order import order_labels
from finetune.runtime.errors import InputError


def test_numbers_by_their_value():
    data = Data(source="x", task="ordered")
    assert order_labels(("10", "-1", "2.5", "2"), data) == ("-1", "2", "2.5", "10")
    assert order_labels(("b", "a"), Data(source="x")) == ("b", "a")
    given = Data(source="x", task="ordered", label_order=("low", "high"))
    assert order_labels(("low", "high"), given) == ("low", "high")


def test_a_rank_has_one_label():
    with pytest.raises(InputError, match=r"got '1' and '1\.0', which have the same rank"):
        order_labels(("1", "1.0", "2"), Data(source="x", task="ordered"))


@pytest.mark.parametrize(
    ("labels", "some"), [(("bad", "good"), "they are"), (("1", "inf"), "some are")]
)
def test_words_are_not_ordered_by_the_alphabet(labels, some):
    with pytest.raises(InputError) as refused:
        order_labels(labels, Data(source="x", task="ordered"))
    assert str(refused.value) == (
        "data.label_order: expected the labels from the lowest to the highest with data.task "
        f"'ordered', as {some} no numbers, got null; the labels are {', '.join(labels)}"
    )
