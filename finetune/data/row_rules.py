"""Rows that are not right → what the recipe says of them, done, counted and named by their place.

    ledger.judge("empty", "on_empty", part, rows)     # drop, keep or stop, as data.on_empty says

A `Part` is the rows of one role while the rules go over them; the `Ledger` holds what was found.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from finetune.config import schema
from finetune.data.corpus import Finding
from finetune.data.label_space import Named, NamedSets
from finetune.data.rows import Rows
from finetune.runtime.errors import InputError, shorten

# A row's labels by name: one, several in the order of the label space, or None where missing.
Names = str | tuple[str, ...] | None
Ids = NDArray[np.int64]

DONE = {"replace": "U+FFFD put in place", "drop": "dropped", "keep": "kept"}


@dataclass
class Part:
    """The rows of one role while the rules go over them.

    Attributes:
        numbers: of each document, the same for the same document, in all parts. (all rows,)
        empty: whether a text is missing; of a pair, one of the two. (all rows,)
        kinds: the labels by name that there are, and None where missing; none: unlabelled.
        labels: which of the kinds each row has. (all rows,)
        keep: the rows still in, ascending.
    """

    role: str
    rows: Rows
    origin: str
    numbers: Ids
    empty: NDArray[np.bool_]
    keep: Ids
    kinds: list[Names]
    labels: Ids

    def take_labels(self, names: Sequence[Names]) -> None:
        """Every row's label by name."""
        codes: dict[Names, int] = {}
        coded = (codes.setdefault(name, len(codes)) for name in names)
        self.labels, self.kinds = np.fromiter(coded, np.int64, len(names)), list(codes)

    def labels_in(self) -> Counter[str]:
        """The labels of the rows that are in, in the order in which they come."""
        assert self.kinds
        found, first, counts = np.unique(
            self.labels[self.keep], return_index=True, return_counts=True
        )
        labels: Counter[str] = Counter()
        for k in np.argsort(first):
            for name in each(self.kinds[found[k]]):
                labels[name] += int(counts[k])
        return labels

    def has(self, kinds: Collection[Names]) -> Ids:
        """The rows that are in and have one of these."""
        of_kind = np.array([kind in kinds for kind in self.kinds])
        there: Ids = self.keep[of_kind[self.labels[self.keep]]]
        return there

    def pairs(self) -> Ids:
        """A number for each row that is in: the same for the same document and labels."""
        pairs: Ids = self.numbers * max(1, len(self.kinds)) + self.labels
        return pairs[self.keep]


@dataclass
class Ledger:
    """What was found so far, and the problems of the rules that say stop."""

    data: schema.Data
    findings: list[Finding] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def note(
        self, kind: str, part: Part, rows: Sequence[int] | Ids, rule: str, other: str = ""
    ) -> None:
        if len(rows):
            places = part.rows.places.take(rows)
            self.findings.append(Finding(kind, part.role, len(rows), places, rule, other))

    def judge(
        self, kind: str, key: str, part: Part, rows: Sequence[int] | Ids, details: str = ""
    ) -> None:
        """Do with `rows` what data.<key> says; `stop` collects a problem and goes on without."""
        if not len(rows):
            return
        rule = str(getattr(self.data, key))
        self.note(kind, part, rows, f"{DONE.get(rule, '')} (data.{key}: {rule})")
        if rule == "stop":
            finding = self.findings.pop()
            options = get_args(schema.Data.model_fields[key].annotation)
            others = " or ".join(option for option in options if option != "stop")
            self.problems.append(
                f"{finding.what()}{details}: data.{key} is 'stop'; mend the data, or set "
                f"data.{key} to {others}"
            )
        if rule in ("drop", "stop"):
            part.keep = np.setdiff1d(part.keep, rows, assume_unique=True)


def nothing_left(part: Part, ledger: Ledger) -> str:
    """That a split is empty, and which rules emptied it."""
    message = f"{part.role}: no rows are left of {part.origin} ({counted(len(part.rows.texts))})"
    causes = [
        str(finding).removeprefix(f"{part.role}: ")
        for finding in ledger.findings
        if finding.split == part.role and finding.rule.startswith(DONE["drop"])
    ]
    return "; ".join([message, *causes])


def require_classes(train: Part, ledger: Ledger) -> None:
    """
    Raises:
        InputError: where fewer than two labels are left to learn.
    """
    counts = train.labels_in()
    if not counts:
        raise InputError(nothing_left(train, ledger))
    if len(counts) < 2:
        ((name, count),) = counts.items()
        raise InputError(
            f"train: expected rows of at least two labels, got only '{name}' ({counted(count)})"
        )


def each(names: Names) -> tuple[str, ...]:
    """The labels of a row one by one; none where they are missing."""
    return names if isinstance(names, tuple) else () if names is None else (names,)


def take_labels(part: Part, named: Named | NamedSets | None, ledger: Ledger) -> None:
    """Give rows their labels by name, and judge those that have none."""
    if named is None:
        ledger.note("unlabelled", part, part.keep, "predicted, not scored")
        return
    part.take_labels(named.names)
    ledger.judge("null label", "on_null_label", part, part.has([None]))
    ledger.note("trimmed label", part, np.intersect1d(named.trimmed, part.keep), "trimmed")


def repeats_in_pool(pool: Part, ledger: Ledger) -> None:
    """The rules for documents that stand several times in train, with one label or with several."""
    ledger.judge("repeat", "on_duplicate", pool, _repeats(pool))
    documents = np.unique(pool.pairs()) // len(pool.kinds)
    several = documents[1:][documents[1:] == documents[:-1]]  # with more than one label
    clashes = pool.keep[np.isin(pool.numbers[pool.keep], several)]
    ledger.note("conflicting labels", pool, clashes, "kept")


def _repeats(part: Part) -> Ids:
    again = np.ones(len(part.keep), dtype=bool)
    again[np.unique(part.pairs(), return_index=True)[1]] = False
    return part.keep[again]


def rows_of_given(part: Part, seen: set[str], ledger: Ledger) -> None:
    """The rules for a validation or test split that the source brings along."""
    if part.kinds:
        unseen = part.has({kind for kind in part.kinds if not seen.issuperset(each(kind))})
        counts = part.labels_in()
        listed = [f"'{name}' ({counted(counts[name])})" for name in counts if name not in seen]
        details = f", namely {shorten(listed)}"
        ledger.judge("unseen label", "on_unseen_label", part, unseen, details)
    ledger.note("repeat", part, _repeats(part), "kept, so that scores stay comparable")


def counted(count: int) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{count:,} row{'s' * (count != 1)}"
