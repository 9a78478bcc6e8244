"""Names of metrics → `evaluate` metrics that need no network (the table is `METRICS`).

Each is an `evaluate.Metric`, so it can be used in place of `evaluate.load`, offline:

    Accuracy().compute(predictions=[0, 1], references=[0, 0])  # {"accuracy": 0.5}

Any name that is not here goes to `evaluate.load`.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from finetune.config.label_tasks import POINT
from finetune.data.number_scale import is_number
from finetune.evaluation.hierarchy import Hierarchy, hierarchical_score
from finetune.evaluation.number_metrics import NUMBERS
from finetune.evaluation.probabilities import predict_labels, to_probabilities
from finetune.evaluation.ranks import RANKS
from finetune.runtime.errors import InputError, did_you_mean
from finetune.runtime.memory_errors import reraise_memory_error

# How a metric's 95 % interval is computed (`confusion.metric_intervals`); None: it has none.
IntervalMethod = Literal["share", "confusion", "paths", "loss", "numbers"] | None
LEVEL = re.compile(r"level_([1-9]\d*)_accuracy")


class _Metric(evaluate.Metric):  # type: ignore[misc]
    """What these metrics share: they hold their inputs in memory and cite scikit-learn."""

    key: str
    takes_probabilities = False  # of all classes; else predicted labels
    interval_method: IntervalMethod = None

    def __init__(self, multi_label: bool = False, **settings: Any) -> None:
        """Multi-label: references and predictions are 0 and 1 for each class, as with `evaluate`'s
        own metrics of that configuration."""
        name = "multilabel" if multi_label else None
        super().__init__(config_name=name, keep_in_memory=True, **settings)

    @property
    def multi_label(self) -> bool:
        """Whether rows may have several labels."""
        return bool(self.config_name == "multilabel")

    def _info(self) -> evaluate.MetricInfo:
        label = datasets.Value("int64")
        references = datasets.Sequence(label) if self.multi_label else label
        probabilities = datasets.Sequence(datasets.Value("float64"))
        predictions = probabilities if self.takes_probabilities else references
        return evaluate.MetricInfo(
            description=self.__doc__ or "",
            citation="Pedregosa et al., scikit-learn, JMLR 12 (2011)",
            features=datasets.Features({"predictions": predictions, "references": references}),
        )


class Accuracy(_Metric):
    """The share of texts whose label is right; multi-label: all of their labels."""

    key = "accuracy"
    interval_method = "share"

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {self.key: float(sk.accuracy_score(references, predictions))}


class Averaged(_Metric):
    """Precision, recall or F1 of each class, averaged over classes.

    macro: every class counts equally; weighted: by its rows; micro: over all rows at once. A class
    counts where some row has it or is given it: one that is never predicted has precision 0, one
    that never occurs has recall 0. So it is in scikit-learn of single labels; multi-label, it
    counts a class that the rows say nothing of, too, as 0.
    """

    def __init__(self, kind: str, average: str, multi_label: bool = False) -> None:
        self.key = f"{kind}_{average}"
        self.kind, self.average = kind, average
        # Of single labels, all micro averages and weighted recall are the accuracy.
        is_accuracy = not multi_label and (average == "micro" or self.key == "recall_weighted")
        self.interval_method = "share" if is_accuracy else "confusion"
        super().__init__(multi_label)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        measure = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}
        how: dict[str, Any] = {"average": self.average, "zero_division": 0}
        if self.multi_label:
            there = (np.asarray(references) + np.asarray(predictions)).any(axis=0)
            how["labels"] = np.flatnonzero(there)
            if not there.any():
                return {self.key: 0.0}
        return {self.key: float(measure[self.kind](references, predictions, **how))}


class MatthewsCorrelation(_Metric):
    """Correlation of predicted and true labels: 1 perfect, 0 no better than chance."""

    key = "matthews_correlation"
    interval_method = "confusion"

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {self.key: float(sk.matthews_corrcoef(references, predictions))}


class OfRanks(_Metric):
    """Of ordered labels, by how many ranks predictions are off: a function of `ranks.RANKS`."""

    interval_method = "confusion"

    def __init__(self, key: str, multi_label: bool = False) -> None:
        self.key = key
        super().__init__(multi_label)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        if self.multi_label:
            raise ValueError("it needs rows with one label each")
        true, predicted = np.asarray(references), np.asarray(predictions)
        return {self.key: float(RANKS[self.key](np.ones((1, len(true))), true, predicted)[0])}


class OfPaths(_Metric):
    """Of labels with levels, how far predictions are right along the path (`hierarchy.py`).

    hierarchical_precision, _recall and _f1: over all nodes of all paths; level_2_accuracy: the
    share of texts whose node of the second level is right.
    """

    interval_method = "paths"

    def __init__(self, key: str, multi_label: bool = False) -> None:
        self.key = key
        self.tree: Hierarchy | None = None  # of `bind_labels`
        super().__init__(multi_label)

    @property
    def level(self) -> int | None:
        """The level whose nodes are compared; None: whole paths are."""
        found = LEVEL.fullmatch(self.key)
        return None if found is None else int(found[1])

    def counts(self, true: NDArray[Any], predicted: NDArray[Any]) -> list[NDArray[np.float64]]:
        """What the metric is a ratio of: of each row or cell, the numbers to be summed."""
        if self.tree is None:
            raise ValueError("it needs data.hierarchy, and rows with one label each")
        if self.level is not None:
            same = self.tree.at_level(true, self.level) == self.tree.at_level(predicted, self.level)
            return [same.astype(np.float64), np.ones(len(true)), np.ones(len(true))]
        return [*self.tree.overlaps(true, predicted)]

    def ratio(self, sums: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
        """The metric of sums of `counts`. (resamples,)"""
        kind = "f1" if self.level is not None else self.key.rpartition("_")[2]
        return hierarchical_score(kind, *sums)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        counts = self.counts(np.asarray(references), np.asarray(predictions))
        return {self.key: float(self.ratio([column.sum(keepdims=True) for column in counts])[0])}


class OfNumbers(_Metric):
    """Of numbers, how far predictions are off: a function of `number_metrics.NUMBERS`."""

    interval_method = "numbers"

    def __init__(self, key: str, multi_label: bool = False) -> None:
        self.key = key
        super().__init__(multi_label)

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=self.__doc__ or "",
            citation="Pedregosa et al., scikit-learn, JMLR 12 (2011)",
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        true, predicted = np.asarray(references), np.asarray(predictions)
        return {self.key: float(NUMBERS[self.key](np.ones((1, len(true))), true, predicted)[0])}


class LogLoss(_Metric):
    """Cross-entropy: the mean of -log(probability of the true label), in nats.

    Multi-label: the sum over the classes of each decision's.
    """

    key = "log_loss"
    takes_probabilities = True
    interval_method = "loss"

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        probabilities = np.asarray(predictions, dtype=np.float64)
        if self.multi_label:
            right = np.where(np.asarray(references) > 0, probabilities, 1 - probabilities)
            nats = -np.log(np.maximum(right, np.finfo(np.float64).tiny)).sum(axis=1)
            return {self.key: float(nats.mean())}
        true = probabilities[np.arange(len(references)), np.asarray(references)]
        return {self.key: float(-np.log(np.maximum(true, np.finfo(np.float64).tiny)).mean())}


class TopKAccuracy(_Metric):
    """The share of texts whose true label is among the k most probable."""

    takes_probabilities = True
    interval_method = "share"

    def __init__(self, k: int, multi_label: bool = False) -> None:
        self.key = f"top_{k}_accuracy"
        self.k = k
        super().__init__(multi_label)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        if self.multi_label:
            raise ValueError("it needs rows with one label each")
        probabilities = np.asarray(predictions)
        true = probabilities[np.arange(len(references)), np.asarray(references)]
        # A tie counts for the lower class id, as it does for argmax.
        earlier = np.arange(probabilities.shape[1]) < np.asarray(references)[:, None]
        ahead = (probabilities > true[:, None]) | ((probabilities == true[:, None]) & earlier)
        return {self.key: float((ahead.sum(axis=1) < self.k).mean())}


class LoadedMetric:
    """A metric of `evaluate.load`, under the name that the recipe gives it."""

    takes_probabilities = False
    interval_method: IntervalMethod = None

    def __init__(self, name: str, multi_label: bool = False) -> None:
        self.key = name
        self.module = evaluate.load(
            name, "multilabel" if multi_label else None, keep_in_memory=True
        )

    def compute(self, predictions: Any, references: Any) -> dict[str, float]:
        values = self.module.compute(predictions=predictions, references=references)
        return {
            self.key: float(values.get(self.key.rsplit("/", 1)[-1], next(iter(values.values()))))
        }


Metric = _Metric | LoadedMetric
AVERAGES = ("macro", "micro", "weighted")
KINDS = ("precision", "recall", "f1")

# The names that `score.metrics` takes. A new metric is a class above and an entry here; one that is
# better when lower is in LOWER_IS_BETTER, too.
METRICS: dict[str, Callable[[bool], _Metric]] = {
    "accuracy": Accuracy,
    **{f"{kind}_{of}": partial(Averaged, kind, of) for kind in KINDS for of in AVERAGES},
    "matthews_correlation": MatthewsCorrelation,
    **{name: partial(OfRanks, name) for name in RANKS},
    **{name: partial(OfNumbers, name) for name in NUMBERS},
    **{f"hierarchical_{kind}": partial(OfPaths, f"hierarchical_{kind}") for kind in KINDS},
    "level_1_accuracy": partial(OfPaths, "level_1_accuracy"),  # and any other level
    "log_loss": LogLoss,
    "top_3_accuracy": partial(TopKAccuracy, 3),  # and any other k
}
LOWER_IS_BETTER = {"log_loss", "loss", "rank_mae", "mae", "rmse"}


def build_metric(name: str, multi_label: bool = False) -> _Metric | None:
    """A metric of this package; None where it has none of that name."""
    if name in METRICS:
        return METRICS[name](multi_label)
    if LEVEL.fullmatch(name):
        return OfPaths(name, multi_label)
    top = re.fullmatch(r"top_([1-9]\d*)_accuracy", name)
    return TopKAccuracy(int(top[1]), multi_label) if top else None


def load_metrics(
    names: Sequence[str], monitor: str, trust_remote_code: bool, multi_label: bool = False
) -> list[Metric]:
    """A metric for each name.

    Args:
        monitor: the one that picks the model.
        multi_label: whether rows may have several labels.

    Raises:
        InputError: for every name that is none of ours and that `evaluate.load` may not or cannot
            load, and where it is unknown which way `monitor` is better.
    """
    loaded: list[Metric] = []
    problems: list[str] = []
    for name in names:
        own = build_metric(name, multi_label)
        if own is not None:
            loaded.append(own)
        elif not trust_remote_code:
            hint = did_you_mean(name, [*METRICS], "its metrics are")
            problems.append(
                f"score.metrics: '{name}' is none of this package{hint} (evaluate.load would run "
                "code from elsewhere for it: score.trust_remote_code=true allows that)"
            )
        else:
            try:
                loaded.append(LoadedMetric(name, multi_label))
            except Exception as error:
                reraise_memory_error(error)
                # evaluate raises anything here: no such name, no network, a broken script
                absent = isinstance(error, (FileNotFoundError, ConnectionError))
                why = "no such metric, or no network" if absent else str(error).splitlines()[0]
                problems.append(f"score.metrics: evaluate.load cannot load '{name}' ({why})")
    if monitor != "loss" and build_metric(monitor) is None:
        problems.append(
            f"score.monitor: '{monitor}' is none of this package, so which way it is better is "
            f"unknown; choose loss or one of {', '.join(METRICS)}"
        )
    if problems:
        raise InputError(problems)
    return loaded


def bind_labels(metrics: Sequence[Metric], labels: Sequence[str], separator: str | None) -> None:
    """Tell the metrics of paths what the levels are.

    Args:
        separator: `data.hierarchy`; None: there are no levels.
    """
    for metric in metrics:
        if isinstance(metric, OfPaths):
            metric.tree = None if separator is None else Hierarchy.of(labels, separator)


def check_metrics(metrics: Sequence[Metric], classes: int, multi_label: bool = False) -> None:
    """Compute each metric once on made-up rows, so that none fails after training.

    Raises:
        InputError: for every metric that cannot score that many classes, or is of a level that
            no label has.
    """
    if classes == 1:  # numbers, of which the recipe has this package's own metrics alone
        return
    logits = np.eye(classes)
    labels = np.eye(classes, dtype=np.int8) if multi_label else np.arange(classes)
    problems = []
    for metric in metrics:
        if isinstance(metric, OfPaths) and metric.tree is not None:
            level, depth = metric.level or 1, metric.tree.depth
            if level > depth:
                problems.append(
                    f"score.metrics: expected a level from 1 to {depth}, as many as the labels "
                    f"have by data.hierarchy, got '{metric.key}'"
                )
                continue
        try:
            measure([metric], logits, labels)
        except Exception as error:
            reraise_memory_error(error)
            hint = did_you_mean(metric.key, [*METRICS], "the metrics that need no network are")
            problems.append(
                f"score.metrics: '{metric.key}' cannot score {classes} classes"
                f"{' where a row may have several' * multi_label} ({error}){hint}"
            )
    if problems:
        raise InputError(problems)


def measure(
    metrics: Sequence[Metric],
    logits: NDArray[Any],
    labels: NDArray[Any],
    thresholds: NDArray[np.float64] | None = None,
) -> dict[str, float]:
    """Every metric of some rows.

    Args:
        logits: (rows, classes)
        labels: true class ids (rows,); multi-label: 0 and 1 for each class (rows, classes); or
            numbers (rows,), of which `logits` has the one column.
        thresholds: as of `predict_labels`.
    """
    values: dict[str, float] = {}
    if is_number(labels):
        numbers = logits[:, 0].astype(np.float64)
        for metric in metrics:
            values |= metric.compute(predictions=numbers, references=labels)
        return values
    multi_label = labels.ndim == 2
    predictions = predict_labels(logits, multi_label, thresholds)
    probabilities = to_probabilities(logits, multi_label)
    for metric in metrics:
        taken = probabilities if metric.takes_probabilities else predictions
        values |= metric.compute(predictions=taken, references=labels)
    return values


def is_better(
    name: str,
    values: Mapping[str, float],
    best: Mapping[str, float],
    by_more_than: float = 0.0,
) -> bool:
    """Whether `values` beat the best so far by the named metric; a tie does not, nor does nan.

    The first do whatever they are, as some model must be kept; any number then beats a nan.
    """
    if not best:
        return True
    if math.isnan(best[name]):
        return not math.isnan(values[name])
    gain = values[name] - best[name]
    metric = name if name in METRICS else name.rpartition(POINT)[2]  # of a task: topic.log_loss
    return (-gain if metric in LOWER_IS_BETTER else gain) > by_more_than
