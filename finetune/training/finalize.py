"""After the last step: the best model comes back, is calibrated, and is scored on test, once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from finetune.evaluation import calibration, probabilities, thresholds
from finetune.evaluation.outcome import Outcome
from finetune.evaluation.scoring import Scores, compute_metrics
from finetune.modeling import head as head_module
from finetune.modeling import saved_model
from finetune.runtime.console import print_line
from finetune.runtime.distributed import run_on_main
from finetune.tokenization.token_table import TokenTable
from finetune.training.session import Session

PROBED = 4  # rows that show whether a divided head divides the logits


def finalize(course: Session, precision: str, judged: NDArray[np.float32] | None = None) -> Outcome:
    """Calibrate the best model on validation, fold that into its folder, and score test with it.

    Without validation there is nothing to calibrate on; only from which probability on each of
    several labels is given has to be chosen, as few get to one half in the steps of few rows.

    Checkpoints hold the model as it was trained, so a run that is taken up again calibrates anew.

    Args:
        precision: of the matrix products.
        judged: logits of test, where it is train itself: of runs that had not seen the row
            (`cross_validation.py`). (rows, classes)
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
    temperature = run_on_main(
        course.accelerator, lambda: _fold(course, calibration.fit_temperature(logits, truth, exact))
    )
    if temperature.value != 1:
        weights = course.bring_back_best()
        logits = (logits / temperature.value).astype(np.float32)
    validation = course.tuned(logits)
    if (cuts := validation.thresholds) is not None:
        _save(course, cuts)
    return Outcome(weights, temperature, validation, _test(course, judged, cuts), cuts)


Cuts = NDArray[np.float64] | None


def _cuts_by_train(course: Session, judged: NDArray[np.float32] | None) -> tuple[Cuts, Cuts]:
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
        print_line("  choosing on train from which probability on a label is given")
        cuts = thresholds.choose_shared(
            probabilities.sigmoid(course.score(train).logits), train.labels
        )
        _save(course, cuts)
        return cuts, cuts
    chances = probabilities.sigmoid(judged)
    cuts, of_test = thresholds.choose_shared(chances, train.labels), np.zeros_like(chances)
    for part in np.unique(folds):
        others = folds != part
        of_test[~others] = thresholds.choose_shared(chances[others], train.labels[others])
    _save(course, cuts)
    return cuts, of_test


def _save(course: Session, cuts: NDArray[np.float64]) -> None:
    run_on_main(
        course.accelerator, lambda: thresholds.save_thresholds(course.folder / "model", cuts)
    )


def _test(
    course: Session, judged: NDArray[np.float32] | None, cuts: NDArray[np.float64] | None = None
) -> Scores:
    """The scores of test: of the model that is saved, or what others said who had not seen it."""
    test = course.corpus.test
    if judged is None:
        return course.score(test, cuts)
    assert test.labels is not None
    return Scores(judged, compute_metrics(judged, test.labels, course.wanted, cuts), cuts)


def _fold(course: Session, chosen: calibration.Temperature) -> calibration.Temperature:
    if chosen.value == 1:
        return chosen
    table = course.parts.tables["validation"]
    rows = np.arange(min(PROBED, len(table)))
    if fold_temperature(
        course.folder / "model",
        course.parts.bare,
        chosen.value,
        lambda device: TokenTable.batch(table, rows, device),  # ids, whatever else is kept of them
        course.choices.model.trust_remote_code,
    ):
        return chosen
    return calibration.Temperature(1.0, "this class does not end in its linear layer")


def fold_temperature(
    folder: Path,
    shell: PreTrainedModel,
    temperature: float,
    probe: Callable[[torch.device], dict[str, torch.Tensor]],
    trust_remote_code: bool,
) -> bool:
    """Divide the logits of a saved model by a temperature: its head's weight and bias.

    Only the weights' file changes, and the folder is replaced as a whole. Checkpoints keep the
    model as it was trained.

    Args:
        shell: a model of the same class, to find the head in.
        probe: a few rows' inputs. Where the model's answers to them are not the old ones, divided,
            the class does more with its head than to return it: the folder stays as it was.

    Returns:
        Whether the folder holds the divided model now.
    """
    model, _ = saved_model.load_classifier(folder, trust_remote_code=trust_remote_code)
    head, name = head_module.find_head(model), head_module.head_name(shell)
    inputs = probe(torch.device("cpu"))
    with torch.no_grad():
        before = model(**inputs).logits
        head.weight.div_(temperature)
        if head.bias is not None:
            head.bias.div_(temperature)
        after = model(**inputs).logits
    scale = before.abs().max().clamp(min=1e-6)
    if not torch.allclose(after * temperature / scale, before / scale, atol=1e-4):
        return False
    changed = {f"{name}.weight": head.weight.data}
    if head.bias is not None:
        changed[f"{name}.bias"] = head.bias.data
    return saved_model.rewrite_weights(folder, changed)
