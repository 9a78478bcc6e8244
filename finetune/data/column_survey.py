"""A file's columns at a glance: what each holds, how much of it, and how often it repeats.

    for column in survey_columns(find_train_tables(schema.Data(source="tickets.csv"))):
        print(column.name, column.distinct, column.words)

All rows are read, through the readers that training uses: a file may be sorted by its labels, so
that its first thousand rows would have only one.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune.config import schema
from finetune.data import hub_data_sets, local_paths
from finetune.data.folders import Documents, read_layout
from finetune.data.formats.file_row import RowProblem
from finetune.data.formats.registry import (
    FORMATS,
    explain_ending,
    kind_of,
    open_rows,
    peek_columns,
    suffix_of,
)
from finetune.data.formats.source import DataSource
from finetune.data.label_lists import looks_like_list, parse_list
from finetune.data.read_rows import describe_table
from finetune.data.sources import assign_roles
from finetune.data.text_store import add_broken_bytes, is_broken
from finetune.runtime.errors import InputError

MOST_VALUES = 10_000  # different values that are counted; a column with more holds no labels
LONGEST_VALUE = 200  # characters of a value that is counted
KINDS: dict[type, str] = {
    str: "text",
    bool: "true or false",
    int: "whole numbers",
    float: "numbers",
    list: "lists",
}
NUMBER = re.compile(r"[-+]?\d+")
DECIMAL = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+)([eE][-+]?\d+)?")
# Dates, times, links and mail addresses: text that no document consists of.
NO_DOCUMENT = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ]\d.*)?|\d{1,2}:\d{2}.*|https?://\S+|\S+@\S+\.\w+"
)


@dataclass
class ColumnSurvey:
    """What is in a column.

    Attributes:
        name: the column's.
        rows: of the file.
        filled: rows with a value: not missing, and not only white space.
        kinds: the types of the values, as of `KINDS`; "objects" for all others.
        counts: value → rows that have it; of lists, each member by itself. Long values are left
            out.
        overflowed: whether there were more values than are counted.
        all_words, all_characters: of all values that are text, together.
        plain: the rows whose text is no number, date, link or mail address.
        whole, decimals: the rows whose text is a whole number, or any number.
        broken: a sample of what is not UTF-8: of the name, and of the rows' texts.
        beyond_ascii: texts that are UTF-8 and not ASCII.
    """

    name: str
    rows: int = 0
    filled: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    counts: Counter[Any] = field(default_factory=Counter)
    overflowed: bool = False
    all_words: int = 0
    all_characters: int = 0
    plain: int = 0
    whole: int = 0
    decimals: int = 0
    broken: list[bytes] = field(default_factory=list)
    beyond_ascii: int = 0

    def __post_init__(self) -> None:
        self._note_encoding(self.name)

    @property
    def distinct(self) -> int:
        """The number of different values, as far as they were counted."""
        return len(self.counts)

    @property
    def missing(self) -> float:
        """The share of rows without a value."""
        return 1 - self.filled / max(1, self.rows)

    @property
    def words(self) -> float:
        """Words of a value, on average."""
        return self.all_words / max(1, self.kinds["text"])

    @property
    def is_text(self) -> bool:
        """Whether all values are text that is mostly no number, date, link or mail address."""
        return set(self.kinds) == {"text"} and 2 * self.plain > self.filled

    @property
    def kind(self) -> str:
        """The type of the values, in a word; a text file's numbers are numbers."""
        if len(self.kinds) != 1:
            return "mixed" if self.kinds else "empty"
        (kind,) = self.kinds
        if kind == "text" and self.whole == self.filled:
            return "whole numbers"
        return "numbers" if kind == "text" and self.decimals == self.filled else kind

    @property
    def holds_whole_floats(self) -> bool:
        """Whether a text file's values are all such as 1.0, as pandas writes whole numbers of a
        column in which one is missing."""
        is_text = set(self.kinds) == {"text"} and not self.overflowed
        return is_text and all(str(value).endswith(".0") for value in self.counts)

    def add(self, cell: Any) -> None:
        """The next row's cell."""
        self.rows += 1
        if cell is None or (isinstance(cell, str) and not cell.strip()):
            return
        self.filled += 1
        self.kinds[KINDS.get(type(cell), "objects")] += 1
        if isinstance(cell, str):
            self._add_text(cell.strip())
        elif isinstance(cell, list):
            for value in cell:
                self._count(value)
        else:
            self._count(cell)

    def _note_encoding(self, text: str) -> None:
        if is_broken(text):
            add_broken_bytes(self.broken, text)
        else:
            self.beyond_ascii += not text.isascii()

    def _add_text(self, text: str) -> None:
        self._note_encoding(text)
        self.all_words += len(text.split())
        self.all_characters += len(text)
        self.whole += NUMBER.fullmatch(text) is not None
        is_number = DECIMAL.fullmatch(text) is not None
        self.decimals += is_number
        self.plain += not is_number and NO_DOCUMENT.fullmatch(text) is None
        self._count(text)

    def _count(self, value: Any) -> None:
        if isinstance(value, (list, dict)) or (
            isinstance(value, str) and len(value) > LONGEST_VALUE
        ):
            self.overflowed |= isinstance(value, str)
            return
        if value in self.counts or len(self.counts) < MOST_VALUES:
            self.counts[value] += 1
        else:
            self.overflowed = True


def find_train_tables(data: schema.Data) -> list[DataSource]:
    """The files or tables whose columns are those of train; none where folders name the labels.

    Raises:
        InputError: where there is no such source.
    """
    path = local_paths.resolve_local_path(data.source)
    if path is None or (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        tables = (
            hub_data_sets.hub_tables(data) if path is None else hub_data_sets.saved_tables(path)
        )
        train = assign_roles(tables, data).train
        return [DataSource(f"{data.source} {train}", "table", table=tables[train])]
    files = [path]
    if path.is_dir():
        splits = read_layout(path, named={data.train, data.validation, data.test}).splits
        found = splits[assign_roles(splits, data).train]
        files = [] if isinstance(found, Documents) else [*found.paths]
    if unknown := [explain_ending(file) for file in files if not suffix_of(file)]:
        raise InputError(unknown)
    return [
        DataSource(
            str(file),
            kind_of(file, data.delimiter),
            path=file,
            encoding=data.encoding,
            delimiter=data.delimiter,
        )
        for file in files
    ]


def survey_columns(sources: Sequence[DataSource]) -> list[ColumnSurvey]:
    """The columns of a file, or of several that are one split, in their order.

    Raises:
        InputError: for a file that cannot be read, or has no columns, and for each row of it that
            cannot be read.
    """
    columns: dict[str, ColumnSurvey] = {}
    problems: list[str] = []
    rows = 0
    for source in sources:
        names = peek_columns(source)
        if names is None and not FORMATS[source.kind].has_columns:
            with open_rows(source) as reader:
                raise InputError(
                    f"{source.name}: {describe_table(reader)}expected rows with named columns, "
                    "found none; a .txt file "
                    "carries no labels: make a csv file, or a folder with a sub-folder of .txt "
                    "files per label"
                )
        names = names or []  # of JSON in which no row can be read: each is told below
        require_header(source.name, names)
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise InputError(
                f"{source.name}: {names.count(name)} columns are called '{name}'; rename one"
                for name in twice
            )
        with open_rows(source, names) as reader:
            for unit, number, cells in reader.rows():
                if isinstance(cells, RowProblem):
                    place = f"{source.name}: {unit} {number}"
                    problems.append(f"{place}: expected {cells.expected}, got {cells.got}")
                    continue
                assert not isinstance(cells, str)
                for name, cell in cells.items():
                    if name not in columns:
                        columns[name] = ColumnSurvey(name, rows=rows)
                    columns[name].add(cell)
                rows += 1
    if problems:
        more = len(problems) - 5
        raise InputError([*problems[:5], *[f"and {more:,} more rows like these"] * (more > 0)])
    if not rows:
        raise InputError(f"{sources[0].name}: no rows")
    for column in columns.values():
        column.rows = rows  # those of JSON may lack a key
    return [*columns.values()]


def require_header(where: str, names: Sequence[str]) -> None:
    """
    Raises:
        InputError: where what should be the names of the columns looks like a row.
    """
    longest = max(names, key=lambda name: len(name.split()), default="")
    if len(longest.split()) > 8:
        raise InputError(
            f"{where}: the first line should name the columns, and looks like a row of data: "
            f"'{longest[:60]}…'; write a line such as text,label above it"
        )


def binary_columns(columns: Iterable[ColumnSurvey]) -> list[ColumnSurvey]:
    """Those whose every value is 0 or 1, or true or false: each may be a label by itself."""
    words = {"0", "1", "true", "false"}
    return [
        column
        for column in columns
        if column.filled == column.rows
        and column.distinct
        and {str(value).lower() for value in column.counts} <= words
    ]


def holds_text_lists(column: ColumnSurvey) -> bool:
    """Whether every cell is a list that is written as text, and items of them repeat.

    Training stops at these without `data.label_lists`.
    """
    if set(column.kinds) != {"text"} or column.overflowed:
        return False
    cells = {str(cell): count for cell, count in column.counts.items()}
    if not all(map(looks_like_list, cells)):
        return False
    rows_of: Counter[str] = Counter()
    for cell, count in cells.items():
        for item in set(map(str, parse_list(cell) or ())):
            rows_of[item] += count
    return len(rows_of) > 1 and 2 * len(rows_of) <= rows_of.total()


def find_separator(column: ColumnSurvey) -> str | None:
    """What separates several labels in a cell: `;`, `|`, `,` or `/`; None where nothing does.

    Where cells hold several labels, there are fewer labels than different cells, and most of what a
    separator gives comes in more than one of these; 'Arts, Crafts' beside 'Sports' is a name. The
    commas of lists that are written as text are no separators.
    """
    if set(column.kinds) != {"text"} or column.overflowed or holds_text_lists(column):
        return None
    cells = [str(value) for value in column.counts]
    for mark in (";", "|", ",", "/"):
        parts = [[part.strip() for part in cell.split(mark) if part.strip()] for cell in cells]
        joined = [names for names in parts if len(names) > 1]
        if not joined:
            continue
        where = Counter(itertools.chain.from_iterable(map(set, parts)))
        shared = sum(where[name] > 1 for name in set(itertools.chain.from_iterable(joined)))
        distinct_joined = len(set(itertools.chain.from_iterable(joined)))
        if len(where) < len(cells) and 2 * shared > distinct_joined and len(where) > 1:
            return mark
    return None
