"""What a comparison of runs holds: its types, its keys and what each means; the gist of it."""

from pydantic import Field

from finetune.evaluation.analysis_model import Interval, Number, Section
from finetune.reporting.html_report import template_environment
from finetune.reporting.number_formats import (
    format_interval,
    format_score,
    format_seconds,
    name_metric,
    short_names,
    signed,
)
from finetune.reporting.run_differences import Setting
from finetune.runtime.console import format_table

SIGNIFICANT = 0.05  # a p-value below it
Names = str | list[str]  # a row's label, or where it may have several, their list


class ComparedRun(Section):
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
    left_over: str | None = Field(None, description="what is left to do in the run")


class Difference(Section):
    difference: float = Field(description="the second run's score minus the first's")
    interval: Interval = Field(description="95 % interval, paired by document")


class ComparedLabel(Section):
    """How the scores of one label differ between two runs."""

    label: str = Field(description="name of the label")
    support: int = Field(description="test documents that have it")
    f1_one: float = Field(description="F1 of the first run")
    f1_other: float = Field(description="F1 of the second run")
    f1: Difference = Field(description="of F1 (Bayesian bootstrap)")
    recall_one: float = Field(description="recall of the first run")
    recall_other: float = Field(description="recall of the second run")
    recall: Difference = Field(description="of recall (Bonett and Price)")
    p: float = Field(description="that F1 differs by chance (randomization test, exact)")
    p_holm: float = Field(description="the same, corrected for all labels of all pairs (Holm)")

    @property
    def changed(self) -> bool:
        return self.p_holm < SIGNIFICANT


class ChangedDocument(Section):
    """A test document that one of two runs gets right, and the other wrong."""

    row: str = Field(description="where the row comes from")
    id: str | int | float | bool | None = Field(
        description="its identifier; null without `data.id`"
    )
    text: str = Field(description="how it begins; empty for runs of earlier versions")
    label: Names = Field(description="the true label (multi-label: the list of them)")
    one: Names = Field(description="what the first run predicts")
    other: Names = Field(description="what the second run predicts")
    probability_one: float = Field(
        description="what the first run gives the true label (multi-label: the right decisions, "
        "on average)"
    )
    probability_other: float = Field(description="what the second run gives it")


class ComparedPair(Section):
    one: str = Field(description="the first run's folder")
    other: str = Field(description="the second run's folder")
    accuracy: Difference = Field(description="of accuracy")
    f1_macro: Difference = Field(description="of macro-F1")
    monitor: str = Field(description="the metric that the verdict is about: accuracy or f1_macro")
    both_right: int = Field(description="documents that both runs get right")
    both_wrong: int = Field(description="documents that both runs get wrong")
    only_one_right: int = Field(description="documents that only the first run gets right")
    only_other_right: int = Field(description="documents that only the second run gets right")
    p: float = Field(description="McNemar's exact test of the last two")
    p_holm: float = Field(description="the same, corrected for the number of pairs (Holm)")
    gained: list[str] = Field(description="labels whose F1 is higher in the second run, by p_holm")
    lost: list[str] = Field(description="labels whose F1 is lower in the second run, by p_holm")
    labels: list[ComparedLabel] = Field(
        description="each label that a test document has, the largest difference in F1 first"
    )
    worsened: list[ChangedDocument] = Field(
        description="documents that only the first run gets right, the largest fall first"
    )
    improved: list[ChangedDocument] = Field(
        description="documents that only the second run gets right, the largest rise first"
    )

    @property
    def verdict(self) -> str:
        """Which of two runs is better, in a sentence."""
        gap = self.f1_macro if self.monitor == "f1_macro" else self.accuracy
        low, high = (signed(100 * end) for end in gap.interval)
        differs = gap.interval[0] > 0 or gap.interval[1] < 0
        better, worse = self.one, self.other
        if gap.difference > 0:
            better, worse = worse, better
        certainty = f"95 % interval {low} to {high}"
        if self.monitor == "accuracy":
            differs = self.p_holm < SIGNIFICANT
            certainty += f", p = {self.p_holm:.2g}"
        if differs:
            conclusion = f"{better} is better than {worse}"
        else:
            conclusion = f"No clear difference between {self.other} and {self.one}"
        return (
            f"{conclusion}: {signed(100 * gap.difference)} points of {name_metric(self.monitor)} "
            f"for {self.other} ({certainty})."
        )


class Comparison(Section):
    """Runs of the same test rows: what differs, the scores of each, each pair's differences."""

    rows: int = Field(description="test documents")
    test: str = Field(description="SHA-256 of the test split")
    runs: list[ComparedRun] = Field(description="in the order in which they were passed")
    settings: list[Setting] = Field(
        description="keys of the recipes that differ, as recipe.yaml of each run has them"
    )
    identity: list[Setting] = Field(
        description="what else differs: documents, tokens, weights, hardware, versions"
    )
    pairs: list[ComparedPair] = Field(description="each two of them")

    @property
    def verdicts(self) -> list[str]:
        """A sentence for each pair: which of the two is better, if that is clear."""
        return [pair.verdict for pair in self.pairs]

    @property
    def notes(self) -> list[str]:
        """The runs that have their scores and are not finished, and what is left to do."""
        return [f"{run.run}: {run.left_over}" for run in self.runs if run.left_over]

    @property
    def table(self) -> str:
        """The scores, of at most 80 columns."""
        names = short_names([run.run for run in self.runs], 26)
        rows = [("", "accuracy", "95 % interval", "f1_macro", "ECE", "trained")]
        rows += [
            (
                name,
                f"{run.accuracy:.4f}",
                format_interval(run.accuracy_interval),
                f"{run.f1_macro:.4f}",
                format_score(run.ece, 3),
                format_seconds(run.seconds),
            )
            for name, run in zip(names, self.runs, strict=True)
        ]
        return format_table(rows, indent=0)

    def __str__(self) -> str:
        return "\n".join([self.table, "", *self.notes, *self.verdicts])

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
                sentences=[*self.notes, *self.verdicts],
                report="",
            )
        )
