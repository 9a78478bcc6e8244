"""Every command of the package: one entry, its exit codes, and problems told as error lines."""

import argparse
import importlib
import io
import json
import pkgutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from finetune import __main__, __version__, cli, pipeline, run
from finetune.cli import (
    adapt,
    argument_types,
    compare,
    completion,
    demo,
    doctor,
    evaluate,
    export_onnx,
    find_label_errors,
    find_lr,
    inspect,
    new,
    predict,
    predict_ray,
    push,
    recipes,
    report,
    schema,
    serve,
    suggest,
    sweep,
    train,
)
from finetune.cli import main as dispatcher
from finetune.cli.main import COMMANDS, main
from finetune.config import json_schema
from finetune.data.formats.registry import FORMATS
from finetune.inference import evaluation_job, onnx_comparison
from finetune.inference.batch_job import JobSummary
from finetune.reporting import compare as compare_report
from finetune.reporting import evaluation_report
from finetune.runtime import commands, streams
from tests.support.processes import ENVIRONMENT

MODULES = (
    adapt, compare, completion, demo, doctor, evaluate, export_onnx, find_label_errors, find_lr,
    inspect, new, predict, predict_ray, push, recipes, report, schema, serve, suggest, sweep, train,
)  # fmt: skip
# What takes seconds to import, and no option needs.
HEAVY = ("torch", "transformers", "datasets", "sklearn", "evaluate", "accelerate", "ray", "scipy")
# The modules of the package that are no commands.
SHARED = {
    "argument_types",
    "command_parser",
    "exit_codes",
    "main",
    "output_files",
    "path_checks",
    "recipe_argument",
}


def test_every_module_is_a_command():
    there = {name for _, name, _ in pkgutil.iter_modules(cli.__path__)}
    named = [command.module for command in COMMANDS.values()]
    assert len(named) == len(set(named)) >= 12
    assert there == {*named} | SHARED
    assert {f"finetune.cli.{name}" for name in named} == {one.__name__ for one in MODULES}
    assert run.main is train.main
    assert __main__.main is dispatcher.main


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_usage(name, capsys):
    for words, code in ((["--help"], 0), (["--no-such-option"], 2)):
        with pytest.raises(SystemExit) as caught:
            main([name, *words])
        assert caught.value.code == code
        captured = capsys.readouterr()
        call = f"{commands.program()} {name}"
        if code:
            assert captured.err.startswith("error: ")
            assert captured.err.endswith(f"see {call} --help\n")
            assert captured.err.count("\n") == 1
        else:
            assert captured.out.startswith(f"usage: {call} ")


def test_the_help_lists_every_command_in_one_line(capsys):
    assert main(["--help"]) == main(["help"]) == main(["-h"]) == 0
    text = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert text.count(f"\n  {name} ") == 3
        assert command.summary in text
    assert max(map(len, text.splitlines())) <= 100
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("usage: ")
    with pytest.raises(SystemExit):
        main(["help", "report"])
    assert "report.html" in capsys.readouterr().out


def test_the_version(capsys):
    assert main(["--version"]) == main(["-V"]) == 0
    assert capsys.readouterr().out == f"finetune {__version__}\n" * 2


@pytest.mark.parametrize(
    ("word", "hint"),
    [("pridict", "did you mean 'predict'?"), ("xyzzy", "the commands are: "), ("rep", "'report'?")],
)
def test_an_unknown_command_names_the_closest(word, hint, capsys):
    assert main([word]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {word}: no such command; ")
    assert hint in line


def test_a_quiet_command_silences_no_later_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words in (
        ["new", "none.csv", "--quiet"],
        ["train", "none.yaml", "--json"],
        ["predict", "none", "none.csv", "--output", "out.csv", "--json"],
        ["evaluate", "none", "none.csv", "--quiet"],
    ):
        assert main(words) == 2
        capsys.readouterr()
        assert main(["recipes"]) == 0
        assert "bbc_news" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["0", "-1", "1.5", "many", ""])
def test_numbers_of_options(word):
    assert argument_types.positive("12") == 12
    with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number above 0"):
        argument_types.positive(word)


LABELS = {"label": "“京都” – é"}


def _print_evaluation(monkeypatch, folder):
    monkeypatch.setattr(
        evaluation_job,
        "evaluate_rows",
        lambda *_, **__: SimpleNamespace(
            write=lambda folder: None, evaluation=SimpleNamespace(as_json=lambda: LABELS)
        ),
    )
    monkeypatch.setattr(evaluation_report, "print_evaluation", lambda *_: None)
    (folder / "june.csv").write_text("text,label\n")
    words = ["model", str(folder / "june.csv"), "--json", "--output", str(folder / "june")]
    evaluate.evaluate(evaluate.build_parser().parse_args(words))


def _print_comparison(monkeypatch, folder):
    found = SimpleNamespace(model_dump_json=lambda indent: json.dumps(LABELS, ensure_ascii=False))
    for name, made in (("read_run", None), ("compare_runs", found)):
        monkeypatch.setattr(compare_report, name, lambda *_, made=made: made)
    compare.compare_runs([folder, folder], None, as_json=True)


def _print_predictions(monkeypatch, folder):
    predict.print_summary(JobSummary(1, 0, 0, LABELS, 1.0, 1), SimpleNamespace(json=True))


def _print_training(monkeypatch, folder):
    (folder / "results.json").write_text(json.dumps(LABELS, ensure_ascii=False), encoding="utf-8")
    monkeypatch.setattr(pipeline, "run", lambda *_: folder)
    train.main(["bbc_news", "--json"])


def _print_diagnosis(monkeypatch, folder):
    monkeypatch.setattr(doctor, "PARTS", {"System": lambda: LABELS})
    doctor.main(["--json"])


def _print_schema(monkeypatch, folder):
    monkeypatch.setattr(json_schema, "recipe_schema", lambda: LABELS)
    schema.main([])


@pytest.mark.parametrize(
    "print_it",
    [
        _print_evaluation, _print_comparison, _print_predictions, _print_training,
        _print_diagnosis, _print_schema,
    ],
)  # fmt: skip
def test_json_says_the_same_on_a_terminal_with_ascii_alone(print_it, monkeypatch, tmp_path):
    raw = io.BytesIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii", errors=streams.ERRORS))
        print_it(patch, tmp_path)
        printed = json.loads(raw.getvalue().decode("ascii"))
    while "label" not in printed:
        printed = printed.get("counts") or printed.get("parts") or printed["System"]
    assert printed["label"] == LABELS["label"]


def test_a_recipe_in_the_place_of_a_command_is_to_be_trained(capsys):
    assert main(["my recipe.yaml"]) == 2
    meant = commands.command("train", "my recipe.yaml")
    told = f"error: my recipe.yaml: no such command; did you mean '{meant}'?\n"
    assert capsys.readouterr().err == told


def test_ctrl_c_before_a_command_listens_has_its_exit_code(monkeypatch, capsys):
    def interrupted(words, prog):
        raise KeyboardInterrupt

    monkeypatch.setattr(report, "main", interrupted)
    assert main(["report", "run"]) == 130
    assert capsys.readouterr() == ("", "")


def test_a_sweep_without_optuna_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "optuna", None)
    (tmp_path / "space.yaml").write_text("optim.lr: {choice: [0.1, 0.2]}\n")
    assert main(["sweep", "bbc_news", "--space", "space.yaml"]) == 2
    told = "error: Optuna is not installed; pip install 'finetune-documents[sweep]'\n"
    assert capsys.readouterr().err == told


def test_parsers_import_nothing_heavy():
    """All of them in one process, so that no library is loaded by any."""
    code = f"""
import importlib, sys
from finetune.cli.main import COMMANDS
for command in COMMANDS.values():
    importlib.import_module("finetune.cli." + command.module).build_parser("x").format_help()
    found = [name for name in {HEAVY!r} if name in sys.modules]
    assert not found, (command, found)
print("looked at", len(COMMANDS))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"looked at {len(COMMANDS)}\n"


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
        (
            "compare",
            ["one"],
            "expected two run folders or more, or a folder that holds runs, got one alone",
        ),
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


def test_the_table_of_an_export_has_no_accuracy_of_numbers(capsys):
    check = onnx_comparison.Check("fp32", 1.0, 0.0, None, 10.0, 3.0)
    export_onnx.print_checks([check])
    said = capsys.readouterr().out
    assert "same labels" in said
    assert "accuracy" in said
    export_onnx.print_checks([check], of_numbers=True)
    said = capsys.readouterr().out
    assert said.split() == [
        "same", "numbers", "max", "difference", "rows/s", "MB",
        "fp32", "100.00", "%", "0.0e+00", "10", "3",
    ]  # fmt: skip
