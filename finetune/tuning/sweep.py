"""A recipe and a space → a study: trials that are scored on validation, and the best recipe.

    runs/<recipe>/sweep/
        study.db        the study; a sweep that was killed goes on from it
        trials/0003/    each trial's recipe.yaml and metrics.jsonl
        best.yaml       the recipe of the best trial
        winner/         that recipe trained again with several seeds, and scored on test, once
        sweep.json, report.html

A trial is a run without its end (`trial.py`): test is taken out of its data before anything is
computed, so that no choice can depend on it. What a trial tries is a pure function of the seed, its
number and the trials that ended before it (TPE, Bergstra et al. 2011). One that was killed starts
again, or resumes from its checkpoint, under its own number, so the study ends as if nothing had
happened. Several processes may work on one study; each takes the next trial when it is free.
"""

import json
import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from finetune.config import loader
from finetune.config.schema import Publish, Recipe
from finetune.runtime import atomic_files
from finetune.runtime.commands import command
from finetune.runtime.console import print_line
from finetune.runtime.errors import InputError, StoppedError, explain_write_errors
from finetune.runtime.folder_lock import FolderLock
from finetune.runtime.signals import SignalListener
from finetune.runtime.wording import count_of
from finetune.training import run_removal
from finetune.training.prepared_data import DataCache
from finetune.tuning.study import Sweep, Values, claim_orphan, lock_file, open_study
from finetune.tuning.trial import RunTrial, TrialRun, remove_states, trial_folder

RunSeeds = Callable[[Recipe, SignalListener], object]


def run_sweep(sweep: Sweep, listener: SignalListener, run_trial: RunTrial) -> optuna.Study:
    """Work on the study until it has its trials, or the time is up.

    Args:
        run_trial: `pipeline.run_trial`; this floor knows none above it.

    Raises:
        InputError: for what no other trial would do better, such as data that cannot be read.
        StoppedError: after a signal; the same command goes on.
    """
    study, cache = open_study(sweep), DataCache()
    finished = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    for trial in finished:
        remove_states(trial_folder(sweep, trial.number))  # where a kill came before
    if finished:
        many = count_of(len(finished), "trial")
        print_line(f"Resuming: {many} already finished", even_if_quiet=True)
    until = time.monotonic() + 60 * (sweep.minutes if sweep.minutes is not None else float("inf"))
    while time.monotonic() < until:
        # A study of its own for each trial: it reads anew what other processes did.
        study = open_study(sweep)
        with FolderLock() as lock:
            claimed = _claim_trial(study, sweep, lock)
            if claimed is None:
                break
            try:
                TrialRun(claimed, sweep).execute(listener, cache, run_trial)
            except StoppedError as error:
                raise StoppedError(
                    f"trial {claimed.number} {error.what_stopped}; "
                    "the same command goes on with the sweep"
                ) from None
        ended = study.get_trials(deepcopy=False)[claimed.number]
        print_line(_describe_end(ended, sweep), even_if_quiet=True)
    return study


def _claim_trial(study: optuna.Study, sweep: Sweep, lock: FolderLock) -> optuna.Trial | None:
    """A trial whose process died, or a new one, locked; None where there are enough of them."""
    with FolderLock().take(sweep.folder, wait=True):
        trials = study.get_trials(deepcopy=False)
        for known in trials:
            if known.state == TrialState.RUNNING and claim_orphan(known, sweep, lock):
                return optuna.Trial(study, known._trial_id)
        if sweep.trials is not None and len(trials) >= sweep.trials:
            return None
        left = trial_folder(sweep, len(trials))  # of a study whose database is gone
        if left.is_dir() and any(left.iterdir()):
            run_removal.refuse_unless_removable(left, "--dir", "another --dir")
        trial = study.ask()
        trial.set_user_attr("at", platform.node())
        with explain_write_errors(sweep.folder):
            shutil.rmtree(trial_folder(sweep, trial.number), ignore_errors=True)
            lock.take(lock_file(sweep, trial.number))
        return trial


def _describe_end(trial: FrozenTrial, sweep: Sweep) -> str:
    """How a trial ended, in a line."""
    settings = ", ".join(f"{key} {format_setting(value)}" for key, value in trial.params.items())
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        end = f"{sweep.metric} {trial.value:.4f}"
    else:
        end = f"pruned: {trial.user_attrs.get('why', '')}"
        end = ":".join(end.split(":")[:2])
    return f"  trial {trial.number}  {end}  {trial.user_attrs['seconds']:.0f} s  {settings}"


def format_setting(value: Any) -> str:
    """A setting as people write it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def best_settings(study: optuna.Study, sweep: Sweep) -> Values:
    """What the best trial tried.

    Raises:
        InputError: where no trial is complete.
    """
    trials = study.get_trials(deepcopy=False)
    if not any(trial.state == TrialState.COMPLETE for trial in trials):
        ends = {trial.user_attrs.get("why", "still running") for trial in trials}
        why = "; ".join(sorted(ends)[:3]) or "none was started"
        raise InputError(f"{sweep.folder}: no trial is complete: {why}")
    best: Values = {}
    for dimension in sweep.dimensions:
        value = study.best_trial.params[dimension.key]
        if dimension.kind == "choice":
            value = dimension.values[dimension.names.index(value)]
        best[dimension.key] = value
    return best


def write_best(study: optuna.Study, sweep: Sweep) -> Path:
    """Write best.yaml: the recipe with the best trial's settings, which runs as it is."""
    recipe = sweep.base.with_settings(best_settings(study, sweep))
    best, trials = study.best_trial, study.get_trials(deepcopy=False)
    file = sweep.folder / "best.yaml"
    head = (
        f"# The best of {count_of(len(trials), 'trial')} on {sweep.base.file.name}, by "
        f"{sweep.metric} on validation ({best.value:.4f}, trial {best.number}).\n#\n"
        f"#     {command('train', file)}\n"
    )
    atomic_files.write_text(file, head + loader.to_yaml(recipe, whole=False))
    return file


def count_running(study: optuna.Study) -> int:
    """Trials that other processes are working on."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def retrain(
    study: optuna.Study,
    sweep: Sweep,
    seeds: int,
    listener: SignalListener,
    run_seeds: RunSeeds,
) -> dict[str, Any] | None:
    """Train the best trial's recipe with several seeds, and score each on test.

    Resumed, finished seeds stay as they are.

    Returns:
        What `seeds.json` holds; None where another process is training them.

    Raises:
        InputError: as one run does.
        StoppedError: after a signal; the same command goes on.
    """
    from accelerate.state import AcceleratorState

    recipe = sweep.base.with_settings(best_settings(study, sweep))
    # By its settings: where more trials find a better one, that one is trained.
    home = sweep.folder / "winner" / f"trial-{study.best_trial.number:04d}"
    with explain_write_errors(home):
        home.mkdir(parents=True, exist_ok=True)
    run = {"dir": str(home), "resume": "auto", "seeds": tuple(range(seeds)), "overwrite": False}
    run["mlflow_model"] = None
    recipe = recipe.model_copy(
        update={
            "publish": Publish(),  # of several models, a person picks one to push
            "run": recipe.run.model_copy(update=run),
        }
    )
    with FolderLock() as lock:
        try:
            lock.take(home)
        except InputError:
            return None
        AcceleratorState._reset_state(reset_partial_state=True)
        try:
            run_seeds(recipe, listener)
        except StoppedError as error:
            raise StoppedError(f"{error.what_stopped}; the same command goes on") from None
        winner: dict[str, Any] = json.loads((home / "seeds.json").read_text(encoding="utf-8"))
        return winner | {"folder": home.relative_to(sweep.folder).as_posix()}
