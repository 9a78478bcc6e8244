"""Logits → predictions: labels with their probabilities, and no label where the model abstains.

The model's config.json says what the logits mean: the label names, whether a document may have
several labels (`problem_type`), and under `document` the thresholds and `abstain_below`. The
temperature is not in it, as it is folded into the head. A detector beside the weights may tell
documents that no label fits.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.config.label_tasks import MARK, score_field
from finetune.data.label_tasks import Tasks
from finetune.evaluation.hierarchy import Hierarchy
from finetune.evaluation.out_of_scope import Detector
from finetune.evaluation.probabilities import predict_labels, to_probabilities
from finetune.inference.number_rules import NumberRules
from finetune.inference.records import OUT_OF_SCOPE
from finetune.runtime.errors import InputError
from finetune.tokenization.document_format import DocumentFormat

DIGITS = 6  # of a probability that is written


@dataclass(frozen=True)
class DecisionRules:
    """How logits become labels.

    Attributes:
        labels: the names of the logits' columns.
        multi_label: whether a document may have several labels, or none.
        thresholds: of a multi-label model: the probability from which on each label is predicted.
            (classes,)
        abstain_below: of others: the model abstains where the best label is less probable.
        ordered: whether the labels go from the lowest to the highest.
        hierarchy: what separates the levels in label names; None: they have none.
        detector: of others: gives documents out of scope no label; None: there is none.
        number: of a model that predicts a number, whose name is the one of `labels`; else None.
        tasks: whose labels these are, where there are several; then multi_label is set.
    """

    labels: tuple[str, ...]
    multi_label: bool = False
    thresholds: tuple[float, ...] | None = None
    abstain_below: float | None = None
    ordered: bool = False
    hierarchy: str | None = None
    detector: Detector | None = field(default=None, repr=False)
    number: NumberRules | None = None
    tasks: Tasks | None = None

    @classmethod
    def from_config(cls, config: Any, reading: DocumentFormat, where: str) -> "DecisionRules":
        """The rules in a model's config.

        Raises:
            InputError: naming `where`, for a model that gives no label, or an unfit config.
        """
        by_index = dict(config.id2label or {})
        labels = tuple(str(by_index[index]) for index in sorted(by_index))
        if len(labels) == 1 and getattr(config, "number_deviation", None) is not None:
            return cls(labels, number=NumberRules.read(config, labels[0], reading, where))
        if len(labels) < 2 or config.problem_type == "regression":
            raise InputError(
                f"{where}: expected a classifier with two labels or more, found {len(labels)} in "
                "its config.json"
            )
        thresholds = reading.thresholds
        if thresholds is not None and len(thresholds) != len(labels):
            raise InputError(
                f"{where}: config.json: document.thresholds: expected one for each of "
                f"{len(labels)} labels, found {len(thresholds)}"
            )
        multi_label = config.problem_type == "multi_label_classification"
        ordered = bool(getattr(config, "ordered", False))
        hierarchy = getattr(config, "hierarchy", None)
        if not isinstance(hierarchy, str | None):
            raise InputError(
                f"{where}: config.json: hierarchy: expected text or null, found {hierarchy!r}"
            )
        return cls(
            labels,
            multi_label,
            thresholds,
            reading.abstain_below,
            ordered,
            hierarchy or None,
            tasks=_read_tasks(config, labels, where),
        )

    @property
    def kind(self) -> str:
        """The kind of task, as of `schema.TASK_METRICS`."""
        if self.number is not None:
            return "number"
        if self.tasks is not None:
            return "tasks"
        if self.multi_label:
            return "multi_label"
        return "ordered" if self.ordered else "hierarchy" if self.hierarchy else "classes"

    @property
    def fields(self) -> tuple[str, ...]:
        """What a prediction is called, and what else it has."""
        if self.number is not None:
            return self.number.fields
        if self.tasks is not None:
            return tuple(one for name in self.tasks.names for one in (name, score_field(name)))
        own: tuple[str, ...] = ("labels", "scores") if self.multi_label else ("label", "score")
        if self.hierarchy is not None and not self.multi_label:
            own = (*own, "levels", "level_scores")
        return own if self.detector is None else (*own, *OUT_OF_SCOPE)

    def refuse_number(self, option: str, what: str) -> None:
        """
        Args:
            option: what was asked for, which is of labels.
            what: what a model of numbers lacks for it.

        Raises:
            InputError: where the model predicts a number.
        """
        if self.number is not None:
            raise InputError(
                f"{option}: expected a model of labels, got one that predicts the number "
                f"'{self.number.column}' (data.task: number), which {what}"
            )

    def labels_of(self, prediction: Mapping[str, Any]) -> list[str]:
        """The predicted labels by the names of `labels`; none where the model abstains."""
        if self.tasks is not None:
            return [f"{name}{MARK}{prediction[name]}" for name in self.tasks.names]
        if self.multi_label:
            return [*prediction["labels"]]
        return [] if prediction["label"] is None else [prediction["label"]]

    def refuse_tasks(self, option: str, why: str) -> None:
        """
        Args:
            option: what was asked for, which is of models of one task.

        Raises:
            InputError: where the model has several.
        """
        if self.tasks is not None:
            raise InputError(
                f"{option}: expected a model of one task, got one of several (data.tasks: "
                f"{', '.join(self.tasks.names)}), {why}"
            )

    def predict(self, logits: NDArray[np.float32]) -> NDArray[np.int64]:
        """As of `predict_labels`; of several tasks 0 and 1 for each label, one in each task."""
        if self.tasks is not None:
            return self.tasks.predict(logits)
        thresholds = None if self.thresholds is None else np.array(self.thresholds)
        return predict_labels(logits, self.multi_label, thresholds)

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """(rows, classes); of a multi-label model each label's own; of numbers, these."""
        if self.number is not None:
            return logits.astype(np.float64)
        return to_probabilities(logits, self.multi_label)

    def decide(
        self, outputs: NDArray[np.float32], with_probabilities: bool
    ) -> Iterator[dict[str, Any]]:
        """A prediction for each row of logits.

        `label` and `score`; of a multi-label model `labels` and `scores`, the most probable first.
        Of labels with levels also `levels`, the path from the coarsest node to the label, and
        `level_scores`: the probability of each node is the sum of those of the labels below it. A
        model that abstains still names the levels of which it is sure enough; of a document out of
        scope, none.
        Of a model of several tasks, for each its label, under its name, and `NAME_score`.
        Of a model of numbers `number`, with `low` and `high` of its prediction interval.
        With a detector, whether the row is `out_of_scope`, which takes its label, and its
        `out_of_scope_score`.

        Args:
            outputs: the logits, and behind them the states that a detector may read.
                (rows, classes + hidden)
            with_probabilities: include `probabilities`, label → probability.
        """
        logits = outputs[:, : len(self.labels)]
        if self.number is not None:
            yield from self.number.decide(logits)
            return
        probabilities = self.probabilities(logits)
        rounded = probabilities.round(DIGITS).tolist()
        predictions = self._several(probabilities, rounded)
        if self.tasks is not None:
            predictions = self._of_tasks(self.tasks, logits, rounded)
        elif not self.multi_label:
            predictions = self._best(logits, rounded)
        if self.detector is not None:
            scores = self.detector.score(logits, outputs[:, len(self.labels) :])
            predictions = self._detect(predictions, scores)
        if self.hierarchy is not None and not self.multi_label:
            predictions = self._add_levels(predictions, logits, probabilities)
        for row, prediction in zip(rounded, predictions, strict=True):
            if with_probabilities:
                prediction["probabilities"] = dict(zip(self.labels, row, strict=True))
            yield prediction

    def _detect(
        self, predictions: Iterator[dict[str, Any]], scores: NDArray[np.float64]
    ) -> Iterator[dict[str, Any]]:
        assert self.detector is not None
        above = scores > self.detector.threshold
        for one, score, is_out in zip(predictions, scores.tolist(), above.tolist(), strict=True):
            found = dict(zip(OUT_OF_SCOPE, (is_out, round(score, DIGITS)), strict=True))
            yield one | ({"label": None} if is_out else {}) | found

    def _best(
        self, logits: NDArray[np.float32], rounded: list[list[float]]
    ) -> Iterator[dict[str, Any]]:
        # As metrics take it: of logits, so that no rounding can make a tie.
        for row, best in zip(rounded, logits.argmax(axis=1).tolist(), strict=True):
            abstains = self.abstain_below is not None and row[best] < self.abstain_below
            yield {"label": None if abstains else self.labels[best], "score": row[best]}

    @staticmethod
    def _of_tasks(
        tasks: Tasks, logits: NDArray[np.float32], rounded: list[list[float]]
    ) -> Iterator[dict[str, Any]]:
        for row, chosen in zip(rounded, tasks.choose(logits).tolist(), strict=True):
            found: dict[str, Any] = {}
            for task, best in zip(tasks, chosen, strict=True):
                found[task.name] = task.labels[best]
                found[score_field(task.name)] = row[task.first + best]
            yield found

    def _add_levels(
        self,
        predictions: Iterator[dict[str, Any]],
        logits: NDArray[np.float32],
        probabilities: NDArray[np.float64],
    ) -> Iterator[dict[str, Any]]:
        tree = Hierarchy.of(self.labels, self.hierarchy or "")
        best = logits.argmax(axis=1)
        scores = [
            tree.level_probabilities(probabilities, number)[
                np.arange(len(best)), tree.at_level(best, number)
            ].round(DIGITS)
            for number in range(1, tree.depth + 1)
        ]
        for row, prediction in enumerate(predictions):
            path = tree.paths[int(best[row])]
            along = [float(scores[number][row]) for number in range(len(path))]
            sure = len(path)
            if prediction["label"] is None:
                sure = sum(one >= (self.abstain_below or 0) for one in along)
            if prediction.get("out_of_scope"):
                sure = 0
            yield prediction | {"levels": [*path[:sure]], "level_scores": along[:sure]}

    def _several(
        self, probabilities: NDArray[np.float64], rounded: list[list[float]]
    ) -> Iterator[dict[str, Any]]:
        predicted = probabilities >= np.array(self.thresholds or 0.5)
        ranked = np.argsort(-probabilities)
        for row, is_predicted, order in zip(rounded, predicted, ranked, strict=True):
            indices = [int(index) for index in order if is_predicted[index]]
            yield {
                "labels": [self.labels[index] for index in indices],
                "scores": [row[index] for index in indices],
            }


def _read_tasks(config: Any, labels: tuple[str, ...], where: str) -> Tasks | None:
    """
    Raises:
        InputError: where the tasks of a model's config are not those of its labels.
    """
    given = getattr(config, "tasks", None)
    if given is None:
        return None
    try:
        return Tasks.of_config(given, labels)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise InputError(
            f"{where}: config.json: tasks: expected the tasks that id2label holds the labels of, "
            f"found {str(given)[:100]}; copy the model folder again"
        ) from None
