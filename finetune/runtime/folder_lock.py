"""A folder is one process's at a time: a lock that the system takes away with the process."""

import os
from pathlib import Path
from types import ModuleType

from finetune.runtime.errors import InputError, explain_write_errors

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class FolderLock:
    """Keeps a run's folder from other processes, for as long as this lives.

    It locks the folder itself, which nothing replaces, and writes nothing. The system takes the
    lock away with the process, however it ends. File systems without locks, as some on networks,
    keep nobody out.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._handle: int | None = None

    @property
    def taken(self) -> bool:
        """Whether a folder is held, or this system holds none."""
        return self._folder is not None or fcntl is None

    def take(self, folder: Path) -> None:
        """Hold a folder that is there.

        Raises:
            InputError: where a living process holds it.
        """
        if folder == self._folder or fcntl is None:
            return
        with explain_write_errors(folder):
            handle = os.open(folder, os.O_RDONLY)
        self._folder, self._handle = folder, handle
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.let_go()
            raise InputError(
                f"run.dir: another process is at work in {folder}; wait for it, or choose another"
            ) from None
        except OSError:
            pass  # a file system without locks

    def let_go(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
        self._folder = self._handle = None

    def __del__(self) -> None:
        self.let_go()


def is_unlocked(folder: Path) -> bool:
    """Whether no living process holds the folder."""
    try:
        FolderLock().take(folder)
    except InputError:
        return False
    return True
