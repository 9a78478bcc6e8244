"""No run is written into another one's folder by default."""

from datetime import datetime
from pathlib import Path

import pytest

from finetune.config import loader, schema
from finetune.training import resume
from finetune.training.run_folder import choose_folder
from finetune.training.runs_home import runs_home
from finetune.tuning import cross_validation, seeds

STARTED = datetime(2024, 5, 6, 7, 8, 9)


def test_a_run_of_the_recipe_s_own_name_is_no_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = schema.Run(name="sms")
    assert runs_home(run) == Path("runs/sms")
    (tmp_path / "runs/sms").mkdir(parents=True)
    assert choose_folder(run, STARTED) == Path("runs/sms/2024-05-06_07-08-09")
    for name in ("sms", "sms-2"):  # as run.dir=runs/sms had it written
        (tmp_path / "runs" / name).mkdir(exist_ok=True)
        (tmp_path / "runs" / name / "recipe.yaml").write_text("data: {source: x}\n")
    assert choose_folder(run, STARTED) == Path("runs/sms-3/2024-05-06_07-08-09")
    assert choose_folder(schema.Run(name="sms", dir="own"), STARTED) == Path("own")


def test_a_run_there_is_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/sms").mkdir(parents=True)
    (tmp_path / "runs/sms/recipe.yaml").write_text("data: {source: x}\n")
    open_one = tmp_path / "runs/sms-2/2024-05-06_07-08-09"
    (open_one / "checkpoints/step-00000005").mkdir(parents=True)
    assert resume._unfinished(schema.Run(name="sms")) == open_one.relative_to(tmp_path)


@pytest.mark.parametrize(
    ("words", "make"),
    [("run.seeds=[0, 1]", seeds.seed_recipes), ("run.folds=3", cross_validation.fold_recipes)],
)
def test_runs_that_belong_together_are_beside_it_too(tmp_path, monkeypatch, words, make):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sms.yaml").write_text("data: {source: ann/sms}\nmodel: {source: ann/model}\n")
    (tmp_path / "runs/sms").mkdir(parents=True)
    (tmp_path / "runs/sms/recipe.yaml").write_text("data: {source: x}\n")
    recipes = make(loader.load("sms.yaml", [words]))
    assert {Path(str(one.run.dir)).parts[:2] for one in recipes} == {("runs", "sms-2")}
