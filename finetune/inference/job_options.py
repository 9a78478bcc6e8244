"""The options of a batch job, in groups, and what can be wrong with them before it computes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.data.formats.registry import peek_columns, peek_pipe_columns
from finetune.data.formats.source import DataSource
from finetune.inference import outputs
from finetune.inference.chunks import CHUNK_ROWS
from finetune.inference.engines import EngineOptions, ModelSource
from finetune.inference.inputs import InputSpec
from finetune.inference.records import ANSWERED_BY, MOST_WORDS, OUT_OF_SCOPE, RequestedColumns
from finetune.runtime.errors import InputError

if TYPE_CHECKING:
    from finetune.inference.cascade import CascadeOptions
    from finetune.inference.classifier import Classifier


@dataclass(frozen=True)
class ColumnOptions:
    """Which columns are read, by name.

    Attributes:
        text: of the documents; empty: those that the model was trained on.
        id: what names a row; None: what named it in training, or its number.
        keep: those to copy to the output, each as COLUMN or NAME=COLUMN.
    """

    text: tuple[str, ...] = ()
    id: str | None = None
    keep: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """What `id` and the columns of `keep` are called in the output."""
        pairs = [word.rpartition("=")[::2] for word in self.keep]
        return ("id", *(name or column for name, column in pairs))

    def request(
        self,
        classifier: "Classifier",
        items: Sequence[DataSource],
        tell: Callable[[str], None] = lambda message: None,
    ) -> RequestedColumns:
        """The columns to read of these inputs for this model.

        Args:
            tell: is called where rows are numbered although the model knows a column that
                identifies them.
        """
        row_id, known = self.id, classifier.reading.id
        if row_id is None and all(item.kind == "document" for item in items):
            row_id = "file"
        elif row_id is None and known is not None:
            if has_column(items, known):
                row_id = known
            else:
                tell(
                    f"rows are named by their number, as not every input has the column '{known}' "
                    "in its first rows, by which training named them (data.id); --id names another"
                )
        return RequestedColumns(
            self.text or classifier.columns,
            classifier.reading.column_spec(),
            "--text" if self.text else "the model's",
            id=row_id,
            keep=self._kept,
        )

    @property
    def given(self) -> RequestedColumns:
        """The columns that the user names, whatever the model."""
        return RequestedColumns(self.text, id=self.id, keep=self._kept)

    @property
    def _kept(self) -> tuple[str, ...]:
        return tuple(word.rpartition("=")[2] for word in self.keep)

    def find_taken_names(
        self, labels: Sequence[str] = (), fields: Sequence[str] = (), cascades: bool = False
    ) -> list[str]:
        """The problem of each name that the output has already.

        Args:
            labels: of the model, each with its probability; none: not known yet.
            fields: of its predictions.
            cascades: whether the output says which of two models answered.
        """
        reserved = ["label", "score", "labels", "scores", "probabilities", "explanation", "error"]
        reserved += (*OUT_OF_SCOPE, *([ANSWERED_BY] if cascades else []), *fields)
        reserved += [f"probabilities.{label}" for label in labels]
        names = self.names
        return [
            f"--keep {name}: the output has a column '{name}' of its own; write --keep "
            f"my_{name}={name}"
            for i, name in enumerate(names)
            if i and (name in reserved or name in names[:i])
        ]

    def check(self, classifier: "Classifier", cascades: bool = False) -> None:
        """Refuse names that the output has already, and columns that this model does not read.

        Raises:
            InputError: with each of them.
        """
        problems = self.find_taken_names(classifier.labels, classifier.rules.fields, cascades)
        if self.text and len(self.text) != len(classifier.columns):
            problems.append(
                f"--text: the model reads {len(classifier.columns)} columns "
                f"({', '.join(classifier.columns)}), got {len(self.text)}"
            )
        if problems:
            raise InputError(problems)


def has_column(items: Sequence[DataSource], column: str) -> bool:
    """Whether the beginning of each input has a column."""

    def find(item: DataSource) -> list[str]:
        return peek_columns(item, (column,)) or peek_pipe_columns(item, (column,)) or []

    try:
        return all(column in find(item) for item in items)
    except InputError:  # said when the inputs are checked
        return False


@dataclass(frozen=True)
class OutputOptions:
    """What is written, and where.

    Attributes:
        errors: the file of invalid rows; None: they are in the output, with their `error`.
        probabilities: include the probability of each label.
        explain: how many words of each label to include; 0: none.
        resume: continue an unfinished job.
        overwrite: replace the output, and discard an unfinished job.
        chunk_rows: sorted by length and written together.
        spreadsheet_safe: whether no cell of a table may be a formula.
    """

    file: Path
    errors: Path | None = None
    probabilities: bool = False
    explain: int = 0
    resume: bool = False
    overwrite: bool = False
    chunk_rows: int = CHUNK_ROWS
    spreadsheet_safe: bool = False

    def find_too_many_words(self) -> Iterator[str]:
        """The problem of more words than an explanation may have."""
        if self.explain > MOST_WORDS:
            yield f"--explain: expected {MOST_WORDS} words or fewer, got {self.explain:,}"

    @property
    def cascade_file(self) -> Path:
        """Where the threshold of a cascade is written, with what it comes to."""
        return self.file.with_name(f"{self.file.name}.cascade.json")

    def find_lost_files(self, items: Sequence[DataSource]) -> Iterator[str]:
        """What would be lost if the output were written."""
        read = {item.path.resolve() for item in items if item.path is not None}
        for option, file in (("--output", self.file), ("--errors", self.errors)):
            if file is not None and file.resolve() in read:
                yield f"{option}: {file} is also the input; choose another name"
        if self.spreadsheet_safe and not outputs.is_delimited(self.file):
            yield f"--spreadsheet-safe: expected a .csv or .tsv file as --output, got {self.file}"
        if self.errors is None:
            return
        if self.errors.resolve() == self.file.resolve():
            yield f"--errors: expected another file than --output, got {self.errors} for both"
        elif self.errors.exists() and not (self.overwrite or self.resume):
            yield f"{self.errors}: the file exists already; choose another name, or add --overwrite"


@dataclass(frozen=True)
class JobOptions:
    """A batch job: a model, an input, an output; `predict --help` says what each option means."""

    model: ModelSource
    input: InputSpec
    output: OutputOptions
    columns: ColumnOptions = field(default_factory=ColumnOptions)
    engine: str | None = None
    cascade: "CascadeOptions | None" = None
    compute: EngineOptions = field(default_factory=EngineOptions)

    def find_lost_files(self, items: Sequence[DataSource]) -> Iterator[str]:
        """What would be lost if all that the job writes were written."""
        yield from self.output.find_lost_files(items)
        if self.cascade is None:
            return
        output = self.output
        plan = output.cascade_file
        if plan.exists() and not (output.overwrite or output.resume):
            yield f"{plan}: the file exists already; choose another --output, or add --overwrite"
        if self.cascade.data is None:
            return
        labelled = Path(self.cascade.data.source).resolve()
        for option, file in (("--output", output.file), ("--errors", output.errors)):
            if file is not None and file.exists() and file.resolve().is_relative_to(labelled):
                yield f"{option}: {file} is also of --cascade-data; choose another name"
