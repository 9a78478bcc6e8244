"""What a comparison of runs holds: its types, its keys and what each means."""

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, Field

from finetune.evaluation.analysis_model import Interval, Number, Section
from finetune.reporting import compare
from finetune.reporting.html_report import template_environment
from finetune.reporting.number_formats import format_interval, format_score


class ComparedRun(Section):
    model_config = ConfigDict(extra="allow")

    run: str = Field(description="the run's folder")
    recipe: str | None = Field(description="name of the recipe")
    model: str = Field(description="folder or Hub id of the encoder")
    accuracy: float = Field(description="on test (multi-label: of whole rows)")
    accuracy_interval: Interval = Field(description="95 % interval (Wilson)")
    f1_macro: float = Field(description="macro-F1 on test")
    f1_macro_interval: Interval = Field(description="95 % interval (bootstrap)")
    ece: Number = Field(description="expected calibration error on test")
    loss: Number = Field(description="mean cross-entropy on test, in nats")
    seconds: float = Field(description="time in the training loop")


class Difference(Section):
    difference: float = Field(description="the second run's score minus the first's")
    interval: Interval = Field(description="95 % interval (paired bootstrap over documents)")


class ComparedPair(Section):
    model_config = ConfigDict(extra="allow")

    one: str = Field(description="the first run's folder")
    other: str = Field(description="the second run's folder")
    accuracy: Difference = Field(description="of accuracy")
    f1_macro: Difference = Field(description="of macro-F1")
    monitor: str = Field(description="the metric that the verdict is about: accuracy or f1_macro")
    only_one_right: int = Field(description="documents that only the first run gets right")
    only_other_right: int = Field(description="documents that only the second run gets right")
    p: float = Field(description="McNemar's exact test")
    p_holm: float = Field(description="the same, corrected for the number of pairs (Holm)")


class Comparison(Section):
    """Runs of the same test rows: the scores of each, and each pair's differences."""

    model_config = ConfigDict(extra="allow")

    rows: int = Field(description="test documents")
    test: str = Field(description="SHA-256 of the test split")
    runs: list[ComparedRun] = Field(description="in the order in which they were passed")
    pairs: list[ComparedPair] = Field(description="each two of them")

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Comparison":
        """What `compare.compare_runs` found, typed."""
        return cls.model_validate(found)

    @property
    def verdicts(self) -> list[str]:
        """A sentence for each pair: which of the two is better, if that is clear."""
        return [compare.describe_pair(pair) for pair in self.model_dump()["pairs"]]

    def __str__(self) -> str:
        return "\n".join([compare.as_text(self.model_dump()), "", *self.verdicts])

    def _repr_html_(self) -> str:
        columns = ["", "accuracy", "95 % interval", "f1_macro", "95 % interval"]
        rows = [
            [
                run.run,
                format_score(run.accuracy),
                format_interval(run.accuracy_interval),
                format_score(run.f1_macro),
                format_interval(run.f1_macro_interval),
            ]
            for run in self.runs
        ]
        return (
            template_environment()
            .get_template("run_summary.html")
            .render(
                headline=f"{len(rows)} runs on the same {self.rows:,} documents",
                columns=columns,
                rows=rows,
                sentences=self.verdicts,
                report="",
            )
        )
