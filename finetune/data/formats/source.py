"""A file, a pipe or a table → its bytes, unpacked; how far they are read."""

import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from finetune.data.formats.encodings import (
    BOM,
    HEAD,
    WIDE_BOMS,
    find_wide_encoding,
    is_utf_8,
    strip_boms,
    to_utf_8,
)
from finetune.runtime.errors import InputError
from finetune.runtime.memory_errors import reraise_memory_error

AUTO = "auto"  # a delimiter that the lines of a file decide
# Beginnings of files that are no text → what they are, and what to do.
_UNPACK = "unpack it first, or pack it with gzip"
_EXPORT = "export it as csv or jsonl first"
NOT_TEXT = {
    b"PK\x03\x04": ("a zip archive or a spreadsheet", "unpack it, or export it as csv, first"),
    b"PK\x05\x06": ("an empty zip archive", "unpack it first"),
    b"PAR1": ("a Parquet file", "call it .parquet"),
    b"ARROW1": ("an Arrow file", _EXPORT),
    b"FEA1": ("a Feather file", _EXPORT),
    b"\xff\xff\xff\xff": ("an Arrow stream", _EXPORT),
    b"Obj\x01": ("an Avro file", _EXPORT),
    b"SQLite format 3\0": ("an SQLite database", _EXPORT),
    b"\x89HDF\r\n": ("an HDF5 file", _EXPORT),
    b"\x93NUMPY": ("a NumPy file", _EXPORT),
    b"\xd0\xcf\x11\xe0": ("an old Office file", _EXPORT),
    b"%PDF-": ("a PDF file", "extract its text first"),
    b"\x28\xb5\x2f\xfd": ("a Zstandard archive", _UNPACK),
    b"\xfd7zXZ\0": ("an xz archive", _UNPACK),
    b"\x04\x22\x4d\x18": ("an LZ4 archive", _UNPACK),
    b"\x1f\x9d": ("a compress archive (.Z)", _UNPACK),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", _UNPACK),
    b"Rar!\x1a\x07": ("a rar archive", _UNPACK),
    b"\xff\x06\0\0sNaPpY": ("a Snappy archive", _UNPACK),
    b"\x89PNG\r\n": ("an image", "name a file of text"),
    b"\xff\xd8\xff": ("an image", "name a file of text"),
}
# Beginnings that are letters, with what else tells them from text.
BZIP2 = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
TAR = re.compile(rb".{257}ustar(\0|  \0)", re.DOTALL)


@dataclass(frozen=True)
class DataSource:
    """One thing to read: a file, standard input (no path), or a table of `datasets`.

    Attributes:
        name: what messages call it.
        kind: a key of `registry.FORMATS`.
        encoding: of a file of text.
        encoding_option: what sets it, for messages.
        delimiter: between the cells of a file without types; AUTO: what its lines show.
        delimiter_option: what sets that.
        stream: the bytes of standard input or a pipe, some of which may be read ahead.
        is_recognised: whether nobody named its format, which its beginning was taken to say.
    """

    name: str
    kind: str
    path: Path | None = None
    table: Any = None
    encoding: str = "utf-8"
    encoding_option: str = "data.encoding="
    delimiter: str = AUTO
    delimiter_option: str = "data.delimiter="
    stream: BinaryIO | None = None
    is_recognised: bool = False

    @property
    def can_reopen(self) -> bool:
        """Whether it can be read twice, as a pipe cannot."""
        return self.path is not None and self.path.is_file()


class ReadProgress:
    """How far a source is read: the share of its bytes or rows; None where nobody can know."""

    def __init__(self) -> None:
        self.stream: BinaryIO | None = None
        self.size = 0
        self.done = 0

    def share(self) -> float | None:
        if not self.size:
            return None
        if self.stream is not None and not self.stream.closed:
            self.done = self.stream.tell()
        return min(1.0, self.done / self.size)


@contextmanager
def explain_read_errors(source: DataSource) -> Iterator[None]:
    """What the system or gzip says of a source as a whole becomes an `InputError`."""
    try:
        yield
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{source.name}: not a whole gzip file ({error})") from None
    except OSError as error:
        reraise_memory_error(error)
        raise InputError(f"{source.name}: cannot read: {error.strerror or error}") from None


def open_bytes(
    source: DataSource, progress: ReadProgress, stack: ExitStack, is_one_row: bool = False
) -> BinaryIO:
    """The bytes of a file or of standard input, unpacked where they are gzip. `stack` closes them.

    The content tells whether it is gzip, not the file's name. One layer is unpacked, and no more:
    a few bytes can stand for layers without end.

    Args:
        is_one_row: the source is a single document: if it is empty or not UTF-8, that concerns
            its row alone, and is left to the rules for rows.

    Returns: them in UTF-8, whatever encoding the source has.

    Raises:
        InputError: for a source of many rows that is empty, or is not text in its encoding.
    """
    if source.stream is not None or source.path is None:
        raw = cast(Any, source.stream or sys.stdin.buffer)
    else:
        raw = cast(Any, stack.enter_context(source.path.open("rb")))
        if source.path.is_file():
            progress.stream, progress.size = raw, source.path.stat().st_size
    stream = raw
    if is_gzip(raw.peek(2)):
        stream = cast(Any, gzip.GzipFile(fileobj=raw))
        if not is_one_row:
            refuse_packed_twice(source.name, stream.peek(2))
    if not is_one_row:
        _check_beginning(source, stream.peek(HEAD))
    if not is_utf_8(source.encoding):
        stream = to_utf_8(stream, source.encoding)
    return cast(BinaryIO, stream)


def find_wide_encoding_of(source: DataSource) -> str | None:
    """UTF-16 or UTF-32, where a file of text begins like that; None for all other sources."""
    if source.path is None or not source.can_reopen:
        return None
    with ExitStack() as stack, explain_read_errors(source):
        stream = open_bytes(source, ReadProgress(), stack, is_one_row=True)
        head = cast(io.BufferedReader, stream).peek(HEAD)
    return None if describe_binary(head) else find_wide_encoding(head)


def _check_beginning(source: DataSource, head: bytes) -> None:
    """
    Raises:
        InputError: for a source that is empty, or is not text in its encoding.
    """
    if not strip_boms(head):
        raise InputError(f"{source.name}: the file is empty")
    if (found := describe_binary(head)) is not None:
        if source.path is None:  # what comes through a pipe has no name
            found = found.replace("call it .parquet", "write it to a file called .parquet first")
        raise InputError(f"{source.name}: expected text, got {found}")
    option, wide = source.encoding_option, find_wide_encoding(head)
    if is_utf_8(source.encoding) and wide is not None:
        has_mark = any(map(head.startswith, WIDE_BOMS))
        got = f"{wide.upper()}{'' if has_mark else ' without a byte order mark'}"
        raise InputError(
            f"{source.name}: expected UTF-8, got {got}; set {option}{wide}, or save it as UTF-8"
        )
    if not is_utf_8(source.encoding) and head.startswith(BOM):
        raise InputError(
            f"{source.name}: expected {source.encoding} ({option}{source.encoding}), got UTF-8; "
            f"set {option}utf-8"
        )


def describe_binary(head: bytes) -> str | None:
    """What bytes that begin like a file of no text are, and what to do; None for all others."""
    if BZIP2.match(head):
        return f"a bzip2 archive; {_UNPACK}"
    if TAR.match(head):
        return "a tar archive; unpack it first"
    for beginning, (what, remedy) in NOT_TEXT.items():
        if head.startswith(beginning):
            return f"{what}; {remedy}"
    return None


def is_gzip(head: bytes) -> bool:
    """Whether bytes that begin like this are packed."""
    return head.startswith(b"\x1f\x8b")


def refuse_packed_twice(name: str, unpacked: bytes) -> None:
    """
    Raises:
        InputError: where what a source holds, once unpacked, begins like gzip again.
    """
    if is_gzip(unpacked):
        raise InputError(f"{name}: packed with gzip more than once; unpack it first")


def decode(content: bytes) -> str:
    """Bytes as text: what is not UTF-8 becomes lone surrogates, which tell where it was."""
    return content.decode("utf-8", "surrogateescape")


def decode_stream(stream: BinaryIO) -> io.TextIOWrapper:
    """A stream as text, without its byte order mark; line ends stay as they are."""
    return io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")


class _Rejoined(io.RawIOBase):
    """Bytes that were read ahead, then the rest of their stream."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def readable(self) -> bool:
        return True

    def read_ahead(self, count: int) -> bytes:
        """At most so many of the next bytes, which stay to be read."""
        parts, missing = [self._head], count - len(self._head)
        while missing > 0 and (block := self._rest.read(missing)):
            parts.append(block)
            missing -= len(block)
        self._head = b"".join(parts)
        return self._head[:count]

    def readinto(self, buffer: Any) -> int:
        if self._head:
            content, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        else:
            content = self._rest.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


def rejoin(head: bytes, rest: BinaryIO) -> BinaryIO:
    """A stream from its beginning, of which `head` was read already."""
    return cast(BinaryIO, io.BufferedReader(_Rejoined(head, rest), 2**16))


def read_ahead(stream: BinaryIO, count: int) -> bytes:
    """The first bytes of what `rejoin` made, which stay to be read; fewer only at its end."""
    reader = cast(io.BufferedReader, stream)
    head = reader.peek()
    return head + cast(_Rejoined, reader.raw).read_ahead(count - len(head))
