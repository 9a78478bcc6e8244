"""Documents by the million: their texts are in a file, and 16 bytes for each in memory.

    column = Column(Store(folder))
    column.append("a text")                # None where there is none
    texts = column.texts()                 # a sequence: texts[3], texts[:10], for text in texts
    texts.take(rows)                       # some of them, without reading any

The file has no name, so that nothing stays behind, whatever ends the process. While it is small it
is none at all.
"""

import contextlib
import hashlib
import io
import itertools
import mmap
import os
import re
import shutil
import tempfile
import threading
import weakref
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast, overload

import numpy as np
from numpy.typing import NDArray

IN_MEMORY = 64 * 2**20  # bytes of texts; beyond, they go to disk
AT_ONCE = 2**20  # bytes that are written or read together
SURROGATES = re.compile("[\ud800-\udfff]")
HALVES = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # the others stand for bytes
BROKEN_TEXTS, BROKEN_BYTES = 200, 1000  # of a sample of texts that are not UTF-8, and of each
MISSING = -1  # the size of a text that is not there


class Store:
    """Texts one after the other, in a file that stays in memory while it is small."""

    def __init__(self, folder: Path | None = None) -> None:
        """
        Args:
            folder: where the file may grow; None, or a folder that cannot be written: in memory.
        """
        self._folder = folder
        self._file: BinaryIO = io.BytesIO()
        self._lock = threading.Lock()

    def add(self, content: bytes) -> int:
        """Append some bytes; where they begin."""
        with self._lock:
            begin = self._file.seek(0, os.SEEK_END)
            small = isinstance(self._file, io.BytesIO)
            if small and self._folder is not None and begin + len(content) > IN_MEMORY:
                self._to_disk(self._folder)
            self._file.write(content)
        return begin

    def _to_disk(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 # nameless: a kill leaves nothing  # nameless: a kill leaves nothing
        except OSError:
            self._folder = None
            return
        weakref.finalize(self, file.close)
        self._file.seek(0)
        shutil.copyfileobj(self._file, file)
        self._file = cast(BinaryIO, file)

    def read(self, begin: int, size: int) -> bytes:
        with self._lock:
            self._file.seek(begin)
            return self._file.read(size)

    def mapped(self) -> memoryview:
        """All of it, to read; then nothing more may be added. A file is mapped, not held."""
        with self._lock:
            if isinstance(self._file, io.BytesIO):
                return self._file.getbuffer().toreadonly()
            self._file.flush()
            return memoryview(mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))

    def beside(self) -> "Store":
        """An empty one that may grow where this one may."""
        return Store(self._folder)


class Texts(Sequence[Any]):
    """Texts in a store, in any order: each a str, or None where it is missing."""

    def __init__(self, store: Store, begins: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        """
        Args:
            begins: where each text begins in the store. (rows,)
            sizes: its bytes, or MISSING. (rows,)
        """
        self._store, self._begins, self._sizes = store, begins, sizes

    @classmethod
    def of(cls, texts: "Sequence[str | None] | Texts") -> "Texts":
        """Texts that are in memory already."""
        if isinstance(texts, Texts):
            return texts
        column = Column(Store())
        for text in texts:
            column.add(text)
        return column.texts()

    @classmethod
    def joined(cls, parts: Sequence["Texts"]) -> "Texts":
        """One after the other, all from the same store."""
        begins = np.concatenate([part._begins for part in parts])
        return cls(parts[0]._store, begins, np.concatenate([part._sizes for part in parts]))

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> "Texts":
        """Some of them, in the order given; what is missing becomes empty."""
        at = np.asarray(rows, dtype=np.int64)
        return Texts(self._store, self._begins[at], np.maximum(self._sizes[at], 0))

    def without(self) -> "Texts":
        """As many, in the same store, of which each is missing."""
        return Texts(self._store, np.zeros_like(self._begins), np.full_like(self._sizes, MISSING))

    @property
    def store(self) -> Store:
        """Where they are; what is added to it can be joined with them."""
        return self._store

    def beside(self) -> Store:
        """An empty store that may grow where theirs may."""
        return self._store.beside()

    def __len__(self) -> int:
        return len(self._sizes)

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> list[Any]: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return self._read(self._begins[at], self._sizes[at])
        return self._one(int(self._begins[at]), int(self._sizes[at]))

    def __iter__(self) -> Iterator[Any]:
        # As many at once as fit into some AT_ONCE bytes.
        marks = np.cumsum(np.maximum(self._sizes, 1)) // AT_ONCE
        bounds = [0, *(np.flatnonzero(np.diff(marks)) + 1).tolist(), len(self)]
        for start, end in itertools.pairwise(bounds):
            yield from self[start:end]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(
            mine == theirs for mine, theirs in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def _read(self, begins: NDArray[np.int64], sizes: NDArray[np.int64]) -> list[str | None]:
        """Several: in one piece where they are close together, as they mostly do."""
        if not len(sizes):
            return []
        start, end = int(begins.min()), int((begins + sizes).max())
        places = zip(begins.tolist(), sizes.tolist(), strict=True)
        if end - start > 4 * int(np.maximum(sizes, 0).sum()) + AT_ONCE // 16:
            return [self._one(begin, size) for begin, size in places]
        content = self._store.read(start, max(end - start, 0))
        return [
            _text(content[begin - start : begin - start + size]) if size != MISSING else None
            for begin, size in places
        ]

    def _one(self, begin: int, size: int) -> str | None:
        return None if size == MISSING else _text(self._store.read(begin, size))


class Column:
    """A column of texts while it is read: notes what is no text, and repairs broken bytes.

    Attributes:
        odd: each cell that is neither text nor missing, by its row.
        damaged: the rows whose bytes were not UTF-8, which now have U+FFFD in their place.
        broken: the bytes of some of those.
        halves: those of the damaged rows where a \\u escape is half of a pair instead.
    """

    def __init__(self, store: Store) -> None:
        self.odd: list[tuple[int, Any]] = []
        self.damaged: list[int] = []
        self.broken: list[bytes] = []
        self.halves: list[int] = []
        self._store = store
        self._fresh: list[bytes] = []
        self._held = 0  # bytes of those
        self._begins, self._sizes = array("q"), array("q")

    def __len__(self) -> int:
        return len(self._sizes)

    def append(self, cell: object) -> None:
        """The next row's cell, as it was read."""
        if cell is not None and not isinstance(cell, str):
            self.odd.append((len(self), cell))
            cell = None
        elif cell is not None and is_broken(cell):
            self.damaged.append(len(self))
            if holds_half_pair(cell):
                self.halves.append(len(self))
            add_broken_bytes(self.broken, cell)
            cell = replace_surrogates(cell)
        self.add(cell)

    def add(self, text: str | None) -> None:
        """The next row's text, unchanged."""
        if text is None:
            self._sizes.append(MISSING)
            return
        content = text.encode("utf-8", "surrogatepass")
        self._sizes.append(len(content))
        self._fresh.append(content)
        self._held += len(content)
        if self._held >= AT_ONCE:
            self._write()

    def texts(self) -> Texts:
        """All that were appended."""
        self._write()
        return Texts(self._store, np.array(self._begins), np.array(self._sizes))

    def _write(self) -> None:
        """Put the fresh texts into the store, and note where each begins."""
        sizes = np.maximum(np.array(self._sizes[len(self._begins) :], dtype=np.int64), 0)
        begin = self._store.add(b"".join(self._fresh))
        self._begins.frombytes((begin + np.cumsum(sizes) - sizes).tobytes())
        self._fresh, self._held = [], 0


class Pairs(Sequence[str]):
    """Pairs of texts as a person reads them: the second below the first."""

    def __init__(self, texts: Sequence[str], seconds: Sequence[str]) -> None:
        self._texts, self._seconds = texts, seconds

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [_pair(*both) for both in zip(self._texts[at], self._seconds[at], strict=True)]
        return _pair(self._texts[at], self._seconds[at])

    def __iter__(self) -> Iterator[str]:
        return (_pair(*both) for both in zip(self._texts, self._seconds, strict=True))


def replace_surrogates(text: str) -> str:
    """Put U+FFFD where bytes were not UTF-8 or a \\u escape is half a pair."""
    try:
        # Back to the bytes first: one U+FFFD for each broken character, not for each of its bytes.
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return SURROGATES.sub("\ufffd", text)


def is_broken(text: str) -> bool:
    """Whether a text was not UTF-8, or holds half of a pair of \\u escapes."""
    return not text.isascii() and SURROGATES.search(text) is not None


def holds_half_pair(text: str) -> bool:
    """Whether a broken text is so by an escape such as \\ud83d alone, and not by its bytes."""
    return HALVES.search(text) is not None


def add_broken_bytes(sample: list[bytes], text: str) -> None:
    """Add the bytes of a text that is not UTF-8 to a sample, which stays small."""
    if len(sample) < BROKEN_TEXTS:
        # Half a pair of \\u escapes is no byte.
        with contextlib.suppress(UnicodeEncodeError):
            sample.append(text.encode("utf-8", "surrogateescape")[:BROKEN_BYTES])


def hash_text(text: str) -> bytes:
    """16 bytes that identify a text: two texts share theirs once in 10^38 pairs."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def number_digests(digests: Sequence[NDArray[np.bytes_]]) -> list[NDArray[np.int64]]:
    """A number for each digest, the same for the same one in all parts."""
    _, numbers = np.unique(np.concatenate(digests), return_inverse=True)
    return np.split(numbers, np.cumsum([len(part) for part in digests])[:-1])


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogatepass")


def _pair(text: str, second: str) -> str:
    return f"{text}\n\n{second}"
