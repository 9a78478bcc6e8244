"""DATA of an evaluation → rows with the labels of the model, in the columns that it reads."""

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace

from finetune.config import schema
from finetune.data import labelled_rows, sources
from finetune.data.columns import ColumnSpec
from finetune.data.labelled_rows import LabelledRows, OnUnknown
from finetune.data.rows import Rows
from finetune.data.similar_labels import merge_of
from finetune.data.text_store import Store
from finetune.inference.classifier import Classifier
from finetune.runtime.errors import InputError, shorten


@dataclass(frozen=True)
class LabelledInput:
    """Labelled rows, as a person says it.

    Attributes:
        source, config: as of `data.source` and `data.config`.
        split: of the source; None: the only one, or test.
        text: columns, in the order of the model's; empty: those that it was trained on.
        label: the column of the labels, or several of 0 and 1; empty: as in the model's recipe,
            whose label probabilities are read as majority labels where they are there.
        separator: between several labels in a cell; None: as in the model's recipe.
        on_unknown: what to do with labels that the model does not know.
        encoding, delimiter: as of `data.encoding` and `data.delimiter`.
        id: the column that identifies documents; None: as in training, where it is there.
        slices: columns by whose values the rows are scored too.
    """

    source: str
    config: str | None = None
    split: str | None = None
    text: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    separator: str | None = None
    on_unknown: OnUnknown = "stop"
    encoding: str = "utf-8"
    delimiter: str = "auto"
    id: str | None = None
    slices: tuple[str, ...] = ()


def read_labelled(
    given: LabelledInput, classifier: Classifier, trained_on: schema.Data | None
) -> LabelledRows:
    """The rows that can be scored, named as the model names them.

    Args:
        trained_on: the data of the model's run; None: not known.

    Raises:
        InputError: where they cannot be read, or do not fit the model.
    """
    spec = replace(
        _column_spec(given, classifier, trained_on),
        encoding=given.encoding,
        delimiter=given.delimiter,
    )
    spec = _with_id(spec, given.id, classifier.reading.id)
    _check_slices(given.slices, spec)
    spec = replace(spec, attributes=tuple(("--slices", column) for column in given.slices))
    home = schema.Cache().folder()
    data = schema.Data(source=given.source, config=given.config)
    try:
        rows = sources.load_split(data, given.split, replace(spec, store=Store(home)))
    except InputError as error:
        raise InputError(_as_options(problem) for problem in error.problems) from None
    if rows.labels is None:
        raise InputError(
            f"{rows.origin}: expected the label probabilities of the model's recipe "
            f"({', '.join(spec.share_columns())}) or its column of labels ({spec.label}), found "
            "neither; --label names another column of labels"
        )
    rules = classifier.rules
    if rules.number is not None:
        return _number_rows(given, rows, rules.number.column)
    advice = labelled_rows.ADVICE
    if rules.tasks is not None:
        _check_tasks(given)
        advice = labelled_rows.DROP
    elif rules.ordered:
        advice = f"{labelled_rows.DROP}; {labelled_rows.COLUMN}"
    merge = None if trained_on is None else merge_of(trained_on)
    found = labelled_rows.label_rows(
        rows, rules.labels, rules.multi_label, given.on_unknown, merge, advice
    )
    if rules.ordered and len(found.labels) > len(rules.labels):
        raise InputError(
            "--unknown-labels: expected stop or drop for a model of ordered labels, as a label "
            f"that it does not know has no rank, got wrong; it lacks {shorten([*found.unknown])}"
        )
    return found


def _check_tasks(given: LabelledInput) -> None:
    """
    Raises:
        InputError: for options that are of models of one task.
    """
    for option, is_set, why in (
        ("--label-separator", given.separator is not None, "a row has one label of each task"),
        ("--unknown-labels", given.on_unknown == "wrong", "expected stop or drop"),
    ):
        if is_set:
            raise InputError(f"{option}: the model has several tasks (data.tasks): {why}")


def _number_rows(given: LabelledInput, rows: Rows, column: str) -> LabelledRows:
    """
    Raises:
        InputError: as `labelled_rows.number_rows` does, and for options that are of labels.
    """
    for option, is_set in (
        ("--label-separator", given.separator is not None),
        ("--unknown-labels", given.on_unknown != "stop"),
    ):
        if is_set:
            raise InputError(f"{option}: the model predicts a number, '{column}'; leave it out")
    try:
        return labelled_rows.number_rows(rows, given.label[0] if given.label else column)
    except InputError as error:
        raise InputError(_as_options(problem) for problem in error.problems) from None


def _as_options(problem: str) -> str:
    """A message about keys of a recipe, with this command's options instead."""
    for key, option in (
        ("data.source=PATH", "PATH"),
        ("data.source", "DATA"),
        ("data.label_separator", "--label-separator"),
        ("data.label", "--label"),
        ("data.text_pair", "--text"),
        ("data.template", "--text"),
        ("data.text", "--text"),
        ("data.id", "--id"),
        ("data.config", "--config"),
        ("data.encoding=", "--encoding "),
        ("data.encoding", "--encoding"),
        ("data.delimiter=", "--delimiter "),
        ("data.delimiter", "--delimiter"),
    ):
        problem = problem.replace(key, option)
    return problem


def _column_spec(
    given: LabelledInput, classifier: Classifier, trained_on: schema.Data | None
) -> ColumnSpec:
    """The columns to read: the model's, or those that the user names in their place.

    Raises:
        InputError: where the model reads more columns, or fewer.
    """
    known = classifier.reading.column_spec()
    number = classifier.rules.number
    label: str | tuple[str, ...] = "label" if number is None else number.column
    tasks = classifier.rules.tasks
    if trained_on is not None:
        label = trained_on.label
    if tasks is not None:
        label = tasks.names
    if tasks is not None and given.label:
        raise InputError(
            f"--label: expected none, as the model has several tasks, whose columns of labels are "
            f"{', '.join(tasks.names)}, got {', '.join(given.label)}; rename the columns"
        )
    separator = None if trained_on is None else trained_on.label_separator
    if number is not None and len(given.label) > 1:
        raise InputError(f"--label: expected one column, of numbers, got {len(given.label)}")
    if given.label:
        label = given.label[0] if len(given.label) == 1 else given.label
        separator = None if not isinstance(label, str) else separator
    shares = None
    if trained_on is not None and not given.label:
        shares = sources.share_columns(trained_on)
    if not given.text:
        return replace(
            known,
            label=label,
            needs_label=shares is None,
            shares=shares,
            separator=given.separator or separator,
            hierarchy=classifier.rules.hierarchy,
            numbers=number is not None,
            are_tasks=tasks is not None,
        )
    columns = known.text_columns()
    if len(given.text) != len(columns):
        raise InputError(
            f"--text: the model reads {len(columns)} columns ({', '.join(columns)}), got "
            f"{len(given.text)}"
        )
    names = dict(zip(columns, given.text, strict=True))
    return ColumnSpec(
        text=tuple(names[column] for column in known.text),
        label=label,
        needs_label=shares is None,
        shares=shares,
        second=None if known.second is None else names[known.second],
        template=None if known.template is None else rename_columns(known.template, names),
        separator=given.separator or separator,
        hierarchy=classifier.rules.hierarchy,
        numbers=number is not None,
        are_tasks=tasks is not None,
    )


def _with_id(spec: ColumnSpec, given: str | None, trained: str | None) -> ColumnSpec:
    """With the column of identifiers that the user names; or that of training, where it is there.

    Raises:
        InputError: where the user names a column that is read as something else.
    """
    chosen = given or trained
    if chosen in (*spec.text_columns(), *spec.label_columns()):
        if given is not None:
            raise InputError(f"--id: expected another column than '{given}', which is read already")
        chosen = None
    return replace(spec, id=chosen, needs_id=given is not None)


def _check_slices(columns: Sequence[str], spec: ColumnSpec) -> None:
    """
    Raises:
        InputError: for a column that is named twice, or that the model reads.
    """
    taken = {*spec.text_columns(), *spec.label_columns()}
    for i, column in enumerate(columns):
        if column in taken or column in columns[:i]:
            raise InputError(
                "--slices: expected other columns than those of text and label, each once, got "
                f"'{column}'"
            )


def rename_columns(template: str, names: dict[str, str]) -> str:
    """A template with other columns in its braces."""
    parts = []
    for before, column, _, _ in string.Formatter().parse(template):
        parts.append(before.replace("{", "{{").replace("}", "}}"))
        parts.append("" if column is None else f"{{{names[column]}}}")
    return "".join(parts)
