"""Cells as they were read → `Rows`: the types checked, broken characters mended, places kept.

What the user can mend raises `InputError` with every problem of the file or table at once.
"""

import json
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from finetune.problems import InputError, nearest, some
from finetune.several import sets_of

Label = str | int | bool
Labels = Label | tuple[Label, ...]  # of one row; a tuple where it may have several, or none
Item = TypeVar("Item")

SURROGATES = re.compile("[\ud800-\udfff]")
BOM = b"\xef\xbb\xbf"
SHOWN = 3  # cells named in a message


@dataclass(frozen=True)
class Places:
    """Row index → where that row stands: one name and a number per row, or a path per row."""

    name: str  # "train.csv", "fancyzhx/ag_news train"
    items: Sequence[int] | Sequence[str]  # (rows,)
    unit: str = ""  # row or line; empty where the items are whole places already

    def place(self, i: int) -> str:
        item = self.items[i]
        return f"{self.name}: {self.unit} {item}" if self.unit else str(item)

    def within(self, i: int) -> str:
        """The place where the file is known already: `row 12`."""
        return f"{self.unit} {self.items[i]}" if self.unit else str(self.items[i])

    def take(self, rows: Sequence[int]) -> "Places":
        """The places of some of the rows, in the order given."""
        return Places(self.name, cast(Sequence[int], [self.items[i] for i in rows]), self.unit)


@dataclass(frozen=True)
class Rows:
    """One split as it stands in the source."""

    texts: list[str | None]  # None where missing
    labels: list[Labels | None] | None  # None: the split has no label column at all
    places: Places
    damaged: list[int]  # rows whose bytes were not UTF-8, now with U+FFFD in their place
    label_names: tuple[str, ...] | None = None  # the data set's own names in its own order
    origin: str = ""  # "test.jsonl.gz", "fancyzhx/ag_news test"
    seconds: list[str | None] | None = None  # the second text of each pair
    several: bool = False  # whether a row may have several labels: then each is a tuple

    def as_sets(self) -> "Rows":
        """The same rows, each with a tuple of labels."""
        if self.several or self.labels is None:
            return self
        sets = [None if label is None else (cast(Label, label),) for label in self.labels]
        return replace(self, labels=cast(list[Labels | None], sets), several=True)


@dataclass(frozen=True)
class Wanted:
    """The columns to read, and whether the split is of use without the label."""

    text: tuple[str, ...]  # data.text, or those of data.template
    label: str | tuple[str, ...]  # data.label; several: each is a label, its cells say yes or no
    needs_label: bool = False
    second: str | None = None  # data.text_pair
    template: str | None = None  # data.template
    separator: str | None = None  # data.label_separator

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
        by_name = dict(zip(self.text, cells, strict=True))
        parts = string.Formatter().parse(self.template)
        return "".join(
            before + (by_name[name] or "" if name is not None else "")
            for before, name, _, _ in parts
        )


def natural(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """Sort key: "2" before "10", small and capital letters alike, then exactly."""
    parts: list[str | tuple[int, str]] = []
    for i, part in enumerate(re.split(r"([0-9]+)", name.lower())):
        digits = part.lstrip("0")
        # Length, then digits: the order of the numbers, without int()'s limit of 4,300 digits.
        parts.append((len(digits), digits) if i % 2 else part)
    return parts, name


def table_rows(
    table: Any,
    where: str,
    name: str,
    wanted: Wanted,
    label_names: tuple[str, ...] | None = None,
) -> Rows:
    """The rows of a `pyarrow.Table`; with label names, -1 (the Hub's "no label") becomes None."""
    check_columns(where, table.column_names, wanted)
    cells = {
        column: values_of(table.column(column))
        for column in wanted.columns()
        if column in table.column_names
    }
    if label_names is not None and (label := wanted.labels()[0]) in cells:
        cells[label] = [None if value == -1 else value for value in cells[label]]
    places = Places(name, range(1, table.num_rows + 1), "row")
    return rows_of(where, places, cells, wanted, label_names)


def rows_of(
    where: str,
    places: Places,
    cells: Mapping[str, list[Any]],
    wanted: Wanted,
    label_names: tuple[str, ...] | None = None,
) -> Rows:
    """Check the types of the cells, mend what was not UTF-8, and remember which rows it was.

    Args:
        cells: those of each column, as of `Wanted.columns`; the label's may be missing.
    """
    if not cells[wanted.text[0]]:
        raise InputError(f"{where}: no rows")
    problems = []
    labels: list[Any] | None = None
    if cells.keys() >= {*wanted.labels()}:
        columns = [cells[column] for column in wanted.labels()]
        one = isinstance(wanted.label, str)
        labels = columns[0] if one else list(zip(*columns, strict=True))
    several = wanted.separator is not None or not isinstance(wanted.label, str)
    several = labels is not None and (several or any(isinstance(cell, list) for cell in labels))
    said: list[str] = []
    if several:
        labels, said = sets_of(labels or [], wanted.label, wanted.separator, places.within)
    of_text = [(column, key) for key, column in wanted.asked() if key != "data.label"]
    for kinds, values, message in (
        *(((str,), cells[column], f"'{column}' ({key}): expected text") for column, key in of_text),
        ((str, int, bool, *[tuple] * several), labels or [], f"'{wanted.label}' (data.label): "
         "expected a label, as text, a whole number or true or false, or a list of labels"),
    ):  # fmt: skip
        wrong = set(map(type, values)) - {*kinds, type(None)}
        if wrong:
            found = [
                f"{found_value(value)} at {places.within(i)}"
                for i, value in enumerate(values)
                if type(value) in wrong
            ]
            problems.append(f"{where}: {message}, got {some(found, SHOWN)}")
    problems += [f"{where}: {problem}" for problem in said]
    if problems:
        raise InputError(problems)
    damaged: set[int] = set()
    parts = [_mended(cells[column], damaged.add) for column in wanted.text]
    texts = [wanted.joined(row) for row in zip(*parts, strict=True)]
    seconds = None if wanted.second is None else _mended(cells[wanted.second], damaged.add)
    if labels is not None:
        labels = _mended(labels, damaged.add)
        for i, label in enumerate(labels if several else ()):
            labels[i] = label and tuple(_mended(label, lambda _, i=i: damaged.add(i)))  # type: ignore[misc]
    return Rows(texts, labels, places, sorted(damaged), label_names, places.name, seconds, several)


def _mended(values: Sequence[Item], mark: Callable[[int], None]) -> list[Item]:
    """Put U+FFFD where bytes were not UTF-8 or a \\u escape is half a pair; mark those rows."""
    mended = list(values)
    for i, value in enumerate(values):
        if isinstance(value, str) and not value.isascii() and SURROGATES.search(value):
            mark(i)
            mended[i] = cast(Item, mend(value))
    return mended


def mend(text: str) -> str:
    try:
        # Back to the bytes first: one U+FFFD for each broken character, not for each of its bytes.
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return SURROGATES.sub("\ufffd", text)


def check_columns(where: str, found: Sequence[str], wanted: Wanted, if_no_header: str = "") -> None:
    problems = []
    asked = wanted.asked()
    if not wanted.needs_label and {*wanted.labels()} & {*found}:  # some of several: not without all
        asked += [("data.label", column) for column in wanted.labels()]
    for key, column in asked:
        if column in found:
            continue
        guess = nearest(column, found)
        names = some([f"'{clip(name)}'" for name in found], 10)
        hint = f"; did you mean '{guess}'?" if guess is not None else ""
        # A header that holds one of the columns is a header.
        nothing = guess is None and not {*wanted.columns()} & set(found)
        tail = if_no_header if nothing else ""
        problems.append(f"{where}: no column '{column}' ({key}){hint} (columns: {names}){tail}")
    if problems:
        raise InputError(problems)


def values_of(column: Any) -> list[Any]:
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


def found_value(value: object) -> str:
    match value:
        case list() | tuple():
            return f"a list {clip(json.dumps(value, default=str))}"
        case dict():
            return f"an object {clip(json.dumps(value, default=str))}"
    return clip(repr(value))


def clip(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
