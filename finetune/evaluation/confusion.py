"""True and predicted labels → the confusion matrix, its metrics, and their intervals."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from finetune.evaluation import intervals
from finetune.evaluation.intervals import Floats, Ids
from finetune.evaluation.metrics import Metric, measure
from finetune.evaluation.probabilities import is_correct, predict_labels, row_losses

Labels = NDArray[Any]  # class ids (rows,), or 0 and 1 (rows, classes)


def metric_intervals(
    metrics: Sequence[Metric],
    logits: NDArray[np.float32],
    labels: Labels,
    thresholds: Floats | None = None,
) -> dict[str, intervals.Interval | None]:
    """The interval of `loss` and of each metric by name; None for a metric of `evaluate.load`.

    Args:
        logits: (rows, classes)
        labels: true class ids (rows,); multi-label: 0 and 1 (rows, classes).
        thresholds: as of `probabilities.predict_labels`.
    """
    rows, multi_label = len(labels), labels.ndim == 2
    values = measure(metrics, logits, labels, thresholds)
    predictions = predict_labels(logits, multi_label, thresholds)
    table = Confusion.from_labels(labels, predictions, logits.shape[1])
    of_loss = intervals.mean_interval(row_losses(logits, labels))
    computed: dict[str, intervals.Interval | None] = {}
    for metric in metrics:
        name = metric.key
        match metric.interval_method:
            case "share":
                computed[name] = intervals.wilson_interval(values[name], rows)
            case "confusion":
                computed[name] = table.interval(partial(table.value, name))
            case "loss":
                computed[name] = of_loss
            case _:
                computed[name] = None
    return computed | {"loss": of_loss}


class Confusion:
    """The confusion matrix of a split, sparse: only the cells that have rows.

    Multi-label, a cell is a true and a predicted set of labels.

    Attributes:
        counts: the rows of each cell. (cells,)
        correct: whether what is predicted there is what is true. (cells,)
        classes: how many there are.
    """

    def __init__(self, true: Labels, predicted: Labels, counts: Ids, classes: int) -> None:
        """true, predicted: of each cell, class ids (cells,), or 0 and 1 (cells, classes)."""
        self.counts, self.classes = counts, classes
        self.correct = is_correct(true, predicted)
        one, other = (_indicator(labels, classes) for labels in (true, predicted))
        self._true, self._predicted, self._hits = one.T, other.T, one.multiply(other).tocsr().T

    @classmethod
    def from_labels(cls, labels: Labels, predictions: Labels, classes: int) -> "Confusion":
        (true, predicted), counts = _cells(classes, labels, predictions)
        return cls(true, predicted, counts, classes)

    def sums(self, cells: Floats) -> tuple[Floats, Floats, Floats]:
        """True positives, true and predicted rows of each class. Each (resamples, classes)"""
        return (self._hits @ cells.T).T, (self._true @ cells.T).T, (self._predicted @ cells.T).T

    def value(self, name: str, cells: Floats) -> Floats:
        """A metric of the confusion matrix, by its name in `metrics.py`. (resamples,)"""
        hits, true, predicted = self.sums(cells)
        if name == "matthews_correlation":
            return _matthews(hits, true, predicted)
        if name == "accuracy":
            shares: Floats = cells @ self.correct / cells.sum(axis=1)
            return shares
        kind, average = name.rsplit("_", 1)
        if average == "micro":  # of single labels, all three are the accuracy
            hits, true, predicted = (
                sums.sum(axis=1, keepdims=True) for sums in (hits, true, predicted)
            )
        below = {"precision": predicted, "recall": true, "f1": (true + predicted) / 2}[kind]
        scores = hits / np.maximum(below, 1e-12)
        weights = true if average == "weighted" else (true + predicted > 0).astype(np.float64)
        averaged: Floats = (scores * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-12)
        return averaged

    def observed(self, name: str) -> float:
        """A metric of the rows themselves."""
        return float(self.value(name, self.counts[None].astype(np.float64))[0])

    def f1(self, cells: Floats) -> Floats:
        """F1 of each class. (resamples, classes)"""
        hits, true, predicted = self.sums(cells)
        scores: Floats = 2 * hits / np.maximum(true + predicted, 1e-12)
        return scores

    def interval(self, statistic: intervals.Statistic) -> intervals.Interval:
        """The interval of a statistic of the cells.

        Where no row is wrong, or none is right and the statistic is 0, no resample says how that
        may end: Wilson's interval of the accuracy is used instead. (Multi-label, F1 may be above 0
        though not one row is right in all of its labels.)
        """
        rows = int(self.counts.sum())
        correct = int(self.counts[self.correct].sum())
        observed = float(statistic(self.counts[None].astype(np.float64))[0])
        if correct in (0, rows) and math.isclose(observed, correct / rows, abs_tol=1e-9):
            return intervals.wilson_interval(correct / rows, rows)
        return intervals.cells_interval(self.counts, statistic, width=3 * self.classes)

    def f1_intervals(
        self, resamples: int = intervals.RESAMPLES, seed: int = 0
    ) -> list[intervals.Interval]:
        """The interval of each class's F1: quantiles of the resamples.

        Of a class without a mistake, or without a true positive, Wilson's interval of its recall.
        """
        draw = np.random.default_rng(seed)
        rows = int(self.counts.sum())
        resamples = min(resamples, max(200, intervals.AT_ONCE // (3 * self.classes)))
        drawn = draw.multinomial(rows, self.counts / rows, resamples).astype(np.float64)
        scores = self.f1(drawn)
        tails = np.quantile(scores, [(1 - intervals.LEVEL) / 2, (1 + intervals.LEVEL) / 2], axis=0)
        hits, true, predicted = (
            sums[0] for sums in self.sums(self.counts[None].astype(np.float64))
        )
        return [
            intervals.wilson_interval(float(hits[c] > 0), round(float(true[c])))
            if hits[c] in (0, (true[c] + predicted[c]) / 2)
            else (float(tails[0, c]), float(tails[1, c]))
            for c in range(self.classes)
        ]


def _cells(classes: int, *columns: Labels) -> tuple[list[Labels], Ids]:
    """The distinct rows of some columns of labels taken together, and how often each occurs."""
    if columns[0].ndim == 2:
        wide = np.concatenate([column > 0 for column in columns], axis=1)
        packed = np.ascontiguousarray(np.packbits(wide, axis=1))
        keys = packed.view(f"V{packed.shape[1]}").ravel()
    else:
        keys = np.ravel_multi_index(columns, (classes,) * len(columns))
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    return [column[first] for column in columns], counts.astype(np.int64)


def _indicator(labels: Labels, classes: int) -> sparse.csr_array:
    """0 and 1 for each class. (cells, classes)"""
    if labels.ndim == 2:
        return sparse.csr_array(labels.astype(np.float64))
    cells = len(labels)
    return sparse.csr_array((np.ones(cells), (np.arange(cells), labels)), shape=(cells, classes))


def _matthews(hits: Floats, true: Floats, predicted: Floats) -> Floats:
    rows = true.sum(axis=1)
    above = hits.sum(axis=1) * rows - (true * predicted).sum(axis=1)
    below = np.sqrt(
        (rows**2 - (predicted**2).sum(axis=1)) * (rows**2 - (true**2).sum(axis=1)).clip(0)
    )
    correlation: Floats = np.where(below > 0, above / np.maximum(below, 1e-12), 0.0)
    return correlation


def paired_difference(
    name: str, labels: Labels, predictions: Labels, others: Labels, classes: int
) -> dict[str, float | intervals.Interval]:
    """How much better `predictions` are than `others` on the same rows, by a metric, with interval.

    Rows are resampled with both predictions, so that what is hard for both is no difference. Where
    the two agree on every row, no resample says how far apart they may be: Wilson's bound of a
    share of none, either way, is used instead.

    Args:
        name: accuracy, or another metric of the confusion matrix.
        predictions, others: the class ids of two classifiers (rows,); multi-label: 0 and 1
            (rows, classes).
    """
    (true, one, other), counts = _cells(classes, labels, predictions, others)
    tables = [Confusion(true, predicted, counts, classes) for predicted in (one, other)]

    def gap(cells: Floats) -> Floats:
        return tables[0].value(name, cells) - tables[1].value(name, cells)

    if np.array_equal(one, other):
        most = intervals.wilson_interval(0.0, int(counts.sum()))[1]
        return {"difference": 0.0, "interval": (-most, most)}
    return {
        "difference": float(gap(tables[0].counts[None].astype(np.float64))[0]),
        "interval": intervals.cells_interval(tables[0].counts, gap, width=6 * classes),
    }
