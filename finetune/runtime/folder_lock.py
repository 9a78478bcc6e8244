"""One process at a time in a folder: a lock that the system takes away with the process.

with FolderLock().take(folder, wait=True):     # for a block
    ...
lock = FolderLock().take(folder)               # until `lock.release()`, or as long as it lives
"""

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Self

from finetune.runtime.errors import InputError, explain_write_errors

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class FolderLock:
    """Keeps other processes out of a folder, or of the job that a file names.

    It locks the path itself, which must not be replaced, and writes nothing. Windows opens no
    folders; there a file beside the path, `.NAME.lock`, is locked, which may stay there afterwards.
    The system releases the lock when the process ends, however it ends. File systems without locks,
    as some on networks, keep nobody out.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._free: Callable[[], None] = _free_nothing

    @property
    def taken(self) -> bool:
        """Whether this lock holds a folder."""
        return self._folder is not None

    def take(self, folder: Path, wait: bool = False) -> Self:
        """Lock an existing folder; one that this lock holds already stays locked.

        Args:
            wait: until the process that holds it releases it.

        Raises:
            InputError: where a living process holds it, and `wait` is off.
        """
        if folder == self._folder:
            return self
        self.release()
        free = _lock_beside(folder, wait) if fcntl is None else _lock_itself(fcntl, folder, wait)
        if free is None:
            raise InputError(
                f"run.dir: another process is at work in {folder}; wait for it, or choose another"
            )
        self._folder, self._free = folder, free
        return self

    def release(self) -> None:
        self._free()
        self._folder, self._free = None, _free_nothing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


def _lock_itself(fcntl: ModuleType, folder: Path, wait: bool) -> Callable[[], None] | None:
    """What releases the lock; None where another holds it."""
    with explain_write_errors(folder):
        handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError:
        pass  # a file system without locks
    except BaseException:  # a signal, while it waits
        os.close(handle)
        raise
    return lambda: os.close(handle)


def _lock_beside(folder: Path, wait: bool) -> Callable[[], None] | None:
    """The same with a file beside it."""
    from filelock import FileLock, Timeout

    with explain_write_errors(folder):
        folder.stat()  # it must be there
    path = folder.absolute()  # `.` has no name
    lock = FileLock(path.with_name(f".{path.name}.lock"), thread_local=False)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout:
        return None
    except OSError:
        return _free_nothing  # a file system without locks
    return lambda: lock.release(force=True)


def _free_nothing() -> None:
    """What releases a lock that holds nothing."""


def is_unlocked(folder: Path) -> bool:
    """Whether no living process holds the folder."""
    try:
        with FolderLock().take(folder):
            return True
    except InputError:
        return False
