"""After the last step: the best model comes back, is calibrated, and is scored on test, once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune import calibration, metrics, thresholds
from finetune.course import Course
from finetune.processes import main_only
from finetune.scoring import Scores, values
from finetune.terminal import say
from finetune.tokens import TokenTable

PROBED = 4  # rows that show whether a divided head divides the logits


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


def finish(course: Course, precision: str, judged: NDArray[np.float32] | None = None) -> Outcome:
    """Calibrate the best model on validation, fold that into its folder, and score test with it.

    Without validation there is nothing to calibrate on; only from which probability on each of
    several labels is given has to be chosen, as few get to one half in the steps of few rows.

    Checkpoints hold the model as it was trained, so a run that is taken up again calibrates anew.

    Args:
        precision: of the matrix products.
        judged: logits of test, where it is train itself: of runs that had not seen the row
            (`folds.py`). (rows, classes)
    """
    weights = course.bring_back_best()
    truth = course.corpus.validation.labels
    if truth is None:
        as_trained = calibration.Temperature(1.0, "there is no validation split to fit one on")
        cuts, of_test = _cuts_by_train(course, judged)
        return Outcome(weights, as_trained, None, _test(course, judged, of_test), cuts)
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
        _save(course, cuts)
    return Outcome(weights, temperature, validation, _test(course, judged, cuts), cuts)


Cuts = NDArray[np.float64] | None


def _cuts_by_train(course: Course, judged: NDArray[np.float32] | None) -> tuple[Cuts, Cuts]:
    """One threshold for all labels, where a row may have several; and that which test is scored by.

    Returns:
        The saved model's, (classes,), and test's: the same, or where test is train itself, of each
        row that of the other folds' rows, as its own label decides nothing. (rows, classes)
    """
    train, folds = course.corpus.train, course.corpus.folds
    if not course.corpus.multi_label:
        return None, None
    assert train.labels is not None
    if judged is None or folds is None:
        say("  choosing on train from which probability on a label is given")
        cuts = thresholds.shared(metrics.sigmoid(course.score(train).logits), train.labels)
        _save(course, cuts)
        return cuts, cuts
    chances = metrics.sigmoid(judged)
    cuts, of_test = thresholds.shared(chances, train.labels), np.zeros_like(chances)
    for part in np.unique(folds):
        others = folds != part
        of_test[~others] = thresholds.shared(chances[others], train.labels[others])
    _save(course, cuts)
    return cuts, of_test


def _save(course: Course, cuts: NDArray[np.float64]) -> None:
    main_only(course.accelerator, lambda: thresholds.save(course.folder / "model", cuts))


def _test(
    course: Course, judged: NDArray[np.float32] | None, cuts: NDArray[np.float64] | None = None
) -> Scores:
    """The scores of test: of the model that is saved, or what others said who had not seen it."""
    test = course.corpus.test
    if judged is None:
        return course.score(test, cuts)
    assert test.labels is not None
    return Scores(judged, values(judged, test.labels, course.wanted, cuts), cuts)


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
