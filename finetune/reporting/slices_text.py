"""Scores by the values of a column → sentences, and a table for the terminal."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from finetune.data.cells import clip
from finetune.data.number_scale import format_number
from finetune.evaluation.analysis_model import SliceScores, Slicing, TaskAnalysis
from finetune.reporting.number_formats import (
    count_documents,
    format_interval,
    format_score,
    signed,
)

CLEAR = 0.05  # a corrected p-value below it tells two accuracies apart
COMPARED = {  # what slices are compared by
    "accuracy": "accuracy",
    "rank_mae": "mean absolute error in ranks",
    "mae": "mean absolute error",
}
SHOWN = 10  # slices of a column in the terminal; of more, those that matter
TIMES = re.compile(r"(\d{4}-\d\d-\d\d)[T ]\S+ to (\d{4}-\d\d-\d\d)[T ]\S+")


def format_p(value: float) -> str:
    """`0.034`, or `< 0.001`."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def explain_slices(slicings: Sequence[Slicing]) -> Iterator[str]:
    """Of each column, whether a slice is worse than the other documents by more than chance."""
    for slicing in slicings:
        worst = next((one for one in slicing.slices if one.value == slicing.worst), None)
        if len(slicing.slices) < 2:
            yield f"By {slicing.by}: all documents are in one slice, ‘{slicing.slices[0].value}’."
        elif worst is None or worst.p_value is None or worst.p_value >= CLEAR:
            p = (
                ""
                if worst is None or worst.p_value is None
                else f" (p = {format_p(worst.p_value)})"
            )
            yield f"By {slicing.by}: no slice is worse than the others by more than chance{p}."
        else:
            yield f"By {slicing.by}: {_describe_worst(worst, slicing.compared)}."


def _describe_worst(worst: SliceScores, compared: str) -> str:
    """By how much a slice is worse than the others."""
    assert worst.difference is not None
    assert worst.p_value is not None
    p, between = format_p(worst.p_value), ""
    if worst.difference_interval is not None:
        low, high = (format_gap(end, compared) for end in worst.difference_interval)
        between = f"95 % interval {low} to {high}; "
    unit = " points" if compared == "accuracy" else ""
    return (
        f"the {COMPARED[compared]} of ‘{worst.value}’ ({count_documents(worst.rows)}) is "
        f"{format_gap(worst.difference, compared)}{unit} from that of the others ({between}p "
        f"{'' if p.startswith('<') else '= '}{p})"
    )


def format_gap(value: float, compared: str) -> str:
    """A difference of accuracies in points, or of errors in their unit, with its sign."""
    if compared == "accuracy":
        return signed(100 * value)
    if compared == "rank_mae":
        return signed(value, 2)
    number = format_number(value)
    return number.replace("-", "−") if value < 0 else f"+{number}"


def slice_values(found: TaskAnalysis, metric: str) -> dict[str, Any]:
    """What the section on slices shows of one model or task.

    Args:
        metric: whose intervals it shows.
    """
    return {"slices_metric": metric, "slices_summary": " ".join(explain_slices(found.slices))}


def divide_slices(slicing: Slicing) -> tuple[list[SliceScores], list[SliceScores]]:
    """The slices that matter, the worst and those that differ by more than chance; and the others.

    The worst comes first, then the smallest p-values.
    """

    def matters(one: SliceScores) -> bool:
        return one.value == slicing.worst or (one.p_value is not None and one.p_value < CLEAR)

    first = [one for one in slicing.slices if matters(one)]
    first.sort(key=lambda one: (one.value != slicing.worst, one.p_value or 0.0))
    return first, [one for one in slicing.slices if not matters(one)]


def tabulate_slices(slicing: Slicing, metric: str) -> list[list[str]]:
    """The slices of a column by one metric, for the terminal; of many, those that matter."""
    first, others = divide_slices(slicing)
    few = SHOWN if len(slicing.slices) <= SHOWN else max(len(first), 1)
    shown = slicing.slices if few == SHOWN else [*first, *others][:few]
    unit = " points" if slicing.compared == "accuracy" else ""
    rows = [
        [
            f"by {slicing.by}",
            "rows",
            metric,
            "95 % interval",
            f"{slicing.compared}, less others'",
            "p",
        ]
    ]
    for one in shown:
        apart, p = one.difference, one.p_value
        rows.append(
            [
                clip(_shorten_times(one.value)),
                f"{one.rows:,}",
                format_score(one.metric(metric)),
                format_interval(one.intervals[metric]),
                "–" if apart is None else f"{format_gap(apart, slicing.compared)}{unit}",
                "–" if p is None else format_p(p),
            ]
        )
    if (more := len(slicing.slices) - len(shown)) > 0:
        rows.append([f"{more} more in the report", *[""] * 5])
    return rows


def _shorten_times(value: str) -> str:
    """A range of times as one of dates, where they differ."""
    match = TIMES.fullmatch(value)
    return f"{match[1]} to {match[2]}" if match and match[1] != match[2] else value
