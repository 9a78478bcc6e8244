"""What separates the cells of a file: what its name says, unless its lines show otherwise.

    find_delimiters(["text;label\\n", "Hello, you;greeting\\n"], ",", ["text"])    # [";"]

Programs write semicolons into .csv files where a comma is the decimal mark, and tabs or pipes into
files of any name. A file that reads well as its name says is read so: its lines are asked only
where the header lacks every column that is wanted.
"""

import csv
import re
from collections.abc import Sequence

from finetune.data.formats.quoting import Lines, QuotedRows, split_letters

WORDS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
UNQUOTED = "\t|"  # of files with these, some have no quotes
FITTING = 0.9  # the least share of rows that have as many cells as the header
# The first line of what Excel is to read with another delimiter than its own.
SEP_LINE = re.compile(r"sep=(.)\r?\n?", re.IGNORECASE)


def name_delimiter(mark: str, plural: bool = False) -> str:
    """`semicolon` or `semicolons`; a rarer one is its own name."""
    if mark not in WORDS:
        return repr(mark) if plural else mark
    return WORDS[mark] + "s" * plural


def is_usual(first: str, usual: str, requested: Sequence[str]) -> bool:
    """Whether a header, read with the usual delimiter, has one of the columns that are wanted."""
    return not {*requested}.isdisjoint(_header([first], usual))


def find_delimiters(lines: Sequence[str], usual: str, requested: Sequence[str]) -> list[str]:
    """The delimiters that fit the lines equally well; none where no other is better than the usual.

    One fits where it divides the header, and nearly all rows into as many cells. Of several, those
    are left that give most of the columns that are wanted.

    Args:
        lines: the header, and those behind it; the last one is whole.
        usual: what the file's name says.
        requested: the columns that are wanted; empty: not known yet.
    """
    own = _header(lines, usual)
    if not requested and len(own) > 1 and _share(lines, usual, len(own)) >= FITTING:
        return []
    found: dict[str, int] = {}
    for mark in WORDS:
        header = _header(lines, mark)
        if mark == usual or len(header) < 2 or _share(lines, mark, len(header)) < FITTING:
            continue
        found[mark] = len({*requested} & {*header})
    most = max(found.values(), default=0)
    if requested and len(own) > 1 and not most:  # its columns have other names
        return []
    return [mark for mark, count in found.items() if count == most]


def dividing_alike(lines: Sequence[str]) -> list[str]:
    """The delimiters that divide all these lines into as many cells: they may be a table."""
    return [
        mark
        for mark in WORDS
        if len(lines) > 2
        and (cells := len(_header(lines, mark))) > 1
        and _share(lines, mark, cells) == 1
    ]


def _header(lines: Sequence[str], mark: str) -> list[str]:
    row = QuotedRows(Lines(lines), mark).next_row()
    if isinstance(row, csv.Error):
        row = split_letters(lines[0], mark) if mark in UNQUOTED else []
    return [cell.strip() for cell in row or ()]


def _share(lines: Sequence[str], mark: str, cells: int) -> float:
    """The share of the rows behind the header that have so many cells."""
    of = Lines(lines)
    rows = QuotedRows(of, mark)
    rows.next_row()
    count = fitting = 0
    while (row := rows.next_row()) is not None:
        if isinstance(row, csv.Error):
            row = split_letters(of.taken[0], mark) if mark in UNQUOTED else []
        elif not row:
            continue  # a blank line
        count += 1
        fitting += len(row) == cells
    return fitting / count if count else 1.0
