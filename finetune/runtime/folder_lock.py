"""One process at a time in a folder: a lock that the system takes away with the process.

with FolderLock().take(folder, wait=True):     # for a block
    ...
lock = FolderLock().take(folder)               # until `lock.release()`, or as long as it lives
"""

import os
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

    It locks the path itself, which must not be replaced, and writes nothing. The system releases
    the lock when the process ends, however it ends. File systems without locks, as some on
    networks, keep nobody out.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._handle: int | None = None

    @property
    def taken(self) -> bool:
        """Whether this lock holds a folder, or the system has no locks."""
        return self._folder is not None or fcntl is None

    def take(self, folder: Path, wait: bool = False) -> Self:
        """Lock an existing folder; one that this lock holds already stays locked.

        Args:
            wait: until the process that holds it releases it.

        Raises:
            InputError: where a living process holds it, and `wait` is off.
        """
        if folder == self._folder or fcntl is None:
            return self
        self.release()
        with explain_write_errors(folder):
            handle = os.open(folder, os.O_RDONLY)
        self._folder, self._handle = folder, handle
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            self.release()
            raise InputError(
                f"run.dir: another process is at work in {folder}; wait for it, or choose another"
            ) from None
        except OSError:
            pass  # a file system without locks
        return self

    def release(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
        self._folder = self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


def is_unlocked(folder: Path) -> bool:
    """Whether no living process holds the folder."""
    try:
        with FolderLock().take(folder):
            return True
    except InputError:
        return False
