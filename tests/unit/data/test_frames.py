"""Data frames as sources: the same rows as of a file, the same messages, a name by content."""

import datetime
import gc

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.config import schema
from finetune.data import frames, prepare, sources
from finetune.data.corpus import corpus_hash
from finetune.data.formats.frame import FrameReader, FrameTable
from finetune.data.formats.registry import FORMATS
from finetune.data.formats.source import DataSource, ReadProgress
from finetune.runtime.errors import InputError

pl = pytest.importorskip("polars")
ROWS = [{"text": f"text {i} of many", "label": "abc"[i % 3]} for i in range(60)]


def read(data, **keys):
    held = frames.hold(data)
    return sources.load_rows(schema.Data(source=held.name, **keys))


def labels(column):
    frame = pd.DataFrame({"text": [f"text {i}" for i in range(len(column))], "label": column})
    return read(frame)["train"].labels


def corpus(source, **keys):
    data = schema.Data(source=source, **keys)
    return prepare.prepare_corpus(sources.load_rows(data), data)


@pytest.mark.parametrize(
    "make",
    [pd.DataFrame, pl.DataFrame, pa.Table.from_pylist, datasets.Dataset.from_list],
    ids=["pandas", "polars", "arrow", "datasets"],
)
def test_every_kind_of_table_gives_the_rows_of_a_file(make, tmp_path):
    pd.DataFrame(ROWS).to_csv(tmp_path / "rows.csv", index=False)
    held = frames.hold(make(ROWS))
    assert corpus_hash(corpus(held.name)) == corpus_hash(corpus(str(tmp_path / "rows.csv")))
    rows = read({"train": make(ROWS), "dev": make(ROWS[:9])})
    assert [*rows] == ["train", "dev"]
    assert rows["dev"].places.place(2).endswith(" 'dev': row 3")


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00"), max_size=12)


@settings(max_examples=40)
@given(
    rows=st.lists(
        st.tuples(CELLS, CELLS, st.sampled_from(["a", "b", "NA", "null", "1"])),
        min_size=20, max_size=40,
    ),
    polars=st.booleans(),
)  # fmt: skip
def test_the_same_rows_by_frame_and_by_file_are_the_same_corpus(rows, polars, tmp_path_factory):
    """Whatever the texts: the same splits, labels and findings, but for the name of the source."""
    # Each label often enough, and texts that differ.
    given = [(f"one {i}", "x", "ab"[i % 2]) for i in range(20)]
    columns = ["title", "body", "label"]
    frame = pd.DataFrame([*given, *rows], columns=columns)
    file = tmp_path_factory.getbasetemp() / "same.csv"
    frame.to_csv(file, index=False)
    held = frames.hold(pl.from_pandas(frame) if polars else frame)
    ours, theirs = (corpus(s, text=["title", "body"]) for s in (held.name, str(file)))
    assert corpus_hash(ours) == corpus_hash(theirs)
    assert [one.kind for one in ours.findings] == [one.kind for one in theirs.findings]


def test_labels_of_every_type_that_a_frame_has():
    assert labels(pd.Categorical(["b", "a", None], categories=["b", "a", "c"])) == ["b", "a", None]
    assert labels([2, 0, 1]) == [2, 0, 1]
    assert labels([2, None, 1]) == [2, None, 1]  # floats to pandas
    assert labels(pd.array([2, None, 1], dtype="Int64")) == [2, None, 1]
    assert labels([True, False, True]) == [True, False, True]
    assert labels([True, None, False]) == [True, None, False]
    assert labels(["a", np.nan, pd.NA]) == ["a", None, None]
    assert labels(np.array(["a", "b", None], dtype=object)) == ["a", "b", None]
    assert labels([np.int64(3), "x", np.bool_(True)]) == [3, "x", True]
    assert labels(pd.array(["a", "b", None], dtype="string[pyarrow]")) == ["a", "b", None]
    assert labels([["a"], [], ("a", "b")]) == [("a",), (), ("a", "b")]
    assert labels([np.array(["a"]), np.array([]), None]) == [("a",), (), None]
    frame = pl.DataFrame({"text": ["x", "y"], "label": ["b", "a"]})
    for kind in (pl.Categorical, pl.Enum(["b", "a"]), pl.String):
        assert read(frame.with_columns(pl.col("label").cast(kind)))["train"].labels == ["b", "a"]


def test_names_of_a_data_sets_classes_are_its_labels():
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    rows = [{"text": f"text {i}", "label": i % 2} for i in range(40)]
    made = datasets.Dataset.from_list(rows, features=features)
    split = made.train_test_split(0.25, seed=0)  # a DatasetDict
    held = frames.hold(split)
    assert corpus(held.name).labels == ("no", "yes")
    assert {source.name for source in held.splits.values()} == {
        "the data set 'train'",
        "the data set 'test'",
    }


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (
            [1.5, 2.0],
            "got 1.5 at row 1, 2.0 at row 2; where they are numbers to be predicted, set "
            "data.task=number",
        ),
        ([datetime.date(2026, 1, 2), "a"], "got datetime.date(2026, 1, 2) at row 1"),
        (["a", {"b": 1}], 'got an object {"b": 1} at row 2'),
    ],
)
def test_cells_of_no_label_are_named_by_row(label, said):
    with pytest.raises(InputError) as told:
        labels(label)
    assert str(told.value) == (
        "the data frame: 'label' (data.label): expected a label, as text, a whole number or true "
        f"or false, or a list of labels, {said}"
    )


def test_what_is_wrong_with_columns_is_told_as_of_a_file():
    with pytest.raises(InputError, match=r"the data frame: 2 columns are called 'text'"):
        read(pd.DataFrame([["a", "b", "c"]], columns=["text", "text", "label"]))
    with pytest.raises(InputError, match=r"the data frame: no column 'text' .*columns: '0', '1'"):
        read(pd.DataFrame([["a", "b"]]))
    with pytest.raises(InputError, match="the data frame: no rows"):
        read(pd.DataFrame({"text": [], "label": []}))
    with pytest.raises(InputError, match=r"data.train: the source has the splits a, b, and none"):
        read({"a": pd.DataFrame(ROWS), "b": pd.DataFrame(ROWS)})


def test_broken_characters_are_mended_as_of_a_file():
    cells = {"text": ["fine", "caf\udce9"], "label": ["a", "b"]}
    frame = pd.DataFrame(cells, dtype=object)
    rows = read(frame)["train"]
    assert rows.texts[1] == "caf\ufffd"
    assert rows.damaged == [1]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (5, "got an int"),
        (["a"], "got a list"),
        ({}, "got an empty dict"),
        (pl.LazyFrame({"a": [1]}), "got a polars.LazyFrame; pass frame.collect()"),
        (pd.Series(["a"]), "got a pandas.Series; pass series.to_frame()"),
        (datasets.Dataset.from_list(ROWS).to_iterable_dataset(), "which may have no end; save it"),
        ({"train": pd.DataFrame(ROWS), "test": 5}, "got an int for 'test'"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value[:12],
)
def test_what_is_no_table_is_refused(data, said):
    with pytest.raises(InputError, match=r"^data: expected a data frame") as told:
        frames.hold(data)
    assert said in str(told.value)


def test_a_name_follows_from_the_content_and_lasts_as_long_as_what_is_held():
    frame = pd.DataFrame(ROWS)
    one, same = frames.hold(frame), frames.hold(frame.copy())
    assert one.name == same.name
    changed = frame.copy()
    changed.loc[5, "text"] = "another"
    other = frames.hold(changed)
    assert other.name != one.name
    assert frames.hold(frame.rename(columns={"text": "body"})).name != one.name
    assert frames.find_held(other.name) is other
    name = other.name
    del other
    gc.collect()
    with pytest.raises(InputError, match=rf"data.source: {name} was a data frame of the Python"):
        frames.find_held(name)


def test_the_same_table_held_twice_is_there_for_as_long_as_either():
    one = frames.hold(pd.DataFrame(ROWS))
    again = frames.hold(pd.DataFrame(ROWS))
    del again
    gc.collect()
    assert frames.find_held(one.name) is one


def pandas_frame(numbers):
    return pd.DataFrame({"text": [f"text {i}" for i in range(len(numbers))], "label": numbers})


@pytest.mark.parametrize("kind", ["int64", "Int64", "bool", "int64[pyarrow]", "object"])
def test_what_is_written_into_a_pandas_frame_does_not_reach_what_is_held(kind):
    frame = pandas_frame([i % 2 for i in range(40)]).astype({"label": kind})
    held = frames.hold(frame)
    before = sources.load_rows(schema.Data(source=held.name))["train"].labels
    frame.loc[0, "label"] = True if kind == "bool" else 7
    frame.loc[1, "text"] = "another"
    rows = sources.load_rows(schema.Data(source=held.name))["train"]
    assert rows.labels == before
    assert rows.texts[1] == "text 1"


@pytest.mark.parametrize("numpy", [True, False], ids=["numpy", "polars"])
def test_what_is_written_into_other_tables_does_not_reach_what_is_held(numpy):
    numbers = np.arange(40) % 2
    names = [f"text {i}" for i in range(40)]
    kind = pa.table if numpy else pl.DataFrame
    table = kind({"text": names, "label": pa.array(numbers) if numpy else numbers})
    held = frames.hold(table)
    before = sources.load_rows(schema.Data(source=held.name))["train"].labels
    if numpy:
        numbers[0] = 7
        assert table["label"][0].as_py() == 7
    else:
        table[0, "label"] = 7
    assert sources.load_rows(schema.Data(source=held.name))["train"].labels == before


def test_lists_of_labels_are_the_held_tables_own():
    frame = pandas_frame([["a"], ["b"]] * 20)
    held = frames.hold(frame)
    before = sources.load_rows(schema.Data(source=held.name))["train"].labels
    frame.loc[0, "label"].append("c")
    assert sources.load_rows(schema.Data(source=held.name))["train"].labels == before


def test_a_reader_reads_the_columns_that_are_asked_for_in_pieces(monkeypatch):
    monkeypatch.setattr("finetune.data.formats.frame.BATCH_ROWS", 7)
    table = FrameTable(("a", "b"), (pa.chunked_array([["x"] * 20]), [*range(20)]), 20)
    source, progress = DataSource("the data frame", "frame", table=table), ReadProgress()
    reader = FORMATS["frame"].open(source, ["b", "c"], progress, None)
    assert isinstance(reader, FrameReader)
    rows = [*reader.rows()]
    assert [row.cells for row in rows] == [{"b": i} for i in range(20)]
    assert [row.number for row in rows] == [*range(1, 21)]
    assert progress.share() == 1


def test_a_single_column_is_read_as_texts():
    assert frames.as_texts(pd.Series(["a", np.nan])) == ["a", None]
    assert frames.as_texts(pl.Series(["a", None])) == ["a", None]
    assert frames.as_texts(pa.array(["a", None])) == ["a", None]
    assert frames.as_texts(["a"]) is None
    assert frames.as_texts(pa.table({"a": ["a"]})) is None
