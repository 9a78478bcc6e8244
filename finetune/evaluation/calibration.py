"""Held-out logits → a temperature, folded into the saved head; calibration and abstention.

A classifier's softmax is often overconfident. Divided by one temperature T, its logits give the
same predictions with calibrated probabilities (Guo et al. 2017, arXiv 1706.04599). T is fitted on
validation, or on the rows that each run of a cross-validation held out. It divides the head's
weight and bias in the saved model, so whoever loads it gets calibrated probabilities and needs no
extra field.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import betaincinv

from finetune.evaluation.intervals import wilson_interval
from finetune.evaluation.probabilities import divide_logits, row_losses, to_probabilities

BINS = 15  # as in Guo et al.
PRIOR_SD = 0.5  # of log T: how far from 1 a temperature is expected to be
SEARCHED = 10.0  # |log T|: no maximum lies farther out, as the prior outweighs any gain there
MIN_GAIN = 1.92  # nats: half the 95 % quantile of chi-squared with one degree of freedom
NORMAL_FROM = 50_000  # decisions from which on a bin's error is taken for normal
DRAWS = 200  # of outcomes, from the probabilities themselves
MISS = 0.05  # how probable it may be that a threshold misses its target
CURVE = 100  # points of a risk-coverage curve

Floats = NDArray[np.float64]
# (rows,) class ids; multi-label: 0 and 1 (rows, classes). Then each row and label is a decision of
# its own, and its probability is that of the label being one of the row's.
Labels = NDArray[Any]


@dataclass(frozen=True)
class Temperature:
    """What the logits are divided by, and why; 1 leaves the model as it is.

    Attributes:
        ordered: whether it divides what the logits of ordered labels are made of.
    """

    value: float
    why: str
    ordered: bool = False

    def divide(self, logits: NDArray[Any]) -> NDArray[np.float32]:
        """The logits of the saved model, from those that it was trained to. (rows, classes)"""
        return divide_logits(logits, self.value, self.ordered).astype(np.float32)


def fit_temperature(
    logits: NDArray[np.float32],
    labels: Labels,
    power_of_two: bool = False,
    rows: str = "validation rows",
    ordered: bool = False,
) -> Temperature:
    """The most probable temperature given held-out rows, where its gain is significant.

    Few rows, all of them right, fit best with T = 0, and a single wrong row later costs more than
    was gained. So log T has a normal prior around 0 (maximum a posteriori), which hundreds of rows
    outweigh. On simulated rows (scripts/studies/temperature_study.py) a width of 0.5 kept 95 % of
    the log loss that the best width gained, and lost a third as much in the worst draw.

    On rows that are calibrated already, one parameter gains more than `MIN_GAIN` nats once in 20
    times (the likelihood-ratio test, Wilks 1938). So few rows, or a calibrated model, leave T at
    1. Nor may the calibration error on the same rows grow.

    Args:
        logits: of rows that the model did not train on. (rows, classes)
        power_of_two: only such a T, which divides floats of any precision without rounding, for a
            head that computes in bf16, where rounding could change a prediction.
        rows: what to call them.
        ordered: as of `probabilities.divide_logits`.
    """

    def divide(by: Any) -> NDArray[np.float64]:
        return divide_logits(logits, by, ordered)

    def nats(log_t: float) -> float:
        return float(row_losses(divide(np.exp(log_t)), labels).sum())

    def nats_with_prior(log_t: float) -> float:
        return nats(log_t) + (log_t / PRIOR_SD) ** 2 / 2

    found = minimize_scalar(nats_with_prior, bounds=(-SEARCHED, SEARCHED), method="bounded")
    best = float(found.x)
    if power_of_two:
        best = float(np.log(2) * np.round(best / np.log(2)))
    value, gain = float(np.exp(best)), nats(0.0) - nats(best)
    if gain <= MIN_GAIN:
        return Temperature(1.0, f"no significant gain on {len(labels):,} {rows}", ordered)
    before, after = (
        expected_calibration_error(_to_probabilities(divide(t), labels), labels)
        for t in (1.0, value)
    )
    if after > before:
        why = f"a temperature would worsen the calibration error on the {rows}"
        return Temperature(1.0, why, ordered)
    return Temperature(value, f"fitted on {len(labels):,} {rows}", ordered)


def expected_calibration_error(probabilities: Floats, labels: Labels) -> float:
    """The expected calibration error: |confidence - accuracy| of each of 15 bins, by its rows.

    Args:
        probabilities: probabilities. (rows, classes)
    """
    return sum(
        part["rows"] / labels.size * abs(part["confidence"] - part["accuracy"])
        for part in reliability_bins(probabilities, labels)
    )


def expected_ece_of_calibrated(probabilities: Floats, labels: Labels) -> float:
    """The calibration error that the same probabilities would show if they were calibrated.

    It is not 0: each bin's accuracy is estimated from few rows. This is the mean over outcomes that
    are drawn from the probabilities themselves (consistency resampling, Bröcker & Smith 2007). An
    error near it can hardly be told from none.

    Args:
        probabilities: probabilities. (rows, classes)
    """
    confidence = probabilities.ravel() if labels.ndim == 2 else probabilities.max(axis=1)
    at = _bins(confidence)
    if len(confidence) > NORMAL_FROM:  # a bin's mean is nearly normal, whose mean distance is known
        squares = np.bincount(at, weights=confidence * (1 - confidence))
        return float(np.sqrt(2 / np.pi * squares).sum() / len(confidence))
    generator = np.random.default_rng(0)
    errors = []
    for _ in range(DRAWS):
        off = (generator.random(len(confidence)) < confidence) - confidence
        errors.append(np.abs(np.bincount(at, weights=off)).sum() / len(confidence))
    return float(np.mean(errors))


def _bins(confidence: Floats, bins: int = BINS) -> NDArray[np.intp]:
    return np.minimum((confidence * bins).astype(np.intp), bins - 1)


def _to_probabilities(logits: NDArray[Any], labels: Labels) -> Floats:
    return to_probabilities(logits, labels.ndim == 2)


def reliability_bins(
    probabilities: Floats, labels: Labels, bins: int = BINS
) -> list[dict[str, float]]:
    """The reliability diagram: mean confidence and accuracy of the rows in bins of confidence.

    Multi-label: of all decisions by the probability of the label, and how often it is the row's.
    """
    if labels.ndim == 2:
        confidence, correct = probabilities.ravel(), labels.ravel() > 0
    else:
        confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    at = _bins(confidence, bins)
    return [
        {
            "low": b / bins,
            "high": (b + 1) / bins,
            "rows": int((at == b).sum()),
            "confidence": float(confidence[at == b].mean()),
            "accuracy": float(correct[at == b].mean()),
        }
        for b in range(bins)
        if (at == b).any()
    ]


def risk_coverage(probabilities: Floats, labels: Labels) -> list[dict[str, float]]:
    """Accuracy against coverage: of the most confident rows, for shares from few to all.

    El-Yaniv & Wiener 2010. Rows of equal probability are predicted together or not at all.
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    order = np.argsort(-confidence, kind="stable")
    answered = np.flatnonzero(np.append(np.diff(confidence[order]) < 0, True)) + 1
    hits = correct[order].cumsum()
    targets = np.linspace(0, len(labels), CURVE + 1)[1:]
    points = sorted({int(answered[np.searchsorted(answered, rows)]) for rows in targets})
    return [
        {"coverage": n / len(labels), "accuracy": float(hits[n - 1] / n), "rows": n} for n in points
    ]


@dataclass(frozen=True)
class AbstentionThreshold:
    """The probability below which a model abstains, so that its predictions reach an accuracy.

    Attributes:
        value: the probability; 0 where no prediction has to be left out.
        rows, correct: of validation, the rows at or above it, and how many of them are right.
        guaranteed: whether the accuracy on more such documents reaches the target with a confidence
            of 95 %; else the rows are too few to say so.
    """

    value: float
    rows: int
    correct: int
    guaranteed: bool


def choose_abstention_threshold(
    probabilities: Floats, labels: Labels, target: float
) -> AbstentionThreshold | None:
    """The lowest threshold above which accuracy reaches `target`, with a margin; None: none does.

    Selection with guaranteed risk (Geifman & El-Yaniv 2017, arXiv 1705.08500, algorithm 1): a
    binary search over thresholds, each accepted where the lower bound of Clopper & Pearson on the
    accuracy above it reaches the target. The bounds of all steps of the search hold together with a
    confidence of 95 %. Where the rows are too few for any, it is the threshold of the highest such
    bound among those above which these rows reach the target; `guaranteed` is false then.

    It lies halfway between two rows' probabilities; 0 where the accuracy of all rows is enough.

    Args:
        probabilities: of validation. (rows, classes)
        labels: class ids. (rows,)
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    order = np.argsort(-confidence, kind="stable")
    ranked, hits = confidence[order], correct[order].cumsum()
    ends = np.flatnonzero(np.append(np.diff(ranked) < 0, True))  # of rows of equal probability
    answered, right = ends + 1, hits[ends]
    bounds = _lower_bounds(right, answered, MISS / (int(np.log2(len(ends))) + 1))
    chosen, first, last = None, 0, len(ends) - 1
    while first <= last:
        middle = (first + last) // 2
        if bounds[middle] >= target:
            chosen, first = middle, middle + 1
        else:
            last = middle - 1
    guaranteed = chosen is not None
    if chosen is None:
        reaches = right >= target * answered
        if not reaches.any():
            return None
        chosen = int(np.where(reaches, bounds, -1.0).argmax())
    end = int(ends[chosen])
    value = 0.0 if end == len(labels) - 1 else float(ranked[end] + ranked[end + 1]) / 2
    return AbstentionThreshold(value, end + 1, int(right[chosen]), guaranteed)


def _lower_bounds(correct: NDArray[Any], rows: NDArray[Any], miss: float) -> Floats:
    """Below which a share is with a probability of at most `miss` (Clopper & Pearson 1934)."""
    bounds: Floats = betaincinv(np.maximum(correct, 1), rows - correct + 1, miss)
    return np.where(correct > 0, bounds, 0.0)


def score_answered(probabilities: Floats, labels: Labels, threshold: float) -> dict[str, Any]:
    """Coverage and accuracy, with interval, of the rows whose probability reaches a threshold."""
    kept = probabilities.max(axis=1) >= threshold
    rows = int(kept.sum())
    correct = int((probabilities.argmax(axis=1) == labels)[kept].sum())
    return {
        "rows": rows,
        "coverage": rows / len(labels),
        "accuracy": correct / rows if rows else None,
        "accuracy_interval": wilson_interval(correct / rows, rows) if rows else None,
    }


def summarize_calibration(logits: NDArray[Any], labels: Labels) -> dict[str, Any]:
    """How well the probabilities of logits are calibrated."""
    probabilities = _to_probabilities(logits, labels)
    return {
        "ece": expected_calibration_error(probabilities, labels),
        "ece_by_chance": expected_ece_of_calibrated(probabilities, labels),
        "log_loss": float(row_losses(logits, labels).mean()),
        "bins": reliability_bins(probabilities, labels),
    }
