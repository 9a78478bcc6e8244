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
import os
import platform
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from finetune import recipe_file, run_folder, space
from finetune.documents import Shelf
from finetune.metrics import LOWER_IS_BETTER
from finetune.problems import InputError, StoppedError, writing
from finetune.recipe import Publish, Recipe
from finetune.record import LostError
from finetune.run import run, run_seeds
from finetune.signals import Listener
from finetune.space import Dimension
from finetune.terminal import say

PRUNERS = ("median", "hyperband", "off")
TO_LEARN_FROM = 5  # whole trials before the first is compared with them
Values = dict[str, Any]


class PrunedError(Exception):
    """A trial that others leave behind."""


@dataclass(frozen=True)
class Sweep:
    """What a sweep is asked to do.

    Attributes:
        file, words: the recipe, and what is set beside it.
        base: the same, read.
        storage: a database's URL; None: study.db in the folder.
        trials: how many there shall be in all.
        minutes: after which this process begins no more of them.
    """

    file: Path
    words: tuple[str, ...]
    base: Recipe
    dimensions: tuple[Dimension, ...]
    folder: Path
    storage: str | None = None
    trials: int | None = None
    minutes: float | None = None
    pruner: str = "median"
    seed: int = 0

    @property
    def metric(self) -> str:
        return self.base.score.best

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        return "minimize" if self.metric in LOWER_IS_BETTER else "maximize"

    @property
    def name(self) -> str:
        """Of the study, in its database."""
        return self.base.run.name or "recipe"

    def identity(self) -> str:
        """What must be the same for trials to belong to one study."""
        choices = self.base.model_dump(mode="json", exclude={"run", "publish", "checkpoint"})
        about = {
            "recipe": choices | {"cache": None, "run": {"seed": self.base.run.seed}},
            "space": [one.said() for one in self.dimensions],
            "pruner": self.pruner,
            "seed": self.seed,
        }
        return json.dumps(about)


class ByNumber(optuna.samplers.BaseSampler):
    """TPE whose random numbers follow from a seed and the trial's number, in whatever process."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._own = optuna.samplers.TPESampler(seed=seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        [drawn] = np.random.SeedSequence([self.seed, trial.number]).generate_state(1)
        self._own = optuna.samplers.TPESampler(seed=int(drawn))
        self._own.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._own.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> Values:
        return self._own.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._own.sample_independent(study, trial, param_name, param_distribution)


def study_of(sweep: Sweep) -> optuna.Study:
    """The study, from its database, or a new one there.

    Raises:
        InputError: where there is no such database, or it holds another sweep of this name.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    url = sweep.storage
    if url is None:
        with writing(sweep.folder):
            sweep.folder.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{sweep.folder / 'study.db'}"
    try:
        with _alone(sweep.folder):
            waits = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
            storage = optuna.storages.RDBStorage(url, engine_kwargs=waits)
            study = optuna.create_study(
                storage=storage,
                study_name=sweep.name,
                direction=sweep.direction,
                sampler=ByNumber(sweep.seed),
                pruner=_pruner(sweep),
                load_if_exists=True,
            )
            known = study.user_attrs.get("identity")
            if known is None:
                study.set_user_attr("identity", sweep.identity())
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError) as error:
        why = str(error).splitlines()[0]
        raise InputError(f"--storage: {url.split('@')[-1]}: no such database: {why}") from None
    if known not in (None, sweep.identity()):
        raise InputError(
            f"{sweep.folder}: it holds a sweep of {sweep.name} with {_differing(known, sweep)}; "
            "set it back, or give another --dir (and with --storage, another run.name)"
        )
    return study


def _differing(known: str, sweep: Sweep) -> str:
    then, now = json.loads(known), json.loads(sweep.identity())
    if then["recipe"] != now["recipe"]:
        keys = [
            f"{section}.{key}"
            for section, values in now["recipe"].items()
            for key, value in (values or {}).items()
            if (then["recipe"].get(section) or {}).get(key) != value
        ]
        return f"another recipe ({', '.join(keys)})"
    return "another " + " and ".join(key for key in now if then[key] != now[key])


def _pruner(sweep: Sweep) -> optuna.pruners.BasePruner:
    """Scorings are counted, not steps: batch sizes differ, and so do the steps of an epoch."""
    if sweep.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=TO_LEARN_FROM)
    if sweep.pruner == "hyperband":
        # Where scorings are counted in steps, the first whole trial says how many there are.
        epochs = [stage.train.epochs for stage in sweep.base.by_stage()]
        known = sweep.base.score.every == "epoch" and "auto" not in epochs
        most = sum(map(int, epochs)) if known else "auto"
        return optuna.pruners.HyperbandPruner(1, most, reduction_factor=2)
    return optuna.pruners.NopPruner()


class _alone:  # noqa: N801 # used as `with _alone(folder):`
    """One process at a time, of those that share the folder."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / ".lock"
        self._handle = -1

    def __enter__(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self._file, os.O_RDWR | os.O_CREAT)
        if run_folder.fcntl is not None:
            with suppress(OSError):  # a file system without locks
                run_folder.fcntl.flock(self._handle, run_folder.fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)


def go(sweep: Sweep, listener: Listener) -> optuna.Study:
    """Work on the study until it has its trials, or the time is up.

    Raises:
        InputError: for what no other trial would do better, such as data that cannot be read.
        StoppedError: after a signal; the same command goes on.
    """
    study, shelf = study_of(sweep), Shelf()
    until = time.monotonic() + 60 * (sweep.minutes if sweep.minutes is not None else float("inf"))
    while time.monotonic() < until:
        # A study of its own for each trial: it reads anew what other processes did.
        study = study_of(sweep)
        hold = run_folder.Hold()
        trial = _next(study, sweep, hold)
        if trial is None:
            break
        try:
            _run(trial, sweep, listener, shelf)
        except StoppedError as error:
            said = str(error).split(";")[0]
            raise StoppedError(
                f"trial {trial.number} {said}; the same command goes on with the sweep"
            ) from None
        hold.let_go()
        say(_line(study.get_trials(deepcopy=False)[trial.number], sweep), even_if_quiet=True)
    return study


def _next(study: optuna.Study, sweep: Sweep, hold: run_folder.Hold) -> optuna.Trial | None:
    """A trial that a dead process left, or a new one; None where there are enough of them."""
    with _alone(sweep.folder):
        trials = study.get_trials(deepcopy=False)
        for one in trials:
            if one.state == TrialState.RUNNING and _is_left(one, sweep, hold):
                return optuna.Trial(study, one._trial_id)
        if sweep.trials is not None and len(trials) >= sweep.trials:
            return None
        trial = study.ask()
        trial.set_user_attr("at", platform.node())
        with writing(sweep.folder):
            shutil.rmtree(_folder(sweep, trial.number), ignore_errors=True)
            hold.take(_mark(sweep, trial.number))
        return trial


def _is_left(one: FrozenTrial, sweep: Sweep, hold: run_folder.Hold) -> bool:
    """Whether a trial under way belonged to this machine or its shared folder, and has no process.

    Then it is held from here on.
    """
    mark = _mark(sweep, one.number, create=False)
    if not mark.exists():
        # Asked for, and killed before it began; or of a machine with a folder of its own.
        if one.user_attrs.get("at", platform.node()) != platform.node():
            return False
        mark = _mark(sweep, one.number)
    try:
        hold.take(mark)
    except InputError:
        return False
    return True


def _mark(sweep: Sweep, number: int, create: bool = True) -> Path:
    """What the process of a trial holds; beside its folder, which is the run's own to hold."""
    mark = sweep.folder / "trials" / f".{number:04d}.lock"
    if create:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    return mark


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


def _run(trial: optuna.Trial, sweep: Sweep, listener: Listener, shelf: Shelf) -> None:
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
        choices = space.recipe_of(sweep.file, sweep.words, settings)
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
        named = sweep.base.score.model_fields_set & {"metrics", "best"}
        if sweep.metric not in values or ("f1_micro" in values and not named):
            raise InputError(
                f"score.best: these documents are scored by other metrics than {sweep.metric}; "
                f"name one in the recipe: {', '.join(name for name in values if name != 'loss_se')}"
            )
        number = len(_scored(folder))
        if number not in trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values:
            trial.report(values[sweep.metric], number)
        if not last and trial.should_prune():
            raise PrunedError(f"after {number} scoring{'s' * (number > 1)}")

    # Trials may compute in different precisions, of which a process has one at a time.
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        run(choices, listener, watch=watch, shelf=shelf)
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
    choices = space.recipe_of(sweep.file, sweep.words, best_settings(study, sweep))
    best, many = study.best_trial, len(study.get_trials(deepcopy=False))
    file = sweep.folder / "best.yaml"
    head = (
        f"# The best of {many} trials on {sweep.file.name}, by {sweep.metric} on validation "
        f"({best.value:.4f}, trial {best.number}).\n#\n"
        f"#     accelerate launch finetune/run.py {file}\n"
    )
    run_folder.write_whole(file, head + recipe_file.to_yaml(choices, whole=False))
    return file


def under_way(study: optuna.Study) -> int:
    """Trials that other processes are at."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def retrain(
    study: optuna.Study, sweep: Sweep, seeds: int, listener: Listener
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
    with writing(home):
        home.mkdir(parents=True, exist_ok=True)
    hold = run_folder.Hold()
    try:
        hold.take(home)
    except InputError:
        return None
    choices = space.recipe_of(sweep.file, sweep.words, settings)
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
        run_seeds(choices, listener, dry=False)
    except StoppedError as error:
        raise StoppedError(f"{str(error).split(';')[0]}; the same command goes on") from None
    found: dict[str, Any] = json.loads((home / "seeds.json").read_text(encoding="utf-8"))
    return found | {"folder": str(home.relative_to(sweep.folder))}
