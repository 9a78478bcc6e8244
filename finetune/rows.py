"""Cells as they were read → `Rows`: the types checked, broken characters mended, places kept.

What the user can mend raises `InputError` with every problem of the file or table at once.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from finetune.problems import InputError, nearest, some

Label = str | int | bool
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
    labels: list[Label | None] | None  # None: the split has no label column at all
    places: Places
    damaged: list[int]  # rows whose bytes were not UTF-8, now with U+FFFD in their place
    label_names: tuple[str, ...] | None = None  # the data set's own names in its own order
    origin: str = ""  # "test.jsonl.gz", "fancyzhx/ag_news test"


@dataclass(frozen=True)
class Wanted:
    """The two columns to read, and whether the split is of use without the second."""

    text: str  # data.text
    label: str  # data.label
    needs_label: bool = False


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
    texts = _values(table.column(wanted.text))
    labels = _values(table.column(wanted.label)) if wanted.label in table.column_names else None
    if label_names is not None and labels is not None:
        labels = [None if value == -1 else value for value in labels]
    places = Places(name, range(1, len(texts) + 1), "row")
    return rows_of(where, places, texts, labels, wanted, label_names)


def rows_of(
    where: str,
    places: Places,
    texts: list[Any],
    labels: list[Any] | None,
    wanted: Wanted,
    label_names: tuple[str, ...] | None = None,
) -> Rows:
    """Check the types of the cells, mend what was not UTF-8, and remember which rows it was."""
    if not texts:
        raise InputError(f"{where}: no rows")
    problems = []
    for kinds, values, message in (
        ((str,), texts, f"'{wanted.text}' (data.text): expected text"),
        ((str, int, bool), labels or [], f"'{wanted.label}' (data.label): expected one label per "
         "row, as text, a whole number or true or false"),
    ):  # fmt: skip
        wrong = set(map(type, values)) - {*kinds, type(None)}
        if wrong:
            found = [
                f"{found_value(value)} at {places.within(i)}"
                for i, value in enumerate(values)
                if type(value) in wrong
            ]
            several = "; several labels per row are not supported yet" if list in wrong else ""
            problems.append(f"{where}: {message}, got {some(found, SHOWN)}{several}")
    if problems:
        raise InputError(problems)
    damaged: set[int] = set()
    texts = _mended(texts, damaged.add)
    labels = None if labels is None else _mended(labels, damaged.add)
    return Rows(texts, labels, places, sorted(damaged), label_names, places.name)


def _mended(values: list[Item], mark: Callable[[int], None]) -> list[Item]:
    """Put U+FFFD where bytes were not UTF-8 or a \\u escape is half a pair; mark those rows."""
    mended = list(values)
    for i, value in enumerate(values):
        if isinstance(value, str) and not value.isascii() and SURROGATES.search(value):
            mark(i)
            mended[i] = cast(Item, _mend(value))
    return mended


def _mend(text: str) -> str:
    try:
        # Back to the bytes first: one U+FFFD for each broken character, not for each of its bytes.
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return SURROGATES.sub("\ufffd", text)


def check_columns(where: str, found: Sequence[str], wanted: Wanted, if_no_header: str = "") -> None:
    problems = []
    keys = [("data.text", wanted.text)]
    if wanted.needs_label:
        keys.append(("data.label", wanted.label))
    for key, column in keys:
        if column in found:
            continue
        guess = nearest(column, found)
        names = some([f"'{clip(name)}'" for name in found], 10)
        hint = f"; did you mean '{guess}'?" if guess is not None else ""
        # A header that holds one of the columns is a header.
        nothing = guess is None and not {wanted.text, wanted.label} & set(found)
        tail = if_no_header if nothing else ""
        problems.append(f"{where}: no column '{column}' ({key}){hint} (columns: {names}){tail}")
    if problems:
        raise InputError(problems)


def _values(column: Any) -> list[Any]:
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
