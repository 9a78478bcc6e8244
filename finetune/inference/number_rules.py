"""The output of a model of numbers → numbers, each with its prediction interval."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.number_scale import NumberScale
from finetune.evaluation.number_intervals import NumberInterval
from finetune.runtime.errors import InputError
from finetune.tokenization.document_format import DocumentFormat

DIGITS = 7  # that fp32 holds
KEYS = ("mean", "deviation")
TOLERANCE = 0.02  # standard deviations by which two engines may differ, and predict the same


@dataclass(frozen=True)
class NumberRules:
    """What a model of numbers says.

    Attributes:
        column: the name of what it predicts.
        scale: of the numbers that it was trained on.
        interval: of its predictions; None: it gives none.
    """

    column: str
    scale: NumberScale
    interval: NumberInterval | None

    @classmethod
    def read(cls, config: Any, column: str, reading: DocumentFormat, where: str) -> "NumberRules":
        """Those in a model's config.

        Raises:
            InputError: naming `where`, for a config without a scale.
        """
        values: list[Any] = [getattr(config, f"number_{key}", None) for key in KEYS]
        if not all(isinstance(one, int | float) and np.isfinite(one) for one in values):
            raise InputError(
                f"{where}: config.json: expected number_mean and number_deviation, found {values}; "
                "copy the model folder again"
            )
        interval = None if reading.interval is None else NumberInterval(*reading.interval)
        return cls(column, NumberScale(*map(float, values)), interval)

    @property
    def fields(self) -> tuple[str, ...]:
        """What a prediction has."""
        return ("number",) if self.interval is None else ("number", "low", "high")

    @property
    def tolerance(self) -> float:
        """By how much two engines may differ, and predict the same, in the numbers' unit."""
        return TOLERANCE * self.scale.deviation

    def decide(self, logits: NDArray[np.float32]) -> Iterator[dict[str, Any]]:
        """`number`, and `low` and `high` of its interval, for each row of the one column."""
        half = None if self.interval is None else self.interval.half_width
        for number in logits[:, 0].tolist():
            found = {"number": _round(number)}
            if half is not None:
                found |= {"low": _round(number - half), "high": _round(number + half)}
            yield found


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
