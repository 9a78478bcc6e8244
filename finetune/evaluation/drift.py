"""New labelled rows beside the test split that a model was scored on: what has changed.

    drift = measure_drift(old, new, names)
    drift.accuracy.difference, drift.accuracy.interval

Label shares, the accuracy, that of each label, and the lengths of the documents. A difference of
two shares has Newcombe's interval (1998) and the p-value of Fisher's exact test (1922). Lengths are
compared as counts by length, over those buckets by which the old rows were described: Pearson's
chi-squared (1900), or where a bucket expects fewer than five rows, the same statistic's
distribution over random divisions of all rows into two groups of these sizes (Hope 1968). With so
many tests some are significant by chance, so all p-values are corrected together (Holm 1979).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.stats import chi2_contingency, fisher_exact

from finetune.evaluation.analysis_model import Interval, LengthBucket, Section
from finetune.evaluation.intervals import correct_p_values, newcombe_interval, wilson_interval
from finetune.evaluation.probabilities import is_correct

SIGNIFICANT = 0.05  # a corrected p-value below it
FEWEST = 5  # expected rows of a cell, from which on chi-squared holds
DIVISIONS = 9_999  # random divisions of the rows
Ids = NDArray[np.int64]


class Share(Section):
    """A share of rows."""

    rows: int = Field(description="rows that have it")
    of: int = Field(description="rows in all")
    share: float = Field(description="their share")
    interval: Interval = Field(description="its 95 % interval (Wilson)")


class Change(Section):
    """A share of the old test split and of the new rows."""

    label: str | None = Field(description="the label; null: of all rows")
    before: Share = Field(description="on the old test split")
    after: Share = Field(description="on the new rows")
    difference: float = Field(description="the new share minus the old one")
    interval: Interval = Field(description="95 % interval of the difference (Newcombe)")
    p: float = Field(description="p-value of Fisher's exact test, corrected for all tests (Holm)")

    @property
    def is_clear(self) -> bool:
        """Whether it is more than chance."""
        return self.p < SIGNIFICANT


class LengthShare(Section):
    shortest: int = Field(description="tokens of the bucket's shortest documents")
    longest: int | None = Field(description="of its longest; null: no limit")
    before: int = Field(description="documents of the old test split")
    after: int = Field(description="documents of the new rows")
    difference: float = Field(description="their share of the new rows minus that of the old")
    interval: Interval = Field(description="95 % interval of the difference (Newcombe)")


class LengthChange(Section):
    median_before: int = Field(description="median tokens on the old test split")
    median_after: int = Field(description="median tokens of the new rows")
    buckets: list[LengthShare] = Field(description="documents by length")
    p: float = Field(description="p-value of chi-squared, corrected for all tests (Holm)")

    @property
    def is_clear(self) -> bool:
        """Whether it is more than chance."""
        return self.p < SIGNIFICANT


class Drift(Section):
    """What has changed since the old test split."""

    before: int = Field(description="rows of the old test split")
    after: int = Field(description="new rows")
    tests: int = Field(description="tests for which p-values are corrected")
    accuracy: Change = Field(description="accuracy (multi-label: all labels right)")
    shares: list[Change] = Field(description="share of the rows that have each label")
    recalls: list[Change] = Field(
        description="by label, the share of its rows for which it is predicted; without labels "
        "that one side does not have"
    )
    lengths: LengthChange = Field(description="lengths of the documents")


@dataclass(frozen=True)
class ScoredRows:
    """Labelled rows with predictions.

    Attributes:
        labels, predictions: class ids (rows,); multi-label: 0 and 1 (rows, classes).
        median: tokens of their documents.
    """

    labels: NDArray[Any]
    predictions: NDArray[Any]
    median: int


def measure_drift(
    old: ScoredRows,
    new: ScoredRows,
    names: Sequence[str],
    buckets: Sequence[LengthBucket],
    tokens: Ids,
) -> Drift:
    """Compare new rows with old ones.

    Args:
        names: of the classes.
        buckets: of the old rows, from short to long.
        tokens: of the new rows' whole documents. (rows,)
    """
    right = [is_correct(rows.labels, rows.predictions) for rows in (old, new)]
    accuracy = [(int(one.sum()), len(one)) for one in right]
    before, after = (_by_label(rows, len(names)) for rows in (old, new))
    pairs: list[tuple[str, str | None, tuple[int, int], tuple[int, int]]] = [
        ("accuracy", None, accuracy[0], accuracy[1])
    ]
    for i, name in enumerate(names):
        (have_1, hit_1), (have_2, hit_2) = before[i], after[i]
        if have_1 or have_2:
            pairs.append(("share", name, (have_1, len(right[0])), (have_2, len(right[1]))))
        if have_1 and have_2:
            pairs.append(("recall", name, (hit_1, have_1), (hit_2, have_2)))
    counts = _count_lengths(buckets, tokens)
    values = [compare_shares(one, two) for _, _, one, two in pairs]
    *corrected, of_lengths = correct_p_values([*values, compare_counts(counts)])
    changes = [
        (kind, _change(name, one, two, p))
        for (kind, name, one, two), p in zip(pairs, corrected, strict=True)
    ]
    ends = [*[bucket.longest for bucket in buckets[:-1]], None]
    starts = [0, *[bucket.longest + 1 for bucket in buckets[:-1]]]
    return Drift(
        before=len(right[0]),
        after=len(right[1]),
        tests=len(values) + 1,
        accuracy=changes[0][1],
        shares=[change for kind, change in changes if kind == "share"],
        recalls=[change for kind, change in changes if kind == "recall"],
        lengths=LengthChange(
            median_before=old.median,
            median_after=new.median,
            buckets=[
                _length_share(start, end, (int(one), len(right[0])), (int(two), len(right[1])))
                for start, end, (one, two) in zip(starts, ends, counts.T, strict=True)
            ],
            p=of_lengths,
        ),
    )


def compare_shares(before: tuple[int, int], after: tuple[int, int]) -> float:
    """The p-value of Fisher's exact test that two shares are of the same population.

    Args:
        before, after: each how many rows have it, of how many rows.
    """
    table = [[one, of - one] for one, of in (before, after)]
    return float(fisher_exact(table).pvalue)


def compare_counts(counts: Ids) -> float:
    """The p-value that two samples fall into cells alike. counts: (2, cells)"""
    counts = counts[:, counts.sum(axis=0) > 0]
    if counts.shape[1] < 2 or not counts.sum(axis=1).all():
        return 1.0
    found = chi2_contingency(counts, correction=False)
    if found.expected_freq.min() >= FEWEST:
        return float(found.pvalue)
    drawn = np.random.default_rng(0).multivariate_hypergeometric(
        counts.sum(axis=0), int(counts[0].sum()), DIVISIONS
    )
    both = np.stack([drawn, counts.sum(axis=0) - drawn], axis=1)  # (divisions, 2, cells)
    chi_squared = ((both - found.expected_freq) ** 2 / found.expected_freq).sum(axis=(1, 2))
    as_far = int((chi_squared >= found.statistic * (1 - 1e-12)).sum())
    return (1 + as_far) / (1 + DIVISIONS)


def _by_label(rows: ScoredRows, classes: int) -> list[tuple[int, int]]:
    """Of each class the rows that have it, and those of them for which it is predicted."""
    labels, predictions = rows.labels, rows.predictions
    if labels.ndim == 1:
        has = np.bincount(labels, minlength=classes)
        hit = np.bincount(labels[labels == predictions], minlength=classes)
    else:
        has, hit = labels.sum(axis=0), (labels * predictions).sum(axis=0)
    return [(int(one), int(two)) for one, two in zip(has, hit, strict=True)]


def _count_lengths(buckets: Sequence[LengthBucket], tokens: Ids) -> Ids:
    """Old and new rows by the old rows' buckets of length, the last without an end. (2, buckets)"""
    ends = np.array([bucket.longest for bucket in buckets[:-1]])
    at = np.searchsorted(ends, tokens)  # a document as long as a bucket's end is in it
    new = np.bincount(at, minlength=len(buckets))
    return np.array([[bucket.rows for bucket in buckets], new], dtype=np.int64)


def _length_share(
    shortest: int, longest: int | None, before: tuple[int, int], after: tuple[int, int]
) -> LengthShare:
    return LengthShare(
        shortest=shortest,
        longest=longest,
        before=before[0],
        after=after[0],
        difference=after[0] / max(1, after[1]) - before[0] / max(1, before[1]),
        interval=newcombe_interval(before, after),
    )


def _change(label: str | None, before: tuple[int, int], after: tuple[int, int], p: float) -> Change:
    one, two = (
        Share(rows=rows, of=of, share=rows / of, interval=wilson_interval(rows / of, of))
        for rows, of in (before, after)
    )
    return Change(
        label=label,
        before=one,
        after=two,
        difference=two.share - one.share,
        interval=newcombe_interval(before, after),
        p=p,
    )
