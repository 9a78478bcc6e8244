"""What columns are for and what is in their rows → the keys of a recipe, each with its comment.

    lines = [*text_lines(guess, columns), *label_lines(guess, columns, seen)]

A key that most data need not have is proposed: it is written commented out.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from finetune.config.recipe_writer import RecipeLine
from finetune.data.cells import clip
from finetune.data.column_guess import ColumnGuess
from finetune.data.column_names import LABELS, is_id_name, likely
from finetune.data.column_survey import ColumnSurvey
from finetune.data.local_paths import PACKAGED_ENCODER, is_installed
from finetune.data.row_survey import RowSurvey
from finetune.runtime.errors import shorten

ENGLISH = "sentence-transformers/all-MiniLM-L6-v2"
MULTILINGUAL = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
FOREIGN = 0.3  # share of characters in other scripts than Latin, from which text is not English
LARGER = "BAAI/bge-base-en-v1.5"
READ_AT_ONCE = 512  # tokens, by default
SHORT = 128
FEW_ROWS, SOME_ROWS = 16, 64  # of a label: the settings of recipes/few_shot.yaml help with these
MOST_VOTES = 100  # of one row for one label
UNEVEN = 20  # the commonest label's rows, as a multiple of the rarest one's
FOLDED = 500  # rows, up to which cross-validation is proposed


def text_lines(guess: ColumnGuess, columns: Sequence[ColumnSurvey]) -> Iterator[RecipeLine]:
    """The columns of the documents, or of pairs."""
    if not columns:
        return
    words = {column.name: f"{column.words:,.0f}" for column in columns}
    read = " and ".join(f"'{name}' ({words[name]} words on average)" for name in guess.text)
    others = guess.other_texts
    more = f" Other text: {quote_names(others)}; a list of columns joins them." if others else ""
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


def id_lines(guess: ColumnGuess) -> Iterator[RecipeLine]:
    """The column that names each row: switched on where its own name says so."""
    if guess.ids:
        name = choose_id(guess.ids)
        is_known = is_id_name(name)
        comment = (
            f"Each row has a value of its own in '{clip(name)}': predictions, the report's errors "
            "and suspects name a document by it."
        )
        if not is_known:
            comment += " It is commented out, as its name does not say that it is an id."
        yield RecipeLine("data.id", name, comment, active=is_known)


def choose_id(names: Sequence[str]) -> str:
    """Of the columns that could name a row, the first whose name says that it does."""
    return next(filter(is_id_name, names), names[0])


def label_lines(
    guess: ColumnGuess, columns: Sequence[ColumnSurvey], seen: RowSurvey
) -> Iterator[RecipeLine]:
    """The column of the labels, how its cells are read, and names for numbers."""
    if not columns:
        return
    listed = shorten([f"{clip(name)} ({count:,})" for name, count in seen.counts.items()], 6)
    comment = f"{len(seen.counts):,} labels, with their rows: {listed}."
    if seen.multi_label:
        comment += " A row may have several of them."
    if guess.other_labels:
        comment += f" Other columns with few values: {quote_names(guess.other_labels)}."
    yield RecipeLine("data.label", guess.label, comment)
    if guess.separator is not None:
        why = "What separates labels in a cell. Delete it if such a cell is one label."
        yield RecipeLine("data.label_separator", guess.separator, why)
    if guess.lists:
        why = "Cells are lists that are written as text. Set it to false if each text is one label."
        yield RecipeLine("data.label_lists", True, why)
    column = next((one for one in columns if one.name == guess.label), None)
    if votes := _vote_columns(guess, columns):
        why = (
            "If these are counts of annotators' votes, uncomment it, and delete data.label: each "
            "column is a label then."
        )
        yield RecipeLine("data.label_probabilities", votes, why, active=False)
    numbers = sorted(map(int, seen.counts)) if all(map(str.isdecimal, seen.counts)) else []
    are_places = len(numbers) > 1 and numbers == [*range(len(numbers))]
    if column is not None and not seen.multi_label and are_places:
        names = [f"name of {number}" for number in numbers[:20]]
        yield RecipeLine("data.labels", names, "Names for the numbers, in order.", active=False)


def _vote_columns(guess: ColumnGuess, columns: Sequence[ColumnSurvey]) -> list[str]:
    """The columns that may hold the votes for a label each: small counts, 0 among them, and none is
    called a label."""
    names = {guess.label, *guess.other_labels}
    votes = [
        one.name
        for one in columns
        if one.name in names
        and one.kind == "whole numbers"
        and (values := {int(value) for value in one.counts}) >= {0}
        and max(values) <= MOST_VOTES
        and not likely(one.name, LABELS)
    ]
    return votes if guess.label in votes and len(votes) > 1 else []


def length_lines(guess: ColumnGuess, seen: RowSurvey) -> Iterator[RecipeLine]:
    """How much of long documents is read; proposed only."""
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


def model_lines(model: str | None, seen: RowSurvey) -> Iterator[RecipeLine]:
    """The encoder, and its settings where labels have few rows."""
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
    if seen.has_names:
        yield RecipeLine("model.head_init", "label_names", active=few)


def train_lines(guess: ColumnGuess, seen: RowSurvey) -> Iterator[RecipeLine]:
    """Epochs, weights and folds, where the counts of the labels speak for them."""
    if seen.rows_of_a_label <= FEW_ROWS and not seen.multi_label:
        yield RecipeLine("train.epochs", 15, "With so few rows, three epochs learn too little.")
        yield RecipeLine("train.sampling", "stratified")
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


def quote_names(names: Sequence[str], most: int = 6) -> str:
    """Names for a sentence, the first ones of many."""
    return shorten([f"'{clip(name)}'" for name in names], most)
