"""Cells between commas, tabs or another delimiter, with quotes or without.

A CSV file has quotes: a cell that starts with one ends with one, and those within are doubled. Of
files with tabs or pipes some have them and some have none, in which a quote is a letter like any
other (`quoting.py`). A row whose quotes are wrong never takes the rows behind it along: lines of a
TSV that quotes make one row, and that are rows without them, are neither, but a problem of each.
"""

import csv
import itertools
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial

from finetune.data.formats.bounded import Overlong, bounded_text, too_long
from finetune.data.formats.delimiters import (
    SEP_LINE,
    UNQUOTED,
    WORDS,
    find_delimiters,
    is_usual,
    name_delimiter,
)
from finetune.data.formats.encodings import BOM_CHARACTER, skip_invisible
from finetune.data.formats.file_row import FileRow, ReadNote, RowProblem, RowReader
from finetune.data.formats.quoting import (
    LetterRows,
    Lines,
    QuotedRows,
    describe_quotes,
    split_letters,
    uses_quotes,
)
from finetune.data.formats.source import AUTO, DataSource, ReadProgress, decode_stream, open_bytes
from finetune.runtime.errors import InputError

LOOK_AHEAD = 2**20  # characters that decide on the delimiter, and of a pipe on quotes
QUOTES = "quoted cells that end with a quote and double the quotes within"
NO_DOUBT = (
    "lines that are one row or several, and not both (where a quote is text, enclose its cell in "
    "quotes and double it; where a cell has several lines, join them)"
)


class DelimitedReader(RowReader):
    """The rows below a header.

    Attributes:
        usual: the delimiter that the file's name says.
        delimiter: the one that it has.
    """

    usual: str

    def __init__(
        self,
        source: DataSource,
        requested: Sequence[str],
        progress: ReadProgress,
        stack: ExitStack,
    ) -> None:
        super().__init__(source)
        self._lines = Lines(bounded_text(decode_stream(open_bytes(source, progress, stack))))
        self.delimiter = self._choose_delimiter(requested)
        self._rows = QuotedRows(self._lines, self.delimiter)
        header = self._rows.next_row()
        if isinstance(header, csv.Error):
            if self.delimiter not in UNQUOTED or isinstance(self._lines.taken[0], Overlong):
                raise InputError(
                    f"{source.name}: line 1: expected {QUOTES}, got {describe_quotes(header)}"
                )
            header = split_letters(self._lines.taken[0], self.delimiter)
        self.columns = self._header = [skip_invisible(cell).strip() for cell in header or [""]]
        self._check_delimiter(requested)

    def _choose_delimiter(self, requested: Sequence[str]) -> str:
        """What the recipe says, what a line for Excel says, or what the lines show.

        Raises:
            InputError: where these show two alike.
        """
        source, lines = self.source, self._lines
        self._skip_blank_lines(lines)
        said = SEP_LINE.fullmatch(lines.waiting[0]) if lines.waiting else None
        if said is not None:
            next(lines)
            self._skip_blank_lines(lines)
        self._has_sep_line = said is not None
        if source.delimiter != AUTO:
            return source.delimiter
        if said is not None:
            return said[1]
        if not lines.waiting or is_usual(lines.waiting[0], self.usual, requested):
            return self.usual
        is_whole = lines.look_ahead(LOOK_AHEAD)
        sample = [*lines.waiting][: None if is_whole else -1] or [lines.waiting[0]]
        found = find_delimiters(sample, self.usual, requested)
        if len(found) > 1:
            marks = " and ".join(name_delimiter(mark, plural=True) for mark in found)
            options = " or ".join(source.delimiter_option + name_delimiter(mark) for mark in found)
            raise InputError(
                f"{source.name}: expected one delimiter, got lines that {marks} divide equally "
                f"well; set {options}"
            )
        return found[0] if found else self.usual

    @staticmethod
    def _skip_blank_lines(lines: Lines) -> None:
        """Those before the header; the line after them is read ahead, without marks before it."""
        lines.look_ahead(0)
        while lines.waiting and not isinstance(lines.waiting[0], Overlong):
            if skip_invisible(lines.waiting[0]):
                # Marks alone: a tab before them ends a first cell that is empty.
                lines.waiting[0] = lines.waiting[0].lstrip(BOM_CHARACTER)
                break
            next(lines)
            lines.look_ahead(0)

    def _check_delimiter(self, requested: Sequence[str]) -> None:
        (first, *others), mark = self._header, self.delimiter
        other = next((m for m in WORDS if m != mark and m in first), None)
        if not others and other is not None and first not in requested:
            raise InputError(
                f"{self.source.name}: expected cells separated by "
                f"{name_delimiter(mark, plural=True)}, got a header with "
                f"{name_delimiter(other, plural=True)}; if these separate the cells, set "
                f"{self.source.delimiter_option}{name_delimiter(other)}"
            )

    def _read(self) -> Iterator[FileRow]:
        header, number = self._header, 0
        is_tsv = self.delimiter in UNQUOTED
        has_quotes = not is_tsv or self._uses_quotes()
        rows = self._rows if has_quotes else LetterRows(self._lines, self.delimiter)
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
            if isinstance(taken[0], Overlong):
                yield FileRow("row", number, too_long())
                continue
            if is_tsv and '"' in taken[0]:
                (as_quotes if has_quotes and isinstance(row, list) else as_text).append(number)
                if isinstance(row, csv.Error):
                    row = split_letters(taken[0], self.delimiter)
            if isinstance(row, csv.Error):
                cells = RowProblem(QUOTES, describe_quotes(row))
            elif len(row or [""]) != len(header):
                expected = _describe_width(header)
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
        if number and self.source.delimiter == AUTO and self.delimiter != self.usual:
            marks = name_delimiter(self.delimiter, plural=True)
            option = self.source.delimiter_option.strip(" =")
            rule = f"read with {marks} between cells ({option}: auto)"
            self.notes.append(ReadNote("delimiter", (), rule))

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
            len(split_letters(line, self.delimiter)) == count for line in lines if line.strip()
        )

    def _uses_quotes(self) -> bool:
        if self.source.can_reopen:
            with ExitStack() as stack:
                again = open_bytes(self.source, ReadProgress(), stack)
                if not any(b'"' in block for block in iter(partial(again.read, 2**20), b"")):
                    return True
            with ExitStack() as stack:
                again = open_bytes(self.source, ReadProgress(), stack)
                text = bounded_text(decode_stream(again))
                lines = Lines(text)
                self._skip_blank_lines(lines)
                if self._has_sep_line:
                    next(lines)
                    self._skip_blank_lines(lines)
                rest = itertools.chain(lines.waiting, text)
                return uses_quotes(rest, self.delimiter, is_whole=True)
        is_whole = self._lines.look_ahead(LOOK_AHEAD)
        return uses_quotes(list(self._lines.waiting), self.delimiter, is_whole, len(self._header))


class CsvReader(DelimitedReader):
    usual = ","


class TsvReader(DelimitedReader):
    usual = "\t"


def _describe_width(header: Sequence[str]) -> str:
    """How many cells each row should have; of one, the header is shown, as it may be none."""
    if len(header) > 1:
        return f"{len(header)} cells in each row, as in the header"
    return (
        f"1 cell in each row, as in the header, '{header[0][:60]}' (where that is no name of a "
        "column, remove what comes before the names)"
    )
