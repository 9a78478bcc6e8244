"""Logits → answers: labels with their probabilities, and no label where the model should abstain.

What the numbers mean stands in the model's config.json: the label names, whether a document may
have several labels (`problem_type`), and under `document` the thresholds and `abstain_below`. A
temperature needs no word there: it is folded into the head.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.probabilities import softmax
from finetune.runtime.errors import InputError
from finetune.tokenization.document_format import DocumentFormat

DIGITS = 6  # of a probability that is written


@dataclass(frozen=True)
class DecisionRules:
    """How logits become answers.

    Attributes:
        labels: the names of the logits' columns.
        several: whether a document may have several labels, or none.
        thresholds: where several: the probability from which on each label is given. (classes,)
        abstain_below: else: the probability of the best label below which none is given.
    """

    labels: tuple[str, ...]
    several: bool = False
    thresholds: tuple[float, ...] | None = None
    abstain_below: float | None = None

    @classmethod
    def of(cls, config: Any, reading: DocumentFormat, where: str) -> "DecisionRules":
        """Those of a model's config.

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
        several = config.problem_type == "multi_label_classification"
        return cls(labels, several, thresholds, reading.abstain_below)

    def probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """(rows, classes); of several labels each for itself."""
        if not self.several:
            return softmax(logits)
        halved = logits.astype(np.float64) / 2
        result: NDArray[np.float64] = (1 + np.tanh(halved)) / 2  # a sigmoid that never overflows
        return result

    def answers(self, logits: NDArray[np.float32], all_of_them: bool) -> Iterator[dict[str, Any]]:
        """An answer for each row of logits.

        One label: `label`, `score`. Several: `labels`, `scores`, the likeliest first.

        Args:
            all_of_them: give `probabilities` too, of each label by name.
        """
        chances = self.probabilities(logits)
        rounded = chances.round(DIGITS).tolist()
        if self.several:
            given = chances >= np.array(self.thresholds or 0.5)
            for row, chosen, order in zip(rounded, given, np.argsort(-chances), strict=True):
                found = [int(index) for index in order if chosen[index]]
                answer: dict[str, Any] = {
                    "labels": [self.labels[index] for index in found],
                    "scores": [row[index] for index in found],
                }
                yield answer | self._all(row, all_of_them)
            return
        # As metrics take it: of logits, so that no rounding can make a tie.
        for row, best in zip(rounded, logits.argmax(axis=1).tolist(), strict=True):
            sure = self.abstain_below is None or row[best] >= self.abstain_below
            answer = {"label": self.labels[best] if sure else None, "score": row[best]}
            yield answer | self._all(row, all_of_them)

    def _all(self, row: list[float], wanted: bool) -> dict[str, Any]:
        if not wanted:
            return {}
        return {"probabilities": dict(zip(self.labels, row, strict=True))}
