"""Scores of documents of known and of other labels → how many are called out of scope."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.evaluation.intervals import wilson_interval
from finetune.evaluation.out_of_scope import auroc_interval, measure_auroc
from finetune.reporting.evaluation_model import ScopeCounts

Floats = NDArray[np.float64]


def count_flagged(scores: Floats, threshold: float) -> dict[str, Any] | None:
    """How many documents have a score above the threshold; None: there is no document."""
    flagged, rows = int((scores > threshold).sum()), len(scores)
    if not rows:
        return None
    share = flagged / rows
    interval = wilson_interval(share, rows)
    return {"rows": rows, "flagged": flagged, "share": share, "interval": interval}


def describe_scope(known: Floats, unknown: Floats, threshold: float) -> ScopeCounts:
    """Of documents whose labels the model knows, and of others."""
    both = len(known) and len(unknown)
    return ScopeCounts.model_validate(
        {
            "known": count_flagged(known, threshold),
            "unknown": count_flagged(unknown, threshold),
            "auroc": measure_auroc(unknown, known) if both else None,
            "auroc_interval": auroc_interval(unknown, known) if both else None,
        }
    )
