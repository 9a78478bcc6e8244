"""`study` and `trial`: one study a folder, trials that repeat, orphans, and how a trial ends."""

import json

import pytest
from optuna.trial import TrialState

from finetune.config import loader
from finetune.runtime.errors import InputError, StoppedError
from finetune.runtime.folder_lock import FolderLock
from finetune.training.train_log import LostError
from finetune.tuning import study as study_module
from finetune.tuning import sweep as sweep_module
from finetune.tuning.search_space import BaseRecipe, Dimension
from finetune.tuning.study import Sweep, claim_orphan, lock_file, open_study
from finetune.tuning.trial import trial_folder

SPACE = (Dimension("optim.lr", "log", (0.001, 0.1)), Dimension("train.epochs", "int", (1, 4)))


@pytest.fixture
def sweep(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("data: {source: x}\nrun: {name: tiny}\nscore: {monitor: accuracy}\n")
    base = BaseRecipe(file, (), loader.load(file, ()))
    return Sweep(base, SPACE, tmp_path / "sw", trials=3)


def run_trial(recipe, listener, on_score, cache):
    """As `pipeline.run_trial`: scores once, as its learning rate is."""
    folder = study_module.Path(recipe.run.dir)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"kind": "validation", "accuracy": recipe.optim.lr}) + "\n")
    on_score({"accuracy": recipe.optim.lr, "loss_se": 0.1}, True)


def params(study):
    return [trial.params for trial in study.get_trials()]


def test_trials_follow_from_the_seed_and_their_number(sweep, tmp_path, capsys):
    whole = sweep_module.run_sweep(sweep, None, run_trial)
    assert [trial.state for trial in whole.get_trials()] == [TrialState.COMPLETE] * 3
    in_parts = Sweep(sweep.base, SPACE, tmp_path / "parts", trials=1)
    sweep_module.run_sweep(in_parts, None, run_trial)
    in_parts = Sweep(sweep.base, SPACE, tmp_path / "parts", trials=3)
    capsys.readouterr()
    assert params(sweep_module.run_sweep(in_parts, None, run_trial)) == params(whole)
    assert "Resuming: 1 trial already finished" in capsys.readouterr().out
    best = sweep_module.best_settings(whole, sweep)
    assert best["optim.lr"] == max(trial["optim.lr"] for trial in params(whole))
    text = sweep_module.write_best(whole, sweep).read_text()
    assert text.startswith("# The best of 3 trials on recipe.yaml, by accuracy on validation (")


def test_ordered_labels_are_tuned_by_what_picks_their_models(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("data: {source: x, task: ordered}\n")
    base = BaseRecipe(file, (), loader.load(file, ()))
    assert Sweep(base, SPACE, tmp_path / "sw").metric == "quadratic_weighted_kappa"
    file.write_text(
        "data: {source: x, task: ordered}\nscore: {metrics: [rank_mae], monitor: rank_mae}\n"
    )
    named = Sweep(BaseRecipe(file, (), loader.load(file, ())), SPACE, tmp_path / "sw")
    assert (named.metric, named.direction) == ("rank_mae", "minimize")


def test_a_folder_holds_one_study(sweep):
    sweep_module.run_sweep(sweep, None, run_trial)
    other = Sweep(sweep.base, SPACE[:1], sweep.folder, trials=3)
    with pytest.raises(
        InputError, match=r"the folder holds a sweep of tiny with another space; set"
    ):
        open_study(other)
    with pytest.raises(InputError, match=r"no such database"):
        open_study(Sweep(sweep.base, SPACE, sweep.folder, storage="none://x"))


def test_only_a_dead_process_s_trial_is_claimed(sweep):
    study = open_study(sweep)
    trial = study.ask()
    [running] = study.get_trials()
    held = FolderLock().take(lock_file(sweep, trial.number))
    assert not claim_orphan(running, sweep, FolderLock())
    held.release()
    lock = FolderLock()
    assert claim_orphan(running, sweep, lock)
    assert lock.taken
    trial.set_user_attr("at", "another machine")
    lock.release()
    lock_file(sweep, trial.number).unlink()
    [running] = study.get_trials()
    assert not claim_orphan(running, sweep, lock)


@pytest.mark.parametrize(
    ("failure", "why"), [(LostError("loss is nan"), "diverged: loss is nan"), (None, "never a num")]
)
def test_trials_that_give_no_score_are_pruned(sweep, failure, why, capsys):
    def fails(recipe, listener, on_score, cache):
        if failure is not None:
            raise failure
        folder = study_module.Path(recipe.run.dir)
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").write_text('{"kind": "validation", "accuracy": null}\n')
        (folder / "checkpoints").mkdir()

    study = sweep_module.run_sweep(sweep, None, fails)
    assert {trial.state for trial in study.get_trials()} == {TrialState.PRUNED}
    assert all(why in trial.user_attrs["why"] for trial in study.get_trials())
    assert not (trial_folder(sweep, 0) / "checkpoints").exists()
    assert "  trial 2  pruned: " in capsys.readouterr().out
    with pytest.raises(InputError, match=r"no trial is complete: "):
        sweep_module.best_settings(study, sweep)


def test_a_stopped_trial_is_gone_on_with_under_its_number(sweep):
    def stop(recipe, listener, on_score, cache):
        raise StoppedError("stopped by SIGTERM after step 3; resume it")

    with pytest.raises(
        StoppedError, match=r"^trial 0 stopped by SIGTERM after step 3; the same com"
    ):
        sweep_module.run_sweep(sweep, None, stop)
    assert sweep_module.count_running(open_study(sweep)) == 1
    study = sweep_module.run_sweep(sweep, None, run_trial)
    assert [trial.number for trial in study.get_trials()] == [0, 1, 2]
    assert sweep_module.count_running(study) == 0


def test_another_metric_is_told(sweep):
    def run(recipe, listener, on_score, cache):
        folder = study_module.Path(recipe.run.dir)
        folder.mkdir(parents=True)
        (folder / "metrics.jsonl").touch()
        on_score({"f1_micro": 0.5, "loss_se": 0.1}, False)

    with pytest.raises(InputError, match=r"score.monitor: these documents are scored by other"):
        sweep_module.run_sweep(sweep, None, run)
