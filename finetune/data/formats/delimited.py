"""Cells between commas or tabs, with quotes or without.

A CSV file has quotes: a cell that starts with one ends with one, and those within are doubled. Of
TSV files some have them and some have none, in which a quote is a letter like any other; which of
the two a file is, its lines decide (`uses_quotes`). A row whose quotes are wrong never takes the
rows behind it along: lines of a TSV that quotes make one row, and that are rows without them, are
neither, but a problem of each.
"""

import csv
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, TextIO, cast

from finetune.data.formats.file_row import FileRow, ReadNote, RowProblem, RowReader
from finetune.data.formats.source import DataSource, ReadProgress, decode_stream, open_bytes
from finetune.runtime.errors import InputError

# The longest cell the csv module takes: its own limit of 128 KiB is short for a document, and a C
# long has 32 bits on some systems.
LONGEST_CELL = 2**31 - 1
# Characters of a row over several lines; with more, its quote is taken for one that does not end.
LONGEST_ROW = 2**24
LOOK_AHEAD = 2**20  # characters of a pipe that decide whether it has quotes
QUOTES = "quoted cells that end with a quote and double the quotes within"
NO_DOUBT = (
    "lines that are one row or several, and not both (where a quote is text, enclose its cell in "
    "quotes and double it; where a cell has several lines, join them)"
)
NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}


class DelimitedReader(RowReader):
    """The rows below a header."""

    delimiter: str

    def __init__(
        self,
        source: DataSource,
        requested: Sequence[str],
        progress: ReadProgress,
        stack: ExitStack,
    ) -> None:
        super().__init__(source)
        self._lines = _Lines(decode_stream(open_bytes(source, progress, stack)))
        self._rows = _QuotedRows(self._lines, self.delimiter)
        header = self._rows.next_row()
        if isinstance(header, csv.Error):
            if self.delimiter != "\t":
                raise InputError(f"{source.name}: line 1: expected {QUOTES}, got {header}")
            header = _split_letters(self._lines.taken[0], self.delimiter)
        self.columns = self._header = [cell.strip() for cell in header or [""]]
        self._check_delimiter(requested)

    def _check_delimiter(self, requested: Sequence[str]) -> None:
        (first, *others), mark = self._header, self.delimiter
        other = next((m for m in NAMES if m != mark and m in first), None)
        if not others and other is not None and first not in requested:
            remedy = f"save it with {NAMES[mark]}"
            if other in ",\t":
                remedy = f"name it .{'csv' if other == ',' else 'tsv'}"
            raise InputError(
                f"{self.source.name}: expected cells separated by {NAMES[mark]}, got "
                f"{NAMES[other]}; {remedy}"
            )

    def _read(self) -> Iterator[FileRow]:
        header, number = self._header, 0
        is_tsv = self.delimiter == "\t"
        has_quotes = not is_tsv or self._uses_quotes()
        rows = self._rows if has_quotes else _LetterRows(self._lines, self.delimiter)
        as_text, as_quotes, as_one = array("q"), array("q"), array("q")
        while (row := rows.next_row()) is not None:
            if not row and len(header) > 1:
                continue  # a blank line
            number += 1
            taken = self._lines.taken
            if len(taken) > 1 and self._are_rows(taken):
                if not is_tsv:
                    as_one.append(number)
                elif isinstance(row, list) and len(row) == len(header):
                    for number, problem in enumerate(self._doubt(taken), number):  # noqa: B020
                        yield FileRow("row", number, problem)
                    continue
                else:  # no row may vanish
                    row = self._rows.take_apart()
            cells: dict[str, str] | RowProblem
            if is_tsv and '"' in taken[0]:
                (as_quotes if has_quotes and isinstance(row, list) else as_text).append(number)
                if isinstance(row, csv.Error):
                    row = _split_letters(taken[0], self.delimiter)
            if isinstance(row, csv.Error):
                cells = RowProblem(QUOTES, str(row))
            elif len(row or [""]) != len(header):
                expected = f"{len(header)} cells in each row, as in the header"
                cells = RowProblem(expected, str(len(row)))
            else:
                cells = dict(zip(header, row or [""], strict=True))
            yield FileRow("row", number, cells)
        why = (
            "these enclose no cell, unlike others" if has_quotes else "quotes enclose no cells here"
        )
        for kind, numbers, rule in (
            ("quoted cells", as_quotes, "read without them, as quotes enclose cells in this file"),
            ("quotes as text", as_text, f"kept as they are, as {why}"),
            ("lines as one row", as_one, "read as one, as quotes enclose its lines"),
        ):
            if numbers:
                self.notes.append(ReadNote(kind, numbers, rule))

    def _doubt(self, lines: Sequence[str]) -> list[RowProblem]:
        """The problem of each line that may be a row, or may be a part of one with the others."""
        first = self._lines.count - len(lines) + 1
        they = f"(of lines {first} to {self._lines.count}, which quotes make one row)"
        numbered = enumerate(lines, first)
        return [RowProblem(NO_DOUBT, f"line {n} {they}") for n, line in numbered if line.strip()]

    def _are_rows(self, lines: Sequence[str]) -> bool:
        """Whether each line has as many cells as the header, if its quotes are letters."""
        count = len(self._header)
        return count > 1 and all(
            len(_split_letters(line, self.delimiter)) == count for line in lines if line.strip()
        )

    def _uses_quotes(self) -> bool:
        if self.source.can_reopen:
            with ExitStack() as stack:
                again = open_bytes(self.source, ReadProgress(), stack)
                if not any(b'"' in block for block in iter(partial(again.read, 2**20), b"")):
                    return True
            with ExitStack() as stack:
                again = open_bytes(self.source, ReadProgress(), stack)
                return uses_quotes(decode_stream(again), self.delimiter, is_whole=True)
        is_whole = self._lines.look_ahead(LOOK_AHEAD)
        return uses_quotes(list(self._lines.waiting), self.delimiter, is_whole, len(self._header))


class CsvReader(DelimitedReader):
    delimiter = ","


class TsvReader(DelimitedReader):
    delimiter = "\t"


class _Lines:
    """Lines one after another, of which some may be taken back.

    Attributes:
        taken: the lines of the row at hand.
        count: how many lines there were, with those.
        waiting: those that come next: taken back, or read ahead.
    """

    def __init__(self, text: TextIO | Sequence[str]) -> None:
        self._text = iter(text)
        self.taken: list[str] = []
        self.count = 0
        self.waiting: deque[str] = deque()
        self._size = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self.waiting.popleft() if self.waiting else next(self._text)
        self._size = len(line) + (self._size if self.taken else 0)
        self.taken.append(line)
        self.count += 1
        if self._size > LONGEST_ROW and len(self.taken) > 1:
            raise csv.Error(f"a quote that does not end within {LONGEST_ROW:,} characters")
        return line

    def take_back(self) -> None:
        """All lines of the row at hand but the first."""
        first, *others = self.taken
        self.waiting.extendleft(reversed(others))
        self.count -= len(others)
        self.taken = [first]

    def skip_unquoted(self) -> bool:
        """Pass the lines without a quote, rows by themselves; whether one with a quote is next."""
        while self.waiting:
            if '"' in self.waiting[0]:
                return True
            self.waiting.popleft()
        for line in self._text:
            if '"' in line:
                self.waiting.append(line)
                return True
        return False

    def look_ahead(self, characters: int) -> bool:
        """Read so many characters ahead; whether that was all."""
        size = 0
        for line in self._text:
            self.waiting.append(line)
            size += len(line)
            if size > characters:
                return False
        return True


class _QuotedRows:
    """Rows whose cells may be quoted. A row that csv refuses costs its first line."""

    def __init__(self, lines: _Lines, delimiter: str) -> None:
        csv.field_size_limit(LONGEST_CELL)
        self._lines, self._delimiter = lines, delimiter
        self._reader = self._new_reader()

    def _new_reader(self) -> Any:
        # strict: a quote in the wrong place is an error, and never swallows the rows after it.
        return csv.reader(self._lines, delimiter=self._delimiter, strict=True)

    def next_row(self) -> list[str] | csv.Error | None:
        """The next row's cells, what is wrong with it, or None at the end."""
        self._lines.taken = []
        try:
            return cast("list[str] | None", next(self._reader, None))
        except csv.Error as error:
            self._take_back()
            return error

    def take_apart(self) -> csv.Error:
        """Give back all lines of the row that was read but its first, which is a row by itself."""
        self._take_back()
        return csv.Error("a quote that opens in one row and closes in a later one")

    def _take_back(self) -> None:
        self._lines.take_back()
        self._reader = self._new_reader()


class _LetterRows:
    """Rows in which a quote is a letter."""

    def __init__(self, lines: _Lines, delimiter: str) -> None:
        self._lines, self._delimiter = lines, delimiter

    def next_row(self) -> list[str] | None:
        self._lines.taken = []
        line = next(self._lines, None)
        return None if line is None else _split_letters(line, self._delimiter)


def _split_letters(line: str, delimiter: str) -> list[str]:
    line = line.rstrip("\r\n")
    return line.split(delimiter) if line else []


def uses_quotes(
    text: TextIO | Sequence[str], delimiter: str, is_whole: bool, cells: int | None = None
) -> bool:
    """Whether the lines of a file are better read with quotes than with quotes as letters.

    Every program that quotes at all quotes each cell that holds a quote, and doubles those within.
    So a quote within a cell that does not start with one, or one that csv refuses, speaks against;
    doubled quotes, quotes around each of several cells, a delimiter within a cell, or a row over
    several lines that are not rows by themselves, speak for. Where each line of a row over several
    lines is a row by itself, quotes would swallow rows: it speaks against unless something speaks
    for.

    Args:
        text: from the header on.
        is_whole: whether that is all of the file.
        cells: how many a row has; None: as many as the header, which comes first.
    """
    lines = _Lines(text)
    rows = _QuotedRows(lines, delimiter)
    speak_for = speak_against = swallowing = 0
    while True:
        if cells is not None and not lines.skip_unquoted():
            break
        if (row := rows.next_row()) is None:
            break
        taken = lines.taken
        if cells is None:
            first = taken[0] if isinstance(row, csv.Error) else None
            cells = len(row if first is None else _split_letters(first, delimiter))  # type: ignore[arg-type]
        if isinstance(row, csv.Error):
            cut_off = not is_whole and str(row).startswith("unexpected end")
            speak_against += not cut_off
            continue
        raw = _split_letters(taken[0], delimiter)
        if len(taken) == 1 and len(raw) == len(row):
            pairs = list(zip(raw, row, strict=True))
            speak_against += any('"' in cell and not cell.startswith('"') for cell in raw)
            quoted = [value for cell, value in pairs if cell.startswith('"')]
            speak_for += any('"' in value for value in quoted) or 1 < len(quoted) == len(row)
        elif len(row) != cells:
            speak_against += 1
        elif len(taken) == 1 or any('"' in cell for cell in row):
            speak_for += 1
        else:
            counts = {len(_split_letters(line, delimiter)) for line in taken if line.strip()}
            speak_for += counts != {cells}
            swallowing += counts == {cells}
    if speak_for or speak_against:
        return speak_for >= speak_against
    return not swallowing
