"""A scored split → where the model fails: which classes, pairs of classes, lengths, texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune import intervals, metrics
from finetune.corpus import Split
from finetune.tokens import TokenTable

SHOWN = 20  # texts, and pairs of classes
TEXT = 800  # characters of a text that are kept
BUCKETS = 5
MOST_CELLS = 40_000  # of a confusion matrix that is written down

Ids = NDArray[np.int64]


def by_class(labels: Ids, guesses: Ids, names: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class with their intervals, in the order of the labels.

    Args:
        labels, guesses: true and given class ids. (rows,)
    """
    classes = len(names)
    table = intervals.Confusion.of(labels, guesses, classes)
    f1s = table.f1_intervals()
    right = np.bincount(labels[labels == guesses], minlength=classes)
    true, given = np.bincount(labels, minlength=classes), np.bincount(guesses, minlength=classes)
    return [
        {
            "label": name,
            "support": int(true[c]),
            "predicted": int(given[c]),
            "precision": _share(right[c], given[c]),
            "precision_interval": [*intervals.wilson(_share(right[c], given[c]), int(given[c]))],
            "recall": _share(right[c], true[c]),
            "recall_interval": [*intervals.wilson(_share(right[c], true[c]), int(true[c]))],
            "f1": _share(2 * right[c], true[c] + given[c]),
            "f1_interval": [*f1s[c]],
        }
        for c, name in enumerate(names)
    ]


def confusion(labels: Ids, guesses: Ids, classes: int) -> list[list[int]] | None:
    """Rows of each true class (first index) by given class; None where that would be too large."""
    if classes**2 > MOST_CELLS:
        return None
    counts = np.bincount(labels * classes + guesses, minlength=classes**2)
    rows: list[list[int]] = counts.reshape(classes, classes).tolist()
    return rows


def confused_pairs(labels: Ids, guesses: Ids, names: Sequence[str]) -> list[dict[str, Any]]:
    """What is most often taken for what: the rows, and their share of the true class's."""
    wrong = labels != guesses
    pairs, counts = np.unique(labels[wrong] * len(names) + guesses[wrong], return_counts=True)
    support = np.bincount(labels, minlength=len(names))
    order = np.argsort(-counts, kind="stable")[:SHOWN]
    return [
        {
            "label": names[true],
            "predicted": names[given],
            "rows": int(rows),
            "share": int(rows) / int(support[true]),
        }
        for rows, (true, given) in ((counts[i], divmod(int(pairs[i]), len(names))) for i in order)
    ]


def by_length(labels: Ids, guesses: Ids, table: TokenTable) -> list[dict[str, Any]]:
    """Accuracy by the tokens of the whole text, in buckets of about as many rows each."""
    cuts = np.unique(np.quantile(table.full, np.linspace(0, 1, BUCKETS + 1)[1:-1]).astype(np.int64))
    bucket = np.searchsorted(cuts, table.full)  # a length on a cut goes below it
    found = []
    for b in np.unique(bucket):
        rows = bucket == b
        right = int((labels == guesses)[rows].sum())
        found.append(
            {"shortest": int(table.full[rows].min()), "longest": int(table.full[rows].max())}
            | _accuracy(right, int(rows.sum()))
            | {"truncated": int((table.cuts > 0)[rows].sum())}
        )
    return found


def by_truncation(labels: Ids, guesses: Ids, table: TokenTable) -> dict[str, Any]:
    """Accuracy on the rows that lost tokens, and on those that are whole; null where there is no
    such row."""
    cut, right = table.cuts > 0, labels == guesses
    return {
        name: _accuracy(int(right[rows].sum()), int(rows.sum())) if rows.any() else None
        for name, rows in (("truncated", cut), ("whole", ~cut))
    }


def confident(
    split: Split, logits: NDArray[np.float32], names: Sequence[str]
) -> list[dict[str, Any]]:
    """The wrong answers that the model was surest of, with the beginning of their texts.

    Some of them are the model's mistakes, and some the labels'.
    """
    assert split.labels is not None
    texts = split.whole()
    chances = metrics.softmax(logits)
    guesses = chances.argmax(axis=1)
    wrong = np.flatnonzero(guesses != split.labels)
    order = wrong[np.argsort(-chances.max(axis=1)[wrong], kind="stable")][:SHOWN]
    return [
        {
            "row": split.places.place(int(i)),
            "label": names[split.labels[i]],
            "predicted": names[guesses[i]],
            "confidence": float(chances[i].max()),
            "label_probability": float(chances[i, split.labels[i]]),
            "text": texts[i][:TEXT] + "…" * (len(texts[i]) > TEXT),
        }
        for i in order
    ]


def _accuracy(right: int, rows: int) -> dict[str, Any]:
    share = right / rows
    return {
        "rows": rows,
        "accuracy": share,
        "accuracy_interval": [*intervals.wilson(share, rows)],
    }


def _share(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else 0.0
