"""Cells between commas or tabs, with quotes or without.

A CSV file has quotes: a cell that starts with one ends with one, and those within are doubled. Of
TSV files some have them and some have none, in which a quote is a letter like any other; which of
the two a file is, its lines decide (`uses_quotes`). A row whose quotes are wrong never takes the
rows behind it along.
"""

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any, TextIO, cast

from finetune.data.formats.file_row import FileRow, RowProblem, RowReader
from finetune.data.formats.source import DataSource, ReadProgress, decode_stream, open_bytes
from finetune.runtime.errors import InputError

# The longest cell the csv module takes: its own limit of 128 KiB is short for a document, and a C
# long has 32 bits on some systems.
LONGEST_CELL = 2**31 - 1
# Characters of a row over several lines; with more, its quote is taken for one that does not end.
LONGEST_ROW = 2**24
LOOK_AHEAD = 2**20  # characters of a pipe that decide whether it has quotes
QUOTES = "quoted cells that end with a quote and double the quotes within"
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
        rows: _QuotedRows | _LetterRows = self._rows
        if self.delimiter == "\t" and not self._uses_quotes():
            rows = _LetterRows(self._lines, self.delimiter)
        while (row := rows.next_row()) is not None:
            if not row and len(header) > 1:
                continue  # a blank line
            number += 1
            cells: dict[str, str] | RowProblem
            if isinstance(row, csv.Error) and self.delimiter == "\t":
                row = _split_letters(self._lines.taken[0], self.delimiter)
            if isinstance(row, csv.Error):
                cells = RowProblem(QUOTES, str(row))
            elif len(row or [""]) != len(header):
                expected = f"{len(header)} cells in each row, as in the header"
                cells = RowProblem(expected, str(len(row)))
            else:
                cells = dict(zip(header, row or [""], strict=True))
            yield FileRow("row", number, cells)

    def _uses_quotes(self) -> bool:
        if self.source.can_reopen:
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
        waiting: those that come next: taken back, or read ahead.
    """

    def __init__(self, text: TextIO | Sequence[str]) -> None:
        self._text = iter(text)
        self.taken: list[str] = []
        self.waiting: deque[str] = deque()
        self._size = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self.waiting.popleft() if self.waiting else next(self._text)
        self._size = len(line) + (self._size if self.taken else 0)
        self.taken.append(line)
        if self._size > LONGEST_ROW and len(self.taken) > 1:
            raise csv.Error(f"a quote that does not end within {LONGEST_ROW:,} characters")
        return line

    def take_back(self) -> None:
        """All lines of the row at hand but the first."""
        first, *others = self.taken
        self.waiting.extendleft(reversed(others))
        self.taken = [first]

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
            self._lines.take_back()
            self._reader = self._new_reader()
            return error


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
    doubled quotes, a delimiter within a cell, or a row over several lines that are not rows by
    themselves, speak for. Where each line of a row over several lines is a row by itself, quotes
    would swallow rows: it speaks against unless something speaks for.

    Args:
        text: from the header on.
        is_whole: whether that is all of the file.
        cells: how many a row has; None: as many as the header, which comes first.
    """
    lines = _Lines(text)
    rows = _QuotedRows(lines, delimiter)
    speak_for = speak_against = swallowing = 0
    while (row := rows.next_row()) is not None:
        taken = lines.taken
        if cells is None:
            first = taken[0] if isinstance(row, csv.Error) else None
            cells = len(row if first is None else _split_letters(first, delimiter))  # type: ignore[arg-type]
        if isinstance(row, csv.Error):
            cut_off = not is_whole and str(row).startswith("unexpected end")
            speak_against += not cut_off
            continue
        if not any('"' in line for line in taken):
            continue
        raw = _split_letters(taken[0], delimiter)
        if len(taken) == 1 and len(raw) == len(row):
            pairs = list(zip(raw, row, strict=True))
            speak_against += any('"' in cell and not cell.startswith('"') for cell in raw)
            speak_for += any(cell.startswith('"') and '"' in value for cell, value in pairs)
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
