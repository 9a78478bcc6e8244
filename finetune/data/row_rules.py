"""The rules for rows that are not right: applied, counted, and noted with the rows' places.

log.apply_rule("empty", "on_empty", split, rows)     # drop, keep or stop, as data.on_empty says
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from finetune.config import schema
from finetune.config.label_tasks import MARK
from finetune.data.cells import format_rows
from finetune.data.corpus import Finding
from finetune.data.label_space import NamedLabels, NamedSets
from finetune.data.rows import Rows
from finetune.data.similar_labels import fold_label, show_label
from finetune.data.text_store import number_digests
from finetune.runtime.errors import InputError, shorten

# A row's labels by name: one, several in the order of the label space, or None where missing.
Names = str | tuple[str, ...] | None
Ids = NDArray[np.int64]

DONE = {
    "replace": "U+FFFD put in place",
    "drop": "dropped",
    "keep": "kept",
    "stop": "a run stops here",
}


@dataclass
class SplitRows:
    """The rows of one role while the rules are applied.

    Attributes:
        document_ids: the same number for the same document, in all splits. (all rows,)
        empty: whether a text is missing; of a pair, one of the two. (all rows,)
        keep: the rows still in, ascending.
        distinct_labels: the labels by name that there are, None where missing; none: unlabelled.
        label_codes: which of those each row has. (all rows,)
    """

    role: str
    rows: Rows
    origin: str
    document_ids: Ids
    empty: NDArray[np.bool_]
    keep: Ids
    distinct_labels: list[Names] = field(default_factory=list)
    label_codes: Ids = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        if not len(self.label_codes):
            self.label_codes = np.zeros(len(self.document_ids), dtype=np.int64)

    @property
    def is_labelled(self) -> bool:
        """Whether rows have labels at all."""
        return bool(self.distinct_labels)

    def set_labels(self, names: Sequence[Names]) -> None:
        """Take every row's label by name."""
        codes: dict[Names, int] = {}
        coded = (codes.setdefault(name, len(codes)) for name in names)
        self.label_codes = np.fromiter(coded, np.int64, len(names))
        self.distinct_labels = list(codes)

    def count_labels(self) -> Counter[str]:
        """The labels of the rows that are in, in the order in which they come."""
        assert self.is_labelled
        codes, first, counts = np.unique(
            self.label_codes[self.keep], return_index=True, return_counts=True
        )
        labels: Counter[str] = Counter()
        for k in np.argsort(first):
            for name in split_names(self.distinct_labels[codes[k]]):
                labels[name] += int(counts[k])
        return labels

    def rows_with_labels(self, labels: Collection[Names]) -> Ids:
        """The rows that are in and have one of these."""
        has_one = np.array([names in labels for names in self.distinct_labels])
        rows: Ids = self.keep[has_one[self.label_codes[self.keep]]]
        return rows

    def labelled_document_ids(self) -> Ids:
        """A number for each row that is in: the same for the same document and labels."""
        ids: Ids = self.document_ids * max(1, len(self.distinct_labels)) + self.label_codes
        return ids[self.keep]

    def class_ids(self, id_of: Mapping[str, int]) -> NDArray[Any]:
        """Of the rows that are in: class ids (rows,); of several labels, 0 and 1 (rows, classes).

        Args:
            id_of: label → class id.
        """
        if any(isinstance(names, tuple) for names in self.distinct_labels):
            of_code = np.zeros((len(self.distinct_labels), len(id_of)), dtype=np.int8)
            for row, names in zip(of_code, self.distinct_labels, strict=True):
                row[[id_of[name] for name in split_names(names) if name in id_of]] = 1
        else:  # -1: of rows that are out
            ids = [id_of.get(str(name), -1) for name in self.distinct_labels]
            of_code = np.array(ids, dtype=np.int64)
        ids_of_rows: NDArray[Any] = of_code[self.label_codes[self.keep]]
        return ids_of_rows


@dataclass
class FindingLog:
    """What was found so far, and the problems of the rules that say stop.

    Attributes:
        is_lenient: whether all is only looked at: then `problems` are noted, and stop nothing.
    """

    data: schema.Data
    is_lenient: bool = False
    findings: list[Finding] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def note(
        self, kind: str, split: SplitRows, rows: Sequence[int] | Ids, rule: str, other: str = ""
    ) -> None:
        """Add a finding on these rows, if there are any."""
        if len(rows):
            places = split.rows.places.take(rows)
            are_numbers = self.data.task == "number"
            self.findings.append(
                Finding(kind, split.role, len(rows), places, rule, other, are_numbers)
            )

    def apply_rule(
        self,
        kind: str,
        key: str,
        split: SplitRows,
        rows: Sequence[int] | Ids,
        details: str = "",
        hint: str = "",
    ) -> None:
        """Do with `rows` what data.<key> says; `stop` keeps a problem and goes on without them.

        Args:
            details: what is added to the problem.
            hint: what is added to the finding too.
        """
        if not len(rows):
            return
        rule = str(getattr(self.data, key))
        self.note(kind, split, rows, f"{DONE.get(rule, '')} (data.{key}: {rule}){hint}")
        if rule == "stop":
            options = get_args(schema.Data.model_fields[key].annotation)
            others = " or ".join(option for option in options if option != "stop")
            remedy = f"correct the data, or set data.{key} to {others}"
            self._stop(f"{details}: data.{key} is 'stop'; {remedy}{hint}")
        if rule in ("drop", "stop"):
            split.keep = np.setdiff1d(split.keep, rows, assume_unique=True)

    def refuse(self, kind: str, split: SplitRows, rows: Sequence[int] | Ids, why: str) -> None:
        """Keep a problem with `rows`, whatever the rules say, and go on without them."""
        if len(rows):
            self.note(kind, split, rows, DONE["stop"])
            self._stop(f": {why}")
            split.keep = np.setdiff1d(split.keep, rows, assume_unique=True)

    def _stop(self, problem: str) -> None:
        """Turn the last finding into a problem; where they are only looked at, into both."""
        self.problems.append(f"{self.findings[-1].describe()}{problem}")
        if not self.is_lenient:
            self.findings.pop()

    def raise_problems(self, others: Sequence[str] = ()) -> None:
        """
        Raises:
            InputError: where there are `others`, or where a rule said stop and is obeyed.
        """
        if others or (self.problems and not self.is_lenient):
            raise InputError([*self.problems, *others])


def describe_empty_split(split: SplitRows, log: FindingLog) -> str:
    """That a split is empty, and which rules emptied it."""
    message = (
        f"{split.role}: no rows are left of {split.origin} ({format_rows(len(split.rows.texts))})"
    )
    causes = [
        str(finding).removeprefix(f"{split.role}: ")
        for finding in log.findings
        if finding.split == split.role and finding.rule.startswith(DONE["drop"])
    ]
    return "; ".join([message, *causes])


def require_classes(train: SplitRows, log: FindingLog) -> None:
    """
    Raises:
        InputError: where fewer than two labels, or two numbers, are left to learn.
    """
    counts = train.count_labels()
    if not counts:
        raise InputError(describe_empty_split(train, log))
    if len(counts) < 2:
        ((name, count),) = counts.items()
        if log.data.task == "number":
            raise InputError(
                f"train: expected two different numbers or more in '{log.data.label}' "
                f"(data.label), got only {float(name):g} ({format_rows(count)})"
            )
        raise InputError(
            f"train: expected rows of at least two labels, got only '{name}' ({format_rows(count)})"
        )


def split_names(names: Names) -> tuple[str, ...]:
    """The labels of a row one by one; none where they are missing."""
    return names if isinstance(names, tuple) else () if names is None else (names,)


def assign_labels(split: SplitRows, named: NamedLabels | NamedSets | None, log: FindingLog) -> None:
    """Give rows their labels by name, and apply the rule for rows without."""
    if named is None:
        log.note("unlabelled", split, split.keep, "predicted, not scored")
        return
    split.set_labels(named.names)
    log.apply_rule("null label", "on_null_label", split, split.rows_with_labels([None]))
    log.note("trimmed label", split, np.intersect1d(named.trimmed, split.keep), "trimmed")


def apply_repeat_rules(pool: SplitRows, log: FindingLog) -> None:
    """The rules for documents that are in train several times, with one label or with several."""
    log.apply_rule("repeat", "on_duplicate", pool, _find_repeats(pool))
    log.note("conflicting labels", pool, _find_conflicts(pool, log.data), "kept")


def apply_given_split_rules(split: SplitRows, seen: set[str], log: FindingLog) -> None:
    """The rules for a validation or test split that the source brings along.

    Args:
        seen: the labels of train.
    """
    if split.is_labelled:
        strange = {names for names in split.distinct_labels if not seen >= {*split_names(names)}}
        counts = split.count_labels()
        listed = [
            f"{show_label(name)} ({format_rows(counts[name])}{_similar_to(name, seen)})"
            for name in counts
            if name not in seen
        ]
        details = f", namely {shorten(listed)}"
        rows = split.rows_with_labels(strange)
        log.apply_rule("unseen label", "on_unseen_label", split, rows, details)
    log.note("repeat", split, _find_repeats(split), "kept, so that scores stay comparable")
    if split.is_labelled:
        rule = "kept, so that scores stay comparable; not all of them can be predicted correctly"
        log.note("conflicting labels", split, _find_conflicts(split, log.data), rule)


def _similar_to(name: str, seen: set[str]) -> str:
    like = [label for label in sorted(seen) if fold_label(label) == fold_label(name)]
    return f", which looks like {show_label(like[0])} of train" if like else ""


def _find_conflicts(split: SplitRows, data: schema.Data) -> Ids:
    """The rows that are in and whose document is also there with another label; of several tasks,
    with another label of one of them."""
    count = len(split.distinct_labels)
    documents, codes = np.divmod(np.unique(split.labelled_document_ids()), count)
    conflicting = documents[1:][documents[1:] == documents[:-1]]  # with more than one label
    if data.tasks is not None and len(conflicting):
        labels: dict[int, set[str]] = {}
        of_several = np.isin(documents, conflicting)
        for document, code in zip(documents[of_several], codes[of_several], strict=True):
            labels.setdefault(int(document), set()).update(split_names(split.distinct_labels[code]))
        tasks = {document: [one.split(MARK, 1)[0] for one in of] for document, of in labels.items()}
        conflicting = np.array([one for one, of in tasks.items() if len(set(of)) < len(of)], int)
    rows: Ids = split.keep[np.isin(split.document_ids[split.keep], conflicting)]
    return rows


def _find_repeats(split: SplitRows) -> Ids:
    """The rows that are in and repeat an earlier document with its labels, shares and weight."""
    is_repeat = np.ones(len(split.keep), dtype=bool)
    ids = split.labelled_document_ids()
    for values in (split.rows.shares, split.rows.weights):
        if values is not None:
            (numbers,) = number_digests([values.take(split.keep).digests()])
            pairs = np.stack([ids, numbers])
            ids = np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1)
    is_repeat[np.unique(ids, return_index=True)[1]] = False
    return split.keep[is_repeat]
