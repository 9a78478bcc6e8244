"""Where `run.resume` begins: which folder, which checkpoint, or one message."""

from datetime import datetime

import pytest
import torch

from finetune.config import schema
from finetune.runtime.errors import InputError
from finetune.runtime.folder_lock import FolderLock
from finetune.training import checkpoint
from finetune.training.checkpoint import CheckpointReader
from finetune.training.resume import locate_start
from tests.support.checkpoint_values import plain_values

NOW = datetime(2026, 11, 29)


def start(**run):
    with FolderLock() as lock:
        return locate_start(schema.Run(**run), NOW, lock, CheckpointReader())


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A run that was stopped after two checkpoints."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "news" / "monday"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("data: {source: rows.csv}\n")
    for step in (4, 8):
        checkpoint.write_checkpoint(folder, step, {"model/w": torch.zeros(2)}, plain_values())
    return folder


def test_the_newest_checkpoint_of_an_unfinished_run(stopped):
    for run in ({"resume": "auto", "name": "news"}, {"resume": str(stopped)}):
        found = start(**run)
        assert found.folder.resolve() == stopped
        assert checkpoint.step_of(found.point) == 8
        assert not found.finished
    (stopped / "results.json").write_text("{}")
    assert start(resume="auto", name="news").point is None  # a new run
    assert start(resume=str(stopped)).finished


def test_a_checkpoint_by_its_path(stopped):
    found = start(resume=str(stopped / "checkpoints" / "step-00000004"))
    assert checkpoint.step_of(found.point) == 4


def test_a_damaged_one_is_passed_over_and_named(stopped):
    (stopped / "checkpoints" / "step-00000008" / checkpoint.TENSORS).write_bytes(b"")
    found = start(resume=str(stopped))
    assert checkpoint.step_of(found.point) == 4
    [note] = found.notes
    assert "step-00000008 is damaged: state.safetensors is not as it was written" in note


def test_what_is_not_there_is_named(stopped):
    with pytest.raises(InputError, match=r"run.resume: nowhere: no such folder; expected auto, a"):
        start(resume="nowhere")
    with pytest.raises(InputError, match="is neither a run folder nor a checkpoint"):
        start(resume=str(stopped.parent))
    with pytest.raises(InputError, match=r"run.resume: .* and run.dir is other; leave run.dir out"):
        start(resume=str(stopped), dir="other")
