"""Files that are there whole, or as they were before; and logs cut back to a known size."""

import atexit
import json
import os
from pathlib import Path

import pytest

from finetune.runtime import atomic_files
from finetune.runtime.errors import InputError


def test_json_lines_are_cut_back_to_a_size(tmp_path):
    log = tmp_path / "log.jsonl"
    assert atomic_files.synced_size(log) == 0
    atomic_files.append_json_line(log, {"loss": float("nan"), "step": 1})
    size = atomic_files.synced_size(log)
    atomic_files.append_json_line(log, {"step": 2})
    assert atomic_files.truncate_file(log, size)
    assert [json.loads(line) for line in log.read_text().splitlines()] == [
        {"loss": None, "step": 1}
    ]
    assert not atomic_files.truncate_file(log, size + 1)
    assert atomic_files.truncate_file(tmp_path / "none", 0)
    assert not atomic_files.truncate_file(tmp_path / "none", 1)


def test_numbers_that_are_not_finite_are_null(tmp_path):
    atomic_files.write_json(tmp_path / "a.json", {"a": [float("inf"), {"b": (1.0, float("nan"))}]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [None, {"b": [1.0, None]}]}


def test_a_failed_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "a.txt"
    atomic_files.write_text(file, "old")

    def lines():
        yield "new"
        raise OSError(28, "full")

    with pytest.raises(InputError, match=r"a.txt: cannot write: the disk is full; .* output to"):
        atomic_files.write_text(file, lines(), "write the output to")
    assert file.read_text() == "old"
    assert atomic_files.list_files(tmp_path) == [file]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "model"

    def fill(aside):
        (aside / "new").write_text("new")

    def fail(aside):
        fill(aside)
        raise OSError(28, "full")

    folder.mkdir()
    (folder / "old").write_text("old")
    with pytest.raises(InputError, match="the disk is full"):
        atomic_files.replace_folder(folder, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.name for path in folder.iterdir()] == ["old"]
    atomic_files.replace_folder(folder, fill)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.name for path in folder.iterdir()] == ["new"]


def test_weights_are_linked_and_small_files_copied(tmp_path):
    source, target = tmp_path / "model", tmp_path / "checkpoint"
    (source / "sub").mkdir(parents=True)
    for name in ("model.safetensors", "sub/config.json", "left.out"):
        (source / name).write_text(name)
    only = {source / "model.safetensors", source / "sub/config.json"}
    atomic_files.link_folder(source, target, only)
    names = [file.relative_to(target).as_posix() for file in atomic_files.list_files(target)]
    assert names == ["model.safetensors", "sub/config.json"]
    assert (target / "model.safetensors").samefile(source / "model.safetensors")
    assert not (target / "sub/config.json").samefile(source / "sub/config.json")


@pytest.fixture
def on_windows(monkeypatch):
    monkeypatch.setattr(atomic_files, "ON_WINDOWS", True)
    monkeypatch.setattr(atomic_files, "PAUSES", (0.0, 0.0, 0.0))


def refuse(monkeypatch, method, times):
    """Have a method of `Path` find the file open so many times."""
    real, left = getattr(Path, method), [times]

    def refusing(path, *args, **kwargs):
        if left[0]:
            left[0] -= 1
            raise PermissionError(13, "it is open in another program", str(path))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(Path, method, refusing)


def test_windows_syncs_no_folder_and_only_what_it_may_write(on_windows, tmp_path, monkeypatch):
    real, opened = os.open, []

    def windows_open(path, flags, *more):
        if Path(path).is_dir():
            raise PermissionError(13, "a folder")
        opened.append(flags & (os.O_RDWR | os.O_WRONLY))
        return real(path, flags, *more)

    monkeypatch.setattr(os, "open", windows_open)
    atomic_files.write_text(tmp_path / "a.txt", "a")
    atomic_files.replace_folder(tmp_path / "b", lambda aside: (aside / "c").write_text("c"))
    assert opened == [os.O_RDWR, os.O_RDWR]


def test_windows_waits_for_who_has_a_file_open(on_windows, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("old")
    refuse(monkeypatch, "replace", times=2)
    atomic_files.write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"
    refuse(monkeypatch, "replace", times=99)
    with pytest.raises(InputError, match=r"a\.txt: cannot write: permission denied"):
        atomic_files.write_text(tmp_path / "a.txt", "newer")
    assert (tmp_path / "a.txt").read_text() == "new"
    assert atomic_files.list_files(tmp_path) == [tmp_path / "a.txt"]


def test_elsewhere_a_refusal_is_final(tmp_path, monkeypatch):
    refuse(monkeypatch, "replace", times=1)
    with pytest.raises(InputError, match="permission denied"):
        atomic_files.write_text(tmp_path / "a.txt", "new")


def test_a_mapped_file_is_removed_at_the_latest_when_the_process_ends(tmp_path, monkeypatch):
    late = []
    monkeypatch.setattr(atexit, "register", lambda *call: late.append(call))
    for name in "ab":
        (tmp_path / name).write_text(name)
    atomic_files.remove_mapped(tmp_path / "a")
    refuse(monkeypatch, "unlink", times=1)
    atomic_files.remove_mapped(tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    [(remove, file)] = late
    remove(file)
    remove(file)
    assert list(tmp_path.iterdir()) == []


def test_lines_end_the_same_everywhere(tmp_path, monkeypatch):
    """Sizes and checksums of a run that moved from Windows to Linux must fit."""
    monkeypatch.setattr(os, "linesep", "\r\n")
    atomic_files.write_json(tmp_path / "a.json", {"a": "b\nc"})
    atomic_files.append_json_line(tmp_path / "a.json", {"a": 1})
    assert b"\r" not in (tmp_path / "a.json").read_bytes()
