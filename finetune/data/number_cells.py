"""Cells of a column of numbers → the numbers, and their names, by which equal ones are known."""

import decimal
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.cells import describe_value
from finetune.data.label_space import NamedLabels
from finetune.data.number_scale import MOST, bin_numbers
from finetune.data.rows import Rows
from finetune.runtime.errors import InputError, shorten

NO_NUMBER = "no finite number"
SHOWN = 5  # cells named in a message
MISSING = {"", "nan", "na", "n/a", "null", "none"}  # as tables write what is not there
THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?")  # 1,234 and 1,234,567.8
DECIMAL_COMMA = re.compile(r"[+-]?(\d+|[1-9]\d{0,2}(\.\d{3})+),\d+")  # 3,5 and 1.234,5


def read_number(cell: Any) -> float | None:
    """A cell's number; None where it is missing.

    Raises:
        ValueError: where it is no finite number, or one beyond `MOST`.
    """
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in MISSING):
        return None
    if isinstance(cell, bool) or not isinstance(cell, int | float | decimal.Decimal | str):
        raise ValueError(NO_NUMBER)
    if isinstance(cell, str) and "_" in cell:  # which Python alone takes
        raise ValueError(NO_NUMBER)
    try:
        value = float(cell)
    except (OverflowError, ValueError):
        raise ValueError(NO_NUMBER) from None
    if math.isnan(value) and not isinstance(cell, str):
        return None
    if not abs(value) <= MOST:
        raise ValueError(NO_NUMBER)
    return value + 0.0  # no -0.0


def name_numbers(
    splits: Mapping[str, Rows], column: str, key: str = "data.label"
) -> tuple[tuple[str, ...], dict[str, NamedLabels]]:
    """The numbers of every split by name, and the column's, which stands for the label space.

    Args:
        splits: role → rows, each with labels.
        key: what names the column, for messages.

    Raises:
        InputError: with the cells of every split that are no numbers.
    """
    problems, named = [], {}
    for role, rows in splits.items():
        names: list[str | None] = []
        wrong: list[str] = []
        cells: list[Any] = []  # that are wrong
        for i, found in enumerate(rows.labels or ()):
            cell = _look_up(found, rows.label_names)
            try:
                value = read_number(cell)
            except ValueError:
                names.append(None)
                wrong.append(f"{_show(cell)} at {rows.places.place(i)}")
                cells.append(cell)
                continue
            names.append(None if value is None else repr(value))
        if wrong:
            problems.append(
                f"{role}: '{column}' ({key}): expected numbers, got {shorten(wrong, SHOWN)}"
                f"{_suggest(cells)}"
            )
        named[role] = NamedLabels(names, [])
    if problems:
        raise InputError(problems)
    return (column,), named


def bins_by_name(names: list[Any]) -> dict[str, int]:
    """Each number's group, by its name, for splits that have the same share of every group.

    Args:
        names: of train's rows; None where missing.
    """
    there = [name for name in names if name is not None]
    numbers = np.array([float(name) for name in there])
    return dict(zip(there, bin_numbers(numbers).tolist(), strict=True)) if there else {}


def numbers_of(distinct: list[Any], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """The numbers of rows.

    Args:
        distinct: their names.
        codes: which of them each row has. (rows,)
    """
    values = np.array([math.nan if name is None else float(name) for name in distinct])
    found: NDArray[np.float64] = values[codes]
    return found


def _show(cell: Any) -> str:
    return repr(cell[:40]) if isinstance(cell, str) else describe_value(cell)


def _look_up(cell: Any, names: Sequence[str] | None) -> Any:
    """What a cell says: of a column of named labels its name, and not its place among them."""
    is_place = names is not None and type(cell) is int and 0 <= cell < len(names)
    return names[cell] if names is not None and is_place else cell


def _suggest(cells: Sequence[Any]) -> str:
    """What to do about cells that are no numbers; nothing where it is not plain."""
    words = [cell.strip() if isinstance(cell, str) else "" for cell in cells]
    if all(map(THOUSANDS.fullmatch, words)):
        if any(word.count(",") > 1 or "." in word for word in words):
            return "; leave out the commas between thousands"
        one = words[0]
        return (
            f"; write {one} as {one.replace(',', '')} where commas are between thousands, and as "
            f"{one.replace(',', '.')} where they begin the decimals"
        )
    if all(map(DECIMAL_COMMA.fullmatch, words)):
        points = "leave out the points between thousands, and " if "." in "".join(words) else ""
        return f"; {points}write the comma as a point"
    if any(_is_large(cell) for cell in cells):
        return f"; numbers are taken from {-MOST:g} to {MOST:g}: divide them by a constant"
    return ""


def _is_large(cell: Any) -> bool:
    try:
        return not isinstance(cell, bool) and MOST < abs(float(cell)) < math.inf
    except (OverflowError, TypeError, ValueError):
        return False
