"""What a leaderboard of runs holds: its types, its keys and what each means."""

from typing import Any

from pydantic import Field

from finetune.evaluation.analysis_model import MetricInterval, Number, Section


class RankedRun(Section):
    """A finished run."""

    run: str = Field(description="the run's folder")
    rank: int | None = Field(
        description="in its group, by validation; null: it has no validation score"
    )
    recipe: str | None = Field(description="name of the recipe")
    started: str = Field(description="local time, ISO 8601")
    encoder: str = Field(description="folder or Hub id of the encoder")
    train_rows: int = Field(description="documents of train")
    validation_rows: int = Field(description="documents of validation")
    validation: Number = Field(description="the group's metric on validation")
    validation_interval: MetricInterval = Field(description="its 95 % interval")
    test: Number = Field(description="the group's metric on test; null where test has no labels")
    test_interval: MetricInterval = Field(description="its 95 % interval")
    minutes: float = Field(description="time in the training loop")
    settings: dict[str, Any] = Field(
        description="keys of the recipe that are not the same in all runs of some group"
    )
    failures: list[str] = Field(
        description="what could not be made beside its numbers, and what is left to do"
    )


class Group(Section):
    """Runs that were tested on the same rows."""

    test: str = Field(description="SHA-256 of the test split")
    source: str = Field(description="data.source of the newest run")
    labels: int = Field(description="how many labels there are")
    test_rows: int = Field(description="test documents")
    metric: str = Field(description="what the runs are ranked by: what picks most of their models")
    keys: list[str] = Field(description="keys of the recipe that differ in this group")
    notes: list[str] = Field(description="what makes the ranks less certain than they look")
    runs: list[RankedRun] = Field(description="the best on validation first")


class OtherRun(Section):
    """A run without results that could be ranked."""

    run: str = Field(description="the run's folder")
    state: str = Field(description="running, unfinished or broken")
    why: str = Field(description="what is known of it")


class Leaderboard(Section):
    """All runs in some folders."""

    folders: list[str] = Field(description="where they were looked for")
    groups: list[Group] = Field(description="by test rows, the group with most runs first")
    others: list[OtherRun] = Field(description="runs that are not finished, or cannot be read")
