"""One message for each problem: collected, explained from the system's errors, with suggestions."""

import errno
import signal
from pathlib import Path

import pytest

from finetune.runtime import errors
from finetune.runtime.errors import InputError, ProblemList, StoppedError


def test_problems_of_several_steps_are_raised_together():
    problems = ProblemList()
    problems.raise_if_any()
    with problems.collect():
        raise InputError(["one", "two"])
    with problems.collect():
        problems.append("three")
    with pytest.raises(InputError) as caught:
        problems.raise_if_any()
    assert caught.value.problems == ("one", "two", "three")
    assert str(caught.value) == "one\ntwo\nthree"


def test_other_errors_are_not_collected():
    problems = ProblemList()
    with pytest.raises(ValueError, match="a bug"), problems.collect():
        raise ValueError("a bug")
    assert problems == []


def test_where_a_stopped_run_goes_on():
    stopped = StoppedError.after_step(signal.SIGTERM, 1200, Path("runs/a"))
    assert str(stopped) == (
        "stopped by SIGTERM after step 1,200, with a checkpoint; to go on, run the same with "
        "run.resume=runs/a"
    )
    assert str(stopped.with_run_dir(Path("runs"))) == (
        "stopped by SIGTERM after step 1,200, with a checkpoint; to go on, run the same with "
        "run.dir=runs run.resume=auto"
    )
    assert stopped.what_stopped == "stopped by SIGTERM after step 1,200, with a checkpoint"
    assert str(StoppedError.during(signal.SIGINT, "before training")) == (
        "stopped by SIGINT before training; run it again"
    )
    assert str(StoppedError.during(signal.SIGINT, "after the last step")) == (
        "stopped by SIGINT after the last step; to go on, run the same with run.resume=auto"
    )
    assert not isinstance(stopped, Exception)  # no `except Exception` swallows it


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "full"), "the disk is full; free some space or {} another disk"),
        (PermissionError(errno.EACCES, "no"), "permission denied; make it writable or {} another"),
        (Exception("IoError: no space (os error 28)"), "the disk is full; free some space or {}"),
        (OSError(errno.EIO, "io"), "Input/output error; {} another folder"),
    ],
)
@pytest.mark.parametrize("remedy", ["set run.dir to", "write the output to"])
def test_a_failed_write_names_its_file_and_the_remedy(error, message, remedy):
    with pytest.raises(InputError) as caught, errors.explain_write_errors(Path("f"), remedy):
        raise error
    assert str(caught.value).startswith(f"f: cannot write: {message.format(remedy)}")


def test_what_is_no_error_of_writing_passes():
    with pytest.raises(KeyError), errors.explain_write_errors(Path("f")):
        raise KeyError("a bug")


def test_errors_of_the_system_that_a_user_can_fix():
    full = errors.from_os_error(OSError(errno.ENOSPC, "full", "a/b"))
    assert full is not None
    assert str(full).startswith("a/b: cannot read or write: the disk is full")
    assert errors.from_os_error(OSError(errno.EBADF, "a bug")) is None


def test_suggestions():
    options = ("accuracy", "f1_macro", "f1_micro")
    assert errors.closest_match("F1_m", options) == "f1_macro"
    assert errors.closest_match("acuracy", options) == "accuracy"
    assert errors.closest_match("", options) is None
    assert errors.did_you_mean("f1_mcro", options, "the metrics are").startswith("; did you mean")
    assert errors.did_you_mean("x", ("a", "b"), "it has") == "; it has: a, b"


def test_long_lists_are_shortened():
    assert errors.shorten(["a", "b"], most=2) == "a, b"
    assert errors.shorten(list("abcd"), most=2) == "a, b and 2 more"
