"""`run.json` of a folder: what wrote it, under which id, and whether everything is done.

    write_mark(folder, "run")    # the first file: from here on, the folder is that of a run
    record_text(folder, "model/README.md", text)    # before it is written: it is the run's own
    mark_finished(folder)        # the last write: nothing is left to do

A run has several outputs, and a kill may come between any two of them. So "finished" is this one
mark and nothing else. What `run.overwrite` may replace is told by the same file: only a folder
that has it was written by a run.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from finetune.runtime.atomic_files import write_json
from finetune.runtime.errors import InputError

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
        texts: the texts of a model folder that people edit (its card, its code), by their place in
            the folder: the SHA-256 of each that the run wrote there.
    """

    kind: str
    id: str
    finished: str | None = None
    texts: Mapping[str, Sequence[str]] | None = None


def read_mark(folder: Path) -> FolderMark | None:
    """A folder's mark; None where it has none.

    Raises:
        InputError: where there is one that says nothing: as of a run that has still to be
            published, it cannot be told what is left to do.
    """
    file = folder / FILE
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError:
        found = None
    known = found.get("format") if isinstance(found, dict) else None
    if isinstance(known, int) and known > FORMAT:
        raise InputError(
            f"{file}: expected format {FORMAT}, found {known}: a newer version of this program "
            "wrote it; use that version, or choose another folder"
        )
    mark = _parse(found) if known == FORMAT else None
    if mark is None:
        raise InputError(
            f"{file} is damaged: expected format {FORMAT} with kind, id and finished; restore it, "
            "or remove it: the run then counts as finished if it has its results, and `finetune "
            "push` publishes its model"
        )
    return mark


def _parse(found: Mapping[str, Any]) -> FolderMark | None:
    kind, own_id, finished = (found.get(key) for key in ("kind", "id", "finished"))
    texts = found.get("texts")
    is_whole = (
        isinstance(kind, str)
        and isinstance(own_id, str)
        and own_id != ""
        and "finished" in found
        and isinstance(finished, str | None)
        and isinstance(texts, dict | None)
        and all(isinstance(sums, list) for sums in (texts or {}).values())
    )
    return FolderMark(str(kind), str(own_id), finished, texts) if is_whole else None


def write_mark(folder: Path, kind: Kind, own_id: str | None = None) -> str:
    """Mark a folder as one in which something is left to do. Returns its id.

    Args:
        own_id: None for a new one; that of a run which began without a mark, and recorded no texts.
    """
    records = kind == "run" and own_id is None
    own_id = own_id or uuid.uuid4().hex
    _write(folder, FolderMark(kind, own_id, texts={} if records else None))
    return own_id


def record_text(folder: Path, place: str, text: bytes) -> None:
    """Note that a run writes a text, so that it is known as the run's own while nobody edits it.

    Args:
        place: in the folder, with slashes.
    """
    mark, digest = read_mark(folder), hashlib.sha256(text).hexdigest()
    if mark is None or mark.texts is None or digest in mark.texts.get(place, ()):
        return
    sums = [*mark.texts.get(place, ()), digest]
    _write(folder, replace(mark, texts={**mark.texts, place: sums}))


def mark_unfinished(folder: Path) -> None:
    """Take the end of a run back: before anything in its folder changes."""
    mark = read_mark(folder)
    if mark is not None and mark.finished is not None:
        _write(folder, replace(mark, finished=None))


def mark_finished(folder: Path) -> None:
    """Say that nothing is left to do: the last write of a run."""
    mark = read_mark(folder)
    if mark is not None and mark.finished is None:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        _write(folder, replace(mark, finished=now))


def _write(folder: Path, mark: FolderMark) -> None:
    values = {"format": FORMAT, "kind": mark.kind, "id": mark.id, "finished": mark.finished}
    write_json(folder / FILE, values if mark.texts is None else {**values, "texts": mark.texts})
