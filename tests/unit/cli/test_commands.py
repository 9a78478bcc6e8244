"""Every command of the package: one entry, its exit codes, and problems told as error lines."""

import importlib
import pkgutil

import pytest

from finetune import cli, run
from finetune.cli import (
    compare,
    demo,
    export_onnx,
    find_label_errors,
    find_lr,
    inspect,
    predict,
    predict_ray,
    push,
    report,
    sweep,
    train,
)
from finetune.data.formats.registry import FORMATS

COMMANDS = (
    compare, demo, export_onnx, find_label_errors, find_lr, inspect, predict, predict_ray, push,
    report, sweep, train,
)  # fmt: skip


def test_these_are_all():
    there = {name for _, name, _ in pkgutil.iter_modules(cli.__path__)}
    named = {command.__name__.rpartition(".")[2] for command in COMMANDS}
    assert there == named | {"exit_codes"}
    assert run.main is train.main


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_help_and_usage(command, capsys):
    for words, code in ((["--help"], 0), (["--no-such-option"], 2)):
        with pytest.raises(SystemExit) as caught:
            command.main(words)
        assert caught.value.code == code
    assert "usage: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (predict, f"--format {{{','.join(name for name in FORMATS if FORMATS[name].endings)}}}"),
        (sweep, "--pruner {median,hyperband,off}"),
    ],
    ids=["predict", "sweep"],
)
def test_choices_are_those_of_the_tables(command, words, capsys):
    with pytest.raises(SystemExit):
        command.main(["--help"])
    assert words in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("name", "words", "problem"),
    [
        ("compare", ["one"], "expected two run folders or more, got one alone"),
        ("report", ["none"], "none: expected the folder of a finished run"),
        ("find_lr", ["none.yaml"], "none.yaml: no such recipe file"),
        ("inspect", ["none.yaml"], "none.yaml: no such recipe file"),
        ("sweep", ["none.yaml", "--space", "none.yaml", "--trials", "0"], "--trials: expected a"),
        ("train", ["none.yaml", "--json", "--dry-run"], "--json: a dry run has no results"),
        ("push", ["none", "you/yours"], "none: "),
    ],
)
def test_a_problem_is_an_error_line_and_code_2(name, words, problem, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert importlib.import_module(f"finetune.cli.{name}").main(words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {problem}")
