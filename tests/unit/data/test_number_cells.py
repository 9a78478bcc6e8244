"""Cells of numbers: what is one, what is missing, and how rows are divided by them."""

import dataclasses
import decimal
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.config import schema
from finetune.data import number_cells, number_scale, prepare, sources
from finetune.data.places import Places
from finetune.data.rows import Rows
from finetune.data.text_store import Texts
from finetune.runtime.errors import InputError


def rows_of(name, cells):
    texts = Texts.of([f"text {i}" for i in range(len(cells))])
    return Rows(texts, cells, Places(name, range(1, len(cells) + 1), "row"), [])


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (3, 3.0), (2.5, 2.5), ("7", 7.0), (" -1e3 ", -1000.0), (decimal.Decimal("0.1"), 0.1),
        ("-0", 0.0), (None, None), ("", None), ("NaN", None), (math.nan, None), ("n/a", None),
    ],
)  # fmt: skip
def test_a_cell_is_a_number_or_missing(cell, value):
    assert number_cells.read_number(cell) == value


@pytest.mark.parametrize(
    "cell", ["abc", "1e400", "inf", math.inf, True, "3,5", "1_000", [1], 10**400, "1,234", 1e30]
)
def test_or_it_is_refused(cell):
    with pytest.raises(ValueError, match="no finite number"):
        number_cells.read_number(cell)


def test_every_bad_cell_of_every_split_is_named():
    splits = {"train": rows_of("a.csv", [1, "x", None]), "test": rows_of("b.csv", ["2,5", "3,5"])}
    with pytest.raises(InputError) as caught:
        number_cells.name_numbers(splits, "price")
    assert [*caught.value.problems] == [
        "train: 'price' (data.label): expected numbers, got 'x' at a.csv: row 2",
        "test: 'price' (data.label): expected numbers, got '2,5' at b.csv: row 1, '3,5' at b.csv: "
        "row 2; write the comma as a point",
    ]


@pytest.mark.parametrize(
    ("cells", "advice"),
    [
        (["3,5", "1,234"], "write the comma as a point"),
        (["0,125"], "write the comma as a point"),
        (["1.234,56", "3,5"], "leave out the points between thousands, and write the comma as a "
         "point"),
        (["1,234", "1,234,567"], "leave out the commas between thousands"),
        (["-1,234.50"], "leave out the commas between thousands"),
        (["1,234", "250,000"], "write 1,234 as 1234 where commas are between thousands, and as "
         "1.234 where they begin the decimals"),
        ([1e300, "2e20"], "numbers are taken from -1e+18 to 1e+18: divide them by a constant"),
        (["1,234", "unknown"], None),
    ],
)  # fmt: skip
def test_advice_on_cells_does_not_change_what_they_say(cells, advice):
    with pytest.raises(InputError) as caught:
        number_cells.name_numbers({"train": rows_of("a.csv", [*cells, 1])}, "price")
    _, _, after = caught.value.problems[0].partition("; ")
    assert after == (advice or "")


def test_places_of_named_labels_are_no_numbers():
    rows = dataclasses.replace(rows_of("a", [0, 1, None]), label_names=("1", "2.5"))
    _, named = number_cells.name_numbers({"train": rows}, "stars")
    assert named["train"].names == ["1.0", "2.5", None]
    rows = dataclasses.replace(rows, label_names=("one star", "two stars"))
    with pytest.raises(InputError, match="expected numbers, got 'one star' at a: row 1"):
        number_cells.name_numbers({"train": rows}, "stars")


def test_equal_numbers_have_one_name():
    space, named = number_cells.name_numbers(
        {"train": rows_of("a", ["1", 1, 1.0, "1e0", None])}, "n"
    )
    assert space == ("n",)
    assert named["train"].names == ["1.0", "1.0", "1.0", "1.0", None]
    numbers = number_cells.numbers_of(["1.0", "2.5"], np.array([1, 0, 1]))
    assert numbers.tolist() == [2.5, 1.0, 2.5]


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=300))
def test_groups_are_in_order_and_no_tie_is_split(values):
    numbers = np.array(values)
    groups = number_scale.bin_numbers(numbers)
    assert 0 <= groups.min() <= groups.max() < number_scale.BINS
    order = np.argsort(numbers, kind="stable")
    assert (np.diff(groups[order]) >= 0).all()
    assert all(len({*groups[numbers == value]}) == 1 for value in values[:5])
    by_name = number_cells.bins_by_name([repr(float(value)) for value in values])
    assert [by_name[repr(float(value))] for value in values] == groups.tolist()


def test_of_many_numbers_groups_are_tenths():
    groups = number_scale.bin_numbers(np.random.default_rng(0).normal(size=1000))
    assert np.bincount(groups).tolist() == [100] * 10


def test_numbers_that_fp32_cannot_tell_apart_are_refused():
    assert number_scale.NumberScale.of(np.array([0, 1, 2])) is None  # class ids
    assert number_scale.NumberScale.of(np.array([1.0, 3.0])) == number_scale.NumberScale(2.0, 1.0)
    with pytest.raises(InputError, match=r"around 1e\+09 and differ by 0.5 only"):
        number_scale.NumberScale.of(np.array([1e9, 1e9 + 1]))


def test_numbers_too_close_to_each_other_for_fp32_are_refused():
    with pytest.raises(InputError, match=r"differ by 1e-30 only.*multiply them by a constant"):
        number_scale.NumberScale.of(np.array([-1e-30, 1e-30]))


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"), (0.00123456, "0.001235"), (-1234.56, "-1,235"), (9_999.96, "10,000"),
        (250_000.0, "250,000"), (1_234_567.8, "1,234,568"), (1e13, "1e+13"), (1e-7, "1e-07"),
    ],
)  # fmt: skip
def test_numbers_are_shown_as_people_write_them(value, shown):
    assert number_scale.format_number(value) == shown


def test_the_scale_is_of_the_rows_that_are_left(tmp_path):
    rows = {"train": range(12), "validation": range(4), "test": range(20, 24)}
    for split, numbers in rows.items():
        lines = [f"document number {i},{i * i}" for i in numbers]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    data = schema.Data(source=str(tmp_path), task="number", on_leak="drop")
    corpus = prepare.prepare_corpus(sources.load_rows(data), data)
    assert len(corpus.train) == 8
    assert corpus.number == number_scale.NumberScale.of(corpus.train.labels)
    with pytest.raises(InputError, match=r"expected two different numbers or more, got only 4 in"):
        number_scale.NumberScale.of(np.array([4.0, 4.0]))
