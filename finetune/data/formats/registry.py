"""Every format that data may have. To add one, write its reader and one entry in `FORMATS`.

with open_rows(DataSource("a.csv", "csv", Path("a.csv")), ["text"]) as reader:
    for unit, number, cells in reader.rows(): ...
"""

import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from finetune.data.formats.arrow import ParquetReader, TableReader
from finetune.data.formats.delimited import CsvReader, TsvReader
from finetune.data.formats.file_row import RowReader
from finetune.data.formats.frame import FrameReader
from finetune.data.formats.json_text import JsonLinesReader, JsonReader
from finetune.data.formats.plain_text import DocumentReader, LineReader
from finetune.data.formats.source import (
    AUTO,
    DataSource,
    ReadProgress,
    explain_read_errors,
    read_ahead,
    rejoin,
)
from finetune.runtime.errors import InputError

PEEKED_ROWS = 100  # that may lack a column before it is taken for a typo
PEEKED_BYTES = 2**16  # of a pipe; more where a row is longer
MOST_PEEKED_BYTES = 2**24


@dataclass(frozen=True)
class Format:
    """How one kind of data is read.

    Attributes:
        open: makes its reader, of the source, the columns asked for, the progress to note, and
            the stack that closes what is opened.
        endings: of its files.
        has_columns: whether its rows have named columns.
        has_types: whether a cell may be other than text; else an empty one is missing.
        streams: whether it can be read through a pipe.
    """

    open: Callable[[DataSource, Sequence[str], ReadProgress, ExitStack], RowReader]
    endings: tuple[str, ...] = ()
    has_columns: bool = True
    has_types: bool = True
    streams: bool = True


FORMATS: dict[str, Format] = {
    "csv": Format(CsvReader, (".csv",), has_types=False),
    "tsv": Format(TsvReader, (".tsv",), has_types=False),
    "json": Format(JsonReader, (".json",)),
    "jsonl": Format(JsonLinesReader, (".jsonl", ".ndjson")),
    "parquet": Format(ParquetReader, (".parquet",), streams=False),
    "txt": Format(LineReader, (".txt",), has_columns=False),
    "document": Format(DocumentReader, has_columns=False),
    "table": Format(TableReader, streams=False),
    "frame": Format(FrameReader, streams=False),
}
KIND_OF = {ending: kind for kind, format in FORMATS.items() for ending in format.endings}
SUFFIXES = tuple(KIND_OF)
FILE_FORMATS = tuple(dict.fromkeys(KIND_OF.values()))  # those of files, by their keys


# What to do with files of other kinds that people have their documents in.
CONVERSIONS = {
    "unpack it first": (".zip", ".tar", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar"),
    "save its sheet as csv, in UTF-8": (".xlsx", ".xls", ".xlsm", ".ods", ".numbers"),
    "save it as parquet": (".arrow", ".feather", ".orc", ".dta", ".sav", ".rds", ".sqlite", ".db"),
    "such files can run code when they are read: save it as parquet": (
        *(".pkl", ".pickle", ".joblib", ".npy", ".npz", ".pt"),
    ),
    "save the text of each document as a .txt file": (
        *(".pdf", ".doc", ".docx", ".odt", ".rtf", ".html", ".htm", ".xml", ".md", ".eml"),
    ),
    "save it as json": (".yaml", ".yml", ".toml"),
}
CONVERSION_OF = {ending: what for what, endings in CONVERSIONS.items() for ending in endings}


def explain_ending(path: Path) -> str:
    """The problem with a file whose ending is none of SUFFIXES, and what to do with it."""
    return (
        f"{path}: unknown file ending; expected one of {', '.join(SUFFIXES)}, each also with .gz"
        + conversion_hint(path)
    )


def conversion_hint(path: Path) -> str:
    """`; unpack it first` and the like, where we know what such a file is; else nothing."""
    ending = path.suffix.lower()
    if ending == ".gz":
        ending = Path(path.stem).suffix.lower()
    todo = CONVERSION_OF.get(ending)
    return f"; {todo}" if todo else ""


def suffix_of(path: Path) -> str:
    """`.csv` of `x.csv` and of `x.CSV.gz`; empty where the ending is none of SUFFIXES."""
    name = path.name.lower().removesuffix(".gz")
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


def kind_of(path: Path, delimiter: str = AUTO) -> str:
    """The key of FORMATS for a file's ending, which must be known.

    Args:
        delimiter: one that a person names makes a table of a .txt file.
    """
    kind = KIND_OF[suffix_of(path)]
    return "csv" if kind == "txt" and delimiter != AUTO else kind


def stem_of(path: Path) -> str:
    """The file name without its data ending: `train` of `train.jsonl.gz`."""
    gz = ".gz" if path.name.lower().endswith(".gz") else ""
    return path.name[: len(path.name) - len(suffix_of(path) + gz)] or path.name


@contextmanager
def open_rows(
    source: DataSource, requested: Sequence[str] = (), progress: ReadProgress | None = None
) -> Iterator[RowReader]:
    """A source's reader, for as long as the block lasts.

    Args:
        requested: the columns to read; rows may hold others too.
        progress: notes how far it is read.

    Raises:
        InputError: for what is wrong with the source as a whole.
    """
    with ExitStack() as stack:
        with explain_read_errors(source):
            make = FORMATS[source.kind].open
            reader = make(source, requested, progress or ReadProgress(), stack)
        yield reader


def peek_columns(source: DataSource, requested: Sequence[str] = ()) -> list[str] | None:
    """The columns that a source's beginning names; None where it does not say.

    A pipe is not touched: what was read of it would be gone.
    """
    from_a_pipe = source.table is None and not source.can_reopen
    if from_a_pipe or not FORMATS[source.kind].has_columns:
        return None
    names: dict[str, None] = {}
    with open_rows(source, requested) as reader:
        _add_first_columns(reader, names)
    return list(names) or None


def peek_pipe_columns(source: DataSource, requested: Sequence[str] = ()) -> list[str] | None:
    """As `peek_columns`, of a pipe, whose first bytes are read ahead and stay to be read.

    They are as many as are needed for a row, and always the same ones, so that a job that is
    started again finds the same columns.
    """
    format = FORMATS[source.kind]
    if source.stream is None or not (format.has_columns and format.streams):
        return None
    names: dict[str, None] = {}
    size = PEEKED_BYTES
    while True:
        head = read_ahead(source.stream, size)
        beginning = replace(source, path=None, stream=rejoin(head, io.BytesIO()))
        # It ends within a row, or is wrong: that is said when all of it is read.
        with suppress(InputError), open_rows(beginning, requested) as reader:
            _add_first_columns(reader, names)
        if names or len(head) < size or size > MOST_PEEKED_BYTES:
            return list(names) or None
        size *= 8


def _add_first_columns(reader: RowReader, names: dict[str, None]) -> None:
    """Add the columns of the header, or of the first rows, in order, as far as they can be read."""
    if reader.columns is not None:
        names.update(dict.fromkeys(reader.columns))
        return
    for row in itertools.islice(reader.rows(), PEEKED_ROWS):
        if isinstance(row.cells, dict):
            names.update(dict.fromkeys(row.cells))
