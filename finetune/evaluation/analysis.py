"""What a run's model says of validation and test → scores with intervals, calibration, weak spots.

Everything here is counted from logits and labels: no model, no device.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.corpus import Corpus, Split
from finetune.evaluation import (
    baselines,
    calibration,
    error_analysis,
    intervals,
    metrics,
    probabilities,
)
from finetune.evaluation.outcome import Outcome
from finetune.evaluation.scoring import Scores, compute_metrics
from finetune.tokenization.token_table import TokenTable


def analyse(
    corpus: Corpus,
    tables: Mapping[str, TokenTable],
    outcome: Outcome,
    wanted: Sequence[metrics.Metric],
    target: float | None,
) -> dict[str, Any]:
    """The keys of `results.json` from `validation` to `mistakes`, as `results.py` lists them.

    Args:
        tables: the tokens of each split, by its name.
        target: the accuracy that answers should have, at the price of abstaining from the others;
            None: half of validation's mistakes.
    """
    validation, test = outcome.validation, outcome.test
    found: dict[str, Any] = {
        "validation": _nothing()
        if validation is None
        else _scored(corpus.validation, validation, wanted),
        "test": _scored(corpus.test, test, wanted),
    }
    several, cuts = corpus.multi_label, outcome.thresholds
    labelled = corpus.test.labels is not None
    split = corpus.test if labelled else corpus.validation
    scores = test if labelled else validation
    assert scores is not None
    assert split.labels is not None
    logits = scores.logits
    labels, names = split.labels, corpus.labels
    guesses = metrics.predict_labels(logits, several, scores.thresholds)
    found["thresholds"] = None if cuts is None else dict(zip(names, cuts.tolist(), strict=True))
    found["baselines"] = _baselines(corpus, guesses, wanted) if labelled else None
    found["calibration"] = _calibration(corpus, outcome)
    # Of several labels, thresholds decide each for itself: there is no one answer to hold back.
    untold = several or validation is None
    found["abstention"] = None if untold else _abstention(corpus, outcome, target)
    found["analysed"] = split.name
    found["classes"] = error_analysis.by_class(labels, guesses, names)
    found["confusion"] = error_analysis.confusion(labels, guesses, len(names))
    found["confused_pairs"] = error_analysis.confused_pairs(labels, guesses, names)
    found["lengths"] = error_analysis.by_length(labels, guesses, tables[split.name])
    found["truncation"] = error_analysis.by_truncation(labels, guesses, tables[split.name])
    found["mistakes"] = error_analysis.confident(split, logits, names, scores.thresholds)
    return found


def _nothing() -> dict[str, Any]:
    """What is said of a split that is not there."""
    return {"rows": 0, "labelled": False}


def _scored(split: Split, scores: Scores, wanted: Sequence[metrics.Metric]) -> dict[str, Any]:
    if split.labels is None:
        return {"rows": len(split), "labelled": False}
    return (
        {"rows": len(split), "labelled": True}
        | scores.values
        | {
            "intervals": intervals.metric_intervals(
                wanted, scores.logits, split.labels, scores.thresholds
            )
        }
    )


def _baselines(
    corpus: Corpus, guesses: NDArray[Any], wanted: Sequence[metrics.Metric]
) -> dict[str, Any]:
    """The scores of classifiers that know no language, and how much better the model is."""
    labels, classes = corpus.test.labels, len(corpus.labels)
    assert labels is not None
    found = {}
    for name, plain in (
        ("majority", baselines.majority_baseline(corpus)),
        ("tfidf", baselines.tfidf_baseline(corpus)),
    ):
        theirs = metrics.predict_labels(plain.logits, corpus.multi_label, plain.thresholds)
        gaps = {
            of: intervals.paired_difference(of, labels, guesses, theirs, classes)
            for of in ("accuracy", "f1_macro", *["f1_micro"] * corpus.multi_label)
        }
        found[name] = compute_metrics(plain.logits, labels, wanted, plain.thresholds) | {
            "intervals": intervals.metric_intervals(wanted, plain.logits, labels, plain.thresholds),
            "model_is_better_by": gaps,
            "train_rows": plain.train_rows,
            "seconds": plain.seconds,
        }
    commonest = corpus.labels[int(baselines.majority_baseline(corpus).logits[0].argmax())]
    found["majority"]["label"] = commonest
    return found


def _calibration(corpus: Corpus, outcome: Outcome) -> dict[str, Any]:
    temperature = outcome.temperature.value
    found: dict[str, Any] = {"temperature": temperature, "why": outcome.temperature.why}
    for split, scores in ((corpus.validation, outcome.validation), (corpus.test, outcome.test)):
        found[split.name] = None
        if scores is not None and split.labels is not None:
            after = scores.logits.astype(np.float64)
            found[split.name] = {
                "before": calibration.summarize_calibration(after * temperature, split.labels),
                "after": calibration.summarize_calibration(after, split.labels),
            }
    return found


def _abstention(corpus: Corpus, outcome: Outcome, target: float | None) -> dict[str, Any]:
    truth = corpus.validation.labels
    assert truth is not None
    assert outcome.validation is not None
    chances = probabilities.softmax(outcome.validation.logits)
    right = float((chances.argmax(axis=1) == truth).mean())
    asked = 1 - (1 - right) / 2 if target is None else target
    chosen = calibration.threshold(chances, truth, asked)
    found: dict[str, Any] = {"target": asked, "threshold": chosen}
    for split, scores in ((corpus.validation, outcome.validation), (corpus.test, outcome.test)):
        found[split.name] = None
        if split.labels is not None:
            chances = probabilities.softmax(scores.logits)
            found[split.name] = {"curve": calibration.risk_coverage(chances, split.labels)}
            if chosen is not None:
                found[split.name] |= calibration.answered_at(chances, split.labels, chosen)
    return found
