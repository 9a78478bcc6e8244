"""What a sweep is asked for → its study: trials in a database that processes share, and survive.

What a trial tries is a pure function of the seed, its number and the trials that ended before it
(TPE, Bergstra et al. 2011), in whatever process.
"""

import json
import platform
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

from finetune.config.schema import for_task
from finetune.evaluation.metrics import LOWER_IS_BETTER
from finetune.runtime.errors import InputError, explain_write_errors, shorten
from finetune.runtime.folder_lock import FolderLock
from finetune.training import folder_mark
from finetune.tuning.search_space import BaseRecipe, Dimension

STARTUP_TRIALS = 5  # complete trials before the first is compared with them
Values = dict[str, Any]


@dataclass(frozen=True)
class Sweep:
    """What a sweep is asked to do.

    Attributes:
        base: the recipe that its trials vary.
        storage: a database's URL; None: study.db in the folder.
        trials: how many there shall be in all.
        minutes: after which this process begins no more of them.
    """

    base: BaseRecipe
    dimensions: tuple[Dimension, ...]
    folder: Path
    storage: str | None = None
    trials: int | None = None
    minutes: float | None = None
    pruner: str = "median"
    seed: int = 0

    @property
    def metric(self) -> str:
        return for_task(self.base.recipe).score.monitor

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        return "minimize" if self.metric in LOWER_IS_BETTER else "maximize"

    @property
    def name(self) -> str:
        """Of the study, in its database."""
        return self.base.recipe.run.name or "recipe"

    def identity(self) -> str:
        """Equal where trials belong to one study, as JSON."""
        recipe = self.base.recipe.model_dump(mode="json", exclude={"run", "publish", "checkpoint"})
        decisive = {
            "recipe": recipe | {"cache": None, "run": {"seed": self.base.recipe.run.seed}},
            "space": [dimension.describe() for dimension in self.dimensions],
            "pruner": self.pruner,
            "seed": self.seed,
        }
        return json.dumps(decisive)


class NumberedSampler(optuna.samplers.BaseSampler):
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
    with explain_write_errors(sweep.folder):
        sweep.folder.mkdir(parents=True, exist_ok=True)
    url = sweep.storage or f"sqlite:///{sweep.folder / 'study.db'}"
    try:
        with FolderLock().take(sweep.folder, wait=True):
            _mark_folder(sweep.folder)
            waits = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
            storage = optuna.storages.RDBStorage(url, engine_kwargs=waits)
            others = {*optuna.get_all_study_names(storage)} - {sweep.name}
            if sweep.storage is None and others:  # whose trials would be written over
                raise InputError(
                    f"{sweep.folder}: the folder holds a sweep of {', '.join(sorted(others))}; "
                    "give another --dir"
                )
            study = _create(sweep, storage)
            known = study.user_attrs.get("identity")
            if known not in (None, sweep.identity()) and not _has_started(study, sweep):
                optuna.delete_study(study_name=sweep.name, storage=storage)
                study, known = _create(sweep, storage), None
            if known is None:
                study.set_user_attr("identity", sweep.identity())
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError) as error:
        why = str(error).splitlines()[0]
        raise InputError(f"--storage: {url.split('@')[-1]}: no such database: {why}") from None
    if known not in (None, sweep.identity()):
        raise InputError(
            f"{sweep.folder}: the folder holds a sweep of {sweep.name} with "
            f"{_describe_difference(known, sweep)}; set it back, or give another --dir (and with "
            "--storage, another run.name)"
        )
    return study


def _mark_folder(folder: Path) -> None:
    """Have a folder say that it is a sweep's. One from before sweeps had a mark has its study.

    Raises:
        InputError: where it holds something else, of which a sweep might replace a part.
    """
    mark = folder_mark.read_mark(folder)
    if mark is not None and mark.kind == "sweep":
        return
    there = sorted(path.name for path in folder.iterdir() if path.name != "trials")
    if mark is not None or (there and "study.db" not in there):
        raise InputError(
            f"--dir: {folder} holds something that is no sweep ({shorten(there)}); choose another "
            "folder"
        )
    folder_mark.write_mark(folder, "sweep")


def _create(sweep: Sweep, storage: optuna.storages.BaseStorage) -> optuna.Study:
    return optuna.create_study(
        storage=storage,
        study_name=sweep.name,
        direction=sweep.direction,
        sampler=NumberedSampler(sweep.seed),
        pruner=_pruner(sweep),
        load_if_exists=True,
    )


def _has_started(study: optuna.Study, sweep: Sweep) -> bool:
    """Whether a trial was scored, or a process is working on one.

    Where the first trial was refused, neither: the recipe may still be corrected.
    """
    return any(
        trial.state.is_finished()
        or trial.intermediate_values
        or not claim_orphan(trial, sweep, FolderLock())
        for trial in study.get_trials(deepcopy=False)
    )


def claim_orphan(trial: FrozenTrial, sweep: Sweep, lock: FolderLock) -> bool:
    """Lock a running trial whose process died; whether it did.

    Only of this machine or its shared folder: of others nobody can know.
    """
    file = lock_file(sweep, trial.number, create=False)
    if not file.exists():
        # Asked for, and killed before it began; or of a machine with a folder of its own.
        if trial.user_attrs.get("at", platform.node()) != platform.node():
            return False
        file = lock_file(sweep, trial.number)
    try:
        lock.take(file)
    except InputError:
        return False
    return True


def lock_file(sweep: Sweep, number: int, create: bool = True) -> Path:
    """What the process of a trial locks: beside its folder, which the run itself locks."""
    file = sweep.folder / "trials" / f".{number:04d}.lock"
    if create:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return file


def _describe_difference(known: str, sweep: Sweep) -> str:
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
    """Compares by the number of validations, not steps: batch sizes differ between trials."""
    if sweep.pruner == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS)
    if sweep.pruner == "hyperband":
        # Where validation is scored by steps, the first complete trial says how often.
        epochs = [stage.train.epochs for stage in sweep.base.recipe.by_stage()]
        known = sweep.base.recipe.score.every == "epoch" and "auto" not in epochs
        most = sum(map(int, epochs)) if known else "auto"
        return optuna.pruners.HyperbandPruner(1, most, reduction_factor=2)
    return optuna.pruners.NopPruner()
