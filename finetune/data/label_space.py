"""Each split's labels as read → the label space and every row's label by name."""

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from finetune.data.cells import format_rows, natural_order
from finetune.data.rows import Label, Rows
from finetune.data.similar_labels import Merge, show_label
from finetune.runtime.errors import InputError, shorten

BOOLEANS = ("false", "true")
KINDS: dict[type, str] = {str: "text", int: "whole numbers", bool: "true and false"}
# From this many rows on, a label column with half as many values as rows is no set of classes.
SUSPICIOUS_ROWS = 50


@dataclass(frozen=True)
class MergedLabels:
    """What labels became that look like others.

    Attributes:
        new_names: of each that is no longer there.
        counts: the rows of each label as it was read, in all splits.
    """

    new_names: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    def groups(self) -> dict[str, list[str]]:
        """Of each label that others became: itself, where a row has it, and those."""
        found: dict[str, list[str]] = {}
        for name in self.counts:
            found.setdefault(self.new_names.get(name, name), []).append(name)
        became = {*self.new_names.values()}
        return {new: olds for new, olds in found.items() if new in became}


@dataclass(frozen=True)
class NamedLabels:
    """One split's labels by name."""

    names: list[str | None]  # (rows,); None where missing
    trimmed: list[int]  # rows whose label had white space around it
    merged: MergedLabels = MergedLabels()  # of all splits


def name_labels(
    splits: Mapping[str, Rows],
    train_rows: NDArray[np.int64],
    given: tuple[str, ...] | None,
    merge: Merge | None = None,
) -> tuple[tuple[str, ...], dict[str, NamedLabels]]:
    """The label space, from train alone, and the labels of every split that has some.

    Names come from `given` (data.labels), else from train's own label names, else from its values:
    text in natural order, whole numbers in order, false before true. `given` names a number or a
    truth value by its position, unless every value is already called one of the names.

    Args:
        splits: role (train, validation, test) → rows; train has labels
        train_rows: the rows of train that count: a dropped row adds no label
        given: data.labels
        merge: what labels become that look like others; None: they stay apart

    Raises:
        InputError: where the labels are of several types, or `given` does not fit them.
    """
    values, trimmed = _trim(splits)
    if given is not None:
        values = _digits_to_numbers(values, given)
    kind = _require_one_type(splits, values)
    own = splits["train"].label_names if kind is int else None
    names: dict[str, list[str | None]] = {
        role: [
            None if value is None else _plain_name(value, splits[role].label_names or own)
            for value in column
        ]
        for role, column in values.items()
    }
    merged = MergedLabels()
    if merge is not None:
        merged = _merge(names, train_rows, merge, given or ())
        own = own and tuple(name for name in own if name not in merged.new_names)
    present = _present_names(names["train"], train_rows)
    space = given or own or _natural_space(kind, present)
    if given is not None and kind is not str and not {*present, *(own or ())} <= set(given):
        names = _rename_by_position(names, given, own, kind)
        present = _present_names(names["train"], train_rows)
    first = {names["train"][i]: i for i in reversed(train_rows)}
    places = {name: splits["train"].places.place(i) for name, i in first.items()}
    problems = _find_misfits(space, present, places, given)
    if given is None and own is None:
        problems += _find_too_many(present)
    if problems:
        raise InputError(problems)
    return space, {
        role: NamedLabels(column, trimmed[role], merged) for role, column in names.items()
    }


def _merge(
    names: dict[str, list[str | None]],
    train_rows: NDArray[np.int64],
    merge: Merge,
    given: Sequence[str],
) -> MergedLabels:
    """Rename labels that look like others, in all splits."""
    everywhere = Counter(name for column in names.values() for name in column if name is not None)
    in_train = Counter(_present_names(names["train"], train_rows))
    new_names = merge({name: in_train[name] for name in everywhere}, given)
    for role, column in names.items():
        names[role] = [name if name is None else new_names.get(name, name) for name in column]
    return MergedLabels(new_names, everywhere)


def _trim(
    splits: Mapping[str, Rows],
) -> tuple[dict[str, list[Label | None]], dict[str, list[int]]]:
    """Each split's labels without white space around them, and which rows had some."""
    trimmed: dict[str, list[int]] = {}
    values: dict[str, list[Label | None]] = {}
    for role, rows in splits.items():
        if rows.labels is not None:
            trimmed[role] = [
                i for i, v in enumerate(rows.labels) if isinstance(v, str) and v != v.strip()
            ]
            values[role] = [
                (v.strip() or None) if isinstance(v, str) else cast(Label | None, v)
                for v in rows.labels
            ]
    return values, trimmed


def _rename_by_position(
    names: Mapping[str, list[str | None]],
    given: tuple[str, ...],
    own: tuple[str, ...] | None,
    kind: type,
) -> dict[str, list[str | None]]:
    """Names for 0, 1, 2, … as `given` has them.

    Raises:
        InputError: where `given` are not as many as the data set's own names.
    """
    if own is not None and len(given) != len(own):
        raise InputError(
            f"data.labels: expected {len(own)} names, one for each of the data set's own "
            f"({shorten(own)}), got {len(given)}"
        )
    order = own or (BOOLEANS if kind is bool else tuple(map(str, range(len(given)))))
    new_name = dict(zip(order, given, strict=False))
    return {
        role: [None if name is None else new_name.get(name, _outside(name)) for name in column]
        for role, column in names.items()
    }


@dataclass(frozen=True)
class NamedSets:
    """One split's labels by name, several or none in each row."""

    names: list[tuple[str, ...] | None]  # (rows,), in the order of the label space; None: missing
    trimmed: list[int]
    merged: MergedLabels = MergedLabels()


def name_label_sets(
    splits: Mapping[str, Rows],
    train_rows: NDArray[np.int64],
    given: tuple[str, ...] | None,
    merge: Merge | None = None,
) -> tuple[tuple[str, ...], dict[str, NamedSets]]:
    """What `name_labels` does, of rows that may have several labels.

    Raises:
        InputError: as `name_labels` does.
    """
    flat: dict[str, Rows] = {}
    owners: dict[str, list[int]] = {}  # of each label the row that has it
    for role, rows in splits.items():
        sets = [cast(tuple[Label, ...], labels or ()) for labels in rows.labels or ()]
        owners[role] = [i for i, labels in enumerate(sets) for _ in labels]
        flat[role] = replace(
            rows,
            texts=rows.texts.take([]),
            labels=[label for labels in sets for label in labels],
            places=rows.places.take(owners[role]),
            multi_label=False,
        )
    kept = set(train_rows.tolist())
    train = np.array([k for k, own in enumerate(owners["train"]) if own in kept], dtype=np.int64)
    space, named = name_labels(flat, train, given, merge)
    order = {name: i for i, name in enumerate(space)}
    sets_of = {}
    for role, rows in splits.items():
        there: list[set[str]] = [set() for _ in rows.texts]
        for owner, name in zip(owners[role], named[role].names, strict=True):
            if name is not None:
                there[owner].add(name)
        # Outside the space are names that only validation or test has, of which a rule decides.
        names = [
            None
            if labels is None
            else tuple(sorted(of, key=lambda n: (order.get(n, len(order)), n)))
            for labels, of in zip(rows.labels or (), there, strict=True)
        ]
        trimmed = sorted({owners[role][k] for k in named[role].trimmed})
        sets_of[role] = NamedSets(names, trimmed, named[role].merged)
    return space, sets_of


def _require_one_type(
    splits: Mapping[str, Rows], values: Mapping[str, list[Label | None]]
) -> type[str] | type[int] | type[bool]:
    kinds: dict[type, str] = {}  # type → where it was first seen
    for role, column in values.items():
        for kind in set(map(type, column)) - {type(None)}:
            i = next(i for i, value in enumerate(column) if type(value) is kind)
            place = splits[role].places.place(i)
            kinds.setdefault(kind, f"{KINDS[kind]} ({column[i]!r} at {place})")
    if len(kinds) > 1:
        raise InputError(
            "data.label: expected labels of one type in all splits, got "
            f"{' and '.join(kinds[kind] for kind in KINDS if kind in kinds)}"
        )
    kind = next(iter(kinds), str)
    return bool if kind is bool else int if kind is int else str


def _digits_to_numbers(
    values: dict[str, list[Label | None]], given: tuple[str, ...]
) -> dict[str, list[Label | None]]:
    """Digits as numbers, where they are no names: a csv file cannot tell 0 from '0'."""
    there = {value for column in values.values() for value in column if value is not None}
    if there & set(given) or not all(
        isinstance(value, str) and re.fullmatch(r"0|[1-9][0-9]*", value) for value in there
    ):
        return values
    return {
        role: [None if value is None else int(value) for value in column]
        for role, column in values.items()
    }


def _plain_name(value: Label, own: tuple[str, ...] | None) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return BOOLEANS[value]
    if own is None:
        return sys.intern(str(value))  # one for all rows
    return own[value] if 0 <= value < len(own) else _outside(str(value))


def _outside(name: str) -> str:
    return f"number {name}"  # no name, so that it cannot be mistaken for one


def _present_names(column: Sequence[str | None], rows: NDArray[np.int64]) -> list[str]:
    return [name for i in rows if (name := column[i]) is not None]


def _natural_space(kind: type, present: list[str]) -> tuple[str, ...]:
    if kind is bool:
        return BOOLEANS
    return tuple(sorted(set(present), key=int if kind is int else natural_order))


def _find_misfits(
    space: Sequence[str],
    present: list[str],
    places: Mapping[str | None, str],
    given: tuple[str, ...] | None,
) -> list[str]:
    known = set(space)
    strange = Counter(name for name in present if name not in known)
    if not strange:
        return []
    listed = [
        f"{show_label(name)} ({format_rows(count)}, {places[name]})"
        for name, count in strange.items()
    ]
    what = "data.labels" if given is not None else "the data set's own label names"
    hint = "; data.labels=null takes those that train has" if given is not None else ""
    return [
        f"train: expected labels among {what} ({shorten(space, 10)}), got {shorten(listed)}{hint}"
    ]


def _find_too_many(present: list[str]) -> list[str]:
    kinds = list(dict.fromkeys(present))
    if len(present) <= SUSPICIOUS_ROWS or 2 * len(kinds) < len(present):
        return []
    return [
        f"train: {len(kinds):,} different labels in {len(present):,} rows (such as "
        f"{shorten([repr(kind[:40]) for kind in kinds], 3)}): that looks like ids or free text; "
        "set data.label to the column of the classes, or list them in "
        f"data.labels{_suggest_number(kinds)}{_suggest_separator(kinds)}"
    ]


def _suggest_number(kinds: list[str]) -> str:
    """A hint, where labels are all numbers."""
    if all(re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", kind) for kind in kinds):
        return "; where they are numbers to be predicted, set data.task=number"
    return ""


def _suggest_separator(kinds: list[str]) -> str:
    """A hint, where labels look like one or several names with something between them."""
    for mark in (";", "|", ",", "/"):
        parts = [[name.strip() for name in kind.split(mark)] for kind in kinds]
        names = {name for part in parts for name in part}
        if min(map(len, parts)) == 1 < max(map(len, parts)) and 2 * len(names) <= len(kinds):
            return f"; where a row may have several labels, set data.label_separator='{mark}'"
    return ""
