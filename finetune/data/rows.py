"""Cells as they were read → `Rows`: the types checked, broken characters replaced, places kept.

Texts are put aside as they come (`text_store.py`), so that rows may be more than memory holds.

Raises `InputError` with every problem of the file or table at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from finetune.config.label_tasks import MARK
from finetune.data.cells import describe_value
from finetune.data.columns import Cells, ColumnSpec
from finetune.data.corpus import Finding
from finetune.data.formats.encodings import suggest_encodings
from finetune.data.identifiers import IdColumn, Ids
from finetune.data.label_cells import join_levels, name_tasks, split_label_cells
from finetune.data.label_lists import read_one_hot, read_text_lists
from finetune.data.places import Places
from finetune.data.soft_labels import ShareColumns, read_shares
from finetune.data.text_store import (
    Column,
    Texts,
    add_broken_bytes,
    holds_half_pair,
    is_broken,
    replace_surrogates,
)
from finetune.runtime.errors import InputError, shorten

Label = str | int | bool
Labels = Label | tuple[Label, ...]  # of one row; a tuple where it may have several, or none

SHOWN = 3  # cells named in a message


@dataclass(frozen=True)
class Rows:
    """One split as the source has it."""

    texts: Texts  # None where missing
    labels: list[Labels | None] | None  # None: the split has no label column at all
    places: Places
    damaged: list[int]  # rows whose bytes were not UTF-8, now with U+FFFD in their place
    label_names: tuple[str, ...] | None = None  # the data set's own names in its own order
    origin: str = ""  # "test.jsonl.gz", "fancyzhx/ag_news test"
    seconds: Texts | None = None  # the second text of each pair
    multi_label: bool = False  # whether a row may have several labels: then each is a tuple
    notes: tuple[Finding, ...] = ()  # how it was read, and what was not; split "": its own
    damaged_labels: Sequence[int] = ()  # those of `damaged` whose label was not UTF-8
    encoding_hint: str = ""  # what the bytes may be that are not UTF-8
    ids: Ids | None = None  # of data.id
    attributes: Mapping[str, Ids] = field(default_factory=dict)  # column → each row's value
    halves: Sequence[int] = ()  # those of `damaged` where a \\u escape is half of a pair
    one_hot: int | None = None  # how many labels each list of 0 and 1 told of, where they were such
    shares: Ids | None = None  # of data.label_probabilities: an object of label → share
    weights: Ids | None = None  # of data.weight

    def as_sets(self) -> "Rows":
        """The same rows, each with a tuple of labels."""
        if self.multi_label or self.labels is None:
            return self
        sets = [None if label is None else (cast(Label, label),) for label in self.labels]
        return replace(self, labels=cast(list[Labels | None], sets), multi_label=True)

    def find_empty(self) -> NDArray[np.bool_]:
        """Whether a text is missing; of a pair, one of the two. (rows,)"""
        empty = np.array([not (text or "").strip() for text in self.texts], dtype=bool)
        if self.seconds is not None:
            empty |= np.array([not (text or "").strip() for text in self.seconds], dtype=bool)
        return empty


def build_rows(
    where: str,
    places: Places,
    cells: Cells,
    spec: ColumnSpec,
    label_names: tuple[str, ...] | None = None,
) -> Rows:
    """Check the types of the cells, and remember which rows were not UTF-8.

    Args:
        where: the file or table, for messages.
        cells: those of each column, as of `ColumnSpec.empty_columns`; the label's may be missing.

    Raises:
        InputError: where there are no rows, or cells of another type.
    """
    if not len(places):
        raise InputError(f"{where}: no rows")
    texts = {name: column for name, column in cells.items() if isinstance(column, Column)}
    found = _collect_labels(cells, places, spec, label_names is not None)
    labels, is_multi_label, one_hot = found.labels, found.is_multi_label, found.one_hot
    problems = [*_find_wrong_types(texts, labels, is_multi_label, places, spec), *found.problems]
    if problems:
        raise InputError(f"{where}: {problem}" for problem in problems)
    damaged = {i for column in texts.values() for i in column.damaged}
    broken = [content for column in texts.values() for content in column.broken]
    halves = {i for column in texts.values() for i in column.halves}
    damaged_labels: list[int] = []
    if labels is not None:
        halves.update(i for i, label in enumerate(labels) if _holds_half_pair(label))
        labels, damaged_labels = _replace_broken(labels, broken)
    text = _join_columns([texts[column] for column in spec.text], spec)
    values = {name: cell.ids() for name, cell in cells.items() if isinstance(cell, IdColumn)}
    if found.shares is not None:
        label_names = None  # of data.label's numbers
    return Rows(
        text,
        labels,
        places,
        sorted(damaged.union(damaged_labels)),
        label_names if one_hot is None else tuple(map(str, range(one_hot))),
        places.name,
        None if spec.second is None else texts[spec.second].texts(),
        is_multi_label,
        found.notes,
        damaged_labels=damaged_labels,
        encoding_hint=(suggest_encodings(broken) or "") if broken else "",
        ids=None if spec.id is None else values.get(spec.id),
        attributes={name: values[name] for name in spec.attribute_columns() if name in values},
        halves=sorted(halves),
        one_hot=one_hot,
        shares=found.shares,
        weights=None if spec.weight is None else values.get(spec.weight),
    )


class _FoundLabels(NamedTuple):
    """Each row's label, as `Rows` has it, and what is wrong with their cells."""

    labels: list[Any] | None
    is_multi_label: bool = False
    problems: Sequence[str] = ()
    one_hot: int | None = None
    notes: tuple[Finding, ...] = ()
    shares: Ids | None = None


def _collect_labels(cells: Cells, places: Places, spec: ColumnSpec, are_ids: bool) -> _FoundLabels:
    if spec.shares is not None and cells.keys() >= {*spec.share_columns()}:
        return _collect_shares(cells, places, spec, spec.shares)
    if not cells.keys() >= {*spec.label_columns()}:
        return _FoundLabels(None)
    columns = [cast(list[Any], cells[column]) for column in spec.label_columns()]
    if spec.numbers:  # whatever they are: `number_cells.py` reads them, with their places
        return _FoundLabels(columns[0])
    has_one_column = isinstance(spec.label, str)
    labels = columns[0] if has_one_column else list(zip(*columns, strict=True))
    if spec.hierarchy is not None and not has_one_column:
        paths, problems = join_levels(labels, spec.label_columns(), spec.hierarchy, places.short)
        return _FoundLabels(paths, problems=problems)
    if spec.are_tasks and not has_one_column:
        return _collect_tasks(labels, places, spec)
    is_multi_label = spec.separator is not None or not has_one_column
    notes: tuple[Finding, ...] = ()
    if has_one_column:
        labels, problems, notes = read_text_lists(labels, spec, places)
        if problems:
            return _FoundLabels(None, problems=problems)
    if has_one_column and spec.separator is None:
        one_hot = read_one_hot(labels, places.short, are_ids)
        if one_hot is not None:
            name = f"'{spec.label}' (data.label): "
            problems = [] if one_hot.problem is None else [name + one_hot.problem]
            rows = [i for i, label in enumerate(labels) if label is not None]
            rule = f"read as which of {one_hot.width} labels a row has (data.labels names them)"
            note = Finding("one-hot", "", len(rows), places.take(rows), rule)
            return _FoundLabels([*one_hot.sets], True, problems, one_hot.width, (*notes, note))
    if not is_multi_label and not any(isinstance(cell, list) for cell in labels):
        return _FoundLabels(labels, notes=notes)
    sets, problems = split_label_cells(labels, spec.label, spec.separator, places.short)
    return _FoundLabels(sets, True, problems, notes=notes)


def _collect_tasks(cells: list[Any], places: Places, spec: ColumnSpec) -> _FoundLabels:
    """Each row's labels, one of each task at most; and how many rows lack one."""
    columns = spec.label_columns()
    sets, problems = name_tasks(cells, columns, places.short)
    notes = []
    for column in columns:
        start = f"{column}{MARK}"
        rows = [
            i for i, of in enumerate(sets) if of and not any(one.startswith(start) for one in of)
        ]
        if rows:
            rule = "counted in the other tasks alone"
            found = Finding(
                "no label of a task", "", len(rows), places.take(rows), rule, f"'{column}'"
            )
            notes.append(found)
    return _FoundLabels([*sets], True, problems, notes=tuple(notes))


def _collect_shares(
    cells: Cells, places: Places, spec: ColumnSpec, columns: ShareColumns
) -> _FoundLabels:
    """Each row's majority label, and its shares."""
    found = read_shares(
        [cast(list[Any], cells[column]) for column in columns.columns], columns, places.short
    )
    shares = IdColumn(spec.store)
    for of_row in found.shares:
        shares.append(of_row)
    notes = tuple(
        # What is meant to be so has no places: they would be those of most rows.
        Finding(kind, "", len(rows), () if is_meant else places.take(rows), rule)
        for kind, rows, is_meant, rule in (
            ("soft label", found.soft, True, "scored by the majority label"),
            ("votes", found.votes, True, "read as shares"),
            ("scaled shares", found.scaled, False, "divided by their sum"),
            (
                "tied labels",
                found.tied,
                False,
                "counted as labels" if columns.multi_label else "scored by the first in order",
            ),
        )
        if rows
    )
    return _FoundLabels(
        found.labels, columns.multi_label, found.problems, notes=notes, shares=shares.ids()
    )


def _find_wrong_types(
    texts: Mapping[str, Column],
    labels: list[Any] | None,
    is_multi_label: bool,
    places: Places,
    spec: ColumnSpec,
) -> list[str]:
    types = (str, int, bool, type(None), *[tuple] * is_multi_label)
    all_labels = enumerate(() if spec.numbers else labels or ())
    odd_labels = [(i, label) for i, label in all_labels if type(label) not in types]
    wrong = [
        (f"'{column}' ({key}): expected text", texts[column].odd)
        for key, column in spec.required()
        if key in ("data.text", "data.template", "data.text_pair")
    ]
    wrong.append((
        f"'{spec.label}' (data.label): expected a label, as text, a whole number or true or "
        "false, or a list of labels",
        odd_labels,
    ))  # fmt: skip
    problems = []
    for message, odd in wrong:
        if odd:
            got = [f"{describe_value(value)} at {places.short(i)}" for i, value in odd]
            hint = ""
            if all(isinstance(value, float) and value.is_integer() for _, value in odd):
                hint = (
                    "; save whole numbers as such (pandas makes them floats where one is missing: "
                )
                hint += "astype('Int64') keeps them)"
            if odd is odd_labels and all(
                type(one) in (int, float, type(None)) for one in labels or ()
            ):
                hint += "; where they are numbers to be predicted, set data.task=number"
            problems.append(f"{message}, got {shorten(got, SHOWN)}{hint}")
    return problems


def _replace_broken(labels: list[Any], broken: list[bytes]) -> tuple[list[Any], list[int]]:
    """Put U+FFFD where bytes were not UTF-8 or a \\u escape is half a pair; and in which rows.

    Args:
        broken: takes the bytes of some of them.
    """
    replaced, rows = list(labels), []
    for i, label in enumerate(labels):
        names = label if isinstance(label, tuple) else (label,)
        if any(map(_is_broken, names)):
            for name in filter(_is_broken, names):
                add_broken_bytes(broken, name)
            shown = tuple(replace_surrogates(n) if _is_broken(n) else n for n in names)
            replaced[i] = shown if isinstance(label, tuple) else shown[0]
            rows.append(i)
    return replaced, rows


def _holds_half_pair(label: object) -> bool:
    names = label if isinstance(label, tuple) else (label,)
    return any(_is_broken(name) and holds_half_pair(name) for name in names)


def _is_broken(value: object) -> bool:
    return isinstance(value, str) and is_broken(value)


def _join_columns(columns: Sequence[Column], spec: ColumnSpec) -> Texts:
    """The documents that the text columns make."""
    first, *others = [column.texts() for column in columns]
    if not others and spec.template is None:
        return first
    joined = Column(spec.store)
    for row in zip(first, *others, strict=True):
        joined.add(spec.join_texts(row))
    return joined.texts()
