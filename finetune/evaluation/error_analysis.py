"""A scored split → where the model fails: which classes, pairs of classes, lengths, texts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.corpus import Split, format_labels
from finetune.evaluation import intervals
from finetune.evaluation.confusion import Confusion
from finetune.evaluation.probabilities import is_correct, predict_labels, to_probabilities
from finetune.tokenization.token_table import TokenTable

SHOWN = 20  # texts, and pairs of classes
TEXT = 800  # characters of a text that are kept
LENGTH_BUCKETS = 5
MAX_CELLS = 40_000  # of a confusion matrix that is written down

Labels = NDArray[Any]  # class ids (rows,); multi-label: 0 and 1 (rows, classes)


def score_by_class(
    labels: Labels, predictions: Labels, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class with their intervals, in the order of the labels.

    None where there is nothing to measure: the precision of a class that is never predicted, and
    recall and F1 of one that no row has.

    Args:
        labels, predictions: (rows,), or multi-label (rows, classes).
    """
    table = Confusion.from_labels(labels, predictions, len(names))
    rows = table.counts[None].astype(np.float64)
    right, true, predicted = (sums[0].astype(np.int64) for sums in table.sums(rows))
    return [
        {
            "label": name,
            "support": int(true[c]),
            "predicted": int(predicted[c]),
            "precision": _share_or_none(right[c], predicted[c]),
            "precision_interval": [
                *intervals.wilson_interval(_share(right[c], predicted[c]), int(predicted[c]))
            ],
            "recall": _share_or_none(right[c], true[c]),
            "recall_interval": [
                *intervals.wilson_interval(_share(right[c], true[c]), int(true[c]))
            ],
            "f1": _share(2 * right[c], true[c] + predicted[c]) if true[c] else None,
            "f1_interval": [
                *intervals.f1_interval(int(right[c]), int(true[c] + predicted[c] - right[c]))
            ],
        }
        for c, name in enumerate(names)
    ]


def confusion_matrix(labels: Labels, predictions: Labels, classes: int) -> list[list[int]] | None:
    """Rows of each true class (first index) by predicted class; None where that would be too large.

    None also multi-label, where nothing says which label was mistaken for which.
    """
    if classes**2 > MAX_CELLS or labels.ndim == 2:
        return None
    counts = np.bincount(labels * classes + predictions, minlength=classes**2)
    rows: list[list[int]] = counts.reshape(classes, classes).tolist()
    return rows


def confused_pairs(
    labels: Labels, predictions: Labels, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Which class is most often predicted for which: the rows, and their share of the true class's.

    Multi-label: which label is most often missed where which other is wrongly predicted.
    """
    if labels.ndim == 2:
        missed, added = (
            (labels > predictions).astype(np.int64),
            (predictions > labels).astype(np.int64),
        )
        together = missed.T @ added  # (classes, classes)
        pairs = np.flatnonzero(together)
        counts, support = together.ravel()[pairs], labels.sum(axis=0)
    else:
        wrong = labels != predictions
        pairs, counts = np.unique(
            labels[wrong] * len(names) + predictions[wrong], return_counts=True
        )
        support = np.bincount(labels, minlength=len(names))
    order = np.argsort(-counts, kind="stable")[:SHOWN]
    return [
        {
            "label": names[true],
            "predicted": names[predicted],
            "rows": int(rows),
            "share": int(rows) / int(support[true]),
        }
        for rows, (true, predicted) in (
            (counts[i], divmod(int(pairs[i]), len(names))) for i in order
        )
    ]


def accuracy_by_length(
    labels: Labels, predictions: Labels, table: TokenTable
) -> list[dict[str, Any]]:
    """Accuracy by the tokens of the whole text, in buckets of about as many rows each.

    Multi-label, a prediction is right where it has all labels and no other.
    """
    edges = np.unique(
        np.quantile(table.full, np.linspace(0, 1, LENGTH_BUCKETS + 1)[1:-1]).astype(np.int64)
    )
    bucket = np.searchsorted(edges, table.full)  # a length on an edge goes below it
    buckets = []
    for b in np.unique(bucket):
        rows = bucket == b
        right = int(is_correct(labels, predictions)[rows].sum())
        buckets.append(
            {"shortest": int(table.full[rows].min()), "longest": int(table.full[rows].max())}
            | _accuracy(right, int(rows.sum()))
            | {"truncated": int((table.lost_tokens > 0)[rows].sum())}
        )
    return buckets


def accuracy_by_truncation(
    labels: Labels, predictions: Labels, table: TokenTable
) -> dict[str, Any]:
    """Accuracy on the rows that lost tokens, and on those that are whole; null where there is no
    such row."""
    cut, right = table.lost_tokens > 0, is_correct(labels, predictions)
    return {
        name: _accuracy(int(right[rows].sum()), int(rows.sum())) if rows.any() else None
        for name, rows in (("truncated", cut), ("whole", ~cut))
    }


def most_confident_mistakes(
    split: Split,
    logits: NDArray[np.float32],
    names: Sequence[str],
    thresholds: NDArray[np.float64] | None = None,
) -> list[dict[str, Any]]:
    """The wrong predictions of the highest confidence, with the beginning of their texts.

    Some of them are the model's mistakes, and some the labels'. Multi-label, ordered by the wrong
    decision of the highest confidence, which `decision` names.
    """
    assert split.labels is not None
    labels, multi_label, texts = split.labels, split.labels.ndim == 2, split.whole()
    probabilities = to_probabilities(logits, multi_label)
    predictions = predict_labels(logits, multi_label, thresholds)
    wrong = np.flatnonzero(~is_correct(labels, predictions))
    if multi_label:  # of each decision that is wrong, how probable it was held
        confidence_if_wrong = np.where(
            labels != predictions, np.where(predictions > 0, probabilities, 1 - probabilities), -1.0
        )
        worst, confidence = confidence_if_wrong.argmax(axis=1), confidence_if_wrong.max(axis=1)
    else:
        worst, confidence = predictions, probabilities.max(axis=1)
    order = wrong[np.argsort(-confidence[wrong], kind="stable")][:SHOWN]
    mistakes = []
    for i in order:
        own = 1 - confidence[i] if multi_label else probabilities[i, labels[i]]
        mistake: dict[str, Any] = {
            "row": split.places.place(int(i)),
            "id": None if split.ids is None else split.ids[int(i)],
            "label": format_labels(labels[i], names),
            "predicted": format_labels(predictions[i], names),
            "confidence": float(confidence[i]),
            "label_probability": float(own),
            "text": texts[i][:TEXT] + "…" * (len(texts[i]) > TEXT),
        }
        if multi_label:
            kind = "given" if predictions[i, worst[i]] else "missed"
            mistake["decision"] = f"{names[worst[i]]}: {kind}"
        mistakes.append(mistake)
    return mistakes


def _accuracy(right: int, rows: int) -> dict[str, Any]:
    share = right / rows
    return {
        "rows": rows,
        "accuracy": share,
        "accuracy_interval": [*intervals.wilson_interval(share, rows)],
    }


def _share(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else 0.0


def _share_or_none(part: Any, whole: Any) -> float | None:
    return _share(part, whole) if whole else None
