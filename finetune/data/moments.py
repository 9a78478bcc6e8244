"""Cells of a column of times or numbers → numbers that have their order.

    read_moments(["2024-05-31", "2024-05-31T14:00:00+02:00"])   # seconds
    read_moments([2021, "2022"])                                # 2021, 2022

A column is of numbers (years, seconds since 1970) or of dates and times as ISO 8601 writes them,
and not of both: 20240531 and 2024-05-31 have no order.
"""

import datetime
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.cells import to_number

MONTH = re.compile(r"\d{4}-\d{2}")


def read_moments(values: Sequence[Any]) -> tuple[NDArray[np.float64], list[int]]:
    """A number for each value, nan where it is none; and the indices of these.

    A time without a zone counts as one of UTC.
    """
    numbers = np.array([to_number(value) for value in values], dtype=np.float64)
    if not np.isfinite(numbers).any():
        numbers = np.array([_seconds(value) for value in values], dtype=np.float64)
    return numbers, np.flatnonzero(~np.isfinite(numbers)).tolist()


def _seconds(value: Any) -> float:
    """Since 1970, of a date or time as text."""
    if not isinstance(value, str):
        return math.nan
    text = value.strip()
    try:
        moment = datetime.datetime.fromisoformat(f"{text}-01" if MONTH.fullmatch(text) else text)
    except ValueError:
        return math.nan
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return (moment - epoch).total_seconds()
