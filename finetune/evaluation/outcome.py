"""The outcome of a run: its saved model's logits and scores, temperature and thresholds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation import calibration
from finetune.evaluation.scoring import Scores


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run.

    Attributes:
        weights: SHA-256 of the saved model's weights.
        temperature: what its logits were divided by.
        test_temperature: what test's logits were divided by: the same, or in a cross-validation, of
            each row that of the other folds' rows. A number, or (rows, 1)
        validation, test: the saved model's scores. validation is None where there is no such split.
        thresholds: multi-label: the saved model's, else None. (classes,)
    """

    weights: str
    temperature: calibration.Temperature
    test_temperature: float | NDArray[np.float64]
    validation: Scores | None
    test: Scores
    thresholds: NDArray[np.float64] | None
