"""A long job's finished parts ↔ disk: what a kill leaves is whole, and is not computed again.

The folder `.OUT.parts` beside the output holds `job.json`, what the job is, and a file a part:

    00000012.jsonl      a line for each row, as JSON; then one on the part itself (`Footer`)

A part is written aside, synced and renamed, so it is there as a whole or not at all. Its last line
has the count and the hash of its lines, and the hash of the rows that it answers.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune.runtime.atomic_files import fsync_path, write_json
from finetune.runtime.errors import InputError, explain_write_errors
from finetune.runtime.folder_lock import FolderLock

INSTEAD = "write the output to"


@dataclass(frozen=True)
class Footer:
    """What a part says of itself.

    Attributes:
        rows: lines before this one; of them `errors` were not right, `abstained` got no label.
        input: hash of the rows as they were read.
        lines: hash of the lines.
        counts: rows by label.
        kinds: the types of JSON in columns whose type only the data knows.
    """

    rows: int
    errors: int
    abstained: int
    input: str
    lines: str
    counts: Mapping[str, int]
    kinds: Mapping[str, Sequence[str]]


class ShardStore:
    """The parts of one output."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.with_name(f".{out.name}.parts")
        self._hold = FolderLock()

    def begin(self, job: Mapping[str, Any], resume: bool) -> bool:
        """Make the folder, or take up the one that is there; whether it was there. One process.

        Raises:
            InputError: where another job's parts stand there, or this job's and nobody said
                `--resume`, or where a living process is at work on them.
        """
        file = self.folder / "job.json"
        there = file.is_file()
        if there and not resume:
            raise InputError(
                f"{self.out}: a job that did not finish stands in {self.folder}; go on with it "
                "with --resume, or drop it with --overwrite"
            )
        with explain_write_errors(self.folder, INSTEAD):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._take()
        if there:
            before = json.loads(file.read_text(encoding="utf-8"))
            differ = [key for key in {**before, **job} if before.get(key) != job.get(key)]
            if differ:
                raise InputError(
                    f"--resume: {key}: the unfinished job of {self.out} has "
                    f"{_said(before.get(key))}, this one {_said(job.get(key))}; run that one, or "
                    "drop it with --overwrite"
                    for key in differ
                )
        else:
            write_json(file, job, INSTEAD)
        for leftover in self.folder.glob(".*.new"):  # of a part that was being written
            leftover.unlink()
        return there

    def let_go(self) -> None:
        """Others may take the folder up."""
        self._hold.release()

    def replace(self) -> None:
        """Remove what an earlier job left.

        Raises:
            InputError: where a living process is at work on it.
        """
        if self.folder.is_dir():
            self._take()
            self.drop()
            self._hold.release()

    def drop(self) -> None:
        """Remove the parts."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _take(self) -> None:
        try:
            self._hold.take(self.folder)
        except InputError:
            raise InputError(f"{self.out}: another process is writing it; wait for it") from None

    def drop_if_empty(self) -> None:
        """Remove the folder where it is ours and no part was finished."""
        if self._hold.taken and not any(self.folder.glob("*.jsonl")):
            self.drop()

    def write(self, index: int, lines: Sequence[str], footer: Mapping[str, Any]) -> None:
        """Write a part as a whole. Returns when the disk holds it.

        Args:
            lines: one for each row, without line ends.
            footer: the fields of `Footer` but for `rows` and `lines`.
        """
        body = "".join(f"{line}\n" for line in lines).encode()
        whole = Footer(rows=len(lines), lines=hashlib.sha256(body).hexdigest(), **footer)
        last = json.dumps(asdict(whole), ensure_ascii=False).encode() + b"\n"
        file = self._file(index)
        aside = file.with_name(f".{file.name}.new")
        with explain_write_errors(file, INSTEAD):
            with aside.open("wb") as out:
                out.write(body + last)
            fsync_path(aside)
            aside.replace(file)
            fsync_path(self.folder)

    def footer(self, index: int) -> Footer | None:
        """What a finished part says of itself; None where it is not there or not whole."""
        try:
            return self.read(index)[1]
        except InputError:
            return None

    def read(self, index: int) -> tuple[list[bytes], Footer]:
        """A part's lines, checked by count and hash.

        Raises:
            InputError: where it is not there, or not what was written.
        """
        file = self._file(index)
        try:
            *lines, last = file.read_bytes().splitlines(keepends=True)
            footer = Footer(**json.loads(last))
            if footer.rows != len(lines) or _hash(lines) != footer.lines:
                raise ValueError
        except (OSError, ValueError, TypeError):
            raise InputError(
                f"{file}: a damaged part; remove it, and go on with --resume"
            ) from None
        return lines, footer

    def lines(self, many: int) -> Iterator[bytes]:
        """The lines of all parts in order, each part checked as it is read."""
        for index in range(many):
            yield from self.read(index)[0]

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:08d}.jsonl"


def _hash(lines: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line)
    return digest.hexdigest()


def _said(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 60 else f"{text[:40]}…"
