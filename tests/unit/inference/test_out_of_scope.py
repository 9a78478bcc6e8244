"""score.out_of_scope through a whole run: chosen, saved, obeyed, told, refused where it must be."""

import contextlib
import dataclasses
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from finetune import run
from finetune.cli import evaluate, predict
from finetune.evaluation.analysis_model import OutOfScope
from finetune.inference import demo, engines
from finetune.inference.classifier import Classifier
from finetune.inference.detector_file import FILE, read_detector
from finetune.inference.out_of_scope import WORDS as KEYWORDS
from finetune.inference.scope_counts import count_flagged, describe_scope
from finetune.reporting.out_of_scope_text import explain_out_of_scope, explain_scope
from finetune.runtime.errors import InputError
from finetune.tokenization.document_format import drop_detector
from tests.support.runs import reset_accelerate, results, run_here

WORDS = ("score.out_of_scope_rate=0.1", "train.max_steps=8")
OTHERS = [{"text": f"0 1 2 3 . , ! {i}"} for i in range(12)]


@pytest.fixture(scope="module")
def made(documents, tmp_path_factory):
    """A working folder with a run that has a detector, and one without."""
    folder = tmp_path_factory.mktemp("scope")
    for name in ("encoder", "data", "tiny.yaml"):
        (folder / name).symlink_to(documents / name)
    (folder / "others.jsonl").write_text("".join(json.dumps(row) + "\n" for row in OTHERS))
    with contextlib.chdir(folder):
        run_here(*WORDS, "score.out_of_scope=others.jsonl", "run.dir=with")
        run_here(*WORDS, "run.dir=without")
    return folder


@pytest.fixture
def classifier(made):
    return Classifier(made / "with", precision="fp32", threads=1)


def test_the_results_say_what_was_chosen(made):
    found = results(made / "with")["out_of_scope"]
    assert {one["kind"] for one in found["tried"]} >= {found["kind"], "energy", "neighbours"}
    assert (found["rate"], found["validation_rows"], found["groups"]) == (0.1, 13, 3)
    assert found["test"]["rows"] == 17
    assert found["given"]["rows"] == 12
    assert found["given"]["source"] == "others.jsonl"
    page = (made / "with/report.html").read_text()
    assert '<section id="out-of-scope">' in page
    assert "others.jsonl" in page
    plain = results(made / "without")
    assert plain["out_of_scope"] is None
    assert 'id="out-of-scope"' not in (made / "without/report.html").read_text()
    assert plain["hashes"]["weights"] == results(made / "with")["hashes"]["weights"]
    assert not (made / "without/model" / FILE).exists()


def test_predictions_obey_it(made, classifier):
    rows = [json.loads(line) for line in (made / "data/test.jsonl").open()]
    found = classifier(rows, probabilities=True)
    section = results(made / "with")["out_of_scope"]
    for one in found:
        assert one["out_of_scope"] == (one["out_of_scope_score"] > section["threshold"])
        assert (one["label"] is None) == one["out_of_scope"]
        assert set(one["probabilities"]) == {*"abc"}
    assert sum(one["out_of_scope"] for one in found) == section["test"]["flagged"]
    others = classifier([row["text"] for row in OTHERS])
    assert sum(one["out_of_scope"] for one in others) == section["given"]["flagged"]
    assert classifier([None])[0]["out_of_scope"] is None
    assert "out_of_scope" not in Classifier(made / "without")("a team")[0]
    assert classifier.identity != Classifier(made / "without", precision="fp32").identity


def test_no_engine_without_it_is_chosen(made, monkeypatch):
    def compare(*args):
        raise AssertionError("engines were compared")

    monkeypatch.setattr("finetune.inference.classifier.choose_engine", compare)
    chosen = Classifier(made / "with", engine="auto", threads=1)
    assert chosen.engine_name == "torch"
    assert chosen.engine.reasons[0] == "auto: torch, which alone tells documents that no label fits"
    assert "out_of_scope" in chosen("a team")[0]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("energy", None),
        ("neighbours", r"by what its head reads \(score.out_of_scope: neighbours\)"),
    ],
)
def test_an_engine_without_states_obeys_it_or_is_refused(made, tmp_path, monkeypatch, kind, said):
    """Never is the column left out without a word."""
    folder = tmp_path / "model"
    shutil.copytree(made / "with/model", folder)
    (folder / "identity.json").unlink()
    arrays = {"states": np.ones((4, 32), np.float16)} if kind == "neighbours" else {}
    kept = {"kind": kind, "threshold": -99.0, "rate": 0.1}
    save_file(arrays, folder / FILE, metadata={"out_of_scope": json.dumps(kept)})
    load = engines.load_model
    monkeypatch.setattr(
        engines,
        "load_model",
        lambda name, *given: dataclasses.replace(load("torch", *given), hidden=0),
    )
    if said is None:
        found = Classifier(folder, engine="onnx", precision="fp32", threads=1)("a team")[0]
        assert found["out_of_scope"] is True
        assert found["label"] is None
    else:
        with pytest.raises(InputError, match=said):
            Classifier(folder, engine="onnx")


def test_files_demo_and_evaluation_obey_it(made, classifier, monkeypatch, capsys):
    monkeypatch.chdir(made)
    reset_accelerate()
    words = ["with", "others.jsonl", "--output", "out.jsonl", "--quiet", "--explain", "2"]
    assert predict.main(words) == 0
    rows = [json.loads(line) for line in (made / "out.jsonl").read_text().splitlines()]
    expected = classifier([row["text"] for row in OTHERS])
    assert [row["out_of_scope"] for row in rows] == [one["out_of_scope"] for one in expected]
    assert all((row["explanation"] is None) == row["out_of_scope"] for row in rows)
    monkeypatch.setattr(
        classifier.rules.detector.__class__, "score", lambda self, logits, states: np.full(1, 1e9)
    )
    shown = demo.inspect_texts(classifier, ["a team"])
    assert shown.out_of_scope
    assert not shown.predicted
    assert "None of these" in demo.as_html(shown)
    monkeypatch.undo()
    monkeypatch.chdir(made)
    mixed = [{"text": "team game", "label": "a"}, {"text": "0 1 2", "label": "z"}] * 3
    (made / "mixed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in mixed))
    words = ["with", "mixed.jsonl", "--unknown-labels", "wrong", "--output", "evaluated"]
    assert evaluate.main(words) == 0
    scope = results(made / "evaluated")["scope"]
    assert (scope["known"]["rows"], scope["unknown"]["rows"]) == (3, 3)
    assert 0 <= scope["auroc"] <= 1
    assert "documents of other labels" in " ".join(capsys.readouterr().out.split())


def test_a_detector_that_is_lost_damaged_or_of_another_model(made, tmp_path):
    folder = tmp_path / "model"

    def refused(change):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made / "with/model", folder)
        (folder / "identity.json").unlink()  # which would notice each of them
        change(folder / FILE)
        with pytest.raises(InputError) as caught:
            read_detector(str(folder), None, 32)
        return str(caught.value)

    assert refused(lambda file: file.unlink()) == (
        f"{folder}: expected {FILE}, by which the model tells documents out of scope, found no "
        "such file; copy the whole model folder again"
    )
    assert "cannot be read" in refused(lambda file: file.write_bytes(b"{}"))
    kept = {"kind": "mahalanobis", "threshold": 1.0, "rate": 0.1}
    for whitener in (np.ones((7, 32)), np.ones(())):
        arrays = {"whitener": whitener, "means": np.ones((3, 32))}
        assert "expected arrays of 32 columns (whitener, means)" in refused(
            lambda file, arrays=arrays: save_file(
                arrays, file, metadata={"out_of_scope": json.dumps(kept)}
            )
        )
    weights = (made / "with/model/model.safetensors").read_bytes()
    assert "cannot be read" in refused(lambda file: file.write_bytes(weights))
    shutil.copytree(made / "with/model", tmp_path / "whole")
    (tmp_path / "whole" / FILE).unlink()
    with pytest.raises(InputError, match=f"{FILE} is missing"):
        Classifier(tmp_path / "whole")


def test_an_exported_config_does_not_promise_it(made):
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(made / "with/model")
    assert config.document["out_of_scope"]
    drop_detector(config)
    assert not config.document["out_of_scope"]
    assert load_file(made / "with/model" / FILE) is not None


def test_what_cannot_have_one_is_refused_before_training(made, monkeypatch, capsys):
    monkeypatch.chdir(made)
    for words, problem in (
        (["score.out_of_scope_rate=0.05"], "needs 19 validation documents with labels or more, "
         "found 13"),
        (["score.out_of_scope=nowhere.jsonl", "score.out_of_scope_rate=0.1"], "nowhere.jsonl"),
        (["model.head=native", "score.out_of_scope_rate=0.1"], "expected model.head=linear"),
        (["run.folds=3"], "off with run.folds"),
    ):  # fmt: skip
        reset_accelerate()
        assert run.main(["tiny.yaml", "run.dir=none", "score.out_of_scope=auto", *words]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert problem in said
        assert not (made / "none").exists()


def test_what_is_said_of_a_detector():
    assert KEYWORDS == ("auto", "off")
    interval = [0.8, 0.9]
    flagged = {"rows": 200, "flagged": 9, "share": 0.045, "interval": [0.024, 0.083]}
    section = {
        "kind": "neighbours", "rate": 0.05, "threshold": 0.4, "states": 90, "validation_rows": 40,
        "groups": 10, "tried": [{"kind": "neighbours", "auroc": 0.85, "interval": interval}],
        "curve": [{"flagged": 0.0, "found": 0.2}], "test": flagged,
        "given": {**flagged, "source": "x.csv", "auroc": 0.7, "auroc_interval": interval},
    }  # fmt: skip
    first, second, third = explain_out_of_scope(OutOfScope.model_validate(section))
    assert first == (
        "The saved model gives a document no label where none fits, by its distance to the "
        "nearest train documents (it keeps 90 documents of train). Of the ways tried, this told "
        "labels that were held out in turn best: AUROC 0.850 (95 % interval 0.800 to 0.900)."
    )
    assert second.replace("\u00a0", " ") == (
        "The threshold takes at most 5.0 % of documents of known labels for out of scope, chosen "
        "on 40 documents of validation; on test it was 4.5 % (9 of 200; 95 % interval 2.4 % to "
        "8.3 %)."
    )
    assert third.startswith("Of the documents of `x.csv`, 4.5")
    assert [*explain_out_of_scope(None)] == [*explain_scope(None)] == []


def test_counts_of_known_and_other_documents():
    assert count_flagged(np.zeros(0), 1.0) is None
    found = describe_scope(np.array([0.1, 0.2, 0.9]), np.array([0.8, 0.95]), 0.5)
    assert (found.known.flagged, found.unknown.flagged) == (1, 2)
    assert found.auroc == pytest.approx(5 / 6)
    known, other = explain_scope(found)
    assert known.startswith("Of documents of known labels, 33.3")
    assert "AUROC 0.833" in other
    alone = describe_scope(np.array([0.1]), np.zeros(0), 0.5)
    assert alone.unknown is None
    assert alone.auroc is None
    assert len([*explain_scope(alone)]) == 1
