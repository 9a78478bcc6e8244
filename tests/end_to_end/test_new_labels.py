"""model.head_init keep: a run goes on with other labels, and says what it forgot."""

import contextlib
import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from finetune import load
from tests.support.runs import finish, results, run_here

WORDS = {"sport": "game team", "money": "bank tax", "tech": "chip code", "peace": "treaty border"}


def write_rows(folder, labels, several=False):
    folder.mkdir()
    for split, count in (("train", 40), ("validation", 16), ("test", 24)):
        rows = [
            {"text": f"{WORDS[labels[i % len(labels)]]} {i}", "label": labels[i % len(labels)]}
            for i in range(count)
        ]
        if several:
            rows = [row | {"label": [row["label"]]} for row in rows]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def grown(documents, tmp_path):
    """Documents of three labels, and of two of them with one more."""
    write_rows(tmp_path / "old", ["sport", "money", "tech"])
    write_rows(tmp_path / "new", ["tech", "peace", "money"])
    write_rows(tmp_path / "several", ["tech", "peace", "money"], several=True)
    for name in ("encoder", "tiny.yaml"):
        (tmp_path / name).symlink_to(documents / name)
    with contextlib.chdir(tmp_path):
        yield tmp_path


def test_known_labels_keep_their_rows_and_the_run_says_what_is_forgotten(grown, capsys):
    run_here("data.source=old", "run.dir=parent", "train.max_steps=6")
    capsys.readouterr()
    keep = ("data.source=new", "model.source=parent", "model.head_init=keep", "train.max_steps=2")
    run_here(*keep, "run.dir=child")
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "2 labels keep the weights of parent; 1 new, from their names: peace; 1 no longer" in said
    )
    found = results(grown / "child")["parent"]
    assert (found["kept"], found["new"], found["gone"]) == (["money", "tech"], ["peace"], ["sport"])
    assert (found["rows"], found["new_rows"], found["metric"]) == (16, 8, "accuracy")
    before = results(grown / "child")["test"]
    predicted = [one["label"] for one in load("parent")(texts_of(grown / "new"))]
    truth = [json.loads(line)["label"] for line in (grown / "new/test.jsonl").open()]
    right = [a == b for a, b in zip(predicted, truth, strict=True) if b != "peace"]
    assert found["before"] == pytest.approx(np.mean(right))
    hits = 16 * found["after"] + 8 * found["new_recall"]
    assert hits == pytest.approx(24 * before["accuracy"])
    low, high = found["interval"]
    assert low <= found["difference"] <= high
    assert {one["label"] for one in found["labels"]} == {"money", "tech"}
    assert '<section id="parent">' in (grown / "child/report.html").read_text()
    card = (grown / "child/model/README.md").read_text()
    assert re.search(
        r"Beside `parent`, whose head it kept: accuracy on the 16 test documents", card
    )


def texts_of(folder):
    return [json.loads(line)["text"] for line in (folder / "test.jsonl").open()]


def test_it_resumes_and_shares_its_steps_exactly(grown):
    run_here("data.source=old", "run.dir=parent", "train.max_steps=3")
    keep = ("data.source=new", "model.source=parent", "model.head_init=keep", "train.max_steps=6",
            "model.dropout=0.0")  # fmt: skip # dropout differs between processes
    run_here(*keep, "run.dir=whole", "checkpoint.keep=99")
    run_here(*keep, "run.dir=cut", "checkpoint.keep=99")
    point = next((grown / "cut/checkpoints").glob("step-*2"))
    for name in ("results.json", "report.html"):
        (grown / "cut" / name).unlink()
    run_here(*keep, f"run.resume={point}")
    finish(grown, *keep, "run.dir=two", processes=2)
    one, again, two = (
        load_file(grown / name / "model/model.safetensors") for name in ("whole", "cut", "two")
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
    assert results(grown / "whole")["parent"] == results(grown / "cut")["parent"]
    assert results(grown / "whole")["parent"] == results(grown / "two")["parent"]


def test_documents_of_several_labels(grown):
    run_here("data.source=several", "run.dir=parent", "train.max_steps=3")
    keep = ("data.source=several", "model.source=parent", "model.head_init=keep")
    run_here(*keep, "train.max_steps=1", "run.dir=child")
    found = results(grown / "child")["parent"]
    assert (found["metric"], found["new"], found["rows"]) == ("f1_micro", [], 24)
    assert found["before"] == pytest.approx(results(grown / "parent")["test"]["f1_micro"])
    assert found["after"] == pytest.approx(results(grown / "child")["test"]["f1_micro"])


def test_a_source_that_has_nothing_to_keep_is_told_before_training(grown, capsys):
    run_here("data.source=old", "run.dir=parent", "train.max_steps=1")
    capsys.readouterr()
    for words, problem in (
        (["model.source=encoder", "model.head=native"],
         "expected a model.source that is a trained classifier, such as a run folder, found an"),
        (["model.source=encoder"], "found an encoder without a head in 'encoder'"),
        (["model.source=parent", "model.pooling=cls"],
         "model.pooling: expected 'mean' with model.head_init 'keep'"),
        (["model.source=parent", "data.source=several"],
         "expected a source that predicts several labels for a document"),
        (["model.source=parent", "model.head=native"], "model.head: expected linear with"),
    ):  # fmt: skip
        run_here("data.source=new", "model.head_init=keep", *words, "run.dir=none", code=2)
        assert problem in " ".join(capsys.readouterr().err.split())
        assert not (grown / "none").exists()
    run_here("data.source=new", "model.new_labels=zeros", code=2)
    assert "no choice with model.head_init 'zeros'" in " ".join(capsys.readouterr().err.split())
