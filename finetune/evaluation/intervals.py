"""How sure a score is: 95 % intervals over documents.

The rows of a test split are a sample of the documents that the model will meet. Another sample
would give another score; an interval says how far off this one may be. One method for each kind of
number:

- a share of rows (accuracy, top-k accuracy, micro averages; a class's recall and precision):
  Wilson 1927, which never leaves 0 to 1 and holds for a few rows and for shares near 1.
- what is worked out from the confusion matrix (macro and weighted averages, Matthews correlation):
  the bias-corrected and accelerated bootstrap (Efron 1987, "Better bootstrap confidence
  intervals"), 2,000 resamples of rows. A resample of rows is a multinomial draw of the matrix's
  cells, so it costs the same for a thousand rows and for a million.
- a mean over rows (loss): the same bootstrap, of the rows.

Where a row may have several labels, a cell holds the rows of one true set of labels and one given
set; micro averages are worked out from these too, as they are no share of rows.

`tests/test_intervals.py` measures how often each holds the truth.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from finetune.evaluation import metrics

RESAMPLES = 2000
LEVEL = 0.95
MANY_CELLS = 2_000  # of which the jackknife leaves out each; of more, of as many drawn at random
MANY = 20_000  # rows from which on the mean of a resample is taken for normal, as it is by then
AT_ONCE = 4_000_000  # numbers held at a time: resamples are drawn in chunks of that size

Interval = tuple[float, float]
Floats = NDArray[np.float64]
Ids = NDArray[np.int64]
Labels = NDArray[Any]  # class ids (rows,), or 0 and 1 (rows, classes)
# Weights of cells (resamples, cells) → a value for each resample.
Statistic = Callable[[Floats], Floats]


def wilson_interval(share: float, rows: int, z: float = 1.96) -> Interval:
    """The interval of a share of independent rows; of no rows at all, everything is possible."""
    if rows == 0:
        return 0.0, 1.0
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def metric_intervals(
    wanted: Sequence[metrics.Metric],
    logits: NDArray[np.float32],
    labels: Labels,
    thresholds: Floats | None = None,
) -> dict[str, Interval | None]:
    """The interval of `loss` and of each metric by name; None for a metric of `evaluate.load`.

    Args:
        logits: (rows, classes)
        labels: true class ids (rows,); of several labels, 0 and 1 (rows, classes).
        thresholds: as of `metrics.predict_labels`.
    """
    rows, several = len(labels), labels.ndim == 2
    values = metrics.measure(wanted, logits, labels, thresholds)
    table = Confusion.of(
        labels, metrics.predict_labels(logits, several, thresholds), logits.shape[1]
    )
    of_mean = mean_interval(metrics.row_losses(logits, labels))
    found: dict[str, Interval | None] = {}
    for metric in wanted:
        name = metric.key
        if is_share(metric):
            found[name] = wilson_interval(values[name], rows)
        elif isinstance(metric, metrics.Averaged | metrics.MatthewsCorrelation):
            found[name] = table.interval(lambda cells, name=name: table.value(name, cells))  # type: ignore[misc]
        else:
            found[name] = of_mean if isinstance(metric, metrics.LogLoss) else None
    return found | {"loss": of_mean}


def is_share(metric: metrics.Metric) -> bool:
    """Whether a metric is the share of rows that are right in some sense."""
    if isinstance(metric, metrics.Averaged) and metric.several:
        return False
    if isinstance(metric, metrics.Averaged):  # of single labels, these are all the accuracy
        return metric.average == "micro" or metric.key == "recall_weighted"
    return isinstance(metric, metrics.Accuracy | metrics.TopKAccuracy)


def mean_interval(values: Floats, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The interval of the mean of independent draws. (rows,)"""
    rows = len(values)
    draw = np.random.default_rng(seed)
    if rows > MANY:
        found = [values.mean() + values.std() / math.sqrt(rows) * draw.normal(size=resamples)]
        return bca_interval(float(values.mean()), found[0], values - values.mean(), np.ones(rows))
    chunk = max(1, AT_ONCE // max(1, rows))
    found = [
        values[draw.integers(0, rows, (min(chunk, resamples - start), rows))].mean(axis=1)
        for start in range(0, resamples, chunk)
    ]
    deviations = values - values.mean()
    return bca_interval(float(values.mean()), np.concatenate(found), deviations, np.ones(rows))


def of_cells(
    counts: Ids, statistic: Statistic, resamples: int = RESAMPLES, seed: int = 0, width: int = 1
) -> Interval:
    """The interval of a statistic of rows that fall into cells, such as a confusion matrix's.

    Args:
        counts: rows in each cell, none of them empty. (cells,)
        width: numbers that the statistic holds for each resample.
    """
    draw = np.random.default_rng(seed)
    rows = int(counts.sum())
    chunk = max(1, AT_ONCE // max(width, len(counts)))
    found = [
        statistic(
            draw.multinomial(rows, counts / rows, min(chunk, resamples - start)).astype(np.float64)
        )
        for start in range(0, resamples, chunk)
    ]
    # The jackknife: one row less in a cell, as often as the cell has rows.
    left_out = np.arange(len(counts))
    if len(counts) > MANY_CELLS:
        left_out = draw.choice(len(counts), MANY_CELLS, replace=False)
    less = []
    for some in np.array_split(left_out, -(-len(left_out) // chunk)):
        without = np.tile(counts.astype(np.float64), (len(some), 1))
        without[np.arange(len(some)), some] -= 1
        less.append(statistic(without))
    influence, weights = np.concatenate(less), counts[left_out].astype(np.float64)
    influence = np.average(influence, weights=weights) - influence
    value = float(statistic(counts[None].astype(np.float64))[0])
    weights *= rows / weights.sum()
    return bca_interval(value, np.concatenate(found), influence, weights)


def bca_interval(value: float, resampled: Floats, influence: Floats, weights: Floats) -> Interval:
    """Efron's interval: quantiles of the resamples, moved by their bias and by their skew.

    Args:
        value: the statistic of the rows themselves.
        resampled: of each resample. (resamples,)
        influence: how much each row adds to the statistic, around 0. (rows,)
        weights: how many rows are meant by each. (rows,)
    """
    resampled = resampled[np.isfinite(resampled)]
    if len(resampled) == 0 or resampled.min() == resampled.max():
        return value, value
    # Ties count half: scores of few rows take few values.
    below = ((resampled < value).mean() + (resampled <= value).mean()) / 2
    below = float(np.clip(below, 1 / (2 * len(resampled)), 1 - 1 / (2 * len(resampled))))
    bias = special.ndtri(below)
    spread = float((weights * influence**2).sum())
    skew = float((weights * influence**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    ends = []
    for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2):
        at = bias + special.ndtri(tail)
        ends.append(float(np.quantile(resampled, special.ndtr(bias + at / (1 - skew * at)))))
    return ends[0], ends[1]


class Confusion:
    """The rows of a split by true and by given class, as cells: only those that have rows.

    Of several labels a row, by the true and the given set of them.

    Attributes:
        counts: the rows of each cell. (cells,)
        exact: whether what is given there is what is true. (cells,)
        classes: how many there are.
        several: whether a row may have several labels.
    """

    def __init__(self, true: Labels, given: Labels, counts: Ids, classes: int) -> None:
        """true, given: of each cell, class ids (cells,), or 0 and 1 (cells, classes)."""
        self.counts, self.classes, self.several = counts, classes, true.ndim == 2
        self.exact = metrics.is_correct(true, given)
        one, other = (_indicator(of, classes) for of in (true, given))
        self._true, self._given, self._right = one.T, other.T, one.multiply(other).tocsr().T

    @classmethod
    def of(cls, labels: Labels, guesses: Labels, classes: int) -> "Confusion":
        found, counts = _cells(classes, labels, guesses)
        return cls(found[0], found[1], counts, classes)

    def sums(self, cells: Floats) -> tuple[Floats, Floats, Floats]:
        """Right, true and given rows of each class. Each (resamples, classes)"""
        return (self._right @ cells.T).T, (self._true @ cells.T).T, (self._given @ cells.T).T

    def value(self, name: str, cells: Floats) -> Floats:
        """A metric of the confusion matrix, by its name in `metrics.py`. (resamples,)"""
        right, true, given = self.sums(cells)
        if name == "matthews_correlation":
            return _matthews(right, true, given)
        if name == "accuracy":
            shares: Floats = cells @ self.exact / cells.sum(axis=1)
            return shares
        kind, average = name.rsplit("_", 1)
        if average == "micro":  # of single labels, all three are the accuracy
            right, true, given = (sums.sum(axis=1, keepdims=True) for sums in (right, true, given))
        below = {"precision": given, "recall": true, "f1": (true + given) / 2}[kind]
        scores = right / np.maximum(below, 1e-12)
        weights = true if average == "weighted" else (true + given > 0).astype(np.float64)
        found: Floats = (scores * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-12)
        return found

    def own(self, name: str) -> float:
        """A metric of the rows themselves."""
        return float(self.value(name, self.counts[None].astype(np.float64))[0])

    def f1(self, cells: Floats) -> Floats:
        """F1 of each class. (resamples, classes)"""
        right, true, given = self.sums(cells)
        found: Floats = 2 * right / np.maximum(true + given, 1e-12)
        return found

    def interval(self, statistic: Statistic) -> Interval:
        """The interval of a statistic of the cells.

        Where no row is wrong, or none is right and the statistic is 0, no resample says how that
        may end: Wilson's interval of the accuracy stands in. (Of several labels a row, F1 may be
        above 0 though not one row is right in all.)
        """
        rows = int(self.counts.sum())
        right = int(self.counts[self.exact].sum())
        own = float(statistic(self.counts[None].astype(np.float64))[0])
        if right in (0, rows) and math.isclose(own, right / rows, abs_tol=1e-9):
            return wilson_interval(right / rows, rows)
        return of_cells(self.counts, statistic, width=3 * self.classes)

    def f1_intervals(self, resamples: int = RESAMPLES, seed: int = 0) -> list[Interval]:
        """The interval of each class's F1: quantiles of the resamples.

        Of a class without a mistake, or without a hit, Wilson's interval of its recall.
        """
        draw = np.random.default_rng(seed)
        rows = int(self.counts.sum())
        resamples = min(resamples, max(200, AT_ONCE // (3 * self.classes)))
        drawn = draw.multinomial(rows, self.counts / rows, resamples).astype(np.float64)
        scores = self.f1(drawn)
        tails = np.quantile(scores, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
        right, true, given = (sums[0] for sums in self.sums(self.counts[None].astype(np.float64)))
        return [
            wilson_interval(float(right[c] > 0), round(float(true[c])))
            if right[c] in (0, (true[c] + given[c]) / 2)
            else (float(tails[0, c]), float(tails[1, c]))
            for c in range(self.classes)
        ]


def _cells(classes: int, *answers: Labels) -> tuple[list[Labels], Ids]:
    """The different rows of some columns of answers taken together, and how often each occurs."""
    if answers[0].ndim == 2:
        wide = np.concatenate([answer > 0 for answer in answers], axis=1)
        packed = np.ascontiguousarray(np.packbits(wide, axis=1))
        keys = packed.view(f"V{packed.shape[1]}").ravel()
    else:
        keys = np.ravel_multi_index(answers, (classes,) * len(answers))
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    return [answer[first] for answer in answers], counts.astype(np.int64)


def _indicator(answers: Labels, classes: int) -> sparse.csr_array:
    """0 and 1 for each class. (cells, classes)"""
    if answers.ndim == 2:
        return sparse.csr_array(answers.astype(np.float64))
    cells = len(answers)
    return sparse.csr_array((np.ones(cells), (np.arange(cells), answers)), shape=(cells, classes))


def _matthews(right: Floats, true: Floats, given: Floats) -> Floats:
    rows = true.sum(axis=1)
    above = right.sum(axis=1) * rows - (true * given).sum(axis=1)
    below = np.sqrt((rows**2 - (given**2).sum(axis=1)) * (rows**2 - (true**2).sum(axis=1)).clip(0))
    found: Floats = np.where(below > 0, above / np.maximum(below, 1e-12), 0.0)
    return found


def paired_difference(
    name: str, labels: Labels, ones: Labels, others: Labels, classes: int
) -> dict[str, float | Interval]:
    """How much better `ones` are than `others` on the same rows, by a metric, and its interval.

    Rows are resampled with both answers, so that what is hard for both is no difference. Where the
    two answer every row alike, no resample says how far apart they may be: Wilson's bound of a
    share of none, either way, stands in.

    Args:
        name: accuracy, or another metric of the confusion matrix.
        ones, others: the class ids that two classifiers give (rows,); of several labels, 0 and 1
            (rows, classes).
    """
    (true, one, other), counts = _cells(classes, labels, ones, others)
    tables = [Confusion(true, given, counts, classes) for given in (one, other)]

    def gap(cells: Floats) -> Floats:
        return tables[0].value(name, cells) - tables[1].value(name, cells)

    if np.array_equal(one, other):
        most = wilson_interval(0.0, int(counts.sum()))[1]
        return {"difference": 0.0, "interval": (-most, most)}
    return {
        "difference": float(gap(tables[0].counts[None].astype(np.float64))[0]),
        "interval": of_cells(tables[0].counts, gap, width=6 * classes),
    }
