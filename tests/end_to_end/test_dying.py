"""A run that ends before each of its changes of the disk in turn, and is taken up again."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.support.runs import assert_same, run_here

CALLS = ("fsync", "link", "mkdir", "rename", "replace", "rmdir", "unlink")
WORDS = "train.max_steps=14", "checkpoint.keep=3", "score.monitor=loss"


class DiedError(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


def changes(patch, folder, most):
    """Let runs change `folder` so many times and no more, not even to clean up after themselves.

    Returns what they did, in words that are alike for alike changes.
    """
    done = []

    def watched(name, call):
        def then(target, *given, **named):
            path = target
            if name == "fsync":
                path = Path(f"/proc/self/fd/{target}").readlink()
            elif (inside := named.get("dir_fd")) is not None:
                path = Path(f"/proc/self/fd/{inside}").readlink() / target
            path = Path(path).absolute()
            if path.is_relative_to(folder):
                if len(done) >= most:
                    raise DiedError
                inner = str(path.relative_to(folder))
                # Of what is written aside or removed, one file is as good as another.
                inner = re.sub(r"(\.(new|old))/.*", r"\1/file", re.sub(r"\d+", "N", inner))
                done.append(f"{name} {inner}")
            return call(target, *given, **named)

        return then

    for name in CALLS:
        patch.setattr(os, name, watched(name, getattr(os, name)))
    return done


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="tells files apart as Linux does")
def test_a_run_that_dies_before_each_kind_of_change(here, capsys):
    """Back from a finished run to an earlier checkpoint, and on to the end again."""
    run_here("run.dir=whole", *WORDS)
    folder = here / "run"
    back = "run.resume=run/checkpoints/step-00000010", *WORDS

    def finished():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(here / "whole", folder)

    finished()
    with pytest.MonkeyPatch.context() as patch:
        done = changes(patch, folder, most=10**9)
        run_here(*back)
    assert_same(here / "whole", folder)
    kinds = sorted({done.index(kind) for kind in done})
    assert len(kinds) > 25, done
    for most in kinds:
        finished()
        with pytest.MonkeyPatch.context() as patch:
            changes(patch, folder, most)
            with pytest.raises(DiedError):
                run_here(*back)
        capsys.readouterr()
        run_here("run.resume=auto", "run.dir=run", *WORDS)
        assert "damaged" not in capsys.readouterr().out, done[most]
        assert_same(here / "whole", folder), done[most]
        assert list((folder / "checkpoints").glob(".*")) == [], done[most]
