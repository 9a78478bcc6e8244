"""The cache of a command's documents: made once, made anew where the origin differs."""

from finetune.training.prepared_data import DataCache


def test_the_last_of_each_kind_is_kept_and_what_was_made_of_another_goes():
    cache, made = DataCache(), []

    def get(kind, origin):
        return cache.get(kind, origin, lambda: made.append((kind, origin)) or len(made))

    assert [get("rows", 1), get("tokens", "a"), get("rows", 1), get("tokens", "a")] == [1, 2, 1, 2]
    assert get("rows", 2) == 3
    assert get("tokens", "a") == 4  # it was made of the rows before
    assert get("tokens", "b") == 5
    assert get("rows", 2) == 3
