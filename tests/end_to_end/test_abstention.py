"""`score.target_accuracy`: the run's threshold is in its model, and whoever loads that obeys it."""

import csv
import json

import pytest

from finetune.cli import predict
from finetune.evaluation.analysis_model import Coverage
from finetune.inference.classifier import Classifier
from finetune.reporting.results_model import read_results
from tests.support.runs import run_here


@pytest.fixture
def abstaining(here):
    """A run whose first epochs leave it unsure, and its results."""
    run_here("run.dir=sure", "train.epochs=1", "score.target_accuracy=0.6")
    return here / "sure"


def test_a_saved_model_abstains_below_its_threshold(abstaining, tmp_path):
    found = read_results(abstaining).abstention
    assert found is not None
    assert found.saved
    config = json.loads((abstaining / "model/config.json").read_text(encoding="utf-8"))
    assert config["document"]["abstain_below"] == found.threshold
    lines = (abstaining / "predictions/test.jsonl").read_text(encoding="utf-8").splitlines()
    sure = [max(json.loads(line)["probabilities"].values()) >= found.threshold for line in lines]
    assert isinstance(found.test, Coverage)
    assert sum(sure) == found.test.rows < len(sure)
    low, high = found.test.accuracy_interval or (0.0, 1.0)
    assert low < high
    documents = (abstaining.parent / "data" / "test.jsonl").read_text(encoding="utf-8")
    texts = [json.loads(line)["text"] for line in documents.splitlines()]
    labels = [one["label"] for one in Classifier(abstaining, precision="fp32")(texts)]
    assert {None} < {*labels}  # some, and not all
    scores = [one["score"] for one in Classifier(abstaining, precision="fp32")(texts)]
    assert [label is None for label in labels] == [score < found.threshold for score in scores]
    (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    output = tmp_path / "predicted.csv"
    words = ["--output", str(output), "--precision", "fp32"]
    assert predict.main([str(abstaining), str(tmp_path / "texts.txt"), *words]) == 0
    with output.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] or None for row in rows] == labels
    assert all(row["score"] for row in rows)
    card = (abstaining / "model/README.md").read_text(encoding="utf-8")
    assert 'classify.model.config.document["abstain_below"]' in card


def test_without_a_target_and_without_leave_nothing_abstains(here):
    for name, words in (("plain", ()), ("told", ("score.target_accuracy=0.9",))):
        run_here(f"run.dir={name}", "train.epochs=1", *words, "score.abstain=false")
        config = json.loads((here / name / "model/config.json").read_text(encoding="utf-8"))
        assert config["document"]["abstain_below"] is None
