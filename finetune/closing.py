"""After the last step: the best model comes back, is calibrated, and is scored on test, once."""

from dataclasses import dataclass

import numpy as np

from finetune import calibration, thresholds
from finetune.course import Course
from finetune.processes import main_only
from finetune.scoring import Scores
from finetune.tokens import TokenTable

PROBED = 4  # rows that show whether a divided head divides the logits


@dataclass(frozen=True)
class Outcome:
    """What came of a run.

    Attributes:
        weights: the hash of the saved model's.
        temperature: what its logits were divided by.
        validation, test: what the saved model says; of several labels a row, with the thresholds
            that validation chose.
    """

    weights: str
    temperature: calibration.Temperature
    validation: Scores
    test: Scores


def finish(course: Course, precision: str) -> Outcome:
    """Calibrate the best model on validation, fold that into its folder, and score test with it.

    Checkpoints hold the model as it was trained, so a run that is taken up again calibrates anew.

    Args:
        precision: of the matrix products.
    """
    weights = course.bring_back_best()
    truth = course.corpus.validation.labels
    assert truth is not None
    logits = course.score(course.corpus.validation).logits
    # A native head computes in bf16 or fp16, where a division that rounds could change an answer.
    exact = course.choices.model.head == "native" and precision != "fp32"
    temperature = main_only(
        course.accelerator, lambda: _fold(course, calibration.choose(logits, truth, exact))
    )
    if temperature.value != 1:
        weights = course.bring_back_best()
        logits = (logits / temperature.value).astype(np.float32)
    validation = course.tuned(logits)
    if (cuts := validation.thresholds) is not None:
        main_only(course.accelerator, lambda: thresholds.save(course.folder / "model", cuts))
    return Outcome(weights, temperature, validation, course.score(course.corpus.test, cuts))


def _fold(course: Course, chosen: calibration.Temperature) -> calibration.Temperature:
    if chosen.value == 1:
        return chosen
    table = course.parts.tables["validation"]
    rows = np.arange(min(PROBED, len(table)))
    if calibration.fold(
        course.folder / "model",
        course.parts.bare,
        chosen.value,
        lambda device: TokenTable.batch(table, rows, device),  # ids, whatever else is kept of them
        course.choices.model.trust_remote_code,
    ):
        return chosen
    return calibration.Temperature(1.0, "this class does not end in its linear layer")
