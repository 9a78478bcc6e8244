"""Records, however many → chunks of them, read ahead; and how fast they are done.

A chunk is what is sorted by length, classified and written together. Which rows it has depends on
the input alone, so that a job can be resumed.
"""

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from finetune.data.formats.source import DataSource, ReadProgress
from finetune.inference.records import Record, RequestedColumns, read_records
from finetune.runtime import console

Item = TypeVar("Item")

CHUNK_ROWS = 4096
CHUNK_CHARACTERS = 2**24  # of a chunk's documents, where that comes first


@dataclass(frozen=True)
class Chunk:
    """Rows that follow each other in the input.

    Attributes:
        first: the number of its first row in the whole input, from 1 as everywhere.
        share: how much of the input was read with it; None where nobody can know.
        input: a hash of its rows.
    """

    index: int
    first: int
    rows: list[Record]
    share: float | None

    @property
    def last(self) -> int:
        """The number of its last row."""
        return self.first + len(self.rows) - 1

    @property
    def input(self) -> str:
        digest = hashlib.sha256()
        for row in self.rows:
            digest.update(repr(row).encode("utf-8", "backslashreplace"))
        return digest.hexdigest()


def read_chunks(
    items: Sequence[DataSource],
    columns: RequestedColumns,
    most: int,
    tell: Callable[[str], None] = lambda message: None,
) -> Iterator[Chunk]:
    """The rows of all inputs in chunks of at most so many: the same ones each time.

    Args:
        tell: is called with what should be known of how an input was read.
    """
    rows: list[Record] = []
    index, first, characters = 0, 1, 0
    sizes = [item.path.stat().st_size if item.path else 1 for item in items]
    total, before = sum(sizes), 0
    for item, size in zip(items, sizes, strict=True):
        progress = ReadProgress()
        for record in read_records(item, columns, progress, tell):
            rows.append(record)
            characters += sum(map(len, record.texts))
            if len(rows) == most or characters >= CHUNK_CHARACTERS:
                share = progress.share()
                share = None if share is None or not total else (before + size * share) / total
                yield Chunk(index, first, rows, share)
                index, first, rows, characters = index + 1, first + len(rows), [], 0
        before += size
    if rows:
        yield Chunk(index, first, rows, 1.0)


def read_ahead(items: Iterator[Item], most: int = 1) -> Iterator[Item]:
    """The items of an iterator, of which a thread makes the next `most` meanwhile."""
    waiting: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(most)
    closed = threading.Event()

    def put(item: Item | None, error: BaseException | None) -> None:
        while not closed.is_set():
            try:
                return waiting.put((item, error), timeout=0.5)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for item in items:
                put(item, None)
                if closed.is_set():
                    return
            put(None, StopIteration())
        except BaseException as error:  # raised where the items are used
            put(None, error)

    # A daemon: a job that is stopped does not wait for it.
    threading.Thread(target=work, daemon=True, name="read-ahead").start()
    try:
        while True:
            item, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield item  # type: ignore[misc]
    finally:
        closed.set()


class Throughput:
    """Prints rows a second and the time left, now and then."""

    EVERY = 10.0  # seconds between two lines

    def __init__(self) -> None:
        self.began = self.printed = time.perf_counter()
        self.first: int | None = None  # the row that this run began with
        self.from_share = 0.0
        self.skipped = 0

    def skip(self, chunk: Chunk) -> None:
        """Count a chunk that an earlier run finished."""
        if not self.skipped:
            console.print_line("       Resuming: skipping the shards of an earlier run")
        self.skipped += 1
        self.from_share = chunk.share or 0.0

    def show(self, chunk: Chunk) -> None:
        """Count a chunk that this run finished."""
        now = time.perf_counter()
        if self.first is None:
            self.first = chunk.first
        if now - self.printed < self.EVERY:
            return
        self.printed, passed = now, now - self.began
        rate = (chunk.last - self.first + 1) / passed
        line = f"  {chunk.last:>11,} rows  {rate:,.0f} rows/s"
        if chunk.share is not None and chunk.share > self.from_share:
            left = passed * (1 - chunk.share) / (chunk.share - self.from_share)
            line += f"  {100 * chunk.share:3.0f} %  {_clock(left)} left"
        console.print_line(line)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
