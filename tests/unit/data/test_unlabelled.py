"""More rows for train without a label: which are taken, and which are left out and counted."""

import numpy as np
import pytest

from finetune.config import schema
from finetune.data import prepare, sources, unlabelled
from finetune.data.corpus import class_counts, split_hash
from finetune.data.unlabelled import add_unlabelled
from finetune.runtime.errors import InputError

LONG = "the quick brown fox jumps over the lazy dog and then it runs home through the old wood"


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    rows = {"train": range(6), "validation": range(6, 10), "test": range(10, 14)}
    for split, numbers in rows.items():
        lines = [f"text number {i} of {split},{'ab'[i % 2]}" for i in numbers]
        extra = [f"{LONG} today,a"] if split == "test" else []
        (folder / f"{split}.csv").write_text("\n".join(["text,label", *lines, *extra]) + "\n")
    data = schema.Data(source=str(folder), weight=None)
    return prepare.prepare_corpus(sources.load_rows(data), data), data


def test_rows_are_added_after_the_others(corpus, tmp_path):
    before, data = corpus
    (tmp_path / "one.csv").write_text("text,other\nfirst new,1\nsecond new,2\n,3\n")
    (tmp_path / "two.txt").write_text(
        f"third new\n{LONG} again\ntext number 10 of test\nfirst new\n"
    )
    files = [str(tmp_path / "one.csv"), str(tmp_path / "two.txt")]
    after = add_unlabelled(before, data, files)
    train = after.train
    assert [*train.texts][6:] == ["first new", "second new", "third new"]
    assert train.is_labelled.tolist() == [True] * 6 + [False] * 3
    assert [train.places.place(i) for i in (0, 6, 8)] == [
        "train.csv: row 1", "one.csv: row 1", "two.txt: line 1",
    ]  # fmt: skip
    assert class_counts(train, after.labels) == class_counts(before.train, before.labels)
    assert [*train.labelled_only().texts] == [*before.train.texts]
    assert split_hash(train.labelled_only()) == split_hash(before.train)
    assert split_hash(after.test) == split_hash(before.test)
    counts = {(f.kind, f.other): f.count for f in after.findings if f.split == "unlabelled"}
    assert counts == {
        ("empty", ""): 1, ("leak", "test"): 1, ("near leak", "test"): 1,
        ("unlabelled repeat", ""): 1, ("taught", ""): 3,
    }  # fmt: skip
    assert np.array_equal(train.take([7, 1]).is_labelled, [False, True])


def test_files_that_cannot_be_read_or_leave_nothing_are_named(corpus, tmp_path):
    before, data = corpus
    with pytest.raises(InputError) as error:
        add_unlabelled(before, data, [str(tmp_path / "none.csv"), str(tmp_path)])
    assert len(error.value.problems) == 2
    (tmp_path / "columns.csv").write_text("body\nx\n")
    with pytest.raises(InputError, match=r"no column 'text' \(data.text\)"):
        add_unlabelled(before, data, [str(tmp_path / "columns.csv")])
    (tmp_path / "known.csv").write_text("text\ntext number 1 of train\n")
    with pytest.raises(InputError, match=r"no document of .* is left: .*repeats a row of train"):
        add_unlabelled(before, data, [str(tmp_path / "known.csv")])


def test_it_is_said_where_near_duplicates_are_not_sought(corpus, tmp_path, monkeypatch):
    before, data = corpus
    (tmp_path / "new.csv").write_text(f"text\n{LONG} again\n")
    monkeypatch.setattr(unlabelled, "MOST_CHARACTERS", 100)
    after = add_unlabelled(before, data, [str(tmp_path / "new.csv")])
    assert [f.kind for f in after.findings if f not in before.findings] == ["not sought", "taught"]
