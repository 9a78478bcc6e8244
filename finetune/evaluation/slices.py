"""A scored split → every metric by the values of a column, and whether one of them is worse.

    score_slices(split, table, scores, metrics, ["channel"], compared)   # also by length and file

The documents of each value are compared with all others of the split (`slice_comparison.py`); the
p-values of all slices of all columns together are corrected by Holm 1979, so that where nothing
differs, one report in twenty shows any difference at most.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.corpus import Split
from finetune.data.identifiers import Ids, is_missing
from finetune.data.moments import read_moments
from finetune.evaluation import intervals
from finetune.evaluation.confusion import metric_intervals
from finetune.evaluation.metrics import Metric, measure
from finetune.evaluation.number_intervals import score_intervals
from finetune.evaluation.scoring import Scores, compute_metrics
from finetune.evaluation.slice_comparison import Compared, compare_slices, find_worst
from finetune.runtime.memory_errors import reraise_memory_error
from finetune.runtime.wording import token_range
from finetune.tokenization.token_table import TokenTable

MOST_VALUES = 20  # of a column; of more, the most frequent are slices, and the others one
BUCKETS = 5  # of numbers, times and lengths, with about as many documents each
MISSING, OTHER = "no value", "other values"


@dataclass(frozen=True)
class _Grouping:
    """How the rows of a split are divided.

    Attributes:
        by: the column, or what else they are divided by.
        kind: column, length or file.
        names: of the slices.
        slice_of: which of them each row is in. (rows,)
    """

    by: str
    kind: str
    names: list[str]
    slice_of: NDArray[np.int64]


def score_slices(
    split: Split,
    table: TokenTable,
    scores: Scores,
    metrics: Sequence[Metric],
    columns: Sequence[str],
    compared: Compared,
    deviation: float | None = None,
) -> list[dict[str, Any]]:
    """The scores of the slices of each column, by length, and by file where there are several.

    Args:
        table: the split's tokens.
        columns: of `split.attributes`; without one, there are no slices.
        compared: what they are compared by.
        deviation: of train's numbers, where labels are numbers.
    """
    if not columns:
        return []
    assert split.labels is not None
    found: list[dict[str, Any]] = []
    values: list[float] = []
    for grouping in _find_groupings(split, table, columns):
        slices: list[dict[str, Any]] = []
        against_others = compare_slices(compared, grouping.slice_of, len(grouping.names))
        for index, name in enumerate(grouping.names):
            inside = grouping.slice_of == index
            of_rows = (
                _score(split.labels, scores, inside, metrics)
                if deviation is None
                else _score_numbers(split.labels, scores, inside, metrics, deviation)
            )
            slices.append(
                {"value": name, "rows": int(inside.sum())} | of_rows | against_others[index]
            )
        values += [one["p_value"] for one in slices if one["p_value"] is not None]
        found.append(
            {
                "by": grouping.by,
                "kind": grouping.kind,
                "compared": compared.metric,
                "slices": slices,
            }
        )
    corrected = iter(intervals.correct_p_values(values))
    for one in found:
        for part in one["slices"]:
            if part["p_value"] is not None:
                part["p_value"] = next(corrected)
        one["worst"] = find_worst(one["slices"], compared)
    return found


def _find_groupings(split: Split, table: TokenTable, columns: Sequence[str]) -> Iterator[_Grouping]:
    for column in columns:
        yield _Grouping(column, "column", *_divide_values(split.attributes[column]))
    whole = table.full
    parts = _divide_numbers(whole.astype(np.float64))
    named = [whole[parts == part] for part in range(int(parts.max()) + 1)]
    names = [token_range(int(own.min()), int(own.max())) for own in named]
    yield _Grouping("length", "length", names, parts)
    files = split.places.sources()
    if len(set(files)) > 1:
        yield _Grouping("file", "file", *_divide_names(files))


def _divide_values(cells: Ids) -> tuple[list[str], NDArray[np.int64]]:
    """Names for slices, and each row's, of a column's cells."""
    values = [*cells]
    names = [MISSING if is_missing(value) else show_value(value) for value in values]
    if len(set(names)) <= MOST_VALUES:
        return _divide_names(names)
    there = [i for i, name in enumerate(names) if name != MISSING]
    numbers, odd = read_moments([values[i] for i in there])
    if odd:
        return _divide_names(names)
    parts = _divide_numbers(numbers)
    for part in range(int(parts.max()) + 1):
        own = np.flatnonzero(parts == part)
        ends = (own[numbers[own].argmin()], own[numbers[own].argmax()])
        low, high = (show_value(values[there[int(i)]]) for i in ends)
        for i in own:
            names[there[int(i)]] = low if low == high else f"{low} to {high}"
    in_order = dict.fromkeys(names[there[int(i)]] for i in np.argsort(numbers, kind="stable"))
    return _number_names(names, [*in_order])


def show_value(value: Any) -> str:
    """A cell in words."""
    return value.strip() if isinstance(value, str) else json.dumps(value)


def _divide_names(names: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """The most frequent first; of many, those beyond `MOST_VALUES` are one slice."""
    order = [name for name, _ in sorted(Counter(names).items(), key=lambda one: (-one[1], one[0]))]
    if len(order) <= MOST_VALUES:
        return _number_names(names, order)
    kept = order[: MOST_VALUES - 1]
    others = f"{OTHER} ({len(order) - len(kept):,})"
    return _number_names([name if name in kept else others for name in names], [*kept, others])


def _number_names(
    names: Sequence[str], order: Sequence[str]
) -> tuple[list[str], NDArray[np.int64]]:
    """
    Args:
        order: of the names; one that is not among them comes last.
    """
    used = [*dict.fromkeys([*order, *names])]
    number = {name: i for i, name in enumerate(used)}
    return used, np.array([number[name] for name in names], dtype=np.int64)


def _divide_numbers(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """A bucket for each, of about as many rows, from the lowest on. (rows,)"""
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, BUCKETS + 1)[1:-1], method="lower"))
    _, parts = np.unique(np.searchsorted(edges, numbers), return_inverse=True)
    return parts.astype(np.int64).reshape(-1)


def _score(
    labels: NDArray[Any], scores: Scores, inside: NDArray[np.bool_], metrics: Sequence[Metric]
) -> dict[str, Any]:
    """Every metric of some rows, with its interval; None for one that cannot score them alone."""
    logits, thresholds = scores.logits[inside], scores.thresholds
    if thresholds is not None and thresholds.ndim == 2:
        thresholds = thresholds[inside]
    able = [one for one in metrics if _can_measure(one, logits, labels[inside], thresholds)]
    found: dict[str, Any] = dict.fromkeys(one.key for one in metrics)
    between: dict[str, Any] = dict.fromkeys(found)
    found |= compute_metrics(logits, labels[inside], able, thresholds)
    ends = metric_intervals(able, logits, labels[inside], thresholds, found)
    return found | {"intervals": between | ends}


def _score_numbers(
    numbers: NDArray[Any],
    scores: Scores,
    inside: NDArray[np.bool_],
    metrics: Sequence[Metric],
    deviation: float,
) -> dict[str, Any]:
    """Every metric of the predictions of some numbers, with its interval."""
    logits, own = scores.logits[inside], numbers[inside]
    names = [one.key for one in metrics]
    found: dict[str, Any] = compute_metrics(logits, own, metrics, scale=deviation)
    return found | {"intervals": score_intervals(names, logits, own, deviation)}


def _can_measure(
    metric: Metric, logits: NDArray[Any], labels: NDArray[Any], thresholds: NDArray[Any] | None
) -> bool:
    """Whether a metric can score some rows; those of `evaluate.load` may need every class."""
    if metric.interval_method is not None:
        return True
    try:
        measure([metric], logits, labels, thresholds)
    except Exception as error:
        reraise_memory_error(error)
        return False
    return True
