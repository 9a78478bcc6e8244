"""The outcome of a run: its saved model's logits and scores, temperature and thresholds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation import calibration
from finetune.evaluation.number_intervals import NumberInterval
from finetune.evaluation.scoring import Scores
from finetune.evaluation.task_scores import TaskTemperatures


@dataclass(frozen=True)
class ParentPredictions:
    """What the classifier that a run began with says of test.

    Attributes:
        source: as the recipe names it.
        labels: the names of its logits' columns.
        logits: (rows, its labels)
        thresholds: multi-label: its own. (its labels,)
    """

    source: str
    labels: tuple[str, ...]
    logits: NDArray[np.float32]
    thresholds: NDArray[np.float64] | None


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
        of_tasks: of several tasks, what each is divided by; then `temperature` is 1.
        interval: of numbers, the saved model's prediction interval; None: it has none.
        parent: what the source of a kept head says of test; None: no head was kept, or test has no
            labels.
    """

    weights: str
    temperature: calibration.Temperature
    test_temperature: float | NDArray[np.float64]
    validation: Scores | None
    test: Scores
    thresholds: NDArray[np.float64] | None
    parent: ParentPredictions | None = None
    interval: NumberInterval | None = None
    of_tasks: TaskTemperatures | None = None
