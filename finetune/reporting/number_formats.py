"""Numbers → text as a person reads it: shares, scores, seconds, bytes."""

import re
from collections.abc import Sequence
from pathlib import Path

from finetune.config.label_tasks import POINT
from finetune.evaluation.analysis_model import LevelScores

# Metrics that are shown as percentages, and whose differences are points of these.
SHARES = re.compile(
    r"(within_one|level_\d+|top_\d+)?_?accuracy|(hierarchical_)?(precision|recall|f1)\w*"
)
NAMES = {
    "r2": "R²",
    "mae": "MAE",
    "rmse": "RMSE",
    "spearman": "Spearman correlation",
    "quadratic_weighted_kappa": "quadratic weighted kappa",
}


def name_metric(key: str) -> str:
    """A metric in words: macro-F1, Matthews correlation, R²."""
    task, _, metric = key.rpartition(POINT)
    if task:
        return f"{name_metric(metric)} of ‘{task}’"
    kind, _, average = key.rpartition("_")
    if average in ("macro", "micro", "weighted"):
        return f"{average}-{kind.replace('f1', 'F1')}"
    if key in NAMES:
        return NAMES[key]
    return key.replace("_", " ").capitalize() if key.startswith("matthews") else key


def is_share(metric: str) -> bool:
    """Whether a metric is a share, whose differences are told in points of a percentage."""
    return SHARES.fullmatch(metric.rpartition(POINT)[2]) is not None


def percent(share: float, digits: int = 1) -> str:
    """`97.4 %`, on one line."""
    return f"{_round(100 * share, digits):.{digits}f}\u00a0%"


def signed(points: float, digits: int = 1) -> str:
    """`+0.5` or `−0.5`."""
    return f"{_round(points, digits):+.{digits}f}".replace("-", "−")


def shown_difference(before: float, after: float) -> str:
    """The difference of two shares in points, as of the percentages that are shown of them."""
    return signed(_round(100 * after, 1) - _round(100 * before, 1))


def _round(value: float, digits: int) -> float:
    """Halves are rounded alike with either sign, and whatever binary fractions make of them."""
    return round(round(value, 9), digits) + 0.0  # no -0.0


def format_seconds(value: float) -> str:
    """4.2 s, 156 s, 16 min, 3.1 h."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 300:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 3 * 3600 else f"{value / 3600:.1f} h"


def format_bytes(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value / 1e6:.0f} MB" if value < 1e9 else f"{value / 1e9:.1f} GB"


def format_score(value: float | None, digits: int = 4) -> str:
    """A number of a table; a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def format_metric(name: str, value: float | None) -> str:
    """97.4 % for an accuracy, else 0.974."""
    if value is None:
        return "–"
    return percent(value) if name.rpartition(POINT)[2] == "accuracy" else f"{value:.3f}"


def format_interval(ends: Sequence[float] | None, digits: int = 4) -> str:
    """`0.9500 to 0.9812`; empty where there is no interval."""
    return "" if ends is None else f"{ends[0]:.{digits}f} to {ends[1]:.{digits}f}"


def describe_level(level: LevelScores) -> str:
    """`level 1, 5 labels: accuracy 97.4 % (0.9500 to 0.9812), macro-F1 0.960`"""
    return (
        f"level {level.level}, {level.nodes:,} labels: accuracy {percent(level.accuracy)} "
        f"({format_interval(level.accuracy_interval)}), macro-F1 {level.f1_macro:.3f}"
    )


def count_documents(count: int) -> str:
    return f"{count:,} document{'s' * (count != 1)}"


def short_names(folders: Sequence[str], most: int) -> list[str]:
    """Folders without their common start, and at most so long: their ends tell them apart."""
    parts = [Path(folder).parts or (folder,) for folder in folders]
    while len({part[0] for part in parts}) == 1 and all(len(part) > 1 for part in parts):
        parts = [part[1:] for part in parts]
    joined = ["/".join(part) for part in parts]
    return [name if len(name) <= most else "…" + name[1 - most :] for name in joined]
