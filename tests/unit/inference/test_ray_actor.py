"""`ray_actor.RayClassifier` without a cluster: a batch in, the same with predictions out."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("ray", reason="the extra `ray` is not installed")

from finetune.data.columns import ColumnSpec
from finetune.inference import classifier as classifier_module
from finetune.inference.decision import DecisionRules
from finetune.inference.ray_actor import RayClassifier

BATCH = pa.table({"text": ["good", None, "bad"], "n": [1, 2, 3], "label": ["x", "y", "z"]})


class FakeClassifier:
    """Says the first label for every document."""

    rules = DecisionRules(("a", "b"))
    labels = rules.labels
    columns = ("text",)

    reading = SimpleNamespace(id=None, column_spec=lambda: ColumnSpec(("text",), ""))

    def __init__(self, source, **options):
        self.options = options

    def encode(self, rows):
        return [row.texts for row in rows if row.error is None]

    def predict(self, rows, table, probabilities):
        logits = np.log(np.tile([[0.75, 0.25]], (len(table), 1))).astype(np.float32)
        predictions = self.rules.decide(logits, probabilities)
        empty = dict.fromkeys(self.rules.fields)
        for row in rows:
            yield next(predictions) if row.error is None else empty | {"error": row.error}


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    monkeypatch.setattr(classifier_module, "Classifier", FakeClassifier)


def test_predictions_replace_columns_of_their_name():
    table = RayClassifier("model", probabilities=True, threads=1)(BATCH)
    assert table.column_names == [
        "text", "n", "label", "score", "probabilities.a", "probabilities.b", "error"
    ]  # fmt: skip
    rows = table.to_pylist()
    assert [row["label"] for row in rows] == ["a", None, "a"]
    assert [row["probabilities.b"] for row in rows] == [0.25, None, 0.25]
    assert rows[1]["error"] == "the batch: row 2: 'text' is null"


def test_what_the_reader_could_not_read_is_told():
    problems = pa.array(["a.csv: row 1: broken", None, None], pa.string())
    table = RayClassifier("model")(BATCH.append_column("finetune.problem", problems))
    assert table.column_names == ["text", "n", "label", "score", "error"]
    assert table.column("error").to_pylist() == [
        "a.csv: row 1: broken", "the batch: row 2: 'text' is null", None
    ]  # fmt: skip
    assert table.column("label").to_pylist() == [None, None, "a"]


def test_only_the_kept_columns_stay():
    table = RayClassifier("model", keep=["n"])(BATCH)
    assert table.column_names == ["n", "label", "score", "error"]


def test_a_missing_column_is_an_error_of_each_row():
    table = RayClassifier("model", text=["body"])(BATCH)
    assert table.column("error").to_pylist()[0] == "the batch: row 1: 'body' is missing"
