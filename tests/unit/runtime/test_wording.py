"""`wording.count_of`: one, none, many, and plurals of their own."""

from finetune.runtime.wording import count_of


def test_counts_agree_with_their_noun():
    assert [count_of(n, "row") for n in (0, 1, 2, 4096)] == [
        "0 rows", "1 row", "2 rows", "4,096 rows"
    ]  # fmt: skip
    assert [count_of(n, "process", "processes") for n in (1, 3)] == ["1 process", "3 processes"]
