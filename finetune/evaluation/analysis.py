"""Logits of validation and test → scores with intervals, calibration, error analysis.

Everything here is counted from logits and labels: no model, no device.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.config.run_sections import Score
from finetune.data.corpus import Corpus, Split
from finetune.evaluation import (
    baselines,
    calibration,
    confusion,
    error_analysis,
    number_analysis,
    parent_comparison,
    slices,
)
from finetune.evaluation.analysis_model import Analysis
from finetune.evaluation.hierarchy import Hierarchy
from finetune.evaluation.metrics import LOWER_IS_BETTER, Metric
from finetune.evaluation.outcome import Outcome
from finetune.evaluation.probabilities import divide_logits, predict_labels, softmax
from finetune.evaluation.scoring import Scores, compute_metrics
from finetune.evaluation.slice_comparison import Compared
from finetune.tokenization.token_table import TokenTable


@dataclass(frozen=True)
class SavedChoices:
    """What was chosen when a model was trained.

    Attributes:
        temperature: what its logits were divided by.
        target: the accuracy that it should reach by abstaining.
        threshold: the probability below which it abstains; None: there is none.
        monitor: the metric that picked it; None: not known.
        hierarchy: what separates the levels in label names; None: they have none.
    """

    temperature: calibration.Temperature
    target: float | None = None
    threshold: float | None = None
    monitor: str | None = None
    hierarchy: str | None = None


def analyse(
    corpus: Corpus,
    tables: Mapping[str, TokenTable],
    outcome: Outcome,
    metrics: Sequence[Metric],
    score: Score,
) -> Analysis:
    """Scores, calibration, and where the model fails.

    Args:
        tables: the tokens of each split, by its name.
        score: what the recipe says of metrics and abstaining. Without a target accuracy, the report
            has the one that halves the error rate on validation.
    """
    if corpus.number is not None:
        return number_analysis.analyse_numbers(corpus, tables, outcome, metrics, score)
    validation, test = outcome.validation, outcome.test
    is_scored = corpus.test.labels is not None
    split = corpus.test if is_scored else corpus.validation
    scores = test if is_scored else validation
    assert scores is not None
    names, table = corpus.labels, tables[split.name]
    predictions = predict_labels(scores.logits, corpus.multi_label, scores.thresholds)
    found: dict[str, Any] = {
        "validation": _split_scores(corpus.validation, validation, metrics),
        "test": _split_scores(corpus.test, test, metrics),
        "baselines": _baselines(corpus, predictions, metrics) if is_scored else None,
        "monitor": score.monitor,
        "thresholds": _by_label(outcome.thresholds, names),
        "calibration": _calibration(corpus, outcome),
        "abstention": _abstention(corpus, outcome, score),
        "analysed": split.name,
        "parent": parent_comparison.compare_with_parent(corpus, outcome),
        "slices": _slices(
            split, table, scores, metrics, score.slices or (), outcome.temperature.ordered
        ),
        "levels": _levels(split, scores, names, corpus.hierarchy),
        **_weak_spots(split, table, scores, names),
    }
    return Analysis.model_validate(found)


def analyse_rows(
    split: Split,
    table: TokenTable,
    scores: Scores,
    names: Sequence[str],
    metrics: Sequence[Metric],
    choices: SavedChoices,
    columns: Sequence[str] = (),
) -> Analysis:
    """The same of labelled rows alone, by what the model chose when it was trained.

    There is no validation split, and no baseline, which would need train.

    Args:
        names: of the columns of logits.
        columns: by whose values the rows are scored too.
    """
    assert split.labels is not None
    temperature, multi_label = choices.temperature, split.labels.ndim == 2
    calibrated = _calibration_change(
        scores.logits, split.labels, temperature.value, temperature.ordered
    )
    abstention = None
    if not multi_label:
        found = _coverage(scores.logits, split.labels, choices.threshold)
        abstention = {
            "target": choices.target,
            "threshold": choices.threshold,
            "validation": None,
            "test": found,
        }
    return Analysis.model_validate(
        {
            "validation": _split_scores(split, None, metrics),
            "test": _split_scores(split, scores, metrics),
            "baselines": None,
            "thresholds": _by_label(scores.thresholds, names),
            "calibration": {
                "temperature": temperature.value,
                "why": temperature.why,
                "validation": None,
                "test": calibrated,
            },
            "abstention": abstention,
            "monitor": choices.monitor,
            "analysed": "test",
            "slices": _slices(split, table, scores, metrics, columns, temperature.ordered),
            "levels": _levels(split, scores, names, choices.hierarchy),
            **_weak_spots(split, table, scores, names),
        }
    )


def _slices(
    split: Split,
    table: TokenTable,
    scores: Scores,
    metrics: Sequence[Metric],
    columns: Sequence[str],
    ordered: bool,
) -> list[dict[str, Any]]:
    """The scores by the values of columns, of a split with labels."""
    if not columns or split.labels is None:
        return []
    predictions = predict_labels(scores.logits, split.labels.ndim == 2, scores.thresholds)
    compared = Compared.of_labels(split.labels, predictions, ordered)
    return slices.score_slices(split, table, scores, metrics, columns, compared)


def _weak_spots(
    split: Split, table: TokenTable, scores: Scores, names: Sequence[str]
) -> dict[str, Any]:
    """Where a model fails on a split with labels."""
    labels = split.labels
    assert labels is not None
    predictions = predict_labels(scores.logits, labels.ndim == 2, scores.thresholds)
    return {
        "classes": error_analysis.score_by_class(labels, predictions, names),
        "confusion": error_analysis.confusion_matrix(labels, predictions, len(names)),
        "confused_pairs": error_analysis.confused_pairs(labels, predictions, names),
        "lengths": error_analysis.accuracy_by_length(labels, predictions, table),
        "truncation": error_analysis.accuracy_by_truncation(labels, predictions, table),
        "mistakes": error_analysis.most_confident_mistakes(
            split, scores.logits, names, scores.thresholds
        ),
    }


def _levels(
    split: Split, scores: Scores, names: Sequence[str], separator: str | None
) -> list[dict[str, Any]]:
    """The scores of each level of labels that have some, as of `LevelScores`."""
    labels = split.labels
    if separator is None or labels is None or labels.ndim == 2:
        return []
    tree, predicted = Hierarchy.of(names, separator), predict_labels(scores.logits)
    found = []
    for number in range(1, tree.depth + 1):
        nodes = tree.level(number)[0]
        true, answered = (tree.at_level(of, number) for of in (labels, predicted))
        table = confusion.Confusion.from_labels(true, answered, len(nodes))
        found.append(
            {
                "level": number,
                "nodes": len(nodes),
                "accuracy": table.observed("accuracy"),
                "accuracy_interval": table.interval("accuracy"),
                "f1_macro": table.observed("f1_macro"),
                "f1_macro_interval": table.interval("f1_macro"),
                "classes": error_analysis.score_by_class(true, answered, nodes)
                if number < tree.depth
                else [],
            }
        )
    return found


def _by_label(
    thresholds: NDArray[np.float64] | None, names: Sequence[str]
) -> dict[str, float] | None:
    return None if thresholds is None else dict(zip(names, thresholds.tolist(), strict=True))


def _split_scores(split: Split, scores: Scores | None, metrics: Sequence[Metric]) -> dict[str, Any]:
    if scores is None:  # there is no such split
        return {"rows": 0, "labelled": False}
    if split.labels is None:
        return {"rows": len(split), "labelled": False}
    of_metrics = confusion.metric_intervals(metrics, scores.logits, split.labels, scores.thresholds)
    return {"rows": len(split), "labelled": True, "intervals": of_metrics} | scores.values


def _baselines(
    corpus: Corpus, predictions: NDArray[Any], metrics: Sequence[Metric]
) -> dict[str, Any]:
    """The scores of classifiers that know no language, and how much better the model is."""
    labels = corpus.test.labels
    assert labels is not None
    majority = baselines.majority_baseline(corpus)
    commonest = corpus.labels[int(majority.logits[0].argmax())]
    found: dict[str, Any] = {}
    compared = dict.fromkeys(("accuracy", "f1_macro", *["f1_micro"] * corpus.multi_label))
    compared |= dict.fromkeys(
        one.key
        for one in metrics
        if one.interval_method == "confusion" and one.key not in LOWER_IS_BETTER
    )
    for name, baseline, label in (
        ("majority", majority, commonest),
        ("tfidf", baselines.tfidf_baseline(corpus), None),
    ):
        theirs = predict_labels(baseline.logits, corpus.multi_label, baseline.thresholds)
        gaps = {
            of: confusion.paired_difference(of, labels, predictions, theirs, len(corpus.labels))
            for of in compared
        }
        found[name] = compute_metrics(baseline.logits, labels, metrics, baseline.thresholds) | {
            "intervals": confusion.metric_intervals(
                metrics, baseline.logits, labels, baseline.thresholds
            ),
            "paired_difference": gaps,
            "label": label,
            "train_rows": baseline.train_rows,
            "seconds": baseline.seconds,
        }
    return found


def _scored_splits(corpus: Corpus, outcome: Outcome) -> Iterator[tuple[Split, Scores | None]]:
    """Validation and test, each with its scores where it has labels."""
    for split, scores in ((corpus.validation, outcome.validation), (corpus.test, outcome.test)):
        yield split, None if split.labels is None else scores


def _calibration(corpus: Corpus, outcome: Outcome) -> dict[str, Any]:
    chosen = outcome.temperature
    found: dict[str, Any] = {"temperature": chosen.value, "why": chosen.why}
    for split, scores in _scored_splits(corpus, outcome):
        found[split.name] = None
        if scores is not None and split.labels is not None:
            divisor = outcome.test_temperature if split is corpus.test else chosen.value
            found[split.name] = _calibration_change(
                scores.logits, split.labels, divisor, chosen.ordered
            )
    return found


def _calibration_change(
    logits: NDArray[np.float32],
    labels: NDArray[Any],
    temperature: float | NDArray[np.float64],
    ordered: bool,
) -> dict[str, Any]:
    """The calibration of a saved model's logits, and as it was before the temperature."""
    after = logits.astype(np.float64)
    before = divide_logits(after, 1 / temperature, ordered) if ordered else after * temperature
    return {
        "before": calibration.summarize_calibration(before, labels),
        "after": calibration.summarize_calibration(after, labels),
    }


def _abstention(corpus: Corpus, outcome: Outcome, score: Score) -> dict[str, Any] | None:
    """Which share of the rows can be answered at a target accuracy.

    None where rows may have several labels (a threshold decides on each label by itself, so there
    is no single prediction to abstain from), and without validation.
    """
    if corpus.multi_label or outcome.validation is None:
        return None
    truth = corpus.validation.labels
    assert truth is not None
    probabilities = softmax(outcome.validation.logits)
    accuracy = float((probabilities.argmax(axis=1) == truth).mean())
    target = score.target_accuracy
    asked = 1 - (1 - accuracy) / 2 if target is None else target
    chosen = calibration.choose_abstention_threshold(probabilities, truth, asked)
    threshold = None if chosen is None else chosen.value
    found: dict[str, Any] = {
        "target": asked,
        "threshold": threshold,
        "guaranteed": chosen is not None and chosen.guaranteed,
        "saved": bool(threshold) and target is not None and score.abstain,
    }
    for split, scores in _scored_splits(corpus, outcome):
        found[split.name] = None
        if scores is not None and split.labels is not None:
            found[split.name] = _coverage(scores.logits, split.labels, threshold)
    return found


def _coverage(
    logits: NDArray[np.float32], labels: NDArray[Any], threshold: float | None
) -> dict[str, Any]:
    """Accuracy over coverage; and both at the threshold, where there is one."""
    probabilities = softmax(logits)
    found: dict[str, Any] = {"curve": calibration.risk_coverage(probabilities, labels)}
    if threshold is not None:
        found |= calibration.score_answered(probabilities, labels, threshold)
    return found
