"""Which shard a file is, and which shards are missing."""

from dataclasses import astuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.data.shards import missing_shards, shard_of


@pytest.mark.parametrize(
    ("name", "shard"),
    [
        ("train-00000-of-00003.jsonl.gz", ("train", 0, 3)),
        ("train-00002-of-00003-a09b74b3ef9c3b56.parquet", ("train", 2, 3)),
        ("my_split_1_of_2.csv", ("my_split", 1, 2)),
        ("train.part-3-of-12.tsv", ("train.part", 3, 12)),
        ("part-00000-8f1c-c000.json", ("part", 0, None)),
        ("part-00012.parquet", ("part", 12, None)),
        ("train.csv", None),
        ("best-of-2024.csv", None),
        ("top-10-of-2024.csv", None),
        ("part-1.csv", None),
    ],
)
def test_names(name: str, shard: tuple[str, int, int | None] | None) -> None:
    found = shard_of(Path(name))
    assert (None if found is None else astuple(found)) == shard


@given(st.integers(1, 30), st.booleans(), st.data())
def test_every_missing_shard_is_named(total: int, from_one: bool, data: st.DataObject) -> None:
    numbers = list(range(from_one, total + from_one))
    # The last of a set that begins at 1 tells that it does.
    optional = numbers[:-1] if from_one else numbers
    lost = data.draw(st.sets(st.sampled_from(optional or [0]), max_size=total - 1))
    files = {n: Path(f"train-{n:05d}-of-{total:05d}.csv") for n in numbers}
    found = missing_shards([path for n, path in files.items() if n not in lost])
    names = [files[n].name for n in sorted(lost) if n in files]
    assert [names for _, names in found] == ([names] if names else [])
    for said, _ in found:
        assert said.startswith(f"of 'train', {total - len(names)} of {total} shards are there; ")


def test_sets_of_two_splits_and_of_names_with_a_hash() -> None:
    files = ["a-0-of-2.csv", "b-1-of-2.csv", "b-2-of-2.csv", "c-00001-of-00002-0123456789ab.csv"]
    assert missing_shards(map(Path, files)) == [
        ("of 'a', 1 of 2 shards are there; missing: a-1-of-2.csv", ["a-1-of-2.csv"]),
        (
            "of 'c', 1 of 2 shards are there; missing: c-00000-of-00002-*.csv",
            ["c-00000-of-00002-*.csv"],
        ),
    ]
