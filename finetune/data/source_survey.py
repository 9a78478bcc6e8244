"""A source nobody has described yet → its columns, and the keys without which it reads wrong.

survey = survey_source("tickets.csv")
survey.columns, survey.lines         # what is in it; data.encoding and data.delimiter
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.config import schema
from finetune.config.recipe_writer import RecipeLine
from finetune.data.column_survey import ColumnSurvey, find_train_tables, survey_columns
from finetune.data.formats.delimited import DelimitedReader
from finetune.data.formats.delimiters import name_delimiter
from finetune.data.formats.encodings import likely_encodings, suggest_encodings
from finetune.data.formats.registry import open_rows
from finetune.data.formats.source import AUTO, DataSource, find_wide_encoding_of
from finetune.data.recipe_lines import quote_names
from finetune.data.text_store import is_broken, replace_surrogates
from finetune.runtime.errors import InputError

NOT_UTF_8 = "Not UTF-8"  # how the comment of a guessed encoding begins


@dataclass(frozen=True)
class SourceSurvey:
    """What a source holds, and how it is read.

    Attributes:
        data: the source, with the encoding and the delimiter that read it.
        columns: those of train; none where folders name the labels.
        lines: the keys of a recipe that say how it is read, where that is not the default.
    """

    data: schema.Data
    columns: Sequence[ColumnSurvey]
    lines: tuple[RecipeLine, ...]


def survey_source(
    source: str, encoding: str | None = None, delimiter: str | None = None
) -> SourceSurvey:
    """The columns, in the encoding and with the delimiter that the source has.

    Args:
        source: as `data.source`.
        encoding: as `data.encoding`; None: UTF-8, or what a text file that is none looks like.
        delimiter: as `data.delimiter`; None: what the file shows.

    Raises:
        InputError: for names that are not UTF-8, in an encoding that is not recognised.
    """
    data = schema.Data(source=source, encoding=encoding or "utf-8", delimiter=delimiter or AUTO)
    tables, why = find_train_tables(data), ""
    wide = {find_wide_encoding_of(table) for table in tables} if encoding is None else set()
    if len(wide) == 1 and (found := wide.pop()) is not None:
        data, why = data.model_copy(update={"encoding": found}), "As its first bytes say."
        tables = find_train_tables(data)
    columns = survey_columns(tables) if tables else []
    if encoding is None and not why:
        data, columns, why = _guess_encoding(data, columns)
    of_encoding = [RecipeLine("data.encoding", data.encoding, why)] * bool(encoding or why)
    return SourceSurvey(data, columns, (*of_encoding, *_delimiter_lines(data, delimiter)))


def _guess_encoding(
    data: schema.Data, columns: list[ColumnSurvey]
) -> tuple[schema.Data, list[ColumnSurvey], str]:
    """The same in the likeliest encoding, and why, where texts are not UTF-8; else no reason.

    Raises:
        InputError: where names of columns are not UTF-8, and no encoding is recognised.
    """
    broken = [text for column in columns for text in column.broken]
    names = [replace_surrogates(one.name) for one in columns if is_broken(one.name)]
    # Where some text is proper UTF-8, the file is UTF-8 with damage.
    likely = likely_encodings(broken) if not any(one.beyond_ascii for one in columns) else {}
    if likely:
        data = data.model_copy(update={"encoding": next(iter(likely))})
        columns = survey_columns(find_train_tables(data))
        why = f"{NOT_UTF_8}: {suggest_encodings(broken)}. Check that it reads right."
        return data, columns, why
    if names:
        raise InputError(
            f"{data.source}: expected names of columns in UTF-8, got {quote_names(names)}; save "
            "the file as UTF-8, or name its encoding (data.encoding) with --encoding"
        )
    return data, columns, ""


def _delimiter_lines(data: schema.Data, delimiter: str | None) -> Iterator[RecipeLine]:
    """The delimiter that a person named, or the one that a file has and its name does not say."""
    if delimiter is not None:
        yield RecipeLine("data.delimiter", name_delimiter(delimiter))
        return
    found = {mark for table in find_train_tables(data) if (mark := _unusual_delimiter(table))}
    if len(found) == 1:
        mark = name_delimiter(found.pop())
        is_file = not Path(data.source).is_dir()
        why = "Its lines show it; the file's name says another."
        if not is_file:  # where other splits may have another
            why += " It is found for each file; to set it for all of them:"
        yield RecipeLine("data.delimiter", mark, why, active=is_file)


def _unusual_delimiter(table: DataSource) -> str | None:
    """The delimiter of a file that has another than its name says."""
    with open_rows(table) as reader:
        if isinstance(reader, DelimitedReader) and reader.delimiter != reader.usual:
            return reader.delimiter
    return None
