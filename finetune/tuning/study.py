"""What a sweep is asked for → its study: trials in a database that processes share, and survive.

What a trial tries is a pure function of the seed, its number and the trials that ended before it
(TPE, Bergstra et al. 2011), in whatever process.
"""

import json
import os
import platform
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

from finetune.config.schema import Recipe
from finetune.evaluation.metrics import LOWER_IS_BETTER
from finetune.runtime import folder_lock
from finetune.runtime.errors import InputError, explain_write_errors
from finetune.tuning.search_space import Dimension

PRUNERS = ("median", "hyperband", "off")
TO_LEARN_FROM = 5  # whole trials before the first is compared with them
Values = dict[str, Any]


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
        return self.base.score.monitor

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


def open_study(sweep: Sweep) -> optuna.Study:
    """The study, from its database, or a new one there.

    Raises:
        InputError: where there is no such database, or it holds another sweep of this name.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    url = sweep.storage
    if url is None:
        with explain_write_errors(sweep.folder):
            sweep.folder.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{sweep.folder / 'study.db'}"
    try:
        with StudyLock(sweep.folder):
            waits = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
            storage = optuna.storages.RDBStorage(url, engine_kwargs=waits)
            others = {*optuna.get_all_study_names(storage)} - {sweep.name}
            if sweep.storage is None and others:  # whose trials would be written over
                raise InputError(
                    f"{sweep.folder}: it holds a sweep of {', '.join(sorted(others))}; give "
                    "another --dir"
                )
            study = _create(sweep, storage)
            known = study.user_attrs.get("identity")
            if known not in (None, sweep.identity()) and not _is_begun(study, sweep):
                optuna.delete_study(study_name=sweep.name, storage=storage)
                study, known = _create(sweep, storage), None
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


def _create(sweep: Sweep, storage: optuna.storages.BaseStorage) -> optuna.Study:
    return optuna.create_study(
        storage=storage,
        study_name=sweep.name,
        direction=sweep.direction,
        sampler=ByNumber(sweep.seed),
        pruner=_pruner(sweep),
        load_if_exists=True,
    )


def _is_begun(study: optuna.Study, sweep: Sweep) -> bool:
    """Whether a trial was scored, or a process is at one. Of a first trial that was refused, no.

    Then the study is of nothing yet, and the recipe may be mended.
    """
    return any(
        one.state.is_finished()
        or one.intermediate_values
        or not is_left(one, sweep, folder_lock.FolderLock())
        for one in study.get_trials(deepcopy=False)
    )


def is_left(one: FrozenTrial, sweep: Sweep, hold: folder_lock.FolderLock) -> bool:
    """Whether a trial under way belonged to this machine or its shared folder, and has no process.

    Then it is held from here on.
    """
    mark = mark_of(sweep, one.number, create=False)
    if not mark.exists():
        # Asked for, and killed before it began; or of a machine with a folder of its own.
        if one.user_attrs.get("at", platform.node()) != platform.node():
            return False
        mark = mark_of(sweep, one.number)
    try:
        hold.take(mark)
    except InputError:
        return False
    return True


def mark_of(sweep: Sweep, number: int, create: bool = True) -> Path:
    """What the process of a trial holds; beside its folder, which is the run's own to hold."""
    mark = sweep.folder / "trials" / f".{number:04d}.lock"
    if create:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    return mark


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


class StudyLock:  # used as `with alone(folder):`
    """One process at a time, of those that share the folder."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / ".lock"
        self._handle = -1

    def __enter__(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self._file, os.O_RDWR | os.O_CREAT)
        if folder_lock.fcntl is not None:
            with suppress(OSError):  # a file system without locks
                folder_lock.fcntl.flock(self._handle, folder_lock.fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)
