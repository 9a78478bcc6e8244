"""Soft labels and row weights through whole runs: what they equal, and what is told of them."""

import contextlib
import json

import pytest
import torch
from safetensors.torch import load_file

from finetune.cli.main import main
from tests.support.runs import assert_same, finish, results, run_here, stopped_at

WORDS = {"bad": "loss debt", "fair": "old report", "good": "new growth"}
NAMES = [*WORDS]
SOFT = "data.label_probabilities=votes", "model.dropout=0", "optim.lr=0.05"
WEIGHTED = "data.source=weighted", "data.weight=weight", *SOFT, "checkpoint.keep=99"


@pytest.fixture(scope="module")
def rows(documents, tmp_path_factory):
    """Folders of the same rows: hard labels, one-hot votes, and soft votes with weights."""
    folder = tmp_path_factory.mktemp("soft")
    for split, count in (("train", 36), ("validation", 12), ("test", 12)):
        for kind in ("hard", "onehot", "weighted"):
            (folder / kind).mkdir(exist_ok=True)
            lines = []
            for i in range(count):
                name, other = NAMES[i % 3], NAMES[(i + 1) % 3]
                row = {"text": f"{WORDS[name]} {i}"}
                if kind == "hard" or split != "train":
                    row["label"] = name
                elif kind == "onehot":
                    row["votes"] = {name: 3, other: 0}
                else:
                    row |= {"votes": {name: 3, other: i % 3}, "weight": 0.5 + i % 4}
                lines.append(json.dumps(row) + "\n")
            (folder / kind / f"{split}.jsonl").write_text("".join(lines))
    for name in ("encoder", "tiny.yaml"):
        (folder / name).symlink_to(documents / name)
    return folder


@pytest.fixture
def within(rows):
    with contextlib.chdir(rows):
        yield rows


def weights_of(run):
    return load_file(run / "model/model.safetensors")


def test_one_hot_votes_train_what_hard_labels_train_bit_for_bit(within):
    run_here("data.source=hard", "run.dir=hard-run")
    run_here("data.source=onehot", "data.label_probabilities=votes", "run.dir=onehot-run")
    hard, soft = weights_of(within / "hard-run"), weights_of(within / "onehot-run")
    assert [name for name in hard if not torch.equal(hard[name], soft[name])] == []
    assert results(within / "hard-run")["test"] == results(within / "onehot-run")["test"]


@pytest.fixture(scope="module")
def weighted(rows):
    with contextlib.chdir(rows):
        run_here("run.dir=weighted-run", *WEIGHTED)
    return rows / "weighted-run"


def test_a_soft_weighted_run_is_taken_up_bit_for_bit_and_told_of(within, weighted):
    stopped_at(weighted, within / "resumed", 8)
    run_here("run.resume=resumed", *WEIGHTED)
    assert_same(weighted, within / "resumed")
    report = (weighted / "report.html").read_text()
    assert "rows have shares of several labels" in report
    assert "rows have a weight other than 1" in report
    changed = [word.replace("weight=weight", "weight=null") for word in WEIGHTED]
    run_here("run.resume=resumed", *changed, code=2)


def test_new_rows_are_scored_by_their_label_or_by_the_majority_of_their_votes(within, weighted):
    for split, output in (("test", "by-label"), ("train", "by-votes")):
        rows = f"weighted/{split}.jsonl"
        assert main(["evaluate", "weighted-run", rows, "--output", output]) == 0
    scored = json.loads((within / "by-votes/results.json").read_text())
    assert scored["data"]["splits"]["test"]["rows"] == 36


def test_new_rows_without_votes_and_labels_are_refused(within, weighted, capsys):
    (within / "texts.jsonl").write_text('{"text": "new growth"}\n')
    capsys.readouterr()
    assert main(["evaluate", "weighted-run", "texts.jsonl", "--output", "none"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "texts.jsonl: expected the label probabilities of the model's recipe (votes) or" in said
    assert "its column of labels (label), found neither; --label names another column" in said


def test_two_processes_and_small_micro_batches_train_the_same(within, weighted):
    finish(within, "run.dir=two", "train.micro_batch_tokens=24", *WEIGHTED, processes=2)
    one, two = weights_of(weighted), weights_of(within / "two")
    for name, expected in one.items():
        assert torch.allclose(two[name], expected, atol=1e-4), name


def test_several_labels_with_a_probability_each(within):
    (within / "several").mkdir()
    for split, count in (("train", 24), ("validation", 12), ("test", 12)):
        lines = [
            f"{WORDS[NAMES[i % 3]]} {i},{0.9 if i % 3 else 0.2},0.{i % 10}" for i in range(count)
        ]
        (within / "several" / f"{split}.csv").write_text("\n".join(["text,new,old", *lines]) + "\n")
    run_here(
        "data.source=several", "data.label_probabilities=[new, old]", "data.multi_label=true",
        "run.dir=several-run", "train.max_steps=4",
    )  # fmt: skip
    found = results(within / "several-run")
    assert found["data"]["labels"] == ["new", "old"]
    assert "f1_micro" in found["test"]["intervals"]
