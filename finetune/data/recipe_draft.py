"""A file that a person has → a recipe for it, each guess with what was seen, to be checked.

    draft = draft_recipe(Wishes("tickets.csv"))
    print(write_recipe(draft.lines, draft.header))

What is guessed from the columns (`data/column_guess.py`) is then read as training will read it, so
that what would stop training is known now: it stops here too, or a key settles it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from finetune.config import schema
from finetune.config.recipe_writer import RecipeLine
from finetune.data.column_guess import ColumnGuess, guess_columns
from finetune.data.column_names import is_id_name
from finetune.data.column_survey import ColumnSurvey
from finetune.data.recipe_lines import (
    choose_id,
    id_lines,
    label_lines,
    length_lines,
    model_lines,
    quote_names,
    text_lines,
    train_lines,
)
from finetune.data.row_survey import RowSurvey, survey_rows
from finetune.data.source_survey import survey_source
from finetune.runtime.errors import InputError
from finetune.runtime.wording import count_of

# The columns of folders of documents, as they are read.
FOLDERS = ColumnGuess(("text",), None, "label")


@dataclass(frozen=True)
class Wishes:
    """What the user says of the data: the rest is guessed.

    Attributes:
        source: as `data.source`.
        text, label: columns; empty: to be guessed.
        model: as `model.source`; None: chosen by the script of the texts.
        encoding: as `data.encoding`; None: UTF-8, or what a text file that is none looks like.
        delimiter: as `data.delimiter`; None: what the file shows.
    """

    source: str
    text: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    model: str | None = None
    encoding: str | None = None
    delimiter: str | None = None


@dataclass(frozen=True)
class Draft:
    """A recipe, and what it was made from.

    Attributes:
        lines: its keys.
        header: the comments at its top.
        rows: of train, as the source has it.
        labels: label → rows.
        guess: what the columns are for.
    """

    lines: tuple[RecipeLine, ...]
    header: tuple[str, ...]
    rows: int
    labels: Mapping[str, int]
    guess: ColumnGuess


def draft_recipe(wishes: Wishes) -> Draft:
    """Look at the data, and write down what training needs to know of it.

    Raises:
        InputError: where nothing can be guessed, or training could not read the data.
    """
    survey = survey_source(wishes.source, wishes.encoding, wishes.delimiter)
    columns, guess = survey.columns, FOLDERS
    if columns:
        try:
            guess = guess_columns(columns, wishes.text, wishes.label)
        except InputError as error:
            raise InputError(f"{wishes.source}: {problem}" for problem in error.problems) from None
    elif wishes.text or wishes.label:
        raise InputError(
            f"{wishes.source}: --text and --label name columns, and a folder of documents has none"
        )
    guess, seen = _survey_rows(survey.data, guess)
    lines = [
        RecipeLine("data.source", wishes.source),
        *survey.lines,
        *text_lines(guess, columns),
        *id_lines(guess),
        *label_lines(guess, columns, seen),
        *length_lines(guess, seen),
        *(RecipeLine(f"data.{key}", *settled) for key, settled in seen.settled.items()),
        *model_lines(wishes.model, seen),
        *train_lines(guess, seen),
    ]
    return Draft(tuple(lines), tuple(_header(wishes.source, columns, seen)), seen.rows,
                 seen.counts, guess)  # fmt: skip


def _survey_rows(data: schema.Data, guess: ColumnGuess) -> tuple[ColumnGuess, RowSurvey]:
    """The rows as training reads them; without the ids, where another split lacks their column."""
    chosen = choose_id(guess.ids) if guess.ids else None
    if chosen is not None and is_id_name(chosen):
        named = _with_columns(data, guess).model_copy(update={"id": chosen})
        try:
            return guess, survey_rows(named)
        except InputError as error:
            if not any("data.id" in problem for problem in error.problems):
                raise
        guess = replace(guess, ids=())
    return guess, survey_rows(_with_columns(data, guess))


def _with_columns(data: schema.Data, guess: ColumnGuess) -> schema.Data:
    text = guess.text[0] if len(guess.text) == 1 else guess.text
    return schema.Data(
        source=data.source,
        encoding=data.encoding,
        delimiter=data.delimiter,
        text=text,
        text_pair=guess.text_pair,
        label=guess.label,
        label_separator=guess.separator,
        label_lists=guess.lists or None,
    )


def _header(source: str, columns: Sequence[ColumnSurvey], seen: RowSurvey) -> Iterator[str]:
    of_columns = ""
    if columns:
        of_columns = f", columns {quote_names([one.name for one in columns], 12)}"
    yield f"{source}: {count_of(seen.rows, 'row')}{of_columns}."
    yield "Each guess has a comment: check it, and switch on what is commented out if you need it."
    for finding in seen.findings:
        yield f"Found in {finding}"
