"""Values of cells: from Arrow, in natural order, and as messages show them; counts of rows."""

import json
import math
import re
from typing import Any, cast


def natural_order(name: str) -> tuple[list[str | tuple[int, str]], str]:
    """Sort key: "2" before "10", ignoring case, then exactly."""
    parts: list[str | tuple[int, str]] = []
    for i, part in enumerate(re.split(r"([0-9]+)", name.lower())):
        digits = part.lstrip("0")
        # Length, then digits: the order of the numbers, without int()'s limit of 4,300 digits.
        parts.append((len(digits), digits) if i % 2 else part)
    return parts, name


def to_number(value: Any) -> float:
    """A cell as a number; nan where it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def arrow_values(column: Any) -> list[Any]:
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


def describe_value(value: object) -> str:
    match value:
        case list() | tuple():
            return f"a list {clip(json.dumps(value, default=str))}"
        case dict():
            return f"an object {clip(json.dumps(value, default=str))}"
    return clip(repr(value))


def clip(text: str, most: int = 40) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def format_rows(count: int) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{count:,} row{'s' * (count != 1)}"
