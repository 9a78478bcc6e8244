"""A file that a person has → a recipe for it, each guess with what was seen, to be checked.

    draft = draft_recipe(Wishes("tickets.csv"))
    print(write_recipe(draft.lines, draft.header))

What is guessed from the columns (`data/column_guess.py`) is then read as training will read it, so
that what would stop training is known now: it stops here too, or a key settles it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finetune.config import schema
from finetune.config.recipe_writer import RecipeLine
from finetune.data.cells import clip
from finetune.data.column_guess import ColumnGuess, guess_columns
from finetune.data.column_survey import ColumnSurvey, find_train_tables, survey_columns
from finetune.data.formats.delimiters import name_delimiter
from finetune.data.formats.encodings import likely_encodings, suggest_encodings
from finetune.data.local_paths import PACKAGED_ENCODER, is_installed
from finetune.data.row_survey import RowSurvey, survey_rows
from finetune.data.text_store import is_broken, replace_surrogates
from finetune.runtime.errors import InputError, shorten
from finetune.runtime.wording import count_of

ENGLISH = "sentence-transformers/all-MiniLM-L6-v2"
MULTILINGUAL = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
FOREIGN = 0.3  # share of characters in other scripts than Latin, from which text is not English
LARGER = "BAAI/bge-base-en-v1.5"
READ_AT_ONCE = 512  # tokens, by default
SHORT = 128
# The columns of folders of documents, as they are read.
FOLDERS = ColumnGuess(("text",), None, "label")
FEW_ROWS, SOME_ROWS = 16, 64  # of a label: the settings of recipes/few_shot.yaml help with these
UNEVEN = 20  # the commonest label's rows, as a multiple of the rarest one's
FOLDED = 500  # rows, up to which cross-validation is proposed


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
    data, columns, encoding = _survey(wishes)
    guess = FOLDERS
    if columns:
        try:
            guess = guess_columns(columns, wishes.text, wishes.label)
        except InputError as error:
            raise InputError(f"{wishes.source}: {problem}" for problem in error.problems) from None
    elif wishes.text or wishes.label:
        raise InputError(
            f"{wishes.source}: --text and --label name columns, and a folder of documents has none"
        )
    seen = survey_rows(_with_columns(data, guess))
    lines = [
        RecipeLine("data.source", wishes.source),
        *encoding,
        *_delimiter_lines(wishes.delimiter),
        *_text_lines(guess, columns),
        *_label_lines(guess, columns, seen),
        *_length_lines(guess, seen),
        *(RecipeLine(f"data.{key}", *settled) for key, settled in seen.settled.items()),
        *_model_lines(wishes.model, seen),
        *_train_lines(guess, seen),
    ]
    return Draft(tuple(lines), tuple(_header(wishes.source, columns, seen)), seen.rows,
                 seen.counts, guess)  # fmt: skip


def _survey(wishes: Wishes) -> tuple[schema.Data, list[ColumnSurvey], list[RecipeLine]]:
    """The columns, in the encoding that they have, and the line of the recipe that sets it.

    Raises:
        InputError: for names that are not UTF-8, in an encoding that is not recognised.
    """
    data = schema.Data(
        source=wishes.source,
        encoding=wishes.encoding or "utf-8",
        delimiter=wishes.delimiter or "auto",
    )
    tables = find_train_tables(data)
    columns = survey_columns(tables) if tables else []
    if wishes.encoding is not None:
        return data, columns, [RecipeLine("data.encoding", wishes.encoding)]
    broken = [text for column in columns for text in column.broken]
    names = [replace_surrogates(one.name) for one in columns if is_broken(one.name)]
    # Where some text is proper UTF-8, the file is UTF-8 with damage.
    likely = likely_encodings(broken) if not any(one.beyond_ascii for one in columns) else {}
    if likely:
        data = data.model_copy(update={"encoding": next(iter(likely))})
        columns = survey_columns(find_train_tables(data))
        why = f"Not UTF-8: {suggest_encodings(broken)}. Check that it reads right."
        return data, columns, [RecipeLine("data.encoding", data.encoding, why)]
    if names:
        raise InputError(
            f"{wishes.source}: expected names of columns in UTF-8, got {_quoted(names)}; save "
            "the file as UTF-8, or name its encoding (data.encoding) with --encoding"
        )
    return data, columns, []


def _delimiter_lines(delimiter: str | None) -> Iterator[RecipeLine]:
    if delimiter is not None:
        yield RecipeLine("data.delimiter", name_delimiter(delimiter))


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
        of_columns = f", columns {_quoted([one.name for one in columns], 12)}"
    yield f"{source}: {count_of(seen.rows, 'row')}{of_columns}."
    yield "Each guess has a comment: check it, and switch on what is commented out if you need it."
    for finding in seen.findings:
        yield f"Found in {finding}"


def _text_lines(guess: ColumnGuess, columns: Sequence[ColumnSurvey]) -> Iterator[RecipeLine]:
    if not columns:
        return
    words = {column.name: f"{column.words:,.0f}" for column in columns}
    read = " and ".join(f"'{name}' ({words[name]} words on average)" for name in guess.text)
    others = guess.other_texts
    more = f" Other text: {_quoted(others)}; a list of columns joins them." if others else ""
    joined = " They are joined, with a blank line between." if len(guess.text) > 1 else ""
    text: Any = guess.text[0] if len(guess.text) == 1 else guess.text
    if guess.text_pair is None:
        yield RecipeLine("data.text", text, f"Documents in {read}.{joined}{more}")
        return
    comment = f"Pairs of texts: the first in {read}, the second in '{guess.text_pair}'"
    yield RecipeLine(
        "data.text",
        text,
        f"{comment} ({words[guess.text_pair]} words). Without text_pair, the first alone is read."
        f"{more}",
    )
    yield RecipeLine("data.text_pair", guess.text_pair)


def _label_lines(
    guess: ColumnGuess, columns: Sequence[ColumnSurvey], seen: RowSurvey
) -> Iterator[RecipeLine]:
    if not columns:
        return
    listed = shorten([f"{clip(name)} ({count:,})" for name, count in seen.counts.items()], 6)
    comment = f"{len(seen.counts):,} labels, with their rows: {listed}."
    if seen.multi_label:
        comment += " A row may have several of them."
    if guess.other_labels:
        comment += f" Other columns with few values: {_quoted(guess.other_labels)}."
    yield RecipeLine("data.label", guess.label, comment)
    if guess.separator is not None:
        why = "What separates labels in a cell. Delete it if such a cell is one label."
        yield RecipeLine("data.label_separator", guess.separator, why)
    if guess.lists:
        why = "Cells are lists that are written as text. Set it to false if each text is one label."
        yield RecipeLine("data.label_lists", True, why)
    column = next((one for one in columns if one.name == guess.label), None)
    numbers = sorted(map(int, seen.counts)) if all(map(str.isdecimal, seen.counts)) else []
    are_places = len(numbers) > 1 and numbers == [*range(len(numbers))]
    if column is not None and not seen.multi_label and are_places:
        names = [f"name of {number}" for number in numbers[:20]]
        yield RecipeLine("data.labels", names, "Names for the numbers, in order.", active=False)


def _length_lines(guess: ColumnGuess, seen: RowSurvey) -> Iterator[RecipeLine]:
    long = float((seen.tokens > READ_AT_ONCE).mean())
    if guess.text_pair is not None:
        return
    if long >= 0.05:
        yield RecipeLine(
            "data.truncation",
            "windows",
            f"About {long:.0%} of the documents are longer than the {READ_AT_ONCE} tokens that are "
            "read of each. Windows read all of them, and take longer; a dry run shows what each "
            "way would cut and cost.".replace("%", " %"),
            active=False,
        )
    median = float(np.median(seen.tokens))
    if median >= 2 * SHORT:
        yield RecipeLine(
            "data.max_length",
            SHORT,
            f"Half of the documents have more than about {median:,.0f} tokens. To read only the "
            f"first {SHORT} is faster, and often enough to tell a topic.",
            active=False,
        )


def _model_lines(model: str | None, seen: RowSurvey) -> Iterator[RecipeLine]:
    if model is not None:
        yield RecipeLine("model.source", model)
    elif seen.foreign > FOREIGN:
        yield RecipeLine(
            "model.source",
            MULTILINGUAL,
            f"{seen.foreign:.0%} of the characters are of other scripts than Latin, so this is a "
            "multilingual encoder, which is downloaded once.".replace("%", " %"),
        )
    else:
        packaged = is_installed(PACKAGED_ENCODER)
        where = "from an installed package" if packaged else "which is downloaded once"
        yield RecipeLine(
            "model.source",
            PACKAGED_ENCODER if packaged else ENGLISH,
            f"A small encoder of English, {where}. {LARGER} is larger and slower. For other "
            f"languages: {MULTILINGUAL}.",
        )
    if seen.rows_of_a_label > SOME_ROWS or seen.multi_label:
        return
    few = seen.rows_of_a_label <= FEW_ROWS
    why = f"Few rows: half of the labels have at most {seen.rows_of_a_label:,.0f}. "
    why += "These settings are those of few_shot.yaml"
    why += "." if few else ", made for fewer still: compare with and without them."
    yield RecipeLine("model.pooled_norm", 10.0, why, active=few)
    if model is None:
        yield RecipeLine("model.freeze", 3, active=few)
    if seen.has_names:
        yield RecipeLine("model.head_init", "label_names", active=few)


def _train_lines(guess: ColumnGuess, seen: RowSurvey) -> Iterator[RecipeLine]:
    if seen.rows_of_a_label <= FEW_ROWS and not seen.multi_label:
        yield RecipeLine("train.min_steps", 15, "With so few rows, more steps overfit.")
    common, rare = max(seen.counts.values()), min(seen.counts.values())
    if common >= UNEVEN * rare and not seen.multi_label:
        names = {count: name for name, count in seen.counts.items()}
        yield RecipeLine(
            "train.class_weights",
            "balanced",
            f"'{clip(names[common])}' has {common:,} rows and '{clip(names[rare])}' {rare:,}. "
            "Balanced weights serve rare labels, at some cost to accuracy.",
            active=False,
        )
    if seen.rows <= FOLDED:
        yield RecipeLine(
            "run.folds",
            5,
            "Cross-validation: every row is scored once, by a model that had not seen it.",
            active=False,
        )


def _quoted(names: Sequence[str], most: int = 6) -> str:
    return shorten([f"'{clip(name)}'" for name in names], most)
