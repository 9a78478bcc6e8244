"""train.minutes: steps are timed and undone, the recipe names them, and all else is as ever."""

import json

import pytest

from finetune import pipeline
from finetune.config import loader
from finetune.runtime.signals import SignalListener
from finetune.training import time_budget
from finetune.training.prepared_data import DataCache
from tests.support.runs import assert_same, finish, lines, results, run_here, stopped_at

TIMED = "train.minutes=1", "train.epochs=2", "score.every=epoch"  # 24 steps, long before the minute


@pytest.fixture(scope="session")
def timed(documents, shared):
    words = "run.dir=timed", *TIMED, "checkpoint.keep=99"
    return shared("documents/timed", lambda folder: finish(folder.parent, *words))


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(time_budget, "LEAST_SECONDS", 0.05)


def test_the_saved_recipe_names_the_steps_and_repeats_the_run(here, timed):
    saved = loader.load_saved(timed)
    assert saved.train.minutes == 1
    assert saved.train.max_steps == saved.train.min_steps == 24
    assert isinstance(saved.score.every, int)
    assert len(lines(timed, "validation")) <= 10
    [plan] = lines(timed, "time_plan")
    assert plan["steps"] == 24
    assert plan["is_capped"]
    assert results(timed)["train"]["minutes"] == 1
    run_here("run.dir=same", "train.max_steps=24", "train.min_steps=24", "train.epochs=2",
             f"score.every={saved.score.every}")  # fmt: skip
    assert results(here / "same")["hashes"]["weights"] == results(timed)["hashes"]["weights"]


def test_stopped_and_taken_up_it_keeps_its_plan(here, timed, monkeypatch):
    """Nothing is timed anew, to the last bit."""
    folder = stopped_at(timed, here / "run", 8)
    monkeypatch.setattr(time_budget, "measure_speed", None)
    run_here("run.resume=run", *TIMED, "checkpoint.keep=99")
    assert_same(timed, folder)


def test_taken_up_with_other_minutes_it_is_refused(here, timed, capsys):
    stopped_at(timed, here / "run", 8)
    run_here("run.resume=run", "train.minutes=2", *TIMED[1:], code=2)
    assert "train.minutes is 2.0, and was 1.0" in capsys.readouterr().err


def test_too_little_time_is_refused(here, capsys):
    run_here("run.dir=run", "train.minutes=0.01", code=2)
    said = capsys.readouterr().err
    assert "train.minutes: 0.01 leaves no time to train" in said
    assert not (here / "run" / "model").exists()


def test_a_dry_run_promises_no_steps(here, capsys):
    run_here(*TIMED, "--dry-run")
    said = capsys.readouterr().out
    assert "steps of 8 documents for train.minutes: 1;" in said
    assert "found by timing the first ones" in said


def test_time_that_is_scarce_is_what_decides(here, monkeypatch):
    """As on a machine on which a step takes as long as it does in this pretended one."""
    speed = time_budget.Speed(step=2.0, forward=1e-6, timed=4)
    monkeypatch.setattr(time_budget, "measure_speed", lambda *given: speed)
    run_here("run.dir=run", "train.minutes=1", "score.every=epoch")
    found = results(here / "run")["train"]
    assert 10 <= found["steps"] <= 28
    assert found["planned_steps"] == found["steps"]
    log = json.loads((here / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert log["kind"] == "time_plan"
    assert not log["is_capped"]


def test_splits_that_are_not_there_take_no_time(here, monkeypatch):
    """Without validation, with frozen layers whose states are kept; a trial, without test."""
    budgets = []
    plan = time_budget.plan_steps

    def noted(budget, speed, *given):
        budgets.append((budget, speed))
        return plan(budget, speed, *given)

    monkeypatch.setattr(time_budget, "plan_steps", noted)
    (here / "few").mkdir()
    (here / "few/train.jsonl").symlink_to(here / "data/train.jsonl")
    run_here("run.dir=run", "train.minutes=1", "train.epochs=2", "score.every=epoch",
             "data.source=few", "data.validation=none", "model.freeze=encoder", "model.dropout=0",
             "cache.dir=cache")  # fmt: skip
    recipe = loader.load("tiny.yaml", ["run.dir=trial", *TIMED])
    with SignalListener() as listener:
        pipeline.run_trial(recipe, listener, lambda *score: None, DataCache())
    (frozen, speed), (trial, plain) = budgets
    assert frozen.validation == frozen.closing == 0
    assert frozen.test > 0
    assert speed.whole > 0
    assert trial.test == 0
    assert trial.validation == trial.closing > 0
    assert plain.whole is None
