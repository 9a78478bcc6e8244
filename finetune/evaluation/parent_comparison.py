"""A model and the one whose head it kept → what was forgotten, on the same test rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.corpus import Corpus
from finetune.evaluation import confusion, intervals
from finetune.evaluation.outcome import Outcome, ParentPredictions
from finetune.evaluation.probabilities import predict_labels


def compare_with_parent(corpus: Corpus, outcome: Outcome) -> dict[str, Any] | None:
    """The scores of both on the labels that both know, as of `ParentComparison`.

    Each predicts as it would: the parent among its own labels, this model among its own, of which
    some are new. So what a new label takes from an old one is a loss.

    None without a parent, and where no test row has a label that it knows.
    """
    parent, labels = outcome.parent, corpus.test.labels
    if parent is None or labels is None:
        return None
    ours = predict_labels(outcome.test.logits, corpus.multi_label, outcome.test.thresholds)
    theirs = predict_labels(parent.logits, corpus.multi_label, parent.thresholds)
    compare = _compare_sets if corpus.multi_label else _compare_single
    found = compare(corpus.labels, parent, labels, ours, theirs)
    if found is None:
        return None
    known, own = set(parent.labels), set(corpus.labels)
    return found | {
        "source": parent.source,
        "kept": [name for name in corpus.labels if name in known],
        "new": [name for name in corpus.labels if name not in known],
        "gone": [name for name in parent.labels if name not in own],
    }


def _compare_single(
    names: Sequence[str],
    parent: ParentPredictions,
    labels: NDArray[Any],
    ours: NDArray[Any],
    theirs: NDArray[Any],
) -> dict[str, Any] | None:
    """Of rows with one label each: ids are those of `names`, and -1 is a label that is gone."""
    place = {name: i for i, name in enumerate(names)}
    theirs = np.array([place.get(name, -1) for name in parent.labels])[theirs]
    is_known = np.isin(labels, [place[name] for name in parent.labels if name in place])
    if not is_known.any():
        return None
    right_now, right_before = (ours == labels)[is_known], (theirs == labels)[is_known]
    new = np.array([name not in parent.labels for name in names])
    of_new = labels[~is_known] == ours[~is_known]
    return _describe_pair(right_before, right_now) | {
        "metric": "accuracy",
        "rows": int(is_known.sum()),
        "taken_by_new": int((right_before & new[ours[is_known]]).sum()),
        "new_rows": len(of_new),
        "new_recall": float(of_new.mean()) if len(of_new) else None,
        "labels": _compare_labels(
            {
                name: (right_before[of], right_now[of])
                for name, of in ((n, labels[is_known] == place[n]) for n in names)
            }
        ),
    }


def _compare_sets(
    names: Sequence[str],
    parent: ParentPredictions,
    labels: NDArray[Any],
    ours: NDArray[Any],
    theirs: NDArray[Any],
) -> dict[str, Any] | None:
    """Of rows that may have several labels: 0 and 1 for each."""
    both = [name for name in names if name in parent.labels]
    here = [names.index(name) for name in both]
    there = [parent.labels.index(name) for name in both]
    truth, now, before = labels[:, here], ours[:, here], theirs[:, there]
    if not truth.any():
        return None
    scores = [
        confusion.Confusion.from_labels(truth, predicted, len(both)).observed("f1_micro")
        for predicted in (before, now)
    ]
    of_new = np.delete(ours, here, axis=1)[np.delete(labels, here, axis=1) > 0]
    gap = confusion.paired_difference("f1_micro", truth, now, before, len(both))
    return gap | {
        "metric": "f1_micro",
        "rows": len(truth),
        "before": scores[0],
        "after": scores[1],
        "taken_by_new": 0,
        "new_rows": len(of_new),
        "new_recall": float(of_new.mean()) if len(of_new) else None,
        "labels": _compare_labels(
            {
                name: (before[truth[:, i] > 0, i] > 0, now[truth[:, i] > 0, i] > 0)
                for i, name in enumerate(both)
            }
        ),
    }


def _describe_pair(before: NDArray[np.bool_], after: NDArray[np.bool_]) -> dict[str, Any]:
    """Which of the same rows are right, before and after. (rows,) each"""
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return {
        "before": float(before.mean()),
        "after": float(after.mean()),
        "difference": (gained - lost) / len(before),
        "interval": intervals.paired_interval(gained, lost, len(before)),
    }


def _compare_labels(
    rows: dict[str, tuple[NDArray[np.bool_], NDArray[np.bool_]]],
) -> list[dict[str, Any]]:
    """The recall of each label before and after, the greatest loss first.

    Args:
        rows: of each label, which of the rows that have it are given it. (its rows,) each
    """
    there = {name: pair for name, pair in rows.items() if len(pair[0])}
    p_values = intervals.correct_p_values(
        [
            intervals.mcnemar_p(int((after & ~before).sum()), int((before & ~after).sum()))
            for before, after in there.values()
        ]
    )
    found = [
        {"label": name, "support": len(pair[0]), "p_value": p, **_describe_pair(*pair)}
        for (name, pair), p in zip(there.items(), p_values, strict=True)
    ]
    return sorted(found, key=lambda one: one["difference"])
