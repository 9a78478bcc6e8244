"""What came of a run: its model's scores, temperature and thresholds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation import calibration
from finetune.evaluation.scoring import Scores


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        weights: the hash of the saved model's.
        temperature: what its logits were divided by.
        validation, test: what the saved model says; of several labels a row, with thresholds.
            validation is None where there is no such split.
        thresholds: of several labels a row, the saved model's. (classes,)
    """

    weights: str
    temperature: calibration.Temperature
    validation: Scores | None
    test: Scores
    thresholds: NDArray[np.float64] | None
