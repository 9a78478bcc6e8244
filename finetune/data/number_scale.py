"""Numbers to be predicted: their scale, and the groups in which they are divided evenly."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.runtime.errors import InputError

MOST_DEVIATIONS = 1e5  # of the mean from 0
# Squares of what lies between are in the range of fp32.
LEAST, MOST = 1e-18, 1e18
BINS = 10
LEAST_IN_BIN = 10


@dataclass(frozen=True)
class NumberScale:
    """Where train's numbers lie. A model learns them less the mean, divided by the deviation.

    Attributes:
        mean, deviation: of train's rows, in the user's unit; the deviation is above 0.
    """

    mean: float
    deviation: float

    @classmethod
    def of(cls, labels: NDArray[Any] | None) -> "NumberScale | None":
        """That of train's labels; None where they are no numbers.

        Raises:
            InputError: where they are all the same; where fp32, which has 24 bits, would round away
                what tells them apart, or they are too close to 0 for it.
        """
        if labels is None or not is_number(labels):
            return None
        scale = cls(float(labels.mean()), float(labels.std()))
        if labels.min() == labels.max():
            raise InputError(
                f"train: expected two different numbers or more, got only {labels[0]:g} in the "
                "rows that are left"
            )
        if abs(scale.mean) > MOST_DEVIATIONS * scale.deviation:
            raise InputError(
                f"train: the numbers lie around {scale.mean:g} and differ by {scale.deviation:g} "
                "only, which the 24 bits of fp32 hardly tell apart; subtract a constant from them"
            )
        if scale.deviation < LEAST:
            raise InputError(
                f"train: the numbers differ by {scale.deviation:g} only, which is too little for "
                "fp32; multiply them by a constant"
            )
        return scale


def is_number(labels: NDArray[Any] | None) -> bool:
    """Whether labels are numbers to be predicted, and no classes."""
    return labels is not None and labels.ndim == 1 and labels.dtype.kind == "f"


def bin_numbers(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """Each number's group by quantiles: at most 10, of 10 rows or more; ties share one. (rows,)"""
    bins = int(np.clip(len(numbers) // LEAST_IN_BIN, 1, BINS))
    edges = np.unique(np.quantile(numbers, np.arange(1, bins) / bins))
    found: NDArray[np.int64] = np.searchsorted(edges, numbers, side="right").astype(np.int64)
    return found


def format_number(value: float) -> str:
    """A number in its unit: four digits tell; of large ones, all those before the point."""
    return f"{value:,.0f}" if 9_999.5 <= abs(value) < 1e12 else f"{value:,.4g}"
