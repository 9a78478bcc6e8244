"""Missing and repeated identifiers of a job: all are found, however few the bits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.inference import id_check

VALUES = st.one_of(st.none(), st.integers(0, 9), st.sampled_from(["", " ", "a", "b", "1", "2"]))


def check_ids(values, bits=id_check.BITS):
    check = id_check.IdCheck(bits)
    for value in values:
        check.add(value)
    return check.conclude(lambda: iter(values))


@pytest.mark.parametrize("bits", [8, 64, id_check.BITS])
def test_they_are_named_with_their_rows(bits):
    values = ["a", None, "b", "a", 1, "1", "", "b", "a", "c"]
    found = check_ids(values, bits)
    assert (found.missing, found.missing_rows) == (2, [2, 7])
    assert (found.repeated, found.repeated_rows) == (3, [(4, "a"), (8, "b"), (9, "a")])
    assert [*found.describe("ticket")] == [
        "2 without an id in 'ticket' (row 2, 7): id is empty",
        "3 with the id of an earlier row (row 4 (a), 8 (b), 9 (a)): kept",
    ]
    fine = check_ids("abc", bits)
    assert [*fine.describe("ticket")] == []


@given(st.lists(VALUES, max_size=60))
def test_counts_are_exact(values):
    named = [value for value in values if value is not None and str(value).strip()]
    different = {(type(value), value) for value in named}
    found = check_ids(values, 64)
    assert found.missing == len(values) - len(named)
    assert found.repeated == len(named) - len(different)


def test_one_of_many_is_found():
    many = [f"T-{i}" for i in range(300_000)]
    many[200_000] = "T-7"
    found = check_ids(many)
    assert found.repeated_rows == [(200_001, "T-7")]
    assert "and 5 more" in "".join(id_check.IdProblems(8, [1, 2, 3]).describe("x"))


def test_identifiers_that_all_differ_are_read_once():
    check = id_check.IdCheck()
    for value in range(1000):
        check.add(value)
    assert check.conclude(None) == id_check.IdProblems()
