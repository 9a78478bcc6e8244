"""How a command ends: each exception has its exit code and its lines, and a signal waits."""

import errno
import os
import signal

import pytest

from finetune.cli import exit_codes
from finetune.runtime import console, streams
from finetune.runtime.console import Verbosity
from finetune.runtime.errors import InputError, StoppedError
from finetune.runtime.signals import SignalListener


def ending_with(error):
    def command():
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (InputError(["a: no", "b: no"]), 2, ["error: a: no", "error: b: no"]),
        (StoppedError("stopped by SIGTERM; go on"), 75, ["stopped by SIGTERM; go on"]),
        (KeyboardInterrupt(), 130, ["nothing was lost"]),
        (
            OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/a"),
            2,
            [
                "error: runs/a: cannot read or write: the disk is full; free some space or set "
                "run.dir to another disk"
            ],
        ),
    ],
)
def test_each_has_its_code_and_lines(error, code, lines, capsys):
    assert exit_codes.run_command(ending_with(error), interrupted="nothing was lost") == code
    captured = capsys.readouterr()
    assert captured.err.splitlines() == lines
    assert captured.out == ""


def test_the_command_s_own_code_is_kept(capsys):
    assert exit_codes.run_command(lambda: 0) == 0
    assert exit_codes.run_command(lambda: 2) == 2
    assert capsys.readouterr() == ("", "")


def test_a_command_s_verbosity_ends_with_it(capsys):
    def say():
        console.print_line("said")
        return 0

    for verbosity in (Verbosity.SILENT, Verbosity.NORMAL):
        assert exit_codes.run_command(say, verbosity=verbosity) == 0
    assert exit_codes.run_command(say) == 0
    console.print_line("after it")
    assert capsys.readouterr().out == "said\nsaid\nafter it\n"
    console.CONSOLE.verbosity = Verbosity.SILENT  # as a program's own
    assert exit_codes.run_command(say) == 0
    console.print_line("after it")
    assert capsys.readouterr().out == "said\n"


def test_a_lost_standard_output_is_told_after_the_rest(monkeypatch, capsys):
    monkeypatch.setattr(streams, "_FAILURES", ["No space left on device"])
    assert exit_codes.run_command(ending_with(InputError("a: no"))) == 2
    told = "error: standard output: cannot write: No space left on device"
    assert capsys.readouterr().err == f"error: a: no\n{told}\n"
    assert exit_codes.run_command(lambda: 0) == 0  # told once


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(errno.EIO, "a broken disk")])
def test_a_bug_of_a_single_process_keeps_its_traceback(error):
    with pytest.raises(type(error), match="a b"):
        exit_codes.run_command(ending_with(error))


def test_one_of_several_processes_prints_a_bug_and_ends(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(
        "finetune.runtime.distributed.exit_process", lambda code: code
    )  # which would end pytest
    assert exit_codes.run_command(ending_with(ValueError("a bug"))) == 1
    said = capsys.readouterr().err
    assert said.startswith("Traceback (most recent call last):")
    assert said.endswith("ValueError: a bug\n")
    lost = RuntimeError("[gloo] Connection closed by peer")
    assert exit_codes.run_command(ending_with(lost)) == 1
    assert capsys.readouterr().err.startswith("error: another process of this run ended")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert exit_codes.run_command(ending_with(InputError("a: no"))) == 2
    assert capsys.readouterr().err == ""  # the first one prints


def test_a_signal_does_not_cut_the_error_short(capsys):
    with SignalListener() as listener:

        def command():
            raise InputError("a: no")

        assert exit_codes.run_command(command, listener) == 2
        signal.raise_signal(signal.SIGTERM)
    assert capsys.readouterr().err == "error: a: no\n"
