"""A teacher's probabilities through whole runs: of labelled and unlabelled rows, and resumed."""

import contextlib
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from finetune.inference import teacher
from finetune.training.teacher_targets import FILE, read_targets, write_targets
from tests.support.runs import assert_same, finish, results, run_here, stopped_at

WORDS = {"bad": "loss debt", "fair": "old report", "good": "new growth"}
NAMES = [*WORDS]
LABELLED = "data.source=labelled", "model.dropout=0", "optim.lr=0.05"
STUDENT = (
    *LABELLED, "model.keep_layers=1", "distil.teacher=teacher", "distil.unlabelled=more.csv",
    "checkpoint.keep=99",
)  # fmt: skip


def text(i):
    return f"{WORDS[NAMES[i % 3]]} {i}"


@pytest.fixture(scope="module")
def work(documents, tmp_path_factory):
    """Labelled rows, more documents, some of which are scored too, and a teacher."""
    folder = tmp_path_factory.mktemp("distil")
    (folder / "labelled").mkdir()
    starts = {"train": (0, 24), "validation": (24, 36), "test": (36, 48)}
    for split, rows in starts.items():
        lines = [json.dumps({"text": text(i), "label": NAMES[i % 3]}) + "\n" for i in range(*rows)]
        (folder / "labelled" / f"{split}.jsonl").write_text("".join(lines))
    more = [text(i) for i in [*range(100, 112), 30, 40, 41, 5, 100]] + ["  "]
    (folder / "more.csv").write_text("\n".join(["text", *more]) + "\n")
    for name in ("encoder", "tiny.yaml"):
        (folder / name).symlink_to(documents / name)
    with contextlib.chdir(folder):
        run_here(*LABELLED, "run.dir=teacher", "train.max_steps=20")
    return folder


@pytest.fixture
def within(work):
    with contextlib.chdir(work):
        yield work


@pytest.fixture(scope="module")
def student(work):
    with contextlib.chdir(work):
        run_here("run.dir=student", *STUDENT)
    return work / "student"


def findings(run):
    found = json.loads((run / "preflight.json").read_text())["findings"]
    return {(one["kind"], one["other"]): one for one in found if one["split"] != "train"} | {
        one["kind"]: one for one in found if one["split"] == "train"
    }


def test_what_is_learned_from_whom_is_told(student):
    found = findings(student)
    assert found["taught", ""]["count"] == 12
    assert found["leak", "validation"]["count"] == 1
    assert found["leak", "test"]["count"] == 2
    assert found["unlabelled repeat", ""]["count"] == 2
    assert found["distilled"]["count"] == 36
    assert "temperature 2, with weight 0.5" in found["distilled"]["rule"]
    train = results(student)["data"]["splits"]["train"]
    assert (train["rows"], sum(train["classes"].values())) == (36, 24)
    assert "12 rows without a label of more.csv" in train["origin"]
    assert "teacher (" in (student / "report.html").read_text()
    assert results(student)["baselines"]["tfidf"]["train_rows"] == 24


def test_a_student_is_taken_up_bit_for_bit_and_asks_nobody_again(within, student, monkeypatch):
    stopped_at(student, within / "resumed", 8)
    monkeypatch.setattr(teacher, "_load", lambda *_: pytest.fail("the teacher was asked again"))
    run_here("run.resume=resumed", *STUDENT)
    assert_same(student, within / "resumed")


def test_two_processes_train_the_same_student(within, student):
    finish(within, "run.dir=two", "train.micro_batch_tokens=24", *STUDENT, processes=2)
    one, two = (load_file(run / "model/model.safetensors") for run in (student, within / "two"))
    for name, expected in one.items():
        assert torch.allclose(two[name], expected, atol=1e-4), name


def test_several_teachers_say_their_mean(within, student):
    run_here("run.dir=another", *LABELLED, "train.max_steps=4", "run.seed=3")
    both = [*STUDENT, "distil.teacher=[teacher, another]", "train.max_steps=1"]
    run_here("run.dir=both", *both)
    run_here("run.dir=other", *STUDENT, "distil.teacher=another", "train.max_steps=1")
    said = [
        load_file(within / run / "teacher.safetensors")["probabilities"].numpy()
        for run in ("student", "other", "both")
    ]
    assert said[0].shape == (36, 3)
    assert np.allclose((said[0] + said[1]) / 2, said[2], atol=1e-6)
    assert np.abs(said[0] - said[1]).max() > 0.01


def test_a_dry_run_asks_nobody(within, capsys, monkeypatch):
    monkeypatch.setattr(teacher, "_compute", lambda *_: pytest.fail("the teacher was asked"))
    run_here("--dry-run", *STUDENT)
    assert "12 rows have no label of their own" in " ".join(capsys.readouterr().out.split())
    run_here("--dry-run", *STUDENT, "distil.teacher=[teacher, nothing]", code=2)
    assert "error: distil.teacher: nothing" in capsys.readouterr().err


def test_targets_of_another_key_or_in_a_damaged_file_are_none(student, tmp_path):
    with safe_open(student / FILE, framework="numpy") as tensors:
        key = tensors.metadata()["key"]
    known = read_targets(student, key)
    assert known.key == key
    assert known.teachers[0].startswith("teacher (")
    assert read_targets(student, "another") is None
    assert read_targets(tmp_path, key) is None
    (tmp_path / FILE).write_bytes(b"damaged")
    assert read_targets(tmp_path, key) is None
    write_targets(known, tmp_path)
    assert np.array_equal(read_targets(tmp_path, key).probabilities, known.probabilities)
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["distil.teacher=nobody/"], "distil.teacher: nobody/: no such file or folder"),
        (["distil.teacher=null"], "distil.unlabelled: expected null, its default, without"),
        (["distil.unlabelled=none.csv"], "distil.unlabelled: none.csv: no such file"),
        (["run.folds=2"], "distil.teacher: expected null with run.folds"),
        (["distil.temperature=0"], "distil.temperature: expected a number above 0"),
        (["data.label_order=null", "data.labels=[bad, fair, good, great]"], "whose labels are bad"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(within, student, capsys, words, message):
    capsys.readouterr()
    run_here("run.dir=refused", *STUDENT, *words, code=2)
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (within / "refused").exists()
