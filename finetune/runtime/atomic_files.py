"""Files and folders that are written whole or not at all; logs that are cut to a known size."""

import atexit
import gc
import itertools
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from finetune.runtime.errors import REMEDY, explain_write_errors
from finetune.runtime.visible_text import visible_json

ON_WINDOWS = os.name == "nt"
PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds between the tries of a rename there


def append_json_line(file: Path, line: Mapping[str, Any]) -> None:
    """Add a line to a .jsonl file."""
    with explain_write_errors(file), file.open("a", encoding="utf-8", newline="\n") as out:
        text = json.dumps(finite_json(line), allow_nan=False, ensure_ascii=False)
        out.write(visible_json(text) + "\n")


def synced_size(file: Path) -> int:
    """Have the disk hold a file, and say how many bytes it has; 0 where it is not there."""
    if not file.is_file():
        return 0
    with explain_write_errors(file), file.open("ab") as out:
        os.fsync(out.fileno())
        return out.tell()


def truncate_file(file: Path, size: int) -> bool:
    """Cut a file back to its first bytes, on line ends; False where it has not so many."""
    if not file.is_file():
        return size == 0
    with explain_write_errors(file), file.open("r+b") as out:
        now = file.stat().st_size
        out.truncate(min(size, now))
    return now >= size


def write_json(file: Path, value: Mapping[str, Any] | Sequence[Any], remedy: str = REMEDY) -> None:
    """Write an object, or a list, so that a person reads it too. `remedy`: as for `write_text`.

    Sequences that make their items when asked (places of rows) are written as lists.
    """
    written = json.JSONEncoder(indent=2, allow_nan=False, ensure_ascii=False, default=list)
    # Each piece is a whole string, or what stands between two.
    pieces = map(visible_json, written.iterencode(finite_json(value)))
    write_text(file, itertools.chain(pieces, "\n"), remedy)


def finite_json(value: Any) -> Any:
    """Numbers that are not finite as null: JSON has no other word for them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite_json(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_json(inner) for inner in value]
    return value


def write_text(file: Path, text: str | Iterable[str], remedy: str = REMEDY) -> None:
    """Write a text, or its lines, aside and put it in place, so that nobody ever sees half of it.

    Args:
        remedy: how to choose another place, for the error message.

    Raises:
        InputError: where it cannot be written; the old file stays.
    """
    aside = file.with_name(f".{file.name}.new")
    with explain_write_errors(file, remedy):
        try:
            file.parent.mkdir(exist_ok=True)
            with aside.open("w", encoding="utf-8", newline="\n") as out:
                out.writelines([text] if isinstance(text, str) else text)
            fsync_path(aside)
            move_into_place(aside, file)
            fsync_path(file.parent)
        finally:
            aside.unlink(missing_ok=True)


def fsync_path(path: Path) -> None:
    """Have the disk hold a file, or a folder's list of names."""
    if ON_WINDOWS and path.is_dir():
        return  # Windows opens no folders, and syncs their names itself
    handle = os.open(path, os.O_RDWR if ON_WINDOWS else os.O_RDONLY)  # it syncs what it may write
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def move_into_place(source: Path, target: Path) -> None:
    """Rename a file, also over an older one, or a folder.

    Windows renames nothing that is open. A scanner or an indexer opens what is new for a moment.
    """
    for pause in PAUSES if ON_WINDOWS else ():
        try:
            source.replace(target)
        except PermissionError:
            time.sleep(pause)
        else:
            return
    source.replace(target)


def remove_mapped(file: Path) -> None:
    """Remove a file that this process has mapped into memory, and goes on to read.

    Where the system refuses that, as Windows does, it is removed when the process ends.
    """
    try:
        file.unlink(missing_ok=True)
    except PermissionError:
        atexit.register(_remove_late, file)


def _remove_late(file: Path) -> None:
    gc.collect()  # what still maps it
    with suppress(OSError):
        file.unlink(missing_ok=True)


def replace_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Fill a folder aside, sync it, and put it in the place of the one before."""
    aside, before = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for leftover in (aside, before):
        shutil.rmtree(leftover, ignore_errors=True)
    with explain_write_errors(folder):
        try:
            aside.mkdir()
            fill(aside)
            share_weights(aside)
            for path in (*list_files(aside), *(p for p in aside.rglob("*") if p.is_dir()), aside):
                fsync_path(path)
            if folder.exists():
                move_into_place(folder, before)
            try:
                move_into_place(aside, folder)
            except OSError:
                move_into_place(before, folder)
                raise
            fsync_path(folder.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(before, ignore_errors=True)


def share_weights(folder: Path) -> None:
    """Let whoever may read a folder read the weights in it: safetensors 0.8 writes them for their
    owner alone, whatever the umask."""
    mode = folder.stat().st_mode & 0o666
    for file in folder.rglob("*.safetensors"):
        file.chmod(mode)


def link_folder(source: Path, target: Path, only: Container[Path] | None = None) -> None:
    """A copy of a folder whose weights take no room where the file system has hard links.

    The run replaces weights and never changes them, so a link keeps what it was made of. The small
    files are copied: those a person may well edit in place.

    Args:
        only: the files to take; None: all.
    """
    for file in list_files(source):
        if only is None or file in only:
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            _link_file(file, copy)


def _link_file(source: Path, target: Path) -> None:
    if source.suffix == ".safetensors":
        with suppress(OSError):
            return os.link(source, target)
    shutil.copy2(source, target)


def list_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
