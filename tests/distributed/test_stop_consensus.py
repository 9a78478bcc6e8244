"""Signals: the step is finished and a checkpoint written, or the run ends where it stands."""

import os
import signal

import pytest

from finetune.modeling import build
from finetune.training.session import Session
from tests.support.processes import launch
from tests.support.runs import (
    ONCE_WRITTEN,
    assert_same,
    checkpoints,
    end,
    finish,
    in_step,
    lines,
    newest,
    plain,
    results,
    run_here,
)

ITSELF = "os.kill(os.getpid(), signal.{0})"
# To the launcher, which takes its time to pass it on.
LAUNCHER = "os.kill(os.getppid(), signal.SIGTERM)\nwhile not heard(): time.sleep(0.01)"
# What a terminal does: to all processes of the group. Then the launcher ends, in a slow step.
CTRL_C = """
launcher = os.getppid()
os.killpg(os.getpgrp(), signal.SIGINT)
while os.getppid() == launcher: time.sleep(0.01)
time.sleep(0.2)
"""


def send(name):
    os.kill(os.getpid(), getattr(signal, name))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
@pytest.mark.parametrize("step", [9, 36])
def test_a_signal_ends_the_run_with_a_checkpoint(here, whole, capfd, monkeypatch, name, step):
    """In the last step too, where no later one can answer it."""
    with monkeypatch.context() as patch:
        in_step(patch, step, lambda: send(name))
        run_here("run.dir=run", "checkpoint.keep=99", code=75)
    said = capfd.readouterr().err
    assert f"{name}: finishing the step, then a checkpoint; a second signal stops at once" in said
    assert f"stopped by {name} after step {step}, with a checkpoint; to go on, run the" in said
    assert checkpoints(here / "run")[-1] == f"step-{step:08d}"
    assert not (here / "run" / "results.json").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    run_here("run.resume=run", "checkpoint.keep=99")
    assert_same(whole, here / "run")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_before_training(here, capfd, monkeypatch, name):
    with monkeypatch.context() as patch:
        patch.setattr(build, "build_classifier", lambda *given, **named: send(name))
        run_here("run.dir=run", code=75)
    assert capfd.readouterr().err == (f"stopped by {name} before training; run it again\n")
    assert not (here / "run").exists()


def test_a_signal_after_training(here, whole, capfd, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Session, "restore_best", lambda self: send("SIGTERM"))
        run_here("run.dir=run", "checkpoint.keep=99", code=75)
    assert "stopped by SIGTERM after the last step; to go on, run" in capfd.readouterr().err
    run_here("run.resume=auto", "run.dir=run", "checkpoint.keep=99")
    assert_same(whole, here / "run")


def test_a_second_signal_ends_the_process_at_once(here, whole):
    """By the system, whatever the process does; the last checkpoint serves."""
    both = ONCE_WRITTEN.format(8) + ITSELF.format("SIGTERM") + "\n" + ITSELF.format("SIGINT")
    code, said = end(here, "run.dir=run", "checkpoint.keep=99", act=(9, 0, both))
    assert code == -signal.SIGINT, said
    assert "stopped by" not in said
    assert checkpoints(here / "run")[-1] == "step-00000008"
    run_here("run.resume=run", "checkpoint.keep=99")
    assert_same(whole, here / "run")


def test_ctrl_c_of_a_launched_process(here, whole):
    """The launcher ends at once, and its end is told by SIGTERM: that is no second signal."""
    _, said = end(
        here, "run.dir=run", "checkpoint.keep=99",
        launcher=launch(), act=(9, 0, CTRL_C), new_session=True,
    )  # fmt: skip
    assert "stopped by SIGINT after step 9, with a checkpoint" in said
    assert checkpoints(here / "run")[-1] == "step-00000009"
    run_here("run.resume=run", "checkpoint.keep=99")
    assert_same(whole, here / "run")


def test_a_signal_where_nobody_reads(here):
    """As `2>&1 | tee log`, which hears Ctrl-C too."""
    reader, writer = os.pipe()
    os.close(reader)
    code, _ = end(
        here, "run.dir=run", act=(9, 0, ITSELF.format("SIGINT")), stdout=writer, stderr=writer
    )
    os.close(writer)
    assert code == 75
    assert checkpoints(here / "run")[-1] == "step-00000009"


def test_two_processes_that_were_stopped(here, whole_by_two):
    """SIGTERM to the launcher, as a cluster sends it: both end after the same step."""
    words = "run.dir=run", "checkpoint.keep=99"
    code, said = end(here, *words, launcher=launch(2), act=(9, 0, LAUNCHER))
    assert code != 0
    assert said.count("stopped by SIGTERM after step") == 1, said
    assert not (here / "run" / "results.json").exists()
    assert checkpoints(here / "run")[-1] in [f"step-000000{step:02d}" for step in (9, 10, 11)]
    finish(here, "run.resume=run", "checkpoint.keep=99", processes=2)
    assert results(here / "run")["num_processes"] == 2
    assert_same(whole_by_two, here / "run")


def test_a_signal_to_one_of_two_in_the_last_step(here):
    act = (12, 1, ITSELF.format("SIGUSR1"))
    code, said = end(here, "run.dir=run", "train.epochs=1", processes=2, act=act)
    assert code != 0
    assert ", 2 processes" in said
    assert said.count("stopped by SIGUSR1 after step 12, with a checkpoint") == 1, said
    assert not (here / "run" / "results.json").exists()
    assert checkpoints(here / "run")[-1] == "step-00000012"


def test_patience_outlives_a_stop(here, monkeypatch):
    """Stopped when it had waited for one scoring of two, the run ends where it would have ended."""
    words = "score.monitor=accuracy", "score.patience=2", "train.epochs=30", "score.every=3"
    words = *words, "checkpoint.keep=99"
    run_here("run.dir=whole", *words)
    stop = results(here / "whole")["train"]["steps"]
    assert 6 < stop < 360
    # The scoring before the last found no improvement, nor did the last.
    with monkeypatch.context() as patch:
        in_step(patch, stop - 2, lambda: send("SIGTERM"))
        run_here("run.dir=run", *words, code=75)
    assert plain(newest(here / "run"))["state"]["waited"] == 1
    run_here("run.resume=run", *words)
    assert results(here / "run")["hashes"] == results(here / "whole")["hashes"]
    assert lines(here / "run") == lines(here / "whole")
