"""A run's folder: which one, whose it is, what a run writes there, and how."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

from finetune.config import loader, schema
from finetune.data import sources
from finetune.data.local_paths import HELD, resolve_local_path
from finetune.runtime.atomic_files import write_text
from finetune.runtime.errors import InputError, explain_write_errors
from finetune.runtime.folder_lock import FolderLock
from finetune.training import checkpoint, folder_mark, run_removal
from finetune.training.run_removal import LEFTOVERS
from finetune.training.runs_home import runs_home

# Heads a recipe that no file can run again.
OF_A_FRAME = (
    "# data.source names a data frame of a Python process: pass it again, as\n"
    '# finetune.train("recipe.yaml", data=frame), or set data.source to a file of its rows.\n'
)


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes:
        folder: the run's.
        point: the checkpoint to go on from; None to start at step 0.
        replaces: whether the folder holds a run that was stopped with nothing to go on from.
        finished: whether the folder holds all that this run computes.
        complete: whether nothing is left to do there, such as publishing.
        notes: what a person should know of the choice.
    """

    folder: Path
    point: Path | None = None
    replaces: bool = False
    finished: bool = False
    complete: bool = False
    notes: tuple[str, ...] = ()


def has_results(folder: Path, whole: bool = False) -> bool:
    """Whether a run has all its numbers.

    Args:
        whole: and all that it writes beside them, which results.json says.
    """
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return "incomplete" not in results and not (whole and results.get("failures"))


def is_complete(folder: Path) -> bool:
    """Whether nothing is left to do in the folder of a run, as its mark says.

    A run of a version that wrote no mark is complete with its results, as it was then.
    """
    mark = folder_mark.read_mark(folder)
    return has_results(folder, whole=True) and (mark is None or mark.finished is not None)


def choose_folder(run: schema.Run, started: datetime) -> Path:
    """Where the run will write: `run.dir`, or a new folder named by the time.

    Raises:
        InputError: where it cannot be made, or holds something that the run may not replace.
    """
    if run.dir is None:
        new = runs_home(run) / started.strftime("%Y-%m-%d_%H-%M-%S")
        above = _nearest_existing(new.absolute())
        if above.is_dir():  # else claim_folder tells
            _refuse_unwritable(new, above)
        return new
    try:
        folder = Path(run.dir).expanduser()
    except RuntimeError:
        raise InputError(f"run.dir: {run.dir}: no such user") from None
    existing = _nearest_existing(folder)
    if not existing.is_dir():
        found = "a file" if existing.is_file() else "no folder"
        raise InputError(
            f"run.dir: {existing} is {found}; expected a folder, or a name that is free"
        )
    _refuse_unwritable(folder, existing)
    names = {child.name for child in folder.iterdir()} if folder == existing else set()
    there = sorted(names - set(LEFTOVERS))
    if there and run.overwrite:
        run_removal.refuse_unless_removable(folder)
    elif there:
        raise InputError(
            f"run.dir: {folder} is not empty ({', '.join(there[:5])}{', …' * (len(there) > 5)}); "
            f"{_list_remedies(folder)}"
        )
    return folder


def _nearest_existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if os.path.lexists(path))


def _refuse_unwritable(folder: Path, existing: Path) -> None:
    """Find out now, before data and model are read, whether a run's folder can be made.

    Permissions do not tell all, as in /proc: a folder is made where it would be, and taken away.
    Not in the run's own, which another process may look at.

    Args:
        existing: the folder itself, or the nearest above it that there is.

    Raises:
        InputError: where it cannot.
    """
    with explain_write_errors(folder):
        with suppress(FileNotFoundError):
            os.lstat(folder)  # a name may be too long
        if folder != existing or not os.access(existing, os.W_OK | os.X_OK):
            Path(tempfile.mkdtemp(prefix=".finetune-", dir=existing)).rmdir()


def _list_remedies(folder: Path) -> str:
    """What to do about a folder that is not empty; what would be refused is not proposed."""
    remedies = ["choose another folder"]
    try:
        run_removal.refuse_unless_removable(folder)
        remedies.append("set run.overwrite=true to replace the run in it")
    except InputError:
        pass
    points = checkpoint.list_checkpoints(folder)
    if points and (folder / "recipe.yaml").is_file() and not is_complete(folder):
        kept = f"to go on with its unfinished run from {points[0].name}, set run.resume={folder}"
        remedies.insert(0, kept)
    return ", or ".join(remedies)


def claim_folder(start: Start, run: schema.Run, resolved: schema.Recipe, lock: FolderLock) -> Path:
    """Create the run's folder, lock it, and save the recipe in it. Returns the folder.

    With `run.overwrite`, the earlier run there is removed; without it, nothing ever is: of two runs
    that chose one name at the same time, the later gets a name of its own.

    Raises:
        InputError: where it cannot be written, or is another process's, or where the run reads
            what would be removed.
    """
    folder, new = start.folder, start.point is None and not start.replaces
    with explain_write_errors(folder):
        if new and run.dir is None:
            copy = 1
            while not _create_new(folder):
                copy += 1
                folder = start.folder.with_name(f"{start.folder.name}-{copy}")
        folder.mkdir(parents=True, exist_ok=True)
        lock.take(folder)
        if new and run.dir is not None:
            choose_folder(run, datetime.now())  # somebody may have come first
        if start.point is None:
            # The rates of a run that was stopped early stay as it found them; so do its tests.
            _refuse_to_remove_sources(folder, resolved)
            run_removal.remove_run(folder, spare={"lr_range.json"} if start.replaces else ())
        checkpoint.remove_leftovers(folder)
    _mark(folder, start)
    write_recipe(folder, resolved)
    return folder


def _mark(folder: Path, start: Start) -> None:
    """Have the folder say that it is this run's, under a new id or that of the run that goes on."""
    if start.point is None:
        folder_mark.write_mark(folder, "run")
    elif folder_mark.read_mark(folder) is None:  # a version that wrote no mark began it
        state = checkpoint.read_plain(start.point).get("state", {})
        folder_mark.write_mark(folder, "run", state.get("run_id"))


def write_recipe(folder: Path, resolved: schema.Recipe) -> None:
    """Save the recipe that runs this again."""
    note = OF_A_FRAME if resolved.data.source.startswith(HELD) else ""
    write_text(folder / "recipe.yaml", note + loader.to_yaml(resolved))


def reopen_folder(folder: Path) -> None:
    """Remove what holds for a finished run only, from the folder of one that goes on."""
    folder_mark.mark_unfinished(folder)
    with explain_write_errors(folder):
        for name in ("results.json", "report.html"):
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / "predictions", ignore_errors=True)


def _create_new(folder: Path) -> bool:
    """Create a folder that is not there yet; False where it is."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return False
    return True


def _refuse_to_remove_sources(folder: Path, resolved: schema.Recipe) -> None:
    """Check that what would be removed is nothing that the run reads.

    Raises:
        InputError: where it is.
    """
    place = folder.resolve()
    if not any(os.path.lexists(folder / name) for name in run_removal.OWN_FILES):
        return
    listers: dict[str, Callable[[], list[Path]]] = {
        "data.source": partial(sources.list_files, resolved.data),
        "model.source": partial(_model_files, resolved.model.source),
    }
    for key, list_files in listers.items():
        files: list[Path] = []
        with suppress(InputError):  # what is not there is not removed
            files = list_files()
        real = {parent: parent.resolve() for parent in {path.parent for path in files}}
        for path in files:
            read = real[path.parent] / path.name
            read = read.resolve() if read.is_symlink() else read
            if place == read or place in read.parents:
                raise InputError(
                    f"run.overwrite: {folder} would be replaced, and {key} reads what is in it; "
                    "choose another run.dir"
                )


def _model_files(source: str) -> list[Path]:
    """The folder of a model and the files in it; none of a Hub id."""
    path = resolve_local_path(source, "model.source", may_be_run=True)
    return [] if path is None else [path, *(path.glob("*") if path.is_dir() else ())]
