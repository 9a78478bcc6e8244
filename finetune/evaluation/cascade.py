"""Two classifiers on the same labelled rows → from which probability on the faster may answer.

    found = choose_threshold(scores, student_is_right, teacher_is_right, max_loss=0.003)
    found.threshold, found.share, found.accuracy        # of a cascade of the two

The student answers where its probability is at the threshold or above, the teacher the rest.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.intervals import Interval, paired_interval


@dataclass(frozen=True)
class CascadeThreshold:
    """A threshold, and what it comes to on the rows that chose it.

    Attributes:
        threshold: the least probability with which the student answers.
        rows: that chose it.
        share: of them that the student answers.
        accuracy, teacher_accuracy, student_accuracy: of the cascade, and of each alone.
        lost: the 95 % interval of what the cascade loses against the teacher, as a share.
    """

    threshold: float
    rows: int
    share: float
    accuracy: float
    teacher_accuracy: float
    student_accuracy: float
    lost: Interval


def choose_threshold(
    scores: NDArray[np.float64],
    student_is_right: NDArray[np.bool_],
    teacher_is_right: NDArray[np.bool_],
    max_loss: float,
) -> CascadeThreshold | None:
    """The lowest threshold such that neither it nor a higher one loses more than `max_loss`.

    Not simply the lowest that loses no more: among many thresholds, one far down may do so by luck.

    Args:
        scores: the student's probability of its label; below 0 where it gives none. (rows,)
        student_is_right, teacher_is_right: whether each one's label is the row's own. (rows,)
        max_loss: of the teacher's accuracy, as a share of the rows.

    Returns:
        None where even the student's surest answers lose more.
    """
    rows = len(scores)
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    gained = student_is_right[order].astype(np.int64) - teacher_is_right[order]
    # Rows of the same score are answered together: a threshold lies at the last of each.
    is_last = np.append(ordered[1:] < ordered[:-1], True) & (ordered >= 0)
    ends = np.flatnonzero(is_last)
    too_much = np.flatnonzero(-np.cumsum(gained)[ends] > max_loss * rows + 1e-9)
    allowed = len(ends) if not len(too_much) else int(too_much[0])
    if not allowed:
        return None
    end = int(ends[allowed - 1])
    own = gained[: end + 1]
    by_student = np.zeros(rows, dtype=bool)
    by_student[order[: end + 1]] = True
    is_right = np.where(by_student, student_is_right, teacher_is_right)
    return CascadeThreshold(
        threshold=float(ordered[end]),
        rows=rows,
        share=(end + 1) / rows,
        accuracy=float(is_right.mean()),
        teacher_accuracy=float(teacher_is_right.mean()),
        student_accuracy=float(student_is_right.mean()),
        lost=paired_interval(int((own < 0).sum()), int((own > 0).sum()), rows),
    )
