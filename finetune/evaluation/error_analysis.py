"""A scored split → where the model fails: which classes, pairs of classes, lengths, texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.corpus import Split, format_answer
from finetune.evaluation import intervals, metrics, probabilities
from finetune.tokenization.token_table import TokenTable

SHOWN = 20  # texts, and pairs of classes
TEXT = 800  # characters of a text that are kept
BUCKETS = 5
MOST_CELLS = 40_000  # of a confusion matrix that is written down

Labels = NDArray[Any]  # class ids (rows,); of several labels a row, 0 and 1 (rows, classes)


def by_class(labels: Labels, guesses: Labels, names: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class with their intervals, in the order of the labels.

    Args:
        labels, guesses: what is true and what is given.
    """
    table = intervals.Confusion.of(labels, guesses, len(names))
    f1s = table.f1_intervals()
    rows = table.counts[None].astype(np.float64)
    right, true, given = (sums[0].astype(np.int64) for sums in table.sums(rows))
    return [
        {
            "label": name,
            "support": int(true[c]),
            "predicted": int(given[c]),
            "precision": _share(right[c], given[c]),
            "precision_interval": [
                *intervals.wilson_interval(_share(right[c], given[c]), int(given[c]))
            ],
            "recall": _share(right[c], true[c]),
            "recall_interval": [
                *intervals.wilson_interval(_share(right[c], true[c]), int(true[c]))
            ],
            "f1": _share(2 * right[c], true[c] + given[c]),
            "f1_interval": [*f1s[c]],
        }
        for c, name in enumerate(names)
    ]


def confusion(labels: Labels, guesses: Labels, classes: int) -> list[list[int]] | None:
    """Rows of each true class (first index) by given class; None where that would be too large.

    None also of several labels a row, where nothing says which was taken for which.
    """
    if classes**2 > MOST_CELLS or labels.ndim == 2:
        return None
    counts = np.bincount(labels * classes + guesses, minlength=classes**2)
    rows: list[list[int]] = counts.reshape(classes, classes).tolist()
    return rows


def confused_pairs(labels: Labels, guesses: Labels, names: Sequence[str]) -> list[dict[str, Any]]:
    """What is most often taken for what: the rows, and their share of the true class's.

    Of several labels a row: what is most often missed where what else is wrongly given.
    """
    if labels.ndim == 2:
        missed, added = (labels > guesses).astype(np.int64), (guesses > labels).astype(np.int64)
        together = missed.T @ added  # (classes, classes)
        pairs = np.flatnonzero(together)
        counts, support = together.ravel()[pairs], labels.sum(axis=0)
    else:
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


def by_length(labels: Labels, guesses: Labels, table: TokenTable) -> list[dict[str, Any]]:
    """Accuracy by the tokens of the whole text, in buckets of about as many rows each.

    Of several labels a row, those answers are right that have all of them and no other.
    """
    cuts = np.unique(np.quantile(table.full, np.linspace(0, 1, BUCKETS + 1)[1:-1]).astype(np.int64))
    bucket = np.searchsorted(cuts, table.full)  # a length on a cut goes below it
    found = []
    for b in np.unique(bucket):
        rows = bucket == b
        right = int(metrics.is_correct(labels, guesses)[rows].sum())
        found.append(
            {"shortest": int(table.full[rows].min()), "longest": int(table.full[rows].max())}
            | _accuracy(right, int(rows.sum()))
            | {"truncated": int((table.cuts > 0)[rows].sum())}
        )
    return found


def by_truncation(labels: Labels, guesses: Labels, table: TokenTable) -> dict[str, Any]:
    """Accuracy on the rows that lost tokens, and on those that are whole; null where there is no
    such row."""
    cut, right = table.cuts > 0, metrics.is_correct(labels, guesses)
    return {
        name: _accuracy(int(right[rows].sum()), int(rows.sum())) if rows.any() else None
        for name, rows in (("truncated", cut), ("whole", ~cut))
    }


def confident(
    split: Split,
    logits: NDArray[np.float32],
    names: Sequence[str],
    thresholds: NDArray[np.float64] | None = None,
) -> list[dict[str, Any]]:
    """The wrong answers that the model was surest of, with the beginning of their texts.

    Some of them are the model's mistakes, and some the labels'. Of several labels a row, those
    with the decision that was most surely wrong: `decision` names it.
    """
    assert split.labels is not None
    labels, several, texts = split.labels, split.labels.ndim == 2, split.whole()
    chances = probabilities.to_probabilities(logits, several)
    guesses = metrics.predict_labels(logits, several, thresholds)
    wrong = np.flatnonzero(~metrics.is_correct(labels, guesses))
    if several:  # of each decision that is wrong, how probable it was held
        wrongly = np.where(labels != guesses, np.where(guesses > 0, chances, 1 - chances), -1.0)
        worst, sure = wrongly.argmax(axis=1), wrongly.max(axis=1)
    else:
        worst, sure = guesses, chances.max(axis=1)
    order = wrong[np.argsort(-sure[wrong], kind="stable")][:SHOWN]
    found = []
    for i in order:
        own = 1 - sure[i] if several else chances[i, labels[i]]
        one: dict[str, Any] = {
            "row": split.places.place(int(i)),
            "label": format_answer(labels[i], names),
            "predicted": format_answer(guesses[i], names),
            "confidence": float(sure[i]),
            "label_probability": float(own),
            "text": texts[i][:TEXT] + "…" * (len(texts[i]) > TEXT),
        }
        if several:
            kind = "given" if guesses[i, worst[i]] else "missed"
            one["decision"] = f"{names[worst[i]]}: {kind}"
        found.append(one)
    return found


def _accuracy(right: int, rows: int) -> dict[str, Any]:
    share = right / rows
    return {
        "rows": rows,
        "accuracy": share,
        "accuracy_interval": [*intervals.wilson_interval(share, rows)],
    }


def _share(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else 0.0
