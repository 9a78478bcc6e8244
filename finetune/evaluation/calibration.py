"""Validation's logits → a temperature, folded into the saved head; how far to believe an answer.

A classifier's softmax says how sure it is, and is often too sure. Divided by one temperature T,
its logits give the same answers with honest probabilities (Guo et al. 2017, arXiv 1706.04599). T is
fitted on validation alone and divides the head's weight and bias in the saved model, so whoever
loads it gets calibrated probabilities and needs no extra field.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from finetune.evaluation import metrics, probabilities

BINS = 15  # as in Guo et al.
HOTTEST = 20.0
CHANCE = 1.92  # nats: half the 95 % quantile of chi-squared with one degree of freedom
MANY = 50_000
DRAWS = 200  # of outcomes that probabilities would have
CURVE = 100  # points of a risk-coverage curve

Floats = NDArray[np.float64]
# (rows,) class ids; of several labels a row, 0 and 1 (rows, classes): then each of its decisions is
# an answer of its own, and the probability in question is that of the class being one of the row's.
Labels = NDArray[Any]


@dataclass(frozen=True)
class Temperature:
    """What the logits are divided by, and why; 1 leaves the model as it is."""

    value: float
    why: str


def fit_temperature(
    logits: NDArray[np.float32], labels: Labels, power_of_two: bool = False
) -> Temperature:
    """The temperature that makes validation likeliest, where the gain is more than chance.

    Fitted to rows that are calibrated already, one parameter gains more than `CHANCE` nats once in
    20 times (the likelihood-ratio test, Wilks 1938). So few rows, or an honest model, leave T at 1.
    Neither may the calibration error on the same rows grow.

    Args:
        logits: of validation. (rows, classes)
        power_of_two: only such a T, which divides floats of any precision without rounding, for a
            head that computes in bf16, where rounding could change an answer.
    """

    def nats(log_t: float) -> float:
        return float(metrics.row_losses(logits / np.exp(log_t), labels).sum())

    limit = float(np.log(HOTTEST))
    best = float(minimize_scalar(nats, bounds=(-limit, limit), method="bounded").x)
    if power_of_two:
        best = float(np.log(2) * np.round(best / np.log(2)))
    value, gain = float(np.exp(best)), nats(0.0) - nats(best)
    if gain <= CHANCE:
        return Temperature(
            1.0, f"no temperature gains more than chance on {len(labels):,} validation rows"
        )
    before, after = (
        expected_calibration_error(_chances(logits / t, labels), labels) for t in (1.0, value)
    )
    if after > before:
        return Temperature(1.0, "a temperature would worsen the calibration error on validation")
    return Temperature(value, f"fitted on the {len(labels):,} rows of validation")


def expected_calibration_error(chances: Floats, labels: Labels) -> float:
    """The expected calibration error: |confidence - accuracy| of each of 15 bins, by its rows.

    Args:
        chances: probabilities. (rows, classes)
    """
    return sum(
        part["rows"] / labels.size * abs(part["confidence"] - part["accuracy"])
        for part in reliability_bins(chances, labels)
    )


def expected_error_by_chance(chances: Floats, labels: Labels) -> float:
    """The calibration error that the same probabilities would show if they were honest.

    It is not 0: each bin's accuracy is of few rows, and strays from the truth. This is the mean
    over outcomes that are drawn from the probabilities themselves (consistency resampling, Bröcker
    & Smith 2007). An error near it can hardly be told from none.

    Args:
        chances: probabilities. (rows, classes)
    """
    sure = chances.ravel() if labels.ndim == 2 else chances.max(axis=1)
    at = _bins(sure)
    if len(sure) > MANY:  # a bin's mean is nearly normal, whose mean distance is known
        squares = np.bincount(at, weights=sure * (1 - sure))
        return float(np.sqrt(2 / np.pi * squares).sum() / len(sure))
    generator = np.random.default_rng(0)
    found = []
    for _ in range(DRAWS):
        off = (generator.random(len(sure)) < sure) - sure
        found.append(np.abs(np.bincount(at, weights=off)).sum() / len(sure))
    return float(np.mean(found))


def _bins(sure: Floats, bins: int = BINS) -> NDArray[np.intp]:
    return np.minimum((sure * bins).astype(np.intp), bins - 1)


def _chances(logits: NDArray[Any], labels: Labels) -> Floats:
    return probabilities.to_probabilities(logits, labels.ndim == 2)


def reliability_bins(chances: Floats, labels: Labels, bins: int = BINS) -> list[dict[str, float]]:
    """Rows by the probability of their answer, in bins of equal width: how sure, and how right.

    Of several labels a row, its decisions by the probability of the label: how sure, and how often
    it is one of the row's.
    """
    if labels.ndim == 2:
        sure, right = chances.ravel(), labels.ravel() > 0
    else:
        sure, right = chances.max(axis=1), chances.argmax(axis=1) == labels
    at = _bins(sure, bins)
    return [
        {
            "low": b / bins,
            "high": (b + 1) / bins,
            "rows": int((at == b).sum()),
            "confidence": float(sure[at == b].mean()),
            "accuracy": float(right[at == b].mean()),
        }
        for b in range(bins)
        if (at == b).any()
    ]


def risk_coverage(chances: Floats, labels: Labels) -> list[dict[str, float]]:
    """How right the surest share of the answers is, for shares from few to all rows.

    El-Yaniv & Wiener 2010. Rows of equal probability are answered together or not at all.
    """
    sure, right = chances.max(axis=1), chances.argmax(axis=1) == labels
    order = np.argsort(-sure, kind="stable")
    answered = np.flatnonzero(np.append(np.diff(sure[order]) < 0, True)) + 1
    hits = right[order].cumsum()
    wanted = np.linspace(0, len(labels), CURVE + 1)[1:]
    points = sorted({int(answered[np.searchsorted(answered, rows)]) for rows in wanted})
    return [
        {"coverage": n / len(labels), "accuracy": float(hits[n - 1] / n), "rows": n} for n in points
    ]


def threshold(chances: Floats, labels: Labels, target: float) -> float | None:
    """The lowest probability from which on answers are right as often as `target`; None: never.

    It lies halfway between two rows' probabilities; 0 where all answers together are good enough.
    """
    sure, right = chances.max(axis=1), chances.argmax(axis=1) == labels
    order = np.argsort(-sure, kind="stable")
    ranked = sure[order]
    accuracy = right[order].cumsum() / np.arange(1, len(labels) + 1)
    last = np.append(np.diff(ranked) < 0, True)  # of the rows of equal probability
    good = np.flatnonzero((accuracy >= target) & last)
    if len(good) == 0:
        return None
    end = int(good[-1])
    return 0.0 if end == len(labels) - 1 else float(ranked[end] + ranked[end + 1]) / 2


def answered_at(chances: Floats, labels: Labels, from_on: float) -> dict[str, float | int | None]:
    """What a threshold leaves of a split, and how right the answers are."""
    kept = chances.max(axis=1) >= from_on
    rows = int(kept.sum())
    right = int((chances.argmax(axis=1) == labels)[kept].sum())
    return {
        "rows": rows,
        "coverage": rows / len(labels),
        "accuracy": right / rows if rows else None,
    }


def summarize_calibration(logits: NDArray[Any], labels: Labels) -> dict[str, Any]:
    """How well the probabilities of logits are calibrated."""
    chances = _chances(logits, labels)
    return {
        "ece": expected_calibration_error(chances, labels),
        "ece_by_chance": expected_error_by_chance(chances, labels),
        "log_loss": float(metrics.row_losses(logits, labels).mean()),
        "bins": reliability_bins(chances, labels),
    }
