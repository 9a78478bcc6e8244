"""Cells of label probabilities, or of annotators' votes → each row's shares and majority label.

    found = read_shares(cells, spec.shares, places.short)
    found.shares[0], found.labels[0]      # {"joy": 0.75, "anger": 0.25}, "joy"

Shares are what a row's numbers are of their sum, so that votes will do: 3 and 1 are 0.75 and 0.25.
Where each label has a probability of its own, nothing is divided, and a row has the labels of
one half or more. Shares are learned from; the majority label is what rows are cut by and scored
against.
"""

import ast
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.cells import describe_value, natural_order, to_number
from finetune.data.text_store import is_broken
from finetune.runtime.errors import InputError, shorten

SHOWN = 3  # cells named in a message
ROUNDING = 1e-4  # by how much probabilities may miss a sum of 1, as they are written in files

Shares = dict[str, float]


@dataclass(frozen=True)
class ShareColumns:
    """Where the shares are.

    Attributes:
        columns: one for each label, or one whose cells are objects of label → number.
        names: the labels: one for each column; of objects, all that there may be, or None.
        are_objects: whether the one column holds objects.
        multi_label: whether each label has a probability of its own.
    """

    columns: tuple[str, ...]
    names: tuple[str, ...] | None
    are_objects: bool
    multi_label: bool = False


@dataclass(frozen=True)
class FoundShares:
    """What the cells said.

    Attributes:
        shares: of each row, of the labels that have some; None where all cells are missing. (rows,)
        labels: the majority label of each; of several labels, a tuple. (rows,)
        problems: what is wrong with cells.
        soft, votes, scaled, tied: the rows that are no hard labels, whose numbers are counts,
            whose numbers were divided by another sum than 1, and whose largest share several labels
            have (of several labels: whose probability is one half).
    """

    shares: list[Shares | None] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    soft: list[int] = field(default_factory=list)
    votes: list[int] = field(default_factory=list)
    scaled: list[int] = field(default_factory=list)
    tied: list[int] = field(default_factory=list)


class _RowError(Exception):
    """A row that says nothing of its labels: what was expected, and what there is."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(expected, got)
        self.expected, self.got = expected, got


def read_shares(
    cells: Sequence[Sequence[Any]], spec: ShareColumns, place: Callable[[int], str]
) -> FoundShares:
    """The shares of each row.

    Args:
        cells: of each of the columns. (columns, rows)
        place: where a row is, for messages.
    """
    found = FoundShares()
    wrong: dict[str, list[str]] = {}
    for i, row in enumerate(zip(*cells, strict=True)):
        numbers: Shares | None = None
        label: Any = None
        try:
            numbers = _read_numbers(row, spec)
            if numbers is not None:
                label, numbers = _weigh(i, numbers, spec, found)
        except _RowError as error:
            wrong.setdefault(error.expected, []).append(f"{error.got} at {place(i)}")
            numbers = None
        found.shares.append(numbers)
        found.labels.append(label)
    named = shorten([f"'{column}'" for column in spec.columns], SHOWN)
    found.problems.extend(
        f"{named} (data.label_probabilities): expected {expected}, got {shorten(got, SHOWN)}"
        for expected, got in wrong.items()
    )
    return found


def _weigh(row: int, numbers: Shares, spec: ShareColumns, found: FoundShares) -> tuple[Any, Shares]:
    """A row's majority label, and its shares of the labels that have some."""
    there = {name: value for name, value in numbers.items() if value > 0}
    if spec.multi_label:
        if any(value not in (0.0, 1.0) for value in numbers.values()):
            found.soft.append(row)
        if 0.5 in numbers.values():
            found.tied.append(row)
        return tuple(name for name, value in numbers.items() if value >= 0.5), there
    try:
        total = math.fsum(there.values())
    except OverflowError:
        raise _RowError("numbers whose sum is one", shorten([*map(str, there.values())])) from None
    if not there:
        raise _RowError("a number above 0 for a label in each row", "zeros alone")
    if abs(total - 1) > ROUNDING:
        whole = all(value.is_integer() for value in there.values())
        (found.votes if whole else found.scaled).append(row)
    if len(there) > 1:
        found.soft.append(row)
    most = max(there.values())
    first, *others = [name for name, value in there.items() if value == most]
    if others:
        found.tied.append(row)
    return first, {name: value / total for name, value in there.items()}


def _read_numbers(row: tuple[Any, ...], spec: ShareColumns) -> Shares | None:
    """The numbers of a row by label, in the order of the labels; None where all are missing."""
    if spec.are_objects:
        pairs = _pairs_of(row[0])
    else:
        assert spec.names is not None
        pairs = list(zip(spec.names, row, strict=True))
    if pairs is None:
        return None
    numbers: dict[str, float | None] = {}
    for given, cell in pairs:
        name = sys.intern(str(given).strip())
        value = _number(cell, name, spec.multi_label)
        if not name or is_broken(name):
            raise _RowError("labels with a name, in UTF-8", repr(given)[:40])
        if name in numbers:
            raise _RowError("each label once", f"'{name}' twice")
        if value and spec.names is not None and name not in spec.names:
            known = shorten(spec.names, 10)
            raise _RowError(f"labels among those of the recipe ({known})", f"'{name}'")
        numbers[name] = value
    if all(value is None for value in numbers.values()):
        return None
    order = list(numbers)
    if spec.are_objects:
        places = {name: k for k, name in enumerate(spec.names or ())}
        order.sort(key=lambda name: (places.get(name, len(places)), natural_order(name)))
    return {name: numbers[name] or 0.0 for name in order}


def _pairs_of(cell: Any) -> list[tuple[Any, Any]] | None:
    """What an object says of each label; None for a missing one."""
    if isinstance(cell, str):
        if not cell.strip():
            return None
        try:
            cell = json.loads(cell, object_pairs_hook=lambda pairs: pairs)
        except (ValueError, RecursionError):
            cell = _python_pairs(cell) or [cell]
    if cell is None:
        return None
    if isinstance(cell, Mapping):
        return list(cell.items())
    is_map = isinstance(cell, list) and all(isinstance(x, tuple) and len(x) == 2 for x in cell)
    if not is_map:  # as Arrow and the hook have it
        shown = cell[0] if isinstance(cell, list) and len(cell) == 1 else cell
        raise _RowError("an object of label → number in each row", describe_value(shown))
    return list(cell)


def _python_pairs(text: str) -> list[tuple[Any, Any]] | None:
    """An object as Python writes it, such as pandas' to_csv does; None where it is none."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if not isinstance(node, ast.Dict):
            return None
        pairs = zip(node.keys, node.values, strict=True)
        return [(ast.literal_eval(key or node), ast.literal_eval(value)) for key, value in pairs]
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        return None


def _number(cell: Any, name: str, multi_label: bool) -> float | None:
    """A cell as a number; None where it is missing."""
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    value = math.nan
    if not isinstance(cell, bool | list | dict | tuple):
        try:
            value = float(cell)
        except (TypeError, ValueError, OverflowError):
            value = math.nan
    if not 0 <= value < math.inf or (multi_label and value > 1):
        expected = "probabilities from 0 to 1" if multi_label else "numbers of 0 or more"
        raise _RowError(f"{expected} for each label", f"{describe_value(cell)} for '{name}'")
    return value


def list_names(shares: Iterator[Shares | None]) -> tuple[str, ...]:
    """All labels that have a share of some row, in natural order."""
    names = {name for row in shares for name in row or ()}
    return tuple(sorted(names, key=natural_order))


def share_matrix(
    shares: Sequence[Shares | None], class_ids: Mapping[str, int]
) -> NDArray[np.float32]:
    """The share of each class. (rows, classes)

    Args:
        class_ids: label → class id, of all that have a share.
    """
    matrix = np.zeros((len(shares), len(class_ids)), dtype=np.float32)
    for row, of_row in zip(matrix, shares, strict=True):
        for name, share in (of_row or {}).items():
            row[class_ids[name]] = share
    return matrix


def read_weights(values: Sequence[Any], places: Sequence[str], column: str) -> NDArray[np.float64]:
    """The weight of each row. (rows,)

    Raises:
        InputError: with the rows whose weight is no number, or below 0; where all are 0.
    """
    weights = np.array([to_number(value) for value in values], dtype=np.float64)
    wrong = np.flatnonzero(~((weights >= 0) & np.isfinite(weights)))
    if len(wrong):
        got = [f"{describe_value(values[int(i)])} at {places[int(i)]}" for i in wrong[:SHOWN]]
        more = f" and {len(wrong) - SHOWN:,} more" if len(wrong) > SHOWN else ""
        raise InputError(
            f"train: '{column}' (data.weight): expected a number of 0 or more in each row, got "
            f"{', '.join(got)}{more}"
        )
    if len(weights) and not weights.any():
        raise InputError(
            f"train: '{column}' (data.weight): expected a weight above 0 in some rows, got 0 in "
            f"all {len(weights):,}: nothing would be learned"
        )
    return weights
