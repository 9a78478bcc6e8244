"""A recipe and a space → a study: trials that are scored on validation, and the best recipe.

    runs/<recipe>/sweep/
        study.db        the study; a sweep that was killed goes on from it
        trials/0003/    each trial's recipe.yaml and metrics.jsonl
        best.yaml       the recipe of the best trial
        winner/         that recipe trained again with several seeds, and scored on test, once
        sweep.json, report.html

A trial is a run of `run.py` without its end: test is taken out of its data before anything is
computed, so that no choice can lean on it. What a trial tries is a pure function of the seed, its
number and the trials that ended before it (TPE, Bergstra et al. 2011). One that was killed starts
again, or goes on from its checkpoint, under its own number, so the study comes out as if nothing
had happened. Several processes may work on one study; each takes trials as it gets free.
"""

import json
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from finetune.config import loader
from finetune.config.schema import Publish, Recipe
from finetune.runtime import atomic_files, folder_lock
from finetune.runtime.console import print_line
from finetune.runtime.errors import InputError, StoppedError, explain_write_errors
from finetune.runtime.signals import SignalListener
from finetune.training.prepared_data import DataCache
from finetune.training.train_log import LostError
from finetune.training.validator import ScoreCallback
from finetune.tuning import search_space
from finetune.tuning.search_space import Dimension
from finetune.tuning.study import StudyLock, Sweep, Values, is_left, mark_of, open_study

RunTrial = Callable[[Recipe, SignalListener, ScoreCallback, DataCache], object]
RunSeeds = Callable[[Recipe, SignalListener], object]


class PrunedError(Exception):
    """A trial that others leave behind."""


def run_sweep(sweep: Sweep, listener: SignalListener, run_trial: RunTrial) -> optuna.Study:
    """Work on the study until it has its trials, or the time is up.

    Args:
        run_trial: `pipeline.run_trial`; this floor knows none above it.

    Raises:
        InputError: for what no other trial would do better, such as data that cannot be read.
        StoppedError: after a signal; the same command goes on.
    """
    study, shelf = open_study(sweep), DataCache()
    done = sum(one.state.is_finished() for one in study.get_trials(deepcopy=False))
    if done:
        print_line(f"Going on: of the trials, {done} stand here already", even_if_quiet=True)
    until = time.monotonic() + 60 * (sweep.minutes if sweep.minutes is not None else float("inf"))
    while time.monotonic() < until:
        # A study of its own for each trial: it reads anew what other processes did.
        study = open_study(sweep)
        hold = folder_lock.FolderLock()
        trial = _next(study, sweep, hold)
        if trial is None:
            break
        try:
            _run(trial, sweep, listener, shelf, run_trial)
        except StoppedError as error:
            said = str(error).split(";")[0]
            raise StoppedError(
                f"trial {trial.number} {said}; the same command goes on with the sweep"
            ) from None
        finally:
            hold.release()
        print_line(_line(study.get_trials(deepcopy=False)[trial.number], sweep), even_if_quiet=True)
    return study


def _next(study: optuna.Study, sweep: Sweep, hold: folder_lock.FolderLock) -> optuna.Trial | None:
    """A trial that a dead process left, or a new one; None where there are enough of them."""
    with StudyLock(sweep.folder):
        trials = study.get_trials(deepcopy=False)
        for one in trials:
            if one.state == TrialState.RUNNING and is_left(one, sweep, hold):
                return optuna.Trial(study, one._trial_id)
        if sweep.trials is not None and len(trials) >= sweep.trials:
            return None
        trial = study.ask()
        trial.set_user_attr("at", platform.node())
        with explain_write_errors(sweep.folder):
            shutil.rmtree(_folder(sweep, trial.number), ignore_errors=True)
            hold.take(mark_of(sweep, trial.number))
        return trial


def _folder(sweep: Sweep, number: int) -> Path:
    return sweep.folder / "trials" / f"{number:04d}"


def _suggest(trial: optuna.Trial, dimensions: Sequence[Dimension]) -> Values:
    """What the trial tries: recipe key → value."""
    settings: Values = {}
    for one in dimensions:
        if one.kind == "choice":
            chosen = trial.suggest_categorical(one.key, one.names)
            settings[one.key] = one.values[one.names.index(str(chosen))]
        elif one.kind.endswith("int"):
            settings[one.key] = trial.suggest_int(one.key, *one.values, log=one.log)
        else:
            settings[one.key] = trial.suggest_float(one.key, *one.values, log=one.log)
    return settings


def _run(
    trial: optuna.Trial,
    sweep: Sweep,
    listener: SignalListener,
    shelf: DataCache,
    run_trial: RunTrial,
) -> None:
    """One trial, and its end in the study.

    Raises:
        InputError, StoppedError: as of `go`; the trial stays under way.
    """
    from accelerate.state import AcceleratorState

    began, before = time.monotonic(), trial.user_attrs.get("seconds", 0.0)
    settings = _suggest(trial, sweep.dimensions)
    folder = _folder(sweep, trial.number)

    def end(state: TrialState, why: str = "", value: float | None = None) -> None:
        trial.set_user_attr("seconds", before + time.monotonic() - began)
        if why:
            trial.set_user_attr("why", why)
        trial.study.tell(trial, value, state)
        for name in ("model", "checkpoints"):
            shutil.rmtree(folder / name, ignore_errors=True)

    try:
        choices = search_space.recipe_of(sweep.file, sweep.words, settings)
    except InputError as error:  # two choices that do not go together
        end(TrialState.PRUNED, str(error))
        return
    choices = choices.model_copy(
        update={
            # Checkpoints only against long trials being lost.
            "checkpoint": choices.checkpoint.model_copy(update={"every": "never"}),
            "run": choices.run.model_copy(
                update={
                    "dir": str(folder), "resume": "auto", "overwrite": False, "seeds": None,
                    "trackers": (),
                }
            ),
        }
    )  # fmt: skip

    def watch(values: Mapping[str, float], last: bool) -> None:
        # Of several labels, a recipe that names no metric is scored by others.
        named = sweep.base.score.model_fields_set & {"metrics", "monitor"}
        if sweep.metric not in values or ("f1_micro" in values and not named):
            raise InputError(
                f"score.monitor: these documents are scored by other metrics than {sweep.metric}; "
                "set score.metrics and score.monitor, of "
                f"{', '.join(name for name in values if name != 'loss_se')}"
            )
        number = len(_scored(folder))
        if number not in trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values:
            trial.report(values[sweep.metric], number)
        if not last and trial.should_prune():
            raise PrunedError(f"after {number} scoring{'s' * (number > 1)}")

    # Trials may compute in different precisions, of which a process has one at a time.
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        run_trial(choices, listener, watch, shelf)
    except PrunedError as error:
        end(TrialState.PRUNED, str(error))
    except LostError as error:
        end(TrialState.PRUNED, f"diverged: {error}")
    except StoppedError:
        trial.set_user_attr("seconds", before + time.monotonic() - began)
        raise
    else:
        scores = [line[sweep.metric] for line in _scored(folder)]
        numbers = [score for score in scores if score is not None and np.isfinite(score)]
        if not numbers:
            end(TrialState.PRUNED, f"{sweep.metric} was never a number")
            return
        best = min if sweep.direction == "minimize" else max
        end(TrialState.COMPLETE, value=best(numbers))


def _scored(folder: Path) -> list[Values]:
    """The scorings of validation that a trial's log holds."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return [line for line in found if line["kind"] == "validation"]


def _line(one: FrozenTrial, sweep: Sweep) -> str:
    """How a trial ended, in a line."""
    settings = ", ".join(f"{key} {short(value)}" for key, value in one.params.items())
    if one.state == TrialState.COMPLETE and one.value is not None:
        end = f"{sweep.metric} {one.value:.4f}"
    else:
        end = f"left off {one.user_attrs.get('why', '')}".split(":")[0]
    return f"  trial {one.number}  {end}  {one.user_attrs['seconds']:.0f} s  {settings}"


def short(value: Any) -> str:
    """A setting as people write it."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def best_settings(study: optuna.Study, sweep: Sweep) -> Values:
    """What the best trial tried.

    Raises:
        InputError: where no trial came to its end.
    """
    whole = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not whole:
        ends = {one.user_attrs.get("why", "under way") for one in study.get_trials(deepcopy=False)}
        said = "; ".join(sorted(ends)[:3]) or "none was begun"
        raise InputError(f"{sweep.folder}: no trial came to its end: {said}")
    best = study.best_trial
    found = {}
    for one in sweep.dimensions:
        value = best.params[one.key]
        found[one.key] = one.values[one.names.index(value)] if one.kind == "choice" else value
    return found


def write_best(study: optuna.Study, sweep: Sweep) -> Path:
    """Write best.yaml: the recipe with the best trial's settings, which runs as it stands."""
    choices = search_space.recipe_of(sweep.file, sweep.words, best_settings(study, sweep))
    best, trials = study.best_trial, len(study.get_trials(deepcopy=False))
    many = f"{trials} trial{'s' * (trials > 1)}"
    file = sweep.folder / "best.yaml"
    head = (
        f"# The best of {many} on {sweep.file.name}, by {sweep.metric} on validation "
        f"({best.value:.4f}, trial {best.number}).\n#\n"
        f"#     accelerate launch finetune/run.py {file}\n"
    )
    atomic_files.write_text(file, head + loader.to_yaml(choices, whole=False))
    return file


def under_way(study: optuna.Study) -> int:
    """Trials that other processes are at."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def retrain(
    study: optuna.Study,
    sweep: Sweep,
    seeds: int,
    listener: SignalListener,
    run_seeds: RunSeeds,
) -> dict[str, Any] | None:
    """Train the winner with several seeds and score each on test; what `seeds.json` holds.

    Taken up again, finished seeds stay as they are. None where another process is at it.

    Raises:
        InputError: as one run does.
        StoppedError: after a signal; the same command goes on.
    """
    from accelerate.state import AcceleratorState

    settings = best_settings(study, sweep)
    # By its settings: where more trials find a better one, that one is trained.
    home = sweep.folder / "winner" / f"trial-{study.best_trial.number:04d}"
    with explain_write_errors(home):
        home.mkdir(parents=True, exist_ok=True)
    hold = folder_lock.FolderLock()
    try:
        hold.take(home)
    except InputError:
        return None
    choices = search_space.recipe_of(sweep.file, sweep.words, settings)
    choices = choices.model_copy(
        update={
            "publish": Publish(),  # of several models, a person picks one to push
            "run": choices.run.model_copy(
                update={
                    "dir": str(home), "resume": "auto", "seeds": tuple(range(seeds)),
                    "overwrite": False,
                }
            )
        }
    )  # fmt: skip
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        run_seeds(choices, listener)
    except StoppedError as error:
        raise StoppedError(f"{str(error).split(';')[0]}; the same command goes on") from None
    found: dict[str, Any] = json.loads((home / "seeds.json").read_text(encoding="utf-8"))
    return found | {"folder": str(home.relative_to(sweep.folder))}
