"""The runs of several seeds → `seeds.json`: the mean and the spread of their scores."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from finetune.config.schema import Recipe
from finetune.evaluation.analysis_model import Section
from finetune.reporting.narrative import main_metric
from finetune.reporting.results_model import read_results
from finetune.runtime.atomic_files import write_json
from finetune.runtime.console import format_table


class Spread(Section):
    values: list[float] = Field(description="one for each seed, in their order")
    mean: float = Field(description="their mean")
    sd: float | None = Field(description="sample standard deviation (n - 1); null for one seed")
    low: float = Field(description="the lowest")
    high: float = Field(description="the highest")


class SeedsSummary(Section):
    """What `seeds.json` holds."""

    recipe: str | None = Field(description="name of the recipe")
    seeds: list[int] = Field(description="run.seeds")
    runs: list[str] = Field(description="the folder of each seed's run")
    main: str = Field(description="the metric that a report names first")
    validation: dict[str, Spread] = Field(description="by metric; empty without validation")
    test: dict[str, Spread] = Field(description="by metric; empty where test has no labels")

    @property
    def split(self) -> str:
        """The split to report: test where it has labels."""
        return "test" if self.test else "validation"

    @property
    def scores(self) -> dict[str, Spread]:
        return self.test or self.validation

    @property
    def main_spread(self) -> Spread:
        return self.scores.get(self.main) or self.scores["loss"]


def summarize_seeds(recipe: Recipe, folders: Sequence[Path]) -> SeedsSummary:
    """The scores of finished runs that differ in their seed.

    Raises:
        InputError: where a run's results cannot be read.
    """
    runs = [read_results(folder) for folder in folders]
    return SeedsSummary(
        recipe=recipe.run.name,
        seeds=list(recipe.run.seeds or ()),
        runs=[folder.name for folder in folders],
        main=main_metric(runs[0]),
        validation={
            name: _spread([run.validation.metric(name) for run in runs])
            for name in runs[0].validation.intervals
        },
        test={
            name: _spread([run.test.metric(name) for run in runs])
            for name in runs[0].test.intervals
        },
    )


def write_seeds(summary: SeedsSummary, folder: Path) -> None:
    """Write `seeds.json`."""
    write_json(folder / "seeds.json", summary.model_dump(mode="json"))


def _spread(values: Sequence[float | None]) -> Spread:
    numbers = [float("nan") if value is None else value for value in values]
    return Spread(
        values=numbers,
        mean=statistics.fmean(numbers),
        sd=statistics.stdev(numbers) if len(numbers) > 1 else None,
        low=min(numbers),
        high=max(numbers),
    )


def format_seeds(summary: SeedsSummary) -> str:
    """Mean and spread of each metric, as a table."""
    rows = [(f"{summary.split}, {len(summary.seeds)} seeds", "mean", "sd", "lowest", "highest")]
    for name, one in summary.scores.items():
        sd = "" if one.sd is None else f"{one.sd:.4f}"
        rows.append((name, f"{one.mean:.4f}", sd, f"{one.low:.4f}", f"{one.high:.4f}"))
    return format_table(rows)
