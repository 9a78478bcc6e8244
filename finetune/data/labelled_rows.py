"""Labelled rows of later on → a split for a model that knows its labels already.

    found = label_rows(rows, model.labels, multi_label=False, on_unknown="stop")
    found.split.labels               # by the model's classes

Nothing is learned from these rows, so nothing of them is mended: what cannot be scored is left out,
and named.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from finetune.data.cells import format_rows
from finetune.data.corpus import Finding, Split
from finetune.data.label_space import BOOLEANS
from finetune.data.number_cells import name_numbers
from finetune.data.rows import Rows
from finetune.data.similar_labels import Merge, show_label
from finetune.data.text_store import hash_text, number_digests
from finetune.runtime.errors import InputError, closest_match, shorten

OnUnknown = Literal["stop", "drop", "wrong"]
DROP = "--unknown-labels drop leaves these rows out"
WRONG = "and wrong counts each of them as a wrong prediction"
COLUMN = "--label names another column"
ADVICE = f"{DROP}, {WRONG}; {COLUMN}"
DONE = {"stop": "a run stops here", "drop": "left out", "wrong": "counted as wrong"}
NAME = "test"  # of the split: what no decision was made by


@dataclass(frozen=True)
class LabelledRows:
    """Rows that can be scored.

    Attributes:
        split: with class ids (rows,), or 0 and 1 (rows, classes).
        labels: of the classes: the model's, then those that only the rows have.
        unknown: labels that the model does not know → their rows.
        findings: what is wrong with rows, and what was done.
    """

    split: Split
    labels: tuple[str, ...]
    unknown: dict[str, int] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def label_rows(
    rows: Rows,
    labels: Sequence[str],
    multi_label: bool,
    on_unknown: OnUnknown,
    merge: Merge | None = None,
    advice: str = ADVICE,
) -> LabelledRows:
    """Name the rows' labels as the model does, and leave out what cannot be scored.

    Args:
        labels: of the model's classes, in order.
        multi_label: whether the model may predict several labels.
        on_unknown: what to do with labels that the model does not know: stop, drop their rows, or
            keep them as predictions that are wrong whatever they are.
        merge: what labels become that look like one of the model's, as in training; None: they are
            unknown.
        advice: what to do about unknown labels that stop.

    Raises:
        InputError: where no row has a label, the rows have several labels and the model one, or
            labels are unknown and that is to stop.
    """
    if rows.multi_label and not multi_label:
        raise InputError(
            f"{rows.origin}: rows may have several labels, and the model predicts one; it can be "
            "scored on rows with one label each"
        )
    sets = (rows.as_sets() if multi_label else rows).labels
    names, by_place = _name_cells(sets or [], rows.label_names, labels, multi_label)
    log = _Log(rows)
    if merge is not None:
        names = _merge_names(names, labels, merge, log)
    log.note_damage()
    is_out = np.zeros(len(rows.texts), dtype=bool)
    for kind, mask in (
        ("empty", rows.find_empty()),
        ("null label", np.array([name is None for name in names], dtype=bool)),
    ):
        found = mask & ~is_out if len(mask) else is_out
        log.note(kind, np.flatnonzero(found), "left out")
        is_out |= found
    unknown, strange = _find_unknown(names, ~is_out, set(labels))
    if unknown and on_unknown == "stop":
        raise InputError(f"{_describe_unknown(rows, names, unknown, labels)}; {advice}")
    rule = f"{DONE[on_unknown]} (--unknown-labels {on_unknown})"
    log.note("unknown label", np.flatnonzero(strange), rule)
    if on_unknown == "drop":
        is_out |= strange
    keep = np.flatnonzero(~is_out)
    if not len(keep):
        causes = "; ".join(map(str, log.findings)) or "no row has a label"
        raise InputError(f"{rows.origin}: no row is left to be scored: {causes}")
    space = (*labels, *(unknown if on_unknown == "wrong" else ()))
    ids = _class_ids([names[i] for i in keep], space)
    split = _take(rows, keep, ids)
    log.note("repeat", keep[_find_repeats(split)], "kept")
    log.findings += _note_labels(rows.origin, labels, by_place, ids)
    return LabelledRows(split, space, unknown, tuple(log.findings))


def _note_labels(
    origin: str, labels: Sequence[str], by_place: bool, ids: NDArray[Any]
) -> list[Finding]:
    """That numbers are places of the model's labels, and which labels no row has."""
    found = []
    if by_place:
        listed = shorten([f"{i} is {name}" for i, name in enumerate(labels)], 4)
        found.append(Finding("label numbers", origin, len(ids), (), listed))
    absent = tuple(name for i, name in enumerate(labels) if not _count(ids, i))
    if absent:
        found.append(Finding("absent label", origin, len(absent), absent, "not scored"))
    return found


def number_rows(rows: Rows, column: str) -> LabelledRows:
    """The rows of a model that predicts numbers, without those that cannot be scored.

    Args:
        column: what the model calls its numbers.

    Raises:
        InputError: where cells are no numbers, or no row has one.
    """
    _, named = name_numbers({NAME: rows}, column, "data.label")
    names = named[NAME].names
    log = _Log(rows, are_numbers=True)
    log.note_damage()
    is_out = rows.find_empty()
    log.note("empty", np.flatnonzero(is_out), "left out")
    is_null = np.array([name is None for name in names], dtype=bool)
    log.note("null label", np.flatnonzero(is_null & ~is_out), "left out")
    keep = np.flatnonzero(~(is_out | is_null))
    if not len(keep):
        causes = "; ".join(map(str, log.findings)) or "no row has a number"
        raise InputError(f"{rows.origin}: no row is left to be scored: {causes}")
    numbers = np.array([float(names[i] or 0) for i in keep])
    split = _take(rows, keep, numbers)
    log.note("repeat", keep[_find_repeats(split)], "kept")
    return LabelledRows(split, (column,), {}, tuple(log.findings))


def _take(rows: Rows, keep: NDArray[np.int64], labels: NDArray[Any]) -> Split:
    """The rows that are scored.

    Args:
        labels: theirs, as of `Split`.
    """
    return Split(
        NAME,
        rows.texts.take(keep),
        labels,
        rows.places.take(keep),
        rows.origin,
        None if rows.seconds is None else rows.seconds.take(keep),
        None if rows.ids is None else rows.ids.take(keep),
        {name: values.take(keep) for name, values in rows.attributes.items()},
    )


class _Log:
    """Findings on rows."""

    def __init__(self, rows: Rows, are_numbers: bool = False) -> None:
        self.rows, self.are_numbers = rows, are_numbers
        self.findings: list[Finding] = []

    def note_damage(self) -> None:
        """That bytes of texts are none."""
        rule = "U+FFFD put in place"
        self.note("undecodable", np.setdiff1d(self.rows.damaged, self.rows.halves), rule)
        self.note("half pair", self.rows.halves, rule)

    def note(self, kind: str, where: Sequence[int] | NDArray[np.int64], rule: str) -> None:
        if len(where):
            places = self.rows.places.take(where)
            self.findings.append(
                Finding(
                    kind, self.rows.origin, len(where), places, rule, of_numbers=self.are_numbers
                )
            )


def _name_cells(
    cells: Sequence[Any], own: Sequence[str] | None, labels: Sequence[str], multi_label: bool
) -> tuple[list[Any], bool]:
    """Each row's label by name, or its tuple of them; None where missing.

    Numbers that are no names of the model are the places of its labels, as `data.labels` has them.
    Returns also whether they were.
    """
    flat = [one for cell in cells if cell is not None for one in (cell if multi_label else (cell,))]
    words = {_name(value, own) for value in flat} - {""}
    by_place = (
        bool(words)
        and words.isdisjoint(labels)
        and all(word.isdecimal() and int(word) < len(labels) for word in words)
    )

    def name(value: Any) -> str:
        word = _name(value, own)
        return labels[int(word)] if by_place and word else word

    if multi_label:
        return [
            None if cell is None else tuple(dict.fromkeys(filter(None, map(name, cell))))
            for cell in cells
        ], by_place
    return [None if cell is None else name(cell) or None for cell in cells], by_place


def _name(value: Any, own: Sequence[str] | None) -> str:
    if isinstance(value, bool):
        return BOOLEANS[value]
    if isinstance(value, int) and own is not None and 0 <= value < len(own):
        return own[value]
    return str(value).strip()


def _merge_names(names: list[Any], labels: Sequence[str], merge: Merge, log: _Log) -> list[Any]:
    """Each row's label or labels, those that look like one of the model's named as it."""
    counts = Counter(name for row in names for name in _as_tuple(row))
    known = {*labels}
    new = {old: name for old, name in merge(counts, labels).items() if name in known}
    if not new:
        return names
    listed = [f"{show_label(old)} ({format_rows(counts[old])})" for old in new]
    into = shorten([show_label(name) for name in dict.fromkeys(new.values())], 10)
    rule = f"merged into {into} (data.similar_labels, as in training)"
    log.findings.append(
        Finding("merged labels", log.rows.origin, len({*new.values()}), tuple(listed), rule)
    )
    return [
        tuple(dict.fromkeys(new.get(name, name) for name in row))
        if isinstance(row, tuple)
        else new.get(row, row)
        for row in names
    ]


def _as_tuple(name: Any) -> tuple[str, ...]:
    return name if isinstance(name, tuple) else () if name is None else (name,)


def _find_unknown(
    names: Sequence[Any], mask: NDArray[np.bool_], known: set[str]
) -> tuple[dict[str, int], NDArray[np.bool_]]:
    """The labels outside of `known` with their rows, the commonest first; and which rows these are.

    Args:
        mask: the rows to look at. (rows,)
    """
    counts: Counter[str] = Counter()
    strange = np.zeros(len(names), dtype=bool)
    for i in np.flatnonzero(mask).tolist():
        outside = [name for name in _as_tuple(names[i]) if name not in known]
        counts.update(outside)
        strange[i] = bool(outside)
    return dict(counts.most_common()), strange


def _describe_unknown(
    rows: Rows, names: Sequence[Any], unknown: dict[str, int], labels: Sequence[str]
) -> str:
    first: dict[str, int] = {}
    for i in reversed(range(len(names))):
        first |= dict.fromkeys(_as_tuple(names[i]), i)
    listed = []
    for name, count in unknown.items():
        guess = closest_match(name, labels)
        hint = f", perhaps '{guess}'" if guess is not None else ""
        listed.append(
            f"'{name}' ({format_rows(count)}, first {rows.places.short(first[name])}{hint})"
        )
    return (
        f"{rows.origin}: expected the labels of the model ({shorten(labels, 10)}), got "
        f"{shorten(listed)}"
    )


def _class_ids(names: Sequence[Any], space: Sequence[str]) -> NDArray[Any]:
    ids = {name: i for i, name in enumerate(space)}
    if not any(isinstance(name, tuple) for name in names):
        return np.array([ids[name] for name in names], dtype=np.int64)
    sets = np.zeros((len(names), len(space)), dtype=np.int8)
    for row, of_row in zip(sets, names, strict=True):
        row[[ids[name] for name in of_row]] = 1
    return sets


def _count(ids: NDArray[Any], label: int) -> int:
    return int((ids == label).sum() if ids.ndim == 1 else ids[:, label].sum())


def _find_repeats(split: Split) -> NDArray[np.int64]:
    """The rows that repeat an earlier document and its labels, white space at the ends aside."""
    assert split.labels is not None
    rows = zip(split.whole(), split.labels, strict=True)
    digests = [hash_text(f"{text.strip()}\0{label.tolist()}") for text, label in rows]
    (ids,) = number_digests([np.array(digests, dtype="S16")])
    is_repeat = np.ones(len(ids), dtype=bool)
    is_repeat[np.unique(ids, return_index=True)[1]] = False
    return np.flatnonzero(is_repeat)
