"""Texts that stand on disk: the same as a list of them, with memory that texts do not fill."""

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.config.schema import Data
from finetune.data import checks, text_store
from finetune.data.columns import LabelColumn
from finetune.data.places import Places, Shards
from finetune.data.prepare import prepare_corpus
from finetune.data.sources import load_rows
from finetune.data.text_store import Column, Pairs, Store, Texts

cells = st.lists(st.none() | st.text(max_size=30), max_size=60)


@pytest.fixture
def tiny_pieces(monkeypatch):
    """Everything goes to disk, a few bytes at once."""
    monkeypatch.setattr(text_store, "IN_MEMORY", 1)
    monkeypatch.setattr(text_store, "AT_ONCE", 16)


@given(st.lists(cells, min_size=1, max_size=3), st.data())
def test_they_are_the_list_that_they_were_made_of(parts, data):
    """Also where several columns fill one file by turns, and in any order of rows."""
    store = Store()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_store, "AT_ONCE", 16)
        columns = [Column(store) for _ in parts]
        for i in range(60):
            for part, column in zip(parts, columns, strict=True):
                if i < len(part):
                    column.add(part[i])
        every = [cell for part in parts for cell in part]
        texts = Texts.joined([column.texts() for column in columns])
        assert len(texts) == len(every)
        assert list(texts) == every
        assert texts == every
        assert [texts[i] for i in range(len(every))] == every
        assert texts[3:9] == every[3:9]
        rows = data.draw(st.lists(st.integers(0, len(every) - 1))) if every else []
        taken = texts.take(np.array(rows, dtype=np.int64))
        assert list(taken) == [every[i] or "" for i in rows]
        assert taken[:] == list(taken)
        assert texts != [*every, "one more"]


def test_the_file_is_on_disk_and_leaves_nothing(tmp_path, tiny_pieces):
    store = Store(tmp_path / "new" / "folder")
    column = Column(store)
    for i in range(100):
        column.append(f"text {i}")
    texts = column.texts()
    assert not isinstance(store._file, io.BytesIO)
    assert texts[99] == "text 99"
    assert list(tmp_path.rglob("*")) == [tmp_path / "new", tmp_path / "new" / "folder"]


def test_where_no_file_can_be_they_stay_in_memory(tmp_path, tiny_pieces):
    (tmp_path / "file").write_text("x")
    column = Column(Store(tmp_path / "file" / "folder"))
    column.append("a text, and more than 16 bytes of it")
    assert column.texts() == ["a text, and more than 16 bytes of it"]


def test_a_column_mends_and_notes():
    column = Column(Store())
    for cell in ("good", b"caf\xe9".decode("utf-8", "surrogateescape"), 7, None, "\ud800", ["a"]):
        column.append(cell)
    assert column.texts() == ["good", "caf\ufffd", None, None, "\ufffd", None]
    assert column.damaged == [1, 4]
    assert column.odd == [(2, 7), (5, ["a"])]


def test_pairs_read_as_one_text():
    pairs = Pairs(Texts.of(["a", "b", "c"]), Texts.of(["x", "", "z"]))
    assert list(pairs) == ["a\n\nx", "b\n\n", "c\n\nz"]
    assert (pairs[2], pairs[:1], len(pairs)) == ("c\n\nz", ["a\n\nx"], 3)


def test_of_labels_that_are_alike_one_is_kept():
    labels = LabelColumn()
    for cell in (1, True, "1", "".join(["a", "b"]), "".join(["a", "b"]), None, ["a"]):
        labels.append(cell)
    assert labels == [1, True, "1", "ab", "ab", None, ["a"]]
    assert [type(label) for label in labels[:3]] == [int, bool, str]
    assert labels[3] is labels[4]


def test_places_of_shards_and_of_some_rows():
    shards = Shards([Places("a.csv", range(1, 3), "row"), Places("b.csv", range(1, 4), "row")])
    places = Places("a.csv and 1 more", shards).take([4, 1, 2])
    assert [places.place(i) for i in range(3)] == ["b.csv: row 3", "a.csv: row 2", "b.csv: row 1"]
    assert places.take(np.array([2])).short(0) == "b.csv: row 1"


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "shards"])
def test_memory_does_not_grow_with_the_texts(tmp_path, monkeypatch, kind):
    """60 MB of texts become splits in a fraction of that."""
    monkeypatch.setattr(text_store, "IN_MEMORY", 2**20)
    monkeypatch.setattr(checks, "MOST_CHARACTERS", 10_000)  # seeking has arrays of its own
    source = written(tmp_path / "data", kind, rows=3000, size=20_000)
    data = Data(source=str(source))
    load_rows(data.model_copy(update={"source": str(written(tmp_path / "few", kind, 30, 10))}))
    tracemalloc.start()
    corpus = prepare_corpus(load_rows(data, tmp_path), data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6
    assert sum(map(len, corpus.splits())) == 3000
    row = (
        int(corpus.train.places.place(5).split()[-1])
        - 1
        + 1500 * ("00001" in corpus.train.places.place(5))
    )
    assert corpus.train.texts[5] == text_of(row, 20_000)


def text_of(i: int, size: int) -> str:
    return f"{i} ".ljust(size, "abcdefg "[i % 7])


def written(folder: Path, kind: str, rows: int, size: int) -> Path:
    """A source with so many texts of so many characters."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    lines: list[dict[str, Any]] = [
        {"text": text_of(i, size), "label": "xy"[i % 2]} for i in range(rows)
    ]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(lines), folder / "train.parquet", row_group_size=200)
    elif kind == "csv":
        cells = [f"{line['text']},{line['label']}" for line in lines]
        (folder / "train.csv").write_text("\n".join(["text,label", *cells]) + "\n")
    else:
        many = 2 if kind == "shards" else 1
        for k in range(many):
            name = f"train-0000{k}-of-00002" if many > 1 else "train"
            part = lines[k * rows // many : (k + 1) * rows // many]
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in part))
    return folder
