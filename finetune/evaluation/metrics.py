"""Names of metrics → `evaluate` metrics that need no network.

Each is an `evaluate.Metric`, so it can be used wherever `evaluate.load` would stand, offline:

    Accuracy().compute(predictions=[0, 1], references=[0, 0])  # {"accuracy": 0.5}

Any name that is not here goes to `evaluate.load`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from finetune.evaluation.probabilities import sigmoid, softmax, to_probabilities
from finetune.runtime.errors import InputError, did_you_mean

AVERAGES = ("macro", "micro", "weighted")
OWN = (
    "accuracy",
    *(f"{kind}_{average}" for kind in ("precision", "recall", "f1") for average in AVERAGES),
    "matthews_correlation",
    "log_loss",
    "top_3_accuracy",
)
LOWER_IS_BETTER = {"log_loss", "loss"}


class _Metric(evaluate.Metric):  # type: ignore[misc]
    """What these metrics share: they hold their inputs in memory and cite scikit-learn."""

    key: str

    def __init__(self, several: bool = False, **settings: Any) -> None:
        """Of several labels a row, what is taken is 0 and 1 for each class, as with `evaluate`'s
        own metrics of that configuration."""
        name = "multilabel" if several else None
        super().__init__(config_name=name, keep_in_memory=True, **settings)

    @property
    def several(self) -> bool:
        """Whether rows may have several labels."""
        return bool(self.config_name == "multilabel")

    def _info(self) -> evaluate.MetricInfo:
        one = datasets.Value("int64")
        references = datasets.Sequence(one) if self.several else one
        return evaluate.MetricInfo(
            description=self.__doc__ or "",
            citation="Pedregosa et al., scikit-learn, JMLR 12 (2011)",
            features=datasets.Features(
                {"predictions": self._taken(references), "references": references}
            ),
        )

    def _taken(self, references: Any) -> Any:
        """What stands for a row's prediction."""
        return references


class _OfLabels(_Metric):
    """A metric of predicted labels."""


class _OfProbabilities(_Metric):
    """A metric of each row's probabilities of all classes."""

    def _taken(self, references: Any) -> Any:
        return datasets.Sequence(datasets.Value("float64"))


class Accuracy(_OfLabels):
    """The share of texts whose label is right; of several labels, all of them."""

    key = "accuracy"

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {self.key: float(sk.accuracy_score(references, predictions))}


class Averaged(_OfLabels):
    """Precision, recall or F1 of each class, averaged over classes.

    macro: every class counts alike; weighted: by its rows; micro: over all rows at once. A class
    counts where some row has it or is given it: one that is never predicted has precision 0, one
    that never occurs has recall 0. So it is in scikit-learn of single labels; of several a row, it
    counts a class that the rows say nothing of, too, as 0.
    """

    def __init__(self, kind: str, average: str, several: bool = False) -> None:
        self.key = f"{kind}_{average}"
        self.kind, self.average = kind, average
        super().__init__(several)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        measure = {"precision": sk.precision_score, "recall": sk.recall_score, "f1": sk.f1_score}
        how: dict[str, Any] = {"average": self.average, "zero_division": 0}
        if self.several:
            there = (np.asarray(references) + np.asarray(predictions)).any(axis=0)
            how["labels"] = np.flatnonzero(there)
            if not there.any():
                return {self.key: 0.0}
        return {self.key: float(measure[self.kind](references, predictions, **how))}


class MatthewsCorrelation(_OfLabels):
    """Correlation of predicted and true labels: 1 perfect, 0 no better than chance."""

    key = "matthews_correlation"

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        return {self.key: float(sk.matthews_corrcoef(references, predictions))}


class LogLoss(_OfProbabilities):
    """Cross-entropy: the mean of -log(probability of the true label), in nats.

    Of several labels a row, the sum over the classes of each decision's.
    """

    key = "log_loss"

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        probabilities = np.asarray(predictions, dtype=np.float64)
        if self.several:
            right = np.where(np.asarray(references) > 0, probabilities, 1 - probabilities)
            nats = -np.log(np.maximum(right, np.finfo(np.float64).tiny)).sum(axis=1)
            return {self.key: float(nats.mean())}
        true = probabilities[np.arange(len(references)), np.asarray(references)]
        return {self.key: float(-np.log(np.maximum(true, np.finfo(np.float64).tiny)).mean())}


class TopKAccuracy(_OfProbabilities):
    """The share of texts whose true label is among the k most probable."""

    def __init__(self, k: int, several: bool = False) -> None:
        self.key = f"top_{k}_accuracy"
        self.k = k
        super().__init__(several)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        if self.several:
            raise ValueError("it is of rows with one label each")
        probabilities = np.asarray(predictions)
        true = probabilities[np.arange(len(references)), np.asarray(references)]
        # A tie counts for the lower class id, as it does for argmax.
        earlier = np.arange(probabilities.shape[1]) < np.asarray(references)[:, None]
        ahead = (probabilities > true[:, None]) | ((probabilities == true[:, None]) & earlier)
        return {self.key: float((ahead.sum(axis=1) < self.k).mean())}


class Loaded:
    """A metric of `evaluate.load`, under the name that the recipe gives it."""

    takes = datasets.Value("int64")

    def __init__(self, name: str, several: bool = False) -> None:
        self.key = name
        self.module = evaluate.load(name, "multilabel" if several else None, keep_in_memory=True)

    def compute(self, predictions: Any, references: Any) -> dict[str, float]:
        values = self.module.compute(predictions=predictions, references=references)
        return {
            self.key: float(values.get(self.key.rsplit("/", 1)[-1], next(iter(values.values()))))
        }


Metric = _Metric | Loaded


def load_metrics(
    names: Sequence[str], best: str, trust_remote_code: bool, several: bool = False
) -> list[Metric]:
    """A metric for each name, `best` being the one that picks the model.

    Args:
        several: whether rows may have several labels.

    Raises:
        InputError: for every name that is none of ours and that `evaluate.load` may not or cannot
            load, and where nobody knows which way `best` is better.
    """
    found: list[Metric] = []
    problems: list[str] = []
    for name in names:
        own = _own(name, several)
        if own is not None:
            found.append(own)
        elif not trust_remote_code:
            hint = did_you_mean(name, OWN, "its metrics are")
            problems.append(
                f"score.metrics: '{name}' is none of this package{hint} (evaluate.load would run "
                "code from elsewhere for it: score.trust_remote_code=true allows that)"
            )
        else:
            try:
                found.append(Loaded(name, several))
            except Exception as error:
                # evaluate raises anything here: no such name, no network, a broken script
                absent = isinstance(error, (FileNotFoundError, ConnectionError))
                why = "no such metric, or no network" if absent else str(error).splitlines()[0]
                problems.append(f"score.metrics: evaluate.load cannot load '{name}' ({why})")
    if best != "loss" and _own(best) is None:
        problems.append(
            f"score.monitor: '{best}' is none of this package, so which way it is better is "
            f"unknown; choose loss or one of {', '.join(OWN)}"
        )
    if problems:
        raise InputError(problems)
    return found


def check_metrics(metrics: Sequence[Metric], classes: int, several: bool = False) -> None:
    """Compute each metric once on made-up rows, so that none fails after training.

    Raises:
        InputError: for every metric that cannot score that many classes.
    """
    logits = np.eye(classes)
    labels = np.eye(classes, dtype=np.int8) if several else np.arange(classes)
    problems = []
    for metric in metrics:
        try:
            measure([metric], logits, labels)
        except Exception as error:
            hint = did_you_mean(metric.key, OWN, "the metrics that need no network are")
            problems.append(
                f"score.metrics: '{metric.key}' cannot score {classes} classes"
                f"{' where a row may have several' * several} ({error}){hint}"
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
        labels: true class ids (rows,); of several labels, 0 and 1 for each class (rows, classes).
        thresholds: as of `answers`.
    """
    several = labels.ndim == 2
    predictions = predict_labels(logits, several, thresholds)
    chances = to_probabilities(logits, several)
    values: dict[str, float] = {}
    for metric in metrics:
        given = chances if isinstance(metric, _OfProbabilities) else predictions
        values |= metric.compute(predictions=given, references=labels)
    return values


def predict_labels(
    logits: NDArray[Any], several: bool = False, thresholds: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """What logits (rows, classes) say: each row's class id (rows,).

    Where a row may have several labels, 0 and 1 for each class (rows, classes): 1 where its
    probability is at least its threshold.

    Args:
        thresholds: of each class (classes,), or in each row another (rows, classes); None: one
            half.
    """
    if not several:
        predictions = logits.argmax(axis=1)
        return cast(NDArray[np.int64], predictions)
    given = sigmoid(logits) >= (0.5 if thresholds is None else thresholds)
    return given.astype(np.int64)


def row_losses(logits: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """Cross-entropy of each row, in nats: -log of the true label's probability. (rows,)

    Of several labels, binary cross-entropy summed over the classes: -log of the probability of just
    that set of labels.

    Args:
        labels: class ids (rows,), or 0 and 1 for each class (rows, classes).
    """
    if labels.ndim == 2:
        signed = np.where(labels > 0, -1.0, 1.0) * logits.astype(np.float64)
        summed: NDArray[np.float64] = np.logaddexp(0.0, signed).sum(axis=1)
        return summed
    true = softmax(logits)[np.arange(len(labels)), labels]
    result: NDArray[np.float64] = -np.log(np.maximum(true, np.finfo(np.float64).tiny))
    return result


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
    return (-gain if name in LOWER_IS_BETTER else gain) > by_more_than


def is_correct(labels: NDArray[Any], guesses: NDArray[Any]) -> NDArray[np.bool_]:
    """Whether each row's answer is right; of several labels, all of them. (rows,)"""
    same = np.equal(labels, guesses)
    return np.asarray(same.all(axis=1) if same.ndim == 2 else same)


def _own(name: str, several: bool = False) -> _Metric | None:
    if name in ("accuracy", "matthews_correlation", "log_loss"):
        return {m.key: m for m in (Accuracy, MatthewsCorrelation, LogLoss)}[name](several)
    averaged = re.fullmatch(r"(precision|recall|f1)_(macro|micro|weighted)", name)
    if averaged:
        return Averaged(averaged[1], averaged[2], several)
    top = re.fullmatch(r"top_([1-9]\d*)_accuracy", name)
    return TopKAccuracy(int(top[1]), several) if top else None
