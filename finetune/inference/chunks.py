"""Records, however many → windows of them, made ahead of their use; and how fast they pass.

A window is what is sorted by length, answered and written together. Which rows it has depends on
the input alone, so that a job can be taken up where it ended.
"""

import hashlib
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from finetune.data.formats.source import DataSource, ReadProgress
from finetune.inference.records import Record, RequestedColumns, read_records
from finetune.runtime import console

Thing = TypeVar("Thing")

WINDOW = 4096  # rows
WINDOW_CHARACTERS = 2**24  # of a window's documents, where that comes first


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


def read_chunks(items: Sequence[DataSource], asked: RequestedColumns, most: int) -> Iterator[Chunk]:
    """The rows of all items in windows: the same ones each time, so that a job can be taken up."""
    rows: list[Record] = []
    index, first, characters = 0, 1, 0
    sizes = [item.path.stat().st_size if item.path else 1 for item in items]
    whole, before = sum(sizes), 0
    for item, size in zip(items, sizes, strict=True):
        reach = ReadProgress()
        for record in read_records(item, asked, reach):
            rows.append(record)
            characters += sum(map(len, record.texts))
            if len(rows) == most or characters >= WINDOW_CHARACTERS:
                share = reach.share()
                share = None if share is None or not whole else (before + size * share) / whole
                yield Chunk(index, first, rows, share)
                index, first, rows, characters = index + 1, first + len(rows), [], 0
        before += size
    if rows:
        yield Chunk(index, first, rows, 1.0)


def read_ahead(things: Iterator[Thing], most: int = 1) -> Iterator[Thing]:
    """The things of an iterator, which makes the next in a thread of its own meanwhile."""
    waiting: queue.Queue[tuple[Thing | None, BaseException | None]] = queue.Queue(most)
    given_up = threading.Event()

    def put(thing: Thing | None, error: BaseException | None) -> None:
        while not given_up.is_set():
            try:
                return waiting.put((thing, error), timeout=0.5)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for thing in things:
                put(thing, None)
                if given_up.is_set():
                    return
            put(None, StopIteration())
        except BaseException as error:  # raised where the things are used
            put(None, error)

    # A daemon: a job that is stopped does not wait for it.
    threading.Thread(target=work, daemon=True, name="ahead").start()
    try:
        while True:
            thing, error = waiting.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield thing  # type: ignore[misc]
    finally:
        given_up.set()


class Pace:
    """Rows a second and the time left, said now and then."""

    EVERY = 10.0  # seconds between two lines

    def __init__(self) -> None:
        self.began = self.said = time.perf_counter()
        self.first: int | None = None  # the row that this run began with
        self.from_share = 0.0
        self.skipped = 0

    def skip(self, window: Chunk) -> None:
        """A window that an earlier run did."""
        if not self.skipped:
            console.print_line("       going on: parts of an earlier run stand")
        self.skipped += 1
        self.from_share = window.share or 0.0

    def show(self, window: Chunk) -> None:
        """A window that is done."""
        now = time.perf_counter()
        if self.first is None:
            self.first = window.first
        if now - self.said < self.EVERY:
            return
        self.said, passed = now, now - self.began
        rate = (window.last - self.first + 1) / passed
        line = f"  {window.last:>11,} rows  {rate:,.0f} rows/s"
        if window.share is not None and window.share > self.from_share:
            left = passed * (1 - window.share) / (window.share - self.from_share)
            line += f"  {100 * window.share:3.0f} %  {_clock(left)} left"
        console.print_line(line)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
