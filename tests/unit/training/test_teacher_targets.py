"""What teachers said, in a run's folder: read back for the same question alone."""

import numpy as np
import pytest

from finetune.runtime.errors import InputError
from finetune.training import run_removal
from finetune.training.teacher_targets import FILE, TeacherTargets, read_targets, write_targets


def test_targets_are_read_back_by_their_key(tmp_path):
    said = np.random.default_rng(0).dirichlet([1, 1, 1], size=5).astype(np.float32)
    assert read_targets(tmp_path, "key") is None
    write_targets(TeacherTargets(said, "key", ("a (1f)", "b (2e)")), tmp_path)
    known = read_targets(tmp_path, "key")
    assert np.array_equal(known.probabilities, said)
    assert known.teachers == ("a (1f)", "b (2e)")
    assert read_targets(tmp_path, "another") is None
    assert [file.name for file in tmp_path.iterdir()] == [FILE]
    (tmp_path / FILE).write_bytes(b"damaged")
    assert read_targets(tmp_path, "key") is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    said = TeacherTargets(np.ones((1, 2), np.float32), "key", ("a (1f)",))
    with pytest.raises(InputError, match=rf"gone/{FILE}: cannot write: No such file"):
        write_targets(said, tmp_path / "gone")


def test_the_file_is_a_runs_and_goes_with_it(tmp_path):
    write_targets(TeacherTargets(np.ones((1, 2), np.float32), "key", ("a (1f)",)), tmp_path)
    assert run_removal.list_foreign_files(tmp_path) == []
    run_removal.remove_run(tmp_path)
    assert not (tmp_path / FILE).exists()
