"""The columns that a recipe asks for, what they hold while they are read, and which are missing."""

import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from finetune.data.cells import clip
from finetune.data.identifiers import IdColumn
from finetune.data.soft_labels import ShareColumns
from finetune.data.text_store import Column, Store
from finetune.runtime.errors import InputError, closest_match, shorten


class LabelColumn(list[Any]):
    """A column of labels while it is read: of equal ones, one object is kept."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def append(self, cell: Any) -> None:
        if isinstance(cell, str | int):
            cell = self._known.setdefault((type(cell), cell), cell)  # 1 is True, and another label
        super().append(cell)


@dataclass(frozen=True)
class ColumnSpec:
    """The columns to read, and whether the split is of use without the label."""

    text: tuple[str, ...]  # data.text, or those of data.template
    label: str | tuple[str, ...]  # data.label; several: each is a label, its cells say yes or no
    needs_label: bool = False
    second: str | None = None  # data.text_pair
    template: str | None = None  # data.template
    separator: str | None = None  # data.label_separator
    store: Store = field(default_factory=Store, compare=False)  # where the texts go
    encoding: str = "utf-8"  # data.encoding
    lists: bool | None = None  # data.label_lists
    delimiter: str = "auto"  # data.delimiter
    id: str | None = None  # data.id
    needs_id: bool = True  # whether the column must be there
    # of score.slices, each after the key that asks for it: what else is known of a document
    attributes: tuple[tuple[str, str], ...] = ()
    hierarchy: str | None = None  # data.hierarchy: then several label columns are levels
    # data.label_probabilities: where a split has these columns, they take the label's place
    shares: ShareColumns | None = None
    weight: str | None = None  # data.weight
    numbers: bool = False  # data.task number: labels are numbers
    are_tasks: bool = False  # data.tasks: then several label columns have labels of their own

    def empty_columns(self, present: Sequence[str]) -> "Cells":
        """An empty column for each of these that there is."""
        return {name: self._empty_column(name) for name in self.all_columns() if name in present}

    def _empty_column(self, name: str) -> "Column | LabelColumn | IdColumn":
        if name in self.text_columns():
            return Column(self.store)
        is_value = name in (self.id, self.weight) or name in self.attribute_columns()
        return IdColumn(self.store) if is_value else LabelColumn()

    def text_columns(self) -> tuple[str, ...]:
        """The columns that hold text."""
        return self.text if self.second is None else (*self.text, self.second)

    def label_columns(self) -> tuple[str, ...]:
        """The columns that hold labels."""
        return (self.label,) if isinstance(self.label, str) else self.label

    @property
    def has_columns_of_names(self) -> bool:
        """Whether several columns hold names of labels: the levels of one, or several tasks."""
        is_joined = self.hierarchy is not None or self.are_tasks
        return is_joined and not isinstance(self.label, str)

    def attribute_columns(self) -> tuple[str, ...]:
        """The columns that hold attributes, each once."""
        return tuple(dict.fromkeys(column for _, column in self.attributes))

    def all_columns(self) -> tuple[str, ...]:
        """Those of texts, then those of labels, then identifiers and attributes; each once."""
        values = [column for column in (self.id, self.weight) if column is not None]
        beside = dict.fromkeys((*self.share_columns(), *values, *self.attribute_columns()))
        labels = [column for column in self.label_columns() if column not in beside]
        return (*self.text_columns(), *labels, *beside)

    def share_columns(self) -> tuple[str, ...]:
        """The columns that hold label probabilities."""
        return () if self.shares is None else self.shares.columns

    def required(self) -> list[tuple[str, str]]:
        """Each column that there must be, after the key of the recipe which asks for it."""
        of_text = "data.text" if self.template is None else "data.template"
        required = [(of_text, column) for column in self.text]
        if self.second is not None:
            required.append(("data.text_pair", self.second))
        if self.needs_label and self.shares is None:
            required += [("data.label", column) for column in self.label_columns()]
        elif self.needs_label:
            required += self.required_shares()
        if self.weight is not None:
            required.append(("data.weight", self.weight))
        if self.id is not None and self.needs_id:
            required.append(("data.id", self.id))
        return [*required, *self.attributes]

    def required_shares(self) -> list[tuple[str, str]]:
        """The columns of label probabilities, as of `required`."""
        return [("data.label_probabilities", column) for column in self.share_columns()]

    def join_texts(self, cells: Sequence[str | None]) -> str | None:
        """The cells of the text columns as one document; None where all are missing.

        Where one of several is missing, the document goes without.
        """
        if all(cell is None for cell in cells):
            return None
        if self.template is None:
            return cells[0] if len(cells) == 1 else "\n\n".join(cell for cell in cells if cell)
        if not any(cell and cell.strip() for cell in cells):
            return ""  # not the template's own words
        by_name = dict(zip(self.text, cells, strict=True))
        parts = string.Formatter().parse(self.template)
        return "".join(
            before + (by_name[name] or "" if name is not None else "")
            for before, name, _, _ in parts
        )


Cells = dict[str, Column | LabelColumn | IdColumn]


def require_columns(
    where: str, columns: Sequence[str], spec: ColumnSpec, has_header: bool = False
) -> None:
    """
    Args:
        columns: those that there are.
        has_header: whether they are the first line of a file, which may be none.

    Raises:
        InputError: for each column of `spec` that is not there, or is there twice.
    """
    required = spec.required()
    # Some of several: not without all.
    if not spec.needs_label and {*spec.share_columns()} & {*columns}:
        required += spec.required_shares()
    elif not spec.needs_label and {*spec.label_columns()} & {*columns}:
        required += [("data.label", column) for column in spec.label_columns()]
    problems = find_column_problems(where, columns, required, has_header)
    if problems:
        raise InputError(problems)


def find_column_problems(
    where: str,
    columns: Sequence[str],
    required: Sequence[tuple[str, str]],
    has_header: bool = False,
) -> list[str]:
    """What is said of each required column that is not there, or is there twice.

    Args:
        columns, has_header: as of `require_columns`.
        required: each after the key or option that asks for it.
    """
    problems = [
        f"{where}: {columns.count(column)} columns are called '{column}' ({key})"
        for key, column in dict.fromkeys(required)
        if columns.count(column) > 1
    ]
    if problems:
        return problems
    names = shorten([f"'{clip(name)}'" for name in columns], 10)
    for key, column in required:
        if column in columns:
            continue
        guess = closest_match(column, columns)
        problem = f"{where}: no column '{column}' ({key})"
        if guess is not None:
            problem += f"; did you mean '{guess}'?"
        problem += f" (columns: {names})"
        # A header that holds one of the columns is a header.
        if has_header and guess is None and not {name for _, name in required} & {*columns}:
            problem += "; the first line must name the columns"
        problems.append(problem)
    return problems
