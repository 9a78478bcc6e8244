"""Logits → predictions: labels with their probabilities, and no label where the model abstains.

The model's config.json says what the logits mean: the label names, whether a document may have
several labels (`problem_type`), and under `document` the thresholds and `abstain_below`. The
temperature is not in it, as it is folded into the head.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.probabilities import to_probabilities
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
    """

    labels: tuple[str, ...]
    multi_label: bool = False
    thresholds: tuple[float, ...] | None = None
    abstain_below: float | None = None

    @classmethod
    def from_config(cls, config: Any, reading: DocumentFormat, where: str) -> "DecisionRules":
        """The rules in a model's config.

        Raises:
            InputError: naming `where`, for a model that gives no label, or an unfit config.
        """
        by_index = dict(config.id2label or {})
        labels = tuple(str(by_index[index]) for index in sorted(by_index))
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
        return cls(labels, multi_label, thresholds, reading.abstain_below)

    @property
    def fields(self) -> tuple[str, str]:
        """What a prediction is called."""
        return ("labels", "scores") if self.multi_label else ("label", "score")

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """(rows, classes); of a multi-label model each label's own."""
        return to_probabilities(logits, self.multi_label)

    def decide(
        self, logits: NDArray[np.float32], with_probabilities: bool
    ) -> Iterator[dict[str, Any]]:
        """A prediction for each row of logits.

        `label` and `score`; of a multi-label model `labels` and `scores`, the most probable first.

        Args:
            logits: (rows, classes)
            with_probabilities: include `probabilities`, label → probability.
        """
        probabilities = self.probabilities(logits)
        rounded = probabilities.round(DIGITS).tolist()
        predictions = self._several(probabilities, rounded)
        if not self.multi_label:
            predictions = self._best(logits, rounded)
        for row, prediction in zip(rounded, predictions, strict=True):
            if with_probabilities:
                prediction["probabilities"] = dict(zip(self.labels, row, strict=True))
            yield prediction

    def _best(
        self, logits: NDArray[np.float32], rounded: list[list[float]]
    ) -> Iterator[dict[str, Any]]:
        # As metrics take it: of logits, so that no rounding can make a tie.
        for row, best in zip(rounded, logits.argmax(axis=1).tolist(), strict=True):
            abstains = self.abstain_below is not None and row[best] < self.abstain_below
            yield {"label": None if abstains else self.labels[best], "score": row[best]}

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
