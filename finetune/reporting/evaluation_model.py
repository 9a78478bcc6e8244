"""What `finetune evaluate` writes as `results.json`: a model on new labelled rows. Its types."""

from typing import Any

from pydantic import Field

from finetune.evaluation.analysis_model import Analysis, Flagged, Interval, Section
from finetune.evaluation.drift import Drift
from finetune.reporting.results_model import FindingSummary, Machine, SplitSummary
from finetune.tokenization.document_format import DocumentFormat

SCHEMA = 1  # raised when a key changes its name or meaning
WHERE = "the new documents"  # what sentences call them


class EvaluatedModel(Section):
    source: str = Field(description="run folder, model folder or Hub id")
    run: str | None = Field(description="the run folder that the model is of; null: not known")
    max_length: int = Field(description="tokens that are read at once")
    engine: list[str] = Field(description="what computed, and why")
    identity: str = Field(description="hash of all that decides a prediction")


class EvaluatedData(Section):
    source: str = Field(description="file, folder or Hub id")
    labels: list[str] = Field(
        description="names of the labels: the model's in the order of the logits, then unknown "
        "ones that were counted as wrong"
    )
    multi_label: bool = Field(description="whether a row may have several labels, or none")
    splits: dict[str, SplitSummary] = Field(description="one, called test: the rows scored")
    reading: DocumentFormat = Field(description="how a document becomes tokens")
    unknown_labels: dict[str, int] = Field(
        description="labels unknown to the model, and their rows"
    )
    findings: list[FindingSummary] = Field(description="what was wrong with rows")
    hash: str = Field(description="SHA-256 of the texts and classes that were scored")


class ScopeCounts(Section):
    known: Flagged | None = Field(description="documents of labels that the model knows")
    unknown: Flagged | None = Field(
        description="documents of other labels, with --unknown-labels wrong; null: there are none"
    )
    auroc: float | None = Field(
        description="the chance that one of the others has a higher score; null without others"
    )
    auroc_interval: Interval | None = Field(description="its 95 % interval (DeLong)")


class Evaluation(Analysis):
    """A model on new labelled rows: all numbers."""

    schema_version: int = Field(SCHEMA, alias="schema", description="version of these keys")
    started: str = Field(description="local time, ISO 8601")
    seconds: float = Field(description="time that tokenizing and computing took")
    model: EvaluatedModel = Field(description="the model")
    data: EvaluatedData = Field(description="the rows")
    drift: Drift | None = Field(
        description="the rows beside the run's test split; null: the run is not known, its test "
        "split has no labels, or these are its rows"
    )
    scope: ScopeCounts | None = Field(
        None, description="what the model calls out of scope; null: it has no detector"
    )
    is_test_of_run: bool = Field(description="whether these are the rows of the run's test split")
    machine: Machine = Field(description="the computer")
    versions: dict[str, str] = Field(description="of Python and the libraries")

    def as_json(self) -> dict[str, Any]:
        """What the file holds: the evaluation first, then its analysis."""
        values = self.model_dump(mode="json", by_alias=True)
        late = {name: values.pop(name) for name in Analysis.model_fields}
        return values | late
