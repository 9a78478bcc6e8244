"""Where rows stand, in words."""

import numpy as np

from finetune.data.places import PairPlaces, Places, Shards


def test_places_of_some_rows_and_without_others() -> None:
    places = Places("a.csv", range(1, 6), "row")
    assert places.take([3, 0])[:] == ["a.csv: row 4", "a.csv: row 1"]
    assert places.short(2) == "row 3"
    known = places.take([1, 4])
    assert places.without(known)[:] == ["a.csv: row 1", "a.csv: row 3", "a.csv: row 4"]
    assert places.without(Places("b.csv", range(1, 6), "row")) is places


def test_shards_say_their_own_file() -> None:
    shards = Shards([Places("a", range(1, 3), "row"), Places("b", [7], "line")])
    assert (len(shards), shards[1], shards[2]) == (3, "a: row 2", "b: line 7")


def test_pairs_of_places() -> None:
    places = Places("a.csv", range(1, 6), "row")
    pairs = PairPlaces(places.take([2]), places.take([0]), np.array([0.917]))
    assert (len(pairs), pairs[0]) == (1, "a.csv: row 3 ≈ a.csv: row 1 (0.92)")
