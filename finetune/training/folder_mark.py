"""`run.json` of a folder: what wrote it, under which id, and whether everything is done.

    write_mark(folder, "run")    # the first file: from here on, the folder is that of a run
    mark_finished(folder)        # the last write: nothing is left to do

A run has several outputs, and a kill may come between any two of them. So "finished" is this one
mark and nothing else. What `run.overwrite` may replace is told by the same file: only a folder
that has it was written by a run.
"""

import json
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from finetune.runtime.atomic_files import write_json

FILE = "run.json"
FORMAT = 1
Kind = Literal["run", "sweep"]


@dataclass(frozen=True)
class FolderMark:
    """What a folder says of itself.

    Attributes:
        kind: whether it is that of a run or of a sweep.
        id: a UUID; a run that is resumed keeps its own.
        finished: local time, ISO 8601; None while something is left to do.
    """

    kind: str
    id: str
    finished: str | None = None


def read_mark(folder: Path) -> FolderMark | None:
    """A folder's mark; None where it has none that can be read."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        mark = FolderMark(found["kind"], found["id"], found["finished"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    is_ours = found.get("format") == FORMAT and isinstance(mark.id, str) and bool(mark.id)
    return mark if is_ours else None


def write_mark(folder: Path, kind: Kind, own_id: str | None = None) -> str:
    """Mark a folder as one in which something is left to do. Returns its id.

    Args:
        own_id: None for a new one.
    """
    own_id = own_id or uuid.uuid4().hex
    _write(folder, FolderMark(kind, own_id))
    return own_id


def mark_unfinished(folder: Path) -> None:
    """Take the end of a run back: before anything in its folder changes."""
    mark = read_mark(folder)
    if mark is not None and mark.finished is not None:
        _write(folder, FolderMark(mark.kind, mark.id))


def mark_finished(folder: Path) -> None:
    """Say that nothing is left to do: the last write of a run."""
    mark = read_mark(folder)
    if mark is not None and mark.finished is None:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        _write(folder, FolderMark(mark.kind, mark.id, now))


def _write(folder: Path, mark: FolderMark) -> None:
    values = {"format": FORMAT, "kind": mark.kind, "id": mark.id, "finished": mark.finished}
    write_json(folder / FILE, values)
