"""Cells as they were read → `Rows`: the types checked, broken characters replaced, places kept.

Texts are put aside as they come (`text_store.py`), so that rows may be more than memory holds.

Raises `InputError` with every problem of the file or table at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from finetune.data.cells import describe_value
from finetune.data.columns import Cells, ColumnSpec
from finetune.data.corpus import Finding
from finetune.data.label_cells import split_label_cells
from finetune.data.places import Places
from finetune.data.text_store import SURROGATES, Column, Texts, replace_surrogates
from finetune.runtime.errors import InputError, shorten

Label = str | int | bool
Labels = Label | tuple[Label, ...]  # of one row; a tuple where it may have several, or none
Item = TypeVar("Item")

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

    def as_sets(self) -> "Rows":
        """The same rows, each with a tuple of labels."""
        if self.multi_label or self.labels is None:
            return self
        sets = [None if label is None else (cast(Label, label),) for label in self.labels]
        return replace(self, labels=cast(list[Labels | None], sets), multi_label=True)


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
    labels, is_multi_label, label_problems = _collect_labels(cells, places, spec)
    problems = [*_find_wrong_types(texts, labels, is_multi_label, places, spec), *label_problems]
    if problems:
        raise InputError(f"{where}: {problem}" for problem in problems)
    damaged = {i for column in texts.values() for i in column.damaged}
    if labels is not None:
        labels = _replace_broken(labels, damaged.add)
        for i, label in enumerate(labels if is_multi_label else ()):
            labels[i] = label and tuple(_replace_broken(label, lambda _, i=i: damaged.add(i)))  # type: ignore[misc]
    text = _join_columns([texts[column] for column in spec.text], spec)
    second = None if spec.second is None else texts[spec.second].texts()
    return Rows(
        text, labels, places, sorted(damaged), label_names, places.name, second, is_multi_label
    )


def _collect_labels(
    cells: Cells, places: Places, spec: ColumnSpec
) -> tuple[list[Any] | None, bool, list[str]]:
    """Each row's label, whether rows may have several, and what is wrong with their cells."""
    if not cells.keys() >= {*spec.label_columns()}:
        return None, False, []
    columns = [cast(list[Any], cells[column]) for column in spec.label_columns()]
    has_one_column = isinstance(spec.label, str)
    labels = columns[0] if has_one_column else list(zip(*columns, strict=True))
    is_multi_label = spec.separator is not None or not has_one_column
    if not is_multi_label and not any(isinstance(cell, list) for cell in labels):
        return labels, False, []
    sets, problems = split_label_cells(labels, spec.label, spec.separator, places.short)
    return sets, True, problems


def _find_wrong_types(
    texts: Mapping[str, Column],
    labels: list[Any] | None,
    is_multi_label: bool,
    places: Places,
    spec: ColumnSpec,
) -> list[str]:
    types = (str, int, bool, type(None), *[tuple] * is_multi_label)
    wrong = [
        (f"'{column}' ({key}): expected text", texts[column].odd)
        for key, column in spec.required()
        if key != "data.label"
    ]
    wrong.append((
        f"'{spec.label}' (data.label): expected a label, as text, a whole number or true or "
        "false, or a list of labels",
        [(i, label) for i, label in enumerate(labels or ()) if type(label) not in types],
    ))  # fmt: skip
    problems = []
    for message, odd in wrong:
        if odd:
            got = [f"{describe_value(value)} at {places.short(i)}" for i, value in odd]
            problems.append(f"{message}, got {shorten(got, SHOWN)}")
    return problems


def _replace_broken(values: Sequence[Item], mark: Callable[[int], None]) -> list[Item]:
    """Put U+FFFD where bytes were not UTF-8 or a \\u escape is half a pair; mark those rows."""
    replaced = list(values)
    for i, value in enumerate(values):
        if isinstance(value, str) and not value.isascii() and SURROGATES.search(value):
            mark(i)
            replaced[i] = cast(Item, replace_surrogates(value))
    return replaced


def _join_columns(columns: Sequence[Column], spec: ColumnSpec) -> Texts:
    """The documents that the text columns make."""
    first, *others = [column.texts() for column in columns]
    if not others and spec.template is None:
        return first
    joined = Column(spec.store)
    for row in zip(first, *others, strict=True):
        joined.add(spec.join_texts(row))
    return joined.texts()
