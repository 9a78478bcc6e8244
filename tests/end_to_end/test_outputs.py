"""What fails after the last step loses nothing: one line says it, and `run.resume` completes it."""

import json
import shutil

import pytest

from finetune.evaluation import calibration
from finetune.reporting import (
    console_report,
    figures,
    html_report,
    model_card,
    predictions,
    run_outputs,
    seeds_report,
)
from finetune.reporting import results as results_module
from finetune.reporting.results_model import read_results
from finetune.runtime.errors import InputError
from finetune.training import trackers
from finetune.training.train_log import TrainLog
from tests.support.runs import assert_same, results, run_here, stopped_at

LAST = 36
OUTPUTS = ("results.json", "predictions/test.jsonl", "model/README.md", "report.html")
# What fails → the functions that it is made by, and the file that is then missing.
FAILURES = {
    "predictions": (predictions, "write_predictions", "predictions/test.jsonl"),
    "a row of predictions": (predictions, "_lines", "predictions/test.jsonl"),
    "the card": (model_card, "write_card", "model/README.md"),
    "the card's numbers": (model_card, "_limitations", "model/README.md"),
    "the report": (html_report, "write_report", "report.html"),
    "a figure": (figures, "confusion_matrix", "report.html"),
    "results.json": (results_module, "write_results", "results.json"),
    "the summary": (console_report, "print_results", None),
    "logging to the trackers": (trackers, "log_results", None),
    "closing the trackers": (trackers, "finish", None),
}
EARLIER = {
    "the analysis": (run_outputs, "analyse", "analysing its predictions failed"),
    "the temperature": (calibration, "fit_temperature", "calibrating or scoring it failed"),
}


def fail(*_, **__):
    raise ValueError("a strange number\nand more")


def no_step(*_, **__):
    raise AssertionError("a step of training")


@pytest.fixture
def trained(here, whole):
    """The folder of a run that was killed after its last step."""
    return stopped_at(whole, here / "run", LAST)


def run_failing(monkeypatch, capsys, module, name, *words):
    with monkeypatch.context() as patch:
        patch.setattr(module, name, fail)
        run_here(*words, code=2)
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(("module", "name", "file"), FAILURES.values(), ids=FAILURES)
def test_each_output_fails_alone(trained, whole, monkeypatch, capsys, request, module, name, file):
    [line] = run_failing(monkeypatch, capsys, module, name, "run.resume=run")
    what = file or request.node.callspec.id
    assert line.startswith(f"error: run: the model is trained and saved, but {what} failed: ")
    assert "ValueError: a strange number (test_outputs.py, line " in line
    assert line.endswith(
        "; to complete it without training again, run the same with run.resume=run"
    )
    assert {one for one in OUTPUTS if not (trained / one).exists()} == {file} - {None}
    if file != "results.json":
        [failure] = read_results(trained).failures
        assert failure.startswith(f"{what} failed: ")
    monkeypatch.setattr(TrainLog, "end_step", no_step)
    run_here("run.resume=auto", "run.dir=run")
    assert all((trained / one).exists() for one in OUTPUTS)
    assert results(trained)["failures"] == []
    assert_same(whole, trained)


@pytest.mark.parametrize(("module", "name", "what"), EARLIER.values(), ids=EARLIER)
def test_what_comes_before_the_results_fails(
    trained, whole, monkeypatch, capsys, module, name, what
):
    [line] = run_failing(monkeypatch, capsys, module, name, "run.resume=run")
    assert line.startswith(f"error: run: the model is trained and saved, but {what}: ValueError: ")
    found = results(trained)
    assert found["train"]["steps"] == LAST
    assert found["hashes"]["data"] == results(whole)["hashes"]["data"]
    assert found["best"]["step"] == results(whole)["train"]["best_step"]
    if name == "analyse":
        for split in ("validation", "test"):
            assert found[split]["accuracy"] == results(whole)[split]["accuracy"]
        predictions = (trained / OUTPUTS[1]).read_text()
        assert predictions == (whole / OUTPUTS[1]).read_text()
    with pytest.raises(InputError, match="to complete it without training again"):
        read_results(trained)
    monkeypatch.setattr(TrainLog, "end_step", no_step)
    run_here("run.resume=auto", "run.dir=run")
    assert_same(whole, trained)


def test_a_run_that_ends_between_two_outputs_is_completed(trained, whole, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(html_report, "write_report", interrupt)
        run_here("run.resume=run", code=130)
    assert read_results(trained).failures == [run_outputs.UNFINISHED]
    monkeypatch.setattr(TrainLog, "end_step", no_step)
    run_here("run.resume=auto", "run.dir=run")
    assert_same(whole, trained)
    assert (trained / "report.html").exists()


def test_without_a_checkpoint_a_finished_run_stays_as_it_is(here, whole, monkeypatch, capsys):
    folder = here / "run"
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "checkpoints")
    (folder / "report.html").unlink()
    before = (folder / "results.json").read_bytes()
    monkeypatch.setattr(TrainLog, "end_step", no_step)
    run_here("run.resume=auto", "run.dir=run")
    assert (folder / "results.json").read_bytes() == before
    assert "is finished" in capsys.readouterr().out


def test_a_second_seed_is_trained_after_an_output_of_the_first_failed(here, monkeypatch, capsys):
    """What both lack is told, and that their summary failed too."""
    words = ["run.seeds=[0, 1]", "run.dir=seeds", "train.max_steps=4"]
    monkeypatch.setattr(seeds_report, "write_seeds", fail)
    lines = run_failing(monkeypatch, capsys, html_report, "write_report", *words)
    last = lines[-1]
    assert [line.partition(": the model is trained")[0] for line in lines] == [
        "error: seeds/seed-0",
        "error: seeds/seed-1",
        last,
    ]
    assert last.startswith("error: seeds: the summary of its seeds failed: ValueError: a strange")
    for seed in (0, 1):
        assert json.loads((here / f"seeds/seed-{seed}/results.json").read_text())["seed"] == seed
