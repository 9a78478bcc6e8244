"""`folder_lock.FolderLock`: one holder at a time, for a block or until it is released."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from finetune.runtime import folder_lock
from finetune.runtime.errors import InputError
from finetune.runtime.folder_lock import FolderLock, is_unlocked


@pytest.fixture(autouse=True, params=["as here", "as on Windows"])
def system(request, monkeypatch):
    """Windows has no `fcntl`; what does without it is tried with this system's files."""
    if request.param == "as on Windows":
        monkeypatch.setattr(folder_lock, "fcntl", None)
    return request.param


def test_a_held_folder_is_refused_until_it_is_released(tmp_path):
    lock = FolderLock()
    assert not lock.taken
    assert lock.take(tmp_path) is lock
    assert lock.take(tmp_path).taken  # again: nothing to do
    assert not is_unlocked(tmp_path)
    with pytest.raises(InputError, match=r"^run\.dir: another process is at work in "):
        FolderLock().take(tmp_path)
    lock.release()
    lock.release()
    assert not lock.taken
    assert is_unlocked(tmp_path)


def test_a_block_releases_it_after_an_error_too(tmp_path):
    def fail():
        with FolderLock().take(tmp_path):
            assert not is_unlocked(tmp_path)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert is_unlocked(tmp_path)


def test_waiting_for_the_holder(tmp_path):
    first, order = FolderLock().take(tmp_path), []

    def second():
        with FolderLock().take(tmp_path, wait=True):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    order.append("first")
    first.release()
    thread.join(timeout=60)
    assert order == ["first", "second"]


def test_another_folder_releases_the_one_before(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    lock = FolderLock().take(tmp_path / "a").take(tmp_path / "b")
    assert is_unlocked(tmp_path / "a")
    assert not is_unlocked(tmp_path / "b")
    del lock
    assert is_unlocked(tmp_path / "b")


def test_the_system_releases_a_dead_process_s_lock(tmp_path, system):
    code = (
        "import os, sys, pathlib; from finetune.runtime import folder_lock\n"
        f"if {system == 'as on Windows'}: folder_lock.fcntl = None\n"
        "lock = folder_lock.FolderLock().take(pathlib.Path(sys.argv[1])); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 9
    assert is_unlocked(tmp_path)


def test_nothing_is_written_into_the_folder(tmp_path):
    """It is empty for a run that may only begin in an empty one, and may be removed while held."""
    folder = tmp_path / "run"
    folder.mkdir()
    with FolderLock().take(folder):
        assert list(folder.iterdir()) == []
        folder.rmdir()


def test_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    with FolderLock().take(Path()):
        assert not is_unlocked(tmp_path / "run")
    assert is_unlocked(tmp_path / "run")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="none"):
        FolderLock().take(tmp_path / "none")
