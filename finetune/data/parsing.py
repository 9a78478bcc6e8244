"""A delimited file or JSON, as bytes → the cells or values of its rows, one after another.

What is wrong with one row stands in its place; it never takes the rows behind it along.
"""

import csv
import io
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, cast

from finetune.data.files import LONGEST_CELL, json_error
from finetune.data.rows import BOM, clip
from finetune.runtime.errors import InputError

LONGEST_ROW = 2**24  # characters until a quote that does not end is taken for a broken one
BLANKS = re.compile(r"[ \t\r\n]*")


class Cells:
    """The rows of a delimited file. A row that csv refuses costs that row, not those behind it."""

    def __init__(self, stream: BinaryIO, delimiter: str) -> None:
        csv.field_size_limit(LONGEST_CELL)
        self.delimiter = delimiter
        # newline="": csv itself finds where a row ends. utf-8-sig drops a byte order mark.
        self.lines = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
        self.back: deque[str] = deque()  # read again after a quote that did not end
        self.taken: list[str] = []
        header = self.next_row()
        if not isinstance(header, list):
            raise InputError(f"line 1: {header or 'the file is empty'}")
        self.header = [cell.strip() for cell in header]
        twice = sorted({name for name in self.header if self.header.count(name) > 1})
        if twice:
            raise InputError(f"several columns are called '{twice[0]}'")

    def _next_line(self) -> Iterator[str]:
        size = 0
        while True:
            line = self.back.popleft() if self.back else self.lines.readline()
            if not line:
                return
            self.taken.append(line)
            size += len(line)
            if size > LONGEST_ROW and len(self.taken) > 1:
                raise csv.Error("a quote does not end")
            yield line

    def _reader(self, lines: Iterable[str], quoting: int) -> Any:
        return csv.reader(lines, delimiter=self.delimiter, quoting=cast(Any, quoting), strict=True)

    def next_row(self) -> list[str] | str | None:
        """The next row's cells, what is wrong with it, or None at the end."""
        self.taken.clear()
        try:
            return cast(list[str], next(self._reader(self._next_line(), csv.QUOTE_MINIMAL)))
        except StopIteration:
            return None
        except csv.Error as error:
            first, *others = self.taken
            self.back.extendleft(reversed(others))
            if self.delimiter == "\t":
                # Most tab-separated files know no quoting: a quote is a letter like any other.
                return cast(list[str], next(self._reader([first], csv.QUOTE_NONE)))
            return f"{error}; a cell that starts with a quote must end with one"


def line_values(stream: BinaryIO) -> Iterator[tuple[int, Any]]:
    """Each line's number and value; a ValueError in the place of a value that is none."""
    for number, line in enumerate(stream, start=1):
        if number == 1:
            line = line.removeprefix(BOM)
        line = line.strip()
        if not line:
            continue
        try:
            yield number, json.loads(line.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            yield number, ValueError(f"not valid JSON ({json_error(error)})")


def array_values(stream: BinaryIO) -> Iterator[tuple[int, Any]]:
    """The values of a JSON array, one after another; of JSON Lines that are called .json, those.

    What follows a place that is not JSON cannot be told apart any more: that is an InputError.
    """
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    decoder, held, at = json.JSONDecoder(), text.read(2**16).lstrip(), 1
    if held.startswith("{"):
        stream.seek(0)
        yield from line_values(stream)
        return
    if not held.startswith("["):
        raise InputError(f"expected an array of objects, found {clip(held)!r}")
    number, done = 1, False

    def more() -> None:
        nonlocal held, at, done
        read = text.read(max(2**16, len(held) - at))
        held, at, done = held[at:] + read, 0, not read

    def skip_blanks() -> None:
        nonlocal at
        while True:
            at = cast(Any, BLANKS.match(held, at)).end()
            if at < len(held) or done:
                return
            more()

    skip_blanks()
    while not held.startswith("]", at):
        try:
            value, end = decoder.raw_decode(held, at)
            whole = end < len(held) or done  # else a number may go on in what was not read yet
        except (ValueError, RecursionError) as error:
            if done:
                raise InputError(f"row {number}: not valid JSON ({json_error(error)})") from None
            whole = False
        if not whole:
            more()
            continue
        yield number, value
        number, at = number + 1, end
        skip_blanks()
        if held.startswith(",", at):
            at += 1
            skip_blanks()
        elif not held.startswith("]", at):
            found = clip(held[at : at + 99])
            raise InputError(f"after row {number - 1}: expected , or ], found {found!r}")
