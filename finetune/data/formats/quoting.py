"""Lines → rows of cells, with quotes or without; which of the two a file has, its lines decide.

Of TSV files some have quotes and some have none, in which a quote is a letter like any other
(`uses_quotes`). A row whose quotes are wrong never takes the rows behind it along.
"""

import csv
from collections import deque
from collections.abc import Iterable
from typing import Any, cast

from finetune.data.formats.bounded import Overlong

# The longest cell the csv module takes: its own limit of 128 KiB is short for a document, and a C
# long has 32 bits on some systems.
LONGEST_CELL = 2**31 - 1
# Characters of a row over several lines; with more, its quote is taken for one that does not end.
LONGEST_ROW = 2**24


class Lines:
    """Lines one after another, of which some may be taken back.

    Attributes:
        taken: the lines of the row at hand.
        count: how many lines there were, with those.
        waiting: those that come next: taken back, or read ahead.
    """

    def __init__(self, text: Iterable[str]) -> None:
        self._text = iter(text)
        self.taken: list[str] = []
        self.count = 0
        self.waiting: deque[str] = deque()
        self._size = 0

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        line = self.waiting.popleft() if self.waiting else next(self._text)
        self._size = len(line) + (self._size if self.taken else 0)
        self.taken.append(line)
        self.count += 1
        if isinstance(line, Overlong):
            raise csv.Error("a line that is too long")
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


class QuotedRows:
    """Rows whose cells may be quoted. A row that csv refuses costs its first line."""

    def __init__(self, lines: Lines, delimiter: str) -> None:
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


class LetterRows:
    """Rows in which a quote is a letter."""

    def __init__(self, lines: Lines, delimiter: str) -> None:
        self._lines, self._delimiter = lines, delimiter

    def next_row(self) -> list[str] | csv.Error | None:
        self._lines.taken = []
        try:
            line = next(self._lines, None)
        except csv.Error as error:
            return error
        return None if line is None else split_letters(line, self._delimiter)


def describe_quotes(error: csv.Error) -> str:
    """What is wrong with the quotes of a row, for a message: csv's own words name no cell."""
    text = str(error)
    if "expected after" in text:
        return "text behind the quote that ends a cell"
    return "a quote that does not end" if text.startswith("unexpected end") else text


def split_letters(line: str, delimiter: str) -> list[str]:
    line = line.rstrip("\r\n")
    return line.split(delimiter) if line else []


def uses_quotes(
    text: Iterable[str], delimiter: str, is_whole: bool, cells: int | None = None
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
    lines = Lines(text)
    rows = QuotedRows(lines, delimiter)
    speak_for = speak_against = swallowing = 0
    while True:
        if cells is not None and not lines.skip_unquoted():
            break
        if (row := rows.next_row()) is None:
            break
        taken = lines.taken
        if isinstance(taken[0], Overlong):
            continue
        if cells is None:
            first = taken[0] if isinstance(row, csv.Error) else None
            cells = len(row if first is None else split_letters(first, delimiter))  # type: ignore[arg-type]
        if isinstance(row, csv.Error):
            cut_off = not is_whole and str(row).startswith("unexpected end")
            speak_against += not cut_off
            continue
        raw = split_letters(taken[0], delimiter)
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
            counts = {len(split_letters(line, delimiter)) for line in taken if line.strip()}
            speak_for += counts != {cells}
            swallowing += counts == {cells}
    if speak_for or speak_against:
        return speak_for >= speak_against
    return not swallowing
