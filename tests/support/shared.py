"""What takes long to make is made once in a session, by the first worker that asks for it."""

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def session_folder(basetemp: Path, worker: str | None) -> Path:
    """The folder that all workers of a session share.

    Args:
        basetemp: pytest's of this process.
        worker: its name under xdist, where `basetemp` is the worker's own folder in the session's.
    """
    return (basetemp if worker is None else basetemp.parent) / "shared"


def make_once(folder: Path, make: Callable[[Path], object]) -> Path:
    """`make(folder)`, where no worker has done so; the others wait until it is whole.

    What a failure leaves is removed, and the next that asks tries again.

    Args:
        folder: not there yet; nobody may change it afterwards.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = folder.with_name(f".{folder.name}.made")
    with FileLock(f"{mark}.lock"):
        if not mark.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            mark.touch()
    return folder
