"""After the last step: the best model comes back, is calibrated, and is scored on test, once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from finetune.data.label_tasks import Tasks
from finetune.evaluation import calibration, probabilities, thresholds
from finetune.evaluation.number_intervals import NumberInterval
from finetune.evaluation.outcome import Outcome
from finetune.evaluation.scoring import Scores, compute_metrics
from finetune.evaluation.task_scores import TaskTemperatures
from finetune.modeling import head as head_module
from finetune.modeling import saved_model
from finetune.runtime.console import print_line
from finetune.tokenization.token_table import TokenTable
from finetune.training.session import Session

PROBED = 4  # rows that show whether a divided head divides the logits


def finalize(session: Session, held_out: NDArray[np.float32] | None = None) -> Outcome:
    """Calibrate the best model on held-out rows, fold that into its folder, score test with it.

    The held-out rows are validation's, or without it what a cross-validation's runs predicted of
    rows that they had not seen. Without either there is nothing to calibrate on; only the
    probability from which a multi-label model predicts a label has to be chosen, as few reach one
    half in the steps of few rows.

    Checkpoints hold the model as it was trained, so a run that is resumed calibrates anew.

    Args:
        held_out: logits of test, where it is train itself: of runs that had not seen the row
            (`cross_validation.py`). (rows, classes)
    """
    if session.data.corpus.number is not None:
        return _finalize_numbers(session)
    if session.data.corpus.tasks is not None:
        return _finalize_tasks(session, session.data.corpus.tasks)
    weights = session.restore_best()
    corpus, validator = session.data.corpus, session.validator
    labels = corpus.validation.labels
    if labels is None and held_out is not None:
        return _finalize_by_folds(session, held_out)
    if labels is None:
        as_trained = calibration.Temperature(1.0, "there is no validation split to fit one on")
        chosen = _choose_threshold_on_train(session)
        test = validator.score(session.parts, corpus.test, chosen)
        return Outcome(weights, as_trained, 1.0, None, test, chosen)
    logits = validator.score(session.parts, corpus.validation).logits
    temperature = _apply_temperature(session, logits, labels, "validation rows")
    if temperature.value != 1:
        weights = session.restore_best()
        logits = temperature.divide(logits)
    validation = validator.with_thresholds(logits)
    if validation.thresholds is not None:
        _save_thresholds(session, validation.thresholds)
    else:
        _save_abstention(session, logits, labels)
    if held_out is None:
        test = validator.score(session.parts, corpus.test, validation.thresholds)
    else:  # the folds' models are calibrated already, each on its own validation
        test = _score_held_out(session, held_out, validation.thresholds)
    test_temperature = temperature.value if held_out is None else 1.0
    return Outcome(weights, temperature, test_temperature, validation, test, validation.thresholds)


def _finalize_numbers(session: Session) -> Outcome:
    """Choose the width of prediction intervals on validation, note it in the folder, score test.

    There are no probabilities to calibrate.
    """
    weights = session.restore_best()
    corpus, validator = session.data.corpus, session.validator
    as_trained = calibration.Temperature(1.0, "numbers have no probabilities")
    labels, validation, interval = corpus.validation.labels, None, None
    if labels is not None:
        validation = validator.score(session.parts, corpus.validation)
        coverage = session.recipe.score.interval_coverage
        interval = NumberInterval.choose(labels - validation.logits[:, 0], coverage)
    if interval is not None:
        found, folder = interval, session.folder / "model"
        session.env.on_main(
            lambda: thresholds.save_interval(folder, found.coverage, found.half_width)
        )
    test = validator.score(session.parts, corpus.test)
    return Outcome(weights, as_trained, 1.0, validation, test, None, interval=interval)


def _finalize_tasks(session: Session, tasks: Tasks) -> Outcome:
    """Fit a temperature for each task on validation, fold them into the head, score test."""
    weights = session.restore_best()
    corpus, validator = session.data.corpus, session.validator
    labels, own = corpus.validation.labels, calibration.Temperature(1.0, "each task has its own")
    if labels is None:
        none = calibration.Temperature(1.0, "there is no validation split to fit one on")
        found = TaskTemperatures(tasks, (none,) * len(tasks.each))
        test = validator.score(session.parts, corpus.test)
        return Outcome(weights, own, 1.0, None, test, None, of_tasks=found)
    trained = validator.score(session.parts, corpus.validation)
    logits, truth = trained.logits, labels
    found = session.env.on_main(lambda: TaskTemperatures.fit(tasks, logits, truth))
    if not found.are_one:
        is_folded = session.env.on_main(lambda: _fold(session, found))
        assert is_folded, "the linear head is this package's own"
        weights = session.restore_best()
    validation = validator.score(session.parts, corpus.validation)
    test = validator.score(session.parts, corpus.test)
    return Outcome(weights, own, 1.0, validation, test, None, of_tasks=found)


def _finalize_by_folds(session: Session, held_out: NDArray[np.float32]) -> Outcome:
    """Choose temperature and threshold on what the folds' runs predicted of their held-out rows.

    The saved model gets what all rows choose. Test, which is those rows, is scored with what the
    other folds' rows choose for each: its own label decides nothing.
    """
    train, folds = session.data.corpus.train, session.data.corpus.folds
    assert train.labels is not None
    assert folds is not None, "held-out logits are those of folds"
    temperature = _apply_temperature(session, held_out, train.labels, "held-out rows")
    weights = session.restore_best()
    divisors = np.ones((len(held_out), 1))
    for_test = np.full(held_out.shape, 0.5)
    for fold in np.unique(folds):
        others = folds != fold
        logits, labels = held_out[others], train.labels[others]
        if temperature.value != 1:  # else the saved model's logits are divided by nothing
            fitted = calibration.fit_temperature(logits, labels, ordered=temperature.ordered)
            divisors[~others] = fitted.value
        if session.data.corpus.multi_label:
            likely = probabilities.sigmoid(logits / divisors[~others][0])
            for_test[~others] = thresholds.choose_shared(likely, labels)
    chosen = None
    if session.data.corpus.multi_label:
        likely = probabilities.sigmoid(held_out / temperature.value)
        chosen = thresholds.choose_shared(likely, train.labels)
        _save_thresholds(session, chosen)
    divided = probabilities.divide_logits(held_out, divisors, temperature.ordered)
    test = _score_held_out(
        session, divided.astype(np.float32), for_test if chosen is not None else None
    )
    return Outcome(weights, temperature, divisors, None, test, chosen)


Thresholds = NDArray[np.float64] | None


def _choose_threshold_on_train(session: Session) -> Thresholds:
    """One threshold for all labels of a multi-label model, chosen on train itself. (classes,)"""
    train = session.data.corpus.train
    if not session.data.corpus.multi_label:
        return None
    assert train.labels is not None
    print_line("  choosing on train the probability from which a label is predicted")
    logits = session.validator.score(session.parts, train).logits
    labels = train.labels
    if (own := train.is_labelled) is not None:
        logits, labels = logits[own], labels[own]
    chosen = thresholds.choose_shared(probabilities.sigmoid(logits), labels)
    _save_thresholds(session, chosen)
    return chosen


def _save_thresholds(session: Session, chosen: NDArray[np.float64]) -> None:
    session.env.on_main(lambda: thresholds.save_thresholds(session.folder / "model", chosen))


def _save_abstention(session: Session, logits: NDArray[np.float32], labels: NDArray[Any]) -> None:
    """Have the saved model predict no label where `score.target_accuracy` would not be reached."""
    score = session.recipe.score
    if score.target_accuracy is None or not score.abstain:
        return
    likely = probabilities.softmax(logits)
    chosen = calibration.choose_abstention_threshold(likely, labels, score.target_accuracy)
    if chosen is not None and chosen.value > 0:
        folder = session.folder / "model"
        session.env.on_main(lambda: thresholds.save_abstention(folder, chosen.value))


def _score_held_out(session: Session, logits: NDArray[np.float32], chosen: Thresholds) -> Scores:
    """The scores of the folds' models, each on the rows that it had not seen."""
    labels = session.data.corpus.test.labels
    assert labels is not None
    return Scores(logits, compute_metrics(logits, labels, session.data.metrics, chosen), chosen)


def _apply_temperature(
    session: Session, logits: NDArray[np.float32], labels: NDArray[Any], rows: str
) -> calibration.Temperature:
    """Fit a temperature, and divide the saved head by it; 1 where its class does not allow that."""
    # A native head computes in bf16 or fp16, where a division that rounds could change an answer.
    exact = session.recipe.model.head == "native" and session.data.plan.precision != "fp32"

    def fit_and_fold() -> calibration.Temperature:
        ordered = session.recipe.data.task == "ordered"
        if ordered and session.recipe.data.truncation == "windows":
            why = "the windows of a document are pooled after the steps between labels"
            return calibration.Temperature(1.0, why, ordered)
        chosen = calibration.fit_temperature(logits, labels, exact, rows, ordered)
        if chosen.value == 1:
            return chosen
        if _fold(session, chosen):
            return chosen
        return calibration.Temperature(1.0, "this class does not end in its linear layer", ordered)

    return session.env.on_main(fit_and_fold)


def _fold(session: Session, temperature: calibration.Temperature | TaskTemperatures) -> bool:
    """Whether the saved model is divided by a temperature now."""
    table = session.parts.tables["train"]
    probed = np.arange(min(PROBED, len(table)))
    return fold_temperature(
        session.folder / "model",
        session.parts.bare,
        temperature,
        lambda device: TokenTable.batch(table, probed, device),  # ids, whatever else is kept
        session.recipe.model.trust_remote_code,
    )


def fold_temperature(
    folder: Path,
    shell: PreTrainedModel,
    temperature: calibration.Temperature | TaskTemperatures,
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
        if isinstance(temperature, TaskTemperatures):  # one for each label
            of_each = torch.from_numpy(temperature.value).to(head.weight.dtype)
            head.weight.div_(of_each[:, None])
            head.bias.div_(of_each)
        else:
            head.weight.div_(temperature.value)
            if head.bias is not None:
                head.bias.div_(temperature.value)
        after = model(**inputs).logits
    expected = torch.from_numpy(temperature.divide(before.numpy()))
    scale = expected.abs().max().clamp(min=1e-6)
    if not torch.allclose(after / scale, expected / scale, atol=1e-4):
        return False
    changed = {f"{name}.weight": head.weight.data}
    if head.bias is not None:
        changed[f"{name}.bias"] = head.bias.data
    return saved_model.rewrite_weights(folder, changed)
