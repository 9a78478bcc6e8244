"""Checkpoints on disk: whole or refused, read once, and which of them are kept."""

import json

import pytest
import torch

from finetune.runtime.errors import InputError
from finetune.training import checkpoint
from finetune.training.checkpoint import CheckpointReader
from tests.support.checkpoint_values import plain_values
from tests.support.runs import checkpoints

TENSORS = {"model/weight": torch.arange(6.0).reshape(2, 3)}


def written(run, step=4):
    return checkpoint.write_checkpoint(run, step, TENSORS, plain_values(waited=1))


def test_what_is_written_is_read(tmp_path):
    point = written(tmp_path)
    assert checkpoint.step_of(point) == 4
    tensors = CheckpointReader().read_tensors(point)
    assert torch.equal(tensors["model/weight"], TENSORS["model/weight"])
    assert CheckpointReader().read(point)["state"]["waited"] == 1
    (point / ".DS_Store").write_text("left by a desktop")
    checkpoint.verify_checkpoint(point)


@pytest.mark.parametrize("name", [checkpoint.TENSORS, checkpoint.PLAIN, checkpoint.SUMS])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_one_is_refused(tmp_path, name, damage):
    file = written(tmp_path) / name
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"checkpoint .*step-00000004 is damaged: "):
        checkpoint.verify_checkpoint(file.parent)


def test_one_of_another_version_is_refused(tmp_path):
    point = written(tmp_path)
    plain = json.loads((point / checkpoint.PLAIN).read_text())
    (point / checkpoint.PLAIN).write_text(json.dumps(plain | {"format": 1}))
    sums = (point / checkpoint.SUMS).read_text()
    name = checkpoint.PLAIN
    line = next(line for line in sums.splitlines() if line.endswith(name))
    now = f"{checkpoint._sha256(point / name)}  {name}"
    (point / checkpoint.SUMS).write_text(sums.replace(line, now))
    with pytest.raises(InputError, match="expected format 2, found 1: another version of this"):
        checkpoint.verify_checkpoint(point)


def test_a_reader_hashes_a_checkpoint_once(tmp_path, monkeypatch):
    point, other = written(tmp_path), written(tmp_path, 8)
    verify, calls = checkpoint.verify_checkpoint, []
    monkeypatch.setattr(
        checkpoint, "verify_checkpoint", lambda folder: calls.append(folder) or verify(folder)
    )
    reader = CheckpointReader()
    assert reader.read(point) is reader.read(point)
    assert reader.read_tensors(point).keys() == TENSORS.keys()
    reader.read(other)
    reader.read(point)
    reader.forget()
    reader.read(point)
    assert calls == [point, other, point, point]


def test_backing_off_spares_a_checkpoint_from_when_all_was_well(tmp_path):
    """However few are kept: those after the last good scoring may be of a lost run."""
    for step in (0, 4, 8, 12):
        (tmp_path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    checkpoint.drop_old(tmp_path, keep=2, spare=5)
    assert checkpoints(tmp_path) == ["step-00000004", "step-00000008", "step-00000012"]
    checkpoint.drop_old(tmp_path, keep=2, spare=None)
    assert checkpoints(tmp_path) == ["step-00000008", "step-00000012"]
