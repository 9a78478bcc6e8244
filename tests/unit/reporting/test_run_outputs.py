"""Each output on its own: what fails is named in one line, and the others are made."""

import errno

import pytest

from finetune.reporting.run_outputs import IncompleteError, RunOutputs, describe_failure
from finetune.runtime.errors import InputError


class OneProcess:
    """A run's environment, as far as its outputs know it."""

    @staticmethod
    def on_main(call):
        return call()


def fail_with(error):
    def fail():
        raise error

    return fail


def test_a_failure_loses_no_other_output(tmp_path):
    outputs = RunOutputs(tmp_path, OneProcess)
    made = []
    assert outputs.attempt("first", lambda: made.append(1))
    assert not outputs.attempt("second", fail_with(ValueError("a strange number\nand more")))
    assert not outputs.attempt("third", fail_with(InputError(["one", "two"])))
    assert outputs.attempt("fourth", lambda: made.append(4), everywhere=True)
    assert made == [1, 4]
    with pytest.raises(IncompleteError) as caught, outputs.reported():
        raise InputError("the push failed")
    [before, last] = caught.value.problems
    assert "second failed: ValueError: a strange number (test_run_outputs.py, line" in before
    assert "third failed: one; two" in before
    assert f"run.resume={tmp_path}" in before
    assert last == "the push failed"
    assert not caught.value.has_results
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(IncompleteError) as caught, outputs.reported():
        pass
    assert caught.value.has_results


def test_nothing_is_said_where_nothing_failed(tmp_path):
    with RunOutputs(tmp_path, OneProcess).reported():
        pass
    with (
        pytest.raises(InputError, match="the push failed"),
        RunOutputs(tmp_path, OneProcess).reported(),
    ):
        raise InputError("the push failed")


def test_a_full_disk_is_named():
    full = describe_failure(OSError(errno.ENOSPC, "No space left on device", "report.html"))
    assert "report.html" in full
    assert "OSError" not in full
