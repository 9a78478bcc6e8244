"""Predictions from Python: what goes in, in the same shape out."""

from pathlib import Path

import datasets
import pandas as pd
import pyarrow as pa
import pytest

import finetune
from finetune.api import prediction
from finetune.inference.classifier import Classifier

pl = pytest.importorskip("polars")
TEXTS = ["good team", "bank share price", "the robot"]


@pytest.fixture
def expected(run):
    return [one["label"] for one in run.classifier(TEXTS)]


def test_texts_and_rows_give_a_dict_for_each(run, expected):
    found = finetune.predict(run, TEXTS)
    assert [one["label"] for one in found] == expected
    assert found == finetune.predict(run, [{"text": text} for text in TEXTS])
    assert found[:1] == finetune.predict(run, TEXTS[0])
    assert found[:1] == finetune.predict(run, {"text": TEXTS[0]})
    assert found == finetune.predict(run.classifier, TEXTS)
    assert found == finetune.predict(run.folder, TEXTS)


def test_frames_give_frames_of_their_kind(run, expected):
    frame = pd.DataFrame({"label": "x", "text": TEXTS}, index=[7, 8, 9])
    found = finetune.predict(run, frame)
    assert list(found.columns) == ["label", "score"]
    assert found["label"].tolist() == expected
    assert found.index.tolist() == [7, 8, 9]
    pd.testing.assert_frame_equal(found, finetune.predict(run, frame["text"]))
    of_polars = finetune.predict(run, pl.from_pandas(frame))
    assert isinstance(of_polars, pl.DataFrame)
    assert of_polars["label"].to_list() == expected
    assert finetune.predict(run, pl.Series(TEXTS))["label"].to_list() == expected
    table = pa.table({"text": TEXTS})
    assert finetune.predict(run, table).column("label").to_pylist() == expected
    assert finetune.predict(run, table.column("text")).column("label").to_pylist() == expected
    found = finetune.predict(run, datasets.Dataset.from_dict({"text": TEXTS}))
    assert isinstance(found, datasets.Dataset)
    assert found["label"][:] == expected


def test_a_column_for_each_labels_probability(run):
    found = finetune.predict(run, pd.DataFrame({"body": TEXTS}), text="body", probabilities=True)
    names = [f"probabilities.{label}" for label in "abc"]
    assert list(found.columns) == ["label", "score", *names]
    assert found[names].sum(axis=1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    empty = finetune.predict(run, pd.DataFrame({"text": []}, dtype=str))
    assert list(empty.columns) == ["label", "score"]


def test_files_by_path_and_by_name(run, here, expected):
    pd.DataFrame({"text": TEXTS}).to_csv("some.csv", index=False)
    for file in ("some.csv", Path("some.csv")):
        assert [one["label"] for one in finetune.predict(run, file)] == expected
    with pytest.raises(finetune.InputError, match="no such file or folder"):
        finetune.predict(run, "other.csv")
    assert not prediction._is_file("We use pandas.read_csv of some.csv")
    assert not prediction._is_file("Read train.csv\n")


def test_a_row_that_is_not_right_costs_no_other(run, expected):
    frame = pd.DataFrame({"text": ["good team", None, 3]}, index=[5, 6, 7])
    found = finetune.predict(run, frame, probabilities=True)
    assert found["label"].isna().tolist() == [False, True, True]
    assert found["label"].iloc[0] == expected[0]
    assert found["probabilities.a"].isna().tolist() == [False, True, True]
    assert found["error"].dropna().to_dict() == {
        6: "the data frame: row 2: 'text' is null",
        7: "the data frame: row 3: 'text' should be text, and is 3",
    }
    of_column = finetune.predict(run, frame["text"])
    assert of_column["error"].dropna().to_dict() == {
        6: "documents: number 2: expected text, got None",
        7: "documents: number 3: expected text, got 3",
    }
    of_polars = finetune.predict(run, pl.DataFrame({"text": ["good team", None]}))
    assert of_polars["error"].to_list() == [None, "the data frame: row 2: 'text' is null"]
    of_arrow = finetune.predict(run, pa.table({"text": pa.array([None, None], pa.string())}))
    assert of_arrow.column("label").null_count == 2
    of_list = finetune.predict(run, ["good team", None])
    assert of_list[0] == finetune.predict(run, "good team")[0]
    assert of_list[1] == {
        "label": None,
        "score": None,
        "error": "documents: number 2: expected text, got None",
    }


def test_a_table_as_a_whole_is_refused(run):
    def problem(data, **more):
        with pytest.raises(finetune.InputError) as told:
            finetune.predict(run, data, **more)
        return str(told.value)

    assert problem(pd.DataFrame({"test": TEXTS})) == (
        "the data frame: no column 'text' (text=); did you mean 'test'? (columns: 'test')"
    )
    frame = pd.DataFrame({"text": TEXTS})
    assert problem(frame, text=["a", "b"]) == "text: the model reads 1 column (text), got 2"
    assert problem(None) == "documents: expected a text or several, got a NoneType"


def test_rows_may_call_their_columns_otherwise(run, expected):
    rows = [{"body": text} for text in TEXTS]
    assert [one["label"] for one in finetune.predict(run, rows, text="body")] == expected


def test_a_classifier_reads_a_frame_row_by_row(run, expected):
    """Iterating over a frame gives its column names, which are no documents."""
    classify = finetune.load(run)
    assert isinstance(classify, Classifier)
    labels = f"{len(classify.labels)} labels: {', '.join(classify.labels)}"
    folder = str(Path(run) / "model")
    assert repr(classify) == f"<Classifier {folder!r} ({labels}; engine torch)>"
    frame = pd.DataFrame({"id": [1, 2, 3], "text": TEXTS})
    for data in (frame, frame["text"], pl.from_pandas(frame), pa.table(frame)):
        found = classify(data)
        assert isinstance(found, pd.DataFrame if isinstance(data, pd.Series) else type(data))
        assert [str(label) for label in found["label"]] == expected
