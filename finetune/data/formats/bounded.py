"""Lines, values and documents of a stream, none of which is held whole where it is too long.

    for number, line in enumerate(bounded_lines(stream), start=1):
        if line is None: ...                    # longer than LONGEST_LINE; passed by

A line of two gigabytes costs its row, and the memory of LONGEST_LINE.
"""

from collections.abc import Iterator
from typing import BinaryIO, TextIO

from finetune.data.formats.encodings import strip_boms
from finetune.data.formats.file_row import RowProblem

# Bytes of a line of text or JSON, of a document, of a cell of Parquet; characters of a line of csv
# and of an object in an array of JSON. A novel has a million.
LONGEST_LINE = 2**26


class Overlong(str):
    """Stands for a line of text that is too long, none of which is held."""

    __slots__ = ()


def bounded_lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """The lines of a stream with their ends; None for each that is longer than LONGEST_LINE.

    No line has byte order marks at its beginning.
    """
    most = LONGEST_LINE
    while line := stream.readline(most + 1):
        if len(line) <= most:
            if line := strip_boms(line):
                yield line
            continue
        while not line.endswith(b"\n") and (line := stream.readline(most)):
            pass
        yield None


def bounded_text(stream: TextIO) -> Iterator[str]:
    """The lines of a text with their ends; an `Overlong` for each that is too long."""
    most = LONGEST_LINE
    while line := stream.readline(most + 1):
        if len(line) <= most:
            yield line
            continue
        while not line.endswith(("\n", "\r")) and (line := stream.readline(most)):
            pass
        yield Overlong()


def too_long(what: str = "line") -> RowProblem:
    """The problem of a row that is too long."""
    return RowProblem(f"at most {LONGEST_LINE:,} bytes in a {what}", "more")
