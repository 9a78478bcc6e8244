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
from finetune.tokenization.token_table import TokenTable
from finetune.training.session import Session

PROBED = 4  # rows that show whether a divided head divides the logits


def finalize(session: Session, held_out: NDArray[np.float32] | None = None) -> Outcome:
    """Calibrate the best model on validation, fold that into its folder, and score test with it.

    Without validation there is nothing to calibrate on; only the probability from which a
    multi-label model predicts a label has to be chosen, as few reach one half in the steps of few
    rows.

    Checkpoints hold the model as it was trained, so a run that is resumed calibrates anew.

    Args:
        held_out: logits of test, where it is train itself: of runs that had not seen the row
            (`cross_validation.py`). (rows, classes)
    """
    weights = session.restore_best()
    corpus, validator = session.data.corpus, session.validator
    labels = corpus.validation.labels
    if labels is None:
        as_trained = calibration.Temperature(1.0, "there is no validation split to fit one on")
        chosen, for_test = _choose_thresholds_on_train(session, held_out)
        test = _score_test(session, held_out, for_test)
        return Outcome(weights, as_trained, None, test, chosen)
    logits = validator.score(session.parts, corpus.validation).logits
    # A native head computes in bf16 or fp16, where a division that rounds could change an answer.
    exact = session.recipe.model.head == "native" and session.data.plan.precision != "fp32"
    temperature = session.env.on_main(
        lambda: _apply_temperature(session, calibration.fit_temperature(logits, labels, exact))
    )
    if temperature.value != 1:
        weights = session.restore_best()
        logits = (logits / temperature.value).astype(np.float32)
    validation = validator.with_thresholds(logits)
    if validation.thresholds is not None:
        _save_thresholds(session, validation.thresholds)
    test = _score_test(session, held_out, validation.thresholds)
    return Outcome(weights, temperature, validation, test, validation.thresholds)


Thresholds = NDArray[np.float64] | None


def _choose_thresholds_on_train(
    session: Session, held_out: NDArray[np.float32] | None
) -> tuple[Thresholds, Thresholds]:
    """One threshold for all labels of a multi-label model; and those that test is scored by.

    Returns:
        The saved model's, (classes,), and test's: the same, or where test is train itself, of each
        row that of the other folds' rows, as its own label decides nothing. (rows, classes)
    """
    train, folds = session.data.corpus.train, session.data.corpus.folds
    if not session.data.corpus.multi_label:
        return None, None
    assert train.labels is not None
    if held_out is None or folds is None:
        print_line("  choosing on train the probability from which a label is predicted")
        logits = session.validator.score(session.parts, train).logits
        chosen = thresholds.choose_shared(probabilities.sigmoid(logits), train.labels)
        _save_thresholds(session, chosen)
        return chosen, chosen
    likely = probabilities.sigmoid(held_out)
    chosen, for_test = thresholds.choose_shared(likely, train.labels), np.zeros_like(likely)
    for fold in np.unique(folds):
        others = folds != fold
        for_test[~others] = thresholds.choose_shared(likely[others], train.labels[others])
    _save_thresholds(session, chosen)
    return chosen, for_test


def _save_thresholds(session: Session, chosen: NDArray[np.float64]) -> None:
    session.env.on_main(lambda: thresholds.save_thresholds(session.folder / "model", chosen))


def _score_test(
    session: Session, held_out: NDArray[np.float32] | None, chosen: Thresholds
) -> Scores:
    """The scores of test: of the saved model, or of the folds' models that had not seen the row."""
    test = session.data.corpus.test
    if held_out is None:
        return session.validator.score(session.parts, test, chosen)
    assert test.labels is not None
    values = compute_metrics(held_out, test.labels, session.data.metrics, chosen)
    return Scores(held_out, values, chosen)


def _apply_temperature(
    session: Session, chosen: calibration.Temperature
) -> calibration.Temperature:
    """Divide the saved head by the temperature; 1 where its class does not allow that."""
    if chosen.value == 1:
        return chosen
    table = session.parts.tables["validation"]
    rows = np.arange(min(PROBED, len(table)))
    if fold_temperature(
        session.folder / "model",
        session.parts.bare,
        chosen.value,
        lambda device: TokenTable.batch(table, rows, device),  # ids, whatever else is kept of them
        session.recipe.model.trust_remote_code,
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
