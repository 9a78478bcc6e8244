"""Static students through whole runs."""

import contextlib
import json

import pytest

from tests.end_to_end.test_distillation import LABELLED, NAMES, text
from tests.support.runs import assert_same, results, run_here, stopped_at

STATIC = (*LABELLED, "model.source=static:encoder", "train.batch_size=4", "checkpoint.keep=99")


@pytest.fixture(scope="module")
def work(documents, tmp_path_factory):
    """Labelled rows, an encoder of layers that has learned a little, and a static student."""
    folder = tmp_path_factory.mktemp("static")
    (folder / "labelled").mkdir()
    starts = {"train": (0, 48), "validation": (48, 78), "test": (78, 108)}
    for split, rows in starts.items():
        lines = [json.dumps({"text": text(i), "label": NAMES[i % 3]}) + "\n" for i in range(*rows)]
        (folder / "labelled" / f"{split}.jsonl").write_text("".join(lines))
    for name in ("encoder", "tiny.yaml"):
        (folder / name).symlink_to(documents / name)
    with contextlib.chdir(folder):
        run_here(*LABELLED, "run.dir=teacher")
        run_here(*STATIC, "run.dir=student")
    return folder


@pytest.fixture
def within(work):
    with contextlib.chdir(work):
        yield work


def test_a_static_student_learns(work):
    found = results(work / "student")
    assert found["test"]["accuracy"] > 0.9
    assert found["model"]["source"].startswith("static:")
    document = json.loads((work / "student/model/config.json").read_text())["document"]
    assert document["max_length"] == 32


def test_it_is_taken_up_bit_for_bit(within):
    stopped_at(within / "student", within / "resumed", 16)
    run_here(*STATIC, "run.resume=resumed")
    assert_same(within / "student", within / "resumed")


def test_it_learns_from_a_teacher(within):
    run_here(*STATIC, "distil.teacher=teacher", "run.dir=taught")
    assert results(within / "taught")["train"]["steps"] == 36
