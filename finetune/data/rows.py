"""Cells as they were read → `Rows`: the types checked, broken characters mended, places kept.

Texts are put aside as they come (`text_store.py`), so that rows may be more than memory holds.

What the user can mend raises `InputError` with every problem of the file or table at once.
"""

import json
import re
import string
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from finetune.data.label_cells import sets_of
from finetune.data.text_store import SURROGATES, Column, Store, Texts, replace_surrogates
from finetune.runtime.errors import InputError, closest_match, shorten

Label = str | int | bool
Labels = Label | tuple[Label, ...]  # of one row; a tuple where it may have several, or none
Item = TypeVar("Item")

BOM = b"\xef\xbb\xbf"
SHOWN = 3  # cells named in a message


@dataclass(frozen=True)
class Places(Sequence[str]):
    """Where each row stands, in words, made when asked for: of one name and a number, or a path."""

    name: str  # "train.csv", "fancyzhx/ag_news train"
    items: Sequence[int] | Sequence[str]
    unit: str = ""  # row or line; empty where the items are whole places already
    taken: NDArray[np.int64] | None = None  # which of the items; None: all (rows,)

    def __len__(self) -> int:
        return len(self.items if self.taken is None else self.taken)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self.place(i) for i in range(len(self))[at]]
        return self.place(at)

    def place(self, i: int) -> str:
        item = self._item(i)
        return f"{self.name}: {self.unit} {item}" if self.unit else str(item)

    def within(self, i: int) -> str:
        """The place where the file is known already: `row 12`."""
        item = self._item(i)
        return f"{self.unit} {item}" if self.unit else str(item)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> "Places":
        """The places of some of the rows, in the order given."""
        chosen = np.asarray(rows, dtype=np.int64)
        return replace(self, taken=chosen if self.taken is None else self.taken[chosen])

    def but(self, others: "Places") -> "Places":
        """Those that are not also among others of the same source."""
        if others.items is not self.items:
            return self
        own, known = (np.arange(len(p)) if p.taken is None else p.taken for p in (self, others))
        return self.take(np.flatnonzero(~np.isin(own, known)))

    def _item(self, i: int) -> int | str:
        return self.items[i if self.taken is None else int(self.taken[i])]


class Shards(Sequence[str]):
    """The whole places of the rows of several files, said when they are asked for."""

    def __init__(self, parts: Sequence[Places]) -> None:
        self._parts = parts
        self._ends = np.cumsum([len(part.items) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, i: Any) -> Any:
        part = int(np.searchsorted(self._ends, i, side="right"))
        return self._parts[part].place(int(i) - int(self._ends[part - 1] if part else 0))


class Likened(Sequence[str]):
    """Rows and what each is like, in words: `test.csv: row 3 ≈ train.csv: row 1 (0.92)`."""

    def __init__(self, ones: Places, others: Places, overlaps: NDArray[np.float64]) -> None:
        self._ones, self._others, self._overlaps = ones, others, overlaps

    def __len__(self) -> int:
        return len(self._ones)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(len(self))[at]]
        return f"{self._ones[at]} ≈ {self._others[at]} ({self._overlaps[at]:.2f})"


@dataclass(frozen=True)
class Rows:
    """One split as it stands in the source."""

    texts: Texts  # None where missing
    labels: list[Labels | None] | None  # None: the split has no label column at all
    places: Places
    damaged: list[int]  # rows whose bytes were not UTF-8, now with U+FFFD in their place
    label_names: tuple[str, ...] | None = None  # the data set's own names in its own order
    origin: str = ""  # "test.jsonl.gz", "fancyzhx/ag_news test"
    seconds: Texts | None = None  # the second text of each pair
    several: bool = False  # whether a row may have several labels: then each is a tuple

    def as_sets(self) -> "Rows":
        """The same rows, each with a tuple of labels."""
        if self.several or self.labels is None:
            return self
        sets = [None if label is None else (cast(Label, label),) for label in self.labels]
        return replace(self, labels=cast(list[Labels | None], sets), several=True)


class LabelColumn(list[Any]):
    """A column of labels while it is read: of all that are alike, one is kept."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def append(self, cell: Any) -> None:
        if isinstance(cell, str | int):
            cell = self._known.setdefault((type(cell), cell), cell)  # 1 is True, and another label
        super().append(cell)


@dataclass(frozen=True)
class ColumnSpec:
    """The columns to read, and whether the split is of use without the label."""

    text: tuple[str, ...]  # data.text, or those of data.template
    label: str | tuple[str, ...]  # data.label; several: each is a label, its cells say yes or no
    needs_label: bool = False
    second: str | None = None  # data.text_pair
    template: str | None = None  # data.template
    separator: str | None = None  # data.label_separator
    store: Store = field(default_factory=Store, compare=False)  # where the texts go

    def cells(self, found: Sequence[str]) -> "Cells":
        """Empty columns for those that are wanted and that there are."""
        return {
            name: Column(self.store) if name in self.texts() else LabelColumn()
            for name in self.columns()
            if name in found
        }

    def texts(self) -> tuple[str, ...]:
        """The columns that hold text."""
        return self.text if self.second is None else (*self.text, self.second)

    def labels(self) -> tuple[str, ...]:
        """The columns that hold labels."""
        return (self.label,) if isinstance(self.label, str) else self.label

    def columns(self) -> tuple[str, ...]:
        return (*self.texts(), *self.labels())

    def asked(self) -> list[tuple[str, str]]:
        """Each column that there must be, after the key of the recipe which asks for it."""
        of_text = "data.text" if self.template is None else "data.template"
        asked = [(of_text, column) for column in self.text]
        if self.second is not None:
            asked.append(("data.text_pair", self.second))
        if self.needs_label:
            asked += [("data.label", column) for column in self.labels()]
        return asked

    def joined(self, cells: Sequence[str | None]) -> str | None:
        """The cells of the text columns as one document; None where all are missing.

        Where one of several is missing, the document goes without.
        """
        if all(cell is None for cell in cells):
            return None
        if self.template is None:
            return cells[0] if len(cells) == 1 else "\n\n".join(cell for cell in cells if cell)
        if not any(cell and cell.strip() for cell in cells):
            return ""  # not the template's own words
        by_name = dict(zip(self.text, cells, strict=True))
        parts = string.Formatter().parse(self.template)
        return "".join(
            before + (by_name[name] or "" if name is not None else "")
            for before, name, _, _ in parts
        )


Cells = dict[str, Column | LabelColumn]


def natural_order(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """Sort key: "2" before "10", small and capital letters alike, then exactly."""
    parts: list[str | tuple[int, str]] = []
    for i, part in enumerate(re.split(r"([0-9]+)", name.lower())):
        digits = part.lstrip("0")
        # Length, then digits: the order of the numbers, without int()'s limit of 4,300 digits.
        parts.append((len(digits), digits) if i % 2 else part)
    return parts, name


def table_rows(
    tables: Iterable[Any],
    columns: Sequence[str],
    where: str,
    name: str,
    wanted: ColumnSpec,
    label_names: tuple[str, ...] | None = None,
) -> Rows:
    """The rows of a table; with label names, -1 (the Hub's "no label") becomes None.

    Args:
        tables: parts of it, as `pyarrow.Table` or `pyarrow.RecordBatch`.
        columns: their names.
    """
    check_columns(where, columns, wanted)
    cells = wanted.cells(columns)
    for table in tables:
        for column, into in cells.items():
            no_label = label_names is not None and column == wanted.labels()[0]
            for value in column_values(table.column(column)):
                into.append(None if no_label and value == -1 else value)
    rows = len(cells[wanted.text[0]])
    return rows_of(where, Places(name, range(1, rows + 1), "row"), cells, wanted, label_names)


def rows_of(
    where: str,
    places: Places,
    cells: Cells,
    wanted: ColumnSpec,
    label_names: tuple[str, ...] | None = None,
) -> Rows:
    """Check the types of the cells, and remember which rows were not UTF-8.

    Args:
        cells: those of each column, as of `Wanted.cells`; the label's may be missing.
    """
    if not cells[wanted.text[0]]:
        raise InputError(f"{where}: no rows")
    texts = {name: column for name, column in cells.items() if isinstance(column, Column)}
    problems = []
    labels: list[Any] | None = None
    if cells.keys() >= {*wanted.labels()}:
        columns = [cast(list[Any], cells[column]) for column in wanted.labels()]
        one = isinstance(wanted.label, str)
        labels = columns[0] if one else list(zip(*columns, strict=True))
    several = wanted.separator is not None or not isinstance(wanted.label, str)
    several = labels is not None and (several or any(isinstance(cell, list) for cell in labels))
    said: list[str] = []
    if several:
        labels, said = sets_of(labels or [], wanted.label, wanted.separator, places.within)
    kinds = (str, int, bool, type(None), *[tuple] * several)
    wrong = [
        (f"'{column}' ({key}): expected text", texts[column].odd)
        for key, column in wanted.asked()
        if key != "data.label"
    ]
    wrong.append((
        f"'{wanted.label}' (data.label): expected a label, as text, a whole number or true or "
        "false, or a list of labels",
        [(i, label) for i, label in enumerate(labels or ()) if type(label) not in kinds],
    ))  # fmt: skip
    for message, odd in wrong:
        if odd:
            found = [f"{describe_value(value)} at {places.within(i)}" for i, value in odd]
            problems.append(f"{where}: {message}, got {shorten(found, SHOWN)}")
    problems += [f"{where}: {problem}" for problem in said]
    if problems:
        raise InputError(problems)
    damaged = {i for column in texts.values() for i in column.damaged}
    if labels is not None:
        labels = _mended(labels, damaged.add)
        for i, label in enumerate(labels if several else ()):
            labels[i] = label and tuple(_mended(label, lambda _, i=i: damaged.add(i)))  # type: ignore[misc]
    text = _joined([texts[column] for column in wanted.text], wanted)
    second = None if wanted.second is None else texts[wanted.second].texts()
    return Rows(text, labels, places, sorted(damaged), label_names, places.name, second, several)


def _mended(values: Sequence[Item], mark: Callable[[int], None]) -> list[Item]:
    """Put U+FFFD where bytes were not UTF-8 or a \\u escape is half a pair; mark those rows."""
    mended = list(values)
    for i, value in enumerate(values):
        if isinstance(value, str) and not value.isascii() and SURROGATES.search(value):
            mark(i)
            mended[i] = cast(Item, replace_surrogates(value))
    return mended


def _joined(columns: Sequence[Column], wanted: ColumnSpec) -> Texts:
    """The documents that the text columns make."""
    first, *others = [column.texts() for column in columns]
    if not others and wanted.template is None:
        return first
    joined = Column(wanted.store)
    for row in zip(first, *others, strict=True):
        joined.add(wanted.joined(row))
    return joined.texts()


def check_columns(
    where: str, found: Sequence[str], wanted: ColumnSpec, if_no_header: str = ""
) -> None:
    problems = []
    asked = wanted.asked()
    if not wanted.needs_label and {*wanted.labels()} & {*found}:  # some of several: not without all
        asked += [("data.label", column) for column in wanted.labels()]
    for key, column in asked:
        if column in found:
            continue
        guess = closest_match(column, found)
        names = shorten([f"'{clip(name)}'" for name in found], 10)
        hint = f"; did you mean '{guess}'?" if guess is not None else ""
        # A header that holds one of the columns is a header.
        nothing = guess is None and not {*wanted.columns()} & set(found)
        tail = if_no_header if nothing else ""
        problems.append(f"{where}: no column '{column}' ({key}){hint} (columns: {names}){tail}")
    if problems:
        raise InputError(problems)


def column_values(column: Any) -> list[Any]:
    """An Arrow column as Python values; strings by their bytes, which need not be UTF-8."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    textual = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_large_binary,
    )
    if any(is_kind(kind) for is_kind in textual):
        cells = column.cast(pa.large_binary()).to_pylist()
        return [None if cell is None else cell.decode("utf-8", "surrogateescape") for cell in cells]
    return cast(list[Any], column.to_pylist())


def decode(content: bytes) -> str:
    return content.removeprefix(BOM).decode("utf-8", "surrogateescape")


def describe_value(value: object) -> str:
    match value:
        case list() | tuple():
            return f"a list {clip(json.dumps(value, default=str))}"
        case dict():
            return f"an object {clip(json.dumps(value, default=str))}"
    return clip(repr(value))


def clip(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
