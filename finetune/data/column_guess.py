"""What the columns of a file are for: documents, labels, pairs, ids. A guess, and what else fits.

    guess = guess_columns(survey_columns(sources))
    guess.text, guess.label          # ("subject", "body"), "queue"

Names come first, as people call these columns much the same; then what is in them: labels are few
values that repeat, documents are text of many words.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.data.column_names import (
    DOCUMENTS,
    HEADINGS,
    LABELS,
    NO_LABELS,
    PAIRS,
    is_attribute,
    likely,
    plain,
)
from finetune.data.column_survey import (
    ColumnSurvey,
    binary_columns,
    find_separator,
    holds_text_lists,
)
from finetune.runtime.errors import InputError, did_you_mean, shorten

LONGEST_LABEL = 8  # words of a label, on average


@dataclass(frozen=True)
class ColumnGuess:
    """What the columns are for.

    Attributes:
        text: the columns of a document.
        text_pair: the column of the second text of pairs.
        label: the column of the labels, or several columns of 0 and 1.
        separator: between several labels in a cell.
        lists: whether the cells of labels are lists that are written as text.
        other_texts, other_labels: columns that could be text, or labels, instead.
        ids: columns with another value in each row, which name it.
        empty: columns with hardly a value.
    """

    text: tuple[str, ...]
    text_pair: str | None
    label: str | tuple[str, ...]
    separator: str | None = None
    other_texts: tuple[str, ...] = ()
    other_labels: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    lists: bool = False


def guess_columns(
    columns: Sequence[ColumnSurvey], text: Sequence[str] = (), label: Sequence[str] = ()
) -> ColumnGuess:
    """What each of some columns is for.

    Args:
        text, label: the columns that the user names; empty: to be found.

    Raises:
        InputError: where no column looks like documents, or none like labels.
    """
    by_name = {column.name: column for column in columns}
    _require_known([*text, *label], by_name)
    labels = _rank_labels([column for column in columns if column.name not in text])
    flags = [column.name for column in binary_columns(columns) if column.name not in text]
    chosen: str | tuple[str, ...] | None = None
    if label:
        chosen = label[0] if len(label) == 1 else tuple(label)
    elif len(flags) > 2 and not any(likely(one.name, LABELS) for one in labels):
        chosen = tuple(flags)
    elif labels:
        chosen = labels[0].name
    of_label = (chosen,) if isinstance(chosen, str) else chosen or ()
    documents = _rank_documents([column for column in columns if column.name not in of_label])
    first, second = _find_pair([column.name for column in documents])
    texts = tuple(text) or ((first,) if second else _with_heading(documents))
    problems = []
    if not texts:
        problems.append(
            f"expected a column with text of several words, found none ({_describe(columns)}); "
            "name it with --text"
        )
    if chosen is None:
        problems.append(
            "expected a column of labels, which has a few values that repeat, found none "
            f"({_describe(columns)}); add one, or name it with --label{_describe_targets(columns)}"
        )
    if problems or chosen is None:
        raise InputError(problems)
    pair = second if not text else None
    used = {*texts, *of_label, pair}
    return ColumnGuess(
        texts,
        pair,
        chosen,
        find_separator(by_name[chosen]) if isinstance(chosen, str) else None,
        tuple(column.name for column in documents if column.name not in used),
        tuple(column.name for column in labels if column.name not in used),
        tuple(column.name for column in columns if _is_id(column) and column.name not in used),
        tuple(column.name for column in columns if column.missing > 0.95),
        lists=isinstance(chosen, str) and holds_text_lists(by_name[chosen]),
    )


def _describe_targets(columns: Sequence[ColumnSurvey]) -> str:
    """What else may be learned, of which this guesses nothing."""
    kinds = {column.kind for column in columns}
    hints = {
        "numbers": "numbers are predicted by a recipe with data.label and data.task: number",
        "objects": "votes or shares of labels are read by data.label_probabilities",
    }
    return "".join(f"; {hint}" for kind, hint in hints.items() if kind in kinds)


def _require_known(names: Sequence[str], columns: dict[str, ColumnSurvey]) -> None:
    problems = [
        f"no column '{name}'{did_you_mean(name, [*columns], 'there are')}"
        for name in names
        if name not in columns
    ]
    if problems:
        raise InputError(problems)


def _rank_labels(columns: Sequence[ColumnSurvey]) -> list[ColumnSurvey]:
    """The columns that may hold labels, the likeliest first."""
    scored = []
    for place, column in enumerate(columns):
        share_known = likely(column.name, LABELS)  # 0: the name does not tell
        if not _may_be_labels(column, is_named=share_known > 0):
            continue
        score = 4 * share_known + (2 if share_known else 0)
        score -= 3 * _names_a_row(column)
        score -= is_attribute(column.name) and not share_known
        score += min(2.0, math.log10(column.filled / max(1, column.distinct)))
        score += (column.kind in ("text", "lists")) - column.missing
        score -= 2 * max(0.0, column.words - 3) / LONGEST_LABEL
        scored.append((-score, -place, column))  # of equals the last, where labels mostly are
    return [column for *_, column in sorted(scored, key=lambda one: one[:2])]


def _may_be_labels(column: ColumnSurvey, is_named: bool) -> bool:
    """Whether training would take the column's values for labels, and they repeat."""
    if column.overflowed or column.distinct < 2 or column.kind in ("mixed", "objects"):
        return False
    if column.kind == "numbers" and not (is_named and column.holds_whole_floats):
        return False
    if column.missing > 0.95:
        return False
    if holds_text_lists(column):
        return True
    if column.words > LONGEST_LABEL:
        return False
    if find_separator(column) is not None:
        return True
    values = sum(column.counts.values())
    return column.distinct < values if is_named else 2 * column.distinct <= values


def _rank_documents(columns: Sequence[ColumnSurvey]) -> list[ColumnSurvey]:
    """The columns that may hold documents, the likeliest first."""
    scored = []
    for place, column in enumerate(columns):
        share_known = likely(column.name, DOCUMENTS)
        # A column of single words may be called text: names, search terms, hashtags.
        is_id = _is_id(column) and (share_known == 0 or _names_a_row(column))
        may_be = column.is_text and column.missing <= 0.95 and not is_id
        if not may_be or (column.words < 1.5 and share_known == 0):
            continue
        score = 2 * share_known + math.log2(1 + column.words) - 2 * column.missing
        score -= 3 * (_may_be_labels(column, is_named=False) and share_known == 0)
        scored.append((-score, place, column))
    return [column for *_, column in sorted(scored, key=lambda one: one[:2])]


def _with_heading(documents: Sequence[ColumnSurvey]) -> tuple[str, ...]:
    """The likeliest column of documents, below its heading where there is one."""
    if not documents:
        return ()
    body = documents[0]
    for heading in documents[1:]:
        if plain(heading.name) in HEADINGS and heading.words < body.words:
            return heading.name, body.name
    return (body.name,)


def _find_pair(names: Sequence[str]) -> tuple[str, str | None]:
    """The two columns of pairs of texts, by their names; None where there are none."""
    by_lower = {name.lower(): name for name in names}
    for first, second in PAIRS:
        if first in by_lower and second in by_lower:
            return by_lower[first], by_lower[second]
    for name in names:
        for end, other in (("1", "2"), ("a", "b")):
            stem = name.lower().removesuffix(end)
            sure = stem.endswith("_") or stem.rstrip("_ ") in DOCUMENTS.english
            if name.lower().endswith(end) and stem and sure and stem + other in by_lower:
                return name, by_lower[stem + other]
    return "", None


def _names_a_row(column: ColumnSurvey) -> bool:
    """Whether the name is that of an id, a date or another column that no label is in."""
    return NO_LABELS.fullmatch(plain(column.name)) is not None


def _is_id(column: ColumnSurvey) -> bool:
    """Whether each row has a value of its own, of one word."""
    is_one_word = column.kind == "whole numbers" or (column.kind == "text" and column.words < 1.01)
    apart = column.overflowed or column.distinct == column.filled
    return column.rows > 1 and column.missing < 0.5 and is_one_word and apart


def _describe(columns: Sequence[ColumnSurvey]) -> str:
    """Each column with what it holds, for a message."""
    return shorten(
        [
            f"'{column.name}': {column.kind}, {column.distinct:,}"
            f"{' or more' * column.overflowed} different in {column.filled:,} rows"
            for column in columns
        ],
        8,
    )
