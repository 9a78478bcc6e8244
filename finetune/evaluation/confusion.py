"""True and predicted labels → the confusion matrix, its metrics, and their intervals."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from finetune.evaluation import intervals, rare_classes
from finetune.evaluation.intervals import Floats, Ids
from finetune.evaluation.metrics import Metric, OfPaths, measure
from finetune.evaluation.probabilities import is_correct, predict_labels, row_losses
from finetune.evaluation.ranks import RANKS

SHARES = ("accuracy", "within_one_accuracy")  # of rows, whose interval is Wilson's
Labels = NDArray[Any]  # class ids (rows,), or 0 and 1 (rows, classes)


def metric_intervals(
    metrics: Sequence[Metric],
    logits: NDArray[np.float32],
    labels: Labels,
    thresholds: Floats | None = None,
    values: Mapping[str, float] | None = None,
) -> dict[str, intervals.Interval | None]:
    """The interval of `loss` and of each metric by name.

    None for a metric of `evaluate.load`, and for the loss of rows that say nothing of its spread,
    or where it is infinite.

    Args:
        logits: (rows, classes)
        labels: true class ids (rows,); multi-label: 0 and 1 (rows, classes).
        thresholds: as of `probabilities.predict_labels`.
        values: of the metrics, where they are measured already.
    """
    rows, multi_label = len(labels), labels.ndim == 2
    values = measure(metrics, logits, labels, thresholds) if values is None else values
    predictions = predict_labels(logits, multi_label, thresholds)
    table = Confusion.from_labels(labels, predictions, logits.shape[1])
    # A label that the model does not know has no logit: its rows' loss is infinite.
    has_all = bool(np.isfinite(logits).all())
    of_loss = intervals.mean_interval(row_losses(logits, labels)) if has_all else None
    computed: dict[str, intervals.Interval | None] = {}
    for metric in metrics:
        name = metric.key
        match metric.interval_method:
            case "share":
                computed[name] = intervals.wilson_interval(values[name], rows)
            case "confusion":
                computed[name] = table.interval(name)
            case "paths":
                computed[name] = table.path_interval(cast(OfPaths, metric))
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
        occurs: which of them some row has or is given: macro averages are over these, in resamples
            too. (classes,)
    """

    def __init__(self, true: Labels, predicted: Labels, counts: Ids, classes: int) -> None:
        """true, predicted: of each cell, class ids (cells,), or 0 and 1 (cells, classes)."""
        self.counts, self.classes = counts, classes
        self.correct = is_correct(true, predicted)
        self._ids = true, predicted
        one, other = (_indicator(labels, classes) for labels in (true, predicted))
        self._true, self._predicted, self._hits = one.T, other.T, one.multiply(other).tocsr().T
        _, of_true, of_predicted = self.sums(counts[None].astype(np.float64))
        self.occurs = of_true[0] + of_predicted[0] > 0

    @classmethod
    def from_labels(cls, labels: Labels, predictions: Labels, classes: int) -> "Confusion":
        (true, predicted), counts = _cells(classes, labels, predictions)
        return cls(true, predicted, counts, classes)

    def sums(self, cells: Floats) -> tuple[Floats, Floats, Floats]:
        """True positives, true and predicted rows of each class. Each (resamples, classes)"""
        return (self._hits @ cells.T).T, (self._true @ cells.T).T, (self._predicted @ cells.T).T

    def value(self, name: str, cells: Floats) -> Floats:
        """A metric of the confusion matrix, by its name in `metrics.py`. (resamples,)"""
        if name in RANKS:
            return RANKS[name](cells, *self._ids)
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
        weights = true if average == "weighted" else np.ones_like(scores)
        if average == "macro":
            weights = np.broadcast_to(self.occurs.astype(np.float64), scores.shape)
        averaged: Floats = (scores * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-12)
        return averaged

    def observed(self, name: str) -> float:
        """A metric of the rows themselves."""
        return float(self.value(name, self.counts[None].astype(np.float64))[0])

    def interval(self, name: str) -> intervals.Interval:
        """The interval of a metric of the confusion matrix; it holds the observed value."""
        rows, observed = int(self.counts.sum()), self.observed(name)
        lowest = -1.0 if name in ("matthews_correlation", "quadratic_weighted_kappa") else 0.0
        # Of errors in ranks, the largest is that between the first label and the last.
        most = max(1, self.classes - 1) if name == "rank_mae" else 1
        low, high = intervals.score_interval(observed / most, rows, lowest)
        at_least = most * low, most * high
        kind, _, average = name.rpartition("_")
        if name in SHARES:
            return at_least
        if average == "macro" and rare_classes.has_rare_classes(kind, self.counts, self.sums):
            found = intervals.middle(rare_classes.macro_draws(kind, self.counts, self.sums))
        else:
            found = intervals.cells_interval(
                self.counts, lambda cells: self.value(name, cells), width=3 * self.classes
            )
        if rows < intervals.FEW_ROWS or intervals.is_point(found):
            found = intervals.hull(found, at_least)
        return intervals.hull(found, (observed, observed))

    def path_interval(self, metric: OfPaths) -> intervals.Interval:
        """The interval of a metric of labels with levels; it holds the observed value."""
        columns = metric.counts(*self._ids)

        def value(cells: Floats) -> Floats:
            return metric.ratio([cells @ column for column in columns])

        rows, observed = int(self.counts.sum()), float(value(self.counts[None].astype(float))[0])
        if metric.level is not None:  # a share of rows
            return intervals.score_interval(observed, rows)
        found = intervals.cells_interval(self.counts, value, width=3)
        if rows < intervals.FEW_ROWS or intervals.is_point(found):
            found = intervals.hull(found, intervals.score_interval(observed, rows))
        return intervals.hull(found, (observed, observed))


def interval_of_tasks(
    name: str, labels: Labels, predictions: Labels, blocks: Sequence[slice]
) -> intervals.Interval:
    """The interval of the mean of a metric of several tasks, each over the rows with a label of it.

    A row is drawn with the labels of all of its tasks (the Bayesian bootstrap, Rubin 1981), as they
    are not independent.

    Args:
        name: of a metric of the confusion matrix.
        labels, predictions: 0 and 1. (rows, labels of all tasks)
        blocks: the columns of each task.
    """
    (true, predicted), counts = _cells(labels.shape[1], labels, predictions)
    tables: list[tuple[NDArray[np.bool_], Confusion]] = []
    for block in blocks:
        has: NDArray[np.bool_] = np.asarray(true[:, block].any(axis=1))
        if has.any():
            one, other = (of[has, block].argmax(axis=1) for of in (true, predicted))
            tables.append((has, Confusion(one, other, counts[has], block.stop - block.start)))

    def mean(cells: Floats) -> Floats:
        of_tasks = [table.value(name, cells[:, has]) for has, table in tables]
        averaged: Floats = np.mean(of_tasks, axis=0)
        return averaged

    observed = float(mean(counts[None].astype(np.float64))[0])
    found = intervals.bayesian_interval(counts, mean, width=3 * labels.shape[1])
    rows = min(int(table.counts.sum()) for _, table in tables)
    if rows < intervals.FEW_ROWS or intervals.is_point(found):
        lowest = -1.0 if name in ("matthews_correlation", "quadratic_weighted_kappa") else 0.0
        found = intervals.hull(found, intervals.score_interval(observed, rows, lowest))
    return intervals.hull(found, (observed, observed))


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

    Rows count with both predictions, so that what is hard for both is no difference. Of accuracy it
    is `intervals.paired_interval`. Of other metrics, the rows have the weights of the Bayesian
    bootstrap (Rubin 1981), which leave out no class, and rare classes are drawn as in
    `rare_classes.py`; of few rows, the interval is at least as wide as that of accuracy. Where few
    rows tell the two apart, it holds 0: exchanging the predictions of m rows at random makes 2^m
    differences, of which fewer than 1 in 20 can be as large only from six rows on.

    Args:
        name: accuracy, or another metric of the confusion matrix.
        predictions, others: the class ids of two classifiers (rows,); multi-label: 0 and 1
            (rows, classes).
    """
    (true, one, other), counts = _cells(classes, labels, predictions, others)
    tables = [Confusion(true, predicted, counts, classes) for predicted in (one, other)]
    rows, difference = int(counts.sum()), tables[0].observed(name) - tables[1].observed(name)
    only_one = int(counts[tables[0].correct & ~tables[1].correct].sum())
    only_other = int(counts[tables[1].correct & ~tables[0].correct].sum())
    of_accuracy = intervals.paired_interval(only_one, only_other, rows)
    if name == "accuracy":
        return {"difference": difference, "interval": of_accuracy}
    apart = int(counts[~is_correct(one, other)].sum())

    def gap(cells: Floats) -> Floats:
        return tables[0].value(name, cells) - tables[1].value(name, cells)

    kind, _, average = name.rpartition("_")
    if average == "macro" and any(
        rare_classes.has_rare_classes(kind, counts, table.sums) for table in tables
    ):
        ours, theirs = (rare_classes.macro_draws(kind, counts, table.sums) for table in tables)
        found = intervals.middle(ours - theirs)
    else:
        found = intervals.bayesian_interval(counts, gap, width=6 * classes)
    if rows < intervals.FEW_ROWS or intervals.is_point(found):
        found = intervals.hull(found, of_accuracy)
    if apart < intervals.LEAST_APART:
        found = intervals.hull(found, (0.0, 0.0))
    return {"difference": difference, "interval": intervals.hull(found, (difference, difference))}
