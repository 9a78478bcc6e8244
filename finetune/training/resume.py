"""`run.resume` → the run folder and the checkpoint to go on from, if all else is as it was."""

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from finetune.config import loader, schema
from finetune.runtime import folder_lock
from finetune.runtime.errors import InputError, shorten
from finetune.runtime.folder_lock import FolderLock
from finetune.training import checkpoint, run_folder
from finetune.training.checkpoint import CheckpointReader
from finetune.training.run_folder import Start
from finetune.training.run_identity import (
    BY_CONTENT,
    ENDING,
    LENGTH,
    NO_EFFECT,
    ORDER_OF_SUMS,
    REPORTING,
    compare_identities,
    flat_keys,
    format_key,
    recipe_hash,
    recipe_rates,
)
from finetune.training.runs_home import runs_home


def locate_start(
    run: schema.Run, started: datetime, lock: FolderLock, checkpoints: CheckpointReader
) -> Start:
    """The folder that `run.dir` and `run.resume` mean, and the newest good checkpoint in it.

    A run that is taken up is locked from here on, so that what is read of it stays so.

    Args:
        checkpoints: keeps the one that it finds, for those who restore it.

    Raises:
        InputError: where there is none though one was named, or none of those there is good, or
            the folder holds something else.
    """
    if run.resume is None:
        return Start(run_folder.choose_folder(run, started))
    if run.resume == "auto":
        folder = _unfinished(run) if run.dir is None else Path(run.dir).expanduser()
        if folder is None or not (folder / "recipe.yaml").is_file():
            return Start(run_folder.choose_folder(run, started))
        points = checkpoint.list_checkpoints(folder)
    else:
        folder, points = _named(Path(run.resume).expanduser())
        if run.dir is not None and Path(run.dir).expanduser().resolve() != folder.resolve():
            raise InputError(
                f"run.resume: {run.resume} is of the run in {folder}, and run.dir is "
                f"{run.dir}; leave run.dir out"
            )
    lock.take(folder)
    # An earlier checkpoint that is named asks for what came after it to be done again.
    newest = [point.name for point in checkpoint.list_checkpoints(folder)[:1]]
    finished = newest == [p.name for p in points[:1]]
    # What a finished run lacks is made from its last checkpoint, where there is one.
    finished &= run_folder.has_results(folder, whole=len(points) > 0)
    # Without a checkpoint, outputs that are missing cannot be made any more.
    complete = finished and (
        run_folder.is_complete(folder) or not run_folder.has_results(folder, whole=True)
    )
    damages: list[str] = []
    for point in points:
        try:
            checkpoints.read(point)
        except InputError as error:
            damages += error.problems
            continue
        notes = tuple(f"{damage}; the one before is used" for damage in damages)
        return Start(folder, point, finished=finished, complete=complete, notes=notes)
    if finished and (run.resume == "auto" or not complete or not damages):
        return Start(folder, finished=True, complete=complete, notes=tuple(damages))
    if damages:  # they may be repaired, and hours of work are beside them: nothing is removed
        raise InputError(damages)
    if run.resume != "auto":
        raise InputError(
            f"run.resume: {folder} has no checkpoint; expected step-… in its {checkpoint.FOLDER}/"
        )
    return Start(folder, replaces=True, notes=(f"{folder} starts from the beginning",))


def _unfinished(run: schema.Run) -> Path | None:
    """The newest run of the recipe's name with a checkpoint or results, something left to do, and
    no process."""
    home = runs_home(run)
    folders = home.iterdir() if home.is_dir() else ()
    open_ones = [
        folder
        for folder in folders
        if (checkpoint.list_checkpoints(folder) or run_folder.has_results(folder, whole=True))
        and _is_open(folder)
        and folder_lock.is_unlocked(folder)
    ]

    def changed(folder: Path) -> float:
        points = folder / checkpoint.FOLDER
        return (points if points.is_dir() else folder).stat().st_mtime

    return max(open_ones, key=changed, default=None)


def _is_open(folder: Path) -> bool:
    """Whether something is left to do. Where its mark is damaged, who takes the run up is told."""
    try:
        return not run_folder.is_complete(folder)
    except InputError:
        return True


def _named(path: Path) -> tuple[Path, list[Path]]:
    """The run folder, and the checkpoints in question, of a path that the user named."""
    if not path.is_dir():
        near = (
            checkpoint.list_checkpoints(path.parent.parent)
            if checkpoint.NAME.fullmatch(path.name)
            else []
        )
        have = f"; there are {shorten([str(p) for p in near])}" if near else ""
        raise InputError(
            f"run.resume: {path}: no such folder; expected auto, a run folder or a checkpoint{have}"
        )
    if checkpoint.NAME.fullmatch(path.name):
        return Path(os.path.normpath(path.absolute())).parents[1], [path]
    if not (path / "recipe.yaml").is_file():
        raise InputError(
            f"run.resume: {path} is neither a run folder nor a checkpoint; expected a folder with "
            "recipe.yaml, or a step-… folder in its checkpoints/"
        )
    return path, checkpoint.list_checkpoints(path)


def with_recorded_plan(recipe: schema.Recipe, start: Start) -> schema.Recipe:
    """The recipe; where a rate is `auto`, or `train.minutes` decides the steps, with what the run
    which goes on has found.

    Raises:
        InputError: where what was recorded cannot be read.
    """
    if not recipe.train.awaits_plan and all(one.optim.lr != "auto" for one in recipe.by_stage()):
        return recipe
    if start.point is not None:
        recorded = checkpoint.read_plain(start.point)["identity"]["recipe"]
    elif start.replaces or start.finished:
        recorded = _read_recipe(start.folder)
    else:
        return recipe
    return _with_steps(_with_rates(recipe, recorded), recorded)


def _read_recipe(folder: Path) -> dict[str, Any]:
    return loader.load_saved(folder).model_dump(mode="json")


def _with_rates(recipe: schema.Recipe, then: Mapping[str, Any]) -> schema.Recipe:
    """A recipe; where a rate is `auto`, with that of another which was written down."""
    found = zip(
        recipe.by_stage(), recipe_rates(then), strict=False
    )  # of other stages, `check` tells
    for number, (one, rate) in enumerate(found, 1):
        if one.optim.lr == "auto" and rate != "auto":
            recipe = recipe.with_rate(rate, number)
    return recipe


def _with_steps(recipe: schema.Recipe, then: Mapping[str, Any]) -> schema.Recipe:
    """A recipe; where its minutes are to decide the steps, with those that they came to."""
    train = then["train"]
    planned = train.get("minutes") == recipe.train.minutes and train["min_steps"] is not None
    if not (recipe.train.awaits_plan and planned):
        return recipe  # of other minutes, who compares the two recipes tells
    return recipe.with_steps(train["max_steps"], then["score"]["every"])


def has_nothing_left(
    start: Start, resolved: schema.Recipe, now: Mapping[str, Any], steps: int
) -> bool:
    """Whether a finished run, taken up again, has nothing more to do. Nothing is written here.

    Args:
        resolved: the recipe as it is to run.
        now: the identity of that run.
        steps: of the whole run.

    Raises:
        InputError: where the checkpoint is of another recipe, data or model.
    """
    if start.point is not None:
        plain = checkpoint.read_plain(start.point)
        compare_identities(plain["identity"], now, start.point)
    elif start.replaces or start.finished:
        _check_replaced(start, resolved, now["derived"])
    if not start.finished:
        return False
    # Not only the last checkpoint's steps and rates: there may be none of the end.
    done = json.loads((start.folder / "results.json").read_text(encoding="utf-8"))
    ran = _with_rates(resolved, _read_recipe(start.folder))
    if done["hashes"]["recipe"] == recipe_hash(ran) or done["train"]["steps"] >= steps:
        return True
    if start.point is None:
        raise InputError(
            f"run.resume: {start.folder} is finished after {done['train']['steps']:,} steps, this "
            f"recipe asks for {steps:,}, and there is no checkpoint to go on from; leave "
            "run.resume out, and choose another run.dir"
        )
    asked = resolved.score.patience
    return asked is not None and bool(plain["state"]["waited"] >= asked)


def _check_replaced(start: Start, resolved: schema.Recipe, derived: Sequence[str]) -> None:
    """Refuse another run than the one in a folder, which left no checkpoint to compare."""
    folder, then = start.folder, flat_keys(_read_recipe(start.folder))
    # A finished run is not run again: what is in its sources, its results have hashes of.
    spared = REPORTING | BY_CONTENT if start.finished else set()
    now = flat_keys(resolved.model_dump(mode="json"))
    differs = [
        f"{key} is {format_key(now[key])}, and was {format_key(then[key])}"
        for key in now
        if now[key] != then[key]
        and key not in NO_EFFECT | ENDING | LENGTH | ORDER_OF_SUMS | spared | {*derived}
    ]
    if differs:
        raise InputError(
            f"run.resume: {folder} holds a run of another recipe ({shorten(differs)}); choose "
            "another run.dir, or leave run.resume out and set run.overwrite=true to replace it"
        )
