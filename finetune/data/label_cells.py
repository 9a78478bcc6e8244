"""Cells of labels → for each row a tuple of labels, where a row may have several of them, or none.

Where several columns are the levels of one label, `join_levels` makes a path of them; where each is
a task, `name_tasks` names the label of each after its column.

Several labels may be written in three ways: as a list in each cell; as one text with a separator
(`data.label_separator`); as several columns, each a label, whose cells say yes or no.
"""

from collections.abc import Callable, Sequence
from typing import Any

from finetune.config.label_tasks import MARK
from finetune.data.cells import describe_value
from finetune.runtime.errors import shorten

SHOWN = 3  # cells named in a message
LEVEL_TYPES = (str, int, bool, type(None))
YES_OR_NO = {"1": True, "true": True, "0": False, "false": False}


def split_label_cells(
    cells: Sequence[Any],
    label: str | tuple[str, ...],
    separator: str | None,
    place: Callable[[int], str],
) -> tuple[list[Any], list[str]]:
    """The labels of each row as a tuple, None where they are missing; and what is wrong with cells.

    Args:
        cells: (rows,); of several columns, each is a tuple of theirs.
        label: the column's name, or those of several.
        place: names a row in messages.
    """
    sets: list[Any] = []
    wrong: list[str] = []
    for i, cell in enumerate(cells):
        if isinstance(label, str):
            labels, problem = _labels_of_cell(cell, separator)
        else:
            labels, problem = _labels_of_columns(cell, label)
        sets.append(labels)
        if problem is not None:
            wrong.append(f"{problem} at {place(i)}")
    if not wrong:
        return sets, []
    if not isinstance(label, str):
        expected = "data.label: expected 0 or 1, or true or false, in each column"
    elif separator is not None:
        expected = f"'{label}' (data.label): expected text, with data.label_separator"
    else:
        expected = f"'{label}' (data.label): expected a list of labels, each text, a whole number "
        expected += "or true or false"
    hint = "" if isinstance(label, str) else "; where each has labels of its own, set data.tasks"
    return sets, [f"{expected}, got {shorten(wrong, SHOWN)}{hint}"]


def join_levels(
    cells: Sequence[tuple[Any, ...]],
    columns: Sequence[str],
    separator: str,
    place: Callable[[int], str],
) -> tuple[list[str | None], list[str]]:
    """The path of each row, from its coarsest to its finest label; and what is wrong with cells.

    A path may end early, where the finer cells are missing; None where all are.

    Args:
        cells: (rows,) of tuples, one cell for each level.
    """
    paths: list[str | None] = []
    wrong: list[str] = []
    for i, row in enumerate(cells):
        wrong += [
            f"{describe_value(cell)} in '{column}' at {place(i)}"
            for column, cell in zip(columns, row, strict=True)
            if type(cell) not in LEVEL_TYPES
        ]
        parts = [_name_level(cell) for cell in row]
        there = [part for part in parts if part is not None]
        paths.append(separator.join(there) or None)
        for column, part in zip(columns, parts, strict=True):
            if part is not None and separator in part:
                wrong.append(f"{part!r} in '{column}' at {place(i)}")
        if parts[: len(there)] != there:
            gap = columns[parts.index(None)]
            wrong.append(f"no '{gap}' above '{there[-1]}' at {place(i)}")
    expected = (
        f"data.label: expected the levels of a label from the coarsest on, each text, a whole "
        f"number or true or false, without '{separator}' (data.hierarchy) in them"
    )
    return paths, [f"{expected}, got {shorten(wrong, SHOWN)}"] if wrong else []


def name_tasks(
    cells: Sequence[tuple[Any, ...]], columns: Sequence[str], place: Callable[[int], str]
) -> tuple[list[tuple[str, ...] | None], list[str]]:
    """The labels of each row as `column: label`, of the columns that it has one in; None where it
    has none; and what is wrong with cells.

    Args:
        cells: (rows,) of tuples, one cell for each task.
    """
    sets: list[tuple[str, ...] | None] = []
    wrong: list[str] = []
    for i, row in enumerate(cells):
        of_row = []
        for column, cell in zip(columns, row, strict=True):
            if type(cell) not in LEVEL_TYPES:
                wrong.append(f"{describe_value(cell)} in '{column}' at {place(i)}")
            elif (name := _name_level(cell)) is not None:
                of_row.append(f"{column}{MARK}{name}")
        sets.append(tuple(of_row) or None)
    expected = "data.tasks: expected labels that are text, whole numbers or true or false"
    return sets, [f"{expected}, got {shorten(wrong, SHOWN)}"] if wrong else []


def _name_level(cell: Any) -> str | None:
    if isinstance(cell, bool):
        return str(cell).lower()
    return None if cell is None else str(cell).strip() or None


def _labels_of_columns(cell: tuple[Any, ...], columns: Sequence[str]) -> tuple[Any, str | None]:
    if any(value is None for value in cell):
        return None, None
    chosen = []
    for name, value in zip(columns, cell, strict=True):
        is_set = YES_OR_NO.get(value.strip().lower()) if isinstance(value, str) else value
        if is_set is None or is_set not in (0, 1):
            return (), f"{value!r} in '{name}'"
        if is_set:
            chosen.append(name)
    return tuple(chosen), None


def _labels_of_cell(cell: Any, separator: str | None) -> tuple[Any, str | None]:
    if cell is None:
        return None, None
    if separator is not None:
        if not isinstance(cell, str):
            return (), repr(cell)[:40]
        return tuple(part for name in cell.split(separator) if (part := name.strip())), None
    values = cell if isinstance(cell, list) else [cell]
    if any(type(value) not in (str, int, bool) for value in values):
        return (), repr(cell)[:40]
    return tuple(values), None
