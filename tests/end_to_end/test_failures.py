"""A disk that fills, a process that dies, two machines: nothing is lost, and all is said once."""

import errno
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from safetensors.torch import load_file

from finetune.cli import exit_codes
from tests.support.processes import launch
from tests.support.runs import (
    assert_same,
    checkpoints,
    end,
    finish,
    in_step,
    results,
    run_here,
    start,
    stopped_at,
)

# No file may grow beyond so many bytes: a disk that fills, for one process.
SMALL_FILES = """
import resource
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))
"""


def test_a_disk_that_fills_during_a_checkpoint(here, whole):
    folder = stopped_at(whole, here / "run", 8)
    before = checkpoints(folder)
    # Room for the model, and not for a checkpoint, which also holds the optimizer's memory.
    model = (whole / "model" / "model.safetensors").stat().st_size
    point = (whole / "checkpoints" / "step-00000008" / "state.safetensors").stat().st_size
    assert model < point
    act = (9, 0, SMALL_FILES.format((model + point) // 2))
    code, said = end(here, "run.resume=run", "checkpoint.keep=99", act=act)
    assert code == 2, said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, said
    assert "step-00000010: cannot write: " in errors[0]
    assert "Traceback" not in said
    assert checkpoints(folder) == before
    run_here("run.resume=run", "checkpoint.keep=99")
    assert_same(whole, folder)


@pytest.mark.parametrize("call", ["mkdir", "fsync", "replace"])
def test_a_disk_that_became_read_only(here, whole, capsys, monkeypatch, call):
    """As a disk with errors does: the run ends with one message, and goes on when it is mended."""
    folder = stopped_at(whole, here / "run", 8)
    with monkeypatch.context() as patch:
        in_step(patch, 10, lambda: patch.setattr(os, call, read_only))
        run_here("run.resume=run", "checkpoint.keep=99", code=2)
    [error] = capsys.readouterr().err.splitlines()
    assert error.endswith("the file system is read-only; set run.dir to another folder")
    assert checkpoints(folder)[-1] == "step-00000008"
    run_here("run.resume=run", "checkpoint.keep=99")
    assert_same(whole, folder)


def read_only(*given, **named):
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_a_signal_while_it_says_how_it_ended(here, monkeypatch, capsys):
    """A launcher sends one where another process failed: what is said stays whole."""
    end_as_ever = exit_codes.finish

    def end_late(code, *lines):
        os.kill(os.getpid(), signal.SIGTERM)
        return end_as_ever(code, *lines)

    monkeypatch.setattr(exit_codes, "finish", end_late)
    run_here("data.source=none", code=2)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: data.source: ")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_the_others(here, whole_by_two, rank):
    act = (9, rank, "os.kill(os.getpid(), signal.SIGKILL)")
    by = {0: {"processes": 2}, 1: {"launcher": launch(2)}}[rank]  # one of them as a user does
    code, said = end(here, "run.dir=run", "checkpoint.keep=99", act=act, **by)
    assert code != 0
    assert said.count("another process of this run ended without a word") == 1, said
    assert "[rank" not in said  # no process has a traceback
    finish(here, "run.resume=run", "checkpoint.keep=99", processes=2)
    assert_same(whole_by_two, here / "run")


def test_an_error_of_one_process_is_told_once(here):
    """One of two fails, as where a machine lacks a disk."""
    code, said = end(
        here, "run.dir=run",
        processes=2, act=(2, 1, "raise RuntimeError('this machine lacks a disk')"),
    )  # fmt: skip
    assert code != 0
    assert ", 2 processes" in said
    assert said.count("RuntimeError: this machine lacks a disk") == 1, said
    assert "ended without a word" not in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has a disk always full")
def test_a_full_disk_for_what_is_printed_stops_no_run(here):
    with Path("/dev/full").open("wb") as full:
        words = "run.dir=run", "train.max_steps=4"
        process = start(here, *words, stdout=full.fileno(), stderr=subprocess.PIPE)
        said = process.communicate(timeout=300)[1]
    assert said.endswith("error: standard output: cannot write: No space left on device\n")
    assert process.returncode == 2
    found = results(here / "run")
    assert (found["train"]["steps"], found["failures"]) == (4, [])


def test_two_launchers_are_one_run(here):
    """As on two machines, which share the folder: the weights of one process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = "model.dropout=0", "train.epochs=1"
    machines = [
        start(
            here, *words, "run.dir=two",
            launcher=launch(
                2, "--num_machines", "2", "--machine_rank", str(rank),
                "--main_process_ip", "127.0.0.1", "--main_process_port", str(port),
            ),
        )
        for rank in (0, 1)
    ]  # fmt: skip
    said = [machine.communicate(timeout=300)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    assert results(here / "two")["num_processes"] == 2
    run_here("run.dir=one", *words)
    one, two = (load_file(here / name / "model" / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        scale = value.abs().max().clamp(min=1e-3)
        assert (two[name] - value).abs().max() <= 1e-5 * scale, name
