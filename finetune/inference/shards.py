"""A long job's finished shards ↔ disk: a shard that was written is never computed again.

The folder `.OUT.shards` beside the output holds `job.json`, what the job is, and a file a shard:

    00000012.jsonl      a line for each row, as JSON; then one on the shard itself (`Footer`)

A shard is written aside, synced and renamed, so it is there as a whole or not at all. Its last line
has the count and the hash of its lines, and the hash of the rows that it is the prediction of.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune.runtime.atomic_files import fsync_path, move_into_place, write_json
from finetune.runtime.errors import InputError, explain_write_errors
from finetune.runtime.folder_lock import FolderLock

REMEDY = "write the output to"


@dataclass(frozen=True)
class Footer:
    """The last line of a shard.

    Attributes:
        rows: lines before this one; of them `errors` were invalid, `abstained` got no label.
        input: hash of the rows as they were read.
        lines: hash of the lines.
        counts: rows by label.
        kinds: the types of JSON in columns whose type only the data knows.
        out_of_scope: rows without a label as no label fits them; 0 in shards of earlier versions.
        by_student: rows of a cascade that its student answered.
    """

    rows: int
    errors: int
    abstained: int
    input: str
    lines: str
    counts: Mapping[str, int]
    kinds: Mapping[str, Sequence[str]]
    out_of_scope: int = 0
    by_student: int = 0


class ShardStore:
    """The shards of one output."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.with_name(f".{out.name}.shards")
        self._lock = FolderLock()

    def begin(
        self, job: Mapping[str, Any], resume: bool, notes: Mapping[str, Any] | None = None
    ) -> bool:
        """Make the folder, or continue in an existing one. Called by one process.

        Args:
            job: what must be equal for two jobs to be the same.
            resume: continue an unfinished job.
            notes: what `read_job` tells of it besides.

        Returns:
            Whether there was an unfinished job.

        Raises:
            InputError: where there is another unfinished job, or this one and `resume` is off, or
                where a living process is writing it.
        """
        file, notes = self.folder / "job.json", notes or {}
        there = file.is_file()
        if there and not resume:
            raise InputError(
                f"{self.out}: an unfinished job exists in {self.folder}; continue it with "
                "--resume, or discard it with --overwrite"
            )
        with explain_write_errors(self.folder, REMEDY):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._take()
        if there:
            before = json.loads(file.read_text(encoding="utf-8"))
            keys = [key for key in {**before, **job} if key not in notes]
            differ = [key for key in keys if before.get(key) != job.get(key)]
            if differ:
                raise InputError(
                    f"--resume: {key}: the unfinished job of {self.out} has "
                    f"{_abbreviate(before.get(key))}, this one {_abbreviate(job.get(key))}; run "
                    "that job, or discard it with --overwrite"
                    for key in differ
                )
        else:
            write_json(file, {**job, **notes}, REMEDY)
        for leftover in self.folder.glob(".*.new"):  # of a shard that was being written
            leftover.unlink()
        return there

    def read_job(self) -> Mapping[str, Any]:
        """What the unfinished job is; nothing where there is none."""
        file = self.folder / "job.json"
        found: Mapping[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        return found

    def release(self) -> None:
        """Let other processes continue the job."""
        self._lock.release()

    def replace(self) -> None:
        """Remove what an earlier job left.

        Raises:
            InputError: where a living process is writing it.
        """
        if self.folder.is_dir():
            self._take()
            self.drop()
            self._lock.release()

    def drop(self) -> None:
        """Remove the shards."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _take(self) -> None:
        try:
            self._lock.take(self.folder)
        except InputError:
            raise InputError(
                f"{self.out}: another process is writing this file; wait for it to finish"
            ) from None

    def drop_if_empty(self) -> None:
        """Remove the folder where it is this process's and no shard was finished."""
        if self._lock.taken and not any(self.folder.glob("*.jsonl")):
            self.drop()

    def write(self, index: int, lines: Sequence[str], footer: Mapping[str, Any]) -> None:
        """Write a shard as a whole. Returns when the disk holds it.

        Args:
            lines: one for each row, without line ends.
            footer: the fields of `Footer` but for `rows` and `lines`.
        """
        body = "".join(f"{line}\n" for line in lines).encode()
        complete = Footer(rows=len(lines), lines=hashlib.sha256(body).hexdigest(), **footer)
        last = json.dumps(asdict(complete), ensure_ascii=False).encode() + b"\n"
        file = self._file(index)
        aside = file.with_name(f".{file.name}.new")
        with explain_write_errors(file, REMEDY):
            with aside.open("wb") as out:
                out.write(body + last)
            fsync_path(aside)
            move_into_place(aside, file)
            fsync_path(self.folder)

    def footer(self, index: int) -> Footer | None:
        """The footer of a finished shard; None where it is missing or damaged."""
        try:
            return self.read(index)[1]
        except InputError:
            return None

    def read(self, index: int) -> tuple[list[bytes], Footer]:
        """A shard's lines, checked by count and hash.

        Raises:
            InputError: where it is missing, or not what was written.
        """
        file = self._file(index)
        try:
            *lines, last = file.read_bytes().splitlines(keepends=True)
            footer = Footer(**json.loads(last))
            if footer.rows != len(lines) or _hash(lines) != footer.lines:
                raise ValueError
        except (OSError, ValueError, TypeError):
            raise InputError(
                f"{file}: the shard is damaged; delete it and run again with --resume"
            ) from None
        return lines, footer

    def lines(self, count: int) -> Iterator[bytes]:
        """The lines of all shards in order, each shard checked as it is read."""
        for index in range(count):
            yield from self.read(index)[0]

    def _file(self, index: int) -> Path:
        return self.folder / f"{index:08d}.jsonl"


def _hash(lines: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line)
    return digest.hexdigest()


def _abbreviate(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 60 else f"{text[:40]}…"
