"""Times and numbers of a column, put in their order."""

import numpy as np
import pytest

from finetune.data.moments import read_moments

IN_ORDER = (
    ["2023-12", "2024-01-01", "2024-01-01T00:00:01", "2024-01-01T01:00:00Z",
     "2024-01-01T00:30:00-01:00", " 2024-01-02 03:04:05.5 "],
    ["-1", "0", "1.5", "20240531"],
    [2020, 2021.5, 2022],
)  # fmt: skip


@pytest.mark.parametrize("values", IN_ORDER)
def test_each_is_after_the_one_before(values):
    numbers, odd = read_moments(values)
    assert odd == []
    assert (np.diff(numbers) > 0).all()


def test_what_has_no_order_is_told_by_its_place():
    for values, places in (
        (["2024-01-01", "31/12/2024", None, True], [1, 2, 3]),
        (["2021", "2024-05-31"], [1]),
        ([1, "nan", "inf", []], [1, 2, 3]),
        ([], []),
    ):
        assert read_moments(values)[1] == places
