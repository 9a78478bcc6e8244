"""One trial of a sweep: its recipe, its run without test, and how it ended.

A trial is pruned where other trials are better, where its settings do not go together, and where it
diverges. One that is stopped stays under way in the study: the same command goes on with it.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import optuna
from optuna.trial import TrialState

from finetune.config.schema import Recipe
from finetune.runtime.errors import InputError, StoppedError
from finetune.runtime.signals import SignalListener
from finetune.runtime.wording import count_of
from finetune.training.prepared_data import DataCache
from finetune.training.train_log import LostError
from finetune.training.validator import ScoreCallback
from finetune.tuning.search_space import Dimension
from finetune.tuning.study import Sweep, Values

RunTrial = Callable[[Recipe, SignalListener, ScoreCallback, DataCache], object]


class PrunedError(Exception):
    """Ends a trial that is worse than others."""


class TrialRun:
    """One trial from its settings to its end in the study."""

    def __init__(self, trial: optuna.Trial, sweep: Sweep) -> None:
        self.trial, self.sweep = trial, sweep
        self.folder = trial_folder(sweep, trial.number)
        self.began, self.earlier = time.monotonic(), trial.user_attrs.get("seconds", 0.0)

    def execute(self, listener: SignalListener, cache: DataCache, run_trial: RunTrial) -> None:
        """Run the trial, and record its end.

        Raises:
            InputError: as the run does, but where its settings do not go together.
            StoppedError: after a signal. After either the trial stays under way.
        """
        from accelerate.state import AcceleratorState

        settings = suggest_settings(self.trial, self.sweep.dimensions)
        try:
            recipe = trial_recipe(self.sweep.base.with_settings(settings), self.folder)
        except InputError as error:  # two choices that do not go together
            self._finish(TrialState.PRUNED, str(error))
            return
        # Trials may compute in different precisions, of which a process has one at a time.
        AcceleratorState._reset_state(reset_partial_state=True)
        try:
            run_trial(recipe, listener, self.report_score, cache)
        except PrunedError as error:
            self._finish(TrialState.PRUNED, str(error))
        except LostError as error:
            self._finish(TrialState.PRUNED, f"diverged: {error}")
        except StoppedError:
            self._record_seconds()
            raise
        else:
            self._complete()

    def report_score(self, values: Mapping[str, float], last: bool) -> None:
        """Tell the study of a validation.

        Raises:
            PrunedError: where other trials were better by now.
            InputError: where these documents are not scored by the sweep's metric.
        """
        metric = self.sweep.metric
        # Of several labels, a recipe that names no metric is scored by others.
        named = self.sweep.base.recipe.score.model_fields_set & {"metrics", "monitor"}
        if metric not in values or ("f1_micro" in values and not named):
            raise InputError(
                f"score.monitor: these documents are scored by other metrics than {metric}; "
                "set score.metrics and score.monitor, of "
                f"{', '.join(name for name in values if name != 'loss_se')}"
            )
        number = len(read_validations(self.folder))
        known = self.trial.study.get_trials(deepcopy=False)[self.trial.number]
        if number not in known.intermediate_values:
            self.trial.report(values[metric], number)
        if not last and self.trial.should_prune():
            raise PrunedError(f"after {count_of(number, 'validation')}")

    def _complete(self) -> None:
        metric = self.sweep.metric
        scores = [line[metric] for line in read_validations(self.folder)]
        finite = [score for score in scores if score is not None and np.isfinite(score)]
        if not finite:
            self._finish(TrialState.PRUNED, f"{metric} was never a number")
            return
        best = min if self.sweep.direction == "minimize" else max
        self._finish(TrialState.COMPLETE, value=best(finite))

    def _finish(self, state: TrialState, why: str = "", value: float | None = None) -> None:
        self._record_seconds()
        if why:
            self.trial.set_user_attr("why", why)
        self.trial.study.tell(self.trial, value, state)
        remove_states(self.folder)

    def _record_seconds(self) -> None:
        self.trial.set_user_attr("seconds", self.earlier + time.monotonic() - self.began)


def remove_states(folder: Path) -> None:
    """Remove the weights of a trial whose end is recorded; what it scored stays."""
    for name in ("model", "checkpoints"):
        shutil.rmtree(folder / name, ignore_errors=True)


def trial_folder(sweep: Sweep, number: int) -> Path:
    return sweep.folder / "trials" / f"{number:04d}"


def suggest_settings(trial: optuna.Trial, dimensions: Sequence[Dimension]) -> Values:
    """What the trial tries: recipe key → value."""
    settings: Values = {}
    for dimension in dimensions:
        key, values = dimension.key, dimension.values
        if dimension.kind == "choice":
            chosen = trial.suggest_categorical(key, dimension.names)
            settings[key] = values[dimension.names.index(str(chosen))]
        elif dimension.kind.endswith("int"):
            settings[key] = trial.suggest_int(key, *values, log=dimension.log)
        else:
            settings[key] = trial.suggest_float(key, *values, log=dimension.log)
    return settings


def trial_recipe(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe of a run that can be resumed in `folder`."""
    run = {
        "dir": str(folder), "resume": "auto", "overwrite": False, "seeds": None, "trackers": (),
        "mlflow_model": None,
    }  # fmt: skip
    return recipe.model_copy(
        update={
            # Checkpoints only when stopped, so that a long trial is not lost.
            "checkpoint": recipe.checkpoint.model_copy(update={"every": "never"}),
            "run": recipe.run.model_copy(update=run),
        }
    )


def read_validations(folder: Path) -> list[Values]:
    """The lines on validation of a trial's log."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    logged = [json.loads(line) for line in lines]
    return [line for line in logged if line["kind"] == "validation"]
